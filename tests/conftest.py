"""Settings shared by all tests; they must act before Numba or matplotlib is imported."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _numba_cache() -> Path:
    """Cache directory named after the compiled sources.

    Numba looks only at the file of the compiled function: after a change of a helper in another file it would
    run the old machine code, and the tests would judge a program that no longer exists.
    """
    digest = hashlib.sha256()
    for package in ("dmft", "solvers", "validation"):
        for path in sorted((ROOT / package).rglob("*.py")):
            source = path.read_bytes()
            if b"numba" in source:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + source)
    return ROOT / ".pytest_cache" / "numba" / digest.hexdigest()[:16]


# A shell that starts the tests in the background has SIGINT ignored, and all they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("NUMBA_CACHE_DIR", str(_numba_cache()))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # An explicit -m wins: `pytest -m slow` runs the slow tests alone.
    if config.getoption("--slow") or config.getoption("-m"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow or `make test-slow`")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the source tree."""
    return ROOT
