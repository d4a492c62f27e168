"""What is read off one run: when it learns, overfits, unlearns and interpolates, and how well each time is known.

Every event is a first crossing of a stated level, or the minimum of the test error. It is found between two rows, then
narrowed down with the interpolation of the run itself. A level that was not reached has no time: the event says how
much of the way was done by the end, and whether the curve was still moving there.

Errors of times follow from those of the curves. For the theory a curve is known to its tolerance, so a crossing to the
tolerance over the slope; for simulations the replicas are resampled, and the distance of the recorded times is added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmft._validate import real, real_array, shown
from validation.scales.traces import Profile, SolvedTrace, Trace

FloatArray = NDArray[np.float64]

_FOLDS_TO_WAIT = 10.0
"""A curve that would need more e-folds of time than this at its final pace has levelled off, for what can be said."""
_SETTLED = 0.01
"""A quantity that moves by less than this share of its change in the last e-fold of time is taken for final."""
_ZERO = 1e-16
"""Train errors below it are rounding."""
_BLURRED = 1.0
"""Error of ln(time) from which on an event is not resolved."""
_SURE = 0.9
"""Share of resampled runs that must have the event."""


class Outcome(Enum):
    """Whether an event happened."""

    FOUND = "found"
    AT_START = "at start"
    NOT_YET = "not yet"
    LEVELLED_OFF = "levelled off"
    UNRESOLVED = "unresolved"


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """Levels that define the events; each is a dimensionless fraction.

    Attributes
    ----------
    learning : (X,) fractions of the fall of the test error to its minimum, and of a v to its value there
    overfitting : gap e_ts - e_tr, as a fraction of the noise level tau^2/2 ((tau^2 + |phi|^2)/2 without noise)
    overlap_loss : fraction of its maximum that |v| loses
    test_rise : rise of the test error above its minimum, as a fraction of that
    interpolation : e_tr as a fraction of tau^2 (tau^2 + |phi|^2 without noise)
    second_layer : (X,) values c of t_0(m; c), the first time at which the root mean square of a is c sqrt(m); those of
        ``window`` are added
    growth : factor by which the root mean square of a has grown
    window : (2,) the two c between which the window w(m) is measured
    """

    learning: ArrayLike = (0.5, 0.9)
    overfitting: float = 0.5
    overlap_loss: float = 0.1
    test_rise: float = 0.05
    interpolation: float = 1e-7
    second_layer: ArrayLike = (0.1, 0.2, 0.3, 0.4, 0.5)
    growth: float = 2.0
    window: ArrayLike = (0.3, 0.5)

    def __post_init__(self) -> None:
        for name, high in (
            ("overfitting", None),
            ("overlap_loss", 1.0),
            ("test_rise", None),
            ("interpolation", 1.0),
        ):
            object.__setattr__(
                self, name, real(name, getattr(self, name), low=0.0, high=high, open_low=True, open_high=True)
            )
        object.__setattr__(self, "growth", real("growth", self.growth, low=1.0, open_low=True))
        for name, high in (("learning", 1.0), ("second_layer", math.inf), ("window", math.inf)):
            values = real_array(name, getattr(self, name), ndim=1)
            if (values <= 0.0).any() or (values >= high).any() or (np.diff(values) <= 0.0).any():
                bound = "" if high == math.inf else f" and below {high:g}"
                raise ValueError(f"{name} must hold increasing numbers above 0{bound}, not {shown(values.tolist())}.")
            object.__setattr__(self, name, tuple(values.tolist()))
        if np.size(self.window) != 2:
            raise ValueError(f"window must hold two numbers, not {shown(self.window)}.")
        both = {*np.asarray(self.second_layer).tolist(), *np.asarray(self.window).tolist()}
        object.__setattr__(self, "second_layer", tuple(sorted(both)))


@dataclass(frozen=True, kw_only=True)
class Event:
    """One time scale of one run.

    Attributes
    ----------
    series : str
        How the run was made: "theory", or model, optimiser and dimension.
    width : int or None
        m; None for an infinitely wide network.
    name, meaning : str
        Which event, and its definition in words.
    curve : str
        The curve that it is read off.
    outcome : Outcome
    time : float or None
        When, in the unit of the report; None unless found.
    low, high : float or None
        Range of the time: for the theory where the curve is within its tolerance of the level; for simulations one
        standard error, with the resolution added in quadrature. None where it is unknown (a single replica).
    resolution : float
        Half the distance of the recorded times around it; 0 for the theory, which is known in between.
    note : str
        What else there is to say; how far it got if it did not happen.
    """

    series: str
    width: int | None
    name: str
    meaning: str
    curve: str
    outcome: Outcome
    time: float | None = None
    low: float | None = None
    high: float | None = None
    resolution: float = 0.0
    note: str = ""

    @property
    def found(self) -> bool:
        """Whether there is a time."""
        return self.outcome is Outcome.FOUND

    @property
    def error(self) -> float | None:
        """Error of ln(time), the larger side; None where it is unknown or there is no time."""
        if self.time is None or self.low is None or self.high is None:
            return None
        return max(math.log(self.time / self.low), math.log(self.high / self.time))


@dataclass(frozen=True, kw_only=True)
class Depth:
    """How much is unlearnt from the minimum of the test error to the end of the run.

    Attributes
    ----------
    series, width
        As in `Event`.
    end : float
        Last time of the run.
    test_minimum : float
        Smallest test error.
    rise : float
        Final test error over its minimum, minus 1.
    overlap_kept : float or None
        Final |v| over its maximum; None without a target.
    product_at_minimum, product_final : float or None
        a v at the minimum of the test error and at the end; None without a target.
    second_layer_final : float
        Root mean square of a at the end, over sqrt(m) unless the width is infinite.
    train_final : float
        Final train error.
    drift : float
        Change of the test error in the last e-fold of time, over its minimum: 0 where the run has come to rest.
    rise_error, overlap_kept_error : float or None
        Standard errors over replicas; the tolerance for the theory; None where unknown.
    """

    series: str
    width: int | None
    end: float
    test_minimum: float
    rise: float
    overlap_kept: float | None
    product_at_minimum: float | None
    product_final: float | None
    second_layer_final: float
    train_final: float
    drift: float
    rise_error: float | None
    overlap_kept_error: float | None


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """An event before it is known how sure it is."""

    name: str
    meaning: str
    curve: str
    outcome: Outcome
    time: float = math.nan
    spread: float = 0.0  # error of ln(time) from the tolerance of the curve
    before: float = 0.0  # rows around the event
    behind: float = 0.0
    note: str = ""


def read_events(
    trace: Trace, criteria: Criteria, *, series: str, width: int | None, lazy: bool, scaled: bool, noise: float
) -> list[Event]:
    """All events of a run.

    Parameters
    ----------
    trace : Trace
        Its curves.
    criteria : Criteria
        What counts.
    series, width
        As in `Event`.
    lazy : bool
        Whether the second layer starts at order sqrt(m), so that the first fall of the test error is the linear fit.
    scaled : bool
        Whether it may come to order sqrt(m), so that t_0(m; c) is of interest; at fixed n/d it stays of order one.
    noise : float
        tau.
    """
    readings = _Reader(trace, criteria, lazy, scaled, noise).readings()
    resampled = [_Reader(draw, criteria, lazy, scaled, noise).readings() for draw in trace.draws]
    return [
        _event(reading, [draw[place] for draw in resampled], trace, series, width)
        for place, reading in enumerate(readings)
    ]


def read_depth(trace: Trace, *, series: str, width: int | None) -> Depth:
    """How much a run unlearns; arguments as in `read_events`."""
    depth = _depth(trace, series, width)
    if trace.draws:
        draws = [_depth(draw, series, width) for draw in trace.draws]
        kept = [draw.overlap_kept for draw in draws if draw.overlap_kept is not None]
        return replace(
            depth,
            rise_error=float(np.std([draw.rise for draw in draws])),
            overlap_kept_error=float(np.std(kept)) if kept else None,
        )
    error = None if trace.sampled else trace.tolerance
    return replace(depth, rise_error=error, overlap_kept_error=None if depth.overlap_kept is None else error)


def _depth(trace: Trace, series: str, width: int | None) -> Depth:
    profile, learnt = trace.profile, _has_target(trace)
    best, lowest = _least_error(trace)
    past = trace.at(np.array([max(trace.end / math.e, float(trace.t[0]))]))
    there, (_, top) = trace.at(np.array([best])), _greatest_overlap(trace)
    return Depth(
        series=series,
        width=width,
        end=trace.end,
        test_minimum=lowest,
        rise=float(profile.test_error[-1]) / lowest - 1.0,
        overlap_kept=abs(float(profile.overlap[-1])) / top if learnt and top > 0.0 else None,
        product_at_minimum=float(there.product[0]) if learnt else None,
        product_final=float(profile.product[-1]) if learnt else None,
        second_layer_final=float(profile.second_layer[-1]) / (1.0 if width is None else math.sqrt(width)),
        train_final=float(profile.train_error[-1]),
        drift=float(profile.test_error[-1] - past.test_error[0]) / lowest,
        rise_error=None,
        overlap_kept_error=None,
    )


def _least_error(trace: Trace) -> tuple[float, float]:
    """Time and value of the smallest test error."""
    if isinstance(trace, SolvedTrace):
        return trace.minimum()
    row = int(np.argmin(trace.profile.test_error))
    return float(trace.t[row]), float(trace.profile.test_error[row])


def _greatest_overlap(trace: Trace) -> tuple[float, float]:
    """Time and value of the largest |v|, between the rows where there is something to know."""
    size, t = np.abs(trace.profile.overlap), trace.t
    row = int(np.argmax(size))
    time, value = float(t[row]), float(size[row])
    if trace.sampled or row in (0, len(t) - 1):
        return time, value
    low, high = float(t[row - 1]), float(t[row + 1])
    for _ in range(6):  # a maximum is flat: its value is exact long before its time
        points = np.linspace(low, high, 33)
        values = np.abs(trace.at(points).overlap)
        place = int(np.argmax(values))
        if values[place] > value:
            time, value = float(points[place]), float(values[place])
        low, high = float(points[max(place - 1, 0)]), float(points[min(place + 1, 32)])
    return time, value


def _has_target(trace: Trace) -> bool:
    return bool(np.any(trace.formulation.overlap_coefficients))


def curve_of(name: str, width: int | None) -> Callable[[Profile], FloatArray]:
    """The curve that an event is read off, as a function of the profile."""
    root = 1.0 if width is None else math.sqrt(width)
    curves: dict[str, Callable[[Profile], FloatArray]] = {
        "train_error": lambda p: p.train_error,
        "log_train_error": lambda p: np.log(np.maximum(p.train_error, _ZERO)),
        "test_error": lambda p: p.test_error,
        "gap": lambda p: p.test_error - p.train_error,
        "a": lambda p: p.second_layer,
        "gamma": lambda p: p.second_layer / root,
        "v": lambda p: np.abs(p.overlap),
        "a v": lambda p: np.abs(p.product),
    }
    return curves[name]


@dataclass
class _Reader:
    """Reads the events of one trace, in a fixed order, so that resampled traces give the same list."""

    trace: Trace
    criteria: Criteria
    lazy: bool
    scaled: bool
    noise: float
    best: float = field(init=False)
    lowest: float = field(init=False)

    def readings(self) -> list[_Reading]:
        profile, c = self.trace.profile, self.criteria
        form = self.trace.formulation
        result = [self._minimum()]
        result += self._learning()
        level, words = self.noise**2, "tau^2"
        if level == 0.0:
            level, words = form.offset, "(tau^2 + |phi|^2)"
        result.append(
            self._crossing(
                "overfitting",
                f"e_ts - e_tr reaches {c.overfitting:g} of {words}/2",
                "gap",
                c.overfitting * level / 2.0,
                error=lambda p: p.test_error,
            )
        )
        result.append(
            self._crossing(
                "test_rise",
                f"after its minimum, e_ts has risen by {100 * c.test_rise:g} % of it",
                "test_error",
                (1.0 + c.test_rise) * self.lowest,
                after=self.best,
            )
        )
        if _has_target(self.trace):
            top, size = _greatest_overlap(self.trace)
            result.append(
                self._crossing(
                    "overlap_loss",
                    f"|v| has lost {100 * c.overlap_loss:g} % of its maximum",
                    "v",
                    (1.0 - c.overlap_loss) * size,
                    after=top,
                    falling=True,
                )
            )
        if form.train_second_layer:
            start = float(profile.second_layer[0])
            result.append(
                self._crossing("growth", f"rms a is {c.growth:g} times its initial value", "a", c.growth * start)
            )
            for value in np.asarray(c.second_layer) if self.scaled else ():
                result.append(
                    self._crossing(second_layer_name(value), f"rms a = {value:g} sqrt(m)", "gamma", float(value))
                )
        result.append(
            self._crossing(
                "interpolation",
                f"e_tr falls below {c.interpolation:g} {words}",
                "log_train_error",
                math.log(c.interpolation * level),
                falling=True,
                # The relative error of a curve that decays for ln(1/e_tr) time constants grows with their number.
                error=lambda p: 1.0 + abs(math.log(c.interpolation)) + 0.0 * p.train_error,
            )
        )
        return result

    def _minimum(self) -> _Reading:
        """Optimal stopping: the minimum of the test error, if the error rises afterwards by more than its tolerance."""
        test, t = self.trace.profile.test_error, self.trace.t
        row = int(np.argmin(test))
        self.best, self.lowest = float(t[row]), float(test[row])
        low, high = float(t[max(row - 1, 0)]), float(t[min(row + 1, len(t) - 1)])
        reading = _Reading(
            name="minimum",
            meaning="e_ts has its minimum: optimal stopping",
            curve="test_error",
            outcome=Outcome.FOUND,
            before=low,
            behind=high,
        )
        if row == 0:
            return replace(reading, outcome=Outcome.UNRESOLVED, note="e_ts never falls below its initial value")
        rise = float(test[row:].max()) - self.lowest
        if row == len(t) - 1 or rise <= 2.0 * self.trace.tolerance * self.lowest:
            if self._settled():
                note = f"e_ts comes to rest without rising by more than its error ({rise / self.lowest:.1e})"
                return replace(reading, outcome=Outcome.LEVELLED_OFF, note=note)
            return replace(reading, outcome=Outcome.NOT_YET, note="e_ts is still falling at the end")
        self.best, self.lowest = _least_error(self.trace)
        spread = self._flatness()
        if spread > _BLURRED:
            return replace(
                reading, outcome=Outcome.UNRESOLVED, note="e_ts is flat around its minimum, within its error"
            )
        return replace(reading, time=self.best, spread=spread)

    def _flatness(self) -> float:
        """Error of ln(time of the minimum).

        An error of the curve that changes by its tolerance in one e-fold of time moves the minimum by tolerance over
        curvature; in any case the minimum lies where the curve is within the tolerance of its lowest value.
        """
        delta = self.trace.tolerance * self.lowest
        if delta == 0.0:
            return 0.0
        step = 0.1
        points = np.clip(self.best * np.exp(step * np.array([-1.0, 1.0])), self.trace.t[0], self.trace.end)
        sides = self.trace.at(points).test_error
        curvature = float(sides.sum() - 2.0 * self.lowest) / step**2
        return delta / curvature if curvature > 0.0 else math.inf

    def _settled(self) -> bool:
        """Whether the test error has come to rest at the end of the run."""
        test = self.trace.profile.test_error
        past = self.trace.at(np.array([max(self.trace.end / math.e, float(self.trace.t[0]))])).test_error
        change = float(np.ptp(test))
        return abs(float(test[-1] - past[0])) <= max(_SETTLED * change, self.trace.tolerance * float(test[-1]))

    def _learning(self) -> list[_Reading]:
        """Fractions of the way to the minimum of the test error; of no meaning while that is not reached."""
        profile = self.trace.profile
        first = float(profile.test_error[0])
        fall = first - self.lowest
        fractions = [1.0 - math.exp(-1.0)] if self.lazy else [float(x) for x in np.asarray(self.criteria.learning)]
        falling = float(self.trace.t[int(np.argmin(profile.test_error))]) == self.trace.end and not self._settled()
        wanted: list[tuple[str, str, str, float, bool]] = []
        for fraction in fractions:
            name = "linear_fit" if self.lazy else f"learning_{100 * fraction:g}"
            words = "1 - 1/e" if self.lazy else f"{100 * fraction:g} %"
            meaning = f"e_ts has done {words} of its fall to the minimum"
            wanted.append((name, meaning, "test_error", first - fraction * fall, True))
        if _has_target(self.trace):
            there = float(np.abs(self.trace.at(np.array([self.best])).product[0]))
            for fraction in np.asarray(self.criteria.learning):
                meaning = f"a v has reached {100 * fraction:g} % of its value at the minimum of e_ts"
                wanted.append((f"overlap_{100 * fraction:g}", meaning, "a v", float(fraction) * there, False))
        result = []
        for name, meaning, curve, level, down in wanted:
            reading = self._crossing(name, meaning, curve, level, falling=down)
            if falling:
                reading = replace(
                    reading, outcome=Outcome.NOT_YET, time=math.nan, note="e_ts is still falling at the end"
                )
            elif down and fall <= 10.0 * self.trace.tolerance * first:
                note = f"e_ts falls by {fall / first:.1e} of itself only, within its error"
                reading = replace(reading, outcome=Outcome.UNRESOLVED, time=math.nan, note=note)
            result.append(reading)
        return result

    def _crossing(
        self,
        name: str,
        meaning: str,
        curve: str,
        level: float,
        *,
        after: float = 0.0,
        falling: bool = False,
        error: Callable[[Profile], FloatArray] | None = None,
    ) -> _Reading:
        """First time from ``after`` on at which a curve reaches a level; ``error`` is what the tolerance multiplies."""
        width = None if self.trace.formulation.infinite_width else self.trace.formulation.width
        value, sign = curve_of(curve, width), (-1.0 if falling else 1.0)
        level *= sign

        def function(profile: Profile) -> FloatArray:
            return sign * value(profile)

        reading = _Reading(name=name, meaning=meaning, curve=curve, outcome=Outcome.FOUND)
        t = self.trace.t
        first = int(np.searchsorted(t, after, side="right"))
        everything = function(self.trace.profile)
        at_row = first > 0 and t[first - 1] == after
        start = float(everything[first - 1] if at_row else function(self.trace.at(np.array([max(after, t[0])])))[0])
        if start >= level:
            return replace(reading, outcome=Outcome.AT_START, note="holds from the start")
        rows = everything[first:]
        reached = np.flatnonzero(rows >= level)
        if not len(reached):
            return self._missed(reading, function, start, level)
        row = first + int(reached[0])
        low, high = max(float(t[row - 1]), after), float(t[row])
        if self.trace.sampled:
            before = start if low == after else float(everything[row - 1])
            time = _straight(low, high, (level - before) / (float(everything[row]) - before))
        else:
            time = _narrow(self.trace, function, level, low, high)
        delta = self.trace.tolerance
        spread = 0.0
        if delta > 0.0:
            there = self.trace.at(np.array([time]))
            scale = float((error or (lambda p: np.abs(value(p))))(there)[0])
            step = 0.05
            ends = np.clip(time * np.exp([-step, step]), t[0], self.trace.end)
            values = function(self.trace.at(ends))
            slope = float(values[1] - values[0]) / math.log(ends[1] / ends[0])
            margin = float(rows.max()) - level
            spread = delta * scale / slope if slope > 0.0 else math.inf
            if spread > _BLURRED or (margin < delta * scale and row == len(t) - 1):
                return replace(reading, outcome=Outcome.UNRESOLVED, note="the level is reached within the error only")
        return replace(reading, time=time, spread=spread, before=low, behind=high)

    def _missed(
        self, reading: _Reading, function: Callable[[Profile], FloatArray], start: float, level: float
    ) -> _Reading:
        """Say how far a curve got that did not reach its level, and whether it was still moving."""
        end = self.trace.end
        last = float(function(self.trace.profile)[-1])
        past = float(function(self.trace.at(np.array([max(end / math.e, float(self.trace.t[0]))])))[0])
        way, drift = (last - start) / (level - start), (last - past) / (level - start)
        moving = drift * _FOLDS_TO_WAIT > 1.0 - way
        last_fold = "nothing" if abs(drift) < 1e-6 else f"{100 * drift:.1g} %"
        note = f"{100 * way:.2g} % of the way at the end (t = {end:.4g}), {last_fold} of it in the last e-fold of time"
        return replace(reading, outcome=Outcome.NOT_YET if moving else Outcome.LEVELLED_OFF, note=note)


def second_layer_name(value: float) -> str:
    """Name of the event t_0(m; c)."""
    return f"t0({value:g})"


def _narrow(trace: Trace, function: Callable[[Profile], FloatArray], level: float, low: float, high: float) -> float:
    """Time between two rows at which an increasing function reaches a level: 33 points at a time."""
    time = high
    for _ in range(8):
        points = np.linspace(low, high, 33)
        values = function(trace.at(points))
        place = int(np.argmax(values >= level))
        if place == 0:  # rounding at the ends, which were rows
            return high if values[0] < level else low
        low, high = float(points[place - 1]), float(points[place])
        time = low + (high - low) * float((level - values[place - 1]) / (values[place] - values[place - 1]))
        if high - low <= 1e-5 * high:  # straight to the square of that
            break
    return time


def _straight(low: float, high: float, share: float) -> float:
    """Time at a share of the way between two recorded times: of ln t, or of t from 0 on."""
    if low == 0.0:
        return share * high
    return float(low * (high / low) ** share)


def _event(reading: _Reading, draws: Sequence[_Reading], trace: Trace, series: str, width: int | None) -> Event:
    """Turn a reading into an event, with its error from the tolerance or from the resampled replicas."""
    event = Event(
        series=series,
        width=width,
        name=reading.name,
        meaning=reading.meaning,
        curve=reading.curve,
        outcome=reading.outcome,
        note=reading.note,
    )
    if reading.outcome is not Outcome.FOUND:
        return event
    time = reading.time
    if not trace.sampled:
        return replace(
            event, time=time, low=time * math.exp(-reading.spread), high=time * math.exp(min(reading.spread, 700.0))
        )
    half = 0.5 * (reading.behind - reading.before)
    event = replace(event, time=time, resolution=half)
    if not draws:
        return replace(event, note="one replica: error unknown")
    times = np.array([draw.time for draw in draws if draw.outcome is Outcome.FOUND])
    share = len(times) / len(draws)
    if share < _SURE:
        note = f"in {100 * share:.0f} % of the resampled replicas only"
        return replace(event, time=None, resolution=0.0, outcome=Outcome.UNRESOLVED, note=note)
    # A time that may lie anywhere between two recorded ones has the spread of a uniform law.
    grid = math.log(reading.behind / reading.before) if reading.before > 0.0 else 2.0 * half / time
    spread = math.hypot(float(np.std(np.log(times))), grid / math.sqrt(12.0))
    return replace(event, low=time * math.exp(-spread), high=time * math.exp(spread))
