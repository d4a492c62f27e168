"""The optimization threshold: reading of runs, law of divergence, search, border and command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmft
from dmft import cli
from dmft.limits.plateau import predicted_threshold
from validation.optimization import OptimizationThreshold, runs, study, threshold
from validation.thresholds.search import SearchError

QUAD = dmft.Activation.from_covariance([0, 0.9, 0.5])
CUBIC = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
SAME = dmft.Target.same_as(QUAD)

EXTRA = {
    "sample_ratio": 1.0,
    "rtol": 1e-3,
    "status": "done",
    "a_end": 1.0,
    "nu_end": 0.1,
    "rows": 300,
    "wall_time": 1.0,
}


def read(v: np.ndarray, train: np.ndarray, *, reached: bool = True) -> runs.Run:
    return runs.reduce(TIMES, v, train, 1.0 + (v - 0.9) ** 2, reached=reached, extra=EXTRA)


TIMES = np.concatenate([[0.0], np.geomspace(0.01, 1e4, 400)])
RISE = 0.9 * TIMES / (0.02 + TIMES)


# ------------------------------------------------------------------------------------------------------------ reading


def test_a_run_that_unlearns_and_interpolates() -> None:
    v = np.where(TIMES < 1000, RISE, 0.05)
    found = read(v, np.where(TIMES < 3000, 1.0, 1e-4))
    assert found.regime == "interpolates" and found.leaves and not found.settles
    assert found.unlearning == pytest.approx(1000, rel=0.05)
    assert found.interpolation == pytest.approx(3000, rel=0.05)
    assert read(v, np.full_like(TIMES, 0.5)).regime == "unlearns"


@pytest.mark.parametrize("power", [0.5, 2 / 3, 1.0])
def test_a_plateau_that_comes_to_rest(power: float) -> None:
    found = read(RISE * (0.7 + 0.3 * (1 + TIMES) ** -power), np.ones_like(TIMES))
    assert found.regime == "plateau" and found.settles and not found.leaves
    assert found.drift == pytest.approx(10.0**-power, rel=0.03)
    assert found.v_limit == pytest.approx(0.63, abs=1e-3)


def test_a_plateau_that_still_moves_is_no_evidence() -> None:
    logarithmic = RISE * (1 - 0.02 * np.log1p(TIMES))
    found = read(logarithmic, np.ones_like(TIMES))
    assert found.regime == "plateau" and not found.settles
    accelerating = RISE * (1 - 0.3 * (TIMES / TIMES[-1]) ** 0.5)
    assert not read(accelerating, np.ones_like(TIMES)).settles


def test_a_run_that_was_given_up_is_unknown() -> None:
    found = read(RISE, np.ones_like(TIMES), reached=False)
    assert found.regime == "unfinished" and not found.leaves and not found.settles


# ---------------------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("z", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("correction", [0.0, 3.0])
def test_fits_find_threshold_and_exponent(z: float, correction: float) -> None:
    distance = np.geomspace(2e-3, 0.1, 8)
    fits = threshold.divergence_fits(100.0 / (1 + distance), 5.0 * distance**-z * np.exp(correction * distance))
    assert any(abs(value - 100.0) < 5e-3 and abs(exponent - z) < 0.02 for value, exponent, _ in fits)
    if correction == 0.0:
        assert all(abs(value - 100.0) < 0.02 for value, _, _ in fits)


def test_fits_of_times_that_do_not_diverge_are_dropped() -> None:
    assert not threshold.divergence_fits(100.0 / (1 + np.geomspace(2e-3, 0.1, 8)), np.full(8, 5.0))


@pytest.mark.parametrize("b", [2 / 3, 1.0])
def test_two_terms_are_found_again(b: float) -> None:
    distance = np.geomspace(1e-3, 0.05, 6)
    times = 4.0 * distance ** (-1 / b) + 90.0 * distance ** (-(1 + 1 / b) / 3)
    value, first, second, deviation = study.two_terms(450.0 / (1 + distance), times, b)
    assert value == pytest.approx(450.0, rel=2e-5)
    assert first == pytest.approx(4.0, rel=0.05) and second == pytest.approx(90.0, rel=0.05)
    assert deviation < 2e-3


# -------------------------------------------------------------------------------------------------------------- search


def test_search_brackets_what_the_theory_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold, "AROUND", 1.2)  # one round, and no law of divergence
    monkeypatch.setattr(threshold, "DISTANCES", ())

    def search() -> OptimizationThreshold:
        return dmft.optimization_threshold(
            QUAD,
            SAME,
            1.0,
            rtol=1e-2,
            tolerance=0.5,
            t_final=100.0,
            workers=1,
            checkpoint=tmp_path,
            progress=lambda *_: None,
        )

    found = search()
    assert found.predicted is not None and found.low < found.predicted < found.high * 1.001
    assert found.low <= found.value <= found.high < found.low * 1.5
    assert any(run.leaves and run.sample_ratio == found.low and run.rtol == 1e-3 for run in found.evidence)
    assert any(run.settles and run.sample_ratio == found.high and run.rtol == 1e-3 for run in found.evidence)
    again = search()
    assert again.to_dict() == found.to_dict()  # wall times too: nothing was solved again
    found.to_json(tmp_path / "found.json")
    read_back = json.loads((tmp_path / "found.json").read_text())
    assert read_back["high"] == pytest.approx(found.high, rel=1e-7)
    assert OptimizationThreshold.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert "comes to rest" in str(found) and f"{found.predicted:.6g}" in str(found)


def fake(monkeypatch: pytest.MonkeyPatch, regime: Any, other: Any = None) -> None:
    """Runs by a rule instead of the solver; ``other`` is the rule of the other engine."""

    def solve_run(
        question: runs.Question, ratio: float, t_final: float, *, rtol: float, max_rows: int, method: str
    ) -> Any:
        kind, drift = regime(ratio, rtol) if method == "bdf" else other(ratio)
        left = kind in ("interpolates", "unlearns")
        time = 100.0 * abs(500.0 / ratio - 1.0) ** -1.0 if left else None
        values: dict[str, Any] = dict.fromkeys(("v_max", "v_end", "train_end", "test_end", "test_minimum"), 0.5)
        extra = EXTRA | {"sample_ratio": ratio, "rtol": rtol, "method": method}
        return runs.Run(
            **(extra | values), regime=kind, t_end=t_final, unlearning=time, stopping_time=1.0, v_limit=None,
            interpolation=time if kind == "interpolates" else None, drift=drift,
        ), {}  # fmt: skip

    monkeypatch.setattr(threshold, "solve_run", solve_run)


def search_fake(**options: Any) -> OptimizationThreshold:
    return dmft.optimization_threshold(QUAD, SAME, 1.0, workers=1, **options)


def test_the_search_goes_where_the_threshold_is_and_not_where_the_theory_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake(monkeypatch, lambda ratio, rtol: ("interpolates", None) if ratio < 500.0 else ("plateau", 0.2))
    found = search_fake(tolerance=1e-3)
    assert found.low < 500.0 <= found.high < 501.0
    assert found.exponent is not None and found.exponent.low <= 1.0 <= found.exponent.high
    assert found.divergence is not None and found.divergence.value == pytest.approx(500.0, rel=1e-4)
    found.plot(tmp_path / "found.png")
    assert (tmp_path / "found.png").stat().st_size > 10_000


def test_moving_plateaus_widen_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    def regime(ratio: float, rtol: float) -> tuple[str, float | None]:
        return ("interpolates", None) if ratio < 500.0 else ("plateau", 0.6 if ratio < 520.0 else 0.2)

    fake(monkeypatch, regime)
    found = search_fake(tolerance=1e-3)
    assert found.low < 500.0 and 520.0 <= found.high < 545.0
    assert any("neither left the plateau nor came to rest" in note for note in found.notes)
    fake(monkeypatch, lambda ratio, rtol: ("interpolates", None) if ratio < 500.0 else ("plateau", 0.6))
    never = search_fake(tolerance=1e-3)
    assert "all that is known" in never.evidence_high and "not by t_mf" in never.verdict


def test_what_more_accurate_runs_deny_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def regime(ratio: float, rtol: float) -> tuple[str, float | None]:
        return ("interpolates", None) if ratio < (500.0 if rtol > 5e-4 else 480.0) else ("plateau", 0.2)

    fake(monkeypatch, regime)
    found = search_fake(tolerance=1e-3)
    assert found.low < 480.0 and found.high >= 500.0
    assert any("leaves the plateau at rtol 0.001, not at 0.0001" in note for note in found.notes)


def test_the_range_is_widened_to_where_the_engines_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    def regime(ratio: float, rtol: float) -> tuple[str, float | None]:
        return ("interpolates", None) if ratio < 500.0 else ("plateau", 0.2)

    def other(ratio: float) -> tuple[str, float | None]:
        return ("unlearns", None) if ratio < 480.0 or 500.0 < ratio < 520.0 else ("plateau", 0.2)

    fake(monkeypatch, regime, other)
    found = search_fake(tolerance=1e-3, both_engines=True)
    assert found.low < 480.0 and found.high >= 520.0
    denied = [check for check in found.checks if check.agrees is False]
    assert {check.end for check in denied} == {"low", "high"}
    assert all(480.0 <= check.sample_ratio < 520.0 for check in denied)
    assert [check.sample_ratio for check in found.checks if check.agrees] == [found.low, found.high]
    assert OptimizationThreshold.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert "do not agree" in str(found)


def test_an_engine_that_broke_off_before_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(
        monkeypatch,
        lambda ratio, rtol: ("interpolates", None) if ratio < 500.0 else ("plateau", 0.2),
        lambda ratio: ("unfinished", None),
    )
    found = search_fake(tolerance=1e-3, both_engines=True)
    assert [check.agrees for check in found.checks] == [None, None]
    assert found.low < 500.0 <= found.high < 501.0


def test_what_was_not_followed_to_interpolation_is_not_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, lambda ratio, rtol: ("unlearns", None) if ratio < 500.0 else ("plateau", 0.2))
    found = search_fake(tolerance=1e-3)
    assert "interpolates" not in found.verdict and "interpolates" not in found.evidence_low
    assert "e_tr had fallen to 0.5 tau^2/2" in found.evidence_low and found.train_end == 0.5


def test_engines_are_compared_by_times_and_plateaus() -> None:
    v = np.where(TIMES < 1000, RISE, 0.05)
    one = read(v, np.where(TIMES < 1500, 1.0, 1e-4))
    later = runs.reduce(1.01 * TIMES, v, np.where(TIMES < 1500, 1.0, 0.7), v, reached=False, extra=EXTRA)
    check = runs.check_engines("low", one, later)
    assert check.agrees and check.halving_difference is None and check.other_train_end == 0.7
    assert check.unlearning_difference == pytest.approx(0.01, rel=1e-6)
    fall = np.where(TIMES < 1500, 1.0, 0.1)
    halved = runs.reduce(1.01 * TIMES, RISE, fall, RISE, reached=False, extra=EXTRA)
    check = runs.check_engines("low", read(v, fall), halved)
    assert check.other_regime == "unfinished" and check.agrees
    assert check.halving_difference == pytest.approx(0.01, rel=1e-6)
    broken = runs.reduce(TIMES, RISE, np.ones_like(TIMES), RISE, reached=False, extra=EXTRA)
    assert runs.check_engines("low", one, broken).agrees is None
    rest = read(RISE, np.ones_like(TIMES))
    assert runs.check_engines("high", rest, rest).agrees and runs.check_engines("high", rest, rest).v_difference == 0.0
    assert runs.check_engines("high", rest, one).agrees is False


@pytest.mark.slow
def test_both_engines_see_the_same_plateau_and_the_same_end_of_it() -> None:
    found = dmft.optimization_threshold(
        QUAD, SAME, 1.0, rtol=1e-3, tolerance=0.3, t_final=100.0, both_engines=True, workers=1
    )
    low, high = found.checks
    assert low.agrees and high.agrees
    assert low.unlearning_difference == pytest.approx(0.0, abs=2e-3)
    assert high.v_difference == pytest.approx(0.0, abs=1e-5)


def test_runs_that_failed_are_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, lambda ratio, rtol: ("interpolates", None) if ratio < 500.0 else ("unfinished", None))
    with pytest.raises(SearchError, match="none was seen to stay on it"):
        search_fake()


# -------------------------------------------------------------------------------------------------------------- border


@pytest.mark.parametrize(
    ("arguments", "options", "word"),
    [
        ((QUAD, dmft.Target.noise(), 1.0), {}, "never learnt"),
        ((QUAD, SAME, 0.0), {}, "noise_std"),
        ((QUAD, SAME, 1.0, -1.0), {}, "a0"),
        ((QUAD, SAME, 1.0), {"width": 1}, "width"),
        ((QUAD, SAME, 1.0), {"rtol": 1.0}, "rtol"),
        ((QUAD, SAME, 1.0), {"tolerance": 0.0}, "tolerance"),
        ((QUAD, SAME, 1.0), {"t_final": 1.0}, "t_final"),
        ((QUAD, SAME, 1.0), {"workers": 0}, "workers"),
        ((QUAD, dmft.Target.from_overlap({(1, 0): 0.5, (0, 1): 0.5}, power=1.0), 1.0), {}, "one latent direction"),
    ],
)
def test_bad_arguments(arguments: tuple[Any, ...], options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        dmft.optimization_threshold(*arguments, **options)


def test_wrong_types() -> None:
    with pytest.raises(TypeError, match="activation"):
        dmft.optimization_threshold("relu", SAME, 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="target"):
        dmft.optimization_threshold(QUAD, "noise", 1.0)  # type: ignore[arg-type]


CONFIG = """
[model]
kind = "symmetric"
width = 512
alpha = 0.3
noise_std = 0.6
a0 = 1.5
activation = { covariance = [0, 0.9, 0, 0.25] }
target = { same_as_activation = true }
[solve]
t_final = 1.0
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "cubic.toml"
    path.write_text(CONFIG)
    return path


