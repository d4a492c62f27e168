"""Large-width limits of network problems; see docs/limits.md.

``dmft.limits.of(problem, "mean_field")`` is a problem that ``dmft.solve`` takes; the result has the time and the
variables of the problem itself. The limit m -> infinity at fixed n/d is a problem of its own,
`dmft.InfiniteWidthProblem`. A new limit is a file here and a name in ``LIMITS``.
"""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any

from dmft._validate import shown
from dmft.limits.adiabatic import AdiabaticLimit
from dmft.limits.base import Limit, LimitError, LimitState, Tools
from dmft.limits.lazy import LazyLimit, LazyLinearLimit
from dmft.limits.mean_field import MeanFieldLimit
from dmft.limits.noise_growth import NoiseGrowthLimit
from dmft.problems.base import NetworkProblem

LIMITS: dict[str, type[Limit]] = {
    limit.limit: limit for limit in (MeanFieldLimit, LazyLinearLimit, LazyLimit, AdiabaticLimit, NoiseGrowthLimit)
}


def of(problem: NetworkProblem, limit: str, **options: Any) -> Limit:
    """The limit of a problem by its name.

    Parameters
    ----------
    problem : NetworkProblem
        What is taken to its limit.
    limit : str
        One of ``LIMITS``: "mean_field" (option ``order``), "lazy_linear", "lazy", "adiabatic", "noise_growth".

    Raises
    ------
    ValueError, TypeError
        For an unknown name, or a problem that does not have this limit.
    """
    if not isinstance(limit, str) or limit not in LIMITS:
        close = difflib.get_close_matches(str(limit), LIMITS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"limit must be one of {', '.join(LIMITS)}, not {shown(limit)}{hint}.")
    for name in options:
        if name not in option_names(limit):
            known = ", ".join(option_names(limit)) or "none"
            raise TypeError(f"limit {limit!r} has no option {name!r}; its options: {known}.")
    return LIMITS[limit](problem=problem, **options)


def option_names(limit: object) -> tuple[str, ...]:
    """Options of a limit beside its problem; none for a name that is not known."""
    if not isinstance(limit, str) or limit not in LIMITS:
        return ()
    return tuple(field.name for field in fields(LIMITS[limit]) if field.name != "problem")


__all__ = [
    "LIMITS",
    "AdiabaticLimit",
    "LazyLimit",
    "LazyLinearLimit",
    "Limit",
    "LimitError",
    "LimitState",
    "MeanFieldLimit",
    "NoiseGrowthLimit",
    "Tools",
    "of",
    "option_names",
]
