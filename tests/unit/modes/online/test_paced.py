"""Loads for a time, sent to a stub: what is sent when, what is cut at the end, and what is counted of it."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from samples.online import make_online_spec
from stub_server import Stub, running_stub

from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import ClientUse, SequenceRow
from rollout_bench.measure.launch.flags import client_flags
from rollout_bench.measure.server import paced
from rollout_bench.measure.server.paced import prepare
from rollout_bench.measure.server.served import iteration_of, rows_of
from rollout_bench.measure.server.stream import WORDS, Load, LoadPass, RequestOutcome, Target
from rollout_bench.modes.online.collector import cut_flags
from rollout_bench.plan.durations import loads_s
from rollout_bench.workloads.requests import Request, sent_of

PROMPT = [100, 200, 300, 400]
Send = Callable[..., LoadPass]


def asked(count: int, tokens: int = 4) -> list[Request]:
    return [Request(number // 2, number % 2, PROMPT, tokens) for number in range(count)]


PACE = {"ttft_ms": 40, "itl_ms": 20}


@pytest.fixture
def stub(server: Stub) -> Stub:
    server.become(**PACE)
    return server


@pytest.fixture
def mortal() -> Iterator[Stub]:
    """Yield a server that the test may end."""
    with running_stub(**PACE) as stub:
        yield stub


@pytest.fixture
def send(stub: Stub) -> Send:
    """Send a load to a stub: a token each 20 ms, the first after 40 ms."""

    def sent(
        count: int = 4,
        duration_s: float | None = 0.5,
        *,
        tokens: int = 4,
        due_s: Sequence[float] | None = None,
        concurrency: int | None = None,
        request_timeout_s: float | None = None,
    ) -> LoadPass:
        target = Target(f"{stub.url}/v1", "stub", {}, True, {"logprobs": 0, "return_token_ids": True})
        sending = None if due_s is None else len(due_s)
        load = Load(asked(count, tokens), [PROMPT] * count, due_s, concurrency, sending, duration_s)
        load = replace(load, request_timeout_s=request_timeout_s)
        return prepare(load, target)()

    return sent


def test_a_request_without_a_whole_answer_in_its_time_has_failed_and_ends_at_the_server(send: Send, stub: Stub):
    done = send(2, None, tokens=5000, due_s=[0.0, 0.1], request_timeout_s=0.5)  # which would take 100 s
    assert {outcome.error for outcome in done.outcomes} == {"no whole answer in 0.5 s (request_timeout_s)"}
    assert all(0.4 < outcome.ended_s - outcome.due_s < 60 for outcome in done.outcomes)
    deadline = time.monotonic() + 60
    while [one["end"] for one in stub.truth()["requests"]] != ["left"] * 2:  # a moment after the client
        assert time.monotonic() < deadline
    whole = send(1, None, due_s=[0.0], request_timeout_s=60.0).outcomes
    assert [(outcome.error, outcome.output_tokens) for outcome in whole] == [(None, 4)]


def test_requests_to_a_server_that_has_gone_say_so_in_words(mortal: Stub):
    target = Target(f"{mortal.url}/v1", "stub", {}, True, {})
    load = Load(asked(2), [PROMPT] * 2, None, 1, 2)
    sending = prepare(load, target)
    mortal.process.kill()
    mortal.process.wait()
    assert [outcome.error for outcome in sending().outcomes] == ["connection refused: nothing listens there"] * 2


def test_requests_that_run_when_a_server_dies_say_so_in_words(mortal: Stub):
    load = Load(asked(2, 1000), [PROMPT] * 2, None, 2, 2)
    sending = prepare(load, Target(f"{mortal.url}/v1", "stub", {}, True, {"logprobs": 0, "return_token_ids": True}))
    threading.Timer(0.5, mortal.process.kill).start()
    outcomes = sending().outcomes
    mortal.process.wait()
    assert {outcome.error for outcome in outcomes} <= {words for _, words in WORDS}


def test_users_send_requests_one_after_another_until_time_is_up(send: Send):
    done = send(4, 1.0, concurrency=3)
    assert done.sent == [(number % 4, number // 4) for number in range(len(done.outcomes))]
    assert len(done.sent) > 6
    assert 1.0 <= done.elapsed_s < 60
    complete = [outcome for outcome in done.outcomes if outcome.cut_s is None]
    assert {(outcome.error, outcome.output_tokens) for outcome in complete} == {(None, 4)}
    assert len(done.outcomes) - len(complete) <= 3  # none where all have just ended
    spans = [(outcome.sent_s or 0.0, outcome.ended_s or 0.0) for outcome in done.outcomes]
    assert all(sum(a <= start < b for a, b in spans) <= 3 for start, _ in spans)


def test_a_request_under_way_at_the_end_is_cut(send: Send, stub: Stub):
    done = send(1, 1.0, tokens=5000, concurrency=1)  # which would take 100 s
    (outcome,) = done.outcomes
    assert (outcome.error, outcome.finish_reason, outcome.cut_s) == (None, None, done.began_s + done.elapsed_s)
    assert 0 < outcome.output_tokens < 4000
    deadline = time.monotonic() + 60
    while [one["end"] for one in stub.truth()["requests"]] != ["left"]:  # a moment after the client
        assert time.monotonic() < deadline


def test_a_limit_delays_due_requests_and_cuts_unsent_ones(send: Send):
    done = send(3, 0.5, tokens=5000, due_s=[0.0, 0.05, 0.1], concurrency=2)
    assert [outcome.sent_s is None for outcome in done.outcomes] == [False, False, True]
    assert all(outcome.cut_s is not None for outcome in done.outcomes)


def test_an_earlier_failure_is_no_cut_and_shows_no_key(monkeypatch: pytest.MonkeyPatch):
    async def failing(*arguments: Any) -> None:
        arguments[4].error = "bad key abcdef-secret-123"
        await asyncio.sleep(60)

    monkeypatch.setattr(paced, "send", failing)
    target = Target("http://x/v1", "stub", {"Authorization": "Bearer abcdef-secret-123"}, True, {})
    (outcome,) = prepare(Load(asked(1), [PROMPT], None, 1, None, 0.3), target)().outcomes
    assert (outcome.cut_s, outcome.error) == (None, "bad key ***")


def test_a_missing_server_is_not_asked_for_ever(mortal: Stub):
    mortal.process.kill()
    load = Load(asked(4), [PROMPT] * 4, None, 2, None, 0.5)
    done = prepare(load, Target(f"{mortal.url}/v1", "stub", {}, True, {}))()
    assert 2 <= len(done.outcomes) <= 82
    assert all(outcome.error is not None and outcome.cut_s is None for outcome in done.outcomes)


def test_a_sender_that_is_stopped_is_not_called_busy(send: Send):
    before = signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.03))
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)  # a third of the time, so that many answers wait for it
    try:
        done = send(40, None, tokens=4, due_s=[0.05 * number for number in range(40)])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    rows = rows_of(asked(40), done, 0)
    (flag,) = client_flags([iteration_of(0, False, LoadPoint(request_rate=20.0), done, rows)])
    assert flag.code == "seen_late", (flag.sentence, done.client)


@pytest.mark.parametrize(("ran_s", "code"), [(0.002, "seen_late"), (0.03, "generator_bound")])
def test_a_sender_that_runs_while_it_is_late_is_busy(send: Send, ran_s: float, code: str):
    looks = [paced.Look(0.1 * number, 0.03, ran_s) for number in range(1, 10)]
    outcomes = [_outcome(sent_s=0.1 * number - 0.05, pieces_s=[0.1 * number - 0.001]) for number in range(1, 10)]
    done = send(2, None, tokens=1)
    late = ClientUse(cpu_share=0.1, **paced.seen_late(looks, outcomes))
    iteration = iteration_of(0, False, LoadPoint(request_rate=20.0), done, rows_of(asked(2), done, 0))
    (flag,) = client_flags([iteration.model_copy(update={"client": late})])
    assert flag.code == code, (flag.sentence, late)


def test_a_delay_that_hits_no_answer_or_a_single_one_of_many_is_not_one_in_a_hundred():
    times_s = [0.01 * number for number in range(1000) if not 497 < number < 500]
    looks = [paced.Look(woke_s, 0.02 if woke_s == 5.0 else 0.0, 0.0) for woke_s in times_s]
    sent_s = [0.1 * number for number in range(60)]
    outcomes = [_outcome(sent_s=each, pieces_s=[each + 0.044, each + 0.088]) for each in sent_s]
    outcomes[3].pieces_s[0] += 0.02  # the slowest first token
    outcomes[49].pieces_s[1] = 5.001  # seen when the loop woke
    found = paced.seen_late(looks, outcomes)
    assert (found["seen_late_p99_s"], found["ttft_added_p99_s"]) == (0.0, 0.0)
    outcomes[49].pieces_s[0] = 4.99
    found = paced.seen_late(looks, outcomes)
    assert found["seen_late_p99_s"] == 0.0
    assert 0.0 < found["ttft_added_p99_s"] < 0.02, "it is the slowest now"
    outcomes[48].pieces_s[:] = [4.985, 5.001]
    found = paced.seen_late(looks, outcomes)
    assert found["seen_late_p99_s"] == pytest.approx(0.02)
    assert (found["seen_late_median_s"], found["ran_late_share"]) == (0.0, 0.0)


def _outcome(**more: object) -> RequestOutcome:
    fields = {"due_s": 10.0, "sent_s": 10.0, "counted": True, "status": 200}
    return RequestOutcome(**{**fields, **more})  # type: ignore[arg-type]


COMPLETE = _outcome(pieces_s=[10.5, 11.0], piece_tokens=[1, 1], output_tokens=2, finish_reason="length")
BEGUN = _outcome(pieces_s=[11.5], piece_tokens=[3], output_tokens=3, cut_s=12.0)
CLAIMED = _outcome(pieces_s=[11.5], piece_tokens=[1], output_tokens=1, counted=False, cut_s=12.0)
UNBEGUN = _outcome(cut_s=12.0)
FAILED = _outcome(error="500", status=500)


def rows() -> tuple[list[SequenceRow], LoadPass]:
    outcomes = [COMPLETE, BEGUN, CLAIMED, UNBEGUN, FAILED]
    done = LoadPass(10.0, 2.0, outcomes, ClientUse(cpu_share=0.1), [(n, 0) for n in range(5)])
    return rows_of(sent_of(asked(5), done.sent), done, 0), done


def test_cut_requests_neither_complete_nor_fail_but_their_tokens_count():
    found, done = rows()
    assert [row.complete for row in found] == [True, False, False, False, False]
    assert [row.cut_s for row in found] == [None, 2.0, 2.0, 2.0, None]
    iteration = iteration_of(0, False, LoadPoint(concurrency=4, duration_s=2.0), done, found, None)
    assert (iteration.requests, iteration.sequences, iteration.failed, iteration.incomplete) == (5, 1, 1, 3)
    assert iteration.output_tokens == 2 + 3  # pieces of an answer whose tokens nobody counted are not tokens
    assert iteration.prompt_tokens == 2 * len(PROMPT)


def test_many_cut_requests_are_flagged_and_all_cut_is_invalid():
    found, _ = rows()
    assert cut_flags([found[0]] * 40 + [found[1]]) == []
    for cut, severity, words in ((found, "warning", "3 of 5 measured requests"), (found[1:3], "invalid", "2 of 2")):
        (flag,) = cut_flags(cut)
        assert (flag.code, flag.severity) == ("cut_at_end", severity)
        assert words in flag.sentence


def test_a_pause_between_loads_counts_in_the_time_of_a_launch():
    points = [LoadPoint(request_rate=rate, duration_s=10.0) for rate in (1.0, 2.0, 4.0)]
    usual, long = (loads_s(make_online_spec(points=points, **more)) for more in ({}, {"pause_s": 30.0}))
    assert long - usual == 2 * 29
