"""The exact DMFT of discrete optimisers: gradient descent, momentum and minibatches at any learning rate.

Nothing is discretised: the updates are the process, and its DMFT is explicit, one row an update. ``kernels`` is one
row, compiled, ``rows`` the packed tables of all rows with their cost, ``thinning`` what long runs drop of them,
``engine`` the contract of :mod:`solvers.base`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from dmft._validate import integer, real
from dmft.optimizers import Optimizer
from solvers.base import Options

__all__ = ["DescentOptions"]


@dataclass(frozen=True)
class DescentOptions(Options):
    """Options of a run of discrete updates.

    Attributes
    ----------
    optimizer : Optimizer
        What the updates are. ``rtol`` is 0: a row is an update, and exact. Two-time functions are kept at the updates
        next to ``times``, or at those next to them that a thinned history has.
    max_history : int
        Rows of two-time history kept before it is thinned, 50 at least. Until then nothing is approximate.
    thinning : float
        Relative error of the curves that one thinning may bring, below 0.1; 0 keeps all rows. Batches of epochs are
        never thinned.

    Raises
    ------
    TypeError, ValueError
        For other values of the last two.
    """

    optimizer: Optimizer = field(kw_only=True)
    max_rows: int = 10_000_000
    max_history: int = 2000
    thinning: float = field(default=1e-5, kw_only=True)

    def __post_init__(self) -> None:
        integer("max_history", self.max_history, low=50)
        real("thinning", self.thinning, low=0.0, high=0.1, open_high=True)

    def to_dict(self) -> dict[str, Any]:
        """Canonical form, compared when a run is resumed."""
        values = asdict(self)
        values.pop("config_text")
        return {**values, "times": list(self.times), "optimizer": self.optimizer.to_dict()}
