"""The references are themselves checked, each by a route that shares nothing with it.

Closed forms against the Euler twin (which discretises the full two-time equations), the Euler twins against each
other, and the implicit twin against extrapolated Euler.
"""

from __future__ import annotations

from typing import Any

import naive
import numpy as np
import pytest
from reference import euler, richardson
from systems.limits import LazyStart, MeanField, NoiseScaling, Overlap, Population, e_lin
from systems.linear_network import LinearNeuron
from systems.pspin_quadratic import QuadraticPSpin, semicircle_average

from dmft.activations import Activation
from dmft.problems import GeneralProblem, GroupedProblem, Problem, PSpinProblem, SymmetricProblem
from dmft.targets import Target

CUBIC = Activation.from_covariance([0, 0.9, 0, 1 / 6])
QUADRATIC = Activation.from_covariance([0, 0.9, 0.5])


def symmetric(**changes: Any) -> SymmetricProblem:
    given: dict[str, Any] = {
        "width": 3,
        "alpha": 0.3,
        "activation": CUBIC,
        "target": Target.same_as(CUBIC),
        "noise_std": 0.6,
        "a0": 1.0,
        "v0": 0.2,
    }
    given |= changes
    return SymmetricProblem(**{key: value for key, value in given.items() if value is not ...})


def overlap_of(problem: Problem) -> Overlap:
    form = problem.formulation()
    return Overlap(form.overlap_exponents, form.overlap_coefficients)


# p = 2 p-spin.


class TestQuadraticPSpin:
    system = QuadraticPSpin()

    @pytest.mark.parametrize(("t", "s"), [(0.3, 0.0), (1.0, 0.3), (4.0, 1.0), (8.0, 7.5)])
    def test_correlation_and_response_are_averages_over_the_semicircle(self, t: float, s: float) -> None:
        phi = semicircle_average
        norm = np.sqrt(phi(2 * t) * phi(2 * s))
        # 400 Chebyshev nodes integrate exponentials up to exp(16 * 2 sqrt2) to rounding.
        assert self.system.correlation(t, s) == pytest.approx(phi(t + s) / norm, rel=1e-12)
        assert self.system.response(t, s) == pytest.approx(phi(t - s) * phi(2 * s) / norm, rel=1e-12)

    def test_energy_is_half_the_log_derivative_of_the_norm(self) -> None:
        for t in (0.05, 0.5, 3.0):
            step = 1e-5
            slope = np.log(semicircle_average(2 * t + step) / semicircle_average(2 * t - step)) / (2 * step)
            # A centred difference: step^2 plus rounding over step, both about 1e-10.
            assert self.system.energy(t) == pytest.approx(-slope / 2, abs=1e-8)

    def test_starts_are_exact(self) -> None:
        assert self.system.correlation(0.0, 0.0) == 1.0 and self.system.energy(0.0) == 0.0
        assert self.system.response(1e6, 1e6) == pytest.approx(1.0, abs=1e-15)
        # E(t) = -2 t + O(t^3): both sides of the switch between the series and the Bessel functions.
        for t in (1e-10, 1e-6):
            assert self.system.energy(t) == pytest.approx(-2 * t, rel=1e-10)

    def test_long_times_follow_the_asymptotic_series(self) -> None:
        # I_2/I_1 = 1 - 3/(2z) + O(z^-2), z = 4 sqrt2 t, so E + sqrt2 = 3/(8 t) + O(t^-2).
        assert (self.system.energy(1e6) + np.sqrt(2)) * 1e6 == pytest.approx(3 / 8, abs=1e-6)

    @pytest.mark.parametrize("t", [0.01, 1.0, 50.0, 1e6])
    def test_integrated_response_does_not_depend_on_the_quadrature(self, t: float) -> None:
        s = np.array([0.0, 0.1, 0.5, 0.99, 1.0]) * t
        coarse, fine = (self.system.integrated_response(t, s, points=points) for points in (20, 32))
        # t - u at t = 10^6 carries a rounding of 1e-10, which R near the diagonal turns into 1e-12.
        np.testing.assert_allclose(coarse, fine, atol=5e-12, rtol=0)
        assert fine[-1] == 0.0

    def test_integrated_response_has_response_as_derivative(self) -> None:
        t, s, step = 3.0, 1.2, 1e-3
        upper, lower = self.system.integrated_response(t, s - step), self.system.integrated_response(t, s + step)
        assert (upper - lower) / (2 * step) == pytest.approx(self.system.response(t, s), abs=1e-6)  # step^2

    def test_solves_the_two_time_equations(self) -> None:
        found = richardson(PSpinProblem(covariance=self.system.covariance), 0.04, 2.0, levels=4)
        t = found.curves.t
        late, early = np.meshgrid(t, t, indexing="ij")
        causal = late >= early
        # Four levels leave the step to the fourth power: 2e-8 .. 5e-8 measured.
        np.testing.assert_allclose(found.curves.energy, self.system.energy(t), atol=2e-7, rtol=0)
        np.testing.assert_allclose(found.curves.nu, self.system.nu(t), atol=4e-7, rtol=0)
        np.testing.assert_allclose(found.curves.correlation_s, self.system.correlation(late, early), atol=2e-7, rtol=0)
        integrated = self.system.integrated_response(late, early)
        np.testing.assert_allclose(found.curves.integrated_s[causal], integrated[causal], atol=4e-7, rtol=0)


