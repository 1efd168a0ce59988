# Each target sets up what it needs; nothing is installed outside .venv.
PYTHON ?= python3
BIN := .venv/bin
SEEDS ?= 200
STORY ?= standard
STAMP := .venv/.installed

.PHONY: venv demo test check bench simulate mutants clean

venv: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(STAMP)

demo: venv  ## the main job on real input: a hub and devices that edit, vanish and meet again
	$(BIN)/syncengine demo

test: venv  ## everything CI checks
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

check: venv  ## format, lint, strict types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/typing

simulate: venv  ## make simulate SEEDS=1000 STORY=led (standard, cloned, led, leased, operated, switched, mastered, sharded)
	$(BIN)/python -m syncengine.testing --seeds $(SEEDS) --story $(STORY)

mutants: venv  ## plants each bug of tests/mutants in a copy, and says how many seeds found it
	$(BIN)/python -m tests.mutants

bench: venv  ## figures against peers in one run; writes benchmarks/RESULTS.md
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks --write

clean:
	rm -rf .venv