def test_command_asks_what_the_model_says(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def stop(**options: Any) -> None:
        seen.update(options)
        raise SearchError("stopped by the test")

    monkeypatch.setattr("validation.optimization.optimization_threshold", stop)
    assert cli.main(["threshold", str(config), "--kind", "optimization"]) == 1
    assert (seen["noise_std"], seen["a0"], seen["width"]) == (0.6, 1.5, 512)
    infinite = ["--kind", "optimization", "--set", "threshold.infinite_width=true"]
    assert cli.main(["threshold", str(config), *infinite]) == 1
    assert seen["width"] is None


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        (["--set", "model.train_second_layer=false"], "train_second_layer"),
        (["--set", "model.a0=", "--set", "model.gamma0=1.0"], "a0"),
        (["--set", "threshold.vary=alpha"], "vary"),
        (["--set", "model.v0=0.5"], "v0"),
        (["--set", "model.target={ noise = true }"], "never learnt"),
    ],
)
def test_command_refuses(config: Path, setting: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["threshold", str(config), "--kind", "optimization", *setting]) == 2
    error = capsys.readouterr().err
    assert word in error and error.count("\n") == 1


# --------------------------------------------------------------------------------------------------------- slow checks


@pytest.mark.slow
@pytest.mark.parametrize(("h", "tau"), [(CUBIC, 1.0), (QUAD, 0.3), (QUAD, 5.0)])
def test_threshold_is_the_end_of_the_plateau(h: dmft.Activation, tau: float) -> None:
    target = dmft.Target.same_as(h)
    found = dmft.optimization_threshold(h, target, tau, workers=1)
    assert found.value == pytest.approx(predicted_threshold(h, target, tau), rel=3e-3)
    assert found.high / found.low < 1.01


@pytest.mark.slow
def test_strength_of_the_target_is_a_unit_of_noise() -> None:
    covariance = np.asarray(CUBIC.covariance)
    strong = dmft.Target.from_overlap(2.0 * covariance, power=4.0 * covariance.sum())
    one = dmft.optimization_threshold(CUBIC, dmft.Target.same_as(CUBIC), 1.0, 0.5, workers=1, tolerance=0.01)
    two = dmft.optimization_threshold(CUBIC, strong, 2.0, 1.0, workers=1, tolerance=0.01)
    assert two.low < one.high and one.low < two.high


def test_what_counts_as_rest_depends_on_how_the_glass_ages() -> None:
    # Right at a fold v - v_c ~ t^(-b/2): a quadratic run 5e-4 below the threshold drifted by 0.34 for 1000 glass times.
    def settling(coefficients: list[float]) -> float:
        h = dmft.Activation.from_covariance(coefficients)
        return runs.Question(activation=h, target=dmft.Target.same_as(h), noise_std=1.0).settling

    assert settling([0, 0.9, 0.5]) == pytest.approx(0.87 * 10**-0.5)
    assert settling([0, 0.9, 0, 1 / 6]) == pytest.approx(0.87 * 10 ** (-1 / 3))
