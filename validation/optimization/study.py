"""The study behind docs/optimization.md: what is run, and the numbers that are read off."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dmft
from dmft.activations import Activation
from dmft.limits.base import LimitError
from dmft.limits.plateau import Plateau, plateau, predicted_threshold, threshold_plateau
from dmft.targets import Target
from validation import replicas
from validation.optimization.runs import MAX_ROWS, Question, Run, solve_run
from validation.optimization.threshold import MORE_ROWS, OptimizationThreshold, optimization_threshold
from validation.thresholds.search import SearchError

FloatArray = NDArray[np.float64]
Ticker = Callable[[int, int, str], None]

NOISES = (0.3, 0.6, 1.0, 2.0, 5.0)
STARTS = (0.1, 0.3, 1.5, 2.0, 3.0)
WIDTHS = (256, 512, 2048, 16384, 1 << 20)
DEGREES = (8, 16, 32)
RELU_THEORY = (8, 16, 32, 64, 128, 256, 512)
"""Truncations of relu for which the threshold is predicted."""
THIRDS, POWER = (0.1, 0.14, 0.2, 0.25), 1.5
"""Targets phihat = 0.9 z + c z^3 with |phi|^2, for the cubic activation: c = 1/6 would be its own."""
PLANE_NOISES = (0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 5.0)
PLANE_RATIOS = tuple(np.geomspace(20.0, 5e4, 12).tolist())
LEVELS = (1.003, 1.01, 1.03, 1.1, 1.3, 1.7, 2.5, 5.0, 10.0, 30.0, 100.0, 1000.0)
"""n/d over the predicted threshold where plateaus are compared with the theory."""
ALPHA, ALPHA_NOISE = 0.3, 0.6
"""[MU]'s cubic index model, where m grows at fixed alpha."""
GROWING = (16, 32, 64, 128, 192, 256, 320, 384, 448, 512, 544, 560, 576, 592, 608, 704, 1024, 2048, 1 << 14, 1 << 20)
EXPANDED = (1 << 10, 1 << 12, 1 << 14, 1 << 16)
"""Widths whose distance to the mean field is compared with the expansion in 1/m."""
CONTINUOUS = (("relu64", 1.0, (2500.0, 2834.0)), ("relu64", 0.1, (49.5, 52.0)))
"""Below the threshold of continuous aging, and between it and what one ratio would give."""
LONG, SHORT = 1e4, 1e3
"""Lengths of runs in glass times."""


def activation(name: str) -> Activation:
    """By the names of the study: cubic, quad, tanh, erf, relu8, relu16, ..."""
    if name in ("cubic", "quad"):
        return Activation.from_covariance([0.0, 0.9, 0.0, 1.0 / 6.0] if name == "cubic" else [0.0, 0.9, 0.5])
    if name.startswith("relu"):
        with warnings.catch_warnings():  # of infinite h''(1): degrees are compared here
            warnings.simplefilter("ignore", UserWarning)
            return Activation.named("relu", degree=int(name[4:]))
    return Activation.named(name)


