"""The interpolation threshold of gradient flow at a fixed second layer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from dmft._validate import integer, real, shown
from dmft.activations import Activation
from dmft.limits.linear_fit import LinearFit, remainder
from dmft.problems.base import MAX_WIDTH
from dmft.targets import Target
from validation.thresholds.families import (
    AlphaFamily,
    Family,
    GammaFamily,
    SampleRatioFamily,
)
from validation.thresholds.laws import (
    Interval,
    Law,
    decay_exponent,
    divergence,
    exponent_at,
    rate_law,
    residual_law,
)
from validation.thresholds.points import Runner
from validation.thresholds.result import Estimate, Point, Threshold
from validation.thresholds.result import shown as interval_text
from validation.thresholds.search import Centre, Search, SearchError, Solved

ENOUGH_ABOVE, ENOUGH_BELOW = 5, 3
UNSEEN = 2e-3
"""Error in z that the laws do not show: points nearer than those placed have moved glassy thresholds by so much."""
ROUNDS = 4


def interpolation_threshold(
    activation: Activation,
    *,
    alpha: float | None = None,
    gamma: float | None = None,
    a0: float | None = None,
    width: int | None = None,
    target: Target | None = None,
    noise_std: float = 1.0,
    rtol: float = 1e-3,
    t_max: float = 1e4,
    workers: int | None = None,
    checkpoint: str | PathLike[str] | None = None,
    progress: Callable[[int, str], None] | None = None,
) -> Threshold:
    """Where gradient flow of the first layer begins to interpolate: e_tr(t -> infinity) = 0 on one side only.

    The second layer stays as it is. What is varied follows from what is given (theory section 4, [MU] sections F
    and H):

    =====================  =============================================================================
    alpha                  gamma*_GF(alpha) tau', for m -> infinity in the lazy scaling a = gamma sqrt(m)
    gamma                  its inverse alpha*_GF(gamma)
    alpha, width           gamma_GF(alpha, m)
    gamma, width           alpha_GF(gamma, m)
    a0, width              abar_GF(m), abar = n/d = alpha m, at fixed a
    a0                     abar_GF(infinity): m -> infinity at fixed n/d
    =====================  =============================================================================

    The lazy limit is the problem of one neuron of covariance ht(z) = h(z) - h'(0) z in noise of variance
    tau'^2 = tau^2 + |phi|^2 - |g(0)|^2/h'(0).

    Two routes share nothing but the solver. From the interpolating side times diverge: the relaxation time t_rel, the
    first of e_tr < 1e-7 tau^2 ("relaxation"), and the inverse of the late rate of sqrt(e_tr), the gap of the flow
    ("rate"). From the other side sqrt(e_tr(t -> infinity)) vanishes linearly ("residual"). Why, and with which
    exponents: :mod:`validation.thresholds.laws`. Curves have no noise, so the errors are systematic: ranges over
    windows, exponents and orders of the extrapolations, over their drift, and over resampled deviations.

    Parameters
    ----------
    activation : Activation
        Gives h(q).
    alpha, gamma, a0 : float, optional
        Exactly one of them: n/(m d) in (0, 1), a/sqrt(m) > 0, or a > 0.
    width : int, optional
        Number of neurons m; infinitely many when it is left out.
    target : Target, optional
        Pure noise when it is left out.
    noise_std : float
        tau.
    rtol : float
        Accuracy of the runs; the result is checked against runs ten times more accurate.
    t_max : float
        Length of the runs, in units of 1/[gamma^2 h'(1) (1 - sqrt alpha)^2], the relaxation time far from the
        threshold.
    workers : int, optional
        Processes; all cores, at most four, when left out. The result does not depend on it.
    checkpoint : path, optional
        Directory where finished runs are kept, and found by a later call.
    progress : callable, optional
        Called after every run with the number of runs done and a sentence.

    Returns
    -------
    Threshold
        With ``value``, ``low``, ``high``, ``estimates``, ``evidence``, ``verdict``.

    Raises
    ------
    ValueError, TypeError
        Bad arguments, in one sentence.
    SearchError
        (a RuntimeError) when no threshold was found or too many runs failed.
    """
    family, tau = _family(activation, alpha, gamma, a0, width, target, noise_std)
    rtol = real("rtol", rtol, low=1e-8, high=1e-2)
    t_max = real("t_max", t_max, low=1e3, high=1e7)
    if workers is None:
        workers = min(4, os.cpu_count() or 1)
    workers = integer("workers", workers, low=1)
    runner = Runner(workers, None if checkpoint is None else Path(checkpoint), progress)
    search = Search(family, runner, rtol, t_max)
    solved = _solve(search)
    check = _numerical_change(search, solved)
    return _result(
        family,
        solved,
        check,
        activation=activation,
        target=Target.noise() if target is None else target,
        noise_std=noise_std,
        tau=tau,
        wall_time=runner.wall_time,
    )


def _family(
    activation: Activation,
    alpha: float | None,
    gamma: float | None,
    a0: float | None,
    width: int | None,
    target: Target | None,
    noise_std: float,
) -> tuple[Family, float]:
    """The family that the arguments mean, and tau' or sqrt(tau^2 + |phi|^2)."""
    if not isinstance(activation, Activation):
        raise TypeError(f"activation must be a dmft.Activation, not {shown(activation)}.")
    target = Target.noise() if target is None else target
    if not isinstance(target, Target):
        raise TypeError(f"target must be a dmft.Target, not {shown(target)}.")
    given = {name: value for name, value in (("alpha", alpha), ("gamma", gamma), ("a0", a0)) if value is not None}
    if len(given) != 1:
        have = " and ".join(f"{name} = {shown(value)}" for name, value in given.items()) or "none"
        raise ValueError(f"Exactly one of alpha, gamma and a0 must be given (what is varied follows), not {have}.")
    noise_std = real("noise_std", noise_std, low=0.0)
    if width is not None:
        width = integer("width", width, low=1, high=MAX_WIDTH)
    if alpha is not None:
        alpha = real("alpha", alpha, low=0.0, high=1.0, open_low=True, open_high=True)
    if gamma is not None:
        gamma = real("gamma", gamma, low=0.0, open_low=True)
    if a0 is not None:
        a0 = real("a0", a0, low=0.0, open_low=True)
    lazy = width is None and a0 is None
    if lazy:
        tau = LinearFit.of(activation, target, noise_std).noise_std
        reduced, noise = remainder(activation), Target.noise()
        if alpha is not None:
            return (
                GammaFamily(
                    activation=reduced,
                    target=noise,
                    noise_std=1.0,
                    alpha=alpha,
                    width=None,
                    value_unit=tau,
                    time_unit=tau**-2,
                ),
                tau,
            )
        assert gamma is not None
        return (
            AlphaFamily(
                activation=reduced,
                target=noise,
                noise_std=1.0,
                gamma=gamma / tau,
                width=None,
                value_unit=tau,
                time_unit=tau**-2,
            ),
            tau,
        )
    tau = float(np.sqrt(noise_std**2 + target.resolve(activation).power))
    if tau == 0.0:
        raise ValueError(
            f"noise_std must be > 0 when the target is noise, not {noise_std!r}: all labels would be zero."
        )
    if a0 is not None:
        if width is None:
            remainder(activation)  # refuses a linear activation: infinitely many such neurons are one
        return SampleRatioFamily(activation=activation, target=target, noise_std=noise_std, a0=a0, width=width), tau
    if alpha is not None:
        return GammaFamily(activation=activation, target=target, noise_std=noise_std, alpha=alpha, width=width), tau
    assert gamma is not None
    return AlphaFamily(activation=activation, target=target, noise_std=noise_std, gamma=gamma, width=width), tau


def _sides(solved: Sequence[Solved]) -> tuple[list[Solved], list[Solved]]:
    """Points that interpolate, and those that do not, whose runs are good for something; nearest first."""
    above = [point for point in solved if point.trace.interpolates]
    below = [point for point in solved if point.stays_above_zero]
    return sorted(above, key=lambda point: point.z), sorted(below, key=lambda point: -point.z)


def _solve(search: Search) -> list[Solved]:
    """Bracket, place points, and place them again where the first idea was too far off."""
    centre = search.bracket()
    solved: list[Solved] = []
    for _ in range(ROUNDS):
        known = {point.x for point in solved}
        solved += [point for point in search.around(centre) if point.x not in known]
        above, below = _sides(solved)
        if len(above) >= ENOUGH_ABOVE and len(below) >= ENOUGH_BELOW:
            return solved
        if above and below:
            better = Centre(z=0.5 * (above[0].z + below[0].z), slope=centre.slope)
        elif above or below:
            side = above[0].z if above else below[0].z
            better = Centre(z=side + (-0.1 if above else 0.1) / centre.slope, slope=centre.slope)
        else:
            raise SearchError(f"all runs failed; the last one: {solved[-1].trace.message}.")
        if abs(better.z - centre.z) * centre.slope < 1e-3:
            break
        centre = better
    failed = next((point.trace.message for point in solved if not point.useful), "none failed")
    raise SearchError(
        f"only {len(above)} runs that interpolate and {len(below)} that do not were found near "
        f"{search.family.varied} = {search.family.value(centre.z):.6g} ({failed})."
    )


def _numerical_change(search: Search, solved: Sequence[Solved]) -> float:
    """How far, in z, a point on each side would have to move to undo what a ten times smaller rtol changes in it."""
    above, below = _sides(solved)
    place = len(above) // 2
    chosen = [above[place], below[-1]]  # the nearest ones cost most
    again = search.solve([point.z for point in chosen], search.t_max, rtol=0.1 * search.rtol)
    changes = [0.0]
    first, second = chosen[0], again[0]
    if second.trace.interpolates:
        rates = np.array([float(point.trace.gap or np.nan) for point in above])
        slope = np.gradient(np.log(rates), [point.z for point in above])[place]
        ratio = float(second.trace.gap or np.nan) / float(first.trace.gap or np.nan)
        changes.append(abs(float(np.log(ratio) / slope)))
    first, second = chosen[1], again[1]
    if not second.trace.interpolates and second.useful:
        # Compared where both have got to: the end of a failed run is no property of the solution.
        end = min(first.trace.path[-1], second.trace.path[-1])
        values = [np.interp(np.log(end), np.log(p.trace.path), p.trace.residual) for p in (first, second)]
        limits = np.array([point.limit().value for point in below])
        slope = np.polyfit([point.z for point in below], limits, 1)[0]
        changes.append(abs(float((values[1] - values[0]) / slope)))
    return max(changes)


def _result(
    family: Family,
    solved: Sequence[Solved],
    change: float,
    *,
    activation: Activation,
    target: Target,
    noise_std: float,
    tau: float,
    wall_time: float,
) -> Threshold:
    unit = family.value_unit if family.varied == "gamma" else 1.0
    above, below = _sides(solved)
    z = np.array([point.z for point in above])
    times = np.array([point.trace.relaxation_time for point in above], dtype=float)
    slow = np.array([point.task.time_scale / point.trace.gap for point in above if point.trace.gap is not None])

    def reported(interval: Interval) -> Interval:
        return interval.widened(change).mapped(lambda z: unit * float(family.value(z)))

    laws = {"residual": residual_law(np.array([point.z for point in below]), [point.limit() for point in below])}
    if family.linear:
        laws["rate"] = rate_law(z, 1.0 / slow)
    else:
        laws["relaxation"], laws["rate"] = divergence(z, times), divergence(z, slow)
    from_above = _hull([law.threshold for route, law in laws.items() if route != "residual"])
    from_below = laws["residual"].threshold
    if not family.linear:
        from_above, from_below = from_above.widened(UNSEEN), from_below.widened(UNSEEN)
    agree = from_above.widened(change).overlaps(from_below.widened(change))
    best, other = sorted((from_above, from_below), key=lambda interval: interval.half_width)
    ends = (other.value, other.value) if agree else (other.low, other.high)
    total_z = Interval(value=best.value, low=min(best.low, *ends), high=max(best.high, *ends))
    total, upper, lower = reported(total_z), reported(from_above), reported(from_below)
    estimates = tuple(
        Estimate(
            route=route,
            **_numbers(reported(law.threshold)),
            points=law.points,
            method=_words(route, family, law),
            misfit=law.residual,
        )
        for route, law in sorted(laws.items())
    )
    notes = []
    unsure = [point for point in solved if not point.useful]
    if unsure:
        where = ", ".join(f"{unit * point.x:.5g}" for point in unsure)
        notes.append(f"not used, as the run did not show on which side it is: {family.varied} = {where}.")
    return Threshold(
        kind="interpolation",
        symbol=family.symbol,
        varied=family.varied,
        rises=family.rises,
        fixed=family.fixed,
        activation=activation.to_dict(),
        target=target.to_dict(),
        noise_std=float(noise_std),
        residual_noise=tau,
        value=total.value,
        low=total.low,
        high=total.high,
        nu=exponent_at(z, times, total_z),
        nu_gap=exponent_at(z, slow, total_z),
        estimates=estimates,
        agree=agree,
        numerical_error=abs(unit * float(family.value(total_z.value + change)) - total.value),
        evidence=tuple(_point(family, point, unit) for point in sorted(solved, key=lambda point: point.x)),
        notes=tuple(notes),
        verdict=_verdict(family, total, upper, lower, agree),
        wall_time=wall_time,
    )


def _numbers(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _hull(intervals: Sequence[Interval]) -> Interval:
    """All of the ranges, and the mean of the values."""
    return Interval(
        value=sum(interval.value for interval in intervals) / len(intervals),
        low=min(interval.low for interval in intervals),
        high=max(interval.high for interval in intervals),
    )


def _words(route: str, family: Family, law: Law) -> str:
    if route == "residual":
        return "sqrt(e_tr) extrapolated to t -> infinity at each point, then to zero over the points"
    name = "t_rel" if route == "relaxation" else "late rate of sqrt(e_tr)"
    if family.linear:
        return f"{name} vanishes linearly"
    sign = "-" if route == "relaxation" else ""
    return f"{name} ~ distance^({sign}nu), nu free, with a correction to scaling: nu = {interval_text(law.exponent)}"


def _point(family: Family, point: Solved, unit: float) -> Point:
    trace = point.trace
    below = point.stays_above_zero
    limit = point.limit() if below else None
    factor = family.time_unit
    slow = below and not family.linear
    return Point(
        x=unit * point.x,
        interpolates=trace.interpolates,
        status=trace.status,
        t_end=factor * trace.t_end,
        relaxation_time=None if trace.relaxation_time is None else factor * trace.relaxation_time,
        gap=None if trace.gap is None else trace.gap / point.task.time_scale / factor,
        residual=None if limit is None else limit.value,
        residual_low=None if limit is None else limit.low,
        residual_high=None if limit is None else limit.high,
        decay_exponent=decay_exponent(np.array(trace.path), np.array(trace.residual)) if slow else None,
        train_error=0.0 if trace.interpolates else None if limit is None else 0.5 * limit.value**2,
        rtol=point.task.rtol,
        problem=point.task.problem.to_dict(),
        rows=trace.rows,
        wall_time=trace.wall_time,
    )


def _verdict(family: Family, total: Interval, upper: Interval, lower: Interval, agree: bool) -> str:
    side = "from" if family.rises else "up to"
    percent = 100.0 * max(total.high - total.value, total.value - total.low) / total.value
    name = {"gamma": "gamma = a/sqrt(m)", "alpha": "alpha = n/(m d)", "sample_ratio": "abar = n/d"}[family.varied]
    both = f"{interval_text(upper)} from the interpolating side, {interval_text(lower)} from the other"
    if agree:
        return (
            f"Gradient flow at this fixed second layer interpolates {side} {name} = {interval_text(total)} "
            f"({percent:.2g} %) on; the two routes agree ({both})."
        )
    return (
        f"The two routes disagree beyond their errors ({both}); the threshold in {name} lies in "
        f"[{total.low:.5g}, {total.high:.5g}] if one of them is right; one of the extrapolations is not to be trusted."
    )
