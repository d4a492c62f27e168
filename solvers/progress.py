"""A progress bar for ``solve(..., progress=True)``: logarithmic in time, as the dynamics is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from solvers.base import Progress, ProgressCallback


@contextmanager
def bar() -> Iterator[ProgressCallback]:
    """A callback that moves a bar from the first row to the final time."""
    from tqdm import tqdm

    with tqdm(total=1.0, bar_format="{l_bar}{bar}| {postfix} [{elapsed}<{remaining}]", leave=False) as display:
        first: list[float] = []

        def show(state: Progress) -> None:
            if not first:
                first.append(0.5 * state.time)
            done = math.log(state.time / first[0]) / math.log(state.t_final / first[0])
            display.set_postfix_str(f"t = {state.time:.3g}, step {state.step:.2g}, {state.rows} rows", refresh=False)
            display.update(max(0.0, done - display.n))

        yield show
