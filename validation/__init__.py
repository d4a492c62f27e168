"""Is it true: finite-size simulations, their comparison with the theory, time scales and thresholds."""

from validation.comparison import compare
from validation.optimization import optimization_threshold
from validation.scales import time_scales
from validation.simulations import simulate
from validation.thresholds import interpolation_threshold

__all__ = ["compare", "interpolation_threshold", "optimization_threshold", "simulate", "time_scales"]
