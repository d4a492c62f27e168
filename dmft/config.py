"""Run configurations: TOML in, a checked problem and solve options out.

The keys of ``[model]`` are ``kind`` and the parameters of that kind of problem, so a new problem needs nothing here;
those of ``[solve]`` are the fields of `SolveOptions`, those of ``[simulate]`` (a table, or several as ``[[simulate]]``)
those of `SimulateOptions`. ``[sweep]`` lists values for some keys, ``"model.width" = [16, 64]``, one member of the
sweep for each place in the lists; ``[figure]`` says what to draw of them (:mod:`dmft.figure`). Every key is checked
before anything is computed, and a key that is not known is refused with the nearest known spelling.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from dmft import _validate, figure, limits, optimizers, problems
from dmft.activations import Activation
from dmft.targets import Target

Table = dict[str, Any]

_SECTIONS = ("model", "solve", "simulate", "sweep", "figure", "threshold")


class ConfigError(ValueError):
    """A configuration that cannot be read; the message is one sentence naming the key."""


@dataclass(frozen=True, kw_only=True)
class SolveOptions:
    """The ``[solve]`` table.

    Attributes
    ----------
    t_final : float
        Time to reach, in [MU]'s unit of t.
    rtol : float
        Relative tolerance of every curve.
    method : str
        Scheme; "auto" chooses.
    times : tuple of float or None
        Times that the grid has to contain.
    max_rows : int or None
        Limit on the number of time rows; None is the engine's own.
    thinning : float or None
        With an optimizer, relative error that thinning the history of a long run may bring each time.
    verify : bool
        Whether a second run checks the solution.
    optimizer : Optimizer or None
        Discrete updates instead of gradient flow; a table such as ``{ kind = "gd", learning_rate = 1.0 }``.
    """

    t_final: float
    rtol: float = 1e-4
    method: str = "auto"
    times: tuple[float, ...] | None = None
    max_rows: int | None = None
    thinning: float | None = None
    verify: bool = False
    optimizer: optimizers.Optimizer | None = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `dmft.solve` besides ``t_final``."""
        values: dict[str, Any] = {"rtol": self.rtol, "method": self.method, "times": self.times}
        if self.max_rows is not None:
            values["max_rows"] = self.max_rows
        if self.thinning is not None:
            values["thinning"] = self.thinning
        if self.verify:
            values["verify"] = True
        if self.optimizer is not None:
            values["optimizer"] = self.optimizer
        return values

    def __post_init__(self) -> None:
        object.__setattr__(self, "t_final", _validate.real("t_final", self.t_final, low=0.0, open_low=True))
        object.__setattr__(self, "rtol", _validate.real("rtol", self.rtol, low=0.0, open_low=True, high=0.1))
        if not isinstance(self.method, str):
            raise TypeError(f"method must be the name of a scheme, not {_validate.shown(self.method)}.")
        object.__setattr__(self, "verify", _validate.boolean("verify", self.verify))
        if self.optimizer is not None and not isinstance(self.optimizer, optimizers.Optimizer):
            object.__setattr__(self, "optimizer", _optimizer("solve", self.optimizer))
        if self.max_rows is not None:
            object.__setattr__(self, "max_rows", _validate.integer("max_rows", self.max_rows, low=2))
        if self.thinning is not None:
            thinning = _validate.real("thinning", self.thinning, low=0.0, high=0.1, open_high=True)
            object.__setattr__(self, "thinning", thinning)
            if self.optimizer is None:
                raise ValueError("thinning goes with an optimizer.")
        if self.times is not None:
            times = tuple(_validate.real_array("times", self.times, ndim=1).tolist())
            inside = all(0 <= t <= self.t_final for t in times)
            if not inside or any(s >= t for s, t in itertools.pairwise(times)):
                shown = _validate.shown(list(times))
                raise ValueError(f"times must increase between 0 and t_final = {self.t_final:g}, not {shown}.")
            object.__setattr__(self, "times", times)


def _optimizer(section: str, given: Any) -> optimizers.Optimizer:
    try:
        return optimizers.from_dict(given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"[{section}] optimizer: {error}") from None


@dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """A ``[simulate]`` table: arguments of `dmft.simulate`, which checks them; None leaves its default.

    Attributes
    ----------
    dimension : int or list of int
        Input dimensions.
    t_final : float
        Time to reach; that of ``[solve]`` when it is not given.
    optimizer : Optimizer, str or None
        A table as in ``[solve]``, whose optimizer it is when none of ``optimizer``, ``step``, ``learning_rate`` and
        ``batch`` is given; or "flow", "gd", "sgd".
    """

    dimension: Any
    t_final: float
    replicas: Any = None
    model: Any = None
    optimizer: Any = None
    step: Any = None
    learning_rate: Any = None
    batch: Any = None
    times: Any = None
    pair_times: Any = None
    seed: Any = None
    rtol: Any = None
    test_samples: Any = None
    precision: Any = None

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, Mapping):
            object.__setattr__(self, "optimizer", _optimizer("simulate", self.optimizer))

    @property
    def dimensions(self) -> list[Any]:
        """The dimensions as a list."""
        return list(self.dimension) if isinstance(self.dimension, list) else [self.dimension]

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `dmft.simulate` besides ``dimension``, those that were given."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "dimension"}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A checked configuration.

    Attributes
    ----------
    problem : Problem
        The problem of the ``[model]`` table.
    solve : SolveOptions
        The ``[solve]`` table.
    simulate : tuple of SimulateOptions
        The ``[simulate]`` tables.
    text : str
        TOML text that gives this configuration again: the file verbatim, or the merged tables when something was
        overridden.
    name : str
        Name of the file without its suffix.
    swept : bool
        Whether there is a ``[sweep]``, whose members this is not one of.
    figure : FigureOptions or None
        The ``[figure]`` table; the members of a sweep leave it out.
    threshold : mapping
        The ``[threshold]`` table: ``vary`` and ``infinite_width`` of `dmft threshold`, which checks them.
    """

    problem: problems.Problem
    solve: SolveOptions
    simulate: tuple[SimulateOptions, ...]
    text: str
    name: str
    swept: bool = False
    figure: figure.FigureOptions | None = None
    threshold: Mapping[str, Any] | None = None


_SOLVE_KEYS = tuple(field.name for field in fields(SolveOptions))
_THRESHOLD_KEYS = ("vary", "infinite_width")
_SIMULATE_KEYS = tuple(field.name for field in fields(SimulateOptions))


def read(source: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a configuration file, or a ready configuration by its name.

    Parameters
    ----------
    source : str or Path
        A TOML file, or one of `ready_names`.
    overrides : iterable of str
        ``section.key=value`` with a TOML value (a bare word is a string); an empty value removes the key.

    Raises
    ------
    ConfigError
        If the file cannot be read or is not TOML, or a key is unknown or missing.
    TypeError, ValueError
        If a value is refused by the problem, the activation, the target or `SolveOptions`.
    """
    text, name = _text(source)
    return parse(text, overrides, name=name)


def read_members(source: str | Path, overrides: Iterable[str] = ()) -> list[Config]:
    """Read the members of a sweep, or the one configuration where there is no ``[sweep]``.

    Members are named after the first key that is swept, ``fig02-width16``, and their place too where its values repeat.
    Arguments and errors as in `read`.
    """
    text, name = _text(source)
    overrides = list(overrides)
    sweep = _tables(text, overrides).get("sweep", {})
    if not isinstance(sweep, dict):
        raise ConfigError(f"sweep must be a table, [sweep], not {_validate.shown(sweep)}.")
    if not sweep:
        return [parse(text, overrides, name=name)]
    _check_sweep(sweep)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in sweep:
            raise ConfigError(
                f"--set {key}: this key is swept; use --set sweep.{key}=[...], or an empty value to drop it."
            )
    first = next(iter(sweep))
    labels = [re.sub(r"[^\w.+-]+", "_", str(value)) for value in sweep[first]]  # part of file names
    if len(set(labels)) < len(labels):
        labels = [f"{label}-{place}" for place, label in enumerate(labels, start=1)]
    members = []
    for place, label in enumerate(labels):
        chosen = [f"{key}={_toml(values[place])}" for key, values in sweep.items()]
        without = [f"sweep.{_key(key)}=" for key in sweep]
        member = f"{name}-{first.rpartition('.')[2]}{label}"
        members.append(parse(text, [*overrides, *without, *chosen], name=member, drawn=False))
    return members


def read_tables(source: str | Path, overrides: Iterable[str] = ()) -> tuple[Table, str, str]:
    """Unchecked tables of a configuration, the TOML text that gives them again, and its name; errors as `read`."""
    text, name = _text(source)
    overrides = list(overrides)
    tables = _tables(text, overrides)
    return tables, _rewritten(text, tables, overrides, name), name


