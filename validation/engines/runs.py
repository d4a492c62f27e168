"""Runs of many problems in a few processes, each kept in a file of its own when it is finished."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import dmft
import solvers
from dmft.activations import Activation
from dmft.files import atomic_write
from dmft.problems import PSpinProblem, SymmetricProblem, from_dict
from dmft.problems.base import Problem
from dmft.solution import Solution
from dmft.targets import Target
from dmft.verification import Verification
from solvers.verification import plan

SHORT = 2.0
"""Runs that take less than so many seconds are timed as the shortest of `REPEATS`, where time is what matters."""
REPEATS = 3


@dataclass(frozen=True)
class Run:
    """A problem, and how it is solved.

    Attributes
    ----------
    name : str
    problem : Problem
    t_final, rtol : float
    method : str
        As of `dmft.solve`.
    verify : bool
        Whether a second run checks it; otherwise only the time that it takes is wanted, and short runs are repeated.
    """

    name: str
    problem: Problem
    t_final: float
    rtol: float
    method: str = "bdf"
    verify: bool = False

    def key(self) -> dict[str, Any]:
        """What the record of a run depends on: all of this, and the code that solves."""
        return {
            "problem": self.problem.to_dict(),
            "t_final": self.t_final,
            "rtol": self.rtol,
            "method": self.method,
            "check": list(plan(self.problem, self.method, self.rtol)) if self.verify else None,
            "code": code_digest(),
        }


@cache
def code_digest() -> str:
    """Digest of the sources that solve and compare: numbers of one table belong to one version.

    The iterations of `solvers.descent` have no part in them.
    """
    package = Path(solvers.__file__).parent
    engines = sorted(path for path in package.rglob("*.py") if "descent" not in path.relative_to(package).parts)
    package = Path(dmft.__file__).parent
    equations = [package / name for name in ("equations.py", "formulation.py", "interpolation.py", "verification.py")]
    return source_digest([*engines, *equations])


def source_digest(paths: Iterable[Path]) -> str:
    """Digest of files, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def run_all(
    runs: Sequence[Run], directory: Path, workers: int = 1, tell: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Solve all that are not in the directory yet.

    Parameters
    ----------
    runs : sequence of Run
        With different names.
    directory : path
        Where their records are kept; made if missing.
    workers : int
        Processes; times of runs are those of a machine so occupied.
    tell : callable
        Called with a line for each run that is finished.

    Returns
    -------
    list of dict
        A record of each, in their order: ``name``, ``key``, ``method``, ``t``, ``rows``, ``wall_time``, ``load`` (of
        the machine when it began), ``status``, ``message``, and ``verification``, None where it was not asked for.

    Raises
    ------
    KeyboardInterrupt
        When interrupted; what is finished is kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    found = {run.name: _read(run, directory) for run in runs}
    missing = [run for run in runs if found[run.name] is None]
    done = len(runs) - len(missing)
    if done:
        tell(f"{done} of {len(runs)} runs were there already")
    for record in _solved(missing, directory, workers):
        done += 1
        found[record["name"]] = record
        tell(f"[{done}/{len(runs)}] {record['name']}: {record['wall_time']:.2f} s, {_outcome(record)}")
    return [record for record in found.values() if record is not None]


def _outcome(record: dict[str, Any]) -> str:
    if record.get("verification") is None:
        return f"{record['method']}, {record['status']}"
    return Verification.from_dict(record["verification"]).verdict


def _solved(runs: list[Run], directory: Path, workers: int) -> Iterator[dict[str, Any]]:
    tasks = [(run.name, run.problem.to_dict(), run.t_final, run.rtol, run.method, run.verify) for run in runs]
    if workers == 1 or len(runs) < 2:
        for task in tasks:
            yield solve_one(*task, directory)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered")
    yield from parallel(delayed(solve_one)(*task, directory) for task in tasks)


def solve_one(
    name: str, problem: dict[str, Any], t_final: float, rtol: float, method: str, verify: bool, directory: Path
) -> dict[str, Any]:
    """Solve one problem in this process and keep its record."""
    run = Run(name, from_dict(problem), t_final, rtol, method, verify)
    _warm_up()
    load = os.getloadavg()[0]
    solution = _solve(run)
    wall_time = solution.stats.wall_time
    if not verify and wall_time < SHORT:
        wall_time = min([wall_time, *(_solve(run).stats.wall_time for _ in range(REPEATS - 1))])
    record = {
        "name": name,
        "key": run.key(),
        "method": solution.method,
        "t": float(solution.t[-1]),
        "rows": solution.stats.rows,
        "wall_time": wall_time,
        "load": load,
        "status": solution.status.value,
        "message": solution.message,
        "verification": None if solution.verification is None else solution.verification.to_dict(),
    }
    atomic_write(_file(name, directory), (json.dumps(record, indent=1) + "\n").encode())
    return record


def _solve(run: Run) -> Solution:
    solution = dmft.solve(run.problem, run.t_final, rtol=run.rtol, method=run.method, verify=run.verify)
    if solution.interrupted:
        raise KeyboardInterrupt
    return solution


@cache
def _warm_up() -> None:
    """Compile, or load what is compiled, before any time is taken."""
    h = Activation.from_covariance([0, 0.9, 0.5])
    small = SymmetricProblem(width=4, alpha=0.3, activation=h, target=Target.same_as(h), noise_std=0.6, a0=1.0)
    for problem in (small, PSpinProblem(covariance=[0, 0, 1.0])):
        dmft.solve(problem, 0.01, rtol=1e-2, verify=True)


def _file(name: str, directory: Path) -> Path:
    return directory / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"


def _read(run: Run, directory: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(_file(run.name, directory).read_text())
        return record if record["key"] == json.loads(json.dumps(run.key())) else None
    except (OSError, ValueError, KeyError, TypeError):  # missing, or not ours: solved again
        return None
