"""Targets: what an activation sees of them, existence, and refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dmft.activations import Activation
from dmft.targets import Target

CUBIC = Activation.from_covariance([0, 0.9, 0, 1 / 6])


def test_same_as_activation_gives_h() -> None:
    for activation in (CUBIC, Activation.from_hermite([0, 0.5, -0.3]), Activation.named("erf")):
        resolved = Target.same_as(activation).resolve(activation)
        v = np.linspace(-1, 1, 7)
        np.testing.assert_allclose(resolved.phihat(v[:, None]), activation.h(v), rtol=1e-14)
        np.testing.assert_allclose(resolved.gradient(v[:, None])[:, 0], activation.dh(v), rtol=1e-14)
        assert resolved.power == pytest.approx(activation.h(1.0), rel=1e-15)
        assert resolved.latent_dimension == 1


def test_same_as_is_tied_to_its_activation() -> None:
    target = Target.same_as(CUBIC)
    target.resolve(Activation.from_covariance(CUBIC.covariance))  # equal is enough
    with pytest.raises(ValueError, match=r"target is the same as.*must also be the activation"):
        target.resolve(Activation.named("tanh"))
    unbound = Target.from_dict({"same_as_activation": True})
    assert unbound.resolve(Activation.named("he2")).coefficients.tolist() == [1.0]


def test_hermite_target_is_the_product_of_the_coefficients() -> None:
    activation = Activation.from_hermite([0, 0.5, 0, -0.25])
    resolved = Target.from_hermite([0, 2.0, 3.0, 4.0, 5.0]).resolve(activation)
    # Degrees 2 and 4 cannot be expressed: they are noise, and count in the power only.
    assert resolved.exponents.tolist() == [[1], [3]]
    assert resolved.coefficients.tolist() == [1.0, -1.0]
    assert resolved.power == 54.0
    # Signs unknown: s_k = +sqrt(c_k).
    positive = Target.from_hermite([0, 1.0, 0, 1.0]).resolve(CUBIC)
    assert positive.coefficients.tolist() == [math.sqrt(0.9), math.sqrt(1 / 6)]


def test_noise_has_no_terms() -> None:
    resolved = Target.noise().resolve(CUBIC)
    assert resolved.exponents.shape == (0, 1)
    assert resolved.power == 0
    assert resolved.phihat([0.3]) == 0
    assert resolved.gradient([0.3]).tolist() == [0]


def test_overlap_polynomial_in_three_latent_directions() -> None:
    activation = Activation.from_covariance([0, 0.5, 0.5, 0.5, 0.5])
    terms = {(1, 0, 0): 0.2, (0, 1, 1): -0.1, (2, 0, 0): 0.15, (1, 2, 1): 0.05}
    resolved = Target.from_overlap(terms, 5.0).resolve(activation)
    v = np.random.default_rng(0).uniform(-1, 1, (4, 2, 3))
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    expected = 0.2 * x - 0.1 * y * z + 0.15 * x**2 + 0.05 * x * y**2 * z
    np.testing.assert_allclose(resolved.phihat(v), expected, rtol=1e-14)
    gradient = [0.2 + 0.3 * x + 0.05 * y**2 * z, -0.1 * z + 0.1 * x * y * z, -0.1 * y + 0.05 * x * y**2]
    np.testing.assert_allclose(resolved.gradient(v), np.stack(gradient, axis=-1), rtol=1e-13, atol=1e-16)
    assert resolved.gradient(np.zeros(3)).tolist() == [0.2, 0, 0]
    assert resolved.latent_dimension == 3
    with pytest.raises(ValueError, match=r"v must have shape \(\.\.\., 3\)"):
        resolved.phihat([0.1, 0.2])


def test_keys_may_be_strings_as_in_a_config() -> None:
    assert Target.from_overlap({"1,0": 0.2, "0, 2": 0.1}, 1.0) == Target.from_overlap({(0, 2): 0.1, (1, 0): 0.2}, 1.0)
    assert Target.from_overlap({(1,): 0.2, (3,): 0.1}, 1.0) == Target.from_overlap([0, 0.2, 0, 0.1, 0], 1.0)


def test_overlap_exists_exactly_up_to_cauchy_schwarz() -> None:
    # phi = sigma saturates the bound, rounding included.
    resolved = Target.from_overlap(CUBIC.covariance, CUBIC.h(1.0)).resolve(CUBIC)
    assert resolved.coefficients.tolist() == [0.9, 1 / 6]
    bound = 0.7**2 / 0.9 + 0.1**2 * 6
    Target.from_overlap([0, 0.7, 0, 0.1], bound * (1 + 1e-14)).resolve(CUBIC)
    with pytest.raises(ValueError, match=r"power must be at least 0\.604444444.*not 0\.604444"):
        Target.from_overlap([0, 0.7, 0, 0.1], bound * (1 - 1e-9)).resolve(CUBIC)
    with pytest.raises(ValueError, match=r"degree 2, 0\.1, but the activation has none \(s_2 = 0\)"):
        Target.from_overlap([0, 0.7, 0.1], 10.0).resolve(CUBIC)
    with pytest.raises(ValueError, match="degree 5"):
        Target.from_overlap([0, 0, 0, 0, 0, 0.1], 10.0).resolve(CUBIC)


@pytest.mark.parametrize("rotation", [0.0, 0.3, math.pi / 4])
def test_bound_does_not_depend_on_the_basis_of_the_latent_space(rotation: float) -> None:
    # phihat = v_1^3 seen from rotated axes: (c x + s y)^3 needs the power 1/s_3^2 = 6 whatever the angle.
    c, s = math.cos(rotation), math.sin(rotation)
    terms = {(3, 0): c**3, (2, 1): 3 * c**2 * s, (1, 2): 3 * c * s**2, (0, 3): s**3}
    Target.from_overlap(terms, 6 * (1 + 1e-12)).resolve(CUBIC)
    with pytest.raises(ValueError, match="power must be at least"):
        Target.from_overlap(terms, 6 * (1 - 1e-9)).resolve(CUBIC)


def test_bound_against_a_sampled_target() -> None:
    # phi(x, y) = he_1(x) he_1(y), |phi|^2 = 1, sigma = he_2: phihat(v) = E phi(G) he_2(v.G) = sqrt(2) v_1 v_2.
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    x, y = np.meshgrid(nodes, nodes, indexing="ij")
    weight = np.outer(weights, weights) / (2 * math.pi)
    v = np.array([0.6, 0.8])
    he2 = Activation.named("he2")
    overlap = float(np.sum(weight * x * y * he2.sigma(v[0] * x + v[1] * y)))
    resolved = Target.from_overlap({(1, 1): math.sqrt(2)}, 1.0).resolve(he2)  # saturates the bound
    assert resolved.phihat(v) == pytest.approx(overlap, rel=1e-14)
    with pytest.raises(ValueError, match="power must be at least"):
        Target.from_overlap({(1, 1): 1.001 * math.sqrt(2)}, 1.0).resolve(he2)


def moment(function: Callable[[np.ndarray], np.ndarray]) -> float:
    """E function(G) by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    return float(weights @ function(nodes)) / math.sqrt(2 * math.pi)


