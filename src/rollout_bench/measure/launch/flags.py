"""Flags of a launch: wrong weights or settings, interference, slow clients, failed requests and fallbacks."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import reduce
from itertools import accumulate
from operator import getitem, itemgetter
from typing import Any

from rollout_bench.contracts.drafts import drafts_of
from rollout_bench.contracts.record import (
    ClientUse,
    Drafting,
    EngineFacts,
    Flag,
    Iteration,
    SequenceRow,
    one_cache_name,
)
from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED, QuantSpec, Spec, WorkloadSpec, config_text
from rollout_bench.contracts.weights import WeightProof
from rollout_bench.core.numbers import number, several
from rollout_bench.workloads.requests import Request, sharing


def most_at_once(rows: Iterable[SequenceRow]) -> int | None:
    """Return the largest number of sequences that ran simultaneously; None if a row lacks times.

    A sequence runs from its first scheduling until its last token. A preempted sequence counts as running; the flag
    `preemptions` reports it. A sequence that ends at the moment when another begins does not overlap with it.
    """
    changes = []
    for row in rows:
        if row.scheduled_s is None or row.last_token_s is None:
            return None
        changes += [(row.scheduled_s, 1), (max(row.scheduled_s, row.last_token_s), -1)]
    return max(accumulate(change for _, change in sorted(changes)), default=0)


def batch_flags(spec: Spec, rows: Sequence[SequenceRow], engine: EngineFacts) -> list[Flag]:
    """Return a flag if fewer sequences ran together than were submitted together.

    Args:
        spec: the settings. A `max_num_seqs` below the batch is intended and raises no flag.
        rows: the sequences of the iterations that count.
        engine: the engine's facts, with the size of its KV cache and its limits.
    """
    workload = spec.workload
    sequences = workload.prompts * workload.samples_per_prompt
    limit = min(sequences, engine.resolved.get("max_num_seqs") or sequences)
    of_pass: dict[tuple[int, int], list[SequenceRow]] = defaultdict(list)
    for row in rows:
        of_pass[row.iteration, row.replica or 0].append(row)
    # one of several engines gets a share of the sequences, and one of several generations another
    parts = spec.mode_spec.generations
    counted = [
        (most_at_once(of), min(limit, math.ceil(len(of) / parts)), *each) for each, of in sorted(of_pass.items())
    ]
    short = [(most, *rest) for most, *rest in counted if most and most < rest[0]]
    if not short:
        return []
    most, asked, index, replica = min(short, key=itemgetter(0))
    block, tokens = int(engine.resolved.get("block_size") or 1), engine.kv_cache_tokens
    each = block * math.ceil(sum(workload.longest_pair) / block)
    if tokens is None:
        why = "the engine does not say how many tokens its KV cache holds"
    elif tokens < asked * each:
        why = f"the KV cache holds {tokens} tokens, {tokens // each} sequences of {each} (whole blocks) if none share"
    else:
        why = f"the KV cache has room for all ({tokens} tokens), so a step's max_num_batched_tokens may be the limit"
    where = f"Iteration {index}" + (f", replica {replica}" if any(row.replica is not None for row in rows) else "")
    sentence = f"{where}: at most {most} of {asked} sequences ran together; {why}."
    return [Flag(code="batch_not_at_once", severity="warning", sentence=sentence)]


FALLBACK_PATTERNS = (
    r"\b[Ff]all(?:ing|s)? ?back\b",
    r"using \w+ fallback",
    r"not (?:officially )?support(?:ed)?\b.*(?:disabl|ignor|\busing\b|\binstead\b)",
    r"overriding (?:user-specified )?\w+",
    r"Overriding (?:cudagraph_mode|to |flash_attn_version)",
    r"(?:will be|is|are) (?:ignored|overridden)\b",
    r"[Ii]gnoring (?:the )?(?:option|argument|setting|unreadable)",
    r"The fusion will be disabled|Disabling (?:fuse_|CUDA Graphs|chunked prefill|prefix caching)",
    r"performance is not optimized|sub-?optimal performance|Performance might be sub-optimal",
    r"[Uu]sing default MoE config|Custom allreduce is disabled",
)  # fmt: skip
"""Wordings of vLLM 0.32, searched in each line of the engine's loggers. Examples: "... falling back to
normal kernel selection", "... is not supported on CPU, disabled.", "..., overriding user-specified block_size=..."."""

