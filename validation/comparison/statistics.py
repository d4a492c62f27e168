"""Statistics of the comparison, on plain arrays: extrapolation, null distribution, p-values.

Arrays are (dimensions, rows) = (K, P), and replicas (R_k, P) for each dimension. What each method is for, and why it is
this one, is said in `validation.comparison`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from validation.comparison.words import p_text

FloatArray = NDArray[np.float64]
SingleArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

_DRAWS = (500, 2000)
_WORK = 1_000_000  # draws times rows: keeps the null distribution within a second and a few megabytes
_CHUNK = 8_000_000  # numbers held at once while drawing
_SKEWNESS = 0.6  # largest skewness over sqrt(R) at which Student's law is trusted
_NEGLIGIBLE = 1e-5  # relative size of principal components of the replicas that are left out of the draws
_SEED = 20250221  # of the null draws, fixed: the same data give the same p-value
_CURVATURE_LEVEL = 0.05
_NORMAL_DOF = 1e6  # Student's law is the normal one from here on


@dataclass(frozen=True)
class Design:
    """Extrapolation over the dimensions as fixed linear combinations of the K means.

    Attributes
    ----------
    inverse : (K, q) float
        1/d, and 1/d^2 when q = 2; the columns of the fit besides the constant. No columns for one dimension.
    limit : (K,) float
        Coefficients of the limit; they sum to 1 and are orthogonal to ``inverse``.
    slopes : (q, K) float
        Coefficients of b, and c.
    """

    inverse: FloatArray
    limit: FloatArray
    slopes: FloatArray

    @classmethod
    def of(cls, dimensions: IntArray, counts: IntArray, terms: int) -> Design:
        """The fit of a constant and so many powers of 1/d, weights replicas times d."""
        d = dimensions.astype(np.float64)
        inverse = d[:, None] ** -np.arange(1.0, terms + 1.0)
        columns = np.column_stack([np.ones(len(d)), inverse])
        unit = np.abs(columns).max(axis=0)  # 1/d^2 is small, which is no reason to lose it
        root = np.sqrt(d * counts)  # the variance of a mean is of order 1/(d R)
        solve = np.linalg.pinv(root[:, None] * columns / unit) * root / unit[:, None]
        return cls(inverse=inverse, limit=solve[0], slopes=solve[1:])

    @property
    def terms(self) -> int:
        """Number q of powers of 1/d."""
        return self.inverse.shape[1]

    def amplification(self, dimensions: IntArray, counts: IntArray) -> float:
        """Error of the limit over that of the largest dimension, for variances of means that go as 1/(d R)."""
        variances = 1.0 / (dimensions.astype(np.float64) * counts)
        return float(np.sqrt(np.square(self.limit) @ variances / variances[-1]))

    @property
    def formula(self) -> str:
        """What is fitted, in words."""
        return ("mean", "limit + b/d", "limit + b/d + c/d^2")[self.terms]


@dataclass(frozen=True)
class Data:
    """Means over replicas of all rows, and the replicas where they are known.

    Attributes
    ----------
    dimensions, counts : (K,) int
    means, variances : (K, P) float
        Variances of the means: squared standard errors.
    values : list of (R_k, P) float, or None
    """

    dimensions: IntArray
    counts: IntArray
    means: FloatArray
    variances: FloatArray
    values: list[FloatArray] | None

    def rows(self, keep: NDArray[Any]) -> Data:
        """Some of the rows."""
        values = None if self.values is None else [value[:, keep] for value in self.values]
        return Data(self.dimensions, self.counts, self.means[:, keep], self.variances[:, keep], values)

    def largest(self) -> Data:
        """The largest dimension alone."""
        values = None if self.values is None else self.values[-1:]
        return Data(self.dimensions[-1:], self.counts[-1:], self.means[-1:], self.variances[-1:], values)


@dataclass(frozen=True)
class Theory:
    """What the theory says: values, error bounds, and which rows (P,) share one systematic error."""

    values: FloatArray
    errors: FloatArray
    curves: IntArray


@dataclass(frozen=True)
class Scores:
    """z-scores with the standard errors and degrees of freedom behind them."""

    error: FloatArray
    dof: FloatArray
    z: FloatArray


def _normal_score(t: FloatArray, dof: FloatArray) -> FloatArray:
    """Normal deviate z of the same tail probability as Student's t; dof may be infinite."""
    size = np.abs(t)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        tail = special.stdtr(np.minimum(dof, _NORMAL_DOF), -size)
        z = np.maximum(-special.ndtri(tail), 0.0)
    far = tail < 1e-250
    if np.any(far):  # the probability underflows, its logarithm does not
        t_far, dof_far = size[far], dof[far]
        student = np.isfinite(t_far) & (dof_far < _NORMAL_DOF)
        t_far[student] = _far_score(t_far[student], dof_far[student])
        z[far] = t_far
    return np.sign(t) * z


