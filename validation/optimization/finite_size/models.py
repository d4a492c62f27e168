"""What is trained: the Gaussian model and true networks, with forces that also give the train error."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from validation.gaussian_model import GaussianModel, monomials, pull_back
from validation.network import Network

FloatArray = NDArray[np.float64]

_BLOCK = 48  # samples whose tensors stay in cache between the two products


class Trainable(Protocol):
    """What the flow needs."""

    def evaluate(self, weights: FloatArray, a: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """Time derivatives (m, d) and (m,) in the time t, before projection, and the train error."""


class CollectiveGaussian(GaussianModel):
    """The Gaussian model with force evaluations that cost n P operations for P components, not n P m.

    The residuals need only the sum over neurons of a_l psi(w_l), and the force on a neuron only sum_i r_i G_i.
    """

    def evaluate(self, weights: FloatArray, a: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """As `Trainable`."""
        dtype = self._tensors.dtype
        for neuron, w in enumerate(weights):
            for part in self._parts:
                monomials(w, part.degree, *self._work, self._row[part.where])
            self._features[neuron] = self._row
        mean = (a / self.width).astype(dtype) @ self._features
        pulled = np.zeros(self.columns, dtype=dtype)
        squares = 0.0
        for start in range(0, self.samples, _BLOCK):
            block = self._tensors[start : start + _BLOCK]
            residuals = self.labels[start : start + _BLOCK] - block @ mean
            squares += float(residuals @ residuals)
            pulled += residuals.astype(dtype) @ block
        rate = 1.0 / (self.width * self.dimension)
        combined = pulled.astype(np.float64)
        d_weights = np.zeros_like(weights)
        for neuron, w in enumerate(weights):
            for part in self._parts:
                pull_back(w, part.degree, *self._work, combined[part.where], d_weights[neuron])
        d_weights *= (rate * a)[:, None]
        return d_weights, rate * (self._features @ pulled).astype(np.float64), 0.5 * squares / self.samples


class TrueNetwork(Network):
    """A true network that gives its train error with the force."""

    def evaluate(self, weights: FloatArray, a: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """As `Trainable`."""
        residuals, d_weights, d_a = self._pass(self.inputs, self.labels, weights, a, True)
        rate = 1.0 / (self.width * self.dimension)
        d_weights *= (rate * a)[:, None]
        return d_weights, rate * d_a, 0.5 * float(residuals @ residuals) / len(residuals)