# One linear neuron.


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_linear_neuron_solves_the_two_time_equations(alpha: float) -> None:
    system = LinearNeuron(alpha=alpha, a=1.3, c=0.7, f=0.4, offset=0.9, v0=0.3)
    eigenvalues, weights = system.spectrum()
    assert weights.sum() == pytest.approx(1.0, abs=1e-13)
    # Mean eigenvalue of a^2 c X^T X / d.
    assert weights @ eigenvalues == pytest.approx(alpha * 1.3**2 * 0.7, rel=1e-12)
    activation = Activation.from_covariance([0, 0.7])
    problem = SymmetricProblem(
        width=1,
        alpha=alpha,
        activation=activation,
        target=Target.from_overlap([0, 0.4], power=0.5),
        noise_std=np.sqrt(0.4),
        a0=1.3,
        v0=0.3,
        train_second_layer=False,
    )
    found = richardson(problem, 0.04, 2.0, levels=4)
    exact = system.curves(found.curves.t)
    # Fourth power of step times the fastest rate, which grows with alpha: 6e-8 and 4e-7 measured.
    limit = 2e-7 if alpha < 1 else 2e-6
    for name, have, want in (
        ("train", found.curves.train_error, exact.train_error),
        ("test", found.curves.test_error, exact.test_error),
        ("v", found.curves.v[:, 0], exact.v),
        ("nu", found.curves.nu, exact.nu),
        ("correlation", found.curves.correlation_s, exact.correlation),
        ("integrated", found.curves.integrated_s, exact.integrated_response),
    ):
        np.testing.assert_allclose(have, want, atol=limit, rtol=0, err_msg=name)


# Limits.


@pytest.mark.parametrize("latent", [1, 2])
def test_mean_field_is_the_limit_of_large_width(latent: int) -> None:
    target = Target.same_as(CUBIC) if latent == 1 else Target.from_overlap({(1, 0): 0.5, (1, 2): 0.1}, power=1.0)
    v0 = [0.2] if latent == 1 else [0.1, 0.3]
    t_final, deviations = 3.0, []
    for width in (10**3, 10**4):
        # S relaxes at alpha a^2 (m - 1) h'(C_o)/m = O(1) in the mean-field regime, so one step serves every width.
        problem = symmetric(width=width, target=target, v0=v0)
        found = richardson(problem, 0.1, t_final, levels=3).curves
        form = problem.formulation()
        exact = MeanField(
            alpha=form.alpha,
            covariance=form.covariance,
            overlap=overlap_of(problem),
            offset=form.offset,
            a0=1.0,
            v0=np.array(v0),
        ).curves(found.t)
        have = np.column_stack([found.a, found.v, found.train_error, found.test_error])
        want = np.column_stack([exact.a[:, 0], exact.v[:, 0], exact.error, exact.error])
        deviations.append(float(np.abs(have - want).max()))
    # Corrections are of order 1/m: theory section 4.
    assert 8.5 < deviations[0] / deviations[1] < 11.5
    assert deviations[1] < 10 / 10**4


