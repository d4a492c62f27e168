"""Activations: the function h(q) through which sigma enters the theory.

With sigma = sum_k s_k he_k, he_k = He_k/sqrt(k!) the orthonormal Hermite polynomials, and G, G_q standard Gaussians
of correlation q ([MU] section 2),

    h(q) = E sigma(G) sigma(G_q) = sum_k s_k^2 q^k ,        s_0 = E sigma(G) = 0 .

The engines see only the coefficients of a polynomial h, so a named activation is its Hermite series up to a degree,
together with the error that this makes in h(1).

To add a named activation write one function sigma(x) and one line in ``_FAMILIES``.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmft import _validate

FloatArray = NDArray[np.float64]

MAX_DEGREE = 4096
"""Highest degree of a Hermite series; the quadrature below resolves he_k up to there."""

_ROUNDING = 1e-15  # Hermite coefficients below this multiple of the norm of sigma are rounding (about 1e-16) around 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Activation:
    """An activation, centred (E sigma(G) = 0), as a power series for h.

    Build it with :meth:`named`, :meth:`from_covariance`, :meth:`from_hermite` or :meth:`from_function`.

    Attributes
    ----------
    name : str
        Name of the family ("relu", "he3", ...), or "covariance" or "hermite" for explicit coefficients.
    covariance : (degree + 1,) float
        Ascending coefficients s_k^2 of h(q); the first is 0, the last is not.
    hermite : (degree + 1,) float or None
        Orthonormal Hermite coefficients s_k of sigma; None when only their squares are known.
    truncation_error : float
        What the series leaves out of h(1) = Var sigma(G).
    finite_curvature : bool
        False if h''(1) of the full series is infinite (relu, leaky_relu): then the theory exists for the truncated
        series only, and results must be extrapolated in the degree (:func:`extrapolate_degree`).
    mean : float
        The constant part E sigma(G) that was removed.
    parameters : tuple of (str, float)
        Parameters of a named family, such as the slope of leaky_relu.
    """

    name: str
    covariance: FloatArray
    hermite: FloatArray | None
    truncation_error: float = 0.0
    finite_curvature: bool = True
    mean: float = 0.0
    parameters: tuple[tuple[str, float], ...] = ()

    # -- construction ------------------------------------------------------------------------------------------

    @classmethod
    def from_covariance(
        cls, covariance: ArrayLike, *, truncation_error: float = 0.0, finite_curvature: bool = True
    ) -> Activation:
        """Activation with h(q) = sum_k covariance[k] q^k.

        Parameters
        ----------
        covariance : (degree + 1,) array_like
            Ascending, not negative, the first one 0, at least one positive.
        truncation_error, finite_curvature : optional
            See the class; to be given when the coefficients are those of a series cut short.

        Raises
        ------
        TypeError, ValueError
            If the coefficients are not such a list.
        """
        coefficients = _validate.real_array("covariance", covariance, ndim=1)
        for k in np.flatnonzero(coefficients < 0)[:1]:
            raise ValueError(f"covariance[{k}] must be >= 0 (it is a square s_k^2), not {coefficients[k]:g}.")
        return cls(
            name="covariance",
            covariance=_power_series("covariance", coefficients),
            hermite=None,
            truncation_error=_validate.real("truncation_error", truncation_error, low=0),
            finite_curvature=_validate.boolean("finite_curvature", finite_curvature),
        )

    @classmethod
    def from_hermite(
        cls, hermite: ArrayLike, *, truncation_error: float = 0.0, finite_curvature: bool = True
    ) -> Activation:
        """Activation sigma = sum_k hermite[k] he_k with he_k orthonormal.

        Parameters
        ----------
        hermite : (degree + 1,) array_like
            The first one 0 (E sigma = 0), at least one not.
        truncation_error, finite_curvature : optional
            See the class; to be given when the coefficients are those of a series cut short.

        Raises
        ------
        TypeError, ValueError
            If the coefficients are not such a list.
        """
        coefficients = _validate.real_array("hermite", hermite, ndim=1)
        with np.errstate(over="ignore", under="ignore"):
            covariance = _power_series("hermite", coefficients**2)
        return cls(
            name="hermite",
            covariance=covariance,
            hermite=_frozen(coefficients[: len(covariance)]),
            truncation_error=_validate.real("truncation_error", truncation_error, low=0),
            finite_curvature=_validate.boolean("finite_curvature", finite_curvature),
        )

    @classmethod
    def from_function(
        cls, function: Callable[[FloatArray], ArrayLike], *, degree: int = 64, finite_curvature: bool = True
    ) -> Activation:
        """Hermite series of any function, its constant part removed.

        Parameters
        ----------
        function : callable
            Vectorised sigma(x). Projected to rounding if it is smooth apart from kinks or jumps at multiples of 1/8 and
            grows no faster than x^10.
        degree : int
            Where the series is cut.
        finite_curvature : bool
            To be given as False if sigma' jumps: h''(1) = E sigma''(G)^2 is infinite then.

        Raises
        ------
        TypeError, ValueError
            If the function does not return finite numbers, one for each argument, or the degree is out of range.
        """
        series = _project(function, _validate.integer("degree", degree, low=1, high=MAX_DEGREE))
        hermite = series.hermite.copy()
        hermite[0] = 0.0
        if not hermite.any():
            raise ValueError(f"function must not be constant up to its Hermite degree {degree}.")
        left_out = _left_out(series.variance, hermite)
        activation = cls.from_hermite(hermite, truncation_error=left_out, finite_curvature=finite_curvature)
        return replace(activation, mean=float(series.hermite[0]))

    @classmethod
    def named(cls, name: str, *, degree: int | None = None, **parameters: float) -> Activation:
        """A known activation as its Hermite series, its constant part removed.

        Parameters
        ----------
        name : str
            "erf" (erf(x)), "gelu" (x Phi(x)), "leaky_relu", "relu", "swish" (x/(1 + exp(-x))), "tanh", or "he3",
            "hermite3", ... for one orthonormal Hermite polynomial.
        degree : int, optional
            Where the series is cut. The default leaves out less than 1e-12 of h(1) for the smooth ones (tanh 87,
            erf 53, gelu 32, swish 28), which is less than 1e-7 h''(1) of h''(1), and is 64 for relu and leaky_relu.
        **parameters : float
            slope=0.01 for "leaky_relu".

        Raises
        ------
        TypeError, ValueError
            If the name, the degree or a parameter is unknown or out of range.

        Warns
        -----
        UserWarning
            If h''(1) is infinite, with the truncation error.
        """
        activation = cls._expand(name, degree, parameters)
        if not activation.finite_curvature and activation.truncation_error > 0:
            warnings.warn(
                f"activation {activation.name!r} is used as its Hermite series up to degree {activation.degree}, which "
                f"leaves {activation.truncation_error:.1e} out of h(1) = {activation.closed_form(1.0):.3g}; h''(1) of "
                "the full series is infinite, so results converge only like degree**-0.5: compare several degrees and "
                "extrapolate (dmft.activations.extrapolate_degree).",
                UserWarning,
                stacklevel=2,
            )
        return activation

    @classmethod
    def _expand(cls, name: str, degree: int | None, parameters: Mapping[str, float]) -> Activation:
        family = _family(name)
        for key in parameters:
            if key not in family.parameters:
                known = ", ".join(family.parameters) or "none"
                raise ValueError(f"{key} is not a parameter of activation {name!r}, whose parameters are: {known}.")
        values = {key: _validate.real(key, parameters.get(key, default)) for key, default in family.parameters.items()}
        cut = _validate.integer(
            "degree", family.degree if degree is None else degree, low=family.lowest_degree, high=MAX_DEGREE
        )
        if family.hermite is None:
            series = _project(family.sigma, cut)
        else:
            series = _Series(family.hermite(cut, **values), math.nan)
        hermite = series.hermite.copy()
        hermite[0] = 0.0
        full = series.variance if family.closed_form is None else float(family.closed_form(np.float64(1.0), **values))
        activation = cls.from_hermite(
            hermite, truncation_error=_left_out(full, hermite), finite_curvature=family.finite_curvature
        )
        return replace(
            activation, name=family.name, mean=float(series.hermite[0]), parameters=tuple(sorted(values.items()))
        )

    # -- the functions -----------------------------------------------------------------------------------------

    @property
    def degree(self) -> int:
        """Degree of the polynomial h."""
        return len(self.covariance) - 1

    @property
    def series(self) -> FloatArray:
        """The s_k, shape (degree + 1,), with the convention s_k >= 0 when only the squares are known."""
        return _frozen(np.sqrt(self.covariance)) if self.hermite is None else self.hermite

    def h(self, q: ArrayLike) -> Any:
        """h(q) of the truncated series, elementwise."""
        return _polynomial(self.covariance, 0, q)

    def dh(self, q: ArrayLike) -> Any:
        """h'(q) of the truncated series, elementwise."""
        return _polynomial(self.covariance, 1, q)

    def d2h(self, q: ArrayLike) -> Any:
        """h''(q) of the truncated series, elementwise."""
        return _polynomial(self.covariance, 2, q)

    def closed_form(self, q: ArrayLike) -> Any:
        """h(q) of the full series, |q| <= 1, elementwise, where it is known.

        Known for erf, gelu, relu, leaky_relu, Hermite polynomials, and explicit coefficients that are not truncated.

        Raises
        ------
        ValueError
            If it is not known, or |q| > 1.
        """
        argument = np.asarray(q, dtype=np.float64)
        if not (np.abs(argument) <= 1 + 1e-9).all():  # 1e-9: correlations that are 1 up to the error of a solver
            raise ValueError(f"q must lie in [-1, 1], not {_validate.shown(q)}.")
        argument = np.clip(argument, -1.0, 1.0)
        family = self._named_family()
        if family is not None and family.closed_form is not None:
            return family.closed_form(argument, **dict(self.parameters))[()]
        if family is None and self.truncation_error == 0:
            return self.h(argument)
        raise ValueError(f"activation {self.name!r} has no closed-form h; use h, its Hermite series.")

    def sigma(self, x: ArrayLike) -> Any:
        """Centred activation at ``x``, elementwise: exact for a named one, otherwise the Hermite series."""
        argument = np.asarray(x, dtype=np.float64)
        family = self._named_family()
        if family is not None:
            return (family.sigma(argument, **dict(self.parameters)) - self.mean)[()]
        return _hermite_sum(self.series, argument)[()]

    def truncated(self, degree: int) -> Activation:
        """The same activation cut at another degree (for a named one also a higher degree).

        Raises
        ------
        TypeError, ValueError
            If the degree is out of range or nothing is left of h.
        """
        cut = _validate.integer("degree", degree, low=1, high=max(MAX_DEGREE, self.degree))
        if self._named_family() is not None:
            return self._expand(self.name, cut, dict(self.parameters))
        dropped = float(self.covariance[cut + 1 :].sum())
        if self.hermite is None:
            shorter = Activation.from_covariance(self.covariance[: cut + 1])
        else:
            shorter = Activation.from_hermite(self.hermite[: cut + 1])
        return replace(
            shorter,
            truncation_error=self.truncation_error + dropped,
            finite_curvature=self.finite_curvature,
            mean=self.mean,
        )

    def _named_family(self) -> _Family | None:
        return None if self.name in ("covariance", "hermite") else _family(self.name)

    # -- plain data --------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in a config, from which :meth:`from_dict` rebuilds the activation exactly."""
        if self._named_family() is not None:
            return {"name": self.name, "degree": self.degree, **dict(self.parameters)}
        values = self.covariance if self.hermite is None else self.hermite
        data: dict[str, Any] = {self.name: values.tolist()}
        if self.truncation_error:
            data["truncation_error"] = self.truncation_error
        if not self.finite_curvature:
            data["finite_curvature"] = False
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Activation:
        """Build from ``{"covariance": [...]}``, ``{"hermite": [...]}`` or ``{"name": "relu", ...}``.

        Raises
        ------
        TypeError, ValueError
            If ``data`` is not one of these or a value in it is bad.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f'activation must be a table such as {{ name = "tanh" }}, not {_validate.shown(data)}.')
        kinds = [kind for kind in ("covariance", "hermite", "name") if kind in data]
        if len(kinds) != 1:
            raise ValueError(
                f"activation must have exactly one of covariance, hermite, name, not {_validate.shown(dict(data))}."
            )
        if kinds == ["name"]:
            family = _family(data["name"])
            _validate.keys("activation", data, ["name", "degree", *family.parameters])
            return cls.named(**data)
        _validate.keys("activation", data, [*kinds, "truncation_error", "finite_curvature"])
        options = {key: value for key, value in data.items() if key not in kinds}
        build = cls.from_covariance if kinds == ["covariance"] else cls.from_hermite
        return build(data[kinds[0]], **options)

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, Activation) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def __repr__(self) -> str:
        return f"Activation({self.to_dict()})"


class Extrapolation(NamedTuple):
    """A value at infinite degree, and how far it can be trusted."""

    value: Any
    error: Any


def extrapolate_degree(values: ArrayLike, degrees: Sequence[int]) -> Extrapolation:
    """Limit of a result that converges like degree^(-1/2), as for relu.

    Fits a + b degree^(-1/2) to two degrees, a + b degree^(-1/2) + c degree^(-1) by least squares to three or more.

    Parameters
    ----------
    values : (degrees, ...) array_like
        The result at each degree; numbers or whole curves.
    degrees : (degrees,) sequence of int
        Different degrees, at least two; a factor of two between them is a good choice. For relu take even ones.

    Returns
    -------
    Extrapolation
        ``value`` is a. ``error`` is its distance from the same fit with fewer terms or degrees (the largest of these);
        with two degrees, from the result at the higher one.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two degrees, two are equal, or the lengths differ.
    """
    given = [_validate.integer("degrees", degree, low=1) for degree in degrees]
    if len(given) < 2 or len(set(given)) < len(given):
        raise ValueError(f"degrees must be at least two different ones, not {_validate.shown(degrees)}.")
    data = np.asarray(values, dtype=np.float64)
    if data.ndim == 0 or len(data) != len(given):
        raise ValueError(f"values must have one entry for each of the {len(given)} degrees, not shape {data.shape}.")
    order = np.argsort(given)
    x = np.array(given, dtype=np.float64)[order] ** -0.5
    rows = data[order].reshape(len(x), -1)

    def limit(points: slice, terms: int) -> FloatArray:
        basis = x[points, None] ** np.arange(terms)
        return np.linalg.lstsq(basis, rows[points], rcond=None)[0][0]

    if len(x) == 2:
        value = limit(slice(None), 2)
        error = np.abs(value - rows[-1])
    else:
        value = limit(slice(None), 3)
        error = np.abs(value - limit(slice(-2, None), 2))
        if len(x) > 3:
            error = np.maximum(error, np.abs(value - limit(slice(1, None), 3)))
    shape = data.shape[1:]
    return Extrapolation(value.reshape(shape)[()], error.reshape(shape)[()])


# -- named activations -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Family:
    """A named activation before it is expanded.

    sigma(x, **parameters) is all that is needed; ``closed_form`` is h(q) without the constant part, ``hermite`` gives
    the s_k up to a degree where there is a formula (s_0 included), otherwise they are found by quadrature.
    """

    name: str
    sigma: Callable[..., FloatArray]
    degree: int
    lowest_degree: int = 1
    parameters: Mapping[str, float] = field(default_factory=dict)
    closed_form: Callable[..., FloatArray] | None = None
    hermite: Callable[..., FloatArray] | None = None
    finite_curvature: bool = True


def _leaky_relu(x: FloatArray, slope: float = 0.0) -> FloatArray:
    return np.where(x > 0, x, slope * x)


def _leaky_relu_h(q: FloatArray, slope: float = 0.0) -> FloatArray:
    # E relu(G) relu(G_q) = [sqrt(1-q^2) + q (pi - arccos q)]/(2 pi), Cho & Saul, minus its value and slope at q = 0;
    # leaky_relu = (1 + slope)/2 x + (1 - slope) (relu(x) - x/2).
    root = np.sqrt((1 - q) * (1 + q))
    even = (q * np.arcsin(q) - q**2 / (1 + root)) / (2 * math.pi)  # root - 1 = -q^2/(1 + root), without cancellation
    return (1 + slope) ** 2 / 4 * q + (1 - slope) ** 2 * even


def _leaky_relu_hermite(degree: int, slope: float = 0.0) -> FloatArray:
    s = np.zeros(max(degree, 2) + 1)
    s[0], s[1], s[2] = 1 / math.sqrt(2 * math.pi), 0.5, 0.5 / math.sqrt(math.pi)
    for k in range(2, degree - 1, 2):  # s_k = E relu''(G) he_{k-2}(G)/sqrt(k (k-1)), relu'' = delta
        s[k + 2] = -s[k] * (k - 1) / math.sqrt((k + 1) * (k + 2))
    s *= 1 - slope
    s[1] = (1 + slope) / 2
    return s[: degree + 1]


def _tanh(x: FloatArray) -> FloatArray:
    return np.tanh(x)


def _erf(x: FloatArray) -> FloatArray:
    from scipy.special import erf

    return erf(x)


def _erf_h(q: FloatArray) -> FloatArray:
    return 2 / math.pi * np.arcsin(2 * q / 3)


def _erf_hermite(degree: int) -> FloatArray:
    # c_k = coefficients of h; arcsin(z) = sum_j (2j)!/(4^j j!^2 (2j+1)) z^(2j+1); the signs of the s_k alternate.
    s = np.zeros(degree + 1)
    central = 1.0  # (2j)!/(4^j j!^2)
    for j in range((degree + 1) // 2):
        s[2 * j + 1] = (-1) ** j * math.sqrt(2 / math.pi * central / (2 * j + 1) * (2 / 3) ** (2 * j + 1))
        central *= (2 * j + 1) / (2 * j + 2)
    return s


def _gelu(x: FloatArray) -> FloatArray:
    from scipy.special import ndtr

    return x * ndtr(x)


def _gelu_h(q: FloatArray) -> FloatArray:
    # Gaussian integration by parts: E G Phi(G) G_q Phi(G_q) = 1/(2 pi sqrt(4-q^2)) + q/4 + q arcsin(q/2)/(2 pi).
    return (1 / np.sqrt((2 - q) * (2 + q)) - 0.5 + q * np.arcsin(q / 2)) / (2 * math.pi) + q / 4


def _swish(x: FloatArray) -> FloatArray:
    from scipy.special import expit

    return x * expit(x)


_FAMILIES = {
    family.name: family
    for family in [
        _Family(
            name="relu",
            sigma=_leaky_relu,
            degree=64,
            closed_form=_leaky_relu_h,
            hermite=_leaky_relu_hermite,
            finite_curvature=False,
        ),
        _Family(
            name="leaky_relu",
            sigma=_leaky_relu,
            degree=64,
            parameters={"slope": 0.01},
            closed_form=_leaky_relu_h,
            hermite=_leaky_relu_hermite,
            finite_curvature=False,
        ),
        _Family(name="tanh", sigma=_tanh, degree=87),
        _Family(name="erf", sigma=_erf, degree=53, closed_form=_erf_h, hermite=_erf_hermite),
        _Family(name="gelu", sigma=_gelu, degree=32, closed_form=_gelu_h),
        _Family(name="swish", sigma=_swish, degree=28),
    ]
}


def _hermite_family(k: int) -> _Family:
    """The activation he_k, for which h(q) = q^k."""

    def unit(degree: int) -> FloatArray:
        return _frozen(np.eye(1, degree + 1, k)[0])

    return _Family(
        name=f"he{k}",
        sigma=lambda x: _hermite_sum(unit(k), x),
        degree=k,
        lowest_degree=k,
        closed_form=lambda q: q**k,
        hermite=unit,
    )


def _family(name: str) -> _Family:
    if not isinstance(name, str):
        raise TypeError(f"activation name must be a string, not {_validate.shown(name)}.")
    if name in _FAMILIES:
        return _FAMILIES[name]
    monomial = re.fullmatch(r"(?:he|hermite)(\d{1,4})", name)
    if monomial and 1 <= int(monomial[1]) <= MAX_DEGREE:
        return _hermite_family(int(monomial[1]))
    known = ", ".join(sorted(_FAMILIES))
    hint = _validate.nearest(name, _FAMILIES)
    raise ValueError(f"activation name must be one of {known} or he1, he2, ..., not {name!r}{hint}.")


# -- Hermite series --------------------------------------------------------------------------------------------


class _Series(NamedTuple):
    hermite: FloatArray
    variance: float


def _project(function: Callable[[FloatArray], ArrayLike], degree: int) -> _Series:
    """s_k = E f(G) he_k(G) up to ``degree``, and Var f(G), by quadrature.

    16-point Gauss-Legendre on panels of width 1/8 in [-16, 16]. One factor sqrt(density) of the weight goes with the
    polynomial into psi_k = he_k sqrt(density), |psi_k| < 1, which the three-term recurrence gives stably at any degree;
    the other, times x^10, is below 1e-15 at the ends. 16 points resolve psi_k, of local wave number <= sqrt(k + 1/2),
    to rounding up to k = MAX_DEGREE; a kink at a panel edge costs nothing.
    """
    nodes, weights = np.polynomial.legendre.leggauss(16)
    centres = (np.arange(-128, 128) + 0.5) / 8
    x = (centres[:, None] + nodes / 16).ravel()
    root = np.exp(-(x**2) / 4) / (2 * math.pi) ** 0.25
    values = np.asarray(function(x), dtype=np.float64)
    if values.shape != x.shape or not np.isfinite(values).all():
        raise ValueError("function must return one finite number for each argument.")
    weighted = values * root * np.tile(weights / 16, len(centres))
    s = np.empty(degree + 1)
    psi, following = root, x * root
    for k in range(degree + 1):
        s[k] = weighted @ psi
        psi, following = following, (x * following - math.sqrt(k + 1) * psi) / math.sqrt(k + 2)
    centred = (values - s[0]) * root
    variance = float(centred**2 @ np.tile(weights / 16, len(centres)))
    s[np.abs(s) < _ROUNDING * math.hypot(math.sqrt(variance), s[0])] = 0.0
    return _Series(s, variance)


def hermite_values(degree: int, x: FloatArray) -> list[FloatArray]:
    """Orthonormal Hermite polynomials he_0 to he_degree at ``x``."""
    values = [np.ones(x.shape), x]
    for k in range(1, degree):
        values.append((x * values[k] - math.sqrt(k) * values[k - 1]) / math.sqrt(k + 1))
    return values[: degree + 1]


def _hermite_sum(s: FloatArray, x: FloatArray) -> FloatArray:
    """sum_k s_k he_k(x) by the three-term recurrence of the orthonormal polynomials."""
    total: FloatArray = np.zeros(x.shape)
    he, following = np.ones(x.shape), x
    for k, coefficient in enumerate(s):
        total = total + coefficient * he
        he, following = following, (x * following - math.sqrt(k + 1) * he) / math.sqrt(k + 2)
    return total


def _left_out(variance: float, hermite: FloatArray) -> float:
    """What sum_k s_k^2 lacks of the variance; 0 where the difference is rounding."""
    difference = variance - math.fsum(hermite**2)
    return difference if difference > _ROUNDING * variance else 0.0


def _power_series(name: str, covariance: FloatArray) -> FloatArray:
    """Check the coefficients of h and drop trailing zeros."""
    if len(covariance) and covariance[0] != 0:
        raise ValueError(f"{name}[0] must be 0 (E sigma = 0: no constant part), not {_validate.shown(covariance[0])}.")
    if not covariance.any():
        raise ValueError(f"{name} must have at least one coefficient that is not zero.")
    if not np.isfinite(covariance.sum()):
        raise ValueError(f"{name} must have coefficients whose sum of squares is finite.")
    return _frozen(covariance[: np.flatnonzero(covariance)[-1] + 1])


def _polynomial(coefficients: FloatArray, derivative: int, q: ArrayLike) -> Any:
    derived = np.polynomial.polynomial.polyder(coefficients, derivative)
    return np.polynomial.polynomial.polyval(np.asarray(q, dtype=np.float64), derived)


def _frozen(array: FloatArray) -> FloatArray:
    copy = np.array(array, dtype=np.float64)
    copy.flags.writeable = False
    return copy
