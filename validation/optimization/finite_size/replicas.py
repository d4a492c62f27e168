"""Training of replicas, the theory beside them, and the run of all of it."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import dmft
from validation import replicas
from validation.model import initial_weights, population_risk
from validation.optimization.finite_size.flow import ChebyshevFlow
from validation.optimization.finite_size.models import CollectiveGaussian, TrueNetwork
from validation.optimization.finite_size.plan import CONDENSED, INTERPOLATED, LEFT, Series, condensing, plan
from validation.optimization.finite_size.results import Curve, FiniteSize
from validation.optimization.runs import solve_run
from validation.optimization.study import question

FloatArray = NDArray[np.float64]
Ticker = Callable[[int, int, str], None]

REVISION = 1
"""To be raised whenever the numbers of a replica change."""


def _start(series: Series, replica: int) -> tuple[ChebyshevFlow, CollectiveGaussian | TrueNetwork]:
    """A replica at t = 0; it depends on its number and the sizes only."""
    problem, d = series.problem(), series.dimension
    samples = round(series.sample_ratio * d)
    seeds = np.random.SeedSequence([samples, d, series.width], spawn_key=(replica,)).spawn(3)
    data, start, test = (np.random.default_rng(seed) for seed in seeds)
    weights, a = initial_weights(problem.formulation(), d, start)
    model: CollectiveGaussian | TrueNetwork
    if series.model == "gaussian":
        model = CollectiveGaussian(problem, d, samples, data, np.float32)
    else:
        model = TrueNetwork(problem, d, samples, data, test, 0)
    # The unit of time of a model is set by n as it was rounded.
    return ChebyshevFlow(model, weights, a, series.width * d / samples, series.tolerance), model


def train(series: Series, replica: int) -> dict[str, FloatArray]:
    """One replica: draw, train until it has interpolated or until the end, record every step.

    Returns
    -------
    dict of array
        ``t`` in t_mf, ``train_error`` and ``test_error`` over tau^2/2, ``a`` and ``v`` (means over neurons), all (N,);
        ``forces`` and ``wall_time``, scalars.
    """
    began = time.perf_counter()
    flow, model = _start(series, replica)
    noise, target = 0.5 * series.noise_std**2, model.problem.resolved_target()
    rows: list[tuple[float, ...]] = []
    while True:
        w, second = flow.weights, flow.a
        risk = population_risk(model.problem, target, w, second, whole_activation=model.whole_activation)
        rows.append((flow.t, flow.train_error / noise, risk / noise, float(second.mean()), float(w[:, 0].mean())))
        if rows[-1][1] < INTERPOLATED or flow.t >= series.t_final * (1.0 - 1e-12):
            break
        flow.step(series.t_final)
    columns = np.array(rows).T
    curves = dict(zip(("t", "train_error", "test_error", "a", "v"), columns, strict=True))
    return curves | {"forces": np.array(flow.forces), "wall_time": np.array(time.perf_counter() - began)}


def condensation(weights: FloatArray) -> float:
    """Largest eigenvalue of the overlaps between neurons, their mean removed, over the sum of all.

    1/(m - 1) where what neurons have apart from each other is orthogonal, as it is in the theory; of order
    (1 + sqrt(m/d))^2/m for random directions; 1 if all of them lie on one line.

    Parameters
    ----------
    weights : (m, d)
    """
    centred = weights - weights.mean(axis=0)
    values = np.linalg.eigvalsh(centred @ centred.T)
    return float(values[-1] / values.sum())


def condense(series: Series, replica: int) -> dict[str, FloatArray]:
    """The replica of `train` again until its plateau is left: ``t`` and ``condensation``, (N,)."""
    flow, _ = _start(series, replica)
    rows = [(flow.t, condensation(flow.weights))]
    while flow.t < series.t_final * (1.0 - 1e-12) and flow.train_error > LEFT * 0.5 * series.noise_std**2:
        flow.step(series.t_final)
        rows.append((flow.t, condensation(flow.weights)))
    t, share = np.array(rows).T
    return {"t": t, "condensation": share}


def _theory(series: Series) -> dict[str, FloatArray]:
    asked = question(series.activation, series.noise_std, width=series.width)
    _, curves = solve_run(asked, series.sample_ratio, series.t_final, rtol=1e-3)
    return curves


def _work(payload: tuple[str, Series, int]) -> dict[str, FloatArray]:
    what, series, replica = payload
    if what == "theory":
        return _theory(series)
    return condense(series, replica) if what == "condensation" else train(series, replica)


def run(
    out: str | PathLike[str],
    series: Sequence[Series] | None = None,
    *,
    workers: int = 1,
    progress: Ticker | None = None,
) -> tuple[FiniteSize, bool]:
    """Do what is not done in the directory yet; True if everything has been done.

    Parameters
    ----------
    out : path
        Keeps finished replicas in ``finite_size.replicas``.
    series : list of Series, optional
        Default `plan`.
    workers : int, optional
        Processes; numbers do not depend on it.
    progress : callable, optional
        Called with (done, total, key).

    Raises
    ------
    OSError
        When the directory cannot be written.
    """
    wanted = plan() if series is None else list(series)
    tasks: dict[str, tuple[str, Series, int]] = {}
    for one in wanted:
        tasks[one.theory_key] = ("theory", one, 0)
    # The cheap ones first, so that an interrupted run has something of every network.
    pairs = [("replica", one, replica) for one in wanted for replica in range(one.replicas)]
    pairs += [("condensation", one, k) for one in condensing(wanted) for k in range(min(CONDENSED, one.replicas))]
    for what, one, replica in sorted(pairs, key=lambda pair: _cost(pair[1]) * (1 + pair[2])):
        name = one.key if what == "replica" else f"condensation-{one.key}"
        tasks[f"{name}-r{replica:03d}"] = (what, one, replica)
    store = Path(out) / "finite_size.replicas"
    store.parent.mkdir(parents=True, exist_ok=True)
    outcome = replicas.run(
        _work,
        [replicas.Task(key, payload) for key, payload in tasks.items()],
        workers=workers,
        store=store,
        resume=store.exists(),
        fingerprint=hashlib.sha256(f"{REVISION} {dmft.__version__} {INTERPOLATED}".encode()).hexdigest(),
        progress=progress,
    )
    curves: dict[str, list[Curve]] = {}
    theory: dict[str, Curve] = {}
    condensed: dict[str, list[list[list[float]]]] = {}
    for key, (what, one, replica) in tasks.items():
        if key in outcome.results:
            if what == "theory":
                theory[key] = Curve.of(outcome.results[key])
            elif what == "condensation":
                arrays = outcome.results[key]
                pair = [[float(f"{x:.6g}") for x in arrays[name]] for name in ("t", "condensation")]
                condensed.setdefault(one.key, []).append(pair)
            else:
                curves.setdefault(one.key, []).append(Curve.of(outcome.results[key], replica))
    found = FiniteSize(
        series=wanted, curves=curves, theory=theory, condensation=condensed, failures=dict(outcome.failures)
    )
    return found, not outcome.interrupted


def _cost(series: Series) -> float:
    """Roughly, the operations of one force."""
    d = series.dimension
    columns = d + math.comb(d + 2, 3) if series.model == "gaussian" else d * series.width
    return series.sample_ratio * d * columns
