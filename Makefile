# Two commands from nothing: `make run` and `make test`. Both make .venv and install into it, in the
# versions of constraints.txt. Another Python: `make check PYTHON=python3.13 VENV=.venv-3.13`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --constraint constraints.txt --editable
# Where Python keeps nothing compiled, compiling the tests takes as long as running them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run check test stories faults attacks lint clean

run: $(VENV)/app
	$(BIN)/pluralllm run --config conf/refined.toml

# The inner loop: style, types, and all tests that start no engine and are fast, three at a time,
# since some wait; those on random examples see fewer of them than in `make test`.
check: lint
	$(BIN)/pytest -q -n 3 --dist worksteal --hypothesis-profile quick \
		-m "not engine and not story and not fault and not attack and not slow"

# Three at a time, since tests of engines wait much of the time; a file's tests share what they start.
test: lint
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# `make stories STORIES=newcomer` some of them. Two files at a time: each waits much of the time.
STORIES :=
stories: $(VENV)/dev
	$(BIN)/pytest -m story -k "$(STORIES)" -n 2 --dist loadfile

# Every fault once; `make faults FAULTS="superlink or disk" FAULT_REPEATS=5` some of them, repeatedly.
# FAULT_TABLE=faults.md also writes the table to that file.
FAULTS :=
FAULT_REPEATS := 1
FAULT_TABLE :=
faults: $(VENV)/dev
	$(BIN)/pytest tests/deploy -m fault -k "$(FAULTS)" --fault-repeats=$(FAULT_REPEATS) \
		$(if $(FAULT_TABLE),--fault-table=$(FAULT_TABLE))

# `make attacks ATTACKS=members` some of them, ATTACK_TABLE=attacks.md the table to that file as well.
# Two files at a time, as in `make test`.
ATTACKS :=
ATTACK_TABLE :=
attacks: $(VENV)/dev
	$(BIN)/pytest tests/attacks -m attack -k "$(ATTACKS)" -n 2 --dist loadfile \
		$(if $(ATTACK_TABLE),--attack-table=$(ATTACK_TABLE))

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/app: pyproject.toml constraints.txt
	@echo "Installing into $(VENV), which takes a minute or more and says nothing."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) ".[federation,embed]"
	touch $@

$(VENV)/dev: $(VENV)/app
	$(INSTALL) ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
