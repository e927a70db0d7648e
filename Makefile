# `make quickstart` and `make test` set everything up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Two processes; the tests of one file run in the same one, since they share fixtures.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: help quickstart test test-slow nightly lint data docs lock clean

help:
	@echo "make quickstart  set up, search on embedded images, export a network (minutes)"
	@echo "make test        set up, then linters, strict types, import contract and tests"
	@echo "make test-slow   the tests that 'make test' leaves out: whole studies, long benchmarks"
	@echo "make data        fetch Fashion-MNIST"
	@echo "make nightly     all tests and the benchmarks of experiments/"
	@echo "make docs        write the documentation's site to build/docs"
	@echo "make lock        renew requirements.lock from pyproject.toml"
	@echo "make clean       delete the environment; studies in runs/ stay"

$(INSTALLED): requirements.lock pyproject.toml
	@echo ">> creating $(VENV) from requirements.lock (some minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || \
	  { echo "venv is missing: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(INSTALLED)

quickstart: $(INSTALLED)
	@echo ">> searching: runs/quickstart; exporting the front's knee: out/quickstart"
	$(BIN)/nas quickstart

lint: $(INSTALLED)
	@echo ">> ruff, mypy --strict, import-linter"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	@echo ">> tests"
	$(PYTEST) -m "not slow"

test-slow: $(INSTALLED)
	@echo ">> slow tests"
	$(PYTEST) -m slow

nightly: test test-slow
	@for run in experiments/*/run.py; do echo ">> $$run"; $(BIN)/python $$run || exit 1; done

data: $(INSTALLED)
	@echo ">> looking for Fashion-MNIST, downloading it if it is not here"
	$(BIN)/nas fetch fashion_mnist || { command -v apt-get >/dev/null && \
	  echo ">> trying Debian's package" && apt-get update -qq && \
	  apt-get install -y -qq dataset-fashion-mnist && $(BIN)/nas fetch fashion_mnist; }

docs: $(INSTALLED)
	@echo ">> the documentation's site: build/docs/docs/index.html"
	$(BIN)/sphinx-build -q -W --keep-going -c docs . build/docs

lock:
	@echo ">> resolving pyproject.toml anew in a fresh environment"
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/python -m pip install --quiet torch==2.13.0
	build/lock/bin/python -m pip install --quiet -e ".[dev]"
	@{ echo "# Made by 'make lock'. Exact versions; torch without a local part, so that every"; \
	   echo "# platform finds its build."; \
	   build/lock/bin/python -m pip freeze --exclude-editable | sed 's/^\(torch==[0-9.]*\)+.*/\1/'; \
	 } > requirements.lock

clean:
	rm -rf $(VENV) build dist
