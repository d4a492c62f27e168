"""Training dynamics of wide two-layer networks from dynamical mean-field theory.

>>> import dmft
>>> activation = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
>>> problem = dmft.SymmetricProblem(
...     width=16, alpha=0.3, activation=activation, target=dmft.Target.same_as(activation), noise_std=0.6, a0=1.0
... )
>>> solution = dmft.solve(problem, t_final=60.0)  # doctest: +SKIP

Every name below is imported when it is first used (PEP 562), so that ``import dmft`` stays fast and the engine is
compiled only by those who solve.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmft import limits
    from dmft.activations import Activation
    from dmft.files import load
    from dmft.optimizers import SGD, GradientDescent, Momentum
    from dmft.problems import GeneralProblem, GroupedProblem, InfiniteWidthProblem, PSpinProblem, SymmetricProblem
    from dmft.simulation import Simulation
    from dmft.solution import Solution
    from dmft.status import Status
    from dmft.targets import Target
    from solvers import solve
    from validation import compare, interpolation_threshold, optimization_threshold, simulate, time_scales

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Activation",
    "GeneralProblem",
    "GradientDescent",
    "GroupedProblem",
    "InfiniteWidthProblem",
    "Momentum",
    "PSpinProblem",
    "Simulation",
    "Solution",
    "Status",
    "SymmetricProblem",
    "Target",
    "__version__",
    "compare",
    "interpolation_threshold",
    "limits",
    "load",
    "optimization_threshold",
    "simulate",
    "solve",
    "time_scales",
]

_HOME = {
    "SGD": "dmft.optimizers",
    "Activation": "dmft.activations",
    "GeneralProblem": "dmft.problems",
    "GradientDescent": "dmft.optimizers",
    "GroupedProblem": "dmft.problems",
    "InfiniteWidthProblem": "dmft.problems",
    "Momentum": "dmft.optimizers",
    "PSpinProblem": "dmft.problems",
    "Simulation": "dmft.simulation",
    "Solution": "dmft.solution",
    "Status": "dmft.status",
    "SymmetricProblem": "dmft.problems",
    "Target": "dmft.targets",
    "compare": "validation",
    "interpolation_threshold": "validation",
    "limits": "dmft.limits",
    "load": "dmft.files",
    "optimization_threshold": "validation",
    "simulate": "validation",
    "solve": "solvers",
    "time_scales": "validation",
}


def __getattr__(name: str) -> object:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'dmft' has no attribute {name!r}") from None
    value = import_module(home) if home == f"dmft.{name}" else getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
