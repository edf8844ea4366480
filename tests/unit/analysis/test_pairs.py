"""Which launches are pairs, of which way, and what their ratio is."""

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import make_block, make_plan, make_record, make_sequences, make_spec, save

from rollout_bench.analysis.stats.two_stages import TwoStages
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import MIN_PAIRS, compare_launches, judge
from rollout_bench.analysis.timed.launches import LaunchMeasures, Pass, measure
from rollout_bench.analysis.timed.pairs import (
    SLACK_S,
    WAYS,
    Pair,
    Way,
    most_precise_pairs,
    pair_of,
    round_s,
    trimmed_mean,
)
from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.analysis.timed.service import requests_of
from rollout_bench.contracts.record import DeviceUse, Placement, Record
from rollout_bench.modes.rollout.settings import RolloutSpec
from rollout_bench.plan.config import ComparisonSettings, Precision

pytestmark = pytest.mark.slow

BF16, W8A8, W8A16 = SPECS = [make_spec(quant=quant) for quant in ("bf16", "w8a8", "w8a16")]
RATE = "output_tokens_per_s"
RATES = st.floats(1, 1e4)
ROUNDS = st.lists(st.tuples(RATES, RATES), min_size=1, max_size=40)


def block(own: Sequence[float], theirs: Sequence[float], launch: int = 0) -> tuple[LaunchMeasures, LaunchMeasures]:
    """Return the launch of w8a8 and that of bf16, of one block."""
    baseline, other = map(measure, make_block([BF16, W8A8], launch, [theirs, own]))
    return other, baseline


def alone(spec, rates: Sequence[float], launch: int = 0) -> LaunchMeasures:
    return measure(make_record(spec, launch, rates))


def test_the_ratio_of_a_block_worked_out_by_hand() -> None:
    # Ratios of the rounds: 1.1, 1.2, 0.5, 1.3, 1.25. Without the smallest and the largest: 1.1, 1.2, 1.25.
    own, theirs = block([110, 240, 150, 520, 625], [100, 200, 300, 400, 500])
    assert pair_of(RATE, own, theirs) == Pair(pytest.approx(math.log(1.1 * 1.2 * 1.25) / 3), "rounds")


@pytest.mark.parametrize(("rounds", "left"), [(1, 1), (4, 4), (5, 3), (9, 7), (10, 6), (12, 8), (32, 20)])
def test_a_fifth_rounded_down_is_left_out_on_each_side(rounds: int, left: int) -> None:
    out = (rounds - left) // 2
    values = [-1e9] * out + [1.0] * left + [1e9] * out
    assert trimmed_mean(values[::-1]) == 1.0
    with pytest.raises(ValueError, match="no values"):
        trimmed_mean([])


@given(ROUNDS, st.data())
def test_what_slows_both_engines_in_a_round_cancels_out(rounds: list[tuple[float, float]], data: st.DataObject) -> None:
    slowed = data.draw(st.lists(st.floats(0.01, 1), min_size=len(rounds), max_size=len(rounds)))
    drifted = [(by * own, by * theirs) for by, (own, theirs) in zip(slowed, rounds, strict=True)]
    found = [pair_of(RATE, *block(*zip(*each, strict=True))).log_ratio for each in (rounds, drifted)]
    assert found[0] == pytest.approx(found[1], abs=1e-9)


def test_only_rounds_that_both_have_are_compared() -> None:
    baseline, other = make_block([BF16, W8A8], 0, [[100, 100, 100, 100], [110, 120, 1, 130]])
    for left, ratio in (((0, 1, 3), 1.1 * 1.2 * 1.3), ((), None)):
        kept = [i if i.round in left else i.model_copy(update={"round": 9}) for i in other.iterations]
        found = pair_of(RATE, measure(other.model_copy(update={"iterations": kept})), measure(baseline))
        assert found == (ratio and Pair(pytest.approx(math.log(ratio) / 3), "rounds"))


def test_outside_of_a_block_typical_passes_are_compared() -> None:
    # Middle three of five: 100, 110, 120 of the baseline's; 200, 220, 240.
    own, theirs = alone(W8A8, [240, 1, 220, 1e6, 200]), alone(BF16, [110, 1e5, 2, 100, 120])
    assert pair_of(RATE, own, theirs) == Pair(pytest.approx(math.log(2)), "passes")


