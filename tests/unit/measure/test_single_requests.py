"""What is asked of a server before, between and after passes ends in time, whatever it answers."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hostile_server import BOMB, DEEP, hostile_server

from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.server import server_metrics
from rollout_bench.measure.server.session import Connection, _took_token_ids, check_answer, identity, reaching
from rollout_bench.measure.server.stream import Target

KEY = "sk-Never/to-be-seen-0815"
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@contextmanager
def answering(first: bytes, again: bytes = b"", pause_s: float = 0.0) -> Iterator[Connection]:
    """Hold a connection to a server that sends these bytes to all, the second ones until it is left."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                try:
                    client.recv(1 << 16)
                    client.sendall(first)
                    while again:
                        client.sendall(again)
                        time.sleep(pause_s)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    yield Connection(Target(f"http://127.0.0.1:{port}/v1", "stub", {"Authorization": f"Bearer {KEY}"}, True, {}))
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.mark.parametrize(
    ("first", "again"),
    [(HEAD, b"x"), (b"HTTP/1.1 200 OK\r\nX-", b"x"), (b"HTTP/1.1 100 Continue\r\n\r\n" * 3, b"HTTP/1.1 100 C\r\n\r\n")],
    ids=["body", "head", "interim_heads"],
)
def test_a_dripping_answer_has_one_limit_for_all_of_it(first: bytes, again: bytes):
    with answering(first, again, 0.1) as connection:
        began_s = time.monotonic()
        with pytest.raises(TimeoutError):
            connection.ask("GET", "/version", answer_s=0.4)
        assert 0.3 < time.monotonic() - began_s < 60


@pytest.mark.parametrize(
    ("first", "again", "words"),
    [
        (HEAD, b"x" * (1 << 20), "longer than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\nabc", b"", "not completed"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * (1 << 20), "Got more than 8190 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + BOMB, b"", "compressed"),
    ],
    ids=["endless", "length_is_a_lie", "long_header", "compressed"],
)
def test_an_answer_that_takes_too_much_memory_is_refused(first: bytes, again: bytes, words: str):
    with answering(first, again) as connection, pytest.raises(ConnectionError, match=words):
        connection.ask("GET", "/version")


def test_of_an_error_without_end_the_beginning_is_read():
    with answering(b"HTTP/1.1 500 No\r\n\r\n", b"no " * 1000) as connection:
        status, text = connection.ask("GET", "/version")
        assert (status, len(text)) == (500, 64 << 10)


@pytest.mark.parametrize("path", ["/metrics", "/version"])
def test_a_redirect_is_not_followed_and_its_host_is_named(path: str):
    with hostile_server("redirect") as server, hostile_server() as elsewhere:
        server.elsewhere = elsewhere.url
        target = Target(f"{server.url}/v1", "stub", {"X-Api-Key": KEY}, True, {})
        status, text = Connection(target).ask("GET", path)
        assert (status, text) == (307, "it redirects to 127.0.0.1, and redirects are not followed")
        assert Connection(target).metrics() == ""
        with pytest.raises(MeasuringFailed) as raised:
            check_answer(*Connection(target).complete([1]), target)
        assert raised.value.cause == f"the server answers 307: {text}"
        assert "set url to its address" in raised.value.fix
        assert elsewhere.met == []


def test_answers_nested_without_end_are_no_answers():
    with answering(HEAD + DEEP) as connection:
        assert connection.json("GET", "/version") is None
        assert identity(connection, True).version is None
        assert not _took_token_ids(DEEP.decode())


@pytest.mark.parametrize("content", ["5", "[]", '{"data": 5}', '{"data": [5, {"id": 5}, {}]}', '{"version": [1]}'])
def test_an_answer_of_another_shape_says_nothing(content: str):
    with answering(HEAD + content.encode()) as connection:
        served = identity(connection, True)
        assert (served.model, served.version, served.max_model_len) == ("stub", None, None)


def test_a_servers_self_description_is_made_safe_to_keep():
    said = {"data": [{"id": "stub", "owned_by": f"\x1b[2J{KEY}", "max_model_len": -1}], "version": "1\u202e" * 999}
    with answering(HEAD + json.dumps(said).encode()) as connection:
        served = identity(connection, True)
    assert served.owned_by == "\\x1b[2J***"
    assert served.max_model_len is None
    assert served.version is not None
    assert len(served.version) == 100
    assert served.version.startswith("1\\u202e1")


@pytest.mark.parametrize("pad", range(180, 205, 3))
def test_a_key_is_struck_out_before_an_error_is_cut(pad: int):
    message = json.dumps({"error": "x" * pad + f" {KEY} {KEY.lower()}"}).replace("/", "\\/")
    target = Target("http://x/v1", "stub", {"Authorization": f"Bearer {KEY}"}, True, {})
    with pytest.raises(MeasuringFailed) as raised:
        check_answer(500, message, target)
    assert "sk-" not in raised.value.cause.lower()


def test_an_error_of_the_protocol_does_not_quote_the_key():
    no_http = f"no HTTP {KEY} \x1b[31m\r\n\r\n".encode()
    with answering(no_http) as connection, pytest.raises(MeasuringFailed) as raised, reaching("http://x/v1"):
        connection.ask("GET", "/version")
    assert "no HTTP *** " in raised.value.cause
    assert raised.value.cause.isprintable()


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
    assert server_metrics.risen("", text).e2el_mean_s is None
    assert server_metrics.cache_labels(text) == {}
