"""What an engine is: the contract between the front end and a scheme.

An engine is a class with a constructor ``Engine(problem, options)`` and a method

    run(progress, checkpointer, resume) -> Solution

It must (1) start from ``problem.formulation()`` and nothing else; (2) reach ``options.t_final`` at relative accuracy
``options.rtol`` or stop with a status, a sentence that says where and what to try, and all rows up to there;
(3) call ``progress`` after every accepted row; (4) write a checkpoint from which a resumed run gives the same
numbers, bit for bit.

A line in ``solvers.ENGINES`` names its class and its methods. From then on it also checks the other engines
(``solve(..., verify=True)``) and stands in the tables of docs/engines.md. A module that does not solve every problem
has a function ``supports(problem) -> bool``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Progress:
    """State of a run after an accepted row.

    Attributes
    ----------
    time, t_final : float
        Time reached and asked for.
    step : float
        Last step.
    rows : int
        Rows computed so far.
    wall_time : float
        Seconds since the start.
    """

    time: float
    t_final: float
    step: float
    rows: int
    wall_time: float


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class Options:
    """What the user asked of a run, normalised by :func:`solvers.solve`.

    Attributes
    ----------
    t_final : float
        Last time.
    rtol : float
        Relative accuracy of every curve.
    method : str
        Name of the scheme.
    times : tuple of float
        Times, ascending in (0, t_final], at which a row is wanted exactly.
    max_rows : int
        Rows after which a run stops with ``Status.STEP_LIMIT``.
    max_history : int
        Rows of two-time history kept before it is thinned.
    config_text : str
        The configuration the run was started from, carried into the file.
    """

    t_final: float
    rtol: float
    method: str
    times: tuple[float, ...] = ()
    max_rows: int = 20_000
    max_history: int = 300
    config_text: str = field(default="", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Canonical form, compared when a run is resumed."""
        values = asdict(self)
        values.pop("config_text")
        values["times"] = list(self.times)
        return values


class CannotResumeError(ValueError):
    """The checkpoint belongs to another run."""
