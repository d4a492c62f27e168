"""Full-batch gradient descent and Adam on L = (1/2n) sum_k r_k^2, r = y - f ([BF], theory section 9), compiled.

A step costs 4 d + 4 operations or so for each neuron and sample. Samples go in groups of four through all neurons, and
the compiled loops run over the neurons: what they touch is a few rows as long as the network is wide, which stay in the
first cache however many samples there are. Groups are filled up with samples x = 0, y = 0, which add nothing.

What the last bits are depends on the order of sums; the method is plain float64 gradient descent otherwise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from dmft import _jit
from dmft._validate import integer, real
from validation.relu.network import Network, checked
from validation.relu.trajectory import Reason, Recorder, Trajectory, record_times

FloatArray = NDArray[np.float64]

DIVERGED = 1e6
"""Growth of the train loss taken for divergence."""

_GROUP = 4
_SLAB = 0.1  # seconds of compiled code between two looks at signals and at `stop`

_REACH = 9  # beyond +-9 the normal distribution function is 0 or 1 in float64
_CELLS = 128  # per unit: what the Taylor series leave out is below 1e-16

_RUNNING, _DIVERGED, _LOSS, _GRADIENT = range(4)


_REASONS = {_DIVERGED: Reason.DIVERGED, _LOSS: Reason.LOSS, _GRADIENT: Reason.GRADIENT}


def _normal_table() -> FloatArray:
    """Normal distribution function Phi and its density phi at multiples of 1/128 from -9 to 9, in turns."""
    nodes = np.arange(-_REACH * _CELLS, _REACH * _CELLS + 1) / _CELLS
    table = np.stack([ndtr(nodes), np.exp(-0.5 * nodes**2) / math.sqrt(2.0 * math.pi)], axis=1)
    table[0], table[-1] = (0.0, 0.0), (1.0, 0.0)  # sigma is 0 or z beyond, however large z is
    return table.ravel()


@_jit.summation
def _project_1(x, w, z):  # type: ignore[no-untyped-def]
    """z_k = x_k0 w_0, for the four samples k."""
    a, b, c, d = x[0, 0], x[1, 0], x[2, 0], x[3, 0]
    p = w[0]
    z0, z1, z2, z3 = z[0], z[1], z[2], z[3]
    for j in range(len(p)):
        z0[j] = a * p[j]
        z1[j] = b * p[j]
        z2[j] = c * p[j]
        z3[j] = d * p[j]


@_jit.summation
def _project_2(x, w, z):  # type: ignore[no-untyped-def]
    """z_k = x_k0 w_0 + x_k1 w_1."""
    a, b, c, d = x[0, 0], x[1, 0], x[2, 0], x[3, 0]
    e, f, g, h = x[0, 1], x[1, 1], x[2, 1], x[3, 1]
    p, q = w[0], w[1]
    z0, z1, z2, z3 = z[0], z[1], z[2], z[3]
    for j in range(len(p)):
        z0[j] = a * p[j] + e * q[j]
        z1[j] = b * p[j] + f * q[j]
        z2[j] = c * p[j] + g * q[j]
        z3[j] = d * p[j] + h * q[j]


@_jit.summation
def _project_3(x, w, i, keep, z):  # type: ignore[no-untyped-def]
    """z_k = keep z_k + x_ki w_i + x_k,i+1 w_i+1 + x_k,i+2 w_i+2."""
    a, b, c, d = x[0, i], x[1, i], x[2, i], x[3, i]
    e, f, g, h = x[0, i + 1], x[1, i + 1], x[2, i + 1], x[3, i + 1]
    k, l, m, n = x[0, i + 2], x[1, i + 2], x[2, i + 2], x[3, i + 2]
    p, q, r = w[i], w[i + 1], w[i + 2]
    z0, z1, z2, z3 = z[0], z[1], z[2], z[3]
    if not keep:
        for j in range(len(p)):
            z0[j] = a * p[j] + e * q[j] + k * r[j]
            z1[j] = b * p[j] + f * q[j] + l * r[j]
            z2[j] = c * p[j] + g * q[j] + m * r[j]
            z3[j] = d * p[j] + h * q[j] + n * r[j]
    else:
        for j in range(len(p)):
            z0[j] += a * p[j] + e * q[j] + k * r[j]
            z1[j] += b * p[j] + f * q[j] + l * r[j]
            z2[j] += c * p[j] + g * q[j] + m * r[j]
            z3[j] += d * p[j] + h * q[j] + n * r[j]


@_jit.summation
def _kinked(z, a, slope):  # type: ignore[no-untyped-def]
    """Outputs of four samples; ``z`` is replaced by sigma'(z)."""
    z0, z1, z2, z3 = z[0], z[1], z[2], z[3]
    f0, f1, f2, f3 = 0.0, 0.0, 0.0, 0.0
    for j in range(len(a)):
        s0 = 1.0 if z0[j] > 0.0 else slope
        s1 = 1.0 if z1[j] > 0.0 else slope
        s2 = 1.0 if z2[j] > 0.0 else slope
        s3 = 1.0 if z3[j] > 0.0 else slope
        f0 += a[j] * (z0[j] * s0)
        f1 += a[j] * (z1[j] * s1)
        f2 += a[j] * (z2[j] * s2)
        f3 += a[j] * (z3[j] * s3)
        z0[j] = s0
        z1[j] = s1
        z2[j] = s2
        z3[j] = s3
    return f0, f1, f2, f3


