"""Figures: a comparison with its z-scores, and a family of runs that differ in one parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmft.plots import _BLUE, _CURVE_LIMIT, _GREEN, _GREY, _ORANGE, _PURPLE, _STYLE, _first_time, _title, _write
from dmft.simulation import Simulation
from dmft.solution import Solution
from validation.comparison.checks import MODEL_WORDS, algorithm_words
from validation.comparison.records import Row, Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from validation.comparison.report import Report

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_GROUPS = ("#009E73", "#7B3294", "#E69F00", "#56B4E9", "#D55E00", "#0072B2", "#CC79A7", "#000000")
"""Okabe and Ito's colours again, for groups of neurons."""
_SERIES = ("o", "s", "^", "D", "v", "P")
_SCORES = {
    "train_error": ("train error", _BLUE),
    "test_error": ("test error", _ORANGE),
    "test_error_fresh": ("fresh test error", "#E69F00"),
    "a": ("$a$", _GREEN),
    "v": ("$v$", _PURPLE),
    "C_d": ("$C_d$", "#56B4E9"),
    "C_o": ("$C_o$", "#CC79A7"),
    "C_r": ("$C_r$", "#222222"),
}
_POINTS = 10
"""Marked times of one curve: every recorded one would hide the curve."""
_LINEAR = 6.0
"""Axis of the z-scores is linear up to here and logarithmic beyond, where the size matters less than the fact."""
_MAP, _MAP_END = "viridis", 0.8
"""Colours of a family, ordered in print too; the yellow end is invisible on white."""
_SYMBOLS = {
    "width": "$m$",
    "alpha": r"$\alpha$",
    "noise_std": r"$\tau$",
    "gamma0": r"$\gamma_0$",
    "a0": "$a(0)$",
    "v0": "$v(0)$",
    "gram0": "$C(0,0)$",
}
"""Parameters that a family may differ in and that are short enough to be written."""


@dataclass(frozen=True)
class _Curve:
    """One curve of a panel: rows it is made of, colour, label, and what its values are divided by."""

    label: str
    color: str
    name: str
    unit: float
    t: FloatArray
    theory: FloatArray


