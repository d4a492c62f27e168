"""Extrapolations: of r(path) to long times, and of what was found at the points to the threshold.

Why these laws. Close to the threshold all residuals are small; let r^2 = 2 e_tr. The directions that fit the samples
relax at a finite rate, the others are moved by forces proportional to r, so that in the path int r dt they descend a
fixed landscape, as in the mean-field noise regime that is a p-spin model ([MU] section G), and

    r(path) = r_inf + c path^(-b) ,      r_inf linear in the distance x - x* , positive below the threshold.

Beyond it r_inf < 0, and r reaches zero after a finite path (|r_inf|/c)^(-1/b); there dr/dt = r dr/dpath, so r vanishes
exponentially at the rate -dr/dpath ~ |x - x*|^(1 + 1/b), and relaxation times diverge with nu = 1 + 1/b: 5/2 for the
b = 2/3 of the p-spin model. They depend on the level at which they are read through the logarithm of r_inf^2/1e-7, so
that what is seen is a smaller exponent.

With h linear nothing is glassy: r -> r_inf exponentially in the path, and the rate vanishes linearly.
Errors here are systematic, as curves have no noise: they are ranges over windows, exponents and orders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

DECAYS = (0.25, 1.5)
"""Range of exponents b that is searched: 2/3 and 1 are those of the p-spin models with p = 3 and p = 2."""
SLOWEST = 0.3
"""Slowest approach, over half a decade of the path, of the estimates of r_inf to their limit."""
INDISTINCT = 0.05
"""Error of r_inf over the way that is left to it which two decades do not show: corrections like path^(-b/2)."""
HALF_DECADE = 10.0**0.5
REPLICATES = 200
NEAREST = 6
"""Points nearest to the threshold that its power laws are fitted to."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number and the range in which it is expected.

    Attributes
    ----------
    value, low, high : float
        low <= value <= high.
    """

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the range."""
        return 0.5 * (self.high - self.low)

    def overlaps(self, other: Interval) -> bool:
        """Whether the ranges have a point in common."""
        return self.low <= other.high and other.low <= self.high

    def widened(self, error: float) -> Interval:
        """The same with an independent error added in quadrature."""
        return Interval(
            value=self.value,
            low=self.value - float(np.hypot(self.value - self.low, error)),
            high=self.value + float(np.hypot(self.high - self.value, error)),
        )

    def mapped(self, function: Callable[[float], float]) -> Interval:
        """Image under a monotone function."""
        low, high = sorted((float(function(self.low)), float(function(self.high))))
        return Interval(value=float(function(self.value)), low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Law:
    """A fit y(x) that a threshold was read off.

    Attributes
    ----------
    threshold : Interval
        Where the fit says that the threshold is.
    exponent : Interval
        Of the law: nu of a rate or a time.
    points : int
        Number of points fitted.
    residual : float
        Largest deviation of a point from the central fit, in the units of the fitted quantity.
    """

    threshold: Interval
    exponent: Interval
    points: int
    residual: float


def decay_limit(path: FloatArray, residual: FloatArray, linear: bool) -> Interval:
    """r_inf of a curve r(path) that does not reach zero.

    r_inf + c path^(-b) is fitted to the last decade and a half before a given end, for ends half a decade apart. The
    estimates still drift; how fast they approach their limit is not known, so that the limit lies between ``1/9``
    (an approach like 1/path^2) and ``1/(sqrt(10)^0.3 - 1)`` times the last step beyond the last estimate.

    Parameters
    ----------
    path, residual : (n,) float
        The curve, path increasing.
    linear : bool
        Whether the decay is exponential; the limit is then the last value.
    """
    end = float(path[-1])
    if linear:
        before = float(np.interp(0.5 * end, path, residual))
        error = abs(float(residual[-1]) - before)
        return Interval(value=float(residual[-1]), low=float(residual[-1]) - error, high=float(residual[-1]) + error)
    first = _power_limit(path, residual, end / HALF_DECADE)[0]
    last = _power_limit(path, residual, end)[0]
    step = last - first
    near, far = last + step / 9.0, last + step / (HALF_DECADE**SLOWEST - 1.0)
    # Half a decade of the path at the rate b = 1/2 is where most of the probability is.
    value = last + step / (HALF_DECADE**0.6 - 1.0)
    unseen = INDISTINCT * abs(float(residual[-1]) - value)
    return Interval(value=value, low=min(near, far, value) - unseen, high=max(near, far, value) + unseen)


def decay_exponent(path: FloatArray, residual: FloatArray) -> float:
    """Exponent b over the last decade and a half of a curve r(path)."""
    return _power_limit(path, residual, float(path[-1]))[1]


def _power_limit(path: FloatArray, residual: FloatArray, end: float) -> tuple[float, float]:
    """Fit r_inf + c path^(-b) to end/30 < path < end."""
    grid = np.geomspace(end / 30.0, end, 24)
    values = np.interp(np.log(grid), np.log(path), residual) if len(path) < 4 else _smooth(path, residual, grid)

    def solve(b: float) -> tuple[float, float]:
        design = np.stack([np.ones_like(grid), (grid / end) ** -b], axis=1)
        coefficients = np.linalg.lstsq(design, values, rcond=None)[0]
        return float(np.sum((design @ coefficients - values) ** 2)), float(coefficients[0])

    b = _minimum(lambda exponent: solve(exponent)[0], *DECAYS)
    return solve(b)[1], b


def _smooth(path: FloatArray, residual: FloatArray, grid: FloatArray) -> FloatArray:
    from scipy.interpolate import CubicSpline

    return np.asarray(CubicSpline(np.log(path), residual)(np.log(grid)))


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Global minimum of a smooth function on an interval."""
    from scipy.optimize import minimize_scalar

    grid = np.linspace(low, high, 23)
    place = int(np.argmin([function(float(point)) for point in grid]))
    bounds = (float(grid[max(0, place - 1)]), float(grid[min(len(grid) - 1, place + 1)]))
    return float(minimize_scalar(function, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)


def _intercept(u: FloatArray, z: FloatArray, order: int) -> tuple[float, FloatArray]:
    """Z at u = 0 of a polynomial through the points, and its deviations."""
    design = (u / u.max())[:, None] ** np.arange(order + 1)
    coefficients = np.linalg.lstsq(design, z, rcond=None)[0]
    return float(coefficients[0]), design @ coefficients - z


def rate_law(z: FloatArray, rate: FloatArray) -> Law:
    """Threshold z* of a linear h from above: the late rate vanishes linearly there.

    z = z* + c_1 rate + c_2 rate^2 + c_3 rate^3. The range is over windows of points, orders 2 and 3, and resampled
    deviations.

    Parameters
    ----------
    z, rate : (n,) float
        n >= 5 points, in any order.
    """
    order = np.argsort(rate)
    z, rate = z[order], rate[order]
    n = len(z)
    degree = 3 if n > 5 else 2
    value, deviations = _intercept(rate, z, degree)
    found = [value]
    for low, high in {(0, n), (0, n - 1), (1, n)}:
        for other in (2, 3):
            if high - low >= other + 2:
                found.append(_intercept(rate[low:high], z[low:high], other)[0])
    near = _intercept(rate[:-1], z[:-1], degree)[0]
    found.append(near + 0.5 * (near - value))  # what a higher order would still change
    found += _resampled(z, rate, degree)
    one = Interval(value=1.0, low=1.0, high=1.0)
    return Law(
        threshold=Interval(value=value, low=min(found), high=max(found)),
        exponent=one,
        points=n,
        residual=float(np.abs(deviations).max()),
    )


def _resampled(z: FloatArray, u: FloatArray, order: int) -> list[float]:
    """Central 95 % of the intercepts of a polynomial fit whose deviations are drawn again."""
    rng = np.random.default_rng(0)
    _, deviations = _intercept(u, z, order)
    freedom = max(1, len(z) - order - 1)
    spread = np.sqrt(len(z) / freedom)
    draws = [
        _intercept(u, z + deviations + spread * rng.choice(deviations, len(z)), order)[0] for _ in range(REPLICATES)
    ]
    return [float(value) for value in np.quantile(draws, [0.025, 0.975])]


def residual_law(z: FloatArray, limits: list[Interval]) -> Law:
    """Threshold z* from below: r_inf vanishes there, analytically.

    z = z* + c_1 r_inf + c_2 r_inf^2 with the four nearest points; the range is over order 2 with all points and with
    the four farthest, order 3 and half a step beyond it, and resampled deviations. The errors of r_inf have one sign
    and one cause, so all are at their lows or highs together.

    Parameters
    ----------
    z : (n,) float
        n >= 3 points, in any order.
    limits : list of Interval
        r_inf there.
    """
    value = np.array([limit.value for limit in limits])
    order = np.argsort(value)
    z, value = z[order], value[order]
    low = np.array([limit.low for limit in limits])[order]
    high = np.array([limit.high for limit in limits])[order]
    n = len(z)
    near = min(n, 4)
    degree = 2 if n > 3 else 1
    central, _ = _intercept(value[:near], z[:near], degree)
    found = [central]
    for row in (value, low, high):
        found.append(_intercept(row[:near], z[:near], degree)[0])
    if n > 4:
        low_order, high_order = _intercept(value, z, 2)[0], _intercept(value, z, 3)[0]
        found += [low_order, high_order + 0.5 * (high_order - low_order), _intercept(value[-4:], z[-4:], 2)[0]]
        found += _resampled(z, value, 2)
    if n == 3:  # no point is left over to judge the straight line by
        found.append(_intercept(value, z, 2)[0])
    one = Interval(value=1.0, low=1.0, high=1.0)
    return Law(
        threshold=Interval(value=central, low=min(found), high=max(found)),
        exponent=one,
        points=n,
        residual=float(np.abs(_intercept(value, z, degree)[1]).max()),
    )


def divergence(z: FloatArray, time: FloatArray) -> Law:
    """Threshold z* from above: times diverge there, time = c |z - z*|^(-nu) exp(k |z - z*|), k a correction to scaling.

    The nearest five of the nearest six points are fitted with, and all six without the correction. The exponent still
    drifts where points can be solved, always towards larger nu, and the estimates of z* with it: the range extends from
    the first estimate beyond it, away from the second, by 3/2 of their difference, and over resampled deviations.

    Parameters
    ----------
    z, time : (n,) float
        n >= 5 points on one side of the threshold, in any order.
    """
    order = np.argsort(-time)[:NEAREST]
    z, logs = z[order], np.log(time[order])
    side = float(np.sign(z[-1] - z[0]))
    near = min(len(z), 5)
    best = _power_fit(z[:near], logs[:near], side, corrected=True)
    plain = _power_fit(z, logs, side, corrected=False)
    step = best.star - plain.star
    ends = [best.star, best.star + 1.5 * step]
    value = 0.5 * sum(ends)
    rng = np.random.default_rng(0)
    draws = [
        _power_fit(z[:near], logs[:near] + rng.choice(best.deviations, near), side, corrected=True).star
        for _ in range(REPLICATES // 4)
    ]
    spread = 0.5 * float(np.ptp(np.quantile(draws, [0.025, 0.975])))
    nus = [best.exponent, best.exponent + 1.5 * (best.exponent - plain.exponent)]
    return Law(
        threshold=Interval(value=value, low=min(ends), high=max(ends)).widened(spread),
        exponent=Interval(value=best.exponent, low=min(nus), high=max(nus)),
        points=len(z),
        residual=float(np.abs(best.deviations).max()),
    )


@dataclass(frozen=True, kw_only=True)
class _PowerFit:
    star: float
    exponent: float
    deviations: FloatArray


def _power_fit(z: FloatArray, logs: FloatArray, side: float, corrected: bool) -> _PowerFit:
    """Least squares of ln time = c - nu ln |z - z*| (+ k |z - z*|), points nearest first."""
    columns = 3 if corrected else 2

    def solve(logarithm: float) -> _PowerFit:
        star = float(z[0]) - side * float(np.exp(logarithm))
        distance = np.abs(z - star)
        design = np.stack([np.ones_like(distance), -np.log(distance), distance], axis=1)[:, :columns]
        coefficients = np.linalg.lstsq(design, logs, rcond=None)[0]
        return _PowerFit(star=star, exponent=float(coefficients[1]), deviations=design @ coefficients - logs)

    gap, span = abs(float(z[1] - z[0])), abs(float(z[-1] - z[0]))
    best = _minimum(
        lambda logarithm: float(np.sum(solve(logarithm).deviations ** 2)),
        float(np.log(1e-2 * gap)),
        float(np.log(2.0 * span)),
    )
    return solve(best)


def exponent_at(z: FloatArray, time: FloatArray, threshold: Interval) -> Interval:
    """Exponent nu of `divergence` with the threshold known: what its range, and fewer points, make of it."""
    order = np.argsort(-time)[:NEAREST]
    z, logs = z[order], np.log(time[order])
    side = float(np.sign(z[-1] - z[0]))
    found = []
    for count in (min(len(z), 5), len(z)):
        for star in (threshold.value, threshold.low, threshold.high):
            # An end of the range beyond the nearest point would leave no distance.
            distance = np.maximum(side * (z[:count] - star), 0.2 * side * (z[0] - threshold.value))
            design = np.stack([np.ones_like(distance), -np.log(distance), distance], axis=1)
            found.append(float(np.linalg.lstsq(design, logs[:count], rcond=None)[0][1]))
    return Interval(value=found[0], low=min(found), high=max(found))
