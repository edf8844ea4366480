"""What a worker's model runner says of captured graphs."""

from typing import Any


def report_graphs(runner: Any) -> None:
    """Let a model runner of vLLM say of each step whether it ran in a captured graph, where it does not by itself.

    vLLM 0.23 has two runners, and the newer one, which runs dense bf16 models, does not know `cudagraph_metrics`.
    """
    manager = getattr(runner, "cudagraph_manager", None)  # only the newer one has it
    if manager is None:
        return
    from vllm.compilation.cuda_graph import CUDAGraphStat

    dispatch, sample = manager.dispatch, runner.sample_tokens
    last: Any = None

    def dispatched(num_reqs: int, num_tokens: int, *more: Any, **named: Any) -> Any:
        nonlocal last
        step = dispatch(num_reqs, num_tokens, *more, **named)
        last = CUDAGraphStat(num_tokens, step.num_tokens, step.num_tokens - num_tokens, str(step.cg_mode))
        return step

    def sampled(*given: Any, **named: Any) -> Any:
        output = sample(*given, **named)  # of the step that was dispatched last
        held = getattr(output, "model_runner_output", output)
        if held is not None and held.cudagraph_stats is None:
            held.cudagraph_stats = last
        return output

    manager.dispatch, runner.sample_tokens = dispatched, sampled
