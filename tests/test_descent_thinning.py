"""Long runs of discrete updates: the thinned history against the whole one, and where it is not thinned."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_descent import NOISE, OPTIMIZERS, PROBLEMS, assert_same, run, stop_after, symmetric

import dmft
import solvers.descent.engine as engine
from dmft.optimizers import SGD, GradientDescent, Momentum, Optimizer
from dmft.problems import NetworkProblem
from dmft.solution import Solution
from dmft.status import Status
from solvers.checkpoint import Checkpointer
from solvers.descent import DescentOptions
from solvers.descent.engine import DescentEngine
from solvers.descent.rows import Rows, cost, thinned_cost
from solvers.descent.thinning import Interpolation, difference, rows_to_keep, thinned

SMOOTH: tuple[Optimizer, ...] = (
    GradientDescent(learning_rate=0.1),
    Momentum(learning_rate=0.05, momentum=0.6),
    SGD(learning_rate=0.1, batch_fraction=0.25),
    SGD(learning_rate=0.05, batch_fraction=0.4, momentum=0.5),
)
CUBIC = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
WIDE = dmft.SymmetricProblem(width=16, alpha=0.4, noise_std=0.6, a0=1.0, activation=CUBIC, target=NOISE)


def name_of(one: Optimizer) -> str:
    return f"{one.kind}{one.momentum}"


def options(problem: NetworkProblem, optimizer: Optimizer, updates: int, **changes: Any) -> DescentOptions:
    end = updates * optimizer.step(problem)
    return DescentOptions(t_final=end, rtol=0.0, method=optimizer.kind, optimizer=optimizer, **changes)


def solved(problem: NetworkProblem, optimizer: Optimizer, updates: int, **changes: Any) -> Solution:
    made = options(problem, optimizer, updates, **changes)
    return DescentEngine(problem, made).run(None, Checkpointer(None, {}), False)


def errors(part: Solution, whole: Solution) -> dict[str, float]:
    """Largest differences: of the errors relative, of the rest over the largest value."""
    found = {
        name: float(np.abs(getattr(part, name) / getattr(whole, name) - 1.0).max())
        for name in ("train_error", "test_error")
    }
    for name in ("a", "v", "nu"):
        size = np.abs(getattr(whole, name)).max()
        found[name] = float(np.abs(getattr(part, name) - getattr(whole, name)).max() / (size or 1.0))
    k = part.row_index
    assert len(whole.row_index) == len(whole.t)
    for name in ("correlation", "integrated_response", "residual_correlation"):
        mine, exact = np.asarray(getattr(part.two_time, name)), np.asarray(getattr(whole.two_time, name))
        found[name] = float(np.abs(mine - exact[..., k[:, None], k]).max() / np.abs(exact).max())
    return found


@pytest.fixture
def all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "TABLE", 10**6)


@pytest.mark.usefixtures("all_rows")
@pytest.mark.parametrize("optimizer", SMOOTH, ids=name_of)
@pytest.mark.parametrize("name", ["five, noise, fixed a", "groups", "own gram", "two directions"])
def test_thinned_agrees_with_whole(name: str, optimizer: Optimizer) -> None:
    problem, updates = PROBLEMS[name], 400
    whole = solved(problem, optimizer, updates, thinning=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        part = solved(problem, optimizer, updates, max_history=120)
    assert part.status is Status.DONE and whole.stats.thinnings == 0 and whole.stats.estimated_error < 1e-9
    assert part.stats.thinnings >= 4 and len(part.row_index) < 200
    np.testing.assert_array_equal(part.updates, np.arange(updates + 1))
    np.testing.assert_allclose(part.energy_balance, whole.energy_balance, atol=2e-3)
    found = errors(part, whole)
    curves = max(found[curve] for curve in ("train_error", "test_error", "a", "v", "nu"))
    assert 0.0 < curves < part.stats.estimated_error < 3e-5
    fresh = optimizer.batch_fraction < 1.0
    assert found["correlation"] < (3e-5 if fresh else 1e-6)
    assert found["residual_correlation"] < (1e-3 if fresh else 1e-6)
    assert found["integrated_response"] < 3e-4


@pytest.mark.slow
@pytest.mark.usefixtures("all_rows")
@pytest.mark.parametrize("optimizer", [SMOOTH[0], SGD(learning_rate=0.1, batch_fraction=0.1)], ids=name_of)
def test_thinned_agrees_with_whole_at_length(optimizer: Optimizer) -> None:
    whole = solved(WIDE, optimizer, 2500, max_history=2500)
    for changes in ({}, {"max_history": 300}):
        part = solved(WIDE, optimizer, 2500, **changes)
        assert part.stats.thinnings > 0
        found = errors(part, whole)
        curves = max(found[curve] for curve in ("train_error", "test_error", "a", "v", "nu"))
        assert curves < part.stats.estimated_error < 1e-4 and found["correlation"] < 1e-4


@pytest.mark.parametrize("optimizer", SMOOTH[::2], ids=name_of)
def test_error_falls_with_the_gaps(optimizer: Optimizer) -> None:
    updates, since = 500, 420
    problem = PROBLEMS["groups"]
    rows = Rows(
        problem.formulation(), updates, optimizer.step(problem), optimizer.momentum, optimizer.batch_fraction, total=900
    )
    for _ in range(updates - 1):
        rows.compute()
        rows.accept()
    found = []
    for spacing in (0.2, 0.1, 0.05):
        other = thinned(rows, rows_to_keep(rows.update[: since + 1], spacing), updates)
        for _ in range(rows.made - since):
            other.compute()
            other.accept()
        found.append(difference(rows, other, since, 0))
    assert found[1] < found[0] / 12.0 and found[2] < found[1] / 12.0  # fourth order
    assert found[2] < 1e-5


def test_interpolation_is_exact_on_cubics_and_causal() -> None:
    update = np.concatenate([np.arange(60), np.arange(60, 100, 2), np.arange(100, 130)])
    keep = rows_to_keep(update, 0.15)
    assert keep[0] == 0 and keep[-1] == len(update) - 1 and len(keep) < 0.7 * len(update)
    times = update[keep]
    assert np.all(np.diff(times) <= np.maximum(2.0, 0.15 * np.minimum(times[1:], times[-1] - times[:-1])))
    made = Interpolation(update, keep)
    table = np.random.default_rng(1).standard_normal((len(update), len(keep), 2))
    table[np.arange(len(update))[:, None] > keep] = 0.0  # causal
    before = table.copy()
    moved = made.moved(table)
    assert np.all(moved[np.arange(len(keep))[:, None] > np.arange(len(keep))] == 0.0)
    for power in range(4):
        smooth = (update / update[-1]) ** power
        later = keep >= keep[3]  # earlier rows have fewer nodes
        mine, theirs = (np.einsum("knf,k->nf", x, y) for x, y in ((moved, smooth[keep]), (before, smooth)))
        np.testing.assert_allclose(mine[later], theirs[later], atol=1e-12)
        np.testing.assert_allclose(made.matrix() @ smooth[keep], smooth, atol=1e-13)


def test_nothing_is_approximate_while_the_history_fits() -> None:
    for optimizer in OPTIMIZERS:
        whole = solved(PROBLEMS["two directions"], optimizer, 60, thinning=0.0)
        part = solved(PROBLEMS["two directions"], optimizer, 60, max_history=60)
        assert_same(part, whole)
        assert part.stats.thinnings == 0 and part.stats.estimated_error == whole.stats.estimated_error


@pytest.mark.parametrize("optimizer", SMOOTH[1:3], ids=name_of)
def test_interrupted_and_resumed_is_uninterrupted(optimizer: Optimizer, tmp_path: Path) -> None:
    problem = PROBLEMS["groups"]
    made = options(problem, optimizer, 260, max_history=80)
    whole = DescentEngine(problem, made).run(None, Checkpointer(None, {}), False)
    assert whole.stats.thinnings > 2
    for rows in (60, 81, 82, 83, 200):
        place = Checkpointer(tmp_path / f"{rows}.npz", {})
        part = DescentEngine(problem, made).run(stop_after(rows), place, False)
        assert part.status is Status.INTERRUPTED and len(part.t) == rows
        rest = DescentEngine(problem, made).run(None, place, True)
        assert_same(rest, whole)
        np.testing.assert_array_equal(rest.row_index, whole.row_index)
        assert rest.stats.thinnings == whole.stats.thinnings
        assert rest.stats.estimated_error == whole.stats.estimated_error
    whole.save(tmp_path / "run.h5")
    again = dmft.load(tmp_path / "run.h5")
    assert isinstance(again, Solution)
    assert_same(again, whole)


def test_rows_that_alternate_are_kept() -> None:
    problem, optimizer = symmetric(2), GradientDescent(learning_rate=1.2)
    whole = solved(problem, optimizer, 200, thinning=0.0)
    assert np.count_nonzero(np.diff(whole.train_error) > 0.0) > 20
    with pytest.warns(UserWarning, match=r"the history of 101 rows at update 101 cannot be thinned .* \(least error"):
        part = solved(problem, optimizer, 200, max_history=100)
    assert_same(part, whole)
    assert part.stats.thinnings == 0


def test_a_history_that_outgrows_the_memory_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, optimizer = symmetric(2), GradientDescent(learning_rate=1.2)
    need = cost(problem.formulation(), 110).memory
    monkeypatch.setattr(engine, "available_memory", lambda: need)
    part = solved(problem, optimizer, 400, max_history=100)
    assert part.status is Status.STEP_LIMIT and len(part.t) == 101
    assert "cannot be thinned" in part.message and "are available" in part.message


def test_instability_after_thinning_is_told() -> None:
    with pytest.warns(UserWarning, match="cannot be thinned"):
        part = solved(WIDE, GradientDescent(learning_rate=3.0), 400, max_history=100)
    assert part.stats.thinnings > 0 and part.stats.estimated_error > 0.1
    assert part.status is Status.TOLERANCE_NOT_MET and "set thinning = 0" in part.message
    assert "training is unstable at update" in part.message
    calm = solved(WIDE, GradientDescent(learning_rate=2.0), 400, max_history=100)
    assert calm.stats.thinnings > 0 and calm.stats.estimated_error < 1e-5


def test_epochs_are_never_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = SGD(learning_rate=0.1, batch_fraction=0.25, sampling="epochs")
    problem = PROBLEMS["two"]
    whole = solved(problem, optimizer, 150, thinning=0.0)
    assert_same(solved(problem, optimizer, 150, max_history=60), whole)
    monkeypatch.setattr(engine, "LONG", 1e-3)
    with pytest.warns(UserWarning, match=r"150 updates with 151 rows of history, all of which are kept \(sampling="):
        solved(problem, optimizer, 150, max_history=60)
    monkeypatch.setattr(engine, "available_memory", lambda: 1e5)
    with pytest.raises(ValueError, match="whose history is not thinned"):
        solved(problem, optimizer, 150, max_history=60)


def test_long_runs_say_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, optimizer = symmetric(2), SMOOTH[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solved(problem, optimizer, 100)
    form = problem.formulation()
    need = thinned_cost(form, 150, 60)
    assert need.memory < cost(form, 150).memory and need.seconds < cost(form, 150).seconds
    assert thinned_cost(form, 20_001, 2000).seconds < 120.0 < cost(form, 20_001).seconds
    monkeypatch.setattr(engine, "LONG", 0.9 * need.seconds)
    with pytest.warns(UserWarning, match=r"149 updates with 62 rows of history need .* GB and about"):
        solved(problem, optimizer, 149, max_history=60)
    monkeypatch.setattr(engine, "available_memory", lambda: 1e4)
    with pytest.raises(ValueError, match=r"with a history of 60 rows need"):
        solved(problem, optimizer, 149, max_history=60)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_history": 20}, "max_history"),
        ({"thinning": -1.0}, "thinning"),
        ({"thinning": 0.2}, "thinning"),
        ({"thinning": np.nan}, "thinning"),
    ],
)
def test_bad_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        options(symmetric(2), SMOOTH[0], 10, **changes)


def test_rows_make_room_for_more() -> None:
    problem, optimizer = PROBLEMS["groups"], SMOOTH[3]
    whole = run(problem, optimizer, 40)
    rows = Rows(
        problem.formulation(), 10, optimizer.step(problem), optimizer.momentum, optimizer.batch_fraction, total=41
    )
    for _ in range(41):
        rows.compute()
        rows.accept()
    for mine, theirs in zip(rows.curves, whole.curves, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["test error", "a", "v", "lam"])
def test_error_of_a_thinning_is_that_of_every_curve(name: str) -> None:
    """1e-3 in the last of 10 updates is expected to go on growing for 40; the train error counts as it is."""
    n = np.arange(20.0)[:, None]
    curves = {"errors": np.hstack([2.0 + 0 * n, 1.0 + 0 * n]), "a": 1.0 + 0 * n, "v": 0.5 + 0 * n, "lam": 2.0 + 0 * n}
    rows = SimpleNamespace(made=20, curves=SimpleNamespace(**curves))
    changed = {key: value.copy() for key, value in curves.items()}
    changed["errors" if name == "test error" else name][-1, -1] += 1e-3
    other = SimpleNamespace(made=20, curves=SimpleNamespace(**changed))
    size = 0.5 if name == "v" else 1.0
    assert difference(rows, other, 10, 40) == pytest.approx(4e-3 / size)  # type: ignore[arg-type]
    changed["errors"][-1, 0] += 0.1
    assert difference(rows, other, 10, 40) == pytest.approx(0.05)  # type: ignore[arg-type]
