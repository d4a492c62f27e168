"""The main engine: the exact DMFT of the variable-step BDF discretisation of the gradient flow, row after row."""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmft.equations import covariance_derivatives, overlap_and_gradient, residual_covariance
from dmft.status import Status
from solvers.base import Options, Progress, ProgressCallback
from solvers.checkpoint import Checkpointer
from solvers.history import History, compiled_model, rows_to_keep
from solvers.multistep import MAX_ORDER, extrapolation, multistep
from solvers.row import (
    LOC_WEIGHT,
    NOISE,
    NU,
    OVERLAP,
    Q_ROW,
    RESPONSE,
    Guess,
    prepare_row,
    response_sweep,
    solve_row,
    split,
)
from solvers.stepping import StepController

if TYPE_CHECKING:
    from dmft.problems import Problem
    from dmft.solution import Solution

FloatArray = NDArray[np.float64]

MAX_ITERATIONS = 40
LOCAL_TOLERANCE = 0.15
"""Local error of a row over the accuracy asked of the curves (measured: docs/performance.md)."""
ROW_TOLERANCE = 1e-3
"""Convergence of a row over its local error."""
FIRST_STEP = 1e-6
"""First step over the fastest time scale: the formula starts at order 1."""
THIN_SPACING = 0.5
"""Gaps left by thinning, over the relative step times the distance to both ends of the history: the first trial."""
THIN_TRIALS = 4
"""Spacings tried."""
THIN_CLOSER = 0.8
"""Each over the one before: what thinning changes falls with the sixth power."""
THIN_SHARE = 0.5
"""Change that thinning may make in the newest row, over the local error allowed."""
RESIDUAL_FLOOR = 1e-9
"""e_tr is controlled relatively down to this fraction of its initial value, absolutely below."""
RESIDUAL_NOISE = 5e-15
"""Rounding error of e_tr over its initial value: C_r = R_A Q R_A^T is a small difference of large terms."""
SETTLED = 2e-14
"""e_tr over its initial value at which the data are interpolated and every force has vanished, up to rounding."""
NOISE_FLOOR = 1e-11
"""The same where rounding is worse than usual and rows fail before that."""
VANISHING = 1e-4
"""e_tr over its initial value below which a fast fall postpones thinning."""
CANCELLATION = 50.0
"""Row accuracy over row tolerance and e_tr / e_tr(0): what keeps e_tr smooth to a tenth of the local error."""
LEAST_WANTED = 1e-12
"""Accuracy below which a small e_tr alone does not push the iteration."""
ROUNDING = 5e-11
"""Least of the sufficient accuracies of a row: below it rounding may stop the iteration of a stiff one."""


class RowFailedError(Exception):
    """No step size down to the smallest gave a row."""


