"""Drawing the panels of a figure: one colour for each member of the family, limits as dashed black lines."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmft.figure import CURVES, LEVELS, PARAMETERS, POINTS, TIMES, LimitOptions, PanelOptions
from dmft.plots import _GREY, _STYLE, _write
from validation.panels import (
    NEAR,
    Family,
    PanelError,
    Run,
    difference,
    level,
    parameter,
    point,
    quantity,
    relaxation_law,
    representatives,
    variable,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

_MAP, _MAP_END = "viridis", 0.88
"""Colours ordered in print too; the yellow end is invisible on white."""
_LIMIT_STYLES: tuple[Any, ...] = ((0, (4, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
_LIMIT_WORDS = {
    "mean_field": "mean-field limit",
    "lazy_linear": r"linear fit, $t = O(1/m)$",
    "lazy": r"lazy limit, $t = O(1)$",
    "adiabatic": r"adiabatic limit, $t = O(m)$",
    "noise_growth": r"$p$-spin limit, $t = O(\sqrt{m})$",
    "infinite_width": r"$m\to\infty$ at fixed $n/d$",
    "fixed_gamma": r"relaxed at fixed $\gamma$",
}
_SIZE = (2.75, 2.3)
_HEADROOM = 0.06
_DPI = 200


def plot(family: Family, path: str | PathLike[str] | None = None, *, dpi: int = _DPI) -> Figure:
    """Draw all panels of a family.

    Parameters
    ----------
    family : Family
        What `validation.panels.solve` gives.
    path : path, optional
        Where to write it as well; the suffix gives the format. Written whole or not at all.
    dpi : int
        Resolution.

    Returns
    -------
    matplotlib.figure.Figure
        A figure of its own, not registered with pyplot.

    Raises
    ------
    PanelError
        When a panel asks for what the solutions do not have.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = family.options.panels
    columns = family.options.columns or {1: 1, 2: 2, 4: 2}.get(len(panels), 3)
    rows = -(-len(panels) // columns)
    with rc_context(_STYLE | {"savefig.dpi": dpi, "lines.linewidth": 1.2}):
        figure = Figure(figsize=(_SIZE[0] * columns, _SIZE[1] * rows + 0.55), layout="constrained")
        grid = np.asarray(figure.subplots(rows, columns, squeeze=False), dtype=object).ravel()
        styles = _limit_styles(panels)
        for number, (axis, panel) in enumerate(zip(grid, panels, strict=False)):
            (_draw_points if panel.points else _draw_curves)(axis, panel, family, styles)
            letter = f"({chr(ord('a') + number)})" if len(panels) > 1 else ""
            axis.set_title(f"{letter} {panel.title}".strip(), fontsize=8.5, loc="left")
        for axis in grid[len(panels) :]:
            axis.set_axis_off()
        _legend(figure, family, styles)
        if path is not None:
            _write(figure, path)
    return figure


def _color(place: float) -> Any:
    from matplotlib import colormaps

    return colormaps[_MAP](_MAP_END * place)


def _limit_styles(panels: Sequence[PanelOptions]) -> dict[str, Any]:
    """A line style for each limit of a figure, the first ones again where there are many."""
    keys = list(dict.fromkeys(limit.key for panel in panels for limit in panel.limit))
    # Limits seldom meet in one panel, and where they do not, plain dashes are the clearest.
    together = any(len(panel.limit) > 1 for panel in panels)
    return {key: _LIMIT_STYLES[number % 3 if together else 0] for number, key in enumerate(keys)}


def limit_words(limit: LimitOptions) -> str:
    """Name of a limit for a legend."""
    order = ", with order $1/m$" if limit.options.get("order") == 1 else ""
    return _LIMIT_WORDS[limit.name] + order


def _draw_curves(axis: Axes, panel: PanelOptions, family: Family, styles: dict[str, Any]) -> None:
    shown: list[tuple[FloatArray, FloatArray]] = []
    for number, name in enumerate(panel.curve):
        for run in family.members:
            x, y = _curve(panel, family, run.solution, name)
            axis.plot(x, y, color=_color(run.place), ls=(0, (1, 1)) if number else "-", lw=1.0 if number else 1.3)
            shown.append((x, y))
        for limit in panel.limit:
            for place in representatives(limit, [run.config for run in family.members]):
                x, y = _curve(panel, family, family.limits[limit.key, place], name)
                axis.plot(x, y, color="black", ls=styles[limit.key], lw=0.9, zorder=3)
                shown.append((x, y))
    window = panel.window or _default_window(panel, shown)
    if panel.against != "gamma":
        axis.set_xscale("log")
    axis.set_xlim(*window)
    if panel.log:
        axis.set_yscale("log")
    axis.set_ylim(*(panel.range or _extent(shown, window, panel.log)))
    _levels(axis, panel, family, shown)
    axis.set_xlabel(TIMES[panel.against])
    axis.set_ylabel(_y_label(panel))
    if len(panel.curve) == 2:
        from matplotlib.lines import Line2D

        lines = [
            Line2D([], [], color=_GREY, ls=(0, (1, 1)) if number else "-", lw=1.2, label=CURVES[name])
            for number, name in enumerate(panel.curve)
        ]
        axis.legend(handles=lines, loc="best", handlelength=1.6, borderpad=0.1)


def _curve(panel: PanelOptions, family: Family, solution: Any, name: str) -> tuple[FloatArray, FloatArray]:
    """Abscissa and ordinate of one line, without the point at t = 0 that a logarithmic axis cannot show."""
    if panel.minus is not None:
        place = representatives(panel.minus, [run.config for run in family.members])
        limits = [family.limits[panel.minus.key, one] for one in place]
        if len(limits) > 1:
            raise PanelError("minus needs a family with one limit in common.")
        t, y = difference(solution, limits[0], name)
        x = variable(solution, panel.against)[: len(t)]
    else:
        x, y = variable(solution, panel.against), quantity(solution, name)
    kept = x > 0.0
    return x[kept], y[kept]


def _y_label(panel: PanelOptions) -> str:
    if panel.minus is not None:
        symbol = {"train_error": r"e_{\mathrm{tr}}", "test_error": r"e_{\mathrm{ts}}"}.get(
            panel.curve[0], panel.curve[0]
        )
        infinite = rf"{symbol[:-1]},\infty}}" if symbol.endswith("}") else rf"{symbol}_\infty"
        return rf"$m\,({symbol} - {infinite})$"
    if set(panel.curve) == {"train_error", "test_error"}:
        return "error"
    return ", ".join(CURVES[name] for name in panel.curve)


def _default_window(panel: PanelOptions, shown: Sequence[tuple[FloatArray, FloatArray]]) -> tuple[float, float]:
    low, high = min(float(x.min()) for x, _ in shown), max(float(x.max()) for x, _ in shown)
    return (low, high) if panel.against == "gamma" else (max(low, 1e-4 * high), high)


def _extent(
    shown: Sequence[tuple[FloatArray, FloatArray]], window: tuple[float, float], log: bool
) -> tuple[float, float]:
    """Range of what is inside the window, with some room."""
    parts = [y[(x >= window[0]) & (x <= window[1])] for x, y in shown]
    inside = np.concatenate([part for part in parts if len(part)] or [np.array([0.0, 1.0])])
    if log:
        positive = inside[inside > 0.0]
        return 0.8 * float(positive.min()), 1.3 * float(positive.max())
    low, high = min(float(inside.min()), 0.0), max(float(inside.max()), 0.0)
    span = max(high - low, 1e-12)
    return low - (_HEADROOM * span if low < 0.0 else 0.0), high + _HEADROOM * span


def _levels(axis: Axes, panel: PanelOptions, family: Family, shown: Sequence[tuple[FloatArray, FloatArray]]) -> None:
    """Grey lines with their names, at the end and on the side where most room is."""
    for name in panel.levels:
        values = _level_values(family, name)
        for value in values:
            axis.axhline(value, color=_GREY, lw=0.7, ls=":", zorder=0)
        if name == "one":
            continue
        value = values[-1]
        side, up = max(
            ((side, up) for side in ("left", "right") for up in (1, -1)),
            key=lambda place: _room(axis, shown, value, *place),
        )
        axis.annotate(
            LEVELS[name],
            (0.0 if side == "left" else 1.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(3 if side == "left" else -3, 2 * up),
            textcoords="offset points",
            ha=side,
            va="bottom" if up > 0 else "top",
            fontsize=7.5,
            color=_GREY,
        )


def _level_values(family: Family, name: str) -> list[float]:
    if name == "threshold":
        return [float(s.gamma[-1]) for (key, _), s in family.limits.items() if key.startswith("fixed_gamma")]
    return list(dict.fromkeys(float(f"{level(run.config.problem, name):.8g}") for run in family.members))


def _room(axis: Axes, shown: Sequence[tuple[FloatArray, FloatArray]], value: float, side: str, up: int) -> float:
    """Distance, in heights of the panel, of the nearest curve on a quarter of its width."""
    at = axis.transAxes.inverted()
    base = float(at.transform(axis.transData.transform((axis.get_xlim()[1], value)))[1])
    free = max(0.0, 1.0 - base if up > 0 else base)
    for x, y in shown:
        place = at.transform(axis.transData.transform(np.column_stack([x, np.maximum(y, 1e-300)])))
        near = (place[:, 0] < 0.28 if side == "left" else place[:, 0] > 0.72) & (place[:, 0] >= 0) & (place[:, 0] <= 1)
        ahead = up * (place[near, 1] - base)
        ahead = ahead[ahead > 0.012]  # what lies on the line itself hides it on either side
        if len(ahead):
            free = min(free, float(ahead.min()))
    return free + 1e-3 * (side == "right") + 1e-4 * (up > 0)


def _draw_points(axis: Axes, panel: PanelOptions, family: Family, styles: dict[str, Any]) -> None:
    name = panel.curve[0]
    lines: dict[str, list[tuple[float, float, Run]]] = {}
    for run in family.members:
        if name == "threshold gamma":
            found = family.thresholds.get(("gamma", family.members.index(run)))
            value = None if found is None else float(found.value)
        else:
            value = point(run.solution, name)
        if value is not None:
            # Members of one label are one line, if the label is not what they are drawn against.
            lines.setdefault(run.label if panel.against == "m" else "", []).append(
                (parameter(run.config.problem, panel.against), value, run)
            )
    if not lines:
        raise PanelError(f"no run has a {name}.")
    if all(len(line) == 1 for line in lines.values()):
        lines = {"": [one for line in lines.values() for one in line]}
    for line in lines.values():
        line.sort(key=lambda one: one[0])
        x, y = np.array([one[0] for one in line]), np.array([one[1] for one in line])
        same = len({one[2].label for one in line}) == 1
        axis.plot(x, y, color=_color(line[0][2].place) if same else _GREY, lw=0.8, zorder=1)
        for one in line:
            axis.plot([one[0]], [one[1]], "o", ms=4, color=_color(one[2].place), zorder=2)
    if panel.against == "m":
        axis.set_xscale("log")
    if panel.log:
        axis.set_yscale("log")
    if panel.window:
        axis.set_xlim(*panel.window)
    if panel.range:
        axis.set_ylim(*panel.range)
    elif not panel.log:
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    _guides(axis, panel, [one[:2] for line in lines.values() for one in line])
    if name == "relaxation time":
        _law(axis, family, panel.against)
    _levels(axis, panel, family, [])
    axis.set_xlabel(PARAMETERS[panel.against])
    axis.set_ylabel(POINTS[name])


def _guides(axis: Axes, panel: PanelOptions, shown: Sequence[tuple[float, float]]) -> None:
    """Power laws, the first above everything that is shown and the others below."""
    low, high = axis.get_ylim()
    ends = np.array([min(x for x, _ in shown), max(x for x, _ in shown)])
    for number, slope in enumerate(panel.slopes):
        heights = [y / x**slope for x, y in shown]
        base = 0.6 * min(heights) if number else 1.6 * max(heights)
        axis.plot(ends, base * ends**slope, color=_GREY, lw=0.7, ls=(0, (3, 2)), zorder=0)
        # Inside the steeper end there is room below, at the other end above.
        at = ends[0] ** 0.6 * ends[1] ** 0.4
        axis.annotate(
            f"$m^{{{slope:g}}}$",
            (at, base * at**slope),
            xytext=(-2, -4) if number else (2, 4),
            textcoords="offset points",
            fontsize=7.5,
            color=_GREY,
            ha="right" if number else "left",
            va="top" if number else "bottom",
        )
    axis.set_ylim(low, high)


def _law(axis: Axes, family: Family, against: str) -> None:
    """The power law of relaxation times, and the threshold where they diverge."""
    fit = relaxation_law(family, against)
    if fit is None:
        return
    end = fit["threshold"]
    x = end * (1.0 - np.geomspace(NEAR, 1e-3, 200))
    low, high = axis.get_ylim()
    axis.plot(x, fit["c"] * (end - x) ** -fit["nu"], color="black", ls=_LIMIT_STYLES[0], lw=0.9)
    axis.axvline(end, color=_GREY, lw=0.7, ls=":", zorder=0)
    axis.set_ylim(low, 3.0 * high)
    symbol = r"\bar\alpha_*" if against == "n/d" else r"\alpha_*"
    text = rf"${symbol}$ = {end:.3g}, $\nu \approx$ {fit['nu']:.2g}"
    axis.text(0.04, 0.96, text, transform=axis.transAxes, ha="left", va="top", fontsize=7.5, color=_GREY)


def _legend(figure: Figure, family: Family, styles: dict[str, Any]) -> None:
    """Members, limits and what a run that stopped early did, once for all panels."""
    from matplotlib.lines import Line2D

    handles: list[Any] = []
    for label in dict.fromkeys(run.label for run in family.members):
        own = [run for run in family.members if run.label == label]
        early = [run for run in own if not run.complete]
        note = ""
        if early:
            against = "alpha t" if early[0].solution.formulation.infinite_width else "t/m"
            note = f" (to {TIMES[against]} = {float(variable(early[0].solution, against)[-1]):.2g})"
        handles.append(Line2D([], [], color=_color(own[0].place), lw=2.0, label=label + note))
    limits = {limit.key: limit for panel in family.options.panels for limit in panel.limit}
    for key, limit in limits.items():
        handles.append(Line2D([], [], color="black", lw=0.9, ls=styles[key], label=limit_words(limit)))
    columns = family.options.columns or {1: 1, 2: 2, 4: 2}.get(len(family.options.panels), 3)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 2 * columns, 5),
        fontsize=7.5,
        handlelength=1.8,
        columnspacing=1.4,
    )