def plot(report: Report, path: str | PathLike[str] | None = None) -> Figure:
    """Draw errors, second layer and overlap with simulations on them, and z-scores against logarithmic time.

    Lines are the theory, bands the extrapolation to d -> infinity with two standard errors to each side, points the
    means of each dimension with one standard error.

    Parameters
    ----------
    report : Report
        What to draw.
    path : path, optional
        Where to write it as well; the suffix gives the format. Written whole or not at all.

    Returns
    -------
    matplotlib.figure.Figure
        A figure of its own, not registered with pyplot.

    Raises
    ------
    ValueError
        For a suffix that matplotlib does not know.
    OSError
        When the place cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = _panels(report)
    start, end = _range(report)
    with rc_context(_STYLE):
        heights = [1.5 if name == "error" else 1.0 for name in panels]
        figure = Figure(figsize=(5.6, 1.9 + 1.5 * (sum(heights) + 1.0)), layout="constrained")
        axes: Any = figure.subplots(len(panels) + 1, 1, sharex=True, squeeze=False, height_ratios=[*heights, 1.05])[
            :, 0
        ]
        for axis, (name, curves) in zip(axes, panels.items(), strict=False):
            _draw(axis, report, name, curves, start, end)
        _scores(axes[-1], report, start)
        axes[-1].set_xscale("log")
        axes[-1].set_xlim(start, end)
        axes[-1].set_xlabel("time $t$ (of two times the later one)" if _two_time(report) else "time $t$")
        axes[0].set_title(_title(report.solution), fontsize=9, loc="left", color=_GREY)
        _legend(figure, report)
        figure.align_ylabels()
        if path is not None:
            _write(figure, path)
    return figure


def _two_time(report: Report) -> bool:
    return any(row.t_prime is not None for row in report.rows)


def _range(report: Report) -> tuple[float, float]:
    """Limits of the time axis: where something happens and was recorded."""
    times = np.array([row.last_time for row in report.rows])
    positive = times[times > 0.0]
    if not len(positive):
        return 0.1, 1.0
    first, last = float(positive.min()), float(positive.max())
    return min(max(0.8 * first, _first_time(report.solution)), 0.5 * last), 1.2 * last


def _panels(report: Report) -> dict[str, list[_Curve]]:
    """Curves to draw, panel by panel."""
    solution, form = report.solution, report.solution.formulation
    compared = {row.observable for row in report.rows}
    result: dict[str, list[_Curve]] = {}
    errors = []
    for name, color in (("test_error", _ORANGE), ("train_error", _BLUE)):
        fresh = name == "test_error" and name not in compared and "test_error_fresh" in compared
        if name in compared or fresh:
            row_label = "test_error_fresh" if fresh else name
            errors.append(_Curve(row_label, color, name.replace("_", " "), 1.0, solution.t, getattr(solution, name)))
    if errors:
        result["error"] = errors
    a = solution.a.reshape(len(solution.t), form.groups, 1)
    v = solution.v.reshape(len(solution.t), form.groups, form.latent_dimension)
    panels = (("a", r"$a/\sqrt{m}$", a, _GREEN, float(np.sqrt(form.width))), ("v", "overlap $v$", v, _PURPLE, 1.0))
    for name, title, array, single, unit in panels:
        # With a target of pure noise the overlap is zero: its fluctuations are judged below, not worth a panel.
        if name not in compared or (name == "v" and not np.any(array)):
            continue
        places = list(np.ndindex(*array.shape[1:]))
        shown = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, _CURVE_LIMIT).astype(int))]
        curves = []
        for number, (group, direction) in enumerate(shown):
            sizes = array.shape[1:]
            index = ",".join(str(i) for i, size in zip((group, direction), sizes, strict=True) if size > 1)
            color = single if len(places) == 1 else _GROUPS[number % len(_GROUPS)]
            label = f"{name}[{index}]" if index else name
            curves.append(_Curve(label, color, index, unit, solution.t, array[:, group, direction]))
        result[title] = curves
    return result


def _draw(axis: Axes, report: Report, name: str, curves: list[_Curve], start: float, end: float) -> None:
    tops, bottoms, band = [0.0], [0.0], [0.0]
    for curve in curves:
        inside = (curve.t >= 0.5 * start) & (curve.t <= 1.2 * end)
        axis.plot(curve.t[inside], curve.theory[inside] / curve.unit, color=curve.color, lw=1.3, label=curve.name)
        tops.append(float((curve.theory[inside] / curve.unit).max(initial=0.0)))
        bottoms.append(float((curve.theory[inside] / curve.unit).min(initial=0.0)))
        for number, section in enumerate(report.sections):
            rows = [row for row in section.rows if row.label == curve.label and row.t > 0.0]
            if rows:
                _simulated(axis, section, number, rows, curve)
                values = [mean / curve.unit for row in rows for mean in row.means]
                tops.append(max(values))
                bottoms.append(min(values))
                band += [(row.value + sign * 2.2 * row.error) / curve.unit for row in rows for sign in (-1.0, 1.0)]
    noise = getattr(report.solution.problem, "noise_std", 0.0)
    if name == "error" and noise > 0.0:
        axis.axhline(0.5 * noise**2, color=_GREY, lw=0.7, ls=":", zorder=0, label=r"noise level $\tau^2/2$")
    axis.set_ylabel(name)
    span = max(max(tops) - min(bottoms), 1e-12)
    low, high = min(bottoms) - (0.06 * span if min(bottoms) < 0.0 else 0.0), max(tops) + 0.08 * span
    # A wide band may enlarge the panel, within reason.
    axis.set_ylim(max(min(low, *band), low - 0.3 * span), min(max(high, *band), high + 0.3 * span))
    if name == "error":
        axis.legend(loc="best")
    elif len(curves) > 1:
        axis.legend(
            title=_index_name(report, name),
            title_fontsize=8,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            handlelength=1.2,
        )


def _index_name(report: Report, panel: str) -> str:
    form = report.solution.formulation
    names = ["group"] if form.groups > 1 else []
    if "v" in panel and form.latent_dimension > 1:
        names.append("direction")
    return ", ".join(names)


def _simulated(axis: Axes, section: Section, number: int, rows: list[Row], curve: _Curve) -> None:
    """Band of the extrapolation, and points of each dimension, larger dimensions darker."""
    t = np.array([row.t for row in rows])
    if section.fit != "mean":
        value = np.array([row.value for row in rows]) / curve.unit
        error = 2.0 * np.array([row.error for row in rows]) / curve.unit
        axis.fill_between(t, value - error, value + error, color=curve.color, alpha=0.22, lw=0, zorder=1)
    # Series are marked at different times where they would cover each other.
    chosen = np.unique(np.minimum(_spread(t) + number % 2, len(t) - 1))
    for k in range(len(section.dimensions)):
        mean = np.array([row.means[k] for row in rows])[chosen] / curve.unit
        sem = np.array([row.sems[k] for row in rows])[chosen] / curve.unit
        axis.errorbar(t[chosen], mean, yerr=sem, ls="none", color=curve.color, **_point(section, number, k))


def _spread(t: FloatArray) -> IntArray:
    """Places of about `_POINTS` of the times (X,) > 0, evenly spread on the logarithmic axis."""
    targets = np.geomspace(t[0], t[-1], _POINTS)
    return np.unique([int(np.argmin(np.abs(np.log(t / target)))) for target in targets])


def _point(section: Section, number: int, k: int) -> dict[str, Any]:
    """Marker of the k-th dimension of a series: the largest one a solid point, the others wider and paler rings.

    All of them stay visible where they coincide, which is what they do when nothing depends on the dimension.
    """
    smaller = len(section.dimensions) - 1 - k  # how many dimensions are larger than this one
    step = min(1.3, 3.9 / max(len(section.dimensions) - 1, 1))
    return {
        "marker": _SERIES[number % len(_SERIES)],
        "ms": 2.6 + step * smaller,
        "mew": 0.7,
        "mfc": "none" if smaller else None,
        "alpha": 1.0 - 0.15 * min(smaller, 4),
        "elinewidth": 0.7,
        "zorder": 3.0 - 0.01 * smaller,
    }


def _scores(axis: Axes, report: Report, start: float) -> None:
    """z-scores against time, one colour for each observable and one marker for each series."""
    for level, style in ((2.0, (0, (5, 3))), (4.0, ":")):
        for sign in (-1.0, 1.0):
            axis.axhline(sign * level, color=_GREY, lw=0.6, ls=style, zorder=0)
    axis.axhline(0.0, color=_GREY, lw=0.6, zorder=0)
    top, labelled = 4.6, set()
    for number, section in enumerate(report.sections):
        for summary in section.summaries:
            rows = [row for row in section.rows if row.observable == summary.observable]
            name, color = _SCORES[summary.observable]
            # What was recorded before the axis begins, t = 0 above all, is drawn on its left end.
            t = np.maximum([row.last_time for row in rows], start)
            z = np.clip([row.z for row in rows], -1e3, 1e3)
            top = max(top, 1.15 * float(np.abs(z).max()))
            label = None if name in labelled else name
            labelled.add(name)
            marker = _SERIES[number % len(_SERIES)]
            axis.plot(
                t, z, ls="none", marker=marker, ms=2.6, mew=0, color=color, alpha=0.75, label=label, clip_on=False
            )
    if top > 2.0 * _LINEAR:
        axis.set_yscale("symlog", linthresh=_LINEAR, linscale=2.0)
        ticks = [-4.0, -2.0, 0.0, 2.0, 4.0]
        axis.set_yticks(
            [*ticks, *(sign * x for x in (10.0, 30.0, 100.0, 300.0, 1000.0) if x < top for sign in (-1, 1))]
        )
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(_no_ticks())
    else:
        axis.set_yticks([-8, -4, 0, 4, 8] if top > 8.0 else [-4, -2, 0, 2, 4])
    axis.set_ylim(-top, top)
    axis.set_ylabel("z-score")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.2, borderpad=0.2, markerscale=1.5)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _legend(figure: Figure, report: Report) -> None:
    """What line, band and markers mean, once for all panels."""
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Line2D([], [], color=_GREY, lw=1.3, label="theory")]
    if any(section.fit != "mean" for section in report.sections):
        label = r"extrapolated to $d\to\infty$, $\pm$ 2 standard errors"
        handles.append(Patch(color=_GREY, alpha=0.3, lw=0, label=label))
    labels = [handle.get_label() for handle in handles]
    for number, section in enumerate(report.sections):
        points = [_point(section, number, k) for k in range(len(section.dimensions))]
        for point in points:
            point.pop("elinewidth")
        handles.append(tuple(Line2D([], [], ls="none", color=_GREY, **point) for point in points))
        labels.append(f"{section.name}, $d$ = {', '.join(map(str, section.dimensions))}")
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        fontsize=7.5,
        handlelength=1.2 * max(2, *(len(section.dimensions) for section in report.sections)),
        handler_map={tuple: HandlerTuple(ndivide=None)},
    )


def plot_family(
    solutions: Sequence[Solution],
    simulations: Sequence[Sequence[Simulation]],
    path: str | PathLike[str] | None = None,
) -> Figure:
    """Draw runs that differ in one parameter, such as the width, together against logarithmic time.

    One colour for each run. Of its simulations, those of the largest dimension of each kind (model and optimiser) are
    drawn, as open markers with bars of two standard errors to each side.

    Parameters
    ----------
    solutions : sequence of Solution
        The family, of networks.
    simulations : sequence of sequences of Simulation
        Those of each solution; empty where there are none.
    path : path, optional
        Where to write it as well; the suffix gives the format. Written whole or not at all.

    Returns
    -------
    matplotlib.figure.Figure
        A figure of its own, not registered with pyplot.

    Raises
    ------
    TypeError
        For a solution of the p-spin model.
    ValueError
        For an empty family, sequences of different lengths, or a suffix that matplotlib does not know.
    OSError
        When the place cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not solutions or len(solutions) != len(simulations):
        raise ValueError(
            f"solutions and simulations must be of the same length >= 1, not {len(solutions)} and {len(simulations)}."
        )
    if not all(solution.formulation.residual_sector for solution in solutions):
        raise TypeError("solutions must all be of networks.")
    members = _members(solutions, simulations)
    # As in `_panels`, no panel for an overlap that is zero.
    panels = [("error", ("test_error", "train_error")), (r"$a/\sqrt{m}$", ("gamma",))]
    if any(np.any(solution.v) for solution in solutions):
        panels.append(("overlap $v$", ("v",)))
    start = min(_first_time(solution) for solution in solutions)
    end = max(float(solution.t[-1]) for solution in solutions)
    with rc_context(_STYLE):
        heights = [1.5, *[1.0] * (len(panels) - 1)]
        figure = Figure(figsize=(5.0, 1.2 + 1.6 * sum(heights)), layout="constrained")
        axes: Any = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axis, (label, names) in zip(axes, panels, strict=True):
            for name in names:
                for member in members:
                    _draw_member(axis, member, name)
            axis.set_ylabel(label)
            axis.set_ylim(*_limits(members, names, start))
        noise = {getattr(solution.problem, "noise_std", 0.0) for solution in solutions}
        if len(noise) == 1 and noise != {0.0}:
            axes[0].axhline(0.5 * max(noise) ** 2, color=_GREY, lw=0.7, ls=":", zorder=0)
        axes[-1].set_xscale("log")
        axes[-1].set_xlim(start, max(1.15 * end, 1.01 * start))
        axes[-1].set_xlabel("time $t$")
        axes[0].set_title(_shared_title(solutions), fontsize=9, loc="left", color=_GREY)
        _family_legends(figure, axes[0], members, noise)
        figure.align_ylabels()
        if path is not None:
            _write(figure, path)
    return figure


