"""The command timescales: of runs in files, or of a family of widths that is solved first."""

from __future__ import annotations

import argparse
import sys
import tomllib
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
    check_picture,
    one_line,
    print_json,
    say,
)
from dmft.cli.theory import Monitor

if TYPE_CHECKING:
    from dmft.config import Config
    from dmft.problems import Problem
    from dmft.solution import Solution
    from validation.scales import Report

_SUFFIXES = (".h5", ".hdf5", ".nc")
_PER_WIDTH = 20.0
"""Default end of a run over its width: [MU]'s figures show t up to 20 m."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments besides those that all commands share."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="runs or simulations in files, or one configuration")
    parser.add_argument(
        "--widths",
        metavar="M,M,...",
        help="solve the configuration at these widths first (default: the members of its [sweep])",
    )
    parser.add_argument(
        "--t-final-per-width",
        type=float,
        metavar="X",
        help=f"with --widths, end each run at t = X m (default: {_PER_WIDTH:g})",
    )
    parser.add_argument(
        "--fixed-samples", action="store_true", help="with --widths, keep n/d = alpha m and not alpha = n/(m d)"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="with a configuration, directory for the runs, which are kept and used again, and for table and figure "
        "(default: out/NAME-timescales)",
    )
    parser.add_argument(
        "--criterion",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what counts as an event, such as overfitting=0.3 or second_layer=0.2,0.4 (may be repeated)",
    )
    parser.add_argument("--plot", metavar="IMAGE", help="draw to this png, pdf or svg")
    parser.add_argument("--csv", metavar="TABLE.csv", help="write all events to this file")


def timescales(arguments: argparse.Namespace) -> int:
    """Time scales of files, or of a configuration."""
    names = [Path(name) for name in arguments.files]
    of_files = all(name.suffix in _SUFFIXES for name in names)
    with bad_input():
        wanted = _outputs(arguments, keep=names)
        criteria = _criteria(arguments.criterion)
        if of_files:
            return _of_files(names, arguments, criteria, wanted)
    if len(names) > 1:
        raise BadInputError("timescales takes runs in files (.h5), or one configuration.")
    return _of_config(arguments.files[0], arguments, criteria, wanted)


def _of_files(
    names: list[Path], arguments: argparse.Namespace, criteria: dict[str, Any], wanted: list[tuple[str, Path]]
) -> int:
    given = {
        "--set": arguments.set,
        "--widths": arguments.widths,
        "--t-final-per-width": arguments.t_final_per_width is not None,
        "--fixed-samples": arguments.fixed_samples,
        "--out": arguments.out,
    }
    for option, value in given.items():
        if value:
            raise BadInputError(f"{option} goes with a configuration, not with files.")
    report = dmft.time_scales([dmft.load(name) for name in names], **criteria)
    _show(arguments, report, _write(report, wanted))
    return DONE


def _of_config(
    source: str, arguments: argparse.Namespace, criteria: dict[str, Any], wanted: list[tuple[str, Path]]
) -> int:
    from validation.scales import checks

    with bad_input():
        members = _members(source, arguments)
        checks.check_problems([member.problem for member in members])
        name = Path(source).stem
        out = Path(arguments.out if arguments.out is not None else f"out/{name}-timescales")
        out.mkdir(parents=True, exist_ok=True)
        own = [(kind, out / f"{name}-timescales.{kind}") for kind in ("csv", "json", "png")]
        for _, target in own:
            check_output(target)
    code = DONE
    solutions = []
    for member in members:
        solution = _solved(member, out / f"{member.name}.h5", arguments)
        if not solution.status.ok:
            say(f"{member.name}: {solution.status.value}: {one_line(solution.message)}")
            code = FAILED
        solutions.append(solution)
    with bad_input():
        report = dmft.time_scales(solutions, **criteria)
        files = _write(report, own + wanted)
    _show(arguments, report, files)
    return code


def _members(source: str, arguments: argparse.Namespace) -> list[Config]:
    """The runs to solve: one a width, or the members of a sweep."""
    from dmft import config as configuration

    if arguments.widths is None:
        for option in ("t_final_per_width", "fixed_samples"):
            if getattr(arguments, option):
                raise BadInputError(f"--{option.replace('_', '-')} goes with --widths.")
    try:
        if arguments.widths is None:
            return configuration.read_members(source, arguments.set)
        base = configuration.read(source, arguments.set)
        dropped = _unswept(base)
        per_width = _PER_WIDTH if arguments.t_final_per_width is None else arguments.t_final_per_width
        members = []
        for width in _widths(arguments.widths):
            changes = [
                *dropped,
                *_scaled(base.problem, width, arguments.fixed_samples),
                f"solve.t_final={per_width * width!r}",
            ]
            members.append(configuration.parse(base.text, changes, name=f"{base.name}-width{width}"))
        return members
    except (ValueError, TypeError) as error:
        raise BadInputError(f"config {source}: {error}") from None


def _unswept(base: Config) -> list[str]:
    """Overrides that drop a sweep over the width; a sweep over anything else makes no family."""
    swept = list(tomllib.loads(base.text).get("sweep", {}))
    others = [
        key for key in swept if key not in ("model.width", "model.sizes", "solve.t_final") and key[:9] != "simulate."
    ]
    if others:
        raise BadInputError(f"--widths cannot go with a sweep over {', '.join(others)}; drop it with --set sweep.KEY=.")
    return [f"sweep.{key}=" for key in swept]


def _widths(text: str) -> list[int]:
    try:
        widths = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise BadInputError(
            f"--widths must be integers with commas between, such as 16,64,256, not {text!r}."
        ) from None
    if widths[0] < 1:
        raise BadInputError(f"--widths must be at least 1, not {widths[0]}.")
    return widths


def _scaled(problem: Problem, width: int, fixed_samples: bool) -> list[str]:
    """Overrides that give a problem another width."""
    form = problem.formulation()
    if problem.kind == "symmetric":
        changes = [f"model.width={width}"]
    elif problem.kind == "grouped":
        sizes = [int(size) * width for size in form.sizes]
        if any(size % form.width for size in sizes):
            raise BadInputError(f"--widths: {width} neurons cannot be shared out like sizes = {form.sizes.tolist()}.")
        changes = [f"model.sizes={[size // form.width for size in sizes]}"]
    else:
        raise BadInputError(f"--widths needs a symmetric or a grouped configuration, not one of kind {problem.kind!r}.")
    if fixed_samples:
        changes.append(f"model.alpha={form.alpha * form.width / width!r}")
    return changes


def _solved(member: Config, file: Path, arguments: argparse.Namespace) -> Solution:
    """Solve one member and save it, or read the run that is there already."""
    from validation import experiment

    monitor = Monitor(not arguments.quiet and not arguments.json and sys.stderr.isatty(), arguments.quiet)
    with monitor.watching():
        try:
            with bad_input(engine=True):
                return experiment.theory(member, file, progress=monitor)
        except KeyboardInterrupt as error:
            said = one_line(error) or "interrupted."
            raise StoppedError(f"{said} What is finished is kept: repeat the command to go on.") from None


def _criteria(given: list[str]) -> dict[str, Any]:
    """Arguments of `dmft.time_scales` from NAME=VALUE."""
    from dataclasses import fields

    from validation.scales import Criteria

    known = {field.name: field.default for field in fields(Criteria)}
    result: dict[str, Any] = {}
    for one in given:
        name, _, text = one.partition("=")
        if name not in known:
            raise BadInputError(f"--criterion {one}: the names are {', '.join(known)}.")
        try:
            values = [float(part) for part in text.split(",")]
        except ValueError:
            raise BadInputError(f"--criterion {one}: {text!r} is not a number, or numbers with commas.") from None
        result[name] = values if isinstance(known[name], tuple) else values[0]
        if not isinstance(known[name], tuple) and len(values) > 1:
            raise BadInputError(f"--criterion {one}: {name} is a single number.")
    Criteria(**result)
    return result


def _outputs(arguments: argparse.Namespace, keep: list[Path]) -> list[tuple[str, Path]]:
    """Files asked for by name, checked."""
    wanted = [
        (kind, Path(name)) for kind, name in (("png", arguments.plot), ("csv", arguments.csv)) if name is not None
    ]
    for kind, target in wanted:
        check_output(target, keep=keep)
        if kind == "png":
            check_picture(target)
    return wanted


def _write(report: Report, wanted: list[tuple[str, Path]]) -> list[Path]:
    write: dict[str, Any] = {"csv": report.to_csv, "json": report.to_json, "png": report.plot}
    for kind, target in wanted:
        write[kind](target)
    return [target for _, target in wanted]


def _show(arguments: argparse.Namespace, report: Report, files: list[Path]) -> None:
    if arguments.json:
        print_json(report.to_dict() | {"files": [str(file) for file in files]})
    elif not arguments.quiet:
        print(report)
        if files:
            print("written: " + ", ".join(str(file) for file in files))