def test_named_target_by_quadrature() -> None:
    target = Target.named("tanh")
    resolved = target.resolve(CUBIC)
    he3 = Activation.named("he3").sigma
    first, third = moment(lambda x: np.tanh(x) * x), moment(lambda x: np.tanh(x) * he3(x))
    assert resolved.exponents.tolist() == [[1], [3]]  # the others of tanh have no partner in the cubic
    np.testing.assert_allclose(resolved.coefficients, [first * 0.9**0.5, third * 6**-0.5], rtol=1e-9)
    # of the whole function, not of its series
    assert resolved.power == pytest.approx(moment(lambda x: np.tanh(x) ** 2), rel=1e-9)
    assert resolved.power == pytest.approx(Target.named("tanh", degree=3).resolve(CUBIC).power, rel=1e-9)
    assert Target.named("tanh", degree=2).resolve(CUBIC).exponents.tolist() == [[1]]
    np.testing.assert_allclose(target.function(CUBIC)(np.array([[0.3], [-2.0]])), np.tanh([0.3, -2.0]), rtol=1e-14)


def test_named_target_loses_its_constant_part() -> None:
    relu = Target.named("relu").function(CUBIC)
    z = np.array([[-1.0], [2.0]])
    mean = 1 / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(relu(z), np.array([0.0, 2.0]) - mean, rtol=1e-14)
    assert Target.named("relu").resolve(CUBIC).power == pytest.approx(0.5 - mean**2, rel=1e-12)
    leaky = Target.named("leaky_relu", slope=0.5).function(CUBIC)
    np.testing.assert_allclose(leaky(z), np.array([-0.5, 2.0]) - 0.5 * mean, rtol=1e-14)


def test_named_target_that_is_the_activation() -> None:
    erf = Activation.named("erf")
    resolved, same = Target.named("erf").resolve(erf), Target.same_as(erf).resolve(erf)
    assert resolved.exponents.tolist() == same.exponents.tolist()
    np.testing.assert_allclose(resolved.coefficients, same.coefficients, rtol=1e-14)


def test_hermite_target_function_keeps_what_cannot_be_learnt() -> None:
    phi = Target.from_hermite([0, 0.5, 0.25]).function(Activation.from_hermite([0, 1.0]))
    x = np.array([[0.7], [-1.3]])
    np.testing.assert_allclose(phi(x), 0.5 * x[:, 0] + 0.25 * (x[:, 0] ** 2 - 1) / math.sqrt(2), rtol=1e-14)
    assert phi.unexplained == 0.0


def test_noise_is_the_zero_function() -> None:
    phi = Target.noise().function(CUBIC)
    assert phi(np.ones((3, 1))).tolist() == [0, 0, 0] and phi.unexplained == 0.0


