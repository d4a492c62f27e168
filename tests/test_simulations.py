"""Simulations: initial weights, modes, optimisers, memory, checkpoints, and every refusal."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmft
from dmft.simulation import Simulation
from dmft.solution import mode_names
from validation import dynamics, gaussian_model, simulations
from validation.model import correlation_modes, group_means, initial_weights
from validation.simulations import Plan, SimulationError, simulate

ACTIVATION = dmft.Activation.from_covariance([0, 0.6, 0.4])
SHARED: dict[str, Any] = {"alpha": 1.0, "activation": ACTIVATION, "target": dmft.Target.same_as(ACTIVATION)}
D = 10


def symmetric(**changes: Any) -> dmft.SymmetricProblem:
    return dmft.SymmetricProblem(**(SHARED | {"width": 3, "noise_std": 0.5, "a0": 1.0} | changes))


def grouped(**changes: Any) -> dmft.GroupedProblem:
    defaults = {"sizes": [1, 3, 2], "noise_std": 0.5, "a0": [1.0, -1.0, 0.5]}
    return dmft.GroupedProblem(**(SHARED | defaults | changes))


def curves(simulation: Simulation) -> dict[str, np.ndarray]:
    names = (*simulation.curve_names, *simulation.two_time_names)
    return {name: simulation.sample(name).values for name in names}  # type: ignore[misc]


def assert_same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert list(one) == list(other)
    for name, values in one.items():
        assert values.shape == other[name].shape and values.tobytes() == other[name].tobytes(), name


# ---------------------------------------------------------------------------------------------------- initial weights


def z_scores(samples: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of the mean over the first axis; entries that do not vary must be right."""
    error = samples.std(axis=0, ddof=1) / math.sqrt(len(samples))
    fixed = error < 1e-12
    np.testing.assert_allclose(samples.mean(axis=0)[fixed], np.broadcast_to(expected, fixed.shape)[fixed], atol=1e-12)
    return ((samples.mean(axis=0) - expected) / np.where(fixed, np.inf, error)).ravel()


def test_uniform_weights_have_unit_rows_and_no_overlaps_in_the_mean() -> None:
    form = symmetric().formulation()
    draws = [initial_weights(form, 6, np.random.default_rng(i)) for i in range(600)]
    weights = np.array([w for w, _ in draws])
    np.testing.assert_allclose(np.linalg.norm(weights, axis=2), 1.0, rtol=1e-14)
    assert np.abs(z_scores(weights, np.zeros((3, 6)))).max() < 4
    gram = weights @ weights.transpose(0, 2, 1)
    assert np.abs(z_scores(gram, np.eye(3))).max() < 4
    second = np.einsum("rij,rik->rjk", weights, weights) / 3  # uniform on the sphere: all directions alike
    assert np.abs(z_scores(second, np.eye(6) / 6)).max() < 4
    assert draws[0][1].tolist() == [1.0, 1.0, 1.0]


def test_given_overlaps_and_gram_matrix_hold_in_the_mean() -> None:
    """Bias 1/d of the normalisation: d = 3000 leaves 1e-4, below the errors of 300 draws."""
    target = dmft.Target.from_overlap({(1, 0): 0.2, (0, 1): -0.3}, 1.0)
    v0 = [[0.3, -0.2], [0.5, 0.1], [-0.4, 0.6]]
    cross = np.array([[0.0, 0.3, -0.2], [0.3, 0.5, -0.1], [-0.2, -0.1, 0.6]])
    made = grouped(target=target, v0=v0, cross_gram0=cross, a0=[1.0, 2.0, 3.0])
    draws = [initial_weights(made.formulation(), 3000, np.random.default_rng(i)) for i in range(300)]
    weights = np.array([w for w, _ in draws])
    group = [0, 1, 1, 1, 2, 2]
    assert np.abs(z_scores(weights[:, :, :2], np.array(v0)[group])).max() < 4
    gram = np.where(np.eye(6), 1.0, cross[np.ix_(group, group)])
    assert np.abs(z_scores(weights @ weights.transpose(0, 2, 1), gram)).max() < 4
    assert draws[0][1].tolist() == [1, 2, 2, 2, 3, 3]


