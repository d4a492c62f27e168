"""The problems that can be solved. A new one is a file here and a name in ``KINDS``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from dmft._validate import shown
from dmft.problems.base import LearningProblem, NetworkProblem, Problem
from dmft.problems.general import GeneralProblem
from dmft.problems.grouped import GroupedProblem
from dmft.problems.infinite_width import InfiniteWidthProblem
from dmft.problems.pspin import PSpinProblem
from dmft.problems.symmetric import SymmetricProblem

KINDS: dict[str, type[Problem]] = {
    problem.kind: problem
    for problem in (SymmetricProblem, GroupedProblem, GeneralProblem, PSpinProblem, InfiniteWidthProblem)
}


def from_dict(data: Mapping[str, Any]) -> Problem:
    """Rebuild a problem from :meth:`Problem.to_dict`.

    Raises
    ------
    ValueError
        If ``kind`` is missing or unknown, or a parameter is unknown, missing or bad.
    TypeError
        If ``data`` is no mapping or a parameter has the wrong type.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"A problem must be given as a mapping of its parameters, not {shown(data)}.")
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        close = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {shown(kind)}{hint}.")
    if "limit" in data:
        from dmft import limits

        given = dict(data)
        name = given.pop("limit")
        options = {key: given.pop(key) for key in limits.option_names(name) if key in given}
        problem = KINDS[kind].from_dict(given)
        return limits.of(problem, name, **options)  # type: ignore[arg-type]  # checked there
    return KINDS[kind].from_dict(data)


__all__ = [
    "KINDS",
    "GeneralProblem",
    "GroupedProblem",
    "InfiniteWidthProblem",
    "LearningProblem",
    "NetworkProblem",
    "PSpinProblem",
    "Problem",
    "SymmetricProblem",
    "from_dict",
]
