"""The stub says what vLLM would say, at the pace that it was told, and tells the truth about it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from stub_server import running_stub

Stub = Callable[..., httpx.Client]


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    """Start a stub with the given options, quick ones where nothing else is said; give a client of it."""
    with contextlib.ExitStack() as running:

        def start(*options: str, env: dict[str, str] | None = None) -> httpx.Client:
            url = running.enter_context(running_stub(tmp_path, "--ttft-ms", "5", "--itl-ms", "2", *options, env=env))
            return running.enter_context(httpx.Client(base_url=url, timeout=60))

        yield start


def complete(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v1/completions", json={"model": "stub", "prompt": [1, 2, 3], "max_tokens": 4, **body})


def stream(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    """Return the events of a stream, without the last, which must be [DONE]."""
    *events, done, nothing = complete(client, stream=True, **body).text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def truth(client: httpx.Client) -> list[dict[str, Any]]:
    return client.get("/truth").json()["requests"]


def ends(client: httpx.Client) -> list[str]:
    return [request["end"] for request in truth(client)]


def test_a_stream_has_a_chunk_for_each_token_and_usage_when_it_is_asked_for(stub):
    client = stub()
    *tokens, usage = stream(client, return_token_ids=True, stream_options={"include_usage": True})
    choices = [event["choices"][0] for event in tokens]
    assert [choice["token_ids"] for choice in choices] == [[5]] * 4
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "length"]
    assert choices[0]["prompt_token_ids"] == [1, 2, 3]
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_token_ids_and_usage_come_only_when_asked_for(stub):
    events = stream(stub(), max_tokens=1)
    assert [event["choices"][0]["token_ids"] for event in events] == [None]
    assert "usage" not in events[0]


def test_a_chunk_may_hold_several_tokens(stub):
    events = stream(stub("--tokens-per-chunk", "3"), return_token_ids=True)
    assert [len(event["choices"][0]["token_ids"]) for event in events] == [3, 1]


def test_an_answer_without_streaming_is_whole(stub):
    client = stub()
    said = complete(client, prompt="two words").json()
    assert said["choices"][0]["text"] == " a a a a"
    assert said["usage"]["prompt_tokens"] == 2
    (one,) = truth(client)
    assert one["chunks_s"][0] - one["head_read_s"] >= 0.011


def test_models_health_and_version_are_answered(stub):
    client = stub("--model", "mine")
    assert client.get("/v1/models").json()["data"][0]["id"] == "mine"
    assert client.get("/health").status_code == client.get("/version").status_code == 200
    assert client.get("/metrics").status_code == 404


@pytest.mark.parametrize(
    ("options", "body", "status"),
    [
        (["--model", "mine"], {"model": "other"}, 404),
        (["--text-only"], {}, 400),
        (["--strict"], {"ignore_eos": True}, 400),
        (["--status", "500"], {}, 500),
        ([], {"max_tokens": 0}, 400),
        ([], {"max_tokens": 1}, 200),
        (["--text-only", "--strict"], {"prompt": "text"}, 200),
    ],
)
def test_requests_are_refused_as_the_options_say(stub, options, body, status):
    client = stub(*options)
    said = complete(client, **body)
    assert said.status_code == status
    assert said.is_success or said.json()["error"]["code"] == status
    assert [request["status"] for request in truth(client)] == [status]


def test_a_share_of_requests_fails_and_it_is_the_same_share_each_time(stub):
    client = stub("--status", "429", "--status-share", "0.3")
    said = [complete(client, max_tokens=1).status_code for _ in range(10)]
    assert said == [200, 200, 200, 429, 200, 200, 429, 200, 200, 429]


def test_without_the_key_nothing_is_told(stub):
    client = stub("--api-key-env", "STUB_KEY", env={"STUB_KEY": "secret"})
    assert complete(client).status_code == client.get("/v1/models").status_code == 401
    client.headers["Authorization"] = "Bearer secret"
    assert complete(client).status_code == client.get("/v1/models").status_code == 200


def test_a_share_of_streams_stalls_in_the_middle(stub):
    client = stub("--stall-after", "2", "--stall-share", "0.5")
    assert len(stream(client)) == 4
    client.timeout = httpx.Timeout(1.0)
    with pytest.raises(httpx.ReadTimeout):
        stream(client)
    assert ends(client) == ["finished", "stalled"]
    assert [len(request["chunks_s"]) for request in truth(client)] == [4, 2]


def test_a_stream_can_be_reset_in_the_middle(stub):
    client = stub("--close-after", "2")
    with pytest.raises(httpx.ReadError):
        stream(client)
    assert ends(client) == ["closed"]


def test_a_client_that_leaves_is_noted_and_disturbs_no_other(stub):
    client = stub("--itl-ms", "1000")
    with client.stream("POST", "/v1/completions", json={"prompt": "a", "max_tokens": 100, "stream": True}) as said:
        next(said.iter_lines())
    complete(client, max_tokens=1)
    deadline = time.monotonic() + 60
    while ends(client) != ["left", "finished"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_truth_is_told_by_request_id_on_the_clock_of_the_client(stub):
    client = stub("--jitter-ms", "3")
    client.headers["X-Request-Id"] = "mine"
    begin_s = time.monotonic()
    stream(client)
    end_s = time.monotonic()
    (one,) = truth(client)
    moments_s = [begin_s, one["head_read_s"], *one["chunks_s"], end_s]
    assert one["request_id"] == "mine"
    assert moments_s == sorted(moments_s)
    client.delete("/truth")
    assert truth(client) == []


def test_200_streams_at_once_keep_the_pace(stub):
    ttft_s, itl_s, tokens, streams = 0.1, 0.05, 10, 200
    client = stub("--ttft-ms", str(ttft_s * 1000), "--itl-ms", str(itl_s * 1000))
    body = json.dumps({"prompt": [1], "max_tokens": tokens, "stream": True}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nhost: stub\r\ncontent-length: %d\r\n\r\n" % len(body)

    async def read_one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(head + body)
        said = await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return said

    async def read_all() -> list[bytes]:
        return await asyncio.gather(*(read_one() for _ in range(streams)))

    def once() -> float:
        """Return the median of how late the chunks were; none may be early."""
        client.delete("/truth")
        said = asyncio.run(read_all())
        assert [text.count(b'"text":" a"') for text in said] == [tokens] * streams
        late_s = [
            chunk_s - (request["head_read_s"] + ttft_s + index * itl_s)
            for request in truth(client)
            for index, chunk_s in enumerate(request["chunks_s"])
        ]
        assert len(late_s) == tokens * streams
        assert min(late_s) > -1e-6
        return statistics.median(late_s)

    # Another process may take the core for longer than a token lasts, but hardly in every attempt; a wrong pace stays.
    assert any(once() < itl_s / 4 for _ in range(40))
