"""One launch whose requests guidellm sends, on the real engine: the same record as with vLLM's own generator."""

from __future__ import annotations

from typing import Any

import pytest
from launching import Launching, online_spec, own_flags

from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import sequences_path

pytestmark = [pytest.mark.engine, pytest.mark.untimed]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Launching, dict[str, Any]]:
    """A launch over two points, and what could be seen while its server ran."""
    load = {
        "points": [{"concurrency": 2, "request_rate": "inf"}, {"concurrency": None, "request_rate": 40.0}],
        "burstiness": 0.5,
        "harness": "guidellm",
        "harness_version": "0.8.1",
    }
    launch = Launching(tmp_path_factory.mktemp("guidellm"), online_spec(load, workload={"prompts": 8}))
    launch.wait_for("iteration 1/")
    key = launch.child("api_server").environ()["VLLM_API_KEY"]
    lines = [line for process in launch.started if process.is_running() for line in process.cmdline()]
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return launch, {"key": key, "lines": lines}


def test_every_token_of_every_request_is_counted(done: tuple[Launching, dict[str, Any]]) -> None:
    launch, _ = done
    record, rows = launch.record(), read_sequences(sequences_path(launch.out), launch.record())
    assert len(rows) == 16 * len(record.iterations)
    assert {row.output_tokens for row in rows} == {16}
    assert {row.prompt_tokens for row in rows} == {130}
    assert {(row.status, row.finish_reason, row.error) for row in rows} == {(200, "length", None)}
    for it in record.iterations:
        assert it.server is not None
        assert it.server.output_tokens == it.output_tokens == 256
        assert it.client is not None
        assert it.client.cpu_share > 0
        assert it.client.loop_delay_median_s is None
    assert own_flags(record) == []


def test_each_row_says_when_its_request_was_sent_and_each_token_came(done: tuple[Launching, dict[str, Any]]) -> None:
    launch, _ = done
    at_a_rate = {it.index for it in launch.record().iterations if it.point is not None and it.point.concurrency is None}
    for row in read_sequences(sequences_path(launch.out), launch.record()):
        assert row.sent_s is not None
        assert row.first_token_s is not None
        assert row.last_token_s is not None
        assert row.gaps_us is not None
        assert 0 <= row.sent_s < row.first_token_s < row.last_token_s
        assert len(row.gaps_us) + 1 == len(row.gap_tokens or [1] * 16)
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
