"""Gradient flow by a stabilised explicit Runge-Kutta method.

A plateau moves at a rate of 1/t while its fastest mode has a rate of order one, so that ordinary explicit steps would
be limited by stability alone. A Chebyshev method takes s force evaluations for a stable step of 0.65 s^2 over the
largest rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from validation.optimization.finite_size.models import Trainable

FloatArray = NDArray[np.float64]

_STAGES = 60  # at most, of one step
_LONGEST = 0.15  # of a step in units of the time reached
_REFRESH = 8  # accepted steps between two estimates of the largest rate


@dataclass(frozen=True)
class _Scheme:
    """Coefficients of RKC with s stages: w0, w1 and b_j, a_j, both (s + 1,)."""

    w0: float
    w1: float
    b: FloatArray
    a: FloatArray

    @classmethod
    def of(cls, stages: int) -> _Scheme:
        w0 = 1.0 + 2.0 / 13.0 / stages**2
        t, dt, ddt = np.zeros((3, stages + 1))
        t[0], t[1], dt[1] = 1.0, w0, 1.0
        for j in range(2, stages + 1):
            t[j] = 2.0 * w0 * t[j - 1] - t[j - 2]
            dt[j] = 2.0 * t[j - 1] + 2.0 * w0 * dt[j - 1] - dt[j - 2]
            ddt[j] = 4.0 * dt[j - 1] + 2.0 * w0 * ddt[j - 1] - ddt[j - 2]
        b = np.zeros(stages + 1)
        b[2:] = ddt[2:] / dt[2:] ** 2
        b[:2] = b[2]
        return cls(w0, float(dt[-1] / ddt[-1]), b, 1.0 - b * t)


class ChebyshevFlow:
    """Gradient flow on the product of spheres, by steps whose number of stages follows their length.

    The method is RKC, the Runge-Kutta-Chebyshev formulas of second order with damping 2/13 of B. P. Sommeijer, L. F.
    Shampine and J. G. Verwer (J. Comput. Appl. Math. 88 (1998) 315). The error of a step of length h from y0 to y, with
    slopes f0 and f, is estimated as in their code rkc.f: 0.8 (y0 - y) + 0.4 h (f0 + f). Here it is compared with an
    absolute tolerance in the root mean square, and rows are normalised after each step.

    Parameters
    ----------
    model : Trainable
    weights, a : (m, d), (m,)
        Where it starts.
    scale : float
        dt over the time of the flow: 1/alpha for t_mf.
    tolerance : float
        Of a step, see `validation.optimization.finite_size.plan.TOLERANCE`.

    Attributes
    ----------
    t : float
        Time of the flow: t_mf = alpha t if ``scale`` is 1/alpha.
    weights, a : (m, d), (m,)
    train_error : float
    forces : int
        Evaluations so far.
    """

    def __init__(self, model: Trainable, weights: FloatArray, a: FloatArray, scale: float, tolerance: float) -> None:
        self._model, self._scale, self._tolerance = model, scale, tolerance
        self._shape = weights.shape
        self._unit = np.concatenate([np.full(weights.size, weights.shape[1] ** -0.5), np.ones(len(a))])
        self.t, self.forces = 0.0, 0
        self._y = np.concatenate([weights.ravel(), a])
        self._slope, self.train_error = self._force(self._y)
        self._step = 0.01
        self._mode = self._slope.copy()
        self._rate = self._largest_rate(30)
        self._age = 0

    @property
    def weights(self) -> FloatArray:
        """Present first layer, rows of unit norm."""
        return self._split(self._y)[0]

    @property
    def a(self) -> FloatArray:
        """Present second layer."""
        return self._split(self._y)[1]

    def _split(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        size = self._shape[0] * self._shape[1]
        rows = y[:size].reshape(self._shape)
        return rows / np.linalg.norm(rows, axis=1)[:, None], y[size:]

    def _force(self, y: FloatArray) -> tuple[FloatArray, float]:
        self.forces += 1
        w, a = self._split(y)
        d_w, d_a, error = self._model.evaluate(w, a)
        d_w -= np.einsum("ij,ij->i", w, d_w)[:, None] * w
        return np.concatenate([d_w.ravel(), d_a]) * self._scale, error

    def _largest_rate(self, iterations: int) -> float:
        """Bound on the fastest decay, by power iteration from where the last one ended."""
        found = 0.0
        # Far above the rounding of forces in single precision, far below the scale on which they change.
        small = 1e-3 * float(np.linalg.norm(self._y))
        for _ in range(iterations):
            shift = self._mode * (small / float(np.linalg.norm(self._mode)))
            change = self._force(self._y + shift)[0] - self._slope
            before, found = found, float(np.linalg.norm(change)) / small
            self._mode = -change
            if abs(found - before) < 0.02 * found:
                break
        return 1.25 * found

    def step(self, t_final: float) -> None:
        """One accepted step, not beyond ``t_final``.

        Raises
        ------
        RuntimeError
            If steps become absurdly small: training diverges.
        """
        if self._age >= _REFRESH:
            self._rate, self._age = self._largest_rate(4), 0
        while True:
            longest = 0.65 * (_STAGES**2 - 1) / self._rate
            h = min(self._step, t_final - self.t, _LONGEST * (self.t + 1.0), longest)
            new, slope, train_error, error = self._attempt(h)
            grow = 0.8 * max(error, 1e-9) ** (-1.0 / 3.0)
            if error <= 1.0:
                self._step = h * min(3.0, grow)
                self.t, self._y, self._slope, self.train_error = self.t + h, new, slope, train_error
                self._age += 1
                return
            self._step = h * max(0.2, grow) if math.isfinite(error) else 0.1 * h
            if self._step < 1e-10 * (1.0 + self.t):
                raise RuntimeError(f"training diverged at t = {self.t:.4g}")
            # A rate that has risen since the last estimate looks like a large error.
            self._rate, self._age = max(self._rate, self._largest_rate(6)), 0

    def _attempt(self, h: float) -> tuple[FloatArray, FloatArray, float, float]:
        stages = min(max(2, 1 + math.isqrt(math.floor(1.0 + h * self._rate / 0.65))), _STAGES)
        c = _Scheme.of(stages)
        start, slope = self._y, self._slope
        before, y = start, start + c.b[1] * c.w1 * h * slope
        for j in range(2, stages + 1):
            mu, nu = 2.0 * c.b[j] * c.w0 / c.b[j - 1], -c.b[j] / c.b[j - 2]
            forward = 2.0 * c.b[j] * c.w1 / c.b[j - 1]
            now = (1.0 - mu - nu) * start + mu * y + nu * before + h * forward * self._force(y)[0]
            now -= h * forward * c.a[j - 1] * slope
            before, y = y, now
        new = np.concatenate([part.ravel() for part in self._split(y)])
        end, train_error = self._force(new)
        difference = 0.8 * (start - y) + 0.4 * h * (slope + end)
        error = math.sqrt(float(np.mean((difference / self._unit) ** 2))) / self._tolerance
        return new, end, train_error, error
