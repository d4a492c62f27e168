"""A solution checked by a second run: what counts as agreement, and that a check never costs the solution."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from _synthetic import solution as synthetic

import dmft
import solvers
from dmft import cli, config
from dmft.solution import Solution
from dmft.verification import CHECK, TIGHTER, Difference, Quality, Verification, checkpoints
from solvers.base import Options, Progress
from solvers.marching import BdfEngine
from solvers.verification import POINTS, amplified, common_times, differences, plan

CUBIC = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
SHARED: dict[str, Any] = {"alpha": 0.3, "activation": CUBIC, "target": dmft.Target.same_as(CUBIC), "noise_std": 0.6}
RTOL = 1e-3


def index(width: int = 8, **changes: Any) -> dmft.SymmetricProblem:
    return dmft.SymmetricProblem(**({"width": width, "a0": 1.0} | SHARED | changes))


PROBLEMS: dict[str, tuple[Callable[[], Any], float, tuple[str, ...]]] = {
    "index": (index, 20.0, ("a", "v", "train_error", "test_error", "nu")),
    "noise, fixed": (
        lambda: index(target=dmft.Target.noise(), train_second_layer=False),
        20.0,
        ("train_error", "test_error", "nu"),
    ),
    "one neuron": (lambda: index(1, alpha=2.0), 10.0, ("a", "v", "train_error", "test_error", "nu")),
    "infinite width": (
        lambda: dmft.InfiniteWidthProblem(
            sample_ratio=20.0, noise_std=0.6, a0=1.0, activation=CUBIC, target=SHARED["target"]
        ),
        20.0,
        ("a", "v", "train_error", "test_error", "nu"),
    ),
    "groups": (
        lambda: dmft.GroupedProblem(sizes=[2, 2], a0=[1.0, -0.5], **SHARED),
        4.0,
        ("a", "v", "train_error", "test_error", "nu"),
    ),
    "p-spin": (lambda: dmft.PSpinProblem(covariance=[0, 0, 0, 1.0]), 20.0, ("energy", "nu")),
    "limit": (
        lambda: dmft.limits.of(index(1024), "mean_field"),
        10.0,
        ("a", "v", "train_error", "test_error", "nu"),
    ),
}


class Reality(BdfEngine):
    """A second engine for the tests: the main one under another name."""

    def __init__(self, problem: Any, options: Options) -> None:
        super().__init__(problem, replace(options, method="bdf3"))


class Mistake(Reality):
    """An engine with one per cent too many samples."""

    def __init__(self, problem: Any, options: Options) -> None:
        super().__init__(index(alpha=1.01 * problem.alpha), options)


class Crawl(Reality):
    """An engine that stops early."""

    def __init__(self, problem: Any, options: Options) -> None:
        super().__init__(problem, replace(options, max_rows=5))


class Crash(Reality):
    """An engine with a bug."""

    def run(self, *_: Any) -> Solution:
        raise ZeroDivisionError("division by zero")


def supports(problem: Any) -> bool:
    """What the engines of this module solve."""
    return isinstance(problem, dmft.SymmetricProblem)


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Register an engine of this module as the only one besides the main one."""

    def register(name: str) -> None:
        engine = solvers.Engine(__name__, name, (name.lower(),))
        monkeypatch.setattr(solvers, "ENGINES", (solvers.ENGINES[0], engine))

    return register


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine but the main one."""
    monkeypatch.setattr(solvers, "ENGINES", solvers.ENGINES[:1])


class Stop:
    """Interrupts the given run (0 the solution, 1 its check, 2 the tighter one) after some rows; counts runs."""

    def __init__(self, run: int, rows: int) -> None:
        self.target, self.rows = run, rows
        self.runs, self._last = -1, 1 << 30

    def __call__(self, progress: Progress) -> None:
        self.runs += progress.rows < self._last
        self._last = progress.rows
        if self.runs == self.target and progress.rows >= self.rows:
            raise KeyboardInterrupt


def without_times(checked: Verification | None) -> Verification:
    """All but the wall times, which no two runs share."""
    assert checked is not None and checked.check is not None
    return replace(checked, run=replace(checked.run, wall_time=0.0), check=replace(checked.check, wall_time=0.0))


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
def test_right_solutions_agree(name: str) -> None:
    make, t_final, curves = PROBLEMS[name]
    problem = make()
    solution = dmft.solve(problem, t_final, rtol=RTOL, verify=True)
    checked = solution.verification
    assert checked is not None and checked.agrees and not checked.explained and checked.amplification is None
    assert tuple(one.curve for one in checked.differences) == curves
    assert checked.status is dmft.Status.DONE
    assert len(checked.times) == POINTS + 1 and checked.times[-1] == t_final
    # Two runs of other order are no copies of each other.
    assert 0.0 < checked.largest.largest <= checked.allowed == pytest.approx(10 * RTOL)
    assert all(one.time in checked.times for one in checked.differences)
    for quality in (checked.run, checked.check):
        assert quality.drift is not None and quality.drift < 1e-10
        assert 0.0 <= quality.balance_median <= quality.balance_largest
        assert quality.wall_time > 0.0
    assert checked.run.balance_largest == solution.energy_balance.max()
    line = next(line for line in solution.summary().splitlines() if line.startswith("check "))
    assert "agrees" in line and checked.largest.curve in line
    assert all(curve in str(checked) for curve in curves)


@pytest.mark.parametrize(
    ("method", "check"), [("auto", "collocation"), pytest.param("collocation", "bdf", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "name",
    [
        "index",
        "p-spin",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("noise, fixed", "one neuron", "infinite width")),
    ],
)
def test_both_engines_agree(name: str, method: str, check: str) -> None:
    make, t_final, curves = PROBLEMS[name]
    solution = dmft.solve(make(), t_final, rtol=RTOL, method=method, verify=True)
    checked = solution.verification
    assert checked is not None and checked.independent and checked.agrees
    assert (checked.check_method, checked.check_rtol) == (check, RTOL)
    assert tuple(one.curve for one in checked.differences) == curves
    assert checked.largest.largest > 0.0


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("method", "rtol", "expected"),
    [
        ("bdf", 1e-4, ("bdf4", 1e-5)),
        ("bdf5", 1e-4, ("bdf4", 1e-5)),
        ("bdf2", 1e-4, ("bdf3", 1e-5)),
        ("bdf", 5e-9, ("bdf4", 1e-9)),  # what rounding allows
        ("bdf", 2e-10, ("bdf4", 2e-10)),
    ],
)
def test_plan_of_one_engine(method: str, rtol: float, expected: tuple[str, float]) -> None:
    found = plan(index(), method, rtol)
    assert (found[0], found[2]) == (expected[0], False)
    assert found[1] == pytest.approx(expected[1])


def test_plan_prefers_another_engine(second: Callable[[str], None]) -> None:
    second("Reality")
    assert plan(index(), "bdf", 1e-4) == ("reality", 1e-4, True)
    assert plan(index(), "bdf2", 1e-4) == ("reality", 1e-4, True)
    assert plan(index(), "reality", 1e-4) == ("bdf", 1e-4, True)
    # ... that solves the problem, and no engine but its own solves a limit.
    assert plan(dmft.PSpinProblem(covariance=[0, 0, 1.0]), "bdf", 1e-4)[0] == "bdf4"
    assert plan(dmft.limits.of(index(), "mean_field"), "bdf", 1e-3) == ("bdf", 1e-5, False)


def test_engines_say_what_they_solve(second: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    second("Reality")
    monkeypatch.setattr(solvers, "METHODS", (*solvers.METHODS, "reality"))
    assert dmft.solve(index(), 1.0, rtol=RTOL, method="reality").method == "bdf3"
    with pytest.raises(ValueError, match="does not solve pspin"):
        dmft.solve(dmft.PSpinProblem(covariance=[0, 0, 1.0]), 1.0, rtol=RTOL, method="reality")


def test_a_missing_engine_is_found_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = solvers.Engine("no_such_module", "Engine", ("missing",))
    monkeypatch.setattr(solvers, "ENGINES", (solvers.ENGINES[0], missing))
    count = Stop(9, 0)
    with pytest.raises(ModuleNotFoundError):
        dmft.solve(index(), 1.0, rtol=RTOL, verify=True, progress=count)
    assert count.runs == -1


def test_a_wrong_engine_is_found_and_not_explained(second: Callable[[str], None]) -> None:
    second("Mistake")
    checked = dmft.solve(index(), 5.0, rtol=RTOL / 10, verify=True).verification
    assert checked is not None and checked.independent and checked.status.ok
    assert not checked.agrees and not checked.explained
    # One per cent of samples is not far from one per cent of the errors, and not what a tolerance does.
    assert 2e-3 < checked.largest.largest < 5e-2
    assert checked.amplification is not None and checked.amplification < 3.0
    assert "DIFFERS" in checked.verdict and "does not explain" in checked.verdict


def test_where_another_engine_stops_the_same_one_checks(second: Callable[[str], None]) -> None:
    second("Crawl")
    checked = dmft.solve(index(), 5.0, rtol=RTOL, verify=True).verification
    assert checked is not None and not checked.independent and checked.agrees
    assert checked.check_method == "bdf4" and checked.check_rtol == pytest.approx(0.1 * RTOL)
    assert "crawl did not get there" in checked.message and "5 rows" in checked.message


def test_a_check_is_not_the_run_itself(second: Callable[[str], None]) -> None:
    second("Reality")
    solution = dmft.solve(index(), 5.0, rtol=RTOL, verify=True)
    alone = dmft.solve(index(), 5.0, rtol=RTOL)
    np.testing.assert_array_equal(solution.train_error, alone.train_error)
    assert alone.verification is None
    other = dmft.solve(index(), 5.0, rtol=RTOL, method="bdf3")
    times = common_times(solution, other)
    assert solution.verification is not None
    assert solution.verification.differences == differences(solution, other, times)


def test_partial_solutions_are_checked_as_far_as_they_go() -> None:
    solution = dmft.solve(index(), 20.0, rtol=RTOL, max_rows=60, verify=True)
    assert solution.status is dmft.Status.STEP_LIMIT
    checked = solution.verification
    assert checked is not None and checked.agrees
    assert checked.times[-1] == solution.t[-1] < 20.0


@pytest.mark.slow
def test_near_a_transition_amplification_explains() -> None:
    problem = dmft.InfiniteWidthProblem(
        sample_ratio=56.0, noise_std=0.3, a0=1.0, activation=CUBIC, target=SHARED["target"]
    )
    checked = dmft.solve(problem, 5e3, rtol=RTOL, verify=True).verification
    assert checked is not None and not checked.agrees and checked.explained
    assert checked.largest.curve == "train_error" and checked.amplification > 30.0


# --- how it is measured -----------------------------------------------------------------------------------------------


def test_differences_are_measured_as_stated() -> None:
    one = synthetic()
    times = np.geomspace(0.1, 60.0, 40)
    assert all(found.largest == 0.0 for found in differences(one, one, times))
    bump = np.exp(-(np.log(one.t + 1e-9) ** 2))  # largest at t = 1
    changes = {
        "a": one.a[:, None] * (1.0 - 1e-3),
        "v": (one.v + 1e-3 * bump)[:, None, None],
        "test_error": one.test_error * (1.0 + 2e-3 * bump),
        "train_error": one.train_error + 1e-4,
    }
    other = synthetic(**changes)
    found = {item.curve: item for item in differences(one, other, times)}
    assert found["a"].largest == pytest.approx(1e-3, rel=1e-9) and found["a"].time == 60.0
    at = one.at(times)
    assert found["v"].largest == pytest.approx(1e-3 / np.abs(at.v).max(), rel=1e-2)
    assert found["test_error"].largest == pytest.approx(2e-3, rel=1e-2)
    assert found["test_error"].time == pytest.approx(1.0, rel=0.2) == found["v"].time
    # Relative, time by time: the last train error is 1/61.
    assert found["train_error"].largest == pytest.approx(1e-4 * 61.0, rel=1e-3) and found["train_error"].time == 60.0
    assert found["nu"].largest == 0.0


def test_vanishing_train_errors_are_not_compared() -> None:
    falling = np.exp(-synthetic().t)
    one, other = synthetic(train_error=falling), synthetic(train_error=falling * (1.0 + falling))
    times = np.linspace(1.0, 60.0, 60)
    (found,) = [item for item in differences(one, other, times) if item.curve == "train_error"]
    assert found.largest == pytest.approx(np.exp(-1.0), rel=1e-3)
    late = synthetic(train_error=np.where(falling < 1e-8 * 0.18, 2.0 * falling, falling))
    (found,) = [item for item in differences(one, late, times) if item.curve == "train_error"]
    assert found.largest == 0.0
    early = synthetic(train_error=np.where(falling < 1e-4 * 0.18, 2.0 * falling, falling))
    (found,) = [item for item in differences(one, early, times) if item.curve == "train_error"]
    assert found.largest > 0.9


def test_a_curve_that_is_wrongly_zero_is_wrong_by_all_of_it() -> None:
    one, times = synthetic(), np.geomspace(0.1, 60.0, 40)
    gone = synthetic(v=np.zeros_like(one.v)[:, None, None], train_error=np.zeros_like(one.t))
    found = {item.curve: item.largest for item in differences(gone, one, times)}
    assert found["v"] == pytest.approx(1.0) and found["train_error"] == pytest.approx(1.0)


def test_amplification_is_the_largest_change_over_rtol() -> None:
    one = synthetic()
    tighter = synthetic(test_error=one.test_error * (1.0 + 2e-3), a=one.a[:, None] * (1.0 - 1e-4))
    found = differences(one, one, np.geomspace(0.1, 60.0, 40))
    first = {item.curve: item.amplification for item in amplified(found, one, tighter, 1e-4)}
    assert first["test_error"] == pytest.approx(20.0, rel=1e-6) and first["a"] == pytest.approx(1.0, rel=1e-6)
    # What another run has shown stays if it is more.
    before = tuple(replace(item, amplification=5.0) for item in found)
    then = {item.curve: item.amplification for item in amplified(before, one, tighter, 1e-4)}
    assert then["test_error"] == pytest.approx(20.0, rel=1e-6) and then["a"] == 5.0


QUALITY = Quality(balance_median=1e-6, balance_largest=1e-3, drift=0.0, wall_time=1.0)


def made(*found: Difference, **changes: Any) -> Verification:
    given: dict[str, Any] = {
        "rtol": 1e-4,
        "check_method": "bdf4",
        "check_rtol": 1e-5,
        "independent": False,
        "status": dmft.Status.DONE,
        "message": "reached t = 1",
        "times": (0.5, 1.0),
        "differences": found,
        "run": QUALITY,
        "check": replace(QUALITY, drift=None),
    }
    return Verification(**(given | changes))


def off(largest: float, amplification: float | None = None) -> Difference:
    return Difference(curve="v", largest=largest, time=0.5, amplification=amplification)


def test_agreement_and_explanation() -> None:
    assert made(off(9e-4)).agrees and not made(off(9e-4)).explained
    assert not made(off(2e-3)).agrees and not made(off(2e-3)).explained
    assert made(off(2e-3, 3.0)).explained and not made(off(2e-3, 3.0)).agrees
    assert not made(off(2e-3, 1.5)).explained
    # An amplified curve is no excuse for another one.
    assert not made(off(2e-3, 3.0), replace(off(1e-2, 1.0), curve="a")).explained
    assert made(off(9e-4, 0.1), off(2e-3, 3.0)).explained
    assert made(off(2e-3, 3.0), off(1e-2, 50.0)).amplification == 50.0
    # The looser of the two runs decides; a check that stopped proves nothing.
    assert made(off(2e-3), check_rtol=1e-3).agrees
    assert not made(off(0.0), status=dmft.Status.ROW_FAILED).agrees
    assert not made(off(2e-3, 3.0), status=dmft.Status.ROW_FAILED).explained
    assert not made().agrees and made().largest is None
    assert "not checked" in made(status=dmft.Status.FAILED).verdict


# --- interrupts, failures, checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [2, 30])
def test_interrupted_check_keeps_the_solution_and_resumes(rows: int, tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    whole = dmft.solve(index(), 5.0, rtol=RTOL, verify=True)
    part = dmft.solve(index(), 5.0, rtol=RTOL, verify=True, checkpoint=path, progress=Stop(1, rows))
    assert part.status is dmft.Status.DONE and part.interrupted
    np.testing.assert_array_equal(part.train_error, whole.train_error)
    assert part.verification is not None and part.verification.status is dmft.Status.INTERRUPTED
    assert not part.verification.agrees
    assert path.exists() and path.with_name(path.name + CHECK).exists()
    count = Stop(9, 0)
    resumed = dmft.solve(index(), 5.0, rtol=RTOL, verify=True, checkpoint=path, resume=True, progress=count)
    assert count.runs == 0  # the check alone was left to do, from where it was
    assert without_times(resumed.verification) == without_times(whole.verification)
    np.testing.assert_array_equal(resumed.two_time.correlation, whole.two_time.correlation)
    assert resumed.stats == part.stats and not resumed.interrupted
    # Everything is kept: resuming once more computes nothing.
    nothing = Stop(0, 0)
    again = dmft.solve(index(), 5.0, rtol=RTOL, verify=True, checkpoint=path, resume=True, progress=nothing)
    assert nothing.runs == -1 and again.verification == resumed.verification


def test_interrupted_run_resumes_with_its_check(tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    part = dmft.solve(index(), 5.0, rtol=RTOL, verify=True, checkpoint=path, progress=Stop(0, 30))
    assert part.status is dmft.Status.INTERRUPTED and part.interrupted and part.verification is None
    resumed = dmft.solve(index(), 5.0, rtol=RTOL, verify=True, checkpoint=path, resume=True)
    whole = dmft.solve(index(), 5.0, rtol=RTOL, verify=True)
    assert without_times(resumed.verification) == without_times(whole.verification)


def test_interrupted_explanation_resumes(second: Callable[[str], None], tmp_path: Path) -> None:
    second("Mistake")
    path, rtol = tmp_path / "run.checkpoint", RTOL / 10
    part = dmft.solve(index(), 5.0, rtol=rtol, verify=True, checkpoint=path, progress=Stop(2, 30))
    checked = part.verification
    assert checked is not None and checked.status is dmft.Status.INTERRUPTED
    assert checked.differences and checked.amplification is None
    assert path.with_name(path.name + TIGHTER).exists()
    resumed = dmft.solve(index(), 5.0, rtol=rtol, verify=True, checkpoint=path, resume=True)
    assert resumed.verification is not None and resumed.verification.amplification is not None
    whole = dmft.solve(index(), 5.0, rtol=rtol, verify=True)
    assert without_times(resumed.verification) == without_times(whole.verification)


def test_resuming_without_a_check_gives_the_finished_run(tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    part = dmft.solve(index(), 5.0, rtol=RTOL, verify=True, checkpoint=path, progress=Stop(1, 2))
    resumed = dmft.solve(index(), 5.0, rtol=RTOL, checkpoint=path, resume=True)
    assert resumed.verification is None and resumed.stats == part.stats
    with pytest.raises(solvers.CannotResumeError, match="other parameters"):
        dmft.solve(index(), 6.0, rtol=RTOL, verify=True, checkpoint=path, resume=True)


def test_the_check_of_another_run_is_not_resumed(tmp_path: Path) -> None:
    path, other = tmp_path / "run.checkpoint", tmp_path / "other.checkpoint"
    dmft.solve(index(4), 5.0, rtol=RTOL, verify=True, checkpoint=other)
    part = dmft.solve(index(), 5.0, rtol=RTOL, verify=True, checkpoint=path, progress=Stop(1, 2))
    assert part.interrupted
    other.with_name(other.name + CHECK).replace(path.with_name(path.name + CHECK))
    resumed = dmft.solve(index(), 5.0, rtol=RTOL, verify=True, checkpoint=path, resume=True)
    whole = dmft.solve(index(), 5.0, rtol=RTOL, verify=True)
    assert without_times(resumed.verification) == without_times(whole.verification)


def test_a_check_that_breaks_off_costs_nothing(second: Callable[[str], None]) -> None:
    second("Crash")
    solution = dmft.solve(index(), 5.0, rtol=RTOL, verify=True)
    assert solution.status is dmft.Status.DONE
    checked = solution.verification
    assert checked is not None and checked.status is dmft.Status.FAILED and not checked.agrees
    assert "ZeroDivisionError" in checked.message and "not checked" in solution.summary()


def test_verify_is_a_boolean() -> None:
    with pytest.raises(TypeError, match="verify"):
        dmft.solve(index(), 1.0, verify="yes")  # type: ignore[arg-type]


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "checked",
    [
        None,
        made(off(1 / 3 * 1e-3), replace(off(2e-3, 1 / 7), curve="nu")),
        made(check=None, times=(), status=dmft.Status.FAILED),
        made(off(1e-5), status=dmft.Status.INTERRUPTED, check=QUALITY, independent=True),
    ],
)
def test_round_trip(checked: Verification | None, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    run = synthetic(verification=checked)
    run.save(path)
    loaded = dmft.load(path)
    assert isinstance(loaded, Solution) and loaded.verification == checked
    with h5py.File(path) as file:
        assert ("verification" in file) == (checked is not None)
        assert file.attrs["schema_version"] == 1
        record = json.loads(file["parameters/canonical_json"].asstr()[()])
        assert ("verification" in record) == (checked is not None)  # without one a file is what it always was


def test_other_readers_understand_the_group(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    checked = made(off(1e-5), replace(off(2e-3, 4.0), curve="nu"))
    synthetic(verification=checked).save(tmp_path / "run.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = xarray.open_dataset(tmp_path / "run.h5", group="verification", engine="h5netcdf").load()
    assert list(group["curve"].values) == ["v", "nu"] and list(group["run"].values) == ["run", "check"]
    assert group["largest_difference"].sel(curve="nu") == 2e-3 and group["largest_difference"].dims == ("curve",)
    assert np.isnan(group["amplification"].sel(curve="v")) and group["amplification"].sel(curve="nu") == 4.0
    assert np.isnan(group["drift"].sel(run="check")) and group["drift"].sel(run="run") == 0.0
    assert int(group["agrees"]) == 0 and int(group["explained"]) == 1
    assert group["wall_time"].attrs["units"] == "s"
    assert all({"long_name", "description"} <= set(group[name].attrs) for name in group.variables)


# --- configuration and command line -----------------------------------------------------------------------------------

SMALL = """[model]
kind = "symmetric"
width = 8
alpha = 0.3
noise_std = 0.6
a0 = 1.0
activation = { covariance = [0, 0.9, 0, 0.16666666666666666] }
target = { same_as_activation = true }
[solve]
t_final = 5.0
rtol = 1e-3
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "small.toml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_configuration() -> None:
    assert "verify" not in config.parse(SMALL).solve.arguments()
    assert config.parse(SMALL + "verify = true\n").solve.arguments()["verify"] is True
    assert config.parse(SMALL, ["solve.verify=true"]).solve.verify
    with pytest.raises(TypeError, match="verify"):
        config.parse(SMALL + "verify = 1\n")


