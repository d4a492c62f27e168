"""Files of simulations: exact round trip, files of other programs, refusals, CSV and pictures."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from _synthetic import problem, solution

import dmft
from dmft.files import FileFormatError
from dmft.simulation import Sample, Settings, Simulation
from dmft.solution import mode_names

T = np.array([0.0, 0.1, 1 / 3, 2.0])
PAIRS = np.array([1 / 3, 2.0])
KINDS = ["symmetric", "latent", "grouped", "general", "grouped latent"]


def made(kind: str) -> Any:
    if kind != "grouped latent":
        return problem(kind, 4)
    target = dmft.Target.from_overlap({(1, 0): 0.3, (0, 1): 0.2}, power=1.0)
    grouped = problem("grouped").to_dict() | {"target": target.to_dict(), "v0": [[0.1, 0.2]] * 3}
    return dmft.problems.from_dict(grouped)


def simulation(kind: str = "symmetric", replicas: int = 3, pairs: np.ndarray = PAIRS, **changes: Any) -> Simulation:
    """Random numbers in the layout of a simulation."""
    chosen = made(kind)
    form = chosen.formulation()
    rng = np.random.default_rng(0)
    shapes = {
        "train_error": (4,),
        "test_error": (4,),
        "test_error_fresh": (4,),
        "a": (4, form.groups),
        "v": (4, form.groups, form.latent_dimension),
    }
    if len(pairs):
        shapes["correlation"] = (len(mode_names(form)), len(pairs), len(pairs))
        shapes["residual_correlation"] = (len(pairs), len(pairs))
    observables = {name: Sample.of(rng.standard_normal((replicas, *shape)) ** 2) for name, shape in shapes.items()}
    arguments = {
        "problem": chosen,
        "settings": Settings(model="network", dimension=7, samples=9, optimizer="sgd", step=0.1, batch=3, seed=5),
        "t": T,
        "pair_times": pairs,
        "observables": observables,
        "replica_index": 2 * np.arange(replicas),
        "status": dmft.Status.INTERRUPTED,
        "message": "τ: 3 of 5",
        "wall_time": 1 / 3,
        "config_text": '[model]\nkind = "symmetric"  # τ\n',
    }
    return Simulation(**(arguments | changes))


def assert_same(one: Simulation, other: Simulation) -> None:
    """Bit for bit."""
    assert one.problem == other.problem and one.settings == other.settings
    for name in ("t", "pair_times", "replica_index"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    assert one.curve_names == other.curve_names and one.two_time_names == other.two_time_names
    for name in (*one.curve_names, *one.two_time_names):
        left, right = one.sample(name, squeeze=False), other.sample(name, squeeze=False)
        assert left.count == right.count
        for part in ("mean", "sem", "values"):
            a, b = getattr(left, part), getattr(right, part)
            assert (a is None and b is None) or (a.shape == b.shape and a.tobytes() == b.tobytes()), (name, part)
    for name in ("status", "message", "wall_time", "config_text", "replicas", "modes"):
        assert getattr(one, name) == getattr(other, name), name


# ---------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_is_exact(kind: str, tmp_path: Path) -> None:
    run = simulation(kind)
    run.save(tmp_path / "run.h5")
    assert_same(run, dmft.load(tmp_path / "run.h5"))
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5"]


def test_round_trip_of_little(tmp_path: Path) -> None:
    few = {"train_error": Sample.of(np.array([[1.0, np.nextafter(1.0, 2), 5e-324, 1e300]]))}
    for name, run in {
        "one replica": simulation(replicas=1),
        "no pairs": simulation(pairs=np.zeros(0)),
        "pair times only": simulation(observables=few, replica_index=[7]),
        "one curve": simulation(observables=few, replica_index=[7], pair_times=[]),
    }.items():
        run.save(tmp_path / "run.h5")
        again = dmft.load(tmp_path / "run.h5")
        assert isinstance(again, Simulation), name
        assert_same(run, again)


def test_means_without_replicas_survive(tmp_path: Path) -> None:
    full = simulation("grouped")
    means = {
        name: Sample(mean=s.mean, sem=s.sem, count=s.count, values=None)
        for name in ("train_error", "a", "correlation")
        for s in [full.sample(name, squeeze=False)]
    }
    run = simulation("grouped", observables=means)
    run.save(tmp_path / "run.h5")
    again = dmft.load(tmp_path / "run.h5")
    assert_same(run, again)
    assert again.sample("gamma").values is None and again.replicas == 3


def test_a_real_simulation_survives(tmp_path: Path) -> None:
    run = dmft.simulate(made("grouped"), 10, t_final=0.5, replicas=2)
    run.save(tmp_path / "run.h5")
    again = dmft.load(tmp_path / "run.h5")
    assert_same(run, again)
    assert again.status is dmft.Status.DONE and again.summary() == run.summary()


@pytest.mark.parametrize("kind", ["symmetric", "latent", "grouped latent"])
def test_opens_in_xarray_without_warnings(kind: str, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    run = simulation(kind)
    run.save(tmp_path / "run.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves, two_time, _ = (
            xarray.open_dataset(tmp_path / "run.h5", engine="h5netcdf", group=group).load()
            for group in ("curves", "two_time", "parameters")
        )
    extra = {
        "symmetric": (),
        "latent": ("latent",),
        "grouped latent": ("group", "latent"),
    }[kind]
    assert curves["v_mean"].dims == ("t", *extra) and curves["v_replicas"].dims == ("replica", "t", *extra)
    assert curves["train_error_sem"].dims == ("t",)
    assert two_time["correlation_replicas"].dims == ("replica", "mode", "t", "t_prime")
    assert two_time["residual_correlation_mean"].dims == ("t", "t_prime")
    assert list(two_time["mode"].values) == list(run.modes)
    assert np.array_equal(curves["replica"].values, run.replica_index)
    assert np.array_equal(two_time["t_prime"].values, PAIRS) and np.array_equal(curves["t"].values, T)
    for name in run.curve_names:
        assert np.array_equal(curves[f"{name}_replicas"].values, run.sample(name).values)
    for dataset in (*curves.variables.values(), *two_time.variables.values()):
        assert dataset.attrs["description"] and dataset.attrs["long_name"]


# ---------------------------------------------------------------------------------------------------- bad files


def refused(path: Path, words: str) -> None:
    with pytest.raises(FileFormatError, match=words) as caught:
        dmft.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    simulation("grouped").save(path)
    image = path.read_bytes()
    path.write_bytes(image[: len(image) // 2])
    refused(path, "is truncated")
    for place in ("curves/a_mean", "curves/a_replicas", "curves/train_error_sem", "two_time/correlation_replicas"):
        path.write_bytes(image)
        with h5py.File(path, "r+") as file:
            values = file[place][...]
            values.flat[1] = np.nextafter(values.flat[1], 9.0)
            file[place][...] = values
        refused(path, "is damaged: its contents do not match their checksum")
    path.write_bytes(image)
    with h5py.File(path, "r+") as file:
        file["curves/replica"][1] = 9
    refused(path, "checksum")


# ---------------------------------------------------------------------------------------------------- other programs


CONFIG_PROBLEM = {
    "kind": "symmetric",
    "width": 4,
    "alpha": 0.3,
    "noise_std": 0.6,
    "a0": 1.0,
    "activation": {"covariance": [0, 0.9, 0.5]},
    "target": {"same_as_activation": True},
}
SETTINGS: dict[str, Any] = {"model": "gaussian", "dimension": 50, "samples": 60}


def by_hand(path: Path, curves: dict[str, Any], record: Any = None, two_time: dict[str, Any] | None = None) -> None:
    """What the documentation asks of other programs, and nothing else."""
    if record is None:
        record = {"problem": CONFIG_PROBLEM, "settings": SETTINGS}
    with h5py.File(path, "w") as file:
        file.attrs["schema_version"] = 1
        for name, values in curves.items():
            file[f"curves/{name}"] = values
        for name, values in (two_time or {}).items():
            file[f"two_time/{name}"] = values
        file["parameters/canonical_json"] = json.dumps(record)


def test_replicas_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "theirs.h5"
    errors, a, v = np.random.default_rng(1).uniform(0.1, 1.0, (3, 5, 4))
    two_time = {"t": PAIRS, "residual_correlation_replicas": np.ones((5, 2, 2))}
    by_hand(path, {"t": T, "test_error_replicas": errors, "a_replicas": a, "v_replicas": v}, two_time=two_time)
    run = dmft.load(path)
    assert isinstance(run, Simulation)
    assert run.status is dmft.Status.DONE and run.replicas == 5 and run.replica_index.tolist() == [0, 1, 2, 3, 4]
    assert run.problem.width == 4 and run.settings.dimension == 50
    # Axes that were left out are put back.
    for name, values in (("test_error", errors), ("a", a), ("v", v), ("gamma", a / 2)):
        np.testing.assert_array_equal(run.sample(name).values, values)
        np.testing.assert_allclose(run.sample(name).sem, values.std(axis=0, ddof=1) / np.sqrt(5), rtol=1e-14)
    assert run.sample("v", squeeze=False).mean.shape == (4, 1, 1)
    assert run.two_time_names == ("residual_correlation",) and run.pair_times.tolist() == PAIRS.tolist()


def test_means_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "theirs.h5"
    mean, sem = np.linspace(1.0, 0.5, 4), np.full(4, 0.01)
    record = {"problem": CONFIG_PROBLEM, "settings": SETTINGS | {"replicas": 20}}
    by_hand(path, {"t": T, "train_error_mean": mean, "train_error_sem": sem}, record)
    run = dmft.load(path)
    sample = run.sample("train_error")
    assert (run.replicas, sample.count, sample.values) == (20, 20, None)
    np.testing.assert_array_equal(sample.mean, mean)
    np.testing.assert_array_equal(sample.sem, sem)
    run.save(tmp_path / "ours.h5")
    assert_same(run, dmft.load(tmp_path / "ours.h5"))


ONE = {"t": T, "train_error_replicas": np.ones((2, 4))}
GOOD = {"problem": CONFIG_PROBLEM, "settings": SETTINGS}
THEIRS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "no t": ({"train_error_replicas": np.ones((2, 4))}, GOOD, "has no /curves/t"),
    "no curve": ({"t": T, "loss_mean": np.ones(4)}, GOOD, "has none of the curves train_error, test_error"),
    "no problem": (ONE, {"settings": SETTINGS}, "canonical_json has no 'problem'"),
    "no settings": (ONE, {"problem": CONFIG_PROBLEM}, "canonical_json has no 'settings'"),
    "no dimension": (
        ONE,
        {"problem": CONFIG_PROBLEM, "settings": {"model": "network", "samples": 3}},
        "have dimension",
    ),
    "unknown setting": (ONE, {"problem": CONFIG_PROBLEM, "settings": SETTINGS | {"sedd": 1}}, "'sedd'.*'seed'"),
    "bad model": (ONE, {"problem": CONFIG_PROBLEM, "settings": SETTINGS | {"model": "ising"}}, "model must be one of"),
    "bad problem": (ONE, {"problem": CONFIG_PROBLEM | {"alpha": -1}, "settings": SETTINGS}, "alpha.*-1"),
    "pspin": (
        ONE,
        {"problem": {"kind": "pspin", "covariance": [0, 0, 1.0]}, "settings": SETTINGS},
        "pspin problem, which is no network",
    ),
    "mean without sem": ({"t": T, "a_mean": np.ones(4)}, GOOD, "a needs _replicas, or both _mean and _sem"),
    "means without replicas": ({"t": T, "a_mean": np.ones(4), "a_sem": np.ones(4)}, GOOD, "number of replicas"),
    "shape": ({"t": T, "a_replicas": np.ones((2, 5))}, GOOD, r"a_replicas has shape \(2, 5\), not \(2, 4, 1\)"),
    "nan": ({"t": T, "a_replicas": np.full((2, 4), np.nan)}, GOOD, "a_mean contains NaN"),
    "times": ({"t": T[::-1], "a_replicas": np.ones((2, 4))}, GOOD, "t must hold increasing times"),
    "replica numbers": (ONE | {"replica": [0, 1, 2]}, GOOD, r"replica_index has shape \(3,\); expected \(2,\)"),
}


@pytest.mark.parametrize("case", THEIRS)
def test_what_is_missing_or_wrong_in_their_files_is_said(case: str, tmp_path: Path) -> None:
    curves, record, words = THEIRS[case]
    path = tmp_path / "theirs.h5"
    by_hand(path, curves, record)
    refused(path, words)


def test_their_file_without_parameters(tmp_path: Path) -> None:
    path = tmp_path / "theirs.h5"
    by_hand(path, ONE)
    with h5py.File(path, "r+") as file:
        del file["parameters/canonical_json"]
    refused(path, "has no /parameters/canonical_json, so its problem and settings are unknown")
    by_hand(path, ONE)
    with h5py.File(path, "r+") as file:
        del file.attrs["schema_version"]
    refused(path, "has no schema_version")


# ---------------------------------------------------------------------------------------------------- constructor


def test_statistics_of_a_sample() -> None:
    sample = Sample.of([[1.0, 2.0], [3.0, 2.0], [8.0, 2.0]])
    assert sample.mean.tolist() == [4.0, 2.0] and sample.count == 3
    # variance ((1-4)^2 + (3-4)^2 + (8-4)^2)/2 = 13
    np.testing.assert_allclose(sample.sem, [np.sqrt(13 / 3), 0.0], rtol=1e-15)
    assert Sample.of([[1.0]]).sem.tolist() == [0.0]


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"observables": {"loss": Sample.of(np.ones((2, 4)))}}, "'loss' is not an observable.*train_error"),
    "shape": ({"observables": {"a": Sample.of(np.ones((2, 4)))}}, r"a_mean has shape \(4,\); expected \(4, 1\)"),
    "count": (
        {"observables": {"train_error": Sample(mean=T, sem=T, count=3, values=np.ones((2, 4)))}},
        r"train_error_replicas has shape \(2, 4\); expected \(3, 4\)",
    ),
    "nan": (
        {"observables": {"train_error": Sample(mean=T, sem=np.full(4, np.inf), count=3, values=None)}},
        "train_error_sem contains NaN or infinity",
    ),
    "decreasing": ({"t": T[::-1]}, "t must hold increasing times"),
    "equal": ({"t": [0.0, 1.0, 1.0, 2.0]}, "t must hold increasing times"),
    "negative": ({"t": T - 1.0}, "t must hold increasing times >= 0"),
    "pairs": ({"pair_times": [2.0, 1.0]}, "pair_times must hold increasing times"),
    "replicas": ({"replica_index": [0, 1]}, r"replica_index has shape \(2,\); expected \(3,\)"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_constructor_refuses(case: str) -> None:
    changes, words = REFUSALS[case]
    with pytest.raises(ValueError, match=words) as caught:
        simulation(**changes)
    assert "\n" not in str(caught.value)


BAD_SETTINGS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "model": ({"model": "ising"}, ValueError, "model must be one of gaussian, network, not 'ising'"),
    "dimension": ({"dimension": 0}, ValueError, "dimension.*0"),
    "samples": ({"samples": 2.5}, TypeError, "samples.*2.5"),
    "step": ({"step": -1.0}, ValueError, "step.*-1"),
    "batch": ({"batch": 61}, ValueError, "batch.*61"),
    "seed": ({"seed": "a"}, TypeError, "seed.*'a'"),
    "precision": ({"precision": "half"}, ValueError, "precision must be one of double, single"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_settings_are_checked(case: str) -> None:
    changes, error, words = BAD_SETTINGS[case]
    with pytest.raises(error, match=words):
        Settings.from_dict(SETTINGS | changes)


def test_settings_round_trip() -> None:
    settings = simulation().settings
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    with pytest.raises(ValueError, match="settings must have samples"):
        Settings.from_dict({"model": "network", "dimension": 3})


# ---------------------------------------------------------------------------------------------------- CSV, pictures


@pytest.mark.parametrize("kind", KINDS)
def test_csv_reads_back_exactly(kind: str, tmp_path: Path) -> None:
    run = simulation(kind)
    run.to_csv(tmp_path / "run.csv")
    lines = (tmp_path / "run.csv").read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    rows = list(csv.reader(lines[len(comments) :]))
    table = dict(zip(rows[0], np.array(rows[1:], dtype=float).T, strict=True))
    assert np.array_equal(table.pop("t"), T)
    for name in run.curve_names:
        assert sum(line.startswith(f"# {name}: ") for line in comments) == 1
    expected = {
        "symmetric": ("v", ()),
        "latent": ("v_1", (1,)),
        "grouped": ("v_2", (2,)),
        "general": ("v_2", (2,)),
        "grouped latent": ("v_2_1", (2, 1)),
    }
    column, index = expected[kind]
    assert np.array_equal(table[f"{column}_mean"], run.sample("v").mean[(slice(None), *index)])
    assert np.array_equal(table[f"{column}_sem"], run.sample("v").sem[(slice(None), *index)])
    assert np.array_equal(table["test_error_mean"], run.sample("test_error").mean)
    sizes = sum(int(np.prod(run.sample(name).mean.shape[1:])) for name in run.curve_names)
    assert len(table) == 2 * sizes


@pytest.mark.parametrize("kind", ["symmetric", "grouped latent"])
def test_plot_is_written_without_warnings(kind: str, tmp_path: Path) -> None:
    run = simulation(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = run.plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["run.png"]
    errors = figure.axes[0]
    # Replicas as lines: train and test error of three replicas, besides the means.
    replicas = [line for line in errors.get_lines() if np.array_equal(line.get_xdata(), T)]
    drawn = {tuple(line.get_ydata()) for line in replicas}
    for name in ("train_error", "test_error"):
        values = run.sample(name).values
        assert values is not None and {tuple(row) for row in values} <= drawn


def test_plot_of_means_and_of_one_time(tmp_path: Path) -> None:
    full = simulation()
    means = {
        name: Sample(mean=s.mean, sem=s.sem, count=s.count, values=None)
        for name in ("train_error", "a")
        for s in [full.sample(name, squeeze=False)]
    }
    simulation(observables=means).plot(tmp_path / "means.png")
    start = {"train_error": Sample.of(np.ones((2, 1)))}
    simulation(t=[0.0], pair_times=[], observables=start, replica_index=[0, 1]).plot(tmp_path / "start.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["means.png", "start.png"]


@pytest.mark.parametrize("kind", ["symmetric", "grouped"])
def test_plot_of_theory_with_simulations(kind: str, tmp_path: Path) -> None:
    theory = solution(kind, width=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = theory.plot(tmp_path / "both.png", simulations=[simulation(kind), simulation(kind, replicas=2)])
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")
    alone = theory.plot()
    assert len(figure.axes[0].containers) == 4 and len(alone.axes[0].containers) == 0  # two errors, two simulations
    bars = figure.axes[0].containers[0]
    later = simulation(kind).sample("test_error").mean[1:]
    assert np.array_equal(bars[0].get_ydata(), later)