def test_general_gram_matrix_and_shared_weights() -> None:
    gram0 = np.array([[1, 0.2, 1, 0], [0.2, 1, 0.2, 0.5], [1, 0.2, 1, 0], [0, 0.5, 0, 1]])
    made = dmft.GeneralProblem(**(SHARED | {"a0": [1, 2, 3, 4], "noise_std": 0.5, "gram0": gram0}))
    draws = np.array([initial_weights(made.formulation(), 2000, np.random.default_rng(i))[0] for i in range(200)])
    np.testing.assert_allclose(draws[:, 0], draws[:, 2], rtol=0, atol=1e-7)  # sqrt of a rounded eigenvalue 0
    assert np.abs(draws[:, 0] - draws[:, 3]).max() > 0.05
    assert np.abs(z_scores((draws @ draws.transpose(0, 2, 1)), gram0)[gram0.ravel() < 1]).max() < 4


def test_first_neurons_are_the_same_at_any_width() -> None:
    narrow, wide = (initial_weights(symmetric(width=m).formulation(), 7, np.random.default_rng(3))[0] for m in (2, 9))
    np.testing.assert_array_equal(wide[:2], narrow)


# ---------------------------------------------------------------------------------------------------- groups and modes


def test_modes_against_loops() -> None:
    form = grouped().formulation()
    rng = np.random.default_rng(0)
    earlier, later = rng.standard_normal((2, 6, 5))
    members = [[0], [1, 2, 3], [4, 5]]
    overlap = [[float(earlier[i] @ later[j]) for j in range(6)] for i in range(6)]
    expected: dict[str, float] = {}
    for g, one in enumerate(members):
        for h, other in enumerate(members):
            # <e_g, C e_h> with e_g = 1_g/sqrt(m_g)
            total = sum(overlap[i][j] for i in one for j in other)
            expected[f"S{g}{h}"] = total / math.sqrt(len(one) * len(other))
    for g, one in enumerate(members):
        if len(one) > 1:
            # C_d - C_o, averages over the group
            diagonal = sum(overlap[i][i] for i in one) / len(one)
            off = sum(overlap[i][j] for i in one for j in one if i != j) / (len(one) * (len(one) - 1))
            expected[f"T{g}"] = diagonal - off
    names = mode_names(form)
    assert set(names) == set(expected) and names[0] == "S00"
    modes = correlation_modes(earlier, later, form)
    np.testing.assert_allclose(modes, [expected[name] for name in names], rtol=1e-13)
    # Both times the other way round: transposed.
    swapped = dict(zip(names, correlation_modes(later, earlier, form), strict=True))
    assert swapped["S10"] == pytest.approx(expected["S01"], rel=1e-13)
    assert abs(expected["S01"] - expected["S10"]) > 0.1


def test_group_means() -> None:
    form = grouped().formulation()
    values = np.arange(12.0).reshape(6, 2) ** 2
    expected = [values[0], (values[1] + values[2] + values[3]) / 3, (values[4] + values[5]) / 2]
    np.testing.assert_allclose(group_means(values, form), expected, rtol=1e-15)
    np.testing.assert_allclose(group_means(values[:, 0], form), np.array(expected)[:, 0], rtol=1e-15)


def test_initial_modes_of_a_simulation_are_those_of_the_problem() -> None:
    """At t = 0, in the mean over replicas: the engine's C_S(0,0) and C_T(0,0), by the names of the modes."""
    cross = [[0.0, 0.3, -0.2], [0.3, 0.5, -0.1], [-0.2, -0.1, 0.6]]
    made = grouped(cross_gram0=cross, v0=[0.1, 0.2, -0.3], train_second_layer=False, alpha=0.01)
    result = simulate(made, 100, t_final=0.01, times=[0.0], pair_times=[0.0], replicas=60)
    form = made.formulation()
    found = result.sample("correlation")
    for name, mean, sem in zip(result.modes, found.mean[:, 0, 0], found.sem[:, 0, 0], strict=True):
        digits = [int(digit) for digit in name[1:]]
        expected = form.correlation_s0[tuple(digits)] if name[0] == "S" else form.correlation_t0[digits[0]]
        assert mean == pytest.approx(expected, abs=4 * sem + 1e-9), name
        if name == "S01":
            assert abs(expected) > 10 * sem


# ---------------------------------------------------------------------------------------------------- one replica


RUN: dict[str, Any] = {"t_final": 2.0, "times": [0.0, 0.1, 0.5, 2.0], "pair_times": [0.1, 2.0]}


