"""The edge of stability: its prediction, how it is measured, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmft
from dmft.status import Status
from validation.descent import edge, edge_plots


@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("width", [1, 16, 10**6])
def test_linear_neurons_have_the_edge_of_marchenko_and_pastur(width: int, alpha: float) -> None:
    top = edge.top_curvature([0, 0.7], width, alpha, 1.3, 0.2, 0.5)
    assert top == pytest.approx(alpha * 1.3**2 * 0.7 * (1 + (alpha * width) ** -0.5) ** 2, rel=1e-7)
    problem = edge.network("linear", "noise", width, alpha, a0=1.3)
    step = edge.linear_rate(problem) / (alpha * width)
    assert edge.sharpness(problem, step, 1.3, 0.0, 0.2, 0.5) == pytest.approx(1.0, rel=1e-7)


@pytest.mark.parametrize("overlap", [0.0, 0.4])
@pytest.mark.parametrize("width", [2, 5, 100])
def test_interpolating_networks_have_the_edge_of_a_sample_covariance(width: int, overlap: float) -> None:
    """Population eigenvalues s, once, and t, m - 1 times: the largest critical value of z(g) (Silverstein and Choi)."""
    alpha, a = 0.6, 1.2
    slope = np.polynomial.Polynomial(edge.CUBIC.covariance).deriv()
    s = slope(1.0) + (width - 1) * slope(overlap)
    t = slope(1.0) - slope(overlap)
    g = np.linspace(1e-4, 1.0, 200_001)[:-1] / s  # -1/g from the right of the largest eigenvalue on
    z = 1 / g + (s / (1 - s * g) + (width - 1) * t / (1 - t * g)) / (alpha * width)
    top = edge.top_curvature(edge.CUBIC.covariance, width, alpha, a, overlap, 0.0)
    assert top == pytest.approx(alpha * a * a / width * z.min(), rel=1e-6)


def hessian(
    h: np.polynomial.Polynomial, m: int, d: int, alpha: float, overlap: float, noise: float, seed: int
) -> float:
    """Largest eigenvalue for a = 1, in the unit of the theory, of independent gradients, Hessians and residuals.

    The gradients of two neurons have the covariance h'(C_ij), their Hessians h''(C_ij), both a part in common.
    """
    random = np.random.default_rng(seed)
    n = round(alpha * m * d)

    def correlated(f: np.polynomial.Polynomial, shape: tuple[int, int]) -> list[np.ndarray]:
        common = np.sqrt(f(overlap)) * random.standard_normal(shape)
        return [common + np.sqrt(f(1.0) - f(overlap)) * random.standard_normal(shape) for _ in range(m)]

    jacobian = np.hstack(correlated(h.deriv(), (n, d))) / m
    matrix = jacobian.T @ jacobian
    for i, bend in enumerate(correlated(h.deriv(2), (d, d))):
        place = slice(i * d, (i + 1) * d)
        matrix[place, place] -= noise * np.sqrt(n) / m * (bend + bend.T) / np.sqrt(2.0)
    return float(np.linalg.eigvalsh(matrix)[-1] / d)


@pytest.mark.parametrize(
    ("coefficients", "overlap", "noise"),
    [
        ([0, 0.6, 0.4], 0.0, 2.0),
        ([0, 0.05, 0.5], 0.0, 4.0),
        ([0, 0.05, 0.2, 0.3], 0.3, 3.0),
        ([0, 0.9, 0, 1 / 6], 0.0, 4),
    ],
    ids=str,
)
def test_residuals_widen_the_spectrum_of_random_hessians(
    coefficients: list[float], overlap: float, noise: float
) -> None:
    """Those of d = 200 are about one per cent below their limit."""
    h, m, alpha = np.polynomial.Polynomial(coefficients), 3, 0.8
    found = np.mean([hessian(h, m, 200, alpha, overlap, noise, seed) for seed in range(8)])
    top, without = (edge.top_curvature(coefficients, m, alpha, 1.0, overlap, square) for square in (noise**2, 0.0))
    assert found == pytest.approx(0.99 * top, rel=0.02)
    assert top > 1.15 * without


def test_stable_is_what_comes_to_descend() -> None:
    problem = edge.network("linear", "noise", 1, train_second_layer=False)
    limit = edge.linear_rate(problem)
    for fraction, stable in ((0.3, True), (0.9, True), (1.1, False), (3.0, False)):
        assert edge.is_stable(edge.descend(problem, fraction * limit, 120)) is stable
    short = edge.descend(problem, 0.3 * limit, 120)
    assert short.status is Status.DONE
    cut = dmft.solve(problem, short.t[-1], optimizer=dmft.GradientDescent(learning_rate=0.3 * limit), max_rows=60)
    assert not edge.is_stable(cut)
    # A catapult at the beginning does not count: a falls to where the rate is stable.
    steep = edge.network("cubic", "noise", 4, a0=3.0)
    run = edge.descend(steep, 1.4 * edge.linear_rate(steep), 200)
    assert np.diff(run.train_error).max() > 1.0 and run.a[-1] < 2.3
    assert edge.is_stable(run)


@pytest.mark.parametrize(
    ("name", "target", "alpha", "nu"), [("linear", "noise", 2.0, -1), ("cubic", "noise", 1.0, 1)], ids=str
)
def test_measured_threshold_is_the_predicted_one(name: str, target: str, alpha: float, nu: int) -> None:
    """The force of the constraint moves it by about 3 % in both, either way."""
    problem = edge.network(name, target, 1 if nu < 0 else 16, alpha, train_second_layer=False)
    guess = edge.linear_rate(problem)
    rates = []
    for updates in (100, 200):
        rate, run = edge.largest_rate(problem, updates, guess, 8)
        rates.append(rate)
    found = 2 * rates[1] - rates[0]
    assert run.nu[-1] * nu > 0.03
    assert found == pytest.approx(rates[1] / edge.sharpness_at_end(run), rel=0.015)


def test_course_of_a_run() -> None:
    problem = edge.network("cubic", "index", 16)
    course = edge.follow(problem, 4.0, 120)
    run = edge.descend(problem, 4.0, 120)
    count = min(len(course.a), len(run.t))
    assert count > 100
    for name in ("a", "v", "nu", "train_error", "test_error"):
        np.testing.assert_array_equal(getattr(course, name)[:count], getattr(run, name)[:count])
    times = run.two_time.t[:count]
    np.testing.assert_allclose(course.overlap[:count], run.correlation(times, times, "o")[:count], atol=1e-15)
    place = [0, 40, 80]
    values = course.sharpness(problem, place)
    assert values[0] < values[1] < 1.0 < values[2]
    # The rounding that ends this run is foreseen.
    assert course.lost is not None and 85 < course.lost < 109
    assert course.rounding[60] < 1e-12 < 1e-4 < course.rounding[course.lost]


def test_noise_of_batches_keeps_the_sharpness_at_one() -> None:
    record = edge.measure_trained(edge.network("cubic", "noise", 8), 0.5, 0.5)
    assert record["status"] == "done" and record["lost"] is None
    assert record["late_sharpness"] == pytest.approx(1.0, abs=0.05)
    assert 0 <= record["rise"] - record["crossing"] < 6
    assert record["largest_a"] < 0.85 * edge.follow(edge.network("cubic", "noise", 8), 0.8, 400).a.max()


def test_perturbations_grow_far_beyond_the_edge() -> None:
    assert edge.measure_chaos(2.4)["growth"] > 0.1
    calm = edge.measure_chaos(0.8)
    assert calm["growth"] < 0.0 and calm["lost"] is None
    assert edge.measure_chaos(0.4)["status"] == "rounding"


def test_simulated_networks_begin_as_the_theory() -> None:
    rate, updates = 0.8, 6
    runs = np.array([edge.simulate(edge.small_network(), rate, 20, updates, seed) for seed in range(40)])
    solution = edge.descend(edge.small_network(), rate, updates)
    theory = np.stack([solution.train_error, solution.test_error, solution.a], axis=1)[1:]
    z = (runs.mean(0)[1:] - theory) / (runs.std(0, ddof=1)[1:] / np.sqrt(len(runs)) + 0.05 * theory)
    assert np.abs(z).max() < 3.0


def small_tasks() -> list[edge.Task]:
    problem = edge.network("linear", "noise", 1).to_dict()
    labels: dict[str, Any] = {"target": "noise", "m": 1, "batch": 1.0, "fraction": 0.06}
    return [
        edge.Task("trained", labels, {"problem": problem, "fraction": 0.5, "batch_fraction": 1.0}),
        edge.Task("chaos", {"rate": 0.8}, {"rate": 0.8}),
        edge.Task("simulation", {"rate": 0.8, "d": 20}, {"rate": 0.8, "d": 5, "replicas": 3}),
    ]


def test_records_are_kept(tmp_path: Path) -> None:
    said: list[str] = []
    first = edge.run(tmp_path, 1, said.append, small_tasks())
    assert [record["kind"] for record in first] == ["trained", "chaos", "simulation"]
    assert len(said) == 3 and "[3/3] simulation, rate = 0.8, d = 20" in said
    file = next(path for path in tmp_path.glob("*.json") if json.loads(path.read_text())["kind"] == "chaos")
    file.write_text("{")
    said.clear()
    assert edge.run(tmp_path, 1, said.append, small_tasks()) == first
    assert said == ["2 of 3 measurements were there already", "[3/3] chaos, rate = 0.8"]
    text = edge.markdown(first)
    assert "| 0.8 | -0.0" in text and "0/3" in text
    edge_plots.plot(first, tmp_path / "edge.png")
    assert (tmp_path / "edge.png").stat().st_size > 10_000


def test_tasks_are_different() -> None:
    tasks = edge.tasks()
    assert len({task.key() for task in tasks}) == len({task.name() for task in tasks}) == len(tasks)
    assert {task.kind for task in tasks} == set(edge._MEASURES)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 4, 16, 10**6])
@pytest.mark.parametrize("target", ["noise", "index"])
def test_thresholds_of_the_study(target: str, width: int) -> None:
    record = edge.measure_threshold(edge.network("cubic", target, width, train_second_layer=False))
    assert record["measured"] == pytest.approx(record["predicted"], rel=0.012)
