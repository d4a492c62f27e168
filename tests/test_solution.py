"""Curves, two-time functions and their interpolation, on synthetic solutions whose values between rows are known."""

from __future__ import annotations

import numpy as np
import pytest
from _synthetic import (
    exact_correlation,
    exact_integrated,
    exact_response,
    exact_test_error,
    grid,
    problem,
    solution,
)

import dmft
from dmft.interpolation import (
    cell_degree,
    derivative_weights,
    fit_stencil,
    interpolate,
    local_stencil,
    value_weights,
)

ROUNDING = 1e-12  # a few hundred operations on numbers of order one


def geometric(spacing: float) -> np.ndarray:
    """Geometric from 1e-3 to 1e3, so that halving the spacing halves every step."""
    return np.concatenate([[0.0], np.geomspace(1e-3, 1e3, round(np.log(1e6) / np.log1p(spacing)))])


# --- interpolation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e7])
@pytest.mark.parametrize("p", [2, 3, 4, 5, 6])
def test_weights_are_exact_for_polynomials(p: int, scale: float) -> None:
    nodes = scale * np.cumprod(1.0 + 0.2 * np.random.default_rng(p).random(p))
    for x in (nodes[-1], 0.5 * (nodes[0] + nodes[-1]), nodes[0]):
        for degree in range(p):
            f, df = (nodes / scale) ** degree, degree * (x / scale) ** max(degree - 1, 0)
            assert value_weights(nodes, x) @ f == pytest.approx((x / scale) ** degree, rel=1e-9)
            # Weights of size 1/step lose the ratio of t to the step at every power: 1e-16 * 50^5 at worst.
            assert scale * (derivative_weights(nodes, x) @ f) == pytest.approx(df, rel=1e-6, abs=1e-6)


def test_derivative_weights_are_the_bdf_coefficients() -> None:
    nodes = 0.5 * np.arange(3.0)
    assert derivative_weights(nodes, 1.0) == pytest.approx(np.array([0.5, -2.0, 1.5]) / 0.5, rel=ROUNDING)


def test_derivative_weights_annihilate_constants_at_tiny_steps() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        nodes = 1e6 + 1e-3 * np.cumsum(rng.uniform(0.5, 2.0, 6))
        weights = derivative_weights(nodes, nodes[-1])
        # One rounding; the recursion alone leaves up to three here, and BDF amplifies them by t over the step.
        assert abs(np.sum(weights)) <= np.finfo(float).eps * np.abs(weights).max()


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_interpolation_has_its_declared_order(order: int) -> None:
    x = np.geomspace(2e-3, 900.0, 4001)
    spacings, errors = [0.2, 0.1, 0.05], []
    for spacing in spacings:
        t = geometric(spacing)
        errors.append(np.abs(interpolate(t, 1 / (1 + t), order, x) - 1 / (1 + x)).max())
    slope = np.polyfit(np.log(np.log1p(spacings)), np.log(errors), 1)[0]
    # A polynomial of degree K misses by h^(K+1); 0.35 for the next order, which is not yet small at the widest grid.
    assert slope == pytest.approx(order + 1, abs=0.35)


def test_interpolation_returns_stored_values_at_nodes() -> None:
    t = grid(0.03, 2e7, 1e-7)
    values = np.random.default_rng(0).normal(size=(len(t), 2))
    assert np.array_equal(interpolate(t, values, np.minimum(np.arange(len(t)), 5), t), values)


def test_interpolation_does_not_depend_on_the_unit_of_time() -> None:
    t, x = grid(0.05, 10.0), np.geomspace(1e-5, 10, 50)
    f = np.cos(t)
    assert np.array_equal(interpolate(t, f, 4, x), interpolate(2.0**40 * t, f, 4, 2.0**40 * x))


def test_stencils_respect_the_last_row_and_the_local_degree() -> None:
    t = np.arange(10.0)
    stencil = local_stencil(t, 4, np.array([4.5, 4.5, 0.5]), np.array([9, 5, 1]))
    used = [set(index[weight != 0.0]) for index, weight in zip(stencil.index, stencil.weight, strict=True)]
    assert used[0] == {2, 3, 4, 5, 6} and used[1] == {1, 2, 3, 4, 5} and used[2] == {0, 1}
    order = np.array([0, 1, 2, 3, 4, 5, 5, 5, 5, 5])
    assert list(cell_degree(t, order, np.array([0.0, 0.5, 1.0, 3.5, 9.0]))) == [1, 1, 1, 4, 5]


