"""How anything here is written: atomic files, described HDF5 datasets, provenance, checksums.

Nothing is ever half-written under its final name: data go to a temporary name in the same directory, are flushed to
the disk, and only then renamed over the old file. HDF5 files are assembled in memory first, so that a full disk is
an ordinary write error and not a failure inside the HDF5 library.

Every array has dimension scales, ``units``, ``long_name`` and ``description``; `dmft.files` and
`dmft.simulation_files` say which arrays there are.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmft.status import Status

if TYPE_CHECKING:
    import h5py

SCHEMA_VERSION = 1

_LIBRARIES = ("numpy", "numba", "scipy", "h5py")
_STALE = 3600.0
"""Seconds after which a temporary file beside ours is taken for the leftover of a killed process."""


class FileFormatError(ValueError):
    """A file that is not a whole, undamaged result of this package's schema version."""


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """Give a temporary name to write to, and make it ``path`` only when the block ends without an error.

    Parameters
    ----------
    path : path
        Final name. A symbolic link is followed. An existing file stays as it is until the rename.

    Yields
    ------
    Path
        Temporary name in the same directory. It is flushed to the disk, renamed, and the rename flushed too; after an
        error it is removed.

    Raises
    ------
    OSError
        When the directory or the disk does not allow it; the old file is then untouched.
    """
    final = Path(os.path.realpath(path))
    with suppress(FileNotFoundError):
        # A device or directory must not be replaced by a file.
        if not stat.S_ISREG(final.stat().st_mode):
            raise OSError(f"{os.fspath(path)} exists and is not a regular file, so it is not overwritten")
    _remove_stale(final)
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.partial{final.suffix}")
    try:
        yield temporary
        _flush(temporary, os.O_RDWR)
        os.replace(temporary, final)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = os.fspath(path), None  # the name that the user knows
        raise
    with suppress(OSError):  # some file systems cannot flush a directory; the file itself is safe
        _flush(final.parent, os.O_RDONLY)


