"""Benchmarks: how fast, how accurate, against what. ``python -m bench`` runs them and rewrites docs/performance.md."""

from __future__ import annotations

from pathlib import Path

from validation.pages import replace_section

__all__ = ["DOCS", "ROOT", "replace_section"]

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