@_jit.inlined
def _clamped(z):  # type: ignore[no-untyped-def]
    reach = float(_REACH)
    z = z if z > -reach else -reach  # also for NaN, which must not become an address
    return z if z < reach else reach


@_jit.summation
def _gelu(z, a, table, value, node, density):  # type: ignore[no-untyped-def]
    """Output of one sample, sigma(z) = z Phi(z) in ``value``; ``z`` is replaced by sigma'(z) = Phi(z) + z phi(z).

    Taylor series of Phi and phi about the nearest node c of the table, with v = c - z and terms
    h_k = He_k(c) v^k / k!, k h_k = c v h_(k-1) - v^2 h_(k-2). Look-ups and arithmetic in two loops: the second one is
    vectorised.
    """
    for j in range(len(a)):
        cell = np.int32(_clamped(z[j]) * _CELLS + (_REACH * _CELLS + 0.5))
        value[j] = table[2 * cell]
        density[j] = table[2 * cell + 1]
        node[j] = (cell - float(_REACH * _CELLS)) * (1.0 / _CELLS)
    total = 0.0
    for j in range(len(a)):
        s = z[j]
        v = node[j] - _clamped(s)
        p = node[j] * v
        q = v * v
        h2 = (1.0 / 2.0) * (p * p - q)
        h3 = (1.0 / 3.0) * (p * h2 - q * p)
        h4 = (1.0 / 4.0) * (p * h3 - q * h2)
        h5 = (1.0 / 5.0) * (p * h4 - q * h3)
        mean = 1.0 + p * (1.0 / 2.0) + h2 * (1.0 / 3.0) + h3 * (1.0 / 4.0) + h4 * (1.0 / 5.0) + h5 * (1.0 / 6.0)
        phi = value[j] - v * density[j] * mean
        value[j] = s * phi
        z[j] = phi + s * (density[j] * (1.0 + p + h2 + h3 + h4 + h5))
        total += a[j] * (s * phi)
    return total


@_jit.summation
def _collect_1(r, z, total):  # type: ignore[no-untyped-def]
    """Add sum_k r_k z_k to the total."""
    a, b, c, d = r
    z0, z1, z2, z3 = z[0], z[1], z[2], z[3]
    for j in range(len(total)):
        total[j] += a * z0[j] + b * z1[j] + c * z2[j] + d * z3[j]


@_jit.summation
def _collect_2(r, s, z, total, i):  # type: ignore[no-untyped-def]
    """Add sum_k r_k z_k to row i of the totals and sum_k s_k z_k to row i + 1."""
    a, b, c, d = r
    e, f, g, h = s
    p, q = total[i], total[i + 1]
    z0, z1, z2, z3 = z[0], z[1], z[2], z[3]
    for j in range(len(p)):
        p[j] += a * z0[j] + b * z1[j] + c * z2[j] + d * z3[j]
        q[j] += e * z0[j] + f * z1[j] + g * z2[j] + h * z3[j]


@_jit.inlined
def _scaled(r, x, i):  # type: ignore[no-untyped-def]
    return r[0] * x[0, i], r[1] * x[1, i], r[2] * x[2, i], r[3] * x[3, i]


@_jit.summation
def _finish(w, a, dw, da, homogeneous, samples):  # type: ignore[no-untyped-def]
    """From n D_j to the derivatives of both layers, and their squared norm."""
    rate = 1.0 / samples
    if homogeneous:
        for j in range(len(a)):
            da[j] = 0.0
    norm = 0.0
    for i in range(len(w)):
        p, g = w[i], dw[i]
        if homogeneous:
            for j in range(len(a)):
                da[j] += p[j] * g[j]
        for j in range(len(a)):
            g[j] *= rate * a[j]
            norm += g[j] * g[j]
    for j in range(len(a)):
        da[j] *= rate
        norm += da[j] * da[j]
    return norm


