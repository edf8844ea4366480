"""guidellm sends exactly our requests, when they are due, and what it brings back is what the server did."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from rollout_bench.errors import UserError
from rollout_bench.serving import guidellm_harness
from rollout_bench.serving.guidellm_harness import Outcome, Point, Request, Target, run

KEY = "sk-never-to-be-seen"
FIRST_TOKEN_S, PACE_S, TOKENS = 0.05, 0.03, 5
REFUSED, CUT, BROKEN_OFF, STALLED = 429, 9001, 9002, 9003


@dataclass
class Stub:
    """A server that streams empty texts, as vLLM does without a tokenizer, at a known pace.

    The first token id of a prompt says what becomes of the request.
    """

    port: int = 0
    bodies: list[dict] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    at_work: int = 0
    most_at_work: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
                headers = dict(line.split(": ", 1) for line in head[1:] if line)
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.bodies.append(body)
                self.keys.add(headers.get("authorization", ""))
                self.at_work += 1
                self.most_at_work = max(self.at_work, self.most_at_work)
                try:
                    await self.answer(body, writer)
                finally:
                    self.at_work -= 1

    async def answer(self, body: dict, writer: asyncio.StreamWriter) -> None:
        kind, began = body["prompt"][0], time.monotonic()
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": body["max_tokens"]}
        if kind == REFUSED or not body["stream"]:
            status = kind if kind == REFUSED else 200
            await asyncio.sleep(FIRST_TOKEN_S)
            choice = {"text": "", "finish_reason": "length"}
            whole = json.dumps({"choices": [choice], "usage": usage}).encode()
            writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%b" % (status, len(whole), whole))
            return
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

        def send(event: str) -> None:
            text = f"data: {event}\n\n".encode()
            writer.write(b"%x\r\n%b\r\n" % (len(text), text))

        for i in range(body["max_tokens"]):
            await asyncio.sleep(began + FIRST_TOKEN_S + i * PACE_S - time.monotonic())
            if i == 2 and kind == CUT:
                raise ConnectionError
            if i == 2 and kind == STALLED:
                await asyncio.sleep(600)
            if i == 2 and kind == BROKEN_OFF:
                break
            done = "length" if i == body["max_tokens"] - 1 else None
            send(json.dumps({"choices": [{"text": "", "finish_reason": done}]}))
        else:
            send(json.dumps({"choices": [], "usage": usage}))
            send("[DONE]")
        writer.write(b"0\r\n\r\n")


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A running stub; its thread ends with the test."""
    found, loop, ready = Stub(), asyncio.new_event_loop(), threading.Event()

    async def live() -> None:
        server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
        found.port = server.sockets[0].getsockname()[1]
        ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await server.serve_forever()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports, which close in the loop's next turn

    task = loop.create_task(live())
    thread = threading.Thread(target=loop.run_until_complete, args=(task,))
    thread.start()
    assert ready.wait(10)
    yield found
    loop.call_soon_threadsafe(task.cancel)
    thread.join()
    loop.close()


def target(port: int, stream: bool = True) -> Target:
    headers = {"Authorization": f"Bearer {KEY}"}
    return Target(f"http://127.0.0.1:{port}/v1", "tiny", headers, True, stream, True, {"ignore_eos": True, "seed": 3})


def requests(count: int, due_s: float | None = None, kinds: tuple[int, ...] = ()) -> list[Request]:
    """`count` requests that differ, `due_s` seconds apart; the first ones of the given kinds."""
    first = [*kinds, *[1] * count][:count]
    return [Request(7 + i, [first[i], i, 5], None, TOKENS, None if due_s is None else i * due_s) for i in range(count)]


def in_order_of_sending(outcomes: list[Outcome]) -> list[int]:
    return [outcome.index for outcome in sorted(outcomes, key=lambda outcome: outcome.sent_s or 0.0)]


def test_a_closed_loop_sends_each_request_once_and_never_more_than_its_concurrency(stub, capfd):
    outcomes = run(requests(6), Point(2, None), target(stub.port), 30)
    sent = [body["prompt"][1] for body in stub.bodies]
    assert sorted(sent) == list(range(6))
    # Two are always on their way at once, in either order.
    assert all(abs(number - place) <= 1 for place, number in enumerate(sent))
    assert stub.bodies[sent.index(0)] == {
        "model": "tiny",
        "prompt": [1, 0, 5],
        "max_tokens": TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "seed": 3,
    }
    assert stub.most_at_work == 2
    assert [outcome.index for outcome in outcomes] == list(range(7, 13))
    for outcome in outcomes:
        assert (outcome.error, outcome.status, outcome.finish_reason) == (None, 200, "length")
        assert (outcome.prompt_tokens, outcome.output_tokens, outcome.due_s) == (3, TOKENS, None)
    assert stub.keys == {f"bearer {KEY}"}
    assert KEY not in "".join(capfd.readouterr())
    assert KEY not in repr(target(stub.port))


