"""What may be compared as a family: runs of one problem at several widths, and nothing else that differs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmft._validate import shown
from dmft.limits import Limit
from dmft.problems import Problem
from dmft.simulation import Simulation
from dmft.solution import Solution
from validation.scales.traces import series_name

FloatArray = NDArray[np.float64]

_CLOSE = 1e-9
INFINITE = "infinite_width"
"""Kind of the problem of infinite width, whose time is t_mf already."""


@dataclass(frozen=True)
class Family:
    """Runs of one problem.

    Attributes
    ----------
    series : dict of str to list of runs
        Runs of finite width by how they were made, at increasing widths.
    infinite : Solution or None
        The run of infinite width.
    fixed : {"alpha", "abar"}
        What is the same at all widths: n/(m d), or n/d.
    ratio : float
        Its value.
    lazy : bool
        Whether a(0) is of order sqrt(m): gamma0 is what is the same, or what was given for a single width.
    noise_std : float
        tau.
    """

    series: dict[str, list[Solution | Simulation]]
    infinite: Solution | None
    fixed: str
    ratio: float
    lazy: bool
    noise_std: float

    def unit(self, run: Solution | Simulation) -> float:
        """Factor from the run's time to that of the report: t_mf = alpha t at fixed n/d."""
        if self.fixed == "alpha" or run.formulation.infinite_width:
            return 1.0
        return float(run.formulation.alpha)


def family_of(runs: Any) -> Family:
    """Check runs and sort them.

    Raises
    ------
    TypeError
        For what is no run of a network.
    ValueError
        For an empty list, and for runs that differ in more than the width, naming the parameter.
    """
    listed = _listed(runs)
    kinship = check_problems([run.problem for run in listed])
    infinite = [run for run in listed if run.problem.kind == INFINITE and isinstance(run, Solution)]
    series: dict[str, list[Solution | Simulation]] = {
        series_name(run): [] for run in listed if run.problem.kind != INFINITE
    }
    for run in sorted(listed, key=lambda run: run.formulation.width):
        if run.problem.kind == INFINITE:
            continue
        group = series[series_name(run)]
        if group and group[-1].formulation.width == run.formulation.width:
            raise ValueError(
                f"runs hold two of width {run.formulation.width} ({series_name(run)}); give each width once."
            )
        group.append(run)
    return Family(series=series, infinite=infinite[0] if infinite else None, **asdict(kinship))


@dataclass(frozen=True)
class Kinship:
    """What the problems of a family share; attributes as in `Family`."""

    fixed: str
    ratio: float
    lazy: bool
    noise_std: float


def check_problems(problems: list[Problem]) -> Kinship:
    """Check that problems differ in width only.

    Raises
    ------
    TypeError
        For a model without errors.
    ValueError
        Naming the parameter that differs.
    """
    # A limit is a problem in its own right; what has to be shared is that of the problem it belongs to.
    problems = [problem.problem if isinstance(problem, Limit) else problem for problem in problems]
    for problem in problems:
        if not problem.formulation().residual_sector:
            raise TypeError(f"runs must be of networks, which have errors; a {problem.kind} model has none.")
    finite = [problem for problem in problems if problem.kind != INFINITE]
    infinite = [problem for problem in problems if problem.kind == INFINITE]
    if len(infinite) > 1:
        raise ValueError(f"runs must hold at most one of infinite width, not {len(infinite)}.")
    for problem in problems[1:]:
        _check_same_physics(problems[0], problem)
    for problem in finite[1:]:
        _check_same_groups(finite[0], problem)
    lazy = _lazy(finite, infinite)
    fixed, ratio = _fixed_ratio(finite, infinite)
    noise_std = float(problems[0].noise_std)  # type: ignore[attr-defined]  # a network
    return Kinship(fixed=fixed, ratio=ratio, lazy=lazy, noise_std=noise_std)


def _listed(runs: Any) -> list[Solution | Simulation]:
    listed = [runs] if isinstance(runs, Solution | Simulation) else runs
    if isinstance(listed, str) or not isinstance(listed, Iterable):
        raise TypeError(f"runs must be dmft.Solution or dmft.Simulation objects, not {shown(runs)}.")
    listed = list(listed)
    if not listed:
        raise ValueError("runs must hold at least one solution or simulation, not none.")
    for run in listed:
        if not isinstance(run, Solution | Simulation):
            raise TypeError(f"runs must be dmft.Solution or dmft.Simulation objects, not {shown(run)}.")
        if len(run.t) < 3:
            raise ValueError(
                f"runs must have at least 3 times, and one of width {run.formulation.width} has {len(run.t)}."
            )
        if isinstance(run, Simulation):
            names = {"train_error", "test_error", "a", "v"} - set(run.curve_names)
            if "test_error_fresh" in run.curve_names:
                names -= {"test_error"}
            if names:
                raise ValueError(f"runs must have all curves, and a simulation has no {', '.join(sorted(names))}.")
    return listed


def _differ(name: str, left: Any, right: Any) -> ValueError:
    return ValueError(f"runs of one family must differ in width only, and {name} is {shown(left)} and {shown(right)}.")


