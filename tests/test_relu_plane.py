"""The relu plane: regimes of made-up curves, theory rows against direct solutions, JSON, and resuming bit for bit."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

import dmft
from validation.relu import plane as module
from validation.relu.plane import (
    Plane,
    PlaneResult,
    Threshold,
    classify,
    critical_ratio,
    plot,
    run,
    theory,
    theory_problem,
)

pytestmark = pytest.mark.filterwarnings("ignore:activation 'relu'")  # truncations are what it is about

TAU = 0.6
UNIT = TAU**2 / 2
TIMES = np.concatenate([[0.0], np.geomspace(1e-2, 1e3, 4001)])
TINY = Plane(
    sample_ratios=(0.5, 2.0),
    width=4,
    dimension=4,
    noise_std=0.5,
    replicas=2,
    t_final=3.0,
    learning_rate=0.4,
    degrees=(4,),
    rtol=1e-2,
    records=8,
    threshold_time=None,
)


def falling(end: float) -> np.ndarray:
    """From 10 to ``end`` units, with rate 1."""
    return UNIT * (end + (10.0 - end) * np.exp(-TIMES))


def test_a_curve_that_stays_is_a_plateau() -> None:
    found = classify(TIMES, falling(0.9), falling(1.1), TAU)
    assert found.name == "plateau"
    assert (found.rise, found.drop, found.interpolation) == (None, None, None)
    assert found.test_final == pytest.approx(1.1)
    assert found.train_final == pytest.approx(0.9)
    assert found.drift == pytest.approx(0.0, abs=1e-9)


def test_interpolation_has_the_time_of_the_crossing() -> None:
    train = UNIT * 2.0 * np.exp(-TIMES / 7.0)  # 1e-2 units at 7 ln 200
    found = classify(TIMES, train, falling(1.1), TAU)
    assert found.name == "interpolation"
    assert found.interpolation == pytest.approx(7.0 * math.log(200.0), rel=1e-3)
    half = classify(TIMES, train, falling(1.1), TAU, interpolated=0.02)
    assert half.interpolation == pytest.approx(7.0 * math.log(100.0), rel=1e-3)


def test_a_rising_test_error_is_delayed_overfit() -> None:
    # (t - 10)^2 around a minimum at 10: 5 % above 1.2 units at 10 + sqrt(0.06/1e-4)
    test = UNIT * (1.2 + 1e-4 * (TIMES - 10.0) ** 2)
    found = classify(TIMES, falling(0.9), test, TAU)
    assert found.name == "delayed overfit"
    assert found.minimum == pytest.approx(10.0, rel=2e-3)
    assert found.rise == pytest.approx(10.0 + math.sqrt(600.0), rel=1e-3)
    assert found.drop is None
    later = classify(TIMES, falling(0.9), test, TAU, risen=0.2)
    assert later.rise == pytest.approx(10.0 + math.sqrt(2400.0), rel=1e-3)


@pytest.mark.parametrize(("rise", "name"), [(0.04, "plateau"), (0.06, "delayed overfit")])
def test_the_level_of_the_rise(rise: float, name: str) -> None:
    test = np.where(TIMES > 100.0, 1.0 + rise, 1.0) * falling(1.1)
    test[TIMES < 50.0] *= 1.2
    assert classify(TIMES, falling(0.9), test, TAU).name == name


def test_a_falling_train_error_is_delayed_overfit() -> None:
    train = UNIT * np.minimum(0.8, 0.8 * (10.0 / np.maximum(TIMES, 1e-9)) ** 0.5)
    test = np.where(TIMES < 10.0, 1.3, np.where(TIMES < 20.0, 1.2, 1.21)) * UNIT
    found = classify(TIMES, train, test, TAU)
    assert (found.name, found.rise) == ("delayed overfit", None)
    assert found.train_minimum == pytest.approx(0.8, rel=1e-2)
    assert found.drop == pytest.approx(40.0, rel=5e-3)  # where the square root has halved
    assert found.drift == pytest.approx(0.5, rel=1e-2)
    assert classify(TIMES, train, test, TAU, lowered=0.05).name == "plateau"  # ends at a tenth


def test_a_minimum_at_the_end_is_followed_by_nothing() -> None:
    slow = UNIT * (1.0 + 1.0 / (1.0 + TIMES))
    found = classify(TIMES, slow, slow, TAU)
    assert (found.name, found.minimum, found.rise, found.drop) == ("plateau", TIMES[-1], None, None)


def test_the_rise_counts_from_the_lowest_minimum() -> None:
    # A first minimum, a bump by 50 %, then a deeper minimum at the end: nothing has risen.
    test = UNIT * (2.0 - np.log10(1.0 + TIMES) / 6.0 + np.exp(-((np.log10(TIMES + 1e-9) - 1.0) ** 2) / 0.01))
    assert classify(TIMES, falling(0.9), test, TAU).name == "plateau"


def test_a_run_that_ended_early_is_unfinished_unless_it_interpolated() -> None:
    rising = UNIT * (1.2 + 1e-4 * (TIMES - 10.0) ** 2)
    early = classify(TIMES, falling(0.9), rising, TAU, t_final=2e3)
    assert early.name == "unfinished"
    assert early.rise is not None  # events that were seen are kept
    assert classify(TIMES, falling(0.9), rising, TAU, t_final=1e3).name == "delayed overfit"
    assert classify(TIMES, UNIT * np.exp(-TIMES), rising, TAU, t_final=2e3).name == "interpolation"


def test_zeros_and_starts_at_the_level() -> None:
    train = np.where(TIMES > 5.0, 0.0, 1.0) * UNIT
    found = classify(TIMES, train, falling(1.1), TAU)
    assert found.interpolation == pytest.approx(5.0, rel=5e-3)
    assert found.drift is None
    assert classify([0.0, 1.0], [0.0, 0.0], [UNIT, UNIT], TAU).interpolation == 0.0
    single = classify([2.0], [UNIT], [UNIT], TAU)
    assert (single.name, single.minimum, single.drift) == ("plateau", 2.0, None)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (([0.0, 0.0], [1.0, 1.0], [1.0, 1.0], 1.0), "increasing"),
        (([0.0, 1.0], [1.0], [1.0, 1.0], 1.0), "train_error"),
        (([0.0, 1.0], [1.0, -1.0], [1.0, 1.0], 1.0), ">= 0"),
        (([0.0, 1.0], [1.0, math.nan], [1.0, 1.0], 1.0), "finite"),
        (([0.0, 1.0], [1.0, 1.0], [1.0, 0.0], 1.0), "test_error"),
        (([0.0, 1.0], [1.0, 1.0], [1.0, 1.0], 0.0), "noise_std"),
    ],
)
def test_bad_curves_are_refused(arguments: tuple[object, ...], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        classify(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lowered"):
        classify([1.0], [1.0], [1.0], 1.0, lowered=1.0)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"sample_ratios": (4.0, 2.0)}, "sample_ratios"),
        ({"sample_ratios": ()}, "sample_ratios"),
        ({"degrees": (64, 16)}, "degrees"),
        ({"noise_std": 0.0}, "noise_std"),
        ({"t_final": 0.05}, "t_final"),
        ({"replicas": 0}, "replicas"),
    ],
)
def test_bad_planes_are_refused(settings: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Plane(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [6, None])
def test_theory_runs_in_the_mean_field_time(width: int | None) -> None:
    """At t_mf of order one a wide network follows dv/dt = a (1-v^2)(phihat' - a h' v), da/dt = phihat - a h(v^2)."""
    ratio = 1e6  # no noise is felt
    curves = theory(ratio, width and 10**5, 4, noise_std=0.3, t_final=3.0, rtol=1e-3)
    # s_1 = 1/2, s_2 = 1/(2 sqrt(pi)), s_3 = 0, s_4 = -1/(4 sqrt(3 pi)) of relu
    h = np.polynomial.Polynomial([0.0, 1 / 4, 1 / (4 * np.pi), 0.0, 1 / (48 * np.pi)])
    a, v, t = 1.0, 0.0, 0.0
    steps = 1000
    for _ in range(steps):  # Heun

        def slope(a: float, v: float) -> tuple[float, float]:
            return h(v) - a * h(v * v), a * (1 - v * v) * (h.deriv()(v) - a * h.deriv()(v * v) * v)

        da, dv = slope(a, v)
        ea, ev = slope(a + da * 3.0 / steps, v + dv * 3.0 / steps)
        a, v, t = a + (da + ea) * 1.5 / steps, v + (dv + ev) * 1.5 / steps, t + 3.0 / steps
    assert curves["t"][-1] == pytest.approx(t)
    assert curves["a"][-1] == pytest.approx(a, abs=3e-3)
    assert curves["v"][-1] == pytest.approx(v, abs=3e-3)
    risk = 0.5 * (0.09 + h(1.0) - 2 * a * h(v) + a * a * h(v * v))
    assert curves["test_error"][-1] == pytest.approx(risk, rel=0.02)
    assert curves["train_error"][-1] == pytest.approx(risk, rel=0.02)


def test_the_critical_ratio_separates_runs_that_interpolate() -> None:
    plane = replace(TINY, sample_ratios=(4.0, 8.0), threshold_time=60.0, noise_std=0.3)
    found = critical_ratio(plane, None, 4)
    assert found.low is not None and found.high is not None
    assert 1.0 < found.high / found.low < 1.021
    below = theory(found.low * 0.97, None, 4, noise_std=0.3, t_final=60.0, rtol=1e-2)["train_error"][-1]
    above = theory(found.high * 1.03, None, 4, noise_std=0.3, t_final=60.0, rtol=1e-2)["train_error"][-1]
    assert below < 1e-2 * 0.045 < above
    always = critical_ratio(replace(plane, sample_ratios=(0.5,), threshold_time=20.0), None, 4)
    assert (always.low, always.high, always.value) == (0.5, None, None)
    with pytest.raises(ValueError, match="threshold_time"):
        critical_ratio(TINY, None, 4)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> PlaneResult:
    return run(replace(TINY, threshold_time=3.0), tmp_path_factory.mktemp("plane"))


def test_every_case_has_its_run(result: PlaneResult) -> None:
    assert result.failures == ()
    assert {(r.sample_ratio, r.width, r.degree) for r in result.select("theory")} == {
        (x, m, k) for x in (0.5, 2.0) for m in (4, None) for k in (4,)
    }
    assert [(r.sample_ratio, r.replica) for r in result.select("network")] == [(0.5, 0), (0.5, 1), (2.0, 0), (2.0, 1)]
    assert len(result.thresholds) == 2
    assert all(run.regime.end == pytest.approx(3.0, abs=0.1) for run in result.runs)
    records = result.records()
    assert len(records) == len(result.runs)
    assert records[0]["regime"] in module.REGIMES
    assert not any(isinstance(value, list | tuple | dict) for record in records for value in record.values())


def test_networks_are_those_of_simulate(result: PlaneResult) -> None:
    sigma = theory_problem(2.0, 4, 64, 0.5).activation
    problem = dmft.SymmetricProblem(
        width=4, alpha=0.5, noise_std=0.5, a0=1.0, activation=sigma, target=dmft.Target.same_as(sigma)
    )
    direct = dmft.simulate(
        problem, 4, t_final=6.0, replicas=[1], model="network", optimizer="gd", step=0.2, times=[0.0, 6.0]
    )  # learning rate 0.4 = step n/d
    ours = result.select("network", sample_ratio=2.0, replica=1)[0]
    assert ours.t[-1] == pytest.approx(3.0)
    assert ours.train_error[-1] == pytest.approx(direct.train_error[-1], rel=1e-5)
    assert ours.test_error[-1] == pytest.approx(direct.test_error[-1], rel=1e-5)


def test_json_gives_the_same_result(result: PlaneResult, tmp_path: Path) -> None:
    whole = replace(
        result, thresholds=(*result.thresholds, Threshold(degree=16, width=None, low=1.0, high=4.0, t_final=9.0))
    )
    whole.to_json(tmp_path / "plane.json")
    again = PlaneResult.from_json(tmp_path / "plane.json")
    assert again == whole
    assert again.to_dict() == asdict(whole)
    with pytest.raises(ValueError, match="unknown key"):
        PlaneResult.from_dict(whole.to_dict() | {"colour": 1})


def test_the_limit_removes_an_inverse_root(result: PlaneResult) -> None:
    values = {k: 50.0 - 8.0 * k**-0.5 for k in (16, 64)}
    thresholds = tuple(Threshold(degree=k, width=None, low=x, high=x, t_final=1.0) for k, x in values.items())
    limit = replace(result, thresholds=thresholds).limit()
    assert limit is not None and limit.value == pytest.approx(50.0)
    assert replace(result, thresholds=thresholds[:1]).limit() is None
    assert replace(result, thresholds=thresholds).limit(4) is None


def test_resuming_gives_the_same_bits(result: PlaneResult, tmp_path: Path) -> None:
    less = replace(TINY, sample_ratios=(2.0,), replicas=1, threshold_time=3.0)
    run(less, tmp_path)
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.replica")}
    seen: list[tuple[int, int]] = []
    whole = run(
        replace(TINY, threshold_time=3.0), tmp_path, progress=lambda done, total, key: seen.append((done, total))
    )
    assert whole == result
    assert seen == sorted(seen) and seen[-1] == (4 + 2 + 4, 4 + 2 + 4)
    assert kept and all(file.stat().st_mtime_ns == before for file, before in kept.items())
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.replica")}
    assert run(replace(TINY, threshold_time=3.0), tmp_path) == result
    assert files == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.replica")}


def test_the_figure_is_drawn(result: PlaneResult, tmp_path: Path) -> None:
    plot(result, tmp_path / "plane.png")
    assert (tmp_path / "plane.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="networks"):
        plot(replace(result, runs=tuple(result.select("theory"))), tmp_path / "other.png")
