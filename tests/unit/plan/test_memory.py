"""What a model is and needs: its architecture, and the memory of its engine."""

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from refusals import refused
from rooms import matrix_of
from synthetic_records import make_spec

from rollout_bench.checkpoints.formats import hf_config, tensors
from rollout_bench.checkpoints.shapes import PRESETS, SyntheticModel
from rollout_bench.contracts.engine_memory import GIB, KV_SPACE
from rollout_bench.contracts.spec import QuantSpec, Spec
from rollout_bench.core.errors import UserError
from rollout_bench.core.machine_memory import machine_bytes, node_bytes
from rollout_bench.plan.fit import memory
from rollout_bench.plan.fit.architecture import (
    MemoryUnknownError,
    architecture_from,
    bits_of,
    cache_value_bytes,
    check_declared,
    known_config,
    model_config,
    synthetic_of,
    too_long,
)
from rollout_bench.plan.fit.memory import (
    MachineMemory,
    check_fits,
    concurrent_sequences,
    fit_lines,
    full_sequences,
    held_bytes,
    lacking_memory,
    weights_held,
)

QWEN2: dict[str, Any] = {
    "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16", "sliding_window": 32768, "use_sliding_window": False,
}  # fmt: skip


MXFP4 = {"quantization_config": {"quant_method": "mxfp4"}}


def with_quant(weights_format: str, *dtypes: str, **args: Any) -> Spec:
    """Return a spec with another way to store weights."""
    spec = make_spec(args=args)
    quant = QuantSpec(name="q", weights_format=weights_format, linear_dtypes=dtypes, linear_method="")
    return spec.model_copy(update={"quant": quant})


def with_weights(weights: str) -> Spec:
    """Return a spec of a model that is not synthetic."""
    spec = make_spec()
    return spec.model_copy(update={"model": spec.model.model_copy(update={"synthetic": None, "weights": weights})})


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_model_holds_the_weights_that_are_built(name: str):
    shape = SyntheticModel(preset=name).resolve()
    held = held_bytes(architecture_from(hf_config(shape, "bf16")), 16, 2) / 2
    rel = 0.02 if "tiny" in name or shape.architecture == "opt" else 0.001  # learned positions are not counted
    assert held == pytest.approx(sum(spec.elements for spec in tensors(shape)), rel=rel)


def test_missing_head_width_and_windows_are_derived():
    found = architecture_from({"text_config": QWEN2, "vision_config": {}})
    assert (found.head_dim, found.whole_layers) == (64, 24)
    assert architecture_from({**QWEN2, "use_sliding_window": None, "layer_types": []}).whole_layers == 0
    mixed = ["sliding_attention"] * 18 + ["full_attention"] * 6
    windows = architecture_from({**QWEN2, "use_sliding_window": True, "sliding_window": 512, "layer_types": mixed})
    assert (windows.whole_layers, windows.window_layers) == (6, 18)
    assert windows.cached_values(2048) == 2 * 2 * 64 * (6 * 2048 + 18 * 512)
    assert windows.cached_values(256) == found.cached_values(256)
    mixtral = architecture_from({**QWEN2, "num_local_experts": 8, "num_experts_per_tok": 2})
    assert mixtral.linear - found.linear == 24 * 7 * 3 * 896 * 4864


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"use_sliding_window": True}, "which layers have windows"),
        ({"vision_config": {"depth": 32}}, "its part for images"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
        ({"decoder_sparse_step": 2}, "layers without experts"),
        ({"model_type": "gpt_neox"}, "the size of its model_type 'gpt_neox' is unknown"),
        ({"model_type": None}, "no model_type"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_models_whose_work_is_another_sum_get_a_reason(changed: dict[str, Any], why: str):
    with pytest.raises(MemoryUnknownError, match=why):
        architecture_from({**QWEN2, **changed})


def test_weights_that_declare_another_width_than_the_quantization_are_not_counted():
    spec = with_quant("bf16", "bfloat16")
    with pytest.raises(MemoryUnknownError, match="says quant_method mxfp4, and q has 16 bits"):
        check_declared(spec, {**QWEN2, **MXFP4})
    check_declared(with_quant("bf16", "float8_e4m3fn"), {**QWEN2, "quantization_config": {"quant_method": "fp8"}})
    with pytest.raises(MemoryUnknownError, match="says quant_method fp8"):
        check_declared(spec, {**QWEN2, "quantization_config": "fp8"})
    check_declared(spec, QWEN2)


@pytest.mark.parametrize("damaged", [None, "{", "[" * 100_000], ids=["none", "torn", "deep"])
def test_a_models_unreadable_config_is_named(tmp_path: Path, damaged: str | None):
    if damaged:
        (tmp_path / "config.json").write_text(damaged)
    with pytest.raises(MemoryUnknownError, match=r"config.json: .*(No such|JSON)"):
        model_config(with_weights("mine"), str(tmp_path))


def test_a_model_is_looked_up_where_its_weights_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN2))
    assert model_config(with_weights("mine"), str(tmp_path)) == QWEN2
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MemoryUnknownError, match="neither in the local cache nor a well-known one"):
        model_config(with_weights("hub:nobody/nothing-of-that-name"), "nobody/nothing-of-that-name")


