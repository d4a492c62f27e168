"""Single runs near the optimization threshold, reduced to what happened and when."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmft.activations import Activation
from dmft.problems import InfiniteWidthProblem, SymmetricProblem
from dmft.status import Status
from dmft.targets import Target

FloatArray = NDArray[np.float64]

INTERPOLATED = 1e-2
"""e_tr over its plateau value, about tau^2/2, from which on a network has interpolated."""
UNLEARNT = 0.25
"""Overlap v over its maximum from which on the target is unlearnt; plateaus have v above half of their maximum."""
SETTLING = 0.87
"""A plateau comes to rest when v moves less than this fraction of 10^(-b/2) of what it moved in the decade of time
before, t^(-b) being how the glass ages: 10^(-b/2) is the drift right at a fold, where v - v_c ~ t^(-b/2), and what lies
below it and has not left yet drifts by no less."""
AGING, AGING_QUADRATIC = 2 / 3, 1.0
"""b of the p-spin models with p > 2, and of p = 2: the neurons' own model is that of h without its linear part."""
AT_REST = 1e-4
"""Change of v in a decade that counts as none."""
MAX_ROWS = 450
"""Rows of a run: fewer than make the engine thin its history, after which rows cost more and are less accurate."""
ENGINE, OTHER = "bdf", "collocation"
"""Methods of the two engines."""
OTHER_RTOL, OTHER_ROWS = 1e-5, 3000
"""Accuracy and rows of the other engine, which does not thin."""
HALF = 0.5
"""e_tr over its plateau value, about tau^2/2, from which on the network has left its plateau for the noise."""
ON_PLATEAU = 100.0
"""Time in glass times at which v of two engines is compared."""
SAMPLES = 160
"""Points kept of a curve, equidistant in log t."""
FIRST = 1e-3
"""Time of the first of them in units of the glass time."""

REGIMES = ("interpolates", "unlearns", "plateau", "unfinished")
CURVES = ("a", "v", "train_error", "test_error", "nu")


