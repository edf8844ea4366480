# Development commands. `make` alone lists them.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
IN_VENV := PATH="$(BIN):$$PATH"
# Each job is a new interpreter: without bytecode on disk every `import vllm` takes 17 s, with it 8.5 s.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-quick golden lint format docs bench pins clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

setup: ## make .venv: workflow, analysis and CPU engine, as pinned
	@$(PYTHON) workflow/scripts/setup_environment.py

demo: setup ## measure the default config on this machine's CPU, print the answer
	@status=0; $(IN_VENV) snakemake --cores 1 || status=$$?; \
	if [ -f results/summary.txt ]; then $(IN_VENV) rollout-bench show results; \
	echo 'All tables and figures: results/summary.html. Next, your own model: docs/quickstart.md'; fi; exit $$status

# Three on two cores, since engines and clusters often wait, and each file in one process.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder
SLOWEST := --durations 40 --durations-min 5
test: setup ## every test
	@$(IN_VENV) pytest $(SIDE_BY_SIDE) $(SLOWEST) tests/engine tests/cluster tests/workflow tests/unit

test-quick: setup ## the tests that need no engine
	@$(IN_VENV) pytest $(SIDE_BY_SIDE) tests/unit

golden: setup ## write tests/golden anew: what summaries of made records say
	@$(IN_VENV) PYTHONPATH=src:tests/fixtures python tests/fixtures/golden.py

lint: setup ## formatting, lint, types; changes nothing
	$(IN_VENV) ruff check
	$(IN_VENV) ruff format --check
	$(IN_VENV) mypy
	$(IN_VENV) snakefmt --check Snakefile workflow/rules
	$(IN_VENV) snakemake --lint
	$(IN_VENV) snakemake --lint --config launches=auto
	$(IN_VENV) hadolint containers/Dockerfile.*
	@command -v npx >/dev/null || { echo 'npx is missing, which starts the linter of JavaScript' >&2; \
	echo '  -> install Node.js with npm, for example: apt-get install npm' >&2; exit 1; }
	npx --yes oxlint@1.10.0 --deny-warnings src

format: setup ## format the code
	$(IN_VENV) ruff check --fix --exit-zero
	$(IN_VENV) ruff format
	$(IN_VENV) snakefmt Snakefile workflow/rules

docs: setup ## make docs/reference from the code, and the site in site/
	@$(IN_VENV) PYTHONPATH=src python workflow/scripts/make_reference.py
	@$(IN_VENV) NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

bench: setup ## time how long a verdict takes
	@$(IN_VENV) python studies/verdict_time.py

pins: setup ## resolve requirements/*.in into *.txt and environment*.yml
	@$(IN_VENV) python workflow/scripts/pin_requirements.py

clean: ## remove .venv and caches; results stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
