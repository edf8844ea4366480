"""Rollouts: the router and its policies, shares of a step, and drafts."""

import asyncio
import itertools
import math
import os
import select
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launching import tiny_spec
from made_workloads import workload

from rollout_bench.contracts.record import Drafting, ReplicaPass, TurnRow
from rollout_bench.contracts.spec import WorkloadSpec
from rollout_bench.measure.launch.replicas import merged_iteration
from rollout_bench.measure.server.server_metrics import BY_POSITION, drafted
from rollout_bench.modes.rollout.async_engine import ended_of, finite
from rollout_bench.modes.rollout.exchange import Ended, Generate, message_of, written
from rollout_bench.modes.rollout.record import Surplus
from rollout_bench.modes.rollout.router import RoutedStep, Router
from rollout_bench.modes.rollout.settings import RolloutSpec, RouterPolicy
from rollout_bench.modes.rollout.turns import Answer, Trajectory, answers_of, trajectory_of, turns_use
from rollout_bench.modes.rollout.worker import logprob_flags, surplus_of, turn_flags
from rollout_bench.workloads.policies import (
    POLICIES,
    Balancer,
)
from rollout_bench.workloads.requests import Request, Source, Turn


@pytest.fixture
def routed() -> Iterator[tuple[Router, list[socket.socket]]]:
    """Yield a router whose step is under way, and the replicas' ends of its lines."""
    spec = tiny_spec(workload={"logprobs": 0})
    spec = spec.model_copy(update={"mode": "rollout", "rollout": RolloutSpec(router="round_robin")})
    router = Router(spec, 0, lambda workload, vocabulary: Source(workload, vocabulary, "none"))
    ends = [socket.socket(fileno=os.dup(line)) for line in router.connect(2)]
    router.connected()
    router.ready(2048)
    router.prepare()
    router.begin()
    yield router, ends
    for end in ends:
        end.close()
    router.close()


def test_a_vanished_replica_ends_the_router_silently(routed: tuple[Router, list[socket.socket]]) -> None:
    router, ends = routed
    ends[1].close()
    router.thread.join(50)
    assert not router.thread.is_alive()
    assert not select.select([router.descriptor], [], [], 0)[0]
    router.check()


def test_what_the_router_fails_with_wakes_the_supervisor(routed: tuple[Router, list[socket.socket]]) -> None:
    router, ends = routed
    ends[0].sendall(b"no word\n")
    assert select.select([router.descriptor], [], [], 10)[0]
    with pytest.raises(ValueError, match="Invalid JSON"):
        router.check()


ENGINES = st.integers(1, 16)
NAMES = list(POLICIES)


def handed_out(policy: RouterPolicy, engines: int, prompts: int, samples: int) -> list[list[int]]:
    """Return for each prompt the engines of its samples, where nothing ends meanwhile."""
    balancer = Balancer(policy, engines)
    return [[balancer.choose(prompt) for _ in range(samples)] for prompt in range(prompts)]


