"""Ctrl-C between two rows, where a run is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from solvers.base import Progress, ProgressCallback


@contextmanager
def deferred(callback: ProgressCallback | None) -> Iterator[ProgressCallback]:
    """What an engine calls after every row, which also raises there the KeyboardInterrupt of a SIGINT that came before.

    A second SIGINT is raised at once, wherever the run is. Only Python's own handler is replaced, in the main thread;
    who has another one, as the command line does, decides for himself.

    Parameters
    ----------
    callback : callable or None
        Called with a `Progress`, after the check.

    Raises
    ------
    KeyboardInterrupt
        At the end, when a SIGINT came that no row was left for.
    """
    pending = False

    def on_signal(number: int, frame: object) -> None:
        nonlocal pending
        if pending:
            raise KeyboardInterrupt
        pending = True

    def check() -> None:
        nonlocal pending
        if pending:
            pending = False
            raise KeyboardInterrupt

    def after_row(progress: Progress) -> None:
        check()
        if callback is not None:
            callback(progress)

    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours:
        yield after_row
        return
    signal.signal(signal.SIGINT, on_signal)
    try:
        yield after_row
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    check()
