"""Simulations with the optimisers of the theory: against a twin of a few lines, in configurations, in comparisons."""

from __future__ import annotations

import hashlib
import json
import math
import re
import tracemalloc
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmft
from dmft import config
from dmft.optimizers import SGD, GradientDescent, Momentum, Optimizer
from dmft.simulation import Settings, Simulation
from validation import dynamics, experiment
from validation.comparison import Report, compare
from validation.comparison.checks import same_algorithm
from validation.gaussian_model import BLOCK_ROWS, GaussianModel, batch_memory
from validation.model import initial_weights
from validation.network import Network, fresh
from validation.simulations import Plan, SimulationError, simulate

QUADRATIC = dmft.Activation.from_covariance([0, 0.6, 0.4])
D = 10

OPTIMIZERS: dict[str, Optimizer] = {
    "gd": GradientDescent(learning_rate=0.4),
    "momentum": Momentum(learning_rate=0.2, momentum=0.6),
    "fresh": SGD(learning_rate=0.3, batch_fraction=0.25),
    "epochs": SGD(learning_rate=0.3, batch_fraction=0.3, sampling="epochs"),
    "fresh, momentum": SGD(learning_rate=0.2, batch_fraction=0.4, momentum=0.5),
    "epochs, momentum": SGD(learning_rate=0.2, batch_fraction=0.25, momentum=0.5, sampling="epochs"),
}


def symmetric(**changes: Any) -> dmft.SymmetricProblem:
    given: dict[str, Any] = {
        "width": 2,
        "alpha": 1.0,
        "activation": QUADRATIC,
        "target": dmft.Target.same_as(QUADRATIC),
        "noise_std": 0.5,
        "a0": 1.2,
    }
    return dmft.SymmetricProblem(**(given | changes))


def assert_same_bits(one: Simulation, other: Simulation) -> None:
    assert one.curve_names == other.curve_names and one.two_time_names == other.two_time_names
    np.testing.assert_array_equal(one.t, other.t)
    for name in (*one.curve_names, *one.two_time_names):
        np.testing.assert_array_equal(one.sample(name).values, other.sample(name).values, err_msg=name)


# ----------------------------------------------------------------------------------------------------------- twin


