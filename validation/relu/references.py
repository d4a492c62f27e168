"""What trained networks are held against: least squares, least squares on half-spaces, and distances over the inputs.

Networks of relu or leaky_relu, linear functions and functions that are linear on two half-spaces all have the form

    f(x) = <b, x> + sum_j sign(<v_j, x>) <c_j, x>,    |v_j| = 1,

with c_j parallel to v_j for a neuron, since relu(z) = (z + |z|)/2. The law of the inputs is symmetric, so the linear
and the even part are orthogonal. Without margin and for a law that is isotropic, E f(x)^2 follows from the arc-cosine
kernel E |<v, x>| |<v', x>| = (2/pi) (cos t + t sin t) with sin t = <v, v'>, differentiated in v and in v'; f is
homogeneous, so only E |x|^2 = d matters of the radius. With a margin the linear part still has a closed form.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, gammaincinv, ndtri
from scipy.stats import qmc
from threadpoolctl import threadpool_limits

from dmft._validate import integer, real_array, shown
from validation.relu.data import DataLaw, Dataset, Teacher, all_signs
from validation.relu.network import Network

FloatArray = NDArray[np.float64]
Function = Callable[[FloatArray], FloatArray]

POINTS = 2**14
"""Inputs of a sample, all groups together."""

GROUPS = 16
"""Independent parts of a sample: its standard error comes from their means."""

ENUMERABLE = 12
"""Dimension up to which Rademacher inputs are enumerated."""

_SEED = 20241002
_SAME = 1e-12  # distance of unit vectors that are one direction up to rounding


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error; error 0 if it is exact up to rounding."""

    value: float
    error: float


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """f(x) = <b, x> of least squared error; of least norm if that leaves a choice.

    Attributes
    ----------
    coefficients : (d,) float
        b.
    train_loss : float
        Mean squared error on the samples.
    """

    coefficients: FloatArray
    train_loss: float

    def __call__(self, inputs: ArrayLike) -> FloatArray:
        """Output at inputs (N, d), shape (N,)."""
        return np.asarray(np.asarray(inputs) @ self.coefficients)


@dataclass(frozen=True, eq=False)
class SplitLeastSquares:
    """f(x) = <b_+, x> where <x, direction> > 0 and <b_-, x> elsewhere, of least squared error on both sides.

    Attributes
    ----------
    direction : (d,) float
    positive, negative : (d,) float
        b_+ and b_-, each of least norm if the samples of its side leave a choice.
    train_loss : float
        Mean squared error on all samples.
    """

    direction: FloatArray
    positive: FloatArray
    negative: FloatArray
    train_loss: float

    def __call__(self, inputs: ArrayLike) -> FloatArray:
        """Output at inputs (N, d), shape (N,)."""
        x = np.asarray(inputs)
        return np.where(x @ self.direction > 0.0, x @ self.positive, x @ self.negative)


def least_squares(dataset: Dataset) -> LeastSquares:
    """Ordinary least squares without intercept; the least-norm solution if the inputs do not span the space."""
    coefficients = _solve(dataset.inputs, dataset.labels)
    return LeastSquares(coefficients, float(np.mean((dataset.labels - dataset.inputs @ coefficients) ** 2)))


def split_least_squares(dataset: Dataset, direction: ArrayLike) -> SplitLeastSquares:
    """Least squares on each half-space of ``direction`` ([BF]: the limit of training beyond the threshold).

    Parameters
    ----------
    dataset : Dataset
    direction : (d,) array_like of float
        Normal of the boundary, not zero. Samples on the boundary belong to the negative side, and a side without
        samples gets the zero function.

    Returns
    -------
    SplitLeastSquares

    Raises
    ------
    TypeError, ValueError
        If the direction is no vector of length d or zero.
    """
    normal = real_array("direction", direction, ndim=1, shape=(dataset.dimension,))
    if not normal.any():
        raise ValueError(f"direction must not be zero, as {shown(normal.tolist())} is.")
    x, y = dataset.inputs, dataset.labels
    side = x @ normal > 0.0
    positive, negative = _solve(x[side], y[side]), _solve(x[~side], y[~side])
    residuals = y - np.where(side, x @ positive, x @ negative)
    return SplitLeastSquares(normal, positive, negative, float(np.mean(residuals**2)))


