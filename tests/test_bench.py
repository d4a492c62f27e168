"""The benchmark runs, judges and reports; its figures are another matter."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from bench import DOCS, replace_section, speed
from bench.speed import Line, at_most


def test_quick_run_prints_a_verdict_for_every_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One process for all cases: what is tested is the bookkeeping, and starting a process costs a second.
    monkeypatch.setattr(speed, "measured", speed.run_case)
    page = tmp_path / "performance.md"
    page.write_text((DOCS / "performance.md").read_text(encoding="utf-8"), encoding="utf-8")
    assert speed.main(["--quick", "--docs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for part in ("symmetric", "p-spin", "general", "grouped", "Euler", "import"):
        assert part in printed
    # Start-up errors of order one would show here: the independent scheme and the solver agree.
    (agreement,) = re.findall(r"distance from our reference: (\S+)", printed)
    assert float(agreement) < 1e-3
    text = page.read_text(encoding="utf-8")
    assert "### Width" in text
    assert "<!-- accuracy:begin -->" in text
    assert (tmp_path / "figures" / "performance.png").stat().st_size > 1000


def test_a_case_runs_in_its_own_process() -> None:
    record = speed.measured(speed.case("symmetric", width=4, t_final=0.1, rtol=1e-2, repeats=1))
    assert record["done"]
    assert record["wall"] > 0.0
    assert 20.0 < record["memory"] < 2000.0


@pytest.mark.parametrize(
    ("value", "target", "verdict"),
    [
        (1.9, at_most(2.0), "PASS"),
        (2.1, at_most(2.0), "FALL SHORT"),
        (math.nan, at_most(2.0), "FALL SHORT"),
        (999.0, (1000.0, np.inf), "FALL SHORT"),
        (-0.66, (-0.68, -0.65), "PASS"),
        (5.0, None, ""),
    ],
)
def test_verdict(value: float, target: tuple[float, float] | None, verdict: str) -> None:
    assert Line("x", value, "s", target).verdict == verdict


def test_replaces_one_section_only(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n")
    replace_section(page, "x", "new")
    assert page.read_text() == "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n"
    with pytest.raises(ValueError, match="y:begin"):
        replace_section(page, "y", "new")