def _rewritten(text: str, tables: Table, overrides: list[str], name: str) -> str:
    if not overrides:
        return text
    header = " ".join(f"# {name}, with {', '.join(overrides)}".split())  # one line, whatever was typed
    return f"{header}\n{_dump(tables)}"


def _check_sweep(sweep: Table) -> None:
    lengths = set()
    for key, values in sweep.items():
        if key.count(".") < 1:
            raise ConfigError(f'[sweep] keys are section.key, such as "model.width", not {_validate.shown(key)}.')
        if not isinstance(values, list) or not values:
            raise ConfigError(f"[sweep] {key} must be a list of values, not {_validate.shown(values)}.")
        lengths.add(len(values))
    if len(lengths) > 1:
        raise ConfigError(f"[sweep] lists must have the same length, not {_list(map(str, sorted(lengths)))}.")


def _text(source: str | Path) -> tuple[str, str]:
    """TOML text of a file or ready configuration, and its name."""
    path = _locate(source)
    try:
        return path.read_bytes().decode("utf-8"), path.stem
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8 text (byte {error.start}).") from None


def _tables(text: str, overrides: Iterable[str]) -> Table:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}.") from None
    for override in overrides:
        _override(tables, override)
    return tables


def parse(text: str, overrides: Iterable[str] = (), *, name: str = "config", drawn: bool = True) -> Config:
    """Turn TOML text into a `Config`, that of the unswept values; arguments and errors as in `read`.

    ``drawn=False`` leaves out the ``[figure]``, on which results do not depend.
    """
    overrides = list(overrides)
    tables = _tables(text, overrides)
    if not drawn:
        tables.pop("figure", None)
    text = _rewritten(text, tables, overrides, name)
    problem, options, simulate = _check(tables)
    swept = bool(tables.get("sweep"))
    drawing = figure.read(tables["figure"]) if "figure" in tables else None
    return Config(
        problem=problem,
        solve=options,
        simulate=simulate,
        text=text,
        name=name,
        swept=swept,
        figure=drawing,
        threshold=tables.get("threshold"),
    )


def ready_names(section: str = "model") -> list[str]:
    """Names of the configurations that come with the package and have this section.

    Those with ``[model]`` are for `read`; those with ``[relu]`` are for ``dmft relu`` (`read_tables`).
    """
    head = re.compile(rf"^\[{section}\]", re.MULTILINE)
    return sorted(path.stem for path in _ready_directory().glob("*.toml") if head.search(path.read_text("utf-8")))


def ready_text(name: str) -> str:
    """TOML text of a ready configuration."""
    return (_ready_directory() / f"{name}.toml").read_text(encoding="utf-8")


def _ready_directory() -> Path:
    """data/configs of the source tree, which an installed package holds as dmft/configs."""
    installed = Path(str(resources.files("dmft"))) / "configs"
    return installed if installed.is_dir() else Path(__file__).resolve().parent.parent / "data" / "configs"


def _locate(source: str | Path) -> Path:
    path = Path(source)
    if path.exists() or path.suffix == ".toml" or len(path.parts) != 1:
        return path
    names = sorted([*ready_names(), *ready_names("relu")])
    if str(source) in names:
        return _ready_directory() / f"{source}.toml"
    hint = _nearest(str(source), names)
    raise ConfigError(f"neither a file nor a ready configuration{hint}; `dmft configs` lists those.")


def _override(tables: Table, override: str) -> None:
    """Apply one ``section.key=value`` to the parsed tables."""
    path, equals, value = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if keys[0] == "sweep":  # whose keys are paths themselves
        keys = ["sweep", ".".join(keys[1:]).strip('"')]
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError(f"--set takes section.key=value, such as model.width=64, not {_validate.shown(override)}.")
    table = tables
    if keys[0] == "simulate" and isinstance(tables.get("simulate"), list):
        for place, one in enumerate(tables["simulate"]):
            within = {"simulate": one}
            _override(within, override)
            tables["simulate"][place] = within["simulate"]
        return
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {path.strip()}: {key} is a value, not a table.")
    if value.strip():
        table[keys[-1]] = _override_value(path.strip(), value.strip())
    else:
        table.pop(keys[-1], None)


