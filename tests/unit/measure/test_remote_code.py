"""Code that comes with a model runs only where the config sets trust_remote_code."""

import json
from pathlib import Path

import pytest
from launching import online_spec, tiny_spec
from planned import planned

from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import UserError
from rollout_bench.measure.engine.vllm import source_of
from rollout_bench.measure.launch.protocol import Job
from rollout_bench.measure.server.server import arguments
from rollout_bench.measure.server.session import PromptText


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model whose tokenizer is code, which leaves a file when it is imported."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "auto_map": {}}))
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    code = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nraise ValueError('it ran')\n"
    (folder / "tokenization_own.py").write_text(code)
    return folder


def with_prompts(spec: Spec, trusted: bool) -> Spec:
    """Return `spec` with prompts that are text, so that a tokenizer is needed."""
    settings = spec.model_dump(mode="json")
    settings["workload"]["dataset"] = {"format": "prompts", "sha256": "0" * 64}
    settings["engine"]["args"] |= {"trust_remote_code": True} if trusted else {}
    return Spec.model_validate_json(json.dumps(settings))


@pytest.mark.parametrize("trusted", [False, True])
def test_a_tokenizers_code_runs_only_if_the_config_allows(model: Path, trusted: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(model.parent / "modules"))
    data = model.parent / "prompts.jsonl"
    data.write_text('{"prompt": "a b c"}\n')
    job = Job(spec=with_prompts(tiny_spec(), trusted), model=str(model), dataset=str(data), launch=0, timeout_s=1.0)
    with pytest.raises((UserError, ValueError)):
        source_of(job, 100)
    assert (model.parent / "ran").exists() is trusted


def test_text_for_a_server_never_runs_the_models_code(model: Path):
    with pytest.raises((UserError, ValueError)):
        PromptText(str(model)).of([1, 2, 3])
    assert not (model.parent / "ran").exists()


def test_plan_and_server_trust_only_what_the_config_names():
    overlay = (
        "models: [qwen3-90m, own]\nquants: [bf16]\nmodel_settings: {own: {weights: {bf16: 'hub:a/b'}, engine_args: {"
    )
    found = {
        e.spec.model.name: e.spec.engine.args for e in planned(f"{overlay}trust_remote_code: true}}}}}}").experiments
    }
    assert "trust_remote_code" not in found["qwen3-90m"]
    assert found["own"]["trust_remote_code"] is True
    assert "--trust-remote-code" not in arguments(online_spec(), "model", {})
    trusting = online_spec(engine={"args": {"trust_remote_code": True}})
    assert "--trust-remote-code" in arguments(trusting, "model", {})
