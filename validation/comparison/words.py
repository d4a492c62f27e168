"""Numbers as words, tables and plain data; nothing here knows what they mean."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def p_text(value: float) -> str:
    """A p-value, with its name."""
    return "p < 1e-9" if value < 1e-9 else f"p = {value:.2g}"


def percent(fraction: float, error: float) -> str:
    """A fraction with its error in percent, to two digits of the error."""
    gap, error = 100.0 * fraction, 100.0 * error
    if not np.isfinite(error) or error <= 0.0:
        return f"{gap:+.3g} %"
    digits = int(np.clip(1 - math.floor(math.log10(error)), 0, 6))
    return f"{gap:+.{digits}f} ± {error:.{digits}f} %"


def aligned(lines: list[list[str]]) -> str:
    """A table as text: columns aligned, the first to the left."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def rounded(data: Any, digits: int) -> Any:
    """The same plain data with floats of so many significant digits; JSON knows no infinity."""
    if isinstance(data, dict):
        return {key: rounded(value, digits) for key, value in data.items()}
    if isinstance(data, list):
        return [rounded(value, digits) for value in data]
    if isinstance(data, float):
        return float(f"{data:.{digits}g}") if math.isfinite(data) else str(data)
    return data


def csv_cell(value: Any) -> str:
    """A value in a CSV file; floats read back exactly."""
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)
