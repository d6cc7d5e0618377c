# One command each: `make train` (the whole path on simulated data), `make test` (what CI runs).
# Needs python3 >= 3.11 with venv, and make. Everything installed goes into .venv.

PYTHON ?= python3

.DEFAULT_GOAL := test
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
EXAMPLE := build/example

.PHONY: train test check test-slow clean setup

setup: $(STAMP)

# The stamp is removed first and written last: without it the environment is built anew, so an
# interrupted set-up never passes for a finished one. The build backend is installed from the pins
# too, hence --no-build-isolation.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "$(PYTHON) is missing or older than 3.11 ($$($(PYTHON) --version 2>&1)); pgti needs Python 3.11 or newer: run make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@echo "setting up $(VENV)"
	@if [ -e $@ ]; then rm -f $@; else $(PYTHON) -m venv --clear $(VENV); fi
	@$(PIP) install -c constraints.txt hatchling editables
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

train: $(STAMP)
	rm -rf $(EXAMPLE)
	mkdir -p $(EXAMPLE)
	$(BIN)/pgti simulate --sensors 64 --steps 8064 --seed 1 --out $(EXAMPLE)/store
	$(BIN)/pgti train $(EXAMPLE)/store --config configs/example.toml --run $(EXAMPLE)/run
	$(BIN)/pgti evaluate $(EXAMPLE)/run
	$(BIN)/pgti predict $(EXAMPLE)/run --out $(EXAMPLE)/forecast.csv

check: $(STAMP)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/pytest

test-slow: $(STAMP)
	$(BIN)/pytest -m slow

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
