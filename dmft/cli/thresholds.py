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
    check_picture,
    print_json,
    read_config,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from dmft.config import Config
    from dmft.problems import InfiniteWidthProblem, SymmetricProblem
    from validation.optimization import OptimizationThreshold
    from validation.thresholds import Threshold

KINDS = ("interpolation", "optimization")
VARIED = ("gamma", "alpha", "sample_ratio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``dmft threshold`` besides the common ones."""
    parser.add_argument("config", metavar="CONFIG", help="a TOML file, or a name that `dmft configs` lists")
    parser.add_argument("--kind", choices=KINDS, default="interpolation", help="which threshold (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE.json", help="write the result with every run that it rests on")
    parser.add_argument("--plot", metavar="IMAGE", help="draw it: png, pdf or svg")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores, at most 3 or 4)")
    parser.add_argument("--checkpoint", metavar="DIR", help="keep finished runs there, and take up those that are")


def threshold(arguments: argparse.Namespace) -> int:
    """Find a threshold."""
    from validation.optimization import optimization_threshold
    from validation.thresholds import interpolation_threshold
    from validation.thresholds.search import SearchError

    quiet = arguments.quiet or arguments.json

    def progress(done: int, text: str) -> None:
        print(f"\rrun {done}: {text:<60.60}", end="", file=sys.stderr, flush=True)

    shown = not quiet and sys.stderr.isatty()
    with bad_input():
        config = read_config(arguments.config, arguments.set)
        optimization = arguments.kind == "optimization"
        asked = optimization_question(config) if optimization else question(config)
        for path in (arguments.out, arguments.plot):
            if path is not None:
                check_output(Path(path), keep=[Path(arguments.config)])
        if arguments.plot is not None:
            check_picture(Path(arguments.plot))
    search: Callable[..., Threshold | OptimizationThreshold]
    search = optimization_threshold if optimization else interpolation_threshold
    with bad_input(engine=True):
        try:
            found = search(
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


def _print(found: Threshold | OptimizationThreshold, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print_json(found.to_dict())
    elif not arguments.quiet:
        print(found)
        for path in (arguments.out, arguments.plot):
            if path is not None:
                print(f"saved: {path}")


def _network(config: Config) -> SymmetricProblem | InfiniteWidthProblem:
    """The problem of a configuration, if it may have a threshold.

    Raises
    ------
    BadInputError
        When it has not.
    """
    import numpy as np

    from dmft import _validate
    from dmft.limits import Limit
    from dmft.problems import InfiniteWidthProblem, SymmetricProblem

    problem = config.problem
    if isinstance(problem, Limit):
        raise BadInputError(f"[model] limit must be left out for a threshold, not {problem.limit!r}.")
    if not isinstance(problem, SymmetricProblem | InfiniteWidthProblem):
        raise BadInputError(
            "[model] kind must be symmetric or infinite_width for a threshold (neurons that all start alike), not "
            f"{_validate.shown(getattr(problem, 'kind', type(problem).__name__))}."
        )
    if np.any(problem.v0):
        raise BadInputError(f"[model] v0 must be 0 for a threshold, not {_validate.shown(problem.v0)}.")
    return problem


def optimization_question(config: Config) -> dict[str, Any]:
    """Arguments of `optimization_threshold` that a configuration means: the sample ratio varies at fixed width.

    ``[threshold] infinite_width = true`` takes m -> infinity at fixed n/d.

    Raises
    ------
    BadInputError
        When the model has no such threshold.
    """
    from dmft import _validate
    from dmft.problems import SymmetricProblem

    problem, options = _network(config), config.threshold or {}
    if not problem.train_second_layer:
        raise BadInputError(
            "[model] train_second_layer must be true for --kind optimization; at a fixed second layer there is "
            "--kind interpolation."
        )
    if isinstance(problem, SymmetricProblem) and problem.gamma0 is not None:
        raise BadInputError("[model] a0 must be given for --kind optimization, not gamma0: lazy networks overfit.")
    if options.get("vary", "sample_ratio") != "sample_ratio":
        raise BadInputError(
            f"[threshold] vary must be sample_ratio for --kind optimization, not {_validate.shown(options['vary'])}."
        )
    infinite = _validate.boolean("[threshold] infinite_width", options.get("infinite_width", problem.infinite_width))
    if problem.infinite_width and not infinite:
        raise BadInputError("[threshold] infinite_width cannot be false for a model of infinite width.")
    return {
        "activation": problem.activation,
        "target": problem.target,
        "noise_std": problem.noise_std,
        "a0": problem.a0,
        "width": None if infinite else problem.width,
    }


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
    from dmft.problems import SymmetricProblem

    problem, options = _network(config), config.threshold or {}
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
