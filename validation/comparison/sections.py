"""One series of simulations against the theory: its rows, its statistics, its verdict."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmft.simulation import Settings, Simulation
from dmft.solution import Solution
from dmft.status import Status
from validation.comparison.checks import other_algorithms, same_algorithm, unfinished
from validation.comparison.observables import OBSERVABLES, Column, columns_of, gather, recorded_names, theory_of
from validation.comparison.records import Outcome, Row, Section, Summary
from validation.comparison.statistics import (
    Data,
    Design,
    FloatArray,
    Scores,
    SingleArray,
    Theory,
    check_normality,
    choose_fit,
    family_p_value,
    limit_scores,
    misfit,
    null_scores,
    score,
    too_skewed,
)
from validation.comparison.words import p_text

_ROUNDING = {"double": 1e-9, "single": 1e-6}  # relative to the scale: what precision alone makes of a constant


_POSITIVE = ("train_error", "C_r")
"""Observables that fall to zero, and scatter over orders of magnitude where they do."""

_AMPLIFIED = 20.0
"""Error of the limit over that of the largest dimension from which on an extrapolation says nothing."""


_BLIND = 0.25
"""Typical relative error from which on agreement would mean nothing."""


def section_of(
    name: str,
    solution: Solution,
    simulations: list[Simulation],
    wanted: tuple[str, ...] | None,
    chosen: FloatArray | None,
    level: float,
) -> Section:
    """Compare one series, dimensions increasing, with the theory.

    Parameters
    ----------
    name : str
        Of the series.
    solution, simulations : Solution, list of Simulation
        Of the same problem.
    wanted : tuple of str, optional
        Observables, those that were not recorded left out; None for all.
    chosen : (X,) float, optional
        Recorded times to use; None for all.
    level : float
        Family-wise p-value below which theory and simulation are said to differ.

    Raises
    ------
    ValueError
        When nothing is left to compare, or a chosen time was not recorded.
    """
    notes = unfinished(solution, simulations) + other_algorithms(solution, simulations)
    recorded = recorded_names(simulations)
    every = {n for simulation in simulations for n in recorded_names([simulation])}
    if wanted is None and every - set(recorded):
        left = ", ".join(n for n in OBSERVABLES if n in every and n not in recorded)
        notes.append(f"{left} not recorded in every simulation, left out.")
    used = tuple(n for n in recorded if wanted is None or n in wanted)
    if not used:
        raise ValueError(f"{name}: none of the observables was recorded in every simulation of the series.")
    columns = columns_of(solution, simulations, used, chosen, notes, name)
    data = gather(simulations, columns)
    theory, scale, observable = theory_of(solution, columns)
    # What initial condition or normalisation fixes is no test when it is right, and a failure when it is not.
    rounding = max(_ROUNDING[simulation.settings.precision] for simulation in simulations) * scale
    still = np.sqrt(data.variances) <= rounding
    right = np.abs(data.means - theory.values) <= np.maximum(theory.errors, rounding)
    fixed = np.all(still & right, axis=0)
    keep: NDArray[np.bool_] = np.logical_not(fixed)
    if not keep.any():
        raise ValueError(f"{name}: all values are fixed by the initial condition, nothing is left to compare.")
    if fixed.any():
        notes.append(f"not counted, as fixed by initial condition or normalisation and right: {int(fixed.sum())}.")
    positive = np.isin(observable, _POSITIVE)
    skewed = keep & positive & too_skewed(data)
    if skewed.any():
        names = ", ".join(dict.fromkeys(observable[skewed].tolist()))
        notes.append(
            f"left out, as their replicas are too skewed for so few of them: {int(skewed.sum())} of {names} "
            "(late train errors scatter over orders of magnitude; more replicas bring them back)."
        )
        keep &= ~skewed
        if not keep.any():
            raise ValueError(f"{name}: the replicas are too skewed and too few for any comparison; simulate more.")
    data, scale, observable = data.rows(keep), scale[keep], observable[keep]
    theory = Theory(theory.values[keep], theory.errors[keep], theory.curves[keep])
    fit = choose_fit(data)
    notes += fit.notes
    design, draws = fit.design, fit.draws
    scores = limit_scores(data, design, theory)
    null_z = None if data.values is None else null_scores(data, design, theory, draws)
    last, single = data.largest(), Design.of(data.dimensions[-1:], data.counts[-1:], 0)
    several = len(data.dimensions) > 1
    p_value = family_p_value(scores.z, null_z)
    if several:
        last_null = None if data.values is None else null_scores(last, single, theory, draws)
        p_last = family_p_value(limit_scores(last, single, theory).z, last_null)
    else:
        p_last = p_value
    if null_z is None:
        notes.append("without replicas correlations are unknown: p-values are bounds for independent comparisons.")
    rows = _rows(name, columns, keep, data, design, scores, theory, scale)
    outcome = Outcome.DIFFERS if p_value < level else Outcome.BIAS if p_last < level else Outcome.AGREES
    amplification = design.amplification(data.dimensions, data.counts)
    typical = float(np.median([row.gap_error for row in rows]))
    if outcome is not Outcome.DIFFERS and (amplification > _AMPLIFIED or typical > _BLIND):
        outcome = Outcome.UNDECIDED
    check = None if null_z is None else check_normality(scores.z, null_z)
    effective = None if check is None else check.effective
    summaries = tuple(
        _summary(n, [row for row in rows if row.observable == n], scores.z, null_z, observable == n)
        for n in used
        if (observable == n).any()
    )
    dimensions, counts = tuple(map(int, data.dimensions)), tuple(map(int, data.counts))
    settings = tuple(simulation.settings for simulation in simulations)
    linear = simulations[0].problem.activation.degree == 1
    cause = _cause(solution, settings, linear)
    verdict = _verdict(name, cause, rows, outcome, p_value, p_last, dimensions, effective, amplification)
    if any(simulation.status in (Status.DIVERGED, Status.FAILED) for simulation in simulations):
        verdict = f"{verdict[:-1]}; replicas have failed and are left out, see the notes."
    return Section(
        name=name,
        model=settings[0].model,
        settings=settings,
        dimensions=dimensions,
        replicas=counts,
        rows=tuple(rows),
        summaries=summaries,
        fit=design.formula,
        fit_p_value=fit.p_value,
        p_value=p_value,
        p_value_largest=p_last,
        normality=check,
        exact_draws=null_z is not None,
        effective=effective,
        outcome=outcome,
        verdict=verdict,
        notes=tuple(notes),
        null_z=null_z,
    )


def _rows(
    name: str,
    columns: list[Column],
    keep: NDArray[np.bool_],
    data: Data,
    design: Design,
    scores: Scores,
    theory: Theory,
    scale: FloatArray,
) -> list[Row]:
    places = [
        (column.observable, column.label, float(column.t[i]), None if t_prime is None else float(t_prime[i]))
        for column in columns
        for t_prime in (column.t_prime,)
        for i in range(len(column.t))
    ]
    places = [place for place, kept in zip(places, keep, strict=True) if kept]
    values = design.limit @ data.means
    # One dimension at a time: its own degrees of freedom.
    z_each = np.stack(
        [
            score(mean - theory.values, variance[None], data.counts[k : k + 1], theory.errors).z
            for k, (mean, variance) in enumerate(zip(data.means, data.variances, strict=True))
        ]
    )
    slope = slope_scores = chi2 = None
    if design.terms:
        slope = design.slopes[0] @ data.means
        slope_scores = score(slope, np.square(design.slopes[0])[:, None] * data.variances, data.counts, 0.0)
    spare = len(data.dimensions) - 1 - design.terms
    if spare > 0:
        chi2 = misfit(data, design)
    dimensions, counts = tuple(map(int, data.dimensions)), tuple(map(int, data.counts))
    sems = np.sqrt(data.variances)
    rows = []
    for i, (observable, label, t, t_prime) in enumerate(places):
        difference = float(values[i] - theory.values[i])
        rows.append(
            Row(
                series=name,
                observable=observable,
                label=label,
                t=t,
                t_prime=t_prime,
                theory=float(theory.values[i]),
                theory_error=float(theory.errors[i]),
                value=float(values[i]),
                error=float(scores.error[i]),
                dof=float(scores.dof[i]),
                z=float(scores.z[i]),
                gap=difference / float(scale[i]),
                gap_error=float(np.hypot(scores.error[i], theory.errors[i]) / scale[i]),
                scale=float(scale[i]),
                slope=None if slope is None else float(slope[i]),
                slope_error=None if slope_scores is None else float(slope_scores.error[i]),
                slope_z=None if slope_scores is None else float(slope_scores.z[i]),
                chi2=None if chi2 is None else float(chi2[i]),
                chi2_dof=max(spare, 0),
                dimensions=dimensions,
                replicas=counts,
                means=tuple(data.means[:, i].tolist()),
                sems=tuple(sems[:, i].tolist()),
                z_scores=tuple(z_each[:, i].tolist()),
            )
        )
    return rows


def _summary(
    observable: str, rows: list[Row], z: FloatArray, null_z: SingleArray | None, mine: NDArray[np.bool_]
) -> Summary:
    return Summary(
        observable=observable,
        rows=len(rows),
        worst=max(rows, key=lambda row: abs(row.z)),
        widest=max(rows, key=lambda row: row.shown_gap),
        p_value=family_p_value(z[mine], None if null_z is None else null_z[:, mine]),
        steepest=max(rows, key=lambda row: abs(row.slope_z or 0.0)) if rows[0].slope is not None else None,
    )


def _cause(solution: Solution, settings: tuple[Settings, ...], linear: bool) -> str:
    """What a difference may come from, as far as the settings tell."""
    first = settings[0]
    network = first.model == "network" and not linear
    finite = {"gd": "the finite step", "sgd": "the finite step and the noise of the batches"}.get(first.optimizer)
    if finite and first.momentum:
        finite = f"the momentum, {finite}" if " and " in finite else f"the momentum and {finite}"
    if solution.optimizer is not None:
        if all(same_algorithm(solution, s) for s in settings):
            finite = None
        elif network:
            return (
                "; the other algorithm (see the notes) and the price of the Gaussian approximation cannot be told "
                "apart here"
            )
        else:
            return "; the algorithm is another one than in the theory, see the notes"
    if network and finite:
        return (
            f"; {finite} and the price of the Gaussian approximation cannot be told apart here: the theory is that of "
            "gradient flow (optimizer 'flow' leaves the second alone)"
        )
    if network:
        return "; for a true network such a gap is the price of the Gaussian approximation, if the simulation is right"
    if finite:
        return f"; {finite} may be the reason: the theory is that of gradient flow"
    return "; no difference is expected here" if first.model == "network" else ""


def _verdict(
    name: str,
    cause: str,
    rows: list[Row],
    outcome: Outcome,
    p_value: float,
    p_last: float,
    dimensions: tuple[int, ...],
    effective: float | None,
    amplification: float,
) -> str:
    several = len(dimensions) > 1
    worst = max(rows, key=lambda row: abs(row.z))
    widest = max(rows, key=lambda row: row.shown_gap)
    typical = 100.0 * float(np.median([row.gap_error for row in rows]))
    independent = "" if effective is None else f", about {effective:.0f} independent"
    count = f"{len(rows)} comparisons{independent}, largest |z| {abs(worst.z):.3g}, typical error {typical:.2g} %"
    from_ = ", ".join(map(str, dimensions))
    where = f"after extrapolation from d = {from_}" if several else f"at d = {from_}"
    if outcome is Outcome.AGREES:
        text = f"{name}: agrees within errors {where} ({p_text(p_value)}, {count})"
        if several:
            text += f", and at d = {dimensions[-1]} alone ({p_text(p_last)})"
    elif outcome is Outcome.BIAS:
        last = max(rows, key=lambda row: abs(row.z_scores[-1]))
        text = (
            f"{name}: finite-d bias explains it: at d = {dimensions[-1]} alone the simulation differs "
            f"({p_text(p_last)}, z = {last.z_scores[-1]:+.3g} in {last.place}), {where} it agrees within errors "
            f"({p_text(p_value)}, {count})"
        )
    elif outcome is Outcome.UNDECIDED:
        text = f"{name}: nothing can be said: "
        if amplification > _AMPLIFIED:
            text += f"the dimensions {from_} are so close that extrapolation multiplies the error of the largest by "
            text += f"{amplification:.0f} ({p_text(p_value)}, {count}); simulate dimensions that differ more"
        else:
            text += (
                f"errors of typically {typical:.0f} % {where} would hide any difference ({p_text(p_value)}, {count}); "
            )
            text += "simulate more replicas"
    else:
        text = f"{name}: differs by {worst.percent} in {worst.place} {where} "
        text += f"(z = {worst.z:+.3g}, {p_text(p_value)}, {count})"
        if widest is not worst:
            text += f"; the largest gap is {widest.percent} in {widest.place}"
    if outcome is Outcome.DIFFERS:
        text += cause
    if not several:
        text += "; with one dimension, a bias of order 1/d cannot be told apart"
    return text + "."
