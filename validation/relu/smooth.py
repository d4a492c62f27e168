"""Gradient flow of L = (1/2n) sum_k r_k^2 for any activation by an adaptive Runge-Kutta method of scipy.

RK45: on gelu it needs as many gradients as RK23 and DOP853 and a third of those of LSODA or BDF, which spend theirs on
Jacobians. It also follows relu and leaky_relu, as an independent check, at rtol of 1e-3 or 1e-4: neurons that slide
along a kink, where the flow points to it from both sides, make the steps as short as the tolerance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import RK45

from dmft._validate import real
from validation.relu.descent import Force
from validation.relu.network import Network
from validation.relu.trajectory import Reason, Recorder, Trajectory, record_times

FloatArray = NDArray[np.float64]

_POLL = 0.1  # seconds between two calls of `stop`
_FIRST = 1e-4  # first recorded time by default, of the final one


def smooth_flow(
    network: Network,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    t_final: float,
    rtol: float = 1e-6,
    times: ArrayLike | None = None,
    loss_tol: float = 0.0,
    gradient_tol: float = 0.0,
    change_tol: float = 0.0,
    stop: Callable[[], bool] | None = None,
) -> Trajectory:
    """Gradient flow of both layers (theory section 9).

    w_j' = a_j D_j, a_j' = (1/n) sum_k r_k sigma(<w_j, x_k>) with D_j = (1/n) sum_k r_k sigma'(<w_j, x_k>) x_k. The
    absolute tolerance is ``rtol`` times the root mean square of the initial parameters: an error made near the saddle
    grows with the parameters.

    Parameters
    ----------
    network : Network
        Where it starts; not changed.
    inputs, labels : (n, d), (n,) array_like
    t_final : float
        Final time, >= 0.
    rtol : float
        Relative tolerance of a step, from 1e-12 to 0.1. Steps are bounded by it at kinks: see the module for relu.
    times : (T,) array_like, optional
        Increasing times within 0 and t_final to record, from the continuous extension of the method; 60, log-spaced
        from t_final/10^4, by default. The start and the end are always recorded.
    loss_tol, gradient_tol : float
        Stop after the step at whose end the train loss (mean squared residual) or the norm of the gradient of L is as
        small.
    change_tol : float
        Stop at a recorded time since half of which the train loss has changed by no more than this share of itself,
        once it has left the saddle; 0 does not.
    stop : callable, optional
        Called about every 0.1 s; True ends the flow.

    Returns
    -------
    Trajectory
        Ends with `Reason.TIME`, `LOSS`, `GRADIENT`, `INTERRUPTED`, `DIVERGED` (never a property of the flow itself) or
        `FAILED`, when the step has shrunk to rounding.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.
    """
    t_final = real("t_final", t_final, low=0.0)
    rtol = real("rtol", rtol, low=1e-12, high=0.1)
    loss_tol = real("loss_tol", loss_tol, low=0.0)
    gradient_tol = real("gradient_tol", gradient_tol, low=0.0)
    change_tol = real("change_tol", change_tol, low=0.0)
    wanted = record_times(times, t_final, _FIRST * t_final)
    force = Force(network, inputs, labels)
    size = force.weights.size

    def evaluate(state: FloatArray) -> tuple[float, float]:
        force.weights.reshape(-1)[:] = state[:size]
        force.outer[:] = state[size:]
        return force()

    def derivative(_: float, state: FloatArray) -> FloatArray:
        evaluate(state)
        return np.concatenate([force.d_weights.ravel(), force.d_outer])

    start = np.concatenate([force.weights.ravel(), force.outer])
    recorder = Recorder()

    def record(now: float, state: FloatArray) -> None:
        loss, norm = evaluate(state)
        recorder.add(now, loss, norm, force.weights.T, force.outer)

    loss, norm = evaluate(start)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise ValueError("network must have a finite loss and gradient on inputs and labels, and it overflows.")
    limit = force.limit(loss)
    record(0.0, start)
    wanted = wanted[wanted > 0.0]
    scale = float(np.sqrt(np.mean(start**2))) or 1.0
    solver = RK45(derivative, 0.0, start, t_final, rtol=rtol, atol=rtol * scale)
    steps, recorded, polled = 0, 0, time.perf_counter()

    def ended() -> Reason | None:
        if loss <= loss_tol:
            return Reason.LOSS
        if norm <= gradient_tol:
            return Reason.GRADIENT
        return Reason.TIME if solver.t >= t_final else None

    reason = ended()
    while reason is None:
        solver.step()
        if solver.status == "failed":
            reason = Reason.FAILED
            break
        loss, norm = evaluate(solver.y)
        if not (loss <= limit and math.isfinite(norm)):
            return recorder.trajectory(Reason.DIVERGED, steps, force.activation)
        steps += 1
        upto = int(np.searchsorted(wanted, solver.t))
        if upto > recorded:
            dense = solver.dense_output()
            for now in wanted[recorded:upto]:
                record(float(now), dense(now))
            recorded = upto
            if recorder.settled(change_tol):
                reason = Reason.CHANGE
                break
        reason = ended()
        if reason is None and stop is not None and time.perf_counter() - polled > _POLL:
            if stop():
                reason = Reason.INTERRUPTED
            polled = time.perf_counter()
    record(float(solver.t), solver.y)
    return recorder.trajectory(reason, steps, force.activation)
