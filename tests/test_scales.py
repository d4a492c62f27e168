"""Time scales: events with known times, exponents with known corrections, what is no family, the command."""

from __future__ import annotations

import csv
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _synthetic import ACTIVATION, SHARED, grid
from _synthetic import problem as made_problem
from _synthetic import solution as made_solution

import dmft
from dmft import cli
from dmft.simulation import Sample, Settings, Simulation
from dmft.solution import Solution
from validation.scales import Outcome, Report, time_scales
from validation.scales.families import SCALES, best_scale, collapses, exponent
from validation.scales.traces import trace_of

NOISE = SHARED["noise_std"] ** 2 / 2  # 0.18


def run(
    width: int = 16,
    *,
    t: np.ndarray | None = None,
    test: Any = None,
    gap: Any = None,
    a: Any = None,
    v: Any = None,
    **changes: Any,
) -> Solution:
    """A solution with given curves; the default ones are those of `KNOWN`."""
    t = grid(0.05, 400.0, 1e-3) if t is None else t
    problem = changes.pop("problem", None) or made_problem("symmetric", width)
    test_error = (test or (lambda t: 0.3 + 0.7 / (1 + t) + 0.4 * t / (20 + t)))(t)
    train_error = test_error - (gap or (lambda t: 0.36 * t / (10 + t)))(t)
    arguments: dict[str, Any] = {
        "problem": problem,
        "t": t,
        "keep": np.array([0, len(t) - 1]),
        "a": (a or (lambda t: np.sqrt(1 + t)))(t)[:, None],
        "v": (v or (lambda t: t / (1 + t * t)))(t)[:, None, None],
        "test_error": test_error,
        "train_error": train_error,
    }
    return made_solution("symmetric", width=width, **(arguments | changes))


MINIMUM = (20 - math.sqrt(8 / 0.7)) / (math.sqrt(8 / 0.7) - 1)
LOWEST = 0.3 + 0.7 / (1 + MINIMUM) + 0.4 * MINIMUM / (20 + MINIMUM)
KNOWN = {
    "minimum": MINIMUM,
    "overfitting": 10 / 3,  # 0.36 t/(10 + t) = 0.18/2
    "overlap_loss": (1 + math.sqrt(1 - 4 * 0.45**2)) / 0.9,  # t/(1 + t^2) = 0.9 * 0.5, the later root
    "growth": 3.0,
    "t0(0.3)": 0.44,  # 1 + t = (0.3 * 4)^2
    "t0(0.5)": 3.0,
}


def times(report: Report, name: str) -> list[float | None]:
    return [event.time for event in report.events if event.name == name]


# ---------------------------------------------------------------------------------------------------- one run


def test_events_are_found_between_the_rows() -> None:
    report = time_scales(run())
    for name, time in KNOWN.items():
        event = report.event(name, 16)
        # Rows 5 % apart at order 4: the interpolation is good to 1e-7, a minimum to the root of that.
        assert event.time == pytest.approx(time, rel=1e-3 if name == "minimum" else 1e-6), name
        assert event.low is not None and event.high is not None and event.low <= time <= event.high, name
        assert event.resolution == 0.0
    first = float(report.event("learning_50", 16).time or 0.0)
    value = 0.3 + 0.7 / (1 + first) + 0.4 * first / (20 + first)
    assert value == pytest.approx(0.5 * (1.0 + LOWEST), rel=1e-6)
    assert report.exponents == [] and "exponents need 3 widths" in report.verdict
    assert report.event("interpolation", 16).outcome is Outcome.LEVELLED_OFF


def test_levels_are_parameters() -> None:
    report = time_scales(run(), overfitting=1.0, overlap_loss=0.2, second_layer=[0.35], growth=3.0, window=[0.3, 0.4])
    assert report.event("overfitting", 16).time == pytest.approx(10.0, rel=1e-6)
    assert report.event("overlap_loss", 16).time == pytest.approx(2.0, rel=1e-6)  # t/(1 + t^2) = 0.4
    assert report.event("t0(0.35)", 16).time == pytest.approx(0.96, rel=1e-6)
    assert report.event("growth", 16).time == pytest.approx(8.0, rel=1e-6)
    (window,) = report.windows
    assert window.duration == pytest.approx(1.56 - 0.44, rel=1e-5)
    assert window.folds == pytest.approx(math.log(1.56 / 0.44), rel=1e-5)


