"""The spherical mixed p-spin model on one row: unknowns C(t, s), R(t, s) and nu(t).

    d_t C(t,s) = -nu C + int_0^t f''(C) R(t,u) C(u,s) du + int_0^s f'(C(t,u)) R(s,u) du
    d_t R(t,s) = -nu R + int_s^t f''(C) R(t,u) R(u,s) du ,   nu = int_0^t [f''(C) C + f'(C)] R du

(gradient flow, f the covariance of the Hamiltonian), with C = R = 1 at s = t.
"""

from __future__ import annotations

import numpy as np

from dmft.formulation import Formulation
from solvers.collocation.grid import FloatArray
from solvers.collocation.history import Frame, Layout, pairs
from solvers.collocation.system import RowState, System, derivatives, polynomial

C, R = 0, 1


class PSpinSystem(System):
    """Equations of the p-spin model; see `System`."""

    unknowns = (C, R)
    functions = 2
    layout = Layout(slice(0, 2), slice(0, 2), pairs((0, C), (1, R)), pairs((0, C), (0, R)))

    # While it ages, t multiplies the error of an interpolation in the balance that decides the slow motion. The error,
    # of tenth order in the density of nodes, must fall like 1/t^2 (measured for p = 3).
    aging = 0.2

    def __init__(self, form: Formulation) -> None:
        self._f = derivatives(form.covariance)

    def initial(self) -> tuple[FloatArray, FloatArray]:
        """Values at t = 0, where R = 1 and nothing has moved."""
        return np.ones(2), np.zeros(1)

    def fastest_rate(self, values: FloatArray, scalars: FloatArray) -> float:
        """Edge of the Hessian and first slope of the covariance."""
        return float(2.0 * np.sqrt(polynomial(self._f[2], 1.0)) + polynomial(self._f[1], 1.0))

    def scales(self, frame: Frame) -> tuple[FloatArray, FloatArray]:
        """Sizes that the Jacobian and the errors are measured in."""
        return np.ones(2), np.maximum(1.0, np.abs(frame.predicted_scalars))

    def row(self, frame: Frame, unknowns: FloatArray, scalars: FloatArray) -> RowState:
        """Evaluate the equations; see `System.row`."""
        c, r = unknowns
        (nu,) = scalars
        f1, f2 = (polynomial(self._f[i], c) for i in (1, 2))
        memory = f2 * r
        row = np.stack([c, r], axis=1)
        left_below = frame.at_inner(np.stack([memory, f1], axis=1))
        left_above = frame.at_outer(memory[:, None])
        right_below, right_above = frame.earlier(row), frame.between(row)
        below = frame.integrals_below(left_below, right_below)
        above = frame.integrals_above(left_above, right_above)
        lead, transport = frame.derivative[-1], frame.grid.transport
        motion_c = nu * c - below.sum(axis=1) - above[:, 0]
        motion_r = nu * r - above[:, 1]
        residual = np.empty((2, len(c)))
        residual[C] = lead * c + frame.past_values[:, C] - transport @ c + frame.t * motion_c
        residual[R] = lead * r + frame.past_values[:, R] - transport @ r + frame.t * motion_r
        residual[C, -1] = c[-1] - 1.0
        residual[R, -1] = r[-1] - 1.0
        multiplier = frame.whole @ ((f2 * c + f1) * r) - nu
        return RowState(
            residual=np.append(residual.ravel(), multiplier),
            values=row,
            self_motion=-motion_c,
            speed=0.0,
            energy=-float(frame.whole @ (f1 * r)),
            under=(left_below, left_above, right_below, right_above),
        )

    def jacobian(self, frame: Frame, unknowns: FloatArray, scalars: FloatArray, state: RowState) -> FloatArray:
        """Analytic derivative; see `System.jacobian`."""
        c, r = unknowns
        (nu,) = scalars
        size = len(c)
        f1, f2, f3 = (polynomial(self._f[i], c) for i in (1, 2, 3))
        left_below, left_above, right_below, right_above = state.under
        by_memory = frame.slope_below_left(right_below[:, :, C]) + frame.slope_above_left(right_above[:, :, C])
        by_noise = frame.slope_below_left(right_below[:, :, R])
        own = frame.slope_above_right(left_above[:, :, 0])
        by_c = frame.slope_below_right(left_below[:, :, 0]) + own
        by_r = frame.slope_below_right(left_below[:, :, 1])
        by_memory_r = frame.slope_above_left(right_above[:, :, R])
        flow = -frame.grid.transport
        flow[np.diag_indices(size)] += frame.derivative[-1] + frame.t * nu
        result = np.zeros((2 * size + 1, 2 * size + 1))
        first, second = slice(0, size), slice(size, 2 * size)
        result[first, first] = flow - frame.t * (by_c + by_memory * (f3 * r) + by_noise * f2)
        result[first, second] = -frame.t * (by_r + by_memory * f2)
        result[second, first] = -frame.t * by_memory_r * (f3 * r)
        result[second, second] = flow - frame.t * (own + by_memory_r * f2)
        result[first, -1] = frame.t * c
        result[second, -1] = frame.t * r
        result[-1, first] = frame.whole * (f3 * c + 2.0 * f2) * r
        result[-1, second] = frame.whole * (f2 * c + f1)
        result[-1, -1] = -1.0
        for edge in (size - 1, 2 * size - 1):
            result[edge] = 0.0
            result[edge, edge] = 1.0
        return result

    def errors(self, frame: Frame, state: RowState, scalars: FloatArray, tolerance: float) -> float:
        """Distance of C and R from their prediction."""
        return float(np.abs(state.values - frame.predicted_values).max())
