"""Tables of docs/optimization.md, written by the command that has the numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from validation.thresholds.laws import Interval
from validation.thresholds.result import shown

_MARK = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
Row = Mapping[str, Any]


def fill(page: str, summary: Mapping[str, Any]) -> str:
    """A page with the text between ``<!-- table: NAME -->`` and ``<!-- end -->`` replaced by the table of that name.

    Tables of `ELSEWHERE` stay as they are.

    Raises
    ------
    ValueError
        For a table that is not known.
    """
    known(page)
    return _MARK.sub(lambda match: _put(match, TABLES[match[2]](summary)) if match[2] in TABLES else match[0], page)


def replace_table(page: str, name: str, table: str) -> str:
    """A page with one of its tables replaced.

    Raises
    ------
    ValueError
        If the page has no table of that name.
    """
    if name not in known(page):
        raise ValueError(f"page must have a table between <!-- table: {name} --> and <!-- end -->.")
    return _MARK.sub(lambda match: _put(match, table.strip()) if match[2] == name else match[0], page)


def known(page: str) -> list[str]:
    """Names of the tables of a page.

    Raises
    ------
    ValueError
        If there is one that is not known.
    """
    names = [match[2] for match in _MARK.finditer(page)]
    for name in names:
        if name not in TABLES and name not in ELSEWHERE:
            raise ValueError(f"table must be one of {', '.join([*TABLES, *ELSEWHERE])}, not {name!r}.")
    return names


def check_page(path: Path, *names: str) -> None:
    """Look, before long runs, whether a page can be written at their end.

    Parameters
    ----------
    path : Path
    names : str
        Tables that it must have; at least one of `TABLES` if none is given.

    Raises
    ------
    ValueError
        If not, with a sentence that says why.
    """
    try:
        found = known(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"page {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ValueError(f"page {path} cannot be used: {error}") from None
    missing = [name for name in names if name not in found]
    if missing or not set(found) & {*(names or TABLES)}:
        raise ValueError(f"page {path} has no table <!-- table: {(*missing, 'NAME')[0]} --> ... <!-- end -->.")
    # Pages are replaced whole, by a new file in their directory.
    if not (os.access(path, os.W_OK) and os.access(path.resolve().parent, os.W_OK)):
        raise ValueError(f"page {path} cannot be written.")


def _put(match: re.Match[str], table: str) -> str:
    return f"{match[1]}{table}\n{match[3]}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(data: Mapping[str, float] | None) -> str:
    return "-" if data is None else shown(Interval(value=data["value"], low=data["low"], high=data["high"]))


def _range(row: Row) -> str:
    return _interval({name: row[name] for name in ("value", "low", "high")})


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100.0 * fraction:+.2f} %"


def _theory(row: Row) -> str:
    return "-" if row["predicted"] is None else f"{row['predicted']:.5g}"


def _noise(summary: Mapping[str, Any]) -> str:
    rows = [
        [row["activation"], f"{row['noise_std']:g}", _range(row), _theory(row), _percent(row["deviation"]),
         f"{row['over_noise']:.4g}", _interval(row["exponent"])]
        for row in summary["thresholds"]
        if row["activation"] in ("cubic", "quad")
        and row["a0"] == 1.0
        and row["width"] is None
        and row["third"] is None
    ]  # fmt: skip
    return _markdown(["h", "τ", "ᾱ_c [low, high]", "theory", "difference", "ᾱ_c/τ²", "effective exponent"], rows)


def _activations(summary: Mapping[str, Any]) -> str:
    rows = [
        [row["activation"], _range(row), _theory(row), _percent(row["deviation"]), _interval(row["exponent"])]
        for row in summary["thresholds"]
        if row["activation"] not in ("cubic", "quad")
    ]
    return _markdown(["σ", "ᾱ_c [low, high] at τ = 1", "theory", "difference", "effective exponent"], rows)


def _relu(summary: Mapping[str, Any]) -> str:
    rows = [
        [str(row["degree"]), f"{row['curvature']:.3f}", f"{row['predicted']:.5g}", f"{row['single_ratio']:.5g}"]
        for row in summary["relu"]
    ]
    return _markdown(["degree", "h''(1)", "ᾱ_c, continuous aging", "ᾱ_c, one ratio forced"], rows)


def _continuous(summary: Mapping[str, Any]) -> str:
    rows = [
        [row["activation"], f"{row['noise_std']:g}", f"{row['sample_ratio']:g}", f"{row['t_end']:.2g}",
         f"{row['v']:.3f}", "-" if row["drift"] is None else f"{row['drift']:.2f}",
         "none" if row["v_theory"] is None else f"{row['v_theory']:.3f}"]
        for row in summary["continuous"]
    ]  # fmt: skip
    return _markdown(["σ", "τ", "ᾱ", "followed to t_mf", "v there", "drift", "plateau of the theory, v"], rows)


def _engines(summary: Mapping[str, Any]) -> str:
    """Ends of the ranges by both engines: the ones that were accepted, and how many were given up before."""
    rows = []
    for row in summary["thresholds"]:
        width = "∞" if row["width"] is None else str(row["width"])
        third = "" if row["third"] is None else f", c = {row['third']:g}"
        ends = {check["end"]: check for check in row["checks"]}  # the last of each end
        low, high = ends["low"], ends["high"]
        setting = f"{row['activation']}, τ = {row['noise_std']:g}, a(0) = {row['a0']:g}, m = {width}{third}"
        event = "unlearning" if low["unlearning_difference"] is not None else "halving"
        time = "-" if low[event] is None else f"{low[event]:.5g}"
        rows.append(
            [setting, f"{low['sample_ratio']:.6g}", _verdict(low), time, _small(low[f"{event}_difference"]),
             _small(low["v_difference"]), f"{low['other_train_end']:.2f}", f"{row['train_end']:.2g}",
             f"{high['sample_ratio']:.6g}", _verdict(high), _small(high["v_difference"]),
             str(sum(check["agrees"] is False for check in row["checks"]))]
        )  # fmt: skip
    head = ["", "low", "collocation", "event at", "Δt/t", "Δv", "its last e_tr", "last e_tr", "high", "collocation",
            "Δv", "opposite"]  # fmt: skip
    return _markdown(head, rows)


def _verdict(check: Row) -> str:
    if check["agrees"] is None:
        return "unknown"
    return "leaves" if check["agrees"] == (check["end"] == "low") else "stays"


def _small(difference: float | None) -> str:
    return "-" if difference is None else f"{difference:+.0e}"


def _targets(summary: Mapping[str, Any]) -> str:
    rows = [
        [f"{row['third']:g}", _range(row), _theory(row), _percent(row["deviation"])]
        for row in summary["thresholds"]
        if row["third"] is not None
    ]
    return _markdown(["c", "ᾱ_c [low, high]", "theory", "difference"], rows)


def _widths(summary: Mapping[str, Any]) -> str:
    chosen = [
        row
        for row in summary["thresholds"]
        if row["activation"] == "cubic" and row["noise_std"] == 0.6 and row["a0"] == 1.0
    ]
    limit = next((row["value"] for row in chosen if row["width"] is None), float("nan"))
    rows = [
        ["∞" if row["width"] is None else f"{row['width']}", "0" if row["alpha"] is None else f"{row['alpha']:.3g}",
         _range(row), "" if row["width"] is None else f"{(row['value'] / limit - 1.0) * row['width']:.1f}"]
        for row in sorted(chosen, key=lambda row: row["width"] or float("inf"))
    ]  # fmt: skip
    return _markdown(["m", "α at the threshold", "ᾱ_c(m) [low, high]", "m (ᾱ_c(m)/ᾱ_c(∞) - 1)"], rows)


def _starts(summary: Mapping[str, Any]) -> str:
    chosen = [
        row
        for row in summary["thresholds"]
        if row["activation"] == "cubic" and row["noise_std"] == 1.0 and row["width"] is None and row["third"] is None
    ]
    rows = [
        [f"{row['a0']:g}", _range(row), _interval(row["exponent"])] for row in sorted(chosen, key=lambda row: row["a0"])
    ]
    return _markdown(["a(0)", "ᾱ_c [low, high]", "effective exponent"], rows)


def _plateaus(summary: Mapping[str, Any]) -> str:
    rows = []
    for row in summary["plateaus"]:
        cells = [row["activation"], f"{row['noise_std']:g}", f"{row['sample_ratio']:.5g}"]
        for name in ("a", "v", "test", "nu"):
            cells.append(f"{row[name]:.4f} ({row[f'{name}_theory']:.4f})")
        rows.append(cells)
    return _markdown(["h", "τ", "ᾱ", "a", "v", "2e_ts/τ²", "ν"], rows)


def _laws(summary: Mapping[str, Any]) -> str:
    names = ("a - 1", "1 - v", "nu", "1 - train", "test - 1")
    rows = [
        [row["activation"], f"{row['noise_std']:g}", *(f"{row['powers'][name]:.3f}" for name in names)]
        for row in summary["plateau_laws"]
    ]
    return _markdown(["h", "τ", "a - 1", "1 - v", "ν", "1 - 2e_tr/τ²", "2e_ts/τ² - 1"], rows)


def _two_terms(summary: Mapping[str, Any]) -> str:
    rows = []
    for row in summary["two_terms"]:
        theory = next(
            (x["predicted"] for x in summary["thresholds"]
             if all(x[k] == row[k] for k in ("activation", "noise_std", "a0", "width", "third"))), None,
        )  # fmt: skip
        if row["activation"] in ("cubic", "quad"):
            rows.append(
                [row["activation"], f"{row['noise_std']:g}", f"{row['b']:.2g}", f"{row['value']:.5g}",
                 _percent(None if theory is None else row["value"] / theory - 1.0), f"{row['A']:.3g}",
                 f"{row['B']:.3g}", f"{100 * row['deviation']:.1f} %"]
            )  # fmt: skip
    return _markdown(["h", "τ", "b", "ᾱ_c", "from the theory", "A", "B", "largest deviation"], rows)


def _growing(summary: Mapping[str, Any]) -> str:
    rows = []
    for row in sorted(summary["growing"], key=lambda row: row["width"]):
        time = f"not by {row['t_end_over_m']:.3g}" if row["time_over_m"] is None else f"{row['time_over_m']:.4g}"
        if row["regime"] == "unfinished":
            time = "unknown"
        rows.append([str(row["width"]), f"{row['sample_ratio']:.5g}", time])
    return _markdown(["m", "n/d", "interpolates at t/m"], rows)


def _stopping(summary: Mapping[str, Any]) -> str:
    """At the n/d next above each threshold of the theory, and next below."""
    rows = []
    for tau in sorted({row["noise_std"] for row in summary["plane"]}):
        runs = sorted((row for row in summary["plane"] if row["noise_std"] == tau), key=lambda row: row["sample_ratio"])
        stay = [row for row in runs if row["regime"] == "plateau"]
        left = [row for row in runs if row["regime"] in ("interpolates", "unlearns")]
        for row in [*left[-1:], *stay[:1]]:
            rows.append(
                [f"{tau:g}", f"{row['sample_ratio']:.4g}", row["regime"], f"{row['stopping_time']:.3g}",
                 f"{row['test_minimum']:.4f}", f"{row['test_end']:.4g}"]
            )  # fmt: skip
    return _markdown(["τ", "ᾱ", "", "best t_mf", "best 2e_ts/τ²", "last 2e_ts/τ²"], rows)


TABLES = {
    "noise": _noise,
    "activations": _activations,
    "engines": _engines,
    "continuous": _continuous,
    "relu": _relu,
    "targets": _targets,
    "widths": _widths,
    "starts": _starts,
    "plateaus": _plateaus,
    "laws": _laws,
    "two-terms": _two_terms,
    "growing": _growing,
    "stopping": _stopping,
}
ELSEWHERE = ("finite-size",)
"""Tables of the page that other commands write: `validation.optimization.finite_size`."""