def test_interpolation_of_an_exponential_decay() -> None:
    decaying = run(gap=lambda t: 0.3 + 0.7 / (1 + t) + 0.4 * t / (20 + t) - np.exp(-t), t=grid(0.03, 100.0, 1e-3))
    expected = -math.log(1e-7 * SHARED["noise_std"] ** 2)
    event = time_scales(decaying).event("interpolation", 16)
    assert event.time == pytest.approx(expected, rel=1e-3)
    assert event.low is not None and event.high is not None and event.low <= expected <= event.high
    assert times(time_scales(decaying, interpolation=1e-4), "interpolation")[0] == pytest.approx(
        -math.log(1e-4 * SHARED["noise_std"] ** 2), rel=1e-3
    )


def test_nothing_is_found_after_the_end() -> None:
    early = time_scales(run(t=grid(0.05, 2.0, 1e-3)))
    for name in ("minimum", "overfitting", "growth", "t0(0.5)", "learning_50", "learning_90"):
        event = early.event(name, 16)
        assert event.time is None and event.outcome is Outcome.NOT_YET, name
    assert "still falling" in early.event("learning_50", 16).note
    assert "% of the way" in early.event("growth", 16).note
    assert early.event("overlap_loss", 16).time is not None  # which is before
    assert "> 2" in str(early)


def test_a_plateau_is_told_from_a_run_that_is_too_short() -> None:
    still = run(v=lambda t: t / (1 + t) * (1 - 0.02 * t / (5 + t)), a=lambda t: 1 + 0.3 * t / (1 + t))
    report = time_scales(still)
    for name in ("overlap_loss", "growth", "t0(0.5)"):
        assert report.event(name, 16).outcome is Outcome.LEVELLED_OFF, name


def test_what_holds_from_the_start_is_no_event() -> None:
    report = time_scales(run(a=lambda t: 4.0 + 0.0 * t))
    assert report.event("t0(0.5)", 16).outcome is Outcome.AT_START
    assert "a = 0.5 sqrt(m)" not in str(report)


def test_depth_of_unlearning() -> None:
    (depth,) = time_scales(run()).depths
    t = depth.end
    assert depth.test_minimum == pytest.approx(LOWEST, rel=1e-3)
    assert depth.rise == pytest.approx((0.3 + 0.7 / (1 + t) + 0.4 * t / (20 + t)) / LOWEST - 1, rel=1e-3)
    assert depth.overlap_kept == pytest.approx(t / (1 + t * t) / 0.5, rel=1e-3)
    assert depth.product_final == pytest.approx(np.sqrt(1 + t) * t / (1 + t * t), rel=1e-9)
    past = t / math.e
    change = 0.7 / (1 + t) - 0.7 / (1 + past) + 0.4 * t / (20 + t) - 0.4 * past / (20 + past)
    assert depth.drift == pytest.approx(change / LOWEST, rel=1e-3)


def test_errors_follow_the_tolerance() -> None:
    loose, tight = (time_scales(run(rtol=rtol, stats=_stats(0.0))) for rtol in (1e-2, 1e-4))
    for name in ("growth", "overfitting", "minimum"):
        wide, narrow = loose.event(name, 16).error, tight.event(name, 16).error
        assert wide is not None and narrow is not None and wide == pytest.approx(100 * narrow, rel=0.05), name
    # The curve moves by its tolerance where a crosses 2: d ln t = rtol * a / (da/d ln t) = rtol * 2 (1 + t)/t.
    assert tight.event("growth", 16).error == pytest.approx(1e-4 * 2 * 4 / 3, rel=1e-2)
    flat = time_scales(run(test=lambda t: 0.3 + 0.7 / (1 + t) + 1e-6 * t / (20 + t)))
    assert flat.event("minimum", 16).time is None


def _stats(error: float) -> Any:
    from dataclasses import replace

    from _synthetic import STATS

    return replace(STATS, estimated_error=error)


def test_noise_has_no_overlap_and_no_noise_has_a_level() -> None:
    noise = dmft.SymmetricProblem(width=16, a0=1.0, **(SHARED | {"target": dmft.Target.noise()}))
    report = time_scales(run(problem=noise, v=lambda t: 0.0 * t))
    names = {event.name for event in report.events}
    assert not {name for name in names if name.startswith("overlap")} and report.depths[0].overlap_kept is None
    assert "|v|" not in str(report)
    clean = dmft.SymmetricProblem(width=16, a0=1.0, **(SHARED | {"noise_std": 0.0}))
    event = time_scales(run(problem=clean)).event("overfitting", 16)
    level = 0.5 * (0.9 + 1 / 6) / 2  # of |phi|^2 = h(1)
    assert "|phi|^2" in event.meaning and event.time == pytest.approx(10 * level / (0.36 - level), rel=1e-5)


