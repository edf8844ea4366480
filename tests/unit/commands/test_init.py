"""`rollout-bench init` writes a config from what a user has."""

from pathlib import Path

import pytest
import yaml

from rollout_bench.commands import init
from rollout_bench.core.errors import UserError


@pytest.mark.parametrize("model", ["org/name", "a: b", "123", "true", 'the "best" #1', "\N{SNOWMAN} 🚀"])
def test_a_server_and_its_model_may_have_any_name(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert init.main(["--from", "endpoint", "http://my-model:8000/v1", model]) == 0
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert {"modes", "models", "workloads", "launches", "slo", "endpoints", "workload_settings"} <= written.keys()
    endpoint = written["endpoints"]["mine"]
    assert (endpoint["url"], endpoint["model"]) == ("http://my-model:8000/v1", model)


def test_a_trainers_settings_are_read_with_the_options_of_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = ["actor_rollout_ref.model.path=Qwen/Qwen3-8B", "trainer.n_gpus_per_node=8"]
    assert init.main(["--from", "verl", *keys, "--one-engine"]) == 0
    assert "--one-engine" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--form", "verl"], "did you mean --from?"),
        (["--from", "endpoint", "http://my-model:8000/v1"], "needs URL and MODEL"),
        (["--from", "sglang"], "write --from endpoint URL MODEL"),
        (["--from", "grpo.sh"], "--from verl grpo.sh, or --from trl grpo.sh"),
        (["--from", "exmaple", "online"], "did you mean 'example'?"),
        (["--from", "example", "online", "--one-engine"], "unrecognized arguments: --one-engine"),
    ],
)
def test_wrong_arguments_are_named_with_their_remedy(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        init.main(words)
    assert said in str(raised.value)
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize("words", [["vllm", "http://h:8000/v1", "org/m"], ["http://h:8000/v1", "org/m"]])
def test_a_server_without_its_kind_is_an_endpoint(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        init.main(["--from", *words])
    assert raised.value.remedy == "write --from endpoint http://h:8000/v1 org/m"
    assert init.main(raised.value.remedy.split()[1:]) == 0
