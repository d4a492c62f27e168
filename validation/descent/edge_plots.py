"""The figure of the edge of stability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmft.plots import _BLUE, _GREEN, _GREY, _ORANGE, _PURPLE, _STYLE, _write
from validation.descent.edge import ALPHA, CUBIC, DIMENSIONS, Record, select

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

_WIDTH = 16
"""Neurons of the networks with curves."""
_SHOWN = ((0.12, _GREY), (0.25, _BLUE), (0.5, _GREEN), (1.0, _ORANGE))
"""Rates with curves, over the prediction for h linear at a(0), with their colours."""
_LOOK = {20: ("v", "#E69F00"), 40: ("s", _GREEN), 80: ("o", _BLUE), 160: ("D", _PURPLE)}


def plot(found: Sequence[Record], path: str | PathLike[str] | None = None) -> Figure:
    """Thresholds, what is beyond them at fixed and at trained a, and averages of simulated networks.

    Parameters
    ----------
    found : sequence of dict
        What `edge.run` gave.
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
        figure = Figure(figsize=(10.2, 6.0), layout="constrained")
        panels = figure.subplots(2, 3).ravel()
        for draw, panel, letter in zip(
            (_thresholds, _period, _averages, _sharpness, _errors, _second_layer), panels, "abcdef", strict=True
        ):
            draw(panel, found)
            panel.set_title(letter, loc="left", fontweight="bold", fontsize=9)
        if path is not None:
            _write(figure, path)
    return figure


def _thresholds(panel: Axes, found: Sequence[Record]) -> None:
    for h, target, second, marker, color, label in (
        ("linear", "noise", "a = 1", "D", _GREY, "$h = q$, noise, $a = 1$"),
        ("cubic", "noise", "a = 1", "o", _BLUE, "cubic, noise, $a = 1$"),
        ("cubic", "index", "a = 1", "s", _ORANGE, "cubic, index, $a = 1$"),
        ("cubic", "index", "gamma = 1", "^", _GREEN, r"cubic, index, $a = \sqrt{m}$"),
    ):
        records = select(found, "threshold", h=h, target=target, second=second, alpha=ALPHA)
        records = sorted(records, key=lambda record: record["labels"]["m"])
        m = np.array([record["labels"]["m"] for record in records])
        unit = m * np.array([1.0 if second == "a = 1" else 1.0 / width for width in m])
        measured = np.array([record["found"]["measured"] for record in records])
        predicted = np.array([record["found"]["predicted"] for record in records])
        panel.loglog(m, measured / unit, marker, color=color, ms=4.5, mfc="w", label=label)
        panel.loglog(m, predicted / unit, color=color, lw=1.0)
    m = np.geomspace(1.0, 1e6, 100)
    law = 2.0 / (float(CUBIC.covariance[1]) * (1.0 + (ALPHA * m) ** -0.5) ** 2)
    panel.loglog(m, law, color="k", lw=0.8, ls=":", label="linear part of the cubic $h$")
    _plain_ticks(panel.yaxis, (0.2, 0.5, 1.0, 2.0))
    panel.set_xlabel("width $m$")
    panel.set_ylabel(r"largest stable rate, $\eta\,a^2/m$")
    panel.legend(loc="lower right", fontsize=7)


def _period(panel: Axes, found: Sequence[Record]) -> None:
    for target, marker, color in (("noise", "o", _BLUE), ("index", "s", _ORANGE)):
        for record in select(found, "beyond", target=target):
            runs = record["found"]["runs"]
            x = [one["fraction"] for one in runs]
            for key, face, lag in (("one", color, "$k = 1$"), ("two", "w", "$k = 2$")):
                y = [2.0 - 2.0 * one[key] for one in runs]
                panel.semilogy(x, y, f"{marker}-", color=color, mfc=face, ms=4, lw=0.8, label=f"{target}, {lag}")
    panel.axvline(1.0, color=_GREY, lw=0.8, ls=(0, (4, 3)))
    panel.set_xscale("log")
    _plain_ticks(panel.xaxis, (0.8, 1.0, 1.5, 2.0, 3.0, 4.0))
    panel.set_ylim(1e-6, 1e3)
    panel.set_xlabel(r"$\eta/\eta_{\max}$, fixed $a = 1$")
    panel.set_ylabel(r"$|w_{n+k} - w_n|^2$")
    if panel.lines[:-1]:
        panel.legend(loc="upper right", fontsize=7, ncols=2)


