"""What is read of speculative decoding while rollouts and servers generate: decode steps, and a server's counters."""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace
from typing import Any

import pytest

from rollout_bench.contracts.record import DecodeSteps, Drafting
from rollout_bench.measure.engine.entries import EngineLooks
from rollout_bench.measure.server.server_metrics import BY_POSITION, drafted


def answer(looks: EngineLooks, running: int, decoded: int, tokens: int, drafts: Any = None, prompts: int = 0) -> None:
    """Have `looks` take the answer to a step after which `running` sequences are left."""
    scheduler = SimpleNamespace(
        num_running_reqs=running, num_waiting_reqs=0, kv_cache_usage=0.25, spec_decoding_stats=drafts
    )
    step = SimpleNamespace(
        num_preempted_reqs=0,
        num_generation_tokens=tokens,
        time_to_first_tokens_iter=[0.1] * prompts,
        inter_token_latencies_iter=[0.01] * decoded,
    )
    looks.record(scheduler, step)


def drafts(accepted: list[int], tokens: int) -> Any:
    return SimpleNamespace(
        num_drafts=2, num_draft_tokens=tokens, num_accepted_tokens=sum(accepted), num_accepted_tokens_per_pos=accepted
    )


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> EngineLooks:
    """Return looks whose clock goes on by a second from one answer to the next."""
    ticks = itertools.count(1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    return EngineLooks()


def test_steps_are_counted_by_how_many_sequences_they_decoded(looks: EngineLooks) -> None:
    answer(looks, running=7, decoded=0, tokens=7, prompts=7)
    answer(looks, running=7, decoded=7, tokens=9)
    answer(looks, running=5, decoded=7, tokens=8)  # two of seven ended with it
    answer(looks, running=5, decoded=5, tokens=5)
    answer(looks, running=1, decoded=5, tokens=5)
    answer(looks, running=0, decoded=1, tokens=1)
    assert looks.decoding() == [
        DecodeSteps(at_most=1, steps=1, elapsed_s=1.0, sequences=1, output_tokens=1),
        DecodeSteps(at_most=8, steps=4, elapsed_s=4.0, sequences=24, output_tokens=27),
    ]
    assert looks.drafting is None


def test_a_step_that_computes_a_prompt_is_no_decode_step(looks: EngineLooks) -> None:
    answer(looks, running=2, decoded=1, tokens=2, prompts=1)
    answer(looks, running=2, decoded=1, tokens=1)  # a part of the other's prompt
    assert looks.decoding() == []


def test_the_first_answer_of_a_pass_tells_no_time(looks: EngineLooks) -> None:
    answer(looks, running=2, decoded=2, tokens=2)
    assert looks.decoding() == []
    answer(looks, running=2, decoded=2, tokens=2)
    assert [(each.steps, each.elapsed_s) for each in looks.decoding()] == [(1, 1.0)]
    looks.begin()
    answer(looks, running=2, decoded=2, tokens=2)
    assert looks.decoding() == []


def test_drafts_are_counted_with_their_steps_and_for_the_whole_pass(looks: EngineLooks) -> None:
    answer(looks, running=4, decoded=0, tokens=4, prompts=4)
    answer(looks, running=4, decoded=4, tokens=6, drafts=drafts([2, 0, 0], 6))
    answer(looks, running=4, decoded=4, tokens=4)  # in which nothing was drafted
    answer(looks, running=1, decoded=4, tokens=9, drafts=drafts([2, 2, 1], 6))
    answer(looks, running=0, decoded=1, tokens=3, drafts=drafts([1, 1, 0], 3))
    assert [(each.at_most, each.draft_tokens, each.accepted_tokens) for each in looks.decoding()] == [
        (1, 3, 2),
        (4, 12, 7),
    ]
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
