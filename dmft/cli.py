"""The command ``dmft``: solve, plot, info, export, demo, configs.

Exit codes: 0 done, 1 the computation failed (what there is was saved), 2 bad input (one sentence, nothing written).
A traceback means a bug, never bad input.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import dmft

if TYPE_CHECKING:
    from dmft.config import Config
    from dmft.solution import Solution
    from solvers.base import Progress

DONE, FAILED, BAD_INPUT = 0, 1, 2

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class BadInputError(Exception):
    """Input that cannot be used; the message is the sentence to print."""


class _StoppedError(Exception):
    """A signal stopped the run before there was a solution to save; the message says what is left."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process when omitted.

    Returns
    -------
    int
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _silent if getattr(arguments, "quiet", False) else _warn
        try:
            code: int = arguments.run(arguments)
            sys.stdout.flush()
            return code
        except BadInputError as error:
            _say(f"error: {error}")
            return BAD_INPUT
        except _StoppedError as error:
            _say(f"{error}")
            return FAILED
        except BrokenPipeError:  # `dmft info run.h5 | head`: the reader has what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED


# ---------------------------------------------------------------------------------------------------- commands


def _solve(arguments: argparse.Namespace) -> int:
    with _bad_input():
        config = _read_config(arguments.config, arguments.set)
        out = Path(arguments.out if arguments.out is not None else f"{config.name}.h5")
        _check_output(out, keep=[Path(arguments.config)])
        _check_replaceable(out)
    solution, saved = _run(config, out, resume=arguments.resume, quiet=arguments.quiet, bar=not arguments.json)
    if arguments.json:
        _print_json(_record(solution) | {"file": str(saved)})
    elif not arguments.quiet:
        print(solution.summary())
        print(f"saved: {saved}")
    return _verdict(solution, saved)


def _demo(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out)
    with _bad_input():
        config = _read_config("demo", arguments.set)
        out.mkdir(parents=True, exist_ok=True)
        files = [out / f"demo.{suffix}" for suffix in ("h5", "csv", "png")]
        for file in files:
            _check_output(file)
    if not arguments.quiet and not arguments.json:
        print("Mean-field training of a two-layer network on a single-index target (the first run compiles) ...")
    solution, files[0] = _run(config, files[0], resume=False, quiet=arguments.quiet, bar=not arguments.json)
    with _bad_input():
        solution.to_csv(files[1])
        solution.plot(files[2])
    if arguments.json:
        _print_json(_record(solution) | {"files": [str(file) for file in files]})
    elif not arguments.quiet:
        print(_demo_table(solution))
        print("written: " + ", ".join(str(file) for file in files))
    return _verdict(solution, files[0])


def _plot(arguments: argparse.Namespace) -> int:
    file = Path(arguments.file)
    out = Path(arguments.out) if arguments.out is not None else file.with_suffix(".png")
    with _bad_input():
        solution = dmft.load(file)
        _check_output(out, keep=[file])
        solution.plot(out)
    if not arguments.quiet:
        print(out)
    return DONE


def _info(arguments: argparse.Namespace) -> int:
    with _bad_input():
        file = Path(arguments.file)
        solution = dmft.load(file)
        provenance = _root_attributes(file)
    if arguments.json:
        _print_json(_record(solution) | {"file": str(file), "provenance": provenance})
        return DONE
    print(solution.summary())
    print(f"{'problem':<22} {json.dumps(solution.problem.to_dict())}")
    for name, value in provenance.items():
        print(f"{name:<22} {value}")
    return DONE


def _export(arguments: argparse.Namespace) -> int:
    file, directory = Path(arguments.file), Path(arguments.csv)
    with _bad_input():
        solution = dmft.load(file)
        if not directory.is_dir():
            directory.mkdir()
        out = directory / f"{file.stem}.csv"
        _check_output(out, keep=[file])
        solution.to_csv(out)
    if not arguments.quiet:
        print(out)
    return DONE


def _configs(arguments: argparse.Namespace) -> int:
    from dmft import config

    if arguments.name is not None:
        if arguments.name not in config.ready_names():
            raise BadInputError(f"no ready configuration {arguments.name!r}; `dmft configs` lists them.")
        print(config.ready_text(arguments.name), end="")
        return DONE
    for name in config.ready_names():
        print(f"{name:<28} {config.ready_text(name).splitlines()[0].lstrip('# ')}")
    return DONE


