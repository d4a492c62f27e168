"""Files of simulations: HDF5 (schema version 1) and CSV.

Layout: ``/curves`` with scale ``t`` and, for each curve, ``<name>_mean``, ``<name>_sem`` and ``<name>_replicas`` (first
axis ``replica``); ``/two_time`` likewise on ``mode``, ``t``, ``t_prime``; ``/parameters`` as for solutions.

Simulations made by other programs are read too. They need the root attribute ``schema_version = 1``, ``/curves/t``, at
least one curve as ``<name>_replicas`` or as ``<name>_mean`` and ``<name>_sem``, and ``/parameters/canonical_json``: a
JSON object with ``problem`` (as `Problem.to_dict` writes it, or the keys of a configuration's [model]) and ``settings``
(``model``, ``dimension``, ``samples``, and ``replicas`` where only means are given). Their axes may leave out the group
of a symmetric problem and a single latent direction; a checksum is optional.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from dmft.hdf5 import FileFormatError, atomic_write, attach, dataset, digest, image, scale, write_parameters
from dmft.schema import CURVE_TEXTS, SCALE_TEXTS, TWO_TIME_TEXTS
from dmft.simulation import CURVES, TWO_TIME, Sample, Settings, Simulation
from dmft.status import Status

if TYPE_CHECKING:
    import h5py

_PARTS = {
    "mean": "mean over the replicas",
    "sem": "standard error of the mean over the replicas",
    "replicas": "each replica",
}


def _record(simulation: Simulation) -> str:
    """Everything that is not an array, in one canonical text."""
    record = {
        "problem": simulation.problem.to_dict(),
        "settings": {**simulation.settings.to_dict(), "replicas": simulation.replicas},
        "status": simulation.status.value,
        "message": simulation.message,
        "wall_time": simulation.wall_time,
        "config_text": simulation.config_text,
    }
    return json.dumps(record, sort_keys=True, allow_nan=False, separators=(",", ":"))


def _arrays(simulation: Simulation) -> dict[str, np.ndarray[Any, Any]]:
    """All arrays, by their place in the file, with the axes that a solution's curves have too."""
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "curves/t": simulation.t,
        "curves/replica": simulation.replica_index,
        "two_time/t": simulation.pair_times,
    }
    for group, names in (("curves", simulation.curve_names), ("two_time", simulation.two_time_names)):
        for name in names:
            sample = simulation.sample(name)
            arrays[f"{group}/{name}_mean"], arrays[f"{group}/{name}_sem"] = sample.mean, sample.sem
            if sample.values is not None:
                arrays[f"{group}/{name}_replicas"] = sample.values
    return arrays


def save_simulation(simulation: Simulation, path: str | PathLike[str]) -> None:
    """Write a simulation to an HDF5 file of schema version 1, whole or not at all.

    Raises
    ------
    OSError
        When the disk is full or the place cannot be written; an old file of that name survives.
    """
    record, arrays = _record(simulation), _arrays(simulation)

    def fill(file: h5py.File) -> None:
        _write_group(file, "curves", simulation.curve_names, simulation, arrays)
        if len(simulation.pair_times):
            _write_group(file, "two_time", simulation.two_time_names, simulation, arrays)
        parameters = {**simulation.problem.to_dict(), **simulation.settings.to_dict(), "replicas": simulation.replicas}
        write_parameters(file.create_group("parameters"), parameters, record, simulation.config_text)

    settings = simulation.settings
    contents = image(
        fill,
        title=f"simulation of a {simulation.problem.kind} problem: {simulation.describe()}",
        status=simulation.status,
        message=simulation.message,
        seed=f"SeedSequence([{settings.seed}, {settings.dimension}], spawn_key=(replica,))",
        sha256=digest(record, arrays),
    )
    atomic_write(path, contents)