def excess_risk(function: Function, law: DataLaw, *, points: int = POINTS) -> Estimate:
    """E (f(x) - teacher(x))^2 over the inputs of ``law``, with its margin.

    Exact for functions of the form above (`Network` of relu or leaky_relu, `LeastSquares`, `SplitLeastSquares`, and
    `Teacher`) under Gaussian and spherical inputs without margin; with one, if what differs is linear on the two
    half-spaces of a single direction. Exact for Rademacher inputs up to dimension 12, by enumeration. Everything else
    rests on a fixed sample: scrambled Sobol points, mapped to inputs that respect the margin, or, for Rademacher
    inputs, independent draws.

    Parameters
    ----------
    function : callable
        Takes inputs (N, d) to outputs (N,).
    law : DataLaw
    points : int
        Size of the sample, rounded up to 16 times a power of two.

    Returns
    -------
    Estimate
        NaN if the function has no finite values.

    Raises
    ------
    TypeError, ValueError
        If the function has another dimension or returns another shape.
    """
    with threadpool_limits(limits=1):  # the products are tiny, and the last bits depend on nothing else then
        return _mean_square(function, law.teacher, law, points)


def function_distance(f: Function, g: Function, law: DataLaw, *, points: int = POINTS) -> Estimate:
    """Root mean square of f(x) - g(x) over the inputs of ``law``, exact or from the same sample as `excess_risk`."""
    with threadpool_limits(limits=1):
        square = _mean_square(f, g, law, points)
    root = math.sqrt(square.value)
    return Estimate(root, 0.5 * square.error / root if square.error else 0.0)


def _solve(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.lstsq(x, y, rcond=None)[0])


def _mean_square(f: Function, g: Function, law: DataLaw, points: int) -> Estimate:
    """E (f - g)^2 by the cheapest exact way, or from the sample."""
    size = 2 ** max(math.ceil(math.log2(integer("points", points, low=GROUPS) / GROUPS)), 0)
    for function in (f, g):
        _check(function, law)
    if law.law == "rademacher":
        if law.dimension <= ENUMERABLE:
            corners = all_signs(law.dimension)
            corners = corners[law.meets_margin(corners)]
            return Estimate(float(np.mean((_values(f, corners) - _values(g, corners)) ** 2)), 0.0)
        return _from_groups(lambda x: _values(f, x) - _values(g, x), _sign_sample(*_key(law), size))
    first, second = _Pieces.of(f), _Pieces.of(g)
    if first is None or second is None:
        sample = _sample(*_key(law), size, law.law == "gaussian")
        return _from_groups(lambda x: _values(f, x) - _values(g, x), sample)
    difference = first.minus(second)
    exact = _quadratic(difference.linear, law)
    if len(difference.jumps) == 1:  # the sign is gone in the square
        return Estimate(exact + _quadratic(difference.jumps[0], law), 0.0)
    if law.margin == 0.0 or law.dimension == 1 or not len(difference.jumps):
        return Estimate(exact + difference.even_square(), 0.0)
    even = _from_groups(difference.even, _sample(*_key(law), size, False))
    return Estimate(exact + even.value, even.error)


def _check(function: Function, law: DataLaw) -> None:
    if not callable(function):
        raise TypeError(f"function must be callable on inputs (N, {law.dimension}), not {shown(function)}.")
    dimension = law.dimension
    if isinstance(function, Network | Teacher):
        dimension = function.dimension
    elif isinstance(function, LeastSquares):
        dimension = len(function.coefficients)
    elif isinstance(function, SplitLeastSquares):
        dimension = len(function.direction)
    if dimension != law.dimension:
        raise ValueError(f"function must have the dimension {law.dimension} of the law, not {dimension}.")


def _values(function: Function, x: FloatArray) -> FloatArray:
    """Outputs of any callable, with their shape checked."""
    values = np.asarray(function(x), dtype=np.float64)
    if values.shape != (len(x),):
        raise ValueError(f"function must return shape ({len(x)},) for inputs {x.shape}, not {values.shape}.")
    return values