def question(
    name: str, noise_std: float, a0: float = 1.0, width: int | None = None, third: float | None = None
) -> Question:
    """A network that learns its own activation, or phihat = 0.9 z + ``third`` z^3."""
    sigma = activation(name)
    target = Target.same_as(sigma)
    if third is not None:
        target = Target.from_overlap([0.0, 0.9, 0.0, third], power=POWER)
    return Question(activation=sigma, target=target, noise_std=float(noise_std), a0=float(a0), width=width)


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A threshold of the study."""

    activation: str
    noise_std: float
    a0: float = 1.0
    width: int | None = None
    third: float | None = None

    @property
    def key(self) -> str:
        """Name of the task."""
        target = "" if self.third is None else f"-third{self.third:g}"
        return f"threshold-{self.activation}-tau{self.noise_std:g}-a{self.a0:g}-m{self.width or 'inf'}{target}"


@dataclass(frozen=True, kw_only=True)
class Solved:
    """A single run of the study; ``length`` is in glass times, or, if ``until`` is given, t_mf."""

    group: str
    activation: str
    noise_std: float
    sample_ratio: float
    width: int | None = None
    length: float = LONG
    until: float | None = None
    rtol: float = 1e-3

    @property
    def key(self) -> str:
        """Name of the task."""
        width = self.width or "inf"
        return f"{self.group}-{self.activation}-tau{self.noise_std:g}-x{self.sample_ratio:.8g}-m{width}-r{self.rtol:g}"


def searches() -> list[Searched]:
    """Thresholds that are looked for."""
    found = [Searched(activation=name, noise_std=tau) for name in ("cubic", "quad") for tau in NOISES]
    found += [Searched(activation="cubic", noise_std=1.0, a0=a0) for a0 in STARTS]
    found += [Searched(activation="cubic", noise_std=ALPHA_NOISE, width=width) for width in WIDTHS]
    names = ["tanh", "erf", *(f"relu{degree}" for degree in DEGREES)]
    found += [Searched(activation=name, noise_std=1.0) for name in names]
    return found + [Searched(activation="cubic", noise_std=1.0, third=third) for third in THIRDS]


def runs() -> list[Solved]:
    """Single runs."""
    found = []
    for name, tau in (("cubic", 1.0), ("quad", 1.0), ("cubic", 0.3)):
        start = threshold_plateau(activation(name), Target.same_as(activation(name)), tau).sample_ratio
        for level in LEVELS:
            found.append(Solved(group="plateau", activation=name, noise_std=tau, sample_ratio=level * start))
    for tau in PLANE_NOISES:
        for ratio in PLANE_RATIOS:
            found.append(Solved(group="plane", activation="cubic", noise_std=tau, sample_ratio=ratio, length=SHORT))
    for width in GROWING:
        found.append(
            Solved(group="growing", activation="cubic", noise_std=ALPHA_NOISE, sample_ratio=ALPHA * width, width=width)
        )
    for name, tau, ratios in CONTINUOUS:
        for ratio in ratios:
            found.append(Solved(group="continuous", activation=name, noise_std=tau, sample_ratio=ratio, length=1e5))
    for width in EXPANDED:
        found.append(
            Solved(
                group="expanded",
                activation="cubic",
                noise_std=ALPHA_NOISE,
                sample_ratio=ALPHA * width,
                width=width,
                until=100.0 * math.sqrt(ALPHA * width),
                rtol=1e-6,
            )
        )
    return found


def _work(payload: Searched | Solved) -> dict[str, Any]:
    asked = question(payload.activation, payload.noise_std, getattr(payload, "a0", 1.0), payload.width,
                     getattr(payload, "third", None))  # fmt: skip
    if isinstance(payload, Searched):
        try:
            found = optimization_threshold(
                asked.activation,
                asked.target,
                asked.noise_std,
                asked.a0,
                width=asked.width,
                both_engines=True,
                workers=1,
            )
        except SearchError as error:
            raise RuntimeError(f"{payload.key}: {error}") from None
        return {"record": _packed(found.to_dict())}
    until = payload.until or payload.length * asked.glass_time(payload.sample_ratio)
    rows = 2000 if payload.until is not None else MORE_ROWS if payload.group == "continuous" else MAX_ROWS
    run, curves = solve_run(asked, payload.sample_ratio, until, rtol=payload.rtol, max_rows=rows)
    return {"record": _packed(asdict(run)), **curves}


def _packed(record: Mapping[str, Any]) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(record).encode(), dtype=np.uint8)


@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """A single run with its curves."""

    what: Solved
    run: Run
    curves: Mapping[str, FloatArray]


@dataclass(frozen=True, eq=False, kw_only=True)
class Study:
    """Everything that came out.

    Attributes
    ----------
    thresholds : list of (Searched, OptimizationThreshold)
    runs : list of Found
    failures : dict
        A sentence for each task that failed.
    interrupted : bool
    """

    thresholds: list[tuple[Searched, OptimizationThreshold]]
    runs: list[Found]
    failures: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False

    def select(self, **what: Any) -> list[tuple[Searched, OptimizationThreshold]]:
        """Thresholds with these attributes."""
        return [pair for pair in self.thresholds if all(getattr(pair[0], k) == x for k, x in what.items())]

    def group(self, group: str, **what: Any) -> list[Found]:
        """Runs of a group with these attributes."""
        return [
            found
            for found in self.runs
            if found.what.group == group and all(getattr(found.what, k) == x for k, x in what.items())
        ]

    def summary(self) -> dict[str, Any]:
        """Plain data: every number that the page quotes."""
        return {
            "thresholds": [_threshold_row(*pair) for pair in self.thresholds],
            "two_terms": [_two_terms_row(*pair) for pair in self.select(a0=1.0, width=None, third=None)],
            "plateaus": [row for found in self.group("plateau") if (row := _plateau_row(found)) is not None],
            "plateau_laws": [_plateau_laws(self, name, tau) for name, tau in plateau_sets(self)],
            "plane": [_plane_row(found) for found in self.group("plane")],
            "relu": [_relu_row(degree) for degree in RELU_THEORY],
            "continuous": [_continuous_row(found) for found in self.group("continuous")],
            "growing": [_growing_row(found) for found in self.group("growing")],
            "failures": dict(self.failures),
        }


def run(out: str | PathLike[str], *, workers: int = 1, progress: Ticker | None = None) -> Study:
    """Do whatever is not done in the directory yet.

    Raises
    ------
    OSError
        When the directory cannot be written.
    """
    directory = Path(out)
    directory.mkdir(parents=True, exist_ok=True)
    everything: list[Searched | Solved] = [*searches(), *runs()]
    wanted = {what.key: what for what in everything}
    store = directory / "runs.replicas"
    outcome = replicas.run(
        _work,
        [replicas.Task(key, what) for key, what in wanted.items()],
        workers=workers,
        store=store,
        resume=store.exists(),
        fingerprint=f"optimization {dmft.__version__}",
        progress=progress,
    )
    thresholds, found = [], []
    for key, arrays in outcome.results.items():
        what = wanted[key]
        record = json.loads(arrays["record"].tobytes())
        if isinstance(what, Searched):
            thresholds.append((what, OptimizationThreshold.from_dict(record)))
        else:
            curves = {name: array for name, array in arrays.items() if name != "record"}
            found.append(Found(what=what, run=Run(**record), curves=curves))
    return Study(thresholds=thresholds, runs=found, failures=dict(outcome.failures), interrupted=outcome.interrupted)


# ------------------------------------------------------------------------------------------------- what is read off


def aging_exponent(name: str) -> float:
    """Exponent b of the approach t^(-b) of the T modes to marginality: 1 for p-spin models of p = 2, else 2/3."""
    return 1.0 if not np.any(activation(name).covariance[3:]) else 2.0 / 3.0


def two_terms(ratios: FloatArray, times: FloatArray, b: float) -> tuple[float, float, float, float]:
    """abar_c, A, B and largest relative deviation of the law t = A d^(-1/b) + B d^(-(1 + 1/b)/3), d = abar_c/abar - 1.

    Close to the fold the plateau survives while aging, which has k t^(-b) to go, holds it up: until k t^(-b) = d. Then
    it is left as dy/du = -(y^2 + b d u/t), y the distance from the fold, in a time u ~ (t/d)^(1/3).

    Parameters
    ----------
    ratios, times : (N,)
        n/d in falling order, and times.
    b : float
        See `aging_exponent`.
    """

    def fit(gap: float) -> tuple[FloatArray, FloatArray]:
        d = ratios[0] * (1.0 + gap) / ratios - 1.0
        design = np.stack([d ** (-1.0 / b), d ** (-(1.0 + 1.0 / b) / 3.0)], axis=1) / times[:, None]
        solution = np.linalg.lstsq(design, np.ones(len(times)), rcond=None)[0]
        return np.asarray(solution, dtype=np.float64), np.asarray(1.0 - design @ solution, dtype=np.float64)

    from scipy.optimize import minimize_scalar

    def cost(log_gap: float) -> float:
        return float(np.sum(fit(math.exp(log_gap))[1] ** 2))

    grid = np.linspace(math.log(1e-5), math.log(3e-2), 80)
    best = int(np.clip(np.argmin([cost(x) for x in grid]), 1, len(grid) - 2))
    bounds = (grid[best - 1], grid[best + 1])
    gap = math.exp(minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-8}).x)
    (first, second), residual = fit(gap)
    return float(ratios[0] * (1.0 + gap)), float(first), float(second), float(np.abs(residual).max())


def _nearest(found: OptimizationThreshold, count: int = 6) -> tuple[FloatArray, FloatArray]:
    coarse = max(run.rtol for run in found.evidence)
    left = [run for run in found.evidence if run.leaves and run.unlearning is not None and run.rtol == coarse]
    unique = {run.sample_ratio: run for run in left}
    left = sorted(unique.values(), key=lambda run: -run.sample_ratio)[:count]
    return np.array([run.sample_ratio for run in left]), np.array([run.unlearning for run in left], dtype=float)


def _threshold_row(what: Searched, found: OptimizationThreshold) -> dict[str, Any]:
    return asdict(what) | {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "predicted": found.predicted,
        "deviation": None if found.predicted is None else found.value / found.predicted - 1.0,
        "over_noise": found.value / what.noise_std**2,
        "alpha": None if what.width is None else found.value / what.width,
        "divergence": None if found.divergence is None else asdict(found.divergence),
        "exponent": None if found.exponent is None else asdict(found.exponent),
        "numerical_error": found.numerical_error,
        "train_end": found.train_end,
        "checks": [asdict(check) for check in found.checks],
        "evidence_low": found.evidence_low,
        "evidence_high": found.evidence_high,
        "runs": len(found.evidence),
        "wall_time": found.wall_time,
        "notes": list(found.notes),
    }


def _two_terms_row(what: Searched, found: OptimizationThreshold) -> dict[str, Any]:
    ratios, times = _nearest(found)
    b = aging_exponent(what.activation)
    value, first, second, deviation = two_terms(ratios, times, b)
    return asdict(what) | {"b": b, "value": value, "A": first, "B": second, "deviation": deviation}


def theory_of(what: Solved) -> Plateau | None:
    """The plateau that the theory has for a run, or None below its threshold."""
    sigma = activation(what.activation)
    try:
        return plateau(sigma, Target.same_as(sigma), what.noise_std, what.sample_ratio)
    except (ValueError, LimitError):
        return None


def _plateau_row(found: Found) -> dict[str, Any] | None:
    theory = theory_of(found.what)
    if theory is None or found.run.regime != "plateau":
        return None
    noise = 0.5 * found.what.noise_std**2
    run = found.run
    return {
        "activation": found.what.activation,
        "noise_std": found.what.noise_std,
        "sample_ratio": found.what.sample_ratio,
        "a": run.a_end,
        "a_theory": theory.a,
        "v": run.v_end,
        "v_limit": run.v_limit,
        "v_theory": theory.v,
        "nu": run.nu_end,
        "nu_theory": theory.nu,
        "train": run.train_end,
        "train_theory": theory.train_error / noise,
        "test": run.test_end,
        "test_theory": theory.test_error / noise,
    }


def plateau_sets(study: Study) -> list[tuple[str, float]]:
    """(activation, tau) of the plateau runs."""
    return sorted({(found.what.activation, found.what.noise_std) for found in study.group("plateau")})


def _plateau_laws(study: Study, name: str, tau: float) -> dict[str, Any]:
    """Powers of n/d in a - 1, 1 - v, nu and the two errors, between the two largest n/d."""
    found = sorted(study.group("plateau", activation=name, noise_std=tau), key=lambda f: f.what.sample_ratio)[-2:]
    x = np.log([f.what.sample_ratio for f in found])
    values = {
        "a - 1": [f.run.a_end - 1.0 for f in found],
        "1 - v": [1.0 - f.run.v_end for f in found],
        "nu": [f.run.nu_end for f in found],
        "1 - train": [1.0 - f.run.train_end for f in found],
        "test - 1": [f.run.test_end - 1.0 for f in found],
    }
    powers = {key: float(np.diff(np.log(value))[0] / np.diff(x)[0]) for key, value in values.items()}
    return {"activation": name, "noise_std": tau, "powers": powers}


def _plane_row(found: Found) -> dict[str, Any]:
    run = found.run
    return {
        "noise_std": found.what.noise_std,
        "sample_ratio": found.what.sample_ratio,
        "regime": run.regime,
        "test_minimum": run.test_minimum,
        "stopping_time": run.stopping_time,
        "test_end": run.test_end,
    }


def _growing_row(found: Found) -> dict[str, Any]:
    run, width = found.run, found.what.width
    assert width is not None
    alpha = found.what.sample_ratio / width
    return {
        "width": width,
        "sample_ratio": found.what.sample_ratio,
        "regime": run.regime,
        "time_over_m": None if run.interpolation is None else run.interpolation / alpha / width,
        "t_end_over_m": run.t_end / alpha / width,
        "v_end": run.v_end,
    }


def _relu_row(degree: int) -> dict[str, Any]:
    """What the theory says of relu, truncated, at tau = 1."""
    sigma = activation(f"relu{degree}")
    target = Target.same_as(sigma)
    fold = threshold_plateau(sigma, target, 1.0)
    return {
        "degree": degree,
        "predicted": fold.sample_ratio,
        "single_ratio": predicted_threshold(sigma, target, 1.0, single_ratio=True),
        "curvature": float(sigma.d2h(1.0)),
        "v": fold.v,
    }


def _continuous_row(found: Found) -> dict[str, Any]:
    theory = theory_of(found.what)
    return asdict(found.what) | {
        "t_end": found.run.t_end,
        "regime": found.run.regime,
        "v": found.run.v_end,
        "drift": found.run.drift,
        "v_theory": None if theory is None else theory.v,
    }


def expansion(study: Study) -> tuple[FloatArray, FloatArray, dict[int, tuple[FloatArray, FloatArray]]]:
    """First correction m (a - a_mf) of the mean field: times t, a_1(t), and for each width t and what it has."""
    width = max(EXPANDED)
    problem = question("cubic", ALPHA_NOISE, width=width).problem(ALPHA * width)
    assert isinstance(problem, dmft.SymmetricProblem)
    found = sorted(study.group("expanded"), key=lambda f: f.what.width or 0)
    end = max((f.run.t_end / ALPHA for f in found), default=100.0)
    t = np.geomspace(1.0, end, 120)
    mean_field = dmft.solve(dmft.limits.of(problem, "mean_field"), end, rtol=1e-8)
    first = dmft.solve(dmft.limits.of(problem, "mean_field", order=1), end, rtol=1e-8).at(t)
    growth = width * (np.asarray(first.a) - np.asarray(mean_field.at(t).a))
    widths = {}
    for f in found:
        times, a = f.curves["t"] / ALPHA, f.curves["a"]
        inside = times >= t[0]
        times, a = np.minimum(times[inside], end), a[inside]
        widths[int(f.what.width or 0)] = (times, a - np.asarray(mean_field.at(times).a))
    return t, growth, widths
