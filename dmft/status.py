"""How a run ended."""

from __future__ import annotations

from enum import Enum


class Status(Enum):
    """Outcome of a solve. Everything but DONE keeps the curves up to the last accepted time."""

    DONE = "done"
    STEP_LIMIT = "step_limit"
    ROW_FAILED = "row_failed"
    TOLERANCE_NOT_MET = "tolerance_not_met"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    FAILED = "failed"

    @property
    def ok(self) -> bool:
        """Whether the requested time was reached at the requested tolerance."""
        return self is Status.DONE