@pytest.mark.parametrize(("own", "baseline"), [(4, 4), (4, 5), (5, 4)])
def test_few_passes_leave_the_launches_values(own: int, baseline: int) -> None:
    rates = [200.0] * (own - 1) + [50.0]
    pair = pair_of(RATE, alone(W8A8, rates), alone(BF16, [100.0] * baseline))
    assert (pair.way, math.exp(pair.log_ratio)) == ("launches", pytest.approx(own / ((own - 1) / 200 + 1 / 50) / 100))


def test_times_mirror_rates_and_start_up_times_are_of_launches() -> None:
    sides = [[launch] for launch in block([110, 240, 150, 520, 625], [100, 200, 300, 400, 500])]
    rate, step, start = (compare_launches(*sides, metric, 0.95) for metric in (RATE, "step_time_s", "startup_s"))
    assert step.speedup == pytest.approx(rate.speedup)
    assert (rate.ways, step.ways, start.ways) == ({"rounds"}, {"rounds"}, {"launches"})
    times = [sum(1 / rate for rate in side) for side in ((100, 200, 300, 400, 500), (110, 240, 150, 520, 625))]
    assert rate.of_totals == pytest.approx(times[0] / times[1])
    assert step.of_totals == pytest.approx(rate.of_totals)
    assert start.of_totals is None


def changed(record: Record, changes: Sequence[dict[str, object]]) -> LaunchMeasures:
    """Return a launch whose counted passes are `record`'s, each with its changes."""
    counted = [i for i in record.iterations if not i.warmup]
    passes = [i.model_copy(update=change) for i, change in zip(counted, changes, strict=True)]
    return measure(record.model_copy(update={"iterations": passes}))


def test_energy_is_compared_by_rounds_with_disturbed_rounds_trimmed() -> None:
    baseline, other = make_block([BF16, W8A8], 3, [[100] * 5, [100] * 5])

    def with_energy(record: Record, *joules: float) -> list[LaunchMeasures]:
        use = DeviceUse(device="0", thermal_share=None, power_share=None, window_s=1.0)
        return [changed(record, [{"devices": [use.model_copy(update={"energy_j": j})]} for j in joules])]

    theirs = with_energy(baseline, 200.0, 400.0, 100.0, 200.0, 200.0)
    own = with_energy(other, 100.0, 200.0, 50.0, 900.0, 100.0)
    for metric in ("energy_j_per_token", "tokens_per_s_per_w", "device_power_w"):
        found = compare_launches(own, theirs, metric, 0.95)
        assert (found.ways, found.speedup) == ({"rounds"}, pytest.approx(2.0))
        assert found.of_totals == pytest.approx(1100 / 1350)
    nothing = with_energy(other, 0.0, 1.0, 1.0, 1.0, 1.0)
    assert "has no energy" in compare_launches(nothing, theirs, "device_power_w", 0.95).reason


def test_sequence_times_are_compared_by_rounds_unless_values_are_missing() -> None:
    def with_times(record: Record, ends_s: Sequence[float], tails_s: Sequence[float]) -> LaunchMeasures:
        times = dict(enumerate(zip(ends_s, tails_s, strict=True), start=1))
        rows = [row for row in make_sequences(record) if row.iteration]
        ends = [times[row.iteration][0] + (row.prompt == row.sample == 0) * times[row.iteration][1] for row in rows]
        timed = [row.model_copy(update={"last_token_s": end}) for row, end in zip(rows, ends, strict=True)]
        return measure(record, requests_of(timed))

    baseline, other = make_block([BF16, W8A8], 0, [[100] * 5, [100] * 5])
    theirs = with_times(baseline, [2.0, 4.0, 1.0, 2.0, 2.0], [0.5] * 5)
    own = with_times(other, [1.0, 2.0, 0.5, 40.0, 1.0], [0.0, *[0.5] * 4])
    t90, tail = (compare_launches([own], [theirs], metric, 0.95) for metric in ("t90_s", "tail_s"))
    assert (t90.ways, t90.speedup, t90.of_totals) == ({"rounds"}, pytest.approx(2.0), pytest.approx(11 / 44.5))
    assert (tail.ways, tail.speedup, tail.of_totals) == ({"launches"}, pytest.approx(1.25), None)
    parts = RolloutSpec(over_sample=1.5, partial=True)
    partial = other.model_copy(update={"spec": other.spec.model_copy(update={"mode": "rollout", "rollout": parts})})
    assert not {"t90_s", "tail_s"} & with_times(partial, [1.0] * 5, [0.5] * 5).passes[0].columns.keys()


