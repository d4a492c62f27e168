"""The rows of a run of discrete updates, in packed tables of the size that the run will need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from dmft.formulation import Formulation
from solvers.descent.kernels import C_NEXT, R_NEXT, Local, Merged, Tables, Work, descent_row
from solvers.history import compiled_model

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ELEMENT_TIME = 0.6e-9
"""Seconds a stored element takes each time it is read (measured, one core)."""
ROW_TIME = 2.0e-7
"""Seconds for all that is local at one pair of times, over the number of pairs of groups (measured)."""
THINNED = 0.4
"""Rows of a thinned history over those from which on it is thinned, roughly (measured)."""


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


def thinned_cost(form: Formulation, rows: int, history: int) -> Cost:
    """Memory and time of a run of so many rows whose history is thinned beyond ``history`` of them."""
    whole, tables = cost(form, history), stored_tables(form)
    typical = THINNED * history
    each = ELEMENT_TIME * tables * form.groups * typical**2 / 2.0 + ROW_TIME * form.groups**2 * typical
    return Cost(memory=whole.memory, seconds=whole.seconds + (rows - history) * each)


def rows_that_fit(form: Formulation, memory: float, epoch: int = 1) -> int:
    """Rows whose tables take no more than so many bytes."""
    tables = stored_tables(form)
    linear = 0.5 * tables + 2.0 * epoch
    return int((np.sqrt(linear**2 + 0.25 * tables * memory) - linear) / tables)


def triangle(p: int) -> int:
    """Place of row p in a packed lower triangle."""
    return p * (p + 1) // 2


class Curves(NamedTuple):
    """Functions of one time at every update, whatever the tables keep."""

    a: FloatArray  # (updates, G)
    v: FloatArray  # (updates, G, k), scaled as in the tables
    lam: FloatArray  # (updates, G)
    errors: FloatArray  # (updates, 2) E[r^2] and Q(t, t)
    moved: FloatArray  # (updates, G) |w_{n+1} - w_n|^2 of a neuron of each group


class Seen(NamedTuple):
    """What `Rows.two_time` gives between rows that the last thinning has left: the tables have it no more."""

    correlation: FloatArray  # (modes, M, M), of later and earlier row
    integrated: FloatArray  # (modes, M, M)
    residual: FloatArray  # (M, M)


class Rows:
    """Rows 0 ... rows - 1 are complete; of row ``rows`` C, R, a and V are known.

    Row n is update ``update[n]``, and ``made`` updates are complete: the same until `solvers.descent.thinning` drops
    rows.

    Parameters
    ----------
    form : Formulation
        The problem.
    capacity : int
        Rows the tables have room for; more is made when it is needed.
    step : float
        Time that one update advances.
    momentum, batch_fraction : float
        Of the optimiser.
    epoch : int
        Updates in which no sample is used twice.
    total : int, optional
        Rows of the whole run, ``capacity`` where not given.
    """

    def __init__(
        self,
        form: Formulation,
        capacity: int,
        step: float,
        momentum: float = 0.0,
        batch_fraction: float = 1.0,
        epoch: int = 1,
        total: int | None = None,
    ) -> None:
        self.form = form
        self.total = capacity if total is None else total
        self.step = step
        self.momentum = momentum
        self.batch_fraction = batch_fraction
        self.epoch = epoch
        self.model = compiled_model(form)
        self.groups, self.latents = form.groups, form.latent_dimension
        self.modes = int((form.sizes > 1).sum())
        self.rows = self.made = 0
        g, k, modes, n = self.groups, self.latents, self.modes, self.total
        zeros = np.zeros
        # Of the M rows that the last thinning has left, see `solvers.descent.thinning`: the matrix M between them, sums
        # over the updates before each of the functions that interpolate, R at equal times, and two-time functions.
        self.mass, self.before = zeros((0, 0)), zeros((0, 0))
        self._factor: Any = None
        self.merged = Merged(s=zeros((0, g, g)), t=zeros((modes, 0, 1, 1)))
        self.seen = Seen(*(zeros((*count, 0, 0)) for count in ((g * g + modes,), (g * g + modes,), ())))
        self.curves = Curves(
            a=zeros((n, g)), v=zeros((n, g, k)), lam=zeros((n, g)), errors=zeros((n, 2)), moved=zeros((n, g))
        )
        self.local = Local(
            s=zeros((2, g, g)),
            t=zeros((2, modes)),
            own=zeros((4, g)),
            other=zeros((4, g, g)),
            gradient=zeros((g, k)),
            latent=zeros(k),
            factor=zeros(g),
            size=zeros(1),
        )
        self._allocate(capacity)
        self.tables.a[0] = form.a0
        self.tables.v[0] = form.v0 * self.model.roots[:, None]
        for p in range(g):
            self.tables.c_s[triangle(p) : triangle(p) + p + 1] = form.correlation_s0[p, : p + 1]
        self.tables.c_t[:, 0] = form.correlation_t0[form.sizes > 1]

    def _allocate(self, capacity: int) -> None:
        g, k, modes, n = self.groups, self.latents, self.modes, capacity
        zeros = np.zeros
        self.capacity = n
        self.update = np.arange(n)
        self.tables = Tables(
            a=zeros((n, g)),
            v=zeros((n, g, k)),
            overlap=zeros((n, g)),
            lam=zeros((n, g)),
            errors=zeros((n, 2)),
            own_s=zeros((n, min(self.epoch, self.total))),
            own_g=zeros((n, min(self.epoch, self.total))),
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

    def compute(self) -> bool:
        """Complete row ``rows`` and make one update; whether all numbers are finite. `accept` makes it count."""
        n = self.rows
        descent_row(
            self.model,
            self.tables,
            self.work,
            self.local,
            self.merged,
            n,
            self.step,
            self.momentum,
            self.batch_fraction,
        )
        numbers = (self.tables.errors[n].sum(), self.tables.lam[n].sum(), self.work.a.sum(), self.work.v.sum())
        return bool(np.isfinite(numbers).all())

    def accept(self) -> None:
        """Keep the row just computed, and the row that the update has led to unless the run ends here."""
        n, g, made = self.rows + 1, self.groups, self.made + 1
        for curve, name in zip(self.curves[:4], self.curves._fields[:4], strict=True):
            curve[self.made] = getattr(self.tables, name)[n - 1]
        self.curves.moved[self.made] = self._moved()
        self.rows, self.made = n, made
        if made == self.total:
            return
        work = self.work
        if n == self.capacity:
            self.reserve(min(int(1.3 * n) + 16, n + self.total - made))
        tables = self.tables
        self.update[n] = made
        tables.a[n], tables.v[n] = work.a, work.v
        for group in range(g):
            p = n * g + group
            place = slice(triangle(p), triangle(p) + p + 1)
            tables.c_s[place] = work.rows_s[C_NEXT, group, : p + 1]
            tables.r_s[place] = work.rows_s[R_NEXT, group, : p + 1]
        place = slice(triangle(n), triangle(n + 1))
        tables.c_t[:, place] = work.rows_t[C_NEXT, :, 0, : n + 1]
        tables.r_t[:, place] = work.rows_t[R_NEXT, :, 0, : n + 1]

    def _moved(self) -> FloatArray:
        """|w_{n+1} - w_n|^2 of a neuron of each group, (G,), from 2 - 2 C_d(n + 1, n)."""
        n, g, sizes = self.rows, self.groups, self.form.sizes
        result, slot = np.zeros(g), 0
        for group in range(g):
            own = self.work.rows_s[C_NEXT, group, n * g + group]
            if sizes[group] > 1:
                inside = self.work.rows_t[C_NEXT, slot, 0, n]
                own = inside + (own - inside) / sizes[group]
                slot += 1
            result[group] = 2.0 - 2.0 * own
        return result

    def reserve(self, capacity: int) -> None:
        """Make room for so many rows."""
        if capacity > self.capacity:
            state = self.state()
            self._allocate(capacity)
            self.restore(state)

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
        g, count = self.groups, len(place)
        correlation = np.zeros((g * g + self.modes, count, count))
        integrated = np.zeros_like(correlation)
        old = np.flatnonzero(place < len(self.merged.s))
        known = place[old]
        correlation[:, old[:, None], old] = self.seen.correlation[:, known[:, None], known]
        integrated[:, old[:, None], old] = self.seen.integrated[:, known[:, None], known]
        for i in range(len(old), count):
            correlation[:, i, : i + 1], integrated[:, i, : i + 1] = self.rows_in_modes(int(place[i]), place[: i + 1])
        correlation[: g * g] = _mirrored(correlation[: g * g], np.arange(g * g).reshape(g, g).T.ravel())
        correlation[g * g :] = _mirrored(correlation[g * g :], np.arange(self.modes))
        if not len(self.merged.s):
            return correlation, integrated, self._residual_correlation(place)
        residual = np.zeros((count, count))
        residual[old[:, None], old] = self.seen.residual[known[:, None], known]
        for i in range(len(old), count):
            residual[i, : i + 1] = self.residual_row(int(place[i]))[place[: i + 1]]
        lower: FloatArray = np.tril(residual)
        return correlation, integrated, lower + np.tril(residual, -1).T

    def rows_in_modes(self, n: int, earlier: IntArray) -> tuple[FloatArray, FloatArray]:
        """(modes, len(earlier)) C and integrated response of row n, which the last thinning has not seen."""
        g, tables = self.groups, self.tables
        block = self._block(tables.c_s, n, earlier).transpose(0, 2, 1).reshape(g * g, len(earlier))
        row = slice(triangle(n), triangle(n + 1))
        lines = [tables.r_s[triangle(n * g + h) : triangle(n * g + h) + n * g] for h in range(g)]
        below = np.stack(lines).reshape(g, n, g)
        modes = np.concatenate([below.transpose(0, 2, 1).reshape(g * g, n), tables.r_t[:, row][:, :n]])
        sums = np.zeros((len(modes), n + 1))
        sums[:, :n] = np.cumsum(modes[:, ::-1], axis=1)[:, ::-1]
        known = len(self.merged.s)
        if known:
            sums[:, :known] = sums[:, :1] - self.of_one_update(modes[:, :known]) @ self.before.T
        return np.concatenate([block, tables.c_t[:, row][:, earlier]]), sums[:, earlier]

    def residual_row(self, n: int) -> FloatArray:
        """(n + 1,) C_r of row n, which the last thinning has not seen: V_nk + R_A,nk (E[r_k^2] - V_kk)."""
        row = slice(triangle(n), triangle(n + 1))
        response, known = self.tables.r_a[row].copy(), len(self.merged.s)
        if known:
            response[:known] = self.of_one_update(response[None, :known])[0]
        square = self.tables.errors[: n + 1, 0]
        result: FloatArray = self.tables.v_r[row] + response * (square - square / self.batch_fraction)
        result[n] = square[n]
        return result

    def of_one_update(self, weighted: FloatArray) -> FloatArray:
        """(F, M) functions with a weight, of later rows, over the updates that the rows stand for."""
        if self._factor is None:
            self._factor = cho_factor(self.mass)
        result: FloatArray = cho_solve(self._factor, weighted.T).T
        return result

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
        """(made - 1, G) |w_{n+1} - w_n|^2 of a neuron of each group."""
        return self.curves.moved[: self.made - 1]

    # -------------------------------------------------------------------------------------------- checkpoints

    def state(self) -> dict[str, Any]:
        """All that is known, as views: the tables may fill the memory."""
        n, made = self.rows, self.made
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
        result["update"] = self.update[:known]
        result |= {f"curve_{name}": curve[:made] for name, curve in self.curves._asdict().items()}
        result |= {f"seen_{name}": table for name, table in self.seen._asdict().items()}
        result |= {f"merged_{name}": table for name, table in self.merged._asdict().items()}
        return result | {"mass": self.mass, "before": self.before}

    def restore(self, state: dict[str, Any]) -> None:
        """Fill the tables from :meth:`state`."""
        self.rows, self.made = len(state["errors"]), len(state["curve_errors"])
        known = len(state["a"])
        if known > self.capacity:
            self._allocate(known)
        self.update[:known] = state["update"]
        self.mass, self.before, self._factor = state["mass"], state["before"], None
        self.merged = Merged(*(state[f"merged_{name}"] for name in Merged._fields))
        self.seen = Seen(*(state[f"seen_{name}"] for name in Seen._fields))
        for name, curve in self.curves._asdict().items():
            curve[: self.made] = state[f"curve_{name}"]
        for name, table in self.tables._asdict().items():
            values = state[name]
            table[tuple(slice(size) for size in values.shape)] = values


def _mirrored(modes: FloatArray, transposed: IntArray) -> FloatArray:
    """Modes that are known below the diagonal, filled above it."""
    return np.tril(modes) + np.triu(modes[transposed].transpose(0, 2, 1), 1)
