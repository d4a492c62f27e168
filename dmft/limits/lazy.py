"""Lazy limits, a = gamma sqrt(m): the linear fit at t = O(1/m), and what follows at t = O(1) and t = O(m).

Theory section 4; [MU] (2.7), (F.5)-(F.27) with the misprints of theory section 10 corrected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dmft.activations import Activation
from dmft.formulation import FloatArray
from dmft.limits.base import Limit, LimitState, Tools, symmetric_lazy
from dmft.problems.symmetric import SymmetricProblem
from dmft.targets import Target


@dataclass(frozen=True, kw_only=True, eq=False)
class LazyLinearLimit(Limit):
    """Lazy network at t = O(1/m): the linear part of the activation fits the linear part of the target.

    With t_1 = m t, r = alpha gamma_0^2 h'(0), w = sqrt(m) v and w_inf = g(0)/(gamma_0 h'(0)):

        w(t_1) = w_inf + (w_0 - w_inf) exp(-r t_1) ,  C_S(t,s) = exp(-r (t_1 + s_1)) + w(t_1).w(s_1) ,
        R_S = exp(-r (t_1 - s_1)) ,  C_T = R_T = 1 ,  R_A = delta ,
        e_tr = e_ts = [tau^2 + |phi|^2 - 2 gamma_0 g(0).w + gamma_0^2 h(1) + gamma_0^2 h'(0) (C_S - 1)]/2

    For pure noise m C_o -> exp(-2 r t_1) - 1. Corrections are of relative order 1/m, or m^(-1/2) if phihat''(0) != 0.
    The multiplier nu, of order one here, is not given: it moves nothing before t = O(1), and is reported as 0.

    Parameters
    ----------
    problem : NetworkProblem
        Symmetric, with h'(0) > 0; v0 = O(1/sqrt(m)).

    Raises
    ------
    ValueError, TypeError
        At construction.
    """

    limit: ClassVar[str] = "lazy_linear"
    scale: ClassVar[str] = "t = O(1/m), lazy"

    def _check(self) -> None:
        symmetric_lazy(self.problem, self.limit)

    def prepare(self, tools: Tools, t_final: float) -> Callable[[FloatArray], LimitState]:
        """Closed form; see `Limit.prepare`."""
        form = self.formulation()
        gamma, gradient, slope = symmetric_lazy(self.problem, self.limit)
        m = float(form.width)
        rate = form.alpha * gamma**2 * slope * m
        final = gradient / (gamma * slope)
        start = form.v0[0] * np.sqrt(m)
        h_one = float(np.sum(form.covariance))

        def state(times: FloatArray) -> LimitState:
            decay = np.exp(-rate * times)
            w = final + (start - final) * decay[:, None]
            collective = decay[:, None] * decay + w @ w.T
            pull = w @ gradient
            residual = form.offset - gamma * (pull[:, None] + pull) + gamma**2 * slope * (collective - 1.0)
            residual += gamma**2 * h_one
            error = 0.5 * np.diagonal(residual)
            lag = np.tril(times[:, None] - times)
            count = len(times)
            return LimitState(
                a=np.full((count, 1), gamma * np.sqrt(m)),
                v=w[:, None, :] / np.sqrt(m),
                nu=np.zeros((count, 1)),
                train_error=error.copy(),
                test_error=error.copy(),
                correlation_o=(collective - 1.0)[None, None] / m,
                correlation_t=np.ones((1, count, count)),
                response_s=-np.expm1(-rate * lag)[None, None] / rate,
                response_t=lag[None],
                residual_correlation=residual,
            )

        return state


def remainder(problem: SymmetricProblem, limit: str) -> tuple[Activation, float, FloatArray]:
    """What the linear fit leaves: (ht, tau', g(0)/h'(0)): ht = h - h'(0) z, tau'^2 = tau^2 + |phi|^2 - |g|^2/h'.

    Raises
    ------
    ValueError
        When nothing is left: a linear activation, or no noise at all.
    """
    _, gradient, slope = symmetric_lazy(problem, limit)
    form = problem.formulation()
    covariance = np.array(form.covariance)
    covariance[1] = 0.0
    if not covariance.any():
        raise ValueError(f"limit {limit!r} needs an activation that is not linear.")
    left = float(form.offset - gradient @ gradient / slope)
    if left <= 1e-12 * form.offset:
        raise ValueError(f"limit {limit!r}: the linear fit leaves no residual, tau'^2 = {left:.3g}.")
    return Activation.from_covariance(covariance), float(np.sqrt(left)), gradient / slope


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
        remainder(self.problem, self.limit)  # type: ignore[arg-type]  # symmetric, checked

    def reduced(self) -> SymmetricProblem:
        """The problem of width 1, in the same time."""
        gamma, _, _ = symmetric_lazy(self.problem, self.limit)
        activation, noise, _ = remainder(self.problem, self.limit)  # type: ignore[arg-type]
        return width_one(activation, noise, self.problem.alpha, gamma)

    def prepare(self, tools: Tools, t_final: float) -> Callable[[FloatArray], LimitState]:
        """Solve the problem of width 1; see `Limit.prepare`."""
        gamma, gradient, slope = symmetric_lazy(self.problem, self.limit)
        m = float(self.width)
        w = gradient / (gamma * slope)
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
