"""The optimization threshold: n/d above which, in DMFT (d -> infinity), gradient flow never interpolates."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import dmft
from dmft._validate import boolean, integer, real, shown
from dmft.activations import Activation
from dmft.limits.base import LimitError
from dmft.limits.plateau import predicted_threshold
from dmft.problems.base import MAX_WIDTH
from dmft.targets import Target
from validation import replicas
from validation.comparison.words import aligned, rounded
from validation.optimization.runs import (
    ENGINE,
    MAX_ROWS,
    OTHER,
    OTHER_ROWS,
    OTHER_RTOL,
    EngineCheck,
    Question,
    Run,
    check_engines,
    solve_run,
)
from validation.thresholds.laws import Interval
from validation.thresholds.result import shown as interval_text
from validation.thresholds.search import SearchError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FloatArray = NDArray[np.float64]

HORIZON = 1e4
"""Default length of a run, in glass times."""
AROUND = 1.25
"""First bracket: the guess divided and multiplied by this."""
WIDENINGS = 8
"""How often the bracket may be doubled in ln(n/d)."""
INSIDE = 3
"""Points of a round, equidistant in ln(n/d) within the bracket."""
NEAR = 0.15
"""Largest distance (abar_c - abar)/abar of runs that the law of divergence is fitted to."""
FEWEST, MOST = 4, 8
"""Runs that it is fitted to, the nearest ones."""
MISFIT, FLATTEST = 0.05, 0.02
"""Largest deviation in ln(time) of a fit that is kept, and smallest exponent: flatter is no divergence."""
MORE_ROWS = 590
"""Rows allowed to a run that neither left its plateau nor reached the end in the usual number; still not thinned."""
DISTANCES = (0.004, 0.01, 0.025, 0.06)
"""Distances below the bracket of runs that the law of divergence lacks."""
FOLLOWED, LATER = 1000, 4.0
"""Rows allowed to the nearest run below, which is followed until it interpolates, and time after unlearning in n/d."""
BEYOND = 1.5
"""The other engine has this much of the time in which a run left its plateau to leave it as well."""
RISES = 8
"""How often the distance above the bracket is doubled to find a plateau that comes to rest."""


@dataclass(frozen=True, kw_only=True)
class OptimizationThreshold:
    """abar_c with its range and what it rests on. Times are t_mf = alpha t.

    Attributes
    ----------
    kind, symbol, varied : str
        "optimization", "abar_c", "sample_ratio".
    activation, target : dict
        As in a configuration.
    noise_std, a0 : float
    width : int or None
        m; None for m -> infinity at fixed n/d.
    value, low, high : float
        The threshold; the range ends with runs on either side, see ``evidence_low`` and ``evidence_high``.
    evidence_low, evidence_high : str
        What the ends of the range rest on, in words.
    divergence : Interval or None
        abar_c by the divergence of the time of unlearning alone; None if the runs below are too few.
    exponent : Interval or None
        z of time ~ (abar_c/abar - 1)^(-z), between the nearest runs and over the ways to fit.
    predicted : float or None
        `dmft.limits.plateau.predicted_threshold`, which is not used but as the place where to look; None if the theory
        does not cover the question.
    t_final : float
        Length of the runs in glass times, 1/(eps sqrt(h''(1))) with eps = tau/sqrt(abar).
    numerical_error : float
        Change of abar_c, relative, by which the time of the nearest run below changes when solved ten times more
        accurately; in the range of ``divergence``.
    train_end : float
        e_tr over tau^2/2 to which the run at ``low`` was followed; below 1e-2 it has interpolated.
    checks : tuple of EngineCheck
        Ends of the range, and what was given up as an end, by both engines; empty unless asked for.
    evidence : tuple of Run
        Every run, by n/d.
    notes : tuple of str
    verdict : str
        In a sentence.
    wall_time : float
        Seconds of solving, all processes together; what was kept from before counts as well.
    """

    activation: Mapping[str, Any]
    target: Mapping[str, Any]
    noise_std: float
    a0: float
    width: int | None
    value: float
    low: float
    high: float
    evidence_low: str
    evidence_high: str
    divergence: Interval | None
    exponent: Interval | None
    predicted: float | None
    t_final: float
    numerical_error: float | None
    train_end: float
    checks: tuple[EngineCheck, ...] = field(repr=False)
    evidence: tuple[Run, ...] = field(repr=False)
    notes: tuple[str, ...]
    verdict: str
    wall_time: float
    kind: str = "optimization"
    symbol: str = "abar_c"
    varied: str = "sample_ratio"

    @property
    def interval(self) -> Interval:
        """Value and range."""
        return Interval(value=self.value, low=self.low, high=self.high)

    def __str__(self) -> str:
        width = "m -> infinity" if self.width is None else f"m = {self.width}"
        lines = [
            f"{self.symbol} at tau = {self.noise_std:g}, a(0) = {self.a0:g}, {width}: {interval_text(self.interval)}"
        ]
        table = [["n/d", "rtol", "regime", "unlearns at", "v at the end", "drift", "ended at"]]
        for run in self.evidence:
            unlearning = "-" if run.unlearning is None else f"{run.unlearning:.5g}"
            drift = "-" if run.drift is None else f"{run.drift:.2f}"
            numbers = [f"{run.v_end:.4f}", drift, f"{run.t_end:.3g}"]
            table.append([f"{run.sample_ratio:.6g}", f"{run.rtol:.0e}", run.regime, unlearning, *numbers])
        lines.append(aligned(table))
        if self.divergence is not None and self.exponent is not None:
            lines.append(
                f"divergence: abar_c = {interval_text(self.divergence)}, exponent {interval_text(self.exponent)}"
            )
        if self.predicted is not None:
            lines.append(f"theory of the plateau: {self.predicted:.6g}")
        for check in self.checks:
            verdict = {True: "agree", False: "do not agree", None: "cannot be compared"}[check.agrees]
            lines.append(
                f"both engines at n/d = {check.sample_ratio:.6g}: {check.regime} and {check.other_regime}, {verdict}"
            )
        lines += [f"low: {self.evidence_low}", f"high: {self.evidence_high}"]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, self.verdict])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return asdict(self)

    def to_json(self, path: str | PathLike[str], *, digits: int = 8) -> None:
        """Write `to_dict` as JSON, whole or not at all.

        Raises
        ------
        OSError
            When the place cannot be written.
        """
        from dmft.files import atomic_write

        data = self.to_dict()
        exact = {name: data.pop(name) for name in ("activation", "target", "noise_std", "a0", "width")}
        data = rounded(json.loads(json.dumps(data)), digits) | exact
        atomic_write(path, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OptimizationThreshold:
        """Rebuild from `to_dict`, also after JSON."""
        intervals = {
            name: None if data[name] is None else Interval(**data[name]) for name in ("divergence", "exponent")
        }
        parts = {
            "checks": tuple(EngineCheck(**check) for check in data["checks"]),
            "evidence": tuple(Run(**run) for run in data["evidence"]),
            "notes": tuple(data["notes"]),
        }
        return cls(**{**data, **intervals, **parts})

    def plot(self, path: str | PathLike[str] | None = None) -> Figure:
        """Draw the time of unlearning against the distance to the threshold, and the overlap at the end of the runs.

        Parameters
        ----------
        path : path, optional
            Where to write the figure as well.

        Raises
        ------
        ValueError
            For a suffix that matplotlib does not know.
        OSError
            When the place cannot be written.
        """
        from validation.optimization.plots import plot_threshold

        return plot_threshold(self, path)


def optimization_threshold(
    activation: Activation,
    target: Target,
    noise_std: float,
    a0: float = 1.0,
    *,
    width: int | None = None,
    rtol: float = 1e-3,
    tolerance: float = 3e-3,
    t_final: float = HORIZON,
    both_engines: bool = False,
    workers: int | None = None,
    checkpoint: str | PathLike[str] | None = None,
    progress: Callable[[int, str], None] | None = None,
) -> OptimizationThreshold:
    """n/d above which gradient flow of a wide network, both layers trained, learns its target and never interpolates.

    "Never" is a statement about DMFT, d -> infinity at fixed n/d and m: networks of finite d were seen to leave the
    plateau above abar_c as well (docs/optimization.md).

    Below abar_c the network learns, lingers, then unlearns its target and interpolates; the time of unlearning
    diverges as abar -> abar_c. Above, it stays on a plateau near the truth. (With a fixed second layer there is
    nothing to grow: that threshold is `interpolation_threshold(a0=...)`.)

    Runs that leave the plateau and runs that do not within ``t_final`` are bracketed in ln(n/d) to ``tolerance``. A
    run above counts as evidence for never, and ends the range, only if its plateau comes to rest: in the last decade of
    time v has to move by less than 0.4 of what it moved in the one before. Runs that the solver gave up on are not
    evidence for anything. The ends of the range are solved again ten times more accurately and have to stay on their
    side. The divergence of times below gives a second estimate, abar_c and the exponent z of
    (abar_c/abar - 1)^(-z), by fits over different sets of points with and without a correction to scaling.

    Parameters
    ----------
    activation : Activation
    target : Target
        Has to be learnt from v = 0: g(0) != 0.
    noise_std : float
        tau > 0.
    a0 : float
        Second layer at t = 0, > 0. Beyond about the plateau's own a the threshold grows with it.
    width : int, optional
        Number of neurons m; the limit m -> infinity at fixed n/d when it is left out.
    rtol : float
        Accuracy of the runs.
    tolerance : float
        Relative width of the bracket at which to stop.
    t_final : float
        Length of the runs in units of the glass time 1/(eps sqrt(h''(1))), eps = tau/sqrt(abar).
    both_engines : bool
        Solve both ends of the range by collocation as well, a minute more, and widen it to where the engines agree.
    workers : int, optional
        Processes; all cores, at most three, when left out. The result does not depend on it.
    checkpoint : path, optional
        Directory where finished runs are kept, and found by a later call.
    progress : callable, optional
        Called after every run with the number of runs done and a sentence.

    Returns
    -------
    OptimizationThreshold

    Raises
    ------
    ValueError, TypeError
        Bad arguments, in one sentence.
    SearchError
        (a RuntimeError) when no threshold was bracketed.
    KeyboardInterrupt
        When interrupted; finished runs are in ``checkpoint``.
    """
    question = _question(activation, target, noise_std, a0, width)
    rtol = real("rtol", rtol, low=1e-7, high=1e-2)
    tolerance = real("tolerance", tolerance, low=1e-5, high=0.5)
    t_final = real("t_final", t_final, low=100.0, high=1e8)
    both_engines = boolean("both_engines", both_engines)
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be a function of a number and a sentence, got {type(progress).__name__}.")
    if checkpoint is not None and not isinstance(checkpoint, str | PathLike):
        raise TypeError(f"checkpoint must be a path, got {type(checkpoint).__name__}.")
    workers = integer("workers", min(INSIDE, os.cpu_count() or 1) if workers is None else workers, low=1)
    search = _Search(question, rtol, t_final, workers, None if checkpoint is None else Path(checkpoint), progress)
    try:
        predicted = predicted_threshold(activation, target, noise_std)
    except (LimitError, ValueError):
        predicted = None
    low, high = search.bracket(predicted if predicted is not None else _guess(question))
    low, high = search.narrow(low, high, tolerance)
    return _result(search, low, high, tolerance, predicted, both_engines)


def _question(activation: Any, target: Any, noise_std: Any, a0: Any, width: Any) -> Question:
    if not isinstance(activation, Activation):
        raise TypeError(f"activation must be a dmft.Activation, not {shown(activation)}.")
    if not isinstance(target, Target):
        raise TypeError(f"target must be a dmft.Target, not {shown(target)}.")
    resolved = target.resolve(activation)
    if resolved.latent_dimension != 1:
        raise ValueError(f"target must have one latent direction, not {resolved.latent_dimension}.")
    if not np.any(resolved.gradient(np.zeros(1))):
        raise ValueError("target must have a linear part that the activation sees: pure noise and the like are never "
                         "learnt, and always overfitted.")  # fmt: skip
    if not np.any(activation.covariance[2:]):
        raise ValueError("activation must not be linear: linear neurons learn only what one of them can.")
    return Question(
        activation=activation,
        target=target,
        noise_std=real("noise_std", noise_std, low=0.0, open_low=True),
        a0=real("a0", a0, low=0.0, open_low=True),
        width=None if width is None else integer("width", width, low=2, high=MAX_WIDTH),
    )


def _guess(question: Question) -> float:
    """Where to look without a theory: abar_c is a few hundred h''(1) tau^2 for what is covered by it."""
    return 300.0 * float(question.activation.d2h(1.0)) * question.noise_std**2


def _work(payload: tuple[Question, float, float, float, int, str]) -> dict[str, Any]:
    question, ratio, t_final, rtol, max_rows, method = payload
    run, _ = solve_run(question, ratio, t_final, rtol=rtol, max_rows=max_rows, method=method)
    return {"run": np.frombuffer(json.dumps(asdict(run)).encode(), dtype=np.uint8)}


class _Search:
    """Runs of one question, done once each."""

    def __init__(
        self,
        question: Question,
        rtol: float,
        t_final: float,
        workers: int,
        checkpoint: Path | None,
        progress: Callable[[int, str], None] | None,
    ) -> None:
        self.question, self.rtol, self.t_final = question, rtol, t_final
        self._workers, self._progress = workers, progress
        described = json.dumps([dmft.__version__, question.to_dict()], sort_keys=True)
        self._fingerprint = hashlib.sha256(described.encode()).hexdigest()[:16]
        self._store = None if checkpoint is None else checkpoint / f"{self._fingerprint}.replicas"
        self.runs: dict[str, Run] = {}

    def at(
        self, ratios: Sequence[float], *, finer: float = 1.0, until: float | None = None, max_rows: int = MAX_ROWS
    ) -> list[Run]:
        """Runs at these n/d, ``finer`` times more accurate than usual, to t_mf = ``until`` or the usual end.

        Raises
        ------
        KeyboardInterrupt
            When interrupted.
        SearchError
            When a run cannot be done at all.
        """
        found = self._solved(ratios, self.rtol / finer, until, max_rows, ENGINE)
        short = [run.sample_ratio for run in found if run.regime == "unfinished" and run.status == "step_limit"]
        if short and until is None and max_rows < MORE_ROWS:
            longer = dict(zip(short, self.at(short, finer=finer, max_rows=MORE_ROWS), strict=True))
            for key in [key for key, run in self.runs.items() if any(run is one for one in found)]:
                if self.runs[key].sample_ratio in longer:
                    self.runs.pop(key)
            found = [longer.get(run.sample_ratio, run) for run in found]
        return found

    def check(self, end: str, run: Run) -> EngineCheck:
        """A run, of the low or high end, and the same n/d by the other engine; raises like `at`."""
        until = None if run.unlearning is None else BEYOND * (run.halving or run.unlearning)
        (other,) = self._solved([run.sample_ratio], OTHER_RTOL, until, OTHER_ROWS, OTHER)
        return check_engines(end, run, other)

    def _solved(
        self, ratios: Sequence[float], rtol: float, until: float | None, max_rows: int, method: str
    ) -> list[Run]:
        tasks = []
        for ratio in ratios:
            t_final = self.t_final * self.question.glass_time(ratio) if until is None else until
            payload = (self.question, ratio, t_final, rtol, max_rows, method)
            tasks.append(replicas.Task(f"{ratio!r}-{t_final:.6g}-{rtol:g}-{max_rows}-{method}", payload))
        missing = [task for task in tasks if task.key not in self.runs]
        outcome = replicas.run(
            _work,
            missing,
            workers=min(self._workers, max(1, len(missing))),
            store=self._store,
            resume=self._store is not None and self._store.exists(),
            fingerprint=self._fingerprint,
        )
        if outcome.interrupted:
            raise KeyboardInterrupt
        if outcome.failures:
            raise SearchError(f"a run could not be done: {next(iter(outcome.failures.values()))}.")
        for key, arrays in outcome.results.items():
            run = Run(**json.loads(arrays["run"].tobytes()))
            self.runs[key] = run
            if self._progress is not None:
                when = "" if run.unlearning is None else f", leaves the plateau at t_mf = {run.unlearning:.4g}"
                self._progress(len(self.runs), f"n/d = {run.sample_ratio:.6g} {run.regime}{when} ({run.method})")
        return [self.runs[task.key] for task in tasks]

    def bracket(self, guess: float) -> tuple[float, float]:
        """n/d that leaves the plateau, and n/d that does not, around a guess."""
        step = math.log(AROUND)
        limit = math.inf if self.question.width is None else 0.999 * self.question.width
        low = high = None
        for widening in range(WIDENINGS):
            reach = step * 2**widening
            ratios = sorted({min(guess * math.exp(sign * reach), limit) for sign in (-1, 1)})
            wanted = [x for x in ratios if (x < guess and low is None) or (x >= guess and high is None)]
            for run in self.at(wanted):
                if run.leaves:
                    low = max(low or 0.0, run.sample_ratio)
                elif run.regime == "plateau":
                    high = min(high or math.inf, run.sample_ratio)
            if low is not None and high is not None and low < high:
                return low, high
        below = "no n/d was seen to leave the plateau" if low is None else f"n/d = {low:.4g} leaves the plateau"
        above = "none was seen to stay on it" if high is None else f"n/d = {high:.4g} stays on it"
        # alpha = n/(m d) < 1: with more samples than m d no network interpolates, by whatever path.
        capped = "" if guess < limit else f" n/d stays below m here: a threshold needs width above about {guess:.4g}."
        raise SearchError(f"no threshold was bracketed around n/d = {guess:.4g}: {below}, and {above}.{capped}")

    def narrow(self, low: float, high: float, tolerance: float) -> tuple[float, float]:
        """The bracket, refined."""
        while high > low * (1.0 + tolerance):
            shares = [(i + 1) / (INSIDE + 1) for i in range(INSIDE)]
            runs = self.at([low * (high / low) ** share for share in shares])
            left = [run.sample_ratio for run in runs if run.leaves]
            kept = [run.sample_ratio for run in runs if run.regime == "plateau"]
            new_low = max([low, *left])
            new_high = min([high, *(x for x in kept if x > new_low)])
            if (new_low, new_high) == (low, high):
                break  # runs that the solver gave up on fill the bracket
            low, high = new_low, new_high
        return low, high


def divergence_fits(ratios: FloatArray, times: FloatArray) -> list[tuple[float, float, float]]:
    """Fits of ln t = A - z ln d + B d, d = abar_c/abar - 1, with B free or 0, to different sets of the nearest points.

    Parameters
    ----------
    ratios, times : (N,)
        n/d in falling order, and times.

    Returns
    -------
    list of (abar_c, z, misfit)
        Those that describe their points; misfit is the largest deviation in ln t.
    """
    from scipy.optimize import minimize_scalar

    found = []
    for first, count, corrected in itertools.product((0, 1), range(FEWEST, MOST + 1), (False, True)):
        x, y = ratios[first : first + count], np.log(times[first : first + count])
        if len(x) < count or count < FEWEST + corrected:
            continue

        def solve(log_gap: float, x: FloatArray = x, y: FloatArray = y, more: bool = corrected) -> tuple[Any, Any]:
            d = x[0] * (1.0 + math.exp(log_gap)) / x - 1.0
            columns = [np.ones_like(d), -np.log(d), *([d] if more else [])]
            design = np.stack(columns, axis=1)
            solution = np.linalg.lstsq(design, y, rcond=None)[0]
            return solution, y - design @ solution

        grid = np.linspace(math.log(1e-5), math.log(NEAR), 60)
        costs = [float(np.sum(solve(g)[1] ** 2)) for g in grid]
        best = int(np.argmin(costs))
        if best in (0, len(grid) - 1):
            continue  # the points do not say where the time diverges
        gap = minimize_scalar(
            lambda g: float(np.sum(solve(g)[1] ** 2)), bounds=(grid[best - 1], grid[best + 1]), method="bounded"
        ).x
        solution, residual = solve(gap)
        misfit = float(np.abs(residual).max())
        if misfit < MISFIT and solution[1] > FLATTEST:
            found.append((float(x[0] * (1.0 + math.exp(gap))), float(solution[1]), misfit))
    return found


def _divergence(runs: Sequence[Run], low: float, high: float, change: float) -> tuple[Interval | None, Interval | None]:
    """abar_c and z from the runs that left the plateau; ``change`` is the relative numerical error."""
    left = sorted((run for run in runs if run.leaves and run.unlearning is not None), key=lambda run: -run.sample_ratio)
    left = [run for run in left if high / run.sample_ratio - 1.0 < NEAR]
    ratios = np.array([run.sample_ratio for run in left])
    times = np.array([run.unlearning for run in left], dtype=float)
    fits = [fit for fit in divergence_fits(ratios, times) if low < fit[0]]
    if len(fits) < 2:
        return None, None
    values, exponents = (np.array(column) for column in list(zip(*fits, strict=True))[:2])
    slope = -np.diff(np.log(times)) / np.diff(np.log(np.median(values) / ratios - 1.0)) if len(times) > 1 else exponents
    everything = np.concatenate([exponents, slope[:2]])
    return (
        Interval(value=float(np.median(values)), low=float(values.min()), high=float(values.max())).widened(
            change * float(np.median(values))
        ),
        Interval(value=float(np.median(exponents)), low=float(everything.min()), high=float(everything.max())),
    )


def _low_end(
    search: _Search, low: float, both_engines: bool, notes: list[str], checks: list[EngineCheck]
) -> tuple[Run, Run]:
    """The run at the largest n/d up to ``low`` that leaves the plateau at both accuracies, and the finer one.

    With ``both_engines`` the other one must not deny it.
    """
    usual = {run.sample_ratio: run for run in search.runs.values() if run.rtol == search.rtol and run.method == ENGINE}
    for ratio in sorted((x for x, run in usual.items() if run.leaves and x <= low), reverse=True):
        (finer,) = search.at([ratio], finer=10.0)
        if not finer.leaves:
            notes.append(f"n/d = {ratio:.6g} leaves the plateau at rtol {search.rtol:g}, not at {search.rtol / 10:g}.")
            continue
        if both_engines:
            checks.append(search.check("low", finer))
            if checks[-1].agrees is False:
                notes.append(f"n/d = {ratio:.6g} leaves the plateau by {ENGINE}, not by {OTHER}.")
                continue
        return usual[ratio], finer
    raise SearchError("no run left the plateau at the finer accuracy.")


def _high_end(
    search: _Search,
    low: float,
    high: float,
    tolerance: float,
    both_engines: bool,
    notes: list[str],
    checks: list[EngineCheck],
) -> tuple[float, bool]:
    """Smallest n/d from ``high`` on whose plateau comes to rest, at both accuracies; False if there is none.

    With ``both_engines`` the other one must not deny that it stays.
    """
    for rise in range(RISES):
        ratio = high * (1.0 + tolerance * (2**rise - 1))
        (run,) = search.at([ratio])
        if not run.settles:
            continue
        (finer,) = search.at([ratio], finer=10.0)
        if not finer.settles:
            notes.append(f"n/d = {ratio:.6g} comes to rest at rtol {search.rtol:g}, and not at {search.rtol / 10:g}.")
            continue
        if both_engines:
            checks.append(search.check("high", finer))
            if checks[-1].agrees is False:
                notes.append(f"n/d = {ratio:.6g} stays on the plateau by {ENGINE}, not by {OTHER}.")
                continue
        if ratio > high:
            notes.append(f"between n/d = {high:.6g} and {ratio:.6g} runs neither left the plateau nor came to rest.")
        return ratio, True
    if both_engines:
        checks.append(search.check("high", search.at([high])[0]))
    return high, False


def _result(
    search: _Search, low: float, high: float, tolerance: float, predicted: float | None, both_engines: bool
) -> OptimizationThreshold:
    notes: list[str] = []
    checks: list[EngineCheck] = []
    near = [run for run in search.runs.values() if run.leaves and low / run.sample_ratio - 1.0 < NEAR]
    if len(near) < FEWEST + 2:
        search.at([low / (1.0 + distance) for distance in DISTANCES])
    coarse, finer = _low_end(search, low, both_engines, notes, checks)
    low = coarse.sample_ratio
    end = next(run.t_end for run in search.at([high]))
    high, settles = _high_end(search, low, high, tolerance, both_engines, notes, checks)
    usual = [run for run in search.runs.values() if run.rtol == search.rtol and run.method == ENGINE]
    evidence_high = (
        f"at n/d = {high:.6g} the plateau comes to rest: v moves less from decade to decade of time"
        if settles
        else f"not by t_mf = {end:.3g}, which is all that is known of n/d = {high:.6g}"
    )
    evidence_low = f"n/d = {low:.6g} leaves the plateau at t_mf = {finer.departure:.5g}"
    furthest = min(coarse, finer, key=lambda run: run.train_end)
    if "interpolates" not in (coarse.regime, finer.regime):
        until = (finer.unlearning or finer.t_end) + LATER * low
        (followed,) = search.at([low], until=until, max_rows=FOLLOWED)
        furthest = min(furthest, followed, key=lambda run: run.train_end)
    interpolated = next((run for run in (finer, coarse, furthest) if run.regime == "interpolates"), None)
    if interpolated is not None:
        evidence_low += f" and interpolates at {interpolated.interpolation:.5g}"
    else:
        evidence_low += (
            f", and e_tr had fallen to {furthest.train_end:.2g} tau^2/2 when the run ended at {furthest.t_end:.5g}"
        )
    change = None
    before, after = coarse.unlearning, finer.unlearning
    if before is not None and after is not None:
        change = abs(math.log(after / before)) * max(high / low - 1.0, 0.0)
    divergence, exponent = _divergence(usual, low, high, change or 0.0)
    value = math.sqrt(low * high)
    if divergence is not None and low < divergence.value < high:
        value = divergence.value
    elif divergence is not None:
        notes.append(
            f"the times of unlearning, fitted, put the threshold at {interval_text(divergence)}, outside of the range."
        )
    unknown = [run.sample_ratio for run in usual if run.regime == "unfinished"]
    if unknown:
        notes.append("not used, as the solver gave up: n/d = " + ", ".join(f"{x:.6g}" for x in sorted(unknown)) + ".")
    question = search.question
    evidence = tuple(sorted(search.runs.values(), key=lambda run: (run.sample_ratio, -run.rtol, run.rows)))
    interval = Interval(value=value, low=low, high=high)
    what = "unlearns the target and interpolates" if interpolated is not None else "unlearns the target"
    verdict = (
        f"From a(0) = {question.a0:g} gradient flow {what} up to n/d = "
        f"{interval_text(interval)} ({100.0 * max(high - value, value - low) / value:.2g} %)"
        + (", and beyond it stays on a plateau." if settles else f"; beyond, not by t_mf = {end:.3g}.")
    )
    return OptimizationThreshold(
        activation=question.activation.to_dict(),
        target=question.target.to_dict(),
        noise_std=question.noise_std,
        a0=question.a0,
        width=question.width,
        value=value,
        low=low,
        high=high,
        evidence_low=evidence_low,
        evidence_high=evidence_high,
        divergence=divergence,
        exponent=exponent,
        predicted=predicted,
        t_final=search.t_final,
        numerical_error=change,
        train_end=furthest.train_end,
        checks=tuple(checks),
        evidence=evidence,
        notes=tuple(notes),
        verdict=verdict,
        wall_time=sum(run.wall_time for run in evidence),
    )
