"""Solved points: one run each, reduced to the few numbers that the extrapolations need."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmft.problems import Problem

if TYPE_CHECKING:
    from dmft.solution import Solution

FloatArray = NDArray[np.float64]

RELAXED = 1e-7
"""e_tr over tau^2 at which the relaxation time is read ([MU] section F)."""
INTERPOLATED = 1e-9
"""2 e_tr over tau^2 at which the fall to zero has become an exponential."""
MAX_ROWS = 500
"""Few enough that the engine does not thin its history: later rows cost more, and are less accurate."""
SAMPLES = 60
"""Points kept of one curve r(path), equidistant in the logarithm."""
SCHEMA = 2


@dataclass(frozen=True, kw_only=True)
class Task:
    """One run to be done.

    Attributes
    ----------
    problem : Problem
        What to solve.
    t_final, rtol : float
        As for `dmft.solve`.
    offset : float
        tau^2 + |phi|^2, the unit of the errors.
    time_scale : float
        Unit of the path.
    """

    problem: Problem
    t_final: float
    rtol: float
    offset: float
    time_scale: float

    def key(self) -> dict[str, Any]:
        """Canonical form, which names and guards a kept run."""
        numbers = {name: getattr(self, name) for name in ("t_final", "rtol", "offset", "time_scale")}
        return {"schema": SCHEMA, "max_rows": MAX_ROWS, "problem": self.problem.to_dict(), **numbers}


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One run, reduced. With r = sqrt(2 e_tr/(tau^2 + |phi|^2)), the path is int r dt in units of the time scale.

    Attributes
    ----------
    status, message : str
        How the run ended.
    interpolates : bool
        Whether 2 e_tr fell below 1e-9 (tau^2 + |phi|^2).
    t_end : float
        Time reached.
    train_error : float
        e_tr there.
    relaxation_time : float or None
        First time of e_tr < 1e-7 (tau^2 + |phi|^2).
    gap : float or None
        Late rate -d ln r/dt, in units of 1/time scale.
    length : float or None
        Path up to interpolation.
    path, residual : tuple of float
        The curve r(path), from a path of 0.03 to interpolation or to the end.
    rows : int
        Work done.
    wall_time : float
        Seconds.
    """

    status: str
    message: str
    interpolates: bool
    t_end: float
    train_error: float
    relaxation_time: float | None
    gap: float | None
    length: float | None
    path: tuple[float, ...]
    residual: tuple[float, ...]
    rows: int
    wall_time: float


def solve_point(task: Task) -> Trace:
    """Solve one problem and reduce it.

    Raises
    ------
    KeyboardInterrupt
        When a signal stopped the run.
    """
    from threadpoolctl import threadpool_limits

    from dmft.status import Status
    from solvers import solve

    with threadpool_limits(limits=1):  # the matrices are tiny, and other points run beside this one
        solution = solve(task.problem, task.t_final, rtol=task.rtol, max_rows=MAX_ROWS)
    if solution.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    return reduce(solution, task)


def reduce(solution: Solution, task: Task) -> Trace:
    """A solution as a `Trace`."""
    from scipy.interpolate import CubicSpline

    errors = 2.0 * np.asarray(solution.train_error) / task.offset
    below = np.flatnonzero(errors < INTERPOLATED)
    interpolates = len(below) > 0
    last = int(below[0]) + 1 if interpolates else len(errors)
    t = np.asarray(solution.t)[:last] / task.time_scale
    # The row that arrives may overshoot zero by rounding; nothing below depends on how far.
    r = np.sqrt(np.maximum(errors[:last], 1e-14))
    path = CubicSpline(t, r).antiderivative()(t)
    rising = np.concatenate([[True], path[1:] > np.maximum.accumulate(path)[:-1]])
    curve = CubicSpline(path[rising], r[rising])
    grid = np.geomspace(min(0.03, 0.1 * path[-1]), path[-1], SAMPLES)
    relaxed = np.flatnonzero(errors < 2.0 * RELAXED)
    relaxation_time = gap = None
    if len(relaxed):
        relaxation_time = float(_crossing(solution.t, errors, int(relaxed[0]), 2.0 * RELAXED))
    if interpolates:
        late = np.flatnonzero((r < np.sqrt(100.0 * INTERPOLATED)) & (r > 1.1e-7))
        late = late if len(late) > 2 else np.arange(max(0, last - 3), last)
        gap = float(-np.polyfit(t[late], np.log(r[late]), 1)[0])
    return Trace(
        status=solution.status.value,
        message=solution.message,
        interpolates=interpolates,
        t_end=float(solution.t[-1]),
        train_error=float(solution.train_error[-1]),
        relaxation_time=relaxation_time,
        gap=gap,
        # The tail beyond the last row is exponential.
        length=float(path[-1] + r[-1] / gap) if gap is not None else None,
        path=tuple(grid.tolist()),
        residual=tuple(np.asarray(curve(grid)).tolist()),
        rows=solution.stats.rows,
        wall_time=solution.stats.wall_time,
    )


