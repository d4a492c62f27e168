"""The table of agreement: every setting solved by both engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from dmft.verification import Difference, Quality, Verification
from validation.engines.runs import Run, run_all
from validation.engines.settings import Setting

RTOL = 1e-6
CURVES = ("a", "v", "test_error", "train_error")
HEAD = (
    "| setting | t_final | check | a | v | e_ts | e_tr | ν, E | balance | of the check | seconds | of the check | "
    "amplification | |"
)


def records(
    settings: Sequence[Setting], directory: Path, workers: int, tell: Callable[[str], None], rtol: float = RTOL
) -> list[dict[str, Any]]:
    """Solve and check every setting, or read what was found; see `validation.engines.runs.run_all`."""
    runs = [Run(one.name, one.problem, one.t_final, rtol, verify=True) for one in settings]
    return run_all(runs, directory / "runs", workers, tell)


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """What was found in a paragraph, and the table."""
    rows = ["", HEAD, "|---|---:|---|" + "---:|" * 10 + "---|"]
    checks = [Verification.from_dict(record["verification"]) for record in found]
    rows += [_row(record, check) for record, check in zip(found, checks, strict=True)]
    codes = ", ".join(sorted({record["key"]["code"] for record in found}))
    return "\n".join([f"{summary(checks)} Code: sha256 {codes}.", *rows])


def summary(checks: Sequence[Verification]) -> str:
    """How many agree, and how well."""
    agree = [check for check in checks if check.agrees]
    explained = sum(check.explained for check in checks)
    independent = sum(check.independent for check in checks)
    text = (
        f"{len(checks)} settings, {independent} of them checked by another engine and {len(checks) - independent} by "
    )
    text += f"the same one at rtol/10 and another order. {len(agree)} agree"
    worst = [check.largest.largest for check in agree if check.largest is not None]
    if worst:
        text += f" (largest difference of any curve: median {median(worst):.1e}, largest {max(worst):.1e})"
    ended = sum(not check.status.ok for check in checks)
    text += f", {explained} differ by what the measured amplification of errors explains, "
    text += f"{len(checks) - len(agree) - explained - ended} differ otherwise, {ended} were not checked to the end. "
    return text + f"rtol {_common([check.rtol for check in checks])}."


def _common(rtols: Sequence[float]) -> str:
    return ", ".join(f"{rtol:.0e}" for rtol in sorted(set(rtols)))


def _row(record: dict[str, Any], check: Verification) -> str:
    by_name = {one.curve: one for one in check.differences}
    cells = [record["name"], f"{record['t']:.4g}", f"{check.check_method}, {check.check_rtol:.0e}"]
    cells += [_number(by_name.get(curve)) for curve in CURVES]
    cells.append(", ".join(_number(by_name[name]) for name in ("nu", "energy") if name in by_name) or "–")
    cells += [_balance(check.run), _balance(check.check), *map(_seconds, (check.run, check.check))]
    factor = check.amplification
    cells.append("" if factor is None else f"{factor:.3g}")
    if check.agrees:
        cells.append("agrees")
    elif check.explained:
        cells.append("explained")
    elif check.status.ok:
        cells.append("**differs**")
    else:
        cells.append(f"**check ended at t = {check.times[-1] if check.times else 0.0:.3g}: {check.status.value}**")
    return f"| {' | '.join(cells)} |"


def _number(difference: Difference | None) -> str:
    return "–" if difference is None else _digit(difference.largest)


def _balance(quality: Quality | None) -> str:
    return "–" if quality is None else f"{_digit(quality.balance_median)} ({_digit(quality.balance_largest)})"


def _digit(value: float) -> str:
    return f"{value:.0e}" if value else "0"


def _seconds(quality: Quality | None) -> str:
    return "–" if quality is None else f"{quality.wall_time:.1f}"
