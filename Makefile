# Works on a fresh machine with Python 3.11 or newer, make and a C compiler. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
LOCKS := requirements/roots.txt requirements/dev.txt
ARGS ?=
AREA ?= loop
ROW ?=
OUT ?=

# The address that packages came from is a matter of the machine: the files hold versions and hashes only.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --annotation-style line \
	--no-emit-package certifi --custom-compile-command "make lock"

.PHONY: help install demo test check format lock accept loadtest bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed ## everything into .venv, versions and hashes as locked

$(VENV)/locked: $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo >&2 \
		"error: Expected Python 3.11 or newer, found $$($(PYTHON) --version 2>&1) - at PYTHON=$(PYTHON)"; exit 1; }
	@echo "Installing into $(VENV): about a gigabyte, one to three minutes."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --quiet --requirement requirements/roots.txt
	@$(PIP) install --quiet --require-hashes --requirement requirements/dev.txt
	@touch $@

# A change of a tool's settings in pyproject.toml, or of what is written in C, costs seconds, not a new environment.
$(VENV)/installed: pyproject.toml $(wildcard hatch_build.py features/*.c service/*/*.c) $(VENV)/locked
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## the whole loop: import, train, serve, learn, swap (ARGS=--once, ARGS="--data PATH")
	$(BIN)/nextbest demo $(ARGS)

# In the order of the folders: what takes long begins first. Three at once on two cores: two had work for three quarters of the time.
# Threads that wait for each other sleep, and what was compiled is kept for all processes that tests start.
test: install ## all tests
	PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: install ## format, lint, types, arrows; changes nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## put the code into its form
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

accept: install ## what the project must show, measured (AREA=loop, ROW=2,4, OUT=table.md)
	@AREA=$(AREA) ROW=$(ROW) OUT=$(OUT) $(BIN)/python -m tests.acceptance $(AREA)

loadtest: install ## customers as they come, beside loadtests/budget.toml (ARGS="steady burst")
	@$(BIN)/python -m loadtests.run $(ARGS)

bench: install ## ours beside the peers; writes docs/performance.md: eight minutes
	@$(BIN)/python -m loadtests.bench $(ARGS)

lock: install ## resolve requirements/ again, from pyproject.toml: all together first, so that the three agree
	$(PIP) install --quiet uv
	$(COMPILE) --upgrade pyproject.toml --extra training --extra tracing --extra mlflow --extra tuning --extra cluster --group tests --group load --group build --output-file requirements/dev.txt
	$(COMPILE) pyproject.toml --extra training --extra tracing --constraint requirements/dev.txt --output-file requirements/training.txt
	$(COMPILE) pyproject.toml --extra tracing --constraint requirements/dev.txt --output-file requirements/serving.txt

clean: ## remove what make made; keeps .nextbest
	rm -rf $(VENV) build features/*.so service/*/*.so .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
