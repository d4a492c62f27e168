"""The result of finite-size simulations: the same observables as a solution, replica by replica.

A simulation is several independent replicas of one network of dimension d, with fresh data and fresh initial weights
each, recorded at common times. What is kept is what the theory predicts: errors, second layer and overlaps averaged
over the neurons of each exchangeable group, and the two-time functions in the group-symmetric modes of
:mod:`dmft.formulation`, so that every array lines up with that of a `Solution` of the same problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmft._validate import integer, keys, real, shown
from dmft.optimizers import SAMPLINGS
from dmft.solution import mode_names
from dmft.status import Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dmft.problems import NetworkProblem

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MODELS = ("gaussian", "network")
OPTIMIZERS = ("flow", "gd", "sgd")
PRECISIONS = ("double", "single")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a simulation was made, besides its problem.

    Attributes
    ----------
    model : {"gaussian", "network"}
        Gaussian model (theory section 1, for which the theory is exact) or a true network on Gaussian inputs.
    dimension : int
        Input dimension d.
    samples : int
        Training samples n; alpha m d rounded to an integer.
    seed : int
        Replica i draws from ``SeedSequence([seed, dimension], spawn_key=(i,))``.
    optimizer : {"flow", "gd", "sgd"}
        Gradient flow by an adaptive integrator, gradient descent, or minibatch descent on a fixed data set; the last
        two with heavy-ball ``momentum`` if that is not 0.
    step : float or None
        Time advanced by one update, in the theory's unit: (learning rate) d/n. None for "flow".
    batch : int or None
        Samples in one update of "sgd".
    rtol : float or None
        Tolerance of the integrator of "flow".
    precision : {"double", "single"}
        Of the data tensors.
    test_samples : int
        Size of the fresh test set of each replica; 0 for the Gaussian model, whose test error is known exactly.
    revision : int
        Of the simulators: changes whenever their numbers do.
    momentum : float
        Fraction of the last step that "gd" and "sgd" repeat, at least 0 and below 1; theory section 12.
    sampling : {"epochs", "fresh"}
        Batches of "sgd": whole batches of one random permutation of the samples after the other, or drawn anew from all
        samples for each update; never a sample twice in a batch.
    """

    model: str
    dimension: int
    samples: int
    seed: int = 0
    optimizer: str = "flow"
    step: float | None = None
    batch: int | None = None
    rtol: float | None = None
    precision: str = "double"
    test_samples: int = 0
    revision: int = 1
    momentum: float = 0.0
    sampling: str = "epochs"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("model", MODELS),
            ("optimizer", OPTIMIZERS),
            ("precision", PRECISIONS),
            ("sampling", SAMPLINGS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {shown(getattr(self, name))}.")
        set_ = object.__setattr__
        set_(self, "dimension", integer("dimension", self.dimension, low=1))
        set_(self, "samples", integer("samples", self.samples, low=1))
        set_(self, "seed", integer("seed", self.seed, low=0))
        set_(self, "test_samples", integer("test_samples", self.test_samples, low=0))
        for name in ("step", "rtol"):
            if getattr(self, name) is not None:
                set_(self, name, real(name, getattr(self, name), low=0.0, open_low=True))
        if self.batch is not None:
            set_(self, "batch", integer("batch", self.batch, low=1, high=self.samples))
        set_(self, "momentum", real("momentum", self.momentum, low=0.0, high=1.0, open_high=True))
        if self.momentum and self.optimizer == "flow":
            raise ValueError(f"momentum goes with optimizer 'gd' or 'sgd', not with 'flow': {self.momentum:g}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, from which :meth:`from_dict` rebuilds the settings."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Settings:
        """Rebuild from :meth:`to_dict`; what has a default may be missing.

        Raises
        ------
        TypeError, ValueError
            If a key is unknown or missing, or a value is bad.
        """
        keys("settings", data, [field.name for field in fields(cls)])
        for name in ("model", "dimension", "samples"):
            if name not in data:
                raise ValueError(f"settings must have {name}.")
        return cls(**data)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One observable over the replicas.

    Attributes
    ----------
    mean, sem : (...) float
        Mean over replicas and its standard error (0 for a single replica: unknown, see ``count``).
    count : int
        Number of replicas.
    values : (count, ...) float or None
        The replicas; None in files that keep only mean and standard error.
    """

    mean: FloatArray
    sem: FloatArray
    count: int
    values: FloatArray | None

    @classmethod
    def of(cls, values: ArrayLike) -> Sample:
        """Mean and standard error of values (count, ...)."""
        array = np.array(values, dtype=np.float64)
        count = len(array)
        spread = array.std(axis=0, ddof=1) if count > 1 else np.zeros(array.shape[1:])
        return cls(mean=array.mean(axis=0), sem=spread / np.sqrt(count), count=count, values=array)

    def reshaped(self, shape: tuple[int, ...]) -> Sample:
        """The same numbers with another shape of one replica."""
        values = None if self.values is None else self.values.reshape(self.count, *shape)
        return Sample(mean=self.mean.reshape(shape), sem=self.sem.reshape(shape), count=self.count, values=values)


CURVES = ("train_error", "test_error", "test_error_fresh", "a", "gamma", "v")
"""Curves that a simulation may have; ``test_error_fresh`` is the error on test samples, without a formula."""

TWO_TIME = ("correlation", "residual_correlation")


class Simulation:
    """Result of `dmft.simulate`; `dmft.load` reads it back.

    Parameters
    ----------
    problem : NetworkProblem
        What was simulated.
    settings : Settings
        How.
    t : (T,) array_like
        Times of the curves, in the theory's unit, increasing from 0.
    pair_times : (K,) array_like
        Times between which the two-time functions were recorded; may be empty.
    observables : mapping of str to Sample
        ``train_error``, ``test_error``, ``test_error_fresh`` with one replica of shape (T,); ``a`` (T, G), averages
        over the neurons of each group; ``v`` (T, G, k) likewise; ``correlation`` (modes, K, K) in the modes of
        `dmft.solution.mode_names`, first index at the first time; ``residual_correlation`` (K, K), (1/n) <r(t), r(t')>.
    replica_index : (R,) array_like of int
        Which replicas these are.
    status, message : Status, str
        DONE when all replicas that were asked for are there.
    wall_time : float
        Seconds of work, summed over the replicas.
    config_text : str
        TOML text that the run came from, empty otherwise.

    Raises
    ------
    ValueError
        When an array has the wrong shape, holds NaN or infinity, its times do not increase, or the replicas are not as
        many as ``replica_index`` says.
    """

    def __init__(
        self,
        *,
        problem: NetworkProblem,
        settings: Settings,
        t: ArrayLike,
        pair_times: ArrayLike,
        observables: Mapping[str, Sample],
        replica_index: ArrayLike,
        status: Status = Status.DONE,
        message: str = "",
        wall_time: float = 0.0,
        config_text: str = "",
    ) -> None:
        self.problem = problem
        self.formulation = problem.formulation()
        self.settings = settings
        self.t = _times("t", t)
        self.pair_times = _times("pair_times", pair_times)
        self.replica_index: IntArray = np.array(replica_index, dtype=np.int64)
        self.status, self.message = status, message
        self.wall_time, self.config_text = wall_time, config_text
        self._samples: dict[str, Sample] = {}
        shapes = self.shapes()
        for name, sample in observables.items():
            if name not in shapes:
                raise ValueError(f"{name!r} is not an observable of a simulation, which has {', '.join(shapes)}.")
            for part, array, shape in (
                ("mean", sample.mean, shapes[name]),
                ("sem", sample.sem, shapes[name]),
                ("replicas", sample.values, (sample.count, *shapes[name])),
            ):
                if array is None:
                    continue
                if array.shape != shape:
                    raise ValueError(f"{name}_{part} has shape {array.shape}; expected {shape}.")
                if not np.isfinite(array).all():
                    raise ValueError(f"{name}_{part} contains NaN or infinity.")
            self._samples[name] = sample
        if self._samples and self.replica_index.shape != (self.replicas,):
            raise ValueError(f"replica_index has shape {self.replica_index.shape}; expected ({self.replicas},).")
        if "a" in self._samples and "gamma" not in self._samples:
            a, root = self._samples["a"], np.sqrt(self.formulation.width)
            values = None if a.values is None else a.values / root
            self._samples["gamma"] = Sample(mean=a.mean / root, sem=a.sem / root, count=a.count, values=values)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one replica of each observable that there can be, with all axes."""
        times, pairs = len(self.t), len(self.pair_times)
        groups, latent = self.formulation.groups, self.formulation.latent_dimension
        return {
            "train_error": (times,),
            "test_error": (times,),
            "test_error_fresh": (times,),
            "a": (times, groups),
            "gamma": (times, groups),
            "v": (times, groups, latent),
            "correlation": (len(self.modes), pairs, pairs),
            "residual_correlation": (pairs, pairs),
        }

    @property
    def modes(self) -> tuple[str, ...]:
        """Names of the modes of the correlation."""
        return mode_names(self.formulation)

    @property
    def curve_names(self) -> tuple[str, ...]:
        """Names of the curves this simulation has, besides ``t``."""
        return tuple(name for name in CURVES if name in self._samples)

    @property
    def two_time_names(self) -> tuple[str, ...]:
        """Names of the two-time functions this simulation has."""
        return tuple(name for name in TWO_TIME if name in self._samples)

    @property
    def replicas(self) -> int:
        """Number of replicas."""
        return max((sample.count for sample in self._samples.values()), default=0)

    def sample(self, name: str, *, squeeze: bool = True) -> Sample:
        """One observable over the replicas.

        Parameters
        ----------
        name : str
            One of `curve_names` or `two_time_names`.
        squeeze : bool
            Drop the group axis of symmetric problems and the latent axis of one direction, as the curves of a
            `Solution` do.

        Raises
        ------
        AttributeError
            If this simulation does not have it.
        """
        try:
            sample = self._samples[name]
        except KeyError:
            have = ", ".join((*self.curve_names, *self.two_time_names))
            raise AttributeError(f"this simulation has no {name}; it has {have}.") from None
        if not squeeze or name not in ("a", "gamma", "v"):
            return sample
        shape = sample.mean.shape
        if len(shape) == 3 and shape[2] == 1:
            shape = shape[:2]
        if self.problem.exchangeable:
            shape = (shape[0], *shape[2:])
        return sample.reshaped(shape)

    def __getattr__(self, name: str) -> FloatArray:
        # The mean over replicas, under the name that the same curve has in a solution.
        if name.startswith("_") or name not in CURVES:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.sample(name).mean

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to an HDF5 file, whole or not at all; see `dmft.files`."""
        from dmft.files import save_simulation

        save_simulation(self, path)

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write mean and standard error of the curves to a CSV file with commented header lines."""
        from dmft.files import save_simulation_csv

        save_simulation_csv(self, path)

    def columns(self) -> dict[str, FloatArray]:
        """Mean and standard error of the curves as named columns (T,), indices appended as in `Solution.columns`."""
        table = {"t": self.t}
        for name in self.curve_names:
            sample = self.sample(name)
            for place in np.ndindex(sample.mean.shape[1:]):
                index = (slice(None), *place)
                column = "_".join([name, *map(str, place)])
                table[f"{column}_mean"], table[f"{column}_sem"] = sample.mean[index], sample.sem[index]
        return table

    def plot(self, path: str | PathLike[str] | None = None) -> Figure:
        """Draw the curves with every replica; also write the figure to ``path`` when given."""
        from dmft.plots import plot_simulation

        return plot_simulation(self, path)

    def record(self) -> dict[str, Any]:
        """Plain facts for scripts: problem, settings, and the curves at the last time."""
        final = {}
        for name in self.curve_names:
            sample = self.sample(name)
            final[name] = {"mean": sample.mean[-1].tolist(), "sem": sample.sem[-1].tolist()}
        return {
            "problem": self.problem.to_dict(),
            "settings": self.settings.to_dict(),
            "replicas": self.replicas,
            "status": self.status.value,
            "message": self.message,
            "t": float(self.t[-1]),
            "wall_time": self.wall_time,
            "final": final,
        }

    def describe(self) -> str:
        """One line: model, sizes and optimiser."""
        s = self.settings
        name = "Gaussian model" if s.model == "gaussian" else "true network"
        batches = f"SGD with batch {s.batch} " + ("drawn afresh" if s.sampling == "fresh" else "in epochs")
        how = {"flow": "gradient flow", "gd": "gradient descent", "sgd": batches}[s.optimizer]
        momentum = f", momentum {s.momentum:.3g}" if s.momentum else ""
        step = f", step {s.step:.3g}" if s.step is not None else ""
        return f"{name}, d = {s.dimension}, n = {s.samples}, {how}{momentum}{step}, {self.replicas} replicas"

    def summary(self) -> str:
        """Short table of the curves at the start, at the smallest test error and at the end."""
        lines = [self.describe()]
        if "test_error" in self._samples and len(self.t):
            best = int(np.argmin(self._samples["test_error"].mean))
            places = sorted({0, best, len(self.t) - 1})
            for place in places:
                cells = [f"t = {self.t[place]:<10.5g}"]
                for name in ("train_error", "test_error", "test_error_fresh"):
                    if name in self._samples:
                        sample = self._samples[name]
                        error = f" +- {sample.sem[place]:.5f}" if sample.count > 1 else ""
                        cells.append(f"{name} {sample.mean[place]:.5f}{error}")
                lines.append("  " + "  ".join(cells))
        lines.append(f"status {self.status.value}: {self.message}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Simulation: {self.describe()}, {self.status.value}>"


def _times(name: str, value: ArrayLike) -> FloatArray:
    array: FloatArray = np.array(value, dtype=np.float64).reshape(-1)
    if not np.isfinite(array).all() or (np.diff(array) <= 0.0).any() or (array < 0.0).any():
        raise ValueError(f"{name} must hold increasing times >= 0, not {shown(array.tolist())}.")
    array.flags.writeable = False
    return array
