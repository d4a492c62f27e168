"""Targets: y = phi(U^T x) + noise, through the two things of phi that enter the theory.

These are |phi|^2 = E phi(G)^2 and the overlap phihat(v) = E phi(G) sigma(G_v) with a neuron whose weights have
overlaps v in R^k with the k latent directions ([MU] section 2). Since phihat depends on the activation, a
:class:`Target` is what the user says about phi, and :meth:`Target.resolve` turns it into numbers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmft import _validate
from dmft.activations import MAX_DEGREE, Activation, hermite_values

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_CAUCHY_SCHWARZ_ROUNDING = 1e-12  # relative; equality (phi = sigma) is common, and is a sum of rounded quotients


@dataclass(frozen=True, eq=False, kw_only=True)
class ResolvedTarget:
    """A target as an activation sees it: the polynomial phihat(v), v in R^k, and |phi|^2.

    Attributes
    ----------
    exponents : (terms, k) int
        Exponents of the monomials of phihat; no rows for pure noise.
    coefficients : (terms,) float
        Their coefficients.
    power : float
        |phi|^2.
    """

    exponents: IntArray
    coefficients: FloatArray
    power: float

    @property
    def latent_dimension(self) -> int:
        """Number k of latent directions; 1 for pure noise."""
        return int(self.exponents.shape[1])

    def phihat(self, v: ArrayLike) -> Any:
        """Value phihat(v) at overlaps ``v`` of shape (..., k); the result has shape (...)."""
        points = self._points(v)
        monomials = np.prod(points[..., None, :] ** self.exponents, axis=-1)
        return (monomials @ self.coefficients)[()]

    def gradient(self, v: ArrayLike) -> FloatArray:
        """g(v) = grad phihat at overlaps ``v`` of shape (..., k); the result has that shape."""
        points = self._points(v)
        result = np.zeros(points.shape)
        for axis in range(self.latent_dimension):
            lowered = self.exponents.copy()
            lowered[:, axis] = np.maximum(lowered[:, axis] - 1, 0)
            monomials = np.prod(points[..., None, :] ** lowered, axis=-1)
            result[..., axis] = monomials @ (self.coefficients * self.exponents[:, axis])
        return result

    def _points(self, v: ArrayLike) -> FloatArray:
        points = np.asarray(v, dtype=np.float64)
        if points.ndim == 0 or points.shape[-1] != self.latent_dimension:
            raise ValueError(f"v must have shape (..., {self.latent_dimension}), not {points.shape}.")
        return points


@dataclass(frozen=True, eq=False, kw_only=True)
class TargetFunction:
    """phi itself, for networks on real inputs: a sum of products of orthonormal Hermite polynomials, or a named one.

    Attributes
    ----------
    exponents : (terms, k) int
        Degrees of the Hermite polynomials in each latent direction.
    coefficients : (terms,) float
        Their coefficients.
    unexplained : float
        Part of |phi|^2 that the overlap leaves open; to be drawn as independent Gaussian noise.
    activation : Activation or None
        Where phi is an activation, evaluated exactly.
    """

    exponents: IntArray
    coefficients: FloatArray
    unexplained: float = 0.0
    activation: Activation | None = None

    @property
    def latent_dimension(self) -> int:
        """Number k of latent directions."""
        return int(self.exponents.shape[1])

    def __call__(self, z: FloatArray) -> FloatArray:
        """phi(z) at latent coordinates ``z`` of shape (n, k); the result has shape (n,)."""
        if self.activation is not None:
            return np.asarray(self.activation.sigma(z[:, 0]), dtype=np.float64)
        he = [hermite_values(int(self.exponents[:, i].max(initial=0)), z[:, i]) for i in range(z.shape[1])]
        total: FloatArray = np.zeros(len(z))
        for exponents, coefficient in zip(self.exponents.tolist(), self.coefficients.tolist(), strict=True):
            total += coefficient * np.prod([he[i][e] for i, e in enumerate(exponents)], axis=0)
        return total


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """What is to be learnt.

    Build it with :meth:`same_as`, :meth:`from_overlap`, :meth:`from_hermite`, :meth:`named`, :meth:`noise`.

    Attributes
    ----------
    kind : str
        "same_as_activation", "overlap", "hermite", "name" or "noise".
    exponents : (terms, k) int
        Monomials of phihat ("overlap") or Hermite degrees ("hermite"), sorted by degree.
    coefficients : (terms,) float
        Coefficients of phihat or Hermite coefficients f_k of phi, none of them 0.
    power : float or None
        |phi|^2; None for "same_as_activation".
    activation : Activation or None
        The activation that :meth:`same_as` was given, or phi itself for :meth:`named`.
    """

    kind: str
    exponents: IntArray
    coefficients: FloatArray
    power: float | None
    activation: Activation | None = None

    @classmethod
    def same_as(cls, activation: Activation) -> Target:
        """Target phi = sigma, one latent direction: phihat = h, |phi|^2 = h(1), both of the truncated series.

        Raises
        ------
        TypeError
            If ``activation`` is not an :class:`Activation`.
        """
        if not isinstance(activation, Activation):
            raise TypeError(f"activation must be a dmft.Activation, not {_validate.shown(activation)}.")
        return cls._build("same_as_activation", {}, None, activation)

    @classmethod
    def from_overlap(cls, overlap: ArrayLike | Mapping[Any, float], power: float) -> Target:
        """Target given by its overlap phihat(v) and |phi|^2.

        Parameters
        ----------
        overlap : (degree + 1,) array_like or mapping
            Ascending coefficients of phihat(v), the first one 0; or, for k >= 1 latent directions, the coefficients of
            the monomials: {(e_1, ..., e_k): coefficient}, where "e_1,...,e_k" may stand for the tuple.
        power : float
            |phi|^2 >= 0. Whether some phi has both is checked against the activation by :meth:`resolve`.

        Raises
        ------
        TypeError, ValueError
            If these are not such numbers.
        """
        if isinstance(overlap, Mapping):
            terms = _monomials(overlap)
        else:
            terms = {(k,): float(c) for k, c in enumerate(_coefficient_list("overlap", overlap))}
        for exponents, coefficient in terms.items():
            if coefficient != 0 and not any(exponents):
                raise ValueError(
                    f"overlap must have no constant part (E sigma = 0 makes phihat(0) = 0), not {coefficient:g}."
                )
        return cls._build("overlap", terms, _validate.real("power", power, low=0))

    @classmethod
    def from_hermite(cls, hermite: ArrayLike) -> Target:
        """Target phi = sum_k hermite[k] he_k, he_k orthonormal, one latent direction: phihat(q) = sum_k s_k f_k q^k.

        Parameters
        ----------
        hermite : (degree + 1,) array_like
            The f_k; the first one 0, because a network of centred neurons cannot express a constant.

        Raises
        ------
        TypeError, ValueError
            If the coefficients are not such a list.
        """
        f = _coefficient_list("hermite", hermite)
        if f[0] != 0:
            raise ValueError(
                f"hermite[0] must be 0 (no constant part: E sigma = 0), not {_validate.shown(float(f[0]))}."
            )
        with np.errstate(over="ignore", under="ignore"):
            power = math.fsum(f**2)
        if not math.isfinite(power):
            raise ValueError(f"hermite must have a finite sum of squares, not {_validate.shown(hermite)}.")
        return cls._build("hermite", {(k,): float(c) for k, c in enumerate(f)}, power)

    @classmethod
    def named(cls, name: str, *, degree: int | None = None, **parameters: float) -> Target:
        """Target phi = a named function such as "tanh", its constant part removed, one latent direction.

        Parameters and errors are those of :meth:`Activation.named`. The overlap comes from the Hermite series up to
        ``degree``, |phi|^2 is that of the whole function.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on h''(1), of which a target has no use
            function = Activation.named(name, degree=degree, **parameters)
        assert function.hermite is not None
        power = math.fsum(function.hermite**2) + function.truncation_error
        terms: dict[tuple[int, ...], float] = {(k,): float(c) for k, c in enumerate(function.hermite)}
        return cls._build("name", terms, power, function)

    @classmethod
    def noise(cls) -> Target:
        """Target phi = 0: the labels are pure noise."""
        return cls._build("noise", {}, 0.0)

    @classmethod
    def _build(
        cls,
        kind: str,
        terms: Mapping[tuple[int, ...], float],
        power: float | None,
        activation: Activation | None = None,
    ) -> Target:
        latent_dimension = len(next(iter(terms), (0,)))
        kept = sorted((e for e, c in terms.items() if c != 0), key=lambda e: (sum(e), tuple(-n for n in e)))
        return cls(
            kind=kind,
            exponents=_frozen(np.array(kept, dtype=np.int64).reshape(len(kept), latent_dimension)),
            coefficients=_frozen(np.array([terms[e] for e in kept], dtype=np.float64)),
            power=power,
            activation=activation,
        )

    @property
    def latent_dimension(self) -> int:
        """Number k of latent directions; 1 for pure noise."""
        return int(self.exponents.shape[1])

    def resolve(self, activation: Activation) -> ResolvedTarget:
        """Find phihat and |phi|^2 for a network with this activation.

        Raises
        ------
        TypeError
            If ``activation`` is not an :class:`Activation`.
        ValueError
            If the target is that of :meth:`same_as` with another activation, or if no phi has the given overlap and
            power: with T_n the symmetric tensor of the degree-n part of phihat (its squared norm is the sum over
            monomials of coefficient^2 prod_i e_i!/n!), one exists iff sum_n |T_n|^2/s_n^2 <= |phi|^2.
        """
        if not isinstance(activation, Activation):
            raise TypeError(f"activation must be a dmft.Activation, not {_validate.shown(activation)}.")
        s = activation.series
        if self.kind == "same_as_activation":
            if self.activation is not None and not np.array_equal(self.activation.covariance, activation.covariance):
                raise ValueError(
                    f"target is the same as {_validate.shown(self.activation)}, which must also be the activation of "
                    f"the network, not {_validate.shown(activation)}."
                )
            degrees = np.flatnonzero(activation.covariance)
            return ResolvedTarget(
                exponents=_frozen(degrees.reshape(-1, 1).astype(np.int64)),
                coefficients=_frozen(activation.covariance[degrees]),
                power=math.fsum(activation.covariance),
            )
        assert self.power is not None  # only same_as_activation leaves it open
        if self.kind in ("hermite", "name"):
            degrees = self.exponents[:, 0]
            learnable = (degrees <= activation.degree) & (s[np.minimum(degrees, activation.degree)] != 0)
            degrees = degrees[learnable]
            return ResolvedTarget(
                exponents=_frozen(degrees.reshape(-1, 1)),
                coefficients=_frozen(s[degrees] * self.coefficients[learnable]),
                power=self.power,
            )
        self._check_power(activation)
        return ResolvedTarget(exponents=self.exponents, coefficients=self.coefficients, power=self.power)

    def function(self, activation: Activation) -> TargetFunction:
        """Phi itself, for a network with this activation; errors as :meth:`resolve`.

        Where only the overlap phihat is given, phi is the function of least norm that has it, with Hermite coefficient
        c_e/(s_n sqrt(n!/prod_i e_i!)) for the monomial c_e v^e of degree n.
        """
        resolved = self.resolve(activation)
        if self.kind == "same_as_activation":
            exponents = np.flatnonzero(activation.covariance).reshape(-1, 1)
            coefficients = activation.series[exponents[:, 0]]
            return TargetFunction(exponents=exponents, coefficients=coefficients, activation=activation)
        if self.kind != "overlap":
            function = self.activation if self.kind == "name" else None
            return TargetFunction(exponents=self.exponents, coefficients=self.coefficients, activation=function)
        coefficients = np.zeros(len(self.coefficients))
        for place, exponents in enumerate(self.exponents.tolist()):
            n = sum(exponents)
            multiplicity = math.factorial(n) / math.prod(math.factorial(e) for e in exponents)
            coefficients[place] = self.coefficients[place] / (activation.series[n] * math.sqrt(multiplicity))
        unexplained = max(resolved.power - math.fsum(coefficients**2), 0.0)
        return TargetFunction(exponents=self.exponents, coefficients=coefficients, unexplained=unexplained)

    def _check_power(self, activation: Activation) -> None:
        assert self.power is not None
        required = 0.0
        for exponents, coefficient in zip(self.exponents.tolist(), self.coefficients.tolist(), strict=True):
            n = sum(exponents)
            if n > activation.degree or activation.covariance[n] == 0:
                raise ValueError(
                    f"overlap has a part of degree {n}, {coefficient:g}, but the activation has none (s_{n} = 0), so "
                    "no target has this overlap."
                )
            # As Python integers: the factorials leave the range of a float at 171.
            symmetric = math.prod(math.factorial(e) for e in exponents) / math.factorial(n)
            required += coefficient * (coefficient / float(activation.covariance[n])) * symmetric
        if not required <= self.power * (1 + _CAUCHY_SCHWARZ_ROUNDING):
            raise ValueError(
                f"power must be at least {required:.17g} (Cauchy-Schwarz for this overlap and activation), "
                f"not {self.power:.17g}: no target has this overlap."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in a config, from which :meth:`from_dict` rebuilds the target exactly.

        The activation of :meth:`same_as` is not part of it.
        """
        if self.kind in ("same_as_activation", "noise"):
            return {self.kind: True}
        if self.kind == "name":
            assert self.activation is not None
            return self.activation.to_dict()
        if self.latent_dimension > 1:
            items = zip(self.exponents.tolist(), self.coefficients.tolist(), strict=True)
            overlap: Any = {",".join(map(str, exponents)): coefficient for exponents, coefficient in items}
            # No term at all would lose the number of latent directions.
            return {"overlap": overlap or {",".join("0" * self.latent_dimension): 0.0}, "power": self.power}
        dense = np.zeros(int(self.exponents.max(initial=0)) + 1)
        dense[self.exponents[:, 0]] = self.coefficients
        return {self.kind: dense.tolist()} | ({"power": self.power} if self.kind == "overlap" else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], activation: Activation | None = None) -> Target:
        """Build from one of the tables of a config.

        ``{"same_as_activation": True}``, ``{"overlap": [...], "power": ...}`` (the overlap a list or a table such as
        ``{"1,0": ...}``), ``{"hermite": [...]}``, ``{"name": "tanh"}`` or ``{"noise": True}``. Without ``activation``,
        "same_as_activation" is the same as whatever it is resolved with.

        Raises
        ------
        TypeError, ValueError
            If ``data`` is not one of these or a value in it is bad.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"target must be a table such as {{ noise = true }}, not {_validate.shown(data)}.")
        if "name" in data:
            return cls.named(**data)
        known = ["same_as_activation", "overlap", "hermite", "name", "noise"]
        kinds = [kind for kind in known if kind in data]
        if len(kinds) != 1:
            _validate.keys("target", data, [*known, "power"])
            raise ValueError(f"target must have exactly one of {', '.join(known)}, not {_validate.shown(dict(data))}.")
        (kind,) = kinds
        _validate.keys("target", data, [kind, "power"] if kind == "overlap" else [kind])
        if kind == "overlap":
            if "power" not in data:
                raise ValueError("target with an overlap must also have its power |phi|^2.")
            return cls.from_overlap(data["overlap"], data["power"])
        if kind == "hermite":
            return cls.from_hermite(data["hermite"])
        if not _validate.boolean(kind, data[kind]):
            raise ValueError(f"{kind} must be true when it is given, not false.")
        return cls.noise() if kind == "noise" else cls._build(kind, {}, None, activation)

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, Target) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def __repr__(self) -> str:
        return f"Target({self.to_dict()})"


