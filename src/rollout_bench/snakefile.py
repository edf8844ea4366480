"""The interface between the Snakefile and the package: the plan, launches side by side, rounds of launches."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import filelock

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.cluster import ownership
from rollout_bench.cluster.internals import Internals
from rollout_bench.cluster.side_by_side import check_devices
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.postmortem import error_of, failed_by_itself, state_of
from rollout_bench.contracts.spec import replicas
from rollout_bench.contracts.store import failure_path, read_failure, record_path
from rollout_bench.core.errors import LEFT_OUT_STATUS, UserError, tell
from rollout_bench.core.numbers import several
from rollout_bench.core.processes import is_living
from rollout_bench.measure.machine.gpus import smallest_gpu
from rollout_bench.plan.checks import check_weights, dropped_variables
from rollout_bench.plan.config import DEFAULT_LAUNCHES, Config
from rollout_bench.plan.config_file import check_config_file, check_folder, check_metadata, name_after, read_config
from rollout_bench.plan.engine import InstalledEngine, probe_engine
from rollout_bench.plan.fit.memory import MachineMemory, check_fits
from rollout_bench.plan.interleaving import interleaving
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.planfile import PlannedExperiment, is_plan, write_plan
from rollout_bench.plan.schedule import (
    MARKS,
    RESULTS,
    Schedule,
    ScheduledBlock,
    ScheduledLaunch,
    cell_of,
    kept_design,
    mark_of,
    measured_with_other_files,
    moved_since,
    order_seed,
    put_on_disk,
    schedule,
    set_aside,
    with_partners,
)
from rollout_bench.report.figure_names import names_of_specs
from rollout_bench.report.state import SUMMARIES, is_stale, plan_of_summary

LOGS_OF_ROUNDS = Path("logs") / "rounds"

ROUNDS = RESULTS / "rounds"
"""Empty files, one for each number of launches of an experiment that was looked at; gone when the run ends."""


def next_round(plan: Schedule) -> list[str]:
    """Return the records that are wanted now and missing, in the order they run, and the rounds that wait for them.

    Once the file of a round is there, this is to be asked again. An experiment whose launch failed in this run gets no
    further launch in it; the others do.

    Raises:
        UserError: a record that is there can't be read, so that nobody can say whether more are wanted.
    """
    wanted = _wanted(plan)
    missing = set(plan.missing_now())
    moved = moved_since(PLAN_FILE) if _held else set()  # measured again in this run, whatever is wanted by now
    records = [
        launch.record
        for launch in plan.launches
        if launch.record in missing
        and (launch.index < wanted[launch.experiment.name] or launch.record in moved)
        and not _given_up(plan, launch.record)
    ]
    rounds = [
        str(round_file(experiment.mode, experiment.experiment, launches))
        for experiment in plan.experiments
        for launches in (wanted[experiment.experiment],)
        if launches < experiment.launches
        and _baselines(plan, experiment)
        and not _given_up(plan, str(record_path(RESULTS, experiment.mode, experiment.experiment, launches - 1)))
        and missing_of_round(plan, experiment.mode, experiment.experiment, launches)
    ]
    return records + rounds


def round_file(mode: str, experiment: str, launches: int) -> Path:
    """Return marks that so many launches of an experiment, and of its baseline, were there to be looked at."""
    return ROUNDS / mode / experiment / str(launches)


def missing_of_round(plan: Schedule, mode: str, experiment: str, launches: int) -> list[str]:
    """Return records among the first `launches` of an experiment and of its baseline that are missing and to come.

    Raises:
        UserError: nothing of that name is selected.
    """
    own = plan.by_name.get((mode, experiment))
    if own is None:
        raise UserError(f"{experiment}: the config selects no such experiment", "see `snakemake plan`")
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
    """Return the experiments that `own` may be compared with: one, as a rule; none for a baseline."""
    wanted = cell_of(own, plan.config.baseline.named)
    return [] if wanted == cell_of(own) else plan.by_cell.get(wanted, [])


def _wanted(plan: Schedule) -> dict[str, int]:
    """Return launches that are wanted of each experiment, by its folder name."""
    first = {e.name: min(DEFAULT_LAUNCHES, plan.config.launches_of(e.spec.mode)) for e in plan.matrix.experiments}
    if not RESULTS.is_dir():
        return first
    found = collect(RESULTS, plan.plan_file(estimate=False)).launched
    return {e.experiment: e.planned or first[e.experiment] for e in found}


def _given_up(plan: Schedule, record: str) -> bool:
    """Return whether a block's launch is not tried again in this run, since it or one before it failed by itself."""
    if not _held or not plan.is_in_block(record):
        return False
    launch = plan.launch_of(record)
    return _failed_before(launch.experiment.spec.mode, launch.experiment.name, launch.index + 1) is not None


