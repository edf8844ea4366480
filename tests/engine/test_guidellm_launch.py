"""One launch whose requests guidellm sends, on the real engine: the same record as with vLLM's own generator."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from launching import TINY_MODEL, Launching, online_spec, own_flags
from tokenizers import Tokenizer, models, pre_tokenizers

from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import sequences_path

pytestmark = [pytest.mark.engine, pytest.mark.untimed]


def model_with_words(folder: Path) -> Path:
    """Return a model's folder whose tokenizer has one word for each token, so that texts are as long as asked."""
    from transformers import PreTrainedTokenizerFast  # as in test_training.py

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY_MODEL))
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(TINY_MODEL["vocab_size"])}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Launching, dict[str, Any]]:
    """Return a launch over two points, and what could be seen while its server ran."""
    load = {
        "points": [{"concurrency": 2, "request_rate": "inf"}, {"concurrency": None, "request_rate": 40.0}],
        "burstiness": 0.5,
        "token_ids": False,
        "harness": "guidellm",
        "harness_version": "0.8.1",
    }
    folder = tmp_path_factory.mktemp("guidellm")
    model = model_with_words(folder / "model")
    once = {"iterations": 1}  # each pass starts a dozen processes of guidellm anew
    spec = online_spec(load, workload={"prompts": 8}, measuring=once, engine={"multiprocess": False})
    launch = Launching(folder / "launch", spec, model=model)
    launch.wait_for("iteration 1/")
    key = launch.child("api_server").environ()["VLLM_API_KEY"]
    command = guidellm_of(launch)
    lines = [line for process in launch.started if process.is_running() for line in process.cmdline()]
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return launch, {"key": key, "lines": [*lines, *command]}


def guidellm_of(launch: Launching) -> list[str]:
    """Return the command lines of guidellm's processes, once they are there.

    They are watched for survivors from then on.
    """
    while True:
        children = psutil.Process(launch.process.pid).children(recursive=True)
        found = {child.pid: child.cmdline() for child in children if child.is_running()}
        leader = next((pid for pid, line in found.items() if "--disable-console" in line), None)
        workers = psutil.Process(leader).children(recursive=True) if leader else []
        if workers:
            launch.started |= set(children) | set(workers)
            return [word for process in (psutil.Process(leader), *workers) for word in process.cmdline()]
        time.sleep(0.05)


def test_the_server_counts_every_token_of_every_request(done: tuple[Launching, dict[str, Any]]) -> None:
    launch, _ = done
    record, rows = launch.record(), read_sequences(sequences_path(launch.out), launch.record())
    assert len(rows) == 16 * len(record.iterations)
    assert {row.output_tokens for row in rows} == {16}
    assert {row.prompt_tokens for row in rows} == {130}
    assert {(row.status, row.finish_reason, row.error) for row in rows} == {(200, None, None)}
    for it in record.iterations:
        assert it.server is not None
        assert it.server.output_tokens == it.output_tokens == 256
        assert it.client is not None
        assert it.client.cpu_share > 0
        assert it.client.loop_delay_median_s is None
    assert {flag.code for flag in own_flags(record)} == {"prompts_as_text"}


def test_each_row_says_when_its_request_was_sent_and_its_first_and_last_token_came(
    done: tuple[Launching, dict[str, Any]],
) -> None:
    launch, _ = done
    at_a_rate = {it.index for it in launch.record().iterations if it.point is not None and it.point.concurrency is None}
    for row in read_sequences(sequences_path(launch.out), launch.record()):
        assert row.sent_s is not None
        assert row.first_token_s is not None
        assert row.last_token_s is not None
        assert row.gaps_us is None
        assert 0 <= row.sent_s < row.first_token_s < row.last_token_s
        assert (row.due_s is not None) == (row.iteration in at_a_rate)


def test_no_process_is_left(done: tuple[Launching, dict[str, Any]]) -> None:
    assert done[0].survivors() == []


def test_the_key_stands_on_no_command_line_and_in_no_file(done: tuple[Launching, dict[str, Any]]) -> None:
    launch, seen = done
    assert len(seen["key"]) > 20
    assert not any(seen["key"] in line for line in seen["lines"])
    for path in launch.folder.rglob("*"):
        if path.is_file():
            assert seen["key"].encode() not in path.read_bytes(), path
    assert seen["key"] not in launch.said
