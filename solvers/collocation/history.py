"""Rows computed so far, and what the row under construction needs of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmft.interpolation import derivative_weights, value_weights
from solvers.collocation.grid import FloatArray, Grid, IntArray, Stencil
from solvers.collocation.kernels import (
    LAGS,
    add_newest_points,
    add_newest_rows,
    causal_products,
    interpolate_row,
    past_points,
    past_rows,
    row_stencils,
    spread,
)

ORDER = 4
"""Order of the backward differentiation formula in ln t. The transport term has a spectrum near the imaginary axis at
high frequencies, for which orders above 4 are unstable."""


class History:
    """Functions of two times as rows over (ln t, node, function), and functions of one time.

    Parameters
    ----------
    grid : Grid
        Nodes of every row.
    values : (F,)
        The functions of two times at t = s = 0.
    scalars : (S,)
        The functions of one time at t = 0.
    log_t : float
        ln t up to which nothing has moved; the first rows end there.
    """

    def __init__(self, grid: Grid, values: FloatArray, scalars: FloatArray, log_t: float) -> None:
        self.grid = grid
        self.count = LAGS
        self.log_t = log_t + 0.1 * np.arange(1.0 - LAGS, 1.0)
        self.rows = np.tile(values, (LAGS, grid.size, 1))
        self.scalars = np.tile(scalars, (LAGS, 1))

    @property
    def newest(self) -> float:
        """Logarithm of the newest row's time."""
        return float(self.log_t[self.count - 1])

    def append(self, log_t: float, values: FloatArray, scalars: FloatArray) -> None:
        """Add a row: (L, F) and (S,)."""
        self.reserve()
        self.log_t[self.count] = log_t
        self.rows[self.count] = values
        self.scalars[self.count] = scalars
        self.count += 1

    def reserve(self) -> None:
        """Make room for one more row."""
        if self.count < len(self.log_t):
            return
        capacity = max(64, 2 * self.count)
        for name in ("log_t", "rows", "scalars"):
            old = getattr(self, name)
            new = np.zeros((capacity, *old.shape[1:]))
            new[: self.count] = old[: self.count]
            setattr(self, name, new)

    def resample(self, grid: Grid) -> None:
        """Carry every row over to another grid."""
        matrix = self.grid.resampling(grid)
        self.rows = np.ascontiguousarray(np.einsum("ij,njf->nif", matrix, self.rows[: self.count], optimize=True))
        self.log_t = self.log_t[: self.count].copy()
        self.scalars = self.scalars[: self.count].copy()
        self.grid = grid


@dataclass
class Layout:
    """Which stored functions a system reads, and which products of them it integrates.

    Attributes
    ----------
    inner, between : slice
        Stored functions that stand second in integrals over u < s and over s < u < t.
    inner_pairs, outer_pairs : (P, 2) int
        Pairs (function of the row, of the slice) whose products are integrated.
    """

    inner: slice
    between: slice
    inner_pairs: IntArray
    outer_pairs: IntArray


