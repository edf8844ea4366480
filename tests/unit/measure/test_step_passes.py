"""The passes of a calibration: they fit the engine, and have every kind of step."""

from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.modes.steps.passes import HOLD, Limits, Sent, passes, sizes

LIMITS = st.builds(
    Limits,
    sequences=st.integers(1, 1024),
    batched_tokens=st.integers(64, 8192),
    context_tokens=st.integers(64, 16_384),
    kv_tokens=st.integers(40_000, 400_000),
)


def decoding(sent: list[Sent], batched_tokens: int) -> list[int]:
    """Return how many sequences decode in each step, if prompts are computed in their order, as fast as possible."""
    begins, computed = [], 0
    for each in sent:
        computed += each.prompt_tokens
        begins.append(computed // batched_tokens)
    ends = [begin + each.output_tokens - 1 for begin, each in zip(begins, sent, strict=True)]
    return [sum(begin < step <= end for begin, end in zip(begins, ends, strict=True)) for step in range(max(ends) + 1)]


@given(LIMITS)
def test_every_pass_fits_the_engine(limits: Limits):
    for sent in passes(limits):
        assert all(each.prompt_tokens + each.output_tokens <= limits.context_tokens for each in sent)
        assert all(each.prompt_tokens >= 1 and each.output_tokens >= 1 for each in sent)
        falling = [each for each in sent if not each.after]
        assert len(falling) <= limits.sequences


def test_each_batch_size_decodes_at_short_and_long_contexts():
    limits = Limits(sequences=48, batched_tokens=512, context_tokens=2048, kv_tokens=100_000)
    short, long, *_ = passes(limits)
    for sent in (short, long):
        steps = decoding(sent, limits.batched_tokens)
        assert {size for size in sizes(48) if steps.count(size) >= HOLD - 1} == {*sizes(48)}
    assert long[0].prompt_tokens > 10 * short[0].prompt_tokens


def test_prompts_of_four_sizes_arrive_alone_and_beside_others():
    *_, alone, beside = passes(Limits(sequences=16, batched_tokens=512, context_tokens=256, kv_tokens=100_000))
    for sent in (alone, [each for each in beside if each.after]):
        together = [sum(e.prompt_tokens for e in sent if e.after == after) for after in sorted({e.after for e in sent})]
        assert together == [64, 64, 128, 128, 256, 256, 510, 510]
    assert sum(not each.after for each in beside) == 8
