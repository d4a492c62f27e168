"""Checks of values that come from outside: the one border where input is normalised.

Every function returns the value in the one type that the package uses inside, or raises ``TypeError`` (wrong
type) or ``ValueError`` (bad value) with one sentence that names the parameter, the value and what is allowed.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHOWN = 80  # characters of an offending value worth showing


def shown(value: object) -> str:
    """Representation of ``value`` on one line, short enough for an error message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def real(
    name: str,
    value: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return ``value`` as a finite float within the bounds.

    Parameters
    ----------
    name : str
        Name of the parameter, for the message.
    value : int, float or numpy scalar
        The value to check. Booleans, strings and complex numbers are refused.
    low, high : float, optional
        Bounds; included unless ``open_low`` / ``open_high``.

    Raises
    ------
    TypeError
        If ``value`` is not a real number.
    ValueError
        If it is not finite or out of bounds.
    """
    allowed = "a finite number" + _bounds(low, high, open_low, open_high)
    number = _scalar(value)
    if isinstance(number, bool | np.bool_) or not isinstance(number, numbers.Real):
        raise TypeError(f"{name} must be {allowed}, not {shown(value)} of type {type(value).__name__}.")
    try:
        result = float(number)
    except OverflowError:  # an int beyond the range of a float
        result = math.inf
    if not math.isfinite(result) or not _inside(result, low, high, open_low, open_high):
        raise ValueError(f"{name} must be {allowed}, not {shown(value)}.")
    return result


def integer(name: str, value: Any, *, low: int | None = None, high: int | None = None) -> int:
    """Return ``value`` as an int within the bounds (both included); ``4.0`` is refused, as is ``True``.

    Raises
    ------
    TypeError
        If ``value`` is not an integer.
    ValueError
        If it is out of bounds.
    """
    allowed = "an integer" + _bounds(low, high, False, False)
    number = _scalar(value)
    if isinstance(number, bool | np.bool_) or not isinstance(number, numbers.Integral):
        raise TypeError(f"{name} must be {allowed}, not {shown(value)} of type {type(value).__name__}.")
    if not _inside(int(number), low, high, False, False):
        raise ValueError(f"{name} must be {allowed}, not {shown(value)}.")
    return int(number)


def boolean(name: str, value: Any) -> bool:
    """Return ``value`` as a bool; 0 and 1 are refused.

    Raises
    ------
    TypeError
        If ``value`` is not a boolean.
    """
    flag = _scalar(value)
    if not isinstance(flag, bool | np.bool_):
        raise TypeError(f"{name} must be true or false, not {shown(value)} of type {type(value).__name__}.")
    return bool(flag)


def real_array(name: str, value: Any, *, ndim: int, shape: tuple[int | None, ...] | None = None) -> NDArray[np.float64]:
    """Return ``value`` as a read-only float64 copy with ``ndim`` axes and finite elements.

    Parameters
    ----------
    name : str
        Name of the parameter, for the message.
    value : array_like of numbers
        Booleans, strings, complex numbers and ragged nests are refused.
    ndim : int
        Required number of axes.
    shape : tuple of int or None, optional
        Required shape; None leaves an axis free.

    Raises
    ------
    TypeError
        If ``value`` is not made of real numbers.
    ValueError
        If it is ragged, has the wrong shape or an element that is not finite.
    """
    if shape is not None:
        wanted = f"real numbers in an array of shape {_shape(shape)}"
    else:
        wanted = (
            ("a real number", "a list of real numbers", "a matrix of real numbers")[ndim]
            if ndim < 3
            else (f"real numbers in an array with {ndim} axes")
        )
    if value is None or isinstance(value, str | bytes | dict | set) or _holds_boolean(value):
        raise TypeError(f"{name} must be {wanted}, not {shown(value)}.")
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be {wanted}, and {shown(value)} has rows of different length.") from None
    if array.dtype == object:  # Python integers beyond 64 bits land here, and anything that is no number
        array = np.array([real(name, item) for item in array.ravel()]).reshape(array.shape)
    if array.dtype.kind not in "iuf" and array.size:
        raise TypeError(f"{name} must be {wanted}, not {shown(value)}.")
    if array.ndim != ndim or (shape is not None and not _shape_fits(array.shape, shape)):
        raise ValueError(f"{name} must be {wanted}, and {shown(value)} has shape {_shape(array.shape)}.")
    result = np.array(array, dtype=np.float64, order="C")
    if not np.isfinite(result).all():
        raise ValueError(f"{name} must hold finite numbers only, not {shown(value)}.")
    result.flags.writeable = False
    return result


def _scalar(value: Any) -> Any:
    """Unpack a zero-dimensional numpy array; leave everything else alone."""
    return value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _holds_boolean(value: Any) -> bool:
    """Whether a (nested) sequence holds a boolean, which numpy would turn into 0 or 1 beside numbers."""
    if isinstance(value, np.ndarray):
        return bool(value.dtype.kind == "b")
    if isinstance(value, list | tuple):
        return any(_holds_boolean(item) for item in value)
    return isinstance(value, bool | np.bool_)


def _shape_fits(have: tuple[int, ...], want: tuple[int | None, ...]) -> bool:
    return len(have) == len(want) and all(w is None or w == n for n, w in zip(have, want, strict=True))


def _inside(value: float, low: float | None, high: float | None, open_low: bool, open_high: bool) -> bool:
    above = low is None or (value > low if open_low else value >= low)
    below = high is None or (value < high if open_high else value <= high)
    return above and below


def _bounds(low: float | None, high: float | None, open_low: bool, open_high: bool) -> str:
    """The bounds in words, such as ' > 0 and <= 1'."""
    parts = []
    if low is not None:
        parts.append(f"{'>' if open_low else '>='} {low:g}")
    if high is not None:
        parts.append(f"{'<' if open_high else '<='} {high:g}")
    return " " + " and ".join(parts) if parts else ""


def _shape(shape: tuple[int | None, ...]) -> str:
    """A shape in words: '(2, any)'; the trailing comma of one axis is kept, as numpy prints it."""
    if not shape:
        return "()"
    words = ["any" if n is None else str(n) for n in shape]
    return f"({words[0]},)" if len(words) == 1 else f"({', '.join(words)})"


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as "; did you mean 'tanh'?" for a misspelt word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def keys(name: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse keys of ``table`` that are not ``known``.

    Raises
    ------
    ValueError
        With the unknown key, the nearest known spelling and the known keys.
    """
    allowed = list(known)
    for key in table:
        if key not in allowed:
            hint = nearest(str(key), allowed)
            raise ValueError(f"{name} has the unknown key {shown(key)}; known are {', '.join(allowed)}{hint}.")
