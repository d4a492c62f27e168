"""The command line: results, exit codes, signals, and every file it must not lose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

import dmft
from dmft import cli, config
from dmft.solution import Solution, Stats, mode_names

SMALL = """# a comment that the file keeps
[model]
kind = "symmetric"
width = 4
alpha = 0.3
noise_std = 0.6
a0 = 1.0
activation = { covariance = [0, 0.9, 0.5] }
target = { same_as_activation = true }
[solve]
t_final = 2.0
rtol = 1e-3
"""

STATS = Stats(rows=21, rejected=1, iterations=99, row_solves=22, wall_time=0.1, thinnings=0, estimated_error=1e-4)


def made_up(problem: Any, t_final: float, status: dmft.Status = dmft.Status.DONE, **options: Any) -> Solution:
    """A solution with smooth curves, for tests of everything around the engine."""
    t = np.concatenate([[0.0], np.geomspace(1e-3, t_final, 20)])
    form = problem.formulation()
    ones = np.ones((len(t), form.groups))
    age = t[:, None] - t[None, :]
    modes = mode_names(form)
    return Solution(
        problem=problem,
        t=t,
        order=np.minimum(np.arange(len(t)), 4),
        a=ones * np.sqrt(1 + t)[:, None],
        v=np.tanh(t)[:, None, None] * np.exp(-t / 10)[:, None, None] * ones[:, :, None],
        nu=ones,
        train_error=np.exp(-t),
        test_error=0.2 + np.exp(-3 * t) + 0.1 * t,
        energy_balance=np.full(len(t), 1e-5),
        row_index=np.arange(len(t)),
        modes=modes,
        correlation=np.exp(-np.abs(age)) * np.ones((len(modes), 1, 1)),
        integrated_response=np.where(age > 0, 1 - np.exp(-age), 0.0) * np.ones((len(modes), 1, 1)),
        residual_correlation=np.exp(-np.abs(age)),
        status=status,
        message="The requested time was reached." if status.ok else "Row 20 has no solution; try a smaller rtol.",
        stats=STATS,
        rtol=options.get("rtol", 1e-4),
        method="bdf4",
        config_text=options.get("config_text", ""),
    )


class FakeEngine:
    """Stands in for `dmft.solve`; remembers how it was called."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.status = dmft.Status.DONE
        self.during: Callable[[dict[str, Any]], None] = lambda call: None

    def __call__(self, problem: Any, t_final: float, **options: Any) -> Solution:
        call = {"problem": problem, "t_final": t_final, **options}
        self.calls.append(call)
        self.during(call)
        for t in (0.0, 0.5 * t_final, t_final):
            options["progress"](SimpleNamespace(time=t, t_final=t_final, step=0.1, rows=3, wall_time=0.1))
        return made_up(problem, t_final, self.status, **options)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setitem(dmft.__dict__, "solve", fake)
    return fake


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory holding small.toml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SMALL)
    return tmp_path


@pytest.fixture
def run(place: Path) -> Path:
    """A result file in the working directory."""
    made_up(config.parse(SMALL).problem, 2.0, config_text=SMALL).save(place / "run.h5")
    return Path("run.h5")


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------------------------- good ones


def test_solve_saves_and_reports(engine: FakeEngine, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["solve", "small.toml", "--out", "run.h5", "--set", "model.width=8"]) == 0
    out, err = capsys.readouterr()
    assert "run.h5" in out and "done" in out
    assert err == ""  # no progress bar where there is no terminal
    (call,) = engine.calls
    assert call["problem"].width == 8
    assert (call["t_final"], call["rtol"], call["method"], call["times"]) == (2.0, 1e-3, "auto", None)
    assert call["resume"] is False
    assert "max_rows" not in call  # the engine's own limit
    solution = dmft.load("run.h5")
    assert solution.problem.width == 8
    assert config.parse(solution.config_text).problem.width == 8
    assert sorted(snapshot(place)) == ["run.h5", "small.toml"]


