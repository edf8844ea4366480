"""The memory that engines are taken to need: activations, logits, the reserve, a cache of a set size."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from rooms import matrix_of

from rollout_bench.core.errors import UserError
from rollout_bench.plan.fit import memory
from rollout_bench.plan.fit.architecture import MemoryUnknownError
from rollout_bench.plan.fit.memory import GIB, MachineMemory, check_fits, node_bytes, unfit, working_bytes

DEVICE_BYTES = {"H100": 80 * GIB, "H200": 141 * GIB}


def test_a_large_model_needs_room_beyond_its_weights():
    sizes = {"hidden_size": 4096, "intermediate_size": 12288, "vocab_size": 151936}
    args = {"max_num_seqs": 256, "max_num_batched_tokens": 8192}
    spec = SimpleNamespace(engine=SimpleNamespace(args=args), model=SimpleNamespace(synthetic=None, weights="here"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "model_config", lambda *_: sizes)
        found = working_bytes(spec, "here")
        args.update(max_num_batched_tokens=None, max_model_len=768)
        fewer = working_bytes(spec, "here")
        sizes.pop("vocab_size")
        with pytest.raises(MemoryUnknownError, match="vocab_size"):
            working_bytes(spec, "here")
    activations = 8192 * (4 * 4096 + 3 * 12288) * 4
    assert found == activations + 256 * 151936 * 4 + 2 * 4096 * 151936
    assert found - fewer == activations / 2


def test_engines_on_cpu_leave_a_tenth_of_what_is_available(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10 * GIB)
    assert MachineMemory().there("cpu") == 9 * GIB
    assert MachineMemory(places=2).there("cpu") == 4.5 * GIB


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
    return unfit(matrix_of(overlay, "cuda")[1].experiments[0], DEVICE_BYTES[device], f"one {device}")


def test_an_engine_exceeding_its_share_is_refused_with_a_remedy():
    found = unfit_on("H200", LARGE)
    assert found is not None
    assert "m bf16 verl-default (offline) does not fit: 145 GB weights" in found.problem
    assert found.problem.endswith("one H200 has 151 GB, of which gpu_memory_utilization 0.4 is 60.6")
    assert found.remedy == "set tensor_parallel_size to 4 in engine_args, or take a smaller model"
    assert unfit_on("H200", LARGE + "engine_args: {tensor_parallel_size: 4}") is None
    assert unfit_on("H200", LARGE + "engine_args: {cpu_offload_gb: 100}") is None
    quantized = unfit_on("H200", LARGE.replace("bf16, fp8", "fp8"))
    assert quantized is not None
    assert quantized.remedy == "set gpu_memory_utilization to 0.50 or more in engine_args"
    with pytest.raises(UserError, match="does not fit"):
        check_fits(matrix_of(LARGE, "cuda")[1].experiments, 80 * GIB, "one H100")


PLACED = """
modes: [placement]
models: [m]
quants: [bf16]
workloads: [verl-default]
model_settings: {m: {synthetic: {preset: qwen3-8b}}}
placement: {where: [colocated], devices: 4}
engine_args: {gpu_memory_utilization: 0.5}
"""


def test_a_colocated_engine_must_leave_room_for_its_trainer():
    found = unfit_on("H100", PLACED)  # 65 GB of weights, gradients and moments beside half of 86 GB
    assert found is not None
    assert "65.5 GB trainer" in found.problem
    assert found.remedy == "set gpu_memory_utilization to 0.20 or more in engine_args, and to 0.23 at most"
    assert unfit_on("H100", PLACED.replace("0.5", "0.22")) is None
    assert unfit_on("H100", PLACED.replace("devices: 4", "devices: 4, train_s: 8")) is None  # it keeps weights alone


def test_a_cpu_engines_share_must_hold_weights_and_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(memory.KV_SPACE, raising=False)
    monkeypatch.setattr(memory, "node_bytes", lambda: 10 * GIB)
    share = "workload_settings: {demo: {engine_args: {kv_cache_memory_bytes: null}}}\nengine_args: "
    with pytest.raises(UserError, match=r"does not fit: .* GB process; this machine has") as raised:
        check_fits(matrix_of(share + "{gpu_memory_utilization: 0.1}")[1].experiments, None, "")
    assert raised.value.remedy.endswith(
        "gpu_memory_utilization to 0.15 or more in engine_args, or kv_cache_memory_bytes"
    )
    check_fits(matrix_of(share + "{gpu_memory_utilization: 0.15}")[1].experiments, None, "")
    check_fits(
        matrix_of("engine_args: {gpu_memory_utilization: 0.1}")[1].experiments, None, ""
    )  # the cache's size is set


def test_vllms_share_is_taken_of_the_largest_memory_node(tmp_path: Path):
    for node, kib in ((0, 100), (1, 300)):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}" / "meminfo").write_text(
            f"Node {node} MemFree: 9 kB\nNode {node} MemTotal: {kib} kB\n"
        )
    assert node_bytes(tmp_path) == 300 << 10
    assert node_bytes(tmp_path / "none") == memory.machine_bytes()
