"""`precision: {race: true}`: what is surely not the best gets no further launch, and its interval still holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.stats.intervals import ratio_interval
from rollout_bench.analysis.stats.sequential import StoppingRule
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.plan.config import Precision
from rollout_bench.plan.planfile import PlanFile

BASE, FAST, SLOW = make_spec(quant="bf16"), make_spec(quant="w8a8"), make_spec(quant="w8a16")
NOISE = [0.0, 0.012, -0.012, 0.006, -0.006, 0.012, 0.0, -0.012]


def plan(*, race: bool, half_width: float = 0.001) -> PlanFile:
    precision = Precision(half_width=half_width, min_launches=3, max_launches=8, stop="interval", race=race)
    return make_plan((BASE, FAST, SLOW), 8).model_copy(update={"precision": precision})


def put(results: Path, spec, launches: range, factor: float, sign: int = 1) -> None:
    for launch in launches:
        save(results, make_record(spec, launch, [400 * factor * (1 + sign * NOISE[launch])] * 3))


def wanted(results: Path, selected: PlanFile) -> dict[str, int | None]:
    return {e.quant: e.planned for e in collect(results, selected).experiments}


def test_what_is_surely_not_the_best_gets_no_further_launch_and_the_others_go_on(tmp_path: Path) -> None:
    put(tmp_path, BASE, range(3), 1.0)
    put(tmp_path, FAST, range(3), 1.3, -1)
    put(tmp_path, SLOW, range(3), 0.5, -1)
    assert wanted(tmp_path, plan(race=True)) == {"bf16": 4, "w8a8": 4, "w8a16": 3}
    assert wanted(tmp_path, plan(race=False)) == {"bf16": 4, "w8a8": 4, "w8a16": 4}


def test_what_may_be_the_best_goes_on(tmp_path: Path) -> None:
    put(tmp_path, BASE, range(3), 1.0)
    put(tmp_path, FAST, range(3), 1.02, -1)
    put(tmp_path, SLOW, range(3), 1.01, -1)
    assert wanted(tmp_path, plan(race=True)) == {"bf16": 4, "w8a8": 4, "w8a16": 4}


def test_what_is_surely_worse_than_the_baseline_is_lost_too(tmp_path: Path) -> None:
    put(tmp_path, BASE, range(3), 1.0)
    put(tmp_path, SLOW, range(3), 0.5, -1)
    assert wanted(tmp_path, plan(race=True))["w8a16"] == 3


def test_what_has_lost_stays_lost_whatever_the_others_do_later(tmp_path: Path) -> None:
    put(tmp_path, BASE, range(6), 1.0)
    put(tmp_path, FAST, range(6), 1.3, -1)
    put(tmp_path, SLOW, range(3), 0.5, -1)
    found = collect(tmp_path, plan(race=True)).experiments
    assert {e.quant: (e.planned, e.missing) for e in found}["w8a16"] == (3, ())


def test_a_race_takes_intervals_that_hold_whatever_ends_it() -> None:
    with pytest.raises(ValueError, match="race: true takes stop: interval"):
        Precision(race=True)


@pytest.mark.parametrize("truths", [[0.0, 0.001, 0.0], [-0.05, 0.02, 0.019], [0.0, 0.04, 0.04]])
def test_the_best_one_is_lost_and_intervals_miss_at_most_as_often_as_promised(truths: list[float]) -> None:
    trials, most, sd = 600, 8, 0.05
    rule = StoppingRule(0.001, 3, most, 0.95)
    level = rule.looks.each(0.05 / (len(truths) - 1))
    noise = np.random.default_rng(1).normal(0, sd, size=(trials, most, len(truths))) + truths
    logs = noise[..., 1:] - noise[..., :1]
    best = int(np.argmax(truths))
    lost_best = missed = 0
    for table in logs:
        racing, ends = list(range(len(truths) - 1)), {}
        gone: set[int] = set()
        for launches in range(3, most + 1):
            for each in racing:
                found = ratio_interval(table[:launches, each], 1 - level)
                ends[each] = float(np.log(found.low)), float(np.log(found.high))
            bar = max(0.0, *(ends[each][0] for each in racing)) if racing else 0.0
            out = {each for each in racing if ends[each][1] < bar}
            gone |= out
            racing = [each for each in racing if each not in out]
        lost_best += best - 1 in gone  # the baseline, which can not be lost, is none of these
        true = [truths[each + 1] - truths[0] for each in range(len(truths) - 1)]
        missed += any(not low <= true[each] <= high for each, (low, high) in ends.items())
    for count in (lost_best, missed):
        assert stats.binomtest(count, trials).proportion_ci(0.999).low <= 0.05
