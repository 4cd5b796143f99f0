# Each target does what it needs by itself: `make demo` on a fresh machine sets everything up first.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CODE := roclip_sanitize jobs benchmarks tests
DEMO ?=

.PHONY: setup demo test quick check format lint types imports lock clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

demo: setup            ## the closed loop; DEMO="--shards … --test-shards … --label …" runs it on your data
	$(BIN)/roclip demo $(DEMO)

test: setup            ## every test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

quick: setup           ## the tests that start no Ray, train nothing and run no whole command
	$(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal --hypothesis-profile quick

check: lint types imports quick

format: setup
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

lint: setup
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

types: setup
	$(BIN)/mypy $(CODE)

imports: setup
	$(BIN)/lint-imports

lock:                  ## pin every package, with hashes and without naming an index
	uv pip compile pyproject.toml requirements.in --extra dev --python-version 3.11 \
		--generate-hashes --no-emit-index-url --quiet --upgrade -o requirements.lock

clean:
	rm -rf $(VENV) runs