def test_a_pass_that_generated_nothing_makes_the_comparison_unknown() -> None:
    baseline, other = make_block([BF16, W8A8], 3, [[100] * 5, [110] * 5])
    idle = changed(other, [{"output_tokens": tokens} for tokens in (9, 0, 9, 9, 9)])
    found = compare_launches([idle], [measure(baseline)], RATE, 0.95)
    assert (found.verdict, found.speedup, found.reason) == (
        "unknown",
        None,
        "in launch 3 a pass, its own or its baseline's, generated nothing",
    )


def test_launches_of_different_blocks_are_no_pair(tmp_path: Path) -> None:
    # w8a8's record of launch 1 was deleted and measured again, by itself; that of launch 2 in a block of its own.
    rates = [[400.0] * 10, [440.0] * 10, [404.0] * 10]
    save(tmp_path, *(record for launch in range(3) for record in make_block(SPECS, launch, rates)))
    save(tmp_path, make_record(W8A8, 1, rates[1]), make_block([W8A8], 2, rates[1:2], name="later")[0])
    _, w8a8, w8a16 = rows_of(collect(tmp_path, make_plan(SPECS, 3, comparison=SETTINGS)))
    assert [[flag.code for flag in launch.flags] for row in (w8a8, w8a16) for launch in row.launches] == [
        [], ["not_interleaved"], ["not_interleaved"], [], [], []
    ]  # fmt: skip
    assert list(w8a8.comparison.pairs) == [0]
    assert "2 of its 3 launches were not measured in one block with the baseline's" in w8a8.comparison.reason
    for launch, where in ((1, "by itself, its partner in the baseline in a block"), (2, "in a block, its partner in")):
        assert w8a8.launches[launch].flags[0].sentence.startswith(f"It was measured {where}")
        assert "The next call measures the block whole" in w8a8.launches[launch].flags[0].sentence


SETTINGS = ComparisonSettings(metrics={"offline": [RATE]})
PAIRS = st.dictionaries(
    st.integers(0, 30), st.builds(Pair, st.floats(-1, 1), st.sampled_from(WAYS)), min_size=1, max_size=20
)


@given(PAIRS)
def test_only_the_most_precise_way_with_enough_pairs_is_left(pairs: dict[int, Pair]) -> None:
    found = most_precise_pairs(pairs, MIN_PAIRS)
    (way,) = {pair.way for pair in found.values()}
    assert found == {launch: pair for launch, pair in pairs.items() if pair.way == way}
    numbers = {each: sum(pair.way == each for pair in pairs.values()) for each in WAYS}
    assert all(numbers[better] < MIN_PAIRS for better in WAYS[: WAYS.index(way)])
    assert len(found) >= MIN_PAIRS or all(number < MIN_PAIRS for number in numbers.values())


@given(PAIRS, st.floats(0.1, 10))
def test_the_choice_looks_at_no_ratio(pairs: dict[int, Pair], factor: float) -> None:
    scaled = {launch: replace(pair, log_ratio=-factor * pair.log_ratio) for launch, pair in pairs.items()}
    assert most_precise_pairs(scaled, MIN_PAIRS).keys() == most_precise_pairs(pairs, MIN_PAIRS).keys()


def sides(logs: np.ndarray, shared: np.ndarray, ways: Sequence[Way]) -> list[list[LaunchMeasures]]:
    """Return launches of these log rates, and those of their baseline, whose pairs are of `ways`."""

    def launch_of(launch: int, way: Way, log_rate: float) -> LaunchMeasures:
        columns = {"output_tokens": 1, "elapsed_s": math.exp(-log_rate)}
        return LaunchMeasures(
            record_of(launch, way), {RATE: math.exp(log_rate)}, passes=tuple(Pass(n, columns) for n in range(5))
        )

    return [
        [launch_of(i, way, log) for i, (way, log) in enumerate(zip(ways, side, strict=True))] for side in (logs, shared)
    ]


@functools.cache
def record_of(launch: int, way: Way) -> Record:
    return make_block([BF16], launch, [[1.0] * 5])[0] if way == "rounds" else make_record(BF16, launch)


