"""Is ``rtol`` honoured? True errors of all curves on thirty varied problems.

Every problem is solved at several tolerances and compared, at 200 log-spaced times through ``solution.at``, with a
run of a much tighter tolerance at another order; three of them also with Richardson-extrapolated explicit Euler
(:mod:`bench.euler`), which shares nothing with the engine. Run ``python -m bench.accuracy``; ``--help`` lists options.

Measures of error: a over max(1, |a|); v over max(|v|, 1/sqrt m); test error relative; train error relative down to
1e-8 tau^2, absolute below; energy over its final value.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import dmft

if TYPE_CHECKING:
    from dmft.problems import Problem
    from dmft.solution import Curves

FloatArray = NDArray[np.float64]

RTOLS = (1e-3, 1e-4, 1e-6)
POINTS = 200
TRAIN_FLOOR = 1e-8
"""Train errors are compared relatively down to this fraction of tau^2 (of |phi|^2 when tau = 0)."""
HONOURED = 3.0
"""Largest error over rtol that counts as honoured."""

CUBIC = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
QUAD = dmft.Activation.from_covariance([0, 0.9, 0.5])
MIXED = dmft.Activation.from_covariance([0, 0.3, 0.5])
NOISE = dmft.Target.noise()


@dataclass(frozen=True)
class Case:
    """One problem: how to make it, how far to go, and the tolerance of its reference run."""

    name: str
    problem: Callable[[], Problem]
    t_final: float
    reference_rtol: float = 5e-8


def index(width: int, h: dmft.Activation, alpha: float, tau: float, **more: Any) -> Callable[[], Problem]:
    """Single-index network, phi = sigma; mean-field with a0 = 1 unless ``more`` says otherwise."""
    more = more if "gamma0" in more else {"a0": 1.0} | more
    return lambda: dmft.SymmetricProblem(
        width=width, alpha=alpha, activation=h, target=dmft.Target.same_as(h), noise_std=tau, **more
    )


def noise(width: int, h: dmft.Activation, alpha: float, tau: float, **more: Any) -> Callable[[], Problem]:
    """Network on pure noise; mean-field with a0 = 1 unless ``more`` says otherwise."""
    more = more if "gamma0" in more else {"a0": 1.0} | more
    return lambda: dmft.SymmetricProblem(width=width, alpha=alpha, activation=h, target=NOISE, noise_std=tau, **more)


def two_latents() -> Problem:
    """Two directions learnt at different times."""
    target = dmft.Target.from_overlap({(1, 0): 0.5, (0, 1): 0.2, (1, 1): 0.2, (0, 2): 0.1}, power=1.0)
    return dmft.SymmetricProblem(width=20, alpha=0.5, activation=QUAD, target=target, noise_std=0.5, a0=0.8)


def misspecified() -> Problem:
    """A target that the network cannot express, lazy."""
    target = dmft.Target.from_overlap([0, 0.5, 0.2], power=1.5)
    return dmft.SymmetricProblem(width=100, alpha=0.6, activation=QUAD, target=target, noise_std=0.5, gamma0=1.0)


def two_signs() -> Problem:
    """a = +-1 on two halves."""
    return dmft.GroupedProblem(
        sizes=[4, 4],
        alpha=0.3,
        activation=QUAD,
        target=dmft.Target.same_as(QUAD),
        noise_std=0.3,
        a0=[1.0, -1.0],
    )


def unequal() -> Problem:
    """[MU] figure 7 with three neurons."""
    h = dmft.Activation.from_covariance([0, 0.1, 0.5])
    return dmft.GeneralProblem(alpha=0.375, activation=h, target=NOISE, noise_std=1.0, a0=[-1.0, 1 / 3, 2 / 3])


def pspin(*covariance: float) -> Callable[[], Problem]:
    return lambda: dmft.PSpinProblem(covariance=list(covariance))


CASES: tuple[Case, ...] = (
    Case("pspin q^2", pspin(0, 0, 1), 1e3),
    Case("pspin q^3", pspin(0, 0, 0, 1), 1e3),
    Case("pspin q^2+q^3", pspin(0, 0, 0.5, 0.5), 1e3),
    Case("m=1 noise fixed cubic", noise(1, CUBIC, 0.4, 0.6, train_second_layer=False), 100),
    Case("m=1 index cubic a=2", index(1, CUBIC, 2.0, 0.3), 50),
    Case("m=1 noise trained quad", noise(1, QUAD, 0.8, 1.0), 100),
    Case("m=2 index quad a=1", index(2, QUAD, 1.0, 0.6, train_second_layer=False), 60),
    Case("m=4 lazy noise quad", noise(4, QUAD, 0.3, 0.3, gamma0=1.0), 80),
    Case("m=8 index quad a=2", index(8, QUAD, 2.0, 0.6), 100),
    Case("m=10 lazy index quad", index(10, QUAD, 0.3, 0.3, gamma0=1.0), 200),
    Case("m=16 index cubic", index(16, CUBIC, 0.3, 0.6), 320),
    Case("m=16 index quad tau=.1", index(16, QUAD, 0.2, 0.1), 320),
    Case("m=16 noise cubic", noise(16, CUBIC, 0.4, 0.6), 320),
    Case("m=32 index even v0", index(32, dmft.Activation.from_covariance([0, 0, 0.5]), 0.5, 0.3, v0=0.02), 300),
    Case("m=32 index cubic a=.1", index(32, CUBIC, 0.1, 1.0), 640),
    Case("m=20 two latents", two_latents, 200),
    Case("m=24 lazy erf", index(24, dmft.Activation.named("erf", degree=9), 0.3, 0.5, gamma0=0.7), 240),
    Case("m=64 index cubic abar=8", index(64, CUBIC, 8 / 64, 0.6), 2000),
    Case("m=64 index cubic tau=.3", index(64, CUBIC, 0.3, 0.3), 640),
    Case("m=100 lazy fixed mixed", noise(100, MIXED, 0.5, 1.0, gamma0=1.0, train_second_layer=False), 1000),
    Case("m=100 misspecified lazy", misspecified, 300),
    Case("m=1e3 lazy tau=2.5", index(1000, QUAD, 0.3, 2.5, gamma0=1.0), 5000),
    Case("m=1024 index cubic", index(1024, CUBIC, 0.3, 0.6), 20480),
    Case("m=1024 noise cubic", noise(1024, CUBIC, 0.4, 0.6), 10240),
    Case("m=1e4 index abar=8", index(10**4, CUBIC, 8e-4, 0.6), 4e5),
    Case("m=1e5 lazy noise", noise(10**5, QUAD, 0.3, 2.5, gamma0=1.0), 1e5),
    Case("m=1e6 lazy fixed", noise(10**6, MIXED, 0.3, 1.0, gamma0=10 / 7, train_second_layer=False), 1e3),
    Case("m=1e6 index cubic", index(10**6, CUBIC, 0.3, 0.6), 2e7),
    Case("m=1e6 noise cubic", noise(10**6, CUBIC, 0.3, 0.6), 5e6),
    Case("grouped 4+4 index", two_signs, 80, 1e-7),
    Case("general m=3 noise", unequal, 60, 1e-7),
)

EULER_CASES = {  # case, last time, coarsest step, levels
    "pspin q^3": (10.0, 0.02, 4),
    "m=1 index cubic a=2": (8.0, 0.02, 4),
    "m=4 lazy noise quad": (8.0, 0.02, 4),
}


@dataclass(frozen=True)
class Measurement:
    """One row of the table."""

    problem: str
    rtol: float
    method: str
    rows: int
    rejected: int
    iterations: int
    seconds: float
    ratio: float
    curve: str
    time: float
    balance: float
    status: str


def sample_times(case: Case) -> FloatArray:
    """200 log-spaced times from a hundredth of the fastest time scale to the end."""
    from solvers.marching import fastest_rate

    first = min(1e-2 / fastest_rate(case.problem().formulation()), 1e-3 * case.t_final)
    return np.geomspace(first, case.t_final, POINTS).clip(max=case.t_final)


def table_of(curves: Curves) -> dict[str, FloatArray]:
    """The curves that are compared, by name."""
    names = [name for name in curves.curve_names if name in ("a", "v", "train_error", "test_error", "energy")]
    return {name: np.asarray(getattr(curves, name)) for name in names}


def scales(problem: Problem, reference: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Size that each curve's error is measured against."""
    result: dict[str, FloatArray] = {}
    for name, curve in reference.items():
        if name == "a":
            result[name] = np.maximum(1.0, np.abs(curve))
        elif name == "v":
            result[name] = np.maximum(np.abs(curve), 1.0 / np.sqrt(problem.width))
        elif name == "train_error":
            noise_power = getattr(problem, "noise_std", 0.0) ** 2 or problem.formulation().offset
            result[name] = np.maximum(np.abs(curve), TRAIN_FLOOR * noise_power)
        elif name == "energy":
            result[name] = np.full(curve.shape, abs(curve[-1]))
        else:
            result[name] = np.abs(curve)
    return result