def _failed_before(mode: str, experiment: str, launches: int) -> int | None:
    """Return the first of so many launches that failed since the plan was written, and would fail anywhere else."""
    records = (record_path(RESULTS, mode, experiment, index) for index in range(launches))
    return next((index for index, record in enumerate(records) if failed_by_itself(record, PLAN_FILE)), None)


PLAN_FILE = RESULTS / "plan.json"

SHOWN_PLAN = RESULTS / f".plan-{os.getpid()}.json"
"""What the rule plan prints: that of this call, also while a run goes by another one; gone when the call ends."""

CHECK_LOG = "logs/check.log"

READING = frozenset({"plan", "check"})
"""Rules that only look, so that they may run while another call measures into the same folder."""

_held: list[filelock.BaseFileLock] = []
_rules: set[str] = set()
"""What this call runs."""
_began_s = time.time()


def stop(error: UserError) -> NoReturn:
    """End Snakemake with the two lines of `error` and exit status 1, with no traceback."""
    print(error, file=sys.stderr, flush=True)
    sys.exit(1)


def check_default_config(is_job: bool, path: str = "config.yaml") -> None:
    """Stop Snakemake where the default config, or what it keeps in this folder, can't be read, before it tries.

    Args:
        is_job: whether this is one of a cluster's jobs: its run has looked through Snakemake's notes already, of which
            there is one for each file.
        path: the default config.
    """
    try:
        for folder in (RESULTS, Path("logs")):
            check_folder(folder)
        if not is_job:
            check_metadata(Path(".snakemake") / "metadata")
        check_config_file(Path(path))
    except UserError as error:
        stop(error)


def plan_workflow(
    merged: Mapping[str, Any], given: Any, on_cluster: bool, *, is_main: bool
) -> tuple[Schedule, InstalledEngine]:
    """Expand the merged config; stop Snakemake in two lines where it can't be.

    Args:
        merged: the config.
        given: Snakemake's settings of it: files besides the default config, and what stands on the command line.
        on_cluster: whether jobs are submitted, or this is one.
        is_main: whether this is the call itself and no job of it, which takes doubtful records as they then are.
    """
    try:
        for file in given.configfiles:
            check_config_file(file)
        config = read_config(merged, given.config)
        engine = probe_engine(config.engine.python)
        matrix = expand(config, engine)
        measured_here = is_main and not on_cluster and engine.platform() == matrix.platform
        # which rules are asked for is known only once all are read; check tells of every problem, not of the first
        if measured_here and "check" not in sys.argv:
            check_weights(config, ((e.spec.model, e.model_path) for e in matrix.experiments))
            check_devices(config, matrix)
        device, device_bytes = smallest_gpu() if matrix.platform == "cuda" and not on_cluster else (None, None)
        if measured_here or (is_main and matrix.platform != "cpu"):
            check_fits(matrix.experiments, device_bytes, f"one {device}")
        memory = MachineMemory(on_cluster, _places_on_cpu(config), device_bytes)
        blocks = interleaving(config, matrix, memory, on_cluster=on_cluster, design=kept_design(PLAN_FILE))
        plan = schedule(config, matrix, order_seed(PLAN_FILE), blocks)
        plan = replace(plan, files=tuple(os.path.relpath(file) for file in given.configfiles))
        if is_main:
            plan.again.update(_measured_again(plan))
        return plan, engine
    except UserError as error:
        stop(error)


