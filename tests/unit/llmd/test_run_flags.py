"""The table of docs/llm-d.md has each flag and variable of llm-d's run.sh, beside keys that the config has."""

import csv
import re
from typing import Any

import yaml
from docs_pages import GENERATED, REPOSITORY, commands, named_configs
from planned import merged_with

from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand

PAGE = REPOSITORY / "docs" / "llm-d.md"
ROWS = re.findall(r"^\| (?:`(-\w)` )?\| `([A-Z_]+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)

FLAGS = "-c -m -p -t -l -w -o -s -k -j -g -d"
VARIABLES = """
    DEPLOY_SCENARIO DEPLOY_MODEL_LIST VLLM_COMMON_NAMESPACE HARNESS_NAMESPACE DEPLOY_METHODS
    HARNESS_PROFILE_HARNESS_LIST HARNESS_NAME HARNESS_EXPERIMENT_PROFILE HARNESS_EXPERIMENT_PROFILE_OVERRIDES
    HARNESS_EXECUTABLE HARNESS_CONDA_ENV_NAME HARNESS_WAIT_TIMEOUT HARNESS_CPU_NR HARNESS_CPU_MEM HARNESS_PVC_NAME
    HARNESS_PVC_SIZE HARNESS_SKIP_RUN HARNESS_LOAD_PARALLELISM HARNESS_ENVVARS_TO_YAML HARNESS_DEBUG
"""
"""The 20 variables in the table of llm-d-benchmark's docs/run.md, without `LLMDBENCH_`; 12 of its flags set some."""


def test_each_flag_and_variable_of_run_sh_has_keys():
    assert {flag for flag, _, _ in ROWS if flag} == set(FLAGS.split())
    assert [variable for _, variable, _ in ROWS] == VARIABLES.split()
    with (GENERATED / "config.csv").open(newline="") as file:
        known = {row["key"] for row in csv.DictReader(file)}
    for _, variable, ours in ROWS:
        named = re.findall(r"`([^` =-]+)`", ours)
        assert named, variable
        assert set(named) <= known, variable


def test_the_first_example_of_the_guide_is_planned():
    [line] = [
        command.words for command in commands(PAGE, "snakemake") if "overrides=min=20,total_count=200" in command.words
    ]
    assert line[1:5] == ("plan", "--configfile", "mine.yaml", "--config")
    given: dict[str, Any] = dict(word.split("=", 1) for word in line[5:])
    endpoint = yaml.safe_load(named_configs(PAGE)["mine.yaml"])
    experiments = expand(read_config(merged_with(endpoint | given)), probe_engine(None)).experiments
    [spec] = [experiment.spec for experiment in experiments]
    normal = {"distribution": "normal", "mean": 50.0, "std": 10.0, "low": 20, "high": 100, "beyond": "clipped"}
    lengths = spec.workload.model_dump(include={"prompt_tokens", "output_tokens"}, exclude_none=True)
    assert lengths == {"prompt_tokens": normal, "output_tokens": normal}
    assert spec.endpoint is not None
    assert (spec.endpoint.url, spec.endpoint.model) == ("http://127.0.0.1:8000/v1", "my-model")
