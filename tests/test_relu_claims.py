"""What is claimed of ReLU networks of free norms ([BF], docs/relu.md), on fewer runs than there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from validation.relu import config, sweep
from validation.relu.extremal import extremal_vectors_2d
from validation.relu.report import ReluReport
from validation.relu.sweep import VERDICTS, SweepResult
from validation.relu.training import Training, Verdict

STATIONARY, INTERPOLATED = VERDICTS.index(Verdict.STATIONARY), VERDICTS.index(Verdict.INTERPOLATED)


def ready(name: str, **changes: object) -> SweepResult:
    return sweep.run(replace(config.read(name).sweep, **changes))


def escaped(seeds: int, scales: tuple[float, ...]) -> SweepResult:
    base = config.read("relu_escape").sweep
    short = replace(base.training, t_final=60.0)  # all have escaped by then
    return sweep.run(replace(base, seeds=seeds, scales=scales, training=short))


@pytest.fixture(scope="module")
def escape() -> SweepResult:
    return escaped(4, (1e-6, 1e-5, 1e-4, 1e-3))


@pytest.mark.parametrize("seeds", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_all_neurons_are_on_extremal_vectors_before_the_escape(seeds: int) -> None:
    assert escaped(seeds, (1e-6,)).values["escape_extremal_min"].min() > 0.99


@pytest.mark.slow
def test_escape_time_is_proportional_to_the_logarithm_of_the_scale(escape: SweepResult) -> None:
    logs = np.log(1.0 / np.array(escape.sweep.scales))
    for index in range(escape.sweep.seeds):
        data, _ = sweep.dataset(escape.sweep, 2, 40, index)
        fastest = max(float(np.linalg.norm(one.drive)) for one in extremal_vectors_2d(data.inputs, data.labels))
        slope, _ = np.polyfit(logs, escape.values["escape_time"][0, :, 0, index], 1)
        # The loss falls when the neurons on the steepest extremal vector have grown from lambda at the rate |D|.
        assert slope == pytest.approx(1.0 / fastest, rel=0.02)


@pytest.mark.slow
def test_conserved_quantities(escape: SweepResult) -> None:
    assert escape.values["conserved_drift"].max() < 1e-12
    assert escape.values["sign_changes"].sum() == 0


def test_dominated_signs_never_change() -> None:
    base = config.read("relu_margin").sweep
    training = Training(width=50, initialisation="dominated", scale=1e-2)
    result = sweep.run(replace(base, samples=(20, 60), seeds=2, training=training, scales=(1e-2,)))
    assert result.values["sign_changes"].sum() == 0
    assert result.values["conserved_drift"].max() < 1e-12


@pytest.mark.slow
def test_descent_drifts_by_its_step() -> None:
    base = config.read("relu_gd").sweep
    drifts = []
    for rate in (0.1, 0.05, 0.025):
        training = replace(base.training, width=50, learning_rate=rate, t_final=100.0)
        result = sweep.run(replace(base, samples=(80,), seeds=2, training=training))
        drifts.append(result.values["conserved_drift"].mean())
        assert result.values["sign_changes"].sum() == 0
    assert drifts[0] / drifts[1] == pytest.approx(2.0, abs=0.3)
    assert drifts[1] / drifts[2] == pytest.approx(2.0, abs=0.3)


@pytest.mark.slow
def test_beyond_the_threshold_a_margin_leads_to_split_least_squares() -> None:
    result = ready("relu_margin", samples=(160, 320), seeds=4)
    assert (result.values["verdict"] == STATIONARY).all()
    np.testing.assert_allclose(result.values["train_loss"], result.values["split_loss"], rtol=1e-10)
    few, many = np.median(result.values["ols_distance"][0, 0], axis=1)
    assert many < few
    # 2 d parameters: E risk = 2 d sigma^2/n within the spread of eight chi-squared runs.
    ratio = result.values["risk"][0, 0].mean(axis=1) / (2 * 5 * 0.25 / np.array([160, 320]))
    assert (ratio > 0.5).all() and (ratio < 2.0).all()


def test_published_three_points_end_at_a_spurious_stationary_point() -> None:
    result = ready("relu_three_points", seeds=3)
    assert (result.values["verdict"][0, 0] == STATIONARY).all()
    assert (result.values["verdict"][0, 1] == INTERPOLATED).all()
    np.testing.assert_allclose(result.values["train_loss"][0, 0], 0.175, rtol=0.01)


@pytest.mark.slow
def test_threshold_grows_with_the_dimension() -> None:
    result = ready("relu_dimension", dimensions=(3, 5, 8, 12), seeds=10)
    found = ReluReport.of(result)
    assert found.dimension_exponent is not None
    assert found.dimension_exponent.low > 0.5 and found.dimension_exponent.high < 1.6
    assert not any(t.unfinished for t in found.thresholds)


@pytest.mark.slow
def test_large_initialisation_interpolates_what_small_does_not() -> None:
    result = ready("relu_scale", samples=(80,), scales=(1e-4, 1.0), seeds=5)
    assert (result.values["verdict"][0, 0] == STATIONARY).all()
    assert (result.values["verdict"][0, 1] == INTERPOLATED).all()
    (gain,) = ReluReport.of(result).gains
    assert gain.low > 1.0  # interpolating tests worse
