# Development commands. `make` alone lists them.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
IN_VENV := PATH="$(BIN):$$PATH"
# Each job is a new interpreter: without bytecode on disk every `import vllm` takes 17 s, with it 8.5 s.
unexport PYTHONDONTWRITEBYTECODE
# A copy of the pins that are installed; empty until all are.
INSTALLED := .venv/rollout-bench-setup
# PyTorch's own index comes second: yours may have the CPU build.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP_INSTALL := PIP_USER=0 $(BIN)/python -m pip install --quiet --no-deps -r requirements/uv.txt -r requirements/cpu.txt
# UPGRADE=--upgrade chooses the newest versions that the inputs allow.
RESOLVE = $(BIN)/uv pip compile --quiet --no-config --no-annotate --no-emit-index-url --no-emit-find-links $(UPGRADE) \
  --custom-compile-command 'make pins' --python-version 3.11 --python-platform
.DEFAULT_GOAL := help
.PHONY: help setup install demo test test-quick golden lint format docs bench pins clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

setup: ## make .venv: workflow, analysis and CPU engine, as pinned
	@cmp -s requirements/cpu.txt $(INSTALLED) || $(MAKE) --no-print-directory install

# Packages that are there already are not asked for again. An interrupted set-up goes on with the next call.
install:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo 'setup: Python 3.11 or newer is needed' >&2; echo '  -> make setup PYTHON=python3.11' >&2; exit 1; }
	@[ ! -e .venv ] || [ -f $(INSTALLED) ] || { echo 'setup: .venv is not one that this command made' >&2; \
	echo '  -> move it away and run the command again' >&2; exit 1; }
	@echo 'setup: installs the packages of requirements/cpu.txt into .venv, which takes minutes'
	@mkdir -p .venv && touch $(INSTALLED)
	@[ -x .venv/bin/pip ] || $(PYTHON) -m venv .venv || { echo 'setup: no virtual environment can be made' >&2; \
	echo '  -> Debian and Ubuntu keep venv apart: apt install python3-venv' >&2; exit 1; }
	@$(PIP_INSTALL) 2>.venv/setup.log || $(PIP_INSTALL) --extra-index-url $(TORCH_INDEX) 2>>.venv/setup.log || { \
	echo 'setup: packages cannot be installed, see .venv/setup.log' >&2; \
	echo "  -> check network, space and pip's index (pip config list); PIP_FIND_LINKS may name a folder of wheels" >&2; \
	exit 1; }
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --offline --no-config --no-deps --editable .
	@VLLM_TARGET_DEVICE=cpu $(BIN)/python -I -c 'from vllm import LLM; import vllm.v1.worker.cpu_worker'
	@cp requirements/cpu.txt $(INSTALLED)

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
	@$(IN_VENV) python workflow/scripts/make_reference.py
	@$(IN_VENV) NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

bench: setup ## time how long a verdict takes
	@$(IN_VENV) python studies/verdict_time.py

pins: setup ## resolve requirements/*.in into *.txt and environment*.yml
	@cd requirements && $(RESOLVE) x86_64-manylinux_2_28 --torch-backend cpu --override cpu.overrides -o cpu.txt cpu.in
	@cd requirements && $(RESOLVE) x86_64-manylinux_2_34 --override cuda.overrides -o cuda.txt cuda.in
	@cd requirements && $(RESOLVE) aarch64-manylinux_2_34 --override ascend.overrides -o ascend.txt ascend.in
	@for of in cpu: cuda:-cuda ascend:-ascend; do file=environment$${of#*:}.yml; \
	{ grep -v '^      - .*==' $$file; sed -n 's/^[a-z0-9].*==/      - &/p' requirements/$${of%:*}.txt; } > .pins && mv .pins $$file; done

clean: ## remove .venv and caches; results stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