def _plain_ticks(axis: Axis, ticks: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _averages(panel: Axes, found: Sequence[Record]) -> None:
    records = sorted(select(found, "chaos"), key=lambda record: record["labels"]["rate"])
    rates = np.array([record["labels"]["rate"] for record in records])
    errors = np.array([record["found"]["train_error"] or np.nan for record in records])
    panel.loglog(rates, errors, color="k", lw=1.2, label=r"theory, $d = \infty$")
    for place, d in enumerate(DIMENSIONS):
        marker, color = _LOOK[d]
        simulations = sorted(select(found, "simulation", d=d), key=lambda record: record["labels"]["rate"])
        x = np.array([record["labels"]["rate"] for record in simulations]) * (0.97 + 0.02 * place)
        y, error = np.array([record["found"]["train_error"] for record in simulations]).reshape(-1, 2).T
        panel.errorbar(x, y, error, fmt=marker, color=color, ms=3.5, lw=0.8, mfc="w", label=f"$d = {d}$")
    crossed = [record["labels"]["rate"] for record in records if record["found"]["sharpness"] > 1.0]
    if crossed:
        panel.axvline(np.sqrt(crossed[0] * rates[max(0, list(rates).index(crossed[0]) - 1)]), color=_GREY, lw=0.8,
                      ls=(0, (4, 3)))  # fmt: skip
    chaotic = [r["labels"]["rate"] for r in records if (r["found"]["growth"] or 0.0) > 0.03]
    if chaotic:
        panel.axvspan(min(chaotic) / 1.1, rates.max(), color=_GREY, alpha=0.15, lw=0, label="chaotic theory")
    _plain_ticks(panel.xaxis, (0.3, 0.5, 1.0, 2.0, 3.0))
    panel.set_xlabel(r"learning rate $\eta$, $m = 2$")
    panel.set_ylabel(r"$e_{\mathrm{tr}}$, average over updates")
    panel.legend(loc="lower right", fontsize=7)


def _curves(
    found: Sequence[Record], batch: float, names: Sequence[str]
) -> Iterator[tuple[str, float, FloatArray, list[FloatArray], bool]]:
    """Colour, rate, times and curves of each shown run, and whether it is lost to rounding at its end."""
    for fraction, color in _SHOWN:
        for record in select(found, "trained", target="index", m=_WIDTH, batch=batch, fraction=fraction):
            one = record["found"]
            t = (np.array(one["place"]) + 1.0) * one["step"]
            yield color, one["rate"], t, [np.array(one[name]) for name in names], one["lost"] is not None


def _sharpness(panel: Axes, found: Sequence[Record]) -> None:
    for color, rate, t, (values,), _ in _curves(found, 0.5, ("sharpness",)):
        panel.semilogx(t, values, color=color, lw=1.6, label=rf"$\eta = {rate:.1f}$")
    for color, rate, t, (values,), lost in _curves(found, 1.0, ("sharpness",)):
        if rate > 12.0:
            continue
        panel.semilogx(t, values, color=color, lw=0.6)
        if lost:
            panel.semilogx(t[-1:], values[-1:], "x", color=color, ms=5)
    panel.plot([], [], color="k", lw=1.6, label="$b = 0.5$")
    panel.plot([], [], color="k", lw=0.6, label=r"full batches ($\times$: lost)")
    panel.axhline(1.0, color="k", lw=0.8, ls=":")
    panel.set_ylim(0.0, 2.7)
    panel.set_xlim(1.0, 1e3)
    panel.set_xlabel(f"$t$, index target, $m = {_WIDTH}$, trained $a$")
    panel.set_ylabel("sharpness $S$")
    panel.legend(loc="upper left", fontsize=7, ncols=2)


def _errors(panel: Axes, found: Sequence[Record]) -> None:
    for color, rate, t, (test, train), _ in _curves(found, 0.5, ("test_error", "train_error")):
        panel.semilogx(t, test, color=color, lw=1.4, label=rf"$\eta = {rate:.1f}$")
        panel.semilogx(t, train, "--", color=color, lw=1.0)
    panel.plot([], [], color="k", lw=1.4, label=r"$e_{\mathrm{ts}}$")
    panel.plot([], [], "--", color="k", lw=1.0, label=r"$e_{\mathrm{tr}}$")
    panel.set_ylim(0.0, 0.8)
    panel.set_xlim(1.0, 1e3)
    panel.set_xlabel(f"$t$, index target, $m = {_WIDTH}$, $b = 0.5$")
    panel.set_ylabel("error")
    panel.legend(loc="upper right", fontsize=7, ncols=2)


def _second_layer(panel: Axes, found: Sequence[Record]) -> None:
    for m, marker, color in ((4, "o", _BLUE), (8, "s", _GREEN), (16, "D", _ORANGE)):
        for batch, face in ((1.0, color), (0.5, "w")):
            records = select(found, "trained", target="index", m=m, batch=batch)
            kept = [record["found"] for record in records if record["found"]["lost"] is None]
            x = np.array([one["rate"] for one in kept])
            y = np.array([one["late_a"] for one in kept]) / np.sqrt(m)
            label = f"$m = {m}$" if batch == 1.0 else None
            panel.loglog(x, y, marker, color=color, mfc=face, ms=4.5, label=label)
        eta = np.geomspace(0.1, 25.0, 100)
        edge = np.sqrt(2.0 / (eta * float(CUBIC.covariance[1]))) / (1.0 + (ALPHA * m) ** -0.5)
        panel.loglog(eta, edge, color=color, lw=0.9)
    panel.plot([], [], "o", color=_GREY, mfc="w", ms=4.5, label="$b = 0.5$")
    panel.plot([], [], color=_GREY, lw=0.9, label=r"$\gamma_c(\eta)$, linear part")
    panel.set_ylim(0.15, 1.2)
    panel.set_xlim(0.1, 25.0)
    _plain_ticks(panel.yaxis, (0.2, 0.3, 0.5, 1.0))
    panel.set_xlabel(r"learning rate $\eta$")
    panel.set_ylabel(r"$a/\sqrt{m}$ in the last half")
    panel.legend(loc="lower left", fontsize=7)
