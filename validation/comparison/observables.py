"""From a solution and its simulations to the numbers that are compared: observables, common times, elements of C."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmft._validate import nearest, shown
from dmft.formulation import Formulation
from dmft.simulation import Simulation
from dmft.solution import Solution
from validation.comparison.checks import same_rate
from validation.comparison.statistics import Data, FloatArray, IntArray, Theory

OBSERVABLES = ("train_error", "test_error", "test_error_fresh", "a", "v", "C_d", "C_o", "C_r")
"""What can be compared: curves, and two-time functions of a neuron with itself, of two neurons, of the residuals."""

_ERRORS = ("train_error", "test_error", "test_error_fresh")
_TWO_TIME = {"C_d": "correlation", "C_o": "correlation", "C_r": "residual_correlation"}
_SAME_TIME = 1e-9  # relative: times closer than this are one time written by two programs


@dataclass(frozen=True)
class Column:
    """One observable with its indices at a list of times: a stretch of rows."""

    observable: str
    label: str
    t: FloatArray
    t_prime: FloatArray | None
    theory: FloatArray
    pick: Callable[[Simulation], _Picked]


@dataclass(frozen=True)
class _Picked:
    """The same stretch in one simulation: mean and standard error (X,), replicas (R, X) or None."""

    mean: FloatArray
    sem: FloatArray
    count: int
    values: FloatArray | None


def canonical_names(observables: Iterable[str] | None) -> tuple[str, ...] | None:
    """Canonical names of the observables asked for, in the order of `OBSERVABLES`; None for all."""
    if observables is None:
        return None
    if isinstance(observables, str) or not isinstance(observables, Iterable):
        raise TypeError(f"observables must be a list of names, not {shown(observables)}.")
    aliases = {"correlation": ("C_d", "C_o"), "residual_correlation": ("C_r",)}
    chosen: list[str] = []
    for name in observables:
        known = aliases.get(name, (name,) if name in OBSERVABLES else ())
        if not known:
            hint = (
                "; gamma is a/sqrt(m), compare a" if name == "gamma" else nearest(str(name), (*OBSERVABLES, *aliases))
            )
            names = ", ".join((*OBSERVABLES, *aliases))
            raise ValueError(f"observables has the unknown name {shown(name)}; known are {names}{hint}.")
        chosen += known
    if not chosen:
        raise ValueError(f"observables must name at least one of {', '.join(OBSERVABLES)}.")
    return tuple(name for name in OBSERVABLES if name in chosen)


def recorded_names(simulations: list[Simulation]) -> tuple[str, ...]:
    """Observables that every one of the simulations has."""

    def has(simulation: Simulation, name: str) -> bool:
        if name not in _TWO_TIME:
            return name in simulation.curve_names
        if name == "C_o" and simulation.formulation.width == 1:
            return False
        return _TWO_TIME[name] in simulation.two_time_names and len(simulation.pair_times) > 0

    return tuple(name for name in OBSERVABLES if all(has(simulation, name) for simulation in simulations))


def theory_times(solution: Solution, simulation: Simulation) -> tuple[FloatArray, FloatArray]:
    """Times of the curves and of the pairs at which the theory is evaluated.

    Those recorded; but where both make updates at the same learning rate, the time of the same update in the theory,
    from which that of the simulation differs by the rounding of n.
    """
    step, optimizer = simulation.settings.step, solution.optimizer
    if step is None or optimizer is None or not same_rate(solution, simulation.settings):
        return simulation.t, simulation.pair_times
    own = optimizer.step(solution.problem)
    return np.round(simulation.t / step) * own, np.round(simulation.pair_times / step) * own


def theory_of(solution: Solution, columns: list[Column]) -> tuple[Theory, FloatArray, NDArray[np.str_]]:
    """Theory, scale (P,) of relative differences as in `Row`, and name of the observable (P,)."""
    largest: dict[str, float] = {}
    for column in columns:
        largest[column.observable] = max(largest.get(column.observable, 0.0), float(np.abs(column.theory).max()))
    errors, scales = [], []
    for column in columns:
        size = np.abs(column.theory)
        span = max(float(np.ptp(column.theory)), float(size.max()) if column.observable == "C_r" else 0.0)
        errors.append(solution.rtol * np.maximum(size, span))
        top = largest[column.observable]
        if column.observable in _ERRORS:
            scale = np.maximum(size, 0.01 * top)
        elif column.observable == "C_r":
            assert column.t_prime is not None
            norms = [np.sqrt(2.0 * solution.at(t).train_error) for t in (column.t, column.t_prime)]
            scale = np.maximum(norms[0] * norms[1], 0.01 * top)
        else:
            floor = 0.1 if column.observable != "a" else 0.0
            scale = np.full(len(size), max(top, floor))
        scales.append(np.where(scale > 0.0, scale, 1.0))
    lengths = [len(column.t) for column in columns]
    theory = Theory(
        values=np.concatenate([column.theory for column in columns]),
        errors=np.concatenate(errors),
        curves=np.repeat(np.arange(len(columns)), lengths),
    )
    return theory, np.concatenate(scales), np.repeat(np.array([column.observable for column in columns]), lengths)


def columns_of(
    solution: Solution,
    simulations: list[Simulation],
    used: tuple[str, ...],
    chosen: FloatArray | None,
    notes: list[str],
    name: str,
) -> list[Column]:
    """All stretches of rows of a series, in the order of `OBSERVABLES`.

    Parameters
    ----------
    solution, simulations : Solution, list of Simulation
        Of the same problem.
    used : tuple of str
        Observables that all of the simulations have.
    chosen : (X,) float, optional
        Recorded times to use; None for all.
    notes : list of str
        What is left out is added here.
    name : str
        Of the series, for refusals.

    Raises
    ------
    ValueError
        When no time is left, or a chosen one was not recorded.
    """
    end = float(solution.t[-1])
    recorded, pairs = zip(*(theory_times(solution, simulation) for simulation in simulations), strict=True)
    curves = any(n not in _TWO_TIME for n in used)
    two_time = any(n in _TWO_TIME for n in used)
    t = _common(recorded, notes, "times") if curves else np.empty(0)
    s = _common(pairs, notes, "pair times") if two_time else np.empty(0)
    if (curves and not len(t)) or (two_time and not curves and not len(s)):
        raise ValueError(f"{name}: the simulations have no recording time in common.")
    if chosen is not None:
        for simulation, *own in zip(simulations, recorded, pairs, strict=True):
            chosen = _translated(chosen, np.concatenate([simulation.t, simulation.pair_times]), np.concatenate(own))
        _check_chosen(chosen, np.concatenate([t, s]))
        t, s = t[_matched(t, chosen)], s[_matched(s, chosen)]
    late = int(np.count_nonzero(t > end * (1.0 + _SAME_TIME))), int(np.count_nonzero(s > end * (1.0 + _SAME_TIME)))
    if any(late):
        notes.append(
            f"{late[0]} times and {late[1]} pair times lie beyond the end t = {end:g} of the theory, left out."
        )
    t, s = (np.minimum(x[x <= end * (1.0 + _SAME_TIME)], end) for x in (t, s))
    if all(same_rate(solution, simulation.settings) for simulation in simulations):
        stored = _matched(s, solution.two_time.t) if len(s) else np.ones(0, dtype=bool)
        if not stored.all():  # nothing lies between two updates, so nothing is interpolated
            notes.append(
                f"{np.count_nonzero(~stored)} pair times are not among the stored rows of the two-time functions of "
                "the theory (solution.two_time.t), left out."
            )
        s = s[stored]
    if not len(t) and not len(s):
        raise ValueError(f"{name}: no recorded time is left up to the end t = {end:g} of the theory; solve further.")
    result: list[Column] = []
    if len(t):
        result += _curve_columns(solution, t, used)
    if len(s):
        result += _pair_columns(solution, s, used)
    return result


def _curve_columns(solution: Solution, t: FloatArray, used: tuple[str, ...]) -> list[Column]:
    groups, latent = solution.formulation.groups, solution.formulation.latent_dimension
    curves = solution.at(t)
    result = []
    for name in used:
        if name in _TWO_TIME:
            continue
        source = "test_error" if name == "test_error_fresh" else name
        axes = {"a": (groups,), "v": (groups, latent)}.get(name, ())
        array = np.asarray(getattr(curves, source)).reshape(len(t), *axes)
        for place in np.ndindex(*axes):
            index = ",".join(str(i) for i, size in zip(place, axes, strict=True) if size > 1)
            result.append(
                Column(
                    observable=name,
                    label=f"{name}[{index}]" if index else name,
                    t=t,
                    t_prime=None,
                    theory=array[(slice(None), *place)],
                    pick=_curve_pick(solution, name, t, place),
                )
            )
    return result


def _curve_pick(
    solution: Solution, name: str, t: FloatArray, place: tuple[int, ...]
) -> Callable[[Simulation], _Picked]:
    def pick(simulation: Simulation) -> _Picked:
        sample = simulation.sample(name, squeeze=False)
        where: Any = (_nearest(theory_times(solution, simulation)[0], t), *place)
        values = None if sample.values is None else sample.values[(slice(None), *where)]
        return _Picked(sample.mean[where], sample.sem[where], sample.count, values)

    return pick


def _pair_columns(solution: Solution, s: FloatArray, used: tuple[str, ...]) -> list[Column]:
    form = solution.formulation
    rows, columns = np.tril_indices(len(s))
    half = (s[rows], s[columns])  # symmetric functions once, t >= t'
    full = tuple(x.ravel() for x in np.meshgrid(s, s, indexing="ij"))
    result = []
    for name in used:
        if name == "C_r":
            pick = _pair_pick(solution, "residual_correlation", [_Term(1.0, None)], *half)
            result.append(Column(name, name, *half, solution.residual_correlation(*half), pick))
        elif name == "C_d":
            for g in range(form.groups):
                label = f"C_d[{g}]" if form.groups > 1 else "C_d"
                theory = solution.correlation(*half, "d", (g, g))
                pick = _pair_pick(solution, "correlation", _element(form, "d", g, g), *half)
                result.append(Column(name, label, *half, theory, pick))
        elif name == "C_o":
            for g in range(form.groups):
                for h in range(g, form.groups):
                    if g == h and form.sizes[g] == 1:
                        continue
                    times = half if g == h else (full[0], full[1])
                    label = f"C_o[{g},{h}]" if form.groups > 1 else "C_o"
                    theory = solution.correlation(*times, "o", (g, h))
                    pick = _pair_pick(solution, "correlation", _element(form, "o", g, h), *times)
                    result.append(Column(name, label, *times, theory, pick))
    return result


@dataclass(frozen=True)
class _Term:
    """One stored mode and its coefficient in an element; ``place`` is None for a function without modes."""

    coefficient: float
    place: int | None


def _element(form: Formulation, kind: str, g: int, h: int) -> list[_Term]:
    """Element d or o of groups g and h from the stored modes (formulas in `dmft.formulation`)."""
    sizes, s_place = form.sizes, g * form.groups + h
    if g != h:
        return [_Term(1.0 / math.sqrt(float(sizes[g]) * float(sizes[h])), s_place)]
    size = float(sizes[g])
    if size == 1.0:  # no T direction, and X_S is X_d itself
        return [_Term(1.0, s_place)]
    t_place = form.groups**2 + int(np.count_nonzero(sizes[:g] > 1))
    if kind == "d":  # X_o = (X_S - X_T)/size, X_d = X_T + X_o
        return [_Term(1.0 / size, s_place), _Term(1.0 - 1.0 / size, t_place)]
    return [_Term(1.0 / size, s_place), _Term(-1.0 / size, t_place)]


def _pair_pick(
    solution: Solution, name: str, terms: list[_Term], t: FloatArray, s: FloatArray
) -> Callable[[Simulation], _Picked]:
    def pick(simulation: Simulation) -> _Picked:
        sample = simulation.sample(name, squeeze=False)
        grid = theory_times(solution, simulation)[1]
        i, j = _nearest(grid, t), _nearest(grid, s)

        def part(array: FloatArray, place: int | None) -> FloatArray:
            return array[..., i, j] if place is None else array[..., place, i, j]

        mean = sum((x.coefficient * part(sample.mean, x.place) for x in terms), np.zeros(len(t)))
        if sample.values is None:
            # Covariances of the modes were not kept: the sum of the standard errors is their bound.
            sem = sum((abs(x.coefficient) * part(sample.sem, x.place) for x in terms), np.zeros(len(t)))
            return _Picked(mean, sem, sample.count, None)
        stored = sample.values
        values = sum((x.coefficient * part(stored, x.place) for x in terms), np.zeros((sample.count, len(t))))
        return _Picked(mean, values.std(axis=0, ddof=1) / np.sqrt(sample.count), sample.count, values)

    return pick


def gather(simulations: list[Simulation], columns: list[Column]) -> Data:
    """Means, variances and replicas of all rows; simulations of the same dimension are put together."""
    dimensions = sorted({simulation.settings.dimension for simulation in simulations})
    counts, means, variances = [], [], []
    values: list[FloatArray] | None = []
    for d in dimensions:
        same = [simulation for simulation in simulations if simulation.settings.dimension == d]
        picked = [[column.pick(simulation) for column in columns] for simulation in same]
        known = all(one.values is not None and one.count == parts[0].count for parts in picked for one in parts)
        if known:
            block = np.concatenate(
                [np.concatenate([one.values for one in parts if one.values is not None], axis=1) for parts in picked]
            )
            counts.append(len(block))
            means.append(block.mean(axis=0))
            variances.append(block.var(axis=0, ddof=1) / len(block))
            if values is not None:
                values.append(block)
            continue
        values = None
        number = np.array([min(one.count for one in parts) for parts in picked], dtype=np.float64)
        mean = np.array([np.concatenate([one.mean for one in parts]) for parts in picked])
        sem = np.array([np.concatenate([one.sem for one in parts]) for parts in picked])
        total = number.sum()
        centre = number @ mean / total
        squares = (number * (number - 1.0)) @ np.square(sem) + number @ np.square(mean - centre)
        counts.append(int(total))
        means.append(centre)
        variances.append(squares / (total - 1.0) / total)
    centres, spreads = np.array(means), np.array(variances)
    spreads[spreads <= np.square(1e-13 * centres)] = 0.0  # equal numbers, of which only rounding has made a variance
    return Data(np.array(dimensions), np.array(counts), centres, spreads, values)


def _common(grids: Sequence[FloatArray], notes: list[str], what: str) -> FloatArray:
    """Times that all grids have, up to rounding."""
    common = grids[0]
    for grid in grids[1:]:
        common = common[_matched(common, grid)]
    dropped = max(len(grid) for grid in grids) - len(common)
    if dropped:
        notes.append(f"{dropped} {what} not recorded in every simulation, left out.")
    return common


def _matched(times: FloatArray, among: FloatArray) -> NDArray[np.bool_]:
    """Which times (X,) there are among others, up to rounding."""
    if not len(times) or not len(among):
        return np.zeros(len(times), dtype=bool)
    return np.abs(among[_nearest(among, times)] - times) <= _SAME_TIME * np.abs(times)


def _nearest(grid: FloatArray, times: FloatArray) -> IntArray:
    """Place of the nearest time of an increasing grid."""
    right = np.clip(np.searchsorted(grid, times), 0, len(grid) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(grid[left] - times) <= np.abs(grid[right] - times), left, right)


def _translated(chosen: FloatArray, recorded: FloatArray, meant: FloatArray) -> FloatArray:
    """Chosen times (X,), those of ``recorded`` (Y,) replaced by what they mean (Y,)."""
    if not len(recorded):
        return chosen
    order = np.argsort(recorded, kind="stable")
    place = order[_nearest(recorded[order], chosen)]
    return np.where(np.abs(recorded[place] - chosen) <= _SAME_TIME * np.abs(chosen), meant[place], chosen)


def _check_chosen(chosen: FloatArray, recorded: FloatArray) -> None:
    grid = np.unique(recorded)
    unknown = chosen[~_matched(chosen, grid)]
    if len(unknown):
        near = float(grid[_nearest(grid, unknown[:1])[0]])
        raise ValueError(
            f"times has {float(unknown[0])!r}, which was not recorded; the nearest recorded one is {near!r}."
        )
