"""Commands on the theory: solve, plot, info, export, configs."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dmft
from dmft.cli.border import (
    DONE,
    FAILED,
    BadInputError,
    StoppedError,
    bad_input,
    check_output,
    check_replaceable,
    one_line,
    print_json,
    read_config,
    say,
)
from dmft.verification import checkpoints

if TYPE_CHECKING:
    from dmft.config import Config
    from dmft.solution import Solution
    from solvers.base import Progress


def solve(arguments: argparse.Namespace) -> int:
    """Solve the theory."""
    with bad_input():
        config = read_config(arguments.config, arguments.set)
        out = Path(arguments.out if arguments.out is not None else f"{config.name}.h5")
        check_output(out, keep=[Path(arguments.config)])
        check_replaceable(out)
        if config.swept:
            say("warning: [sweep] is for `dmft compare`; solve uses the values of the other sections.")
        if arguments.verify:
            config = replace(config, solve=replace(config.solve, verify=True))
    solution, saved = run_theory(config, out, resume=arguments.resume, quiet=arguments.quiet, bar=not arguments.json)
    if arguments.json:
        print_json(record(solution) | {"file": str(saved)})
    elif not arguments.quiet:
        print(solution.summary())
        if solution.verification is not None:
            print(solution.verification.table())
        print(f"saved: {saved}")
    return verdict(solution, saved)


def plot(arguments: argparse.Namespace) -> int:
    """Draw a run or a simulation."""
    file = Path(arguments.file)
    out = Path(arguments.out) if arguments.out is not None else file.with_suffix(".png")
    with bad_input():
        solution = dmft.load(file)
        check_output(out, keep=[file])
        solution.plot(out)
    if not arguments.quiet:
        print(out)
    return DONE


def info(arguments: argparse.Namespace) -> int:
    """Say what a file holds."""
    from dmft.simulation import Simulation

    with bad_input():
        file = Path(arguments.file)
        solution = dmft.load(file)
        provenance = _root_attributes(file)
    if arguments.json:
        facts = solution.record() if isinstance(solution, Simulation) else record(solution)
        print_json(facts | {"file": str(file), "provenance": provenance})
        return DONE
    print(solution.summary())
    if not isinstance(solution, Simulation) and solution.verification is not None:
        print(solution.verification.table())
    print(f"{'problem':<22} {json.dumps(solution.problem.to_dict())}")
    if isinstance(solution, Simulation):
        print(f"{'settings':<22} {json.dumps(solution.settings.to_dict())}")
    for name, value in provenance.items():
        print(f"{name:<22} {value}")
    return DONE


def export(arguments: argparse.Namespace) -> int:
    """Write curves as CSV."""
    file, directory = Path(arguments.file), Path(arguments.csv)
    with bad_input():
        solution = dmft.load(file)
        if not directory.is_dir():
            directory.mkdir()
        out = directory / f"{file.stem}.csv"
        check_output(out, keep=[file])
        solution.to_csv(out)
    if not arguments.quiet:
        print(out)
    return DONE


def configs(arguments: argparse.Namespace) -> int:
    """List or print ready configurations."""
    from dmft import config

    names = sorted([*config.ready_names(), *config.ready_names("relu")])
    if arguments.name is not None:
        if arguments.name not in names:
            raise BadInputError(f"no ready configuration {arguments.name!r}; `dmft configs` lists them.")
        print(config.ready_text(arguments.name), end="")
        return DONE
    for name in names:
        print(f"{name:<28} {config.ready_text(name).splitlines()[0].lstrip('# ')}")
    return DONE


class Monitor:
    """What the engine calls after every row: draws the bar, and stops the run there after a signal.

    A first SIGINT or SIGTERM is remembered and acted on between two rows, so that the solution returned is whole; a
    second one interrupts at once, wherever the program is.
    """

    def __init__(self, bar: bool, quiet: bool) -> None:
        self._stopping = False
        self._quiet = quiet
        self._first_time = 0.0
        self._bar: Any = None
        if bar:
            from tqdm import tqdm

            form = "{percentage:3.0f}%|{bar:30}| {postfix} [{elapsed}, {remaining} to go]"
            self._bar = tqdm(total=1.0, bar_format=form, file=sys.stderr, leave=False)

    def __call__(self, progress: Progress) -> None:
        """Stop, or move the bar."""
        if self._stopping:
            raise KeyboardInterrupt
        if self._bar is None or progress.time <= 0.0:
            return
        # Rows are about equally spaced in log t, so the fraction of rows done is one of logarithms.
        self._first_time = self._first_time or progress.time
        span = math.log(progress.t_final / self._first_time)
        fraction = math.log(progress.time / self._first_time) / span if span > 0.0 else 1.0
        text = f"t = {progress.time:.3g} of {progress.t_final:g}, step {progress.step:.1e}, {progress.rows} rows"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(fraction - self._bar.n)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM; the old handlers come back at the end."""
        old = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            if self._bar is not None:
                self._bar.close()

    def _on_signal(self, number: int, frame: object) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        if not self._quiet:
            say("stopping after this row, then saving; a second signal stops at once")


