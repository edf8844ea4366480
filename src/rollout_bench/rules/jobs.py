"""Inputs and parameters of the rules, as the plan has them."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rollout_bench.cluster.internals import Internals
from rollout_bench.core.errors import UserError
from rollout_bench.core.places import home
from rollout_bench.plan.config_file import name_after
from rollout_bench.plan.planfile import is_plan
from rollout_bench.plan.results_state import ResultsState
from rollout_bench.plan.schedule import PLAN_FILE, RESULTS, Schedule, ScheduledJob, ScheduledLaunch, selected
from rollout_bench.report.state import SUMMARIES, is_stale
from rollout_bench.rules.call import has_begun, results_now, stopping
from rollout_bench.rules.rounds import first_failed, next_round

SUMMARY = str(RESULTS / "summary.md")
"""The summary that is asked for by default; the rule that makes it makes all others, too."""


def script(name: str) -> str:
    """Return the path of a program of workflow/scripts."""
    return str(home() / "workflow" / "scripts" / name)


def checkpoint_pattern(plan: Schedule) -> str:
    """Return the folder of a built checkpoint, with a wildcard for its name."""
    return str(Path(plan.config.model_base) / "synthetic/{checkpoint}")


@stopping()
def checkpoint_arguments(plan: Schedule, folder: str) -> list[str]:
    """Return the arguments of the command that builds the checkpoint at `folder`."""
    built = {e.checkpoint.folder: e.checkpoint for e in plan.matrix.experiments if e.checkpoint}
    return selected(built, folder, "checkpoint").arguments


def needed(at_start: ResultsState, wildcards: Any) -> list[str]:
    """Return the input files of a job: checkpoints that the workflow builds, and marks of launches to go first."""
    plan, now = at_start.schedule, results_now(at_start)
    launches = _job(plan, wildcards).launches
    checkpoints = (launch.experiment.checkpoint for launch in launches)
    first = plan.outputs_for(record for launch in launches for record in launch.needed if now.is_missing(record))
    return [*dict.fromkeys(checkpoint.folder for checkpoint in checkpoints if checkpoint), *first]


def priority(plan: Schedule, wildcards: Any) -> int:
    """Return the priority of a job, higher for earlier jobs."""
    return len(plan.launches) - min(plan.by_record[launch.record][0] for launch in _job(plan, wildcards).launches)


def records_of(at_start: ResultsState, wildcards: Any) -> str:
    """Return the records that a job must write, a line for each."""
    launches, now = _job(at_start.schedule, wildcards).launches, results_now(at_start)
    return "".join(f"\n    {x.record}" for x in launches if now.is_missing(x.record))


def members(at_start: ResultsState, on_cluster: bool, wildcards: Any) -> list[str]:
    """Return the arguments of the measuring command for a job: launches and seed of the order.

    An experiment that failed in an earlier job of this run would fail again, so it is left out; if none remains, the
    job does nothing. On a cluster it is tried all the same: the jobs are submitted together, and nodes differ.
    """
    plan = at_start.schedule
    job = _job(plan, wildcards)
    turns = {launch.record: turn for turn, block in enumerate(job.blocks) for launch in block.launches}
    arguments = []
    launches = _worth_trying(at_start, job) if has_begun() or on_cluster else job.launches
    if not launches and not on_cluster:
        return ["--nothing"]
    launches = launches or job.launches
    for launch in launches:
        record, e = Path(launch.record), launch.experiment
        member = {
            "spec": str(record.with_name("spec.json")),
            "model": e.model_path,
            "dataset": e.dataset_path,
            "launch": launch.index,
            "out": launch.record,
            "log": str(Path("logs") / record.relative_to(RESULTS).with_suffix(".log")),
            "turn": turns[launch.record],
        }
        arguments += ["--member", json.dumps(member)]
    return [*arguments, "--order-seed", str(plan.order_seed), *([] if on_cluster else ["--one-node"])]


def _worth_trying(state: ResultsState, job: ScheduledJob) -> list[ScheduledLaunch]:
    """Return the launches of a job without those that would fail again, and print those."""
    kept, left_out = [], []
    for launch in job.launches:
        failed = first_failed(state, launch.experiment.spec.mode, launch.experiment.name, launch.index)
        if failed is None or state.path(launch.record).exists():
            kept.append(launch)
        else:
            left_out.append(f"{launch.record}: is not tried, since launch {failed} failed in this run")
    print(*left_out, sep="\n", end="\n" * bool(left_out), file=sys.stderr, flush=True)
    return kept


@stopping()
def _job(plan: Schedule, wildcards: Any) -> ScheduledJob:
    return plan.job_at(wildcards)


def kept_folder(plan: Schedule) -> Path:
    """Return the folder of this config's last summary and figures."""
    return RESULTS / SUMMARIES / name_after([Path(file) for file in plan.files])


def is_summary_stale(plan: Schedule) -> bool:
    """Return whether the summary is missing, or does not show the existing records by this plan."""
    return is_stale(RESULTS, plan.plan_file(), RESULTS, kept_folder(plan))


@stopping()
def inputs_of_summary(at_start: ResultsState, workflow: Any) -> list[str]:
    """Return the marks of blocks to measure as inputs of the summary, and force the summary if it is stale.

    With `launches: auto`, the result includes the round after which Snakemake calls this function again.
    The summary is forced because Snakemake considers an output up to date if its inputs are missing, and overlooks
    copied records. Snakemake calls this function when the job enters the DAG, before it decides which jobs run.
    A mark may remain from a killed run although its records are deleted, so its job is forced, too.
    """
    if workflow.dag_settings.batch is not None:
        raise UserError("--batch: the missing launches are others after each call", "divide by --config models=[...]")
    plan, now = at_start.schedule, results_now(at_start)
    try:
        wanted = plan.outputs_for(next_round(now) if plan.config.launches == "auto" else at_start.missing)
    except UserError:
        if not has_begun():
            raise
        wanted = []  # a record was damaged during the run: the summary reports it
    forced = plan.jobs.keys() & set(wanted)
    if wanted or is_summary_stale(plan) or not is_plan(PLAN_FILE):
        forced |= {SUMMARY}
    internals = Internals(workflow)
    internals.force(forced)
    asked = {record for record, mark in plan.mark_of.items() if mark in forced and now.is_missing(record)}
    if counts := Counter(launch.experiment.name for launch in plan.launches if launch.record in asked):
        internals.say_in_dry_run("\n".join(_experiment_table(plan, counts)))
    return wanted


def _experiment_table(plan: Schedule, counts: Mapping[str, int]) -> Iterator[str]:
    """Yield a table of the experiments to measure; `counts`: experiment -> number of launches."""
    head = ("mode", "model", "quant", "setting", "workload", "launches")
    rows = [
        (e.mode, e.model, e.quant, e.setting, e.workload, str(counts[e.experiment]))
        for e in plan.experiments
        if e.experiment in counts
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    yield "To measure:"
    for row in (head, *rows):
        yield "  " + "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
