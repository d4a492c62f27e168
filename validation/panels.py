"""Families of runs for the figures of a configuration: solving them, their limits, and what is read off them.

`solve` finds the theory of every member of a sweep and the limits that the panels ask for; finished files are reused
(`validation.experiment.theory`), so that an interrupted figure goes on where it stopped. `quantity` and `point` give
what a panel shows, `numbers` what can be compared with a statement of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from dmft import config as configuration
from dmft.config import Config
from dmft.figure import FigureOptions, LimitOptions, PanelOptions
from dmft.limits.linear_fit import LinearFit
from dmft.problems import InfiniteWidthProblem, SymmetricProblem
from dmft.solution import Curves, Solution
from validation import experiment
from validation.thresholds import Threshold, interpolation_threshold
from validation.thresholds.search import SearchError

FloatArray = NDArray[np.float64]

RELAXED = 1e-7
"""Train error over tau^2 at which a run counts as relaxed, as in [MU]'s relaxation times."""
INTERPOLATED = 1e-3
"""Train error over its first value below which a run has begun to interpolate for good."""
NEAR = 0.3
"""Relative distance from a threshold up to which relaxation times are compared with a power law."""
START, LONG = 0.1, 1e3
"""First gamma of the curve of relaxed errors at fixed gamma, and the time over m for gamma to reach its end."""


class PanelError(ValueError):
    """A panel that asks for what its problems do not have; the message says what."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A member of a family, solved.

    Attributes
    ----------
    config : Config
    solution : Solution
    label : str
        What distinguishes it, for a legend.
    place : float
        Place in the order of the parameter that it is named after, 0 to 1.
    """

    config: Config
    solution: Solution
    label: str
    place: float

    @property
    def complete(self) -> bool:
        """Whether it reached the end of its time."""
        return self.solution.status.ok


@dataclass(frozen=True, kw_only=True)
class Family:
    """Everything that a figure is made of.

    Attributes
    ----------
    name : str
    options : FigureOptions
    members : tuple of Run
    limits : dict
        Solutions by key of the limit and number of the member that it belongs to.
    thresholds : dict
        Interpolation thresholds by what is varied ("n/d" or "gamma") and number of the member that the other parameters
        are those of.
    missing : dict
        The same for those that were not found: why.
    """

    name: str
    options: FigureOptions
    members: tuple[Run, ...]
    limits: dict[tuple[str, int], Solution]
    thresholds: dict[tuple[str, int], Threshold]
    missing: dict[tuple[str, int], str]

    def edge(self, against: str) -> float | None:
        """Threshold in n/d, or in alpha at the members' gamma_0, where gamma*(alpha) = gamma_0; None if unknown."""
        if against == "n/d":
            found = self.thresholds.get(("n/d", 0))
            return None if found is None else float(found.value)
        pairs = sorted(
            (float(threshold.value), parameter(self.members[place].config.problem, "alpha"))
            for (varied, place), threshold in self.thresholds.items()
            if varied == "gamma"
        )
        gamma0 = getattr(self.members[0].config.problem, "gamma0", None)
        if against != "alpha" or gamma0 is None or len(pairs) < 3 or not pairs[0][0] < abs(gamma0) < pairs[-1][0]:
            return None
        gammas, alphas = np.array(pairs).T
        return float(PchipInterpolator(gammas, alphas)(abs(gamma0)))

    @property
    def sound(self) -> bool:
        """Whether every run ended, or at least got to where nothing is left to happen."""
        fraction = self.options.tolerate
        runs = all(
            run.complete or run.solution.train_error[-1] < fraction * run.solution.train_error[0]
            for run in self.members
        )
        return runs and all(solution.status.ok for solution in self.limits.values()) and not self.missing


