"""A replica of a rollout tells what came of its sequences, whatever its entry can know of them."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from synthetic_rollouts import rollout_spec

from rollout_bench.measure.engine import server_entry
from rollout_bench.measure.engine.entries import EntryPoint, LlmEntry, Outcome, finite
from rollout_bench.measure.engine.rollout import Share, logprob_flags, row_of, told
from rollout_bench.measure.engine.server_entry import ServerEntry
from rollout_bench.measure.routing.exchange import Ended, Generate, Over, heard, written
from rollout_bench.measure.server.session import Opened

TOKENS = [5, 6, 7]


def outcome(logprobs: list[float | None] | None) -> Outcome:
    return Outcome(TOKENS, logprobs, "length", prompt_tokens=4, cached_prompt_tokens=None)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, None])
def test_a_log_probability_that_is_no_number_reaches_the_router_as_null(odd: float | None) -> None:
    said = Ended(id=0, token_ids=TOKENS, logprobs=finite([-0.5, odd, -1.0]), finish_reason="length")
    assert heard(written(said)) == said
    assert said.logprobs == [-0.5, None, -1.0]


def test_log_probabilities_that_lack_or_are_no_numbers_make_a_launch_invalid() -> None:
    workload = rollout_spec().workload
    unasked = workload.model_copy(update={"logprobs": None})
    good = outcome([-0.5, -0.25, -1.0])
    assert logprob_flags(workload, 3, [good, good]) == []
    for bad in (outcome(finite([-0.5, math.nan, -1.0])), outcome([-0.5]), outcome(None)):
        (flag,) = logprob_flags(workload, 3, [good, bad])
        assert (flag.code, flag.severity) == ("logprobs_missing", "invalid")
        assert flag.sentence.startswith("Iteration 3: 1 of 2 sequences")
        assert logprob_flags(unasked, 3, [bad]) == []  # nobody asked for them


class CountingEngine:
    """A loaded engine, as far as its counters go."""

    vocabulary = 100
    drafts = False

    def __init__(self, *preemptions: int) -> None:
        self._readings = iter(preemptions)

    def counters(self) -> Counter[str]:
        return Counter({"vllm:num_preemptions": next(self._readings), "vllm:prefix_cache_hits": 7})

    def reset_prefix_cache(self) -> None:
        """Do nothing."""


def through_llm(*preemptions: int) -> EntryPoint:
    return LlmEntry(cast("Any", CountingEngine(*preemptions)))


def through_server(*preemptions: int | None) -> EntryPoint:
    texts = iter("" if n is None else f'vllm:num_preemptions_total{{engine="0"}} {n}.0\n' for n in preemptions)
    opened = Opened(
        target=cast("Any", SimpleNamespace(url="http://here/v1", verify_tls=True)),
        connection=cast("Any", SimpleNamespace(metrics=lambda: next(texts))),
        served=cast("Any", None),
        facts=cast("Any", None),
        device={},
        world_size=1,
        vocabulary=100,
    )
    return ServerEntry(opened)


WORD = Generate(id=0, prompt=2, sample=1, prompt_token_ids=[1, 2, 3, 4], output_tokens=3, sent=100.5)
SPEC = rollout_spec(entry="server")


@pytest.mark.parametrize(
    ("through", "readings", "preemptions"),
    [
        (through_llm, (4, 9), 5),
        (through_llm, (4, 4), 0),
        (through_server, (4, 9), 5),
        (through_server, (4, 4), 0),
        (through_server, (None, None), None),
    ],
)
def test_preemptions_of_a_step_are_what_the_engine_s_own_counter_rose_by(
    through: Any, readings: Sequence[int | None], preemptions: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_entry, "open_session", lambda verify_tls: None)  # nothing is sent

    async def step() -> EntryPoint:
        entry: EntryPoint = through(*readings)
        await entry.reset()
        return entry

    share = Share({0: WORD}, {0: outcome([-0.5] * 3)}, {0: 102.0}, Over(began=100.0, enough=102.0, dropped=[]))
    done = told(share, asyncio.run(step()), SPEC.workload, 3, warmup=False)
    assert [part.preemptions for part in done.iteration.replicas or []] == [preemptions]
    assert [flag.code for flag in done.flags].count("preemptions") == bool(preemptions)


def test_behind_a_server_a_sequence_was_sent_when_its_http_request_was() -> None:
    of_router, of_client = outcome(None), Outcome(TOKENS, None, "length", 4, None, sent=101.25, last_token=103.0)
    rows = [row_of(WORD, came, 0, began=100.0, dropped=False) for came in (of_router, of_client)]
    assert [row.sent_s for row in rows] == [0.5, 1.25]
