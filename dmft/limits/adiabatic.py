"""Lazy network at t = O(m), below its interpolation threshold: gamma grows adiabatically; theory section 4."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.polynomial import Polynomial

from dmft.activations import Activation
from dmft.formulation import FloatArray
from dmft.limits.base import Limit, LimitError, LimitState, Tools, symmetric_lazy
from dmft.limits.lazy import remainder, width_one

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
        symmetric_lazy(self.problem, self.limit)
        remainder(self.problem, self.limit)  # type: ignore[arg-type]  # symmetric, checked
        if not self.problem.train_second_layer:
            raise ValueError("limit 'adiabatic' needs train_second_layer = true: it is about the growth of a.")

    def prepare(self, tools: Tools, t_final: float) -> Callable[[FloatArray], LimitState]:
        """Relax single neurons at fixed gamma, then integrate gamma; see `Limit.prepare`."""
        gamma0, _, _ = symmetric_lazy(self.problem, self.limit)
        activation, noise, linear = remainder(self.problem, self.limit)  # type: ignore[arg-type]
        m, sign = float(self.width), float(np.sign(gamma0))
        root, threshold = residual_root(activation, noise, self.problem.alpha, abs(gamma0), tools)
        rate = self.problem.alpha / m

        def rhs(time: float, state: FloatArray) -> FloatArray:
            gamma = np.minimum(state, threshold)
            return np.asarray(-2.0 * rate * root(gamma) * root.deriv()(gamma))

        path = tools.integrate(rhs, np.array([abs(gamma0)]), t_final)
        height = float(np.sum(np.asarray(activation.covariance)))

        def state(times: FloatArray) -> LimitState:
            gamma = np.minimum(path(times)[:, 0], threshold)
            count, groups = len(times), 1
            nothing = np.zeros((groups, groups, 0, 0))
            return LimitState(
                a=(sign * gamma * np.sqrt(m))[:, None],
                v=sign * linear[None, None, :] / (gamma * np.sqrt(m))[:, None, None],
                nu=np.zeros((count, 1)),
                train_error=root(gamma) ** 2,
                test_error=0.5 * (noise**2 + gamma**2 * height),
                correlation_o=nothing,
                correlation_t=nothing[0],
                response_s=nothing,
                response_t=nothing[0],
                residual_correlation=nothing[0, 0],
            )

        return state


def residual_root(
    activation: Activation, noise_std: float, alpha: float, gamma0: float, tools: Tools
) -> tuple[Polynomial, float]:
    """sqrt(e_tr,inf) as a polynomial in gamma from gamma0 on, and its zero gamma*.

    Raises
    ------
    LimitError
        When gamma0 is at or above the threshold, or a run fails.
    """

    def relaxed(gamma: float) -> float:
        problem = width_one(activation, noise_std, alpha, gamma)
        curvature = float(
            np.polynomial.polynomial.polyval(
                1.0, np.polynomial.polynomial.polyder(np.asarray(activation.covariance), 2)
            )
        )
        scale = 1.0 / (np.sqrt(alpha * curvature) * noise_std * gamma)
        last = WAIT * scale
        errors = tools.solve(problem, last).at([0.1 * last, last]).train_error
        share = 10.0**DECAY
        return float((share * errors[1] - errors[0]) / (share - 1.0))

    first = relaxed(gamma0)
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
        value = relaxed(gamma)
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
    values = np.array([float(np.sqrt(max(relaxed(float(gamma)), 0.0))) for gamma in nodes])
    root = Polynomial.fit(nodes, values, deg=4)
    zeros = root.roots()
    real = np.sort(zeros[np.abs(zeros.imag) < 1e-9].real)
    later = real[real > ends]
    if len(later) == 0:
        raise LimitError("the train error at fixed second layer has no zero within reach of the extrapolation")
    return root, float(later[0])
