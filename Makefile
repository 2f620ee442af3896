# The two commands of a newcomer are `make demo` and `make test`; the rest is for people who
# work on the code. Everything is installed into .venv from the pinned lists in lock/.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for servers rather than compute, so a few more jobs than cores.
JOBS ?= 3
EXTRAS := kafka,mongo,parquet,prophet,dev
LOCK_FLAGS := -q --strip-extras --no-emit-index-url --no-emit-find-links \
  --no-emit-trusted-host --no-header --no-annotate

.PHONY: demo test bench check format servers lock clean

demo: $(VENV)/.demo
	exec $(BIN)/matchday up --demo

test: $(VENV)/.all servers
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

bench: $(VENV)/.all servers
	$(BIN)/python benchmarks/hop1.py
	$(BIN)/python benchmarks/hop2.py
	$(BIN)/python benchmarks/end_to_end.py

check: $(VENV)/.all
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.all
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

servers: $(VENV)/.all
	PYTHONPATH=tests:src $(BIN)/python -m servers.install

# Pins every package that the demo and the tests need, from the ranges in pyproject.toml.
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q pip-tools
	.venv-lock/bin/pip-compile $(LOCK_FLAGS) --output-file lock/demo.txt pyproject.toml
	.venv-lock/bin/pip-compile $(LOCK_FLAGS) --extra $(EXTRAS) --output-file lock/all.txt pyproject.toml
	rm -rf .venv-lock

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "matchday needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: lock/demo.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -r lock/demo.txt
	$(BIN)/python -m pip install -q --no-deps -e .
	touch $@

$(VENV)/.all: lock/all.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q -r lock/all.txt
	$(BIN)/python -m pip install -q --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) .servers .pytest_cache .mypy_cache .ruff_cache .hypothesis
