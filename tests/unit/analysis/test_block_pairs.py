"""Launches that were interleaved are compared round by round, and the summary says so."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import make_block, make_plan, make_record, make_sequences, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import compare_launches
from rollout_bench.analysis.timed.launches import LaunchMeasures, measure
from rollout_bench.analysis.timed.pairs import Pair, pair_of, trimmed_mean
from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.analysis.timed.service import requests_of
from rollout_bench.contracts.record import DeviceUse, Record
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.summary import Summary, summarise

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
    assert pair is not None
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
    assert pair is not None
    assert pair.way == "launches"
    assert math.exp(pair.log_ratio) == pytest.approx(own / ((own - 1) / 200 + 1 / 50) / 100)


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
        assert (found.ways, found.speedup) == ({"rounds"}, pytest.approx(2.0))
        assert found.of_totals == pytest.approx(1100 / 1350)
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
    assert (tail.ways, tail.of_totals) == ({"launches"}, None)
    assert tail.pairs == {0: pytest.approx(1.25), 1: pytest.approx(1.0)}
    untimed = [replace(each, columns={"elapsed_s": each.columns["elapsed_s"]}) for each in sides[0][1].passes]
    sides[0][1] = replace(sides[0][1], passes=tuple(untimed))
    assert compare_launches(*sides, "t90_s", 0.95).ways == {"launches"}


def test_a_pass_that_generated_nothing_makes_the_comparison_unknown() -> None:
    baseline, other = make_block([BF16, W8A8], 3, [[100] * 5, [110] * 5])
    idle = [i.model_copy(update={"output_tokens": 0 if i.round == 1 else i.output_tokens}) for i in other.iterations]
    found = compare_launches([measure(other.model_copy(update={"iterations": idle}))], [measure(baseline)], RATE, 0.95)
    assert (found.verdict, found.speedup) == ("unknown", None)
    assert found.reason == "in launch 3 a pass, its own or its baseline's, generated nothing"


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
    return summarise(collect(results, plan(metrics, launches)))


def plan(metrics: Sequence[str] = (RATE,), launches: int = 3):
    return make_plan(SPECS, launches, comparison=ComparisonSettings(metrics={"offline": list(metrics)}))


def rows(results: Path, *records: Record, launches: int = 3) -> list[Row]:
    save(results, *records)
    return rows_of(collect(results, plan(launches=launches)))


def test_a_drift_that_all_share_changes_no_interval(tmp_path: Path) -> None:
    found = [rows(tmp_path / str(drift), *blocks(drift)) for drift in (0.0, 0.05)]
    for steady, drifting in zip(*found, strict=True):
        assert drifting.comparison.speedup == pytest.approx(steady.comparison.speedup)
        assert drifting.comparison.high == pytest.approx(steady.comparison.high)
        assert drifting.comparison.verdict == steady.comparison.verdict
    assert found[0][1].comparison.verdict == "faster"
    assert list(found[0][1].comparison.pairs.values()) == pytest.approx([1.1, 1.12, 1.11])


def test_both_ratios_are_in_the_table_for_programs(tmp_path: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(made_of(tmp_path, *blocks(), metrics=(RATE, "step_time_s")).csv)))
    totals = 3 / sum(1 / each[1] for each in FACTORS)
    for metric in ("", "step_time_s_"):
        assert float(lines[1][f"{metric}speedup"]) == pytest.approx((1.1 * 1.12 * 1.11) ** (1 / 3))
        assert float(lines[1][f"{metric}speedup_of_totals"]) == pytest.approx(totals)
        assert lines[0][f"{metric}speedup_of_totals"] == ""


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
        assert "rollout-bench discard --invalid" in sentence
        assert "set interleave: false" in sentence
