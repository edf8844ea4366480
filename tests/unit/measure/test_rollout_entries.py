"""A replica of a rollout tells what came of its sequences, their log probabilities too."""

from __future__ import annotations

import math

import pytest

from rollout_bench.measure.engine.entries import Outcome, finite
from rollout_bench.measure.engine.rollout import logprob_flags
from rollout_bench.measure.routing.exchange import Ended, heard, written

TOKENS = [5, 6, 7]


def outcome(logprobs: list[float | None] | None) -> Outcome:
    return Outcome(TOKENS, logprobs, "length", prompt_tokens=4, cached_prompt_tokens=None)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, None])
def test_a_log_probability_that_is_no_number_reaches_the_router_as_null(odd: float | None) -> None:
    said = Ended(id=0, token_ids=TOKENS, logprobs=finite([-0.5, odd, -1.0]), finish_reason="length")
    assert heard(written(said)) == said
    assert said.logprobs == [-0.5, None, -1.0]


def test_log_probabilities_that_lack_or_are_no_numbers_make_a_launch_invalid() -> None:
    good = outcome([-0.5, -0.25, -1.0])
    assert logprob_flags(3, [good, good]) == []
    for bad in (outcome(finite([-0.5, math.nan, -1.0])), outcome([-0.5]), outcome(None)):
        (flag,) = logprob_flags(3, [good, bad])
        assert (flag.code, flag.severity) == ("logprobs_missing", "invalid")
        assert flag.sentence.startswith("Iteration 3: 1 of 2 sequences")
