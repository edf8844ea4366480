"""What harnesses' own commands report, read: the same throughput and latencies, by our definitions, as in the report.

Both reports are what the real commands wrote of a stub, without what is not read.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollout_bench.contracts.load import LoadPoint
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.server import commands, guidellm, vllm_command
from rollout_bench.measure.server.served import iteration_of, rows_of
from rollout_bench.measure.server.stream import Load, Target
from rollout_bench.workloads.requests import Request

TARGET = Target("http://127.0.0.1:1/v1", "stub", {"Authorization": "Bearer sk-hidden-key"}, True, {})

VLLM: dict[str, Any] = {
    "num_prompts": 4,
    "request_rate": 20.0,
    "max_concurrency": 2,
    "duration": 0.27010552900173934,
    "completed": 3,
    "failed": 1,
    "total_output_tokens": 12,
    "output_throughput": 44.42708020213361,
    "mean_ttft_ms": 42.75417100143386,
    "mean_tpot_ms": 9.907056222194418,
    "mean_itl_ms": 9.907056222194418,
    "input_lens": [3, 3, 3, 5],
    "output_lens": [4, 4, 4, 0],
    "ttfts": [0.043026003000704804, 0.04286513300030492, 0.042371377003291855, 0.0],
    "itls": [
        [0.009196316001180094, 0.010402184998383746, 0.009480410000833217],
        [0.010277419001795352, 0.010185971997998422, 0.009805224002775503],
        [0.010183858998061623, 0.013389871000981657, 0.006242249997740146],
        [],
    ],
    "start_times": [28569.501428294, 28569.554941729, 28569.618422169, 28569.628175857],
    "queue_times": [0.0001209599977300968, 0.00010440599726280198, 9.641299766371958e-05, 0.007326336999540217],
    "errors": ["", "", "", "Too Many Requests"],
}

BEGAN = 1795402280.2841144
GUIDELLM: dict[str, list[tuple[Any, ...]]] = {
    "successful": [
        (1, "completed", 0.4282727, 0.474987, 0.5146537, 0.5198927, 4, 3, 4),
        (0, "completed", 0.4248216, 0.4681919, 0.5071294, 0.5075808, 4, 3, 4),
        (2, "completed", 0.5111556, 0.55474, 0.5842948, 0.5894141, 4, 3, 4),
    ],
    "errored": [(3, "errored", 0.5237358, None, None, None, 0, None, None)],
    "incomplete": [],
}


def asked(count: int = 4, tokens: int = 4) -> list[Request]:
    return [Request(i, 0, [1, 2, 3], tokens) for i in range(count)]


def load(count: int = 4, tokens: int = 4, rate: float | None = None, users: int | None = None) -> Load:
    return Load(asked(count, tokens), ["a"] * count, None, users, count, request_rate=rate, seed=11)


def guidellm_report() -> dict[str, Any]:
    """Return guidellm's report, as far as it is read."""
    kinds = {
        kind: [
            {
                "info": {
                    "status": status,
                    "error": "HTTPStatusError(\"Client error '429 Too Many'\")" if status == "errored" else None,
                    "scheduler_start_time": BEGAN,
                    "settings": {"trace_duration": float(number)},
                    "timings": {
                        "request_start": 1795402280 + start,
                        "first_token_iteration": first and 1795402280 + first,
                        "last_token_iteration": last and 1795402280 + last,
                        "request_end": end and 1795402280 + end,
                        "resolve_end": 1795402280 + (end or 0.74),
                        "token_iterations": pieces,
                    },
                },
                "input_metrics": {"text_tokens": prompt},
                "output_metrics": {"text_tokens": output},
            }
            for number, status, start, first, last, end, pieces, prompt, output in stats
        ]
        for kind, stats in GUIDELLM.items()
    }
    return {"benchmarks": [{"requests": kinds}]}


def test_our_definitions_give_the_numbers_of_vllms_report():
    done = commands.read(vllm_command, VLLM, load(rate=20.0, users=2), TARGET)
    rows = rows_of(asked(), done, 0)
    iteration = iteration_of(0, False, LoadPoint(request_rate=20.0, concurrency=2), done, rows, None)
    assert (iteration.sequences, iteration.failed, iteration.output_tokens) == (3, 1, 12)
    assert iteration.output_tokens / iteration.elapsed_s == pytest.approx(VLLM["output_throughput"])
    good = [row for row in rows if not row.failed]
    firsts = [(row.first_token_s or 0) - (row.sent_s or 0) for row in good]
    assert 1e3 * np.mean(firsts) == pytest.approx(VLLM["mean_ttft_ms"], abs=2e-3)
    lasts = [((row.last_token_s or 0) - (row.first_token_s or 0)) / (row.output_tokens - 1) for row in good]
    assert 1e3 * np.mean(lasts) == pytest.approx(VLLM["mean_tpot_ms"], abs=2e-3)
    gaps = [gap for row in good for gap in row.gaps_us or []]
    assert np.mean(gaps) / 1e3 == pytest.approx(VLLM["mean_itl_ms"], abs=2e-3)
    assert {(row.status, row.prompt_tokens, row.gap_tokens) for row in good} == {(200, 3, None)}
    assert (rows[3].status, rows[3].error, rows[3].output_tokens) == (429, "Too Many Requests", 0)
    delays = [(row.sent_s or 0) - (row.due_s or 0) for row in rows]
    assert delays == pytest.approx(VLLM["queue_times"], abs=2e-6)
    assert min(row.due_s or 0 for row in rows) == 0.0


def test_a_report_of_other_requests_is_none():
    with pytest.raises(MeasuringFailed, match="vllm bench serve reports 4 of 5 requests"):
        commands.read(vllm_command, VLLM, load(5), TARGET)


def test_the_command_line_has_the_load_and_no_key():
    target = Target("https://h/api/v1", "m", TARGET.headers, False, {"top_k": 5, "return_token_ids": True}, True, "t")
    line = vllm_command.arguments(Path("/x"), load(7, rate=2.5, users=3), target)
    assert line[:2] == ["bench", "serve"]
    given = dict(word[2:].split("=", 1) for word in line[2:] if "=" in word)
    assert given.items() >= {
        ("backend", "openai-chat"),
        ("base-url", "https://h/api"),
        ("endpoint", "/v1/chat/completions"),
        ("num-prompts", "7"),
        ("request-rate", "2.5"),
        ("burstiness", "inf"),
        ("max-concurrency", "3"),
        ("tokenizer", "t"),
        ("seed", "11"),
    }
    assert json.loads(given["extra-body"]) == {"top_k": 5}
    assert "--insecure" in line
    assert "sk-hidden-key" not in " ".join(line)
    at_once = vllm_command.arguments(Path("/x"), load(7), TARGET)
    assert not any(word.startswith(("--request-rate", "--burstiness", "--max-conc", "--insecure")) for word in at_once)


def ahead_s() -> float:
    return time.time() - time.monotonic()


def test_guidellms_report_is_read_in_request_order():
    done = commands.read(guidellm, guidellm_report(), load(users=2), TARGET, ahead_s())
    rows = rows_of(asked(), done, 0)
    iteration = iteration_of(0, False, LoadPoint(concurrency=2), done, rows, None)
    assert (iteration.sequences, iteration.failed, iteration.output_tokens) == (3, 1, 12)
    assert (rows[0].sent_s, rows[0].first_token_s) == (0.0, pytest.approx(0.0433703, abs=1e-5))
    assert (rows[1].last_token_s, rows[3].status) == (pytest.approx(0.0898321, abs=1e-5), 429)
