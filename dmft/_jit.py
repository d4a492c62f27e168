"""How functions are compiled, in one place.

Nothing compiled here allocates (but for `blas_entry`), so reference counting is off (``_nrt=False``); functions called
from compiled code only carry no Python wrapper, and small ones are inlined into their callers. All three matter for
compile time and for speed, because named tuples of arrays are passed by value. Division by zero gives infinity or NaN,
which callers check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba as nb

F = TypeVar("F", bound=Callable[..., Any])

FLAGS = {"contract", "reassoc", "arcp", "nsz"}
"""Floating-point freedoms that let sums be vectorised and keep NaN checks alive (full fast-math would not)."""

_COMMON: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}
_OUTER: dict[str, Any] = {"no_cfunc_wrapper": True}
_WITH_BLAS: dict[str, Any] = {"cache": True, "error_model": "numpy", "no_cfunc_wrapper": True, "nogil": True}
_NO_WRAPPER: dict[str, Any] = {"no_cpython_wrapper": True}
_INNER: dict[str, Any] = {**_NO_WRAPPER, "no_cfunc_wrapper": True}


def entry(function: F) -> F:
    """A compiled function that Python calls."""
    return nb.njit(**_COMMON, **_OUTER)(function)


def blas_entry(function: F) -> F:
    """An entry that multiplies matrices: numba's products of arrays need its reference counting."""
    return nb.njit(**_WITH_BLAS)(function)


def blas_kernel(function: F) -> F:
    """A compiled function that only compiled functions call, and that multiplies or allocates matrices."""
    return nb.njit(**_WITH_BLAS, **_NO_WRAPPER)(function)


def kernel(function: F) -> F:
    """A compiled function that only compiled functions call."""
    return nb.njit(**_COMMON, **_INNER)(function)


def inlined(function: F) -> F:
    """A small kernel, inlined into its callers."""
    return nb.njit(**_COMMON, **_INNER, forceinline=True)(function)


def summation(function: F) -> F:
    """An inlined kernel whose floating-point sums may be reordered."""
    return nb.njit(**_COMMON, **_INNER, forceinline=True, fastmath=FLAGS)(function)
