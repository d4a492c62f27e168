"""The relu optimization threshold as DMFT sees it: regimes in the plane of n/d and training time.

Neurons of unit norm in mean-field scaling, f = (1/m) sum a_i sigma(<w_i, x>), trained from a(0) = 1 on an index target
phi = sigma with label noise tau (theory sections 1 and 4). At infinite width n/d alone decides: below a critical value
abar_c the network learns, lingers, then unlearns and interpolates; above it it stays on a plateau for ever. `run` sets
the theory (several truncations of relu, width m and infinity) beside true networks with relu itself, `critical_ratio`
brackets abar_c, `plot` draws both. Times are t_mf = alpha t throughout: gradient flow of (m/2n) sum (y - f)^2.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import dmft
from dmft._validate import integer, keys, real, real_array, shown
from dmft.activations import Extrapolation, extrapolate_degree
from dmft.files import atomic_path, atomic_write
from dmft.status import Status
from solvers import solve
from validation import dynamics, replicas, simulations

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = NDArray[np.float64]
Ticker = Callable[[int, int, str], None]

REGIMES = ("plateau", "delayed overfit", "interpolation", "unfinished")
EVENTS = ("minimum", "rise", "drop", "interpolation")
"""Times of a `Regime`."""
INTERPOLATED, RISEN, LOWERED = 1e-2, 0.05, 0.5
"""Defaults of `classify`."""

_POINTS = 200  # of a theory curve; log-linear interpolation between them is good to 0.5 % of an event's time
_SERIES = 64  # degree of the series that a network's problem carries: its numbers are those of relu itself
_BRACKET = 0.02  # relative width at which a critical ratio is left alone
_START = 0.1  # first time of the theory's curves after 0, in t_mf


@dataclass(frozen=True, kw_only=True)
class Plane:
    """What to run.

    Attributes
    ----------
    sample_ratios : (X,) float
        n/d, increasing. Unit-norm networks of width m cannot interpolate beyond n/d of about m.
    width, dimension : int
        m and d of the networks; the theory is solved at m and at infinite width.
    noise_std : float
        tau > 0.
    replicas : int
        Networks for each n/d.
    t_final : float
        Last time t_mf.
    learning_rate : float
        eta of gradient descent on (1/2n) sum (y - f)^2; an update advances t_mf by eta/m.
    seed : int
        As in `dmft.simulate`.
    degrees : (K,) int
        Truncations of the Hermite series of relu in the theory, increasing.
    rtol : float
        Tolerance of the theory.
    records : int
        Recorded times of the networks, equidistant in log t_mf.
    threshold_time : float or None
        Time t_mf that `critical_ratio` waits for interpolation; None leaves thresholds out.

    Raises
    ------
    TypeError, ValueError
        If a value is out of range.
    """

    sample_ratios: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 48.0, 64.0)
    width: int = 64
    dimension: int = 50
    noise_std: float = 0.1
    replicas: int = 2
    t_final: float = 2000.0
    learning_rate: float = 25.6
    seed: int = 0
    degrees: tuple[int, ...] = (16, 64, 256)
    rtol: float = 1e-3
    records: int = 60
    threshold_time: float | None = 1e5

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        ratios = real_array("sample_ratios", self.sample_ratios, ndim=1)
        if not len(ratios) or (ratios <= 0.0).any() or (np.diff(ratios) <= 0.0).any():
            raise ValueError(f"sample_ratios must be increasing numbers above 0, not {shown(ratios.tolist())}.")
        set_(self, "sample_ratios", tuple(ratios.tolist()))
        degrees = tuple(integer("degrees", degree, low=1) for degree in self.degrees)
        if not degrees or any(low >= high for low, high in itertools.pairwise(degrees)):
            raise ValueError(f"degrees must be increasing integers, not {shown(self.degrees)}.")
        set_(self, "degrees", degrees)
        for name, least in (("width", 1), ("dimension", 2), ("replicas", 1), ("seed", 0), ("records", 2)):
            set_(self, name, integer(name, getattr(self, name), low=least))
        for name in ("noise_std", "t_final", "learning_rate"):
            set_(self, name, real(name, getattr(self, name), low=0.0, open_low=True))
        set_(self, "rtol", real("rtol", self.rtol, low=1e-10, high=0.1))
        if self.threshold_time is not None:
            set_(self, "threshold_time", real("threshold_time", self.threshold_time, low=0.0, open_low=True))
        if self.t_final <= max(_START, self.learning_rate / self.width):
            raise ValueError(f"t_final must exceed {_START:g} and one update, not {self.t_final:g}.")


@dataclass(frozen=True, kw_only=True)
class Regime:
    """How a run ended, and when what happened; times in the unit of the run, None where it did not happen.

    Attributes
    ----------
    name : str
        One of `REGIMES`.
    minimum : float
        Time of the smallest test error.
    rise : float or None
        First later time at which the test error is above its minimum by the fraction ``risen``.
    drop : float or None
        First later time at which the train error is below the fraction ``lowered`` of its value at the minimum.
    interpolation : float or None
        First time at which the train error is below the fraction ``interpolated`` of tau^2/2.
    end : float
        Last time.
    test_minimum, test_final, train_minimum, train_final : float
        Smallest and last test error, train error at the minimum of the test error and at the end; over tau^2/2.
    drift : float or None
        -d ln e_tr/d ln t over the last e-fold of time; near 0 where a plateau has come to rest. None for a run that
        ends at train error 0 or is shorter than that.
    """

    name: str
    minimum: float
    rise: float | None
    drop: float | None
    interpolation: float | None
    end: float
    test_minimum: float
    test_final: float
    train_minimum: float
    train_final: float
    drift: float | None


def classify(
    t: ArrayLike,
    train_error: ArrayLike,
    test_error: ArrayLike,
    noise_std: float,
    *,
    interpolated: float = INTERPOLATED,
    risen: float = RISEN,
    lowered: float = LOWERED,
    t_final: float | None = None,
) -> Regime:
    """Sort a run by what it did until its end.

    "interpolation": the train error has been below ``interpolated`` tau^2/2. "unfinished": not so, and the run ended
    before ``t_final``. "delayed overfit": neither, but after its minimum the test error has risen by more than the
    fraction ``risen``, or the train error has fallen below ``lowered`` times its value there. "plateau": none of these.
    A plateau that settles at a test error a little above an early minimum counts as delayed overfit; ``drift`` tells.

    Parameters
    ----------
    t : (N,) array_like
        Increasing times >= 0.
    train_error, test_error : (N,) array_like
        e_tr and e_ts (half mean squares, noise included), e_ts > 0.
    noise_std : float
        tau > 0.
    interpolated, risen, lowered : float, optional
        Levels: > 0; > 0; between 0 and 1.
    t_final : float, optional
        When the run was to end; default its last time.

    Raises
    ------
    TypeError, ValueError
        If the curves are no finite numbers of one length, times do not increase, or a level is out of range.
    """
    times = real_array("t", t, ndim=1)
    train = real_array("train_error", train_error, ndim=1, shape=(len(times),))
    test = real_array("test_error", test_error, ndim=1, shape=(len(times),))
    if not len(times) or times[0] < 0.0 or (np.diff(times) <= 0.0).any():
        raise ValueError(f"t must hold increasing times >= 0, not {shown(times.tolist())}.")
    if (train < 0.0).any() or (test <= 0.0).any():
        raise ValueError("train_error must be >= 0 and test_error > 0 at all times.")
    unit = 0.5 * real("noise_std", noise_std, low=0.0, open_low=True) ** 2
    interpolated = real("interpolated", interpolated, low=0.0, open_low=True)
    risen = real("risen", risen, low=0.0, open_low=True)
    lowered = real("lowered", lowered, low=0.0, high=1.0, open_low=True, open_high=True)
    finished = t_final is None or times[-1] >= real("t_final", t_final, low=0.0) * (1.0 - 1e-9)
    best = int(np.argmin(test))
    rise = _crossing(times, -test, -(1.0 + risen) * float(test[best]), best)
    drop = _crossing(times, train, lowered * float(train[best]), best)
    hit = _crossing(times, train, interpolated * unit, 0)
    if hit is not None:
        name = "interpolation"
    elif not finished:
        name = "unfinished"
    else:
        name = "plateau" if rise is None and drop is None else "delayed overfit"
    drift, past = None, times[-1] / math.e
    if train[-1] > 0.0 and past >= times[0]:
        drift = math.log(max(float(np.interp(past, times, train)), 1e-300) / float(train[-1]))
    return Regime(
        name=name,
        minimum=float(times[best]),
        rise=rise,
        drop=drop,
        interpolation=hit,
        end=float(times[-1]),
        test_minimum=float(test[best]) / unit,
        test_final=float(test[-1]) / unit,
        train_minimum=float(train[best]) / unit,
        train_final=float(train[-1]) / unit,
        drift=drift,
    )


def _crossing(t: FloatArray, curve: FloatArray, level: float, start: int) -> float | None:
    """First time from row ``start`` on at which a curve is below a level; straight in ln t between two rows."""
    below = np.flatnonzero(curve[start:] < level)
    if not len(below):
        return None
    row = start + int(below[0])
    if row == start:
        return float(t[row])
    low, high, before, after = float(t[row - 1]), float(t[row]), float(curve[row - 1]), float(curve[row])
    if after > 0.0:  # errors fall by powers: also straight in their logarithm
        before, after, level = math.log(before), math.log(after), math.log(level)
    share = (before - level) / (before - after)
    return low * (high / low) ** share if low > 0.0 else share * high


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trajectory with its regime.

    Attributes
    ----------
    kind : {"theory", "network"}
    sample_ratio : float
        n/d.
    width : int or None
        m; None for infinite width.
    degree : int or None
        Truncation of relu; None for networks, which have relu itself.
    replica : int or None
        None for theory.
    regime : Regime
    t, train_error, test_error, a, v : (N,) tuple of float
        Curves in t_mf, rounded to six digits.
    """

    kind: str
    sample_ratio: float
    width: int | None
    degree: int | None
    replica: int | None
    regime: Regime
    t: tuple[float, ...]
    train_error: tuple[float, ...]
    test_error: tuple[float, ...]
    a: tuple[float, ...]
    v: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Bracket of the critical n/d between runs that interpolate by a time and runs that do not.

    Attributes
    ----------
    degree : int
    width : int or None
        None for infinite width.
    low, high : float or None
        Largest n/d seen to interpolate, smallest seen not to; None if the range that was searched has none, or if a
        run failed there.
    t_final : float
        How long, in t_mf; interpolation slows down without bound below abar_c, so ``low`` grows with it.
    """

    degree: int
    width: int | None
    low: float | None
    high: float | None
    t_final: float

    @property
    def value(self) -> float | None:
        """Geometric middle of the bracket; None without one."""
        return None if self.low is None or self.high is None else math.sqrt(self.low * self.high)


@dataclass(frozen=True, kw_only=True)
class PlaneResult:
    """What came out; `to_dict` and `from_dict` are exact inverses.

    Attributes
    ----------
    plane : Plane
    runs : tuple of Run
        Theory and networks, sorted by n/d within each.
    thresholds : tuple of Threshold
    failures : tuple of str
        One sentence for each run that gave nothing.
    """

    plane: Plane
    runs: tuple[Run, ...]
    thresholds: tuple[Threshold, ...] = ()
    failures: tuple[str, ...] = ()

    def select(self, kind: str, **what: Any) -> list[Run]:
        """Runs of a kind ("theory", "network") with the given attributes."""
        return [run for run in self.runs if run.kind == kind and all(getattr(run, k) == x for k, x in what.items())]

    def records(self) -> list[dict[str, Any]]:
        """Plain table: a flat record of identity and regime for each run, without the curves."""
        identity = ("kind", "sample_ratio", "width", "degree", "replica")
        return [
            {name: getattr(run, name) for name in identity}
            | {("regime" if key == "name" else key): value for key, value in asdict(run.regime).items()}
            for run in self.runs
        ]

    def limit(self, width: int | None = None) -> Extrapolation | None:
        """The critical n/d at infinite degree, from all degrees; None if fewer than two have one.

        That of a finite waiting time: lingering grows with the degree near abar_c, so that the values of longer waits
        are higher and closer together. Trust it only where the steps from degree to degree shrink like degree^(-1/2).
        """
        found = {x.degree: x.value for x in self.thresholds if x.width == width and x.value is not None}
        return extrapolate_degree(list(found.values()), list(found)) if len(found) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PlaneResult:
        """Rebuild from :meth:`to_dict`, also after JSON.

        Raises
        ------
        TypeError, ValueError
            If a key is unknown or missing, or a setting is bad.
        """
        keys("result", data, [field.name for field in fields(cls)])
        runs = []
        for run in data["runs"]:
            curves: dict[str, Any] = {k: tuple(x) if isinstance(x, list | tuple) else x for k, x in run.items()}
            runs.append(Run(**(curves | {"regime": Regime(**run["regime"])})))
        thresholds = tuple(Threshold(**x) for x in data["thresholds"])
        return cls(
            plane=Plane(**data["plane"]), runs=tuple(runs), thresholds=thresholds, failures=tuple(data["failures"])
        )

    def to_json(self, path: str | Path) -> None:
        """Write :meth:`to_dict`, whole or not at all."""
        atomic_write(path, (json.dumps(self.to_dict(), allow_nan=False) + "\n").encode())

    @classmethod
    def from_json(cls, path: str | Path) -> PlaneResult:
        """Read what :meth:`to_json` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text()))


