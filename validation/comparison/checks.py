"""What may be compared: simulations of the problem that was solved, each replica once, grouped into series."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmft._validate import shown
from dmft.formulation import Formulation
from dmft.problems.base import NetworkProblem
from dmft.simulation import Settings, Simulation
from dmft.solution import Solution
from dmft.status import Status

FloatArray = NDArray[np.float64]

MODEL_WORDS = {"gaussian": "Gaussian model", "network": "true network"}
OPTIMIZER_WORDS = {"flow": "gradient flow", "gd": "gradient descent", "sgd": "SGD"}


def listed_simulations(simulations: object) -> list[Any]:
    """What was given for simulations as a list, one of them included; the elements are not looked at."""
    if isinstance(simulations, Simulation):
        return [simulations]
    if not isinstance(simulations, Iterable):
        raise TypeError(f"simulations must be dmft.Simulation objects, not {shown(simulations)}.")
    return list(simulations)


def series_of(simulations: list[Simulation]) -> dict[str, list[Simulation]]:
    """Simulations by the name of their series, in the order given; dimensions increase inside."""
    kinds: dict[tuple[str, str, str | None], list[Simulation]] = {}
    for simulation in simulations:
        s = simulation.settings
        step = None if s.step is None else f"{s.step:.9g}"
        kinds.setdefault((s.model, s.optimizer, step), []).append(simulation)
    result: dict[str, list[Simulation]] = {}
    for kind in kinds.values():
        for name, group in _by_batch(kind).items():
            ordered = sorted(group, key=lambda simulation: simulation.settings.dimension)
            _check_replicas(name, ordered)
            result[name] = ordered
    return result


def _by_batch(simulations: list[Simulation]) -> dict[str, list[Simulation]]:
    """Split by batch size, unless the batch is the same fraction of the samples everywhere."""
    settings = [simulation.settings for simulation in simulations]
    batches = {s.batch for s in settings}
    if None not in batches and len(batches) > 1:
        fractions = [(s.batch or 0) / s.samples for s in settings]
        if max(fractions) - min(fractions) <= max(1.0 / s.samples for s in settings):
            return {_series_name(settings[0], f"SGD batch fraction {np.mean(fractions):.3g}"): simulations}
    result: dict[str, list[Simulation]] = {}
    for simulation in simulations:
        s = simulation.settings
        how = OPTIMIZER_WORDS[s.optimizer] + (f" batch {s.batch}" if s.optimizer == "sgd" else "")
        result.setdefault(_series_name(s, how), []).append(simulation)
    return result


def _series_name(settings: Settings, how: str) -> str:
    return f"{MODEL_WORDS[settings.model]}, {how}" + ("" if settings.step is None else f", step {settings.step:.9g}")


def _check_replicas(name: str, simulations: list[Simulation]) -> None:
    """Refuse replicas counted twice, and too few for a standard error."""
    seen: set[tuple[int, int, int]] = set()
    counts: dict[int, int] = {}
    for simulation in simulations:
        s = simulation.settings
        for index in simulation.replica_index.tolist():
            if (s.dimension, s.seed, index) in seen:
                raise ValueError(
                    f"{name}: replica {index} of seed {s.seed} at d = {s.dimension} is in two simulations and would be "
                    "counted twice; use different seeds or replicas."
                )
            seen.add((s.dimension, s.seed, index))
        counts[s.dimension] = counts.get(s.dimension, 0) + simulation.replicas
    for d, count in counts.items():
        if count < 2:
            raise ValueError(
                f"{name}: d = {d} has {count} replica and so no standard error; simulate at least 2, better 8 or more."
            )


def check_same_problem(solution: Solution, simulation: Simulation) -> None:
    """Refuse a simulation of another problem, naming in the user's terms what differs."""
    theory, other = solution.problem, simulation.problem
    if not isinstance(theory, NetworkProblem) or not isinstance(other, NetworkProblem):
        raise TypeError(f"simulations must be of a network problem, not of a {shown(other)}.")
    differences = _differences(theory, other)
    if differences:
        raise ValueError(f"solution and simulation are of different problems: {'; '.join(differences)}.")
    form, settings = other.formulation(), simulation.settings
    wanted = form.alpha * form.width * settings.dimension
    if abs(settings.samples - wanted) > 1.0:
        raise ValueError(
            f"the simulation at d = {settings.dimension} has {settings.samples} samples, which is not the alpha of its "
            f"problem: alpha m d = {wanted:.6g}."
        )


