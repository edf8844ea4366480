"""Placements are planned with where engines and trainer live as settings, and as many devices under each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from planned import planned

from rollout_bench.contracts.spec import Spec, devices_needed, placed_engines
from rollout_bench.core.errors import UserError
from rollout_bench.plan.checks import check_devices_here

BASE = "modes: [placement], quants: [bf16], workloads: [demo]"


def specs(overlay: str) -> dict[str, Spec]:
    """Return the specs by the name of their setting."""
    return {e.spec.axes["setting"]: e.spec for e in planned(f"{{{BASE}, {overlay}}}").experiments}


def placement_of(spec: Spec) -> dict[str, Any]:
    assert spec.placement is not None
    return spec.placement.model_dump(mode="json")


def test_both_places_are_settings_on_as_many_devices() -> None:
    found = specs("placement: {devices: 4}")
    assert list(found) == ["where-colocated", "where-server"]
    assert placement_of(found["where-colocated"]) == {"where": "colocated", "devices": 4}
    assert placement_of(found["where-server"]) == {"where": "server", "generators": 2, "devices": 4}
    assert {devices_needed(spec) for spec in found.values()} == {4}
    assert {spec.measuring.iterations for spec in found.values()} == {5}


def test_what_is_by_default_leaves_the_key_as_it_is() -> None:
    assert specs("placement: {}") == specs(
        "placement: {devices: 2, generators: 1, overlap: 0, where: [colocated, server]}"
    )


def test_one_place_needs_no_setting() -> None:
    assert [*specs("placement: {where: [server]}")] == ["default"]
    (spec,) = specs("placement: {where: [server]}").values()
    assert placement_of(spec)["where"] == "server"


def test_devices_that_train_are_those_that_do_not_generate() -> None:
    found = specs("placement: {devices: 8, generators: 1}, workload_settings: {demo: {prompts: 8}}")
    server, colocated = found["where-server"].placement, found["where-colocated"].placement
    assert server is not None
    assert colocated is not None
    assert (list(server.generating), list(server.training)) == ([0], [1, 2, 3, 4, 5, 6, 7])
    assert list(colocated.generating) == list(colocated.training) == list(range(8))


def test_colocated_devices_are_never_ahead_so_both_values_of_overlap_are_one_setting() -> None:
    matrix = planned(f"{{{BASE}, sweep: {{placement.overlap: [0, 1]}}}}")
    assert [e.spec.axes["setting"] for e in matrix.experiments] == [
        "overlap-0+where-colocated",
        "overlap-0+where-server",
        "overlap-1+where-server",
    ]
    ahead = matrix.experiments[-1].spec.placement
    assert ahead is not None
    assert ahead.overlap == 1
    assert [(s.setting, s.reason) for s in matrix.skipped] == [
        ("overlap-1+where-colocated", "it is the same as under overlap-0+where-colocated")
    ]


def test_engines_of_a_server_never_sleep_so_all_levels_are_one_setting() -> None:
    matrix = planned(f"{{{BASE}, platform: cuda, sweep: {{placement.sleep: [none, 1, 2]}}}}")
    found = {e.spec.axes["setting"]: placement_of(e.spec).get("sleep") for e in matrix.experiments}
    assert found == {
        "sleep-none+where-colocated": None,
        "sleep-none+where-server": None,
        "sleep-1+where-colocated": "1",
        "sleep-2+where-colocated": "2",
    }
    assert [s.reason for s in matrix.skipped] == ["it is the same as under sleep-none+where-server"] * 2


def test_where_vllm_puts_no_engine_to_sleep_settings_that_would_are_left_out() -> None:
    matrix = planned(f"{{{BASE}, placement: {{where: [colocated]}}, sweep: {{placement.sleep: [2]}}}}")
    assert [e.spec.axes["setting"] for e in matrix.experiments] == ["default"]
    assert [s.reason for s in matrix.skipped] == ["placement.sleep: 2: vLLM can't put an engine to sleep on cpu"]


def test_no_sleep_leaves_the_key_as_it_is() -> None:
    assert specs("placement: {sleep: none}") == specs("placement: {}")
    assert "sleep" not in placement_of(specs("placement: {sleep: none}")["where-colocated"])


def test_a_trainer_of_known_time_trains_nothing() -> None:
    (spec, _) = specs("placement: {train_s: 2.5}").values()
    assert placement_of(spec) == {"where": "colocated", "devices": 2, "train_s": 2.5}
    moe = "models: [m], model_settings: {m: {synthetic: {preset: qwen3-moe-tiny}}}"
    assert len(specs(f"placement: {{train_s: 1}}, {moe}")) == 2


@pytest.mark.parametrize("key", ["devices: [2, 4]", "generators: [1, 3]"])
def test_its_keys_can_be_swept(key: str) -> None:
    name = key.partition(":")[0]
    found = specs(f"placement: {{devices: 4}}, sweep: {{placement.{key}}}")
    assert {setting for setting in found if setting.endswith("where-server")} == {
        f"{name.replace('_', '-')}-{value}+where-server" for value in json.loads(key.partition(": ")[2])
    }


def test_a_list_that_nobody_wrote_gives_way_to_a_sweep_and_to_other_modes() -> None:
    assert [*specs("sweep: {placement.where: [server]}")] == ["default", "where-server"]
    both = planned("{modes: [offline, placement], quants: [bf16], workloads: [demo]}")
    assert [(e.spec.mode, e.spec.setting) for e in both.experiments] == [
        ("offline", None),
        ("placement", "where-colocated"),
        ("placement", "where-server"),
    ]


def test_lists_of_two_modes_are_not_crossed() -> None:
    found = planned(
        "{modes: [cycle, placement], quants: [bf16], workloads: [demo], cycle: {update: [reload, in_process]}}"
    ).experiments
    assert [(e.spec.mode, e.spec.setting) for e in found] == [
        ("cycle", "update-reload"),
        ("cycle", "update-in-process"),
        ("placement", "where-colocated"),
        ("placement", "where-server"),
    ]


def test_settings_of_ones_own_may_give_a_server_the_memory_that_a_trainer_would_need() -> None:
    found = specs(
        "settings: [colocated, server], setting_settings: {colocated: {placement: {where: [colocated]}},"
        " server: {placement: {where: [server]}, engine_args: {max_num_seqs: 8}}}"
    )
    assert [(name, spec.engine.args["max_num_seqs"]) for name, spec in found.items()] == [
        ("colocated", 64),
        ("server", 8),
    ]


def test_a_launch_needs_as_many_devices_as_share_the_step() -> None:
    found = specs("placement: {devices: 4}").values()
    check_devices_here(found, 4)
    with pytest.raises(UserError, match=r"placement\.devices: a launch of qwen3-90m needs 4 cores, and there are 2"):
        check_devices_here(found, 2)


def test_engines_may_have_several_devices_wherever_their_size_stands() -> None:
    of_all = "engine_args: {tensor_parallel_size: 2}"
    of_model = "model_settings: {qwen3-90m: {engine_args: {tensor_parallel_size: 2}}}"
    for said in (of_all, of_model, "quant_settings: {bf16: {engine_args: {tensor_parallel_size: 2}}}"):
        found = specs(f"placement: {{devices: 4}}, {said}")
        assert {name: placed_engines(spec) for name, spec in found.items()} == {
            "where-colocated": [range(2), range(2, 4)],
            "where-server": [range(2)],
        }
        assert {devices_needed(spec) for spec in found.values()} == {4}


def test_of_a_sweep_the_sizes_that_divide_the_devices_are_measured() -> None:
    matrix = planned(f"{{{BASE}, placement: {{where: [colocated, server]}}, sweep: {{tensor_parallel_size: [2]}}}}")
    assert [e.spec.axes["setting"] for e in matrix.experiments] == ["tensor-parallel-size-2+where-colocated"]
    ((setting, reason),) = [(skipped.setting, skipped.reason) for skipped in matrix.skipped]
    assert setting == "tensor-parallel-size-2+where-server"
    assert reason.startswith("tensor_parallel_size: 2 does not divide the 1 generating device")


def test_settings_of_ones_own_may_have_engines_of_different_sizes() -> None:
    found = specs(
        "placement: {devices: 4}, settings: [one, two], setting_settings: {one: {placement: {where: [colocated]},"
        " engine_args: {tensor_parallel_size: 4}}, two: {placement: {where: [server], generators: 3},"
        " engine_args: {tensor_parallel_size: 3}}}"
    )
    assert [placed_engines(spec) for spec in found.values()] == [[range(4)], [range(3)]]


def test_engines_on_one_machine_have_to_share_its_memory_out() -> None:
    found = specs("workload_settings: {demo: {engine_args: {kv_cache_memory_bytes: null}}}")
    check_devices_here([found["where-server"]], 2)
    with pytest.raises(UserError, match=r"2 engines of qwen3-90m share the machine's memory on cpu, and each would"):
        check_devices_here(found.values(), 2)
    sharded = specs(
        "placement: {where: [colocated]}, engine_args: {tensor_parallel_size: 2},"
        " workload_settings: {demo: {engine_args: {kv_cache_memory_bytes: null}}}"
    )
    with pytest.raises(UserError, match="2 shards of engines of qwen3-90m share the machine's memory"):
        check_devices_here(sharded.values(), 2)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({"torch_dtype": "bfloat16"}, ""),
        ({}, ""),
        ({"torch_dtype": "float16"}, "those of m are float16"),
        ({"dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"}}, "those of m are quantized"),
    ],
)
def test_named_weights_are_placed_where_their_folder_has_bf16(tmp_path: Path, said: dict[str, Any], wrong: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(said))
    overlay = f"models: [m], model_settings: {{m: {{weights: {{bf16: {tmp_path}}}}}}}"
    if not wrong:
        assert len(specs(overlay)) == 2
        return
    with pytest.raises(UserError, match=wrong):
        specs(overlay)
