"""One figure: event times against width, and the curves in the scaled times that collapse them."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmft.plots import _GREY, _STYLE, _write
from validation.scales.events import curve_of
from validation.scales.report import Member, Report, event_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#7B3294", "#E69F00", "#56B4E9", "#CC79A7", "#222222")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_MAP, _MAP_END = "viridis", 0.8
"""Colours of the widths, ordered in print too; the yellow end is invisible on white."""
_WINDOW = 30.0
"""Factor in time to each side of the events that is shown of collapsed curves."""
_SCALED = {
    "1/m": "m \\, {}",
    "1": "{}",
    "sqrt(m)": r"{} / \sqrt{{m}}",
    "m": "{} / m",
    "m^-2": "m^2 \\, {}",
    "1/sqrt(m)": r"\sqrt{{m}} \, {}",
}


def plot(report: Report, path: str | PathLike[str] | None = None) -> Figure:
    """Draw a report; also write the figure to ``path`` when given.

    Above, event times against width with the power laws of their exponents, anchored at the largest width; dashed lines
    join times without one. Below, curves against the scaled time of each scale that events belong to: the errors where
    an event is read off them, else the curve that it is read off. Without a family, the errors against time.

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

    scales = [scale for scale in report.scale_names if any(one.scale == scale for one in report.regimes)]
    panels: list[float | None] = [*scales] or [None]
    with rc_context(_STYLE):
        figure = Figure(figsize=(max(3.1 * len(panels), 6.2), 6.4), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[1.15, 1.0])
        upper, lower = parts
        _times(upper.subplots(), report)
        axes: Any = lower.subplots(1, len(panels), squeeze=False)[0]
        for axis, scale in zip(axes, panels, strict=True):
            _collapsed(axis, report, scale, _curves(report, scale))
        axes[0].legend(fontsize=7.5, loc="best", handlelength=1.4)
        if path is not None:
            _write(figure, path)
    return figure