def test_mean_field_reaches_the_target_algebraically() -> None:
    """At a = v = 1 the tangential force vanishes with 1 - v^2: the approach is 1/t, not exponential."""
    problem = symmetric()
    form = problem.formulation()
    system = MeanField(0.3, form.covariance, overlap_of(problem), form.offset, 1.0, np.array([0.2]))
    end = system.curves([1e4])
    h, dh, d2h = CUBIC.h(1.0), CUBIC.dh(1.0), CUBIC.d2h(1.0)
    # Expanding (2.10): a - 1 = h' (1 - v)/h follows, and d(1 - v)/dt = -2 alpha (h'' + h' - h'^2/h) (1 - v)^2.
    expected = 1 / (2 * 0.3 * (d2h + dh - dh**2 / h) * 1e4)
    assert 1 - end.v[0, 0, 0] == pytest.approx(expected, rel=1e-2)  # corrections log(t)/t
    assert end.a[0, 0] - 1 == pytest.approx(dh / h * expected, rel=1e-2)
    assert end.error[0] == pytest.approx(0.6**2 / 2, abs=2 * expected**2)  # the error is quadratic at its minimum


def lazy_problem(width: int, target: Target) -> SymmetricProblem:
    return symmetric(width=width, target=target, a0=..., gamma0=0.8, v0=0.0, train_second_layer=True)


@pytest.mark.parametrize("target", [Target.noise(), Target.same_as(CUBIC)], ids=["noise", "index"])
def test_lazy_start_is_the_limit_of_large_width(target: Target) -> None:
    deviations = []
    for width in (100, 1000):
        problem = lazy_problem(width, target)
        form = problem.formulation()
        slope = overlap_of(problem).gradient(np.zeros(1)) if len(form.overlap_exponents) else np.zeros(1)
        system = LazyStart(0.3, 0.8, form.covariance, slope, form.offset)
        found = richardson(problem, 0.5 / width, 10.0 / width, levels=3).curves
        t1 = found.t * width
        causal = np.tril(np.ones((len(t1), len(t1)), dtype=bool))
        # int R_S over t1 in closed form: (1 - exp(-r (t1 - s1)))/r.
        integrated = -np.expm1(-system.rate * (t1[:, None] - t1)) / system.rate
        worst = max(
            float(np.abs(found.train_error - system.error(t1)).max()),
            float(np.abs(found.test_error - system.error(t1)).max()),
            float(np.abs(np.sqrt(width) * found.v - system.overlap(t1)).max()),
            float(np.abs(found.correlation_s - system.correlation_s(t1, t1)).max()),
            float(np.abs(width * found.integrated_s - integrated)[causal].max()),
        )
        deviations.append(worst)
    assert 8.0 < deviations[0] / deviations[1] < 12.0  # corrections of order 1/m
    assert deviations[1] < 20 / 1000


def test_lazy_error_ends_at_the_linear_fit() -> None:
    slope = np.array([0.9])
    system = LazyStart(0.3, 0.8, CUBIC.covariance, slope, 1.5)
    assert system.error([1e3])[0] == pytest.approx(system.e_lin, rel=1e-12)
    assert system.e_lin == e_lin(0.8, CUBIC.covariance, slope, 1.5)
    # By hand: tau^2 + |phi|^2 - |g|^2/h'(0) + gamma^2 (h(1) - h'(0)) = 1.5 - 0.9 + 0.64/6.
    assert system.e_lin == pytest.approx((0.6 + 0.64 / 6) / 2, rel=1e-14)


def population_case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a0 = np.array([1.0, -0.5, 0.7])
    v0 = np.array([[0.3], [-0.2], [0.1]])
    gram = np.array([[1.0, 0.2, -0.1], [0.2, 1.0, 0.3], [-0.1, 0.3, 1.0]])
    return a0, v0, gram


