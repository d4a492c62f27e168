"""The optimization threshold n*: from where on a network no longer interpolates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from validation.relu.sweep import VERDICTS, SweepResult
from validation.relu.training import Verdict

FloatArray = NDArray[np.float64]

DRAWS = 1000
LEVEL = 0.95
FEW = 10
"""Runs below which a bootstrap interval is much too short."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Threshold:
    """n* of one dimension and scale.

    Attributes
    ----------
    dimension : int
    scale : float
    value : float
        Where half of the runs interpolate: the crossing of 1/2 of the decreasing fit of their fraction, linear in
        ln n. NaN if the fractions do not cross it, then ``message`` says on which side it lies.
    low, high : float
        Bootstrap interval over runs, `LEVEL`. Unfinished runs count as not interpolating for ``low`` and as
        interpolating for ``high``. Never shorter than the cell of n that holds the value. 0 or infinite where the
        resampled fractions do not cross 1/2.
    unfinished : int
        Number of unfinished, diverged or missing runs.
    samples : (N,) float
    fractions : (N,) float
        Of interpolating runs among those that are finished; NaN where none is.
    draws : (B,) float
        Bootstrap values of n*, with unfinished runs once on either side; 0 or infinite as above.
    message : str
    """

    dimension: int
    scale: float
    value: float
    low: float
    high: float
    unfinished: int
    samples: FloatArray
    fractions: FloatArray
    draws: FloatArray
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data without the draws."""
        names = ("dimension", "scale", "value", "low", "high", "unfinished", "message")
        return {name: getattr(self, name) for name in names} | {
            "samples": self.samples.tolist(),
            "fractions": self.fractions.tolist(),
        }


def thresholds(result: SweepResult, *, seed: int = 0) -> list[Threshold]:
    """n* for each dimension and scale of a sweep."""
    found = []
    for i, d in enumerate(result.sweep.dimensions):
        for j, scale in enumerate(result.sweep.scales):
            codes = result.values["verdict"][i, j]
            rng = np.random.default_rng([seed, i, j])
            found.append(_threshold(d, scale, np.array(result.sweep.samples, dtype=np.float64), codes, rng))
    return found


def crossing(samples: FloatArray, fractions: FloatArray, weights: FloatArray) -> float:
    """Where a decreasing fit of the fractions crosses 1/2, linear in ln n; 0 if it starts below, inf if it ends above.

    Fractions without weight are left out.
    """
    kept = weights > 0.0
    if not kept.any():
        return float("nan")
    x = np.log(samples[kept])
    p = np.asarray(isotonic_regression(fractions[kept], weights=weights[kept], increasing=False).x)
    if p[0] < 0.5:
        return 0.0
    if p[-1] > 0.5:
        return float("inf")
    # A stretch at 1/2 is crossed in its middle.
    above, below = np.flatnonzero(p >= 0.5)[-1], np.flatnonzero(p <= 0.5)[0]
    if p[below] == 0.5:
        return float(np.exp(0.5 * (x[below] + x[above])))
    i, k = int(above), int(above) + 1
    return float(np.exp(x[i] + (p[i] - 0.5) / (p[i] - p[k]) * (x[k] - x[i])))


def _threshold(
    dimension: int, scale: float, samples: FloatArray, codes: FloatArray, rng: np.random.Generator
) -> Threshold:
    interpolated = codes == VERDICTS.index(Verdict.INTERPOLATED)
    stationary = codes == VERDICTS.index(Verdict.STATIONARY)
    known = interpolated | stationary
    weights = known.sum(axis=1).astype(np.float64)
    fractions = np.divide(interpolated.sum(axis=1), weights, out=np.full(len(weights), np.nan), where=weights > 0)
    value = crossing(samples, fractions, weights)
    seeds = codes.shape[1]
    full = np.full(len(samples), float(seeds))
    chosen = rng.integers(0, seeds, (DRAWS, seeds))  # whole runs: those of one run at several n share their data
    # Unfinished runs on either side; where there are none, the two sides are the same.
    sides = (interpolated, ~stationary) if not known.all() else (interpolated,)
    draws = np.array([[crossing(samples, hit[:, one].mean(axis=1), full) for one in chosen] for hit in sides])
    draws = np.broadcast_to(draws, (2, DRAWS))
    tail = 0.5 * (1.0 - LEVEL)
    low = float(np.quantile(draws[0], tail, method="lower"))
    high = float(np.quantile(draws[-1], 1.0 - tail, method="higher"))
    message = ""
    if 0.0 < value < np.inf:  # no interval is shorter than the grid can tell
        below, above = samples[samples <= value * (1.0 + 1e-9)], samples[samples >= value * (1.0 - 1e-9)]
        low, high = min(low, float(below[-1])), max(high, float(above[0]))
        message = f"{seeds} runs only: the interval is too short" if seeds < FEW else ""
    elif value == 0.0:
        message = f"below {samples[0]:g}: most runs do not interpolate there already"
    elif np.isinf(value):
        message = f"above {samples[-1]:g}: most runs interpolate there still"
    elif np.isnan(value):
        message = "no finished runs"
    return Threshold(
        dimension=dimension,
        scale=scale,
        value=value if 0.0 < value < np.inf else float("nan"),
        low=low,
        high=high,
        unfinished=int((~known).sum()),
        samples=samples,
        fractions=fractions,
        draws=draws.ravel().copy(),
        message=message,
    )


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """Exponent of a power law with its bootstrap interval.

    Attributes
    ----------
    value, low, high : float
    points, left_out : int
        Thresholds that it rests on, and those that are known on one side only.
    """

    value: float
    low: float
    high: float
    points: int
    left_out: int


def exponent(variable: Sequence[float], found: Sequence[Threshold]) -> Exponent | None:
    """Exponent of n* as a power of ``variable``, from three thresholds on; None if fewer are known.

    Least squares in the logarithms with weights from the bootstrap spreads; the interval from draws of all thresholds.
    """
    rows = [(x, t) for x, t in zip(variable, found, strict=True) if np.isfinite(t.value)]
    if len(rows) < 3:
        return None
    x = np.log([x for x, _ in rows])
    logs = []
    for _, t in rows:  # a draw that crosses nowhere is as far as the samples go
        logs.append(np.log(np.clip(t.draws, t.samples[0], t.samples[-1])))
    spread = np.array([max(float(np.std(row)), 1e-3) for row in logs])
    design = np.stack([x, np.ones_like(x)], axis=1) / spread[:, None]
    solve = np.linalg.pinv(design)[0] / spread
    slopes = solve @ np.array(logs)
    tail = 0.5 * (1.0 - LEVEL)
    value = float(solve @ np.log([t.value for _, t in rows]))
    low, high = np.quantile(slopes, [tail, 1.0 - tail])
    return Exponent(value=value, low=float(low), high=float(high), points=len(rows), left_out=len(found) - len(rows))