@pytest.mark.parametrize(
    "options",
    [{}, {"model": "network", "test_samples": 50}, {"model": "network", "step": 0.1, "batch": 4}, {"step": 0.1}],
    ids=str,
)
def test_a_replica_does_not_depend_on_the_others(options: dict[str, Any]) -> None:
    made = grouped(alpha=0.5)
    many = curves(simulate(made, D, **RUN, **options, replicas=4, seed=3))
    for replica in (0, 2):
        alone = simulate(made, D, **RUN, **options, replicas=[replica], seed=3)
        assert alone.replica_index.tolist() == [replica]
        assert_same_bits(curves(alone), {name: values[[replica]] for name, values in many.items()})
    assert all(not np.array_equal(values[0][-1], values[1][-1]) for values in many.values())
    other_seed = curves(simulate(made, D, **RUN, **options, replicas=2, seed=4))
    for name, values in other_seed.items():
        assert not np.array_equal(values[0][-1], many[name][0][-1]), name


def test_workers_give_the_same_bits() -> None:
    one, two = (simulate(symmetric(), D, **RUN, replicas=3, workers=workers) for workers in (1, 2))
    assert_same_bits(curves(one), curves(two))


def test_dimensions_in_a_list_are_single_runs() -> None:
    several = simulate(symmetric(), [6, D], **RUN, replicas=2, seed=5)
    assert [s.settings.dimension for s in several] == [6, D]
    assert [s.settings.samples for s in several] == [18, 30]
    for result in several:
        alone = simulate(symmetric(), result.settings.dimension, **RUN, replicas=2, seed=5)
        assert_same_bits(curves(result), curves(alone))
        assert alone.settings == result.settings


