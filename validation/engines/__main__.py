"""Both engines on every setting, and what they cost: ``python -m validation.engines [table] [cost] --out out/engines``.

What is finished in the directory is taken over, so an interrupted call goes on. Writes ``engines.json`` and
``cost.json`` there, and the tables and the figure of docs/engines.md. Returns 1 where two runs differ in a way that the
amplification of errors does not explain.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmft.files import atomic_write
from dmft.verification import Verification
from validation.engines import cost, table
from validation.engines.settings import SETTINGS
from validation.pages import replace_section

PARTS = ("table", "cost")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m validation.engines", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; both when left out")
    parser.add_argument("--out", type=Path, default=Path("out/engines"), help="directory (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes for the table")
    parser.add_argument("--rtol", type=float, default=table.RTOL, help="of the table (default: %(default)s)")
    parser.add_argument("--only", metavar="WORD", default="", help="only settings whose name has this; docs stay")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where engines.md is (default: %(default)s)")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    chosen = [setting for setting in SETTINGS if options.only in setting.name]
    if not chosen:
        parser.error(f"no setting has {options.only!r} in its name")
    parts = options.parts or PARTS
    page = options.docs / "engines.md"
    sound = True
    began = time.perf_counter()
    try:
        if "table" in parts:
            found = table.records(chosen, options.out, options.workers, _tell, options.rtol)
            text = table.markdown(found)
            _json(options.out / "engines.json", found)
            print(text)
            checks = [Verification.from_dict(record["verification"]) for record in found]
            sound = all(check.agrees or check.explained for check in checks)
            if not options.only:
                replace_section(page, "engines", text)
        if "cost" in parts and not options.only:
            lines = cost.measure(options.out / "cost", _tell)
            text = cost.markdown(lines)
            print(text)
            _json(options.out / "cost.json", [_plain(line) for line in lines])
            cost.plot(lines, options.docs / "figures" / "engines_cost.png")
            replace_section(page, "cost", text)
    except KeyboardInterrupt:
        print(f"interrupted; finished runs are kept in {options.out}", file=sys.stderr)
        return 1
    print(f"{time.perf_counter() - began:.0f} s")
    return 0 if sound else 1


def _tell(line: str) -> None:
    print(line, flush=True)


def _plain(line: cost.Line) -> dict[str, Any]:
    return {
        "against": line.series.against,
        "what": line.series.what,
        "method": line.method,
        "x": line.x.tolist(),
        "seconds": line.seconds.tolist(),
        "load": line.load,
        "exponent": line.exponent if math.isfinite(line.exponent) else None,
        "error": line.error if math.isfinite(line.error) else None,
    }


def _json(path: Path, data: Any) -> None:
    atomic_write(path, (json.dumps(data, indent=1) + "\n").encode())


if __name__ == "__main__":
    raise SystemExit(main())
