"""The contract of an engine, for discrete optimisers."""

from __future__ import annotations

import math
import time as clock
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from dmft._machine import available_memory
from dmft.optimizers import check_problem
from dmft.solution import Solution, Stats, mode_names
from dmft.status import Status
from solvers.base import Progress, ProgressCallback
from solvers.checkpoint import Checkpointer
from solvers.descent import DescentOptions
from solvers.descent.rows import FloatArray, Rows, cost, rows_that_fit, thinned_cost
from solvers.descent.thinning import LEAST, difference, rows_to_keep, thinned

if TYPE_CHECKING:
    from dmft.problems import Problem

TABLE = 200
"""Half of the rows of the two-time table, at most; all rows are kept if they are no more than twice this."""
GROWN = 1e6
"""E[r^2] over its start, or over tau^2 + |phi|^2 if that is more, at which a run has diverged."""
LOST = 0.01
"""Estimated error, of E[r^2], from which a row says nothing."""
NEGATIVE = 3.0
"""-E[r^2] over its rounding at which that is plainly more than estimated."""
ALTERNATING = 0.1
"""Share of E[r^2] in which residuals change sign at every update, from which on a rise is an instability."""
FINISHED = 1e-8
"""E[r^2] over its start below which its rounding is of no interest."""
LEAST_START = 1e-10
"""Start of e_tr over tau^2 + |phi|^2, at least: of networks that start at zero error."""
ROUNDING = 64.0 * float(np.finfo(np.float64).eps)
"""Rounding of a sum over the size of its terms (measured against extended precision), and of C."""
LONG = 60.0
"""Seconds from which on a run says beforehand what it takes."""
WIDEST = 0.07
"""Gap between kept updates over the distance from the first and the newest, at most."""
CLOSER = 0.7
"""By what it is lowered when the error is too large."""
SHARE = 0.75
"""Rows kept by a thinning over rows before, at most."""
BINOMIAL = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / 16.0
"""Fourth difference of a sequence that alternates, over its amplitude."""
REPEATED = 0.1
"""Rows of the history that a thinned one computes again, to measure its error."""


