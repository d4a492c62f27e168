"""What a large-width limit is: a problem that stands for another one on one scale of time.

A limit keeps the width, the time and the variables of the problem it belongs to, so that its solution and that of the
problem itself can be laid over each other; what it leaves out is of higher order in 1/m. It states its equations
(closed forms, right-hand sides, or a smaller problem); an engine brings the numerics as `Tools`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from dmft._validate import shown
from dmft.formulation import FloatArray, Formulation
from dmft.limits.linear_fit import LinearFit
from dmft.problems.base import NetworkProblem, Problem

if TYPE_CHECKING:
    from dmft.solution import Solution

Trajectory = Callable[[FloatArray], FloatArray]
"""A solution of an ordinary differential equation: times (N,) -> states (N, size)."""


class Tools(Protocol):
    """The numerics that an engine lends to a limit."""

    def solve(self, problem: Problem, t_final: float) -> Solution:
        """Solve the DMFT of a smaller problem; raises LimitError where that fails."""

    def integrate(
        self, rhs: Callable[[float, FloatArray], FloatArray], initial: FloatArray, t_final: float
    ) -> Trajectory:
        """Integrate dy/dt = rhs(t, y) from t = 0."""


class LimitError(RuntimeError):
    """The equations of a limit could not be solved; the message says why."""


@dataclass(frozen=True, kw_only=True)
class LimitState:
    """Everything at N times, to leading order (or the order stated).

    Attributes
    ----------
    a, nu : (N, G)
    v : (N, G, k)
    train_error, test_error : (N,)
    correlation_o : (G, G, N, N)
        C_o(t, s) between two different neurons.
    correlation_t : (G, N, N)
        C_T = C_d - C_o.
    response_s : (G, G, N, N)
        Integral of R_S(t, u) over u from s to t.
    response_t : (G, N, N)
        The same of R_T.
    residual_correlation : (N, N)
    """

    a: FloatArray
    v: FloatArray
    nu: FloatArray
    train_error: FloatArray
    test_error: FloatArray
    correlation_o: FloatArray
    correlation_t: FloatArray
    response_s: FloatArray
    response_t: FloatArray
    residual_correlation: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Limit(Problem):
    """A limit of a network problem.

    Parameters
    ----------
    problem : NetworkProblem
        What is taken to its limit. Its width only scales the result.
    """

    limit: ClassVar[str]
    """Key in `dmft.limits.LIMITS` and value of ``limit`` in a configuration."""
    scale: ClassVar[str]
    """Where it holds, in words."""

    problem: NetworkProblem

    def __post_init__(self) -> None:
        if not isinstance(self.problem, NetworkProblem):
            raise TypeError(f"problem must be a symmetric, grouped or general problem, not {shown(self.problem)}.")
        self._check()

    def _check(self) -> None:
        """Refuse problems that do not have this limit."""

    @property
    def kind(self) -> str:  # type: ignore[override]  # a class variable of problems proper
        """Kind of the problem it belongs to: the curves have the same shapes."""
        return self.problem.kind

    @property
    def exchangeable(self) -> bool:  # type: ignore[override]  # a class variable of problems proper
        """Whether all neurons are alike."""
        return self.problem.exchangeable

    @property
    def name(self) -> str:
        """What it is, for headings."""
        return f"{self.title} of a {self.problem.name}"

    @property
    def title(self) -> str:
        """Name of the limit itself."""
        return f"{self.limit.replace('_', '-')} limit"

    @property
    def width(self) -> int:
        """Number of neurons m of the problem."""
        return self.problem.width

    @property
    def noise_std(self) -> float:
        """Label noise tau of the problem."""
        return self.problem.noise_std

    def formulation(self) -> Formulation:
        """That of the problem, whose axes, sizes and times the result has."""
        return self.problem.formulation()

    @abstractmethod
    def prepare(self, tools: Tools, t_final: float) -> Callable[[FloatArray], LimitState]:
        """Solve the limit up to ``t_final``; returns the state as a function of times (N,) in [0, t_final].

        Raises
        ------
        LimitError
            When something that it is built from cannot be solved.
        """

    def to_dict(self) -> dict[str, Any]:
        """Plain data of the problem, with the key ``limit`` and the limit's own options."""
        return self.problem.to_dict() | {"limit": self.limit} | self._options()

    def _options(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from :meth:`to_dict`; errors as `dmft.problems.from_dict`."""
        from dmft.problems import from_dict

        result = from_dict({**data, "limit": data.get("limit", cls.limit)})
        if not isinstance(result, cls):
            raise ValueError(f"limit must be {cls.limit!r} here, not {shown(data.get('limit'))}.")
        return result


def symmetric_lazy(problem: NetworkProblem, limit: str) -> tuple[float, LinearFit]:
    """Weight gamma_0 and the linear fit of a lazy symmetric problem.

    Raises
    ------
    ValueError
        When the neurons do not all start alike, or h'(0) = 0: the linear part of sigma is what these limits fit.
    """
    if not problem.exchangeable:
        raise ValueError(f"limit {limit!r} needs a symmetric problem, not a {problem.kind} one.")
    form = problem.formulation()
    slope = float(form.covariance[1]) if len(form.covariance) > 1 else 0.0
    if slope <= 0.0:
        raise ValueError(f"limit {limit!r} needs h'(0) > 0, a linear part of the activation, not h'(0) = {slope:g}.")
    gamma0 = float(form.a0[0]) / float(np.sqrt(form.width))
    if gamma0 == 0.0:
        raise ValueError(f"limit {limit!r} needs gamma0 != 0.")
    return gamma0, LinearFit.of(problem.activation, problem.target, problem.noise_std)


def integrated_responses(rates: Callable[[FloatArray], FloatArray], times: FloatArray) -> FloatArray:
    """F(t, s) = int_s^t R(t, u) du on pairs of ``times``, for dR/dt = -M(t) R, R(t, t) = 1.

    Parameters
    ----------
    rates : callable
        Times (N,) -> M (N, G, G).
    times : (N,)
        Increasing.

    Returns
    -------
    (G, G, N, N)
        Zero for s >= t. Each cell is crossed by the fourth-order Magnus propagator.
    """
    count = len(times)
    step = np.diff(times)
    middle, offset = times[:-1] + 0.5 * step, np.sqrt(3.0) / 6.0 * step
    first, second = -rates(middle - offset), -rates(middle + offset)
    groups = first.shape[1]
    result = np.zeros((groups, groups, count, count))
    from scipy.linalg import expm

    for n in range(1, count):
        h, one, two = step[n - 1], first[n - 1], second[n - 1]
        # One more row and column carry the constant source: d(F, 1)/dt = [[-M, 1], [0, 0]] (F, 1).
        whole = np.zeros((2 * groups, 2 * groups))
        whole[:groups, :groups] = 0.5 * h * (one + two) + np.sqrt(3.0) / 12.0 * h * h * (two @ one - one @ two)
        # The commutator of the augmented matrices has (A_2 - A_1) in its upper right corner.
        whole[:groups, groups:] = h * np.eye(groups) + np.sqrt(3.0) / 12.0 * h * h * (two - one)
        propagator = expm(whole)
        result[:, :, n, : n - 1] = np.einsum("gh,hls->gls", propagator[:groups, :groups], result[:, :, n - 1, : n - 1])
        result[:, :, n, :n] += propagator[:groups, groups:, None]
    return result
