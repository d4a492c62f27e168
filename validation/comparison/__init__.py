"""Whether theory and simulation agree: z-scores, extrapolation to d -> infinity, family-wise p-values, a verdict.

The theory holds for d -> infinity, a simulation has a dimension d, a finite number of replicas, and hundreds of
recorded numbers that are strongly correlated in time. Three questions have to be kept apart, each with its own tool.

**How large is the difference, and how well is it known?** For each recorded number (a row) the means over replicas are
fitted by ``limit + b/d`` over the dimensions, with weights (replicas x d) that follow from variances of order 1/d and
not from the data: weights made of estimated variances would correlate with the means they weigh. Errors come from the
standard errors of each dimension alone, so they hold whatever the variances are; degrees of freedom are those of Welch
and Satterthwaite. The quotient is a Student t, given as the normal score z of the same probability: ten replicas make
no false four-sigma events.

**Is the largest of several hundred z too large?** Langsrud's rotation test (Statistics and Computing 15, 53, 2005). If
the theory is right, deviations of the replicas from it, after taking out the fitted b/d, are draws of one multivariate
normal law, which does not change when replicas are rotated into each other. Random rotations of the data therefore give
draws of all z's with their true correlations, whatever these are and however few the replicas: nothing is estimated
and nothing shrunk. For one dimension the p-value is exact for normal replicas; for several it takes variances to be
proportional to 1/d. Where the draws run out, Bonferroni's bound takes over.

**Do all z's together look standard normal?** Their Kolmogorov-Smirnov distance and sum of squares, against the same
draws; `normality` pools reports.

The tolerance of the theory is a systematic bound, added in quadrature to each error and, in the draws, moved up and
down for a whole curve at once. Simulations of one series are those that differ in dimension and replicas only.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from dmft._validate import real, real_array, shown
from dmft.problems import NetworkProblem
from dmft.simulation import Simulation
from dmft.solution import Solution
from validation.comparison.checks import check_same_problem, listed_simulations, series_of
from validation.comparison.observables import OBSERVABLES, canonical_names, recorded_names
from validation.comparison.records import Gap, Outcome, Row, Section, Summary, Within
from validation.comparison.report import Report
from validation.comparison.sections import section_of
from validation.comparison.statistics import NormalityCheck, pooled_normality

__all__ = [
    "OBSERVABLES",
    "Gap",
    "NormalityCheck",
    "Outcome",
    "Report",
    "Row",
    "Section",
    "Summary",
    "Within",
    "compare",
    "normality",
]


def compare(
    solution: Solution,
    simulations: Simulation | Iterable[Simulation],
    *,
    observables: Iterable[str] | None = None,
    times: ArrayLike | None = None,
    level: float = 0.01,
) -> Report:
    """Compare a solution of the DMFT with simulations of finite networks.

    Parameters
    ----------
    solution : Solution
        The theory.
    simulations : Simulation or sequence of them
        Of the same problem. Those that differ in dimension, replicas, precision or tolerance only make up one series
        and are extrapolated together in 1/d.
    observables : sequence of str, optional
        Some of `OBSERVABLES`; also "correlation" for C_d and C_o, "residual_correlation" for C_r. Default: all that
        were recorded.
    times : (X,) array_like, optional
        Recorded times to use, of the curves and of the pairs. Default: all up to the end of the solution.
    level : float
        Family-wise p-value below which theory and simulation are said to differ, in (0, 1).

    Returns
    -------
    Report
        With ``rows``, ``verdict``, ``max_abs_z``, tables, files and a figure.

    Raises
    ------
    TypeError
        When an argument is of the wrong type, or the solution is one of the p-spin model.
    ValueError
        When theory and simulation are of different problems, times have nothing in common, a dimension has fewer than
        two replicas, replicas are counted twice, an observable is unknown or was not recorded, or nothing is left to
        compare.
    """
    if not isinstance(solution, Solution):
        raise TypeError(f"solution must be a dmft.Solution, not {shown(solution)}.")
    if not solution.formulation.residual_sector:
        raise TypeError(f"solution must be of a network; a {solution.problem.kind} problem has no simulation.")
    if not isinstance(solution.problem, NetworkProblem):
        raise TypeError(
            f"solution must be of a network of finite width, not of a {solution.problem.name} problem: it leaves out "
            "what a simulation would be tested for."
        )
    listed = listed_simulations(simulations)
    if not listed:
        raise ValueError("simulations must hold at least one simulation.")
    for simulation in listed:
        if not isinstance(simulation, Simulation):
            raise TypeError(f"simulations must be dmft.Simulation objects, not {shown(simulation)}.")
        check_same_problem(solution, simulation)
    level = real("level", level, low=0.0, high=1.0, open_low=True, open_high=True)
    wanted = canonical_names(observables)
    chosen = None if times is None else real_array("times", np.atleast_1d(np.asarray(times)), ndim=1)
    groups = series_of(listed)
    have = {name for group in groups.values() for name in recorded_names(group)}
    missing = [name for name in wanted or () if name not in have]
    if missing:
        raise ValueError(
            f"observables has {missing[0]!r}, which was not recorded in every simulation of a series; "
            f"there are {', '.join(name for name in OBSERVABLES if name in have)}."
        )
    sections = [section_of(name, solution, group, wanted, chosen, level) for name, group in groups.items()]
    return Report(solution=solution, sections=sections, level=level)


def normality(reports: Report | Iterable[Report], *, model: str | None = None) -> NormalityCheck:
    """Test the z-scores of several independent reports together against the standard normal law.

    Parameters
    ----------
    reports : Report or sequence of them
        Of different problems, or of different replicas of the same one: their z's are taken as independent.
    model : {"gaussian", "network"}, optional
        Which series to use. Default: in each report the Gaussian model if it is there, else all.

    Returns
    -------
    NormalityCheck
        Statistics and p-values; correlations inside each series are allowed for.

    Raises
    ------
    ValueError
        When there is no series with replicas to use.
    """
    listed = [reports] if isinstance(reports, Report) else list(reports)
    observed, draws = [], []
    for report in listed:
        for section in report.deciding if model is None else report.sections:
            if section.null_z is not None and (model is None or section.model == model):
                observed.append(np.array([row.z for row in section.rows]))
                draws.append(section.null_z)
    if not observed:
        raise ValueError("reports must hold at least one series with replicas: without them correlations are unknown.")
    return pooled_normality(observed, draws)
