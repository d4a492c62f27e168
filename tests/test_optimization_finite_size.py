"""Finite networks on both sides of the optimization threshold: forces, integrator, reading, files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from validation.gaussian_model import GaussianModel
from validation.model import FloatArray, initial_weights
from validation.optimization.finite_size import (
    INTERPOLATED,
    LEFT,
    ChebyshevFlow,
    CollectiveGaussian,
    Curve,
    FiniteSize,
    Series,
    TrueNetwork,
    condensation,
    condense,
    markdown,
    plan,
    plot,
    run,
    train,
)
from validation.optimization.finite_size import __main__ as command

TIMES = np.append(0.0, np.geomspace(0.1, 1e4, 200))


def series(**changes: object) -> Series:
    settings: dict[str, object] = {"model": "gaussian", "activation": "cubic", "noise_std": 0.1, "width": 6}
    settings |= {"sample_ratio": 3.0, "dimension": 10, "replicas": 2, "t_final": 30.0}
    return Series(**(settings | changes))  # type: ignore[arg-type]


def network(activation: str = "tanh", d: int = 10) -> tuple[TrueNetwork, FloatArray, FloatArray]:
    problem = series(activation=activation).problem()
    rng = np.random.default_rng(1)
    model = TrueNetwork(problem, d, round(3.0 * d), rng, rng, 0)
    return model, *initial_weights(problem.formulation(), d, rng)


def curve(train_error: FloatArray, replica: int = 0) -> Curve:
    rest = dict.fromkeys(("a", "v", "test_error"), [1.0] * len(TIMES))
    return Curve(t=TIMES.tolist(), train_error=train_error.tolist(), replica=replica, **rest)


# ------------------------------------------------------------------------------------------------------------- forces


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_collective_forces_are_those_of_the_gaussian_model(dtype: type[np.float64] | type[np.float32]) -> None:
    problem = series().problem()
    plain = GaussianModel(problem, 10, 131, np.random.default_rng(3), dtype)
    fast = CollectiveGaussian(problem, 10, 131, np.random.default_rng(3), dtype)
    rng = np.random.default_rng(4)
    weights, _ = initial_weights(problem.formulation(), 10, rng)
    a = rng.standard_normal(6)
    d_weights, d_a, error = fast.evaluate(weights, a)
    expected = plain.force(weights, a)
    residuals = plain.residuals(weights, a)
    accuracy = 1e-11 if dtype is np.float64 else 1e-4
    np.testing.assert_allclose(d_weights, expected[0], rtol=0, atol=accuracy * np.abs(expected[0]).max())
    np.testing.assert_allclose(d_a, expected[1], rtol=0, atol=accuracy * np.abs(expected[1]).max())
    assert error == pytest.approx(0.5 * float(residuals @ residuals) / 131, rel=accuracy)


def test_time_is_that_of_the_mean_field_flow() -> None:
    """In t_mf = alpha t the flow is d theta/dt = -m grad of the train error: checked by differences in a."""
    model, weights, a = network()
    flow = ChebyshevFlow(model, weights, a, 6 * 10 / 30, 1e-3)
    shift = 1e-5
    for neuron in range(6):
        up, down = a.copy(), a.copy()
        up[neuron] += shift
        down[neuron] -= shift
        gradient = (model.evaluate(weights, up)[2] - model.evaluate(weights, down)[2]) / (2 * shift)
        assert flow._slope[60 + neuron] == pytest.approx(-6 * gradient, rel=1e-6)


# --------------------------------------------------------------------------------------------------------- integrator


def reference(model: TrueNetwork, weights: FloatArray, a: FloatArray, scale: float, end: float) -> FloatArray:
    """The same flow by an unrelated integrator at a small tolerance."""
    from scipy.integrate import solve_ivp

    shape, size = weights.shape, weights.size

    def slope(t: float, y: FloatArray) -> FloatArray:
        w = y[:size].reshape(shape)
        w = w / np.linalg.norm(w, axis=1)[:, None]
        d_w, d_a, _ = model.evaluate(w, y[size:])
        d_w -= np.einsum("ij,ij->i", w, d_w)[:, None] * w
        return np.concatenate([d_w.ravel(), d_a]) * scale

    found = solve_ivp(slope, (0.0, end), np.concatenate([weights.ravel(), a]), rtol=1e-9, atol=1e-10)
    y = np.asarray(found.y[:, -1], dtype=np.float64)
    w = y[:size].reshape(shape)
    return np.concatenate([(w / np.linalg.norm(w, axis=1)[:, None]).ravel(), y[size:]])


def test_flow_is_of_second_order_and_right() -> None:
    model, weights, a = network()
    end = 8.0
    expected = reference(model, weights, a, 2.0, end)
    errors, forces = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        flow = ChebyshevFlow(model, weights, a, 2.0, tolerance)
        while flow.t < end:
            flow.step(end)
        found = np.concatenate([flow.weights.ravel(), flow.a])
        errors.append(float(np.abs(found - expected).max()))
        forces.append(flow.forces)
        np.testing.assert_allclose(np.linalg.norm(flow.weights, axis=1), 1.0, rtol=1e-12)
    assert errors[0] < 2e-2
    # Error per step ~ h^3, so errors at a fixed time fall as tolerance^(2/3), by 22 for a hundredth of the tolerance.
    assert errors[1] < errors[0] / 8 and errors[2] < errors[1] / 8
    assert forces[0] < forces[1] < forces[2]


class Valley:
    """Neurons on circles with rates 1e-3 and 1: a = exp(-t) for the fast one."""

    def evaluate(self, weights: FloatArray, a: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        rates = np.array([1e-3, 1.0])
        return np.zeros_like(weights), -rates * a, float(0.5 * rates @ a**2)


def test_steps_are_not_bound_by_the_fastest_mode() -> None:
    flow = ChebyshevFlow(Valley(), np.eye(2), np.ones(2), 1.0, 1e-3)
    longest = 0.0
    while flow.t < 1000.0:
        before = flow.t
        flow.step(1000.0)
        longest = max(longest, flow.t - before)
    assert longest > 50.0  # an explicit step of the usual kind is at most 2 to 3 here
    assert flow.forces < 500
    assert flow.a[0] == pytest.approx(math.exp(-1.0), rel=5e-3)
    assert abs(flow.a[1]) < 1e-3


def test_training_lowers_the_error_and_stops_when_it_has_interpolated() -> None:
    found = train(series(sample_ratio=2.0, t_final=2000.0), 0)
    assert np.all(np.diff(found["train_error"]) < 1e-4 * found["train_error"][:-1])
    assert found["train_error"][-1] < INTERPOLATED <= found["train_error"][-2]
    assert 0.0 < found["t"][-1] < 2000.0
    again = train(series(sample_ratio=2.0, t_final=2000.0), 0)
    np.testing.assert_array_equal(again["train_error"], found["train_error"])
    other = train(series(sample_ratio=2.0, t_final=2000.0), 1)
    assert other["train_error"][0] != found["train_error"][0]


def test_condensation_of_orthogonal_random_and_collinear_neurons() -> None:
    mean = np.full(40, 0.3)
    assert condensation(np.eye(40)[:8] + mean) == pytest.approx(1 / 7)
    line = np.outer([1.0, -2.0, 0.5], np.arange(40.0)) + mean
    assert condensation(line) == pytest.approx(1.0)
    random = np.random.default_rng(0).standard_normal((100, 400))
    assert condensation(random) == pytest.approx((1 + math.sqrt(100 / 400)) ** 2 / 100, rel=0.1)


def test_condensation_follows_the_same_replica() -> None:
    one = series(sample_ratio=2.0, t_final=2000.0)
    followed, trained = condense(one, 1), train(one, 1)
    rows = len(followed["t"])
    np.testing.assert_array_equal(followed["t"], trained["t"][:rows])
    assert trained["train_error"][rows - 1] < LEFT < trained["train_error"][rows - 2]


# ------------------------------------------------------------------------------------------------------------ reading


def test_crossing_and_slowest_drift_of_a_plateau() -> None:
    # A power law t^-0.05 that is left as exp(-t/1000).
    found = curve(np.minimum(5.0, np.maximum(TIMES, 1e-3) ** -0.05 * np.exp(-TIMES / 1000.0)))
    left = found.crossing(LEFT)
    assert left is not None and left**-0.05 * math.exp(-left / 1000.0) == pytest.approx(LEFT, rel=1e-3)
    drift, level = found.slowest()
    assert 0.05 < drift < 0.08  # the first e-fold after t = 10 adds 0.017
    assert level == pytest.approx(16.5**-0.05 * math.exp(-0.0165), rel=0.02)
    assert curve(np.ones(len(TIMES))).crossing(LEFT) is None


def synthetic(exponent: float = 0.5) -> FiniteSize:
    """Ten replicas at three d that leave at 10 d^exponent, one series that does not."""
    rng = np.random.default_rng(5)
    all_series = [series(width=32, dimension=d, replicas=10, sample_ratio=24.0, t_final=1e4) for d in (25, 50, 100)]
    all_series.append(series(width=32, dimension=25, replicas=4, sample_ratio=31.0, t_final=1e4))
    curves = {}
    for one in all_series[:3]:
        times = 10.0 * one.dimension**exponent * np.exp(0.1 * rng.standard_normal(10))
        curves[one.key] = [curve(np.where(t > TIMES, 0.8, 0.8 * (t / np.maximum(TIMES, t)) ** 4), k)
                           for k, t in enumerate(times)]  # fmt: skip
    curves[all_series[3].key] = [curve(np.full(len(TIMES), 0.7), k) for k in range(4)]
    theory = {one.theory_key: curve(np.full(len(TIMES), 0.76)) for one in all_series}
    followed = {all_series[0].key: [[[0.0, 100.0], [0.1, 0.2]], [[0.0, 150.0], [0.2, 0.35]]]}
    return FiniteSize(series=all_series, curves=curves, theory=theory, condensation=followed)


def test_growth_with_dimension() -> None:
    (row,) = synthetic(0.5).growth()
    assert row["dimensions"] == [25, 50, 100]
    assert abs(row["exponent"] - 0.5) < 3 * row["error"] and 0.01 < row["error"] < 0.06
    (flat,) = synthetic(0.0).growth()
    assert abs(flat["exponent"]) < 3 * flat["error"]


def test_table_counts_and_waits() -> None:
    rows = synthetic().table()
    assert [row["fraction"] for row in rows] == [1.0, 1.0, 1.0, 0.0]
    assert rows[0]["low"] == pytest.approx(0.025 ** (1 / 10))
    assert rows[3]["high"] == pytest.approx(1 - 0.025 ** (1 / 4))
    assert rows[3]["left"] is None and rows[3]["interpolation"] is None
    assert rows[0]["left"] == pytest.approx(50 * (0.8 / LEFT) ** 0.25, rel=0.1)
    assert rows[0]["theory_left"] is None and rows[0]["theory_plateau"] == pytest.approx(0.76)
    assert rows[3]["drift"] == pytest.approx(0.0, abs=1e-12) and rows[3]["plateau"] == pytest.approx(0.7)
    assert len(markdown(synthetic()).splitlines()) == 6


def test_condensation_is_read_at_fixed_times() -> None:
    (row,) = synthetic().condensing()
    assert row["t"][:4] == [0.0, 10.0, 30.0, 100.0] and row["theory"] == pytest.approx(1 / 31)
    np.testing.assert_allclose(row["condensation"][:4], [0.15, 0.16, 0.18, 0.25])
    assert row["condensation"][4] is None  # one replica has left by then


def test_convergence_pairs_replicas_by_number() -> None:
    found = synthetic()
    coarse = found.series[0]
    fine = coarse.at(coarse.tolerance / 10)
    moved = [Curve(**(vars(x) | {"train_error": [1.02 * e for e in x.train_error]})) for x in found.curves[coarse.key]]
    both = FiniteSize(
        series=[*found.series, fine], curves={**found.curves, fine.key: moved[:2:-1]}, theory=found.theory
    )
    (row,) = both.convergence()
    assert row["replicas"] == 7
    assert row["change"] == pytest.approx(math.log(1.02), rel=1e-6) and row["error"] == pytest.approx(0.0, abs=1e-9)


def test_file_and_figure(tmp_path: Path) -> None:
    found = synthetic()
    found.to_json(tmp_path / "x.json")
    assert FiniteSize.from_json(tmp_path / "x.json") == found
    figure = plot(found, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000
    assert len(figure.axes) == 2
    with pytest.raises(ValueError, match="finished replica"):
        plot(FiniteSize(series=found.series, curves={}, theory={}))


def test_finished_replicas_are_not_run_again(tmp_path: Path) -> None:
    common: dict[str, object] = {"width": 64, "sample_ratio": 8.5, "t_final": 20.0}  # a quick one for the theory
    small = [series(model="network", **common), series(replicas=1, **common)]
    seen: list[str] = []
    found, complete = run(tmp_path, small, progress=lambda done, total, key: seen.append(key))
    assert complete and not found.failures and len(seen) == 4  # three replicas, one theory for both
    assert [len(found.curves[x.key]) for x in small] == [2, 1]
    assert found.theory[small[0].theory_key].t[-1] == pytest.approx(20.0, rel=1e-5)
    seen.clear()
    again, _ = run(tmp_path, small, progress=lambda done, total, key: seen.append(key))
    assert not seen and again == found


def test_command_writes_numbers_figure_and_the_table_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = synthetic()
    monkeypatch.setattr(command, "run", lambda out, **options: (found, True))
    page = tmp_path / "page.md"
    page.write_text("Text.\n\n<!-- table: finite-size -->\nold\n<!-- end -->\n\nMore.\n")
    assert command.main(["--out", str(tmp_path), "--page", str(page)]) == 0
    table = markdown(found).strip()
    assert page.read_text() == f"Text.\n\n<!-- table: finite-size -->\n{table}\n<!-- end -->\n\nMore.\n"
    assert table in capsys.readouterr().out
    assert FiniteSize.from_json(tmp_path / "finite_size.json") == found and (tmp_path / "finite_size.png").exists()


def test_plan_is_on_both_sides_of_the_threshold_and_can_interpolate() -> None:
    keys = [x.key for x in plan()]
    assert len(set(keys)) == len(keys)
    assert all(x.sample_ratio < x.width for x in plan())
