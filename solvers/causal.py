"""Compiled causal sums: the only loops whose cost grows with the square of the number of rows.

A two-time function is stored as a matrix over (time, group) pairs, ``p = t * G + g``; a row of it is a ``(G, p)``
array. Symmetric functions are stored in full, so that every sum runs along contiguous memory.
"""

from __future__ import annotations

from dmft._jit import summation


@summation
def dot(x, y, length):
    """sum_{p < length} x_p y_p."""
    total = 0.0
    for p in range(length):
        total += x[p] * y[p]
    return total


@summation
def add_multiple(target, factor, source, length):
    """target_p += factor * source_p for p < length."""
    for p in range(length):
        target[p] += factor * source[p]


@summation
def full_product(row, matrix, length, out):
    """out[g, q] = sum_{p < length} row[g, p] matrix[q, p] for q < length; ``matrix`` is symmetric."""
    groups = row.shape[0]
    for q in range(length):
        line = matrix[q]
        for g in range(groups):
            out[g, q] = dot(row[g], line, length)


@summation
def causal_product(row, matrix, times, width, out):
    """out[g, q] = sum over p up to and including the time block of q of row[g, p] matrix[q, p].

    ``matrix`` is causal (lower triangular in blocks of ``width``); q runs over the first ``times`` blocks.
    """
    groups = row.shape[0]
    for time in range(times):
        length = (time + 1) * width
        for i in range(width):
            q = time * width + i
            line = matrix[q]
            for g in range(groups):
                out[g, q] = dot(row[g], line, length)
