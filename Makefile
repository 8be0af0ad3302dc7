# Two commands from nothing: `make run` and `make test`. Both make .venv and install into it.
PYTHON ?= python3
BIN := .venv/bin
# Where Python keeps nothing compiled, compiling the tests takes as long as running them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run check test faults lint clean

run: .venv/app
	$(BIN)/pluralllm run --config conf/refined.toml

# The inner loop: style, types, and all tests that start no engine and take no seconds; those on
# random examples see fewer of them than in `make test`.
check: lint
	$(BIN)/pytest -q -n logical --maxprocesses 4 --dist worksteal --hypothesis-profile quick \
		-m "not engine and not fault and not slow"

test: lint
	$(BIN)/pytest

# Every fault once; `make faults FAULTS="superlink or disk" FAULT_REPEATS=5` some of them, repeatedly.
# FAULT_TABLE=faults.md also writes the table to that file.
FAULTS :=
FAULT_REPEATS := 1
FAULT_TABLE :=
faults: .venv/dev
	$(BIN)/pytest tests/deploy -m fault -k "$(FAULTS)" --fault-repeats=$(FAULT_REPEATS) \
		$(if $(FAULT_TABLE),--fault-table=$(FAULT_TABLE))

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torch first and alone: later requirements then find it there instead of choosing another build.
.venv/app: pyproject.toml
	@echo "Installing into .venv, which takes a minute or more and says nothing."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "$$(sed -n 's/^ *"\(torch==[^"]*\)",/\1/p' pyproject.toml)"
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/dev: .venv/app
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
