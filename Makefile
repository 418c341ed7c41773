# `make help` says what there is. Needs Python 3.11 or newer with venv, and make; everything else is installed.

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo_contest
WORKERS ?= 3
SOURCES := augment models pipeline tools demo benchmarks hack_train.py predict.py

.PHONY: help demo tests quick fuzz check format lint types bench bench-gpu pictures walkthrough clear
.DEFAULT_GOAL := help

help: ## what each target does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

demo: .venv/installed ## draw a small contest, train on it, predict, show the result (about 7 minutes)
	$(BIN)/python -m demo $(DEMO)
	$(BIN)/python hack_train.py --config configs/demo.yaml --name demo --data $(DEMO) --runs $(DEMO)/runs
	$(BIN)/python predict.py --runs $(DEMO)/runs
	$(BIN)/python -m demo.result $(DEMO) --runs $(DEMO)/runs

pictures: demo ## make the pictures of the README and the docs anew
	$(BIN)/python -m demo.pictures $(DEMO) --runs $(DEMO)/runs

walkthrough: .venv/installed ## walk the way of docs/walkthrough.md and write that page anew (about 15 minutes)
	$(BIN)/python -m benchmarks.walkthrough

tests: .venv/installed-dev ## run all tests, in three processes, of which one often waits (WORKERS=6 make tests: in six)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

quick: .venv/installed-dev ## run the four fifths of the tests that train nothing, for use while you work
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist worksteal

fuzz: .venv/installed-dev ## damage ten thousand files, flags and disks, one a case; FUZZ_SEED=1 takes others
	FUZZ_CASES=$${FUZZ_CASES:-300} $(BIN)/python -m pytest tests/fuzz

bench: .venv/installed-dev ## measure this machine beside other libraries and beside its limits (about 9 minutes on two cores)
	$(BIN)/python -m benchmarks.suite

bench-gpu: .venv/installed-dev ## the same for what has to be measured on a GPU, and the tests that need one (meant to take under an hour)
	$(BIN)/python -m benchmarks.suite --gpu

check: lint types tests ## format, lint, types and tests

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/installed-dev
	$(BIN)/mypy $(SOURCES)

format: .venv/installed-dev ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clear: ## remove what was generated: environment, caches, the demo and the walkthrough with their runs; your runs stay
	rm -rf .venv cache sheets demo_contest walkthrough .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
