"""The optimization threshold at finite d and m.

DMFT at width m says that networks with a(0) = 1 and target phi = sigma interpolate iff n/d is below abar_c. This is a
statement about d -> infinity. Here finite networks are trained on both sides of abar_c, by gradient flow in the time
t_mf = alpha t: the Gaussian model, for which the theory is exact in that limit, and true networks. If the threshold is
approached, the time at which the plateau is left must stay near the theory's below abar_c and grow without bound with d
above it.
"""

from validation.optimization.finite_size.flow import ChebyshevFlow
from validation.optimization.finite_size.models import CollectiveGaussian, Trainable, TrueNetwork
from validation.optimization.finite_size.plan import INTERPOLATED, LEFT, THRESHOLDS, Series, condensing, plan
from validation.optimization.finite_size.plots import plot
from validation.optimization.finite_size.replicas import condensation, condense, run, train
from validation.optimization.finite_size.results import Curve, FiniteSize
from validation.optimization.finite_size.tables import markdown

__all__ = [
    "INTERPOLATED",
    "LEFT",
    "THRESHOLDS",
    "ChebyshevFlow",
    "CollectiveGaussian",
    "Curve",
    "FiniteSize",
    "Series",
    "Trainable",
    "TrueNetwork",
    "condensation",
    "condense",
    "condensing",
    "markdown",
    "plan",
    "plot",
    "run",
    "train",
]
