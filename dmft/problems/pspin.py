"""The spherical mixed p-spin model, theory section 11: the memory kernel without a residual sector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dmft._validate import real_array, shown
from dmft.formulation import Formulation
from dmft.problems.base import Problem


@dataclass(frozen=True, kw_only=True, eq=False)
class PSpinProblem(Problem):
    """Gradient flow of a Gaussian energy on the sphere from a random start (zero-temperature quench).

    The energy has covariance <H(x) H(y)> = d f(<x, y>), and dx/dt = -P grad H.

    Parameters
    ----------
    covariance : (degree + 1,) array_like
        Ascending coefficients of f(q), all >= 0, the constant 0 and at least one positive.

    Raises
    ------
    ValueError, TypeError
        At construction, in one sentence with the parameter, its value and what is allowed.
    """

    kind: ClassVar[str] = "pspin"
    exchangeable: ClassVar[bool] = True

    covariance: ArrayLike

    def __post_init__(self) -> None:
        covariance = real_array("covariance", self.covariance, ndim=1)
        if (covariance < 0.0).any():
            raise ValueError(f"covariance must have coefficients >= 0, not {shown(covariance.tolist())}.")
        if covariance.size and covariance[0] != 0.0:
            raise ValueError(
                f"covariance must have no constant part (it shifts the energy and moves nothing), "
                f"not {covariance[0]:g}."
            )
        if not covariance.any():
            raise ValueError(f"covariance must have a positive coefficient, not {shown(covariance.tolist())}.")
        self._set(covariance=covariance)

    @property
    def width(self) -> int:
        """One spin vector."""
        return 1

    def formulation(self) -> Formulation:
        """One neuron with (alpha/m) a a = 1, R_A = 0, C_r = 1 and no drift, theory section 11."""
        return Formulation(
            sizes=np.ones(1, dtype=np.int64),
            alpha=1.0,
            covariance=np.array(self.covariance, dtype=np.float64),
            offset=0.0,
            overlap_exponents=np.zeros((0, 1), dtype=np.int64),
            overlap_coefficients=np.zeros(0),
            a0=np.ones(1),
            v0=np.zeros((1, 1)),
            correlation_s0=np.ones((1, 1)),
            correlation_t0=np.ones(1),
            train_second_layer=False,
            residual_sector=False,
        )
