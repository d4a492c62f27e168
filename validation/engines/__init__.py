"""Do two ways of solving the same equations agree, and what do they cost? The tables of docs/engines.md.

`settings` lists the problems, `runs` solves them and keeps what is finished, `table` and `cost` put together what came
out. ``python -m validation.engines`` does all of it.
"""

from validation.engines.runs import Run, run_all
from validation.engines.settings import SETTINGS, Setting

__all__ = ["SETTINGS", "Run", "Setting", "run_all"]
