"""Wall time, memory and what they buy, each figure measured in one run and set against its target.

Every case runs in a process of its own, which first solves a short run (so compiled code is loaded) and then the case
once or three times; its peak memory is the process's own high-water mark. Wall time is judged, and the CPU time is
shown beside it: on a busy machine only the second means anything. ``--quick`` is a smoke run of seconds that writes
nothing unless ``--docs`` says where.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench import DOCS, ROOT, replace_section

if TYPE_CHECKING:
    from dmft.problems import Problem

FloatArray = NDArray[np.float64]

WIDTHS = (16, 64, 1024, 16384, 2**20)
SPEED_TARGETS = {1e-4: 2.0, 1e-6: 15.0}
MEMORY_TARGET = 300.0
P_SPIN_RTOL = 8e-6
SAMPLES = 200
EULER_ERROR = 1e-4
CURVES = ("train_error", "test_error", "gamma", "v")


# ------------------------------------------------------------------------------------------------ the cases, as data


def case(kind: str, **parameters: Any) -> dict[str, Any]:
    """One run as plain data: it has to reach a process of its own."""
    return {"kind": kind, "rtol": 1e-4, "repeats": 3, **parameters}


def problem_of(given: dict[str, Any]) -> Problem:
    """The problem of a case: cubic h, phi = sigma, alpha = 0.3, tau = 0.6, unless it is the p-spin model."""
    import dmft

    if given["kind"] == "pspin":
        return dmft.PSpinProblem(covariance=[0, 0, 0, 1.0])
    activation = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
    common: dict[str, Any] = {
        "alpha": 0.3,
        "activation": activation,
        "target": dmft.Target.same_as(activation),
        "noise_std": 0.6,
    }
    if given["kind"] == "symmetric":
        return dmft.SymmetricProblem(width=given["width"], a0=1.0, **common)
    if given["kind"] == "grouped":
        half = given["width"] // 2
        return dmft.GroupedProblem(sizes=[half, half], a0=[1.0, 1.0], **common)
    # Unequal second layer, mean one, so that no two neurons are exchangeable.
    return dmft.GeneralProblem(a0=np.linspace(0.6, 1.4, given["width"]), **common)


def sample_times(t_final: float) -> FloatArray:
    """Times at which runs of different step sizes are compared."""
    return np.geomspace(1e-3, t_final, SAMPLES)


def run_case(given: dict[str, Any]) -> dict[str, Any]:
    """Measure one case in this process."""
    import dmft

    problem, t_final, rtol = problem_of(given), float(given["t_final"]), float(given["rtol"])
    dmft.solve(problem, min(t_final, 0.01), rtol=1e-2)
    walls, cpus = [], []
    for _ in range(given["repeats"]):
        wall, cpu = time.perf_counter(), time.process_time()
        solution = dmft.solve(problem, t_final, rtol=rtol)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    record: dict[str, Any] = {
        "wall": statistics.median(walls),
        "cpu": statistics.median(cpus),
        "memory": peak_memory(),
        "rows": solution.stats.rows,
        "done": solution.status.value == "done",
        "message": solution.message,
        "reached": float(solution.t[-1]),
    }
    if record["done"]:
        curves = solution.at(np.minimum(sample_times(t_final), solution.t[-1]))
        names = ("energy",) if given["kind"] == "pspin" else CURVES
        # Averages over neurons: enough to compare two runs of the same problem.
        record["curves"] = {name: _one(np.asarray(getattr(curves, name))).tolist() for name in names}
    return record


def _one(curve: FloatArray) -> FloatArray:
    return curve if curve.ndim == 1 else np.asarray(curve.mean(axis=1))


def peak_memory() -> float:
    """High-water mark of this process in MB; not getrusage, which inherits that of the parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 1024.0
    return float("nan")


def measured(given: dict[str, Any]) -> dict[str, Any]:
    """Measure one case in a fresh process."""
    result = _python(["-m", "bench.speed", "--case", json.dumps(given)])
    record: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return record


def _python(arguments: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(arguments)[:200]} failed:\n{result.stderr[-2000:]}")
    return result


# ------------------------------------------------------------------------------------------------ results


@dataclass(frozen=True)
class Line:
    """One row of the table: what was measured, and the bound that it is held against (None: no bound)."""

    what: str
    value: float
    unit: str
    target: tuple[float, float] | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """PASS, FALL SHORT, or nothing where there is no target."""
        if self.target is None:
            return ""
        low, high = self.target
        return "PASS" if low <= self.value <= high else "FALL SHORT"  # NaN falls short

    @property
    def bound(self) -> str:
        """The target in words."""
        if self.target is None:
            return ""
        low, high = self.target
        unit = f" {self.unit}" if self.unit else ""
        if np.isinf(high):
            return f"≥ {low:g}{unit}"
        return f"≤ {high:g}{unit}" if low <= 0.0 <= high else f"{low:g} to {high:g}{unit}"

    @property
    def shown(self) -> str:
        """The value with its unit, three digits."""
        number = f"{self.value:.3g}" if self.value < 1e4 else f"{self.value:.2e}"
        return f"{number} {self.unit}".strip()


