"""The second engine against closed forms, the main engine, and itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ive

import dmft
from solvers import solve
from solvers.base import Options
from solvers.collocation import CollocationEngine, supports
from solvers.collocation.grid import Grid, gregory_weights
from solvers.collocation.history import Frame
from solvers.collocation.march import Marcher
from solvers.collocation.network import NetworkSystem
from solvers.collocation.pspin import PSpinSystem

CUBIC = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
QUAD = dmft.Activation.from_covariance([0, 0.9, 0.5])
NETWORK = {"width": 16, "alpha": 0.3, "activation": CUBIC, "target": dmft.Target.same_as(CUBIC), "noise_std": 0.6}


def index(**changes):
    return dmft.SymmetricProblem(**({"a0": 1.0} | NETWORK | changes))


def noise(**changes):
    return index(target=dmft.Target.noise(), **changes)


def quadratic_pspin(t, s):
    """C, R and E of the p = 2 model, theory section 11; scaled Bessel functions."""
    root = 2.0 * np.sqrt(2.0)

    def phi(x):  # without exp(root x)
        z = root * np.asarray(x, dtype=float)
        return np.where(z > 0.0, 2.0 * ive(1, np.maximum(z, 1e-30)) / np.maximum(z, 1e-30), 1.0)

    correlation = phi(t + s) / np.sqrt(phi(2 * t) * phi(2 * s))
    response = phi(t - s) * np.sqrt(phi(2 * s) / phi(2 * t))
    z = 2.0 * root * t
    return correlation, response, -np.sqrt(2.0) * ive(2, z) / ive(1, z)


class TestGrid:
    def test_quadrature_is_exact_for_polynomials_of_its_order(self):
        weights = gregory_weights(40)
        x = np.arange(40.0)
        for degree in range(8):
            assert weights @ (x / 39.0) ** degree == pytest.approx(39.0 / (degree + 1), rel=1e-14)
        assert weights @ (x / 39.0) ** 12 != pytest.approx(39.0 / 13.0, rel=1e-14)

    @pytest.mark.parametrize(("size", "stretch"), [(30, 3.0), (57, 9.0), (98, 14.0), (160, 13.0), (240, 30.0)])
    def test_transport_has_no_growing_mode(self, size, stretch):
        # One unstable eigenvalue would end every run whose step is about its inverse.
        assert np.linalg.eigvals(Grid(size, stretch).transport[:-1, :-1]).real.max() <= 1e-9

    def test_transport_is_the_derivative(self):
        grid = Grid(160, 12.0)
        rate = 30.0
        wanted = rate * grid.theta * np.exp(-rate * grid.kappa)
        assert np.abs(grid.transport @ np.exp(-rate * grid.kappa) - wanted)[:-1].max() < 1e-5

    def test_resampling_keeps_a_function_and_its_ends(self):
        old, new = Grid(140, 10.0), Grid(180, 12.5)
        values = np.exp(-20.0 * old.kappa) + old.theta**2
        carried = old.resampling(new) @ values
        assert np.abs(carried - np.exp(-20.0 * new.kappa) - new.theta**2).max() < 1e-8
        assert carried[0] == values[0]
        assert carried[-1] == values[-1]

    def test_a_new_grid_leaves_no_kinks(self):
        # What a row contains on a first grid, at the density of rtol = 1e-6: C of an aging system, two decays.
        def function(grid):
            lag = 1e5 * grid.kappa
            return (0.5 + 0.5 / (1.0 + lag)) * (0.3 + 0.7 * grid.theta**0.4 / (0.3 + 0.7 * grid.theta**0.8))

        old, new = Grid(120, 16.0), Grid(128, 16.7)
        wide = old.resampling(new) @ function(old) - function(new)
        stencil = old.stencil(new.theta, new.kappa)
        narrow = (function(old)[stencil.start[:, None] + np.arange(10)] * stencil.weight).sum(axis=1) - function(new)
        inside = slice(20, -20)
        assert np.abs(wide[inside]).max() < 1e-2 * np.abs(narrow[inside]).max()
        assert np.abs(wide).max() < 1e-4


@pytest.mark.parametrize(
    ("system", "until"),
    [
        (PSpinSystem(dmft.PSpinProblem(covariance=[0, 0, 0.3, 1.0]).formulation()), 3.0),
        (NetworkSystem(index().formulation()), 2.0),
        (NetworkSystem(noise(width=1, train_second_layer=False).formulation()), 2.0),
        (NetworkSystem(index(width=4096, a0=None, gamma0=1.0).formulation()), 0.01),
    ],
    ids=["pspin", "index", "one neuron", "lazy"],
)
def test_jacobian_is_the_derivative_of_the_residual(system, until):
    marcher = Marcher(system, 1e-4, until, until)
    while marcher.history.newest < np.log(until) - 1e-9:
        marcher.advance(np.log(until))
    frame = Frame(marcher.history, 0.05, system.layout)
    unknowns = frame.predicted_values[:, list(system.unknowns)].T.copy()
    scalars = frame.predicted_scalars.copy()
    jacobian = system.jacobian(frame, unknowns, scalars, system.row(frame, unknowns, scalars))
    functions, sizes = system.scales(frame)
    scale = np.concatenate([np.repeat(functions, frame.grid.size), sizes])
    rows = np.append(scale[:-1], 1.0)
    random = np.random.default_rng(1)
    for block in range(len(functions) + len(sizes)):
        direction = np.zeros_like(scale)
        first = block * frame.grid.size
        if block < len(functions):
            direction[first : first + frame.grid.size] = random.normal(size=frame.grid.size)
        else:
            direction[unknowns.size + block - len(functions)] = 1.0
        direction *= scale

        def residual(step, direction=direction):
            moved = step * direction
            return system.row(
                frame, unknowns + moved[: unknowns.size].reshape(unknowns.shape), scalars + moved[unknowns.size :]
            ).residual

        numeric = (residual(1e-5) - residual(-1e-5)) / 2e-5
        analytic = jacobian @ direction
        assert np.abs((numeric - analytic) / rows).max() < 3e-6 * np.abs(analytic / rows).max()


class TestPSpin:
    def test_quadratic_model_is_the_closed_form(self):
        solution = dmft.solve(dmft.PSpinProblem(covariance=[0, 0, 1.0]), 100.0, rtol=1e-7, method="collocation")
        assert solution.status is dmft.Status.DONE
        exact = quadratic_pspin(solution.t[1:], 0.0)[2]
        assert np.abs(solution.energy[1:] - exact).max() < 1e-7
        # All scales of t - s: 0.003 to 99.
        t = 100.0
        s = t - np.geomspace(3e-3, 99.0, 60)
        correlation, response, _ = quadratic_pspin(t, s)
        assert np.abs(solution.correlation(t, s) - correlation).max() < 1e-6
        assert np.abs(solution.response(t, s) - response).max() < 1e-6
        integral = solution.integrated_response(t, s)
        fine = np.linspace(t - 2.0, t, 20001)
        midpoints = 0.5 * (fine[1:] + fine[:-1])
        assert solution.integrated_response(t, t - 2.0) == pytest.approx(
            quadratic_pspin(t, midpoints)[1].sum() * 1e-4, abs=1e-6
        )
        assert np.all(np.diff(integral) > 0.0)

    def test_between_rows(self):
        solution = dmft.solve(dmft.PSpinProblem(covariance=[0, 0, 1.0]), 50.0, rtol=1e-6, method="collocation")
        times = np.sqrt(solution.t[60:-1] * solution.t[61:])
        exact = quadratic_pspin(times, 0.0)[2]
        assert np.abs(solution.at(times).energy - exact).max() < 3e-6
        correlation, response, _ = quadratic_pspin(times, 0.37 * times)
        assert np.abs(solution.correlation(times, 0.37 * times) - correlation).max() < 3e-6
        assert np.abs(solution.response(times, 0.37 * times) - response).max() < 3e-6

    def test_error_follows_rtol(self):
        errors = []
        for rtol in (1e-4, 1e-5, 1e-6):
            solution = dmft.solve(dmft.PSpinProblem(covariance=[0, 0, 1.0]), 100.0, rtol=rtol, method="collocation")
            errors.append(np.abs(solution.energy[1:] - quadratic_pspin(solution.t[1:], 0.0)[2]).max() / rtol)
        assert max(errors) < 1.0
        assert min(errors) > 0.01

    @pytest.mark.slow
    def test_quadratic_model_to_late_times(self):
        solution = dmft.solve(dmft.PSpinProblem(covariance=[0, 0, 1.0]), 1e5, rtol=1e-7, method="collocation")
        assert np.abs(solution.energy[1:] - quadratic_pspin(solution.t[1:], 0.0)[2]).max() < 1e-7

    @pytest.mark.slow
    def test_cubic_model_agrees_with_the_main_engine(self):
        problem = dmft.PSpinProblem(covariance=[0, 0, 0, 1.0])
        mine = dmft.solve(problem, 1e4, rtol=1e-7, method="collocation")
        other = dmft.solve(problem, 1e4, rtol=1e-7)
        times = np.geomspace(1e-3, 1e4, 200)
        assert np.abs(mine.at(times).energy - other.at(times).energy).max() < 1e-7

    @pytest.mark.slow
    def test_cubic_model_ages_to_very_late_times(self):
        # E - E_th ~ t^(-2/3). A sawtooth in s, or errors of the interpolation that t amplifies, would shrink the steps
        # to 1e-3 and below from t = 1e4 on, and end the run before 1e6.
        solution = dmft.solve(
            dmft.PSpinProblem(covariance=[0, 0, 0, 1.0]), 1e7, rtol=1e-6, method="collocation", times=(1e5, 1e6)
        )
        assert solution.status is dmft.Status.DONE
        assert len(solution.t) < 700
        assert solution.stats.rejected < 20
        gap = [solution.at(t).energy[0] + 2.0 * np.sqrt(2.0 / 3.0) for t in (1e5, 1e6, 1e7)]
        assert np.diff(np.log10(gap)) == pytest.approx(-2.0 / 3.0, abs=0.01)


CASES = {
    "index": (index(), 40.0),
    "index, one neuron": (index(width=1), 20.0),
    "noise, fixed a": (noise(width=8, train_second_layer=False, a0=1.5), 30.0),
    "noise, wide": (noise(width=1024), 300.0),
    "lazy": (index(width=1024, a0=None, gamma0=1.0, activation=QUAD, target=dmft.Target.same_as(QUAD)), 3.0),
    "v0": (index(v0=0.4, activation=QUAD, target=dmft.Target.from_overlap([0, 0.3, 0.2], power=1.0)), 20.0),
    "negative a": (index(a0=-0.5), 20.0),
    "no noise": (index(noise_std=0.0), 20.0),
    "infinite width": (
        dmft.InfiniteWidthProblem(
            sample_ratio=20.0, a0=1.0, activation=CUBIC, target=dmft.Target.same_as(CUBIC), noise_std=0.3
        ),
        30.0,
    ),
}


QUICK = ("lazy", "v0")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_agrees_with_the_main_engine(name):
    problem, t_final = CASES[name]
    mine = dmft.solve(problem, t_final, rtol=1e-5, method="collocation")
    assert mine.status is dmft.Status.DONE
    other = dmft.solve(problem, t_final, rtol=1e-6)
    times = np.geomspace(1e-3 * t_final, t_final, 100)
    a, b = mine.at(times), other.at(times)
    for curve in ("a", "v", "train_error", "test_error"):
        one, two = getattr(a, curve), getattr(b, curve)
        assert np.abs(one - two).max() < 2e-5 * np.abs(two).max() + 1e-12, curve
    # Functions of two times, where the main engine is at its best: on its own rows.
    rows = other.two_time.t[[len(other.two_time.t) // 2, -1]]
    for mode in ("d",) if getattr(problem, "width", 2) == 1 else ("d", "o"):
        one, two = (one.correlation(rows[1], rows, mode) for one in (mine, other))
        assert np.abs(one - two).max() < 1e-4
    assert mine.residual_correlation(rows[1], rows[0]) == pytest.approx(
        other.residual_correlation(rows[1], rows[0]), abs=1e-4 * other.residual_correlation(0.0, 0.0)
    )
    assert np.median(mine.energy_balance) < 1e-3


@pytest.mark.slow
def test_what_an_early_event_leaves_does_not_stop_a_run():
    # From a(0) = 0.1 the neurons align within 1/20 of an e-fold in s, which no later grid resolves.
    problem = dmft.InfiniteWidthProblem(
        sample_ratio=451.708, a0=0.1, activation=CUBIC, target=dmft.Target.same_as(CUBIC), noise_std=1.0
    )
    mine = dmft.solve(problem, 1e5, rtol=1e-5, method="collocation", max_rows=3000)
    assert mine.status is dmft.Status.DONE
    other = dmft.solve(problem, 1e5, rtol=1e-5)
    for time in (1e3, 1e4, 1e5):  # each engine promises 1e-5
        assert mine.at(time).v[0] == pytest.approx(other.at(time).v[0], abs=2e-5)


def test_constraint_and_diagonal_are_exact():
    solution = dmft.solve(index(), 20.0, rtol=1e-4, method="collocation")
    assert np.abs(solution.correlation(solution.t, solution.t) - 1.0).max() < 1e-13
    assert np.array_equal(solution.response(solution.t, solution.t), np.ones(len(solution.t)))
    t = solution.t[1:]
    assert solution.residual_correlation(t, t) == pytest.approx(2.0 * solution.train_error[1:], rel=1e-12)


def test_goes_on_after_interpolation():
    solution = dmft.solve(noise(width=1, train_second_layer=False), 1e3, rtol=1e-5, method="collocation")
    assert solution.status is dmft.Status.DONE
    settled = int(np.argmax(solution.train_error == 0.0))
    assert 0 < settled < len(solution.t) - 5
    assert np.all(solution.train_error[settled:] == 0.0)
    assert solution.train_error.min() > -1e-8 * solution.train_error[0]
    late = solution.t[settled + 5 :]
    assert np.abs(solution.correlation(solution.t[-1], late) - 1.0).max() < 1e-8  # nothing moves any more


def test_wanted_times_are_rows():
    times = (0.3, 7.123)
    solution = dmft.solve(index(), 10.0, rtol=1e-3, times=times, method="collocation")
    assert set(times) <= set(solution.t)
    assert solution.t[-1] == 10.0


def test_resumed_run_is_the_same_bit_for_bit(tmp_path):
    problem = index()
    whole = dmft.solve(problem, 40.0, rtol=1e-4, method="collocation")
    stop = len(whole.t) // 2

    def interrupt(progress):
        if progress.rows == stop:
            raise KeyboardInterrupt

    path = tmp_path / "run.ckpt"
    half = dmft.solve(problem, 40.0, rtol=1e-4, method="collocation", checkpoint=path, progress=interrupt)
    assert half.status is dmft.Status.INTERRUPTED
    assert np.array_equal(half.t, whole.t[:stop])
    rest = dmft.solve(problem, 40.0, rtol=1e-4, method="collocation", checkpoint=path, resume=True)
    for name in ("t", "a", "v", "nu", "train_error", "test_error", "energy_balance"):
        assert np.array_equal(getattr(rest, name), getattr(whole, name)), name
    assert np.array_equal(rest.scaled.response, whole.scaled.response)


def test_file_round_trip(tmp_path):
    solution = dmft.solve(index(), 5.0, rtol=1e-3, method="collocation")
    solution.save(tmp_path / "run.h5")
    again = dmft.load(tmp_path / "run.h5")
    t, s = 4.3, np.array([0.0, 1.7, 4.2999])
    for function in ("correlation", "response", "response_error", "integrated_response", "residual_correlation"):
        assert np.array_equal(getattr(again, function)(t, s), getattr(solution, function)(t, s)), function


def test_what_it_does_not_solve_is_refused_in_a_sentence():
    problem = dmft.GroupedProblem(sizes=[8, 8], a0=[1.0, -1.0], **{k: v for k, v in NETWORK.items() if k != "width"})
    assert not supports(problem)
    with pytest.raises(ValueError, match="collocation"):
        solve(problem, 1.0, method="collocation")


def test_step_limit_keeps_what_there_is():
    solution = dmft.solve(index(), 40.0, rtol=1e-4, method="collocation", max_rows=50)
    assert solution.status is dmft.Status.STEP_LIMIT
    assert len(solution.t) == 50


def test_the_energy_balance_notices_a_wrong_curve():
    options = Options(t_final=10.0, rtol=1e-4, method="collocation")
    engine = CollocationEngine(index(), options)
    marcher = engine._marcher
    while marcher.history.newest < np.log(10.0) - 1e-9:
        accepted = marcher.advance(np.log(10.0))
        if accepted is None:
            continue
        state = accepted[0]
        engine._record(state.values[-1], state.energy, 0.0)
    assert engine._balance(state) < 1e-3
    wrong = replace(state, self_motion=1.1 * state.self_motion)
    assert engine._balance(wrong) > 0.03
