"""A solution checked by a second run: another engine where there is one, else the same one, tighter and of other order.

`verify` is what ``solve(..., verify=True)`` does after the run. The curves are compared at common times; where they
differ beyond what the tolerances allow, repetitions at rtol/10 (of another engine that cannot give it at 10 rtol)
measure how much this problem amplifies errors, which tells a sensitive problem from a wrong solution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

import solvers
from dmft.limits import Limit
from dmft.problems.base import NetworkProblem
from dmft.status import Status
from dmft.verification import CHECK, CHECK_AGAIN, TIGHTER, TRAIN_FLOOR, Difference, Quality, Verification
from solvers.base import Options
from solvers.marching import fastest_rate
from solvers.multistep import MAX_ORDER

if TYPE_CHECKING:
    from dmft.problems import Problem
    from dmft.solution import Solution

FloatArray = NDArray[np.float64]

POINTS = 60
"""Times compared, besides the last row."""
FIRST_TIME = 1e-2
"""First time compared over the fastest time scale."""
TIGHTEST = 1e-9
"""Smallest rtol of a check, unless the solution's own is smaller: below it rounding stops the rows."""
LIMIT_RTOL = 1e-5
"""Largest rtol of the check of a limit, whose rows do not depend on rtol above ten times this."""
CHECK_ROWS = 1, 500
"""Rows that another engine may take: so many for each of the run's, and so many more. Beyond, it has met something that
it does not resolve, and crawls."""
POINTWISE = ("train_error", "test_error")
"""Curves compared relative to their value at the time itself."""


class Plan(NamedTuple):
    """How a run is to be checked.

    Attributes
    ----------
    method : str
        Scheme of the check.
    rtol : float
        Its tolerance: the same for another engine, a tenth for the same one.
    independent : bool
        Whether it is another engine.
    """

    method: str
    rtol: float
    independent: bool


def plan(problem: Problem, method: str, rtol: float) -> Plan:
    """How a run is to be checked.

    Parameters
    ----------
    problem : Problem
    method : str
        Scheme of the run, not "auto".
    rtol : float
        Its tolerance.
    """
    if isinstance(problem, Limit):  # which has one engine, of one method
        return Plan(method, min(_tighter(rtol), LIMIT_RTOL), False)
    for engine in solvers.ENGINES:
        if method not in engine.methods and engine.supports(problem):
            return Plan(engine.methods[0], rtol, True)
    return same_engine(method, rtol)


def same_engine(method: str, rtol: float) -> Plan:
    """The check of a run by its own engine, at another order and a tenth of the tolerance."""
    tighter = _tighter(rtol)
    order = method.removeprefix("bdf")
    if not order:
        # The variable order is 5 on most rows of a tight run, so that 4 is another scheme nearly everywhere.
        return Plan("bdf4", tighter, False)
    return Plan(f"bdf{int(order) + 1 if int(order) < MAX_ORDER else MAX_ORDER - 1}", tighter, False)


def _tighter(rtol: float) -> float:
    return max(0.1 * rtol, min(rtol, TIGHTEST))


def verify(
    solution: Solution, options: Options, planned: Plan, run: Callable[[Options, str], Solution]
) -> Verification:
    """Check a solution.

    Parameters
    ----------
    solution : Solution
        Partial ones are checked as far as they go.
    options : Options
        Those of its run.
    planned : Plan
        How it is checked.
    run : callable
        Solves the same problem: options, and what is added to the name of the checkpoint -> solution.

    Returns
    -------
    Verification
        Also where the check failed or was interrupted: the solution is there, whatever becomes of its check.
    """
    found = Verification(
        rtol=options.rtol,
        check_method=planned.method,
        check_rtol=planned.rtol,
        independent=planned.independent,
        status=Status.FAILED,
        message="the run has no rows to compare",
        run=quality(solution),
    )
    end = float(solution.t[-1])
    if end == 0.0:
        return found
    # Other methods and smaller tolerances take more rows; those that were wanted at certain times are of no use here.
    again = replace(options, t_final=end, times=(), max_rows=4 * options.max_rows)
    try:
        wanted = replace(again, method=planned.method, rtol=planned.rtol)
        if planned.independent:
            rows = CHECK_ROWS[0] * len(solution.t) + CHECK_ROWS[1]
            wanted = replace(wanted, max_rows=min(wanted.max_rows, rows))
        check, stopped = run(wanted, CHECK), ""
        if planned.independent and not check.status.ok and check.status is not Status.INTERRUPTED:
            stopped = f"{planned.method} did not get there ({check.message}), so that the same engine checks; "
            planned = same_engine(options.method, options.rtol)
            # The place of what explains another engine's difference, which is not asked for now.
            check = run(replace(again, method=planned.method, rtol=planned.rtol), CHECK_AGAIN)
        times = common_times(solution, check)
        found = replace(
            found,
            check_method=check.method,
            status=check.status,
            message=stopped + check.message,
            check_rtol=planned.rtol,
            independent=planned.independent,
            check=quality(check),
            times=tuple(times.tolist()),
            differences=differences(solution, check, times),
        )
        if not found.status.ok or found.agrees:
            return found
        tighter = run(replace(again, method=options.method, rtol=max(0.1 * options.rtol, 1e-10)), TIGHTER)
        if tighter.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        found = replace(found, differences=amplified(found.differences, solution, tighter, options.rtol))
        # Another engine may be unable to give more, and is then asked for less.
        for factor in (0.1, 10.0):
            if planned.independent and not found.explained:
                other = run(replace(wanted, rtol=max(factor * planned.rtol, 1e-10)), CHECK_AGAIN)
                if other.status is Status.INTERRUPTED:
                    raise KeyboardInterrupt
                if other.status.ok:
                    loose, tight = (check, other) if factor < 1.0 else (other, check)
                    scale = max(1.0, factor) * planned.rtol
                    found = replace(found, differences=amplified(found.differences, loose, tight, scale))
                    break
        return found
    except KeyboardInterrupt:
        return replace(found, status=Status.INTERRUPTED, message="the check was interrupted")
    except Exception as error:  # hours of work are not thrown away because of what was to check them
        return replace(found, status=Status.FAILED, message=f"the check broke off ({type(error).__name__}: {error})")