def run_theory(config: Config, out: Path, *, resume: bool, quiet: bool, bar: bool) -> tuple[Solution, Path]:
    """Solve with checkpoints and save; returns the solution and the file that it went to."""
    from dmft.files import save_result

    checkpoint = out.with_name(out.name + ".checkpoint")
    if resume and not checkpoint.exists():
        resume = False
        if not quiet:
            say(f"nothing to resume ({checkpoint} does not exist): starting from the beginning")
    monitor = Monitor(bar and not quiet and sys.stderr.isatty(), quiet)
    with monitor.watching():
        try:
            with bad_input(engine=True):
                solution = dmft.solve(
                    config.problem,
                    config.solve.t_final,
                    progress=monitor,
                    checkpoint=checkpoint,
                    resume=resume,
                    config_text=config.text,
                    **config.solve.arguments(),
                )
        except KeyboardInterrupt:
            kept = f"{checkpoint} is kept for --resume" if checkpoint.exists() else "there was nothing to save yet"
            raise StoppedError(f"interrupted; {kept}.") from None
        try:
            out = save_result(solution, out)
        except OSError as error:
            kept = f"; the run is kept in {checkpoint}, repeat with --resume" if checkpoint.exists() else ""
            raise BadInputError(f"cannot write {out}: {error.strerror or error}{kept}.") from None
    if not solution.interrupted:
        for path in checkpoints(checkpoint):
            path.unlink(missing_ok=True)
    return solution, out


def verdict(solution: Solution, saved: Path) -> int:
    """Exit code of a run, with a sentence where it is not 0."""
    checked = solution.verification
    if solution.status.ok and checked is not None and not checked.agrees:
        again = " Repeat with --resume." if solution.interrupted else ""
        say(f"verification: {one_line(checked.verdict)}.{again} The solution is saved in {saved}")
        return FAILED
    if solution.status.ok:
        return DONE
    reached = f"t = {float(solution.t[-1]):.6g}"
    sentence = one_line(solution.message).removeprefix("interrupted ").rstrip(".")
    say(f"{solution.status.value}: {sentence}. Partial result up to {reached} saved in {saved}")
    return FAILED


def record(solution: Solution) -> dict[str, Any]:
    """Plain facts of a solution for scripts; curves at the last time, per neuron or group where there are several."""
    import numpy as np

    curves = [name for name in solution.curve_names if name != "energy_balance"]
    final = {name: getattr(solution, name)[-1].tolist() for name in curves}
    record: dict[str, Any] = {
        "version": dmft.__version__,
        "problem": solution.problem.to_dict(),
        "status": solution.status.value,
        "message": solution.message,
        "rtol": solution.rtol,
        "method": solution.method,
        "t": float(solution.t[-1]),
        "rows": solution.stats.rows,
        "wall_time": solution.stats.wall_time,
        "estimated_error": solution.stats.estimated_error,
        "energy_balance": float(np.median(solution.energy_balance)),
        "final": final,
    }
    if solution.verification is not None:
        checked = solution.verification
        record["verification"] = checked.to_dict() | {"agrees": checked.agrees, "explained": checked.explained}
    if "test_error" in final:
        minimum = solution.minimum()
        record["minimum"] = {
            "t": float(minimum.time),
            "test_error": float(minimum.value),
            "interior": bool(minimum.found_interior),
        }
    return record


def _root_attributes(file: Path) -> dict[str, Any]:
    """Provenance: the scalar attributes of the file's root."""
    import h5py
    import numpy as np

    result: dict[str, Any] = {}
    with h5py.File(file, "r") as handle:
        for name, value in handle.attrs.items():
            if isinstance(value, bytes):
                result[name] = value.decode(errors="replace")
            elif isinstance(value, np.generic):
                result[name] = value.item()
            elif isinstance(value, str):
                result[name] = value
    return result