def test_population_flow_is_gradient_flow_of_explicit_vectors() -> None:
    a, v, gram = population_case()
    problem = symmetric()
    form = problem.formulation()
    system = Population(form.covariance, overlap_of(problem), form.offset, a, v, gram)
    # Vectors with exactly these overlaps: U is the first axis, the rest a Cholesky factor.
    w = np.concatenate([v, np.linalg.cholesky(gram - v @ v.T)], axis=1)

    def error(a: np.ndarray, w: np.ndarray) -> float:
        return system.error(a, w[:, :1], w @ w.T)

    step = 1e-5
    grad_w, grad_a = np.zeros_like(w), np.zeros_like(a)
    for index in np.ndindex(w.shape):
        shift = np.zeros_like(w)
        shift[index] = step
        # In time alpha t and with abar = alpha m, dtheta = -(n/d) P grad Rhat dt = -m P grad e d(alpha t). The diagonal
        # of h(W W^T) is a constant of the flow: P projects its gradient out.
        grad_w[index] = len(a) * (error(a, w + shift) - error(a, w - shift)) / (2 * step)
    for i in range(len(a)):
        shift = np.zeros_like(a)
        shift[i] = step
        grad_a[i] = len(a) * (error(a + shift, w) - error(a - shift, w)) / (2 * step)
    dw = -grad_w + (grad_w * w).sum(axis=1, keepdims=True) * w
    da, dv, dgram = system.rates(a, v, gram)
    # Centred differences of a smooth function of order one: rounding over step.
    np.testing.assert_allclose(da, -grad_a, atol=1e-9, rtol=0)
    np.testing.assert_allclose(dv, dw[:, :1], atol=1e-9, rtol=0)
    np.testing.assert_allclose(dgram, dw @ w.T + w @ dw.T, atol=1e-9, rtol=0)


def test_population_flow_is_the_limit_of_large_alpha() -> None:
    a, v, gram = population_case()
    deviations = []
    for alpha in (100.0, 1000.0):
        problem = GeneralProblem(
            alpha=alpha, activation=CUBIC, target=Target.same_as(CUBIC), noise_std=0.6, a0=a, v0=v, gram0=gram
        )
        form = problem.formulation()
        system = Population(form.covariance, overlap_of(problem), form.offset, a, v, gram)
        runs = [naive.euler(form, 1.0 / steps / alpha, steps) for steps in (8, 16, 32)]
        exact = system.curves(alpha * runs[0].t)
        worst = 0.0
        for name, want in (("a", exact.a), ("v", exact.v), ("train_error", exact.error), ("test_error", exact.error)):
            first, second, third = (getattr(run, name)[::every] for run, every in zip(runs, (1, 2, 4), strict=True))
            have = (8 * third - 6 * second + first) / 3  # Richardson to third order
            worst = max(worst, float(np.abs(have - want).max()))
        deviations.append(worst)
    # O(1/alpha), down to what the extrapolation leaves.
    assert 8 < deviations[0] / deviations[1] < 12
    assert deviations[1] < 2e-3


def test_pure_noise_scaling() -> None:
    factor = 1.7
    scaling = NoiseScaling(factor)
    settings: dict[str, Any] = {"target": Target.noise(), "v0": 0.0, "train_second_layer": False}
    one = euler(symmetric(**settings), 0.1, 4.0)
    two = euler(symmetric(**settings, noise_std=0.6 * factor, a0=factor), float(scaling.time(0.1)), 4.0 / factor**2)
    # The Euler scheme has the same symmetry, so only rounding is left.
    np.testing.assert_allclose(two.t, scaling.time(one.t), rtol=1e-13)
    np.testing.assert_allclose(two.train_error, scaling.error(one.train_error), rtol=1e-11)
    np.testing.assert_allclose(two.test_error, scaling.error(one.test_error), rtol=1e-11)
    np.testing.assert_allclose(two.nu, scaling.error(one.nu), atol=1e-12)
    np.testing.assert_allclose(two.correlation_s, one.correlation_s, atol=1e-12)
    np.testing.assert_allclose(two.integrated_t, scaling.time(one.integrated_t), atol=1e-12)


# The twins against each other.


