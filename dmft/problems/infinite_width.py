"""The infinitely wide network on n = abar d samples, theory section 4."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dmft._validate import real, real_array, shown
from dmft.formulation import FloatArray, IntArray
from dmft.problems.base import LearningProblem, common_overlap, grouped_overlaps, grouped_second_layer

WIDTH_BITS = 40
"""Widths between 2^40 and 2^41 stand for infinity: the equations differ by 1/m < 1e-12 from their limit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InfiniteWidthProblem(LearningProblem):
    """Width m -> infinity at a fixed number n/d of samples per dimension, in the time t_mf = alpha t.

    With alpha = abar/m the equations of theory section 3 have a limit in the unknowns C_o, C_T, R_S, R_T, a, v
    (docs/limits.md derives it; [MU] (H.4)-(H.17) is pure noise with a fixed second layer). For one group, with
    a', phihat' at the earlier time, C_d = C_o + C_T and times in t_mf:

        L_S = a a' { R_A h'(C_o) - (C_r/abar) [h''(C_d) R_T + h''(C_o) (R_S - R_T)] }
        L_T = -(a a'/abar) C_r h''(C_d) R_T
        N_o = (a a'/abar) C_r h'(C_o) ,  N_T = (a a'/abar) C_r [h'(C_d) - h'(C_o)]
        Q = tau^2 + |phi|^2 - a phihat - a' phihat' + a a' h(C_o)
        S_R = (a a'/abar) [h'(C_d) R_T + h'(C_o) (R_S - R_T)]

    Time t_mf is [MU]'s t times alpha; a network of finite width m reaches it at t = t_mf / alpha = t_mf m / abar.

    Parameters
    ----------
    sample_ratio : float
        abar = n/d > 0.
    activation, target, noise_std, train_second_layer
        As in :class:`~dmft.problems.symmetric.SymmetricProblem`.
    a0 : float or (G,) array_like
        Second-layer weight at t = 0, of all neurons or of each group.
    v0 : float, (k,), (G,) or (G, k) array_like
        Overlaps with the latent directions at t = 0, of norm at most 1. Two different neurons start with overlap
        v_g . v_h.
    fractions : (G,) array_like, optional
        Shares of the groups in the neurons, > 0; they sum to 1. Needed when a0 is a list.

    Raises
    ------
    ValueError, TypeError
        At construction, in one sentence with the parameter, its value and what is allowed.

    Warns
    -----
    UserWarning
        If v0 = 0 and phihat has no linear part, so that the target is never learnt.
    """

    kind: ClassVar[str] = "infinite_width"
    infinite_width: ClassVar[bool] = True

    sample_ratio: float
    fractions: ArrayLike | None = None

    def __post_init__(self) -> None:
        self._set(sample_ratio=real("sample_ratio", self.sample_ratio, low=1e-6, high=1e9))
        if self.fractions is not None:
            fractions = real_array("fractions", self.fractions, ndim=1)
            if fractions.size == 0 or (fractions < 1e-6).any() or abs(fractions.sum() - 1.0) > 1e-9:
                raise ValueError(
                    f"fractions must be shares of at least 1e-6 that sum to 1, not {shown(fractions.tolist())}."
                )
            self._set(fractions=fractions)
        super().__post_init__()

    @property
    def exchangeable(self) -> bool:  # type: ignore[override]  # a class variable elsewhere
        """Whether all neurons are alike."""
        return self.fractions is None

    @property
    def width(self) -> int:
        """The number that stands for infinitely many neurons."""
        return int(self._sizes().sum())

    def _bits(self) -> int:
        """Bits k such that m = abar 2^k is between 2^40 and 2^41; then alpha = 2^-k, and t_mf = alpha t exactly."""
        return WIDTH_BITS + 1 - math.frexp(self.sample_ratio)[1]

    def _sizes(self) -> IntArray:
        share = np.ones(1) if self.fractions is None else np.asarray(self.fractions, dtype=np.float64)
        return np.rint(np.ldexp(share * self.sample_ratio, self._bits())).astype(np.int64)

    def _second_layer(self, name: str, value: Any) -> float | FloatArray:
        return real(name, value) if self.fractions is None else grouped_second_layer(name, value, len(self._sizes()))

    def _initial_second_layer(self) -> FloatArray | float:
        return np.asarray(self.a0, dtype=np.float64)

    def _samples(self) -> tuple[float, float]:
        alpha = math.ldexp(1.0, -self._bits())
        return alpha, alpha

    def _overlaps(self, value: Any, latent_dimension: int) -> FloatArray:
        if self.fractions is None:
            return common_overlap(value, latent_dimension)
        return grouped_overlaps(value, len(self._sizes()), latent_dimension)

    def _cross_gram(self) -> FloatArray:
        v0 = self._group_overlaps()
        return v0 @ v0.T