@pytest.mark.parametrize("kind", ["grouped", "general", "latent"])
def test_averages_over_neurons(kind: str) -> None:
    made = made_solution(kind)
    report = time_scales(made)
    form = made.formulation
    share = form.sizes / form.width
    start = math.sqrt(float(np.arange(1, form.groups + 1) ** 2 @ share))  # a_g = g sqrt(1 + t)
    event = report.event("growth", form.width)
    assert event.time == pytest.approx(3.0, rel=1e-5) and start >= 1.0
    assert report.event("minimum", form.width).time == pytest.approx(MINIMUM, rel=1e-3)


def test_a_trace_is_what_the_solution_interpolates() -> None:
    made = made_solution("grouped")
    x = np.geomspace(1e-3, 60.0, 50)
    profile, curves = trace_of(made, 0.5).at(0.5 * x), made.at(x)
    share = made.formulation.sizes / made.formulation.width
    assert profile.train_error == pytest.approx(curves.train_error, rel=1e-12)
    assert profile.second_layer == pytest.approx(np.sqrt(curves.a**2 @ share), rel=1e-12)
    assert profile.overlap == pytest.approx(np.sqrt(curves.v**2 @ share), rel=1e-12)
    assert profile.product == pytest.approx(np.abs((curves.a * curves.v) @ share), rel=1e-12)


def test_a_partial_run_says_so() -> None:
    stopped = run(status=dmft.Status.STEP_LIMIT, message="Row limit reached; raise max_rows.")
    report = time_scales(stopped)
    assert "step_limit" in report.notes[0] and "Row limit reached" in str(report)
    assert report.to_dict()["runs"][0]["status"] == report.notes[0]


# -------------------------------------------------------------------------------------------------- exponents


def fitted(widths: list[int], function: Any, error: float = 1e-5) -> Any:
    m = np.array(widths, dtype=float)
    return exponent("theory", "event", widths, function(m), np.full(len(m), error))


FOUR = [16, 64, 256, 1024]


@pytest.mark.parametrize("widths", [FOUR[:3], FOUR, [*FOUR, 4096, 16384]])
@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("amplitude", "correction"),
    [(0.0, 1.0), (0.5, 0.5), (1.0, 0.5), (3.0, 0.5), (-2.0, 0.5), (3.0, 1.0), (-3.0, 1.0), (0.5, 1 / 3), (1.0, 1 / 3)],
)
def test_intervals_contain_the_asymptotic_exponent(
    widths: list[int], power: float, amplitude: float, correction: float
) -> None:
    found = fitted(widths, lambda m: 7 * m**power * (1 + amplitude * m**-correction))
    assert found.contains(power)
    assert found.low <= found.value <= found.high
    others = [other for other in SCALES if other != power]
    if len(widths) > 3:
        assert not any(found.contains(other) for other in others)
        # A straight line through all widths misses, by many of its own errors, what its interval should contain.
    if amplitude != 0.0:
        assert abs(found.power_law - power) > 1e-3


@pytest.mark.parametrize("pair", [(3.0, -20.0), (-1.0, 5.0), (1.0, -5.0)])
def test_intervals_allow_slopes_that_turn(pair: tuple[float, float]) -> None:
    found = fitted([*FOUR, 4096, 16384], lambda m: m**0.5 * (1 + pair[0] / m**0.5 + pair[1] / m))
    assert found.contains(0.5) and not found.contains(1.0)


def test_intervals_narrow_with_more_widths() -> None:
    spans = []
    for count in (3, 4, 5, 6):
        found = fitted([4 ** (k + 2) for k in range(count)], lambda m: m * (1 + 2 / m**0.5))
        spans.append(found.high - found.low)
    assert spans == sorted(spans, reverse=True) and spans[-1] < 0.25 * spans[0]


def test_a_crossover_is_not_settled() -> None:
    found = fitted(FOUR, lambda m: m**0.5 + 0.02 * m)
    assert not found.settled and not found.contains(1.0) and found.high == math.inf


def test_statistical_errors_enter() -> None:
    random = np.random.default_rng(3)
    inside, spans, error = 0, [], 0.05
    for _ in range(60):
        found = fitted(FOUR, lambda m: m * np.exp(error * random.standard_normal(len(m))), error)
        inside += found.contains(1.0) or not found.settled
        spans.append(abs(found.power_law - 1.0) / found.power_law_error)
    assert inside >= 57  # two standard errors and the reserves
    assert np.sqrt(np.mean(np.square(spans))) == pytest.approx(1.0, abs=0.3)  # the line is right where it applies


