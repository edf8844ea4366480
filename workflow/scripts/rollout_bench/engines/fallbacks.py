"""Where the engine says in its log that it does something else than it was asked for."""

from __future__ import annotations

import re

from rollout_bench.records.record import Flag

PATTERNS = (
    r"\b[Ff]all(?:ing|s)? ?back\b",
    r"using \w+ fallback",
    r"not (?:officially )?support(?:ed)?\b.*(?:disabl|ignor|\busing\b|\binstead\b)",
    r"overriding (?:user-specified )?\w+",
    r"Overriding (?:cudagraph_mode|to |flash_attn_version|draft model max)",
    r"(?:will be|is|are) (?:ignored|overridden)\b",
    r"[Ii]gnoring (?:the )?(?:option|argument|setting|unreadable)",
    r"The fusion will be disabled|Disabling (?:fuse_|CUDA Graphs|chunked prefill|prefix caching)",
    r"performance is not optimized|sub-?optimal performance|Performance might be sub-optimal",
    r"[Uu]sing default MoE config|Custom allreduce is disabled",
)  # fmt: skip
"""Wordings of vLLM 0.32, searched for in each line that the engine's loggers wrote. Examples: "... falling back to
normal kernel selection", "... is not supported on CPU, disabled.", "..., overriding user-specified block_size=..."."""

ASKED_FOR = (
    r"Enforce eager set|Inductor compilation was disabled by user settings",
    r"Set OMP_NUM_THREADS|To allow overriding|generation_config|[Dd]efault sampling parameters",
    r"Filesystem type|Auto-prefetch|safetensors checkpoint|[Cc]hat template",
    r"num_gpu_blocks_override",
)
"""Lines that match and tell of nothing but what the settings ask for, or of nothing that is measured."""

LINE = re.compile(r"^(?:\(.*?\) )?(?:INFO|WARNING) [\d-]+ [\d:]+ \[[\w.]+:\d+\] (.*)$", re.MULTILINE)

LIMIT = 300
"""Characters of a line that a sentence quotes."""


def fallback_flags(log: str) -> list[Flag]:
    """A flag for each different line of `log` with which the engine fell back or dropped an option."""
    said = dict.fromkeys(match.group(1).strip() for match in LINE.finditer(log))
    return [
        Flag(code="engine_fallback", severity="warning", sentence=f"The engine logged: {line[:LIMIT]}")
        for line in said
        if any(re.search(pattern, line) for pattern in PATTERNS)
        and not any(re.search(pattern, line) for pattern in ASKED_FOR)
    ]
