"""The one formulation that every problem reduces to: exchangeable groups of neurons.

The neurons are split into ``G`` groups of ``sizes[g]`` neurons, exchangeable inside each group. Neuron space
then splits into the ``G`` group-symmetric directions, on which a two-time function acts as the ``G x G`` matrix
``X_S``, and the complements inside the groups, on which it acts as the scalar ``X_T[g]``:

    X_S[g,h] = sqrt(sizes[g] sizes[h]) X_o[g,h] + delta_gh X_T[g] ,      X_T[g] = X_d[g] - X_o[g,g]

with ``X_d`` the element of a neuron with itself and ``X_o`` that of two different neurons. A group of one neuron
has no T direction; there ``X_o[g,g] = 0`` and ``X_T[g] = X_S[g,g] = X_d[g]`` by convention.

``G = 1`` is the symmetric network, ``sizes = (1, 1, ..., 1)`` the general one. The spherical p-spin model is one
neuron without a residual sector: its memory kernel has ``R_A = 0`` and ``C_r = 1``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Formulation:
    """Everything an engine needs to know about a problem, as plain arrays.

    Attributes
    ----------
    sizes : (G,) int
        Neurons in each group; their sum is the width m.
    alpha : float
        Overparametrisation ratio n/(m d).
    covariance : (degree + 1,) float
        Ascending coefficients of h(q).
    offset : float
        tau^2 + |phi|^2, the residual variance of the zero network.
    overlap_exponents : (terms, k) int
        Exponents of the monomials of phihat(v), v in R^k. No rows for pure noise.
    overlap_coefficients : (terms,) float
        Their coefficients.
    a0 : (G,) float
        Second-layer weights at t = 0.
    v0 : (G, k) float
        Overlaps of the first-layer weights with the latent directions at t = 0.
    correlation_s0 : (G, G) float
        C_S(0, 0).
    correlation_t0 : (G,) float
        C_T(0, 0).
    train_second_layer : bool
        Whether a follows the gradient flow or stays at a0.
    residual_sector : bool
        False for the spherical p-spin model: then R_A = 0, C_r = 1 and (alpha/m) a a = 1.
    clock : float
        The problem's unit of time over that of the equations, a power of two: reported times are ``clock`` times
        those of the equations.
    infinite_width : bool
        Whether ``sizes`` are so large that they stand for infinity: 1/sizes is below rounding. Then a / sqrt(m) means
        nothing.
    """

    sizes: IntArray
    alpha: float
    covariance: FloatArray
    offset: float
    overlap_exponents: IntArray
    overlap_coefficients: FloatArray
    a0: FloatArray
    v0: FloatArray
    correlation_s0: FloatArray
    correlation_t0: FloatArray
    train_second_layer: bool
    residual_sector: bool
    clock: float = 1.0
    infinite_width: bool = False

    @property
    def width(self) -> int:
        """Total number of hidden neurons m."""
        return int(self.sizes.sum())

    @property
    def groups(self) -> int:
        """Number of groups G."""
        return len(self.sizes)

    @property
    def latent_dimension(self) -> int:
        """Number of latent directions k (1 for pure noise, with v identically zero)."""
        return int(self.v0.shape[1])
