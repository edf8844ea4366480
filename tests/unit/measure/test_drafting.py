"""What a summary says of speculative decoding: shares by hand, and nothing where nobody drafts."""

from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.contracts.record import Drafting
from rollout_bench.measure.engine.vllm import LoadedEngine, drafting_of
from rollout_bench.measure.server.server_metrics import BY_POSITION, drafted
from rollout_bench.modes.rollout.async_engine import EngineLooks

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
    found = Drafting.together(parts)
    assert found is not None
    for name in ("drafts", "draft_tokens", "accepted_tokens"):
        assert getattr(found, name) == sum(getattr(part, name) for part in parts)
    assert sum(found.accepted_by_position) == sum(sum(part.accepted_by_position) for part in parts)
    assert Drafting.together([*parts, None]) is None


def test_counters_of_vllm_are_read_by_their_names_and_positions() -> None:
    def told(scale: int) -> list[Any]:
        counted = {"drafts": 10, "draft_tokens": 30, "accepted_tokens": 12}
        return [
            *(SimpleNamespace(name=f"vllm:spec_decode_num_{name}", value=scale * n) for name, n in counted.items()),
            SimpleNamespace(name="vllm:spec_decode_num_accepted_tokens_per_pos", values=[scale * n for n in (6, 4, 2)]),
            SimpleNamespace(name="vllm:num_preemptions", value=0),
            SimpleNamespace(name="vllm:something_else", value=7),
        ]

    engine = LoadedEngine.__new__(LoadedEngine)
    risen: Counter[str] = Counter()
    for scale, take in ((3, risen.update), (1, risen.subtract)):
        engine.llm = SimpleNamespace(get_metrics=lambda scale=scale: told(scale))
        take(engine.counters())
    assert drafting_of(risen) == Drafting(
        drafts=20, draft_tokens=60, accepted_tokens=24, accepted_by_position=[12, 8, 4]
    )
    nothing: Mapping[str, int] = {}
    assert drafting_of(nothing).accepted_by_position == []


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


def test_server_counters_tell_the_drafts_between_two_readings() -> None:
    assert drafted(metrics(1), metrics(3)) == Drafting(
        drafts=20, draft_tokens=60, accepted_tokens=24, accepted_by_position=[12, 8, 4]
    )


@pytest.mark.parametrize(
    "text", ["", "no metrics at all", "# TYPE vllm:prompt_tokens counter\nvllm:prompt_tokens_total 1\n"]
)
def test_a_server_without_such_counters_drafts_nothing(text: str) -> None:
    assert drafted(text, text) is None
