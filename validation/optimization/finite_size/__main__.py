"""The study at finite d and m: ``python -m validation.optimization.finite_size --out DIR [--page FILE.md]``.

Finished replicas are kept in DIR, which gets ``finite_size.json`` (plain data, see `FiniteSize`) and
``finite_size.png``; with ``--page`` the table of that page is written anew.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dmft.files import atomic_write
from validation.optimization.finite_size.plots import plot
from validation.optimization.finite_size.replicas import run
from validation.optimization.finite_size.tables import TABLE, markdown
from validation.optimization.tables import check_page, replace_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write numbers and figure; 1 if a replica is missing at the end."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.optimization.finite_size", description=(__doc__ or "").split("``")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("out/finite_size"), help="directory (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="page whose table is written anew")
    options = parser.parse_args(arguments)
    if options.page is not None:
        try:
            check_page(options.page, TABLE)
        except ValueError as error:
            parser.error(str(error))
    began = time.perf_counter()

    def progress(done: int, total: int, key: str) -> None:
        print(f"{time.perf_counter() - began:7.1f} s  {done}/{total}  {key}", flush=True)

    found, complete = run(options.out, workers=options.workers, progress=progress)
    found.to_json(options.out / "finite_size.json")
    print(markdown(found))
    if options.page is not None and complete and not found.failures:
        page = options.page.read_text(encoding="utf-8")
        atomic_write(options.page, replace_table(page, TABLE, markdown(found)).encode())
    if any(found.curves.values()):
        plot(found, options.out / "finite_size.png")
    for key, why in found.failures.items():
        print(f"failed: {key}: {why}")
    if not complete:
        print("interrupted; call again to go on.")
    return 0 if complete and not found.failures else 1


if __name__ == "__main__":
    sys.exit(main())