def solve(
    config: Config,
    members: list[Config],
    directory: Path,
    *,
    workers: int = 1,
    tell: Callable[[str], None] = print,
) -> Family:
    """Solve all members and limits of a figure, or read them.

    Parameters
    ----------
    config : Config
        With a ``[figure]``.
    members : list of Config
        What `dmft.config.read_members` gives of it.
    directory : path
        Where the files are; must exist.
    workers : int
        Processes in the search for thresholds.
    tell : callable
        Called with a line for each run.

    Raises
    ------
    PanelError
        For problems whose neurons differ, or that have no such limit.
    KeyboardInterrupt
        When interrupted; what is finished is kept.
    """
    options = config.figure
    assert options is not None
    for member in members:
        _check(member)
    wanted = _limits_wanted(options, members)
    planned = {
        (key, place): _limit_config(members[place], limit, last) for (key, place), (limit, last) in wanted.items()
    }
    solutions = [_run(member, directory, tell) for member in members]
    labels, places = _names([member.problem for member in members])
    runs = tuple(
        Run(config=member, solution=solution, label=label, place=place)
        for member, solution, label, place in zip(members, solutions, labels, places, strict=True)
    )
    limits = {key: _run(one, directory, tell) for key, one in planned.items()}
    thresholds, missing = {}, {}
    for key in _thresholds_wanted(options, members):
        varied, one = key[0], members[key[1]]
        try:
            thresholds[key] = _threshold(one, varied, directory / f"{config.name}.thresholds", workers)
            tell(f"   {one.name}: threshold {varied} = {thresholds[key].value:.5g}")
        except SearchError as error:
            missing[key] = str(error)
            tell(f"   {one.name}: no threshold in {varied}: {error}")
    return Family(
        name=config.name, options=options, members=runs, limits=limits, thresholds=thresholds, missing=missing
    )


def _check(member: Config) -> None:
    problem = member.problem
    if not isinstance(problem, SymmetricProblem | InfiniteWidthProblem) or not problem.exchangeable:
        raise PanelError(f"{member.name}: a [figure] shows networks of equal neurons, not a {problem.kind} problem.")
    if problem.formulation().latent_dimension > 1:
        raise PanelError(f"{member.name}: a [figure] shows one latent direction, and the target has several.")


def _run(member: Config, directory: Path, tell: Callable[[str], None]) -> Solution:
    solution = experiment.theory(member, directory / f"{member.name}.h5")
    end = "" if solution.status.ok else f"; {solution.message}"
    tell(f"   {member.name}: {solution.stats.wall_time:.1f} s, t = {float(solution.t[-1]):.4g}{end}")
    return solution


# ------------------------------------------------------------------------------------------------- thresholds


def _thresholds_wanted(options: FigureOptions, members: list[Config]) -> list[tuple[str, int]]:
    """What is varied, and the member that the other parameters are those of."""
    wanted = []
    for panel in options.panels:
        if panel.curve[0] == "relaxation time" and panel.against == "n/d":
            wanted.append(("n/d", 0))
        if panel.curve[0] == "threshold gamma":
            wanted += [("gamma", place) for place in range(len(members))]
    return list(dict.fromkeys(wanted))


def _threshold(member: Config, varied: str, directory: Path, workers: int) -> Threshold:
    """Threshold of m -> infinity with the parameters of a member; finished runs are kept in the directory."""
    problem: Any = member.problem
    if varied == "n/d":
        if problem.a0 is None:
            raise PanelError(f"{member.name}: the threshold in n/d is that of a fixed second layer a0.")
        given: dict[str, Any] = {"a0": abs(float(problem.a0))}
    else:
        given = {"alpha": float(problem.alpha)}
    return interpolation_threshold(
        problem.activation,
        target=problem.target,
        noise_std=problem.noise_std,
        workers=workers,
        checkpoint=directory,
        **given,
    )


# ------------------------------------------------------------------------------------------------- limits


def representatives(limit: LimitOptions, members: Iterable[Config]) -> list[int]:
    """Members whose limit is drawn: of those that have the same one, the widest."""
    best: dict[str, tuple[int, int]] = {}
    for place, member in enumerate(members):
        key = _shared(limit, member)
        width = member.problem.formulation().width
        if key not in best or width > best[key][0]:
            best[key] = (width, place)
    return [place for _, place in best.values()]


