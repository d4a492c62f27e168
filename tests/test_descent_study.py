"""The studies of discrete optimisers: their grids, what is read off a run, files that are kept, tables and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dmft
from dmft.optimizers import SGD, GradientDescent, Momentum
from validation.comparison.records import Row
from validation.descent import __main__ as main
from validation.descent import networks, runs, simulated, study, study_plots
from validation.descent.runs import Run, solve_all

SMALL = dataclasses.replace(study.PROBLEM, width=2)


def test_grids_have_no_run_twice() -> None:
    names = [run.name for run in study.grid() + study.small_batches()]
    assert len(set(names)) == len(names)
    assert len({run.key() for run in study.grid() + study.small_batches()}) == len(names)
    for cases in (simulated.CASES, networks.CASES):
        assert len({case.name for case in cases}) == len(cases)


def test_solutions_are_kept(tmp_path: Path) -> None:
    wanted = [Run("flow", SMALL, 1.0), Run("gd", SMALL, 1.0, GradientDescent(learning_rate=0.1))]
    said: list[str] = []
    first = solve_all(wanted, tmp_path, 1, said.append)
    assert len(said) == 2 and said[-1].startswith("[2/2] gd: ")
    again = solve_all(
        [*wanted, Run("sgd", SMALL, 1.0, SGD(learning_rate=0.1, batch_fraction=0.5))], tmp_path, 1, said.append
    )
    assert said[2] == "2 of 3 solutions were there already" and said[3].startswith("[3/3] sgd: ")
    assert list(again) == ["flow", "gd", "sgd"]
    np.testing.assert_array_equal(again["gd"].test_error, first["gd"].test_error)
    assert again["flow"].optimizer is None and again["gd"].optimizer == wanted[1].optimizer
    (tmp_path / f"{wanted[0].key()}.h5").write_bytes(b"no file of ours")
    solve_all(wanted[:1], tmp_path, 1, said.append)
    assert said[-1].startswith("[1/1] flow")


def test_keys_depend_on_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("gd", SMALL, 1.0, GradientDescent(learning_rate=0.1))
    before = run.key()
    monkeypatch.setattr(runs, "code_digest", lambda: "another")
    assert run.key() != before


def test_reading_is_in_the_time_of_the_flow() -> None:
    flow = dmft.solve(SMALL, 20.0, rtol=1e-6)
    heavy = dmft.solve(SMALL, 10.0, optimizer=Momentum(learning_rate=0.02, momentum=0.5))
    one, other = study.read(flow), study.read(heavy)
    assert other.last == pytest.approx(20.0)
    for name, value in dataclasses.asdict(one).items():
        assert getattr(other, name) == pytest.approx(value, rel=0.02, abs=0.01), name
    assert study.effective_rate(Momentum(learning_rate=0.2, momentum=0.9)) == pytest.approx(2.0)


def test_rises_within_an_epoch_are_not_counted() -> None:
    epochs = dmft.solve(SMALL, 10.0, optimizer=SGD(learning_rate=0.5, batch_fraction=0.25, sampling="epochs"))
    risen = np.diff(epochs.train_error) > 0.0
    assert risen[len(risen) // 2 :].any()
    assert study.read(epochs).rising == 0.0


def test_edge_of_the_linear_part() -> None:
    """The largest curvature of linear regression on a sphere of samples, from the eigenvalues of a random matrix."""
    alpha_m, d = study.PROBLEM.alpha * study.PROBLEM.width, 600
    x = np.random.default_rng(1).standard_normal((round(alpha_m * d), d))
    largest = np.linalg.eigvalsh(x.T @ x / len(x))[-1]
    gamma = study.steepest(1.3, 0.5)
    assert 1.3 * gamma**2 * 0.9 * largest == pytest.approx(3.0, rel=0.03)


def test_small_batches_are_extrapolated_at_first_order() -> None:
    """Curves that are linear in b have the limit b = 0, whatever the grids of times."""
    found: dict[str, Any] = {}
    for run in study.small_batches():
        assert run.optimizer is not None
        t = np.arange(0.0, study.LIMIT_END + 1e-9, run.optimizer.step(study.PROBLEM))
        curve = 0.5 + 0.1 * run.optimizer.batch_fraction + 0.001 * t
        found[run.name] = SimpleNamespace(t=t, test_error=curve)
    times, curves, limit = study.limit_of_small_batches(found, "epochs")
    np.testing.assert_allclose(limit, 0.5 + 0.001 * times, atol=1e-12)
    np.testing.assert_allclose(study.distances(curves, limit), 0.1 * np.array(study.LIMIT_BATCHES) / limit.max())


def test_simulations_are_kept_and_compared_with_both_theories(tmp_path: Path) -> None:
    said: list[str] = []
    case = simulated.Case("index", Momentum(learning_rate=0.3, momentum=0.8))
    for _ in range(2):
        found = simulated.run(tmp_path, 1, said.append, [case], {10: 60, 20: 40})
    assert sum("replicas" in line for line in said) == 2  # one for each dimension, and none the second time
    one = found[case.name]
    assert one.report.max_abs_z < 5.0
    flow, place = one.flow_z
    assert flow > 8.0 and " at t = " in place
    text = simulated.markdown(found)
    assert f"| index | η = 0.3, β = 0.8 | 27 | 10–20 | {len(one.report.rows)} |" in text
    simulated.plot(found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_records_are_at_whole_updates_and_epochs() -> None:
    solution = dmft.solve(SMALL, 40.0, optimizer=SGD(learning_rate=0.5, batch_fraction=0.3, sampling="epochs"))
    for times, whole in ((simulated.recorded(solution), 1), (networks.recorded(solution), 3)):
        updates = times / solution.t[1]
        np.testing.assert_allclose(updates / whole, np.round(updates / whole), atol=1e-9)
        assert times[0] == 0.0 and times[-1] > 0.9 * solution.t[-1] and len(times) >= 10


def row(gap: float, error: float) -> Row:
    fields: dict[str, object] = {field.name: None for field in dataclasses.fields(Row)}
    return Row(**(fields | {"observable": "a", "gap": gap, "error": error, "scale": 2.0}))  # type: ignore[arg-type]


def test_distance_is_a_root_mean_square() -> None:
    found = networks.distance([row(0.3, 0.02), row(-0.4, 0.02)], "a")
    assert found.gap == pytest.approx(0.25**0.5 / 2**0.5)
    assert found.error == pytest.approx(0.01)


def test_command_writes_the_sections_of_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "figures").mkdir()
    page = tmp_path / "optimizers.md"
    page.write_text("head\n<!-- edge:begin -->\nold\n<!-- edge:end -->\ntail\n")
    asked: list[object] = []

    def run(directory: Path, workers: int, tell: Callable[[str], None]) -> str:
        asked.extend([directory, workers])
        tell("running")
        return "found"

    monkeypatch.setitem(main.PARTS, "edge", (run, lambda found, path: path.write_text(found), str.upper))
    arguments = ["edge", "--out", str(tmp_path / "out"), "--workers", "2", "--docs", str(tmp_path)]
    assert main.main(arguments) == 0
    assert asked == [tmp_path / "out" / "edge", 2]
    assert page.read_text() == "head\n<!-- edge:begin -->\nFOUND\n<!-- edge:end -->\ntail\n"
    assert (tmp_path / "figures" / "optimizers_edge.png").read_text() == "found"
    assert capsys.readouterr().out.startswith("running\nFOUND\nedge: 0 s")

    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setitem(main.PARTS, "edge", (interrupted, *main.PARTS["edge"][1:]))
    assert main.main(arguments) == 1 and "finished runs are kept" in capsys.readouterr().err
    with pytest.raises(SystemExit) as failure:
        main.main(["edges"])
    assert failure.value.code == 2


def test_study_is_told_and_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At a small width and a short time, where every run takes milliseconds."""
    monkeypatch.setattr(study, "PROBLEM", dataclasses.replace(study.PROBLEM, width=2))
    monkeypatch.setattr(study, "END", 20.0)
    found = study.run(tmp_path, 1, lambda line: None)
    lines = study.markdown(found).splitlines()
    assert sum(line.startswith("| ") for line in lines) == len(study.grid()) + 1 + 3
    assert lines[2].startswith("| gradient flow |  | ")
    study_plots.plot(found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
