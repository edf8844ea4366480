"""What is read of speculative decoding while rollouts and servers generate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rollout_bench.contracts.record import Drafting
from rollout_bench.measure.engine.entries import EngineLooks
from rollout_bench.measure.server.server_metrics import BY_POSITION, drafted


def answer(looks: EngineLooks, drafts: Any = None) -> None:
    """Have `looks` take the answer to a step."""
    scheduler = SimpleNamespace(num_running_reqs=4, num_waiting_reqs=0, kv_cache_usage=0.25, spec_decoding_stats=drafts)
    looks.record(scheduler, SimpleNamespace(num_preempted_reqs=0))


def drafts(accepted: list[int], tokens: int) -> Any:
    return SimpleNamespace(
        num_drafts=2, num_draft_tokens=tokens, num_accepted_tokens=sum(accepted), num_accepted_tokens_per_pos=accepted
    )


def test_drafts_are_counted_for_the_whole_pass() -> None:
    looks = EngineLooks()
    answer(looks)
    assert looks.drafting is None
    answer(looks, drafts=drafts([2, 0, 0], 6))
    answer(looks)  # a step in which nothing was drafted
    answer(looks, drafts=drafts([2, 2, 1], 6))
    answer(looks, drafts=drafts([1, 1, 0], 3))
    assert looks.drafting == Drafting(drafts=6, draft_tokens=15, accepted_tokens=9, accepted_by_position=[5, 3, 1])


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


def test_a_server_s_counters_tell_what_it_drafted_between_two_readings() -> None:
    assert drafted(metrics(1), metrics(3)) == Drafting(
        drafts=20, draft_tokens=60, accepted_tokens=24, accepted_by_position=[12, 8, 4]
    )


@pytest.mark.parametrize(
    "text", ["", "no metrics at all", "# TYPE vllm:prompt_tokens counter\nvllm:prompt_tokens_total 1\n"]
)
def test_a_server_without_such_counters_drafts_nothing(text: str) -> None:
    assert drafted(text, text) is None
