"""Configs laid over the default one, and what is planned of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from snakemake.utils import update_config
from synthetic_records import LOAD

from rollout_bench.plan.config import WorkloadSettings
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import Matrix, expand

REPOSITORY = Path(__file__).parents[1]


def merged_with(overlay: str) -> dict[str, Any]:
    """Return the default config, its demo as large as those of made records, with `overlay` (YAML) laid over it."""
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    for one in ({"workload_settings": {"demo": LOAD}}, yaml.safe_load(overlay)):
        update_config(config, one)  # as Snakemake merges them
    return config


def assert_preset(name: str, workload: dict[str, Any]) -> None:
    """Assert that config.yaml has `workload` under that name, with no engine argument that it lacks.

    It asks for log probabilities itself, which a rollout adds to any workload.
    """
    preset = yaml.safe_load((REPOSITORY / "config.yaml").read_text())["workload_settings"][name]
    assert preset["engine_args"].items() <= workload["engine_args"].items()
    wanted = {**workload, "logprobs": 0}
    found, wanted = (WorkloadSettings.model_validate({**load, "engine_args": {}}) for load in (preset, wanted))
    assert found == wanted
    assert planned(f"{{workloads: [{name}], quants: [bf16], platform: cuda}}").experiments


def planned(overlay: str) -> Matrix:
    """Return what the default config with `overlay` laid over it comes to."""
    config = read_config(merged_with(overlay))
    return expand(config, probe_engine(config.engine.python))
