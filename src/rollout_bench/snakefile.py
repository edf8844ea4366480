"""The functions that the Snakefile calls: plan of a config, start and end of a run, rounds, blocks, arguments."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import filelock

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.cluster import ownership, slurm
from rollout_bench.cluster.internals import Internals
from rollout_bench.cluster.side_by_side import check_devices
from rollout_bench.contracts.postmortem import error_of, failed_by_itself, state_of
from rollout_bench.contracts.store import failure_path, read_failure, record_path
from rollout_bench.core.errors import UserError, tell
from rollout_bench.core.locks import locked
from rollout_bench.core.numbers import several
from rollout_bench.core.processes import python_path
from rollout_bench.live_view import can_redraw, start_view
from rollout_bench.measure.machine.gpus import Gpus
from rollout_bench.plan.checks import check_weights, dropped_variables
from rollout_bench.plan.config import DEFAULT_LAUNCHES
from rollout_bench.plan.config_file import check_config_file, check_folder, check_metadata, name_after, read_config
from rollout_bench.plan.engine import InstalledEngine, probe_engine
from rollout_bench.plan.fit.memory import MachineMemory, check_fits
from rollout_bench.plan.interleaving import interleaving
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.planfile import PlannedExperiment, is_plan
from rollout_bench.plan.schedule import (
    MARKS,
    RESULTS,
    Schedule,
    ScheduledBlock,
    ScheduledLaunch,
    cell_of,
    measured_with_other_files,
    moved_since,
    of_unsound_blocks,
    order_seed,
    put_on_disk,
    schedule,
    selected,
    set_aside,
    with_partners,
)
from rollout_bench.report.state import SUMMARIES, is_stale

LOGS_OF_ROUNDS = Path("logs") / "rounds"

ROUNDS = RESULTS / "rounds"
"""Folder of empty marks: a mark for each round of an experiment that has ended. The end of the run deletes them."""


def next_round(plan: Schedule) -> list[str]:
    """Return the missing records that are needed now, in the order of their launches, and the files of their rounds.

    The caller asks again when the file of a round exists. An experiment with a failed launch in this run gets no
    further launches in this run.

    Raises:
        UserError: if a record can't be read, because the number of needed launches is then unknown.
    """
    wanted = _wanted(plan)
    missing = set(plan.missing_now())
    moved = moved_since(PLAN_FILE) if _held else set()  # measured again in this run in any case
    records = [
        launch.record
        for launch in plan.launches
        if launch.record in missing
        and (launch.index < wanted[launch.experiment.name] or launch.record in moved)
        and not _given_up(plan, launch.record)
    ]
    rounds = [
        str(ROUNDS / experiment.mode / experiment.experiment / str(launches))
        for experiment in plan.experiments
        for launches in (wanted[experiment.experiment],)
        if launches < experiment.launches
        and _baselines(plan, experiment)
        and not _given_up(plan, str(record_path(RESULTS, experiment.mode, experiment.experiment, launches - 1)))
        and missing_of_round(plan, experiment.mode, experiment.experiment, launches)
    ]
    return records + rounds


def missing_of_round(plan: Schedule, mode: str, experiment: str, launches: int) -> list[str]:
    """Return the missing records among the first `launches` of an experiment and its baseline, except given-up ones.

    Raises:
        UserError: if the config does not select the experiment.
    """
    own = selected({e.experiment: e for e in plan.experiments if e.mode == mode}, experiment, "experiment")
    records = [
        record_path(RESULTS, e.mode, e.experiment, index)
        for index in range(launches)
        for e in (own, *_baselines(plan, own))
    ]
    return [
        str(record)
        for record in records
        if (not record.exists() or str(record) in plan.again) and not _given_up(plan, str(record))
    ]


def _baselines(plan: Schedule, own: PlannedExperiment) -> list[PlannedExperiment]:
    """Return the baselines of `own`: usually one experiment, and none if `own` is a baseline."""
    wanted = cell_of(own, plan.config.baseline.named)
    return [] if wanted == cell_of(own) else plan.by_cell.get(wanted, [])


def _wanted(plan: Schedule) -> dict[str, int]:
    """Return the number of launches that each experiment needs so far, by its folder name."""
    first = {e.name: min(DEFAULT_LAUNCHES, plan.config.launches_of(e.spec.mode)) for e in plan.matrix.experiments}
    if not RESULTS.is_dir():
        return first
    found = collect(RESULTS, plan.plan_file(estimate=False)).launched
    return {e.experiment: e.planned or first[e.experiment] for e in found}


def _given_up(plan: Schedule, record: str) -> bool:
    """Return whether an interleaved launch is not tried again in this run, because it or an earlier launch failed."""
    if not _held or not plan.is_interleaved(record):
        return False
    launch = plan.by_record[record][1]
    return _failed_before(launch.experiment.spec.mode, launch.experiment.name, launch.index + 1) is not None


def _failed_before(mode: str, experiment: str, launches: int) -> int | None:
    """Return the first of the `launches` that failed in this run for a reason that does not depend on the node."""
    records = (record_path(RESULTS, mode, experiment, index) for index in range(launches))
    return next((index for index, record in enumerate(records) if failed_by_itself(record, PLAN_FILE)), None)


PLAN_FILE = RESULTS / "plan.json"

_held: list[contextlib.ExitStack] = []
"""Holder of the lock on the results folder, from the beginning of a run until its process ends."""


def stop(error: UserError) -> NoReturn:
    """Print the two lines of `error` and end Snakemake with exit status 1, without a traceback."""
    print(error, file=sys.stderr, flush=True)
    sys.exit(1)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """End Snakemake with the two lines of a `UserError` that the decorated function raises."""
    try:
        yield
    except UserError as error:
        stop(error)


def put_on_path() -> None:
    """Let jobs import this package in any Python, without installing it."""
    os.environ["PYTHONPATH"] = python_path()


@stopping()
def check_default_config(is_job: bool, path: str = "config.yaml") -> None:
    """Stop Snakemake early if the default config, the output folders or Snakemake's metadata can't be used.

    Args:
        is_job: whether this is a job on a cluster. Jobs skip the check of the metadata, because the user's call has
            made it and it reads one file for each output.
        path: the default config.
    """
    for folder in (RESULTS, Path("logs")):
        check_folder(folder)
    if not is_job:
        check_metadata(Path(".snakemake") / "metadata")
    check_config_file(Path(path))


@stopping()
def plan_workflow(
    merged: Mapping[str, Any], given: Any, on_cluster: bool, *, is_main: bool, is_check: bool = False
) -> tuple[Schedule, InstalledEngine]:
    """Return the plan of the merged config, and the engine; stop Snakemake with a two-line error if that fails.

    Args:
        merged: the config.
        given: Snakemake's config settings: files besides the default config, and values of the command line.
        on_cluster: whether jobs are submitted to a cluster, or this process is such a job.
        is_main: whether this is the user's call and not one of its jobs. Only this call decides which records are
            measured again.
        is_check: whether to leave out the checks that `rollout-bench check` makes itself.
    """
    for file in given.configfiles:
        check_config_file(file)
    config = read_config(merged, given.config)
    engine = probe_engine(config.engine.python)
    matrix = expand(config, engine)
    measured_here = is_main and not on_cluster and engine.platform() == matrix.platform
    if measured_here and not is_check:
        check_weights(config, ((e.spec.model, e.model_path) for e in matrix.experiments))
        check_devices(config, matrix)
    device, device_bytes = Gpus().smallest() if matrix.platform == "cuda" and not on_cluster else (None, None)
    if measured_here or (is_main and matrix.platform != "cpu"):
        check_fits(matrix.experiments, device_bytes, f"one {device}")
    at_once = (config.devices or 1) if config.isolation == "per_device" else 1  # launches or blocks, on divided cores
    memory = MachineMemory(on_cluster, at_once, device_bytes)
    blocks = interleaving(config, matrix, memory, on_cluster=on_cluster)
    plan = schedule(config, matrix, order_seed(PLAN_FILE), blocks)
    plan = replace(plan, files=tuple(os.path.relpath(file) for file in given.configfiles))
    if is_main:
        plan.again.update(_measured_again(plan))
    return plan, engine


def _measured_again(plan: Schedule) -> set[str]:
    """Return the records whose model files have changed since, with those compared with them, and unsound blocks."""
    changed = measured_with_other_files(plan)
    again = with_partners(changed, plan.experiments, plan.config.baseline.named) | of_unsound_blocks(plan)
    if plan.config.launches != "auto" or not again:
        return again
    wanted = _wanted(plan)
    return {record for record in again if plan.by_record[record][1].index < wanted[Path(record).parent.name]}


def refuse_jobs_here(plan: Schedule, workflow: Any) -> None:
    """Stop `snakemake --jobs 4` without a cluster, and cluster jobs that would load one endpoint simultaneously.

    `--jobs` is the number of submitted jobs, which need a cluster. Leases are local to a node, so they can't prevent
    launches of several nodes from using the same endpoint.
    """
    served = [experiment.name for experiment in plan.matrix.experiments if experiment.spec.endpoint is not None]
    if served and workflow.resource_settings.nodes is not None and not workflow.local_exec:
        problem = f"endpoints: {served[0]}: launches on several nodes would load one server at the same time"
        stop(UserError(problem, "measure endpoints in a call of their own without a cluster's profile"))
    if workflow.local_exec and workflow.resource_settings.nodes is not None:
        jobs = workflow.resource_settings.nodes
        stop(UserError(f"--jobs {jobs}: nothing is submitted here", f"say --cores {jobs}, or name a profile"))


def keep_plan(plan: Schedule) -> None:
    """Write the plan file, so that later runs continue its order; change nothing while a run has its own there."""
    try:
        with locked(RESULTS, ""):
            ownership.tell_of_claims(RESULTS)
            put_on_disk(plan, PLAN_FILE, set())
    except UserError as error:
        if not isinstance(error.__cause__, filelock.Timeout):
            raise


@stopping()
def begin(plan: Schedule, outputs: Iterable[str]) -> None:
    """Start a real run that makes `outputs`: lock the results folder and write the plan."""
    wanted = set(outputs)
    try:
        remedy = "wait until it ends, or work in a clone that has a folder results/ of its own"
        lock = contextlib.ExitStack()
        lock.enter_context(locked(RESULTS, remedy))
        _held.append(lock)
        slurm.check_none_left(Path.cwd())
        ownership.tell_of_claims(RESULTS)
        # With launches: auto, any launch may be needed later in the run.
        put_on_disk(plan, PLAN_FILE, wanted if plan.config.launches != "auto" else set(plan.blocks))
        asked = {launch.record for mark in wanted & plan.blocks.keys() for launch in plan.blocks[mark].launches}
        for line in dropped_variables(plan.config, os.environ):
            print(line, file=sys.stderr, flush=True)
        _tell_cost(plan, asked)
        aside = set_aside(sorted(plan.again & asked))  # last, so that an earlier error moves nothing
        if aside is not None:
            print(*plan.changed, sep="\n", file=sys.stderr, flush=True)
            print(f"records that are measured again were moved to {aside}", file=sys.stderr, flush=True)
        plan.again.clear()
    except OSError as error:
        remedy = "check its owner and permissions"
        raise UserError(f"{RESULTS}: cannot be written: {error.strerror}", remedy) from None


def show_live(plan: Schedule, internals: Internals) -> None:
    """Start the live view of a run that measures, if it has a terminal."""
    if _held and plan.missing_now() and can_redraw():
        internals.hide_progress()
        start_view(plan)


def _tell_cost(plan: Schedule, records: Collection[str]) -> None:
    """Print the expected duration of the launches of this run."""
    missing = {record for record in records if record in plan.again or not Path(record).exists()}
    if missing:
        print(f"{several(len(missing), 'launch')} to run: {plan.cost_of(missing)}", file=sys.stderr, flush=True)


def end_well(plan: Schedule) -> None:
    """End a run in which no job failed: delete its marks.

    A job may succeed although one of its launches failed. Such a run ends like a failed one, with exit status 1
    (SystemExit in onsuccess ends Snakemake 9.27 with its status).
    """
    if not _held:
        return
    failed = [Path(one.record) for one in plan.launches if failed_by_itself(Path(one.record), PLAN_FILE)]
    if not failed:
        _clean()
        return
    end_with_errors(plan)
    errors = [error_of(read_failure(failure_path(record))) for record in failed]
    print(f"{several(len(failed), 'launch')} failed; the others of their blocks were measured:", file=sys.stderr)
    tell(errors)
    sys.exit(1)


def _clean() -> None:
    for folder in (ROUNDS, LOGS_OF_ROUNDS, MARKS):
        shutil.rmtree(folder, ignore_errors=True)


def end_with_errors(plan: Schedule) -> None:
    """End a run in which a launch failed: write a summary of the existing records, marked incomplete."""
    if not _held:
        return
    _clean()
    records = [Path(launch.record) for launch in plan.launches]
    # Claims of dead processes.
    tell([error_of(read_failure(failure_path(path))) for path in ownership.tell_of_claims(RESULTS)])
    if all(state_of(path) == "missing" for path in records):
        return
    if not _is_stale(plan):  # no job failed, so the summary is written already
        return
    where = [str(RESULTS), "--plan", str(PLAN_FILE), "--also", str(kept_folder(plan))]
    subprocess.run([sys.executable, "-m", "rollout_bench", "summarise", *where], check=False)


def kept_folder(plan: Schedule) -> Path:
    """Return the folder of this config's last summary and figures."""
    return RESULTS / SUMMARIES / name_after([Path(file) for file in plan.files])


