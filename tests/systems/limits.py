"""Limits of the network equations that reduce to formulas or small differential equations (README.md, sections 2-5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Overlap:
    """phihat(v) as monomials in k variables, with its gradient."""

    exponents: NDArray[np.int64]  # (terms, k)
    coefficients: FloatArray  # (terms,)

    def value(self, v: FloatArray) -> float:
        return float((self.coefficients * np.prod(v**self.exponents, axis=1)).sum()) if len(self.exponents) else 0.0

    def gradient(self, v: FloatArray) -> FloatArray:
        result = np.zeros(len(v))
        for axis in range(len(v)):
            unit = np.eye(len(v), dtype=np.int64)[axis]
            kept = self.exponents[:, axis] > 0
            lowered = self.exponents[kept] - unit
            result[axis] = (self.coefficients[kept] * self.exponents[kept, axis] * np.prod(v**lowered, axis=1)).sum()
        return result


@dataclass(frozen=True)
class Flow:
    """Curves of a deterministic limit at the requested times: a (N, m), v (N, m, k), error (N,)."""

    t: FloatArray
    a: FloatArray
    v: FloatArray
    error: FloatArray


@dataclass(frozen=True)
class MeanField:
    """m -> infinity at fixed alpha and t = O(1): one neuron's a and v, theory section 4 (2.10)."""

    alpha: float
    covariance: FloatArray  # h, ascending
    overlap: Overlap
    offset: float  # tau^2 + |phi|^2
    a0: float
    v0: FloatArray  # (k,)
    train_second_layer: bool = True

    def curves(self, t: ArrayLike) -> Flow:
        """Integrate to 1e-12 and read off at ``t``."""
        t = np.asarray(t, dtype=np.float64)
        k = len(self.v0)
        dh = polynomial.polyder(self.covariance)

        def rate(_: float, state: FloatArray) -> FloatArray:
            a, v = state[0], state[1:]
            q = v @ v
            pull = self.overlap.gradient(v) - a * polynomial.polyval(q, dh) * v
            dv = self.alpha * a * (pull - v * (v @ pull))
            da = self.alpha * (self.overlap.value(v) - a * polynomial.polyval(q, self.covariance))
            return np.concatenate([[da if self.train_second_layer else 0.0], dv])

        start = np.concatenate([[self.a0], self.v0])
        state = _integrate(rate, start, t)
        a, v = state[:, 0], state[:, 1:]
        error = [
            0.5 * (self.offset - 2 * x * self.overlap.value(y) + x**2 * polynomial.polyval(y @ y, self.covariance))
            for x, y in zip(a, v, strict=True)
        ]
        return Flow(t, a[:, None], v.reshape(len(t), 1, k), np.array(error))


