"""Which launches are pairs, of which way, and what their ratio is."""

import csv
import functools
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import make_block, make_plan, make_record, make_sequences, make_spec, save

from rollout_bench.analysis.stats.intervals import t_interval
from rollout_bench.analysis.stats.two_stages import TwoStages
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import MIN_PAIRS, Comparison, compare_launches, judge
from rollout_bench.analysis.timed.launches import LaunchMeasures, Pass, measure
from rollout_bench.analysis.timed.pairs import (
    SLACK_S,
    WAYS,
    Pair,
    Way,
    _even,
    of_one_way,
    pair_of,
    round_s,
    trimmed_mean,
)
from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.analysis.timed.service import requests_of
from rollout_bench.contracts.record import DeviceUse, Placement, Record
from rollout_bench.plan.config import ComparisonSettings, Precision
from rollout_bench.report.summary import Summary, summary_of

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


def log_ratio(pair: Pair | None) -> float:
    return pair.log_ratio


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
    found = [log_ratio(pair_of(RATE, *block(*zip(*each, strict=True)))) for each in (rounds, drifted)]
    assert found[0] == pytest.approx(found[1], abs=1e-9)


@given(st.lists(st.tuples(RATES, RATES), min_size=5, max_size=40), st.data())
def test_one_wild_pass_moves_nothing_beyond_the_trim(rounds: list[tuple[float, float]], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rounds) - 1))
    found = []
    for factor in (1e-9, 1e-12):
        wild = list(rounds)
        wild[place] = (rounds[place][0] * factor, rounds[place][1])  # slower than any other, however slow
        found.append(log_ratio(pair_of(RATE, *block(*zip(*wild, strict=True)))))
    assert found[0] == pytest.approx(found[1], abs=1e-9)
    ratios = [math.log(own / theirs) for own, theirs in rounds]
    assert min(ratios) - 1e-9 <= found[0] <= max(ratios) + 1e-9


def test_only_rounds_that_both_have_are_compared() -> None:
    baseline, other = make_block([BF16, W8A8], 0, [[100, 100, 100, 100], [110, 120, 1, 130]])
    missing = other.model_copy(update={"iterations": [i for i in other.iterations if i.round != 2]})
    assert log_ratio(pair_of(RATE, measure(missing), measure(baseline))) == pytest.approx(math.log(1.1 * 1.2 * 1.3) / 3)
    none = other.model_copy(update={"iterations": [i.model_copy(update={"round": 9}) for i in other.iterations[-1:]]})
    assert pair_of(RATE, measure(none), measure(baseline)) is None
    compared = compare_launches([measure(none)], [measure(baseline)], RATE, 0.95)
    assert (compared.pairs, compared.unpaired, compared.speedup) == ({}, 1, None)


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


def test_energy_is_compared_by_rounds_with_disturbed_rounds_trimmed() -> None:
    def with_energy(record: Record, joules: list[float]) -> LaunchMeasures:
        uses = [
            [DeviceUse(device="0", thermal_share=None, power_share=None, energy_j=joule, window_s=1.0)]
            for joule in joules
        ]
        own = [i for i in record.iterations if not i.warmup]
        counted = [i.model_copy(update={"devices": use}) for i, use in zip(own, uses, strict=True)]
        return measure(record.model_copy(update={"iterations": counted}))

    baseline, other = make_block([BF16, W8A8], 3, [[100] * 5, [100] * 5])
    theirs = with_energy(baseline, [200.0, 400.0, 100.0, 200.0, 200.0])
    sides = [with_energy(other, [100.0, 200.0, 50.0, 900.0, 100.0])], [theirs]
    for metric in ("energy_j_per_token", "tokens_per_s_per_w", "device_power_w"):
        found = compare_launches(*sides, metric, 0.95)
        assert (found.ways, found.speedup, found.of_totals) == (
            {"rounds"},
            pytest.approx(2.0),
            pytest.approx(1100 / 1350),
        )
    nothing = [with_energy(other, [0.0, 1.0, 1.0, 1.0, 1.0])], [theirs]
    assert "has no energy" in compare_launches(*nothing, "device_power_w", 0.95).reason