def _override_value(path: str, value: str) -> object:
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        # `--set solve.method=auto`: the shell has eaten the quotes that TOML wants around a word.
        if value.replace("_", "").replace("-", "").isalnum() and value[0].isalpha():
            return value
        raise ConfigError(f"--set {path}: {_validate.shown(value)} is not a TOML value.") from None
    if set(parsed) != {"value"}:
        raise ConfigError(f"--set {path}: {_validate.shown(value)} is more than one TOML value.")
    return parsed["value"]


def _check(tables: Table) -> tuple[problems.Problem, SolveOptions, tuple[SimulateOptions, ...]]:
    if "relu" in tables:
        raise ConfigError("[relu] is for `dmft relu`, which reads such a configuration.")
    for section in tables:
        if section not in _SECTIONS:
            hint = _home(section) or _nearest(section, _SECTIONS)
            raise ConfigError(f"unknown section or top-level key {section!r}{hint}; sections are {_list(_SECTIONS)}.")
    simulate = tables.get("simulate", [])
    simulate = simulate if isinstance(simulate, list) else [simulate]
    for section, table in [(name, tables.get(name, {})) for name in _SECTIONS if name != "simulate"] + [
        ("simulate", table) for table in simulate
    ]:
        if not isinstance(table, dict):
            raise ConfigError(f"{section} must be a table, [{section}], not {_validate.shown(tables[section])}.")
    for section in ("model", "solve"):
        if section not in tables:
            raise ConfigError(f"section [{section}] is missing.")
    check_keys("solve", tables["solve"], _SOLVE_KEYS)
    check_keys("threshold", tables.get("threshold", {}), _THRESHOLD_KEYS)
    for table in simulate:
        check_keys("simulate", table, _SIMULATE_KEYS)
        if "dimension" not in table:
            raise ConfigError("[simulate] dimension is missing.")
    _check_sweep(tables.get("sweep", {}))
    problem = _problem(tables["model"])
    if "t_final" not in tables["solve"]:
        raise ConfigError("[solve] t_final is missing.")
    options = SolveOptions(**tables["solve"])
    return problem, options, tuple(_simulate(options, table) for table in simulate)


def _simulate(options: SolveOptions, table: Table) -> SimulateOptions:
    """A [simulate] table, with what it leaves to [solve]."""
    given: Table = {"t_final": options.t_final, **table}
    if options.optimizer is not None and not {"optimizer", "step", "learning_rate", "batch"} & table.keys():
        given["optimizer"] = options.optimizer
    return SimulateOptions(**given)


def _model_keys(kind: str) -> tuple[list[str], list[str]]:
    """Keys of [model] that a kind of problem needs, and those that it may have."""
    required: list[str] = []
    optional: list[str] = []
    for field in fields(problems.KINDS[kind]):  # type: ignore[arg-type]  # every problem is a dataclass
        needed = field.default is MISSING and field.default_factory is MISSING
        (required if needed else optional).append(field.name)
    return required, optional


def _home(key: str, besides: str = "") -> str:
    """Hint with the section, ``besides`` the present one, that does know ``key``, or nothing."""
    model = {name for kind in problems.KINDS for keys in _model_keys(kind) for name in keys} | {"kind", "limit"}
    known = {"model": model, "solve": set(_SOLVE_KEYS), "simulate": set(_SIMULATE_KEYS)}
    return next(
        (f" (a key of [{section}])" for section, keys in known.items() if key in keys and section != besides), ""
    )


def check_keys(section: str, table: Table, known: Iterable[str], where: str = "") -> None:
    """Refuse keys of ``table`` that are not in ``known``, saying what was probably meant."""
    for key in table:
        if key not in known:
            hint = _nearest(key, known) or _home(key, besides=section)
            raise ConfigError(f"unknown key {key!r} in [{section}]{where}{hint}; known keys are {_list(known)}.")


def _problem(model: Table) -> problems.Problem:
    kind = model.get("kind")
    if kind is None:
        raise ConfigError(f"[model] kind is missing; kinds are {_list(problems.KINDS)}.")
    if not isinstance(kind, str) or kind not in problems.KINDS:
        hint = _nearest(kind, problems.KINDS) if isinstance(kind, str) else ""
        raise ConfigError(f"unknown [model] kind {_validate.shown(kind)}{hint}; kinds are {_list(problems.KINDS)}.")
    required, optional = _model_keys(kind)
    limit = model.get("limit")
    extra = ("limit", *limits.option_names(limit))
    check_keys("model", model, ("kind", *required, *optional, *extra), f" of kind {kind!r}")
    for key in required:
        if key not in model:
            raise ConfigError(f"[model] {key} is missing; kind {kind!r} needs {_list(required)}.")
    arguments = {key: value for key, value in model.items() if key not in ("kind", *extra)}
    if "activation" in arguments:
        arguments["activation"] = _activation(arguments["activation"])
        arguments["target"] = _target(arguments["target"], arguments["activation"])
    problem = problems.KINDS[kind](**arguments)
    if limit is None:
        return problem
    options = {key: model[key] for key in extra if key in model and key != "limit"}
    return limits.of(problem, limit, **options)  # type: ignore[arg-type]  # checked there


