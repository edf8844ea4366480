"""Steps that decode are counted, and those outside of captured graphs raise a flag; `plan` tells of them before."""

from types import SimpleNamespace
from typing import Any

import planned
import pytest

from rollout_bench.contracts.record import GraphUse, Iteration
from rollout_bench.measure.engine.step_statistics import StepStatLogger
from rollout_bench.measure.launch.flags import graph_flags
from rollout_bench.plan.matrix import graph_lines


def config(mode: str, *sizes: int) -> Any:
    """Return vLLM's config, as far as the statistics read it."""
    compilation = SimpleNamespace(cudagraph_mode=SimpleNamespace(name=mode), cudagraph_capture_sizes=[*sizes])
    return SimpleNamespace(compilation_config=compilation)


def record(
    statistics: StepStatLogger, tokens: int, padded: int, mode: str, *, running: int, prompt: int = 0, drafts: int = 0
) -> None:
    """Add a step, as vLLM's front end passes it on."""
    step = SimpleNamespace(num_unpadded_tokens=tokens, num_padded_tokens=padded, runtime_mode=mode)
    drafted = SimpleNamespace(
        num_spec_tokens=drafts,
        num_drafts=running,
        num_draft_tokens=drafts * running,
        num_accepted_tokens=0,
        num_accepted_tokens_per_pos=[0] * drafts,
    )
    scheduler = SimpleNamespace(
        num_running_reqs=running,
        kv_cache_usage=0.5,
        spec_decoding_stats=drafted if drafts else None,
        cudagraph_stats=step,
    )
    statistics.record(scheduler, SimpleNamespace(num_preempted_reqs=0, num_prompt_tokens=prompt))


def test_decode_steps_are_told_from_prompts_and_counted_with_their_padding() -> None:
    statistics = StepStatLogger(config("FULL_AND_PIECEWISE", 1, 2, 4, 8))
    record(statistics, 8192, 8192, "NONE", running=10)  # a part of prompts that end later
    record(statistics, 700, 700, "NONE", running=10, prompt=3000)
    record(statistics, 10, 10, "NONE", running=10)
    record(statistics, 7, 8, "FULL", running=5)  # after which two have ended
    record(statistics, 5, 8, "CUDAGraphMode.PIECEWISE", running=5)
    assert statistics.graphs == GraphUse(
        decode_steps=3, in_graphs=2, tokens=12, padded_tokens=16, most_outside=10, largest=8
    )
    statistics.begin()
    assert statistics.graphs is None


def test_a_step_that_checks_drafts_has_more_tokens_for_each_sequence() -> None:
    statistics = StepStatLogger(config("FULL", 8))
    record(statistics, 8, 8, "FULL", running=2, drafts=3)
    record(statistics, 9, 9, "NONE", running=2, drafts=3)
    assert statistics.graphs.decode_steps == statistics.graphs.in_graphs == 1


def test_an_engine_that_captures_nothing_has_no_largest_graph() -> None:
    statistics = StepStatLogger(config("NONE", 1, 2))
    record(statistics, 2, 2, "NONE", running=2)
    assert (statistics.graphs.in_graphs, statistics.graphs.largest) == (0, 0)


@pytest.mark.parametrize(("inside", "largest", "flagged"), [(90, 512, 1), (95, 512, 0), (0, 512, 1), (0, 0, 0)])
def test_many_decode_steps_outside_of_graphs_are_flagged(inside: int, largest: int, flagged: int) -> None:
    use = GraphUse(decode_steps=100, in_graphs=inside, tokens=9, padded_tokens=9, most_outside=1024, largest=largest)
    counts = dict.fromkeys(("requests", "sequences", "prompt_tokens", "output_tokens"), 8)
    flags = graph_flags(Iteration(index=2, warmup=False, elapsed_s=1.0, graphs=use, **counts))
    assert [flag.code for flag in flags] == ["decode_outside_graphs"] * flagged
    assert all(
        flag.sentence == f"Iteration 2: {100 - inside} of 100 decode steps ({100 - inside} %) ran outside of captured "
        "graphs. They had up to 1024 tokens; the largest graph is for 512."
        for flag in flags
    )


@pytest.mark.parametrize(
    ("args", "remedy"),
    [
        ({"max_num_seqs": 1024}, "engine_args: {compilation_config: {max_cudagraph_capture_size: 1024}}"),
        ({"max_num_seqs": 512}, None),
        ({"max_num_seqs": 1024, "compilation_config": {"max_cudagraph_capture_size": 1024}}, None),
        ({"max_num_seqs": 512, "cudagraph_capture_sizes": [1, 8, 256]}, "add 512 to cudagraph_capture_sizes"),
        ({"max_num_seqs": 4096}, "engine_args: {compilation_config: {max_cudagraph_capture_size: 2048}}"),
        ({"max_num_seqs": 1024, "enforce_eager": True}, None),
        ({"max_num_seqs": 1024, "compilation_config": {"cudagraph_mode": "NONE"}}, None),
        ({}, None),
    ],
)
def test_batches_above_the_largest_graph_are_told_before_they_run(args: dict[str, Any], remedy: str | None) -> None:
    load = {"prompts": 128, "samples_per_prompt": 16, "engine_args": {"enforce_eager": False, **args}}
    matrix = planned.planned({"platform": "cuda", "quants": ["bf16"], "workload_settings": {"demo": load}})
    lines = graph_lines(matrix)
    assert len(lines) == (remedy is not None)
    assert all(f"-> {remedy} (" in line for line in lines)