class Marcher:
    """Rows of one run: predicts, solves and accepts them. Knows no tolerance on the curves, only on the row."""

    def __init__(self, formulation: Any, row_tolerance: float) -> None:
        self.history = History(formulation)
        self.row_tolerance = row_tolerance
        self.iterations = 0
        self.row_solves = 0
        self.wanted = row_tolerance
        self.last_change = 0.0
        self.departing = False  # the row last solved was wrong by a rise of e_tr that rounding does not explain
        self.floor = SETTLED
        self._start()

    def _start(self) -> None:
        history = self.history
        model, tables, form = history.model, history.tables, history.formulation
        g = history.groups
        gradient = np.zeros(history.latents)
        tables.a[0] = form.a0
        tables.v[0] = form.v0 * model.roots[:, None]
        for i in range(g):
            tables.overlap[0, i] = overlap_and_gradient(
                model.exponents, model.coefficients, form.v0[i].copy(), gradient
            )
        tables.c_s[:g, :g] = form.correlation_s0
        modes = form.correlation_t0[form.sizes > 1]
        tables.c_t[:, 0, 0] = modes
        own = np.zeros(g)
        other = np.zeros((g, g))
        split(
            model, np.ascontiguousarray(form.correlation_s0, dtype=np.float64), np.ascontiguousarray(modes), own, other
        )
        initial = 1.0
        if model.residual_sector:
            for i in range(g):
                own[i] = covariance_derivatives(model.covariance, own[i])[0]
                for j in range(g):
                    other[i, j] = covariance_derivatives(model.covariance, other[i, j])[0]
            initial = residual_covariance(
                model.sizes, model.offset, tables.a[0], tables.a[0], tables.overlap[0], tables.overlap[0], own, other
            )
        history.c_r[0, 0] = tables.q[0, 0] = initial
        tables.r_a[0, 0] = 1.0
        history.rows = 1

    @property
    def time(self) -> float:
        """Time of the newest row."""
        return float(self.history.t[self.history.rows - 1])

    @property
    def settled(self) -> bool:
        """Whether the newest row interpolates the data, so that nothing moves any more."""
        return self.below(self.floor)

    def below(self, fraction: float) -> bool:
        """Whether the newest train error is at most this fraction of the first."""
        history = self.history
        last = history.rows - 1
        return bool(history.model.residual_sector and history.c_r[last, last] <= fraction * history.c_r[0, 0])

    def rest(self, time: float, order: int) -> dict[int, float] | None:
        """A row of a network that has interpolated: weights stay, residuals are zero, only the response goes on.

        Iterating such a row would feed the rounding errors of C_r = R_A Q R_A^T back into everything else.
        """
        history = self.history
        history.reserve()
        n, g = history.rows, history.groups
        tables, work = history.tables, history.work
        self.step = step = multistep(history.t[:n], time, order)
        image = history.image()
        last = slice((n - 1) * g, n * g)
        image.c_s[:, : n * g] = tables.c_s[last, : n * g]
        image.c_s[:, n * g :] = tables.c_s[last, last]
        image.c_t[:, :n] = tables.c_t[:, n - 1, :n]
        image.c_t[:, n] = tables.c_t[:, n - 1, n - 1]
        image.c_r[:] = 0.0
        image.a[:] = tables.a[n - 1]
        image.v[:] = tables.v[n - 1]
        nu = np.zeros(g)
        self.growth_rate = prepare_row(
            history.model, work, history.local, n, step.derivative[0], image, history.loc, nu
        )
        if not response_sweep(history.model, tables, work, history.local, n, step.derivative, image, history.loc):
            return None
        work.vectors[NU] = nu
        work.rows[Q_ROW, :n] = tables.q[n - 1, :n]
        work.rows[Q_ROW, n] = tables.q[n - 1, n - 1]
        history.local.own[OVERLAP, :g] = tables.overlap[n - 1]
        self.row_solves += 1
        return {step.order: 0.0}

    def attempt(self, time: float, order: int, neighbours: bool = False) -> dict[int, float] | None:
        """Solve the next row at ``time``; returns its local error by order, or None when it has no solution.

        The local error is that of the order used and, with ``neighbours``, what it would have been one order lower
        and higher. The row stays in the workspace until :meth:`accept`.
        """
        if self.settled:
            return self.rest(time, order)
        history = self.history
        history.reserve()
        n = history.rows
        past = history.t[:n]
        self.step = step = multistep(past, time, order)
        guess, image, scale = history.guess(), history.image(), history.scale()
        history.extrapolate(step.predictor, guess)
        residual = history.model.residual_sector
        if residual:
            guess.c_r[n] = max(guess.c_r[n], 0.1 * history.c_r[n - 1, n - 1])
        else:
            guess.c_r[:] = 1.0
        nu = np.zeros(history.groups)
        if n > 1:  # row 0 has no multiplier
            weights = extrapolation(past[1:], time, 2)
            nu = weights @ history.nu[n - 1 : n - 1 - len(weights) : -1]
        self.growth_rate = prepare_row(
            history.model, history.work, history.local, n, step.derivative[0], guess, history.loc, nu
        )
        self._set_scale(guess, scale)
        predicted = history.views(guess.flat.copy(), n)
        self.wanted, residual_wanted = self._wanted(guess)
        least = max(30.0 * self.row_tolerance, ROUNDING)
        converged, iterations, self.last_change = solve_row(
            history.model,
            history.tables,
            history.work,
            history.local,
            history.memory,
            n,
            step.derivative,
            guess,
            image,
            history.loc,
            (
                (self.wanted, residual_wanted),
                (max(30.0 * self.wanted, ROUNDING), max(30.0 * residual_wanted, ROUNDING)),
                (least, least),
            ),
            MAX_ITERATIONS,
        )
        self.iterations += iterations
        self.row_solves += 1
        if not converged or (residual and image.c_r[n] < -10.0 * RESIDUAL_NOISE * history.c_r[0, 0]):
            return None
        local_error, rise = step.error_constant * self._distance(image, predicted, scale), self._rise(image)
        self.departing = rise > local_error and self.wanted > ROUNDING
        errors = {step.order: max(local_error, rise)}
        if neighbours:
            for trial in (step.order - 1, step.order + 1):
                if 1 <= trial <= MAX_ORDER and n > trial:
                    other = multistep(past, time, trial)
                    history.extrapolate(other.predictor, predicted)
                    errors[trial] = other.error_constant * self._distance(image, predicted, scale)
        return errors

    def _rise(self, image: Guess) -> float:
        """Relative rise of the train error on the row just solved above its lowest value so far.

        Gradient flow has none, so all of it is error: a smooth departure onto another branch of solutions, which
        differences of neighbouring rows do not see, shows here.
        """
        history = self.history
        n = history.rows
        if not history.model.residual_sector:
            return 0.0
        before, initial = float(np.diagonal(history.c_r)[:n].min()), history.c_r[0, 0]
        rise = image.c_r[n] - before - max(RESIDUAL_NOISE, self.row_tolerance * self._residual_floor()) * initial
        return float(max(0.0, rise) / (abs(before) + RESIDUAL_FLOOR * initial))

    def _wanted(self, guess: Guess) -> tuple[float, float]:
        """Row accuracy of C, a, v that resolves the motion since the start to six digits, and e_tr; that of C_r.

        Without the first the first rows, where 1 - C_d(n, 0) is 1e-6 and less, would say nothing about the speed.
        Without the second e_tr would be noisy once it is small: what a row leaves in C is, over e_tr, larger by
        about e_tr(0)/e_tr (C_r = R_A Q R_A^T is a small difference of large terms), whatever the step. What it leaves
        in C_r, relatively, acts back on C only as far as C_r does: there the row tolerance is enough.
        """
        history = self.history
        g = history.groups
        motion = 1.0
        for i in range(g):
            own = guess.c_s[i, i]
            slot = history.model.slot[i]
            if slot >= 0:
                own = (own + (history.model.sizes[i] - 1.0) * guess.c_t[slot, 0]) / history.model.sizes[i]
            motion = min(motion, abs(1.0 - own))
        wanted = residual_wanted = max(1e-15, min(self.row_tolerance, 1e-6 * motion))
        if history.model.residual_sector:
            fraction = abs(guess.c_r[history.rows]) / history.c_r[0, 0]
            wanted = min(wanted, max(CANCELLATION * self.row_tolerance * fraction, LEAST_WANTED))
        return wanted, residual_wanted

    def _set_scale(self, guess: Guess, scale: Guess) -> None:
        history = self.history
        n, g = history.rows, history.groups
        diagonal = np.abs(
            np.concatenate([np.diagonal(history.tables.c_s)[: n * g], np.diagonal(guess.c_s[:, n * g :])])
        )
        roots = np.sqrt(diagonal)
        scale.c_s[:] = 1.0 / np.maximum(1.0, roots[n * g :, None] * roots[None, :])
        scale.c_t[:] = 1.0
        scale.c_r[:] = 1.0
        if history.model.residual_sector:
            sizes = np.sqrt(np.abs(np.append(np.diagonal(history.c_r)[:n], guess.c_r[n]) * guess.c_r[n]))
            scale.c_r[:] = 1.0 / (sizes + 1e-5 * history.c_r[0, 0])
            scale.c_r[n] = 1.0 / (sizes[n] + self._residual_floor() * history.c_r[0, 0])
        scale.a[:] = 1.0 / np.maximum(1.0, np.abs(guess.a))
        scale.v[:] = 1.0 / np.maximum(0.1, np.abs(guess.v))
        scale.loc[:] = LOC_WEIGHT / history.loc[: scale.loc.size]

    def _residual_floor(self) -> float:
        """C_r(n, n) over C_r(0, 0) below which the row tolerance is absolute: what rounding allows."""
        return min(1e-5, RESIDUAL_NOISE / self.row_tolerance)

    def _distance(self, image: Guess, predicted: Guess, scale: Guess) -> float:
        """Largest scaled difference of C, a, V and the relative e_tr."""
        n = self.history.rows
        distance = float(np.max(np.abs(image.c_s - predicted.c_s) * scale.c_s))
        if image.c_t.size:
            distance = max(distance, float(np.max(np.abs(image.c_t - predicted.c_t))))
        distance = max(distance, float(np.max(np.abs(image.a - predicted.a) * scale.a)))
        distance = max(distance, float(np.max(np.abs(image.v - predicted.v) * scale.v)))
        if self.history.model.residual_sector:
            initial = self.history.c_r[0, 0]
            # What the row tolerance and rounding leave in e_tr, amplified by the extrapolation.
            noise = max(RESIDUAL_NOISE, self.row_tolerance * self._residual_floor()) * initial
            noise *= np.abs(self.step.predictor).sum()
            difference = max(0.0, abs(image.c_r[n] - predicted.c_r[n]) - noise)
            distance = max(distance, difference / (abs(image.c_r[n]) + RESIDUAL_FLOOR * initial))
        return distance

    def repeat(self, order: int) -> float:
        """Solve the newest row again from the rows before it, after thinning; returns how much it has changed.

        In the measure of the local error: a change here is what thinning adds to the error of every row to come.
        """
        history = self.history
        g = history.groups
        history.rows -= 1
        n = history.rows
        try:
            if self.attempt(float(history.t[n]), order) is None:
                return np.inf
            tables = history.tables
            stored = history.views(np.zeros(history.unknowns(n)), n)
            stored.c_s[:] = tables.c_s[n * g : (n + 1) * g, : (n + 1) * g]
            stored.c_t[:] = tables.c_t[:, n, : n + 1]
            stored.c_r[:] = history.c_r[n, : n + 1] if history.model.residual_sector else 1.0
            stored.a[:] = tables.a[n]
            stored.v[:] = tables.v[n]
            image, scale = history.image(), history.scale()
            change = self._distance(image, stored, scale)
            return max(change, float(np.max(np.abs(image.c_r - stored.c_r) * scale.c_r)))
        finally:
            history.rows += 1

    def accept(self, time: float) -> float:
        """Append the row last solved; returns the growth rate of the most unstable bulk mode, as predicted for it."""
        history = self.history
        image = history.image()
        history.append(time, image, self.step.derivative)
        return float(self.growth_rate)


