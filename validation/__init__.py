"""Is it true: finite-size simulations, and their comparison with the theory."""

from validation.comparison import compare
from validation.simulations import simulate

__all__ = ["compare", "simulate"]
