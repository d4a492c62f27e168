"""One linear neuron with fixed a: regression on a sphere, solved mode by mode (README.md, section 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from scipy.interpolate import make_interp_spline

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LinearCurves:
    """Everything at the requested times. Two-time functions on the grid t x t; F is zero above the diagonal."""

    t: FloatArray
    nu: FloatArray
    v: FloatArray
    train_error: FloatArray
    test_error: FloatArray
    correlation: FloatArray
    integrated_response: FloatArray


@dataclass(frozen=True)
class LinearNeuron:
    """m = 1, h(q) = c q, phihat(v) = f v, labels of power tau^2 + |phi|^2 = ``offset``; alpha = n/d != 1."""

    alpha: float
    a: float
    c: float
    f: float
    offset: float
    v0: float = 0.0
    points: int = 200

    def spectrum(self) -> tuple[FloatArray, FloatArray]:
        """Eigenvalues of M = a^2 c X^T X / d and their weights: Marchenko-Pastur, with its atom at 0 for alpha < 1.

        In the variable angle, with lambda = centre + half cos(angle), the density is smooth: spectral accuracy.
        """
        scale = self.a**2 * self.c
        low, high = scale * (1 - np.sqrt(self.alpha)) ** 2, scale * (1 + np.sqrt(self.alpha)) ** 2
        centre, half = (high + low) / 2, (high - low) / 2
        angle = np.pi * np.arange(1, self.points + 1) / (self.points + 1)
        nodes = centre + half * np.cos(angle)
        weights = half**2 * np.sin(angle) ** 2 / nodes / (2 * scale * (self.points + 1))
        if self.alpha < 1:
            return np.append(nodes, 0.0), np.append(weights, 1 - self.alpha)
        return nodes, weights

    def curves(self, t: ArrayLike) -> LinearCurves:
        """Integrate the modes to 1e-12.

        In the eigenbasis of M, w = p w_0' + q b' + u U with w_0', b' (the noise part of a s X^T y / d) and U
        independent isotropic directions up to the known spectral weights.
        """
        t = np.asarray(t, dtype=np.float64)
        x, w = self.spectrum()
        n = len(x)
        # b = a s X^T y / d with sigma(z) = s z, s^2 = c and y = (f / s) X U + noise: a pull along M U and the noise b'.
        pull = self.f / (self.a * self.c)
        noise = (self.offset - self.f**2 / self.c) * x  # variance of b' in the mode
        free = 1.0 - self.v0**2

        def moments(p: FloatArray, q: FloatArray, u: FloatArray) -> FloatArray:
            return free * p**2 + noise * q**2 + u**2

        def multiplier(p: FloatArray, q: FloatArray, u: FloatArray) -> float:
            return float(w @ (-x * moments(p, q, u) + noise * q + pull * x * u))

        def rate(_: float, state: FloatArray) -> FloatArray:
            p, q, u = state[:n], state[n : 2 * n], state[2 * n : 3 * n]
            nu = multiplier(p, q, u)
            return np.concatenate([-(x + nu) * p, 1 - (x + nu) * q, pull * x - (x + nu) * u, [nu]])

        start = np.concatenate([np.ones(n), np.zeros(n), np.full(n, self.v0), [0.0]])
        found = solve_ivp(rate, (0.0, float(t[-1])), start, method="DOP853", t_eval=t, rtol=1e-12, atol=1e-13)
        p, q, u = found.y[:n].T, found.y[n : 2 * n].T, found.y[2 * n : 3 * n].T
        g = found.y[3 * n]
        nu = np.array([multiplier(*row) for row in zip(p, q, u, strict=True)])
        fitted = (q * noise + pull * x * u) @ w  # b . w
        work = np.array([w @ (x * moments(*row)) for row in zip(p, q, u, strict=True)])
        train = 0.5 * (self.offset - (2 * fitted - work) / self.alpha)
        v = u @ w
        test = 0.5 * (self.offset - 2 * self.a * self.f * v + self.a**2 * self.c)
        correlation = free * (p * w) @ p.T + (q * noise * w) @ q.T + (u * w) @ u.T
        return LinearCurves(t, nu, v, train, test, correlation, self._integrated(t, x, w, g))

    def _integrated(self, t: FloatArray, x: FloatArray, w: FloatArray, g: FloatArray) -> FloatArray:
        """F(t, s) = int_s^t R(t, u) du with R(t, u) = sum_w exp(-x (t - u) - (g(t) - g(u))), g = int nu.

        g is interpolated by a spline of degree 7 through ``t``, so give a fine ``t``.
        """
        smooth = make_interp_spline(t, g, k=7)
        node, weight = np.polynomial.legendre.leggauss(8)
        cells = np.zeros((len(t), len(t)))
        for j in range(len(t) - 1):
            half, mid = 0.5 * (t[j + 1] - t[j]), 0.5 * (t[j + 1] + t[j])
            u = mid + half * node
            for n in range(j + 1, len(t)):
                kernel = np.exp(-np.outer(t[n] - u, x) - (g[n] - smooth(u))[:, None]) @ w
                cells[n, j] = half * float(weight @ kernel)
        return np.cumsum(cells[:, ::-1], axis=1)[:, ::-1]
