"""Lazy network at t = O(m), below its interpolation threshold: gamma grows adiabatically; theory section 4."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.polynomial import Polynomial

from dmft.activations import Activation
from dmft.formulation import FloatArray
from dmft.limits.base import Limit, LimitError, LimitState, Tools, symmetric_lazy
from dmft.limits.lazy import width_one
from dmft.limits.linear_fit import remainder

LEVELS = 9
"""Values of gamma at which the train error of a fixed second layer is computed."""
NEAREST = 0.92
"""The largest of them, as a fraction of the way to the threshold: nearer, relaxation is too slow to extrapolate."""
WAIT = 1e4
"""Time of relaxation at each, over the time scale of the single-neuron problem."""
DECAY = 2.0 / 3.0
"""e_tr(t) - e_tr(inf) ~ t^(-2/3) at fixed gamma, as in the p-spin model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AdiabaticLimit(Limit):
    """Lazy network at t = Theta(m): gamma grows until the data are interpolated.

    The first layer has relaxed to e_tr,inf(gamma), the train error that gradient flow reaches with a fixed second
    layer (`LazyLimit`), and the gradient of the risk with respect to gamma is its slope:

        dgamma/dt = -(alpha/m) d e_tr,inf/dgamma ,  e_tr = e_tr,inf(gamma) ,
        e_ts = e_lin(gamma) = [tau'^2 + gamma^2 ht(1)]/2 ,  v = g(0)/(h'(0) gamma sqrt(m))

    e_tr,inf vanishes as (gamma* - gamma)^2, so that gamma* is approached exponentially. sqrt(e_tr,inf) is a polynomial
    through runs at fixed gamma, each extrapolated in time with t^(-2/3). There are no two-time functions: the first
    layer ages, and only its energy is known.

    Parameters
    ----------
    problem : NetworkProblem
        Symmetric, trained second layer, h'(0) > 0, an activation that is not linear.

    Raises
    ------
    ValueError, TypeError
        At construction.
    """

    limit: ClassVar[str] = "adiabatic"
    scale: ClassVar[str] = "t = Theta(m), lazy, below the interpolation threshold"

    def _check(self) -> None:
        _, fit = symmetric_lazy(self.problem, self.limit)
        remainder(self.problem.activation)
        _ = fit.noise_std  # refuses a problem of which the linear fit leaves nothing
        if not self.problem.train_second_layer:
            raise ValueError("limit 'adiabatic' needs train_second_layer = true: it is about the growth of a.")

    def prepare(self, tools: Tools, t_final: float) -> Callable[[FloatArray], LimitState]:
        """Relax single neurons at fixed gamma, then integrate gamma; see `Limit.prepare`."""
        gamma0, fit = symmetric_lazy(self.problem, self.limit)
        m, sign = float(self.width), float(np.sign(gamma0))
        activation = remainder(self.problem.activation)
        relaxed = relaxed_states(activation, fit.noise_std, self.problem.alpha, abs(gamma0), tools)
        root, threshold = relaxed.root, relaxed.threshold
        rate = self.problem.alpha / m

        def rhs(time: float, state: FloatArray) -> FloatArray:
            gamma = np.minimum(state, threshold)
            return np.asarray(-2.0 * rate * root(gamma) * root.deriv()(gamma))

        path = tools.integrate(rhs, np.array([abs(gamma0)]), t_final)

        def state(times: FloatArray) -> LimitState:
            gamma = np.minimum(path(times)[:, 0], threshold)
            nothing = np.zeros((1, 1, 0, 0))
            return LimitState(
                a=(sign * gamma * np.sqrt(m))[:, None],
                v=sign * fit.learned[None, None, :] / (gamma * np.sqrt(m))[:, None, None],
                nu=np.asarray(relaxed.multiplier(gamma))[:, None],
                train_error=root(gamma) ** 2,
                test_error=fit.test_error(gamma),
                correlation_o=nothing,
                correlation_t=nothing[0],
                response_s=nothing,
                response_t=nothing[0],
                residual_correlation=nothing[0, 0],
            )

        return state


class Relaxed(NamedTuple):
    """Fixed-gamma states after relaxation, as polynomials in gamma from gamma0 on."""

    root: Polynomial  # sqrt(e_tr,inf)
    multiplier: Polynomial  # nu
    threshold: float  # gamma*, the zero of the root


def relaxed_states(activation: Activation, noise_std: float, alpha: float, gamma0: float, tools: Tools) -> Relaxed:
    """Relax single neurons at fixed gamma, up to near the threshold.

    Raises
    ------
    LimitError
        When gamma0 is at or above the threshold, or a run fails.
    """
    curvature = float(np.polynomial.polynomial.polyval(1.0, np.polynomial.polynomial.polyder(activation.covariance, 2)))
    share = 10.0**DECAY

    def relaxed(gamma: float) -> tuple[float, float]:
        """e_tr and nu, extrapolated to infinite time."""
        last = WAIT / (np.sqrt(alpha * curvature) * noise_std * gamma)
        curves = tools.solve(width_one(activation, noise_std, alpha, gamma), last).at([0.1 * last, last])
        error, nu = ((share * one[1] - one[0]) / (share - 1.0) for one in (curves.train_error, curves.nu))
        return float(error), float(nu)

    first, _ = relaxed(gamma0)
    if first <= 1e-4 * noise_std**2:
        raise LimitError(
            f"gamma_0 = {gamma0:g} is above the interpolation threshold, or nearly so (train error {first:.2g} at a "
            "fixed second layer): there is no adiabatic regime"
        )
    gammas, roots = [gamma0], [float(np.sqrt(first))]
    step = 0.05 * gamma0
    guess = np.inf
    while len(gammas) < 60:  # walk towards the zero of the secant, by steps that it bounds
        gamma = min(gammas[-1] + step, gammas[-1] + 0.35 * (guess - gammas[-1]))
        value, _ = relaxed(gamma)
        if value <= 0.0:
            raise LimitError(f"no train error is left at gamma = {gamma:g}, where the extrapolation expected some")
        gammas.append(gamma)
        roots.append(float(np.sqrt(value)))
        slope = (roots[-1] - roots[-2]) / (gammas[-1] - gammas[-2])
        if slope >= 0.0:
            raise LimitError(f"the train error does not fall with gamma at gamma = {gamma:g}")
        guess = gammas[-1] - roots[-1] / slope
        step *= 1.6
        if gammas[-1] - gamma0 > 0.7 * (guess - gamma0):
            break
    ends = gamma0 + NEAREST * (guess - gamma0)
    nodes = 0.5 * (gamma0 + ends) - 0.5 * (ends - gamma0) * np.cos(np.pi * np.arange(LEVELS) / (LEVELS - 1))
    values = np.array([relaxed(float(gamma)) for gamma in nodes])
    root = Polynomial.fit(nodes, np.sqrt(np.maximum(values[:, 0], 0.0)), deg=4)
    zeros = root.roots()
    real = np.sort(zeros[np.abs(zeros.imag) < 1e-9].real)
    later = real[real > ends]
    if len(later) == 0:
        raise LimitError("the train error at fixed second layer has no zero within reach of the extrapolation")
    return Relaxed(root, Polynomial.fit(nodes, values[:, 1], deg=4), float(later[0]))
