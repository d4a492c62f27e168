"""Files: exact round trip, other people's readers, and what happens when disks and files are bad."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from _synthetic import grid, solution

import dmft
from dmft.files import FileFormatError, atomic_path, atomic_write
from dmft.solution import Solution

KINDS = ["symmetric", "latent", "grouped", "general", "pspin"]


def leftovers(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if "partial" in path.name]


def assert_same(one: Solution, other: Solution) -> None:
    """Bit for bit."""
    assert one.problem == other.problem
    for name in ("t", "order", "row_index", *one.curve_names):
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes(), name
    for name in ("t", "order", "correlation", "integrated_response", "residual_correlation"):
        left, right = getattr(one.two_time, name), getattr(other.two_time, name)
        assert (left is None and right is None) or left.tobytes() == right.tobytes(), name
    assert one.two_time.modes == other.two_time.modes
    for name in ("status", "message", "stats", "rtol", "method", "config_text"):
        assert getattr(one, name) == getattr(other, name), name


# --- round trip -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_is_exact(kind: str, tmp_path: Path) -> None:
    run = solution(kind, config_text='[model]\nkind = "symmetric"  # τ\n', rtol=1 / 3 * 1e-4)
    run.save(tmp_path / "run.h5")
    assert_same(run, dmft.load(tmp_path / "run.h5"))
    assert leftovers(tmp_path) == []


def test_round_trip_keeps_awkward_numbers(tmp_path: Path) -> None:
    t = np.array([0.0, 1e-7, np.nextafter(0.1, 1), 2e7])
    values = np.array([5e-324, -0.0, 1 / 3, 1e300])
    run = solution(t=t, train_error=values, a=values[:, None], status=dmft.Status.DIVERGED, message="α grew; try rtol.")
    run.save(tmp_path / "run.h5")
    assert_same(run, dmft.load(tmp_path / "run.h5"))


def test_round_trip_of_thinned_single_and_partial_runs(tmp_path: Path) -> None:
    t = grid(0.1, 60.0, 1e-3)
    for name, run in (
        ("thinned", solution(t=t, keep=np.unique([*range(0, len(t), 3), len(t) - 1]))),
        ("single", solution("general", t=np.array([0.0]), status=dmft.Status.ROW_FAILED)),
        ("one", solution(width=1)),
    ):
        run.save(tmp_path / f"{name}.h5")
        assert_same(run, dmft.load(tmp_path / f"{name}.h5"))


# --- the schema, as other programs see it -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("thin", [False, True])
def test_opens_in_xarray_without_warnings(kind: str, thin: bool, tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    t = grid(0.1, 60.0, 1e-3)
    keep = np.unique([*range(0, len(t), 3), len(t) - 1]) if thin else None
    run = solution(kind, t=t, keep=keep)
    path = tmp_path / "run.h5"
    run.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = {
            group: xarray.open_dataset(path, engine="h5netcdf", group=group).load()
            for group in ("/", "curves", "two_time", "parameters", "stats")
        }
        tree = xarray.open_datatree(path, engine="h5netcdf")
        assert set(tree.children) == {"curves", "two_time", "parameters", "stats"}
        tree.close()
    curves, two_time = opened["curves"], opened["two_time"]
    for name in run.curve_names:
        assert np.array_equal(curves[name].values, getattr(run, name))
        assert curves[name].dims[0] == "t"
    if kind != "pspin":
        extra = {"symmetric": (), "latent": ("latent",), "grouped": ("group",), "general": ("group",)}[kind]
        assert curves["v"].dims == ("t", *extra)
    assert two_time["correlation"].dims == two_time["integrated_response"].dims == ("mode", "t", "t_prime")
    assert list(two_time["mode"].values) == list(run.two_time.modes)
    assert np.array_equal(two_time["t"].values, run.two_time.t)
    assert np.array_equal(two_time["t_prime"].values, run.two_time.t)
    assert ("residual_correlation" in two_time) == (kind != "pspin")
    first = two_time["correlation"].sel(mode=run.two_time.modes[0]).sel(t=0.0, t_prime=0.0)
    assert float(first) == run.two_time.correlation[0, 0, 0]
    for name in ("curves", "two_time"):
        for variable in opened[name].variables.values():
            assert {"units", "long_name", "description"} <= set(variable.attrs)


def test_every_array_has_scales_attributes_and_compression(tmp_path: Path) -> None:
    solution("grouped").save(tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5") as file:
        seen = []

        def check(name: str, item: object) -> None:
            if not isinstance(item, h5py.Dataset):
                return
            seen.append(name)
            assert {"units", "long_name", "description"} <= set(item.attrs), name
            if item.ndim and not item.is_scale:
                assert all(len(dimension) == 1 for dimension in item.dims), name
            if item.size > 1 and item.dtype.kind in "fi":
                assert item.chunks and item.shuffle and item.compression == "gzip", name
            if item.ndim == 3 and name.startswith("two_time"):
                scales = [dimension[0].name for dimension in item.dims]
                assert scales == ["/two_time/mode", "/two_time/t", "/two_time/t_prime"]

        file.visititems(check)
    assert {"curves/gamma", "two_time/residual_correlation", "parameters/alpha", "parameters/config_toml"} <= set(seen)


@pytest.mark.parametrize(("kind", "signal_name"), [("symmetric", "test_error"), ("pspin", "energy")])
def test_nexus_default_plot(kind: str, signal_name: str, tmp_path: Path) -> None:
    solution(kind).save(tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5") as file:
        # The way a NeXus viewer walks: root default, then signal, then axes.
        group = file[file.attrs["default"]]
        assert file.attrs["NX_class"] == "NXroot" and group.attrs["NX_class"] == "NXdata"
        assert group.attrs["signal"] == signal_name and group.attrs["axes"] == "t"
        assert group[group.attrs["signal"]].shape == group[group.attrs["axes"]].shape
        for name in group.attrs.get("auxiliary_signals", []):
            assert name in group
        two_time = file["two_time"]
        assert list(two_time.attrs["axes"]) == ["mode", "t", "t_prime"] and two_time.attrs["signal"] == "correlation"


def test_root_attributes_and_parameters(tmp_path: Path) -> None:
    run = solution(config_text="[model]\n")
    run.save(tmp_path / "run.h5")
    with h5py.File(tmp_path / "run.h5") as file:
        root = dict(file.attrs)
        assert root["schema_version"] == 1 and root["package_version"] == dmft.__version__
        assert root["status"] == "done" and "deterministic" in root["seed"]
        for name in ("title", "git_commit", "git_dirty", "created_utc", "numpy_version", "h5py_version"):
            assert root[name], name
        assert root["created_utc"].endswith("+00:00")
        parameters = file["parameters"]
        assert parameters["width"][()] == 16 and parameters["alpha"][()] == 0.3
        assert parameters["rtol"][()] == 1e-4 and parameters["train_second_layer"][()] == 1
        assert parameters["config_toml"].asstr()[()] == "[model]\n"
        assert json.loads(parameters["canonical_json"].asstr()[()])["problem"] == run.problem.to_dict()


# --- bad files --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("image") / "run.h5"
    solution(t=grid(0.2, 10.0, 1e-2)).save(path)
    return path.read_bytes()


def refused(path: Path, message: str) -> None:
    """One sentence: the file, what is wrong, nothing else."""
    with pytest.raises(FileFormatError, match=message) as caught:
        dmft.load(path)
    assert isinstance(caught.value, ValueError)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text and len(text) < len(str(path)) + 120


def test_truncated_files(image: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    for length in (600, len(image) // 2, len(image) - 1):
        path.write_bytes(image[:length])
        refused(path, "is truncated and cannot be read")
    for length in (0, 4):
        path.write_bytes(image[:length])
        refused(path, "is not an HDF5 file")


def test_files_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    path.write_text("t,a\n0,1\n")
    refused(path, "is not an HDF5 file")
    with h5py.File(path, "w") as file:
        file["curves/t"] = [0.0, 1.0]
    refused(path, "has no schema_version")
    with pytest.raises(FileNotFoundError):
        dmft.load(tmp_path / "absent.h5")
    with pytest.raises(IsADirectoryError):
        dmft.load(tmp_path)


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_wrong_schema_version(version: object, image: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    path.write_bytes(image)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = version
    refused(path, f"has schema_version {version}; this version of the package reads 1")


@pytest.mark.parametrize("place", ["curves", "two_time/correlation", "parameters/canonical_json", "curves/a"])
def test_missing_parts(place: str, image: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    path.write_bytes(image)
    with h5py.File(path, "r+") as file:
        del file[place]
    refused(path, "is damaged")


def test_changed_values_do_not_match_the_checksum(image: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    path.write_bytes(image)
    with h5py.File(path, "r+") as file:
        file["curves/a"][3] = np.nextafter(file["curves/a"][3], 2.0)
    refused(path, "do not match their checksum")


def test_flipped_bytes_never_give_other_numbers(image: bytes, tmp_path: Path) -> None:
    """Wherever a byte flips, the file is refused or what is read is what was written."""
    path = tmp_path / "run.h5"
    path.write_bytes(image)
    original, refusals = dmft.load(path), 0
    for place in np.random.default_rng(0).integers(0, len(image), 150):
        damaged = bytearray(image)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert_same(original, dmft.load(path))
        except FileFormatError as error:
            refusals += 1
            assert "\n" not in str(error)
    assert refusals > 30  # the arrays alone are more than a third of the file


# --- bad disks --------------------------------------------------------------------------------------------------------

_LIMITED = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
from _synthetic import solution
run = solution("grouped")
limit = 20000  # bytes any file may have: far below the 100 kB and more of this run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for write in (run.save, run.to_csv, run.plot):
    path = sys.argv[1] + {{"save": "/run.h5", "to_csv": "/run.csv", "plot": "/run.png"}}[write.__name__]
    try:
        write(path)
    except OSError as error:
        assert error.filename == path, error.filename
        print(write.__name__, type(error).__name__)
"""


