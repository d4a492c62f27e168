"""Sweeps of ReLU networks: trainings, observables, thresholds, files, configurations and the command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmft
from dmft import cli
from dmft import config as model_configuration
from dmft.files import FileFormatError
from validation.relu import config as configuration
from validation.relu import files, observables, study, sweep
from validation.relu.data import DataLaw, Dataset, Teacher
from validation.relu.network import Network, Nonlinearity
from validation.relu.report import ReluReport
from validation.relu.sweep import CURVES, MEASURED, VERDICTS, Source, Sweep, SweepResult
from validation.relu.threshold import Threshold, crossing, exponent, thresholds
from validation.relu.training import Training, Verdict, verdict
from validation.relu.trajectory import Reason, Trajectory, escape_time

TINY = Sweep(
    source=Source(margin=1.0),
    training=Training(width=20),
    samples=(4, 12, 60),
    dimensions=(3,),
    scales=(1e-3,),
    seeds=3,
)


@pytest.fixture(scope="module")
def tiny() -> SweepResult:
    return sweep.run(TINY)


# ------------------------------------------------------------------------------------------------- training


def test_verdicts() -> None:
    def ended(loss: float, reason: Reason) -> Verdict:
        course = Trajectory(
            np.array([0.0, 1.0]), np.array([4.0, loss]), np.zeros(2), np.zeros((2, 1, 1)), np.zeros((2, 1)), reason, 1,
            Nonlinearity(), 0.5,
        )  # fmt: skip
        return verdict(course, Dataset(np.eye(2), np.full(2, 2.0), np.full(2, 2.0)))

    assert ended(3e-8, Reason.LOSS) is Verdict.INTERPOLATED
    assert ended(3e-8, Reason.TIME) is Verdict.INTERPOLATED  # 1e-8 of the mean squared label, whatever the reason
    assert ended(5e-8, Reason.STATIONARY) is Verdict.STATIONARY
    for reason in (Reason.TIME, Reason.STEPS, Reason.INTERRUPTED, Reason.FAILED):
        assert ended(1.0, reason) is Verdict.UNFINISHED
    assert ended(1.0, Reason.CHANGE) is Verdict.STATIONARY
    assert ended(1.0, Reason.DIVERGED) is Verdict.DIVERGED


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"optimizer": "gd", "t_final": 1.0}, "learning_rate is missing"),
        ({"optimizer": "gd", "learning_rate": 0.1}, "t_final is missing"),
        ({"learning_rate": 0.1}, "learning_rate goes with gd"),
        ({"activation": Nonlinearity("gelu")}, "t_final is missing"),
        ({"optimizer": "sgd"}, "optimizer must be one of"),
        ({"initialisation": "zero"}, "initialisation must be one of"),
        ({"initialisation": "zero_output", "width": 5}, "width must be even"),
        ({"scale": 0.0}, "scale must be"),
        ({"tolerance": 1.0}, "tolerance must be"),
    ],
)
def test_bad_trainings_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        Training(**values)


@pytest.mark.parametrize("optimizer", ["gd", "adam"])
def test_every_optimiser_ends_where_the_flow_does(optimizer: str) -> None:
    # Beyond the threshold with a margin there is one end, split least squares.
    law = DataLaw(dimension=3, teacher=Teacher.unit(3), margin=1.0, noise_std=0.3)
    data = law.draw(60, np.random.default_rng(0))
    rate, t_final = (0.1, 300.0) if optimizer == "gd" else (1e-3, 30.0)
    training = Training(width=20, optimizer=optimizer, learning_rate=rate, t_final=t_final)
    network = training.start(3, np.random.default_rng(1))
    descended, followed = training.run(network, data), Training(width=20).run(network, data)
    assert descended.train_loss[-1] == pytest.approx(followed.train_loss[-1], rel=1e-3)
    if optimizer == "gd":
        assert descended.escape_time == pytest.approx(followed.escape_time, rel=0.1)


def test_gelu_is_trained_by_its_flow() -> None:
    law = DataLaw(dimension=3, teacher=Teacher.unit(3), noise_std=0.1)
    data = law.draw(20, np.random.default_rng(0))
    training = Training(width=10, activation=Nonlinearity("gelu"), t_final=50.0)
    course = training.run(training.start(3, np.random.default_rng(1)), data)
    assert course.train_loss[-1] < 0.1 * course.train_loss[0]


def test_escape_time_between_records() -> None:
    t = np.linspace(0.0, 10.0, 41)
    loss = 2.0 * (1.0 - 1e-4 * np.exp(t))  # exp(t) = 1000.9 where it is 0.9 of the first value
    assert escape_time(t, loss) == pytest.approx(math.log(1000.9), abs=1e-4)
    assert escape_time(t[:5], loss[:5]) == math.inf


# ---------------------------------------------------------------------------------------------- observables


def test_alignment_with_the_drives_by_hand() -> None:
    data = sweep.dataset(TINY, 3, 12, 0)[0]
    rng = np.random.default_rng(3)
    network = Network(rng.standard_normal((4, 3)), np.array([1.0, -2.0, 0.0, 1e-9]))
    for j in range(4):
        seen = data.inputs @ network.weights[j] > 0
        drive = (data.labels[seen, None] * data.inputs[seen]).sum(axis=0) / 12
        np.testing.assert_allclose(observables.early_drives(network, data)[j], drive)
        cosine = drive @ network.weights[j] / np.linalg.norm(drive) / np.linalg.norm(network.weights[j])
        assert observables.cosines(network, data)[j] == pytest.approx(np.sign(network.outer[j]) * cosine)
    np.testing.assert_array_equal(observables.active(network, data), [True, True, False, False])


def test_a_neuron_that_sees_nothing_does_not_count() -> None:
    data = sweep.dataset(TINY, 3, 12, 0)[0]
    inputs = np.abs(data.inputs)
    network = Network(np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]), np.ones(2))
    np.testing.assert_array_equal(observables.active(network, replace(data, inputs=inputs)), [True, False])


# --------------------------------------------------------------------------------------------------- sweeps


def test_beyond_the_threshold_the_end_is_split_least_squares(tiny: SweepResult) -> None:
    values = {name: tiny.values[name][0, 0, 2] for name in MEASURED}
    assert (values["verdict"] == VERDICTS.index(Verdict.STATIONARY)).all()
    np.testing.assert_allclose(values["train_loss"], values["split_loss"], rtol=1e-8)
    assert (np.abs(values["risk"] - values["split_risk"]) < 5.0 * values["risk_error"]).all()
    assert (values["risk_error"] < 1e-3 * values["risk"]).all()
    assert (values["split_distance"] < 1e-7).all()
    assert (values["ols_loss"] > values["split_loss"]).all()
    assert (values["patterns"] == 2).all()


def test_few_samples_are_interpolated(tiny: SweepResult) -> None:
    assert (tiny.values["verdict"][0, 0, 0] == VERDICTS.index(Verdict.INTERPOLATED)).all()
    assert (tiny.values["train_loss"][0, 0, 0] <= 1e-8 * tiny.values["label_power"][0, 0, 0]).all()


def test_conserved_quantities_of_a_sweep(tiny: SweepResult) -> None:
    assert tiny.values["conserved_drift"].max() < 1e-12
    assert tiny.values["sign_changes"].sum() == 0


def test_curves_are_those_of_the_runs(tiny: SweepResult) -> None:
    data, _ = sweep.dataset(TINY, 3, 12, 1)
    network = TINY.training.start(3, sweep.start_rng(TINY, 3, 1))
    course = TINY.training.run(network, data, times=TINY.times)
    kept = TINY.times <= course.time[-1]
    np.testing.assert_allclose(tiny.curves["train_loss"][0, 0, 1, 1][kept], course.train_loss[1 : 1 + kept.sum()])
    assert np.isnan(tiny.curves["train_loss"][0, 0, 1, 1][~kept]).all()


def test_runs_share_data_and_directions() -> None:
    few, many = (sweep.dataset(TINY, 3, n, 2)[0] for n in (4, 60))
    np.testing.assert_array_equal(few.inputs, many.inputs[:4])
    np.testing.assert_array_equal(few.labels, many.labels[:4])
    small, large = (Training(width=20, scale=scale).start(3, sweep.start_rng(TINY, 3, 2)) for scale in (1e-3, 1.0))
    np.testing.assert_allclose(1e3 * small.weights, large.weights)


def test_a_stopped_sweep_goes_on_with_the_same_bits(tiny: SweepResult, tmp_path: Path) -> None:
    done: list[str] = []
    stopped = sweep.run(
        TINY, store=tmp_path / "runs", progress=lambda *at: done.append(at[2]), stop=lambda: len(done) >= 4
    )
    assert stopped.interrupted and 0 < stopped.missing < 9
    again: list[str] = []
    whole = sweep.run(TINY, store=tmp_path / "runs", progress=lambda *at: again.append(at[2]))
    assert not whole.missing and len(again) == 9 - len(done)
    for name in MEASURED:
        np.testing.assert_array_equal(whole.values[name], tiny.values[name])
    for name in CURVES:
        np.testing.assert_array_equal(whole.curves[name], tiny.curves[name])
    other = replace(TINY, samples=(4, 5), seeds=2)  # what is common is taken over
    assert sweep.fingerprint(other) == sweep.fingerprint(TINY)
    assert sweep.fingerprint(replace(TINY, seed=1)) != sweep.fingerprint(TINY)


@pytest.mark.slow
def test_workers_give_the_same_runs(tiny: SweepResult) -> None:
    # Not bit for bit: code compiled in this very process rounds differently from the same code out of the cache.
    parallel = sweep.run(TINY, workers=2)
    np.testing.assert_array_equal(parallel.values["verdict"], tiny.values["verdict"])
    at_rest = tiny.values["verdict"] == VERDICTS.index(Verdict.STATIONARY)
    for name in ("train_loss", "risk", "escape_time"):
        np.testing.assert_allclose(parallel.values[name][at_rest], tiny.values[name][at_rest], rtol=1e-7)


def test_files_give_back_every_bit(tiny: SweepResult, tmp_path: Path) -> None:
    path = tmp_path / "sweep.h5"
    files.save(tiny, path, "[relu]\n")
    read = files.load(path)
    assert read.sweep == tiny.sweep
    for name in MEASURED:
        np.testing.assert_array_equal(read.values[name], tiny.values[name])
    with pytest.raises(FileFormatError, match="holds a sweep of `dmft relu`"):
        dmft.load(path)
    raw = bytearray(path.read_bytes())
    place = raw.find(tiny.values["label_power"][0, 0, 0].tobytes())
    assert place == -1  # compressed
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(FileFormatError):
        files.load(path)


def test_files_open_in_xarray(tiny: SweepResult, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    path = tmp_path / "sweep.h5"
    files.save(tiny, path)
    with xarray.open_dataset(path, group="runs", engine="h5netcdf") as data:
        assert data["train_loss"].dims == ("dimension", "scale", "samples", "run")
        np.testing.assert_array_equal(data["samples"], [4, 12, 60])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": (4, 4)}, "samples must be a number or increasing"),
        ({"samples": ()}, "samples must be a number or increasing"),
        ({"dimensions": (0,)}, "dimension must be"),
        ({"scales": (-1.0,)}, "scale must be"),
        ({"seeds": 0}, "seeds must be"),
        ({"source": Source(margin=2.0)}, "margin must be below"),
        ({"source": Source(inputs="three_points")}, "dimension 2 and 3 samples"),
    ],
)
def test_bad_sweeps_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        replace(TINY, **change)


def test_bad_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="inputs must be one of"):
        Source(inputs="cauchy")
    with pytest.raises(ValueError, match="margin needs a linear teacher"):
        Source(margin=0.1, teacher_neurons=3)


def test_teachers_with_neurons_differ_between_runs() -> None:
    own = replace(TINY, source=Source(teacher_neurons=2))
    (one, law), (other, _) = (sweep.dataset(own, 3, 5, index) for index in (0, 1))
    assert law is not None and not law.teacher.is_linear
    assert not np.allclose(one.clean, other.clean)


# ----------------------------------------------------------------------------------------------- thresholds


def fabricated(codes: np.ndarray[Any, Any], samples: tuple[int, ...], dimensions: tuple[int, ...] = (3,)) -> Any:
    shape = (len(dimensions), 1, len(samples), codes.shape[-1])
    values = {name: np.full(shape, np.nan) for name in MEASURED}
    values["verdict"] = codes.reshape(shape).astype(float)
    changed = replace(TINY, samples=samples, dimensions=dimensions, seeds=codes.shape[-1])
    return SweepResult(changed, values, {name: np.full((*shape, len(changed.times)), np.nan) for name in CURVES}, {})


def test_crossing_is_linear_in_the_logarithm() -> None:
    n, weight = np.array([10.0, 20.0, 40.0]), np.full(3, 8.0)
    assert crossing(n, np.array([1.0, 0.75, 0.25]), weight) == pytest.approx(20.0 * math.sqrt(2.0))
    assert crossing(n, np.array([1.0, 0.5, 0.5]), weight) == pytest.approx(20.0 * math.sqrt(2.0))
    assert crossing(n, np.array([0.75, 1.0, 0.0]), weight) == pytest.approx(20.0 * 2.0 ** (0.375 / 0.875))  # pooled
    assert crossing(n, np.array([0.4, 0.0, 0.0]), weight) == 0.0
    assert crossing(n, np.array([1.0, 1.0, 0.9]), weight) == math.inf
    assert math.isnan(crossing(n, np.ones(3), np.zeros(3)))
    assert crossing(n, np.array([1.0, np.nan, 0.0]), np.array([1.0, 0.0, 1.0])) == pytest.approx(20.0)


def test_thresholds_of_a_known_law_lie_in_their_intervals() -> None:
    # P(interpolate) = 1/(1 + (n/20)^4): half of them at n = 20.
    samples = (5, 8, 12, 16, 20, 25, 32, 40, 60)
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(20):
        p = 1.0 / (1.0 + (np.array(samples) / 20.0) ** 4)
        codes = np.where(rng.random((len(samples), 20)) < p[:, None], 0, 1)
        (found,) = thresholds(fabricated(codes, samples))
        inside += found.low <= 20.0 <= found.high
        assert found.low <= found.value <= found.high
    assert inside >= 16  # nominal 19 of 20


def test_unfinished_runs_count_on_neither_side_but_widen_the_interval() -> None:
    samples = (10, 20, 40)
    codes = np.array([[0] * 10, [0] * 5 + [1] * 5, [1] * 10])
    (clean,) = thresholds(fabricated(codes, samples))
    codes[1, 3:8] = VERDICTS.index(Verdict.UNFINISHED)
    (open_,) = thresholds(fabricated(codes, samples))
    assert open_.unfinished == 5
    assert open_.fractions[1] == pytest.approx(3 / 5)
    assert open_.low < clean.low and open_.high > clean.high


def test_one_sided_thresholds_say_so() -> None:
    (low,) = thresholds(fabricated(np.ones((2, 4)), (10, 20)))
    assert math.isnan(low.value) and low.low == 0.0 and "below 10" in low.message
    (high,) = thresholds(fabricated(np.zeros((2, 4)), (10, 20)))
    assert math.isnan(high.value) and high.high == math.inf and "above 20" in high.message


def test_exponents_of_power_laws() -> None:
    def known(d: int, spread: float) -> Threshold:
        draws = 3.0 * d**1.5 * np.exp(spread * np.random.default_rng(d).standard_normal(2000))
        return Threshold(
            dimension=d, scale=1.0, value=3.0 * d**1.5, low=1.0, high=1e3, unfinished=0, draws=draws,
            samples=np.array([1.0, 1e4]), fractions=np.zeros(2),
        )  # fmt: skip

    dims = (2, 4, 8, 16)
    found = exponent(dims, [known(d, 0.1) for d in dims])
    assert found is not None
    assert found.value == pytest.approx(1.5, abs=1e-9)
    # Least squares on four equidistant logarithms: the standard error of the slope is s/(ln 2 sqrt 5).
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.1 / (math.log(2) * math.sqrt(5)), rel=0.1)
    assert exponent(dims[:2], [known(d, 0.1) for d in dims[:2]]) is None


def test_gain_of_not_interpolating_is_paired() -> None:
    codes = np.array([[1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 2, 0]]).reshape(1, 2, 1, 7)
    values = {name: np.full((1, 2, 1, 7), 1.0) for name in MEASURED}
    values["verdict"] = codes.astype(float)
    values["risk"][0, :, 0] = [[1.0, 2.0, 4.0, 1.0, 1.0, 1.0, 1.0], [2.0, 8.0, 4.0, 2.0, 4.0, 1e3, 1e3]]
    changed = replace(TINY, samples=(10,), scales=(1e-3, 1.0), seeds=7)
    report = ReluReport.of(SweepResult(changed, values, {}, {}))
    (gain,) = report.gains
    assert gain.runs == 5
    assert gain.ratio == pytest.approx(2.0 ** (6 / 5))  # geometric mean of 2, 4, 1, 2, 4
    assert gain.low <= 2.0 ** (6 / 5) <= gain.high


# ------------------------------------------------------------------------------------ configurations, command

READY = model_configuration.ready_names("relu")


@pytest.mark.parametrize("name", READY)
def test_ready_configurations_are_read(name: str) -> None:
    read = configuration.read(name)
    assert read.name == name
    assert files.sweep_from_dict(read.sweep.to_dict()) == replace(
        read.sweep, training=replace(read.sweep.training, scale=1e-3)
    )


def test_ready_configurations() -> None:
    assert {"relu_margin", "relu_dimension", "relu_scale", "relu_plane", "relu_three_points"} <= set(READY)
    assert not set(READY) & set(model_configuration.ready_names())
    full = configuration.read("relu_margin").sweep
    assert (len(full.samples), full.seeds, full.training.width, full.dimensions) == (12, 20, 200, (5,))


BASE = "[relu]\nsamples = [4, 40]\ndimension = 3\nseeds = 2\nwidth = 20\n[data]\nmargin = 0.5\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[relu]\nsamples = 3\n", r"\[relu\] dimension is missing"),
        ("[relu]\ndimension = 3\n", r"\[relu\] samples is missing"),
        ("[data]\nmargin = 0.5\n", r"section \[relu\] is missing"),
        (BASE + "[solve]\nt_final = 1.0\n", "unknown section or top-level key 'solve'"),
        (BASE.replace("seeds", "seed_s"), "did you mean 'seeds'"),
        (BASE.replace("margin", "margins"), "did you mean 'margin'"),
        (BASE.replace("0.5", "-1.0"), "margin must be"),
        ('[relu]\nscale = 1.0\n[data]\ninputs = "three_points"\nmargin = 0.1\n', "margin does not go with"),
        (BASE + "[plane]\nwidths = 3\n", "did you mean 'width'"),
    ],
)
def test_bad_configurations_are_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        configuration.read(path)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(BASE)
    assert cli.main(["relu", "own.toml", "--workers", "1", "--set", "relu.seeds=3"]) == 0
    printed = capsys.readouterr().out
    assert "threshold n* at d = 3" in printed and "out/own/own.h5" in printed
    assert {file.name for file in Path("out/own").iterdir() if file.is_file()} == {"own.h5", "own.json", "own.png"}
    assert files.load("out/own/own.h5").sweep.seeds == 3
    record = json.loads(Path("out/own/own.json").read_text())
    assert [row["samples"] for row in record["rows"]] == [4, 40]
    assert cli.main(["relu", "own.toml", "--workers", "1", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["missing"] == 0 and again["sweep"]["seeds"] == 2


def test_bad_commands_are_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        assert cli.main(["relu", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "neither a file nor a ready configuration" in refused("relu_margn")
    assert "seeds must be" in refused("relu_margin", "--set", "relu.seeds=0", "--out", str(tmp_path))
    assert "--workers must be" in refused("relu_margin", "--workers", "0")
    assert cli.main(["solve", "relu_margin"]) == 2
    assert "`dmft relu`" in capsys.readouterr().err


def test_an_interrupted_study_keeps_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(BASE)
    config = configuration.read(tmp_path / "own.toml")
    done: list[str] = []
    found = study.run(config, tmp_path, progress=lambda *at: done.append(at[2]), stop=lambda: len(done) >= 2)
    assert found.result.interrupted and found.result.missing == 2
    assert "nan" not in (tmp_path / "own.json").read_text().lower()
    assert study.run(config, tmp_path).result.missing == 0


def test_intervals_are_no_shorter_than_the_grid_can_tell() -> None:
    codes = np.array([[0] * 12, [1] * 12])
    (found,) = thresholds(fabricated(codes, (8, 100)))
    assert (found.low, found.high) == (8.0, 100.0)
    (few,) = thresholds(fabricated(codes[:, :3], (8, 100)))
    assert "3 runs only" in few.message


def test_conflicting_labels_do_not_hide_interpolation() -> None:
    # Rademacher inputs repeat in few dimensions; what their labels disagree by cannot be fitted.
    source = Source(inputs="rademacher", margin=0.0)
    result = sweep.run(Sweep(source=source, training=Training(width=30, scale=1.0), samples=(12,), dimensions=(3,),
                             scales=(1.0,), seeds=3))  # fmt: skip
    for index in range(3):
        data, _ = sweep.dataset(result.sweep, 3, 12, index)
        groups = np.unique(data.inputs, axis=0, return_inverse=True)[1].ravel()
        floor = sum(np.sum((data.labels[groups == g] - data.labels[groups == g].mean()) ** 2) for g in set(groups)) / 12
        assert floor > 1e-3
        if result.values["verdict"][0, 0, 0, index] == VERDICTS.index(Verdict.INTERPOLATED):
            assert result.values["train_loss"][0, 0, 0, index] == pytest.approx(floor, rel=1e-6)
    assert (result.values["verdict"] == VERDICTS.index(Verdict.INTERPOLATED)).any()


def test_exponent_where_only_some_runs_are_unfinished() -> None:
    samples = (4, 8, 16, 32, 64)
    codes = np.array([np.where(np.arange(5) < turn, 0, 1) for turn in (1, 2, 3)])[:, :, None].repeat(12, axis=2)
    codes[1, 2, :3] = VERDICTS.index(Verdict.UNFINISHED)
    result = fabricated(codes, samples, dimensions=(2, 4, 8))
    report = ReluReport.of(result)
    assert report.dimension_exponent is not None
    assert report.dimension_exponent.points == 3 and report.dimension_exponent.left_out == 0
    assert report.dimension_exponent.value == pytest.approx(1.0, abs=0.2)
