"""Mean-field limit, t = O(1), and its first correction in 1/m; theory section 4, [MU] (2.10), (3.4), (G.49)-(G.76)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.polynomial.polynomial import polyder, polyval

from dmft._validate import integer
from dmft.formulation import FloatArray, Formulation
from dmft.limits.base import Limit, LimitState, Tools, Trajectory, integrated_responses
from dmft.problems.base import GRAM_TOLERANCE


class Flow(NamedTuple):
    """Population gradient flow of G kinds of neurons with shares p_g, in one extended latent space.

    Overlaps beyond the k latent directions stand for what the neurons of different groups have in common besides
    the target (an initial Gram matrix other than V V^T).
    """

    formulation: Formulation
    share: FloatArray  # (G,)
    extended0: FloatArray  # (G, K)
    phihat: Callable[[FloatArray], FloatArray]  # (N, k) -> (N,)
    gradient: Callable[[FloatArray], FloatArray]  # (N, k) -> (N, k)

    def h(self, q: FloatArray, order: int = 0) -> FloatArray:
        """Derivative of h of the given order."""
        coefficients = self.formulation.covariance
        return np.asarray(polyval(q, polyder(coefficients, order) if order else coefficients))

    def initial(self) -> FloatArray:
        """State (v, a, int nu dt) at t = 0, flat."""
        return np.concatenate([self.extended0.ravel(), self.formulation.a0, np.zeros(len(self.share))])

    def parts(self, state: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Overlaps v (..., G, K), a (..., G) and int nu dt (..., G) of flat states (..., size)."""
        groups, size = self.extended0.shape
        v = state[..., : groups * size].reshape(*state.shape[:-1], groups, size)
        return v, state[..., groups * size : groups * (size + 1)], state[..., groups * (size + 1) :]

    def pull(self, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values phihat (..., G) and gradients (..., G, K) at overlaps v (..., G, K)."""
        k = self.formulation.latent_dimension
        flat = np.ascontiguousarray(v[..., :k]).reshape(-1, k)
        gradient = np.zeros(v.shape)
        gradient[..., :k] = self.gradient(flat).reshape(*v.shape[:-1], k)
        return self.phihat(flat).reshape(v.shape[:-1]), gradient

    def multiplier(self, v: FloatArray, a: FloatArray) -> FloatArray:
        """nu_g = alpha a_g [<g(v_g), v_g> - sum_h p_h a_h h'(C_gh) C_gh], C_gh = v_g . v_h."""
        gram = v @ np.swapaxes(v, -1, -2)
        _, gradient = self.pull(v)
        felt = ((self.h(gram, 1) * gram) @ (self.share * a)[..., None])[..., 0]
        return self.formulation.alpha * a * ((gradient * v).sum(axis=-1) - felt)

    def rhs(self, time: float, state: FloatArray) -> FloatArray:
        """Time derivative of the state, [MU] (2.10) for one group and (3.4) for many."""
        form = self.formulation
        v, a, _ = self.parts(state)
        gram = v @ v.T
        phihat, gradient = self.pull(v)
        weight = self.share * a
        slope = self.h(gram, 1)
        nu = form.alpha * a * ((gradient * v).sum(axis=1) - (slope * gram) @ weight)
        dv = form.alpha * a[:, None] * (gradient - (slope * weight) @ v) - nu[:, None] * v
        da = form.alpha * (phihat - self.h(gram) @ weight) * form.train_second_layer
        return np.concatenate([dv.ravel(), da, nu])


def flow_of(limit: Limit) -> Flow:
    """The population flow of a network problem.

    Raises
    ------
    ValueError
        When the Gram matrix between groups cannot be that of infinitely many neurons.
    """
    form, resolved = limit.formulation(), limit.problem.resolved_target()
    sizes = form.sizes.astype(np.float64)
    roots = np.sqrt(sizes)
    cross = form.correlation_s0 / (roots[:, None] * roots)
    squares = (form.v0**2).sum(axis=1)
    own = np.where(form.sizes > 1, 1.0 - form.correlation_t0, squares)
    np.fill_diagonal(cross, own)
    values, vectors = np.linalg.eigh(cross - form.v0 @ form.v0.T)
    if values[0] < -np.sqrt(GRAM_TOLERANCE):
        raise ValueError(
            f"limit {limit.limit!r}: the overlaps between neurons minus v0 v0^T have the eigenvalue {values[0]:.3g}, "
            "and infinitely many neurons cannot have that."
        )
    kept = values > GRAM_TOLERANCE
    extra = vectors[:, kept] * np.sqrt(values[kept])
    return Flow(
        formulation=form,
        share=sizes / sizes.sum(),
        extended0=np.concatenate([form.v0, extra], axis=1),
        phihat=lambda v: np.asarray(resolved.phihat(v), dtype=np.float64),
        gradient=lambda v: np.asarray(resolved.gradient(v), dtype=np.float64),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanFieldLimit(Limit):
    """m -> infinity at fixed t, alpha and second-layer weights: population gradient flow, [MU] (2.10) and (3.4).

    One group: dv/dt = alpha a (1 - v v^T) (g(v) - a h'(|v|^2) v), da/dt = alpha (phihat(v) - a h(|v|^2)), and
    e_tr = e_ts = [tau^2 + |phi|^2 - 2 a phihat(v) + a^2 h(|v|^2)]/2. Groups of a grouped problem, or neurons of a
    general one, are kinds of neurons with shares m_g/m, so that a distribution of a_i(0) is given by its quantiles.

    Parameters
    ----------
    problem : NetworkProblem
        Of any kind.
    order : {0, 1}
        1 adds the first correction in 1/m to the curves (symmetric problems only): a = a_mf + a_1/m and so on, with
        a_1, v_1, ... from the linear equations of :mod:`dmft.limits.corrections`; they grow linearly in t, so that the
        expansion ends at t = O(m). Two-time functions stay those of leading order.

    Raises
    ------
    ValueError, TypeError
        At construction.
    """

    limit: ClassVar[str] = "mean_field"
    scale: ClassVar[str] = "t = O(1)"

    order: int = 0

    def _check(self) -> None:
        self._set(order=integer("order", self.order, low=0, high=1))
        if self.order == 1 and not self.problem.exchangeable:
            raise ValueError(f"order = 1 needs a symmetric problem, not a {self.problem.kind} one.")
        flow_of(self)

    def _options(self) -> dict[str, Any]:
        return {"order": self.order} if self.order else {}

    def prepare(self, tools: Tools, t_final: float) -> Callable[[FloatArray], LimitState]:
        """Integrate the population flow; see `Limit.prepare`."""
        flow = flow_of(self)
        path = tools.integrate(flow.rhs, flow.initial(), t_final)
        if self.order == 0:
            return lambda times: leading_state(flow, path, times)
        from dmft.limits.corrections import first_order

        correction = first_order(flow, path, tools, t_final)

        def corrected(times: FloatArray) -> LimitState:
            state, first, share = leading_state(flow, path, times), correction(times), 1.0 / self.width
            values = dict(vars(state))
            values["a"] = state.a + share * first.a[:, None]
            values["v"] = state.v + share * first.v[:, None, :]
            values["nu"] = state.nu + share * first.nu[:, None]
            values["train_error"] = state.train_error + share * first.train_error
            values["test_error"] = state.test_error + share * first.test_error
            return LimitState(**values)

        return corrected


def leading_state(flow: Flow, path: Trajectory, times: FloatArray) -> LimitState:
    """Curves and two-time functions of the population flow.

    C_o(t,s) = v(t) . v(s); what is orthogonal to it only shrinks, C_T(t,s) = r(t) r(s) with r^2 = 1 - |v|^2 and
    R_T(t,s) = exp(-int nu); R_A = delta, so that C_r = Q; dR_S/dt = -(nu + M) R_S with
    M_gh = alpha a_g a_h sqrt(p_g p_h) h'(C_gh).
    """
    form, share = flow.formulation, flow.share
    v, a, _ = flow.parts(path(times))
    nu = flow.multiplier(v, a)
    phihat, _ = flow.pull(v)
    cross = np.einsum("tgk,shk->ghts", v, v)
    weighted = a * share
    fit = (phihat * weighted).sum(axis=1)
    residual = form.offset - fit[:, None] - fit[None, :]
    residual += np.einsum("tg,ghts,sh->ts", weighted, flow.h(cross), weighted)
    rest = np.sqrt(np.maximum(1.0 - (v**2).sum(axis=2), 0.0))
    error = 0.5 * np.diagonal(residual)

    def rates(at: FloatArray) -> FloatArray:
        v, a, _ = flow.parts(path(at))
        gram = v @ np.swapaxes(v, 1, 2)
        root = a * np.sqrt(share)
        matrix = form.alpha * root[:, :, None] * root[:, None, :] * flow.h(gram, 1)
        diagonal = np.arange(a.shape[1])
        matrix[:, diagonal, diagonal] += flow.multiplier(v, a)
        return matrix

    def local_rates(at: FloatArray) -> FloatArray:
        v, a, _ = flow.parts(path(at))
        nu = flow.multiplier(v, a)
        matrix = np.zeros((*nu.shape, nu.shape[1]))
        diagonal = np.arange(nu.shape[1])
        matrix[:, diagonal, diagonal] = nu
        return matrix

    diagonal = np.arange(len(share))
    return LimitState(
        a=a,
        v=v[:, :, : form.latent_dimension],
        nu=nu,
        train_error=error.copy(),
        test_error=error.copy(),
        correlation_o=cross,
        correlation_t=np.einsum("tg,sg->gts", rest, rest),
        response_s=integrated_responses(rates, times),
        response_t=integrated_responses(local_rates, times)[diagonal, diagonal],
        residual_correlation=residual,
    )