def at_most(bound: float) -> tuple[float, float]:
    """Target: not more than this."""
    return (0.0, bound)


def _state(record: dict[str, Any]) -> str:
    return (
        f"{record['rows']} rows" if record["done"] else f"stopped at t = {record['reached']:.3g}: {record['message']}"
    )


def _timed(what: str, record: dict[str, Any], target: float | None, note: str = "") -> Line:
    value = record["wall"] if record["done"] else float("nan")
    text = "; ".join(filter(None, [_state(record), f"{record['cpu']:.2f} s CPU", note]))
    return Line(what, value, "s", None if target is None else at_most(target), text)


def _difference(record: dict[str, Any], other: dict[str, Any]) -> float:
    """Largest absolute difference of the curves, all of which are of order one or smaller."""
    if not (record["done"] and other["done"]):
        return float("nan")
    return max(
        float(np.abs(np.array(record["curves"][name]) - np.array(other["curves"][name])).max())
        for name in record["curves"]
    )


# ------------------------------------------------------------------------------------------------ the benchmarks


def width_lines(quick: bool, points: dict[float, list[tuple[int, float]]]) -> Iterator[Line]:
    """Symmetric single-index mean-field case to t = 20 m; fills ``points`` for the figure."""
    tolerances = (1e-2,) if quick else tuple(SPEED_TARGETS)
    for width in (16, 1024) if quick else WIDTHS:
        records = {
            rtol: measured(
                case(
                    "symmetric",
                    width=width,
                    t_final=1.0 if quick else 20.0 * width,
                    rtol=rtol,
                    repeats=1 + 2 * (rtol > 1e-5),
                )
            )
            for rtol in tolerances
        }
        for rtol, record in records.items():
            note = ""
            if rtol != min(records):
                note = f"differs from rtol {min(records):g} by {_difference(record, records[min(records)]):.1e}"
            points.setdefault(rtol, []).append((width, record["wall"] if record["done"] else float("nan")))
            label = f"symmetric, m = {width}, rtol {rtol:g}"
            yield _timed(label, record, SPEED_TARGETS.get(rtol), note)
            yield Line(f"{label}: peak memory", record["memory"], "MB", at_most(MEMORY_TARGET))


def p_spin_lines(quick: bool) -> Iterator[Line]:
    """p-spin model, covariance q^3: time, energy against a tighter run, slope of the relaxation."""
    t_final = 10.0 if quick else 1e6
    rtol = 1e-3 if quick else P_SPIN_RTOL
    record = measured(case("pspin", t_final=t_final, rtol=rtol, repeats=1))
    tighter = measured(case("pspin", t_final=t_final, rtol=rtol / 6, repeats=1))
    yield _timed(f"p-spin q³ to t = {t_final:.0e}, rtol {rtol:g}", record, 10.0)
    error = _difference(record, tighter)
    yield Line(
        "p-spin: largest error of E at any time",
        error,
        "",
        None if quick else at_most(1e-6),
        f"against rtol {rtol / 6:.1g}",
    )
    slope, spread = float("nan"), ""
    if record["done"] and not quick:
        t = sample_times(t_final)
        late = t >= 1e2
        x, y = np.log(t[late]), np.log(np.array(record["curves"]["energy"])[late] + 2.0 * np.sqrt(2.0 / 3.0))
        slope = float(np.polyfit(x, y, 1)[0])
        local = np.gradient(y, x)
        spread = f"least squares on 10² to 10⁶; local slopes {local.min():.4f} to {local.max():.4f}"
    yield Line("p-spin: log-log slope of E - E_th", slope, "", None if quick else (-0.68, -0.65), spread)


def block_lines(quick: bool) -> Iterator[Line]:
    """General and Grouped."""
    width, t_final = (3, 0.5) if quick else (8, 160.0)
    rtol = 1e-2 if quick else 1e-4
    general = measured(case("general", width=width, t_final=t_final, rtol=rtol, repeats=1))
    yield _timed(f"general, m = {width}, unequal a, to t = {t_final:g}, rtol {rtol:g}", general, 60.0)
    width, t_final = (8, 0.5) if quick else (16, 320.0)
    grouped = measured(case("grouped", width=width, t_final=t_final, rtol=rtol))
    symmetric = measured(case("symmetric", width=width, t_final=t_final, rtol=rtol))
    yield _timed(f"grouped, two halves of m = {width}, to t = {t_final:g}", grouped, None)
    ratio = grouped["wall"] / symmetric["wall"] if grouped["done"] else float("nan")
    note = f"curves differ by {_difference(grouped, symmetric):.1e}"
    yield Line("grouped over symmetric, same problem", ratio, "", at_most(8.0), note)


