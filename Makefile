# The two commands are `make run` and `make test`; the rest serves them.
BIN := .venv/bin

.PHONY: run down status clean setup prepare programs check test test-long chaos soak fuzz build format lock

run: ## set up what is missing, start everything and show it (Ctrl-C stops it)
	@./image-search up

down: ## stop everything, keep what was stored
	@./image-search down

status: ## what runs
	@./image-search status

clean: ## stop everything and delete what was stored
	@./image-search clean

setup: ## the environment with what tests and checks need besides
	@./image-search --develop

prepare: ## fetch and build the servers
	@./image-search prepare

programs:
	@sh tools/test_programs.sh

check: setup ## in less than a minute: style, types and the quick tests that need no server
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/ruff format --no-cache --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -n 2 --dist loadscope -m "not slow" tests/unit tests/architecture tests/faults tests/formats tests/fuzz

test: setup prepare programs ## every test, on real servers
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/ruff format --no-cache --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder tests
	@$(BIN)/python tools/other_pythons.py

test-long: setup ## a hundred thousand examples (FACTS_EXAMPLES) of pictures' metadata
	@FACTS_EXAMPLES=$${FACTS_EXAMPLES:-100000} $(BIN)/python -m pytest tests/formats/test_facts_damaged.py

chaos: setup prepare ## the long form of the chaos suite (CHAOS_ROUNDS, CHAOS_PICTURES, CHAOS_SEED)
	@CHAOS_ROUNDS=$${CHAOS_ROUNDS:-30} CHAOS_PICTURES=$${CHAOS_PICTURES:-100} $(BIN)/python -m pytest -s tests/chaos

BENCH_STAMP := .venv/.bench-installed

$(BENCH_STAMP): requirements/bench.txt | setup
	@$(BIN)/uv pip install --quiet --no-deps --require-hashes -p $(BIN)/python -r requirements/bench.txt
	@touch $@

soak: setup prepare $(BENCH_STAMP) ## an hour of everything at once (SOAK_MINUTES): the memory and files of each process, as a table and a plot
	@$(BIN)/python -m benchmarks.soak --minutes $${SOAK_MINUTES:-60}

fuzz: $(BENCH_STAMP) ## an hour of arbitrary bytes (FUZZ_MINUTES) for the decoders, the query, the codec and the API
	@for target in pictures facts grammar codec http; do \
	  $(BIN)/python -m tests.fuzz.run $$target $$(( $${FUZZ_MINUTES:-60} * 60 / 5 )) .scratch/fuzz || exit 1; done

build: ## build the container images
	@docker compose build

format: setup ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

COMPILE := $(BIN)/uv pip compile -q -U --universal --generate-hashes --no-emit-index-url --python-version 3.11

lock: setup ## pin the newest versions
	@$(COMPILE) pyproject.toml -o requirements/app.txt
	@$(COMPILE) --extra dev pyproject.toml -o requirements/dev.txt
	@$(COMPILE) --excludes requirements/triton-excludes.txt requirements/triton.in -o requirements/triton.txt
	@for name in bench build java kafka uv weaviate; do $(COMPILE) requirements/$$name.in -o requirements/$$name.txt; done
