"""What a replica tells of its share of a step: its own time, and what of it the step needed."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from launching import tiny_spec

from rollout_bench.contracts.record import ReplicaPass
from rollout_bench.measure.engine.entries import EntryPoint, Outcome
from rollout_bench.measure.engine.rollout import Share, told
from rollout_bench.measure.routing.exchange import Generate, Over

BEGAN = 100.0


class Unasked(EntryPoint):
    """An entry whose engine says nothing of itself."""

    async def generate(self, word: Generate) -> Outcome:
        raise AssertionError("nothing is generated here")

    async def reset(self) -> None:
        raise AssertionError("nothing is to be emptied here")


def part_of(back_s: dict[int, float], enough_s: float, dropped: Collection[int] = ()) -> ReplicaPass:
    """Return what is told where sequences of 16 tokens, each of another prompt, are back at these times."""
    share = Share(over=Over(began=BEGAN, enough=BEGAN + enough_s, dropped=sorted(dropped)))
    for number, at_s in back_s.items():
        share.words[number] = Generate(
            id=number, prompt=number, sample=0, prompt_token_ids=[3, 4], output_tokens=16, sent=BEGAN
        )
        share.outcomes[number] = Outcome([7] * 16, [-0.5] * 16, "length", 2, 0)
        share.back[number] = BEGAN + at_s
    (part,) = told(share, Unasked(2048), tiny_spec().workload, 0, False).iteration.replicas or []
    return part


def test_a_replica_s_own_time_ends_with_its_last_sequence() -> None:
    assert part_of({0: 1.0, 1: 3.0}, enough_s=4.0).elapsed_s == pytest.approx(3.0)


@pytest.mark.parametrize("dropped", [[1], [0, 1]])
def test_a_replica_generates_until_the_step_has_enough_whatever_of_it_is_kept(dropped: list[int]) -> None:
    part = part_of({0: 1.0, 1: 4.5}, enough_s=4.0, dropped=dropped)
    assert part.elapsed_s == pytest.approx(4.0)  # neither until what is kept was back, nor with abort and drain
    assert part.output_tokens == 16 * (2 - len(dropped))


def test_no_rate_counts_what_a_step_did_not_need() -> None:
    part = part_of({0: 1.0, 1: 4.5, 2: 4.6}, enough_s=4.0, dropped=[1, 2])
    assert (part.requests, part.sequences, part.prompt_tokens, part.output_tokens) == (1, 1, 2, 16)
    assert part.prompts == 3


def test_a_replica_that_has_nothing_left_to_do_is_done_before_the_step_has_enough() -> None:
    assert part_of({0: 1.0, 1: 2.0}, enough_s=4.0, dropped=[1]).elapsed_s == pytest.approx(2.0)


def test_a_replica_that_gets_nothing_of_a_step_takes_no_time() -> None:
    assert 0 < part_of({}, enough_s=4.0).elapsed_s < 1e-6
