"""Discrete optimisers: the engine against its slow twin, limits, identities, simulation, files."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from naive_descent import descent

import dmft
import solvers.descent.engine as engine
from dmft.optimizers import SGD, GradientDescent, Momentum, Optimizer, from_dict
from dmft.problems import NetworkProblem
from dmft.solution import Solution
from dmft.status import Status
from solvers.base import CannotResumeError, Progress
from solvers.checkpoint import Checkpointer
from solvers.descent.rows import Rows, cost, rows_that_fit, triangle

QUADRATIC = dmft.Activation.from_covariance([0, 0.6, 0.4])
CUBIC = dmft.Activation.from_covariance([0, 0.6, 0.3, 0.1])
INDEX = dmft.Target.same_as(QUADRATIC)
NOISE = dmft.Target.noise()
PLANE = dmft.Target.from_overlap({(1, 0): 0.4, (0, 1): 0.2, (1, 1): 0.1}, power=1.0)


def symmetric(width: int, **changes: Any) -> dmft.SymmetricProblem:
    given: dict[str, Any] = {
        "alpha": 0.8,
        "activation": QUADRATIC,
        "target": INDEX,
        "noise_std": 0.5,
        "a0": 1.5,
        **changes,
    }
    return dmft.SymmetricProblem(width=width, **given)


PROBLEMS: dict[str, NetworkProblem] = {
    "one neuron": symmetric(1),
    "two": symmetric(2, activation=CUBIC, target=dmft.Target.same_as(CUBIC)),
    "five, noise, fixed a": symmetric(5, target=NOISE, train_second_layer=False),
    "groups": dmft.GroupedProblem(
        sizes=[2, 1], alpha=0.7, activation=QUADRATIC, target=INDEX, noise_std=0.4, a0=[1.2, -0.7], v0=[0.3, -0.2]
    ),
    "own gram": dmft.GeneralProblem(
        alpha=0.9,
        activation=QUADRATIC,
        target=NOISE,
        noise_std=1.0,
        a0=[1.0, -0.8, 0.5],
        gram0=[[1, 0.3, -0.1], [0.3, 1, 0.2], [-0.1, 0.2, 1]],
    ),
    "two directions": dmft.GroupedProblem(
        sizes=[1, 3],
        alpha=0.6,
        activation=QUADRATIC,
        target=PLANE,
        noise_std=0.3,
        a0=[1.0, 1.4],
        v0=[[0.1, 0.2], [0.3, -0.1]],
    ),
}

OPTIMIZERS: tuple[Optimizer, ...] = (
    GradientDescent(learning_rate=0.4),
    Momentum(learning_rate=0.2, momentum=0.6),
    SGD(learning_rate=0.3, batch_fraction=0.25),
    SGD(learning_rate=0.2, batch_fraction=0.4, momentum=0.5),
    SGD(learning_rate=0.3, batch_fraction=0.3, sampling="epochs"),  # a tenth of the samples is left over
    SGD(learning_rate=0.1, batch_fraction=0.3, momentum=0.7, sampling="epochs"),
)


def run(problem: NetworkProblem, optimizer: Optimizer, updates: int) -> Rows:
    rows = Rows(
        problem.formulation(),
        updates + 1,
        optimizer.step(problem),
        optimizer.momentum,
        optimizer.batch_fraction,
        optimizer.updates_per_epoch,
    )
    for _ in range(updates + 1):
        assert rows.compute()
        rows.accept()
    return rows


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.kind + str(one.momentum) + one.sampling)
@pytest.mark.parametrize("name", PROBLEMS)
def test_engine_agrees_with_its_slow_twin(name: str, optimizer: Optimizer) -> None:
    problem, updates = PROBLEMS[name], 14 if optimizer.sampling == "fresh" else 10
    form = problem.formulation()
    rows = run(problem, optimizer, updates)
    epoch = 0 if optimizer.sampling == "fresh" else optimizer.updates_per_epoch
    twin = descent(form, updates, optimizer.step(problem), optimizer.momentum, optimizer.batch_fraction, epoch)
    first = np.concatenate([[0], np.cumsum(form.sizes)[:-1]])
    tables = rows.tables

    def close(mine: np.ndarray, theirs: np.ndarray) -> None:
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-10 * max(1.0, np.abs(theirs).max()))

    close(0.5 * tables.errors[:, 0], twin.train_error)
    close(0.5 * tables.errors[:, 1], twin.test_error)
    close(tables.a, twin.a[:, first])
    close(tables.v / rows.model.roots[:, None], twin.v[:, first])
    close(tables.lam[:-1], twin.lam[1:, first])
    moved = 2.0 - 2.0 * np.array([np.diag(twin.correlation[n + 1, n])[first] for n in range(updates)])
    close(rows.displacement(), moved)
    correlation, integrated, residual = rows.two_time(np.arange(updates + 1))
    close(residual, twin.residual_correlation)
    lower = np.tril_indices(updates + 1)
    close(tables.v_r, twin.weighted[lower])
    close(tables.r_a, twin.residual_response[lower])
    sums = np.cumsum(twin.response[:, ::-1], axis=1)[:, ::-1]  # over earlier times from t' on
    slot = form.groups**2
    for g, i in enumerate(first):
        for h, j in enumerate(first):
            root = np.sqrt(form.sizes[g] * form.sizes[h])
            for mine, theirs in ((correlation, twin.correlation), (integrated, sums)):
                other = theirs[:, :, i, j] if g != h else theirs[:, :, i, min(i + 1, len(twin.a[0]) - 1)]
                if g == h and form.sizes[g] == 1:
                    close(mine[g * form.groups + h], theirs[:, :, i, i])
                elif g == h:
                    inside = theirs[:, :, i, i] - other
                    close(mine[g * form.groups + h], inside + root * other)
                    close(mine[slot], inside)
                else:
                    close(mine[g * form.groups + h], root * other)
        slot += form.sizes[g] > 1


CURVES = ("t", "updates", "a", "v", "nu", "train_error", "test_error", "energy_balance")
TABLES = ("correlation", "integrated_response", "residual_correlation")


def assert_same(one: Solution, other: Solution) -> None:
    """Bit for bit."""
    for name in CURVES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in TABLES:
        np.testing.assert_array_equal(getattr(one.two_time, name), getattr(other.two_time, name), err_msg=name)


@pytest.fixture(scope="module")
def whole() -> Solution:
    """A run with everything in it."""
    return dmft.solve(PROBLEMS["two directions"], 3.0, optimizer=OPTIMIZERS[3])


def at_end(solution: Solution) -> np.ndarray:
    return np.array([solution.test_error[-1], solution.train_error[-1], solution.a[-1], solution.v[-1]])


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_gradient_flow_is_the_limit_of_small_steps(momentum: float) -> None:
    problem, end, counts = symmetric(2, a0=1.0), 2.0, np.array([64, 128, 256])
    flow = at_end(dmft.solve(problem, end, rtol=1e-8))
    errors, balances = [], []
    for count in counts:
        rate = end / count * (1.0 - momentum) * problem.alpha * problem.width
        made = Momentum(learning_rate=rate, momentum=momentum)
        solution = dmft.solve(problem, end * (1.0 - momentum), optimizer=made)  # flow has gone on to t/(1 - momentum)
        assert len(solution.t) == count + 1
        errors.append(np.abs(at_end(solution) - flow))
        balances.append(solution.energy_balance[-1])
    orders = [-np.polyfit(np.log(counts), np.log(column), 1)[0] for column in np.array(errors).T]
    np.testing.assert_allclose(orders, 1.0, atol=0.1)
    assert np.max(errors[-1]) < 5e-3
    np.testing.assert_allclose(-np.polyfit(np.log(counts), np.log(balances), 1)[0], 1.0, atol=0.1)


def test_optimizers_that_are_gradient_descent_are_so_bit_for_bit() -> None:
    problem = PROBLEMS["groups"]
    plain = dmft.solve(problem, 2.0, optimizer=GradientDescent(learning_rate=0.2))
    for same in (
        Momentum(learning_rate=0.2, momentum=0.0),
        SGD(learning_rate=0.2, batch_fraction=1.0),
        SGD(learning_rate=0.2, batch_fraction=1.0, momentum=0.0),
    ):
        assert_same(plain, dmft.solve(problem, 2.0, optimizer=same))
    heavy = dmft.solve(problem, 2.0, optimizer=Momentum(learning_rate=0.2, momentum=0.7))
    assert_same(heavy, dmft.solve(problem, 2.0, optimizer=SGD(learning_rate=0.2, batch_fraction=1.0, momentum=0.7)))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.kind + str(one.momentum) + one.sampling)
def test_noise_and_second_layer_scale_out(optimizer: Optimizer) -> None:
    c = 1.7
    fixed: dict[str, Any] = {"target": NOISE, "train_second_layer": False}
    one = dmft.solve(symmetric(3, **fixed, noise_std=0.8, a0=1.2), 4.0, optimizer=optimizer)
    scaled = dataclasses.replace(optimizer, learning_rate=optimizer.learning_rate / c**2)
    other = dmft.solve(symmetric(3, **fixed, noise_std=0.8 * c, a0=1.2 * c), 4.0 / c**2, optimizer=scaled)
    np.testing.assert_allclose(other.t, one.t / c**2, rtol=1e-12)
    for name, power in (("train_error", 2), ("test_error", 2), ("nu", 2), ("energy_balance", 0)):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name) * c**power, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(other.two_time.correlation, one.two_time.correlation, atol=1e-10)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.kind + str(one.momentum) + one.sampling)
@pytest.mark.parametrize("name", ["groups", "own gram", "two"])
def test_correlations_are_those_of_unit_vectors(name: str, optimizer: Optimizer) -> None:
    problem, updates = PROBLEMS[name], 60
    rows = run(problem, optimizer, updates)
    correlation, _, residual = rows.two_time(np.arange(updates + 1))
    g, n = rows.groups, updates + 1
    gram = correlation[: g * g].reshape(g, g, n, n).transpose(2, 0, 3, 1).reshape(n * g, n * g)
    weighted = np.zeros((n, n))
    weighted[np.tril_indices(n)] = rows.tables.v_r
    weighted += np.tril(weighted, -1).T
    for matrix in (gram, *correlation[g * g :], residual, weighted):
        np.testing.assert_array_equal(matrix, matrix.T)
        assert np.linalg.eigvalsh(matrix)[0] > -1e-12 * np.trace(matrix)
    # With the latent directions as further unit vectors.
    overlaps = rows.tables.v.reshape(n * g, -1)
    assert np.linalg.eigvalsh(gram - overlaps @ overlaps.T)[0] > -1e-12 * np.trace(gram)
    sizes, slot = rows.form.sizes, g * g
    for group in range(g):
        own = correlation[group * g + group].diagonal()
        if sizes[group] > 1:
            own = correlation[slot].diagonal() + (own - correlation[slot].diagonal()) / sizes[group]
            slot += 1
        np.testing.assert_allclose(own, 1.0, atol=1e-13)


def test_cost_is_independent_of_width_and_the_limit_of_width_exists() -> None:
    errors = []
    for width in (10**3, 10**6):
        problem = symmetric(width, alpha=8.0 / width, a0=1.0)  # at fixed n/d the learning rate sets the time
        solution = dmft.solve(problem, 40 * 0.2 / 8.0, optimizer=GradientDescent(learning_rate=0.2))
        assert len(solution.t) == 41
        np.testing.assert_allclose(solution.correlation(solution.t, solution.t), 1.0, atol=1e-12)
        errors.append(solution.test_error)
    np.testing.assert_allclose(errors[0], errors[1], rtol=1e-2)


# ------------------------------------------------------------------------------------------------- simulation


def descend(problem: dmft.SymmetricProblem, optimizer: Optimizer, d: int, updates: int, seed: int) -> np.ndarray:
    """(updates + 1, 5) errors, a, v and the residual correlation with the first half, of the Gaussian model.

    Neurons are s_1 <g, w> + s_2 w.J w, the target is the same function of a unit vector; batches of exactly
    batch_fraction n samples are drawn afresh, or from what the epoch has left over.
    """
    random = np.random.default_rng([seed, d])
    m, n = problem.width, round(problem.alpha * problem.width * d)
    s = np.sqrt(np.asarray(problem.activation.covariance)[1:3])
    linear, quadratic = s[0] * random.standard_normal((n, d)), s[1] * random.standard_normal((n, d, d))
    quadratic = quadratic + quadratic.transpose(0, 2, 1)
    w, u = random.standard_normal((m, d)), np.eye(d)[0]
    w /= np.linalg.norm(w, axis=1)[:, None]
    a, speed_a, speed_w = np.full(m, float(problem.a0)), np.zeros(m), np.zeros((m, d))
    labels = linear @ u + 0.5 * quadratic[:, 0, 0] + problem.noise_std * random.standard_normal(n)
    batch = round(optimizer.batch_fraction * n)
    covariance = np.polynomial.polynomial.Polynomial(np.asarray(problem.activation.covariance))
    result, kept, order = np.zeros((updates + 1, 5)), np.zeros(n), np.arange(n)
    for update in range(updates + 1):
        slope = quadratic @ w.T  # (n, d, m)
        outputs = linear @ w.T + 0.5 * np.einsum("id,ndi->ni", w, slope)
        r = labels - outputs @ a / m
        if update == updates // 2:
            kept = r.copy()
        risk = (
            covariance(1.0) + problem.noise_std**2 - 2 / m * a @ covariance(w @ u) + a @ covariance(w @ w.T) @ a / m**2
        )
        result[update] = (r @ r) / (2 * n), risk / 2, a.mean(), (w @ u).mean(), (r @ kept) / n
        place = update % optimizer.updates_per_epoch
        if place == 0:
            order = random.permutation(n)
        weight = np.zeros(n)
        weight[order[place * batch : (place + 1) * batch]] = n / batch
        r = weight * r / (n * m)
        speed_a = optimizer.momentum * speed_a + outputs.T @ r
        gradient = a[:, None] * (r @ linear + np.einsum("n,ndi->id", r, slope))
        speed_w = optimizer.momentum * speed_w + gradient
        a, w = a + optimizer.learning_rate * speed_a, w + optimizer.learning_rate * speed_w
        w /= np.linalg.norm(w, axis=1)[:, None]
    return result


def z_scores(optimizer: Optimizer, dimensions: tuple[int, int], replicas: tuple[int, int], updates: int) -> np.ndarray:
    """(updates, 5) differences between simulation, linear in 1/d to 1/d = 0, and theory, in standard errors."""
    problem = symmetric(2, alpha=1.0, a0=1.2)
    solution = dmft.solve(problem, updates * optimizer.step(problem), optimizer=optimizer)
    half = solution.t[updates // 2]
    theory = np.stack(
        [
            solution.train_error,
            solution.test_error,
            solution.a,
            solution.v,
            solution.residual_correlation(solution.t, half),
        ],
        axis=1,
    )
    runs = [
        np.array([descend(problem, optimizer, d, updates, seed) for seed in range(count)])
        for d, count in zip(dimensions, replicas, strict=True)
    ]
    small, large = dimensions
    weights = np.array([-small, large]) / (large - small)
    mean = sum(weight * values.mean(0) for weight, values in zip(weights, runs, strict=True))
    variance = sum(
        weight**2 * values.var(0, ddof=1) / len(values) for weight, values in zip(weights, runs, strict=True)
    )
    z = (mean - theory)[1:] / np.sqrt(np.where(variance[1:] > 0.0, variance[1:], np.inf))
    assert np.count_nonzero(z == 0.0) == updates // 2 - 1  # residuals are not kept before the half
    return z


@pytest.mark.parametrize("optimizer", OPTIMIZERS[1:], ids=lambda one: one.kind + str(one.momentum) + one.sampling)
def test_small_networks_agree(optimizer: Optimizer) -> None:
    z = z_scores(optimizer, (10, 20), (160, 80), 12)
    assert np.abs(z).max() < 4.5
    assert np.sqrt((z**2).mean()) < 1.7


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.kind + str(one.momentum) + one.sampling)
def test_larger_networks_agree(optimizer: Optimizer) -> None:
    z = z_scores(optimizer, (20, 40), (800, 400), 20)
    assert np.abs(z).max() < 4.5
    assert np.sqrt((z**2).mean()) < 1.7


def compared(dimensions: tuple[int, int], replicas: list[int], updates: int) -> np.ndarray:
    """Z-scores of `dmft.simulate` at the same learning rate, extrapolated."""
    problem, rate = symmetric(2, alpha=1.0), 0.4
    optimizer = GradientDescent(learning_rate=rate)
    end = updates * optimizer.step(problem)
    solution = dmft.solve(problem, end, optimizer=optimizer)
    times = solution.t[[1, 2, 4, updates // 2, updates]]
    simulations = [
        dmft.simulate(
            problem, d, t_final=end, replicas=count, optimizer="gd", learning_rate=rate, times=times, pair_times=[]
        )
        for d, count in zip(dimensions, replicas, strict=True)
    ]
    z = []
    small, large = dimensions
    curves = solution.at(times)
    for name in ("train_error", "test_error", "a", "v"):
        few, many = (simulation.sample(name) for simulation in simulations)
        place = [int(np.argmin(np.abs(simulations[0].t - time))) for time in times]
        mean = (large * many.mean - small * few.mean)[place] / (large - small)
        error = np.hypot(large * many.sem, small * few.sem)[place] / (large - small)
        z.append((mean - getattr(curves, name)) / error)
    return np.array(z)


def test_simulate_at_the_same_learning_rate() -> None:
    z = compared((16, 32), [80, 60], 12)
    assert np.abs(z).max() < 4.5
    assert np.sqrt((z**2).mean()) < 1.7


@pytest.mark.slow
def test_simulate_at_the_same_learning_rate_larger() -> None:
    z = compared((50, 100), [300, 150], 30)
    assert np.abs(z).max() < 4.5
    assert np.sqrt((z**2).mean()) < 1.7


# ------------------------------------------------------------------------------------------------------ files


def test_files_keep_everything(whole: Solution, tmp_path: Path) -> None:
    whole.save(tmp_path / "run.h5")
    again = dmft.load(tmp_path / "run.h5")
    assert isinstance(again, Solution)
    assert_same(whole, again)
    assert again.optimizer == whole.optimizer == OPTIMIZERS[3]
    assert again.updates is not None and again.updates.dtype == np.int64
    assert (again.method, again.status, again.message) == ("sgd", Status.DONE, whole.message)
    whole.to_csv(tmp_path / "run.csv")
    lines = [line for line in (tmp_path / "run.csv").read_text().splitlines() if not line.startswith("#")]
    table = list(csv.DictReader(lines))
    assert [int(row["update"]) for row in table] == list(range(len(whole.t)))
    assert [float(row["t"]) for row in table] == whole.t.tolist()
    assert [float(row["train_error"]) for row in table] == whole.train_error.tolist()
    assert "SGD at learning rate 0.2, batch fraction 0.4 drawn afresh, momentum 0.5\n" in whole.summary()
    flow = dmft.solve(symmetric(2), 0.1, rtol=1e-2)
    assert flow.optimizer is None and flow.updates is None
    flow.save(tmp_path / "flow.h5")
    old = dmft.load(tmp_path / "flow.h5")
    assert isinstance(old, Solution) and old.optimizer is None and old.updates is None


def test_files_open_elsewhere(whole: Solution, tmp_path: Path) -> None:
    whole.save(tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5") as file:
        update = file["curves/update"]
        assert update.dims[0][0].name == "/curves/t"
        assert update.attrs["long_name"] == "update"
        assert file["parameters/optimizer_learning_rate"][()] == 0.2
        assert file["parameters/optimizer_kind"].asstr()[()] == "sgd"


def stop_after(rows: int) -> Callable[[Progress], None]:
    def callback(state: Progress) -> None:
        if state.rows >= rows:
            raise KeyboardInterrupt

    return callback


@pytest.mark.parametrize("rows", [2, 9])
def test_interrupted_and_resumed_is_uninterrupted(rows: int, whole: Solution, tmp_path: Path) -> None:
    place = tmp_path / "checkpoint.npz"
    given: dict[str, Any] = {"optimizer": whole.optimizer, "checkpoint": place}
    part = dmft.solve(whole.problem, 3.0, progress=stop_after(rows), **given)
    assert part.status is Status.INTERRUPTED and len(part.t) == rows
    assert "resume from the checkpoint" in part.message
    rest = dmft.solve(whole.problem, 3.0, resume=True, **given)
    assert (rest.status, rest.message) == (whole.status, whole.message)
    assert_same(rest, whole)
    with pytest.raises(CannotResumeError, match="other parameters"):
        dmft.solve(whole.problem, 3.0, resume=True, checkpoint=place)
    with pytest.raises(CannotResumeError, match=re.escape("solve.optimizer")):
        dmft.solve(whole.problem, 3.0, resume=True, checkpoint=place, optimizer=OPTIMIZERS[2])


def test_checkpoints_between_updates(whole: Solution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpointer, "due", lambda self: self.path is not None)
    place = tmp_path / "checkpoint.npz"
    first = dmft.solve(whole.problem, 3.0, optimizer=whole.optimizer, checkpoint=place)
    assert_same(first, whole)
    assert_same(dmft.solve(whole.problem, 3.0, optimizer=whole.optimizer, checkpoint=place, resume=True), whole)


# --------------------------------------------------------------------------------------------------- outcomes


def test_times_are_whole_updates() -> None:
    problem, optimizer = symmetric(2), GradientDescent(learning_rate=0.4)
    assert optimizer.step(problem) == 0.25
    for t_final, updates in ((0.25, 1), (0.75 - 1e-15, 3), (1.1, 4), (1.24, 4)):
        solution = dmft.solve(problem, t_final, optimizer=optimizer, times=[0.007, t_final / 2, t_final])
        np.testing.assert_array_equal(solution.t, 0.25 * np.arange(updates + 1))
        assert solution.message == f"reached t = {0.25 * updates:.6g} in {updates} updates"
        assert solution.method == "gd" and set(solution.order) == {1}
    with pytest.raises(
        ValueError, match=r"t_final = 0.2 must be at least one update, learning_rate/\(alpha m\) = 0.25"
    ):
        dmft.solve(problem, 0.2, optimizer=optimizer)


def test_progress_is_told_of_every_row() -> None:
    seen: list[Progress] = []
    dmft.solve(symmetric(2), 2.0, optimizer=GradientDescent(learning_rate=0.4), progress=seen.append)
    assert [state.rows for state in seen] == list(range(2, 10))
    assert [state.time for state in seen] == [0.25 * row for row in range(1, 9)]


def test_row_limit_keeps_the_rows() -> None:
    problem, optimizer = symmetric(2), GradientDescent(learning_rate=0.4)
    full = dmft.solve(problem, 5.0, optimizer=optimizer)
    part = dmft.solve(problem, 5.0, optimizer=optimizer, max_rows=7)
    assert part.status is Status.STEP_LIMIT and len(part.t) == 7 and "raise max_rows" in part.message
    for name in CURVES:
        np.testing.assert_array_equal(getattr(part, name), getattr(full, name)[:7])
    exact = dmft.solve(problem, 1.5, optimizer=optimizer, max_rows=7)
    assert exact.status is Status.DONE and len(exact.t) == 7


def test_divergence_keeps_the_rows_before_it() -> None:
    solution = dmft.solve(symmetric(2), 1e4, optimizer=GradientDescent(learning_rate=100.0))
    assert solution.status is Status.DIVERGED
    assert "smaller learning_rate" in solution.message and "times that of the start" in solution.message
    assert len(solution.t) < 20 and solution.train_error.max() <= 1e6 * solution.train_error[0]
    with pytest.raises(ValueError, match="the first update is not finite"):
        dmft.solve(symmetric(2), 1e201, optimizer=GradientDescent(learning_rate=1e200))


def test_rounding_ends_a_run_before_it_shows() -> None:
    """In extended precision this run is thrown back at updates 116 to 119; double precision would be at 109."""
    h = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
    problem = dmft.SymmetricProblem(
        width=16, alpha=0.3, activation=h, target=dmft.Target.same_as(h), noise_std=0.6, a0=1.0
    )
    solution = dmft.solve(problem, 320.0, optimizer=GradientDescent(learning_rate=4.0))
    assert solution.status is Status.TOLERANCE_NOT_MET and "rounding, which grows" in solution.message
    assert 80 < len(solution.t) < 109 and (np.diff(solution.train_error)[5:] < 0.0).all()
    assert 1e-4 < solution.stats.estimated_error <= 0.01
    calm = dmft.solve(problem, 40.0, optimizer=GradientDescent(learning_rate=1.0))
    assert 0.0 < calm.stats.estimated_error < 1e-10


def test_two_time_functions_are_kept_at_wanted_times() -> None:
    problem, optimizer = symmetric(2), GradientDescent(learning_rate=0.05)
    step = optimizer.step(problem)
    wanted = step * np.array([3.0, 501.0, 899.0])
    solution = dmft.solve(problem, 900 * step, optimizer=optimizer, times=[*wanted[:2], wanted[2] + 0.2 * step])
    assert {3, 501, 899} <= set(solution.row_index) and len(solution.row_index) <= 403
    assert set(range(20)) <= set(solution.row_index)  # where they change most
    whole = dmft.solve(problem, 399 * step, optimizer=optimizer)
    np.testing.assert_array_equal(whole.row_index, np.arange(400))
    missing = dmft.solve(problem, 900 * step, optimizer=optimizer)
    assert not {3, 501, 899} <= set(missing.row_index)


def test_an_unstable_step_is_followed() -> None:
    problem = symmetric(2)
    solution = dmft.solve(problem, 10.0, optimizer=GradientDescent(learning_rate=0.8))
    assert solution.status is Status.DONE
    assert np.any(np.diff(solution.train_error) > 0.0)  # gradient flow never does this
    assert "training is unstable at update" in solution.message
    calm = dmft.solve(problem, 10.0, optimizer=GradientDescent(learning_rate=0.2))
    assert "unstable" not in calm.message
    # Where noise raises the train error, and V is no correlation of residuals.
    batches = SGD(learning_rate=0.8, batch_fraction=0.25, sampling="epochs")
    noisy = dmft.solve(problem, 20.0, optimizer=batches)
    assert np.any(np.diff(noisy.train_error) > 0.0) and "unstable" not in noisy.message


def test_a_negative_train_error_ends_a_run() -> None:
    """Far beyond the edge, where the estimate of rounding is too small."""
    h = dmft.Activation.from_covariance([0, 1.0])
    problem = dmft.SymmetricProblem(
        width=1, alpha=0.3, activation=h, target=dmft.Target.noise(), noise_std=0.6, a0=30.0
    )
    optimizer = GradientDescent(learning_rate=3.9e-4)
    solution = dmft.solve(problem, 250 * optimizer.step(problem), optimizer=optimizer)
    assert solution.status is Status.TOLERANCE_NOT_MET and "unstable" in solution.message
    assert 100 < len(solution.t) < 160 and solution.train_error.min() > -1e-9 * solution.train_error[0]


def test_a_start_near_the_solution_may_be_left() -> None:
    """The train error grows a millionfold from next to nothing, and training goes on."""
    h = dmft.Activation.from_covariance([0, 1.0])
    problem = dmft.SymmetricProblem(
        width=1, alpha=3.0, activation=h, target=dmft.Target.same_as(h), noise_std=0.0, a0=1.0001, v0=1.0
    )
    solution = dmft.solve(problem, 60 / 3.0, optimizer=GradientDescent(learning_rate=1.0))
    assert solution.status is not Status.DIVERGED and 1e6 * solution.train_error[0] < solution.train_error.max() < 0.1


def test_interpolated_data_are_no_trouble() -> None:
    problem = symmetric(2, alpha=0.2, noise_std=0.3)
    solution = dmft.solve(problem, 300.0, optimizer=GradientDescent(learning_rate=0.2))
    assert solution.status is Status.DONE
    assert np.abs(solution.train_error[-100:]).max() < 1e-13
    np.testing.assert_array_equal(solution.energy_balance[-100:], 0.0)
    np.testing.assert_allclose(solution.test_error[-100:], solution.test_error[-1], rtol=1e-10)


def test_memory_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = symmetric(2)
    form = problem.formulation()
    for available in (1e6, 3.3e7):
        rows = rows_that_fit(form, available)
        assert cost(form, rows).memory <= available < cost(form, rows + 1).memory
        monkeypatch.setattr(engine, "available_memory", lambda available=available: available)
        with pytest.raises(ValueError, match=f"enough for {rows - 1} updates"):
            dmft.solve(problem, 1e3, optimizer=GradientDescent(learning_rate=0.4))
    made = Rows(form, 50, 0.1)
    held = sum(table.nbytes for table in made.tables[5:])
    assert held == cost(form, 50).memory == 6 * 8 * triangle(50) + 2 * 8 * 50
    made = Rows(form, 50, 0.1, epoch=7)
    assert sum(table.nbytes for table in made.tables[5:]) == cost(form, 50, 7).memory


# ------------------------------------------------------------------------------------------------- bad input


def test_epochs_are_whole_batches() -> None:
    for fraction, updates in ((1.0, 1), (0.6, 1), (1 / 3, 3), (0.3, 3), (0.1, 10), (1 / 49, 49)):
        assert SGD(learning_rate=1, batch_fraction=fraction, sampling="epochs").updates_per_epoch == updates
        assert SGD(learning_rate=1, batch_fraction=fraction).updates_per_epoch == 1


def test_optimizers_are_plain_data() -> None:
    for optimizer in OPTIMIZERS:
        assert from_dict(optimizer.to_dict()) == optimizer
        assert type(optimizer).from_dict(optimizer.to_dict()) == optimizer
    assert {dmft.GradientDescent, dmft.Momentum, dmft.SGD} == {GradientDescent, Momentum, SGD}
    assert SGD(learning_rate=1, batch_fraction=1).to_dict() == {
        "kind": "sgd", "learning_rate": 1.0, "batch_fraction": 1.0, "momentum": 0.0, "sampling": "fresh"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientDescent(learning_rate=0.0), "learning_rate must be a finite number > 0, not 0.0."),
        (
            lambda: GradientDescent(learning_rate=True),
            "learning_rate must be a finite number > 0, not True of type bool.",
        ),
        (lambda: Momentum(learning_rate=1, momentum=1.0), "momentum must be a finite number >= 0 and < 1, not 1.0."),
        (lambda: Momentum(learning_rate=1, momentum=-0.1), "momentum must be a finite number >= 0 and < 1, not -0.1."),
        (
            lambda: SGD(learning_rate=1, batch_fraction=0),
            "batch_fraction must be a finite number > 0 and <= 1, not 0.",
        ),
        (
            lambda: SGD(learning_rate=1, batch_fraction=0.1, sampling="epoch"),
            "sampling must be one of fresh, epochs, not 'epoch'; did you mean 'epochs'?",
        ),
        (lambda: from_dict({"kind": "adam"}), "kind must be one of gd, momentum, sgd, not 'adam'."),
        (lambda: from_dict({"kind": "momentun"}), "; did you mean 'momentum'?"),
        (lambda: from_dict({"kind": "gd"}), "learning_rate is missing, and GradientDescent needs it."),
        (
            lambda: from_dict({"kind": "gd", "learning_rate": 1, "momentum": 0}),
            "'momentum' is not a parameter of GradientDescent, which has learning_rate.",
        ),
        (lambda: from_dict([1]), "An optimizer must be given as a mapping of its parameters, not [1]."),  # type: ignore[arg-type]
    ],
)
def test_bad_optimizers(make: Callable[[], object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        make()


INFINITE = dmft.InfiniteWidthProblem(sample_ratio=5.0, activation=QUADRATIC, target=INDEX, noise_std=0.5, a0=1.0)
PSPIN = dmft.PSpinProblem(covariance=[0, 0, 0, 1])


@pytest.mark.parametrize(
    ("problem", "changes", "message"),
    [
        (INFINITE, {}, "optimizer is for networks of finite width"),
        (PSPIN, {}, "optimizer is for networks of finite width"),
        (dmft.limits.of(symmetric(4), "mean_field"), {}, "optimizer is for networks of finite width"),
        (symmetric(2), {"method": "bdf"}, "method must be 'auto' with an optimizer"),
        (symmetric(2), {"verify": True}, "verify=True is not available with an optimizer"),
        (symmetric(2), {"thinning": 0.2}, "thinning must be a finite number >= 0 and < 0.1, not 0.2."),
        (symmetric(2), {"times": [2.0]}, "times must lie in [0, t_final] = [0, 1], got 2"),
        (symmetric(2), {"optimizer": "gd"}, "batch_fraction=0.1), got 'gd'"),
    ],
    ids=["infinite width", "p-spin", "limit", "method", "verify", "thinning", "times", "type"],
)
def test_bad_combinations(problem: Any, changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"optimizer": GradientDescent(learning_rate=0.4), **changes}
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        dmft.solve(problem, 1.0, **given)


def test_solutions_have_updates_exactly_with_an_optimizer(whole: Solution) -> None:
    given: dict[str, Any] = {name: getattr(whole, name) for name in ("problem", "t", "order", "energy_balance")}
    given |= {name: getattr(whole, name) for name in ("train_error", "test_error", "stats", "status", "message")}
    given |= {"a": whole.a, "v": whole.v, "nu": whole.nu, "rtol": 0.0, "method": "sgd", "modes": whole.two_time.modes}
    given |= {"row_index": None, "correlation": None, "integrated_response": None}
    with pytest.raises(ValueError, match="updates are needed exactly when"):
        Solution(**given, optimizer=whole.optimizer)
    with pytest.raises(ValueError, match="increasing order"):
        Solution(**given, optimizer=whole.optimizer, updates=np.zeros(len(whole.t), dtype=int))


def test_time_scales_keep_optimizers_apart() -> None:
    runs = [dmft.solve(symmetric(width), 4.0, rtol=1e-3) for width in (2, 4)]
    runs += [dmft.solve(symmetric(width), 4.0, optimizer=GradientDescent(learning_rate=0.2)) for width in (2, 4)]
    text = str(dmft.time_scales(runs))
    assert "\ntheory of gradient descent at learning rate 0.2, n/(m d) = 0.8" in text and text.startswith(
        "theory, n/(m d) = 0.8"
    )


def test_thinning_is_of_optimizers_only() -> None:
    with pytest.raises(ValueError, match="thinning goes with an optimizer"):
        dmft.solve(symmetric(2), 1.0, thinning=1e-5)
