"""The passes of a calibration: they fit the engine, and have every kind of step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.modes.steps.passes import APART, HOLD, Limits, SentSequence, passes, sizes

LIMITS = st.builds(
    Limits,
    sequences=st.integers(1, 1024),
    batched_tokens=st.integers(64, 8192),
    context_tokens=st.integers(64, 16_384),
    kv_tokens=st.integers(40_000, 400_000),
)


def decoding(sent: list[SentSequence], batched_tokens: int) -> list[int]:
    """Return how many sequences decode in each step, if prompts are computed in their order, as fast as possible."""
    begins, computed = [], 0
    for each in sent:
        computed += each.prompt_tokens
        begins.append(computed // batched_tokens)
    ends = [begin + each.output_tokens - 1 for begin, each in zip(begins, sent, strict=True)]
    return [sum(begin < step <= end for begin, end in zip(begins, ends, strict=True)) for step in range(max(ends) + 1)]


@given(LIMITS, st.integers(1, 16))
def test_every_pass_fits_the_engine(limits: Limits, samples: int):
    *falling, replacing = passes(limits, samples)
    for sent in (*falling, replacing):
        assert all(each.prompt_tokens + each.output_tokens <= limits.context_tokens for each in sent)
        assert all(each.prompt_tokens >= 1 and each.output_tokens >= 1 for each in sent)
    assert all(len(sent) <= limits.sequences for sent in falling)
    assert len(replacing) >= limits.sequences


def test_each_batch_size_decodes_at_short_and_long_contexts():
    limits = Limits(sequences=48, batched_tokens=512, context_tokens=2048, kv_tokens=100_000)
    short, long, *_ = passes(limits, 1)
    for sent in (short, long):
        steps = decoding(sent, limits.batched_tokens)
        assert {size for size in sizes(48) if steps.count(size) >= HOLD - 1} == {*sizes(48)}
    assert long[0].prompt_tokens > 10 * short[0].prompt_tokens


@pytest.mark.parametrize(("sequences", "context"), [(256, 64), (256, 192), (1024, 256)])
def test_each_batch_size_decodes_however_short_contexts_are(sequences: int, context: int):
    short, *_ = passes(Limits(sequences, batched_tokens=8192, context_tokens=context, kv_tokens=400_000), 1)
    assert {*sizes(sequences)} <= {*decoding(short, 8192)}


def test_samples_of_a_prompt_make_a_pass_of_their_own():
    limits = Limits(sequences=64, batched_tokens=512, context_tokens=2048, kv_tokens=100_000)
    shared = [sent for sent in passes(limits, 8) if len({each.prompt for each in sent}) < len(sent)]
    assert [(len(sent), len({each.prompt for each in sent})) for sent in shared] == [(16, 2)]
    assert len([*passes(limits, 1)]) == len([*passes(limits, 8)]) - 1


def test_prompts_of_four_sizes_take_the_places_of_others():
    *_, sent = passes(Limits(sequences=16, batched_tokens=528, context_tokens=1024, kv_tokens=100_000), 8)
    assert [each.prompt_tokens for each in sent[16:]] == [64, 128, 256, 512] * 4
    ending = [each.output_tokens for each in sent[:16]]
    assert ending == [APART * (number + 1) for number in range(16)]
