"""The edge of stability in the exact DMFT of gradient descent: where it is, and what happens beyond it.

At rest w + Delta F = (1 + Delta nu) w, and a small perturbation along a direction of curvature mu (of the loss without
the constraint, in the unit of time of the theory) is multiplied by (1 - Delta mu)/(1 + Delta nu) in an update. The
sharpness here is S = Delta (mu_max - nu)/2 with the upper edge mu_max of the spectrum: gradient descent is linearly
stable below S = 1, where the fastest direction changes its sign at every update.

`top_curvature` is that edge from the DMFT itself. With correlations at rest and e_2 = E[r^2], the response at the
frequency of period two is R = -G(mu), G_X = 1/(mu - L_X) for X = S, T and

    L_X = (alpha a^2/m) [ h'_X/(1 - sigma) + e_2 (h'' G)_X ],   sigma = (a^2/m^2) (h'_S G_S + (m - 1) h'_T G_T),

h'_S = h'(1) + (m - 1) h'(q), h'_T = h'(1) - h'(q), (h'' G)_ij = h''(C_ij) G_ij and q = C_o(t, t). It has a solution
for mu above the edge only. Without the second term it is the Marchenko-Pastur law of a covariance with two
eigenvalues; for a linear h, mu_max = alpha a^2 h'(0) (1 + 1/sqrt(alpha m))^2.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dmft
from dmft.activations import Activation
from dmft.files import atomic_write
from dmft.problems import SymmetricProblem, from_dict
from dmft.solution import Solution
from dmft.status import Status
from dmft.targets import Target
from solvers.descent.engine import FINISHED, LOST, ROUNDING
from solvers.descent.rows import Rows, triangle
from validation.descent.runs import code_digest

FloatArray = NDArray[np.float64]
Record = dict[str, Any]

REVISION = 2
"""Of what is measured here; records of another one are made again."""
LINEAR = Activation.from_covariance([0, 1.0])
CUBIC = Activation.from_covariance([0, 0.9, 0, 1 / 6])
QUADRATIC = Activation.from_covariance([0, 0.6, 0.4])
NAMES = {"linear": LINEAR, "cubic": CUBIC}
ALPHA, NOISE = 0.3, 0.6

UPDATES = (250, 500)
"""Updates of the runs that look for the largest stable rate: what is found is extrapolated in their inverse."""
STEPS = 10
"""Bisections of each."""
RISE, BALANCE = 1e-10, 0.5
"""A stable run has, in its last quarter, no rise of e_tr by more than this part of its start, and no energy balance
above this."""
TIMES_WIDTH = 20.0
"""Last time of runs with trained second layers, over m; of at least and at most so many updates:"""
FEWEST_UPDATES, MOST_UPDATES = 400, 1600
FRACTIONS = (0.06, 0.12, 0.25, 0.35, 0.5, 0.7, 1.0, 1.2)
"""Rates of the runs with trained second layers, over the prediction for h linear at a(0)."""
BEYOND = (0.8, 0.9, 0.95, 0.98, 1.02, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.7, 2.0, 3.0, 4.0)
"""Rates of the runs at fixed a, over the edge."""
PERTURBATION = 1e-9
"""Of a(0), relative, whose growth tells whether the updates are chaotic."""
SMALL_RATES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.4, 1.6, 2.0, 2.4, 2.8)
DIMENSIONS = {20: 96, 40: 48, 80: 24, 160: 6}
"""Dimensions of the simulated networks, with their replicas."""
SIMULATED_RATES = (0.4, 0.6, 0.8, 1.2, 1.6, 2.4)
"""Rates at which they are, and (`SMALL_RATES`) at which the theory is solved for the same network."""
SMALL_UPDATES, AVERAGED = 300, 100
"""Updates of the small network, and the first one of the averages."""


# --------------------------------------------------------------------------------------------------- prediction


def top_curvature(
    covariance: Sequence[float] | FloatArray, width: int, alpha: float, a: float, overlap: float, square: float
) -> float:
    """Upper edge of the spectrum of the Hessian of exchangeable neurons, without the constraint.

    Parameters
    ----------
    covariance : (K,) float
        Coefficients of h.
    width : int
    alpha, a : float
    overlap : float
        C_o(t, t) of two neurons.
    square : float
        E[r^2] = 2 e_tr, at least 0.

    Returns
    -------
    float
        In the unit of rates of the theory: the Hessian of the loss is this over alpha m.
    """
    h = np.polynomial.polynomial.Polynomial(np.asarray(covariance, dtype=np.float64))
    slope, bend = h.deriv(), h.deriv(2)
    others = width - 1.0
    slope_s = float(slope(1.0) + others * slope(overlap))
    slope_t = float(slope(1.0) - slope(overlap)) if width > 1 else 0.0
    bend_s = float(bend(1.0) + others * bend(overlap)) * square / width
    bend_t = float(bend(1.0) - bend(overlap)) * square / width if width > 1 else 0.0
    bend_tt = float(others * bend(1.0) + bend(overlap)) * square / width if width > 1 else 0.0
    rate, weight = alpha * a * a / width, a * a / width**2

    def solvable(mu: float) -> bool:
        """Newton's method from below, which goes up to the solution if there is one."""
        s = t = 1.0 / mu
        for _ in range(100):
            rest = 1.0 - weight * (slope_s * s + others * slope_t * t)
            if rest <= 0.0:
                return False
            under_s = mu - rate * (slope_s / rest + bend_s * s + others * bend_t * t)
            under_t = mu - rate * (slope_t / rest + bend_t * s + bend_tt * t)
            if under_s <= 0.0 or under_t <= 0.0:
                return False
            f_s, f_t = 1.0 / under_s - s, 1.0 / under_t - t
            through = weight / rest**2
            k_s, k_t = rate / under_s**2, rate / under_t**2
            j_ss = 1.0 - k_s * (through * slope_s**2 + bend_s)
            j_st = -k_s * others * (through * slope_s * slope_t + bend_t)
            j_ts = -k_t * (through * slope_t * slope_s + bend_t)
            j_tt = 1.0 - k_t * (through * others * slope_t**2 + bend_tt)
            determinant = j_ss * j_tt - j_st * j_ts
            if determinant <= 0.0 or j_ss <= 0.0:
                return False
            d_s, d_t = (j_tt * f_s - j_st * f_t) / determinant, (j_ss * f_t - j_ts * f_s) / determinant
            s, t = s + d_s, t + d_t
            if abs(d_s) < 1e-12 * s and abs(d_t) < 1e-12 * t:
                return True
        return False

    low = high = rate * max(slope_s, slope_t)
    if high == 0.0:
        return 0.0
    while not solvable(high):
        low, high = high, 1.5 * high
    while high - low > 1e-9 * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if solvable(middle) else (middle, high)
    return high


