# One word a job; each sets itself up. The environment is .venv, made again when pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
COMPILED := PYTHONPATH=$(CURDIR)/.compiled

.PHONY: help setup demo test check compiled test-compiled bench bench-full format clients clean

help:  ## what can be made (this list)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/made  ## .venv with the servers and all tools

demo: setup  ## run the chat at http://127.0.0.1:3014/ until Ctrl-C
	@echo 'Once it says ready, open http://127.0.0.1:3014/ in two windows. Ctrl-C ends it.' >&2
	@exec $(BIN)/pummelo run examples/chat/servers.yaml $(ARGS)

test: setup  ## all tests; some of them: make test ARGS='-k chat'
	$(BIN)/pytest $(ARGS)

check: setup  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

compiled: .compiled/made  ## .compiled: the packages as `pip install .` makes them, compiled (a minute; a C compiler)

test-compiled: compiled  ## the tests without Ray, and some with it, on the compiled packages
	@$(COMPILED) $(BIN)/pummelo --version | grep '(compiled)'
	$(COMPILED) $(BIN)/pytest -m 'not real' $(ARGS)
	$(COMPILED) $(BIN)/pytest tests/test_real_order.py tests/test_real_sessions.py tests/test_real_errors.py $(ARGS)

bench: compiled  ## load on pummelo and on pomelo side by side (3 minutes; a C compiler, and Node for pomelo)
	$(COMPILED) $(BIN)/python benchmarks/bench.py $(ARGS)

bench-full: compiled  ## the same and what has no peer to compare with, medians of 5 (an hour)
	$(COMPILED) $(BIN)/python benchmarks/bench.py --rounds 5 --seconds 5 $(ARGS)
	$(COMPILED) $(BIN)/python benchmarks/experiments.py --rounds 5

format: setup  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clients: tests/browser/node_modules/made  ## what the tests with pomelo's npm client and a browser need

clean:  ## remove what was made
	rm -rf $(VENV) .compiled tests/browser/node_modules .hypothesis .mypy_cache .pytest_cache .ruff_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/made: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	PUMMELO_COMPILE=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.compiled/made: $(VENV)/made hatch_build.py $(wildcard actors/*.py gateway/*.py handlers/*.py)
	rm -rf .compiled
	PUMMELO_COMPILE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .compiled .
	@touch $@

tests/browser/node_modules/made: tests/browser/package.json
	@if command -v npm >/dev/null; \
	then cd tests/browser && npm install --ignore-scripts --no-audit --no-fund && touch node_modules/made; \
	else echo 'There is no npm: the tests with these clients will be skipped.' >&2; \
	fi
