"""Independent tasks on processes of this machine or on a dask cluster, with the same bits wherever they run.

A task is a key and a small payload; one picklable function turns the payload into arrays. The result depends on the
payload only: every call runs with BLAS and OpenMP limited to one thread, and nothing is added up across tasks here, so
that neither the number of workers nor the order in which tasks finish can change a bit.

Finished tasks are written to a directory at once, one file each, so that an interrupted run goes on with the rest:

    <store>/<key>.replica:  twolayer-dmft replica 1 <sha256 of what follows>
                            {"arrays": [...], "fingerprint": "...", "key": "..."}
                            the arrays, as npz
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import fcntl
import hashlib
import io
import json
import multiprocessing.resource_tracker
import os
import pickle
import re
import secrets
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from os import PathLike
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import cloudpickle
import numpy as np
from joblib.externals.loky.backend import get_context
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dmft._validate import integer, shown
from dmft.files import atomic_write
from solvers.base import CannotResumeError

Arrays = dict[str, NDArray[Any]]
Function = Callable[[Any], Mapping[str, Any]]

FORMAT = 1
_MAGIC = f"twolayer-dmft replica {FORMAT} ".encode()
_SUFFIX = ".replica"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,150}")
_PARTIAL = re.compile(r"\..+\.replica\.[0-9a-f]{8}\.partial\.replica")  # as dmft.files.atomic_path names them

_POLL = 0.1  # seconds between two looks at signals and at `stop`
_GRACE = 2.0  # seconds for a worker to end after its pipe has closed
_CONNECT = 5.0  # seconds to wait for a dask scheduler
_RECOUNT = 2.0  # seconds between two counts of the threads of the cluster
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Task:
    """One independent piece of work.

    Attributes
    ----------
    key : str
        Unique in its run, and a file name: letters, digits and ``._+=-``, at most 151 of them, the first one a letter
        or a digit.
    payload : object
        The argument of the function: picklable and small. What the result depends on, seeds included, is in here.
    """

    key: str
    payload: Any


@dataclass(frozen=True)
class Outcome:
    """What became of the tasks.

    Attributes
    ----------
    results : dict of dict of ndarray
        The arrays of the finished tasks by key, in the order of the tasks.
    failures : dict of str
        For each task that failed, one sentence that says why, in the order of the tasks.
    interrupted : bool
        The run was stopped before its end; tasks that are in neither dictionary have not been finished.
    """

    results: dict[str, Arrays]
    failures: dict[str, str]
    interrupted: bool


_Reply = Arrays | str  # what comes back for a task: its arrays, or why it failed


def run(
    function: Function,
    tasks: Iterable[Task],
    *,
    workers: int = 1,
    dask: str | None = None,
    store: str | PathLike[str] | None = None,
    resume: bool = False,
    fingerprint: str = "",
    progress: Callable[[int, int, str], None] | None = None,
    attempts: int = 3,
    stop: Callable[[], bool] | None = None,
) -> Outcome:
    """Call ``function`` on the payload of every task.

    Parameters
    ----------
    function : callable
        Takes a payload and returns a dictionary of arrays. An exception in it fails that task, and the others go on.
    tasks : iterable of Task
        Their keys are unique.
    workers : int
        Processes of this machine. With 1 the tasks run in this process, one after another. A process that dies costs
        the task that it was running, which is run again; the other processes do not notice. Not used with ``dask``.
    dask : str, optional
        Address of a running ``dask.distributed`` scheduler, such as "tcp://host:8786". Its workers need this package
        installed; one task at a time goes to each of their threads, and they keep BLAS at one thread from then on. How
        many workers may die of one task is the scheduler's setting ``allowed-failures``. It also gives up a worker that
        does not answer for its ``worker-ttl`` of five minutes, so compiled code that runs longer must release the GIL.
    store : path, optional
        Directory to which every finished task is written at once. It is made if need be, and is of use to later runs
        until `discard` removes what was written there.
    resume : bool
        Take from the store what is there already; damaged files are ignored, and failed tasks are run again. Otherwise
        what earlier runs left in the store is removed first; files of others stay.
    fingerprint : str
        Says what the results depend on besides the keys, for example a hash of all parameters. A run resumes only from
        a store with its own fingerprint.
    progress : callable, optional
        Called with the number of settled tasks (stored and failed ones included), the number of tasks and the key,
        after each task and always from the thread that called this function.
    attempts : int
        How many processes of this machine may die of one task before it is given up.
    stop : callable, optional
        Asked again and again, about ten times a second (in this process: between two tasks); True interrupts the run.

    Returns
    -------
    Outcome
        An interruption, by Ctrl-C or ``stop``, ends in a return too, with what is finished. Processes of this machine
        are then killed; tasks that run on a cluster end there unheard. A scheduler that is lost interrupts the run,
        and the tasks it had are failures. A handler of SIGINT that the caller has set is
        left alone, and a KeyboardInterrupt that it raises is an interruption as well.

    Raises
    ------
    TypeError, ValueError
        If an argument is bad, such as a key that is used twice, or ``dask`` is given and the package is missing.
    CannotResumeError
        If the store belongs to a run with another fingerprint.
    OSError
        If the scheduler cannot be reached or the store cannot be written or is in use by another run. What is in the
        store already stays there.
    """
    tasks = tuple(tasks)
    _check(function, tasks, fingerprint)
    workers = integer("workers", workers, low=1)
    attempts = integer("attempts", attempts, low=1)
    results: dict[str, Arrays] = {}
    failures: dict[str, str] = {}
    stopped, lost = False, ""

    with contextlib.ExitStack() as stack:
        interrupt = stack.enter_context(_Interrupt())
        files = None if store is None else stack.enter_context(_Store(Path(store), fingerprint))
        if files is not None and resume:
            results = files.read(task.key for task in tasks)
        waiting = deque(task for task in tasks if task.key not in results)
        pool: _Pool
        if dask is not None and waiting:
            pool = _Cluster(function, dask)
        elif workers > 1 and waiting:
            pool = _Processes(function, min(workers, len(waiting)), attempts)
        else:
            pool = _InProcess(function, interrupt)
        stack.callback(pool.close)
        if files is not None and not resume:
            files.clear()  # only now that nothing stands in the way of new results

        def settle(task: Task, reply: _Reply) -> None:
            if isinstance(reply, str):
                failures[task.key] = reply
            else:
                results[task.key] = reply
                if files is not None:
                    files.write(task.key, reply)
            if progress is not None:
                progress(len(results) + len(failures), len(tasks), task.key)

        try:
            while waiting or pool.running():
                stopped = interrupt.seen or (stop is not None and bool(stop()))
                if stopped:
                    break
                while waiting and pool.free():
                    pool.submit(waiting.popleft())
                for task, reply in pool.replies(_POLL):
                    settle(task, reply)
        except KeyboardInterrupt:
            stopped = True
        except _ClusterLostError as error:
            lost, stopped = str(error), True
        stopped = stopped or interrupt.seen
        if stopped and not isinstance(pool, _InProcess):
            with contextlib.suppress(_ClusterLostError):
                for task, reply in pool.replies(0.0):  # finished in the meantime
                    settle(task, reply)
        if lost:
            failures.update((task.key, lost) for task in pool.running())

    return Outcome(
        results={task.key: results[task.key] for task in tasks if task.key in results},
        failures={task.key: failures[task.key] for task in tasks if task.key in failures},
        interrupted=stopped,
    )


def discard(store: str | PathLike[str]) -> None:
    """Remove what `run` has written to a store, and the directory if that leaves it empty.

    Parameters
    ----------
    store : path
        Need not exist. Files that `run` has not written stay.

    Raises
    ------
    OSError
        If a file cannot be removed, or ``store`` is not a directory.
    """
    directory = Path(store)
    with contextlib.suppress(FileNotFoundError):
        for path in _written_by_us(directory):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


def _check(function: Function, tasks: tuple[Task, ...], fingerprint: str) -> None:
    if not callable(function):
        raise TypeError(f"function must be callable, not {shown(function)}.")
    if not isinstance(fingerprint, str):
        raise TypeError(f"fingerprint must be text, not {shown(fingerprint)}.")
    seen: set[str] = set()
    for task in tasks:
        if not isinstance(task.key, str) or not _KEY.fullmatch(task.key):
            raise ValueError(
                "the key of a task must be letters, digits and ._+=- only, begin with a letter or a digit and have at "
                f"most 151 of them, not {shown(task.key)}."
            )
        if task.key in seen:
            raise ValueError(f"the key of a task must be unique, and {shown(task.key)} is used twice.")
        seen.add(task.key)


# ---------------------------------------------------------------------------------------------------- one task


def _call(blob: bytes) -> _Reply:
    """Unpickle a function with its payload and call it: what runs in a worker.

    The limit stays after the call. Taking it back would be wrong in a dask worker with several threads: the first
    task to end would give threads to the BLAS calls of the others.
    """
    try:
        function, payload = map(pickle.loads, pickle.loads(blob))
    except Exception as error:
        return (
            f"the task cannot be unpickled in the worker ({_sentence(error)}); workers need this package, and whatever "
            "else the task is made of, installed in the same version"
        )
    import scipy.linalg  # noqa: F401 - as in _call_here

    threadpool_limits(limits=1)
    return _evaluate(function, payload)


def _call_here(function: Function, payload: Any) -> _Reply:
    """Call the function in this process, which gets its threads back afterwards."""
    # Only libraries that are loaded can be limited, and compiled code calls the BLAS that SciPy brings.
    import scipy.linalg  # noqa: F401

    with threadpool_limits(limits=1):
        return _evaluate(function, payload)


def _evaluate(function: Function, payload: Any) -> _Reply:
    try:
        returned = function(payload)
    except (Exception, SystemExit) as error:
        return _sentence(error)
    if not isinstance(returned, Mapping) or not all(isinstance(name, str) for name in returned):
        return f"the function returned {shown(returned)} and not a dictionary of arrays"
    arrays = {}
    for name, value in returned.items():
        try:
            arrays[name] = np.array(value, order="C")  # a copy: the function may use its buffers again
        except ValueError:  # a ragged nest
            return f"the function returned {shown(value)} as {name}, which is not an array of numbers"
        if arrays[name].dtype.hasobject:
            return f"the function returned {shown(value)} as {name}, which is not an array of numbers"
    return arrays


def _sentence(error: BaseException) -> str:
    """Type and message of an exception on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _Pickler:
    """Function and payload as bytes, so that a worker can say in words why it cannot unpickle them.

    Raises
    ------
    TypeError
        If the function, or later a payload, cannot be pickled.
    """

    def __init__(self, function: Function) -> None:
        # By value where it cannot be imported elsewhere, as in a script or a notebook.
        self._function = self._bytes("function", function)

    def task(self, task: Task) -> bytes:
        """What `_call` takes."""
        return pickle.dumps((self._function, self._bytes(f"the payload of task {task.key}", task.payload)))

    @staticmethod
    def _bytes(name: str, value: object) -> bytes:
        try:
            return bytes(cloudpickle.dumps(value))
        except Exception as error:
            raise TypeError(f"{name} must be picklable to run in another process ({_sentence(error)}).") from None