@pytest.mark.parametrize("policy", NAMES)
@given(engines=ENGINES, ends=st.lists(st.booleans(), min_size=1, max_size=60))
def test_each_engine_is_one_of_them_and_the_same_again(policy: RouterPolicy, engines: int, ends: list[bool]) -> None:
    def choices() -> list[int]:
        balancer, found = Balancer(policy, engines), list[int]()
        for number, end in enumerate(ends):
            found.append(balancer.choose(number // 3))
            if end:
                balancer.ended(found[-1])
        assert sum(balancer.in_flight) == ends.count(False)
        return found

    first = choices()
    assert set(first) <= set(range(engines))
    assert first == choices()


@pytest.mark.parametrize("policy", ["least_in_flight", "round_robin"])
@given(engines=ENGINES, prompts=st.integers(1, 20), samples=st.integers(1, 9))
def test_engines_get_as_many_while_nothing_ends(policy: RouterPolicy, engines: int, prompts: int, samples: int) -> None:
    counts = Counter(itertools.chain(*handed_out(policy, engines, prompts, samples)))
    assert max(counts.values()) - min(counts[engine] for engine in range(engines)) <= 1


@given(engines=ENGINES, prompts=st.integers(1, 20), samples=st.integers(1, 9))
def test_sticky_keeps_samples_together_and_spreads_prompts(engines: int, prompts: int, samples: int) -> None:
    found = handed_out("sticky", engines, prompts, samples)
    assert all(len(set(of_prompt)) == 1 for of_prompt in found)
    counts = Counter(of_prompt[0] for of_prompt in found)
    assert max(counts.values()) - min(counts[engine] for engine in range(engines)) <= 1


TOKENS = [5, 6, 7]


def outcome(logprobs: list[float | None] | None) -> Ended:
    return Ended(id=0, token_ids=TOKENS, logprobs=logprobs, finish_reason="length")


def test_missing_or_nan_log_probabilities_make_a_launch_invalid() -> None:
    good = outcome([-0.5, -0.25, -1.0])
    assert logprob_flags(3, [good, good]) == []
    for bad in (outcome(finite([-0.5, math.nan, -1.0])), outcome([-0.5]), outcome(None)):
        (flag,) = logprob_flags(3, [good, bad])
        assert (flag.code, flag.severity) == ("logprobs_missing", "invalid")
        assert flag.sentence.startswith("Iteration 3: 1 of 2 sequences")


def test_an_over_sampled_step_ends_with_the_groups_it_needs() -> None:
    step = RoutedStep(
        [Request(number // 2, number % 2, [number], 4) for number in range(8)], 2, [0, 0, 1, 1, 2, 2, 3, 3]
    )
    step.engine_of = {number: number % 2 for number in range(7)}  # the last one was not sent any more
    assert [step.take(result(number), 1.0 * number) for number in (0, 2, 4, 5)] == [False] * 4
    assert step.take(result(3), 7.0)  # prompts 2 and 1 are whole, 0 is half done
    assert (step.kept, step.enough) == ({1, 2}, 7.0)
    assert not step.take(result(1, 3, "abort"), 8.0)
    assert not step.take(result(6, 0, "abort"), 8.0)
    assert [step.dropped(engine) for engine in (0, 1)] == [[0, 6], [1]]
    rest = Request(0, 1, [1, 7, 7, 7], 1, made=3)
    assert step.unfinished() == [[rest], [step.asked[6], step.asked[7]]]
    whole = RoutedStep(step.asked, 4, step.groups)
    assert not any(whole.take(result(number), 1.0) for number in range(8))
    assert (whole.enough, whole.dropped(0), whole.unfinished()) == (None, [], [])


def result(number: int, tokens: int = 4, reason: str = "length") -> Ended:
    return Ended(id=number, token_ids=[7] * tokens, logprobs=[-0.5] * tokens, finish_reason=reason)


def test_what_a_step_left_unfinished_goes_on_before_new_prompts() -> None:
    spec = tiny_spec(workload={"prompts": 2, "samples_per_prompt": 2})
    own = {"mode": "rollout", "rollout": RolloutSpec(over_sample=2.0, partial=True)}
    rollout = spec.model_copy(update=own)

    def source(load: WorkloadSpec, vocabulary: int) -> Source:
        return Source(load, vocabulary, "none")

    router = Router(rollout, 0, source)
    router.ready(2048)
    router.prepare()
    first = router.step
    assert (first.groups, first.needed) == ([0, 0, 1, 1, 2, 2, 3, 3], 2)
    first.engine_of = dict.fromkeys(range(8), 0)
    for number in (2, 3, 6, 7):
        first.take(result(number), 1.0)
    for number, tokens, reason in ((0, 2, "abort"), (1, 4, "length"), (4, 4, "length"), (5, 4, "length")):
        first.take(result(number, tokens, reason), 2.0)
    router.index += 1
    router.prepare()
    second = router.step
    assert second.needed == 1  # the group that was whole too late is there already
    assert second.asked[0] == Request(2, 0, [*first.asked[0].prompt_token_ids, 7, 7], 14, made=2)
    assert [(one.prompt, one.sample) for one in second.asked[1:]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len(set(second.groups)) == 3
    router.follow(rollout, 1, source)  # another launch begins with nothing
    router.ready(2048)
    router.prepare()
    assert len(router.step.asked) == 8
    router.close()


@given(prompts=st.integers(1, 1000), percent=st.integers(101, 300))
def test_a_step_sends_no_prompt_more_than_asked(prompts: int, percent: int) -> None:
    assert RolloutSpec(over_sample=percent / 100).sent(prompts) == -(-prompts * percent // 100)
    assert RolloutSpec().sent(prompts) == prompts


class Echo:
    """Answers each request with as many sevens as it asks for, from a cache of all but the last context's token."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.enough = asyncio.Event()

    async def generate(self, token_ids: list[int], output_tokens: int) -> object:
        self.asked.append(token_ids)
        logprobs = [{7: SimpleNamespace(logprob=-0.5)}] * output_tokens
        of = SimpleNamespace(token_ids=[7] * output_tokens, logprobs=logprobs, finish_reason="length")
        return SimpleNamespace(outputs=[of], prompt_token_ids=token_ids, num_cached_tokens=0, metrics=None)


def chain(*further: Turn) -> tuple[Echo, Trajectory]:
    """Return the engine and a sequence with these turns after the first."""
    engine = Echo()
    word = Generate(id=3, prompt=1, sample=0, prompt_token_ids=[1, 2], output_tokens=2, further=further, sent=0.0)
    word = message_of(written(word))

    async def all_of() -> list[Answer]:
        return [answer async for answer in answers_of(word, engine)]

    return engine, trajectory_of(word, asyncio.run(all_of()), 0, 0.0)


def test_each_turn_asks_with_all_answers_and_tools_so_far() -> None:
    engine, made = chain(Turn(0.02, [8, 9], 1), Turn(0.03, [4], 3))
    assert engine.asked == [[1, 2], [1, 2, 7, 7, 8, 9], [1, 2, 7, 7, 8, 9, 7, 4]]
    assert made.answers[1].sent - made.answers[0].back >= 0.02
    ended = ended_of(3, [answer.output for answer in made.answers])
    assert (ended.token_ids, ended.logprobs, ended.finish_reason) == ([7] * 6, [-0.5] * 6, "length")
    row = made.row
    assert not made.aborted
    assert (row.prompt_tokens, row.output_tokens, row.cached_prompt_tokens) == (2 + 6 + 8, 6, 0)


def test_enough_ends_a_sequence_in_its_tool() -> None:
    async def run() -> tuple[Echo, Trajectory]:
        engine = Echo()
        further = (Turn(1000.0, [8], 2),)
        word = Generate(id=0, prompt=0, sample=0, prompt_token_ids=[1], output_tokens=2, further=further, sent=0.0)
        asyncio.get_running_loop().call_later(0.01, engine.enough.set)
        return engine, trajectory_of(word, [answer async for answer in answers_of(word, engine)], 0, 0.0)

    engine, made = asyncio.run(run())
    assert made.aborted
    assert engine.asked == [[1]]
    thrown_away = Surplus(sequences=1, aborted=1, output_tokens=2, drain_s=0.5)
    assert surplus_of([made], [0], 0.5, goes_on=False) == thrown_away
    assert surplus_of([made], [], 0.5, goes_on=False).sequences == 0
    kept = Surplus(sequences=0, aborted=1, output_tokens=0, drain_s=0.5, again_tokens=0)
    assert surplus_of([made], [0], 0.5, goes_on=True) == kept
    old = replace(made, word=made.word.model_copy(update={"made": 1}))
    assert surplus_of([old], [0], 0.5, goes_on=True).again_tokens == 1


def test_a_turn_of_another_length_makes_a_launch_invalid() -> None:
    _, made = chain(Turn(0.0, [8], 2))
    whole = merged_iteration(0, False, [ReplicaPass.model_validate(PART)])
    assert turn_flags(workload(), [made], whole) == []
    made.answers[1].output.outputs[0].token_ids.pop()
    (flag,) = turn_flags(workload(), [trajectory_of(made.word, made.answers, 0, 0.0)], whole)
    assert flag.code == "token_count"


PART = dict.fromkeys(("start_offset_s", "requests", "sequences", "prompt_tokens", "output_tokens"), 0) | {
    "elapsed_s": 1
}


def turn(sent_s: float, back_s: float, tokens: int, cached: int) -> TurnRow:
    return TurnRow(sent_s=sent_s, back_s=back_s, prompt_tokens=tokens, cached_prompt_tokens=cached, output_tokens=10)


def test_an_engine_idles_while_all_its_sequences_are_in_tools() -> None:
    one = [turn(1, 2, 100, 0), turn(5, 6, 130, 96)]  # in its tool from 2 to 5
    other = [turn(1, 3, 50, 0), turn(4, 7, 70, 60), turn(9, 10, 90, 0)]  # and from 3 to 4, 7 to 9
    use = turns_use([one, other])
    assert (use.answers, use.answer_s, use.tool_s, use.all_in_tools_s) == (5, 8, 6, 3)
    assert (use.context_tokens, use.recomputed_tokens) == (110 + 60 + 80, (110 - 96) + 0 + 80)


DRAFTINGS = st.lists(
    st.builds(
        Drafting,
        drafts=st.integers(0, 100),
        draft_tokens=st.integers(0, 300),
        accepted_tokens=st.integers(0, 300),
        accepted_by_position=st.lists(st.integers(0, 100), max_size=4),
    ),
    min_size=1,
    max_size=5,
)


@given(DRAFTINGS)
def test_what_replicas_drafted_adds_up(parts: list[Drafting]) -> None:
    def counts(drafting: Drafting) -> tuple[int, ...]:
        by_position = sum(drafting.accepted_by_position)
        return drafting.drafts, drafting.draft_tokens, drafting.accepted_tokens, by_position

    assert counts(Drafting.together(parts)) == tuple(map(sum, zip(*map(counts, parts), strict=True)))
    assert Drafting.together([*parts, None]) is None


def metrics(scale: int) -> str:
    return "\n".join(
        [
            "# TYPE vllm:spec_decode_num_drafts counter",
            f'vllm:spec_decode_num_drafts_total{{engine="0",model_name="m"}} {10 * scale}.0',
            "# TYPE vllm:spec_decode_num_draft_tokens counter",
            f'vllm:spec_decode_num_draft_tokens_total{{engine="0",model_name="m"}} {30 * scale}.0',
            "# TYPE vllm:spec_decode_num_accepted_tokens counter",
            f'vllm:spec_decode_num_accepted_tokens_total{{engine="0",model_name="m"}} {12 * scale}.0',
            "# TYPE vllm:spec_decode_num_accepted_tokens_per_pos counter",
            *(
                f'{BY_POSITION}{{engine="{engine}",position="{place}"}} {scale * n}'
                for engine in (0, 1)
                for place, n in enumerate((3, 2, 1))
            ),
        ]
    )


def test_server_counters_tell_the_drafts_between_two_readings() -> None:
    counts = {"drafts": 20, "draft_tokens": 60, "accepted_tokens": 24, "accepted_by_position": [12, 8, 4]}
    assert drafted(metrics(1), metrics(3)) == Drafting(**counts)


@pytest.mark.parametrize(
    "text", ["", "no metrics at all", "# TYPE vllm:prompt_tokens counter\nvllm:prompt_tokens_total 1\n"]
)
def test_a_server_without_such_counters_drafts_nothing(text: str) -> None:
    assert drafted(text, text) is None
