"""Thinning of the history: what it changes is measured before it is kept, and long runs keep their accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dmft
import solvers.marching as marching
from dmft.solution import Solution
from solvers.base import Options
from solvers.checkpoint import Checkpointer

CUBIC = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
QUADRATIC = dmft.Activation.from_covariance([0, 0.9, 0.5])
PSPIN = dmft.PSpinProblem(covariance=[0, 0, 0, 1.0])


def noise(width: int) -> dmft.SymmetricProblem:
    """Pure noise, mean field: a grows to the interpolation threshold on t = Theta(m), glassy all the way."""
    return dmft.SymmetricProblem(
        width=width, alpha=0.4, activation=CUBIC, target=dmft.Target.noise(), noise_std=0.6, a0=1.0
    )


def run(problem: Any, t_final: float, rtol: float, max_history: int) -> tuple[Solution, marching.BdfEngine]:
    engine = marching.BdfEngine(problem, Options(t_final=t_final, rtol=rtol, method="bdf", max_history=max_history))
    return engine.run(None, Checkpointer(None, {}), False), engine


def test_solving_the_newest_row_again_changes_nothing() -> None:
    rtol = 1e-4
    _, engine = run(PSPIN, 20.0, rtol, 10**6)
    marcher = engine.marcher
    before = {name: value.copy() for name, value in marcher.history.state().items()}
    # What the row tolerance leaves, a thousandth of the local error.
    assert marcher.repeat(engine.curves.order[-1]) <= 2 * marching.ROW_TOLERANCE * engine.controller.tolerance
    for name, value in marcher.history.state().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_a_history_thinned_too_far_shows_in_the_newest_row() -> None:
    _, engine = run(PSPIN, 200.0, 1e-4, 10**6)
    marcher, tolerance = engine.marcher, engine.controller.tolerance
    full = marcher.history.state()
    order = engine.curves.order[-1]
    changes = []
    for spacing in (0.8, 0.4, 0.2, 0.1):
        marcher.history.thin(marching.rows_to_keep(full["t"], spacing * engine.controller.relative_step))
        changes.append(marcher.repeat(order) / tolerance)
        marcher.history.restore(full)
    assert changes[-1] < 1e-2 and all(np.diff(changes) <= 0), changes
    marcher.history.thin(marching.rows_to_keep(full["t"], 4.0 * engine.controller.relative_step))
    assert marcher.repeat(order) > 10 * tolerance


def test_what_cannot_be_thinned_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marching, "THIN_SHARE", -1.0)  # no change is small enough
    full, _ = run(PSPIN, 50.0, 1e-4, 10**6)
    kept, engine = run(PSPIN, 50.0, 1e-4, 120)
    assert kept.stats.thinnings == 0 and engine.thin_at > 120
    np.testing.assert_array_equal(kept.row_index, np.arange(len(kept.t)))
    np.testing.assert_allclose(kept.at(full.t).energy, full.energy, atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("problem", "t_final"),
    [(PSPIN, 3e3), pytest.param(noise(2**20), 1.2e7, marks=pytest.mark.slow)],
    ids=["p-spin", "noise, a million"],
)
def test_thinned_curves_are_those_of_the_whole_history(problem: Any, t_final: float) -> None:
    rtol = 1e-4
    full, _ = run(problem, t_final, rtol, 10**6)
    thin, _ = run(problem, t_final, rtol, 250)
    assert full.status.ok and thin.status.ok and full.stats.thinnings == 0 and thin.stats.thinnings >= 1
    other = thin.at(full.t)
    name = "energy" if problem is PSPIN else "train_error"
    have, want = getattr(other, name)[1:], getattr(full, name)[1:]
    # Relatively, down to an e_tr of 1e-3 of the first. Measured: 1e-8 (energy), 1.2e-5 (e_tr).
    np.testing.assert_allclose(have, want, rtol=rtol / 2, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "t_final", "rtol"),
    [
        (noise(2**20), 15.0 * 2**20, 1e-4),
        *(
            (
                dmft.SymmetricProblem(
                    width=16384, alpha=0.3, activation=QUADRATIC, target=dmft.Target.noise(), noise_std=2.5, gamma0=1.0
                ),
                20.0 * 16384,
                rtol,
            )
            for rtol in (1e-4, 1e-5)
        ),
        *(
            (
                dmft.InfiniteWidthProblem(
                    sample_ratio=ratio, activation=CUBIC, target=dmft.Target.same_as(CUBIC), noise_std=0.3, a0=1.0
                ),
                1e5,
                1e-3,
            )
            for ratio in (22.0, 26.0, 30.0)
        ),
        (
            dmft.InfiniteWidthProblem(
                sample_ratio=0.5, activation=CUBIC, target=dmft.Target.same_as(CUBIC), noise_std=100.0, a0=1.0
            ),
            3e4,
            1e-4,
        ),
    ],
)
def test_long_runs_end_where_they_should(problem: Any, t_final: float, rtol: float) -> None:
    found = dmft.solve(problem, t_final, rtol=rtol)
    assert found.status.ok, found.message
    e = found.train_error
    assert ((e[1:] - np.minimum.accumulate(e)[:-1]) <= rtol * e[:-1] + 1e-12 * e[0]).all()


@pytest.mark.slow
def test_glassy_energy_over_seven_decades() -> None:
    """E - E_th of the q^3 p-spin at t = 10^7, to one percent, by a tighter run."""
    rough, fine = (dmft.solve(PSPIN, 1e7, rtol=rtol) for rtol in (1e-4, 1e-5))
    assert rough.status.ok and fine.status.ok and rough.stats.thinnings >= 1
    threshold = -2.0 * np.sqrt(2.0 / 3.0)
    times = np.geomspace(10.0, 1e7, 25)
    excess = fine.at(times).energy - threshold
    np.testing.assert_allclose(rough.at(times).energy - threshold, excess, rtol=0.01)
    late = times >= 1e4
    slope = np.polyfit(np.log(times[late]), np.log(excess[late]), 1)[0]
    assert slope == pytest.approx(-2.0 / 3.0, abs=0.01)
