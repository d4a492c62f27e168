"""Configurations run to the end: nothing is computed twice, and the command line shows what was found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dmft
from dmft import cli, config
from validation import dynamics, experiment, gallery

TINY = """
[model]
kind = "symmetric"
width = 2
alpha = 0.5
noise_std = 0.5
a0 = 1.0
activation = { covariance = [0, 0.6, 0.4] }
target = { same_as_activation = true }
[solve]
t_final = 0.5
rtol = 1e-3
[[simulate]]
model = "gaussian"
dimension = [10, 20]
replicas = 4
times = [0.0, 0.25, 0.5]
pair_times = [0.5]
[[simulate]]
model = "network"
dimension = 10
replicas = 4
times = [0.0, 0.25, 0.5]
pair_times = []
test_samples = 100
"""


def _forbidden(*_: object, **__: object) -> None:
    raise AssertionError("computed again")


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch):
    """Make every computation an error."""

    def now() -> None:
        # The tree may hold changes that are not committed, and then no solution counts as made by it.
        monkeypatch.setattr(experiment, "made_by_this_version", lambda path: True)
        monkeypatch.setattr(dynamics, "run", _forbidden)
        monkeypatch.setattr(experiment, "solve", _forbidden)

    return now


def test_everything_is_kept_and_nothing_is_computed_twice(tmp_path: Path, forbid) -> None:
    tiny = config.parse(TINY, name="tiny")
    first = experiment.run(tiny, tmp_path)
    names = {"tiny.h5", "tiny-gaussian-d10.h5", "tiny-gaussian-d20.h5", "tiny-network-d10.h5"}
    names |= {"tiny.csv", "tiny.json", "tiny.png"}
    assert {file.name for file in first.files} == names == {file.name for file in tmp_path.iterdir()}
    assert first.report is not None
    assert [section.model for section in first.report.sections] == ["gaussian", "network"]
    forbid()
    second = experiment.run(tiny, tmp_path)
    assert second.report is not None
    assert second.report.to_dict() == first.report.to_dict()


def test_a_solution_of_another_version_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = config.parse(TINY, name="tiny")
    experiment.theory(tiny, tmp_path / "tiny.h5")
    monkeypatch.setattr(experiment, "solve", _forbidden)
    monkeypatch.setattr(experiment, "made_by_this_version", lambda path: False)
    with pytest.raises(AssertionError, match="computed again"):
        experiment.theory(tiny, tmp_path / "tiny.h5")
    monkeypatch.setattr(experiment, "made_by_this_version", lambda path: True)
    assert experiment.theory(tiny, tmp_path / "tiny.h5").status.ok


def test_interruptions_keep_complete_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = config.parse(TINY, name="tiny")
    experiment.run(tiny, tmp_path)
    before = (tmp_path / "tiny-gaussian-d10.h5").read_bytes()
    more = config.parse(TINY, ["simulate.replicas=6"], name="tiny")
    asked = iter([False] * 3 + [True] * 100)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(more, tmp_path, stop=lambda: next(asked))
    assert (tmp_path / "tiny-gaussian-d10.h5").read_bytes() == before
    assert list(tmp_path.glob("tiny-gaussian-*.replicas"))
    report = experiment.run(more, tmp_path).report
    assert report is not None
    assert report.sections[0].replicas == (6, 6)
    assert not list(tmp_path.glob("*.replicas"))


@pytest.mark.parametrize(
    "change",
    [
        "model.noise_std=0.6",
        "simulate.seed=1",
        pytest.param("simulate.replicas=5", marks=pytest.mark.slow),
        pytest.param("solve.t_final=0.4", marks=pytest.mark.slow),
    ],
)
def test_other_parameters_are_not_served_from_old_files(change: str, tmp_path: Path, forbid) -> None:
    text = TINY.replace("times = [0.0, 0.25, 0.5]\n", "").replace("pair_times = [0.5]\n", "")
    experiment.run(config.parse(text, name="tiny"), tmp_path)
    forbid()
    with pytest.raises((AssertionError, Exception), match="computed again"):
        experiment.run(config.parse(text, [change], name="tiny"), tmp_path)


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    tiny = config.parse(TINY, name="tiny")
    first = experiment.run(tiny, tmp_path)
    (tmp_path / "tiny-gaussian-d10.h5").write_bytes(b"not HDF5")
    second = experiment.run(tiny, tmp_path)
    assert first.report is not None
    assert second.report is not None
    assert second.report.to_dict()["sections"] == first.report.to_dict()["sections"]


def test_compare_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    out = tmp_path / "out"
    assert cli.main(["compare", str(tmp_path / "tiny.toml"), "--out", str(out), "--workers", "1"]) == 0
    shown = capsys.readouterr().out
    assert "Gaussian model" in shown
    assert "true network" in shown
    files = [str(out / f"tiny{suffix}.h5") for suffix in ("", "-gaussian-d10", "-gaussian-d20")]
    assert cli.main(["compare", *files, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["kind"] == "comparison"
    assert cli.main(["compare", *files[1:]]) == 2  # no theory
    assert "exactly one run" in capsys.readouterr().err
    other = str(tmp_path / "other.h5")
    overrides = ["--set", "model.noise_std=0.7", "--set", "model.alpha=0.4"]
    assert cli.main(["solve", str(tmp_path / "tiny.toml"), "--out", other, "--quiet", *overrides]) == 0
    assert cli.main(["compare", other, *files[1:]]) == 2  # another problem: refused, naming what differs
    said = capsys.readouterr().err
    assert "noise_std" in said
    assert "alpha" in said


def test_the_gallery_puts_reports_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = TINY + '[sweep]\n"model.width" = [2, 3]\n'
    texts = {"agree_tiny": TINY, "network_tiny": sweep}
    (tmp_path / "configs").mkdir()
    for name, text in texts.items():
        (tmp_path / "configs" / f"{name}.toml").write_text(text)
    monkeypatch.setattr(config, "_ready_directory", lambda: tmp_path / "configs")
    out, reference = tmp_path / "out", tmp_path / "reference"
    code = gallery.main(["agree", "network", "--out", str(out), "--reference", str(reference), "--workers", "1"])
    agreement = json.loads((reference / "agreement.json").read_text())
    assert code == (0 if agreement["sound"] else 1)
    assert list(agreement["settings"]) == ["agree_tiny"]
    gaps = json.loads((reference / "network_gaps.json").read_text())
    assert len(gaps) == 3  # two members of the sweep, and the network in agree_tiny
    assert (out / "network_tiny.png").stat().st_size > 10_000
    assert {path.name for path in reference.iterdir()} >= {"agree_tiny.json", "network_tiny-width3.json"}
    assert "network_tiny-width2" in capsys.readouterr().out


def test_replicas_of_a_stored_simulation_are_reproducible() -> None:
    """Replica 3 of the stored guard simulations, made again from nothing but its parameters."""
    reference = Path(__file__).resolve().parent.parent / "data" / "reference"
    stored = dmft.load(reference / "guard-gaussian-d30.h5")
    assert isinstance(stored, dmft.Simulation)
    again = dmft.simulate(stored.problem, 30, t_final=4.0, replicas=[3], times=stored.t, pair_times=stored.pair_times)
    values = stored.sample("train_error").values
    assert values is not None
    # Another machine may sum in another order, and the adaptive integrator amplifies that up to its tolerance.
    assert again.sample("train_error").mean == pytest.approx(values[3], rel=1e-4)
