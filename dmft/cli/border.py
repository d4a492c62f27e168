"""The border of the command line: exit codes, one-sentence errors, checks of outputs, plain JSON."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from dmft.config import Config

DONE, FAILED, BAD_INPUT = 0, 1, 2

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class BadInputError(Exception):
    """Input that cannot be used; the message is the sentence to print."""


class StoppedError(Exception):
    """A signal stopped the run before there was a solution to save; the message says what is left."""


@contextlib.contextmanager
def bad_input(*, engine: bool = False) -> Iterator[None]:
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
        ours = type(error) is ValueError or type(error).__module__.split(".")[0] in ("dmft", "solvers", "validation")
        if engine and not ours:
            raise
        raise BadInputError(str(error)) from None


def read_config(source: str, overrides: list[str]) -> Config:
    """A configuration with its overrides; what is wrong with it is bad input."""
    from dmft import config

    try:
        return config.read(source, overrides)
    except (ValueError, TypeError) as error:
        raise BadInputError(f"config {source}: {error}") from None


def check_output(path: Path, keep: list[Path] | None = None) -> None:
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


def check_picture(path: Path) -> None:
    """Refuse a suffix that cannot be drawn before anything is computed.

    Raises
    ------
    BadInputError
        With the suffixes that there are.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in known:
        raise BadInputError(f"--plot {path}: no picture suffix; allowed are {', '.join(sorted(known))}.")


def check_replaceable(path: Path) -> None:
    """Refuse to replace a file that is no earlier result."""
    if path.exists():
        with path.open("rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
        if start and start != _HDF5_SIGNATURE:
            raise BadInputError(f"output {path} exists and is no HDF5 file; it is not overwritten.")


def one_line(text: object) -> str:
    """The text without line breaks."""
    return " ".join(str(text).split())


def say(text: str) -> None:
    """Print a sentence on standard error."""
    print(f"dmft: {one_line(text)}", file=sys.stderr)


def warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning as a sentence; for `warnings.showwarning`."""
    say(f"warning: {message}")


def silent(*_: object, **__: object) -> None:
    """Show no warning; for `warnings.showwarning`."""


def print_json(record: dict[str, Any]) -> None:
    """Print plain data as JSON."""
    print(json.dumps(finite(record), indent=2, allow_nan=False))


def finite(value: Any) -> Any:
    """JSON has no NaN: an unknown number is null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
