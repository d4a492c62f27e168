"""Predicted against simulated time scales: replicas made from the theory, with time stretched by a known factor."""

from __future__ import annotations

import numpy as np
import pytest

import dmft
from dmft.simulation import Sample, Settings, Simulation
from validation.predictions import EVENTS, predictions, table

CUBIC = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])


@pytest.fixture(scope="module")
def theory() -> dmft.Solution:
    problem = dmft.SymmetricProblem(
        width=16, alpha=0.3, activation=CUBIC, target=dmft.Target.same_as(CUBIC), noise_std=0.6, a0=1.0
    )
    return dmft.solve(problem, 400.0)


def stretched(theory: dmft.Solution, factor: float, replicas: int = 6) -> Simulation:
    random = np.random.default_rng(1)
    t = np.concatenate([[0.0], np.geomspace(0.05, 400.0, 160)])
    curves = theory.at(np.minimum(t / factor, theory.t[-1]))
    spread = 1.0 + 1e-4 * random.standard_normal((replicas, 1))
    observables = {
        "train_error": Sample.of(spread * curves.train_error),
        "test_error": Sample.of(spread * curves.test_error),
        "a": Sample.of((spread * curves.a)[:, :, None]),
        "v": Sample.of((spread * curves.v)[:, :, None, None]),
    }
    return Simulation(
        problem=theory.problem,
        settings=Settings(model="network", dimension=50, samples=240),
        t=t,
        pair_times=[],
        observables=observables,
        replica_index=np.arange(replicas),
    )


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_stretch_of_time_is_found_in_every_event(theory: dmft.Solution, factor: float) -> None:
    records = predictions("made_up", theory, [stretched(theory, factor)])
    compared = [record for record in records if record.ratio is not None]
    assert {"learning_90", "minimum", "overfitting", "overlap_loss", "test_rise"} <= {r.event for r in compared}
    for record in compared:
        # The grid of recorded times has steps of 6 %, and the minimum is flat.
        assert record.ratio == pytest.approx(factor, rel=0.15 if record.event == "minimum" else 0.02)
        assert record.low <= record.ratio <= record.high
    sharp = [record.verdict for record in compared if record.event in ("learning_90", "overlap_loss", "test_rise")]
    assert set(sharp) == {"holds" if factor == 1.0 else "off"}


def test_what_one_side_never_does_is_said(theory: dmft.Solution) -> None:
    records = predictions("made_up", theory, [stretched(theory, 40.0)])
    late = {record.event: record.verdict for record in records}
    assert late["overlap_loss"] == "only theory"
    text = table(records)
    assert "only theory" in text
    assert all(line.count("|") == text.splitlines()[0].count("|") for line in text.splitlines())
    assert any(event in text for event in EVENTS)
