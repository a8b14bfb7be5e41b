# `make` lists what can be made. Everything runs in .venv, which is made where it is missing.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
.DEFAULT_GOAL := help
.PHONY: help setup train sweep test test-slow lint format types bench tensorboard clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## create .venv with everything needed (made by itself where needed)

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "hwr needs Python 3.11 or newer, this is %s; try: make PYTHON=python3.11" % sys.version.split()[0])'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "Installing PyTorch and the rest into $(VENV): a few minutes and about 6 GB the first time"
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: setup  ## train on the embedded digits: under a minute, no download
	$(RUN) -m hwr.train experiment=digits_cnn

sweep: setup  ## compare eight small trainings on the embedded digits: under 3 minutes; again: nothing is repeated
	OMP_NUM_THREADS=1 $(RUN) -m hwr.train -m experiment=digits_cnn network=tiny,lenet_16_32 optimizer.lr=2e-3,1e-2 seed=1,2 trainer.max_epochs=5

test: setup  ## the fast tests, 7 to 12 minutes
	$(RUN) -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: setup  ## the slow tests: the wheel, the notebook, several processes, real training
	$(RUN) -m pytest -m slow

lint: setup  ## ruff: style and mistakes
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: setup  ## ruff: mend what can be mended
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

types: setup  ## mypy --strict
	$(RUN) -m mypy --strict hwr

bench: setup  ## the figures of benchmarks/README.md (needs MNIST and copiste in $HWR_DATA_DIR or data/; over half an hour)
	$(RUN) -m benchmarks.startup
	$(RUN) -m benchmarks.speed
	$(RUN) -m benchmarks.devices
	$(RUN) -m benchmarks.accuracy mnist_tiny
	$(RUN) -m benchmarks.accuracy mnist_cnn
	$(RUN) -m benchmarks.shards
	$(RUN) -m benchmarks.lines copiste $${HWR_DATA_DIR:-data}/copiste

tensorboard: setup  ## look at all runs
	$(VENV)/bin/tensorboard --logdir outputs

clean:  ## remove .venv and caches; runs in outputs/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