def linear_rate(problem: SymmetricProblem, a: float | None = None) -> float:
    """Largest stable rate of the linear part of h alone, 2 m/(a^2 h'(0) (1 + 1/sqrt(alpha m))^2), at a or a(0)."""
    form = problem.formulation()
    a = float(form.a0[0]) if a is None else a
    edge = (1.0 + (form.alpha * form.width) ** -0.5) ** 2
    return float(2.0 * form.width / (a * a * float(problem.activation.covariance[1]) * edge))


def sharpness(problem: SymmetricProblem, step: float, a: float, nu: float, overlap: float, square: float) -> float:
    """S = Delta (mu_max - nu)/2: stable below 1."""
    form = problem.formulation()
    top = top_curvature(form.covariance, form.width, form.alpha, a, overlap, max(0.0, square))
    return 0.5 * step * (top - nu)


# -------------------------------------------------------------------------------------------------- measurement


def is_stable(solution: Solution) -> bool:
    """Whether a run has come to descend: an overshoot that is over before the last quarter does not count.

    In the last quarter e_tr must not rise, and its decrease must be that of the flow to better than `BALANCE`: along a
    direction of curvature mu the energy balance of descent is Delta mu/2, and 1 where two states alternate for ever.
    """
    if solution.status is not Status.DONE:
        return False
    error, start = solution.train_error, 3 * len(solution.t) // 4
    rises = bool(np.any(np.diff(error[start:]) > RISE * error[0]))
    return not rises and bool(np.all(solution.energy_balance[start:] < BALANCE))


