"""What a figure shows: the ``[figure]`` table of a configuration.

A figure has panels, one quantity against one variable each, for all members of the ``[sweep]``. This module says what
may be asked for; `validation.panels` solves and draws it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from dmft import _validate
from dmft.limits import LIMITS, option_names

CURVES: dict[str, str] = {
    "train_error": r"train error",
    "test_error": r"test error",
    "gap": r"$e_{\mathrm{ts}} - e_{\mathrm{tr}}$",
    "a": r"$a$",
    "gamma": r"$\gamma = a/\sqrt{m}$",
    "v": r"$v$",
    "a v": r"$a\,v$",
    "sqrt(m) v": r"$\sqrt{m}\,v$",
    "m C_o": r"$m\,C_o(t,t)$",
    "sqrt(m) da/dt": r"$\sqrt{m}\;da/dt$",
}
"""Functions of time, with their labels."""
POINTS: dict[str, str] = {
    "final gamma": r"final $\gamma$",
    "final test_error": r"final $e_{\mathrm{ts}}$",
    "final train_error": r"final $e_{\mathrm{tr}}$",
    "final a v": r"final $a\,v$",
    "test_error - linear_fit": r"final $|e_{\mathrm{ts}} - e_{\mathrm{lin}}(\gamma)|$",
    "relaxation time": r"$t_{\mathrm{rel}}$",
    "threshold gamma": r"$\gamma_*$",
}
"""Numbers, one for each member."""
TIMES: dict[str, str] = {
    "m t": r"$m\,t$",
    "t": r"$t$",
    "t/sqrt(m)": r"$t/\sqrt{m}$",
    "t/m": r"$t/m$",
    "alpha t": r"$\alpha\,t$",
    "gamma": r"$\gamma = a/\sqrt{m}$",
}
"""What a curve may be drawn against."""
PARAMETERS: dict[str, str] = {"m": r"$m$", "n/d": r"$n/d$", "alpha": r"$\alpha$"}
"""What a number may be drawn against."""
LEVELS: dict[str, str] = {
    "noise": r"$\tau^2/2$",
    "linear_fit": r"$e_{\mathrm{lin}}(\gamma_0)$",
    "one": "1",
    "growth": r"$A_\infty$",
    "threshold": r"$\gamma_*$",
    "overlap": r"$\tau^2/(\alpha a_0^2 h'(0)) - 1$",
}
"""Horizontal lines that the parameters of the problem give, with their labels; the threshold is that of fixed gamma."""
REFERENCES = ("infinite_width", "fixed_gamma")
"""Limits that are no `dmft.limits`: m -> infinity at fixed n/d, and the errors after relaxation at fixed gamma."""
NUMBERS = ("a v", "growth", "gamma_inf", "threshold", "nu", "plateau", "exponent")
"""What can be read off a family and compared with a statement of the paper; `validation.panels` says how."""


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """A limit whose curves are drawn beside those of the members.

    Attributes
    ----------
    name : str
        One of `dmft.limits.LIMITS` or `REFERENCES`.
    options : dict
        Its options, such as ``order``.
    """

    name: str
    options: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Short name, for files."""
        return "-".join([self.name, *(f"{name}{value}" for name, value in self.options.items())])


@dataclass(frozen=True, kw_only=True)
class PanelOptions:
    """A panel of a figure.

    Attributes
    ----------
    curve : tuple of str
        Of `CURVES` (a second one is drawn dotted), or one of `POINTS`.
    against : str
        Of `TIMES`, or of `PARAMETERS` for numbers.
    limit : tuple of LimitOptions
        Limits drawn as dashed black lines.
    minus : LimitOptions or None
        Draw m times the difference from this limit.
    levels : tuple of str
        Horizontal lines, of `LEVELS`.
    slopes : tuple of float
        Powers of the variable drawn as guides, in a panel of numbers.
    window, range : (float, float) or None
        Limits of the two axes.
    log : bool
        Whether the vertical axis is logarithmic. The horizontal one is, for all but gamma, n/d and alpha.
    title : str
        Short.
    """

    curve: tuple[str, ...]
    against: str
    limit: tuple[LimitOptions, ...] = ()
    minus: LimitOptions | None = None
    levels: tuple[str, ...] = ()
    slopes: tuple[float, ...] = ()
    window: tuple[float, float] | None = None
    range: tuple[float, float] | None = None
    log: bool = False
    title: str = ""

    @property
    def points(self) -> bool:
        """Whether it shows one number for each member."""
        return self.curve[0] in POINTS


@dataclass(frozen=True, kw_only=True)
class NumberOptions:
    """A number of a figure beside what the paper says about it.

    Attributes
    ----------
    name : str
        Of `NUMBERS`.
    stated : str
        The statement, in words.
    """

    name: str
    stated: str


@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """The ``[figure]`` table.

    Attributes
    ----------
    title : str
        Heading.
    reading : str
        One sentence: what to see.
    panels : tuple of PanelOptions
    numbers : tuple of NumberOptions
    paper : tuple of int
        Figures of [MU] that it stands for.
    columns : int or None
        Panels beside each other.
    tolerate : float
        A run that stops early is shown, and is no failure, once its train error is below this fraction of its first
        value.
    """

    title: str
    reading: str
    panels: tuple[PanelOptions, ...]
    numbers: tuple[NumberOptions, ...] = ()
    paper: tuple[int, ...] = ()
    columns: int | None = None
    tolerate: float = 1e-3


