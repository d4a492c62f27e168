"""What ``dmft relu`` does with a configuration: the sweep, its report and figure, and the plane of the theory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from dmft.hdf5 import atomic_write
from validation.relu import files, plane, plots, sweep
from validation.relu.config import ReluConfig
from validation.relu.report import ReluReport
from validation.relu.sweep import SweepResult

Ticker = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class ReluStudy:
    """What came out.

    Attributes
    ----------
    result : SweepResult
    report : ReluReport
    plane : plane.PlaneResult or None
    files : tuple of Path
        What was written.
    """

    result: SweepResult
    report: ReluReport
    plane: plane.PlaneResult | None
    files: tuple[Path, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each run that failed."""
        own = tuple(f"{key}: {why}" for key, why in self.result.failures.items())
        return own + (self.plane.failures if self.plane is not None else ())

    def to_dict(self) -> dict[str, Any]:
        """Plain data without the curves."""
        data = {"sweep": self.result.sweep.to_dict(), **self.report.to_dict(), "missing": self.result.missing}
        if self.plane is not None:
            data["plane"] = self.plane.records()
        return data

    def __str__(self) -> str:
        """Tables."""
        text = str(self.report)
        if self.plane is not None:
            text += "\n\n" + plane_table(self.plane)
        return text


def targets(config: ReluConfig, out: Path) -> list[Path]:
    """Files that a configuration writes."""
    names = [f"{config.name}.h5", f"{config.name}.json", f"{config.name}.png"]
    if config.plane is not None:
        names += [f"{config.name}-plane.json", f"{config.name}-plane.png"]
    return [out / name for name in names]


def run(
    config: ReluConfig,
    out: str | PathLike[str],
    *,
    workers: int = 1,
    dask: str | None = None,
    progress: Ticker | None = None,
    stop: Callable[[], bool] | None = None,
) -> ReluStudy:
    """Run a configuration into a directory; what is finished there is taken over.

    Raises
    ------
    KeyboardInterrupt
        When interrupted in the plane; an interrupted sweep returns what it has.
    TypeError, ValueError, OSError
        As `sweep.run` and `plane.run`.
    """
    directory = Path(out)
    store = directory / f"{config.name}-{sweep.fingerprint(config.sweep)[:8]}.replicas"
    result = sweep.run(config.sweep, workers=workers, dask=dask, store=store, progress=progress, stop=stop)
    report = ReluReport.of(result)
    written = targets(replace(config, plane=None), directory)
    files.save(result, written[0], config.text)
    plots.plot(result, report.thresholds, written[2])
    found = None
    if config.plane is not None and not result.interrupted:
        found = plane.run(config.plane, directory, workers=workers, progress=progress)
        json_, picture = targets(config, directory)[3:]
        found.to_json(json_)
        plane.plot(found, picture)
        written += [json_, picture]
    study = ReluStudy(result=result, report=report, plane=found, files=tuple(written))
    text = json.dumps(_finite(study.to_dict()), indent=1, allow_nan=False)
    atomic_write(written[1], (text + "\n").encode())
    return study


def plane_table(found: plane.PlaneResult) -> str:
    """Regimes by n/d: theory at each truncation, and networks."""
    settings = found.plane
    lines = [f"plane: relu of unit norm, tau = {settings.noise_std:g}, to t_mf = alpha t = {settings.t_final:g}"]
    columns: list[tuple[str, dict[str, Any]]] = []
    for width in (settings.width, None):
        for degree in settings.degrees:
            name = "inf" if width is None else str(width)
            columns.append((f"m={name} k={degree}", {"kind": "theory", "width": width, "degree": degree}))
    columns.append((f"networks d={settings.dimension}", {"kind": "network"}))
    lines.append("   n/d  " + "  ".join(f"{name:>15}" for name, _ in columns))
    for ratio in settings.sample_ratios:
        row = []
        for _, what in columns:
            runs = found.select(sample_ratio=ratio, **what)
            names = sorted({run.regime.name for run in runs})
            row.append("/".join(names) if names else "-")
        lines.append(f"{ratio:6g}  " + "  ".join(f"{cell:>15}" for cell in row))
    for t in found.thresholds:
        which = "infinite width" if t.width is None else f"m = {t.width}"
        bracket = "not bracketed" if t.value is None else f"between {t.low:.1f} and {t.high:.1f}"
        lines.append(f"critical n/d by t_mf = {t.t_final:g}, degree {t.degree}, {which}: {bracket}")
    return "\n".join(lines)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they are null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