@pytest.mark.parametrize(
    ("spec", "bits"),
    [
        (with_quant("bf16", "bfloat16"), 16),
        (with_quant("bf16", "float8_e4m3fn", "float8_e4m3fnuz"), 8),
        (with_quant("compressed-tensors-w8a16", "int32", "uint8"), 8),
        (with_quant("compressed-tensors-w4a16", "int32"), 4.125),
        (with_quant("own", "int32", "int8"), None),
    ],
)
def test_bits_follow_from_the_quantization_where_it_says(spec: Spec, bits: float | None):
    reason = pytest.raises(MemoryUnknownError, match="q does not say how many bits") if bits is None else nullcontext()
    with reason:
        assert bits_of(spec) == bits


def test_the_cache_has_the_models_width_unless_told_otherwise():
    asked = {"auto": 2, None: 2, "fp8_e5m2": 1, "float32": 4, "nvfp4": 0.5}
    assert {dtype: cache_value_bytes(with_quant("bf16", kv_cache_dtype=dtype)) for dtype in asked} == asked
    assert cache_value_bytes(with_quant("bf16", dtype="float32")) == 4


DEVICE_BYTES = {"H100": 80 * GIB, "H200": 141 * GIB}


def test_a_cache_size_counts_where_it_exceeds_the_device_share():
    overlay = "quants: [bf16]\nworkloads: [verl-default]\n"
    overlay += f"engine_args: {{gpu_memory_utilization: 0.2, kv_cache_memory_bytes: {30 * GIB}}}"
    _, matrix = matrix_of(overlay, "cuda")
    assert MachineMemory().taken(matrix.experiments[0]) == 0.2
    assert MachineMemory(device_bytes=80 * GIB).taken(matrix.experiments[0]) == pytest.approx(30 / 80, abs=0.01)
    assert MachineMemory(device_bytes=800 * GIB).taken(matrix.experiments[0]) == 0.2


LARGE = """
models: [m]
quants: [bf16, fp8]
workloads: [verl-default]
model_settings: {m: {weights: {bf16: "hub:Qwen/Qwen2.5-72B"}}}
"""


def unfit_on(device: str, overlay: str) -> UserError | None:
    """Return what is said of the first experiment of a config on a known device."""
    return lacking_memory(matrix_of(overlay, "cuda")[1].experiments[0], DEVICE_BYTES[device], f"one {device}")


