"""Code that comes with a model runs only where the config sets trust_remote_code."""

import json
from pathlib import Path

import pytest
from launching import SETTINGS, online_spec, tiny_spec
from planned import planned

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


@pytest.mark.parametrize("trusted", [False, True])
def test_a_tokenizers_code_runs_only_if_the_config_allows(model: Path, trusted: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(model.parent / "modules"))
    data = model.parent / "prompts.jsonl"
    data.write_text('{"prompt": "a b c"}\n')
    args = {"trust_remote_code": True} if trusted else {}
    text = {"dataset": {"format": "prompts", "sha256": "0" * 64}}  # so that a tokenizer is needed
    spec = tiny_spec(workload=text, engine={"args": {**SETTINGS["engine"]["args"], **args}})
    with pytest.raises((UserError, ValueError)):
        source_of(Job(spec=spec, model=str(model), dataset=str(data), launch=0, timeout_s=1.0), 100)
    assert (model.parent / "ran").exists() is trusted


def test_text_for_a_server_never_runs_the_models_code(model: Path):
    with pytest.raises((UserError, ValueError)):
        PromptText(str(model)).of([1, 2, 3])
    assert not (model.parent / "ran").exists()


def test_a_plan_trusts_only_what_the_config_names():
    own = "{own: {weights: {bf16: 'hub:a/b'}, engine_args: {trust_remote_code: true}}}"
    matrix = planned(f"models: [qwen3-90m, own]\nquants: [bf16]\nmodel_settings: {own}")
    trusted = {e.spec.model.name: e.spec.engine.args.get("trust_remote_code") for e in matrix.experiments}
    assert trusted == {"qwen3-90m": None, "own": True}


@pytest.mark.parametrize("args", [{}, {"trust_remote_code": True}], ids=["no", "yes"])
def test_a_server_trusts_only_what_the_config_names(args: dict[str, bool]):
    flags = arguments(online_spec(engine={"args": args}), "model", {})
    assert ("--trust-remote-code" in flags) == bool(args)
