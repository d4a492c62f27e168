"""Configurations of ``dmft relu``: tables [relu], [data] and, for the view of the theory, [plane]."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dmft import config as configuration
from dmft._validate import shown
from dmft.config import ConfigError
from validation.relu.network import Nonlinearity
from validation.relu.plane import Plane
from validation.relu.sweep import SETS, Source, Sweep
from validation.relu.training import Training

SECTIONS = ("relu", "data", "plane")
_SWEEP = ("samples", "dimension", "scale", "seeds", "seed")
_TRAINING = tuple(f.name for f in fields(Training) if f.name not in ("scale", "activation"))
_ACTIVATION = ("activation", "slope")
_SET_SAMPLES = {"three_points": 3, "forty_points": 40}


@dataclass(frozen=True, kw_only=True)
class ReluConfig:
    """A checked configuration.

    Attributes
    ----------
    sweep : Sweep
    plane : Plane or None
        The ``[plane]`` table.
    text, name : str
        As in `dmft.config.Config`.
    """

    sweep: Sweep
    plane: Plane | None
    text: str
    name: str


def read(source: str | Path, overrides: Iterable[str] = ()) -> ReluConfig:
    """Read a file, or a ready configuration by its name.

    Raises
    ------
    ConfigError, TypeError, ValueError
        As `dmft.config.read`.
    """
    tables, text, name = configuration.read_tables(source, overrides)
    for section, table in tables.items():
        if section not in SECTIONS:
            raise ConfigError(
                f"unknown section or top-level key {section!r}; sections of `dmft relu` are {', '.join(SECTIONS)}."
            )
        if not isinstance(table, dict):
            raise ConfigError(f"{section} must be a table, [{section}], not {shown(table)}.")
    if "relu" not in tables:
        raise ConfigError("section [relu] is missing.")
    options: dict[str, Any] = dict(tables["relu"])
    configuration.check_keys("relu", options, (*_SWEEP, *_TRAINING, *_ACTIVATION))
    data = dict(tables.get("data", {}))
    configuration.check_keys("data", data, tuple(f.name for f in fields(Source)))
    source_ = Source(**data)
    if source_.inputs in SETS:
        options.setdefault("samples", _SET_SAMPLES[source_.inputs])
        options.setdefault("dimension", 2)
        for key in data:
            if key != "inputs":
                raise ConfigError(f"[data] {key} does not go with inputs = {source_.inputs!r}, which are published.")
    for key in ("samples", "dimension"):
        if key not in options:
            raise ConfigError(f"[relu] {key} is missing.")
    named = {key: options.pop(key) for key in _ACTIVATION if key in options}
    activation = Nonlinearity(named.get("activation", "relu"), named.get("slope"))
    training = Training(activation=activation, **{k: v for k, v in options.items() if k in _TRAINING})
    sweep = Sweep(
        source=source_,
        training=training,
        samples=options["samples"],
        dimensions=options["dimension"],
        scales=options.get("scale", training.scale),
        **{key: options[key] for key in ("seeds", "seed") if key in options},
    )
    plane = None
    if "plane" in tables:
        configuration.check_keys("plane", tables["plane"], tuple(f.name for f in fields(Plane)))
        plane = Plane(**tables["plane"])
    return ReluConfig(sweep=sweep, plane=plane, text=text, name=name)