@dataclass(frozen=True, eq=False)
class _Pieces:
    """<b, x> + sum_j sign(<v_j, x>) <c_j, x>.

    Attributes
    ----------
    linear : (d,) float
        b.
    normals : (J, d) float
        v_j, unit vectors.
    jumps : (J, d) float
        c_j.
    folds : int
        The last ``folds`` pieces need not be continuous; c_j is parallel to v_j for those before.
    """

    linear: FloatArray
    normals: FloatArray
    jumps: FloatArray
    folds: int = 0

    @classmethod
    def of(cls, function: object) -> _Pieces | None:
        """The pieces of a function of one of the known classes; None for any other."""
        if isinstance(function, LeastSquares):
            return cls._linear(function.coefficients)
        if isinstance(function, Teacher):
            return cls._linear(function.direction) if function.is_linear else cls._neurons(function, 0.0)
        if isinstance(function, Network) and function.activation.piecewise_linear:
            return cls._neurons(function, float(function.activation.slope or 0.0))
        if isinstance(function, SplitLeastSquares):
            half = 0.5 * (function.positive - function.negative)
            normal = function.direction / np.linalg.norm(function.direction)
            return cls(0.5 * (function.positive + function.negative), normal[None, :], half[None, :], 1)
        return None

    @classmethod
    def _linear(cls, coefficients: FloatArray) -> _Pieces:
        return cls(coefficients, np.empty((0, len(coefficients))), np.empty((0, len(coefficients))))

    @classmethod
    def _neurons(cls, function: Network | Teacher, slope: float) -> _Pieces:
        """From sigma(z) = (1+s) z/2 + (1-s) |z|/2."""
        norms = np.linalg.norm(function.weights, axis=1)
        normals = function.weights / np.where(norms == 0.0, 1.0, norms)[:, None]
        weighted = 0.5 * function.outer[:, None] * function.weights
        kept = norms > 0.0
        return cls((1.0 + slope) * weighted.sum(axis=0), normals[kept], (1.0 - slope) * weighted[kept])

    def minus(self, other: _Pieces) -> _Pieces:
        """Difference of two functions; pieces with the boundary of a fold are merged into it, so that they cancel."""
        cuts = [len(pieces.normals) - pieces.folds for pieces in (self, other)]
        order = [self.normals[: cuts[0]], other.normals[: cuts[1]], self.normals[cuts[0] :], other.normals[cuts[1] :]]
        normals = np.concatenate(order)
        jumps = np.concatenate(
            [self.jumps[: cuts[0]], -other.jumps[: cuts[1]], self.jumps[cuts[0] :], -other.jumps[cuts[1] :]]
        )
        folds = self.folds + other.folds
        kept = np.ones(len(normals), dtype=np.bool_)
        for j in range(len(normals) - folds, len(normals)):
            if not kept[j]:
                continue
            for sign in (1.0, -1.0):
                same = kept & (np.linalg.norm(normals - sign * normals[j], axis=1) < _SAME)
                same[j] = False
                jumps[j] += sign * jumps[same].sum(axis=0)
                kept &= ~same
        folds = int(np.count_nonzero(kept[len(normals) - folds :]))
        return _Pieces(self.linear - other.linear, normals[kept], jumps[kept], folds)

    def even(self, x: FloatArray) -> FloatArray:
        """Value without the linear part at inputs (N, d), shape (N,)."""
        cut = len(self.normals) - self.folds
        z = x @ self.normals[:cut].T
        value = np.abs(z, out=z) @ np.sum(self.jumps[:cut] * self.normals[:cut], axis=1)
        for normal, jump in zip(self.normals[cut:], self.jumps[cut:], strict=True):
            value += np.sign(x @ normal) * (x @ jump)
        return value

    def even_square(self) -> float:
        """Mean square of the part without <b, x> under an isotropic law with E |x|^2 = d.

        With r_ij = <v_i, v_j> = sin t_ij and p_ij = <c_i, v_j> - r_ij <c_i, v_i>,

            E sign<v_i,x> <c_i,x> sign<v_j,x> <c_j,x>
                = (2/pi) [t_ij <c_i,c_j> + cos t_ij <c_i,v_i> <c_j,v_j> + p_ij p_ji / cos t_ij].
        """
        along = np.sum(self.jumps * self.normals, axis=1)
        sine = np.clip(self.normals @ self.normals.T, -1.0, 1.0)
        np.fill_diagonal(sine, 1.0)
        cosine = np.sqrt((1.0 - sine) * (1.0 + sine))
        across = self.jumps @ self.normals.T - sine * along[:, None]
        products = np.arcsin(sine) * (self.jumps @ self.jumps.T) + cosine * np.outer(along, along)
        # Neurons have nothing across, and where cos t = 0 what is across is of its order.
        products += np.divide(across * across.T, cosine, out=np.zeros_like(cosine), where=cosine > 0.0)
        return max(2.0 / math.pi * float(products.sum()), 0.0)  # rounding may make it negative


