# Every target makes the virtual environment it needs. On a machine with only Python and git, `make demo` just works.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# What CI and these targets install is pinned; users get the open ranges of pyproject.toml. Some of the pinned packages have
# left Python 3.10, where pip may choose.
PINS   := $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" if sys.version_info >= (3, 11) else "")')
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PINS)
# The fault tests take system calls apart with strace, and sharing is tested over a real sshd; both are installed where that is
# possible, and the tests say so where not.
TOOLS  := $(shell command -v strace >/dev/null 2>&1 || echo strace; test -x /usr/sbin/sshd || echo openssh-server)
# The long tests share through a real Ceph and through Azurite too.
CEPH   := $(shell for program in radosgw ceph-mon ceph-osd; do command -v $$program >/dev/null || echo $$program; done)
AZURITE := azurite@3.35.0

.PHONY: help demo test test-long bench lint docs clean

help:
	@echo "make demo       train a small GPT, kill it, go on exactly, fork, tag, restore (about a minute)"
	@echo "make test       all tests but the long ones"
	@echo "make test-long  the long ones: full fault sweeps, deep property runs, power cuts, sharing through Ceph and Azurite"
	@echo "make bench      measure, and write docs/benchmarks.md"
	@echo "make lint       ruff and mypy"
	@echo "make docs       write the pages that are generated from the code"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# What a user has who installed ckptvcs[train].
$(VENV)/.train: $(BIN)/python pyproject.toml constraints.txt ckptvcs/storage/_md5lanes.c
	$(PIP) -e '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	$(PIP) -e '.[dev]'
	@touch $@

demo: $(VENV)/.train
	$(BIN)/python demo/run.py

test: $(VENV)/.dev tools
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q

test-long: $(VENV)/.dev tools servers
	HYPOTHESIS_PROFILE=deep $(BIN)/python -m pytest -n 2 --dist load -q -m 'long or not long' --timeout 7200

bench: $(VENV)/.dev
	@$(BIN)/python -m compileall -q ckptvcs  # as pip does when it installs: what starts cold is measured
	$(BIN)/python -m tests.bench.run --write docs/benchmarks.md

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(BIN)/python -m tests.support.reference

.PHONY: tools servers
tools:
ifneq ($(TOOLS),)
	-@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get install -y -qq $(TOOLS) >/dev/null; fi
endif

# What cannot be installed here is missing afterwards, and the tests that need it say so and are skipped.
servers: $(VENV)/.dev
ifneq ($(CEPH),)
	-@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get install -y -qq --no-install-recommends $(CEPH) >/dev/null; fi
endif
	-@test -x $(VENV)/node/node_modules/.bin/azurite-blob || ! command -v npm >/dev/null || \
	  npm install --silent --no-fund --no-audit --prefix $(VENV)/node $(AZURITE) >/dev/null
	-@$(PIP) -e '.[azure]'

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
