# Two commands are all the set-up there is: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help install demo test test-slow lint format bench clean

help:
	@echo "make demo       pretrain METRA on HalfCheetah, evaluate it zero-shot, write runs/demo/report/index.html"
	@echo "make test       the tests              make test-slow  learning checks, on real environments"
	@echo "make lint       ruff and mypy          make bench      speed and memory, to runs/bench.json"
	@echo "make install    only the environment in $(VENV), with everything that development needs"

# The core set is all that the demo needs; development tools come on top of it.
$(VENV)/core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else \
	    "$(PYTHON) is Python %d.%d: expected 3.11 or 3.12, as in make PYTHON=python3.12 demo" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/dev: $(VENV)/core
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/dev

demo: $(VENV)/core
	$(BIN)/urlrl pretrain metra --preset half-cheetah-quick --seed $(SEED) --out runs/demo
	$(BIN)/urlrl evaluate runs/demo
	$(BIN)/urlrl report runs/demo

test: $(VENV)/dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

# A core for each of two trainings: with threads of their own they would wait for each other.
test-slow: $(VENV)/dev
	XLA_FLAGS=--xla_cpu_multi_thread_eigen=false $(BIN)/python -m pytest -m slow -n 2 --dist worksteal

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/core
	$(BIN)/python scripts/benchmarks/benchmark.py --out runs/bench.json

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
