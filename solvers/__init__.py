"""How the equations are solved. ``solve`` is the front end; an engine is one class, see :mod:`solvers.base`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmft._validate import boolean, integer, real
from dmft.status import Status
from solvers.base import CannotResumeError, Options, Progress, ProgressCallback
from solvers.descent import DescentOptions

if TYPE_CHECKING:
    from dmft.optimizers import Optimizer
    from dmft.problems import Problem
    from dmft.solution import Solution
    from dmft.verification import Verification
    from solvers.checkpoint import Checkpointer
    from solvers.verification import Plan

__all__ = ["ENGINES", "METHODS", "CannotResumeError", "Engine", "Options", "Progress", "solve"]


@dataclass(frozen=True)
class Engine:
    """An engine, which is imported when it is first used.

    Attributes
    ----------
    module, name : str
        Where its class is. The module may have a function ``supports(problem) -> bool``; without one the engine takes
        every problem.
    methods : tuple of str
        Its values of ``method``, the standard one first.
    """

    module: str
    name: str
    methods: tuple[str, ...]

    def supports(self, problem: Problem) -> bool:
        """Whether it solves problems of this kind."""
        supports = getattr(import_module(self.module), "supports", None)
        return supports is None or bool(supports(problem))

    def load(self) -> Any:
        """The class, with the contract of `solvers.base`."""
        return getattr(import_module(self.module), self.name)


ENGINES = (
    Engine("solvers.marching", "BdfEngine", ("bdf", "bdf1", "bdf2", "bdf3", "bdf4", "bdf5")),
    Engine("solvers.collocation", "CollocationEngine", ("collocation",)),
)
"""All engines, the main one first; another one is a line here."""

METHODS = ("auto", *(method for engine in ENGINES for method in engine.methods))
"""Accepted values of ``method``."""


@dataclass(frozen=True)
class _Runner:
    """Runs of one problem that share a progress display and the place of their checkpoints."""

    problem: Problem
    progress: bool | ProgressCallback | None
    checkpoint: Path | None
    checkpoint_interval: float

    def checkpointer(self, options: Options, suffix: str) -> Checkpointer:
        from solvers.checkpoint import Checkpointer

        path = None if self.checkpoint is None else self.checkpoint.with_name(self.checkpoint.name + suffix)
        identity = {"problem": self.problem.to_dict(), "solve": options.to_dict()}
        return Checkpointer(path, identity, self.checkpoint_interval)

    def run(self, options: Options, suffix: str = "", resume: bool = False) -> Solution:
        """Solve, or take from its checkpoint what has been solved.

        Raises
        ------
        ValueError
            For a problem that the method does not solve; ``CannotResumeError`` for a checkpoint of another run.
        """
        checkpointer = self.checkpointer(options, suffix)
        if resume:
            finished = checkpointer.read_solution()
            if finished is not None:
                finished.config_text = options.config_text
                return finished
        from solvers.interrupts import deferred

        engine = _engine(self.problem, options)(self.problem, options)
        solution: Solution
        if self.progress is True:
            from solvers.progress import bar

            with bar() as callback, deferred(callback) as after_row:
                solution = engine.run(after_row, checkpointer, resume)
        else:
            with deferred(self.progress or None) as after_row:
                solution = engine.run(after_row, checkpointer, resume)
        return solution

    def verified(self, solution: Solution, options: Options, planned: Plan, resume: bool) -> Verification:
        """The check of a solution; each run that is finished is kept at the place of its checkpoint."""
        from dmft.verification import CHECK
        from solvers.verification import verify

        def again(its: Options, suffix: str) -> Solution:
            if suffix == CHECK:  # the first: here an interrupt does not lose the solution
                self.checkpointer(options, "").write_solution(solution)
            path = self.checkpointer(its, suffix).path
            try:
                found = self.run(its, suffix, resume and path is not None and path.exists())
            except CannotResumeError:  # the place holds the check of another run
                found = self.run(its, suffix)
            if found.status is not Status.INTERRUPTED:
                self.checkpointer(its, suffix).write_solution(found)
            return found

        return verify(solution, options, planned, again)


def _engine(problem: Problem, options: Options) -> Any:
    from dmft.limits import Limit

    method = options.method
    if isinstance(options, DescentOptions):
        from solvers.descent.engine import DescentEngine

        return DescentEngine
    if isinstance(problem, Limit):
        if method not in ("auto", "bdf"):
            raise ValueError(
                f"method must be 'auto' for a limit, whose equations are solved in one way, got {method!r}"
            )
        from solvers.limits import LimitEngine

        return LimitEngine
    engine = next(engine for engine in ENGINES if method in engine.methods)
    if not engine.supports(problem):
        raise ValueError(f"method {method!r} does not solve {problem.kind} problems of this form; use 'auto'")
    return engine.load()


def _descent_options(
    problem: Problem,
    optimizer: Optimizer,
    method: str,
    verify: bool,
    t_final: float,
    times: tuple[float, ...],
    max_rows: int | None,
    thinning: float | None,
    config_text: str,
) -> DescentOptions:
    """Options of a run of discrete updates; what does not go with them is refused."""
    from dmft.optimizers import Optimizer, check_problem

    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            "optimizer must be a GradientDescent, Momentum or SGD, such as dmft.SGD(learning_rate=1.0, "
            f"batch_fraction=0.1), got {optimizer!r}"
        )
    check_problem(problem)
    if method != "auto":
        raise ValueError(f"method must be 'auto' with an optimizer, which has one engine, got {method!r}")
    if verify:
        raise ValueError("verify=True is not available with an optimizer: there is no second engine for updates yet")
    given: dict[str, Any] = {"max_rows": max_rows, "thinning": thinning}
    return DescentOptions(
        t_final=t_final,
        rtol=0.0,
        method=optimizer.kind,
        times=times,
        config_text=config_text,
        optimizer=optimizer,
        **{name: value for name, value in given.items() if value is not None},
    )


def solve(
    problem: Problem,
    t_final: float,
    *,
    rtol: float = 1e-4,
    method: str = "auto",
    optimizer: Optimizer | None = None,
    times: Iterable[float] | None = None,
    progress: bool | ProgressCallback | None = None,
    checkpoint: str | PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_interval: float = 20.0,
    max_rows: int | None = None,
    thinning: float | None = None,
    config_text: str = "",
    verify: bool = False,
) -> Solution:
    """Solve the DMFT of a problem from t = 0 to ``t_final``.

    Parameters
    ----------
    problem : Problem
        Symmetric, grouped, general, infinite-width or p-spin, or a limit of a network problem (`dmft.limits`).
    t_final : float
        Last time, in the unit of [MU]. With an optimizer it is rounded down to whole updates, and must hold one.
    rtol : float
        Relative accuracy of the curves, 1e-10 to 0.1. Without meaning for an optimizer, whose updates are exact.
    method : str
        ``"auto"``, which is ``"bdf"``; ``"bdf"`` (variable order), ``"bdf1"`` ... ``"bdf5"`` (fixed order);
        ``"collocation"``, the second engine, for p-spin, symmetric and infinite-width problems with at most one latent
        direction. Limits take "auto" only.
    optimizer : GradientDescent, Momentum or SGD, optional
        Solve the DMFT of these updates, which is exact at any learning rate, instead of gradient flow. For symmetric,
        grouped and general networks; every update is a row. 2000 updates of a symmetric network take 100 MB and some
        seconds; longer runs thin their history. A run that will take more than a minute says so in a warning.
    times : iterable of float, optional
        Times at which a row is wanted exactly. (Any other time is interpolated by ``solution.at``.) With an optimizer
        two-time functions are kept at the updates next to them (of those that a thinned history has).
    progress : bool or callable, optional
        True for a progress bar, or a function of a :class:`Progress`, called after every row.
    checkpoint : path, optional
        File to write checkpoints to; with ``resume`` the run continues from it.
    resume : bool
        Continue from ``checkpoint``, which must exist and belong to the same problem and options.
    checkpoint_interval : float
        Seconds between checkpoints.
    max_rows : int, optional
        Stop with ``Status.STEP_LIMIT`` after this many rows. Default 20 000, ten million with an optimizer.
    thinning : float, optional
        With an optimizer, relative error of the curves that dropping updates of long ago from a history of 2000 may
        bring each time, below 0.1; 0 keeps all. Default 1e-5. The history of gradient flow is thinned at rtol.
    config_text : str
        Configuration text to carry into the saved file.
    verify : bool
        Solve it a second time, by another engine where there is one and else by the same one at rtol/10 and another
        order, and put a `dmft.verification.Verification` on ``solution.verification``. A check that is interrupted or
        fails leaves the solution as it is. It has checkpoints of its own, ``<checkpoint>.check``,
        ``<checkpoint>.tighter`` and ``<checkpoint>.check_again``, and ``resume`` goes on with whichever is unfinished.

    Returns
    -------
    Solution
        With ``status`` DONE, or whatever was reached and a message that says what to try.

    Raises
    ------
    TypeError, ValueError
        Bad arguments; ``CannotResumeError`` (a ValueError) for a checkpoint of another run; an optimizer with more
        updates than fit into memory, with the number that would.
    """
    if not hasattr(problem, "formulation"):
        raise TypeError(f"problem must be a problem such as SymmetricProblem, got {type(problem).__name__}")
    t_final = real("t_final", t_final, low=0.0, open_low=True)
    rtol = real("rtol", rtol, low=1e-10, high=0.1)
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if max_rows is not None:
        max_rows = integer("max_rows", max_rows, low=2)
    if thinning is not None:
        thinning = real("thinning", thinning, low=0.0, high=0.1, open_high=True)
        if optimizer is None:
            raise ValueError("thinning goes with an optimizer: the history of gradient flow is thinned at rtol")
    verify = boolean("verify", verify)
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise TypeError(
            f"progress must be True, False, None or a function of a Progress, got {type(progress).__name__}"
        )
    if checkpoint is not None and not isinstance(checkpoint, str | PathLike):
        raise TypeError(f"checkpoint must be a path, got {type(checkpoint).__name__}")
    checkpoint_interval = real("checkpoint_interval", checkpoint_interval, low=0.0)
    wanted = () if times is None else tuple(sorted({real("times", time, low=0.0) for time in times} - {0.0}))
    if wanted and wanted[-1] > t_final:
        raise ValueError(f"times must lie in [0, t_final] = [0, {t_final:g}], got {wanted[-1]:g}")
    for before, after in itertools.pairwise(wanted if optimizer is None else ()):
        if after - before < 1e-3 * after:
            raise ValueError(f"times must differ by a thousandth at least, got {before:.12g} and {after:.12g}")
    if resume and checkpoint is None:
        raise ValueError("resume needs checkpoint, the file to resume from")
    if resume and not Path(checkpoint).exists():  # type: ignore[arg-type]
        raise CannotResumeError(f"checkpoint {checkpoint} does not exist; leave out resume to start afresh")
    if optimizer is None:
        options = Options(
            t_final=t_final,
            rtol=rtol,
            method="bdf" if method == "auto" else method,
            times=wanted,
            config_text=config_text,
            **({} if max_rows is None else {"max_rows": max_rows}),
        )
    else:
        options = _descent_options(problem, optimizer, method, verify, t_final, wanted, max_rows, thinning, config_text)
    runner = _Runner(problem, progress, None if checkpoint is None else Path(checkpoint), checkpoint_interval)
    planned = None
    if verify:  # an engine that cannot be imported is found out before anything is computed
        from solvers.verification import plan

        planned = plan(problem, options.method, rtol)
    solution = runner.run(options, resume=resume)
    if planned is not None and solution.status is not Status.INTERRUPTED:
        solution.verification = runner.verified(solution, options, planned, resume)
    return solution
