# The ways into this repository. `make` alone lists them; ARGS="..." is handed on to the command that runs.

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow lint types imports docs bench clean
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
ARGS ?=
# asked before the recipe runs, so that a missing Python is one line and not a failed command
PROBLEM = $(shell PYTHON="$(PYTHON)" .ci/venv --problem)
BENCHMARKS = $(filter-out benchmarks/demo.py benchmarks/mini.py benchmarks/_%.py,$(wildcard benchmarks/*.py))

export MPLBACKEND ?= agg
# Two processes of one thread each are enough for the tests, and leave room for others on a shared machine.
WORKERS ?= 2
# Percent of the lines of src/ that `make test` has to reach. Python's own monitoring (3.12 and later) costs next to nothing.
LEAST_COVERED ?= 90
test: export COVERAGE_CORE ?= sysmon
test test-slow imports: export OMP_NUM_THREADS ?= 1
test test-slow imports: export NUMBA_NUM_THREADS ?= 1

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

venv: ## make .venv and install all that development needs (nothing to do when it is up to date)
	$(if $(PROBLEM),$(error $(PROBLEM)))
	@PYTHON="$(PYTHON)" .ci/venv dev

demo: venv ## a first look at the package on real cells
	$(PY) benchmarks/demo.py $(ARGS)

test: venv ## run the tests, without the slow ones, and show how many lines they reach; with ARGS some of them, and no lines
ifeq ($(strip $(ARGS)),)
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest -n $(WORKERS) --dist loadfile
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report --skip-covered --sort=cover --fail-under=$(LEAST_COVERED)
else
	$(PY) -m pytest -n $(WORKERS) --dist loadfile $(ARGS)
endif

test-slow: venv ## run the slow tests
	$(PY) -m pytest -n $(WORKERS) --dist loadfile -m "slow and not gpu" $(ARGS)

lint: venv ## check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: venv ## check types
	$(PY) -m mypy $(ARGS)

imports: venv ## check that rooms import only from the floors below them
	$(PY) -m pytest tests/test_import_rules.py $(ARGS)

docs: venv ## build the documentation into docs/_build; DOCS_OFFLINE=1 builds it without a network
	@PYTHON="$(PYTHON)" .ci/venv doc
	$(PY) -m sphinx -M html docs docs/_build -q -W --keep-going $(ARGS)
	@echo "built docs/_build/html/index.html"

bench: venv ## run every benchmark, quickly unless ARGS says otherwise
	@for script in $(BENCHMARKS); do \
		echo "== $$script" && $(PY) $$script $(or $(ARGS),--quick) || exit 1; \
	done

clean: ## remove caches and build products, not .venv
	rm -rf build dist htmlcov docs/_build docs/generated docs/notebooks .coverage .coverage.* coverage.xml
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
