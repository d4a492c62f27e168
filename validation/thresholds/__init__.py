"""Thresholds of training: below which overparametrisation, or above which second layer, the data are interpolated."""

from validation.thresholds.interpolation import interpolation_threshold
from validation.thresholds.result import Estimate, Threshold

__all__ = ["Estimate", "Threshold", "interpolation_threshold"]
