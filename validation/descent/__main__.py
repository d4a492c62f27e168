"""Everything measured of discrete optimisers: ``python -m validation.descent [PART ...] --out out/descent``.

What is finished in the directory is taken over, so an interrupted call goes on. Writes the tables and the figures of
docs/optimizers.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from validation.descent import edge, edge_plots, networks, simulated, study, study_plots
from validation.pages import replace_section

PARTS: dict[str, tuple[Callable[..., Any], Callable[..., object], Callable[..., str]]] = {
    "simulated": (simulated.run, simulated.plot, simulated.markdown),
    "networks": (networks.run, networks.plot, networks.markdown),
    "edge": (edge.run, edge_plots.plot, edge.markdown),
    "study": (study.run, study_plots.plot, study.markdown),
}
"""What runs (directory, workers, tell), draws (found, path) and tells (found) each part."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m validation.descent", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all when left out")
    parser.add_argument("--out", type=Path, default=Path("out/descent"), help="directory (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where optimizers.md is (default: %(default)s)")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    try:
        for part in options.parts or PARTS:
            began = time.perf_counter()
            picture = options.docs / "figures" / f"optimizers_{part}.png"
            run, plot, markdown = PARTS[part]
            found = run(options.out / part, options.workers, _tell)
            plot(found, picture)
            text = markdown(found)
            print(text)
            replace_section(options.docs / "optimizers.md", part, text)
            print(f"{part}: {time.perf_counter() - began:.0f} s", flush=True)
    except KeyboardInterrupt:
        print(f"interrupted; finished runs are kept in {options.out}", file=sys.stderr)
        return 1
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
