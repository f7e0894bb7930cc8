# `make` alone lists the main targets; CONTRIBUTING.md describes all. Needs Python ≥ 3.11 (with venv and pip), git and make; the rest is installed
# into .venv and .venv-2.11.

PYTHON ?= python3
PY := .venv/bin/python
PY_211 := .venv-2.11/bin/python
PY_DAGSTER := .venv-dagster/bin/python
# What a test run leaves out. `make exhaustive` runs those.
SELECT := not exhaustive
# Most tests wait more than they compute. A module's tests stay together: they share a bank and a database. Integration
# tests begin, as some of their modules take a minute: the short ones fill the end.
WORKERS ?= 4
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# How many parts of the tests run side by side. Two keep two cores busy for two thirds of the time: most tests wait. The
# output of each part comes at its end, in one piece (GNU make 4 and later).
LANES ?= 2
SIDE_BY_SIDE = $(MAKE) --no-print-directory $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
# What depends on Airflow's version, and so runs on every version. The rest of the tests runs once, on the newest.
ON_EVERY_AIRFLOW := $(addprefix tests/integration/,cli hooks/test_hook.py load/test_operator.py load/test_reconcile.py operators outages \
  sensors $(addprefix session/test_,crashes.py distributed_locks.py fleet.py interrupted.py) test_dags_examples.py \
  transfers/test_transfer.py triggers) \
  $(addprefix tests/unit/,cli hooks links operators sensors transfers triggers session/test_store.py) $(wildcard tests/unit/test_*.py)

.DEFAULT_GOAL := help
.PHONY: help setup setup-3.3 setup-2.11 setup-dagster check lint docs screenshots test test-3.3 system-3.3 modules-3.3 test-2.11 test-dagster test-lowest coverage exhaustive crashes outages storms packages benchmarks demo up down pins clean payments pulls

# Show this list.
help:
	@grep -E '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9.-]+):.*## (.*)/  make \1\t\2/' | expand -t 20
	@echo "  Long campaigns (see CONTRIBUTING.md): make crashes, outages, pulls, payments, storms, exhaustive"

setup: setup-3.3 setup-2.11 ## make both environments (.venv: Airflow 3.3, .venv-2.11); quick when nothing changed

setup-3.3:
	@$(PYTHON) scripts/set_up.py airflow-3.3

# Airflow 2.11 has no Python 3.13: without an older one its tests are skipped, loudly.
setup-2.11:
	@$(PYTHON) scripts/set_up.py airflow-2.11 || [ $$? -eq 3 ]

# No Airflow in it.
setup-dagster:
	@$(PYTHON) scripts/set_up.py dagster

check: lint ## lint, types and unit tests on Airflow 3.3: under a minute
	$(PY) -m pytest tests/unit $(PARALLEL) -m "$(SELECT) and not slow"

lint: setup-3.3
	$(PY) -m ruff check --output-format concise .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: setup-3.3 ## build the documentation into build/docs/html; a warning is an error
	$(PY) -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/docs/html

# Take the documentation's pictures with Chromium, from a running Airflow and a running Dagster.
screenshots: setup-3.3 setup-dagster
	INTERGIRO_SCREENSHOTS=docs/_static $(PY) -m pytest tests/system/test_browser.py tests/system/test_failures.py tests/system/test_payments.py
	INTERGIRO_SCREENSHOTS=docs/_static $(PY_DAGSTER) -m pytest tests/dagster/test_browser.py

test: ## everything: lint, types, documentation, all tests on Airflow 3.3 and 2.11 and on Dagster
	@$(SIDE_BY_SIDE) --jobs 3 setup-3.3 setup-2.11 setup-dagster
	@$(SIDE_BY_SIDE) --jobs 2 lint docs
	@$(SIDE_BY_SIDE) --jobs $(LANES) system-3.3 modules-3.3 test-2.11 test-dagster

test-3.3: system-3.3 modules-3.3

# Real Airflows, one after the other.
system-3.3: setup-3.3
	$(PY) -m pytest tests/system -m "$(SELECT)"

modules-3.3: setup-3.3
	$(PY) -m pytest tests/integration tests/unit $(PARALLEL) -m "$(SELECT)"