def _shared(limit: LimitOptions, member: Config) -> str:
    """What members that have a limit in common agree in."""
    data = member.problem.to_dict()
    width = data.pop("width", None)
    if limit.name == "infinite_width" and width is not None:
        data["sample_ratio"] = float(f"{data.pop('alpha') * width:.10g}")
    return repr(sorted(data.items(), key=lambda item: item[0]))


def _limits_wanted(options: FigureOptions, members: list[Config]) -> dict[tuple[str, int], tuple[LimitOptions, float]]:
    """Limits by key and member, each with the time that the panels need it for."""
    wanted: dict[tuple[str, int], tuple[LimitOptions, float]] = {}
    for panel in options.panels:
        more = [panel.minus] if panel.minus else []
        if "threshold" in panel.levels:
            more.append(LimitOptions(name="fixed_gamma", options={}))
        for limit in (*panel.limit, *more):
            for place in representatives(limit, members):
                last = _last_time(panel, members[place])
                _, before = wanted.get((limit.key, place), (limit, 0.0))
                wanted[limit.key, place] = (limit, max(last, before))
    return wanted


def _last_time(panel: PanelOptions, member: Config) -> float:
    """Time at which a panel ends, within the run."""
    end = member.solve.t_final
    if panel.window is None or panel.against == "gamma":
        return end
    unit = _unit(member.problem, panel.against)
    return min(end, panel.window[1] / unit)


def _unit(problem: Any, against: str) -> float:
    """What t is multiplied by."""
    if isinstance(problem, InfiniteWidthProblem):
        return 1.0
    form = problem.formulation()
    m = float(form.width)
    return {"m t": m, "t": 1.0, "t/sqrt(m)": 1.0 / math.sqrt(m), "t/m": 1.0 / m, "alpha t": form.alpha}[against]


def _limit_config(member: Config, limit: LimitOptions, last: float) -> Config:
    """The configuration of a limit of a member."""
    problem = member.problem
    settings = [f"solve.t_final={last!r}"]
    if limit.name == "infinite_width":
        if not isinstance(problem, SymmetricProblem) or problem.gamma0 is not None:
            raise PanelError(f"{member.name}: the limit 'infinite_width' needs a symmetric problem with a0.")
        ratio = problem.alpha * problem.width
        settings = [f"solve.t_final={last * problem.alpha!r}", "model.kind=infinite_width", "model.width="]
        settings += ["model.alpha=", f"model.sample_ratio={ratio!r}"]
    elif limit.name == "fixed_gamma":
        start = limit.options.get("start", START)
        m = problem.formulation().width
        settings = [f"solve.t_final={LONG * m!r}", "model.a0=", f"model.gamma0={start!r}", "model.limit=adiabatic"]
        settings += ["model.train_second_layer=true"]
    else:
        settings += [f"model.limit={limit.name}", *(f"model.{key}={value!r}" for key, value in limit.options.items())]
    try:
        return configuration.parse(member.text, settings, name=f"{member.name}-{limit.key}")
    except (TypeError, ValueError) as error:
        raise PanelError(f"{member.name}: {error}") from None


# ------------------------------------------------------------------------------------------------- names

_PARAMETERS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("$h(q)$", lambda problem: tuple(np.asarray(problem.activation.covariance).tolist())),
    ("$m$", lambda problem: getattr(problem, "width", None) if isinstance(problem, SymmetricProblem) else None),
    # Lazy thresholds are values of alpha, all others of n/d.
    ("$n/d$", lambda problem: None if getattr(problem, "gamma0", None) is not None else sample_ratio(problem)),
    (r"$\alpha$", lambda problem: getattr(problem, "alpha", None)),
    (r"$\tau$", lambda problem: problem.noise_std),
    (r"$\gamma_0$", lambda problem: getattr(problem, "gamma0", None)),
    ("$a(0)$", lambda problem: problem.a0),
)
"""Parameters that a family may be named after, in this order."""


