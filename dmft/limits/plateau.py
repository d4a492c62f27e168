"""The plateau of an infinitely wide network on an index target, and where it ends.

At fixed abar = n/d a wide network that has learnt its target does not come to rest. C_o, C_r, a and v become constant,
but what neurons have apart from each other (the T modes) is pushed about by the noise of the samples: it is a spherical
mixed p-spin model of covariance f, on a sphere of square radius 1 - q, q = C_o(t,t),

    f'(c) = eps^2 a^2 [h'(q + c) - h'(q)] ,   eps^2 = rho^2 Q/abar ,   Q = tau^2 + |phi|^2 - 2 a phihat(v) + a^2 h(q) ,

with rho = 1/(1 + sigma), sigma = int S_R. Gradient flow of such a model stays marginal: with C_T = 1 - q at times near
each other, the fast part of R_T integrates to chi, and the slow (aging) part is x dC_T/ds. From docs/limits.md, section
on m -> infinity at fixed n/d:

    chi = 1/sqrt(f''(1 - q)) = 1/(eps a sqrt(h''(1))) ,   nu = 2 eps a sqrt(h''(1))
    x (1 - q) f'(1 - q) = nu (1 - q) - [f''(1 - q) (1 - q) + f'(1 - q)] chi          (norm of the T modes)
    1/chi_S = nu + a^2 rho h'(q) - eps^2 a^2 { h''(1) chi + x [h'(1) - h'(q)] + h''(q) r }
    v = chi_S a rho g(v) ,   q = v^2 + eps^2 a^2 h'(q) chi_S^2
    0 = rho [phihat(v) - a h(q)] + eps^2 a { h'(1) chi + x [h(1) - h(q)] + h'(q) r }
    sigma = (a^2/abar) { h'(1) chi + x [h(1) - h(q)] + h'(q) r } ,   r = chi_S - chi - x (1 - q)

chi_S is the static response of the mean over the neurons. With a single ratio x for the whole aging regime this is the
ansatz of Cugliandolo and Kurchan (Phys. Rev. Lett. 71, 173, 1993), which takes the T modes to their threshold states:
so it is for pure p-spin models, while mixed ones need not end there (Folena, Franz and Ricci-Tersenghi, Phys. Rev. X
10, 031045, 2020). For h of second degree the model has p = 2 and x = 0.

Where x so found is below -chi'(1), chi(c) = 1/(eps a sqrt(h''(c))), as it is if h''^(-1/2) is concave (relu), one ratio
is not enough: it is larger for times nearer each other. As in the Sherrington-Kirkpatrick model (Cugliandolo and
Kurchan, J. Phys. A 27, 5749, 1994; statics of spherical models: Crisanti and Leuzzi, Phys. Rev. B 73, 014412, 2006)
every level c, the overlap of two neurons at different times, is marginal from some c_1 on: X(c) = -chi'(c) for c > c_1.
Below it is x, which the norm gives as above with c_1 in the place of 1; c_1 is where X is continuous, or q. Then

    int_c1^1 X dc = chi(c_1) - chi ,   int_c1^1 X h'' dc = [sqrt(h''(1)) - sqrt(h''(c_1))]/(eps a) ,
    h'(1) chi + int_c1^1 X h' dc = h'(c_1) chi(c_1) + int_c1^1 sqrt(h'') dc/(eps a)

take the place of the terms with x from c_1 on. All that is left of h''(1) then is nu: the rest has a limit if h''(1) is
infinite but sqrt(h'') can be integrated.

Where that starts at abar -> infinity depends on the fixed point of the population flow. With phihat = c h it is v = 1
and nothing holds neurons together there: 1 - q, 1 - v and a - c are of order eps. With v < 1 they are apart from the
first, q = v^2. If v = 1 and the target holds them, nu = a [g(1) - a h'(1)] > 0, they stay all alike, q = 1, as long as
nu > 2 eps a sqrt(h''(1)); then nu is free instead of q, and x (1 - q) = 0.

As abar falls, all distances from the truth grow, and at a fold the solution ends. Below it
nothing holds the network: it unlearns its target and interpolates. The fold is the predicted optimization threshold
abar_c. For tau^2 much above |phi|^2, sigma -> 0 and Q -> tau^2, so that only eps^2 = tau^2/abar is left, and abar_c
grows as tau^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmft._validate import real, shown
from dmft.activations import Activation
from dmft.formulation import FloatArray
from dmft.limits.base import LimitError
from dmft.targets import Target

_FAR = 1e7
"""abar eps^2 where a branch starts: all distances from the truth are below 1e-3 there."""
_STEP, _STEPS = 0.3, 2000
"""Arc length of a step, in (a, v, q, chi_S, sigma, ln abar), and the number of steps after which we give up."""
_ALIKE = 1e-7
"""1 - q below which neurons are all alike."""
_LEVELS = 100
"""Levels c from 0 to 1 at which continuous aging is looked for, denser towards 1."""
_CONTINUOUS = 1e-7
"""Relative difference between x and X from which on they are not the same."""
_SEEN = 3e-3
"""c - q from which on it is seen through rounding."""
_NODES = 96
"""Points of the integral over them."""
_ITERATIONS, _CLOSE = 30, 1e-10
"""Newton steps, and residual at which they end."""


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """A plateau; errors are halves of mean squares, times are t_mf = alpha t.

    Attributes
    ----------
    sample_ratio : float
        abar = n/d.
    a, v, overlap : float
        Second layer, overlap with the target direction, overlap q of two different neurons.
    train_error, test_error : float
        e_tr = rho^2 Q/2, e_ts = Q/2.
    nu : float
        Multiplier of the spherical constraint; the T modes relax at rates from 0 to 2 nu.
    noise : float
        eps = rho sqrt(Q/abar), the strength of the noise of the samples.
    response : float
        chi, integrated fast response of the T modes.
    mean_response : float
        chi_S, integrated response of the mean over the neurons.
    aging_ratio : float
        x; 0 for h of second degree.
    aging_level : float
        c_1, overlap up to which the aging ratio is x, and grows continuously beyond; 1 where one ratio is all.
    """

    sample_ratio: float
    a: float
    v: float
    overlap: float
    train_error: float
    test_error: float
    nu: float
    noise: float
    response: float
    mean_response: float
    aging_ratio: float
    aging_level: float


@dataclass(frozen=True)
class _Glass:
    """rho, Q, eps^2 a^2, nu, chi at the shortest times, and the aging from q to 1.

    ``level`` is c_1, ``ratio`` x, ``marginal`` chi(c_1), ``area`` int_c1^1 sqrt(h'') dc/(eps a).
    """

    rho: float
    risk: float
    strength: float
    nu: float
    chi: float
    level: float
    ratio: float
    marginal: float
    area: float


def plateau(activation: Activation, target: Target, noise_std: float, sample_ratio: float) -> Plateau:
    """The plateau of an infinitely wide network at n/d = ``sample_ratio``.

    Parameters
    ----------
    activation, target, noise_std
        As in :class:`~dmft.problems.infinite_width.InfiniteWidthProblem`. The target has one latent direction.
    sample_ratio : float
        abar = n/d.

    Raises
    ------
    TypeError, ValueError
        Bad arguments, or a ``sample_ratio`` below the threshold, where there is no plateau.
    LimitError
        (a RuntimeError) if the equations cannot be solved.
    """
    sample_ratio = real("sample_ratio", sample_ratio, low=0.0, open_low=True)
    equations = _Equations(activation, target, noise_std)
    level = math.log(sample_ratio)
    states = equations.branch(level)
    if states[-1, -1] > level:
        raise ValueError(
            f"sample_ratio must be above {math.exp(states[-1, -1]):.6g}, where the plateau ends, not {sample_ratio:g}."
        )
    return equations.describe(states[-1])


def predicted_threshold(
    activation: Activation, target: Target, noise_std: float, *, single_ratio: bool = False
) -> float:
    """abar_c, the n/d at which the plateau ends.

    Parameters and errors as in `plateau`.

    Parameters
    ----------
    single_ratio : bool
        One ratio for the whole aging regime even where it is not stable, for comparison.
    """
    return threshold_plateau(activation, target, noise_std, single_ratio=single_ratio).sample_ratio


def threshold_plateau(
    activation: Activation, target: Target, noise_std: float, *, single_ratio: bool = False
) -> Plateau:
    """The last plateau, at n/d = abar_c; parameters and errors as in `predicted_threshold`."""
    equations = _Equations(activation, target, noise_std, single_ratio)
    return equations.describe(equations.branch()[-1])


class _Series:
    """A polynomial, for many evaluations at single points."""

    def __init__(self, coefficients: FloatArray) -> None:
        self._coefficients = coefficients
        self._powers = np.arange(len(coefficients))

    def __call__(self, x: float) -> float:
        return float(self._coefficients @ x**self._powers)

    def many(self, x: FloatArray) -> FloatArray:
        """At many points."""
        return np.asarray(np.polynomial.polynomial.polyval(x, self._coefficients), dtype=np.float64)


def _derivative(coefficients: FloatArray) -> FloatArray:
    return np.asarray((np.arange(len(coefficients)) * coefficients)[1:])


def _single(c: Any, q: float, curvature: Any, rise: Any) -> Any:
    """One ratio from q up to c > q by the norm, in units of 1/(eps a), from h''(c) and h'(c) - h'(q)."""
    return (curvature * (c - q) - rise) / (np.sqrt(curvature) * rise * (c - q))


class _Equations:
    """The equations above in y = (a, v, q, chi_S, sigma, ln abar).

    Where all neurons are alike, the third is not q = 1 but 1 + nu - 2 eps a sqrt(h''(1)), their distance to parting.
    """

    def __init__(self, activation: Activation, target: Target, noise_std: float, single_ratio: bool = False) -> None:
        self._single_ratio = single_ratio
        if not isinstance(activation, Activation):
            raise TypeError(f"activation must be a dmft.Activation, not {shown(activation)}.")
        if not isinstance(target, Target):
            raise TypeError(f"target must be a dmft.Target, not {shown(target)}.")
        self.tau = real("noise_std", noise_std, low=0.0, open_low=True)
        resolved = target.resolve(activation)
        self.power = float(resolved.power)
        if resolved.latent_dimension != 1:
            raise ValueError(f"target must have one latent direction, not {resolved.latent_dimension}.")
        phihat = np.zeros(int(resolved.exponents.max(initial=1)) + 1)
        np.add.at(phihat, resolved.exponents[:, 0], resolved.coefficients)
        # -U is as good a direction as U; the equations are solved for the one that v grows along.
        self._sign = -1.0 if phihat[1] < 0.0 else 1.0
        phihat[1::2] *= self._sign
        self._phihat = _Series(phihat)
        self._slope = _Series(_derivative(phihat))
        covariance = np.array(activation.covariance)
        self._h = _Series(covariance)
        self._dh = _Series(_derivative(covariance))
        self._d2h = _Series(_derivative(_derivative(covariance)))
        third = _derivative(_derivative(_derivative(covariance)))
        self._d3h = _Series(third if len(third) else np.zeros(1))
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        self._nodes, self._weights = 0.5 * (nodes + 1.0), 0.5 * weights
        if not self._slope(0.0):
            raise ValueError("target must have a linear part that the activation sees, g(0) != 0, or is never learnt.")
        if not np.any(activation.covariance[2:]):
            raise ValueError("activation must not be linear: linear neurons are all alike once they have learnt.")
        levels = 1.0 - np.linspace(0.0, 1.0, _LEVELS + 1)[:-1] ** 2
        d2h = self._d2h.many(levels)
        self._table = levels, self._dh.many(levels), d2h, 0.5 * self._d3h.many(levels) / d2h**1.5

    def branch(self, stop: float = -math.inf) -> FloatArray:
        """States from n/d -> infinity down to ln abar = ``stop`` or to the fold, whichever comes first.

        Raises
        ------
        LimitError
            When Newton's method fails, or no end is found.
        """
        y = self._start(max(stop + 1.0, math.log(_FAR * self.tau**2)))
        along = np.zeros(6)
        along[-1] = -1.0
        states = [y]
        step = _STEP
        for _ in range(_STEPS):
            tangent = self._tangent(y, along)
            if tangent[-1] >= 0.0:
                raise LimitError("the plateau could not be followed: its fold was stepped over.")
            if y[-1] + step * tangent[-1] < stop:
                axis = np.zeros(6)
                axis[-1] = 1.0
                guess = y + tangent * (stop - y[-1]) / tangent[-1]
                try:
                    return np.array([*states, self._newton(guess, axis)])
                except LimitError:  # the fold may be between
                    pass
            try:
                new = self._newton(y + step * tangent, tangent)
                turn = self._tangent(new, tangent)
            except LimitError:
                if step < 1e-6 * _STEP:
                    raise
                step *= 0.5
                continue
            if turn[-1] >= 0.0:
                states.append(self._fold(y, tangent, step))
                return np.array(states)
            # Bends are followed in small steps, so that no other solution is taken for this one.
            if turn @ tangent < 0.97 and step > 1e-3 * _STEP:
                step *= 0.5
                continue
            y, along, step = new, tangent, min(_STEP, 1.3 * step)
            states.append(y)
        raise LimitError("the plateau could not be followed to its end.")

    def describe(self, y: FloatArray) -> Plateau:
        """A state in words."""
        a, v, q, mean_response, _, level = (float(x) for x in y)
        q = min(q, 1.0)
        glass = self._glass(y)
        return Plateau(
            sample_ratio=math.exp(level),
            a=a,
            v=self._sign * v,
            overlap=q,
            train_error=float(0.5 * glass.rho**2 * glass.risk),
            test_error=float(0.5 * glass.risk),
            nu=float(glass.nu),
            noise=math.sqrt(glass.strength) / a,
            response=float(glass.chi),
            mean_response=mean_response,
            aging_ratio=float(glass.ratio),
            aging_level=float(glass.level),
        )

    def _start(self, level: float) -> FloatArray:
        """The state at a large n/d, next to the fixed point of the population flow that is reached from v = 0.

        Distances from it vanish as eps.
        """
        a, v, held = self._learnt()
        axis = np.zeros(6)
        axis[-1] = 1.0
        risk = self.tau**2 + self.power - 2.0 * a * self._phihat(v) + a**2 * self._h(v**2)
        eps = math.sqrt(risk) * math.exp(-0.5 * level)
        for distance in np.geomspace(0.03, 30.0, 13) * eps:
            near = min(v, 1.0 - distance)
            third = 1.0 + held if held > 0.0 else near if v == 1.0 else v**2
            guess = np.array([a * (1.0 + distance), near, third, v / (a * self._slope(v)), 0.0, level])
            try:
                y = self._newton(guess, axis, damped=True)
            except LimitError:
                continue
            if abs(v**2 + held - y[2]) < 100.0 * eps:
                return y
        raise LimitError("no plateau was found at large n/d.")

    def _learnt(self) -> tuple[float, float, float]:
        """a, v and nu at the fixed point that the population flow reaches from v = 0, with a slaved: a = phihat/h."""
        from scipy.optimize import brentq

        def force(v: float) -> float:
            return self._slope(v) - self._phihat(v) / self._h(v**2) * self._dh(v**2) * v

        grid = np.linspace(0.01, 1.0, 400)
        rounding = 1e-9 * abs(self._slope(1.0))
        forces = np.array([force(v) for v in grid])
        turns = np.flatnonzero((forces[:-1] > rounding) & (forces[1:] < -rounding))
        v = float(brentq(force, grid[turns[0]], grid[turns[0] + 1])) if len(turns) else 1.0
        a = self._phihat(v) / self._h(v**2)
        return a, v, float(a * forces[-1]) if not len(turns) and forces[-1] > rounding else 0.0

    def _glass(self, y: FloatArray) -> _Glass:
        a, v, q, _, sigma, level = y
        q, beyond = min(q, 1.0), max(q - 1.0, 0.0)
        rho = 1.0 / (1.0 + sigma)
        risk = self.tau**2 + self.power - 2.0 * a * self._phihat(v) + a**2 * self._h(q)
        strength = rho**2 * risk * math.exp(-level) * a**2
        edge = 2.0 * math.sqrt(strength * self._d2h(1.0))
        if 1.0 - q < _ALIKE:
            nu = edge + beyond
            chi = 2.0 / (nu + math.sqrt(nu**2 - edge**2))
            return _Glass(rho, risk, strength, nu, chi, 1.0, 0.0, chi, 0.0)
        top = self._level(q)
        if top > q:
            ratio = _single(top, q, self._d2h(top), self._dh(top) - self._dh(q))
        else:
            ratio = 0.5 * self._d3h(q) / self._d2h(q) ** 1.5
        width = 1.0 - top
        # c = 1 - (1 - c_1) s^2: h'' may be steep next to 1.
        roots = np.sqrt(self._d2h.many(1.0 - width * self._nodes**2)) if width > 0.0 else 0.0
        area = float(np.sum(2.0 * width * self._weights * self._nodes * roots))
        scale = math.sqrt(strength)
        marginal = 1.0 / (scale * math.sqrt(self._d2h(top)))
        return _Glass(rho, risk, strength, edge, 2.0 / edge, top, ratio / scale, marginal, area / scale)

    def _excess(self, c: float, q: float) -> float:
        return _single(c, q, self._d2h(c), self._dh(c) - self._dh(q)) - 0.5 * self._d3h(c) / self._d2h(c) ** 1.5

    def _level(self, q: float) -> float:
        """c_1: the highest level at which x is not below X, or q."""
        from scipy.optimize import brentq

        # For q next to 1 the difference is lost in rounding, and does not matter.
        if self._single_ratio or self._excess(1.0, q) >= -_CONTINUOUS * self._table[-1][0]:
            return 1.0
        levels, dh, d2h, marginal = self._table
        # It vanishes at c = q, as the square of c - q.
        above = levels - q > max(0.02 * (1.0 - q), _SEEN)
        excess = _single(levels[above], q, d2h[above], dh[above] - self._dh(q)) - marginal[above]
        enough = np.flatnonzero(excess >= _CONTINUOUS * marginal[above])
        if not len(enough):
            return q
        last = int(enough[0])
        return float(brentq(self._excess, levels[last], levels[last - 1], args=(q,), xtol=1e-14))

    def _residual(self, y: FloatArray) -> FloatArray:
        a, v, q, mean, sigma, level = y
        q = min(q, 1.0)
        glass = self._glass(y)
        rho, strength, top, x, marginal = glass.rho, glass.strength, glass.level, glass.ratio, glass.marginal
        rest = mean - marginal - x * (top - q)
        fitted = self._dh(top) * marginal + glass.area + x * (self._h(top) - self._h(q)) + self._dh(q) * rest
        # The parts of nu and of the pull above c_1, without their common 2 eps a sqrt(h''(1)).
        stiffness = glass.nu - strength * self._d2h(1.0) * glass.chi
        if top < 1.0:
            stiffness = math.sqrt(strength * self._d2h(top))
        pull = x * (self._dh(top) - self._dh(q)) + self._d2h(q) * rest
        return np.array(
            [
                mean * (stiffness + a**2 * rho * self._dh(q) - strength * pull) - 1.0,
                v - mean * a * rho * self._slope(v),
                q - v**2 - strength * self._dh(q) * mean**2,
                rho * (self._phihat(v) - a * self._h(q)) + strength / a * fitted,
                sigma - a**2 * math.exp(-level) * fitted,
            ]
        )

    def _jacobian(self, y: FloatArray) -> FloatArray:
        """(5, 6) derivatives, by differences that do not step over a = 0 or q = 1."""
        scale = np.array([y[0], 1.0, max(abs(1.0 - y[2]), 1e-6), y[3], 1.0, 1.0])
        columns = []
        for place in range(6):
            shift = np.zeros(6)
            shift[place] = 1e-5 * scale[place]
            columns.append((self._residual(y + shift) - self._residual(y - shift)) / (2.0 * shift[place]))
        return np.array(columns).T

    def _tangent(self, y: FloatArray, along: FloatArray) -> FloatArray:
        """Unit vector along the branch."""
        direction = np.linalg.solve(np.vstack([self._jacobian(y), along]), np.array([0.0, 0, 0, 0, 0, 1.0]))
        return np.asarray(direction / np.linalg.norm(direction))

    def _newton(self, guess: FloatArray, normal: FloatArray, damped: bool = False) -> FloatArray:
        """The state on the plane through ``guess`` with this normal."""
        y = guess
        for _ in range(_ITERATIONS):
            if not (y[0] > 0.0 and y[2] > 0.0 and y[4] > -1.0):
                break
            error = self._residual(y)
            if not np.isfinite(error).all():
                break
            if np.abs(error).max() < _CLOSE:
                return y
            move = np.linalg.solve(np.vstack([self._jacobian(y), normal]), np.append(-error, 0.0))
            y = y + (move * min(1.0, 0.5 * abs(1.0 - y[2]) / max(abs(move[2]), 1e-300)) if damped else move)
        raise LimitError("the equations of the plateau could not be solved.")

    def _fold(self, y: FloatArray, tangent: FloatArray, step: float) -> FloatArray:
        """Where ln abar is smallest, between ``y`` and one step on."""
        low, high = 0.0, step
        new = y
        while high - low > 1e-6 * _STEP:
            middle = 0.5 * (low + high)
            new = self._newton(y + middle * tangent, tangent)
            if self._tangent(new, tangent)[-1] < 0.0:
                low = middle
            else:
                high = middle
        return new
