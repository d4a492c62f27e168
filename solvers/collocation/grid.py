"""The axis of the earlier time: nodes, quadrature, transport and interpolation on one row.

A row at time t lives on the nodes of :mod:`dmft.scaled_time`, s = t theta(x) with x uniform in [-1, 1], so that the
cost of a row grows with ln t only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmft.interpolation import derivative_weights, value_weights
from dmft.scaled_time import ratio_position, ratios, uniform_stencil

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

POINTS = 10
"""Nodes of an interpolation or of a derivative in x."""
UPWIND = 3
"""Nodes of the derivative towards smaller x. The transport term carries values from x = 1 to smaller x, and centred
differences of it are unstable."""
CLOSURE = 6
"""Nodes of the derivative next to x = 1, where it cannot be upwind any more. As polynomials in kappa, not in x, six of
them leave the spectrum of the transport operator in the left half-plane; seven, or polynomials in x, do not."""
RESAMPLING_POINTS = 20
"""Nodes, where there are as many on both sides, of the interpolation that carries rows to a new grid. It leaves a kink
at every old node, of the size of its error, which then travels through all later rows; aging amplifies it by t."""
QUADRATURE_ORDER = 8


class Stencil(NamedTuple):
    """Interpolation in x at many points: first node and Lagrange weights of each."""

    start: IntArray  # shape of the points
    weight: FloatArray  # that shape + (POINTS,)


def gregory_weights(count: int, order: int = QUADRATURE_ORDER) -> FloatArray:
    """Weights of the integral over ``count`` equidistant points of unit spacing, exact for degree ``order`` - 1.

    The trapezoidal rule with Gregory's end corrections, written as the conditions that integrals of monomials be exact:
    the corrected weights of ``order`` points at each end follow from one small linear system.
    """
    powers = np.arange(order)
    nodes = np.arange(order, dtype=np.float64)
    # Euler-Maclaurin: the half-infinite sum of j^p, summed the way the uncorrected interior is, is zeta(-p).
    zeta = np.array([-0.5, -1 / 12, 0.0, 1 / 120, 0.0, -1 / 252, 0.0, 1 / 240, 0.0, -1 / 132][:order])
    correction = np.linalg.solve(nodes[None, :] ** powers[:, None], -zeta - (powers == 0))
    weights = np.ones(count)
    weights[:order] += correction
    weights[-order:] += correction[::-1]
    return weights


class Grid:
    """Nodes of a row and everything about them that does not change from row to row.

    Parameters
    ----------
    size : int
        Number of nodes L.
    stretch : float
        2a: the smallest resolved s and t - s are about exp(-2a) t.

    Attributes
    ----------
    theta, kappa : (L,)
        s/t and 1 - s/t.
    quadrature : (L,)
        Weights of the integral over theta from 0 to 1.
    transport : (L, L)
        theta d/dtheta = (theta / theta') d/dx; the last row is zero.
    inner, outer, between : Stencil of (L, L)
        Where products under integrals are read, for node k and integration node j. For u = s_k theta_j below s_k:
        ``inner`` is u/t. For u = t (theta_k + kappa_k theta_j) between s_k and t: ``outer`` is u/t, ``between`` s_k/u.
    log_theta : (L,)
        ln(s/t).
    log_outer : (L, L)
        ln(u/t) of ``outer``.
    """

    def __init__(self, size: int, stretch: float) -> None:
        self.size, self.stretch = size, stretch
        self._spacing = 2.0 / (size - 1)
        theta, kappa, slope = ratios(size, stretch)
        self.theta, self.kappa = theta, kappa
        self.quadrature = gregory_weights(size) * self._spacing * slope
        self.transport = self._transport(slope)
        k, j = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
        self.inner = self.stencil(theta[k] * theta[j], kappa[k] + theta[k] * kappa[j])
        outer, rest = theta[k] + kappa[k] * theta[j], kappa[k] * kappa[j]
        self.outer = self.stencil(outer, rest)
        origin = outer == 0.0  # s = u = 0: any ratio, the functions are read at t = 0 there
        divisor = np.where(origin, 1.0, outer)
        self.between = self.stencil(
            np.where(origin, 0.0, theta[k] / divisor), np.where(origin, 1.0, kappa[k] * theta[j] / divisor)
        )
        with np.errstate(divide="ignore"):
            self.log_theta = np.log(theta)
            self.log_outer = np.where(rest < 0.5, np.log1p(-np.minimum(rest, 0.5)), np.log(outer))

    def _transport(self, slope: FloatArray) -> FloatArray:
        size, theta, kappa = self.size, self.theta, self.kappa
        result = np.zeros((size, size))
        for k in range(1, size - 1):
            first = max(k - UPWIND, 0)
            if first + POINTS <= size:
                nodes = np.arange(first, first + POINTS, dtype=np.float64) - k
                scale = theta[k] / (slope[k] * self._spacing)
                result[k, first : first + POINTS] = scale * derivative_weights(nodes, 0.0)
            else:
                first = min(first, size - CLOSURE)
                nodes = (kappa[k] - kappa[first:]) / kappa[k]
                result[k, first:] = theta[k] / kappa[k] * derivative_weights(nodes, 0.0)
        return result

    def stencil(self, theta: FloatArray, kappa: FloatArray) -> Stencil:
        """Interpolation at s/t = theta = 1 - kappa, arrays of one shape; the last cell never leaves the row."""
        position = ratio_position(self.size, self.stretch, theta, kappa)
        return Stencil(*uniform_stencil(position, self.size, POINTS))

    def resampling(self, new: Grid) -> FloatArray:
        """Matrix (new L, L) that carries a row over to another grid. End points stay, bit for bit."""
        position = ratio_position(self.size, self.stretch, new.theta, new.kappa)
        result = np.zeros((new.size, self.size))
        for row, place in enumerate(position):
            cell = int(place)
            half = min(max(min(cell + 1, self.size - 1 - cell), POINTS // 2), RESAMPLING_POINTS // 2)
            first = min(max(cell + 1 - half, 0), self.size - 2 * half)
            result[row, first : first + 2 * half] = value_weights(np.arange(first, first + 2.0 * half), place)
        result[[0, -1]] = 0.0
        result[0, 0] = result[-1, -1] = 1.0
        return result
