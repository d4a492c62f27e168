"""Figure of a threshold."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmft.plots import _BLUE, _GREEN, _GREY, _ORANGE, _STYLE, _write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from validation.thresholds.result import Threshold

FloatArray = NDArray[np.float64]

_LABELS = {"gamma": r"$\gamma = a/\sqrt{m}$", "alpha": r"$\alpha = n/(md)$", "sample_ratio": r"$\bar\alpha = n/d$"}


def plot(threshold: Threshold, path: str | PathLike[str] | None = None) -> Figure:
    """Draw t_rel against the distance, both logarithmic, and what vanishes at the threshold from either side.

    Parameters
    ----------
    threshold : Threshold
        What to draw.
    path : path, optional
        Where to write it as well.

    Returns
    -------
    matplotlib.figure.Figure
        A figure of its own, not registered with pyplot.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        _times(left, threshold)
        _vanishing(right, threshold)
        fixed = ", ".join(f"{name} = {value:g}" for name, value in threshold.fixed.items())
        title = f"{threshold.symbol} at {fixed}: {threshold.value:.5g} in [{threshold.low:.5g}, {threshold.high:.5g}]"
        figure.suptitle(title, fontsize=9, color=_GREY)
        if path is not None:
            _write(figure, path)
    return figure


def _times(panel: Axes, threshold: Threshold) -> None:
    from matplotlib.ticker import NullFormatter

    points = [point for point in threshold.evidence if point.relaxation_time is not None and point.interpolates]
    distance = np.array([abs(point.x - threshold.value) for point in points])
    times = np.array([point.relaxation_time for point in points], dtype=float)
    rates = np.array([1.0 / (point.gap or np.nan) for point in points])
    for values, nu, color, label in (
        (times, threshold.nu.value, _BLUE, r"$t_{\mathrm{rel}}$"),
        (rates, threshold.nu_gap.value, _GREEN, "1/late rate"),
    ):
        panel.loglog(distance, values, "o", color=color, ms=3.5, label=rf"{label}, $\nu$ = {nu:.2f}")
        design = np.stack([np.ones_like(distance), distance], axis=1)
        log = np.log(values) + nu * np.log(distance)
        constant, correction = np.linalg.lstsq(design, log, rcond=None)[0]
        grid = np.geomspace(distance.min(), distance.max(), 100)
        panel.loglog(grid, np.exp(constant + correction * grid) * grid**-nu, color=color, lw=1.0)
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel(f"distance of {_LABELS[threshold.varied]} to the threshold")
    panel.set_ylabel("time $t$")
    panel.legend(loc="best")


def _vanishing(panel: Axes, threshold: Threshold) -> None:
    below = [point for point in threshold.evidence if point.residual is not None]
    above = [point for point in threshold.evidence if point.interpolates and point.gap is not None]
    if below:
        x = np.array([point.x for point in below])
        value = np.array([point.residual for point in below], dtype=float)
        low = np.array([point.residual_low for point in below], dtype=float)
        high = np.array([point.residual_high for point in below], dtype=float)
        panel.errorbar(
            x,
            value,
            [value - low, high - value],
            fmt="o",
            ms=3.5,
            color=_ORANGE,
            label=r"$\sqrt{2e_{\mathrm{tr}}(\infty)}/\tau$",
        )
        _curve(panel, x, value, threshold.estimate("residual").value, _ORANGE)
    if above:
        x = np.array([point.x for point in above])
        nu = threshold.nu_gap.value
        value = np.array([point.gap for point in above], dtype=float) ** (1.0 / nu)
        value *= (max(point.residual or 0.0 for point in below) if below else 1.0) / value.max()
        panel.plot(x, value, "s", ms=3.5, color=_BLUE, label=rf"(late rate)$^{{1/\nu}}$, scaled, $\nu$ = {nu:.2f}")
        _curve(panel, x, value, threshold.estimate("rate").value, _BLUE)
    panel.axvspan(threshold.low, threshold.high, color=_GREY, alpha=0.3, lw=0)
    panel.axvline(threshold.value, color=_GREY, lw=0.7)
    panel.set_xlabel(_LABELS[threshold.varied])
    panel.set_ylim(bottom=0.0)
    panel.legend(loc="best")


def _curve(panel: Axes, x: FloatArray, y: FloatArray, star: float, color: str) -> None:
    """Smooth line through points that ends at the threshold of its route."""
    xs, ys = np.append(x, star), np.append(y, 0.0)
    order = np.argsort(ys)
    coefficients = np.polyfit(ys[order], xs[order], min(3, len(xs) - 1))
    grid = np.linspace(0.0, ys.max(), 100)
    panel.plot(np.polyval(coefficients, grid), grid, color=color, lw=1.0)
