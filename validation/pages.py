"""The page of theory figures, docs/gallery.md, from what `make figures` has left in its directory.

``python -m validation.pages`` takes the picture and the numbers of every configuration with a ``[figure]`` table: no
number on the page is typed by hand.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmft import config as configuration
from dmft.files import atomic_path, atomic_write

WIDTH = 1100
"""Pixels of a picture on the page."""
HEAD = """# Gallery: the theory figures of [MU]

Every setting of the theory figures 2-5 and 8-33 of A. Montanari and P. Urbani, arXiv:2502.21269, as one configuration
and one command, `make figures NAMES=mu_fig18` (finished runs are reused). Widths go to 16384. Panels are organised by
window of time and quantity; they are not copies of the printed ones. Colours are widths or n/d, dashed black lines are
large-width limits ([limits.md](limits.md)) or runs at fixed γ. Numbers are written by the run that drew the figure, and
this page by `python -m validation.pages`.
"""


def replace_section(page: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- name:begin -->`` and ``<!-- name:end -->`` in a page.

    Raises
    ------
    ValueError
        If the page has no such section.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    old = page.read_text(encoding="utf-8")
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise ValueError(f"{page} has no section {begin} ... {end}")
    head, rest = old.split(begin)
    atomic_write(page, f"{head}{begin}\n{text.strip()}\n{end}{rest.split(end)[1]}".encode())


def page(directory: Path, pictures: Path) -> str:
    """The text of the page; pictures go to ``pictures``, reduced in size.

    Raises
    ------
    FileNotFoundError
        When a figure has not been made yet.
    """
    sections = [HEAD]
    for name in configuration.ready_names():
        figure = configuration.read(name).figure
        if figure is None:
            continue
        record = json.loads((directory / f"{name}.json").read_text())
        _reduce(directory / f"{name}.png", pictures / f"{name}.png")
        numbers = record["paper"]
        title = f"Figure{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}" if numbers else "At fixed n/d"
        sections.append(f"## {title}: `{name}`\n\n![{name}](figures/{name}.png)\n\n{figure.reading}\n")
        rows = [f"- {one['name']}: {_found(one['found'])}. [MU]: {one['stated']}." for one in record["numbers"]]
        if rows:
            sections.append("\n".join(rows) + "\n")
        ended = [m["name"] for m in record["members"] if m["status"] != "done"]
        if ended:
            sections.append(f"Ended early, drawn as far as they go: {', '.join(ended)}.\n")
        sections.append(f"{record['seconds']:.0f} s.\n")
    return "\n".join(sections)


def _found(values: dict[str, Any]) -> str:
    if not values:
        return "not found in this figure"
    parts = []
    for name, value in values.items():
        text = f"{value[0]:.4g} [{value[1]:.4g}, {value[2]:.4g}]" if isinstance(value, list) else f"{value:.4g}"
        parts.append(f"{text} ({name})")
    return ", ".join(parts)


def _reduce(source: Path, target: Path) -> None:
    """A palette picture of the page's width: line drawings lose nothing visible."""
    from PIL import Image

    with Image.open(source) as picture:
        height = round(picture.height * WIDTH / picture.width)
        small = picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
        with atomic_path(target) as temporary:
            small.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
                temporary, format="png", optimize=True
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m validation.pages", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/figures"), help="where the figures are")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page goes")
    options = parser.parse_args(arguments)
    try:
        text = page(options.out, options.docs / "figures")
    except FileNotFoundError as error:
        parser.error(f"{error.filename} is missing; make it with `make figures NAMES={Path(error.filename).stem}`")
    atomic_write(options.docs / "gallery.md", text.encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
