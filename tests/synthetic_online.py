"""Records of online launches for tests, with side files, from a simple server: slots, a wait for one, even steps."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_records import OUTPUT_TOKENS, PROMPT_TOKENS, make_record, make_spec

from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Flag, Record, SequenceRow
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import record_path, write_record

REQUESTS = 32
"""In each pass."""


@dataclass(frozen=True)
class Server:
    """What serves: `slots` requests at once, the first token after `prefill_s`, each further one after `step_s`.

    Times scatter by `noise` (a share). Each `failing`-th request fails.
    """

    slots: int = 8
    prefill_s: float = 0.05
    step_s: float = 0.01
    noise: float = 0.02
    failing: int = 0


def make_online_spec(
    model: str = "qwen3-90m",
    quant: str = "bf16",
    workload: str = "small",
    *,
    points: Sequence[LoadPoint] = (LoadPoint(),),
    **load: Any,
) -> Spec:
    """Return a spec of an online experiment under `points`; `load` changes what its load says besides."""
    content = make_spec(model, quant, workload).model_dump()
    content["mode"] = "online"
    content["engine"] |= {"multiprocess": True}
    content["load"] = {
        "points": [point.model_dump() for point in points],
        "burstiness": 1.0,
        "cool_down_s": 1.0,
        "token_ids": True,
        "harness": "rollout-bench",
    } | load
    return Spec.model_validate(content)


def make_online(
    spec: Spec,
    launch: int = 0,
    server: Server = Server(),
    *,
    iterations: int = 3,
    requests: int = REQUESTS,
    flags: Sequence[Flag] = (),
    points: Sequence[LoadPoint] | None = None,
) -> tuple[Record, list[SequenceRow]]:
    """Return a launch that measures each point of `spec`, or `points`: one warm-up and so many iterations of each."""
    assert spec.load is not None
    random = np.random.default_rng([launch, len(spec.quant.name), int(1e6 * server.step_s)])
    speed = 1 + server.noise * random.standard_normal()  # of the launch
    passes, rows = [], []
    for point in points or spec.load.points:
        for number in range(iterations + 1):
            index = len(passes)
            found = _pass(index, point, server, speed, requests, random)
            ends = [row.last_token_s for row in found if row.last_token_s is not None]
            served = [row for row in found if not row.failed]
            passes.append(
                {
                    "index": index,
                    "warmup": number == 0,
                    "elapsed_s": max(ends, default=1.0),
                    "requests": requests,
                    "sequences": len(served),
                    "prompt_tokens": sum(row.prompt_tokens for row in served),
                    "output_tokens": sum(row.output_tokens for row in served),
                    "point": point.model_dump(),
                    "failed": requests - len(served),
                    "client": {"cpu_share": 0.1},
                }
            )
            rows += found
    offline = make_record(spec, launch, flags=flags).model_dump()
    wall_s = 60.0 + sum(float(each["elapsed_s"]) for each in passes)
    record = Record.model_validate(offline | {"iterations": passes, "wall_s": wall_s})
    return record, rows


def save_online(results: Path, *launches: tuple[Record, list[SequenceRow]]) -> None:
    """Write launches where the workflow would."""
    for record, rows in launches:
        path = record_path(results, record.spec.mode, record.spec.experiment(), record.launch)
        write_record(path, record, rows)


def _pass(
    iteration: int,
    point: LoadPoint,
    server: Server,
    speed: float,
    requests: int,
    random: np.random.Generator,
) -> list[SequenceRow]:
    gaps = random.exponential(size=requests)
    rate = point.request_rate if isinstance(point.request_rate, float) else None
    due = np.zeros(requests) if rate is None else (np.cumsum(gaps) - gaps[0]) * requests / gaps.sum() / rate
    slots = [0.0] * server.slots
    clients = [0.0] * (point.concurrency or requests)
    rows = []
    for number in range(requests):
        sent = max(float(due[number]), heapq.heappop(clients)) + 0.0005
        fails = server.failing and number % server.failing == 0
        begins = sent if fails else max(sent, heapq.heappop(slots))
        first = begins + server.prefill_s * speed * (1 + server.noise * random.standard_normal())
        steps = server.step_s * speed * (1 + server.noise * random.standard_normal(OUTPUT_TOKENS - 1))
        gaps_us = [int(1e6 * step) for step in steps]
        last = first + sum(gaps_us) / 1e6
        heapq.heappush(clients, last)
        common: dict[str, Any] = {
            "iteration": iteration, "prompt": number // 4, "sample": number % 4, "prompt_tokens": PROMPT_TOKENS,
            "due_s": None if rate is None else float(due[number]), "sent_s": sent,
        }  # fmt: skip
        if fails:
            rows.append(SequenceRow(**common, output_tokens=0, finish_reason=None, status=500, error="server error"))
            continue
        heapq.heappush(slots, last)
        rows.append(
            SequenceRow(
                **common,
                output_tokens=OUTPUT_TOKENS,
                finish_reason="length",
                status=200,
                last_token_s=last,
                first_token_s=first,
                gaps_us=gaps_us,
            )
        )
    return rows