# ---------------------------------------------------------------------------------------------------- where tasks run


class _Pool(Protocol):
    """A place where tasks run. All methods are called from one thread."""

    def running(self) -> list[Task]:
        """Tasks that were submitted and whose reply has not come back."""

    def free(self) -> bool:
        """Whether one more task would run at once."""

    def submit(self, task: Task) -> None:
        """Start a task; only if `free`."""

    def replies(self, seconds: float) -> Iterator[tuple[Task, _Reply]]:
        """What has come back; waits up to so many seconds if there is nothing yet."""

    def close(self) -> None:
        """Stop whatever runs, at once."""


class _InProcess:
    """The calling process, one task at a time."""

    def __init__(self, function: Function, interrupt: _Interrupt) -> None:
        self._function = function
        self._interrupt = interrupt
        self._task: Task | None = None

    def running(self) -> list[Task]:
        return [] if self._task is None else [self._task]

    def free(self) -> bool:
        return self._task is None

    def submit(self, task: Task) -> None:
        self._task = task

    def replies(self, seconds: float) -> Iterator[tuple[Task, _Reply]]:
        task, self._task = self._task, None
        if task is not None:
            with self._interrupt.at_once():
                reply = _call_here(self._function, task.payload)
            yield task, reply

    def close(self) -> None:
        pass