def _relu(degree: int) -> dmft.Activation:
    with warnings.catch_warnings():  # of infinite h''(1): several degrees are compared here
        warnings.simplefilter("ignore", UserWarning)
        return dmft.Activation.named("relu", degree=degree)


def theory_problem(
    sample_ratio: float, width: int | None, degree: int, noise_std: float
) -> dmft.SymmetricProblem | dmft.InfiniteWidthProblem:
    """Index target phi = sigma, a(0) = 1, at n/d = ``sample_ratio``; ``width`` None is infinite.

    Raises
    ------
    TypeError, ValueError
        As the problems of `dmft`.
    """
    sigma = _relu(degree)
    target = dmft.Target.same_as(sigma)
    if width is None:
        return dmft.InfiniteWidthProblem(
            sample_ratio=sample_ratio, noise_std=noise_std, a0=1.0, activation=sigma, target=target
        )
    return dmft.SymmetricProblem(
        width=width, alpha=sample_ratio / width, noise_std=noise_std, a0=1.0, activation=sigma, target=target
    )


def theory(
    sample_ratio: float, width: int | None, degree: int, *, noise_std: float, t_final: float, rtol: float
) -> dict[str, FloatArray]:
    """Curves of the theory on times equidistant in log t_mf: t, train_error, test_error, a, v.

    They end before ``t_final`` where the solver gave up.

    Raises
    ------
    TypeError, ValueError
        As the problems of `dmft`.
    """
    unit = 1.0 if width is None else sample_ratio / width
    solution = solve(theory_problem(sample_ratio, width, degree, noise_std), t_final / unit, rtol=rtol)
    end = float(solution.t[-1]) * unit
    done = solution.status is Status.DONE
    t = np.geomspace(_START, t_final, _POINTS)
    t = np.append(0.0, t if done else t[t <= end])
    curves = solution.at(np.minimum(t / unit, solution.t[-1]))
    # Interpolation past the rounding floor of e_tr may undershoot zero.
    train = np.maximum(np.asarray(curves.train_error), 0.0)
    return {"t": t, "train_error": train, "test_error": curves.test_error, "a": curves.a, "v": curves.v}


