"""Discrete optimisers whose DMFT is exact at any step size: gradient descent, momentum, minibatch descent.

An update adds the step to both layers and then divides every row of the first layer by its norm. In the time unit of
the theory it advances t by (learning rate) d/n, so that a solution of gradient descent at a small learning rate and
one of gradient flow share their time axis.

>>> from dmft.optimizers import Momentum, from_dict
>>> optimizer = Momentum(learning_rate=0.2, momentum=0.9)
>>> from_dict(optimizer.to_dict()) == optimizer
True
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from dmft._validate import nearest, real, shown

if TYPE_CHECKING:
    from dmft.problems import Problem


SAMPLINGS = ("fresh", "epochs")
ROUNDING = 1e-12
"""Of 1/batch_fraction: a third of the samples three times is an epoch."""
SLACK = 1e-9
"""Of t_final over the time of an update: a number of updates that is whole but for rounding is that."""
MOST_UPDATES = 1e15
"""More are not counted: no run makes so many."""


class Optimizer(ABC):
    """How the weights are updated: immutable, validated at construction, and writable as plain data.

    Subclasses are frozen keyword-only dataclasses and set ``kind``, their name in files and in ``solution.method``, and
    ``title``, their name in words.
    """

    kind: ClassVar[str]
    title: ClassVar[str] = "gradient descent"

    if TYPE_CHECKING:  # fields of some optimisers and constants of others

        @property
        def learning_rate(self) -> float:
            """Learning rate eta on the plain gradient of (1/2n) sum (y - f)^2."""

        @property
        def momentum(self) -> float:
            """Fraction of the last step that is repeated."""

        @property
        def batch_fraction(self) -> float:
            """Fraction of the samples in one update."""

        @property
        def sampling(self) -> str:
            """Where batches come from."""

    def __post_init__(self) -> None:
        checked = {"learning_rate": real("learning_rate", self.learning_rate, low=0.0, open_low=True)}
        checked["momentum"] = real("momentum", self.momentum, low=0.0, high=1.0, open_high=True)
        checked["batch_fraction"] = real("batch_fraction", self.batch_fraction, low=0.0, high=1.0, open_low=True)
        if self.sampling not in SAMPLINGS:
            raise ValueError(
                f"sampling must be one of {', '.join(SAMPLINGS)}, not {shown(self.sampling)}"
                f"{nearest(str(self.sampling), SAMPLINGS)}."
            )
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            if field.name in checked:
                object.__setattr__(self, field.name, checked[field.name])

    @property
    def updates_per_epoch(self) -> int:
        """Consecutive updates in which no sample is used twice: 1 unless batches are what an epoch has left over."""
        if self.sampling == "fresh":
            return 1
        return math.floor((1.0 + ROUNDING) / self.batch_fraction)

    def step(self, problem: Problem) -> float:
        """Time that one update advances, in the unit of the theory: (learning rate) d/n = eta/(alpha m).

        Raises
        ------
        ValueError
            For problems other than networks of finite width, and for steps beyond the range of numbers.
        """
        check_problem(problem)
        formulation = problem.formulation()
        step = self.learning_rate / (formulation.alpha * formulation.width)
        if not 0.0 < step < math.inf:
            raise ValueError(f"learning_rate = {self.learning_rate:g} over alpha m must be a number > 0, not {step:g}.")
        return step

    def updates(self, problem: Problem, t_final: float) -> int:
        """Whole updates up to a time.

        Raises
        ------
        ValueError
            As `step`, and when there is not even one.
        """
        step = self.step(problem)
        if t_final < step * (1.0 - SLACK):
            raise ValueError(f"t_final = {t_final:g} must be at least one update, learning_rate/(alpha m) = {step:g}.")
        return math.floor(min(t_final / step * (1.0 + SLACK), MOST_UPDATES))

    def describe(self) -> str:
        """All parameters in words; no momentum and full batches are not mentioned."""
        words = f"{self.title} at learning rate {self.learning_rate:g}"
        if self.batch_fraction < 1.0:
            how = "in epochs" if self.sampling == "epochs" else "drawn afresh"
            words += f", batch fraction {self.batch_fraction:g} {how}"
        return words + (f", momentum {self.momentum:g}" if self.momentum > 0.0 else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which :func:`from_dict` rebuilds it; floats are exact."""
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return {"kind": self.kind, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from :meth:`to_dict`; the key ``kind`` is optional here.

        Raises
        ------
        TypeError, ValueError
            If a key is unknown or missing, or a value is bad.
        """
        known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
        given = {key: value for key, value in data.items() if key != "kind"}
        for key in given:
            if key not in known:
                raise ValueError(f"{shown(key)} is not a parameter of {cls.__name__}, which has {', '.join(known)}.")
        for name, field in known.items():
            if name not in given and field.default is MISSING:
                raise ValueError(f"{name} is missing, and {cls.__name__} needs it.")
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class GradientDescent(Optimizer):
    """Full-batch gradient descent.

    Parameters
    ----------
    learning_rate : float
        eta > 0 on the plain gradient of (1/2n) sum (y - f)^2.

    Raises
    ------
    ValueError, TypeError
        At construction, in one sentence with the parameter, its value and what is allowed.
    """

    kind: ClassVar[str] = "gd"
    momentum: ClassVar[float] = 0.0
    batch_fraction: ClassVar[float] = 1.0
    sampling: ClassVar[str] = "fresh"

    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Momentum(Optimizer):
    """Full-batch gradient descent with heavy-ball momentum, u <- momentum u - gradient, weights <- weights + eta u.

    The rows of the first layer are normalised after each update and u is left as it is. The first update has no
    velocity. At small steps the curves are those of gradient flow at time t/(1 - momentum).

    Parameters
    ----------
    learning_rate : float
        eta > 0 on the plain gradient of (1/2n) sum (y - f)^2.
    momentum : float
        At least 0 and below 1; 0 is `GradientDescent`.

    Raises
    ------
    ValueError, TypeError
        At construction, in one sentence with the parameter, its value and what is allowed.
    """

    kind: ClassVar[str] = "momentum"
    batch_fraction: ClassVar[float] = 1.0
    sampling: ClassVar[str] = "fresh"

    learning_rate: float
    momentum: float


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Descent on minibatches of a fixed fraction of the training set.

    Parameters
    ----------
    learning_rate : float
        eta > 0 on the plain gradient of the mean over the batch, which is (1/2) (y - f)^2 a sample.
    batch_fraction : float
        Samples in a batch over samples in the training set, above 0 and at most 1; 1 is full-batch descent.
    momentum : float
        As in `Momentum`.
    sampling : {"fresh", "epochs"}
        Every batch drawn afresh from all samples, or without replacement from those that the epoch has not used: an
        epoch is floor(1/batch_fraction) updates, and what is left over stays out of it.

    Raises
    ------
    ValueError, TypeError
        At construction, in one sentence with the parameter, its value and what is allowed.
    """

    kind: ClassVar[str] = "sgd"
    title: ClassVar[str] = "SGD"

    learning_rate: float
    batch_fraction: float
    momentum: float = 0.0
    sampling: str = "fresh"


KINDS: dict[str, type[Optimizer]] = {optimizer.kind: optimizer for optimizer in (GradientDescent, Momentum, SGD)}


def from_dict(data: Mapping[str, Any]) -> Optimizer:
    """Rebuild an optimiser from :meth:`Optimizer.to_dict`.

    Raises
    ------
    ValueError
        If ``kind`` is missing or unknown, or a parameter is unknown, missing or bad.
    TypeError
        If ``data`` is no mapping or a parameter has the wrong type.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"An optimizer must be given as a mapping of its parameters, not {shown(data)}.")
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {shown(kind)}{nearest(str(kind), KINDS)}.")
    return KINDS[kind].from_dict(data)


def check_problem(problem: Problem) -> None:
    """Refuse problems on which no optimiser is defined.

    Raises
    ------
    ValueError
        For everything but symmetric, grouped and general networks.
    """
    from dmft.problems import NetworkProblem

    if not isinstance(problem, NetworkProblem):
        name = getattr(problem, "name", type(problem).__name__)
        raise ValueError(
            "optimizer is for networks of finite width (SymmetricProblem, GroupedProblem, GeneralProblem), "
            f"not for the problem {name!r}; leave it out for gradient flow."
        )
