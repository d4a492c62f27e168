"""Files of solutions: HDF5 (schema version 1) and CSV; and `load`, which reads whatever this package writes.

Layout: ``/curves`` (scale ``t``), ``/two_time`` (scales ``mode``, ``t``, ``t_prime``), ``/scaled_two_time`` (scales
``mode``, ``t``, ``ratio``) of engines that have it, ``/parameters`` (one scalar each, the canonical JSON, the TOML
text), ``/stats``, and ``/verification`` (scales ``curve``, ``run``) of a run that
was checked; the groups carry the NXdata attributes of NeXus, so that generic viewers plot the errors at once. How the
arrays are written is in `dmft.hdf5`, files of simulations in `dmft.simulation_files`.
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
from dmft.optimizers import from_dict as optimizer_from_dict
from dmft.scaled_time import ScaledTwoTime, ratios
from dmft.schema import CURVE_TEXTS, SCALE_TEXTS, SCALED_TEXTS, TWO_TIME_TEXTS, UPDATE_TEXT, VERIFICATION_TEXTS
from dmft.simulation import Simulation
from dmft.simulation_files import is_simulation, read_simulation, save_simulation, save_simulation_csv
from dmft.solution import Solution, Stats, mode_names
from dmft.status import Status
from dmft.verification import Verification

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
    if solution.verification is not None:  # files without one stay what they were
        record["verification"] = solution.verification.to_dict()
    if solution.optimizer is not None:
        record["optimizer"] = solution.optimizer.to_dict()
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
    if solution.updates is not None:
        arrays["curves/update"] = solution.updates
    if not solution.has_two_time:
        return arrays
    arrays["two_time/row"] = solution.row_index
    for name in TWO_TIME_TEXTS:
        value = getattr(solution.two_time, name)
        if value is not None:
            arrays[f"two_time/{name}"] = value
    if solution.scaled is not None:
        for name in ("t", *SCALED_TEXTS):
            value = getattr(solution.scaled, name)
            if value is not None:
                arrays[f"scaled_two_time/{name}"] = value
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
        if solution.scaled is not None:
            _write_scaled(file.create_group("scaled_two_time"), solution, solution.scaled)
        parameters = {**solution.problem.to_dict(), "rtol": solution.rtol, "method": solution.method}
        if solution.optimizer is not None:
            parameters["optimizer"] = solution.optimizer.to_dict()
        write_parameters(file.create_group("parameters"), parameters, record, solution.config_text)
        stats = file.create_group("stats")
        for name, number in asdict(solution.stats).items():
            dataset(stats, name, number, name.replace("_", " "), f"work counter of the integrator: {name}")
        stats["wall_time"].attrs["units"] = "s"
        if solution.verification is not None:
            _write_verification(file.create_group("verification"), solution.verification)

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
    if "curves/update" in arrays:
        attach(group, dataset(group, "update", arrays["curves/update"], *UPDATE_TEXT), ("t",))


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


def _write_scaled(group: h5py.Group, solution: Solution, scaled: ScaledTwoTime) -> None:
    """Two-time functions on (t, s/t); ``stretch`` places the ratios, see `dmft.scaled_time`."""
    group.attrs.update({"NX_class": "NXdata", "signal": "correlation", "title": "two-time functions at fixed s/t"})
    group.attrs["axes"] = np.array(["mode", "t", "ratio"], dtype=object)
    scale(group, "mode", np.array(solution.two_time.modes, dtype=object), *SCALE_TEXTS["mode"])
    scale(group, "t", scaled.t, *SCALE_TEXTS["t"])
    scale(group, "ratio", ratios(scaled.size, scaled.stretch)[0], *SCALE_TEXTS["ratio"])
    dataset(group, "stretch", scaled.stretch, "stretch", "2a of the nodes s/t = (1 + tanh(a x)/tanh a)/2, x in [-1, 1]")
    for name, (dimensions, long_name, description) in SCALED_TEXTS.items():
        values = getattr(scaled, name)
        if values is not None:
            attach(group, dataset(group, name, values, long_name, description), dimensions)


def _write_verification(group: h5py.Group, verification: Verification) -> None:
    """The check of a run for other readers; this package reads it from the canonical JSON."""
    facts = {
        "verdict": (verification.verdict, "what the check found"),
        "agrees": (int(verification.agrees), "1 where all curves agree within `allowed`"),
        "explained": (int(verification.explained), "1 where measured amplification accounts for the differences"),
        "allowed": (verification.allowed, "difference that counts as agreement"),
        "method": (verification.check_method, "scheme of the check"),
        "rtol": (verification.check_rtol, "tolerance of the check"),
        "independent": (int(verification.independent), "1 where the check is of another engine"),
        "status": (verification.status.value, "how the check ended"),
        "message": (verification.message, "how the check ended, in a sentence"),
    }
    for name, (value, description) in facts.items():
        dataset(group, name, value, name, description)
    dataset(group, "times", verification.times, "times", "times at which run and check are compared")
    runs = {"run": verification.run, "check": verification.check}
    known = {name: quality for name, quality in runs.items() if quality is not None}
    columns: dict[str, list[float | None]] = {
        "largest_difference": [one.largest for one in verification.differences],
        "time": [one.time for one in verification.differences],
        "amplification": [one.amplification for one in verification.differences],
    }
    columns |= {
        name: [getattr(quality, name) for quality in known.values()]
        for name in ("balance_median", "balance_largest", "drift", "wall_time")
    }
    names = {"curve": [one.curve for one in verification.differences], "run": list(known)}
    for name, labels in names.items():
        scale(group, name, np.array(labels, dtype=object), *SCALE_TEXTS[name])
    for name, (dimensions, long_name, description) in VERIFICATION_TEXTS.items():
        values = np.array([np.nan if value is None else value for value in columns[name]], dtype=np.float64)
        attach(group, dataset(group, name, values, long_name, description), dimensions)
    group["wall_time"].attrs["units"] = "s"


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
        f"curves/{key}": file[f"curves/{key}"][...]
        for key in ("t", "order", "update", *CURVE_TEXTS)
        if key in file["curves"]
    }
    if "two_time" in file:
        arrays |= {
            f"two_time/{key}": file[f"two_time/{key}"][...]
            for key in ("row", *TWO_TIME_TEXTS)
            if key in file["two_time"]
        }
    scaled = None
    if "scaled_two_time" in file:
        group = file["scaled_two_time"]
        found = {name: group[name][...] for name in ("t", *SCALED_TEXTS) if name in group}
        arrays |= {f"scaled_two_time/{name}": value for name, value in found.items()}
        scaled = ScaledTwoTime(
            t=found["t"],
            stretch=float(group["stretch"][()]),
            correlation=found["correlation"],
            response=found["response"],
            integrated_response=found["integrated_response"],
            residual_correlation=found.get("residual_correlation"),
        )
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
        verification=Verification.from_dict(record["verification"]) if "verification" in record else None,
        scaled=scaled,
        optimizer=optimizer_from_dict(record["optimizer"]) if "optimizer" in record else None,
        updates=arrays.get("curves/update"),
    )


def save_csv(solution: Solution, path: str | PathLike[str]) -> None:
    """Write the curves as CSV: comment lines that describe the columns, one line of names, one line a row.

    Numbers read back exactly. Errors as `save`.
    """
    columns: dict[str, Any] = {**solution.columns()}
    text = io.StringIO()
    text.write(f"# DMFT of a {solution.problem.name} problem; all columns are dimensionless (units 1)\n")
    text.write(f"# status: {solution.status.value}; rtol: {solution.rtol!r}; method: {solution.method}\n")
    text.write(f"# problem: {json.dumps(solution.problem.to_dict(), sort_keys=True)}\n")
    text.write(f"# t: {SCALE_TEXTS['t'][1]}\n")
    if solution.optimizer is not None and solution.updates is not None:
        columns = {"t": columns.pop("t"), "update": solution.updates, **columns}
        text.write(f"# optimizer: {json.dumps(solution.optimizer.to_dict(), sort_keys=True)}\n")
        text.write(f"# update: {UPDATE_TEXT[1]}\n")
    axes = _axes(solution)
    for name in solution.curve_names:
        dimensions = [d for d in CURVE_TEXTS[name][0][1:] if d in axes]
        index = f" (columns numbered by {' and '.join(dimensions)}, from 0)" if dimensions else ""
        text.write(f"# {name}: {CURVE_TEXTS[name][1]}, {CURVE_TEXTS[name][2]}{index}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*([repr(x) for x in column.tolist()] for column in columns.values()), strict=True))
    atomic_write(path, text.getvalue().encode())
