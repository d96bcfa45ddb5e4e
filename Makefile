# Each target does its own set-up: a virtual environment in .venv, made anew when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-ui ui test check bench clean

demo: .venv/installed ## a month of three series from the sandbox exchange, through Dagster, into demo/
	$(BIN)/binance-assets demo

demo-ui: .venv/installed ## the same, then Dagster's user interface on it
	$(BIN)/binance-assets demo --ui

ui: .venv/installed ## Dagster's user interface on the real configuration
	$(BIN)/dagster dev -w workspace.yaml

test: .venv/installed ## the whole test suite
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: .venv/installed ## style, types, direction of imports, and whether Dagster loads the code location
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dagster definitions validate -w workspace.yaml

bench: .venv/installed ## the sizes to reach, measured against the sandbox exchange
	$(BIN)/python -m benchmarks.run

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,check]'
	touch $@

clean: ## removes the virtual environment and the demo
	rm -rf .venv demo