_FIRST_SOLVE = """
import dmft
activation = dmft.Activation.from_covariance([0, 0.9, 0, 1 / 6])
problem = dmft.SymmetricProblem(
    width=16, alpha=0.3, activation=activation, target=dmft.Target.same_as(activation), noise_std=0.6, a0=1.0
)
assert dmft.solve(problem, 1.0).status.value == "done"
"""


def start_lines(quick: bool) -> Iterator[Line]:
    """Import and first solve, as whole processes: interpreter start, import, compilation or its cache, run."""
    repeats = 1 if quick else 5
    bare = statistics.median(_seconds(lambda: _python(["-c", "pass"])) for _ in range(repeats))
    imported = statistics.median(_seconds(lambda: _python(["-c", "import dmft"])) for _ in range(repeats))
    yield Line("import dmft", imported, "s", at_most(1.0), f"whole process; a bare interpreter takes {bare:.2f} s")
    if quick:
        return
    with tempfile.TemporaryDirectory() as cache:

        def first() -> None:
            _python(["-c", _FIRST_SOLVE], NUMBA_CACHE_DIR=cache)

        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        cold = _seconds(first)
        cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        note = f"whole process, t = 1; {cpu:.1f} s CPU"
        yield Line("first solve, nothing compiled yet", cold, "s", at_most(40.0), note)
        warm = statistics.median(_seconds(first) for _ in range(3))
        yield Line("first solve, compiled code cached", warm, "s", at_most(2.0), "whole process, t = 1")


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def euler_lines(quick: bool) -> Iterator[Line]:
    """Explicit Euler of [MU] (:mod:`bench.euler`) against this solver at equal true error, m = 16.

    Error: largest absolute difference of e_tr, e_ts, a/sqrt m and v from a run at rtol 1e-9, on common times. Euler is
    run at three steps; its error is first order, so the last one gives the step that would reach the error, and the
    measured power of its cost in the number of rows (at most the cubic law of the scheme) gives the time there.
    """
    import dmft
    from bench.euler import euler

    problem = problem_of(case("symmetric", width=16))
    t_final = 2.0 if quick else 20.0
    steps = (0.1, 0.05, 0.025) if quick else (0.05, 0.025, 0.0125)
    wanted = 1e-2 if quick else EULER_ERROR
    every = np.arange(1, round(t_final / steps[0]) + 1)
    times = every * steps[0]
    reference = dmft.solve(problem, t_final, rtol=1e-6 if quick else 1e-9).at(np.minimum(times, t_final))
    runs: list[tuple[int, float, float]] = []
    limit: list[FloatArray] = []
    for step in steps:
        run = euler(problem, step, t_final)
        rows = every * round(steps[0] / step)
        curves = np.array([run.train_error, run.test_error, run.a / 4.0, run.v[:, 0]])[:, rows]
        exact = np.array([getattr(reference, name) for name in CURVES])
        limit.append(curves)
        runs.append((len(run.t), float(np.abs(curves - exact).max()), run.wall_time))
    independent = (8.0 * limit[2] - 6.0 * limit[1] + limit[0]) / 3.0  # Richardson, two powers of the step removed
    agreement = float(np.abs(independent - exact).max())
    (_, coarse_error, _), (n1, e1, w1), (n2, e2, w2) = runs
    yield Line("Euler extrapolated to zero step, distance from our reference", agreement, "", None, "independent check")
    note = f"error {e2:.1e}; each halving of the step divided it by {coarse_error / e1:.2f} and {e1 / e2:.2f}"
    power = float(np.clip(np.log(w2 / w1) / np.log(n2 / n1), 1.0, 3.0))
    factor = max(e2 / wanted, 1.0)
    cost = w2 * factor**power
    yield Line(f"Euler, m = 16 to t = {t_final:g}, {n2} rows", w2, "s", None, note)
    yield Line(
        f"Euler at error {wanted:g} (extrapolated)",
        cost,
        "s",
        None,
        f"{n2 * factor:.0f} rows, {9 * 8e-9 * (n2 * factor) ** 2:.2g} GB; cost taken as rows^{power:.2f}, as measured",
    )
    for rtol in (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4):
        walls = []
        for _ in range(1 if quick else 3):
            start = time.perf_counter()
            solution = dmft.solve(problem, t_final, rtol=rtol)
            walls.append(time.perf_counter() - start)
        ours = solution.at(np.minimum(times, t_final))
        error = float(np.abs(np.array([getattr(ours, name) for name in CURVES]) - exact).max())
        if error <= wanted:
            break
    wall = statistics.median(walls)
    note = f"loosest rtol that reaches it: {rtol:g}; true error {error:.1e}, {solution.stats.rows} rows"
    yield Line(f"this solver at error {wanted:g}", wall, "s", None, note)
    note = "time of Euler, extrapolated, over ours, measured"
    yield Line("Euler over this solver, equal error", cost / wall, "", None if quick else (1000.0, np.inf), note)


