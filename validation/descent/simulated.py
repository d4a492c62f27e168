"""The theory of each optimiser against simulations of the Gaussian model with the same rate, momentum and batches.

The learning rates are so large that gradient flow is visibly wrong. Averages over replicas are extrapolated in 1/d and
compared with the exact theory, and with gradient flow at the time t/(1 - momentum).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import dmft
from dmft.activations import Activation
from dmft.files import FileFormatError
from dmft.optimizers import SGD, GradientDescent, Momentum, Optimizer
from dmft.plots import _BLUE, _GREY, _ORANGE, _STYLE, _write
from dmft.problems import NetworkProblem, SymmetricProblem
from dmft.simulation import Simulation
from dmft.solution import Solution
from dmft.status import Status
from dmft.targets import Target
from validation.comparison import compare
from validation.comparison.report import Report
from validation.descent.runs import Run, solve_all
from validation.dynamics import REVISION
from validation.replicas import discard
from validation.simulations import simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUADRATIC = Activation.from_covariance([0, 0.6, 0.4])
REPLICAS = {20: 800, 40: 400, 80: 200}
"""Dimensions, and how many runs of each."""
UNSTABLE_REPLICAS = {40: 800, 80: 400, 160: 200}
"""The same where training is unstable: errors that grow make 1/d corrections large."""
TIME = 20.0
"""Last effective time t/(1 - momentum)."""
RECORDED = 14
"""Updates at which curves are recorded, besides the start."""
CURVES = ("train_error", "test_error", "a", "v")

OPTIMIZERS: tuple[Optimizer, ...] = (
    GradientDescent(learning_rate=1.0),
    GradientDescent(learning_rate=2.0),
    Momentum(learning_rate=0.3, momentum=0.8),
    SGD(learning_rate=0.5, batch_fraction=0.5),
    SGD(learning_rate=0.5, batch_fraction=0.1),
    SGD(learning_rate=0.5, batch_fraction=0.1, sampling="epochs"),
    SGD(learning_rate=0.1, batch_fraction=0.2, momentum=0.7),
)


@dataclass(frozen=True)
class Case:
    """An optimiser and a target.

    Attributes
    ----------
    target : {"index", "noise"}
    optimizer : Optimizer
    """

    target: str
    optimizer: Optimizer

    @property
    def name(self) -> str:
        """Unique, in words."""
        return f"{self.target}, {words(self.optimizer)}"

    @property
    def problem(self) -> SymmetricProblem:
        """Four neurons and two samples a dimension."""
        target = Target.same_as(QUADRATIC) if self.target == "index" else Target.noise()
        return SymmetricProblem(width=4, alpha=0.5, noise_std=0.5, a0=1.5, activation=QUADRATIC, target=target)

    @property
    def replicas(self) -> dict[int, int]:
        """Dimensions, and how many runs of each."""
        unstable = self.target == "index" and self.optimizer == GradientDescent(learning_rate=2.0)
        return UNSTABLE_REPLICAS if unstable else REPLICAS

    @property
    def t_final(self) -> float:
        """A whole number of updates."""
        step = self.optimizer.step(self.problem)
        return step * round(TIME * (1.0 - self.optimizer.momentum) / step)


def words(optimizer: Optimizer) -> str:
    """What distinguishes one optimiser from another."""
    parts = [f"η = {optimizer.learning_rate:g}"]
    if optimizer.momentum > 0.0:
        parts.append(f"β = {optimizer.momentum:g}")
    if optimizer.batch_fraction < 1.0:
        parts.append(f"b = {optimizer.batch_fraction:g}" + (" in epochs" if optimizer.sampling == "epochs" else ""))
    return ", ".join(parts)


CASES = tuple(Case(target, optimizer) for target in ("index", "noise") for optimizer in OPTIMIZERS)


@dataclass(frozen=True)
class Found:
    """What a case has given.

    Attributes
    ----------
    exact, flow : Solution
        The theory of the optimiser, and of gradient flow.
    report : Report
        The exact theory against the simulations.
    """

    exact: Solution
    flow: Solution
    report: Report

    @property
    def flow_z(self) -> tuple[float, str]:
        """Largest distance of the extrapolated curves from gradient flow in standard errors, and where it is."""
        optimizer = self.exact.optimizer
        assert optimizer is not None
        rows = [row for row in self.report.rows if row.observable in CURVES and row.error > 0.0]
        times = np.array([row.t for row in rows]) / (1.0 - optimizer.momentum)
        curves = self.flow.at(np.minimum(times, self.flow.t[-1]))
        theory = [float(getattr(curves, row.observable)[place]) for place, row in enumerate(rows)]
        z = [abs(row.value - value) / row.error for row, value in zip(rows, theory, strict=True)]
        worst = int(np.argmax(z))
        return z[worst], rows[worst].place


def run(
    directory: Path,
    workers: int,
    tell: Callable[[str], None],
    cases: Sequence[Case] = CASES,
    replicas: Mapping[int, int] | None = None,
) -> dict[str, Found]:
    """Solve and simulate all cases, or read what is kept of them; with other ``replicas`` a dimension if given.

    Raises
    ------
    KeyboardInterrupt
        When interrupted; finished solutions and replicas are kept.
    """
    exact = [Run(case.name, case.problem, case.t_final, case.optimizer) for case in cases]
    flows = [Run(f"flow, {target}", Case(target, OPTIMIZERS[0]).problem, TIME) for target in ("index", "noise")]
    solutions = solve_all(exact + flows, directory / "solutions", 1, tell)
    found = {}
    for case in cases:
        solution = solutions[case.name]
        simulations = [
            simulation(
                case.name, case.problem, case.optimizer, recorded(solution), d, count, directory / "simulations",
                workers, tell,
            )
            for d, count in (replicas or case.replicas).items()
        ]  # fmt: skip
        report = compare(solution, simulations)
        found[case.name] = Found(solution, solutions[f"flow, {case.target}"], report)
    return found


def recorded(solution: Solution) -> np.ndarray:
    """Times of the curves: whole updates, equidistant in the logarithm where there are enough."""
    count = len(solution.t) - 1
    updates = np.unique(np.round(np.geomspace(1.0, count, RECORDED)).astype(int))
    return np.asarray(solution.t[np.concatenate([[0], updates])])


def simulation(
    name: str,
    problem: NetworkProblem,
    optimizer: Optimizer,
    times: np.ndarray,
    d: int,
    count: int,
    directory: Path,
    workers: int,
    tell: Callable[[str], None],
    model: str = "gaussian",
) -> Simulation:
    """Replicas 0 ... count - 1 to the last of the times, or what is kept of them.

    Raises
    ------
    KeyboardInterrupt
        When interrupted; finished replicas are kept.
    RuntimeError
        When replicas failed.
    """
    told = [problem.to_dict(), optimizer.to_dict(), d, count, times.tolist(), model, REVISION]
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    directory.mkdir(parents=True, exist_ok=True)
    file, store = directory / f"{key}.h5", directory / f"{key}.replicas"
    try:
        kept = dmft.load(file)
        if isinstance(kept, Simulation):
            return kept
    except (OSError, FileFormatError):
        pass
    made: Simulation = simulate(
        problem,
        d,
        t_final=float(times[-1]),
        replicas=count,
        model=model,
        optimizer=optimizer,
        test_samples=0 if model == "network" else None,
        times=times,
        pair_times=times[[len(times) // 3, 2 * len(times) // 3, -1]],
        workers=workers,
        checkpoint=store,
        resume=True,
    )
    if made.status is Status.INTERRUPTED:
        raise KeyboardInterrupt(made.message)
    if made.replicas < count:
        raise RuntimeError(f"{name}, d = {d}: {made.message}")
    made.save(file)
    discard(store)
    tell(f"{name}, d = {d}: {count} replicas, {made.wall_time:.0f} s of work")
    return made


# ------------------------------------------------------------------------------------------------------------ markdown


def markdown(found: Mapping[str, Found]) -> str:
    """A table: the exact theory and gradient flow against the same simulations."""
    lines = [
        "| target | optimiser | updates | d | comparisons | largest \\|z\\| | p | worst at | \\|z\\| of flow | at |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|---|",
    ]
    for case in CASES:
        if case.name not in found:
            continue
        one = found[case.name]
        worst = max(one.report.rows, key=lambda row: abs(row.z))
        flow, place = one.flow_z
        cells = [str(len(one.exact.t) - 1), f"{worst.dimensions[0]}–{worst.dimensions[-1]}", str(len(one.report.rows))]
        cells += [f"{one.report.max_abs_z:.2f}"]
        cells += [f"{one.report.p_value:.2g}", worst.place, f"{flow:.0f}", place]
        lines.append(f"| {case.target} | {words(case.optimizer)} | {' | '.join(cells)} |")
    scores = np.array([row.z for one in found.values() for row in one.report.rows if row.error > 0.0])
    lines += [
        "",
        f"{len(scores)} comparisons in all: root mean square of z {np.sqrt((scores**2).mean()):.2f}, "
        f"{(np.abs(scores) > 2.0).mean():.1%} beyond 2 (4.6% expected), largest {np.abs(scores).max():.2f}.",
    ]
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------------------------- figure


def plot(found: Mapping[str, Found], path: str | PathLike[str] | None = None) -> Figure:
    """Errors of the index target: exact theory, gradient flow and extrapolated simulations, a panel an optimiser."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [case for case in CASES if case.name in found and case.target == "index"][:6]
    with rc_context(_STYLE):
        figure = Figure(figsize=(9.6, 5.4), layout="constrained")
        panels = figure.subplots(2, 3, sharex=True, sharey=True).ravel()
        for panel, case in zip(panels, shown, strict=False):
            _draw(panel, case, found[case.name])
        for panel in panels[3:]:
            panel.set_xlabel(r"$t/(1-\beta)$")
        for panel in panels[::3]:
            panel.set_ylabel("error")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
        if path is not None:
            _write(figure, path)
    return figure