def _crossing(t: Any, errors: FloatArray, row: int, level: float) -> float:
    """Time at which the error passes the level before ``row``; ln(error) is straight on its way to zero."""
    if row == 0:
        return 0.0
    high, low = np.log(errors[row - 1]), np.log(max(errors[row], 1e-300))
    return float(t[row - 1] + (t[row] - t[row - 1]) * (high - np.log(level)) / (high - low))


class Runner:
    """Runs tasks, some at a time, and keeps what is done.

    Parameters
    ----------
    workers : int
        Processes.
    directory : path, optional
        Where finished runs are kept, one JSON file each, and found again.
    progress : callable, optional
        Called after every run with the number done and a sentence.
    """

    def __init__(
        self, workers: int, directory: Path | None, progress: Callable[[int, str], None] | None = None
    ) -> None:
        self.workers = workers
        self.directory = directory
        self.progress = progress
        self.done = 0
        self.wall_time = 0.0
        self._known: dict[str, Trace] = {}
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)

    def run(self, tasks: Sequence[Task]) -> list[Trace]:
        """Traces of the tasks, in their order, whatever the number of workers."""
        names = [_name(task) for task in tasks]
        for name, task in zip(names, tasks, strict=True):
            if name not in self._known and (kept := self._read(name, task)) is not None:
                self._known[name] = kept
                self._tell(kept, "kept")
        missing = {name: task for name, task in zip(names, tasks, strict=True) if name not in self._known}
        for name, trace in self._solve(missing):
            self._known[name] = trace
            self.wall_time += trace.wall_time
            self._write(name, missing[name], trace)
            self._tell(trace, "solved")
        return [self._known[name] for name in names]

    def _solve(self, tasks: dict[str, Task]) -> Iterator[tuple[str, Trace]]:
        if self.workers == 1 or len(tasks) < 2:
            for name, task in tasks.items():
                yield name, solve_point(task)
            return
        from joblib import Parallel, delayed

        parallel = Parallel(n_jobs=self.workers, backend="loky", return_as="generator_unordered")
        yield from parallel(delayed(_named)(name, task) for name, task in tasks.items())

    def _tell(self, trace: Trace, how: str) -> None:
        self.done += 1
        if self.progress is not None:
            if trace.interpolates and trace.relaxation_time is not None:
                what = f"interpolated, t_rel = {trace.relaxation_time:.4g}"
            else:
                what = f"e_tr = {trace.train_error:.4g} at t = {trace.t_end:.3g}"
            self.progress(self.done, f"{how} in {trace.rows} rows: {what}")

    def _read(self, name: str, task: Task) -> Trace | None:
        if self.directory is None:
            return None
        try:
            data = json.loads((self.directory / f"{name}.json").read_text())
            if data["task"] != task.key():
                return None
            trace = data["trace"]
            return Trace(**{**trace, "path": tuple(trace["path"]), "residual": tuple(trace["residual"])})
        except (OSError, ValueError, KeyError, TypeError):  # missing, or not ours: solved again
            return None

    def _write(self, name: str, task: Task, trace: Trace) -> None:
        from dmft.files import atomic_write

        if self.directory is not None:
            data = json.dumps({"task": task.key(), "trace": asdict(trace)})
            atomic_write(self.directory / f"{name}.json", (data + "\n").encode())


def _name(task: Task) -> str:
    return hashlib.sha256(json.dumps(task.key(), sort_keys=True).encode()).hexdigest()[:20]


def _named(name: str, task: Task) -> tuple[str, Trace]:
    return name, solve_point(task)