def sample_ratio(problem: Any) -> float:
    """n/d, to ten digits: alpha m need not give it to the last one."""
    value = problem.sample_ratio if isinstance(problem, InfiniteWidthProblem) else problem.alpha * problem.width
    return float(f"{value:.10g}")


def _names(problems: list[Any]) -> tuple[list[str], list[float]]:
    """Labels, and places 0 to 1 in the order of what the labels name."""
    for symbol, value in _PARAMETERS:
        values = [value(problem) for problem in problems]
        distinct = list(dict.fromkeys(values))
        if len(distinct) > 1 and None not in distinct:
            if not isinstance(distinct[0], tuple):
                distinct.sort()
            places = [distinct.index(one) / (len(distinct) - 1) for one in values]
            return [_label(symbol, one) for one in values], places
    return ["theory"] * len(problems), [0.0] * len(problems)


def _label(symbol: str, value: Any) -> str:
    if not isinstance(value, tuple):
        return f"{symbol} = {value:.6g}"
    terms = []
    for power, coefficient in enumerate(value):
        if coefficient:
            inverse = round(1.0 / coefficient)
            fraction = inverse > 2 and abs(inverse * coefficient - 1.0) < 1e-9 and inverse != 10
            monomial = "q" if power == 1 else f"q^{power}"
            terms.append(f"{monomial}/{inverse}" if fraction else f"{coefficient:g}\\,{monomial}")
    return f"$h = {' + '.join(terms)}$"


# ------------------------------------------------------------------------------------------------- what is shown


def quantity(solution: Solution | Curves, name: str) -> FloatArray:
    """One of `dmft.figure.CURVES` at the times of a solution, (N,).

    Raises
    ------
    PanelError
        When the solution does not have it.
    """
    form = solution.formulation
    root = math.sqrt(form.width)
    scaled = ("gamma", "sqrt(m) v", "m C_o", "sqrt(m) da/dt")
    if form.infinite_width and name in scaled:
        raise PanelError(f"{name!r} of an infinitely wide network is infinite or unknown.")
    if name == "gap":
        return solution.test_error - solution.train_error
    if name == "a v":
        return solution.a * solution.v
    if name == "sqrt(m) v":
        return root * solution.v
    if name == "sqrt(m) da/dt":
        return np.asarray(root * np.gradient(solution.a, solution.t), dtype=np.float64)
    if name == "m C_o":
        if not isinstance(solution, Solution) or not solution.has_two_time:
            raise PanelError("'m C_o' needs two-time functions, and this limit has none.")
        t = solution.two_time.t
        values = form.width * solution.correlation(t, t, mode="o")
        return np.asarray(np.interp(solution.t, t, values), dtype=np.float64)
    return np.asarray(getattr(solution, name), dtype=np.float64)


def variable(solution: Solution, against: str) -> FloatArray:
    """One of `dmft.figure.TIMES` along a solution, (N,)."""
    if against == "gamma":
        return quantity(solution, "gamma")
    problem = getattr(solution.problem, "problem", solution.problem)  # a limit has the time of its problem
    return solution.t * _unit(problem, against)


def difference(solution: Solution, limit: Solution, name: str) -> tuple[FloatArray, FloatArray]:
    """Times at which both are known, and m times the difference of a curve from its limit."""
    shown = solution.t <= limit.t[-1] * (1.0 + 1e-12)
    at = np.minimum(solution.t[shown], limit.t[-1])
    return solution.t[shown], solution.formulation.width * (
        quantity(solution, name)[shown] - quantity(limit.at(at), name)
    )


def linear_fit(problem: Any, gamma: float) -> float:
    """e_lin(gamma) = [tau^2 + |phi|^2 - |g(0)|^2/h'(0) + gamma^2 ht(1)]/2, [MU] (2.7)."""
    return float(LinearFit.of(problem.activation, problem.target, problem.noise_std).test_error(gamma))


