"""One figure of a sweep: losses, risks, alignment and the optimization threshold ([BF], theory section 9)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from dmft._validate import integer, shown
from dmft.plots import _BLUE, _GREEN, _GREY, _ORANGE, _PURPLE, _STYLE, _write
from validation.relu.sweep import VERDICTS, SweepResult
from validation.relu.threshold import LEVEL, Threshold, exponent
from validation.relu.training import INTERPOLATED, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

_MAP, _MAP_END = "viridis", 0.88
"""Colours ordered in print too; the yellow end is invisible on white."""
_SIZE = (3.15, 2.55)
_COLUMNS = {1: 1, 2: 2, 4: 2}
"""Columns for a number of panels; 3 otherwise."""
_LINE = 0.165
"""Height of a line of the legend, inches."""
_CURVE_FLOOR = 1e-9
_BAND = 0.18
"""Height of the band of interpolating runs, as a share of the rest of the axis."""
_SPREAD = 0.22
"""Runs of one n are spread over this share of the smallest ratio of neighbouring n to both sides."""
_ARROW = 1.3
"""Length of the arrow of a one-sided threshold, as a factor."""
_RASTER = 400
"""Thin lines from which on they are drawn as an image in vector formats."""
_VERDICTS: dict[Verdict, tuple[str, dict[str, Any]]] = {
    Verdict.INTERPOLATED: ("interpolated", {"marker": "o", "mfc": _BLUE, "mec": "none", "alpha": 0.45}),
    Verdict.STATIONARY: ("stationary", {"marker": "o", "mfc": _ORANGE, "mec": "none", "alpha": 0.45}),
    Verdict.UNFINISHED: ("unfinished", {"marker": "o", "mfc": "none", "mec": _GREY, "alpha": 0.8, "mew": 0.7}),
    Verdict.DIVERGED: ("diverged", {"marker": "x", "mec": _GREY, "alpha": 0.8, "mew": 0.8}),
}
_OLS: dict[str, Any] = {"color": _GREEN, "ls": (0, (4, 2)), "lw": 1.2}
_SPLIT: dict[str, Any] = {"color": _PURPLE, "ls": (0, (5, 1.5, 1, 1.5)), "lw": 1.2}
_LAW: dict[str, Any] = {"color": _GREY, "ls": (0, (1, 1.2)), "lw": 1.1}
_NOISE: dict[str, Any] = {"color": _GREY, "ls": "-", "lw": 0.7}
_MEDIAN: dict[str, Any] = {"color": "black", "ls": "-", "lw": 1.2, "marker": "o", "ms": 2.2}


@dataclass(frozen=True, eq=False)
class _Cell:
    """What one dimension and scale of a sweep has: ``values`` (N, S), ``curves`` (N, S, T) by name."""

    samples: FloatArray
    dimension: int
    noise: float | None  # sigma, where it is that of a law
    linear: bool  # whether the teacher is, so that split least squares has its theory
    times: FloatArray
    values: dict[str, FloatArray]
    curves: dict[str, FloatArray]
    threshold: Threshold | None
    used: dict[str, Any]  # legend entries of what has been drawn

    def runs(self, verdict: Verdict) -> NDArray[np.bool_]:
        """Runs with a verdict, (N, S)."""
        return np.asarray(self.values["verdict"] == VERDICTS.index(verdict))


def plot(
    result: SweepResult, found: Sequence[Threshold], path: str | PathLike[str] | None = None, *, dpi: int = 200
) -> Figure:
    """Draw a sweep.

    For the first dimension and scale, against n: train loss, excess risk, fraction of interpolating runs (error bars:
    Wilson, 68 %); against time t: alignment sign(a) cos(w, D_n(w)) at two n (median and 10-90 % of the runs) and
    train loss over its first value at all n. Against d and lambda, where there are several: n*, with the power law
    of `threshold.exponent`; of a single n the fraction of interpolating runs. Panels without data are left out.

    Train losses of interpolating runs, or below 1e-8, are in a band of their own at the bottom. References are
    least squares, least squares on both half-spaces of the teacher, and sigma^2, sigma^2 (1 - 2d/n) (train) and
    2 d sigma^2/n (excess risk), theory section 9. A run that has ended keeps its last value in medians over time.

    Parameters
    ----------
    result : SweepResult
    found : sequence of Threshold
        n* of its dimensions and scales, as `threshold.thresholds` gives them; those that are missing are not drawn.
    path : path, optional
        Where to write it as well; the suffix gives the format. Written whole or not at all.
    dpi : int
        Resolution of the file.

    Returns
    -------
    matplotlib.figure.Figure
        A figure of its own, not registered with pyplot.

    Raises
    ------
    TypeError
        If ``result`` is no SweepResult.
    ValueError
        If no run has a result, a threshold belongs to another sweep, ``dpi`` is not positive, or the suffix of the
        path is not one of a picture.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not isinstance(result, SweepResult):
        raise TypeError(f"result must be a SweepResult, not {shown(result)}.")
    dpi = integer("dpi", dpi, low=1)
    for t in found:
        if t.dimension not in result.sweep.dimensions or t.scale not in result.sweep.scales:
            raise ValueError(f"found must be thresholds of the sweep, not of d = {t.dimension}, lambda = {t.scale:g}.")
    panels = _panels(result, found)
    if not panels:
        raise ValueError("result must have a run that has ended; all are missing.")
    columns = _COLUMNS.get(len(panels), 3)
    rows = -(-len(panels) // columns)
    with rc_context(_STYLE | {"savefig.dpi": dpi, "lines.linewidth": 1.2}):
        free = columns * rows - len(panels)
        figure = Figure(figsize=(_SIZE[0] * columns, _SIZE[1] * rows + 0.25), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05)  # type: ignore[union-attr, call-arg]
        grid = np.asarray(figure.subplots(rows, columns, squeeze=False), dtype=object).ravel()
        used: dict[str, Any] = {}
        for number, (axis, (title, draw)) in enumerate(zip(grid, panels, strict=False)):
            letter = f"({chr(ord('a') + number)}) " if len(panels) > 1 else ""
            axis.set_title(letter + title, fontsize=8.5, loc="left")
            used |= draw(axis)
        for axis in grid[len(panels) :]:
            axis.set_axis_off()
        options: dict[str, Any] = {"handles": list(used.values()), "handlelength": 2.2, "borderpad": 0.0}
        if used and free:
            ncols = 2 if free > 1 and len(used) > 12 else 1
            size = 7.5 if len(used) <= 15 * ncols else 6.8
            place = grid[len(panels)]
            legend = place.legend(
                loc="upper left", bbox_to_anchor=(0.0, 1.0), ncols=ncols, fontsize=size, labelspacing=0.35, **options
            )
            legend.set_in_layout(False)  # it has the room of a panel, and may not ask for more
        elif used:
            figure.set_figheight(figure.get_figheight() + 0.1 + _LINE * -(-len(used) // columns))
            figure.legend(loc="outside lower center", ncols=min(len(used), columns), fontsize=7.5, **options)
        figure.suptitle(_description(result), fontsize=8.5, color=_GREY)
        if path is not None:
            _write(figure, path)
    return figure


def _panels(result: SweepResult, found: Sequence[Threshold]) -> list[tuple[str, Callable[[Axes], dict[str, Any]]]]:
    """Title and drawing of each panel that has data."""
    cell = _cell(result, found)
    several = len(cell.samples) > 1
    ended = np.isfinite(cell.values["verdict"])
    panels: list[tuple[str, Callable[[Axes], dict[str, Any]]]] = []
    if np.isfinite(cell.values["train_loss"]).any():
        panels.append(("train loss", partial(_draw, _train, cell)))
    if _positive(cell.values["risk"]).any():
        panels.append(("excess risk", partial(_draw, _risk, cell)))
    if any(np.isfinite(cell.curves[name]).any() for name in ("alignment_median", "alignment_min")):
        panels.append(("alignment of the neurons", partial(_draw, _alignment, cell)))
    if np.isfinite(cell.curves["train_loss"]).any():
        panels.append(("course of the train loss", partial(_draw, _courses, cell)))
    if ended.any():
        words = _threshold_words(cell.threshold) if several else ""
        panels.append((words or "interpolating runs", partial(_draw, _fractions, cell)))
    for name in ("dimension", "scale"):
        values: tuple[Any, ...] = result.sweep.dimensions if name == "dimension" else result.sweep.scales
        if len(values) < 2:
            continue
        if several and any(_known(t) for t in found):
            panels.append((f"threshold against {_words(name)}", partial(_against, result, found, name)))
        elif not several and np.isfinite(result.values["verdict"]).any():
            panels.append((f"interpolating runs against {_words(name)}", partial(_share, result, name)))
    return panels


def _draw(draw: Callable[[Axes, _Cell], None], cell: _Cell, axis: Axes) -> dict[str, Any]:
    draw(axis, cell)
    return cell.used


def _cell(result: SweepResult, found: Sequence[Threshold]) -> _Cell:
    sweep = result.sweep
    law = not sweep.source.fixed
    own = [t for t in found if t.dimension == sweep.dimensions[0] and t.scale == sweep.scales[0]]
    return _Cell(
        samples=np.array(sweep.samples, dtype=np.float64),
        dimension=sweep.dimensions[0],
        noise=sweep.source.noise_std if law and sweep.source.noise_std > 0.0 else None,
        linear=law and sweep.source.teacher_neurons == 0,
        times=sweep.times,
        values={name: value[0, 0] for name, value in result.values.items()},
        curves={name: value[0, 0] for name, value in result.curves.items()},
        threshold=own[0] if own and _known(own[0]) else None,
        used={},
    )


def _train(axis: Axes, cell: _Cell) -> None:
    n, loss = cell.samples, cell.values["train_loss"]
    lines = {name: _median(cell.values[f"{name}_loss"]) for name in ("ols", "split")}
    median = _median(loss)
    inside = (loss < INTERPOLATED) | cell.runs(Verdict.INTERPOLATED)
    drawn = np.concatenate([loss[~inside], *lines.values(), [] if cell.noise is None else [cell.noise**2]])
    drawn = drawn[np.isfinite(drawn) & (drawn >= INTERPOLATED)]
    low = 10.0 ** math.floor(math.log10(drawn.min())) if len(drawn) else 0.1
    top = max(2.0 * float(drawn.max()) if len(drawn) else 1.0, 3.0 * low)
    middle, bottom = (low * (top / low) ** -(share * _BAND) for share in (0.5, 1.0))
    banded = bool(inside.any() or any((line < INTERPOLATED).any() for line in lines.values()))

    def put(y: FloatArray, below: NDArray[np.bool_] | None = None) -> FloatArray:
        return np.where((y < INTERPOLATED) if below is None else below, middle, y)

    _n_axis(axis, n)
    axis.set_yscale("log")
    axis.set_ylim(bottom if banded else low, top)
    if banded:
        axis.axhspan(bottom, low, color="#EEEEEE", lw=0, zorder=-2)
    _markers(axis, cell, put(loss, inside))
    _line(axis, cell, n, put(median), "median of the runs", _MEDIAN | {"zorder": 3})
    _references(axis, cell, {name: put(y) for name, y in lines.items()})
    if cell.noise is not None:
        power = cell.noise**2
        _line(axis, cell, np.array(axis.get_xlim()), np.full(2, power), r"noise level $\sigma^2$", _NOISE)
        if cell.linear:
            x = np.geomspace(*axis.get_xlim(), 400)
            y = power * (1.0 - 2.0 * cell.dimension / x)
            _line(axis, cell, x, np.where(y >= low, y, np.nan), r"$\sigma^2 (1 - 2d/n)$", _LAW)
    _mark_threshold(axis, cell)
    _decades(axis, low, top, (middle, rf"$<\!10^{{{round(math.log10(INTERPOLATED))}}}$") if banded else None)
    axis.set_ylabel("train loss (mean squared)")


def _risk(axis: Axes, cell: _Cell) -> None:
    n, risk = cell.samples, np.where(_positive(cell.values["risk"]), cell.values["risk"], np.nan)
    _n_axis(axis, n)
    axis.set_yscale("log")
    if cell.noise is not None and cell.linear:
        x = np.array(axis.get_xlim())
        _line(axis, cell, x, 2.0 * cell.dimension * cell.noise**2 / x, r"$2 d \sigma^2/n$", _LAW | {"color": "black"})
    references = {name: _median(cell.values[f"{name}_risk"]) for name in ("ols", "split")}
    _references(axis, cell, {name: np.where(_positive(y), y, np.nan) for name, y in references.items()})
    _markers(axis, cell, risk)
    _line(axis, cell, n, _median(risk), "median of the runs", _MEDIAN | {"zorder": 3})
    _mark_threshold(axis, cell)
    low, top = axis.get_ylim()
    _decades(axis, low, top)
    axis.set_ylabel(r"excess risk $\mathrm{E}\,(f - f_*)^2$")


def _alignment(axis: Axes, cell: _Cell) -> None:
    from matplotlib.lines import Line2D

    kept = [
        k
        for k in range(len(cell.samples))
        if any(np.isfinite(cell.curves[name][k]).any() for name in ("alignment_median", "alignment_min"))
    ]
    chosen = list(dict.fromkeys([kept[-1], kept[(len(kept) - 1) // 2]]))[::-1]
    low = 1.0
    for k in chosen:
        color = _color(k, len(cell.samples))
        for name, dash in (("alignment_median", "-"), ("alignment_min", (0, (3, 1.5)))):
            down, middle, up = _quantiles(_filled(cell.curves[name][k]), (0.1, 0.5, 0.9))
            if not np.isfinite(middle).any():
                continue
            axis.fill_between(cell.times, down, up, color=color, alpha=0.15, lw=0)
            axis.plot(cell.times, middle, color=color, ls=dash)
            low = min(low, float(np.nanmin(down)))
        escape = cell.values["escape_time"][k]
        escape = escape[~np.isnan(escape)]
        # Runs that never escape count: their time is infinite.
        middle_time = float(np.quantile(escape, 0.5, method="lower")) if len(escape) else math.inf
        if 0.0 < middle_time < math.inf:
            axis.axvline(middle_time, color=color, lw=0.9, ls=":", zorder=1)
    axis.set_ylim(low - 0.06 * (1.0 - low) - 0.01, 1.0 + 0.05 * (1.0 - low) + 0.01)
    _time_axis(axis, cell)
    axis.set_ylabel(r"$\mathrm{sign}(a)\,\cos(w, D_n(w))$")
    handles = [
        Line2D([], [], color=_color(k, len(cell.samples)), lw=2.0, label=f"$n$ = {cell.samples[k]:g}") for k in chosen
    ]
    axis.legend(handles=handles, loc="best", handlelength=1.2, borderpad=0.1)
    for label, style in (
        ("alignment of the median neuron", {"ls": "-"}),
        ("alignment of the least aligned one", {"ls": (0, (3, 1.5))}),
        ("median escape time", {"ls": ":", "lw": 0.9}),
    ):
        cell.used[label] = Line2D([], [], **({"color": _color(1, 3), "lw": 1.2} | style), label=label)


def _courses(axis: Axes, cell: _Cell) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    count, thin = len(cell.samples), cell.curves["train_loss"].shape[0] * cell.curves["train_loss"].shape[1]
    top = 1.0
    for k in range(count):
        curves = cell.curves["train_loss"][k]
        curves = curves[np.isfinite(curves).any(axis=1)]
        first = curves[np.arange(len(curves)), np.isfinite(curves).argmax(axis=1)] if len(curves) else np.empty(0)
        curves = curves[first > 0.0] / first[first > 0.0, None]
        if not len(curves):
            continue
        color = _color(k, count)
        # Just below the floor, so that what falls under it leaves the panel.
        curves = np.where(curves < _CURVE_FLOOR, 0.5 * _CURVE_FLOOR, curves)
        for curve in curves:
            axis.plot(cell.times, curve, color=color, lw=0.45, alpha=0.35, zorder=1, rasterized=thin > _RASTER)
        axis.plot(cell.times, _median(_filled(curves).T), color=color, lw=1.8, zorder=2)
        finite = curves[np.isfinite(curves)]
        top = max(top, float(finite.max()))
    axis.set_yscale("log")
    axis.set_ylim(_CURVE_FLOOR, 2.0 * top)
    _time_axis(axis, cell)
    axis.set_ylabel("train loss / first value")
    if count > 1:
        colors = ListedColormap([_color(k, count) for k in range(count)])
        bar = axis.figure.colorbar(
            ScalarMappable(BoundaryNorm(np.arange(count + 1) - 0.5, count), colors), ax=axis, pad=0.02, aspect=25
        )
        step = -(-count // 10)
        bar.set_ticks(list(range(0, count, step)), labels=[f"{n:g}" for n in cell.samples[::step]])
        bar.ax.minorticks_off()
        bar.ax.tick_params(length=0)
        bar.ax.set_title("$n$", fontsize=8)
        bar.outline.set_visible(False)


def _fractions(axis: Axes, cell: _Cell) -> None:
    n, codes = cell.samples, cell.values["verdict"]
    hits = cell.runs(Verdict.INTERPOLATED).sum(axis=1)
    known = hits + cell.runs(Verdict.STATIONARY).sum(axis=1)
    some = known > 0
    _n_axis(axis, n)
    axis.axhline(0.5, color=_GREY, lw=0.7, ls=":", zorder=0)
    if some.sum() > 1:
        fit = isotonic_regression(hits[some] / known[some], weights=known[some].astype(np.float64), increasing=False).x
        _line(axis, cell, n[some], np.asarray(fit), "decreasing fit of the fraction", {"color": _BLUE, "lw": 1.0})
    if some.any():
        _bars(axis, n[some], hits[some], known[some], _BLUE)
        cell.used["fraction"] = axis.errorbar(
            [], [], [], fmt="o", ms=4, color=_BLUE, elinewidth=0.9, label="fraction of the finished runs, 68 %"
        )
    left = 1.0 - known / codes.shape[1]
    if (left > 0.0).any():
        style: dict[str, Any] = {"ls": "none", "marker": "o", "ms": 4, "mfc": "white", "mec": _GREY, "mew": 0.9}
        _line(axis, cell, n[left > 0.0], left[left > 0.0], "share of runs without verdict", style)
    _mark_threshold(axis, cell)
    t = cell.threshold
    if t is not None and np.isfinite(t.value):
        axis.plot([t.value], [0.5], "D", ms=5, color="black", zorder=5)
    axis.set_ylim(-0.05, 1.05)
    axis.set_ylabel("fraction interpolating")


def _against(result: SweepResult, found: Sequence[Threshold], name: str, axis: Axes) -> dict[str, Any]:
    """Thresholds against d or lambda, a line for each value of the other."""
    other, lines = _other(result, name)
    axis.set_xscale("log")
    axis.set_yscale("log")
    samples = np.array(result.sweep.samples, dtype=np.float64)
    ends = [float(samples[0]), float(samples[-1])]
    labelled = False
    heights: list[float] = []
    for number, fixed in enumerate(lines):
        own = sorted((t for t in found if getattr(t, other) == fixed and _known(t)), key=lambda t: getattr(t, name))
        if not own:
            continue
        color = _color(number, len(lines)) if len(lines) > 1 else "black"
        x = [float(getattr(t, name)) for t in own]
        for place, t in zip(x, own, strict=True):
            heights += _bar(axis, place, t, ends, color)
        label = _value_words(other, fixed) if len(lines) > 1 else ""
        power = exponent(x, own)
        exact = [(place, t) for place, t in zip(x, own, strict=True) if np.isfinite(t.value)]
        if power is not None:
            a, b = exact[0][0], exact[-1][0]
            c = _prefactor(exact, power.value)
            symbol = "d" if name == "dimension" else r"\lambda"
            label = f"{label}{', ' if label else ''}$n^* \\propto {symbol}^{{{power.value:.2f}}}$"
            label += f" [{power.low:.2f}, {power.high:.2f}]"
            grid = np.geomspace(a, b, 2)
            axis.plot(grid, c * grid**power.value, color=color, ls=_OLS["ls"], lw=1.0, zorder=1, label=label)
        elif len(exact) > 1 or label:
            axis.plot(
                [place for place, _ in exact], [t.value for _, t in exact], color=color, lw=0.8, zorder=1, label=label
            )
        labelled = labelled or bool(label)
    low, high = min(heights), max(heights)
    room = (high / low) ** 0.08 * 1.1
    axis.set_ylim(low / room, high * room * (1.25 if labelled else 1.0) ** len(lines))
    _variable_axis(axis, result, name)
    _decades(axis, *axis.get_ylim())
    axis.set_ylabel("threshold $n^*$")
    if labelled:
        axis.legend(loc="upper left" if name == "dimension" else "best", handlelength=1.8, borderpad=0.1, fontsize=7.5)
    return {}


def _share(result: SweepResult, name: str, axis: Axes) -> dict[str, Any]:
    """Fraction of interpolating runs of a single n against d or lambda."""
    other, lines = _other(result, name)
    x = np.array(result.sweep.dimensions if name == "dimension" else result.sweep.scales, dtype=np.float64)
    codes = (
        result.values["verdict"][:, :, 0] if name == "dimension" else result.values["verdict"][:, :, 0].swapaxes(0, 1)
    )
    axis.set_xscale("log")
    for number, fixed in enumerate(lines):
        hits = (codes[:, number] == VERDICTS.index(Verdict.INTERPOLATED)).sum(axis=-1)
        known = hits + (codes[:, number] == VERDICTS.index(Verdict.STATIONARY)).sum(axis=-1)
        some = known > 0
        if some.any():
            color = _color(number, len(lines)) if len(lines) > 1 else _BLUE
            _bars(axis, x[some], hits[some], known[some], color)
            axis.plot(x[some], hits[some] / known[some], color=color, lw=0.8, label=_value_words(other, fixed))
    _variable_axis(axis, result, name)
    axis.set_ylim(-0.05, 1.05)
    axis.set_ylabel("fraction interpolating")
    if len(lines) > 1:
        axis.legend(loc="best", handlelength=1.2, borderpad=0.1)
    return {}


def wilson(hits: FloatArray, counts: FloatArray, z: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """Wilson interval of a binomial fraction: all p with |hits/counts - p| <= z sqrt(p (1 - p)/counts).

    Parameters
    ----------
    hits, counts : (K,) float
        Successes among ``counts`` > 0.
    z : float
        Standard normal quantile; 1 is 68 %.

    Returns
    -------
    low, high : (K,) float
    """
    p, q = hits / counts, z * z / counts
    middle = (p + 0.5 * q) / (1.0 + q)
    half = np.sqrt(p * (1.0 - p) * q + 0.25 * q * q) / (1.0 + q)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def _bars(axis: Axes, x: FloatArray, hits: Any, known: Any, color: Any) -> None:
    low, high = wilson(hits.astype(np.float64), known.astype(np.float64))
    p = hits / known
    error = np.maximum(np.stack([p - low, high - p]), 0.0)
    axis.errorbar(x, p, error, fmt="o", ms=4, color=color, elinewidth=0.9, zorder=3)


def _bar(axis: Axes, x: float, t: Threshold, ends: Sequence[float], color: Any) -> list[float]:
    """Draw n* with its interval, an arrow where that has no end within the samples; heights drawn at."""
    low, high = (min(max(y, ends[0]), ends[1]) for y in (t.low, t.high))
    exact = bool(np.isfinite(t.value))
    starts = []
    if t.low < ends[0]:
        starts.append((ends[0] if exact else high, 1.0 / _ARROW))
    if t.high > ends[1]:
        starts.append((ends[1] if exact else low, _ARROW))
    if exact:
        axis.plot([x], [t.value], "o", ms=4.5, color=color, zorder=4)
    if exact or not starts:
        axis.plot([x, x], [low, high], color=color, lw=0.9, zorder=3, marker="_", ms=5)
    for start, factor in starts:
        axis.plot([x], [start], color=color, marker="_", ms=5)
        style = {"arrowstyle": "-|>", "color": color, "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", (x, start * factor), xytext=(x, start), arrowprops=style)
    return [*(start * factor for start, factor in starts), *((low, high) if exact or not starts else ())] + [
        start for start, _ in starts
    ]


def _prefactor(exact: Sequence[tuple[float, Threshold]], power: float) -> float:
    """C of n* = c x^power, in the weights of `threshold.exponent`."""
    logs = [np.log(np.clip(t.draws, t.samples[0], t.samples[-1])) for _, t in exact]
    weights = np.array([max(float(np.std(row)), 1e-3) for row in logs]) ** -2
    return float(np.exp(np.average([math.log(t.value) - power * math.log(x) for x, t in exact], weights=weights)))


def _known(t: Threshold) -> bool:
    """Whether anything is known of n*."""
    return bool(np.isfinite(t.fractions).any()) and (np.isfinite(t.value) or t.low > 0.0 or t.high < math.inf)


def _threshold_words(t: Threshold | None) -> str:
    if t is None:
        return ""
    if np.isfinite(t.value):
        low = f"{t.low:.3g}" if t.low > 0.0 else f"< {t.samples[0]:g}"
        high = f"{t.high:.3g}" if t.high < math.inf else f"> {t.samples[-1]:g}"
        return f"$n^*$ = {t.value:.3g} ({LEVEL:.0%} interval {low} to {high})".replace("%", " %")
    if t.high == math.inf:
        return f"$n^*$ > {min(t.low, t.samples[-1]):.3g}"
    return f"$n^*$ < {max(t.high, t.samples[0]):.3g}"


def _mark_threshold(axis: Axes, cell: _Cell) -> None:
    """Line and band of n*."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    t, limits = cell.threshold, axis.get_xlim()
    if t is None or len(cell.samples) < 2:
        return
    low, high = max(t.low, limits[0]), min(t.high, limits[1])
    if low < high:
        axis.axvspan(low, high, color="#F3E3A3", alpha=0.5, lw=0, zorder=-3)
        words = f"interval of $n^*$, {LEVEL:.0%}".replace("%", " %")
        cell.used["interval"] = Patch(facecolor="#F3E3A3", alpha=0.5, label=words)
    if np.isfinite(t.value):
        axis.axvline(t.value, color="black", lw=0.8, zorder=0)
        cell.used["threshold"] = Line2D([], [], color="black", lw=0.8, label="threshold $n^*$")


def _references(axis: Axes, cell: _Cell, lines: dict[str, FloatArray]) -> None:
    for name, label, style in (
        ("ols", "least squares, median", _OLS),
        ("split", "split least squares, median", _SPLIT),
    ):
        _line(axis, cell, cell.samples, lines[name], label, style)


def _line(axis: Axes, cell: _Cell, x: FloatArray, y: FloatArray, label: str, style: dict[str, Any]) -> None:
    from matplotlib.lines import Line2D

    kept = np.isfinite(y)
    if not kept.any():
        return
    if len(cell.samples) == 1 and len(x) == 1 and "marker" not in style:
        x, y, kept = np.array(axis.get_xlim()), np.repeat(y, 2), np.array([True, True])
    axis.plot(x[kept], y[kept], **({"zorder": 2} | style))
    cell.used[label] = Line2D([], [], **{k: v for k, v in style.items() if k != "zorder"}, label=label)


def _markers(axis: Axes, cell: _Cell, y: FloatArray) -> None:
    """Single runs, beside each other."""
    from matplotlib.lines import Line2D

    n = cell.samples
    gap = float(np.min(np.diff(np.log(n)))) if len(n) > 1 else 0.5
    count = y.shape[1]
    shift = np.exp(gap * _SPREAD * (np.linspace(-1.0, 1.0, count) if count > 1 else np.zeros(1)))
    x = n[:, None] * shift
    for which, (label, style) in _VERDICTS.items():
        kept = cell.runs(which) & np.isfinite(y)
        if kept.any():
            axis.plot(x[kept], y[kept], ls="none", ms=3.4, zorder=1, **style)
            cell.used[label] = Line2D([], [], ls="none", ms=4.5, **style, label=f"run, {label}")


def _n_axis(axis: Axes, n: FloatArray) -> None:
    """Logarithmic axis with ticks at the n of the sweep, as far as there is room."""
    gap = float(np.min(np.diff(np.log(n)))) if len(n) > 1 else 0.5
    room = math.exp(max(0.6 * gap, 0.03 * math.log(n[-1] / n[0])))
    axis.set_xscale("log")
    axis.set_xlim(n[0] / room, n[-1] * room)
    _ticks(axis, n)
    axis.set_xlabel("samples $n$")


def _variable_axis(axis: Axes, result: SweepResult, name: str) -> None:
    x = np.array(result.sweep.dimensions if name == "dimension" else result.sweep.scales, dtype=np.float64)
    room = (x[-1] / x[0]) ** 0.1
    axis.set_xlim(x[0] / room, x[-1] * room)
    if name == "dimension":
        _ticks(axis, x)
        axis.set_xlabel("dimension $d$")
    else:
        axis.set_xlabel(r"scale of initialisation $\lambda$")


def _ticks(axis: Axes, values: FloatArray) -> None:
    low, high = np.log(axis.get_xlim())
    kept: list[float] = []
    for value in values:
        if not kept or math.log(value / kept[-1]) > 0.09 * (high - low):
            kept.append(float(value))
    axis.set_xticks(kept, [f"{value:g}" for value in kept])
    axis.set_xticks([float(value) for value in values if value not in kept], minor=True)
    axis.xaxis.set_tick_params(which="minor", labelbottom=False)


def _decades(axis: Axes, low: float, top: float, extra: tuple[float, str] | None = None) -> None:
    """Ticks of a logarithmic axis between ``low`` and ``top``, one below at ``extra``."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(top) + 1e-9)
    powers = list(range(first, last + 1))
    step = -(-len(powers) // 7) if powers else 1
    places = [(10.0**k, f"$10^{{{k}}}$") for k in powers[::-1][::step]]
    digits = (2, 5) if len(powers) >= 1 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8)
    if len(powers) < 3:
        everything = sorted({c * 10.0**k for k in range(first - 1, last + 1) for c in (1, *digits)})
        places = [(y, f"{y:g}") for y in everything if low * (1 - 1e-9) <= y <= top * (1 + 1e-9)]
    minor = [c * 10.0**k for k in range(first - 1, last + 1) for c in range(1, 10)]
    known = {round(math.log10(y), 6) for y, _ in places}
    minor = [y for y in minor if low <= y <= top and round(math.log10(y), 6) not in known]
    if extra is not None:
        places.append(extra)
    axis.set_yticks([y for y, _ in places], [label for _, label in places])
    axis.set_yticks(minor if step == 1 else [], minor=True)
    axis.yaxis.set_tick_params(which="minor", labelleft=False)


def _time_axis(axis: Axes, cell: _Cell) -> None:
    """Logarithmic time up to the end of the last run."""
    final = cell.values["final_time"]
    final = final[np.isfinite(final)]
    end = min(float(cell.times[-1]), 1.3 * float(final.max())) if len(final) else float(cell.times[-1])
    axis.set_xscale("log")
    axis.set_xlim(float(cell.times[0]), max(end, 1.01 * float(cell.times[0])))
    axis.set_xlabel("time $t$")


def _filled(curves: FloatArray) -> FloatArray:
    """Curves (S, T) with the last finite value in place of NaN."""
    place = np.where(np.isfinite(curves), np.arange(curves.shape[1]), 0)
    return np.asarray(np.take_along_axis(curves, np.maximum.accumulate(place, axis=1), axis=1))


def _quantiles(values: FloatArray, levels: Sequence[float]) -> FloatArray:
    """Quantiles over the first axis of what is finite, (levels, ...); NaN where nothing is."""
    values = np.where(np.isfinite(values), values, np.nan)
    some = np.isfinite(values).any(axis=0)
    found = np.full((len(levels), *values.shape[1:]), np.nan)
    if some.any():
        found[:, some] = np.nanquantile(values[:, some], levels, axis=0)
    return found


def _median(values: FloatArray) -> FloatArray:
    """Median over the last axis."""
    return np.asarray(_quantiles(np.moveaxis(values, -1, 0), (0.5,))[0])


def _positive(values: FloatArray) -> NDArray[np.bool_]:
    return np.isfinite(values) & (values > 0.0)


def _color(place: int, count: int) -> Any:
    from matplotlib import colormaps

    return colormaps[_MAP](_MAP_END * place / max(count - 1, 1))


def _other(result: SweepResult, name: str) -> tuple[str, tuple[Any, ...]]:
    return ("scale", result.sweep.scales) if name == "dimension" else ("dimension", result.sweep.dimensions)


def _words(name: str) -> str:
    return "dimension" if name == "dimension" else "scale"


def _value_words(name: str, value: float) -> str:
    return f"$d$ = {value:g}" if name == "dimension" else rf"$\lambda$ = {_number(value)}"


def _number(value: float) -> str:
    """A number as in print, in powers of ten where it is far from 1."""
    power = math.floor(math.log10(value) + 1e-12)
    digit = f"{value / 10.0**power:.3g}"
    if -2 < power < 4:
        return f"{value:g}"
    return f"$10^{{{power}}}$" if digit == "1" else rf"${digit}\times 10^{{{power}}}$"


def _description(result: SweepResult) -> str:
    sweep, source, training = result.sweep, result.sweep.source, result.sweep.training
    several = len(sweep.dimensions) > 1 or len(sweep.scales) > 1
    words = [_value_words("dimension", sweep.dimensions[0]), _value_words("scale", sweep.scales[0])]
    first = ", ".join(words)
    rest = [f"$m$ = {training.width}"]
    if source.fixed:
        rest.append(source.inputs.replace("_", " "))
    else:
        rest.append({"gaussian": "Gaussian", "rademacher": "Rademacher"}.get(source.inputs, source.inputs) + " inputs")
        rest += [f"margin {source.margin:g}"] if source.margin > 0.0 else []
        rest.append(rf"$\sigma$ = {source.noise_std:g}")
        rest += [f"teacher of {source.teacher_neurons} neurons"] if source.teacher_neurons else []
    if training.activation.name != "relu":
        rest.append(training.activation.name.replace("_", " "))
    if training.optimizer != "flow":
        rest.append(rf"{training.optimizer}, $\eta$ = {training.learning_rate:g}")
    rest.append(f"{sweep.seeds} run{'s' if sweep.seeds > 1 else ''} each")
    return f"{first}{' where not on the axis' if several else ''}, {', '.join(rest)}"