def _choice(name: str, table: object, forms: Mapping[str, tuple[str, ...]]) -> str:
    """The form of an inline table: the one key of ``forms`` that it holds, beside the options of that form."""
    if not isinstance(table, dict):
        raise TypeError(f"{name} must be a table holding one of {_list(forms)}, not {_validate.shown(table)}.")
    for key in table:
        known = [*forms, *(option for options in forms.values() for option in options)]
        if key not in known:
            raise ConfigError(f"unknown key {key!r} in {name}{_nearest(key, known)}; known keys are {_list(known)}.")
    chosen = [form for form in forms if form in table]
    if len(chosen) != 1:
        given = f"both {_list(chosen)}" if chosen else _validate.shown(table)
        raise ConfigError(f"{name} must hold exactly one of {_list(forms)}, not {given}.")
    form = chosen[0]
    for key in table:
        if key != form and key not in forms[form]:
            raise ConfigError(f"{name} key {key!r} does not go with {form!r}.")
    return form


def _activation(table: Any) -> Activation:
    form = _choice("activation", table, {"covariance": (), "hermite": (), "name": ("degree", "slope")})
    if form == "covariance":
        return Activation.from_covariance(table["covariance"])
    if form == "hermite":
        return Activation.from_hermite(table["hermite"])
    options = {key: value for key, value in table.items() if key != "name"}
    return Activation.named(table["name"], **options)


def _target(table: Any, activation: Activation) -> Target:
    forms: dict[str, tuple[str, ...]] = {
        "same_as_activation": (),
        "overlap": ("power",),
        "hermite": (),
        "name": ("degree", "slope"),
        "noise": (),
    }
    form = _choice("target", table, forms)
    if form in ("same_as_activation", "noise"):
        if table[form] is not True:
            raise ConfigError(f"target {form} can only be true, not {_validate.shown(table[form])}.")
        return Target.same_as(activation) if form == "same_as_activation" else Target.noise()
    if form == "hermite":
        return Target.from_hermite(table["hermite"])
    if form == "name":
        return Target.named(**table)
    if "power" not in table:
        raise ConfigError("target power is missing: an overlap needs |phi|^2 beside it.")
    overlap = table["overlap"]
    return Target.from_overlap(_monomials(overlap) if isinstance(overlap, dict) else overlap, power=table["power"])


def _monomials(overlap: Table) -> dict[tuple[int, ...], Any]:
    """Several latent directions: { "1,0" = 0.5, "0,2" = 0.3 } is 0.5 v_1 + 0.3 v_2^2 (TOML keys are strings)."""
    result = {}
    for key, coefficient in overlap.items():
        try:
            exponents = tuple(int(part) for part in key.split(","))
        except ValueError:
            raise ConfigError(f'target overlap key {key!r} must list exponents, such as "1,0".') from None
        result[exponents] = coefficient
    return result


def _nearest(word: str, known: Iterable[str]) -> str:
    """Hint with the known word that is spelt most like ``word``, or nothing."""
    matches = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)


def _dump(tables: Table) -> str:
    """TOML text of parsed tables (sections of keys with numbers, strings, booleans, arrays and inline tables)."""
    lines = []
    for name, content in tables.items():
        head = f"[[{name}]]" if isinstance(content, list) else f"[{name}]"
        for table in content if isinstance(content, list) else [content]:
            if table:
                lines += [head, *(f"{_key(key)} = {_toml(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def _key(key: str) -> str:
    bare = key.replace("_", "").replace("-", "")
    return key if bare.isalnum() and bare.isascii() else json.dumps(key)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, int | float):
        return repr(value)  # shortest text that reads back as the same float
    # JSON and TOML strings agree, but for DEL and non-ASCII characters beyond the basic plane (\u pairs in JSON).
    return json.dumps(str(value), ensure_ascii=False)
