# Each target creates the virtual environment that it needs in .venv, and updates it when pyproject.toml changes.
#
#   make test PYTHON=python3.12         another interpreter; run `make clean` first
#   make test DEPENDENCIES=lowest       the lower bounds of pyproject.toml, in a virtual environment of their own
#   make test-fast ARGS="-k lake"       more arguments for pytest
#   make test INSTALL_ARGS=--no-compile more arguments for pip
#   make release VERSION=1.2.3          the version to release
PYTHON ?= python3
DEPENDENCIES ?= newest
ARGS ?=
INSTALL_ARGS ?=
SECONDS ?= 600
INTERPRETERS ?= 3.11 3.12 3.13 3.14

VENV := .venv$(filter-out -newest,-$(DEPENDENCIES))
BIN := $(VENV)/bin
# A test file runs in one worker, because its tests share servers; the slowest files start first (see conftest.py).
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --disable-pip-version-check
TESTS := binance_assets_tests
NO_TIER_OF_ITS_OWN := not (servers or services or package or exports or deploy)

# What each set of dependencies installs beside the package, and which smaller sets it includes.
EXTRAS_runtime := [plot]
EXTRAS_test := [test]
EXTRAS_servers := [test,test-dg]
EXTRAS_services := [test,postgres,celery,s3,k8s,docker,test-s3,lint-deploy]
EXTRAS_package := [test,check,package]
EXTRAS_check := [test,check]
EXTRAS_docs := [docs]
# What .ci/run needs in .venv, installed at once.
EXTRAS_ci := [test,check,docs,package]
INCLUDED_runtime := runtime
INCLUDED_test := runtime test
INCLUDED_servers := runtime test servers
INCLUDED_services := runtime test services
INCLUDED_package := runtime test check package
INCLUDED_check := runtime test check
INCLUDED_docs := docs
INCLUDED_ci := runtime test check docs package

ifeq ($(DEPENDENCIES),lowest)
  CONSTRAINTS := --constraint $(VENV)/lowest.txt
else ifneq ($(DEPENDENCIES),newest)
  $(error DEPENDENCIES must be newest or lowest, not "$(DEPENDENCIES)")
endif

# The tests start some hundred processes. Without cached bytecode, each of them would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-ui ui test-fast test test-servers test-services services test-package test-exports test-integration test-hostile test-e2e coverage check docs lint-deploy deploy-files release recorded fuzz bench bench-scale bench-of-services race clean

help: ## list the targets
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

demo: $(VENV)/installed-runtime ## download a month of three series from the sandbox exchange through Dagster into demo/
	$(BIN)/binance-assets demo

demo-ui: $(VENV)/installed-runtime ## run the demo, then open Dagster's user interface on it
	$(BIN)/binance-assets demo --ui

ui: $(VENV)/installed-runtime ## start Dagster's user interface on your own universe.yaml
	$(BIN)/binance-assets ui

test-fast: $(VENV)/installed-test ## run the unit tests
	$(PYTEST) $(TESTS)/unit -m unit $(ARGS)

test-integration: $(VENV)/installed-test ## run the integration tests
	$(PYTEST) $(TESTS)/integration -m integration $(ARGS)

test-hostile: $(VENV)/installed-test ## run the hostile tests: what comes from outside and must not be believed
	$(PYTEST) $(TESTS)/hostile -m hostile $(ARGS)

test-e2e: $(VENV)/installed-test ## run the end-to-end tests: processes of the command line, examples
	$(PYTEST) $(TESTS)/e2e -m e2e $(ARGS)

test: $(VENV)/installed-test ## run all tests that need no server, no browser, and no other tool: the four tiers above
	$(PYTEST) -m "$(NO_TIER_OF_ITS_OWN)" $(ARGS)

test-servers: $(VENV)/installed-servers ## run the tests that need Dagster's web server and daemon, a browser, or dg
	$(PYTEST) -m servers $(ARGS)

