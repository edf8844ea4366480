"""Servers that somebody else started: stubs with known faults; nothing of theirs is ever touched."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from launching import Launching, online_spec
from stub_server import KINDS, running_stub

from rollout_bench.checkpoints.tokenizer import write_tokenizer
from rollout_bench.contracts.record import Record, SequenceRow
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import sequences_path

pytestmark = pytest.mark.engine

KEY = "sk-never-to-be-seen-0815"


def at(url: str, iterations: int = 2, **changes: Any) -> Any:
    """Return a spec for a server at `url`, with requests that take a moment."""
    return online_spec(
        {"points": [{"concurrency": 4}]},
        {"url": f"{url}/v1", **changes},
        workload={"prompt_tokens": 16, "output_tokens": 8},
        measuring={"warmup_iterations": 1, "iterations": iterations},
    )


MANY = 1000
"""Iterations: so many that what is to hit the launch while it measures can't be late."""


@pytest.fixture
def stub() -> Iterator[Any]:
    """Start stubs."""
    with ExitStack() as running:
        yield lambda **options: running.enter_context(running_stub(**options))


def measured(folder: Path, spec: Any) -> tuple[Launching, Record, list[SequenceRow]]:
    """Return a launch that ended well, its record and its rows."""
    launch = Launching(folder / "run", spec)
    assert launch.finish() == 0, launch.said + launch.log_text()[-2000:]
    return launch, launch.record(), read_sequences(sequences_path(launch.out), launch.record())


