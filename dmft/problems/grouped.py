"""Groups of exchangeable neurons, theory section 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dmft._validate import integer, real_array, shown
from dmft.formulation import FloatArray, IntArray
from dmft.problems.base import GRAM_TOLERANCE, MAX_WIDTH, NetworkProblem, grouped_overlaps, grouped_second_layer


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupedProblem(NetworkProblem):
    """Two-layer network whose neurons fall into groups that start alike, such as a = +-a0 on two halves.

    Parameters
    ----------
    sizes : (G,) sequence of int
        Neurons in each group, each at least 1; their sum is the width m.
    alpha, activation, target, noise_std, train_second_layer
        As in :class:`~dmft.problems.symmetric.SymmetricProblem`.
    a0 : (G,) array_like, optional
        Second-layer weights of the groups at t = 0. Give exactly one of a0 and gamma0.
    gamma0 : (G,) array_like, optional
        a0 / sqrt(width).
    v0 : float, (G,) or (G, k) array_like
        Overlaps with the latent directions at t = 0, of norm at most 1.
    cross_gram0 : (G, G) array_like, optional
        Overlap C_o(0, 0) between two different neurons of groups g and h; default v0 v0^T. The diagonal entry of a
        group of one neuron describes no pair and is ignored.

    Raises
    ------
    ValueError, TypeError
        At construction, in one sentence with the parameter, its value and what is allowed.

    Warns
    -----
    UserWarning
        If v0 = 0 and phihat has no linear part, so that the target is never learnt.
    """

    kind: ClassVar[str] = "grouped"

    sizes: ArrayLike
    cross_gram0: ArrayLike | None = None

    def __post_init__(self) -> None:
        self._set(sizes=_check_sizes(self.sizes))
        if self.cross_gram0 is not None:
            groups = len(self._sizes())
            gram = real_array("cross_gram0", self.cross_gram0, ndim=2, shape=(groups, groups))
            if np.abs(gram - gram.T).max() > GRAM_TOLERANCE:
                raise ValueError(f"cross_gram0 must be symmetric, not {shown(gram.tolist())}.")
            self._set(cross_gram0=gram)
        super().__post_init__()

    @property
    def width(self) -> int:
        """Number of hidden neurons m."""
        return int(self._sizes().sum())

    def _sizes(self) -> IntArray:
        return np.asarray(self.sizes, dtype=np.int64)

    def _second_layer(self, name: str, value: Any) -> FloatArray:
        return grouped_second_layer(name, value, len(self._sizes()))

    def _overlaps(self, value: Any, latent_dimension: int) -> FloatArray:
        return grouped_overlaps(value, len(self._sizes()), latent_dimension)

    def _cross_gram(self) -> FloatArray:
        if self.cross_gram0 is not None:
            gram = np.asarray(self.cross_gram0, dtype=np.float64)
            return 0.5 * (gram + gram.T)
        v0 = self._group_overlaps()
        return v0 @ v0.T

    @property
    def _gram_name(self) -> str:
        return "v0" if self.cross_gram0 is None else "cross_gram0"


def _check_sizes(value: Any) -> IntArray:
    if not isinstance(value, list | tuple | np.ndarray) or np.ndim(value) != 1:
        raise TypeError(f"sizes must be a list of integers >= 1, one a group, not {shown(value)}.")
    if len(value) == 0:
        raise ValueError(f"sizes must hold at least one group, not {shown(value)}.")
    result = np.array([integer(f"sizes[{g}]", size, low=1, high=MAX_WIDTH) for g, size in enumerate(value)])
    if int(result.sum()) > MAX_WIDTH:
        raise ValueError(f"sizes must sum to at most {MAX_WIDTH}, not {int(result.sum())}.")
    result.flags.writeable = False
    return result
