"""The compiled rows against the same equations solved another way, on equal grids.

The naive twin of ``naive.py`` (neuron by neuron, a general-purpose root finder), the three ways of writing one network,
and the discretised p = 2 model mode by mode: no discretisation error anywhere, so only solver tolerances are left.
"""

from __future__ import annotations

from typing import Any

import naive
import numpy as np
import pytest

from dmft.activations import Activation
from dmft.formulation import Formulation
from dmft.problems import GeneralProblem, GroupedProblem, Problem, PSpinProblem, SymmetricProblem
from dmft.targets import Target
from solvers.history import History
from solvers.marching import RowFailedError, march_on_grid

CUBIC = Activation.from_covariance([0, 0.9, 0, 1 / 6])
QUADRATIC = Activation.from_covariance([0, 0.9, 0.5])
TWO_LATENTS = Target.from_overlap({(1, 0): 0.5, (1, 2): 0.1}, power=1.0)

GRID = np.array([0.0, 0.05, 0.12, 0.2, 0.3, 0.42, 0.56, 0.7])
"""Uneven steps, enough rows for the formula of order 5."""

TOLERANCE = 1e-10
"""Both solvers stop at 1e-12 in C; sums over a dozen terms and rows in a chain make 3e-12 of it (measured)."""
RATE_TOLERANCE = 1e-9
"""nu is al_0 = O(30) times a small difference of functions known to 1e-12: 2e-11 measured."""


def symmetric(**changes: Any) -> SymmetricProblem:
    given: dict[str, Any] = {
        "width": 3,
        "alpha": 0.5,
        "activation": CUBIC,
        "target": Target.same_as(CUBIC),
        "noise_std": 0.6,
        "a0": 1.0,
        "v0": 0.2,
    }
    return SymmetricProblem(**(given | changes))


def grouped(**changes: Any) -> GroupedProblem:
    given: dict[str, Any] = {
        "sizes": [2, 1],
        "alpha": 0.5,
        "activation": QUADRATIC,
        "target": Target.same_as(QUADRATIC),
        "noise_std": 0.5,
        "a0": [1.0, -0.7],
        "v0": [0.2, -0.1],
    }
    return GroupedProblem(**(given | changes))


def general(**changes: Any) -> GeneralProblem:
    given: dict[str, Any] = {
        "alpha": 0.5,
        "activation": QUADRATIC,
        "target": Target.noise(),
        "noise_std": 1.0,
        "a0": [1.0, -0.5, 0.4],
        "gram0": [[1, 0.3, 0.1], [0.3, 1, -0.2], [0.1, -0.2, 1]],
    }
    return GeneralProblem(**(given | changes))


CASES: dict[str, Problem] = {
    "one": symmetric(width=1),
    "one noise": symmetric(width=1, target=Target.noise(), v0=0.0),
    "two noise": symmetric(width=2, target=Target.noise(), v0=0.0, noise_std=1.0),
    "three": symmetric(),
    "three fixed": symmetric(train_second_layer=False),
    "two latents": symmetric(width=2, target=TWO_LATENTS, v0=[0.1, 0.3]),
    "groups 2+1": grouped(),
    "groups 2+1 fixed": grouped(train_second_layer=False),
    "groups 1+2, two latents": grouped(
        sizes=[1, 2], a0=[1.0, 0.6], v0=[[0.2, 0.1], [-0.1, 0.3]], activation=CUBIC, target=TWO_LATENTS
    ),
    "general": general(),
    "general pair, index": general(
        a0=[1.0, -0.5], gram0=[[1, 0.3], [0.3, 1]], v0=[0.3, 0.1], target=Target.same_as(QUADRATIC)
    ),
    "twins": general(a0=[1.0, -1.0], gram0=[[1, 1], [1, 1]]),  # shared initial weights: a singular Gram matrix
    "p-spin": PSpinProblem(covariance=[0, 0, 0.5, 0.5]),
    "p-spin with field": PSpinProblem(covariance=[0, 0.3, 0, 1.0]),
}