# ---------------------------------------------------------------------------------------------------- solving


class _Monitor:
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
            _say("stopping after this row, then saving; a second signal stops at once")


def _run(config: Config, out: Path, *, resume: bool, quiet: bool, bar: bool) -> tuple[Solution, Path]:
    """Solve with checkpoints and save; returns the solution and the file that it went to."""
    checkpoint = out.with_name(out.name + ".checkpoint")
    if resume and not checkpoint.exists():
        resume = False
        if not quiet:
            _say(f"nothing to resume ({checkpoint} does not exist): starting from the beginning")
    options: dict[str, Any] = {"rtol": config.solve.rtol, "method": config.solve.method, "times": config.solve.times}
    if config.solve.max_rows is not None:
        options["max_rows"] = config.solve.max_rows
    monitor = _Monitor(bar and not quiet and sys.stderr.isatty(), quiet)
    with monitor.watching():
        try:
            with _bad_input(engine=True):
                solution = dmft.solve(
                    config.problem,
                    config.solve.t_final,
                    progress=monitor,
                    checkpoint=checkpoint,
                    resume=resume,
                    config_text=config.text,
                    **options,
                )
        except KeyboardInterrupt:
            kept = f"{checkpoint} is kept for --resume" if checkpoint.exists() else "there was nothing to save yet"
            raise _StoppedError(f"interrupted; {kept}.") from None
        if not solution.status.ok and _is_complete(out):
            out = out.with_name(f"{out.stem}.partial{out.suffix}")
        try:
            solution.save(out)
        except OSError as error:
            kept = f"; the run is kept in {checkpoint}, repeat with --resume" if checkpoint.exists() else ""
            raise BadInputError(f"cannot write {out}: {error.strerror or error}{kept}.") from None
    if solution.status is not dmft.Status.INTERRUPTED:
        checkpoint.unlink(missing_ok=True)
    return solution, out


def _is_complete(path: Path) -> bool:
    """Whether a complete earlier result is there, which a partial one is no reason to lose."""
    if not path.exists():
        return False
    try:
        return dmft.load(path).status.ok
    except (OSError, ValueError):
        return True  # unreadable to this version: not ours to replace


def _verdict(solution: Solution, saved: Path) -> int:
    if solution.status.ok:
        return DONE
    reached = f"t = {float(solution.t[-1]):.6g}"
    _say(f"{solution.status.value}: {_one_line(solution.message)} Partial result up to {reached} saved in {saved}")
    return FAILED


# ---------------------------------------------------------------------------------------------------- results


def _record(solution: Solution) -> dict[str, Any]:
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
    if "test_error" in final:
        minimum = solution.minimum()
        record["minimum"] = {
            "t": float(minimum.time),
            "test_error": float(minimum.value),
            "interior": bool(minimum.found_interior),
        }
    return record


def _demo_table(solution: Solution) -> str:
    record = _record(solution)
    minimum, final = record["minimum"], record["final"]
    overlap = final["v"] if isinstance(final["v"], float) else final["v"][0]
    rows = [
        ("time of the test-error minimum", minimum["t"]),
        ("test error there", minimum["test_error"]),
        (f"at t = {record['t']:g}: test error", final["test_error"]),
        ("  train error e_tr", final["train_error"]),
        ("  a / sqrt(m)", final["gamma"]),
        ("  overlap v", overlap),
        ("  a v", final["a"] * overlap),
        ("estimated error of the curves", record["estimated_error"]),
        ("energy balance violated by (median)", record["energy_balance"]),
    ]
    return "\n".join(f"{name:<36} {value:>12.5g}" for name, value in rows)


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


