# Development commands. `make` alone lists them.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
IN_VENV := PATH="$(BIN):$$PATH"
# Each job is a new interpreter: without bytecode on disk every `import vllm` takes 17 s, with it 8.5 s.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-quick golden lint format docs bench oracles load-oracles pins owner clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

setup: ## make .venv: workflow, analysis and CPU engine, as pinned
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { printf 'setup: %s\n  -> %s\n' >&2 \
	'$(PYTHON) is not Python 3.11 or newer' 'name another one: make setup PYTHON=python3.11'; exit 1; }
	@PYTHONPATH=src $(PYTHON) -m rollout_bench.commands.environment .venv --editable .

demo: setup ## measure the default config on this machine's CPU, print the answer
	@$(IN_VENV) rollout-bench demo

# Four on two cores, since engines and clusters often wait, and each file in one process.
SIDE_BY_SIDE := -n 4 --dist loadfile --no-loadscope-reorder
SLOWEST := --durations 40 --durations-min 5
test: setup ## every test
	@$(IN_VENV) pytest $(SIDE_BY_SIDE) $(SLOWEST) tests/engine tests/cluster tests/workflow tests/unit tests/repository

test-quick: setup ## tests/unit but the slow ones
	@$(IN_VENV) pytest $(SIDE_BY_SIDE) -m "not slow" tests/unit

golden: setup ## write tests/golden anew: what summaries of made records say
	@$(IN_VENV) PYTHONPATH=src:tests/fixtures python tests/fixtures/golden.py

# The composite action and the workflow that shows it, held to GitHub's schemas; one file in a call.
# the validator does not know the permission that release.yml needs to attest
ACTIONS := .ci/gate/action.yml docs/examples/gate.yml $(filter-out %/release.yml,$(wildcard .github/workflows/*.yml))
VALIDATOR := npx --yes --package @action-validator/core@0.6.0 --package @action-validator/cli@0.6.0 action-validator

lint: setup ## formatting, lint, types, imports; changes nothing
	$(IN_VENV) ruff check
	$(IN_VENV) ruff format --check
	$(IN_VENV) mypy
	$(IN_VENV) lint-imports --no-cache --no-logo
	$(IN_VENV) snakefmt --check Snakefile workflow
	$(IN_VENV) snakemake --lint
	$(IN_VENV) snakemake --lint --config launches=auto
	$(IN_VENV) hadolint containers/Dockerfile
	@command -v npx >/dev/null || { echo 'npx is missing, which starts the linters of JavaScript and actions' >&2; \
	echo '  -> install Node.js with npm, for example: apt-get install npm' >&2; exit 1; }
	npx --yes oxlint@1.10.0 --deny-warnings src
	for file in $(ACTIONS); do $(VALIDATOR) $$file || exit 1; done

format: setup ## format the code
	$(IN_VENV) ruff check --fix --exit-zero
	$(IN_VENV) ruff format
	$(IN_VENV) snakefmt Snakefile workflow

docs: setup ## make docs/reference from the code, and the site in site/
	@$(IN_VENV) PYTHONPATH=src python tools/make_reference.py
	@$(IN_VENV) NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

bench: setup ## time how long a verdict takes
	@$(IN_VENV) python studies/verdict_time.py

# A trainer pins dependencies that it needs for training only, so it is installed without them.
VERL ?= 0.8.0 0.9.1
TRL ?= 1.0.0 1.16.0
oracles: setup ## ask verl's and TRL's own code anew for studies/oracles, print what changed; TRL= asks verl only
	@for it in $(VERL:%=verl-%) $(TRL:%=trl-%); do at=.venv-oracles/$$it; trainer=$${it%%-*}; \
	$(PYTHON) -m venv --without-pip $$at && $(BIN)/python -m rollout_bench.commands.environment .venv uv \
	pip install --quiet --no-deps --python $$at --requirements studies/oracles/$$trainer.txt $$trainer==$${it#*-} && \
	$$at/bin/python studies/oracles/$${trainer}_facts.py studies/oracles/$$it.jsonl.xz || exit 1; done

# inference-perf says that it needs Python 3.12, and runs with 3.11.
LOAD_GENERATORS ?= guidellm-0.8.1 inference-perf-0.7.0 vllm-0.32.0
load-oracles: setup ## ask the commands of llm-d's harnesses anew for studies/oracles, print what changed; some 25 minutes
	@at=.venv-oracles/inference-perf && $(PYTHON) -m venv --without-pip $$at && install() { \
	$(BIN)/python -m rollout_bench.commands.environment .venv uv pip install --quiet --no-deps --python $$at "$$@"; } && \
	install --requirements studies/oracles/inference-perf.txt && \
	install --python-version 3.12 inference-perf==$(patsubst inference-perf-%,%,$(filter inference-perf-%,$(LOAD_GENERATORS)))
	@for it in $(LOAD_GENERATORS); do \
	$(BIN)/python studies/oracles/harness_facts.py studies/oracles/$$it.jsonl.xz || exit 1; done

# Platform, machine of its wheels, conda file. A pin stays as long as the inputs allow it.
# An additional index may have files for one machine only, and uv takes all files of a version from one index.
# Hashes of PyTorch's CPU wheels go: those at hand here may be of one Python only, which would refuse the others.
define pin
	@cd requirements && compile() { UV_INDEX= $(BIN)/python -m rollout_bench.commands.environment ../.venv uv \
	pip --quiet compile --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
	--custom-compile-command 'make pins' --python-version 3.11 --python-platform $2 --override $1.overrides \
	--output-file $1.txt $1.in $(UPGRADE) "$$@"; }; compile $(if $(filter cpu,$1),|| compile --torch-backend cpu)
	@sed -i '/+cpu/,/[^\\]$$/ { s/ \\$$//; /--hash/d }' requirements/$1.txt
	@sed -i '/^ *- [a-z0-9-]*==/d' $3 && sed -n 's/^\([^ #]*==[^ ]*\).*/      - \1/p' requirements/$1.txt >>$3
endef
pins: setup ## resolve requirements/*.in into *.txt and environment*.yml; make pins UPGRADE=--upgrade for the newest
	$(call pin,cpu,x86_64-manylinux_2_28,environment.yml)
	$(call pin,cuda,x86_64-manylinux_2_34,environment-cuda.yml)
	$(call pin,ascend,aarch64-manylinux_2_34,environment-ascend.yml)

owner: ## write your name, or your organisation's, into every address of the repository: make owner NAME=...
	@test -n "$(NAME)" || { echo 'owner: NAME is missing' >&2; echo '  -> make owner NAME=your-name' >&2; exit 1; }
	git grep -lE 'OWNER(\.github\.io)?/rollout-bench' -- ':!Makefile' | xargs sed -i 's#OWNER\(\.github\.io\)\?/rollout-bench#$(NAME)\1/rollout-bench#g'

clean: ## remove .venv and caches; results stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
