"""What the engines cost: wall time against the last time, the width and the tolerance, with fitted exponents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import linregress

import solvers
from dmft.problems import PSpinProblem
from dmft.problems.base import Problem
from validation.engines.runs import Run, run_all
from validation.engines.settings import network

RTOL = 1e-5
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


@dataclass(frozen=True, eq=False)
class Point:
    """One run of a series: the place on the axis and what is solved there."""

    x: float
    problem: Problem
    t_final: float
    rtol: float = RTOL


@dataclass(frozen=True, eq=False)
class Series:
    """Runs in which one thing varies, for each engine that solves them."""

    against: str
    what: str
    points: tuple[Point, ...]


@dataclass(frozen=True, eq=False)
class Line:
    """Measured times of one engine on one series.

    Attributes
    ----------
    series : Series
    method : str
    x, seconds : (N,) float
        Finished runs only.
    load : float
        Largest load of the machine when a run began: beyond the number of cores the times mean little.
    exponent, error : float
        Power of x by least squares of logarithms, over the half of the range where runs are longest, and its standard
        error; NaN with fewer than three runs there.
    """

    series: Series
    method: str
    x: np.ndarray[Any, np.dtype[np.float64]]
    seconds: np.ndarray[Any, np.dtype[np.float64]]
    load: float
    exponent: float
    error: float


def _index(width: int) -> Problem:
    return network(width, "cubic", 0.3, 0.6, 1.0).problem


def _glass() -> Problem:
    return PSpinProblem(covariance=[0, 0, 0, 1.0])


SERIES: tuple[Series, ...] = (
    Series("T", "p-spin q³", tuple(Point(10.0**k, _glass(), 10.0**k) for k in range(1, 6))),
    Series("T", "network, m = 1024", tuple(Point(10.0**k, _index(1024), 10.0**k) for k in range(1, 6))),
    Series(
        "m", "network, to t = 20 m", tuple(Point(m, _index(m), 20.0 * m) for m in (2, 8, 64, 512, 4096, 2**15, 2**20))
    ),
    Series(
        "rtol", "network, m = 16, to t = 320", tuple(Point(10.0**-k, _index(16), 320.0, 10.0**-k) for k in range(2, 8))
    ),
    Series("rtol", "p-spin q³, to t = 10³", tuple(Point(10.0**-k, _glass(), 1e3, 10.0**-k) for k in range(2, 8))),
)


def methods(problem: Problem) -> tuple[str, ...]:
    """The standard method of each engine; of the main one at order 4 as well while there is no other."""
    names = tuple(engine.methods[0] for engine in solvers.ENGINES if engine.supports(problem))
    return names if len(names) > 1 else (*names, "bdf4")


def measure(directory: Path, tell: Callable[[str], None] = print, series: Sequence[Series] = SERIES) -> list[Line]:
    """Time every run that is not in the directory yet, one after the other: times are of a process on its own."""
    chosen = [(one, method) for one in series for method in methods(one.points[0].problem)]
    runs = {
        (one, method): [
            Run(
                f"{one.what}, {one.against} = {point.x:.6g}, {method}", point.problem, point.t_final, point.rtol, method
            )
            for point in one.points
        ]
        for one, method in chosen
    }
    found = {
        record["name"]: record for record in run_all([r for group in runs.values() for r in group], directory, 1, tell)
    }
    lines = []
    for (one, method), group in runs.items():
        kept = [
            (point.x, found[run.name]["wall_time"])
            for point, run in zip(one.points, group, strict=True)
            if found[run.name]["status"] == "done"
        ]
        x, seconds = np.array(kept, dtype=np.float64).reshape(-1, 2).T
        load = max(found[run.name]["load"] for run in group)
        lines.append(Line(one, method, x, seconds, load, *exponent(x, seconds)))
    return lines


def exponent(x: np.ndarray[Any, Any], seconds: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Power law of the last half of the points, which are in the order of growing cost, and its standard error."""
    start = len(x) // 2
    if len(x) - start < 3:
        return float("nan"), float("nan")
    fit = linregress(np.log(x[start:]), np.log(seconds[start:]))
    return float(fit.slope), float(fit.stderr)


def markdown(lines: Sequence[Line]) -> str:
    """One row for each line: the exponent, and the times at both ends."""
    rows = ["| against | what | engine | exponent | from | to |", "|---|---|---|---:|---:|---:|"]
    for line in lines:
        ends = [f"{line.seconds[k]:.2g} s at {line.x[k]:.3g}" if len(line.x) else "–" for k in (0, -1)]
        cells = [line.series.against, line.series.what, line.method, f"{line.exponent:.2f} ± {line.error:.2f}", *ends]
        rows.append(f"| {' | '.join(cells)} |")
    load = max(line.load for line in lines)
    return "\n".join([*rows, "", f"Load of the machine while this was measured: up to {load:.1f}."])


def plot(lines: Sequence[Line], path: Path) -> None:
    """A panel for each axis, log-log, the exponents in the legends."""
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(line.series.against for line in lines))
    picture = Figure(figsize=(4.2 * len(axes), 3.6), layout="constrained")
    names = {"T": "last time $T$", "m": "width $m$", "rtol": "rtol"}
    for panel, against in zip(picture.subplots(1, len(axes), squeeze=False, sharey=True)[0], axes, strict=True):
        shown = [line for line in lines if line.series.against == against]
        whats = list(dict.fromkeys(line.series.what for line in shown))
        engines = list(dict.fromkeys(line.method for line in lines))
        for line in shown:
            label = f"{line.series.what}, {line.method}: {against}$^{{{line.exponent:.2f} \\pm {line.error:.2f}}}$"
            style = {
                "color": COLORS[engines.index(line.method) % len(COLORS)],
                "marker": "os^v"[whats.index(line.series.what)],
            }
            panel.loglog(line.x, line.seconds, label=label, ms=4, lw=1.3, **style)
        if against == "rtol":
            panel.invert_xaxis()
        panel.set_xlabel(names[against])
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=6.5, frameon=False)
    picture.axes[0].set_ylabel("wall time (s)")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=150)