def test_observables_of_a_trajectory_recomputed() -> None:
    """Everything recorded, from the final weights of the optimiser and the definitions."""
    made = grouped(v0=[0.5, 0.0, -0.3])
    plan = Plan(made, [D], **RUN, replicas=1, step=0.1, seed=2)
    result = plan.run()[0]
    job = dynamics.Job(
        problem=made.to_dict(), settings=plan.settings[0].to_dict(), replica=0, times=(2.0,), pair_times=(2.0,)
    )
    data, start = (
        np.random.default_rng(seed) for seed in np.random.SeedSequence([2, D], spawn_key=(job.replica,)).spawn(4)[:2]
    )
    weights, a = initial_weights(made.formulation(), D, start)
    model = gaussian_model.GaussianModel(made, D, 60, data)
    path = [weights]
    for _ in range(20):
        d_w, d_a = model.force(weights, a)
        weights = weights + 0.1 * d_w
        weights = weights / np.linalg.norm(weights, axis=1)[:, None]
        path.append(weights)
        a = a + 0.1 * d_a
    r = model.residuals(weights, a)
    u = weights[:, 0]
    h = made.activation.h
    risk = 0.5 * (0.25 + h(1.0) - 2 * np.mean(a * h(u)) + np.mean(np.outer(a, a) * h(weights @ weights.T)))
    expected = {
        "train_error": 0.5 * np.mean(r**2),
        "test_error": risk,
        "a": [a[0], a[1:4].mean(), a[4:].mean()],
        "v": [u[0], u[1:4].mean(), u[4:].mean()],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(result.sample(name).values[0][-1], value, rtol=1e-10, err_msg=name)
    # C_ij(t, s) = <w_i(t), w_j(s)>, t = 0.1 first: one neuron then, those of the second group at s = 2.
    late = sum(path[1][0] @ path[20][j] for j in (1, 2, 3)) / math.sqrt(3)
    early = sum(path[20][0] @ path[1][j] for j in (1, 2, 3)) / math.sqrt(3)
    place = result.modes.index("S01")
    np.testing.assert_allclose(result.sample("correlation").mean[place, 0, 1], late, rtol=1e-9)
    np.testing.assert_allclose(result.sample("correlation").mean[place, 1, 0], early, rtol=1e-9)
    assert abs(late - early) > 1e-3
    np.testing.assert_allclose(result.sample("gamma").mean[-1], result.sample("a").mean[-1] / math.sqrt(6), rtol=1e-14)


def test_two_time_functions_obey_their_identities() -> None:
    made = grouped()
    result = simulate(made, D, **RUN, replicas=2)
    sizes = np.array([1, 3, 2])
    correlation, residual = result.sample("correlation").values, result.sample("residual_correlation").values
    assert correlation is not None and residual is not None
    by_name = dict(zip(result.modes, np.moveaxis(correlation, 1, 0), strict=True))
    for g, m in enumerate(sizes):
        # |w| = 1: C_d = (S + (m-1) T)/m = 1
        diagonal = (by_name[f"S{g}{g}"] + (by_name.get(f"T{g}", 0.0)) * (m - 1)) / m
        np.testing.assert_allclose(np.diagonal(diagonal, axis1=1, axis2=2), 1.0, rtol=1e-12)
        assert np.abs(diagonal[:, 0, 1]).max() < 1.0 - 1e-6
    # First index at the first time.
    np.testing.assert_allclose(by_name["S01"][:, 0, 1], by_name["S10"][:, 1, 0], rtol=1e-12)
    assert np.abs(by_name["S01"][:, 0, 1] - by_name["S01"][:, 1, 0]).min() > 1e-6
    train = result.sample("train_error").values
    assert train is not None
    places = np.searchsorted(result.t, result.pair_times)
    np.testing.assert_allclose(np.diagonal(residual, axis1=1, axis2=2), 2 * train[:, places], rtol=1e-12)
    np.testing.assert_allclose(residual, residual.transpose(0, 2, 1), rtol=1e-14)


# ---------------------------------------------------------------------------------------------------- optimisers


@pytest.mark.parametrize("model", ["gaussian", "network"])
def test_gradient_descent_approaches_the_flow_at_first_order(model: str) -> None:
    options = RUN | {"replicas": 1, "model": model, "seed": 1}
    flow = simulate(symmetric(), D, **options, rtol=1e-9)
    errors = []
    for step in (0.02, 0.01, 0.005):
        descent = simulate(symmetric(), D, **options, step=step)
        np.testing.assert_allclose(descent.t, flow.t, rtol=1e-12)
        errors.append(
            {name: np.abs(descent.sample(name).mean - flow.sample(name).mean)[-2:] for name in ("test_error", "a", "v")}
        )
    for name in ("test_error", "a", "v"):
        for coarse, fine in ((errors[0], errors[1]), (errors[1], errors[2])):
            np.testing.assert_allclose(coarse[name] / fine[name], 2.0, rtol=0.1, err_msg=name)


def test_a_small_batch_descends_too() -> None:
    """Minibatches follow the flow of the same replica, with noise that falls with the step."""
    options = RUN | {"replicas": 1, "model": "network", "seed": 1, "test_samples": 0}
    flow = simulate(symmetric(), D, **options)
    distances = []
    for step in (0.02, 0.0002):
        run = simulate(symmetric(), D, **options, step=step, batch=5)
        distances.append(np.abs(run.sample("train_error").mean[-1] - flow.sample("train_error").mean[-1]))
        np.testing.assert_array_equal(run.sample("train_error").mean[0], flow.sample("train_error").mean[0])
    assert distances[1] < 2e-3 < 0.1 * (flow.sample("train_error").mean[0] - flow.sample("train_error").mean[-1])


@pytest.mark.parametrize("options", [{}, {"model": "network", "batch": 4}], ids=str)
def test_looking_at_the_numbers_more_often_changes_nothing(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = curves(simulate(symmetric(), D, **RUN, step=0.05, replicas=1, **options))
    monkeypatch.setattr(dynamics, "CHUNK", 3)
    assert_same_bits(curves(simulate(symmetric(), D, **RUN, step=0.05, replicas=1, **options)), whole)


def test_tolerance_of_the_flow() -> None:
    default, loose, tight = (
        simulate(symmetric(), D, **RUN, replicas=1, **o) for o in ({}, {"rtol": 1e-3}, {"rtol": 1e-9})
    )
    assert default.settings.rtol == 1e-5
    for name in ("train_error", "test_error", "a", "v"):
        difference = np.abs(default.sample(name).mean - tight.sample(name).mean).max()
        assert 0 < difference < 1e-4, name
        assert difference < np.abs(loose.sample(name).mean - tight.sample(name).mean).max(), name


@pytest.mark.parametrize("model", ["gaussian", "network"])
def test_train_error_never_increases_under_the_flow(model: str) -> None:
    result = simulate(symmetric(), D, t_final=50.0, replicas=3, model=model)
    values = result.sample("train_error").values
    assert values is not None and len(result.t) > 20
    assert (np.diff(values, axis=1) <= 1e-7).all()
    assert (values[:, -1] < 0.5 * values[:, 0]).all()


def test_a_fixed_second_layer_stays() -> None:
    for options in ({}, {"step": 0.1}, {"step": 0.1, "model": "network", "batch": 5}):
        result = simulate(symmetric(train_second_layer=False), D, **RUN, replicas=1, **options)
        np.testing.assert_array_equal(result.sample("a").mean, 1.0)
        train = result.sample("train_error").mean
        assert train[-1] < train[0]


def test_learning_rate_is_step_times_n_over_d() -> None:
    made = symmetric(alpha=0.5)  # n/d = 1.5
    one = simulate(made, D, **RUN, replicas=2, step=0.05)
    other = simulate(made, D, **RUN, replicas=2, learning_rate=0.075)
    assert one.settings.samples / D == 1.5
    assert other.settings.step == pytest.approx(0.05, rel=1e-15)
    for name, values in curves(one).items():
        np.testing.assert_allclose(curves(other)[name], values, rtol=1e-10, atol=1e-12)
    # The plain gradient of (1/2n) sum r^2, by hand: one update of eta along it.
    assert {one.settings.optimizer, other.settings.optimizer} == {"gd"}


def test_times_are_rounded_to_whole_updates() -> None:
    plan = Plan(symmetric(), [D], t_final=1.0, step=0.1, times=[0.0, 0.14, 0.16, 0.2, 0.99], pair_times=[0.52])
    np.testing.assert_allclose(plan.times, [0.0, 0.1, 0.2, 0.5, 1.0], rtol=1e-14)
    np.testing.assert_allclose(plan.pair_times, [0.5], rtol=1e-14)
    assert set(plan.pair_times) <= set(plan.times)
    flow = Plan(symmetric(), [D], t_final=1.0, times=[0.14, 0.16], pair_times=[])
    assert flow.times.tolist() == [0.14, 0.16] and flow.pair_times.tolist() == []


@pytest.mark.parametrize("t_final", [1.0, 2.0, 3.0, 20.0, 137.0])
def test_default_times(t_final: float) -> None:
    plan = Plan(symmetric(), [D], t_final=t_final)
    assert plan.times[0] == 0.0 and plan.times[1] == pytest.approx(t_final / 1000) and plan.times[-1] == t_final
    np.testing.assert_allclose(plan.pair_times, np.array([0.01, 0.1, 0.5, 1.0]) * t_final)
    assert np.diff(np.log(plan.times[1:])).min() > 1e-6  # 0.1 t_final is there once, not twice an ulp apart
    assert set(plan.pair_times) <= set(plan.times)


def test_no_pair_times_no_two_time_functions() -> None:
    result = simulate(symmetric(), D, t_final=1.0, times=[1.0], pair_times=[], replicas=2)
    assert result.two_time_names == () and result.t.tolist() == [1.0]


def test_test_set_of_a_network() -> None:
    result = simulate(symmetric(), D, **RUN, replicas=1, model="network")
    assert result.settings.test_samples == 10_000 and "test_error_fresh" in result.curve_names
    # 10^4 samples: to a few per cent
    np.testing.assert_allclose(result.sample("test_error_fresh").mean, result.sample("test_error").mean, rtol=0.1)
    without = simulate(symmetric(), D, **RUN, replicas=1, model="network", test_samples=0)
    assert "test_error_fresh" not in without.curve_names
    assert_same_bits({"t": without.sample("train_error").values}, {"t": result.sample("train_error").values})


# ---------------------------------------------------------------------------------------------------- memory


def need(dimension: int, precision: str) -> int:
    plan = Plan(symmetric(), [dimension], t_final=1.0, precision=precision, memory_limit=1e15)
    return simulations._bytes(symmetric(), plan.settings[0], len(plan.pair_times))


def test_memory_limit_refuses_with_what_would_fit() -> None:
    limit = 0.4 * need(200, "double")
    with pytest.raises(ValueError, match="dimension 200 is too large") as caught:
        Plan(symmetric(), [200], t_final=1.0, memory_limit=limit)
    text = str(caught.value)
    columns = 200 + 200 * 201 // 2
    hint = "precision = single takes half"
    for words in ("600 samples", f"{columns:,} Gaussian components", "double precision", hint, f"{limit / 1e9:.2f} GB"):
        assert words in text
    assert "\n" not in text
    (fits,) = re.findall(r"dimension <= (\d+) would fit", text)
    accepted = Plan(symmetric(), [int(fits)], t_final=1.0, memory_limit=limit)
    assert accepted.settings[0].precision == "double" and 1 < int(fits) < 200
    with pytest.raises(ValueError, match="too large"):
        Plan(symmetric(), [int(fits) + 1], t_final=1.0, memory_limit=limit)


def test_memory_limit_of_a_network() -> None:
    plan: Callable[..., Plan] = lambda d: Plan(symmetric(), [d], t_final=1.0, model="network", memory_limit=4e6)  # noqa: E731
    with pytest.raises(ValueError, match="dimension 100 is too large: 300 samples in double precision") as caught:
        plan(100)
    (fits,) = re.findall(r"dimension <= (\d+) would fit", str(caught.value))
    assert plan(int(fits)).settings[0].dimension == int(fits)
    with pytest.raises(ValueError, match="too large"):
        plan(int(fits) + 1)


def test_automatic_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """It depends on the size of the problem and on nothing else: free memory must not change results."""
    double, single = need(100, "double"), need(100, "single")
    assert single < 0.6 * double
    assert Plan(symmetric(), [100], t_final=1.0, memory_limit=1.01 * double).settings[0].precision == "double"
    with pytest.raises(ValueError, match="in double precision need"):
        Plan(symmetric(), [100], t_final=1.0, memory_limit=0.99 * double)
    chosen = Plan(symmetric(), [100], t_final=1.0, memory_limit=1.01 * single, precision="single")
    assert chosen.settings[0].precision == "single"
    with pytest.raises(ValueError, match="in single precision need"):
        Plan(symmetric(), [100], t_final=1.0, memory_limit=0.99 * single, precision="single")
    monkeypatch.setattr(simulations, "SINGLE_ABOVE", 0.99 * double)
    for limit in (1.01 * single, 10.0 * double):
        assert Plan(symmetric(), [100], t_final=1.0, memory_limit=limit).settings[0].precision == "single"
    result = simulate(symmetric(), D, **RUN, replicas=1, precision="single")
    twin = simulate(symmetric(), D, **RUN, replicas=1)
    assert result.settings.precision == "single" and twin.settings.precision == "double"


def test_workers_are_reduced_to_what_fits() -> None:
    with pytest.warns(UserWarning, match=r"2 of 8 workers are used: one replica at d = 100 takes 0\.0\d GB, and"):
        plan = Plan(symmetric(), [100], t_final=1.0, workers=8, memory_limit=2.5 * need(100, "double"))
    assert plan.workers == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Plan(symmetric(), [100], t_final=1.0, workers=8, memory_limit=8.5 * need(100, "double")).workers == 8


def test_available_memory_is_that_of_this_machine() -> None:
    total = next(
        int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line
    )
    assert 0 < simulations.available_memory() <= total


def test_rounding_of_the_number_of_samples_is_said() -> None:
    with pytest.warns(UserWarning, match=r"n = alpha m d = 4\.5 is rounded to 4 at d = 5, which changes alpha by -11"):
        Plan(symmetric(alpha=0.3), [5], t_final=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Plan(symmetric(alpha=0.3), [10], t_final=1.0)


# ---------------------------------------------------------------------------------------------------- failures


TANH = dmft.Activation.named("tanh", degree=9)


@pytest.mark.parametrize(
    "options",
    [
        {"step": 1e4},
        {"step": 1e4, "model": "network"},
        {"step": 1e4, "model": "network", "batch": 4},
        # NaN would be a wild address in the table of the activation
        {"step": 1e4, "model": "network", "batch": 4, "activation": TANH},
    ],
    ids=str,
)
def test_divergence_names_the_step(options: dict[str, Any]) -> None:
    options = dict(options)
    activation = options.pop("activation", ACTIVATION)
    made = symmetric(activation=activation, target=dmft.Target.same_as(activation))
    with pytest.raises(
        SimulationError, match=r"0 of 2 replicas at d = 10 are finished: .*diverged before t = .*"
    ) as caught:
        simulate(made, D, t_final=2e7, replicas=2, times=[1e7], pair_times=[], **options)
    assert "use a step below 1e+04" in str(caught.value) and "\n" not in str(caught.value)


def test_finished_replicas_survive_those_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = curves(simulate(symmetric(), D, **RUN, replicas=4))
    real = dynamics.run

    def fails(job: dynamics.Job) -> Any:
        if job.replica in (1, 2):
            raise dynamics.DivergedError("training diverged before t = 1: use a step below 2.")
        return real(job)

    monkeypatch.setattr(dynamics, "run", fails)
    result = simulate(symmetric(), D, **RUN, replicas=4)
    assert result.status is dmft.Status.DIVERGED and not result.status.ok
    assert result.replica_index.tolist() == [0, 3] and result.replicas == 2
    for words in ("2 of 4 replicas at d = 10 are finished", "2 failed", "use a step below 2"):
        assert words in result.message
    assert_same_bits(curves(result), {name: values[[0, 3]] for name, values in reference.items()})


def test_stop_keeps_what_is_finished() -> None:
    done: list[int] = []
    result = simulate(
        symmetric(), D, **RUN, replicas=5, progress=lambda n, total, key: done.append(n), stop=lambda: len(done) >= 2
    )
    assert result.status is dmft.Status.INTERRUPTED
    assert result.replicas == len(result.replica_index) == done[-1] < 5
    assert f"{result.replicas} of 5 replicas at d = 10 are finished; resume" in result.message
    with pytest.raises(KeyboardInterrupt, match="0 of 5 replicas are finished"):
        simulate(symmetric(), D, **RUN, replicas=5, stop=lambda: True)


def test_resume_runs_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[int, int]] = []
    real = dynamics.run

    def noted(job: dynamics.Job) -> Any:
        ran.append((job.settings["dimension"], job.replica))
        return real(job)

    monkeypatch.setattr(dynamics, "run", noted)
    store = tmp_path / "store"
    stopped = simulate(symmetric(), D, **RUN, replicas=3, checkpoint=store, stop=lambda: len(ran) >= 2)
    assert stopped.status is dmft.Status.INTERRUPTED
    first = list(ran)
    ran.clear()
    full = simulate(symmetric(), D, **RUN, replicas=3, checkpoint=store, resume=True)
    assert sorted(first + ran) == [(D, 0), (D, 1), (D, 2)] and ran
    ran.clear()
    more = simulate(symmetric(), [D, 6], **RUN, replicas=4, checkpoint=store, resume=True)
    assert sorted(ran) == [(6, 0), (6, 1), (6, 2), (6, 3), (D, 3)]
    monkeypatch.undo()
    fresh = simulate(symmetric(), D, **RUN, replicas=4)
    assert_same_bits(curves(more[0]), curves(fresh))
    assert_same_bits(curves(full), {name: values[:3] for name, values in curves(fresh).items()})
    with pytest.raises(ValueError, match=str(store)):
        simulate(symmetric(), D, **(RUN | {"seed": 9}), replicas=3, checkpoint=store, resume=True)


def test_progress_counts_to_the_end() -> None:
    calls: list[tuple[int, int]] = []
    simulate(symmetric(), [6, D], **RUN, replicas=2, progress=lambda done, total, key: calls.append((done, total)))
    assert calls[-1] == (4, 4) and [n for n, _ in calls] == sorted(n for n, _ in calls)


# ---------------------------------------------------------------------------------------------------- refusals


LATENTS = dmft.Target.from_overlap({(1, 0, 0): 0.1, (0, 1, 0): 0.1, (0, 0, 1): 0.1}, 1.0)
SGD = {"model": "network", "batch": 4, "step": 0.1}

BAD: dict[str, tuple[dict[str, Any], type[Exception], list[str]]] = {
    "pspin": ({"problem": dmft.PSpinProblem(covariance=[0, 0, 1.0])}, TypeError, ["problem", "pspin"]),
    "no problem": ({"problem": None}, TypeError, ["problem", "None"]),
    "dimension 0": ({"dimension": 0}, ValueError, ["dimension", "0"]),
    "dimension below latents": (
        {"problem": symmetric(target=LATENTS), "dimension": 3},
        ValueError,
        ["dimension", "at least 4", "not 3"],
    ),
    "dimension float": ({"dimension": 20.5}, TypeError, ["dimension", "20.5"]),
    "dimension none": ({"dimension": None}, TypeError, ["dimension", "None"]),
    "dimension true": ({"dimension": True}, TypeError, ["dimension", "True"]),
    "dimension word": ({"dimension": "20"}, TypeError, ["dimension", "'20'"]),
    "dimension list float": ({"dimension": [10, 20.0]}, TypeError, ["dimension", "20.0"]),
    "dimension empty": ({"dimension": []}, ValueError, ["dimension", "empty"]),
    "dimension twice": ({"dimension": [10, 20, 10]}, ValueError, ["dimension", "different", "[10, 20, 10]"]),
    "no samples": ({"problem": symmetric(alpha=0.001)}, ValueError, ["dimension", "samples", "less than one"]),
    "t_final 0": ({"t_final": 0.0}, ValueError, ["t_final", "0"]),
    "t_final nan": ({"t_final": math.nan}, ValueError, ["t_final", "nan"]),
    "t_final word": ({"t_final": "long"}, TypeError, ["t_final", "long"]),
    "t_final below step": ({"t_final": 0.05, "step": 0.1}, ValueError, ["t_final", "0.05", "0.1"]),
    "replicas 0": ({"replicas": 0}, ValueError, ["replicas", "0"]),
    "replicas float": ({"replicas": 2.5}, TypeError, ["replicas", "2.5"]),
    "replicas twice": ({"replicas": [1, 1]}, ValueError, ["replicas", "[1, 1]"]),
    "replicas none": ({"replicas": []}, ValueError, ["replicas", "[]"]),
    "replicas negative": ({"replicas": [-1]}, ValueError, ["replicas", "-1"]),
    "model": ({"model": "gausian"}, ValueError, ["model", "gaussian, network", "'gausian'"]),
    "degree": (
        {"problem": symmetric(activation=TANH, target=dmft.Target.noise())},
        ValueError,
        ["degree <= 4", "not 9", "model='network'"],
    ),
    "optimizer": ({"optimizer": "adam"}, ValueError, ["optimizer", "flow, gd, sgd", "'adam'"]),
    "step with flow": ({"optimizer": "flow", "step": 0.1}, ValueError, ["step", "flow"]),
    "rate with flow": ({"optimizer": "flow", "learning_rate": 0.1}, ValueError, ["learning_rate", "flow"]),
    "gd without step": ({"optimizer": "gd"}, ValueError, ["gd", "step", "learning_rate"]),
    "step and rate": ({"step": 0.1, "learning_rate": 0.1}, ValueError, ["step", "learning_rate", "exactly one"]),
    "step 0": ({"step": 0.0}, ValueError, ["step", "0"]),
    "step word": ({"step": "small"}, TypeError, ["step", "small"]),
    "rate negative": ({"learning_rate": -0.1}, ValueError, ["learning_rate", "-0.1"]),
    "sgd without batch": (
        {"model": "network", "optimizer": "sgd", "step": 0.1},
        ValueError,
        ["sgd", "batch"],
    ),
    "batch with gd": (SGD | {"optimizer": "gd"}, ValueError, ["batch", "'gd'"]),
    "batch above n": (SGD | {"batch": 31}, ValueError, ["batch", "at most n = 30", "31"]),
    "batch 0": (SGD | {"batch": 0}, ValueError, ["batch", "0"]),
    "batch float": (SGD | {"batch": 2.5}, TypeError, ["batch", "2.5"]),
    "times beyond": ({"times": [0.0, 2.0]}, ValueError, ["times", "[0, 1]", "2.0"]),
    "times negative": ({"times": [-0.1, 1.0]}, ValueError, ["times", "-0.1"]),
    "times nan": ({"times": [math.nan]}, ValueError, ["times", "nan"]),
    "times empty": ({"times": []}, ValueError, ["times", "at least one"]),
    "times words": ({"times": ["a"]}, TypeError, ["times", "a"]),
    "pair times beyond": ({"pair_times": [2.0]}, ValueError, ["pair_times", "[0, 1]", "2.0"]),
    "seed negative": ({"seed": -1}, ValueError, ["seed", "-1"]),
    "seed float": ({"seed": 1.5}, TypeError, ["seed", "1.5"]),
    "rtol 0": ({"rtol": 0.0}, ValueError, ["rtol", "0"]),
    "rtol large": ({"rtol": 0.5}, ValueError, ["rtol", "0.5"]),
    "test samples of gaussian": ({"test_samples": 10}, ValueError, ["test_samples", "network"]),
    "test samples negative": ({"model": "network", "test_samples": -1}, ValueError, ["test_samples", "-1"]),
    "precision": ({"precision": "half"}, ValueError, ["precision", "auto, double, single", "'half'"]),
    "single network": ({"model": "network", "precision": "single"}, ValueError, ["precision", "gaussian"]),
    "memory limit 0": ({"memory_limit": 0}, ValueError, ["memory_limit", "0"]),
    "memory limit word": ({"memory_limit": "2 GB"}, TypeError, ["memory_limit", "2 GB"]),
    "workers 0": ({"workers": 0}, ValueError, ["workers", "0"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_sentence(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, error, words = BAD[case]
    arguments: dict[str, Any] = {"problem": symmetric(), "dimension": D, "t_final": 1.0} | changes
    monkeypatch.setattr(simulations.replicas, "run", lambda *_, **__: pytest.fail("something ran"))
    with pytest.raises(error) as caught:
        simulate(arguments.pop("problem"), arguments.pop("dimension"), **arguments)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    for word in words:
        assert word in text