def _far_score(t: FloatArray, dof: FloatArray) -> FloatArray:
    """Normal score of t far out, from the series of the incomplete beta function at small x = dof/(dof + t^2)."""
    half, x = 0.5 * dof, dof / (dof + t * t)
    series = special.hyp2f1(half + 0.5, 1.0, half + 1.0, x)
    # log(1 - x) is that of t^2/(dof + t^2)
    log_beta = half * np.log(x) + 0.5 * np.log(t * t / (dof + t * t)) - np.log(half) - special.betaln(half, 0.5)
    return -special.ndtri_exp(log_beta + np.log(series) - np.log(2.0))


def score(difference: FloatArray, parts: FloatArray, counts: IntArray, bound: FloatArray | float) -> Scores:
    """Scores of a difference (..., P) whose variance is the sum of estimated parts (..., K, P) and a known bound^2.

    Degrees of freedom are those of the estimated parts alone. A known part would raise them, without limit where a few
    replicas happen to agree, and just these rows would then look significant.
    """
    statistical = parts.sum(axis=-2)
    total = statistical + np.square(bound)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        spread = (np.square(parts) / (counts[:, None] - 1.0)).sum(axis=-2)
        dof = np.where(spread > 0.0, np.square(statistical) / spread, np.inf)
        t = np.where(total > 0.0, difference / np.sqrt(total), np.where(difference == 0.0, 0.0, np.inf * difference))
    return Scores(error=np.sqrt(statistical), dof=dof, z=_normal_score(t, dof))


def limit_scores(data: Data, design: Design, theory: Theory) -> Scores:
    """Scores of what is extrapolated to d -> infinity minus the theory."""
    difference = design.limit @ data.means - theory.values
    return score(difference, np.square(design.limit)[:, None] * data.variances, data.counts, theory.errors)


def _rotations(random: np.random.Generator, draws: int, size: int, rows: int) -> FloatArray:
    """Uniform orthonormal frames (draws, rows, size), rows <= size."""
    gauss = random.standard_normal((draws, size, rows), dtype=np.float32)
    frame, triangle = np.linalg.qr(gauss)
    frame *= np.sign(np.diagonal(triangle, axis1=1, axis2=2))[:, None, :]  # otherwise not uniform
    return frame.transpose(0, 2, 1)


@dataclass(frozen=True)
class _Null:
    """Replicas as draws of one normal law, in coordinates (M, P) free of the nuisance columns.

    Attributes
    ----------
    basis : (N, M) float
        Orthonormal; replica space without the nuisance.
    coordinates : (M, P) float
        Deviations times sqrt(d), each row scaled to unit mean square.
    unit : (P,) float
        What it was divided by.
    """

    basis: FloatArray
    coordinates: FloatArray
    unit: FloatArray

    @classmethod
    def of(cls, data: Data, centre: FloatArray | float, nuisance: FloatArray) -> _Null:
        assert data.values is not None
        root = np.sqrt(np.repeat(data.dimensions, data.counts).astype(np.float64))
        deviations = root[:, None] * (np.concatenate(data.values) - centre)
        columns = root[:, None] * np.repeat(nuisance, data.counts, axis=0)
        basis = np.linalg.qr(columns, mode="complete")[0][:, columns.shape[1] :]
        coordinates = basis.T @ deviations
        unit = np.sqrt(np.square(coordinates).mean(axis=0))
        return cls(basis, coordinates / np.where(unit > 0.0, unit, 1.0), unit)


