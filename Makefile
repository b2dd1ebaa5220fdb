# One word for each thing a developer does. `make install` builds .venv; the others build it when they need to.
# PYTHON=/path/to/python chooses the interpreter; without it, the one that .venv has, or the newest that runs.

CONSTRAINTS := deployments/constraints.txt
INSTALLED := .venv/.installed
INTERPRETER := .venv/.interpreter
BIN := .venv/bin

PEERS := .venv-peers/.installed
PEER_LIST := tests/benchmarks/peers.txt

.PHONY: help install demo test check bench up down FORCE
.DELETE_ON_ERROR:

help:
	@echo 'make install   build .venv ($(CONSTRAINTS) pins it; PYTHON=/path/to/python chooses)'
	@echo 'make demo      real data, end to end, as a Prefect flow under a memory limit'
	@echo 'make up        Prefect server, page, deployments and a worker on this machine; PORT=4200; Ctrl-C ends it'
	@echo 'make down      ends what `make up` runs, from another shell'
	@echo 'make test      the tests, without the slow ones and those that need a server'
	@echo 'make check     ruff, mypy, import-linter'
	@echo 'make bench     against peers in .venv-peers ($(PEER_LIST) pins them); ARGS="--size small --only v1"'

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/swath demo

# Grouped and ordered by tests/conftest.py.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder -m 'not slow and not server'

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED) $(PEERS)
	$(BIN)/python -m tests.benchmarks.bench $(ARGS)

# exec: a Ctrl-C has one process to wait for, which ends all the others.
up: $(INSTALLED)
	@exec $(BIN)/python -m deployments.up --port '$(PORT)'

down: $(INSTALLED)
	@exec $(BIN)/python -m deployments.down

# Rewritten only when the interpreter is another one, or .venv's does not run: then .venv is built again.
$(INTERPRETER): FORCE
	@had=$$(cat $@ 2>/dev/null || true); \
	$(BIN)/python -c '' 2>/dev/null || had=; \
	found=$$had; \
	if [ -n '$(PYTHON)' ] || [ -z "$$had" ]; then found=$$(PYTHON='$(PYTHON)' .ci/python) || exit 1; fi; \
	[ "$$found" = "$$had" ] || { mkdir -p .venv && printf '%s\n' "$$found" > $@; }

$(INSTALLED): $(INTERPRETER) pyproject.toml $(CONSTRAINTS)
	@python=$$(cat $(INTERPRETER)); set -e; \
	echo "building .venv with $$python"; \
	"$$python" -m venv --clear .venv; \
	printf '%s\n' "$$python" > $(INTERPRETER); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[test]'; \
	touch $@

# Peers that cannot be installed here are left out, and the benchmarks say so.
$(PEERS): $(INTERPRETER) $(PEER_LIST)
	@python=$$(cat $(INTERPRETER)); set -e; \
	echo "building .venv-peers with $$python"; \
	"$$python" -m venv --clear .venv-peers; \
	pip='.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check'; \
	$$pip -r $(PEER_LIST) || grep -v '^#' $(PEER_LIST) | while read -r peer; do \
		$$pip --no-deps "$$peer" || echo "MISSING: $$peer could not be installed" >&2; \
	done; \
	touch $@
