"""Whatever a server says, a request ends in time and with one short line; ours answers nobody without its key."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from launching import online_spec
from stub_server import DEEP, FIRST_KIND, GZIP, KINDS, OK, Stub, running_stub

from rollout_bench.contracts.load import EndpointSpec
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.server import server as own
from rollout_bench.measure.server import server_metrics
from rollout_bench.measure.server.guard import KEY_VARIABLE, KeyForAll
from rollout_bench.measure.server.paced import prepared_requests
from rollout_bench.measure.server.served import rows_of
from rollout_bench.measure.server.session import (
    Connection,
    check_answer,
    connection_errors,
    headers_of,
    identity,
    start_server,
    took_token_ids,
    vocabulary_of,
)
from rollout_bench.measure.server.stream import Answer, LoadPass, Question, RequestOutcome, Target, open_session, send
from rollout_bench.workloads.requests import Request


def event(ids: list[int] | None, finish: str | None = None, text: str = "", **more: Any) -> str:
    choice = {"index": 0, "text": text, "finish_reason": finish, "token_ids": ids, **more}
    return f"data: {json.dumps({'choices': [choice]})}"


def read(*lines: str) -> RequestOutcome:
    outcome = RequestOutcome()
    answer = Answer(Question(b"x" * 100, 100), outcome)
    for number, line in enumerate(lines):
        answer.take(line.encode(), float(number))
    answer.end()
    return outcome


@given(st.lists(st.lists(st.integers(0, 200_000), min_size=1, max_size=5), min_size=1, max_size=8))
def test_tokens_are_counted_from_their_ids_piece_by_piece(pieces: list[list[int]]):
    events = [event(ids, "length" if number == len(pieces) - 1 else None) for number, ids in enumerate(pieces)]
    outcome = read(*events, "data: [DONE]")
    assert outcome.error is None
    assert (outcome.piece_tokens, outcome.output_tokens) == ([*map(len, pieces)], sum(map(len, pieces)))
    assert outcome.pieces_s == [float(number) for number in range(len(pieces))]


LAST = 'data: {"choices": [{"index": 0, "text": "", "finish_reason": "length"}], "usage": {"completion_tokens": 7}}'


@pytest.mark.parametrize(
    ("lines", "counted", "pieces", "tokens"),
    [
        ([event(None, text='"token_ids": [1, 2, 3]'), event(None, "stop", text="")], False, 1, 1),
        ([event(None, text="a"), event(None, text="b"), LAST], False, 2, 7),
        *(
            ([event([1, 2], "length"), f'data: {{"choices": [], "error": null, "usage": {usage}}}'], True, 1, 2)
            for usage in ("null", '"none"', "[]", "3")
        ),
    ],
    ids=["text like ids", "count in an empty last choice", *("no usage",) * 4],
)
def test_tokens_are_those_of_ids_or_of_the_servers_count(lines: list[str], counted: bool, pieces: int, tokens: int):
    outcome = read(*lines)
    assert outcome.error is None
    assert (outcome.counted, len(outcome.pieces_s), outcome.output_tokens) == (counted, pieces, tokens)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("answer", [["4", "2"], []], ids=["answered", "cut in the thoughts"])
def test_thoughts_of_a_chat_are_pieces_of_its_answer(name: str, answer: list[str]):
    deltas = [
        {"role": "assistant", "content": ""},
        *({name: "hm"} for _ in range(3)),
        *({"content": a} for a in answer),
    ]
    events = [f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta}]})}" for delta in deltas]
    outcome = read(*events, LAST)
    assert outcome.error is None
    assert outcome.pieces_s == [float(number) for number in range(1, len(deltas))]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([event([1])], "broke off"),
        ([event([], "length"), "data: [DONE]"], "no tokens"),
        ([event([1]), event([2], "abort")], "finish_reason abort"),
        ([event([1]), 'data: {"error": {"message": "engine died", "code": 500}}'], "engine died"),
        ([event([1, 2], "stop"), 'data: {"choices": [], "usage": {"completion_tokens": 3}}'], "the server says 3"),
        ([event(None, text="a") for _ in range(101)] + [event(None, "stop")], "101 tokens came where 100 were"),
        ([event([1], "stop", prompt_token_ids=[1] * 101)], "101 prompt tokens came back of a request of 100 bytes"),
    ],
    ids=["cut", "empty", "abort", "error", "counts_differ", "too_many", "prompt"],
)
def test_an_answer_that_is_none_is_a_failure(lines: list[str], words: str):
    assert words in (read(*lines).error or "")


def test_a_key_that_a_server_quotes_is_struck_out():
    target = Target("http://x/v1", "m", {"Authorization": "Bearer sk-secret-1234"}, True, {})
    assert target.quoted("401: key sk-secret-1234 is wrong") == "401: key *** is wrong"
    assert "sk-secret" not in repr(target)


KEY, API_KEY = "sk-never/to-be-seen-0815", "x-api-key-never-to-be-seen"
TOKENS = 8
MOST_BYTES = 20 << 20
"""More than a server gets rid of before a client has left, with what kernels hold for it."""

ERRORS = {
    "redirect": "307 Moved: it redirects to 127.0.0.1, and redirects are not followed",
    "redirect_get": "302 Moved: it redirects to 127.0.0.1, and redirects are not followed",
    "deep_json": "the answer had no tokens in it",
    "deep_error": '500 No: {"error":[{"a":',
    "negative_usage": "the server says completion_tokens: -7, where 0 to 8 can be",
    "claims_many": "the server says completion_tokens: 1000000000000, where 0 to 8 can be",
    "many_tokens": "9 tokens came where 8 were asked for at most",
    "endless_stream": "the answer is longer than",
    "endless_line": "the answer is longer than",
    "endless_error": "500 No: error error",
    "gzip_error": "500 No",
    "gzip_answer": "the answer is compressed (gzip), though that was not asked for",
    "long_head": "",
    "escapes": "500 No: \\x1b[31mred\\x1b]0;title\\x07 \\u202etxt.exe\\x9b2J",
    "echo": "429 No: xxx",
    "forged": None,
    "nested_ids": "the answer had no tokens in it",
}
"""By the kind of server, how the error of its request begins; None where there is none."""


def target(url: str) -> Target:
    headers = {"Authorization": f"Bearer {KEY}", "X-Api-Key": API_KEY}
    return Target(f"{url}/v1", "stub", headers, True, {"return_token_ids": True})


def sent_by_us(to: Target, asked: list[Question]) -> list[RequestOutcome]:
    """Return what becomes of `asked`, sent one after the other as we do."""
    outcomes = [RequestOutcome() for _ in asked]

    async def run() -> None:
        async with open_session(True) as session:
            for question, outcome in zip(asked, outcomes, strict=True):
                await send(session, f"{to.url}/completions", to.headers, question, outcome)
                to.settle(outcome)

    asyncio.run(run())
    return outcomes


def requests(kinds: list[str | None]) -> list[Request]:
    """Return requests that are answered by these kinds."""
    numbers = [1 if kind is None else FIRST_KIND + list(KINDS).index(kind) for kind in kinds]
    return [Request(i, 0, [number, i, 5], TOKENS) for i, number in enumerate(numbers)]


def check(kind: str, outcome: RequestOutcome) -> None:
    """Assert that `outcome` is what becomes of a request that is answered by `kind`."""
    begins = ERRORS[kind]
    assert (outcome.error is None) == (begins is None), outcome.error
    assert (outcome.error or "").startswith(begins or ""), outcome.error
    if outcome.error is not None:
        assert len(outcome.error) <= 300
        assert outcome.error.isprintable()
        assert not any(part in outcome.error for part in (KEY[:6], API_KEY[:6], "secret=path"))
    assert 0 <= outcome.output_tokens <= TOKENS + 1
    assert outcome.ended_s is not None


@pytest.fixture(scope="module")
def another() -> Iterator[Stub]:
    with running_stub() as stub:
        yield stub


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_hostile_answer_fails_soon_and_the_next_request_succeeds(kind: str, server: Stub, another: Stub):
    server.become(itl_ms=1, elsewhere=another.url)
    to = target(server.url)
    asked = requests([kind, None])
    began_s = time.monotonic()
    bad, good = sent_by_us(to, prepared_requests(asked, [request.prompt_token_ids for request in asked], to))
    assert time.monotonic() - began_s < 50  # a server goes on for 60
    check(kind, bad)
    assert server.truth()["sent_bytes"] < MOST_BYTES
    assert (good.error, good.output_tokens) == (None, TOKENS)
    assert another.truth()["asked"] == 0
    rows_of(asked, LoadPass(began_s, 1.0, [bad, good], None, []), 0)  # type: ignore[arg-type]


MIXED = "sk-Never/to-be-seen-0815"
HEAD = f"{OK}\r\n"
Answering = Callable[..., Connection]


@pytest.fixture
def answering(server: Stub) -> Answering:
    """Return what gives a connection to a server that sends these texts to all, the second one until it is left."""

    def connection(first: str, again: str = "", pause_s: float = 0) -> Connection:
        server.become(kinds=[[first, again, str(pause_s)]])
        return Connection(Target(f"{server.url}/v1", "stub", {"Authorization": f"Bearer {MIXED}"}, True, {}))

    return connection


@pytest.mark.parametrize(
    ("first", "again", "pause_s", "limit", "error", "words"),
    [
        (HEAD, "x", 0.1, {"answer_s": 0.4}, TimeoutError, None),
        ("HTTP/1.1 200 OK\r\nX-", "x", 0.1, {"answer_s": 0.4}, TimeoutError, None),
        ("HTTP/1.1 100 Continue\r\n\r\n" * 3, "HTTP/1.1 100 C\r\n\r\n", 0.1, {"answer_s": 0.4}, TimeoutError, None),
        (HEAD, "x" * (1 << 20), 0, {}, ConnectionError, "longer than"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\nabc",
            "",
            0,
            {},
            ConnectionError,
            "middle of an answer",
        ),
        ("HTTP/1.1 200 OK\r\nX-Long: ", "x" * (1 << 20), 0, {}, ConnectionError, "Got more than 8190 bytes"),
        (OK + GZIP, "", 0, {}, ConnectionError, "compressed"),
    ],
    ids=["drips_body", "drips_head", "drips_heads", "endless", "length_is_a_lie", "long_header", "compressed"],
)
def test_an_answer_has_limits_of_time_and_memory(
    answering: Answering,
    first: str,
    again: str,
    pause_s: float,
    limit: dict[str, float],
    error: type[Exception],
    words: str | None,
):
    connection = answering(first, again, pause_s)
    began_s = time.monotonic()
    with pytest.raises(error, match=words):
        connection.ask("GET", "/version", **limit)
    assert time.monotonic() - began_s < 60


def test_of_an_error_without_end_the_beginning_is_read(answering: Answering):
    status, text = answering("HTTP/1.1 500 No\r\n\r\n", "no " * 1000).ask("GET", "/version")
    assert (status, len(text)) == (500, 64 << 10)


@pytest.mark.parametrize("path", ["/metrics", "/version"])
def test_a_redirect_is_not_followed_and_its_host_is_named(path: str, server: Stub, another: Stub):
    server.become(kinds=["redirect"], elsewhere=another.url)
    target = Target(f"{server.url}/v1", "stub", {"X-Api-Key": MIXED}, True, {})
    status, text = Connection(target).ask("GET", path)
    assert (status, text) == (307, "it redirects to 127.0.0.1, and redirects are not followed")
    assert Connection(target).metrics() == ""
    with pytest.raises(MeasuringFailed) as raised:
        check_answer(*Connection(target).complete([1]), target)
    assert raised.value.problem == f"the server answers 307: {text}"
    assert "set url to its address" in raised.value.remedy
    assert another.truth()["asked"] == 0


@pytest.mark.parametrize(
    "content", ["5", "[]", '{"data": 5}', '{"data": [5, {"id": 5}, {}]}', '{"version": [1]}', DEEP], ids=range(6)
)
def test_an_answer_of_another_shape_says_nothing(answering: Answering, content: str):
    served = identity(answering(HEAD + content), True)
    assert (served.model, served.version, served.max_model_len) == ("stub", None, None)
    assert not took_token_ids(content)


def test_a_servers_self_description_is_made_safe_to_keep(answering: Answering):
    model = {"id": "stub", "owned_by": f"\x1b[2J{MIXED}", "max_model_len": -1}
    served = identity(answering(HEAD + json.dumps({"data": [model], "version": "1\u202e" * 999})), True)
    assert (served.owned_by, served.max_model_len, len(served.version)) == ("\\x1b[2J***", None, 100)
    assert served.version.startswith("1\\u202e1")


@pytest.mark.parametrize("pad", range(180, 205, 3))
def test_a_key_is_struck_out_before_an_error_is_cut(pad: int):
    message = json.dumps({"error": "x" * pad + f" {MIXED} {MIXED.lower()}"}).replace("/", "\\/")
    target = Target("http://x/v1", "stub", {"Authorization": f"Bearer {MIXED}"}, True, {})
    with pytest.raises(MeasuringFailed) as raised:
        check_answer(500, message, target)
    assert "sk-" not in raised.value.problem.lower()


@pytest.mark.parametrize(
    ("sent", "remedy"), [({}, "api_key_env: SERVER_KEY"), ({"Authorization": "Bearer x"}, "it was sent")]
)
def test_a_key_that_was_sent_is_not_asked_for_again(sent: dict[str, str], remedy: str):
    with pytest.raises(MeasuringFailed) as raised:
        check_answer(401, "no", Target("http://x/v1", "stub", sent, True, {}))
    assert remedy in raised.value.remedy


def test_a_key_after_bearer_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SERVER_KEY", "Bearer sk-x")
    with pytest.raises(MeasuringFailed, match="SERVER_KEY has Bearer before the key") as raised:
        headers_of(EndpointSpec(url="http://x/v1", model="m", api_key_env="SERVER_KEY"))
    assert "sk-x" not in str(raised.value)


def test_an_error_of_the_protocol_does_not_quote_the_key(answering: Answering):
    connection = answering(f"no HTTP {MIXED} \x1b[31m\r\n\r\n")
    with pytest.raises(MeasuringFailed) as raised, connection_errors("http://x/v1"):
        connection.ask("GET", "/version")
    assert "no HTTP *** " in raised.value.problem
    assert raised.value.problem.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "vllm:num_requests_running{ 3\n",
        'vllm:num_requests_running{a="b" 3\n',
        "vllm:num_requests_running -3\nvllm:generation_tokens_total NaN\nvllm:num_preemptions_total 1e300\n",
        "vllm:e2e_request_latency_seconds_count 3\n",
    ],
    ids=["cut", "quote", "numbers", "no_sum"],
)
def test_metrics_that_can_t_be_are_none(text: str):
    assert (server_metrics.increase("", text).e2el_mean_s, server_metrics.cache_labels(text)) == (None, {})


OWN_KEY = "the-key-of-a-launch"


def asked(headers: list[tuple[bytes, bytes]], path: str, kind: str = "http") -> tuple[list[dict[str, Any]], list[str]]:
    """Return what is sent for a request, and the paths that came through to the server."""
    sent: list[dict[str, Any]] = []
    through: list[str] = []

    async def server(scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        through.append(scope["path"])

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(KeyForAll(server)({"type": kind, "path": path, "headers": headers}, None, send))
    return sent, through


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the key of the server."""
    monkeypatch.setenv(KEY_VARIABLE, OWN_KEY)


