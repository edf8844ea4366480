"""What the Snakefile asks: one object for a config, made while the workflow is read."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import filelock

from rollout_bench.cluster import ended
from rollout_bench.cluster.resources import before_in_allocation
from rollout_bench.errors import LEFT_OUT_STATUS, UserError
from rollout_bench.plan.devices import replicas
from rollout_bench.plan.engine_probe import Engine, probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.planfile import is_plan
from rollout_bench.plan.read_config import check_config_file, read_config
from rollout_bench.plan.schedule import RESULTS, Launch, Schedule, put_on_disk, schedule
from rollout_bench.records.store import LOOKING, failure_path, record_path
from rollout_bench.reporting.figure_names import names_of
from rollout_bench.reporting.state import is_stale
from rollout_bench.rounds import LOGS_OF_ROUNDS, ROUNDS, missing_of_round, next_round

PLAN_FILE = RESULTS / "plan.json"

_held: list[filelock.BaseFileLock] = []
_began_s = time.time()


def stop(error: UserError) -> NoReturn:
    """Ends Snakemake with the two lines of `error` and exit status 1, with no traceback."""
    print(error, file=sys.stderr, flush=True)
    sys.exit(1)


def check_default_config(path: str = "config.yaml") -> None:
    """Stops Snakemake where the default config, or what it keeps in this folder, can't be read, before it tries."""
    try:
        for folder in (RESULTS, Path("logs")):
            _check_folder(folder)
        _check_metadata(Path(".snakemake") / "metadata")
        check_config_file(Path(path))
    except UserError as error:
        stop(error)


