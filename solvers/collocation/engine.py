"""The contract of an engine, for the collocation scheme."""

from __future__ import annotations

import time as clock
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from dmft.scaled_time import ScaledTwoTime
from dmft.solution import Solution, Stats, mode_names
from dmft.status import Status
from solvers.base import Options, Progress, ProgressCallback
from solvers.checkpoint import Checkpointer
from solvers.collocation import network, pspin
from solvers.collocation.grid import FloatArray
from solvers.collocation.history import ORDER
from solvers.collocation.kernels import LAGS
from solvers.collocation.march import LEAST_STEP, Marcher
from solvers.collocation.system import RowState, System

if TYPE_CHECKING:
    from dmft.problems import Problem

LOCAL_TOLERANCE = 0.05
"""Local error of a row over the accuracy asked of the curves (measured: docs/numerics.md)."""
TABLE = 300
"""Rows of the sampled two-time table, at most."""
FIT_WINDOWS = (0.5, 2.0, 8.0, 32.0, 128.0, 512.0)
"""Lengths of the fits for the speed of the weights, over the fastest time scale; the best one is taken."""
FIT_TERMS = (3, 5)
"""Terms of a fit, and of its check."""
MOVED = 0.1
"""Time over the fastest time scale from which the energy balance is looked at. Before, the fit for the speed of the
weights is not good enough: the largest imbalance is up to 10^4 rtol there (m = 16 to 1024, rtol 1e-4 to 1e-6), and 3
to 320 afterwards while e_tr is above a hundredth of its start."""


@dataclass
class Curves:
    """One-time results that are not in the history."""

    train_error: list[float] = field(default_factory=list)
    test_error: list[float] = field(default_factory=list)
    energy: list[float] = field(default_factory=list)
    energy_balance: list[float] = field(default_factory=list)