QUICK = [
    *(("one", order) for order in range(1, 6)),
    *(("p-spin", order) for order in range(1, 6)),
    ("p-spin with field", 3),
    ("one noise", 4),
    ("two noise", 1),
    ("three", 5),
    ("three fixed", 2),
    ("two latents", 3),
    ("groups 2+1", 1),
    ("groups 2+1", 4),
    ("groups 2+1 fixed", 2),
    ("groups 1+2, two latents", 5),
    ("general", 3),
    ("general pair, index", 2),
    ("twins", 2),
]
ALL = [
    pytest.param(name, order, marks=[] if (name, order) in QUICK else pytest.mark.slow, id=f"{name}, order {order}")
    for name in CASES
    for order in range(1, 6)
]


def elements(form: Formulation, modes_s: np.ndarray, modes_t: np.ndarray, rows: int) -> np.ndarray:
    """(N, N, m, m) elements between neurons of a two-time function kept in modes."""
    groups = form.groups
    s = modes_s[: rows * groups, : rows * groups].reshape(rows, groups, rows, groups).transpose(0, 2, 1, 3)
    group = np.repeat(np.arange(groups), form.sizes)
    slot = {int(g): place for place, g in enumerate(np.flatnonzero(form.sizes > 1))}
    result = np.zeros((rows, rows, form.width, form.width))
    for i, g in enumerate(group):
        for j, h in enumerate(group):
            if g != h:
                result[:, :, i, j] = s[:, :, g, h] / np.sqrt(form.sizes[g] * form.sizes[h])
            elif form.sizes[g] == 1:
                result[:, :, i, j] = s[:, :, g, g]
            else:
                t = modes_t[slot[g], :rows, :rows]
                result[:, :, i, j] = (s[:, :, g, g] - t) / form.sizes[g] + (t if i == j else 0.0)
    return result


def neurons_of(form: Formulation, history: History) -> dict[str, np.ndarray]:
    """Everything in the history, neuron by neuron, under the names of ``naive.Rows``."""
    n, tables = history.rows, history.tables
    group = np.repeat(np.arange(form.groups), form.sizes)
    result = {
        "a": tables.a[:n][:, group],
        "v": (tables.v[:n] / np.sqrt(form.sizes)[None, :, None])[:, group],
        "nu": history.nu[:n][:, group],
        "correlation": elements(form, tables.c_s, tables.c_t, n),
        "response": elements(form, tables.r_s, tables.r_t, n),
    }
    if form.residual_sector:
        result |= {
            "residual_correlation": history.c_r[:n, :n],
            "residual_response": tables.r_a[:n, :n],
            "q": tables.q[:n, :n],
            "s_r": tables.s_r[:n, :n],
        }
    return result


def deviations(form: Formulation, history: History, rows: naive.Rows) -> dict[str, float]:
    """Largest differences, each over its tolerance."""
    found = {}
    for name, have in neurons_of(form, history).items():
        want = getattr(rows, name)
        if name == "nu":  # row 0 has none: no step was taken
            found[name] = float(np.abs(have[1:] - want[1:]).max()) / RATE_TOLERANCE
        else:
            found[name] = float(np.abs(have - want).max()) / TOLERANCE
    return found


@pytest.mark.parametrize(("name", "order"), ALL)
def test_rows_are_those_of_the_naive_twin(name: str, order: int) -> None:
    form = CASES[name].formulation()
    grid = GRID[: order + 2] if form.width > 2 else GRID  # the twin's cost grows as the cube of rows times m^2
    found = deviations(form, march_on_grid(form, grid, order), naive.multistep(form, grid, order))
    assert max(found.values()) < 1.0, found


