"""Checkpoints: a killed run goes on to the same numbers, and nothing else is ever resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmft
import solvers.marching as marching
from dmft.solution import Solution
from solvers.base import Options, Progress
from solvers.checkpoint import Checkpointer
from solvers.marching import BdfEngine

CURVES = ("t", "order", "a", "v", "nu", "train_error", "test_error", "energy_balance", "row_index")


def problem(**changes: Any) -> dmft.SymmetricProblem:
    cubic = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
    given: dict[str, Any] = {
        "width": 8,
        "alpha": 0.3,
        "activation": cubic,
        "target": dmft.Target.same_as(cubic),
        "noise_std": 0.6,
        "a0": 1.0,
    }
    return dmft.SymmetricProblem(**(given | changes))


T_FINAL, RTOL = 5.0, 1e-3


def assert_same_run(one: Solution, other: Solution) -> None:
    """Bit for bit: every curve, two-time function and work counter (wall time apart)."""
    for name in CURVES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("t", "order", "correlation", "integrated_response", "residual_correlation"):
        np.testing.assert_array_equal(getattr(one.two_time, name), getattr(other.two_time, name), err_msg=name)
    assert (one.status, one.message) == (other.status, other.message)
    for name in ("rows", "rejected", "iterations", "row_solves", "thinnings", "estimated_error"):
        assert getattr(one.stats, name) == getattr(other.stats, name), name


class EveryRow(Checkpointer):
    """Due after every row, whatever writing costs."""

    def due(self) -> bool:
        return self.path is not None


def stop_after(rows: int) -> Callable[[Progress], None]:
    def callback(state: Progress) -> None:
        if state.rows >= rows:
            raise KeyboardInterrupt

    return callback


@pytest.fixture(scope="module")
def whole() -> Solution:
    return dmft.solve(problem(), T_FINAL, rtol=RTOL)


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """Checkpoint of a run stopped in the middle."""
    path = tmp_path / "run.checkpoint"
    run = dmft.solve(problem(), T_FINAL, rtol=RTOL, checkpoint=path, progress=stop_after(40))
    assert run.status is dmft.Status.INTERRUPTED
    return path


@pytest.mark.parametrize("rows", [2, 3, 17, 60])
def test_interrupted_and_resumed_is_uninterrupted(rows: int, whole: Solution, tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    assert whole.stats.rows > 60
    part = dmft.solve(problem(), T_FINAL, rtol=RTOL, checkpoint=path, progress=stop_after(rows))
    assert len(part.t) == rows
    np.testing.assert_array_equal(part.t, whole.t[:rows])
    assert_same_run(dmft.solve(problem(), T_FINAL, rtol=RTOL, checkpoint=path, resume=True), whole)


def test_resumed_again_and_again(whole: Solution, tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    for rows in range(10, whole.stats.rows, 11):
        run = dmft.solve(
            problem(), T_FINAL, rtol=RTOL, checkpoint=path, resume=path.exists(), progress=stop_after(rows)
        )
        assert len(run.t) == rows
    assert_same_run(dmft.solve(problem(), T_FINAL, rtol=RTOL, checkpoint=path, resume=True), whole)


def test_thinned_histories_resume_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marching, "THIN_SPACING", 3.0)  # coarser than in use, so that a short run has rows to drop
    options = Options(t_final=T_FINAL, rtol=RTOL, method="bdf", max_history=60)
    identity = {"problem": problem().to_dict(), "solve": options.to_dict()}

    def run(path: Path | None, resume: bool, progress: Any = None) -> Solution:
        return BdfEngine(problem(), options).run(progress, Checkpointer(path, identity, 1e9), resume)

    uninterrupted = run(None, False)
    assert uninterrupted.stats.thinnings >= 1
    for rows in (50, 75):  # before and after the history is first thinned
        path = tmp_path / f"{rows}.checkpoint"
        run(path, False, stop_after(rows))
        assert_same_run(run(path, True), uninterrupted)


def test_other_problems_resume_too(tmp_path: Path) -> None:
    quadratic = dmft.Activation.from_covariance([0, 0.9, 0.5])
    grouped = dmft.GroupedProblem(
        sizes=[2, 1], alpha=0.4, activation=quadratic, target=dmft.Target.noise(), noise_std=1.0, a0=[1.0, -1.0]
    )
    for kind, path in ((grouped, tmp_path / "grouped"), (dmft.PSpinProblem(covariance=[0, 0, 0, 1.0]), tmp_path / "p")):
        complete = dmft.solve(kind, 0.1, rtol=1e-2)
        dmft.solve(kind, 0.1, rtol=1e-2, checkpoint=path, progress=stop_after(20))
        resumed = dmft.solve(kind, 0.1, rtol=1e-2, checkpoint=path, resume=True)
        np.testing.assert_array_equal(resumed.t, complete.t)
        np.testing.assert_array_equal(resumed.nu, complete.nu)
        np.testing.assert_array_equal(resumed.two_time.correlation, complete.two_time.correlation)


def test_a_finished_checkpoint_resumes_to_its_end(whole: Solution, tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    options = Options(t_final=T_FINAL, rtol=RTOL, method="bdf")
    identity = {"problem": problem().to_dict(), "solve": options.to_dict()}
    BdfEngine(problem(), options).run(None, EveryRow(path, identity), False)
    again = BdfEngine(problem(), options).run(None, EveryRow(path, identity), True)
    assert_same_run(again, whole)


CHILD = """
import json, sys
import dmft
from dmft.problems import from_dict
from solvers.checkpoint import Checkpointer
Checkpointer.due = lambda self: True
case = json.loads(sys.argv[1])
problem = from_dict(case["problem"])
def say(state):
    print(state.rows, flush=True)
