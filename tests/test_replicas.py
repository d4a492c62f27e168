"""Independent tasks: the same bits wherever they run, and nothing that is finished is ever lost or done twice."""

from __future__ import annotations

import builtins
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import validation.replicas as replicas
from solvers.base import CannotResumeError
from validation.replicas import Outcome, Task, discard, run

HERE = Path(__file__).resolve()

# ---------------------------------------------------------------------------------------------------- functions


def numbers(payload: dict[str, Any]) -> dict[str, Any]:
    """Random numbers and products that BLAS would share among threads, with the other sum order that this brings."""
    rng = np.random.default_rng(np.random.SeedSequence(payload["seed"], spawn_key=(payload["index"],)))
    a = rng.standard_normal((400, 400))
    return {"product": a @ a.T, "inverse": np.linalg.solve(a, a[:3].T), "sum": a.sum(), "counts": np.arange(3)}


def noted(payload: dict[str, Any]) -> dict[str, Any]:
    """Leave one file for every call; do what the payload says before the end."""
    directory = Path(payload["notes"])
    (directory / f"{payload['name']}.{time.monotonic_ns()}.{os.getpid()}").touch()
    if payload.get("gate"):
        give_up = time.monotonic() + 20.0
        while not (directory / payload["gate"]).exists() and time.monotonic() < give_up:
            time.sleep(0.01)
    calls = len(starts(directory, payload["name"]))
    if calls <= payload.get("deaths", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if payload.get("opens"):
        (directory / payload["opens"]).touch()
    if payload.get("error"):
        raise ValueError("no such\n  number")
    return {"x": np.full(payload.get("size", 2), float(payload["index"]))}


def odd(payload: str) -> Any:
    """What a function should not do."""
    if payload == "exit":
        sys.exit(3)
    return {"list": [1, 2], "objects": {"x": np.array([None])}, "ragged": {"x": [[1], [1, 2]]}, "names": {1: 2}}[
        payload
    ]


def tasks_of(count: int, seed: int = 5) -> list[Task]:
    return [Task(f"replica-{i}", {"seed": seed, "index": i}) for i in range(count)]


def noting(directory: Path, count: int, **special: dict[str, Any]) -> list[Task]:
    """Tasks t0, t1, ... for `noted`; special={"t1": {...}} adds to their payloads."""
    names = [f"t{i}" for i in range(count)]
    common = {"notes": str(directory)}
    return [Task(n, common | {"name": n, "index": i} | special.get(n, {})) for i, n in enumerate(names)]


def starts(directory: Path, name: str = "") -> list[str]:
    """Names of the tasks that were begun, once for each time."""
    found = (path.name.split(".") for path in directory.iterdir() if path.name.count(".") == 2)
    return sorted(parts[0] for parts in found if name in ("", parts[0]))


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids(directory: Path) -> set[int]:
    return {int(path.name.split(".")[2]) for path in directory.iterdir() if path.name.count(".") == 2}


def assert_same_bits(one: Outcome, other: Outcome) -> None:
    assert list(one.results) == list(other.results)
    for key, arrays in one.results.items():
        assert list(arrays) == list(other.results[key])
        for name, array in arrays.items():
            twin = other.results[key][name]
            assert (array.dtype, array.shape, array.tobytes()) == (twin.dtype, twin.shape, twin.tobytes()), (key, name)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    directory = tmp_path / "notes"
    directory.mkdir()
    return directory


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


# ---------------------------------------------------------------------------------------------------- same bits


@pytest.fixture(scope="module")
def reference() -> Outcome:
    return run(numbers, tasks_of(5))


def test_bits_do_not_depend_on_workers_or_order(reference: Outcome) -> None:
    assert not reference.failures and not reference.interrupted
    assert list(reference.results) == [f"replica-{i}" for i in range(5)]
    assert_same_bits(run(numbers, tasks_of(5), workers=2), reference)
    shuffled = run(numbers, [tasks_of(5)[i] for i in (3, 0, 4, 2, 1)], workers=2)
    assert list(shuffled.results) == ["replica-3", "replica-0", "replica-4", "replica-2", "replica-1"]
    ordered = Outcome({key: shuffled.results[key] for key in reference.results}, {}, False)
    assert_same_bits(ordered, reference)


def test_bits_survive_the_store(reference: Outcome, store: Path) -> None:
    assert_same_bits(run(numbers, tasks_of(5), store=store), reference)
    assert_same_bits(run(odd, tasks_of(5), store=store, resume=True), reference)  # nothing is called
    assert isinstance(reference.results["replica-0"]["sum"], np.ndarray)


def test_one_thread_while_it_runs_and_the_old_number_afterwards() -> None:
    import threadpoolctl

    def threads(_: object = None) -> dict[str, Any]:
        return {"threads": [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]}

    before = threads()
    for workers in (1, 2):
        seen = run(threads, [Task("a", None), Task("b", None)], workers=workers)
        for arrays in seen.results.values():
            assert set(arrays["threads"].tolist()) == {1}
    assert threads() == before


def test_results_are_copies() -> None:
    buffer = np.zeros(2)

    def fill(value: float) -> dict[str, Any]:
        buffer[:] = value
        return {"x": buffer}

    results = run(fill, [Task("a", 1.0), Task("b", 2.0)]).results
    assert results["a"]["x"].tolist() == [1.0, 1.0]


def test_order_of_results_is_not_that_of_the_ends(notes: Path) -> None:
    seen: list[tuple[int, int, str, bool]] = []

    def progress(done: int, total: int, key: str) -> None:
        seen.append((done, total, key, threading.current_thread() is threading.main_thread()))

    tasks = noting(notes, 3, t0={"gate": "open"}, t2={"opens": "open"})
    outcome = run(noted, tasks, workers=2, progress=progress)
    assert list(outcome.results) == ["t0", "t1", "t2"]
    assert seen == [(1, 3, "t1", True), (2, 3, "t2", True), (3, 3, "t0", True)]


# ---------------------------------------------------------------------------------------------------- failures


def test_dead_worker_costs_only_its_own_task(notes: Path) -> None:
    # t0 begins first and ends last: the death of the other process must not make it begin again.
    tasks = noting(notes, 4, t0={"gate": "open"}, t1={"deaths": 1}, t3={"opens": "open"})
    outcome = run(noted, tasks, workers=2)
    assert not outcome.failures and not outcome.interrupted
    assert [int(arrays["x"][0]) for arrays in outcome.results.values()] == [0, 1, 2, 3]
    assert starts(notes) == ["t0", "t1", "t1", "t2", "t3"]
    assert not any(alive(pid) for pid in pids(notes))


def test_task_that_kills_every_worker_is_given_up(notes: Path) -> None:
    tasks = noting(notes, 4, t1={"deaths": 9}, t2={"error": True})
    outcome = run(noted, tasks, workers=2, attempts=2)
    assert list(outcome.results) == ["t0", "t3"]
    assert outcome.failures == {
        "t1": "its process was killed 2 times, last by SIGKILL, perhaps because it was out of memory",
        "t2": "ValueError: no such number",
    }
    assert not outcome.interrupted
    assert starts(notes) == ["t0", "t1", "t1", "t2", "t3"]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_bad_functions_fail_their_task(workers: int) -> None:
    tasks = [Task(payload, payload) for payload in ("exit", "list", "objects", "ragged", "names")]
    outcome = run(odd, tasks, workers=workers)
    assert outcome.results == {} and not outcome.interrupted
    assert outcome.failures["exit"] == "SystemExit: 3"
    assert outcome.failures["list"] == "the function returned [1, 2] and not a dictionary of arrays"
    assert "as x, which is not an array" in outcome.failures["objects"]
    assert "as x, which is not an array" in outcome.failures["ragged"]
    assert "not a dictionary of arrays" in outcome.failures["names"]


@pytest.mark.slow
def test_process_that_leaves(notes: Path) -> None:
    def leave(_: object) -> dict[str, Any]:
        os._exit(7)

    outcome = run(leave, [Task("a", 0), Task("b", 0)], workers=2, attempts=1)
    assert outcome.failures["a"] == "its process ended once before the task did, last with exit code 7"


def test_bad_arguments(tmp_path: Path, store: Path) -> None:
    for key in ("", "a/b", "..", ".hidden", "a b", "x" * 152, 3):
        with pytest.raises(ValueError, match="key of a task must be letters"):
            run(numbers, [Task(key, 0)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'a' is used twice"):
        run(numbers, [Task("a", 0), Task("a", 1)])
    with pytest.raises(ValueError, match="workers"):
        run(numbers, [], workers=0)
    with pytest.raises(ValueError, match="attempts"):
        run(numbers, [], attempts=0)
    with pytest.raises(TypeError, match="function must be callable"):
        run(3, [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="fingerprint"):
        run(numbers, [], fingerprint=3)  # type: ignore[arg-type]
    lock = threading.Lock()
    with pytest.raises(TypeError, match="payload of task a must be picklable"):
        run(numbers, [Task("a", lock), Task("b", lock)], workers=2)
    with pytest.raises(TypeError, match="function must be picklable"):
        run(lambda _: {"x": lock}, [Task("a", 0), Task("b", 0)], workers=2, store=store)
    assert not store.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="is not a directory"):
        run(numbers, [], store=tmp_path / "file")
    assert run(numbers, []) == Outcome({}, {}, False)


# ---------------------------------------------------------------------------------------------------- the store


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_resume_runs_what_is_missing(notes: Path, store: Path, workers: int) -> None:
    tasks = noting(notes, 5, t1={"error": True})
    done: list[int] = []
    first = run(noted, tasks, store=store, progress=lambda n, *_: done.append(n), stop=lambda: len(done) >= 3)
    assert first.interrupted
    assert starts(notes) == ["t0", "t1", "t2"] and list(first.results) == ["t0", "t2"]
    tasks = noting(notes, 6)  # t1 is mended, and one is new
    done = []
    second = run(noted, tasks, store=store, resume=True, workers=workers, progress=lambda n, *_: done.append(n))
    assert not second.interrupted and not second.failures
    assert starts(notes) == ["t0", "t1", "t1", "t2", "t3", "t4", "t5"]
    assert [float(arrays["x"][0]) for arrays in second.results.values()] == [0, 1, 2, 3, 4, 5]
    assert done == [3, 4, 5, 6]


def test_stop_kills_what_runs(notes: Path, store: Path) -> None:
    tasks = noting(notes, 3, t1={"gate": "never"}, t2={"gate": "never"})
    begin = time.monotonic()
    outcome = run(noted, tasks, workers=2, store=store, stop=lambda: len(starts(notes)) == 3)
    assert outcome.interrupted and not outcome.failures
    assert list(outcome.results) == ["t0"]
    assert time.monotonic() - begin < 10.0
    assert len(pids(notes)) == 2 and not any(alive(pid) for pid in pids(notes))


def test_damaged_files_are_done_again(notes: Path, store: Path) -> None:
    tasks = noting(notes, 5)
    whole = run(noted, tasks, store=store)
    data = (store / "t1.replica").read_bytes()
    (store / "t0.replica").write_bytes(data)  # of another task
    (store / "t1.replica").write_bytes(data[:-40])
    (store / "t2.replica").write_bytes(b"")
    (store / "t3.replica").write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    assert_same_bits(run(noted, tasks, store=store, resume=True), whole)
    assert starts(notes) == sorted(["t0", "t1", "t2", "t3"] * 2 + ["t4"])
    assert_same_bits(run(odd, tasks, store=store, resume=True), whole)


def test_another_run_is_refused(notes: Path, store: Path) -> None:
    tasks = noting(notes, 2)
    run(noted, tasks, store=store, fingerprint="one")
    with pytest.raises(CannotResumeError, match=r"store holds finished tasks of a run with other parameters"):
        run(noted, tasks, store=store, fingerprint="two", resume=True)
    assert len(starts(notes)) == 2
    run(noted, tasks[:1], store=store, fingerprint="two")  # anew
    assert [path.name for path in store.iterdir()] == ["t0.replica"]


def test_files_of_others_stay(notes: Path, store: Path) -> None:
    run(noted, noting(notes, 2), store=store)
    (store / "paper.txt").write_text("mine")
    (store / "other.replica").write_text("mine too")
    (store / ".t0.replica.0123abcd.partial.replica").write_text("half")
    run(noted, noting(notes, 1), store=store)
    assert sorted(path.name for path in store.iterdir()) == ["other.replica", "paper.txt", "t0.replica"]
    discard(store)
    assert sorted(path.name for path in store.iterdir()) == ["other.replica", "paper.txt"]
    for path in store.iterdir():
        path.unlink()
    discard(store)
    assert not store.exists()
    discard(store)


def test_two_runs_do_not_share_a_store(notes: Path, store: Path) -> None:
    def again(done: int, total: int, key: str) -> None:
        with pytest.raises(OSError, match="in use by another run"):
            run(noted, noting(notes, 1), store=store)

    assert list(run(noted, noting(notes, 1), store=store, progress=again).results) == ["t0"]


def test_failing_store_or_progress_ends_the_run(notes: Path, store: Path) -> None:
    (store / "t0.replica").mkdir(parents=True)  # cannot be replaced by a file
    with pytest.raises(OSError, match="not a regular file"):
        run(noted, noting(notes, 3, t1={"gate": "never"}), workers=2, store=store)
    assert not any(alive(pid) for pid in pids(notes))


# ---------------------------------------------------------------------------------------------------- signals


def script(notes: Path, store: Path, workers: int) -> subprocess.Popen[str]:
    """A process of its own session that runs three tasks, two of which never end."""
    code = f"""
import sys
sys.path[:0] = [{str(HERE.parent)!r}, {str(HERE.parent.parent)!r}]
from pathlib import Path
from test_replicas import noted, noting
from validation.replicas import run
tasks = noting(Path({str(notes)!r}), 3, t1={{"gate": "never"}}, t2={{"gate": "never"}})
outcome = run(noted, tasks, workers={workers}, store={str(store)!r})
print(outcome.interrupted, list(outcome.results), outcome.failures)
"""
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def session(leader: int) -> set[int]:
    """Processes of a session that still run."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    found.add(int(entry.name))
    return found


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ctrl_c(notes: Path, store: Path, workers: int) -> None:
    process = script(notes, store, workers)
    wait_until(lambda: len(starts(notes)) == workers + 1 and (store / "t0.replica").exists())
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    out, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (0, "")
    assert out == "True ['t0'] {}\n"
    wait_until(lambda: not session(process.pid), 5.0)
    (notes / "never").touch()
    outcome = run(noted, noting(notes, 3), store=store, resume=True)
    assert list(outcome.results) == ["t0", "t1", "t2"] and not outcome.interrupted
    assert len(starts(notes, "t0")) == 1


def test_workers_do_not_outlive_a_killed_parent(notes: Path, store: Path) -> None:
    process = script(notes, store, 2)
    wait_until(lambda: len(starts(notes)) == 3 and (store / "t0.replica").exists())
    process.kill()
    process.communicate(timeout=20)
    wait_until(lambda: not session(process.pid), 5.0)
    assert [path.name for path in store.iterdir()] == ["t0.replica"]


def test_handler_of_the_caller_is_left_alone(notes: Path) -> None:
    signals: list[int] = []

    def handler(number: int, frame: object) -> None:
        signals.append(number)

    old = signal.signal(signal.SIGINT, handler)
    try:
        outcome = run(noted, noting(notes, 3), progress=lambda *_: os.kill(os.getpid(), signal.SIGINT))
        assert not outcome.interrupted and len(signals) == 3
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, old)
    outcome = run(noted, noting(notes, 3), progress=lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert outcome.interrupted and list(outcome.results) == ["t0"]
    assert signal.getsignal(signal.SIGINT) is old


# ---------------------------------------------------------------------------------------------------- dask


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    distributed = pytest.importorskip("distributed")
    import dask

    settings = {"distributed.scheduler.allowed-failures": 1, "distributed.worker.daemon": True}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
        ) as cluster,
    ):
        yield cluster.scheduler_address


def test_dask_gives_the_same_bits(scheduler: str, reference: Outcome, store: Path) -> None:
    assert_same_bits(run(numbers, tasks_of(5), dask=scheduler, store=store), reference)
    assert_same_bits(run(odd, tasks_of(5), dask="tcp://no-such-host:1", store=store, resume=True), reference)


def test_dask_failures(scheduler: str, notes: Path) -> None:
    tasks = noting(notes, 5, t0={"gate": "open"}, t1={"deaths": 9}, t2={"error": True}, t4={"opens": "open"})
    outcome = run(noted, tasks, dask=scheduler)
    assert list(outcome.results) == ["t0", "t3", "t4"] and not outcome.interrupted
    assert outcome.failures == {
        "t1": "2 workers of the cluster died while they ran it, perhaps because they were out of memory",
        "t2": "ValueError: no such number",
    }
    assert starts(notes) == ["t0", "t1", "t1", "t2", "t3", "t4"]


def test_dask_stop(scheduler: str, notes: Path) -> None:
    tasks = noting(notes, 4, t1={"gate": "open"}, t2={"gate": "open"})
    outcome = run(noted, tasks, dask=scheduler, stop=lambda: len(starts(notes)) == 3)
    (notes / "open").touch()
    assert outcome.interrupted and not outcome.failures
    assert list(outcome.results) == ["t0"]
    assert starts(notes) == ["t0", "t1", "t2"]


def test_dask_lost_scheduler(notes: Path, store: Path) -> None:
    pytest.importorskip("distributed")
    code = (
        "import time\nfrom distributed import LocalCluster\nif __name__ == '__main__':\n"
        "    options = dict(processes=False, protocol='tcp', dashboard_address=':0')\n"
        "    c = LocalCluster(n_workers=1, threads_per_worker=1, **options)\n"
        "    print(c.scheduler_address, flush=True)\n    time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE.parent.parent)])}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment, cwd=notes
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    try:
        tasks = noting(notes, 2, t1={"gate": "open"})
        killed = False

        def kill() -> bool:
            nonlocal killed
            if len(starts(notes)) == 2 and not killed:
                killed = True
                process.kill()
            return False

        outcome = run(noted, tasks, dask=address, store=store, stop=kill)
    finally:
        process.kill()
        process.communicate()
    assert outcome.interrupted and list(outcome.results) == ["t0"]
    assert "was lost" in outcome.failures["t1"]
    assert [path.name for path in store.iterdir()] == ["t0.replica"]


def test_unreachable_scheduler_is_said_and_nothing_is_lost(
    notes: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(replicas, "_CONNECT", 1.0)
    run(noted, noting(notes, 2), store=store)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer there
        with pytest.raises(OSError, match="no dask scheduler answers at 'tcp:"):
            run(noted, noting(notes, 2), dask=f"tcp://127.0.0.1:{taken.getsockname()[1]}", store=store)
    with pytest.raises(OSError, match="no dask scheduler answers at 'nonsense'"):
        run(noted, noting(notes, 2), dask="nonsense")
    assert sorted(path.name for path in store.iterdir()) == ["t0.replica", "t1.replica"]


def test_missing_dask_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "distributed":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"install twolayer-dmft\[cluster\]"):
        run(numbers, tasks_of(1), dask="tcp://127.0.0.1:1")
