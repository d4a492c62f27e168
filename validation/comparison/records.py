"""What a comparison has found, from one number up to one series."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from validation.comparison.statistics import NormalityCheck, SingleArray
from validation.comparison.words import aligned, p_text, percent

if TYPE_CHECKING:
    from dmft.simulation import Settings


class Outcome(Enum):
    """What a series says."""

    AGREES = "agrees"
    BIAS = "finite-d bias"
    DIFFERS = "differs"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One compared number: one observable at one time, or pair of times, in one series.

    Attributes
    ----------
    series : str
        Name of the series.
    observable, label : str
        Name as in `OBSERVABLES`, and with the group and latent indices, such as ``a[0]`` or ``C_o[0,1]``.
    t, t_prime : float, float or None
        Time; the second one for two-time functions only.
    theory, theory_error : float
        Value of the theory and bound on its numerical error.
    value, error, dof : float
        Extrapolated value (or mean, with one dimension), its standard error and effective degrees of freedom.
    z : float
        Normal score of (value - theory) / sqrt(error^2 + theory_error^2): positive when the simulation lies above.
    gap, gap_error : float
        (value - theory) / scale and its error, the bound on the theory's error included.
    scale : float
        For errors |theory|, at least 1 % of the largest on the curve; for C_r the product of the residual norms at the
        two times, with the same floor; for a the largest |a|, for v and C the largest absolute value of the observable,
        at least 0.1.
    slope, slope_error, slope_z : float or None
        Coefficient b of 1/d; None with one dimension.
    chi2, chi2_dof : float or None, int
        Misfit of the extrapolation where there are more dimensions than coefficients.
    dimensions, replicas : tuple of int
        Dimensions d in increasing order and their numbers of replicas.
    means, sems, z_scores : tuple of float
        For each dimension: mean, standard error and z of its difference to the theory.
    """

    series: str
    observable: str
    label: str
    t: float
    t_prime: float | None
    theory: float
    theory_error: float
    value: float
    error: float
    dof: float
    z: float
    gap: float
    gap_error: float
    scale: float
    slope: float | None
    slope_error: float | None
    slope_z: float | None
    chi2: float | None
    chi2_dof: int
    dimensions: tuple[int, ...]
    replicas: tuple[int, ...]
    means: tuple[float, ...]
    sems: tuple[float, ...]
    z_scores: tuple[float, ...]

    @property
    def last_time(self) -> float:
        """The later of the two times."""
        return self.t if self.t_prime is None else max(self.t, self.t_prime)

    @property
    def place(self) -> str:
        """Label and times in words."""
        if self.t_prime is None:
            return f"{self.label} at t = {self.t:.4g}"
        return f"{self.label} at (t, t') = ({self.t:.4g}, {self.t_prime:.4g})"

    @property
    def when(self) -> str:
        """Times in words."""
        return f"{self.t:.4g}" if self.t_prime is None else f"{self.t:.4g}, {self.t_prime:.4g}"

    @property
    def percent(self) -> str:
        """Gap with its error in words."""
        return percent(self.gap, self.gap_error)

    @property
    def shown_gap(self) -> float:
        """What is left of the size of the gap when two errors are taken off."""
        return abs(self.gap) - 2.0 * self.gap_error


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One observable of one series.

    Attributes
    ----------
    observable : str
        Name as in `OBSERVABLES`.
    rows : int
        Number of comparisons.
    worst : Row
        The row of largest |z|.
    widest : Row
        The row of largest |gap| - 2 gap_error: the largest gap that is more than noise.
    p_value : float
        Family-wise: probability of a larger worst |z| among the rows of this observable if the theory is right.
    steepest : Row or None
        The row whose coefficient of 1/d is most significant; None with one dimension.
    """

    observable: str
    rows: int
    worst: Row
    widest: Row
    p_value: float
    steepest: Row | None


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Relative difference (simulation - theory)/scale, and where it is."""

    series: str
    observable: str
    label: str
    t: float
    t_prime: float | None
    gap: float
    gap_error: float


