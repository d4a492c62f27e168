"""True networks trained by minibatches as in [MU] figures 2 and 4, against the theory of the same batches and of flow.

16 neurons, d = 200, batches of 100 from epochs; the learning rate of the figures, 0.1, and one five times as large. The
dimensions 100 and 400 have the same batch fraction, so that averages can be extrapolated in 1/d; what is left is the
price of the Gaussian approximation, and of the wrong algorithm.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dmft.activations import Activation
from dmft.optimizers import SGD, Optimizer
from dmft.plots import _BLUE, _GREY, _ORANGE, _STYLE, _write
from dmft.problems import SymmetricProblem
from dmft.solution import Solution
from dmft.targets import Target
from validation.comparison import compare
from validation.comparison.records import Row
from validation.descent.runs import Run, solve_all
from validation.descent.simulated import CURVES, simulation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIMENSIONS = (100, 200, 400)
REPLICAS = (120, 80, 40)
BATCH, BATCH_DIMENSION = 100, 200
"""Samples in an update, and the dimension where they are so many: [MU]'s."""
RATES = {0.1: 30.0, 0.5: 160.0}
"""Learning rates, and how long they train."""
RECORDED = 16
BLOWN = 2.0

ACTIVATIONS = ("cubic", "tanh", "relu")


@cache
def activation(name: str) -> Activation:
    """One of `ACTIVATIONS`; the Hermite series of relu up to degree 64, of which the theory cannot have more."""
    if name == "cubic":
        return Activation.from_covariance([0, 0.9, 0, 1 / 6])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, message="activation 'relu' is used as")
        return Activation.named(name)


@dataclass(frozen=True)
class Case:
    """A figure of [MU], an activation and a learning rate.

    Attributes
    ----------
    figure : {2, 4}
    activation : str
    rate : float
    """

    figure: int
    activation: str
    rate: float

    @property
    def name(self) -> str:
        """Unique, in words."""
        return f"figure {self.figure}, {self.activation}, η = {self.rate:g}"

    @property
    def problem(self) -> SymmetricProblem:
        """Noise at alpha = 0.4 and tau = 0.6 in figure 2, a single index at 0.3 and 0.3 in figure 4."""
        h = activation(self.activation)
        alpha, tau, target = (0.4, 0.6, Target.noise()) if self.figure == 2 else (0.3, 0.3, Target.same_as(h))
        return SymmetricProblem(width=16, alpha=alpha, noise_std=tau, a0=1.0, activation=h, target=target)

    @property
    def optimizer(self) -> Optimizer:
        """Batches of 100 at d = 200, and as large a fraction elsewhere."""
        problem = self.problem
        samples = problem.alpha * problem.width * BATCH_DIMENSION
        return SGD(learning_rate=self.rate, batch_fraction=BATCH / samples, sampling="epochs")

    @property
    def t_final(self) -> float:
        """A whole number of updates."""
        step = self.optimizer.step(self.problem)
        return step * round(RATES[self.rate] / step)


CASES = tuple(Case(figure, activation, rate) for figure in (2, 4) for activation in ACTIVATIONS for rate in RATES)


@dataclass(frozen=True)
class Found:
    """What a case has given.

    Attributes
    ----------
    exact, flow : Solution
        The theory of the batches, and of gradient flow.
    exact_rows, flow_rows : list of Row
        The same simulations against both.
    blown, count : int
        How many of the runs have had a test error above `BLOWN` times that of their start, and how many there are.
    """

    exact: Solution
    flow: Solution
    exact_rows: list[Row]
    flow_rows: list[Row]
    blown: int
    count: int


def run(directory: Path, workers: int, tell: Callable[[str], None], cases: Sequence[Case] = CASES) -> dict[str, Found]:
    """Solve and simulate all cases, or read what is kept of them.

    Raises
    ------
    KeyboardInterrupt
        When interrupted; finished solutions and replicas are kept.
    """
    exact = [Run(case.name, case.problem, case.t_final, case.optimizer) for case in cases]
    flows = [Run(f"{case.name}, flow", case.problem, case.t_final) for case in cases]
    found = {}
    solutions = solve_all(exact + flows, directory / "solutions", workers, tell)
    for case in cases:
        solution, flow = solutions[case.name], solutions[f"{case.name}, flow"]
        simulations = [
            simulation(
                case.name, case.problem, case.optimizer, recorded(solution), d, count, directory / "simulations",
                workers, tell, model="network",
            )
            for d, count in zip(DIMENSIONS, REPLICAS, strict=True)
        ]  # fmt: skip
        rows = [
            [row for row in compare(theory, simulations, observables=CURVES).rows if row.t > 0.0]
            for theory in (solution, flow)
        ]
        errors = np.concatenate([one.sample("test_error").values for one in simulations])
        blown = int((errors.max(axis=1) > BLOWN * errors[:, 0]).sum())
        found[case.name] = Found(solution, flow, rows[0], rows[1], blown, len(errors))
    return found


