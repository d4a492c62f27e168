"""Activations: coefficients against independent integrals, series against closed forms, and refusals."""

from __future__ import annotations

import json
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erf, expit, ndtr

from dmft.activations import Activation, extrapolate_degree

FloatArray = NDArray[np.float64]

SMOOTH: dict[str, Callable[[Any], Any]] = {
    "tanh": np.tanh,
    "erf": erf,
    "gelu": lambda x: x * ndtr(x),
    "swish": lambda x: x * expit(x),
}
CURVATURE: dict[str, Callable[[Any], Any]] = {  # (sigma', sigma'') by hand
    "tanh": lambda x: (1 / np.cosh(x) ** 2, -2 * np.tanh(x) / np.cosh(x) ** 2),
    "erf": lambda x: (2 / math.sqrt(math.pi) * np.exp(-(x**2)), -4 * x / math.sqrt(math.pi) * np.exp(-(x**2))),
    "gelu": lambda x: (ndtr(x) + x * density(x), (2 - x**2) * density(x)),
    "swish": lambda x: (
        expit(x) + x * expit(x) * expit(-x),
        expit(x) * expit(-x) * (2 + x * (expit(-x) - expit(x))),
    ),
}
# E sigma(G) he_k(G) by the trapezoid rule with 40 digits (mpmath, step 1/64, |x| < 14).
COEFFICIENTS = {
    "tanh": {
        1: 0.6057055096021589,
        3: -0.14843719078727272,
        9: 0.01741993142243614,
        21: 0.0012679738473579596,
        61: 6.468149575352435e-06,
        87: -5.531726429415319e-07,
    },
    "swish": {
        1: 0.5,
        2: 0.24808519283030006,
        4: -0.03780500880513109,
        10: 0.0011224964739563156,
        40: -5.4951257290711236e-08,
        61: 1.5827070232142965e-22,
        87: -9.995493475230879e-23,
    },
}


def density(x: Any) -> Any:
    return np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def expectation(values: Callable[[FloatArray], FloatArray]) -> float:
    """E f(G) by the trapezoid rule, exact to rounding for analytic f: nothing in common with the package's panels."""
    x = np.arange(-1600, 1601) / 100
    return float(np.sum(values(x) * density(x)) / 100)


def quiet(name: str, **options: Any) -> Activation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Activation.named(name, **options)


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_series_has_the_moments_of_the_function(name: str) -> None:
    sigma, activation = SMOOTH[name], Activation.named(name)
    mean = expectation(sigma)
    assert activation.mean == pytest.approx(mean, abs=1e-15)  # rounding
    # h(1) = Var sigma; the default degree promises 1e-12, and the stated error accounts for the rest to rounding.
    variance = expectation(lambda x: (sigma(x) - mean) ** 2)
    assert 0 < activation.truncation_error < 1e-12
    assert activation.h(1.0) + activation.truncation_error == pytest.approx(variance, abs=1e-15)
    # h'(1) = E sigma'^2 and h''(1) = E sigma''^2: the tail of the series costs k and k^2 more (docstring of named).
    assert activation.dh(1.0) == pytest.approx(expectation(lambda x: CURVATURE[name](x)[0] ** 2), rel=1e-9)
    assert activation.d2h(1.0) == pytest.approx(expectation(lambda x: CURVATURE[name](x)[1] ** 2), rel=1e-7)
    assert activation.finite_curvature


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_hermite_coefficients_against_forty_digits(name: str) -> None:
    s = Activation.named(name, degree=100).series
    for k, expected in COEFFICIENTS[name].items():
        assert (s[k] if k < len(s) else 0.0) == pytest.approx(expected, abs=3e-16), k  # sums of 4096 terms <= 1


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_odd_functions_have_no_even_coefficient_at_all(name: str) -> None:
    activation = Activation.named(name)
    assert not activation.covariance[::2].any()
    assert activation.covariance[1::2].all()


@pytest.mark.parametrize("name", ["gelu", "swish"])
def test_linear_plus_even_functions(name: str) -> None:
    activation = Activation.named(name)  # x/2 + even
    assert activation.series[1] == pytest.approx(0.5, abs=1e-15)
    assert not activation.covariance[3::2].any()


@pytest.mark.parametrize("name", ["erf", "gelu"])
def test_closed_form_agrees_with_the_series(name: str) -> None:
    activation = Activation.named(name)
    q = np.linspace(-1, 1, 41)
    tolerance = activation.truncation_error + 1e-15  # |tail(q)| <= tail(1)
    np.testing.assert_allclose(activation.h(q), activation.closed_form(q), rtol=0, atol=tolerance)


