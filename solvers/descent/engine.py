"""The contract of an engine, for discrete optimisers."""

from __future__ import annotations

import time as clock
from typing import TYPE_CHECKING

import numpy as np

from dmft._machine import available_memory
from dmft.optimizers import check_problem
from dmft.solution import Solution, Stats, mode_names
from dmft.status import Status
from solvers.base import Progress, ProgressCallback
from solvers.checkpoint import Checkpointer
from solvers.descent import DescentOptions
from solvers.descent.rows import FloatArray, Rows, cost, rows_that_fit

if TYPE_CHECKING:
    from dmft.problems import Problem

TABLE = 300
"""Rows of the two-time table, at most."""
GROWN = 1e6
"""e_tr over its start at which a run has diverged."""
NEGATIVE = -1e-6
"""e_tr over its start at which rounding has taken over."""
LEAST_START = 1e-10
"""Start of e_tr over tau^2 + |phi|^2, at least: of networks that start at zero error."""
ROUNDING = 64.0 * float(np.finfo(np.float64).eps)
"""Rounding of E[r^2] over tau^2 + |phi|^2, and of C."""
MOST_UPDATES = 1e15
"""More are not counted: no run makes so many."""


class DescentEngine:
    """Makes the updates of symmetric, grouped and general networks; contract of :mod:`solvers.base`.

    Parameters
    ----------
    problem : Problem
        A network of finite width.
    options : DescentOptions
        ``t_final`` is rounded to a whole number of updates, 1 at least.

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
        self.updates = max(1, round(min(options.t_final / self.step, MOST_UPDATES)))
        capacity = min(self.updates + 1, options.max_rows)
        form = problem.formulation()
        self._check_memory(capacity)
        self._rows = Rows(
            form, capacity, self.step, optimizer.momentum, optimizer.batch_fraction, optimizer.updates_per_epoch
        )
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
            raise ValueError(
                f"t_final = {self.options.t_final:g} is {self.updates} updates of {self.step:.6g}, of which {rows - 1} "
                f"(max_rows) need {need.memory / 1e9:.3g} GB and about {need.seconds:.2g} s; {available / 1e9:.3g} GB "
                f"are available, enough for {fit} updates."
            )

    @property
    def _time(self) -> float:
        """Time of the newest row."""
        return (self._rows.rows - 1) * self.step

    def run(self, progress: ProgressCallback | None, checkpointer: Checkpointer, resume: bool) -> Solution:
        """Make all updates, or as many as go."""
        start = clock.perf_counter()
        rows = self._rows
        if resume:
            arrays, _ = checkpointer.read()
            rows.restore(arrays)
        status, message = Status.DONE, ""
        end = self.updates * self.step
        try:
            while rows.rows < rows.capacity:
                trouble = "" if rows.compute() else "is not finite"
                trouble = trouble or self._trouble(float(rows.tables.errors[rows.rows, 0]))
                if trouble:
                    status = Status.DIVERGED
                    message = (
                        f"update {rows.rows} at t = {rows.rows * self.step:.6g} {trouble}; the rows before it are "
                        "kept, try a smaller learning_rate"
                    )
                    break
                rows.accept()
                if checkpointer.due():
                    checkpointer.write(rows.state(), {})
                if progress is not None:
                    progress(Progress(self._time, end, self.step, rows.rows, clock.perf_counter() - start))
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
            message = f"interrupted at t = {self._time:.6g} of {end:.6g}; resume from the checkpoint to go on"
            checkpointer.write(rows.state(), {})
        if status is Status.DONE and rows.rows <= self.updates:
            status = Status.STEP_LIMIT
            message = f"stopped after {rows.rows} rows at t = {self._time:.6g}; raise max_rows or learning_rate"
        if status is Status.DONE:
            message = f"reached t = {self._time:.6g} in {self.updates} updates"
        return self._solution(status, message, clock.perf_counter() - start)

    def _trouble(self, square: float) -> str:
        """What is wrong with a row of this E[r^2], in words; nothing if it can be trusted."""
        if square > GROWN * self._start:
            return f"has a train error {square / self._start:.2g} times that of the start"
        if square <= NEGATIVE * self._start:
            return f"has a train error {square / self._start:.2g} times that of the start, by rounding"
        return ""

    def _energy_balance(self) -> FloatArray:
        """|de/dt + (1/abar) sum_i (|da_i|^2 + |dw_i|^2)/Delta^2| over the larger term, differences of one update.

        With momentum the second term is times 1 - momentum: at small steps the time of the flow is t/(1 - momentum).
        0 at row 0, and where both terms are rounding.
        """
        rows = self._rows
        form, tables, count = rows.form, rows.tables, rows.rows
        change = np.diff(0.5 * tables.errors[:count, 0]) / self.step
        motion = np.diff(tables.a[:count], axis=0) ** 2 + rows.displacement()
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
        tables, count = rows.tables, rows.rows
        place = np.unique(np.linspace(0, count - 1, min(TABLE, count)).round().astype(np.int64))
        correlation, integrated, residual = rows.two_time(place)
        updates = np.arange(count)
        return Solution(
            problem=self.problem,
            t=self.step * updates,
            order=np.ones(count, dtype=np.int64),
            a=tables.a[:count].copy(),
            v=tables.v[:count] / rows.model.roots[:, None],
            nu=(tables.lam[:count] - 1.0) / self.step,
            train_error=0.5 * tables.errors[:count, 0],
            test_error=0.5 * tables.errors[:count, 1],
            energy_balance=self._energy_balance(),
            row_index=place,
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
                thinnings=0,
                estimated_error=0.0,
            ),
            rtol=0.0,
            method=optimizer.kind,
            config_text=self.options.config_text,
            optimizer=optimizer,
            updates=updates,
        )
