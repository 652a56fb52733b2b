# Every target works on a bare machine with python3.11, make and a C++ compiler; `make` alone explains
# itself.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
PYTEST_ARGS ?=

.PHONY: help setup demo up test test-s3 check proto docs bench soak lock

help: ## show this text
	@echo 'lakehouse: an object-storage lakehouse. Start with `make demo`.'
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  .venv/bin/lakehouse --help lists the commands once `make setup` has run.'

setup: .venv/.setup-done ## make .venv from the locks (hashes checked); does nothing when done

.venv/.setup-done: requirements.lock deploy/sources.lock pyproject.toml tools/setup.sh
	@PYTHON=$(PYTHON) bash tools/setup.sh

demo: setup ## ingest messy exports into an embedded bucket, ask SQL across them, serve :3100 and :3101
	@$(BIN)/lakehouse demo

up: setup ## run every role in one process as lakehouse.toml says
	@$(BIN)/lakehouse up

test: setup ## all tests that need nothing but this machine; the house rules are in check
	@# Some hundred processes are started: without bytecode, each would compile all that it imports.
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n auto --dist worksteal \
	  -m 'not s3 and not soak and not bench' --ignore=tests/house $(PYTEST_ARGS)

test-s3: setup ## the tests that need a real S3 server (Ceph radosgw, installed by apt if missing)
	@bash tools/install_ceph.sh
	$(BIN)/python tools/s3_server.py --run $(BIN)/python -m pytest -m s3 $(PYTEST_ARGS)

check: setup ## format, lint, types, layers, house rules, generated code
	$(BIN)/ruff format --check services sidecar tests tools
	$(BIN)/ruff check services sidecar tests tools
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -n 0 tests/house
	@bash tools/check_generated.sh

proto: setup ## regenerate services/lakehouse/v1 from protos/
	$(BIN)/python tools/make_proto.py

docs: setup ## regenerate docs/api/{cli,config,errors}.md from the code
	$(BIN)/python tools/make_docs.py

bench: setup ## timings against budgets; writes docs/BENCHMARKS.md (SUBJECT=start: that one alone)
	@$(BIN)/python -c "import chromadb, deltalake, lance, pyiceberg" 2>/dev/null || $(BIN)/python -m pip install \
	  --quiet --no-deps --require-hashes --only-binary :all: -r tests/bench/requirements.lock
	$(BIN)/python tests/bench/run.py $(SUBJECT)

soak: setup ## the long runs: more seeds, more kills, more malformed requests
	$(BIN)/python tests/bench/soak.py $(PYTEST_ARGS)

UV_FLAGS := --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-find-links --no-annotate --no-header --quiet

lock: setup ## resolve the locks anew from pyproject.toml (needs uv on the PATH)
	uv pip compile pyproject.toml $(UV_FLAGS) --extra dev --extra build --extra model \
	  --no-emit-package hnswlib -o requirements.lock
	uv pip compile pyproject.toml $(UV_FLAGS) --extra build --extra model \
	  --no-emit-package hnswlib -c requirements.lock -o deploy/requirements.lock
	sed -n 's/^ *"\(hnswlib==.*\)",$$/\1/p' pyproject.toml | \
	  uv pip compile - --no-deps $(UV_FLAGS) -o deploy/sources.lock
	uv pip compile pyproject.toml $(UV_FLAGS) --extra bench --no-emit-package hnswlib \
	  -c requirements.lock -o tests/bench/requirements.lock
