"""Variable-step backward differentiation formulas: weights, predictor and error constant.

The flow ``dw/dt = force`` is replaced by ``sum_{i=0..K} al_i w(t_{n-i}) = force(w(t_n))``, al being the weights of
the derivative at t_n of the polynomial through t_n ... t_{n-K}. Order K; stable on the negative real axis for
K <= 5 (up to 6, which is not offered) as long as the steps grow slowly, see ``MAX_GROWTH``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmft.interpolation import derivative_weights, value_weights

FloatArray = NDArray[np.float64]

MAX_ORDER = 5
MAX_GROWTH = {1: 1.2, 2: 1.2, 3: 1.2, 4: 1.2, 5: 1.1}
"""Largest ratio of neighbouring steps that each order is run with (stability of the variable-step formula)."""


@dataclass(frozen=True)
class Multistep:
    """One step of the formula of a given order.

    Attributes
    ----------
    order : int
        K, at most the number of earlier rows.
    derivative : (order + 1,) float
        al_0 ... al_K, newest first.
    predictor : (p,) float
        Weights of the extrapolation to the new time from the p = min(order + 1, rows) newest rows, newest first.
    error_constant : float
        Local error over (corrector - predictor).
    """

    order: int
    derivative: FloatArray
    predictor: FloatArray
    error_constant: float


def multistep(past: FloatArray, time: float, order: int) -> Multistep:
    """The formula that steps from the rows at ``past`` (ascending) to ``time``."""
    rows = len(past)
    order = min(order, rows)
    newest_first = past[::-1]
    nodes = np.concatenate([[time], newest_first[:order]])
    support = np.ascontiguousarray(newest_first[: order + 1])
    # BDF-K through K + 1 nodes has the interpolation error of one more node: the ratio of the two remainders.
    constant = (time - past[-1]) / (time - support[-1]) if len(support) > order else 1.0
    return Multistep(order, derivative_weights(nodes, time), value_weights(support, time), constant)


def extrapolation(past: FloatArray, time: float, degree: int) -> FloatArray:
    """Weights, newest first, of the degree-``degree`` extrapolation to ``time`` from the rows at ``past``."""
    support = np.ascontiguousarray(past[::-1][: degree + 1])
    return value_weights(support, time)