@pytest.mark.parametrize("how", [["--verify"], ["--set", "solve.verify=true"]])
def test_command_line(how: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["solve", "small.toml", "--out", "run.h5", *how]) == 0
    printed = capsys.readouterr().out
    assert "agrees with" in printed and "train_error" in printed and printed.count("agrees with") == 1
    assert sorted(path.name for path in place.iterdir()) == ["run.h5", "small.toml"]
    assert cli.main(["info", "run.h5"]) == 0
    assert "agrees with" in capsys.readouterr().out
    assert cli.main(["info", "run.h5", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["verification"]
    assert facts["agrees"] is True and facts["status"] == "done"


def test_command_line_without(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["solve", "small.toml", "--json"]) == 0
    assert "verification" not in json.loads(capsys.readouterr().out)


def test_disagreement_is_exit_code_one(
    place: Path, second: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    second("Mistake")
    assert cli.main(["solve", "small.toml", "--set", "solve.rtol=1e-4", "--verify"]) == 1
    said = capsys.readouterr()
    assert "DIFFERS" in said.err and "small.h5" in said.err
    loaded = dmft.load("small.h5")
    assert loaded.status is dmft.Status.DONE and not loaded.verification.agrees  # type: ignore[union-attr]
    assert sorted(path.name for path in place.iterdir()) == ["small.h5", "small.toml"]


def test_interrupted_check_on_the_command_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = Stop(1, 20)
    with monkeypatch.context() as patch:
        patch.setattr("dmft.cli.theory.Monitor.__call__", lambda self, progress: stop(progress))
        assert cli.main(["solve", "small.toml", "--verify"]) == 1
    assert "--resume" in capsys.readouterr().err
    kept = checkpoints(Path("small.h5.checkpoint"))
    assert kept[0].exists() and kept[1].exists() and not kept[2].exists()
    assert dmft.load("small.h5").verification.status is dmft.Status.INTERRUPTED  # type: ignore[union-attr]
    assert cli.main(["solve", "small.toml", "--verify", "--resume"]) == 0
    assert dmft.load("small.h5").verification.agrees  # type: ignore[union-attr]
    assert not any(path.exists() for path in kept)
