# Two commands: `make search` (a search on the built-in zoo) and `make test`. Both set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export HF_HUB_OFFLINE ?= 1
export HF_DATASETS_OFFLINE ?= 1

.PHONY: install search test check docs pin bench clean

install: $(READY)

# pip and not uv: it sees CPU builds of torch that lie on the disk.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

search: install
	$(BIN)/evomerge search search_spaces/quickstart.yaml --budget 200

test: check
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install
	mkdir -p docs/reference
	$(BIN)/evomerge methods --format md > docs/reference/methods.md
	$(BIN)/python -m typer evomerge.cli.main utils docs --name evomerge --output docs/reference/cli.md
	$(BIN)/evomerge schema > docs/reference/space.schema.json

bench: install
	$(BIN)/python -m benchmarks.evaluator
	$(BIN)/python -m benchmarks.start --budget 40
	$(BIN)/python -m benchmarks.scaling --parts share front --samplers cma --objectives 1 --marks 100 300
	$(BIN)/python -m benchmarks.merging --size 300M --repeats 2 --methods task_arithmetic ties

pin: install
	(echo "# Pinned by 'make pin' from a fresh environment; the Makefile installs with it."; \
	 $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//') > constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
