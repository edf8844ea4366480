"""Breakdown of a step: sums that were worked out on paper, scaled to steps without the profiler; doubts."""

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from samples.profile import BF16, make_events, make_profiled

from rollout_bench.modes.profile.breakdown import HOST_GAP, Breakdown, breakdowns, unprofiled
from rollout_bench.modes.profile.findings import bound, doubts, profile_report
from rollout_bench.modes.profile.report import profile_notes
from rollout_bench.modes.profile.traces.trace_steps import step_times

GAP = HOST_GAP


def codes(breakdown: Breakdown) -> list[str]:
    return [doubt.code for doubt in doubts(breakdown)]


def test_parts_are_means_over_the_steps_of_all_ranks() -> None:
    slow = {"decode": {part: 3 * us for part, us in BF16["decode"].items()}}
    events = pd.concat([make_events({"decode": BF16["decode"]}), make_events(slow, rank=1)], ignore_index=True)
    found = breakdowns(events, step_times(events), (), False)
    assert (list(found), found["decode"].steps, found["decode"].parts["linear"]) == (
        ["decode"],
        4,
        pytest.approx(36_000),
    )
    assert (found["decode"].parts[GAP], found["decode"].total_us) == (pytest.approx(10_000), pytest.approx(60_000))
    assert found["decode"].calls["linear"] == 1
    assert GAP not in found["decode"].calls


def test_every_part_on_a_cpu_keeps_its_share_unprofiled() -> None:
    found = make_profiled(overhead=1.25).phases["decode"]
    assert (found.step_us, found.scaled["linear"]) == (pytest.approx(24_000), pytest.approx(18_000 / 1.25))
    assert found.share(HOST_GAP) == pytest.approx(5 / 30)


def test_operators_on_a_device_keep_their_time_and_waits_shrink() -> None:
    found = make_profiled(platform="cuda", overhead=30 / 27).phases["decode"]
    assert (found.scaled["linear"], found.scaled[GAP]) == (pytest.approx(18_000), pytest.approx(2_000))
    assert (found.step_us, bound(found)) == (pytest.approx(27_000), "device")
    squeezed = make_profiled(platform="cuda", overhead=2).phases["decode"]
    assert (squeezed.scaled[GAP], squeezed.scaled["linear"]) == (0, pytest.approx(18_000 * 15 / 25))


PARTS = st.dictionaries(st.sampled_from(["linear", "attention", "norm", GAP]), st.floats(0, 1e6), min_size=1)


@given(PARTS, st.floats(1, 1e6), st.booleans())
@example({"linear": 5e-324}, 1.5, False)
@example({"linear": 1e-9, GAP: 1e6}, 2.0, True)
def test_scaled_parts_always_add_up_to_the_step(parts: dict[str, float], step_us: float, clock: bool) -> None:
    found = unprofiled(parts, step_us, clock)
    assert all(us >= 0 for us in found.values())
    if sum(parts.values()) > 0:
        assert sum(found.values()) == pytest.approx(step_us)
    assert unprofiled(parts, None, clock) == parts


@pytest.mark.parametrize(("us", "doubted"), [(3_000.0, []), (3_500.0, ["other"])])
def test_more_than_a_tenth_of_unknown_operators_is_flagged(us: float, doubted: list[str]) -> None:
    breakdown = make_profiled(phases={"decode": {**BF16["decode"], "other": us}}).phases["decode"]
    assert (codes(breakdown), breakdown.unknown) == (doubted, (("other_kernel", pytest.approx(us / (30_000 + us))),))


@pytest.mark.parametrize(("platform", "is_named"), [("ascend", True), ("cuda", False)])
def test_the_notes_on_npu_traces_name_the_function_that_analyses_them(platform: str, is_named: bool):
    sections = profile_notes(profile_report([make_profiled(platform=platform)]))
    text = " ".join(item for section in sections for item in section.items)
    assert "Perfetto" in text
    assert ("analyse(profiler_path='results/profile/" in text) is is_named
