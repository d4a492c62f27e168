"""The result of `time_scales`: records, a table, a sentence, files, a figure."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from dmft.simulation import Simulation
from dmft.solution import Solution
from validation.comparison.words import aligned, csv_cell, rounded
from validation.scales.checks import Family
from validation.scales.events import Criteria, Depth, Event, Outcome, read_depth, read_events, second_layer_name
from validation.scales.families import (
    CURVES,
    SCALES,
    Approach,
    Collapse,
    Exponent,
    Regime,
    approach,
    best_scale,
    collapses,
    exponent,
    regime,
    widths_text,
)
from validation.scales.traces import Trace, trace_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = ("1/m", "1", "sqrt(m)", "m")
_NAMES_MF = ("m^-2", "1/m", "1/sqrt(m)", "1")
_FEWEST = 3
"""Widths that make a family."""
_NOTE = """\
> 320: not up to the end of the run, but the curve still moves towards it; none: not up to the end, and at its final
pace the curve would need more than 10 e-folds of time; start: holds from t = 0; ?: within the error of the run only,
which a smaller rtol, or more replicas, would reduce."""
_INTERVAL_NOTE = """\
exponent: of m -> infinity, with an interval that contains it if corrections decay like m^(-1/3) or faster, are small by
the largest widths, and no other regime begins beyond: the hull of fits with corrections m^(-1/4), m^(-1/2), 1/m, pairs
of them, and of the last local slope, half as wide again. scale: the one that the interval contains; in brackets where
the collapse of the curves decides; "other": none of 1/m, 1, sqrt(m), m."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The window w(m) in which the second layer grows to order sqrt(m).

    Attributes
    ----------
    series, width
        As in `Event`.
    low, high : float
        The two values of c = a / sqrt(m), root mean square.
    duration : float
        t_0(m; high) - t_0(m; low), in the unit of the report.
    folds : float
        ln of t_0(m; high) / t_0(m; low).
    error : float or None
        Error of ln(duration).
    """

    series: str
    width: int
    low: float
    high: float
    duration: float
    folds: float
    error: float | None


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run behind a report: its place, its curves, and how it ended."""

    series: str
    width: int | None
    trace: Trace
    end: float
    note: str