def atomic_write(path: str | PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all; errors as `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(final: Path) -> None:
    """Remove what processes killed while writing this very file have left behind."""
    with suppress(OSError):
        for entry in os.scandir(final.parent):
            mine = entry.name.startswith(f".{final.name}.") and entry.name.endswith(f".partial{final.suffix}")
            if mine and time.time() - entry.stat().st_mtime > _STALE:
                os.unlink(entry.path)


@cache
def _git() -> tuple[str, str]:
    """Commit of the working tree this package is imported from, and whether it has uncommitted changes."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        # An installed copy may lie inside some other repository, which would not track it.
        git("ls-files", "--error-unmatch", here.name)
        return git("rev-parse", "HEAD"), "yes" if git("status", "--porcelain", "--untracked-files=no") else "no"
    except (OSError, subprocess.SubprocessError):
        return "unknown", "unknown"


def made_by_this_version(path: str | PathLike[str]) -> bool:
    """Whether a file was written by the very code that runs now: the same commit, without changes since.

    Where there is no repository the version number decides.
    """
    import dmft

    with opened(path) as file:
        commit, dirty = str(file.attrs.get("git_commit")), str(file.attrs.get("git_dirty"))
        version = str(file.attrs.get("package_version"))
    if version != dmft.__version__:
        return False
    return (commit, dirty) == _git() and dirty != "yes"


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"


def digest(record: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Checksum over everything that is read back; HDF5 itself would not notice a flipped bit."""
    checksum = hashlib.sha256(record.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        checksum.update(f"{name}{array.shape}{array.dtype.str}".encode())
        checksum.update(array.data)
    return checksum.hexdigest()


def image(
    fill: Callable[[h5py.File], None], *, title: str, status: Status, message: str, seed: str, sha256: str
) -> bytes:
    """The bytes of an HDF5 file that ``fill`` writes into, with the provenance of the package as root attributes."""
    import h5py

    import dmft

    commit, dirty = _git()
    # Version 1.8 structures carry checksums of their own, and every HDF5 reader of the last decade knows them.
    with h5py.File("image", "w", driver="core", backing_store=False, libver=("v108", "v110")) as file:
        file.attrs.update(
            {
                "schema_version": SCHEMA_VERSION,
                "title": title,
                "package": "twolayer-dmft",
                "package_version": dmft.__version__,
                "git_commit": commit,
                "git_dirty": dirty,
                "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
                "python_version": platform.python_version(),
                **{f"{library}_version": _version(library) for library in _LIBRARIES},
                "status": status.value,
                "message": message,
                "seed": seed,
                "content_sha256": sha256,
                "NX_class": "NXroot",
                "default": "curves",
            }
        )
        fill(file)
        file.flush()
        return bytes(file.id.get_file_image())


def dataset(group: h5py.Group, name: str, values: Any, long_name: str, description: str) -> h5py.Dataset:
    """A described dataset; arrays with more than one element are chunked and compressed."""
    values = np.asarray(values)
    options = {"chunks": True, "shuffle": True, "compression": "gzip"} if values.size > 1 else {}
    if values.dtype.kind in "OSU":
        import h5py

        options = {"dtype": h5py.string_dtype()}
        values = values.astype(object)
    elif values.ndim == 3:
        # One mode at a time, square blocks: the half above the diagonal of a causal function compresses away.
        options["chunks"] = (1, *(min(256, size) for size in values.shape[1:]))
    created = group.create_dataset(name, data=values, **options)
    created.attrs.update({"units": "1", "long_name": long_name, "description": description})
    return created


def scale(group: h5py.Group, name: str, values: Any, long_name: str, description: str) -> h5py.Dataset:
    """A dataset that is a dimension scale."""
    result = dataset(group, name, values, long_name, description)
    result.make_scale(name)
    return result


def attach(group: h5py.Group, values: h5py.Dataset, dimensions: tuple[str, ...]) -> None:
    """Put a dataset on the scales of its group, one for each axis."""
    for axis, dimension in enumerate(dimensions):
        values.dims[axis].attach_scale(group[dimension])


def scalars(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The scalar leaves of a nested dictionary, names joined by underscores."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            result.update(scalars(value, f"{prefix}{key}_"))
        elif isinstance(value, str | bool | int | float):
            result[f"{prefix}{key}"] = value
    return result


def write_parameters(group: h5py.Group, parameters: Mapping[str, Any], record: str, config_text: str) -> None:
    """One scalar dataset a parameter, the canonical JSON that is read back, and the TOML text."""
    for name, value in scalars(parameters).items():
        # Booleans as integers: the HDF5 enumeration that h5py would write is unknown to netCDF readers.
        plain = int(value) if isinstance(value, bool) else value
        if isinstance(plain, int) and plain.bit_length() > 63:  # seeds may be large; the JSON has them as numbers
            plain = str(plain)
        dataset(group, name, plain, name, f"parameter {name} of the run")
    dataset(group, "canonical_json", record, "canonical JSON", "all parameters, exactly; what the package reads back")
    dataset(group, "config_toml", config_text, "config", "TOML text of the run, empty when run from Python")


@contextmanager
def opened(path: str | PathLike[str]) -> Iterator[h5py.File]:
    """Open a file of this schema version for reading; whatever goes wrong inside is said in one way.

    Raises
    ------
    FileNotFoundError, OSError
        When there is no such file, or it may not be read.
    FileFormatError
        When the file is no HDF5 file, is truncated or damaged, is of another schema version, or holds something else.
    """
    import h5py

    name = os.fspath(path)
    with open(path, "rb"):  # the operating system's own error where there is nothing to read
        pass
    try:
        recognised = h5py.is_hdf5(name)
    except Exception:
        recognised = False
    if not recognised:
        raise FileFormatError(f"{name} is not an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            version = file.attrs.get("schema_version")
            if version is None:
                raise FileFormatError(f"{name} has no schema_version, so it was not written by this package")
            if version != SCHEMA_VERSION:
                raise FileFormatError(
                    f"{name} has schema_version {version}; this version of the package reads {SCHEMA_VERSION}"
                )
            yield file
    except FileFormatError:
        raise
    except Exception as error:
        # h5py reports damage by a dozen exception types; the library's own words are of no use to the reader.
        reason = "is truncated" if "truncated" in str(error) else "is damaged or incomplete"
        raise FileFormatError(f"{name} {reason} and cannot be read as a result ({type(error).__name__})") from error
