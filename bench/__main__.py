"""``python -m bench``: the speed table, its page and its figure. Accuracy is ``python -m bench.accuracy``."""

from bench.speed import main

if __name__ == "__main__":
    raise SystemExit(main())