@pytest.mark.parametrize(
    "problem",
    [
        symmetric(),
        symmetric(width=1),
        symmetric(target=Target.noise(), v0=0.0, train_second_layer=False, a0=..., gamma0=0.9, width=4),
        symmetric(target=Target.from_overlap({(1, 0): 0.5, (1, 2): 0.1}, power=1.0), v0=[0.1, 0.3], width=2),
    ],
    ids=["index", "one", "noise", "two latents"],
)
def test_vectorised_and_naive_euler_are_the_same_scheme(problem: SymmetricProblem) -> None:
    fast = euler(problem, 0.1, 1.5)
    slow = naive.euler(problem.formulation(), 0.1, 15)
    m = problem.width
    for name in ("train_error", "test_error"):
        np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), atol=1e-13, rtol=0)
    np.testing.assert_allclose(fast.a, slow.a[:, 0], atol=1e-13, rtol=0)
    np.testing.assert_allclose(fast.v, slow.v[:, 0], atol=1e-13, rtol=0)
    np.testing.assert_allclose(fast.nu, slow.nu[:, 0], atol=1e-13, rtol=0)
    np.testing.assert_allclose(fast.residual_correlation, slow.residual_correlation, atol=1e-13, rtol=0)
    own, other = slow.correlation[:, :, 0, 0], slow.correlation[:, :, 0, -1]
    np.testing.assert_allclose(fast.correlation_s, own + (m - 1) * other if m > 1 else own, atol=1e-12, rtol=0)
    if m > 1:
        np.testing.assert_allclose(fast.correlation_t, own - other, atol=1e-13, rtol=0)


def test_naive_euler_keeps_the_groups_of_a_grouped_problem() -> None:
    problem = GroupedProblem(
        sizes=[2, 1],
        alpha=0.3,
        activation=QUADRATIC,
        target=Target.same_as(QUADRATIC),
        noise_std=0.6,
        a0=[1.0, -0.7],
        v0=[0.1, 0.2],
    )
    rows = naive.euler(problem.formulation(), 0.1, 8)
    swap = [1, 0, 2]
    np.testing.assert_allclose(rows.correlation, rows.correlation[:, :, swap][:, :, :, swap], atol=1e-14, rtol=0)
    np.testing.assert_array_equal(rows.a[:, 0], rows.a[:, 1])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_weights_differentiate_polynomials_exactly(order: int) -> None:
    nodes = np.array([3.0, 2.2, 1.9, 0.4])[: order + 1]
    weights = naive.derivative_weights(nodes, nodes[0])
    for power in range(order + 1):
        assert weights @ nodes**power == pytest.approx(power * 3.0 ** max(power - 1, 0), abs=1e-12)


@pytest.mark.parametrize(
    "problem", [symmetric(width=2), PSpinProblem(covariance=[0, 0, 1.0])], ids=lambda problem: problem.kind
)
def test_implicit_twin_converges_to_the_equations_at_first_order(problem: Problem) -> None:
    limit = richardson(problem, 0.02, 0.4, levels=4).curves
    few, many = (naive.multistep(problem.formulation(), np.linspace(0, 0.4, steps + 1)) for steps in (4, 8))

    def error(rows: naive.Rows) -> dict[str, float]:
        one_time = "energy" if isinstance(problem, PSpinProblem) else "train_error"
        return {
            one_time: getattr(rows, one_time)[-1] - getattr(limit, one_time)[-1],
            "nu": rows.nu[-1, 0] - limit.nu[-1],
            "correlation": rows.correlation[-1, 0, 0, 0] - limit_own(limit, problem.width)[-1, 0],
            "integrated": rows.response[-1, :, 0, 0].sum() - limit_own(limit, problem.width, "integrated")[-1, 0],
        }

    for name, fine in error(many).items():
        # First order: the ratio tends to 2 with corrections of the step (1.56, 1.79, ... for C of the p-spin).
        assert 1.5 < error(few)[name] / fine < 2.5, name


def limit_own(curves: Any, m: int, name: str = "correlation") -> np.ndarray:
    """A neuron with itself, X_d, from the modes."""
    return (getattr(curves, f"{name}_s") + (m - 1) * getattr(curves, f"{name}_t")) / m


