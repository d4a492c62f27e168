"""Engine for large-width limits: integrates or solves what a limit is made of, and lays it on rows of time."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dmft.interpolation import derivative_weights
from dmft.limits import Limit, LimitError, LimitState
from dmft.solution import Solution, Stats, mode_names
from dmft.status import Status
from solvers.base import Options, Progress, ProgressCallback
from solvers.checkpoint import Checkpointer
from solvers.marching import BdfEngine, fastest_rate

if TYPE_CHECKING:
    from dmft.formulation import Formulation
    from dmft.limits.base import Trajectory
    from dmft.problems import Problem

FloatArray = NDArray[np.float64]

ORDER = 5
"""Polynomial order between rows."""
FIRST_ROW = 1e-4
"""First row after 0 over the fastest time scale."""
ODE_TOLERANCE = 1e-10


class LimitEngine:
    """Solves a `dmft.limits.Limit`; contract of :mod:`solvers.base`.

    Rows are geometric in time and dense enough for interpolation of order 5 to meet ``rtol``. A limit that needs the
    DMFT of smaller problems has them solved by the main engine at the same ``rtol``; they are short, so that there is
    no checkpoint: an interrupted limit starts again.

    Parameters
    ----------
    problem : Limit
    options : Options
    """

    def __init__(self, problem: Problem, options: Options) -> None:
        assert isinstance(problem, Limit)
        self.problem = problem
        self.options = options
        self._progress: ProgressCallback | None = None
        self._rows = 0

    # The tools lent to a limit, see `dmft.limits.base.Tools`.

    def solve(self, problem: Problem, t_final: float) -> Solution:
        """Solve a smaller problem by the main engine."""
        options = Options(t_final=t_final, rtol=self.options.rtol, method="bdf", max_rows=self.options.max_rows)
        solution = BdfEngine(problem, options).run(self._progress, Checkpointer(None, {}), False)
        if solution.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        if not solution.status.ok:
            raise LimitError(f"a problem that the limit is built from failed: {solution.message}")
        self._rows += solution.stats.rows
        return solution

    def integrate(
        self, rhs: Callable[[float, FloatArray], FloatArray], initial: FloatArray, t_final: float
    ) -> Trajectory:
        """Integrate an ordinary differential equation by LSODA, which turns implicit where it is stiff."""
        from scipy.integrate import solve_ivp

        tolerance = min(ODE_TOLERANCE, 1e-3 * self.options.rtol)
        result = solve_ivp(
            rhs, (0.0, t_final), initial, method="LSODA", rtol=tolerance, atol=1e-3 * tolerance, dense_output=True
        )
        if not result.success:
            raise LimitError(f"the equations of the limit could not be integrated: {result.message}")

        def trajectory(times: FloatArray) -> FloatArray:
            return np.asarray(result.sol(np.asarray(times, dtype=np.float64)), dtype=np.float64).T

        return trajectory

    def run(self, progress: ProgressCallback | None, checkpointer: Checkpointer, resume: bool) -> Solution:
        """Solve the limit and evaluate it on rows.

        Raises
        ------
        KeyboardInterrupt
            When interrupted: nothing partial is worth keeping.
        """
        start = clock.perf_counter()
        self._progress = progress
        options = self.options
        t = self._grid()
        status, message = Status.DONE, ""
        try:
            with threadpool_limits(limits=1):  # matrices of a few rows: threads would only wait for each other
                state = self.problem.prepare(self, options.t_final)(t)
            message = f"{self.problem.title} ({self.problem.scale}) on {len(t)} rows to t = {options.t_final:.6g}"
        except LimitError as error:
            status, message = Status.FAILED, f"{self.problem.title}: {error}."
            t = t[:1]
            state = self._start()
        if progress is not None:
            progress(Progress(float(t[-1]), options.t_final, 0.0, len(t), clock.perf_counter() - start))
        return self._solution(t, state, status, message, clock.perf_counter() - start)

    def _grid(self) -> FloatArray:
        """Zero, geometric times from a fraction of the fastest scale on, and the wanted ones."""
        options = self.options
        ratio = 1.0 + 0.1 * min(1.0, (options.rtol / 1e-4) ** (1.0 / (ORDER + 1)))
        first = min(FIRST_ROW / fastest_rate(self.problem.formulation()), 1e-3 * options.t_final)
        count = max(8, int(np.ceil(np.log(options.t_final / first) / np.log(ratio))) + 1)
        grid = np.geomspace(first, options.t_final, count)
        grid[-1] = options.t_final
        wanted = np.array(options.times)
        if len(wanted):  # a wanted time replaces a row that is nearer to it than a third of the spacing
            nearest = np.abs(np.log(grid[:, None] / wanted)).min(axis=1)
            grid = np.union1d(grid[(nearest > np.log(ratio) / 3.0) | (grid == options.t_final)], wanted)
        return np.concatenate([[0.0], grid])

    def _start(self) -> LimitState:
        """What a limit that failed leaves: the problem at t = 0, without two-time functions."""
        form = self.problem.formulation()
        engine = BdfEngine(self.problem.problem, self.options)
        curves = engine.curves
        empty = np.zeros((form.groups, form.groups, 0, 0))
        return LimitState(
            a=np.array(curves.a),
            v=np.array(curves.v),
            nu=np.array(curves.nu),
            train_error=np.array(curves.train_error),
            test_error=np.array(curves.test_error),
            correlation_o=empty,
            correlation_t=empty[0],
            response_s=empty,
            response_t=empty[0],
            residual_correlation=empty[0, 0],
        )

    def _solution(self, t: FloatArray, state: LimitState, status: Status, message: str, wall_time: float) -> Solution:
        form = self.problem.formulation()
        roots = np.sqrt(form.sizes.astype(np.float64))
        order = np.minimum(np.arange(len(t)), ORDER)
        order[0] = 1
        many = np.flatnonzero(form.sizes > 1)
        two_time = state.correlation_t.shape[-1] == len(t)
        correlation: list[FloatArray] = []
        response: list[FloatArray] = []
        if two_time:
            for g in range(form.groups):
                for h in range(form.groups):
                    own = state.correlation_t[g] if g == h else 0.0
                    correlation.append(roots[g] * roots[h] * state.correlation_o[g, h] + own)
                    response.append(state.response_s[g, h])
            correlation += [state.correlation_t[g] for g in many]
            response += [state.response_t[g] for g in many]
        return Solution(
            problem=self.problem,
            t=t,
            order=order,
            a=state.a,
            v=state.v,
            nu=state.nu,
            train_error=state.train_error,
            test_error=state.test_error,
            energy_balance=energy_imbalance(form, t, state) if two_time else np.zeros(len(t)),
            row_index=np.arange(len(t)) if two_time else None,
            modes=mode_names(form),
            correlation=np.array(correlation) if two_time else None,
            integrated_response=np.array(response) if two_time else None,
            residual_correlation=state.residual_correlation if two_time else None,
            status=status,
            message=message,
            stats=Stats(
                rows=len(t),
                rejected=0,
                iterations=0,
                row_solves=self._rows,
                wall_time=wall_time,
                thinnings=0,
                estimated_error=0.0,
            ),
            rtol=self.options.rtol,
            method=f"limit:{self.problem.limit}",
            config_text=self.options.config_text,
        )


def energy_imbalance(form: Formulation, t: FloatArray, state: LimitState) -> FloatArray:
    """Relative imbalance of de_tr/dt = -(1/abar) sum_i [(da_i/dt)^2 + d_t d_s C_ii(t,s)|_{s=t}] on the rows, (N,).

    Derivatives are those of the polynomials through the rows. A limit of leading order satisfies the identity; with
    corrections to the curves alone it fails by their size. 0 where both sides are below rounding.
    """
    count, width = len(t), ORDER + 1
    result = np.zeros(count)
    sizes = form.sizes.astype(np.float64)
    for n in range(1, count):
        low = min(max(0, n - width // 2), max(count - width, 0))
        rows = np.arange(low, min(low + width, count))
        weights = derivative_weights(t[rows], float(t[n]))
        left = float(weights @ state.train_error[rows])
        speed = 0.0
        for g in range(form.groups):
            block = np.ix_(rows, rows)
            own = state.correlation_t[g][block] + state.correlation_o[g, g][block]
            speed += sizes[g] * (float(weights @ own @ weights) + float(weights @ state.a[rows, g]) ** 2)
        abar = form.alpha * form.width
        size = float(np.abs(weights).sum())
        unit = 64.0 * np.finfo(float).eps
        noise = unit * size * float(np.abs(state.train_error[rows]).max())
        noise += unit * size**2 * (form.width + float(sizes @ state.a[n] ** 2)) / abar
        right = -speed / abar
        scale = max(abs(left), abs(right))
        result[n] = max(0.0, abs(left - right) - noise) / scale if scale > noise else 0.0
    return result