test-2.11: setup-2.11
	@if [ -x $(PY_211) ]; then set -ex; \
	  $(PY_211) -m pytest $(ON_EVERY_AIRFLOW) $(PARALLEL) -m "$(SELECT)"; \
	  $(PY_211) -m pytest tests/system -m "$(SELECT)"; \
	else \
	  echo "SKIPPED: every test on Airflow 2.11, which needs Python 3.11 or 3.12"; [ -z "$$CI" ]; \
	fi

# Types and tests of dagster-intergiro, in an environment without Airflow.
test-dagster: setup-dagster
	$(PY_DAGSTER) -m mypy packaging/dagster/dagster_intergiro
	$(PY_DAGSTER) -m pytest tests/dagster -n 2 --dist loadfile -m "$(SELECT)"

# Unit and integration tests with every dependency at its lower bound.
test-lowest:
	@$(PYTHON) scripts/set_up.py dagster-lowest
	.venv-dagster-lowest/bin/python -m pytest tests/dagster -n 2 --dist loadfile -m "$(SELECT)"
	@$(PYTHON) scripts/set_up.py lowest
	.venv-lowest/bin/python -m pytest tests/integration tests/unit $(PARALLEL) -m "$(SELECT)"

# Which lines the unit and integration tests run.
coverage: setup-3.3
	$(PY) -m pytest tests/integration tests/unit $(PARALLEL) -m "$(SELECT)" --cov

# The tests that explore every state: minutes.
exhaustive: setup-3.3 setup-dagster
	$(PY) -m pytest -m exhaustive --timeout 0
	$(PY_DAGSTER) -m pytest tests/dagster -m exhaustive --timeout 0

# Kill renewing processes at every point; writes docs/crashes.md; a quarter of an hour.
crashes: setup
	$(PY) -m scripts.crash_campaign run build/crashes-3.3.json
	@if [ -x $(PY_211) ]; then set -ex; $(PY_211) -m scripts.crash_campaign run --plain-only build/crashes-2.11.json; fi
	$(PY) -m scripts.crash_campaign report build/crashes-*.json > docs/crashes.md

# Every fault of docs/outages.md, the long ones and 16 hosts included; about ten minutes.
outages: setup
	$(PY) -m pytest tests/integration/outages -s
	if [ -x $(PY_211) ]; then $(PY_211) -m pytest tests/integration/outages; fi

# Every fault of docs/pulls.md, and a pull killed at each of its steps; writes that page; half an hour.
pulls: setup
	$(PY) -m pytest tests/integration/storage --ignore tests/integration/storage/test_table.py -s
	if [ -x $(PY_211) ]; then $(PY_211) -m pytest tests/integration/storage -m "$(SELECT)"; fi
	$(PY) -m tests.integration.storage.table

# Payments as tasks of a real Airflow, under kills and faults; writes docs/payments.md; half an hour.
payments: setup-3.3
	$(PY) -m scripts.payments_campaign --write docs/payments.md

# Hundreds of tasks that share one session, in real Airflows; writes docs/storms.md; half an hour.
storms: setup-3.3
	$(PY) -m scripts.storm --write docs/storms.md

packages: setup-3.3 ## build the package and try it on every Airflow and Python; writes docs/packages.md; half an hour
	$(PY) -m scripts.package_matrix build/packages --write docs/packages.md

benchmarks: setup-3.3 ## our pull beside its peers; writes docs/benchmarks.md and its chart; a quarter of an hour
	$(PY) -m benchmarks

demo: setup-3.3 ## the product's main job in a real Airflow, then a summary; about a minute
	@$(PY) -m scripts.demo run

up: setup-3.3 ## the same, and leave it running with the UI's address printed
	@$(PY) -m scripts.demo up

down: ## end what `make up` has left running
	@if [ -x $(PY) ]; then $(PY) -m scripts.demo down; else echo "nothing is running"; fi

pins: setup-3.3 ## resolve the pins in requirements/
	$(PY) scripts/make_pins.py

clean: down ## remove the environments, caches and the demo's files
	rm -rf .venv .venv-* .demo .storms .payments .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
