"""Exchangeable neurons: one group, theory section 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dmft._validate import integer, real
from dmft.formulation import FloatArray, IntArray
from dmft.problems.base import MAX_WIDTH, NetworkProblem, common_overlap


@dataclass(frozen=True, kw_only=True, eq=False)
class SymmetricProblem(NetworkProblem):
    """Two-layer network whose neurons all start alike: the S/T modes of theory section 3.

    Parameters
    ----------
    width : int
        Number of hidden neurons m >= 1.
    alpha : float
        Overparametrisation ratio n/(m d) > 0.
    activation : Activation
        Gives the covariance h(q).
    target : Target
        Gives phihat(v) and |phi|^2.
    noise_std : float
        Label noise tau >= 0.
    a0 : float, optional
        Second-layer weight of every neuron at t = 0 (mean-field scaling). Give exactly one of a0 and gamma0.
    gamma0 : float, optional
        a0 / sqrt(width) (lazy scaling).
    v0 : float or (k,) array_like
        Overlap of every neuron with the latent directions at t = 0, of norm at most 1. Two different neurons then
        start with overlap |v0|^2.
    train_second_layer : bool
        Whether a follows the gradient flow or stays at a0.

    Raises
    ------
    ValueError, TypeError
        At construction, in one sentence with the parameter, its value and what is allowed.

    Warns
    -----
    UserWarning
        If v0 = 0 and phihat has no linear part, so that the target is never learnt.
    """

    kind: ClassVar[str] = "symmetric"
    exchangeable: ClassVar[bool] = True

    width: int

    def __post_init__(self) -> None:
        self._set(width=integer("width", self.width, low=1, high=MAX_WIDTH))
        super().__post_init__()

    def _sizes(self) -> IntArray:
        return np.array([self.width], dtype=np.int64)

    def _second_layer(self, name: str, value: Any) -> float:
        return real(name, value)

    def _overlaps(self, value: Any, latent_dimension: int) -> FloatArray:
        return common_overlap(value, latent_dimension)

    def _cross_gram(self) -> FloatArray:
        v0 = np.asarray(self.v0, dtype=np.float64)
        return np.array([[v0 @ v0]])
