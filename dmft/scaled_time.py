"""Functions of two times on the axes (ln t, s/t), where short times and ageing are resolved alike.

Rows at times t_n hold values at the ratios s/t = theta(x) = (1 + tanh(a x)/tanh a)/2, x uniform in [-1, 1]. Near both
ends the nodes are uniform in ln s and in ln(t - s). ``kappa`` = 1 - theta goes along with theta and is never formed by
subtraction, so that t - s keeps its relative accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_TIMES, _RATIOS = 6, 10
"""Points of an interpolation in ln t and in x."""


def ratios(size: int, stretch: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Nodes of a row.

    Parameters
    ----------
    size : int
        Number L of nodes.
    stretch : float
        2a; the smallest s and t - s next to the ends are about exp(-2a) t.

    Returns
    -------
    theta, kappa, slope : (L,)
        s/t, 1 - s/t, and d theta/dx.
    """
    x = np.linspace(-1.0, 1.0, size)
    a = 0.5 * stretch
    theta = np.sinh(a * (1.0 + x)) / (2.0 * np.cosh(a * x) * np.sinh(a))
    return theta, theta[::-1].copy(), a / (2.0 * np.tanh(a) * np.cosh(a * x) ** 2)


def ratio_position(size: int, stretch: float, theta: FloatArray, kappa: FloatArray) -> FloatArray:
    """Place among the nodes, 0 to L - 1, of s/t = theta = 1 - kappa; arrays of one shape."""
    tanh = float(np.tanh(0.5 * stretch))
    missing = 2.0 / (np.exp(stretch) + 1.0)  # 1 - tanh
    ratio = (missing + 2.0 * tanh * theta) / (missing + 2.0 * tanh * kappa)
    return np.asarray(0.5 * (size - 1) * (np.log(ratio) / stretch + 1.0))


def uniform_stencil(position: FloatArray, size: int, points: int) -> tuple[IntArray, FloatArray]:
    """First of ``points`` neighbouring nodes around each position, and the Lagrange weights, (..., points)."""
    start = np.clip(np.floor(position).astype(np.int64) - points // 2 + 1, 0, size - points)
    offset = position - start
    weight = np.ones((*offset.shape, points))
    for j in range(points):
        for i in range(points):
            if i != j:
                weight[..., j] *= (offset - i) / (j - i)
    return start, weight


@dataclass(frozen=True)
class ScaledTwoTime:
    """Two-time functions of a solution on (ln t, s/t).

    Attributes
    ----------
    t : (N,)
        Times of the rows, > 0; before the first one nothing has moved.
    stretch : float
        Of the nodes, see `ratios`.
    correlation, response, integrated_response : (modes, N, L)
        C, R and int_s^t R(t, u) du for s <= t, in the order of `dmft.solution.mode_names`.
    residual_correlation : (N, L) or None
        C_r; None for the p-spin model.
    """

    t: FloatArray
    stretch: float
    correlation: FloatArray
    response: FloatArray
    integrated_response: FloatArray
    residual_correlation: FloatArray | None

    @property
    def size(self) -> int:
        """Nodes of a row, L."""
        return int(self.correlation.shape[-1])

    def evaluate(
        self, values: FloatArray, t: FloatArray, s: FloatArray, points: tuple[int, int] = (_TIMES, _RATIOS)
    ) -> FloatArray:
        """Interpolate one stored function (N, L) at t >= s, arrays (X,), by ``points`` in ln t and in x.

        Along ln t it is read at fixed s/t. At t = s the value is the one of the diagonal.
        """
        theta = np.divide(s, t, out=np.ones_like(t), where=t > 0.0)
        kappa = np.divide(t - s, t, out=np.zeros_like(t), where=t > 0.0)
        node, node_weight = uniform_stencil(ratio_position(self.size, self.stretch, theta, kappa), self.size, points[1])
        count = min(points[0], len(self.t))
        log_t = np.log(self.t)
        with np.errstate(divide="ignore"):
            target = np.clip(np.log(t), log_t[0], log_t[-1])
        cell = np.searchsorted(log_t, target, side="right") - 1
        first = np.clip(cell - count // 2 + 1, 0, len(log_t) - count)
        rows = first[:, None] + np.arange(count)
        near = log_t[rows]
        weight = np.ones((len(t), count))
        for j in range(count):
            for i in range(count):
                if i != j:
                    weight[:, j] *= (target - near[:, i]) / (near[:, j] - near[:, i])
        nodes = node[:, None] + np.arange(points[1])
        block = values[rows[:, :, None], nodes[:, None, :]]
        return np.asarray(np.einsum("xr,xrp,xp->x", weight, block, node_weight))

    def error(self, values: FloatArray, t: FloatArray, s: FloatArray) -> FloatArray:
        """Difference between interpolations of two orders: how well ``evaluate`` resolves the function, (X,)."""
        return np.abs(self.evaluate(values, t, s) - self.evaluate(values, t, s, (_TIMES - 2, _RATIOS - 2)))