@dataclass(frozen=True)
class _Member:
    """One run of a family, and its simulations to draw by the number of their kind."""

    label: str
    color: Any
    solution: Solution
    simulations: tuple[tuple[int, Simulation], ...]


def _members(solutions: Sequence[Solution], simulations: Sequence[Sequence[Simulation]]) -> list[_Member]:
    from matplotlib import colormaps

    labels, ranks = _labels(solutions)
    colors = colormaps[_MAP](np.linspace(0.0, _MAP_END, len(solutions)))
    kinds = list(dict.fromkeys(_kind(simulation) for own in simulations for simulation in own))
    members = []
    for label, rank, solution, own in zip(labels, ranks, solutions, simulations, strict=True):
        largest = {
            kind: max((s.settings.dimension for s in own if _kind(s) == kind), default=0) for kind in map(_kind, own)
        }
        drawn = tuple((kinds.index(_kind(s)), s) for s in own if s.settings.dimension == largest[_kind(s)])
        members.append(_Member(label, colors[rank], solution, drawn))
    return members


def _kind(simulation: Simulation) -> tuple[str, str]:
    """Model and optimiser; step and batch differ from width to width."""
    return simulation.settings.model, algorithm_words(simulation.settings)


def _labels(solutions: Sequence[Solution]) -> tuple[list[str], list[int]]:
    """What differs between the runs, in words, and their places in the order of it."""
    parameters = [{**solution.problem.to_dict(), "width": solution.formulation.width} for solution in solutions]
    values = [[data.get(name) for data in parameters] for name in _SYMBOLS]
    differing = [
        (symbol, column)
        for symbol, column in zip(_SYMBOLS.values(), values, strict=True)
        if all(isinstance(value, int | float) for value in column) and len(set(column)) > 1
    ]
    numbered = list(range(len(solutions)))
    if not differing:
        return [f"run {number + 1}" for number in numbered], numbered
    # One parameter names the runs if it differs in all of them; what is changed along with it is left to the text.
    distinct = [pair for pair in differing if len(set(pair[1])) == len(solutions)]
    chosen = distinct[:1] or differing
    labels = [", ".join(f"{symbol} = {column[i]:g}" for symbol, column in chosen) for i in numbered]
    order = sorted(numbered, key=lambda i: [column[i] for _, column in chosen])
    return labels, [order.index(i) for i in numbered]


