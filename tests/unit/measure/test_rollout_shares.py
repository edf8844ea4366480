"""What a replica tells of its share of a step: its own time, and what its engine said meanwhile."""

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from launching import tiny_spec

from rollout_bench.measure.launch.protocol import IterationDone
from rollout_bench.modes.rollout.async_engine import EngineLooks, Outcome, finite
from rollout_bench.modes.rollout.exchange import Generate, Over
from rollout_bench.modes.rollout.worker import Share, logprob_flags, told

BEGAN = 100.0


def done(back_s: dict[int, float], preemptions: int = 0) -> IterationDone:
    """Return what is told where sequences of 16 tokens, each of another prompt, are back at these times."""
    share = Share(over=Over(began=BEGAN))
    for number, at_s in back_s.items():
        share.words[number] = Generate(
            id=number, prompt=number, sample=0, prompt_token_ids=[3, 4], output_tokens=16, sent=BEGAN
        )
        share.outcomes[number] = Outcome([7] * 16, [-0.5] * 16, "length", 2, 0)
        share.back[number] = BEGAN + at_s
    looks = EngineLooks()
    for _ in range(preemptions):
        looks.record(None, SimpleNamespace(num_preempted_reqs=1))
    entry = cast("Any", SimpleNamespace(looks=looks, drafting=lambda: None))
    return told(share, entry, tiny_spec().workload, 0, False)


def test_a_replica_s_own_time_ends_with_its_last_sequence() -> None:
    (part,) = done({0: 1.0, 1: 3.0}).iteration.replicas or []
    assert part.elapsed_s == pytest.approx(3.0)
    assert (part.requests, part.sequences, part.prompt_tokens, part.output_tokens, part.prompts) == (2, 2, 4, 32, 2)


TOKENS = [5, 6, 7]


def outcome(logprobs: list[float | None] | None) -> Outcome:
    return Outcome(TOKENS, logprobs, "length", prompt_tokens=4, cached_prompt_tokens=None)


def test_missing_or_nan_log_probabilities_make_a_launch_invalid() -> None:
    good = outcome([-0.5, -0.25, -1.0])
    assert logprob_flags(3, [good, good]) == []
    for bad in (outcome(finite([-0.5, math.nan, -1.0])), outcome([-0.5]), outcome(None)):
        (flag,) = logprob_flags(3, [good, bad])
        assert (flag.code, flag.severity) == ("logprobs_missing", "invalid")
        assert flag.sentence.startswith("Iteration 3: 1 of 2 sequences")
