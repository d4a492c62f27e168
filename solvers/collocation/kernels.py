"""Compiled loops of the collocation scheme: interpolation in (ln t, x) and causal products on a row.

Functions of two times are stored row by row as (row, node, function), so that one stencil serves all functions.
"""

from __future__ import annotations

from dmft._jit import entry

LAGS = 5
"""Rows of an interpolation in ln t. The memory of an aging system acts as a derivative along s = const. by this very
interpolation, late more strongly than the explicit one: with six rows it grows a sawtooth in x, as BDF-5 does; with
four it is not accurate enough."""


@entry
def row_stencils(log_t, newest, offsets, start, weight):
    """Interpolation in l = ln t at l_newest + offsets (K, J): first of `LAGS` rows, and Lagrange weights.

    Rows after ``newest`` do not exist. Times before the first row are read at it: there nothing has moved yet.
    """
    for k in range(offsets.shape[0]):
        for j in range(offsets.shape[1]):
            target = log_t[newest] + offsets[k, j]
            if target <= log_t[0]:
                start[k, j] = 0
                weight[k, j, 0] = 1.0
                for r in range(1, LAGS):
                    weight[k, j, r] = 0.0
                continue
            low = 0
            high = newest
            while high - low > 1:
                middle = (low + high) // 2
                if log_t[middle] <= target:
                    low = middle
                else:
                    high = middle
            first = min(max(low - LAGS // 2 + 1, 0), newest - LAGS + 1)
            start[k, j] = first
            for r in range(LAGS):
                product = 1.0
                for i in range(LAGS):
                    if i != r:
                        product *= (target - log_t[first + i]) / (log_t[first + r] - log_t[first + i])
                weight[k, j, r] = product


@entry
def past_rows(rows, newest, start, weight, result, newest_weight):
    """Older rows' share of every function at the times of ``start`` (K, 1), on all nodes: (K, L, F).

    ``newest_weight`` (K,) is what the row under construction adds, times its own values.
    """
    nodes, count = result.shape[1], result.shape[2]
    for k in range(start.shape[0]):
        newest_weight[k] = 0.0
        for j in range(nodes):
            for f in range(count):
                result[k, j, f] = 0.0
        for r in range(LAGS):
            row = start[k, 0] + r
            w = weight[k, 0, r]
            if row == newest:
                newest_weight[k] = w
            elif w != 0.0:
                for j in range(nodes):
                    for f in range(count):
                        result[k, j, f] += w * rows[row, j, f]


@entry
def past_points(rows, newest, start, weight, node, node_weight, result, newest_weight):
    """The same at times ``start`` (K, J) and, on each row, at the places ``node`` (K, J) in x: (K, J, F)."""
    count = result.shape[2]
    points = node_weight.shape[2]
    for k in range(start.shape[0]):
        for j in range(start.shape[1]):
            first = node[k, j]
            newest_weight[k, j] = 0.0
            for f in range(count):
                result[k, j, f] = 0.0
            for r in range(LAGS):
                row = start[k, j] + r
                w = weight[k, j, r]
                if row == newest:
                    newest_weight[k, j] = w
                elif w != 0.0:
                    for p in range(points):
                        c = w * node_weight[k, j, p]
                        for f in range(count):
                            result[k, j, f] += c * rows[row, first + p, f]


@entry
def interpolate_row(values, node, node_weight, result):
    """Functions (L, F) of one row at the places ``node`` (K, J): (K, J, F)."""
    count = values.shape[1]
    points = node_weight.shape[2]
    for k in range(node.shape[0]):
        for j in range(node.shape[1]):
            first = node[k, j]
            for f in range(count):
                result[k, j, f] = 0.0
            for p in range(points):
                c = node_weight[k, j, p]
                for f in range(count):
                    result[k, j, f] += c * values[first + p, f]


@entry
def add_newest_rows(past, newest_weight, values, result):
    """Sum of past (K, L, F) and newest_weight (K,) times the row itself (L, F)."""
    for k in range(past.shape[0]):
        w = newest_weight[k]
        for j in range(past.shape[1]):
            for f in range(past.shape[2]):
                result[k, j, f] = past[k, j, f] + w * values[j, f]


@entry
def add_newest_points(past, newest_weight, values, node, node_weight, result):
    """Sum of past (K, J, F) and newest_weight (K, J) times the row itself (L, F), interpolated at ``node``."""
    count = past.shape[2]
    points = node_weight.shape[2]
    for k in range(past.shape[0]):
        for j in range(past.shape[1]):
            w = newest_weight[k, j]
            for f in range(count):
                result[k, j, f] = past[k, j, f]
            if w != 0.0:
                first = node[k, j]
                for p in range(points):
                    c = w * node_weight[k, j, p]
                    for f in range(count):
                        result[k, j, f] += c * values[first + p, f]


@entry
def spread(first_factor, second_factor, node, node_weight, result):
    """Matrix (K, L) of the linear map values -> sum_j first[k, j] second[k, j] interpolant(values)[k, j]."""
    points = node_weight.shape[2]
    for k in range(node.shape[0]):
        for j in range(node.shape[1]):
            c = first_factor[k, j] * second_factor[k, j]
            if c != 0.0:
                start = node[k, j]
                for p in range(points):
                    result[k, start + p] += c * node_weight[k, j, p]


@entry
def causal_products(weight, left, right, pairs, result):
    """Integrals sum_j weight[k, j] left[k, j, l] right[k, j, r] for every pair (l, r): (K, P)."""
    count = pairs.shape[0]
    for k in range(weight.shape[0]):
        for p in range(count):
            result[k, p] = 0.0
        for j in range(weight.shape[1]):
            w = weight[k, j]
            for p in range(count):
                result[k, p] += w * left[k, j, pairs[p, 0]] * right[k, j, pairs[p, 1]]
