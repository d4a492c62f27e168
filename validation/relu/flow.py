"""Gradient flow of a ReLU network, kink by kink, to its very end.

Between two crossings of a kink <w_j, x_k> = 0 every neuron feels a drive D_j = (1/n) sum_k r_k sigma'_jk x_k that it
shares with all neurons of its activation pattern, and

    d/dt (w_j, a_j) = [[0, D], [D^T, 0]] (w_j, a_j)

is a Lorentz boost with generator D: it keeps a_j^2 - |w_j|^2 ([BF]'s conserved quantity) exactly. All that the
residuals need of a pattern are the second moments of its neurons, which the same boosts transform. So a step is a
boost for each pattern, and costs as many unknowns as there are patterns times d, whatever the width: two patterns once
the neurons have aligned. Its generator int D dt comes from a two-stage Rosenbrock scheme of order two (L-stable, for
generators in place of increments), with the exact Jacobian of the drives where the step is stiff, solved for in
patterns or in samples, whichever are fewer. Growth out of the saddle is exponential and the boost is exact for it, so
steps stay of the order of the escape time at any scale of the initialisation; the stiff approach to a minimum takes
steps that grow with the time itself.

At a kink the drive jumps by (1 - slope) r_k x_k/n. A step is accepted when the kinks crossed on its way change it by no
more than the tolerance, otherwise it is cut at the first of them. Where both sides push a neuron onto the kink it stays
there (Filippov's solution, the minimum-norm element of the subdifferential across the kink): its drive is projected on
<w, x_k> = 0 until the share of the jump that this takes leaves [0, 1]. That is what gradient descent does by jumping to
and fro; here it allows large steps, and lets a minimum *on* kinks be recognised as one.

A run ends in a state that interpolates, or where |D_j| of every neuron vanishes, those of negligible weight included:
these are what would grow, at the rate |D_j|, if the state were a saddle. Left out are light neurons that shrink to zero
along D_j itself, for they go on shrinking. Such a state is stationary for this start; that it is a minimum against
every perturbation, new neurons among them, is not claimed. From w = 0 with a != 0, which neurons with |a| > |w| may
reach in finite time, there is more than one way on, of which the flow takes that of staying.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from dmft._validate import integer, real
from validation.relu import _flow
from validation.relu.network import Network, checked
from validation.relu.trajectory import ESCAPED, FloatArray, Reason, Recorder, Trajectory, record_times

TOLERANCE = 1e-3
"""Default local error."""
T_FINAL = 1e9
"""Default end, which no run should need."""
MAX_STEPS = 100_000
"""Default limit on steps."""
LOSS_TOL, DRIVE_TOL = 1e-12, 1e-9
"""Default ends, relative to the first train loss and to the average of (|y_k| + |r_k|) |x_k| at the start."""
RECORDS_PER_DECADE = 10
"""Recorded states for each factor of ten in time, by default."""

_FIRST = 1e-2  # first step and first recorded time, in units of 1/|D|
_BALANCED = 1e-12  # a^2 = |w|^2 up to rounding
_SLAB = 200  # steps between two looks at signals and at `stop`
_REASONS = {
    _flow.REACHED: None,
    _flow.STEP_LIMIT: None,
    _flow.INTERPOLATED: Reason.LOSS,
    _flow.STATIONARY: Reason.STATIONARY,
    _flow.STUCK: Reason.FAILED,
}


def gradient_flow(
    network: Network,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    t_final: float = T_FINAL,
    tolerance: float = TOLERANCE,
    times: ArrayLike | None = None,
    max_steps: int = MAX_STEPS,
    loss_tol: float | None = None,
    drive_tol: float | None = None,
    change_tol: float = 0.0,
    stop: Callable[[], bool] | None = None,
) -> Trajectory:
    """Gradient flow of L = (1/2n) sum_k (y_k - f(x_k))^2 in both layers.

    Parameters
    ----------
    network : Network
        Where it starts; of a piecewise-linear activation.
    inputs : (n, d) array_like
    labels : (n,) array_like
    t_final : float
        Time to reach, unless the run ends before.
    tolerance : float
        Local error of a step relative to the norm of all weights. The flow itself separates close paths at kinks, so
        where it has many of them the end depends on it.
    times : array_like, optional
        Times to record besides 0 and the last; by default ten for each factor of ten.
    max_steps : int
        Limit on the number of steps.
    loss_tol : float, optional
        The run ends when the train loss is as small (`Reason.LOSS`); `LOSS_TOL` of the first one by default.
    drive_tol : float, optional
        It ends when max_j |D_j|, over all neurons but those at zero and light ones that shrink to zero along D_j, is as
        small (`Reason.STATIONARY`); `DRIVE_TOL` of the average (|y_k| + |r_k|) |x_k| at the start by default.
    change_tol : float
        It ends at a recorded time since half of which the train loss has changed by no more than this share of itself,
        once it has left the saddle (`Reason.CHANGE`); 0 does not.
    stop : callable, optional
        Asked now and then; True ends the run with what there is.

    Returns
    -------
    Trajectory

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, or the activation is not piecewise linear.
    """
    if not network.activation.piecewise_linear:
        raise ValueError(f"network must have a piecewise-linear activation here, not {network.activation.name}.")
    weights, outer, x, y = checked(network, inputs, labels)
    t_final = real("t_final", t_final, low=0.0, open_low=True)
    tolerance = real("tolerance", tolerance, low=0.0, open_low=True, high=0.1)
    max_steps = integer("max_steps", max_steps, low=1)
    change_tol = real("change_tol", change_tol, low=0.0)
    samples = _samples(network, x, y)
    neurons = _start(weights, outer, samples)
    scale = float(np.mean((np.abs(y) + np.abs(y - network(x))) * np.linalg.norm(x, axis=1)))
    if not math.isfinite(scale):
        raise ValueError("network must have finite outputs on the inputs, and it overflows.")
    pace = samples.pace
    scalars, marks, marked = np.zeros(_flow.SCALARS), np.zeros(1), np.full(1, np.inf)
    scalars[_flow.STEP] = _FIRST * pace
    recorder = Recorder()

    def advance(t_stop: float, steps: int, limits: tuple[float, float]) -> int:
        code: int = _flow.advance(neurons, samples, scalars, marks, marked, tolerance, t_stop, steps, *limits)
        return code

    def record() -> None:
        loss, gradient = float(scalars[_flow.LOSS]), float(scalars[_flow.GRADIENT])
        recorder.add(float(scalars[_flow.TIME]), loss, gradient, neurons.weights, neurons.outer)

    advance(0.0, 0, (-1.0, -1.0))  # the first state
    record()
    first_loss = float(scalars[_flow.LOSS])
    marks[0] = (1.0 - ESCAPED) * first_loss
    limits = (
        LOSS_TOL * first_loss if loss_tol is None else real("loss_tol", loss_tol, low=0.0),
        DRIVE_TOL * scale if drive_tol is None else real("drive_tol", drive_tol, low=0.0),
    )
    reason = None
    count = max(2, round(RECORDS_PER_DECADE * math.log10(t_final / min(_FIRST * pace, t_final))))
    for t in np.append(record_times(times, t_final, _FIRST * pace, count), t_final):
        while reason is None and scalars[_flow.TIME] < t:
            left = max_steps - int(scalars[_flow.STEPS])
            if left <= 0:
                reason = Reason.STEPS
            elif stop is not None and stop():
                reason = Reason.INTERRUPTED
            else:
                reason = _REASONS[advance(float(t), min(_SLAB, left), limits)]
        record()
        if reason is None and recorder.settled(change_tol):
            reason = Reason.CHANGE
        if reason is not None:
            break
    return recorder.trajectory(
        reason if reason is not None else Reason.TIME,
        int(scalars[_flow.STEPS]),
        network.activation,
        float(marked[0]),
        int(scalars[_flow.EVENTS]),
    )


def merged(inputs: FloatArray, labels: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Inputs of different directions, their labels, and the train loss that no network of relu neurons can go below.

    Samples of one direction x_k = c_k u are one of input sqrt(C) u and label sum_k c_k y_k/sqrt(C), C = sum_k c_k^2, up
    to a constant of the loss, since f is homogeneous; x = 0 adds a constant only.
    """
    norms = np.linalg.norm(inputs, axis=1)
    seen = norms > 0.0
    directions = inputs[seen] / norms[seen, None]
    # Equal up to rounding: multiples of one input may differ in the last bits of their directions.
    _, first, member = np.unique(np.round(directions, 12) + 0.0, axis=0, return_index=True, return_inverse=True)
    member = member.ravel()
    order = np.argsort(first)  # as the samples came
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    member = place[member]
    power = np.bincount(member, norms[seen] ** 2, minlength=len(first))
    overlap = np.bincount(member, norms[seen] * labels[seen], minlength=len(first))
    root = np.sqrt(power)
    alone = np.bincount(member, minlength=len(first)) == 1
    x = np.where(alone[:, None], inputs[seen][first[order]], root[:, None] * directions[first[order]])
    y = np.where(alone, labels[seen][first[order]], overlap / root)
    if len(y) == len(labels):
        return x, y, 0.0
    left = float(np.sum(labels[~seen] ** 2))  # what the merged samples have beyond their sum
    shared = ~alone[member]
    left += float(np.sum((labels[seen] - norms[seen] * (overlap / power)[member])[shared] ** 2))
    return x, y, left / len(labels)