def _check_folder(folder: Path) -> None:
    if folder.is_symlink() and not folder.exists():
        raise UserError(
            f"{folder}: is a link to {folder.readlink()}, which does not exist",
            "make that folder (is its disk mounted?), or remove the link",
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, and the workflow needs a folder of that name", "move it away")


def _check_metadata(folder: Path) -> None:
    """Raises `UserError` for a damaged file that Snakemake would end on with a traceback."""
    for path in folder.glob("*"):
        try:
            path.read_bytes().decode() if path.is_file() else None
        except UnicodeDecodeError:
            remedy = (
                f"rm -r {folder}: Snakemake's notes on how files were made; results stay, nothing is measured again"
            )
            raise UserError(f"{path}: is damaged", remedy) from None


def plan_workflow(merged: Mapping[str, Any], files: Iterable[Path]) -> tuple[Schedule, Engine]:
    """Expands the merged config, read from `files`; stops Snakemake in two lines where it can't be."""
    try:
        for file in files:
            check_config_file(file)
        config = read_config(merged)
        engine = probe_engine(config.engine.python)
        return schedule(config, expand(config, engine)), engine
    except UserError as error:
        stop(error)


def refuse_jobs_here(plan: Schedule, workflow: Any) -> None:
    """Stops `snakemake -j 4` without a cluster, and a cluster's jobs that would load one server all at once.

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


def drop_default_rate_limit(workflow: Any) -> None:
    """Takes back Snakemake's limit of 100 jobs a second, which nothing here comes near; another one stays.

    With a limit, each look for jobs to start sets a timer of its timespan that has it look once more, and that one
    sets the next: after k launches Snakemake 9.27 looks k times a second through all that are left, with a thread for
    each timer, beside the engine that is measured.
    """
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def begin(plan: Schedule, outputs: Iterable[str]) -> None:
    """At the start of a real run that will make `outputs`: takes the folder for this process, puts the plan on disk.

    The lock is the kernel's, so it is free the moment its holder dies, however it dies.
    """
    wanted = set(outputs)
    try:
        RESULTS.mkdir(exist_ok=True)
        lock = filelock.FileLock(RESULTS / ".lock")
        lock.acquire(blocking=False)
        _held.append(lock)
        ended.end_left_behind(Path.cwd())
        ended.tell_of_claims(RESULTS)
        measured = [
            launch.record for launch in plan.launches if launch.record in wanted and Path(launch.record).exists()
        ]
        if measured:  # forced, or written since by another run; Snakemake would delete it before a launch that may fail
            raise UserError(f"{measured[0]}: is measured already", "delete it to have that launch measured again")
        # With launches: auto anything may become wanted during the run.
        put_on_disk(plan, PLAN_FILE, wanted if plan.config.launches != "auto" else set(plan.by_record))
    except filelock.Timeout:
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


def end_well(plan: Schedule, scripts: Path) -> None:
    """After a run in which nothing failed."""
    for folder in (ROUNDS, LOGS_OF_ROUNDS):
        shutil.rmtree(folder, ignore_errors=True)
    if plan.config.diagnose:
        subprocess.run([sys.executable, f"{scripts}/diagnose.py", str(PLAN_FILE)], check=False)


def end_with_errors(plan: Schedule, scripts: Path) -> None:
    """After a run in which a launch failed: writes the summary of what there is, marked incomplete."""
    end_well(plan, scripts)
    records = [Path(launch.record) for launch in plan.launches]
    ended.tell_of_claims(RESULTS)
    ended.tell_of_jobs(records, _began_s, plan.config.cluster.launches_per_job)
    if not any(path.is_file() or failure_path(path).is_file() for path in records):
        return
    where = [str(RESULTS), "--plan", str(PLAN_FILE)]
    summarised = subprocess.run([sys.executable, str(scripts / "summarise.py"), *where, "--figures"], check=False)
    if summarised.returncode in (0, LEFT_OUT_STATUS):
        subprocess.run([sys.executable, str(scripts / "plot.py"), *where, "--figures", *figures(plan)], check=False)


def figures(plan: Schedule) -> list[str]:
    """The names of the figures that what is selected is drawn in."""
    specs = [experiment.spec for experiment in plan.matrix.experiments]
    loads = [spec.load for spec in specs if spec.mode not in LOOKING]
    has_replicas = any(replicas(spec) > 1 for spec in specs)
    return list(names_of({spec.mode for spec in specs}, loads, bool(plan.config.slo.named), has_replicas))


def records_to_summarise(plan: Schedule, workflow: Any, rule: str) -> list[str]:
    """The records that are missing, asked for by `rule`, which is forced if it would tell of another state.

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
        return [launch.record for launch in plan.launches]
    try:
        wanted = next_round(plan) if plan.config.launches == "auto" else plan.missing
    except UserError as error:
        if not _held:
            stop(error)
        wanted = []  # a record was damaged while the run goes on: the summary, which reads it too, tells
    if wanted or is_stale(RESULTS, plan.plan_file(estimate=False)) or not is_plan(PLAN_FILE):
        workflow.dag.forcerules.add(workflow.get_rule(rule))
    return wanted


def records_of_round(plan: Schedule, wildcards: Any) -> list[str]:
    """The records that a round waits for: those of one experiment, and of its baseline, that are missing."""
    try:
        return missing_of_round(plan, wildcards.mode, wildcards.experiment, int(wildcards.launches))
    except UserError as error:
        stop(error)


def needed(plan: Schedule, on_cluster: bool, mode: str, wildcards: Any) -> list[str]:
    """What must be there before a launch: the synthetic checkpoint that it loads, and who goes before it in its job."""
    launch = _launch(plan, mode, wildcards)
    checkpoint = launch.experiment.checkpoint
    return [*([checkpoint.folder] if checkpoint else []), *before_in_allocation(plan, on_cluster, launch.record)]


def priority(plan: Schedule, mode: str, wildcards: Any) -> int:
    """Higher for launches that run earlier."""
    return plan.priority_of(_launch(plan, mode, wildcards).record)


def checkpoint_pattern(plan: Schedule) -> str:
    """Where synthetic checkpoints are built, with a wildcard for their name."""
    return str(Path(plan.config.model_base) / "synthetic" / "{checkpoint}")


def newest_source(*parts: str) -> str:
    """The source file changed last among packages of rollout_bench and commands: an input for what they derive."""
    scripts = Path(__file__).parents[1]
    sources = [path for part in parts for path in (scripts / "rollout_bench" / part).rglob("*.py")]
    sources += [scripts / part for part in parts if part.endswith(".py")]
    return str(max(sources, key=lambda path: path.stat().st_mtime_ns))


def checkpoint_arguments(plan: Schedule, folder: str) -> list[str]:
    """Arguments of build_checkpoint.py for the checkpoint at `folder`."""
    try:
        return plan.checkpoint_at(folder).arguments
    except UserError as error:
        stop(error)


def dataset_arguments(plan: Schedule, record: str) -> list[str]:
    """Arguments of a measuring command that name the data set's file, where the workload has one."""
    path = plan.launch_of(record).experiment.dataset_path
    return [] if path is None else [f"--dataset={path}"]


def model_arguments(plan: Schedule) -> list[str]:
    """Arguments of check.py: where the weights of each model and quant are to be found."""
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


def _launch(plan: Schedule, mode: str, wildcards: Any) -> Launch:
    try:
        return plan.launch_of(str(record_path(RESULTS, mode, wildcards.experiment, int(wildcards.launch))))
    except UserError as error:
        stop(error)