@pytest.mark.parametrize(
    ("overlay", "remedy"),
    [
        (LARGE, "set tensor_parallel_size to 4 in engine_args, or take a smaller model"),
        (LARGE.replace("bf16, fp8", "fp8"), "set gpu_memory_utilization to 0.50 or more in engine_args"),
        (LARGE + "engine_args: {tensor_parallel_size: 4}", None),
        (LARGE + "engine_args: {cpu_offload_gb: 100}", None),
    ],
)
def test_an_engine_exceeding_its_share_is_refused_with_a_remedy(overlay: str, remedy: str | None):
    found = unfit_on("H200", overlay)
    assert (found and found.remedy) == remedy
    assert found is None or found.problem.endswith("one H200 has 151 GB, of which gpu_memory_utilization 0.4 is 60.6")


def test_what_does_not_fit_is_told_with_its_parts():
    with refused("m bf16 verl-default (offline) does not fit by 111 GB: 145 GB weights", ""):
        check_fits(matrix_of(LARGE, "cuda")[1].experiments, 80 * GIB, "one H100")


OTHER = {**QWEN2, "model_type": "deepseek_v3"}


@pytest.mark.parametrize(
    "config",
    [*({"text_config": {**OTHER, "num_attention_heads": heads}} for heads in (14, None)), {"text_config": 7}, None],
)
def test_large_local_models_without_plain_sizes_get_a_remedy(tmp_path: Path, config: dict[str, Any] | None):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with (tmp_path / "model.safetensors").open("wb") as weights:
        weights.truncate(100 * GIB)
    own = LARGE.replace("hub:Qwen/Qwen2.5-72B", str(tmp_path)) + "engine_args: {gpu_memory_utilization: 0.9}"
    assert unfit_on("H100", own).remedy == "set tensor_parallel_size to 2 in engine_args, or take a smaller model"


@pytest.mark.parametrize(
    ("more", "held"),
    [({}, 0.92 * GIB), ({"model_type": "deepseek_v3"}, 10 * GIB), (MXFP4, 10 * GIB)],
    ids=["known", "other", "quantized"],
)
def test_weights_count_as_an_engine_loads_them(tmp_path: Path, more: dict[str, Any], held: float):
    (tmp_path / "config.json").write_text(json.dumps({**QWEN2, **more, "tie_word_embeddings": True}))
    for name, gib in {"model.safetensors": 10, "pytorch_model.bin": 10, "optimizer.pt": 20}.items():
        with (tmp_path / name).open("wb") as file:  # in float32, with the trainer's state
            file.truncate(gib * GIB)
    assert weights_held(with_weights("mine"), str(tmp_path)) == pytest.approx(held, rel=0.02)


def test_the_stages_of_a_pipeline_share_the_weights():
    experiments = matrix_of(LARGE + "engine_args: {pipeline_parallel_size: 2}", "cuda")[1].experiments
    assert MachineMemory(device_bytes=141 * GIB).taken(experiments[0]) == pytest.approx(145.4 / 2 / 151.4, abs=0.01)


PLACED = """
modes: [placement]
models: [m]
quants: [bf16]
workloads: [verl-default]
model_settings: {m: {synthetic: {preset: qwen3-8b}}}
placement: {where: colocated, devices: 4}
engine_args: {gpu_memory_utilization: 0.5}
"""


def test_a_colocated_engine_must_leave_room_for_its_trainer():
    found = unfit_on("H100", PLACED)  # 65 GB of weights, gradients and moments beside half of 86 GB
    assert "65.5 GB trainer" in found.problem
    assert found.remedy == "set gpu_memory_utilization to 0.20 or more in engine_args, and to 0.23 at most"
    assert unfit_on("H100", PLACED.replace("0.5", "0.22")) is None
    assert unfit_on("H100", PLACED.replace("devices: 4", "devices: 4, train_s: 8")) is None  # it keeps weights alone
    assert unfit_on("H100", PLACED.replace("devices: 4", "devices: 4, strategy: fsdp2")) is None  # a quarter each
    large = PLACED.replace("qwen3-8b", "qwen2.5-32b").replace("devices: 4", "devices: 8, strategy: fsdp2")
    assert "65.5 GB trainer" in unfit_on("H100", large).problem  # each begins with all weights