@_jit.kernel
def _force(w, a, x, y, samples, slope, table, z, value, dw, da):  # type: ignore[no-untyped-def]
    """Minus the gradient of L.

    Parameters
    ----------
    w, a : (d, m), (m,)
        The weights transposed.
    x, y : (groups, 4, d), (groups, 4)
        Inputs and labels in groups, filled up with zeros.
    samples : int
        n.
    slope : float
        Slope below zero of a piecewise linear activation.
    table : (cells,)
        `_normal_table` for gelu, empty otherwise.
    z, value : (4, m), (6, m) work space
    dw, da : (d, m), (m,)
        Result.

    Returns
    -------
    float, float
        Mean squared residual, and squared norm of the result.
    """
    dimension = len(w)
    smooth = len(table) > 0
    dw[:, :] = 0.0
    da[:] = 0.0
    total = 0.0
    first = dimension % 3
    for group in range(len(y)):
        inputs, labels = x[group], y[group]
        if first == 1:
            _project_1(inputs, w, z)
        elif first == 2:
            _project_2(inputs, w, z)
        for i in range(first, dimension, 3):
            _project_3(inputs, w, i, i > 0, z)
        if smooth:
            f = (0.0, 0.0, 0.0, 0.0)
            for k in range(4):
                f = (f[1], f[2], f[3], _gelu(z[k], a, table, value[k], value[4], value[5]))
        else:
            f = _kinked(z, a, slope)
        r = (labels[0] - f[0], labels[1] - f[1], labels[2] - f[2], labels[3] - f[3])
        total += (r[0] * r[0] + r[1] * r[1]) + (r[2] * r[2] + r[3] * r[3])
        if smooth:
            _collect_1(r, value, da)
        if dimension % 2:
            _collect_1(_scaled(r, inputs, 0), z, dw[0])
        for i in range(dimension % 2, dimension, 2):
            _collect_2(_scaled(r, inputs, i), _scaled(r, inputs, i + 1), z, dw, i)
    norm = _finish(w, a, dw, da, not smooth, samples)
    return total / samples, norm


@_jit.entry
def _evaluate(w, a, x, y, samples, slope, table, z, value, dw, da):  # type: ignore[no-untyped-def]
    return _force(w, a, x, y, samples, slope, table, z, value, dw, da)


@_jit.inlined
def _state(loss, norm, loss_tol, norm_tol, limit):  # type: ignore[no-untyped-def]
    if not (loss <= limit and norm < np.inf):
        return _DIVERGED
    if loss <= loss_tol:
        return _LOSS
    if norm <= norm_tol:
        return _GRADIENT
    return _RUNNING


@_jit.entry
def _descend(  # type: ignore[no-untyped-def]
    w, a, x, y, samples, slope, table, z, value, dw, da, rate, count, loss_tol, norm_tol, limit
):
    """``count`` steps of gradient descent in place, fewer if a tolerance is met.

    Returns
    -------
    state, steps, loss, norm : int, int, float, float
        Steps done, and at the state reached the mean squared residual and the squared norm of the gradient.
    """
    step = 0
    while True:
        loss, norm = _force(w, a, x, y, samples, slope, table, z, value, dw, da)
        state = _state(loss, norm, loss_tol, norm_tol, limit)
        if state != _RUNNING or step == count:
            return state, step, loss, norm
        for i in range(len(w)):
            for j in range(len(a)):
                w[i, j] += rate * dw[i, j]
        for j in range(len(a)):
            a[j] += rate * da[j]
        step += 1


@_jit.inlined
def _moments(p, g, first, second, beta1, beta2, rate, inverse, epsilon):  # type: ignore[no-untyped-def]
    """One update of Adam of a row of parameters p along g, minus the gradient."""
    for j in range(len(p)):
        first[j] = beta1 * first[j] + (1.0 - beta1) * g[j]
        second[j] = beta2 * second[j] + (1.0 - beta2) * (g[j] * g[j])
        p[j] += rate * first[j] / (math.sqrt(second[j] * inverse) + epsilon)


