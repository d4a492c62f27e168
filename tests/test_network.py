"""The true network: tables, forces and minibatches against obvious twins, targets by quadrature."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

import dmft
from dmft.activations import Activation
from dmft.targets import Target
from validation.gaussian_model import GaussianModel
from validation.model import population_risk
from validation.network import BLOCK, Network, Table, back, epochs

TANH = Activation.named("tanh", degree=21)
CUBIC = Activation.from_hermite([0, 0.7, -0.4, 0.3])
M, D = 3, 5


def problem(activation: Activation = TANH, target: Target | None = None, **changes: Any) -> Any:
    defaults = {"alpha": 1.0, "noise_std": 0.5, "a0": [1.0, -0.5, 0.8]}
    target = Target.same_as(activation) if target is None else target
    return dmft.GeneralProblem(activation=activation, target=target, **(defaults | changes))


def network(samples: int, dimension: int = D, seed: int = 0, tests: int = 0, **options: Any) -> Network:
    data, test = (np.random.default_rng([seed, i]) for i in range(2))
    return Network(problem(**options), dimension, samples, data, test, tests)


def state(seed: int = 1, dimension: int = D) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((M, dimension))
    return weights / np.linalg.norm(weights, axis=1)[:, None], rng.standard_normal(M)


# ---------------------------------------------------------------------------------------------------- table


def value_and_slope(activation: Activation, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the compiled pass takes for sigma(z) and sigma'(z), one sample and one neuron at a time."""
    table = Table.of(activation)
    arguments = (np.ones(1), table.coefficients, table.low, table.inverse_width, np.empty(1))
    minus, slope = np.empty(len(z)), z.reshape(-1, 1).copy()
    back(z.reshape(-1, 1).copy(), np.zeros(len(z)), *arguments, minus, np.zeros(1))
    back(slope, 1.0 - minus, *arguments, np.empty(len(z)), np.zeros(1))  # residuals of 1: what is left is the slope
    return -minus, slope[:, 0]


def normal(z: np.ndarray) -> np.ndarray:
    return np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


SLOPES = {
    "tanh": lambda z: 1 / np.cosh(z) ** 2,
    "erf": lambda z: 2 / math.sqrt(math.pi) * np.exp(-(z**2)),
    "gelu": lambda z: 0.5 * (1 + erf(z / math.sqrt(2))) + z * normal(z),
    "relu": lambda z: (z > 0).astype(float),
}


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.filterwarnings("ignore:activation 'relu'")
def test_table_of_an_activation(name: str) -> None:
    activation = Activation.named(name, degree=9)
    z = np.random.default_rng(0).uniform(-11.9, 11.9, 20_000)
    value, slope = value_and_slope(activation, z)
    # Cubic interpolation at Chebyshev points of cells 2^-8: (2^-9)^4 max|f''''|/(4! 2^3) = 8e-14 |f''''| for the value
    # and about 12 * 2^9 times that for the slope; |f''''| <= 16.
    np.testing.assert_allclose(value, activation.sigma(z), rtol=0, atol=2e-12)
    np.testing.assert_allclose(slope, SLOPES[name](z), rtol=0, atol=1e-8)


