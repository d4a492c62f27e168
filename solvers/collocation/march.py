"""The march: one implicit row after the other in ln t, each solved by chord Newton; step, grid, and their control."""

from __future__ import annotations

import numpy as np
from scipy.linalg import lu_factor, lu_solve

from solvers.collocation.grid import FloatArray, Grid
from solvers.collocation.history import ORDER, Frame, History
from solvers.collocation.system import RowState, System

START = 1e-10
"""First time over the fastest time scale: functions have moved by this much, and count as constant before."""
RESOLVED = 0.03
"""Smallest resolved s and t - s over the fastest time scale."""
AHEAD, MARGIN = 10.0, 2.5
"""A new grid serves until t is AHEAD / MARGIN times later."""
AGED = 1e5
"""Time over the fastest time scale from which the density of nodes grows, with the system's exponent `System.aging`."""
LEAST_CHANGE = 0.7
"""Least growth of the grid's stretch: every change leaves a kink of the size of the interpolation error."""
MAX_STEP = 0.4
MAX_GROWTH = 1.15
LEAST_STEP = 1e-9
ROUNDING = 1e-13
"""Change of an iteration, over the natural sizes, that is not asked to become smaller."""
LANDING = 8
"""Rows that share the way to a time that must be met: a row at half the distance would disturb those after it."""
SLACK = 2.0
SAFETY = 0.85
KINK = 100.0
"""Error over the tolerance that a row next to a change of grid or equations may have without further question."""
KINK_SHARE, KINK_GROWTH = 0.5, 3.0
"""A larger one is a kink if SHORTER of the step leaves this share of it, and for the next rows if it has not grown by
more than this factor."""
SHORTER = 0.3
ITERATIONS = 20
WORTH = 8
"""Iterations still to come at which a new Jacobian is cheaper than going on with the old one."""