def flip_curvature(kernels: Any) -> Any:
    """L with + C_r h'' R: half of the difference to R_A h' is twice that term."""

    def flipped(self: naive.Rows, net: naive.Neurons, n: int, weight: float) -> Any:
        big_l, big_n = kernels(self, net, n, weight)
        for k in range(n + 1):
            pair = net.form.alpha / net.m * np.outer(self.a[n], self.a[k])
            curvature = self.residual_correlation[n, k] * net.d2h(self.correlation[n, k]) * self.response[n, k] * weight
            big_l[k] += 2 * pair * curvature
        return big_l, big_n

    return flipped


def flip_noise(kernels: Any) -> Any:
    def flipped(self: naive.Rows, net: naive.Neurons, n: int, weight: float) -> Any:
        big_l, big_n = kernels(self, net, n, weight)
        return big_l, -big_n

    return flipped


def flip_offdiagonal(kernels: Any) -> Any:
    """The noise between different neurons: small, of order 1/m and of the overlap of their weights."""

    def flipped(self: naive.Rows, net: naive.Neurons, n: int, weight: float) -> Any:
        big_l, big_n = kernels(self, net, n, weight)
        return big_l, big_n * (2 * np.eye(net.m) - 1)

    return flipped


@pytest.mark.parametrize("flip", [flip_curvature, flip_noise, flip_offdiagonal])
def test_a_wrong_sign_would_be_seen(flip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above resolves every term of the kernels by orders of magnitude."""
    form = CASES["general pair, index"].formulation()
    history = march_on_grid(form, GRID[:4], 2)
    monkeypatch.setattr(naive.Rows, "kernels", flip(naive.Rows.kernels))
    found = deviations(form, history, naive.multistep(form, GRID[:4], 2))
    assert found["correlation"] > 1e3, found


# One network written in three ways.

SMOOTH = 4.0 * np.expm1(3.0 * np.linspace(0.0, 1.0, 26)) / np.expm1(3.0)
"""26 rows to t = 4, steps growing by 1.13: past the first fall of the errors."""


def one_network(target: Target, v0: float, train: bool) -> dict[str, Problem]:
    common: dict[str, Any] = {
        "alpha": 0.4,
        "activation": CUBIC,
        "target": target,
        "noise_std": 0.6,
        "train_second_layer": train,
    }
    return {
        "symmetric": SymmetricProblem(width=4, a0=0.9, v0=v0, **common),
        "halves": GroupedProblem(sizes=[2, 2], a0=[0.9] * 2, v0=[v0] * 2, **common),
        "one and the rest": GroupedProblem(sizes=[1, 3], a0=[0.9] * 2, v0=[v0] * 2, **common),
        "general": GeneralProblem(a0=[0.9] * 4, v0=[v0] * 4, **common),
    }


@pytest.mark.parametrize("order", [1, 4, *(pytest.param(order, marks=pytest.mark.slow) for order in (2, 3, 5))])
@pytest.mark.parametrize(
    ("target", "v0", "train"),
    [(Target.noise(), 0.0, False), (Target.noise(), 0.0, True), (Target.same_as(CUBIC), 0.1, True)],
    ids=["noise fixed", "noise trained", "index"],
)
def test_symmetric_grouped_and_general_agree(target: Target, v0: float, train: bool, order: int) -> None:
    problems = one_network(target, v0, train)
    runs = {
        name: neurons_of(p.formulation(), march_on_grid(p.formulation(), SMOOTH, order)) for name, p in problems.items()
    }
    for name, run in runs.items():
        for quantity, want in runs["symmetric"].items():
            # Rows solved to 1e-12 each, 26 of them in a chain that hardly amplifies; nu times al_0, up to 40 early on.
            limit = 1e-8 if quantity == "nu" else 1e-10
            np.testing.assert_allclose(run[quantity], want, atol=limit, rtol=0, err_msg=f"{name}: {quantity}")


def test_grouped_and_general_agree_on_unequal_groups() -> None:
    common: dict[str, Any] = {
        "alpha": 0.4,
        "activation": QUADRATIC,
        "target": Target.same_as(QUADRATIC),
        "noise_std": 0.5,
    }
    two = GroupedProblem(sizes=[2, 2], a0=[1.0, -0.6], v0=[0.2, 0.0], **common)
    four = GeneralProblem(a0=[1.0, 1.0, -0.6, -0.6], v0=[0.2, 0.2, 0.0, 0.0], **common)
    one, other = (neurons_of(p.formulation(), march_on_grid(p.formulation(), SMOOTH, 4)) for p in (two, four))
    for quantity, want in one.items():
        limit = 1e-8 if quantity == "nu" else 1e-10  # as above
        np.testing.assert_allclose(other[quantity], want, atol=limit, rtol=0, err_msg=quantity)


def test_relabelled_neurons_give_relabelled_rows() -> None:
    order = [2, 0, 1]
    gram = np.array(general().gram0, dtype=float)
    one = general(v0=[0.1, 0.2, -0.1], target=Target.same_as(QUADRATIC))
    other = general(
        a0=np.array(one.a0, dtype=float)[order].tolist(),
        v0=[-0.1, 0.1, 0.2],
        gram0=gram[np.ix_(order, order)].tolist(),
        target=Target.same_as(QUADRATIC),
    )
    runs = [neurons_of(p.formulation(), march_on_grid(p.formulation(), GRID, 3)) for p in (one, other)]
    # Solved to 1e-12.
    np.testing.assert_allclose(runs[1]["a"], runs[0]["a"][:, order], atol=1e-10, rtol=0)
    np.testing.assert_allclose(
        runs[1]["correlation"], runs[0]["correlation"][:, :, order][:, :, :, order], atol=1e-10, rtol=0
    )


# The discretised p = 2 model is linear up to its norm: every eigenvalue of the random form is a mode of its own.


def quadratic_twin(grid: np.ndarray, order: int, points: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """C, R and nu of the multistep flow with covariance q^2, averaged over the semicircle of radius 2 sqrt2.

    Gauss-Chebyshev quadrature of the second kind: geometric convergence as long as al_0 + nu stays off the edge.
    """
    angle = np.pi * np.arange(1, points + 1) / (points + 1)
    eigenvalue = 2.0 * np.sqrt(2.0) * np.cos(angle)
    weight = 2.0 / (points + 1) * np.sin(angle) ** 2
    size = len(grid)
    w = np.zeros((size, points))
    response = np.zeros((size, size, points))
    nu = np.zeros(size)
    w[0] = 1.0
    for n in range(1, size):
        used = min(order, n)
        al = naive.derivative_weights(grid[n - np.arange(used + 1)], grid[n])
        past = -sum(al[i] * w[n - i] for i in range(1, used + 1))
        low, high = (
            np.sqrt(8.0) * (1.0 + 1e-12),
            1e3 * (al[0] + 10.0),
        )  # A = al_0 + nu beyond the edge: |w|^2 falls with A
        for _ in range(200):
            middle = 0.5 * (low + high)
            if weight @ (past / (middle - eigenvalue)) ** 2 > 1.0:
                low = middle
            else:
                high = middle
        a = 0.5 * (low + high)
        nu[n] = a - al[0]
        w[n] = past / (a - eigenvalue)
        for k in range(1, n + 1):
            source = (1.0 if k == n else 0.0) - sum(al[i] * response[n - i, k] for i in range(1, used + 1))
            response[n, k] = source / (a - eigenvalue)
    return w * weight @ w.T, response @ weight, nu


@pytest.mark.parametrize("order", range(1, 6))
def test_quadratic_pspin_is_the_linear_multistep_flow(order: int) -> None:
    grid = 4.0 * np.expm1(6.0 * np.linspace(0.0, 1.0, 71)) / np.expm1(6.0)
    history = march_on_grid(PSpinProblem(covariance=[0, 0, 1.0]).formulation(), grid, order)
    correlation, response, nu = quadratic_twin(grid, order)
    n = history.rows
    # Row tolerance 1e-12, 70 rows; the bisection stops at rounding.
    np.testing.assert_allclose(history.tables.c_s[:n, :n], correlation, atol=1e-10, rtol=0)
    np.testing.assert_allclose(history.tables.r_s[:n, :n], response, atol=1e-10, rtol=0)
    # nu is known to rounding times al_0 = 600 at the start; later errors of C in the fourth power of 1/(A - edge).
    np.testing.assert_allclose(history.nu[1:n], nu[1:, None], atol=1e-8, rtol=0)


# Digits at large width.


def test_halves_of_a_million_neurons_are_one_group_of_a_million() -> None:
    """C_o is 1e-6 here: were C_S formed as C_d + (m - 1) C_o, ten digits would be left at best."""
    common: dict[str, Any] = {"alpha": 0.3, "activation": CUBIC, "target": Target.same_as(CUBIC), "noise_std": 0.6}
    width = 2**20
    one = SymmetricProblem(width=width, a0=1.0, **common).formulation()
    two = GroupedProblem(sizes=[width // 2] * 2, a0=[1.0, 1.0], **common).formulation()
    single, double = (march_on_grid(form, SMOOTH, 4) for form in (one, two))
    n = single.rows
    # All of order one; solved to 1e-12.
    for g in range(2):
        np.testing.assert_allclose(double.tables.a[:n, g], single.tables.a[:n, 0], atol=1e-10, rtol=0)
        np.testing.assert_allclose(double.tables.c_t[g, :n, :n], single.tables.c_t[0, :n, :n], atol=1e-10, rtol=0)
    v = [history.tables.v[:n, 0, 0] / history.model.roots[0] for history in (single, double)]
    np.testing.assert_allclose(v[1], v[0], atol=1e-10, rtol=0)
    np.testing.assert_allclose(double.c_r[:n, :n], single.c_r[:n, :n], atol=1e-10, rtol=0)
    # C_S = m |v|^2 + O(1) grows to the width; relative to it.
    sums = double.tables.c_s[: 2 * n, : 2 * n].reshape(n, 2, n, 2).sum(axis=(1, 3)) / 2
    np.testing.assert_allclose(sums / width, single.tables.c_s[:n, :n] / width, atol=1e-10, rtol=0)


def test_noise_at_width_a_million_keeps_the_order_one_part_of_the_collective_mode() -> None:
    """Pure noise: C_S is of order one at any width, and its deviation from the limit falls as 1/m."""
    common: dict[str, Any] = {"alpha": 0.3, "activation": CUBIC, "target": Target.noise(), "noise_std": 0.6}
    found = []
    for power in (18, 19, 20):
        history = march_on_grid(SymmetricProblem(width=2**power, a0=1.0, **common).formulation(), SMOOTH, 4)
        n = history.rows
        found.append((history.tables.c_s[:n, :n].copy(), history.c_r[:n, :n].copy(), history.tables.a[:n].copy()))
    for first, second, third in zip(*found, strict=True):
        # f(m) = f + f_1/m + f_2/m^2 with f_i of order t^i: twice the second difference is the first, but for rounding.
        # Differences are of order 2^-19, so an error of rounding times m = 2e-10 in f would show as 1e-4 here.
        scale = np.abs(first - second).max()
        assert scale > 1e-8
        np.testing.assert_allclose(2 * (second - third), first - second, atol=1e-4 * scale + 1e-11, rtol=0)


def test_a_row_without_solution_is_an_error_with_its_time() -> None:
    form = PSpinProblem(covariance=[0, 0, 0, 1.0]).formulation()
    with pytest.raises(RowFailedError, match=r"row \d+ at t = "):
        march_on_grid(form, [0.0, 0.01, 50.0, 2000.0, 2e5], 4)
