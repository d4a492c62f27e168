"""The result of a comparison: verdict, tables, files, figure."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from dmft._validate import real
from validation.comparison.records import Gap, Outcome, Row, Section, Within, within
from validation.comparison.words import csv_cell, p_text, rounded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dmft.solution import Solution

_SCALES_NOTE = """\
z: normal score of (simulation - theory)/error. p: probability of a larger worst |z| among the rows of the line if the
theory is right, their correlations allowed for. gap: (simulation - theory)/scale; the scale is |theory| for errors (at
least 1 % of the largest), the largest value of the observable for a, v and C (at least 0.1 for v and C). Largest gap:
largest after two errors are taken off. 5 % to t: no gap beyond 5 %, by more than two errors, up to this time."""


class Report:
    """Result of `compare`.

    Attributes
    ----------
    solution : Solution
        The theory.
    sections : tuple of Section
        One for each series.
    rows : list of Row
        All comparisons.
    level : float
        Family-wise p-value below which theory and simulation are said to differ.
    """

    def __init__(self, *, solution: Solution, sections: Sequence[Section], level: float) -> None:
        self.solution = solution
        self.sections = tuple(sections)
        self.level = level
        self.rows = [row for section in self.sections for row in section.rows]

    @property
    def deciding(self) -> tuple[Section, ...]:
        """The sections that test the theory: of the Gaussian model, for which it is exact, if there are any."""
        exact = tuple(section for section in self.sections if section.model == "gaussian")
        return exact or self.sections

    @property
    def max_abs_z(self) -> float:
        """Largest |z| after extrapolation, in the series of the Gaussian model if there are any, else in all."""
        return max(section.max_abs_z for section in self.deciding)

    @property
    def p_value(self) -> float:
        """Family-wise p-value of `max_abs_z`, over the same series (taken as independent)."""
        tests = self.deciding
        smallest = min(section.p_value for section in tests)
        return float(-np.expm1(len(tests) * np.log1p(-smallest))) if smallest < 1.0 else 1.0

    @property
    def agrees(self) -> bool:
        """Whether no series that tests the theory differs from it after extrapolation."""
        return all(section.outcome in (Outcome.AGREES, Outcome.BIAS) for section in self.deciding)

    @property
    def verdict(self) -> str:
        """One sentence for each series."""
        return " ".join(section.verdict for section in self.sections)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of all series."""
        return tuple(f"{section.name}: {note}" for section in self.sections for note in section.notes)

    def _selected(self, series: str | None, model: str | None) -> list[Section]:
        chosen = [
            section
            for section in self.sections
            if (series is None or section.name == series) and (model is None or section.model == model)
        ]
        if not chosen:
            have = "; ".join(f"{section.name} (model {section.model!r})" for section in self.sections)
            raise ValueError(f"series = {series!r}, model = {model!r} is not in this report, which has {have}.")
        return chosen

    def gap(self, observable: str, *, series: str | None = None, model: str | None = None) -> Gap:
        """Largest relative difference of one observable: for true networks, the price of the Gaussian approximation.

        Largest when two errors are taken off, so that it is not merely the least certain one.

        Parameters
        ----------
        observable : str
            One of `OBSERVABLES`, or a label such as ``a[1]``.
        series, model : str, optional
            Restrict to a series by name, or to "gaussian" or "network".

        Raises
        ------
        ValueError
            When the report has no such observable or series.
        """
        sections = self._selected(series, model)
        rows = [row for section in sections for row in section.rows if observable in (row.observable, row.label)]
        if not rows:
            have = dict.fromkeys(row.observable for section in sections for row in section.rows)
            raise ValueError(f"observable = {observable!r} was not compared; there are {', '.join(have)}.")
        row = max(rows, key=lambda row: row.shown_gap)
        return Gap(**{name.name: getattr(row, name.name) for name in fields(Gap)})

    def within(
        self, fraction: float = 0.05, *, series: str | None = None, model: str | None = None, sigmas: float = 2.0
    ) -> tuple[Within, ...]:
        """Per series and observable, the time up to which simulation and theory are within a fraction of each other.

        Parameters
        ----------
        fraction : float
            Largest relative difference allowed, > 0.
        series, model : str, optional
            As in `gap`.
        sigmas : float
            Standard errors that a row may lie beyond the fraction before it counts, and must lie inside it to be shown.

        Raises
        ------
        ValueError, TypeError
            For a bad fraction or number of errors, or when there is no such series.
        """
        fraction = real("fraction", fraction, low=0.0, open_low=True)
        sigmas = real("sigmas", sigmas, low=0.0)
        return tuple(
            within(section, summary.observable, fraction, sigmas)
            for section in self._selected(series, model)
            for summary in section.summaries
        )

    def __str__(self) -> str:
        return "\n\n".join(str(section) for section in self.sections) + "\n\n" + _SCALES_NOTE

    def __repr__(self) -> str:
        return f"<Report: {len(self.rows)} comparisons, max |z| = {self.max_abs_z:.3g}, {p_text(self.p_value)}>"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data: problem, settings, results; the rows of a section as one list for each column."""
        solution = self.solution
        return {
            "kind": "comparison",
            "problem": solution.problem.to_dict(),
            "theory": {
                "t_final": float(solution.t[-1]),
                "rtol": solution.rtol,
                "method": solution.method,
                "status": solution.status.value,
            },
            "level": self.level,
            "max_abs_z": self.max_abs_z,
            "p_value": self.p_value,
            "agrees": self.agrees,
            "verdict": self.verdict,
            "sections": [_section_data(section) for section in self.sections],
        }

    def to_json(self, path: str | PathLike[str], *, digits: int = 6) -> None:
        """Write `to_dict` as JSON, whole or not at all; the file stands alone.

        Parameters
        ----------
        path : path
            Where to.
        digits : int
            Significant digits of results; parameters are written exactly. An infinite z is the string "inf".

        Raises
        ------
        OSError
            When the place cannot be written.
        """
        from dmft.files import atomic_write

        data = self.to_dict()
        data |= {name: rounded(data[name], digits) for name in ("max_abs_z", "p_value")}
        for section in data["sections"]:
            settings = section.pop("settings")
            section |= rounded(section, digits)
            section["settings"] = settings
        # One line for each column of rows: readable, small, and kind to version control.
        columns: list[str] = []
        for section in data["sections"]:
            for name, column in section["rows"].items():
                columns.append(json.dumps(column, separators=(",", ":")))
                section["rows"][name] = f"@column {len(columns) - 1}@"
        text = json.dumps(data, indent=1, ensure_ascii=False)
        text = re.sub(r'"@column (\d+)@"', lambda match: columns[int(match[1])], text)
        atomic_write(path, (text + "\n").encode())

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write one line for each row, after comments and a line of names, whole or not at all; numbers read back.

        The columns ``replicas_d50``, ``mean_d50``, ``sem_d50``, ``z_d50`` belong to dimension 50, and are empty in
        series without it.

        Raises
        ------
        OSError
            When the place cannot be written.
        """
        from dmft.files import atomic_write

        text = io.StringIO()
        text.write("# comparison of theory and simulation; all columns are dimensionless (units 1)\n")
        text.write(f"# problem: {json.dumps(self.solution.problem.to_dict(), sort_keys=True)}\n")
        for section in self.sections:
            text.write(f"# verdict: {section.verdict}\n")
        per_dimension = {"replicas": "replicas", "mean": "means", "sem": "sems", "z": "z_scores"}
        plain = [name.name for name in fields(Row) if name.name not in ("dimensions", *per_dimension.values())]
        dimensions = sorted({d for section in self.sections for d in section.dimensions})
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*plain, *(f"{name}_d{d}" for d in dimensions for name in per_dimension)])
        for row in self.rows:
            cells = [csv_cell(getattr(row, name)) for name in plain]
            for d in dimensions:
                known = d in row.dimensions
                place = row.dimensions.index(d) if known else 0
                cells += [csv_cell(getattr(row, name)[place]) if known else "" for name in per_dimension.values()]
            writer.writerow(cells)
        atomic_write(path, text.getvalue().encode())

    def plot(self, path: str | PathLike[str] | None = None) -> Figure:
        """Draw curves, simulations and z-scores against logarithmic time; also write the figure to ``path``."""
        from validation.comparison.plots import plot

        return plot(self, path)


