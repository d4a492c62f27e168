"""The recorded course of a training, whichever way it was trained."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmft._validate import real_array
from validation.relu.network import Network, Nonlinearity

FloatArray = NDArray[np.float64]

RECORDS = 60
"""Recorded states by default, about."""
ESCAPED = 0.1
"""The saddle at zero is left when the train loss has fallen by this share of its first value."""


class Reason(Enum):
    """Why training ended.

    LOSS: the train loss is below its tolerance. STATIONARY: every neuron is at rest, on kinks or off them, and none
    that is still small grows. GRADIENT: the norm of the gradient is below its tolerance. CHANGE: the train loss has
    stopped changing. STEPS, TIME: all steps are done, the final time is reached. DIVERGED: the train loss is not finite
    or has grown out of bounds. INTERRUPTED: ``stop`` said so. FAILED: the integrator found no way on.
    """

    LOSS = "loss"
    STATIONARY = "stationary"
    GRADIENT = "gradient"
    CHANGE = "change"
    STEPS = "steps"
    TIME = "time"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Recorded course of a training; finite numbers only.

    Attributes
    ----------
    time : (T,) float
        Increasing, from 0 to the last state; the learning rate times the number of steps but for a flow.
    train_loss : (T,) float
        Mean squared residual, twice the loss L that is descended.
    gradient_norm : (T,) float
        Norm of the gradient of L in all parameters.
    weights : (T, m, d) float
    outer : (T, m) float
    reason : Reason
        Why it ended. After `Reason.DIVERGED` the records are those made before it.
    steps : int
        Steps done.
    activation : Nonlinearity
    escape_time : float
        When the train loss had fallen by `ESCAPED` of its first value; infinite if never.
    events : int
        Kinks that neurons have crossed, where the integrator follows them; else 0.
    """

    time: FloatArray
    train_loss: FloatArray
    gradient_norm: FloatArray
    weights: FloatArray
    outer: FloatArray
    reason: Reason
    steps: int
    activation: Nonlinearity
    escape_time: float
    events: int = 0

    def network(self, index: int = -1) -> Network:
        """The network of a record, the last one by default."""
        return Network(self.weights[index], self.outer[index], self.activation)


def escape_time(time: FloatArray, train_loss: FloatArray) -> float:
    """When the loss had fallen by `ESCAPED`, between records; infinite if it has not.

    The fallen part grows exponentially there, so its logarithm is what is interpolated.
    """
    fallen = 1.0 - train_loss / train_loss[0] if train_loss[0] > 0.0 else np.ones(1)
    beyond = np.flatnonzero(fallen >= ESCAPED)
    if len(beyond) == 0:
        return float("inf")
    i = int(beyond[0])
    if i == 0 or fallen[i - 1] <= 0.0:
        return float(time[i])
    low, high = np.log(fallen[i - 1]), np.log(fallen[i])
    return float(time[i - 1] + (time[i] - time[i - 1]) * (np.log(ESCAPED) - low) / (high - low))


def record_times(times: ArrayLike | None, end: float, first: float, records: int = RECORDS) -> FloatArray:
    """Times to record: those given, or ``records`` log-spaced ones from ``first`` to ``end``.

    Raises
    ------
    TypeError, ValueError
        If they are not increasing, or not within 0 and ``end``.
    """
    if times is None:
        return np.geomspace(min(first, end), end, records) if end > 0.0 else np.zeros(0)
    array = real_array("times", times, ndim=1)
    if np.any(np.diff(array) <= 0.0):
        raise ValueError("times must increase.")
    if len(array) and (array[0] < 0.0 or array[-1] > end * (1.0 + 1e-12)):
        raise ValueError(f"times must be >= 0 and <= {end:g}, the end, not from {array[0]:g} to {array[-1]:g}.")
    return array


class Recorder:
    """Collects states for a `Trajectory`."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, float, float, FloatArray, FloatArray]] = []

    def add(self, time: float, loss: float, norm: float, weights: FloatArray, outer: FloatArray) -> None:
        """Record weights (m, d) and outer (m,), unless this time has been recorded."""
        if not self._rows or time > self._rows[-1][0]:
            self._rows.append((time, loss, norm, weights.copy(), outer.copy()))

    def settled(self, change_tol: float) -> bool:
        """Whether the loss has changed by at most this share of itself since half of the time, after the escape."""
        time, loss = self._rows[-1][:2]
        if change_tol <= 0.0 or loss > (1.0 - ESCAPED) * self._rows[0][1]:
            return False
        earlier = [row[1] for row in self._rows if 0.0 < row[0] <= 0.5 * time]
        return bool(earlier) and abs(earlier[-1] - loss) <= change_tol * loss

    def trajectory(
        self,
        reason: Reason,
        steps: int,
        activation: Nonlinearity,
        escaped: float | None = None,
        events: int = 0,
    ) -> Trajectory:
        """What has been recorded; the escape time is read off the records unless it is known better."""
        time, loss, norm, weights, outer = (np.array(column) for column in zip(*self._rows, strict=True))
        left = escape_time(time, loss) if escaped is None else escaped
        return Trajectory(time, loss, norm, weights, outer, reason, steps, activation, left, events)
