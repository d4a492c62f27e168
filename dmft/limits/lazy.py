"""Lazy limits, a = gamma sqrt(m): the linear fit at t = O(1/m), and what follows at t = O(1) and t = O(m).

Theory section 4; [MU] (2.7), (F.5)-(F.27) with the misprints of theory section 10 corrected.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dmft.activations import Activation
from dmft.formulation import FloatArray
from dmft.limits.base import Limit, LimitState, Tools, symmetric_lazy
from dmft.limits.linear_fit import remainder
from dmft.problems.symmetric import SymmetricProblem
from dmft.targets import Target

LARGE_START = 10.0
"""sqrt(m) |v0| from which on the initial overlap is no longer small enough for the linear fit alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LazyLinearLimit(Limit):
    """Lazy network at t = O(1/m): the linear part of the activation fits the linear part of the target.

    With t_1 = m t, r = alpha gamma_0^2 h'(0), w = sqrt(m) v and w_inf = g(0)/(gamma_0 h'(0)):

        w(t_1) = w_inf + (w_0 - w_inf) exp(-r t_1) ,  C_S(t,s) = exp(-r (t_1 + s_1)) + w(t_1).w(s_1) ,
        R_S = exp(-r (t_1 - s_1)) ,  C_T = R_T = 1 ,  R_A = delta ,
        nu = alpha gamma_0 {g(0).w - gamma_0 [h'(1) + h'(0) (C_S - 1)]} ,
        e_tr = e_ts = [tau^2 + |phi|^2 - 2 gamma_0 g(0).w + gamma_0^2 h(1) + gamma_0^2 h'(0) (C_S - 1)]/2

    For pure noise m C_o -> exp(-2 r t_1) - 1. Corrections are of relative order 1/m, or m^(-1/2) if phihat''(0) != 0.

    Parameters
    ----------
    problem : NetworkProblem
        Symmetric, with h'(0) > 0; v0 = O(1/sqrt(m)).

    Raises
    ------
    ValueError, TypeError
        At construction.

    Warns
    -----
    UserWarning
        If v0 is too large for this limit.
    """

    limit: ClassVar[str] = "lazy_linear"
    scale: ClassVar[str] = "t = O(1/m), lazy"

    def _check(self) -> None:
        symmetric_lazy(self.problem, self.limit)
        form = self.formulation()
        start = float(np.linalg.norm(form.v0[0])) * float(np.sqrt(form.width))
        if start > LARGE_START:
            warnings.warn(
                f"limit 'lazy_linear' is for |v0| of order 1/sqrt(m): sqrt(m) |v0| = {start:.3g} is beyond it.",
                UserWarning,
                stacklevel=5,
            )

    def prepare(self, tools: Tools, t_final: float) -> Callable[[FloatArray], LimitState]:
        """Closed form; see `Limit.prepare`."""
        form = self.formulation()
        gamma, fit = symmetric_lazy(self.problem, self.limit)
        m, slope = float(form.width), float(form.covariance[1])
        rate = form.alpha * gamma**2 * slope * m
        gradient, final = slope * fit.learned, fit.learned / gamma
        start = form.v0[0] * np.sqrt(m)
        h_one = float(np.sum(form.covariance))
        slope_one = float(np.arange(len(form.covariance)) @ form.covariance)

        def state(times: FloatArray) -> LimitState:
            decay = np.exp(-rate * times)
            w = final + (start - final) * decay[:, None]
            collective = decay[:, None] * decay + w @ w.T
            pull = w @ gradient
            residual = form.offset - gamma * (pull[:, None] + pull) + gamma**2 * slope * (collective - 1.0)
            residual += gamma**2 * h_one
            error = 0.5 * np.diagonal(residual)
            nu = form.alpha * gamma * (pull - gamma * (slope_one + slope * (np.diagonal(collective) - 1.0)))
            lag = np.tril(times[:, None] - times)
            count = len(times)
            return LimitState(
                a=np.full((count, 1), gamma * np.sqrt(m)),
                v=w[:, None, :] / np.sqrt(m),
                nu=nu[:, None],
                train_error=error.copy(),
                test_error=error.copy(),
                correlation_o=(collective - 1.0)[None, None] / m,
                correlation_t=np.ones((1, count, count)),
                response_s=-np.expm1(-rate * lag)[None, None] / rate,
                response_t=lag[None],
                residual_correlation=residual,
            )

        return state


def width_one(activation: Activation, noise_std: float, alpha: float, gamma: float) -> SymmetricProblem:
    """The single neuron that a lazy network is at t = O(1): fixed second layer gamma, noise tau', covariance ht."""
    return SymmetricProblem(
        width=1,
        alpha=alpha,
        activation=activation,
        target=Target.noise(),
        noise_std=noise_std,
        a0=gamma,
        train_second_layer=False,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class LazyLimit(Limit):
    """Lazy network at t = O(1): every neuron by itself fits what the linear part has left.

    (C_d, R_d) solve the problem of width 1 with h -> ht, a -> gamma_0 fixed, tau -> tau' and no target;
    C_o = (|w_inf|^2 - C_d)/m, R_o = -R_d/m, v = w_inf/sqrt(m). The test error stays at
    e_lin(gamma_0) = [tau'^2 + gamma_0^2 ht(1)]/2, [MU] (2.7), while the train error falls.

    Parameters
    ----------
    problem : NetworkProblem
        Symmetric, with h'(0) > 0 and an activation that is not linear.

    Raises
    ------
    ValueError, TypeError
        At construction.
    """

    limit: ClassVar[str] = "lazy"
    scale: ClassVar[str] = "1/m << t = O(1), lazy"

    def _check(self) -> None:
        symmetric_lazy(self.problem, self.limit)
        self.reduced()

    def reduced(self) -> SymmetricProblem:
        """The problem of width 1, in the same time."""
        gamma, fit = symmetric_lazy(self.problem, self.limit)
        return width_one(remainder(self.problem.activation), fit.noise_std, self.problem.alpha, gamma)

    def prepare(self, tools: Tools, t_final: float) -> Callable[[FloatArray], LimitState]:
        """Solve the problem of width 1; see `Limit.prepare`."""
        gamma, fit = symmetric_lazy(self.problem, self.limit)
        m = float(self.width)
        w = fit.learned / gamma
        single = tools.solve(self.reduced(), t_final)

        def state(times: FloatArray) -> LimitState:
            curves = single.at(times)
            count = len(times)
            own = single.correlation(times[:, None], times)
            return LimitState(
                a=np.full((count, 1), gamma * np.sqrt(m)),
                v=np.broadcast_to(w / np.sqrt(m), (count, 1, len(w))),
                nu=curves.nu[:, None],
                train_error=curves.train_error,
                test_error=curves.test_error,
                correlation_o=(float(w @ w) - own)[None, None] / m,
                correlation_t=own[None],
                response_s=np.zeros((1, 1, count, count)),
                response_t=single.integrated_response(times[:, None], times)[None],
                residual_correlation=single.residual_correlation(times[:, None], times),
            )

        return state
