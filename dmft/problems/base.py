"""What every problem promises, and what the three network problems share.

A problem is a frozen, validated description of one run's physics. It knows no step size and no equation; its
:meth:`Problem.formulation` states it in the one group form that the equations are written in.
"""

from __future__ import annotations

import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from dmft._validate import boolean, real, real_array, shown
from dmft.activations import Activation
from dmft.formulation import FloatArray, Formulation, IntArray
from dmft.targets import ResolvedTarget, Target

# Widths stay exact as floats and leave room for products of two of them in 64-bit integers.
MAX_WIDTH = 2**31 - 1

# Gram matrices typed with ten digits, or measured on vectors normalised in double precision, miss positive
# semidefiniteness by about this much relative to their trace; no solver resolves so small a difference.
GRAM_TOLERANCE = 1e-10


class Problem(ABC):
    """One run's physics: immutable, validated at construction, comparable, and writable as plain data.

    Subclasses are frozen keyword-only dataclasses and set ``kind``; registering one in
    ``dmft.problems.KINDS`` makes it known to configs and files.
    """

    kind: ClassVar[str]
    exchangeable: ClassVar[bool] = False
    """Whether all neurons are alike, so that curves need no axis of groups."""
    infinite_width: ClassVar[bool] = False

    if TYPE_CHECKING:  # a field of some problems and a property of others, which an abstract property would forbid

        @property
        def width(self) -> int:
            """Number of neurons m."""

    @property
    def name(self) -> str:
        """What it is, for headings."""
        return self.kind.replace("_", "-")

    @abstractmethod
    def formulation(self) -> Formulation:
        """The problem in group form, theory section 3."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data (str, bool, int, float, lists, dicts) from which :func:`dmft.problems.from_dict` rebuilds it.

        Floats are exact; two problems are equal when their dictionaries are.
        """
        result: dict[str, Any] = {"kind": self.kind}
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            if isinstance(value, Activation | Target):
                result[field.name] = value.to_dict()
            elif isinstance(value, np.ndarray):
                result[field.name] = value.tolist()
            elif value is not None:
                result[field.name] = value
        return result

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from :meth:`to_dict`; the key ``kind`` is optional here.

        Raises
        ------
        ValueError
            If a key is unknown or missing, or a value is bad.
        TypeError
            If a value has the wrong type.
        """
        known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
        given = {key: value for key, value in data.items() if key != "kind"}
        for key in given:
            if key not in known:
                raise ValueError(f"{key!r} is not a parameter of a {cls.kind} problem, which has {', '.join(known)}.")
        for name, field in known.items():
            if name not in given and field.default is MISSING and field.default_factory is MISSING:
                raise ValueError(f"{name} is missing, and a {cls.kind} problem needs it.")
        if isinstance(given.get("activation"), Mapping):
            given["activation"] = Activation.from_dict(given["activation"])
        if isinstance(given.get("target"), Mapping):
            given["target"] = Target.from_dict(given["target"])
        return cls(**given)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Problem):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    def _set(self, **values: Any) -> None:
        """Store normalised values during construction; afterwards the dataclass is frozen."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, kw_only=True, eq=False)