def _write_group(
    file: h5py.File,
    place: str,
    names: tuple[str, ...],
    simulation: Simulation,
    arrays: Mapping[str, np.ndarray[Any, Any]],
) -> None:
    group = file.create_group(place)
    texts = CURVE_TEXTS if place == "curves" else TWO_TIME_TEXTS
    if place == "curves":
        signal = "test_error_mean" if "test_error" in names else f"{names[0]}_mean"
        group.attrs.update({"NX_class": "NXdata", "signal": signal, "axes": "t", "title": simulation.describe()})
        others = [f"{name}_mean" for name in ("train_error",) if name in names]
        group.attrs["auxiliary_signals"] = np.array(others, dtype=object)
    scale(group, "t", arrays[f"{place}/t"], *SCALE_TEXTS["t"])
    if place == "two_time":
        if "correlation" in names:
            order = np.array(["mode", "t", "t_prime"], dtype=object)
            group.attrs.update({"NX_class": "NXdata", "signal": "correlation_mean", "axes": order})
            group.attrs["title"] = "two-time functions"
        scale(group, "t_prime", arrays["two_time/t"], *SCALE_TEXTS["t_prime"])
        scale(group, "mode", np.array(simulation.modes, dtype=object), *SCALE_TEXTS["mode"])
    scale(group, "replica", simulation.replica_index, *SCALE_TEXTS["replica"])
    formulation = simulation.formulation
    axes = {"group": formulation.groups} if simulation.problem.kind != "symmetric" else {}
    if formulation.latent_dimension > 1:
        axes["latent"] = formulation.latent_dimension
    if place == "curves":
        for name, size in axes.items():
            scale(group, name, np.arange(size), *SCALE_TEXTS[name])
    for name in names:
        dimensions, long_name, description = texts[name]
        present = tuple(dimension for dimension in dimensions if dimension in group)
        for part, words in _PARTS.items():
            if f"{place}/{name}_{part}" in arrays:
                values = arrays[f"{place}/{name}_{part}"]
                created = dataset(group, f"{name}_{part}", values, f"{long_name}, {words}", description)
                attach(group, created, ("replica", *present) if part == "replicas" else present)


def is_simulation(file: h5py.File) -> bool:
    """Whether an open file holds a simulation and not a solution."""
    return "curves" in file and any(name.endswith(("_mean", "_replicas")) for name in file["curves"])


def read_simulation(file: h5py.File) -> Simulation:
    """Read a simulation from an open file; see `dmft.files.load`.

    Raises
    ------
    FileFormatError
        When something that is needed is missing or damaged, with what it is.
    """
    from dmft.problems import NetworkProblem, from_dict

    name = file.filename
    text = _text(file, "parameters/canonical_json")
    record = json.loads(text)
    for key in ("problem", "settings"):
        if not isinstance(record.get(key), dict):
            raise FileFormatError(f"{name}: /parameters/canonical_json has no {key!r}")
    try:
        problem = from_dict(record["problem"])
        settings = Settings.from_dict({k: v for k, v in record["settings"].items() if k != "replicas"})
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"{name}: {error}") from None
    if not isinstance(problem, NetworkProblem):
        raise FileFormatError(f"{name} holds a simulation of a {problem.kind} problem, which is no network")
    if "t" not in file["curves"]:
        raise FileFormatError(f"{name} has no /curves/t")
    t = file["curves/t"][...]
    pair_times = file["two_time/t"][...] if "two_time" in file else np.zeros(0)
    frame: dict[str, Any] = {"problem": problem, "settings": settings, "t": t, "pair_times": pair_times}
    try:
        shapes = Simulation(**frame, observables={}, replica_index=[]).shapes()
    except ValueError as error:
        raise FileFormatError(f"{name}: {error}") from None
    # Axes that a file may leave out, as the curves of a solution do.
    alone, single = problem.kind == "symmetric", problem.formulation().latent_dimension == 1
    optional = {"a": (False, alone), "gamma": (False, alone), "v": (False, alone, single)}
    samples: dict[str, Sample] = {}
    arrays: dict[str, np.ndarray[Any, Any]] = {"curves/t": t, "two_time/t": pair_times}
    for place, names in (("curves", CURVES), ("two_time", TWO_TIME)):
        for key in names:
            found = {part: file[f"{place}/{key}_{part}"][...] for part in _PARTS if f"{place}/{key}_{part}" in file}
            arrays |= {f"{place}/{key}_{part}": values for part, values in found.items()}
            if found:
                replicas = record["settings"].get("replicas")
                samples[key] = _sample(f"{name}: {key}", found, shapes[key], optional.get(key, ()), replicas)
    if not samples:
        raise FileFormatError(f"{name} has none of the curves {', '.join(CURVES)}")
    count = max(sample.count for sample in samples.values())
    if "replica" in file["curves"]:
        arrays["curves/replica"] = file["curves/replica"][...]
    if "content_sha256" in file.attrs and digest(text, arrays) != file.attrs["content_sha256"]:
        raise FileFormatError(f"{name} is damaged: its contents do not match their checksum")
    try:
        return Simulation(
            **frame,
            observables=samples,
            replica_index=arrays.get("curves/replica", np.arange(count)),
            status=Status(record.get("status", "done")),
            message=record.get("message", ""),
            wall_time=record.get("wall_time", 0.0),
            config_text=record.get("config_text", ""),
        )
    except ValueError as error:
        raise FileFormatError(f"{name}: {error}") from None


