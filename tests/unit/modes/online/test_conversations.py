"""Conversations behind a server: what each turn sends, when it does, and what ends one."""

import itertools
from typing import Any

import pytest
from planned import planned
from samples.online import make_online_spec
from stub_server import Stub

from rollout_bench.contracts.load import Turns
from rollout_bench.contracts.record import SequenceRow
from rollout_bench.core.errors import UserError
from rollout_bench.measure.server.paced import prepare
from rollout_bench.measure.server.served import iteration_of, rows_of
from rollout_bench.measure.server.stream import Load, LoadPass, Prompt, Target
from rollout_bench.modes.online.worker import first_turns_flags
from rollout_bench.workloads.requests import Request, Turn

THINKS_S = 0.2
IDS = {"return_token_ids": True}


@pytest.fixture
def stub(server: Stub) -> Stub:
    server.become(ttft_ms=20, itl_ms=5, keeps_bodies=True)
    return server


def asked(count: int, turns: int = 3) -> list[Request]:
    """Return conversations whose prompt, and each user's part, begin with their number."""
    return [
        Request(number, 0, [number, 11], 2, further=(Turn(THINKS_S, [number, 12], 3),) * (turns - 1))
        for number in range(count)
    ]


def talk(
    stub: Stub, requests: list[Request], concurrency: int | None = None, *, text: bool = False, **more: Any
) -> LoadPass:
    def sent(ids: list[int]) -> Prompt:
        return " ".join(map(str, ids)) if text else ids

    target = Target(f"{stub.url}/v1", "stub", {}, True, more.pop("body", IDS), chat=more.pop("chat", False))
    load = Load(
        requests,
        [sent(one.prompt_token_ids) for one in requests],
        more.pop("due_s", None),
        concurrency,
        more.pop("count", len(requests)),
        said=[[sent(turn.tool_token_ids) for turn in one.further] for one in requests],
        **more,
    )
    return prepare(load, target)()


def bodies(stub: Stub) -> list[dict[str, Any]]:
    return [one["body"] for one in stub.truth()["requests"]]


def test_each_turn_repeats_the_last_prompt_and_the_answer_s_own_tokens(stub: Stub):
    done = talk(stub, asked(1), 1)
    first, second = [0, 11], [0, 11, 5, 5, 0, 12]  # the stub answers with 5
    assert [body["prompt"] for body in bodies(stub)] == [first, second, [*second, 5, 5, 5, 0, 12]]
    assert [body["max_tokens"] for body in bodies(stub)] == [2, 3, 3]
    rows = rows_of(done.turns, done, 0)
    assert [(row.turn, row.prompt_tokens, row.output_tokens) for row in rows] == [(1, 2, 2), (2, 6, 3), (3, 11, 3)]
    assert [row.error for row in rows] == [None] * 3


def test_a_chat_repeats_its_messages_and_a_text_its_text(stub: Stub):
    talk(stub, asked(1, 2), 1, text=True, chat=True, body={})
    done = talk(stub, asked(1, 2), 1, text=True, body={})
    assert [len(turn.prompt_token_ids) for turn in done.turns] == [2, 2 + 2 + 2]
    *_, chat, _, text = bodies(stub)
    said = [("user", "0 11"), ("assistant", " a a"), ("user", "0 12")]
    assert [(message["role"], message["content"]) for message in chat["messages"]] == said
    assert text["prompt"] == "0 11 a a 0 12"


def test_a_user_thinks_between_an_answer_and_the_next_turn(stub: Stub):
    done = talk(stub, asked(2), 2)
    assert all(outcome.due_s <= outcome.sent_s for outcome in done.outcomes)
    for number in (0, 1):
        own = [o for o, (place, _) in zip(done.outcomes, done.sent, strict=True) if place == number]
        waited = [after.sent_s - before.ended_s for before, after in itertools.pairwise(own)]
        assert all(THINKS_S <= each < 20 * THINKS_S for each in waited)


def test_a_limit_counts_conversations_also_while_their_users_think(stub: Stub):
    for due_s in (None, [0.0, 0.0]):
        done = talk(stub, asked(2, 2), 1, due_s=due_s)
        assert done.sent[-1] == (1, 0)
        ends = {number: [] for number in (0, 1)}
        for outcome, (number, _) in zip(done.outcomes, done.sent, strict=True):
            ends[number] += [outcome.sent_s, outcome.ended_s]
        assert max(ends[0]) <= min(ends[1])


def test_a_rate_is_that_of_the_conversations_beginnings(stub: Stub):
    done = talk(stub, asked(2, 2), due_s=[0.0, 0.1])
    first = [one.due_s - done.began_s for one, turn in zip(done.outcomes, done.turns, strict=True) if turn.turn == 1]
    assert first == pytest.approx([0.0, 0.1])
    assert len(done.outcomes) == 4


def test_a_conversation_ends_with_a_turn_that_fails(stub: Stub):
    stub.become(status=500, status_share=1.0)
    done = talk(stub, asked(2), 1)
    assert [(turn.turn, outcome.status) for turn, outcome in zip(done.turns, done.outcomes, strict=True)] == [
        (1, 500)
    ] * 2