# --------------------------------------------------------------------------------------------------- families


def scaling_family(power: float, widths: list[int] = FOUR, **changes: Any) -> list[Solution]:
    """Curves that are functions of t / m^power, besides a, which is one of t."""
    runs = []
    for m in widths:
        unit = m**power
        t = grid(0.05, 50.0 * max(unit, 1.0), 1e-3 * min(unit, 1.0))
        runs.append(
            run(
                m,
                t=t,
                test=lambda t, u=unit: 0.3 + 0.7 / (1 + t / u) + 0.4 * (t / u) / (20 + t / u),
                gap=lambda t, u=unit: 0.36 * (t / u) / (10 + t / u),
                v=lambda t, u=unit: (t / u) / (1 + (t / u) ** 2),
                a=lambda t: np.sqrt(1 + t / (1 + 0.02 * t)),
                **changes,
            )
        )
    return runs


@pytest.mark.parametrize("power", SCALES)
def test_collapse_and_exponent_find_the_scale(power: float) -> None:
    report = time_scales(scaling_family(power))
    for name in ("minimum", "learning_50", "overfitting", "overlap_loss"):
        regime = report.regime(name)
        assert regime.scale == power and regime.by == "exponent and collapse", name
        assert report.exponent(name).contains(power)
        assert report.exponent(name).value == pytest.approx(power, abs=1e-2)
    scores = [one for one in report.collapse if (one.event, one.curve) == ("overfitting", "test_error")]
    exact = next(one for one in scores if one.scale == power)
    assert exact.score is not None and exact.score < 1e-8 and exact.pairs == 3
    assert all(one.score is None or one.score > 1e-2 for one in scores if one is not exact)
    # a is a function of t itself: its growth stays at t of order one, whatever the others do.
    if power >= 0.0:
        assert report.regime("growth").scale == 0.0


def test_collapse_is_not_claimed_without_cover() -> None:
    runs = scaling_family(1.0)
    events = [time_scales(one).event("overfitting", one.problem.width) for one in runs]  # type: ignore[attr-defined]
    scores = collapses(events, [trace_of(one, 1.0) for one in runs], [-1.0], ["gap"])
    assert scores[0].score is None and scores[0].pairs == 0  # 13 m against runs that end at 12.5 of the narrower m
    assert best_scale(scores, "gap") is None


def test_an_event_that_disappears_has_no_scale() -> None:
    runs = [
        run(m, v=lambda t, s=share: t / (1 + t) * (1 - s * t**2 / (400.0 + t**2)))
        for m, share in ((16, 0.5), (64, 0.4), (256, 0.3), (1024, 0.05), (4096, 0.01))
    ]
    report = time_scales(runs)
    regime = report.regime("overlap_loss")
    assert regime.scale is None and regime.widths == (16, 64, 256) and regime.missing == (1024, 4096)
    assert "found up to m = 256 only" in report.verdict and "only m <= 256" in str(report)


def test_fixed_samples_are_reported_in_the_mean_field_time() -> None:
    runs = []
    for m in FOUR:
        alpha = 4.8 / m
        problem = dmft.SymmetricProblem(width=m, a0=1.0, **(SHARED | {"alpha": alpha}))
        runs.append(
            run(
                m,
                problem=problem,
                t=grid(0.05, 400.0 / alpha, 1e-3 / alpha),
                test=lambda t, c=alpha, m=m: 0.3 + (0.7 + 2 / m) / (1 + c * t) + 0.4 * c * t / (20 + c * t),
                gap=lambda t, c=alpha: 0.36 * c * t / (10 + c * t),
                a=lambda t, c=alpha: np.sqrt(1 + c * t),
                v=lambda t, c=alpha: c * t / (1 + (c * t) ** 2),
            )
        )
    report = time_scales(runs)
    assert (report.fixed, report.unit, report.ratio) == ("abar", "t_mf", pytest.approx(4.8))
    assert times(report, "growth") == pytest.approx([3.0] * 4, rel=1e-5)
    assert report.regime("growth").scale == 0.0 and "t_mf ~ 1" in report.verdict
    (approach,) = [one for one in report.approaches if one.curve == "test_error"]
    assert approach.reference == 1024 and approach.widths == (16, 64, 256)
    assert approach.rate == pytest.approx(1.0, abs=0.01) and approach.low == pytest.approx(1.0, abs=0.02)
    assert not any(event.name.startswith("t0") for event in report.events)


