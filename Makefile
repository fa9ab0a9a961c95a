# Two commands for newcomers: `make demo` and `make test`. Both make .venv and install what is missing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
PRESETS := thesis-6.1 thesis-6.2 thesis-6.3-ex1 thesis-6.3-ex2 thesis-6.3-ex3 thesis-6.3-ex4
WAISTS := $(foreach preset,$(PRESETS),--waist $(preset))

.PHONY: demo test test-web check docs bench kills beside clean

demo: $(READY)  ## train on real digits, record, analyze under six waists, draw
	@mkdir -p demo
	$(BIN)/ibstore capture mnist-cnn --store demo/lab.zarr --force
	$(BIN)/ibstore analyze demo/lab.zarr $(WAISTS) --out demo/plane.csv
	$(BIN)/ibstore analyze demo/lab.zarr $(WAISTS) --epoch 0 --epoch 1 --epoch 10
	$(BIN)/ibstore plot demo/lab.zarr plane $(WAISTS) --out demo/plane.png
	$(BIN)/ibstore report demo/lab.zarr $(WAISTS) --out demo/report.html
	@cat docs/after-demo.txt

test: $(READY)  ## the test suite, on every core
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadgroup

test-web: $(READY)  ## the tests of the report's page alone, in the system's Chromium
	CI=true $(BIN)/python -m pytest tests/web

check: $(READY)  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY)  ## the site, into site/: reference from docstrings and --help, examples executed; whatever leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html is the site; its search needs a server: $(PYTHON) -m http.server --directory site"

bench: $(READY)  ## the benchmarks; their tables are kept in docs/benchmarks.md
	$(BIN)/python -m benchmarks.plane
	$(BIN)/python -m benchmarks.tiny
	$(BIN)/python -m benchmarks.counting
	$(BIN)/python -m benchmarks.query
	$(BIN)/python -m benchmarks.bias
	$(BIN)/python -m benchmarks.density
	$(BIN)/python -m benchmarks.compression
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.storage
	$(BIN)/python -m benchmarks.cluster
	$(BIN)/python -m benchmarks.capture
	$(BIN)/python -m benchmarks.ensemble
	$(BIN)/python -m benchmarks.literature
	$(BIN)/python -m benchmarks.scale

kills: $(READY)  ## kill captures and workers at random instants, and go on; 8 GiB in a worker of 1 GiB
	$(BIN)/python -m tests.kills
	$(BIN)/python -m tests.cluster.kills
	$(BIN)/python -m tests.cluster.large

beside: $(READY)  ## read a store for a minute while it is written
	$(BIN)/python -m tests.beside

clean:  ## remove what the other commands made
	rm -rf .venv demo site build dist

# Modules are compiled as they are imported: of all that is installed few ever are, and it takes a minute.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@