dmft.solve(problem, case["t_final"], rtol=case["rtol"], checkpoint=sys.argv[2], progress=say, resume=len(sys.argv) > 3)
print("done", flush=True)
"""


def killed(path: Path, row: int, delay: float, resume: bool) -> int:
    """Run a child that checkpoints after every row; SIGKILL it ``delay`` seconds after that row, which is returned."""
    case = {"problem": problem().to_dict(), "t_final": T_FINAL, "rtol": RTOL}
    command = [sys.executable, "-c", CHILD, json.dumps(case), str(path), *(["resume"] if resume else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as child:
        assert child.stdout is not None
        last = 0
        for line in child.stdout:
            if line.strip() == "done":
                break
            last = int(line)
            if last >= row:
                time.sleep(delay)
                child.send_signal(signal.SIGKILL)
                break
        child.wait()
        assert child.returncode == -signal.SIGKILL, "the child came to its end before the signal"
    return last


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_and_resumed_gives_the_same_numbers(whole: Solution, tmp_path: Path) -> None:
    """Killed twice, at random moments: most of the child's time goes into writing, so writes are cut short as well."""
    path = tmp_path / "run.checkpoint"
    moments = np.random.default_rng()
    where: list[tuple[int, float]] = []
    for low, high in ((5, 30), (35, 60)):
        where.append((int(moments.integers(low, high)), float(moments.uniform(0.0, 0.02))))
        killed(path, *where[-1], resume=path.exists())
        # The file under the final name is whole, and anything cut short has another name.
        with np.load(path, allow_pickle=False) as stored:
            rows = len(stored["curves_t"])
            np.testing.assert_array_equal(stored["curves_t"], whole.t[:rows], err_msg=str(where))
        assert rows >= where[-1][0], where  # progress is reported after the checkpoint of the same row
    resumed = dmft.solve(problem(), T_FINAL, rtol=RTOL, checkpoint=path, resume=True)
    assert_same_run(resumed, whole)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_many_times(whole: Solution, tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    moments = np.random.default_rng()
    row = 1
    while (row := row + int(moments.integers(2, 9))) < whole.stats.rows - 3:
        row = killed(path, row, float(moments.uniform(0.0, 0.01)), resume=path.exists())
        with np.load(path, allow_pickle=False) as stored:
            row = len(stored["curves_t"])
    assert_same_run(dmft.solve(problem(), T_FINAL, rtol=RTOL, checkpoint=path, resume=True), whole)


def test_a_failing_write_leaves_the_last_checkpoint(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = interrupted.read_bytes()

    def broken(stream: Any, **arrays: Any) -> None:
        stream.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="No space"):
        dmft.solve(problem(), T_FINAL, rtol=RTOL, checkpoint=interrupted, progress=stop_after(20))
    assert interrupted.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [interrupted.name]


@pytest.mark.parametrize(
    ("changes", "arguments", "named"),
    [
        ({"width": 9}, {}, "problem.width"),
        ({"noise_std": 0.6000000001}, {}, "problem.noise_std"),
        ({"train_second_layer": False}, {}, "problem.train_second_layer"),
        ({}, {"t_final": 6.0}, "solve.t_final"),
        ({}, {"rtol": 2e-3}, "solve.rtol"),
        ({}, {"method": "bdf3"}, "solve.method"),
        ({}, {"times": [1.0]}, "solve.times"),
    ],
)
def test_other_parameters_are_refused(
    changes: dict[str, Any], arguments: dict[str, Any], named: str, interrupted: Path
) -> None:
    before = interrupted.read_bytes()
    given: dict[str, Any] = {"t_final": T_FINAL, "rtol": RTOL} | arguments
    with pytest.raises(ValueError, match="belongs to a run with other parameters") as caught:
        dmft.solve(problem(**changes), checkpoint=interrupted, resume=True, **given)
    sentence = str(caught.value)
    assert f"({named})" in sentence and "\n" not in sentence
    assert interrupted.read_bytes() == before


def test_another_kind_of_problem_is_refused(interrupted: Path) -> None:
    with pytest.raises(ValueError, match="other parameters"):
        dmft.solve(dmft.PSpinProblem(covariance=[0, 0, 1.0]), T_FINAL, rtol=RTOL, checkpoint=interrupted, resume=True)


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x40]) + data[middle + 1 :]