@pytest.mark.parametrize("hermite", [[0, 1.0], [0, 0.5, -0.4], [0, 0.3, 0.2, -0.7]])
def test_table_of_a_polynomial_is_exact(hermite: list[float]) -> None:
    activation = Activation.from_hermite(hermite)
    z = np.random.default_rng(0).uniform(-30, 30, 1000)
    value, slope = value_and_slope(activation, z)
    he = np.polynomial.hermite_e.HermiteE([c / math.sqrt(math.factorial(k)) for k, c in enumerate(hermite)])
    np.testing.assert_allclose(value, he(z), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(slope, he.deriv()(z), rtol=1e-12, atol=1e-12)
    assert len(Table.of(activation).coefficients) == 4


def test_table_of_a_quartic_is_interpolated() -> None:
    quartic = Activation.from_hermite([0, 0.3, 0.2, -0.7, 0.5])
    z = np.linspace(-11.99, 11.99, 3001)
    np.testing.assert_allclose(value_and_slope(quartic, z)[0], quartic.sigma(z), rtol=0, atol=2e-12 * 12**4)


@pytest.mark.parametrize("z", [12.0, -12.0, 12.5, -1e6, 1e300, np.inf, -np.inf, np.nan])
def test_arguments_beyond_the_table_are_safe(z: float) -> None:
    """They read within the table: the value at its end, and no address outside for infinities and NaN."""
    value, slope = value_and_slope(TANH, np.full(100, z))
    assert np.isfinite(value).all() and np.isfinite(slope).all()
    if not np.isnan(z):
        np.testing.assert_allclose(value, math.copysign(1.0, z), atol=1e-9)


# ---------------------------------------------------------------------------------------------------- labels, force


def test_residuals_by_hand() -> None:
    one = network(2 * BLOCK + 3)  # several blocks, the last one not full
    weights, a = state()
    f = sum(a[j] * np.tanh(one.inputs @ weights[j]) for j in range(M)) / M
    np.testing.assert_allclose(one.residuals(weights, a), one.labels - f, rtol=0, atol=1e-11)


@pytest.mark.parametrize("activation", [TANH, CUBIC], ids=["tanh", "cubic"])
def test_force_is_minus_the_gradient_of_the_risk_times_n_over_d(activation: Activation) -> None:
    samples = BLOCK + 11
    one = network(samples, activation=activation)
    weights, a = state()

    def risk(change_w: Any = 0.0, change_a: Any = 0.0) -> float:
        return 0.5 * float(np.mean(one.residuals(weights + change_w, a + change_a) ** 2))

    step = 1e-4
    d_weights, d_a = one.force(weights, a)
    for i, j in itertools.product(range(M), range(D)):
        change = np.zeros((M, D))
        change[i, j] = step
        slope = (risk(change) - risk(-change)) / (2 * step)
        assert d_weights[i, j] == pytest.approx(-slope * samples / D, rel=1e-5, abs=1e-5)
    for i in range(M):
        change = step * np.eye(M)[i]
        slope = (risk(0.0, change) - risk(0.0, -change)) / (2 * step)
        assert d_a[i] == pytest.approx(-slope * samples / D, rel=1e-6, abs=1e-6)


# ---------------------------------------------------------------------------------------------------- minibatches


@pytest.mark.parametrize("train_a", [False, True])
def test_descend_against_numpy(train_a: bool) -> None:
    n, batch, updates, step = 40, 7, 9, 0.2
    one = network(n)
    order = np.random.default_rng(3).integers(0, n, updates * batch)
    weights, a = state()
    twin_w, twin_a = weights.copy(), a.copy()
    for update in range(updates):
        chosen = order[update * batch : (update + 1) * batch]
        x, y = one.inputs[chosen], one.labels[chosen]
        r = y - np.tanh(x @ twin_w.T) @ twin_a / M
        # minus the gradient of (1/2b) sum r^2, with the learning rate step n/d
        rate = step * n / D
        grad_w = np.array(
            [np.mean(r * twin_a[j] / M * (1 - np.tanh(x @ twin_w[j]) ** 2) * x.T, axis=1) for j in range(M)]
        )
        grad_a = np.array([np.mean(r * np.tanh(x @ twin_w[j]) / M) for j in range(M)])
        twin_w = twin_w + rate * grad_w
        twin_w = twin_w / np.linalg.norm(twin_w, axis=1)[:, None]
        if train_a:
            twin_a = twin_a + rate * grad_a
    one.descend_batches(weights, a, step, batch, order, train_a)
    # slopes from the table are good to 1e-8
    np.testing.assert_allclose(weights, twin_w, rtol=0, atol=1e-7)
    np.testing.assert_allclose(a, twin_a, rtol=0, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 1.0, rtol=1e-13)


def test_a_batch_of_everything_is_gradient_descent() -> None:
    n = 50
    one = network(n, activation=CUBIC)
    weights, a = state()
    sgd_w, sgd_a = weights.copy(), a.copy()
    one.descend(weights, a, 0.1, 20, True)
    one.descend_batches(sgd_w, sgd_a, 0.1, n, epochs(np.random.default_rng(0), n, n)(20), True)
    np.testing.assert_allclose(sgd_w, weights, rtol=0, atol=1e-12)
    np.testing.assert_allclose(sgd_a, a, rtol=1e-12)


@pytest.mark.parametrize(("samples", "batch"), [(10, 3), (10, 5), (7, 7), (6, 1)])
def test_epochs_use_every_sample_at_most_once_and_reshuffle(samples: int, batch: int) -> None:
    order = epochs(np.random.default_rng(0), samples, batch)
    # Asked for in uneven portions.
    numbers = np.concatenate([order(updates) for updates in (1, 2, 5, 1, 31)])
    assert len(numbers) == 40 * batch
    used = samples // batch * batch
    rounds = [numbers[i : i + used] for i in range(0, len(numbers) - used + 1, used)]
    for one in rounds:
        assert len(set(one.tolist())) == used and one.min() >= 0 and one.max() < samples
    assert len({tuple(one) for one in rounds[:4]}) == 4
    assert set(numbers.tolist()) == set(range(samples))  # the left over ones are not always the same


# ---------------------------------------------------------------------------------------------------- test error


TARGETS = {
    "same tanh": (TANH, Target.same_as(TANH)),
    "same cubic": (CUBIC, Target.same_as(CUBIC)),
    "named": (CUBIC, Target.named("tanh", degree=21)),
    "hermite": (TANH, Target.from_hermite([0, 0.5, 0.3, -0.4])),
    "overlap": (CUBIC, Target.from_overlap([0, 0.2, 0.1, -0.1], 1.0)),
    "latents": (CUBIC, Target.from_overlap({(1, 0): 0.2, (0, 2): -0.1, (1, 1): 0.1, (2, 1): 0.05}, 1.0)),
    "noise": (CUBIC, Target.noise()),
}


@pytest.mark.parametrize("name", TARGETS)
def test_fresh_error_agrees_with_the_population_risk(name: str) -> None:
    activation, target = TARGETS[name]
    one = network(60_000, tests=60_000, seed=3, activation=activation, target=target)
    weights, a = state(4)
    weights[:, :2] += 1.5 * np.sign(weights[:, :2])  # more overlap with the latent directions
    weights /= np.linalg.norm(weights, axis=1)[:, None]
    resolved = one.problem.resolved_target()
    risk = population_risk(one.problem, resolved, weights, a, whole_activation=True)
    # Training residuals of weights that have not seen them: the same law, with its own noise.
    errors = 0.5 * one.residuals(weights, a) ** 2
    deviation = errors.std() / math.sqrt(len(errors))
    assert abs(errors.mean() - risk) < 4 * deviation
    fresh = one.fresh_error(weights, a)
    assert fresh is not None
    assert fresh != errors.mean()
    assert abs(fresh - risk) < 4 * deviation  # its noise part is exact, so it is closer still
    if name != "noise":
        wrong = population_risk(one.problem, resolved, weights, -a, whole_activation=True)  # the overlap counts
        assert abs(fresh - wrong) > 4 * deviation


@pytest.mark.parametrize("name", ["relu", "erf", "gelu"])
@pytest.mark.filterwarnings("ignore:activation 'relu'")
def test_population_risk_of_the_whole_activation(name: str) -> None:
    """A network equal to its target is left with the noise, however short the series."""
    activation = Activation.named(name, degree=3)
    one = network(10, tests=200_000, activation=activation, a0=[1.0], noise_std=0.1)
    resolved = one.problem.resolved_target()
    for w, rel in (([1.0, 0, 0, 0, 0], 1e-9), ([0.8, 0.6, 0, 0, 0], 0.02)):
        weights, a = np.array([w]), np.ones(1)
        risk = population_risk(one.problem, resolved, weights, a, whole_activation=True)
        assert one.fresh_error(weights, a) == pytest.approx(risk, rel=rel)


def test_no_test_set_no_fresh_error() -> None:
    assert network(10).fresh_error(*state()) is None


# ---------------------------------------------------------------------------------------------------- phi itself


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "noise"])
def test_overlap_of_phi_by_quadrature(name: str) -> None:
    """E phi(G) sigma(G_v) = phihat(v) and E phi^2 + what is unexplained = |phi|^2."""
    activation, target = TARGETS[name]
    phi, resolved = target.function(activation), target.resolve(activation)
    k = phi.latent_dimension
    nodes, weights = np.polynomial.hermite_e.hermegauss(24 if k == 2 else 80)
    grid = np.stack(np.meshgrid(*[nodes] * (k + 1), indexing="ij"), axis=-1).reshape(-1, k + 1)
    mass = np.prod(np.stack(np.meshgrid(*[weights] * (k + 1), indexing="ij"), axis=-1), axis=-1).ravel()
    mass = mass / (2 * math.pi) ** ((k + 1) / 2)
    label = phi(grid[:, :k])
    for v in ([0.5], [-0.3]) if k == 1 else ([0.4, 0.3], [-0.5, 0.6]):
        along = grid[:, :k] @ np.array(v) + math.sqrt(1 - np.dot(v, v)) * grid[:, k]
        overlap = float(mass @ (label * activation.sigma(along)))
        # tanh: the series ends at degree 21, and 0.5^23 of 1e-4 is left.
        assert overlap == pytest.approx(float(resolved.phihat(v)), abs=1e-9)
        assert abs(overlap) > 1e-3
    # tanh is not a polynomial: its square is integrated, and its power summed, to about 1e-4
    exact = not name.endswith("tanh") and name != "named"
    assert mass @ label**2 + phi.unexplained == pytest.approx(resolved.power, rel=1e-12 if exact else 3e-4)


