"""The independent Euler reference of ``bench/euler.py``, importable from the tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_NAME = "bench_euler"
_PATH = Path(__file__).resolve().parent.parent / "bench" / "euler.py"

if _NAME not in sys.modules:
    _spec = importlib.util.spec_from_file_location(_NAME, _PATH)
    assert _spec is not None and _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules[_NAME] = _module  # dataclasses look their module up by name
    _spec.loader.exec_module(_module)

euler = sys.modules[_NAME].euler
richardson = sys.modules[_NAME].richardson
EulerCurves = sys.modules[_NAME].EulerCurves
Extrapolated = sys.modules[_NAME].Extrapolated