ASKED_FOR = (
    r"Enforce eager set|Inductor compilation was disabled by user settings",
    r"support disabling chunked prefill",
    r"Set OMP_NUM_THREADS|To allow overriding|generation_config|[Dd]efault sampling parameters",
    r"Filesystem type|Auto-prefetch|safetensors checkpoint|[Cc]hat template",
    r"num_gpu_blocks_override",
    r"max_num_scheduled_tokens is set",  # room for drafts, with what would leave more
)
"""Exceptions: matching lines about requested settings, or about things that do not affect the measurement."""

LINE = re.compile(r"^(?:\(.*?\) )?(?:INFO|WARNING) [\d-]+ [\d:]+ \[[\w.]+:\d+\] (.*)$", re.MULTILINE)

LIMIT = 300
"""Characters of a log line that a flag quotes."""


def fallback_flags(log: str) -> list[Flag]:
    """Return a flag for each distinct line of `log` that reports a fallback or an ignored option."""
    messages = dict.fromkeys(match.group(1).strip() for match in LINE.finditer(log))
    return [
        Flag(code="engine_fallback", severity="warning", sentence=f"The engine logged: {line[:LIMIT]}")
        for line in messages
        if any(re.search(pattern, line) for pattern in FALLBACK_PATTERNS)
        and not any(re.search(pattern, line) for pattern in ASKED_FOR)
    ]


_NUMBER = r"([0-9][0-9,]*\.?[0-9]*)"

