"""What is interleaved under which config: groups, memory, engines at once, errors in two lines, blocks of a plan."""

import math
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from refusals import hold, refused
from rooms import Rooms, matrix_of, two_lines
from synthetic_records import make_record

from rollout_bench.cluster import job_resources
from rollout_bench.commands.plan import interleaved_lines
from rollout_bench.contracts.engine_memory import GIB, KV_SPACE, set_cache_bytes
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.record import Block
from rollout_bench.contracts.store import write_launched
from rollout_bench.core import machine_memory
from rollout_bench.core.errors import UserError
from rollout_bench.plan.fit.memory import (
    OWN_BYTES,
    MachineMemory,
    weights_held,
)
from rollout_bench.plan.interleaving import interleaving
from rollout_bench.plan.matrix import Experiment
from rollout_bench.plan.results_state import ResultsState
from rollout_bench.plan.schedule import Schedule, schedule

TWO_OF_ALL = """
models: [a, b]
workloads: [demo, verl-default]
model_settings: {a: {synthetic: {preset: qwen3-90m}}, b: {synthetic: {preset: qwen3-tiny}}}
"""


ROWS = yaml.safe_load(Path(__file__).with_name("plans.yaml").read_text())["interleaved"]


def test_offline_and_rollout_only_interleave():
    assert [mode.name for mode in MODES.values() if mode.interleaves] == ["offline", "rollout"]


