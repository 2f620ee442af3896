# The two commands of a newcomer are `make demo` and `make test`; the rest is for people who
# work on the code. Everything is installed into .venv from the pinned lists in lock/.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for servers rather than compute, so a few more jobs than cores.
JOBS ?= 3
FAULT_JOBS ?= 2
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE_EXTRAS ?= kafka,mongo
EXTRAS := kafka,mongo,parquet,prophet,dev
LOCK_FLAGS := -q --strip-extras --no-emit-index-url --no-emit-find-links \
  --no-emit-trusted-host --no-header --no-annotate

.PHONY: demo test test-faults test-containers image bench check format servers lock clean

demo: $(VENV)/.demo
	exec $(BIN)/matchday up --demo

test: $(VENV)/.all servers
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

# Kills, outages and hostile input while readings flow. A campaign that fails prints the command
# that repeats it; FAULT_ROUNDS=2 and more makes campaigns longer and outages last two minutes.
test-faults: $(VENV)/.all servers
	$(BIN)/python -m pytest -n $(FAULT_JOBS) --maxschedchunk 1 $(or $(ARGS),tests/faults)

# On a real container engine, started and stopped again where there is none and the machine
# allows it (root on Debian); skipped with the reason where there can be none.
test-containers: $(VENV)/.all servers
	MATCHDAY_TEST_ENGINE=start $(BIN)/python -m pytest $(or $(ARGS),tests/containers)

# One image for all services; EXTRAS of the image are set by IMAGE_EXTRAS.
image:
	docker build -f deploy/Dockerfile -t matchday:$(VERSION) \
	  --build-arg VERSION=$(VERSION) --build-arg EXTRAS=$(IMAGE_EXTRAS) \
	  --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) .

# Every benchmark in a short form, and one report of them in bench-report/; ARGS=--full,
# ARGS="--only hop1".
bench: $(VENV)/.all servers
	$(BIN)/python benchmarks/peers/install.py
	$(BIN)/python benchmarks/all.py $(ARGS)

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
	.venv-lock/bin/pip-compile $(LOCK_FLAGS) --build-deps-for wheel --only-build-deps \
	  --output-file lock/build.txt pyproject.toml
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