def _print_json(record: dict[str, Any]) -> None:
    print(json.dumps(_finite(record), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """JSON has no NaN: an unknown number is null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------------------------------------------- the border


@contextlib.contextmanager
def _bad_input(*, engine: bool = False) -> Iterator[None]:
    """Turn refusals of the package and of the system into one sentence.

    The engine too refuses (an unknown method, a checkpoint of another run), by a ValueError of its own; a TypeError
    or a LinAlgError from there is a bug, and shows its traceback.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        raise BadInputError(f"{where}{error.strerror or error}.") from None
    except (ValueError, TypeError) as error:
        ours = type(error) is ValueError or type(error).__module__.split(".")[0] in ("dmft", "solvers")
        if engine and not ours:
            raise
        raise BadInputError(str(error)) from None


def _read_config(source: str, overrides: list[str]) -> Config:
    from dmft import config

    try:
        return config.read(source, overrides)
    except (ValueError, TypeError) as error:
        raise BadInputError(f"config {source}: {error}") from None


def _check_output(path: Path, keep: list[Path] | None = None) -> None:
    """Refuse an output that could not be written, before anything is computed.

    Raises
    ------
    BadInputError
        If ``path`` is a directory or one of the files ``keep``, or its directory is missing or not writable.
    """
    if path.is_dir():
        raise BadInputError(f"output {path} is a directory.")
    if any(other.exists() and path.exists() and path.samefile(other) for other in keep or []):
        raise BadInputError(f"output {path} is also the input, which would be lost.")
    directory = path.parent
    if not directory.is_dir():
        raise BadInputError(f"output {path}: the directory {directory} does not exist.")
    try:
        # A nameless file leaves nothing behind; asking for permissions would not notice read-only file systems.
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise BadInputError(f"output {path}: cannot write into {directory}: {error.strerror}.") from None


def _check_replaceable(path: Path) -> None:
    """Refuse to replace a file that is no earlier result."""
    if path.exists():
        with path.open("rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
        if start and start != _HDF5_SIGNATURE:
            raise BadInputError(f"output {path} exists and is no HDF5 file; it is not overwritten.")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _say(text: str) -> None:
    print(f"dmft: {_one_line(text)}", file=sys.stderr)


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _say(f"warning: {message}")


def _silent(*_: object, **__: object) -> None:
    pass


class _Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage that nobody reads."""

    def error(self, message: str) -> NoReturn:
        _say(f"error: {message} (see `{self.prog} --help`)")
        raise SystemExit(BAD_INPUT)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dmft",
        description="Training dynamics of wide two-layer networks from dynamical mean-field theory.",
        epilog="Exit codes: 0 done; 1 the computation failed, partial result saved; 2 bad input.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dmft {dmft.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        result = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        result.set_defaults(run=run)
        return result

    def verbosity(subparser: argparse.ArgumentParser, json_too: bool = True) -> None:
        subparser.add_argument("--quiet", action="store_true", help="print errors only")
        if json_too:
            subparser.add_argument("--json", action="store_true", help="print the result as JSON, for scripts")

    def overrides(subparser: argparse.ArgumentParser) -> None:
        subparser.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="SECTION.KEY=VALUE",
            help="override one key, such as model.width=64; an empty value removes it (may be repeated)",
        )

    solve = command("solve", _solve, "Solve the theory for a configuration and save the run.")
    solve.add_argument("config", metavar="CONFIG", help="a TOML file, or a name that `dmft configs` lists")
    solve.add_argument("--out", metavar="FILE.h5", help="where to save (default: the config's name, here)")
    overrides(solve)
    solve.add_argument("--resume", action="store_true", help="go on from FILE.h5.checkpoint of a run that was stopped")
    verbosity(solve)

    plot = command("plot", _plot, "Draw the curves of a run.")
    plot.add_argument("file", metavar="FILE.h5")
    plot.add_argument("--out", metavar="IMAGE", help="png, pdf or svg (default: FILE.png beside the run)")
    verbosity(plot, json_too=False)

    info = command("info", _info, "Say what a run holds: results, problem, how it was made.")
    info.add_argument("file", metavar="FILE.h5")
    info.add_argument("--json", action="store_true", help="print as JSON, for scripts")

    export = command("export", _export, "Write the curves of a run as CSV.")
    export.add_argument("file", metavar="FILE.h5")
    export.add_argument("--csv", metavar="DIR", required=True, help="directory for FILE.csv; made if missing")
    verbosity(export, json_too=False)

    demo = command("demo", _demo, "Solve the embedded example, save HDF5, CSV and PNG, print what it found.")
    demo.add_argument("--out", metavar="DIR", default="out/demo", help="directory to write to (default: %(default)s)")
    overrides(demo)
    verbosity(demo)

    configs = command("configs", _configs, "List the ready configurations, or print one.")
    configs.add_argument("name", nargs="?", metavar="NAME", help="print this one, to copy and change")
    return parser


if __name__ == "__main__":
    sys.exit(main())
