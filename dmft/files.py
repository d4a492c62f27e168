"""Files: HDF5 (schema version 1), CSV, and the one way in which anything here is written.

Nothing is ever half-written under its final name: data go to a temporary name in the same directory, are flushed to
the disk, and only then renamed over the old file. HDF5 files are assembled in memory first, so that a full disk is
an ordinary write error and not a failure inside the HDF5 library.

Layout: ``/curves`` (scale ``t``), ``/two_time`` (scales ``mode``, ``t``, ``t_prime``), ``/parameters`` (one scalar
each, the canonical JSON, the TOML text), ``/stats``. Every array has dimension scales, ``units``, ``long_name`` and
``description``; the groups carry the NXdata attributes of NeXus, so that generic viewers plot the errors at once.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import secrets
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmft.solution import Solution, Stats
from dmft.status import Status

if TYPE_CHECKING:
    import h5py

SCHEMA_VERSION = 1

_LIBRARIES = ("numpy", "numba", "scipy", "h5py")
_STALE = 3600.0
"""Seconds after which a temporary file beside ours is taken for the leftover of a killed process."""

# name -> (dimensions, long name, description); dimensions of length one in group or latent space are dropped.
_CURVES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "train_error": (
        ("t",),
        "train error",
        "C_r(t,t)/2, half the mean squared residual on the training set; [MU] (C.46)",
    ),
    "test_error": (("t",), "test error", "Q(t,t)/2, half the mean squared residual on fresh data, noise included"),
    "energy": (("t",), "energy per dimension", "E = <H>/d of the spherical p-spin model"),
    "a": (("t", "group"), "second-layer weight", "a_i(t) of each group of neurons; [MU] (C.34)"),
    "gamma": (("t", "group"), "second-layer weight over sqrt(m)", "a_i(t)/sqrt(m)"),
    "v": (("t", "group", "latent"), "overlap with the target", "v_i(t) = U^T w_i(t); [MU] (C.34)"),
    "nu": (("t", "group"), "spherical multiplier", "nu_i(t), keeps C_ii(t,t) = 1; [MU] (C.34)"),
    "energy_balance": (
        ("t",),
        "violation of the energy balance",
        "|lhs-rhs|/max(|lhs|,|rhs|) of the energy identity, an a-posteriori error",
    ),
}
_TWO_TIME: dict[str, tuple[tuple[str, ...], str, str]] = {
    "correlation": (
        ("mode", "t", "t_prime"),
        "correlation",
        "C(t,t') = <w_i(t), w_j(t')> in the group-symmetric modes: within a group of n neurons C_ii = T + (S-T)/n and "
        "C_ij = (S-T)/n, between groups g and h C_ij = S_gh/sqrt(n_g n_h); [MU] (C.34)",
    ),
    "integrated_response": (
        ("mode", "t", "t_prime"),
        "integrated response",
        "integral over u from t' to t of R(t,u), zero for t' >= t, in the modes of the correlation; [MU] (C.34)",
    ),
    "residual_correlation": (
        ("t", "t_prime"),
        "residual correlation",
        "C_r(t,t') = lim (1/n) <r(t), r(t')>; [MU] (C.46)",
    ),
}
_SCALES = {
    "t": ("time", "training time, d theta/dt = -(n/d) grad of the empirical risk"),
    "t_prime": ("earlier time", "second time argument, on the rows of t"),
    "mode": ("mode", "group-symmetric (S) and intra-group (T) modes"),
    "group": ("group", "group of exchangeable neurons; neuron where every group has one"),
    "latent": ("latent direction", "direction that the target depends on"),
}


class FileFormatError(ValueError):
    """A file that is not a whole, undamaged result of this package's schema version."""


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """Give a temporary name to write to, and make it ``path`` only when the block ends without an error.

    Parameters
    ----------
    path : path
        Final name. A symbolic link is followed. An existing file stays as it is until the rename.

    Yields
    ------
    Path
        Temporary name in the same directory. It is flushed to the disk, renamed, and the rename flushed too; after an
        error it is removed.

    Raises
    ------
    OSError
        When the directory or the disk does not allow it; the old file is then untouched.
    """
    final = Path(os.path.realpath(path))
    with suppress(FileNotFoundError):
        # A device or directory must not be replaced by a file.
        if not stat.S_ISREG(final.stat().st_mode):
            raise OSError(f"{os.fspath(path)} exists and is not a regular file, so it is not overwritten")
    _remove_stale(final)
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.partial{final.suffix}")
    try:
        yield temporary
        _flush(temporary, os.O_RDWR)
        os.replace(temporary, final)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = os.fspath(path), None  # the name that the user knows
        raise
    with suppress(OSError):  # some file systems cannot flush a directory; the file itself is safe
        _flush(final.parent, os.O_RDONLY)