def _is_stale(plan: Schedule) -> bool:
    return is_stale(RESULTS, plan.plan_file(estimate=False), RESULTS, kept_folder(plan))


def records_to_summarise(plan: Schedule, workflow: Any, rule: str) -> list[str]:
    """Return the missing records as inputs of `rule`, and force `rule` if its summary is stale.

    With `launches: auto`, the result includes the round after which Snakemake calls this function again.
    The rule is forced because Snakemake considers an output up to date if its inputs are missing, and does not detect
    copied records. Snakemake calls this function when the rule's job enters the DAG, before it decides which jobs run.
    A mark may remain from a killed run although its records are deleted, so its job is forced, too.
    """
    if workflow.dag_settings.batch is not None:
        stop(UserError("--batch: the missing launches are others after each call", "divide by --config models=[...]"))
    try:
        wanted = plan.outputs_for(next_round(plan) if plan.config.launches == "auto" else plan.missing)
    except UserError as error:
        if not _held:
            stop(error)
        wanted = []  # a record was damaged during the run: the summary reports it
    internals = Internals(workflow)
    if wanted or _is_stale(plan) or not is_plan(PLAN_FILE):
        internals.force(rule)
    for mark in plan.blocks.keys() & set(wanted):
        internals.force_output(mark)
    return wanted


