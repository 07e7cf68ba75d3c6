# Each target makes what it needs from nothing. `make PYTHON=/path/to/python ...` picks the
# interpreter; otherwise scripts/setup-env looks for one.

# Idle OpenMP threads that spin make everything slower on shared machines.
export OMP_WAIT_POLICY ?= passive
# litellm reads its price list from the package instead of fetching it.
export LITELLM_LOCAL_MODEL_COST_MAP ?= True

VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-harnesses test-llama-cpp test-vllm notebooks lint types check clean

help:
	@echo "make demo    replay a recorded agent run with a real model; prints a table, writes a report"
	@echo "make test    lint, types and the test suite"
	@echo "make test-harnesses   drive each agent framework in an environment of its own (ONLY=name)"
	@echo "make test-llama-cpp   compile llama.cpp (15 minutes, once) and test its adapter"
	@echo "make test-vllm   the connector and the adapter against a real vLLM server on the CPU"
	@echo "make notebooks   execute the notebooks on the embedded model"
	@echo "make check   lint and types only"
	@echo "make setup   only make the environment ($(VENV))"
	@echo "make clean   remove the environment, caches and build outputs"
	@echo
	@echo "PYTHON=/path/to/python picks the interpreter (3.11 or newer)."

setup:
	@scripts/setup-env $(VENV) 3.11 -c constraints.txt -e '.[serve,dev,notebooks]'

demo: setup
	$(BIN)/leyline demo

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: setup
	$(BIN)/mypy

check: lint types

# Two cores run two halves of the suite sooner than torch's threads run one after the other.
test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal

test-harnesses: setup
	@$(BIN)/python scripts/test-harnesses $(ONLY)

# pip keeps the wheel that it compiles; what tests compare with runs in the first environment.
test-llama-cpp: setup
	@scripts/setup-env .venvs/llama-cpp 3.11 -c constraints.txt -e '.[llama-cpp]' \
		hypothesis jsonschema pytest pytest-asyncio
	LEYLINE_REFERENCE_PYTHON=$(BIN)/python .venvs/llama-cpp/bin/pytest tests/llama_cpp

test-vllm: setup
	@$(BIN)/python scripts/test-vllm $(ARGS)

notebooks: setup
	$(BIN)/pytest -m notebook tests/notebooks

clean:
	rm -rf $(VENV) .venvs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
