"""Dropping updates from the history of a long run.

Far in the past rows are smooth functions of the number of the update, except at equal times: on minibatches V has a
spike there, and V and C a cusp. Let P interpolate all updates from those that are kept, for a row from what it has
seen only. Functions with a weight (R, R_A) become X P, so that sum_k R_nk f_k stays for a smooth f. They are then
(S^ M) for a smooth S^ at the kept updates, with M = P^T P, and for a smooth g = sum_l S_nl V_lk to stay as well,
functions without a weight (C, V) become A X A^T, A = M^{-1} P^T. For smooth X that is their restriction to the kept
updates; of a spike it leaves the average over the updates that a row stands for, as noise is averaged.

Done again, the updates are the rows of the last time with M between them, M' = P^T M P and A = M'^{-1} P^T M.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from dmft.interpolation import value_weights
from solvers.descent.kernels import Merged
from solvers.descent.rows import FloatArray, IntArray, Rows, Seen, triangle

DEGREE = 3
"""Of the interpolation. Five leaves R_nk itself wiggling by some percent, though not sums over it."""
LEAST = 1e-5
"""E[r^2] over its start below which its error is measured against this, not against itself."""


def rows_to_keep(update: IntArray, spacing: float) -> IntArray:
    """Rows with gaps of at most ``spacing`` times the distance from the first and from the newest update.

    Gaps are powers of two at their multiples: a row dropped later leaves even gaps.
    """
    room = np.maximum(1.0, spacing * np.minimum(update, update[-1] - update))
    keep = update % 2 ** np.floor(np.log2(room)).astype(np.int64) == 0
    keep[[0, -1]] = True
    return np.flatnonzero(keep)


class Interpolation:
    """The matrix P. Of a row so early that the stencil would reach beyond it, the stencil ends at the row itself.

    Parameters
    ----------
    update : (N,) int
        Updates of the rows.
    keep : (M,) int
        Rows that stay, the first and the last among them.
    """

    def __init__(self, update: IntArray, keep: IntArray) -> None:
        times, self.size = update[keep].astype(np.float64), min(DEGREE + 1, len(keep))
        self.keep, self.rows = keep, len(update)
        self.dropped = np.setdiff1d(np.arange(len(update)), keep)
        later = np.searchsorted(keep, self.dropped)
        self.low = np.clip(later - self.size // 2, 0, len(keep) - self.size)
        self.weights = np.empty((len(self.dropped), self.size))
        self.early: list[tuple[int, int, int, FloatArray]] = []
        for i, time in enumerate(update[self.dropped].astype(np.float64)):
            self.weights[i] = value_weights(times[self.low[i] : self.low[i] + self.size], time)
            for row in range(later[i], self.low[i] + self.size - 1):
                start = max(0, row - DEGREE)
                self.early.append((self.dropped[i], row, start, value_weights(times[start : row + 1], time)))

    def matrix(self) -> FloatArray:
        """(N, M) P of a late row."""
        result = np.zeros((self.rows, len(self.keep)))
        result[self.keep, np.arange(len(self.keep))] = 1.0
        result[self.dropped[:, None], self.low[:, None] + np.arange(self.size)] = self.weights
        return result

    def moved(self, table: FloatArray) -> FloatArray:
        """(M, M, F) X P of F functions, from (N, M, F), which is changed; the second index is the row."""
        for k, row, start, weights in self.early:
            table[self.keep[start : row + 1], row] += np.multiply.outer(weights, table[k, row])
        for k, low, weights in zip(self.dropped, self.low, self.weights, strict=True):
            rows = slice(low + self.size - 1, None)
            table[self.keep[low : low + self.size], rows] += np.multiply.outer(weights, table[k, rows])
        result: FloatArray = table[self.keep]
        return result


def thinned(rows: Rows, keep: IntArray, capacity: int) -> Rows:
    """A copy that has only some of the rows, and goes on after the last of them.

    Parameters
    ----------
    rows : Rows
        Left as they are. Batches must be drawn afresh (``epoch`` = 1).
    keep : (M,) int
        Rows to keep, the first among them. Of the last the copy knows C, R, a and V only: it is to be computed.
    capacity : int
        Rows the copy has room for.
    """
    size, base = len(keep), int(keep[-1])
    interpolation = Interpolation(rows.update[: base + 1], keep)
    result = Rows(rows.form, max(capacity, size), rows.step, rows.momentum, rows.batch_fraction, total=rows.total)
    result.rows, result.made = size - 1, int(rows.update[base])
    result.update[:size] = rows.update[keep]
    for name in ("a", "v", "overlap", "lam", "errors", "own_s", "own_g"):
        getattr(result.tables, name)[:size] = getattr(rows.tables, name)[keep]
    for mine, theirs in zip(result.curves, rows.curves, strict=True):
        mine[: result.made] = theirs[: result.made]
    _move(rows, result, interpolation)
    _project(rows, result, interpolation)
    _remember(rows, result, keep)
    return result


def _move(rows: Rows, result: Rows, interpolation: Interpolation) -> None:
    """Functions with a weight: R in S blocks and T modes, and R_A."""
    keep = interpolation.keep
    size, base, g = len(keep), int(keep[-1]), rows.groups
    old, new = rows.tables, result.tables
    table = np.zeros((base + 1, size, g * g + rows.modes + 1))
    in_s, in_t = slice(g * g), slice(g * g, -1)
    for i, n in enumerate(map(int, keep)):
        lines = [old.r_s[triangle(n * g + h) : triangle(n * g + h) + n * g].reshape(n, g) for h in range(g)]
        place = slice(triangle(n), triangle(n + 1))
        table[:n, i, in_s] = np.stack(lines, axis=1).reshape(n, g * g)
        table[: n + 1, i, in_t] = old.r_t[:, place].T
        if n < len(rows.merged.s):
            table[n, i, in_s] = rows.merged.s[n].ravel()
            table[n, i, in_t] = rows.merged.t[:, n, 0, 0]
        if n < base:
            table[: n + 1, i, -1] = old.r_a[place]
    table = interpolation.moved(table)
    for i in range(size):
        for h in range(g):
            start = triangle(i * g + h)
            new.r_s[start : start + i * g] = table[:i, i, h * g : (h + 1) * g].ravel()
        new.r_t[:, triangle(i) : triangle(i) + i] = table[:i, i, in_t].T
        new.r_a[triangle(i) : triangle(i + 1)] = table[: i + 1, i, -1]
    same = table[np.arange(size), np.arange(size)]
    result.merged = Merged(
        s=np.ascontiguousarray(same[:, in_s]).reshape(size, g, g),
        t=np.ascontiguousarray(same[:, in_t].T).reshape(rows.modes, size, 1, 1),
    )


def _project(rows: Rows, result: Rows, interpolation: Interpolation) -> None:
    """Functions without a weight: C in S blocks and T modes, and V, of which the last row is not known."""
    keep, matrix = interpolation.keep, interpolation.matrix()
    count, known = len(matrix), min(len(matrix), len(rows.mass))
    mass = np.eye(count)
    mass[:known, :known] = rows.mass[:known, :known]
    weighted = mass @ matrix
    result.mass = matrix.T @ weighted
    projector = cho_solve(cho_factor(result.mass), weighted.T)
    before = np.tril(np.ones((count, count)), -1)
    if known:
        before[:known, :known] = rows.before[:known, :known]
        before[known:, : known - 1] = mass[: known - 1].sum(axis=1)
    result.before = before[keep] @ matrix

    def put(old: FloatArray, new: FloatArray, width: int, end: int) -> None:
        full = np.zeros((end * width, end * width))
        for p in range(end * width):
            full[p, : p + 1] = full[: p + 1, p] = old[triangle(p) : triangle(p + 1)]
        left = projector[: len(keep) - count + end, :end]
        full = np.tensordot(np.tensordot(left, full.reshape(end, width, end, width), (1, 0)), left, (2, 1))
        full = full.transpose(0, 1, 3, 2).reshape(len(left) * width, -1)
        for p in range(len(full)):
            new[triangle(p) : triangle(p + 1)] = full[p, : p + 1]

    put(rows.tables.v_r, result.tables.v_r, 1, count - 1)
    put(rows.tables.c_s, result.tables.c_s, rows.groups, count)
    for old, new in zip(rows.tables.c_t, result.tables.c_t, strict=True):
        put(old, new, 1, count)


def _remember(rows: Rows, result: Rows, keep: IntArray) -> None:
    """What is asked for in the end, of pairs of the rows kept: taken from the tables when they still have it."""
    size, known = len(keep), int(np.count_nonzero(keep < len(rows.merged.s)))
    seen = Seen(*(np.zeros((*table.shape[:-2], size, size)) for table in rows.seen))
    old = keep[:known]
    for new, table in zip(seen, rows.seen, strict=True):
        new[..., :known, :known] = table[..., old[:, None], old]
    for i in range(known, size):
        place = keep[: i + 1]
        n = int(keep[i])
        seen.correlation[:, i, : i + 1], seen.integrated[:, i, : i + 1] = rows.rows_in_modes(n, place)
        seen.residual[i, : i + 1] = rows.residual_row(n)[place]
    result.seen = seen


def difference(rows: Rows, other: Rows, since: int, horizon: int) -> float:
    """Largest error of the curves of ``other``, with the history thinned before update ``since``, after ``horizon``.

    Differences from ``rows``, which have made the same updates: of the train error as they are, for it follows the
    rest; of the test error, a, overlaps and multipliers as if they go on to grow as from ``since`` to here. Relative
    to the errors at the time, and to the largest of the others so far.
    """
    made = rows.made
    new, longer = slice(since, made), max(1.0, horizon / (made - since))
    mine, exact = other.curves, rows.curves
    scale = np.maximum(np.abs(exact.errors[new]), LEAST * exact.errors[0, 0])
    errors = np.abs(mine.errors[new] - exact.errors[new]) / scale
    found = [errors[:, 0].max(), longer * errors[:, 1].max()]
    for x, y in ((mine.a, exact.a), (mine.v, exact.v), (mine.lam - 1.0, exact.lam - 1.0)):
        size = np.abs(y[:made]).max()
        found.append(longer * np.abs(x[new] - y[new]).max() / size if size > 0.0 else 0.0)
    return float(np.max(found))
