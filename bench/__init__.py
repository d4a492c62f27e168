"""Benchmarks: how fast, how accurate, against what. ``python -m bench`` runs them and rewrites docs/performance.md."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


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
        raise ValueError(f"{page} has no section {begin} ... {end}.")
    head, rest = old.split(begin)
    tail = rest.split(end)[1]
    temporary = page.with_suffix(".tmp")
    temporary.write_text(f"{head}{begin}\n{text.strip()}\n{end}{tail}", encoding="utf-8")
    temporary.replace(page)
