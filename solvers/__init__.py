"""How the equations are solved. ``solve`` is the front end; an engine is one class, see :mod:`solvers.base`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from dmft._validate import integer, real
from solvers.base import CannotResumeError, Options, Progress, ProgressCallback

if TYPE_CHECKING:
    from dmft.problems import Problem
    from dmft.solution import Solution

__all__ = ["METHODS", "CannotResumeError", "Options", "Progress", "solve"]

METHODS = ("auto", "bdf", "bdf1", "bdf2", "bdf3", "bdf4", "bdf5")
"""Accepted values of ``method``; a second engine adds its name here and its class in :func:`_engine`."""


def _engine(problem: Problem, method: str) -> type:
    from dmft.limits import Limit

    if isinstance(problem, Limit):
        from solvers.limits import LimitEngine

        return LimitEngine
    if method.startswith("bdf"):
        from solvers.marching import BdfEngine

        return BdfEngine
    raise AssertionError(method)


def solve(
    problem: Problem,
    t_final: float,
    *,
    rtol: float = 1e-4,
    method: str = "auto",
    times: Iterable[float] | None = None,
    progress: bool | ProgressCallback | None = None,
    checkpoint: str | PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_interval: float = 20.0,
    max_rows: int = 20_000,
    config_text: str = "",
) -> Solution:
    """Solve the DMFT of a problem from t = 0 to ``t_final``.

    Parameters
    ----------
    problem : Problem
        Symmetric, grouped, general, infinite-width or p-spin, or a limit of a network problem (`dmft.limits`).
    t_final : float
        Last time, in the unit of [MU].
    rtol : float
        Relative accuracy of the curves, 1e-10 to 0.1.
    method : str
        ``"auto"``; ``"bdf"`` (variable order), ``"bdf1"`` ... ``"bdf5"`` (fixed order).
    times : iterable of float, optional
        Times at which a row is wanted exactly. (Any other time is interpolated by ``solution.at``.)
    progress : bool or callable, optional
        True for a progress bar, or a function of a :class:`Progress`, called after every row.
    checkpoint : path, optional
        File to write checkpoints to; with ``resume`` the run continues from it.
    resume : bool
        Continue from ``checkpoint``, which must exist and belong to the same problem and options.
    checkpoint_interval : float
        Seconds between checkpoints.
    max_rows : int
        Stop with ``Status.STEP_LIMIT`` after this many rows.
    config_text : str
        Configuration text to carry into the saved file.

    Returns
    -------
    Solution
        With ``status`` DONE, or whatever was reached and a message that says what to try.

    Raises
    ------
    TypeError, ValueError
        Bad arguments; ``CannotResumeError`` (a ValueError) for a checkpoint of another run.
    """
    if not hasattr(problem, "formulation"):
        raise TypeError(f"problem must be a problem such as SymmetricProblem, got {type(problem).__name__}")
    t_final = real("t_final", t_final, low=0.0, open_low=True)
    rtol = real("rtol", rtol, low=1e-10, high=0.1)
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    max_rows = integer("max_rows", max_rows, low=2)
    checkpoint_interval = real("checkpoint_interval", checkpoint_interval, low=0.0)
    wanted = () if times is None else tuple(sorted({real("times", time, low=0.0) for time in times} - {0.0}))
    if wanted and wanted[-1] > t_final:
        raise ValueError(f"times must lie in [0, t_final] = [0, {t_final:g}], got {wanted[-1]:g}")
    for before, after in itertools.pairwise(wanted):
        if after - before < 1e-3 * after:
            raise ValueError(f"times must differ by a thousandth at least, got {before:.12g} and {after:.12g}")
    if resume and checkpoint is None:
        raise ValueError("resume needs checkpoint, the file to resume from")
    if resume and not Path(checkpoint).exists():  # type: ignore[arg-type]
        raise CannotResumeError(f"checkpoint {checkpoint} does not exist; leave out resume to start afresh")
    from solvers.checkpoint import Checkpointer

    options = Options(
        t_final=t_final,
        rtol=rtol,
        method="bdf" if method == "auto" else method,
        times=wanted,
        max_rows=max_rows,
        config_text=config_text,
    )
    checkpointer = Checkpointer(
        None if checkpoint is None else Path(checkpoint),
        {"problem": problem.to_dict(), "solve": options.to_dict()},
        checkpoint_interval,
    )
    engine = _engine(problem, options.method)(problem, options)
    if progress is True:
        from solvers.progress import bar

        with bar() as callback:
            return engine.run(callback, checkpointer, resume)
    return engine.run(progress or None, checkpointer, resume)
