"""Data of the relu networks and what they are compared with: quadrature on the circle, brute force, rejection."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from validation.relu.data import DataLaw, Dataset, Teacher, forty_points, three_points
from validation.relu.network import Network, Nonlinearity
from validation.relu.references import (
    LeastSquares,
    SplitLeastSquares,
    excess_risk,
    function_distance,
    least_squares,
    split_least_squares,
)

Array = np.ndarray[Any, Any]
LEAKY = Nonlinearity("leaky_relu", 0.3)
Z = 4.5  # standard errors that a correct estimate may be off


def law(dimension: int, name: str = "gaussian", **options: Any) -> DataLaw:
    beta = np.random.default_rng(99).standard_normal(dimension)
    return DataLaw(dimension=dimension, law=name, **({"teacher": Teacher.linear(beta)} | options))


def network(dimension: int, width: int = 7, activation: Nonlinearity | None = None, seed: int = 0) -> Network:
    rng = np.random.default_rng([seed, dimension, width])
    weights = rng.standard_normal((width, dimension))
    return Network(weights, rng.standard_normal(width), activation or Nonlinearity())


def linear(dimension: int, seed: int = 0) -> LeastSquares:
    return LeastSquares(np.random.default_rng([seed, dimension]).standard_normal(dimension), 0.0)


def split(dimension: int, direction: Array | None = None, seed: int = 0) -> SplitLeastSquares:
    v, p, q = np.random.default_rng([seed, dimension, 1]).standard_normal((3, dimension))
    return SplitLeastSquares(v if direction is None else direction, p, q, 0.0)


def functions(dimension: int) -> dict[str, Any]:
    return {
        "relu": network(dimension),
        "leaky": network(dimension, activation=LEAKY, seed=1),
        "neurons": Teacher.random_neurons(3, dimension, np.random.default_rng(2)),
        "linear": linear(dimension),
        "split": split(dimension),
        "other split": split(dimension, seed=5),
    }


NAMES = list(functions(2))


# ------------------------------------------------------------------------------------------------ mean squares


def on_circle(f: Any, g: Any, normals: list[Array], beta: Array | None = None, margin: float = 0.0) -> float:
    """E (f - g)^2 in two dimensions for homogeneous functions: 2 times the mean over the angle, kink by kink."""
    center = 0.0 if beta is None else math.atan2(beta[1], beta[0])
    half = math.acos(margin / math.sqrt(2))
    arcs = [(center - half, center + half), (center + math.pi - half, center + math.pi + half)]
    kinks = [math.atan2(v[1], v[0]) + math.pi / 2 + k * math.pi for v in normals for k in range(-6, 7)]
    nodes, weights = np.polynomial.legendre.leggauss(12)
    total = 0.0
    for low, high in arcs:
        edges = [low, *sorted(k for k in kinks if low < k < high), high]
        for a, b in itertools.pairwise(edges):
            cells = np.linspace(a, b, 5)
            for c, e in itertools.pairwise(cells):
                angle = 0.5 * (c + e) + 0.5 * (e - c) * nodes
                x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
                total += 0.5 * (e - c) * float(weights @ (f(x) - g(x)) ** 2)
    return 2.0 * total / (4 * half)


def normals(*fs: Any) -> list[Array]:
    rows: list[Array] = []
    for f in fs:
        rows += list(getattr(f, "weights", []))
        rows += [f.direction] if isinstance(f, SplitLeastSquares) else []
    return rows


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(NAMES, 2)))
def test_closed_forms_agree_with_quadrature_on_the_circle(first: str, second: str) -> None:
    f, g = functions(2)[first], functions(2)[second]
    exact = on_circle(f, g, normals(f, g))
    for name in ("gaussian", "sphere"):
        distance = function_distance(f, g, law(2, name))
        assert distance.error == 0.0
        assert distance.value**2 == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_margin_agrees_with_quadrature_on_the_circle(name: str) -> None:
    f, inputs = functions(2)[name], law(2, margin=0.6)
    exact = on_circle(f, inputs.teacher, normals(f), inputs.teacher.direction, 0.6)
    risk = excess_risk(f, inputs)
    assert (risk.error == 0.0) == (name in ("linear", "split", "other split"))
    assert abs(risk.value - exact) <= Z * risk.error + 1e-12 * exact
    assert risk.error < 1e-4 * exact


def test_two_splits_along_one_line_are_exact_with_a_margin() -> None:
    """The line is given by vectors of other length and sign."""
    inputs = law(2, margin=0.9)
    beta = inputs.teacher.direction
    f, g = split(2, beta), split(2, -3.0 * beta, seed=1)
    distance = function_distance(f, g, inputs)
    assert distance.error == 0.0
    assert distance.value**2 == pytest.approx(on_circle(f, g, [beta], beta, 0.9), rel=1e-12)


@pytest.mark.parametrize(("first", "second"), [("relu", "linear"), ("leaky", "split"), ("neurons", "other split")])
@pytest.mark.parametrize("margin", [0.0, 0.8])
def test_against_monte_carlo_with_rejection(first: str, second: str, margin: float) -> None:
    f, g = functions(5)[first], functions(5)[second]
    inputs = law(5, margin=margin)
    x = np.random.default_rng(3).standard_normal((200_000, 5))
    beta = inputs.teacher.direction
    x = x[np.abs(x @ beta) >= margin * np.linalg.norm(x, axis=1) * np.linalg.norm(beta) / math.sqrt(5)]
    squares = (f(x) - g(x)) ** 2
    distance = function_distance(f, g, inputs)
    assert distance.error < 0.002 * distance.value
    error = math.hypot(squares.std() / math.sqrt(len(x)), 2.0 * distance.value * distance.error)
    assert abs(distance.value**2 - squares.mean()) < Z * error


@pytest.mark.parametrize("name", ["gaussian", "sphere"])
@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_sample_agrees_with_closed_forms(name: str, margin: float) -> None:
    """A function that is hidden from the closed forms; at a margin those of a linear function."""
    for f in (linear(5), split(5), network(5)) if margin == 0.0 else (linear(5), split(5, law(5).teacher.direction)):
        known = excess_risk(f, law(5, name, margin=margin))
        sampled = excess_risk(lambda x, f=f: f(x), law(5, name, margin=margin))
        assert known.error == 0.0 < sampled.error < 0.02 * known.value
        assert abs(sampled.value - known.value) < Z * sampled.error


@pytest.mark.parametrize(("name", "moment"), [("gaussian", 4 * 6), ("sphere", 16)])
@pytest.mark.parametrize("margin", [0.0, 1.1])
def test_radius_of_the_sample(name: str, moment: float, margin: float) -> None:
    """|x|^2 is chi-square with d = 4 or constant, whatever the margin; E of the squared square is known."""
    inputs = law(4, name, margin=margin)
    distance = function_distance(lambda x: np.sum(x * x, axis=1), lambda x: np.zeros(len(x)), inputs)
    assert abs(distance.value**2 - moment) < Z * 2.0 * distance.value * distance.error + 1e-9
    assert distance.error < 0.01 * distance.value


def test_gelu_goes_through_the_sample() -> None:
    net = Network(np.array([[1.2, 0.0, -0.5]]), np.array([0.7]), Nonlinearity("gelu"))
    inputs = law(3, teacher=Teacher.linear([0.0, 0.0, 0.0]))
    gelu = net.activation
    size = math.hypot(1.2, 0.5)
    exact = quad(lambda z: (0.7 * gelu(size * z)) ** 2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi), -12, 12)[0]
    risk = excess_risk(net, inputs)
    assert 0.0 < risk.error < 0.01 * exact
    assert abs(risk.value - exact) < Z * risk.error


def test_more_points_help() -> None:
    inputs, net = law(5, margin=0.8), network(5)
    assert excess_risk(net, inputs, points=2**16).error < 0.5 * excess_risk(net, inputs, points=2**12).error


@pytest.mark.parametrize("margin", [0.0, 1.2])
@pytest.mark.parametrize("name", NAMES)
def test_rademacher_is_enumerated(name: str, margin: float) -> None:
    f, inputs = functions(6)[name], law(6, "rademacher", margin=margin)
    beta = inputs.teacher.direction
    squares = []
    for signs in itertools.product([-1.0, 1.0], repeat=6):
        if abs(float(np.dot(signs, beta))) >= margin * math.sqrt(float(beta @ beta)):
            squares.append(float((f(np.array([signs])) - np.dot(signs, beta)).item() ** 2))
    risk = excess_risk(f, inputs)
    assert risk.error == 0.0
    assert risk.value == pytest.approx(np.mean(squares), rel=1e-12)
    assert inputs.acceptance == len(squares) / 64


@pytest.mark.parametrize("margin", [0.0, 1.5])
def test_rademacher_beyond_enumeration_rests_on_a_sample(margin: float) -> None:
    inputs, net = law(14, "rademacher", margin=margin), network(14)
    x = np.array(list(itertools.product([-1.0, 1.0], repeat=14)))
    beta = inputs.teacher.direction
    x = x[np.abs(x @ beta) >= margin * np.linalg.norm(beta)]
    risk = excess_risk(net, inputs)
    assert 0.0 < risk.error < 0.02 * risk.value
    assert abs(risk.value - np.mean((net(x) - x @ beta) ** 2)) < Z * risk.error


@pytest.mark.parametrize("name", ["gaussian", "sphere", "rademacher"])
def test_one_dimension(name: str) -> None:
    """f(x) = a relu(w x) against beta x: half of the inputs see (a w - beta)^2, the others beta^2."""
    inputs = law(1, name, teacher=Teacher.linear([0.8]), margin=0.5)
    net = Network(np.array([[1.5]]), np.array([2.0]))
    assert excess_risk(net, inputs).value == pytest.approx(0.5 * 2.2**2 + 0.5 * 0.8**2, rel=1e-12)


def test_equal_functions_have_no_distance() -> None:
    net, inputs = network(5, width=200), law(5)
    size = function_distance(net, Network(net.weights, 0.0 * net.outer), inputs).value
    order = np.random.default_rng(4).permutation(200)
    shuffled = Network(net.weights[order] * 2.0, net.outer[order] / 2.0)
    assert function_distance(net, shuffled, inputs).value < 1e-6 * size  # 1e-12 of the square
    near = Network(net.weights, net.outer * (1.0 + 1e-4))
    assert function_distance(net, near, inputs).value == pytest.approx(1e-4 * size, rel=1e-4)


def test_one_function_in_several_forms() -> None:
    beta = np.array([0.3, -2.0, 0.9, 0.1])
    zero = np.zeros(4)
    forms: list[Any] = [
        Network(beta[None, :], np.ones(1)),
        Network(np.stack([beta, zero]), np.array([1.0, 5.0])),  # a neuron that died does nothing
        Teacher.neurons(beta[None, :], [1.0]),
        SplitLeastSquares(beta, beta, zero, 0.0),
        SplitLeastSquares(-7.0 * beta, zero, beta, 0.0),
    ]
    for margin in (0.0, 0.7):
        inputs = law(4, margin=margin)
        for f, g in itertools.product(forms, repeat=2):
            assert function_distance(f, g, inputs).value < 1e-7
    whole = Network(np.stack([beta, -beta]), np.array([1.0, -1.0]))
    assert excess_risk(whole, law(4, teacher=Teacher.linear(beta))).value < 1e-14
    two = function_distance(forms[0], Teacher.neurons(-beta[None, :], [1.0]), law(4))
    assert two.value**2 == pytest.approx(beta @ beta, rel=1e-12)


def test_a_network_that_has_diverged_has_no_risk() -> None:
    net = network(3)
    net.weights[0, 0] = np.nan
    for inputs in (law(3), law(3, margin=0.5), law(3, "rademacher")):
        assert math.isnan(excess_risk(net, inputs).value)


# ------------------------------------------------------------------------------------------------ least squares


def test_split_least_squares_is_least_squares_on_each_side() -> None:
    inputs = law(4, noise_std=0.7)
    data = inputs.draw(50, np.random.default_rng(5))
    direction = np.array([1.0, -0.2, 0.4, 0.0])
    fit = split_least_squares(data, direction)
    side = data.inputs @ direction > 0
    total = 0.0
    for rows, coefficients in ((side, fit.positive), (~side, fit.negative)):
        x, y = data.inputs[rows], data.labels[rows]
        np.testing.assert_allclose(x.T @ (y - x @ coefficients), 0.0, atol=1e-11)
        np.testing.assert_allclose(coefficients, np.linalg.solve(x.T @ x, x.T @ y), rtol=1e-9)
        total += float(np.sum((y - x @ coefficients) ** 2))
    assert fit.train_loss == pytest.approx(total / 50, rel=1e-12)
    assert fit.train_loss == pytest.approx(np.mean((data.labels - fit(data.inputs)) ** 2), rel=1e-12)
    whole = least_squares(data)
    np.testing.assert_allclose(data.inputs.T @ (data.labels - whole(data.inputs)), 0.0, atol=1e-11)
    assert whole.train_loss == pytest.approx(np.mean((data.labels - whole(data.inputs)) ** 2), rel=1e-12)
    assert fit.train_loss < whole.train_loss


def test_few_samples_give_the_solution_of_least_norm() -> None:
    data = law(6).draw(4, np.random.default_rng(6))
    fit = least_squares(data)
    assert fit.train_loss < 1e-25
    gram = data.inputs @ data.inputs.T
    np.testing.assert_allclose(fit.coefficients, data.inputs.T @ np.linalg.solve(gram, data.labels), rtol=1e-9)
    one_sided = split_least_squares(Dataset(np.eye(6)[:4] + 1.0, np.ones(4), np.ones(4)), np.ones(6))
    assert not one_sided.negative.any()
    assert one_sided.train_loss < 1e-25


def test_samples_on_the_boundary_belong_to_the_negative_side() -> None:
    x = np.array([[0.0, 1.0], [0.0, 2.0], [1.0, 1.0], [2.0, -1.0]])
    y = np.array([1.0, 2.0, 0.0, 0.0])
    fit = split_least_squares(Dataset(x, y, y), [1.0, 0.0])
    np.testing.assert_allclose(fit.negative, [0.0, 1.0], atol=1e-14)
    assert fit.train_loss < 1e-28


def test_expectations_over_gaussian_samples() -> None:
    """E excess = sigma^2 d/(n-d-1) by the inverse Wishart law, E train = sigma^2 (1-d/n), and 2d for two sides."""
    n, d, sigma = 60, 4, 0.5
    inputs = law(d, noise_std=sigma)
    beta = inputs.teacher.direction
    rows = []
    for seed in range(200):
        data = inputs.draw(n, np.random.default_rng([7, seed]))
        whole, halves = least_squares(data), split_least_squares(data, beta)
        rows.append([excess_risk(whole, inputs).value, whole.train_loss, halves.train_loss])
    table = np.array(rows)
    expected = sigma**2 * np.array([d / (n - d - 1), 1 - d / n, 1 - 2 * d / n])
    z = (table.mean(axis=0) - expected) / (table.std(axis=0) / math.sqrt(len(table)))
    assert np.abs(z).max() < Z
    assert (table.std(axis=0) / math.sqrt(len(table)) < 0.07 * expected).all()  # the test has power


# ------------------------------------------------------------------------------------------------ samples


def cosines(x: Array, beta: Array) -> Array:
    return x @ beta / np.linalg.norm(x, axis=1) / np.linalg.norm(beta)


@pytest.mark.parametrize("dimension", [2, 3, 8])
@pytest.mark.parametrize("name", ["gaussian", "sphere"])
def test_margin_is_the_conditional_law(dimension: int, name: str) -> None:
    """Kolmogorov-Smirnov against inputs kept by rejection: cosine, radius, and a direction across beta."""
    inputs = law(dimension, name, margin=1.1)
    beta = inputs.teacher.direction
    x = inputs.draw(4000, np.random.default_rng(8)).inputs
    assert np.abs(cosines(x, beta)).min() >= 1.1 / math.sqrt(dimension) * (1 - 1e-12)
    free = np.random.default_rng(9).standard_normal((40_000, dimension))
    if name == "sphere":
        free *= math.sqrt(dimension) / np.linalg.norm(free, axis=1)[:, None]
        np.testing.assert_allclose(np.linalg.norm(x, axis=1), math.sqrt(dimension))
    kept = free[np.abs(cosines(free, beta)) >= 1.1 / math.sqrt(dimension)]
    across = np.eye(dimension)[0] - beta[0] * beta / (beta @ beta)
    measures: list[Callable[[Array], Array]] = [lambda v: cosines(v, beta), lambda v: v @ across, lambda v: v @ beta]
    if name == "gaussian":
        measures.append(lambda v: np.linalg.norm(v, axis=1) + 0.5 * cosines(v, beta))
    for measure in measures:
        assert stats.ks_2samp(measure(x), measure(kept)).pvalue > 1e-4
    share = inputs.acceptance
    assert abs(len(kept) / len(free) - share) < Z * math.sqrt(share * (1 - share) / len(free))


def test_acceptance_in_closed_form() -> None:
    assert law(2, margin=0.5).acceptance == pytest.approx(2 / math.pi * math.acos(0.5 / math.sqrt(2)), rel=1e-12)
    assert law(3, margin=0.5).acceptance == pytest.approx(1 - 0.5 / math.sqrt(3), rel=1e-12)
    assert law(3, margin=math.sqrt(3) * (1 - 1e-9)).acceptance == pytest.approx(1e-9, rel=1e-6)
    assert law(3).acceptance == 1.0
    ones = law(2, "rademacher", teacher=Teacher.linear([0.7, 0.7]), margin=math.sqrt(2) - 1e-15)
    assert ones.acceptance == 0.5  # met with equality, up to rounding
    assert law(30, "rademacher", teacher=Teacher.unit(30), margin=1.0).acceptance == 1.0
    many = law(20, "rademacher", teacher=Teacher.linear(np.ones(20)), margin=2.0)
    exact = 2 * stats.binom.cdf(5, 20, 0.5)  # |20 - 2k| >= 2 sqrt(20) = 8.9
    assert abs(many.acceptance - exact) < Z * math.sqrt(exact / 2**17)


def test_large_margins_cost_nothing() -> None:
    inputs = law(3, margin=math.sqrt(3) * (1 - 1e-7))
    x = inputs.draw(1000, np.random.default_rng(10)).inputs
    slack = 1 - np.abs(cosines(x, inputs.teacher.direction))  # uniform on [0, 1e-7] by Archimedes
    assert stats.kstest(slack / 1e-7, "uniform").pvalue > 1e-4
    assert 400 < np.count_nonzero(x @ inputs.teacher.direction > 0) < 600


def test_rademacher_margin() -> None:
    inputs = law(6, "rademacher", margin=1.2)
    beta = inputs.teacher.direction
    x = inputs.draw(8000, np.random.default_rng(11)).inputs
    assert set(np.unique(x)) == {-1.0, 1.0}
    kept = [s for s in itertools.product([-1.0, 1.0], repeat=6) if abs(np.dot(s, beta)) >= 1.2 * np.linalg.norm(beta)]
    counts = [int(np.count_nonzero((x == np.array(s)).all(axis=1))) for s in kept]
    assert sum(counts) == 8000
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(
    ("name", "margin"), [("gaussian", 0.0), ("gaussian", 1.0), ("sphere", 0.0), ("sphere", 1.0), ("rademacher", 1.0)]
)
@pytest.mark.parametrize("neurons", [False, True])
def test_fewer_samples_are_the_first_ones(name: str, margin: float, neurons: bool) -> None:
    options = {"teacher": Teacher.random_neurons(4, 7, np.random.default_rng(0))} if neurons else {}
    inputs = law(7, name, margin=0.0 if neurons else margin, noise_std=0.3, **options)
    many = inputs.draw(5001, np.random.default_rng(12))
    for n in (1, 3, 1000, 4097):
        few = inputs.draw(n, np.random.default_rng(12))
        assert (few.samples, few.dimension) == (n, 7)
        for field in ("inputs", "labels", "clean"):
            assert (getattr(few, field) == getattr(many, field)[:n]).all()
    np.testing.assert_allclose(many.clean, inputs.teacher(many.inputs))


def test_data_depend_on_the_state_of_the_generator_and_nothing_else() -> None:
    inputs = law(3, noise_std=0.4)
    rng = np.random.default_rng(13)
    rng.spawn(2)  # a counter that is not part of the state
    first, second = inputs.draw(10, rng), inputs.draw(10, rng)
    assert (first.labels == inputs.draw(10, np.random.default_rng(13)).labels).all()
    assert not (first.inputs == second.inputs).any()
    moved, other = np.random.default_rng(13), np.random.default_rng(13)
    inputs.draw(5, moved)
    law(3, "rademacher").draw(500, other)
    assert moved.random() == other.random()
    double = law(3, noise_std=0.8).draw(10, np.random.default_rng(13))
    np.testing.assert_allclose(double.labels - double.clean, 2 * (first.labels - first.clean), rtol=1e-12)
    assert (law(3).draw(10, np.random.default_rng(13)).labels == first.clean).all()


def test_noise_is_standard_and_independent_of_the_inputs() -> None:
    data = law(2, noise_std=0.5).draw(5000, np.random.default_rng(14))
    noise = (data.labels - data.clean) / 0.5
    assert stats.kstest(noise, "norm").pvalue > 1e-4
    assert stats.kstest(data.inputs.ravel(), "norm").pvalue > 1e-4
    assert np.abs(data.inputs.T @ noise).max() < Z * math.sqrt(5000)


def test_teachers() -> None:
    x = np.random.default_rng(15).standard_normal((20, 3))
    np.testing.assert_allclose(Teacher.linear([1.0, -2.0, 0.5])(x), x[:, 0] - 2 * x[:, 1] + 0.5 * x[:, 2])
    assert (Teacher.unit(3)(x) == x[:, 0]).all()
    teacher = Teacher.random_neurons(5, 3, np.random.default_rng(16))
    np.testing.assert_allclose(np.linalg.norm(teacher.weights, axis=1), 1.0)
    np.testing.assert_allclose(np.abs(teacher.outer), 5**-0.5)
    np.testing.assert_allclose(teacher(x), Network(teacher.weights, teacher.outer)(x))
    for one in (teacher, Teacher.unit(3)):
        table = json.loads(json.dumps(law(3, teacher=one).to_dict()))["teacher"]
        assert table.pop("kind") == one.kind
        again = Teacher.linear(**table) if one.is_linear else Teacher.neurons(**table)
        assert (again(x) == one(x)).all()


def test_published_sets() -> None:
    three = three_points()
    assert three.inputs.tolist() == [[-0.75, 1.0], [-0.5, 1.0], [0.125, 1.0]]
    assert three.labels.tolist() == three.clean.tolist() == [1.1, 0.1, 0.8]
    forty = forty_points(np.random.default_rng(17))
    x, bias = forty.inputs.T
    assert forty.samples == 40
    assert (bias == 1.0).all()
    assert np.abs(x).max() <= 1.0
    assert x.min() < -0.7
    assert x.max() > 0.7
    nodes = [(-1, 0), (-0.7, 0.7), (-0.55, 0.5), (-0.4, 1), (0, 0), (0.5, 1), (0.6, 0.6), (0.7, 0.7), (1, 0)]
    for (a, ya), (b, yb) in itertools.pairwise(nodes):
        inside = (x >= a) & (x < b)
        np.testing.assert_allclose(forty.labels[inside], ya + (x[inside] - a) * (yb - ya) / (b - a), atol=1e-12)


# ------------------------------------------------------------------------------------------------ bad input

BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: law(3, "uniform"), "law must be one of gaussian, rademacher, sphere, not 'uniform'"),
    (lambda: law(3, margin=-0.1), "margin must be a finite number >= 0, not -0.1"),
    (lambda: law(3, margin=2.0), "margin must be below the square root of the dimension 3, not 2"),
    (lambda: law(3, noise_std=-1), "noise_std must be a finite number >= 0, not -1"),
    (lambda: law(3, teacher="linear"), "teacher must be a Teacher, not 'linear'"),
    (lambda: law(3, teacher=Teacher.unit(2)), "dimension must be that of the teacher, 2, not 3"),
    (lambda: law(3, margin=0.1, teacher=Teacher.linear([0, 0, 0])), "margin must be 0 without a linear teacher"),
    (lambda: law(2, margin=0.1, teacher=Teacher.neurons([[1, 2]], [1])), "margin must be 0 without a linear teacher"),
    (lambda: law(30, "rademacher", teacher=Teacher.unit(30), margin=1.1), "margin must leave a share of 0.0001"),
    (lambda: law(2000, margin=40.0), "margin must leave a share of"),
    (lambda: law(3).draw(0, np.random.default_rng(0)), "samples must be an integer >= 1, not 0"),
    (lambda: Teacher("affine", np.ones((1, 2)), np.ones(1)), "kind of teacher must be one of linear, neurons"),
    (lambda: Teacher("linear", np.ones((1, 2)), np.zeros(1)), "a linear teacher has one row of weights and outer 1"),
    (lambda: Teacher.neurons(np.ones((2, 2)), [1.0]), r"outer of the teacher must be .* shape \(2,\)"),
    (lambda: Teacher.neurons(np.ones((0, 2)), []), "weights of the teacher must not be empty"),
    (lambda: Teacher.linear([1.0, np.nan]), "direction must hold finite numbers only"),
    (lambda: Teacher.neurons([[1.0]], [1.0]).direction, "a teacher of relu neurons has no direction"),
    (lambda: Teacher.unit(0), "dimension must be an integer >= 1, not 0"),
    (lambda: Dataset(np.ones((2, 2)), np.ones(3), np.ones(2)), r"labels must be .* shape \(2,\)"),
    (lambda: Dataset(np.ones((0, 2)), np.ones(0), np.ones(0)), "inputs must have a row for each sample"),
    (lambda: split_least_squares(three_points(), [0.0, 0.0]), "direction must not be zero"),
    (lambda: split_least_squares(three_points(), [1.0]), r"direction must be .* shape \(2,\)"),
    (lambda: excess_risk(network(4), law(3)), "function must have the dimension 3 of the law, not 4"),
    (lambda: excess_risk(split(4), law(3)), "function must have the dimension 3 of the law, not 4"),
    (lambda: excess_risk(lambda x: x, law(3)), r"function must return shape \(\d+,\) for inputs"),
    (lambda: excess_risk(3.0, law(3)), r"function must be callable on inputs \(N, 3\), not 3.0"),  # type: ignore[arg-type]
    (lambda: excess_risk(network(3), law(3), points=5), "points must be an integer >= 16, not 5"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_refused_in_a_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
