"""Many trainings: data sets x networks x n x d x lambda, in parallel, resumable.

Run i of dimension d has its own data stream and its own initial directions. The data of fewer samples are the first of
those of more, and the initialisation of another scale is the same one scaled, so that differences between n or lambda
are not those of luck.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dmft
from dmft._validate import integer, real, shown
from validation import replicas
from validation.relu.data import LAWS, DataLaw, Dataset, Teacher, forty_points, three_points
from validation.relu.extremal import alignment, extremal_vectors_2d
from validation.relu.flow import RECORDS_PER_DECADE
from validation.relu.observables import active, conserved_drift, course, sign_changes
from validation.relu.references import excess_risk, function_distance, least_squares, split_least_squares
from validation.relu.training import Training, Verdict, verdict
from validation.relu.trajectory import Reason

FloatArray = NDArray[np.float64]

SETS = ("three_points", "forty_points")
"""Published data sets, which stand in place of a law."""
VERDICTS = tuple(Verdict)
REASONS = tuple(Reason)

MEASURED: dict[str, tuple[str, str]] = {
    "verdict": ("verdict", "0 interpolated, 1 stationary, 2 unfinished, 3 diverged"),
    "reason": ("why training ended", "place in validation.relu.trajectory.Reason"),
    "train_loss": ("final train loss", "mean squared residual"),
    "gradient_norm": ("final gradient norm", "of (1/2n) sum r^2 in all parameters"),
    "final_time": ("final time", "of gradient flow; learning rate times steps otherwise"),
    "steps": ("steps", "of the integrator or optimiser"),
    "events": ("kinks crossed", "where they are followed"),
    "escape_time": ("escape time", "train loss fallen by a tenth of its first value; infinite if never"),
    "label_power": ("mean squared label", "the train loss of f = 0"),
    "noise_loss": ("train loss of the teacher", "mean squared label noise of the sample"),
    "ols_loss": ("train loss of least squares", "one linear function"),
    "split_loss": ("train loss of split least squares", "one linear function on each half-space of the teacher"),
    "risk": ("excess risk", "E (f - teacher)^2 over the law of the inputs"),
    "risk_error": ("its standard error", "0 where it is exact"),
    "ols_risk": ("excess risk of least squares", "as risk"),
    "split_risk": ("excess risk of split least squares", "as risk"),
    "ols_distance": ("distance to least squares", "root mean square over the law of the inputs"),
    "split_distance": ("distance to split least squares", "root mean square over the law of the inputs"),
    "active": ("active neurons", "at the end"),
    "patterns": ("activation patterns", "of the active neurons at the end"),
    "escape_patterns": ("activation patterns at the escape", "of the active neurons, last record before it"),
    "escape_alignment_min": ("least alignment at the escape", "sign(a) cos(w, D_n(w)), last record before it"),
    "escape_alignment_median": ("median alignment at the escape", "sign(a) cos(w, D_n(w)), last record before it"),
    "escape_extremal_min": ("least cosine with an extremal vector at the escape", "two dimensions only; NaN otherwise"),
    "conserved_drift": ("drift of a^2 - |w|^2", "largest, over the largest a^2 + |w|^2"),
    "sign_changes": ("sign changes of a", "number of neurons"),
}
"""Numbers of each run."""
CURVES: dict[str, tuple[str, str]] = {
    "train_loss": ("train loss", "mean squared residual"),
    "patterns": ("activation patterns", "of the active neurons"),
    "alignment_min": ("least alignment", "sign(a) cos(w, D_n(w)) over active neurons"),
    "alignment_median": ("median alignment", "sign(a) cos(w, D_n(w)) over active neurons"),
}
"""Courses of each run, on common times; NaN after its end."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where data come from.

    Attributes
    ----------
    inputs : str
        "gaussian", "rademacher", "sphere", or a published set, "three_points" or "forty_points", which leaves nothing
        else to choose.
    margin, noise_std : float
        As in `data.DataLaw`.
    teacher_neurons : int
        0: linear, y = x_1. Otherwise a random network of so many relu neurons, another one for each run.

    Raises
    ------
    TypeError, ValueError
        At construction.
    """

    inputs: str = "gaussian"
    margin: float = 0.0
    noise_std: float = 0.5
    teacher_neurons: int = 0

    def __post_init__(self) -> None:
        if self.inputs not in (*LAWS, *SETS):
            raise ValueError(f"inputs must be one of {', '.join((*LAWS, *SETS))}, not {shown(self.inputs)}.")
        object.__setattr__(self, "margin", real("margin", self.margin, low=0.0))
        object.__setattr__(self, "noise_std", real("noise_std", self.noise_std, low=0.0))
        object.__setattr__(self, "teacher_neurons", integer("teacher_neurons", self.teacher_neurons, low=0))
        if self.margin > 0.0 and self.teacher_neurons:
            raise ValueError("margin needs a linear teacher, teacher_neurons = 0: it is about the teacher's direction.")

    @property
    def fixed(self) -> bool:
        """Whether this is a published set."""
        return self.inputs in SETS

    def law(self, dimension: int, rng: np.random.Generator) -> DataLaw:
        """The law in d dimensions; ``rng`` draws the teacher's neurons."""
        teacher = Teacher.unit(dimension)
        if self.teacher_neurons:
            teacher = Teacher.random_neurons(self.teacher_neurons, dimension, rng)
        return DataLaw(
            dimension=dimension, teacher=teacher, law=self.inputs, margin=self.margin, noise_std=self.noise_std
        )


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What to train.

    Attributes
    ----------
    source : Source
    training : Training
        Its scale is replaced by those of the sweep.
    samples : tuple of int
        n, increasing; for a published set its own number.
    dimensions : tuple of int
        d, increasing.
    scales : tuple of float
        lambda, increasing.
    seeds : int
        Runs for each of these.
    seed : int
        Of everything random.

    Raises
    ------
    TypeError, ValueError
        At construction.
    """

    source: Source
    training: Training
    samples: tuple[int, ...]
    dimensions: tuple[int, ...]
    scales: tuple[float, ...]
    seeds: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "seeds", integer("seeds", self.seeds, low=1))
        put(self, "seed", integer("seed", self.seed, low=0))
        put(self, "samples", _increasing("samples", [integer("samples", n, low=1) for n in _several(self.samples)]))
        dimensions = [integer("dimension", d, low=1) for d in _several(self.dimensions)]
        put(self, "dimensions", _increasing("dimension", dimensions))
        scales = [real("scale", scale, low=0.0, open_low=True) for scale in _several(self.scales)]
        put(self, "scales", _increasing("scale", scales))
        if self.source.fixed:
            n = 3 if self.source.inputs == "three_points" else 40
            if self.dimensions != (2,) or self.samples != (n,):
                raise ValueError(f"inputs {self.source.inputs!r} have dimension 2 and {n} samples; leave them out.")
        else:
            for d in self.dimensions:  # a margin that leaves nothing is refused before anything is trained
                self.source.law(d, np.random.default_rng(0))

    @property
    def times(self) -> FloatArray:
        """Common recorded times, `flow.RECORDS_PER_DECADE` for each factor of ten."""
        assert self.training.t_final is not None
        end = self.training.t_final
        first = min(1e-2 if self.training.learning_rate is None else self.training.learning_rate, end)
        return np.geomspace(first, end, max(2, round(RECORDS_PER_DECADE * np.log10(end / first)) + 1))

    def cells(self) -> Iterator[tuple[int, int, int, int]]:
        """Places (d, lambda, n, run)."""
        sizes = (len(self.dimensions), len(self.scales), len(self.samples), self.seeds)
        yield from itertools.product(*(range(size) for size in sizes))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "source": {field.name: getattr(self.source, field.name) for field in fields(self.source)},
            "training": {k: v for k, v in self.training.to_dict().items() if k != "scale"},
            "samples": list(self.samples),
            "dimensions": list(self.dimensions),
            "scales": list(self.scales),
            "seeds": self.seeds,
            "seed": self.seed,
        }


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What came out.

    Attributes
    ----------
    sweep : Sweep
    values : dict of (D, L, N, S) float
        The numbers `MEASURED` for each dimension, scale, number of samples and run; NaN where a run is missing.
    curves : dict of (D, L, N, S, T) float
        The courses `CURVES` on ``sweep.times``.
    failures : dict of str
        Runs that failed, and why.
    interrupted : bool
    """

    sweep: Sweep
    values: Mapping[str, FloatArray]
    curves: Mapping[str, FloatArray]
    failures: Mapping[str, str]
    interrupted: bool = False

    @property
    def missing(self) -> int:
        """Number of runs without a result."""
        return int(np.isnan(self.values["verdict"]).sum())

    def counts(self, which: Verdict) -> NDArray[np.int64]:
        """Number of runs with a verdict, (D, L, N)."""
        return np.asarray((self.values["verdict"] == VERDICTS.index(which)).sum(axis=-1))