def level(problem: Any, name: str) -> float:
    """One of `dmft.figure.LEVELS`.

    Raises
    ------
    PanelError
        When the problem has no such value.
    """
    form = problem.formulation()
    tau, alpha = problem.noise_std, form.alpha
    if name == "noise":
        return float(0.5 * tau**2)
    if name == "one":
        return 1.0
    if name == "linear_fit":
        return linear_fit(problem, float(form.a0[0]) / math.sqrt(form.width))
    if name == "overlap":
        return float(tau**2 / (alpha * form.a0[0] ** 2 * form.covariance[1]) - 1.0)
    powers = [k for k in range(2, len(form.covariance)) if form.covariance[k] > 0.0]
    if len(powers) != 1:
        raise PanelError("level 'growth' is known for h = c_1 q + c_k q^k only.")
    k = powers[0]
    return float(tau * math.sqrt(alpha) * 2.0 * math.sqrt(form.covariance[k] * (k - 1) / k))


def interpolates(solution: Solution) -> bool:
    """Whether the train error goes to zero by the end of a run."""
    return bool(solution.train_error[-1] < INTERPOLATED * solution.train_error[0])


def point(solution: Solution, name: str) -> float | None:
    """One of `dmft.figure.POINTS`, or None where a run does not have it."""
    if name == "relaxation time":
        tau = getattr(solution.problem, "noise_std", 0.0)
        below = np.flatnonzero(solution.train_error < RELAXED * tau**2)
        if not len(below) or below[0] == 0:
            return None
        rows = slice(int(below[0]) - 1, int(below[0]) + 1)
        fall = np.log(np.maximum(solution.train_error[rows], 1e-300))
        share = (math.log(RELAXED * tau**2) - fall[0]) / (fall[1] - fall[0])
        return float(solution.t[rows][0] + share * np.diff(solution.t[rows])[0])
    if name == "test_error - linear_fit":
        return abs(float(solution.test_error[-1]) - linear_fit(solution.problem, float(solution.gamma[-1])))
    return float(quantity(solution, name.removeprefix("final "))[-1])


def parameter(problem: Any, name: str) -> float:
    """One of `dmft.figure.PARAMETERS`."""
    if name == "n/d":
        return sample_ratio(problem)
    return float({"m": problem.formulation().width, "alpha": problem.formulation().alpha}[name])


# ------------------------------------------------------------------------------------------------- numbers


def record(family: Family) -> dict[str, Any]:
    """What came out, for a file: every member, every limit, and the numbers beside what the paper states."""
    members = []
    for run in family.members:
        solution, best = run.solution, run.solution.minimum()
        entry: dict[str, Any] = {
            "name": run.config.name,
            "n/d": sample_ratio(run.config.problem),
            "rtol": solution.rtol,
            "status": solution.status.value if hasattr(solution.status, "value") else str(solution.status),
            "t_final": _short(solution.t[-1]),
            "train_error": _short(solution.train_error[-1]),
            "test_error": _short(solution.test_error[-1]),
            "a": _short(solution.a[-1]),
            "v": _short(solution.v[-1]),
            "smallest_test_error": _short(best.value) if best.found_interior else None,
            "at_t": _short(best.time) if best.found_interior else None,
            "interpolates": interpolates(solution),
            "relaxation_time": _short(point(solution, "relaxation time")),
            "seconds": round(solution.stats.wall_time, 2),
        }
        if not solution.formulation.infinite_width:
            entry["m"] = solution.formulation.width
        members.append(entry)
    return {
        "figure": family.name,
        "paper": list(family.options.paper),
        "sound": family.sound,
        "seconds": round(
            sum(s.stats.wall_time for s in (*(run.solution for run in family.members), *family.limits.values())), 1
        ),
        "numbers": [
            {"name": one.name, "stated": one.stated, "found": numbers(family, one.name)}
            for one in family.options.numbers
        ],
        "missing": {
            f"{varied}, {family.members[place].config.name}": why for (varied, place), why in family.missing.items()
        },
        "limits": {
            f"{key}, {family.members[place].config.name}": s.message for (key, place), s in family.limits.items()
        },
        "members": members,
    }


