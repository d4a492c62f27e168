"""The limit m -> infinity at fixed n/d: against its own equations, against finite widths, and in files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.polynomial.polynomial import polyder, polyval

import dmft
from dmft.problems import from_dict

CUBIC = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
QUAD = dmft.Activation.from_covariance([0, 0.3, 0.5])


def problem(**changes: Any) -> dmft.InfiniteWidthProblem:
    values: dict[str, Any] = {
        "sample_ratio": 3.0,
        "activation": CUBIC,
        "target": dmft.Target.same_as(CUBIC),
        "noise_std": 0.6,
        "a0": 1.0,
    }
    return dmft.InfiniteWidthProblem(**(values | changes))


def euler(p: dmft.InfiniteWidthProblem, t_final: float, steps: int) -> dict[str, float]:
    """The equations of the class docstring at 1/m = 0 by explicit Euler on a uniform grid, theory section 6.3.

    Written from the limit equations, not from those of finite width; single latent direction.
    """
    form, resolved = p.formulation(), p.resolved_target()
    c, abar, trained = form.covariance, p.sample_ratio, p.train_second_layer
    eta, size = t_final / steps, steps + 1

    def h(q: Any, order: int = 0) -> Any:
        return polyval(q, polyder(c, order) if order else c)

    c_o, c_t, r_s, r_t, p_a, q, c_r, kernel = (np.zeros((size, size)) for _ in range(8))
    a, v, hat = np.zeros(size), np.zeros(size), np.zeros(size)
    a[0], v[0] = form.a0[0], form.v0[0, 0]
    c_o[0, 0] = v[0] ** 2
    c_t[0, 0] = 1.0 - v[0] ** 2
    for n in range(size):
        past = slice(0, n + 1)
        hat[n] = resolved.phihat(v[[n]])
        co, ct, rt, r = c_o[n, past], c_t[n, past], r_t[n, past], r_s[n, past] - r_t[n, past]
        cd, aa = co + ct, a[n] * a[past]
        kernel[n, past] = aa / abar * (h(cd, 1) * rt + h(co, 1) * r)
        p_a[n, past] = -eta * kernel[n, past] @ p_a[past, past]
        p_a[n, n] += 1.0
        q[n, past] = q[past, n] = form.offset - a[n] * hat[n] - a[past] * hat[past] + aa * h(co)
        c_r[n, past] = c_r[past, n] = p_a[n, past] @ q[past, past] @ p_a[past, past].T
        if n == steps:
            break
        cr, pa = c_r[n, past], p_a[n, past]
        l_s = aa * (pa * h(co, 1) - eta / abar * cr * (h(cd, 2) * rt + h(co, 2) * r))
        l_t = -eta / abar * aa * cr * h(cd, 2) * rt
        n_o, n_t = eta / abar * aa * cr * h(co, 1), eta / abar * aa * cr * (h(cd, 1) - h(co, 1))
        rho, gradient = pa.sum(), float(resolved.gradient(v[[n]])[0])
        push_o = a[n] * rho * gradient * v[past] - l_s @ c_o[past, past] + r_s[past, past] @ n_o
        push_t = -l_t @ c_t[past, past] + r_t[past, past] @ n_t
        nu = push_o[n] + push_t[n]
        c_o[n + 1, past] = c_o[past, n + 1] = co + eta * (push_o - nu * co)
        c_t[n + 1, past] = c_t[past, n + 1] = ct + eta * (push_t - nu * ct)
        c_o[n + 1, n + 1] = c_o[n, n] + 2.0 * eta * (push_o[n] - nu * c_o[n, n])
        c_t[n + 1, n + 1] = 1.0 - c_o[n + 1, n + 1]
        r_s[n + 1, past] = r_s[n, past] - eta * (nu * r_s[n, past] + l_s @ r_s[past, past])
        r_t[n + 1, past] = r_t[n, past] - eta * (nu * r_t[n, past] + l_t @ r_t[past, past])
        r_s[n + 1, n] = r_t[n + 1, n] = 1.0
        v[n + 1] = v[n] + eta * (a[n] * rho * gradient - nu * v[n] - l_s @ v[past])
        force = rho * hat[n] - pa @ (a[past] * h(co)) + eta / abar * cr @ (a[past] * (h(cd, 1) * rt + h(co, 1) * r))
        a[n + 1] = a[n] + eta * force * trained
    return {"a": a[-1], "v": v[-1], "train_error": 0.5 * c_r[-1, -1], "test_error": 0.5 * q[-1, -1], "nu": nu}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"sample_ratio": 0.7, "a0": -0.8, "v0": 0.3},
        {"target": dmft.Target.noise(), "activation": QUAD, "train_second_layer": False, "noise_std": 1.0},
    ],
    ids=["index", "index-few-samples", "noise-fixed"],
)
def test_the_limit_solves_its_own_equations(changes: dict[str, Any]) -> None:
    p = problem(**changes)
    end = 2.0
    coarse, middle, fine = (euler(p, end, steps) for steps in (60, 120, 240))
    found = dmft.solve(p, end, rtol=1e-7)
    for name in ("a", "v", "train_error", "test_error"):
        # Two Richardson steps for a scheme of order one; their difference bounds the error of the last.
        first, second = 2.0 * middle[name] - coarse[name], 2.0 * fine[name] - middle[name]
        value = (4.0 * second - first) / 3.0
        doubt = abs(second - first) / 3.0 + 2e-6
        assert abs(getattr(found, name)[-1] - value) < 3.0 * doubt
        assert doubt < 3e-3


@pytest.mark.slow
def test_finite_widths_approach_it_as_one_over_m() -> None:
    p = problem()
    times = np.geomspace(0.1, 30.0, 12)
    limit = dmft.solve(p, 30.0, rtol=1e-6).at(times)
    gaps = []
    for width in (256, 1024, 4096):
        alpha = 3.0 / width
        finite = dmft.SymmetricProblem(
            width=width, alpha=alpha, activation=CUBIC, target=p.target, noise_std=0.6, a0=1.0
        )
        curves = dmft.solve(finite, 30.0 / alpha, rtol=1e-6).at(times / alpha)
        gaps.append([np.abs(getattr(curves, n) - getattr(limit, n)).max() for n in ("a", "v", "train_error")])
    rates = np.diff(np.log(gaps), axis=0) / np.log(4.0)
    assert rates == pytest.approx(-1.0, abs=0.1)


def test_groups_of_equal_neurons_are_one_group() -> None:
    one = dmft.solve(problem(), 5.0, rtol=1e-5)
    two = dmft.solve(problem(fractions=[0.3, 0.7], a0=[1.0, 1.0]), 5.0, rtol=1e-5)
    assert two.a.shape == (len(two.t), 2)
    assert two.a[-1] == pytest.approx(one.a[-1], rel=1e-5)
    assert two.test_error[-1] == pytest.approx(one.test_error[-1], rel=1e-5)


def test_time_is_in_its_own_unit_and_rows_hit_it_exactly() -> None:
    wanted = [0.1, 0.7, 2.0]
    solution = dmft.solve(problem(sample_ratio=2.7), 2.0, times=wanted)
    assert np.isin(wanted, solution.t).all()
    assert solution.t[-1] == 2.0
    # The energy identity mixes t, a and C: it holds in one unit of time only.
    assert np.median(solution.energy_balance) < 1e-3
    h = 1e-3
    slope = float(np.diff(solution.at([1.0 - h, 1.0 + h]).v)[0] / (2 * h))
    assert np.isfinite(slope)
    response = solution.integrated_response(2.0, 1.999, mode="T")
    assert response == pytest.approx(1e-3, rel=0.05)


def test_multiplier_is_a_rate_in_its_own_time() -> None:
    # nu(0) = a g(0).v0 - a^2 h'(|v0|^2) |v0|^2 in t_mf: the mean-field flow with alpha = 1.
    v0 = 0.4
    solution = dmft.solve(problem(v0=v0), 0.5)
    slope = 0.9 + 0.5 * v0**2
    assert solution.nu[0] == pytest.approx(slope * v0 - (0.9 + 0.5 * v0**4) * v0**2, rel=1e-9)


def test_it_has_no_gamma_and_keeps_its_description() -> None:
    solution = dmft.solve(problem(), 1.0)
    assert "gamma" not in solution.curve_names
    with pytest.raises(AttributeError, match="gamma"):
        _ = solution.gamma
    assert "m = infinity, n/d = 3" in solution.summary()


def test_files_keep_it(tmp_path: Any) -> None:
    solution = dmft.solve(problem(fractions=[0.5, 0.5], a0=[1.0, -0.5]), 1.0)
    solution.save(tmp_path / "wide.h5")
    again = dmft.load(tmp_path / "wide.h5")
    assert again.problem == solution.problem
    assert np.array_equal(again.a, solution.a)
    assert from_dict(solution.problem.to_dict()) == solution.problem
    solution.to_csv(tmp_path / "wide.csv")
    solution.plot(tmp_path / "wide.png")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sample_ratio": 0.0}, "sample_ratio"),
        ({"sample_ratio": -1.0}, "sample_ratio"),
        ({"a0": None}, "a0"),
        ({"fractions": [0.5, 0.6], "a0": [1.0, 1.0]}, "fractions"),
        ({"fractions": [], "a0": [1.0, 1.0]}, "fractions"),
        ({"fractions": [0.5, 0.5], "a0": [1.0]}, "a0"),
        ({"v0": 1.5}, "v0"),
    ],
)
def test_bad_parameters_are_refused_in_a_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        problem(**changes)


def test_finite_simulations_of_it_are_refused() -> None:
    with pytest.raises((ValueError, TypeError), match="infinite"):
        dmft.simulate(problem(), 20, t_final=1.0)  # type: ignore[arg-type]


def test_simulations_are_not_compared_with_a_limit() -> None:
    finite = dmft.SymmetricProblem(width=4, alpha=0.3, activation=CUBIC, target=problem().target, noise_std=0.6, a0=1.0)
    limit = dmft.solve(dmft.limits.of(finite, "mean_field"), 0.5)
    with pytest.raises(TypeError, match="finite width, not of a mean-field limit"):
        dmft.compare(limit, [])
