"""A run as plain curves of time, whatever made it: the theory or finite networks.

A solution is interpolated with the order of its integrator. A simulation is known at a few recorded times only:
straight lines in ln t join the means over replicas, and every time read off them has the distance of the recorded times
as its resolution. Its error comes from resampled replicas, which are traces of the same kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmft.interpolation import interpolate
from dmft.limits import Limit, option_names
from dmft.simulation import Simulation
from dmft.solution import Solution
from validation.comparison.checks import MODEL_WORDS, algorithm_words

if TYPE_CHECKING:
    from dmft.formulation import Formulation

FloatArray = NDArray[np.float64]

_DRAWS = 200
"""Resamples of the replicas: their spread is then known to 5 %."""
_SEED = 20250228


@dataclass(frozen=True)
class Profile:
    """The five curves that every time scale is read off.

    Attributes
    ----------
    train_error, test_error : (N,)
        e_tr and e_ts, noise included.
    second_layer : (N,)
        Root mean square of a over the neurons.
    overlap : (N,)
        Root mean square of |v|; v itself for one kind of neuron and one direction.
    product : (N,)
        |mean of a v|, the linear function that has been learnt; a v itself for one kind of neuron and one direction.
    """

    train_error: FloatArray
    test_error: FloatArray
    second_layer: FloatArray
    overlap: FloatArray
    product: FloatArray


class Trace(ABC):
    """Curves on a grid of times and between them.

    Attributes
    ----------
    formulation : Formulation
        Of the problem.
    t : (N,)
        Times of the rows, in the unit of the report.
    profile : Profile
        Curves on the rows.
    tolerance : float
        Relative error of the curves; 0 where errors come from replicas.
    draws : tuple of Trace
        Resampled replicas; empty for the theory and where there is only one.
    sampled : bool
        Whether the rows are recorded times, with nothing known between them.
    """

    formulation: Formulation
    t: FloatArray
    profile: Profile
    tolerance: float
    draws: tuple[Trace, ...] = ()
    sampled: bool = False

    @abstractmethod
    def at(self, times: FloatArray) -> Profile:
        """Curves at times (X,) inside the run."""

    @property
    def end(self) -> float:
        """Last time."""
        return float(self.t[-1])


class SolvedTrace(Trace):
    """Curves of a solution; times are multiplied by ``unit``."""

    def __init__(self, solution: Solution, unit: float) -> None:
        self._solution, self._unit = solution, unit
        self.formulation = solution.formulation
        self.t = unit * solution.t
        # All curves in one array: interpolated as `Solution.at` does, with one stencil for all instead of one for each.
        rows = len(solution.t)
        self._columns = np.concatenate(
            [
                solution.train_error[:, None],
                solution.test_error[:, None],
                solution.a.reshape(rows, -1),
                solution.v.reshape(rows, -1),
            ],
            axis=1,
        )
        self.profile = self._averages(self._columns)
        self.tolerance = max(solution.rtol, solution.stats.estimated_error)

    def at(self, times: FloatArray) -> Profile:
        """Curves at times (X,) inside the run, with the order of the integrator."""
        solution = self._solution
        # Division by the unit may leave the solved range by one rounding.
        inside = np.clip(times / self._unit, solution.t[0], solution.t[-1])
        return self._averages(interpolate(solution.t, self._columns, solution.order, inside))

    def _averages(self, columns: FloatArray) -> Profile:
        form = self.formulation
        a, v = columns[:, 2 : 2 + form.groups], columns[:, 2 + form.groups :]
        v = v.reshape(len(v), form.groups, form.latent_dimension)
        return _profile(form, self._solution.problem.exchangeable, a, v, columns[:, 0], columns[:, 1])

    def minimum(self) -> tuple[float, float]:
        """Time and value of the smallest test error."""
        found = self._solution.minimum()
        return self._unit * found.time, found.value


class SampledTrace(Trace):
    """Curves known at some times, straight in ln t between them (in t where the earlier time is 0)."""

    sampled = True

    def __init__(
        self, formulation: Formulation, t: FloatArray, profile: Profile, draws: tuple[Trace, ...] = ()
    ) -> None:
        self.formulation, self.t, self.profile, self.draws = formulation, t, profile, draws
        self.tolerance = 0.0

    def at(self, times: FloatArray) -> Profile:
        """Curves at times (X,) inside the run."""
        right = np.clip(np.searchsorted(self.t, times, side="left"), 1, len(self.t) - 1)
        low, high = self.t[right - 1], self.t[right]
        share = (times - low) / (high - low)
        late = low > 0.0
        share[late] = np.log(times[late] / low[late]) / np.log(high[late] / low[late])

        def between(values: FloatArray) -> FloatArray:
            return values[right - 1] + share * (values[right] - values[right - 1])

        return Profile(*(between(getattr(self.profile, field.name)) for field in fields(Profile)))


def trace_of(run: Solution | Simulation, unit: float) -> Trace:
    """Trace of a run, its times multiplied by ``unit``."""
    return SolvedTrace(run, unit) if isinstance(run, Solution) else _simulated(run, unit)


def _options(limit: Limit) -> list[str]:
    return [f"{name} {getattr(limit, name)}" for name in option_names(limit.limit) if getattr(limit, name)]


def series_name(run: Solution | Simulation) -> str:
    """What runs of different widths have to share to be one family: how they were made."""
    if isinstance(run, Solution):
        if isinstance(run.problem, Limit):  # a series of its own: it must not pass for the equations it approximates
            return " ".join([run.problem.title, *_options(run.problem)])
        return "theory" if run.optimizer is None else f"theory of {run.optimizer.describe()}"
    s = run.settings
    how = algorithm_words(s, f" batch {s.batch}")
    step = "" if s.step is None else f", step {s.step:.4g}"
    return f"{MODEL_WORDS[s.model]}, {how}{step}, d = {s.dimension}"


def _profile(
    form: Formulation, exchangeable: bool, a: FloatArray, v: FloatArray, train: FloatArray, test: FloatArray
) -> Profile:
    """Averages over neurons of a (N, G) and v (N, G, k), as in `Solution.summary`."""
    share = form.sizes / form.width
    product = np.einsum("ng,ngk,g->nk", a, v, share)
    if exchangeable and v.shape[2] == 1:
        return Profile(train, test, np.abs(a[:, 0]), v[:, 0, 0], product[:, 0])
    return Profile(
        train, test, np.sqrt(a**2 @ share), np.sqrt((v**2).sum(axis=2) @ share), np.linalg.norm(product, axis=1)
    )


def _simulated(simulation: Simulation, unit: float) -> Trace:
    form, exchangeable = simulation.formulation, simulation.problem.exchangeable
    test = "test_error" if "test_error" in simulation.curve_names else "test_error_fresh"
    samples = [simulation.sample(name, squeeze=False) for name in ("a", "v", "train_error", test)]
    t = unit * simulation.t

    def profile(parts: list[FloatArray]) -> Profile:
        return _profile(form, exchangeable, *parts)

    draws: list[Trace] = []
    count = simulation.replicas
    if count > 1:
        random = np.random.default_rng(_SEED)
        # Resampling R replicas with replacement spreads their mean by (R - 1)/R too little in variance.
        stretch = np.sqrt(count / (count - 1.0))
        for _ in range(_DRAWS):
            weights = random.multinomial(count, np.full(count, 1.0 / count)) / count
            parts = []
            for sample in samples:
                if sample.values is not None:
                    moved = np.tensordot(weights, sample.values, axes=1) - sample.mean
                    parts.append(sample.mean + stretch * moved)
                else:
                    # Files that keep only standard errors do not say how deviations at two times are related; moving
                    # a whole curve at once shifts crossings the most.
                    parts.append(sample.mean + random.standard_normal() * sample.sem)
            draws.append(SampledTrace(form, t, profile(parts)))
    return SampledTrace(form, t, profile([sample.mean for sample in samples]), tuple(draws))