def run(
    sweep: Sweep,
    *,
    workers: int = 1,
    store: str | PathLike[str] | None = None,
    resume: bool = True,
    dask: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> SweepResult:
    """Train everything; finished runs are kept in ``store``, and taken from there with ``resume``.

    The largest go first, so that no long run is left for the end. Arguments and errors as `replicas.run`.
    """
    cells = sorted(sweep.cells(), key=lambda cell: (-sweep.samples[cell[2]], -sweep.dimensions[cell[0]], cell))
    tasks = [replicas.Task(_key(sweep, cell), (sweep, cell)) for cell in cells]
    outcome = replicas.run(
        _work,
        tasks,
        workers=workers,
        dask=dask,
        store=store,
        resume=resume and store is not None,
        fingerprint=fingerprint(sweep),
        progress=progress,
        stop=stop,
    )
    shape = (len(sweep.dimensions), len(sweep.scales), len(sweep.samples), sweep.seeds)
    values = {name: np.full(shape, np.nan) for name in MEASURED}
    curves = {name: np.full((*shape, len(sweep.times)), np.nan) for name in CURVES}
    for cell in cells:
        found = outcome.results.get(_key(sweep, cell))
        if found is None:
            continue
        for name in MEASURED:
            values[name][cell] = found[name]
        for name in CURVES:
            course_ = found[f"curve_{name}"]
            curves[name][cell][: len(course_)] = course_
    return SweepResult(sweep, values, curves, outcome.failures, outcome.interrupted)


def fingerprint(sweep: Sweep) -> str:
    """What results depend on: a sweep over other n, d, lambda or more runs shares the runs it has in common."""
    what = {k: v for k, v in sweep.to_dict().items() if k in ("source", "training", "seed")}
    return hashlib.sha256(json.dumps([dmft.__version__, what], sort_keys=True).encode()).hexdigest()


def dataset(sweep: Sweep, dimension: int, samples: int, index: int) -> tuple[Dataset, DataLaw | None]:
    """Data of one run, and their law."""
    teacher, sample = (np.random.default_rng(_seed(sweep, dimension, index, part)) for part in (0, 1))
    if sweep.source.fixed:
        return (three_points() if sweep.source.inputs == "three_points" else forty_points(sample)), None
    law = sweep.source.law(dimension, teacher)
    return law.draw(samples, sample), law


def start_rng(sweep: Sweep, dimension: int, index: int) -> np.random.Generator:
    """Generator of one run's initialisation."""
    return np.random.default_rng(_seed(sweep, dimension, index, 2))


def _seed(sweep: Sweep, dimension: int, index: int, part: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([sweep.seed, dimension], spawn_key=(index, part))


def _key(sweep: Sweep, cell: tuple[int, int, int, int]) -> str:
    d, scale, n, index = (
        sweep.dimensions[cell[0]],
        sweep.scales[cell[1]],
        sweep.samples[cell[2]],
        cell[3],
    )
    return f"d{d}-scale{scale!r}-n{n}-run{index}"


def _work(payload: tuple[Sweep, tuple[int, int, int, int]]) -> dict[str, Any]:
    sweep, (i, j, k, index) = payload
    dimension, samples = sweep.dimensions[i], sweep.samples[k]
    training = replace(sweep.training, scale=sweep.scales[j])
    data, law = dataset(sweep, dimension, samples, index)
    network = training.start(dimension, start_rng(sweep, dimension, index))
    trajectory = training.run(network, data, times=sweep.times)
    observed = course(trajectory, data)
    end = trajectory.network()
    ols = least_squares(data)
    values: dict[str, Any] = dict.fromkeys(MEASURED, np.nan)
    values |= {
        "verdict": VERDICTS.index(verdict(trajectory, data)),
        "reason": REASONS.index(trajectory.reason),
        "train_loss": trajectory.train_loss[-1],
        "gradient_norm": trajectory.gradient_norm[-1],
        "final_time": trajectory.time[-1],
        "steps": trajectory.steps,
        "events": trajectory.events,
        "escape_time": trajectory.escape_time,
        "label_power": np.mean(data.labels**2),
        "noise_loss": np.mean((data.labels - data.clean) ** 2),
        "ols_loss": ols.train_loss,
        "active": observed.active[-1],
        "patterns": observed.patterns[-1],
        "conserved_drift": conserved_drift(trajectory),
        "sign_changes": sign_changes(trajectory),
    }
    left = np.flatnonzero(trajectory.time <= trajectory.escape_time)
    if np.isfinite(trajectory.escape_time) and len(left):
        at = int(left[-1])
        values["escape_patterns"] = observed.patterns[at]
        values["escape_alignment_min"] = observed.alignment_min[at]
        values["escape_alignment_median"] = observed.alignment_median[at]
        if dimension == 2:
            near = trajectory.network(at)
            slope = float(training.activation.slope or 0.0)
            extremals = extremal_vectors_2d(data.inputs, data.labels, slope)
            counted = active(near, data)
            if counted.any() and extremals:
                cosine = alignment(near.weights[counted], near.outer[counted], extremals)
                values["escape_extremal_min"] = float(cosine.min())
    if law is not None:
        risk = excess_risk(end, law)
        values |= {
            "risk": risk.value,
            "risk_error": risk.error,
            "ols_risk": excess_risk(ols, law).value,
            "ols_distance": function_distance(end, ols, law).value,
        }
        if law.teacher.is_linear:
            split = split_least_squares(data, law.teacher.direction)
            values |= {
                "split_loss": split.train_loss,
                "split_risk": excess_risk(split, law).value,
                "split_distance": function_distance(end, split, law).value,
            }
    # Recorded times are those of the sweep as far as the run went, between 0 and its end.
    kept = np.searchsorted(trajectory.time, sweep.times[sweep.times <= trajectory.time[-1]] * (1.0 - 1e-9))
    result: dict[str, Any] = {name: np.float64(value) for name, value in values.items()}
    for name in CURVES:
        source = trajectory.train_loss if name == "train_loss" else getattr(observed, name)
        result[f"curve_{name}"] = source[kept]
    return result


def _several(values: Any) -> Sequence[Any]:
    return list(values) if isinstance(values, list | tuple | np.ndarray) else [values]


def _increasing(name: str, values: list[Any]) -> tuple[Any, ...]:
    if not values or any(low >= high for low, high in itertools.pairwise(values)):
        raise ValueError(f"{name} must be a number or increasing numbers, not {shown(values)}.")
    return tuple(values)
