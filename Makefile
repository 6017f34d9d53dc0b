# Every target only delegates to runtime/ (see runtime/__init__.py).
PYTHON ?= python3
UV ?= uv
ARGS ?=
RUNTIME = @command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is not here: install Python 3.11 or newer"; exit 1; }; \
	$(PYTHON) -c 'import sys; v = sys.version_info; \
	sys.exit(v < (3, 11) and f"Python {v.major}.{v.minor} is too old: install Python 3.11 or newer and call make PYTHON=python3.11 ...")' \
	&& exec $(PYTHON) -m runtime

.DEFAULT_GOAL := help
.PHONY: help run up reload test test-cluster bench bench-ledger chaos experiment sbom lint format setup doctor clean-state lock

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

run: ## set everything up, run the sample tickets, show the results, stop (first time: about 10 minutes)
	$(RUNTIME) run

up: ## set everything up and run until Ctrl-C; the API is described at http://127.0.0.1:8088/openapi.json
	$(RUNTIME) up

reload: ## make the running agent's sidecar read secrets and configuration again
	$(RUNTIME) reload

test: ## run all tests, those that do not start the product first; ARGS="-k name" goes to pytest
	$(RUNTIME) test $(ARGS)

test-cluster: ## test k8s/ on kubectl's current cluster, which needs Dapr and the image refund-agent:dev (about 30 minutes)
	$(RUNTIME) test-cluster $(ARGS)

bench: ## measure tasks a second and latency, compared with DBOS (about 20 minutes); ARGS=--quick takes 3
	$(RUNTIME) bench $(ARGS)

bench-ledger: ## measure the ledger with up to a million tasks (about an hour, 10 GB); ARGS=--quick takes 2 minutes
	$(RUNTIME) bench-ledger $(ARGS)

chaos: ## kill or freeze every process at random under load, check that nothing is lost (18 minutes); ARGS="--seed 7 --tasks 500"
	$(RUNTIME) chaos $(ARGS)

experiment: ## measure what crashes cost with resuming and with restarting (about 10 minutes); ARGS=--quick takes 3
	$(RUNTIME) experiment $(ARGS)

sbom: ## write .state/sbom.cdx.json: the image's packages with their hashes (CycloneDX)
	$(RUNTIME) sbom

lint: ## check style (ruff), format and types (mypy --strict)
	$(RUNTIME) lint

format: ## format all Python files
	$(RUNTIME) format

setup: ## only set up the virtual environment, the development tools and Dapr's programs
	$(RUNTIME) setup

doctor: ## check this machine before anything runs; `refund-agent doctor` also checks what runs
	$(RUNTIME) doctor

clean-state: ## remove .state/ (tasks, ledger, keys, logs) after asking, or with ARGS=--yes; refuses while a stack runs
	$(RUNTIME) clean-state $(ARGS)

lock: ## recompile requirements*.in into the hashed locks (needs uv)
	@for name in requirements requirements-dev lab/bench/requirements-dbos; do \
	$(UV) pip compile $$name.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock" -q -o $$name.lock || exit 1; done
