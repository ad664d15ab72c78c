# `make` alone says what there is. Two commands are all the set-up: `make demo`, `make test`.
# Another interpreter: make test PYTHON=python3.12     Another wheel of torch: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check format format-check lint types doctest floors hub-floor bench continual continual-table sweep sweep-figures zoo-permuted-digits zoo-metaworld-mt10 zoo-metaworld-mt50 metaworld-continual clean

# The first python that torch's pinned version has wheels for.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python3.14 python; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
# Two workers, a whole file of tests to each. For one test: make test PYTEST='tests/test_functional.py -x'
PYTEST ?= -n 2 --dist loadfile

help:  ## this list
	@echo "dendrite-zoo: networks with active dendrites that learn one task after another."
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-26s %s\n", $$1, $$2 }'
	@echo
	@echo "Start with make demo: it sets up .venv by itself (Python 3.10 to 3.14, a network, about two minutes)."

demo: .venv/.demo  ## load a pretrained network, teach it two new tasks, see what it forgot
	$(BIN)/dendrite-zoo demo

test: .venv/.dev  ## the tests
	$(BIN)/python -m pytest $(PYTEST)

check: format-check lint types doctest floors test  ## what CI runs: format, lint, types, doctests, floors, then the tests

format: .venv/.dev  ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

format-check: .venv/.dev
	$(BIN)/ruff format --check .

lint: .venv/.dev
	$(BIN)/ruff check .

types: .venv/.dev
	$(BIN)/mypy

doctest: .venv/.dev
	$(BIN)/python -m pytest --doctest-modules dendrite_zoo

floors: .venv/.dev
	$(BIN)/python -m pytest -q tests/test_floors.py

hub-floor: .venv/.dev  ## the Hub tests on the oldest huggingface-hub that is supported
	$(BIN)/python -m pip install --quiet --upgrade --target build/hub-floor 'huggingface-hub==1.31.*'
	PYTHONPATH=$(CURDIR)/build/hub-floor $(BIN)/python -m pytest $(PYTEST) tests/hub tests/callbacks/test_publisher.py

# MNIST may be a folder that holds it: make bench MNIST=~/data/mnist
MNIST ?= mnist
BENCHMARKS ?= training_step mixed_contexts stream inference imports callbacks environments policy sac
bench: .venv/.dev  ## the benchmarks, into benchmarks/results (ten minutes, 12 GB of memory)
	mkdir -p benchmarks/results
	for name in $(BENCHMARKS); do \
		test $$name = stream && source="--source $(MNIST)" || source=; \
		$(BIN)/python benchmarks/$$name.py $$source | tee benchmarks/results/$$name.json; done
	$(BIN)/python benchmarks/picture.py

# Three seeds of weights and permutations, and as many of the control; the entry takes the weights of seed 0.
SEEDS ?= 0 1 2
zoo-permuted-digits: .venv/.dev  ## train the zoo's permuted-digits and its controls anew
	for row in permuted-digits permuted-digits-mlp permuted-digits-mlp-si; do for seed in $(SEEDS); do \
		OMP_NUM_THREADS=1 $(BIN)/dendrite-zoo fit --config dendrite_zoo/configs/$$row.yaml --seed_everything $$seed \
			--data.init_args.seed $$seed --name $$row-$$seed || exit 1; done; done
	$(BIN)/dendrite-zoo report $(foreach row,permuted-digits permuted-digits-mlp permuted-digits-mlp-si,$(SEEDS:%=runs/$(row)-%)) \
		--entry permuted-digits --build "make zoo-permuted-digits"
	$(BIN)/python tests/test_readme.py

