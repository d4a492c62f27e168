"""One figure that tells the story of a run, of a simulation, or of both."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmft.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dmft.simulation import Simulation

FloatArray = NDArray[np.float64]

# Okabe and Ito's colours: distinct in print and to colour-blind readers.
_BLUE, _ORANGE, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#7B3294", "#666666"
_STYLE: Any = {
    "font.size": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.6,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "legend.frameon": False,
    "mathtext.fontset": "dejavusans",
    "savefig.dpi": 220,
}
_CURVE_LIMIT = 8
"""Individual curves drawn in one panel; with more groups the range and the average are shown."""


_MARKERS = ("o", "s", "^", "D", "v", "P")
"""One for each simulation in a figure."""


def plot(solution: Solution, path: str | PathLike[str] | None = None, simulations: Sequence[Simulation] = ()) -> Figure:
    """Draw errors, second layer and overlap (or the energy of a p-spin model) against logarithmic time.

    Parameters
    ----------
    solution : Solution
        What to draw.
    path : path, optional
        Where to write it as well; the suffix gives the format. Written whole or not at all.
    simulations : sequence of Simulation, optional
        Drawn as means with bars of two standard errors, in the colours of the curves.

    Returns
    -------
    matplotlib.figure.Figure
        A figure of its own, not registered with pyplot: drawing thousands leaks nothing.

    Raises
    ------
    ValueError
        For a suffix that matplotlib does not know.
    OSError
        When the place cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        if solution.formulation.residual_sector:
            figure = Figure(figsize=(5.0, 5.6), layout="constrained")
            panels = figure.subplots(3, 1, sharex=True, height_ratios=[1.5, 1, 1])
            _errors(panels[0], solution)
            second = "a" if solution.formulation.infinite_width else "gamma"
            label = r"$a$" if second == "a" else r"$a/\sqrt{m}$"
            _neurons(panels[1], solution, solution._network[second][:, :, None], label, _GREEN)
            _neurons(panels[2], solution, solution._network["v"], r"overlap $v$", _PURPLE)
            interior = solution.minimum().found_interior
            for panel in panels[1:]:
                if interior:
                    panel.axvline(solution.minimum().time, color=_GREY, lw=0.7, ls=(0, (4, 3)), zorder=0)
            for marker, simulation in zip(itertools.cycle(_MARKERS), simulations, strict=False):
                _points(panels[0], simulation, {"test_error": _ORANGE, "train_error": _BLUE}, marker)
                _points(panels[1], simulation, {"gamma": _GREEN}, marker)
                _points(panels[2], simulation, {"v": _PURPLE}, marker)
            if simulations:
                _marker_legend(panels[1], simulations)
        else:
            figure = Figure(figsize=(5.0, 3.2), layout="constrained")
            panels = [figure.subplots()]
            _energy(panels[0], solution)
        _time_axis(panels[-1], solution)
        panels[0].set_title(_title(solution), fontsize=9, loc="left", color=_GREY)
        figure.align_ylabels()
        if path is not None:
            _write(figure, path)
    return figure


