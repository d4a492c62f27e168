"""What a run promises: it ends with a status, keeps what it has, honours its tolerance, and repeats itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dmft
import solvers.history as history
import solvers.marching as marching
from dmft.solution import Solution
from solvers.base import Options, Progress
from solvers.checkpoint import Checkpointer
from solvers.history import rows_to_keep

CUBIC = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
QUADRATIC = dmft.Activation.from_covariance([0, 0.9, 0.5])


def problem(**changes: Any) -> dmft.SymmetricProblem:
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


# How runs end.


def test_done() -> None:
    run = dmft.solve(problem(), 3.0, rtol=1e-3)
    assert run.status is dmft.Status.DONE and run.status.ok
    assert run.t[0] == 0.0 and run.t[-1] == 3.0
    assert f"{run.stats.rows} rows" in run.message
    assert run.stats.rows == len(run.t)
    assert 0.0 < run.stats.estimated_error <= 2.0 * marching.LOCAL_TOLERANCE * 1e-3  # the slack of an accepted row


def test_step_limit_keeps_the_rows() -> None:
    whole = dmft.solve(problem(), 3.0, rtol=1e-3)
    part = dmft.solve(problem(), 3.0, rtol=1e-3, max_rows=30)
    assert part.status is dmft.Status.STEP_LIMIT and not part.status.ok
    assert len(part.t) == 30
    np.testing.assert_array_equal(part.train_error, whole.train_error[:30])
    assert "30 rows" in part.message and "raise max_rows" in part.message and "\n" not in part.message


@pytest.mark.parametrize("row", [1, 25])
def test_a_row_without_solution_ends_the_run_with_advice(row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    solve_row = marching.solve_row

    def failing(model: Any, tables: Any, work: Any, local: Any, memory: Any, n: int, *rest: Any) -> Any:
        if n >= row:
            return False, 7, 0.5
        return solve_row(model, tables, work, local, memory, n, *rest)

    monkeypatch.setattr(marching, "solve_row", failing)
    run = dmft.solve(problem(), 3.0, rtol=1e-3)
    assert run.status is dmft.Status.ROW_FAILED
    assert len(run.t) == row and np.isfinite(run.train_error).all()
    assert f"row {row} " in run.message and "t = " in run.message and "lower rtol" in run.message
    assert 0 < run.stats.rejected < 200


def test_a_hopeless_tolerance_ends_the_run_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = marching.Marcher.attempt

    def inaccurate(self: marching.Marcher, time: float, order: int, neighbours: bool = False) -> Any:
        errors = attempt(self, time, order, neighbours)
        return dict.fromkeys(errors, 1.0) if errors is not None and self.history.rows >= 25 else errors

    monkeypatch.setattr(marching.Marcher, "attempt", inaccurate)
    run = dmft.solve(problem(), 3.0, rtol=1e-3)
    assert run.status is dmft.Status.TOLERANCE_NOT_MET
    assert len(run.t) == 25
    assert "row 25 " in run.message and "raise rtol" in run.message


def test_a_passing_failure_is_retried_with_a_smaller_step(monkeypatch: pytest.MonkeyPatch) -> None:
    solve_row = marching.solve_row
    calls = {"failed": 0}

    def failing(model: Any, tables: Any, work: Any, local: Any, memory: Any, n: int, *rest: Any) -> Any:
        if n == 25 and calls["failed"] < 3:
            calls["failed"] += 1
            return False, 1, np.inf
        return solve_row(model, tables, work, local, memory, n, *rest)

    monkeypatch.setattr(marching, "solve_row", failing)
    run = dmft.solve(problem(), 3.0, rtol=1e-3)
    assert run.status is dmft.Status.DONE and run.stats.rejected >= 3


def test_interruption_keeps_the_curves() -> None:
    def stop(state: Progress) -> None:
        if state.rows == 40:
            raise KeyboardInterrupt

    whole = dmft.solve(problem(), 3.0, rtol=1e-3)
    part = dmft.solve(problem(), 3.0, rtol=1e-3, progress=stop)
    assert part.status is dmft.Status.INTERRUPTED
    assert len(part.t) == 40 and "interrupted at t = " in part.message
    np.testing.assert_array_equal(part.a, whole.a[:40])
    np.testing.assert_array_equal(part.two_time.correlation, whole.two_time.correlation[:, :40, :40])


# What is asked for.


def test_wanted_times_are_rows() -> None:
    times = [1e-9, 0.1, 1 / 3, 2.0, 2.01, 2.9]
    run = dmft.solve(problem(), 3.0, rtol=1e-3, times=[*times, 0.0, 3.0, 0.1])
    assert run.status.ok
    assert set(times) | {0.0, 3.0} <= set(run.t.tolist())
    plain = dmft.solve(problem(), 3.0, rtol=1e-3)
    # More rows are as good as fewer: both within rtol of the truth.
    assert np.abs(run.at(plain.t).test_error - plain.test_error).max() < 2e-3


@pytest.mark.parametrize("order", range(1, 6))
def test_fixed_orders(order: int) -> None:
    rtol = 1e-2 if order == 1 else 1e-3
    run = dmft.solve(problem(), 3.0, rtol=rtol, method=f"bdf{order}")
    assert run.status.ok and run.method == f"bdf{order}"
    expected = np.minimum(np.arange(len(run.t)), order)
    np.testing.assert_array_equal(run.order[1:], expected[1:])
    tight = dmft.solve(problem(), 3.0, rtol=1e-5, times=run.t[1:])
    rows = np.searchsorted(tight.t, run.t)
    # rtol bounds local errors with a margin of six to seven; three times it is the promise for the curves.
    assert np.abs(run.test_error - tight.test_error[rows]).max() < 3 * rtol
    assert np.abs(run.v - tight.v[rows]).max() < 3 * rtol


def test_progress_is_called_after_every_row() -> None:
    states: list[Progress] = []
    run = dmft.solve(problem(), 3.0, rtol=1e-3, progress=states.append)
    assert [state.rows for state in states] == list(range(2, len(run.t) + 1))
    np.testing.assert_array_equal([state.time for state in states], run.t[1:])
    np.testing.assert_allclose([state.step for state in states], np.diff(run.t), rtol=1e-9)
    assert all(state.t_final == 3.0 for state in states)
    walls = [state.wall_time for state in states]
    assert walls == sorted(walls) and walls[0] >= 0.0


def test_the_progress_bar_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert dmft.solve(problem(), 1.0, rtol=1e-2, progress=True).status.ok


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"t_final": 0.0}, ValueError, "t_final"),
        ({"t_final": -1.0}, ValueError, "t_final"),
        ({"t_final": float("nan")}, ValueError, "t_final"),
        ({"t_final": float("inf")}, ValueError, "t_final"),
        ({"t_final": "long"}, TypeError, "t_final"),
        ({"rtol": 0.0}, ValueError, "rtol"),
        ({"rtol": 1e-11}, ValueError, "rtol"),
        ({"rtol": 0.5}, ValueError, "rtol"),
        ({"rtol": None}, TypeError, "rtol"),
        ({"method": "euler"}, ValueError, "method"),
        ({"method": "bdf6"}, ValueError, "method"),
        ({"method": 4}, ValueError, "method"),
        ({"times": [1.0, 4.0]}, ValueError, "times"),
        ({"times": [-1.0]}, ValueError, "times"),
        ({"times": [float("nan")]}, ValueError, "times"),
        ({"times": ["one"]}, TypeError, "times"),
        ({"times": [2.0, 2.0000001]}, ValueError, "times must differ"),
        ({"max_rows": 1}, ValueError, "max_rows"),
        ({"max_rows": 2.5}, TypeError, "max_rows"),
        ({"checkpoint_interval": -1.0}, ValueError, "checkpoint_interval"),
        ({"resume": True}, ValueError, "resume"),
        ({"problem": "demo"}, TypeError, "problem"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    given: dict[str, Any] = {"problem": problem(), "t_final": 3.0} | arguments
    with pytest.raises(error, match=words) as caught:
        dmft.solve(given.pop("problem"), given.pop("t_final"), **given)
    assert "\n" not in str(caught.value)


# Cost and repeatability.


def test_cost_of_the_demo() -> None:
    run = dmft.solve(problem(), 320.0, rtol=1e-4)
    assert run.status.ok
    # Bounds some way above what is measured: 291 rows, 7 iterations a row. Work grows as the cube of the rows.
    assert run.stats.rows < 400, run.stats
    assert run.stats.iterations < 10 * run.stats.row_solves, run.stats
    assert run.stats.rejected < 0.1 * run.stats.rows, run.stats
    assert run.stats.row_solves == run.stats.rows - 1 + run.stats.rejected


def test_runs_repeat_bit_for_bit() -> None:
    one, two = (dmft.solve(problem(), 10.0, rtol=1e-3) for _ in range(2))
    for name in ("t", "order", *one.curve_names):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    for name in ("correlation", "integrated_response", "residual_correlation"):
        np.testing.assert_array_equal(getattr(one.two_time, name), getattr(two.two_time, name), err_msg=name)


# The tolerance.

VARIED: dict[str, tuple[Any, float]] = {
    "one neuron, index": (problem(width=1, v0=0.1), 10.0),
    "mean-field index": (problem(width=16), 30.0),
    "mean-field noise, fixed": (problem(target=dmft.Target.noise(), train_second_layer=False), 20.0),
    "lazy noise": (
        problem(width=64, a0=..., gamma0=1.0, activation=QUADRATIC, target=dmft.Target.noise(), noise_std=1.0),
        4.0,
    ),
    "lazy index, wide": (
        problem(width=4096, a0=..., gamma0=1.0, activation=QUADRATIC, target=dmft.Target.same_as(QUADRATIC)),
        2.0,
    ),
    "mean-field index, a million": (problem(width=10**6), 100.0),
}


def deviation(rough: Solution, fine: Solution) -> dict[str, float]:
    """Largest error of each curve at the rows of ``rough``; e_tr relative to itself, a and v to 1 or their size.

    ``fine`` is interpolated with its own order, so to its own accuracy.
    """
    there = fine.at(rough.t)
    result = {}
    for name in ("a", "v", "test_error", "train_error"):
        have, want = getattr(rough, name), getattr(there, name)
        size = np.abs(want) + (1e-8 * fine.train_error[0] if name == "train_error" else 0.0)
        if name in ("a", "v"):
            size = np.maximum(size, 1.0)
        elif name == "test_error":
            size = np.maximum(size, fine.test_error[0])
        result[name] = float((np.abs(have - want) / size).max())
    return result


@pytest.mark.parametrize("name", VARIED)
@pytest.mark.parametrize(
    "rtol", [1e-3, pytest.param(1e-4, marks=pytest.mark.slow), pytest.param(1e-5, marks=pytest.mark.slow)]
)
def test_rtol_is_honoured(name: str, rtol: float) -> None:
    case, t_final = VARIED[name]
    rough = dmft.solve(case, t_final, rtol=rtol)
    fine = dmft.solve(case, t_final, rtol=rtol / 100)
    assert rough.status.ok and fine.status.ok
    found = deviation(rough, fine)
    # The promise: three times rtol, in every curve at every row.
    assert max(found.values()) <= 3 * rtol, found


# Thinning.


def thinned_run(case: Any, options: Options) -> Solution:
    return marching.BdfEngine(case, options).run(None, Checkpointer(None, {}), False)


@pytest.mark.parametrize("kind", ["index", "p-spin", "groups"])
def test_thinned_history_gives_the_same_run(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marching, "THIN_SPACING", 2.0)  # coarser than in use, so that a short run has rows to drop
    case: Any = {
        "index": problem(),
        "p-spin": dmft.PSpinProblem(covariance=[0, 0, 0, 1.0]),
        "groups": dmft.GroupedProblem(
            sizes=[2, 2], alpha=0.3, activation=QUADRATIC, target=dmft.Target.noise(), noise_std=1.0, a0=[1.0, -1.0]
        ),
    }[kind]
    rtol, t_final = 1e-4, 10.0
    full, thin = (
        thinned_run(case, Options(t_final=t_final, rtol=rtol, method="bdf", max_history=limit)) for limit in (10**6, 80)
    )
    assert full.status.ok and thin.status.ok
    assert full.stats.thinnings == 0 and thin.stats.thinnings >= 1
    assert len(thin.row_index) < len(thin.t) and thin.row_index[-1] == len(thin.t) - 1
    other = thin.at(full.t)
    names = ("energy", "nu") if kind == "p-spin" else ("a", "train_error", "test_error")
    for name in names:
        want = getattr(full, name)
        # Dropping rows is an interpolation within the tolerance; nu is of order one and known a digit less well.
        limit = 10 * rtol if name == "nu" else rtol
        np.testing.assert_allclose(getattr(other, name), want, atol=limit * max(1.0, np.abs(want).max()), rtol=0)
    t, s = np.meshgrid(np.linspace(0.5, t_final, 12), np.linspace(0.0, t_final, 12), indexing="ij")
    np.testing.assert_allclose(thin.correlation(t, s), full.correlation(t, s), atol=10 * rtol, rtol=0)


@pytest.mark.parametrize("spacing", [0.03, 0.05, 0.2])
def test_rows_to_keep_resolve_both_ends(spacing: float) -> None:
    t = np.concatenate([[0.0], np.geomspace(1e-6, 1e4, 3000)])
    keep = rows_to_keep(t, spacing)
    assert keep[0] == 0 and keep[-1] == len(t) - 1 and (np.diff(keep) > 0).all()
    assert len(keep) < len(t)
    assert set(range(len(t) - 24, len(t))) <= set(keep.tolist())  # what formula and predictor need
    gaps, u = np.diff(t[keep]), t[keep][1:]
    own = np.diff(t)[keep[1:] - 1]
    # A gap is either within the spacing or a single step of the run. The oldest times may be resolved less finely.
    old = getattr(history, "OLDEST", 0.0) * t[-1]
    allowed = np.maximum(spacing * np.minimum(u + old, t[-1] - t[keep][:-1]), own)
    assert (gaps <= allowed * (1 + 1e-12)).all()
