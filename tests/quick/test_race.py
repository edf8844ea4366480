"""`precision: {race: true}`: what is surely not the best gets no further launch, and its interval still holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import racing
from synthetic_records import make_plan, make_record, make_spec, save

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


@pytest.mark.parametrize("seed", range(4))
def test_what_is_simulated_is_what_is_launched(tmp_path: Path, seed: int) -> None:
    factors = np.exp(np.random.default_rng(seed).normal([0.0, 0.12, 0.02], 0.03, size=(8, 3)))
    for launch, of_launch in enumerate(factors):
        for spec, factor in zip((BASE, FAST, SLOW), of_launch, strict=True):
            save(tmp_path, make_record(spec, launch, [400 * factor] * 3))
    logs = np.log(factors)
    taken, *_ = racing.race((logs[:, 1:] - logs[:, :1])[None], half_width=0.001)
    found = wanted(tmp_path, plan(race=True))
    assert [found["w8a8"], found["w8a16"]] == taken[0].tolist()
    assert taken.min() < 8 or seed


def test_the_best_one_is_lost_and_intervals_miss_at_most_as_often_as_promised_and_launches_are_saved() -> None:
    for one in racing.simulate(600, 1).raced:
        assert one.noise != racing.NORMAL or max(one.lost_best.interval[0], one.missed.interval[0]) <= 0.05
        assert one.launches <= one.without
        assert one.kind != "half are 20 % worse" or one.noise != racing.NORMAL or one.launches < 0.8 * one.without
