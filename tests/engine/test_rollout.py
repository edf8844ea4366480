"""A rollout on two real engines: a router hands a step's sequences out, and every one is accounted for."""

import os
from pathlib import Path

import pytest
from launching import SETTINGS, Launching, own_flags, tiny_spec

from rollout_bench.contracts.load import Turns, Uniform
from rollout_bench.contracts.record import Record, SequenceRow
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import read_record, sequences_path
from rollout_bench.modes.rollout.settings import RolloutSpec

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for each replica"),
]

TAIL = {"distribution": "lognormal", "median": 40, "sigma": 1.0, "low": 4, "high": 300}
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4, "prompt_lookup_min": 2}


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launching:
    """Return a launch of two engines that draft; without chance random weights repeat, which drafts foresee."""
    args = {**SETTINGS["engine"]["args"], "max_model_len": 512, "data_parallel_size": 2, "speculative_config": NGRAM}
    load = {"prompts": 6, "samples_per_prompt": 2, "output_tokens": TAIL, "temperature": 0.0, "logprobs": 0}
    spec = tiny_spec(engine={"args": args}, workload=load)
    spec = spec.model_copy(update={"mode": "rollout", "rollout": RolloutSpec(router="least_in_flight")})
    turns = Turns(count=3, tool_ms=400, tool_tokens=60)
    first = {"prompts": 2, "output_tokens": 20, "turns": turns}
    launch = Launching(tmp_path_factory.mktemp("rollout"), spec, is_second=True, first=first)
    launch.wait_for("measuring")
    assert launch.finish() == 0, launch.said + launch.log_text()[-4000:]
    return launch


@pytest.fixture(scope="module")
def record(launch: Launching) -> Record:
    return launch.record()


@pytest.fixture(scope="module")
def rows(launch: Launching) -> list[SequenceRow]:
    return read_sequences(sequences_path(launch.out), launch.record())


def test_each_sequence_of_a_step_is_generated_exactly_once(record: Record, rows: list[SequenceRow]):
    for iteration in record.iterations:
        of = [row for row in rows if row.iteration == iteration.index]
        assert sorted((row.prompt, row.sample) for row in of) == [(p, s) for p in range(6) for s in (0, 1)]
        assert all(0 <= (row.sent_s or 0) < (row.last_token_s or 0) <= iteration.elapsed_s + 0.05 for row in of)
        assert (iteration.requests, iteration.router.decisions) == (12, 12)
        assert iteration.output_tokens == sum(row.output_tokens for row in of)
        for number, part in enumerate(iteration.replicas or []):
            theirs = [row for row in of if row.replica == number]
            assert part.requests == part.sequences == len(theirs)
            assert part.output_tokens == sum(row.output_tokens for row in theirs)
            assert part.prompts == len({row.prompt for row in theirs})
            assert 0 < (part.peak_running or 0) <= 8
            assert part.kv_cache_peak is not None
    # vLLM says that it can't schedule ahead with n-grams: a warning that the summary passes on
    assert {flag.code for flag in own_flags(record)} <= {"engine_fallback", "batch_not_at_once", "replicas_apart"}


def test_a_pass_counts_its_drafted_and_accepted_tokens(record: Record):
    for iteration in record.iterations:
        done = iteration.drafting
        assert 0 < done.drafts <= done.draft_tokens <= 3 * done.drafts
        assert 0 < done.accepted_tokens == sum(done.accepted_by_position) <= done.draft_tokens
        # accepted are the first tokens of a draft, up to the first that is not
        assert done.accepted_by_position == sorted(done.accepted_by_position, reverse=True)
        # of each sequence's last draft, some may lie beyond its end
        assert done.accepted_tokens <= iteration.output_tokens + 3 * iteration.sequences


def test_sequences_with_turns_wait_for_tools_and_keep_their_context(launch: Launching):
    record = read_record(launch.first_out)
    assert {flag.code for flag in own_flags(record)} <= {"engine_fallback", "batch_not_at_once", "replicas_apart"}
    rows = read_sequences(sequences_path(launch.first_out), record)
    for row in rows:
        asked, back = [turn.sent_s for turn in row.turns], [turn.back_s for turn in row.turns]
        assert [turn.prompt_tokens for turn in row.turns] == [130, 210, 290]
        assert row.output_tokens == 60
        assert all(after - before >= 0.4 for before, after in zip(back[:-1], asked[1:], strict=True))
        # blocks of 128 tokens: of 150 tokens one is found again, of 230 too
        assert [turn.cached_prompt_tokens for turn in row.turns][1:] == [128, 128]
    for iteration in record.iterations:
        uses = [part.turns for part in iteration.replicas]
        of = [row for row in rows if row.iteration == iteration.index]
        assert (iteration.sequences, iteration.requests) == (4, 12)
        assert iteration.output_tokens == sum(row.output_tokens for row in of) == 240
        assert sum(use.tool_s for use in uses) == pytest.approx(8 * 0.4, rel=0.5)
        assert all(use.all_in_tools_s > 0 for use in uses)
        assert sum(use.recomputed_tokens for use in uses) == 4 * ((150 - 128) + (230 - 128))