@pytest.mark.parametrize("path", ["/health", "/metrics", "/collective_rpc", "/docs", "/v1/models", "//health", "/%2e"])
@pytest.mark.parametrize(
    "given", [None, b"", b"Bearer", b"Bearer another", OWN_KEY.encode(), b"bearer " + OWN_KEY.encode()], ids=str
)
def test_without_the_key_every_path_is_refused(path: str, given: bytes | None):
    sent, through = asked([] if given is None else [(b"authorization", given)], path)
    assert (sent[0]["status"], through) == (401, [])
    sent, through = asked([] if given is None else [(b"authorization", given)], path, "websocket")
    assert ([message["type"] for message in sent], through) == (["websocket.close"], [])


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_with_the_key_a_request_passes(kind: str):
    assert asked([(b"authorization", f"Bearer {OWN_KEY}".encode())], "/health", kind) == ([], ["/health"])


def out_of(vocabulary: int, status: int = 400) -> dict[str, Any]:
    return {"vocabulary": vocabulary, "vocabulary_status": status}


@pytest.mark.parametrize("options", [out_of(2048), out_of(2048, 200), out_of(79), out_of(32_000)])
def test_the_vocabulary_is_that_of_the_ids_a_server_answers(options: dict[str, Any], server: Stub):
    server.become(**options)
    assert vocabulary_of(Connection(target(server.url)), 32_000) == options["vocabulary"]