def descend(problem: SymmetricProblem, rate: float, updates: int) -> Solution:
    """So many updates of gradient descent."""
    optimizer = dmft.GradientDescent(learning_rate=rate)
    return dmft.solve(problem, updates * optimizer.step(problem), optimizer=optimizer)


def largest_rate(problem: SymmetricProblem, updates: int, guess: float, steps: int = STEPS) -> tuple[float, Solution]:
    """Largest rate whose run is stable, by bisection of its logarithm from 0.4 to 1.6 guesses, and that run."""
    low, high = 0.4 * guess, 1.6 * guess
    run = descend(problem, low, updates)
    while not is_stable(run):
        low, high = 0.5 * low, low
        run = descend(problem, low, updates)
    while is_stable(further := descend(problem, high, updates)):
        low, high, run = high, 2.0 * high, further
    for _ in range(steps):
        middle = math.sqrt(low * high)
        further = descend(problem, middle, updates)
        if is_stable(further):
            low, run = middle, further
        else:
            high = middle
    return low, run


def sharpness_at_end(solution: Solution) -> float:
    """S of the last update of a run of exchangeable neurons."""
    problem = solution.problem
    assert isinstance(problem, SymmetricProblem)
    assert solution.optimizer is not None
    end = solution.t[-1]
    overlap = float(solution.correlation(end, end, "o")) if problem.width > 1 else 0.0
    return sharpness(
        problem,
        solution.optimizer.step(problem),
        float(solution.a[-1]),
        float(solution.nu[-1]),
        overlap,
        2.0 * float(solution.train_error[-1]),
    )


@dataclass(frozen=True, eq=False)
class Course:
    """Curves of a run on all its updates, with the sharpness and the estimated rounding.

    Attributes
    ----------
    step : float
    train_error, test_error, a, v, nu, overlap : (N,) float
    rounding : (N,) float
        Estimated error of E[r^2] by cancellation.
    lost : int or None
        First update at which that exceeds `LOST` of it.
    status : str
    """

    step: float
    train_error: FloatArray
    test_error: FloatArray
    a: FloatArray
    v: FloatArray
    nu: FloatArray
    overlap: FloatArray
    rounding: FloatArray
    lost: int | None
    status: str

    def sharpness(self, problem: SymmetricProblem, place: Sequence[int] | NDArray[np.int64]) -> FloatArray:
        """S at the updates in ``place``."""
        found = [
            sharpness(problem, self.step, self.a[n], self.nu[n], self.overlap[n], 2.0 * self.train_error[n])
            for n in place
        ]
        return np.array(found)


def follow(problem: SymmetricProblem, rate: float, updates: int, batch_fraction: float = 1.0) -> Course:
    """Make updates until the run ends, diverges, or is lost to rounding, and keep what is needed to judge them."""
    form = problem.formulation()
    rows = Rows(form, updates + 1, rate / (form.alpha * form.width), 0.0, batch_fraction)
    tables = rows.tables
    rounding = np.zeros(updates + 1)
    lost, status = None, "done"
    for n in range(updates + 1):
        if not rows.compute():
            status = "diverged"
            break
        square, start = tables.errors[n, 0], tables.errors[0, 0]
        rounding[n] = max(rounding[max(n - 1, 0)], ROUNDING * rows.local.size[0])
        if lost is None and rounding[n] > LOST * max(square, FINISHED * start):
            lost = n
        if abs(square) > 1e6 * start or square < -1e-6 * start:
            status = "diverged" if square > 0.0 else "rounding"
            break
        rows.accept()
    count = rows.rows
    diagonal = np.array([triangle(n) + n for n in range(count)])
    overlap = np.zeros(count)
    if form.width > 1:
        overlap = (tables.c_s[diagonal] - tables.c_t[0, diagonal]) / form.width
    latent = tables.v.shape[2] > 0
    return Course(
        step=rows.step,
        train_error=0.5 * tables.errors[:count, 0],
        test_error=0.5 * tables.errors[:count, 1],
        a=tables.a[:count, 0].copy(),
        v=tables.v[:count, 0, 0] / rows.model.roots[0] if latent else np.zeros(count),
        nu=(tables.lam[:count, 0] - 1.0) / rows.step,
        overlap=overlap,
        rounding=rounding[:count],
        lost=lost,
        status=status,
    )


