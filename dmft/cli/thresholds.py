"""The command ``dmft threshold``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmft.cli.border import (
    DONE,
    FAILED,
    BadInputError,
    StoppedError,
    bad_input,
    check_output,
    print_json,
    read_config,
    say,
)

if TYPE_CHECKING:
    from dmft.config import Config
    from validation.thresholds import Threshold

KINDS = ("interpolation", "optimization")
VARIED = ("gamma", "alpha", "sample_ratio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``dmft threshold`` besides the common ones."""
    parser.add_argument("config", metavar="CONFIG", help="a TOML file, or a name that `dmft configs` lists")
    parser.add_argument("--kind", choices=KINDS, default="interpolation", help="which threshold (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE.json", help="write the result with every run that it rests on")
    parser.add_argument("--plot", metavar="IMAGE", help="draw it: png, pdf or svg")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores, at most four)")
    parser.add_argument("--checkpoint", metavar="DIR", help="keep finished runs there, and take up those that are")


def threshold(arguments: argparse.Namespace) -> int:
    """Find a threshold."""
    from validation.thresholds import interpolation_threshold
    from validation.thresholds.search import SearchError

    if arguments.kind == "optimization":
        raise BadInputError("--kind optimization is not available yet; --kind interpolation is.")
    quiet = arguments.quiet or arguments.json

    def progress(done: int, text: str) -> None:
        print(f"\rrun {done}: {text:<60.60}", end="", file=sys.stderr, flush=True)

    shown = not quiet and sys.stderr.isatty()
    with bad_input():
        config = read_config(arguments.config, arguments.set)
        asked = question(config)
        for path in (arguments.out, arguments.plot):
            if path is not None:
                check_output(Path(path), keep=[Path(arguments.config)])
    with bad_input(engine=True):
        try:
            found = interpolation_threshold(
                **asked,
                workers=arguments.workers,
                checkpoint=arguments.checkpoint,
                progress=progress if shown else None,
            )
        except SearchError as error:
            say(f"failed: {error}")
            return FAILED
        except KeyboardInterrupt:
            kept = f"finished runs are kept in {arguments.checkpoint}" if arguments.checkpoint else "nothing was saved"
            raise StoppedError(f"interrupted; {kept}.") from None
        finally:
            if shown:
                print("\r" + " " * 72 + "\r", end="", file=sys.stderr)
        if arguments.out is not None:
            found.to_json(arguments.out)
        if arguments.plot is not None:
            found.plot(arguments.plot)
    _print(found, arguments)
    return DONE


def _print(found: Threshold, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print_json(found.to_dict())
    elif not arguments.quiet:
        print(found)
        for path in (arguments.out, arguments.plot):
            if path is not None:
                print(f"saved: {path}")


def question(config: Config) -> dict[str, Any]:
    """Arguments of `interpolation_threshold` that a configuration means.

    What is varied is ``[threshold] vary``; by default gamma where the second layer is lazy (gamma0), else the sample
    ratio n/d at fixed a0. What is fixed comes from ``[model]``; ``[threshold] infinite_width = true`` takes m ->
    infinity in the same scaling.

    Raises
    ------
    BadInputError
        When the model has no such threshold.
    """
    import numpy as np

    from dmft import _validate
    from dmft.limits import Limit
    from dmft.problems import InfiniteWidthProblem, SymmetricProblem

    problem, options = config.problem, config.threshold or {}
    if isinstance(problem, Limit):
        raise BadInputError(f"[model] limit must be left out for a threshold, not {problem.limit!r}.")
    if not isinstance(problem, SymmetricProblem | InfiniteWidthProblem):
        raise BadInputError(
            "[model] kind must be symmetric or infinite_width for a threshold (neurons that all start alike), not "
            f"{_validate.shown(getattr(problem, 'kind', type(problem).__name__))}."
        )
    if np.any(problem.v0):
        raise BadInputError(f"[model] v0 must be 0 for a threshold, not {_validate.shown(problem.v0)}.")
    asked: dict[str, Any] = {
        "activation": problem.activation,
        "target": problem.target,
        "noise_std": problem.noise_std,
    }
    lazy = isinstance(problem, SymmetricProblem) and problem.gamma0 is not None
    vary = options.get("vary", "gamma" if lazy else "sample_ratio")
    if vary not in VARIED:
        raise BadInputError(f"[threshold] vary must be one of {', '.join(VARIED)}, not {_validate.shown(vary)}.")
    infinite = _validate.boolean("[threshold] infinite_width", options.get("infinite_width", problem.infinite_width))
    if problem.infinite_width and not infinite:
        raise BadInputError("[threshold] infinite_width cannot be false for a model of infinite width.")
    if not infinite:
        asked["width"] = problem.width
    if problem.infinite_width and vary != "sample_ratio":
        raise BadInputError(
            f"[threshold] vary must be sample_ratio for a model of infinite width at fixed n/d, not {vary!r}."
        )
    if vary == "sample_ratio":
        if lazy:
            raise BadInputError("[threshold] vary = 'sample_ratio' needs [model] a0, which stays fixed, not gamma0.")
        return asked | {"a0": problem.a0}
    assert isinstance(problem, SymmetricProblem)
    if vary == "gamma":
        return asked | {"alpha": problem.alpha}
    if not lazy and infinite:
        raise BadInputError("[threshold] vary = 'alpha' at infinite width needs [model] gamma0, which stays fixed.")
    gamma = problem.gamma0 if lazy else problem.a0 / np.sqrt(problem.width)
    return asked | {"gamma": gamma}