@pytest.mark.parametrize(
    ("ways", "stop"),
    [
        # wide pairs after narrow ones
        ([["rounds"] * 4 + ["passes"] * 4], TwoStages(0.01, 12, 0.95)),
        ([["rounds"] * 4 + ["passes"] * 4] * 3, TwoStages(0.01, 12, 0.95)),
        # a few wide pairs beside many narrow ones
        ([*[["rounds"] * 12] * 3, ["passes"] * 3], None),
    ],
)
def test_pairs_of_unlike_spread_make_no_more_false_tables(ways: list[list[Way]], stop: TwoStages | None) -> None:
    rng, false = np.random.default_rng(15), 0
    for _ in range(600):
        # pairs of one launch share the baseline's noise
        spreads = [[0.005 if way == "rounds" else 0.05 for way in own] for own in ways]
        shared = rng.normal(0, spreads[0])
        made = [
            sides(rng.normal(0, spread), shared[: len(own)], own) for own, spread in zip(ways, spreads, strict=True)
        ]
        family = [compare_launches(own, base, RATE, 0.95, stop) for own, base in made]
        judged = judge(family, SETTINGS, stop, ["baseline"] * len(family))
        false += any(each.p_adjusted is not None and each.p_adjusted < 0.05 for each in judged)
    assert false / 600 < 0.08


def test_comparisons_of_different_ways_are_judged_in_different_tables() -> None:
    logs, wide = np.array([0.11, 0.09, 0.105]), np.array([-0.3, 0.0, 0.3])
    narrow, apart = (
        compare_launches(*sides(own, np.zeros(3), [way] * 3), RATE, 0.95)
        for own, way in ((logs, "rounds"), (wide, "passes"))
    )
    assert (narrow.ways, apart.ways) == ({"rounds"}, {"passes"})
    (alone,), (both, _) = (judge(family, SETTINGS, None, ["b", "b"]) for family in ([narrow], [narrow, apart]))
    assert (both.low, both.high) == (alone.low, alone.high)
    assert both.p_adjusted == pytest.approx(2 * alone.p_adjusted)  # of two tables


@pytest.mark.parametrize(("alone", "wanted"), [([], 4), ([0], 5)])
def test_auto_launches_replace_those_of_another_way(tmp_path: Path, alone: list[int], wanted: int) -> None:
    for launch, noise in enumerate((0.01, -0.012, 0.004, 0.02)):
        rates = [[400.0] * 8, [440 * math.exp(noise)] * 8]
        save(
            tmp_path,
            *(
                map(make_record, (BF16, W8A8), [launch] * 2, rates)
                if launch in alone
                else make_block([BF16, W8A8], launch, rates)
            ),
        )
    precision = Precision(half_width=0.5, max_launches=12)
    plan = make_plan([BF16, W8A8], 12, comparison=SETTINGS).model_copy(update={"precision": precision})
    assert {e.planned for e in collect(tmp_path, plan).experiments} == {wanted}


LAUNCH_S = 1800.0


def row_of(results: Path, own: Sequence[dict[str, object]], theirs: Sequence[dict[str, object]]) -> Row:
    """Write launches, each with changes to its record, and return the row of w8a8."""
    for spec, rate, changes in ((BF16, 400, theirs), (W8A8, 500, own)):
        made = (make_record(spec, number, [rate + number**2 / 10] * 3) for number, _ in enumerate(changes))
        save(results, *(record.model_copy(update=more) for record, more in zip(made, changes, strict=True)))
    return rows_of(collect(results, make_plan([BF16, W8A8], len(own))))[1]


def at(*minutes: float) -> list[dict[str, object]]:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    return [{"started_at": f"{begin + timedelta(minutes=each):%Y-%m-%dT%H:%M:%SZ}"} for each in minutes]


WEEK = 7 * 24 * 60.0


@pytest.mark.parametrize(
    ("own", "theirs", "pairs"),
    [
        ((1, 2, 5), (0, 3, 4), [0, 1, 2]),  # in turn
        ((0, WEEK, 2 * WEEK), (0, WEEK, 2 * WEEK), [0, 1, 2]),  # rounds on different days
        ((0.5, WEEK, 2.5), (0, 1, 2), [0, 2]),  # one measured again
        ((WEEK, WEEK + 1, WEEK + 2), (0, 1, 2), []),  # added later
        ((WEEK, WEEK + 1, WEEK + 2), (0, 1, WEEK + 2), [2]),  # added together
    ],
)
def test_launches_that_did_not_take_turns_are_no_pair(
    tmp_path: Path, own: Sequence[float], theirs: Sequence[float], pairs: list[int]
) -> None:
    row = row_of(tmp_path, at(*own), at(*theirs))
    assert (list(row.comparison.pairs), [launch.launch for launch in row.launches if not launch.flags]) == (
        pairs,
        pairs,
    )
    assert pairs or (row.comparison.verdict, row.comparison.speedup) == ("unknown", None)