@pytest.mark.parametrize("bad", [-1e-9, 10.1, np.nan, np.inf])
def test_interpolation_refuses_to_extrapolate(bad: float) -> None:
    t = np.arange(11.0)
    with pytest.raises(ValueError, match=r"x = .* is outside the solved range: allowed are times from 0.0 to 10.0"):
        interpolate(t, t, 3, [1.0, bad])


def test_fitted_derivative_is_exact_for_its_degree_and_averages_noise() -> None:
    t, x = geometric(0.05), np.geomspace(0.01, 900, 200)
    assert fit_stencil(t, 3, 9, x).apply(t**3) == pytest.approx(3 * x**2, rel=1e-9)
    assert fit_stencil(t, 3, 9, t[:2]).apply(t**3) == pytest.approx(3 * t[:2] ** 2, rel=1e-9, abs=1e-9)
    assert fit_stencil(t[:2], 3, 9, t[:2]).apply(t[:2]) == pytest.approx(1.0, rel=ROUNDING)
    wiggle = (-1.0) ** np.arange(len(t)) * t
    fitted, difference = fit_stencil(t, 2, 9, x).apply(wiggle), fit_stencil(t, 2, 3, x).apply(wiggle)
    assert np.abs(fitted).max() < 0.25 * np.abs(difference).max()


# --- curves -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "a", "v"),
    [
        ("symmetric", (), ()),
        ("latent", (), (2,)),
        ("grouped", (3,), (3,)),
        ("general", (3,), (3,)),
    ],
)
def test_curve_shapes(kind: str, a: tuple[int, ...], v: tuple[int, ...]) -> None:
    run = solution(kind)
    rows = len(run.t)
    assert run.a.shape == run.gamma.shape == run.nu.shape == (rows, *a)
    assert run.v.shape == (rows, *v)
    assert run.train_error.shape == run.test_error.shape == run.energy_balance.shape == (rows,)
    assert np.array_equal(run.gamma, run.a / np.sqrt(run.formulation.width))
    with pytest.raises(AttributeError, match="has no energy; it has train_error"):
        _ = run.energy


def test_pspin_has_energy_and_no_network_curves() -> None:
    run = solution("pspin")
    assert run.energy.shape == run.nu.shape == run.t.shape
    for name in ("a", "v", "gamma", "train_error", "test_error"):
        assert not hasattr(run, name)
    with pytest.raises(AttributeError, match="a pspin solution has no a; it has energy, nu, energy_balance"):
        _ = run.a
    with pytest.raises(ValueError, match="has no residual_correlation"):
        run.residual_correlation(1.0, 1.0)


def test_arrays_are_read_only() -> None:
    run = solution()
    for array in (run.t, run.a, run.test_error, run.two_time.correlation):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


@pytest.mark.parametrize("kind", ["symmetric", "latent", "grouped"])
def test_at_interpolates_every_curve(kind: str) -> None:
    run = solution(kind, t=grid(0.05, 60.0, 1e-3), order=5)
    times = np.geomspace(0.1, 60.0, 37)
    here = run.at(times)
    for name in run.curve_names:
        assert getattr(here, name).shape == (37, *getattr(run, name).shape[1:])
    # Degree 5 at a spacing of 5 %: 0.05^6 = 1.6e-8 times derivatives of order one.
    assert here.test_error == pytest.approx(exact_test_error(times), abs=1e-7)
    assert here.train_error == pytest.approx(1 / (1 + times), abs=1e-7)
    nodes = run.at(run.t)
    for name in run.curve_names:
        assert np.array_equal(getattr(nodes, name), getattr(run, name))
    assert np.all(here.energy_balance > 0)


def test_at_accepts_one_time_and_refuses_others() -> None:
    run = solution()
    assert run.at(1.0).a.shape == (1,)
    with pytest.raises(ValueError, match=r"times = -1\.0 is outside the solved range"):
        run.at([1.0, -1.0])
    with pytest.raises(ValueError, match="outside the solved range"):
        run.at(2 * run.t[-1])


