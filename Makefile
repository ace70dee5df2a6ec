# Everything from a clean clone with Python >= 3.10, bash and make. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test proof bench lint types format clean

PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -qq install

# Beside each other, for they do not mind: what only computes (without coverage, which slows it down fourfold, and giving
# way to the rest, where the system can, at once: under `nice` alone a thread that wakes may wait for 50 ms, which tests
# measure; it may take ten minutes for one test), what mostly sleeps, the other Pythons and the other
# SQLAlchemy, and what asks its servers one thing at a time. All the rest may measure time, and comes after them.
ORDERS := tests/interleave
STATES := $(addprefix tests/core/test_, ledger_walk.py ledger_mutants.py ledger_interrupts.py permits.py load.py) \
	tests/core/test_statement_fuzz.py tests/faults/test_interrupted_lines.py tests/stress/test_state_machine.py \
	$(addprefix tests/test_, interrupts.py simulate_theory.py bench_memory.py)
SLEEPS := tests/ext/test_sqlalchemy_suite.py
PATIENT := tests/checkout tests/core tests/drivers
GIVING_WAY := $(shell chrt --idle 0 true 2> /dev/null && echo chrt --idle 0) nice -n 19

help:
	@echo 'make demo    a real gunicorn on a database through this pool, under both checkout policies'
	@echo 'make test    the tests, with branch coverage; core and shell on the newest other Python found too, the core on the oldest'
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

test: TESTED := -m coverage run -m pytest
test: .venv/.dev
	@bash tests/install_servers.sh $(PY)
	@$(PY) -m coverage erase
	@$(all-tests)
	@$(PY) -m coverage combine -q
	@$(PY) -m coverage report

proof: TESTED := -m pytest
proof: ALL := -m '' --timeout 1800 --durations 40
proof: WIDE := -m proof --timeout 3600
proof: .venv/.dev
	@bash tests/install_servers.sh $(PY)
	@$(all-tests)
	@$(PY) -m tests.bench --check
	@$(PY) -m tests.environments --measure $(ALL)

# What computes goes on, giving way, while the rest is measured: it takes one core, and the rest mostly half of the other.
define all-tests
logs=.venv/logs; rm -rf $$logs; mkdir -p $$logs; failed=0; \
beside() { name=$$1; shift; "$$@" > $$logs/$$name.log 2>&1 & started=$$!; }; \
beside orders $(GIVING_WAY) $(PY) -m pytest --timeout 600 $(ALL) $(ORDERS); computing="$$started"; \
beside states $(GIVING_WAY) $(PY) -m pytest --timeout 600 $(ALL) $(STATES); computing+=" $$started"; \
beside sleeps $(PY) -m pytest -m 'not proof' $(SLEEPS); others="$$started"; \
beside elsewhere $(PY) -m tests.environments $(ALL); others+=" $$started"; \
await() { for one in $$@; do wait $$one || failed=1; done; }; \
$(PY) $(TESTED) $(ALL) $(PATIENT) $(STATES:%=--ignore %) || failed=1; \
await $$others; \
if [ -n "$(WIDE)" ]; then beside wide $(GIVING_WAY) $(PY) -m pytest $(WIDE) $(SLEEPS); computing+=" $$started"; fi; \
$(PY) $(TESTED) $(ALL) $(addprefix --ignore ,$(PATIENT) $(ORDERS) $(STATES) $(SLEEPS)) || failed=1; \
await $$computing; cat $$logs/*.log; [ $$failed = 0 ]
endef

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
