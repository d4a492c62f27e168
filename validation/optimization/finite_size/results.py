"""What came out: curves of replicas and of the theory, and the numbers that are read off them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmft._validate import keys
from dmft.files import atomic_write
from validation.optimization.finite_size.plan import (
    COMPARED,
    CONDENSATION_TIMES,
    INTERPOLATED,
    LEFT,
    THRESHOLDS,
    Series,
    usual_tolerance,
)

FloatArray = NDArray[np.float64]


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
            if series.tolerance == usual_tolerance(series.activation) and times and len(times) == len(crossings):
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
            usual = usual_tolerance(fine.activation)
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


def _standard_error(values: Sequence[float] | FloatArray) -> float | None:
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def _log_mean(times: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Geometric mean, and standard error of its logarithm; None if a time is missing."""
    known = [math.log(x) for x in times if x is not None]
    if len(known) < len(times):
        return None, None
    return math.exp(float(np.mean(known))), _standard_error(known)