@dataclass(frozen=True)
class Population:
    """alpha -> infinity at fixed m: gradient flow of the test error, in the time alpha t."""

    covariance: FloatArray
    overlap: Overlap
    offset: float
    a0: FloatArray  # (m,)
    v0: FloatArray  # (m, k)
    gram0: FloatArray  # (m, m)
    train_second_layer: bool = True

    def rates(self, a: FloatArray, v: FloatArray, gram: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """d/d(alpha t) of a, v and the Gram matrix."""
        m = len(a)
        h = polynomial.polyval(gram, self.covariance)
        dh = polynomial.polyval(gram, polynomial.polyder(self.covariance))
        drive = a[:, None] * np.array([self.overlap.gradient(row) for row in v])
        couple = a[:, None] * a * dh / m
        half = drive @ v.T - couple @ gram  # <force_i, w_j>
        nu = np.diagonal(half)
        half = half - nu[:, None] * gram
        dv = drive - couple @ v - nu[:, None] * v
        da = np.array([self.overlap.value(row) for row in v]) - h @ a / m
        return (da if self.train_second_layer else 0.0 * da), dv, half + half.T

    def error(self, a: FloatArray, v: FloatArray, gram: FloatArray) -> float:
        m = len(a)
        signal = sum(x * self.overlap.value(row) for x, row in zip(a, v, strict=True)) / m
        return 0.5 * float(self.offset - 2 * signal + a @ polynomial.polyval(gram, self.covariance) @ a / m**2)

    def curves(self, alpha_t: ArrayLike) -> Flow:
        """Integrate to 1e-12 and read off at ``alpha_t``."""
        times = np.asarray(alpha_t, dtype=np.float64)
        m, k = self.v0.shape

        def split(state: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
            return state[:m], state[m : m + m * k].reshape(m, k), state[m + m * k :].reshape(m, m)

        def rate(_: float, state: FloatArray) -> FloatArray:
            return np.concatenate([x.ravel() for x in self.rates(*split(state))])

        start = np.concatenate([self.a0, self.v0.ravel(), self.gram0.ravel()])
        states = [split(row) for row in _integrate(rate, start, times)]
        return Flow(
            times,
            np.array([s[0] for s in states]),
            np.array([s[1] for s in states]),
            np.array([self.error(*s) for s in states]),
        )


@dataclass(frozen=True)
class LazyStart:
    """a = gamma_0 sqrt(m), m -> infinity at t1 = m t = O(1): the linear fit, theory section 4 (F.5-F.12)."""

    alpha: float
    gamma0: float
    covariance: FloatArray
    slope: FloatArray  # g(0), (k,); zero for noise
    offset: float

    @property
    def rate(self) -> float:
        """r = alpha gamma_0^2 h'(0)."""
        return self.alpha * self.gamma0**2 * float(self.covariance[1])

    def overlap(self, t1: ArrayLike) -> FloatArray:
        """sqrt(m) v, (N, k)."""
        rise = -np.expm1(-self.rate * np.asarray(t1, dtype=np.float64))
        return rise[:, None] * self.slope / (self.gamma0 * self.covariance[1])

    def correlation_s(self, t1: ArrayLike, s1: ArrayLike) -> FloatArray:
        """C_S = C_d + (m - 1) C_o on the grid t1 x s1; the limit of m C_o is this less 1."""
        t1, s1 = np.asarray(t1, dtype=np.float64), np.asarray(s1, dtype=np.float64)
        return np.exp(-self.rate * (t1[:, None] + s1)) + self.overlap(t1) @ self.overlap(s1).T

    def response_s(self, t1: ArrayLike, s1: ArrayLike) -> FloatArray:
        """R_S = exp(-r (t1 - s1)); the limit of m R_o is this less 1."""
        t1, s1 = np.asarray(t1, dtype=np.float64), np.asarray(s1, dtype=np.float64)
        return np.where(t1[:, None] >= s1, np.exp(-self.rate * np.maximum(t1[:, None] - s1, 0.0)), 0.0)

    def error(self, t1: ArrayLike) -> FloatArray:
        """Train and test error alike."""
        t1 = np.asarray(t1, dtype=np.float64)
        signal = self.gamma0 * self.overlap(t1) @ self.slope
        spread = np.array([self.correlation_s([x], [x])[0, 0] for x in t1]) - 1.0
        total = self.offset - 2 * signal
        total = total + self.gamma0**2 * (self.covariance.sum() + self.covariance[1] * spread)
        return 0.5 * np.asarray(total)

    @property
    def e_lin(self) -> float:
        """The error after the linear fit, (2.7)."""
        return e_lin(self.gamma0, self.covariance, self.slope, self.offset)


def e_lin(gamma: float, covariance: FloatArray, slope: FloatArray, offset: float) -> float:
    """[tau^2 + |phi|^2 - |g(0)|^2/h'(0) + gamma^2 (h(1) - h'(0))] / 2, theory section 4 (2.7)."""
    learnt = float(slope @ slope) / covariance[1] if covariance[1] > 0 else 0.0
    return 0.5 * float(offset - learnt + gamma**2 * (covariance.sum() - covariance[1]))


@dataclass(frozen=True)
class NoiseScaling:
    """Pure noise, fixed a: (tau, a) -> (c tau, c a) is t -> t/c^2; errors and 1/time scale with c^2."""

    factor: float

    def time(self, t: ArrayLike) -> FloatArray:
        """Time in the scaled problem at which it is where the original is at ``t``."""
        return np.asarray(t, dtype=np.float64) / self.factor**2

    def error(self, error: ArrayLike) -> FloatArray:
        """Error (or nu) of the scaled problem there. C is the same, and integrated R is 1/c^2 of the original."""
        return np.asarray(error, dtype=np.float64) * self.factor**2


def _integrate(rate: object, start: FloatArray, times: FloatArray) -> FloatArray:
    """States (N, n) at increasing ``times`` from t = 0."""
    found = solve_ivp(rate, (0.0, float(times[-1])), start, method="DOP853", t_eval=times, rtol=1e-12, atol=1e-14)
    if not found.success:
        raise RuntimeError(found.message)
    return np.asarray(found.y.T)