def test_a_trainer_apart_must_fit_a_device_of_its_own():
    apart = PLACED.replace("where: colocated, devices: 4", "where: server, generators: 2, devices: 4")
    assert unfit_on("H100", apart) is None
    large = apart.replace("qwen3-8b", "qwen2.5-32b").replace("0.5", "0.9")
    found = unfit_on("H200", large)
    assert "does not fit by 111 GB: 65.5 GB weights" in found.problem
    assert "262 GB trainer on a device of its own" in found.problem
    assert "no tensor_parallel_size alone is enough" in found.remedy
    assert unfit_on("H200", large.replace("devices: 4", "devices: 4, train_s: 8")) is None


def test_a_plan_says_what_fits_which_device():
    experiments = matrix_of(LARGE.replace("verl-default", "verl-default, verl-0.9"), "cuda")[1].experiments
    roomy, *wrong = fit_lines(experiments, 141 * GIB, "one H200")
    assert roomy.startswith(
        "memory: one H200 (151 GB): 1 of 4 fit; tightest is m fp8 verl-0.9 (offline): the KV cache holds some 1 "
    )
    assert [line.split(" does not fit by ")[1].split(":")[0] for line in wrong] == ["85.1 GB", "14.9 GB", "70.0 GB"]
    assert wrong[0].endswith("; set tensor_parallel_size to 4 in engine_args, or take a smaller model")
    four = matrix_of(LARGE + "engine_args: {tensor_parallel_size: 4}", "cuda")[1].experiments
    assert len([*fit_lines(four, 141 * GIB, "one H200")]) == 1
    assert {word for line in fit_lines(four, None, "") for word in ("an H100", "an H200") if word in line} == {
        "an H100",
        "an H200",
    }


def test_a_plan_gives_a_size_to_a_cache_that_would_take_all_memory_of_a_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(KV_SPACE, raising=False)
    unlimited = "workload_settings: {demo: {engine_args: {max_num_seqs: 64, kv_cache_memory_bytes: null}}}"
    (line,) = fit_lines(matrix_of(unlimited)[1].experiments, None, "")
    assert "vLLM takes 92 % of the machine's memory at each start" in line
    enough = int(re.search("kv_cache_memory_bytes: ([0-9]+)} is enough", line)[1])
    sized = matrix_of(unlimited.replace("null", str(enough)))[1].experiments
    assert [*fit_lines(sized, None, "")] == []
    assert all(full_sequences(e.spec, e.model_path, 0) >= concurrent_sequences(e.spec) for e in sized)
    monkeypatch.setattr(memory, "machine_bytes", lambda: enough)
    (line,) = fit_lines(matrix_of(unlimited)[1].experiments, None, "")
    assert f"kv_cache_memory_bytes: {enough // 2}}} leaves memory for weights, and some sequences wait" in line


def test_a_cpu_engines_share_must_hold_weights_and_process(monkeypatch: pytest.MonkeyPatch):
    def check(overlay: str) -> None:
        check_fits(matrix_of(overlay)[1].experiments, None, "")

    monkeypatch.delenv(KV_SPACE, raising=False)
    monkeypatch.setattr(memory, "node_bytes", lambda: 10 * GIB)
    share = "workload_settings: {demo: {engine_args: {kv_cache_memory_bytes: null}}}\nengine_args: "
    with refused("does not fit by ", "gpu_memory_utilization to 0.15 or more in engine_args, or kv_cache_memory_bytes"):
        check(share + "{gpu_memory_utilization: 0.1}")
    check(share + "{gpu_memory_utilization: 0.15}")
    check("engine_args: {gpu_memory_utilization: 0.1}")  # the cache's size is set


def test_vllms_share_is_taken_of_the_largest_memory_node(tmp_path: Path):
    for node, kib in ((0, 100), (1, 300)):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}" / "meminfo").write_text(
            f"Node {node} MemFree: 9 kB\nNode {node} MemTotal: {kib} kB\n"
        )
    assert (node_bytes(tmp_path), node_bytes(tmp_path / "none")) == (300 << 10, machine_bytes())


