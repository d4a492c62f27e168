"""One replica: draw data and weights, train, record.

Three optimisers share the record: gradient flow by an adaptive explicit Runge-Kutta pair (no step-size bias above its
tolerance), gradient descent, and minibatch descent on a fixed data set, the last two also with momentum. Rows of the
first layer have unit norm throughout. Times are the theory's: an update with learning rate eta on the plain gradient
advances t by eta d/n.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmft.problems import NetworkProblem, from_dict
from dmft.simulation import Settings
from validation.gaussian_model import GaussianModel
from validation.model import (
    FloatArray,
    Model,
    Velocity,
    correlation_modes,
    group_means,
    initial_weights,
    population_risk,
)
from validation.network import Network, epochs, fresh

REVISION = 1
"""To be raised whenever the numbers of a simulation change: replicas of another revision are never taken for these."""

CHUNK = 4096
"""Updates between two looks at the clock and at the numbers."""

_HUGE = 1e50
"""Second layers beyond this have diverged; squares of squares are still finite, so that averages can be taken."""

ORDER = 1 << 20
"""Sample numbers drawn at once for minibatches: bounds memory, not the result."""

State = tuple[FloatArray, FloatArray]
"""Weights (m, d) with rows of unit norm, and second layer (m,)."""


class DivergedError(RuntimeError):
    """Training left the range of finite numbers; the message says when and what to change."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that one replica depends on, as plain data that travels to any worker.

    Attributes
    ----------
    problem : dict
        `Problem.to_dict`.
    settings : dict
        `Settings.to_dict`.
    replica : int
        Its number.
    times, pair_times : tuple of float
        When to record curves and two-time functions; the second are some of the first.
    """

    problem: dict[str, Any]
    settings: dict[str, Any]
    replica: int
    times: tuple[float, ...]
    pair_times: tuple[float, ...]


def _in_range(weights: FloatArray, a: FloatArray) -> bool:
    return bool(np.isfinite(weights).all() and (np.abs(a) < _HUGE).all())


def run(job: Job) -> dict[str, FloatArray]:
    """Train one replica.

    Returns
    -------
    dict of str to array
        ``train_error``, ``test_error``, perhaps ``test_error_fresh`` (T,), ``a`` (T, G), ``v`` (T, G, k),
        ``correlation`` (modes, K, K), ``residual_correlation`` (K, K), and the scalar ``wall_time`` in seconds.

    Raises
    ------
    DivergedError
        When the parameters stop being finite numbers.
    """
    started = time.perf_counter()
    problem = from_dict(job.problem)
    assert isinstance(problem, NetworkProblem)
    settings = Settings.from_dict(job.settings)
    seeds = np.random.SeedSequence([settings.seed, settings.dimension], spawn_key=(job.replica,)).spawn(4)
    data, start, order, test = (np.random.default_rng(seed) for seed in seeds)
    weights, a = initial_weights(problem.formulation(), settings.dimension, start)
    if settings.revision != REVISION:
        raise ValueError(f"simulations of revision {settings.revision} cannot be run by this version ({REVISION}).")
    model: Model
    if settings.model == "gaussian":
        dtype = np.float64 if settings.precision == "double" else np.float32
        model = GaussianModel(problem, settings.dimension, settings.samples, data, dtype)
    elif settings.model == "network":
        model = Network(problem, settings.dimension, settings.samples, data, test, settings.test_samples)
    else:
        raise ValueError(f"model {settings.model!r} has no simulator.")
    record = _Record(model, job)
    times = np.array(job.times)
    with np.errstate(over="ignore", invalid="ignore"):  # divergence is looked for, and said in words
        for state in _PATHS[settings.optimizer](model, (weights, a), times, settings, order):
            record.add(*state)
    return record.results() | {"wall_time": np.array(time.perf_counter() - started)}


# ---------------------------------------------------------------------------------------------------- optimisers


def _flow(
    model: Model, state: State, times: FloatArray, settings: Settings, order: np.random.Generator
) -> Iterator[State]:
    """Gradient flow on the product of spheres by Dormand-Prince 5(4)."""
    from scipy.integrate import RK45

    weights, a = state
    shape, size = weights.shape, weights.size
    train_a = model.problem.train_second_layer
    assert settings.rtol is not None

    def split(y: FloatArray) -> State:
        rows = y[:size].reshape(shape)
        return rows / np.linalg.norm(rows, axis=1)[:, None], y[size:]

    def derivative(t: float, y: FloatArray) -> FloatArray:
        w, second = split(y)
        d_w, d_a = model.force(w, second)
        d_w -= np.einsum("ij,ij->i", w, d_w)[:, None] * w
        return np.concatenate([d_w.ravel(), d_a if train_a else np.zeros_like(d_a)])

    y = np.concatenate([weights.ravel(), a])
    # An element of a unit vector is of order 1/sqrt(d).
    tolerance = settings.rtol / np.sqrt(shape[1])
    solver = RK45(derivative, 0.0, y, float(times[-1]), rtol=settings.rtol, atol=tolerance) if times[-1] > 0 else None
    for t in times:
        if t == 0.0 or solver is None:
            yield state
            continue
        while solver.t < t:
            problem = solver.step()
            if solver.status == "failed" or not np.isfinite(solver.y[-1]):
                raise DivergedError(f"gradient flow stopped at t = {solver.t:.4g}: {problem}.")
        y = solver.y if solver.t == t else solver.dense_output()(t)
        w, second = split(y)
        yield w, second.copy()


def _updates(times: FloatArray, step: float) -> Iterator[int]:
    """How many updates lie between the recording times."""
    done = 0
    for t in times:
        now = round(t / step)
        yield now - done
        done = now


def _descent(
    model: Model,
    state: State,
    times: FloatArray,
    settings: Settings,
    advance: Callable[[FloatArray, FloatArray, int], None],
) -> Iterator[State]:
    weights, a = state[0].copy(), state[1].copy()
    assert settings.step is not None
    done = 0
    for updates in _updates(times, settings.step):
        while updates > 0:
            now = min(updates, CHUNK)
            advance(weights, a, now)
            done += now
            updates -= now
            if not _in_range(weights, a):
                raise DivergedError(
                    f"training diverged before t = {done * settings.step:.4g}: use a step below {settings.step:.3g}."
                )
        yield weights, a


def _velocity(state: State, settings: Settings) -> Velocity | None:
    if settings.momentum == 0.0:
        return None
    return Velocity(settings.momentum, np.zeros_like(state[0]), np.zeros_like(state[1]))


def _gradient_descent(
    model: Model, state: State, times: FloatArray, settings: Settings, order: np.random.Generator
) -> Iterator[State]:
    step, train_a, velocity = settings.step, model.problem.train_second_layer, _velocity(state, settings)
    assert step is not None
    yield from _descent(model, state, times, settings, lambda w, a, n: model.descend(w, a, step, n, train_a, velocity))


def _minibatch(
    model: Model, state: State, times: FloatArray, settings: Settings, order: np.random.Generator
) -> Iterator[State]:
    step, batch, train_a = settings.step, settings.batch, model.problem.train_second_layer
    assert step is not None
    assert batch is not None
    samples = _SAMPLINGS[settings.sampling](order, model.samples, batch)
    velocity = _velocity(state, settings)
    at_once = max(1, ORDER // batch)

    def advance(weights: FloatArray, a: FloatArray, updates: int) -> None:
        while updates > 0:
            now = min(updates, at_once)
            model.descend_batches(weights, a, step, batch, samples(now), train_a, velocity)
            updates -= now

    yield from _descent(model, state, times, settings, advance)


_PATHS = {"flow": _flow, "gd": _gradient_descent, "sgd": _minibatch}
_SAMPLINGS = {"epochs": epochs, "fresh": fresh}


# ---------------------------------------------------------------------------------------------------- record


class _Record:
    """What is kept of a trajectory."""

    def __init__(self, model: Model, job: Job) -> None:
        self._model = model
        self._formulation = model.problem.formulation()
        self._target = model.problem.resolved_target()
        self._times = job.times
        self._pair_times = set(job.pair_times)
        self._curves: dict[str, list[Any]] = {name: [] for name in ("train_error", "test_error", "a", "v")}
        self._fresh: list[float] = []
        self._weights: list[FloatArray] = []
        self._residuals: list[FloatArray] = []

    def add(self, weights: FloatArray, a: FloatArray) -> None:
        """Record the state at the next time."""
        now = self._times[len(self._curves["a"])]
        if not _in_range(weights, a):
            raise DivergedError(f"training diverged before t = {now:.4g}.")
        residuals = self._model.residuals(weights, a)
        latent = self._formulation.latent_dimension
        self._curves["train_error"].append(0.5 * float(residuals @ residuals) / len(residuals))
        whole = self._model.whole_activation
        risk = population_risk(self._model.problem, self._target, weights, a, whole_activation=whole)
        self._curves["test_error"].append(risk)
        self._curves["a"].append(group_means(a, self._formulation))
        self._curves["v"].append(group_means(weights[:, :latent], self._formulation))
        fresh = self._model.fresh_error(weights, a)
        if fresh is not None:
            self._fresh.append(fresh)
        if now in self._pair_times:
            self._weights.append(weights.copy())
            self._residuals.append(residuals)

    def results(self) -> dict[str, FloatArray]:
        """All curves and two-time functions as arrays."""
        results = {name: np.array(values, dtype=np.float64) for name, values in self._curves.items()}
        if self._fresh:
            results["test_error_fresh"] = np.array(self._fresh)
        if self._weights:
            pairs = [[correlation_modes(w, u, self._formulation) for u in self._weights] for w in self._weights]
            results["correlation"] = np.moveaxis(np.array(pairs), 2, 0)
            residuals = np.array(self._residuals)
            results["residual_correlation"] = residuals @ residuals.T / residuals.shape[1]
        return results
