"""What the engine logs of its start-up, as numbers."""

from __future__ import annotations

import re

_NUMBER = r"([0-9][0-9,]*\.?[0-9]*)"

PATTERNS: dict[str, str] = {
    "weights_load_s": rf"Loading weights took {_NUMBER} seconds",
    "model_memory_gib": rf"Model loading took {_NUMBER} GiB",
    "model_load_s": rf"Model loading took [0-9.,]+ GiB(?: memory)? and {_NUMBER} seconds",
    "compile_s": rf"torch\.compile took {_NUMBER} s in total",
    "graph_capture_s": rf"Graph capturing finished in {_NUMBER} secs",
    "graph_capture_gib": rf"Graph capturing finished in [0-9.,]+ secs, took {_NUMBER} GiB",
    "engine_init_s": rf"init engine \(profile, create kv cache, warmup model\) took {_NUMBER}",
    "kv_cache_memory_gib": rf"Available KV cache memory: {_NUMBER} GiB",
    "kv_cache_tokens": rf"\b[A-Z]+ KV cache size: {_NUMBER} tokens",
}
"""Name -> regular expression whose one group is the number, in the unit that the name ends in."""


def read_log(text: str) -> dict[str, float]:
    """The numbers that the engine logged while it started, as name -> value.

    With several workers each reports; the largest counts, since the engine waits for the slowest.
    """
    found = {}
    for name, pattern in PATTERNS.items():
        values = [float(match.replace(",", "")) for match in re.findall(pattern, text)]
        if values:
            found[name] = max(values)
    return found
