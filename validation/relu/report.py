"""What a sweep says: a row for each n, thresholds, and what not interpolating is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from validation.relu.sweep import VERDICTS, SweepResult
from validation.relu.threshold import LEVEL, Exponent, Threshold, exponent, thresholds
from validation.relu.training import INTERPOLATED, Verdict

_DRAWS = 2000
_PAIRS = 5  # fewer runs say nothing


@dataclass(frozen=True, kw_only=True)
class Row:
    """One dimension, scale and number of samples; medians over the runs, NaN where there are none.

    Attributes
    ----------
    dimension, scale, samples : what was trained
    interpolated, stationary, unfinished, diverged, missing : numbers of runs
    train_loss, ols_loss, split_loss, noise_loss : medians
    excess : largest |train loss / split loss - 1| over stationary runs
    risk, ols_risk, split_risk, split_distance : medians
    escape_time, patterns : medians
    """

    dimension: int
    scale: float
    samples: int
    interpolated: int
    stationary: int
    unfinished: int
    diverged: int
    missing: int
    train_loss: float
    ols_loss: float
    split_loss: float
    noise_loss: float
    excess: float
    risk: float
    ols_risk: float
    split_risk: float
    split_distance: float
    escape_time: float
    patterns: float


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Risk of interpolating over risk of not interpolating, on the same data.

    Attributes
    ----------
    dimension, samples : int
    small, large : float
        Scales: at the small one these runs are stationary without interpolating, at the large one they interpolate.
    ratio, low, high : float
        Geometric mean of the excess risk at the large scale over that at the small one; bootstrap interval over runs.
    runs : int
    """

    dimension: int
    samples: int
    small: float
    large: float
    ratio: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class ReluReport:
    """Summary of a sweep.

    Attributes
    ----------
    rows : tuple of Row
    thresholds : tuple of Threshold
    dimension_exponent, scale_exponent : Exponent or None
        Of n* as a power of d at the first scale, of lambda in the first dimension.
    gains : tuple of Gain
    """

    rows: tuple[Row, ...]
    thresholds: tuple[Threshold, ...]
    dimension_exponent: Exponent | None
    scale_exponent: Exponent | None
    gains: tuple[Gain, ...]

    @classmethod
    def of(cls, result: SweepResult) -> ReluReport:
        """Summarise a sweep."""
        found = thresholds(result)
        sweep = result.sweep
        first = [t for t in found if t.scale == sweep.scales[0]]
        alone = [t for t in found if t.dimension == sweep.dimensions[0]]
        return cls(
            rows=tuple(
                _row(result, i, j, k)
                for i in range(len(sweep.dimensions))
                for j in range(len(sweep.scales))
                for k in range(len(sweep.samples))
            ),
            thresholds=tuple(found),
            dimension_exponent=exponent(sweep.dimensions, first) if len(first) > 2 else None,
            scale_exponent=exponent(sweep.scales, alone) if len(alone) > 2 else None,
            gains=tuple(_gains(result)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "thresholds": [t.to_dict() for t in self.thresholds],
            "dimension_exponent": None if self.dimension_exponent is None else asdict(self.dimension_exponent),
            "scale_exponent": None if self.scale_exponent is None else asdict(self.scale_exponent),
            "gains": [asdict(gain) for gain in self.gains],
        }

    def __str__(self) -> str:
        """Tables."""
        lines = [
            "   d   lambda      n  interp. station. unfin.  train loss    split LS  noise      risk  split LS        LS"
        ]
        for r in self.rows:
            unfinished = r.unfinished + r.diverged + r.missing
            counts = f"{r.interpolated:8d} {r.stationary:8d} {unfinished:6d}"
            losses = f"{r.train_loss:10.3e}  {r.split_loss:10.3e}  {r.noise_loss:5.3f}"
            risks = f"{r.risk:8.2e}  {r.split_risk:8.2e}  {r.ols_risk:8.2e}"
            lines.append(f"{r.dimension:4d} {r.scale:8.1e} {r.samples:6d} {counts}  {losses}  {risks}")
        lines.append(
            f"medians over runs; interpolated: train loss <= {INTERPOLATED:g} of the mean squared label; stationary:"
        )
        lines.append("at rest above that; the rest is unfinished or missing, and counts on neither side")
        lines.append("")
        for t in self.thresholds:
            where = f"{t.value:.1f} [{t.low:.1f}, {t.high:.1f}]" if math.isfinite(t.value) else t.message
            left = f", {t.unfinished} unfinished runs on either side" if t.unfinished else ""
            left += f" ({t.message})" if t.message and math.isfinite(t.value) else ""
            lines.append(f"threshold n* at d = {t.dimension}, lambda = {t.scale:g}: {where}{left}")
        for name, e in (("d", self.dimension_exponent), ("lambda", self.scale_exponent)):
            if e is not None:
                of = f"{e.points} of {e.points + e.left_out} thresholds"
                lines.append(f"n* ~ {name}^{e.value:.2f} [{e.low:.2f}, {e.high:.2f}], from {of}")
        for g in self.gains:
            lines.append(
                f"risk of interpolating (lambda = {g.large:g}) over that of not ({g.small:g}), d = {g.dimension}, "
                f"n = {g.samples}: {g.ratio:.2f} [{g.low:.2f}, {g.high:.2f}], {g.runs} runs"
            )
        return "\n".join(lines)


def _row(result: SweepResult, i: int, j: int, k: int) -> Row:
    sweep, values = result.sweep, result.values
    codes = values["verdict"][i, j, k]

    def median(name: str) -> float:
        numbers = values[name][i, j, k]
        numbers = numbers[~np.isnan(numbers)]
        return float(np.median(numbers)) if len(numbers) else float("nan")

    def count(which: Verdict) -> int:
        return int((codes == VERDICTS.index(which)).sum())

    known = values["split_loss"][i, j, k] > 1e-12 * values["label_power"][i, j, k]
    rest = (codes == VERDICTS.index(Verdict.STATIONARY)) & known
    ratio = values["train_loss"][i, j, k][rest] / values["split_loss"][i, j, k][rest]
    return Row(
        dimension=sweep.dimensions[i],
        scale=sweep.scales[j],
        samples=sweep.samples[k],
        interpolated=count(Verdict.INTERPOLATED),
        stationary=count(Verdict.STATIONARY),
        unfinished=count(Verdict.UNFINISHED),
        diverged=count(Verdict.DIVERGED),
        missing=int(np.isnan(codes).sum()),
        excess=float(np.abs(ratio - 1.0).max()) if len(ratio) else float("nan"),
        train_loss=median("train_loss"),
        ols_loss=median("ols_loss"),
        split_loss=median("split_loss"),
        noise_loss=median("noise_loss"),
        risk=median("risk"),
        ols_risk=median("ols_risk"),
        split_risk=median("split_risk"),
        split_distance=median("split_distance"),
        escape_time=median("escape_time"),
        patterns=median("patterns"),
    )


def _gains(result: SweepResult) -> Sequence[Gain]:
    sweep = result.sweep
    if len(sweep.scales) < 2:
        return []
    gains = []
    rng = np.random.default_rng(0)
    codes, risk = result.values["verdict"], result.values["risk"]
    for i, d in enumerate(sweep.dimensions):
        for k, n in enumerate(sweep.samples):
            paired = (codes[i, 0, k] == VERDICTS.index(Verdict.STATIONARY)) & (
                codes[i, -1, k] == VERDICTS.index(Verdict.INTERPOLATED)
            )
            ratios = np.log(risk[i, -1, k][paired] / risk[i, 0, k][paired])
            if len(ratios) < _PAIRS or not np.isfinite(ratios).all():
                continue
            draws = ratios[rng.integers(0, len(ratios), (_DRAWS, len(ratios)))].mean(axis=1)
            tail = 0.5 * (1.0 - LEVEL)
            low, high = np.quantile(draws, [tail, 1.0 - tail])
            gains.append(
                Gain(
                    dimension=d,
                    samples=n,
                    small=sweep.scales[0],
                    large=sweep.scales[-1],
                    ratio=float(np.exp(ratios.mean())),
                    low=float(np.exp(low)),
                    high=float(np.exp(high)),
                    runs=len(ratios),
                )
            )
    return gains
