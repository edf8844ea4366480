"""What the engine logs of its start-up, as numbers."""

from __future__ import annotations

import re
from datetime import datetime

_NUMBER = r"([0-9][0-9,]*\.?[0-9]*)"

PATTERNS: dict[str, str] = {
    "model_build_s": rf"Initializing model took {_NUMBER} seconds",
    "weights_load_s": rf"Loading weights took {_NUMBER} seconds",
    "online_quantization_s": rf"Online quantization as part of model loading took {_NUMBER} seconds",
    "model_memory_gib": rf"Model loading took {_NUMBER} GiB",
    "model_load_s": rf"Model loading took [0-9.,]+ GiB(?: memory)? and {_NUMBER} seconds",
    "compile_s": rf"torch\.compile (?:and initial profiling/warmup run together )?took {_NUMBER} s in total",
    "profile_run_s": rf"Initial profiling/warmup run took {_NUMBER} s",
    "graph_capture_s": rf"Graph capturing finished in {_NUMBER} secs",
    "graph_capture_gib": rf"Graph capturing finished in [0-9.,]+ secs, took {_NUMBER} GiB",
    "engine_init_s": rf"init engine \(profile, create kv cache, warmup model\) took {_NUMBER}",
    "kv_cache_memory_gib": rf"Available KV cache memory: {_NUMBER} GiB",
    "kv_cache_tokens": rf"\b[A-Z]+ KV cache size: {_NUMBER} tokens",
}
"""Name -> regular expression whose one group is the number, in the unit that the name ends in."""

FROM_CACHE = r"Directly load (?:AOT compilation|the compiled graph)"
"""A compiled graph came from the compile cache; how many did is `compile_cache_loads`."""

_TIME = r"INFO (\d\d-\d\d \d\d:\d\d:\d\d) "

CPU_COMPILE = rf"{_TIME}[^\n]*Warming up model for the compilation\.\.\..*?{_TIME}[^\n]*Warming up done\."
"""The CPU runner logs no duration of its compilation, but the beginning and the end of it, to whole seconds."""


def read_log(text: str) -> dict[str, float]:
    """The numbers that the engine logged while it started, as name -> value.

    With several workers each reports; the largest counts, since the engine waits for the slowest.
    """
    found = {}
    for name, pattern in PATTERNS.items():
        values = [float(match.replace(",", "")) for match in re.findall(pattern, text)]
        if values:
            found[name] = max(values)
    if spans := [_seconds(*match) for match in re.findall(CPU_COMPILE, text, re.DOTALL)]:
        found.setdefault("compile_s", max(spans))
    if loads := len(re.findall(FROM_CACHE, text)):
        found["compile_cache_loads"] = float(loads)
    return found


def _seconds(begin: str, end: str) -> float:
    """Seconds between two times of the log, which has no years."""
    first, last = (datetime.strptime(f"2000-{time}", "%Y-%m-%d %H:%M:%S") for time in (begin, end))
    return max(0.0, (last - first).total_seconds())
