"""Checkpoints: everything a run needs to go on and give the same numbers, bit for bit."""

from __future__ import annotations

import json
import tempfile
import time as clock
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dmft.files import atomic_path, load
from dmft.solution import Solution
from solvers.base import CannotResumeError

FORMAT = 1


class Checkpointer:
    """Writes the state of a run to one file, atomically, at most every ``interval`` seconds.

    Parameters
    ----------
    path : path or None
        The file; None switches checkpoints off.
    identity : dict
        Canonical description of the problem and the options. A run resumes only from its own checkpoint.
    interval : float
        Seconds between checkpoints; they are spread further when writing takes more than a twentieth of the time.
    """

    def __init__(self, path: Path | None, identity: dict[str, Any], interval: float = 20.0) -> None:
        self.path = path
        self.identity = json.dumps(identity, sort_keys=True)
        self.interval = interval
        self._last = clock.perf_counter()
        self._cost = 0.0

    def due(self) -> bool:
        """Whether it is time for the next one."""
        if self.path is None:
            return False
        return clock.perf_counter() - self._last >= max(self.interval, 20.0 * self._cost)

    def write(self, arrays: dict[str, Any], record: dict[str, Any]) -> None:
        """Write arrays and a JSON-able record (floats survive exactly)."""
        if self.path is None:
            return
        start = clock.perf_counter()
        header = json.dumps({"format": FORMAT, "identity": self.identity, "record": record})
        with atomic_path(self.path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, header=np.array(header), **arrays)
        self._last = clock.perf_counter()
        self._cost = self._last - start

    def read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arrays and record of the last checkpoint.

        Raises
        ------
        CannotResumeError
            When the file is damaged, of another version, or belongs to another problem or other options.
        """
        assert self.path is not None
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            header = json.loads(str(arrays.pop("header")))
        except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise CannotResumeError(
                f"checkpoint {self.path} cannot be read ({error}); remove it to start afresh"
            ) from None
        if header.get("format") != FORMAT:
            raise CannotResumeError(
                f"checkpoint {self.path} has format {header.get('format')}, this version reads {FORMAT}"
            )
        if header["identity"] != self.identity:
            theirs, ours = json.loads(header["identity"]), json.loads(self.identity)
            different = sorted(
                f"{part}.{key}"
                for part in ours
                for key in ours[part].keys() | theirs.get(part, {}).keys()
                if ours[part].get(key) != theirs.get(part, {}).get(key)
            )
            raise CannotResumeError(
                f"checkpoint {self.path} belongs to a run with other parameters ({', '.join(different)}); "
                "repeat those, or remove it to start afresh"
            )
        return arrays, header["record"]

    def write_solution(self, solution: Solution) -> None:
        """Write a run that is finished in the place of its checkpoint, so that resuming gives it at once."""
        if self.path is None:
            return
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "solution.h5"
            solution.save(file)
            content = np.frombuffer(file.read_bytes(), dtype=np.uint8)
        self.write({"solution": content}, {"finished": True})

    def read_solution(self) -> Solution | None:
        """The finished run that the checkpoint holds, None where the run is still to go on; errors as `read`."""
        arrays, record = self.read()
        if not record.get("finished"):
            return None
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "solution.h5"
            file.write_bytes(arrays["solution"].tobytes())
            solution = load(file)
        assert isinstance(solution, Solution)
        return solution
