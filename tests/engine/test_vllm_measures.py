"""Latencies and goodput are what vLLM's own benchmark makes of the same answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic_records import Server, make_online, make_online_spec

from rollout_bench.analysis.timed.service import Requests, requests_of, service_of
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Iteration, SequenceRow
from rollout_bench.plan.serving import Slo

pytestmark = pytest.mark.engine

VLLM = """
import json, sys
from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput
from vllm.benchmarks.serve import calculate_metrics

given = json.load(sys.stdin)
outputs = [RequestFuncOutput(**each) for each in given["outputs"]]
names = ["completed", "failed", "request_throughput", "request_goodput", "output_throughput"]
names += [f"{kind}_{name}_ms" for kind in ("mean", "median") for name in ("ttft", "tpot", "itl", "e2el")]
found = []
for slo in given["slos"]:
    metrics, _ = calculate_metrics([], outputs, given["elapsed_s"], None, [50, 99], slo)
    found.append({name: float(getattr(metrics, name)) for name in names})
json.dump(found, open(sys.argv[1], "w"))
"""

LIMITS: list[dict[str, float]] = [{"ttft_ms": 52}, {"ttft_ms": 400, "tpot_ms": 10.1}, {"e2el_ms": 500}]

Answers = tuple[Requests, Iteration, list[dict[str, float]]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Return the requests of an iteration, the iteration, and what vLLM makes of it under each of the limits."""
    spec = make_online_spec(points=[LoadPoint(request_rate=30.0)])
    record, rows = make_online(spec, server=Server(failing=9), iterations=1)
    (measured,) = [iteration for iteration in record.iterations if not iteration.warmup]
    rows = [row for row in rows if row.iteration == measured.index]
    # One of a single token, which has no TPOT and keeps its limit; one that came in pieces of several.
    rows[1] = rows[1].model_copy(update={"output_tokens": 1, "gaps_us": [], "last_token_s": rows[1].first_token_s})
    rows[2] = rows[2].model_copy(update={"gaps_us": [10_000] * 15 + [160_000]})
    rows[2] = rows[2].model_copy(update={"last_token_s": (rows[2].first_token_s or 0) + 0.31})
    return requests_of(rows), measured, vllm(tmp_path_factory.mktemp("vllm"), rows, measured.elapsed_s)


@pytest.mark.parametrize("place", range(len(LIMITS)), ids=map(str, LIMITS))
def test_means_medians_rates_and_goodput_agree(answers: Answers, place: int) -> None:
    requests, measured, theirs_of = answers
    theirs = theirs_of[place]
    ours = service_of(requests, [measured], Slo.model_validate(LIMITS[place])).values
    assert ours["failed_share"] == theirs["failed"] / (theirs["completed"] + theirs["failed"])
    assert ours["completed_requests_per_s"] == pytest.approx(theirs["request_throughput"])
    assert ours["goodput_requests_per_s"] == pytest.approx(theirs["request_goodput"])
    assert 0 < theirs["request_goodput"] < theirs["request_throughput"]
    assert int(requests.output_tokens.sum()) / measured.elapsed_s == pytest.approx(theirs["output_throughput"])
    for name in ("ttft", "tpot", "itl", "e2el"):
        assert 1000 * ours[f"{name}_s"] == pytest.approx(theirs[f"mean_{name}_ms"]), name
        assert 1000 * np.median(requests.known(f"{name}_s")) == pytest.approx(theirs[f"median_{name}_ms"]), name


def vllm(folder: Path, rows: list[SequenceRow], elapsed_s: float) -> list[dict[str, float]]:
    """Return what vLLM's `calculate_metrics` makes of `rows` under each of `LIMITS`, in a process of its own."""
    outputs = [
        {
            "success": not row.failed,
            "start_time": row.sent_s,
            "output_tokens": row.output_tokens,
            "prompt_len": row.prompt_tokens,
            "ttft": 0.0 if row.failed else row.first_token_s - row.sent_s,
            "latency": 0.0 if row.failed else row.last_token_s - row.sent_s,
            "itl": [gap / 1e6 for gap in row.gaps_us or []],
            "error": row.error or "",
        }
        for row in rows
    ]
    slos = [{name.removesuffix("_ms"): value for name, value in limits.items()} for limits in LIMITS]
    done = subprocess.run(
        [sys.executable, "-c", VLLM, str(folder / "metrics.json")],
        input=json.dumps({"outputs": outputs, "elapsed_s": elapsed_s, "slos": slos}),
        text=True, capture_output=True, check=False,
        env={**os.environ, "VLLM_TARGET_DEVICE": "cpu"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[dict[str, float]] = json.loads((folder / "metrics.json").read_text())
    return found
