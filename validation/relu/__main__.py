"""Every ready configuration of ``dmft relu``, or those named: ``python -m validation.relu --out out/relu [NAME ...]``.

What is finished in the directory is taken over, so an interrupted call goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dmft import config as ready
from validation.relu import config, study


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them; 1 if a run is missing at the end."""
    parser = argparse.ArgumentParser(prog="python -m validation.relu", description=__doc__)
    known = ready.ready_names("relu")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--out", type=Path, default=Path("out/relu"), help="directory (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in known:
            parser.error(f"no configuration {name!r}; there are {', '.join(known)}")
    missing = 0
    for name in options.names or known:
        began = time.perf_counter()
        directory = options.out / name
        directory.mkdir(parents=True, exist_ok=True)
        found = study.run(config.read(name), directory, workers=options.workers)
        print(f"{name}: {time.perf_counter() - began:.1f} s\n{found}\n", flush=True)
        missing += found.result.missing + len(found.failures)
        if found.result.interrupted:
            break
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