def test_times_are_those_of_the_server(stub):
    outcomes = run(requests(3), Point(1, None), target(stub.port), 30)
    for outcome in outcomes:
        assert outcome.first_token_s - outcome.sent_s == pytest.approx(FIRST_TOKEN_S, abs=0.025)
        assert len(outcome.gaps) == TOKENS - 1
        assert sum(outcome.gaps) == pytest.approx((TOKENS - 1) * PACE_S, abs=0.025)
        assert sum(outcome.gaps) == pytest.approx(outcome.last_token_s - outcome.first_token_s, abs=0.002)


def test_an_open_loop_keeps_to_the_arrival_times_that_it_is_given(stub):
    outcomes = run(requests(8, due_s=0.06), Point(None, 16.0), target(stub.port), 30)
    assert in_order_of_sending(outcomes) == [outcome.index for outcome in outcomes]
    for i, outcome in enumerate(outcomes):
        assert outcome.due_s == pytest.approx(0.06 * i)
        assert -0.001 < outcome.sent_s - outcome.due_s < 0.05


def test_all_at_once_is_limited_by_a_concurrency(stub):
    outcomes = run(requests(6, due_s=9.0), Point(3, "inf"), target(stub.port), 30)
    assert {outcome.due_s for outcome in outcomes} == {0.0}
    assert stub.most_at_work == 3


def test_an_answer_in_one_piece_has_no_first_token(stub):
    (outcome,) = run(requests(1), Point(1, None), target(stub.port, stream=False), 30)
    assert outcome.error is None
    assert outcome.first_token_s is None
    assert outcome.gaps is None
    assert outcome.last_token_s - outcome.sent_s == pytest.approx(FIRST_TOKEN_S, abs=0.025)
    assert (outcome.output_tokens, outcome.finish_reason) == (TOKENS, "length")


def test_each_failure_is_told_and_spoils_no_other_request(stub):
    load = requests(6, kinds=(REFUSED, CUT, BROKEN_OFF, STALLED))
    began = time.monotonic()
    refused, cut, broken_off, stalled, *good = run(load, Point(6, None), target(stub.port), 2)
    assert time.monotonic() - began < 30
    assert refused.status == REFUSED
    assert "429" in refused.error
    assert "RemoteProtocolError" in cut.error
    assert len(cut.gaps) == 1
    assert "finish_reason" in broken_off.error
    assert "within 2 s" in stalled.error
    assert [outcome.error for outcome in good] == [None, None]


def test_a_server_that_refuses_connections_fails_every_request():
    outcomes = run(requests(2), Point(2, None), target(1), 5)
    assert all("ConnectError" in outcome.error for outcome in outcomes)
    assert [outcome.status for outcome in outcomes] == [None, None]


def test_the_caller_s_event_loop_policy_stays(stub):
    before = type(asyncio.get_event_loop_policy())
    run(requests(1), Point(1, None), target(stub.port), 30)
    assert type(asyncio.get_event_loop_policy()) is before


def test_no_process_is_left_but_python_s_own_tracker(stub):
    run(requests(2), Point(2, None), target(stub.port), 30)
    left = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert [line for line in left if "resource_tracker" not in line] == []


@pytest.mark.parametrize(
    ("load", "point", "problem"),
    [
        (requests(2), Point(None, None), "neither concurrency"),
        (requests(2), Point(None, 3.0), "no request has an arrival time"),
        ([*requests(1), *requests(1, due_s=1.0)], Point(2, None), "some requests have"),
    ],
)
def test_a_point_that_does_not_fit_the_requests_is_refused(load, point, problem):
    with pytest.raises(UserError, match=problem):
        run(load, point, target(1), 5)


def test_a_missing_guidellm_is_told_in_two_lines(monkeypatch):
    def missing(name: str) -> str:
        raise guidellm_harness.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(guidellm_harness.importlib.metadata, "version", missing)
    with pytest.raises(UserError, match="not installed") as caught:
        run(requests(1), Point(1, None), target(1), 5)
    assert len(str(caught.value).splitlines()) == 2