def _samples(network: Network, inputs: FloatArray, labels: FloatArray) -> _flow.Samples:
    """The data as the flow sees them: `merged`, and what is opposite is paired."""
    x, y, offset = merged(inputs, labels)
    rounded = np.round(x / np.linalg.norm(x, axis=1)[:, None], 12) + 0.0
    places = {row.tobytes(): k for k, row in enumerate(rounded)}
    partner, ratio = np.full(len(y), _flow.NONE, np.int64), np.zeros(len(y))
    for k, row in enumerate(rounded):
        other = places.get((-row + 0.0).tobytes(), -1)
        if other > k:
            partner[k], ratio[k] = other, np.linalg.norm(x[other]) / np.linalg.norm(x[k])
            partner[other] = int(_flow.OWNED)
    residual = labels - network(inputs)
    gates = network.activation.derivative(inputs @ network.weights.T)
    fastest = float(np.max(np.linalg.norm((gates * residual[:, None]).T @ inputs, axis=1), initial=0.0)) / len(labels)
    return _flow.Samples(
        inputs=x,
        inputs_t=np.array(x.T, order="C"),
        labels=y,
        norms=np.linalg.norm(x, axis=1),
        partner=partner,
        ratio=ratio,
        number=float(len(labels)),
        offset=offset,
        pace=1.0 / fastest if fastest > 0.0 else 1.0,
        slope=float(network.activation.slope or 0.0),
        keys=np.random.default_rng(0).integers(0, 2**64, (len(y), 3), dtype=np.uint64),
    )


def _start(weights: FloatArray, outer: FloatArray, samples: _flow.Samples) -> _flow.Neurons:
    """The compiled state of a network, which owns the arrays from now on."""
    side = (weights @ samples.inputs.T > 0.0).astype(np.int8)
    for k in np.flatnonzero(samples.partner >= 0):
        side[:, samples.partner[k]] = 1 - side[:, k]
    hashes = np.zeros(len(outer), np.uint64)
    for place in range(len(samples.labels)):
        hashes ^= samples.keys[place, side[:, place]]
    gap, size = outer**2 - np.sum(weights**2, axis=1), _BALANCED * outer**2
    kind = np.where(gap > size, _flow.DOMINATED, np.where(gap < -size, _flow.FREE, _flow.BALANCED)).astype(np.int8)
    return _flow.Neurons(weights, outer, side, hashes, kind)
