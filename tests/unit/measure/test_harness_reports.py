"""What harnesses' own commands report, read: the same throughput and latencies, by our definitions, as in the report.

The reports are what the real commands wrote of a stub, without what is not read.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Iteration, SequenceRow
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.server import commands, guidellm, inference_perf_command, vllm_command
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

INFERENCE_PERF: list[tuple[Any, ...]] = [
    (0, 12515.531269818, 12515.64041797, [12515.578089516, 12515.598423537, 12515.618034792, 12515.638544013], None),
    (3, 12515.680485516, 12515.681373312, None, {"error_type": "HTTP Error 429", "error_msg": "as --status says"}),
    (1, 12515.580433064, 12515.683149856, [12515.622239674, 12515.642482985, 12515.662818409, 12515.682841728], None),
    (2, 12515.629550274, 12515.731979286, [12515.671185773, 12515.693096202, 12515.712334177, 12515.731603521], None),
]
INFERENCE_PERF_TTFT_S = 0.04342060233345061
"""Mean of `time_to_first_token` in the summary that the command wrote of the same requests."""


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


def read_of(
    harness: commands.Harness, report: Any, sent: Load, ahead_s: float = 0.0
) -> tuple[Iteration, list[SequenceRow]]:
    """Return what we make of a report of three answers and a refusal."""
    done = commands.read(harness, report, sent, TARGET, ahead_s)
    rows = rows_of(asked(), done, 0)
    iteration = iteration_of(0, False, LoadPoint(request_rate=20.0, concurrency=2), done, rows, None)
    assert (iteration.sequences, iteration.failed, iteration.output_tokens) == (3, 1, 12)
    assert (rows[3].status, rows[3].output_tokens) == (429, 0)
    return iteration, rows


def test_our_definitions_give_the_numbers_of_vllms_report():
    iteration, rows = read_of(vllm_command, VLLM, load(rate=20.0, users=2))
    assert iteration.output_tokens / iteration.elapsed_s == pytest.approx(VLLM["output_throughput"])
    good = rows[:3]
    ours = {
        "ttft": [row.first_token_s - row.sent_s for row in good],
        "tpot": [(row.last_token_s - row.first_token_s) / (row.output_tokens - 1) for row in good],
        "itl": [gap / 1e6 for row in good for gap in row.gaps_us],
    }
    for name, seconds in ours.items():
        assert 1e3 * np.mean(seconds) == pytest.approx(VLLM[f"mean_{name}_ms"], abs=2e-3)
    assert {(row.status, row.prompt_tokens, row.gap_tokens) for row in good} == {(200, 3, None)}
    assert rows[3].error == "Too Many Requests"
    assert [row.sent_s - row.due_s for row in rows] == pytest.approx(VLLM["queue_times"], abs=2e-6)
    assert min(row.due_s for row in rows) == 0.0


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


def test_guidellms_report_is_read_in_request_order():
    _, rows = read_of(guidellm, guidellm_report(), load(users=2), time.time() - time.monotonic())
    assert (rows[0].sent_s, rows[0].first_token_s) == (0.0, pytest.approx(0.0433703, abs=1e-5))
    assert rows[1].last_token_s == pytest.approx(0.0898321, abs=1e-5)


def test_inference_perfs_report_is_read_in_request_order():
    report = [
        {
            "start_time": start,
            "end_time": end,
            "request": json.dumps({"prompt": "a", "user": str(number)}),
            "info": {
                "response_metrics": pieces
                and {"chunk_times": pieces, "server_usage": {"prompt_tokens": 3, "completion_tokens": 4}}
            },
            "error": error,
        }
        for number, start, end, pieces, error in INFERENCE_PERF
    ]
    due = Load(asked(), ["a"] * 4, [0.1, 0.15, 0.2, 0.25], None, 4, request_rate=20.0)
    _, rows = read_of(inference_perf_command, report, due)
    firsts = [row.first_token_s - row.sent_s for row in rows[:3]]
    assert np.mean(firsts) == pytest.approx(INFERENCE_PERF_TTFT_S, abs=2e-6)
    delays = [row.sent_s - row.due_s for row in rows]
    assert min(delays) == pytest.approx(0, abs=1e-6)
    assert max(delays) < 0.003
    assert rows[3].error == "HTTP Error 429: as --status says"


def test_inference_perf_gets_our_requests_and_their_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def load_written(sent: Load) -> Any:
        line, environment = inference_perf_command.command(tmp_path, sent, TARGET)
        assert line[0] == str(tmp_path / "python3")
        assert environment["INFERENCE_PERF_KEY"] == "sk-hidden-key"
        assert "sk-hidden-key" not in "".join([*line, *(file.read_text() for file in tmp_path.iterdir())])
        return json.loads((tmp_path / "run.json").read_text())["load"]

    (tmp_path / "inference-perf").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    replayed = load_written(Load(asked(2), ["a", "b"], [0.25, 3661.5], None, 2, request_rate=1.0))
    assert (replayed["type"], replayed["stages"]) == ("trace_replay", [{"rate": 2, "duration": 1}])
    bodies = [json.loads(row) for row in (tmp_path / "requests.jsonl").read_text().splitlines()]
    assert [(body["prompt"], body["max_tokens"], body["user"]) for body in bodies] == [("a", 4, "0"), ("b", 4, "1")]
    times = [row.split(",")[0] for row in (tmp_path / "trace.csv").read_text().splitlines()[1:]]
    assert times == ["2000-01-01 00:00:00.250000", "2000-01-01 01:01:01.500000"]
    kept = load_written(load(7, users=3))
    assert (kept["type"], kept["stages"]) == ("concurrent", [{"num_requests": 7, "concurrency_level": 3}])