START_UP_PATTERNS: dict[str, str] = {
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
"""Name -> regular expression with one group: the number, in the unit at the end of the name."""

FROM_CACHE = r"Directly load (?:AOT compilation|the compiled graph)"
"""Line that reports a graph from the compile cache; `compile_cache_loads` is the number of such lines."""

_TIME = r"INFO (\d\d-\d\d \d\d:\d\d:\d\d) "

CPU_COMPILE = rf"{_TIME}[^\n]*Warming up model for the compilation\.\.\..*?{_TIME}[^\n]*Warming up done\."
"""The CPU runner logs the start and the end of its compilation in whole seconds, but no duration."""


def read_log(text: str) -> dict[str, float]:
    """Return the numbers that the engine logged during its start, as name -> value.

    With several workers, the largest number of each name counts because the engine waits for the slowest worker.
    """
    facts = {}
    for name, pattern in START_UP_PATTERNS.items():
        if values := [float(match.replace(",", "")) for match in re.findall(pattern, text)]:
            facts[name] = max(values)
    if spans := [_seconds(*match) for match in re.findall(CPU_COMPILE, text, re.DOTALL)]:
        facts.setdefault("compile_s", max(spans))
    if loads := len(re.findall(FROM_CACHE, text)):
        facts["compile_cache_loads"] = float(loads)
    return facts


def _seconds(begin: str, end: str) -> float:
    first, last = (datetime.strptime(f"2000-{time}", "%Y-%m-%d %H:%M:%S") for time in (begin, end))
    return max(0.0, (last - first).total_seconds())


BUSY_SHARE, FULL_SHARE = 0.8, 0.95
"""CPU shares of the client above which a launch is flagged, and above which it is invalid."""

LATE_MEDIAN_S, LATE_P99_S = 0.001, 0.005
"""Largest allowed delay until the client sees an answer: median and 99th percentile."""

STILL_SHARE = 0.1
"""Share of an iteration's time; if the client stood still for more at a stretch, its time is not the engine's."""


RAN_SHARE = 0.5
"""Share of the delays from which the client itself was busy; below, it was not woken although it had to do."""


def client_flags(iterations: Sequence[Iteration]) -> list[Flag]:
    """Return a flag if the client may have limited the measurement: it was busy, or not woken in time."""
    used = [iteration.client for iteration in iterations if iteration.client is not None]
    if not used:
        return []
    busiest = max(use.cpu_share for use in used)
    median_s = max(_first_known(use.seen_late_median_s, use.loop_delay_median_s) for use in used)
    p99_s = max(_first_known(use.seen_late_p99_s, use.loop_delay_p99_s) for use in used)
    added_s = [max(_first_known(each) for each in added) for added in zip(*map(_added_to_ttft, used), strict=True)]
    still = max((use.loop_delay_p99_s or 0.0) / it.elapsed_s for it in iterations if (use := it.client) is not None)
    is_busy = {f"used {100 * busiest:.0f} % of a core": busiest > BUSY_SHARE}
    is_late = {
        f"stood still for {100 * still:.0f} % of an iteration": still > STILL_SHARE,
        f"saw answers {1e3 * median_s:.1f} ms late at the median": median_s > LATE_MEDIAN_S,
        f"saw one answer in a hundred {1e3 * p99_s:.1f} ms late or more": p99_s > LATE_P99_S,
    }
    if added_s[0] > LATE_MEDIAN_S or added_s[1] > LATE_P99_S:
        is_late |= {"saw first tokens late": not any(is_late.values())}  # fewer than one answer in a hundred
    problems = [problem for problem, holds in (is_busy | is_late).items() if holds]
    if not problems:
        return []
    ran = max(_first_known(use.ran_late_share, 1.0) for use in used)
    is_idle = not any(is_busy.values()) and ran < RAN_SHARE
    code = "seen_late" if is_idle else "generator_bound"
    why = f": it was not woken in time, and used at most {100 * busiest:.0f} % of a core" if is_idle else ""
    sentence = (
        f"What sends the requests {' and '.join(problems)}{why} (the worst of {several(len(used), 'iteration')})."
    )
    if is_idle:  # a busy sender is also late in sending, which adds more
        sentence += f" That adds at most {1e3 * added_s[0]:.1f} ms to the median TTFT"
        sentence += f", and {1e3 * added_s[1]:.1f} ms to its p99."
    wrong = busiest > FULL_SHARE or still > STILL_SHARE
    return [Flag(code=code, severity="invalid" if wrong else "warning", sentence=sentence)]


def _added_to_ttft(use: ClientUse) -> tuple[float | None, float | None]:
    return use.ttft_added_median_s, use.ttft_added_p99_s


def _first_known(*values: float | None) -> float:
    """Return the first value that is known; 0 if none is."""
    return next((value for value in values if value is not None), 0.0)


def preempted_flags(index: int, preemptions: int) -> list[Flag]:
    """Return a flag if the engine preempted sequences in an iteration."""
    if not preemptions:
        return []
    sentence = f"Iteration {index}: {preemptions} preemptions; the KV cache does not hold all sequences at once."
    return [Flag(code="preemptions", severity="warning", sentence=sentence)]


IN_GRAPHS = 0.95
"""Share of decode steps in captured graphs from which on an iteration has no flag."""


def graph_flags(iteration: Iteration) -> list[Flag]:
    """Return a flag if an engine that captures graphs ran many decode steps of an iteration outside of them."""
    use = iteration.graphs
    if iteration.warmup or use is None or not use.largest or use.in_graphs >= IN_GRAPHS * use.decode_steps:
        return []
    outside = use.decode_steps - use.in_graphs
    sentence = (
        f"Iteration {iteration.index}: {outside} of {use.decode_steps} decode steps "
        f"({number(100 * outside / use.decode_steps, 2)} %) ran outside of captured graphs. They had up to "
        f"{use.most_outside} tokens; the largest graph is for {use.largest}."
    )
    return [Flag(code="decode_outside_graphs", severity="warning", sentence=sentence)]


def repeated_flags(iteration: Iteration, sent: Sequence[tuple[int, int]]) -> list[Flag]:
    """Return a flag if requests of a pass repeated prompts of its earlier requests.

    Args:
        iteration: the pass.
        sent: for each request, the index of its prompt and how often it was sent before.
    """
    again = sum(times > 0 for _, times in sent)
    if not again or iteration.warmup or iteration.cached_prompt_tokens == 0:  # None: the server does not say
        return []
    sentence = (
        f"Iteration {iteration.index}: {again} of {len(sent)} requests ({number(100 * again / len(sent), 2)} %) "
        "repeated an earlier prompt, which the server may have answered from its prefix cache."
    )
    return [Flag(code="prompts_repeated", severity="warning", sentence=sentence)]


PROVEN_SHARE = 0.9
"""Share of the linear layers' bytes that must have the quantization's data type."""


HELD_SHARE = 0.999
"""Share of an adapter's values that layers must hold; a value may be zero by chance."""

LEAST_NATS = 1e-3
"""Difference of log probabilities that an adapter must exceed; ours make tenths.

With dummy weights all tokens are nearly as likely, so that any difference counts.
"""


def engine_flags(spec: Spec, engine: EngineFacts) -> list[Flag]:
    """Return flags for the differences between a loaded engine and its `spec`."""
    flags = quant_flags(spec.quant, engine) + adapter_flags(spec, engine)
    for name, used in (engine.overruled or {}).items():
        asked: Any = reduce(getitem, name.split("."), spec.engine.args)
        sentence = f"{name} was asked to be {config_text(asked)}, and the engine uses {config_text(used)}."
        flags.append(Flag(code="setting_without_effect", severity="warning", sentence=sentence))
    return flags


def adapter_flags(spec: Spec, engine: EngineFacts) -> list[Flag]:
    """Return a flag if the adapter of `spec` is not proven to act."""
    if spec.lora is None:
        return []
    adapter = engine.adapter
    if adapter is None:
        return [invalid("lora_not_proven", "The engine says nothing of the adapter that was asked for.")]
    if adapter.held_values < HELD_SHARE * adapter.values:
        evidence = f"its layers hold {adapter.held_values:,d} of the {adapter.values:,d} values of its adapter"
    elif adapter.logprob_difference <= (0.0 if spec.load_format in NO_WEIGHTS_NEEDED else LEAST_NATS):
        evidence = (
            f"log probabilities with and without its adapter differ by {adapter.logprob_difference:.2g} nats at most"
        )
    else:
        return []
    return [invalid("lora_not_proven", f"The engine does not use the adapter: {evidence}.")]


def acceptance_flags(spec: Spec, measured: Sequence[Iteration]) -> list[Flag]:
    """Return a warning that drafts of a launch are accepted by chance, and a flag unless as many are as asked for.

    The accepted tokens of its measured iterations are compared: a draft may be shorter at the end of the context, and
    then lacks some.
    """
    drafts = drafts_of(spec.engine.args)
    if drafts is None or drafts.asked_length is None:
        return []
    asked = number(drafts.asked_length)
    by_chance = f"Drafts are accepted by chance, {asked} tokens per step on average, so the text is not real."
    flags = [Flag(code="text_not_real", severity="warning", sentence=by_chance)]
    used = Drafting.together([iteration.drafting for iteration in measured])
    if used is None or not used.drafts:
        sentence = f"An accepted length of {asked} was asked for, and the engine counted no drafts."
        return [*flags, invalid("acceptance_not_proven", sentence)]
    length, near = 1 + used.accepted_tokens / used.drafts, drafts.tolerance(used.drafts)
    lacking = max(0.0, (drafts.tokens or 0) - used.draft_tokens / used.drafts)
    if -near - lacking <= length - drafts.asked_length <= near:
        return flags
    sentence = (
        f"An accepted length of {asked} was asked for, and {used.drafts:,d} drafts had {number(length)} on average; by "
        f"chance it would differ by {number(near, 2)} at most."
    )
    return [*flags, invalid("acceptance_not_proven", sentence)]


def routed_flags(spec: Spec, rows: Sequence[SequenceRow]) -> list[Flag]:
    """Return a flag if the engine was asked for the experts of each token, and did not name all.

    The last token of an answer goes through no layer, so it has none.

    Args:
        spec: the settings.
        rows: the sequences of the iterations that count.
    """
    if not spec.engine.args.get("enable_return_routed_experts"):
        return []
    wanted = [row.prompt_tokens + row.output_tokens - len(row.turns or [row]) for row in rows]
    lacking = sum((row.routed_tokens or 0) < tokens for row, tokens in zip(rows, wanted, strict=True))
    if not lacking:
        return []
    named = sum(row.routed_tokens or 0 for row in rows)
    sentence = (
        f"{lacking} of {len(rows)} sequences came without the experts of all their tokens ({named:,d} of "
        f"{sum(wanted):,d} tokens have them)."
    )
    return [invalid("routing_not_proven", sentence)]


def quant_flags(quant: QuantSpec, engine: EngineFacts) -> list[Flag]:
    """Return a flag if the loaded weights do not prove `quant`."""
    assert engine.weights_bytes_by_dtype is not None, "an engine of ours tells its weights"
    weights = engine.weights_bytes_by_dtype.linear
    share = sum(weights.get(dtype, 0) for dtype in quant.linear_dtypes) / (sum(weights.values()) or 1)
    seen = ", ".join(f"{size / 1e6:.1f} MB {dtype}" for dtype, size in sorted(weights.items())) or "none seen"
    flags = []
    if share < PROVEN_SHARE:
        flags.append(
            invalid(
                "quant_not_proven",
                f"{quant.name} wants {' or '.join(quant.linear_dtypes)} weights in the linear layers; "
                f"{100 * share:.0f} % of their bytes are ({seen}).",
            )
        )
    strangers = {name: n for name, n in engine.linear_methods.items() if not re.search(quant.linear_method, name)}
    if strangers or not engine.linear_methods:
        named = ", ".join(f"{name} ({n} layers)" for name, n in sorted(strangers.items())) or "no linear layers"
        flags.append(
            invalid(
                "quant_not_proven",
                f"{quant.name} wants linear methods that match '{quant.linear_method}'; saw {named}.",
            )
        )
    return flags + _cache_flags(quant, engine)


def _cache_flags(quant: QuantSpec, engine: EngineFacts) -> list[Flag]:
    wanted, cache = quant.kv_cache_dtype, engine.kv_cache
    layers = {} if cache is None else cache.layers
    if wanted is None or set(map(one_cache_name, layers)) == {one_cache_name(wanted)}:
        return []
    seen = ", ".join(f"{name} ({n} layers)" for name, n in sorted(layers.items())) or "none that could be read"
    more = "" if cache is None else f", {cache.bytes_per_token:,} bytes a token"
    backends = ", ".join(engine.resolved.get("attention_backends") or ()) or "unknown"
    return [
        invalid(
            "quant_not_proven",
            f"{quant.name} wants a KV cache of {wanted} in each layer; saw {seen}{more}; "
            f"attention backend: {backends}.",
        )
    ]


def token_flags(
    workload: WorkloadSpec, asked: Sequence[Request], iteration: Iteration, rows: Sequence[SequenceRow]
) -> list[Flag]:
    """Return a flag if the tokens of `iteration` differ in number or length from the requests in `asked`."""
    wanted = {(request.prompt, request.sample, request.turn): request for request in asked}
    problems = []
    if len(rows) != len(asked):
        problems.append(f"{len(rows)} sequences instead of {len(asked)}")
    named = [(row, (row.prompt, row.sample, row.turn)) for row in rows]
    pairs = [(row, wanted[name]) for row, name in named if name in wanted]
    prompts = [(row.prompt_tokens, len(request.prompt_token_ids)) for row, request in pairs]
    if wrong := [pair for pair in prompts if pair[0] != pair[1]]:
        problems.append(f"{len(wrong)} sequences with other prompts than asked, {wrong[0][0]} tokens instead of"
                        f" {wrong[0][1]}")  # fmt: skip
    outputs = [(row.output_tokens, request.output_tokens) for row, request in pairs]
    if wrong := [(came, most) for came, most in outputs if not (most if workload.ignore_eos else 1) <= came <= most]:
        most = "" if workload.ignore_eos else "at most "
        problems.append(f"{len(wrong)} sequences of another length than asked, {wrong[0][0]} output tokens instead of"
                        f" {most}{wrong[0][1]}")  # fmt: skip
    if not problems:
        return []
    return [invalid("token_count", f"Iteration {iteration.index} brought {'; '.join(problems)}.")]


def prefix_cache_flags(asked: Sequence[Request], iteration: Iteration, rows: Iterable[SequenceRow]) -> list[Flag]:
    """Return a flag if `iteration` had more prefix cache hits than its own prompts can explain.

    After a reset, the first sample of a prompt can only find the prefix that it shares with other prompts. The other
    samples of the prompt can find the whole prompt.
    """
    shared = sharing(asked)
    if iteration.cached_prompt_tokens is not None and iteration.cached_prompt_tokens > shared.tokens:
        return [
            invalid(
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
            invalid(
                "cross_iteration_prefix_hits",
                f"Iteration {iteration.index}: {len(warm)} of {len(shared.with_others)} prompts were in the prefix "
                "cache before their first sample ran.",
            )
        ]
    return []


def not_finite_flags(proofs: Sequence[WeightProof]) -> list[Flag]:
    """Return a flag if weights have values that are no finite numbers."""
    bad = max(proofs, key=lambda proof: proof.not_finite, default=None)
    if bad is None or not bad.not_finite:
        return []
    sentence = f"{bad.not_finite} of {bad.tensors} tensors of an engine have values that are no finite numbers."
    return [invalid("output_changed", sentence)]


def stale_flags(proofs: Sequence[WeightProof]) -> list[Flag]:
    """Return a flag if the first request after an update was answered from the prefix cache of the weights before."""
    stale = max((proof.stale_prefix_tokens or 0 for proof in proofs), default=0)
    if not stale:
        return []
    sentence = (
        f"The first request after an update took {stale} tokens of its prompt from the prefix cache, which was filled "
        "by the weights before."
    )
    return [invalid("stale_prefix_cache", sentence)]


def invalid(code: str, sentence: str) -> Flag:
    return Flag(code=code, severity="invalid", sentence=sentence)
