"""Doubts about a launch: what is compared with what was asked, and the sentence for each difference."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from rollout_bench.plan.spec import QuantSpec, WorkloadSpec
from rollout_bench.records.record import EngineFacts, Flag, Iteration, SequenceRow
from rollout_bench.workloads.requests import Request
from rollout_bench.workloads.sharing import sharing

PROVEN_SHARE = 0.9
"""Share of the linear layers' bytes that must have the quantization's data type."""


def quant_flags(quant: QuantSpec, engine: EngineFacts) -> list[Flag]:
    """A flag if the loaded weights do not prove `quant`."""
    assert engine.weights_bytes_by_dtype is not None, "an engine of ours tells its weights"
    weights = engine.weights_bytes_by_dtype.linear
    total = sum(weights.values())
    proven = sum(weights.get(dtype, 0) for dtype in quant.linear_dtypes)
    seen = ", ".join(f"{size / 1e6:.1f} MB {dtype}" for dtype, size in sorted(weights.items())) or "none seen"
    flags = []
    if total == 0 or proven < PROVEN_SHARE * total:
        share = 100 * proven / total if total else 0.0
        flags.append(
            _invalid(
                "quant_not_proven",
                f"{quant.name} wants {' or '.join(quant.linear_dtypes)} weights in the linear layers; "
                f"{share:.0f} % of their bytes are ({seen}).",
            )
        )
    strangers = {name: n for name, n in engine.linear_methods.items() if not re.search(quant.linear_method, name)}
    if strangers or not engine.linear_methods:
        named = ", ".join(f"{name} ({n} layers)" for name, n in sorted(strangers.items())) or "no linear layers"
        flags.append(
            _invalid(
                "quant_not_proven",
                f"{quant.name} wants linear methods that match '{quant.linear_method}'; saw {named}.",
            )
        )
    return flags


def token_flags(
    workload: WorkloadSpec, asked: Sequence[Request], iteration: Iteration, rows: Sequence[SequenceRow]
) -> list[Flag]:
    """A flag if `iteration` brought back other tokens than were `asked` for."""
    wanted = {(request.prompt, request.sample): request for request in asked}
    problems = []
    if len(rows) != len(asked):
        problems.append(f"{len(rows)} sequences instead of {len(asked)}")
    pairs = [(row, wanted[row.prompt, row.sample]) for row in rows if (row.prompt, row.sample) in wanted]
    prompts = [(row.prompt_tokens, len(request.prompt_token_ids)) for row, request in pairs]
    if wrong := [pair for pair in prompts if pair[0] != pair[1]]:
        problems.append(f"{len(wrong)} sequences with other prompts than asked, {wrong[0][0]} tokens instead of"
                        f" {wrong[0][1]}")  # fmt: skip
    outputs = [(row.output_tokens, request.output_tokens) for row, request in pairs]
    if wrong := [pair for pair in outputs if not _length_as_asked(workload, *pair)]:
        most = "" if workload.ignore_eos else "at most "
        problems.append(f"{len(wrong)} sequences of another length than asked, {wrong[0][0]} output tokens instead of"
                        f" {most}{wrong[0][1]}")  # fmt: skip
    if not problems:
        return []
    return [_invalid("token_count", f"Iteration {iteration.index} brought {'; '.join(problems)}.")]


def prefix_cache_flags(asked: Sequence[Request], iteration: Iteration, rows: Iterable[SequenceRow]) -> list[Flag]:
    """A flag if prompt tokens came from the prefix cache that nothing in `iteration` can have put there.

    The first sample of a prompt finds nothing of it in a cache that was reset, but what other prompts begin with too;
    its siblings may find all.
    """
    shared = sharing(asked)
    if iteration.cached_prompt_tokens is not None and iteration.cached_prompt_tokens > shared.tokens:
        return [
            _invalid(
                "cross_iteration_prefix_hits",
                f"Iteration {iteration.index} took {iteration.cached_prompt_tokens} prompt tokens from the prefix "
                f"cache; its sequences can share {shared.tokens} at most.",
            )
        ]
    cached: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        if row.cached_prompt_tokens is not None:
            cached[row.prompt].append(row.cached_prompt_tokens)
    if warm := [prompt for prompt, tokens in cached.items() if min(tokens) > shared.with_others.get(prompt, 0)]:
        return [
            _invalid(
                "cross_iteration_prefix_hits",
                f"Iteration {iteration.index}: {len(warm)} of {len(shared.with_others)} prompts were in the prefix "
                "cache before their first sample ran.",
            )
        ]
    return []


def _length_as_asked(workload: WorkloadSpec, tokens: int, asked: int) -> bool:
    return tokens == asked if workload.ignore_eos else 0 < tokens <= asked


def _invalid(code: str, sentence: str) -> Flag:
    return Flag(code=code, severity="invalid", sentence=sentence)
