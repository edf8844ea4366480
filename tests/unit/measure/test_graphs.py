"""Steps that decode are counted, and those outside of captured graphs raise a flag; `plan` tells of them before."""

import sys
from types import SimpleNamespace
from typing import Any, NamedTuple

import planned
import pytest

from rollout_bench.contracts.record import GraphUse, Iteration
from rollout_bench.measure.engine.step_statistics import StepStatLogger
from rollout_bench.measure.launch.flags import graph_flags
from rollout_bench.measure.probes.graph_reports import report_graphs
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
        prefix_cache_stats=None,
        cudagraph_stats=step,
    )
    counts = {"num_preempted_reqs": 0, "num_prompt_tokens": prompt, "num_generation_tokens": tokens}
    statistics.record(scheduler, SimpleNamespace(**counts))


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


class Newer:
    """vLLM 0.23's newer model runner, as far as steps matter: their output comes later and says nothing of graphs."""

    def __init__(self) -> None:
        self.cudagraph_manager = SimpleNamespace(dispatch=self.fitting)

    def fitting(self, num_reqs: int, num_tokens: int, uniform_token_count: int | None) -> Any:
        """Return what a step runs in: a graph for 8 tokens, or none."""
        in_graph = uniform_token_count == 1 and num_reqs <= 8
        return SimpleNamespace(num_tokens=8 if in_graph else num_tokens, cg_mode="FULL" if in_graph else "NONE")

    def sample_tokens(self, grammar: Any, said: Any = None) -> Any:
        """Return the output of a step."""
        return SimpleNamespace(model_runner_output=SimpleNamespace(cudagraph_stats=said))


class CUDAGraphStat(NamedTuple):
    """vLLM's description of a step, without the import of vLLM."""

    num_unpadded_tokens: int
    num_padded_tokens: int
    num_paddings: int
    runtime_mode: str


def test_a_runner_that_does_not_know_of_the_metrics_says_what_each_step_ran_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(CUDAGraphStat=CUDAGraphStat)
    monkeypatch.setitem(sys.modules, "vllm.compilation.cuda_graph", module)
    runner, found = Newer(), list[Any]()
    report_graphs(runner)
    for sequences in (5, 9):
        runner.cudagraph_manager.dispatch(sequences, sequences, 1)
        found.append(runner.sample_tokens(None).model_runner_output.cudagraph_stats)
    assert found == [(5, 8, 3, "FULL"), (9, 9, 0, "NONE")]
    assert runner.sample_tokens(None, "its own").model_runner_output.cudagraph_stats == "its own"


def test_a_runner_without_a_manager_of_graphs_is_left_as_it_is() -> None:
    older = SimpleNamespace(sample_tokens=len)
    report_graphs(older)
    assert older.sample_tokens is len


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
        ({"max_num_seqs": 1000}, "engine_args: {compilation_config: {max_cudagraph_capture_size: 1008}}"),
        ({"max_num_seqs": 512}, None),
        ({"max_num_seqs": 1024, "compilation_config": {"max_cudagraph_capture_size": 1024}}, None),
        ({"max_num_seqs": 512, "cudagraph_capture_sizes": [1, 8, 256]}, "add 512 to cudagraph_capture_sizes"),
        ({"max_num_seqs": 4096}, "engine_args: {compilation_config: {max_cudagraph_capture_size: 2048}}"),
        (
            {"max_num_seqs": 1024, "compilation_config": {"cudagraph_mode": "FULL_DECODE_ONLY"}},
            "max_cudagraph_capture_size: 1024 in the compilation_config that is there",
        ),
        (
            {"max_num_seqs": 500, "speculative_config": {"method": "ngram", "num_speculative_tokens": 2}},
            "engine_args: {compilation_config: {max_cudagraph_capture_size: 1536}}",  # of 16 and 3 tokens
        ),
        ({"max_num_seqs": 1024, "enforce_eager": True}, None),
        ({"max_num_seqs": 1024, "compilation_config": {"cudagraph_mode": "NONE"}}, None),
        ({"max_num_seqs": 1024, "compilation_config": {"cudagraph_mode": "none"}}, None),
        ({"max_num_seqs": 1024, "optimization_level": 0}, None),
        ({"max_num_seqs": 1024, "max_cudagraph_capture_size": 1024}, None),
        ({"max_num_seqs": 1024, "max_cudagraph_capture_size": 600}, "engine_args: {max_cudagraph_capture_size: 1024}"),
        ({"max_num_seqs": 1024, "max_num_batched_tokens": 512}, None),
        ({}, None),  # the demo's 64
    ],
)
def test_batches_above_the_largest_graph_are_told_before_they_run(args: dict[str, Any], remedy: str | None) -> None:
    load = {"prompts": 128, "samples_per_prompt": 16, "engine_args": {"enforce_eager": False, **args}}
    matrix = planned.planned({"platform": "cuda", "quants": ["bf16"], "workload_settings": {"demo": load}})
    lines = graph_lines(matrix)
    assert len(lines) == (remedy is not None)
    assert all(f"-> {remedy} (" in line for line in lines)


def test_the_largest_batch_of_an_h100_is_told_where_none_is_set() -> None:
    load = {"prompts": 100, "samples_per_prompt": 8, "prompt_tokens": 64, "output_tokens": 32}
    config = {"platform": "cuda", "quants": ["bf16"], "workloads": ["own"], "workload_settings": {"own": load}}
    (line,) = graph_lines(planned.planned(config))
    assert line.startswith("graphs: decoding has up to 800 tokens a step on an H100 or larger, with vLLM's max_num_")
    assert "-> engine_args: {compilation_config: {max_cudagraph_capture_size: 800}} (" in line
    assert graph_lines(planned.planned({**config, "platform": "ascend"})) == []
