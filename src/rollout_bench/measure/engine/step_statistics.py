"""What an engine says of each of its steps."""

from collections import Counter
from typing import Any

from rollout_bench.contracts.record import GraphUse

DRAFTS = "vllm:spec_decode_num_"
"""Prefix of vLLM's counters of speculative decoding; the counter by position is a vector."""


def captured_sizes(config: Any) -> list[int]:
    """Return the tokens of each graph that an engine with vLLM's `config` captures, rising; empty if it captures none.

    A CPU's config has sizes, too, and no graph.
    """
    compilation = config.compilation_config
    mode = compilation.cudagraph_mode
    return sorted(compilation.cudagraph_capture_sizes or []) if mode is not None and mode.name != "NONE" else []


class StepStatLogger:
    """Statistics of an engine after each of its steps: a stat logger for vLLM.

    It does not inherit from vLLM's base class, which cannot be imported before the engine's start is timed.

    Args:
        config: vLLM's config of the engine.
    """

    def __init__(self, config: Any) -> None:
        self._largest = max(captured_sizes(config), default=0)
        self.begin()

    def begin(self) -> None:
        """Reset all statistics."""
        self.preemptions = self.running = self.peak_running = self.output_tokens = 0
        self.recomputed_tokens: int | None = None
        """Tokens that preempted requests computed again; None if there was none, or the engine does not say."""
        self.kv_cache_peak = 0.0
        self.drafted: Counter[str] = Counter()
        """Counts of speculative decoding, by the names of vLLM's counters and `:POSITION`."""
        self._decoded: Counter[tuple[int, int, bool]] = Counter()

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """Add vLLM's statistics of one step."""
        if iteration_stats is not None:
            self.preemptions += iteration_stats.num_preempted_reqs
            self.output_tokens += iteration_stats.num_generation_tokens
        if scheduler_stats is None:
            return
        self.running = scheduler_stats.num_running_reqs
        self.peak_running = max(self.peak_running, self.running)
        found = scheduler_stats.prefix_cache_stats  # a preempted request looks for its tokens there when it goes on
        if found is not None and found.preempted_requests:
            self.recomputed_tokens = (self.recomputed_tokens or 0) + found.preempted_queries - found.preempted_hits
        self.kv_cache_peak = max(self.kv_cache_peak, scheduler_stats.kv_cache_usage)
        if (drafts := scheduler_stats.spec_decoding_stats) is not None:
            for name in ("drafts", "draft_tokens", "accepted_tokens"):
                self.drafted[f"{DRAFTS}{name}"] += getattr(drafts, f"num_{name}")
            for place, accepted in enumerate(drafts.num_accepted_tokens_per_pos):
                self.drafted[f"{DRAFTS}accepted_tokens_per_pos:{place}"] += accepted
        if iteration_stats is not None and not iteration_stats.num_prompt_tokens:
            self._count_decoding(scheduler_stats)

    def _count_decoding(self, scheduler_stats: Any) -> None:
        """Count a step in which no prompt ends, if it only decodes and the engine says whether it ran in a graph.

        The engine says how many tokens a step has, and not of which sequences. Decoding has at most one, and its draft,
        for each sequence. A part of a prompt that ends in a later step has more, since it fills the step.
        """
        step = getattr(scheduler_stats, "cudagraph_stats", None)
        drafts = scheduler_stats.spec_decoding_stats
        length = 1 + (drafts.num_spec_tokens if drafts else 0)
        if step is not None and step.num_unpadded_tokens <= self.peak_running * length:
            in_graph = not step.runtime_mode.endswith("NONE")
            self._decoded[step.num_unpadded_tokens, step.num_padded_tokens, in_graph] += 1

    @property
    def graphs(self) -> GraphUse | None:
        """Counts of steps in captured graphs; None if the engine does not say."""
        if not self._decoded:
            return None
        inside = {sizes: steps for sizes, steps in self._decoded.items() if sizes[2]}
        return GraphUse(
            decode_steps=self._decoded.total(),
            in_graphs=sum(inside.values()),
            tokens=sum(tokens * steps for (tokens, _, _), steps in inside.items()),
            padded_tokens=sum(padded * steps for (_, padded, _), steps in inside.items()),
            most_outside=max((tokens for tokens, _, in_graph in self._decoded if not in_graph), default=0),
            largest=self._largest,
        )

    def log_engine_initialized(self) -> None:
        """Do nothing."""

    def log(self) -> None:
        """Do nothing."""

    def record_sleep_state(self, *_: Any, **__: Any) -> None:
        """Do nothing."""
