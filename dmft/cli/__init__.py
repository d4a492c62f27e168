"""The command ``dmft``: solve, simulate, compare, timescales, threshold, relu, plot, info, export, demo, configs.

Exit codes: 0 done, 1 the computation failed (what there is was saved), 2 bad input (one sentence, nothing written).
A traceback means a bug, never bad input.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

import dmft
from dmft.cli import relu, scales, simulations, theory, thresholds
from dmft.cli.border import BAD_INPUT, FAILED, BadInputError, StoppedError, say, silent, warn

__all__ = ["main"]


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
        warnings.showwarning = silent if getattr(arguments, "quiet", False) else warn
        try:
            code: int = arguments.run(arguments)
            sys.stdout.flush()
            return code
        except BadInputError as error:
            say(f"error: {error}")
            return BAD_INPUT
        except StoppedError as error:
            say(f"{error}")
            return FAILED
        except BrokenPipeError:  # `dmft info run.h5 | head`: the reader has what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED


class _Parser(argparse.ArgumentParser):
    """Errors in one line, without the usage that nobody reads."""

    def error(self, message: str) -> NoReturn:
        say(f"error: {message} (see `{self.prog} --help`)")
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

    def workers(subparser: argparse.ArgumentParser) -> None:
        subparser.add_argument("--workers", type=int, metavar="N", help="processes for replicas (default: all cores)")
        subparser.add_argument("--dask", metavar="ADDRESS", help="run replicas on this dask.distributed scheduler")

    solve = command("solve", theory.solve, "Solve the theory for a configuration and save the run.")
    solve.add_argument("config", metavar="CONFIG", help="a TOML file, or a name that `dmft configs` lists")
    solve.add_argument("--out", metavar="FILE.h5", help="where to save (default: the config's name, here)")
    overrides(solve)
    solve.add_argument("--resume", action="store_true", help="go on from FILE.h5.checkpoint of a run that was stopped")
    solve.add_argument(
        "--verify",
        action="store_true",
        help="solve a second time, by another engine where there is one, compare, and exit with 1 where they differ; "
        "the same as `verify = true` in [solve]",
    )
    verbosity(solve)

    simulate = command(
        "simulate", simulations.simulate, "Train finite networks as a configuration says, and save them."
    )
    simulate.add_argument("config", metavar="CONFIG", help="a TOML file with [simulate], or a name of `dmft configs`")
    simulate.add_argument(
        "--out",
        metavar="FILE.h5",
        help="where to save a single simulation; otherwise the beginning of FILE-MODEL-ALGORITHM-dDIMENSION.h5, "
        "without ALGORITHM for flow (default: the config's name, here)",
    )
    overrides(simulate)
    workers(simulate)
    simulate.add_argument("--resume", action="store_true", help="keep the replicas that an earlier run has finished")
    verbosity(simulate)

    compare = command(
        "compare",
        simulations.compare,
        "Compare theory and simulation: those in the files given, or those of a configuration, which are run first.",
    )
    compare.add_argument(
        "files", nargs="+", metavar="FILE", help="RUN.h5 SIMULATION.h5 ..., or one configuration with [simulate]"
    )
    compare.add_argument(
        "--out",
        metavar="DIR",
        help="directory for table (CSV, JSON) and figure; a configuration also keeps its runs there and goes on from "
        "them (default: out/NAME for a configuration, none for files)",
    )
    compare.add_argument("--level", type=float, default=0.01, help="family-wise level of the verdict (default: 0.01)")
    overrides(compare)
    workers(compare)
    verbosity(compare)

    timescales = command(
        "timescales",
        scales.timescales,
        "Say what happens when in training, and how these times grow with the width.",
    )
    scales.add_arguments(timescales)
    overrides(timescales)
    verbosity(timescales)

    threshold = command(
        "threshold",
        thresholds.threshold,
        "Find where training interpolates: at a fixed second layer (interpolation), or in n/d, both layers trained.",
    )
    thresholds.add_arguments(threshold)
    overrides(threshold)
    verbosity(threshold)

    networks = command(
        "relu",
        relu.relu,
        "Train small ReLU networks over n, d and scale of the initialisation, and find where they stop interpolating.",
    )
    networks.add_argument("config", metavar="CONFIG", help="a TOML file with [relu], or a name of `dmft configs`")
    networks.add_argument(
        "--out",
        metavar="DIR",
        help="directory for runs, which are kept and used again, HDF5, table and figures (default: out/NAME)",
    )
    overrides(networks)
    workers(networks)
    verbosity(networks)

    plot = command("plot", theory.plot, "Draw the curves of a run.")
    plot.add_argument("file", metavar="FILE.h5")
    plot.add_argument("--out", metavar="IMAGE", help="png, pdf or svg (default: FILE.png beside the run)")
    verbosity(plot, json_too=False)

    info = command("info", theory.info, "Say what a run holds: results, problem, how it was made.")
    info.add_argument("file", metavar="FILE.h5")
    info.add_argument("--json", action="store_true", help="print as JSON, for scripts")

    export = command("export", theory.export, "Write the curves of a run as CSV.")
    export.add_argument("file", metavar="FILE.h5")
    export.add_argument("--csv", metavar="DIR", required=True, help="directory for FILE.csv; made if missing")
    verbosity(export, json_too=False)

    demo = command(
        "demo",
        simulations.demo,
        "Solve and simulate the embedded example, save HDF5, CSV and PNG, print what it found.",
    )
    demo.add_argument("--out", metavar="DIR", default="out/demo", help="directory to write to (default: %(default)s)")
    overrides(demo)
    workers(demo)
    verbosity(demo)

    configs = command("configs", theory.configs, "List the ready configurations, or print one.")
    configs.add_argument("name", nargs="?", metavar="NAME", help="print this one, to copy and change")
    return parser
