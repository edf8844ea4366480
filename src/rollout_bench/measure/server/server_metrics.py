"""The server's own metrics, read before and after a pass."""

from collections import defaultdict
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from rollout_bench.contracts.record import Drafting, ServerUse
from rollout_bench.measure.engine.step_statistics import DRAFTS
from rollout_bench.measure.engine.vllm import drafting_of

MEANS = {
    "ttft_mean_s": "vllm:time_to_first_token_seconds",
    "itl_mean_s": "vllm:inter_token_latency_seconds",
    "e2el_mean_s": "vllm:e2e_request_latency_seconds",
    "queue_mean_s": "vllm:request_queue_time_seconds",
}
"""Field of `ServerUse` -> histogram."""

COUNTS = {
    "requests": "vllm:e2e_request_latency_seconds_count",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "output_tokens": "vllm:generation_tokens_total",
    "preemptions": "vllm:num_preemptions_total",
    "prefix_cache_queries": "vllm:prefix_cache_queries_total",
    "prefix_cache_hits": "vllm:prefix_cache_hits_total",
}
"""Field of `ServerUse` -> counter."""

BY_POSITION = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
"""Counter of accepted tokens, labelled with their position in a draft, from 0."""

_MOST = 1e18
"""Upper bound for any count, and for any time in seconds."""


def parse(text: str) -> dict[str, float]:
    """Return sample name -> value, summed over labels (data-parallel engines); `BY_POSITION` has an entry for each.

    Text that is not in the Prometheus format gives an empty result; impossible counts and times are left out.
    """
    totals: defaultdict[str, float] = defaultdict(float)
    for family in _families(text):
        for sample in family.samples:
            place = f":{sample.labels.get('position')}" if sample.name == BY_POSITION else ""
            if 0 <= sample.value <= _MOST:
                totals[sample.name + place] += sample.value
    return dict(totals)


def cache_labels(text: str) -> dict[str, str]:
    """Return vLLM's facts about its KV cache, as label -> text; empty if the server does not report them."""
    caches = (family for family in _families(text) if family.name in ("vllm:cache_config", "vllm:cache_config_info"))
    return next((dict(cache.samples[0].labels) for cache in caches if cache.samples), {})


def _families(text: str) -> list[Any]:
    """Return vLLM's metrics; empty if the text is not in the Prometheus format."""
    try:
        return [family for family in text_string_to_metric_families(text) if family.name.startswith("vllm:")]
    except (ValueError, LookupError):
        return []


def _rose(before: str, after: str) -> dict[str, float]:
    old = parse(before)
    return {name: max(0.0, value - old.get(name, 0.0)) for name, value in parse(after).items()}


def increase(before: str, after: str) -> ServerUse:
    """Return the increase of the server's counters and histograms between two readings."""
    rose = _rose(before, after)
    counts = {field: round(rose[name]) for field, name in COUNTS.items() if name in rose}
    means = {
        field: rose[f"{name}_sum"] / rose[f"{name}_count"]
        for field, name in MEANS.items()
        if rose.get(f"{name}_count") and f"{name}_sum" in rose
    }
    return ServerUse(**counts, **means)


def drafted(before: str, after: str) -> Drafting | None:
    """Return the increase of the speculative decoding counters between two readings; None if there are none."""
    rose = {name.replace("_total", ""): round(value) for name, value in _rose(before, after).items()}
    return drafting_of(rose) if f"{DRAFTS}drafts" in rose else None