@stopping()
def records_of_round(plan: Schedule, wildcards: Any) -> list[str]:
    """Return the outputs that a round waits for: missing launches of one experiment and its baseline."""
    return plan.outputs_for(missing_of_round(plan, wildcards.mode, wildcards.experiment, int(wildcards.launches)))


def needed(plan: Schedule, wildcards: Any) -> list[str]:
    """Return the input files of a block: checkpoints that the workflow builds, and marks of launches to go first."""
    launches = _block(plan, wildcards).launches
    checkpoints = (launch.experiment.checkpoint for launch in launches)
    missing = set(plan.missing)
    first = plan.outputs_for(record for launch in launches for record in launch.needed if record in missing)
    return [*dict.fromkeys(checkpoint.folder for checkpoint in checkpoints if checkpoint), *first]


def records_of(plan: Schedule, wildcards: Any) -> str:
    """Return the records that a job must write, a line for each."""
    launches = _block(plan, wildcards).launches
    missing = [x.record for x in launches if x.record in plan.again or not Path(x.record).exists()]
    return "".join(f"\n    {record}" for record in missing)


def members(plan: Schedule, on_cluster: bool, wildcards: Any) -> list[str]:
    """Return the arguments of the measuring command for a block: launches and seed of the order.

    An experiment that failed in an earlier block of this run would fail again, so it is left out.
    """
    block = _block(plan, wildcards)
    arguments = []
    for launch in _worth_trying(block) if _held or on_cluster else block.launches:
        record, e = Path(launch.record), launch.experiment
        member = {
            "spec": str(record.with_name("spec.json")),
            "model": e.model_path,
            "dataset": e.dataset_path,
            "launch": launch.index,
            "out": launch.record,
            "log": str(Path("logs") / record.relative_to(RESULTS).with_suffix(".log")),
        }
        arguments += ["--member", json.dumps(member)]
    return [*arguments, "--order-seed", str(plan.order_seed)]


