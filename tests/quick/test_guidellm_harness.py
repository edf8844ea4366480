"""guidellm sends exactly our requests, when they are due, and what it brings back is what the server did."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import psutil
import pytest

from rollout_bench.measure.server.guidellm_harness import prepare
from rollout_bench.measure.server.stream import LoadPass, RequestOutcome, Target
from rollout_bench.workloads.requests import Request

KEY = "sk-never-to-be-seen"
FIRST_TOKEN_S, PACE_S, TOKENS = 0.05, 0.03, 5
ATTEMPTS = 5
"""Another process may take the cores for a moment, but hardly in every attempt; times that are wrong stay so."""
REFUSED, CUT, BROKEN_OFF = 429, 9001, 9002


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
            choice = {"text": "", "finish_reason": "length", "token_ids": [7] * body["max_tokens"]}
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
            if i == 2 and kind == BROKEN_OFF:
                break
            done = "length" if i == body["max_tokens"] - 1 else None
            choice = {"text": "", "finish_reason": done, "token_ids": [7]}
            if i == 0:
                choice["prompt_token_ids"] = body["prompt"]
            send(json.dumps({"choices": [choice]}))
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
    return Target(f"http://127.0.0.1:{port}/v1", "tiny", headers, True, stream, {"ignore_eos": True, "seed": 3})


def run(
    count: int,
    to: Target,
    due_s: Sequence[float] | None = None,
    concurrency: int | None = None,
    kinds: tuple[int, ...] = (),
) -> LoadPass:
    """Sends `count` requests that differ; the first ones of the given kinds."""
    first = [*kinds, *[1] * count][:count]
    prompts: list[list[int] | str] = [[first[i], i, 5] for i in range(count)]
    asked = [Request(i, 0, [first[i], i, 5], TOKENS) for i in range(count)]
    return prepare(asked, prompts, due_s, concurrency, to)()


def span_s(outcome: RequestOutcome) -> float:
    return outcome.pieces_s[-1] - outcome.pieces_s[0]


def test_a_closed_loop_sends_each_request_once_and_never_more_than_its_concurrency(stub, capfd):
    done = run(6, target(stub.port), concurrency=2)
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
    for outcome in done.outcomes:
        assert (outcome.error, outcome.status, outcome.finish_reason) == (None, 200, "length")
        assert (outcome.prompt_tokens, outcome.output_tokens, outcome.due_s) == (3, TOKENS, None)
        assert (outcome.counted, outcome.piece_tokens, outcome.streamed) == (True, [1] * TOKENS, True)
    assert 0 < min(outcome.sent_s for outcome in done.outcomes) - done.began_s < 0.4  # a wrong lead is off by more
    assert 0 < done.client.cpu_share < 2
    assert stub.keys == {f"bearer {KEY}"}
    assert KEY not in "".join(capfd.readouterr())


def test_times_are_those_of_the_server(stub):
    def worst_s() -> float:
        """How far first tokens and spans are off the server's pace at most."""
        before_s = time.monotonic()
        done = run(3, target(stub.port), concurrency=1)
        assert done.elapsed_s == pytest.approx(done.outcomes[-1].ended_s - done.began_s)
        off_s = []
        for outcome in done.outcomes:
            assert before_s < outcome.sent_s < outcome.pieces_s[-1] <= outcome.ended_s < time.monotonic()
            assert len(outcome.pieces_s) == TOKENS
            off_s.append(abs(outcome.pieces_s[0] - outcome.sent_s - FIRST_TOKEN_S))
            off_s.append(abs(span_s(outcome) - (TOKENS - 1) * PACE_S))
        return max(off_s)

    assert any(worst_s() < 0.025 for _ in range(ATTEMPTS))


def test_an_open_loop_keeps_to_the_arrival_times_that_it_is_given(stub):
    def worst_s() -> float:
        """How late a request was sent at most; none may be early or out of turn."""
        done = run(8, target(stub.port), due_s=[0.06 * i for i in range(8)])
        assert [outcome.sent_s for outcome in done.outcomes] == sorted(outcome.sent_s for outcome in done.outcomes)
        assert [outcome.due_s - done.began_s for outcome in done.outcomes] == pytest.approx(
            [0.06 * i for i in range(8)]
        )
        late_s = [outcome.sent_s - outcome.due_s for outcome in done.outcomes]
        assert min(late_s) > -0.001
        return max(late_s)

    assert any(worst_s() < 0.05 for _ in range(ATTEMPTS))


def test_without_times_and_concurrency_all_are_sent_at_once(stub):
    def most_at_once() -> int:
        done = run(6, target(stub.port))
        assert {outcome.due_s for outcome in done.outcomes} == {None}
        return stub.most_at_work

    assert any(most_at_once() == 6 for _ in range(ATTEMPTS))


def test_an_answer_in_one_piece_has_no_first_token(stub):
    def took_s() -> float:
        (outcome,) = run(1, target(stub.port, stream=False)).outcomes
        assert outcome.error is None
        assert not outcome.streamed
        assert (outcome.counted, outcome.piece_tokens) == (True, [TOKENS])
        assert (outcome.output_tokens, outcome.finish_reason) == (TOKENS, "length")
        return outcome.ended_s - outcome.sent_s

    assert any(abs(took_s() - FIRST_TOKEN_S) < 0.025 for _ in range(ATTEMPTS))


def test_each_failure_is_told_and_spoils_no_other_request(stub):
    done = run(5, target(stub.port), kinds=(REFUSED, CUT, BROKEN_OFF))
    refused, cut, broken_off, *good = done.outcomes
    assert refused.status == REFUSED
    assert "429" in refused.error
    assert "RemoteProtocolError" in cut.error
    assert len(cut.pieces_s) == 2
    assert "broke off" in broken_off.error
    assert [outcome.error for outcome in good] == [None, None]


def test_a_server_that_refuses_connections_fails_every_request():
    outcomes = run(2, target(1), concurrency=2).outcomes
    assert all("ConnectError" in outcome.error for outcome in outcomes)
    assert [outcome.status for outcome in outcomes] == [None, None]


def test_no_error_has_a_key_in_it(stub):
    broken = target(stub.port)
    broken.headers["Authorization"] += "\n"
    (outcome,) = run(1, broken).outcomes
    assert outcome.error
    assert KEY not in outcome.error


def test_the_caller_s_event_loop_policy_stays(stub):
    before = type(asyncio.get_event_loop_policy())
    run(1, target(stub.port))
    assert type(asyncio.get_event_loop_policy()) is before


def test_no_process_is_left_but_python_s_own_tracker(stub):
    run(2, target(stub.port))
    left = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert [line for line in left if "resource_tracker" not in line] == []
