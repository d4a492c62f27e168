"""Mean-field network on pure noise at t = O(sqrt(m)): a spherical p-spin model in disguise; [MU] (G.21)-(G.23)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dmft.formulation import FloatArray
from dmft.limits.base import Limit, LimitError, LimitState, Tools, symmetric_lazy
from dmft.limits.linear_fit import remainder
from dmft.problems.pspin import PSpinProblem

GAUSS = 8
"""Nodes of the quadrature on a cell of the p-spin model's rows."""
SHORT = 100.0
"""Time of the p-spin model by which its energy is near its final value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseGrowthLimit(Limit):
    """Pure noise, mean-field initialisation, t = O(sqrt(m)): the second layer starts to grow.

    In the time dt~ = tau sqrt(alpha/m) |a| dt each neuron follows the gradient flow of the spherical mixed p-spin model
    with covariance ht = h - h'(0) z, and with E(t~) its energy

        a^2 = a_0^2 + 2 int |E| dt~ ,   so that da/dt = tau sqrt(alpha/m) |E| and a -> A_inf t/sqrt(m),
        A_inf = tau sqrt(alpha) |E(inf)| ;   e_ts = tau^2/2 ,   e_tr = tau^2/2 - tau a |E|/sqrt(alpha m)

    where e_tr is given to its first order in 1/sqrt(m); times at which that is negative are refused. For
    ht = c^2 z^k, E(inf) = -2 c sqrt((k-1)/k).

    Parameters
    ----------
    problem : NetworkProblem
        Symmetric, pure noise, h'(0) > 0, an activation that is not linear, a0 != 0.

    Raises
    ------
    ValueError, TypeError
        At construction.
    """

    limit: ClassVar[str] = "noise_growth"
    scale: ClassVar[str] = "t = O(sqrt(m)), mean field, pure noise"

    def _check(self) -> None:
        if self.problem.resolved_target().power != 0.0:
            raise ValueError("limit 'noise_growth' needs a target that is noise.")
        symmetric_lazy(self.problem, self.limit)
        remainder(self.problem.activation)

    def reduced(self) -> PSpinProblem:
        """The p-spin model, in the time t~."""
        return PSpinProblem(covariance=remainder(self.problem.activation).covariance)

    def prepare(self, tools: Tools, t_final: float) -> Callable[[FloatArray], LimitState]:
        """Solve the p-spin model and map its time; see `Limit.prepare`."""
        form, spin = self.formulation(), self.reduced()
        m, tau = float(form.width), self.problem.noise_std
        a0, sign = abs(float(form.a0[0])), float(np.sign(form.a0[0]))
        trained = form.train_second_layer
        speed = tau * np.sqrt(form.alpha / m)
        # |E| stays below 2 sqrt(f''(1)), which bounds t~ from above.
        highest = 2.0 * np.sqrt(float(np.polynomial.polynomial.polyval(1.0, _second_derivative(spin.covariance))))
        bound = speed * t_final * (a0 + (0.5 * speed * highest * t_final if trained else 0.0))
        end = max(1.001 * bound, 1e-6)  # at fixed a the bound is sharp: rounding must not cut it
        if end > SHORT:
            # |E| only grows from there on, so that a has used the train error up by a t~ that is known beforehand.
            energy = abs(float(tools.solve(spin, SHORT).energy[-1]))
            largest = 0.5 * tau * np.sqrt(form.alpha * m) / energy
            end = min(end, SHORT + max(largest**2 - a0**2, 0.0) / (2.0 * energy)) if trained else end
        model = tools.solve(spin, end)
        nodes = model.t
        point, weight = np.polynomial.legendre.leggauss(GAUSS)
        step = np.diff(nodes)

        def within(cell: np.ndarray, length: FloatArray) -> tuple[FloatArray, FloatArray]:
            """Increments of int |E| and of t over the beginnings of cells."""
            inside = nodes[cell][:, None] + 0.5 * length[:, None] * (1.0 + point)
            descent = 0.5 * length * (np.abs(model.at(inside.ravel()).energy.reshape(inside.shape)) @ weight)
            # a at the inner points needs the integral of |E| up to there: one more level of the same rule.
            inner = inside - nodes[cell][:, None]
            finer = nodes[cell][:, None, None] + 0.5 * inner[:, :, None] * (1.0 + point)
            energy = np.abs(model.at(finer.ravel()).energy.reshape(finer.shape))
            gained = 0.5 * inner * (energy @ weight)
            a = np.sqrt(a0**2 + 2.0 * trained * (gain[cell][:, None] + gained))
            return descent, 0.5 * length * ((1.0 / a) @ weight) / speed

        gain = np.zeros(len(nodes))
        cells = np.arange(len(step))
        descent, _ = within(cells, step)
        gain = np.concatenate([[0.0], np.cumsum(descent)])
        _, elapsed = within(cells, step)
        clock = np.concatenate([[0.0], np.cumsum(elapsed)])
        gap = tau * np.sqrt(a0**2 + 2.0 * trained * gain) * np.abs(model.energy) / np.sqrt(form.alpha * m)
        spent = np.flatnonzero((gap >= 0.5 * tau**2) & (clock < t_final))
        if len(spent) or clock[-1] < t_final:
            last = clock[spent[0]] if len(spent) else clock[-1]
            raise LimitError(
                f"t = {t_final:g} is beyond t = O(sqrt(m)) = {np.sqrt(m):.4g}: at t = {last:.4g} the first correction "
                "of the train error has used it up"
            )

        def state(times: FloatArray) -> LimitState:
            cell = np.clip(np.searchsorted(clock, times, side="right") - 1, 0, len(step) - 1)
            left = times - clock[cell]
            length = left / elapsed[cell] * step[cell]
            for _ in range(6):  # Newton: dt/dt~ = 1/(speed a) is known, and smooth on the scale of a cell
                descent, reached = within(cell, length)
                a = np.sqrt(a0**2 + 2.0 * trained * (gain[cell] + descent))
                length = np.clip(length + (left - reached) * speed * a, 0.0, step[cell])
            inner = nodes[cell] + length
            a = np.sqrt(a0**2 + 2.0 * trained * (gain[cell] + within(cell, length)[0]))
            curves = model.at(inner)
            count = len(times)
            own = model.correlation(inner[:, None], inner)
            # R(t, s) is the same function of the mapped times; its integral over s has the Jacobian dt/dt~ in it.
            response = model.integrated_response(inner[:, None], inner)
            cells_of_time = np.diff(response, axis=1, append=0.0)
            slope = np.diff(times) / np.maximum(np.diff(inner), 1e-300)
            share = -cells_of_time[:, :-1] * slope
            integrated = np.zeros((count, count))
            integrated[:, :-1] = np.cumsum(share[:, ::-1], axis=1)[:, ::-1]
            integrated = np.tril(integrated, -1)
            gap = tau * a * np.abs(curves.energy) / np.sqrt(form.alpha * m)
            zeros = np.zeros((1, 1, count, count))
            return LimitState(
                a=sign * a[:, None],
                v=np.zeros((count, 1, form.latent_dimension)),
                nu=(curves.nu * speed * a)[:, None],
                train_error=0.5 * tau**2 - gap,
                test_error=np.full(count, 0.5 * tau**2),
                correlation_o=zeros,
                correlation_t=own[None],
                response_s=zeros,
                response_t=integrated[None],
                residual_correlation=np.full((count, count), tau**2),
            )

        return state

    def growth(self, energy: float) -> float:
        """A_inf = tau sqrt(alpha) |E(inf)|: a -> A_inf t/sqrt(m) for an energy E(inf) of the p-spin model."""
        return float(self.problem.noise_std * np.sqrt(self.problem.alpha) * abs(energy))


def _second_derivative(covariance: object) -> FloatArray:
    """Coefficients of f''."""
    return np.asarray(np.polynomial.polynomial.polyder(np.asarray(covariance, dtype=np.float64), 2))