def plot_simulation(simulation: Simulation, path: str | PathLike[str] | None = None) -> Figure:
    """Draw errors, second layer and overlap of a simulation: every replica as a thin line, the mean as points.

    Parameters
    ----------
    simulation : Simulation
        What to draw.
    path : path, optional
        Where to write it as well; errors as `plot`.

    Returns
    -------
    matplotlib.figure.Figure
        A figure of its own, not registered with pyplot.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(5.0, 5.6), layout="constrained")
        panels = figure.subplots(3, 1, sharex=True, height_ratios=[1.5, 1, 1])
        rows: list[tuple[dict[str, str], str]] = [
            ({"test_error": _ORANGE, "train_error": _BLUE}, "error"),
            ({"gamma": _GREEN}, r"$a/\sqrt{m}$"),
            ({"v": _PURPLE}, r"overlap $v$"),
        ]
        for panel, (colors, label) in zip(panels, rows, strict=True):
            for name, color in colors.items():
                values = simulation.sample(name).values if name in simulation.curve_names else None
                if values is not None:
                    lines = np.moveaxis(values, 1, 0).reshape(len(simulation.t), -1)
                    panel.plot(simulation.t, lines, color=color, lw=0.4, alpha=0.35, zorder=1)
            _points(panel, simulation, colors, "o", named=len(colors) > 1)
            panel.set_ylabel(label)
        panels[0].set_ylim(bottom=0.0)
        panels[0].legend(loc="best")
        positive = simulation.t[simulation.t > 0.0]
        if len(positive):
            panels[-1].set_xscale("log")
            panels[-1].set_xlim(0.8 * positive[0], 1.25 * positive[-1])
        panels[-1].set_xlabel(r"time $t$")
        panels[0].set_title(simulation.describe(), fontsize=7, loc="left", color=_GREY)
        figure.align_ylabels()
        if path is not None:
            _write(figure, path)
    return figure


def _points(panel: Axes, simulation: Simulation, colors: Mapping[str, str], marker: str, named: bool = False) -> None:
    """Means of some curves with bars of two standard errors."""
    later = simulation.t > 0.0
    for name, color in colors.items():
        if name not in simulation.curve_names:
            continue
        sample = simulation.sample(name)
        means = sample.mean.reshape(len(simulation.t), -1)[later]
        bars = 2.0 * sample.sem.reshape(len(simulation.t), -1)[later]
        for column in range(means.shape[1]):
            label = name.replace("_", " ") if named and column == 0 else None
            look: Any = {"ms": 3.2, "mfc": "white", "mec": color, "mew": 0.8, "elinewidth": 0.8, "ecolor": color}
            panel.errorbar(
                simulation.t[later], means[:, column], bars[:, column], fmt=marker, label=label, zorder=3, **look
            )


def _marker_legend(panel: Axes, simulations: Sequence[Simulation]) -> None:
    """Say which marker is which simulation."""
    from matplotlib.lines import Line2D

    handles = []
    for marker, simulation in zip(itertools.cycle(_MARKERS), simulations, strict=False):
        name = "Gaussian model" if simulation.settings.model == "gaussian" else "network"
        label = f"{name}, d = {simulation.settings.dimension}, {simulation.replicas} runs"
        handles.append(Line2D([], [], ls="", marker=marker, ms=3.5, mfc="white", mec=_GREY, label=label))
    panel.legend(handles=handles, loc="best")


def _write(figure: Figure, path: str | PathLike[str]) -> None:
    from dmft.files import atomic_path

    known = figure.canvas.get_supported_filetypes()
    suffix = Path(path).suffix.lstrip(".").lower()
    if suffix not in known:
        raise ValueError(f"path = {str(path)!r} has no picture suffix; allowed are {', '.join(sorted(known))}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=suffix)


def _title(solution: Solution) -> str:
    formulation = solution.formulation
    if not formulation.residual_sector:
        return "gradient flow of the spherical p-spin model"
    groups = f", {formulation.groups} groups" if formulation.groups > 1 else ""
    noise = getattr(solution.problem, "noise_std", 0.0)
    if formulation.infinite_width:
        return rf"$m = \infty${groups}, $n/d$ = {formulation.alpha * formulation.width:g}, $\tau$ = {noise:g}"
    limit = f"{solution.method.removeprefix('limit:').replace('_', ' ')} limit, " if "limit:" in solution.method else ""
    return rf"{limit}$m$ = {formulation.width}{groups}, $\alpha = n/(md)$ = {formulation.alpha:g}, $\tau$ = {noise:g}"


def _errors(panel: Axes, solution: Solution) -> None:
    t, train, test = solution.t, solution.train_error, solution.test_error
    panel.plot(t, test, color=_ORANGE, label="test error")
    panel.plot(t, train, color=_BLUE, label="train error")
    noise = getattr(solution.problem, "noise_std", 0.0)
    if noise > 0.0:  # the Bayes error: no network tests better
        panel.axhline(0.5 * noise**2, color=_GREY, lw=0.7, ls=":", zorder=0, label=r"noise level $\tau^2/2$")
    panel.set_ylabel("error")
    # A train error that falls to zero is the story; the decades of its tail are not, so the axis is linear. The room
    # above the curves is for the label of the minimum.
    top = 1.22 * float(max(test.max(), train.max()))
    panel.set_ylim(0.0, top)
    minimum = solution.minimum()
    if minimum.found_interior:
        panel.axvline(minimum.time, color=_GREY, lw=0.7, ls=(0, (4, 3)), zorder=0)
        panel.plot([minimum.time], [minimum.value], "o", ms=5, mfc="white", mec=_ORANGE, mew=1.5, zorder=4)
        late = minimum.time > np.sqrt(_first_time(solution) * t[-1])
        panel.annotate(
            f"smallest test error {minimum.value:.4g} at $t$ = {minimum.time:.4g}",
            (minimum.time, top),
            xytext=(-5 if late else 5, -1),
            textcoords="offset points",
            ha="right" if late else "left",
            va="top",
            fontsize=8,
            color=_GREY,
        )
    panel.legend(loc="best")


def _neurons(panel: Axes, solution: Solution, curves: FloatArray, label: str, color: str) -> None:
    """Draw every curve of (N, G, k), or range and average where there are many."""
    t, flat = solution.t, curves.reshape(len(curves), -1)
    count = flat.shape[1]
    if count <= _CURVE_LIMIT:
        several = [name for name, size in (("group", curves.shape[1]), ("direction", curves.shape[2])) if size > 1]
        for column, (group, direction) in enumerate(np.ndindex(curves.shape[1:])):
            index = [str(i) for i, size in zip((group, direction), curves.shape[1:], strict=True) if size > 1]
            panel.plot(t, flat[:, column], color=color, alpha=1.0 - 0.75 * column / count, label=", ".join(index))
        if several:
            panel.legend(title=", ".join(several), title_fontsize=8, loc="best", ncols=1 + (count > 3))
    else:
        share = np.repeat(solution.formulation.sizes / solution.formulation.width, curves.shape[2]) / curves.shape[2]
        panel.fill_between(t, flat.min(axis=1), flat.max(axis=1), color=color, alpha=0.2, lw=0)
        panel.plot(t, flat @ share, color=color)
    panel.set_ylabel(label)
    low, high = float(min(flat.min(), 0.0)), float(max(flat.max(), 0.0))
    span = max(high - low, 1e-12)
    panel.set_ylim(low - (0.06 * span if low < 0.0 else 0.0), high + 0.08 * span)


def _energy(panel: Axes, solution: Solution) -> None:
    panel.plot(solution.t, solution.energy, color=_BLUE)
    panel.set_ylabel("energy per dimension")
    # Gradient flow lowers the energy, so the upper right corner is always free.
    text = f"$E$ = {float(solution.energy[-1]):.6g} at $t$ = {float(solution.t[-1]):.4g}"
    panel.text(1.0, 1.0, text, transform=panel.transAxes, ha="right", va="top", fontsize=8, color=_GREY)


def _first_time(solution: Solution) -> float:
    """Decade in which the curves first move by a thousandth of their range: earlier times are an empty picture."""
    curves = [solution.train_error, solution.test_error] if solution.formulation.residual_sector else [solution.energy]
    first = len(solution.t) - 1
    for curve in curves:
        moved = np.abs(curve - curve[0]) > 1e-3 * float(np.ptp(curve))
        if moved.any():
            first = min(first, int(np.argmax(moved)))
    time = float(solution.t[max(first, 1)]) if len(solution.t) > 1 else 1.0
    return float(10.0 ** np.floor(np.log10(time)))


def _time_axis(panel: Axes, solution: Solution) -> None:
    panel.set_xlabel(r"time $\alpha t$" if solution.formulation.infinite_width else r"time $t$")
    last = float(solution.t[-1])
    if last > 0.0:
        panel.set_xscale("log")
        panel.set_xlim(_first_time(solution), max(last, 1.01 * _first_time(solution)))
