"""The study of d -> infinity: ``python -m validation.optimization --out DIR [--workers N] [--page FILE.md]``.

Finished runs are kept in the directory, which gets the numbers (JSON) and the figures (PNG); with ``--page`` the tables
of that page are written anew, except the one of networks of finite size (`validation.optimization.finite_size`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dmft.files import atomic_write
from validation.comparison.words import rounded
from validation.optimization import plots, study, tables


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write numbers and figures; 1 if a run is missing at the end."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.optimization", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("out/optimization"), help="directory (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="page whose tables are written anew")
    options = parser.parse_args(arguments)
    if options.page is not None:
        try:
            tables.check_page(options.page)
        except ValueError as error:
            parser.error(str(error))
    began = time.perf_counter()

    def progress(done: int, total: int, key: str) -> None:
        print(f"{time.perf_counter() - began:7.1f} s  {done}/{total}  {key}", flush=True)

    found = study.run(options.out, workers=options.workers, progress=progress)
    if found.interrupted:
        print("interrupted; call again to go on.")
        return 1
    summary = found.summary()
    text = json.dumps(rounded(summary, 8), indent=1)
    atomic_write(options.out / "optimization.json", (text + "\n").encode())
    for path in plots.all_figures(found, options.out):
        print(path)
    if options.page is not None:
        atomic_write(options.page, tables.fill(options.page.read_text(encoding="utf-8"), summary).encode())
    for key, why in found.failures.items():
        print(f"failed: {key}: {why}")
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