class Report:
    """Result of `time_scales`.

    Attributes
    ----------
    events : list of Event
        All events of all runs, found or not.
    depths : list of Depth
        How much each run unlearns.
    windows : list of Window
        Width in time of the growth of the second layer, of the runs that have it.
    exponents : list of Exponent
        Of every event that at least three widths of a series have.
    collapse : list of Collapse
        Scores around every event.
    regimes : list of Regime
        Which scale each event lives on.
    approaches : list of Approach
        At fixed n/d: how fast the curves approach those of the largest width.
    fixed : {"alpha", "abar"}
        What all widths share, n/(m d) or n/d.
    ratio : float
        Its value.
    unit : str
        Time of the report: "t", or "t_mf" at fixed n/d.
    notes : tuple of str
        Runs that ended early, and what limits the result.
    """

    def __init__(
        self, *, family: Family, criteria: Criteria, members: Sequence[Member], parts: Sequence[_Part]
    ) -> None:
        self.family, self.criteria, self.members = family, criteria, tuple(members)
        self.fixed, self.ratio = family.fixed, family.ratio
        self.unit = "t" if family.fixed == "alpha" else "t_mf"
        self.events = [event for part in parts for event in part.events]
        self.depths = [depth for part in parts for depth in part.depths]
        self.windows = [window for part in parts for window in part.windows]
        self.exponents = [one for part in parts for one in part.exponents]
        self.collapse = [one for part in parts for one in part.collapse]
        self.regimes = [one for part in parts for one in part.regimes]
        self.approaches = [one for part in parts for one in part.approaches]
        self.notes = tuple(member.note for member in members if member.note)

    @property
    def scale_names(self) -> dict[float, str]:
        """What the scales are called that times of this report may have, by their exponents."""
        return dict(zip(scales_of(self.family), _names_of(self.family), strict=True))

    def event(self, name: str, width: int | None, series: str | None = None) -> Event:
        """One event of one run.

        Raises
        ------
        ValueError
            When the report does not have it.
        """
        for event in self.events:
            if (event.name, event.width) == (name, width) and series in (None, event.series):
                return event
        names = ", ".join(dict.fromkeys(event.name for event in self.events))
        raise ValueError(f"event = {name!r}, width = {width!r} is not in this report, which has {names}.")

    def exponent(self, name: str, series: str | None = None) -> Exponent:
        """Exponent of one event.

        Raises
        ------
        ValueError
            When the report does not have it.
        """
        for one in self.exponents:
            if one.event == name and series in (None, one.series):
                return one
        names = ", ".join(dict.fromkeys(one.event for one in self.exponents)) or "none"
        raise ValueError(f"event = {name!r} has no exponent in this report, which has {names}.")

    def regime(self, name: str, series: str | None = None) -> Regime:
        """Regime of one event.

        Raises
        ------
        ValueError
            When the report does not have it.
        """
        for one in self.regimes:
            if one.event == name and series in (None, one.series):
                return one
        names = ", ".join(dict.fromkeys(one.event for one in self.regimes)) or "none"
        raise ValueError(f"event = {name!r} has no regime in this report, which has {names}.")

    @property
    def verdict(self) -> str:
        """What was found, in one sentence for each series."""
        sentences = []
        for series in self._series():
            widths = [member.width for member in self.members if member.series == series]
            finite = [width for width in widths if width is not None]
            regimes = [one for one in self.regimes if one.series == series]
            which = _widths(finite, None in widths)
            head = f"{series[0].upper()}{series[1:]}, {which} at {self._ratio()}, {self._start()}"
            if not regimes:
                found = [
                    f"{event_label(e.name)} at {self.unit} = {e.time:.4g}"
                    for e in self._of(series)
                    if e.time is not None
                ]
                more = "" if len(finite) >= _FEWEST else f"; exponents need {_FEWEST} widths"
                sentences.append(f"{head}: {', '.join(found) or 'nothing found'}{more}.")
                continue
            names = self.scale_names
            clauses = []
            for scale, name in names.items():
                labels = [event_label(one.event) for one in regimes if one.scale == scale]
                if labels:
                    clauses.append(f"{self.unit} ~ {name} for {', '.join(labels)}")
            for missing in dict.fromkeys(one.missing for one in regimes if one.missing):
                lost = [one for one in regimes if one.missing == missing]
                top = max(width for one in lost for width in one.widths)
                clauses.append(
                    f"found up to m = {top} only, while {widths_text(missing)} level off without: "
                    f"{', '.join(event_label(one.event) for one in lost)}"
                )
            for one in regimes:
                if one.scale is None and one.widths and not one.missing:
                    clauses.append(f"{event_label(one.event)}: {one.sentence}")
            for words, outcomes in (
                ("not reached by the end of the runs", (Outcome.NOT_YET,)),
                ("within the errors only", (Outcome.UNRESOLVED,)),
                ("at no width", (Outcome.LEVELLED_OFF,)),
            ):
                absent = [event_label(one.event) for one in regimes if not one.widths and self._state(one) in outcomes]
                if absent:
                    clauses.append(f"{words}: {', '.join(absent)}")
            sentences.append(f"{head}: {'; '.join(clauses) or 'nothing found'}.")
        return " ".join(sentences)

    def _series(self) -> list[str]:
        return list(dict.fromkeys(member.series for member in self.members))

    def _of(self, series: str) -> list[Event]:
        return [event for event in self.events if event.series == series]

    def _state(self, one: Regime) -> Outcome:
        """How an event that was never found stands: whether any run may still come to it."""
        outcomes = {event.outcome for event in self._of(one.series) if event.name == one.event}
        order = (Outcome.NOT_YET, Outcome.UNRESOLVED, Outcome.LEVELLED_OFF)
        return next(outcome for outcome in order if outcome in outcomes)

    def _ratio(self) -> str:
        return f"n/(m d) = {self.ratio:.4g}" if self.fixed == "alpha" else f"n/d = {self.ratio:.4g}"

    def _start(self) -> str:
        return "lazy initialisation" if self.family.lazy else "mean-field initialisation"

    def __str__(self) -> str:
        lines = []
        for series in self._series():
            lines += [self._table(series), ""]
            depths = [depth for depth in self.depths if depth.series == series]
            lines += [_depth_table(depths), ""]
        if self.approaches:
            lines += [self._approach_table(), ""]
        lines.append(_NOTE)
        if self.exponents:
            lines.append(_INTERVAL_NOTE)
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, "", self.verdict])

    def _table(self, series: str) -> str:
        members = [member for member in self.members if member.series == series]
        events = self._of(series)
        family = any(one.series == series for one in self.regimes)
        time = "t" if self.unit == "t" else "t_mf = alpha t"
        title = f"{series}, {self._ratio()}, {self._start()}; times {time}"
        head = [
            "time of",
            *("m = inf" if member.width is None else f"m = {member.width}" for member in members),
        ]
        table = [head + (["exponent", "interval", "scale"] if family else [])]
        for name in dict.fromkeys(event.name for event in events):
            found = {event.width: event for event in events if event.name == name}
            if all(event.outcome is Outcome.AT_START for event in found.values()):
                continue
            row = [event_label(name)] + [
                _cell(found[member.width], member.end) if member.width in found else "" for member in members
            ]
            table.append(row + (self._scaling(series, name) if family else []))
        windows = {window.width: window for window in self.windows if window.series == series}
        if windows:
            low, high = np.asarray(self.criteria.window).tolist()
            row = [f"window {low:g} to {high:g} sqrt(m)"] + [
                f"{windows[m.width].duration:.4g}" if m.width in windows else "" for m in members
            ]
            table.append(row + (self._scaling(series, "window") if family else []))
        return title + "\n" + aligned(table)

    def _scaling(self, series: str, name: str) -> list[str]:
        """Exponent, interval and scale of one event as cells."""
        exponents = [one for one in self.exponents if (one.series, one.event) == (series, name)]
        regimes = [one for one in self.regimes if (one.series, one.event) == (series, name)]
        cells = ["", ""]
        if exponents:
            one = exponents[0]
            cells = [f"{one.value:.3f}", f"[{one.low:.3f}, {one.high:.3f}]" if one.settled else "not settled"]
        scale = ""
        if regimes and regimes[0].missing:
            scale = f"only m <= {max(regimes[0].widths)}"
        elif regimes and regimes[0].scale is not None:
            scale = self.scale_names[regimes[0].scale]
            scale = f"({scale})" if regimes[0].by == "collapse" else scale
        elif exponents:
            scale = "undecided" if not exponents[0].settled or _several(exponents[0], self.scale_names) else "other"
        return [*cells, scale]

    def _approach_table(self) -> str:
        table = [["approach to", "widths", "distances", "~ m^-rate", "range"]]
        for one in self.approaches:
            reference = "infinite width" if one.reference is None else f"m = {one.reference}"
            table.append(
                [
                    f"{one.curve} of {reference} ({one.series})",
                    ", ".join(map(str, one.widths)),
                    ", ".join(f"{distance:.2g}" for distance in one.distances),
                    f"{one.rate:.2f}",
                    f"[{one.low:.2f}, {one.high:.2f}]",
                ]
            )
        return aligned(table)

    def __repr__(self) -> str:
        found = sum(event.found for event in self.events)
        return f"<Report: {len(self.members)} runs, {found} events found, {len(self.exponents)} exponents>"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        members = [
            {"series": m.series, "width": m.width, "end": m.end, "status": m.note or "done"} for m in self.members
        ]
        run = next(iter(self.family.series.values()), [self.family.infinite])[0]
        assert run is not None
        return {
            "kind": "time_scales",
            "problem": run.problem.to_dict(),
            "fixed": "n/(m d)" if self.fixed == "alpha" else "n/d",
            "ratio": self.ratio,
            "unit": self.unit,
            "criteria": _plain(self.criteria),
            "verdict": self.verdict,
            "notes": list(self.notes),
            "runs": members,
            **{
                name: [_plain(record) for record in getattr(self, name)]
                for name in ("events", "depths", "windows", "exponents", "collapse", "regimes", "approaches")
            },
        }

    def to_json(self, path: str | PathLike[str], *, digits: int = 8) -> None:
        """Write `to_dict` as JSON, whole or not at all; an infinite bound is the string "inf".

        Parameters
        ----------
        path : path
            Where to.
        digits : int
            Significant digits of results; parameters are written exactly.

        Raises
        ------
        OSError
            When the place cannot be written.
        """
        from dmft.files import atomic_write

        data = self.to_dict()
        exact = {name: data[name] for name in ("problem", "criteria", "ratio")}
        text = json.dumps(rounded(data, digits) | exact, indent=1, ensure_ascii=False)
        atomic_write(path, (text + "\n").encode())

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write one line for each event of each run, with the exponent of its family, whole or not at all.

        Raises
        ------
        OSError
            When the place cannot be written.
        """
        from dmft.files import atomic_write

        text = io.StringIO()
        text.write(f"# time scales; times in {self.unit}, all columns are dimensionless (units 1)\n")
        text.write(f"# problem of the first run: {json.dumps(self.to_dict()['problem'], sort_keys=True)}\n")
        text.write(f"# verdict: {self.verdict}\n")
        names = [part.name for part in fields(Event)]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*names, "exponent", "exponent_low", "exponent_high", "scale"])
        for event in self.events:
            cells = [event.outcome.value if name == "outcome" else csv_cell(getattr(event, name)) for name in names]
            key = (event.series, event.name)
            one = next((one for one in self.exponents if (one.series, one.event) == key), None)
            where = next((one for one in self.regimes if (one.series, one.event) == key), None)
            cells += ["", "", ""] if one is None else [csv_cell(one.value), csv_cell(one.low), csv_cell(one.high)]
            cells.append(self.scale_names[where.scale] if where is not None and where.scale is not None else "")
            writer.writerow(cells)
        atomic_write(path, text.getvalue().encode())

    def plot(self, path: str | PathLike[str] | None = None) -> Figure:
        """Draw event times against width, and curves in the scaled times that collapse them; also write to ``path``."""
        from validation.scales.plots import plot

        return plot(self, path)


# ---------------------------------------------------------------------------------------------------- building


@dataclass(frozen=True)
class _Part:
    """What one series contributes."""

    events: list[Event]
    depths: list[Depth]
    windows: list[Window]
    exponents: list[Exponent]
    collapse: list[Collapse]
    regimes: list[Regime]
    approaches: list[Approach]


def build(family: Family, criteria: Criteria) -> Report:
    """Read the events of all runs, and what they say as families."""
    members: list[Member] = []
    parts: list[_Part] = []
    infinite = None if family.infinite is None else _member(family.infinite, "theory", family)
    groups = [(name, [_member(run, name, family) for run in runs]) for name, runs in family.series.items()]
    if infinite is not None and "theory" not in family.series:
        groups.append(("theory", []))
    for series, group in groups:
        with_infinite = [*group, infinite] if infinite is not None and series == "theory" else group
        members += with_infinite
        parts.append(_part(series, group, with_infinite, infinite, family, criteria))
    return Report(family=family, criteria=criteria, members=members, parts=parts)


def _member(run: Solution | Simulation, series: str, family: Family) -> Member:
    form = run.formulation
    trace = trace_of(run, family.unit(run))
    width = None if form.infinite_width else form.width
    note = ""
    if not run.status.ok:
        unit = "t" if family.fixed == "alpha" else "t_mf"
        note = f"{series}, m = {width}: {run.status.value} at {unit} = {trace.end:.4g}, what comes later is unknown"
        note += f" ({' '.join(run.message.split()).rstrip('.')})." if run.message else "."
    return Member(series=series, width=width, trace=trace, end=trace.end, note=note)


def _part(
    series: str,
    group: list[Member],
    everyone: list[Member],
    infinite: Member | None,
    family: Family,
    criteria: Criteria,
) -> _Part:
    per_run = [
        read_events(
            member.trace,
            criteria,
            series=series,
            width=member.width,
            lazy=family.lazy,
            scaled=family.fixed == "alpha" or family.lazy,
            noise=family.noise_std,
        )
        for member in everyone
    ]
    depths = [read_depth(member.trace, series=series, width=member.width) for member in everyone]
    windows = [window for events in per_run if (window := _window(events, criteria)) is not None]
    result = _Part([e for events in per_run for e in events], depths, windows, [], [], [], [])
    if len(group) < _FEWEST:
        return result
    scales, names = scales_of(family), _names_of(family)
    traces = [member.trace for member in group]
    for name in dict.fromkeys(event.name for event in per_run[0]):
        events = [next(event for event in one if event.name == name) for one in per_run[: len(group)]]
        found = _exponent(events)
        curves = list(dict.fromkeys([events[0].curve, *CURVES]))
        scores = collapses(events, traces, scales, curves)
        result.collapse.extend(scores)
        if found is not None:
            result.exponents.append(found)
        if not all(event.outcome is Outcome.AT_START for event in events):
            best = best_scale(scores, events[0].curve)
            result.regimes.append(regime(events, found, best, scales, names))
    known = [window for window in windows if window.error is not None]
    if len(known) >= _FEWEST:
        widths, durations = [window.width for window in known], np.array([window.duration for window in known])
        errors = np.array([window.error for window in known], dtype=np.float64)
        found = exponent(series, "window", widths, durations, errors)
        result.exponents.append(found)
        # The end of the window stands for its length: both are there, or not, at the same widths.
        ends = [next(e for e in one if e.name == second_layer_name(windows[0].high)) for one in per_run[: len(group)]]
        ends = [
            replace(event, name="window", outcome=Outcome.UNRESOLVED)
            if event.found and event.width not in widths
            else replace(event, name="window")
            for event in ends
        ]
        result.regimes.append(regime(ends, found, None, scales, names))
    if family.fixed == "abar":
        reference = infinite.trace if infinite is not None and series == "theory" else None
        widths = [member.width for member in group if member.width is not None]
        for curve in ("train_error", "test_error", "a", "v"):
            one = approach(series, curve, widths, traces, reference)
            if one is not None:
                result.approaches.append(one)
    return result


def scales_of(family: Family) -> tuple[float, ...]:
    """Exponents of the four scales in the time of the report: t_mf is t/m up to a factor at fixed n/d."""
    return SCALES if family.fixed == "alpha" else tuple(scale - 1.0 for scale in SCALES)


def _names_of(family: Family) -> tuple[str, ...]:
    return _NAMES if family.fixed == "alpha" else _NAMES_MF


def _exponent(events: Sequence[Event]) -> Exponent | None:
    """Exponent of an event over the widths that have it with a known error."""
    known = [
        (event.width, event.time, event.error)
        for event in events
        if event.width is not None and event.time is not None and event.error is not None
    ]
    if len(known) < _FEWEST:
        return None
    widths, times, errors = zip(*known, strict=True)
    return exponent(events[0].series, events[0].name, widths, np.array(times), np.array(errors))


def _window(events: Sequence[Event], criteria: Criteria) -> Window | None:
    low, high = np.asarray(criteria.window, dtype=np.float64).tolist()
    named = {event.name: event for event in events}
    first, last = named.get(second_layer_name(low)), named.get(second_layer_name(high))
    if first is None or last is None or first.time is None or last.time is None or first.width is None:
        return None
    duration = last.time - first.time
    error = None
    if first.error is not None and last.error is not None:
        error = math.hypot(first.error * first.time, last.error * last.time) / duration
    return Window(
        series=first.series,
        width=first.width,
        low=low,
        high=high,
        duration=duration,
        folds=math.log(last.time / first.time),
        error=error,
    )


# ------------------------------------------------------------------------------------------------------- words


def event_label(name: str) -> str:
    """Short words for an event."""
    kind, _, value = name.partition("_")
    if kind == "learning":
        return f"test error {value} % fallen"
    if kind == "overlap" and value != "loss":
        return f"a v at {value} %"
    if name.startswith("t0("):
        return f"a = {name[3:-1]} sqrt(m)"
    return {
        "linear_fit": "linear fit",
        "minimum": "test minimum",
        "overfitting": "overfitting",
        "test_rise": "test error rises",
        "overlap_loss": "overlap lost",
        "growth": "second layer grows",
        "interpolation": "interpolation",
    }.get(name, name)


def _cell(event: Event, end: float) -> str:
    if event.time is not None:
        return f"{event.time:.4g}"
    return {
        Outcome.AT_START: "start",
        Outcome.NOT_YET: f"> {end:.4g}",
        Outcome.LEVELLED_OFF: "none",
        Outcome.UNRESOLVED: "?",
    }[event.outcome]


def _several(one: Exponent, names: dict[float, str]) -> bool:
    return sum(one.contains(scale) for scale in names) > 1


def _widths(widths: Sequence[int], infinite: bool) -> str:
    words = ""
    if widths:
        words = f"width {widths[0]}" if len(widths) == 1 else f"widths {widths[0]} to {widths[-1]}"
    if infinite:
        words = f"{words} and infinity" if words else "infinite width"
    return words


def _depth_table(depths: Sequence[Depth]) -> str:
    """What is lost after the minimum of the test error."""
    learnt = any(depth.overlap_kept is not None for depth in depths)
    head = ["unlearning", "least e_ts", "final rise", "moving", "final e_tr", "rms a/sqrt(m)"]
    table = [head + (["|v| kept", "a v at least e_ts", "final a v"] if learnt else [])]
    for depth in depths:
        row = [
            "m = inf (a)" if depth.width is None else f"m = {depth.width}",
            f"{depth.test_minimum:.5f}",
            f"{100 * depth.rise:.3g} %",
            f"{100 * depth.drift:.1g} %",
            f"{depth.train_final:.3g}",
            f"{depth.second_layer_final:.4f}",
        ]
        if learnt:
            values = (depth.overlap_kept, depth.product_at_minimum, depth.product_final)
            row += ["" if value is None else f"{value:.4f}" for value in values]
        table.append(row)
    return aligned(table)


def _plain(record: Any) -> dict[str, Any]:
    """A record as plain data."""

    def plain(value: Any) -> Any:
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return value

    return {name: plain(value) for name, value in asdict(record).items()}