def _times(axis: Axes, report: Report) -> None:
    """Event times against width, one colour an event, one marker a series."""
    series = list(dict.fromkeys(member.series for member in report.members))
    found_names = {event.name for event in report.events if event.found and event.width}
    shown = [name for name in dict.fromkeys(event.name for event in report.events) if name in found_names]
    for number, name in enumerate(shown):
        color = _COLORS[number % len(_COLORS)]
        style = "-" if number < len(_COLORS) else ":"
        labelled = False
        for place, kind in enumerate(series):
            found = [e for e in report.events if (e.name, e.series) == (name, kind) and e.found and e.width]
            if not found:
                continue
            m, t = np.array([event.width for event in found]), np.array([event.time for event in found])
            errors = [
                (0.0, 0.0) if e.time is None or e.low is None or e.high is None else (e.time - e.low, e.high - e.time)
                for e in found
            ]
            axis.errorbar(
                m,
                t,
                yerr=np.array(errors, dtype=np.float64).T,
                ls="none",
                marker=_MARKERS[(number // len(_COLORS) + place) % len(_MARKERS)],
                ms=4.0,
                mew=0.8,
                mfc=color if place == 0 else "none",
                color=color,
                elinewidth=0.7,
                label=None if labelled else event_label(name),
            )
            labelled = True
            one = next((one for one in report.exponents if (one.event, one.series) == (name, kind)), None)
            where = next((one for one in report.regimes if (one.event, one.series) == (name, kind)), None)
            if one is not None and one.settled and where is not None and not where.missing:
                x = np.array([one.widths[0], one.widths[-1]], dtype=np.float64)
                axis.plot(x, one.amplitude * x**one.value, color=color, lw=0.9, ls=style, zorder=1)
            else:
                axis.plot(m, t, color=color, lw=0.7, ls=(0, (4, 3)), zorder=1)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("width $m$")
    axis.set_ylabel("time $t$ of" if report.unit == "t" else r"time $\alpha t$ of")
    if shown:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7.5, labelspacing=0.3)
    ratio = rf"$n/(md)$ = {report.ratio:.4g}" if report.fixed == "alpha" else f"$n/d$ = {report.ratio:.4g}"
    start = "lazy" if report.family.lazy else "mean field"
    axis.set_title(f"{start}, {ratio}", fontsize=9, loc="left", color=_GREY)


def _curves(report: Report, scale: float | None) -> tuple[str, ...]:
    """Curves to show for a scale."""
    errors = ("test_error", "train_error")
    names = [one.event for one in report.regimes if one.scale == scale]
    read_off = list(dict.fromkeys(event.curve for event in report.events if event.name in names))
    if not read_off or {*errors, "gap", "log_train_error"} & {*read_off}:
        return errors
    return tuple(read_off[:1])


def _collapsed(axis: Axes, report: Report, scale: float | None, curves: tuple[str, ...]) -> None:
    """Curves against t / m^scale around the events of that scale; all of the run where there is none."""
    from matplotlib import colormaps

    members = [member for member in report.members if member.width is not None or scale in (None, 0.0)]
    limits: list[float] = []
    for event in report.events:
        ours = any((one.event, one.series, one.scale) == (event.name, event.series, scale) for one in report.regimes)
        if ours and event.time is not None and event.width is not None:
            limits.append(event.time / event.width ** (scale or 0.0))
    if limits:
        start, end = min(limits) / _WINDOW, max(limits) * _WINDOW
    else:
        first = [_first(member) for member in members]
        start, end = min(first), max(member.end for member in members)
    widths = sorted({member.width for member in members if member.width is not None})
    for member in members:
        unit = 1.0 if member.width is None else member.width ** (scale or 0.0)
        low, high = max(start * unit, _first(member)), min(end * unit, member.end)
        if low >= high:
            continue
        t = np.clip(np.geomspace(low, high, 300), low, high)
        if member.trace.sampled:
            t = member.trace.t[(member.trace.t >= low) & (member.trace.t <= high)]
        profile = member.trace.at(t)
        place = widths.index(member.width) if member.width is not None else len(widths)
        color = "black" if member.width is None else colormaps[_MAP](_MAP_END * place / max(len(widths) - 1, 1))
        theory = member.series == "theory"
        for name, style in zip(curves, ("-", "--"), strict=False):
            label = None
            if name == curves[0] and theory == (report.members[0].series == "theory"):
                label = "$m$ = infinity" if member.width is None else f"$m$ = {member.width}"
            axis.plot(
                t / unit,
                curve_of(name, member.width)(profile),
                color=color,
                lw=1.1,
                ls=style if theory else "none",
                marker=None if theory else ("o" if name == curves[0] else "s"),
                ms=3.0,
                mfc="none",
                label=label,
            )
    axis.set_xscale("log")
    if curves[0] in ("a", "gamma"):
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0.0)
    words = {"a": "rms $a$", "gamma": r"rms $a/\sqrt{m}$", "v": "$|v|$", "a v": "$a v$"}
    axis.set_ylabel(words.get(curves[0], "test error (solid), train error (dashed)"))
    time = "t" if report.unit == "t" else r"\alpha t"
    name = "1" if scale is None else report.scale_names[scale]
    axis.set_xlabel(f"${_SCALED[name].format(time)}$")


def _first(member: Member) -> float:
    """First time that a logarithmic axis can show, of those at which something happens."""
    t, profile = member.trace.t, member.trace.profile
    moved = np.flatnonzero(
        (np.abs(profile.test_error - profile.test_error[0]) > 0.01 * np.ptp(profile.test_error))
        | (np.abs(profile.train_error - profile.train_error[0]) > 0.01 * np.ptp(profile.train_error))
    )
    row = max(int(moved[0]) - 1 if len(moved) else 1, 1)
    return float(t[min(row, len(t) - 1)])
