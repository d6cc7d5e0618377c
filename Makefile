# `make train` runs the whole path on simulated data, `make test` what CI runs. They need python3 >=
# 3.11 with venv, and make. Everything is installed into .venv, except PyTorch Geometric Temporal as
# the benchmarks compare with it: `make bench-pgt` installs that into .venv-pgt.

PYTHON ?= python3

.DEFAULT_GOAL := test
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
EXAMPLE := build/example

.PHONY: train test check pytest fuzz test-slow docs dist test-dist clean setup bench-pgt bench-step bench-loader bench-memory \
	bench-epoch bench-scaling bench-equivalence gpu-check

setup: $(STAMP)

# The stamp is removed first and written last, and without it the environment is built again, so that
# an interrupted set-up is never mistaken for a complete one. --no-build-isolation installs the build
# backend from the pins too. --no-deps leaves out the compiled packages that PyTorch Geometric
# Temporal requires but the wrapped layers do not use; the extra `pgt` has those that they do.
# compileall uses every core, pip only one; both skip files for other versions of Python.
$(STAMP): pyproject.toml benchmarks/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "$(PYTHON) is missing or older than 3.11 ($$($(PYTHON) --version 2>&1)); pgti needs Python 3.11 or newer: run make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@echo "setting up $(VENV)"
	@if [ -e $@ ]; then rm -f $@; else $(PYTHON) -m venv --clear $(VENV); fi
	@$(PIP) install --no-compile -c constraints.txt hatchling editables
	@$(PIP) install --no-compile -c constraints.txt --no-build-isolation -e '.[dev]' \
		-e 'benchmarks[plot,dask]'
	@$(PIP) install --no-compile -c constraints.txt --no-deps torch-geometric-temporal
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

# --no-deps leaves out compiled packages that nothing measured here uses.
PGT_VENV := .venv-pgt
PGT_STAMP := $(PGT_VENV)/.installed
PGT_PIP := $(PGT_VENV)/bin/python -m pip --disable-pip-version-check --quiet --quiet

bench-pgt: $(PGT_STAMP)

$(PGT_STAMP): constraints-pgt.txt
	@echo "setting up $(PGT_VENV)"
	@if [ -e $@ ]; then rm -f $@; else $(PYTHON) -m venv --clear $(PGT_VENV); fi
	@$(PGT_PIP) install -c constraints-pgt.txt torch numpy torch-geometric dask requests tqdm
	@$(PGT_PIP) install -c constraints-pgt.txt --no-deps torch-geometric-temporal
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
	$(BIN)/lint-imports --config benchmarks/pyproject.toml

test: $(STAMP)
	@$(MAKE) --no-print-directory -j 2 check pytest

# Two workers of one thread each: tests often wait for processes that they start.
pytest: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

# Damaged inputs of every reader, from a fresh seed; those that break a promise stay in build/fuzz.
# ARGS='--reader parquet --seed 7' chooses, ARGS='--replay build/fuzz/*' runs kept ones again.
SECONDS ?= 3600

fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tests.fuzz $(SECONDS) $(ARGS)

test-slow: $(STAMP)
	$(BIN)/pytest -m slow

# The documentation site, into build/site. Serve it with `python -m http.server -d build/site`, or open
# build/site/index.html.
docs: $(STAMP)
	$(BIN)/python docs/stage.py build/pages
	$(BIN)/python docs/build_tutorials.py --out build/pages/tutorials
	$(BIN)/zensical build --clean --strict

# The sdist, and the wheel that is built from it, in dist/. `make test-dist` installs the wheel into an
# empty environment and uses it there.
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

test-dist: dist
	$(BIN)/pytest -m slow tests/test_packaging.py

# Benchmarks. ARGS adds options: make bench-step ARGS='--model dcrnn --rounds 3'. bench-epoch and
# bench-equivalence measure STORE, by default a simulated one.
BENCH := $(BIN)/pgti-bench
BENCH_STORE := build/bench/store
STORE ?= $(BENCH_STORE)

bench-step bench-loader bench-scaling: bench-%: $(STAMP)
	$(BENCH) $* $(ARGS)

bench-epoch bench-equivalence: bench-%: $(STAMP) $(STORE)
	$(BENCH) $* $(STORE) $(ARGS)

# Correctness and speed on one GPU, in under 8 minutes, into build/gpu-check: a table and JSON. It needs
# nothing that `make setup` has not installed, and no network. ARGS=--rehearse runs it on the CPU.
gpu-check: $(STAMP)
	$(BENCH) gpu-check $(ARGS)

$(BENCH_STORE): | $(STAMP)
	mkdir -p $(@D)
	$(BIN)/pgti simulate --sensors 207 --steps 4032 --seed 1 --out $@

# Constant memory: a year of all California and ten years of it (a sparse file), each command within
# 2 GiB, page cache included. The stores stay in build/bench-memory for later runs. The graph is
# simulated unless PEMS_GRAPH names a file with a graph of 11,160 sensors.
PEMS_GRAPH ?=

bench-memory: $(STAMP)
	$(BENCH) memory --datasets pems,pems-ten-years --measure all --batching index \
		--limit 2GiB --workdir build/bench-memory $(if $(PEMS_GRAPH),--graph $(PEMS_GRAPH)) $(ARGS)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
