"""Benchmark Reports that can't be imported: what is wrong with each, and the two lines that say it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

Report = dict[str, Any]

GOOD: Report = {
    "version": "0.2.1",
    "run": {"uid": "theirs-1", "description": "one of theirs"},
    "scenario": {
        "stack": [
            {
                "metadata": {"label": "vllm", "cfg_id": "1"},
                "standardized": {
                    "kind": "inference_engine",
                    "tool": "vllm",
                    "tool_version": "0.31.0",
                    "role": "replica",
                    "replicas": 1,
                    "model": {"name": "org/Qwen3-90M"},
                    "accelerator": {"model": "H100", "count": 1, "parallelism": {"tp": 1}},
                },
                "native": {"args": {"--max-model-len": 96}},
            }
        ],
        "load": {
            "metadata": {"cfg_id": "2"},
            "standardized": {
                "tool": "inference-perf",
                "tool_version": "0.3.0",
                "source": "random",
                "input_seq_len": {"distribution": "fixed", "value": 64},
                "output_seq_len": {"distribution": "fixed", "value": 32},
                "concurrency": 32,
            },
            "native": {},
        },
    },
    "results": {
        "request_performance": {
            "aggregate": {
                "requests": {"total": 32, "failures": 0},
                "latency": {"time_to_first_token": {"units": "ms", "mean": 250.0, "p99": 400.0}},
                "throughput": {"output_token_rate": {"units": "tokens/s", "mean": 500.0}},
            }
        }
    },
}
"""As a harness of llm-d might write it, of the load that `synthetic_records` has."""

AGGREGATE = "results.request_performance.aggregate"


def text_of(change: Callable[[Report], object] = lambda report: None) -> str:
    """Return the good report as YAML, after `change`."""
    report = yaml.safe_load(yaml.safe_dump(GOOD))
    change(report)
    return yaml.safe_dump(report)


def put(path: str, value: Any) -> Callable[[Report], object]:
    """Return what sets the value at a dotted path, where a number is the place in a list."""

    def change(report: Report) -> None:
        *above, last = (int(part) if part.isdecimal() else part for part in path.split("."))
        place: Any = report
        for part in above:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change


LOAD = "scenario.load.standardized"
ENGINE = "scenario.stack.0.standardized"

BAD: dict[str, tuple[str | bytes, str, str]] = {
    "not YAML": ("version: [0.2.1\n", "line 2, column 1: no valid YAML", "give a Benchmark Report"),
    "not text": (b"\xff\xfe\x00", "is not UTF-8 text", "give a Benchmark Report"),
    "empty": ("", "must have keys at its top", "give a Benchmark Report"),
    "a list": ("[1, 2]", "must have keys at its top", "give a Benchmark Report"),
    "a key twice": ("version: 0.2.1\nversion: 0.2.1\n", "key 'version' stands twice", "give a Benchmark Report"),
    "nested without end": ("a: " + "[" * 5000, "", "give a Benchmark Report"),
    "a config of ours": ("models: [qwen3-90m]\n", "version: is missing", "version 0.2.1"),
    "an older version": (text_of(put("version", "0.1")), "version: is '0.1', and 0.2 and 0.2.1 can be read", "convert"),
    "a later version": (text_of(put("version", "0.3")), "version: is '0.3', and 0.2 and 0.2.1 can be read", "convert"),
    "a version that is a number": (text_of(put("version", 0.2)), "version: is the number 0.2", "put it in quotes"),
    "no run": (text_of(put("run", None)), "run: is missing", "a Benchmark Report 0.2.1 has to have it"),
    "no uid": (text_of(put("run.uid", None)), "run.uid: is missing", "has to have it"),
    "an empty uid": (text_of(put("run.uid", "")), "run.uid: String should have at least 1 character", "write what"),
    "no results": (text_of(put("results", None)), "results: is missing", "has to have it"),
    "results without requests": (
        text_of(put("results", {"observability": {}})),
        f"{AGGREGATE}.throughput.output_token_rate: is missing",
        "without a throughput nothing can be compared",
    ),
    "no throughput": (
        text_of(put(f"{AGGREGATE}.throughput", None)),
        f"{AGGREGATE}.throughput.output_token_rate: is missing",
        "without a throughput nothing can be compared",
    ),
    "nothing generated": (
        text_of(put(f"{AGGREGATE}.throughput.output_token_rate.mean", 0)),
        f"{AGGREGATE}.throughput.output_token_rate.mean: is 0",
        "import a run that succeeded",
    ),
    "unknown units": (
        text_of(put(f"{AGGREGATE}.latency.time_to_first_token.units", "sec")),
        f"{AGGREGATE}.latency.time_to_first_token.units: is in 'sec', and must be in ms or s",
        "give the values in such units",
    ),
    "units of another kind": (
        text_of(put(f"{AGGREGATE}.throughput.output_token_rate.units", "queries/s")),
        "output_token_rate.units: is in 'queries/s', and must be in tokens/s",
        "give the values in such units",
    ),
    "no units": (
        text_of(put(f"{AGGREGATE}.throughput.output_token_rate.units", None)),
        f"{AGGREGATE}.throughput.output_token_rate.units: is missing",
        "has to have it",
    ),
    "no mean": (
        text_of(put(f"{AGGREGATE}.latency.time_to_first_token.mean", None)),
        "time_to_first_token.mean: is missing",
        "has to have it",
    ),
    "a mean that is no number": (
        text_of(put(f"{AGGREGATE}.latency.time_to_first_token.mean", float("nan"))),
        "time_to_first_token.mean: Input should be a finite number",
        "write what a Benchmark Report",
    ),
    "a time before it began": (
        text_of(put(f"{AGGREGATE}.latency.time_to_first_token.mean", -5.0)), "mean: Input should be greater", "write",
    ),
    "a rate of 300 digits": (
        text_of(put(f"{AGGREGATE}.throughput.output_token_rate.mean", 1e308)), "mean: Input should be less", "write",
    ),
    "a mean above its max": (
        text_of(put(f"{AGGREGATE}.latency.time_to_first_token", {"units": "s", "mean": 3.0, "max": 2.0})),
        "time_to_first_token: has a mean that is not between its min and its max", "write what",
    ),
    "an end before the start": (
        text_of(put("run.time", {"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"})),
        "run.time: ends before it starts", "write what",
    ),
    "more failures than requests": (
        text_of(put(f"{AGGREGATE}.requests.failures", 33)), "requests: has more failures than requests", "write what",
    ),
    "nested 300 deep": (
        text_of(put("results.profiling", "DEEP")).replace("DEEP", "[" * 300 + "]" * 300),
        "holds a value that no report has", "give a Benchmark",
    ),
    "a misspelt key": (
        text_of(put(f"{AGGREGATE}.latency.time_to_frist_token", {"units": "s", "mean": 1})),
        f"{AGGREGATE}.latency.time_to_frist_token: is no key of a Benchmark Report 0.2.1",
        "did you mean 'time_to_first_token'?",
    ),
    "a negative count": (
        text_of(put(f"{AGGREGATE}.requests.failures", -1)), "requests.failures: Input should be greater", "write what",
    ),
    "no scenario": (text_of(put("scenario", None)), "scenario.load: is missing", "only the same load can be compared"),
    "no load": (text_of(put("scenario.load", None)), "scenario.load: is missing", "only the same load"),
    "no stack": (text_of(put("scenario.stack", None)), "scenario.stack: names no model", "--model NAME"),
    "an empty model": (text_of(put(f"{ENGINE}.model.name", "")), "scenario.stack: names no model", "--model NAME"),
    "an unknown component": (text_of(put(f"{ENGINE}.kind", "router")), "scenario.stack.0.standardized: ", "write what"),
    "half a request at once": (text_of(put(f"{LOAD}.concurrency", 2.5)), f"{LOAD}.concurrency: ", "write what"),
    "no requests at once": (text_of(put(f"{LOAD}.concurrency", 0)), f"{LOAD}.concurrency: ", "write what"),
    "an unknown distribution": (
        text_of(put(f"{LOAD}.input_seq_len.distribution", "zipf")),
        f"{LOAD}.input_seq_len.distribution: Input should be 'fixed', 'gaussian', 'uniform' or 'other'",
        "write what",
    ),
    "bytes that are no text": (
        text_of(put("results.profiling", b"\xff\xfe")), "holds a value that no report has", "give a Benchmark Report",
    ),
    "a date that does not exist": ("version: 0.2.1\nrun: {uid: 2025-02-31}\n", "value that can't be read", "give a"),
}  # fmt: skip
"""What it is -> what the file holds, and pieces of the two lines."""
