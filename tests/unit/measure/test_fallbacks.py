"""What the engine's log says of kernels that it could not use and options that it ignored."""

from __future__ import annotations

import pytest

from rollout_bench.measure.launch.flags import fallback_flags

LOG = """(EngineCore pid=7) WARNING 11-20 07:53:17 [kernel.py:419] --linear-backend=marlin was requested, but no \
marlin kernel exists for int8 layers; falling back to normal kernel selection for this layer.
(EngineCore pid=8) WARNING 11-20 07:53:18 [kernel.py:419] --linear-backend=marlin was requested, but no \
marlin kernel exists for int8 layers; falling back to normal kernel selection for this layer.
WARNING 11-20 07:53:17 [cpu.py:347] Dual-Batch Overlap is not supported on CPU, disabled.
(EngineCore pid=7) WARNING 11-20 07:53:17 [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs.
(EngineCore pid=7) WARNING 11-20 07:53:17 [vllm.py:1727] Inductor compilation was disabled by user settings, \
optimizations settings that are only active during inductor compilation will be ignored.
(EngineCore pid=7) INFO 11-20 07:53:17 [scheduler.py:307] Chunked prefill is enabled.
Traceback: falling back, said a library
"""


def test_each_fallback_of_the_engine_is_quoted_once_and_what_was_asked_for_is_none() -> None:
    flags = fallback_flags(LOG)
    assert {(flag.code, flag.severity) for flag in flags} == {("engine_fallback", "warning")}
    assert [flag.sentence[:45] for flag in flags] == [
        "The engine logged: --linear-backend=marlin wa",
        "The engine logged: Dual-Batch Overlap is not ",
    ]


@pytest.mark.parametrize(
    ("said", "doubt"),
    [
        ("Your device 'x' doesn't support torch.bfloat16. Falling back to torch.float16 for compatibility.", True),
        ("CPU backend prefers block_size is multiples of 32, otherwise the performance is not optimized.", True),
        ("CPU MLA backend requires block_size=16, overriding user-specified block_size=32.", True),
        ("Overriding flash_attn_version to 2. To silence this warning, set it.", True),
        ("Custom allreduce is disabled because your platform lacks GPU P2P capability.", True),
        ("Using default MoE config. Performance might be sub-optimal! Config file not found at x", True),
        ("Overriding num_gpu_blocks=16384 with num_gpu_blocks_override=10", False),
        ("Reducing Torch threads from 2 to 1 for serving. Set OMP_NUM_THREADS to override.", False),
        ("CPU backend doesn't allow to use `torch.set_num_threads` after the thread binding, skip it.", False),
        ("Model Runner V2 requires Triton; using the V1 model runner instead.", False),
    ],
)
def test_wordings_of_vllm_that_are_a_fallback_and_that_are_none(said: str, doubt: bool) -> None:
    assert bool(fallback_flags(f"(Worker_TP0 pid=7) WARNING 11-20 07:53:17 [some.py:1] {said}\n")) is doubt
