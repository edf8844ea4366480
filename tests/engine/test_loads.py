"""The real engine is asked for exactly what the sampler drew, whatever the lengths, and brings exactly that back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from launching import Launching, own_flags, tiny_spec

from rollout_bench.checkpoints.formats import tokenizer_files
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import sequences_path
from rollout_bench.workloads.requests import Source

pytestmark = [pytest.mark.engine, pytest.mark.untimed]

VOCABULARY = 2048
SPREAD = {"distribution": "lognormal", "median": 12, "sigma": 1, "low": 1, "high": 60}


def measured(folder: Path, workload: dict[str, Any], *arguments: str) -> Launching:
    launch = Launching(folder, tiny_spec(workload=workload), list(arguments))
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return launch


def check_as_asked(launch: Launching, source: Source) -> None:
    rows = read_sequences(sequences_path(launch.out), launch.record())
    asked = [(index, request) for index in range(3) for request in source.requests(0, index)]
    found = [(row.iteration, row.prompt, row.sample, row.prompt_tokens, row.output_tokens) for row in rows]
    assert found == [(i, r.prompt, r.sample, len(r.prompt_token_ids), r.output_tokens) for i, r in asked]
    assert [flag for flag in own_flags(launch.record()) if flag.severity == "invalid"] == []


def test_a_long_tail_behind_a_shared_prefix_is_counted_token_by_token(tmp_path: Path) -> None:
    prompts = {"distribution": "uniform", "low": 129, "high": 190}
    launch = measured(
        tmp_path,
        {"prompt_tokens": prompts, "output_tokens": SPREAD, "shared_prefix": {"tokens": 128, "groups": 2}},
    )
    check_as_asked(launch, Source(launch.spec.workload, VOCABULARY, "tiny"))
    rows = read_sequences(sequences_path(launch.out), launch.record())
    assert len({row.output_tokens for row in rows}) > 5
    # the one full block of a group's prefix is computed once: 2 groups of 2 prompts with 2 samples
    assert [iteration.cached_prompt_tokens for iteration in launch.record().iterations] == [6 * 128] * 3


def test_text_goes_through_the_model_s_own_tokenizer(tmp_path: Path) -> None:
    data = tmp_path / "sharegpt.json"
    turns = [("human", "What is asked?"), ("gpt", "Every token.")]
    data.write_text(json.dumps([{"conversations": [{"from": who, "value": said} for who, said in turns]}] * 4))
    (tmp_path / "tiny").mkdir()
    for name, content in tokenizer_files(VOCABULARY, 2048).items():
        (tmp_path / "tiny" / name).write_text(json.dumps(content))
    named = {"format": "sharegpt", "sha256": hashlib.sha256(data.read_bytes()).hexdigest()}
    launch = measured(tmp_path, {"dataset": named, "prompt_tokens": 9, "output_tokens": 16}, "--dataset", str(data))
    check_as_asked(launch, Source(launch.spec.workload, VOCABULARY, str(tmp_path / "tiny"), data))
    assert {
        (row.prompt_tokens, row.output_tokens) for row in read_sequences(sequences_path(launch.out), launch.record())
    } == {(9, 12)}


def test_a_data_set_that_changed_since_the_plan_is_not_measured(tmp_path: Path) -> None:
    data = tmp_path / "trace.jsonl"
    data.write_text('{"prompt_tokens": 8, "output_tokens": 2}\n' * 4)
    workload = {"dataset": {"format": "trace", "sha256": "0" * 64}}
    launch = Launching(tmp_path, tiny_spec(workload=workload), ["--dataset", str(data)])
    assert launch.finish() == 1
    assert launch.failure().category == "dataset_changed"
    assert len(launch.errors()) == 2