def critical_ratio(plane: Plane, width: int | None, degree: int) -> Threshold:
    """Bracket abar_c: bisection in log(n/d) on interpolation by ``threshold_time``, to 2 %.

    Parameters
    ----------
    plane : Plane
        Searched between its smallest and largest n/d; its ``threshold_time`` must be given.
    width : int or None
        None for infinite width.
    degree : int
        Truncation of relu.

    Raises
    ------
    ValueError
        If ``threshold_time`` is None.
    """
    if plane.threshold_time is None:
        raise ValueError("threshold_time must be a time for critical_ratio, not None.")
    end = plane.threshold_time
    level = INTERPOLATED * 0.5 * plane.noise_std**2

    def interpolates(ratio: float) -> bool | None:
        unit = 1.0 if width is None else ratio / width
        run = solve(theory_problem(ratio, width, degree, plane.noise_std), end / unit, rtol=plane.rtol)
        reached = bool((run.train_error < level).any())
        return reached if reached or run.status is Status.DONE else None

    bounds: list[float | None] = [None, None]
    low, high = plane.sample_ratios[0], plane.sample_ratios[-1]
    for ratio in (low, high):
        answer = interpolates(ratio)
        if answer is not None:
            bounds[0 if answer else 1] = ratio
    while bounds[0] == low and bounds[1] == high and high > (1.0 + _BRACKET) * low:
        middle = math.sqrt(low * high)
        answer = interpolates(middle)
        if answer is None:
            break
        low, high = (middle, high) if answer else (low, middle)
        bounds = [low, high]
    return Threshold(degree=degree, width=width, low=bounds[0], high=bounds[1], t_final=end)


