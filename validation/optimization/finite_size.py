"""The optimization threshold at finite d and m: ``python -m validation.optimization.finite_size --out DIR``.

DMFT at width m says that networks with a(0) = 1 and target phi = sigma interpolate iff n/d is below abar_c. This is a
statement about d -> infinity. Here finite networks are trained on both sides of abar_c: the Gaussian model, for which
the theory is exact in that limit, and true networks. If the threshold is approached, the time at which the plateau is
left must stay near the theory's below abar_c and grow without bound with d above it.

Training is gradient flow in the time t_mf = alpha t. A plateau moves at a rate of 1/t while its fastest mode has a rate
of order one, so that ordinary explicit steps would be limited by stability alone. The Runge-Kutta-Chebyshev scheme of
second order of Sommeijer, Shampine and Verwer (J. Comput. Appl. Math. 88 (1998) 315) takes s force evaluations for a
stable step of 0.65 s^2 over the largest rate.

Finished replicas are kept in DIR, which gets ``finite_size.json`` and ``finite_size.png``. The file holds plain data,
see `FiniteSize`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

import dmft
from dmft._validate import keys
from dmft.files import atomic_write
from validation import replicas
from validation.gaussian_model import GaussianModel, monomials, pull_back
from validation.model import initial_weights, population_risk
from validation.network import Network
from validation.optimization.runs import solve_run
from validation.optimization.study import question

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dmft.problems import SymmetricProblem

FloatArray = NDArray[np.float64]
Ticker = Callable[[int, int, str], None]

REVISION = 1
"""To be raised whenever the numbers of a replica change."""

LEFT = 0.4
"""Train error over tau^2/2 below which a plateau has been left: about half of the theory's plateaus (0.76 to 0.87)."""
INTERPOLATED = 1e-2
"""Train error over tau^2/2 at which a network has interpolated; it is trained no further."""
COMPARED = 500.0
"""Time t_mf at which runs of two tolerances are compared: plateaus are being left then."""

TOLERANCE = 3e-3
"""Error of a step, root mean square over the parameters, in units of 1/sqrt(d) (first layer) and 1 (second)."""
KINKED = 3e-2
"""The same for relu, where smaller steps are wasted: the force has a kink wherever a neuron passes a sample."""

_STAGES = 60  # at most, of one step
_LONGEST = 0.15  # of a step in units of the time reached
_REFRESH = 8  # accepted steps between two estimates of the largest rate
_BLOCK = 48  # samples whose tensors stay in cache between the two products


# ------------------------------------------------------------------------------------------------------- what is run


@dataclass(frozen=True, kw_only=True)
class Series:
    """Replicas of one network at one n/d.

    Attributes
    ----------
    model : {"gaussian", "network"}
    activation : str
        As `validation.optimization.study.activation`; a network has the activation itself, also where that is a series.
    noise_std : float
        tau.
    width, dimension : int
        m and d.
    sample_ratio : float
        n/d; n is rounded.
    replicas : int
    t_final : float
        Last time t_mf.
    tolerance : float
        Of the integrator.
    """

    model: str
    activation: str
    noise_std: float
    width: int
    sample_ratio: float
    dimension: int
    replicas: int
    t_final: float
    tolerance: float = TOLERANCE

    @property
    def key(self) -> str:
        """Names the series in files."""
        return (
            f"{self.model}-{self.activation}-tau{self.noise_std:g}-m{self.width}-x{self.sample_ratio:g}"
            f"-d{self.dimension}-t{self.t_final:g}-e{self.tolerance:g}"
        )

    @property
    def theory_key(self) -> str:
        """Names the theory of the series."""
        return f"theory-{self.activation}-tau{self.noise_std:g}-m{self.width}-x{self.sample_ratio:g}-t{self.t_final:g}"

    @property
    def family(self) -> tuple[str, str, int]:
        """What it shares with its series at other n/d and d."""
        return self.model, self.activation, self.width

    def at(self, tolerance: float) -> Series:
        """The same at another tolerance."""
        return replace(self, tolerance=tolerance)

    def problem(self) -> SymmetricProblem:
        """The problem that it samples."""
        return question(self.activation, self.noise_std, width=self.width).problem(self.sample_ratio)  # type: ignore[return-value]


def _family(
    model: str, activation: str, width: int, sizes: Mapping[float, Mapping[int, int]], t_final: float, **more: Any
) -> list[Series]:
    common: dict[str, Any] = {"noise_std": 0.1, "width": width, "t_final": t_final} | more
    return [
        Series(model=model, activation=activation, sample_ratio=x, dimension=d, replicas=count, **common)
        for x, counts in sizes.items()
        for d, count in counts.items()
    ]