def test_a_stub_is_measured_and_its_hidden_properties_are_unknown(tmp_path: Path, stub: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("STUB_KEY", KEY)
    monkeypatch.setenv("TEAM", "blue-secret-team")
    url = stub(api_key=KEY, max_model_len=4096, vocabulary=2048).url
    spec = at(url, api_key_env="STUB_KEY", headers={"X-Team": "${TEAM}"})
    launch, record, rows = measured(tmp_path, spec)
    assert record.engine.weights_bytes_by_dtype is None
    assert (record.environment.torch_version, record.environment.device_model) == ("unknown", "unknown")
    assert (record.engine.served.model, record.engine.served.max_model_len) == ("stub", 4096)
    assert record.engine.served.counts_tokens
    assert {row.output_tokens for row in rows} == {8}
    assert_unseen(KEY, launch)
    assert_unseen("blue-secret-team", launch)


def test_timed_chats_get_own_prompts_even_of_a_small_workload(tmp_path: Path, stub: Any) -> None:
    (tmp_path / "tokenizer").mkdir()
    write_tokenizer(tmp_path / "tokenizer", 2048, 2048)
    spec = online_spec(
        {"points": [{"concurrency": 2, "duration_s": 2.0}], "api": "chat", "token_ids": False},
        {"url": f"{stub().url}/v1", "tokenizer": str(tmp_path / "tokenizer")},
        workload={"prompt_tokens": 16, "output_tokens": 2, "prompts": 2, "samples_per_prompt": 1},
        measuring={"warmup_iterations": 1, "iterations": 1},
    )
    _, record, rows = measured(tmp_path, spec)
    assert {row.output_tokens for row in rows if row.complete} == {2}
    assert "prompts_as_text" in {flag.code for flag in record.validity}
    prompts = [{row.prompt for row in rows if row.iteration == index} for index in (0, 1)]
    assert prompts[0] == {0, 1}
    assert len(prompts[1]) > 2


@pytest.mark.parametrize(
    ("options", "changes", "variable", "category"),
    [
        ({"api_key": KEY}, {"api_key_env": "STUB_KEY"}, "sk-another-one", "wrong_key"),
        ({"api_key": KEY}, {}, KEY, "wrong_key"),
        ({}, {"api_key_env": "NOBODY_SET_THIS"}, KEY, "wrong_key"),
        ({"model": "stub"}, {"model": "stab"}, KEY, "wrong_model"),
        ({"status": 500, "status_share": 1}, {}, KEY, "request_refused"),
        (None, {}, KEY, "refused"),
    ],
    ids=["another_key", "no_key", "variable_not_set", "model", "500", "nobody_there"],
)
def test_an_unmeasurable_server_is_reported_at_the_start(
    tmp_path: Path,
    stub: Any,
    monkeypatch: Any,
    options: dict[str, Any] | None,
    changes: Any,
    variable: str,
    category: str,
) -> None:
    server = stub(**options or {})
    if options is None:
        server.process.kill()
    monkeypatch.setenv("STUB_KEY", variable)
    launch = Launching(tmp_path / "run", at(server.url, **changes))
    assert launch.finish() == 1
    failure = launch.failure()
    assert failure.category == category
    assert "importing" not in launch.said  # not after seconds of importing
    assert len(launch.errors()) == 2
    assert variable not in launch.said + launch.log_text() + failure.cause


def test_failed_requests_are_counted_and_never_fast_ones(tmp_path: Path, stub: Any) -> None:
    _, record, rows = measured(tmp_path, at(stub(status=429, status_share=0.4).url))
    (flag,) = (flag for flag in record.validity if flag.code == "requests_failed")
    assert flag.severity == "invalid"
    assert "429" in flag.sentence
    for iteration in record.iterations:
        own = [row for row in rows if row.iteration == iteration.index]
        assert iteration.failed == sum(row.failed for row in own) > 0
        assert iteration.output_tokens == sum(row.output_tokens for row in own if not row.failed)
        assert iteration.sequences + iteration.failed == iteration.requests == len(own)


@pytest.mark.parametrize(
    ("options", "kill", "categories"),
    [
        ({"stall_after": 3, "stall_share": 0.3}, None, {"timeout"}),
        ({"itl_ms": 100}, signal.SIGSTOP, {"timeout"}),
        ({"itl_ms": 100}, signal.SIGKILL, {"all_requests_failed", "refused", "unreachable"}),
    ],
    ids=["stalls", "freezes", "goes away"],
)
def test_a_server_that_stops_answering_fails_the_launch_in_time(
    tmp_path: Path, stub: Any, options: dict[str, Any], kill: signal.Signals | None, categories: set[str]
) -> None:
    server = stub(**options)
    launch = Launching(tmp_path, at(server.url, MANY), ["--timeout-s", "20"])
    launch.wait_for("warmup" if kill is None else "iteration 1/")  # it is in the middle of the next pass
    if kill is not None:
        server.process.send_signal(kill)
    assert (launch.finish(), launch.survivors()) == (1, [])
    failure = launch.failure()
    assert failure.category in categories
    assert failure.cause.startswith("the server answered at first") == (kill == signal.SIGKILL)
    assert ("still answers" in failure.fix) == (kill != signal.SIGKILL)
    assert launch.left_behind() == [f"failures/online/{launch.spec.experiment()}/launch-0.json"]


def test_the_loads_before_a_server_went_away_stand_and_the_others_are_flagged(tmp_path: Path, stub: Any) -> None:
    server = stub(itl_ms=10)
    points = [{"request_rate": 16.0, "requests": 8}, {"request_rate": 20.0}, {"request_rate": 24.0, "requests": 8}]
    spec = online_spec(
        {"points": points},
        {"url": f"{server.url}/v1"},
        workload={"prompt_tokens": 16, "output_tokens": 4, "prompts": 40, "samples_per_prompt": 1},
        measuring={"warmup_iterations": 0, "iterations": 1},
    )
    launch = Launching(tmp_path / "run", spec)
    launch.wait_for("measuring")
    while server.truth()["asked"] < 8 + 10:
        time.sleep(0.1)
    server.process.kill()
    assert launch.finish() == 0, launch.said + launch.log_text()[-2000:]
    record = launch.record()
    flags = [(flag.load, flag.code) for flag in record.validity if flag.severity == "invalid"]
    assert flags == [("20 req/s", "server_gone"), ("24 req/s", "server_gone")]
    assert [iteration.sequences for iteration in record.iterations][::2] == [8, 0]
    assert record.iterations[-1].requests == 1, "no whole load is sent to where nothing listens"


@pytest.mark.parametrize(
    ("options", "codes"),
    [({"text_only": True}, {"prompts_as_text"}), ({"strict": True}, {"plain_sampling", "tokens_claimed"})],
    ids=["text_only", "strict"],
)
def test_what_a_server_refuses_is_left_out_and_flagged(
    tmp_path: Path, stub: Any, options: dict[str, bool], codes: set[str]
) -> None:
    _, record, _ = measured(tmp_path, at(stub(**options).url))
    assert codes <= {flag.code for flag in record.validity}
    assert record.engine.served.token_ids == ("text_only" not in options)


def test_a_server_turning_hostile_fails_requests_and_extracts_no_key(
    tmp_path: Path, stub: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("STUB_KEY", KEY)
    another = stub()
    half = [answered for kind in KINDS for answered in (kind, None)]  # never a pass whose every request fails
    server = stub(kinds=half, after=14, elsewhere=another.url)
    spec = at(server.url, 6, api_key_env="STUB_KEY", headers={"X-Api-Key": "${STUB_KEY}"})
    launch, record, rows = measured(tmp_path, spec)
    assert {flag.severity for flag in record.validity if flag.code == "requests_failed"} == {"invalid"}
    errors = [row.error for row in rows if row.failed]
    assert len(set(errors)) >= len(KINDS) - 4  # one is only odd, some end alike
    assert sum(iteration.failed or 0 for iteration in record.iterations) == len(errors)
    assert_unseen(KEY, launch)
    assert another.truth()["asked"] == 0, "nobody is to follow a redirect"


def assert_unseen(secret: str, launch: Launching) -> None:
    """Assert that a secret is neither in what a launch said nor in what it left."""
    assert secret not in launch.said
    for path in launch.folder.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
