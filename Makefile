# Development commands. `make` alone lists them.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
IN_VENV := PATH="$(BIN):$$PATH"
# Each job is a new interpreter: without bytecode on disk every `import vllm` takes 17 s, with it 8.5 s.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help setup environment demo test test-quick golden lint format docs bench pins clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

# The pins, and their copy in a finished .venv.
PINS := requirements/uv.txt requirements/cpu.txt
STAMP := .venv/rollout-bench-setup
READY := test -x .venv/bin/python && cat $(PINS) | cmp -s - $(STAMP)

setup: ## make .venv: workflow, analysis and CPU engine, as pinned
	@$(READY) || { flock -n . true || echo 'setup: another set-up is at work in this folder; waiting for it'; \
	flock . sh -c '$(READY) || $(MAKE) --no-print-directory environment'; }

# uv does not read pip's configuration. Like pip, it shall use any index with the version, not only the first.
# PyTorch's own index comes second, because it takes 12 s to notice that it cannot be reached.
UV = option() { $(BIN)/pip config list | sed -nE "s/^[^.]*\.$$1='(.*)'/\1/p" | sed 's/\\n/ /g; s/^ //' | head -n 1; }; \
	: $${UV_DEFAULT_INDEX=$$(option index-url)} $${UV_INDEX=$$(option extra-index-url)}; \
	: $${UV_FIND_LINKS=$$(option find-links | tr ' ' ,)} $${UV_INSECURE_HOST=$$(option trusted-host)}; \
	: $${UV_OFFLINE=$$(option no-index | grep . || echo 0)} $${SSL_CERT_FILE=$$(option cert)}; \
	export UV_DEFAULT_INDEX UV_INDEX UV_FIND_LINKS UV_INSECURE_HOST UV_OFFLINE SSL_CERT_FILE; \
	export UV_INDEX_STRATEGY=unsafe-best-match UV_NO_CONFIG=1; $(BIN)/uv pip --quiet
otherwise = || { printf "setup: %s\n  -> %s\n" "$1" "$2" >&2; exit 1; }

# Imports of launches and jobs. They prove the installation and compile bytecode.
IMPORTS := import vllm, torchao, vllm.v1.worker.cpu_worker; from vllm import LLM; \
	import snakemake.cli, snakemake.workflow, pandas, scipy.stats, matplotlib, pydantic, rollout_bench

environment: export HOME := $(if $(shell test -w "$$HOME" && echo yes),$(HOME),$(CURDIR)/.venv)
environment: export PIP_USER := 0
environment:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	$(call otherwise,$(PYTHON) is not Python 3.11 or newer,name another one: make setup PYTHON=python3.11)
	@test -f $(STAMP) || ! ls -A .venv 2>/dev/null | grep -q . \
	$(call otherwise,.venv is not one that this command made,move it away and run it again)
	@mkdir -p .venv && echo unfinished >$(STAMP) && find .venv -mindepth 1 ! -path $(STAMP) -delete
	@echo 'setup: virtual environment and uv'
	@$(PYTHON) -I -m venv .venv $(call otherwise,venv failed,Debian and Ubuntu keep it apart: apt install python3-venv)
	@$(BIN)/pip install --quiet --no-deps -r requirements/uv.txt \
	$(call otherwise,uv was not installed,check the network and pip's index (pip config list))
	@echo 'setup: pinned packages and rollout-bench'
	@install() { $(UV) install --python $(BIN)/python --no-deps -r requirements/cpu.txt --editable . "$$@"; }; \
	install || install --torch-backend cpu \
	$(call otherwise,packages were not installed,check network and space; PIP_FIND_LINKS may name a folder with PyTorch's CPU wheel)
	@echo 'setup: first import of the engine and the workflow'
	@$(BIN)/python -I -c '$(IMPORTS)' >.venv/setup.log 2>&1 \
	$(call otherwise,the engine cannot be imported,.venv/setup.log has the reason; vLLM needs x86_64)
	@cat $(PINS) >$(STAMP) && echo 'setup: ready in .venv'

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

# The composite action and the workflow that shows it, held to GitHub's schemas; one file in a call.
ACTIONS := .ci/gate/action.yml docs/examples/gate.yml
VALIDATOR := npx --yes --package @action-validator/core@0.6.0 --package @action-validator/cli@0.6.0 action-validator

lint: setup ## formatting, lint, types; changes nothing
	$(IN_VENV) ruff check
	$(IN_VENV) ruff format --check
	$(IN_VENV) mypy
	$(IN_VENV) snakefmt --check Snakefile workflow
	$(IN_VENV) snakemake --lint
	$(IN_VENV) snakemake --lint --config launches=auto
	$(IN_VENV) hadolint containers/Dockerfile.*
	@command -v npx >/dev/null || { echo 'npx is missing, which starts the linters of JavaScript and actions' >&2; \
	echo '  -> install Node.js with npm, for example: apt-get install npm' >&2; exit 1; }
	npx --yes oxlint@1.10.0 --deny-warnings src
	for file in $(ACTIONS); do $(VALIDATOR) $$file || exit 1; done

format: setup ## format the code
	$(IN_VENV) ruff check --fix --exit-zero
	$(IN_VENV) ruff format
	$(IN_VENV) snakefmt Snakefile workflow

docs: setup ## make docs/reference from the code, and the site in site/
	@$(IN_VENV) PYTHONPATH=src python workflow/scripts/make_reference.py
	@$(IN_VENV) NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

bench: setup ## time how long a verdict takes
	@$(IN_VENV) python studies/verdict_time.py

# Platform, machine of its wheels, conda file. A pin stays as long as the inputs allow it.
# An additional index may have files for one machine only, and uv takes all files of a version from one index.
define pin
	@cd requirements && compile() { UV_INDEX= && $(UV) compile --no-annotate --no-emit-index-url --no-emit-find-links \
	--custom-compile-command 'make pins' --python-version 3.11 --python-platform $2 --override $1.overrides \
	--output-file $1.txt $1.in $(UPGRADE) "$$@"; }; compile $(if $(filter cpu,$1),|| compile --torch-backend cpu)
	@sed -i '/^ *- [a-z0-9-]*==/d' $3 && sed -n '/==/s/^/      - /p' requirements/$1.txt >>$3
endef
pins: setup ## resolve requirements/*.in into *.txt and environment*.yml; make pins UPGRADE=--upgrade for the newest
	$(call pin,cpu,x86_64-manylinux_2_28,environment.yml)
	$(call pin,cuda,x86_64-manylinux_2_34,environment-cuda.yml)
	$(call pin,ascend,aarch64-manylinux_2_34,environment-ascend.yml)

clean: ## remove .venv and caches; results stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