def network(name: str, target: str, width: int, alpha: float = ALPHA, **changes: Any) -> SymmetricProblem:
    """Problem of the study: tau = 0.6, and a(0) = 1 unless ``gamma0`` is given."""
    h = NAMES[name]
    given: dict[str, Any] = {"noise_std": NOISE, **changes}
    if "gamma0" not in given:
        given.setdefault("a0", 1.0)
    goal = Target.same_as(h) if target == "index" else Target.noise()
    return SymmetricProblem(width=width, alpha=alpha, activation=h, target=goal, **given)


def small_network(a0: float = 1.5) -> SymmetricProblem:
    """The one that is simulated."""
    target = Target.same_as(QUADRATIC)
    return SymmetricProblem(width=2, alpha=0.8, noise_std=0.5, a0=a0, activation=QUADRATIC, target=target)


def simulate(problem: SymmetricProblem, rate: float, d: int, updates: int, seed: int) -> FloatArray:
    """(updates + 1, 3) train error, test error and mean a of the Gaussian model with h = h_1 q + h_2 q^2, phi = sigma.

    NaN from where it diverges on.
    """
    random = np.random.default_rng([seed, d])
    m, tau = problem.width, problem.noise_std
    n = round(problem.alpha * m * d)
    coefficients = np.asarray(problem.activation.covariance)
    h = np.polynomial.polynomial.Polynomial(coefficients)
    linear = math.sqrt(coefficients[1]) * random.standard_normal((n, d))
    quadratic = math.sqrt(coefficients[2]) * random.standard_normal((n, d, d))
    quadratic = quadratic + quadratic.transpose(0, 2, 1)
    w = random.standard_normal((m, d))
    w /= np.linalg.norm(w, axis=1)[:, None]
    a = np.full(m, float(np.asarray(problem.formulation().a0)[0]))
    labels = linear[:, 0] + 0.5 * quadratic[:, 0, 0] + tau * random.standard_normal(n)
    result = np.full((updates + 1, 3), np.nan)
    for update in range(updates + 1):
        slope = (quadratic.reshape(n * d, d) @ w.T).reshape(n, d, m)
        outputs = linear @ w.T + 0.5 * np.einsum("id,ndi->ni", w, slope)
        r = labels - outputs @ a / m
        if not r @ r < 1e8 * n:
            break
        risk = h(1.0) + tau**2 - 2.0 / m * a @ h(w[:, 0]) + a @ h(w @ w.T) @ a / m**2
        result[update] = r @ r / (2 * n), risk / 2, a.mean()
        r = r / (n * m)
        gradient = a[:, None] * (r @ linear + np.tensordot(r, slope, (0, 0)).T)
        a, w = a + rate * (outputs.T @ r), w + rate * gradient
        w /= np.linalg.norm(w, axis=1)[:, None]
    return result


# ------------------------------------------------------------------------------------------------------ records


def measure_threshold(problem: SymmetricProblem) -> Record:
    """Largest stable rate with `UPDATES`, extrapolated, and predicted from the last state of the longer run."""
    guess = linear_rate(problem)
    rates = []
    for updates in UPDATES:
        rate, run = largest_rate(problem, updates, guess)
        rates.append(rate)
    return {
        "rates": rates,
        "measured": 2.0 * rates[1] - rates[0],
        "linear": guess,
        "predicted": rates[1] / sharpness_at_end(run),
        "nu": float(run.nu[-1]),
        "train_error": float(run.train_error[-1]),
    }


