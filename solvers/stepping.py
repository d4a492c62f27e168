"""Step and order control: the only place where the tolerance turns into time steps."""

from __future__ import annotations

from dataclasses import dataclass, field

from solvers.multistep import MAX_GROWTH, MAX_ORDER


@dataclass
class StepController:
    """Chooses the next step and order from the local errors of the last row.

    A row is accepted when its local error is at most ``slack * tolerance``. The step is limited by the growth that the
    order allows, by ``first_step + relative_step * t`` (two-time functions vary on the scale of t itself) and by
    ``stability / b`` with b the growth rate of the most unstable bulk mode, beyond which a row has no solution.

    Attributes
    ----------
    tolerance : float
        Target for the local error of a row, relative to the natural size of each unknown.
    first_step : float
        Step of the first row.
    relative_step, stability : float
        See above.
    order, step : current choice.
    """

    tolerance: float
    first_step: float
    relative_step: float
    stability: float = 0.2
    max_order: int = 4
    fixed_order: bool = False
    slack: float = 2.0
    safety: float = 0.85
    order: int = 1
    step: float = field(default=0.0)
    rows_at_order: int = 0

    def __post_init__(self) -> None:
        self.step = self.step or self.first_step
        if self.fixed_order:
            self.order = self.max_order

    def accepts(self, error: float) -> bool:
        """Whether a row with this local error may stand."""
        return error <= self.slack * self.tolerance

    def next_time(self, now: float, target: float) -> float:
        """Time of the next row on the way to ``target``, which is hit exactly and without a last tiny step."""
        if now + 1.001 * self.step >= target:
            return target
        if now + 1.8 * self.step >= target:
            return 0.5 * (now + target)
        return now + self.step

    def wants_neighbours(self) -> bool:
        """Whether the order may change after the next row, so that its neighbours' errors are needed."""
        return not self.fixed_order and self.rows_at_order >= self.order

    def after_failure(self, step: float) -> None:
        """The row had no solution: halve the step."""
        self.step = 0.5 * step
        self.rows_at_order = 0

    def after_rejection(self, step: float, error: float, order: int) -> None:
        """The row was solved but is too inaccurate."""
        self.step = step * max(0.2, self.safety * (self.tolerance / error) ** (1.0 / (order + 1)))
        self.rows_at_order = 0

    def after_acceptance(
        self, time: float, step: float, order: int, errors: dict[int, float], growth_rate: float
    ) -> None:
        """Choose the next step and order.

        Parameters
        ----------
        time, step, order
            Of the accepted row.
        errors : dict
            Local error of the row had it been taken at each order in the dictionary (``order`` and neighbours).
        growth_rate : float
            b, of the most unstable bulk mode; no constraint when it is not positive.
        """
        self.rows_at_order += 1
        limit = self.first_step + self.relative_step * time
        if growth_rate > 0.0:
            limit = min(limit, self.stability / growth_rate)
        factors = {
            trial: self.safety * (self.tolerance / max(error, 1e-3 * self.tolerance**2)) ** (1.0 / (trial + 1))
            for trial, error in errors.items()
            if trial <= min(self.max_order, MAX_ORDER)
        }
        best = order
        if self.fixed_order:
            best = self.max_order
        elif self.rows_at_order > order:
            reach = {trial: min(factor, MAX_GROWTH[trial], limit / step) for trial, factor in factors.items()}
            for trial in reach:
                # The longer step; where something else than the error limits both, the smaller error.
                if reach[trial] > 1.02 * reach[best] or (trial > best and reach[trial] > 0.999 * reach[best]):
                    best = trial
        if best != order:
            self.rows_at_order = 0
        factor = max(0.3, min(factors.get(best, factors[order]), MAX_GROWTH[max(best, 1)]))
        self.order = best
        self.step = min(step * factor, limit)