@dataclass(frozen=True, kw_only=True)
class Question:
    """Everything but n/d.

    Attributes
    ----------
    activation, target, noise_std, a0
        As in :class:`~dmft.problems.symmetric.SymmetricProblem`.
    width : int or None
        m; None for m -> infinity at fixed n/d.
    """

    activation: Activation
    target: Target
    noise_std: float
    a0: float = 1.0
    width: int | None = None

    def problem(self, sample_ratio: float) -> InfiniteWidthProblem | SymmetricProblem:
        """The problem at n/d = ``sample_ratio``."""
        common: dict[str, Any] = {
            "activation": self.activation,
            "target": self.target,
            "noise_std": self.noise_std,
            "a0": self.a0,
        }
        if self.width is None:
            return InfiniteWidthProblem(sample_ratio=sample_ratio, **common)
        return SymmetricProblem(width=self.width, alpha=sample_ratio / self.width, **common)

    def time_unit(self, sample_ratio: float) -> float:
        """t_mf over the problem's own time: alpha, or 1 at infinite width."""
        return 1.0 if self.width is None else sample_ratio / self.width

    def glass_time(self, sample_ratio: float) -> float:
        """1/(eps sqrt(h''(1))) with eps = tau/sqrt(abar): the time t_mf in which neurons part."""
        return math.sqrt(sample_ratio / float(self.activation.d2h(1.0))) / self.noise_std

    @property
    def settling(self) -> float:
        """Drift below which a plateau comes to rest, 0.40, or 0.28 for quadratic h."""
        quadratic = float(self.activation.d2h(1.0)) == float(self.activation.d2h(0.5))
        return float(SETTLING * 10.0 ** (-0.5 * (AGING_QUADRATIC if quadratic else AGING)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        return data | {"activation": self.activation.to_dict(), "target": self.target.to_dict()}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run. Times are t_mf = alpha t; errors are over tau^2/2.

    Attributes
    ----------
    sample_ratio, rtol : float
        n/d, and accuracy asked of the run.
    regime : str
        "interpolates": e_tr fell below 1e-2. "unlearns": it did not in the rows there were, but v fell below a quarter
        of its maximum. "plateau": neither until the end asked for. "unfinished": neither, and the run ended early.
    status : str
        How the solver ended.
    t_end : float
        Last time.
    unlearning : float or None
        First time after its maximum at which v is below a quarter of it.
    halving, interpolation : float or None
        First times at which e_tr is below 1/2, and below 1e-2.
    v_max, v_end, a_end, train_end, test_end, nu_end : float
        Largest overlap, and values at the end.
    test_minimum, stopping_time : float
        Smallest test error, and when.
    drift : float or None
        Change of v over the last decade of time over that of the decade before, 0 where it is less than 1e-4; None
        where there is no plateau so long, or v rose.
    v_limit : float or None
        v at t -> infinity, if it goes on like a power of t.
    rows : int
    wall_time : float
        Seconds.
    method : str
        "bdf" or "collocation", the engine.
    v_plateau : float or None
        v at 100 glass times, None if the run ended before.
    settling : float
        Drift below which it comes to rest.
    """

    sample_ratio: float
    rtol: float
    regime: str
    status: str
    t_end: float
    unlearning: float | None
    interpolation: float | None
    v_max: float
    v_end: float
    a_end: float
    train_end: float
    test_end: float
    nu_end: float
    test_minimum: float
    stopping_time: float
    drift: float | None
    v_limit: float | None
    rows: int
    wall_time: float
    halving: float | None = None
    method: str = ENGINE
    v_plateau: float | None = None
    settling: float = SETTLING * 10.0 ** (-0.5 * AGING)

    @property
    def leaves(self) -> bool:
        """Whether the plateau was left."""
        return self.regime in ("interpolates", "unlearns")

    @property
    def departure(self) -> float:
        """First time at which it is seen that the plateau was left; the last time if it is not."""
        return min((t for t in (self.halving, self.unlearning) if t is not None), default=self.t_end)

    @property
    def settles(self) -> bool:
        """Whether it stays on a plateau and comes to rest there."""
        return self.regime == "plateau" and self.drift is not None and self.drift < self.settling


def solve_run(
    question: Question,
    sample_ratio: float,
    t_final: float,
    *,
    rtol: float,
    max_rows: int = MAX_ROWS,
    method: str = ENGINE,
) -> tuple[Run, dict[str, FloatArray]]:
    """Solve to t_mf = ``t_final`` and reduce; also the curves at times equidistant in log t.

    Raises
    ------
    KeyboardInterrupt
        When a signal stopped the run.
    """
    from solvers import solve

    unit = question.time_unit(sample_ratio)
    solution = solve(question.problem(sample_ratio), t_final / unit, rtol=rtol, max_rows=max_rows, method=method)
    if solution.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    noise = 0.5 * question.noise_std**2
    t = np.asarray(solution.t) * unit
    first, plateau = (share * question.glass_time(sample_ratio) for share in (FIRST, ON_PLATEAU))
    times = np.append(0.0, np.geomspace(first, t[-1], SAMPLES)) if t[-1] > first else t[[0, -1]]
    at = solution.at(np.minimum(times / unit, solution.t[-1]))
    curves = {"t": times} | {name: np.asarray(getattr(at, name), dtype=np.float64) for name in CURVES}
    for name in ("train_error", "test_error"):
        curves[name] = curves[name] / noise
    curves["nu"] = curves["nu"] / unit
    run = reduce(
        t,
        np.abs(np.asarray(solution.v)),  # -U is as good a direction as U
        np.asarray(solution.train_error) / noise,
        np.asarray(solution.test_error) / noise,
        reached=solution.status is Status.DONE,
        extra={
            "sample_ratio": sample_ratio,
            "rtol": rtol,
            "status": solution.status.value,
            "a_end": float(solution.a[-1]),
            "nu_end": float(solution.nu[-1]) / unit,
            "rows": solution.stats.rows,
            "wall_time": solution.stats.wall_time,
            "method": method,
            "settling": question.settling,
            "v_plateau": abs(float(solution.at(np.array([plateau / unit])).v[0])) if t[-1] > plateau else None,
        },
    )
    return run, curves


def reduce(
    t: FloatArray,
    v: FloatArray,
    train_error: FloatArray,
    test_error: FloatArray,
    *,
    reached: bool,
    extra: Mapping[str, Any],
) -> Run:
    """Rows of a run as a `Run`.

    Parameters
    ----------
    t, v, train_error, test_error : (N,)
        Times t_mf, overlap, and errors over tau^2/2.
    reached : bool
        Whether the end asked for was reached.
    extra : dict
        The other attributes.
    """
    top, best = int(np.argmax(v)), int(np.argmin(test_error))
    unlearning = _first(t, v, UNLEARNT * float(v[top]), top)
    interpolation = _first(t, train_error, INTERPOLATED, 0)
    drift = limit = None
    if interpolation is not None:
        regime = "interpolates"
    elif unlearning is not None:
        regime = "unlearns"
    else:
        regime = "plateau" if reached else "unfinished"
        if t[-1] / 100.0 > t[top]:
            early, late, last = (float(np.interp(x, t, v)) for x in (t[-1] / 100.0, t[-1] / 10.0, t[-1]))
            if early > late:
                drift = abs(late - last) / (early - late) if abs(late - last) > AT_REST else 0.0
            if drift is not None and drift < 1.0:
                limit = last - (late - last) * drift / (1.0 - drift)
    return Run(
        regime=regime,
        t_end=float(t[-1]),
        unlearning=unlearning,
        halving=_first(t, train_error, HALF, 0),
        interpolation=interpolation,
        v_max=float(v[top]),
        v_end=float(v[-1]),
        train_end=float(train_error[-1]),
        test_end=float(test_error[-1]),
        test_minimum=float(test_error[best]),
        stopping_time=float(t[best]),
        drift=drift,
        v_limit=limit,
        **extra,
    )


@dataclass(frozen=True, kw_only=True)
class EngineCheck:
    """One n/d by both engines.

    Attributes
    ----------
    end : str
        Which end of the range it was to be, "low" or "high".
    sample_ratio : float
    regime, other_regime : str
        Of the search's engine, and of the other one.
    agrees : bool or None
        Whether both leave the plateau (low) or both stay (high); None where the other engine broke off before. That it
        left is seen by v or by e_tr, whichever falls first.
    unlearning, halving : float or None
        Times t_mf of the search's engine: see `Run`.
    unlearning_difference, halving_difference : float or None
        Of the other engine, relative; None where one of the two has no such time.
    v : float or None
        v at 100 glass times (low), or at the end (high).
    v_difference : float or None
        Of the other engine.
    other_train_end, other_t_end : float
        How far the other engine got: e_tr over tau^2/2, and time.
    other_status : str
    """

    end: str
    sample_ratio: float
    regime: str
    other_regime: str
    agrees: bool | None
    unlearning: float | None
    halving: float | None
    unlearning_difference: float | None
    halving_difference: float | None
    v: float | None
    v_difference: float | None
    other_train_end: float
    other_t_end: float
    other_status: str


def check_engines(end: str, run: Run, other: Run) -> EngineCheck:
    """What two runs of the same n/d say of it; ``end`` is "low" or "high"."""
    left = other.leaves or other.halving is not None
    agrees: bool | None = left if end == "low" else not left
    if other.regime == "unfinished" and not left:
        agrees = None
    v, other_v = (run.v_plateau, other.v_plateau) if end == "low" else (run.v_end, other.v_end)
    comparable = v is not None and other_v is not None and (end == "low" or other.regime == "plateau")
    return EngineCheck(
        end=end,
        sample_ratio=run.sample_ratio,
        regime=run.regime,
        other_regime=other.regime,
        agrees=agrees,
        unlearning=run.unlearning,
        halving=run.halving,
        unlearning_difference=_relative(run.unlearning, other.unlearning),
        halving_difference=_relative(run.halving, other.halving),
        v=v,
        v_difference=other_v - v if comparable and v is not None and other_v is not None else None,
        other_train_end=other.train_end,
        other_t_end=other.t_end,
        other_status=other.status,
    )


def _relative(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else other / one - 1.0


def _first(t: FloatArray, curve: FloatArray, level: float, start: int) -> float | None:
    """First time from row ``start`` on at which a curve is below a level, linear between two rows."""
    below = np.flatnonzero(curve[start:] < level)
    if not len(below):
        return None
    row = start + int(below[0])
    if row == start:
        return float(t[row])
    share = (curve[row - 1] - level) / (curve[row - 1] - curve[row])
    return float(t[row - 1] + share * (t[row] - t[row - 1]))