@pytest.mark.parametrize("order", [1, 4])
def test_minimum_is_refined_between_rows(order: int) -> None:
    run = solution(t=grid(0.05, 60.0, 1e-3), order=order)
    found = run.minimum()
    root = np.sqrt(8.0 / 0.7)  # where -0.7/(1+t)^2 + 8/(20+t)^2 vanishes
    exact = (20.0 - root) / (root - 1.0)
    assert found.found_interior
    # The nearest row is off by up to 2.5 %; the slope of a parabola through rows 5 % apart by 0.05^2, that of a
    # polynomial of degree four by 0.05^4 = 6e-6, times ratios of derivatives of a few.
    assert found.time == pytest.approx(exact, rel=2e-3 if order == 1 else 5e-5)
    assert found.value == pytest.approx(exact_test_error(exact), rel=1e-5 if order == 1 else 1e-8)


def test_minimum_at_an_end_says_so() -> None:
    t = grid(0.1, 2.0, 1e-3)
    assert not solution(t=t).minimum().found_interior
    rising = solution(t=t, test_error=1 + t).minimum()
    assert (rising.time, rising.value, rising.found_interior) == (0.0, 1.0, False)


# --- two-time functions -----------------------------------------------------------------------------------------------


def points(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return tuple(np.exp(rng.uniform(np.log(0.05), np.log(50.0), (2, count))))


@pytest.mark.parametrize("kind", ["symmetric", "grouped", "general", "pspin"])
def test_two_time_functions_at_nodes_are_the_stored_ones(kind: str) -> None:
    run = solution(kind)
    t = run.t
    assert np.array_equal(run.correlation(t[:, None], t, mode="S"), run.two_time.correlation[0])
    assert np.array_equal(run.integrated_response(t[:, None], t, mode="S"), run.two_time.integrated_response[0])
    if kind != "pspin":
        assert np.array_equal(run.residual_correlation(t[:, None], t), run.two_time.residual_correlation)


def test_elements_are_combined_from_the_modes() -> None:
    t, s = points()
    run = solution(t=grid(0.05, 60.0, 1e-3), order=5)
    big, small, m = exact_correlation(t, s, 0), exact_correlation(t, s, 1), 16
    # Degree 5 in both times at 5 % spacing, as above; the diagonal is where exact_correlation bends most.
    assert run.correlation(t, s) == pytest.approx((big + (m - 1) * small) / m, abs=1e-6)
    assert run.correlation(t, s, mode="o") == pytest.approx((big - small) / m, abs=1e-6)
    assert run.correlation(t, s, mode="T") == pytest.approx(small, abs=1e-6)
    assert run.residual_correlation(t, s) == pytest.approx(1 / (1 + t + s), abs=1e-6)


def test_elements_between_groups() -> None:
    t, s = points()
    run = solution("grouped", t=grid(0.05, 60.0, 1e-3), order=5)
    assert run.two_time.modes == ("S00", "S01", "S02", "S10", "S11", "S12", "S20", "S21", "S22", "T0", "T2")
    for (g, h), place, skew in (((0, 2), 2, 0.2), ((2, 0), 2, -0.2), ((1, 0), 1, -0.2)):
        sizes = run.formulation.sizes
        exact = exact_correlation(t, s, place, skew) / np.sqrt(sizes[g] * sizes[h])
        assert run.correlation(t, s, groups=(g, h)) == pytest.approx(exact, abs=1e-6)
    s22, t2 = exact_correlation(t, s, 8), exact_correlation(t, s, 10)
    assert run.correlation(t, s, groups=(2, 2)) == pytest.approx((s22 + t2) / 2, abs=1e-6)
    assert run.correlation(t, s, groups=(1, 1)) == pytest.approx(exact_correlation(t, s, 4), abs=1e-6)


def test_correlation_is_exactly_symmetric() -> None:
    t, s = points()
    for kind, groups in (("symmetric", (0, 0)), ("grouped", (0, 2)), ("general", (1, 2))):
        run = solution(kind)
        assert np.array_equal(run.correlation(t, s, groups=groups), run.correlation(s, t, groups=groups[::-1]))
        assert np.array_equal(run.residual_correlation(t, s), run.residual_correlation(s, t))


def test_only_the_causal_half_needs_to_be_filled() -> None:
    full = solution("grouped")
    half = solution(
        "grouped",
        correlation=np.tril(full.two_time.correlation),
        residual_correlation=np.tril(full.two_time.residual_correlation),
    )
    # Mirror images of the synthetic function differ by rounding.
    assert half.two_time.correlation == pytest.approx(full.two_time.correlation, abs=ROUNDING)
    assert np.array_equal(half.two_time.residual_correlation, full.two_time.residual_correlation)


def test_no_digits_are_lost_at_width_a_million() -> None:
    """C_d = 1 on the diagonal and C_o = f(t)/m survive modes S of order one and of order m."""
    width = 10**6
    for overlap in (0.25, 0.3 / width):
        t = grid(0.2, 10.0, 1e-2)
        s_mode = np.full((len(t), len(t)), 1 + (width - 1) * overlap)
        modes = np.stack([s_mode, np.full_like(s_mode, 1 - overlap)])
        run = solution(width=width, t=t, correlation=modes)
        # Both within a few units in the last place of the larger of C_d = 1 and C_o; C_o = 3e-7 thus keeps the nine
        # digits that the stored S and T of order one determine, times m from the division: sixteen in all.
        assert run.correlation(3.3, 1.1) == pytest.approx(1.0, abs=8e-16)
        assert run.correlation(3.3, 1.1, mode="o") == pytest.approx(overlap, rel=3e-15)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_two_time_interpolation_has_its_declared_order(order: int) -> None:
    x = np.geomspace(0.1, 50.0, 60)
    t, s = np.meshgrid(x, x, indexing="ij")
    spacings, errors = [0.2, 0.1], []
    for spacing in spacings:
        run = solution(t=geometric(spacing), order=order)
        correlation = np.abs(run.residual_correlation(t, s) - 1 / (1 + t + s)).max()
        causal = s < t
        response = np.abs(run.integrated_response(t, s, mode="S") - exact_integrated(t, s))[causal].max()
        errors.append([correlation, response])
    slopes = np.log2(np.array(errors[0]) / errors[1]) / np.log2(np.log1p(0.2) / np.log1p(0.1))
    assert slopes[0] == pytest.approx(order + 1, abs=0.5)
    assert slopes[1] > order + 0.5  # one-sided stencils near the diagonal are still in transition at 20 %


def test_integrated_response_is_causal_and_continuous() -> None:
    run = solution()
    t = np.array([0.3, 3.0, 30.0])
    assert np.array_equal(run.integrated_response(t, t), np.zeros(3))
    assert np.array_equal(run.integrated_response(t, 1.7 * t), np.zeros(3))
    lag = 1e-7 * t
    # R(t, t) = 1: the integral over a short lag is the lag, up to interpolation over a step a million times longer.
    assert run.integrated_response(t, t - lag) == pytest.approx(lag, rel=1e-2)


def test_unresolved_response_layer_does_not_ring() -> None:
    """A response decaying far inside one step is a jump at the diagonal, as in a stiff S mode."""
    t = grid(0.05, 1e4, 1e-6)
    tt, ss = np.meshgrid(t, t, indexing="ij")
    rate = 1e6
    fast = np.where(ss < tt, -np.expm1(-rate * np.abs(tt - ss)) / rate, 0.0)
    run = solution(t=t, integrated_response=np.stack([fast, fast]))
    x = np.geomspace(1.0, 9e3, 300)
    for fraction in (0.3, 0.9, 0.92, 0.935, 0.945, 0.96, 0.98, 0.999):
        value = run.integrated_response(x, fraction * x, mode="S") * rate
        assert np.all(value >= -1e-9) and np.all(value <= 1 + 1e-9)
        if fraction <= 0.9:  # further from the diagonal than the last step
            assert value == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("order", [1, 2, 4, 5])
def test_response_is_within_its_stated_error(order: int) -> None:
    run = solution(t=grid(0.05, 60.0, 1e-3), order=order)
    t, s = points()
    t, s = np.maximum(t, s), np.minimum(t, s)
    error = np.abs(run.response(t, s, mode="S") - exact_response(t, s))
    stated = run.response_error(t, s, mode="S")
    assert error.max() < 2e-3
    assert np.mean(error <= 1.5 * stated) > 0.98 and np.all(error <= 4 * stated + 1e-9)


def test_response_on_and_above_the_diagonal() -> None:
    run = solution()
    assert run.response(2.0, 2.0) == pytest.approx(1.0, abs=1e-15)
    assert run.response(2.0, 2.0, mode="o") == 0.0
    assert run.response(2.0, 3.0) == 0.0 and run.response_error(2.0, 3.0) == 0.0
    assert solution("general").response(2.0, 2.0, groups=(0, 1)) == 0.0


def test_two_time_functions_broadcast_and_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    run = solution("grouped")
    x = np.geomspace(0.01, 50.0, 13)
    full = run.correlation(x[:, None], x, groups=(0, 1))
    assert full.shape == (13, 13) and run.correlation(1.0, 1.0).shape == ()
    monkeypatch.setattr("dmft.solution._CHUNK", 7)
    assert np.array_equal(run.correlation(x[:, None], x, groups=(0, 1)), full)


def test_thinned_history() -> None:
    t = grid(0.03, 60.0, 1e-3)
    keep = np.unique(np.append(np.arange(0, len(t), 2), len(t) - 1))
    run = solution(t=t, keep=keep)
    assert run.two_time.correlation.shape == (2, len(keep), len(keep))
    x, y = points()
    assert run.residual_correlation(x, y) == pytest.approx(1 / (1 + x + y), abs=1e-5)
    assert run.at(t).a.shape == t.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "x"}, "mode = 'x' is unknown; allowed are 'd', 'o', 'S', 'T'"),
        ({"mode": "d", "groups": (0, 1)}, "mode = 'd' exists inside one group only"),
        ({"mode": "T", "groups": (1, 1)}, "mode = 'T' does not exist in group 1 of one neuron"),
        ({"mode": "o", "groups": (1, 1)}, "mode = 'o' does not exist in group 1 of one neuron"),
        ({"groups": (0, 3)}, "is not a pair of group numbers from 0 to 2"),
        ({"groups": 1}, "groups = 1 is not a pair of group numbers"),
    ],
)
def test_impossible_elements_are_refused(arguments: dict[str, object], message: str) -> None:
    run = solution("grouped")
    for function in (run.correlation, run.integrated_response, run.response, run.response_error):
        with pytest.raises(ValueError, match=message):
            function(1.0, 0.5, **arguments)