def common_times(solution: Solution, check: Solution) -> FloatArray:
    """`POINTS` log-spaced times in the range of both, from before the fastest motion to the last row, (N,)."""
    end = min(float(solution.t[-1]), float(check.t[-1]))
    if end == 0.0:
        return np.zeros(0)
    form = solution.formulation
    first = min(FIRST_TIME * form.clock / fastest_rate(form), 1e-3 * end)
    times = np.geomspace(first, end, POINTS + 1)
    times[-1] = end  # a row of one of them at least, which no interpolation has touched
    return times


def differences(solution: Solution, other: Solution, times: FloatArray) -> tuple[Difference, ...]:
    """Largest difference of every curve at these times, in the measure of `dmft.verification.Difference`.

    Parameters
    ----------
    solution : Solution
    other : Solution
        Gives the scale where the curve of ``solution`` is 0.
    times : (N,) float
        Inside the range of both; without any there are no differences.
    """
    if not len(times):
        return ()
    one, two = solution.at(times), other.at(times)
    form = solution.formulation
    moves = {"a": form.train_second_layer, "v": len(form.overlap_coefficients) > 0}
    result = []
    for name in ("energy", "a", "v", "train_error", "test_error", "nu"):
        if name not in one.curve_names or not moves.get(name, True):
            continue
        first, second = (np.asarray(getattr(at, name)) for at in (one, two))
        error = np.abs(first - second)
        size = np.abs(first) if name in POINTWISE else np.full(error.shape, np.abs(first).max())
        size = np.where(size > 0.0, size, np.abs(second))  # a curve that is wrongly 0 is wrong by all of it
        error = np.divide(error, size, out=np.zeros_like(error), where=size > 0.0)
        if name == "train_error":
            error[np.maximum(first, second) <= TRAIN_FLOOR * _noise(solution)] = 0.0
        error = error.reshape(len(times), -1).max(axis=1)
        place = int(error.argmax())
        result.append(Difference(curve=name, largest=float(error[place]), time=float(times[place])))
    return tuple(result)


def _noise(solution: Solution) -> float:
    """tau^2/2, or |phi|^2/2 without noise."""
    problem = solution.problem.problem if isinstance(solution.problem, Limit) else solution.problem
    noise_std = problem.noise_std if isinstance(problem, NetworkProblem) else 0.0
    return 0.5 * (noise_std**2 or solution.formulation.offset)


def amplified(
    found: tuple[Difference, ...], solution: Solution, tighter: Solution, rtol: float
) -> tuple[Difference, ...]:
    """The differences with their amplification: what a tenfold smaller rtol changes, over rtol, if it is more."""
    changes = differences(solution, tighter, common_times(solution, tighter))
    factors = {one.curve: one.largest / rtol for one in changes}
    return tuple(
        replace(one, amplification=max(factors.get(one.curve, 0.0), one.amplification or 0.0)) for one in found
    )


def quality(solution: Solution) -> Quality:
    """What a run says about itself."""
    drift = None
    if solution.has_two_time:
        t = solution.two_time.t
        groups = range(solution.formulation.groups)
        drift = max(float(np.abs(solution.correlation(t, t, "d", (g, g)) - 1.0).max()) for g in groups)
    return Quality(
        balance_median=float(np.median(solution.energy_balance)),
        balance_largest=float(solution.energy_balance.max()),
        drift=drift,
        wall_time=solution.stats.wall_time,
    )