def batches(optimizer: Optimizer, n: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Samples of each update: the first steps of a shuffle, or pieces of a permutation."""
    size = round(optimizer.batch_fraction * n)
    pool = list(range(n))
    while True:
        if optimizer.batch_fraction == 1.0:
            yield np.arange(n)
        elif optimizer.sampling == "fresh":
            for i, u in enumerate(random.random(size)):
                j = i + int(u * (n - i))
                pool[i], pool[j] = pool[j], pool[i]
            yield np.array(pool[:size])
        else:
            order = random.permutation(n)
            for k in range(n // size):
                yield order[k * size : (k + 1) * size]


def twin(problem: dmft.SymmetricProblem, model: str, optimizer: Optimizer, updates: int) -> dict[str, np.ndarray]:
    """Curves (updates + 1,) of replica 0 of seed 0, from its data and initial weights and dense tensors."""
    data, start, order, test = map(np.random.default_rng, np.random.SeedSequence([0, D], spawn_key=(0,)).spawn(4))
    m, n = problem.width, round(problem.alpha * problem.width * D)
    w, a = initial_weights(problem.formulation(), D, start)
    if model == "gaussian":
        gaussian = GaussianModel(problem, D, n, data)
        linear, rest, labels = gaussian._tensors[:, :D], gaussian._tensors[:, D:], gaussian.labels
        quadratic = np.zeros((n, D, D))
        rows, columns = np.triu_indices(D)
        quadratic[:, rows, columns] += rest * np.where(rows == columns, 0.5, math.sqrt(0.5))
        quadratic += quadratic.transpose(0, 2, 1)
    else:
        network = Network(problem, D, n, data, test, 0)
        x, labels = network.inputs, network.labels
    h, u = np.polynomial.Polynomial([0, 0.6, 0.4]), np.eye(D)[0]
    speed_w, speed_a, source = np.zeros_like(w), np.zeros_like(a), batches(optimizer, n, order)
    result: dict[str, list[float]] = {name: [] for name in ("train_error", "test_error", "a", "v")}
    for _ in range(updates + 1):
        # sigma_i(w_l) = s_1 <g_i, w_l> + s_2 w_l.J_i w_l, or s_1 z + s_2 (z^2 - 1)/sqrt(2); and its gradient
        if model == "gaussian":
            gradient = linear[:, None] + 2.0 * np.einsum("nij,lj->nli", quadratic, w)
            outputs = linear @ w.T + np.einsum("li,nij,lj->nl", w, quadratic, w)
        else:
            z, s1, s2 = x @ w.T, math.sqrt(0.6), math.sqrt(0.2)
            outputs, gradient = s1 * z + s2 * (z**2 - 1.0), (s1 + 2.0 * s2 * z)[:, :, None] * x[:, None]
        r = labels - outputs @ a / m
        risk = h(1.0) + 0.25 - 2 / m * a @ h(w @ u) + a @ h(w @ w.T) @ a / m**2
        for name, value in zip(result, (r @ r / (2 * n), risk / 2, a.mean(), (w @ u).mean()), strict=True):
            result[name].append(value)
        batch = next(source)
        assert len(set(batch.tolist())) == len(batch) == round(optimizer.batch_fraction * n)
        rate = optimizer.learning_rate / (m * len(batch))
        speed_w = optimizer.momentum * speed_w + rate * np.einsum("n,l,nli->li", r[batch], a, gradient[batch])
        speed_a = optimizer.momentum * speed_a + rate * r[batch] @ outputs[batch]
        w = w + speed_w
        w = w / np.linalg.norm(w, axis=1)[:, None]
        a = a + speed_a * problem.train_second_layer
    return {name: np.array(values) for name, values in result.items()}


@pytest.mark.parametrize("train_a", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("model", ["gaussian", "network"])
def test_simulation_agrees_with_its_twin(model: str, name: str, train_a: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, optimizer, updates = symmetric(width=4, train_second_layer=train_a), OPTIMIZERS[name], 25
    monkeypatch.setattr(dynamics, "CHUNK", 4)  # velocities and shuffles go on from one portion to the next
    monkeypatch.setattr(dynamics, "ORDER", 30)
    step = optimizer.step(problem)
    given: dict[str, Any] = {"model": model, "times": step * np.arange(updates + 1), "pair_times": [], "replicas": 1}
    found = simulate(problem, D, t_final=updates * step, optimizer=optimizer, test_samples=0, **given)
    np.testing.assert_array_equal(found.t, step * np.arange(updates + 1))
    for curve, values in twin(problem, model, optimizer, updates).items():
        np.testing.assert_allclose(found.sample(curve).mean, values, rtol=0, atol=1e-10, err_msg=curve)
    assert bool(np.ptp(found.sample("a").mean) > 1e-3) is train_a


def test_large_batches_are_gathered_in_blocks() -> None:
    problem, d = symmetric(), 30
    n = 2 * d
    made = GaussianModel(problem, d, n, np.random.default_rng(0))
    chosen = np.random.default_rng(1).permutation(n)[: 2 * BLOCK_ROWS + 5]
    weights, a = initial_weights(problem.formulation(), d, np.random.default_rng(2))
    alone = GaussianModel(problem, d, n, np.random.default_rng(0))
    alone.samples, alone._tensors, alone.labels = len(chosen), made._tensors[chosen], made.labels[chosen]
    for rows in (1, BLOCK_ROWS, len(chosen)):
        found = made._batch_force(weights, a, chosen, np.empty((rows, made.columns)))
        for mine, theirs in zip(found, alone.force(weights, a), strict=True):
            np.testing.assert_allclose(mine, n / len(chosen) * theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_memory_of_minibatches(dtype: Any) -> None:
    problem, d, batch = symmetric(), 80, 100
    made = GaussianModel(problem, d, 2 * d, np.random.default_rng(0), dtype)
    weights, a = initial_weights(problem.formulation(), d, np.random.default_rng(2))
    order = np.arange(batch)
    made.descend_batches(weights, a, 0.1, batch, order, True)  # compiled
    tracemalloc.start()
    try:
        made.descend_batches(weights, a, 0.1, batch, order, True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    estimate = batch_memory(problem, d, batch, np.dtype(dtype).itemsize)
    assert 0.98 * peak - 30_000 < estimate < 1.1 * peak  # what is of n m and of m d numbers is left out


@pytest.mark.parametrize("model", ["gaussian", "network"])
@pytest.mark.parametrize("name", ["fresh, momentum", "epochs, momentum"])
def test_replicas_and_precision(model: str, name: str) -> None:
    given: dict[str, Any] = {**RUN, "model": model, "optimizer": OPTIMIZERS[name], "test_samples": 0}
    many = simulate(symmetric(), D, **{**given, "replicas": 3})
    alone = simulate(symmetric(), D, **{**given, "replicas": [2]})
    for curve in many.curve_names:
        values, other = many.sample(curve).values, alone.sample(curve).values
        assert values is not None and other is not None
        np.testing.assert_array_equal(values[[2]], other)
        assert not np.array_equal(values[0][-1], values[1][-1])
    if model == "gaussian":
        single = simulate(symmetric(), D, **given, precision="single")
        assert single.settings.precision == "single" and np.isfinite(single.sample("train_error").mean).all()


@pytest.mark.parametrize("samples", [1, 7, 40])
def test_fresh_batches_do_not_repeat_a_sample(samples: int) -> None:
    for batch in {1, samples // 2 or 1, samples}:
        numbers = fresh(np.random.default_rng(0), samples, batch)(400).reshape(400, batch)
        for one in numbers:
            assert len(set(one.tolist())) == batch and one.min() >= 0 and one.max() < samples
        assert set(numbers.ravel().tolist()) == set(range(samples))
        portions = fresh(np.random.default_rng(0), samples, batch)
        np.testing.assert_array_equal(np.concatenate([portions(u) for u in (1, 3, 396)]), numbers.ravel())


def test_fresh_batches_are_uniform_and_independent() -> None:
    samples, batch, updates = 8, 3, 20_000
    inside = np.zeros((updates, samples))
    numbers = fresh(np.random.default_rng(0), samples, batch)(updates).reshape(updates, batch)
    np.put_along_axis(inside, numbers, 1.0, axis=1)
    b = batch / samples
    same, later = inside.T @ inside / updates, inside[1:].T @ inside[:-1] / (updates - 1)
    pair = b * (batch - 1) / (samples - 1)
    for found, expected in (
        (same, np.where(np.eye(samples) > 0, b, pair)),
        (later, np.full((samples, samples), b * b)),
    ):
        z = (found - expected) / np.sqrt(expected * (1.0 - expected) / updates)
        assert np.abs(z).max() < 4.5


# ------------------------------------------------------------------------------------------- the strings of before


RUN: dict[str, Any] = {"t_final": 1.0, "times": [0.2, 1.0], "pair_times": [1.0], "replicas": 2}


def test_optimizers_that_are_strings_too_have_their_bits() -> None:
    problem = symmetric()
    plain = simulate(problem, D, **RUN, optimizer="gd", learning_rate=0.4)
    for same in (
        GradientDescent(learning_rate=0.4),
        Momentum(learning_rate=0.4, momentum=0.0),
        SGD(learning_rate=0.4, batch_fraction=1.0),
    ):
        found = simulate(problem, D, **RUN, optimizer=same)
        assert_same_bits(found, plain)
        assert found.settings == plain.settings
    for model in ("network", "gaussian"):
        given = {**RUN, "model": model, "test_samples": 0}
        plain = simulate(problem, D, **given, learning_rate=0.4, batch=5)
        epochs = SGD(learning_rate=0.4, batch_fraction=0.25, sampling="epochs")
        assert_same_bits(simulate(problem, D, **given, optimizer=epochs), plain)
        other = simulate(problem, D, **given, optimizer=replace(epochs, sampling="fresh"))
        assert (other.sample("train_error").mean != plain.sample("train_error").mean).all()


def test_fingerprints_of_before_stay_valid() -> None:
    plan = Plan(symmetric(), [D], t_final=1.0, step=0.1, model="network", batch=4)
    settings = plan.settings[0].to_dict()
    for name in ("dimension", "samples", "precision", "momentum", "sampling"):
        del settings[name]
    what = [dynamics.REVISION, plan.problem.to_dict(), [settings], plan.times.tolist(), plan.pair_times.tolist()]
    assert plan.fingerprint() == hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    prints = {Plan(symmetric(), [D], t_final=1.0, optimizer=one).fingerprint() for one in OPTIMIZERS.values()}
    prints |= {Plan(symmetric(), [D], t_final=1.0, optimizer="gd", learning_rate=0.4).fingerprint()}
    assert len(prints) == len(OPTIMIZERS) + 1


def test_settings_of_before_load() -> None:
    old = {"model": "network", "dimension": 10, "samples": 20, "optimizer": "sgd", "step": 0.1, "batch": 5}
    settings = Settings.from_dict(old)
    assert (settings.momentum, settings.sampling) == (0.0, "epochs")
    assert Settings.from_dict(settings.to_dict()) == settings


# ------------------------------------------------------------------------------------- rounding of n, files, words


@pytest.mark.filterwarnings("ignore:n = alpha m d")
def test_steps_and_batches_are_those_of_the_actual_samples() -> None:
    problem, optimizer = symmetric(alpha=0.83), SGD(learning_rate=0.3, batch_fraction=0.3, momentum=0.5)
    plan = Plan(problem, [5, 10, 50], t_final=2.0, optimizer=optimizer, times=[0.5, 2.0], pair_times=[2.0])
    nominal = optimizer.step(problem)
    for settings, n in zip(plan.settings, (8, 17, 83), strict=True):
        assert settings.samples == n and settings.step is not None
        assert settings.step == pytest.approx(0.3 * settings.dimension / n, rel=1e-14)
        assert (settings.batch, settings.momentum, settings.sampling) == (max(1, round(0.3 * n)), 0.5, "fresh")
        times, pairs = plan.recorded(settings)
        np.testing.assert_allclose(times / settings.step, [3, 11], rtol=1e-14)
        np.testing.assert_array_equal(pairs, times[-1:])
    assert plan.settings[2].step == nominal and plan.settings[1].step != nominal
    assert {plan.restricted([d]).fingerprint() for d in (5, 10, 50)} == {plan.fingerprint()}
    found = simulate(problem, [5, 10], t_final=2.0, optimizer=optimizer, times=[2.0], pair_times=[], replicas=2)
    assert [one.t[0] for one in found] == [plan.recorded(settings)[0][1] for settings in plan.settings[:2]]


@pytest.mark.filterwarnings("ignore:n = alpha m d", "ignore:batch_fraction = ")
@pytest.mark.parametrize("fraction", [1 / 3, 0.26, 0.5, 0.7])
def test_epochs_are_as_long_as_in_the_theory(fraction: float) -> None:
    optimizer = SGD(learning_rate=0.3, batch_fraction=fraction, sampling="epochs")
    for d in range(10, 60):
        settings = Plan(symmetric(alpha=0.505), [d], t_final=1.0, optimizer=optimizer).settings[0]
        assert settings.batch is not None
        assert settings.samples // settings.batch == optimizer.updates_per_epoch
        assert abs(settings.batch - fraction * settings.samples) < 1.0


def test_files_and_words(tmp_path: Path) -> None:
    words = {
        "momentum": "gradient descent, momentum 0.6, step 0.1",
        "epochs": "SGD with batch 6 in epochs, step 0.15",
        "fresh, momentum": "SGD with batch 8 drawn afresh, momentum 0.5, step 0.1",
    }
    for name, text in words.items():
        made = simulate(symmetric(), D, **RUN, optimizer=OPTIMIZERS[name])
        assert text in made.describe()
        made.save(tmp_path / "run.h5")
        again = dmft.load(tmp_path / "run.h5")
        assert isinstance(again, Simulation) and again.settings == made.settings
        assert_same_bits(again, made)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 0.1}, "step must be left out with optimizer = GradientDescent(...), which sets it, not 0.1."),
        ({"learning_rate": 0.1}, "learning_rate must be left out with optimizer = GradientDescent(...)"),
        ({"batch": 3}, "batch must be left out with optimizer = GradientDescent(...), which sets it, not 3."),
        ({"optimizer": {"kind": "gd"}}, "flow, gd, sgd or a GradientDescent, Momentum or SGD, not {'kind': 'gd'}."),
        ({"optimizer": GradientDescent}, "flow, gd, sgd or a GradientDescent, Momentum or SGD, not"),
        ({"t_final": 0.1}, "t_final = 0.1 must be at least one step, 0.2."),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"t_final": 1.0, "optimizer": OPTIMIZERS["gd"], **changes}
    with pytest.raises(ValueError, match=re.escape(message)):
        simulate(symmetric(), D, **given)


def test_bad_settings() -> None:
    given: dict[str, Any] = {"model": "gaussian", "dimension": 10, "samples": 20}
    with pytest.raises(ValueError, match="momentum goes with optimizer 'gd' or 'sgd', not with 'flow'"):
        Settings(**given, momentum=0.5)
    with pytest.raises(ValueError, match="sampling must be one of fresh, epochs, not 'often'"):
        Settings(**given, sampling="often")
    with pytest.raises(ValueError, match="momentum must be"):
        Settings(**given, optimizer="gd", step=0.1, momentum=1.0)


# ----------------------------------------------------------------------------------------------------- experiments


TINY = """
[model]
kind = "symmetric"
width = 2
alpha = 0.5
noise_std = 0.5
a0 = 1.0
activation = { covariance = [0, 0.6, 0.4] }
target = { same_as_activation = true }
[solve]
t_final = 1.03
SOLVE
"""
SIMULATE = "[[simulate]]\ndimension = [10, 20]\nreplicas = 4\ntimes = [0.2, 1.0]\npair_times = [1.0]\n"


def tiny(solve: str, *tables: str) -> config.Config:
    return config.parse(
        TINY.replace("SOLVE", solve) + "".join(SIMULATE + table + "\n" for table in tables), name="tiny"
    )


@pytest.mark.filterwarnings("ignore:batch_fraction = ")
def test_optimizers_in_configurations() -> None:
    given = 'optimizer = { kind = "sgd", learning_rate = 0.3, batch_fraction = 0.25 }'
    sgd = SGD(learning_rate=0.3, batch_fraction=0.25)
    assert tiny("", given).simulate[0].optimizer == sgd
    made = tiny(given, "", 'optimizer = "flow"', "step = 0.1", 'optimizer = { kind = "gd", learning_rate = 0.1 }')
    assert [options.optimizer for options in made.simulate] == [sgd, "flow", None, GradientDescent(learning_rate=0.1)]
    plans = experiment.check(made, workers=1, dask=None)
    assert [plan.settings[0].optimizer for plan in plans] == ["sgd", "flow", "gd", "gd"]
    with pytest.raises(ValueError, match="batch_fraction is missing"):
        tiny("", 'optimizer = { kind = "sgd", learning_rate = 0.3 }')
    with pytest.raises(ValueError, match="step must be left out"):
        experiment.check(tiny("", f"{given}\nstep = 0.1"), workers=1, dask=None)


def test_file_names_do_not_collide() -> None:
    tables = [f"optimizer = {config._toml(optimizer.to_dict())}" for optimizer in OPTIMIZERS.values()]
    names = experiment.tags(tiny("", "", *tables, "step = 0.1", 'step = 0.1\nbatch = 2\nmodel = "network"'))
    assert names == [
        "gaussian",
        "gaussian-gd",
        "gaussian-momentum",
        "gaussian-sgd",
        "gaussian-sgd-2",
        "gaussian-sgd-3",
        "gaussian-sgd-4",
        "gaussian-gd-2",
        "network-batch2",
    ]


def test_experiments_are_not_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny('optimizer = { kind = "momentum", learning_rate = 0.2, momentum = 0.5 }', "")
    stem, file = tmp_path / "tiny", tmp_path / "tiny.h5"
    solution, first = experiment.theory(made, file), experiment.run_simulations(made, stem)
    assert solution.t[-1] == 5 * 0.2 and (tmp_path / "tiny-gaussian-momentum-d20.h5").exists()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(experiment, "made_by_this_version", lambda path: True)
    monkeypatch.setattr(dynamics, "run", forbidden)
    monkeypatch.setattr(experiment, "solve", forbidden)
    np.testing.assert_array_equal(experiment.theory(made, file).test_error, solution.test_error)
    for (one, _), (other, _) in zip(experiment.run_simulations(made, stem), first, strict=True):
        assert_same_bits(one, other)
    changed = tiny('optimizer = { kind = "momentum", learning_rate = 0.2, momentum = 0.4 }', "")
    with pytest.raises(AssertionError, match="computed again"):
        experiment.theory(changed, file)
    with pytest.raises(SimulationError, match="computed again"):
        experiment.run_simulations(changed, stem)


# ------------------------------------------------------------------------------------------------------ comparison


def runs(problem: dmft.SymmetricProblem, dimensions: list[int], replicas: int = 8, **options: Any) -> list[Simulation]:
    given: dict[str, Any] = {"t_final": 3.0, "times": [0.0, 0.6, 3.0], "pair_times": [0.6, 3.0], "replicas": replicas}
    return list(simulate(problem, dimensions, **(given | options)))


def said(report: Report) -> list[str]:
    return [note for note in report.notes if "the theory is that of" in note]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_same_algorithm_needs_no_excuse(name: str) -> None:
    problem, optimizer = symmetric(), OPTIMIZERS[name]
    solution = dmft.solve(problem, 3.0, optimizer=optimizer)
    found = runs(problem, [10, 20], optimizer=optimizer)
    for simulation in found:
        assert same_algorithm(solution, simulation.settings)
    report = compare(solution, found)
    assert len(report.sections) == 1 and not said(report)
    wrong = dmft.solve(symmetric(), 3.0, optimizer=optimizer)
    wrong._network["a"] = wrong._network["a"] + 3.0
    verdict = compare(wrong, found).verdict
    assert "differs by" in verdict and "step may be" not in verdict and "batches" not in verdict
    assert "algorithm" not in verdict


OTHERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "rate": ("gd", {"optimizer": GradientDescent(learning_rate=0.41)}, "learning rate 0.41"),
    "momentum": ("momentum", {"optimizer": Momentum(learning_rate=0.2, momentum=0.5)}, "with momentum 0.5"),
    "fraction": ("fresh", {"optimizer": SGD(learning_rate=0.3, batch_fraction=0.5)}, "batches of 0.5 n"),
    "fresh": ("epochs", {"optimizer": SGD(learning_rate=0.3, batch_fraction=0.3)}, "drawn afresh"),
    "epochs": ("fresh", {"optimizer": SGD(learning_rate=0.3, batch_fraction=0.25, sampling="epochs")}, "in epochs"),
    "flow": ("gd", {}, "one of gradient flow."),
    "batches": ("gd", {"optimizer": SGD(learning_rate=0.4, batch_fraction=0.5)}, "SGD at learning rate 0.4"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_algorithm_is_said(case: str) -> None:
    name, options, words = OTHERS[case]
    solution = dmft.solve(symmetric(), 3.0, optimizer=OPTIMIZERS[name])
    found = runs(symmetric(), [10, 20], **options)
    (note,) = said(compare(solution, found))
    assert words in note.partition("but the simulation")[2] and note.endswith(".")
    solution._network["a"] = solution._network["a"] + 3.0
    assert "the algorithm is another one than in the theory, see the notes" in compare(solution, found).verdict


def test_strings_may_be_the_same_algorithm() -> None:
    solution = dmft.solve(symmetric(), 3.0, optimizer=OPTIMIZERS["gd"])
    for name, value in (("learning_rate", 0.4), ("step", 0.2)):
        options: dict[str, Any] = {name: value}
        assert not said(compare(solution, runs(symmetric(), [10, 20], optimizer="gd", **options)))
    epochs = SGD(learning_rate=0.4, batch_fraction=0.7, sampling="epochs")  # of one update, so drawn afresh
    solution = dmft.solve(symmetric(), 3.0, optimizer=replace(epochs, sampling="fresh"))
    assert all(same_algorithm(solution, one.settings) for one in runs(symmetric(), [10, 20], optimizer=epochs))


def test_a_theory_of_gradient_flow_is_as_before() -> None:
    solution = dmft.solve(symmetric(), 3.0, rtol=1e-3)
    assert not said(compare(solution, runs(symmetric(), [10, 20], step=0.2)))
    (note,) = said(compare(solution, runs(symmetric(), [10, 20], optimizer=OPTIMIZERS["momentum"])))
    assert "which descent with momentum 0.6 follows at small steps 2.5 times as fast" in note


@pytest.mark.filterwarnings("ignore:n = alpha m d")
def test_the_theory_is_evaluated_at_the_same_updates() -> None:
    """Whose times differ where n is rounded; all dimensions are one series all the same."""
    problem, optimizer = symmetric(alpha=0.83), OPTIMIZERS["fresh, momentum"]
    solution = dmft.solve(problem, 3.0, optimizer=optimizer)
    found = runs(problem, [10, 20, 50], optimizer=optimizer)
    assert len({one.t[-1] for one in found}) == 3
    report = compare(solution, found, times=[found[0].t[1], found[1].t[-1]])
    assert len(report.sections) == 1 and report.sections[0].dimensions == (10, 20, 50)
    assert (
        report.sections[0].name
        == "Gaussian model, SGD batch fraction 0.401 drawn afresh, momentum 0.5, learning rate 0.2"
    )
    updates = np.round(found[0].t / (found[0].settings.step or math.nan)).astype(int)
    rows = [row for row in report.rows if row.label == "test_error"]
    assert [row.theory for row in rows] == solution.test_error[updates[1:]].tolist()
    assert [row.means[0] for row in rows] == found[0].sample("test_error").mean[1:].tolist()
    one, mixed = solution.two_time.correlation[:, updates[2], updates[1]]  # S and T of two neurons
    (cross,) = (row for row in report.rows if row.label == "C_d" and row.t_prime != row.t)
    assert cross.theory == pytest.approx((one + mixed) / 2.0, rel=1e-12)


def test_pair_times_between_the_stored_rows_are_left_out() -> None:
    problem, optimizer = symmetric(), GradientDescent(learning_rate=0.01)
    solution = dmft.solve(problem, 5.0, optimizer=optimizer)
    stored, lost = solution.two_time.t[100], np.setdiff1d(solution.t, solution.two_time.t)[300]
    report = compare(solution, runs(problem, [10], t_final=5.0, optimizer=optimizer, pair_times=[stored, lost]))
    assert {row.t_prime for row in report.rows} == {None, stored}
    assert any("1 pair times are not among the stored rows" in note for note in report.notes)


# ------------------------------------------------------------------------------------------------------ statistics


def compared(optimizer: Optimizer, dimensions: tuple[int, int], replicas: tuple[int, int], updates: int) -> np.ndarray:
    """Z-scores of simulations at the same updates, linear in 1/d to 1/d = 0."""
    problem = symmetric()
    end = updates * optimizer.step(problem)
    solution = dmft.solve(problem, end, optimizer=optimizer)
    given: dict[str, Any] = {"times": solution.t[[1, 2, 4, updates // 2, updates]], "pair_times": []}
    few, many = (
        simulate(problem, d, t_final=end, replicas=count, optimizer=optimizer, **given)
        for d, count in zip(dimensions, replicas, strict=True)
    )
    small, large = dimensions
    z = []
    for name in ("train_error", "test_error", "a", "v"):
        one, other = few.sample(name), many.sample(name)
        mean = (large * other.mean - small * one.mean) / (large - small)
        error = np.hypot(large * other.sem, small * one.sem) / (large - small)
        z.append((mean - getattr(solution.at(few.t), name)) / error)
    return np.array(z)


@pytest.mark.parametrize("name", ["momentum", "fresh", "epochs", "fresh, momentum", "epochs, momentum"])
def test_theory_of_the_same_updates_holds(name: str) -> None:
    z = compared(OPTIMIZERS[name], (16, 32), (80, 60), 12)
    assert np.abs(z).max() < 4.5
    assert np.sqrt((z**2).mean()) < 1.7


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_theory_of_the_same_updates_holds_larger(name: str) -> None:
    z = compared(OPTIMIZERS[name], (50, 100), (300, 150), 30)
    assert np.abs(z).max() < 4.5
    assert np.sqrt((z**2).mean()) < 1.7


def test_batches_that_do_not_fit_are_told() -> None:
    problem, optimizer = symmetric(alpha=1.0), SGD(learning_rate=0.3, batch_fraction=0.01)
    words = r"batch_fraction = 0.01 of n = 40 samples is a batch of 1 at d = 20, a fraction of 0.025: choose"
    with pytest.warns(UserWarning, match=words):
        Plan(problem, [20], t_final=1.0, optimizer=optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Plan(problem, [50], t_final=1.0, optimizer=optimizer)
