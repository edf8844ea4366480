"""Weights that a config names: a folder that is not there is told when it is planned, where it could be seen."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import planned
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rollout_bench.core.errors import UserError
from rollout_bench.core.model_files import is_whole
from rollout_bench.plan.checks import unusable_model
from rollout_bench.plan.config_file import read_config
from rollout_bench.rules.planned import plan_of_call

NAMED = "models: [own], quants: [bf16], model_settings: {own: {weights: {bf16: tiny-lama}}}"


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "tiny-llama").mkdir(parents=True)
    (tmp_path / "models" / "tiny-llama" / "config.json").write_text("{}")
    save_file({"w": np.zeros(3), "v": np.ones(5, "int8")}, tmp_path / "models" / "tiny-llama" / "model.safetensors")


HUB = "Qwen/Qwen3-8B"


def plan(more: str = "", *, on_cluster: bool = False, is_main: bool = True, named: str = NAMED) -> list[str]:
    """Return the models of the planned experiments."""
    merged = planned.merged_with(f"{{{named}{more}}}")
    state, _ = plan_of_call(merged, SimpleNamespace(configfiles=[], config={}), on_cluster, is_main=is_main)
    return [experiment.model for experiment in state.schedule.experiments]


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        (None, "no such folder\n  -> did you mean 'models/tiny-llama'?"),
        ("models/tiny-lama", "it has no config.json"),
    ],
)
def test_a_folder_without_a_model_is_refused(folder: str | None, problem: str, capsys: pytest.CaptureFixture[str]):
    if folder:
        Path(folder).mkdir()
    with pytest.raises(SystemExit):
        plan()
    wrong = "config: model_settings.own.weights: models/tiny-lama: no model there: "
    assert wrong + problem in capsys.readouterr().err


def test_a_model_of_the_hub_without_its_hub_is_recognised(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        plan(named=NAMED.replace("tiny-lama", HUB))
    assert f"did you mean 'hub:{HUB}'?" in capsys.readouterr().err


def test_the_remedy_for_a_model_of_the_hub_as_a_name_can_be_planned(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(UserError) as raised:
        read_config(planned.merged_with(f"models: [{HUB}]"))
    first, _, second = raised.value.remedy.removeprefix("write ").partition(" and ")
    plan(named=f"{first}, {second}, quants: [bf16]")
    assert capsys.readouterr().err == ""


def test_a_folder_with_a_model_is_planned() -> None:
    Path("models/tiny-llama").rename("models/tiny-lama")
    assert plan() == ["own"]


def test_a_model_beside_the_config_is_named_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("models/tiny-llama").rename("tiny-lama")
    with pytest.raises(SystemExit):
        plan()
    assert f"names are below model_base: write '{tmp_path / 'tiny-lama'}'" in capsys.readouterr().err


@pytest.mark.parametrize("args", ["", ", engine_args: {load_format: auto}", ", engine_args: {load_format: dummy}"])
def test_a_model_without_its_weights_needs_random_ones(args: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("models/tiny-llama").rename("models/tiny-lama")
    Path("models/tiny-lama/model.safetensors").unlink()
    with contextlib.suppress(SystemExit):
        plan(args)
    refused = (
        "models/tiny-lama: no weights there: no file ends in .safetensors or .bin or .pt" in capsys.readouterr().err
    )
    assert refused == ("dummy" not in args)


def test_weights_are_whole_where_safetensors_says_so() -> None:
    file = Path("models/tiny-llama/model.safetensors")
    every_byte = file.read_bytes()
    for size in range(len(every_byte) + 1):
        file.write_bytes(every_byte[:size])
        try:
            with safe_open(file, "np"):
                opened = True
        except (SafetensorError, OSError):
            opened = False
        assert is_whole(file) == opened, size


def test_a_download_that_was_cut_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("models/tiny-llama").rename("models/tiny-lama")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(SystemExit):
        plan()
    assert "models/tiny-lama: weights are not whole: model.safetensors\n  -> finish" in capsys.readouterr().err
    file.unlink()
    (folder / "model-1.safetensors").write_bytes(b"")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "model-1.safetensors", "v": "b"}}')
    found = unusable_model(folder, "auto")
    assert found is not None
    assert found.problem == f"{folder}: weights are missing: b, which model.safetensors.index.json names"
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "mod')
    found = unusable_model(folder, "auto")
    assert found is not None
    assert "weights are not whole: model-1.safetensors, model.safetensors.index.json" in found.problem


@pytest.mark.parametrize("header", ["[]", '{"w": 1}', '{"w": {}}', "{"])
def test_a_file_that_is_no_safetensors_file_is_not_whole(header: str) -> None:
    file = Path("models/tiny-llama/model.safetensors")
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    assert not is_whole(file)


@pytest.mark.parametrize(
    ("quant", "config", "words"),
    [
        ("bf16", {}, None),
        ("bf16", {"quantization_config": {"quant_method": "compressed-tensors"}}, "is quantized, and bf16 is not"),
        ("w8a8", {"quantization_config": {"quant_method": "compressed-tensors"}}, None),
        ("w8a8", {}, "is not quantized, and w8a8 needs weights in the format compressed-tensors-w8a8"),
        ("w8a16", {}, None),
    ],
)
def test_weights_of_another_quantization_are_refused(
    quant: str, config: dict[str, Any], words: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("models/tiny-llama/config.json").write_text(json.dumps(config))
    with contextlib.suppress(SystemExit):
        plan(named=f"models: [own], quants: [{quant}], model_settings: {{own: {{weights: {{{quant}: tiny-llama}}}}}}")
    printed = capsys.readouterr().err
    assert (words or "") in printed
    assert (printed == "") == (words is None)


@pytest.mark.parametrize(
    ("quant", "types", "more", "words"),
    [
        ("w8a8", ["W8A8_DYNAMIC"], {}, None),
        ("w8a8", ["W8A8", "W8A8_DYNAMIC"], {}, None),
        ("w8a8", ["W8A8"], {}, "description.json, and w8a8 is modelslim-w8a8\n  -> call it w8a8-static:"),
        ("w8a8-static", ["W8A8"], {}, None),
        ("w8a8-static", ["W8A8", "W8A8_DYNAMIC"], {}, "call it w8a8:"),
        ("w4a8", ["W8A8", "W4A8_DYNAMIC"], {}, None),
        ("w8a8", ["W8A8_DYNAMIC", "W4A8_DYNAMIC"], {}, "call it w4a8:"),
        ("w8a8-kv8", ["W8A8"], {"kv_cache_type": "C8"}, None),
        ("w8a8-kv8", ["W8A8_DYNAMIC"], {"fa_quant_type": "FAKQuant"}, None),
        ("w8a8", ["W8A8_DYNAMIC"], {"kv_cache_type": "C8"}, "with an int8 KV cache (C8)"),
        ("w4a8", ["W4A8_DYNAMIC"], {"kv_cache_type": "C8"}, "define a quantization for it"),
        ("w8a8", ["W4A4_FLATQUANT_DYNAMIC"], {}, "is W4A4_FLATQUANT_DYNAMIC by its"),
    ],
)
def test_a_checkpoint_of_modelslim_is_what_its_quantization_says(
    quant: str, types: list[str], more: dict[str, str], words: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path("models/tiny-llama")
    layers = {f"model.layers.{layer}.mlp.up_proj.weight": kind for layer, kind in enumerate(types)}
    described = {"model_quant_type": types[0], "lm_head.weight": "FLOAT", **layers, **more}
    (folder / "quant_model_description.json").write_text(json.dumps(described))
    with contextlib.suppress(SystemExit):
        plan(
            named=f"platform: ascend, models: [own], quants: [{quant}], "
            f"model_settings: {{own: {{weights: {{{quant}: tiny-llama}}}}}}"
        )
    printed = capsys.readouterr().err
    assert (words or "") in printed
    assert ("quant_model_description" in printed) == (words is not None)


@pytest.mark.parametrize(
    ("platform", "quant", "kind"),
    [
        ("ascend", "w8a8-static", "W8A8"),
        ("ascend", "w8a16", "W8A16"),
        ("ascend", "w8a8", "W8A8_DYNAMIC"),
        ("cpu", "w8a8", ""),
    ],
)
def test_a_quantization_of_dense_models_alone_is_left_out_for_a_folder_with_experts(
    platform: str, quant: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, named = Path("models/tiny-llama"), f"models: [own], quants: [{quant}], platform: {platform}, "
    described = {"model.layers.0.mlp.experts.0.up_proj.weight": kind}
    (folder / "quant_model_description.json").write_text(json.dumps(described))
    for experts in (None, 0, 128):
        (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_moe", "num_experts": experts}))
        with contextlib.suppress(SystemExit):
            plan(named=f"{named}model_settings: {{own: {{weights: {{{quant}: tiny-llama}}}}}}")
        is_skipped = f"{quant} does not exist for mixture-of-experts models here" in capsys.readouterr().err
        assert is_skipped == (bool(experts) and kind != "W8A8_DYNAMIC")


@pytest.mark.parametrize(
    ("more", "where"),
    [
        (", model_base: elsewhere", {}),
        (", platform: cuda", {}),
        (", kubernetes: {image: 'bench:1', models_claim: w}", {}),
        ("", {"on_cluster": True}),
        ("", {"is_main": False}),
    ],
    ids=["elsewhere", "other platform", "kubernetes", "cluster", "job"],
)
def test_what_another_machine_may_have_is_planned(more: str, where: dict[str, bool]) -> None:
    assert plan(more, **where) == ["own"]