class DescentEngine:
    """Makes the updates of symmetric, grouped and general networks; contract of :mod:`solvers.base`.

    Parameters
    ----------
    problem : Problem
        A network of finite width.
    options : DescentOptions
        ``t_final`` is rounded down to whole updates, and must hold one.

    Warns
    -----
    UserWarning
        From `run`, once each: before runs of more than a minute, and when the history cannot be thinned.

    Raises
    ------
    ValueError
        For other problems, for tables that do not fit into memory, and when the first update overflows.
    """

    def __init__(self, problem: Problem, options: DescentOptions) -> None:
        check_problem(problem)
        self.problem, self.options = problem, options
        optimizer = options.optimizer
        self.step = optimizer.step(problem)
        self.updates = optimizer.updates(problem, options.t_final)
        self._total = min(self.updates + 1, options.max_rows)
        # Updates of one epoch know of each other: their S and V are neither smooth nor one spike.
        self._thins = options.thinning > 0.0 and optimizer.updates_per_epoch == 1
        self._thin_at = options.max_history
        capacity = min(self._total, options.max_history + 2) if self._thins else self._total
        form = problem.formulation()
        self._check_memory(capacity)
        self._rows = Rows(
            form,
            capacity,
            self.step,
            optimizer.momentum,
            optimizer.batch_fraction,
            optimizer.updates_per_epoch,
            self._total,
        )
        self._spacing, self._thinnings, self._warned = WIDEST, 0, False
        self._error, self._floor, self._peak = 0.0, 1.0, 0.0
        self._rounding, self._lost, self._unstable = 0.0, 0.0, 0
        if not self._rows.compute():
            raise ValueError(
                f"learning_rate = {optimizer.learning_rate:g} is too large: the first update is not finite."
            )
        self._rows.accept()
        self._start = max(float(self._rows.tables.errors[0, 0]), LEAST_START * form.offset)

    def _check_memory(self, rows: int) -> None:
        form = self.problem.formulation()
        epoch = self.options.optimizer.updates_per_epoch
        need, available = cost(form, rows, epoch), available_memory()
        if need.memory > available:
            fit = max(0, rows_that_fit(form, available, epoch) - 1)
            made = f"{self.updates} updates of {self.step:.6g}, of which {self._total - 1} (max_rows)"
            if self._thins and rows < self._total:
                made += f" with a history of {self.options.max_history} rows"
            elif epoch > 1:
                made += ", whose history is not thinned (sampling='epochs'),"
            raise ValueError(
                f"t_final = {self.options.t_final:g} is {made} need {need.memory / 1e9:.3g} GB and about "
                f"{need.seconds:.2g} s; {available / 1e9:.3g} GB are available, enough for {fit} updates."
            )

    def _announce(self) -> None:
        """Say beforehand what a long run takes."""
        form, epoch = self.problem.formulation(), self.options.optimizer.updates_per_epoch
        kept = self._rows.capacity
        need = cost(form, self._total, epoch)
        if kept < self._total:
            need = thinned_cost(form, self._total, self.options.max_history)
        if need.seconds > LONG:
            why = ", all of which are kept (sampling='epochs' is not thinned)" if epoch > 1 else ""
            warnings.warn(
                f"{self._total - 1} updates with {kept} rows of history{why} need {need.memory / 1e9:.2g} GB and about "
                f"{need.seconds:.2g} s.",
                UserWarning,
                stacklevel=2,
            )

    @property
    def _time(self) -> float:
        """Time of the newest row."""
        return (self._rows.made - 1) * self.step

    def run(self, progress: ProgressCallback | None, checkpointer: Checkpointer, resume: bool) -> Solution:
        """Make all updates, or as many as go."""
        start = clock.perf_counter()
        if resume:
            self._restore(*checkpointer.read())
        self._announce()
        status, message = Status.DONE, ""
        end = self.updates * self.step
        try:
            while self._rows.made < self._total:
                rows = self._rows
                status, trouble = Status.DIVERGED, "is not finite"
                if rows.compute():
                    status, trouble = self._trouble(float(rows.tables.errors[rows.rows, 0]))
                if trouble:
                    message = (
                        f"update {rows.made} at t = {rows.made * self.step:.6g} {trouble}; the rows before it are "
                        "kept, try a smaller learning_rate"
                    )
                    break
                rows.accept()
                self._watch()
                if self._thins and rows.rows > self._thin_at and rows.made < self._total:
                    message = self._thin()
                    if message:
                        status = Status.STEP_LIMIT
                        break
                if checkpointer.due():
                    checkpointer.write(*self._snapshot())
                if progress is not None:
                    wall = clock.perf_counter() - start
                    progress(Progress(self._time, end, self.step, self._rows.made, wall))
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
            message = f"interrupted at t = {self._time:.6g} of {end:.6g}; resume from the checkpoint to go on"
            checkpointer.write(*self._snapshot())
        if status is Status.DONE and self._rows.made <= self.updates:
            status = Status.STEP_LIMIT
            message = f"stopped after {self._rows.made} rows at t = {self._time:.6g}; raise max_rows or learning_rate"
        if status is Status.DONE:
            message = f"reached t = {self._time:.6g} in {self.updates} updates"
            if self._thinned_error > LOST:
                status = Status.TOLERANCE_NOT_MET
                message += (
                    "; rows have begun to alternate from update to update after the history was thinned, and errors "
                    f"may have grown with them to {self._thinned_error:.2g}: lower learning_rate, or set thinning = 0"
                )
        if self._unstable:
            message += (
                f"; training is unstable at update {self._unstable} (residuals alternate and grow), from where on "
                "errors can exceed stats.estimated_error and only averages over time are sure"
            )
        return self._solution(status, message, clock.perf_counter() - start)

    def _trouble(self, square: float) -> tuple[Status, str]:
        """What is wrong with a row of this E[r^2], in words; nothing if it can be trusted."""
        if square > GROWN * max(self._start, self._rows.form.offset):
            return Status.DIVERGED, f"has a train error {square / self._start:.2g} times that of the start"
        # What rounding has done to earlier rows stays.
        self._rounding = max(self._rounding, ROUNDING * float(self._rows.local.size[0]))
        lost = self._rounding / max(square, FINISHED * self._start)
        if lost > LOST or square < -NEGATIVE * self._rounding:
            where = "is where rounding, which grows while training is unstable, reaches 1 % of the train error"
            return Status.TOLERANCE_NOT_MET, where
        self._lost = max(self._lost, lost)
        return Status.DONE, ""

    def _watch(self) -> None:
        """Note what the row just made says of stability."""
        if self._rows.rows > 5:
            share = self._alternation()
            if self._thinnings:
                self._peak = max(self._peak, share)
            before, now = self._rows.curves.errors[self._rows.made - 2 : self._rows.made, 0]
            whole = self.options.optimizer.batch_fraction == 1.0  # the noise of batches raises the train error too
            if whole and not self._unstable and share > ALTERNATING and now > before > FINISHED * self._start:
                self._unstable = self._rows.made - 1

    def _thin(self) -> str:
        """Drop rows, as many as the tolerance allows; in words why the run cannot go on, if it cannot.

        The thinned history starts some updates back, and makes them again: what differs then is its error.
        """
        rows, options = self._rows, self.options
        again = max(10, int(REPEATED * rows.rows))
        base = rows.rows - again
        spacing, least = min(WIDEST, self._spacing / CLOSER), math.inf
        while True:
            keep = rows_to_keep(rows.update[: base + 1], spacing)
            if len(keep) > SHARE * rows.rows:
                break
            thin_at = max(int(1.4 * len(keep)) + again, min(options.max_history, 2 * len(keep)))
            other = thinned(rows, keep, thin_at + 2)
            for _ in range(again):
                if not other.compute():
                    break
                other.accept()
            if other.made == rows.made:
                error = difference(rows, other, rows.made - again, thin_at - len(keep))
                if error <= options.thinning:
                    self._rows, self._thin_at, self._spacing = other, thin_at, spacing
                    self._thinnings += 1
                    self._error = self._thinned_error + error
                    self._floor, self._peak = max(self._alternation(), error), 0.0
                    return ""
                least = min(least, error)
            spacing *= CLOSER
        self._thin_at, self._spacing = int(1.4 * rows.rows), WIDEST
        size = min(self._thin_at + 2, rows.rows + self._total - rows.made)
        form = rows.form
        why = f"the history of {rows.rows} rows at update {rows.made} cannot be thinned at thinning = "
        why += f"{options.thinning:.2g}: rows are not smooth from update to update, or the train error is too small"
        need, available = cost(form, size).memory, available_memory()
        if need > available:
            return (
                f"stopped after {rows.made} rows at t = {self._time:.6g}: {why}; {size} rows need {need / 1e9:.3g} GB "
                f"and {available / 1e9:.3g} GB are available"
            )
        if not self._warned and math.isfinite(least):
            self._warned = True
            warnings.warn(
                f"{why} (least error {least:.2g}); all are kept, and time and memory grow.", UserWarning, stacklevel=2
            )
        rows.reserve(size)
        return ""

    def _alternation(self) -> float:
        """Share of E[r^2] in which residuals change sign from update to update: their fourth differences."""
        rows = self._rows
        n = np.arange(rows.rows - 5, rows.rows)
        high, low = np.maximum(n[:, None], n), np.minimum(n[:, None], n)
        correlation = rows.tables.v_r[high * (high + 1) // 2 + low]
        np.fill_diagonal(correlation, rows.tables.errors[n, 0])
        size = max(float(correlation[-1, -1]), LEAST * self._start)
        return abs(float(BINOMIAL @ correlation @ BINOMIAL)) / size

    @property
    def _estimated_error(self) -> float:
        """Of rounding, and the sum over thinnings times the growth since then of the part that alternates."""
        return self._lost + self._thinned_error

    @property
    def _thinned_error(self) -> float:
        return self._error * max(1.0, self._peak / self._floor)

    def _snapshot(self) -> tuple[dict[str, Any], dict[str, Any]]:
        record = {
            "thin_at": self._thin_at,
            "spacing": self._spacing,
            "thinnings": self._thinnings,
            "errors": [self._error, self._floor, self._peak, self._rounding, self._lost, self._unstable],
            "warned": self._warned,
        }
        return self._rows.state(), record

    def _restore(self, arrays: dict[str, Any], record: dict[str, Any]) -> None:
        self._rows.restore(arrays)
        self._thin_at, self._spacing = record["thin_at"], record["spacing"]
        self._thinnings, self._warned = record["thinnings"], record["warned"]
        self._error, self._floor, self._peak, self._rounding, self._lost, unstable = record["errors"]
        self._unstable = int(unstable)

    def _energy_balance(self) -> FloatArray:
        """|de/dt + (1/abar) sum_i (|da_i|^2 + |dw_i|^2)/Delta^2| over the larger term, differences of one update.

        With momentum the second term is times 1 - momentum: at small steps the time of the flow is t/(1 - momentum).
        0 at row 0, and where both terms are rounding.
        """
        rows = self._rows
        form, curves, count = rows.form, rows.curves, rows.made
        change = np.diff(0.5 * curves.errors[:count, 0]) / self.step
        motion = np.diff(curves.a[:count], axis=0) ** 2 + rows.displacement()
        rate = motion @ form.sizes / (form.alpha * form.width) / self.step**2
        rate = rate * (1.0 - self.options.optimizer.momentum)
        size = np.maximum(np.abs(change), rate)
        noise = ROUNDING * (form.offset / self.step + 1.0 / (form.alpha * self.step**2))
        excess = np.maximum(np.abs(change + rate) - noise, 0.0)
        balance: FloatArray = np.zeros(count)
        np.divide(excess, size, out=balance[1:], where=size > noise)
        return balance

    def _solution(self, status: Status, message: str, wall_time: float) -> Solution:
        rows, optimizer = self._rows, self.options.optimizer
        curves, count = rows.curves, rows.made
        kept = rows.update[: rows.rows]
        wanted = np.searchsorted(kept, np.round(np.array(self.options.times) / self.step))
        last = rows.rows - 1
        spread = np.arange(last + 1.0)
        if last >= 2 * TABLE:  # the first updates change most: half of the rows are equidistant in the logarithm
            spread = np.concatenate([np.linspace(0, last, TABLE), np.geomspace(1, last, TABLE)]).round()
        place = np.unique(np.minimum(np.concatenate([spread, wanted]), last).astype(np.int64))
        correlation, integrated, residual = rows.two_time(place)
        updates = np.arange(count)
        return Solution(
            problem=self.problem,
            t=self.step * updates,
            order=np.ones(count, dtype=np.int64),
            a=curves.a[:count].copy(),
            v=curves.v[:count] / rows.model.roots[:, None],
            nu=(curves.lam[:count] - 1.0) / self.step,
            train_error=0.5 * curves.errors[:count, 0],
            test_error=0.5 * curves.errors[:count, 1],
            energy_balance=self._energy_balance(),
            row_index=rows.update[place],
            modes=mode_names(rows.form),
            correlation=correlation,
            integrated_response=integrated,
            residual_correlation=residual,
            status=status,
            message=message,
            stats=Stats(
                rows=count,
                rejected=0,
                iterations=count,
                row_solves=count,
                wall_time=wall_time,
                thinnings=self._thinnings,
                estimated_error=self._estimated_error,
            ),
            rtol=0.0,
            method=optimizer.kind,
            config_text=self.options.config_text,
            optimizer=optimizer,
            updates=updates,
        )
