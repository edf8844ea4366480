"""guidellm's command sends exactly our requests, when they are due, and its report is read as what the server did."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from rollout_bench.measure.engine.online import rows_of
from rollout_bench.measure.server.guidellm import prepare
from rollout_bench.measure.server.paced import LoadEnd
from rollout_bench.measure.server.stream import LoadPass, ServingFailed, Target
from rollout_bench.workloads.requests import Request

KEY = "1234567890123456"
"""Of digits, which must not be read as a number."""

FIRST_TOKEN_S, PACE_S, TOKENS = 0.05, 0.03, 5
ATTEMPTS = 8
"""Another process may take the cores for a moment, but hardly in every attempt; times that are wrong stay so."""


@dataclass
class Stub:
    """A server that streams at a known pace; the first word of a prompt says what becomes of the request."""

    port: int = 0
    bodies: list[dict] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    command_lines: list[str] = field(default_factory=list)
    at_work: int = 0
    most_at_work: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
                headers = dict(line.split(": ", 1) for line in head[1:] if line)
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                if not self.bodies:
                    self.command_lines = command_lines()
                self.bodies.append(body)
                self.keys.add(headers.get("authorization", ""))
                self.at_work += 1
                self.most_at_work = max(self.at_work, self.most_at_work)
                try:
                    await self.answer(body, writer)
                finally:
                    self.at_work -= 1

    async def answer(self, body: dict, writer: asyncio.StreamWriter) -> None:
        kind, began = body["prompt"].split()[0], time.monotonic()
        if kind == "interrupt":
            os.kill(os.getpid(), signal.SIGUSR1)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            return
        usage = {"prompt_tokens": 3, "completion_tokens": body["max_tokens"] + (kind == "many")}
        if kind in ("refused", "moved") or not body.get("stream"):
            status = {"refused": "429 x", "moved": "302 x\r\nLocation: http://127.0.0.1:1/?secret=path"}
            await asyncio.sleep(FIRST_TOKEN_S)
            whole = json.dumps({"choices": [{"text": "a a", "finish_reason": "length"}], "usage": usage}).encode()
            head = f"HTTP/1.1 {status.get(kind, '200 OK')}\r\nContent-Length: {len(whole)}\r\n\r\n"
            writer.write(head.encode() + whole)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

        def send(event: str) -> None:
            text = f"data: {event}\n\n".encode()
            writer.write(b"%x\r\n%b\r\n" % (len(text), text))

        for i in range(body["max_tokens"]):
            await asyncio.sleep(began + FIRST_TOKEN_S + i * PACE_S - time.monotonic())
            if i == 2 and kind == "cut":
                raise ConnectionError
            if i == 2 and kind == "broken_off":
                break
            text = "" if kind == "silent" else "a "
            send(json.dumps({"choices": [{"text": text, "finish_reason": None}]}))
        else:
            send(json.dumps({"choices": [], "usage": usage}))
            send("[DONE]")
        writer.write(b"0\r\n\r\n")


@pytest.fixture
def stub() -> Iterator[Stub]:
    """Yield a running stub; its thread ends with the test."""
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


def command_lines() -> list[str]:
    """Return those of all processes that this one has started."""
    return [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder of the test that temporary files, homes and caches are below; its path has room for a socket's."""
    with tempfile.TemporaryDirectory() as folder:
        for name, variable in (("temporary", "TMPDIR"), ("home", "HOME"), ("cache", "HF_HOME")):
            (Path(folder) / name).mkdir()
            monkeypatch.setenv(variable, str(Path(folder) / name))
        monkeypatch.setattr("tempfile.tempdir", None)
        monkeypatch.chdir(folder)
        yield Path(folder)


def target(port: int, stream: bool = True) -> Target:
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"ignore_eos": False, "seed": 3, "return_token_ids": True}
    return Target(f"http://127.0.0.1:{port}/v1", "tiny", headers, True, stream, body)


def asked(count: int) -> list[Request]:
    return [Request(i, 0, [1, i, 5], TOKENS) for i in range(count)]


def run(
    count: int,
    to: Target,
    due_s: Sequence[float] | None = None,
    concurrency: int | None = None,
    kinds: tuple[str, ...] = (),
) -> LoadPass:
    """Send `count` requests that differ; the first ones of the given kinds."""
    first = [*kinds, *["good"] * count][:count]
    return prepare(asked(count), [f"{kind} {i}" for i, kind in enumerate(first)], due_s, concurrency, to)()


def test_a_closed_loop_sends_each_request_once_and_never_more_than_its_concurrency(stub, folders, capfd, monkeypatch):
    monkeypatch.setenv("GUIDELLM__MAX_CONCURRENCY", "1")  # a caller's settings change nothing
    (folders / ".env").write_text("GUIDELLM__MAX_CONCURRENCY=1\n")
    done = run(6, target(stub.port), concurrency=2)
    sent = [int(body["prompt"].split()[1]) for body in stub.bodies]
    assert sorted(sent) == list(range(6))
    assert stub.most_at_work == 2
    assert stub.bodies[sent.index(0)] == {
        "model": "tiny",
        "prompt": "good 0",
        "max_tokens": TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": False,
        "seed": 3,
    }
    for outcome in done.outcomes:
        assert (outcome.error, outcome.status, outcome.finish_reason) == (None, 200, None)
        assert (outcome.prompt_tokens, outcome.output_tokens, outcome.due_s) == (3, TOKENS, None)
    for row in rows_of(asked(6), done, 0):
        assert row.first_token_s is not None
        assert (row.gaps_us, row.gap_tokens) == (None, None)
    assert 0 < done.client.cpu_share < 2
    assert stub.keys == {f"bearer {KEY}"}
    assert any("guidellm" in line for line in stub.command_lines)
    assert KEY not in "".join([*stub.command_lines, *capfd.readouterr()])
    assert [path.name for path in folders.rglob("*") if path.is_file()] == [".env"]
    assert not any("guidellm" in line or "spawn_main" in line for line in command_lines())