@dataclass(frozen=True, kw_only=True)
class Within:
    """How long one observable of one series stays within a fraction of the theory.

    Attributes
    ----------
    series, observable : str
        Which.
    fraction : float
        Of the scale, see `Row`.
    until : float or None
        Last recorded time up to which no row lies beyond the fraction by more than the errors allow; None when already
        the first one does.
    beyond : float or None
        First recorded time at which a row does; None when none does.
    shown_until : float or None
        Last recorded time up to which every row is shown, errors included, to lie within the fraction.
    """

    series: str
    observable: str
    fraction: float
    until: float | None
    beyond: float | None
    shown_until: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """One series: simulations that differ in dimension and replicas only.

    Attributes
    ----------
    name, model : str
        Name in words, and "gaussian" or "network".
    settings : tuple of Settings
        Of each simulation.
    dimensions, replicas : tuple of int
        Dimensions in increasing order and their numbers of replicas.
    rows : tuple of Row
        The comparisons.
    summaries : tuple of Summary
        Per observable.
    fit : str
        What was extrapolated: "mean", "limit + b/d" or "limit + b/d + c/d^2".
    fit_p_value : float or None
        Of the misfit of limit + b/d, over all rows; None with fewer than three dimensions.
    p_value, p_value_largest : float
        Family-wise, of the largest |z| after extrapolation and at the largest dimension alone.
    normality : NormalityCheck or None
        Of the z's after extrapolation; None without replicas.
    exact_draws : bool
        Whether p-values come from rotations of replicas; otherwise from bounds for independent comparisons.
    effective : float or None
        Number of independent z's that would scatter in sum z^2 as these do.
    outcome : Outcome
        What the p-values say at the level of the report.
    verdict : str
        The same as a sentence.
    notes : tuple of str
        What was left out, and other things to know.
    """

    name: str
    model: str
    settings: tuple[Settings, ...]
    dimensions: tuple[int, ...]
    replicas: tuple[int, ...]
    rows: tuple[Row, ...]
    summaries: tuple[Summary, ...]
    fit: str
    fit_p_value: float | None
    p_value: float
    p_value_largest: float
    normality: NormalityCheck | None
    exact_draws: bool
    effective: float | None
    outcome: Outcome
    verdict: str
    notes: tuple[str, ...]
    null_z: SingleArray | None = field(repr=False)

    @property
    def max_abs_z(self) -> float:
        """Largest |z| after extrapolation."""
        return max(abs(row.z) for row in self.rows)

    def __str__(self) -> str:
        return _section_table(self)


def _section_table(section: Section) -> str:
    sizes = ", ".join(f"d = {d} ({r} replicas)" for d, r in zip(section.dimensions, section.replicas, strict=True))
    lines = [f"{section.name}: {sizes}"]
    if section.fit != "mean":
        misfit = "" if section.fit_p_value is None else f" (straight line in 1/d: {p_text(section.fit_p_value)})"
        lines.append(f"extrapolated as {section.fit}{misfit}")
    head = ["observable", "rows", "worst z", "at t", "p", "largest gap", "at t", "5 % to t"]
    several = section.fit != "mean"
    largest = section.dimensions[-1]
    table = [[*head, f"effect of d = {largest}", "its z"] if several else head]
    for summary in section.summaries:
        worst, widest, steepest = summary.worst, summary.widest, summary.steepest
        span = within(section, summary.observable, 0.05, 2.0)
        cells = [
            summary.observable,
            str(summary.rows),
            f"{worst.z:+.2f}",
            worst.when,
            f"{summary.p_value:.2g}",
            widest.percent,
            widest.when,
            "-" if span.until is None else "end" if span.beyond is None else f"{span.until:.4g}",
        ]
        if steepest is not None:
            assert steepest.slope is not None and steepest.slope_z is not None
            cells += [f"{100.0 * steepest.slope / largest / steepest.scale:+.2g} %", f"{steepest.slope_z:+.1f}"]
        table.append(cells)
    worst = max(section.rows, key=lambda row: abs(row.z))
    total = ["all", str(len(section.rows)), f"{worst.z:+.2f}", worst.when, f"{section.p_value:.2g}", "", "", ""]
    table.append([*total, "", ""] if several else total)
    lines.append(aligned(table))
    if section.normality is not None:
        lines.append(f"all z: {section.normality}")
    lines += [f"note: {note}" for note in section.notes]
    lines.append(section.verdict)
    return "\n".join(lines)


def within(section: Section, observable: str, fraction: float, sigmas: float) -> Within:
    """How long an observable stays within a fraction; arguments as in `Report.within`."""
    rows = [row for row in section.rows if row.observable == observable]
    times = sorted({row.last_time for row in rows})
    beyond = min((row.last_time for row in rows if abs(row.gap) - sigmas * row.gap_error > fraction), default=None)
    unsure = min((row.last_time for row in rows if abs(row.gap) + sigmas * row.gap_error > fraction), default=None)
    return Within(
        series=section.name,
        observable=observable,
        fraction=fraction,
        until=_last_before(times, beyond),
        beyond=beyond,
        shown_until=_last_before(times, unsure),
    )


def _last_before(times: list[float], limit: float | None) -> float | None:
    """Last of the increasing times before the limit."""
    before = [time for time in times if limit is None or time < limit]
    return before[-1] if before else None
