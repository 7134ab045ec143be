# One word a task; `make help` lists them. Everything is set up in .venv and build/, and a second run is quick.
PYTHON ?= python3
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)

SHELL  := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
SAY    := @printf '\033[1m== %s\033[0m\n'

# Compiled parts; the Python files are used where they lie, so only a file added or removed asks for a new install.
NATIVE := $(shell find csrc kernels emulator cmake -type f \( -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \
            -o -name '*.cmake' -o -name '*.py' \) 2>/dev/null) CMakeLists.txt pyproject.toml
MODULES := $(sort $(shell find python benchmarks examples tests/specs kernels/triton -name '*.py' 2>/dev/null))
ifneq ($(strip $(file <$(VENV)/modules)),$(strip $(MODULES)))
MODULES_CHANGED := FORCE
endif

# What the environment or the command line says of CUDA: another word than last time asks for a new build.
FLAGS := $(foreach name,NEUROKERN_CUDA NEUROKERN_CUDA_ARCHS CUDACXX NVCC,$(name)=$($(name)))
ifneq ($(strip $(file <$(VENV)/flags)),$(strip $(FLAGS)))
FLAGS_CHANGED := FORCE
endif

CXX_FILES = $(shell git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' 2>/dev/null)
# Passive waiting: two test processes with two threads each on two cores would otherwise spin against one another.
TEST_ENV := OMP_WAIT_POLICY=passive CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS)
PYTEST := $(BIN)/python -m pytest

export CMAKE_BUILD_PARALLEL_LEVEL ?= $(JOBS)

.PHONY: help demo test check lint format bench gpu build setup clean FORCE

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: build  ## train nine networks: perceptron, MLP, CNN, ResNet, autoencoder, DCGAN, 3 transformers, ours beside torch.nn (4 minutes)
	@$(BIN)/neurokern demo --output build/demo

test: build lint  ## everything that needs no GPU (at most 20 minutes on 2 cores)
	$(SAY) "tests"
	@$(TEST_ENV) $(PYTEST) -n 2 -m "not gpu and not large" tests
	@$(BIN)/python -m neurokern.testing.shares build

check: build lint  ## the part of the tests that takes at most 4 minutes
	$(SAY) "fast tests"
	@$(TEST_ENV) $(PYTEST) -n 2 -m "not gpu and not large and not slow" tests

lint: setup  ## ruff and clang-format, without changing anything
	$(SAY) "ruff, clang-format"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(if $(CXX_FILES),$(BIN)/clang-format --dry-run -Werror $(CXX_FILES))

format: setup  ## let ruff and clang-format change the files
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .
	@$(if $(CXX_FILES),$(BIN)/clang-format -i $(CXX_FILES))

bench: build  ## whole models and every CPU suite against torch (about an hour; ARGS="models --quick" for less)
	@$(BIN)/neurokern bench $(ARGS)

gpu:  ## build for this machine's GPU, test and benchmark on it (7 minutes, no network; records go to OUT)
	@PYTHON="$(PYTHON)" bash benchmarks/gpu.sh

build: $(VENV)/built  ## set up .venv and build the package into it (editable)

setup: $(VENV)/installed

$(VENV)/bin/python:
	$(SAY) "$(VENV) from $(PYTHON)"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 10) and f"neurokern needs Python 3.10 or later, $(PYTHON) is {v[0]}.{v[1]}")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements-dev.txt | $(VENV)/bin/python
	$(SAY) "packages of requirements-dev.txt (torch is large: minutes on the first run)"
	@$(PIP) install -r requirements-dev.txt
	@touch $@

# nvcc is the machine's, or else PyPI's; without either the build goes on, and says so.
$(VENV)/nvcc: requirements-nvcc.txt | $(VENV)/installed
	@if [ "$${NEUROKERN_CUDA:-AUTO}" = OFF ]; then exit; fi; \
	if [ -z "$$($(BIN)/python cmake/nvcc.py find)" ]; then \
	    printf '\033[1m== no nvcc on this machine: fetching PyPI'"'"'s\033[0m\n'; \
	    $(PIP) install -r requirements-nvcc.txt || echo "nvcc can't be had from PyPI either: building without the CUDA kernels"; \
	fi; \
	touch $@

$(VENV)/built: $(NATIVE) $(MODULES_CHANGED) $(FLAGS_CHANGED) | $(VENV)/installed $(VENV)/nvcc
	$(SAY) "building neurokern"
	@$(PIP) install -v --no-build-isolation --no-deps -e . 2>&1 | tee $(VENV)/build.log \
	    | grep --line-buffered -E '^ *(\[[0-9]+/[0-9]+\]|-- CUDA|CUDA:|\*\*\*|.*warning:)' \
	    || { tail -n 60 $(VENV)/build.log; exit 1; }
	@echo '$(MODULES)' > $(VENV)/modules
	@echo '$(FLAGS)' > $(VENV)/flags
	@touch $@

clean:  ## remove .venv, build/ and caches
	rm -rf $(VENV) build dist .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