@dataclass(eq=False)
class _Slot:
    """One worker process, replaced when it dies, and the task that it runs."""

    process: Any = None
    connection: Connection | None = None
    task: Task | None = None
    blob: bytes = b""
    deaths: int = field(default=0)  # of processes that ran the present task


class _Processes:
    """Processes of this machine, each with a pipe of its own.

    An executor with several workers breaks as a whole when one of them dies, and so loses the tasks of all. Here
    nothing is shared between the processes: the death of one is the end of file on one pipe.
    """

    def __init__(self, function: Function, workers: int, attempts: int) -> None:
        self._pickle = _Pickler(function)
        self._attempts = attempts
        self._slots = [_Slot() for _ in range(workers)]

    def running(self) -> list[Task]:
        return [slot.task for slot in self._slots if slot.task is not None]

    def free(self) -> bool:
        return any(slot.task is None for slot in self._slots)

    def submit(self, task: Task) -> None:
        slot = next(slot for slot in self._slots if slot.task is None)
        slot.task, slot.blob, slot.deaths = task, self._pickle.task(task), 0
        self._send(slot)

    def replies(self, seconds: float) -> Iterator[tuple[Task, _Reply]]:
        pipes = {slot.connection: slot for slot in self._slots if slot.task is not None and slot.connection is not None}
        for ready in wait(list(pipes), timeout=seconds):
            assert isinstance(ready, Connection)
            slot = pipes[ready]
            task = slot.task
            assert task is not None
            try:
                reply: _Reply = ready.recv()
            except (EOFError, OSError):
                slot.deaths += 1
                end = self._end(slot)
                if slot.deaths < self._attempts:
                    self._send(slot)
                    continue
                reply = _death(slot.deaths, end)
            slot.task, slot.blob = None, b""
            yield task, reply

    def close(self) -> None:
        for slot in self._slots:
            if slot.process is not None and slot.process.is_alive():
                os.kill(slot.process.pid, signal.SIGKILL)
        for slot in self._slots:
            self._end(slot)

    def _send(self, slot: _Slot) -> None:
        if slot.process is not None and not slot.process.is_alive():
            self._end(slot)  # died idle, which is no fault of the next task
        if slot.process is None:
            self._start(slot)
        assert slot.connection is not None
        with contextlib.suppress(OSError):  # died just now: `replies` meets the end of file
            slot.connection.send_bytes(slot.blob)

    def _start(self, slot: _Slot) -> None:
        """Start a process by exec, never by a mere fork, which would copy locks held by threads of this process."""
        ours, theirs = Pipe()
        try:
            # A daemon in the sense of multiprocessing: not waited for when the interpreter exits.
            process = get_context("loky").Process(
                target=_serve, args=(theirs, os.getpid()), daemon=True, env=_ONE_THREAD
            )
            # Ctrl-C in a terminal goes to the workers too; it is blocked until they can ignore it. The helper processes
            # that the first start brings along would unblock it again.
            multiprocessing.resource_tracker.ensure_running()
            loky_tracker.ensure_running()
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()  # so that the end of the process is the end of file
        slot.process, slot.connection = process, ours

    @staticmethod
    def _end(slot: _Slot) -> int | None:
        """Take leave of a process that is dead or dying; returns its exit code."""
        if slot.process is None:
            return None
        if slot.connection is not None:
            slot.connection.close()
        slot.process.join(_GRACE)
        if slot.process.is_alive():  # threads of the task keep it
            os.kill(slot.process.pid, signal.SIGKILL)
            slot.process.join()
        code: int | None = slot.process.exitcode
        slot.process = slot.connection = None
        return code