def test_an_answer_without_its_token_ids_cannot_be_repeated(stub: Stub):
    done = talk(stub, asked(1), 1, body={})
    (outcome,) = done.outcomes
    assert outcome.error == "0 token ids came with 2 tokens, and the next turn repeats them"


def test_no_turn_follows_after_the_time(stub: Stub):
    done = talk(stub, asked(1, 9), 1, count=None, duration_s=2.5 * THINKS_S)
    assert 2 <= len(done.outcomes) < 9
    assert [turn.turn for turn in done.turns] == [*range(1, len(done.turns) + 1)]
    assert done.elapsed_s < 20 * THINKS_S


@pytest.mark.parametrize("pace", [{"concurrency": 2}, {"due_s": [0.0] * 7}, {"due_s": [0.0] * 7, "concurrency": 1}])
def test_open_conversations_take_turns_and_begin_again_after_their_end(stub: Stub, pace: dict[str, Any]):
    done = talk(stub, asked(2, 2), **pace, count=7, rotating=True)
    turns = [(number, turn.turn) for number, turn in zip(done.sent, done.turns, strict=True)]
    assert turns == [((n, r), k) for r in (0, 1) for k in (1, 2) for n in (0, 1)][:7]
    assert [one.error for one in done.outcomes] == [None] * 7
    prompts = [body["prompt"] for body in bodies(stub)]
    assert sorted(prompts)[:5] == [[0, 11]] * 2 + [[0, 11, 5, 5, 0, 12]] * 2 + [[1, 11]]
    own = [one for one, number in zip(done.outcomes, done.sent, strict=True) if number[0] == 0]
    assert all(after.sent_s - before.ended_s >= THINKS_S for before, after in itertools.pairwise(own))


def test_only_a_first_turn_that_finds_too_much_in_the_cache_is_flagged():
    turns = [Request(number, 0, [number, turn, *range(8)], 2, turn=turn) for number in (0, 1) for turn in (1, 2)]
    done = LoadPass(0.0, 1.0, [], None, [])  # type: ignore[arg-type]
    spec = make_online_spec()
    for first, codes in ((0, []), (4, ["cross_iteration_prefix_hits"])):
        rows = [row_of(turn, cached=first if turn.turn == 1 else 30) for turn in turns]
        iteration = iteration_of(0, False, spec.load.points[0], done, rows)
        assert [flag.code for flag in first_turns_flags(turns, iteration, rows)] == codes


def row_of(request: Request, cached: int) -> SequenceRow:
    return SequenceRow(
        iteration=0,
        prompt=request.prompt,
        sample=0,
        turn=request.turn,
        prompt_tokens=10,
        output_tokens=2,
        finish_reason="length",
        cached_prompt_tokens=cached,
    )


SERVER = {"url": "http://127.0.0.1:1/v1", "model": "m", "api_key_env": None}
TALK = {"count": 3, "tool_ms": 500, "tool_tokens": 8}


def plan_of(**changes: Any) -> Any:
    load = {"prompts": 4, "samples_per_prompt": 1, "prompt_tokens": 16, "output_tokens": 4, "turns": TALK}
    config = {"modes": ["online"], "models": [], "endpoints": {"s": SERVER}, "workloads": ["w"]}
    return planned(config | {"workload_settings": {"w": load | {"online": {"concurrency": 2}}}} | changes)


def test_conversations_are_planned_and_their_longest_context_is_known():
    [experiment] = plan_of().experiments
    assert experiment.spec.workload.turns == Turns(**TALK)
    assert experiment.spec.workload.longest_pair == (16 + 2 * 8, 3 * 4)


def test_a_command_that_sends_single_requests_is_refused():
    with pytest.raises(UserError, match=r"w\.turns: rollout-bench supports vllm bench serve with single requests only"):
        plan_of(
            harness="vllm-bench",
            endpoints={"s": SERVER | {"tokenizer": "a/b"}},
            workload_settings={
                "w": {
                    "prompts": 4,
                    "prompt_tokens": 16,
                    "output_tokens": 4,
                    "turns": TALK,
                    "online": {"concurrency": 2, "prompts_as": "text"},
                }
            },
        )


def test_open_conversations_count_turns_and_others_conversations():
    [experiment] = plan_of(
        workload_settings={
            "w": {
                "prompts": 4,
                "samples_per_prompt": 1,
                "prompt_tokens": 16,
                "output_tokens": 4,
                "turns": TALK,
                "online": {"request_rate": 2, "duration_s": 30, "conversations": "rotating"},
            }
        }
    ).experiments
    assert experiment.spec.load is not None
    assert [point.due_requests for point in experiment.spec.load.points] == [60]
    assert experiment.spec.load.rotates


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ({"turns": None}, "rotating: the workload has no turns"),
        ({"online": {"request_rate": "trace", "conversations": "rotating"}}, "rotating has no trace of turns"),
    ],
)
def test_what_cannot_rotate_is_refused(load: dict[str, Any], words: str):
    own = {"prompts": 4, "samples_per_prompt": 1, "prompt_tokens": 16, "output_tokens": 4, "turns": TALK}
    with pytest.raises(UserError, match=words):
        plan_of(workload_settings={"w": own | {"online": {"concurrency": 2, "conversations": "rotating"}} | load})