def unfinished(solution: Solution, simulations: list[Simulation]) -> list[str]:
    """Notes on what did not end well, and on sample numbers that are not quite alpha m d."""
    notes = []
    if not solution.status.ok:
        notes.append(f"the theory ended early ({solution.status.value}): {solution.message}")
    for simulation in simulations:
        s, form = simulation.settings, simulation.formulation
        if simulation.status in (Status.DIVERGED, Status.FAILED):
            notes.append(f"d = {s.dimension}: replicas failed, so means are over the others: {simulation.message}")
        elif not simulation.status.ok:
            notes.append(f"d = {s.dimension}: {simulation.message}")
        wanted = form.alpha * form.width * s.dimension
        if abs(s.samples - wanted) > 2e-3 * wanted:
            notes.append(f"d = {s.dimension}: n = {s.samples} stands for alpha m d = {wanted:.6g}.")
    return notes


def _differences(theory: NetworkProblem, other: NetworkProblem) -> list[str]:
    """What differs between two problems, through the numbers that enter the theory and not their spelling."""
    one, two = theory.formulation(), other.formulation()
    result: list[str] = []

    def differ(name: str, left: Any, right: Any) -> None:
        result.append(f"{name} is {shown(left)} in the theory and {shown(right)} in the simulation")

    if one.width != two.width:
        differ("width", one.width, two.width)
    elif not np.array_equal(one.sizes, two.sizes):
        differ("sizes", one.sizes.tolist(), two.sizes.tolist())
    if not _close(one.alpha, two.alpha):
        differ("alpha", one.alpha, two.alpha)
    # The theory cuts the activation off, a true network need not: what was left out may differ.
    slack = theory.activation.truncation_error + other.activation.truncation_error
    left_h, right_h = dict(enumerate(one.covariance.tolist())), dict(enumerate(two.covariance.tolist()))
    same_activation = _close_terms(left_h, right_h, slack)
    if not same_activation:
        differ("activation", theory.activation, other.activation)
    left, right = _overlap_terms(one), _overlap_terms(two)
    follows = not same_activation and theory.target.to_dict() == other.target.to_dict()
    same_shape = one.latent_dimension == two.latent_dimension
    if not follows and not (same_shape and _close_terms(left, right, slack)):
        differ("target", theory.target, other.target)
    elif not follows and abs(one.offset - two.offset) > slack + 1e-9 * max(one.offset, two.offset):
        if not _close(theory.noise_std, other.noise_std):
            differ("noise_std", theory.noise_std, other.noise_std)
        else:
            differ("target", theory.target, other.target)
    elif follows and not _close(theory.noise_std, other.noise_std):
        differ("noise_std", theory.noise_std, other.noise_std)
    if one.a0.shape == two.a0.shape and not _close(one.a0, two.a0):
        lazy = theory.gamma0 is not None and other.gamma0 is not None
        unit, name = (math.sqrt(one.width), "gamma0") if lazy else (1.0, "a0")
        differ(name, _short(one.a0 / unit), _short(two.a0 / unit))
    if one.v0.shape == two.v0.shape:
        if not _close(one.v0, two.v0):
            differ("v0", _short(one.v0), _short(two.v0))
        elif not (_close(one.correlation_s0, two.correlation_s0) and _close(one.correlation_t0, two.correlation_t0)):
            differ("gram0 (in modes)", _short(one.correlation_s0), _short(two.correlation_s0))
    if one.train_second_layer != two.train_second_layer:
        differ("train_second_layer", one.train_second_layer, two.train_second_layer)
    return result


def _close(left: Any, right: Any) -> bool:
    x, y = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if x.shape != y.shape:
        return False
    size = max(float(np.abs(x).max(initial=0.0)), float(np.abs(y).max(initial=0.0)))
    return bool(np.all(np.abs(x - y) <= 1e-9 * size))


def _overlap_terms(form: Formulation) -> dict[Any, float]:
    result: dict[Any, float] = {}
    for exponents, value in zip(form.overlap_exponents.tolist(), form.overlap_coefficients.tolist(), strict=True):
        result[tuple(exponents)] = result.get(tuple(exponents), 0.0) + value
    return result


def _close_terms(left: dict[Any, float], right: dict[Any, float], slack: float) -> bool:
    """Whether two polynomials differ by no more than the slack, coefficients added up."""
    size = max(sum(map(abs, left.values())), sum(map(abs, right.values())))
    difference = sum(abs(left.get(key, 0.0) - right.get(key, 0.0)) for key in {*left, *right})
    return difference <= slack + 1e-9 * size


def _short(array: FloatArray) -> Any:
    return array.item() if array.size == 1 else array.tolist()