def empty(data: bytes) -> bytes:
    return b""


def foreign(data: bytes) -> bytes:
    return b"\x89HDF\r\n\x1a\n" + bytes(1000)


@pytest.mark.parametrize("damage", [truncated, flipped, empty, foreign])
def test_damaged_checkpoints_are_refused(damage: Callable[[bytes], bytes], interrupted: Path) -> None:
    interrupted.write_bytes(damage(interrupted.read_bytes()))
    with pytest.raises(ValueError, match="cannot be read") as caught:
        dmft.solve(problem(), T_FINAL, rtol=RTOL, checkpoint=interrupted, resume=True)
    assert str(interrupted) in str(caught.value) and "\n" not in str(caught.value)
    assert interrupted.exists()


def test_an_array_that_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, x=np.arange(3))
    with pytest.raises(ValueError, match="cannot be read"):
        dmft.solve(problem(), T_FINAL, rtol=RTOL, checkpoint=path, resume=True)
    np.save(tmp_path / "one.npy", np.arange(3))
    with pytest.raises(ValueError, match="cannot be read"):
        dmft.solve(problem(), T_FINAL, rtol=RTOL, checkpoint=tmp_path / "one.npy", resume=True)


def test_another_format_is_refused(interrupted: Path) -> None:
    with np.load(interrupted) as stored:
        arrays = {name: stored[name] for name in stored.files}
    header = json.loads(str(arrays.pop("header"))) | {"format": 99}
    with open(interrupted, "wb") as stream:
        np.savez(stream, header=np.array(json.dumps(header)), **arrays)
    with pytest.raises(ValueError, match="has format 99"):
        dmft.solve(problem(), T_FINAL, rtol=RTOL, checkpoint=interrupted, resume=True)


def test_resume_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resume needs checkpoint"):
        dmft.solve(problem(), T_FINAL, resume=True)
    with pytest.raises(ValueError, match="does not exist"):
        dmft.solve(problem(), T_FINAL, checkpoint=tmp_path / "none", resume=True)


def test_checkpoints_are_written_at_intervals_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = Checkpointer.write

    def counted(self: Checkpointer, arrays: dict[str, Any], record: dict[str, Any]) -> None:
        written.append(len(arrays["curves_t"]))
        write(self, arrays, record)

    monkeypatch.setattr(Checkpointer, "write", counted)
    dmft.solve(problem(), T_FINAL, rtol=RTOL, checkpoint=tmp_path / "rare", checkpoint_interval=1e6)
    assert written == []
    run = dmft.solve(problem(), T_FINAL, rtol=RTOL, checkpoint=tmp_path / "often", checkpoint_interval=0.0)
    # Spread to a twentieth of the time: at most that many of the rows, and the first one early.
    assert written and len(written) < run.stats.rows


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
@pytest.mark.parametrize("method", ["bdf", "collocation"])
def test_ctrl_c_at_any_moment_loses_no_bit(method: str, tmp_path: Path) -> None:
    def run(**more: Any) -> dmft.Solution:
        return dmft.solve(problem(), 20.0, rtol=1e-4, method=method, **more)

    whole = run()
    interrupted = 0
    previous = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        for share in (0.2, 0.5, 0.8):
            path = tmp_path / f"{share}.checkpoint"
            signal.setitimer(signal.ITIMER_REAL, share * whole.stats.wall_time)
            solution = run(checkpoint=path)
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            if solution.status is dmft.Status.INTERRUPTED:
                interrupted += 1
                solution = run(checkpoint=path, resume=True)
            for name in ("t", "a", "v", "nu", "train_error", "energy_balance"):
                np.testing.assert_array_equal(getattr(solution, name), getattr(whole, name), err_msg=name)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupted > 0