def test_solve_names_its_file_after_the_config(engine: FakeEngine, place: Path) -> None:
    assert cli.main(["solve", "small.toml"]) == 0
    assert dmft.load("small.h5").config_text == SMALL


def test_solve_takes_a_ready_configuration(engine: FakeEngine, place: Path) -> None:
    assert cli.main(["solve", "mu_fig07", "--quiet"]) == 0
    assert engine.calls[0]["problem"].kind == "general"
    assert Path("mu_fig07.h5").exists()


def test_max_rows_reaches_the_engine(engine: FakeEngine, place: Path) -> None:
    assert cli.main(["solve", "small.toml", "--set", "solve.max_rows=77", "--set", "solve.times=[0.5, 1]"]) == 0
    assert engine.calls[0]["max_rows"] == 77
    assert engine.calls[0]["times"] == (0.5, 1.0)


def test_solve_json(engine: FakeEngine, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["solve", "small.toml", "--json"]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert err == ""
    assert (record["status"], record["file"], record["t"], record["rows"]) == ("done", "small.h5", 2.0, 21)
    assert record["final"]["gamma"] == record["final"]["a"] / 2  # sqrt(width) = 2, exact
    assert record["minimum"]["interior"] is True
    # 3 exp(-3 t) = 0.1 at the minimum of the made-up curve; cells of it are 0.5 wide at degree 4
    assert record["minimum"]["t"] == pytest.approx(np.log(30) / 3, rel=1e-2)
    assert dmft.problems.from_dict(record["problem"]) == engine.calls[0]["problem"]


def test_quiet_says_nothing(engine: FakeEngine, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["--set", 'model.activation={ name = "relu", degree = 5 }']  # which warns
    assert cli.main(["solve", "small.toml", "--quiet", *overrides]) == 0
    assert capsys.readouterr() == ("", "")


def test_warnings_are_one_line(engine: FakeEngine, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["solve", "small.toml", "--set", 'model.activation={ name = "relu", degree = 5 }']) == 0
    err = capsys.readouterr().err
    assert err.startswith("dmft: warning: ") and err.count("\n") == 1


def test_progress_bar_on_a_terminal(
    engine: FakeEngine, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    engine.during = lambda call: time.sleep(0.15)  # tqdm draws every 0.1 s
    assert cli.main(["solve", "small.toml"]) == 0
    err = capsys.readouterr().err
    assert "t = " in err and "of 2" in err and "step" in err and "to go" in err
    assert cli.main(["solve", "small.toml", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_checkpoint_and_resume(engine: FakeEngine, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = place / "run.h5.checkpoint"
    assert cli.main(["solve", "small.toml", "--out", "run.h5", "--resume"]) == 0
    assert "starting from the beginning" in capsys.readouterr().err
    checkpoint.write_bytes(b"rows")
    assert cli.main(["solve", "small.toml", "--out", "run.h5", "--resume"]) == 0
    assert [call["resume"] for call in engine.calls] == [False, True]
    assert Path(engine.calls[1]["checkpoint"]).resolve() == checkpoint
    assert not checkpoint.exists()  # done: nothing to resume


def test_failure_keeps_and_says_the_partial_result(
    engine: FakeEngine, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.status = dmft.Status.ROW_FAILED
    assert cli.main(["solve", "small.toml", "--out", "run.h5"]) == 1
    err = capsys.readouterr().err
    assert "row_failed" in err and "try a smaller rtol" in err and "run.h5" in err
    assert dmft.load("run.h5").status is dmft.Status.ROW_FAILED


def test_a_partial_result_does_not_replace_a_complete_one(
    engine: FakeEngine, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["solve", "small.toml", "--out", "run.h5"]) == 0
    complete = Path("run.h5").read_bytes()
    engine.status = dmft.Status.STEP_LIMIT
    assert cli.main(["solve", "small.toml", "--out", "run.h5"]) == 1
    assert "run.partial.h5" in capsys.readouterr().err
    assert Path("run.h5").read_bytes() == complete
    assert dmft.load("run.partial.h5").status is dmft.Status.STEP_LIMIT


def test_a_complete_result_replaces_a_partial_one(engine: FakeEngine, place: Path) -> None:
    engine.status = dmft.Status.INTERRUPTED
    assert cli.main(["solve", "small.toml", "--out", "run.h5", "--quiet"]) == 1
    engine.status = dmft.Status.DONE
    assert cli.main(["solve", "small.toml", "--out", "run.h5"]) == 0
    assert dmft.load("run.h5").status is dmft.Status.DONE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_between_rows(
    number: signal.Signals, engine: FakeEngine, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.during = lambda call: os.kill(os.getpid(), number)
    Path("small.h5.checkpoint").write_bytes(b"rows")
    before = signal.getsignal(number)
    # The fake engine lets the KeyboardInterrupt of the progress callback through, as it would before the first row.
    assert cli.main(["solve", "small.toml"]) == 1
    err = capsys.readouterr().err
    assert "second signal" in err and "small.h5.checkpoint is kept for --resume" in err
    assert signal.getsignal(number) is before
    assert not Path("small.h5").exists()


def test_info(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(run)]) == 0
    out = capsys.readouterr().out
    assert "symmetric" in out and "schema_version" in out and '"alpha": 0.3' in out
    assert cli.main(["info", str(run), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["problem"]["alpha"] == 0.3
    assert record["provenance"]["schema_version"] == 1


def test_plot(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plot", str(run)]) == 0
    assert capsys.readouterr().out == "run.png\n"
    assert Path("run.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["plot", str(run), "--out", "picture.svg", "--quiet"]) == 0
    assert "<svg" in Path("picture.svg").read_text()


def test_export(run: Path) -> None:
    assert cli.main(["export", str(run), "--csv", "table"]) == 0
    lines = [line for line in Path("table/run.csv").read_text().splitlines() if not line.startswith("#")]
    solution = dmft.load(run)
    assert len(lines) == len(solution.t) + 1
    assert "test_error" in lines[0].split(",")


def test_demo(engine: FakeEngine, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["simulate.dimension=5", "simulate.replicas=1", "simulate.t_final=1.0"]
    overrides = [word for override in small for word in ("--set", override)]
    assert cli.main(["demo", "--out", "out/demo", "--workers", "1", *overrides]) == 0
    out = capsys.readouterr().out
    for word in ("minimum", "a / sqrt(m)", "a v", "e_tr", "estimated error", "Gaussian model, d = 5", "true network"):
        assert word in out
    simulations = ["demo/demo-gaussian-gd-d5.h5", "demo/demo-network-gd-d5.h5"]
    assert sorted(snapshot(place / "out")) == [*simulations, "demo/demo.csv", "demo/demo.h5", "demo/demo.png"]
    assert engine.calls[0]["problem"] == config.read("demo").problem


SIMULATE = """[simulate]
dimension = 10
replicas = 3
times = [0.5, 2.0]
pair_times = [2.0]
"""
ONE = ["--workers", "1"]


@pytest.fixture
def tiny(place: Path) -> Path:
    """small.toml with a simulation of a second at most."""
    (place / "tiny.toml").write_text(SMALL + SIMULATE)
    return place


def test_simulate_saves_and_reports(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", "tiny.toml", *ONE]) == 0
    out, err = capsys.readouterr()
    # Not tiny.h5, which is where `dmft solve` puts the theory.
    assert err == "" and "Gaussian model, d = 10, n = 12" in out and "3 replicas finished" in out
    assert "tiny-gaussian-d10.h5" in out
    assert sorted(snapshot(tiny)) == ["small.toml", "tiny-gaussian-d10.h5", "tiny.toml"]
    found = dmft.load("tiny-gaussian-d10.h5")
    assert found.config_text == SMALL + SIMULATE and found.t.tolist() == [0.5, 2.0]
    direct = dmft.simulate(found.problem, 10, t_final=2.0, replicas=3, times=[0.5, 2.0], pair_times=[2.0])
    assert found.settings == direct.settings
    for name in (*direct.curve_names, *direct.two_time_names):
        np.testing.assert_array_equal(found.sample(name).values, direct.sample(name).values)


def test_simulate_json_and_several_files(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = '[[simulate]]\ndimension = [5, 10]\n[[simulate]]\nmodel = "network"\ndimension = 10\nstep = 0.1\nbatch = 4\n'
    Path("tiny.toml").write_text(SMALL + more)
    overrides = ["--set", "simulate.replicas=2", "--set", "model.noise_std=0.5"]
    assert cli.main(["simulate", "tiny.toml", "--out", "x.h5", "--json", *overrides, *ONE]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    records = json.loads(out)["simulations"]
    files = ["x-gaussian-d5.h5", "x-gaussian-d10.h5", "x-network-batch4-d10.h5"]
    assert [record["file"] for record in records] == files
    assert sorted(snapshot(tiny)) == ["small.toml", "tiny.toml", *sorted(files)]
    for record in records:
        found = dmft.load(record["file"])
        assert record["settings"] == found.settings.to_dict() and record["replicas"] == 2
        assert record["status"] == "done" and record["problem"]["noise_std"] == 0.5
        assert record["final"]["train_error"]["mean"] == found.sample("train_error").mean[-1]
        assert config.parse(found.config_text).problem == found.problem


def test_simulate_quietly(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", "tiny.toml", "--quiet", *ONE, "--set", "model.alpha=0.31"]) == 0  # rounds n
    assert capsys.readouterr() == ("", "")


def test_simulate_warns_once(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", "tiny.toml", *ONE, "--set", "model.alpha=0.31"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("dmft: warning: n = alpha m d = 12.4 is rounded to 12") and err.count("\n") == 1


@pytest.mark.parametrize("dimension", ["10", "[5, 10]"])
def test_simulate_resumes(
    dimension: str, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from validation import dynamics

    ran: list[int] = []
    real = dynamics.run

    signals: list[int] = [signal.SIGINT]

    def interrupted(job: dynamics.Job) -> Any:
        if len(ran) == 2 and signals:
            os.kill(os.getpid(), signals.pop())
        ran.append(job.replica)
        return real(job)

    monkeypatch.setattr(dynamics, "run", interrupted)
    command = ["simulate", "tiny.toml", "--set", f"simulate.dimension={dimension}", *ONE]
    assert cli.main(command) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err and "resume" in err
    before = len(ran)
    assert cli.main([*command, "--resume"]) == 0
    total = 3 if dimension == "10" else 6
    assert before < total and before <= len(ran) <= total + 1  # the one that was interrupted may be run again
    assert not list(tiny.glob("*.replicas"))
    finished = snapshot(tiny)
    ran.clear()
    assert cli.main([*command, "--resume"]) == 0  # everything is there
    assert ran == [] and snapshot(tiny) == finished
    assert cli.main(command) == 0  # without --resume it is done again
    assert len(ran) == total


def test_failed_simulation(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    huge = ["--set", "simulate.step=1e4", "--set", "simulate.t_final=2e7", "--set", "simulate.times=[1e7]"]
    assert cli.main(["simulate", "tiny.toml", *huge, "--set", "simulate.pair_times=[]", *ONE]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err
    assert "0 of 3 replicas at d = 10" in err and "use a step below 1e+04" in err
    assert not Path("tiny.h5").exists()


def test_info_plot_and_export_of_a_simulation(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["simulate", "tiny.toml", "--out", "tiny.h5", "--quiet", *ONE]) == 0
    assert cli.main(["info", "tiny.h5"]) == 0
    out = capsys.readouterr().out
    for words in (
        "Gaussian model, d = 10",
        "train_error",
        '"alpha": 0.3',
        '"samples": 12',
        "schema_version",
        "SeedSequence",
    ):
        assert words in out
    assert cli.main(["info", "tiny.h5", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["settings"]["dimension"] == 10 and record["provenance"]["schema_version"] == 1
    assert record["problem"]["alpha"] == 0.3 and record["replicas"] == 3
    assert cli.main(["plot", "tiny.h5"]) == 0
    assert capsys.readouterr().out == "tiny.png\n"
    assert Path("tiny.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["export", "tiny.h5", "--csv", "table"]) == 0
    lines = [line for line in Path("table/tiny.csv").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 3 and "test_error_mean" in lines[0].split(",")


def test_configs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["configs"]) == 0
    names = sorted([*config.ready_names(), *config.ready_names("relu")])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == names
    assert cli.main(["configs", "mu_fig08"]) == 0
    assert config.parse(capsys.readouterr().out).problem == config.read("mu_fig08").problem


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for option, word in (("--version", dmft.__version__), ("--help", "solve")):
        with pytest.raises(SystemExit) as end:
            cli.main([option])
        assert end.value.code == 0
        assert word in capsys.readouterr().out


def test_every_public_name_exists() -> None:
    for name in dmft.__all__:
        assert getattr(dmft, name) is not None
        assert name in dir(dmft)
    with pytest.raises(AttributeError, match="no attribute 'slove'"):
        _ = dmft.slove  # type: ignore[attr-defined]


def test_import_and_help_load_nothing_heavy(repository: Path) -> None:
    """`import dmft` and `dmft --help` are quick because they import none of this."""
    code = (
        "import sys, dmft, dmft.cli\n"
        "try: dmft.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('numba', 'scipy', 'matplotlib', 'h5py', 'numpy', 'tqdm')\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(repository)}, capture_output=True, text=True
    )
    assert result.stderr.strip() == "[]"


# ------------------------------------------------------------------------------------------------- bad ones


def truncated(run: Path) -> None:
    run.write_bytes(run.read_bytes()[:-1000])


def flipped(run: Path) -> None:
    with h5py.File(run, "r+") as file:
        file["curves/test_error"][5] = 7.0


def emptied(run: Path) -> None:
    run.write_bytes(b"")


def not_hdf5(run: Path) -> None:
    run.write_text("t,a\n0,1\n")


def foreign(run: Path) -> None:
    run.unlink()
    with h5py.File(run, "w") as file:
        file["x"] = 1.0


def newer(run: Path) -> None:
    with h5py.File(run, "r+") as file:
        file.attrs["schema_version"] = 2


def textual_version(run: Path) -> None:
    with h5py.File(run, "r+") as file:
        file.attrs["schema_version"] = "one"


def without_curves(run: Path) -> None:
    with h5py.File(run, "r+") as file:
        del file["curves"]


def missing(run: Path) -> None:
    run.unlink()


def directory(run: Path) -> None:
    run.unlink()
    run.mkdir()


DAMAGE = [truncated, flipped, emptied, not_hdf5, foreign, newer, textual_version, without_curves, missing, directory]
READERS = [["info", "run.h5"], ["info", "run.h5", "--json"], ["plot", "run.h5"], ["export", "run.h5", "--csv", "table"]]


def refused(code: int, captured: Any, *words: str) -> None:
    """Exit 2 and one sentence holding ``words``."""
    assert code == 2
    assert captured.out == ""
    assert captured.err.startswith("dmft: error: ") and captured.err.count("\n") == 1 and captured.err.endswith("\n")
    assert "Traceback" not in captured.err
    for word in words:
        assert word in captured.err


@pytest.mark.parametrize("arguments", READERS, ids=" ".join)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files(
    damage: Callable[[Path], None],
    arguments: list[str],
    run: Path,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(run)
    before = snapshot(place)
    refused(cli.main(arguments), capsys.readouterr(), "run.h5")
    assert snapshot(place) == before
    assert not (place / "table").exists()


def test_the_wrong_schema_version_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newer(run)
    refused(cli.main(["info", "run.h5"]), capsys.readouterr(), "schema", "2", "1")


BAD_SIMULATIONS = {
    "no-simulate": (["small.toml"], ["small.toml", "section [simulate] is missing"]),
    "no-config": (["nowhere.toml"], ["nowhere.toml", "No such file"]),
    "unknown-key": (["tiny.toml", "--set", "simulate.replica=3"], ["'replica'", "did you mean 'replicas'"]),
    "no-dimension": (["tiny.toml", "--set", "simulate.dimension="], ["[simulate]", "dimension", "missing"]),
    "dimension": (["tiny.toml", "--set", "simulate.dimension=0"], ["dimension", "0"]),
    "dimension-word": (["tiny.toml", "--set", "simulate.dimension=ten"], ["dimension", "'ten'"]),
    "dimension-float": (["tiny.toml", "--set", "simulate.dimension=[10, 5.5]"], ["dimension", "5.5"]),
    "replicas": (["tiny.toml", "--set", "simulate.replicas=ten"], ["replicas", "'ten'"]),
    "model": (["tiny.toml", "--set", "simulate.model=gausian"], ["model", "gausian", "gaussian"]),
    "batch": (["tiny.toml", "--set", "simulate.batch=3000", "--set", "simulate.step=0.1"], ["batch", "at most n"]),
    "times": (["tiny.toml", "--set", "simulate.times=[3.0]"], ["times", "[0, 2]", "3.0"]),
    "step": (["tiny.toml", "--set", "simulate.step=fast"], ["step", "fast"]),
    "degree": (
        ["tiny.toml", "--set", 'model.activation={ name = "tanh", degree = 9 }'],
        ["degree <= 4", "model='network'"],
    ),
    "too-large": (["tiny.toml", "--set", "simulate.dimension=1000000"], ["dimension", "too large", "would fit"]),
    "pspin": (["pspin.toml"], ["problem", "pspin"]),
    "workers": (["tiny.toml", "--workers", "0"], ["--workers", "0"]),
    "workers-word": (["tiny.toml", "--workers", "two"], ["--workers", "two"]),
    "out-is-directory": (["tiny.toml", "--out", "."], ["directory"]),
    "out-in-missing-directory": (["tiny.toml", "--out", "no/x.h5"], ["no/x.h5", "does not exist"]),
    "out-is-the-config": (["tiny.toml", "--out", "tiny.toml"], ["tiny.toml", "input"]),
    "out-is-no-result": (["tiny.toml", "--out", "small.toml"], ["small.toml", "not overwritten"]),
}


@pytest.mark.parametrize("case", BAD_SIMULATIONS)
def test_bad_simulations(case: str, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, words = BAD_SIMULATIONS[case]
    pspin = '[model]\nkind = "pspin"\ncovariance = [0, 0, 0, 1.0]\n[solve]\nt_final = 2.0\n'
    Path("pspin.toml").write_text(pspin + SIMULATE)
    before = snapshot(tiny)
    try:
        code = cli.main(["simulate", *arguments])
    except SystemExit as end:  # from argparse
        code = int(str(end.code))
    refused(code, capsys.readouterr(), *words)
    assert snapshot(tiny) == before


BAD_ARGUMENTS = {
    "nothing": ([], ["COMMAND"]),
    "unknown-command": (["slove"], ["slove", "solve"]),
    "no-config": (["solve"], ["CONFIG"]),
    "unknown-option": (["solve", "small.toml", "--rtol", "1e-3"], ["--rtol"]),
    "abbreviated-option": (["solve", "small.toml", "--qui"], ["--qui"]),
    "set-without-value": (["solve", "small.toml", "--set"], ["--set"]),
    "missing-config": (["solve", "nowhere.toml"], ["nowhere.toml", "No such file"]),
    "misspelt-ready-config": (["solve", "mu_fgi07"], ["mu_fgi07", "did you mean 'mu_fig07'"]),
    "config-is-directory": (["solve", "folder.toml"], ["folder.toml", "directory"]),
    "config-is-binary": (["solve", "binary.toml"], ["binary.toml", "UTF-8"]),
    "out-is-directory": (["solve", "small.toml", "--out", "folder.toml"], ["folder.toml", "directory"]),
    "out-in-missing-directory": (["solve", "small.toml", "--out", "no/run.h5"], ["no/run.h5", "does not exist"]),
    "out-below-file": (["solve", "small.toml", "--out", "small.toml/run.h5"], ["small.toml", "does not exist"]),
    "out-not-writable": (["solve", "small.toml", "--out", "/proc/run.h5"], ["/proc", "cannot write"]),
    "out-empty": (["solve", "small.toml", "--out", ""], ["output"]),
    "out-is-the-config": (["solve", "small.toml", "--out", "small.toml"], ["small.toml", "input"]),
    "out-is-no-result": (["solve", "small.toml", "--out", "notes.txt"], ["notes.txt", "not overwritten"]),
    "out-is-a-device": (["solve", "small.toml", "--out", "/dev/full"], ["/dev/full"]),
    "plot-nothing": (["plot"], ["FILE.h5"]),
    "plot-over-the-run": (["plot", "run.h5", "--out", "run.h5"], ["run.h5", "input"]),
    "plot-unknown-format": (["plot", "run.h5", "--out", "run.docx"], ["docx"]),
    "plot-into-directory": (["plot", "run.h5", "--out", "folder.toml"], ["folder.toml", "directory"]),
    "plot-not-writable": (["plot", "run.h5", "--out", "/proc/run.png"], ["/proc", "cannot write"]),
    "export-without-directory": (["export", "run.h5"], ["--csv"]),
    "export-into-file": (["export", "run.h5", "--csv", "small.toml"], ["small.toml", "exists"]),
    "export-into-missing": (["export", "run.h5", "--csv", "no/table"], ["no/table"]),
    "export-not-writable": (["export", "run.h5", "--csv", "/proc"], ["/proc", "cannot write"]),
    "demo-into-file": (["demo", "--out", "small.toml"], ["small.toml", "exists"]),
    "demo-bad-override": (["demo", "--set", "model.alpha=-1", "--out", "d"], ["alpha", "-1"]),
    "configs-unknown": (["configs", "mu_fig99"], ["mu_fig99"]),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments(
    case: str, engine: FakeEngine, run: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, words = BAD_ARGUMENTS[case]
    (place / "folder.toml").mkdir()
    (place / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (place / "notes.txt").write_text("do not lose me")
    before = snapshot(place)
    try:
        code = cli.main(arguments)
    except SystemExit as end:  # argparse
        code = int(str(end.code))
    refused(code, capsys.readouterr(), *words)
    assert snapshot(place) == before
    assert engine.calls == []  # refused before anything is computed


def test_resume_with_other_parameters(engine: FakeEngine, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(call: dict[str, Any]) -> None:
        raise ValueError("The checkpoint belongs to another run: width = 4 there, 8 here.")

    engine.during = refuse
    Path("small.h5.checkpoint").write_bytes(b"rows")
    before = snapshot(place)
    refused(cli.main(["solve", "small.toml", "--resume", "--set", "model.width=8"]), capsys.readouterr(), "width")
    assert snapshot(place) == before


@pytest.mark.parametrize("arguments", [["solve", "small.toml", "--out", "run.h5"], ["plot", "run.h5"],
                                       ["export", "run.h5", "--csv", "."]], ids=" ".join)  # fmt: skip
def test_full_disk(
    arguments: list[str], engine: FakeEngine, run: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on file sizes is the full disk that a test may make; the earlier result and the checkpoint survive."""
    import resource

    Path("run.h5.checkpoint").write_bytes(b"rows")
    before = snapshot(place)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
    try:
        code = cli.main(arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    refused(code, capsys.readouterr(), "run")
    assert snapshot(place) == before


@pytest.mark.parametrize("bug", [TypeError("a bug"), np.linalg.LinAlgError("a bug")], ids=repr)
def test_a_bug_is_not_called_bad_input(bug: Exception, engine: FakeEngine, place: Path) -> None:
    def fail(call: dict[str, Any]) -> None:
        raise bug

    engine.during = fail
    with pytest.raises(type(bug), match="a bug"):
        cli.main(["solve", "small.toml"])


def test_a_simulation_does_not_replace_a_run_of_the_theory(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["solve", "tiny.toml", "--quiet"]) == 0
    before = snapshot(tiny)
    assert cli.main(["simulate", "tiny.toml", "--out", "tiny.h5", *ONE]) == 2
    assert "holds a run of the theory" in capsys.readouterr().err
    assert snapshot(tiny) == before
