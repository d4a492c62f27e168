"""What learning rate, momentum and batches do to learning, unlearning and the final errors.

One network of [MU] figure 24 (single index, mean-field start, 16 neurons), trained to t = 20 m by gradient flow and by
every optimiser on a grid; and batches that get smaller at a fixed ratio of learning rate and batch fraction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmft.activations import Activation
from dmft.optimizers import SGD, GradientDescent, Momentum, Optimizer
from dmft.problems import SymmetricProblem
from dmft.solution import Solution
from dmft.status import Status
from dmft.targets import Target
from validation.descent.edge import linear_rate
from validation.descent.runs import Run, solve_all

FloatArray = NDArray[np.float64]

CUBIC = Activation.from_covariance([0, 0.9, 0, 1 / 6])
PROBLEM = SymmetricProblem(width=16, alpha=0.3, noise_std=0.6, a0=1.0, activation=CUBIC, target=Target.same_as(CUBIC))
END = 320.0
FLOW = "gradient flow"

RATES = (0.8, 1.2, 1.6, 2.0, 2.4, 3.2, 4.8, 6.4, 9.6)
MOMENTA = (0.5, 0.9)
BATCHES = (0.5, 0.25, 0.1)
BATCH_RATES = (0.8, 1.2, 1.6, 2.4, 3.2)

LIMIT_RATIO, LIMIT_END = 8.0, 32.0
LIMIT_BATCHES = (0.4, 0.2, 0.1, 0.05, 0.025)
"""Learning rate over batch fraction, the last time, and the batch fractions of the limit of small batches."""


def family(optimizer: Optimizer | None) -> str:
    """Optimisers that differ in their learning rate only have one name."""
    if optimizer is None:
        return FLOW
    words = "gradient descent"
    if optimizer.batch_fraction < 1.0:
        words = f"b = {optimizer.batch_fraction:g}" + (", epochs" if optimizer.sampling == "epochs" else "")
    if optimizer.momentum > 0.0:
        heavy = f"momentum {optimizer.momentum:g}"
        words = f"{words}, {heavy}" if optimizer.batch_fraction < 1.0 else heavy
    return words


def effective_rate(optimizer: Optimizer) -> float:
    """Learning rate over 1 - momentum: with it small steps follow one and the same flow."""
    return optimizer.learning_rate / (1.0 - optimizer.momentum)


def effective_time(solution: Solution) -> FloatArray:
    """Time of the flow that small steps follow: t/(1 - momentum)."""
    momentum = 0.0 if solution.optimizer is None else solution.optimizer.momentum
    return solution.t / (1.0 - momentum)


def steepest(learning_rate: float, momentum: float = 0.0) -> float:
    """gamma_c = a/sqrt(m) at which the largest curvature of the loss is 2 (1 + momentum)/learning_rate.

    That curvature is gamma^2 h'(0) (1 + 1/sqrt(alpha m))^2, of the linear part of all neurons together: the upper edge
    of the Marchenko-Pastur law of n samples in d dimensions. At a larger gamma updates overshoot ever more.
    """
    return math.sqrt(linear_rate(PROBLEM, math.sqrt(PROBLEM.width)) * (1.0 + momentum) / learning_rate)


def grid() -> list[Run]:
    """Gradient flow, and the optimisers on the grid of learning rates."""
    made: list[Optimizer] = [GradientDescent(learning_rate=rate) for rate in RATES]
    made += [Momentum(learning_rate=rate * (1.0 - beta), momentum=beta) for beta in MOMENTA for rate in RATES]
    made += [
        SGD(learning_rate=rate, batch_fraction=batch, sampling=sampling)
        for batch in BATCHES
        for sampling in ("fresh", "epochs")
        for rate in BATCH_RATES
    ]
    return [Run(FLOW, PROBLEM, END)] + [
        Run(f"{family(one)}, eta = {one.learning_rate:g}", PROBLEM, END * (1.0 - one.momentum), one) for one in made
    ]


def small_batches() -> list[Run]:
    """Ever smaller batches at a fixed ratio of learning rate and batch fraction."""
    return [
        Run(f"limit, {family(one)}", PROBLEM, LIMIT_END, one)
        for sampling in ("fresh", "epochs")
        for batch in LIMIT_BATCHES
        for one in [SGD(learning_rate=LIMIT_RATIO * batch, batch_fraction=batch, sampling=sampling)]
    ]


def run(directory: Path, workers: int, tell: Callable[[str], None]) -> dict[str, Solution]:
    """All runs of the study, or what is kept of them."""
    return solve_all(grid() + small_batches(), directory, workers, tell)


# ------------------------------------------------------------------------------------------------------ what they say


@dataclass(frozen=True)
class Reading:
    """What a run says.

    Attributes
    ----------
    least, when : float
        Smallest test error and its effective time.
    last : float
        Effective time of the last row.
    test_error, train_error, gamma, v : float
        Averages over the last tenth of the time, which are those of the last row unless the curves oscillate.
    rising : float
        Share of the updates of the last tenth at which the train error is above that of one epoch before.
    """

    least: float
    when: float
    last: float
    test_error: float
    train_error: float
    gamma: float
    v: float
    rising: float


def read(solution: Solution) -> Reading:
    """The numbers of the table."""
    t = effective_time(solution)
    best = int(np.argmin(solution.test_error))
    late = t >= 0.9 * t[-1]
    epoch = 1 if solution.optimizer is None else solution.optimizer.updates_per_epoch
    risen = (solution.train_error[epoch:] > solution.train_error[:-epoch])[late[epoch:]]
    return Reading(
        least=float(solution.test_error[best]),
        when=float(t[best]),
        last=float(t[-1]),
        test_error=float(solution.test_error[late].mean()),
        train_error=float(solution.train_error[late].mean()),
        gamma=float(solution.gamma[late].mean()),
        v=float(solution.v[late].mean()),
        rising=float(risen.mean()) if len(risen) else 0.0,
    )


def limit_of_small_batches(found: Mapping[str, Solution], sampling: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Test errors (B, T) of `LIMIT_BATCHES` at common times (T,), and what they tend to as b -> 0 (T,).

    The limit is that of the last two by Richardson extrapolation at first order in b.
    """
    runs = [run for run in small_batches() if run.optimizer is not None and run.optimizer.sampling == sampling]
    solutions = [found[run.name] for run in runs]
    coarse = max(solution.t[1] for solution in solutions)
    times = coarse * np.arange(1, int(LIMIT_END / coarse * (1.0 + 1e-9)) + 1)
    curves = np.array([np.interp(times, solution.t, solution.test_error) for solution in solutions])
    b = np.array(LIMIT_BATCHES)
    limit: FloatArray = (b[-2] * curves[-1] - b[-1] * curves[-2]) / (b[-2] - b[-1])
    return times, curves, limit


