"""The figure of the study of optimisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmft.plots import _BLUE, _GREEN, _GREY, _ORANGE, _PURPLE, _STYLE, _write
from dmft.solution import Solution
from validation.descent import study
from validation.descent.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

_COLORS = (_GREY, _BLUE, _GREEN, _ORANGE, _PURPLE)
_LOOK = {
    "gradient descent": ("o", _BLUE),
    "momentum 0.5": ("D", "#56B4E9"),
    "momentum 0.9": ("s", _PURPLE),
    "b = 0.5": ("^", "#E69F00"),
    "b = 0.1": ("v", _ORANGE),
    "b = 0.1, epochs": ("P", _GREEN),
}
"""Families of the lower panels, with marker and colour."""
_TIME = r"$t/(1-\beta)$"
_RATE = r"$\eta/(1-\beta)$"


def plot(found: Mapping[str, Solution], path: str | PathLike[str] | None = None) -> Figure:
    """Errors against time for each optimiser; test error, second layer and small batches against learning rate.

    Parameters
    ----------
    found : mapping of str to Solution
        What `study.run` gave.
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
        (first, second, third), (least, second_layer, batches) = figure.subplots(2, 3)
        _errors(first, found, "gradient descent", (2.0, 3.2, 9.6))
        _errors(second, found, "momentum 0.9", (0.8, 3.2, 9.6))
        _errors(third, found, "b = 0.1", (0.8, 1.6, 3.2))
        _least(least, found)
        _second_layer(second_layer, found)
        _small_batches(batches, found)
        titles: tuple[str, ...] = (
            "gradient descent",
            r"momentum $\beta$ = 0.9",
            "minibatches, $b$ = 0.1",
            "smallest test error",
        )
        titles += ("second layer and edge of stability", rf"small batches at $\eta/b$ = {study.LIMIT_RATIO:g}")
        for panel, letter, title in zip(figure.axes, "abcdef", titles, strict=True):
            panel.set_title(f"({letter}) {title}", loc="left", fontsize=9)
        if path is not None:
            _write(figure, path)
    return figure


def _members(family: str, rates: Sequence[float] | None = None) -> list[Run]:
    """Runs of a family at these effective rates, all when left out."""
    members = [run for run in study.grid() if run.optimizer is not None and study.family(run.optimizer) == family]
    if rates is None:
        return members
    return [
        next(
            run
            for run in members
            if run.optimizer is not None and np.isclose(study.effective_rate(run.optimizer), rate)
        )
        for rate in rates
    ]


def _errors(panel: Axes, found: Mapping[str, Solution], family: str, rates: Sequence[float]) -> None:
    flow = found[study.FLOW]
    chosen = [(flow, "flow")]
    chosen += [
        (found[run.name], rf"$\eta$ = {run.optimizer.learning_rate:.2g}")
        for run in _members(family, rates)
        if run.optimizer is not None
    ]
    for (solution, label), color in zip(chosen, _COLORS, strict=False):
        t = study.effective_time(solution)
        later = t > 0.0
        panel.semilogx(t[later], solution.test_error[later], color=color, lw=1.3, label=label)
        panel.semilogx(t[later], solution.train_error[later], color=color, lw=1.0, ls=(0, (4, 2)))
        if not solution.status.ok:
            panel.plot(t[-1], solution.train_error[-1], "x", color=color, ms=5)
    panel.set_xlim(0.3, study.END)
    panel.set_ylim(0.0, 0.7)
    panel.set_xlabel(_TIME if "momentum" in family else "$t$")
    panel.set_ylabel("errors: test (solid), train (dashed)")
    panel.legend(loc="upper right", ncols=2, columnspacing=1.0, handlelength=1.4).set(frame_on=True)


def _against_rate(panel: Axes, found: Mapping[str, Solution], name: str) -> None:
    for family, (marker, color) in _LOOK.items():
        runs = _members(family)
        x = [study.effective_rate(run.optimizer) for run in runs if run.optimizer is not None]
        whole = [found[run.name].status.ok for run in runs]
        y = [getattr(study.read(found[run.name]), name) for run in runs]
        panel.semilogx(x, y, color=color, lw=0.8)
        for ended in (True, False):
            where = [place for place, one in enumerate(whole) if one is ended]
            panel.plot(
                [x[i] for i in where], [y[i] for i in where], marker, ms=4, color=color, lw=0, mew=1.0,
                mfc=color if ended else "none", label=family if ended else None,
            )  # fmt: skip
    panel.axhline(getattr(study.read(found[study.FLOW]), name), color=_GREY, lw=0.8, ls=(0, (1, 2)))
    panel.set_xlabel(_RATE)
    _rate_ticks(panel)


def _rate_ticks(panel: Axes) -> None:
    panel.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"], minor=False)
    panel.minorticks_off()


def _least(panel: Axes, found: Mapping[str, Solution]) -> None:
    _against_rate(panel, found, "least")
    panel.set_ylabel("smallest test error")
    panel.set_ylim(0.238, 0.322)
    panel.legend(loc="upper center", ncols=2, columnspacing=1.0)


def _second_layer(panel: Axes, found: Mapping[str, Solution]) -> None:
    _against_rate(panel, found, "gamma")
    rates = np.geomspace(min(study.RATES), max(study.RATES), 100)
    for beta, color in ((0.0, _BLUE), (0.5, "#56B4E9")):
        edge = [study.steepest(rate * (1.0 - beta), beta) for rate in rates]
        panel.semilogx(rates, edge, color=color, lw=1.2, ls=(0, (4, 2)), label=rf"$\gamma_c$, $\beta$ = {beta:g}")
    panel.set_ylim(0.25, 0.78)
    _rate_ticks(panel)
    panel.set_ylabel(r"$\gamma = a/\sqrt{m}$ at the end")
    panel.legend(handles=panel.get_lines()[-2:], loc="lower left")


def _small_batches(panel: Axes, found: Mapping[str, Solution]) -> None:
    b = np.array(study.LIMIT_BATCHES)
    for sampling, marker, color in (("fresh", "o", _ORANGE), ("epochs", "P", _GREEN)):
        _, curves, limit = study.limit_of_small_batches(found, sampling)
        away = study.distances(curves, limit)
        panel.loglog(b[:-1], away[:-1], marker, ms=5, color=color, label=sampling)
        panel.loglog(b, away[-2] * b / b[-2], color=color, lw=0.8)
    panel.set_xlabel("batch fraction $b$")
    panel.set_ylabel(r"distance of $e_{\mathrm{ts}}$ from $b \to 0$")
    panel.set_xticks(b, [f"{one:g}" for one in b], minor=False)
    panel.minorticks_off()
    panel.legend(loc="upper left", title="lines: first order", title_fontsize=8)
