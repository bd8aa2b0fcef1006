# One command a task; HACKING.md says more.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: setup demo test test-docker lint docs wheels planted-bugs soak accelerator peers clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/python demo/run.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python docs/make_cli.py > docs/cli.md
	$(BIN)/python docs/make_schema.py > funcrt/funcrt.schema.json
	DEMO_SVG=docs/demo.svg $(BIN)/python demo/run.py | cat

wheels: setup
	$(BIN)/python docs/make_wheels.py > funcrt/wheels.sha256

# A worker a core, of which each takes whole files: a file's host is started once.
test: lint
	$(BIN)/python -m pytest -m "not alone" --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
	$(BIN)/python -m pytest -m alone

test-docker: setup
	$(BIN)/python -m pytest tests/docker

planted-bugs: setup
	$(BIN)/python -m tests.planted

soak: setup
	$(BIN)/python -m tests.soak

accelerator: setup
	$(BIN)/python -m pip install --quiet ./accelerator

peers:
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip install --quiet --requirement benchmarks/peers.txt
	if command -v mvn >/dev/null; then mvn -q -f benchmarks/ruler/pom.xml dependency:copy-dependencies; fi

clean:
	rm -rf $(VENV) .peers .mypy_cache .ruff_cache .pytest_cache
