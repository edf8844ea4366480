"""One launch of a server under load, on the real engine: what it measures, and what becomes of key and processes."""

from typing import Any

import httpx
import psutil
import pytest
from launching import Launching, online_spec, own_flags

from rollout_bench.contracts.load import Turns
from rollout_bench.contracts.record import CacheFacts, Record, SequenceRow
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import read_record, sequences_path

pytestmark = pytest.mark.engine

PATHS = ("/health", "/metrics", "/v1/models", "/collective_rpc", "/reset_prefix_cache", "/docs", "/openapi.json", "/no")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Launching, dict[str, Any]]:
    """Return a launch over four points, and what could be seen while its server ran."""
    points = [
        {"concurrency": 2, "request_rate": "inf"},
        {"concurrency": None, "request_rate": 40.0},
        {"concurrency": 3, "request_rate": "inf", "duration_s": 1.0},
        {"concurrency": None, "request_rate": 8.0, "duration_s": 1.0, "stage": 2},
    ]
    promised = {"kv_cache_dtype": "bfloat16"}
    in_core = {"multiprocess": False}
    spec = online_spec({"points": points}, workload={"prompts": 8}, quant=promised, engine=in_core)
    talk = {"turns": Turns(count=3, tool_ms=50, tool_tokens=20), "prompts": 3, "prompt_tokens": 120}
    talking = {"load": online_spec({"points": [{"concurrency": 2}]}).load}
    folder = tmp_path_factory.mktemp("online")
    launch = Launching(folder, spec, is_second=True, first=talk, first_own=talking, plainly=True)
    launch.wait_for(f"{spec.workload.name} .*iteration 1/")
    server = launch.child("api_server")
    lines = [line for process in launch.started for line in process.cmdline()]
    key = server.environ()["VLLM_API_KEY"]
    listens = {c.laddr for c in server.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    at = f"http://127.0.0.1:{next(iter(listens)).port}"
    without_key = {path: httpx.get(at + path).status_code for path in PATHS}
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return launch, {"lines": lines, "key": key, "listens": listens, "without_key": without_key}


@pytest.fixture(scope="module")
def record(done: tuple[Launching, dict[str, Any]]) -> Record:
    return done[0].record()


@pytest.fixture(scope="module")
def rows(done: tuple[Launching, dict[str, Any]], record: Record) -> list[SequenceRow]:
    return read_sequences(sequences_path(done[0].out), record)


def test_every_token_of_every_request_is_counted(record: Record, rows: list[SequenceRow]) -> None:
    counts = {(row.output_tokens, row.prompt_tokens, row.status, row.finish_reason) for row in rows if row.complete}
    assert counts == {(16, 130, 200, "length")}
    passes = [it for it in record.iterations if it.incomplete is None]
    assert {(it.requests, it.failed, it.output_tokens, it.prompt_tokens) for it in passes} == {(16, 0, 256, 16 * 130)}
    # a fast machine answers all 16 within the second for which a load lasts, and begins again
    assert {flag.code for flag in own_flags(record)} <= {"cut_at_end", "prompts_repeated"}


def test_a_timed_load_counts_its_tokens_up_to_its_end(record: Record, rows: list[SequenceRow]) -> None:
    for_a_time = [it for it in record.iterations if it.incomplete is not None]
    assert len(for_a_time) == 6
    for it in for_a_time:
        own = [row for row in rows if row.iteration == it.index]
        assert it.elapsed_s >= 1.0
        assert (it.requests, it.failed) == (len(own), 0)
        assert it.sequences == sum(row.complete for row in own) == it.requests - (it.incomplete or 0)
        assert it.output_tokens == sum(row.output_tokens for row in own)
        assert all(row.cut_s == pytest.approx(it.elapsed_s, abs=1e-4) for row in own if not row.complete)
        assert it.point.concurrency is None or it.incomplete <= 3  # type: ignore[operator]
        assert it.point.concurrency is not None or it.requests == 8
        assert len({(row.prompt, row.sample) for row in own}) == len(own)


def test_each_row_has_the_times_of_request_and_tokens(rows: list[SequenceRow]) -> None:
    for row in (row for row in rows if row.complete):
        assert row.gaps_us is not None
        # pieces that are read at once have one time: on a busy machine all of an answer may be
        assert 0 <= row.sent_s < row.first_token_s <= row.last_token_s
        assert len(row.gaps_us) + 1 == len(row.gap_tokens or [1] * 16)
        assert sum(row.gaps_us) / 1e6 == pytest.approx(row.last_token_s - row.first_token_s, abs=1e-4)


def test_the_points_of_a_sweep_share_one_server(record: Record, rows: list[SequenceRow]) -> None:
    labels = [it.point.label for it in record.iterations if it.point is not None and not it.warmup]
    lasting = ["3 at once"] * 2 + ["stage 2: 8 req/s for 1 s"] * 2
    assert labels == ["2 at once"] * 2 + ["40 req/s"] * 2 + lasting
    assert all(row.due_s <= row.sent_s for row in rows)
    for it in (it for it in record.iterations if it.point.concurrency == 2):
        spans = [(row.sent_s, row.last_token_s) for row in rows if row.iteration == it.index]
        assert all(sum(a <= start < b for a, b in spans) <= 2 for start, _ in spans)


def test_one_server_serves_two_workloads(done: tuple[Launching, dict[str, Any]], record: Record) -> None:
    assert len(record.after or ()) == 1
    assert done[0].log_text().count("An earlier launch started the engine") == 1


def test_a_turn_of_a_conversation_repeats_the_engine_s_own_answer(done: tuple[Launching, dict[str, Any]]) -> None:
    path = done[0].first_out
    record = read_record(path)
    rows = read_sequences(sequences_path(path), record)
    assert not own_flags(record)
    # a block of the cache has 128 tokens, 120 of the first prompt and 8 of its answer: another answer would find none
    turns = {(row.turn, row.prompt_tokens, row.output_tokens, row.cached_prompt_tokens) for row in rows}
    assert turns == {(1, 120, 16, 0), (2, 156, 16, 128), (3, 192, 16, 128)}
    assert {it.requests for it in record.iterations} == {3 * 2 * 3}
    assert {it.cached_prompt_tokens for it in record.iterations} == {2 * 128 * 3 * 2}


def test_the_server_s_own_counts_agree_with_the_client_s(record: Record) -> None:
    for it in record.iterations:
        assert 0 < it.client.cpu_share < 1
        if it.incomplete is not None:  # what is cut the server counts as it likes, and may have generated more
            continue
        assert it.server.requests == it.requests == 16
        assert (it.server.output_tokens, it.server.prompt_tokens) == (it.output_tokens, it.prompt_tokens)
        assert 0 < (it.server.ttft_mean_s or 0) < (it.server.e2el_mean_s or 0)


def test_the_quantization_is_proven_from_the_weights_behind_the_server(record: Record) -> None:
    engine = record.engine
    assert (set(engine.weights_bytes_by_dtype.linear), engine.served.version) == ({"bfloat16"}, "0.32.0")
    assert engine.kv_cache_tokens
    assert engine.kv_cache == CacheFacts(layers={"bfloat16": 2}, bytes_per_token=512)


def test_no_command_line_and_no_file_has_the_key(done: tuple[Launching, dict[str, Any]]) -> None:
    launch, seen = done
    assert len(seen["key"]) > 20
    assert seen["key"] not in "".join([launch.said, *seen["lines"]])
    files = [path for path in launch.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if seen["key"].encode() in path.read_bytes()]


def test_without_the_key_every_path_is_refused(done: tuple[Launching, dict[str, Any]]) -> None:
    assert done[1]["without_key"] == dict.fromkeys(PATHS, 401)


def test_the_server_listens_locally_and_ends_with_its_launch(done: tuple[Launching, dict[str, Any]]) -> None:
    launch, seen = done
    assert {address.ip for address in seen["listens"]} == {"127.0.0.1"}
    assert launch.survivors(0) == []