def _work(payload: tuple[str, dict[str, Any]]) -> dict[str, FloatArray]:
    """A task of the theory, in a worker."""
    what, arguments = payload
    if what == "theory":
        return theory(**arguments)
    found = critical_ratio(Plane(**arguments["plane"]), arguments["width"], arguments["degree"])
    return {"bounds": np.array([np.nan if x is None else x for x in (found.low, found.high)])}


def run(plane: Plane, out_dir: str | Path, *, workers: int = 1, progress: Ticker | None = None) -> PlaneResult:
    """Theory, thresholds and networks of a plane; what an earlier call has finished is not run again.

    Parameters
    ----------
    plane : Plane
    out_dir : path
        Keeps finished runs in ``*.replicas`` directories, named after what they depend on: more n/d, degrees or
        replicas reuse what is there. Theory is kept for this version number of the package; remove it after changes of
        the equations.
    workers : int, optional
        Processes; numbers do not depend on it.
    progress : callable, optional
        Called with (done, total, key) after each run.

    Returns
    -------
    PlaneResult

    Raises
    ------
    TypeError, ValueError, OSError
        As `dmft.simulate`.
    KeyboardInterrupt
        When interrupted; call again to go on.
    """
    directory = Path(out_dir)
    directory.mkdir(parents=True, exist_ok=True)
    cases = list(itertools.product(plane.sample_ratios, (plane.width, None), plane.degrees))
    common: dict[str, Any] = {"noise_std": plane.noise_std, "t_final": plane.t_final, "rtol": plane.rtol}
    tasks: dict[str, tuple[str, dict[str, Any]]] = {
        f"theory-{ratio!r}-m{width or 'inf'}-k{degree}": (
            "theory",
            {"sample_ratio": ratio, "width": width, "degree": degree} | common,
        )
        for ratio, width, degree in cases
    }
    pairs = list(itertools.product((plane.width, None), plane.degrees)) if plane.threshold_time is not None else []
    ends = tuple(dict.fromkeys((plane.sample_ratios[0], plane.sample_ratios[-1])))
    # Only what the bisection depends on, so that the store outlives changes of the rest.
    search: dict[str, Any] = {"sample_ratios": ends, "noise_std": plane.noise_std, "rtol": plane.rtol}
    search["threshold_time"] = plane.threshold_time
    for width, degree in pairs:
        tasks[f"critical-m{width or 'inf'}-k{degree}"] = (
            "critical",
            {"plane": search, "width": width, "degree": degree},
        )
    total = len(tasks) + len(plane.sample_ratios) * plane.replicas
    outcome = _theories(tasks, _digest([dmft.__version__, _POINTS, _START, common, search]), directory, workers,
                        _shifted(progress, 0, total))  # fmt: skip
    runs, failures = [], list(outcome.failures.values())
    for (ratio, width, degree), key in zip(cases, tasks, strict=False):
        if key in outcome.results:
            curves = outcome.results[key]
            runs.append(_run("theory", ratio, width, degree, None, curves, plane))
    thresholds = []
    for width, degree in pairs:
        key = f"critical-m{width or 'inf'}-k{degree}"
        if key in outcome.results:
            low, high = (None if np.isnan(x) else float(x) for x in outcome.results[key]["bounds"])
            thresholds.append(
                Threshold(degree=degree, width=width, low=low, high=high, t_final=float(plane.threshold_time or 0.0))
            )
    done = len(tasks)
    for ratio in plane.sample_ratios:
        try:
            runs += _networks(plane, ratio, directory, workers, _shifted(progress, done, total), failures)
        except simulations.SimulationError as error:
            failures.append(f"n/d = {ratio:g}: {error}")
        done += plane.replicas
    return PlaneResult(plane=plane, runs=tuple(runs), thresholds=tuple(thresholds), failures=tuple(failures))