def read(table: Mapping[str, Any]) -> FigureOptions:
    """Check a ``[figure]`` table.

    Raises
    ------
    TypeError, ValueError
        In one sentence, with the nearest known spelling of what is not known.
    """
    values = _fields("[figure]", table, FigureOptions)
    values["title"], values["reading"] = (_text(f"[figure] {key}", table[key]) for key in ("title", "reading"))
    values["panels"] = tuple(_panel(one, f"[[figure.panels]] {n}") for n, one in enumerate(_tables(table, "panels"), 1))
    if not values["panels"]:
        raise ValueError("[figure] panels must hold at least one [[figure.panels]] table.")
    values["numbers"] = tuple(_number(one) for one in _tables(table, "numbers"))
    paper = values.get("paper", [])
    if not isinstance(paper, list):
        raise TypeError(f"[figure] paper must be a list of figure numbers, not {_validate.shown(paper)}.")
    values["paper"] = tuple(_validate.integer("[figure] paper", number, low=1) for number in paper)
    if "columns" in values:
        values["columns"] = _validate.integer("[figure] columns", values["columns"], low=1, high=4)
    if "tolerate" in values:
        values["tolerate"] = _validate.real("[figure] tolerate", values["tolerate"], low=0.0, high=1.0)
    return FigureOptions(**values)


def _fields(where: str, table: object, kind: type[Any]) -> dict[str, Any]:
    """The entries of a table that is to become a dataclass, its keys checked."""
    if not isinstance(table, Mapping):
        raise TypeError(f"{where} must be a table, not {_validate.shown(table)}.")
    _validate.keys(where, table, (field.name for field in fields(kind)))
    for field in fields(kind):
        if field.default is MISSING and field.name not in table:
            raise ValueError(f"{where} {field.name} is missing.")
    return dict(table)


def _tables(table: Mapping[str, Any], key: str) -> list[Any]:
    value = table.get(key, [])
    if not isinstance(value, list):
        raise TypeError(f"[figure] {key} must be tables, [[figure.{key}]], not {_validate.shown(value)}.")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {_validate.shown(value)}.")
    return " ".join(value.split())


def _several(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _word(name: str, value: object, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in known:
        hint = _validate.nearest(str(value), known)
        raise ValueError(f"{name} must be one of {', '.join(known)}, not {_validate.shown(value)}{hint}.")
    return value


def _panel(table: object, where: str) -> PanelOptions:
    values = _fields(where, table, PanelOptions)
    curve = tuple(_word(f"{where} curve", one, CURVES | POINTS) for one in _several(values["curve"]))
    points = any(one in POINTS for one in curve)
    if not 1 <= len(curve) <= (1 if points else 2):
        raise ValueError(f"{where} curve must be one number or at most two curves, not {_validate.shown(list(curve))}.")
    values["curve"] = curve
    _word(f"{where} against", values["against"], PARAMETERS if points else TIMES)
    values["limit"] = tuple(_limit(f"{where} limit", one) for one in _several(values.get("limit", [])))
    if "minus" in values:
        values["minus"] = _limit(f"{where} minus", values["minus"])
    if points and (values["limit"] or values.get("minus")):
        raise ValueError(f"{where} limit and minus go with curves, not with {curve[0]!r}.")
    values["levels"] = tuple(_word(f"{where} levels", one, LEVELS) for one in _several(values.get("levels", [])))
    slopes = values.get("slopes", [])
    values["slopes"] = tuple(_validate.real(f"{where} slopes", one) for one in _several(slopes))
    if values["slopes"] and not points:
        raise ValueError(f"{where} slopes go with numbers, not with {curve[0]!r}.")
    for key in ("window", "range"):
        if key in values:
            low, high = _validate.real_array(f"{where} {key}", values[key], ndim=1, shape=(2,)).tolist()
            if low >= high:
                raise ValueError(f"{where} {key} must be [low, high] with low < high, not [{low:g}, {high:g}].")
            values[key] = (low, high)
    if "log" in values:
        values["log"] = _validate.boolean(f"{where} log", values["log"])
    values["title"] = _text(f"{where} title", values.get("title", ""))
    return PanelOptions(**values)


def _limit(where: str, value: object) -> LimitOptions:
    """``"mean_field"``, or ``{ name = "mean_field", order = 1 }``."""
    table = value if isinstance(value, dict) else {"name": value}
    if "name" not in table:
        raise ValueError(f"{where} needs a name: one of {', '.join((*LIMITS, *REFERENCES))}.")
    name = _word(where, table["name"], (*LIMITS, *REFERENCES))
    own = ("start",) if name == "fixed_gamma" else option_names(name)
    _validate.keys(where, table, ("name", *own))
    return LimitOptions(name=name, options={key: option for key, option in table.items() if key != "name"})


def _number(table: object) -> NumberOptions:
    where = "[[figure.numbers]]"
    values = _fields(where, table, NumberOptions)
    return NumberOptions(
        name=_word(f"{where} name", values["name"], NUMBERS), stated=_text(f"{where} stated", values["stated"])
    )
