"""What is run: series of replicas, on both sides of the threshold, and the levels and times at which they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from validation.optimization.study import question

if TYPE_CHECKING:
    from dmft.problems import SymmetricProblem

LEFT = 0.4
"""Train error over tau^2/2 below which a plateau has been left: about half of the theory's plateaus (0.68 to 0.87)."""
INTERPOLATED = 1e-2
"""Train error over tau^2/2 at which a network has interpolated; it is trained no further."""
COMPARED = 500.0
"""Time t_mf at which runs of two tolerances are compared: plateaus are being left then."""

TOLERANCE = 3e-3
"""Error of a step, root mean square over the parameters, in units of 1/sqrt(d) (first layer) and 1 (second)."""
KINKED = 3e-2
"""The same for relu, where smaller steps are wasted: the force has a kink wherever a neuron passes a sample."""

CONDENSED = 2
"""Replicas of which condensation is followed, for `condensing` series."""
CONDENSATION_TIMES = (0.0, 10.0, 30.0, 100.0, 200.0)
"""Times t_mf at which it is read off."""

THRESHOLDS = {
    ("cubic", 32): (15.36, 15.52),
    ("cubic", 64): (17.02, 17.20),
    ("cubic", 128): (17.96, 18.05),
    ("tanh", 64): (31.75, 32.48),
    ("relu64", 64): (38.8, 39.3),
}
"""Ranges of abar_c at tau = 0.1 for an activation and a width: `dmft.optimization_threshold` at that width, for relu
the bisection of `validation.relu.plane`. They name the side of a series and scale n/d; curves are solved anew."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Replicas of one network at one n/d.

    Attributes
    ----------
    model : {"gaussian", "network"}
    activation : str
        As `validation.optimization.study.activation`; a network has the activation itself, also where that is a series.
    noise_std : float
        tau.
    width, dimension : int
        m and d.
    sample_ratio : float
        n/d; n is rounded.
    replicas : int
    t_final : float
        Last time t_mf.
    tolerance : float
        Of the integrator.
    """

    model: str
    activation: str
    noise_std: float
    width: int
    sample_ratio: float
    dimension: int
    replicas: int
    t_final: float
    tolerance: float = TOLERANCE

    @property
    def key(self) -> str:
        """Names the series in files."""
        return (
            f"{self.model}-{self.activation}-tau{self.noise_std:g}-m{self.width}-x{self.sample_ratio:g}"
            f"-d{self.dimension}-t{self.t_final:g}-e{self.tolerance:g}"
        )

    @property
    def theory_key(self) -> str:
        """Names the theory of the series."""
        return f"theory-{self.activation}-tau{self.noise_std:g}-m{self.width}-x{self.sample_ratio:g}-t{self.t_final:g}"

    @property
    def family(self) -> tuple[str, str, int]:
        """What it shares with its series at other n/d and d."""
        return self.model, self.activation, self.width

    def at(self, tolerance: float) -> Series:
        """The same at another tolerance."""
        return replace(self, tolerance=tolerance)

    def problem(self) -> SymmetricProblem:
        """The problem that it samples."""
        return question(self.activation, self.noise_std, width=self.width).problem(self.sample_ratio)  # type: ignore[return-value]


def usual_tolerance(activation: str) -> float:
    """Tolerance of a series, but for those that are repeated at a smaller one."""
    return KINKED if activation.startswith("relu") else TOLERANCE


def _family(
    model: str, activation: str, width: int, sizes: Mapping[float, Mapping[int, int]], t_final: float, **more: Any
) -> list[Series]:
    common: dict[str, Any] = {"noise_std": 0.1, "width": width, "t_final": t_final} | more
    return [
        Series(model=model, activation=activation, sample_ratio=x, dimension=d, replicas=count, **common)
        for x, counts in sizes.items()
        for d, count in counts.items()
    ]


def plan() -> list[Series]:
    """Everything that is run: n/d of about 0.5, 0.75, 1.5 and 2 times the theory's threshold at that width."""
    narrow = {8.0: {25: 8, 50: 4}, 12.0: {25: 8, 50: 4, 100: 1}, 24.0: {25: 8, 36: 8, 50: 8, 72: 3, 100: 1}}
    wide = {8.5: {25: 8}, 12.75: {25: 8}, 25.5: {25: 8, 50: 4}, 34.0: {18: 12, 25: 4}}
    cubic = {8.0: {50: 4, 100: 4}, 24.0: {50: 8, 100: 4, 200: 2}}
    tanh = {16.0: {25: 4, 50: 4}, 24.0: {25: 4, 50: 4}, 48.0: {25: 8, 50: 4, 100: 2, 200: 1}}
    relu = {18.0: {25: 4, 50: 4}, 56.0: {25: 4, 50: 4, 100: 1}}
    found = _family("gaussian", "cubic", 32, narrow, 5e3)
    found += _family("gaussian", "cubic", 64, wide, 5e3)
    found += _family("gaussian", "cubic", 128, {28.0: {25: 8}}, 5e3)
    found += _family("network", "cubic", 32, cubic, 5e3)
    found += _family("network", "tanh", 64, tanh, 1e4)
    found += _family("network", "relu64", 64, relu, 5e3, tolerance=KINKED)
    # The same replicas at a fraction of the tolerance.
    found += _family("gaussian", "cubic", 64, {34.0: {25: 4}}, 5e3, tolerance=TOLERANCE / 10.0)
    found += _family("network", "tanh", 64, {48.0: {25: 4}}, 1e4, tolerance=TOLERANCE / 10.0)
    found += _family("network", "relu64", 64, {56.0: {25: 4}}, 5e3, tolerance=KINKED / 5.0)
    return found


def condensing(series: Sequence[Series]) -> list[Series]:
    """Those whose neurons are looked at: above the threshold, of moderate size, at the usual tolerance."""
    return [
        x
        for x in series
        if x.sample_ratio > THRESHOLDS.get((x.activation, x.width), (math.inf, math.inf))[1]
        and x.dimension <= 50
        and not x.activation.startswith("relu")
        and x.tolerance == usual_tolerance(x.activation)
    ]
