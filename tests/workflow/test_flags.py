"""Every flag of verl-rollout-bench has the equivalent that docs/how-to/coming-from-verl-rollout-bench.md names."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from docs_pages import REPOSITORY
from snakemake.cli import parse_config
from snakemake.utils import update_config
from workspace import Workspace

from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import Experiment, expand

PAGE = REPOSITORY / "docs" / "how-to" / "coming-from-verl-rollout-bench.md"

FLAGS = {"--offline", "--online", "--diagnostic", "--models", "--quants", "--num-prompts", "-n", "--input-len",
         "--output-len", "--gpu-mem-util", "--max-concurrency", "--port", "--no-profile", "--model-base", "-h",
         "--help"}  # fmt: skip
"""The command line of the predecessor, from its own reference."""

WITHOUT = {"--port"}


def rows() -> dict[str, str]:
    """Flag with its value -> what the table says is its equivalent."""
    section = PAGE.read_text().partition("## Flags")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE)[1:])


ROWS = rows()
COMMANDS = {flag: match[1] for flag, text in ROWS.items() if (match := re.fullmatch(r"`(snakemake .+)`", text))}


def args_of(experiment: Experiment) -> dict:
    return experiment.spec.engine.args


EFFECTS: dict[str, Callable[[Experiment], bool]] = {
    "--offline": lambda e: e.spec.mode == "offline",
    "--online": lambda e: e.spec.mode == "online",
    "--max-concurrency": lambda e: e.spec.load is not None and e.spec.load.points[0].concurrency == 128,
    "--diagnostic": lambda e: e.name.startswith("qwen3-1.7b_bf16_diagnostic-") and e.spec.workload.prompts == 4,
    "--models": lambda e: e.spec.model.name in ("qwen3-1.7b", "pangu-7b"),
    "--quants": lambda e: e.spec.quant.name in ("bf16", "w8a16"),
    "--num-prompts": lambda e: e.spec.workload.prompts == 64,
    "-n": lambda e: e.spec.workload.samples_per_prompt == 4,
    "--input-len": lambda e: e.spec.workload.prompt_tokens == 256,
    "--output-len": lambda e: e.spec.workload.output_tokens == 128,
    "--gpu-mem-util": lambda e: args_of(e)["gpu_memory_utilization"] == 0.9,
    "--no-profile": lambda e: "profiler_config" not in args_of(e),
    "--model-base": lambda e: e.model_path.startswith("/data/models/"),
}  # fmt: skip
"""Flag -> what is true of every experiment that its equivalent selects."""

EXPERIMENTS = {"--diagnostic": 1, "--models": 6, "--quants": 5}
"""Flag -> number of experiments, where it is not all eight."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workspace"))


def test_the_table_has_every_flag_once():
    named = [word for row in ROWS for word in re.findall(r"(?<![\w-])-{1,2}[a-z][a-z-]*", row)]
    assert sorted(named) == sorted(FLAGS)


def test_only_the_port_has_no_equivalent():
    assert {flag.strip("`").split()[0] for flag in ROWS if flag not in COMMANDS} == WITHOUT
    for flag in ROWS.keys() - COMMANDS.keys():
        assert ROWS[flag].startswith("none: ")


def test_the_page_and_this_test_speak_of_the_same_flags():
    selecting = {flag.strip("`").split()[0] for flag, text in COMMANDS.items() if "--list-rules" not in text}
    assert selecting == {*EFFECTS, "(none)"}


@pytest.mark.parametrize("flag", [flag for flag in COMMANDS if "--list-rules" not in COMMANDS[flag]])
def test_the_equivalent_selects_what_the_flag_did(workspace: Workspace, flag: str):
    words = shlex.split(COMMANDS[flag])[1:]
    selected = experiments(words)
    name = flag.strip("`").split()[0]
    assert len(selected) == EXPERIMENTS.get(name, 8)
    if name in EFFECTS:
        assert all(map(EFFECTS[name], selected)), [experiment.name for experiment in selected]
    assert planned(workspace, words) == {experiment.name for experiment in selected}


def test_without_flags_the_load_is_that_of_the_predecessor():
    for experiment in experiments(shlex.split(COMMANDS["(none)"])[1:]):
        load = experiment.spec.workload
        assert (load.prompts, load.samples_per_prompt, load.prompt_tokens, load.output_tokens) == (32, 8, 512, 256)
        assert {"gpu_memory_utilization": 0.4, "max_num_seqs": 1024, "max_model_len": 768}.items() <= args_of(
            experiment
        ).items()


def test_help_is_printed(workspace: Workspace):
    (command,) = (text for text in COMMANDS.values() if "--list-rules" in text)
    done = workspace.snakemake(*shlex.split(command)[1:])
    assert done.returncode == 0
    assert "launch (" in done.stdout


def planned(workspace: Workspace, words: list[str]) -> set[str]:
    """Return names, keys in them, of the experiments that a dry run with these words would measure."""
    done = workspace.snakemake("--quiet", "host", "reason", "-n", *words)  # with each job
    assert done.returncode == 0, done.stdout
    return set(re.findall(r"results/(?:offline|online)/([^/\s]+)/launch-0\.json", done.stdout))


def experiments(words: list[str]) -> list[Experiment]:
    """Return the experiments that these words of a command line select, merged as Snakemake merges."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--configfile", nargs="+", type=Path, default=[])
    parser.add_argument("--config", nargs="+", default=[])
    arguments = parser.parse_args(words)
    merged = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    for path in arguments.configfile:
        update_config(merged, yaml.safe_load((REPOSITORY / path).read_text()))
    update_config(merged, parse_config(arguments.config))
    return expand(read_config(merged), probe_engine(None)).experiments
