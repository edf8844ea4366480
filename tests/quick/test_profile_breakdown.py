"""Breakdown of a step: sums that were worked out on paper, scaled to steps without the profiler; doubts; passes."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from synthetic_profiles import BF16, W8A8, make_events, make_profiled, make_times
from synthetic_records import make_record

from rollout_bench.analysis.inside.breakdown import (
    CELLS,
    Breakdown,
    breakdowns,
    operators,
    other_shapes,
    painted,
    time_line,
    unknown,
    unprofiled,
)
from rollout_bench.analysis.inside.profiles import HOST_GAP, Part, ProfiledExperiment, measured_pass, pass_steps
from rollout_bench.analysis.inside.reconciliation import agreement, bound, doubts
from rollout_bench.contracts.record import Flag, SequenceRow

GAP = (HOST_GAP, "")


def codes(breakdown: Breakdown) -> list[str]:
    return [doubt.code for doubt in doubts(breakdown)]


def test_parts_are_means_over_the_steps_of_all_ranks() -> None:
    slow = {"decode": {part: 3 * us for part, us in BF16["decode"].items()}}
    events = pd.concat([make_events({"decode": BF16["decode"]}), make_events(slow, rank=1)], ignore_index=True)
    found = breakdowns(replace(make_profiled(), events=events, times=make_times(events)))
    assert list(found) == ["decode"]
    assert found["decode"].steps == 4
    assert found["decode"].parts["linear", "qkv"] == pytest.approx(10_000)
    assert found["decode"].parts[GAP] == pytest.approx(10_000)
    assert found["decode"].traced_us == found["decode"].total_us == pytest.approx(60_000)
    assert found["decode"].calls["linear", "qkv"] == 1
    assert GAP not in found["decode"].calls


def test_rows_outside_steps_do_not_count() -> None:
    profiled = make_profiled()
    outside = profiled.events[profiled.events["where"] == "device"].assign(step=-1, self_us=1e9)
    times = profiled.times.assign(step=-1, us=1e9)
    both = replace(profiled, events=pd.concat([profiled.events, outside]), times=pd.concat([profiled.times, times]))
    assert breakdowns(both)["decode"].parts == breakdowns(profiled)["decode"].parts
    assert breakdowns(both)["decode"].calls == breakdowns(profiled)["decode"].calls


def test_on_a_cpu_every_part_keeps_its_share_of_the_unprofiled_step() -> None:
    found = breakdowns(make_profiled(overhead=1.25))["decode"]
    assert found.step_us == pytest.approx(24_000)
    assert found.scaled["linear", "gate_up"] == pytest.approx(13_000 / 1.25)
    assert found.share(HOST_GAP) == pytest.approx(5 / 30)
    assert found.of_category("linear") == pytest.approx(18_000 / 1.25)


def test_on_a_device_operators_keep_their_time_and_the_wait_takes_what_is_left() -> None:
    found = breakdowns(make_profiled(platform="cuda", overhead=30 / 27))["decode"]
    assert found.scaled["linear", "gate_up"] == pytest.approx(13_000)
    assert found.scaled[GAP] == pytest.approx(2_000)
    assert found.step_us == pytest.approx(27_000)
    assert bound(found) == "device"
    squeezed = breakdowns(make_profiled(platform="cuda", overhead=2))["decode"]
    assert squeezed.scaled[GAP] == 0
    assert squeezed.scaled["linear", "gate_up"] == pytest.approx(13_000 * 15 / 25)


PARTS = st.dictionaries(
    st.sampled_from([("linear", "qkv"), ("attention", ""), ("norm", ""), GAP]), st.floats(0, 1e6), min_size=1
)


@given(PARTS, st.floats(1, 1e6), st.booleans())
@example({("linear", "qkv"): 5e-324}, 1.5, False)
@example({("linear", "qkv"): 1e-9, GAP: 1e6}, 2.0, True)
def test_scaled_parts_always_add_up_to_the_step(parts: dict[Part, float], step_us: float, clock: bool) -> None:
    found = unprofiled(parts, step_us, clock)
    assert all(us >= 0 for us in found.values())
    if sum(parts.values()) > 0:
        assert sum(found.values()) == pytest.approx(step_us)
    assert unprofiled(parts, None, clock) == parts


def test_operators_are_told_apart_by_shape_and_sorted_by_time() -> None:
    profiled = make_profiled()
    found = operators(profiled, breakdowns(profiled)["decode"])
    assert [(o.name, o.us, o.calls) for o in found[:2]] == [
        ("linear_gate_up_kernel", 13_000, 1), ("linear_qkv_kernel", 5_000, 1),
    ]  # fmt: skip
    assert found[0].shapes == "[[32, 768], [768, 4096], []]"
    assert found[0].share == pytest.approx(13 / 30)
    other = profiled.events.assign(shapes="[[1]]").assign(trace="more")
    twice = replace(profiled, events=pd.concat([profiled.events, other]))
    assert len(operators(twice, breakdowns(profiled)["decode"])) == 2 * len(found)


def test_a_sound_profile_leaves_no_doubt() -> None:
    for breakdown in breakdowns(make_profiled()).values():
        assert codes(breakdown) == []
        assert agreement(breakdown) == pytest.approx(1)


@pytest.mark.parametrize(("us", "doubted"), [(3_000.0, []), (3_500.0, ["other"])])
def test_above_a_tenth_of_unknown_operators_is_a_doubt_that_names_them(us: float, doubted: list[str]) -> None:
    profiled = make_profiled(phases={"decode": {**BF16["decode"], ("other", ""): us}})
    breakdown = breakdowns(profiled)["decode"]
    assert codes(breakdown) == doubted
    assert [(o.name, o.us) for o in unknown(profiled, breakdown)] == [("other_kernel", us)]


def test_a_trace_that_lacks_part_of_the_steps_is_a_doubt() -> None:
    profiled = make_profiled()
    longer = [step.model_copy(update={"elapsed_s": 1.2 * step.elapsed_s}) for step in profiled.record.steps]
    found = breakdowns(replace(profiled, record=profiled.record.model_copy(update={"steps": longer})))["decode"]
    assert agreement(found) == pytest.approx(1 / 1.2)
    assert codes(found) == ["trace_time"]
    assert "outside the trace" in doubts(found)[0].sentence


def test_steps_that_nobody_timed_and_unsteady_ones_are_doubts() -> None:
    profiled = make_profiled()
    untimed = [step for step in profiled.record.steps if step.profiled]
    found = breakdowns(replace(profiled, record=profiled.record.model_copy(update={"steps": untimed})))["decode"]
    assert codes(found) == ["untimed"]
    assert found.step_us == pytest.approx(30_000)
    assert codes(breakdowns(make_profiled(scatter=(0.7, 1.0, 1.3)))["decode"]) == ["unsteady"]


@pytest.mark.parametrize(("gap_us", "by"), [(1_000.0, "device"), (20_000.0, "both"), (60_000.0, "host")])
def test_what_sets_the_pace_is_told_by_how_long_the_device_waits(gap_us: float, by: str) -> None:
    profiled = make_profiled(phases={"decode": {**BF16["decode"], GAP: gap_us}})
    assert bound(breakdowns(profiled)["decode"]) == by


def test_profiles_of_other_layers_are_noticed() -> None:
    own, baseline = make_profiled("w8a8", W8A8), make_profiled()
    assert other_shapes(own, baseline) == []
    fewer = [linear for linear in own.record.linears if linear.role != "down"]
    assert other_shapes(replace(own, record=own.record.model_copy(update={"linears": fewer})), baseline) == ["down"]


def _device(*rows: tuple[float, float, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["start_us", "duration_us", "category"])


def test_a_time_line_shows_inner_operators_and_gaps() -> None:
    line = painted(_device((100, 60, "other"), (120, 20, "linear"), (180, 20, "norm")), 100, 120)
    assert [(round(begin), round(us), category) for begin, us, category in line.segments] == [
        (0, 20, "other"), (20, 20, "linear"), (40, 20, "other"), (60, 20, HOST_GAP), (80, 20, "norm"),
        (100, 20, HOST_GAP),
    ]  # fmt: skip
    overlapping = painted(_device((0, 30, "linear"), (10, 60, "norm"), (80, 20, "other"), (80, 10, "linear")), 0, 100)
    assert [(round(begin), category) for begin, _, category in overlapping.segments] == [
        (0, "linear"), (10, "norm"), (70, HOST_GAP), (80, "linear"), (90, "other"),
    ]  # fmt: skip


@given(
    st.lists(
        st.tuples(st.floats(-50, 150), st.floats(0, 100), st.sampled_from(["linear", "norm", "a new one"])), max_size=20
    )
)
def test_a_time_line_has_no_gaps_and_stays_small(rows: list[tuple[float, float, str]]) -> None:
    line = painted(_device(*rows), 0, 100)
    at = 0.0
    for begin, us, _ in line.segments:
        assert begin == pytest.approx(at, abs=1e-6)
        at = begin + us
    assert at == pytest.approx(100)
    assert len(line.segments) <= CELLS


def test_the_time_line_is_that_of_the_median_step_of_a_rank() -> None:
    lengths = [make_events({"decode": {("norm", ""): us}}, steps=1) for us in (30.0, 10.0, 20.0, 5.0)]
    traces = [events.assign(trace=f"{place}", rank=place // 3) for place, events in enumerate(lengths)]
    median = time_line(replace(make_profiled(), events=pd.concat(traces)), "decode")
    assert median is not None
    assert median.duration_us == 20
    assert time_line(make_profiled(), "mixed") is None
    line = time_line(make_profiled(), "decode")
    assert line is not None
    assert line.duration_us == pytest.approx(30_000)
    assert line.segments[0][2] == "linear"
    assert line.segments[-1] == (pytest.approx(25_000, abs=30), pytest.approx(5_000, abs=30), HOST_GAP)


def test_steps_of_a_pass_follow_the_scheduler() -> None:
    found = pass_steps([64] * 32, [32] * 32, batched_tokens=2048, at_once=256)
    assert found == {"prefill": [2048], "decode": [32] * 31}


def test_prompts_beyond_one_step_make_mixed_steps_and_too_many_sequences_wait() -> None:
    found = pass_steps([100] * 4, [3] * 4, batched_tokens=200, at_once=4)
    # 2 prompts; 2 tokens and 1.98 prompts; 3 tokens (2 of them their last) and 2 of a prompt; then the last ones
    assert found["prefill"] == [200]
    assert found["mixed"] == [200, 5]
    waves = pass_steps([10] * 4, [5] * 4, batched_tokens=1000, at_once=2)
    assert {phase: len(tokens) for phase, tokens in waves.items()} == {"prefill": 2, "decode": 8}
    assert pass_steps([64] * 2, [1, 1], 1000, 8, cached=[0, 60]) == {"prefill": [68]}


def test_a_measured_pass_follows_from_records_and_the_engines_settings() -> None:
    record = make_record(rates=(100.0, 400.0))
    assert measured_pass([record]) is None  # max_num_batched_tokens is unknown
    settings = {**record.engine.resolved, "max_num_batched_tokens": 4096, "max_num_seqs": 16}
    engine = record.engine.model_copy(update={"resolved": settings})
    told = record.model_copy(update={"engine": engine})
    found = measured_pass([told])
    assert found is not None
    assert found.elapsed_s == pytest.approx((1024 / 100 + 1024 / 400) / 2)
    assert found.steps == {"prefill": 2, "decode": 62}
    small = told.model_copy(update={"engine": engine.model_copy(update={"kv_cache_tokens": 8 * 96})})
    of_small = measured_pass([small])
    assert of_small is not None
    assert of_small.steps["decode"] == 4 * 31
    rows = [
        SequenceRow(iteration=1, prompt=0, sample=0, prompt_tokens=64, output_tokens=n, finish_reason=None)
        for n in (1, 40)
    ]
    longest = measured_pass([told], rows)
    assert longest is not None
    assert longest.steps["decode"] == 39
    invalid = Flag(code="token_count", severity="invalid", sentence="1 token is missing.")
    assert measured_pass([told.model_copy(update={"validity": [invalid]})]) is None


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=8),
    st.integers(8, 64),
    st.integers(1, 8),
)
def test_a_pass_computes_every_token_once(sequences: list[tuple[int, int]], budget: int, at_once: int) -> None:
    prompts, outputs = zip(*sequences, strict=True)
    found = pass_steps(prompts, outputs, budget, at_once)
    steps = [tokens for of_phase in found.values() for tokens in of_phase]
    assert sum(steps) == sum(prompts) + sum(outputs) - len(outputs)
    assert all(tokens <= budget for tokens in steps)


def test_make_profiled_is_what_it_says() -> None:
    profiled: ProfiledExperiment = make_profiled()
    assert profiled.measured is not None
    assert profiled.measured.elapsed_s == pytest.approx((0.5 + 31 * 0.03) / 1.25)
