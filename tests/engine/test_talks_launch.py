"""One launch of a server that goes on with conversations, on the real engine: what turns carry, and the cache has."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path

import pytest
from launching import SETTINGS, Launching, online_spec, own_flags

from rollout_bench.contracts.record import SequenceRow
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import sequences_path

pytestmark = [pytest.mark.engine, pytest.mark.untimed]


def test_a_turn_s_prompt_is_longer_by_the_answer_before_and_the_prefix_cache_has_all_but_what_is_new(
    tmp_path: Path,
) -> None:
    spec = online_spec(
        {"points": [{"concurrency": 2}]},
        workload={"prompts": 3, "samples_per_prompt": 1, "turns": {"count": 3, "prompt_tokens": 112}},
        engine={"args": {**SETTINGS["engine"]["args"], "max_model_len": 512}, "multiprocess": False},
        measuring={"warmup_iterations": 1, "iterations": 1},
    )
    launch = Launching(tmp_path, spec)
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    record, rows = launch.record(), read_sequences(sequences_path(launch.out), launch.record())
    talks: dict[tuple[int, int | None], list[SequenceRow]] = defaultdict(list)
    for row in rows:
        talks[row.iteration, row.conversation].append(row)
    assert len(talks) == 2 * 3
    for talk in talks.values():
        assert [row.turn for row in talk] == [0, 1, 2]
        # each has the prompt before, the 16 tokens that came, and 112 new ones
        assert [row.prompt_tokens for row in talk] == [130, 130 + 16 + 112, 258 + 16 + 112]
        assert {(row.output_tokens, row.status) for row in talk} == {(16, 200)}
        # whole blocks of 128: the second one of the last turn holds the first answer, so that was repeated as it came
        assert [row.cached_prompt_tokens for row in talk] == [0, 128, 256]
        ends = [(row.sent_s or 0.0, row.last_token_s or 0.0) for row in talk]
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))
    for iteration in record.iterations:
        assert iteration.requests == iteration.sequences == 9
        assert iteration.cached_prompt_tokens == 3 * 384
        assert iteration.server is not None
        assert (iteration.server.requests, iteration.server.prompt_tokens) == (9, iteration.prompt_tokens)
    assert [flag for flag in own_flags(record) if flag.severity == "invalid"] == []
