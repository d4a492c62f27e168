"""What checking a solution by a second run has found: the record that `dmft.solve(..., verify=True)` leaves on it.

How the check is made is in `solvers.verification`; here is what it says, in a form that files keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dmft.status import Status

AGREEMENT = 10.0
"""Differences up to this many rtol count as agreement: both runs may be off by the few rtol that either promises."""
TRAIN_FLOOR = 1e-6
"""Train errors are compared down to this fraction of tau^2/2 (of |phi|^2/2 when tau = 0)."""
CHECK, TIGHTER, CHECK_AGAIN = ".check", ".tighter", ".check_again"
"""What is added to the name of a run's checkpoint for that of its check, and of repetitions of both at other rtol."""


def checkpoints(path: Path) -> tuple[Path, ...]:
    """The checkpoint of a run, and the places next to it where those of its check go."""
    return (path, *(path.with_name(path.name + suffix) for suffix in (CHECK, TIGHTER, CHECK_AGAIN)))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Largest difference of one curve between a run and its check.

    Attributes
    ----------
    curve : str
        Name of the curve.
    largest : float
        Relative to max |curve| over the compared times for a, v, nu and energy; pointwise relative for the errors, the
        train error only while it is above `TRAIN_FLOOR`.
    time : float
        Where it is found.
    amplification : float or None
        How much a tenfold change of rtol changes this curve, over the larger rtol, in the same measure: of the run
        (rtol to rtol/10) or, where that does not explain the difference, of another engine (likewise, or from 10 rtol
        to rtol), whichever is more. (The train error of a network that interpolates is a difference of large terms in
        the second engine.) None where nothing had to be explained.
    """

    curve: str
    largest: float
    time: float
    amplification: float | None = None


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What a run says about itself.

    Attributes
    ----------
    balance_median, balance_largest : float
        Of ``energy_balance`` over the rows.
    drift : float or None
        max |C_d(t,t) - 1| over the stored rows and all neurons, the drift off the sphere; None without two-time
        functions.
    wall_time : float
        Seconds.
    """

    balance_median: float
    balance_largest: float
    drift: float | None
    wall_time: float


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Comparison of a solution with a second run.

    Attributes
    ----------
    rtol : float
        Tolerance of the solution.
    check_method : str
        Scheme of the second run.
    check_rtol : float
        Its tolerance.
    independent : bool
        Whether the second run is of another engine, which discretises other equations, and not of the same one at
        another order and a smaller tolerance.
    status : Status
        How the check ended; everything but DONE leaves times uncompared.
    message : str
        The same as a sentence.
    times : tuple of float
        Times compared, ascending.
    differences : tuple of Difference
        One for each curve compared; none where the check got nowhere.
    run, check : Quality or None
        The two runs on themselves; None for a check that got nowhere.
    """

    rtol: float
    check_method: str
    check_rtol: float
    independent: bool
    status: Status
    message: str
    times: tuple[float, ...] = ()
    differences: tuple[Difference, ...] = ()
    run: Quality
    check: Quality | None = None

    @property
    def largest(self) -> Difference | None:
        """The largest of the differences, None where nothing was compared."""
        return max(self.differences, key=lambda one: one.largest, default=None)

    @property
    def amplification(self) -> float | None:
        """The largest amplification; None unless a disagreement called for it."""
        known = [one.amplification for one in self.differences if one.amplification is not None]
        return max(known, default=None)

    @property
    def allowed(self) -> float:
        """Difference up to which the two runs agree: `AGREEMENT` times the larger rtol."""
        return AGREEMENT * max(self.rtol, self.check_rtol)

    @property
    def agrees(self) -> bool:
        """Whether the check reached its end and all curves agree within `allowed`."""
        return self.status.ok and bool(self.differences) and all(d.largest <= self.allowed for d in self.differences)

    @property
    def explained(self) -> bool:
        """Whether the measured amplification of errors accounts for every difference beyond `allowed`.

        So it is near a critical point, where the solution itself is that sensitive, and then a smaller rtol helps. It
        is False where the runs agree, and where there is a difference that the tolerance cannot have caused.
        """
        beyond = [one for one in self.differences if one.largest > self.allowed]
        return (
            self.status.ok
            and bool(beyond)
            and all(
                one.amplification is not None and one.largest <= self.allowed * max(1.0, one.amplification)
                for one in beyond
            )
        )

    @property
    def verdict(self) -> str:
        """What the check found, in a line."""
        by = f"{self.check_method} at rtol {self.check_rtol:.1e}"
        if not self.independent:
            by += ", the same engine"
        worst = self.largest
        if worst is None:
            return f"not checked ({by}): {self.message}"
        found = f"largest difference {worst.largest:.1e} ({worst.curve} at t = {worst.time:.4g})"
        if self.agrees:
            return f"agrees with {by}: {found}"
        if not self.status.ok:
            return f"not checked to the end ({by}): {self.message}; so far {found}"
        text = f"DIFFERS from {by}: {found}, allowed {self.allowed:.1e}"
        if self.amplification is not None:
            text += f"; a tenfold smaller rtol changes that curve by {self.amplification:.3g} rtol"
            text += ", which explains it: rtol is too large here" if self.explained else ", which does not explain it"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Plain data, from which `from_dict` makes the same record."""
        found = [asdict(one) for one in self.differences]
        return asdict(self) | {"status": self.status.value, "times": list(self.times), "differences": found}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Verification:
        """Inverse of `to_dict`."""
        check = data["check"]
        converted = {
            "status": Status(data["status"]),
            "times": tuple(data["times"]),
            "differences": tuple(Difference(**one) for one in data["differences"]),
            "run": Quality(**data["run"]),
            "check": None if check is None else Quality(**check),
        }
        return cls(**{**data, **converted})

    def table(self) -> str:
        """The differences and the two runs, one line each."""
        lines = []
        if self.differences:
            span = f"{len(self.times)} times, {self.times[0]:.3g} to {self.times[-1]:.6g}"
            lines.append(f"{'curve':<12} {'difference':>10} {'at t':>10} {'amplification':>14}   ({span})")
            for one in self.differences:
                factor = "-" if one.amplification is None else f"{one.amplification:.3g}"
                lines.append(f"{one.curve:<12} {one.largest:>10.1e} {one.time:>10.4g} {factor:>14}")
        runs = (("run", self.run), (f"check, {self.check_method}", self.check))
        for name, quality in runs:
            if quality is not None:
                drift = "unknown" if quality.drift is None else f"{quality.drift:.1e}"
                lines.append(
                    f"{name}: energy balance {quality.balance_median:.1e} (median), {quality.balance_largest:.1e} "
                    f"(largest), |C_d(t,t) - 1| <= {drift}, {quality.wall_time:.2f} s"
                )
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{self.verdict}\n{self.table()}"