def measure_beyond(problem: SymmetricProblem, fractions: Sequence[float]) -> Record:
    """Runs at fixed a around the edge, of which all rows are kept: errors, and C(t, s) over one and two updates."""
    guess = linear_rate(problem)
    rate, run = largest_rate(problem, UPDATES[1], guess)
    edge = rate / sharpness_at_end(run)
    rows = []
    for fraction in fractions:
        solution = descend(problem, fraction * edge, 280)
        end = solution.t[-4:]
        rows.append(
            {
                "fraction": fraction,
                "status": solution.status.value,
                "train_error": float(solution.train_error[-1]),
                "test_error": float(solution.test_error[-1]),
                "one": float(solution.correlation(end[-1], end[-2])),
                "two": float(solution.correlation(end[-1], end[-3])),
                "balance": float(solution.energy_balance[-1]),
            }
        )
    return {"edge": edge, "runs": rows}


def measure_trained(problem: SymmetricProblem, fraction: float, batch_fraction: float) -> Record:
    """One long run with trained a: curves on a few updates, and the middle of its last half."""
    rate = fraction * linear_rate(problem)
    step = rate / (problem.alpha * problem.width)
    updates = round(TIMES_WIDTH * problem.width / step)
    path = follow(problem, rate, min(max(updates, FEWEST_UPDATES), MOST_UPDATES), batch_fraction)
    count = len(path.a) if path.lost is None else max(path.lost, 4)
    even = np.linspace(0.0, count - 2, 80)
    place = np.unique(np.concatenate([even, np.geomspace(1.0, count - 1, 60) - 1.0]).round().astype(np.int64))
    values = path.sharpness(problem, place)
    late = slice(count // 2, count - 1)
    crossing = _first_above(problem, path, place, values)
    rises = np.flatnonzero(np.diff(path.train_error[:count]) > RISE * path.train_error[0])
    rises = rises[rises >= (crossing or 0)]
    return {
        "rate": rate,
        "step": step,
        "status": path.status,
        "updates": len(path.a) - 1,
        "lost": path.lost,
        "crossing": crossing,
        "rise": int(rises[0]) + 1 if len(rises) else None,
        "place": place.tolist(),
        "sharpness": values.tolist(),
        "late_sharpness": float(np.median(values[place >= count // 2])),
        "largest_a": float(path.a[:count].max()),
        **{name: getattr(path, name)[place].tolist() for name in ("train_error", "test_error", "a", "v")},
        **{f"late_{name}": float(np.median(getattr(path, name)[late])) for name in ("train_error", "test_error", "a")},
    }


def _first_above(problem: SymmetricProblem, path: Course, place: NDArray[np.int64], values: FloatArray) -> int | None:
    """First update with S > 1: of all updates since the last one in ``place`` below it."""
    above = np.flatnonzero(values > 1.0)
    if not len(above):
        return None
    if above[0] == 0:
        return int(place[0])
    between = np.arange(place[above[0] - 1] + 1, place[above[0]] + 1)
    return int(between[np.argmax(path.sharpness(problem, between) > 1.0)])


def measure_chaos(rate: float) -> Record:
    """Growth of a perturbation of a(0) in the small network, and averages of its errors and second layer."""
    problem = small_network()
    path = follow(problem, rate, SMALL_UPDATES)
    other = follow(small_network(1.5 * (1.0 + PERTURBATION)), rate, SMALL_UPDATES)
    count = min(len(path.a), len(other.a))
    distance = np.abs(path.a[:count] - other.a[:count]) / (1.5 * PERTURBATION)
    grown = np.flatnonzero(distance > 1e6)
    end = int(grown[0]) if len(grown) else count
    growth = np.polyfit(np.arange(10, end), np.log(np.maximum(distance[10:end], 1e-300)), 1)[0] if end > 20 else None
    late = slice(AVERAGED, None)
    complete = path.status == "done" and path.lost is None
    return {
        "rate": rate,
        "status": path.status,
        "updates": len(path.a) - 1,
        "lost": path.lost,
        "growth": None if growth is None else float(growth),
        "sharpness": float(path.sharpness(problem, np.arange(count // 2, count - 1, 4)).mean()),
        "train_error": float(path.train_error[late].mean()) if complete else None,
        "test_error": float(path.test_error[late].mean()) if complete else None,
        "a": float(path.a[late].mean()) if complete else None,
        "curve": path.train_error.tolist(),
    }


def measure_simulation(rate: float, d: int, replicas: int) -> Record:
    """Averages of the small network in d dimensions over replicas that have not diverged."""
    runs = np.array([simulate(small_network(), rate, d, SMALL_UPDATES, seed) for seed in range(replicas)])
    diverged = np.isnan(runs[:, -1, 0])
    record: Record = {"rate": rate, "d": d, "replicas": len(runs), "diverged": int(diverged.sum())}
    means = runs[~diverged][:, AVERAGED:].mean(axis=1)
    for place, name in enumerate(("train_error", "test_error", "a")):
        error = means[:, place].std(ddof=1) / math.sqrt(len(means))
        record[name] = [float(means[:, place].mean()), float(error)]
    record["curve"] = runs[:, :40, 0].mean(axis=0).tolist() if not diverged.any() else None
    return record


_MEASURES: dict[str, Callable[..., Record]] = {
    "threshold": measure_threshold,
    "beyond": measure_beyond,
    "trained": measure_trained,
    "chaos": measure_chaos,
    "simulation": measure_simulation,
}


@dataclass(frozen=True)
class Task:
    """One measurement: its kind, what its record is labelled with, and what it is given as plain data."""

    kind: str
    labels: Mapping[str, Any]
    given: Mapping[str, Any]

    def key(self) -> str:
        """Digest of what its record depends on."""
        told = [REVISION, code_digest(), self.kind, dict(self.labels), dict(self.given)]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def name(self) -> str:
        """In words."""
        return ", ".join([self.kind, *(f"{name} = {value}" for name, value in self.labels.items())])


def tasks() -> list[Task]:
    """All measurements."""
    made = []

    def add(kind: str, problem: SymmetricProblem, labels: Mapping[str, Any], **given: Any) -> None:
        made.append(Task(kind, labels, {"problem": problem.to_dict(), **given}))

    for name in NAMES:
        for target in ("noise", "index"):
            pairs = [(m, ALPHA) for m in (1, 2, 4, 16, 128, 10**4, 10**6)]
            pairs += [(m, alpha) for alpha in (1.0, 2.0) for m in (1, 16)]
            for m, alpha in pairs:
                problem = network(name, target, m, alpha, train_second_layer=False)
                add("threshold", problem, {"h": name, "target": target, "m": m, "alpha": alpha, "second": "a = 1"})
    for target in ("noise", "index"):
        for m in (4, 16, 128, 10**4, 10**6):
            problem = network("cubic", target, m, gamma0=1.0, train_second_layer=False)
            labels = {"h": "cubic", "target": target, "m": m, "alpha": ALPHA, "second": "gamma = 1"}
            add("threshold", problem, labels)
        labels = {"h": "cubic", "target": target, "m": 16}
        add("beyond", network("cubic", target, 16, train_second_layer=False), labels, fractions=BEYOND)
        for m in (4, 8, 16):
            for batch in (1.0, 0.5):
                for fraction in FRACTIONS:
                    labels = {"target": target, "m": m, "batch": batch, "fraction": fraction}
                    add("trained", network("cubic", target, m), labels, fraction=fraction, batch_fraction=batch)
    for m in (10**4, 10**6):  # so wide that a stays where the feature is learnt
        labels = {"h": "cubic", "target": "index", "m": m, "alpha": ALPHA, "second": "trained"}
        add("threshold", network("cubic", "index", m), labels)
    made += [Task("chaos", {"rate": rate}, {"rate": rate}) for rate in SMALL_RATES]
    made += [
        Task("simulation", {"rate": rate, "d": d}, {"rate": rate, "d": d, "replicas": replicas})
        for rate in SIMULATED_RATES
        for d, replicas in DIMENSIONS.items()
    ]
    return made


def run(
    directory: Path, workers: int, tell: Callable[[str], None] = print, chosen: Sequence[Task] | None = None
) -> list[Record]:
    """Make all measurements that are not in the directory yet.

    Parameters
    ----------
    directory : path
        Where each record is kept as ``<key>.json``; made if missing.
    workers : int
        Processes.
    tell : callable
        Called with a line for each that is finished.
    chosen : sequence of Task, optional
        Default all of :func:`tasks`.

    Returns
    -------
    list of dict
        ``kind``, ``labels`` and ``found`` of each, in their order.

    Raises
    ------
    KeyboardInterrupt
        When interrupted; what is finished is kept.
    """
    directory.mkdir(parents=True, exist_ok=True)
    wanted = tasks() if chosen is None else list(chosen)
    keys = [task.key() for task in wanted]
    missing = [task for task, key in zip(wanted, keys, strict=True) if _read(directory / f"{key}.json") is None]
    done = len(wanted) - len(missing)
    if done:
        tell(f"{done} of {len(wanted)} measurements were there already")
    for name in _measured(missing, directory, workers):
        done += 1
        tell(f"[{done}/{len(wanted)}] {name}")
    found = [_read(directory / f"{key}.json") for key in keys]
    return [record for record in found if record is not None]


def _measured(missing: Sequence[Task], directory: Path, workers: int) -> Iterator[str]:
    if workers == 1 or len(missing) < 2:
        for task in missing:
            yield measure(task, directory)
        return
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered")
    yield from parallel(delayed(measure)(task, directory) for task in missing)


def measure(task: Task, directory: Path) -> str:
    """Make one measurement in this process and keep its record; its name."""
    given = dict(task.given)
    if "problem" in given:
        given["problem"] = from_dict(given["problem"])
    record = {"kind": task.kind, "labels": dict(task.labels), "found": _MEASURES[task.kind](**given)}
    atomic_write(directory / f"{task.key()}.json", (json.dumps(record) + "\n").encode())
    return task.name()


def _read(file: Path) -> Record | None:
    try:
        record: Record = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return record


# ------------------------------------------------------------------------------------------------------- report


def select(found: Sequence[Record], kind: str, **labels: Any) -> list[Record]:
    """Records of a kind whose labels have these values."""
    return [
        record
        for record in found
        if record["kind"] == kind and all(record["labels"].get(name) == value for name, value in labels.items())
    ]


def markdown(found: Sequence[Record]) -> str:
    """What was found, in sentences and tables."""
    parts = [*_thresholds(found), *_beyond(found), *_trained(found), *_small(found)]
    return "\n".join(parts).strip()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines), ""]


def _thresholds(found: Sequence[Record]) -> list[str]:
    records = select(found, "threshold")
    if not records:
        return []
    ratios = np.array([record["found"]["measured"] / record["found"]["predicted"] for record in records])
    text = (
        f"Largest stable rate of {len(records)} networks, by bisection with {UPDATES[0]} and {UPDATES[1]} updates, "
        f"extrapolated: over the prediction S = 1 it is {np.median(ratios):.4f} (median; {ratios.min():.3f} to "
        f"{ratios.max():.3f}). Over the prediction for the linear part alone, 2 m/(a² h'(0) (1 + (αm)^(-1/2))²):"
    )
    widths = sorted({record["labels"]["m"] for record in records})
    groups = dict.fromkeys(
        (record["labels"]["h"], record["labels"]["target"], record["labels"]["second"], record["labels"]["alpha"])
        for record in records
    )
    rows = []
    for h, target, second, alpha in groups:
        cells = [f"{h}, {target}, {second}, α = {alpha:g}"]
        for m in widths:
            one = select(records, "threshold", h=h, target=target, second=second, alpha=alpha, m=m)
            cells.append(_pair(one[0]["found"]) if one else "–")
        rows.append(cells)
    head = ["measured (predicted) over the linear part", *(f"m = {_power(m)}" for m in widths)]
    return [text, *_table(head, rows)]


def _pair(record: Record) -> str:
    return f"{record['measured'] / record['linear']:.3f} ({record['predicted'] / record['linear']:.3f})"


def _power(m: int) -> str:
    return f"{m}" if m < 10**4 else f"10^{round(math.log10(m))}"


def _beyond(found: Sequence[Record]) -> list[str]:
    parts = []
    for record in select(found, "beyond"):
        labels, runs = record["labels"], record["found"]["runs"]
        parts.append(
            f"Fixed a = 1, {labels['h']} h, {labels['target']}, m = {labels['m']}, 280 updates; squared distance of "
            "weights one and two updates apart:"
        )
        rows = [
            [
                f"{one['fraction']:g}",
                f"{one['train_error']:.4f}",
                f"{one['test_error']:.4f}",
                f"{2.0 - 2.0 * one['one']:.1e}",
                f"{2.0 - 2.0 * one['two']:.1e}",
            ]
            for one in runs
        ]
        parts += _table(["η/η_max", "e_tr", "e_ts", "one", "two"], rows)
    return parts


def _trained(found: Sequence[Record]) -> list[str]:
    records = select(found, "trained")
    if not records:
        return []
    parts = []
    for batch, name in ((1.0, "descent"), (0.5, "b = 0.5")):
        values = [
            record["found"]["late_sharpness"]
            for record in select(records, "trained", batch=batch)
            if record["found"]["crossing"] is not None and record["found"]["lost"] is None
        ]
        if values:
            parts.append(
                f"Trained a, {name}: {len(values)} runs that have crossed S = 1 and are not lost to rounding have S = "
                f"{np.median(values):.3f} (median of late medians; {min(values):.3f} to {max(values):.3f})."
            )
    rows = []
    for record in select(records, "trained", m=16):
        labels, one = record["labels"], record["found"]
        lost = "–" if one["lost"] is None else f"{one['lost']}"
        rows.append(
            [
                f"{labels['target']}, b = {labels['batch']:g}",
                f"{one['rate']:.2f}",
                *("–" if one[name] is None else f"{one[name]}" for name in ("crossing", "rise")),
                f"{one['late_sharpness']:.3f}",
                f"{max(one['sharpness']):.2f}",
                f"{one['largest_a']:.2f}",
                f"{one['late_a']:.2f}",
                f"{one['late_train_error']:.1e}",
                f"{one['late_test_error']:.3f}",
                f"{one['updates']}" if one["status"] == "done" else f"{one['updates']}, {one['status']}",
                lost,
            ]
        )
    head = [
        "m = 16",
        "η",
        "S > 1 at",
        "rise at",
        "S",
        "largest S",
        "largest a",
        "a",
        "e_tr",
        "e_ts",
        "updates",
        "lost at",
    ]
    return [*parts, *_table(head, rows)]


def _small(found: Sequence[Record]) -> list[str]:
    rows = []
    for record in select(found, "chaos"):
        one, rate = record["found"], record["labels"]["rate"]
        cells = [f"{rate:g}", "–" if one["growth"] is None else f"{one['growth']:.3f}", f"{one['sharpness']:.3g}"]
        for name in ("train_error", "a"):
            cells.append("–" if one[name] is None else f"{one[name]:.4f}")
            for d in DIMENSIONS:
                other = select(found, "simulation", rate=rate, d=d)
                cells.append("–" if not other else "{:.4f} ± {:.4f}".format(*other[0]["found"][name]))
        lost = "" if one["lost"] is None else f" (lost at {one['lost']})"
        cells.append(f"{one['status']}, {one['updates']}{lost}")
        others = [select(found, "simulation", rate=rate, d=d) for d in DIMENSIONS]
        cells.append(", ".join(f"{o[0]['found']['diverged']}/{o[0]['found']['replicas']}" for o in others if o) or "–")
        rows.append(cells)
    if not rows:
        return []
    text = (
        f"m = 2, α = 0.8, h = 0.6q + 0.4q², τ = 0.5, a(0) = 1.5: growth of a perturbation of a(0) per update, and "
        f"averages over the updates {AVERAGED} to {SMALL_UPDATES}, in theory and in d dimensions:"
    )
    simulated = [f"d = {d}" for d in DIMENSIONS]
    head = ["η", "growth", "S", "e_tr", *simulated, "a", *simulated, "theory ends", "diverged"]
    return [text, *_table(head, rows)]
