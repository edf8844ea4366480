"""In one comparison only pairs of one way count, and comparisons of two ways share no spread."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import make_block, make_plan, make_record, make_spec, save

from rollout_bench.analysis.stats.two_stages import TwoStages
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import MIN_PAIRS, Comparison, compare_launches, judge
from rollout_bench.analysis.timed.launches import LaunchMeasures, Pass, measure
from rollout_bench.analysis.timed.pairs import WAYS, Pair, Way, of_one_way
from rollout_bench.contracts.record import Record
from rollout_bench.plan.config import ComparisonSettings, Precision

RATE = "output_tokens_per_s"
SETTINGS = ComparisonSettings(metrics={"offline": [RATE]})
BF16, W8A8, W8A16 = SPECS = [make_spec(quant=quant) for quant in ("bf16", "w8a8", "w8a16")]
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
