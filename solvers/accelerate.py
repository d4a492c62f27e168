"""Anderson acceleration of a fixed-point map, restarted for every row."""

from __future__ import annotations

import numpy as np

from dmft._jit import entry, kernel
from solvers.causal import dot


@kernel
def member(items, count, item):
    """Whether ``item`` is among the first ``count`` items."""
    for i in range(count):
        if items[i] == item:
            return True
    return False


@entry
def anderson_update(x, image, scale, iteration, x_steps, f_steps, x_last, f_last, gram, mixed, work, order):
    """One Anderson (type II) step: replaces ``x`` by the mixed iterate. Returns the number of columns used.

    Parameters
    ----------
    x, image : (size,) float
        Iterate and its image under the map.
    scale : (size,) float
        Reciprocal natural size of each unknown; the least-squares problem is posed in scaled residuals.
    iteration : int
        0 restarts the history.
    x_steps, f_steps : (memory, capacity) float
        Ring buffers of differences of iterates and of scaled residuals.
    x_last, f_last : (capacity,) float
        Previous iterate and residual (scaled).
    gram : (memory, memory) float
        Inner products of the columns of ``f_steps``, kept up to date.
    mixed : (memory,) float
        Work space for the coefficients.
    work, order : (memory, memory + 1) float, (memory,) int
        Work space for the normal equations.
    """
    memory = x_steps.shape[0]
    size = x.shape[0]
    columns = min(iteration, memory)
    if iteration > 0:
        slot = (iteration - 1) % memory
        for p in range(size):
            residual = (image[p] - x[p]) * scale[p]
            x_steps[slot, p] = x[p] - x_last[p]
            f_steps[slot, p] = residual - f_last[p]
            f_last[p] = residual
            x_last[p] = x[p]
        for i in range(columns):
            value = dot(f_steps[slot], f_steps[i], size)
            gram[slot, i] = value
            gram[i, slot] = value
        # Solve (F^T F) mixed = F^T f by Cholesky with diagonal pivoting; columns that depend on others get 0.
        for i in range(columns):
            size_i = np.sqrt(gram[i, i])
            mixed[i] = 0.0
            for j in range(columns):
                denominator = size_i * np.sqrt(gram[j, j])
                work[i, j] = gram[i, j] / denominator if denominator > 0.0 else 0.0
            work[i, columns] = dot(f_steps[i], f_last, size) / size_i if size_i > 0.0 else 0.0
        rank = 0
        for _ in range(columns):
            pivot = -1
            best = 1e-14
            for i in range(columns):
                if work[i, i] > best and not member(order, rank, i):
                    best = work[i, i]
                    pivot = i
            if pivot < 0:
                break
            order[rank] = pivot
            rank += 1
            for i in range(columns):
                if not member(order, rank, i):
                    factor = work[i, pivot] / work[pivot, pivot]
                    for j in range(columns + 1):
                        work[i, j] -= factor * work[pivot, j]
        for back in range(rank - 1, -1, -1):
            i = order[back]
            value = work[i, columns]
            for later in range(back + 1, rank):
                value -= work[i, order[later]] * mixed[order[later]]
            mixed[i] = value / work[i, i]
        for i in range(columns):
            size_i = np.sqrt(gram[i, i])
            mixed[i] = mixed[i] / size_i if size_i > 0.0 else 0.0
    else:
        for p in range(size):
            f_last[p] = (image[p] - x[p]) * scale[p]
            x_last[p] = x[p]
    for p in range(size):
        x[p] = image[p]
    for i in range(columns):
        coefficient = mixed[i]
        if coefficient != 0.0:
            for p in range(size):
                x[p] -= coefficient * (x_steps[i, p] + f_steps[i, p] / scale[p])
    return columns
