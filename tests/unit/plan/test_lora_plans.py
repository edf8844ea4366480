"""Adapters are planned as settings, with the arguments of vLLM that follow from them."""

from typing import Any

import planned
import pytest

from rollout_bench.contracts.lora import Lora
from rollout_bench.contracts.spec import Spec, differing_values, swept_number
from rollout_bench.plan.matrix import adapter_lines, update_lines


def specs(overlay: dict[str, Any]) -> list[Spec]:
    return [experiment.spec for experiment in planned.planned(overlay).experiments]


@pytest.mark.parametrize(("rank", "room"), [(1, 1), (2, 8), (8, 8), (9, 16), (65, 128), (257, 320), (512, 512)])
def test_the_engine_makes_room_for_the_next_rank_that_vllm_knows(rank: int, room: int) -> None:
    assert Lora(rank=rank).engine_args == {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}


@pytest.mark.parametrize(
    ("layer", "is_of_attention"),
    [
        ("model.layers.0.self_attn.q_proj", True),
        ("model.layers.0.self_attn.qkv_proj", True),  # Phi-3
        ("model.layers.0.self_attn.dense", True),  # Phi-2
        ("gpt_neox.layers.0.attention.query_key_value", True),
        ("model.layers.0.mlp.gate_proj", False),
        ("gpt_neox.layers.0.mlp.dense_h_to_4h", False),
        ("lm_head", False),
    ],
)
def test_attention_is_all_linear_layers_of_its_modules(layer: str, is_of_attention: bool) -> None:
    assert Lora(rank=8, targets="attention").is_target(layer) == is_of_attention


def test_the_order_of_layers_makes_no_other_experiment() -> None:
    lists = (["v_proj", "q_proj"], ["q_proj", "v_proj", "q_proj"])
    (one,), (other,) = (specs({"quants": ["bf16"], "lora": {"rank": 8, "targets": names}}) for names in lists)
    assert one.lora is not None
    assert one.lora.targets == ["q_proj", "v_proj"]
    assert one.key() == other.key()


def test_an_engine_with_an_adapter_keeps_its_weights_asleep_as_in_verl() -> None:
    settings = {
        "quants": ["bf16"],
        "settings": ["default", "adapter"],
        "setting_settings": {"adapter": {"lora": {"rank": 8}}},
    }
    cycles = {"platform": "cuda", "modes": ["cycle"], "cycle": {"update": "reload"}, "models": ["qwen3-1.7b"]}
    untied = {"qwen3-1.7b": {"synthetic": {"preset": "qwen3-tiny"}}}
    found = specs({**settings, **cycles, "model_settings": untied})
    assert [(spec.setting, spec.cycle.sleep) for spec in found] == [(None, "2"), ("adapter", "1")]


def test_settings_with_and_without_an_adapter_are_compared() -> None:
    adapters = {
        "adapter": {"lora": {"rank": 16, "max_rank": 64}},
        "sharded": {"lora": {"rank": 4, "fully_sharded": True}},
    }
    found = specs({"quants": ["bf16"], "settings": ["default", *adapters], "setting_settings": adapters})
    args = [{name: value for name, value in spec.engine.args.items() if "lora" in name} for spec in found]
    assert [spec.setting for spec in found] == [None, "adapter", "sharded"]
    assert args == [
        {},
        {"enable_lora": True, "max_loras": 1, "max_lora_rank": 64},
        {"enable_lora": True, "max_loras": 1, "max_lora_rank": 8, "fully_sharded_loras": True},
    ]
    assert len({spec.key() for spec in found}) == 3
    assert differing_values(found) == ["", "lora.rank=16, lora.max_rank=64", "lora.rank=4, lora.fully_sharded=true"]


def test_ranks_are_swept() -> None:
    found = specs({"quants": ["bf16"], "sweep": {"lora.rank": [8, 16, 64]}})
    assert [(spec.setting, spec.lora and spec.lora.rank) for spec in found] == [
        (None, None),
        *((f"lora.rank-{rank}", rank) for rank in (8, 16, 64)),
    ]
    assert differing_values(found) == [""] * 4, "the names say it"
    assert swept_number(found) == "lora.rank"


def test_adapters_beside_endpoints_are_told() -> None:
    endpoints = {"theirs": {"url": "http://127.0.0.1:1/v1", "model": "m"}}
    found = planned.planned({"modes": ["online"], "quants": ["bf16"], "lora": {"rank": 8}, "endpoints": endpoints})
    assert [line for line in found.remarks if line.startswith("lora: changes nothing at endpoints")]
    assert [experiment.spec.lora is None for experiment in found.experiments] == [False, True]


@pytest.mark.parametrize("is_eager", [True, False])
def test_adapters_that_get_no_verdict_on_a_cpu_are_told(is_eager: bool) -> None:
    adapter = {"lora": {"rank": 8}, "quants": ["bf16"]}
    compiled = {"workload_settings": {"demo": {"engine_args": {"enforce_eager": is_eager}}}}
    lines = adapter_lines(planned.planned({**adapter, **compiled}))
    assert len(lines) == (0 if is_eager else 1)
    assert adapter_lines(planned.planned({**adapter, **compiled, "engine_args": {"enforce_eager": True}})) == []


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, True),
        ({"lora": {"rank": 4}}, False),
        ({"modes": ["offline"]}, False),
        ({"model_settings": {"qwen3-90m": {"synthetic": {"shape": {"tie_word_embeddings": False}}}}}, False),
    ],
)
def test_a_head_that_no_update_reaches_is_told_before_it_is_measured(config: dict[str, Any], *, told: bool) -> None:
    (line,) = update_lines(planned.planned({"modes": ["cycle"], "quants": ["bf16"], **config})) or [""]
    assert ("-> model_settings: {qwen3-90m: {synthetic: {shape: {tie_word_embeddings: false}}}} (" in line) == told
