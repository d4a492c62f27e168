"""The command ``dmft relu``."""

from __future__ import annotations

import argparse
from pathlib import Path

from dmft.cli.border import (
    DONE,
    FAILED,
    BadInputError,
    StoppedError,
    bad_input,
    check_output,
    one_line,
    print_json,
    say,
)
from dmft.cli.simulations import Ticker, workers_of


def relu(arguments: argparse.Namespace) -> int:
    """Sweep, thresholds, figures, and the plane of the theory where the configuration asks for it."""
    from validation.relu import config as configuration
    from validation.relu import study

    with bad_input():
        workers = workers_of(arguments)
        try:
            config = configuration.read(arguments.config, arguments.set)
        except (ValueError, TypeError) as error:
            raise BadInputError(f"config {arguments.config}: {error}") from None
        out = Path(arguments.out if arguments.out is not None else f"out/{config.name}")
        out.mkdir(parents=True, exist_ok=True)
        for target in study.targets(config, out):
            check_output(target, keep=[Path(arguments.config)])
    try:
        with bad_input(engine=True):
            found = study.run(config, out, workers=workers, dask=arguments.dask, progress=Ticker(arguments))
    except KeyboardInterrupt as error:
        said = one_line(error) or "interrupted."
        raise StoppedError(f"{said} What is finished is kept: repeat the command to go on.") from None
    if arguments.json:
        print_json(found.to_dict() | {"files": [str(file) for file in found.files]})
    elif not arguments.quiet:
        print(found)
        print("written: " + ", ".join(str(file) for file in found.files))
    for failure in found.failures:
        say(failure)
    if found.result.interrupted:
        say("interrupted. What is finished is kept: repeat the command to go on.")
    return FAILED if found.failures or found.result.missing else DONE
