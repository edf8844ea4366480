"""Speculative decoding on the real engine: a record has what was drafted, by vLLM's own counters, in each pass."""

from __future__ import annotations

import pytest
from launching import SETTINGS, Launching, own_flags, tiny_spec

from rollout_bench.contracts.record import Record

pytestmark = [pytest.mark.engine, pytest.mark.untimed]

NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    args = {**SETTINGS["engine"]["args"], "speculative_config": NGRAM}
    # without chance a model of random weights soon says the same again and again, which drafts foresee
    spec = tiny_spec(engine={"args": args}, workload={"temperature": 0.0, "output_tokens": 96})
    launch = Launching(tmp_path_factory.mktemp("ngram"), spec)
    launch.wait_for("measuring")
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return launch.record()


def test_each_pass_has_what_was_drafted_and_what_of_it_was_accepted(record: Record) -> None:
    # vLLM says that it can't schedule ahead with n-grams: a warning that the summary passes on, and nothing else
    assert {(flag.code, flag.severity) for flag in own_flags(record)} <= {("engine_fallback", "warning")}
    for iteration in record.iterations:
        assert iteration.output_tokens == 8 * 96
        done = iteration.drafting
        assert done is not None
        assert 0 < done.drafts <= done.draft_tokens <= 3 * done.drafts
        assert 0 < done.accepted_tokens <= done.draft_tokens
        # accepted are the first tokens of a draft, up to the first that is not
        assert len(done.accepted_by_position) == 3
        assert sum(done.accepted_by_position) == done.accepted_tokens
        assert done.accepted_by_position == sorted(done.accepted_by_position, reverse=True)
        assert done.accepted_by_position[0] <= done.drafts


def test_what_is_accepted_are_tokens_of_the_pass(record: Record) -> None:
    for iteration in record.iterations:
        assert iteration.drafting is not None
        # of each sequence's last draft, some may lie beyond its end
        assert iteration.drafting.accepted_tokens <= iteration.output_tokens + 3 * iteration.sequences
