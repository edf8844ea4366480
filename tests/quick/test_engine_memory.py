"""The memory that engines are taken to need: activations, logits, the reserve, a cache of a set size."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rooms import matrix_of

from rollout_bench.analysis.bounds import memory as bounds
from rollout_bench.analysis.bounds.memory import GIB, MachineMemory, working_bytes
from rollout_bench.plan.interleaving import MemoryUnknownError


def test_a_large_model_needs_room_for_activations_logits_and_its_largest_weight():
    sizes = {"hidden_size": 4096, "intermediate_size": 12288, "vocab_size": 151936}
    args = {"max_num_seqs": 256, "max_num_batched_tokens": 8192}
    spec = SimpleNamespace(engine=SimpleNamespace(args=args), model=SimpleNamespace(synthetic=None, weights="here"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounds, "model_config", lambda *_: sizes)
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
    monkeypatch.setattr(bounds, "available_bytes", lambda: 10 * GIB)
    assert MachineMemory().there("cpu") == 9 * GIB
    assert MachineMemory(places=2).there("cpu") == 4.5 * GIB


def test_a_cache_of_a_set_size_counts_where_it_is_more_than_the_share_of_the_device():
    overlay = "quants: [bf16]\nworkloads: [verl-default]\n"
    overlay += f"engine_args: {{gpu_memory_utilization: 0.2, kv_cache_memory_bytes: {30 * GIB}}}"
    _, matrix = matrix_of(overlay, "cuda")
    assert MachineMemory().taken(matrix.experiments[0]) == 0.2
    assert MachineMemory(device_bytes=80 * GIB).taken(matrix.experiments[0]) == pytest.approx(30 / 80, abs=0.01)
    assert MachineMemory(device_bytes=800 * GIB).taken(matrix.experiments[0]) == 0.2
