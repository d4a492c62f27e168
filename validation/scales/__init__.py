"""Time scales of training: what happens when, and how the times grow with the width.

From every run: when the network fits what is linear, learns its features, overfits, unlearns and interpolates
(`validation.scales.events`). From a family of three widths or more: the exponent of each time, in which scaled time the
curves collapse, and so which regime each event belongs to (`validation.scales.families`).
"""

from __future__ import annotations

from collections.abc import Iterable

from numpy.typing import ArrayLike

from dmft.simulation import Simulation
from dmft.solution import Solution
from validation.scales.checks import family_of
from validation.scales.events import Criteria, Depth, Event, Outcome
from validation.scales.families import Approach, Collapse, Exponent, Regime
from validation.scales.report import Report, Window, build

__all__ = [
    "Approach",
    "Collapse",
    "Criteria",
    "Depth",
    "Event",
    "Exponent",
    "Outcome",
    "Regime",
    "Report",
    "Window",
    "time_scales",
]


def time_scales(
    runs: Solution | Simulation | Iterable[Solution | Simulation],
    *,
    learning: ArrayLike = (0.5, 0.9),
    overfitting: float = 0.5,
    overlap_loss: float = 0.1,
    test_rise: float = 0.05,
    interpolation: float = 1e-7,
    second_layer: ArrayLike = (0.1, 0.2, 0.3, 0.4, 0.5),
    growth: float = 2.0,
    window: ArrayLike = (0.3, 0.5),
) -> Report:
    """Read time scales off runs, and their dependence on the width off a family of them.

    Parameters
    ----------
    runs : Solution, Simulation, or sequence of them
        Of one problem; in a family only the width differs, at a common a0 or gamma0, and at a common alpha = n/(m d) or
        a common n/d = alpha * width. In the latter case times are t_mf = alpha t, and the curves have a limit. One
        solution of infinite width at that n/d is then welcome too. Simulations make series of their own.
    learning : (X,) array_like
        Fractions of the fall of the test error to its minimum, and of the value of a v there. For lazy initialisation,
        the fall is that of the linear fit, and its time is where 1 - 1/e is done.
    overfitting : float
        Gap e_ts - e_tr, as a fraction of tau^2/2, or of (tau^2 + |phi|^2)/2 without noise.
    overlap_loss : float
        Fraction of its maximum that |v| loses.
    test_rise : float
        Relative rise of the test error above its minimum.
    interpolation : float
        e_tr as a fraction of tau^2, or of tau^2 + |phi|^2 without noise.
    second_layer : (X,) array_like
        Values c of t_0(m; c), the first time at which the root mean square of a is c sqrt(m).
    growth : float
        Factor by which the root mean square of a has grown.
    window : (2,) array_like
        The two c between which the window w(m) is measured.

    Returns
    -------
    Report

    Raises
    ------
    TypeError
        For what is no run of a network.
    ValueError
        For runs that differ in more than the width, naming the parameter, and for bad fractions.
    """
    criteria = Criteria(
        learning=learning,
        overfitting=overfitting,
        overlap_loss=overlap_loss,
        test_rise=test_rise,
        interpolation=interpolation,
        second_layer=second_layer,
        growth=growth,
        window=window,
    )
    return build(family_of(runs), criteria)
