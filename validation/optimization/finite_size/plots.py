"""The figure of docs/optimization.md."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from validation.optimization.finite_size.plan import INTERPOLATED, LEFT, THRESHOLDS, Series, usual_tolerance
from validation.optimization.finite_size.results import FiniteSize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = {
    ("gaussian", "cubic", 32): "Gaussian model, cubic, $m$ = 32",
    ("network", "cubic", 32): "networks, cubic, $m$ = 32",
    ("network", "tanh", 64): "networks, tanh, $m$ = 64",
    ("network", "relu64", 64): "networks, relu, $m$ = 64",
}
_DIMENSIONS = {
    18: "#fde725",
    25: "#9fda3a",
    36: "#4ac16d",
    50: "#1fa187",
    72: "#277f8e",
    100: "#365c8d",
    200: "#46327e",
}


def plot(results: FiniteSize, path: str | PathLike[str] | None = None) -> Figure:
    """Above: train error at the largest n/d of each network, against DMFT. Below: when plateaus are left, against d.

    Lines are medians over replicas, bands hold the middle two thirds; replicas end when they have interpolated. Points
    are geometric means with their standard errors; an arrow says that not all replicas have left by the end. Horizontal
    lines are the theory's times below its threshold, above which it has none.

    Parameters
    ----------
    results : FiniteSize
    path : path, optional
        Where to write it as well.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no finished replica.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from dmft.plots import _STYLE, _write

    done = [x for x in results.series if results.curves.get(x.key) and x.tolerance == usual_tolerance(x.activation)]
    families = [name for name in _NAMES if any(x.family == name for x in done)]
    if not families:
        raise ValueError("results must hold a finished replica to be drawn.")
    with rc_context(_STYLE):
        figure = Figure(figsize=(2.7 * len(families) + 0.6, 5.4), layout="constrained")
        panels = figure.subplots(2, len(families), squeeze=False, sharey="row")
        for column, name in enumerate(families):
            mine = [x for x in done if x.family == name]
            _draw_curves(panels[0, column], results, mine)
            _draw_times(panels[1, column], results, mine)
            panels[0, column].set_title(f"({'abcdefgh'[column]}) {_NAMES[name]}", fontsize=8, loc="left")
        panels[0, 0].set_ylabel(r"train error over $\tau^2/2$")
        panels[1, 0].set_ylabel(rf"$t_{{\mathrm{{mf}}}}$ at train error ${LEFT:g}\,\tau^2/2$")
    if path is not None:
        _write(figure, path)
    return figure


def _draw_curves(panel: Axes, results: FiniteSize, mine: Sequence[Series]) -> None:
    top = max(x.sample_ratio for x in mine)
    for series in sorted((x for x in mine if x.sample_ratio == top), key=lambda x: x.dimension):
        t = np.geomspace(2.0, series.t_final, 200)
        errors = np.array([[curve.error_at(x) for x in t] for curve in results.curves[series.key]])
        color = _DIMENSIONS.get(series.dimension, "#888888")
        panel.plot(t, np.median(errors, axis=0), color=color, lw=1.3, label=f"$d$ = {series.dimension}")
        if len(errors) > 2:
            panel.fill_between(t, *np.quantile(errors, [1 / 6, 5 / 6], axis=0), color=color, alpha=0.25, lw=0.0)
    for ratio, style in ((top, "-"), (min(x.sample_ratio for x in mine), ":")):
        one = next(x for x in mine if x.sample_ratio == ratio)
        theory = results.theory.get(one.theory_key)
        if theory is not None:
            e = np.array(theory.train_error[1:])
            shown = e > 0.0
            panel.plot(
                np.array(theory.t[1:])[shown], e[shown], "k", ls=style, lw=1.4, label=rf"DMFT, $\bar\alpha$ = {ratio:g}"
            )
    panel.axhline(LEFT, color="#999999", lw=0.6, zorder=0)
    panel.set(xscale="log", yscale="log", xlim=(2.0, mine[0].t_final), ylim=(INTERPOLATED, 5.0))
    panel.set_xlabel(r"$t_{\mathrm{mf}} = \alpha t$")
    legend = panel.legend(loc="lower left", fontsize=6.5, handlelength=1.4, labelspacing=0.25, borderaxespad=0.1)
    legend.set_title(rf"$\bar\alpha$ = {top:g}")
    legend.get_title().set_fontsize(6.5)


def _draw_times(panel: Axes, results: FiniteSize, mine: Sequence[Series]) -> None:
    from matplotlib.ticker import NullFormatter

    rows = FiniteSize(series=list(mine), curves=results.curves, theory=results.theory).table()
    ends = {x.sample_ratio: x.t_final for x in mine}
    exponents = {x["sample_ratio"]: x for x in FiniteSize(series=list(mine), curves=results.curves, theory={}).growth()}
    below, above = iter(("#0072B2", "#56B4E9")), iter(("#D55E00", "#E69F00"))
    for marker, ratio in zip("osD^", sorted(ends), strict=False):
        color = next(below if ratio < THRESHOLDS[mine[0].activation, mine[0].width][0] else above)
        chosen = sorted((x for x in rows if x["sample_ratio"] == ratio), key=lambda x: x["dimension"])
        label = rf"$\bar\alpha$ = {ratio:g} = {chosen[0]['over_threshold']:.2g} $\bar\alpha_c$"
        known = [x for x in chosen if x["left"] is not None]
        growth = exponents.get(ratio)
        if growth is not None:
            label += rf", power {growth['exponent']:.2f} $\pm$ {growth['error']:.2f}"
        panel.errorbar(
            [x["dimension"] for x in known],
            [x["left"] for x in known],
            yerr=[x["left"] * (x["left_error"] or 0.0) for x in known],
            fmt=marker + "-",
            color=color,
            ms=4.5,
            lw=0.8,
            capsize=2,
            label=label,
        )
        late = [x["dimension"] for x in chosen if x["left"] is None]
        panel.plot(late, [0.85 * ends[ratio]] * len(late), marker=r"$\uparrow$", ls="", ms=9, color=color)
        theory = next((x["theory_left"] for x in chosen if x["theory_left"] is not None), None)
        if theory is not None:
            panel.axhline(theory, color=color, lw=1.0, ls=(0, (4, 2)), zorder=0)
    dimensions = sorted({x.dimension for x in mine})
    panel.set(xscale="log", yscale="log", xlabel="dimension $d$", ylim=(10.0, 6e4))
    panel.set_xticks(dimensions, [str(d) for d in dimensions])
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlim(0.85 * dimensions[0], 1.18 * dimensions[-1])
    panel.legend(loc="upper left", fontsize=6.5, handlelength=1.2, labelspacing=0.25, borderaxespad=0.1)
