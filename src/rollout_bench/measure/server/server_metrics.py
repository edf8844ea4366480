"""The server's own metrics, read before and after a pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from rollout_bench.contracts.record import Drafting, ServerUse

MEANS = {
    "ttft_mean_s": ("vllm:time_to_first_token_seconds",),
    "itl_mean_s": ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    "e2el_mean_s": ("vllm:e2e_request_latency_seconds",),
    "queue_mean_s": ("vllm:request_queue_time_seconds",),
}
"""Field of `ServerUse` -> histogram."""

COUNTS = {
    "requests": ("vllm:e2e_request_latency_seconds_count",),
    "prompt_tokens": ("vllm:prompt_tokens_total",),
    "output_tokens": ("vllm:generation_tokens_total",),
    "preemptions": ("vllm:num_preemptions_total",),
    "prefix_cache_queries": ("vllm:prefix_cache_queries_total",),
    "prefix_cache_hits": ("vllm:prefix_cache_hits_total",),
}
"""Field of `ServerUse` -> counter."""

DRAFTS = {
    "drafts": "vllm:spec_decode_num_drafts_total",
    "draft_tokens": "vllm:spec_decode_num_draft_tokens_total",
    "accepted_tokens": "vllm:spec_decode_num_accepted_tokens_total",
}
"""Field of `Drafting` -> counter. Only engines with speculative decoding have these counters."""

BY_POSITION = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
"""Counter of accepted tokens, labelled with their position in a draft, from 0."""

_MOST = 1e18
"""Upper bound for any count, and for any time in seconds."""


def parse(text: str) -> dict[str, float]:
    """Return sample name -> value: sums over labels (data-parallel engines), the maximum for shares, no buckets.

    Text that is not in the Prometheus format gives an empty result; impossible counts and times are left out.
    """
    totals: defaultdict[str, float] = defaultdict(float)
    for family in _families(text):
        for sample in family.samples:
            if not 0 <= sample.value <= _MOST:
                continue
            if sample.name.endswith("_perc"):  # a share of each engine's own
                totals[sample.name] = max(totals[sample.name], sample.value)
            elif not sample.name.endswith("_bucket"):
                totals[sample.name] += sample.value
    return dict(totals)


def cache_labels(text: str) -> dict[str, str]:
    """Return vLLM's facts about its KV cache, as label -> text; empty if the server does not report them."""
    for family in _families(text):
        if family.name in ("vllm:cache_config", "vllm:cache_config_info") and family.samples:
            return dict(family.samples[0].labels)
    return {}


def _families(text: str) -> list[Any]:
    """Return vLLM's metrics; empty if the text is not in the Prometheus format."""
    try:
        return [family for family in text_string_to_metric_families(text) if family.name.startswith("vllm:")]
    except (ValueError, LookupError):
        return []


def risen(before: str, after: str, round_trip_s: float | None) -> ServerUse:
    """Return the increase of the server's counters and histograms between two readings."""
    old, new = parse(before), parse(after)
    rose = {name: value - old.get(name, 0.0) for name, value in new.items()}
    counts = {field: _whole(_first(rose, names)) for field, names in COUNTS.items()}
    means = {field: _mean(rose, names) for field, names in MEANS.items()}
    return ServerUse(round_trip_s=round_trip_s, **counts, **means)


def drafted(before: str, after: str) -> Drafting | None:
    """Return the increase of the speculative decoding counters between two readings; None if there are none."""
    old, new = parse(before), parse(after)
    if any(name not in new for name in DRAFTS.values()):
        return None
    counts = {field: max(0, round(new[name] - old.get(name, 0.0))) for field, name in DRAFTS.items()}
    places, ours = _by_position(after), _by_position(before)
    accepted = [max(0, round(places[place] - ours.get(place, 0.0))) for place in sorted(places)]
    return Drafting(**counts, accepted_by_position=accepted)


def _by_position(text: str) -> dict[int, float]:
    """Return the number of accepted tokens at each position of a draft, summed over the other labels."""
    found: defaultdict[int, float] = defaultdict(float)
    for family in _families(text):
        for sample in family.samples:
            place = sample.labels.get("position", "")
            if sample.name == BY_POSITION and place.isdigit() and 0 <= sample.value <= _MOST:
                found[int(place)] += sample.value
    return dict(found)


def _first(values: Mapping[str, float], names: tuple[str, ...]) -> float | None:
    return next((values[name] for name in names if name in values), None)


def _mean(rose: Mapping[str, float], names: tuple[str, ...]) -> float | None:
    for name in names:
        count, total = rose.get(f"{name}_count", 0.0), rose.get(f"{name}_sum")
        if count > 0 and total is not None:
            return max(0.0, total / count)
    return None


def _whole(value: float | None) -> int | None:
    return None if value is None else max(0, round(value))