def _measured_again(plan: Schedule) -> set[str]:
    """Return records of wanted launches whose models have other files now, with what they are compared with.

    Raises:
        UserError: called with --touch, which would move records and measure none, or for a part of what is compared.
    """
    again = with_partners(measured_with_other_files(plan), plan.experiments, plan.config.baseline.named)
    for word in sys.argv[1:] if again else ():
        if re.match(r"--(tou|ba)|-[nFpk]*t", word):  # abbreviations too; no other option begins so
            raise UserError(f"{word.partition('=')[0]}: does not go with measuring launches again", "leave it out")
    if plan.config.launches != "auto" or not again:
        return again
    wanted = _wanted(plan)
    return {record for record in again if plan.launch_of(record).index < wanted[Path(record).parent.name]}


def _places_on_cpu(config: Config) -> int:
    """Return how many launches, or blocks of them, run side by side where the cores are divided."""
    return (config.devices or 1) if config.isolation == "per_device" else 1


def refuse_jobs_here(plan: Schedule, workflow: Any) -> None:
    """Stop `snakemake -j 4` without a cluster, and a cluster's jobs that would load one server all at once.

    The former counts jobs that are submitted, and rules were read for those. Leases are a node's, so nothing keeps
    launches of other nodes from the same endpoint.
    """
    served = [experiment.name for experiment in plan.matrix.experiments if experiment.spec.endpoint is not None]
    if served and workflow.resource_settings.nodes is not None and not workflow.local_exec:
        problem = f"endpoints: {served[0]}: launches on several nodes would load one server at the same time"
        stop(UserError(problem, "measure endpoints in a call of their own without a cluster's profile"))
    if workflow.local_exec and workflow.resource_settings.nodes is not None:
        jobs = workflow.resource_settings.nodes
        stop(UserError(f"--jobs {jobs}: nothing is submitted here", f"say --cores {jobs}, or name a profile"))


def begin(plan: Schedule, outputs: Iterable[str], rules: Iterable[str] = ()) -> None:
    """At the start of a real run that will make `outputs`: takes the folder for this process, puts the plan on disk.

    The lock is the kernel's, so it is free the moment its holder dies, however it dies. Where `rules`, those that run,
    only look, a folder that another run holds is left as it is, and none is held.
    """
    wanted = set(outputs)
    _rules.update(rules)
    again = sorted(plan.again)
    try:
        RESULTS.mkdir(exist_ok=True)
        lock = filelock.FileLock(RESULTS / ".lock")
        lock.acquire(blocking=False)
        _held.append(lock)
        ownership.end_left_behind(Path.cwd())
        ownership.tell_of_claims(RESULTS)
        # what a block lacks is measured, and what it has stays: its job leaves a mark, and no record is its output
        measured = [
            launch.record
            for launch in plan.launches
            if launch.record in wanted and Path(launch.record).exists() and launch.record not in plan.again
        ]
        if measured:  # forced, or written since by another run; Snakemake would delete it before a launch that may fail
            raise UserError(
                f"{measured[0]}: is measured already",
                "no option forces it; `rollout-bench discard --invalid` moves aside what is in doubt",
            )
        for group, error in plan.interleaving.unfit:
            if any(mark in wanted for mark, block in plan.blocks.items() if block.group is group):
                raise error
        # With launches: auto anything may become wanted during the run.
        put_on_disk(plan, PLAN_FILE, wanted if plan.config.launches != "auto" else set(plan.by_record))
        asked = {launch.record for output in wanted for launch in plan.launches_at(output)}
        for line in dropped_variables(plan.config, os.environ):
            print(line, file=sys.stderr, flush=True)
        _tell_cost(plan, asked)
        _tell_replaced(plan)
        aside = set_aside(sorted(plan.again & asked))  # last: whatever ends the run before leaves all where it is
        if aside is not None:
            print(*plan.changed, sep="\n", file=sys.stderr, flush=True)
            print(f"records that are measured again were moved to {aside}", file=sys.stderr, flush=True)
        plan.again.clear()
        if _only_looks():
            _held.pop().release()  # a run may begin meanwhile
    except filelock.Timeout:
        if not _only_looks():
            stop(
                UserError(
                    f"{RESULTS.resolve()}: another workflow is running that writes its results there",
                    "wait until it ends, or work in a clone that has a folder results/ of its own",
                )
            )
    except OSError as error:
        stop(UserError(f"{RESULTS}: cannot be written: {error.strerror}", "check its owner and permissions"))
    except UserError as error:
        stop(error)
    if "plan" in _rules:
        for left in RESULTS.glob(".plan-*.json"):  # of calls that were killed
            if not is_living(int(left.stem.rpartition("-")[2])):
                left.unlink(missing_ok=True)
        try:
            write_plan(SHOWN_PLAN, plan.shown_file(again))
        except UserError as error:
            stop(error)


