"""What the linear part of a wide network takes of a target, and what it leaves to the rest; theory section 4."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dmft.activations import Activation
from dmft.formulation import FloatArray
from dmft.targets import Target


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """The linear fit of a lazy network.

    Attributes
    ----------
    learned : (k,)
        g(0)/h'(0), to which a v tends.
    left : float
        tau'^2 = tau^2 + |phi|^2 - |g(0)|^2/h'(0), the variance of what is left to fit.
    height : float
        ht(1) = h(1) - h'(0), what a network of gamma = 1 adds to it.
    """

    learned: FloatArray
    left: float
    height: float

    @classmethod
    def of(cls, activation: Activation, target: Target, noise_std: float) -> LinearFit:
        """The fit of ``target`` with label noise ``noise_std``."""
        resolved = target.resolve(activation)
        covariance = np.asarray(activation.covariance, dtype=np.float64)
        gradient = np.asarray(resolved.gradient(np.zeros(resolved.latent_dimension)), dtype=np.float64)
        # g(0) = 0 wherever h'(0) = 0: no target has an overlap with what the activation does not have.
        learned = gradient / covariance[1] if gradient.any() else gradient
        left = noise_std**2 + float(resolved.power) - float(gradient @ learned)
        # The difference of a linear target and its own fit is rounding.
        left = left if left > 1e-12 * (noise_std**2 + float(resolved.power)) else 0.0
        return cls(learned=learned, left=left, height=float(covariance.sum() - covariance[1]))

    @property
    def noise_std(self) -> float:
        """The root tau' of ``left``.

        Raises
        ------
        ValueError
            If nothing is left.
        """
        if not self.left > 0.0:
            raise ValueError(
                "noise_std must be > 0 when the target is linear or absent: the linear fit leaves nothing to fit."
            )
        return math.sqrt(self.left)

    def test_error(self, gamma: FloatArray | float) -> FloatArray:
        """e_lin(gamma) = [tau'^2 + gamma^2 ht(1)]/2, [MU] (2.7)."""
        return np.asarray(0.5 * (self.left + np.square(gamma) * self.height))


def remainder(activation: Activation) -> Activation:
    """The activation of covariance ht(z) = h(z) - h'(0) z, theory section 4.

    Raises
    ------
    ValueError
        If nothing is left of a linear one.
    """
    covariance = np.array(activation.covariance)
    covariance[1] = 0.0
    if not covariance.any():
        raise ValueError(
            "activation must have a part that is not linear: the infinitely wide lazy network fits nothing else after "
            "its linear fit."
        )
    return Activation.from_covariance(covariance, finite_curvature=activation.finite_curvature)