class Marcher:
    """Rows of one run.

    Parameters
    ----------
    system : System
        The equations.
    tolerance : float
        Local error of a row in the functions' natural sizes.
    t_first, t_final : float
        First time that must be met; last one, beyond which no grid looks ahead.
    """

    def __init__(self, system: System, tolerance: float, t_first: float, t_final: float) -> None:
        self.system, self.tolerance, self.t_final = system, tolerance, t_final
        values, scalars = system.initial()
        self.rate = max(system.fastest_rate(values, scalars), 1e-3 / t_final)
        log_t = float(np.log(min(START / self.rate, 1e-3 * t_first)))
        self.history = History(self._grid(log_t), values, scalars, log_t)
        self.step = 0.3
        self.unsettled = 0  # rows whose prediction still reaches over the last change of grid or equations
        self.kink = self.refused = np.inf  # error that the last such change is known to leave; that of the last try
        self.iterations = self.factorisations = 0
        self._factors: tuple[FloatArray, FloatArray] | None = None
        self._scale = self._row_scale = np.zeros(0)

    def _stretch(self, log_t: float, ahead: float) -> float:
        time = min(np.exp(log_t) * ahead, 1.01 * self.t_final)
        return max(float(np.log(time * self.rate / RESOLVED)), 3.0)

    def _grid(self, log_t: float, least: float = 0.0) -> Grid:
        stretch = max(self._stretch(log_t, AHEAD), least)
        late = RESOLVED / MARGIN * float(np.exp(stretch))  # last time of the grid over the fastest time scale
        nodes = nodes_per_fold(self.tolerance) * max(1.0, late / AGED) ** self.system.aging * stretch
        return Grid(max(24, int(np.ceil(nodes)) + 12), stretch)

    def attempt(self, step: float) -> tuple[RowState, FloatArray, float] | None:
        """Solve the row at ``step`` after the newest in ln t: the row, its scalars (S,), its local error."""
        system = self.system
        frame = self.frame = Frame(self.history, step, system.layout)
        unknowns = frame.predicted_values[:, list(system.unknowns)].T.copy()
        scalars = frame.predicted_scalars.copy()
        functions, sizes = system.scales(frame)
        scale = np.concatenate([np.repeat(functions, frame.grid.size), sizes])
        wanted = max(ROUNDING, 1e-3 * self.tolerance)
        previous, fresh = np.inf, False
        for iteration in range(ITERATIONS):
            state = system.row(frame, unknowns, scalars)
            if not np.isfinite(state.residual).all():
                break
            if self._factors is None:
                self._factor(frame, unknowns, scalars, state, scale)
                fresh = True
            change = self._scale * lu_solve(self._factors, state.residual / self._row_scale, check_finite=False)
            unknowns = unknowns - change[: unknowns.size].reshape(unknowns.shape)
            scalars = scalars - change[unknowns.size :]
            self.iterations += 1
            size = float(np.abs(change / scale).max())
            if size < wanted:
                state = system.row(frame, unknowns, scalars)
                return state, scalars, system.errors(frame, state, scalars, self.tolerance) / (ORDER + 1)
            if iteration > 0 and not fresh:
                left = np.log(wanted / size) / np.log(size / previous) if size < previous else np.inf
                if left > WORTH:
                    self._factors = None
            elif iteration > 1 and size > previous:
                break
            previous = size
        self._factors = None
        return None

    def _factor(
        self, frame: Frame, unknowns: FloatArray, scalars: FloatArray, state: RowState, scale: FloatArray
    ) -> None:
        jacobian = self.system.jacobian(frame, unknowns, scalars, state)
        self._scale = scale.copy()
        self._row_scale = scale.copy()
        self._row_scale[-1] = 1.0  # the equation of nu is one for C_d
        jacobian *= self._scale
        jacobian /= self._row_scale[:, None]
        self._factors = lu_factor(jacobian, overwrite_a=True, check_finite=False)
        self.factorisations += 1

    def advance(self, log_t: float) -> tuple[RowState, FloatArray, float] | None:
        """Try one row towards ln t, and accept it if it is accurate enough; None when it was not.

        The step for the next try is set in both cases.
        """
        left = log_t - self.history.newest
        ahead = int(np.ceil(left / (1.001 * self.step)))
        step = left / ahead if ahead <= LANDING else self.step
        result = self.attempt(step)
        if result is None or not np.isfinite(result[2]):
            self.step = 0.5 * step
            return None
        state, scalars, error = result
        ideal = step * SAFETY * (self.tolerance / max(error, 1e-6 * self.tolerance)) ** (1.0 / (ORDER + 1))
        if self.unsettled > 0 and self._is_kink(error):
            # The prediction sees the kink that a new grid leaves, the row itself hardly does; smaller steps would not
            # help. Their length stays.
            self.unsettled -= 1
            ideal = max(ideal, step)
        elif error > SLACK * self.tolerance:
            self.refused = error
            self.step = max(SHORTER * step, min(0.9 * step, ideal))
            return None
        self.refused = np.inf
        self.step = min(MAX_STEP, MAX_GROWTH * step, ideal)
        if self.system.switches(self.frame.newest_diagonal, state.values[-1]):
            self._unsettle()
        self.history.append(log_t if step == left else self.frame.log_t, state.values, scalars)
        self._regrid(state, scalars)
        return result

    def _is_kink(self, error: float) -> bool:
        """Whether the error of a row next to a change is what the change left, which no step makes smaller."""
        if KINK_SHARE * self.refused < error < np.inf:
            self.kink = error
        return error <= KINK * self.tolerance or error <= KINK_GROWTH * self.kink < np.inf

    def _unsettle(self) -> None:
        self.unsettled = ORDER + 1
        self.kink = self.refused = np.inf

    def _regrid(self, state: RowState, scalars: FloatArray) -> None:
        """Stretch the grid when its ends no longer resolve the fastest time scale."""
        self.rate = max(self.system.fastest_rate(state.values[-1], scalars), 1e-3 / self.t_final)
        log_t = self.history.newest
        if self._stretch(log_t, MARGIN) > self.history.grid.stretch + 1e-9:
            self.history.resample(self._grid(log_t, self.history.grid.stretch + LEAST_CHANGE))
            self._factors = None
            self._unsettle()

    # ---------------------------------------------------------------------------------------------- checkpoints

    def snapshot(self) -> tuple[dict[str, FloatArray], dict[str, float]]:
        """Arrays and numbers from which `restore` goes on, bit for bit."""
        history = self.history
        arrays = {name: getattr(history, name)[: history.count] for name in ("log_t", "rows", "scalars")}
        if self._factors is not None:
            arrays |= {"lu": self._factors[0], "pivots": self._factors[1]}
            arrays |= {"scale": self._scale, "row_scale": self._row_scale}
        grid = history.grid
        record = {"size": grid.size, "stretch": grid.stretch, "step": self.step, "rate": self.rate}
        record |= {"unsettled": self.unsettled, "kink": self.kink, "refused": self.refused}
        record |= {"iterations": self.iterations, "factorisations": self.factorisations}
        return arrays, record

    def restore(self, arrays: dict[str, FloatArray], record: dict[str, float]) -> None:
        """Inverse of `snapshot`."""
        history = self.history
        history.grid = Grid(int(record["size"]), record["stretch"])
        history.log_t, history.rows, history.scalars = arrays["log_t"], arrays["rows"], arrays["scalars"]
        history.count = len(history.log_t)
        self.step, self.rate, self.unsettled = record["step"], record["rate"], int(record["unsettled"])
        self.kink, self.refused = record["kink"], record["refused"]
        self.iterations, self.factorisations = int(record["iterations"]), int(record["factorisations"])
        self._factors = None
        if "lu" in arrays:
            self._factors = (np.asfortranarray(arrays["lu"]), arrays["pivots"])
            self._scale, self._row_scale = arrays["scale"], arrays["row_scale"]


def nodes_per_fold(tolerance: float) -> float:
    """Nodes for each e-fold of s and t - s at which interpolation in x is as good as the tolerance (measured)."""
    return float(np.clip(4.8 + 1.3 * np.log10(1e-5 / tolerance), 4.0, 13.0))
