"""Runs of the whole engine against closed forms, limits and identities of the equations (tests/systems/README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from systems.limits import LazyStart, MeanField, NoiseScaling, Overlap, Population
from systems.linear_network import LinearNeuron
from systems.pspin_quadratic import QuadraticPSpin

import dmft
from dmft import config
from dmft.solution import Solution

CUBIC = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
QUADRATIC = dmft.Activation.from_covariance([0, 0.9, 0.5])


def symmetric(**changes: Any) -> dmft.SymmetricProblem:
    given: dict[str, Any] = {
        "width": 16,
        "alpha": 0.3,
        "activation": CUBIC,
        "target": dmft.Target.same_as(CUBIC),
        "noise_std": 0.6,
        "a0": 1.0,
    }
    given |= changes
    return dmft.SymmetricProblem(**{key: value for key, value in given.items() if value is not ...})


def overlap_of(problem: Any) -> Overlap:
    form = problem.formulation()
    return Overlap(form.overlap_exponents, form.overlap_coefficients)


# p = 2.


def quadratic_deviation(run: Solution, first: float = 0.0) -> dict[str, float]:
    exact = QuadraticPSpin()
    t = run.two_time.t
    late, early = np.meshgrid(t, t, indexing="ij")
    found = {
        "correlation": np.abs(run.two_time.correlation[0] - exact.correlation(late, early)).max(),
        "energy": np.abs(run.energy - exact.energy(run.t)).max(),
    }
    integrated = run.two_time.integrated_response[0]
    for cut in (0.2, 0.5):
        worst = 0.0
        for n in np.linspace(max(len(t) // 4, np.searchsorted(t, first)), len(t) - 1, 10).astype(int):
            j = np.arange(0, n, max(1, n // 20))
            j = j[t[n] - t[j] > cut * t[n]]
            worst = max(worst, float(np.abs(integrated[n, j] - exact.integrated_response(t[n], t[j])).max()))
        found[f"integrated response beyond {cut:g} t"] = worst
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize(("t_final", "rtol"), [(20.0, 1e-6), (20.0, 1e-7), (1e6, 1e-6)])
def test_quadratic_pspin(t_final: float, rtol: float) -> None:
    run = dmft.solve(dmft.PSpinProblem(covariance=[0, 0, 1.0]), t_final, rtol=rtol)
    assert run.status.ok
    found = quadratic_deviation(run)
    # What rtol promises of every curve.
    assert found["correlation"] < 3 * rtol, found
    assert found["energy"] < 3 * rtol, found


@pytest.mark.parametrize(
    ("t_final", "rtol", "first"), [(20.0, 3e-8, 0.0), pytest.param(1e6, 1e-6, 1e3, marks=pytest.mark.slow)]
)
def test_quadratic_pspin_to_a_millionth(t_final: float, rtol: float, first: float) -> None:
    # The integrated response is read from R_nk over quadrature weights, which carries the parasitic modes of the
    # formula: they have died out some 25 rows from the diagonal for K = 4, here at t - s = t/2. Nearer it is worse:
    # docs/numerics.md.
    run = dmft.solve(dmft.PSpinProblem(covariance=[0, 0, 1.0]), t_final, rtol=rtol, method="bdf4")
    found = quadratic_deviation(run, first)
    assert found["correlation"] < 1e-6, found
    assert found["energy"] < 1e-6, found
    assert found["integrated response beyond 0.5 t"] < 1e-6, found


@pytest.mark.parametrize("t", [1.0, 5.0, 20.0])
def test_quadratic_pspin_pointwise_response(t: float) -> None:
    run = dmft.solve(dmft.PSpinProblem(covariance=[0, 0, 1.0]), 20.0, rtol=1e-6)
    s = t * np.array([0.0, 0.05, 0.1, 0.2, 0.3, 0.4])
    # Further than half of t from the diagonal steps are small against t - s.
    np.testing.assert_allclose(run.response(t, s), QuadraticPSpin().response(t, s), atol=1e-3, rtol=0)


# One linear neuron, where the residual sector is exact.


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_linear_neuron(alpha: float) -> None:
    system = LinearNeuron(alpha=alpha, a=1.3, c=0.7, f=0.4, offset=0.9, v0=0.3)
    problem = dmft.SymmetricProblem(
        width=1,
        alpha=alpha,
        activation=dmft.Activation.from_covariance([0, 0.7]),
        target=dmft.Target.from_overlap([0, 0.4], power=0.5),
        noise_std=np.sqrt(0.4),
        a0=1.3,
        v0=0.3,
        train_second_layer=False,
    )
    rtol = 1e-5
    run = dmft.solve(problem, 10.0, rtol=rtol)
    exact = system.curves(run.t)
    # The promise of rtol, curves of order one.
    np.testing.assert_allclose(run.v, exact.v, atol=3 * rtol, rtol=0)
    np.testing.assert_allclose(run.train_error, exact.train_error, rtol=3 * rtol)
    np.testing.assert_allclose(run.test_error, exact.test_error, atol=3 * rtol, rtol=0)
    np.testing.assert_allclose(run.two_time.correlation[0], exact.correlation, atol=3 * rtol, rtol=0)


# Large width.


def lazy_deviation(width: int, target: dmft.Target, rtol: float) -> float:
    problem = symmetric(width=width, target=target, a0=..., gamma0=0.8)
    form = problem.formulation()
    slope = overlap_of(problem).gradient(np.zeros(1)) if len(form.overlap_exponents) else np.zeros(1)
    system = LazyStart(0.3, 0.8, form.covariance, slope, form.offset)
    run = dmft.solve(problem, 10.0 / width, rtol=rtol)
    t1 = width * run.t
    worst = max(
        np.abs(run.train_error - system.error(t1)).max(),
        np.abs(run.test_error - system.error(t1)).max(),
        np.abs(np.sqrt(width) * run.v - system.overlap(t1)[:, 0]).max(),
        np.abs(run.two_time.correlation[0] - system.correlation_s(t1, t1)).max(),
    )
    return float(worst)


@pytest.mark.parametrize("target", [dmft.Target.noise(), dmft.Target.same_as(CUBIC)], ids=["noise", "index"])
def test_lazy_start_has_corrections_of_order_one_over_width(target: dmft.Target) -> None:
    widths = np.array([100, 1000, 10_000])
    deviations = np.array([lazy_deviation(int(width), target, 1e-5) for width in widths])
    power = np.polyfit(np.log(widths), np.log(deviations), 1)[0]
    # Next corrections are 1/m smaller, but 1/m x 10 of them at t1 = 10 and m = 100.
    assert power == pytest.approx(-1.0, abs=0.06), deviations
    assert deviations[-1] < 20 / widths[-1]


@pytest.mark.parametrize("train", [True, False])
def test_mean_field_at_width_a_million(train: bool) -> None:
    problem = symmetric(width=10**6, train_second_layer=train)
    form = problem.formulation()
    run = dmft.solve(problem, 20.0, rtol=1e-5)
    exact = MeanField(0.3, form.covariance, overlap_of(problem), form.offset, 1.0, np.zeros(1), train).curves(run.t)
    # 3 rtol and corrections t/m.
    np.testing.assert_allclose(run.a, exact.a[:, 0], atol=1e-4, rtol=0)
    np.testing.assert_allclose(run.v, exact.v[:, 0, 0], atol=1e-4, rtol=0)
    np.testing.assert_allclose(run.train_error, exact.error, atol=1e-4, rtol=0)
    np.testing.assert_allclose(run.test_error, exact.error, atol=1e-4, rtol=0)


def test_population_flow_at_large_alpha() -> None:
    a, v = np.array([1.0, -0.5, 0.7]), np.array([[0.3], [-0.2], [0.1]])
    gram = np.array([[1.0, 0.2, -0.1], [0.2, 1.0, 0.3], [-0.1, 0.3, 1.0]])
    deviations = []
    alphas = (1e2, 1e3, 1e4)
    for alpha in alphas:
        problem = dmft.GeneralProblem(
            alpha=alpha,
            activation=CUBIC,
            target=dmft.Target.same_as(CUBIC),
            noise_std=0.6,
            a0=a.tolist(),
            v0=v[:, 0].tolist(),
            gram0=gram.tolist(),
        )
        form = problem.formulation()
        run = dmft.solve(problem, 3.0 / alpha, rtol=1e-4)
        assert run.status.ok
        exact = Population(form.covariance, overlap_of(problem), form.offset, a, v, gram).curves(alpha * run.t)
        deviations.append(
            max(
                np.abs(run.a - exact.a).max(),
                np.abs(run.v - exact.v[:, :, 0]).max(),
                np.abs(run.train_error - exact.error).max(),
                np.abs(run.test_error - exact.error).max(),
            )
        )
    power = np.polyfit(np.log(alphas[:2]), np.log(deviations[:2]), 1)[0]
    assert power == pytest.approx(-1.0, abs=0.1), deviations  # corrections of order 1/alpha
    assert deviations[-1] < 1e-3  # of which 3 rtol


# Identities.


@pytest.mark.parametrize("factor", [0.3, 1.7])
def test_pure_noise_scaling(factor: float) -> None:
    scaling = NoiseScaling(factor)
    settings: dict[str, Any] = {"target": dmft.Target.noise(), "train_second_layer": False}
    rtol = 1e-4
    one = dmft.solve(symmetric(**settings), 20.0, rtol=rtol)
    scaled = symmetric(**settings, noise_std=0.6 * factor, a0=factor)
    two = dmft.solve(scaled, 20.0 / factor**2, rtol=rtol, times=scaling.time(one.t[1:-1]))
    rows = np.searchsorted(two.t, scaling.time(one.t) * (1 - 1e-12))
    # Two runs on different rows, each within rtol.
    np.testing.assert_allclose(two.train_error[rows], scaling.error(one.train_error), rtol=4 * rtol)
    np.testing.assert_allclose(two.test_error[rows], scaling.error(one.test_error), rtol=4 * rtol)
    np.testing.assert_allclose(
        two.two_time.correlation[1][np.ix_(rows, rows)], one.two_time.correlation[1], atol=4 * rtol, rtol=0
    )


IDENTITIES: dict[str, tuple[Any, float]] = {
    "index": (symmetric(), 40.0),
    "noise, fixed": (symmetric(target=dmft.Target.noise(), train_second_layer=False), 40.0),
    "lazy": (symmetric(width=64, a0=..., gamma0=1.0, target=dmft.Target.noise(), noise_std=2.5), 10.0),
    "wide": (symmetric(width=2**20), 20.0),
    "p-spin": (dmft.PSpinProblem(covariance=[0, 0, 0, 1.0]), 100.0),
    "plus and minus": (
        dmft.GroupedProblem(
            sizes=[8, 8], alpha=0.3, activation=QUADRATIC, target=dmft.Target.noise(), noise_std=0.6, a0=[1.0, -1.0]
        ),
        20.0,
    ),
}


def assert_identities(run: Solution, rtol: float) -> None:
    assert run.status.ok, run.message
    form = run.formulation
    rows = len(run.two_time.t)
    groups = form.groups
    modes = run.two_time.correlation
    blocks = np.zeros((rows, groups, rows, groups))
    for g in range(groups):
        for h in range(groups):
            blocks[:, g, :, h] = modes[g * groups + h]
    matrices = [blocks.reshape(rows * groups, rows * groups), *modes[groups * groups :]]
    if run.two_time.residual_correlation is not None:
        matrices.append(run.two_time.residual_correlation)
    for matrix in matrices:
        eigenvalues = np.linalg.eigvalsh(0.5 * (matrix + matrix.T))
        # Positive by construction; rows are solved to a ten thousandth of rtol, and the trace has ``rows`` of them.
        assert eigenvalues[0] > -1e-3 * rtol * max(1.0, eigenvalues[-1]), eigenvalues[0]
    for g in range(groups):
        size = float(form.sizes[g])
        diagonal = np.diagonal(modes[g * groups + g])
        if size > 1:
            place = groups * groups + int((form.sizes[:g] > 1).sum())
            diagonal = (diagonal + (size - 1) * np.diagonal(modes[place])) / size
        np.testing.assert_allclose(diagonal, 1.0, atol=1e-12)  # imposed
    for response in run.two_time.integrated_response:
        assert not np.triu(response).any()  # causality
    down = run.energy if run.problem.kind == "pspin" else run.train_error
    # Gradient flow: never up, beyond the error of a row.
    assert (np.diff(down) <= rtol * np.abs(down).max()).all()
    # The identity holds between derivatives, which the rows know worse than values: by the rows per scale of motion.
    late = run.t > 1e-3 * run.t[-1]
    assert np.median(run.energy_balance) < 10 * rtol
    assert run.energy_balance[late].max() < 300 * rtol, run.energy_balance[late].max()


@pytest.mark.parametrize("name", IDENTITIES)
def test_identities_hold(name: str) -> None:
    problem, t_final = IDENTITIES[name]
    assert_identities(dmft.solve(problem, t_final, rtol=1e-4), 1e-4)


@pytest.mark.parametrize(
    ("figure", "t_final"),
    [
        ("06", 5.0),
        ("07", 5.0),
        pytest.param("06", 40.0, marks=pytest.mark.slow),
        pytest.param("07", 40.0, marks=pytest.mark.slow),
    ],
)
def test_settings_of_the_paper_with_unequal_neurons(figure: str, t_final: float, repository: Path) -> None:
    """[MU] figures 6 and 7, settings 1 and 2."""
    paper = config.read(repository / "data" / "configs" / f"mu_fig{figure}.toml")
    run = dmft.solve(paper.problem, t_final, rtol=1e-3)
    assert_identities(run, 1e-3)
    assert run.train_error[-1] < 0.9 * run.train_error[0]
    if figure == "06":
        # a_1 = a_2 = -a_3 = -a_4 by symmetry, kept to the row tolerance; and f = 0, so the errors start at tau^2/2.
        for column, sign in ((1, 1.0), (2, -1.0), (3, -1.0)):
            np.testing.assert_allclose(sign * run.a[:, column], run.a[:, 0], atol=1e-6)
        assert run.train_error[0] == pytest.approx(0.5, rel=1e-12)
        assert run.test_error[0] == pytest.approx(0.5, rel=1e-12)
    else:
        assert (np.sign(run.a) == np.sign(run.a[0])).all()
