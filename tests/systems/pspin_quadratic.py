"""The p = 2 spherical p-spin model, solved in closed form (README.md, section 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ive

FloatArray = NDArray[np.float64]

_ROOT8 = 2.0 * np.sqrt(2.0)


def _scaled_phi(x: FloatArray) -> FloatArray:
    """exp(-2 sqrt2 x) Phi(x) with Phi(x) = 2 I_1(2 sqrt2 x) / (2 sqrt2 x); the exponentials cancel in every ratio."""
    z = _ROOT8 * np.asarray(x, dtype=np.float64)
    safe = np.where(z > 1e-8, z, 1.0)
    return np.where(z > 1e-8, 2.0 * ive(1, safe) / safe, np.exp(-z))  # I_1(z)/z = 1/2 + O(z^2)


@dataclass(frozen=True)
class QuadraticPSpin:
    """Gradient flow of covariance f(q) = q^2 from a random start, at any times (tested to t = 10^6)."""

    covariance: tuple[float, ...] = (0.0, 0.0, 1.0)

    def correlation(self, t: ArrayLike, s: ArrayLike) -> FloatArray:
        """C(t, s) = Phi(t + s) / sqrt(Phi(2t) Phi(2s))."""
        t, s = np.asarray(t, dtype=np.float64), np.asarray(s, dtype=np.float64)
        return _scaled_phi(t + s) / np.sqrt(_scaled_phi(2 * t) * _scaled_phi(2 * s))

    def response(self, t: ArrayLike, s: ArrayLike) -> FloatArray:
        """R(t, s) = Phi(t - s) sqrt(Phi(2s) / Phi(2t)) for s <= t."""
        t, s = np.asarray(t, dtype=np.float64), np.asarray(s, dtype=np.float64)
        return _scaled_phi(t - s) * np.sqrt(_scaled_phi(2 * s) / _scaled_phi(2 * t))

    def energy(self, t: ArrayLike) -> FloatArray:
        """E(t) = -Phi'(2t) / (2 Phi(2t)) = -sqrt2 I_2(z)/I_1(z) at z = 4 sqrt2 t; tends to -sqrt2."""
        z = 2.0 * _ROOT8 * np.asarray(t, dtype=np.float64)
        safe = np.where(z > 1e-8, z, 1.0)
        return np.where(z > 1e-8, -np.sqrt(2.0) * ive(2, safe) / ive(1, safe), -np.sqrt(2.0) * z / 4)

    def nu(self, t: ArrayLike) -> FloatArray:
        """nu = int [f'' C + f'] R = 4 int C R = -2 E."""
        return -2.0 * self.energy(t)

    def integrated_response(self, t: ArrayLike, s: ArrayLike, points: int = 24) -> FloatArray:
        """F(t, s) = int_s^t R(t, u) du by Gauss-Legendre on panels that shrink geometrically towards both ends.

        R varies on the scale of t - u near u = t and of u near u = 0, so every panel sees an analytic function; the
        error is at rounding level (checked by changing ``points``).
        """
        t, s = np.broadcast_arrays(np.asarray(t, dtype=np.float64), np.asarray(s, dtype=np.float64))
        result = np.zeros(t.shape)
        node, weight = np.polynomial.legendre.leggauss(points)
        for index in np.ndindex(t.shape):
            hi, lo = float(t[index]), float(s[index])
            if hi <= lo:
                continue
            shrink = 2.0 ** np.arange(-60, 1)
            middle = 0.5 * (hi + lo)
            # Only panels wider than 1e-3 need halving: below that R is a low polynomial (its rates are O(1)).
            shrink = shrink[(middle - lo) * shrink > 1e-3]
            edges = np.concatenate([[lo], lo + (middle - lo) * shrink, hi - (middle - lo) * shrink[::-1], [hi]])
            edges = np.unique(edges)
            half, mid = 0.5 * np.diff(edges), 0.5 * (edges[1:] + edges[:-1])
            u = mid[:, None] + half[:, None] * node
            result[index] = float((half[:, None] * weight * self.response(hi, u)).sum())
        return result


def semicircle_average(correlation_time: float, points: int = 400) -> float:
    """Phi(x) as the average of exp(lambda x) over the spectrum of the random quadratic form: an independent route.

    The Hessian of H is a symmetric Gaussian matrix with off-diagonal variance 2/d, whose eigenvalues fill the
    semicircle of radius 2 sqrt2. Gauss-Chebyshev quadrature of the second kind is exact for polynomials under it.
    """
    k = np.arange(1, points + 1)
    angle = np.pi * k / (points + 1)
    weight = 2.0 / (points + 1) * np.sin(angle) ** 2
    return float((weight * np.exp(_ROOT8 * np.cos(angle) * correlation_time)).sum())
