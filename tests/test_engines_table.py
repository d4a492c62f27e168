"""The tables of docs/engines.md: what they run, what they keep, and what they say of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmft
from dmft.verification import Difference, Quality, Verification
from validation.engines import SETTINGS, Run, __main__, cost, run_all, runs, table
from validation.engines.settings import Setting, network

TIMES = (0.1, 0.15, 0.2, 0.3, 0.4)
SMALL = (
    Setting("p-spin, short", dmft.PSpinProblem(covariance=[0, 0, 1.0]), 1.0),
    network(4, "quad", 0.3, 0.6, 1.0),
)


def test_settings_cover_what_they_are_to_cover() -> None:
    assert len(SETTINGS) >= 40
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
    networks = [s.problem for s in SETTINGS if isinstance(s.problem, dmft.SymmetricProblem)]
    assert {problem.width for problem in networks} == {1, 2, 4, 16, 64, 256, 1024, 2**14, 2**20}
    assert {problem.gamma0 is None for problem in networks} == {True, False}
    assert {problem.train_second_layer for problem in networks} == {True, False}
    assert min(problem.alpha for problem in networks) <= 0.02 and max(problem.alpha for problem in networks) >= 2.0
    for width in (1, 4, 16, 256, 1024, 2**14, 2**20):  # nothing is shown by a run that ends before anything happens
        assert any(s.t_final >= min(20 * width, 1e6) for s in SETTINGS if getattr(s.problem, "width", None) == width)
    kinds = {setting.problem.kind for setting in SETTINGS}
    assert kinds == {"symmetric", "infinite_width", "pspin"}
    assert sum(setting.problem.kind == "pspin" for setting in SETTINGS) >= 4


def test_finished_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    found = table.records(SMALL, tmp_path, 1, said.append, 1e-2)
    assert [record["name"] for record in found] == [setting.name for setting in SMALL]
    assert len(said) == 2 and said[1].startswith("[2/2]")
    monkeypatch.setattr(runs, "_solve", lambda run: pytest.fail(f"{run.name} was solved again"))
    assert table.records(SMALL, tmp_path, 1, said.append, 1e-2) == found
    # Not those of another tolerance, nor of other code, nor damaged ones.
    solved: list[str] = []

    def solve(run: Run) -> Any:
        solved.append(run.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "_solve", solve)
    with pytest.raises(KeyboardInterrupt):
        table.records(SMALL, tmp_path, 1, said.append, 1e-3)
    (tmp_path / "runs" / f"{runs._file(SMALL[1].name, tmp_path).name}").write_text("{")
    with pytest.raises(KeyboardInterrupt):
        table.records(SMALL, tmp_path, 1, said.append, 1e-2)
    monkeypatch.setattr(runs, "code_digest", lambda: "other")
    with pytest.raises(KeyboardInterrupt):
        table.records(SMALL, tmp_path, 1, said.append, 1e-2)
    assert solved == [SMALL[0].name, SMALL[1].name, SMALL[0].name]


def test_interrupted_table_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(__main__, "SETTINGS", SMALL)
    page = tmp_path / "engines.md"
    page.write_text("head\n<!-- engines:begin -->\nold\n<!-- engines:end -->\ntail\n")
    arguments = ["table", "--out", str(tmp_path / "out"), "--docs", str(tmp_path), "--rtol", "1e-2"]
    whole = runs._solve

    def second_is_interrupted(run: Run) -> Any:
        if run.name == SMALL[1].name:
            raise KeyboardInterrupt
        return whole(run)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_solve", second_is_interrupted)
        assert __main__.main(arguments) == 1
    assert "interrupted" in capsys.readouterr().err and "old" in page.read_text()
    assert __main__.main(arguments) == 0
    assert "1 of 2 runs were there already" in capsys.readouterr().out
    text = page.read_text()
    assert text.startswith("head\n<!-- engines:begin -->\n2 settings") and text.endswith("<!-- engines:end -->\ntail\n")
    assert "2 agree" in text and all(f"| {setting.name} |" in text for setting in SMALL)
    stored = json.loads((tmp_path / "out" / "engines.json").read_text())
    assert all(Verification.from_dict(record["verification"]).agrees for record in stored)


@pytest.mark.slow
def test_two_workers_find_the_same(tmp_path: Path) -> None:
    def plain(found: list[dict[str, Any]]) -> list[Any]:
        return [Verification.from_dict(record["verification"]).differences for record in found]

    one = table.records(SMALL, tmp_path / "one", 1, print, 1e-2)
    two = table.records(SMALL, tmp_path / "two", 2, print, 1e-2)
    assert plain(one) == plain(two)


def test_words_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in ((["tables"], "no part"), (["--only", "no such setting"], "no setting")):
        with pytest.raises(SystemExit):
            __main__.main(arguments)
        assert words in capsys.readouterr().err


QUALITY = Quality(balance_median=0.0, balance_largest=2e-3, drift=0.0, wall_time=1.25)


def record(*found: Difference, name: str = "x", **changes: Any) -> dict[str, Any]:
    checked = Verification(
        rtol=1e-6,
        check_method="other",
        check_rtol=1e-6,
        independent=True,
        status=dmft.Status.DONE,
        message="",
        times=(1.0,),
        differences=found,
        run=QUALITY,
        check=replace(QUALITY, balance_median=3e-7, wall_time=4.0),
    )
    return {"name": name, "t": 20.0, "key": {"code": "c0de"}, "verification": replace(checked, **changes).to_dict()}


def test_rows_say_what_was_found() -> None:
    good = Difference(curve="a", largest=2e-7, time=1.0)
    far = Difference(curve="train_error", largest=4e-4, time=1.0, amplification=120.0)
    wrong = replace(far, amplification=0.5)
    text = table.markdown(
        [
            record(good),
            record(good, far, name="near"),
            record(good, wrong, name="wrong"),
            record(name="broken", status=dmft.Status.ROW_FAILED, check=None),
        ]
    )
    summary, _, _, _, *rows = text.splitlines()
    assert "4 settings, 4 of them checked by another engine" in summary
    assert "1 agree" in summary and "largest 2.0e-07" in summary
    assert "1 differ by what the measured amplification" in summary and "1 differ otherwise, 1 were not" in summary
    assert summary.endswith("rtol 1e-06. Code: sha256 c0de.")
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert {len(row) for row in cells} == {len(table.HEAD.split("|")[1:-1])}
    assert cells[0] == [
        *("x", "20", "other, 1e-06", "2e-07", "–", "–", "–", "–"),
        *("0 (2e-03)", "3e-07 (2e-03)", "1.2", "4.0", "", "agrees"),
    ]
    assert cells[1][6] == "4e-04" and cells[1][-2:] == ["120", "explained"]
    assert cells[2][-1] == "**differs**" and cells[3][-1] == "**check ended at t = 1: row_failed**"


def test_exponents_are_those_of_the_costly_half() -> None:
    x = 10.0 ** np.arange(6)
    assert cost.exponent(x, 3.0 * x**0.4) == pytest.approx((0.4, 0.0))
    assert cost.exponent(x, np.maximum(5.0, 0.01 * x**1.5))[0] == pytest.approx(1.5)
    # Off the line by (e, -2 e, e): the slope stays, and its standard error is sqrt(6 e^2 / 1 degree) / sqrt(2).
    off = 10.0 ** (0.01 * np.array([0, 0, 0, 1, -2, 1]))
    assert cost.exponent(x, x**0.5 * off) == pytest.approx((0.5, 0.01 * np.sqrt(3.0)))
    assert cost.exponent(1.0 / x, x**0.5)[0] == pytest.approx(-0.5)
    assert np.isnan(cost.exponent(x[:3], x[:3])).all()


def test_cost_is_measured_for_every_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "REPEATS", 1)
    problem = SMALL[1].problem
    series = (cost.Series("T", "small", tuple(cost.Point(t, problem, t, 1e-2) for t in TIMES)),)
    lines = cost.measure(tmp_path, lambda _: None, series)
    assert [line.method for line in lines] == list(cost.methods(problem)) and len(lines) >= 2
    for line in lines:
        assert line.x.tolist() == list(TIMES) and (line.seconds > 0.0).all() and np.isfinite(line.exponent)
    text = cost.markdown(lines)
    assert all(f"| T | small | {line.method} | {line.exponent:.2f} ± {line.error:.2f} |" in text for line in lines)
    cost.plot(lines, tmp_path / "figures" / "cost.png")
    assert (tmp_path / "figures" / "cost.png").stat().st_size > 5000
    again = cost.measure(tmp_path, lambda _: None, series)  # from the files
    assert [line.seconds.tolist() for line in again] == [line.seconds.tolist() for line in lines]


def test_runs_that_fail_are_left_out_of_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = SMALL[1].problem
    series = (cost.Series("T", "small", tuple(cost.Point(t, problem, t, 1e-2) for t in TIMES)),)

    def found(wanted: list[Run], *_: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": run.name,
                "wall_time": run.t_final,
                "load": run.t_final,
                "status": "row_failed" if run.t_final == TIMES[1] else "done",
            }
            for run in wanted
        ]

    monkeypatch.setattr(cost, "run_all", found)
    for line in cost.measure(tmp_path, print, series):
        assert line.x.tolist() == [TIMES[0], *TIMES[2:]] and line.load == TIMES[-1]


def test_replaces_one_section_only(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n")
    __main__.replace_section(page, "x", "new")
    assert page.read_text() == "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n"
    with pytest.raises(ValueError, match="no section"):
        __main__.replace_section(page, "y", "new")


def test_names_of_runs_are_their_files(tmp_path: Path) -> None:
    one = Run("x", SMALL[0].problem, 0.01, 1e-2)
    assert run_all([one], tmp_path, 1, lambda _: None)[0]["name"] == "x"
    assert len(list(tmp_path.iterdir())) == 1
