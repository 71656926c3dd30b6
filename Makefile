# `make demo` trains and tests on rendered videos, `make own` asks the result about clips, `make test` runs the tests.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin

.PHONY: help demo own test test-fast lint types install clean

help: ## show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed ## make .venv with everything that development needs

$(VENV)/installed: setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 13) else "Python 3.10 to 3.13 is needed, found %d.%d: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/installed ## render videos, train, select and test on them: a few minutes on two cores
	$(BIN)/python runs/prepare.py demo --out data/demo
	$(BIN)/python runs/run.py --cfg configs/projects/demo/CLIPFSAR_Demo_1shot.yaml

own: $(VENV)/installed ## say what rendered own clips show, with the demo's model: make demo first, or this does it
	@test -f output/CLIPFSAR_Demo_1shot/checkpoints/checkpoint_best.pyth || $(MAKE) demo
	$(BIN)/python runs/predict.py --support data/demo/own/support --query data/demo/own/query \
	  --checkpoint output/CLIPFSAR_Demo_1shot/checkpoints/checkpoint_best.pyth --out output/own

test: $(VENV)/installed ## run the whole test suite in two processes; WORKERS=0: in one
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests

test-fast: $(VENV)/installed ## run what takes no training run and no browser, as plain pytest does
	$(BIN)/python -m pytest

lint: $(VENV)/installed ## run ruff
	$(BIN)/python -m ruff check .

types: $(VENV)/installed ## run mypy
	$(BIN)/python -m mypy

clean: ## remove .venv
	rm -rf $(VENV) *.egg-info