def distances(curves: FloatArray, limit: FloatArray) -> FloatArray:
    """Largest distance of each curve from the limit, over the largest value of the limit."""
    result: FloatArray = np.abs(curves - limit).max(axis=1) / np.abs(limit).max()
    return result


# ------------------------------------------------------------------------------------------------------------ markdown


def markdown(found: Mapping[str, Solution]) -> str:
    """Two tables."""
    lines = [
        "| optimiser | η | smallest e_ts | at t/(1-β) | last e_ts | last e_tr | γ | v | e_tr rises | ended |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for run in grid():
        solution, one = found[run.name], read(found[run.name])
        rate = "" if run.optimizer is None else f"{run.optimizer.learning_rate:.3g}"
        why = "rounding" if solution.status is Status.TOLERANCE_NOT_MET else solution.status.value
        ended = "" if solution.status.ok else f"{why} at t/(1-β) = {one.last:.3g}"
        cells = [f"{one.least:.4f}", f"{one.when:.3g}", f"{one.test_error:.4f}", f"{one.train_error:.2g}"]
        cells += [f"{one.gamma:.3f}", f"{one.v:.3f}", f"{one.rising:.0%}", ended]
        lines.append(f"| {family(run.optimizer)} | {rate} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Small batches at η/b = {LIMIT_RATIO:g} to t = {LIMIT_END:g}: largest distance of e_ts from b → 0.",
        "",
    ]
    lines.append("| batches | " + " | ".join(f"b = {b:g}" for b in LIMIT_BATCHES) + " | order |")
    lines.append("|---|" + "---:|" * (len(LIMIT_BATCHES) + 1))
    limits = []
    for sampling in ("fresh", "epochs"):
        _, curves, limit = limit_of_small_batches(found, sampling)
        limits.append(limit)
        away = distances(curves, limit)
        order = _order(LIMIT_BATCHES[1:4], away[1:4])
        lines.append(f"| {sampling} | " + " | ".join(f"{one:.2g}" for one in away) + f" | {order:.2f} |")
    apart = np.abs(limits[0] - limits[1]).max() / np.abs(limits[0]).max()
    lines += ["", f"The two limits are {apart:.1g} apart at most."]
    return "\n".join(lines)


def _order(b: Sequence[float], away: FloatArray) -> float:
    return float(np.polyfit(np.log(b), np.log(away), 1)[0])
