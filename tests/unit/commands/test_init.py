"""`rollout-bench init` writes a config from what a user has."""

from pathlib import Path

import pytest
import yaml

from rollout_bench.commands import init


@pytest.mark.parametrize("model", ["org/name", "a: b", "123", "true", 'the "best" #1', "\N{SNOWMAN} 🚀"])
def test_a_server_and_its_model_may_have_any_name(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["init", "--from", "endpoint", "http://my-model:8000/v1", model])
    assert init.main() == 0
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert {"modes", "models", "workloads", "launches", "slo", "endpoints", "workload_settings"} <= written.keys()
    endpoint = written["endpoints"]["mine"]
    assert (endpoint["url"], endpoint["model"]) == ("http://my-model:8000/v1", model)