def _only_looks() -> bool:
    return bool(_rules) and READING.issuperset(_rules)


def _tell_cost(plan: Schedule, records: Collection[str]) -> None:
    """Say what the launches will take that are measured now."""
    missing = {record for record in records if record in plan.again or not Path(record).exists()}
    if missing:
        print(f"{several(len(missing), 'launch')} to run: {plan.cost_of(missing)}", file=sys.stderr, flush=True)


def end_well(plan: Schedule, scripts: Path) -> None:
    """After a run in which no job failed.

    Where launches of blocks did, whose jobs went on without these: as after a run in which a job failed, with exit
    status 1 (SystemExit in onsuccess ends Snakemake 9.27 with its status). So ends the rule check where it has found a
    problem, and has said so: a job that fails would bury it under Snakemake's own words.
    """
    SHOWN_PLAN.unlink(missing_ok=True)
    if _held:
        _end_run(plan, scripts)
    if "check" in _rules and not _is_well():
        sys.exit(1)


def _is_well() -> bool:
    """Return whether the rule check has found no problem: so says the last line of check.py, unless it broke off."""
    try:
        said = Path(CHECK_LOG).read_text(errors="replace")
    except OSError:
        return False
    return said.rstrip().endswith("no problem found")


def _end_run(plan: Schedule, scripts: Path) -> None:
    """As `end_well`, of a run that holds the folder."""
    records = [Path(launch.record) for launch in plan.launches] if plan.blocks else []
    failed = [record for record in records if failed_by_itself(record, PLAN_FILE)]
    if not failed:
        _clean()
        return
    end_with_errors(plan, scripts)
    errors = [error_of(read_failure(failure_path(record))) for record in failed]
    print(f"{several(len(failed), 'launch')} failed; the others of their blocks were measured:", file=sys.stderr)
    tell(errors)
    sys.exit(1)


def _clean() -> None:
    for folder in (ROUNDS, LOGS_OF_ROUNDS, MARKS):
        shutil.rmtree(folder, ignore_errors=True)


def end_with_errors(plan: Schedule, scripts: Path) -> None:
    """After a run in which a launch failed: writes the summary of what there is, marked incomplete."""
    SHOWN_PLAN.unlink(missing_ok=True)
    if not _held:
        return
    _clean()
    records = [Path(launch.record) for launch in plan.launches]
    tell([error_of(read_failure(failure_path(path))) for path in ownership.tell_of_claims(RESULTS)])  # it can't itself
    marks = {Path(one.record): Path(mark) for mark, block in plan.blocks.items() for one in block.launches}
    begun = [record for record in records if not _given_up(plan, str(record))]
    ownership.tell_of_jobs(begun, _began_s, marks)
    if all(state_of(path) == "missing" for path in records):
        return
    if not _is_stale(plan):  # no job failed, so that the summary was written
        return
    where = [str(RESULTS), "--plan", str(PLAN_FILE), "--also", str(kept_folder(plan))]
    summarised = subprocess.run([sys.executable, str(scripts / "summarise.py"), *where, "--figures"], check=False)
    if summarised.returncode in (0, LEFT_OUT_STATUS):
        subprocess.run([sys.executable, str(scripts / "plot.py"), *where, "--figures", *figures(plan)], check=False)


def kept_folder(plan: Schedule) -> Path:
    """Return the folder in which the last summary of this config is kept, with its figures."""
    return RESULTS / SUMMARIES / name_after([Path(file) for file in plan.files])


