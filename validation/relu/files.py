"""Files of sweeps: HDF5, schema version 1.

Layout: ``/runs`` with scales ``dimension``, ``scale``, ``samples``, ``run`` and a dataset for each number of
`sweep.MEASURED`; ``/curves`` with the same scales and ``t`` and a dataset for each course of `sweep.CURVES`;
``/parameters`` as for solutions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmft.hdf5 import (
    FileFormatError,
    atomic_write,
    attach,
    dataset,
    digest,
    image,
    opened,
    scale,
    write_parameters,
)
from dmft.status import Status
from validation.relu.network import Nonlinearity
from validation.relu.sweep import CURVES, MEASURED, Source, Sweep, SweepResult
from validation.relu.training import Training

if TYPE_CHECKING:
    import h5py

_AXES = ("dimension", "scale", "samples", "run")
_AXIS_TEXTS = {
    "dimension": ("input dimension", "d"),
    "scale": ("scale of the initialisation", "lambda"),
    "samples": ("samples", "n"),
    "run": ("run", "data set and initialisation"),
}


def save(result: SweepResult, path: str | PathLike[str], config_text: str = "") -> None:
    """Write a sweep to an HDF5 file, whole or not at all.

    Raises
    ------
    OSError
        When the disk is full or the place cannot be written; an old file of that name survives.
    """
    sweep = result.sweep
    status = Status.INTERRUPTED if result.interrupted else Status.FAILED if result.failures else Status.DONE
    message = f"{result.missing} of {result.values['verdict'].size} runs are missing" if result.missing else "all runs"
    record = json.dumps(
        {"sweep": sweep.to_dict(), "failures": dict(result.failures), "interrupted": result.interrupted},
        sort_keys=True,
        allow_nan=False,
        separators=(",", ":"),
    )
    arrays = _arrays(result)

    def fill(file: h5py.File) -> None:
        for place, texts, axes in (("runs", MEASURED, _AXES), ("curves", CURVES, (*_AXES, "t"))):
            group = file.create_group(place)
            order = np.array(axes, dtype=object)
            group.attrs.update({"NX_class": "NXdata", "signal": "train_loss", "axes": order, "title": place})
            values = (sweep.dimensions, sweep.scales, sweep.samples, np.arange(sweep.seeds))
            for axis, numbers in zip(_AXES, values, strict=True):
                scale(group, axis, np.asarray(numbers), *_AXIS_TEXTS[axis])
            if place == "curves":
                scale(group, "t", sweep.times, "time", "of gradient flow; learning rate times steps otherwise")
            for name, (long_name, description) in texts.items():
                attach(group, dataset(group, name, arrays[f"{place}/{name}"], long_name, description), axes)
        write_parameters(file.create_group("parameters"), sweep.to_dict(), record, config_text)

    contents = image(
        fill,
        title="sweep of two-layer ReLU networks",
        status=status,
        message=message,
        seed=f"SeedSequence([{sweep.seed}, dimension], spawn_key=(run, part))",
        sha256=digest(record, arrays),
    )
    atomic_write(path, contents)


def load(path: str | PathLike[str]) -> SweepResult:
    """Read back what `save` wrote, every number bit for bit.

    Raises
    ------
    FileNotFoundError, OSError
        When there is no such file, or it may not be read.
    FileFormatError
        When it is damaged or holds something else.
    """
    with opened(path) as file:
        if "runs" not in file:
            raise FileFormatError(f"{file.filename} holds no sweep of `dmft relu`")
        text = file["parameters/canonical_json"].asstr()[()]
        record = json.loads(text)
        values = {name: file[f"runs/{name}"][...] for name in MEASURED}
        curves = {name: file[f"curves/{name}"][...] for name in CURVES}
        result = SweepResult(
            sweep_from_dict(record["sweep"]), values, curves, record["failures"], record["interrupted"]
        )
        if digest(text, _arrays(result)) != file.attrs["content_sha256"]:
            raise FileFormatError(f"{file.filename} is damaged: its contents do not match their checksum")
        return result


def sweep_from_dict(data: Mapping[str, Any]) -> Sweep:
    """Rebuild from `Sweep.to_dict`."""
    training = dict(data["training"])
    activation = Nonlinearity(training.pop("activation"), training.pop("slope", None))
    return Sweep(
        source=Source(**data["source"]),
        training=Training(activation=activation, **training),
        samples=data["samples"],
        dimensions=data["dimensions"],
        scales=data["scales"],
        seeds=data["seeds"],
        seed=data["seed"],
    )


def _arrays(result: SweepResult) -> dict[str, NDArray[Any]]:
    return {f"runs/{name}": result.values[name] for name in MEASURED} | {
        f"curves/{name}": result.curves[name] for name in CURVES
    }