def _draw(panel: Axes, case: Case, one: Found) -> None:
    slow = 1.0 - case.optimizer.momentum
    for name, color, label in (("test_error", _ORANGE, "test"), ("train_error", _BLUE, "train")):
        later = one.flow.t > 0.02
        panel.loglog(
            one.flow.t[later], getattr(one.flow, name)[later], color=color, lw=1.0, ls=(0, (3, 2)),
            label=f"{label}, gradient flow",
        )  # fmt: skip
        panel.loglog(
            one.exact.t[1:] / slow, getattr(one.exact, name)[1:], color=color, lw=1.3, label=f"{label}, exact theory"
        )
        rows = [row for row in one.report.rows if row.observable == name and row.t > 0.0 and row.value > 0.0]
        panel.errorbar(
            [row.t / slow for row in rows], [row.value for row in rows], [2.0 * row.error for row in rows], fmt="o",
            ms=3.2, color=color, mfc="white", mew=0.9, lw=0.9, label=f"{label}, simulation, $d \\to \\infty$",
        )  # fmt: skip
    panel.set_xlim(0.2, 1.1 * TIME)
    panel.set_ylim(2e-3, 3.0)
    panel.set_title(words(case.optimizer).replace("η", r"$\eta$").replace("β", r"$\beta$"), fontsize=9, color=_GREY)
