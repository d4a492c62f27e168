"""Large-width limits: each against the finite-width solution, at the rate it is stated to hold, and on its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dmft
from dmft import config
from dmft.limits import LIMITS
from dmft.problems import from_dict

CUBIC = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
QUAD = dmft.Activation.from_covariance([0, 0.9, 0.5])
ERRORS = ("train_error", "test_error")


def slowly(*makes: Callable[[int], Any]) -> list[Any]:
    return [pytest.param(make, marks=pytest.mark.slow) for make in makes]


def symmetric(width: int, **changes: Any) -> dmft.SymmetricProblem:
    values: dict[str, Any] = {
        "width": width,
        "alpha": 0.3,
        "activation": CUBIC,
        "target": dmft.Target.same_as(CUBIC),
        "noise_std": 0.6,
    }
    return dmft.SymmetricProblem(**(values | changes))


def mean_field(width: int) -> dmft.SymmetricProblem:
    return symmetric(width, a0=1.0)


def started(width: int) -> dmft.SymmetricProblem:
    return symmetric(width, activation=QUAD, target=dmft.Target.same_as(QUAD), a0=0.7, v0=0.3)


def fixed(width: int) -> dmft.SymmetricProblem:
    return symmetric(width, a0=-0.8, v0=-0.2, train_second_layer=False)


def lazy(width: int) -> dmft.SymmetricProblem:
    return symmetric(width, noise_std=0.3, gamma0=1.0)


def latents(width: int) -> dmft.SymmetricProblem:
    target = dmft.Target.from_overlap({(1, 0): 0.5, (0, 1): 0.4, (1, 2): 0.05}, power=1.2)
    return symmetric(width, target=target, a0=1.0, v0=[0.2, -0.1])


def groups(width: int) -> dmft.GroupedProblem:
    return dmft.GroupedProblem(
        sizes=[width // 2, width // 4, width // 4],
        alpha=0.3,
        activation=QUAD,
        target=dmft.Target.same_as(QUAD),
        noise_std=0.5,
        a0=[1.0, -0.5, 2.0],
        v0=[0.1, 0.0, 0.2],
        cross_gram0=[[0.05, 0.1, 0.02], [0.1, 0.3, 0.0], [0.02, 0.0, 0.04]],
    )


def growth(width: int) -> dmft.SymmetricProblem:
    return symmetric(width, target=dmft.Target.noise(), a0=1.0)


def rate(
    limit: str,
    make: Callable[[int], Any],
    power: float,
    times: Any,
    names: tuple[str, ...],
    widths: tuple[int, ...] = (256, 1024, 4096),
    **options: Any,
) -> np.ndarray[Any, Any]:
    """Powers of m with which the finite-width curves approach the limit at the times m^power * times."""
    gaps = []
    for width in widths:
        t = np.asarray(times) * float(width) ** power
        problem = make(width)
        near = dmft.solve(dmft.limits.of(problem, limit, **options), float(t[-1]), rtol=1e-6).at(t)
        exact = dmft.solve(problem, float(t[-1]), rtol=1e-7 if options else 1e-6).at(t)
        gaps.append([np.abs(getattr(exact, name) - getattr(near, name)).max() for name in names])
    return np.diff(np.log(gaps), axis=0)[-1] / np.log(widths[-1] / widths[-2])


@pytest.mark.parametrize("make", [mean_field, *slowly(started, fixed, latents, groups)])
def test_mean_field_is_reached_as_one_over_m(make: Callable[[int], Any]) -> None:
    names = ("a", "v", *ERRORS) if make not in (fixed,) else ("v", *ERRORS)
    assert rate("mean_field", make, 0.0, [0.5, 2.0, 8.0], names) == pytest.approx(-1.0, abs=0.1)


@pytest.mark.parametrize("make", [started, *slowly(mean_field, fixed, latents, growth)])
def test_first_correction_leaves_one_over_m_squared(make: Callable[[int], Any]) -> None:
    names = {fixed: ("v", *ERRORS), growth: ("a", *ERRORS)}.get(make, ("a", "v", *ERRORS))
    found = rate("mean_field", make, 0.0, [0.5, 2.0, 8.0], names, widths=(64, 256), order=1)
    assert found == pytest.approx(-2.0, abs=0.3)


def test_first_correction_of_noise_is_the_closed_form() -> None:
    # theory section 4: m C_o(t,t) -> tau^2/rho_0 - 1 with rho_0 = alpha a_0^2 h'(0), [MU] (G.6); C_o enters e_ts.
    width, tau, rho = 10**6, 0.6, 0.3 * 0.9
    limit = dmft.limits.of(growth(width), "mean_field", order=1)
    solution = dmft.solve(limit, 60.0, rtol=1e-6)
    overlap = tau**2 / rho - 1.0
    second = width * (solution.test_error[-1] - 0.5 * tau**2)
    # a stays at 1 to leading order, so that e_ts_1 = [h'(0) m C_o + h(1)]/2.
    assert second == pytest.approx(0.5 * (0.9 * overlap + 0.9 + 1 / 6), rel=1e-4)


def test_first_correction_grows_as_the_next_regime_wants() -> None:
    # Noise: a_1 -> alpha tau^2 a_0 (h'(1) - h'(0)) t^2/2, so that the expansion ends at t ~ sqrt(m).
    width = 10**9
    limit = dmft.limits.of(growth(width), "mean_field", order=1)
    a = width * (dmft.solve(limit, 300.0, rtol=1e-6).at([100.0, 200.0, 300.0]).a - 1.0)
    assert np.diff(a, 2)[0] / 100.0**2 == pytest.approx(0.3 * 0.36 * 0.5, rel=1e-3)


@pytest.mark.parametrize("t", [38.4, 100.0, 1000.0])
def test_noise_growth_with_a_fixed_second_layer_reaches_its_end(t: float) -> None:
    # At fixed a the bound on the time of the p-spin model is sharp, and rounding decided whether it sufficed.
    problem = symmetric(1024, alpha=0.4, noise_std=3.0, target=dmft.Target.noise(), a0=1.0, train_second_layer=False)
    solution = dmft.solve(dmft.limits.of(problem, "noise_growth"), t)
    assert solution.status is dmft.Status.DONE
    assert np.array_equal(solution.a, np.ones(len(solution.t)))


def test_noise_growth_is_refused_beyond_its_range() -> None:
    for width, activation, t in ((1024, QUAD, 1e3), (100, CUBIC, 1e5)):
        problem = symmetric(width, alpha=0.4, activation=activation, target=dmft.Target.noise(), a0=1.0)
        solution = dmft.solve(dmft.limits.of(problem, "noise_growth"), t)
        assert solution.status is dmft.Status.FAILED
        assert f"t = {t:g} is beyond" in solution.message


def test_lazy_linear_fit_is_reached_as_one_over_m() -> None:
    # phihat''(0) = 0 here; a target with a quadratic part is approached as m^(-1/2), below.
    found = rate("lazy_linear", lazy, -1.0, [0.3, 1.0, 3.0], ("test_error", "train_error", "nu"))
    assert found == pytest.approx(-1.0, abs=0.1)


@pytest.mark.slow
def test_lazy_with_curvature_is_reached_as_the_root_of_m() -> None:
    def curved(width: int) -> dmft.SymmetricProblem:
        return symmetric(width, activation=QUAD, target=dmft.Target.same_as(QUAD), noise_std=0.3, gamma0=1.0)

    found = rate("lazy", curved, 0.0, [2.0, 5.0], ERRORS, widths=(1024, 4096, 16384))
    assert found == pytest.approx(-0.5, abs=0.1)


def test_large_initial_overlaps_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="beyond it"):
        dmft.limits.of(symmetric(4096, gamma0=1.0, v0=0.5), "lazy_linear")


def test_lazy_linear_of_pure_noise_is_the_printed_one() -> None:
    # m C_o = exp(-2 r t_1) - 1 and e = [tau^2 + gamma^2 h(1) + gamma^2 h'(0) m C_o]/2.
    width, t = 1000, np.array([0.0, 0.5, 2.0]) / 1000
    problem = symmetric(width, target=dmft.Target.noise(), gamma0=1.0)
    found = dmft.solve(dmft.limits.of(problem, "lazy_linear"), 2.0 / width, times=[0.5 / width], rtol=1e-6)
    decay = np.exp(-2.0 * 0.3 * 0.9 * width * t) - 1.0
    expected = 0.5 * (0.36 + 0.9 + 1 / 6 + 0.9 * decay)
    assert found.at(t).test_error == pytest.approx(expected, rel=1e-7)
    assert width * found.correlation(t, t, mode="o") == pytest.approx(decay, abs=1e-6)
    assert found.energy_balance.max() < 1e-4


def test_lazy_limit_keeps_the_test_error_of_the_linear_fit() -> None:
    # [MU] (2.7): e_lin = [tau^2 + |phi|^2 - |g(0)|^2/h'(0) + gamma^2 ht(1)]/2 = [tau^2 + 1/6 + 1/6]/2 for phi = sigma.
    solution = dmft.solve(dmft.limits.of(lazy(64), "lazy"), 5.0)
    assert solution.test_error == pytest.approx(np.full(len(solution.t), 0.5 * (0.09 + 1 / 3)), rel=1e-6)
    assert 8.0 * solution.v[-1] == pytest.approx(1.0, rel=1e-9)  # w_inf = g(0)/(gamma_0 h'(0)) = 1


@pytest.mark.slow
def test_noise_growth_is_reached_as_the_root_of_m() -> None:
    widths = (1024, 4096, 16384)
    assert rate("noise_growth", growth, 0.5, [2.0, 6.0], ("a",), widths)[0] == pytest.approx(-0.5, abs=0.06)
    # e_tr has its first correction in 1/sqrt(m) included; what is left is of the next order, 1/m.
    assert rate("noise_growth", growth, 0.5, [2.0, 6.0], ("train_error",), widths)[0] == pytest.approx(-1.0, abs=0.15)


@pytest.mark.slow
def test_second_layer_grows_linearly_at_the_printed_slope() -> None:
    # A_inf = tau sqrt(alpha) |E|, E = -2 c sqrt((k-1)/k) = -2/3 for ht = z^3/6: 2/3 tau sqrt(alpha).
    width = 2 * 10**9  # wide enough that t = 3000 sqrt(m) is still short of t ~ m
    limit = dmft.limits.of(growth(width), "noise_growth")
    t = 3e3 * np.sqrt(width)
    solution = dmft.solve(limit, t, rtol=1e-5)
    curves = solution.at([0.5 * t, t])
    slope = np.sqrt(width) * np.diff(curves.a)[0] / (0.5 * t)
    assert slope == pytest.approx(2.0 / 3.0 * 0.6 * np.sqrt(0.3), rel=2e-3)
    assert limit.growth(-2.0 / 3.0) == pytest.approx(2.0 / 3.0 * 0.6 * np.sqrt(0.3), rel=1e-12)


@pytest.mark.slow
def test_adiabatic_growth_at_large_width() -> None:
    def loud(width: int) -> dmft.SymmetricProblem:
        return symmetric(width, activation=QUAD, target=dmft.Target.noise(), noise_std=2.5, gamma0=1.0)

    width = 4096
    times = np.array([0.3, 1.0, 2.0]) * width
    near = dmft.solve(dmft.limits.of(loud(width), "adiabatic"), times[-1]).at(times)
    exact = dmft.solve(loud(width), times[-1], rtol=1e-5).at(times)
    assert near.gamma == pytest.approx(exact.gamma, abs=2e-3)
    assert near.train_error == pytest.approx(exact.train_error, abs=3e-3)
    assert near.test_error == pytest.approx(exact.test_error, rel=2e-3)
    assert near.nu == pytest.approx(exact.nu, rel=0.03)


def test_noise_growth_at_one_width() -> None:
    width = 4096
    near = dmft.solve(dmft.limits.of(growth(width), "noise_growth"), 3.0 * np.sqrt(width))
    exact = dmft.solve(growth(width), 3.0 * np.sqrt(width))
    assert near.a[-1] == pytest.approx(exact.a[-1], rel=0.5 / np.sqrt(width))
    assert near.train_error[-1] == pytest.approx(exact.train_error[-1], abs=2.0 / width)


def test_adiabatic_limit_above_threshold_ends_with_a_sentence() -> None:
    quiet = symmetric(64, activation=QUAD, target=dmft.Target.noise(), noise_std=0.1, gamma0=1.0)
    solution = dmft.solve(dmft.limits.of(quiet, "adiabatic"), 100.0)
    assert solution.status is dmft.Status.FAILED
    assert "above the interpolation threshold" in solution.message
    assert len(solution.t) == 1


def test_population_flow_dissipates_what_it_should() -> None:
    for make in (mean_field, started, groups):
        solution = dmft.solve(dmft.limits.of(make(64), "mean_field"), 10.0, rtol=1e-6)
        # Differentiation of the rows is what is left: the error of order 5 rows.
        assert np.median(solution.energy_balance) < 1e-4
        assert np.array_equal(solution.train_error, solution.test_error)


def test_two_time_functions_of_mean_field() -> None:
    width = 10**6
    exact = dmft.solve(started(width), 6.0, rtol=1e-6)
    near = dmft.solve(dmft.limits.of(started(width), "mean_field"), 6.0, rtol=1e-6)
    t, s = np.array([6.0, 5.0, 2.0])[:, None], np.array([0.3, 1.0, 1.9])
    for mode in ("d", "o", "T"):
        assert near.correlation(t, s, mode=mode) == pytest.approx(exact.correlation(t, s, mode=mode), abs=2e-5)
    assert near.residual_correlation(t, s) == pytest.approx(exact.residual_correlation(t, s), abs=2e-5)
    for mode in ("S", "T"):
        # The integrated response of BDF is known to 1e-3 so near the diagonal, docs/numerics.md.
        found, wanted = near.integrated_response(t, s, mode=mode), exact.integrated_response(t, s, mode=mode)
        assert found == pytest.approx(wanted, abs=1e-3)
    # R_T(t, u) = r(t)/r(u) with r^2 = 1 - v^2, by quadrature.
    point, weight = np.polynomial.legendre.leggauss(40)
    inside = 1.0 + 2.5 * (1.0 + point)
    r = np.sqrt(1.0 - near.at([*inside, 6.0]).v ** 2)
    assert near.integrated_response(6.0, 1.0, mode="T") == pytest.approx(2.5 * weight @ (r[-1] / r[:-1]), rel=1e-6)


@pytest.mark.parametrize("name", sorted(set(LIMITS) - {"adiabatic"}))
def test_files_and_plain_data_keep_a_limit(name: str, tmp_path: Any) -> None:
    problem = growth(64) if name == "noise_growth" else lazy(64)
    limit = dmft.limits.of(problem, name)
    assert from_dict(limit.to_dict()) == limit
    assert type(limit).from_dict(limit.to_dict()) == limit
    assert limit != problem
    solution = dmft.solve(limit, 0.5)
    solution.save(tmp_path / "limit.h5")
    again = dmft.load(tmp_path / "limit.h5")
    assert again.problem == limit
    assert np.array_equal(again.test_error, solution.test_error)
    assert name.replace("_", "-") in again.summary()
    assert "error  not estimated" in again.summary()
    solution.plot(tmp_path / "limit.png")
    solution.to_csv(tmp_path / "limit.csv")


def test_curves_without_two_time_functions_are_saved_and_say_so(tmp_path: Any) -> None:
    quiet = symmetric(64, activation=QUAD, target=dmft.Target.noise(), noise_std=0.1, gamma0=1.0)
    solution = dmft.solve(dmft.limits.of(quiet, "adiabatic"), 100.0)
    assert not solution.has_two_time
    with pytest.raises(ValueError, match="curves only"):
        solution.correlation(0.0, 0.0)
    solution.save(tmp_path / "curves.h5")
    assert not dmft.load(tmp_path / "curves.h5").has_two_time


def test_configuration_names_a_limit() -> None:
    plain = config.read("mu_fig24", ["model.limit=mean_field", "model.order=1"])
    assert isinstance(plain.problem, dmft.limits.MeanFieldLimit)
    assert plain.problem.order == 1
    with pytest.raises(ValueError, match="did you mean 'mean_field'"):
        config.read("mu_fig24", ["model.limit=mean-feild"])
    with pytest.raises(config.ConfigError, match="order"):
        config.read("mu_fig24", ["model.limit=lazy_linear", "model.order=1"])


def test_time_scales_keep_limits_apart_from_what_they_approximate() -> None:
    def solved(width: int, **changes: Any) -> dmft.Solution:
        problem = symmetric(width, activation=QUAD, target=dmft.Target.same_as(QUAD), gamma0=1.0, **changes)
        return dmft.solve(dmft.limits.of(problem, "lazy_linear"), 5.0 / width)

    exact = dmft.solve(symmetric(64, activation=QUAD, target=dmft.Target.same_as(QUAD), gamma0=1.0), 5.0 / 64)
    report = dmft.time_scales([exact, solved(16), solved(64)])
    assert {event.series for event in report.events} == {"theory", "lazy-linear limit"}
    assert "lazy initialisation" in str(report)
    other = dmft.solve(dmft.limits.of(lazy(16), "lazy_linear"), 5.0 / 16)
    with pytest.raises(ValueError, match="activation"):
        dmft.time_scales([solved(16), other])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dmft.limits.of(mean_field(8), "lazy", order=1), "'lazy' has no option 'order'"),
        (lambda: dmft.limits.of(mean_field(8), "mean_feild"), "did you mean 'mean_field'"),
        (lambda: dmft.limits.of(mean_field(8), "mean_field", order=2), "order"),
        (lambda: dmft.limits.of(groups(8), "mean_field", order=1), "symmetric"),
        (lambda: dmft.limits.of(groups(8), "lazy"), "symmetric"),
        (lambda: dmft.limits.of(mean_field(8), "noise_growth"), "noise"),
        (
            lambda: dmft.limits.of(
                symmetric(
                    8, activation=dmft.Activation.from_covariance([0, 1.0]), target=dmft.Target.noise(), gamma0=1.0
                ),
                "lazy",
            ),
            "not linear",
        ),
        (
            lambda: dmft.limits.of(
                symmetric(
                    8, activation=dmft.Activation.from_covariance([0, 0, 1.0]), target=dmft.Target.noise(), gamma0=1.0
                ),
                "lazy_linear",
            ),
            "h'\\(0\\)",
        ),
        (lambda: dmft.limits.of(dmft.PSpinProblem(covariance=[0, 0, 1.0]), "lazy"), "problem"),
        (
            lambda: dmft.limits.of(
                symmetric(8, target=dmft.Target.noise(), gamma0=1.0, train_second_layer=False), "adiabatic"
            ),
            "train_second_layer",
        ),
    ],
)
def test_problems_without_the_limit_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        make()
