"""The rows computed so far, and what is read from them: predictions, scales, two-time matrices, thinning."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from dmft.formulation import Formulation
from dmft.interpolation import value_weights
from solvers.row import (
    DENSE_LIMIT,
    DIRECTION,
    LOCALS,
    NU,
    OVERLAP,
    Q_ROW,
    R_A,
    RESPONSE,
    S_R,
    Acceleration,
    Guess,
    Local,
    Model,
    Tables,
    Work,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ANDERSON_MEMORY = 12
OLDEST = 1e-5
"""Fraction of the newest time below which the past need not be resolved in proportion to its age."""


def compiled_model(formulation: Formulation) -> Model:
    """The formulation as the compiled row equations take it."""
    sizes = formulation.sizes.astype(np.float64)
    slot = np.full(formulation.groups, -1, dtype=np.int64)
    many = np.flatnonzero(formulation.sizes > 1)
    slot[many] = np.arange(len(many))
    return Model(
        sizes=sizes,
        roots=np.sqrt(sizes),
        slot=slot,
        width=float(formulation.width),
        alpha=float(formulation.alpha),
        covariance=np.array(formulation.covariance, dtype=np.float64),
        offset=float(formulation.offset),
        exponents=np.array(formulation.overlap_exponents, dtype=np.int64),
        coefficients=np.array(formulation.overlap_coefficients, dtype=np.float64),
        train_second_layer=bool(formulation.train_second_layer),
        residual_sector=bool(formulation.residual_sector),
    )


class History:
    """Accepted rows of every function, in tables that grow as needed.

    Rows are numbered 0 ... rows - 1 in the tables; after thinning this is fewer than the rows that were computed.
    ``pair_index`` is the index p = row * G + g of the S-mode matrices.
    """

    def __init__(self, formulation: Formulation, capacity: int = 256) -> None:
        self.formulation = formulation
        self.model = compiled_model(formulation)
        self.groups = formulation.groups
        self.latents = formulation.latent_dimension
        self.modes = int((formulation.sizes > 1).sum())
        self.rows = 0
        self.loc = np.zeros(self.groups)  # A of the row in work
        # One A has an exact Newton step; several are accelerated together with all other unknowns.
        self.mixed_loc = self.groups if self.groups > 1 else 0
        self._allocate(capacity)
        g = self.groups
        size = g * g + self.modes
        zeros = np.zeros
        self.local = Local(
            s=zeros((LOCALS, g, g)),
            t=zeros((LOCALS, self.modes)),
            other=zeros((LOCALS, g, g)),
            own=zeros((LOCALS, g + 1)),
            inverse=zeros((g, g + 1, g + 1)),
            dense=zeros((size + 1, size) if size <= DENSE_LIMIT else (1, 1)),
            swap=zeros(g + 1 + g * g + self.modes, dtype=np.int64),
            gradient=zeros((g, self.latents)),
            latent=zeros(self.latents),
        )

    def _allocate(self, capacity: int) -> None:
        g, k, modes, n = self.groups, self.latents, self.modes, capacity
        zeros = np.zeros
        self.capacity = n
        self.t = zeros(n)
        self.nu = zeros((n, g))
        self.c_r = zeros((n, n))
        self.weights = zeros((n, n))
        self.tables = Tables(
            a=zeros((n, g)),
            v=zeros((n, g, k)),
            overlap=zeros((n, g)),
            c_s=zeros((n * g, n * g)),
            c_t=zeros((modes, n, n)),
            r_s=zeros((n * g, n * g)),
            r_t=zeros((modes, n, n)),
            s_r=zeros((n, n)),
            r_a=zeros((n, n)),
            q=zeros((n, n)),
        )
        self.work = Work(
            rows_s=zeros((8, g, n * g)),
            rows_t=zeros((8, modes, n)),
            rows=zeros((8, n)),
            cov_other=zeros((3, n, g, g)),
            cov_own=zeros((3, n, g)),
            vectors=zeros((4, g)),
        )
        self.work.vectors[DIRECTION] = 1.0  # the Newton direction in A: all groups alike
        size = self.unknowns(n - 1)
        self._guess = zeros(size)
        self._image = zeros(size)
        self.memory = Acceleration(
            scale=zeros(size),
            x_steps=zeros((ANDERSON_MEMORY, size)),
            f_steps=zeros((ANDERSON_MEMORY, size)),
            x_last=zeros(size),
            f_last=zeros(size),
            gram=zeros((ANDERSON_MEMORY, ANDERSON_MEMORY)),
            normal=zeros((ANDERSON_MEMORY, ANDERSON_MEMORY + 1)),
            mixed=zeros(ANDERSON_MEMORY),
            order=zeros(ANDERSON_MEMORY, dtype=np.int64),
        )

    def unknowns(self, n: int) -> int:
        """Number of scalars in the fixed-point vector of row n."""
        g = self.groups
        return g * (n + 1) * g + self.modes * (n + 1) + n + 1 + g + g * self.latents + self.mixed_loc

    def views(self, flat: FloatArray, n: int) -> Guess:
        """The named parts of a flat vector of unknowns of row n."""
        g = self.groups
        width = (n + 1) * g
        at_t = g * width
        at_r = at_t + self.modes * (n + 1)
        at_a = at_r + n + 1
        at_v = at_a + g
        end = at_v + g * self.latents
        return Guess(
            flat=flat[: end + self.mixed_loc],
            c_s=flat[:at_t].reshape(g, width),
            c_t=flat[at_t:at_r].reshape(self.modes, n + 1),
            c_r=flat[at_r:at_a],
            a=flat[at_a:at_v],
            v=flat[at_v:end].reshape(g, self.latents),
            loc=flat[end : end + self.mixed_loc],
        )

    def guess(self) -> Guess:
        """Views of the iterate of the row to come."""
        return self.views(self._guess, self.rows)

    def image(self) -> Guess:
        """Views of its image under the map."""
        return self.views(self._image, self.rows)

    def scale(self) -> Guess:
        """Views of the reciprocal natural sizes of its unknowns."""
        return self.views(self.memory.scale, self.rows)

    def reserve(self) -> None:
        """Make room for one more row."""
        if self.rows < self.capacity:
            return
        self._reallocate(int(1.6 * self.capacity) + 16)

    def _reallocate(self, capacity: int) -> None:
        state = self.state()
        self._allocate(capacity)
        self.restore(state)

    def state(self) -> dict[str, Any]:
        """Copies of all rows, for checkpoints and reallocation."""
        n, p = self.rows, self.rows * self.groups
        tables = self.tables
        return {
            "t": self.t[:n].copy(),
            "nu": self.nu[:n].copy(),
            "c_r": self.c_r[:n, :n].copy(),
            "weights": self.weights[:n, :n].copy(),
            "a": tables.a[:n].copy(),
            "v": tables.v[:n].copy(),
            "overlap": tables.overlap[:n].copy(),
            "c_s": tables.c_s[:p, :p].copy(),
            "c_t": tables.c_t[:, :n, :n].copy(),
            "r_s": tables.r_s[:p, :p].copy(),
            "r_t": tables.r_t[:, :n, :n].copy(),
            "s_r": tables.s_r[:n, :n].copy(),
            "r_a": tables.r_a[:n, :n].copy(),
            "q": tables.q[:n, :n].copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Fill the tables from :meth:`state`."""
        n = len(state["t"])
        if n > self.capacity:
            self._allocate(int(1.3 * n) + 16)
        p = n * self.groups
        self.rows = n
        self.t[:n] = state["t"]
        self.nu[:n] = state["nu"]
        self.c_r[:n, :n] = state["c_r"]
        self.weights[:n, :n] = state["weights"]
        tables = self.tables
        tables.a[:n] = state["a"]
        tables.v[:n] = state["v"]
        tables.overlap[:n] = state["overlap"]
        tables.c_s[:p, :p] = state["c_s"]
        tables.r_s[:p, :p] = state["r_s"]
        tables.c_t[:, :n, :n] = state["c_t"]
        tables.r_t[:, :n, :n] = state["r_t"]
        tables.s_r[:n, :n] = state["s_r"]
        tables.r_a[:n, :n] = state["r_a"]
        tables.q[:n, :n] = state["q"]

    def extrapolate(self, weights: FloatArray, out: Guess) -> None:
        """Predict row ``rows`` of C, C_r, a and V from the newest rows (``weights`` newest first) into ``out``."""
        n, g = self.rows, self.groups
        tables = self.tables
        out.flat[:] = 0.0
        for i, weight in enumerate(weights):
            r = n - 1 - i
            block = slice(r * g, (r + 1) * g)
            out.c_s[:, : n * g] += weight * tables.c_s[block, : n * g]
            out.c_s[:, n * g :] += weight * tables.c_s[block, block]
            out.c_t[:, :n] += weight * tables.c_t[:, r, :n]
            out.c_t[:, n] += weight * tables.c_t[:, r, r]
            out.c_r[:n] += weight * self.c_r[r, :n]
            out.c_r[n] += weight * self.c_r[r, r]
            out.a[:] += weight * tables.a[r]
            out.v[:] += weight * tables.v[r]

    def append(self, time: float, row: Guess, derivative: FloatArray) -> None:
        """Accept the row in ``row`` and ``work`` as number ``rows``; ``derivative`` are its multistep weights.

        ``weights`` is the inverse of the multistep derivative: ``sum_k weights[n, k] g(t_k)`` is the scheme's own
        quadrature of g over [0, t_n]. The response row is a density times these weights.
        """
        n, g = self.rows, self.groups
        width = (n + 1) * g
        block = slice(n * g, width)
        tables, work = self.tables, self.work
        self.t[n] = time
        self.nu[n] = work.vectors[NU]
        tables.a[n] = row.a
        tables.v[n] = row.v
        tables.overlap[n] = self.local.own[OVERLAP, :g]
        tables.c_s[block, :width] = row.c_s
        tables.c_s[:width, block] = row.c_s.T
        tables.c_t[:, n, : n + 1] = row.c_t
        tables.c_t[:, : n + 1, n] = row.c_t
        self.c_r[n, : n + 1] = row.c_r
        self.c_r[: n + 1, n] = row.c_r
        tables.r_s[block, :width] = work.rows_s[RESPONSE, :, :width]
        tables.r_t[:, n, : n + 1] = work.rows_t[RESPONSE, :, : n + 1]
        tables.r_a[n, : n + 1] = work.rows[R_A, : n + 1]
        tables.s_r[n, : n + 1] = work.rows[S_R, : n + 1]
        tables.q[n, : n + 1] = work.rows[Q_ROW, : n + 1]
        tables.q[: n + 1, n] = work.rows[Q_ROW, : n + 1]
        past = self.weights[n - np.arange(1, len(derivative))]
        self.weights[n] = -(derivative[1:] @ past) / derivative[0]
        self.weights[n, n] = 1.0 / derivative[0]
        self.rows = n + 1

    def integrated(self, response: FloatArray) -> FloatArray:
        """F(t_n, t_j) = int_{t_j}^{t_n} R(t_n, u) du from the rows R_nk of one causal function, (rows, rows).

        R_nk itself is a density times the scheme's quadrature weights W_nk, so that for the integral up to t_j the
        same density is summed with the weights of row j: F_nj = sum_k R_nk (1 - W_jk / W_nk).
        """
        n = self.rows
        weights = self.weights[:n, :n]
        density = np.divide(response, weights, out=np.zeros((n, n)), where=weights != 0.0)
        total = response.sum(axis=1)
        result: FloatArray = np.tril(total[:, None] - density @ weights.T)
        np.fill_diagonal(result, 0.0)
        return result

    def thin(self, keep: IntArray, degree: int = 5) -> None:
        """Drop the rows not in ``keep``; responses to fields at dropped times move to kept ones by interpolation.

        For a smooth field b, ``sum_k R_nk b(t_k)`` must not change, so the weight of a dropped time goes to its
        neighbours with the weights that interpolate b there, using kept times up to t_n only (causality).
        Correlations are simply restricted.
        """
        n, g = self.rows, self.groups
        state = self.state()
        kept_times = state["t"][keep]
        position = np.searchsorted(keep, np.arange(n))
        dropped = np.setdiff1d(np.arange(n), keep)
        pairs = (keep[:, None] * g + np.arange(g)).ravel()
        causal = {
            "r_s": state["r_s"].reshape(n, g, n, g)[keep],
            "r_t": np.moveaxis(state["r_t"], 0, -1)[keep],
            "s_r": state["s_r"][keep],
            "weights": state["weights"][keep],
        }
        for k in dropped:
            first_later = int(position[k])
            low = max(0, first_later - (degree + 1) // 2)
            high = min(len(keep), low + degree + 1)
            # Rows below the top of the centred stencil see a stencil that ends at themselves.
            stencils = [(row, max(0, row - degree), row + 1, row + 1) for row in range(first_later, high - 1)]
            stencils.append((high - 1, low, high, len(keep)))
            for first_row, start, stop, last_row in stencils:
                weights = value_weights(kept_times[start:stop], float(state["t"][k]))
                rows = slice(first_row, last_row)
                causal["r_s"][rows, :, keep[start:stop], :] += (
                    weights[None, None, :, None] * causal["r_s"][rows, :, k, :][:, :, None, :]
                )
                causal["r_t"][rows, keep[start:stop]] += weights[None, :, None] * causal["r_t"][rows, k][:, None]
                for name in ("s_r", "weights"):
                    causal[name][rows, keep[start:stop]] += weights[None, :] * causal[name][rows, k][:, None]
        m = len(keep)
        thinned = {name: state[name][keep] for name in ("t", "nu", "a", "v", "overlap")}
        thinned["c_r"] = state["c_r"][np.ix_(keep, keep)]
        thinned["q"] = state["q"][np.ix_(keep, keep)]
        thinned["c_s"] = state["c_s"][np.ix_(pairs, pairs)]
        thinned["c_t"] = state["c_t"][:, keep][:, :, keep]
        thinned["r_s"] = causal["r_s"][:, :, keep].reshape(m * g, m * g)
        thinned["r_t"] = np.moveaxis(causal["r_t"][:, keep], -1, 0)
        thinned["s_r"] = causal["s_r"][:, keep]
        # Not the interpolated rows but the exact inverse of the thinned kernel: a late C_r = R_A Q R_A^T is so small
        # that it exists only by the cancellation that (1 + S_R) R_A = 1 brings.
        thinned["r_a"] = np.tril(solve_triangular(np.eye(m) + thinned["s_r"], np.eye(m), lower=True))
        thinned["weights"] = causal["weights"][:, keep]
        for array in (self.weights, self.tables.r_s, self.tables.r_t, self.tables.s_r, self.tables.r_a):
            array[...] = 0.0
        self.restore(thinned)


def rows_to_keep(times: FloatArray, spacing: float, newest: int = 24) -> IntArray:
    """Rows that resolve two-time functions at the newest time t: gaps at most ``spacing * min(u, t - u)``.

    The ``newest`` rows and the first one are always kept (the multistep formula and the predictor need them).
    """
    n = len(times)
    t = times[-1]
    keep = [0]
    for k in range(1, n - newest):
        u = times[k]
        if times[k + 1] - times[keep[-1]] > spacing * min(u + OLDEST * t, t - u):
            keep.append(k)
    keep.extend(range(max(1, n - newest), n))
    return np.array(keep, dtype=np.int64)