def plan() -> list[Series]:
    """Everything that is run: n/d of about 0.5, 0.75, 1.5 and 2 times the theory's threshold at that width."""
    narrow = {8.0: {25: 8, 50: 4}, 12.0: {25: 8, 50: 4, 100: 1}, 24.0: {25: 8, 36: 8, 50: 8, 72: 3, 100: 1}}
    wide = {8.5: {25: 8}, 12.75: {25: 8}, 25.5: {25: 8, 50: 4}, 34.0: {18: 12, 25: 4}}
    cubic = {8.0: {50: 4, 100: 4}, 24.0: {50: 8, 100: 4, 200: 2}}
    tanh = {16.0: {25: 4, 50: 4}, 24.0: {25: 4, 50: 4}, 48.0: {25: 8, 50: 4, 100: 2, 200: 1}}
    relu = {18.0: {25: 4, 50: 4}, 56.0: {25: 4, 50: 4, 100: 1}}
    found = _family("gaussian", "cubic", 32, narrow, 5e3)
    found += _family("gaussian", "cubic", 64, wide, 5e3)
    found += _family("gaussian", "cubic", 128, {28.0: {25: 8}}, 5e3)
    found += _family("network", "cubic", 32, cubic, 5e3)
    found += _family("network", "tanh", 64, tanh, 1e4)
    found += _family("network", "relu64", 64, relu, 5e3, tolerance=KINKED)
    # The same replicas at a fraction of the tolerance.
    found += _family("gaussian", "cubic", 64, {34.0: {25: 4}}, 5e3, tolerance=TOLERANCE / 10.0)
    found += _family("network", "tanh", 64, {48.0: {25: 4}}, 1e4, tolerance=TOLERANCE / 10.0)
    found += _family("network", "relu64", 64, {56.0: {25: 4}}, 5e3, tolerance=KINKED / 5.0)
    return found


CONDENSED = 2
"""Replicas of which condensation is followed, for `condensing` series."""
CONDENSATION_TIMES = (0.0, 10.0, 30.0, 100.0, 200.0)
"""Times t_mf at which it is read off."""


def condensing(series: Sequence[Series]) -> list[Series]:
    """Those whose neurons are looked at: above the threshold, of moderate size, at the usual tolerance."""
    return [
        x
        for x in series
        if x.sample_ratio > THRESHOLDS.get((x.activation, x.width), (math.inf, math.inf))[1]
        and x.dimension <= 50
        and not x.activation.startswith("relu")
        and x.tolerance == _usual(x.activation)
    ]


THRESHOLDS = {
    ("cubic", 32): (15.36, 15.52),
    ("cubic", 64): (17.02, 17.20),
    ("cubic", 128): (17.96, 18.05),
    ("tanh", 64): (31.75, 32.48),
    ("relu64", 64): (38.8, 39.3),
}
"""Ranges of abar_c at tau = 0.1 for an activation and a width: `dmft.optimization_threshold` at that width, for relu
the bisection of `validation.relu.plane`. They name the side of a series and scale n/d; curves are solved anew."""


# ------------------------------------------------------------------------------------------------------------ models