def _check_same_physics(a: Problem, b: Problem) -> None:
    """Refuse runs of another activation, target, noise or training, by the numbers that enter the theory."""
    left, right = a.formulation(), b.formulation()
    if a.kind != b.kind and INFINITE not in (a.kind, b.kind):
        raise _differ("kind", a.kind, b.kind)
    if not _same(_padded(left.covariance, right.covariance), _padded(right.covariance, left.covariance)):
        raise _differ("activation", a.activation, b.activation)  # type: ignore[attr-defined]  # networks
    same_target = (
        left.overlap_exponents.shape == right.overlap_exponents.shape
        and np.array_equal(left.overlap_exponents, right.overlap_exponents)
        and _same(left.overlap_coefficients, right.overlap_coefficients)
    )
    tau, tau_other = float(a.noise_std), float(b.noise_std)  # type: ignore[attr-defined]
    if not same_target or not math.isclose(left.offset - tau**2, right.offset - tau_other**2, abs_tol=_CLOSE):
        raise _differ("target", a.target, b.target)  # type: ignore[attr-defined]
    if not math.isclose(tau, tau_other, rel_tol=_CLOSE):
        raise _differ("noise_std", tau, tau_other)
    if left.train_second_layer != right.train_second_layer:
        raise _differ("train_second_layer", left.train_second_layer, right.train_second_layer)
    if left.groups == right.groups and not _same(left.v0, right.v0):
        raise _differ("v0", left.v0.tolist(), right.v0.tolist())


def _check_same_groups(one: Problem, other: Problem) -> None:
    """Refuse other initial data than the same groups of neurons, of sizes in proportion."""
    left, right = one.formulation(), other.formulation()
    if one.kind == "general" and left.width != right.width:
        raise ValueError(
            "runs of a general problem cannot make a family of widths, since each width has initial data of its own; "
            "use a symmetric or a grouped problem."
        )
    if left.groups != right.groups or not _same(left.sizes / left.width, right.sizes / right.width):
        raise _differ("sizes / width", (left.sizes / left.width).tolist(), (right.sizes / right.width).tolist())
    if not _same(_initial_gram(one), _initial_gram(other)):
        raise _differ("cross_gram0", _initial_gram(one).tolist(), _initial_gram(other).tolist())


def _initial_gram(problem: Problem) -> FloatArray:
    """(G, G) overlap of two different neurons at t = 0; 0 where there is no pair."""
    form = problem.formulation()
    root = np.sqrt(form.sizes.astype(np.float64))
    cross = form.correlation_s0 - np.diag(form.correlation_t0)
    return np.asarray(cross / (root[:, None] * root))


def _lazy(finite: list[Problem], infinite: list[Problem]) -> bool:
    """Whether gamma0, and not a0, is common to all; refuse neither."""
    if infinite:
        first = infinite[0].formulation()
        for problem in finite:
            if problem.formulation().groups != first.groups or not _same(problem.formulation().a0, first.a0):
                raise _differ("a0", first.a0.tolist(), problem.formulation().a0.tolist())
        return False
    forms = [problem.formulation() for problem in finite]
    if all(form.width == forms[0].width for form in forms):
        for form in forms[1:]:
            if not _same(form.a0, forms[0].a0):
                raise _differ("a0", forms[0].a0.tolist(), form.a0.tolist())
        return getattr(finite[0], "gamma0", None) is not None
    if all(_same(form.a0, forms[0].a0) for form in forms):
        return False
    gammas = [form.a0 / math.sqrt(form.width) for form in forms]
    if all(_same(gamma, gammas[0]) for gamma in gammas):
        return True
    given = [getattr(problem, "gamma0", None) for problem in finite]
    if all(value is not None for value in given):
        other = next(gamma for gamma in gammas if not _same(gamma, gammas[0]))
        raise _differ("gamma0", gammas[0].tolist(), other.tolist())
    a0 = next(form.a0 for form in forms if not _same(form.a0, forms[0].a0))
    raise _differ("a0 (and a0 / sqrt(width))", forms[0].a0.tolist(), a0.tolist())


def _fixed_ratio(finite: list[Problem], infinite: list[Problem]) -> tuple[str, float]:
    """What is the same at all widths, n/(m d) or n/d."""
    forms = [problem.formulation() for problem in finite + infinite]
    alphas = np.array([form.alpha for form in forms])
    ratios = np.array([form.alpha * form.width for form in forms])
    if infinite:
        if not _same(ratios, np.full(len(ratios), ratios[-1])):
            raise ValueError(
                f"A run of infinite width is at fixed n/d, here {ratios[-1]:.6g}, and the others have alpha * width = "
                f"{shown(ratios[:-1].tolist())}."
            )
        return "abar", float(ratios[-1])
    if _same(alphas, np.full(len(alphas), alphas[0])):
        return "alpha", float(alphas[0])
    if _same(ratios, np.full(len(ratios), ratios[0])):
        return "abar", float(ratios[0])
    raise ValueError(
        f"runs of one family must have the same alpha = n/(m d), or the same alpha * width = n/d, and alpha is "
        f"{shown(alphas.tolist())} at widths {shown([form.width for form in forms])}."
    )


def _same(left: Any, right: Any) -> bool:
    one, two = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    return one.shape == two.shape and bool(np.allclose(one, two, rtol=_CLOSE, atol=1e-12))


def _padded(one: FloatArray, other: FloatArray) -> FloatArray:
    return np.concatenate([one, np.zeros(max(len(other) - len(one), 0))])