def _serve(connection: Connection, parent: int) -> None:
    """Answer calls until the other end of the pipe is closed: the life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    faulthandler.enable()  # says where a segmentation fault happened
    _die_with(parent)
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(_call(connection.recv_bytes()))


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone, however the parent ended."""
    with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere the worker ends with its task
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before
        os._exit(1)


def _death(times: int, code: int | None) -> str:
    often = "once" if times == 1 else f"{times} times"
    if code is None or code >= 0:
        return f"its process ended {often} before the task did, last with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    reason = ", perhaps because it was out of memory" if -code == signal.SIGKILL else ""
    return f"its process was killed {often}, last by {name}{reason}"


class _ClusterLostError(Exception):
    """The scheduler has gone, or has dropped the tasks."""


class _Cluster:
    """The threads of the workers of a dask scheduler.

    No more tasks are handed out than there are threads. Tasks that merely queue on a worker when it dies would be
    blamed for its death as well.
    """

    def __init__(self, function: Function, address: str) -> None:
        try:
            import distributed
        except ImportError:
            raise ValueError(
                "to run on dask the package distributed is needed; install twolayer-dmft[cluster], or dask[distributed]"
            ) from None
        self._pickle = _Pickler(function)
        self._address = address
        self._killed_worker = distributed.KilledWorker
        try:
            self._client: Any = distributed.Client(address, timeout=_CONNECT, set_as_default=False)
        except Exception as error:  # by address: OSError, ValueError, and what TLS and wrong protocols make of it
            raise OSError(
                f"no dask scheduler answers at {shown(address)} ({_sentence(error)}); start one with "
                "`dask scheduler` and workers with `dask worker`, and give its address, such as tcp://host:8786"
            ) from None
        self._calls: list[tuple[Task, Any]] = []
        self._prefix = f"replica-{secrets.token_hex(8)}"  # runs that share a scheduler do not share results
        self._threads = 0
        self._counted = -_RECOUNT

    def running(self) -> list[Task]:
        return [task for task, _ in self._calls]

    def free(self) -> bool:
        now = time.monotonic()
        if now - self._counted > _RECOUNT:  # workers come and go
            self._check()
            try:
                self._threads = sum(self._client.nthreads().values())
            except OSError as error:
                raise self._lost(_sentence(error)) from None
            self._counted = now
        return len(self._calls) < self._threads

    def submit(self, task: Task) -> None:
        self._check()
        key = f"{self._prefix}-{task.key}"
        self._calls.append((task, self._client.submit(_call, self._pickle.task(task), key=key, pure=False)))

    def replies(self, seconds: float) -> Iterator[tuple[Task, _Reply]]:
        end = time.monotonic() + seconds
        while not (done := [call for call in self._calls if call[1].done()]):
            self._check()
            if time.monotonic() >= end:
                return
            time.sleep(min(0.02, seconds))
        for call in done:
            task, future = call
            if future.status in ("cancelled", "lost"):
                raise self._lost("it has dropped the tasks")
            try:
                reply: _Reply = future.result(timeout=_CONNECT)
            except TimeoutError:  # the worker went down with the result, and the scheduler has the task run again
                continue
            except self._killed_worker as error:
                reply = (
                    f"{error.allowed_failures + 1} workers of the cluster died while they ran it, perhaps because they "
                    "were out of memory"
                )
            except Exception as error:
                self._check()
                reply = (
                    f"the cluster could not run it ({_sentence(error)}); scheduler and workers need this package "
                    "installed in the same version"
                )
            self._calls = [other for other in self._calls if other is not call]
            yield task, reply

    def close(self) -> None:
        with contextlib.suppress(Exception):  # a scheduler that is gone
            if self._calls and self._client.status == "running":
                self._client.cancel([future for _, future in self._calls], force=True)
        with contextlib.suppress(Exception):
            self._client.close(timeout=_CONNECT)

    def _check(self) -> None:
        if self._client.status != "running":
            raise self._lost("the connection broke")

    def _lost(self, reason: str) -> _ClusterLostError:
        return _ClusterLostError(f"the dask scheduler at {self._address} was lost ({reason})")