def test_arrivals_and_times_are_those_that_were_given_and_seen(stub):
    due_s = [0.06 * i for i in (3, 0, 2, 1, 1)]

    def off_s() -> list[float]:
        """Return how far each request is off its arrival time, and its tokens are off the pace of the server."""
        before_s = time.monotonic()
        done = run(5, target(stub.port), due_s)
        assert done.elapsed_s == pytest.approx(max(outcome.ended_s for outcome in done.outcomes) - done.began_s)
        found = []
        for outcome, due in zip(done.outcomes, due_s, strict=True):
            assert outcome.due_s - done.began_s == pytest.approx(due)
            assert before_s < outcome.sent_s < outcome.pieces_s[-1] <= outcome.ended_s < time.monotonic()
            first, last = outcome.pieces_s
            assert outcome.sent_s - outcome.due_s > -0.001
            found += [outcome.sent_s - outcome.due_s, first - outcome.sent_s - FIRST_TOKEN_S]
            found.append(last - first - (TOKENS - 1) * PACE_S)
        return list(map(abs, found))

    least_s = off_s()
    for _ in range(ATTEMPTS - 1):
        if max(least_s) >= 0.05:
            least_s = list(map(min, least_s, off_s()))
    assert max(least_s) < 0.05


def test_an_answer_in_one_piece_has_no_first_token(stub):
    def took_s() -> float:
        done = run(1, target(stub.port, stream=False))
        (outcome,), (row,) = done.outcomes, rows_of(asked(1), done, 0)
        assert (outcome.error, outcome.output_tokens) == (None, TOKENS)
        assert (row.first_token_s, row.gaps_us) == (None, None)
        assert row.last_token_s is not None
        assert "stream_options" not in stub.bodies[0]
        return outcome.ended_s - outcome.sent_s

    assert any(abs(took_s() - FIRST_TOKEN_S) < 0.025 for _ in range(ATTEMPTS))


def test_all_are_sent_at_once_and_each_failure_is_told_and_spoils_no_other_request(stub):
    errors = {
        "refused": "429",
        "cut": "RemoteProtocolError",
        "broken_off": "broke off",
        "moved": "302",
        "many": "6 output tokens, where 5 were asked for",
        "silent": "no piece of the answer had text",
    }

    def most_at_once() -> int:
        *bad, one, other = run(8, target(stub.port), kinds=tuple(errors)).outcomes
        for outcome, said in zip(bad, errors.values(), strict=True):
            assert said in outcome.error
            assert "secret" not in outcome.error
        assert [outcome.status for outcome in bad] == [429, None, 200, 302, 200, 200]
        assert (one.error, other.error) == (None, None)
        return stub.most_at_work

    assert any(most_at_once() == 8 for _ in range(ATTEMPTS))


HANDS_ON_LATE = f"""#!{sys.executable}
import runpy, sys, time
from guidellm.scheduler.worker_group import WorkerGroupState

received = WorkerGroupState.received_callback

def late(self, update):
    found = received(self, update)
    if self.shutdown_event.is_set():
        time.sleep(1)
    return found

if __name__ == "__main__":
    WorkerGroupState.received_callback = late
    _, _, command, *sys.argv[1:] = sys.argv
    runpy.run_module(command, run_name="__main__")
"""
"""Stands in for Python where guidellm is run, on a machine whose cores are taken away just before a pass ends."""


def test_a_server_that_refuses_connections_fails_every_request_even_if_the_end_is_told_late(folders, monkeypatch):
    command = folders / "python"
    command.write_text(HANDS_ON_LATE)
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(command))
    outcomes = run(2, target(1), concurrency=2).outcomes
    assert all("ConnectError" in outcome.error for outcome in outcomes)
    assert [outcome.status for outcome in outcomes] == [None, None]


def test_users_ask_again_until_the_time_is_over_and_what_is_under_way_then_is_cut(stub):
    requests = asked(3)
    done = prepare(requests, [f"good {i}" for i in range(3)], None, 2, target(stub.port), LoadEnd(3.0))()
    assert done.elapsed_s == pytest.approx(3.0)
    assert done.sent == [(number % 3, number // 3) for number in range(len(done.outcomes))]
    assert len(done.outcomes) > 3
    assert stub.most_at_work == 2
    cut = [outcome for outcome in done.outcomes if outcome.cut_s is not None]
    assert len(cut) <= 2
    assert all(outcome.error is None and outcome.output_tokens <= TOKENS for outcome in cut)
    whole = [outcome for outcome in done.outcomes if outcome.cut_s is None]
    assert {(outcome.status, outcome.output_tokens, outcome.error) for outcome in whole} == {(200, TOKENS, None)}


def test_a_command_that_fails_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ServingFailed, match="guidellm ended with status 1"):
        run(1, target(1))


def test_an_interrupted_pass_leaves_no_process_and_no_file(stub, folders):
    def stop(*_: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(InterruptedError):
            run(1, target(stub.port), kinds=("interrupt",))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stub.bodies
    assert not any("guidellm" in line or "spawn_main" in line for line in command_lines())
    assert list((folders / "temporary").glob("guidellm-*")) == []
