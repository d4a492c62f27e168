"""Figures of sweeps, on fabricated numbers: the panels, lines and files that they should have."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from validation.relu.plots import _filled, _median, plot, wilson
from validation.relu.sweep import CURVES, MEASURED, VERDICTS, Source, Sweep, SweepResult, run
from validation.relu.threshold import Threshold, exponent, thresholds
from validation.relu.training import Training, Verdict

pytestmark = pytest.mark.filterwarnings("error")

LAW = Source(margin=0.5, noise_std=0.5)
N = (10, 20, 40, 80)


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    monkeypatch.setattr("validation.relu.threshold.DRAWS", 100)


def fabricate(
    *,
    source: Source = LAW,
    samples: tuple[int, ...] = N,
    dimensions: tuple[int, ...] = (3,),
    scales: tuple[float, ...] = (1e-3,),
    seeds: int = 6,
    power: float = 1.0,
) -> SweepResult:
    """Runs that interpolate up to n = 5 d^power, give or take luck; curves that end at their own times."""
    rng = np.random.default_rng(4)
    training = Training(t_final=1e4)
    sweep = Sweep(source=source, training=training, samples=samples, dimensions=dimensions, scales=scales, seeds=seeds)
    shape = (len(dimensions), len(scales), len(samples), seeds)
    values = {name: np.full(shape, np.nan) for name in MEASURED}
    curves = {name: np.full((*shape, len(sweep.times)), np.nan) for name in CURVES}
    n = np.array(samples)[:, None]
    d = np.array(dimensions, dtype=float)[:, None, None, None]
    hit = n < 5.0 * d**power * np.exp(0.2 * rng.standard_normal(shape))
    values["verdict"][:] = np.where(hit, 0.0, 1.0)
    noise = np.exp(0.1 * rng.standard_normal(shape))
    values["train_loss"][:] = np.where(hit, 1e-13, 0.2) * noise
    values["final_time"][:] = np.where(hit, 900.0, 100.0) * noise
    values["escape_time"][:] = 7.0 * noise
    values["ols_loss"][:], values["split_loss"][:] = 0.25 * noise, np.where(n > 2 * d, 0.2, 1e-31)
    if not source.fixed:
        values["risk"][:] = np.where(hit, 2.0, 1.0 / n) * noise
        values["ols_risk"][:], values["split_risk"][:] = 0.5 / n * noise, 1.0 / n
    t = sweep.times
    ended = t <= values["final_time"][..., None]
    fall = np.where(hit, 1e-13, 0.1)[..., None]
    curves["train_loss"][:] = np.where(ended, 2.0 * np.maximum(fall, np.exp(-np.maximum(t - 7.0, 0.0) / 20.0)), np.nan)
    curves["alignment_median"][:] = np.where(ended, np.tanh(t), np.nan)
    curves["alignment_min"][:] = np.where(ended, np.tanh(t) - 0.5, np.nan)
    return SweepResult(sweep, values, curves, {})


def titles(figure: Any) -> list[str]:
    return [axis.get_title(loc="left") for axis in figure.axes if axis.get_title(loc="left")]


def panel(figure: Any, words: str) -> Any:
    (found,) = [axis for axis in figure.axes if words in axis.get_title(loc="left")]
    return found


def entries(figure: Any) -> set[str]:
    legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes if axis.get_legend())]
    return {text.get_text() for legend in legends for text in legend.get_texts()}


def line(axis: Any, color: str, style: Any = None) -> Any:
    lines = [x for x in axis.lines if x.get_color() == color and x.get_linestyle() != "None"]
    (found,) = [x for x in lines if style is None or x.get_marker() == style]
    return found


def one(value: float, low: float, high: float, *, d: int = 3, scale: float = 1e-3) -> Threshold:
    draws = np.random.default_rng(d).lognormal(math.log(value if np.isfinite(value) else 30.0), 0.1, 200)
    return Threshold(
        dimension=d,
        scale=scale,
        value=value,
        low=low,
        high=high,
        unfinished=0,
        samples=np.array(N, dtype=float),
        fractions=np.array([1.0, 0.75, 0.25, 0.0]),
        draws=draws,
    )


def test_one_dimension_and_scale():
    result = fabricate()
    found = thresholds(result)
    figure = plot(result, found)
    assert [title[:3] for title in titles(figure)] == ["(a)", "(b)", "(c)", "(d)", "(e)"]
    assert f"{found[0].value:.3g}" in titles(figure)[4]
    assert {"run, interpolated", "run, stationary", "threshold $n^*$", r"noise level $\sigma^2$"} <= entries(figure)
    assert not {"run, unfinished", "run, diverged"} & entries(figure)
    for words in ("train loss", "excess risk", "n^*"):
        axis = figure.axes[0] if words == "train loss" else panel(figure, words)
        assert any(np.array_equal(np.unique(x.get_xdata()), [found[0].value]) for x in axis.lines)


def test_values_that_are_drawn():
    result = fabricate()
    figure = plot(result, [])
    train, risk = figure.axes[0], panel(figure, "excess risk")
    black = line(train, "black", "o")
    assert np.array_equal(black.get_xdata(), N)
    loss = np.median(result.values["train_loss"][0, 0], axis=1)
    kept = loss > 1e-8
    assert kept.any() and not kept.all()
    assert np.allclose(np.asarray(black.get_ydata())[kept], loss[kept], rtol=1e-14)
    band = np.asarray(black.get_ydata())[~kept]
    assert len(set(band)) == 1 and train.get_ylim()[0] < band[0] < 0.1  # in the band, above the bottom
    marks = [label.get_text() for label in train.get_yticklabels()]
    assert any("-8" in mark for mark in marks)
    assert np.allclose(line(risk, "black", "o").get_ydata(), np.median(result.values["risk"][0, 0], axis=1), rtol=1e-14)
    drawn = np.concatenate([x.get_ydata() for x in train.lines if x.get_linestyle() == "None"])
    stationary = result.values["verdict"][0, 0] == 1.0
    assert 0 < stationary.sum() < stationary.size
    expected = np.where(stationary, result.values["train_loss"][0, 0], band[0])
    assert np.allclose(np.sort(drawn), np.sort(expected.ravel()), rtol=1e-14)
    # 2 d sigma^2/n and sigma^2 (1 - 2d/n), which add up to sigma^2.
    law = line(risk, "black", "None")
    assert np.allclose(np.asarray(law.get_ydata()) * np.asarray(law.get_xdata()), 2 * 3 * 0.25, rtol=1e-12)
    (law,) = [x for x in train.lines if x.get_color() == "#666666" and len(x.get_xdata()) > 10]
    assert np.allclose(np.asarray(law.get_ydata()) + 1.5 / np.asarray(law.get_xdata()), 0.25, rtol=1e-12)


def test_alignment_and_courses():
    result = fabricate()
    figure = plot(result, [])
    t = result.sweep.times
    axis = panel(figure, "alignment")
    solid = [x for x in axis.lines if x.get_linestyle() == "-"]
    assert len(solid) == 2
    for drawn in solid:  # past its end a run keeps its last value, which is 1 here
        assert np.allclose(drawn.get_ydata(), np.tanh(t), atol=1e-12)
    escapes = {float(x.get_xdata()[0]) for x in axis.lines if x.get_linestyle() == ":"}
    assert escapes == {np.sort(result.values["escape_time"][0, 0, k])[2] for k in (1, 3)}
    courses = panel(figure, "course")
    thick = [x for x in courses.lines if x.get_linewidth() > 1.0]
    assert len(thick) == len(N) and len(courses.lines) == len(N) * 7
    assert all(np.isfinite(np.asarray(x.get_ydata())).all() and x.get_ydata()[0] == 1.0 for x in thick)
    assert courses.get_ylim()[0] == 1e-9


def test_escape_that_never_comes_has_no_line():
    result = fabricate()
    result.values["escape_time"][..., :4] = np.inf
    axis = panel(plot(result, []), "alignment")
    assert not [x for x in axis.lines if x.get_linestyle() == ":"]


def test_all_verdicts_and_gaps():
    result = fabricate(seeds=8)
    codes = [VERDICTS.index(v) for v in (Verdict.INTERPOLATED, Verdict.STATIONARY, Verdict.UNFINISHED)]
    result.values["verdict"][0, 0, 1, :5] = [codes[0], codes[1], codes[2], codes[2], VERDICTS.index(Verdict.DIVERGED)]
    result.values["train_loss"][0, 0, 1, :5] = [1e-12, 0.1, 1e-4, 1e-2, np.inf]
    result.values["risk"][0, 0, 1, 4] = np.inf
    for table in (result.values, result.curves):
        for name in table:
            table[name][0, 0, 1, 5:] = np.nan  # missing runs
            table[name][0, 0, 3] = np.nan  # and a whole n
    figure = plot(result, thresholds(result))
    assert {"run, interpolated", "run, stationary", "run, unfinished"} <= entries(figure)
    fractions = panel(figure, "n^*")
    (hollow,) = [x for x in fractions.lines if x.get_markerfacecolor() == "white"]
    assert np.allclose(hollow.get_ydata(), [6 / 8, 1.0]) and np.array_equal(hollow.get_xdata(), [20, 80])


@pytest.mark.parametrize("verdict", list(Verdict))
def test_one_verdict_alone(verdict):
    result = fabricate()
    result.values["verdict"][:] = VERDICTS.index(verdict)
    if verdict is Verdict.DIVERGED:
        result.values["train_loss"][:] = np.inf
        result.values["risk"][:] = np.nan
    figure = plot(result, thresholds(result))
    assert len(titles(figure)) == (3 if verdict is Verdict.DIVERGED else 5)


def test_several_dimensions(tmp_path):
    result = fabricate(dimensions=(2, 3, 5, 8), samples=(5, 8, 12, 18, 27, 40, 60), seeds=12)
    found = thresholds(result)
    figure = plot(result, found, tmp_path / "figure.pdf")
    axis = panel(figure, "against dimension")
    assert len(titles(figure)) == 6
    power = exponent(result.sweep.dimensions, found)
    assert power is not None
    (label,) = [x.get_label() for x in axis.lines if "propto" in x.get_label()]
    assert all(f"{x:.2f}" in label for x in (power.value, power.low, power.high))
    (fit,) = [x for x in axis.lines if x.get_label() == label]
    x, y = np.asarray(fit.get_xdata()), np.asarray(fit.get_ydata())
    assert np.log(y[1] / y[0]) / np.log(x[1] / x[0]) == pytest.approx(power.value, rel=1e-10)
    shown = sorted(float(x.get_ydata()[0]) for x in axis.lines if x.get_marker() == "o")
    assert shown == sorted(t.value for t in found)
    # The line passes through the points of an exact law.
    exact = [one(4.0 * d**1.5, 3.0 * d**1.5, 5.0 * d**1.5, d=d) for d in (2, 3, 5)]
    axis = panel(plot(result, exact), "against dimension")
    (fit,) = [x for x in axis.lines if "propto" in x.get_label()]
    assert np.allclose(fit.get_ydata(), 4.0 * np.asarray(fit.get_xdata()) ** 1.5, rtol=1e-10)


def test_several_scales():
    scales = (1e-6, 1e-3, 1e-1)
    result = fabricate(scales=scales)
    figure = plot(result, thresholds(result))
    assert panel(figure, "against scale").get_xscale() == "log"
    alone = fabricate(scales=scales, samples=(20,), seeds=8)
    axis = panel(plot(alone, thresholds(alone)), "against scale")
    (drawn,) = [x for x in axis.lines if x.get_linestyle() == "-" and len(x.get_xdata()) == 3]
    share = alone.counts(Verdict.INTERPOLATED)[0, :, 0] / 8
    assert np.allclose(drawn.get_ydata(), share)
    both = fabricate(scales=scales, dimensions=(2, 3, 4))
    assert len(titles(plot(both, thresholds(both)))) == 7


@pytest.mark.parametrize(
    ("threshold", "up", "down"),
    [
        (one(30.0, 20.0, 40.0), 0, 0),
        (one(30.0, 0.0, 40.0), 0, 1),
        (one(30.0, 20.0, math.inf), 1, 0),
        (one(math.nan, 50.0, math.inf), 1, 0),
        (one(math.nan, 0.0, 15.0), 0, 1),
        (one(math.nan, 0.0, 0.0), 0, 1),
        (one(math.nan, math.inf, math.inf), 1, 0),
    ],
)
def test_arrows_of_one_sided_thresholds(threshold, up, down):
    result = fabricate(dimensions=(3, 5))
    axis = panel(plot(result, [threshold]), "against dimension")
    arrows = [(x.xyann[1], x.xy[1]) for x in axis.texts]
    assert sum(end > start for start, end in arrows) == up
    assert sum(end < start for start, end in arrows) == down
    assert all(axis.get_ylim()[0] < y < axis.get_ylim()[1] for pair in arrows for y in pair)
    if math.isnan(threshold.value):
        ((start, _),) = arrows
        assert start == np.clip(threshold.low if up else threshold.high, N[0], N[-1])


def test_published_set():
    result = fabricate(source=Source(inputs="three_points"), samples=(3,), dimensions=(2,), seeds=3)
    figure = plot(result, thresholds(result))
    assert [title[4:] for title in titles(figure)] == [
        "train loss",
        "alignment of the neurons",
        "course of the train loss",
        "interpolating runs",
    ]
    assert r"noise level $\sigma^2$" not in entries(figure)  # the noise of a law that is not used


def test_teacher_of_neurons_has_no_law_of_split_least_squares():
    result = fabricate(source=Source(teacher_neurons=3))
    for name in ("split_loss", "split_risk"):
        result.values[name][:] = np.nan
    assert not {"$2 d \\sigma^2/n$", r"$\sigma^2 (1 - 2d/n)$", "split least squares, median"} & entries(
        plot(result, [])
    )


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), pytest.param("pdf", b"%PDF", marks=pytest.mark.slow)]
)
def test_files(tmp_path, suffix, start):
    result = fabricate(scales=(1e-3, 1e-2))
    path = tmp_path / f"figure.{suffix}"
    plot(result, thresholds(result), path, dpi=60)
    assert path.read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_is_refused(tmp_path):
    result = fabricate()
    with pytest.raises(TypeError, match="result must be a SweepResult"):
        plot({}, [])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="found must be thresholds of the sweep, not of d = 7"):
        plot(result, [one(30.0, 20.0, 40.0, d=7)])
    with pytest.raises(ValueError, match="dpi"):
        plot(result, [], dpi=0)
    with pytest.raises(ValueError, match="picture suffix"):
        plot(result, [], tmp_path / "figure.doc")
    empty = {name: np.full_like(x, np.nan) for name, x in result.values.items()}
    curves = {name: np.full_like(x, np.nan) for name, x in result.curves.items()}
    missing = replace(result, values=empty, curves=curves)
    with pytest.raises(ValueError, match="all are missing"):
        plot(missing, thresholds(missing))


def test_wilson_interval():
    for hits, count in ((0, 5), (2, 7), (20, 20), (1, 1)):
        low, high = wilson(np.array([float(hits)]), np.array([float(count)]))
        known = binomtest(hits, count).proportion_ci(math.erf(math.sqrt(0.5)), method="wilson")
        assert low[0] == pytest.approx(known.low, abs=1e-12) and high[0] == pytest.approx(known.high, abs=1e-12)


def test_gaps_in_medians():
    nan = np.nan
    curves = np.array([[1.0, nan, 3.0, nan], [nan, 2.0, nan, nan], [nan] * 4])
    expected = np.array([[1.0, 1.0, 3.0, 3.0], [nan, 2.0, 2.0, 2.0], [nan] * 4])
    assert np.array_equal(_filled(curves), expected, equal_nan=True)
    assert np.array_equal(_median(expected.T), [1.0, 1.5, 2.5, 2.5])
    assert np.array_equal(_median(np.array([[1.0, np.inf, 2.0], [nan, nan, nan]])), [1.5, nan], equal_nan=True)


def test_a_sweep():
    training = Training(width=20, optimizer="gd", learning_rate=0.05, t_final=500.0)
    sweep = Sweep(source=LAW, training=training, samples=(4, 12), dimensions=(2,), scales=(1e-2,), seeds=2)
    result = run(sweep)
    figure = plot(result, thresholds(result))
    assert len(titles(figure)) == 5
