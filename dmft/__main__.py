"""``python -m dmft`` is the command ``dmft``."""

from __future__ import annotations

import sys

from dmft.cli import main

if __name__ == "__main__":
    sys.exit(main())
