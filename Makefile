# Two commands from nothing: `make run` and `make test`. Both make .venv and install into it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test faults lint clean

run: .venv/app
	$(BIN)/pluralllm run

test: lint
	$(BIN)/pytest

faults: .venv/dev
	$(BIN)/pytest -m fault

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torch first and alone: later requirements then find it there instead of choosing another build.
.venv/app: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "$$(sed -n 's/^ *"\(torch==[^"]*\)",/\1/p' pyproject.toml)"
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/dev: .venv/app
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
