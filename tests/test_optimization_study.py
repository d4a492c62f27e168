"""Tables of the optimization threshold, from a study of a few runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from validation.optimization import study, tables
from validation.optimization.__main__ import main as study_command
from validation.optimization.finite_size.__main__ import main as finite_size_command


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> study.Study:
    """Runs of all groups, none long; no thresholds, which take minutes."""
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "searches", list)
        patch.setattr(
            study,
            "runs",
            lambda: (
                [
                    study.Solved(group="plateau", activation="quad", noise_std=1.0, sample_ratio=x, length=30.0)
                    for x in (1e4, 1e5)
                ]
                + [
                    study.Solved(
                        group="growing", activation="cubic", noise_std=0.6, sample_ratio=0.3 * m, width=m, length=x
                    )
                    for m, x in ((128, 100.0), (4096, 30.0))
                ]
                + [study.Solved(group="plane", activation="cubic", noise_std=1.0, sample_ratio=50.0, length=30.0)]
                + [study.Solved(group="continuous", activation="relu8", noise_std=1.0, sample_ratio=3e3, length=30.0)]
            ),
        )
        found = study.run(out)
        assert not found.failures and not found.interrupted and len(found.runs) == 6
        again = study.run(out)
    for one, two in zip(found.runs, again.runs, strict=True):
        assert one.run == two.run  # wall times too: nothing was solved again
    return found


@pytest.fixture(scope="module")
def summary(small: study.Study) -> dict[str, Any]:
    """Its numbers, with one truncation of relu."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "RELU_THEORY", (8,))
        return small.summary()


def test_laws_of_the_plateau_are_read_off(summary: dict[str, Any]) -> None:
    (row,) = summary["plateau_laws"]
    assert row["powers"]["a - 1"] == pytest.approx(-0.5, abs=0.05)
    for row in summary["plateaus"]:
        assert row["a"] == pytest.approx(row["a_theory"], rel=5e-3)
        assert row["v"] == pytest.approx(row["v_theory"], rel=5e-3)


def test_runs_of_relu_stand_beside_the_theory(summary: dict[str, Any]) -> None:
    (row,) = summary["continuous"]
    assert row["regime"] == "plateau" and row["v_theory"] < row["v"] < 1.0
    assert tables.TABLES["continuous"](summary).endswith(f"| {row['v_theory']:.3f} |")
    (theory,) = summary["relu"]
    assert theory["predicted"] < theory["single_ratio"]


def test_widths_at_fixed_alpha_are_on_either_side(summary: dict[str, Any]) -> None:
    narrow, wide = sorted(summary["growing"], key=lambda row: row["width"])
    assert narrow["regime"] == "interpolates" and 1.0 < narrow["time_over_m"] < 20.0
    assert wide["regime"] == "plateau" and wide["time_over_m"] is None


def test_pages_get_their_tables(summary: dict[str, Any]) -> None:
    page = "Text.\n\n<!-- table: growing -->\nold\n<!-- end -->\n\nMore.\n"
    new = tables.fill(page, summary)
    assert new.startswith("Text.\n\n<!-- table: growing -->\n| m |") and new.endswith("<!-- end -->\n\nMore.\n")
    assert "old" not in new and "| 4096 | 1228.8 | not by" in new
    assert tables.fill(new, summary) == new
    with pytest.raises(ValueError, match="table must be one of"):
        tables.fill(page.replace("growing", "shrinking"), summary)


def test_every_table_of_the_page_is_known() -> None:
    page = (Path(__file__).parent.parent / "docs" / "optimization.md").read_text(encoding="utf-8")
    names = {line.split()[2] for line in page.splitlines() if line.startswith("<!-- table:")}
    assert names == {*tables.TABLES, *tables.ELSEWHERE}


def test_tables_of_other_commands_stay_and_can_be_replaced(summary: dict[str, Any]) -> None:
    page = "<!-- table: growing -->\nold\n<!-- end -->\n\n<!-- table: finite-size -->\nkept\n<!-- end -->\n"
    assert tables.fill(page, summary).endswith("<!-- table: finite-size -->\nkept\n<!-- end -->\n")
    new = tables.replace_table(page, "finite-size", "| m |\n|---|\n| 1 |\n")
    assert new == page.replace("kept", "| m |\n|---|\n| 1 |")
    with pytest.raises(ValueError, match="table: finite-size"):
        tables.replace_table(page[: page.index("<!-- table: finite")], "finite-size", "new")


@pytest.mark.parametrize("command", [study_command, finite_size_command])
@pytest.mark.parametrize(
    ("text", "word"),
    [
        (None, "cannot be read"),
        ("No tables.\n", "has no table"),
        ("<!-- table: shrinking -->\n<!-- end -->\n", "table must be one of"),
        ("<!-- table: growing -->\n<!-- end -->\n<!-- table: finite-size -->\n<!-- end -->\n", "cannot be written"),
    ],
)
def test_pages_are_looked_at_before_the_runs(
    command: Callable[[Sequence[str]], int],
    text: str | None,
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    monkeypatch.setattr(tables.os, "access", lambda path, mode: False)  # root may write what is read-only
    with pytest.raises(SystemExit) as ended:
        command(["--out", str(tmp_path / "out"), "--page", str(page)])
    assert ended.value.code == 2 and not (tmp_path / "out").exists()
    assert word in capsys.readouterr().err.splitlines()[-1]


def test_table_of_both_engines_has_the_accepted_ends_and_counts_the_others() -> None:
    def check(end: str, ratio: float, agrees: bool | None, **more: float) -> dict[str, Any]:
        empty = dict.fromkeys(
            ("unlearning", "halving", "unlearning_difference", "halving_difference", "v_difference"), None
        )
        return {"end": end, "sample_ratio": ratio, "agrees": agrees, "other_train_end": 0.7} | empty | more

    checks = [
        check("low", 110.0, False, unlearning=600.0, v_difference=1e-3),
        check("low", 100.0, True, unlearning=500.0, unlearning_difference=-2e-4, v_difference=3e-7),
        check("high", 120.0, None),
    ]
    row = {"activation": "quad", "noise_std": 0.5, "a0": 1.0, "width": None, "third": None, "train_end": 0.02}
    table = tables.TABLES["engines"]({"thresholds": [row | {"checks": checks}]})
    assert table.splitlines()[-1] == (
        "| quad, τ = 0.5, a(0) = 1, m = ∞ | 100 | leaves | 500 | -2e-04 | +3e-07 | 0.70 | 0.02 | 120 | "
        "unknown | - | 1 |"
    )
    halved = check("low", 100.0, True, unlearning=500.0, halving=400.0, halving_difference=1e-4)
    table = tables.TABLES["engines"]({"thresholds": [row | {"checks": [halved, check("high", 120.0, True)]}]})
    assert "| 100 | leaves | 400 | +1e-04 | - |" in table and "| 120 | stays |" in table


@pytest.mark.slow
def test_expansion_in_the_inverse_width_is_the_beginning_of_the_runs(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "searches", list)
        patch.setattr(study, "runs", lambda every=study.runs: [x for x in every() if x.group == "expanded"])
        t, growth, widths = study.expansion(study.run(tmp_path))
    times, difference = widths[max(widths)]
    early = (times > 50.0) & (times < max(widths) ** 0.5)
    expected = np.interp(times[early], t, growth) / max(widths)
    assert difference[early] == pytest.approx(expected, rel=0.1)
    late = times > 100.0 * max(widths) ** 0.5 * 0.9
    assert difference[late].max() < 0.1 * np.interp(times[late], t, growth).min() / max(widths)