def test_sequence_times_are_compared_by_rounds_unless_values_are_missing() -> None:
    def with_times(record: Record, ends_s: Sequence[float], tail_s: Sequence[float]) -> LaunchMeasures:
        rows = make_sequences(record)
        ends = {
            i.index: (end_s, end_s + tail)
            for i, end_s, tail in zip((i for i in record.iterations if not i.warmup), ends_s, tail_s, strict=True)
        }
        timed = [
            r.model_copy(update={"last_token_s": ends[r.iteration][r.prompt == r.sample == 0]})
            for r in rows
            if r.iteration
        ]
        return measure(record, requests_of(timed))

    other_ends, ends, tails = [1.0, 2.0, 0.5, 40.0, 1.0], [2.0, 4.0, 1.0, 2.0, 2.0], [0.5] * 5
    sides: list[list[LaunchMeasures]] = [[], []]
    for launch in range(2):
        baseline, other = make_block([BF16, W8A8], launch, [[100] * 5, [100] * 5])
        sides[0].append(with_times(other, other_ends, tails if launch else [0.0, *tails[1:]]))
        sides[1].append(with_times(baseline, ends, tails))
    t90 = compare_launches(*sides, "t90_s", 0.95)
    assert (t90.ways, t90.speedup, t90.of_totals) == ({"rounds"}, pytest.approx(2.0), pytest.approx(11 / 44.5))
    tail = compare_launches(*sides, "tail_s", 0.95)
    assert (tail.ways, tail.of_totals, tail.pairs) == (
        {"launches"},
        None,
        {0: pytest.approx(1.25), 1: pytest.approx(1.0)},
    )
    untimed = [replace(each, columns={"elapsed_s": each.columns["elapsed_s"]}) for each in sides[0][1].passes]
    sides[0][1] = replace(sides[0][1], passes=tuple(untimed))
    assert compare_launches(*sides, "t90_s", 0.95).ways == {"launches"}


def test_a_pass_that_generated_nothing_makes_the_comparison_unknown() -> None:
    baseline, other = make_block([BF16, W8A8], 3, [[100] * 5, [110] * 5])
    idle = [i.model_copy(update={"output_tokens": 0 if i.round == 1 else i.output_tokens}) for i in other.iterations]
    found = compare_launches([measure(other.model_copy(update={"iterations": idle}))], [measure(baseline)], RATE, 0.95)
    assert (found.verdict, found.speedup, found.reason) == (
        "unknown",
        None,
        "in launch 3 a pass, its own or its baseline's, generated nothing",
    )


FACTORS = ((1.0, 1.1, 1.01), (1.0, 1.12, 1.0), (1.0, 1.11, 0.99))
"""Of the engines in each of three blocks."""


def blocks(drift: float = 0.0, **settings) -> list[Record]:
    """Three blocks of 10 rounds; the machine slows down by `drift` from round to round."""
    records = []
    for launch, factors in enumerate(FACTORS):
        rates = [[400 * factor * math.exp(-drift * number) for number in range(10)] for factor in factors]
        records += make_block(SPECS, launch, rates, **settings)
    return records


def made_of(results: Path, *records: Record, metrics: Sequence[str] = (RATE,), launches: int = 3) -> Summary:
    save(results, *records)
    return summary_of(results, collect(results, plan(metrics, launches)))


def plan(metrics: Sequence[str] = (RATE,), launches: int = 3):
    return make_plan(SPECS, launches, comparison=ComparisonSettings(metrics={"offline": list(metrics)}))


def rows(results: Path, *records: Record, launches: int = 3) -> list[Row]:
    save(results, *records)
    return rows_of(collect(results, plan(launches=launches)))


def test_a_drift_that_all_share_changes_no_interval(tmp_path: Path) -> None:
    found = [rows(tmp_path / str(drift), *blocks(drift)) for drift in (0.0, 0.05)]
    for steady, drifting in zip(*found, strict=True):
        assert drifting.comparison.speedup == pytest.approx(steady.comparison.speedup)
        assert (drifting.comparison.high, drifting.comparison.verdict) == (
            pytest.approx(steady.comparison.high),
            steady.comparison.verdict,
        )
    assert (found[0][1].comparison.verdict, list(found[0][1].comparison.pairs.values())) == (
        "faster",
        pytest.approx([1.1, 1.12, 1.11]),
    )


def test_both_ratios_are_in_the_table_for_programs(tmp_path: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(made_of(tmp_path, *blocks(), metrics=(RATE, "step_time_s")).csv)))
    totals = 3 / sum(1 / each[1] for each in FACTORS)
    for metric in ("", "step_time_s_"):
        assert float(lines[1][f"{metric}speedup"]) == pytest.approx((1.1 * 1.12 * 1.11) ** (1 / 3))
        assert (float(lines[1][f"{metric}speedup_of_totals"]), lines[0][f"{metric}speedup_of_totals"]) == (
            pytest.approx(totals),
            "",
        )