def test_an_over_sampled_step_aborts_or_postpones_the_rest(tmp_path: Path):
    # two turns of the longest answers fit: whichever sequences a busy machine ends first are whole
    args = {**SETTINGS["engine"]["args"], "max_model_len": 2048, "max_num_seqs": 4}
    turns = Turns(count=2, tool_ms=Uniform(distribution="uniform", low=1, high=1500), tool_tokens=20)
    # the longest take seconds, in which the router sees the end of the shortest even if the processor is busy
    tail = {"distribution": "lognormal", "median": 100, "sigma": 1.5, "low": 4, "high": 800}
    load = {"prompts": 2, "samples_per_prompt": 2, "output_tokens": tail, "logprobs": 0, "turns": turns.model_dump()}
    spec = tiny_spec(engine={"args": args}, workload=load)
    spec = spec.model_copy(update={"mode": "rollout", "rollout": RolloutSpec(over_sample=2.0)})
    partial = {"rollout": RolloutSpec(over_sample=2.0, partial=True)}
    launch = Launching(tmp_path, spec, is_second=True, first={"prompts": 2, "turns": None}, first_own=partial)
    assert launch.finish() == 0, launch.said + launch.log_text()[-4000:]
    goes_on(read_record(launch.first_out), launch.first_out)
    record = launch.record()
    assert {flag.code for flag in own_flags(record)} <= {"engine_fallback", "batch_not_at_once"}
    rows = read_sequences(sequences_path(launch.out), record)
    later_s = []
    for iteration in record.iterations:
        (part,) = iteration.replicas
        of = [row for row in rows if row.iteration == iteration.index]
        assert len({row.prompt for row in of}) == 2
        assert iteration.sequences == part.sequences == len(of) == 4
        assert part.surplus.sequences <= 4
        later_s.append(iteration.elapsed_s - max(row.turns[-1].back_s for row in of))
        assert 0 <= part.surplus.drain_s < 5
        assert all(row.finish_reason == "length" for row in of)
    # a router that stands still for seconds ends a step late, and finds all complete
    assert 0 <= min(later_s) < 0.2
    surplus = [iteration.replicas[0].surplus for iteration in record.iterations]
    assert any(each.aborted for each in surplus)
    assert any(each.sequences == 4 for each in surplus)  # a router that stood still has enough before it sent all


def goes_on(record: Record, path: Path) -> None:
    """Assert that unfinished sequences of a step are finished by the next ones, and their tokens computed again."""
    assert {flag.code for flag in own_flags(record)} <= {"engine_fallback", "batch_not_at_once"}
    rows = read_sequences(sequences_path(path), record)
    begun = False
    for iteration in record.iterations:
        (part,) = iteration.replicas
        of = [row for row in rows if row.iteration == iteration.index]
        old = [row for row in of if row.prompt >= 2 and iteration.index]  # after the first step, new are 0 and 1
        assert len({(row.prompt, row.sample) for row in of}) == len(of) == iteration.sequences
        assert iteration.output_tokens == sum(row.output_tokens for row in of)
        assert (part.surplus.sequences, part.surplus.output_tokens) == (0, 0)
        assert part.surplus.aborted >= sum(row.finish_reason == "abort" for row in of)
        again = sum(row.prompt_tokens - row.cached_prompt_tokens for row in old if row.prompt_tokens > 130)
        assert part.surplus.again_tokens == again
        assert (again > 0) == begun
        begun = any(row.finish_reason == "abort" and row.output_tokens for row in of)
    # a router that stands still for seconds finds all complete, so nothing of that step goes on
    assert any(row.finish_reason == "abort" for row in rows)


def test_the_slowest_engine_sets_the_start_and_none_is_left(record: Record, launch: Launching):
    starts = record.startup.replicas
    assert record.startup.import_s + record.startup.init_s == max(start.import_s + start.init_s for start in starts)
    assert len({start.kv_cache_tokens for start in starts}) == 1
    assert record.engine.resolved["data_parallel_size"] == 1  # each is whole
    assert launch.survivors() == []
    assert [name.split("-")[0] for name in record.after] == ["rollout/tiny_bf16_first"]
