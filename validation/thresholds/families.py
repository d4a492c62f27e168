"""One-parameter families of problems: what is varied, and what stays fixed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dmft.activations import Activation
from dmft.limits.linear_fit import remainder
from dmft.problems import InfiniteWidthProblem, Problem, SymmetricProblem
from dmft.targets import Target


def threshold_energy(activation: Activation) -> float:
    """|E| at the threshold of the spherical mixed p-spin model of covariance f = h.

    |E| = [f'^2 + f (f'' - f')] / (f' sqrt(f'')) at argument 1; as alpha -> 0, gamma*_GF/tau' -> sqrt(alpha)/|E|. It is
    used as a first guess only.
    """
    f, f1, f2 = (float(function(1.0)) for function in (activation.h, activation.dh, activation.d2h))
    return math.sqrt(f1) if f2 == 0.0 else (f1**2 + f * (f2 - f1)) / (f1 * math.sqrt(f2))


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """Problems that differ in one number x and start to interpolate, or stop, at a value of it.

    Points are placed in a coordinate z(x) that grows towards interpolation and has no borders.

    Attributes
    ----------
    activation : Activation
        Of the problems that are solved (ht in the lazy limit).
    target : Target
        Of the problems that are solved (noise in the lazy limit).
    noise_std : float
        Of the problems that are solved (1 in the lazy limit).
    value_unit, time_unit : float
        What reported values of x and times are multiplied by: tau' and 1/tau'^2 in the lazy limit, since
        (tau, a) -> (c tau, c a) with t -> t/c^2 leaves the equations as they are.
    """

    varied: ClassVar[str]
    rises: ClassVar[bool]
    """Whether large x interpolate."""

    activation: Activation
    target: Target
    noise_std: float
    value_unit: float = 1.0
    time_unit: float = 1.0

    @abstractmethod
    def problem(self, x: float) -> Problem:
        """The problem at x."""

    @abstractmethod
    def coordinate(self, x: Any) -> Any:
        """z(x), elementwise."""

    @abstractmethod
    def value(self, z: Any) -> Any:
        """x(z), elementwise."""

    @abstractmethod
    def guess(self) -> float:
        """A first x, from the limit of few samples."""

    @abstractmethod
    def time_scale(self, x: float) -> float:
        """Time in which the hardest combination of samples is fitted far from the threshold, problem's time.

        1/[gamma^2 h'(1) (1 - sqrt alpha)^2], from the lower edge of the Marchenko-Pastur law of the gradients.
        """

    @abstractmethod
    def slope(self, x: float) -> float:
        """About -dr_inf/dz near a threshold at x, to place points."""

    @property
    @abstractmethod
    def symbol(self) -> str:
        """The threshold in mathematical notation."""

    @property
    @abstractmethod
    def fixed(self) -> dict[str, float]:
        """What is held fixed, as reported."""

    @property
    def offset(self) -> float:
        """tau^2 + |phi|^2 of the problems that are solved."""
        return self.noise_std**2 + float(self.target.resolve(self.activation).power)

    @property
    def linear(self) -> bool:
        """Whether h is linear: no glass, other exponents."""
        return not np.any(self.activation.covariance[2:])

    def _curvature(self) -> float:
        """h'(1), without the linear part where there is another: neurons that differ share and fit that at once."""
        covariance = np.array(self.activation.covariance)
        slopes = np.arange(len(covariance)) * covariance
        return float(slopes[1] if self.linear else slopes[2:].sum())

    def _energy(self) -> float:
        """|E| of what is left to single neurons."""
        return threshold_energy(self.activation if self.linear else remainder(self.activation))


@dataclass(frozen=True, kw_only=True)
class GammaFamily(Family):
    """gamma = a/sqrt(m) varies at fixed alpha and width."""

    varied: ClassVar[str] = "gamma"
    rises: ClassVar[bool] = True
    alpha: float
    width: int | None

    def problem(self, x: float) -> Problem:
        """The problem at gamma = x; the lazy limit is the problem of one neuron."""
        return _network(self, self.alpha, x, self.width)

    def coordinate(self, x: Any) -> Any:
        """Ln gamma."""
        return np.log(x)

    def value(self, z: Any) -> Any:
        """Inverse of `coordinate`."""
        return np.exp(z)

    def guess(self) -> float:
        """From alpha -> 0, with the growth seen towards alpha = 1; exact for one linear neuron."""
        factor = 1.0 / math.sqrt(1.0 - self.alpha) if self.linear else 1.0 + 0.3 * self.alpha
        return math.sqrt(self.alpha * self.offset) / self._energy() * factor

    def time_scale(self, x: float) -> float:
        """In t."""
        return 1.0 / (x**2 * self._curvature() * _edge(self.alpha))

    def slope(self, x: float) -> float:
        """In ln gamma."""
        return _steepness(self.alpha)

    @property
    def symbol(self) -> str:
        """gamma*(alpha) or gamma_GF(alpha, m)."""
        return "gamma*_GF(alpha)" if self.width is None else "gamma_GF(alpha, m)"

    @property
    def fixed(self) -> dict[str, float]:
        """Alpha, and m."""
        return {"alpha": self.alpha} | ({} if self.width is None else {"m": self.width})


@dataclass(frozen=True, kw_only=True)
class AlphaFamily(Family):
    """alpha = n/(m d) varies at fixed gamma and width."""

    varied: ClassVar[str] = "alpha"
    rises: ClassVar[bool] = False
    gamma: float
    width: int | None

    def problem(self, x: float) -> Problem:
        """The problem at alpha = x."""
        return _network(self, x, self.gamma, self.width)

    def coordinate(self, x: Any) -> Any:
        """-logit alpha: nothing but a linear target is interpolated by fewer parameters than samples."""
        return np.log1p(-x) - np.log(x)

    def value(self, z: Any) -> Any:
        """Inverse of `coordinate`."""
        return 1.0 / (1.0 + np.exp(z))

    def guess(self) -> float:
        """From alpha -> 0."""
        few = (self.gamma * self._energy()) ** 2 / self.offset
        return few / (1.0 + few)

    def time_scale(self, x: float) -> float:
        """In t."""
        return 1.0 / (self.gamma**2 * self._curvature() * _edge(x))

    def slope(self, x: float) -> float:
        """In logit alpha."""
        return _steepness(x) * _growth(x)

    @property
    def symbol(self) -> str:
        """alpha*(gamma) or alpha_GF(gamma, m)."""
        return "alpha*_GF(gamma)" if self.width is None else "alpha_GF(gamma, m)"

    @property
    def fixed(self) -> dict[str, float]:
        """Gamma as given, and m."""
        return {"gamma": self.gamma * self.value_unit} | ({} if self.width is None else {"m": self.width})


@dataclass(frozen=True, kw_only=True)
class SampleRatioFamily(Family):
    """abar = n/d varies at fixed a, for a width or for infinitely many neurons."""

    varied: ClassVar[str] = "sample_ratio"
    rises: ClassVar[bool] = False
    a0: float
    width: int | None

    def problem(self, x: float) -> Problem:
        """The problem at abar = x."""
        if self.width is not None:
            return _network(self, x / self.width, self.a0 / math.sqrt(self.width), self.width)
        return InfiniteWidthProblem(
            sample_ratio=x,
            activation=self.activation,
            target=self.target,
            noise_std=self.noise_std,
            a0=self.a0,
            train_second_layer=False,
        )

    def coordinate(self, x: Any) -> Any:
        """-ln abar, or -logit of abar/m."""
        return -np.log(x) + (0.0 if self.width is None else np.log(self.width - x))

    def value(self, z: Any) -> Any:
        """Inverse of `coordinate`."""
        return np.exp(-z) if self.width is None else self.width / (1.0 + np.exp(z))

    def guess(self) -> float:
        """From alpha -> 0."""
        few = (self.a0 * self._energy()) ** 2 / self.offset
        return few if self.width is None else few / (1.0 + few / self.width)

    def time_scale(self, x: float) -> float:
        """In t, or in t_mf = alpha t."""
        rate = self.a0**2 * self._curvature()
        return x / rate if self.width is None else self.width / (rate * _edge(x / self.width))

    def slope(self, x: float) -> float:
        """In ln abar, or logit of abar/m."""
        alpha = 0.0 if self.width is None else x / self.width
        return _steepness(alpha) * _growth(alpha)

    @property
    def symbol(self) -> str:
        """abar_GF(m)."""
        return "abar_GF(infinity)" if self.width is None else "abar_GF(m)"

    @property
    def fixed(self) -> dict[str, float]:
        """a, and m."""
        return {"a0": self.a0} | ({} if self.width is None else {"m": self.width})


def _edge(alpha: float) -> float:
    return (1.0 - math.sqrt(alpha)) ** 2


def _steepness(alpha: float) -> float:
    """-dr_inf/d ln gamma at the threshold, as found to 10 % for two activations and alpha from 0.1 to 0.9."""
    return 0.95 * (1.0 - alpha) ** 0.32


def _growth(alpha: float) -> float:
    """About d ln gamma*/d logit alpha, for gamma* ~ sqrt(alpha) (1 + 0.3 alpha)."""
    return (0.5 + 0.3 * alpha / (1.0 + 0.3 * alpha)) * (1.0 - alpha)


def _network(family: Family, alpha: float, gamma: float, width: int | None) -> SymmetricProblem:
    """Width None: the lazy limit, which is one neuron of covariance ht (theory section 4)."""
    return SymmetricProblem(
        width=width or 1,
        alpha=alpha,
        activation=family.activation,
        target=family.target,
        noise_std=family.noise_std,
        gamma0=gamma,
        train_second_layer=False,
    )
