# Everything from a clean clone with Python >= 3.10, bash and make. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test proof bench lint types format clean

PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -qq install

# What only computes, without coverage, which slows it down fourfold, and the other Pythons: beside what asks its servers
# one thing at a time, for none of them minds. All the rest may measure time, and has the machine to itself.
COMPUTES := tests/interleave $(addprefix tests/core/test_ledger_, walk.py mutants.py interrupts.py) \
    tests/faults/test_interrupted_lines.py
PATIENT := tests/checkout tests/core tests/drivers

help:
	@echo 'make demo    a real gunicorn on a database through this pool, under both checkout policies'
	@echo 'make test    the tests, with branch coverage, then core and shell on every other Python found'
	@echo 'make proof   every test, the long ones too'
	@echo 'make bench   this pool beside the others, in one run'
	@echo 'make lint    ruff: rules and format      make format   mend what ruff can mend'
	@echo 'make types   mypy --strict               make clean    remove what make has built'

# The demo waits only for what it needs; everything else for the tools too. Both go stale with pyproject.toml.
.venv/.demo: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.10 is needed: make PYTHON=..." if sys.version_info < (3, 10) else 0)'
	@echo "make: building .venv with what the demo needs"
	@$(PY) -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(PIP) -e '.[demo]'
	@touch $@

.venv/.dev: .venv/.demo
	@echo "make: adding the tools for tests and checks to .venv"
	@$(PIP) -e '.[dev]'
	@touch $@

demo: .venv/.demo
	@$(PY) integrations/gunicorn/demo.py

test: .venv/.dev
	@bash tests/install_servers.sh $(PY)
	@$(PY) -m coverage erase
	@$(PY) -m pytest $(COMPUTES) > .venv/computes.log 2>&1 & computes=$$!; \
	$(PY) -m tests.pythons > .venv/pythons.log 2>&1 & pythons=$$!; failed=0; \
	$(PY) -m coverage run -m pytest $(PATIENT) $(COMPUTES:%=--ignore %) || failed=1; \
	wait $$computes || failed=1; wait $$pythons || failed=1; cat .venv/computes.log .venv/pythons.log; exit $$failed
	@$(PY) -m coverage run -m pytest $(addprefix --ignore ,$(PATIENT) $(COMPUTES))
	@$(PY) -m coverage combine -q
	@$(PY) -m coverage report

proof: .venv/.dev
	@bash tests/install_servers.sh $(PY)
	@$(PY) -m pytest -m '' --timeout 600
	@$(PY) -m tests.pythons
	@$(PY) -m tests.bench --check

bench: .venv/.dev
	@$(PY) -m tests.bench

lint: .venv/.dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: .venv/.dev
	@$(PY) -m mypy

format: .venv/.dev
	@$(PY) -m ruff check --fix-only -q .
	@$(PY) -m ruff format .

clean:
	@rm -rf .venv build dist htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