def _short(value: Any) -> float | None:
    return None if value is None else float(f"{float(value):.5g}")


def numbers(family: Family, name: str) -> dict[str, Any]:
    """One of `dmft.figure.NUMBERS`: what it is read off, and its values.

    "a v", "gamma_inf": at the end of the runs that interpolate. "growth": the largest sqrt(m) da/dt. "plateau": final
    test error, with e_lin(gamma_0). "exponent": local power of m of |e_ts - e_lin| between the two largest widths.
    "threshold": `dmft.interpolation_threshold` of what is varied, with the range of its error. "nu": power law of the
    relaxation times near it.
    """
    runs = family.members
    done = [run for run in runs if interpolates(run.solution)]
    if name in ("a v", "gamma_inf"):
        quantity_name = {"a v": "final a v", "gamma_inf": "final gamma"}[name]
        found = {run.label: _short(point(run.solution, quantity_name)) for run in done}
        if name == "gamma_inf":
            for (key, _), limit in family.limits.items():
                if key.startswith("fixed_gamma"):
                    found["threshold gamma*"] = _short(limit.gamma[-1])
        return found
    if name == "growth":
        # Before t = sqrt(m) the fast relaxation of t = O(1) is in the derivative.
        rates = {}
        for run in runs:
            t, rate = run.solution.t, quantity(run.solution, "sqrt(m) da/dt")
            rates[run.label] = _short(rate[t > math.sqrt(run.solution.formulation.width)].max())
        return rates | {"m to infinity": _short(level(runs[0].config.problem, "growth"))}
    if name == "plateau":
        return {run.label: _short(run.solution.test_error[-1]) for run in runs} | {
            "e_lin": _short(level(runs[-1].config.problem, "linear_fit"))
        }
    if name == "exponent":
        return {label: _short(slope) for label, slope in _local_exponents(runs).items()}
    if name == "nu":
        fits = {against: relaxation_law(family, against) for against in ("n/d", "alpha")}
        return {f"{key} to {fit['threshold']:.4g}": _short(fit["nu"]) for key, fit in fits.items() if fit is not None}
    return {
        f"gamma at {runs[place].label}" if varied == "gamma" else varied: [_short(x) for x in (t.value, t.low, t.high)]
        for (varied, place), t in family.thresholds.items()
    }


def _local_exponents(runs: tuple[Run, ...]) -> dict[str, float]:
    """Power of m between the two largest widths, for every label."""
    result = {}
    for label in dict.fromkeys(run.label for run in runs):
        own = sorted((run for run in runs if run.label == label), key=lambda run: run.solution.formulation.width)[-2:]
        if len(own) < 2:
            continue
        low, high = ((run.solution.formulation.width, point(run.solution, "test_error - linear_fit")) for run in own)
        if low[1] and high[1]:
            result[label] = math.log(high[1] / low[1]) / math.log(high[0] / low[0])
    return result


def relaxation_law(family: Family, against: str) -> dict[str, float] | None:
    """Straight line of ln t_rel against ln(x* - x), x* the threshold in ``against``; None with fewer than three runs.

    Runs with x beyond `NEAR` are left out. The exponent is an effective one: it still drifts at these distances.
    """
    end = family.edge(against)
    if end is None:
        return None
    pairs = [(parameter(run.config.problem, against), point(run.solution, "relaxation time")) for run in family.members]
    near = np.array([(end - x, t) for x, t in pairs if t is not None and 0.0 < end - x < NEAR * end], dtype=np.float64)
    if len(near) < 3:
        return None
    slope, height = np.polyfit(np.log(near[:, 0]), np.log(near[:, 1]), 1)
    return {"threshold": end, "nu": -float(slope), "c": math.exp(float(height)), "points": float(len(near))}
