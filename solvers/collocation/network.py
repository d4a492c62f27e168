"""The network of exchangeable neurons on one row: modes S and T of C and R, residual sector, second layer.

The equations are those of a group of m neurons (one for each mode X = S, T), with the response of the residuals written
as R_A = delta - K:

    d_t C_X(t,s) = -(nu + l_X) C_X - A(L_X, C_X) - B(L_X, C_X) + A(N_X, R_X) + drive_X
    d_t R_X(t,s) = -(nu + l_X) R_X - B(L_X, R_X)
    K = S_R - B(K, S_R) ,   W = Q - A(K, Q) - B(K, Q) ,   C_r = W - A(W, K)
    A(X, Y) = int_0^s X(t,u) Y(s,u) du ,   B(X, Y) = int_s^t X(t,u) Y(u,s) du

l_X delta(t - s) is the local part of L_X; at s = t R_X = 1, C_d = 1, and C_S(t,t) moves at twice the rate of its first
argument. W is the covariance R_A Q of residual and field. A network of one neuron has no mode T; its equations are
solved along as a copy of S and nothing reads them.
"""

from __future__ import annotations

import numpy as np

from dmft.formulation import Formulation
from solvers.collocation.grid import FloatArray
from solvers.collocation.history import Frame, Layout, pairs
from solvers.collocation.system import RowState, System, derivatives, polynomial

K, C_T, C_S, R_T, R_S, Q, S_R, W, C_RES = range(9)
A, V, NU = range(3)

# Functions of the row that stand first under the integrals, and where the second ones are in the layout's slices.
L_T, L_S, N_T, N_S, FIRST_K, FIRST_W = range(6)
ABOVE_K = 2
RELATIVE_FLOOR = 1e-6
"""e_tr is controlled relatively down to this fraction of its initial value, absolutely below."""
SETTLED = 1e-10
"""C_r(t, t) over its initial value at which it is taken for zero."""
RESIDUAL_NOISE = 1e-2
"""Error of C_r(t, t) by interpolation in x, over the tolerance and its initial value (measured): it does not shrink
with the step, so that the step control must not see it."""