class LearningProblem(Problem):
    """Gradient flow of a two-layer network, theory sections 1 and 2: what all initial data and all widths share.

    Subclasses say how the neurons are grouped (:meth:`_sizes`), what their initial Gram matrix is
    (:meth:`_cross_gram`), what the second layer starts from and how many samples there are; everything else is
    checked and assembled here.
    """

    activation: Activation
    target: Target
    noise_std: float
    a0: ArrayLike | None = None
    v0: ArrayLike = 0.0
    train_second_layer: bool = True

    def __post_init__(self) -> None:
        self._set(
            noise_std=real("noise_std", self.noise_std, low=0.0, high=1e100),  # its square must be finite
            train_second_layer=boolean("train_second_layer", self.train_second_layer),
        )
        if not isinstance(self.activation, Activation):
            raise TypeError(f"activation must be a dmft.Activation, not {shown(self.activation)}.")
        if not isinstance(self.target, Target):
            raise TypeError(f"target must be a dmft.Target, not {shown(self.target)}.")
        self._check_second_layer()
        resolved = self.target.resolve(self.activation)
        if self.noise_std**2 + resolved.power == 0.0:
            raise ValueError(
                f"noise_std must be > 0 when the target is noise, not {self.noise_std!r}: all labels would be zero."
            )
        self._set_second_layer()
        self._set(v0=self._overlaps(self.v0, resolved.latent_dimension))
        self._check_gram()
        self._warn_if_stuck(resolved)

    # What subclasses say.

    @abstractmethod
    def _sizes(self) -> IntArray:
        """(G,) neurons in each group."""

    @abstractmethod
    def _second_layer(self, name: str, value: Any) -> float | FloatArray:
        """Check a0, or what stands for it."""

    @abstractmethod
    def _initial_second_layer(self) -> FloatArray | float:
        """a0 of each group, or of all."""

    @abstractmethod
    def _samples(self) -> tuple[float, float]:
        """Ratio alpha = n/(m d), and the clock of the formulation."""

    def _check_second_layer(self) -> None:
        """Refuse a second layer that is not given, or given twice."""
        if self.a0 is None:
            raise ValueError("a0 must be given, not None.")

    def _set_second_layer(self) -> None:
        """Keep the second layer as it was given, checked."""
        self._set(a0=self._second_layer("a0", self.a0))

    @abstractmethod
    def _overlaps(self, value: Any, latent_dimension: int) -> FloatArray:
        """Check v0 and return it in the shape in which it is kept."""

    @abstractmethod
    def _cross_gram(self) -> FloatArray:
        """(G, G) initial C_o between two different neurons of the groups; ignored on the diagonal for size 1."""

    @property
    def _gram_name(self) -> str:
        """Parameter to blame for a bad Gram matrix."""
        return "v0"

    # What follows from it.

    def resolved_target(self) -> ResolvedTarget:
        """The target as a polynomial phihat(v) and a power |phi|^2, given the activation."""
        return self.target.resolve(self.activation)

    def formulation(self) -> Formulation:
        """The problem in group form, theory section 3."""
        sizes, resolved = self._sizes(), self.resolved_target()
        groups, latent = len(sizes), resolved.latent_dimension
        a0 = np.broadcast_to(np.asarray(self._initial_second_layer(), dtype=np.float64), (groups,))
        alpha, clock = self._samples()
        s0, t0 = self._modes()
        return Formulation(
            sizes=sizes,
            alpha=alpha,
            covariance=np.array(self.activation.covariance, dtype=np.float64),
            offset=self.noise_std**2 + float(resolved.power),
            overlap_exponents=np.array(resolved.exponents, dtype=np.int64),
            overlap_coefficients=np.array(resolved.coefficients, dtype=np.float64),
            a0=np.array(a0, dtype=np.float64),
            v0=np.array(self._group_overlaps(), dtype=np.float64).reshape(groups, latent),
            correlation_s0=s0,
            correlation_t0=t0,
            train_second_layer=self.train_second_layer,
            residual_sector=True,
            clock=clock,
            infinite_width=self.infinite_width,
        )

    def _group_overlaps(self) -> FloatArray:
        """(G, k) overlaps of one neuron of each group."""
        v0 = np.asarray(self.v0, dtype=np.float64)
        return v0.reshape(len(self._sizes()), -1)

    def _modes(self) -> tuple[FloatArray, FloatArray]:
        """C_S(0,0) (G, G) and C_T(0,0) (G,). A lone neuron has C_o = 0 and C_T = 1 by convention."""
        sizes = self._sizes()
        cross = np.array(self._cross_gram(), dtype=np.float64)
        lone = np.flatnonzero(sizes == 1)
        cross[lone, lone] = 0.0
        t0 = np.maximum(1.0 - np.diagonal(cross), 0.0)  # |v0| = 1 may leave -1e-16
        root = np.sqrt(sizes.astype(np.float64))
        s0 = root[:, None] * root * cross
        s0[np.diag_indices(len(sizes))] = np.diagonal(cross) * (sizes - 1) + 1.0
        return s0, t0

    def _check_gram(self) -> None:
        """The weights exist iff C(0,0) - V V^T is positive semidefinite (theory section 1)."""
        overlaps = self._group_overlaps()
        norms = np.sqrt((overlaps**2).sum(axis=1))
        if (norms > 1.0 + GRAM_TOLERANCE).any():
            raise ValueError(
                f"v0 must have norm <= 1 for every neuron (weights are unit vectors), not {norms.max():.17g}."
            )
        sizes = self._sizes()
        inside = np.diagonal(self._cross_gram())[sizes > 1]
        if (inside > 1.0 + GRAM_TOLERANCE).any():
            raise ValueError(
                f"{self._gram_name} must give overlaps <= 1 between the neurons of a group, not {inside.max():.17g}."
            )
        s0, _ = self._modes()
        modes = np.sqrt(sizes.astype(np.float64))[:, None] * overlaps
        lowest = float(np.linalg.eigvalsh(s0 - modes @ modes.T)[0])
        if lowest < -GRAM_TOLERANCE * np.trace(s0):
            raise ValueError(
                f"{self._gram_name} must leave the initial Gram matrix minus v0 v0^T positive semidefinite, "
                f"and its smallest eigenvalue is {lowest:.6g}."
            )

    def _warn_if_stuck(self, resolved: ResolvedTarget) -> None:
        """Say so when the overlap can never leave zero: v = 0 is then a fixed point (theory section 1)."""
        if resolved.power == 0.0 or np.any(self._group_overlaps()):
            return
        if np.any(resolved.gradient(np.zeros(resolved.latent_dimension))):
            return
        warnings.warn(
            "The target is never learnt from v0 = 0: phihat has no linear part (information exponent above one, or no "
            "overlap with the activation at all), so the overlap stays zero; give v0 != 0 to start off the saddle.",
            UserWarning,
            stacklevel=5,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkProblem(LearningProblem):
    """A network of finite width m, in either scaling of its second layer, on n = alpha m d samples."""

    alpha: float
    gamma0: ArrayLike | None = None

    def __post_init__(self) -> None:
        self._set(alpha=real("alpha", self.alpha, low=0.0, open_low=True))
        super().__post_init__()

    def _check_second_layer(self) -> None:
        if (self.a0 is None) == (self.gamma0 is None):
            raise ValueError(
                f"Exactly one of a0 and gamma0 (= a0 / sqrt(width)) must be given, "
                f"not a0 = {shown(self.a0)} and gamma0 = {shown(self.gamma0)}."
            )

    def _set_second_layer(self) -> None:
        name = "a0" if self.a0 is not None else "gamma0"
        self._set(**{name: self._second_layer(name, getattr(self, name))})

    def _initial_second_layer(self) -> FloatArray | float:
        if self.a0 is not None:
            return np.asarray(self.a0, dtype=np.float64)
        return np.asarray(self.gamma0, dtype=np.float64) * math.sqrt(self.width)

    def _samples(self) -> tuple[float, float]:
        return self.alpha, 1.0


def grouped_second_layer(name: str, value: Any, groups: int | None) -> FloatArray:
    """Check a0 or gamma0 as one number a group (any number of groups when ``groups`` is None)."""
    array = real_array(name, value, ndim=1, shape=None if groups is None else (groups,))
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one number, not {shown(value)}.")
    return array


def grouped_overlaps(value: Any, groups: int, latent_dimension: int) -> FloatArray:
    """Check v0 for groups: the number 0 for all, (G,) for one latent direction, (G, k) in general."""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_):
        number = real("v0", value)
        if latent_dimension > 1 and number != 0.0:
            raise ValueError(f"v0 must be 0 or of shape ({groups}, {latent_dimension}), not {shown(value)}.")
        value = np.full((groups, latent_dimension), number)
    shape = (groups, latent_dimension)
    if latent_dimension == 1 and np.ndim(value) == 1:
        return real_array("v0", value, ndim=1, shape=(groups,)).reshape(shape)
    return real_array("v0", value, ndim=2, shape=shape)


def common_overlap(value: Any, latent_dimension: int) -> FloatArray:
    """Check v0 of neurons that are all alike: the number 0, a number for one latent direction, or (k,)."""
    if np.ndim(value) == 0:
        number = real("v0", value)
        if latent_dimension > 1 and number != 0.0:
            raise ValueError(f"v0 must be 0 or a list of {latent_dimension} numbers, not {shown(value)}.")
        value = np.full(latent_dimension, number)
    return real_array("v0", value, ndim=1, shape=(latent_dimension,))
