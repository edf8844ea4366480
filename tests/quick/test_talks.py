"""Conversations, sent to a small server: which request comes when, and that it asks with all that was said before."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from synthetic_online import make_online_spec

from rollout_bench.contracts.load import LoadPoint, TalkTurns
from rollout_bench.contracts.record import SequenceRow
from rollout_bench.contracts.spec import WorkloadSpec
from rollout_bench.measure.engine.online import _hit_flags, iteration_of, rows_of, said_of
from rollout_bench.measure.launch.flags import token_flags
from rollout_bench.measure.server.dispatch import Sending
from rollout_bench.measure.server.paced import LoadEnd
from rollout_bench.measure.server.stream import LoadPass, Target, answer_of
from rollout_bench.measure.server.talks import prepare
from rollout_bench.workloads.requests import Request, Source, moved, sent_of

VOCABULARY = 2048


@dataclass
class Asked:
    """What the server was asked, in the order in which answers began and ended."""

    bodies: list[dict[str, Any]] = field(default_factory=list)
    events: list[tuple[str, int]] = field(default_factory=list)
    failing: Callable[[int], bool] = lambda number: False
    without_ids: bool = False
    hold: threading.Event | None = None


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def url(asked: Asked) -> Iterator[str]:
    """Run a server whose n-th answer has the tokens 10000 + n, each with the text ` t<n>`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        lock = threading.Lock()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with self.lock:
                number = len(asked.bodies)
                asked.bodies.append(body)
                asked.events.append(("asked", number))
            if asked.failing(number):
                self._say(500, b'{"error": "no"}', "application/json")
                return
            if asked.hold is not None:
                asked.hold.wait(60)
            chat = "messages" in body
            prompt = body.get("prompt")
            lines = []
            for place in range(body["max_tokens"]):
                words = {"delta": {"content": f" t{number}"}} if chat else {"text": f" t{number}"}
                ids = None if asked.without_ids else [10_000 + number]
                last = place == body["max_tokens"] - 1
                first = {"prompt_token_ids": prompt} if place == 0 and isinstance(prompt, list) else {}
                lines.append(
                    {"choices": [{**words, **first, "token_ids": ids, "finish_reason": "length" if last else None}]}
                )
            size = len(prompt) if isinstance(prompt, list) else 3
            details = {"cached_tokens": size // 2}
            usage = {"prompt_tokens": size, "completion_tokens": body["max_tokens"], "prompt_tokens_details": details}
            if body["stream"]:
                lines.append({"choices": [], "usage": usage})
                text = "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"
                with self.lock:
                    asked.events.append(("answered", number))
                self._say(200, text.encode(), "text/event-stream")
                return
            words = f" t{number}" * body["max_tokens"]
            said = {"message": {"role": "assistant", "content": words}} if chat else {"text": words}
            ids = None if asked.without_ids else [10_000 + number] * body["max_tokens"]
            choice = {**said, "token_ids": ids, "finish_reason": "length"}
            with self.lock:
                asked.events.append(("answered", number))
            self._say(200, json.dumps({"choices": [choice], "usage": usage}).encode(), "application/json")

        def _say(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing of clients that left."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def workload(turns: Any = 3, **more: Any) -> WorkloadSpec:
    settings = {"prompts": 3, "samples_per_prompt": 1, "prompt_tokens": 10, "output_tokens": 2, **more}
    return WorkloadSpec(name="w", turns=turns, **settings)


def begun(load: WorkloadSpec) -> list[Request]:
    return Source(load, VOCABULARY, "none").requests(0, 0)


def sent(
    url: str,
    load: WorkloadSpec,
    *,
    concurrency: int | None = 2,
    due_s: list[float] | None = None,
    ending: LoadEnd = LoadEnd(),  # noqa: B008 (frozen)
    chat: bool = False,
    text: bool = False,
    stream: bool = True,
) -> LoadPass:
    target = Target(f"{url}/v1", "m", {}, True, stream, {"return_token_ids": True}, chat)
    words = (lambda ids: " ".join(f"w{number}" for number in ids)) if chat or text else None
    assert load.turns is not None
    requests = begun(load)
    prompts = [one.prompt_token_ids if words is None else words(one.prompt_token_ids) for one in requests]
    return prepare(requests, prompts, load.turns, words, due_s, concurrency, target, ending)()


def test_a_turn_asks_with_the_prompt_before_the_answer_that_came_and_new_tokens(url: str, asked: Asked):
    load = workload({"count": 3, "prompt_tokens": 4, "output_tokens": 3}, prompts=1)
    done = sent(url, load)
    (first,) = begun(load)
    assert first.further is not None
    prompt = [*first.prompt_token_ids]
    prompts = [prompt, [*prompt, 10_000, 10_000, *first.further.token_ids(0)]]
    prompts.append([*prompts[1], 10_001, 10_001, 10_001, *first.further.token_ids(1)])
    assert [body["prompt"] for body in asked.bodies] == prompts
    assert [len(one) for one in prompts] == [10, 16, 23]
    assert [body["max_tokens"] for body in asked.bodies] == [2, 3, 3]
    assert asked.events == [(what, number) for number in range(3) for what in ("asked", "answered")]
    assert done.said is not None
    assert [(one.conversation, one.turn, one.known_tokens) for one in done.said] == [(0, 0, 0), (0, 1, 12), (0, 2, 19)]
    assert [outcome.cached_tokens for outcome in done.outcomes] == [5, 8, 11]


@pytest.mark.parametrize("stream", [True, False])
def test_a_chat_goes_on_with_messages_and_text_with_text(url: str, asked: Asked, stream: bool):
    load = workload({"count": 2, "prompt_tokens": 1}, prompts=1, prompt_tokens=2)
    (first,) = begun(load)
    assert first.further is not None
    one, two = ("w{} w{}".format(*first.prompt_token_ids), f"w{first.further.token_ids(0)[0]}")
    sent(url, load, chat=True, stream=stream)
    assert [body["messages"] for body in asked.bodies] == [
        [{"role": "user", "content": one}],
        [
            {"role": "user", "content": one},
            {"role": "assistant", "content": " t0 t0"},
            {"role": "user", "content": two},
        ],
    ]
    sent(url, load, text=True, stream=stream)
    assert [body["prompt"] for body in asked.bodies[2:]] == [one, f"{one}  t2 t2 {two}"]


def test_a_free_place_goes_to_the_oldest_conversation_and_all_come_to_their_end(url: str, asked: Asked):
    done = sent(url, workload(3, prompts=4), concurrency=1)
    assert done.said is not None
    # as guidellm: a turn that can be sent comes before a new conversation
    assert [(one.conversation, one.turn) for one in done.said] == [(n, k) for n in range(4) for k in range(3)]
    assert done.sent == [(number, 0) for number in range(4) for _ in range(3)]


def test_in_rounds_each_conversation_asks_once_before_any_asks_again(url: str):
    load = workload({"count": 2, "active": 2}, prompts=4)
    done = sent(url, load, concurrency=1)
    assert done.said is not None
    # as inference-perf: two go on at once, and what ended makes room for the next
    assert [(one.conversation, one.turn) for one in done.said] == [
        *((0, 0), (1, 0), (0, 1), (1, 1)),
        *((2, 0), (3, 0), (2, 1), (3, 1)),
    ]


def test_more_users_than_conversations_wait_for_the_answers(url: str, asked: Asked):
    done = sent(url, workload({"count": 4, "active": 2}, prompts=2), concurrency=5)
    assert len(done.outcomes) == 8
    for conversation in range(2):
        own = [place for place, one in enumerate(done.said or []) if one.conversation == conversation]
        outcomes = [done.outcomes[place] for place in own]
        assert [(done.said or [])[place].turn for place in own] == [0, 1, 2, 3]
        assert all((a.ended_s or 0.0) <= (b.sent_s or 0.0) for a, b in itertools.pairwise(outcomes))


def test_a_number_of_requests_counts_turns_and_conversations_begin_again(url: str):
    done = sent(url, workload(3, prompts=2), concurrency=1, ending=LoadEnd(requests=8))
    assert done.sent == [(0, 0)] * 3 + [(1, 0)] * 3 + [(0, 1)] * 2
    assert [one.turn for one in done.said or []] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_at_a_rate_what_is_due_goes_on_with_a_conversation_or_begins_one(url: str):
    done = sent(url, workload(2, prompts=3), concurrency=None, due_s=[0.0] * 6)
    assert done.said is not None
    assert sorted((one.conversation, one.turn) for one in done.said) == [(n, k) for n in range(3) for k in range(2)]
    assert [one.turn for one in done.said[:3]] == [0, 0, 0]


def test_a_pause_lies_between_an_answer_and_the_next_request(url: str):
    done = sent(url, workload({"count": 3, "think_ms": 150}, prompts=2), concurrency=2)
    for conversation in range(2):
        own = [
            outcome
            for outcome, one in zip(done.outcomes, done.said or [], strict=True)
            if one.conversation == conversation
        ]
        assert all((b.sent_s or 0.0) - (a.ended_s or 0.0) >= 0.15 for a, b in itertools.pairwise(own))


def test_a_conversation_whose_request_fails_ends_and_the_others_go_on(url: str, asked: Asked):
    asked.failing = lambda number: number == 1
    done = sent(url, workload(3, prompts=2), concurrency=1)
    assert [(one.conversation, one.turn) for one in done.said or []] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert [outcome.error is not None for outcome in done.outcomes] == [False, True, False, False, False]


def test_a_server_without_token_ids_is_told_of_where_they_are_needed(url: str, asked: Asked):
    asked.without_ids = True
    done = sent(url, workload(2, prompts=1), concurrency=1)
    assert [outcome.error for outcome in done.outcomes] == [
        "the answer came without its token ids, which the next request of a conversation needs"
    ]


def test_what_waits_in_a_conversation_is_over_when_the_time_is(url: str, asked: Asked):
    load = workload({"count": 9, "think_ms": 600_000, "active": 1}, prompts=1)
    began = time.monotonic()
    done = sent(url, load, concurrency=3, ending=LoadEnd(duration_s=3.0, wait=True))
    assert len(done.outcomes) == 1  # the others waited for their turn
    assert time.monotonic() - began < 300
    asked.hold = threading.Event()
    cut = sent(url, load, concurrency=1, ending=LoadEnd(duration_s=3.0))
    asked.hold.set()
    assert [outcome.cut_s is not None for outcome in cut.outcomes] == [True]


def test_only_as_much_of_what_was_said_is_kept_as_there_is_room_for(url: str, asked: Asked):
    load = workload({"count": 5, "prompt_tokens": 3, "context_tokens": 22}, prompts=1)
    sent(url, load)
    prompts = [body["prompt"] for body in asked.bodies]
    (first,) = begun(load)
    further = first.further
    assert further is not None
    # the first prompt of 10 and what is asked now stay; with 2 tokens to come, one earlier answer fits, and two do not
    assert [len(prompt) for prompt in prompts] == [10, 15, 20, 20, 20]
    assert prompts[3] == [
        *first.prompt_token_ids,
        *(10_001, 10_001, *further.token_ids(1)),
        *(10_002, 10_002, *further.token_ids(2)),
    ]


def test_rows_say_which_conversation_and_turn_they_are_of_and_nothing_is_doubted(url: str):
    load = workload(3, prompts=2)
    done = sent(url, load, concurrency=2)
    assert done.sent is not None
    assert done.said is not None
    asked_for = said_of(sent_of(begun(load), done.sent), done.said)
    rows = rows_of(asked_for, done, 0)
    assert sorted((row.conversation, row.turn, row.prompt) for row in rows) == [
        (n, k, n) for n in range(2) for k in range(3)
    ]
    iteration = iteration_of(0, False, LoadPoint(concurrency=2), done, rows, None)
    assert token_flags(load, asked_for, iteration, rows) == []
    assert iteration.prompt_tokens == sum(one.prompt_tokens for one in done.said)
    known = sum(one.known_tokens for one in done.said)
    without = [row.model_copy(update={"cached_prompt_tokens": None}) for row in rows]
    for cached, doubts in ((known, 0), (known + 1, 1)):
        found = iteration.model_copy(update={"cached_prompt_tokens": cached})
        assert len(_hit_flags(asked_for, found, without, done.said)) == doubts
    assert "cross_iteration" in _hit_flags(asked_for, iteration, rows, done.said)[0].code  # first turns had hits


def test_turns_are_the_same_for_every_pass_of_the_same_name_and_move_with_their_prompt():
    load = workload({"count": {"distribution": "uniform", "low": 1, "high": 6}, "prompt_tokens": 5}, prompts=40)
    once, again = begun(load), begun(load)
    assert once == again
    lengths = {len(one.further or ()) for one in once}
    assert lengths == set(range(6))
    longest = max(once, key=lambda one: len(one.further or ()))
    (apart,) = moved([longest], VOCABULARY, 7)
    assert longest.further is not None
    assert apart.further is not None
    assert apart.further.token_ids(0) != longest.further.token_ids(0) != longest.further.token_ids(1)
    assert [len(apart.further.token_ids(k)) for k in range(5)] == [5] * 5
    pooled = workload(2, prompts=2, pool=2)
    source = Source(pooled, VOCABULARY, "none")
    assert [one.further for one in source.requests(0, 0)] == [one.further for one in source.requests(1, 3)]


def test_lengths_of_turns_are_those_of_the_first_where_nothing_else_is_said():
    load = workload(2, shared_prefix={"tokens": 6}, output_tokens=3)
    further = begun(load)[0].further
    assert further is not None
    assert (further.prompt_tokens, further.output_tokens, further.think_ms) == ([4], [3], [0])
    assert load.longest_pair == (10 + 3 + 4, 3)
    assert workload({"count": 4, "prompt_tokens": 7}).longest_pair == (10 + 2 + 7 + 2 + 7 + 2 + 7, 2)
    assert workload({"count": 4, "context_tokens": 30}).longest_pair == (28, 2)


def test_what_a_conversation_leads_with_lies_behind_what_all_share():
    lead = {"distribution": "uniform", "low": 5, "high": 90}
    load = workload({"count": 2, "lead_tokens": lead}, shared_prefix={"tokens": 6}, prompts=20)
    found = begun(load)
    lengths = {len(one.prompt_token_ids) for one in found}
    assert len(lengths) > 5
    assert min(lengths) >= 15
    assert max(lengths) <= 100
    assert len({tuple(one.prompt_token_ids[:6]) for one in found}) == 1
    assert {tuple((one.further or found[0].further).prompt_tokens) for one in found} == {(4,)}  # type: ignore[union-attr]
    assert load.longest_pair == (100 + 2 + 4, 2)


def test_conversations_are_paced_here_whatever_the_harness_and_all_turns_are_due(url: str, asked: Asked):
    spec = make_online_spec()
    assert spec.load is not None
    load = workload(2, prompts=2)
    sending = Sending(spec.load, load.turns)
    target = Target(f"{url}/v1", "m", {}, True, True, {"return_token_ids": True})
    requests = begun(load)
    prompts = [one.prompt_token_ids for one in requests]
    done = sending.prepare(requests, prompts, LoadPoint(request_rate=50.0), target, "seed")()
    assert [outcome.error for outcome in done.outcomes] == [None] * 4
    assert [round(50 * ((outcome.due_s or 0.0) - done.began_s)) for outcome in done.outcomes][::3] == [0, 3]


def test_an_answer_is_read_back_as_ids_and_text():
    events = [b'{"choices": [{"text": "a \\"b\\"", "token_ids": [1, 2]}]}', b'{"choices": [], "usage": null}']
    assert answer_of(events) == ([1, 2], 'a "b"')
    assert answer_of([*events, b'{"choices": [{"text": "c", "token_ids": null}]}']) == (None, 'a "b"c')
    assert answer_of([]) == (None, "")


def test_a_single_turn_is_no_conversation():
    assert workload(1).turns is None
    assert workload(2).turns == TalkTurns(count=2)
    assert "turns" not in workload(1).model_dump()
    fields = {"iteration": 0, "prompt": 0, "sample": 0, "prompt_tokens": 1, "output_tokens": 1, "finish_reason": None}
    assert "turn" not in SequenceRow.model_validate(fields).model_dump()
