"""Finite-size simulations of a problem: what `dmft.simulate` does.

Checks what is asked for, plans memory before anything is allocated, runs the replicas (`validation.replicas`) and
gathers them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dmft._machine import available_memory
from dmft._validate import integer, real, real_array, shown
from dmft.optimizers import Optimizer
from dmft.problems import NetworkProblem
from dmft.simulation import MODELS, OPTIMIZERS, PRECISIONS, Sample, Settings, Simulation
from dmft.status import Status
from validation import dynamics, gaussian_model, replicas
from validation.model import FloatArray

RTOL = 1e-5
"""Default tolerance of gradient flow: its error is then far below any statistical one."""

TEST_SAMPLES = 10_000
"""Default size of the fresh test set of a true network."""

_TIMES = 25  # default recording times, without 0
_SHARE = 0.8  # of the available memory that replicas may fill
_ROUNDING = 2e-3  # relative rounding of n = alpha m d that is worth a warning
_BATCH_ROUNDING = 0.05  # and of the batch


SINGLE_ABOVE = 4e9
"""Bytes of one replica above which precision "auto" is single: a fixed size, so that results do not depend on what
memory happens to be free."""


class SimulationError(RuntimeError):
    """Some dimension has not a single finished replica; the message says why.

    Attributes
    ----------
    simulations : list of Simulation
        Those of the other dimensions.
    """

    def __init__(self, message: str, simulations: Sequence[Simulation] = ()) -> None:
        super().__init__(message)
        self.simulations = list(simulations)


class SimulationInterrupt(KeyboardInterrupt):
    """Interrupted before every dimension had a replica; ``simulations`` holds those that have."""

    def __init__(self, message: str, simulations: Sequence[Simulation] = ()) -> None:
        super().__init__(message)
        self.simulations = list(simulations)


def simulate(
    problem: NetworkProblem,
    dimension: int | Sequence[int],
    *,
    t_final: float,
    replicas: int | Sequence[int] = 10,
    model: str = "gaussian",
    optimizer: Optimizer | str | None = None,
    step: float | None = None,
    learning_rate: float | None = None,
    batch: int | None = None,
    times: ArrayLike | None = None,
    pair_times: ArrayLike | None = None,
    seed: int = 0,
    rtol: float = RTOL,
    test_samples: int | None = None,
    precision: str = "auto",
    memory_limit: float | None = None,
    workers: int = 1,
    dask: str | None = None,
    checkpoint: str | PathLike[str] | None = None,
    resume: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    stop: Callable[[], bool] | None = None,
    config_text: str = "",
) -> Any:
    """Train finite networks of dimension d, several independent replicas of each.

    Parameters
    ----------
    problem : SymmetricProblem, GroupedProblem or GeneralProblem
        What to train.
    dimension : int or sequence of int
        Input dimension d, at least k + 1 for k latent directions. Several dimensions give several simulations, whose
        replicas share the workers; `dmft.compare` extrapolates in 1/d.
    t_final : float
        Time to reach, in the theory's unit: gradient flow of the empirical risk, sped up by n/d.
    replicas : int or sequence of int, optional
        Number of replicas (numbered from 0), or which ones. Replica i of dimension d is the same whatever else is run.
        Default 10.
    model : {"gaussian", "network"}, optional
        The Gaussian model of theory section 1 (h a polynomial of degree <= 4), for which the theory is exact as d grows
        to infinity, or a true network on inputs x ~ N(0, I_d), with the activation itself. Default "gaussian".
    optimizer : GradientDescent, Momentum, SGD, or {"flow", "gd", "sgd"}, optional
        As for `dmft.solve`, whose exact theory at this learning rate is then the one to compare with: a step is eta d/n
        and a batch round(batch_fraction n) samples at the n of each dimension, and ``step``, ``learning_rate`` and
        ``batch`` are left out. Or gradient flow by an adaptive integrator, full-batch gradient descent, or minibatch
        descent on the fixed training set, whose order is reshuffled each epoch. Default "flow", or what ``batch`` and
        ``step`` say.
    step : float, optional
        Time advanced by one update of "gd" and "sgd"; or give
    learning_rate : float, optional
        eta on the plain gradient of (1/2n) sum (y - f)^2; step = eta d/n. Every update adds the gradient step to the
        first layer and then normalises its rows.
    batch : int, optional
        Samples in one update of "sgd", at most n.
    times : array_like, optional
        Recording times; rounded to whole updates. Default 0 and 25 times, equidistant in log t from t_final/1000 on.
    pair_times : array_like, optional
        Times between which overlaps C_ij(t, s) and residual correlations are recorded. Default: the last one and three
        earlier ones, t_final/2, /10 and /100.
    seed : int, optional
        Replica i draws from ``numpy.random.SeedSequence([seed, dimension], spawn_key=(i,))``.
    rtol : float, optional
        Tolerance of "flow".
    test_samples : int, optional
        Fresh test samples of a true network; default 10000.
    precision : {"auto", "double", "single"}, optional
        Of the tensors of the Gaussian model: "auto" is double unless one replica then takes more than 4 GB.
    memory_limit : float, optional
        Bytes that all replicas together may use; default is 80% of what the machine has available.
    workers : int, optional
        Processes of this machine. Numbers do not depend on it.
    dask : str, optional
        Address of a running dask.distributed scheduler, which then runs the replicas.
    checkpoint : path, optional
        Directory that keeps finished replicas; with ``resume`` they are not run again (also when more replicas or
        other dimensions are asked for), without it what earlier runs have left there is removed. It is left to the
        caller to remove it in the end: `validation.replicas.discard`.
    resume : bool, optional
        Go on from ``checkpoint``.
    progress : callable, optional
        Called with (done, total, key) after each replica.
    stop : callable, optional
        Polled; True ends the run with the replicas that are finished.
    config_text : str, optional
        TOML text to carry into the saved file.

    Returns
    -------
    Simulation or list of Simulation
        One for each dimension. ``status`` is DONE, INTERRUPTED, or DIVERGED or FAILED when replicas failed (the message
        says how many and why); those that finished are kept.

    Raises
    ------
    TypeError, ValueError
        For bad arguments, in one sentence; also when the tensors cannot fit into memory, with what would fit.
    SimulationError
        When not a single replica of some dimension was finished; its ``simulations`` are those of the others.
    SimulationInterrupt
        (a KeyboardInterrupt) When interrupted before that, likewise.
    """
    several = isinstance(dimension, list | tuple | range | np.ndarray)
    plan = Plan(
        problem,
        [*dimension] if several else [dimension],  # type: ignore[misc,list-item]
        t_final=t_final,
        replicas=replicas,
        model=model,
        optimizer=optimizer,
        step=step,
        learning_rate=learning_rate,
        batch=batch,
        times=times,
        pair_times=pair_times,
        seed=seed,
        rtol=rtol,
        test_samples=test_samples,
        precision=precision,
        memory_limit=memory_limit,
        workers=workers,
        dask=dask,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
        stop=stop,
        config_text=config_text,
    )
    simulations = plan.run()
    return simulations if several else simulations[0]


class Plan:
    """A checked simulation: parameters and errors are those of `simulate`.

    Attributes
    ----------
    settings : list of Settings
        One for each dimension.
    times, pair_times : (T,), (K,) float
        What is recorded, at n = alpha m d; `recorded` has the times of a dimension, where rounding of n changes a step.
    workers : int
        Processes, after memory has been planned.
    """

    def __init__(
        self,
        problem: NetworkProblem,
        dimensions: Sequence[int],
        *,
        t_final: float,
        replicas: int | Sequence[int] = 10,
        model: str = "gaussian",
        optimizer: Optimizer | str | None = None,
        step: float | None = None,
        learning_rate: float | None = None,
        batch: int | None = None,
        times: ArrayLike | None = None,
        pair_times: ArrayLike | None = None,
        seed: int = 0,
        rtol: float = RTOL,
        test_samples: int | None = None,
        precision: str = "auto",
        memory_limit: float | None = None,
        workers: int = 1,
        dask: str | None = None,
        checkpoint: str | PathLike[str] | None = None,
        resume: bool = False,
        progress: Callable[[int, int, str], None] | None = None,
        stop: Callable[[], bool] | None = None,
        config_text: str = "",
    ) -> None:
        if not isinstance(problem, NetworkProblem):
            kind = getattr(problem, "name", type(problem).__name__)
            raise TypeError(f"problem must be a symmetric, grouped or general problem, not {shown(kind)}.")
        self.problem = problem
        formulation = problem.formulation()
        if not dimensions:
            raise ValueError("dimension must be an integer or a list of integers, not an empty list.")
        latent = problem.target.latent_dimension if problem.resolved_target().power > 0.0 else 0
        smallest = latent + 1
        checked = [integer("dimension", d, low=1) for d in dimensions]
        for d in checked:
            if d < smallest:
                raise ValueError(f"dimension must be at least {smallest} (latent directions + 1), not {d}.")
        if len(set(checked)) < len(checked):
            raise ValueError(f"dimension must list different numbers, not {shown(checked)}.")
        self.replicas = _replica_numbers(replicas)
        for name, value, allowed in (
            ("model", model, MODELS),
            ("optimizer", optimizer, (*OPTIMIZERS, None)),
            ("precision", precision, ("auto", *PRECISIONS)),
        ):
            if value not in allowed and not (name == "optimizer" and isinstance(value, Optimizer)):
                words = ", ".join(word for word in allowed if word is not None)
                also = " or a GradientDescent, Momentum or SGD" if name == "optimizer" else ""
                raise ValueError(f"{name} must be one of {words}{also}, not {shown(value)}.")
        if model == "gaussian":
            gaussian_model.check(problem)
        self.optimizer = optimizer if isinstance(optimizer, Optimizer) else None
        if isinstance(optimizer, Optimizer):
            _check_alone(optimizer, step, learning_rate, batch)
            kind = "gd" if optimizer.batch_fraction == 1.0 else "sgd"
            nominal: float | None = optimizer.step(problem)
        else:
            default = "sgd" if batch is not None else "flow" if step is None and learning_rate is None else "gd"
            kind = default if optimizer is None else optimizer
            _check_optimizer(kind, step, learning_rate, batch)
            nominal = _time_step(step, learning_rate, formulation.alpha * formulation.width)
        t_final = real("t_final", t_final, low=0.0, open_low=True)
        rtol = real("rtol", rtol, low=1e-12, high=1e-2)
        if test_samples is None:
            test_samples = TEST_SAMPLES if model == "network" else 0
        elif model == "gaussian" and test_samples:
            raise ValueError("test_samples goes with model 'network': the test error of model 'gaussian' is exact.")
        self.settings = [
            Settings(
                model=model,
                dimension=d,
                samples=_samples(formulation.alpha, formulation.width, d, batch),
                seed=integer("seed", seed, low=0),
                optimizer=kind,
                step=nominal,
                batch=batch,
                rtol=rtol if kind == "flow" else None,
                precision="double",
                test_samples=test_samples,
                revision=dynamics.REVISION,
            )
            for d in checked
        ]
        if self.optimizer is not None:
            self.settings = [_optimized(settings, self.optimizer, problem) for settings in self.settings]
        self._step = nominal
        self.times, self.pair_times = _recording_times(t_final, times, pair_times, nominal)
        self.workers = integer("workers", workers, low=1)
        self._memory(precision, memory_limit, dask is not None)
        if resume and checkpoint is None:
            raise ValueError("resume needs checkpoint, the directory that keeps finished replicas.")
        self._dask, self._checkpoint, self._resume = dask, checkpoint, resume
        self._progress, self._stop, self._config_text = progress, stop, config_text

    def _memory(self, precision: str, memory_limit: float | None, elsewhere: bool) -> None:
        """Choose precision and number of processes so that the data fit; refuse what cannot."""
        if memory_limit is None:
            available = math.inf if elsewhere else _SHARE * available_memory()
        else:
            available = real("memory_limit", memory_limit, low=0.0, open_low=True)
        for place, settings in enumerate(self.settings):
            if settings.model == "network" and precision == "single":
                raise ValueError("precision 'single' goes with model 'gaussian', whose tensors are large.")
            need = _bytes(self.problem, settings, len(self.pair_times))
            large = settings.model == "gaussian" and need > SINGLE_ABOVE
            chosen = replace(settings, precision="single" if precision == "single" else "double")
            if precision == "auto" and large:
                chosen = replace(settings, precision="single")
            need = _bytes(self.problem, chosen, len(self.pair_times))
            if need > available:
                raise ValueError(self._too_large(chosen, need, available))
            self.settings[place] = chosen
            fit = max(1, int(available // need)) if math.isfinite(available) else self.workers
            if fit < self.workers:
                warnings.warn(
                    f"{fit} of {self.workers} workers are used: one replica at d = {chosen.dimension} takes "
                    f"{need / 1e9:.2f} GB, and {available / 1e9:.2f} GB may be filled.",
                    UserWarning,
                    stacklevel=4,
                )
                self.workers = fit

    def _too_large(self, settings: Settings, need: int, available: float) -> str:
        def fits(d: int) -> bool:
            samples = max(1, round(self.problem.alpha * self.problem.formulation().width * d))
            smaller = replace(settings, dimension=d, samples=samples, batch=None)
            return _bytes(self.problem, smaller, len(self.pair_times)) <= available

        largest = 0
        low, high = 1, settings.dimension
        while low <= high:
            middle = (low + high) // 2
            if fits(middle):
                largest, low = middle, middle + 1
            else:
                high = middle - 1
        what = f"{settings.samples} samples"
        if settings.model == "gaussian":
            what += f" of {gaussian_model.components(self.problem, settings.dimension):,} Gaussian components"
        half = settings.model == "gaussian" and settings.precision == "double"
        return (
            f"dimension {settings.dimension} is too large: {what} in {settings.precision} precision need "
            f"{need / 1e9:.2f} GB, and {available / 1e9:.2f} GB may be filled; dimension <= {largest} would fit"
            f"{', and precision = single takes half.' if half else '.'}"
        )

    def recorded(self, settings: Settings) -> tuple[FloatArray, FloatArray]:
        """Times of the curves (T,) and of the two-time functions (K,) in the simulation of these settings."""
        if self._step is None or settings.step is None or settings.step == self._step:
            return self.times, self.pair_times
        return (
            np.round(self.times / self._step) * settings.step,
            np.round(self.pair_times / self._step) * settings.step,
        )

    def fingerprint(self) -> str:
        """Hash of all that a replica depends on besides its number and dimension."""
        left_out = {"dimension", "samples", "precision"}
        if self.optimizer is not None:
            left_out |= {"step", "batch"}  # which follow from it at each dimension
        # Later settings at their defaults: fingerprints of earlier versions stay valid.
        defaults = {"momentum": 0.0, "sampling": "epochs"}
        settings: list[dict[str, Any]] = [
            {
                key: value
                for key, value in s.to_dict().items()
                if key not in left_out and not (key in defaults and value == defaults[key])
            }
            for s in self.settings[:1]
        ]
        if self.optimizer is not None:
            settings.append(self.optimizer.to_dict())
        what = [dynamics.REVISION, self.problem.to_dict(), settings, self.times.tolist(), self.pair_times.tolist()]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def run(self) -> list[Simulation]:
        """Run what is not finished yet and gather everything; see `simulate`."""
        recorded = {s.dimension: self.recorded(s) for s in self.settings}
        jobs = {
            f"d{s.dimension}-{s.precision}-r{replica:05d}": dynamics.Job(
                problem=self.problem.to_dict(),
                settings=s.to_dict(),
                replica=replica,
                times=tuple(recorded[s.dimension][0].tolist()),
                pair_times=tuple(recorded[s.dimension][1].tolist()),
            )
            for s in sorted(
                self.settings, key=lambda s: -s.dimension
            )  # the longest first, so that workers end together
            for replica in self.replicas
        }
        outcome = replicas.run(
            dynamics.run,
            [replicas.Task(key, job) for key, job in jobs.items()],
            workers=self.workers,
            dask=self._dask,
            store=self._checkpoint,
            resume=self._resume and self._checkpoint is not None and Path(self._checkpoint).exists(),
            fingerprint=self.fingerprint(),
            progress=self._progress,
            stop=self._stop,
        )
        found = [self._gather(settings, jobs, outcome) for settings in self.settings]
        simulations = [simulation for simulation in found if isinstance(simulation, Simulation)]
        empty = [text for text in found if isinstance(text, str)]
        if empty and outcome.interrupted:
            count = f"{len(outcome.results)} of {len(jobs)} replicas are finished"
            raise SimulationInterrupt(f"interrupted: {count}.", simulations)
        if empty:
            raise SimulationError(f"{empty[0]}.", simulations)
        return simulations

    def restricted(
        self,
        dimensions: Sequence[int],
        *,
        checkpoint: str | PathLike[str] | None = None,
        resume: bool = False,
        progress: Callable[[int, int, str], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Plan:
        """The same plan for some of its dimensions, with its own place to keep replicas."""
        other = copy.copy(self)
        other.settings = [settings for settings in self.settings if settings.dimension in dimensions]
        other._checkpoint, other._resume, other._progress, other._stop = checkpoint, resume, progress, stop
        return other

    def _gather(self, settings: Settings, jobs: dict[str, dynamics.Job], outcome: replicas.Outcome) -> Simulation | str:
        """The simulation of one dimension, or why there is none."""
        mine = [key for key, job in jobs.items() if job.settings["dimension"] == settings.dimension]
        done = [key for key in mine if key in outcome.results]
        failures = [outcome.failures[key] for key in mine if key in outcome.failures]
        missing = f"{len(done)} of {len(mine)} replicas at d = {settings.dimension} are finished"
        if not done:
            return f"{missing}: {failures[0].rstrip('.')}" if failures else missing
        status, message = Status.DONE, f"{len(done)} replica{'s' if len(done) > 1 else ''} finished."
        if failures:
            diverged = all("diverged" in failure for failure in failures)
            status = Status.DIVERGED if diverged else Status.FAILED
            message = f"{missing}; {len(failures)} failed, the first with: {failures[0]}"
        if outcome.interrupted:
            status, message = Status.INTERRUPTED, f"{missing}; resume to run the others."
        results = [outcome.results[key] for key in done]
        names = [name for name in results[0] if name != "wall_time"]
        times, pair_times = self.recorded(settings)
        return Simulation(
            problem=self.problem,
            settings=settings,
            t=times,
            pair_times=pair_times,
            observables={name: Sample.of(np.array([result[name] for result in results])) for name in names},
            replica_index=[jobs[key].replica for key in done],
            status=status,
            message=message,
            wall_time=float(sum(float(result["wall_time"]) for result in results)),
            config_text=self._config_text,
        )


def _replica_numbers(value: int | Sequence[int]) -> list[int]:
    if isinstance(value, list | tuple | range | np.ndarray):
        numbers = [integer("replicas", number, low=0) for number in value]
        if not numbers or len(set(numbers)) < len(numbers):
            raise ValueError(f"replicas must list different numbers, at least one, not {shown(value)}.")
        return sorted(numbers)
    return list(range(integer("replicas", value, low=1)))


def _check_alone(optimizer: Optimizer, step: float | None, learning_rate: float | None, batch: int | None) -> None:
    for name, value in (("step", step), ("learning_rate", learning_rate), ("batch", batch)):
        if value is not None:
            raise ValueError(
                f"{name} must be left out with optimizer = {type(optimizer).__name__}(...), which sets it, "
                f"not {shown(value)}."
            )


def _optimized(settings: Settings, optimizer: Optimizer, problem: NetworkProblem) -> Settings:
    """Step, batch, momentum and sampling of an optimiser at the n of these settings."""
    nominal, samples = optimizer.step(problem), settings.samples
    ratio = problem.alpha * problem.formulation().width * settings.dimension / samples
    step = nominal if math.isclose(ratio, 1.0, rel_tol=1e-12) else nominal * ratio  # bit for bit that of the theory
    changed = replace(settings, step=step, momentum=optimizer.momentum)
    if settings.optimizer != "sgd":
        return changed
    batch = max(1, round(optimizer.batch_fraction * samples))
    if optimizer.sampling == "epochs":
        # An epoch has as many updates as in the theory: a third of 101 samples is 33 and not 34.
        updates = optimizer.updates_per_epoch
        least, most = samples // (updates + 1) + 1, samples // updates
        batch = min(max(batch, least), most) if least <= most else batch
    if abs(batch / samples - optimizer.batch_fraction) > _BATCH_ROUNDING * optimizer.batch_fraction:
        warnings.warn(
            f"batch_fraction = {optimizer.batch_fraction:g} of n = {samples} samples is a batch of {batch} at d = "
            f"{settings.dimension}, a fraction of {batch / samples:.3g}: choose dimensions where it is a whole number.",
            UserWarning,
            stacklevel=4,
        )
    return replace(changed, batch=batch, sampling=optimizer.sampling)


def _check_optimizer(optimizer: str, step: float | None, learning_rate: float | None, batch: int | None) -> None:
    given = [name for name, value in (("step", step), ("learning_rate", learning_rate)) if value is not None]
    if optimizer == "flow" and given:
        raise ValueError(f"{given[0]} goes with optimizer 'gd' or 'sgd', not with 'flow', which chooses its own steps.")
    if optimizer != "flow" and len(given) != 1:
        raise ValueError(f"optimizer {optimizer!r} needs exactly one of step and learning_rate.")
    if optimizer == "sgd" and batch is None:
        raise ValueError("optimizer 'sgd' needs batch, the samples of one update.")
    if optimizer != "sgd" and batch is not None:
        raise ValueError(f"batch goes with optimizer 'sgd', not with {optimizer!r}.")


def _samples(alpha: float, width: int, dimension: int, batch: int | None) -> int:
    """Round alpha m d to n."""
    exact = alpha * width * dimension
    samples = round(exact)
    if samples < 1:
        raise ValueError(f"dimension {dimension} gives n = alpha m d = {exact:.3g} samples, less than one.")
    if abs(samples - exact) > _ROUNDING * exact:
        warnings.warn(
            f"n = alpha m d = {exact:.6g} is rounded to {samples} at d = {dimension}, which changes alpha by "
            f"{samples / exact - 1:+.2%}: choose dimensions that make n an integer.",
            UserWarning,
            stacklevel=5,
        )
    if batch is not None and integer("batch", batch, low=1) > samples:
        raise ValueError(f"batch must be at most n = {samples} (dimension {dimension}), not {batch}.")
    return samples


def _time_step(step: float | None, learning_rate: float | None, ratio: float) -> float | None:
    """Time of an update; ``ratio`` is n/d."""
    if learning_rate is not None:
        return real("learning_rate", learning_rate, low=0.0, open_low=True) / ratio
    return None if step is None else real("step", step, low=0.0, open_low=True)


def _recording_times(
    t_final: float, times: ArrayLike | None, pair_times: ArrayLike | None, step: float | None
) -> tuple[FloatArray, FloatArray]:
    """Curve and pair times, ascending, on whole updates."""
    if step is not None and t_final < step:
        raise ValueError(f"t_final = {t_final:g} must be at least one step, {step:g}.")

    def rounded(values: FloatArray) -> FloatArray:
        if step is None:
            return np.unique(values)
        updates = np.minimum(np.round(values / step), math.floor(t_final / step * (1.0 + 1e-12)))
        return np.unique(updates * step)

    if times is None:
        chosen = np.concatenate([[0.0], np.geomspace(t_final / 1000.0, t_final, _TIMES)])
        chosen[-1] = t_final
    else:
        chosen = real_array("times", times, ndim=1)
        if len(chosen) == 0:
            raise ValueError("times must hold at least one time, not none.")
    pairs = np.array([0.01, 0.1, 0.5, 1.0]) * t_final
    if pair_times is not None:
        pairs = real_array("pair_times", pair_times, ndim=1)
    for name, values in (("times", chosen), ("pair_times", pairs)):
        if len(values) and (values.min() < 0.0 or values.max() > t_final):
            raise ValueError(f"{name} must lie in [0, t_final] = [0, {t_final:g}], not {shown(values.tolist())}.")
    pairs, chosen = rounded(pairs), rounded(chosen)
    # Times that differ by rounding only are one time.
    apart = ~np.isclose(chosen[:, None], pairs, rtol=1e-9, atol=0.0).any(axis=1)
    return np.unique(np.concatenate([chosen[apart], pairs])), pairs


def _bytes(problem: NetworkProblem, settings: Settings, pairs: int) -> int:
    """Memory that one replica fills, besides what Python itself takes."""
    width = problem.formulation().width
    parameters = width * (settings.dimension + 1) * 8
    kept = pairs * (parameters + settings.samples * 8) + 20 * parameters
    order = 0 if settings.batch is None else 3 * max(dynamics.ORDER, settings.batch, settings.samples)
    if settings.model == "gaussian":
        itemsize = 8 if settings.precision == "double" else 4
        kept += gaussian_model.memory(problem, settings.dimension, settings.samples, itemsize)
        if settings.batch is not None:
            kept += 8 * order + gaussian_model.batch_memory(problem, settings.dimension, settings.batch, itemsize)
        return kept
    batch = 0 if settings.batch is None else settings.batch * (settings.dimension + width + 2)
    return kept + 8 * ((settings.samples + settings.test_samples) * (settings.dimension + 3) + batch + order)