def _quadratic(coefficients: FloatArray, law: DataLaw) -> float:
    """E <b, x>^2 for Gaussian and spherical inputs with margin: E x x^T is diagonal along beta and across."""
    total = float(coefficients @ coefficients)
    d = law.dimension
    if law.margin == 0.0 or d == 1:
        return total
    beta = law.teacher.direction / np.linalg.norm(law.teacher.direction)
    along = float(coefficients @ beta)
    # E cos^2 = (1/d) P(Beta((d-1)/2, 3/2) <= 1 - c^2/d) / P(Beta((d-1)/2, 1/2) <= 1 - c^2/d), times d of |x|^2.
    variance = float(betainc(0.5 * (d - 1), 1.5, 1.0 - law.margin**2 / d)) / law.acceptance
    across = coefficients - along * beta
    return variance * along**2 + (d - variance) / (d - 1) * float(across @ across)


def _from_groups(difference: Function, sample: FloatArray) -> Estimate:
    """Mean square with its standard error from a sample (groups, N, d)."""
    means = np.array([np.mean(difference(x) ** 2) for x in sample])
    return Estimate(float(means.mean()), float(means.std(ddof=1) / math.sqrt(len(means))))


_Key = tuple[str, int, float, bytes]


def _key(law: DataLaw) -> _Key:
    """What the inputs depend on."""
    beta = law.teacher.direction.tobytes() if law.margin > 0.0 else b""
    return law.law, law.dimension, law.margin, beta


def _law(name: str, dimension: int, margin: float, beta: bytes) -> DataLaw:
    teacher = Teacher.linear(np.frombuffer(beta)) if beta else Teacher.unit(dimension)
    return DataLaw(dimension=dimension, teacher=teacher, law=name, margin=margin)


@functools.lru_cache(maxsize=4)
def _sample(name: str, dimension: int, margin: float, beta: bytes, size: int, radial: bool) -> FloatArray:
    """Fixed inputs, shape (groups, size, d): Sobol points, scrambled anew for each group.

    The first coordinate becomes the cosine with beta, the following ones the direction across it, and the last one the
    radius if ``radial``; otherwise the radius is sqrt(d).
    """
    law = _law(name, dimension, margin, beta)
    direction = law.teacher.direction / np.linalg.norm(law.teacher.direction)
    mirror = np.eye(1, dimension)[0] - direction  # the reflection that exchanges e_1 and the direction
    mirror /= np.linalg.norm(mirror) or 1.0
    groups = []
    for group in range(GROUPS):
        engine = qmc.Sobol(dimension + int(radial), seed=np.random.default_rng([_SEED, group]))
        u = engine.random(size) + 2.0**-31  # centres of the cells of 30 bits: never 0
        cosine, sine = law.cosine(u[:, 0])
        across = ndtri(u[:, 1:dimension])
        if dimension > 1:
            across *= (sine / np.linalg.norm(across, axis=1))[:, None]
        x = np.column_stack([cosine, across])
        x -= 2.0 * (x @ mirror)[:, None] * mirror
        radius = (
            np.sqrt(2.0 * gammaincinv(0.5 * dimension, u[:, -1])) if radial else np.full(size, math.sqrt(dimension))
        )
        groups.append(radius[:, None] * x)
    sample = np.array(groups)
    sample.flags.writeable = False
    return sample


@functools.lru_cache(maxsize=4)
def _sign_sample(name: str, dimension: int, margin: float, beta: bytes, size: int) -> FloatArray:
    """Fixed Rademacher inputs, shape (groups, size, d): independent, as the leading bits of Sobol points are a code."""
    x = _law(name, dimension, margin, beta).inputs(GROUPS * size, np.random.default_rng(_SEED))
    sample = x.reshape(GROUPS, size, dimension)
    sample.flags.writeable = False
    return sample
