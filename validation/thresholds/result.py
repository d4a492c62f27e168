"""What a search for a threshold has found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

from validation.comparison.words import aligned, rounded
from validation.thresholds.laws import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The threshold by one route.

    Attributes
    ----------
    route : str
        "relaxation" and "rate" (from the interpolating side), or "residual" (from the other).
    value, low, high : float
        Threshold and range.
    points : int
        Number of runs that it rests on.
    method : str
        What was done, in a sentence.
    misfit : float
        Largest relative deviation of a point from the fitted law.
    """

    route: str
    value: float
    low: float
    high: float
    points: int
    method: str
    misfit: float

    @property
    def interval(self) -> Interval:
        """The numbers."""
        return Interval(value=self.value, low=self.low, high=self.high)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run: where it is, and what was read off. Times are those of the problem that was asked about.

    Attributes
    ----------
    x : float
        The number that is varied.
    interpolates : bool
        Whether e_tr reached zero.
    status : str
        How the run ended.
    t_end : float
        Time reached.
    relaxation_time : float or None
        First time of e_tr < 1e-7 tau^2 (tau'^2 in the lazy limit, tau^2 + |phi|^2 at finite width).
    gap : float or None
        Late rate -d ln sqrt(e_tr)/dt.
    residual, residual_low, residual_high : float or None
        r = sqrt(2 e_tr/tau^2) at t -> infinity and its range, where it is positive.
    decay_exponent : float or None
        b in r - r_inf ~ (int r dt)^(-b), over its last decade and a half.
    train_error : float or None
        e_tr at t -> infinity in units of tau^2 (as above): r^2/2.
    rtol : float
        Accuracy asked of the run.
    problem : dict
        The problem that was solved; in the lazy limit with tau' = 1.
    rows : int
        Rows of the run.
    wall_time : float
        Seconds.
    """

    x: float
    interpolates: bool
    status: str
    t_end: float
    relaxation_time: float | None
    gap: float | None
    residual: float | None
    residual_low: float | None
    residual_high: float | None
    decay_exponent: float | None
    train_error: float | None
    rtol: float
    problem: Mapping[str, Any] = field(repr=False)
    rows: int
    wall_time: float


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A threshold with its errors and what it rests on.

    Attributes
    ----------
    kind : str
        "interpolation".
    symbol : str
        In mathematical notation.
    varied : str
        "gamma", "alpha" or "sample_ratio".
    rises : bool
        Whether larger values interpolate.
    fixed : dict
        What was held fixed.
    activation, target : dict
        As in a configuration.
    noise_std : float
        tau.
    residual_noise : float
        tau' of the lazy limit, else sqrt(tau^2 + |phi|^2).
    value, low, high : float
        The threshold, as the more precise of the two sides sees it; the range also holds the value of the other side
        when they agree, and all of its range when they do not.
    nu : Interval
        Exponent of t_rel at the threshold found, over the points solved.
    nu_gap : Interval
        Exponent of the late rate, which depends on no level.
    estimates : tuple of Estimate
        By route.
    agree : bool
        Whether the ranges of the two sides overlap.
    numerical_error : float
        Change of the threshold when points are solved ten times more accurately; part of the ranges.
    evidence : tuple of Point
        Every run that was used, by x.
    notes : tuple of str
        What to know.
    verdict : str
        The result in a sentence.
    wall_time : float
        Seconds of solving, all processes together; what was kept from before is not counted.
    """

    kind: str
    symbol: str
    varied: str
    rises: bool
    fixed: Mapping[str, float]
    activation: Mapping[str, Any]
    target: Mapping[str, Any]
    noise_std: float
    residual_noise: float
    value: float
    low: float
    high: float
    nu: Interval
    nu_gap: Interval
    estimates: tuple[Estimate, ...]
    agree: bool
    numerical_error: float
    evidence: tuple[Point, ...]
    notes: tuple[str, ...]
    verdict: str
    wall_time: float

    @property
    def interval(self) -> Interval:
        """Value and range."""
        return Interval(value=self.value, low=self.low, high=self.high)

    def estimate(self, route: str) -> Estimate:
        """The estimate of one route.

        Raises
        ------
        ValueError
            When there is none.
        """
        for estimate in self.estimates:
            if estimate.route == route:
                return estimate
        have = ", ".join(estimate.route for estimate in self.estimates)
        raise ValueError(f"route = {route!r} was not taken; there are {have}.")

    def __str__(self) -> str:
        fixed = ", ".join(f"{name} = {value:g}" for name, value in self.fixed.items())
        lines = [f"{self.symbol} at {fixed}: {shown(self.interval)}"]
        table = [["route", "value", "low", "high", "points", "misfit"]]
        for estimate in self.estimates:
            numbers = [f"{number:.5g}" for number in (estimate.value, estimate.low, estimate.high)]
            table.append([estimate.route, *numbers, str(estimate.points), f"{estimate.misfit:.0e}"])
        lines.append(aligned(table))
        lines.append(f"nu of t_rel: {shown(self.nu)}; of the late rate: {shown(self.nu_gap)}")
        lines += [f"{estimate.route}: {estimate.method}" for estimate in self.estimates]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, self.verdict])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return asdict(self)

    def to_json(self, path: str | PathLike[str], *, digits: int = 8) -> None:
        """Write `to_dict` as JSON, whole or not at all; problems are written exactly, results to so many digits.

        Raises
        ------
        OSError
            When the place cannot be written.
        """
        from dmft.files import atomic_write

        data = self.to_dict()
        exact = {name: data.pop(name) for name in ("fixed", "activation", "target", "noise_std")}
        problems = [point.pop("problem") for point in data["evidence"]]
        data = {**rounded(_lists(data), digits), **exact}
        for point, problem in zip(data["evidence"], problems, strict=True):
            point["problem"] = problem
        atomic_write(path, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())

    def plot(self, path: str | PathLike[str] | None = None) -> Figure:
        """Draw relaxation times against the distance to the threshold, and residual and path towards it.

        Parameters
        ----------
        path : path, optional
            Where to write the figure as well.

        Raises
        ------
        ValueError
            For a suffix that matplotlib does not know.
        OSError
            When the place cannot be written.
        """
        from validation.thresholds.plots import plot

        return plot(self, path)


def shown(interval: Interval) -> str:
    """A number and its range, to a digit beyond the range."""
    import math

    width = max(interval.high - interval.value, interval.value - interval.low)
    if not (width > 0.0 and math.isfinite(width)):
        return f"{interval.value:.6g}"
    digits = min(8, max(0, 1 - math.floor(math.log10(width))))
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _lists(data: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(data, dict):
        return {key: _lists(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_lists(value) for value in data]
    return data