# In an environment of its own, because the integrations of Dagster need exactly one version of it.
test-services: ## run the tests that need PostgreSQL, Redis, an S3 server, or workers, which they start themselves
	@$(MAKE) --no-print-directory VENV=.venv-services services

services: $(VENV)/installed-services
	$(PYTEST) -m services $(ARGS)

test-package: $(VENV)/installed-package ## build sdist and wheel, and run the tests of the wheel outside the checkout
	INTERPRETERS="$(INTERPRETERS)" $(PYTEST) $(TESTS)/package -m package $(ARGS)

test-exports: $(VENV)/installed-test ## load exports with the tools that they are for, each in its own environment below .exports/
	$(BIN)/python -m pytest -m exports $(TESTS)/exports $(ARGS)

# In the environment of `make test-services`, which has what the files name.
lint-deploy: ## check the files in deploy/ with linters and with the classes that read them
	@$(MAKE) --no-print-directory VENV=.venv-services deploy-files

deploy-files: $(VENV)/installed-services
	$(BIN)/python -m pytest -m deploy $(TESTS)/deploy $(ARGS)

coverage: $(VENV)/installed-servers ## run the tests of all tiers and print which lines and branches they miss; slower than test
	@mkdir -p .coverage
	$(PYTEST) -m "not (package or services or exports or deploy)" --cov --cov-report=term $(ARGS)

check: $(VENV)/installed-check ## check style, types, import directions, and that Dagster loads the code location
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dagster definitions validate -w workspace.yaml

# Material for MkDocs prints an advertisement for other tools without this variable.
docs: $(VENV)/installed-docs ## build the site of the documentation into site/, offline; warnings and broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	$(BIN)/python docs/check_site.py

release: $(VENV)/installed-package ## build, check, commit, and tag VERSION; publish nothing
	$(BIN)/python -m release $(VERSION)

recorded: $(VENV)/installed-runtime ## fetch the recorded candles that some tests replay into recorded/, from Binance's public archive
	$(BIN)/python -m $(TESTS).support.fetch_recorded

fuzz: $(VENV)/installed-test ## send mutated inputs to every border for SECONDS (600)
	$(BIN)/python -m $(TESTS).hostile.fuzz --seconds $(SECONDS) $(ARGS)

bench: $(VENV)/installed-runtime ## measure speed against the sandbox exchange beside the targets
	$(BIN)/python -m benchmarks.run

# In the environment of `make test-services`, whose servers it starts.
bench-scale: ## measure a year of 1m as a Dagster run on SQLite and Postgres, with a local lake and on S3
	@$(MAKE) --no-print-directory VENV=.venv-services bench-of-services

bench-of-services: $(VENV)/installed-services
	$(BIN)/python -m benchmarks.scale_out $(ARGS)

race: $(VENV)/installed-runtime ## download the same candles with other tools, each in its own environment, and write docs/race.md
	$(BIN)/python -m benchmarks.race $(ARGS)

clean: ## remove the virtual environments and the demo
	rm -rf .venv .venv-lowest .venv-services .race .exports .coverage demo site

# The date of this file says when that set of dependencies was installed.
$(VENV)/installed-%: pyproject.toml | $(BIN)/python
	@echo "Installing binance-assets$(EXTRAS_$*) with the $(DEPENDENCIES) dependencies into $(VENV) ..."
	$(if $(CONSTRAINTS),$(BIN)/python $(TESTS)/support/lowest_versions.py > $(VENV)/lowest.txt)
	$(PIP) $(INSTALL_ARGS) $(CONSTRAINTS) --editable '.$(EXTRAS_$*)'
	@touch $(addprefix $(VENV)/installed-,$(INCLUDED_$*))

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; select one with: make PYTHON=python3.12 ...")'
	@echo "Creating the virtual environment $(VENV) ..."
	$(PYTHON) -m venv $(VENV)
	@# That of Python 3.11 takes half a minute longer, but it works as well.
	$(PIP) --quiet $(INSTALL_ARGS) --upgrade pip || echo "pip stays as it is, because it cannot be upgraded"