def errors(problem: Problem, curves: dict[str, FloatArray], reference: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Error of each curve at each time, in the measure of the module."""
    size = scales(problem, reference)
    result = {}
    for name, curve in curves.items():
        error = np.abs(curve - reference[name]) / size[name]
        result[name] = error.reshape(len(error), -1).max(axis=1)
    return result


def reference(case: Case, folder: Path) -> tuple[FloatArray, dict[str, FloatArray]]:
    """The tight run, at order 5, kept in ``folder``."""
    path = folder / (case.name.replace(" ", "_").replace("^", "") + ".npz")
    if path.exists():
        with np.load(path) as stored:
            return stored["t"], {name: stored[name] for name in stored.files if name != "t"}
    times = sample_times(case)
    # Rows on the sampled times would only cost; order 5 is one that the runs at ordinary tolerances do not use.
    solution = dmft.solve(case.problem(), case.t_final, rtol=case.reference_rtol, method="bdf5")
    if solution.status is not dmft.Status.DONE:  # what was reached is true; later times are left out
        print(f"reference of {case.name} ends at t = {solution.t[-1]:.4g}: {solution.message}", file=sys.stderr)
        times = times[times <= solution.t[-1]]
    curves = table_of(solution.at(times))
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, t=times, **curves)  # type: ignore[arg-type]
    return times, curves


def measure(case: Case, rtol: float, method: str, times: FloatArray, expected: dict[str, FloatArray]) -> Measurement:
    """Solve at one tolerance and compare."""
    problem = case.problem()
    started = time.perf_counter()
    solution = dmft.solve(problem, case.t_final, rtol=rtol, method=method)
    seconds = time.perf_counter() - started
    inside = times <= solution.t[-1]
    found = table_of(solution.at(times[inside]))
    error = errors(problem, found, {name: curve[inside] for name, curve in expected.items()})
    worst = max(error, key=lambda name: float(error[name].max()))
    place = int(error[worst].argmax())
    return Measurement(
        problem=case.name,
        rtol=rtol,
        method=method,
        rows=solution.stats.rows,
        rejected=solution.stats.rejected,
        iterations=solution.stats.iterations,
        seconds=seconds,
        ratio=float(error[worst][place]) / rtol,
        curve=worst,
        time=float(times[inside][place]),
        balance=float(solution.energy_balance.max()) / rtol,
        status=solution.status.name,
    )


def run_case(case: Case, rtols: Iterable[float], methods: Iterable[str], folder: Path) -> list[Measurement]:
    """All measurements of one problem."""
    times, expected = reference(case, folder)
    return [measure(case, rtol, method, times, expected) for method in methods for rtol in rtols]


def measurements(
    cases: Iterable[Case], rtols: Iterable[float], methods: Iterable[str], folder: Path, jobs: int
) -> Iterator[list[Measurement]]:
    """Measurements of all cases, in their order, from ``jobs`` processes."""
    if jobs == 1:
        for case in cases:
            yield run_case(case, rtols, methods, folder)
        return
    from multiprocessing import get_context

    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:  # lambdas in CASES cannot be pickled
        names = [case.name for case in cases]
        yield from pool.map(_run_named, names, [(tuple(rtols), tuple(methods), folder)] * len(names))


def _run_named(name: str, given: tuple[tuple[float, ...], tuple[str, ...], Path]) -> list[Measurement]:
    case = next(case for case in CASES if case.name == name)
    return run_case(case, *given)


def euler_check(case: Case, rtol: float) -> tuple[float, float, str]:
    """Worst error over rtol against Richardson-extrapolated Euler, and Euler's own error estimate over rtol."""
    from bench.euler import richardson

    t_final, step, levels = EULER_CASES[case.name]
    problem = case.problem()
    extrapolated = richardson(problem, step, t_final, levels)
    solution = dmft.solve(problem, t_final, rtol=rtol)
    found = table_of(solution.at(np.minimum(extrapolated.curves.t, t_final)))

    def shaped(curves: Any) -> dict[str, FloatArray]:
        return {name: np.asarray(getattr(curves, name)).reshape(found[name].shape) for name in found}

    expected, spread = shaped(extrapolated.curves), shaped(extrapolated.error)
    error, size = errors(problem, found, expected), scales(problem, expected)
    worst = max(error, key=lambda name: float(error[name].max()))
    doubt = max(float((spread[name] / size[name]).max()) for name in found)
    return float(error[worst].max()) / rtol, doubt / rtol, worst


HEADER = (
    f"{'problem':26} {'method':5} {'rtol':>6} {'rows':>5} {'rej':>4} {'iter':>6} {'secs':>7} {'err/rtol':>9} "
    f"{'curve':>11} {'at t':>9} {'bal/rtol':>9} status"
)


def line(row: Measurement) -> str:
    flag = " <-- not honoured" if not row.ratio <= HONOURED else ""
    return (
        f"{row.problem:26} {row.method:5} {row.rtol:6.0e} {row.rows:5d} {row.rejected:4d} {row.iterations:6d} "
        f"{row.seconds:7.2f} {row.ratio:9.3f} {row.curve:>11} {row.time:9.3g} {row.balance:9.2f} {row.status}{flag}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the table; exit code 1 if a tolerance was not honoured."""
    parser = argparse.ArgumentParser(description="True error of every curve over rtol, on varied problems.")
    parser.add_argument("--rtol", type=float, nargs="+", default=list(RTOLS))
    parser.add_argument("--method", nargs="+", default=["auto"])
    parser.add_argument("--only", default="", help="problems whose name contains this")
    parser.add_argument("--jobs", type=int, default=1, help="processes; use 1 for honest times")
    parser.add_argument("--references", type=Path, default=Path("out/accuracy"), help="folder of the tight runs")
    parser.add_argument("--csv", type=Path, help="write the table here as well")
    parser.add_argument("--no-euler", action="store_true", help="skip the comparison with extrapolated Euler")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", UserWarning)
    cases = [case for case in CASES if options.only in case.name]
    table: list[Measurement] = []
    print(HEADER)
    for rows in measurements(cases, options.rtol, options.method, options.references, options.jobs):
        table += rows
        print("\n".join(map(line, rows)), flush=True)
    for rtol in options.rtol:
        part = [row for row in table if row.rtol == rtol]
        ratios = np.array([row.ratio for row in part])
        print(
            f"rtol {rtol:.0e}: error/rtol median {np.median(ratios):.3f}, worst {ratios.max():.2f}, "
            f"above {HONOURED:g}: {int((ratios > HONOURED).sum())} of {len(part)}; "
            f"{sum(row.rows for row in part)} rows, {sum(row.seconds for row in part):.1f} s"
        )
    if not options.no_euler:
        for case in cases:
            if case.name in EULER_CASES:
                rtol = min(options.rtol)
                ratio, doubt, curve = euler_check(case, rtol)
                print(
                    f"against Euler: {case.name}, rtol {rtol:.0e}: error/rtol {ratio:.3f} ({curve}); "
                    f"Euler's own doubt/rtol {doubt:.3f}"
                )
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(asdict(table[0])))
            writer.writeheader()
            writer.writerows(asdict(row) for row in table)
    failed = any(not row.ratio <= HONOURED or row.status != "DONE" for row in table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
