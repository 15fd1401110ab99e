# Everything a checkout needs lands in .venv, built from pyproject.toml and left alone until that changes.

# Which Python, 3.11 or newer, .venv is made with: make PYTHON=python3.13 test. By default python3, or where that is an
# older one the newest beside it.
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && exit; done; echo python3)
endif

BIN := .venv/bin
READY := .venv/ready
# What runs the tests; .ci/run gives another one.
PYTEST := $(BIN)/pytest
BENCH := .venv/bench
SUITES := tests/unit tests/spec tests/django tests/sqlalchemy tests/integration

# Whoever told pip which index to use meant uv too.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
# Interpreters are those of this machine: a missing one is named, not downloaded.
export UV_PYTHON_DOWNLOADS := never
# A user without a home, as servers have them, has no place for caches.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export UV_NO_CACHE := 1
export PIP_NO_CACHE_DIR := 1
endif
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help demo test test-all conformance conformance-short lint format types wheel tox bench-failover bench-overhead bench-reads chaos clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

demo: $(READY) ## Applications write through a switchover and a crash on a real cluster, and are counted
	@$(BIN)/patroni-db demo

test: $(READY) ## Run the tests, most of them on a real cluster
	@$(PYTEST) --numprocesses 3 --dist worksteal -m "not thorough" $(SUITES)

test-all: $(READY) ## Run also further drivers, faults and moments of what those tests show
	@$(PYTEST) --numprocesses 3 --dist worksteal $(SUITES)

conformance: $(READY) ## Run Django's and SQLAlchemy's own suites on their backends and ours; ARGS="django --short"
	@$(BIN)/python -m tests.conformance $(ARGS)

conformance-short: $(READY) ## Run what of those suites is most likely to differ
	@$(BIN)/python -m tests.conformance --short $(ARGS)

lint: $(READY) ## Check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(READY) ## Repair style and format where that is mechanical
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(READY) ## Check types
	@$(BIN)/mypy

wheel: $(READY) ## Build wheel and sdist, look into them, import the wheel where nothing else is
	@.ci/wheel

# pyenv hides all but one of its Pythons unless told otherwise.
tox: $(READY) ## Test the wheel with every Python of this machine, Django and SQLAlchemy
	@if command -v pyenv >/dev/null; then \
	    PYENV_VERSION=$$(pyenv versions --bare | grep -E '^3\.(1[1-9]|[2-9][0-9])\.[0-9]+$$' | sort -rV | paste -sd: -); \
	    if test -n "$$PYENV_VERSION"; then export PYENV_VERSION; else unset PYENV_VERSION; fi; \
	fi; \
	rm -rf .tox/results; \
	$(BIN)/tox run-parallel --parallel 2 --parallel-no-spinner; status=$$?; \
	$(BIN)/python .ci/results.py $$status || status=1; \
	exit $$status

bench-failover: $(BENCH) ## Measure how soon applications write again after each fault; ARGS="--fault switchover --repeat 3"
	@$(BIN)/python -m benchmarks.failover $(ARGS)

bench-overhead: $(BENCH) ## Measure what checking connections costs
	@$(BIN)/python -m benchmarks.overhead $(ARGS)

bench-reads: $(BENCH) ## Measure what reading from replicas takes off the primary; ARGS="--causal --seconds 10"
	@$(BIN)/python -m benchmarks.reads $(ARGS)

chaos: $(READY) ## Random faults for minutes, and a check of all that happened; ARGS="--seed 123 --minutes 5"
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

clean: ## Remove everything that was built here
	@rm -rf .venv .tox .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment holds absolute paths: one that was moved, copied, made with another PYTHON, or whose Python is gone
# is built again. One that was interrupted has no $(READY) and is built again too.
KEY := $(CURDIR) $(PYTHON)
ifneq ($(shell test -x $(BIN)/python && cat $(READY) 2>/dev/null),$(KEY))
.PHONY: $(READY)
endif

$(READY): pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { \
	    echo "make: no $(PYTHON) on this machine; choose another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: Python 3.11 or newer is needed, and $(PYTHON) is $$("$(PYTHON)" -V 2>&1);" \
	        "choose another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "make: $(PYTHON) has no venv and ensurepip modules; on Debian and Ubuntu: apt install python3-venv" >&2; \
	    exit 1; }
	@echo "setting up .venv with $(PYTHON)"
	@rm -rf .venv
	@"$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	@mkdir .venv/tmp
	@TMPDIR=$(CURDIR)/.venv/tmp $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
	    --requirements pyproject.toml --all-extras --group dev --editable .
	@rm -rf .venv/tmp
	@printf '%s\n' '$(KEY)' >$(READY)

$(BENCH): $(READY)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --group bench
	@touch $(BENCH)