def test_launches_of_different_blocks_are_no_pair(tmp_path: Path) -> None:
    # w8a8's record of launch 1 was deleted and measured again, by itself; that of launch 2 in a block of its own.
    again = make_record(W8A8, 1, [440.0] * 10), make_block([W8A8], 2, [[440.0] * 10], name="later")[0]
    kept = [r for r in blocks() if not (r.spec.quant.name == "w8a8" and r.launch)]
    _, w8a8, w8a16 = rows(tmp_path, *kept, *again)
    assert [[flag.code for flag in launch.flags] for launch in w8a8.launches] == [
        [], ["not_interleaved"], ["not_interleaved"],
    ]  # fmt: skip
    assert not any(launch.flags for launch in w8a16.launches)
    assert list(w8a8.comparison.pairs) == [0]
    assert w8a8.comparison.reason == (
        "2 of its 3 launches were not measured in one block with the baseline's; the flag not_interleaved says what to "
        "do"
    )
    sentences = [launch.flags[0].sentence for launch in w8a8.launches if launch.flags]
    assert sentences[0].startswith("It was measured by itself, its partner in the baseline in a block")
    assert sentences[1].startswith("It was measured in a block, its partner in the baseline in another")
    for sentence in sentences:
        assert "The next call measures the block whole" in sentence
        assert "set interleave: false" in sentence


SETTINGS = ComparisonSettings(metrics={"offline": [RATE]})
PAIRS = st.dictionaries(
    st.integers(0, 30), st.builds(Pair, st.floats(-1, 1), st.sampled_from(WAYS)), min_size=1, max_size=20
)


@given(PAIRS)
def test_only_the_most_precise_way_with_enough_pairs_is_left(pairs: dict[int, Pair]) -> None:
    found = of_one_way(pairs, MIN_PAIRS)
    (way,) = {pair.way for pair in found.values()}
    assert found == {launch: pair for launch, pair in pairs.items() if pair.way == way}
    numbers = {each: sum(pair.way == each for pair in pairs.values()) for each in WAYS}
    assert all(numbers[better] < MIN_PAIRS for better in WAYS[: WAYS.index(way)])
    assert len(found) >= MIN_PAIRS or all(number < MIN_PAIRS for number in numbers.values())


@given(PAIRS, st.floats(0.1, 10))
def test_the_choice_looks_at_no_ratio(pairs: dict[int, Pair], factor: float) -> None:
    scaled = {launch: replace(pair, log_ratio=-factor * pair.log_ratio) for launch, pair in pairs.items()}
    assert of_one_way(scaled, MIN_PAIRS).keys() == of_one_way(pairs, MIN_PAIRS).keys()


def launch_of(launch: int, way: Way, log_rate: float) -> LaunchMeasures:
    """Return a launch whose pairs with its like are of `way`."""
    elapsed_s = math.exp(-log_rate)
    passes = [
        Pass(number, number, {"output_tokens": 1, "elapsed_s": elapsed_s})
        for number in range(4 if way == "launches" else 5)
    ]
    return LaunchMeasures(record_of(launch, way), {RATE: 1 / elapsed_s}, passes=tuple(passes))


@functools.cache
def record_of(launch: int, way: Way) -> Record:
    return make_block([BF16], launch, [[1.0] * 5])[0] if way == "rounds" else make_record(BF16, launch)


def side(logs: Sequence[float], ways: Sequence[Way]) -> list[LaunchMeasures]:
    return [launch_of(launch, way, log) for launch, (log, way) in enumerate(zip(logs, ways, strict=True))]


def share_of_false_tables(ways: Sequence[Sequence[Way]], spreads: Mapping[Way, float], stop: TwoStages | None) -> float:
    """Return the share of 600 tables without any difference in which one is found, `ways` [configurations, launches].

    The baseline has the spread of the way that the first configuration has in that launch.
    """
    rng, false = np.random.default_rng(15), 0
    for _ in range(600):
        # pairs of one launch share the baseline's noise
        shared = np.array([rng.normal(0, spreads[way]) for way in ways[0]])
        family: list[Comparison] = []
        for own in ways:
            logs = [rng.normal(0, spreads[way]) for way in own]
            base = side(shared[: len(own)].tolist(), own)
            family.append(compare_launches(side(logs, own), base, RATE, 0.95, stop))
        judged = judge(family, SETTINGS, stop, ["baseline"] * len(family))
        false += any(each.p_adjusted is not None and each.p_adjusted < 0.05 for each in judged)
    return false / 600


R, P = "rounds", "passes"
SPREADS: dict[Way, float] = {"rounds": 0.005, "passes": 0.05, "launches": 0.05}
STAGES = TwoStages(0.01, 12, 0.95)