class NetworkSystem(System):
    """Equations of an exchangeable network; see `System`."""

    functions = 9
    unknowns = (K, C_T, C_S, R_T, R_S, W, C_RES)
    layout = Layout(
        slice(0, 6),
        slice(1, 7),
        pairs((L_T, C_T), (L_S, C_S), (N_T, R_T), (N_S, R_S), (FIRST_K, Q), (FIRST_W, K)),
        pairs((L_T, C_T - 1), (L_S, C_S - 1), (L_T, R_T - 1), (L_S, R_S - 1), (ABOVE_K, Q - 1), (ABOVE_K, S_R - 1)),
    )

    def __init__(self, form: Formulation) -> None:
        self._width = float(form.sizes[0])
        self._others = self._width - 1.0
        self._alpha = form.alpha
        self._h = derivatives(form.covariance)
        exponents = form.overlap_exponents[:, 0]
        overlap = np.zeros(int(exponents.max(initial=0)) + 1)
        np.add.at(overlap, exponents, form.overlap_coefficients)
        self._overlap = derivatives(overlap)
        # At finite width m C_o of order one matters (linear fit, 1/m corrections); at infinite width C_o itself does.
        self._collective_floor = 1e-2 * self._width if form.infinite_width else 1.0
        self._offset = form.offset
        self._train = form.train_second_layer
        self._a0, self._v0 = float(form.a0[0]), float(form.v0[0, 0])
        # A small start grows out of a saddle by as much as its errors do: they are relative to it.
        self._start = min(1.0, abs(self._a0)) or 1.0
        self._c_s0 = float(form.correlation_s0[0, 0])
        self._c_t0 = float(form.correlation_t0[0]) if self._others else self._c_s0

    def initial(self) -> tuple[FloatArray, FloatArray]:
        """Values at t = 0, where R = 1 and nothing has moved."""
        m, a, v = self._width, self._a0, self._v0
        other = (self._c_s0 - self._c_t0) / m
        own = other + self._c_t0
        h = [float(polynomial(c, own)) for c in self._h]
        ho = [float(polynomial(c, other)) for c in self._h]
        phi, g = (float(polynomial(self._overlap[i], v)) for i in (0, 1))
        q = self._offset - 2.0 * a * phi + a * a / m * (h[0] + self._others * ho[0])
        s_r = a * a / m * h[1]
        values = np.zeros(9)
        values[[K, C_T, C_S, R_T, R_S]] = s_r, self._c_t0, self._c_s0, 1.0, 1.0
        values[[Q, S_R, W, C_RES]] = q, s_r, q, q
        # C_d(t, t) = 1 at the first instant, when all integrals vanish.
        nu = self._alpha * a * (g * v - a / m * (h[1] * own + self._others * ho[1] * other))
        self._initial_residual = q
        return values, np.array([a, v, nu])

    def fastest_rate(self, values: FloatArray, scalars: FloatArray) -> float:
        """Local rate of the S mode, edge of the bulk of the T modes, and what drives v and a."""
        a, v = abs(scalars[A]), scalars[V]
        other = (values[C_S] - values[C_T]) / self._width if self._others else 0.0
        coupling = self._alpha / self._width * a * a
        h1, h2 = (float(polynomial(self._h[i], 1.0)) for i in (1, 2))
        local = coupling * (h1 + self._others * abs(float(polynomial(self._h[1], other))))
        edge = 2.0 * np.sqrt(coupling * max(values[C_RES], 0.0) * h2)
        drive = self._alpha * (abs(float(polynomial(self._overlap[1], v))) * (1.0 + a) + self._offset)
        return float(local + edge + drive + abs(scalars[NU]))

    def scales(self, frame: Frame) -> tuple[FloatArray, FloatArray]:
        """Sizes that the Jacobian and the errors are measured in."""
        kernel = max(float(np.abs(frame.predicted_values[:, S_R]).max()), 1e-300)
        residual = max(self._initial_residual, 1e-300)
        collective = max(self._collective_floor, abs(float(frame.predicted_values[-1, C_S])))
        functions = np.array([kernel, 1.0, collective, 1.0, 1.0, residual, residual])
        a, v, nu = np.abs(frame.predicted_scalars)
        return functions, np.array(
            [max(self._start, a), max(0.1 * self._start / np.sqrt(self._width), v), max(nu, 1.0 / frame.t)]
        )

    # ---------------------------------------------------------------------------------------- the equations

    def row(self, frame: Frame, unknowns: FloatArray, scalars: FloatArray) -> RowState:
        """Evaluate the equations; see `System.row`."""
        k, c_t, c_s, r_t, r_s, w, c_r = unknowns
        a, v, nu = scalars
        local = _Nodes(self, frame, unknowns, scalars)
        row = np.stack([k, c_t, c_s, r_t, r_s, local.q, local.s_r, w, c_r], axis=1)
        left_below = frame.at_inner(np.stack([local.l_t, local.l_s, local.n_t, local.n_s, k, w], axis=1))
        left_above = frame.at_outer(np.stack([local.l_t, local.l_s, k], axis=1))
        right_below = frame.earlier(row[:, self.layout.inner])
        right_above = frame.between(row[:, self.layout.between])
        below = frame.integrals_below(left_below, right_below).T
        above = frame.integrals_above(left_above, right_above).T
        lead, t, transport, past = frame.derivative[-1], frame.t, frame.grid.transport, frame.past_values
        force_t = (nu + local.rate_t) * c_t + below[0] + above[0] - below[2]
        force_s = (nu + local.rate_s) * c_s + below[1] + above[1] - below[3] - local.drive
        moving = 0.0 if self._settled(frame.newest_diagonal) else 1.0
        motion = [
            (C_T, c_t, moving * force_t),
            (C_S, c_s, moving * force_s),
            (R_T, r_t, (nu + local.rate_t) * r_t + above[2]),
            (R_S, r_s, (nu + local.rate_s) * r_s + above[3]),
        ]
        residual = np.empty((7, len(k)))
        residual[0] = k - local.s_r + above[5]
        for place, (stored, function, force) in enumerate(motion, start=1):
            residual[place] = lead * function + past[:, stored] - transport @ function + t * force
        residual[5] = w - local.q + below[4] + above[4]
        residual[6] = c_r - moving * (w - below[5])
        residual[3:5, -1] = r_t[-1] - 1.0, r_s[-1] - 1.0
        if self._others:
            residual[1, -1] = c_t[-1] - 1.0 + (c_s[-1] - 1.0) / self._others
            residual[2, -1] = lead * c_s[-1] + past[-1, C_S] + 2.0 * t * moving * force_s[-1]
            force = (force_s + self._others * force_t) / self._width
        else:
            residual[1, -1] = c_t[-1] - 1.0
            residual[2, -1] = c_s[-1] - 1.0
            force = force_s
        overlap, gradient = local.overlap
        velocity_a = 0.0
        if self._train:
            response = local.rho * overlap - local.field[-1] + frame.whole @ (k * local.field + c_r * local.reaction)
            velocity_a = moving * self._alpha * response
            residual_a = lead * a + frame.past_scalars[A] - t * velocity_a
        else:
            residual_a = a - self._a0
        force_v = (
            (nu + local.rate_s) * v - self._alpha * a * local.rho * gradient + frame.whole @ (local.l_s * local.v_s)
        )
        residual_v = lead * v + frame.past_scalars[V] + t * moving * force_v
        return RowState(
            residual=np.concatenate([residual.ravel(), [residual_a, residual_v, t * force[-1]]]),
            values=row,
            self_motion=-moving * force,
            speed=float(velocity_a**2),
            energy=0.0,
            under=(left_below, left_above, right_below, right_above),
        )

    def _settled(self, diagonal: FloatArray) -> bool:
        """Whether the data are interpolated up to rounding. Then C_r = 0 and nothing moves; only R goes on."""
        return bool(diagonal[C_RES] <= SETTLED * self._initial_residual)

    def switches(self, before: FloatArray, after: FloatArray) -> bool:
        """Whether the data have just been interpolated."""
        return self._settled(before) != self._settled(after)

    def jacobian(self, frame: Frame, unknowns: FloatArray, scalars: FloatArray, state: RowState) -> FloatArray:
        """Analytic derivative; see `System.jacobian`."""
        k, c_r = unknowns[0], unknowns[6]
        size = len(k)
        total = 7 * size + 3
        local = _Nodes(self, frame, unknowns, scalars)
        left_below, left_above, right_below, right_above = state.under
        result = np.zeros((total, total))
        blocks = result[: 7 * size, : 7 * size].reshape(7, size, 7, size)
        t, nu = frame.t, scalars[NU]
        diagonal = np.arange(size)

        def below(function: int) -> FloatArray:
            return frame.slope_below_left(right_below[:, :, function])

        def above(function: int) -> FloatArray:
            return frame.slope_above_left(right_above[:, :, function - 1])

        # Products whose first factor is made of the unknowns at one node: chain rule.
        by_l_t, by_l_s = local.slopes_l
        by_n_t, by_n_s = local.slopes_n
        first = [below(C_T) + above(C_T), below(C_S) + above(C_S), above(R_T), above(R_S)]
        noise_t, noise_s = below(R_T), below(R_S)
        for i in range(7):
            blocks[1, :, i] += t * (first[0] * by_l_t[i] - noise_t * by_n_t[i])
            blocks[2, :, i] += t * (first[1] * by_l_s[i] - noise_s * by_n_s[i])
            blocks[3, :, i] += t * first[2] * by_l_t[i]
            blocks[4, :, i] += t * first[3] * by_l_s[i]
        # The second factor.
        above_t, above_s = (frame.slope_above_right(left_above[:, :, i]) for i in (L_T, L_S))
        blocks[1, :, 1] += t * (frame.slope_below_right(left_below[:, :, L_T]) + above_t)
        blocks[2, :, 2] += t * (frame.slope_below_right(left_below[:, :, L_S]) + above_s)
        blocks[1, :, 3] -= t * frame.slope_below_right(left_below[:, :, N_T])
        blocks[2, :, 4] -= t * frame.slope_below_right(left_below[:, :, N_S])
        blocks[3, :, 3] += t * above_t
        blocks[4, :, 4] += t * above_s
        blocks[2, :, 0] += t * self._drive_slope(local, scalars)[:, None] * frame.whole
        for i, rate in ((1, local.rate_t), (2, local.rate_s), (3, local.rate_t), (4, local.rate_s)):
            blocks[i, :, i] -= frame.grid.transport
            blocks[i, diagonal, i, diagonal] += frame.derivative[-1] + t * (nu + rate)
        # The residual sector.
        above_k = frame.slope_above_right(left_above[:, :, ABOVE_K])
        by_q = frame.slope_below_right(left_below[:, :, FIRST_K]) + above_k
        blocks[0, :, 0] += above(S_R)
        blocks[5, :, 0] += below(Q) + above(Q)
        if not self._settled(frame.newest_diagonal):
            blocks[6, :, 0] += frame.slope_below_right(left_below[:, :, FIRST_W])
            blocks[6, :, 5] += below(K)
            blocks[6, diagonal, 5, diagonal] -= 1.0
        for i in (0, 5, 6):
            blocks[i, diagonal, i, diagonal] += 1.0
        for i in range(7):
            blocks[0, :, i] += above_k * local.slopes_s_r[i]
            blocks[0, diagonal, i, diagonal] -= local.slopes_s_r[i]
            blocks[5, :, i] += by_q * local.slopes_q[i]
            blocks[5, diagonal, i, diagonal] -= local.slopes_q[i]
        self._scalar_rows(frame, result, size, local, scalars, k, c_r)
        self._edge_rows(frame, result, size)
        self._difference_columns(frame, result, unknowns, scalars, state)
        return result

    def _drive_slope(self, local: _Nodes, scalars: FloatArray) -> FloatArray:
        """Derivative of the S force by K at an earlier time, over the weight of the integral in rho = 1 - int K."""
        return self._width * self._alpha * scalars[A] * local.overlap[1] * local.v_s

    def _edge_rows(self, frame: Frame, result: FloatArray, size: int) -> None:
        """Equations at s = t, and nu from the motion of C_d there. At rest, C only moves along with its arguments."""
        edges = [(i + 1) * size - 1 for i in (1, 2, 3, 4)]
        force_t, force_s = result[edges[0]].copy(), result[edges[1]].copy()
        force_t[edges[0]] -= frame.derivative[-1]
        force_s[edges[1]] -= frame.derivative[-1]
        moving = not self._settled(frame.newest_diagonal)
        if not moving:
            result[[*range(size, 3 * size), 7 * size + A, 7 * size + V]] = 0.0
            for first in (size, 2 * size):
                block = result[first : first + size, first : first + size]
                block -= frame.grid.transport
                block[np.diag_indices(size)] += frame.derivative[-1]
        for edge in edges:
            result[edge] = 0.0
            result[edge, edge] = 1.0
        if self._others:
            result[edges[0], edges[1]] = 1.0 / self._others
            result[edges[1]] = 2.0 * moving * force_s
            result[edges[1], edges[1]] += frame.derivative[-1]
        result[-1] = (force_s + self._others * force_t) / self._width

    def _scalar_rows(
        self,
        frame: Frame,
        result: FloatArray,
        size: int,
        local: _Nodes,
        scalars: FloatArray,
        k: FloatArray,
        c_r: FloatArray,
    ) -> None:
        """Rows of a and v, but for their dependence on the scalars."""
        overlap, gradient = local.overlap
        whole, t, alpha = frame.whole, frame.t, self._alpha
        row_a, row_v = (result[7 * size + i, : 7 * size].reshape(7, size) for i in (A, V))
        if self._train:
            for i in range(7):
                row_a[i] -= t * alpha * whole * (k * local.slopes_field[i] + c_r * local.slopes_reaction[i])
                row_a[i, -1] += t * alpha * local.slopes_field[i][-1]
            row_a[0] -= t * alpha * whole * (local.field - overlap)
            row_a[6] -= t * alpha * whole * local.reaction
        for i in range(7):
            row_v[i] += t * whole * local.v_s * local.slopes_l[1][i]
        row_v[0] += t * alpha * scalars[A] * gradient * whole

    def _difference_columns(
        self, frame: Frame, result: FloatArray, unknowns: FloatArray, scalars: FloatArray, state: RowState
    ) -> None:
        """Columns of a, v, nu, and of C_T(t, t), C_S(t, t), on which the local rates depend: by differences."""
        size = unknowns.shape[1]
        scale_u, scale_s = self.scales(frame)
        step = 1e-6 * scale_s
        for i in (A, V, NU):
            moved = scalars.copy()
            moved[i] += step[i]
            result[:, 7 * size + i] = (self.row(frame, unknowns, moved).residual - state.residual) / step[i]
        for place in (1, 2):
            shifted = unknowns.copy()
            shifted[place, -1] += 1e-6 * scale_u[place]
            difference = self.row(frame, shifted, scalars).residual - state.residual
            result[:, (place + 1) * size - 1] = difference / (1e-6 * scale_u[place])

    def errors(self, frame: Frame, state: RowState, scalars: FloatArray, tolerance: float) -> float:
        """Distance of C, R, a, v and, relatively, e_tr from their prediction."""
        difference = np.abs(state.values - frame.predicted_values)
        functions, sizes = self.scales(frame)
        error = max(float(difference[:, f].max() / functions[f]) for f in (C_T, C_S, R_T, R_S))
        moved = np.abs(scalars - frame.predicted_scalars)[:NU] / sizes[:NU]
        residual, initial = abs(float(state.values[-1, C_RES])), self._initial_residual
        noise = RESIDUAL_NOISE * tolerance * initial
        if state.values[-1, C_RES] < -10.0 * noise:
            return np.inf
        train = max(0.0, float(difference[-1, C_RES]) - noise)
        return max(error, float(moved.max()), train / (residual + RELATIVE_FLOOR * initial + 1e-300))