# ---------------------------------------------------------------------------------------------------- linear networks


LINEAR = Activation.from_covariance([0, 1.0])


def test_a_linear_network_is_the_gaussian_model() -> None:
    """h(z) = z: the tensors of the Gaussian model are inputs."""
    made = problem(LINEAR, Target.same_as(LINEAR))
    one = GaussianModel(made, D, 30, np.random.default_rng(0))
    other = network(30, seed=9, activation=LINEAR)
    assert not np.allclose(one.labels, other.labels)
    other.inputs[:], other.labels[:] = one._tensors, one.labels
    weights, a = state()
    np.testing.assert_allclose(other.residuals(weights, a), one.residuals(weights, a), rtol=0, atol=1e-13)
    for mine, theirs in zip(other.force(weights, a), one.force(weights, a), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-13)


def test_linear_networks_and_gaussian_models_have_one_law() -> None:
    made = dmft.SymmetricProblem(
        width=3, alpha=0.6, activation=LINEAR, target=Target.same_as(LINEAR), noise_std=0.5, a0=1.0
    )
    options = {"t_final": 4.0, "times": [0.2, 1.0, 4.0], "pair_times": [0.2, 4.0], "replicas": 60, "rtol": 1e-3}
    gaussian = dmft.simulate(made, 20, **options, seed=1)
    real = dmft.simulate(made, 20, **options, model="network", seed=2)
    for name in ("train_error", "test_error", "a", "v", "correlation", "residual_correlation"):
        one, other = gaussian.sample(name), real.sample(name)
        error = np.hypot(one.sem, other.sem)
        z = (one.mean - other.mean)[error > 1e-12] / error[error > 1e-12]
        assert np.abs(z).max() < 4, name
    assert gaussian.sample("train_error").mean[-1] < 0.5 * gaussian.sample("train_error").mean[0]  # it has learnt
