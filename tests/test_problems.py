"""Problems: validation at construction, the group form they reduce to, and their plain-data form."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import neurons

from dmft.activations import Activation
from dmft.problems import (
    KINDS,
    GeneralProblem,
    GroupedProblem,
    NetworkProblem,
    Problem,
    PSpinProblem,
    SymmetricProblem,
    from_dict,
)
from dmft.targets import Target

CUBIC = Activation.from_covariance([0, 0.9, 0, 1 / 6])
EVEN = Activation.from_covariance([0, 0, 1.0])
TWO_LATENTS = Target.from_overlap({(1, 0): 0.3, (0, 1): 0.2, (1, 2): 0.05}, power=1.0)


def symmetric(**changes: Any) -> SymmetricProblem:
    given: dict[str, Any] = {
        "width": 16,
        "alpha": 0.3,
        "activation": CUBIC,
        "target": Target.same_as(CUBIC),
        "noise_std": 0.6,
        "a0": 1.0,
    }
    given |= changes
    return SymmetricProblem(**{key: value for key, value in given.items() if value is not ...})


def grouped(**changes: Any) -> GroupedProblem:
    given: dict[str, Any] = {
        "sizes": [3, 2],
        "alpha": 0.3,
        "activation": CUBIC,
        "target": Target.same_as(CUBIC),
        "noise_std": 0.6,
        "a0": [1.0, -1.0],
    }
    given |= changes
    return GroupedProblem(**{key: value for key, value in given.items() if value is not ...})


def general(**changes: Any) -> GeneralProblem:
    given: dict[str, Any] = {
        "alpha": 0.3,
        "activation": CUBIC,
        "target": Target.same_as(CUBIC),
        "noise_std": 0.6,
        "a0": [1.0, -1.0, 0.5],
    }
    given |= changes
    return GeneralProblem(**{key: value for key, value in given.items() if value is not ...})


def pspin(**changes: Any) -> PSpinProblem:
    return PSpinProblem(**({"covariance": [0, 0, 0, 1.0]} | changes))


GRAM = [[1.0, 0.9, 0.9], [0.9, 1.0, -0.9], [0.9, -0.9, 1.0]]  # smallest eigenvalue -0.8

# (maker, changes, exception, words that the sentence must hold)
BAD: list[tuple[Callable[..., Problem], dict[str, Any], type[Exception], list[str]]] = [
    (symmetric, {"width": 0}, ValueError, ["width", "0"]),
    (symmetric, {"width": -4}, ValueError, ["width", "-4"]),
    (symmetric, {"width": 16.0}, TypeError, ["width", "16.0"]),
    (symmetric, {"width": True}, TypeError, ["width", "True"]),
    (symmetric, {"width": "16"}, TypeError, ["width", "'16'"]),
    (symmetric, {"width": 10**30}, ValueError, ["width"]),
    (symmetric, {"alpha": 0.0}, ValueError, ["alpha", "> 0"]),
    (symmetric, {"alpha": -1}, ValueError, ["alpha", "-1"]),
    (symmetric, {"alpha": math.nan}, ValueError, ["alpha", "nan"]),
    (symmetric, {"alpha": math.inf}, ValueError, ["alpha", "inf"]),
    (symmetric, {"alpha": None}, TypeError, ["alpha", "None"]),
    (symmetric, {"noise_std": -0.1}, ValueError, ["noise_std", "-0.1"]),
    (symmetric, {"noise_std": 1j}, TypeError, ["noise_std", "1j"]),
    (symmetric, {"noise_std": 1e200}, ValueError, ["noise_std", "1e+200"]),
    (symmetric, {"noise_std": 0.0, "target": Target.noise()}, ValueError, ["noise_std", "> 0", "noise"]),
    (symmetric, {"activation": [0, 0.9]}, TypeError, ["activation", "[0, 0.9]"]),
    (symmetric, {"target": "noise"}, TypeError, ["target", "'noise'"]),
    (symmetric, {"target": Target.same_as(EVEN)}, ValueError, []),
    (symmetric, {"target": Target.from_overlap([0, 2.0], power=1.0)}, ValueError, ["power"]),
    (symmetric, {"gamma0": 1.0}, ValueError, ["a0", "gamma0", "1.0"]),
    (symmetric, {"a0": None}, ValueError, ["a0", "gamma0", "None"]),
    (symmetric, {"a0": [1.0]}, TypeError, ["a0", "[1.0]"]),
    (symmetric, {"a0": math.nan}, ValueError, ["a0", "nan"]),
    (symmetric, {"a0": ..., "gamma0": "big"}, TypeError, ["gamma0", "'big'"]),
    (symmetric, {"v0": 1.1}, ValueError, ["v0", "1.1", "<= 1"]),
    (symmetric, {"v0": [0.1, 0.2]}, ValueError, ["v0", "(1,)"]),
    (symmetric, {"v0": "0.1"}, TypeError, ["v0", "'0.1'"]),
    (symmetric, {"v0": math.nan}, ValueError, ["v0", "nan"]),
    (symmetric, {"target": TWO_LATENTS, "v0": 0.3}, ValueError, ["v0", "0.3", "2"]),
    (symmetric, {"target": TWO_LATENTS, "v0": [0.8, 0.7]}, ValueError, ["v0", "<= 1", "1.063"]),
    (symmetric, {"train_second_layer": 1}, TypeError, ["train_second_layer", "1"]),
    (symmetric, {"train_second_layer": "yes"}, TypeError, ["train_second_layer", "'yes'"]),
    (grouped, {"sizes": []}, ValueError, ["sizes", "[]"]),
    (grouped, {"sizes": [3, 0]}, ValueError, ["sizes[1]", "0"]),
    (grouped, {"sizes": [3, 2.5]}, TypeError, ["sizes[1]", "2.5"]),
    (grouped, {"sizes": 5}, TypeError, ["sizes", "5"]),
    (grouped, {"sizes": [2**31 - 1, 2]}, ValueError, ["sizes", "2147483649"]),
    (grouped, {"a0": 1.0}, ValueError, ["a0", "(2,)"]),
    (grouped, {"a0": [1.0]}, ValueError, ["a0", "(2,)", "[1.0]"]),
    (grouped, {"a0": [1.0, "x"]}, TypeError, ["a0", "'x'"]),
    (grouped, {"a0": ..., "gamma0": [1.0, math.inf]}, ValueError, ["gamma0", "inf"]),
    (grouped, {"v0": [0.1, 0.2, 0.3]}, ValueError, ["v0", "(2,)"]),
    (grouped, {"v0": [0.1, -1.2]}, ValueError, ["v0", "1.2"]),
    (grouped, {"target": TWO_LATENTS, "v0": [0.1, 0.2]}, ValueError, ["v0", "(2, 2)"]),
    (grouped, {"cross_gram0": [[0.1, 0.2]]}, ValueError, ["cross_gram0", "(2, 2)"]),
    (grouped, {"cross_gram0": [[0.1, 0.2], [0.3, 0.1]]}, ValueError, ["cross_gram0", "symmetric"]),
    (grouped, {"cross_gram0": [[1.5, 0.0], [0.0, 0.0]]}, ValueError, ["cross_gram0", "1.5", "<= 1"]),
    (grouped, {"cross_gram0": [[-0.6, 0.0], [0.0, 0.0]]}, ValueError, ["cross_gram0", "semidefinite", "-0.2"]),
    (grouped, {"cross_gram0": [[0.0, 0.0], [0.0, 0.0]], "v0": [0.9, 0.9]}, ValueError, ["cross_gram0", "semidefinite"]),
    (general, {"a0": []}, ValueError, ["a0", "[]"]),
    (general, {"a0": 1.0}, ValueError, ["a0", "1.0"]),
    (general, {"a0": [[1.0, 2.0]]}, ValueError, ["a0"]),
    (general, {"a0": [1.0, True]}, TypeError, ["a0", "True"]),
    (general, {"gamma0": [1.0, 1.0, 1.0]}, ValueError, ["a0", "gamma0"]),
    (general, {"gram0": [[1.0, 0.0], [0.0, 1.0]]}, ValueError, ["gram0", "(3, 3)"]),
    (general, {"gram0": [[1.0, 0.0], [0.0]]}, ValueError, ["gram0"]),
    (general, {"gram0": GRAM}, ValueError, ["gram0", "semidefinite", "-0.8"]),
    (general, {"gram0": np.eye(3) * 2}, ValueError, ["gram0", "unit diagonal", "2.0"]),
    (general, {"gram0": np.eye(3) + np.eye(3, k=1) * 0.1}, ValueError, ["gram0", "symmetric"]),
    (general, {"gram0": np.eye(3), "v0": [0.9, 0.9, 0.0]}, ValueError, ["gram0", "semidefinite", "-0.62"]),
    (general, {"gram0": np.full((3, 3), math.nan)}, ValueError, ["gram0", "nan"]),
    (pspin, {"covariance": []}, ValueError, ["covariance", "[]"]),
    (pspin, {"covariance": [0.0, 0.0]}, ValueError, ["covariance", "positive"]),
    (pspin, {"covariance": [0.5, 0.0, 1.0]}, ValueError, ["covariance", "0.5", "constant"]),
    (pspin, {"covariance": [0.0, -1.0, 1.0]}, ValueError, ["covariance", "-1.0", ">= 0"]),
    (pspin, {"covariance": "q^3"}, TypeError, ["covariance", "'q^3'"]),
    (pspin, {"covariance": [0.0, math.nan]}, ValueError, ["covariance", "nan"]),
    (pspin, {"covariance": [[0.0, 1.0]]}, ValueError, ["covariance"]),
]


@pytest.mark.parametrize(("make", "changes", "error", "words"), BAD, ids=lambda x: str(x)[:40] if x else "")
def test_bad_input_is_refused_in_one_sentence(
    make: Callable[..., Problem], changes: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        make(**changes)
    assert type(caught.value) is error
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and len(message) < 300
    for word in words:
        assert word in message


def test_positional_arguments_and_assignment_are_refused() -> None:
    with pytest.raises(TypeError):
        PSpinProblem([0, 0, 1.0])  # type: ignore[call-arg]
    problem = symmetric()
    with pytest.raises(AttributeError):
        problem.alpha = 1.0  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        problem.v0[0] = 0.5  # type: ignore[index]


def test_width_is_required() -> None:
    with pytest.raises(TypeError, match="width"):
        symmetric(width=...)


EVERY: list[Problem] = [
    symmetric(v0=0.1),
    symmetric(a0=..., gamma0=0.7, width=1, target=Target.noise()),
    symmetric(target=TWO_LATENTS, v0=[0.1, 0.2], train_second_layer=False),
    grouped(v0=[0.1, -0.2], cross_gram0=[[0.05, -0.02], [-0.02, 0.04]]),
    grouped(sizes=[7, 1], a0=..., gamma0=[1 / 3, -0.1]),
    general(gram0=[[1, 0, 1], [0, 1, 0], [1, 0, 1]]),
    general(target=TWO_LATENTS, v0=[[0.1, 0.2], [0, 0], [0.3, 1 / 7]]),
    pspin(),
]


@pytest.mark.parametrize("problem", EVERY, ids=lambda p: p.kind)
def test_plain_data_round_trip_is_exact(problem: Problem) -> None:
    data = json.loads(json.dumps(problem.to_dict(), allow_nan=False))
    again = from_dict(data)
    assert type(again) is type(problem)
    assert again == problem and hash(again) == hash(problem)
    assert again.to_dict() == problem.to_dict()
    one, two = problem.formulation(), again.formulation()
    for name in one.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_problems_differ_when_a_parameter_does() -> None:
    assert symmetric() != symmetric(alpha=math.nextafter(0.3, 1))
    assert symmetric() != symmetric(v0=1e-300)
    assert symmetric(width=4, a0=2.0) != symmetric(width=4, a0=..., gamma0=1.0)
    assert pspin() != symmetric()
    assert pspin() != "pspin"


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ({}, ValueError, ["kind", "symmetric, grouped, general, pspin"]),
        ({"kind": "symetric"}, ValueError, ["kind", "'symetric'", "did you mean 'symmetric'"]),
        ({"kind": 3}, ValueError, ["kind", "3"]),
        ([1, 2], TypeError, ["mapping", "[1, 2]"]),
        ({"kind": "pspin"}, ValueError, ["covariance", "missing"]),
        ({"kind": "pspin", "covariance": [0, 1.0], "alpha": 1.0}, ValueError, ["'alpha'", "pspin"]),
    ],
)
def test_bad_plain_data_is_refused(data: Any, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        from_dict(data)
    for word in words:
        assert word in str(caught.value)


def test_registry_names_every_kind() -> None:
    assert list(KINDS) == ["symmetric", "grouped", "general", "pspin", "infinite_width"]
    assert all(problem.kind == kind for kind, problem in KINDS.items())


# The group form.


def test_symmetric_formulation() -> None:
    form = symmetric(v0=0.5).formulation()
    assert form.sizes.tolist() == [16] and form.width == 16 and form.groups == 1
    assert form.offset == pytest.approx(0.36 + 0.9 + 1 / 6, rel=1e-15)
    assert form.a0.tolist() == [1.0] and form.v0.tolist() == [[0.5]]
    # C_o(0,0) = |v0|^2: exact in binary for v0 = 1/2.
    assert form.correlation_s0.tolist() == [[1 + 15 * 0.25]] and form.correlation_t0.tolist() == [0.75]
    assert form.train_second_layer and form.residual_sector


def test_gamma0_is_a0_over_root_width() -> None:
    assert symmetric(a0=..., gamma0=0.75).formulation().a0.tolist() == [3.0]
    assert general(a0=..., gamma0=[1.0, 0.0, -2.0, 3.0]).formulation().a0.tolist() == [2.0, 0.0, -4.0, 6.0]


def test_width_one_has_no_t_mode() -> None:
    form = symmetric(width=1, v0=0.3).formulation()
    assert form.correlation_s0.tolist() == [[1.0]] and form.correlation_t0.tolist() == [1.0]
    form = grouped(sizes=[1, 4], v0=[0.3, 0.3]).formulation()
    assert form.correlation_s0[0, 0] == 1.0 and form.correlation_t0[0] == 1.0


def test_pspin_formulation_makes_the_memory_kernel_bare() -> None:
    form = pspin().formulation()
    assert not form.residual_sector and not form.train_second_layer
    assert form.alpha / form.width * form.a0[0] ** 2 == 1.0
    assert form.correlation_s0.tolist() == [[1.0]] and form.covariance.tolist() == [0, 0, 0, 1]


def test_noise_has_no_overlap_terms() -> None:
    form = symmetric(target=Target.noise()).formulation()
    assert form.offset == 0.6**2 and len(form.overlap_coefficients) == 0 and form.v0.shape == (1, 1)


def test_grouped_and_general_expand_to_the_same_neurons() -> None:
    cross = np.array([[0.05, -0.02], [-0.02, 0.04]])
    v0 = np.array([0.1, -0.15])
    one = neurons(grouped(v0=v0, cross_gram0=cross).formulation())
    group = np.array([0, 0, 0, 1, 1])
    gram = cross[np.ix_(group, group)]
    np.fill_diagonal(gram, 1.0)
    two = neurons(general(a0=[1.0] * 3 + [-1.0] * 2, v0=v0[group], gram0=gram).formulation())
    np.testing.assert_allclose(one.gram0, gram, atol=1e-15, rtol=0)  # rounding of sqrt(m_g m_h)
    np.testing.assert_array_equal(two.gram0, gram)
    np.testing.assert_array_equal(one.a0, two.a0)
    np.testing.assert_array_equal(one.v0, two.v0)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    latent=st.integers(1, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_default_gram_is_that_of_random_weights_with_the_given_overlaps(
    sizes: list[int], latent: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    v0 = random.normal(size=(len(sizes), latent))
    v0 *= (random.uniform(size=len(sizes)) / np.linalg.norm(v0, axis=1))[:, None]
    target = TWO_LATENTS if latent == 2 else Target.same_as(CUBIC)
    problem = grouped(sizes=sizes, a0=np.ones(len(sizes)), v0=v0, target=target)
    net = neurons(problem.formulation())
    expected = net.v0 @ net.v0.T
    np.fill_diagonal(expected, 1.0)
    # Products and square roots of numbers of order one, a few roundings each.
    np.testing.assert_allclose(net.gram0, expected, atol=1e-14, rtol=0)


def test_measured_gram_matrices_are_accepted() -> None:
    # Rank-deficient Gram matrices of vectors normalised in double precision miss semidefiniteness by rounding.
    random = np.random.default_rng(0)
    for _ in range(50):
        w = random.normal(size=(6, 3))
        w /= np.linalg.norm(w, axis=1)[:, None]
        problem = general(a0=np.ones(6), gram0=w @ w.T, v0=w[:, 0])
        assert problem.formulation().correlation_s0.shape == (6, 6)


@pytest.mark.parametrize("width", [2, 1000, 2**31 - 1])
@pytest.mark.parametrize("v0", [0.0, 0.6, 1.0, -1.0])
def test_extreme_overlaps_are_accepted_at_every_width(width: int, v0: float) -> None:
    form = symmetric(width=width, v0=v0).formulation()
    assert form.correlation_t0[0] >= 0.0
    assert form.correlation_s0[0, 0] == pytest.approx(1 + (width - 1) * v0**2, rel=1e-15)


def test_unit_norm_overlap_in_two_directions_is_accepted() -> None:
    assert symmetric(target=TWO_LATENTS, v0=[0.6, 0.8]).formulation().correlation_t0[0] >= 0.0


# The stuck start.


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": EVEN, "target": Target.same_as(EVEN)},
        {"target": Target.from_overlap([0, 0, 0, 0.1], power=1.0)},
        {"target": Target.from_overlap({(1, 1): 0.0, (3, 0): 0.1}, power=1.0)},
    ],
)
def test_a_start_on_the_saddle_warns(changes: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="v0"):
        symmetric(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target": Target.noise()},
        {"activation": EVEN, "target": Target.noise()},
        {"activation": EVEN, "target": Target.same_as(EVEN), "v0": 0.01},
    ],
)
def test_other_starts_do_not_warn(changes: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem: NetworkProblem = symmetric(**changes)
    assert problem.width == 16