def atomic_write(path: str | PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all; errors as `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(final: Path) -> None:
    """Remove what processes killed while writing this very file have left behind."""
    with suppress(OSError):
        for entry in os.scandir(final.parent):
            mine = entry.name.startswith(f".{final.name}.") and entry.name.endswith(f".partial{final.suffix}")
            if mine and time.time() - entry.stat().st_mtime > _STALE:
                os.unlink(entry.path)


@cache
def _git() -> tuple[str, str]:
    """Commit of the working tree this package is imported from, and whether it has uncommitted changes."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        # An installed copy may lie inside some other repository, which would not track it.
        git("ls-files", "--error-unmatch", here.name)
        return git("rev-parse", "HEAD"), "yes" if git("status", "--porcelain", "--untracked-files=no") else "no"
    except (OSError, subprocess.SubprocessError):
        return "unknown", "unknown"


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"


def _canonical_json(solution: Solution) -> str:
    """Everything that is not an array, in one canonical text: floats are written so that they read back exactly."""
    record = {
        "problem": solution.problem.to_dict(),
        "rtol": solution.rtol,
        "method": solution.method,
        "status": solution.status.value,
        "message": solution.message,
        "stats": asdict(solution.stats),
        "config_text": solution.config_text,
        "modes": list(solution.two_time.modes),
    }
    return json.dumps(record, sort_keys=True, allow_nan=False, separators=(",", ":"))


def _axes(solution: Solution) -> dict[str, int]:
    """Lengths of the axes that the curves have besides time."""
    formulation = solution.formulation
    axes = {"group": formulation.groups} if solution.nu.ndim > 1 else {}
    if formulation.latent_dimension > 1:
        axes["latent"] = formulation.latent_dimension
    return axes


def _arrays(solution: Solution) -> dict[str, np.ndarray[Any, Any]]:
    """All arrays from which a solution is rebuilt, by their place in the file."""
    arrays = {f"curves/{name}": getattr(solution, name) for name in ("t", *solution.curve_names)}
    arrays["curves/order"] = solution.order
    arrays["two_time/row"] = solution.row_index
    for name in _TWO_TIME:
        value = getattr(solution.two_time, name)
        if value is not None:
            arrays[f"two_time/{name}"] = value
    return arrays


def _digest(record: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Checksum over everything that is read back; HDF5 itself would not notice a flipped bit."""
    digest = hashlib.sha256(record.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.shape}{array.dtype.str}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def save(solution: Solution, path: str | PathLike[str]) -> None:
    """Write a solution to an HDF5 file of schema version 1.

    Parameters
    ----------
    solution : Solution
        Any solution, partial ones too.
    path : path
        Written whole or not at all: an old file of that name survives every error.

    Raises
    ------
    OSError
        When the disk is full or the place cannot be written.
    """
    atomic_write(path, _image(solution))


def _image(solution: Solution) -> bytes:
    """The bytes of the HDF5 file."""
    import h5py

    record, arrays = _canonical_json(solution), _arrays(solution)
    commit, dirty = _git()
    # Version 1.8 structures carry checksums of their own, and every HDF5 reader of the last decade knows them.
    with h5py.File("solution", "w", driver="core", backing_store=False, libver=("v108", "v110")) as file:
        file.attrs.update(
            {
                "schema_version": SCHEMA_VERSION,
                "title": f"DMFT of a {solution.problem.kind} problem to t = {float(solution.t[-1])!r}",
                "package": "twolayer-dmft",
                "package_version": _package_version(),
                "git_commit": commit,
                "git_dirty": dirty,
                "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
                "python_version": platform.python_version(),
                **{f"{library}_version": _version(library) for library in _LIBRARIES},
                "status": solution.status.value,
                "message": solution.message,
                "seed": "none (deterministic)",
                "content_sha256": _digest(record, arrays),
                "NX_class": "NXroot",
                "default": "curves",
            }
        )
        _write_curves(file.create_group("curves"), solution, arrays)
        _write_two_time(file.create_group("two_time"), solution, arrays)
        _write_parameters(file, solution, record)
        file.flush()
        return bytes(file.id.get_file_image())


def _package_version() -> str:
    import dmft

    return dmft.__version__


def _dataset(group: h5py.Group, name: str, values: Any, long_name: str, description: str) -> h5py.Dataset:
    """A described dataset; arrays with more than one element are chunked and compressed."""
    values = np.asarray(values)
    options = {"chunks": True, "shuffle": True, "compression": "gzip"} if values.size > 1 else {}
    if values.dtype.kind in "OSU":
        import h5py

        options = {"dtype": h5py.string_dtype()}
        values = values.astype(object)
    elif values.ndim == 3:
        # One mode at a time, square blocks: the half above the diagonal of a causal function compresses away.
        options["chunks"] = (1, *(min(256, size) for size in values.shape[1:]))
    dataset = group.create_dataset(name, data=values, **options)
    dataset.attrs.update({"units": "1", "long_name": long_name, "description": description})
    return dataset


def _scale(group: h5py.Group, name: str, values: Any) -> h5py.Dataset:
    """A dataset that is a dimension scale."""
    dataset = _dataset(group, name, values, *_SCALES[name])
    dataset.make_scale(name)
    return dataset


def _on_scales(group: h5py.Group, dataset: h5py.Dataset, dimensions: tuple[str, ...]) -> None:
    for axis, dimension in enumerate(dimensions):
        dataset.dims[axis].attach_scale(group[dimension])


def _write_curves(group: h5py.Group, solution: Solution, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    network = solution.formulation.residual_sector
    group.attrs.update({"NX_class": "NXdata", "signal": "test_error" if network else "energy", "axes": "t"})
    if network:
        group.attrs["auxiliary_signals"] = np.array(["train_error"], dtype=object)
    group.attrs["title"] = "errors against time" if network else "energy against time"
    _scale(group, "t", arrays["curves/t"])
    for name, size in _axes(solution).items():
        _scale(group, name, np.arange(size))
    for name in solution.curve_names:
        dimensions, long_name, description = _CURVES[name]
        present = tuple(dimension for dimension in dimensions if dimension in group)
        _on_scales(group, _dataset(group, name, arrays[f"curves/{name}"], long_name, description), present)
    order = _dataset(
        group, "order", arrays["curves/order"], "order", "polynomial order of each time row, for interpolation"
    )
    _on_scales(group, order, ("t",))


def _write_two_time(group: h5py.Group, solution: Solution, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    stored = solution.two_time
    axes = np.array(["mode", "t", "t_prime"], dtype=object)
    group.attrs.update({"NX_class": "NXdata", "signal": "correlation", "axes": axes, "title": "two-time functions"})
    _scale(group, "mode", np.array(stored.modes, dtype=object))
    _scale(group, "t", stored.t)
    _scale(group, "t_prime", stored.t)
    row = _dataset(group, "row", arrays["two_time/row"], "row", "place of each stored time in /curves/t, from 0")
    _on_scales(group, row, ("t",))
    for name, (dimensions, long_name, description) in _TWO_TIME.items():
        if f"two_time/{name}" in arrays:
            _on_scales(group, _dataset(group, name, arrays[f"two_time/{name}"], long_name, description), dimensions)


def _write_parameters(file: h5py.File, solution: Solution, record: str) -> None:
    group = file.create_group("parameters")
    parameters = {**_scalars(solution.problem.to_dict()), "rtol": solution.rtol, "method": solution.method}
    for name, value in parameters.items():
        # Booleans as integers: the HDF5 enumeration that h5py would write is unknown to netCDF readers.
        _dataset(group, name, int(value) if isinstance(value, bool) else value, name, f"parameter {name} of the run")
    _dataset(group, "canonical_json", record, "canonical JSON", "all parameters, exactly; what the package reads back")
    _dataset(group, "config_toml", solution.config_text, "config", "TOML text of the run, empty when run from Python")
    stats = file.create_group("stats")
    for name, number in asdict(solution.stats).items():
        _dataset(stats, name, number, name.replace("_", " "), f"work counter of the integrator: {name}")
    stats["wall_time"].attrs["units"] = "s"


def _scalars(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The scalar leaves of a nested dictionary, names joined by underscores."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            result.update(_scalars(value, f"{prefix}{key}_"))
        elif isinstance(value, str | bool | int | float):
            result[f"{prefix}{key}"] = value
    return result


def load(path: str | PathLike[str]) -> Solution:
    """Read back a solution, every number bit for bit.

    Parameters
    ----------
    path : path
        A file written by `Solution.save`.

    Raises
    ------
    FileNotFoundError, OSError
        When there is no such file, or it may not be read.
    FileFormatError
        When the file is no HDF5 file, is truncated or damaged, is of another schema version, or holds something else.
    """
    import h5py

    name = os.fspath(path)
    with open(path, "rb"):  # the operating system's own error where there is nothing to read
        pass
    try:
        recognised = h5py.is_hdf5(name)
    except Exception:
        recognised = False
    if not recognised:
        raise FileFormatError(f"{name} is not an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            version = file.attrs.get("schema_version")
            if version is None:
                raise FileFormatError(f"{name} has no schema_version, so it was not written by this package")
            if version != SCHEMA_VERSION:
                raise FileFormatError(
                    f"{name} has schema_version {version}; this version of the package reads {SCHEMA_VERSION}"
                )
            return _read(file, name)
    except FileFormatError:
        raise
    except Exception as error:
        # h5py reports damage by a dozen exception types; the library's own words are of no use to the reader.
        reason = "is truncated" if "truncated" in str(error) else "is damaged or incomplete"
        raise FileFormatError(f"{name} {reason} and cannot be read as a solution ({type(error).__name__})") from error


def _read(file: h5py.File, name: str) -> Solution:
    from dmft.problems import from_dict

    text = file["parameters/canonical_json"].asstr()[()]
    record = json.loads(text)
    problem = from_dict(record["problem"])
    formulation = problem.formulation()
    network = formulation.residual_sector
    arrays = {f"curves/{key}": file[f"curves/{key}"][...] for key in ("t", "order", *_CURVES) if key in file["curves"]}
    arrays |= {
        f"two_time/{key}": file[f"two_time/{key}"][...] for key in ("row", *_TWO_TIME) if key in file["two_time"]
    }
    if _digest(text, arrays) != file.attrs["content_sha256"]:
        raise FileFormatError(f"{name} is damaged: its contents do not match their checksum")
    rows, groups, latent = len(arrays["curves/t"]), formulation.groups, formulation.latent_dimension
    return Solution(
        problem=problem,
        t=arrays["curves/t"],
        order=arrays["curves/order"],
        a=arrays["curves/a"].reshape(rows, groups) if network else None,
        v=arrays["curves/v"].reshape(rows, groups, latent) if network else None,
        nu=arrays["curves/nu"].reshape(rows, groups),
        train_error=arrays.get("curves/train_error"),
        test_error=arrays.get("curves/test_error"),
        energy=arrays.get("curves/energy"),
        energy_balance=arrays["curves/energy_balance"],
        row_index=arrays["two_time/row"],
        modes=tuple(record["modes"]),
        correlation=arrays["two_time/correlation"],
        integrated_response=arrays["two_time/integrated_response"],
        residual_correlation=arrays.get("two_time/residual_correlation"),
        status=Status(record["status"]),
        message=record["message"],
        stats=Stats(**{field.name: record["stats"][field.name] for field in fields(Stats)}),
        rtol=record["rtol"],
        method=record["method"],
        config_text=record["config_text"],
    )


def save_csv(solution: Solution, path: str | PathLike[str]) -> None:
    """Write the curves as CSV: comment lines that describe the columns, one line of names, one line a row.

    Numbers read back exactly. Errors as `save`.
    """
    columns = solution.columns()
    text = io.StringIO()
    text.write(f"# DMFT of a {solution.problem.kind} problem; all columns are dimensionless (units 1)\n")
    text.write(f"# status: {solution.status.value}; rtol: {solution.rtol!r}; method: {solution.method}\n")
    text.write(f"# problem: {json.dumps(solution.problem.to_dict(), sort_keys=True)}\n")
    text.write(f"# t: {_SCALES['t'][1]}\n")
    axes = _axes(solution)
    for name in solution.curve_names:
        dimensions = [d for d in _CURVES[name][0][1:] if d in axes]
        index = f" (columns numbered by {' and '.join(dimensions)}, from 0)" if dimensions else ""
        text.write(f"# {name}: {_CURVES[name][1]}, {_CURVES[name][2]}{index}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*([repr(float(x)) for x in column] for column in columns.values()), strict=True))
    atomic_write(path, text.getvalue().encode())
