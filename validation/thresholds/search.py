"""Where to solve: bracket the threshold with short runs, then place long ones around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dmft._validate import shown
from validation.thresholds.families import Family
from validation.thresholds.laws import Interval, decay_limit
from validation.thresholds.points import Runner, Task, Trace

BRACKET_TIME = 200.0
"""Length of the short runs in time scales."""
ABOVE = (0.03, 0.042, 0.058, 0.08, 0.11, 0.15, 0.2, 0.27)
"""Distances, as r_inf continued, of the points that interpolate: nearer ones cost most and teach little more."""
BELOW = (0.035, 0.05, 0.07, 0.1, 0.14)
"""The same for those that do not."""
LINEAR_ABOVE = (0.03, 0.045, 0.065, 0.1, 0.15, 0.22)
POSITIVE = 0.02
"""r below which the long-time limit of a curve is not told apart from zero."""
POSITIVE = 0.02
"""r below which the long-time limit of a curve is not told apart from zero."""
CLOSE = 0.02
"""r_inf, by the short runs, at which the bracket is good enough."""
BORDER = 14.0
"""Largest |z|: exp(-14) is a millionth."""


class SearchError(RuntimeError):
    """The threshold was not found; the message is a sentence."""


@dataclass(frozen=True, kw_only=True)
class Solved:
    """One point and its run."""

    z: float
    x: float
    task: Task
    trace: Trace
    linear: bool

    def limit(self) -> Interval:
        """r_inf, of a point that does not interpolate."""
        return decay_limit(np.array(self.trace.path), np.array(self.trace.residual), self.linear)

    @property
    def useful(self) -> bool:
        """Whether the run shows on which side it is."""
        return self.trace.interpolates or self.stays_above_zero

    @property
    def stays_above_zero(self) -> bool:
        """Whether e_tr clearly has a positive limit: runs that are slow, or were stopped, need not have one."""
        trace = self.trace
        if trace.interpolates or trace.t_end < 0.01 * self.task.t_final or trace.residual[-1] < POSITIVE:
            return False
        limit = self.limit()
        return limit.low > 0.25 * trace.residual[-1]


@dataclass(frozen=True, kw_only=True)
class Centre:
    """First idea of the threshold: its z and dr_inf/dz there."""

    z: float
    slope: float


class Search:
    """Solves points of a family.

    Parameters
    ----------
    family : Family
        What is varied.
    runner : Runner
        Does the runs.
    rtol, t_max : float
        Accuracy, and longest run in time scales.
    """

    def __init__(self, family: Family, runner: Runner, rtol: float, t_max: float) -> None:
        self.family = family
        self.runner = runner
        self.rtol = rtol
        self.t_max = t_max

    def solve(self, coordinates: Sequence[float], duration: float, rtol: float | None = None) -> list[Solved]:
        """Runs at the coordinates z, of a duration in time scales."""
        family = self.family
        points = [(z, float(family.value(z))) for z in coordinates]
        tasks = [
            Task(
                problem=family.problem(x),
                t_final=duration * family.time_scale(x),
                rtol=self.rtol if rtol is None else rtol,
                offset=family.offset,
                time_scale=family.time_scale(x),
            )
            for _, x in points
        ]
        traces = self.runner.run(tasks)
        return [
            Solved(z=z, x=x, task=task, trace=trace, linear=family.linear)
            for (z, x), task, trace in zip(points, tasks, traces, strict=True)
        ]

    def bracket(self) -> Centre:
        """Roughly where the threshold is: root of r_inf, continued beyond it, as short runs tell it.

        Raises
        ------
        SearchError
            When there is none in the range of the family, or runs fail.
        """
        known: list[tuple[float, float]] = []
        z = float(self.family.coordinate(self.family.guess()))
        for _ in range(20):
            (solved,) = self.solve([z], BRACKET_TIME)
            if not (solved.trace.interpolates or solved.trace.t_end >= 0.1 * solved.task.t_final):
                raise SearchError(f"the run at {self.family.varied} = {solved.x:.6g} failed: {solved.trace.message}.")
            known.append((z, amplitude(solved.trace, self.family.linear)))
            z, done = _next(known, self.family.slope(self.family.value(z)))
            if done:
                break
            if abs(z) > BORDER:
                x = float(self.family.value(np.copysign(BORDER, z)))
                raise SearchError(f"no threshold was found up to {self.family.varied} = {shown(x)}.")
        else:
            raise SearchError(f"no threshold was found near {self.family.varied} = {self.family.value(z):.6g}.")
        return Centre(z=z, slope=self.family.slope(float(self.family.value(z))))

    def around(self, centre: Centre) -> list[Solved]:
        """Long runs on both sides."""
        above = LINEAR_ABOVE if self.family.linear else ABOVE
        distances = [*above, *(-distance for distance in BELOW)]
        # Towards large times first: the long runs then do not wait for a free process at the end.
        distances.sort(key=abs)
        return self.solve([centre.z + distance / centre.slope for distance in distances], self.t_max)


def amplitude(trace: Trace, linear: bool) -> float:
    """r_inf of a short run, continued smoothly to negative values beyond the threshold.

    From r(path) and a quarter of the path, with r - r_inf ~ path^(-0.65). With h linear the late rate stands for it.
    """
    if linear:
        return -trace.gap if trace.gap is not None else trace.residual[-1]
    path, residual = np.array(trace.path), np.array(trace.residual)
    end, last = (trace.length, 0.0) if trace.length is not None else (path[-1], residual[-1])
    quarter = float(np.interp(np.log(0.25 * end), np.log(path), residual))
    factor = 4.0**-0.65
    return float((last - factor * quarter) / (1.0 - factor))


def _next(known: list[tuple[float, float]], slope: float) -> tuple[float, bool]:
    """The next z to try, and whether it is good enough as the centre."""
    z, s = known[-1]
    positive = [point for point in known if point[1] > 0.0]
    negative = [point for point in known if point[1] <= 0.0]
    if positive and negative:
        # r_inf falls with z; between the nearest points of either sign.
        low, high = max(positive), min(negative)
        weight = low[1] / (low[1] - high[1])
        guess = low[0] + (high[0] - low[0]) * float(np.clip(weight, 0.1, 0.9))
        good = (high[0] - low[0]) * slope < 0.08 or min(low[1], -high[1]) < CLOSE
        return (low[0] + (high[0] - low[0]) * weight, True) if good else (guess, False)
    step = float(np.clip(1.2 * s / slope, -1.0, 1.0))
    return z + float(np.copysign(max(abs(step), 0.05 * len(known)), s)), False