class Frame:
    """The row under construction at ln t = newest + step: everything that does not depend on its values.

    Attributes
    ----------
    t : float
        Its time.
    derivative : (ORDER + 1,)
        Weights of d/dln t at fixed x, oldest row first.
    whole, below, above : (L,), (L, L), (L, L)
        Weights of the integrals over u from 0 to t, from 0 to s_k, and from s_k to t.
    predicted_values, predicted_scalars
        Extrapolated row (L, F), (S,).
    newest_diagonal : (F,)
        The newest row at s = t.
    past_values, past_scalars
        Older rows' share of the derivative in ln t, (L, F) and (S,).
    past_inner_scalars, newest_inner : (L, S), (L,)
        Functions of one time at the nodes: the older rows' share, and the weight of the newest value.
    """

    def __init__(self, history: History, step: float, layout: Layout) -> None:
        self.grid = grid = history.grid
        self.layout = layout
        history.reserve()
        n, size = history.count, grid.size
        log_t = history.log_t
        self.log_t = history.newest + step
        log_t[n] = self.log_t
        self.t = t = float(np.exp(self.log_t))
        recent = slice(n - ORDER, n)
        self.derivative = derivative_weights(log_t[n - ORDER : n + 1] - self.log_t, 0.0)
        older = slice(n - ORDER - 1, n)
        self.newest_diagonal = history.rows[n - 1, -1]
        self.predictor = value_weights(log_t[older] - self.log_t, 0.0)
        self.predicted_values = np.tensordot(self.predictor, history.rows[older], 1)
        self.predicted_scalars = self.predictor @ history.scalars[older]
        self.past_values = np.tensordot(self.derivative[:-1], history.rows[recent], 1)
        self.past_scalars = self.derivative[:-1] @ history.scalars[recent]

        start, weight = np.empty((size, 1), np.int64), np.empty((size, 1, LAGS))
        row_stencils(log_t, n, grid.log_theta[:, None], start, weight)
        self._past_inner = np.empty((size, size, layout.inner.stop - layout.inner.start))
        self.newest_inner = np.empty(size)
        past_rows(history.rows[:, :, layout.inner], n, start, weight, self._past_inner, self.newest_inner)
        rows = start + np.arange(LAGS)
        older_weight = np.where(rows < n, weight[:, 0], 0.0)
        self.past_inner_scalars = np.einsum("kr,krs->ks", older_weight, history.scalars[np.minimum(rows, n - 1)])

        start, weight = np.empty((size, size), np.int64), np.empty((size, size, LAGS))
        row_stencils(log_t, n, grid.log_outer, start, weight)
        self._past_between = np.empty((size, size, layout.between.stop - layout.between.start))
        self._newest_between = np.empty((size, size))
        past_points(
            history.rows[:, :, layout.between],
            n,
            start,
            weight,
            *grid.between,
            self._past_between,
            self._newest_between,
        )
        self.whole = t * grid.quadrature
        self.below = grid.theta[:, None] * self.whole
        self.above = grid.kappa[:, None] * self.whole

    # ---- values under the integrals; all arrays are (node k, integration node j, function)

    def at_inner(self, values: FloatArray) -> FloatArray:
        """Functions (L, M) of this row at (t, u), u < s."""
        return self._interpolated(values, self.grid.inner)

    def at_outer(self, values: FloatArray) -> FloatArray:
        """Functions (L, M) of this row at (t, u), s < u < t."""
        return self._interpolated(values, self.grid.outer)

    def _interpolated(self, values: FloatArray, stencil: Stencil) -> FloatArray:
        result = np.empty((*stencil.start.shape, values.shape[1]))
        interpolate_row(values, *stencil, result)
        return result

    def earlier(self, values: FloatArray) -> FloatArray:
        """The `Layout.inner` functions at (s, u), u < s, given their values (L, M) on this row."""
        result = np.empty_like(self._past_inner)
        add_newest_rows(self._past_inner, self.newest_inner, values, result)
        return result

    def between(self, values: FloatArray) -> FloatArray:
        """The `Layout.between` functions at (u, s), s < u < t, given their values (L, M) on this row."""
        result = np.empty_like(self._past_between)
        add_newest_points(self._past_between, self._newest_between, values, *self.grid.between, result)
        return result

    def integrals_below(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """A(X, Y) = int_0^s X(t,u) Y(s,u) du for the inner pairs, (L, P)."""
        result = np.empty((self.grid.size, len(self.layout.inner_pairs)))
        causal_products(self.below, left, right, self.layout.inner_pairs, result)
        return result

    def integrals_above(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """B(X, Y) = int_s^t X(t,u) Y(u,s) du for the outer pairs, (L, P)."""
        result = np.empty((self.grid.size, len(self.layout.outer_pairs)))
        causal_products(self.above, left, right, self.layout.outer_pairs, result)
        return result

    # ---- their derivatives, matrices (L, L)

    def slope_below_left(self, right: FloatArray) -> FloatArray:
        """Derivative of A(X, Y) by X at the nodes, for Y (L, L) under the integral."""
        return self._spread(self.below, right, self.grid.inner)

    def slope_above_left(self, right: FloatArray) -> FloatArray:
        """Derivative of B(X, Y) by X."""
        return self._spread(self.above, right, self.grid.outer)

    def slope_below_right(self, left: FloatArray) -> FloatArray:
        """Derivative of A(X, Y) by Y of this row, which rows close to the newest one contain by interpolation."""
        return np.asarray(self.below * left * self.newest_inner[:, None])

    def slope_above_right(self, left: FloatArray) -> FloatArray:
        """Derivative of B(X, Y) by Y of this row."""
        return self._spread(self.above * self._newest_between, left, self.grid.between)

    def _spread(self, weight: FloatArray, factor: FloatArray, stencil: Stencil) -> FloatArray:
        result = np.zeros((self.grid.size, self.grid.size))
        spread(weight, factor, *stencil, result)
        return result


def pairs(*entries: tuple[int, int]) -> NDArray[np.int64]:
    """Pairs as `Layout` wants them."""
    return np.array(entries, dtype=np.int64)
