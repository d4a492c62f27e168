# Everything sets itself up: a missing .venv is made with the first Python >= 3.11 found (or PYTHON=...), and the
# package is installed again only when its metadata change.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SUPPORTED := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3.14 python3 python,\
    $(shell $(name) -c "$(SUPPORTED)" >/dev/null 2>&1 && echo $(name))))
PYTEST_FLAGS ?=
METADATA := setup.cfg pyproject.toml

.DELETE_ON_ERROR:
.PHONY: help demo test test-slow bench figures lint clean

help:
	@echo "make demo       solve the embedded example: out/demo/ gets HDF5, CSV and PNG"
	@echo "make test       the quick test suite"
	@echo "make test-slow  the long checks"
	@echo "make bench      the benchmarks: time, memory, accuracy"
	@echo "make figures    solve, simulate, compare and draw every ready configuration: out/figures/; goes on where it"
	@echo "                stopped; NAMES=\"mu_fig0 agree\" takes those whose names begin so"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make clean      remove everything that make has made, .venv included"

demo: $(VENV)/installed
	$(BIN)/dmft demo --out out/demo

test: $(VENV)/installed-test
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow $(PYTEST_FLAGS)

bench: $(VENV)/installed-test
	$(BIN)/python -m bench
	$(BIN)/python -m bench.simulation

figures: $(VENV)/installed
	$(BIN)/python -m validation.gallery --out out/figures $(NAMES)
	$(if $(NAMES),,$(BIN)/python -m validation.predictions --out out/figures)
	$(if $(NAMES),,$(BIN)/python -m validation.relu --out out/relu)

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find dmft solvers validation tests bench -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 with venv and pip was found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(METADATA) | $(BIN)/python
	$(PIP) install --editable .
	touch $@

$(VENV)/installed-test: $(METADATA) | $(BIN)/python
	$(PIP) install --editable ".[test]"
	touch $(VENV)/installed $@