def _tell_replaced(plan: Schedule) -> None:
    """Say where the summary that is kept under the name of this config is that of other files."""
    kept = kept_folder(plan)
    try:
        before = plan_of_summary(kept)
    except UserError:  # nobody can read what it was of
        return
    if not _only_looks() and plan.files and before is not None and before.files not in ([], list(plan.files)):
        problem = f"{kept}: is the summary of {', '.join(before.files)}, and this run replaces it"
        remedy = "to keep both, give this file another name; records are shared as ever"
        print(UserError(problem, remedy), file=sys.stderr, flush=True)


def _is_stale(plan: Schedule) -> bool:
    return is_stale(RESULTS, plan.plan_file(estimate=False), RESULTS, kept_folder(plan))


def figures(plan: Schedule) -> list[str]:
    """Return the names of the figures that what is selected is drawn in."""
    specs = [experiment.spec for experiment in plan.matrix.experiments]
    timed = [spec for spec in specs if mode_of(spec.mode).generates]
    return list(names_of_specs({spec.mode for spec in specs}, timed, any(replicas(spec) > 1 for spec in specs)))


def records_to_summarise(plan: Schedule, workflow: Any, rule: str) -> list[str]:
    """Return the records that are missing, asked for by `rule`, which is forced if it would tell of another state.

    With `launches: auto` also the round after which this is asked again. Snakemake itself takes an output for up to
    date whose inputs are missing, and knows nothing of records that came by copying. This is called when the rule's
    job enters the DAG, before it is decided what runs, and again after each round.

    With `--batch` all records, also those that are there: Snakemake takes a part of what it is given, and each batch
    has to take its part of the same list.
    """
    batch = workflow.dag_settings.batch
    if batch is not None and batch.rulename == rule:
        if plan.config.launches == "auto":
            problem = "--batch: with launches: auto nobody knows beforehand which launches there are to divide"
            stop(UserError(problem, "divide by model, --config models=[...], or set launches to a number"))
        return _outputs_of_batches(plan, Internals(workflow))
    try:
        wanted = next_round(plan) if plan.config.launches == "auto" else plan.missing
    except UserError as error:
        if not _held:
            stop(error)
        wanted = []  # a record was damaged while the run goes on: the summary, which reads it too, tells
    if wanted or _is_stale(plan) or not is_plan(PLAN_FILE):
        Internals(workflow).force(rule)
    return _outputs_for(plan, wanted, Internals(workflow))


def _outputs_for(plan: Schedule, records: Iterable[str], internals: Internals) -> list[str]:
    """Return what jobs leave that measure missing `records`; that of a block runs also where its mark is there.

    A run that was killed leaves marks behind, and what they stand for may be deleted since. A record that is to be
    measured again is there until the run begins.
    """
    outputs = plan.outputs_for(records)
    for output in outputs:
        if output in plan.blocks or output in plan.again:
            internals.force_output(output)
    return outputs


def _outputs_of_batches(plan: Schedule, internals: Internals) -> list[str]:
    """Return what the jobs of all launches leave, the same for each batch.

    Blocks that are whole have their marks made here: the batch that measured them removed these when it ended.
    """
    missing = set(plan.missing)
    for mark, block in plan.blocks.items():
        if all(launch.record not in missing for launch in block.launches):
            Path(mark).parent.mkdir(parents=True, exist_ok=True)
            Path(mark).touch()
    _outputs_for(plan, plan.missing, internals)
    return plan.outputs_for(launch.record for launch in plan.launches)


def records_of_round(plan: Schedule, wildcards: Any) -> list[str]:
    """Return the records that a round waits for: those of one experiment, and of its baseline, that are missing."""
    try:
        return plan.outputs_for(missing_of_round(plan, wildcards.mode, wildcards.experiment, int(wildcards.launches)))
    except UserError as error:
        stop(error)