@_jit.entry
def _descend_adam(  # type: ignore[no-untyped-def]
    w,
    a,
    x,
    y,
    samples,
    slope,
    table,
    z,
    value,
    dw,
    da,
    rate,
    count,
    loss_tol,
    norm_tol,
    limit,
    done,
    beta1,
    beta2,
    epsilon,
    first_w,
    second_w,
    first_a,
    second_a,
):
    """As `_descend` with Adam, of which ``done`` steps have been made before."""
    step = 0
    while True:
        loss, norm = _force(w, a, x, y, samples, slope, table, z, value, dw, da)
        state = _state(loss, norm, loss_tol, norm_tol, limit)
        if state != _RUNNING or step == count:
            return state, step, loss, norm
        step += 1
        corrected = rate / (1.0 - beta1 ** float(done + step))
        inverse = 1.0 / (1.0 - beta2 ** float(done + step))
        for i in range(len(w)):
            _moments(w[i], dw[i], first_w[i], second_w[i], beta1, beta2, corrected, inverse, epsilon)
        _moments(a, da, first_a, second_a, beta1, beta2, corrected, inverse, epsilon)


class Force:
    """The right-hand side of gradient flow on a training set, with the network as it moves.

    Parameters
    ----------
    network : Network
        Where it starts; not changed.
    inputs, labels : (n, d), (n,) array_like

    Attributes
    ----------
    weights, outer : (d, m), (m,) float
        Current parameters, the weights transposed; to be written to.
    d_weights, d_outer : (d, m), (m,) float
        Their time derivatives, minus the gradient of L, after a call.

    Raises
    ------
    TypeError, ValueError
        If network and data do not fit or are not finite.
    """

    def __init__(self, network: Network, inputs: ArrayLike, labels: ArrayLike) -> None:
        weights, self.outer, x, y = checked(network, inputs, labels)
        (m, d), n = weights.shape, len(x)
        self.activation = network.activation
        self.weights = np.array(weights.T, order="C")  # a copy even where the transpose is contiguous
        self.d_weights, self.d_outer = np.empty((d, m)), np.empty(m)
        groups = -(-n // _GROUP)
        grouped_x, grouped_y = np.zeros((groups * _GROUP, d)), np.zeros(groups * _GROUP)
        grouped_x[:n], grouped_y[:n] = x, y
        table = np.empty(0) if network.activation.piecewise_linear else _normal_table()
        self._data: tuple[Any, ...] = (
            grouped_x.reshape(groups, _GROUP, d),
            grouped_y.reshape(groups, _GROUP),
            n,
            float(network.activation.slope or 0.0),
            table,
            np.empty((_GROUP, m)),
            np.empty((_GROUP + 2, m)),
        )
        self.label_scale = float(np.mean(y**2))
        self.work = n * m * (4 * d + (4 if len(table) == 0 else 40))

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the compiled functions take."""
        return (self.weights, self.outer, *self._data, self.d_weights, self.d_outer)

    def __call__(self) -> tuple[float, float]:
        """Set the derivatives; return the mean squared residual and the norm of the gradient of L."""
        loss, norm = _evaluate(*self.arguments)
        return loss, math.sqrt(norm)

    def limit(self, loss: float) -> float:
        """Train loss above which training that began at ``loss`` has diverged.

        The mean square of the labels counts as well: a start close to interpolation may rise by much and come back.
        """
        return DIVERGED * max(loss, self.label_scale)


def _train(
    force: Force,
    compiled: Callable[[int, int], tuple[int, int, float, float]],
    learning_rate: float,
    steps: int,
    times: ArrayLike | None,
    change_tol: float,
    stop: Callable[[], bool] | None,
) -> Trajectory:
    """Run ``compiled(done, count)`` in slabs between recorded steps."""
    wanted = record_times(times, learning_rate * steps, learning_rate)
    marks = np.unique(np.append(np.rint(wanted / learning_rate).astype(np.int64), [0, steps]))
    recorder = Recorder()
    step, reason = 0, Reason.STEPS
    slab = max(1, int(_SLAB * 2e9 / force.work))
    for mark in marks:
        while True:
            count = min(int(mark) - step, slab)
            began = time.perf_counter()
            state, made, loss, norm = compiled(step, count)
            took = time.perf_counter() - began
            step += made
            if made == slab:  # compilation and waits may lengthen it, so it shrinks no faster than by half
                slab = max(1, int(slab * min(2.0, max(0.5, _SLAB / max(took, 1e-9)))))
            if state != _RUNNING:
                reason = _REASONS[state]
            elif stop is not None and step < steps and stop():
                reason = Reason.INTERRUPTED
            if step == mark or reason is not Reason.STEPS:
                break
        if reason is not Reason.DIVERGED:
            recorder.add(learning_rate * step, loss, math.sqrt(norm), force.weights.T, force.outer)
        elif step == 0:
            raise ValueError("network must have a finite loss and gradient on inputs and labels, and it overflows.")
        if reason is Reason.STEPS and recorder.settled(change_tol):
            reason = Reason.CHANGE
        if reason is not Reason.STEPS:
            break
    return recorder.trajectory(reason, step, force.activation)


def _tolerances(loss_tol: float, gradient_tol: float) -> tuple[float, float]:
    return real("loss_tol", loss_tol, low=0.0), real("gradient_tol", gradient_tol, low=0.0) ** 2


def gradient_descent(
    network: Network,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    learning_rate: float,
    steps: int,
    times: ArrayLike | None = None,
    loss_tol: float = 0.0,
    gradient_tol: float = 0.0,
    change_tol: float = 0.0,
    stop: Callable[[], bool] | None = None,
) -> Trajectory:
    """Full-batch gradient descent on L = (1/2n) sum_k r_k^2, both layers.

    The explicit Euler scheme of w_j' = a_j D_j, a_j' = (1/n) sum_k r_k sigma(<w_j, x_k>), with
    D_j = (1/n) sum_k r_k sigma'(<w_j, x_k>) x_k; sigma'(0) is the slope below zero (theory section 9).

    Parameters
    ----------
    network : Network
        Where it starts; not changed.
    inputs, labels : (n, d), (n,) array_like
    learning_rate : float
        Step, in time of gradient flow.
    steps : int
        Steps at most.
    times : (T,) array_like, optional
        Increasing times within 0 and learning_rate * steps to record, rounded to whole steps; about 60, log-spaced, by
        default. The start and the end are always recorded.
    loss_tol, gradient_tol : float
        Stop when the train loss (mean squared residual) or the norm of the gradient of L is as small.
    change_tol : float
        Stop at a recorded time since half of which the train loss has changed by no more than this share of itself,
        once it has left the saddle; 0 does not.
    stop : callable, optional
        Called about every 0.1 s; True ends the training.

    Returns
    -------
    Trajectory

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.
    KeyboardInterrupt
        On Ctrl-C, within about 0.1 s.
    """
    rate = real("learning_rate", learning_rate, low=0.0, open_low=True)
    steps = integer("steps", steps, low=0)
    loss_tol, norm_tol = _tolerances(loss_tol, gradient_tol)
    force = Force(network, inputs, labels)
    limit = force.limit(force()[0])

    def compiled(done: int, count: int) -> tuple[int, int, float, float]:
        arguments = (*force.arguments, rate, count, loss_tol, norm_tol, limit)
        return _descend(*arguments)

    return _train(force, compiled, rate, steps, times, real("change_tol", change_tol, low=0.0), stop)


def adam(
    network: Network,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    learning_rate: float,
    steps: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    times: ArrayLike | None = None,
    loss_tol: float = 0.0,
    gradient_tol: float = 0.0,
    change_tol: float = 0.0,
    stop: Callable[[], bool] | None = None,
) -> Trajectory:
    """Full-batch Adam on L (Kingma and Ba, arXiv:1412.6980, algorithm 1), both layers.

    The time recorded is the learning rate times the number of steps. It is not time of gradient flow: at first every
    parameter moves by about the learning rate in a step, whatever the gradient.

    Parameters
    ----------
    beta1, beta2 : float
        Decay of the moments, in [0, 1).
    epsilon : float
        Added to the root of the second moment, > 0.
    network, inputs, labels, learning_rate, steps, times, loss_tol, gradient_tol, change_tol, stop
        As for `gradient_descent`.

    Returns
    -------
    Trajectory

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.
    KeyboardInterrupt
        On Ctrl-C, within about 0.1 s.
    """
    rate = real("learning_rate", learning_rate, low=0.0, open_low=True)
    steps = integer("steps", steps, low=0)
    beta1 = real("beta1", beta1, low=0.0, high=1.0, open_high=True)
    beta2 = real("beta2", beta2, low=0.0, high=1.0, open_high=True)
    epsilon = real("epsilon", epsilon, low=0.0, open_low=True)
    loss_tol, norm_tol = _tolerances(loss_tol, gradient_tol)
    force = Force(network, inputs, labels)
    limit = force.limit(force()[0])
    moments = [np.zeros_like(force.weights) for _ in range(2)] + [np.zeros_like(force.outer) for _ in range(2)]

    def compiled(done: int, count: int) -> tuple[int, int, float, float]:
        arguments = (*force.arguments, rate, count, loss_tol, norm_tol, limit, done, beta1, beta2, epsilon, *moments)
        return _descend_adam(*arguments)

    return _train(force, compiled, rate, steps, times, real("change_tol", change_tol, low=0.0), stop)
