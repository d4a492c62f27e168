"""What a set of equations must say so that the scheme can march it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.polynomial.polynomial import polyder, polyval

from solvers.collocation.grid import FloatArray
from solvers.collocation.history import Frame, Layout


def derivatives(coefficients: FloatArray) -> list[FloatArray]:
    """A polynomial in ascending powers and its first three derivatives."""
    result = [np.asarray(coefficients, dtype=np.float64)]
    for _ in range(3):
        result.append(np.asarray(polyder(result[-1]), dtype=np.float64) if len(result[-1]) > 1 else np.zeros(1))
    return result


def polynomial(coefficients: FloatArray, x: FloatArray | float) -> FloatArray:
    """Its value at x, of the shape of x."""
    return np.asarray(polyval(x, coefficients))


@dataclass
class RowState:
    """The equations evaluated on a trial row.

    Attributes
    ----------
    residual : (U L + S,)
        Of every equation, function by function, then those of the scalars. Zero on the solution.
    values : (L, F)
        All stored functions.
    self_motion : (L,)
        d_t C_d(t, s) on the nodes.
    speed : float
        (da/dt)^2.
    energy : float
        Of the p-spin model; 0 for networks.
    under : tuple
        Values under the integrals, kept for the Jacobian.
    """

    residual: FloatArray
    values: FloatArray
    self_motion: FloatArray
    speed: float
    energy: float
    under: tuple[FloatArray, ...]


class System(ABC):
    """Equations on one row. Functions of two times are numbered, those solved for are ``unknowns``.

    Attributes
    ----------
    functions : int
        Stored functions F.
    unknowns : tuple of int
        The U of them that are unknown; the others follow from them at the same node.
    layout : Layout
        Integrals.
    aging : float
        Exponent of t with which the density of nodes grows late.
    """

    functions: ClassVar[int]
    unknowns: ClassVar[tuple[int, ...]]
    layout: ClassVar[Layout]
    aging: ClassVar[float] = 0.0

    @abstractmethod
    def initial(self) -> tuple[FloatArray, FloatArray]:
        """Functions of two times (F,) and of one time (S,) at t = 0."""

    @abstractmethod
    def fastest_rate(self, values: FloatArray, scalars: FloatArray) -> float:
        """Fastest local relaxation rate, from the functions at s = t (F,)."""

    @abstractmethod
    def scales(self, frame: Frame) -> tuple[FloatArray, FloatArray]:
        """Natural sizes of the unknown functions (U,) and of the scalars (S,)."""

    @abstractmethod
    def row(self, frame: Frame, unknowns: FloatArray, scalars: FloatArray) -> RowState:
        """Evaluate the equations; ``unknowns`` (U, L), ``scalars`` (S,)."""

    @abstractmethod
    def jacobian(self, frame: Frame, unknowns: FloatArray, scalars: FloatArray, state: RowState) -> FloatArray:
        """Derivative of the residual, (U L + S, U L + S)."""

    def switches(self, before: FloatArray, after: FloatArray) -> bool:
        """Whether the equations change after a row, from the functions at s = t before and on it, (F,) each."""
        return False

    @abstractmethod
    def errors(self, frame: Frame, state: RowState, scalars: FloatArray, tolerance: float) -> float:
        """Largest scaled distance of the row from its prediction, for a wanted local ``tolerance``."""
