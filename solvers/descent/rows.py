"""The rows of a run of discrete updates, in packed tables of the size that the run will need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmft.formulation import Formulation
from solvers.descent.kernels import C_NEXT, R_NEXT, Local, Tables, Work, descent_row
from solvers.history import compiled_model

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ELEMENT_TIME = 0.6e-9
"""Seconds a stored element takes each time it is read (measured, one core)."""
ROW_TIME = 2.0e-7
"""Seconds for all that is local at one pair of times, over the number of pairs of groups (measured)."""


@dataclass(frozen=True)
class Cost:
    """What a run needs.

    Attributes
    ----------
    memory : float
        Bytes of the two-time tables.
    seconds : float
        Time on one core, roughly.
    """

    memory: float
    seconds: float


def stored_tables(form: Formulation) -> int:
    """Two-time functions that are kept: R_A and V, C and R in each pair of groups and in each T mode."""
    return 2 + 2 * form.groups**2 + 2 * int((form.sizes > 1).sum())


def cost(form: Formulation, rows: int, epoch: int = 1) -> Cost:
    """Memory and time of a run of so many rows, with so many updates in an epoch."""
    n = float(rows)
    tables = stored_tables(form)
    seconds = ELEMENT_TIME * tables * form.groups * n**3 / 6.0 + ROW_TIME * form.groups**2 * n**2 / 2.0
    return Cost(memory=8.0 * n * (tables * (n + 1.0) / 2.0 + 2.0 * min(epoch, n)), seconds=seconds)


def rows_that_fit(form: Formulation, memory: float, epoch: int = 1) -> int:
    """Rows whose tables take no more than so many bytes."""
    tables = stored_tables(form)
    linear = 0.5 * tables + 2.0 * epoch
    return int((np.sqrt(linear**2 + 0.25 * tables * memory) - linear) / tables)


def triangle(p: int) -> int:
    """Place of row p in a packed lower triangle."""
    return p * (p + 1) // 2


class Rows:
    """Rows 0 ... rows - 1 are complete; of row ``rows`` C, R, a and V are known.

    Parameters
    ----------
    form : Formulation
        The problem.
    capacity : int
        Rows of the whole run.
    step : float
        Time that one update advances.
    momentum, batch_fraction : float
        Of the optimiser.
    epoch : int
        Updates in which no sample is used twice.
    """

    def __init__(
        self,
        form: Formulation,
        capacity: int,
        step: float,
        momentum: float = 0.0,
        batch_fraction: float = 1.0,
        epoch: int = 1,
    ) -> None:
        self.form = form
        self.capacity = capacity
        self.step = step
        self.momentum = momentum
        self.batch_fraction = batch_fraction
        self.model = compiled_model(form)
        self.groups, self.latents = form.groups, form.latent_dimension
        self.modes = int((form.sizes > 1).sum())
        self.rows = 0
        g, k, modes, n = self.groups, self.latents, self.modes, capacity
        zeros = np.zeros
        self.tables = Tables(
            a=zeros((n, g)),
            v=zeros((n, g, k)),
            overlap=zeros((n, g)),
            lam=zeros((n, g)),
            errors=zeros((n, 2)),
            own_s=zeros((n, min(epoch, n))),
            own_g=zeros((n, min(epoch, n))),
            r_a=zeros(triangle(n)),
            v_r=zeros(triangle(n)),
            c_s=zeros(triangle(n * g)),
            r_s=zeros(triangle(n * g)),
            c_t=zeros((modes, triangle(n))),
            r_t=zeros((modes, triangle(n))),
        )
        self.work = Work(
            rows_s=zeros((9, g, (n + 1) * g)),
            rows_t=zeros((9, modes, 1, n + 1)),
            rows=zeros((6, 1, n + 1)),
            cov_own=zeros((4, n, g)),
            cov_other=zeros((4, n, g, g)),
            a=zeros(g),
            v=zeros((g, k)),
        )
        self.local = Local(
            s=zeros((2, g, g)),
            t=zeros((2, modes)),
            own=zeros((4, g)),
            other=zeros((4, g, g)),
            gradient=zeros((g, k)),
            latent=zeros(k),
            factor=zeros(g),
        )
        self.tables.a[0] = form.a0
        self.tables.v[0] = form.v0 * self.model.roots[:, None]
        for p in range(g):
            self.tables.c_s[triangle(p) : triangle(p) + p + 1] = form.correlation_s0[p, : p + 1]
        self.tables.c_t[:, 0] = form.correlation_t0[form.sizes > 1]

    def compute(self) -> bool:
        """Complete row ``rows`` and make one update; whether all numbers are finite. `accept` makes it count."""
        n = self.rows
        descent_row(self.model, self.tables, self.work, self.local, n, self.step, self.momentum, self.batch_fraction)
        numbers = (self.tables.errors[n].sum(), self.tables.lam[n].sum(), self.work.a.sum(), self.work.v.sum())
        return bool(np.isfinite(numbers).all())

    def accept(self) -> None:
        """Keep the row just computed, and the row that the update has led to unless the run ends here."""
        n, g = self.rows + 1, self.groups
        if n < self.capacity:
            tables, work = self.tables, self.work
            tables.a[n], tables.v[n] = work.a, work.v
            for group in range(g):
                p = n * g + group
                place = slice(triangle(p), triangle(p) + p + 1)
                tables.c_s[place] = work.rows_s[C_NEXT, group, : p + 1]
                tables.r_s[place] = work.rows_s[R_NEXT, group, : p + 1]
            place = slice(triangle(n), triangle(n + 1))
            tables.c_t[:, place] = work.rows_t[C_NEXT, :, 0, : n + 1]
            tables.r_t[:, place] = work.rows_t[R_NEXT, :, 0, : n + 1]
        self.rows = n

    # ------------------------------------------------------------------------------------------------ results

    def _block(self, table: FloatArray, later: int, earlier: IntArray) -> FloatArray:
        """(G, len(earlier), G) elements of an S table, with ``earlier`` <= ``later``."""
        g = self.groups
        p = later * g + np.arange(g)[:, None, None]
        q = earlier[None, :, None] * g + np.arange(g)
        high, low = np.maximum(p, q), np.minimum(p, q)
        result: FloatArray = table[high * (high + 1) // 2 + low]
        return result

    def two_time(self, place: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """C, the integrated response and C_r on the rows in ``place``: (modes, M, M) twice, (M, M).

        The integral of R(t, u) over u from s on is the sum of R_nk over s <= t_k < t: the weights of the steps are in
        R.
        """
        g, tables, count = self.groups, self.tables, len(place)
        correlation = np.zeros((g * g + self.modes, count, count))
        integrated = np.zeros_like(correlation)
        for i, n in enumerate(place):
            seen = place[: i + 1]
            block = self._block(tables.c_s, int(n), seen)
            correlation[: g * g, i, : i + 1] = block.transpose(0, 2, 1).reshape(g * g, i + 1)
            row = slice(triangle(n), triangle(n + 1))
            correlation[g * g :, i, : i + 1] = tables.c_t[:, row][:, seen]
            lines = [tables.r_s[triangle(n * g + h) : triangle(n * g + h) + n * g] for h in range(g)]
            below = np.stack(lines).reshape(g, n, g)
            modes = np.concatenate([below.transpose(0, 2, 1).reshape(g * g, n), tables.r_t[:, row][:, :n]])
            sums = np.zeros((len(modes), n + 1))
            sums[:, :n] = np.cumsum(modes[:, ::-1], axis=1)[:, ::-1]
            integrated[:, i, : i + 1] = sums[:, seen]
        correlation[: g * g] = _mirrored(correlation[: g * g], np.arange(g * g).reshape(g, g).T.ravel())
        correlation[g * g :] = _mirrored(correlation[g * g :], np.arange(self.modes))
        return correlation, integrated, self._residual_correlation(place)

    def _residual_correlation(self, place: IntArray) -> FloatArray:
        """C_r on the rows in ``place``, (M, M), from the correlation V of the weighted residuals r~.

        With r' as in `solvers.descent.kernels.residual_rows` and sums over the epoch of k, a weight does not know what
        comes before it in its epoch and what other samples do there: E[r~_l r'_k] = V_lk - R_A,lk V_kk +
        sum_j R_A,lj E[r'_j r'_k] for l in a later epoch. Both r_n and r_k are r' less what their own epochs have added.
        """
        tables, result = self.tables, np.zeros((len(place), len(place)))
        epoch = tables.own_s.shape[1]
        diagonal = tables.v_r[[triangle(k) + k for k in range(self.rows)]]

        def own(n: int) -> tuple[int, FloatArray, FloatArray, FloatArray]:
            """First update of an epoch up to row n; S, E[r' r'] and 1 - S among its updates."""
            first = n - n % epoch
            size = n - first + 1
            memory, seen = tables.own_s[first : n + 1, :size], np.tril(tables.own_g[first : n + 1, :size])
            return first, memory, seen + np.tril(seen, -1).T, np.eye(size) - memory

        epochs = {int(n): own(int(n)) for n in place}
        for i, n in enumerate(map(int, place)):
            first, memory, seen, weight = epochs[n]
            # E[r_n r~_j] and the response of r_n, over earlier epochs.
            mixed, response = np.zeros(first), np.zeros(first)
            for l in range(first, n + 1):
                start = triangle(l)
                mixed += weight[-1, l - first] * tables.v_r[start : start + first]
                response += weight[-1, l - first] * tables.r_a[start : start + first]
            together = weight @ seen @ weight.T + memory @ (np.diag(diagonal[first : n + 1]) - seen) @ memory.T
            for j, k in enumerate(map(int, place[: i + 1])):
                if k >= first:
                    result[i, j] = together[-1, k - first]
                    continue
                begin, before, among, _ = epochs[k]
                value = mixed[k] - response[k] * diagonal[k] + response[begin : k + 1] @ among[:, -1]
                end = min(begin + epoch, first)
                if end > k + 1:
                    value += response[k + 1 : end] @ tables.own_g[k + 1 : end, k - begin]
                result[i, j] = value - before[-1, : k - begin] @ mixed[begin:k]
        lower: FloatArray = np.tril(result)
        return lower + np.tril(result, -1).T

    def displacement(self) -> FloatArray:
        """(rows - 1, G) |w_{n+1} - w_n|^2 of a neuron of each group, from 2 - 2 C_d(n + 1, n)."""
        g, sizes = self.groups, self.form.sizes
        n = np.arange(1, self.rows)
        result = np.zeros((self.rows - 1, g))
        slot = 0
        for group in range(g):
            p = n * g + group
            own = self.tables.c_s[p * (p + 1) // 2 + p - g]
            if sizes[group] > 1:
                inside = self.tables.c_t[slot, n * (n + 1) // 2 + n - 1]
                own = inside + (own - inside) / sizes[group]
                slot += 1
            result[:, group] = 2.0 - 2.0 * own
        return result

    # -------------------------------------------------------------------------------------------- checkpoints

    def state(self) -> dict[str, Any]:
        """All that is known, as views: the tables may fill the memory."""
        n = self.rows
        known = min(n + 1, self.capacity)
        tables = self.tables
        ends = {"r_a": triangle(n), "v_r": triangle(n)}
        ends |= {"c_s": triangle(known * self.groups), "r_s": triangle(known * self.groups)}
        result: dict[str, Any] = {name: getattr(tables, name)[:end] for name, end in ends.items()}
        for name in ("c_t", "r_t"):
            result[name] = getattr(tables, name)[:, : triangle(known)]
        for name in ("a", "v"):
            result[name] = getattr(tables, name)[:known]
        for name in ("overlap", "lam", "errors", "own_s", "own_g"):
            result[name] = getattr(tables, name)[:n]
        return result

    def restore(self, state: dict[str, Any]) -> None:
        """Fill the tables from :meth:`state`."""
        for name, values in state.items():
            table = getattr(self.tables, name)
            table[tuple(slice(size) for size in values.shape)] = values
        self.rows = len(state["errors"])


def _mirrored(modes: FloatArray, transposed: IntArray) -> FloatArray:
    """Modes that are known below the diagonal, filled above it."""
    return np.tril(modes) + np.triu(modes[transposed].transpose(0, 2, 1), 1)
