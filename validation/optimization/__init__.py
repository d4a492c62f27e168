"""The optimization threshold of infinitely wide networks: beyond it training never interpolates."""

from validation.optimization.threshold import OptimizationThreshold, optimization_threshold

__all__ = ["OptimizationThreshold", "optimization_threshold"]
