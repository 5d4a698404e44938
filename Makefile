# Everything happens in .venv, which is made from requirements.lock on the first call and kept until that changes.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
BUTLER := .venv-butler
# Two processes: the tests wait for disks and daemons more than they compute.
PYTEST_ARGS ?= -n 2 --dist worksteal

# Compiled files are kept here, whatever the environment says: the tests start Stager hundreds of times.
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/pycache
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check bench butler lock clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile

$(READY): requirements.lock pyproject.toml tools/venv.sh
	@sh tools/venv.sh $(VENV) $(PYTHON)
	@touch $@

demo: $(READY)  ## four hosts, a focal plane and a visit, from submission to a claimed trigger (under a minute)
	@$(VENV)/bin/stager demo

test: $(READY)  ## every test; PYTEST_ARGS="-k landing" for some
	@$(PY) -m pytest $(PYTEST_ARGS)

check: $(READY)  ## format, lint, types and the arrows between the packages
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) -m pytest -p no:cacheprovider tests/test_arrows.py

bench: $(READY)  ## the figures of DESIGN.md, measured here, side by side with what people use instead
	@$(PY) -m benchmarks

$(BUTLER)/.ready: requirements-butler.lock tools/venv.sh
	@sh tools/venv.sh $(BUTLER) $(PYTHON) requirements-butler.lock
	@touch $@

butler: $(BUTLER)/.ready  ## the Butler of the LSST pipelines in an environment of its own, for the tests of what it is handed

lock: $(READY)  ## renew requirements.lock and requirements-butler.lock from pyproject.toml and requirements*.in
	@$(PY) -m pip install --quiet --no-cache-dir --target $(VENV)/lock uv
	@$(VENV)/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-cache --no-emit-package stager --custom-compile-command "make lock" \
		--all-extras pyproject.toml requirements.in --output-file requirements.lock
	@$(VENV)/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-cache --custom-compile-command "make lock" requirements-butler.in --output-file requirements-butler.lock

clean:  ## back to the bare checkout
	@rm -rf $(VENV) $(BUTLER) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
