"""The table of docs/optimization.md."""

from __future__ import annotations

from validation.optimization.finite_size.plan import usual_tolerance
from validation.optimization.finite_size.results import FiniteSize

TABLE = "finite-size"
"""Its name on the page."""


def markdown(found: FiniteSize) -> str:
    """The table as text, a line a series."""

    def number(x: float | None, error: float | None = None) -> str:
        return "-" if x is None else f"{x:.3g}" if error is None else f"{x:.3g} ± {error:.1g}"

    def span(x: float | None, error: float | None) -> str:
        return "-" if x is None else number(x) if error is None else f"{x:.0f} ± {x * error:.0f}"

    lines = [
        "| model | m | n/d | over ᾱ_c | d | replicas | interpolated | left at | theory | interpolated at | theory "
        "| plateau e_tr | theory | drift | theory | e_ts at the end |",
        "|---|" + 15 * "---|",
    ]
    for row in found.table():
        if row["tolerance"] != usual_tolerance(row["activation"]):
            continue
        cells = [
            f"{row['model']} {row['activation']}",
            str(row["width"]),
            number(row["sample_ratio"]),
            f"{row['over_threshold']:.2f}",
            str(row["dimension"]),
            str(row["replicas"]),
            f"{row['fraction']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
            span(row["left"], row["left_error"]),
            number(row["theory_left"]),
            span(row["interpolation"], row["interpolation_error"]),
            number(row["theory_interpolation"]),
            number(row["plateau"], row["plateau_error"]),
            number(row["theory_plateau"]),
            number(row["drift"], row["drift_error"]),
            number(row["theory_drift"]),
            number(row["test_end"], row["test_end_error"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