# ------------------------------------------------------------------------------------------------ the page


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    rows = ["| what | measured | target | | how |", "|---|---:|---:|---|---|"]
    rows += [f"| {line.what} | {line.shown} | {line.bound} | {line.verdict} | {line.note} |" for line in lines]
    return "\n".join(rows)


def machine() -> str:
    """Where and when: no figure means anything without it."""
    from importlib.metadata import version

    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    load = os.getloadavg()[0]
    return (
        f"Measured {time.strftime('%Y-%m-%d', time.gmtime())} on {os.cpu_count()} cores of {model}, "
        f"Python {platform.python_version()}, numba {version('numba')}, numpy {np.__version__}, "
        f"with a load of {load:.1f} from other processes at the start."
    )


def sources() -> str:
    """Digest of the code that is measured: the figures of one page belong to one version."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "dmft").rglob("*.py"), *(ROOT / "solvers").rglob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def figure(points: dict[float, list[tuple[int, float]]], path: Path) -> None:
    """Wall time against width, log-log, with the targets as broken lines."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(5.0, 3.4), layout="constrained")
    panel = picture.subplots()
    for (rtol, measured_points), color, marker in zip(
        sorted(points.items(), reverse=True), ("#0072B2", "#D55E00"), "os", strict=False
    ):
        widths, walls = np.array(measured_points).T
        panel.loglog(widths, walls, color=color, marker=marker, ms=4.5, lw=1.4)
        panel.annotate(
            f"rtol {rtol:g}",
            (widths[-1], walls[-1]),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=color,
        )
        target = SPEED_TARGETS.get(rtol)
        if target is not None:
            panel.axhline(target, color=color, lw=0.8, ls=(0, (5, 3)))
            panel.annotate(
                f"target {target:g} s",
                (8.5, target),
                xytext=(0, 2),
                textcoords="offset points",
                fontsize=7,
                color=color,
            )
    panel.set_xlim(8, 2e7)
    top = max([wall for row in points.values() for _, wall in row if np.isfinite(wall)], default=1.0)
    panel.set_ylim(0.05, max(40.0, 2.0 * top))
    panel.set_xlabel(r"width $m$")
    panel.set_ylabel(r"wall time to $t = 20\,m$ (s)")
    panel.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=200)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns 1 when the code changed under the run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Speed and memory against their targets.")
    parser.add_argument("--quick", action="store_true", help="smoke run of seconds; its figures mean nothing")
    parser.add_argument(
        "--docs", type=Path, metavar="DIR", help="where performance.md lies (default: docs; none with --quick)"
    )
    parser.add_argument("--only", metavar="WORD", default="", help="only the parts whose title contains this word")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        print(json.dumps(run_case(json.loads(options.case))))
        return 0
    docs = options.docs or (None if options.quick else DOCS)
    version = sources()
    where = f"{machine()} Code (dmft and solvers): sha256 {version}."
    print(where)
    points: dict[float, list[tuple[int, float]]] = {}
    parts: tuple[tuple[str, Callable[[], Iterator[Line]]], ...] = (
        ("Start", lambda: start_lines(options.quick)),
        ("Width", lambda: width_lines(options.quick, points)),
        ("Several kinds of neurons", lambda: block_lines(options.quick)),
        ("Against explicit Euler", lambda: euler_lines(options.quick)),
        ("Glassy relaxation", lambda: p_spin_lines(options.quick)),
    )
    text = [where, "", "Wall times are medians of three warm runs where a run is short, single runs otherwise."]
    short = 0
    for title, part in parts:
        if options.only.lower() not in title.lower():
            continue
        lines = []
        print(f"\n{title}")
        for line in part():
            lines.append(line)
            short += line.verdict == "FALL SHORT"
            print(
                f"  {line.verdict or '-':10}  {line.what}: {line.shown}  [{line.bound or 'no target'}]  {line.note}",
                flush=True,
            )
        if sources() != version:
            print(
                "The code changed during the run: what was measured belongs to no one version. Run again.",
                file=sys.stderr,
            )
            return 1
        text += ["", f"### {title}", "", table(lines)]
        if docs is not None:  # part by part: a run that is stopped keeps what it has
            replace_section(docs / "performance.md", "speed", "\n".join(text))
    print(f"\n{short} of the targets missed." if short else "\nAll targets met.")
    if docs is not None:
        if points:
            figure(points, docs / "figures" / "performance.png")
        print(f"written: {docs / 'performance.md'}, {docs / 'figures' / 'performance.png'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