def _shifted(progress: Ticker | None, before: int, total: int) -> Ticker | None:
    return None if progress is None else lambda done, _, key: progress(before + done, total, key)


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def _theories(
    tasks: Mapping[str, tuple[str, dict[str, Any]]], digest: str, directory: Path, workers: int, tick: Ticker | None
) -> replicas.Outcome:
    store = directory / f"theory-{digest}.replicas"
    outcome = replicas.run(
        _work,
        [replicas.Task(key, payload) for key, payload in tasks.items()],
        workers=workers,
        store=store,
        resume=store.exists(),
        fingerprint=digest,
        progress=tick,
    )
    if outcome.interrupted:
        raise KeyboardInterrupt(f"interrupted; finished runs are kept in {store}.")
    return outcome


def _networks(
    plane: Plane, ratio: float, directory: Path, workers: int, tick: Ticker | None, failures: list[str]
) -> list[Run]:
    """True networks at one n/d."""
    problem = theory_problem(ratio, plane.width, _SERIES, plane.noise_std)
    assert isinstance(problem, dmft.SymmetricProblem)
    step = plane.learning_rate / plane.width
    settings: dict[str, Any] = {
        "t_final": plane.t_final / problem.alpha,
        "model": "network",
        "optimizer": "gd",
        "learning_rate": plane.learning_rate,
        "seed": plane.seed,
    }
    times = np.append(0.0, np.geomspace(step, plane.t_final, plane.records)) / problem.alpha
    # The fingerprint of simulate would refuse a directory of other settings: each has its own.
    tag = _digest([dynamics.REVISION, settings, plane.width, plane.dimension, plane.noise_std, plane.records])
    store = directory / f"network-{ratio!r}-{tag}.replicas"
    found = dmft.simulate(
        problem,
        plane.dimension,
        replicas=plane.replicas,
        times=times,
        workers=workers,
        checkpoint=store,
        resume=True,
        progress=tick,
        **settings,
    )
    if found.status is Status.INTERRUPTED:
        raise KeyboardInterrupt(f"interrupted; finished replicas are kept in {store}.")
    if found.status is not Status.DONE:
        failures.append(f"n/d = {ratio:g}: {found.message}")
    names = ("train_error", "test_error", "a", "v")
    return [
        _run(
            "network",
            ratio,
            plane.width,
            None,
            int(replica),
            {"t": found.t * problem.alpha} | {name: found.sample(name).values[place] for name in names},
            plane,
        )
        for place, replica in enumerate(found.replica_index)
    ]


