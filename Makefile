# `make` alone says what there is. Two commands are all the set-up: `make demo`, `make test`.
# Another interpreter: make test PYTHON=python3.12     Another wheel of torch: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check docs notebooks format format-check lint types doctest floors hub-floor strangers bench zoo campaign figures release-dry-run clean links

# The first python that torch's pinned version has wheels for.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python3.14 python; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
# Two workers: one that has done its half takes over a part of the other's. For one test: make test PYTEST='tests/test_records.py -x'
PYTEST ?= -n 2 --dist worksteal --durations 10

help:  ## this list
	@echo "dendrite-zoo: networks with active dendrites that learn one task after another."
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-26s %s\n", $$1, $$2 }'
	@echo
	@echo "Start with make demo: it sets up .venv by itself (Python 3.10 to 3.14, a network, about two minutes)."

demo: .venv/.demo  ## load a pretrained network, teach it two new tasks, see what it forgot
	$(BIN)/dendrite-zoo demo
	@echo "To type dendrite-zoo yourself, here and now: . $(BIN)/activate"

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

# Offline once .venv stands. Code that fails, a broken link, an unknown reference or a page in no table of contents is an error.
docs: .venv/.docs  ## run the code of all pages, and build the site: open build/docs/index.html
	$(BIN)/python -m pytest -q -n 2 docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env -d build/doctrees docs build/docs

notebooks: .venv/.docs  ## run the notebooks of the site, and compare what they print with what they hold (two minutes)
	$(BIN)/python tools/notebooks.py --check

hub-floor: .venv/.dev  ## the Hub tests on the oldest huggingface-hub that is supported
	$(BIN)/python -m pip install --quiet --upgrade --target build/hub-floor 'huggingface-hub==1.31.*'
	PYTHONPATH=$(CURDIR)/build/hub-floor $(BIN)/python -m pytest $(PYTEST) tests/hub tests/callbacks/test_publisher.py

# Warnings of other libraries are theirs; the tests compare those that our callbacks add.
strangers: .venv-strangers/.done  ## the callbacks in pipelines of torchgeo, timm, transformers, ... (8 GB; not in CI)
	.venv-strangers/bin/python -m pytest -W default tests/strangers/libraries

# MNIST may be a folder that holds it: make bench MNIST=~/data/mnist
MNIST ?= mnist
BENCHMARKS ?= training_step mixed_contexts stream inference imports callbacks environments policy sac many_contexts growth sac_subnetworks fit watching backbone_step ridge_head by_hand
bench: .venv/.dev  ## the benchmarks, into benchmarks/results (ten minutes, 12 GB of memory)
	mkdir -p benchmarks/results
	failed=; for name in $(BENCHMARKS); do \
		test $$name = stream && source="--source $(MNIST)" || source=; new=benchmarks/results/$$name.json.new; \
		$(BIN)/python benchmarks/$$name.py $$source > $$new && mv $$new benchmarks/results/$$name.json \
			|| { rm -f $$new; failed="$$failed $$name"; }; done; \
	$(BIN)/python benchmarks/picture.py; \
	test -z "$$failed" || { echo "failed, their results are the earlier ones:$$failed"; exit 1; }

# Three seeds of each recipe; a zoo entry takes the weights of seed 0. tools/sweep.py says what else it can do.
zoo: .venv/.dev  ## train the models of the zoo and their controls anew (some hours on two cores)
	$(BIN)/python tools/sweep.py permuted-digits permuted-digits-mlp permuted-digits-mlp-si --json runs/permuted-digits.json
	$(BIN)/python tools/sweep.py metaworld-mt10 metaworld-mt10-mlp --json results/metaworld/mt10.json
	$(BIN)/python tools/sweep.py metaworld-mt50 metaworld-mt50-mlp --json results/metaworld/mt50.json
	$(BIN)/python tools/make_entry.py permuted-digits runs/permuted-digits-0 runs/permuted-digits.json
	$(BIN)/python tools/make_entry.py metaworld-mt10 runs/metaworld-mt10-0 results/metaworld/mt10.json
	$(BIN)/python tools/make_entry.py metaworld-mt50 runs/metaworld-mt50-0 results/metaworld/mt50.json
	$(BIN)/python -m tools.readme

campaign: .venv/.dev  ## damage, faults and kills by the thousand, into docs/reliability.md (an hour on two cores)
	$(BIN)/python -m tests.campaign
	$(BIN)/python -m tools.readme

figures: .venv/.dev  ## all results in tables and figures, beside the published numbers
	$(BIN)/dendrite-zoo report results/continual/*.json --figures results/continual
	$(BIN)/dendrite-zoo report results/continual/permuted-mnist-10.json results/sweeps/*.json --figures results/sweeps

# Options: make release-dry-run RELEASE='--pythons 3.11 --goals 1 --namespace me'
release-dry-run: | links  ## rehearse a release: build, install, publish to a loopback Hub, measure; says how to do it for real
	$(PYTHON) -m tools.release $(RELEASE)

clean:  ## remove the environment, builds and caches (not runs/)
	rm -rf .venv .venv-strangers build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp says that the environment holds what pyproject.toml and constraints.txt ask for.
.venv/.demo: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[report]'
	touch $@

.venv/.dev: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mnist,report,metaworld,dev]'
	touch $@ .venv/.demo

.venv/.docs: .venv/.dev
	$(BIN)/python -c 'import sys; sys.exit("The site is built with Python 3.11 or later." if sys.version_info < (3, 11) else 0)'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

.venv-strangers/.done: tests/strangers/requirements.txt pyproject.toml | links
	$(PYTHON) -m venv .venv-strangers
	.venv-strangers/bin/python -m pip install --quiet --requirement tests/strangers/requirements.txt --editable '.[report]'
	touch $@

.venv/pyvenv.cfg: | links
	@test -n "$(PYTHON)" || { echo "No Python 3.10 to 3.14 was found. Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv

# Three folders of the package are links. A checkout without symbolic links, as on Windows, has text files instead.
links:
	@for name in callbacks lightning_modules model_cards; do test -d dendrite_zoo/$$name || { \
		echo "dendrite_zoo/$$name is a text file, not a link: on Windows, turn on developer mode; then clone again with git clone -c core.symlinks=true."; exit 1; }; done