class _Interrupt:
    """Ctrl-C as a flag, so that it strikes between two steps of the bookkeeping and not within one.

    It acts in the main thread only, and only in place of Python's own handler.
    """

    def __init__(self) -> None:
        self.seen = False
        self._raises = False
        self._installed = False

    def __enter__(self) -> _Interrupt:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Let the signal raise KeyboardInterrupt within the block: a task may take hours."""
        if self.seen:
            raise KeyboardInterrupt
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        if self._raises:
            raise KeyboardInterrupt


# ---------------------------------------------------------------------------------------------------- the store


class _Store:
    """Finished tasks in a directory, which one run at a time may use.

    Parameters
    ----------
    directory : Path
        Made when entered, and removed when left if it was made and is empty.
    fingerprint : str
        Of this run.
    """

    def __init__(self, directory: Path, fingerprint: str) -> None:
        self._directory = directory
        self._fingerprint = fingerprint
        self._made = False
        self._lock = -1

    def __enter__(self) -> _Store:
        self._made = not self._directory.exists()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(f"{self._directory} is to hold finished tasks and is not a directory") from None
        self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(self._lock)
                raise OSError(f"{self._directory} is in use by another run") from None
            # Some network file systems cannot lock; then nothing stops the user from running twice.
        return self

    def __exit__(self, *_: object) -> None:
        if self._made:
            with contextlib.suppress(OSError):  # not empty
                self._directory.rmdir()
        os.close(self._lock)

    def read(self, keys: Iterable[str]) -> dict[str, Arrays]:
        """The finished ones of these tasks; damaged files count as absent.

        Raises
        ------
        CannotResumeError
            If anything in the store was written by a run with another fingerprint.
        """
        wanted = set(keys)
        found = {}
        for path in _written_by_us(self._directory):
            stored = _read(path)
            if stored is None:
                continue
            key, fingerprint, arrays = stored
            if fingerprint != self._fingerprint:
                raise CannotResumeError(
                    f"{self._directory} holds finished tasks of a run with other parameters; repeat those, or start "
                    "anew without resuming"
                )
            if key in wanted and path.name == key + _SUFFIX:
                found[key] = arrays
        return found

    def write(self, key: str, arrays: Arrays) -> None:
        """Write one finished task, whole or not at all."""
        record = {"arrays": list(arrays), "fingerprint": self._fingerprint, "key": key}
        stream = io.BytesIO()
        stream.write(json.dumps(record, sort_keys=True).encode() + b"\n")
        np.savez(stream, *arrays.values())
        body = stream.getvalue()
        head = _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n"
        atomic_write(self._directory / (key + _SUFFIX), head + body)

    def clear(self) -> None:
        """Remove what earlier runs wrote."""
        for path in _written_by_us(self._directory):
            path.unlink(missing_ok=True)


def _written_by_us(directory: Path) -> list[Path]:
    """The files that this module wrote, half-written ones of killed processes included."""
    found = []
    for path in sorted(directory.iterdir()):
        if not path.name.endswith(_SUFFIX) or path.is_symlink() or not path.is_file():
            continue
        if _PARTIAL.fullmatch(path.name):
            found.append(path)
            continue
        with contextlib.suppress(OSError), open(path, "rb") as stream:
            if stream.read(len(_MAGIC)) == _MAGIC:
                found.append(path)
    return found


def _read(path: Path) -> tuple[str, str, Arrays] | None:
    """Key, fingerprint and arrays of a stored task; None if the file is damaged."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        if head != _MAGIC + hashlib.sha256(body).hexdigest().encode():
            return None
        line, _, data = body.partition(b"\n")
        record = json.loads(line)
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[f"arr_{i}"] for i, name in enumerate(record["arrays"])}
    except OSError:
        return None
    return record["key"], record["fingerprint"], arrays