def _run(
    kind: str,
    ratio: float,
    width: int | None,
    degree: int | None,
    replica: int | None,
    curves: Mapping[str, FloatArray],
    plane: Plane,
) -> Run:
    # A network stops at a whole number of updates, which may be the last one before t_final.
    end = plane.t_final - (plane.learning_rate / plane.width if kind == "network" else 0.0)
    regime = classify(curves["t"], curves["train_error"], curves["test_error"], plane.noise_std, t_final=end)
    short = {
        name: tuple(float(f"{x:.6g}") for x in curves[name]) for name in ("t", "train_error", "test_error", "a", "v")
    }
    return Run(kind=kind, sample_ratio=ratio, width=width, degree=degree, replica=replica, regime=regime, **short)


_EVENT_STYLE = {
    "minimum": ("#FFFFFF", "o", "test error smallest"),
    "rise": ("#E69F00", "^", "test error risen by 5 %"),
    "interpolation": ("#D55E00", "*", r"train error below $10^{-2}\,\tau^2/2$"),
}
_DASHES = ((0, (1, 1.2)), (0, (4, 1.5)), "solid")
"""Of the truncation degrees, the highest solid."""


def plot(result: PlaneResult, path: str | Path) -> None:
    """Train error over the plane of n/d and t_mf: theory at width m, theory at infinite width, networks.

    Colour is e_tr over tau^2/2 (highest degree; mean of the replicas), lines are the event times of the theory at each
    degree, symbols those of each replica. In the networks' panel the lines are those of the highest degree at width m.
    The hatched band holds the critical ratios of all degrees at that width.

    Raises
    ------
    ValueError
        If the result has no theory or no networks, or the suffix of the path is not one that matplotlib writes.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from dmft.plots import _STYLE

    plane, top = result.plane, result.plane.degrees[-1]
    if not result.select("theory") or not result.select("network"):
        raise ValueError("result must hold theory and networks to be drawn.")
    panels = (
        (
            f"(a) theory, $m$ = {plane.width}",
            result.select("theory", width=plane.width, degree=top),
            plane.width,
            plane.degrees,
        ),
        (r"(b) theory, $m = \infty$", result.select("theory", width=None, degree=top), None, plane.degrees),
        (f"(c) networks, $m$ = {plane.width}, $d$ = {plane.dimension}", result.select("network"), plane.width, (top,)),
    )
    with rc_context(_STYLE | {"axes.spines.top": True, "axes.spines.right": True}):
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        axes = figure.subplots(1, 3, sharex=True, sharey=True)
        for axis, (title, shown_runs, width, degrees) in zip(axes, panels, strict=True):
            mesh = _map(axis, shown_runs, plane)
            _lines(axis, result, width, degrees)
            if shown_runs and shown_runs[0].kind == "network":
                _symbols(axis, shown_runs)
            bounds = [x for y in result.thresholds if y.width == width and y.value for x in (y.low, y.high) if x]
            if bounds:
                axis.axvspan(min(bounds), max(bounds), facecolor="none", edgecolor="black", hatch="////", lw=0.0)
            axis.set_title(title, loc="left", fontsize=9)
            axis.set_xlabel("samples per dimension $n/d$")
        axes[0].set_ylabel(r"training time $t_{\mathrm{mf}} = \alpha t$")
        bar = figure.colorbar(mesh, ax=axes, extend="both", pad=0.01, aspect=30)
        bar.set_label(r"train error over $\tau^2/2$")
        handles: list[Any] = [
            Line2D([], [], color=color, marker=marker, mec="black", mew=0.6, ms=6 if marker != "*" else 9, label=words)
            for color, marker, words in _EVENT_STYLE.values()
        ]
        handles += [
            Line2D([], [], color="#444444", ls=dash, label=f"theory, degree {degree}")
            for degree, dash in zip(plane.degrees[::-1], _DASHES[::-1], strict=False)
        ]
        if any(y.value for y in result.thresholds):
            waited = f"t_{{\\mathrm{{mf}}}} = 10^{{{math.log10(plane.threshold_time or 1.0):.3g}}}"
            label = rf"$\bar\alpha_c$ of all degrees, by ${waited}$"
            handles.append(Patch(facecolor="none", edgecolor="black", hatch="////", lw=0.0, label=label))
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=True)
        legend.get_frame().set(facecolor="#BBBBBB", edgecolor="none")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=Path(path).suffix.lstrip("."), dpi=200)


def _map(axis: Axes, runs: Sequence[Run], plane: Plane) -> Any:
    """Train error of the runs, averaged over the replicas of each n/d, on the times of the first of them."""
    from matplotlib.colors import LogNorm

    ratios = sorted({run.sample_ratio for run in runs})
    t = np.geomspace(max(_START, plane.learning_rate / plane.width), plane.t_final, _POINTS)
    columns = []
    for ratio in ratios:
        mine = [np.interp(np.log(t), np.log(r.t[1:]), r.train_error[1:], right=np.nan) for r in runs
                if r.sample_ratio == ratio]  # fmt: skip
        columns.append(np.mean(mine, axis=0) / (0.5 * plane.noise_std**2))
    x = np.array(ratios)
    half = np.sqrt(x[1:] / x[:-1]) if len(x) > 1 else np.array([math.sqrt(2.0)])
    edges = np.concatenate([[x[0] / half[0]], x[:-1] * half if len(x) > 1 else [], [x[-1] * half[-1]]])
    steps = np.sqrt(t[1] / t[0])
    values = np.maximum(np.array(columns).T, 1e-12)
    mesh = axis.pcolormesh(
        edges,
        np.append(t / steps, t[-1] * steps),
        values,
        norm=LogNorm(INTERPOLATED, 10.0),
        cmap="viridis",
        rasterized=True,
    )
    axis.set(xscale="log", yscale="log", xlim=(edges[0], edges[-1]), ylim=(t[0], t[-1]))
    axis.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    axis.minorticks_off()
    return mesh


def _lines(axis: Axes, result: PlaneResult, width: int | None, degrees: Sequence[int]) -> None:
    from matplotlib import patheffects

    edge = [patheffects.Stroke(linewidth=2.4, foreground="black"), patheffects.Normal()]
    dashes = dict(zip(result.plane.degrees[::-1], itertools.chain(_DASHES[::-1], itertools.repeat(":")), strict=False))
    for event, (color, _, _) in _EVENT_STYLE.items():
        for degree in degrees:
            runs = result.select("theory", width=width, degree=degree)
            y = [np.nan if (x := getattr(run.regime, event)) is None else x for run in runs]
            outline = edge if degree == degrees[-1] else None
            axis.plot([r.sample_ratio for r in runs], y, color=color, ls=dashes[degree], lw=1.3, path_effects=outline)


def _symbols(axis: Axes, runs: Sequence[Run]) -> None:
    for event, (color, marker, _) in _EVENT_STYLE.items():
        found = [(r.sample_ratio, getattr(r.regime, event)) for r in runs if getattr(r.regime, event) is not None]
        if found:
            x, y = zip(*found, strict=True)
            size = 60 if marker == "*" else 22
            axis.scatter(x, y, s=size, marker=marker, color=color, edgecolors="black", linewidths=0.6, zorder=4)