@pytest.mark.parametrize("configurations", [1, 3])
def test_wide_pairs_after_narrow_ones_make_no_more_false_tables(configurations: int) -> None:
    ways: list[list[Way]] = [[R] * 4 + [P] * 4] * configurations
    assert share_of_false_tables(ways, SPREADS, STAGES) < 0.08


def test_few_wide_pairs_share_no_spread_with_many_narrow_ones() -> None:
    ways: list[list[Way]] = [*[[R] * 12] * 3, [P] * 3]
    assert share_of_false_tables(ways, SPREADS, None) < 0.08


def block_and_launches(quants: Sequence[int], blocks: int, alone: Sequence[int]) -> list[Record]:
    """Return blocks of BF16 and `quants`, and launches `alone` of all outside of blocks."""
    specs = [BF16, *(SPECS[quant] for quant in quants)]
    factors = (1.0, 1.11, 0.9)
    noise = (0.01, -0.012, 0.004, 0.02, -0.015)
    records = []
    for launch in range(blocks):
        off = math.exp(noise[launch])
        rates = [
            [400 * factors[SPECS.index(spec)] * math.exp(noise[launch] * (spec is not BF16))] * 8 for spec in specs
        ]
        records += make_block(specs, launch, rates)
    for launch in alone:
        off = math.exp(noise[launch])
        for spec in specs:
            rate = 400 * factors[SPECS.index(spec)] * (1 if spec is BF16 else off)
            records.append(make_record(spec, launch, [rate] * 8))
    return records


def test_comparisons_of_different_ways_are_judged_in_different_tables(tmp_path: Path) -> None:
    blocks = block_and_launches([1], 3, [])
    wide = [make_record(W8A16, launch, [400 * rate] * 8) for launch, rate in enumerate((0.7, 1.0, 1.3))]
    alone = [record.model_copy(update={"block": None}) for record in blocks if record.spec.quant.name == "bf16"]
    narrow = judge([_in_pairs(blocks, BF16, W8A8)], SETTINGS, None, ["b"])[0]
    family = [_in_pairs(blocks, BF16, W8A8), _in_pairs([*alone, *wide], BF16, W8A16)]
    assert [each.ways for each in family] == [{"rounds"}, {"passes"}]
    judged = judge(family, SETTINGS, None, ["b", "b"])
    assert (judged[0].low, judged[0].high) == (narrow.low, narrow.high)
    assert judged[0].p_adjusted == pytest.approx(2 * narrow.p_adjusted)  # of two tables


def _in_pairs(records: Sequence[Record], baseline: Any, own: Any) -> Comparison:
    sides = [[measure(r) for r in records if r.key == spec.key()] for spec in (own, baseline)]
    return compare_launches(sides[0], sides[1], RATE, 0.95)


def test_auto_launches_replace_those_of_another_way(tmp_path: Path) -> None:
    precision = Precision(half_width=0.5, max_launches=12)
    for alone, wanted in (([], 4), ([0], 5)):
        results = tmp_path / str(wanted)
        blocks = block_and_launches([1], 5, [])
        save(results, *[r for r in blocks if r.launch not in alone and r.launch < 4])
        save(results, *block_and_launches([1], 0, alone))
        plan = make_plan([BF16, W8A8], 12, comparison=SETTINGS).model_copy(update={"precision": precision})
        assert {e.planned for e in collect(results, plan).experiments} == {wanted}


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


@pytest.mark.parametrize(
    ("own", "other", "least"),
    [("bdf", "ace", 0.94), ("bab", "aba", 0.94), ("baa", "aaa", 0.94), ("bca", "aab", 0.94), ("bbb", "aaa", 0.0)],
)
def test_intervals_of_swapped_devices_hold_the_truth(own: str, other: str, least: float) -> None:
    """Those of the last are left out: nearly all of them miss."""
    random, held, draws = np.random.default_rng(33), 0, 2000
    for _ in range(draws):
        speed = dict(zip("abcdef", 0.02 * random.standard_normal(6), strict=True))
        noise = 0.001 * random.standard_normal((3, 2))
        logs = [speed[i] - speed[j] + n[0] - n[1] for i, j, n in zip(own, other, noise, strict=True)]
        found = t_interval(logs, 0.95)
        held += found is not None and found[0] <= 0 <= found[1]
    assert held / draws >= least
    assert least or held / draws < 0.3
    both = dict(enumerate(zip(*([place([name]) for name in side] for side in (own, other)), strict=True)))
    assert (_even(both) == [0, 1, 2]) == bool(least)