def test_widths_come_in_any_order_and_series_apart() -> None:
    theory = scaling_family(1.0)
    report = time_scales([theory[2], simulated(16), theory[0], theory[1], theory[3]])
    assert [event.width for event in report.events if event.name == "minimum"] == [16, 64, 256, 1024, 16]
    assert {one.series for one in report.exponents} == {"theory"}
    assert report.event("growth", 16, "theory").time is not None


# ------------------------------------------------------------------------------------------------- simulations

RECORDED = np.concatenate([[0.0], np.geomspace(0.01, 400.0, 60)])


def simulated(
    width: int = 16,
    replicas: int = 12,
    noise: float = 0.02,
    t: np.ndarray = RECORDED,
    *,
    keep: bool = True,
    seed: int = 0,
) -> Simulation:
    """Replicas of the curves of `KNOWN`, each with its own factor and offset, as finite dimension gives them."""
    random = np.random.default_rng(seed)
    each = 1 + noise * random.standard_normal((4, replicas, 1))
    test = (0.3 + 0.7 / (1 + t) + 0.4 * t / (20 + t)) * each[0]
    observables = {
        "test_error": Sample.of(test),
        "train_error": Sample.of(test - 0.36 * t / (10 + t) * each[1]),
        "a": Sample.of((np.sqrt(1 + t) ** (1 + (each[2] - 1)))[:, :, None]),
        "v": Sample.of((t / (1 + t * t) * each[3])[:, :, None, None]),
    }
    if not keep:
        observables = {
            name: Sample(mean=one.mean, sem=one.sem, count=one.count, values=None) for name, one in observables.items()
        }
    return Simulation(
        problem=made_problem("symmetric", width),
        settings=Settings(model="gaussian", dimension=50, samples=240),
        t=t,
        pair_times=[],
        observables=observables,
        replica_index=np.arange(replicas),
    )


@pytest.mark.parametrize("keep", [True, False], ids=["replicas", "standard errors"])
def test_simulations_have_errors_from_their_replicas(keep: bool) -> None:
    inside = 0
    for seed in range(3):
        report = time_scales(simulated(seed=seed, keep=keep))
        for name, time in KNOWN.items():
            event = report.event(name, 16)
            assert event.time is not None and event.error is not None, name
            assert event.time == pytest.approx(time, rel=0.15), name
            assert 0.0 < event.resolution < 0.2 * time, name
            inside += abs(math.log(event.time / time)) < 2.0 * event.error
    assert inside >= 16  # of 18, at two standard errors


def test_errors_over_replicas_are_the_spread_of_independent_ones() -> None:
    fine = np.concatenate([[0.0], np.geomspace(0.01, 400.0, 800)])
    found = [time_scales(simulated(seed=seed, t=fine)).event("growth", 16) for seed in range(5)]
    many = [simulated(seed=seed, t=fine) for seed in range(100, 160)]
    crossings = [np.interp(2.0, one.a, one.t) for one in many]
    errors = [event.error for event in found if event.error is not None]
    # Errors of single estimates scatter by 1/sqrt(2 * 11) = 20 %; 5 of them and 60 crossings leave 13 %.
    assert np.mean(errors) == pytest.approx(np.std(np.log(crossings)), rel=0.3)


def test_few_recorded_times_are_said() -> None:
    coarse = time_scales(simulated(t=np.array([0.0, 1.0, 4.0, 30.0, 400.0]), noise=1e-4)).event("growth", 16)
    assert coarse.resolution == pytest.approx(1.5) and coarse.error is not None
    assert coarse.error > math.log(4.0) / math.sqrt(12.0)
    assert coarse.low is not None and coarse.high is not None and coarse.low < 3.0 < coarse.high


def test_a_single_replica_has_times_and_no_errors() -> None:
    report = time_scales(simulated(replicas=1))
    event = report.event("growth", 16)
    assert event.time is not None and event.low is None and event.error is None and "one replica" in event.note
    assert report.depths[0].rise_error is None


def test_simulated_families_have_exponents() -> None:
    runs = [simulated(m, seed=m) for m in (16, 64, 256)]
    report = time_scales(runs)
    found = report.exponent("overfitting")  # the same curves at all widths
    assert found.contains(0.0) and found.power_law == pytest.approx(0.0, abs=3 * found.power_law_error + 1e-3)
    assert found.series == "Gaussian model, gradient flow, d = 50"


# ---------------------------------------------------------------------------------------------------- refusals