def null_scores(data: Data, design: Design, theory: Theory, draws: int) -> SingleArray:
    """z-scores (draws, P) if the theory is right, by random rotations of the replicas."""
    null = _Null.of(data, theory.values, design.inverse)
    random = np.random.default_rng(_SEED)
    size, rows = null.coordinates.shape
    # A rotation acts on the space that the columns span only. They are strongly correlated, so that space has few
    # dimensions, and a random frame of so many vectors is much cheaper than a whole random rotation.
    _, strength, mixing = np.linalg.svd(null.coordinates, full_matrices=False)
    rank = max(1, int(np.count_nonzero(strength > _NEGLIGIBLE * strength[0])))
    coordinates = (strength[:rank, None] * mixing[:rank]).astype(np.float32)
    basis = null.basis.astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(data.counts)])
    bound = np.divide(theory.errors, null.unit, out=np.zeros(rows), where=null.unit > 0.0)
    result = np.empty((draws, rows), dtype=np.float32)
    step = max(1, _CHUNK // (len(basis) * max(rows, rank)))
    for begin in range(0, draws, step):
        count = min(step, draws - begin)
        frames = _rotations(random, count, size, rank).transpose(0, 2, 1)
        mixed = np.matmul(basis @ frames, coordinates)  # (draws, N, P)
        difference = np.zeros((count, rows))
        parts = np.empty((count, len(data.dimensions), rows))
        for k, (d, replicas) in enumerate(zip(data.dimensions, data.counts, strict=True)):
            block = mixed[:, starts[k] : starts[k + 1]]
            mean = block.mean(axis=1)
            spread = np.square(block - mean[:, None]).sum(axis=1)
            difference += design.limit[k] / math.sqrt(d) * mean
            parts[:, k] = design.limit[k] ** 2 / d * spread / (replicas * (replicas - 1.0))
        # A numerical error of the theory moves a whole curve, not its points one by one.
        shift = random.standard_normal((count, int(theory.curves.max()) + 1))[:, theory.curves]
        result[begin : begin + count] = score(difference + shift * bound, parts, data.counts, bound).z
    return result


def misfit(data: Data, design: Design) -> FloatArray:
    """chi^2 (P,) of the means against the fit."""
    fitted = design.limit @ data.means + design.inverse @ (design.slopes @ data.means)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(data.variances > 0.0, np.square(data.means - fitted) / data.variances, 0.0).sum(axis=0)


def _misfit_p_value(data: Data, design: Design, draws: int) -> float:
    """Probability of a worse largest misfit over the rows if means follow the fit.

    With replicas, F statistics with the variance pooled over dimensions, by rotation; else Bonferroni's bound.
    """
    spare, inner = len(data.dimensions) - 1 - design.terms, int(data.counts.sum()) - len(data.dimensions)
    if data.values is None:
        fitted = design.limit @ data.means + design.inverse @ (design.slopes @ data.means)
        d, counts = data.dimensions[:, None], data.counts[:, None]
        between = (counts * d * np.square(data.means - fitted)).sum(axis=0) / spare
        inside = (counts * (counts - 1.0) * d * data.variances).sum(axis=0) / inner
        ratio = between[inside > 0.0] / inside[inside > 0.0]
        return min(1.0, len(ratio) * float(special.fdtrc(spare, inner, ratio).min(initial=1.0)))
    columns = np.column_stack([np.ones(len(design.inverse)), design.inverse])
    null = _Null.of(data, data.means.mean(axis=0), columns)
    rows = null.unit > 0.0
    if not rows.any():
        return 1.0
    coordinates = null.coordinates[:, rows]
    total = np.square(coordinates).sum(axis=0)
    # Orthonormal directions, inside the coordinates, along which the means of the dimensions differ from the fit.
    member = np.repeat(np.eye(len(data.dimensions)), data.counts, axis=0) / np.sqrt(data.counts)
    directions = np.linalg.svd(null.basis.T @ member, full_matrices=False)[0][:, :spare].T

    def largest(frame: FloatArray) -> FloatArray:
        between = np.square(frame @ coordinates).sum(axis=-2)
        return np.max(between / np.maximum(total - between, 1e-12 * total), axis=-1)

    random = np.random.default_rng(_SEED + 2)
    drawn = largest(_rotations(random, draws, len(coordinates), spare).astype(np.float64))
    return _rank(float(largest(directions)), drawn)


def _rank(observed: float, drawn: NDArray[Any]) -> float:
    """p-value of an observed statistic among draws of it; never zero."""
    return (1.0 + float(np.count_nonzero(drawn >= observed))) / (1.0 + len(drawn))


def family_p_value(z: FloatArray, drawn: SingleArray | None) -> float:
    """Family-wise p-value of the largest |z| (P,) among draws (B, P); Bonferroni's bound where that is all there is.

    Beyond all draws the rank says no more than 1/(B + 1), and the bound may say more.
    """
    largest = float(np.abs(z).max())
    bound = min(1.0, len(z) * 2.0 * float(special.ndtr(-largest)))
    if drawn is None:
        return bound
    rank = _rank(largest, np.abs(drawn).max(axis=1))
    return min(bound, rank) if rank <= 1.0 / (1.0 + len(drawn)) else rank


def too_skewed(data: Data) -> NDArray[np.bool_]:
    """Rows (P,) of positive observables whose replicas are too skewed for Student's law at their number.

    Late train errors scatter about lognormally: with c the standard deviation over the mean, the skewness is 3 c + c^3
    or more. The tails of t are off by about skewness/(6 sqrt(R)), so rows with skewness/sqrt(R) beyond `_SKEWNESS` in
    any dimension are no basis for a test. The criterion looks at the spread and not at the difference to the theory.
    """
    spread = np.sqrt(np.maximum(data.variances, 0.0) * data.counts[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(data.means > 0.0, spread / data.means, 0.0)
    skewness = 3.0 * ratio + ratio**3
    return np.asarray((skewness > _SKEWNESS * np.sqrt(data.counts)[:, None]).any(axis=0))


def _distance(z: NDArray[Any]) -> NDArray[Any]:
    """Kolmogorov-Smirnov distance (...) of the last axis to the standard normal law."""
    ordered = special.ndtr(np.sort(z, axis=-1))
    place = np.arange(z.shape[-1]) / z.shape[-1]
    return np.maximum(ordered - place, place + 1.0 / z.shape[-1] - ordered).max(axis=-1)


@dataclass(frozen=True, kw_only=True)
class NormalityCheck:
    """Whether z-scores, all together, are those of a standard normal law, their correlations allowed for.

    Attributes
    ----------
    statistic, p_value : float
        Largest distance between the distribution of the z's and the normal one (Kolmogorov-Smirnov), and the
        probability of a larger one if theory and errors are right.
    mean_square, mean_square_p_value : float
        Mean of z^2, and the probability of a larger one.
    count : int
        Number of z's.
    effective : float
        Number of independent z's that would scatter in sum z^2 as these do.
    """

    statistic: float
    p_value: float
    mean_square: float
    mean_square_p_value: float
    count: int
    effective: float

    def __str__(self) -> str:
        return (
            f"{self.count} z-scores (about {self.effective:.0f} independent): distance to the normal law "
            f"{self.statistic:.3f}, {p_text(self.p_value)}; mean z^2 {self.mean_square:.3g}, "
            f"{p_text(self.mean_square_p_value)}"
        )


def check_normality(z: FloatArray, drawn: SingleArray) -> NormalityCheck:
    """Check z-scores (P,) against draws (B, P) of them."""
    squares = np.square(drawn, dtype=np.float64).mean(axis=1)
    distance, square = float(_distance(z)), float(np.square(z).mean())
    spread = float(squares.var())
    return NormalityCheck(
        statistic=distance,
        p_value=_rank(distance, _distance(drawn)),
        mean_square=square,
        mean_square_p_value=_rank(square, squares),
        count=len(z),
        effective=min(float(len(z)), 2.0 * float(squares.mean()) ** 2 / spread if spread > 0.0 else 1.0),
    )


def pooled_normality(observed: Sequence[FloatArray], draws: Sequence[SingleArray]) -> NormalityCheck:
    """Check the z-scores (P_i,) of independent series i, all together, against draws (B_i, P_i) of each."""
    count = min(len(draw) for draw in draws)
    # Every series has used the same seed: shuffled, or else series of the same size would move together.
    random = np.random.default_rng(_SEED + 1)
    shuffled = [draw[random.permutation(len(draw))[:count]] for draw in draws]
    return check_normality(np.concatenate(observed), np.concatenate(shuffled, axis=1))


def _draws(rows: int, replicas: int) -> int:
    """Draws of the null distribution; fewer where each costs more."""
    low, high = _DRAWS
    return int(min(max(_WORK / rows, low), high if replicas <= 60 else low))


@dataclass(frozen=True)
class Fit:
    """Extrapolation chosen for a series, p-value of the straight line's misfit, draws of the null to make, notes."""

    design: Design
    p_value: float | None
    draws: int
    notes: tuple[str, ...] = ()


def choose_fit(data: Data) -> Fit:
    """Fit limit + b/d; with four dimensions or more also c/d^2, if the series does not follow the straight line.

    The choice is one for all rows: made row by row, it would favour whichever fit lies further from the theory.
    """
    count = len(data.dimensions)
    draws = _draws(data.means.shape[1], int(data.counts.sum()))
    design = Design.of(data.dimensions, data.counts, min(count - 1, 1))
    if count < 3:
        return Fit(design, None, draws)
    p_value = _misfit_p_value(data, design, draws)
    if p_value >= _CURVATURE_LEVEL:
        return Fit(design, p_value, draws)
    bent = f"means do not follow limit + b/d ({p_text(p_value)})"
    if count >= 4:
        return Fit(Design.of(data.dimensions, data.counts, 2), p_value, draws, (f"{bent}, so c/d^2 was added.",))
    return Fit(design, p_value, draws, (f"{bent}: a smaller dimension may be too small.",))