def _text(file: h5py.File, place: str) -> str:
    if place not in file:
        raise FileFormatError(f"{file.filename} has no /{place}, so its problem and settings are unknown")
    return str(file[place].asstr()[()])


def _sample(
    where: str,
    found: Mapping[str, np.ndarray[Any, Any]],
    shape: tuple[int, ...],
    axes: tuple[bool, ...],
    replicas: int | None,
) -> Sample:
    """One observable from its parts; axes that the file may leave out are put back.

    ``axes`` says for each axis of ``shape`` whether it may be missing.
    """

    def shaped(part: str, lead: tuple[int, ...] = ()) -> np.ndarray[Any, Any]:
        values = np.asarray(found[part], dtype=np.float64)
        full = (*lead, *shape)
        short = (*lead, *(n for n, may in itertools.zip_longest(shape, axes, fillvalue=False) if not may))
        if values.shape not in (full, short):
            raise FileFormatError(f"{where}_{part} has shape {values.shape}, not {full}")
        return values.reshape(full)

    if "replicas" in found:
        own = Sample.of(shaped("replicas", np.shape(found["replicas"])[:1]))
        if not {"mean", "sem"} <= set(found):
            return own
        return Sample(mean=shaped("mean"), sem=shaped("sem"), count=own.count, values=own.values)
    if not {"mean", "sem"} <= set(found):
        raise FileFormatError(f"{where} needs _replicas, or both _mean and _sem")
    if replicas is None:
        raise FileFormatError(f"{where} has means only, so the settings must have the number of replicas")
    return Sample(mean=shaped("mean"), sem=shaped("sem"), count=int(replicas), values=None)


def save_simulation_csv(simulation: Simulation, path: str | PathLike[str]) -> None:
    """Write mean and standard error of the curves as CSV with commented header lines.

    Numbers read back exactly. Errors as `save_simulation`.
    """
    columns = simulation.columns()
    text = io.StringIO()
    text.write(f"# simulation, {simulation.describe()}; all columns are dimensionless (units 1)\n")
    text.write(f"# status: {simulation.status.value}; seed: {simulation.settings.seed}\n")
    text.write(f"# problem: {json.dumps(simulation.problem.to_dict(), sort_keys=True)}\n")
    text.write(f"# t: {SCALE_TEXTS['t'][1]}; _mean and _sem: over the replicas\n")
    for name in simulation.curve_names:
        text.write(f"# {name}: {CURVE_TEXTS[name][1]}, {CURVE_TEXTS[name][2]}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*([repr(float(x)) for x in column] for column in columns.values()), strict=True))
    atomic_write(path, text.getvalue().encode())