@dataclass
class Curves:
    """One-time results, appended row by row; not thinned."""

    t: list[float] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    a: list[FloatArray] = field(default_factory=list)
    v: list[FloatArray] = field(default_factory=list)
    nu: list[FloatArray] = field(default_factory=list)
    train_error: list[float] = field(default_factory=list)
    test_error: list[float] = field(default_factory=list)
    energy: list[float] = field(default_factory=list)
    energy_balance: list[float] = field(default_factory=list)

    def arrays(self) -> dict[str, Any]:
        """As arrays, by name."""
        return {item.name: np.array(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Curves:
        """Inverse of :meth:`arrays`."""
        return cls(**{item.name: list(arrays[item.name]) for item in fields(cls)})


def initial_multiplier(formulation: Any) -> FloatArray:
    """nu_g(0), which keeps |w_i| = 1 at the first instant: all integrals vanish, R_A = delta remains.

    nu_i(0) = alpha a_i <g(v_i), v_i> - (alpha/m) sum_l a_i a_l h'(C_il) C_il.
    """
    form = formulation
    groups = form.groups
    if not form.residual_sector:
        return np.zeros(groups)
    model = compiled_model(form)
    own, other = np.zeros(groups), np.zeros((groups, groups))
    split(model, np.array(form.correlation_s0, dtype=float), np.array(form.correlation_t0[form.sizes > 1]), own, other)

    def pull(q: float) -> float:
        return float(covariance_derivatives(model.covariance, q)[1] * q)

    nu = np.zeros(groups)
    gradient = np.zeros(form.latent_dimension)
    for g in range(groups):
        overlap_and_gradient(model.exponents, model.coefficients, form.v0[g].copy(), gradient)
        total = form.a0[g] * (pull(own[g]) + (model.sizes[g] - 1.0) * pull(other[g, g]))
        total += sum(form.a0[h] * model.sizes[h] * pull(other[g, h]) for h in range(groups) if h != g)
        nu[g] = form.alpha * form.a0[g] * (float(gradient @ form.v0[g]) - total / model.width)
    return nu


class BdfEngine:
    """Engine of theory [MU] appendix C discretised as a multistep flow; see :mod:`solvers.row`.

    Parameters
    ----------
    problem : Problem
        What to solve.
    options : Options
        ``method`` is ``"bdf"`` (order chosen step by step, up to 5) or ``"bdf1"`` ... ``"bdf5"`` (fixed order).
    """

    def __init__(self, problem: Problem, options: Options) -> None:
        self.problem = problem
        self.options = options
        formulation = problem.formulation()
        self.clock = formulation.clock
        rtol = options.rtol
        tolerance = LOCAL_TOLERANCE * rtol
        fixed = options.method[3:]
        self.marcher = Marcher(formulation, row_tolerance=float(np.clip(ROW_TOLERANCE * tolerance, 1e-13, 1e-8)))
        self.controller = StepController(
            tolerance=tolerance,
            first_step=min(FIRST_STEP / fastest_rate(formulation), 1e-3 * options.t_final / self.clock),
            relative_step=float(np.clip(0.15 * (rtol / 1e-4) ** 0.2, 0.02, 0.3)),
            max_order=int(fixed) if fixed else MAX_ORDER,
            fixed_order=bool(fixed),
        )
        self.curves = Curves()
        self.rejected = 0
        self.thinnings = 0
        self.largest_error = 0.0
        self.thin_at = options.max_history
        self.kept = [0]  # rows of the curves that are still in the history
        self._record_start()

    # ------------------------------------------------------------------------------------------------ running

    def run(self, progress: ProgressCallback | None, checkpointer: Checkpointer, resume: bool) -> Solution:
        """March to the end, or as far as it goes; see :mod:`solvers.base` for the contract."""
        start = clock.perf_counter()
        if resume:
            self._restore(*checkpointer.read())
        options, controller, marcher = self.options, self.controller, self.marcher
        # Powers of two between the problem's unit of time and the equations': conversion is exact.
        unit = self.clock
        targets = [time / unit for time in sorted({*options.times, options.t_final})]
        status, message = Status.DONE, ""
        failures = 0
        try:
            while True:
                now = marcher.time
                ahead = [target for target in targets if target > now * (1.0 + 1e-12)]
                if not ahead:
                    break
                if len(self.curves.t) >= options.max_rows:
                    status = Status.STEP_LIMIT
                    message = f"stopped after {options.max_rows} rows at t = {unit * now:.6g}; raise max_rows or rtol"
                    break
                time = controller.next_time(now, ahead[0])
                order = min(controller.order, marcher.history.rows)
                errors = marcher.attempt(time, order, neighbours=controller.wants_neighbours())
                if errors is None or not controller.accepts(errors[order]):
                    self.rejected += 1
                    failures += 1
                    if errors is None:
                        controller.after_failure(time - now)
                    else:
                        controller.after_rejection(time - now, errors[order], order)
                    if failures > 5 and errors is None and marcher.below(NOISE_FLOOR):
                        marcher.floor = NOISE_FLOOR  # rounding may be what leaves the row without a solution
                    if controller.step < 1e-14 * max(now, controller.first_step) or failures > 60:
                        status, message = self._failure(errors is None, unit * now, order)
                        break
                    continue
                failures = 0
                growth = marcher.accept(time)
                self.largest_error = max(self.largest_error, errors[order])
                controller.after_acceptance(time, time - now, order, errors, growth)
                self._record(order)
                if marcher.history.rows >= self.thin_at and not self._vanishing():
                    self._thin()
                if checkpointer.due():
                    checkpointer.write(
                        *self._snapshot(),
                    )
                if progress is not None:
                    progress(
                        Progress(
                            unit * time,
                            options.t_final,
                            unit * (time - now),
                            len(self.curves.t),
                            clock.perf_counter() - start,
                        )
                    )
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
            message = (
                f"interrupted at t = {unit * marcher.time:.6g} of {options.t_final:.6g}; "
                "resume from the checkpoint to go on"
            )
            checkpointer.write(*self._snapshot())
        if status is Status.DONE:
            message = f"reached t = {options.t_final:.6g} in {len(self.curves.t)} rows"
            if marcher.settled:
                first = int(np.argmax(np.array(self.curves.train_error) <= marcher.floor * self.curves.train_error[0]))
                message += f", all data interpolated at t = {unit * self.curves.t[first]:.6g}"
        return self._solution(status, message, clock.perf_counter() - start)

    def _failure(self, unsolved: bool, now: float, order: int) -> tuple[Status, str]:
        row = len(self.curves.t)
        if unsolved:
            return Status.ROW_FAILED, (
                f"row {row} after t = {now:.6g} has no solution at any step (order {order}, last change "
                f"{self.marcher.last_change:.2g}); lower rtol by a factor of 10, or use method='bdf2'"
            )
        if self.marcher.departing:
            return Status.TOLERANCE_NOT_MET, (
                f"row {row} after t = {now:.6g} leaves the flow at rtol = {self.options.rtol:.3g} (order {order}): "
                "the train error would rise; lower rtol by a factor of 10"
            )
        return Status.TOLERANCE_NOT_MET, (
            f"row {row} after t = {now:.6g} cannot meet rtol = {self.options.rtol:.3g} (order {order}): "
            "rounding errors dominate; raise rtol"
        )

    # ---------------------------------------------------------------------------------------------- recording

    def _record_start(self) -> None:
        history, curves = self.marcher.history, self.curves
        curves.t.append(0.0)
        curves.order.append(1)
        curves.a.append(history.tables.a[0].copy())
        curves.v.append(history.tables.v[0] / history.model.roots[:, None])
        curves.nu.append(initial_multiplier(history.formulation))
        curves.train_error.append(0.5 * float(history.c_r[0, 0]))
        curves.test_error.append(0.5 * float(history.tables.q[0, 0]))
        curves.energy.append(0.0)
        curves.energy_balance.append(0.0)

    def _record(self, order: int) -> None:
        history, curves = self.marcher.history, self.curves
        n = history.rows - 1
        self.kept.append(len(curves.t))
        curves.t.append(float(history.t[n]))
        curves.order.append(order)
        curves.a.append(history.tables.a[n].copy())
        curves.v.append(history.tables.v[n] / history.model.roots[:, None])
        curves.nu.append(history.nu[n].copy())
        # The row that reaches zero may lie below it, by rounding.
        curves.train_error.append(0.5 * max(float(history.c_r[n, n]), 0.0 if self.marcher.settled else -np.inf))
        curves.test_error.append(0.5 * float(history.tables.q[n, n]))
        noise, response = history.work.rows_s[NOISE, 0, : n + 1], history.work.rows_s[RESPONSE, 0, : n + 1]
        curves.energy.append(0.0 if history.model.residual_sector else -float(noise @ response))
        curves.energy_balance.append(self._energy_balance(n))

    def _energy_balance(self, n: int) -> float:
        """Imbalance of de/dt = -(1/abar) sum_i [(da_i/dt)^2 + d_t d_s C_ii(t,s)|_{s=t}], relative, beyond rounding.

        e is the train error, or E with 1/abar = 1 for the p-spin model. All derivatives are those of the row's own
        multistep formula, so the two sides agree to its order and no better.
        """
        if self.marcher.settled:
            return 0.0
        history, curves = self.marcher.history, self.curves
        model, tables, g = history.model, history.tables, history.groups
        weights = self.marcher.step.derivative
        rows = n - np.arange(len(weights))
        values = np.array((curves.train_error if model.residual_sector else curves.energy)[: -len(weights) - 1 : -1])
        left = float(weights @ values)
        speed = 0.0
        for i in range(g):
            own = tables.c_s[np.ix_(rows * g + i, rows * g + i)]
            slot = model.slot[i]
            if slot >= 0:
                own = (own + (model.sizes[i] - 1.0) * tables.c_t[slot][np.ix_(rows, rows)]) / model.sizes[i]
            speed += model.sizes[i] * (float(weights @ own @ weights) + float(weights @ tables.a[rows, i]) ** 2)
        dissipation = model.alpha * model.width if model.residual_sector else 1.0
        right = -speed / dissipation
        size = np.abs(weights).sum()
        # Rounding, and what the row tolerance leaves: errors of neighbouring rows are alike and cancel, mostly.
        unit = 8.0 * np.finfo(float).eps + 1e-3 * self.marcher.wanted
        noise = 10.0 * unit * size * np.abs(values).max()
        noise += unit * size**2 * (model.width + float(model.sizes @ tables.a[n] ** 2)) / dissipation
        scale = max(abs(left), abs(right))
        return max(0.0, abs(left - right) - noise) / scale if scale > noise else 0.0

    def _vanishing(self) -> bool:
        """Whether the train error is on its exponential way to zero: then thinning waits until it has arrived.

        C_r = R_A Q R_A^T is by then smaller than what interpolation in the thinned history would change in it.
        """
        history = self.marcher.history
        errors = self.curves.train_error
        if not history.model.residual_sector or self.marcher.settled or errors[-1] > VANISHING * errors[0]:
            return False
        before = 10
        fall = np.log(errors[-1 - before] / errors[-1])
        elapsed = np.log(self.curves.t[-1] / self.curves.t[-1 - before])
        return bool(fall > 2.0 * elapsed and history.rows < 6 * self.options.max_history)

    def _thin(self) -> None:
        """Drop rows, as many as leave the newest row unchanged when it is solved again; none if too few can go."""
        marcher = self.marcher
        history = marcher.history
        rows = history.rows
        full = history.state()
        for trial in range(THIN_TRIALS):
            spacing = THIN_SPACING * THIN_CLOSER**trial * self.controller.relative_step
            keep = rows_to_keep(full["t"], spacing)
            if len(keep) > 0.8 * rows:
                break
            history.thin(keep)
            if marcher.settled or marcher.repeat(self.curves.order[-1]) <= THIN_SHARE * self.controller.tolerance:
                self.thin_at = max(self.options.max_history, int(1.4 * len(keep)))
                self.kept = [self.kept[k] for k in keep]
                self.thinnings += 1
                return
            history.restore(full)
        self.thin_at = int(1.4 * rows)  # nothing to gain: let the history grow instead

    # -------------------------------------------------------------------------------------------- checkpoints

    def _snapshot(self) -> tuple[dict[str, Any], dict[str, Any]]:
        arrays = {f"history_{name}": value for name, value in self.marcher.history.state().items()}
        arrays |= {f"curves_{name}": value for name, value in self.curves.arrays().items()}
        arrays["kept"] = np.array(self.kept)
        controller = self.controller
        record = {
            "order": controller.order,
            "step": controller.step,
            "rows_at_order": controller.rows_at_order,
            "iterations": self.marcher.iterations,
            "row_solves": self.marcher.row_solves,
            "rejected": self.rejected,
            "thinnings": self.thinnings,
            "thin_at": self.thin_at,
            "largest_error": self.largest_error,
            "floor": self.marcher.floor,
        }
        return arrays, record

    def _restore(self, arrays: dict[str, Any], record: dict[str, Any]) -> None:
        def part(prefix: str) -> dict[str, Any]:
            return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}

        self.marcher.history.restore(part("history_"))
        self.curves = Curves.from_arrays(part("curves_"))
        self.kept = [int(row) for row in arrays["kept"]]
        self.controller.order = record["order"]
        self.controller.step = record["step"]
        self.controller.rows_at_order = record["rows_at_order"]
        self.marcher.iterations = record["iterations"]
        self.marcher.row_solves = record["row_solves"]
        self.rejected = record["rejected"]
        self.thinnings = record["thinnings"]
        self.thin_at = record["thin_at"]
        self.largest_error = record["largest_error"]
        self.marcher.floor = record.get("floor", SETTLED)

    # ------------------------------------------------------------------------------------------------- result

    def _solution(self, status: Status, message: str, wall_time: float) -> Solution:
        from dmft.solution import Solution, Stats, mode_names

        history = self.marcher.history
        n, g = history.rows, history.groups
        tables = history.tables
        curves = self.curves.arrays()
        correlation = [tables.c_s[i : n * g : g, j : n * g : g] for i in range(g) for j in range(g)]
        correlation += [tables.c_t[slot, :n, :n] for slot in range(history.modes)]
        response = [history.integrated(tables.r_s[i : n * g : g, j : n * g : g]) for i in range(g) for j in range(g)]
        response += [history.integrated(tables.r_t[slot, :n, :n]) for slot in range(history.modes)]
        network = history.model.residual_sector
        return Solution(
            problem=self.problem,
            t=self.clock * curves["t"],
            order=curves["order"].astype(np.int64),
            a=curves["a"],
            v=curves["v"],
            nu=curves["nu"] / self.clock,
            train_error=curves["train_error"],
            test_error=curves["test_error"],
            energy=None if network else curves["energy"],
            energy_balance=curves["energy_balance"],
            row_index=np.array(self.kept, dtype=np.int64),
            modes=mode_names(history.formulation),
            correlation=np.array(correlation),
            integrated_response=self.clock * np.array(response),
            residual_correlation=history.c_r[:n, :n].copy() if network else None,
            status=status,
            message=message,
            stats=Stats(
                rows=len(curves["t"]),
                rejected=self.rejected,
                iterations=self.marcher.iterations,
                row_solves=self.marcher.row_solves,
                wall_time=wall_time,
                thinnings=self.thinnings,
                estimated_error=self.largest_error,
            ),
            rtol=self.options.rtol,
            method=self.options.method,
            config_text=self.options.config_text,
        )


def fastest_rate(formulation: Any) -> float:
    """Upper estimate of the fastest relaxation rate at t = 0: local curvature, group modes, and the second layer."""
    form = formulation
    q = 1.0
    _, slope, curvature = covariance_derivatives(np.ascontiguousarray(form.covariance, dtype=float), q)
    if not form.residual_sector:
        return float(2.0 * np.sqrt(curvature) + slope)
    weight = float(np.sum(form.sizes * form.a0**2)) / form.width
    drive = float(np.abs(form.overlap_coefficients).sum()) * float(np.abs(form.a0).max(initial=1.0))
    # a a/m summed over neurons drives the collective modes at alpha weight h', the local ones at a fraction 1/m.
    return float(form.alpha * (weight * (slope + np.sqrt(form.offset * curvature)) + drive + form.offset)) + 1e-300


def march_on_grid(
    formulation: Any, grid: Sequence[float] | FloatArray, order: int, row_tolerance: float = 1e-12
) -> History:
    """Rows on a prescribed grid at a fixed order (lower at the start): for order tests and equal-grid comparisons.

    Raises
    ------
    RowFailedError
        When a row has no solution.
    """
    marcher = Marcher(formulation, row_tolerance)
    for time in np.asarray(grid, dtype=np.float64)[1:]:
        if marcher.attempt(float(time), order) is None:
            raise RowFailedError(f"row {marcher.history.rows} at t = {time:.6g} did not converge")
        marcher.accept(float(time))
    return marcher.history