def _coefficient_list(name: str, value: ArrayLike) -> FloatArray:
    coefficients = _validate.real_array(name, value, ndim=1)
    if not 1 <= len(coefficients) <= MAX_DEGREE + 1:
        raise ValueError(f"{name} must have 1 to {MAX_DEGREE + 1} coefficients, not {len(coefficients)}.")
    return coefficients


def _monomials(overlap: Mapping[Any, Any]) -> dict[tuple[int, ...], float]:
    """Exponents and coefficients of a polynomial given as a mapping."""
    terms: dict[tuple[int, ...], float] = {}
    for key, value in overlap.items():
        exponents = _exponents(key)
        if terms and len(exponents) != len(next(iter(terms))):
            raise ValueError(f"overlap must have keys of one length, one exponent a latent direction, not {key!r} too.")
        if exponents in terms:
            raise ValueError(f"overlap must give each monomial once, not {key!r} twice.")
        terms[exponents] = _validate.real(f"overlap[{key!r}]", value)
    if not terms:
        raise ValueError("overlap must have at least one monomial, not none.")
    return terms


def _exponents(key: Any) -> tuple[int, ...]:
    parts: Sequence[Any] = key if isinstance(key, tuple) else ()
    if isinstance(key, str):
        parts = [int(part) if part.strip().isdecimal() else part for part in key.split(",")]
    try:
        exponents = tuple(_validate.integer("exponent", part, low=0, high=MAX_DEGREE) for part in parts)
    except (TypeError, ValueError):
        exponents = ()
    if not exponents:
        raise ValueError(
            f"overlap must have keys of exponents >= 0, such as (1, 0) or '1,0' (at most {MAX_DEGREE}), not {key!r}."
        )
    return exponents


def _frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array