@pytest.mark.parametrize(
    ("starts_s", "paired"),
    [
        ((0.0, LAUNCH_S, 2 * LAUNCH_S), [True, True]),
        ((2 * LAUNCH_S, LAUNCH_S, 0.0), [True, True]),
        ((0.0, 3 * LAUNCH_S, 5 * LAUNCH_S), [True, True]),  # each launch between them failed once
        ((0.0, 6 * LAUNCH_S + SLACK_S, -6 * LAUNCH_S - SLACK_S - 1), [True, False]),
    ],
)
def test_a_round_may_last_twice_as_long_as_usual(tmp_path: Path, starts_s: Sequence[float], paired: list[bool]) -> None:
    for spec, start_s in zip(SPECS, starts_s, strict=True):
        (began,) = at(start_s / 60)
        save(tmp_path, make_record(spec).model_copy(update={**began, "wall_s": LAUNCH_S}))
    rows = rows_of(collect(tmp_path, make_plan(SPECS, 1)))
    assert [launch.paired for row in rows[1:] for launch in row.launches] == paired
    assert round_s(collect(tmp_path, None).experiments) == 2 * len(SPECS) * LAUNCH_S + SLACK_S


def place(devices: Sequence[str] = ("GPU-a",), node: str = "one", neighbours: Sequence[str] = ()) -> Placement:
    visible = [str(number) for number, _ in enumerate(devices)]
    return Placement(
        node=node, devices=list(devices), visible=visible, isolation="per_device", waited_s=0.0,
        neighbours=list(neighbours),
    )  # fmt: skip


A, B, C, D = (place([f"GPU-{name}"]) for name in "abcd")
BESIDE = place(neighbours=["offline/z/launch-3"])


@pytest.mark.parametrize(
    ("own", "other", "flags"),
    [
        (None, A, []),
        (B, A, ["other_device"]),
        (place(["GPU-a", "GPU-b"]), place(["GPU-b", "GPU-a"]), []),
        (place(["GPU-a", "GPU-b"]), place(["GPU-a", "GPU-c"]), ["other_device"]),
        (place(node="two"), A, ["other_node"]),
        (BESIDE, place(neighbours=["y", "z"]), []),
        (A, BESIDE, ["other_neighbours"]),
        (place(["GPU-b"], neighbours=["x"]), A, ["other_device", "other_neighbours"]),
    ],
)
def test_a_pair_is_marked_for_unlike_places(
    tmp_path: Path, own: Placement | None, other: Placement | None, flags: list[str]
) -> None:
    row = row_of(tmp_path, [{"placement": own}, {"placement": A}], [{"placement": other}, {"placement": A}])
    assert [[flag.code for flag in launch.flags] for launch in row.launches] == [flags, []]


@pytest.mark.parametrize(
    ("own", "other", "pairs"),
    [
        ([B, B], [A, A], [0]),
        ([B, A], [A, B], [0, 1]),
        ([B, D], [A, C], [0, 1]),
        ([B, A, A], [A, A, A], [0, 1, 2]),
        ([B, C, A], [A, A, B], [0, 1, 2]),
        ([B, A, B, B], [A, A, A, A], [0, 1]),
        ([B, B, A, A], [A, A, B, B], [0, 1, 2, 3]),
        ([place(node="two")] * 3, [A] * 3, [0]),
        ([BESIDE] * 3, [A] * 3, [0]),
        ([BESIDE, A, BESIDE], [A, BESIDE, BESIDE], [0, 1, 2]),
    ],
)
def test_unlike_places_count_while_sides_swap_them(
    tmp_path: Path, own: Sequence[Placement], other: Sequence[Placement], pairs: list[int]
) -> None:
    row = row_of(tmp_path, [{"placement": each} for each in own], [{"placement": each} for each in other])
    assert list(row.comparison.pairs) == pairs