class Trainable(Protocol):
    """What the flow needs."""

    def evaluate(self, weights: FloatArray, a: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """Time derivatives (m, d) and (m,) in the time t, before projection, and the train error."""


class CollectiveGaussian(GaussianModel):
    """The Gaussian model with force evaluations that cost n P operations for P components, not n P m.

    The residuals need only the sum over neurons of a_l psi(w_l), and the force on a neuron only sum_i r_i G_i.
    """

    def evaluate(self, weights: FloatArray, a: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """As `Trainable`."""
        dtype = self._tensors.dtype
        for neuron, w in enumerate(weights):
            for part in self._parts:
                monomials(w, part.degree, *self._work, self._row[part.where])
            self._features[neuron] = self._row
        mean = (a / self.width).astype(dtype) @ self._features
        pulled = np.zeros(self.columns, dtype=dtype)
        squares = 0.0
        for start in range(0, self.samples, _BLOCK):
            block = self._tensors[start : start + _BLOCK]
            residuals = self.labels[start : start + _BLOCK] - block @ mean
            squares += float(residuals @ residuals)
            pulled += residuals.astype(dtype) @ block
        rate = 1.0 / (self.width * self.dimension)
        combined = pulled.astype(np.float64)
        d_weights = np.zeros_like(weights)
        for neuron, w in enumerate(weights):
            for part in self._parts:
                pull_back(w, part.degree, *self._work, combined[part.where], d_weights[neuron])
        d_weights *= (rate * a)[:, None]
        return d_weights, rate * (self._features @ pulled).astype(np.float64), 0.5 * squares / self.samples


class TrueNetwork(Network):
    """A true network that gives its train error with the force."""

    def evaluate(self, weights: FloatArray, a: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """As `Trainable`."""
        residuals, d_weights, d_a = self._pass(self.inputs, self.labels, weights, a, True)
        rate = 1.0 / (self.width * self.dimension)
        d_weights *= (rate * a)[:, None]
        return d_weights, rate * d_a, 0.5 * float(residuals @ residuals) / len(residuals)


# -------------------------------------------------------------------------------------------------------- integrator


@dataclass(frozen=True)
class _Scheme:
    """Coefficients of s stages: w0, w1 and b_j, a_j of Sommeijer, Shampine and Verwer."""

    w0: float
    w1: float
    b: FloatArray
    a: FloatArray

    @classmethod
    def of(cls, stages: int) -> _Scheme:
        w0 = 1.0 + 2.0 / 13.0 / stages**2
        t, dt, ddt = np.zeros((3, stages + 1))
        t[0], t[1], dt[1] = 1.0, w0, 1.0
        for j in range(2, stages + 1):
            t[j] = 2.0 * w0 * t[j - 1] - t[j - 2]
            dt[j] = 2.0 * t[j - 1] + 2.0 * w0 * dt[j - 1] - dt[j - 2]
            ddt[j] = 4.0 * dt[j - 1] + 2.0 * w0 * ddt[j - 1] - ddt[j - 2]
        b = np.zeros(stages + 1)
        b[2:] = ddt[2:] / dt[2:] ** 2
        b[:2] = b[2]
        return cls(w0, float(dt[-1] / ddt[-1]), b, 1.0 - b * t)


class ChebyshevFlow:
    """Gradient flow on the product of spheres, by steps whose number of stages follows their length.

    Parameters
    ----------
    model : Trainable
    weights, a : (m, d), (m,)
        Where it starts.
    scale : float
        dt over the time of the flow: 1/alpha for t_mf.
    tolerance : float
        See `TOLERANCE`.

    Attributes
    ----------
    t : float
    weights, a : (m, d), (m,)
    train_error : float
    forces : int
        Evaluations so far.
    """

    def __init__(self, model: Trainable, weights: FloatArray, a: FloatArray, scale: float, tolerance: float) -> None:
        self._model, self._scale, self._tolerance = model, scale, tolerance
        self._shape = weights.shape
        self._unit = np.concatenate([np.full(weights.size, weights.shape[1] ** -0.5), np.ones(len(a))])
        self.t, self.forces = 0.0, 0
        self._y = np.concatenate([weights.ravel(), a])
        self._slope, self.train_error = self._force(self._y)
        self._step = 0.01
        self._mode = self._slope.copy()
        self._rate = self._largest_rate(30)
        self._age = 0

    @property
    def weights(self) -> FloatArray:
        """Present first layer, rows of unit norm."""
        return self._split(self._y)[0]

    @property
    def a(self) -> FloatArray:
        """Present second layer."""
        return self._split(self._y)[1]

    def _split(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        size = self._shape[0] * self._shape[1]
        rows = y[:size].reshape(self._shape)
        return rows / np.linalg.norm(rows, axis=1)[:, None], y[size:]

    def _force(self, y: FloatArray) -> tuple[FloatArray, float]:
        self.forces += 1
        w, a = self._split(y)
        d_w, d_a, error = self._model.evaluate(w, a)
        d_w -= np.einsum("ij,ij->i", w, d_w)[:, None] * w
        return np.concatenate([d_w.ravel(), d_a]) * self._scale, error

    def _largest_rate(self, iterations: int) -> float:
        """Bound on the fastest decay, by power iteration from where the last one ended."""
        found = 0.0
        # Far above the rounding of forces in single precision, far below the scale on which they change.
        small = 1e-3 * float(np.linalg.norm(self._y))
        for _ in range(iterations):
            shift = self._mode * (small / float(np.linalg.norm(self._mode)))
            change = self._force(self._y + shift)[0] - self._slope
            before, found = found, float(np.linalg.norm(change)) / small
            self._mode = -change
            if abs(found - before) < 0.02 * found:
                break
        return 1.25 * found

    def step(self, t_final: float) -> None:
        """One accepted step, not beyond ``t_final``.

        Raises
        ------
        RuntimeError
            If steps become absurdly small: training diverges.
        """
        if self._age >= _REFRESH:
            self._rate, self._age = self._largest_rate(4), 0
        while True:
            longest = 0.65 * (_STAGES**2 - 1) / self._rate
            h = min(self._step, t_final - self.t, _LONGEST * (self.t + 1.0), longest)
            new, slope, train_error, error = self._attempt(h)
            grow = 0.8 * max(error, 1e-9) ** (-1.0 / 3.0)
            if error <= 1.0:
                self._step = h * min(3.0, grow)
                self.t, self._y, self._slope, self.train_error = self.t + h, new, slope, train_error
                self._age += 1
                return
            self._step = h * max(0.2, grow) if math.isfinite(error) else 0.1 * h
            if self._step < 1e-10 * (1.0 + self.t):
                raise RuntimeError(f"training diverged at t = {self.t:.4g}")
            # A rate that has risen since the last estimate looks like a large error.
            self._rate, self._age = max(self._rate, self._largest_rate(6)), 0

    def _attempt(self, h: float) -> tuple[FloatArray, FloatArray, float, float]:
        stages = min(max(2, 1 + math.isqrt(math.floor(1.0 + h * self._rate / 0.65))), _STAGES)
        c = _Scheme.of(stages)
        start, slope = self._y, self._slope
        before, y = start, start + c.b[1] * c.w1 * h * slope
        for j in range(2, stages + 1):
            mu, nu = 2.0 * c.b[j] * c.w0 / c.b[j - 1], -c.b[j] / c.b[j - 2]
            forward = 2.0 * c.b[j] * c.w1 / c.b[j - 1]
            now = (1.0 - mu - nu) * start + mu * y + nu * before + h * forward * self._force(y)[0]
            now -= h * forward * c.a[j - 1] * slope
            before, y = y, now
        new = np.concatenate([part.ravel() for part in self._split(y)])
        end, train_error = self._force(new)
        difference = 0.8 * (start - y) + 0.4 * h * (slope + end)
        error = math.sqrt(float(np.mean((difference / self._unit) ** 2))) / self._tolerance
        return new, end, train_error, error


def _start(series: Series, replica: int) -> tuple[ChebyshevFlow, CollectiveGaussian | TrueNetwork]:
    """A replica at t = 0; it depends on its number and the sizes only."""
    problem, d = series.problem(), series.dimension
    samples = round(series.sample_ratio * d)
    seeds = np.random.SeedSequence([samples, d, series.width], spawn_key=(replica,)).spawn(3)
    data, start, test = (np.random.default_rng(seed) for seed in seeds)
    weights, a = initial_weights(problem.formulation(), d, start)
    model: CollectiveGaussian | TrueNetwork
    if series.model == "gaussian":
        model = CollectiveGaussian(problem, d, samples, data, np.float32)
    else:
        model = TrueNetwork(problem, d, samples, data, test, 0)
    # The unit of time of a model is set by n as it was rounded.
    return ChebyshevFlow(model, weights, a, series.width * d / samples, series.tolerance), model


def train(series: Series, replica: int) -> dict[str, FloatArray]:
    """One replica: draw, train until it has interpolated or until the end, record every step.

    Returns
    -------
    dict of array
        ``t`` in t_mf, ``train_error`` and ``test_error`` over tau^2/2, ``a`` and ``v`` (means over neurons), all (N,);
        ``forces`` and ``wall_time``, scalars.
    """
    began = time.perf_counter()
    flow, model = _start(series, replica)
    noise, target = 0.5 * series.noise_std**2, model.problem.resolved_target()
    rows: list[tuple[float, ...]] = []
    while True:
        w, second = flow.weights, flow.a
        risk = population_risk(model.problem, target, w, second, whole_activation=model.whole_activation)
        rows.append((flow.t, flow.train_error / noise, risk / noise, float(second.mean()), float(w[:, 0].mean())))
        if rows[-1][1] < INTERPOLATED or flow.t >= series.t_final * (1.0 - 1e-12):
            break
        flow.step(series.t_final)
    columns = np.array(rows).T
    curves = dict(zip(("t", "train_error", "test_error", "a", "v"), columns, strict=True))
    return curves | {"forces": np.array(flow.forces), "wall_time": np.array(time.perf_counter() - began)}


def condensation(weights: FloatArray) -> float:
    """Largest eigenvalue of the overlaps between neurons, their mean removed, over the sum of all.

    1/(m - 1) where what neurons have apart from each other is orthogonal, as it is in the theory; of order
    (1 + sqrt(m/d))^2/m for random directions; 1 if all of them lie on one line.

    Parameters
    ----------
    weights : (m, d)
    """
    centred = weights - weights.mean(axis=0)
    values = np.linalg.eigvalsh(centred @ centred.T)
    return float(values[-1] / values.sum())


def condense(series: Series, replica: int) -> dict[str, FloatArray]:
    """The replica of `train` again until its plateau is left: ``t`` and ``condensation``, (N,)."""
    flow, _ = _start(series, replica)
    rows = [(flow.t, condensation(flow.weights))]
    while flow.t < series.t_final * (1.0 - 1e-12) and flow.train_error > LEFT * 0.5 * series.noise_std**2:
        flow.step(series.t_final)
        rows.append((flow.t, condensation(flow.weights)))
    t, share = np.array(rows).T
    return {"t": t, "condensation": share}


def _theory(series: Series) -> dict[str, FloatArray]:
    asked = question(series.activation, series.noise_std, width=series.width)
    _, curves = solve_run(asked, series.sample_ratio, series.t_final, rtol=1e-3)
    return curves


def _work(payload: tuple[str, Series, int]) -> dict[str, FloatArray]:
    what, series, replica = payload
    if what == "theory":
        return _theory(series)
    return condense(series, replica) if what == "condensation" else train(series, replica)


# ----------------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One trajectory, with t in t_mf and errors over tau^2/2; lists of one length."""

    t: list[float]
    train_error: list[float]
    test_error: list[float]
    a: list[float]
    v: list[float]
    replica: int = 0
    wall_time: float = 0.0
    forces: int = 0

    @classmethod
    def of(cls, arrays: Mapping[str, FloatArray], replica: int = 0) -> Curve:
        """From what a task returns."""
        curves = {
            name: [float(f"{x:.6g}") for x in arrays[name]] for name in ("t", "train_error", "test_error", "a", "v")
        }
        return cls(
            **curves,
            replica=replica,
            wall_time=float(arrays.get("wall_time", np.array(0.0))),
            forces=int(arrays.get("forces", 0)),
        )

    def crossing(self, level: float) -> float | None:
        """First time at which the train error is below a level; straight in ln e against ln t between two rows."""
        t, e = np.array(self.t), np.array(self.train_error)
        below = np.flatnonzero(e < level)
        if not len(below):
            return None
        k = int(below[0])
        if k == 0 or t[k - 1] <= 0.0 or e[k] <= 0.0:
            return float(t[k])
        share = math.log(e[k - 1] / level) / math.log(e[k - 1] / e[k])
        return float(t[k - 1] * (t[k] / t[k - 1]) ** share)

    def error_at(self, t: float) -> float:
        """Train error at a time, straight in ln e against ln t; the last one after the end."""
        times, e = np.array(self.t[1:]), np.maximum(self.train_error[1:], 1e-12)
        return float(np.exp(np.interp(math.log(t), np.log(times), np.log(e))))

    def slowest(self) -> tuple[float, float]:
        """Smallest drift -d ln e_tr/d ln t over an e-fold of time, between t = 10 and leaving, and e_tr there.

        The plateau, if there is one: on it the drift is small.
        """
        t, e = np.array(self.t[1:]), np.maximum(self.train_error[1:], 1e-12)
        end = self.crossing(LEFT) or t[-1]
        grid = np.geomspace(min(10.0, 0.3 * end), end, 200)
        log_e = np.interp(np.log(grid), np.log(t), np.log(e))
        width = math.log(grid[-1] / grid[0]) / 199
        lag = min(max(1, round(1.0 / width)), 199)
        drift = -(log_e[lag:] - log_e[:-lag]) / (lag * width)
        k = int(np.argmin(drift))
        return float(drift[k]), float(np.exp(log_e[k + lag // 2]))


@dataclass(frozen=True, kw_only=True)
class FiniteSize:
    """What came out; JSON holds ``{"series": [...], "curves": {key: [curve, ...]}, "theory": {key: curve}, ...}``.

    Attributes
    ----------
    series : list of Series
    curves : dict of list of Curve
        Finished replicas by `Series.key`.
    theory : dict of Curve
        DMFT at the same width, by `Series.theory_key`.
    condensation : dict of list of (list of float, list of float)
        Times and `condensation` of some replicas, by `Series.key`.
    failures : dict of str
    """

    series: list[Series]
    curves: dict[str, list[Curve]]
    theory: dict[str, Curve]
    condensation: dict[str, list[list[list[float]]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def to_json(self, path: str | PathLike[str]) -> None:
        """Write everything and the table, whole or not at all."""
        data = asdict(self) | {
            "table": self.table(),
            "growth": self.growth(),
            "convergence": self.convergence(),
            "condensing": self.condensing(),
        }
        atomic_write(path, (json.dumps(data, allow_nan=False) + "\n").encode())

    @classmethod
    def from_json(cls, path: str | PathLike[str]) -> FiniteSize:
        """Read what `to_json` wrote.

        Raises
        ------
        TypeError, ValueError, OSError
            If it is no such file.
        """
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        keys("result", data, [*(x.name for x in fields(cls)), "table", "growth", "convergence", "condensing"])
        return cls(
            series=[Series(**x) for x in data["series"]],
            curves={key: [Curve(**x) for x in curves] for key, curves in data["curves"].items()},
            theory={key: Curve(**x) for key, x in data["theory"].items()},
            condensation=data["condensation"],
            failures=data["failures"],
        )

    def table(self) -> list[dict[str, Any]]:
        """One flat record a series; times t_mf, errors over tau^2/2, spreads as standard errors.

        ``left`` is the geometric mean of the times of leaving, ``left_error`` the standard error of its logarithm; both
        None unless all replicas left. ``fraction`` has its 95 % interval (Clopper-Pearson) in ``low`` and ``high``.
        """
        from scipy.stats import binomtest

        rows = []
        for series in self.series:
            curves = self.curves.get(series.key, [])
            if not curves:
                continue
            hits = [curve.crossing(INTERPOLATED) for curve in curves]
            done = sum(hit is not None for hit in hits)
            interval = binomtest(done, len(curves)).proportion_ci()
            left, left_error = _log_mean([curve.crossing(LEFT) for curve in curves])
            end, end_error = _log_mean(hits)
            drift, plateau = zip(*(curve.slowest() for curve in curves), strict=True)
            reference = self.theory.get(series.theory_key)
            bounds = THRESHOLDS[series.activation, series.width]
            rows.append(
                {name: getattr(series, name) for name in ("model", "activation", "width", "sample_ratio", "dimension")}
                | {
                    "tolerance": series.tolerance,
                    "over_threshold": series.sample_ratio / math.sqrt(bounds[0] * bounds[1]),
                    "replicas": len(curves),
                    "fraction": done / len(curves),
                    "low": float(interval.low),
                    "high": float(interval.high),
                    "left": left,
                    "left_error": left_error,
                    "interpolation": end,
                    "interpolation_error": end_error,
                    "drift": float(np.mean(drift)),
                    "drift_error": _standard_error(drift),
                    "plateau": float(np.mean(plateau)),
                    "plateau_error": _standard_error(plateau),
                    "train_end": float(np.mean([curve.train_error[-1] for curve in curves])),
                    "test_minimum": float(np.mean([min(curve.test_error) for curve in curves])),
                    "test_end": float(np.mean([curve.test_error[-1] for curve in curves])),
                    "test_end_error": _standard_error([curve.test_error[-1] for curve in curves]),
                    "theory_left": None if reference is None else reference.crossing(LEFT),
                    "theory_interpolation": None if reference is None else reference.crossing(INTERPOLATED),
                    "theory_drift": None if reference is None else reference.slowest()[0],
                    "theory_plateau": None if reference is None else reference.slowest()[1],
                    "forces": float(np.mean([curve.forces for curve in curves])),
                    "wall_time": float(np.mean([curve.wall_time for curve in curves])),
                }
            )
        return rows

    def growth(self) -> list[dict[str, Any]]:
        """Exponent p of t_left ~ d^p for each network and n/d, weighted by the replicas, and its standard error.

        The error is that of the scatter of single replicas about their means, pooled over d.
        """
        groups: dict[tuple[Any, ...], list[tuple[int, list[float]]]] = {}
        for series in self.series:
            crossings = [curve.crossing(LEFT) for curve in self.curves.get(series.key, [])]
            times = [time for time in crossings if time is not None]
            if series.tolerance == _usual(series.activation) and times and len(times) == len(crossings):
                key = (series.model, series.activation, series.width, series.sample_ratio)
                groups.setdefault(key, []).append((series.dimension, times))
        rows = []
        for (model, activation, width, ratio), members in groups.items():
            x = np.concatenate([np.full(len(times), math.log(d)) for d, times in members])
            y = np.log(np.concatenate([times for _, times in members]))
            within = sum(float(np.sum((np.log(times) - np.mean(np.log(times))) ** 2)) for _, times in members)
            freedom = len(y) - len(members)
            if len(members) < 2 or freedom < 1:
                continue
            centred = x - x.mean()
            rows.append(
                {"model": model, "activation": activation, "width": width, "sample_ratio": ratio}
                | {"dimensions": [d for d, _ in members], "exponent": float(centred @ y / (centred @ centred))}
                | {"error": math.sqrt(within / freedom / float(centred @ centred))}
            )
        return rows

    def condensing(self) -> list[dict[str, Any]]:
        """Mean over replicas of `condensation` at `CONDENSATION_TIMES` (None after the plateau was left)."""
        rows = []
        for series in self.series:
            followed = self.condensation.get(series.key, [])
            if not followed:
                continue
            last = min(t[-1] for t, _ in followed)
            means = [
                float(np.mean([np.interp(x, t, share) for t, share in followed])) if x <= last else None
                for x in CONDENSATION_TIMES
            ]
            rows.append(
                {"model": series.model, "activation": series.activation, "width": series.width}
                | {"sample_ratio": series.sample_ratio, "dimension": series.dimension, "replicas": len(followed)}
                | {"t": list(CONDENSATION_TIMES), "condensation": means, "theory": 1.0 / (series.width - 1)}
            )
        return rows

    def convergence(self) -> list[dict[str, Any]]:
        """Replicas that were run at two tolerances: change of ln e_tr at t = `COMPARED` from coarse to fine.

        ``change``, ``error`` and ``largest`` are mean, standard error and largest absolute value over replicas;
        ``spread`` is the standard error of the mean of ln e_tr itself, to which the change is to be compared.
        """
        rows = []
        for fine in self.series:
            usual = _usual(fine.activation)
            if fine.tolerance == usual:
                continue
            coarse = {curve.replica: curve for curve in self.curves.get(fine.at(usual).key, [])}
            pairs = [
                (curve, coarse[curve.replica]) for curve in self.curves.get(fine.key, []) if curve.replica in coarse
            ]
            logs = np.array([[math.log(curve.error_at(COMPARED)) for curve in pair] for pair in pairs])
            if len(logs) > 1:
                change: FloatArray = logs[:, 0] - logs[:, 1]
                rows.append(
                    {"model": fine.model, "activation": fine.activation, "sample_ratio": fine.sample_ratio}
                    | {"dimension": fine.dimension, "tolerance": fine.tolerance, "replicas": len(logs)}
                    | {"change": float(change.mean()), "error": _standard_error(change)}
                    | {"largest": float(np.abs(change).max()), "spread": _standard_error(logs[:, 0])}
                )
        return rows


def _usual(activation: str) -> float:
    return KINKED if activation.startswith("relu") else TOLERANCE


def _standard_error(values: Sequence[float] | FloatArray) -> float | None:
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def _log_mean(times: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Geometric mean, and standard error of its logarithm; None if a time is missing."""
    known = [math.log(x) for x in times if x is not None]
    if len(known) < len(times):
        return None, None
    return math.exp(float(np.mean(known))), _standard_error(known)


def run(
    out: str | PathLike[str],
    series: Sequence[Series] | None = None,
    *,
    workers: int = 1,
    progress: Ticker | None = None,
) -> tuple[FiniteSize, bool]:
    """Do what is not done in the directory yet; True if everything has been done.

    Parameters
    ----------
    out : path
        Keeps finished replicas in ``finite_size.replicas``.
    series : list of Series, optional
        Default `plan`.
    workers : int, optional
        Processes; numbers do not depend on it.
    progress : callable, optional
        Called with (done, total, key).

    Raises
    ------
    OSError
        When the directory cannot be written.
    """
    wanted = plan() if series is None else list(series)
    tasks: dict[str, tuple[str, Series, int]] = {}
    for one in wanted:
        tasks[one.theory_key] = ("theory", one, 0)
    # The cheap ones first, so that an interrupted run has something of every network.
    pairs = [("replica", one, replica) for one in wanted for replica in range(one.replicas)]
    pairs += [("condensation", one, k) for one in condensing(wanted) for k in range(min(CONDENSED, one.replicas))]
    for what, one, replica in sorted(pairs, key=lambda pair: _cost(pair[1]) * (1 + pair[2])):
        name = one.key if what == "replica" else f"condensation-{one.key}"
        tasks[f"{name}-r{replica:03d}"] = (what, one, replica)
    store = Path(out) / "finite_size.replicas"
    store.parent.mkdir(parents=True, exist_ok=True)
    outcome = replicas.run(
        _work,
        [replicas.Task(key, payload) for key, payload in tasks.items()],
        workers=workers,
        store=store,
        resume=store.exists(),
        fingerprint=hashlib.sha256(f"{REVISION} {dmft.__version__} {INTERPOLATED}".encode()).hexdigest(),
        progress=progress,
    )
    curves: dict[str, list[Curve]] = {}
    theory: dict[str, Curve] = {}
    condensed: dict[str, list[list[list[float]]]] = {}
    for key, (what, one, replica) in tasks.items():
        if key in outcome.results:
            if what == "theory":
                theory[key] = Curve.of(outcome.results[key])
            elif what == "condensation":
                arrays = outcome.results[key]
                pair = [[float(f"{x:.6g}") for x in arrays[name]] for name in ("t", "condensation")]
                condensed.setdefault(one.key, []).append(pair)
            else:
                curves.setdefault(one.key, []).append(Curve.of(outcome.results[key], replica))
    found = FiniteSize(
        series=wanted, curves=curves, theory=theory, condensation=condensed, failures=dict(outcome.failures)
    )
    return found, not outcome.interrupted


def _cost(series: Series) -> float:
    """Roughly, the operations of one force."""
    d = series.dimension
    columns = d + math.comb(d + 2, 3) if series.model == "gaussian" else d * series.width
    return series.sample_ratio * d * columns


# -------------------------------------------------------------------------------------------------- table and figure


def markdown(found: FiniteSize) -> str:
    """The table as text, a line a series."""

    def number(x: float | None, error: float | None = None) -> str:
        return "-" if x is None else f"{x:.3g}" if error is None else f"{x:.3g} ± {error:.1g}"

    def span(x: float | None, error: float | None) -> str:
        return "-" if x is None else number(x) if error is None else f"{x:.0f} ± {x * error:.0f}"

    lines = [
        "| model | m | n/d | over ᾱ_c | d | replicas | interpolated | left at | theory | interpolated at | theory "
        "| plateau e_tr | theory | drift | theory | e_ts at the end |",
        "|---|" + 15 * "---|",
    ]
    for row in found.table():
        if row["tolerance"] != _usual(row["activation"]):
            continue
        cells = [
            f"{row['model']} {row['activation']}",
            str(row["width"]),
            number(row["sample_ratio"]),
            f"{row['over_threshold']:.2f}",
            str(row["dimension"]),
            str(row["replicas"]),
            f"{row['fraction']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
            span(row["left"], row["left_error"]),
            number(row["theory_left"]),
            span(row["interpolation"], row["interpolation_error"]),
            number(row["theory_interpolation"]),
            number(row["plateau"], row["plateau_error"]),
            number(row["theory_plateau"]),
            number(row["drift"], row["drift_error"]),
            number(row["theory_drift"]),
            number(row["test_end"], row["test_end_error"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


_NAMES = {
    ("gaussian", "cubic", 32): "Gaussian model, cubic, $m$ = 32",
    ("network", "cubic", 32): "networks, cubic, $m$ = 32",
    ("network", "tanh", 64): "networks, tanh, $m$ = 64",
    ("network", "relu64", 64): "networks, relu, $m$ = 64",
}
_DIMENSIONS = {
    18: "#fde725",
    25: "#9fda3a",
    36: "#4ac16d",
    50: "#1fa187",
    72: "#277f8e",
    100: "#365c8d",
    200: "#46327e",
}


def plot(results: FiniteSize, path: str | PathLike[str] | None = None) -> Figure:
    """Above: train error at the largest n/d of each network, against DMFT. Below: when plateaus are left, against d.

    Lines are medians over replicas, bands hold the middle two thirds; replicas end when they have interpolated. Points
    are geometric means with their standard errors; an arrow says that not all replicas have left by the end. Horizontal
    lines are the theory's times below its threshold, above which it has none.

    Parameters
    ----------
    results : FiniteSize
    path : path, optional
        Where to write it as well.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no finished replica.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from dmft.plots import _STYLE, _write

    done = [x for x in results.series if results.curves.get(x.key) and x.tolerance == _usual(x.activation)]
    families = [name for name in _NAMES if any(x.family == name for x in done)]
    if not families:
        raise ValueError("results must hold a finished replica to be drawn.")
    with rc_context(_STYLE):
        figure = Figure(figsize=(2.7 * len(families) + 0.6, 5.4), layout="constrained")
        panels = figure.subplots(2, len(families), squeeze=False, sharey="row")
        for column, name in enumerate(families):
            mine = [x for x in done if x.family == name]
            _draw_curves(panels[0, column], results, mine)
            _draw_times(panels[1, column], results, mine)
            panels[0, column].set_title(f"({'abcdefgh'[column]}) {_NAMES[name]}", fontsize=8, loc="left")
        panels[0, 0].set_ylabel(r"train error over $\tau^2/2$")
        panels[1, 0].set_ylabel(rf"$t_{{\mathrm{{mf}}}}$ at train error ${LEFT:g}\,\tau^2/2$")
    if path is not None:
        _write(figure, path)
    return figure


def _draw_curves(panel: Axes, results: FiniteSize, mine: Sequence[Series]) -> None:
    top = max(x.sample_ratio for x in mine)
    for series in sorted((x for x in mine if x.sample_ratio == top), key=lambda x: x.dimension):
        t = np.geomspace(2.0, series.t_final, 200)
        errors = np.array([[curve.error_at(x) for x in t] for curve in results.curves[series.key]])
        color = _DIMENSIONS.get(series.dimension, "#888888")
        panel.plot(t, np.median(errors, axis=0), color=color, lw=1.3, label=f"$d$ = {series.dimension}")
        if len(errors) > 2:
            panel.fill_between(t, *np.quantile(errors, [1 / 6, 5 / 6], axis=0), color=color, alpha=0.25, lw=0.0)
    for ratio, style in ((top, "-"), (min(x.sample_ratio for x in mine), ":")):
        one = next(x for x in mine if x.sample_ratio == ratio)
        theory = results.theory.get(one.theory_key)
        if theory is not None:
            e = np.array(theory.train_error[1:])
            shown = e > 0.0
            panel.plot(
                np.array(theory.t[1:])[shown], e[shown], "k", ls=style, lw=1.4, label=rf"DMFT, $\bar\alpha$ = {ratio:g}"
            )
    panel.axhline(LEFT, color="#999999", lw=0.6, zorder=0)
    panel.set(xscale="log", yscale="log", xlim=(2.0, mine[0].t_final), ylim=(INTERPOLATED, 5.0))
    panel.set_xlabel(r"$t_{\mathrm{mf}} = \alpha t$")
    legend = panel.legend(loc="lower left", fontsize=6.5, handlelength=1.4, labelspacing=0.25, borderaxespad=0.1)
    legend.set_title(rf"$\bar\alpha$ = {top:g}")
    legend.get_title().set_fontsize(6.5)


def _draw_times(panel: Axes, results: FiniteSize, mine: Sequence[Series]) -> None:
    from matplotlib.ticker import NullFormatter

    rows = FiniteSize(series=list(mine), curves=results.curves, theory=results.theory).table()
    ends = {x.sample_ratio: x.t_final for x in mine}
    exponents = {x["sample_ratio"]: x for x in FiniteSize(series=list(mine), curves=results.curves, theory={}).growth()}
    below, above = iter(("#0072B2", "#56B4E9")), iter(("#D55E00", "#E69F00"))
    for marker, ratio in zip("osD^", sorted(ends), strict=False):
        color = next(below if ratio < THRESHOLDS[mine[0].activation, mine[0].width][0] else above)
        chosen = sorted((x for x in rows if x["sample_ratio"] == ratio), key=lambda x: x["dimension"])
        label = rf"$\bar\alpha$ = {ratio:g} = {chosen[0]['over_threshold']:.2g} $\bar\alpha_c$"
        known = [x for x in chosen if x["left"] is not None]
        growth = exponents.get(ratio)
        if growth is not None:
            label += rf", power {growth['exponent']:.2f} $\pm$ {growth['error']:.2f}"
        panel.errorbar(
            [x["dimension"] for x in known],
            [x["left"] for x in known],
            yerr=[x["left"] * (x["left_error"] or 0.0) for x in known],
            fmt=marker + "-",
            color=color,
            ms=4.5,
            lw=0.8,
            capsize=2,
            label=label,
        )
        late = [x["dimension"] for x in chosen if x["left"] is None]
        panel.plot(late, [0.85 * ends[ratio]] * len(late), marker=r"$\uparrow$", ls="", ms=9, color=color)
        theory = next((x["theory_left"] for x in chosen if x["theory_left"] is not None), None)
        if theory is not None:
            panel.axhline(theory, color=color, lw=1.0, ls=(0, (4, 2)), zorder=0)
    dimensions = sorted({x.dimension for x in mine})
    panel.set(xscale="log", yscale="log", xlabel="dimension $d$", ylim=(10.0, 6e4))
    panel.set_xticks(dimensions, [str(d) for d in dimensions])
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlim(0.85 * dimensions[0], 1.18 * dimensions[-1])
    panel.legend(loc="upper left", fontsize=6.5, handlelength=1.2, labelspacing=0.25, borderaxespad=0.1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write numbers and figure; 1 if a replica is missing at the end."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.optimization.finite_size", description=(__doc__ or "").split("``")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("out/finite_size"), help="directory (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    options = parser.parse_args(arguments)
    began = time.perf_counter()

    def progress(done: int, total: int, key: str) -> None:
        print(f"{time.perf_counter() - began:7.1f} s  {done}/{total}  {key}", flush=True)

    found, complete = run(options.out, workers=options.workers, progress=progress)
    found.to_json(options.out / "finite_size.json")
    print(markdown(found))
    if any(found.curves.values()):
        plot(found, options.out / "finite_size.png")
    for key, why in found.failures.items():
        print(f"failed: {key}: {why}")
    if not complete:
        print("interrupted; call again to go on.")
    return 0 if complete and not found.failures else 1


if __name__ == "__main__":
    sys.exit(main())