@pytest.mark.parametrize(
    ("options", "problem"), [(out_of(2048, 500), "answers 500: Token"), (out_of(70), "answers 400: Token")]
)
def test_no_vocabulary_is_made_of_refusals_for_another_reason(options: dict[str, Any], problem: str, server: Stub):
    server.become(**options)
    with pytest.raises(MeasuringFailed, match=problem):
        vocabulary_of(Connection(target(server.url)), 32_000)


HOLDING = """
import os, signal, socket, time
listening = socket.create_server(("127.0.0.1", 0))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
time.sleep(600)
"""
"""A server whose engine, a fork that hears no SIGTERM, holds the listening socket; neither answers."""


def test_a_killed_server_is_the_cause_though_its_engine_holds_the_socket(tmp_path: Path, monkeypatch: Any):
    (tmp_path / "holding.py").write_text(HOLDING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(own, "MODULE", "holding")
    monkeypatch.setattr(own, "ORPHANS_S", 0.2)
    family: list[psutil.Process] = []
    listens = own.Server.wait_for_port

    def listening(each: own.Server) -> int:
        port = listens(each)
        family.append(psutil.Process(each.pid))
        while len(family) == 1:
            family.extend(family[0].children())
        threading.Timer(0.3, family[0].kill).start()
        return port

    monkeypatch.setattr(own.Server, "wait_for_port", listening)
    try:
        with pytest.raises(MeasuringFailed, match="the server was ended by signal 9"):
            start_server(online_spec(), "model")
        assert psutil.wait_procs(family[1:], timeout=10)[1] == []
    finally:
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
