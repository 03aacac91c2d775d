# Everything happens in .venv, which the first `make train` or `make test` makes and fills.
#   make train ARGS="--timelines webtrackr --out runs/wt"     arguments for the command
#   make test  TESTS=tests/test_slate.py                      some of the tests
#   make train PIP_ARGS="..."                                 arguments for pip, another index for instance
.DEFAULT_GOAL := help
.PHONY: help install train benchmark dashboard test lint format docs constraints clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := dev,sb3,report
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
CACHESIM := $(shell sed -n '/^libcachesim==/p' constraints.txt)
PIP := $(BIN)/python -m pip --disable-pip-version-check
QUIET := -q --no-compile
# The first Python on PATH that is new enough; PYTHON=/path/to/python3.12 says otherwise.
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python,\
	$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
TESTS ?= tests
WORKERS ?= $(shell echo $$(( $$(nproc 2>/dev/null || echo 2) + 1 > 4 ? 4 : $$(nproc 2>/dev/null || echo 2) + 1 )))

help:  ## say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## make .venv and install everything into it (done by the others when needed)

# Redone when pyproject.toml or constraints.txt change, or when it did not come to its end. torch goes
# first, so that pip has settled on the build it finds (CUDA or CPU) before anything asks for it.
# Bytecode is compiled on all cores afterwards, which pip would do on one (some packages ship templates
# that are no valid Python: hence no failure), without the packages' own tests. libcachesim, which the tests
# compare with, asks for an S3 client that wants other versions than the rest, and works without it.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "Setting up $(VENV); the first time this downloads PyTorch and what else is needed."
	@$(BIN)/python -c '' 2>/dev/null || rm -rf $(VENV)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		$(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; }
	$(PIP) install $(QUIET) -c constraints.txt $(PIP_ARGS) $(TORCH)
	$(PIP) install $(QUIET) -c constraints.txt $(PIP_ARGS) -e ".[$(EXTRAS)]"
	$(PIP) install $(QUIET) --no-deps $(PIP_ARGS) $(CACHESIM)
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || :
	@if command -v nvidia-smi >/dev/null 2>&1 && $(PIP) freeze | grep -q '^torch==.*+cpu'; then \
		echo "note: an NVIDIA GPU is here, but pip found the CPU build of PyTorch; see CONTRIBUTING.md, Dependencies"; fi
	@touch $@

train: $(STAMP)  ## learn from a timeline (the embedded model on the synthetic demo, unless ARGS says otherwise)
	$(BIN)/python -m rlmemo.train $(ARGS)

benchmark: $(STAMP)  ## compare policies on a timeline
	$(BIN)/python -m rlmemo.benchmark $(ARGS)

dashboard: $(STAMP)  ## see predictions in the browser and rate them
	$(BIN)/python -m dashboard $(ARGS)

# Where bytecode is not to be written, every process would compile what it imports, and every worker all tests.
# A file of tests stays with one worker, which then compiles, loads and trains for that file once;
# tests/conftest.py puts the longest first. One worker more than cores: browsers and servers are waited for.
test: $(STAMP)  ## run all tests (the browser's too, where there is a Chromium)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS) $(ARGS)

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## put the code into the one form, and fix what can be fixed by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)  ## write the tables of docs/ that are made from the code (options, classes)
	$(BIN)/python -m tests.option_tables

constraints: $(STAMP)  ## write the versions that are installed into constraints.txt
	@{ sed -n '/^#/p' constraints.txt; $(PIP) freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//'; } > constraints.new
	@mv constraints.new constraints.txt && touch $(STAMP)

clean:  ## remove .venv and everything that was built (the runs stay)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
