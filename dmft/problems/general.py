"""Any finite set of neurons, theory section 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dmft._validate import real_array, shown
from dmft.formulation import FloatArray, IntArray
from dmft.problems.base import GRAM_TOLERANCE, NetworkProblem, grouped_overlaps, grouped_second_layer


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneralProblem(NetworkProblem):
    """Two-layer network with arbitrary initial data for each of its m neurons: m^2 two-time functions.

    Parameters
    ----------
    alpha, activation, target, noise_std, train_second_layer
        As in :class:`~dmft.problems.symmetric.SymmetricProblem`.
    a0 : (m,) array_like, optional
        Second-layer weights at t = 0; their number is the width. Give exactly one of a0 and gamma0.
    gamma0 : (m,) array_like, optional
        a0 / sqrt(m).
    v0 : float, (m,) or (m, k) array_like
        Overlaps with the latent directions at t = 0, of norm at most 1.
    gram0 : (m, m) array_like, optional
        Gram matrix C_ij(0, 0) of the first-layer weights, with unit diagonal; gram0 - v0 v0^T must be positive
        semidefinite. Entries of 1 off the diagonal are neurons that share their initial weights. Default: weights
        that are random apart from their overlaps, C_ij = v_i . v_j.

    Raises
    ------
    ValueError, TypeError
        At construction, in one sentence with the parameter, its value and what is allowed.

    Warns
    -----
    UserWarning
        If v0 = 0 and phihat has no linear part, so that the target is never learnt.
    """

    kind: ClassVar[str] = "general"

    gram0: ArrayLike | None = None

    def __post_init__(self) -> None:
        name = "a0" if self.a0 is not None else "gamma0"
        weights = getattr(self, name)
        if self.gram0 is not None and weights is not None:
            groups = len(grouped_second_layer(name, weights, None))
            gram = real_array("gram0", self.gram0, ndim=2, shape=(groups, groups))
            if np.abs(gram - gram.T).max() > GRAM_TOLERANCE:
                raise ValueError(f"gram0 must be symmetric, not {shown(gram.tolist())}.")
            if np.abs(np.diagonal(gram) - 1.0).max() > GRAM_TOLERANCE:
                raise ValueError(
                    f"gram0 must have a unit diagonal (weights are unit vectors), "
                    f"not {shown(np.diagonal(gram).tolist())}."
                )
            self._set(gram0=gram)
        super().__post_init__()

    @property
    def width(self) -> int:
        """Number of hidden neurons m."""
        return int(self._sizes().sum())

    def _sizes(self) -> IntArray:
        weights = self.a0 if self.a0 is not None else self.gamma0
        return np.ones(np.size(np.asarray(weights)), dtype=np.int64)

    def _second_layer(self, name: str, value: Any) -> FloatArray:
        return grouped_second_layer(name, value, None)

    def _overlaps(self, value: Any, latent_dimension: int) -> FloatArray:
        return grouped_overlaps(value, len(self._sizes()), latent_dimension)

    def _cross_gram(self) -> FloatArray:
        if self.gram0 is not None:
            gram = np.asarray(self.gram0, dtype=np.float64)
            return 0.5 * (gram + gram.T)
        v0 = self._group_overlaps()
        return v0 @ v0.T

    @property
    def _gram_name(self) -> str:
        return "v0" if self.gram0 is None else "gram0"