def test_erf_coefficients_have_the_signs_of_the_function() -> None:
    quadrature = Activation.from_function(erf, degree=53)
    np.testing.assert_allclose(Activation.named("erf").series, quadrature.series, rtol=0, atol=5e-16)


@pytest.mark.parametrize(("name", "options"), [("relu", {}), ("leaky_relu", {"slope": 0.2}), ("leaky_relu", {})])
def test_relu_closed_form_and_coefficients(name: str, options: dict[str, float]) -> None:
    slope = options.get("slope", 0.0 if name == "relu" else 0.01)
    activation = quiet(name, degree=2000, **options)
    quadrature = Activation.from_function(lambda x: np.where(x > 0, x, slope * x), degree=2000)
    np.testing.assert_allclose(activation.series, quadrature.series, rtol=0, atol=3e-16)
    # Correlations where the series has converged:
    q = np.array([-0.9, -0.3, 0.0, 1e-8, 0.5, 0.95])  # 0.95^2000 = 3e-45
    np.testing.assert_allclose(activation.closed_form(q), activation.h(q), rtol=1e-14, atol=1e-16)
    mean_square = (1 - slope) ** 2 / (2 * math.pi)
    assert activation.closed_form(1.0) == pytest.approx((1 + slope**2) / 2 - mean_square, rel=1e-15)
    assert activation.mean == pytest.approx(math.sqrt(mean_square), rel=1e-15)
    assert not activation.finite_curvature


def test_relu_states_its_error_and_warns() -> None:
    with pytest.warns(UserWarning, match=r"'relu'.*degree 64.*h''\(1\).*infinite.*extrapolate"):
        activation = Activation.named("relu")
    assert activation.degree == 64
    assert activation.h(1.0) + activation.truncation_error == pytest.approx(0.5 - 0.5 / math.pi, rel=1e-15)
    # s_k^2 falls like k^(-5/2), its tail like degree^(-3/2); 3% for the next order at degree 64.
    assert activation.truncation_error / activation.truncated(128).truncation_error == pytest.approx(2**1.5, rel=0.03)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Activation.named("tanh")
        assert Activation.named("leaky_relu", slope=1.0).truncation_error == 0  # the identity


def test_extrapolation_in_the_degree() -> None:
    degrees = [16, 32, 64, 128]
    relu = quiet("relu")
    slopes = np.array([relu.truncated(degree).dh(np.array([1.0, 0.5])) for degree in degrees])
    value, error = extrapolate_degree(slopes, degrees)
    exact = np.array([0.5, (math.pi - math.acos(0.5)) / (2 * math.pi)])  # E 1[G>0] 1[G_q>0]
    assert abs(slopes[-1, 0] - exact[0]) > 1e-2  # the truncated series is far off where q = 1
    assert np.all(np.abs(value - exact) <= np.maximum(error, 1e-4))
    assert np.all(error < 1e-3)
    # Exact on its own ansatz, in any order.
    x = np.array(degrees, dtype=float)
    model = 2 - 0.7 * x**-0.5 + 0.3 / x
    assert extrapolate_degree(model[::-1], degrees[::-1]).value == pytest.approx(2, abs=1e-12)
    two = extrapolate_degree(1 + x[:2] ** -0.5, degrees[:2])
    assert two.value == pytest.approx(1, abs=1e-12)
    assert two.error == pytest.approx(32**-0.5, abs=1e-12)
    for values, bad in [([1.0], [16]), ([1.0, 2.0], [16, 16]), ([1.0], [16, 32]), ([1.0, 2.0], [0, 16])]:
        with pytest.raises(ValueError, match=r"degrees|values"):
            extrapolate_degree(values, bad)


@pytest.mark.parametrize("name", ["he3", "hermite3"])
def test_hermite_polynomial(name: str) -> None:
    activation = Activation.named(name)
    assert activation.covariance.tolist() == [0, 0, 0, 1]
    assert activation.truncation_error == 0
    x = np.array([-1.5, 0.0, 2.0])
    np.testing.assert_allclose(activation.sigma(x), (x**3 - 3 * x) / math.sqrt(6), rtol=1e-14)
    assert activation.closed_form(0.5) == 0.125
    assert activation.to_dict() == {"name": "he3", "degree": 3}


