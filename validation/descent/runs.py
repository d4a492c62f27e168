"""Solutions for many optimisers, each kept in a file of its own when it is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import dmft
import solvers
from dmft import optimizers
from dmft.files import FileFormatError
from dmft.optimizers import Optimizer
from dmft.problems import NetworkProblem, from_dict
from dmft.solution import Solution
from validation.engines.runs import code_digest as engine_digest
from validation.engines.runs import source_digest

RTOL = 1e-5
"""Of gradient flow, to which the optimisers are compared."""
SHARED = ("causal", "history", "row")
EQUATIONS = ("equations", "formulation", "interpolation", "optimizers")
"""Modules of `solvers` and of `dmft` that the updates use."""


@dataclass(frozen=True)
class Run:
    """A network, how it is trained and for how long.

    Attributes
    ----------
    name : str
    problem : NetworkProblem
    t_final : float
        In the theory's unit.
    optimizer : Optimizer or None
        None is gradient flow.
    """

    name: str
    problem: NetworkProblem
    t_final: float
    optimizer: Optimizer | None = None

    def key(self) -> str:
        """Digest of all that the solution depends on, the code that solves included."""
        optimizer = None if self.optimizer is None else self.optimizer.to_dict()
        code = engine_digest() if self.optimizer is None else code_digest()
        told = [self.problem.to_dict(), self.t_final, optimizer, RTOL, code]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


@cache
def code_digest() -> str:
    """Digest of the sources that make the updates."""
    package, equations = Path(solvers.__file__).parent, Path(dmft.__file__).parent
    paths = [*sorted((package / "descent").rglob("*.py")), *(package / f"{name}.py" for name in SHARED)]
    return source_digest([*paths, *(equations / f"{name}.py" for name in EQUATIONS)])


def solve_all(
    runs: Sequence[Run], directory: Path, workers: int = 1, tell: Callable[[str], None] = print
) -> dict[str, Solution]:
    """Solve all that are not in the directory yet.

    Parameters
    ----------
    runs : sequence of Run
        With different names.
    directory : path
        Where the solutions are kept as ``<key>.h5``; made if missing.
    workers : int
        Processes.
    tell : callable
        Called with a line for each run that is finished.

    Returns
    -------
    dict of Solution
        By name, in the order of the runs. One that has ended early is kept as it is.

    Raises
    ------
    KeyboardInterrupt
        When interrupted; what is finished is kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    found = {run.name: _read(directory / f"{run.key()}.h5") for run in runs}
    missing = [run for run in runs if found[run.name] is None]
    done = len(runs) - len(missing)
    if done:
        tell(f"{done} of {len(runs)} solutions were there already")
    for name, file in _solved(missing, directory, workers):
        done += 1
        solution = found[name] = _read(Path(file))
        assert solution is not None
        tell(f"[{done}/{len(runs)}] {name}: {solution.stats.wall_time:.1f} s, {solution.message}")
    return {name: solution for name, solution in found.items() if solution is not None}


def _solved(runs: list[Run], directory: Path, workers: int) -> Iterator[tuple[str, str]]:
    tasks = [
        (
            run.name,
            run.problem.to_dict(),
            run.t_final,
            None if run.optimizer is None else run.optimizer.to_dict(),
            str(directory / f"{run.key()}.h5"),
        )
        for run in runs
    ]
    if workers == 1 or len(runs) < 2:
        for task in tasks:
            yield solve_one(*task)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered")
    yield from parallel(delayed(solve_one)(*task) for task in tasks)


def solve_one(
    name: str, problem: dict[str, Any], t_final: float, optimizer: dict[str, Any] | None, file: str
) -> tuple[str, str]:
    """Solve one problem in this process and keep the solution; its name and file."""
    given: dict[str, Any] = {"rtol": RTOL} if optimizer is None else {"optimizer": optimizers.from_dict(optimizer)}
    solution = dmft.solve(from_dict(problem), t_final, **given)
    if solution.interrupted:
        raise KeyboardInterrupt
    solution.save(file)
    return name, file


def _read(file: Path) -> Solution | None:
    try:
        found = dmft.load(file)
    except (OSError, FileFormatError):
        return None
    return found if isinstance(found, Solution) else None
