"""Traces made by hand, as torch's and torch_npu's profilers write them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from rollout_bench.contracts.inside import LinearShape

Event = dict[str, Any]

PREFILL = "execute_context_2(8)_generation_0(0)"
DECODE = "execute_context_0(0)_generation_2(2)"

LINEARS = [
    LinearShape(role="qkv", in_features=64, out_features=96, layers=2),
    LinearShape(role="o", in_features=64, out_features=64, layers=2),
    LinearShape(role="gate_up", in_features=64, out_features=256, layers=2),
    LinearShape(role="down", in_features=128, out_features=64, layers=2),
    LinearShape(role="lm_head", in_features=64, out_features=512, layers=1),
]
"""Of a model with two layers."""


def event(name: str, start: float, duration: float, category: str = "cpu_op", **more: Any) -> Event:
    """Return a whole event, on thread 1 unless `pid` and `tid` say otherwise; what else is given are its arguments."""
    place = {key: more.pop(key, 1) for key in ("pid", "tid")}
    dims, types = more.pop("dims", None), more.pop("types", None)
    arguments = more | ({"Input Dims": dims} if dims else {}) | ({"Input type": types} if types else {})
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": duration, **place, "args": arguments}


def step(name: str, start: float, duration: float, **more: Any) -> Event:
    """vLLM's annotation of a step."""
    return event(name, start, duration, "user_annotation", **more)


def save(path: Path, events: list[Any], packed: bool = True, **header: Any) -> Path:
    """Write a trace as torch does: the events between other keys."""
    text = json.dumps({"schemaVersion": 1, **header, "traceEvents": events, "traceName": "x"}).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    return path
