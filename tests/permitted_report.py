"""What a Benchmark Report 0.2.1 permits, in our own words: names, kinds and units, and what is wrong with one.

Written from reading llm-d-benchmark's schema; nothing of ours that writes reports is used. What 0.2.1 has and
no report of ours does is not described.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

QUANTITY, TIME, TOKEN_TIME, PORTION = "count pixels", "ms s", "ms/token s/token", "percent fraction"

PERCENTILES = ("p0p1", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "p99p9")

LENGTH = {
    "distribution!": "fixed|gaussian|uniform|other",
    "value!": "amount",
    "std_dev": "amount",
    "min": "whole from 0",
    "max": "whole from 1",
}
NATIVE = {"args": "mapping", "envars": "mapping", "config": "any"}

PERMITTED: dict[str, Any] = {
    "version!": "0.2.1",
    "run!": {
        "uid!": "text",
        "eid": "text",
        "cid": "text",
        "pid": "text",
        "time": {"start": "moment", "end": "moment", "duration": "text"},
        "user": "text",
        "description": "text",
        "keywords": ["text"],
    },
    "scenario": {
        "stack": [
            {
                "metadata!": {"schema_version": "text", "label!": "text", "cfg_id!": "text", "description": "text"},
                "standardized!": {
                    "kind!": "inference_engine|generic",
                    "tool!": "text",
                    "tool_version!": "text",
                    "role": "replica|prefill|decode",
                    "replicas": "whole from 1",
                    "model": {"name!": "text"},
                    "accelerator": {
                        "model!": "text",
                        "count!": "whole from 0",
                        "parallelism!": {
                            "tp": "whole from 0",
                            "dp": "whole from 0",
                            "dp_local": "whole from 0",
                            "workers": "whole from 0",
                            "ep": "whole from 1",
                            "pp": "whole from 1",
                        },
                    },
                },
                "native!": NATIVE,
            }
        ],
        "load": {
            "metadata!": {"schema_version": "text", "cfg_id": "text", "description": "text"},
            "standardized!": {
                "tool!": "text",
                "tool_version!": "text",
                "parallelism": "whole from 1",
                "source!": "random|sampled|unknown",
                "stage": "whole from 0",
                "input_seq_len!": LENGTH,
                "output_seq_len": LENGTH,
                "prefix": {
                    "prefix_len!": LENGTH,
                    "num_groups!": "whole from 1",
                    "num_users_per_group!": "whole from 1",
                    "num_prefixes!": "whole from 1",
                },
                "rate_qps": "above 0",
                "concurrency": "whole from 1",
            },
            "native!": NATIVE,
        },
    },
    "results!": {
        "request_performance": {
            "aggregate": {
                "requests": {
                    "total!": "whole from 0",
                    "failures": "whole from 0",
                    "incomplete": "whole from 0",
                    "input_length": f"in {QUANTITY}",
                    "output_length": f"in {QUANTITY}",
                },
                "latency": {
                    "time_to_first_token": f"in {TIME}",
                    "normalized_time_per_output_token": f"in {TOKEN_TIME}",
                    "time_per_output_token": f"in {TOKEN_TIME}",
                    "inter_token_latency": f"in {TOKEN_TIME}",
                    "request_latency": f"in {TIME}",
                },
                "throughput": {
                    "input_token_rate": "in tokens/s",
                    "output_token_rate": "in tokens/s",
                    "total_token_rate": "in tokens/s",
                    "request_rate": "in queries/s",
                },
            }
        },
        # Any further key may stand beside these.
        "observability": {
            "components": [
                {
                    "component_label!": "text",
                    "aggregate": {
                        "kv_cache_usage": f"in {PORTION}",
                        "cache_hit_rate": f"in {PORTION}",
                        "power_consumption": "in Watts",
                        "running_requests": f"in {QUANTITY}",
                        "waiting_requests": f"in {QUANTITY}",
                        "preemptions": f"in {QUANTITY}",
                    },
                }
            ],
            "*": "any",
        },
    },
}
"""A key that ends in ! is required, * stands for further ones. Kinds are words, `in` and units a statistic, a|b one of
these texts."""


def problems(content: Any, permitted: Any = PERMITTED, where: str = "") -> Iterator[str]:
    """Yield what 0.2.1 does not permit in `content`, by its dotted name."""
    if isinstance(permitted, dict):
        yield from _of_mapping(content, permitted, where)
    elif isinstance(permitted, list):
        if not isinstance(content, list):
            yield f"{where}: is no list"
        else:
            for number, item in enumerate(content):
                yield from problems(item, permitted[0], f"{where}[{number}]")
    elif permitted.startswith("in "):
        yield from _of_statistic(content, permitted.split()[1:], where)
    elif not _fits(content, permitted):
        yield f"{where}: {content!r} is not {permitted}"


def _of_mapping(content: Any, permitted: dict[str, Any], where: str) -> Iterator[str]:
    if not isinstance(content, dict):
        yield f"{where}: is no mapping"
        return
    known = {name.removesuffix("!"): kind for name, kind in permitted.items()}
    for name in permitted:
        if name.endswith("!") and name[:-1] not in content:
            yield f"{where}.{name[:-1]}: is missing"
    for name, value in content.items():
        if name in known:
            yield from problems(value, known[name], f"{where}.{name}")
        elif "*" not in permitted:
            yield f"{where}.{name}: is forbidden"


def _of_statistic(content: Any, units: list[str], where: str) -> Iterator[str]:
    if not isinstance(content, dict) or not {"units", "mean"} <= content.keys():
        yield f"{where}: has no units or no mean"
        return
    if content["units"] not in units:
        yield f"{where}.units: {content['units']!r} is not {' or '.join(units)}"
    names = ("mean", "mode", "stddev", "min", *PERCENTILES, "max")
    for name, value in content.items():
        # An unknown one would be dropped without a word.
        if name != "units" and (name not in names or not _fits(value, "number")):
            yield f"{where}.{name}: {value!r} is no number, or would be dropped"
    if content.get("stddev", 0) < 0:
        yield f"{where}.stddev: is below 0"
    rising = [content[name] for name in ("min", *PERCENTILES, "max") if name in content]
    if rising != sorted(rising):
        yield f"{where}: its percentiles fall"


def _fits(value: Any, kind: str) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind == "moment":
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    if kind.startswith("whole from "):
        return isinstance(value, int) and is_number and value >= int(kind.split()[-1])
    kinds = {
        "any": True,
        "text": isinstance(value, str),
        "mapping": isinstance(value, dict) and all(isinstance(name, str) for name in value),
        "number": is_number,
        "amount": is_number and value >= 0,
        "above 0": is_number and value > 0,
    }
    return kinds[kind] if kind in kinds else value in kind.split("|")


def without_units(content: Any, where: str = "") -> Iterator[str]:
    """Yield the names of statistics in `content` that do not say their units."""
    if isinstance(content, dict):
        if "mean" in content and "units" not in content:
            yield where
        for name, value in content.items():
            yield from without_units(value, f"{where}.{name}")
    elif isinstance(content, list):
        for number, item in enumerate(content):
            yield from without_units(item, f"{where}[{number}]")
