# `make demo` and `make test` are all a newcomer needs; each makes the environment first.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/installed

# One thread by default: the models are small, and results depend on the thread count in the last bits.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= $(OMP_NUM_THREADS)

# Where HOME cannot be written, the tools get a place for their caches inside the environment.
ifneq ($(shell test -n "$$HOME" -a -w "$$HOME" && echo writable),writable)
CACHE := $(CURDIR)/$(VENV)/cache
export PIP_CACHE_DIR ?= $(CACHE)/pip
export XDG_CACHE_HOME ?= $(CACHE)
export MPLCONFIGDIR ?= $(CACHE)/matplotlib
export NUMBA_CACHE_DIR ?= $(CACHE)/numba
endif

.PHONY: help install demo test lint bench soak fuzz
help:
	@echo "make demo     make something with every shipped model, into out/"
	@echo "make test     the tests"
	@echo "make lint     ruff, mypy, import-linter"
	@echo "make install  the environment .venv alone; PYTHON=python3.12 chooses the interpreter"
	@echo "make bench    speed of the generators and of the sound"
	@echo "make soak     training killed 500 times (some minutes)"
	@echo "make fuzz     10,000 damaged files for every reader (some minutes)"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@test -x $(RUN) || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: $(PYTHON) is too old; Python 3.10 or later is needed: make install PYTHON=python3.12" >&2; exit 2; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: install
	$(RUN) demos/make_demo.py out

test: install
	$(RUN) -m pytest -q

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

bench: install
	$(RUN) tests/bench/bench_music.py
	$(RUN) tests/bench/bench_sound.py
	$(RUN) tests/bench/bench_vocoder.py

# 100 kills between two system calls, and 3 signals x 45 runs x 3 at random moments.
soak: install
	AFFGEN_SOAK=45 $(RUN) -m pytest -q --timeout=0 tests/test_affgen_training_state.py -k killed

fuzz: install
	AFFGEN_FUZZ=10000 $(RUN) -m pytest -q --timeout=0 tests -k "fuzz or mutated"
