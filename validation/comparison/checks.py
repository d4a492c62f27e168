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
_SAME_RATE = 1e-9
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
    kinds: list[list[Simulation]] = []
    for simulation in simulations:
        same = (kind for kind in kinds if _one_kind(kind[0].settings, simulation.settings))
        kind = next(same, None)
        if kind is None:
            kinds.append(kind := [])
        kind.append(simulation)
    result: dict[str, list[Simulation]] = {}
    for kind in kinds:
        for name, group in _by_batch(kind).items():
            ordered = sorted(group, key=lambda simulation: simulation.settings.dimension)
            _check_replicas(name, ordered)
            result[name] = ordered
    return result


def _one_kind(one: Settings, other: Settings) -> bool:
    """Whether two simulations differ in batch size, dimension and replicas at most.

    The learning rate is the same where the step is, or differs only because n is rounded.
    """
    if (one.model, algorithm_words(one)) != (other.model, algorithm_words(other)):
        return False
    if one.step is None or other.step is None:
        return one.step == other.step
    return f"{one.step:.9g}" == f"{other.step:.9g}" or f"{_rate(one):.9g}" == f"{_rate(other):.9g}"


def _rate(settings: Settings) -> float:
    """Learning rate eta on the plain gradient."""
    return 0.0 if settings.step is None else settings.step * settings.samples / settings.dimension


def algorithm_words(settings: Settings, batch: str = "") -> str:
    """Optimiser with its batch (in words), sampling and momentum; defaults are not mentioned."""
    words = OPTIMIZER_WORDS[settings.optimizer]
    if settings.optimizer == "sgd":
        words += batch + (" drawn afresh" if settings.sampling == "fresh" else "")
    return words + (f", momentum {settings.momentum:.9g}" if settings.momentum else "")


def _by_batch(simulations: list[Simulation]) -> dict[str, list[Simulation]]:
    """Split by batch size, unless the batch is the same fraction of the samples everywhere."""
    settings = [simulation.settings for simulation in simulations]
    batches = {s.batch for s in settings}
    if None not in batches and len(batches) > 1:
        fractions = [(s.batch or 0) / s.samples for s in settings]
        if max(fractions) - min(fractions) <= max(1.0 / s.samples for s in settings):
            return {_series_name(settings, f" batch fraction {np.mean(fractions):.3g}"): simulations}
    return {
        _series_name(settings, f" batch {batch}"): [one for one in simulations if one.settings.batch == batch]
        for batch in dict.fromkeys(s.batch for s in settings)
    }


def _series_name(settings: list[Settings], batch: str) -> str:
    first = settings[0]
    name = f"{MODEL_WORDS[first.model]}, {algorithm_words(first, batch)}"
    if first.step is None:
        return name
    steps = {f"{s.step:.9g}" for s in settings}
    return f"{name}, step {steps.pop()}" if len(steps) == 1 else f"{name}, learning rate {_rate(first):.9g}"


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


def same_rate(solution: Solution, settings: Settings) -> bool:
    """Whether a simulation makes the updates of the solution at its learning rate, but for rounding of n."""
    optimizer = solution.optimizer
    if optimizer is None or settings.step is None:
        return False
    exact = math.isclose(_rate(settings), optimizer.learning_rate, rel_tol=_SAME_RATE)
    return exact or math.isclose(settings.step, optimizer.step(solution.problem), rel_tol=_SAME_RATE)


def same_algorithm(solution: Solution, settings: Settings) -> bool:
    """Whether a solution is the exact theory of what was simulated, but for rounding of n and of the batch."""
    optimizer = solution.optimizer
    if optimizer is None:
        return settings.optimizer == "flow"
    batch = settings.samples if settings.batch is None else settings.batch
    epoch = 1 if settings.sampling == "fresh" else settings.samples // batch
    return (
        same_rate(solution, settings)
        and math.isclose(settings.momentum, optimizer.momentum, rel_tol=_SAME_RATE)
        and abs(batch - optimizer.batch_fraction * settings.samples) < 1.0
        and epoch == optimizer.updates_per_epoch
    )


def other_algorithms(solution: Solution, simulations: list[Simulation]) -> list[str]:
    """Notes on simulations of which the solution is not the exact theory, as far as that is not said anyway."""
    settings = [simulation.settings for simulation in simulations]
    other = [s for s in settings if not same_algorithm(solution, s)]
    if not other:
        return []
    optimizer, one = solution.optimizer, other[0]
    if optimizer is None:
        if not one.momentum:
            return []
        speed = 1.0 / (1.0 - one.momentum)
        return [
            f"the theory is that of gradient flow, which descent with momentum {one.momentum:.6g} follows at small "
            f"steps {speed:.4g} times as fast."
        ]
    rate, momentum, fraction = optimizer.learning_rate, optimizer.momentum, optimizer.batch_fraction
    theory = _algorithm(rate, momentum, fraction, optimizer.sampling)
    found = "gradient flow"
    if one.step is not None:
        found = _algorithm(_rate(one), one.momentum, (one.batch or one.samples) / one.samples, one.sampling)
    where = "" if len(other) == len(settings) else " at d = " + ", ".join(str(s.dimension) for s in other)
    return [f"the theory is that of {theory}, but the simulation{where} is one of {found}."]


def _algorithm(rate: float, momentum: float, fraction: float, sampling: str) -> str:
    words = f"gradient descent at learning rate {rate:.9g}"
    if fraction < 1.0:
        how = "drawn afresh" if sampling == "fresh" else "in epochs"
        words = f"SGD at learning rate {rate:.9g} on batches of {fraction:.6g} n {how}"
    return words + (f" with momentum {momentum:.9g}" if momentum else "")


def unfinished(solution: Solution, simulations: list[Simulation]) -> list[str]:
    """Notes on what did not end well, and on sample numbers that are not quite alpha m d."""
    notes = []
    if not solution.status.ok:
        notes.append(f"the theory ended early ({solution.status.value}): {solution.message}")
    elif solution.optimizer is not None and "training is unstable" in solution.message:
        notes.append(
            f"the theory: {solution.message}. Finite networks are thrown back earlier, and differences there do not "
            "fall as 1/d."
        )
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