def _worth_trying(block: ScheduledBlock) -> list[ScheduledLaunch]:
    """Return the launches of a block without those that would fail again, and print those; all if none remains."""
    kept, left_out = [], []
    for launch in block.launches:
        failed = _failed_before(launch.experiment.spec.mode, launch.experiment.name, launch.index)
        if failed is None or Path(launch.record).exists():
            kept.append(launch)
        else:
            left_out.append(f"{launch.record}: is left out of its block, since launch {failed} failed in this run")
    if not kept:
        return list(block.launches)
    for line in left_out:
        print(line, file=sys.stderr, flush=True)
    return kept


def priority(plan: Schedule, wildcards: Any) -> int:
    """Return the priority of a block, higher for earlier blocks."""
    return len(plan.launches) - min(plan.by_record[launch.record][0] for launch in _block(plan, wildcards).launches)


def checkpoint_pattern(plan: Schedule) -> str:
    """Return the folder of a built checkpoint, with a wildcard for its name."""
    return str(Path(plan.config.model_base) / "synthetic/{checkpoint}")


def newest_source(*parts: str) -> str:
    """Return the newest source file among the given packages and modules, as an input of rules that run them."""
    paths = [Path(__file__).parent / part for part in parts]
    sources = [path for part in paths for path in (part, *part.rglob("*")) if path.suffix in (".py", ".j2", ".yaml")]
    return str(max(sources, key=lambda path: path.stat().st_mtime_ns))


@stopping()
def checkpoint_arguments(plan: Schedule, folder: str) -> list[str]:
    """Return the arguments of the script that builds the checkpoint at `folder`."""
    built = {e.checkpoint.folder: e.checkpoint for e in plan.matrix.experiments if e.checkpoint}
    return selected(built, folder, "checkpoint").arguments


def model_arguments(plan: Schedule) -> list[str]:
    """Return the arguments of the checking command: the place of the weights for each model and quantization."""
    pairs: dict[str, str] = {}
    for e in plan.matrix.experiments:
        if e.spec.endpoint is not None:
            continue
        option = (
            "--synthetic"
            if e.checkpoint
            else "--hub"
            if (e.spec.model.weights or "").startswith("hub:")
            else "--weights"
        )
        pairs[f"{e.spec.model.name}/{e.spec.quant.name}={e.model_path}"] = option
    return [word for pair, option in pairs.items() for word in (option, pair)]


@stopping()
def _block(plan: Schedule, wildcards: Any) -> ScheduledBlock:
    return plan.block_at(wildcards)