def test_times_outside_are_refused() -> None:
    run = solution()
    for function in (run.correlation, run.integrated_response, run.response, run.residual_correlation):
        with pytest.raises(ValueError, match=r"s = -0\.5 is outside the solved range"):
            function(1.0, -0.5)
        with pytest.raises(ValueError, match="t = nan is outside the solved range"):
            function(np.nan, 0.5)


# --- construction and summary -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_error": np.ones(3)}, "test_error has shape"),
        ({"a": None}, "a = None, but a network problem needs"),
        ({"row_index": [0, 5]}, "row_index must increase from 0"),
        ({"modes": ("S",)}, "modes = "),
        ({"residual_correlation": None}, "residual_correlation is needed"),
    ],
)
def test_inconsistent_arrays_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solution(**change)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["train_error", "energy_balance", "correlation"])
def test_nan_is_never_a_result(name: str, bad: float) -> None:
    run = solution()
    holder = run.two_time if name == "correlation" else run
    values = getattr(holder, name).copy()
    values.flat[-1] = bad
    with pytest.raises(ValueError, match=f"{name} contains NaN or infinity"):
        solution(**{name: values})


def test_width_one_and_a_single_row() -> None:
    run = solution(width=1, t=np.array([0.0]))
    assert run.two_time.modes == ("S",)
    assert run.correlation(0.0, 0.0) == 1.0 and run.integrated_response(0.0, 0.0) == 0.0
    assert run.at(0.0).a == pytest.approx(1.0) and not run.minimum().found_interior
    assert "start" in run.summary()


def test_summary_is_short_and_tells_the_story() -> None:
    text = solution().summary()
    assert len(text.splitlines()) <= 10 and max(map(len, text.splitlines())) <= 120
    assert "test minimum  6.98" in text and "a/sqrt(m)" in text and "status done" in text
    assert "energy" in solution("pspin").summary() and "3 groups" in solution("grouped").summary()
    failed = solution(status=dmft.Status.DIVERGED, message="a grew beyond 1e12 at t = 3; check alpha.")
    assert "diverged: a grew beyond 1e12" in failed.summary()
    assert problem("symmetric").width == 16
