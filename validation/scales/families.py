"""What a family of widths says: exponents, collapse, regimes, and how fast an infinite width is approached.

**Exponents.** Event times of the theory are free of noise, so what a fit of a straight line in ln-ln calls an error is
meaningless: the error is that widths are finite, t = A m^p (1 + b m^(-w) + ...). The interval of an exponent is the
hull of what follows from corrections with w = 1/4, 1/2, 1, and with two of them together, each fitted to as many of the
largest widths as it describes within their errors, and of the last local slope with half of its last change as a
reserve; a quarter is added on both sides for what comes next. It contains the exponent of m -> infinity if the
corrections decay like m^(-1/3) or faster, are small by the largest widths, and no new regime begins beyond; no finite
set of widths can exclude the latter, or a logarithm. With three widths it is rough. If local slopes change by more from
one pair of widths to the next, they have not begun to converge: the exponent is then not settled, and there is no
interval.

**Collapse.** Around an event, curves of neighbouring widths are compared after time has been divided by 1/m, 1, sqrt(m)
or m. The score is their mean squared distance over a window of ln(time) around the event, divided by the variance of
the curve in that window; the smallest score of the two largest widths tells the scale. No prediction enters either of
the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from validation.scales.events import Event, Outcome, curve_of
from validation.scales.traces import Trace

FloatArray = NDArray[np.float64]

SCALES = (-1.0, 0.0, 0.5, 1.0)
"""Exponents of the scales that times may have: 1/m, 1, sqrt(m), m."""
CURVES = ("train_error", "test_error", "a", "gamma", "v", "a v")
"""Curves whose collapse is scored around every event, besides the one that it is read off."""

_CORRECTIONS = ((0.25,), (0.5,), (1.0,), (0.25, 1.0), (0.5, 1.0))
"""Powers of 1/m in the corrections to scaling. Two of opposite signs let local slopes overshoot and turn."""
_WIDER = 0.25
"""Share of its width that an interval gets on either side, for corrections that were left out."""
_FLOOR = 1e-5
"""Smallest error of ln(time) that is believed: below it, the interpolation of the runs decides."""
_STILL = 0.02
"""A local slope that changes by less than this has settled, whatever it did before."""
_HALF_WINDOW = math.log(2.0)
"""Half width of a collapse window in ln(time)."""
_POINTS = 41
_COVERED = 0.5
"""Share of a window that both runs must cover for a score."""
_FAILED = 1.0
"""Score of curves that differ by as much as they vary: they do not collapse."""
_DISTINCT = 2.0
"""Factor between the two best scores from which on one is called the best."""


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """How the time of one event grows with the width, t ~ m^p.

    Attributes
    ----------
    series, event : str
        Of which times.
    widths : tuple of int
        Widths that have the event with a known error.
    value : float
        Best estimate of p at m -> infinity, with the correction that describes the times best; `power_law` where it is
        not settled.
    low, high : float
        Interval for p at m -> infinity; see the module for what it contains. Infinite when not settled.
    settled : bool
        Whether the local slopes converge.
    slopes : tuple of float
        Local slopes between successive widths.
    power_law, power_law_error : float
        Slope of a straight line in ln-ln through all widths by weighted least squares, and its standard error, scaled
        up where the times scatter more than their errors. No interval for m -> infinity.
    amplitude : float
        A of A m^value at the largest width.
    """

    series: str
    event: str
    widths: tuple[int, ...]
    value: float
    low: float
    high: float
    settled: bool
    slopes: tuple[float, ...]
    power_law: float
    power_law_error: float
    amplitude: float

    def contains(self, exponent: float) -> bool:
        """Whether the interval does."""
        return self.settled and self.low <= exponent <= self.high


@dataclass(frozen=True, kw_only=True)
class Collapse:
    """How well one curve of neighbouring widths collapses around one event, in one scaled time.

    Attributes
    ----------
    series, event, curve : str
    scale : float
        Exponent p of the scaled time t / m^p.
    score : float or None
        Mean squared distance over variance, averaged over pairs of neighbouring widths; None where no pair of runs
        covers the window.
    largest_pair : float or None
        The same for the two largest widths that cover it.
    pairs : int
        Pairs in the average.
    """

    series: str
    event: str
    curve: str
    scale: float
    score: float | None
    largest_pair: float | None
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Regime:
    """Which scale an event lives on.

    Attributes
    ----------
    series, event : str
    scale : float or None
        p of the scale m^p; None when undecided or when it is none of the four.
    by : str
        What decides: "exponent and collapse", "exponent", "collapse", or "" when undecided.
    widths : tuple of int
        Widths that have the event.
    missing : tuple of int
        Larger widths without it, whose curves have levelled off: there is no such event for m -> infinity, then.
    sentence : str
        The same in words.
    """

    series: str
    event: str
    scale: float | None
    by: str
    widths: tuple[int, ...]
    missing: tuple[int, ...]
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Approach:
    """How curves at fixed n/d approach those of the largest width (or of an infinite one), distance ~ m^(-rate).

    Attributes
    ----------
    series, curve : str
    reference : int or None
        The largest width; None for an infinite one.
    widths : tuple of int
        The others.
    distances : tuple of float
        Root mean square distance to the reference over the common range of ln(t_mf), relative to the standard deviation
        of the reference there.
    rate, low, high : float
        Exponent in m^(-rate) - reference^(-rate), from all distances, and its range over neighbouring widths.
    """

    series: str
    curve: str
    reference: int | None
    widths: tuple[int, ...]
    distances: tuple[float, ...]
    rate: float
    low: float
    high: float


# ---------------------------------------------------------------------------------------------------- exponents


def exponent(series: str, event: str, widths: Sequence[int], times: FloatArray, errors: FloatArray) -> Exponent:
    """Exponent of times (X,) with errors (X,) of their logarithms, at increasing widths (X,), X >= 3."""
    x, y = np.log(np.asarray(widths, dtype=np.float64)), np.log(times)
    sigma = np.maximum(errors, _FLOOR)
    slopes = np.diff(y) / np.diff(x)
    slope_errors = np.hypot(sigma[1:], sigma[:-1]) / np.diff(x)
    power_law, power_law_error = _line(x, y, sigma)
    settled = _settled(slopes, slope_errors)
    ends = [slopes[-1] - 2.0 * slope_errors[-1], slopes[-1] + 2.0 * slope_errors[-1]]
    misfits: list[tuple[float, float]] = []
    for powers in _CORRECTIONS:
        if len(x) >= 2 + len(powers):
            value, error, misfit = _corrected(x, y, sigma, powers)
            ends += [value - 2.0 * error, value + 2.0 * error]
            misfits.append((misfit, value))
    change = slopes[-1] - slopes[-2]
    ends.append(slopes[-1] - 0.5 * change)
    if len(slopes) > 2 and change * (slopes[-2] - slopes[-3]) < 0.0:
        ends += slopes[-3:].tolist()  # not monotonic: nothing beyond what was seen can be excluded on either side
    # With three widths every correction fits, and the middle one is as good as any.
    value = min(misfits)[1] if len(x) > 3 else misfits[len(misfits) // 2][1]
    low, high = -math.inf, math.inf
    if not settled:
        value = power_law  # corrections fitted to slopes that do not converge extrapolate to anything
    else:
        reserve = _WIDER * float(max(ends) - min(ends))
        low, high = float(min(ends)) - reserve, float(max(ends)) + reserve
    return Exponent(
        series=series,
        event=event,
        widths=tuple(widths),
        value=float(value),
        low=low,
        high=high,
        settled=settled,
        slopes=tuple(slopes.tolist()),
        power_law=power_law,
        power_law_error=power_law_error,
        amplitude=float(np.exp(y[-1] - value * x[-1])),
    )


def _settled(slopes: FloatArray, errors: FloatArray) -> bool:
    """Whether the last change of the local slope is no larger than the one before it."""
    last = abs(slopes[-1] - slopes[-2])
    noise = 2.0 * math.hypot(errors[-1], errors[-2])
    if last <= _STILL + noise:
        return True
    if len(slopes) < 3:
        return bool(last < 0.5)  # one change says nothing of convergence, but a large one excludes it
    return bool(last <= 1.1 * abs(slopes[-2] - slopes[-3]) + noise)


def _line(x: FloatArray, y: FloatArray, sigma: FloatArray) -> tuple[float, float]:
    design = np.stack([np.ones_like(x), x], axis=1) / sigma[:, None]
    solution, *_ = np.linalg.lstsq(design, y / sigma, rcond=None)
    misfit = float(((design @ solution - y / sigma) ** 2).sum()) / (len(x) - 2)
    covariance = np.linalg.inv(design.T @ design)
    return float(solution[1]), float(math.sqrt(covariance[1, 1] * max(misfit, 1.0)))


def _corrected(
    x: FloatArray, y: FloatArray, sigma: FloatArray, powers: tuple[float, ...]
) -> tuple[float, float, float]:
    """p, its error and chi^2 for one of ln t = c + p ln m + sum_w b_w m^(-w).

    Over as many of the largest widths as the form describes within their errors. So that forms can be compared, chi^2
    is that of the last four widths, for a form with one correction.
    """
    parameters = 2 + len(powers)
    misfit = math.inf
    for count in range(len(x), parameters - 1, -1):
        part = slice(len(x) - count, len(x))
        offset = x[part] - x[part][0]  # powers relative to the smallest width in use are of order one
        columns = [np.ones(count), offset, *(np.exp(-power * offset) for power in powers)]
        design = np.stack(columns, axis=1) / sigma[part, None]
        solution, *_ = np.linalg.lstsq(design, y[part] / sigma[part], rcond=None)
        chi_squared = float(((design @ solution - y[part] / sigma[part]) ** 2).sum())
        if count > parameters and chi_squared > float(chi2.ppf(0.95, count - parameters)):
            if count == 4:
                misfit = chi_squared
            continue
        if count > parameters:
            misfit = chi_squared / (count - parameters)
        error = float(np.sqrt(np.linalg.inv(design.T @ design)[1, 1]))
        return float(solution[1]), error, misfit
    raise AssertionError("as many parameters as widths always fit")


# ----------------------------------------------------------------------------------------------------- collapse


def collapses(
    events: Sequence[Event], traces: Sequence[Trace], scales: Sequence[float], curves: Sequence[str]
) -> list[Collapse]:
    """Scores of all scaled times around one event.

    Parameters
    ----------
    events : (X,)
        The event at increasing widths, found or not.
    traces : (X,)
        The runs.
    scales : sequence of float
        Exponents p of t / m^p to try.
    curves : sequence of str
        Which curves, as `curve_of` knows them.
    """
    scores: dict[tuple[str, float], list[float]] = {(curve, scale): [] for curve in curves for scale in scales}
    for place in range(len(events) - 1):
        if events[place].found and events[place + 1].found:
            pair = _pair(events[place : place + 2], traces[place : place + 2], scales, curves)
            for key, score in pair.items():
                scores[key].append(score)
    return [
        Collapse(
            series=events[0].series,
            event=events[0].name,
            curve=curve,
            scale=scale,
            score=float(np.mean(found)) if found else None,
            largest_pair=found[-1] if found else None,
            pairs=len(found),
        )
        for (curve, scale), found in scores.items()
    ]


def _pair(
    events: Sequence[Event], traces: Sequence[Trace], scales: Sequence[float], curves: Sequence[str]
) -> dict[tuple[str, float], float]:
    """Scores of two neighbouring widths over the part of the window that they cover for every scale that is scored.

    The window is placed around the event of the wider network, so it is the same for all scales.
    """
    narrow, wide = traces
    widths = [event.width or 1 for event in events]
    time = events[1].time
    assert time is not None
    window = np.log(time) + np.linspace(-_HALF_WINDOW, _HALF_WINDOW, _POINTS)
    window = window[window <= math.log(wide.end)]
    shifts = {scale: scale * math.log(widths[0] / widths[1]) for scale in scales}
    covered = {
        scale: shift
        for scale, shift in shifts.items()
        if np.sum(window + shift <= math.log(narrow.end)) > _COVERED * _POINTS
    }
    if not covered:
        return {}
    window = window[window + max(covered.values()) <= math.log(narrow.end)]
    target = wide.at(np.clip(np.exp(window), wide.t[0], wide.end))
    moved = {
        scale: narrow.at(np.clip(np.exp(window + shift), narrow.t[0], narrow.end)) for scale, shift in covered.items()
    }
    result = {}
    for curve in curves:
        there = curve_of(curve, widths[1])(target)
        variance = float(there.var())
        if variance <= (1e-4 * float(np.abs(there).max())) ** 2:
            continue  # the curve does not move in this window, and any scale would do
        for scale, profile in moved.items():
            here = curve_of(curve, widths[0])(profile)
            result[curve, scale] = float(np.mean((here - there) ** 2)) / variance
    return result


def best_scale(scores: Sequence[Collapse], curve: str) -> float | None:
    """The scale with the smallest score of a curve, if that is below 1 and distinctly the smallest of at least two.

    That of the two largest widths decides: small ones may still be far from any scaling.
    """
    known = sorted(
        (one.largest_pair, one.scale) for one in scores if one.curve == curve and one.largest_pair is not None
    )
    if len(known) < 2 or known[0][0] >= _FAILED or known[1][0] < _DISTINCT * known[0][0]:
        return None
    return known[0][1]


# ------------------------------------------------------------------------------------------------------ regimes


def regime(
    events: Sequence[Event], found: Exponent | None, best: float | None, scales: Sequence[float], names: Sequence[str]
) -> Regime:
    """Assign an event to a scale.

    Parameters
    ----------
    events : (X,)
        The event at increasing widths.
    found : Exponent or None
        Its exponent, where at least three widths have it.
    best : float or None
        What the collapse says.
    scales, names : sequences
        Exponents to choose from, and what they are called.
    """
    has = tuple(event.width or 0 for event in events if event.found)
    top = max(has, default=0)
    larger = [event for event in events if has and (event.width or 0) > top]
    missing = tuple(event.width or 0 for event in larger if event.outcome is Outcome.LEVELLED_OFF)
    unknown = [event for event in larger if event.outcome is not Outcome.LEVELLED_OFF]
    label = dict(zip(scales, names, strict=True))
    scale, by, words = None, "", ""
    if missing:
        words = f"found at {widths_text(has)} only; at {widths_text(missing)} the curve levels off without it"
    elif not has:
        words = "not found"
    elif found is None:
        words = "too few widths for an exponent"
    elif not found.settled:
        words = "exponent not settled, local slopes " + ", ".join(f"{slope:.2f}" for slope in found.slopes)
        if best is not None:
            words += f"; collapse prefers {label[best]}"
    else:
        inside = [candidate for candidate in scales if found.contains(candidate)]
        if len(inside) == 1:
            scale, by = inside[0], "exponent and collapse" if best == inside[0] else "exponent"
            words = f"time ~ {label[scale]}"
            if best is not None and best != scale:
                words += f", although the curves collapse better in {label[best]} at these widths"
        elif best in inside:
            scale, by, words = best, "collapse", f"time ~ {label[best]}"
        elif inside:
            words = f"undecided between {' and '.join(label[candidate] for candidate in inside)}"
            words += f", the exponent is in [{found.low:.2f}, {found.high:.2f}]"
        else:
            words = f"time ~ m^{found.value:.2f}, in [{found.low:.3f}, {found.high:.3f}]: none of " + ", ".join(names)
    if unknown and not missing:
        words += f" (nothing is known of {widths_text([event.width or 0 for event in unknown])})"
    return Regime(
        series=events[0].series, event=events[0].name, scale=scale, by=by, widths=has, missing=missing, sentence=words
    )


def widths_text(widths: Sequence[int]) -> str:
    """Widths in words."""
    return "m = " + (str(widths[0]) if len(widths) == 1 else f"{min(widths)} to {max(widths)}")


# ----------------------------------------------------------------------------------------------------- approach


def approach(
    series: str,
    curve: str,
    widths: Sequence[int],
    traces: Sequence[Trace],
    reference: Trace | None,
) -> Approach | None:
    """How one curve approaches that of an infinite width (``reference``), or else of the largest one.

    None where the curve does not move, or fewer than two widths are left.
    """
    if reference is None:
        reference, target = traces[-1], widths[-1]
        widths, traces = widths[:-1], traces[:-1]
        inverse = 1.0 / target
    else:
        target, inverse = 0, 0.0
    if len(widths) < 2:
        return None
    first = max(float(trace.t[min(1, len(trace.t) - 1)]) for trace in (*traces, reference))
    last = min(trace.end for trace in (*traces, reference))
    if first >= last:
        return None
    times = np.clip(np.geomspace(first, last, 401), first, last)
    read: Callable[..., FloatArray] = curve_of(curve, None)
    there = read(reference.at(times))
    deviation = float(there.std())
    if deviation <= 1e-4 * float(np.abs(there).max()):
        return None
    distances = np.array([math.sqrt(float(np.mean((read(trace.at(times)) - there) ** 2))) for trace in traces])
    distances /= deviation
    if (distances <= 0.0).any():
        return None
    m = np.asarray(widths, dtype=np.float64)
    local = [_rate(m[i : i + 2], distances[i : i + 2], inverse) for i in range(len(m) - 1)]
    return Approach(
        series=series,
        curve=curve,
        reference=target or None,
        widths=tuple(widths),
        distances=tuple(distances.tolist()),
        rate=_rate(m, distances, inverse),
        low=min(local),
        high=max(local),
    )


def _rate(m: FloatArray, distances: FloatArray, inverse: float) -> float:
    """Exponent k of least squares of ln(distance) = c + ln(m^(-k) - inverse^k)."""
    rates = np.linspace(0.02, 4.0, 2000)[:, None]
    shape = np.log(m ** (-rates) - (inverse**rates if inverse > 0.0 else 0.0))
    residual = np.log(distances) - shape
    misfit = residual.var(axis=1)
    return float(rates[int(np.argmin(misfit)), 0])
