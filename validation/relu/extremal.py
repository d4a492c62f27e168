"""Extremal vectors: the directions to which neurons turn while all weights are tiny ([BF], theory section 9).

As long as f = 0 to leading order, the residuals are the labels and the direction u = w/|w| of a neuron climbs (a > 0)
or descends (a < 0) on the unit sphere the function

    G(u) = (1/n) sum_k y_k sigma(<u, x_k>),        sigma(z) = z for z > 0 and slope z below.

G is linear on each cone of constant activation pattern, where its gradient is
D(u) = (1/n) sum_k y_k sigma'(<u, x_k>) x_k; where <u, x_k> = 0 it has a kink, and its Clarke subdifferential holds
D^- + sum_k t_k (1 - slope) y_k x_k/n with t_k in [0, 1]. Extremal vectors are the critical points of G on the sphere in
that sense: some D of the subdifferential is parallel to u, or zero.

Inputs on one line through the origin (repeated, rescaled or opposite ones) have their kinks in common, so they share
one t: G depends on them through a function of <u, e> with one kink, of strength (1 - slope) sum y_k |x_k|/n, which may
vanish. Inputs x_k = 0 do not act.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmft._jit import entry
from dmft._validate import integer, real, real_array, shown

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

STARTS = 100
"""Default number of random starts for each sign in d > 2."""
SAME = 1e-9
"""End points with a cosine above 1 - SAME are one extremal vector."""

_ANGLE = 1e-12  # radians below which two directions are taken for one
_FLAT = 1e-13  # part of the largest possible |D| below which a derivative is taken for zero


class TooManyPiecesError(RuntimeError):
    """The path of a direction has more pieces than allowed."""


@dataclass(frozen=True, eq=False)
class Extremal:
    """A critical point of G on the unit sphere.

    Attributes
    ----------
    direction : (d,) float
        The unit vector u.
    drive : (d,) float
        The element D of the subdifferential that is parallel to u: D = value u.
    value : float
        <u, D> = G(u), with its sign; exactly 0 where the drive vanishes.
    kinks : tuple of int
        Inputs k with <u, x_k> = 0, x_k != 0, at which G has a kink.
    attracts : {"up", "down", "none"}
        "up": local maximum of G on the sphere, to which neurons with a > 0 turn; "down": local minimum, a < 0; "none":
        neither. Maxima and minima need not be strict: the edge of a region where G = 0 is "up" if G < 0 beyond, and
        "down" if G > 0; the inside of the region is "none". Where kinks of both kinds (y_k > 0 and y_k < 0) meet in
        one critical point, as generic data forbid, "none" is said without a look at which of them prevail.
    """

    direction: FloatArray
    drive: FloatArray
    value: float
    kinks: tuple[int, ...]
    attracts: str


def extremal_vectors_2d(inputs: ArrayLike, labels: ArrayLike, slope: float = 0.0) -> list[Extremal]:
    """All extremal vectors in d = 2, exactly.

    Parameters
    ----------
    inputs : (n, 2) float
    labels : (n,) float
    slope : float
        Slope of sigma below zero, 0 <= slope < 1.

    Returns
    -------
    list of Extremal
        By falling value. An arc on which G = 0 consists of critical points; its ends and its middle stand for it.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of this kind.
    """
    lines = _Lines.of(inputs, labels, slope)
    if lines.dimension != 2:
        raise ValueError(f"inputs must have 2 columns, not {lines.dimension}: for more, use extremal_vectors.")
    return sorted(_circle(lines), key=lambda extremal: -extremal.value)


def ascend(
    start: ArrayLike,
    inputs: ArrayLike,
    labels: ArrayLike,
    slope: float = 0.0,
    sign: int = 1,
    *,
    pieces: int | None = None,
) -> Extremal:
    """End point of du/dt = sign (I - u u^T) D(u): where the direction of an infinitesimal neuron turns.

    D is constant in a cone, so that u moves on the great circle towards sign D/|D|, and the next kink is found in
    closed form. A kink is crossed unless both sides push towards it, which takes sign y_k < 0; then u slides along it,
    driven by the element of least norm of the subdifferential, and t_k stays constant until the next kink.

    Parameters
    ----------
    start : (d,) float
        A vector along the initial direction; its length does not matter. On a kink that repels, from which paths lead
        to both sides, one of them is taken.
    inputs : (n, d) float
    labels : (n,) float
    slope : float
        Slope of sigma below zero, 0 <= slope < 1.
    sign : {1, -1}
        Sign of the outer weight: 1 climbs G, -1 descends.
    pieces : int, optional
        Largest number of arcs of the path; default 1000 + 100 n.

    Returns
    -------
    Extremal
        The limit for infinite time. Where the drive vanishes (no active input) u stops on the way, and this is no
        isolated extremal vector.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of this kind.
    TooManyPiecesError
        If the path does not end within that many pieces.
    """
    lines = _Lines.of(inputs, labels, slope)
    u = real_array("start", start, ndim=1, shape=(lines.dimension,))
    largest = np.abs(u).max()
    if not largest:
        raise ValueError("start must not be the zero vector, which has no direction.")
    if integer("sign", sign) not in (1, -1):
        raise ValueError(f"sign must be 1 or -1, not {shown(sign)}.")
    most = 1000 + 100 * len(lines.jumps) if pieces is None else integer("pieces", pieces, low=1)
    return _ascend(lines, _unit(u / largest), int(sign), most)


def extremal_vectors(
    inputs: ArrayLike,
    labels: ArrayLike,
    slope: float = 0.0,
    *,
    starts: int = STARTS,
    rng: np.random.Generator | None = None,
) -> list[Extremal]:
    """Extremal vectors: all of them in d = 2, those that attract in higher dimension.

    In d > 2 these are the distinct end points of `ascend` from random directions, with both signs. Saddles are not
    found, nor extremal vectors that attract from a small part of the sphere, unless a start falls there. End points
    without drive fill continua, of which one member is kept for each set of kinks.

    Parameters
    ----------
    inputs : (n, d) float
    labels : (n,) float
    slope : float
        Slope of sigma below zero, 0 <= slope < 1.
    starts : int
        Number of random directions, uniform on the sphere, each followed up and down. Not used in d = 2.
    rng : Generator, optional
        Default: one with seed 0, so that the answer depends on the data only. Not used in d = 2.

    Returns
    -------
    list of Extremal
        By falling value.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of this kind.
    TooManyPiecesError
        If a path does not end.
    """
    starts = integer("starts", starts, low=1)
    lines = _Lines.of(inputs, labels, slope)
    if lines.dimension == 2:
        return sorted(_circle(lines), key=lambda extremal: -extremal.value)
    draws = (np.random.default_rng(0) if rng is None else rng).standard_normal((starts, lines.dimension))
    found: list[Extremal] = []
    for draw in draws:
        for sign in (1, -1):
            end = _ascend(lines, _unit(draw), sign, 1000 + 100 * len(lines.jumps))
            if not any(_same(end, other) for other in found):
                found.append(end)
    return sorted(found, key=lambda extremal: -extremal.value)


def alignment(weights: ArrayLike, outer: ArrayLike, extremals: Sequence[Extremal]) -> FloatArray:
    """Largest cosine of each neuron with an extremal vector that attracts neurons of its sign.

    Parameters
    ----------
    weights : (m, d) float
        First layer.
    outer : (m,) float
        Second layer: a > 0 goes with "up", a < 0 with "down". For a sign without such vectors, and for a = 0, all
        extremal vectors count. Those without drive belong to continua and count only then.
    extremals : sequence of Extremal

    Returns
    -------
    (m,) float
        In [-1, 1]; 0 for a neuron with w = 0.

    Raises
    ------
    TypeError, ValueError
        If the arrays do not fit together or there is no extremal vector.
    """
    if not len(extremals):
        raise ValueError("extremals must hold at least one extremal vector.")
    directions = np.array([extremal.direction for extremal in extremals])
    w = real_array("weights", weights, ndim=2, shape=(None, directions.shape[1]))
    a = real_array("outer", outer, ndim=1, shape=(len(w),))
    largest = np.abs(w).max(axis=1, initial=0.0, keepdims=True)
    w = w / np.where(largest > 0.0, largest, 1.0)  # squares of tiny weights would underflow
    length = np.linalg.norm(w, axis=1, keepdims=True)
    cosines = np.clip(w @ directions.T / np.where(length > 0.0, length, 1.0), -1.0, 1.0)
    best = cosines.max(axis=1)
    for sign, name in ((1.0, "up"), (-1.0, "down")):
        pool = [extremal.attracts == name and extremal.value != 0.0 for extremal in extremals]
        if any(pool):
            best = np.where(np.sign(a) == sign, cosines[:, pool].max(axis=1), best)
    return best


@dataclass(frozen=True, eq=False)
class _Lines:
    """G as a sum over the L distinct lines on which the inputs lie and G has a kink, and a linear rest.

    G(u) = <base, u> + sum_l jumps_l max(0, <normals_l, u>).

    Attributes
    ----------
    normals : (L, d) float
        A unit vector along each line.
    jumps : (L,) float
        Change of slope across the kink: positive where G is convex.
    base : (d,) float
        Gradient of G where all <normals_l, u> < 0.
    scale : float
        Upper bound (1/n) sum_k |y_k| |x_k| of |D|.
    members : tuple of tuple of int
        Inputs on each line.
    """

    normals: FloatArray
    jumps: FloatArray
    base: FloatArray
    scale: float
    members: tuple[tuple[int, ...], ...]

    @property
    def dimension(self) -> int:
        return len(self.base)

    @classmethod
    def of(cls, inputs: Any, labels: Any, slope: Any) -> _Lines:
        """Check the arguments and merge inputs on one line through the origin."""
        x = real_array("inputs", inputs, ndim=2)
        n, d = x.shape
        if not n or d < 2:
            raise ValueError(f"inputs must have at least 1 row and 2 columns, not shape ({n}, {d}).")
        y = real_array("labels", labels, ndim=1, shape=(n,))
        slope = real("slope", slope, low=0.0, high=1.0, open_high=True)
        length = np.linalg.norm(x, axis=1)
        index = np.flatnonzero(length)
        strength = (y * length / n)[index]
        unit = x[index] / length[index, None]
        # One half of each line is chosen and the lines are sorted by a projection that tells them apart: cos 1, cos 2,
        # ... are linearly independent over the rationals, so not even lattices have ties.
        probe = np.cos(np.arange(1.0, d + 1.0))
        side = np.where(unit @ probe > 0.0, 1.0, -1.0)
        unit *= side[:, None]
        base = np.where(side > 0.0, slope * strength, -strength) @ unit
        order = np.argsort(unit @ probe, kind="stable")
        first = np.ones(len(order), dtype=np.bool_)
        first[1:] = np.linalg.norm(np.diff(unit[order], axis=0), axis=1) > _ANGLE
        group = np.cumsum(first) - 1
        jumps = (1.0 - slope) * np.bincount(group, strength[order])
        size = (1.0 - slope) * np.bincount(group, np.abs(strength[order]))
        members = np.split(index[order], np.flatnonzero(first)[1:]) if len(order) else []
        kept = np.abs(jumps) > _FLAT * size
        return cls(
            normals=unit[order][first][kept],
            jumps=jumps[kept],
            base=base,
            scale=float(np.abs(strength).sum()),
            members=tuple(tuple(sorted(map(int, m))) for m, keep in zip(members, kept, strict=True) if keep),
        )

    def drive(self, above: BoolArray) -> FloatArray:
        """Gradient (d,) of G on the cone where <normals_l, u> > 0 for the lines ``above`` (L,)."""
        return np.asarray(self.base + np.where(above, self.jumps, 0.0) @ self.normals)

    def extremal(self, u: FloatArray, value: float, kinks: NDArray[Any], *, pinned: bool) -> Extremal:
        """The critical point u (d,) with kinks at some lines (indices or mask).

        ``pinned``: those with 0 < t < 1 span the tangent space, so that G changes to first order in all directions.
        """
        value = 0.0 if abs(value) <= _FLAT * self.scale else float(value)
        jumps = self.jumps[kinks]
        attracts = "none"
        if value or len(jumps):  # else G = 0 all around
            if (jumps < 0.0).all() and (value >= 0.0 or pinned):
                attracts = "up"
            elif (jumps > 0.0).all() and (value <= 0.0 or pinned):
                attracts = "down"
        inputs = sorted(k for line in np.arange(len(self.jumps))[kinks] for k in self.members[line])
        return Extremal(u, value * u, value, tuple(inputs), attracts)


def _unit(u: FloatArray) -> FloatArray:
    return np.asarray(u / np.linalg.norm(u))


def _same(one: Extremal, other: Extremal) -> bool:
    """Whether two end points are one; those without drive are told apart by their kinks only."""
    if one.attracts != other.attracts:
        return False
    if not one.value and not other.value:
        return one.kinks == other.kinks
    return bool(one.direction @ other.direction > 1.0 - SAME)


def _circle(lines: _Lines) -> Iterator[Extremal]:
    """Critical points in d = 2: inside the arcs between kinks, and at the kinks."""
    none = np.zeros(0, dtype=np.intp)
    count = len(lines.jumps)
    if not count:  # G is linear
        length = float(np.linalg.norm(lines.base))
        if length <= _FLAT * lines.scale:
            yield lines.extremal(np.array([1.0, 0.0]), 0.0, none, pinned=False)
        else:
            yield lines.extremal(lines.base / length, length, none, pinned=False)
            yield lines.extremal(-lines.base / length, -length, none, pinned=False)
        return
    # Counter-clockwise, a line becomes active at its normal turned by -90 degrees and inactive at +90 degrees.
    quarter = np.column_stack((lines.normals[:, 1], -lines.normals[:, 0]))
    rays = np.concatenate((quarter, -quarter))
    change = np.concatenate((lines.jumps, -lines.jumps))[:, None] * np.tile(lines.normals, (2, 1))
    angle = np.arctan2(rays[:, 1], rays[:, 0])
    order = np.argsort(angle)
    rays, angle, line = rays[order], angle[order], order % count
    middle = 0.5 * (angle + np.append(angle[1:], angle[0] + 2.0 * np.pi))  # of the arc that follows each ray
    last = np.array([np.cos(middle[-1]), np.sin(middle[-1])])
    after = lines.drive(lines.normals @ last > 0.0) + np.cumsum(change[order], axis=0)
    before = np.roll(after, 1, axis=0)
    tangents = np.column_stack((-rays[:, 1], rays[:, 0]))
    flat = _FLAT * lines.scale
    left = np.sum(before * tangents, axis=1)  # dG/dangle on both sides of each ray
    right = np.sum(after * tangents, axis=1)
    left[np.abs(left) <= flat] = 0.0
    right[np.abs(right) <= flat] = 0.0
    for i in np.flatnonzero(np.sign(left) * np.sign(right) <= 0.0):
        pinned = left[i] != 0.0 and right[i] != 0.0
        yield lines.extremal(rays[i], float(before[i] @ rays[i]), line[i : i + 1], pinned=pinned)
    following = np.roll(left, -1)
    length = np.linalg.norm(after, axis=1)
    for i in np.flatnonzero(length <= flat):
        yield lines.extremal(np.array([np.cos(middle[i]), np.sin(middle[i])]), 0.0, none, pinned=False)
    # Arcs are at most half a circle, on which dG/dangle changes its sign at most once.
    for i in np.flatnonzero((right > 0.0) & (following < 0.0)):
        yield lines.extremal(after[i] / length[i], float(length[i]), none, pinned=False)
    for i in np.flatnonzero((right < 0.0) & (following > 0.0)):
        yield lines.extremal(-after[i] / length[i], -float(length[i]), none, pinned=False)


def _ascend(lines: _Lines, u: FloatArray, sign: int, most: int) -> Extremal:
    """Follow sign G upwards from the unit vector u (d,) for at most ``most`` pieces."""
    normals = lines.normals
    concave = sign * lines.jumps < 0.0
    flat = _FLAT * lines.scale
    # Sides are kept apart from the numbers <e, u>, whose signs mean nothing next to a kink.
    above = normals @ u > 0.0
    touched = np.flatnonzero(np.abs(normals @ u) <= _ANGLE)
    for _ in range(most):
        # As <e, u> = 0 for the kinks at u, the least |D| is also the least tangential part of D.
        sticky, repelling = touched[concave[touched]], touched[~concave[touched]]
        above[sticky] = False
        drive, full, free = _least(sign * lines.drive(above), normals[sticky], np.abs(lines.jumps[sticky]), flat=flat)
        above[sticky] = full
        held = sticky[free]
        # A repelling kink that is driven towards is crossed. This makes |D| grow, so it comes to an end.
        rate = np.where(above[repelling], 1.0, -1.0) * (normals[repelling] @ drive)
        if (rate < -flat).any():
            above[repelling] ^= rate < -flat
            continue

        value = float(u @ drive)
        tangent = drive - value * u
        speed = float(np.linalg.norm(tangent))
        arrived = speed <= flat
        if not arrived:
            tangent /= speed
            sliding = np.zeros(len(above), dtype=np.bool_)
            sliding[held] = True
            first, angle = _next_kink(normals, above, sliding, u, tangent)
            if angle >= math.atan2(speed, value) - _ANGLE:
                arrived, u, value = True, _unit(drive), float(np.linalg.norm(drive))
        if arrived:
            kinks = np.union1d(held, np.flatnonzero(np.abs(normals @ u) <= _ANGLE))
            pinned = len(held) > 0 and np.linalg.matrix_rank(normals[held]) == lines.dimension - 1
            return lines.extremal(u, sign * value, kinks, pinned=bool(pinned))
        u = math.cos(angle) * u + math.sin(angle) * tangent
        u = _unit(u - _shadow(normals[held], u))
        touched = np.union1d(np.append(held, first), np.flatnonzero(np.abs(normals @ u) <= _ANGLE))
    raise TooManyPiecesError(f"The path of the direction does not end within {most} pieces.")


@entry
def _next_kink(
    normals: FloatArray, above: BoolArray, sliding: BoolArray, u: FloatArray, tangent: FloatArray
) -> tuple[int, float]:
    """First line and angle at which <e, cos u + sin tangent> = 0, among lines on a known side and not slid on.

    (-1, inf) if there is none.
    """
    first, top, angle = -1, -np.inf, np.inf
    for l in range(normals.shape[0]):
        if sliding[l]:
            continue
        height, rate = 0.0, 0.0
        for i in range(normals.shape[1]):
            height += normals[l, i] * u[i]
            rate += normals[l, i] * tangent[i]
        if not above[l]:
            height, rate = -height, -rate
        height = max(height, 0.0)
        if rate >= -_FLAT and height <= _ANGLE:
            continue  # just left, or along it
        cotangent = -rate / height  # infinite on a kink that is driven towards
        if cotangent > top:
            first, top, angle = l, cotangent, math.atan2(height, -rate)
    return first, angle


def _least(
    drive: FloatArray, normals: FloatArray, sizes: FloatArray, *, flat: float
) -> tuple[FloatArray, BoolArray, BoolArray]:
    """Element of least norm of {drive - sum_k s_k normals_k, 0 <= s_k <= sizes_k}, by active sets (Stark and Parker).

    Unlike `scipy.optimize.lsq_linear`, the iteration ends by the signs of the derivatives (up to ``flat``) and not by
    the decrease of the norm, which says little where a few small jumps meet a large drive.

    Returns
    -------
    element : (d,) float
    full : (K,) bool
        s_k = sizes_k: u leaves the kink to the side <e_k, u> > 0. Neither full nor free: to the other side.
    free : (K,) bool
        0 < s_k < sizes_k: u stays on the kink.
    """
    s = np.zeros(len(sizes))
    full, free = np.zeros(len(sizes), dtype=np.bool_), np.zeros(len(sizes), dtype=np.bool_)
    if not len(sizes):
        return drive, full, free
    for _ in range(100 + 10 * len(sizes)):
        element = drive - np.where(full, sizes, 0.0) @ normals
        element -= _shadow(normals[free], element)
        gain = np.where(full, -1.0, 1.0) * (normals @ element)
        gain[free] = 0.0
        best = int(gain.argmax())
        if gain[best] <= flat:
            return element, full, free
        full[best], free[best] = False, True
        while free.any():
            index = np.flatnonzero(free)
            rest = drive - np.where(full, sizes, 0.0) @ normals
            step = np.linalg.lstsq(normals[index].T, rest, rcond=None)[0] - s[index]
            room = np.where(step > 0.0, sizes[index] - s[index], s[index])
            part = np.divide(room, np.abs(step), out=np.full(len(index), np.inf), where=step != 0.0)
            stop = int(part.argmin())
            if part[stop] >= 1.0:
                s[index] += step
                break
            s[index] += part[stop] * step
            k = index[stop]
            free[k], full[k] = False, step[stop] > 0.0
            s[k] = sizes[k] if full[k] else 0.0
    raise TooManyPiecesError(f"No element of least norm was found in the subdifferential at {len(sizes)} kinks.")


def _shadow(normals: FloatArray, vector: FloatArray) -> FloatArray:
    """Orthogonal projection of a vector (d,) on the span of unit vectors (K, d); 0 for K = 0."""
    if not len(normals):
        return np.zeros(len(vector))
    return np.asarray(normals.T @ np.linalg.lstsq(normals.T, vector, rcond=None)[0])
