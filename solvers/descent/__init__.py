"""The exact DMFT of discrete optimisers: gradient descent, momentum and minibatches at any learning rate.

Nothing is discretised: the updates are the process, and its DMFT is explicit, one row an update. ``kernels`` is one
row, compiled, ``rows`` the packed tables of all rows with their cost, ``engine`` the contract of :mod:`solvers.base`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from dmft.optimizers import Optimizer
from solvers.base import Options

__all__ = ["DescentOptions"]


@dataclass(frozen=True)
class DescentOptions(Options):
    """Options of a run of discrete updates.

    Attributes
    ----------
    optimizer : Optimizer
        What the updates are. ``rtol`` is 0 and ``times`` are empty: a row is an update, and exact.
    """

    optimizer: Optimizer = field(kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """Canonical form, compared when a run is resumed."""
        values = asdict(self)
        values.pop("config_text")
        return {**values, "times": list(self.times), "optimizer": self.optimizer.to_dict()}
