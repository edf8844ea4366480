"""An error of the config names the file, or the option, that sets the value."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import planned
import pytest
import yaml

from rollout_bench.rules.planned import plan_of_call


@pytest.mark.parametrize(
    ("files", "config", "named"),
    [
        ([], {}, None),
        ([{"launches": 0}, {"quants": ["bf16"]}], {}, "0.yaml: launches: "),
        ([{"launches": 2}, {"launches": 0}], {}, "1.yaml: launches: "),
        ([{"launches": 2}], {"launches": 0}, "--config: launches: "),
        ([{"workload_settings": {"demo": {"prompts": 0}}}], {}, "0.yaml: workload_settings.demo.prompts: "),
        ([{"launches": 2}], {"models": []}, "--config: models: "),
        (
            [{"sweep": {"max_num_seqs": [4, 8]}}, {"sweep": {}}],
            {},
            "1.yaml: sweep: {} is laid over the keys of another",
        ),
    ],
)
def test_an_error_names_what_sets_the_value(
    files: list[dict[str, Any]],
    config: dict[str, Any],
    named: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    merged = planned.merged_with({})
    for place, content in enumerate(files):
        Path(f"{place}.yaml").write_text(yaml.safe_dump(content))
    for content in (*files, config) if files else [{"launches": 0}]:
        planned.update_config(merged, content)
    given = SimpleNamespace(configfiles=[tmp_path / f"{place}.yaml" for place in range(len(files))], config=config)
    with pytest.raises(SystemExit):
        plan_of_call(merged, given, on_cluster=False, is_main=True)
    assert capsys.readouterr().err.startswith(named or "config: launches: ")


def test_settings_of_a_file_get_the_names_of_the_sweep_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    merged, config = planned.merged_with({}), {"sweep": {"enforce_eager": [True]}}
    of_file = {"sweep": {"max_num_seqs": [4, 8]}, "settings": ["max-num-seqs-4", "max-num-seqs-8"]}
    Path("0.yaml").write_text(yaml.safe_dump(of_file))
    for content in (of_file, config):
        planned.update_config(merged, content)
    given = SimpleNamespace(configfiles=[tmp_path / "0.yaml"], config=config)
    with pytest.raises(SystemExit):
        plan_of_call(merged, given, on_cluster=False, is_main=True)
    said = capsys.readouterr().err
    assert "settings: setting 'max-num-seqs-4' is not defined\n  -> write --config 'sweep={enforce_eager:" in said
    assert "'settings=[max-num-seqs-4+enforce-eager-true, max-num-seqs-8+enforce-eager-true]'" in said


@pytest.mark.parametrize(
    ("config", "remedy"),
    [
        ({"launches": "three"}, "launches=3"),
        ({"launches": "three", "quants": ["bf16"]}, "launches=3 'quants=[bf16]'"),
        *[
            (
                {"models": models},
                "'models=[qwen3-8b]' 'model_settings={qwen3-8b: {weights: {bf16: \"hub:Qwen/Qwen3-8B\"}}}'",
            )
            for models in ("Qwen/Qwen3-8B", ["Qwen/Qwen3-8B"])
        ],
        ({"quants": "(bf16,w8a8)"}, "'quants=[bf16, w8a8]'"),
        ({"quants": "BF16"}, "'quants=[bf16]'"),
        ({"mode": "online"}, "'modes=[online]'"),
        ({"workload_settings": {"demo": {"output_tokens": ["8", "9"]}}}, "'sweep={output_tokens: [8, 9]}'"),
        ({"engine_args": {"tp": "2"}}, "'engine_args={tensor_parallel_size: 2}'"),
        ({"sweep": ["max_num_seqs", "64"]}, "'sweep={max_num_seqs: [64]}'"),
        (
            {"workload_settings": {"demo": {"prompts": "1e3", "samples_per_prompt": "2"}}},
            "'workload_settings={demo: {prompts: 1000, samples_per_prompt: 2}}'",
        ),
    ],
)
def test_a_remedy_for_a_value_of_the_command_line_can_be_typed_there(
    config: dict[str, Any],
    remedy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = SimpleNamespace(configfiles=[], config=config)
    with pytest.raises(SystemExit):
        plan_of_call(planned.merged_with(config), given, on_cluster=False, is_main=True)
    assert capsys.readouterr().err.splitlines()[1] == f"  -> write --config {remedy}"
