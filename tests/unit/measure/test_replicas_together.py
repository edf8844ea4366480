"""Several replicas make one iteration and one start: sums, the slowest, and the same in whatever order they tell."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import make_record

from rollout_bench.contracts.record import EngineFacts, Flag, Iteration, SequenceRow
from rollout_bench.measure.launch.protocol import Done, Event, IterationBegins, IterationDone, PhaseBegins, Ready
from rollout_bench.measure.launch.replicas import (
    ReplicaEvents,
    apart_flags,
    difference_flags,
    done_together,
    merge_events,
)

FLAG = Flag(code="preemptions", severity="warning", sentence="3 preemptions.")

seconds = st.floats(0.001, 100)


def row(prompt: int, sample: int, tokens: int, end_s: float) -> SequenceRow:
    counts = {"prompt": prompt, "sample": sample, "prompt_tokens": 8, "output_tokens": tokens}
    return SequenceRow(iteration=3, **counts, finish_reason="length", queued_s=0.0, last_token_s=end_s)


@st.composite
def passes(draw: st.DrawFn) -> IterationDone:
    """Return what a replica tells of its pass; the numbers of prompts are the same on all."""
    elapsed_s = draw(seconds)
    tokens = draw(st.lists(st.integers(1, 500), min_size=4, max_size=4))
    rows = [row(number // 2, number % 2, each, elapsed_s * (number + 1) / 4) for number, each in enumerate(tokens)]
    iteration = Iteration(
        index=3,
        warmup=False,
        elapsed_s=elapsed_s,
        requests=4,
        sequences=4,
        prompt_tokens=32,
        cached_prompt_tokens=draw(st.sampled_from([16, 0])),
        output_tokens=sum(tokens),
    )
    return IterationDone(iteration=iteration, sequences=rows, flags=[], began=1000 + draw(st.floats(0, 1)))


@given(st.lists(passes(), min_size=2, max_size=9))
def test_an_iteration_is_the_step_of_all_replicas(replicas: list[IterationDone]) -> None:
    together = done_together(replicas)
    step, parts, alone = together.iteration, together.iteration.replicas, [done.iteration for done in replicas]
    for count in ("requests", "sequences", "prompt_tokens", "cached_prompt_tokens", "output_tokens"):
        assert getattr(step, count) == sum(getattr(one, count) for one in alone)
        assert [getattr(part, count) for part in parts] == [getattr(one, count) for one in alone]
    ends = [done.began + done.iteration.elapsed_s for done in replicas]
    assert step.elapsed_s == pytest.approx(max(ends) - min(done.began for done in replicas), abs=1e-9)
    assert step.elapsed_s >= max(one.elapsed_s for one in alone)
    assert min(part.start_offset_s for part in parts) == 0
    assert len({(each.prompt, each.sample) for each in together.sequences}) == step.sequences
    assert max(each.last_token_s or 0 for each in together.sequences) == pytest.approx(step.elapsed_s, abs=1e-5)
    for number, part in enumerate(parts):
        own = [each for each in together.sequences if each.replica == number]
        assert sum(each.output_tokens for each in own) == part.output_tokens
        assert {each.queued_s for each in own} == {round(part.start_offset_s, 6)}


def events_of(replica: int, done: IterationDone) -> list[Event]:
    return [PhaseBegins(phase="warmup"), ready(replica), IterationBegins(), done, Done()]


def ready(replica: int, tokens: int = 1000) -> Ready:
    record = make_record()
    facts = record.engine.model_copy(update={"kv_cache_tokens": tokens})
    environment = record.environment.model_copy(update={"cpu_cores": 2, "device_count": 1})
    times = {"import_s": 3.0 - replica, "init_s": 2.0 + 2 * replica}
    return Ready(**times, environment=environment, engine=facts, flags=[FLAG], processes={100 + replica: "worker"})


@given(st.lists(passes(), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_it_does_not_matter_in_which_order_replicas_tell(replicas: list[IterationDone], random) -> None:
    waiting = [events_of(number, done) for number, done in enumerate(replicas)]
    in_order = ReplicaEvents(len(replicas), partial(merge_events, platform="cpu"))
    expected = [e for n, events in enumerate(waiting) for event in events for e in in_order.take(n, event)]
    gathering, found = ReplicaEvents(len(replicas), partial(merge_events, platform="cpu")), []
    turns = [number for number, events in enumerate(waiting) for _ in events]
    random.shuffle(turns)
    for number in turns:
        found += gathering.take(number, waiting[number].pop(0))
    assert (found, [event.event for event in found]) == (expected, ["phase", "ready", "begins", "iteration", "done"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"kv_cache_tokens": 995}, None),  # what a device has free varies a little
        ({"kv_cache_tokens": 900}, "kv_cache_tokens is 1000 on replica 0 and 900 on replica 1"),
        ({"linear_methods": {"Int8": 8}}, "linear_methods is"),
        ({"resolved": {"max_num_seqs": 8, "num_gpu_blocks": 7}}, None),
        ({"resolved": {"max_num_seqs": 4, "num_gpu_blocks": 9}}, "max_num_seqs is 8 on replica 0 and 4 on replica 1"),
    ],
)
def test_engines_that_are_not_the_same_are_told_of(changes: dict[str, object], words: str | None) -> None:
    first = ready(0).engine.model_copy(update={"resolved": {"max_num_seqs": 8, "num_gpu_blocks": 9}})
    other: EngineFacts = first.model_copy(update=changes)
    assert [flag.code for flag in difference_flags([first, other])] == (["replicas_differ"] if words else [])
    assert all(words in flag.sentence for flag in difference_flags([first, other]) if words)


@pytest.mark.parametrize(("offset_s", "flagged"), [(0.0, False), (0.019, False), (0.021, True)])
def test_replicas_that_began_apart_are_told_of(offset_s: float, flagged: bool) -> None:
    timed = [(iteration(2.0), 5.0), (iteration(1.0), 5.0 + offset_s)]
    done = [IterationDone(iteration=one, sequences=[], flags=[], began=began) for one, began in timed]
    flags = apart_flags([done_together(done).iteration, iteration(2.0)])
    assert [flag.code for flag in flags] == ["replicas_apart"] * flagged


def iteration(elapsed_s: float, output_tokens: int = 8) -> Iteration:
    counts = {"requests": 4, "sequences": 4, "prompt_tokens": 8, "output_tokens": output_tokens}
    return Iteration(index=1, warmup=False, elapsed_s=elapsed_s, **counts)
