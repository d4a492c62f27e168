"""The Gaussian model: features and forces against dense tensors, laws of outputs and labels by sampling."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest

import dmft
from validation import gaussian_model
from validation.gaussian_model import GaussianModel, memory, monomials, pull_back
from validation.model import population_risk

D = 4
WORK = (*np.empty((2, 4), dtype=np.int64), *np.empty((2, 4)))
ACTIVATION = dmft.Activation.from_hermite([0, 0.7, -0.5, 0.4, 0.3])


def problem(activation: dmft.Activation = ACTIVATION, target: dmft.Target | None = None, **changes: Any) -> Any:
    defaults = {"alpha": 1.0, "noise_std": 0.5, "a0": [1.0, -0.5, 0.8]}
    target = dmft.Target.same_as(activation) if target is None else target
    return dmft.GeneralProblem(activation=activation, target=target, **(defaults | changes))


def model(samples: int, dimension: int = D, seed: int = 0, dtype: Any = np.float64, **options: Any) -> GaussianModel:
    return GaussianModel(problem(**options), dimension, samples, np.random.default_rng(seed), dtype)


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    w = rng.standard_normal(shape)
    return w / np.linalg.norm(w, axis=-1, keepdims=True)


def features(w: np.ndarray, degree: int) -> np.ndarray:
    out = np.empty(math.comb(len(w) + degree - 1, degree))
    monomials(w, degree, *WORK, out)
    return out


def sorted_indices(dimension: int, degree: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations_with_replacement(range(dimension), degree))


def multiplicity(indices: tuple[int, ...]) -> float:
    """Number of different orders of the indices, by making them all."""
    return float(len(set(itertools.permutations(indices))))


def dense(components: np.ndarray, dimension: int, degree: int) -> np.ndarray:
    """The symmetric tensor T with <T, w^(x)k> = <components, psi_k(w)>."""
    tensor = np.zeros((dimension,) * degree)
    for value, indices in zip(components, sorted_indices(dimension, degree), strict=True):
        for order in set(itertools.permutations(indices)):
            tensor[order] = value / math.sqrt(multiplicity(indices))
    return tensor


def contract(tensor: np.ndarray, w: np.ndarray, times: int) -> np.ndarray:
    for _ in range(times):
        tensor = tensor @ w
    return tensor


# ---------------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_features_are_the_dense_tensor_power(degree: int) -> None:
    rng = np.random.default_rng(degree)
    w, u = rng.standard_normal((2, D))
    power = w
    for _ in range(degree - 1):
        power = np.multiply.outer(power, w)
    # Orders of the same indices are the same entry of w^(x)k: sqrt(count) of it carries their common norm.
    expected = [math.sqrt(multiplicity(i)) * power[i] for i in sorted_indices(D, degree)]
    np.testing.assert_allclose(features(w, degree), expected, rtol=1e-14)
    np.testing.assert_allclose(features(w, degree) @ features(u, degree), (w @ u) ** degree, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dimension", [1, 2, 7])
def test_kernel_of_all_degrees_is_h(dimension: int) -> None:
    w, u = unit(np.random.default_rng(1), 2, dimension)
    s = ACTIVATION.series
    kernel = sum(s[k] ** 2 * features(w, k) @ features(u, k) for k in range(1, 5))
    assert kernel == pytest.approx(ACTIVATION.h(w @ u), rel=1e-13)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("dimension", [1, 2, D])
def test_pull_back_is_the_gradient(degree: int, dimension: int) -> None:
    rng = np.random.default_rng(10 * degree + dimension)
    w = rng.standard_normal(dimension)
    values = rng.standard_normal(math.comb(dimension + degree - 1, degree))
    start = rng.standard_normal(dimension)  # the gradient is added
    out = start.copy()
    pull_back(w, degree, *WORK, values, out)
    expected = degree * contract(dense(values, dimension, degree), w, degree - 1)
    np.testing.assert_allclose(out - start, expected, rtol=1e-12, atol=1e-13)
    step = 1e-5 * np.eye(dimension)
    slope = [(values @ features(w + e, degree) - values @ features(w - e, degree)) / 2e-5 for e in step]
    np.testing.assert_allclose(out - start, slope, rtol=1e-7, atol=1e-8)


def test_rank_is_the_place_in_lexicographic_order() -> None:
    for degree in (1, 2, 3, 4):
        for place, indices in enumerate(sorted_indices(5, degree)):
            exponents = [indices.count(i) for i in range(3)]
            if max(indices) < 3:
                assert gaussian_model._rank(exponents, 5) == place


# ---------------------------------------------------------------------------------------------------- outputs and force


def test_outputs_are_contractions_of_dense_tensors() -> None:
    one = model(3)
    weights = unit(np.random.default_rng(2), 3, D)
    outputs = one._outputs(weights)
    for i, row in enumerate(one._tensors):
        start = 0
        expected = np.zeros(3)
        for degree in (1, 2, 3, 4):
            size = math.comb(D + degree - 1, degree)
            tensor = dense(row[start : start + size], D, degree)
            expected += [contract(tensor, w, degree) for w in weights]
            start += size
        np.testing.assert_allclose(outputs[i], expected, rtol=1e-12, atol=1e-13)


def test_residuals_are_labels_minus_the_mean_output() -> None:
    one = model(5)
    rng = np.random.default_rng(3)
    weights, a = unit(rng, 3, D), rng.standard_normal(3)
    outputs = one._outputs(weights).copy()
    by_hand = [one.labels[i] - sum(a[j] * outputs[i, j] for j in range(3)) / 3 for i in range(5)]
    np.testing.assert_allclose(one.residuals(weights, a), by_hand, rtol=1e-13)


@pytest.mark.parametrize("hermite", [[0, 1.0], [0, 0.6, 0.4], [0, 0, 0, 0.5], [0, 0.7, -0.5, 0.4, 0.3]])
def test_force_is_minus_the_gradient_of_the_risk_times_n_over_d(hermite: list[float]) -> None:
    activation = dmft.Activation.from_hermite(hermite)
    target = dmft.Target.noise()
    samples = 9
    one = model(samples, activation=activation, target=target)
    rng = np.random.default_rng(4)
    weights, a = rng.standard_normal((3, D)), rng.standard_normal(3)  # the gradient is not that on the sphere

    def risk(change_w: Any = 0.0, change_a: Any = 0.0) -> float:
        return 0.5 * float(np.mean(one.residuals(weights + change_w, a + change_a) ** 2))

    step = 1e-5
    d_weights, d_a = one.force(weights, a)
    for i, j in itertools.product(range(3), range(D)):
        change = np.zeros((3, D))
        change[i, j] = step
        slope = (risk(change) - risk(-change)) / (2 * step)
        assert d_weights[i, j] == pytest.approx(-slope * samples / D, rel=1e-6, abs=1e-8)
    for i in range(3):
        change = step * np.eye(3)[i]
        slope = (risk(0.0, change) - risk(0.0, -change)) / (2 * step)
        assert d_a[i] == pytest.approx(-slope * samples / D, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("train_a", [False, True])
def test_descend_is_gradient_steps_with_unit_rows(train_a: bool) -> None:
    one = model(8)
    rng = np.random.default_rng(5)
    weights, a = unit(rng, 3, D), rng.standard_normal(3)
    twin_w, twin_a = weights.copy(), a.copy()
    for _ in range(3):
        d_w, d_a = one.force(twin_w, twin_a)
        twin_w = twin_w + 0.1 * d_w
        twin_w = np.array([row / np.linalg.norm(row) for row in twin_w])
        twin_a = twin_a + 0.1 * d_a * train_a
    one.descend(weights, a, 0.1, 3, train_a)
    np.testing.assert_allclose(weights, twin_w, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(a, twin_a, rtol=1e-13)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 1.0, rtol=1e-14)


# ---------------------------------------------------------------------------------------------------- laws


def z_score(samples: np.ndarray, expected: float) -> float:
    return float((samples.mean() - expected) / (samples.std(ddof=1) / math.sqrt(len(samples))))


TARGETS = {
    "same": dmft.Target.same_as(ACTIVATION),
    "hermite": dmft.Target.from_hermite([0, 0.5, 0.6, -0.7, 0.8, 0.3]),  # the degree 5 cannot be learnt
    "overlap": dmft.Target.from_overlap([0, 0.2, 0.1, -0.1], 1.0),
    "latents": dmft.Target.from_overlap({(1, 0): 0.2, (0, 1): -0.3, (1, 1): 0.15, (2, 1): 0.1, (2, 2): 0.05}, 1.5),
    "noise": dmft.Target.noise(),
}


@pytest.mark.parametrize("name", TARGETS)
def test_covariances_of_labels_and_outputs(name: str) -> None:
    """E y sigma(w) = phihat(v), E y^2 = tau^2 + |phi|^2, E sigma(w) sigma(w') = h(<w, w'>), each within 4 errors."""
    samples = 100_000
    one = model(samples, seed=7, target=TARGETS[name])
    target = one.problem.resolved_target()
    weights = np.array([[0.8, 0.6, 0, 0], [-0.6, 0.5, 0.5, np.sqrt(0.14)], [0.3, -0.9, 0.3, 0.1]])
    weights /= np.linalg.norm(weights, axis=1)[:, None]
    outputs = one._outputs(weights)
    k = target.latent_dimension
    for j, w in enumerate(weights):
        product = one.labels * outputs[:, j]
        assert abs(z_score(product, target.phihat(w[:k]))) < 4
        assert abs(z_score(outputs[:, j] * outputs[:, 0], ACTIVATION.h(w @ weights[0]))) < 4
        if name != "noise":  # so many samples tell the overlap from half of it
            assert abs(z_score(product, 0.5 * target.phihat(w[:k]))) > 4
    assert abs(z_score(one.labels**2, 0.25 + target.power)) < 4
    # Residuals of weights that have not seen the data: the population risk, from its formula.
    a = np.array([1.0, -0.5, 2.0])
    risk = population_risk(one.problem, target, weights, a, whole_activation=False)
    assert abs(z_score(0.5 * one.residuals(weights, a) ** 2, risk)) < 4


@pytest.mark.filterwarnings("ignore:activation 'relu'")
def test_population_risk_of_a_truncated_activation_is_that_of_the_series() -> None:
    """That of the whole relu is 4% off, and one with h whole and phihat cut 46% where the network is its target."""
    relu = dmft.Activation.named("relu", degree=4)
    one = model(100_000, activation=relu, noise_std=0.1, a0=[1.0])
    target, a = one.problem.resolved_target(), np.ones(1)
    for weights in (np.array([[1.0, 0, 0, 0]]), np.array([[0.8, 0.6, 0, 0]])):
        errors = 0.5 * one.residuals(weights, a) ** 2
        risk, whole = (population_risk(one.problem, target, weights, a, whole_activation=w) for w in (False, True))
        assert abs(z_score(errors, risk)) < 4
    assert abs(z_score(errors, whole)) > 4


def test_labels_are_independent_of_what_phi_does_not_see() -> None:
    one = model(60_000, seed=8, target=TARGETS["latents"])
    blind = np.array([[0, 0, 1.0, 0], [0, 0, 0, 1.0], [0, 0, 0.6, 0.8]])
    for output in one._outputs(blind).T:
        assert abs(z_score(one.labels * output, 0.0)) < 4


# ---------------------------------------------------------------------------------------------------- precision, memory


def test_single_precision_is_close_to_double() -> None:
    single, double = model(20, 10, dtype=np.float32), model(20, 10)
    assert single._tensors.dtype == np.float32
    double._tensors[:] = single._tensors
    double.labels[:] = single.labels
    rng = np.random.default_rng(6)
    weights, a = unit(rng, 3, 10), rng.standard_normal(3)
    np.testing.assert_allclose(single.residuals(weights, a), double.residuals(weights, a), rtol=0, atol=1e-5)
    assert not np.array_equal(single.residuals(weights, a), double.residuals(weights, a))
    for one, other in zip(single.force(weights, a), double.force(weights, a), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_labels_in_single_precision_have_the_same_law() -> None:
    one = model(60_000, seed=9, dtype=np.float32, target=TARGETS["overlap"])
    target = one.problem.resolved_target()
    output = one._outputs(np.array([[1.0, 0, 0, 0]] * 3))[:, 0]
    assert abs(z_score(one.labels * output, target.phihat([1.0]))) < 4
    assert abs(z_score(one.labels**2, 0.25 + target.power)) < 4


def test_degrees_above_four_are_refused() -> None:
    five = dmft.Activation.from_hermite([0, 1, 0, 0, 0, 0.1])
    with pytest.raises(ValueError, match=r"model 'gaussian' needs .* degree <= 4 .*, not 5; use model='network' or"):
        model(3, activation=five)
    with pytest.raises(ValueError, match="degree <= 4"):
        dmft.simulate(problem(five), 5, t_final=1.0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("covariance", [[0, 0.5, 0, 0.5], [0, 0, 0.5], [0, 0.9, 0, 0, 0.1]])
def test_memory_is_at_least_what_is_held_and_not_much_more(covariance: list[float], dtype: Any) -> None:
    activation = dmft.Activation.from_covariance(covariance)
    made = problem(activation, dmft.Target.noise())
    weights, a = unit(np.random.default_rng(0), 3, 14), np.ones(3)
    samples = 1000
    model(2, activation=activation, target=dmft.Target.noise(), dtype=dtype).force(weights[:, :D], a)  # compiled
    tracemalloc.start()
    try:
        one = GaussianModel(made, 14, samples, np.random.default_rng(0), dtype)
        one.force(weights, a)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    estimate = memory(made, 14, samples, np.dtype(dtype).itemsize)
    assert one._tensors.shape[1] == gaussian_model.components(made, 14)
    # Left out of the estimate on purpose: arrays of n and of n m numbers, and about 110 kB of Python and of buffers.
    assert estimate > peak - samples * 8 * 12 - 130_000
    assert estimate < 1.2 * peak
