# Two commands for a new user: `make demo` and `make test`. All of it happens in .venv and ./demo.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

# Those of the supported versions that run here, oldest first.
PYTHONS = $(foreach v,3.11 3.12 3.13 3.14,$(shell python$(v) -c '' 2> /dev/null && echo python$(v)))

.PHONY: demo test quick oldest readers matrix check lint bench slurm-demo fuzz faults docs dist clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $(READY)

demo: $(READY)   ## convert a small synthetic CT-RATE, verify it, free its disk, show what happened
	rm -rf demo
	$(BIN)/ctrate-convert demo demo

test: $(READY)   ## all tests; those of Slurm need its packages and skip, saying so, where they are missing
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not slurm"
	$(BIN)/pytest -q -n 3 --dist loadfile -m slurm

quick: $(READY)  ## the unit tests: under two minutes on two cores
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not slow and not slurm"

oldest:          ## the quick tests with the oldest dependencies that are allowed, and the oldest Python at hand
	$(firstword $(PYTHONS) $(PYTHON)) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --disable-pip-version-check \
		--constraint tests/oldest.txt --editable '.[test]'
	.venv-oldest/bin/pytest -q -n 2 --dist worksteal -m "not slow and not slurm"

readers:         ## every other reader with its own package, and the oldest webdataset; torch is among them
	$(PYTHON) -m venv .venv-readers
	.venv-readers/bin/pip install --quiet --disable-pip-version-check --editable '.[test,readers]'
	.venv-readers/bin/pytest -q tests/readers
	$(PYTHON) -m venv .venv-readers-oldest
	.venv-readers-oldest/bin/pip install --quiet --disable-pip-version-check \
		--editable '.[test]' torch webdataset==0.2.100
	.venv-readers-oldest/bin/pytest -q tests/readers

matrix:          ## the quick tests on every Python at hand, with the newest dependencies
	for python in $(PYTHONS); do $(MAKE) quick PYTHON=$$python VENV=.venv-$$python || exit 1; done

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test ## what a developer runs before a commit

bench: $(READY)  ## side-by-side benchmarks, in ratios
	$(BIN)/python -m benchmarks all

slurm-demo: $(READY)  ## the demo through a real three-node Slurm on this machine
	rm -rf slurm-demo
	$(BIN)/python -m slurm.demo slurm-demo

fuzz: $(READY)   ## tampered files and hostile volumes, for five minutes
	$(BIN)/python -m tests.promises.fuzz --seconds 300

faults: $(READY) ## every call of every command made to fail in every way, for half an hour
	$(BIN)/python -m tests.promises.faults --seconds 1800

docs:            ## the documents as a site, in site/; every warning is an error
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	.venv-docs/bin/mkdocs build --strict

dist:            ## source distribution and wheel, in dist/
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/pip install --quiet --disable-pip-version-check build
	.venv-dist/bin/python -m build

clean:
	rm -rf $(VENV) .venv-* demo slurm-demo bench-work site build dist