TARGETS = [
    Target.same_as(CUBIC),
    Target.named("tanh"),
    Target.named("relu", degree=6),
    Target.named("leaky_relu", slope=0.3),
    Target.noise(),
    Target.from_hermite([0, 1 / 3, 0, -0.1]),
    Target.from_overlap([0, 0.1, 1 / 7], 0.3),
    Target.from_overlap([0.0], 0.3),  # nothing that can be learnt
    Target.from_overlap({(1, 0): 0.1, (0, 2): 1 / 7}, 0.3),
    Target.from_overlap({(1, 0): 0.0}, 0.3),
]


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_round_trip_through_json_is_exact(target: Target) -> None:
    again = Target.from_dict(json.loads(json.dumps(target.to_dict())))
    assert again == target
    assert again.exponents.tolist() == target.exponents.tolist()
    assert again.exponents.shape == target.exponents.shape
    assert again.coefficients.tolist() == target.coefficients.tolist()
    assert again.power == target.power
    assert again != Target.from_hermite([0, 9.0])


def test_arrays_cannot_be_changed() -> None:
    target = Target.from_overlap([0, 0.1], 0.3)
    for array in (target.coefficients, target.exponents, Target.same_as(CUBIC).resolve(CUBIC).coefficients):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (TypeError, "activation must be a dmft.Activation.*'tanh'", lambda: Target.same_as("tanh")),  # type: ignore[arg-type]
    (TypeError, "activation must be a dmft.Activation", lambda: Target.noise().resolve([0, 1])),  # type: ignore[arg-type]
    (ValueError, r"overlap.*constant part.*0\.5", lambda: Target.from_overlap([0.5, 0.1], 1)),
    (ValueError, r"overlap.*constant part.*0\.5", lambda: Target.from_overlap({(0, 0): 0.5}, 1)),
    (ValueError, r"power.*>= 0.*-1", lambda: Target.from_overlap([0, 0.1], -1)),
    (ValueError, r"power.*nan", lambda: Target.from_overlap([0, 0.1], math.nan)),
    (TypeError, r"power.*True", lambda: Target.from_overlap([0, 0.1], True)),
    (TypeError, r"overlap.*'ab'", lambda: Target.from_overlap("ab", 1)),
    (ValueError, r"overlap.*inf", lambda: Target.from_overlap([0, math.inf], 1)),
    (ValueError, r"overlap must have 1 to", lambda: Target.from_overlap([], 1)),
    (ValueError, r"overlap.*at least one monomial", lambda: Target.from_overlap({}, 1)),
    (ValueError, r"keys of one length.*\(1, 0\)", lambda: Target.from_overlap({(1,): 1, (1, 0): 1}, 1)),
    (ValueError, r"each monomial once", lambda: Target.from_overlap({(1, 0): 1, "1,0": 1}, 1)),
    (ValueError, r"exponents >= 0.*\(-1, 2\)", lambda: Target.from_overlap({(-1, 2): 1}, 1)),
    (ValueError, r"exponents >= 0.*'x'", lambda: Target.from_overlap({"x": 1}, 1)),
    (ValueError, r"exponents >= 0.*99999", lambda: Target.from_overlap({(99999,): 1}, 1)),
    (TypeError, r"overlap\['1,0'\].*'a'", lambda: Target.from_overlap({"1,0": "a"}, 1)),  # type: ignore[dict-item]
    (ValueError, r"hermite\[0\] must be 0.*0\.5", lambda: Target.from_hermite([0.5, 1])),
    (ValueError, r"hermite.*finite", lambda: Target.from_hermite([0, 1e200])),
    (ValueError, r"'rellu'.*'relu'", lambda: Target.named("rellu")),
    (ValueError, r"slope", lambda: Target.named("tanh", slope=0.1)),
    (ValueError, r"degree.*0", lambda: Target.named("tanh", degree=0)),
    (ValueError, r"overlap", lambda: Target.from_dict({"name": "tanh", "overlap": [0, 1]})),
    (TypeError, r"target must be a table", lambda: Target.from_dict("noise")),  # type: ignore[arg-type]
    (ValueError, r"exactly one of", lambda: Target.from_dict({})),
    (ValueError, r"exactly one of", lambda: Target.from_dict({"noise": True, "hermite": [0, 1]})),
    (ValueError, r"'hermit'.*did you mean 'hermite'", lambda: Target.from_dict({"hermit": [0, 1]})),
    (ValueError, r"unknown key 'power'", lambda: Target.from_dict({"hermite": [0, 1], "power": 1})),
    (ValueError, r"must also have its power", lambda: Target.from_dict({"overlap": [0, 1]})),
    (ValueError, r"noise must be true", lambda: Target.from_dict({"noise": False})),
    (TypeError, r"same_as_activation must be true", lambda: Target.from_dict({"same_as_activation": 1})),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD, ids=[message for _, message, _ in BAD])
def test_bad_input_is_refused_in_one_sentence(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