class _Nodes:
    """Functions of the row that follow from the unknowns at the same node, and their derivatives by them."""

    def __init__(self, system: NetworkSystem, frame: Frame, unknowns: FloatArray, scalars: FloatArray) -> None:
        self._system, self._unknowns, self._a = system, unknowns, float(scalars[A])
        k, c_t, c_s, r_t, r_s, _, c_r = unknowns
        a, v, _ = scalars
        m, others, alpha = system._width, system._others, system._alpha
        past = frame.past_inner_scalars + frame.newest_inner[:, None] * scalars
        self.a_s, self.v_s = past[:, A], past[:, V]
        other = (c_s - c_t) / m if others else np.zeros_like(c_s)
        own = c_t + other if others else c_s
        self._r_o = (r_s - r_t) / m if others else np.zeros_like(r_s)
        self._r_d = r_t + self._r_o if others else r_s
        self._h = [polynomial(c, own) for c in system._h]
        self._ho = [polynomial(c, other) if others else np.zeros_like(own) for c in system._h]
        self._product = a * self.a_s / m
        self._coupling = alpha * self._product
        h, ho, coupling = self._h, self._ho, self._coupling
        self.overlap = tuple(float(polynomial(system._overlap[i], v)) for i in (0, 1))
        seen = polynomial(system._overlap[0], self.v_s)
        self.field = self.a_s / m * (h[0] + others * ho[0])
        self.reaction = self.a_s / m * (h[1] * self._r_d + others * ho[1] * self._r_o)
        self.q = system._offset - a * self.overlap[0] - self.a_s * seen + a * self.field
        self.s_r = a * self.reaction
        memory_d = -coupling * (k * h[1] + c_r * h[2] * self._r_d)
        memory_o = -coupling * (k * ho[1] + c_r * ho[2] * self._r_o)
        self.l_t, self.l_s = memory_d - memory_o, memory_d + others * memory_o
        self.n_t = coupling * c_r * (h[1] - ho[1])
        self.n_s = coupling * c_r * (h[1] + others * ho[1])
        local = alpha / m * a * a
        self.rate_t = float(local * (h[1][-1] - ho[1][-1]))
        self.rate_s = float(local * (h[1][-1] + others * ho[1][-1]))
        self.rho = 1.0 - float(frame.whole @ k)
        self.drive = m * alpha * a * self.rho * self.overlap[1] * self.v_s

    def _chain(
        self,
        by_own: FloatArray,
        by_other: FloatArray,
        by_r_d: FloatArray,
        by_r_o: FloatArray,
        by_k: FloatArray,
        by_c_r: FloatArray,
    ) -> list[FloatArray]:
        """Derivatives by C_d, C_o, R_d, R_o, K, C_r -> by the unknowns K, C_T, C_S, R_T, R_S, W, C_r."""
        zero = np.zeros_like(by_own)
        if not self._system._others:
            return [by_k, zero, by_own, zero, by_r_d, zero, by_c_r]
        share = 1.0 / self._system._width

        def modes(own: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
            return own * (1.0 - share) - other * share, (own + other) * share

        return [by_k, *modes(by_own, by_other), *modes(by_r_d, by_r_o), zero, by_c_r]

    @property
    def slopes_l(self) -> tuple[list[FloatArray], list[FloatArray]]:
        """Of L_T and L_S."""
        k, c_r = self._unknowns[0], self._unknowns[6]
        h, ho, c = self._h, self._ho, self._coupling
        own = -c * (k * h[2] + c_r * h[3] * self._r_d)
        other = -c * (k * ho[2] + c_r * ho[3] * self._r_o)

        def mode(weight: float) -> list[FloatArray]:
            return self._chain(
                own,
                weight * other,
                -c * c_r * h[2],
                -weight * c * c_r * ho[2],
                -c * (h[1] + weight * ho[1]),
                -c * (h[2] * self._r_d + weight * ho[2] * self._r_o),
            )

        return mode(-1.0), mode(self._system._others)

    @property
    def slopes_n(self) -> tuple[list[FloatArray], list[FloatArray]]:
        """Of N_T and N_S."""
        c_r, h, ho, c = self._unknowns[6], self._h, self._ho, self._coupling
        zero = np.zeros_like(c_r)

        def mode(weight: float) -> list[FloatArray]:
            return self._chain(c * c_r * h[2], weight * c * c_r * ho[2], zero, zero, zero, c * (h[1] + weight * ho[1]))

        return mode(-1.0), mode(self._system._others)

    def _weighted(self, factor: FloatArray, order: int) -> tuple[FloatArray, FloatArray]:
        return factor * self._h[order], self._system._others * factor * self._ho[order]

    @property
    def slopes_field(self) -> list[FloatArray]:
        """Of (1/m) sum_l a_l(s) h(C_il)."""
        zero = np.zeros_like(self.a_s)
        return self._chain(*self._weighted(self.a_s / self._system._width, 1), zero, zero, zero, zero)

    @property
    def slopes_reaction(self) -> list[FloatArray]:
        """Of (1/m) sum_l a_l(s) h'(C_il) R_il."""
        zero, factor = np.zeros_like(self.a_s), self.a_s / self._system._width
        own, other = self._weighted(factor, 2)
        return self._chain(own * self._r_d, other * self._r_o, *self._weighted(factor, 1), zero, zero)

    @property
    def slopes_q(self) -> list[FloatArray]:
        """Of Q."""
        return [self._a * slope for slope in self.slopes_field]

    @property
    def slopes_s_r(self) -> list[FloatArray]:
        """Of S_R."""
        return [self._a * slope for slope in self.slopes_reaction]