def needed(plan: Schedule, wildcards: Any) -> list[str]:
    """Return what must be there before a launch: the checkpoint that it loads, if it is built here."""
    launch = _launch(plan, wildcards)
    if plan.is_in_block(launch.record) and not Path(launch.record).exists():
        problem = f"{launch.record}: is measured in turn with what it is compared with, in one job for all of them"
        stop(UserError(problem, "ask for results/summary.md, or for this one alone with --config interleave=false"))
    return [*_checkpoints([launch]), *launch.needed]


def needed_by_block(plan: Schedule, wildcards: Any) -> list[str]:
    """Return what must be there before a block: what its launches load."""
    return _checkpoints(_block(plan, wildcards).launches)


def block_pattern() -> str:
    """Return the mark that a block's job leaves, with wildcards; its experiment is the baseline's."""
    return str(MARKS / "{mode}" / "{experiment}" / "launch-{launch}")


def block_records(plan: Schedule, wildcards: Any) -> str:
    """Return the records that a block's job is to write, a line for each."""
    launches = _block(plan, wildcards).launches
    missing = [x.record for x in launches if x.record in plan.again or not Path(x.record).exists()]
    return "".join(f"\n    {record}" for record in missing)


def block_arguments(plan: Schedule, on_cluster: bool, wildcards: Any) -> list[str]:
    """Return arguments of run_block.py that say what is measured, in which order, and how many at once.

    What failed in an earlier block of this run for a reason of its own would fail again, so it is left out.
    """
    block = _block(plan, wildcards)
    members = []
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
        members += ["--member", json.dumps(member)]
    chosen = ["--order-seed", plan.order_seed, "--at-once", block.group.at_once, "--start", block.group.started]
    return [*members, *map(str, chosen)]


def _worth_trying(block: ScheduledBlock) -> list[ScheduledLaunch]:
    """Return the launches of a block but those that would fail, saying so; all if nothing else is left."""
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
    """Higher for launches that run earlier."""
    return plan.priority_of(_launch(plan, wildcards).record)


def block_priority(plan: Schedule, wildcards: Any) -> int:
    """Higher for blocks that run earlier."""
    return plan.priority_of(_block(plan, wildcards).mark)


def _checkpoints(launches: Iterable[ScheduledLaunch]) -> list[str]:
    checkpoints = (launch.experiment.checkpoint for launch in launches)
    return list(dict.fromkeys(checkpoint.folder for checkpoint in checkpoints if checkpoint))


def checkpoint_pattern(plan: Schedule) -> str:
    """Return where checkpoints are built, with wildcards for their name."""
    return str(Path(plan.config.model_base) / "synthetic/{checkpoint}")


def newest_source(*parts: str) -> str:
    """Return the source file changed last among packages of rollout_bench and commands.

    An input for what they derive.
    """
    package = Path(__file__).parent
    scripts = package.parents[1] / "workflow" / "scripts"
    files = [path for part in parts for path in (package / part).rglob("*")]
    sources = [path for path in files if path.suffix in (".py", ".j2", ".yaml")]
    sources += [scripts / part for part in parts if part.endswith(".py")]
    return str(max(sources, key=lambda path: path.stat().st_mtime_ns))


def checkpoint_arguments(plan: Schedule, folder: str) -> list[str]:
    """Return arguments of the script that makes the checkpoint at `folder`."""
    try:
        return plan.checkpoint_at(folder).arguments
    except UserError as error:
        stop(error)


def dataset_arguments(plan: Schedule, record: str) -> list[str]:
    """Return arguments of a measuring command that name the data set's file, where the workload has one."""
    path = plan.launch_of(record).experiment.dataset_path
    return [] if path is None else [f"--dataset={path}"]


def model_arguments(plan: Schedule) -> list[str]:
    """Return arguments of check.py: where the weights of each model and quant are to be found."""
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


def _block(plan: Schedule, wildcards: Any) -> ScheduledBlock:
    try:
        return plan.block_of(mark_of(wildcards.mode, wildcards.experiment, wildcards.launch))
    except UserError as error:
        stop(error)


def _launch(plan: Schedule, wildcards: Any) -> ScheduledLaunch:
    try:
        return plan.launch_of(str(record_path(RESULTS, wildcards.mode, wildcards.experiment, int(wildcards.launch))))
    except UserError as error:
        stop(error)