def test_implicit_twin_of_second_order() -> None:
    problem = symmetric(width=1)
    limit = richardson(problem, 0.02, 0.4, levels=4).curves
    few, many = (naive.multistep(problem.formulation(), np.linspace(0, 0.4, n + 1), order=2) for n in (6, 12))
    for name in ("train_error", "test_error"):
        coarse, fine = (getattr(rows, name)[-1] - getattr(limit, name)[-1] for rows in (few, many))
        # One first-order row at the start keeps second order; the ratio tends to 4 with corrections of the step.
        assert 3.2 < coarse / fine < 5.5, name


def test_implicit_twin_of_fourth_order_is_more_accurate() -> None:
    # Steps growing from 1e-3, so that the rows of low order at the start leave little error behind.
    problem = symmetric(width=1)
    t = np.concatenate([[0.0], np.geomspace(1e-3, 0.4, 13)])
    limit = richardson(problem, 0.02, 0.4, levels=4).curves
    low, high = (naive.multistep(problem.formulation(), t, order=k) for k in (1, 4))
    for name in ("train_error", "test_error"):
        coarse = abs(getattr(low, name)[-1] - getattr(limit, name)[-1])
        assert abs(getattr(high, name)[-1] - getattr(limit, name)[-1]) < coarse / 5


def test_implicit_twin_on_unequal_neurons_has_a_gram_matrix() -> None:
    a, v, gram = population_case()
    problem = GeneralProblem(
        alpha=0.4, activation=QUADRATIC, target=Target.same_as(QUADRATIC), noise_std=0.5, a0=a, v0=v, gram0=gram
    )
    t = np.array([0.0, 0.1, 0.3, 0.4])
    rows = naive.multistep(problem.formulation(), t, order=2)
    # C_nn is solved for in full: its symmetry is a consequence of the scheme. Solved to 1e-12 in the residuals.
    np.testing.assert_allclose(rows.correlation, rows.correlation.transpose(1, 0, 3, 2), atol=1e-11, rtol=0)
    everything = np.concatenate([np.concatenate(list(row), axis=1) for row in rows.correlation])
    assert np.linalg.eigvalsh(everything)[0] > -1e-11
    assert np.linalg.eigvalsh(rows.residual_correlation)[0] > -1e-11
    assert (np.diff(rows.train_error) < 0).all()
    # Causality: the response of a row to later fields is never filled, that to w_0 is none.
    assert not rows.response[:, 0].any()


def test_stiff_steps_are_harmless_to_the_implicit_twin() -> None:
    # Step x alpha gamma^2 m h'(0) = 972 in the S mode. A linear activation and n/d = 4 leave nothing but that mode to
    # move, which two implicit steps shrink by the square of that number.
    linear = Activation.from_covariance([0, 0.9])
    problem = SymmetricProblem(
        width=2,
        alpha=2.0,
        activation=linear,
        target=Target.noise(),
        noise_std=0.6,
        gamma0=30.0,
        train_second_layer=False,
    )
    rows = naive.multistep(problem.formulation(), np.array([0.0, 0.3, 0.6]))
    assert (np.diff(rows.train_error) < 0).all()
    sum_mode = rows.correlation[-1, -1, 0, 0] + rows.correlation[-1, -1, 0, 1]
    # What stays is the fit of the noise: tau^2/(gamma^2 h'(0)) d/n = 1e-4 times the Marchenko-Pastur inverse moment.
    fit = 0.6**2 / (900 * 0.9) / (4 - 1)
    assert sum_mode == pytest.approx(fit, rel=0.05)
    # Least squares: e_tr = tau^2/2 (1 - d/n).
    assert rows.train_error[-1] == pytest.approx(0.18 * 0.75, rel=0.01)


def test_richardson_converges_and_bounds_its_error() -> None:
    problem = symmetric()
    good = richardson(problem, 0.05, 1.0, levels=4).curves
    rough = richardson(problem, 0.1, 1.0, levels=3)
    for name in ("train_error", "test_error", "a", "nu"):
        difference = np.abs(getattr(rough.curves, name) - getattr(good, name)[::2])
        estimate = getattr(rough.error, name)
        assert difference.max() <= estimate.max() + 1e-12, name
    with pytest.raises(ValueError, match="levels"):
        richardson(problem, 0.1, 1.0, levels=1)
