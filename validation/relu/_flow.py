"""Compiled gradient flow of a two-layer network with a piecewise-linear activation; `flow` explains the method.

Names: m neurons, n samples, d inputs, K groups of neurons with the same activation pattern. ``side[j, k]`` says where
<w_j, x_k> is: OFF (below zero), ON (above), SLIDE (held at zero).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmft import _jit

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

OFF, ON, SLIDE = 0, 1, 2
NONE, OWNED = -1, -2
FREE, DOMINATED, BALANCED = 0, 1, 2

GAMMA = 1.0 - 1.0 / np.sqrt(2.0)  # makes the two-stage Rosenbrock scheme L-stable
LONGEST = 6.0  # largest |int D dt| of one step: a boost by e^6
LIGHT = 1e-14  # groups below this share of all weight follow the others, but do not act on them within a step
SETTLED = 1e-9  # by how much a sliding kink's share may leave [0, 1] before the kink lets go
ROUNDING = 1e-14  # pre-activations below this share of |w| |x| have no side of their own
TINIEST = 1e-280  # |w|^2 + a^2 below which a neuron shrinks no further
ALONG = 1e-9  # a neuron shrinks if its w is within this of opposite to what would let it grow
CLOSE = 1e-9  # pre-activations below this share of |w| |x| that seem to cross are on the kink
NEAR = 0.9  # share of |w| that has to remain when a weight is put on the kinks it slides on
LATE = 10.0  # a kink crossed late may err by this fraction of the tolerance
OWN = 20.0  # and by so many times that in its own neuron, relative to it

# What `advance` reports in its scalars.
TIME, STEP, LAST, LOSS, GRADIENT, DRIVE, STEPS, EVENTS, REJECTED, IMPLICIT, GROUPS, SLIDING = range(12)
SCALARS = 12
# Why it ended.
REACHED, INTERPOLATED, STATIONARY, STEP_LIMIT, STUCK = range(5)


class Samples(NamedTuple):
    """The data, of which no two inputs have one direction; opposite ones share a kink, which the first of them owns."""

    inputs: FloatArray  # (n, d)
    inputs_t: FloatArray  # (d, n)
    labels: FloatArray  # (n,)
    norms: FloatArray  # (n,) |x_k|
    partner: IntArray  # (n,) the input opposite to one that owns a kink with it; NONE without, OWNED if it owns none
    ratio: FloatArray  # (n,) the partner is -ratio x_k; 0 without
    number: float  # samples that the averages are over
    offset: float  # train loss that no network can change
    pace: float  # first time scale
    slope: float  # of the activation below zero
    keys: NDArray[np.uint64]  # (n, 3) random, to hash patterns


class Neurons(NamedTuple):
    """The state."""

    weights: FloatArray  # (m, d)
    outer: FloatArray  # (m,)
    side: NDArray[np.int8]  # (m, n)
    hashes: NDArray[np.uint64]  # (m,)
    kind: NDArray[
        np.int8
    ]  # (m,) FREE, DOMINATED: started with |a| > |w|, so that a keeps its sign, BALANCED: |a| = |w|


class Groups(NamedTuple):
    """Neurons of equal pattern."""

    member: IntArray  # (m,) group of each neuron
    head: IntArray  # (m,) a neuron of each group
    gate: FloatArray  # (m, n) sigma' on each sample
    moment: FloatArray  # (m, d + 1, d + 1) sum of (w_j, a_j) (w_j, a_j)^T
    total: FloatArray  # (m,) its trace
    basis: FloatArray  # (m, d, d) orthonormal basis of the kinks it slides on
    held: IntArray  # (m,) their number


class Stages(NamedTuple):
    """One step."""

    first: FloatArray  # (m, d) slopes of the two stages
    last: FloatArray  # (m, d)
    path: FloatArray  # (m, d) the boost's generator, int D dt
    boost: FloatArray  # (m, d + 1, d + 1)
    old: FloatArray  # (m, d + 1) neurons before it
    moved: FloatArray  # (m, d + 1) and after it
    before: FloatArray  # (m, n) pre-activations
    after: FloatArray  # (m, n)
    doubt: FloatArray  # (m,) local error of the generators
    pull: FloatArray  # (m, d) sum_j a_j w_j of each group
    later: FloatArray  # (n,) residuals
    work: FloatArray  # (n,)
    small: FloatArray  # (d + 1,)


@_jit.summation
def _dot(x, y):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@_jit.kernel
def _project(vector, basis, count):  # type: ignore[no-untyped-def]
    """Remove the components along the first ``count`` rows of an orthonormal basis."""
    for q in range(count):
        c = _dot(basis[q], vector)
        for i in range(len(vector)):
            vector[i] -= c * basis[q, i]


@_jit.kernel
def _extend(basis, count, vector, work):  # type: ignore[no-untyped-def]
    """Add the direction of ``vector`` to an orthonormal basis; returns the new size."""
    d = len(vector)
    if count >= d:
        return count
    for i in range(d):
        work[i] = vector[i]
    size = np.sqrt(_dot(vector, vector))
    _project(work[:d], basis, count)
    _project(work[:d], basis, count)  # twice is enough for orthogonality to rounding
    left = np.sqrt(_dot(work[:d], work[:d]))
    if left <= 1e-9 * size:
        return count
    for i in range(d):
        basis[count, i] = work[i] / left
    return count + 1


@_jit.kernel
def _make_boost(u, matrix):  # type: ignore[no-untyped-def]
    """The exponential of [[0, u], [u^T, 0]], which keeps a^2 - |w|^2."""
    d = len(u)
    size = np.sqrt(_dot(u, u))
    for i in range(d + 1):
        for l in range(d + 1):
            matrix[i, l] = 1.0 if i == l else 0.0
    if size < 1e-300:
        return
    half = np.sinh(0.5 * size)
    grown = 2.0 * half * half  # cosh - 1
    turned = np.sinh(size)
    for i in range(d):
        for l in range(d):
            matrix[i, l] += grown * (u[i] / size) * (u[l] / size)
        matrix[i, d] = turned * (u[i] / size)
        matrix[d, i] = matrix[i, d]
    matrix[d, d] = 1.0 + grown


@_jit.kernel
def _boosted_pull(boost, moment, pull):  # type: ignore[no-untyped-def]
    """sum_j a_j w_j of a group after a boost."""
    size = len(moment)
    for i in range(size - 1):
        total = 0.0
        for l in range(size):
            total += boost[i, l] * _dot(moment[l], boost[size - 1])
        pull[i] = total


@_jit.kernel
def _mobility(moment, basis, held, result):  # type: ignore[no-untyped-def]
    """sum_j (a_j^2 1 + w_j w_j^T) of a group, within the kinks it slides on: its pull grows at the rate mobility D."""
    d = len(result)
    for i in range(d):
        for l in range(d):
            result[i, l] = moment[i, l]
        result[i, i] += moment[d, d]
    for _ in range(2):  # from both sides
        for i in range(d):
            _project(result[i], basis, held)
        for i in range(d):
            for l in range(i):
                kept = result[i, l]
                result[i, l] = result[l, i]
                result[l, i] = kept


@_jit.summation
def _preactivations(weights, inputs_t, result):  # type: ignore[no-untyped-def]
    d, n = inputs_t.shape
    for k in range(n):
        result[k] = 0.0
    for i in range(d):
        w = weights[i]
        for k in range(n):
            result[k] += w * inputs_t[i, k]


@_jit.kernel
def _residuals(samples, gate, pull, groups, work, residual):  # type: ignore[no-untyped-def]
    """Labels minus outputs."""
    n = len(residual)
    for k in range(n):
        residual[k] = samples.labels[k]
    for p in range(groups):
        _preactivations(pull[p], samples.inputs_t, work)
        for k in range(n):
            residual[k] -= gate[p, k] * work[k]


@_jit.kernel
def _drive(samples, gate, values, work, result):  # type: ignore[no-untyped-def]
    """(1/n) sum_k gate_k values_k x_k."""
    n = len(values)
    for k in range(n):
        work[k] = gate[k] * values[k]
    for i in range(len(result)):
        result[i] = _dot(work, samples.inputs_t[i]) / samples.number


@_jit.kernel
def _drives(samples, groups, count, residual, work, result):  # type: ignore[no-untyped-def]
    """D of each group, without its components along the kinks that it slides on."""
    for p in range(count):
        _drive(samples, groups.gate[p], residual, work, result[p])
        _project(result[p], groups.basis[p], groups.held[p])


@_jit.kernel
def _gate(side, partner, slope):  # type: ignore[no-untyped-def]
    """Slope of sigma on a sample; on a kink that of the side where its owner is off."""
    return 1.0 if side == ON or (side == SLIDE and partner == OWNED) else slope


@_jit.kernel
def _turn(j, k, new, neurons, samples):  # type: ignore[no-untyped-def]
    """Put a kink of a neuron in a state, and with it the opposite input."""
    neurons.hashes[j] ^= samples.keys[k, neurons.side[j, k]] ^ samples.keys[k, new]
    neurons.side[j, k] = new
    if samples.partner[k] >= 0:
        other, against = samples.partner[k], SLIDE if new == SLIDE else ON - new
        neurons.hashes[j] ^= samples.keys[other, neurons.side[j, other]] ^ samples.keys[other, against]
        neurons.side[j, other] = against


@_jit.kernel
def _jump(k, residual, samples):  # type: ignore[no-untyped-def]
    """What the drive gains in multiples of x_k where a neuron crosses the kink to its upper side."""
    value = residual[k]
    if samples.partner[k] >= 0:
        value += samples.ratio[k] * residual[samples.partner[k]]
    return (1.0 - samples.slope) * value / samples.number


@_jit.kernel
def _form(neurons, samples, order, groups, work):  # type: ignore[no-untyped-def]
    """Groups of equal pattern, which have equal hashes; returns their number."""
    m, n = neurons.side.shape
    count = 0
    for q in range(m):
        j = order[q]
        if q == 0 or neurons.hashes[j] != neurons.hashes[order[q - 1]]:
            groups.head[count] = j
            count += 1
        groups.member[j] = count - 1
    for p in range(count):
        j = groups.head[p]
        groups.held[p] = 0
        for k in range(n):
            groups.gate[p, k] = _gate(neurons.side[j, k], samples.partner[k], samples.slope)
            if neurons.side[j, k] == SLIDE:
                groups.held[p] = _extend(groups.basis[p], groups.held[p], samples.inputs[k], work)
    return count


@_jit.kernel
def _sum_moments(neurons, groups, count):  # type: ignore[no-untyped-def]
    m, d = neurons.weights.shape
    for p in range(count):
        for i in range(d + 1):
            for l in range(d + 1):
                groups.moment[p, i, l] = 0.0
    for j in range(m):
        moment, a = groups.moment[groups.member[j]], neurons.outer[j]
        for i in range(d):
            w = neurons.weights[j, i]
            for l in range(d):
                moment[i, l] += w * neurons.weights[j, l]
            moment[i, d] += w * a
            moment[d, i] += w * a
        moment[d, d] += a * a
    for p in range(count):
        groups.total[p] = 0.0
        for i in range(d + 1):
            groups.total[p] += groups.moment[p, i, i]


@_jit.kernel
def _largest_growing(neurons, groups, drive, weight):  # type: ignore[no-untyped-def]
    """Largest |D_j| of the neurons but those at zero and light ones that shrink towards it along D_j itself."""
    largest = 0.0
    for j in range(len(neurons.outer)):
        force = drive[groups.member[j]]
        size, pushed = np.sqrt(_dot(neurons.weights[j], neurons.weights[j])), np.sqrt(_dot(force, force))
        a = neurons.outer[j]
        if size == 0.0 and a == 0.0:
            continue
        along = _dot(neurons.weights[j], force) * (1.0 if a > 0.0 else -1.0)
        light = size * size + a * a < LIGHT * weight
        if light and neurons.kind[j] == BALANCED and along <= -(1.0 - ALONG) * size * pushed:
            continue
        largest = max(largest, pushed)
    return largest


@_jit.blas_kernel
def _let_go(neurons, samples, groups, count, residual, work):  # type: ignore[no-untyped-def]
    """Switch off or on, in each group, the sliding kink that can least be held; returns how many.

    The drive of a group on kinks is D with shares s_k in [0, 1] of their jumps (1 - slope) r_k x_k/n, such that it has
    no component across any of them.
    """
    d = samples.inputs.shape[1]
    changed = 0
    for p in range(count):
        if groups.held[p] == 0:
            continue
        sliding = np.nonzero((neurons.side[groups.head[p]] == SLIDE) & (samples.partner != OWNED))[0]
        free = np.empty(d)
        _drive(samples, groups.gate[p], residual, work, free)
        jumps = np.empty((d, len(sliding)))
        for q in range(len(sliding)):
            for i in range(d):
                jumps[i, q] = _jump(sliding[q], residual, samples) * samples.inputs[sliding[q], i]
        normal = jumps.T @ jumps
        ridge = 1e-13 * np.trace(normal) + 1e-300  # more kinks than dimensions leave the shares undetermined
        for q in range(len(sliding)):
            normal[q, q] += ridge
        share = np.linalg.solve(normal, -(jumps.T @ free))
        worst, chosen = SETTLED, -1
        for q in range(len(sliding)):
            beyond = max(-share[q], share[q] - 1.0)
            if beyond > worst:
                worst, chosen = beyond, q
        if chosen >= 0:
            k = sliding[chosen]
            new = OFF if share[chosen] < 0.5 else ON
            for j in range(len(neurons.outer)):
                if groups.member[j] == p:
                    _turn(j, k, new, neurons, samples)
            changed += 1
    return changed


@_jit.blas_kernel
def _stack(samples, groups, heavy, stacked, driven):  # type: ignore[no-untyped-def]
    """Side by side for the groups ``heavy``: the gated inputs, and times their mobility."""
    n, d = samples.inputs.shape
    mobility = np.empty((d, d))
    for q in range(len(heavy)):
        p = heavy[q]
        _mobility(groups.moment[p], groups.basis[p], groups.held[p], mobility)
        for k in range(n):
            for i in range(d):
                stacked[k, q * d + i] = groups.gate[p, k] * samples.inputs[k, i]
                driven[k, q * d + i] = groups.gate[p, k] * _dot(samples.inputs[k], mobility[i])


@_jit.blas_kernel
def _two_stages(samples, groups, count, heavy, h, implicit, stacked, driven, drive, stages):  # type: ignore[no-untyped-def]
    """The step's slopes and generators by the two-stage Rosenbrock scheme; returns (error, largest generator).

    The Jacobian is that of the drives in the generators, -(1/n) (gate X)_p^T (gate X mobility)_q; where nothing is
    stiff it is left out, which costs no order. The error is the distance to the first stage alone, in the norm of all
    weights.
    """
    n, d = samples.inputs.shape
    few = len(heavy)
    narrow = few * d <= n
    factor = GAMMA * h / samples.number
    if implicit:
        matrix = factor * (stacked.T @ driven) if narrow else factor * (driven @ stacked.T)
        for q in range(len(matrix)):
            matrix[q, q] += 1.0
    else:
        matrix = np.empty((0, 0))
    known = np.empty(few * d)
    for stage in range(2):
        slope = stages.first if stage == 0 else stages.last
        if stage == 0:
            for p in range(count):
                for i in range(d):
                    slope[p, i] = drive[p, i]
        else:
            for p in range(count):
                for i in range(d):
                    stages.path[p, i] = h * stages.first[p, i]
                _make_boost(stages.path[p], stages.boost[p])
                _boosted_pull(stages.boost[p], groups.moment[p], stages.pull[p])
            _residuals(samples, groups.gate, stages.pull, count, stages.work, stages.later)
            _drives(samples, groups, count, stages.later, stages.work, slope)
            for p in range(count):
                for i in range(d):
                    slope[p, i] -= 2.0 * stages.first[p, i]
        if implicit:
            for q in range(few):
                for i in range(d):
                    known[q * d + i] = slope[heavy[q], i]
            # The change of the residuals per unit time, solved for either in the groups or in the samples.
            if narrow:
                answer = driven @ np.linalg.solve(matrix, known)
            else:
                answer = np.linalg.solve(matrix, driven @ known)
            back = stages.small[:d]
            for p in range(count):
                _drive(samples, groups.gate[p], answer, stages.work, back)
                for i in range(d):
                    slope[p, i] -= GAMMA * h * back[i]
                _project(slope[p], groups.basis[p], groups.held[p])
    error, farthest, weight = 0.0, 0.0, 0.0
    for p in range(count):
        off, length = 0.0, 0.0
        for i in range(d):
            stages.path[p, i] = h * (1.5 * stages.first[p, i] + 0.5 * stages.last[p, i])
            gap = stages.path[p, i] - h * stages.first[p, i]
            off += gap * gap
            length += stages.path[p, i] * stages.path[p, i]
        stages.doubt[p] = np.sqrt(off)
        error += off * groups.total[p]
        weight += groups.total[p]
        farthest = max(farthest, np.sqrt(length))
    return np.sqrt(error / weight), farthest


@_jit.kernel
def _crossed(side, before, after, rounding):  # type: ignore[no-untyped-def]
    """Where on its way a pre-activation crossed zero, as a share of the step; -1 if it did not."""
    if side == SLIDE or (after > 0.0) == (side == ON) or abs(after) <= rounding:
        return -1.0
    if (before > 0.0) == (side == ON):
        return before / (before - after)
    return 0.0


@_jit.kernel
def _shrink(weights, outer, result):  # type: ignore[no-untyped-def]
    """The neuron at half of its size, unless it is as small as numbers go."""
    d = len(weights)
    share = 0.5 if _dot(weights, weights) + outer * outer > TINIEST else 1.0
    for i in range(d):
        result[i] = share * weights[i]
    result[d] = share * outer


@_jit.kernel
def _move(neurons, samples, groups, count, residual, h, stages):  # type: ignore[no-untyped-def]
    """Move the neurons; returns how wrong the kinks crossed on the way make it, and the share of the first of them.

    From a crossing on, the drive lacked the jump r_k x_k/n: the error of that, in the norm of all weights and relative
    to the neuron itself. Last, whether the error of the step is too large to know that a kink was crossed: a neuron may
    come ever closer to one, or w to zero, without passing it. (When it is as good as there, `_cross` takes it as
    there.)
    """
    m, d = neurons.weights.shape
    n = len(residual)
    for p in range(count):
        _make_boost(stages.path[p], stages.boost[p])
    late, own, earliest, weight, lost = 0.0, 0.0, 1.0, 0.0, False
    for j in range(m):
        boost, moved = stages.boost[groups.member[j]], stages.moved[j]
        for i in range(d + 1):
            moved[i] = boost[i, d] * neurons.outer[j] + _dot(boost[i, :d], neurons.weights[j])
        p, back = groups.member[j], moved[d] * neurons.outer[j] < 0.0
        if neurons.kind[j] == BALANCED and groups.held[p] == d - 1:  # on a ray, which ends at w = 0
            back = back or _dot(moved[:d], neurons.weights[j]) < 0.0
        if neurons.kind[j] != FREE and back:
            # |a| >= |w| for ever: a has no way through 0, and w none through 0 where a vanishes with it. The neuron
            # shrinks along its direction, from which it would grow again if the drive turned.
            _shrink(neurons.weights[j], neurons.outer[j], moved)
        _project(moved[:d], groups.basis[groups.member[j]], groups.held[groups.member[j]])  # rounding would add up
        _preactivations(moved[:d], samples.inputs_t, stages.after[j])
        size = _dot(moved, moved)
        rounding = ROUNDING * np.sqrt(_dot(moved[:d], moved[:d]))
        wrong = 0.0
        for k in range(n):
            if samples.partner[k] == OWNED:
                continue
            bound = rounding * samples.norms[k]
            share = _crossed(neurons.side[j, k], stages.before[j, k], stages.after[j, k], bound)
            if share >= 0.0:
                wrong += (1.0 - share) * abs(_jump(k, residual, samples)) * samples.norms[k]
                earliest = min(earliest, share)
                doubt = stages.doubt[groups.member[j]] * abs(moved[d]) * samples.norms[k]
                if doubt > abs(stages.after[j, k]) and abs(stages.before[j, k]) > CLOSE / ROUNDING * bound:
                    lost = True
        wrong *= abs(moved[d]) * h
        late += wrong * wrong
        weight += size
        own = max(own, wrong / np.sqrt(size + 1e-300))
    return np.sqrt(late / weight), own, earliest, lost


@_jit.blas_kernel
def _cross(j, neurons, samples, groups, stages):  # type: ignore[no-untyped-def]
    """Decide for the kinks that neuron j has crossed whether it goes on or stays on them; returns their number.

    Its new pre-activations are in ``before`` afterwards, ready for the next step.
    """
    n, d = samples.inputs.shape
    p = groups.member[j]
    when, which, arrived = np.empty(n), np.empty(n, np.int64), np.empty(n, np.bool_)
    crossed = 0
    rounding = ROUNDING * np.sqrt(_dot(neurons.weights[j], neurons.weights[j]))
    for k in range(n):
        if samples.partner[k] == OWNED:
            continue
        share = _crossed(neurons.side[j, k], stages.before[j, k], stages.after[j, k], rounding * samples.norms[k])
        if share >= 0.0:
            when[crossed], which[crossed] = share, k
            crossed += 1
            doubt = stages.doubt[p] * abs(neurons.outer[j]) * samples.norms[k]
            there = doubt > abs(stages.after[j, k])
            arrived[crossed - 1] = there and abs(stages.before[j, k]) <= CLOSE / ROUNDING * rounding * samples.norms[k]
    for k in range(n):
        stages.before[j, k] = stages.after[j, k]
    if crossed == 0:
        return 0
    free, beyond, own = np.empty(d), np.empty(d), np.empty((d, d))
    kept, kept_hash = neurons.side[j].copy(), neurons.hashes[j]
    for k in range(n):
        stages.work[k] = _gate(neurons.side[j, k], samples.partner[k], samples.slope)
    gate = stages.work.copy()
    _drive(samples, gate, stages.later, stages.work, free)
    caught = False
    for q in np.argsort(when[:crossed]):
        k = which[q]
        new = OFF if neurons.side[j, k] == ON else ON
        sense = 1.0 if new == ON else -1.0
        jump = _jump(k, stages.later, samples)
        for i in range(d):
            beyond[i] = free[i] + sense * jump * samples.inputs[k, i]
        _project(beyond, groups.basis[p], groups.held[p])
        # Pushed back from there, or in doubt: `_let_go` finds out.
        if arrived[q] or sense * neurons.outer[j] * _dot(beyond, samples.inputs[k]) < 0.0:
            new = SLIDE
            caught = True
        if new == ON or neurons.side[j, k] == ON:
            for i in range(d):
                free[i] += sense * jump * samples.inputs[k, i]
        _turn(j, k, new, neurons, samples)
    if caught:
        count = 0
        for k in range(n):
            if neurons.side[j, k] == SLIDE:
                count = _extend(own, count, samples.inputs[k], stages.small)
        for i in range(d):
            beyond[i] = neurons.weights[j, i]
        _project(beyond, own, count)
        _project(beyond, own, count)
        size, left = np.sqrt(_dot(neurons.weights[j], neurons.weights[j])), np.sqrt(_dot(beyond, beyond))
        if left > NEAR * size:  # onto the kinks, at the same length
            for i in range(d):
                neurons.weights[j, i] = beyond[i] * (size / left)
        elif count == d:  # nothing but w = 0 is on all of them
            left = np.sqrt(max(neurons.outer[j] ** 2 - size**2, 0.0))
            if neurons.kind[j] == BALANCED:  # and a = 0 with it: never reached
                _shrink(stages.old[j, :d], stages.old[j, d], stages.moved[j])
                for i in range(d):
                    neurons.weights[j, i] = stages.moved[j, i]
                neurons.outer[j] = stages.moved[j, d]
                for k in range(n):
                    neurons.side[j, k] = kept[k]
                neurons.hashes[j] = kept_hash
            else:
                for i in range(d):
                    neurons.weights[j, i] = 0.0
                neurons.outer[j] = left if neurons.outer[j] > 0.0 else -left
        if left > NEAR * size or count == d:
            _preactivations(neurons.weights[j], samples.inputs_t, stages.before[j])
    return crossed


@_jit.blas_entry
def advance(neurons, samples, scalars, marks, marked, tolerance, t_stop, max_steps, loss_tol, drive_tol):  # type: ignore[no-untyped-def]
    """Follow the flow to ``t_stop``.

    Parameters
    ----------
    neurons : Neurons
        Changed in place.
    samples : Samples
    scalars : (SCALARS,)
        Time, proposed step and counters, carried on; the other entries are results at the end.
    marks : (M,)
        Train losses of interest.
    marked : (M,)
        Result: times at which the loss first fell to them; infinite before.
    tolerance : float
        Local error of a step relative to the norm of all weights.
    t_stop : float
    max_steps : int
        Limit on the steps of this call.
    loss_tol, drive_tol : float
        The flow has ended when the train loss or all drives |D| are no larger.

    Returns
    -------
    int
        Why it ended.
    """
    m, d = neurons.weights.shape
    n = len(samples.labels)
    groups = Groups(
        np.zeros(m, np.int64),
        np.zeros(m, np.int64),
        np.empty((m, n)),
        np.empty((m, d + 1, d + 1)),
        np.empty(m),
        np.empty((m, d, d)),
        np.zeros(m, np.int64),
    )
    stages = Stages(
        np.empty((m, d)),
        np.empty((m, d)),
        np.empty((m, d)),
        np.empty((m, d + 1, d + 1)),
        np.empty((m, d + 1)),
        np.empty((m, d + 1)),
        np.empty((m, n)),
        np.empty((m, n)),
        np.empty(m),
        np.empty((m, d)),
        np.empty(n),
        np.empty(n),
        np.empty(d + 1),
    )
    residual, drive = np.empty(n), np.empty((m, d))
    for j in range(m):
        _preactivations(neurons.weights[j], samples.inputs_t, stages.before[j])
    taken, tries, count, loss = 0, 0, 0, np.inf
    stale = True
    while True:
        if stale:
            count = _form(neurons, samples, np.argsort(neurons.hashes), groups, stages.small)
        _sum_moments(neurons, groups, count)
        for p in range(count):
            for i in range(d):
                stages.pull[p, i] = groups.moment[p, i, d]
        _residuals(samples, groups.gate, stages.pull, count, stages.work, residual)
        _drives(samples, groups, count, residual, stages.work, drive)
        tries += 1
        stale = False
        if tries <= 20 * (max_steps + 100):
            released = _let_go(neurons, samples, groups, count, residual, stages.work)
            if released:
                scalars[EVENTS] += released
                stale = True
                continue

        previous = loss
        loss = _dot(residual, residual) / samples.number + samples.offset
        gradient, largest, weight, stiffness = 0.0, 0.0, 0.0, 0.0
        for p in range(count):
            push, along, spread = _dot(drive[p], drive[p]), 0.0, 0.0
            for i in range(d):
                along += drive[p, i] * _dot(drive[p], groups.moment[p, i, :d])
            for k in range(n):
                spread += (groups.gate[p, k] * samples.norms[k]) ** 2
            gradient += groups.moment[p, d, d] * push + along
            largest = max(largest, np.sqrt(push))
            weight += groups.total[p]
            stiffness += groups.total[p] * spread / samples.number
        growing = _largest_growing(neurons, groups, drive, weight)
        scalars[LOSS], scalars[GRADIENT], scalars[DRIVE], scalars[GROUPS] = loss, np.sqrt(gradient), growing, count
        for q in range(len(marks)):
            if loss <= marks[q] and not marked[q] < np.inf:
                share = (previous - marks[q]) / (previous - loss) if previous < np.inf else 1.0
                marked[q] = scalars[TIME] - (1.0 - share) * scalars[LAST]
        if loss <= loss_tol:
            reason = INTERPOLATED
            break
        if growing <= drive_tol:
            reason = STATIONARY
            break
        if scalars[TIME] >= t_stop:
            reason = REACHED
            break
        if taken >= max_steps:
            reason = STEP_LIMIT
            break
        if tries > 20 * (max_steps + 100):
            reason = STUCK
            break

        heavy = np.nonzero(groups.total[:count] > LIGHT * weight)[0]
        stacked, driven = np.empty((0, 0)), np.empty((0, 0))
        remaining = t_stop - scalars[TIME]
        while True:
            h = min(scalars[STEP], remaining)
            if largest * h > 0.5 * LONGEST:
                h = 0.5 * LONGEST / largest
            smallest = 1e-13 * (samples.pace + scalars[TIME])
            implicit = h * stiffness > 1.0
            if implicit:
                scalars[IMPLICIT] += 1
                if len(stacked) == 0:
                    stacked, driven = np.empty((n, len(heavy) * d)), np.empty((n, len(heavy) * d))
                    _stack(samples, groups, heavy, stacked, driven)
            error, farthest = _two_stages(samples, groups, count, heavy, h, implicit, stacked, driven, drive, stages)
            error /= tolerance
            if farthest > LONGEST:
                error = max(error, 4.0)
            if not error <= 1.0 and h > smallest:
                scalars[STEP] = h * (max(0.2, 0.9 / np.sqrt(error)) if error < np.inf else 0.2)
                scalars[REJECTED] += 1
                continue
            late, own, earliest, lost = _move(neurons, samples, groups, count, residual, h, stages)
            excess = LATE * max(late, own / OWN) / tolerance
            if lost and h > smallest:
                scalars[STEP] = 0.5 * h
                scalars[REJECTED] += 1
                continue
            if excess > 1.0 and h > smallest:
                scalars[STEP] = h * (earliest + (1.0 - earliest) * min(0.5, 0.5 / excess))
                scalars[REJECTED] += 1
                continue
            break

        taken += 1
        scalars[STEPS] += 1
        scalars[LAST] = h
        scalars[TIME] = t_stop if h >= remaining else scalars[TIME] + h
        for p in range(count):
            _boosted_pull(stages.boost[p], groups.moment[p], stages.pull[p])
        _residuals(samples, groups.gate, stages.pull, count, stages.work, stages.later)
        for j in range(m):
            for i in range(d):
                stages.old[j, i] = neurons.weights[j, i]
                neurons.weights[j, i] = stages.moved[j, i]
            stages.old[j, d] = neurons.outer[j]
            neurons.outer[j] = stages.moved[j, d]
            events = _cross(j, neurons, samples, groups, stages)
            if events:
                scalars[EVENTS] += events
                stale = True
        grown = h * min(2.0, 0.9 / np.sqrt(max(error, 1e-4)))
        scalars[STEP] = max(grown, scalars[STEP]) if h >= remaining else grown
    sliding = 0
    for j in range(m):
        for k in range(n):
            if neurons.side[j, k] == SLIDE:
                sliding += 1
    scalars[SLIDING] = sliding
    return reason