@pytest.mark.parametrize("k", [2, 50, 1000, 4096])
def test_recurrence_at_high_degree(k: int) -> None:
    # he_k(0) = (-1)^(k/2) sqrt((k-1)!!/k!!); lgamma reaches 3e4 and is good to 1e-16 of that.
    at_zero = math.exp((math.lgamma(k + 1) / 2 - math.lgamma(k / 2 + 1)) - k / 2 * math.log(2))
    assert Activation.named(f"he{k}").sigma(0.0) == pytest.approx((-1) ** (k // 2) * at_zero, rel=1e-11)


@pytest.mark.parametrize(("c", "degree", "tolerance"), [(1.7, 41, 5e-16), (30.0, 1401, 1e-13), (58.0, 4095, 5e-13)])
def test_quadrature_at_high_degree(c: float, degree: int, tolerance: float) -> None:
    # sin(c x) = sum_j (-1)^j c^k exp(-c^2/2)/sqrt(k!) he_k, k = 2 j + 1: most of it at k near c^2.
    # The tolerance is the rounding of c x at |x| = 16 and of lgamma(k) = 3e4, times coefficients of about 0.1.
    k = np.arange(1, degree + 1, 2)
    logarithm = k * math.log(c) - c**2 / 2 - np.array([math.lgamma(n + 1) / 2 for n in k])
    series = Activation.from_function(lambda x: np.sin(c * x), degree=degree).series
    series = np.pad(series, (0, degree + 1 - len(series)))
    np.testing.assert_allclose(series[1::2], (-1.0) ** (k // 2) * np.exp(logarithm), rtol=0, atol=tolerance)
    assert np.abs(series[1::2]).max() > 0.08
    assert not series[::2].any()


def test_derivatives_and_pointwise_values() -> None:
    activation = Activation.from_hermite([0, 0.5, -0.25, 0, 0.125, 0, 0])
    assert activation.degree == 4  # trailing zeros carry nothing
    q = np.array([[-1.0, 0.3], [0.7, 1.0]])
    c = activation.covariance
    np.testing.assert_allclose(activation.h(q), c[1] * q + c[2] * q**2 + c[4] * q**4, rtol=1e-14)
    np.testing.assert_allclose(activation.dh(q), c[1] + 2 * c[2] * q + 4 * c[4] * q**3, rtol=1e-14)
    np.testing.assert_allclose(activation.d2h(q), 2 * c[2] + 12 * c[4] * q**2, rtol=1e-14)
    x = np.array([-2.0, 0.1, 3.0])
    he4 = (x**4 - 6 * x**2 + 3) / math.sqrt(24)
    expected = 0.5 * x - 0.25 * (x**2 - 1) / math.sqrt(2) + 0.125 * he4
    np.testing.assert_allclose(activation.sigma(x), expected, rtol=1e-13)
    np.testing.assert_allclose(activation.closed_form(q), activation.h(q), rtol=1e-14)
    linear = Activation.from_covariance([0, 2.0])
    assert linear.dh(0.3) == 2.0
    assert linear.d2h(0.3) == 0.0
    assert linear.hermite is None
    assert linear.series.tolist() == [0, math.sqrt(2)]


@pytest.mark.parametrize("name", [*SMOOTH, "relu"])
def test_named_sigma_is_exact_and_centred(name: str) -> None:
    sigma = SMOOTH.get(name, lambda x: np.maximum(x, 0))
    activation = quiet(name)
    x = np.linspace(-5, 5, 11)
    np.testing.assert_allclose(activation.sigma(x), sigma(x) - activation.mean, rtol=0, atol=1e-15)


def test_from_function_with_a_kink_off_the_origin() -> None:
    activation = Activation.from_function(lambda x: np.clip(x, -1, 1), degree=80, finite_curvature=False)
    variance = 2 * (ndtr(1.0) - 0.5 - density(1.0)) + 2 * ndtr(-1.0)  # E min(G^2, 1)
    assert activation.h(1.0) + activation.truncation_error == pytest.approx(variance, rel=1e-14)
    assert activation.truncation_error > 1e-6
    assert activation.series[1] == pytest.approx(2 * ndtr(1.0) - 1, abs=1e-15)  # E G sigma = E sigma'
    assert Activation.from_dict(activation.to_dict()) == activation


def test_truncation_adds_up() -> None:
    full = Activation.from_covariance([0, 0.5, 0.25, 0.125])
    short = full.truncated(2).truncated(1)
    assert short.covariance.tolist() == [0, 0.5]
    assert short.truncation_error == 0.375
    with pytest.raises(ValueError, match="no closed-form"):
        short.closed_form(0.5)
    tanh = Activation.named("tanh")
    assert tanh.truncated(9).truncated(87) == tanh
    assert tanh.truncated(10).degree == 9


ROUND_TRIPS = [
    Activation.from_covariance([0, 0.9, 0, 1 / 6]),
    Activation.from_hermite([0, 0.1, -1 / 3, 0]),
    Activation.from_covariance([0, 0.9, 1 / 3, 0.1]).truncated(2),
    Activation.named("tanh", degree=12),
    Activation.named("he4"),
    quiet("leaky_relu", slope=0.3, degree=20),
]


@pytest.mark.filterwarnings("ignore:activation")
@pytest.mark.parametrize("activation", ROUND_TRIPS, ids=repr)
def test_round_trip_through_json_is_exact(activation: Activation) -> None:
    again = Activation.from_dict(json.loads(json.dumps(activation.to_dict())))
    assert again == activation
    assert again.covariance.tolist() == activation.covariance.tolist()
    assert again.series.tolist() == activation.series.tolist()
    assert again.truncation_error == activation.truncation_error
    assert pickle.loads(pickle.dumps(activation)) == activation  # for worker processes
    assert activation != Activation.named("he7")


def test_arrays_cannot_be_changed() -> None:
    given = np.array([0, 1.0, 0.5])
    activation = Activation.from_covariance(given)
    given[1] = 7
    assert activation.covariance[1] == 1
    for array in (activation.covariance, activation.series, Activation.named("tanh").covariance):
        with pytest.raises(ValueError, match="read-only"):
            array[1] = 2.0


BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ValueError, r"covariance\[0\] must be 0.*0\.1", lambda: Activation.from_covariance([0.1, 1])),
    (ValueError, r"covariance\[2\] must be >= 0.*-1", lambda: Activation.from_covariance([0, 1, -1])),
    (ValueError, "covariance.*not zero", lambda: Activation.from_covariance([0, 0])),
    (ValueError, "covariance.*not zero", lambda: Activation.from_covariance([])),
    (ValueError, "covariance.*finite.*nan", lambda: Activation.from_covariance([0, math.nan])),
    (TypeError, "covariance.*'abc'", lambda: Activation.from_covariance("abc")),
    (TypeError, "covariance.*True", lambda: Activation.from_covariance([0, True])),
    (ValueError, "covariance.*shape", lambda: Activation.from_covariance([[0, 1]])),
    (ValueError, r"hermite\[0\]", lambda: Activation.from_hermite([0.5, 1])),
    (ValueError, "hermite.*finite", lambda: Activation.from_hermite([0, 1e200])),
    (ValueError, "'tahn'.*did you mean 'tanh'", lambda: Activation.named("tahn")),
    (ValueError, "'he0'", lambda: Activation.named("he0")),
    (TypeError, "name.*3", lambda: Activation.named(3)),  # type: ignore[arg-type]
    (ValueError, "slope is not a parameter.*none", lambda: Activation.named("tanh", slope=0.1)),
    (ValueError, "slope.*nan", lambda: Activation.named("leaky_relu", slope=math.nan)),
    (ValueError, "degree.*0", lambda: Activation.named("tanh", degree=0)),
    (ValueError, "degree.*>= 3.*2", lambda: Activation.named("he3", degree=2)),
    (TypeError, "degree.*2.5", lambda: Activation.named("tanh", degree=2.5)),  # type: ignore[arg-type]
    (ValueError, "degree.*4096", lambda: Activation.named("relu", degree=5000)),
    (ValueError, "no closed-form", lambda: Activation.named("tanh").closed_form(0.5)),
    (ValueError, r"q must lie in \[-1, 1\]", lambda: Activation.named("erf").closed_form(1.5)),
    (ValueError, "function.*finite", lambda: Activation.from_function(lambda x: x / 0.0 if x.ndim else x)),
    (ValueError, "function.*each argument", lambda: Activation.from_function(lambda x: 1.0)),
    (ValueError, "function.*constant", lambda: Activation.from_function(lambda x: 0 * x + 3)),
    (TypeError, "activation must be a table", lambda: Activation.from_dict("relu")),  # type: ignore[arg-type]
    (ValueError, "exactly one", lambda: Activation.from_dict({})),
    (ValueError, "exactly one", lambda: Activation.from_dict({"name": "tanh", "hermite": [0, 1]})),
    (ValueError, "'degre'.*did you mean 'degree'", lambda: Activation.from_dict({"name": "tanh", "degre": 3})),
    (ValueError, "unknown key 'degree'", lambda: Activation.from_dict({"hermite": [0, 1], "degree": 3})),
]


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize(("error", "message", "call"), BAD, ids=[message for _, message, _ in BAD])
def test_bad_input_is_refused_in_one_sentence(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