def _shared_title(solutions: Sequence[Solution]) -> str:
    """The parameters that all runs have in common."""
    parts = []
    for text, numbers in (
        ("$m$", [solution.formulation.width for solution in solutions]),
        (r"$\alpha = n/(md)$", [solution.formulation.alpha for solution in solutions]),
        (r"$\tau$", [getattr(solution.problem, "noise_std", 0.0) for solution in solutions]),
    ):
        if len(set(numbers)) == 1:
            parts.append(f"{text} = {numbers[0]:g}")
    return ", ".join(parts)


def _draw_member(axis: Axes, member: _Member, name: str) -> None:
    """One curve of one run; of many neurons so many as can be told apart."""
    solution = member.solution
    theory = getattr(solution, name).reshape(len(solution.t), -1)
    columns = np.unique(np.linspace(0, theory.shape[1] - 1, _CURVE_LIMIT).astype(int))
    style = "--" if name == "train_error" else "-"
    axis.plot(solution.t, theory[:, columns], color=member.color, lw=1.3, ls=style)
    for number, simulation in member.simulations:
        known = simulation.curve_names
        source = "test_error_fresh" if name == "test_error" and name not in known else name
        later = np.flatnonzero((simulation.t > 0.0) & (simulation.t <= solution.t[-1] * (1.0 + 1e-9)))
        if source not in known or not len(later):
            continue
        sample = simulation.sample(source)
        # Kinds are marked at different times where they would cover each other.
        chosen = later[np.unique(np.minimum(_spread(simulation.t[later]) + number % 2, len(later) - 1))]
        means, sems = (x.reshape(len(simulation.t), -1)[np.ix_(chosen, columns)] for x in (sample.mean, sample.sem))
        for mean, sem in zip(means.T, sems.T, strict=True):
            look: Any = {"marker": _SERIES[number % len(_SERIES)], "ms": 3.4, "mfc": "white", "mew": 0.8, "zorder": 3}
            axis.errorbar(simulation.t[chosen], mean, 2.0 * sem, ls="none", color=member.color, elinewidth=0.7, **look)