def _section_data(section: Section) -> dict[str, Any]:
    constant = ("series", "dimensions", "replicas", "chi2_dof")
    rows = section.rows
    return {
        "name": section.name,
        "model": section.model,
        "settings": [settings.to_dict() for settings in section.settings],
        "dimensions": list(section.dimensions),
        "replicas": list(section.replicas),
        "outcome": section.outcome.value,
        "verdict": section.verdict,
        "notes": list(section.notes),
        "fit": section.fit,
        "fit_p_value": section.fit_p_value,
        "p_value": section.p_value,
        "p_value_largest_dimension": section.p_value_largest,
        "p_values_from": "rotations of replicas" if section.exact_draws else "bounds for independent comparisons",
        "max_abs_z": section.max_abs_z,
        "normality": None if section.normality is None else asdict(section.normality),
        "observables": [
            {
                "observable": summary.observable,
                "rows": summary.rows,
                "p_value": summary.p_value,
                "worst_z": summary.worst.z,
                "worst_at": summary.worst.place,
                "largest_gap": summary.widest.gap,
                "largest_gap_error": summary.widest.gap_error,
                "largest_gap_at": summary.widest.place,
            }
            for summary in section.summaries
        ],
        "chi2_dof": rows[0].chi2_dof,
        "rows": {
            name.name: [list(value) if isinstance(value, tuple) else value for value in map(_getter(name.name), rows)]
            for name in fields(Row)
            if name.name not in constant
        },
    }


def _getter(name: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row, name)
