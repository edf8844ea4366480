"""Records of messages launches for tests: sizes and times that can be summed by hand."""

from __future__ import annotations

from typing import Any

from synthetic_records import make_record, make_spec

from rollout_bench.contracts.messages import Link, MessageRow, Messages, MessageStep
from rollout_bench.contracts.spec import Spec

US = 1e-6

BYTES: dict[Link, tuple[int, int]] = {
    "front_end_to_core": (500, 0),
    "core_to_workers": (4000, 1000),
    "workers_to_core": (600, 600),
    "core_to_front_end": (900, 700),
}
"""Link -> bytes of a message in the first step and in those that follow; a request for each sequence, none later."""

SLOWER_S = 10 * US
"""What each further worker takes longer to get a message."""


def make_messages_spec(
    workload: str = "small", *, workers: int = 1, steps: int = 4, batches: tuple[int, ...] = (2, 8)
) -> Spec:
    content = make_spec("qwen3-90m", "bf16", workload).model_dump()
    content["engine"]["args"] |= {"tensor_parallel_size": workers} if workers > 1 else {}
    content["engine"]["multiprocess"] = True
    settings = {"steps": steps, "batches": batches}
    return Spec.model_validate(content | {"mode": "messages", "messages": settings})


def make_messages(spec: Spec, launch: int = 0, *, step_s: float = 1e-3) -> tuple[Messages, list[MessageRow]]:
    """Return a launch of the spec's steps, of `step_s` each.

    A message takes 1 us, 2 us and 3 us of it, and waits for 50; worker r is r times `SLOWER_S` slower.
    """
    assert spec.messages is not None
    steps, rows = [], []
    workers = spec.engine.args.get("tensor_parallel_size", 1)
    for batch in spec.messages.batches:
        for look in ("times", "contents"):
            for index in range(spec.messages.steps):
                steps.append(_step(look, batch, index, step_s))
                for link, (first, later) in BYTES.items():
                    size = first if index == 0 else later
                    count = (batch if index == 0 else 0) if link == "front_end_to_core" else 1
                    rows += [_row(look, batch, index, link, size, workers) for _ in range(count)]
    common = make_record(spec, launch).model_dump(exclude={"iterations", "sequences_file"})
    costs = dict.fromkeys(("put_s", "got_s", "encode_s", "decode_s", "step_s"), US)
    more: dict[str, Any] = {
        "async_scheduling": False,
        "ring_bytes": 16 << 20,
        "pickled_bytes": {"SamplingParams": 189},
        "steps": steps,
        "probe": costs,
        "probes": [
            {"batch": batch, "cost_s": 10 * US, "share": 10 * US / (4 * step_s)} for batch in spec.messages.batches
        ],
        "messages_file": f"launch-{launch}.messages.jsonl.gz",
        "messages": len(rows),
        "side_files_sha256": {},
    }
    return Messages.model_validate(common | more), rows


def _step(look: Any, batch: int, index: int, step_s: float) -> MessageStep:
    first = index == 0
    return MessageStep(
        look=look, batch=batch, index=index, phase="prefill" if first else "decode", tokens=batch, sequences=batch,
        new_requests=batch if first else 0, new_prompt_tokens=64 * batch if first else 0, began_s=index * step_s,
        latency_s=step_s, elapsed_s=step_s,
    )  # fmt: skip


def _row(look: Any, batch: int, index: int, link: Link, size: int, workers: int) -> MessageRow:
    timed = look == "times"
    readers = range(workers) if link == "core_to_workers" else (None,)
    reads = [
        {"rank": r, "transport_s": 52 * US + (r or 0) * SLOWER_S, "waited_s": 50 * US, "decode_s": 3 * US}
        for r in readers
    ]
    content = {
        "inline_bytes": size - 100, "out_of_band_bytes": 100, "buffers": 1, "through": "ring",
        "distance": None if index == 0 else 40, "distance_by": None if index == 0 else "levenshtein",
        "repeated_bytes": None if index == 0 else size - 40, "fields": {"block_ids": 100, "rest": size - 100},
        "formats": {"pickle5": {"size_bytes": size + 7, "make_s": US, "read_s": US, "typed": True}},
        "difference": None if index == 0 else {"size_bytes": 30, "make_s": US, "apply_s": 0.5 * US},
    }  # fmt: skip
    return MessageRow.model_validate(
        {
            "look": look, "batch": batch, "link": link, "method": "any",
            "rank": 0 if link == "workers_to_core" else None, "step": index, "began_s": 0.0,
            "encode_s": US if timed else None, "reads": reads if timed else None,
            "content": None if timed else content,
        }
    )  # fmt: skip