def _limits(members: Sequence[_Member], names: Sequence[str], start: float) -> tuple[float, float]:
    """Range of a panel: that of the theory and of the means; bars may be cut."""
    wanted = [*names, "test_error_fresh"] if "test_error" in names else names
    low = high = 0.0
    for member in members:
        sources: list[Any] = [member.solution, *(simulation for _, simulation in member.simulations)]
        for source in sources:
            shown = (source.t >= start) & (source.t <= member.solution.t[-1] * (1.0 + 1e-9))
            for name in wanted:
                if name in source.curve_names and shown.any():
                    curve = getattr(source, name)[shown]
                    low, high = min(low, float(curve.min())), max(high, float(curve.max()))
    span = max(high - low, 1e-12)
    return low - (0.06 * span if low < 0.0 else 0.0), high + 0.08 * span


def _family_legends(figure: Figure, axis: Axes, members: Sequence[_Member], noise: set[float]) -> None:
    """Kinds of lines in the panel of the errors; colours and markers, of which there may be many, below the figure."""
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=_GREY, lw=1.3, ls=ls, label=f"{n} error") for n, ls in (("test", "-"), ("train", "--"))
    ]
    if len(noise) == 1 and noise != {0.0}:
        lines.append(Line2D([], [], color=_GREY, lw=0.7, ls=":", label=r"noise level $\tau^2/2$"))
    axis.legend(handles=lines, loc="best")
    colors = [Line2D([], [], color=member.color, lw=2.0, label=member.label) for member in members]
    dimensions: dict[int, set[int]] = {}
    words: dict[int, str] = {}
    for member in members:
        for number, simulation in member.simulations:
            model, optimizer = _kind(simulation)
            words[number] = f"{MODEL_WORDS[model]}, {optimizer}"
            dimensions.setdefault(number, set()).add(simulation.settings.dimension)
    markers = []
    for number in sorted(words):
        label = f"{words[number]}, $d$ = {', '.join(map(str, sorted(dimensions[number])))}"
        marker = _SERIES[number % len(_SERIES)]
        markers.append(Line2D([], [], ls="none", marker=marker, ms=3.4, mfc="white", mew=0.8, color=_GREY, label=label))
    if not markers:
        figure.legend(handles=colors, loc="outside lower center", ncols=min(len(colors), 5))
        return
    # A legend is filled column by column: runs in one or two columns, made full, and markers in the last one.
    columns = 1 if len(colors) <= 3 else 2
    rows = max(-(-len(colors) // columns), len(markers))
    columns = -(-len(colors) // rows)
    handles = []
    for part in (*(colors[i * rows : (i + 1) * rows] for i in range(columns)), markers):
        handles += [*part, *(Line2D([], [], ls="none", label=" ") for _ in range(rows - len(part)))]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns + 1)