class CollocationEngine:
    """Solves p-spin and exchangeable network problems; contract of :mod:`solvers.base`.

    Parameters
    ----------
    problem : Problem
        What to solve, see `solvers.collocation.supports`.
    options : Options
        ``rtol`` sets the local error of a row and the density of its nodes.
    """

    def __init__(self, problem: Problem, options: Options) -> None:
        self.problem, self.options = problem, options
        form = problem.formulation()
        self._form = form
        self._system: System = (network.NetworkSystem if form.residual_sector else pspin.PSpinSystem)(form)
        first, last = min((options.t_final, *options.times)) / form.clock, options.t_final / form.clock
        self._marcher = Marcher(self._system, LOCAL_TOLERANCE * options.rtol, first, last)
        self._curves = Curves()
        self._rejected = 0
        self._largest = 0.0
        values, _ = self._system.initial()
        self._record(values, 0.0, 0.0)

    def _record(self, values: FloatArray, energy: float, balance: float) -> None:
        curves = self._curves
        if self._form.residual_sector:
            curves.train_error.append(0.5 * max(0.0, float(values[network.C_RES])))
            curves.test_error.append(0.5 * float(values[network.Q]))
        else:
            curves.energy.append(energy)
        curves.energy_balance.append(balance)

    # ------------------------------------------------------------------------------------------------ running

    def run(self, progress: ProgressCallback | None, checkpointer: Checkpointer, resume: bool) -> Solution:
        """March to the end, or as far as it goes."""
        with threadpool_limits(limits=1):  # matrices of a few hundred rows: threads would only wait for each other
            return self._run(progress, checkpointer, resume)

    def _run(self, progress: ProgressCallback | None, checkpointer: Checkpointer, resume: bool) -> Solution:
        start = clock.perf_counter()
        if resume:
            self._restore(*checkpointer.read())
        options, marcher, unit = self.options, self._marcher, self._form.clock
        targets = [float(np.log(time / unit)) for time in sorted({*options.times, options.t_final})]
        status, message = Status.DONE, ""
        try:
            while True:
                ahead = [target for target in targets if target > marcher.history.newest + 1e-12]
                if not ahead:
                    break
                rows = len(self._curves.energy_balance)
                now = unit * float(np.exp(marcher.history.newest))
                if rows >= options.max_rows:
                    status = Status.STEP_LIMIT
                    message = f"stopped after {rows} rows at t = {now:.6g}; raise max_rows or rtol"
                    break
                if marcher.step < LEAST_STEP:
                    status = Status.ROW_FAILED
                    message = (
                        f"row {rows} after t = {now:.6g} cannot be solved at any step to rtol = {options.rtol:.3g}: "
                        "something faster than the grid resolves happened late in the run; use method='bdf'"
                    )
                    break
                accepted = marcher.advance(ahead[0])
                if accepted is None:
                    self._rejected += 1
                    continue
                state, _, error = accepted
                self._largest = max(self._largest, error)
                self._record(state.values[-1], state.energy, 0.0)
                self._curves.energy_balance[-1] = self._balance(state)
                if checkpointer.due():
                    checkpointer.write(*self._snapshot())
                if progress is not None:
                    time = unit * float(np.exp(marcher.history.newest))
                    elapsed = clock.perf_counter() - start
                    progress(Progress(time, options.t_final, time - now, rows + 1, elapsed))
        except KeyboardInterrupt:
            now = unit * float(np.exp(marcher.history.newest))
            status = Status.INTERRUPTED
            message = f"interrupted at t = {now:.6g} of {options.t_final:.6g}; resume from the checkpoint to go on"
            checkpointer.write(*self._snapshot())
        if status is Status.DONE:
            message = f"reached t = {options.t_final:.6g} in {len(self._curves.energy_balance)} rows"
        return self._solution(status, message, clock.perf_counter() - start)

    def _balance(self, state: RowState) -> float:
        """Imbalance of de/dt = -(1/abar) sum_i [(da_i/dt)^2 + d_t d_s C_ii(t,s)|_{s=t}], relative, beyond rounding.

        The left side is a difference in time over rows, the right side one along the newest row, of the motion
        d_t C_d(t, s), which vanishes at s = t: nothing in the scheme makes them agree. 0 before anything has moved.
        """
        marcher, curves, form = self._marcher, self._curves, self._form
        frame = marcher.frame
        if frame.t * marcher.rate < MOVED:
            return 0.0
        errors = curves.train_error if form.residual_sector else curves.energy
        values = np.array(errors[-ORDER - 1 :])
        change = float(frame.derivative @ values) / frame.t
        lag, motion = frame.t * frame.grid.kappa[:-1], -state.self_motion[:-1]
        speed, doubt, length = 0.0, np.inf, frame.t
        for window in FIT_WINDOWS:
            near = lag < min(window / marcher.rate, 0.3 * frame.t)
            if np.count_nonzero(near) < max(FIT_TERMS) + 2:
                continue
            coarse, fine = (slope_at_zero(lag[near], motion[near], terms) for terms in FIT_TERMS)
            if abs(fine - coarse) < doubt:
                speed, doubt, length = fine, abs(fine - coarse), float(lag[near].max())
        factor = 1.0 / form.alpha if form.residual_sector else 1.0
        rate = factor * (speed + state.speed)
        unit = 64.0 * np.finfo(float).eps
        noise = unit * float(np.abs(frame.derivative).sum() * np.abs(values).max()) / frame.t
        noise += unit * factor * marcher.rate / length
        size = max(abs(change), abs(rate))
        return max(0.0, abs(change + rate) - noise) / size if size > noise else 0.0

    # -------------------------------------------------------------------------------------------- checkpoints

    def _snapshot(self) -> tuple[dict[str, Any], dict[str, Any]]:
        arrays, record = self._marcher.snapshot()
        curves = {f"curve_{item.name}": np.array(getattr(self._curves, item.name)) for item in fields(Curves)}
        return {**arrays, **curves}, {**record, "rejected": self._rejected, "largest": self._largest}

    def _restore(self, arrays: dict[str, Any], record: dict[str, Any]) -> None:
        self._curves = Curves(**{item.name: list(arrays.pop(f"curve_{item.name}")) for item in fields(Curves)})
        self._rejected, self._largest = record["rejected"], record["largest"]
        self._marcher.restore(arrays, record)

    # ------------------------------------------------------------------------------------------------- result

    def _solution(self, status: Status, message: str, wall_time: float) -> Solution:
        history, form, unit = self._marcher.history, self._form, self._form.clock
        count = history.count
        initial = history.scalars[:1]
        scalars = np.concatenate([initial, history.scalars[LAGS:count]])
        times = unit * np.exp(history.log_t[LAGS:count])
        t = np.concatenate([[0.0], times])
        wanted = np.array([*self.options.times, self.options.t_final])
        for time in wanted[wanted <= 1.0001 * t[-1]]:  # exp(ln t) is t up to rounding
            nearest = int(np.argmin(np.abs(t - time)))
            if abs(t[nearest] - time) < 1e-10 * time:
                t[nearest] = time
        scaled = self._scaled(t[1:]) if count > LAGS else None
        place = np.unique(np.linspace(0, len(t) - 1, min(TABLE, len(t))).round().astype(np.int64))
        correlation, response, residual = self._tables(t[place], scaled)
        curves = self._curves
        arrays = {name: np.array(getattr(curves, name)) for name in ("train_error", "test_error", "energy")}
        is_network = form.residual_sector
        return Solution(
            problem=self.problem,
            t=t,
            order=np.minimum(np.maximum(np.arange(len(t)), 1), ORDER),
            a=scalars[:, network.A, None] if is_network else None,
            v=scalars[:, network.V, None, None] if is_network else None,
            nu=scalars[:, -1:] / unit,
            train_error=arrays["train_error"] if is_network else None,
            test_error=arrays["test_error"] if is_network else None,
            energy=None if is_network else arrays["energy"],
            energy_balance=np.array(curves.energy_balance),
            row_index=place,
            modes=mode_names(form),
            correlation=correlation,
            integrated_response=response,
            residual_correlation=residual,
            status=status,
            message=message,
            stats=Stats(
                rows=len(t),
                rejected=self._rejected,
                iterations=self._marcher.iterations,
                row_solves=len(t) + self._rejected,
                wall_time=wall_time,
                thinnings=0,
                estimated_error=self._largest,
            ),
            rtol=self.options.rtol,
            method="collocation",
            config_text=self.options.config_text,
            scaled=scaled,
        )

    def _modes(self) -> tuple[list[int], list[int]]:
        """Stored functions that are C and R of the modes, in the order of `mode_names`."""
        if not self._form.residual_sector:
            return [pspin.C], [pspin.R]
        if self._form.width == 1:
            return [network.C_S], [network.R_S]
        return [network.C_S, network.C_T], [network.R_S, network.R_T]

    def _scaled(self, t: FloatArray) -> ScaledTwoTime:
        history = self._marcher.history
        grid = history.grid
        rows = history.rows[LAGS : history.count]
        own, response = self._modes()
        # int_s^t R(t,u) du by the quadrature of the scheme: kappa_k sum_j w_j R at u = t (theta_k + kappa_k theta_j).
        cumulative = np.zeros((grid.size, grid.size))
        for p in range(grid.outer.weight.shape[2]):
            np.add.at(
                cumulative,
                (np.arange(grid.size)[:, None], grid.outer.start + p),
                grid.kappa[:, None] * grid.quadrature * grid.outer.weight[:, :, p],
            )
        integrated = np.einsum("n,kj,njm->mnk", t, cumulative, rows[:, :, response], optimize=True)
        return ScaledTwoTime(
            t=t,
            stretch=grid.stretch,
            correlation=np.moveaxis(rows[:, :, own], 2, 0).copy(),
            response=np.moveaxis(rows[:, :, response], 2, 0).copy(),
            integrated_response=integrated,
            residual_correlation=rows[:, :, network.C_RES].copy() if self._form.residual_sector else None,
        )

    def _tables(self, t: FloatArray, scaled: ScaledTwoTime | None) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        """The scaled functions on pairs of rows, as every solution has them."""
        values, _ = self._system.initial()
        own, _ = self._modes()
        count = len(t)
        correlation = np.broadcast_to(values[own][:, None, None], (len(own), count, count)).copy()
        response = np.zeros((len(own), count, count))
        residual = None
        if self._form.residual_sector:
            residual = np.full((count, count), values[network.C_RES])
        if scaled is None:
            return correlation, response, residual
        later, earlier = np.tril_indices(count)
        for mode in range(len(own)):
            table = scaled.evaluate(scaled.correlation[mode], t[later], t[earlier])
            correlation[mode, later, earlier] = correlation[mode, earlier, later] = table
            below = later > earlier
            response[mode, later[below], earlier[below]] = scaled.evaluate(
                scaled.integrated_response[mode], t[later[below]], t[earlier[below]]
            )
        if residual is not None and scaled.residual_correlation is not None:
            table = scaled.evaluate(scaled.residual_correlation, t[later], t[earlier])
            residual[later, earlier] = residual[earlier, later] = table
        return correlation, response, residual


def slope_at_zero(x: FloatArray, y: FloatArray, terms: int) -> float:
    """dy/dx at x = 0 of the polynomial without constant term fitted to y(x), x > 0, with equal weights."""
    scale = float(x.max())
    powers = (x[:, None] / scale) ** np.arange(1, terms + 1)
    return float(np.linalg.lstsq(powers, y, rcond=None)[0][0]) / scale