def test_full_disk_keeps_the_old_files_and_leaves_nothing(tmp_path: Path) -> None:
    for name in ("run.h5", "run.csv", "run.png"):
        (tmp_path / name).write_bytes(b"old")
    script = _LIMITED.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.split() == ["save", "OSError", "to_csv", "OSError", "plot", "OSError"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.csv", "run.h5", "run.png"]
    assert all(path.read_bytes() == b"old" for path in tmp_path.iterdir())


_REPEATED = """
import sys
sys.path.insert(0, {tests!r})
from _synthetic import solution
run = solution("grouped")
print("ready", flush=True)
while True:
    run.save(sys.argv[1])
"""


def test_killed_while_saving_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    solution("grouped").save(path)
    script = _REPEATED.format(tests=str(Path(__file__).parent))
    for pause in (0.05, 0.13, 0.31):
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(pause)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        assert_same(solution("grouped"), dmft.load(path))


def test_leftovers_of_killed_writers_are_removed_later(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".run.h5.00.partial.h5", tmp_path / ".run.h5.01.partial.h5"
    other = tmp_path / ".other.h5.02.partial.h5"
    for path in (old, fresh, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (0, 0))
    atomic_write(tmp_path / "run.h5", b"whole")
    # Only what belongs to this file and cannot be another process at work.
    assert not old.exists() and fresh.exists() and other.exists()


def test_an_error_while_writing_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and leftovers(tmp_path) == []


def test_unwritable_places(tmp_path: Path) -> None:
    run = solution()
    with pytest.raises(FileNotFoundError) as caught:
        run.save(tmp_path / "absent" / "run.h5")
    assert caught.value.filename == str(tmp_path / "absent" / "run.h5")  # not the temporary name
    with pytest.raises(OSError, match="not a regular file"):
        run.save(tmp_path)
    before = os.stat("/dev/full")
    for write in (run.save, run.to_csv):
        with pytest.raises(OSError, match="/dev/full exists and is not a regular file"):
            write("/dev/full")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode) and os.stat("/dev/full").st_ino == before.st_ino


def test_symbolic_links_are_followed_and_permissions_are_ordinary(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    link = tmp_path / "run.h5"
    link.symlink_to(tmp_path / "data" / "real.h5")
    solution().save(link)
    assert link.is_symlink() and dmft.load(tmp_path / "data" / "real.h5").status.ok
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "data" / "real.h5").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


# --- CSV and pictures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_csv_reads_back_exactly(kind: str, tmp_path: Path) -> None:
    run = solution(kind)
    path = tmp_path / "run.csv"
    run.to_csv(path)
    lines = path.read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    for name in ("t", *run.curve_names):
        assert sum(line.startswith(f"# {name}: ") for line in comments) == 1
    assert "units" in comments[0]
    rows = list(csv.reader(io.StringIO("\n".join(lines[len(comments) :]))))
    assert rows[0] == list(run.columns())
    table = np.array(rows[1:], dtype=float)
    assert np.array_equal(table, np.column_stack(list(run.columns().values())))
    expected = {"symmetric": "v", "latent": "v_1", "grouped": "v_2", "general": "a_2", "pspin": "energy"}[kind]
    assert expected in rows[0]
    # What most people will type.
    assert np.array_equal(
        np.genfromtxt(path, delimiter=",", names=True, comments="#", skip_header=len(comments))["t"], run.t
    )


def test_many_groups_are_plotted_as_a_band(tmp_path: Path) -> None:
    activation = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
    many = dmft.GeneralProblem(
        a0=np.linspace(0.5, 1.0, 11), alpha=0.3, activation=activation, target=dmft.Target.noise(), noise_std=0.6
    )
    t, groups, pairs = np.array([0.0, 1.0, 2.0]), 11, 121
    from dmft.solution import mode_names

    run = solution(
        t=t,
        problem=many,
        a=np.ones((3, groups)),
        v=np.zeros((3, groups, 1)),
        nu=np.ones((3, groups)),
        modes=mode_names(many.formulation()),
        correlation=np.ones((pairs, 3, 3)),
        integrated_response=np.zeros((pairs, 3, 3)),
    )
    assert run.two_time.modes[-1] == "S10_10"
    run.plot(tmp_path / "run.png")
    run.save(tmp_path / "run.h5")
    assert_same(run, dmft.load(tmp_path / "run.h5"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_plot_is_written_whole_without_warnings(kind: str, suffix: str, tmp_path: Path) -> None:
    run = solution(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = run.plot(tmp_path / f"run.{suffix}")
    assert (tmp_path / f"run.{suffix}").stat().st_size > 5000 and leftovers(tmp_path) == []
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == (["energy per dimension"] if kind == "pspin" else ["error", r"$a/\sqrt{m}$", r"overlap $v$"])
    assert all(axes.get_xscale() == "log" for axes in figure.axes)
    if kind != "pspin":
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert any("0.4912" in text and "6.98" in text for text in texts)


def test_plot_of_one_row_and_of_an_unknown_suffix(tmp_path: Path) -> None:
    solution(t=np.array([0.0])).plot(tmp_path / "one.png")
    with pytest.raises(ValueError, match=r"run\.xyz' has no picture suffix; allowed are .*pdf.*png"):
        solution().plot(tmp_path / "run.xyz")
    assert not (tmp_path / "run.xyz").exists()


def test_reading_and_plotting_stay_out_of_the_import() -> None:
    script = (
        "import sys, dmft, dmft.solution, dmft.files; heavy = {'matplotlib', 'h5py', 'scipy', 'xarray', 'numba'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
