# Every target sets up what it needs: `make fit` works in a fresh clone.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))

.DEFAULT_GOAL := help
.PHONY: help install fit check test lint types tests test-reliability format notebook reference results bench gpu gpu-needs growth screenshots clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed  ## put the environment into .venv (5.5 GB: PyTorch brings its GPU libraries)

$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or later is needed; name one: make install PYTHON=/path/to/python3"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV) && echo "no venv module here: taking virtualenv" && \
		$(PYTHON) -m pip install --quiet --target $(VENV)-bootstrap virtualenv && \
		PYTHONPATH=$(VENV)-bootstrap $(PYTHON) -m virtualenv --quiet $(VENV) && rm -rf $(VENV)-bootstrap; }
	@echo "installing into $(VENV): 4 to 10 minutes, once"
	@$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]' 2>&1 | tee $(VENV)/install.log \
		| { grep --line-buffered --only-matching -E '^ *(Downloading|Using cached) [^ ]+\.whl \(.*\)|^Installing collected' || true; } \
		|| { tail -n 20 $(VENV)/install.log; echo "error: the installation failed; all of it is in $(VENV)/install.log"; exit 2; }
	@touch $@

fit: install  ## train VGG-11 on Fashion-MNIST (preset quick: minutes on a laptop)
	@$(BIN)/vgg-lightning fit

check: install  ## lint, types and the tests that start no process, train nothing and export nothing
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check . && $(BIN)/mypy
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --check --numprocesses auto --dist worksteal

test: lint types tests  ## lint, types and all tests

lint: install  ## ruff
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: install  ## mypy --strict
	@$(BIN)/mypy

tests: install  ## pytest, without the long campaigns: a process for each core, each with one thread
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist worksteal

test-reliability: install  ## the long campaigns: real kills, bit flips, fuzzed and combined options
	@$(BIN)/python -m pytest tests/reliability tests/kit tests/combinations -m "slow or not slow"

format: install  ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

notebook: install  ## open the notebooks in the browser
	@$(BIN)/jupyter notebook notebooks

reference: install  ## train lightning_logs/reference anew
	@$(BIN)/python -m benchmarks.reference

results: install  ## make docs/results.md out of benchmarks/results
	@$(BIN)/python -m benchmarks.results_page

PEERS := .venv-bench
$(PEERS)/installed: benchmarks/peers/requirements.txt $(VENV)/installed
	@echo "installing the peers into $(PEERS): a minute or two, once"
	@$(BIN)/python -m pip install --quiet --upgrade --no-deps --target $(PEERS) --requirement $<
	@touch $@

bench: install $(PEERS)/installed  ## this project beside what people use instead: 25 minutes; ARGS="--only load train"
	@$(BIN)/python -m benchmarks.bench $(ARGS)

SECONDS := 330
GPU_PYTHON = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
gpu:  ## all that needs a GPU and is not measured yet, in order of value, within SECONDS=330; ARGS="--plan" or "--only ..."
	@$(GPU_PYTHON) -m benchmarks.gpu --seconds $(SECONDS) $(ARGS)

gpu-needs:  ## the packages that `make gpu` misses here
	@$(GPU_PYTHON) -m benchmarks.gpu --needs

growth: install  ## how time and memory grow: 6 minutes, benchmarks/results/growth.csv and docs/growth.png
	@$(BIN)/python -m benchmarks.growth $(ARGS)

screenshots: install  ## take the pictures of TensorBoard in docs/ anew, with Chromium
	@$(BIN)/python -m benchmarks.screenshots

clean:  ## remove the environment and caches, keep the runs
	rm -rf $(VENV) $(PEERS) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
