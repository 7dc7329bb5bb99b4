# The two commands are `make run` and `make test`; the rest serves them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.txt
STAMP := $(VENV)/.installed

.PHONY: run down status clean setup prepare programs check test test-long chaos soak fuzz build format lock

run: setup ## set up what is missing, start everything, follow the logs (Ctrl-C stops it)
	@./image-search up

down: setup ## stop everything, keep what was stored
	@./image-search down

status: setup ## what runs
	@./image-search status

clean: ## stop everything and delete what was stored
	@if [ -x $(BIN)/python ]; then ./image-search clean; fi

setup: $(STAMP)

$(STAMP): $(LOCK)
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up $(VENV) from $(LOCK)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(LOCK)
	@touch $@

prepare: setup ## fetch and build the servers
	@./image-search prepare

programs:
	@sh tools/test_programs.sh

check: setup ## in less than a minute: style, types and the quick tests that need no server
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/ruff format --no-cache --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -n 2 --dist loadscope -m "not slow" tests/unit tests/architecture tests/faults tests/formats tests/fuzz

test: prepare programs ## every test, on real servers
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/ruff format --no-cache --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder tests

test-long: setup ## a hundred thousand examples (FACTS_EXAMPLES) of pictures' metadata
	@FACTS_EXAMPLES=$${FACTS_EXAMPLES:-100000} $(BIN)/python -m pytest tests/formats/test_facts_damaged.py

chaos: prepare ## the long form of the chaos suite (CHAOS_ROUNDS, CHAOS_PICTURES, CHAOS_SEED)
	@CHAOS_ROUNDS=$${CHAOS_ROUNDS:-30} CHAOS_PICTURES=$${CHAOS_PICTURES:-100} $(BIN)/python -m pytest -s tests/chaos

BENCH_STAMP := $(VENV)/.bench-installed

$(BENCH_STAMP): requirements/bench.txt $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/bench.txt
	@touch $@

soak: prepare $(BENCH_STAMP) ## an hour of everything at once (SOAK_MINUTES): the memory and files of each process, as a table and a plot
	@$(BIN)/python -m benchmarks.soak --minutes $${SOAK_MINUTES:-60}

fuzz: $(BENCH_STAMP) ## an hour of arbitrary bytes (FUZZ_MINUTES) for the decoders, the query, the codec and the API
	@for target in pictures facts grammar codec http; do \
	  $(BIN)/python -m tests.fuzz.run $$target $$(( $${FUZZ_MINUTES:-60} * 60 / 5 )) .scratch/fuzz || exit 1; done

build: ## build the container images
	@docker compose build

format: setup ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: setup ## pin the newest versions (needs uv on the PATH)
	@uv pip compile -q -U --generate-hashes --no-emit-index-url --python-version 3.11 pyproject.toml -o requirements/app.txt
	@uv pip compile -q -U --generate-hashes --no-emit-index-url --python-version 3.11 --extra dev pyproject.toml -o requirements/dev.txt
	@cd requirements && uv pip compile -q -U --generate-hashes --no-emit-index-url --python-version 3.11 bench.in -o bench.txt
