"""The server of another make on a checkpoint of ours: where it differs from vLLM, that it is measured, and ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from launching import Launching, online_spec
from other_server import OtherServer, running_other_server
from tokenizers import Tokenizer

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import sequences_path
from rollout_bench.core.processes import group_of, members

pytestmark = [pytest.mark.engine, pytest.mark.untimed]

PROMPT = " cfg cfh"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    shape = SyntheticModel.model_validate({"preset": "qwen3-tiny"}).resolve()
    build_checkpoint(shape, "bf16", folder)
    return folder


@pytest.fixture(scope="module")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherServer]:
    with running_other_server(model_folder, tmp_path_factory.mktemp("server")) as running:
        group = group_of(running.pid)
        yield running
    assert members(group) == []


def complete(server: OtherServer, **body: Any) -> httpx.Response:
    question = {"model": server.model, "prompt": PROMPT, "max_tokens": 4, **body}
    return httpx.post(f"{server.url}/v1/completions", json=question, timeout=60)


def test_it_names_its_model_and_counts_tokens(server, model_folder):
    (model,) = httpx.get(f"{server.url}/v1/models").json()["data"]
    assert model["id"] == server.model
    assert "max_model_len" not in model
    prompt = len(Tokenizer.from_file(str(model_folder / "tokenizer.json")).encode(PROMPT).ids)
    usage = {"prompt_tokens": prompt, "completion_tokens": 4, "total_tokens": prompt + 4}
    assert complete(server).json()["usage"] == usage


def test_its_stream_has_usage_in_the_last_choice_and_no_done(server):
    *tokens, last = [
        json.loads(line.removeprefix("data: ")) for line in complete(server, stream=True).text.split("\n\n") if line
    ]
    assert all("finish_reason" not in event["choices"][0] and "usage" not in event for event in tokens)
    assert last["choices"] == [{"index": 0, "text": "", "finish_reason": "length"}]
    assert last["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"prompt": [300, 301]}, 400, "prompt must be a string."),
        ({"ignore_eos": True}, 422, "Unexpected fields in the request: {'ignore_eos'}"),
        ({"model": "other"}, 400, "Server is pinned to 'synthetic/tiny'; requested 'other'."),
    ],
)
def test_it_refuses_what_vllm_takes(server, body, status, detail):
    said = complete(server, **body)
    assert (said.status_code, said.json()) == (status, {"detail": detail})


def test_it_is_measured_and_what_it_refuses_is_left_out(server, tmp_path):
    spec = online_spec(
        {"points": [{"concurrency": 2}]},
        {"url": f"{server.url}/v1", "model": server.model},
        workload={"prompts": 3, "prompt_tokens": 16, "output_tokens": 6},
        measuring={"warmup_iterations": 0, "iterations": 1},
    )
    launch = Launching(tmp_path, spec)
    assert launch.finish() == 0, launch.said + launch.log_text()[-2000:]
    record = launch.record()
    assert {"prompts_as_text", "plain_sampling", "tokens_claimed"} <= {flag.code for flag in record.validity}
    rows = read_sequences(sequences_path(launch.out), launch.record())
    assert {row.output_tokens for row in rows} == {6}
    # An answer of random weights may be bytes that make up no letter: nothing of it is seen.
    assert any(row.first_token_s is not None for row in rows)
    assert any(row.last_token_s is not None for row in rows)
