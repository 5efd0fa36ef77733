# Everything runs in the project's own .venv, which the first target that needs it makes.
# `make` lists the targets.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/.ready

# What the shell brings along must not reach the environment, nor keep each process of the tests from
# reading what another has compiled.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE
# A process a core: threads of several processes on the same cores slow each other down.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help setup demo test test-fast lint format docs docs-full readme bench clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: $(READY) ## create .venv with everything that the other targets need

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "xcam needs Python 3.10 or newer; set PYTHON=/path/to/one ($(PYTHON): \
	$$($(PYTHON) --version 2>&1))" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; install its venv package \
	(Debian, Ubuntu: python3-venv)" >&2; exit 1; }
	@echo "Making .venv: this downloads PyTorch, once."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-compile --progress-bar on \
	  -e '.[demo,test,docs,timm,bench,train]'
# On all cores, while pip compiles on one; some packages hold files that are not for this Python.
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	@touch $@

demo: $(READY) ## explain real photographs with a real classifier: demo-out/demo.png, report.html
	@$(BIN)/python examples/demo.py --out demo-out

test: $(READY) ## run all tests
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS)

test-fast: $(READY) ## run the tests that take no processes, trainings or trained nets
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

lint: $(READY) ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## apply ruff's automatic fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY) ## build the site: docs/_build/index.html
	rm -rf docs/_build
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build
	$(BIN)/python docs/links.py docs/_build

docs-full: $(READY) ## draw the methods' pictures, run the gallery, build the site: some minutes
	$(BIN)/python docs/pictures.py
	$(BIN)/python docs/gallery.py
	$(MAKE) docs

readme: $(READY) ## update the tables of methods and metrics, in the README and of the command line
	$(BIN)/python docs/catalogue.py README.md

bench: $(READY) ## time xcam against its peers: benchmarks/
	$(BIN)/python benchmarks/explain.py
	$(BIN)/python benchmarks/metrics.py

clean: ## remove .venv and everything that was built
	rm -rf .venv docs/_build docs/generated demo-out build dist *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
