"""Local polynomial interpolation on non-uniform grids: pure numpy, no knowledge of any equation.

The grids are those of a variable-step integrator, roughly geometric, from 1e-7 to 1e7 and beyond. Every formula here
uses differences of nodes and their ratios only, so a change of the time unit changes no result. A value asked for
exactly at a node is the stored value, bit for bit.

`value_weights` and `derivative_weights` are written as plain loops on arrays, so that a compiled solver may pass
them through ``numba.njit`` unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def value_weights(nodes: FloatArray, x: float) -> FloatArray:
    """Weights of the value at ``x`` of the polynomial through ``nodes``.

    Parameters
    ----------
    nodes : (p,) float
        Distinct nodes, in any order.
    x : float
        Where the interpolating polynomial of degree ``p - 1`` is wanted; outside the nodes it is extrapolated.

    Returns
    -------
    (p,) float
        ``sum(weights * f(nodes))`` is the value. Exactly a unit vector when ``x`` is a node.
    """
    p = nodes.shape[0]
    weights = np.ones(p)
    for j in range(p):
        for i in range(p):
            if i != j:
                weights[j] *= (x - nodes[i]) / (nodes[j] - nodes[i])
    return weights


def derivative_weights(nodes: FloatArray, x: float) -> FloatArray:
    """Weights of the first derivative at ``x`` of the polynomial through ``nodes``.

    Parameters
    ----------
    nodes : (p,) float
        Distinct nodes, in any order.
    x : float
        Where the derivative is wanted, usually (but not necessarily) one of the nodes.

    Returns
    -------
    (p,) float
        ``sum(weights * f(nodes))`` is the derivative. The weights sum to zero up to the rounding of one addition, so
        constants are annihilated however small the steps are against ``x``.

    Notes
    -----
    B. Fornberg, Math. Comp. 51 (1988) 699, restricted to the first derivative. With ``nodes = t[n-K : n+1]`` and
    ``x = t[n]`` these are the coefficients of the variable-step BDF-K formula, in ascending order of time.
    """
    p = nodes.shape[0]
    value = np.zeros(p)
    weights = np.zeros(p)
    value[0] = 1.0
    previous_product = 1.0
    offset = nodes[0] - x
    for i in range(1, p):
        product = 1.0
        previous_offset = offset
        offset = nodes[i] - x
        for j in range(i):
            gap = nodes[i] - nodes[j]
            product *= gap
            if j == i - 1:
                scale = previous_product / product
                weights[i] = scale * (value[i - 1] - previous_offset * weights[i - 1])
                value[i] = -scale * previous_offset * value[i - 1]
            weights[j] = (offset * weights[j] - value[j]) / gap
            value[j] = offset * value[j] / gap
        previous_product = product
    # The weight of the nearest node is the largest, so it can absorb the rounding of all the others.
    nearest = 0
    for j in range(1, p):
        if abs(nodes[j] - x) < abs(nodes[nearest] - x):
            nearest = j
    total = 0.0
    for j in range(p):
        if j != nearest:
            total += weights[j]
    weights[nearest] = -total
    return weights


@dataclass(frozen=True)
class Stencil:
    """Which nodes, with which weights, make up a linear functional at each of X points.

    Attributes
    ----------
    index : (X, P) int
        Rows into the grid. Unused places repeat a valid row and carry weight zero.
    weight : (X, P) float
        The weights, so that ``sum(weight * values[index], axis=1)`` is the result.
    """

    index: IntArray
    weight: FloatArray

    def apply(self, values: FloatArray) -> FloatArray:
        """Apply to ``values`` of shape (N, ...); the result has shape (X, ...)."""
        gathered = np.asarray(values, dtype=float)[self.index]
        weight = self.weight.reshape(self.weight.shape + (1,) * (gathered.ndim - 2))
        return np.asarray((weight * gathered).sum(axis=1), dtype=float)


def cell_degree(nodes: FloatArray, order: ArrayLike, x: FloatArray) -> IntArray:
    """Polynomial degree at each point: the order of the row that ends the point's cell, at least one.

    Parameters
    ----------
    nodes : (N,) float
        Ascending grid.
    order : int or (N,) int
        One degree, or the order of each row.
    x : (X,) float
        Points inside the grid.
    """
    orders = np.broadcast_to(np.asarray(order, dtype=np.int64), nodes.shape)
    right = np.clip(np.searchsorted(nodes, x, side="left"), 1, max(len(nodes) - 1, 1))
    return np.maximum(orders[np.minimum(right, len(nodes) - 1)], 1)


def _cells(nodes: FloatArray, x: FloatArray, last: IntArray | None) -> tuple[IntArray, IntArray]:
    """Row that ends the cell of each point, and the last row that the point may use."""
    final = np.full(x.shape, len(nodes) - 1) if last is None else np.asarray(last, dtype=np.int64)
    return np.minimum(np.maximum(np.searchsorted(nodes, x, side="left"), 1), final), final


def local_stencil(nodes: FloatArray, degree: ArrayLike, x: FloatArray, last: IntArray | None = None) -> Stencil:
    """Interpolation stencils around each point, centred on its cell where the grid allows.

    Parameters
    ----------
    nodes : (N,) float
        Ascending grid.
    degree : int or (X,) int
        Degree of the polynomial at each point.
    x : (X,) float
        Points inside ``[nodes[0], nodes[-1]]``.
    last : (X,) int, optional
        Largest row each point may use, for functions that exist on one side of a diagonal only.

    Returns
    -------
    Stencil
        Of ``degree + 1`` rows, fewer where fewer exist. The error is O(h^(degree + 1)).
    """
    right, final = _cells(nodes, x, last)
    degree = np.minimum(np.asarray(degree, dtype=np.int64), final)
    # One row more on the left than on the right for even degrees: on a geometric grid the cells on the left are the
    # smaller ones.
    start = np.clip(right - 1 - degree // 2, 0, final - degree)
    places = np.arange(int(degree.max(initial=0)) + 1)
    used = places <= degree[:, None]
    index = start[:, None] + np.where(used, places, 0)
    points = nodes[index]
    # Lagrange's product form; masked pairs contribute a factor of one.
    pair = used[:, None, :] & ~np.eye(len(places), dtype=bool)
    ratio = np.ones((len(x), len(places), len(places)))
    np.divide(
        (x[:, None] - points)[:, None, :],
        points[:, :, None] - points[:, None, :],
        out=ratio,
        where=pair & used[:, :, None],
    )
    return Stencil(index, np.where(used, np.prod(ratio, axis=2), 0.0))


def fit_stencil(nodes: FloatArray, degree: int, window: int, x: FloatArray, last: IntArray | None = None) -> Stencil:
    """Stencils of the first derivative of a local least-squares polynomial.

    A fit over more nodes than its degree needs averages over node-to-node wiggles that differences would amplify.

    Parameters
    ----------
    nodes : (N,) float
        Ascending grid.
    degree : int
        Degree of the polynomial; lowered where fewer rows exist.
    window : int
        Number of rows fitted, at least ``degree + 1``.
    x : (X,) float
        Points where the derivative is wanted.
    last : (X,) int, optional
        Largest row each point may use.

    Returns
    -------
    Stencil
        Exact for polynomials up to ``degree``.
    """
    right, final = _cells(nodes, x, last)
    count = np.minimum(window, final + 1)
    start = np.clip(right - count // 2, 0, final + 1 - count)
    places = np.arange(window)
    used = places < count[:, None]
    index = start[:, None] + np.where(used, places, 0)
    offset = nodes[index] - x[:, None]
    scale = np.abs(np.where(used, offset, 0.0)).max(axis=1, initial=0.0)
    scale = np.where(scale > 0.0, scale, 1.0)
    powers = (offset / scale[:, None])[:, :, None] ** np.arange(degree + 1)
    kept = used[:, :, None] & (np.arange(degree + 1) < count[:, None])[:, None, :]
    powers = np.where(kept, powers, 0.0)
    # Normal equations: with offsets scaled to one and degrees this low their condition number is below 10^6, and the
    # derivative is a difference of data that are no better than that. Missing powers are set to zero by a unit row.
    normal = powers.transpose(0, 2, 1) @ powers
    missing = ~kept.any(axis=1)
    normal[:, np.arange(degree + 1), np.arange(degree + 1)] += missing
    first = np.zeros((len(x), degree + 1, 1))
    first[:, min(1, degree)] = 1.0
    weight = (powers @ np.linalg.solve(normal, first))[:, :, 0] / scale[:, None]
    return Stencil(index, weight)


def interpolate(nodes: FloatArray, values: FloatArray, order: ArrayLike, x: ArrayLike) -> FloatArray:
    """Interpolate ``values`` at ``x`` by local polynomials.

    Parameters
    ----------
    nodes : (N,) float
        Ascending grid.
    values : (N, ...) float
        Values on the grid.
    order : int or (N,) int
        Degree of the polynomial, or the degree in the cell that each row ends.
    x : array of any shape
        Points inside the grid.

    Returns
    -------
    x.shape + values.shape[1:] float
        The stored value itself where ``x`` is a node.

    Raises
    ------
    ValueError
        When a point is not a finite number inside the grid.
    """
    points = np.asarray(x, dtype=float)
    check_inside("x", points, nodes)
    values = np.asarray(values, dtype=float)
    if len(nodes) == 1:
        return np.asarray(np.broadcast_to(values[0], points.shape + values.shape[1:]), dtype=float).copy()
    flat = points.ravel()
    stencil = local_stencil(nodes, cell_degree(nodes, order, flat), flat)
    return stencil.apply(values).reshape(points.shape + values.shape[1:])


def check_inside(name: str, points: FloatArray, nodes: FloatArray) -> None:
    """Refuse points that are not finite numbers in ``[nodes[0], nodes[-1]]``: nothing here extrapolates."""
    outside = ~((points >= nodes[0]) & (points <= nodes[-1]))
    if np.any(outside):
        raise ValueError(
            f"{name} = {float(points[outside].flat[0])!r} is outside the solved range: "
            f"allowed are times from {float(nodes[0])!r} to {float(nodes[-1])!r}"
        )