def recorded(solution: Solution) -> np.ndarray:
    """Times of the curves: ends of epochs, equidistant in the logarithm."""
    assert solution.optimizer is not None
    epoch = solution.optimizer.updates_per_epoch
    last = (len(solution.t) - 1) // epoch
    epochs = np.unique(np.round(np.geomspace(1.0, last, RECORDED)).astype(int))
    return np.asarray(solution.t[np.concatenate([[0], epoch * epochs])])


# ------------------------------------------------------------------------------------------------------------ markdown


@dataclass(frozen=True)
class Distance:
    """How far the simulations are from a theory, over times.

    Attributes
    ----------
    gap, error : float
        Root mean square of (simulation - theory)/scale, and of the standard error on that scale.
    """

    gap: float
    error: float


def distance(rows: Sequence[Row], observable: str) -> Distance:
    """Of one observable; scales are those of `Row.gap`."""
    chosen = [row for row in rows if row.observable == observable]
    gaps, errors = np.array([[row.gap, row.error / row.scale] for row in chosen]).T
    return Distance(float(np.sqrt((gaps**2).mean())), float(np.sqrt((errors**2).mean())))


def markdown(found: Mapping[str, Found]) -> str:
    """A table: distances of both theories from the simulations, for each curve."""
    names = {"train_error": "e_tr", "test_error": "e_ts", "a": "a", "v": "v"}
    lines = [
        "| setting | η | " + " | ".join(f"{name}: batches, flow (± s.e.)" for name in names.values()) + " | blown up |",
        "|---|---:|" + "---:|" * (len(names) + 1),
    ]
    for case in CASES:
        if case.name not in found:
            continue
        one, cells = found[case.name], []
        for name in names:
            if one.blown or (name == "v" and case.figure == 2):
                cells.append("–")
                continue
            exact, flow = distance(one.exact_rows, name), distance(one.flow_rows, name)
            text = [f"{exact.gap:.2%}", f"{flow.gap:.2%}"]
            if abs(flow.gap - exact.gap) > 2.0 * exact.error:
                text[int(flow.gap < exact.gap)] = f"**{text[int(flow.gap < exact.gap)]}**"
            cells.append(f"{', '.join(text)} (± {exact.error:.2%})")
        cells.append(f"{one.blown} of {one.count}" if one.blown else "")
        lines.append(f"| figure {case.figure}, {case.activation} | {case.rate:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------------- figure


def plot(found: Mapping[str, Found], path: str | PathLike[str] | None = None) -> Figure:
    """Errors at the larger rate: both theories and the extrapolated simulations, a panel a setting."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rate = max(RATES)
    with rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 5.4), layout="constrained")
        panels = figure.subplots(2, len(ACTIVATIONS), sharex=True, sharey="row")
        for row, number in zip(panels, (2, 4), strict=True):
            for panel, activation in zip(row, ACTIVATIONS, strict=True):
                case = Case(number, activation, rate)
                if case.name in found:
                    _draw(panel, found[case.name])
                    if found[case.name].blown:
                        words = f"{found[case.name].blown} of {found[case.name].count} runs blow up"
                        panel.text(0.97, 0.85, words, transform=panel.transAxes, ha="right", fontsize=8, color=_GREY)
                what = "noise" if number == 2 else "single index"
                panel.set_title(f"{what}, {activation}", fontsize=9, color=_GREY)
            row[0].set_ylabel("error")
        for panel in panels[-1]:
            panel.set_xlabel("$t$")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
        if path is not None:
            _write(figure, path)
    return figure


def _draw(panel: Axes, one: Found) -> None:
    for name, color, label in (("test_error", _ORANGE, "test"), ("train_error", _BLUE, "train")):
        later = one.flow.t > 0.1
        panel.semilogx(
            one.flow.t[later], getattr(one.flow, name)[later], color=color, lw=1.0, ls=(0, (3, 2)),
            label=f"{label}, gradient flow",
        )  # fmt: skip
        panel.semilogx(
            one.exact.t[1:], getattr(one.exact, name)[1:], color=color, lw=1.3, label=f"{label}, same batches"
        )
        rows = [row for row in one.exact_rows if row.observable == name and not one.blown]
        panel.errorbar(
            [row.t for row in rows], [row.value for row in rows], [2.0 * row.error for row in rows], fmt="o", ms=3.2,
            color=color, mfc="white", mew=0.9, lw=0.9, label=f"{label}, true networks, $d \\to \\infty$",
        )  # fmt: skip