BILLIONS = {
    "Qwen/Qwen2.5-0.5B": 0.494,
    "Qwen/Qwen2.5-Math-1.5B": 1.544,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1.777,
    "Qwen/Qwen2.5-3B-Instruct": 3.086,
    "Qwen/Qwen2.5-7B-Instruct": 7.616,
    "Qwen/Qwen2.5-14B": 14.77,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": 32.76,
    "Qwen/Qwen2.5-72B-Instruct": 72.71,
    "Qwen/Qwen3-0.6B": 0.596,
    "Qwen/Qwen3-1.7B": 1.721,
    "Qwen/Qwen3-4B": 4.022,
    "Qwen/Qwen3-8B": 8.191,
    "Qwen/Qwen3-14B": 14.77,
    "Qwen/Qwen3-32B": 32.76,
    "Qwen/Qwen3-30B-A3B": 30.53,
    "Qwen/Qwen3-235B-A22B": 235.1,
    "meta-llama/Llama-3.2-1B-Instruct": 1.236,
    "meta-llama/Llama-3.2-3B": 3.213,
    "meta-llama/Llama-3.1-8B-Instruct": 8.030,
    "meta-llama/Llama-3.3-70B-Instruct": 70.55,
    "mistralai/Mistral-7B-Instruct-v0.3": 7.248,
}
"""Parameters as the models' pages count their safetensors."""


@pytest.mark.parametrize("model", BILLIONS)
def test_a_well_known_model_has_its_published_number_of_parameters(model: str) -> None:
    held = held_bytes(architecture_from(known_config(model)), 16, 2) / 2
    assert held == pytest.approx(BILLIONS[model] * 1e9, rel=0.001)  # biases and norms of heads are not counted


@pytest.mark.parametrize("model", [model for model in BILLIONS if "mistral" not in model])
def test_the_synthetic_model_of_a_well_known_one_has_its_number_of_parameters(model: str) -> None:
    shape = SyntheticModel(**synthetic_of(model)).resolve()
    assert sum(spec.elements for spec in tensors(shape)) == pytest.approx(BILLIONS[model] * 1e9, rel=0.001)
    assert {**hf_config(shape, "bf16"), **known_config(model)} == hf_config(shape, "bf16")


def test_a_synthetic_model_needs_a_preset_of_the_architecture() -> None:
    assert synthetic_of("Qwen/Qwen3-8B-Base") == {"preset": "qwen3-8b"}
    with pytest.raises(MemoryUnknownError, match="mistral"):
        synthetic_of("mistralai/Mistral-7B-v0.3")


def test_no_other_hub_model_passes_for_a_well_known_one() -> None:
    for model in ("Qwen/Qwen3-8B-FP8", "someone/Qwen3-8B", "Qwen/Qwen3-80B"):
        with pytest.raises(MemoryUnknownError, match="well-known"):
            known_config(model)


@pytest.mark.parametrize(
    ("asked", "more", "is_told"),
    [
        (4096, {}, False),
        (4097, {}, True),
        (None, {}, False),
        (4097, {"rope_scaling": {"type": "yarn", "factor": 4.0}}, False),
        (4097, {"rope_parameters": {"rope_type": "default"}}, True),
        (4097, {"max_position_embeddings": None}, False),
    ],
)
def test_a_length_beyond_the_models_own_positions_is_told(
    tmp_path: Path, asked: int | None, more: dict[str, Any], is_told: bool
):
    (tmp_path / "config.json").write_text(json.dumps({**QWEN2, "max_position_embeddings": 4096, **more}))
    spec = with_weights(str(tmp_path))
    spec.engine.args["max_model_len"] = asked
    error = too_long(spec, str(tmp_path))
    assert (error is not None) == is_told
    if error is not None:
        assert "is more than the 4096 positions" in error.problem
    assert too_long(spec, str(tmp_path / "not-here")) is None