OTHER = dmft.Activation.from_covariance([0, 0.9, 0.1, 1 / 6])


def with_changes(width: int, **changes: Any) -> Solution:
    return run(width, problem=dmft.SymmetricProblem(width=width, **({"a0": 1.0} | SHARED | changes)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alpha": 0.4}, "same alpha = n/\\(m d\\), or the same alpha \\* width"),
        ({"noise_std": 0.5}, "noise_std is 0.6 and 0.5"),
        ({"a0": 2.0}, "a0 .* is \\[1.0\\] and \\[2.0\\]"),
        ({"v0": 0.1}, "v0 is"),
        ({"train_second_layer": False}, "train_second_layer is True and False"),
        ({"target": dmft.Target.noise()}, "target is"),
        ({"activation": OTHER, "target": dmft.Target.same_as(OTHER)}, "activation is"),
    ],
)
def test_a_family_differs_in_width_only(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        time_scales([with_changes(16), with_changes(64, **changes), with_changes(256)])


def test_lazy_families_share_gamma0() -> None:
    lazy = [
        run(
            m, problem=dmft.SymmetricProblem(width=m, gamma0=1.0, **SHARED), a=lambda t, m=m: np.sqrt(m * (1 + 0.1 * t))
        )
        for m in FOUR[:3]
    ]
    report = time_scales(lazy)
    assert report.family.lazy and report.event("linear_fit", 64).time is not None and "lazy" in report.verdict
    other = run(64, problem=dmft.SymmetricProblem(width=64, gamma0=0.7, **SHARED))
    with pytest.raises(ValueError, match=r"gamma0 is \[1.0\] and \[0.7\]"):
        time_scales([lazy[0], other])


@pytest.mark.parametrize(
    ("runs", "error", "words"),
    [
        ([], ValueError, "at least one"),
        ("run.h5", TypeError, "dmft.Solution or dmft.Simulation objects"),
        (3, TypeError, "dmft.Solution or dmft.Simulation objects"),
        ([3], TypeError, "not 3"),
        (lambda: [run(16), run(16)], ValueError, "two of width 16 \\(theory\\)"),
        (lambda: made_solution("pspin"), TypeError, "must be of networks"),
        (lambda: [run(6), made_solution("grouped")], ValueError, "kind is 'symmetric' and 'grouped'"),
        (lambda: run(t=np.array([0.0, 1.0])), ValueError, "at least 3 times"),
    ],
)
def test_bad_runs_are_refused(runs: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        time_scales(runs() if callable(runs) else runs)
    assert str(caught.value).count(". ") == 0 and str(caught.value).endswith(".")  # one sentence


@pytest.mark.parametrize(
    ("criteria", "words"),
    [
        ({"overfitting": 0.0}, "overfitting must be"),
        ({"overlap_loss": 1.0}, "overlap_loss must be"),
        ({"learning": [0.9, 0.5]}, "learning must hold increasing numbers above 0 and below 1"),
        ({"second_layer": [0.0]}, "second_layer must hold increasing numbers above 0"),
        ({"window": [0.3]}, "window must hold two numbers"),
        ({"growth": 1.0}, "growth must be"),
    ],
)
def test_bad_levels_are_refused(criteria: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        time_scales(run(), **criteria)
    with pytest.raises(TypeError, match="overfitting must be"):
        time_scales(run(), overfitting="much")  # type: ignore[arg-type]


def test_what_is_not_there_is_refused() -> None:
    report = time_scales(run())
    with pytest.raises(ValueError, match=r"'lunch'.* not in this report, which has minimum"):
        report.event("lunch", 16)
    with pytest.raises(ValueError, match="no exponent in this report, which has none"):
        report.exponent("minimum")
    with pytest.raises(ValueError, match="no regime"):
        report.regime("minimum")


# ------------------------------------------------------------------------------------------------------- files


def test_files(tmp_path: Path) -> None:
    report = time_scales(scaling_family(1.0, FOUR[:3]))
    report.to_json(tmp_path / "scales.json")
    data = json.loads((tmp_path / "scales.json").read_text())
    assert data["kind"] == "time_scales" and data["verdict"] == report.verdict
    assert data["problem"] == report.family.series["theory"][0].problem.to_dict()
    assert len(data["events"]) == len(report.events) and len(data["regimes"]) == len(report.regimes)
    report.to_csv(tmp_path / "scales.csv")
    lines = [line for line in (tmp_path / "scales.csv").read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    assert [row["time"] for row in rows] == ["" if e.time is None else repr(e.time) for e in report.events]
    assert {row["scale"] for row in rows if row["name"] == "overfitting"} == {"m"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.plot(tmp_path / "scales.png")
    assert (tmp_path / "scales.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="picture suffix"):
        report.plot(tmp_path / "scales.xyz")
    assert time_scales(simulated()).plot().get_axes()  # without a family, and of points
    assert "Report" in repr(report)


# ---------------------------------------------------------------------------------------------------- the theory


def solved(widths: list[int], t_per_width: float = 20.0, **parameters: Any) -> list[Solution]:
    return [
        dmft.solve(dmft.SymmetricProblem(width=m, alpha=0.3, **parameters), t_per_width * m, rtol=1e-4) for m in widths
    ]


def test_lazy_training_fits_what_is_linear_at_one_over_m() -> None:
    quad = dmft.Activation.from_covariance([0, 0.9, 0.5])
    runs = solved(FOUR, activation=quad, target=dmft.Target.same_as(quad), noise_std=0.3, gamma0=1.0)
    report = time_scales(runs)
    for name, scale in (("linear_fit", -1.0), ("overlap_50", -1.0), ("overlap_90", -1.0), ("interpolation", 0.0)):
        assert report.regime(name).scale == scale, name
        assert report.exponent(name).contains(scale), name
    # Theory section 4: e_ts - e_lin decays at rate 2 r m, r = alpha gamma_0^2 h'(0); corrections are a few 1/m.
    time = report.event("linear_fit", 1024).time
    assert time is not None and time * 2 * 0.3 * 0.9 * 1024 == pytest.approx(1.0, abs=0.03)
    assert report.regime("overlap_loss").widths == ()


def test_mean_field_training_learns_at_one_and_stops_unlearning_when_wide() -> None:
    cubic = ACTIVATION
    runs = solved(FOUR, activation=cubic, target=dmft.Target.same_as(cubic), noise_std=0.6, a0=1.0)
    report = time_scales(runs)
    for name in ("learning_50", "learning_90", "overlap_50"):
        assert report.regime(name).scale == 0.0, name
    # Theory section 4: n/d decides, and alpha m is beyond its critical value at the largest width only.
    for name in ("overlap_loss", "test_rise", "growth", "t0(0.5)"):
        regime = report.regime(name)
        assert regime.missing == (1024,) and 256 in regime.widths and regime.scale is None, name
    assert report.event("interpolation", 1024).outcome is Outcome.LEVELLED_OFF
    assert report.event("interpolation", 16).outcome is Outcome.NOT_YET
    kept = {depth.width: depth.overlap_kept or 0.0 for depth in report.depths}
    assert kept[256] < 0.15 and kept[1024] > 0.9


def test_noise_overfits_at_m_through_a_window_at_root_m() -> None:
    runs = solved(FOUR, activation=ACTIVATION, target=dmft.Target.noise(), noise_std=0.6, a0=1.0)
    report = time_scales(runs)
    assert report.regime("growth").scale == 0.5 and report.exponent("growth").contains(0.5)
    for name in ("overfitting", "t0(0.4)", "t0(0.5)", "window"):
        assert report.exponent(name).contains(1.0) and not report.exponent(name).contains(0.0), name


@pytest.mark.slow
def test_widths_over_three_decades() -> None:
    widths = [*FOUR, 4096, 16384]
    runs = solved(widths, activation=ACTIVATION, target=dmft.Target.noise(), noise_std=0.6, a0=1.0)
    report = time_scales(runs)
    assert report.exponent("growth").contains(0.5) and report.exponent("growth").high < 0.6
    for name in ("overfitting", "test_rise", "t0(0.1)", "t0(0.2)", "t0(0.3)", "t0(0.4)", "t0(0.5)", "window"):
        found = report.exponent(name)
        assert found.contains(1.0) and found.low > 0.9 and found.high < 1.1, name


def test_an_infinite_width_is_approached_like_one_over_m() -> None:
    shared = {"activation": ACTIVATION, "target": dmft.Target.same_as(ACTIVATION), "noise_std": 0.6, "a0": 1.0}
    runs = [dmft.solve(dmft.SymmetricProblem(width=m, alpha=8 / m, **shared), 20.0 * m / 8) for m in (16, 64, 256)]
    infinite = dmft.solve(dmft.InfiniteWidthProblem(sample_ratio=8.0, **shared), 20.0)
    report = time_scales([*runs, infinite])
    assert report.event("minimum", None).time == pytest.approx(report.event("minimum", 256).time, rel=2e-3)
    for approach in report.approaches:
        assert approach.reference is None and approach.rate == pytest.approx(1.0, abs=0.1), approach.curve
    assert "m = inf" in str(report) and "infinity" in report.verdict
    with pytest.raises(ValueError, match=r"fixed n/d, here 8"):
        time_scales([with_changes(16), infinite])


# --------------------------------------------------------------------------------------------------- the command

CONFIG = """
[model]
kind = "symmetric"
width = 8
alpha = 0.5
noise_std = 0.6
a0 = 1.0
activation = { covariance = [0, 0.9, 0, 0.16666666666666666] }
target = { same_as_activation = true }
[solve]
t_final = 16.0
rtol = 1e-3
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(CONFIG)
    return tmp_path


def test_command_on_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for one in scaling_family(1.0, FOUR[:3]):
        one.save(place / f"m{one.problem.width}.h5")  # type: ignore[attr-defined]
    names = [f"m{m}.h5" for m in FOUR[:3]]
    assert cli.main(["timescales", *names, "--csv", "s.csv"]) == 0
    assert "overfitting" in capsys.readouterr().out and Path("s.csv").exists()
    assert (
        cli.main(["timescales", *names, "--json", "--criterion", "overfitting=1", "--criterion", "window=0.2,0.3"]) == 0
    )
    data = json.loads(capsys.readouterr().out)
    assert data["criteria"]["overfitting"] == 1.0 and data["criteria"]["window"] == [0.2, 0.3]
    assert cli.main(["timescales", *names, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_command_solves_a_family(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["timescales", "small.toml", "--widths", "8,4,16", "--t-final-per-width", "2", "--out", "runs"]
    assert cli.main([*arguments, "--fixed-samples"]) == 0
    assert "times t_mf" in capsys.readouterr().out
    found = dmft.load("runs/small-width16.h5")
    assert isinstance(found, Solution) and found.t[-1] == 32.0 and found.formulation.alpha == 0.25
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "small-timescales.csv",
        "small-timescales.json",
        "small-timescales.png",
        "small-width16.h5",
        "small-width4.h5",
        "small-width8.h5",
    ]


def test_command_takes_the_members_of_a_sweep(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = '[sweep]\n"model.width" = [4, 8]\n"solve.t_final" = [4.0, 8.0]\n'
    (place / "swept.toml").write_text(CONFIG + sweep)
    assert cli.main(["timescales", "swept.toml", "--json"]) == 0
    assert [one["width"] for one in json.loads(capsys.readouterr().out)["runs"]] == [4, 8]
    assert Path("out/swept-timescales/swept-width8.h5").exists()


def test_command_keeps_a_failed_family(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["timescales", "small.toml", "--widths", "4,8", "--set", "solve.max_rows=12"]
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    assert "step_limit" in err and "what comes later is unknown" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["small.toml", "--widths", "4,x"], "--widths must be integers"),
        (["small.toml", "--widths", "0"], "--widths must be at least 1"),
        (["small.toml", "--fixed-samples"], "--fixed-samples goes with --widths"),
        (["small.toml", "--widths", "4", "--t-final-per-width", "0"], "t_final must be"),
        (["small.toml", "--widths", "4", "--plot", "x.abc"], "no picture suffix"),
        (["small.toml", "--widths", "4", "--criterion", "lunch=1"], "the names are"),
        (["small.toml", "--widths", "4", "--criterion", "growth=a"], "not a number"),
        (["small.toml", "--widths", "4", "--criterion", "growth=2,3"], "a single number"),
        (["small.toml", "--widths", "4", "--criterion", "growth=0.5"], "growth must be"),
        (["small.toml", "other.toml"], "or one configuration"),
        (["mu_fig07", "--widths", "4,8"], "not one of kind 'general'"),
        (["missing.h5"], "No such file"),
        (["missing.h5", "--widths", "4"], "--widths goes with a configuration"),
        (["uneven.toml"], "noise_std is 0.6 and 0.5"),
        (["uneven.toml", "--widths", "4,8"], "cannot go with a sweep over model.noise_std"),
    ],
)
def test_command_refuses_before_it_computes(
    arguments: list[str], words: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("validation.experiment.solve", lambda *_, **__: pytest.fail("something was computed"))
    sweep = '[sweep]\n"model.width" = [4, 8]\n"model.noise_std" = [0.6, 0.5]\n'
    (place / "uneven.toml").write_text(CONFIG + sweep)
    assert cli.main(["timescales", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("dmft: error: ") and words in err and err.count("\n") == 1