def label(experiment: Experiment) -> str:
    """Return what an experiment is called in a row: without what is usual."""
    spec = experiment.spec
    model = "" if spec.model.name == "qwen3-90m" else spec.model.name
    return " ".join(filter(None, (model, spec.quant.name, spec.setting)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_engines_are_interleaved_as_their_row_says(row: dict[str, Any]):
    config, matrix = matrix_of(yaml.safe_dump(row["config"]), row["config"].get("platform", "cpu"))
    boxes = Rooms(row.get("there", 100), row.get("unknown"), **row.get("taken", {}))
    expected = refused(*row["refused"]) if "refused" in row else nullcontext()
    with expected:
        found = interleaving(config, matrix, boxes, on_cluster=row.get("on_cluster", False))
        groups = [[label(experiment) for experiment in group.members] for group in found.groups]
        assert groups == row.get("groups", [])
        assert hold(found.reasons, row.get("reasons", []))


def test_an_engine_on_cpu_takes_weights_cache_and_a_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(KV_SPACE, raising=False)
    _, matrix = matrix_of()
    weights = {e.spec.quant.name: weights_held(e.spec, e.model_path) for e in matrix.experiments}
    for one in matrix.experiments:
        held = weights[one.spec.quant.name]
        assert MachineMemory().taken(one) == 1.25 * held + 268435456 + GIB / 2 + OWN_BYTES
    assert weights["bf16"] == pytest.approx(2 * 93e6, rel=0.15)
    assert 0.4 < weights["w8a8"] / weights["bf16"] < 0.9


OPEN_ENDED = "workload_settings: {demo: {engine_args: {kv_cache_memory_bytes: null}}}\n"


@pytest.mark.parametrize(
    ("overlay", "variables", "cache_bytes"),
    [
        ("", {KV_SPACE: "3"}, 3 * GIB),
        ("", {}, 268435456),
        (OPEN_ENDED + f"engine: {{environment: {{{KV_SPACE}: '2'}}}}", {}, 2 * GIB),
    ],
)
def test_the_cache_variable_wins_over_the_argument(overlay: str, variables: dict[str, str], cache_bytes: int):
    assert set_cache_bytes(matrix_of(overlay)[1].experiments[0].spec, variables) == cache_bytes


def test_an_engine_without_a_cache_size_takes_its_share():
    _, matrix = matrix_of(OPEN_ENDED)
    assert MachineMemory().taken(matrix.experiments[0]) == pytest.approx(0.92 * machine_memory.machine_bytes())


def test_shares_of_a_device_add_up_and_the_remedy_fits():
    quants = "quants: [bf16, fp8, w8a8, w8a16]\nworkloads: [verl-default]\ninterleave: true\n"
    problem, remedy = two_lines(quants + "engine_args: {gpu_memory_utilization: 0.9}", MachineMemory(), "cuda")
    assert problem.endswith("4 engines take 3.60 of a device's memory, and there is 0.97 of a device's memory")
    assert remedy == "set gpu_memory_utilization: 0.24 in engine_args, or set interleave: false, or auto"
    config, matrix = matrix_of(quants + "engine_args: {gpu_memory_utilization: 0.24}", "cuda")
    (group,) = interleaving(config, matrix, MachineMemory(), on_cluster=False).groups
    assert len(group.members) == 4


def test_a_container_with_less_memory_than_its_machine_counts(tmp_path):
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1200\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 200\n")
    assert machine_memory.available_bytes(tmp_path) == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_memory.available_bytes(tmp_path) > GIB // 8


def plan_of(overlay: str, total: float = math.inf) -> Schedule:
    config, matrix = matrix_of(overlay)
    return schedule(config, matrix, 7, interleaving(config, matrix, Rooms(total), on_cluster=False))


@given(
    models=st.sampled_from(["[a]", "[a, b]"]),
    quants=st.lists(st.sampled_from(["bf16", "w8a8", "w8a16"]), min_size=1, max_size=3, unique=True),
    modes=st.sampled_from(["[offline]", "[offline, online]"]),
    launches=st.integers(1, 4),
    interleave=st.sampled_from(["auto", "true", "false"]),
    total=st.sampled_from([1.5, 2.5, math.inf]),
    missing=st.randoms(use_true_random=False),
)
def test_each_launch_is_in_exactly_one_job(models, quants, modes, launches, interleave, total, missing):
    overlay = TWO_OF_ALL + f"models: {models}\nquants: [{', '.join(quants)}]\nmodes: {modes}\nlaunches: {launches}\n"
    try:
        plan = plan_of(overlay.replace("models: [a, b]\n", "", 1) + f"interleave: {interleave}", total)
    except UserError:
        assert interleave == "true"
        return
    outputs = plan.outputs_for(launch.record for launch in plan.launches)
    measured = [launch.record for output in outputs for launch in plan.jobs[output].launches]
    assert Counter(measured) == Counter(launch.record for launch in plan.launches)
    groups = [[e.name for e in group.members] for group in plan.interleaving.groups]
    assert (interleave == "false") <= (not groups)
    for block in plan.blocks:
        assert len({launch.index for launch in block.launches}) == 1
        names = [launch.experiment.name for launch in block.launches]
        assert names in groups if len(names) > 1 else all(names[0] not in group for group in groups)
        assert {launch.experiment.spec.mode for launch in block.launches} == {"offline"} or len(names) == 1
    some = [launch.record for launch in plan.launches if missing.random() < 0.5]
    chosen = plan.outputs_for(some)
    assert len(chosen) == len(set(chosen))
    assert set(some) <= {launch.record for output in chosen for launch in plan.jobs[output].launches}
    places = [min(plan.by_record[one.record][0] for one in plan.jobs[output].launches) for output in outputs]
    assert places == sorted(places)


def test_plan_file_and_command_tell_what_is_interleaved_and_why():
    file = plan_of("interleave: true").plan_file()
    assert [len(group.experiments) for group in file.interleaved] == [3]
    name = "offline cpu qwen3-90m demo: bf16, w8a16, w8a8"
    assert interleaved_lines(file) == [f"interleaved: {name}: all 3 engines alive at once"]
    (line,) = interleaved_lines(plan_of("", 2.5).plan_file())
    assert (
        line
        == f"not interleaved: {name}: 3 engines take 3 boxes, and there is 2.5 boxes; to interleave, make room for 3"
    )


def test_a_group_that_differs_twice_names_both():
    few = "settings: [default, few]\nsetting_settings: {few: {engine_args: {max_num_seqs: 4}}}"
    baseline = "baseline: {quant: bf16, setting: default}"
    file = plan_of(f"interleave: true\nquants: [bf16, w8a8]\n{few}\n{baseline}").plan_file()
    assert [group.name for group in file.interleaved] == [
        "offline cpu qwen3-90m demo: bf16 default, bf16 few, w8a8 default, w8a8 few"
    ]


def test_a_blocks_slurm_job_requests_the_time_of_all_launches():
    plan = plan_of("interleave: true\ntimeout_s: 600\n")
    baseline = plan.blocks[0].launches[0]
    wildcards = SimpleNamespace(mode="offline", experiment=baseline.experiment.name, launch="0")
    asked = job_resources.asked_for_measuring(plan, True)
    assert asked["runtime"](wildcards) == 3 * 10 + job_resources.SPARE_MIN
    assert "--exclusive" in asked["slurm_extra"](wildcards), "the node for itself, as on cpu by default"
    assert asked["cpus_per_task"](wildcards) == plan.config.cluster.cpus_per_device
    assert job_resources.asked_for_measuring(plan, False) == {}


def test_a_launchs_expected_time_is_its_part_of_the_block(tmp_path: Path):
    state = ResultsState(plan_of("interleave: true"), tmp_path)
    first = state.schedule.launches[0]
    block = Block(id="0" * 16, members=["a", "b", "c"], order=[[0, 1, 2]], waited_s=1.0)
    record = make_record(first.experiment.spec, first.index).model_copy(update={"wall_s": 31.0, "block": block})
    write_launched(state.path(first.record), record)
    assert {launch.expected_s for launch in state.plan_file().launches} == {30.0}