# Robot skills, distilled from scripted experts, and their controls; records go to results/metaworld.
METAWORLD := OMP_NUM_THREADS=1 $(BIN)/dendrite-zoo fit
zoo-metaworld-mt10: .venv/.dev  ## train the zoo's ten robot skills and their control anew (some hours on two cores)
	for row in metaworld-mt10 metaworld-mt10-mlp; do for seed in $(SEEDS); do \
		$(METAWORLD) --config dendrite_zoo/configs/$$row.yaml --seed_everything $$seed --name $$row-$$seed || exit 1; done; done
	$(BIN)/dendrite-zoo report $(foreach row,metaworld-mt10 metaworld-mt10-mlp,$(SEEDS:%=runs/$(row)-%)) \
		--json results/metaworld/mt10.json --entry metaworld-mt10 --build "make zoo-metaworld-mt10"

zoo-metaworld-mt50: .venv/.dev  ## train the zoo's fifty robot skills and their control anew
	for row in metaworld-mt50 metaworld-mt50-mlp; do for seed in $(SEEDS); do \
		$(METAWORLD) --config dendrite_zoo/configs/$$row.yaml --seed_everything $$seed --name $$row-$$seed || exit 1; done; done
	$(BIN)/dendrite-zoo report $(foreach row,metaworld-mt50 metaworld-mt50-mlp,$(SEEDS:%=runs/$(row)-%)) \
		--json results/metaworld/mt50.json --entry metaworld-mt50 --build "make zoo-metaworld-mt50"

FIVE := metaworld-continual-5 metaworld-continual-5-mlp metaworld-continual-5-mlp-si
metaworld-continual: .venv/.dev  ## five robot tasks one after another, with dendrites and without
	for row in $(FIVE); do for seed in $(SEEDS); do \
		$(METAWORLD) --config dendrite_zoo/configs/$$row.yaml --seed_everything $$seed --name $$row-$$seed || exit 1; done; done
	$(BIN)/dendrite-zoo report $(foreach row,$(FIVE),$(SEEDS:%=runs/$(row)-%)) --json results/metaworld/continual-5.json

# One row: make continual ROW=permuted-mnist-10-si SEEDS=0. Each seed draws weights and permutations anew.
ROW ?= permuted-mnist-10-ours
continual: .venv/.dev  ## a row of the continual-learning table: configs/ROW.yaml into results/continual/ROW.json
	for seed in $(SEEDS); do $(BIN)/dendrite-zoo fit --config dendrite_zoo/configs/$(ROW).yaml --seed_everything $$seed \
		--data.init_args.seed $$seed --name $(ROW)-$$seed || exit 1; done
	$(BIN)/dendrite-zoo report $(SEEDS:%=runs/$(ROW)-%) --json results/continual/$(ROW).json

continual-table: .venv/.dev  ## all rows in one table, and the figures, beside the published numbers
	$(BIN)/dendrite-zoo report results/continual/*.json --figures results/continual

# A row again for several values of an argument of its model; more words for the command in FLAGS.
BY ?= activation_density
VALUES ?= 0.05 0.1 0.2
sweep: .venv/.dev  ## make sweep ROW=permuted-mnist-10 BY=num_segments VALUES="2 50": into results/sweeps
	for value in $(VALUES); do $(BIN)/dendrite-zoo fit --config dendrite_zoo/configs/$(ROW).yaml $(FLAGS) \
		--model.init_args.model.init_args.$(BY) $$value --name $(ROW)-$(BY)-$$value || exit 1; done
	$(BIN)/dendrite-zoo report $(VALUES:%=runs/$(ROW)-$(BY)-%) --json results/sweeps/$(ROW)-$(BY).json

sweep-figures: .venv/.dev  ## accuracy by number of segments and by density, beside the published numbers
	$(BIN)/dendrite-zoo report results/continual/permuted-mnist-10.json results/sweeps/*.json --figures results/sweeps

clean:  ## remove the environment, builds and caches (not runs/)
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp says that the environment holds what pyproject.toml and constraints.txt ask for.
.venv/.demo: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[report]'
	touch $@

.venv/.dev: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mnist,report,metaworld,dev]'
	touch $@ .venv/.demo

.venv/pyvenv.cfg:
	@test -n "$(PYTHON)" || { echo "No Python 3.10 to 3.14 was found. Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
