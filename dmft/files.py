"""Files of solutions: HDF5 (schema version 1) and CSV; and `load`, which reads whatever this package writes.

Layout: ``/curves`` (scale ``t``), ``/two_time`` (scales ``mode``, ``t``, ``t_prime``), ``/parameters`` (one scalar
each, the canonical JSON, the TOML text), ``/stats``; the groups carry the NXdata attributes of NeXus, so that generic
viewers plot the errors at once. How the arrays are written is in `dmft.hdf5`, files of simulations in
`dmft.simulation_files`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmft.hdf5 import (
    FileFormatError,
    atomic_path,
    atomic_write,
    attach,
    dataset,
    digest,
    image,
    opened,
    scale,
    write_parameters,
)
from dmft.schema import CURVE_TEXTS, SCALE_TEXTS, TWO_TIME_TEXTS
from dmft.simulation import Simulation
from dmft.simulation_files import is_simulation, read_simulation, save_simulation, save_simulation_csv
from dmft.solution import Solution, Stats, mode_names
from dmft.status import Status

if TYPE_CHECKING:
    import h5py

__all__ = [
    "FileFormatError",
    "atomic_path",
    "atomic_write",
    "load",
    "save",
    "save_csv",
    "save_result",
    "save_simulation",
    "save_simulation_csv",
]


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
        "modes": list(mode_names(solution.formulation)),
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
    if not solution.has_two_time:
        return arrays
    arrays["two_time/row"] = solution.row_index
    for name in TWO_TIME_TEXTS:
        value = getattr(solution.two_time, name)
        if value is not None:
            arrays[f"two_time/{name}"] = value
    return arrays


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
    record, arrays = _canonical_json(solution), _arrays(solution)

    def fill(file: h5py.File) -> None:
        _write_curves(file.create_group("curves"), solution, arrays)
        if solution.has_two_time:
            _write_two_time(file.create_group("two_time"), solution, arrays)
        parameters = {**solution.problem.to_dict(), "rtol": solution.rtol, "method": solution.method}
        write_parameters(file.create_group("parameters"), parameters, record, solution.config_text)
        stats = file.create_group("stats")
        for name, number in asdict(solution.stats).items():
            dataset(stats, name, number, name.replace("_", " "), f"work counter of the integrator: {name}")
        stats["wall_time"].attrs["units"] = "s"

    return image(
        fill,
        title=f"DMFT of a {solution.problem.name} problem to t = {float(solution.t[-1])!r}",
        status=solution.status,
        message=solution.message,
        seed="none (deterministic)",
        sha256=digest(record, arrays),
    )


def _write_curves(group: h5py.Group, solution: Solution, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    network = solution.formulation.residual_sector
    group.attrs.update({"NX_class": "NXdata", "signal": "test_error" if network else "energy", "axes": "t"})
    if network:
        group.attrs["auxiliary_signals"] = np.array(["train_error"], dtype=object)
    group.attrs["title"] = "errors against time" if network else "energy against time"
    scale(group, "t", arrays["curves/t"], *SCALE_TEXTS["t"])
    for name, size in _axes(solution).items():
        scale(group, name, np.arange(size), *SCALE_TEXTS[name])
    for name in solution.curve_names:
        dimensions, long_name, description = CURVE_TEXTS[name]
        present = tuple(dimension for dimension in dimensions if dimension in group)
        attach(group, dataset(group, name, arrays[f"curves/{name}"], long_name, description), present)
    order = dataset(
        group, "order", arrays["curves/order"], "order", "polynomial order of each time row, for interpolation"
    )
    attach(group, order, ("t",))


def _write_two_time(group: h5py.Group, solution: Solution, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    stored = solution.two_time
    axes = np.array(["mode", "t", "t_prime"], dtype=object)
    group.attrs.update({"NX_class": "NXdata", "signal": "correlation", "axes": axes, "title": "two-time functions"})
    scale(group, "mode", np.array(stored.modes, dtype=object), *SCALE_TEXTS["mode"])
    scale(group, "t", stored.t, *SCALE_TEXTS["t"])
    scale(group, "t_prime", stored.t, *SCALE_TEXTS["t_prime"])
    row = dataset(group, "row", arrays["two_time/row"], "row", "place of each stored time in /curves/t, from 0")
    attach(group, row, ("t",))
    for name, (dimensions, long_name, description) in TWO_TIME_TEXTS.items():
        if f"two_time/{name}" in arrays:
            attach(group, dataset(group, name, arrays[f"two_time/{name}"], long_name, description), dimensions)


def save_result(result: Solution | Simulation, path: Path) -> Path:
    """Save, but never replace a complete result by a partial one: that goes to ``<name>.partial.h5``.

    Returns
    -------
    Path
        Where it went.

    Raises
    ------
    OSError
        When the place cannot be written.
    """
    if not result.status.ok and _is_complete(path):
        path = path.with_name(f"{path.stem}.partial{path.suffix}")
    result.save(path)
    return path


def _is_complete(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        return bool(load(path).status.ok)
    except (OSError, ValueError):
        return True  # unreadable to this version: not ours to replace


def load(path: str | PathLike[str]) -> Solution | Simulation:
    """Read back a solution or a simulation, every number bit for bit.

    Parameters
    ----------
    path : path
        A file written by `Solution.save` or `Simulation.save`, or a simulation that others wrote in the same schema.

    Raises
    ------
    FileNotFoundError, OSError
        When there is no such file, or it may not be read.
    FileFormatError
        When the file is no HDF5 file, is truncated or damaged, is of another schema version, or holds something else.
    """
    with opened(path) as file:
        if "runs" in file:
            raise FileFormatError(f"{file.filename} holds a sweep of `dmft relu`, which validation.relu.load reads")
        return read_simulation(file) if is_simulation(file) else _read(file)


def _read(file: h5py.File) -> Solution:
    from dmft.problems import from_dict

    text = file["parameters/canonical_json"].asstr()[()]
    record = json.loads(text)
    problem = from_dict(record["problem"])
    formulation = problem.formulation()
    network = formulation.residual_sector
    arrays = {
        f"curves/{key}": file[f"curves/{key}"][...] for key in ("t", "order", *CURVE_TEXTS) if key in file["curves"]
    }
    if "two_time" in file:
        arrays |= {
            f"two_time/{key}": file[f"two_time/{key}"][...]
            for key in ("row", *TWO_TIME_TEXTS)
            if key in file["two_time"]
        }
    if digest(text, arrays) != file.attrs["content_sha256"]:
        raise FileFormatError(f"{file.filename} is damaged: its contents do not match their checksum")
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
        row_index=arrays.get("two_time/row"),
        modes=tuple(record["modes"]),
        correlation=arrays.get("two_time/correlation"),
        integrated_response=arrays.get("two_time/integrated_response"),
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
    text.write(f"# DMFT of a {solution.problem.name} problem; all columns are dimensionless (units 1)\n")
    text.write(f"# status: {solution.status.value}; rtol: {solution.rtol!r}; method: {solution.method}\n")
    text.write(f"# problem: {json.dumps(solution.problem.to_dict(), sort_keys=True)}\n")
    text.write(f"# t: {SCALE_TEXTS['t'][1]}\n")
    axes = _axes(solution)
    for name in solution.curve_names:
        dimensions = [d for d in CURVE_TEXTS[name][0][1:] if d in axes]
        index = f" (columns numbered by {' and '.join(dimensions)}, from 0)" if dimensions else ""
        text.write(f"# {name}: {CURVE_TEXTS[name][1]}, {CURVE_TEXTS[name][2]}{index}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*([repr(float(x)) for x in column] for column in columns.values()), strict=True))
    atomic_write(path, text.getvalue().encode())
