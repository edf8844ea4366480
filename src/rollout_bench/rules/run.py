"""The beginning and the end of a run of Snakemake."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock

from rollout_bench.cluster import claims, slurm
from rollout_bench.cluster.internals import Internals
from rollout_bench.contracts.failures import error_of, failed_by_itself, fix_of, kind_of, state_of
from rollout_bench.contracts.load import Places
from rollout_bench.contracts.store import failure_path, read_failure
from rollout_bench.core.errors import UserError, print_errors
from rollout_bench.core.locks import locked
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import several
from rollout_bench.core.terminal import print_answer
from rollout_bench.plan.checks import dropped_variables, unusable_model
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.fit.architecture import too_long
from rollout_bench.plan.lines import cost_of
from rollout_bench.plan.remeasuring import set_aside
from rollout_bench.plan.results_state import ResultsState, write_plan_and_specs
from rollout_bench.plan.schedule import MARKS, PLAN_FILE, RESULTS, Schedule
from rollout_bench.report.state import kept_answer
from rollout_bench.rules.call import has_begun, hold_results, results_now, stopping
from rollout_bench.rules.jobs import is_summary_stale, kept_folder
from rollout_bench.rules.live_view import start_view
from rollout_bench.rules.rounds import ROUNDS

LOGS_OF_ROUNDS = Path("logs") / "rounds"


@stopping()
def start(at_start: ResultsState, engine: InstalledEngine, workflow: Any) -> None:
    """Begin the run of a call that measures something, as Snakemake's onstart."""
    _refuse_jobs_here(at_start.schedule, workflow)
    if not workflow.touch and workflow.resource_settings.nodes is None:  # the nodes of a cluster may reach other places
        problems = list(problems_here(at_start, engine))
        for problem in problems[:-1]:
            print(problem, file=sys.stderr, flush=True)
        if problems:
            raise problems[-1]
    internals = Internals(workflow)
    internals.drop_default_rate_limit()
    internals.ask_again_after_silence_of_slurm()
    if workflow.touch:  # it measures nothing, and moves no record aside
        return
    begin(at_start, internals.outputs_to_make())
    if missing := results_now(at_start).missing:
        start_view(at_start, missing)


def _refuse_jobs_here(plan: Schedule, workflow: Any) -> None:
    """Refuse `snakemake --jobs 4` without a cluster, and cluster jobs that would load one endpoint simultaneously.

    `--jobs` is the number of submitted jobs, which need a cluster. Leases are local to a node, so they can't prevent
    launches of several nodes from using the same endpoint.
    """
    jobs = workflow.resource_settings.nodes
    if jobs is None:
        return
    if workflow.local_exec:
        raise UserError(f"--jobs {jobs}: nothing is submitted here", f"say --cores {jobs}, or name a profile")
    for experiment in plan.matrix.experiments:
        if experiment.spec.endpoint is not None:
            problem = f"endpoints: {experiment.name}: launches on several nodes would load one server at the same time"
            raise UserError(problem, "measure endpoints in a call of their own without a cluster's profile")


def problems_here(state: ResultsState, engine: InstalledEngine) -> Iterator[UserError]:
    """Yield what keeps missing launches from running on this machine.

    The engine is of another platform, a model's folder has no model, or a server or the hub does not give what it
    should.
    """
    missing = [launch.experiment for launch in state.schedule.launches if state.is_missing(launch.record)]
    specs = [experiment.spec for experiment in missing]
    endpoints = {spec.endpoint.model_dump_json(): spec.endpoint for spec in specs if spec.endpoint is not None}
    refusals = {spec.platform: engine.refusal(spec.platform) for spec in specs if spec.endpoint is None}
    loaded = [e for e in missing if e.spec.endpoint is None and e.checkpoint is None]
    on_hub = dict.fromkeys(e.model_path for e in loaded if e.spec.model.is_on_hub)
    folders = {
        e.model_path: (e.spec.load_format, e.spec.model.weights or "") for e in loaded if not e.spec.model.is_on_hub
    }
    yield from filter(
        None, (*refusals.values(), *(unusable_model(Path(folder), *about) for folder, about in folders.items()))
    )
    longer = {error.problem: error for e in loaded if (error := too_long(e.spec, e.model_path)) is not None}
    yield from longer.values()
    if not endpoints and not on_hub:
        return
    places = Places(endpoints=tuple(endpoints.values()), hub=tuple(on_hub))
    command = [engine.python, "-m", "rollout_bench.measure.reachable"]
    done = subprocess.run(command, input=places.model_dump_json(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{engine.python}: cannot ask servers and the hub: {last_line}", "see `rollout-bench check`")
    for problem, remedy in json.loads(done.stdout):
        yield UserError(problem, remedy)


def begin(at_start: ResultsState, outputs: Iterable[str]) -> None:
    """Begin a run that makes `outputs`: lock the results folder, write the plan, move away what is measured again.

    Raises:
        UserError: another run is going on, or the results folder is not writable.
    """
    plan, wanted = at_start.schedule, set(outputs)
    try:
        hold_results(at_start.folder)
        slurm.check_none_left(Path.cwd())
        claims.fail_dead_claims(at_start.folder)
        # With launches: auto, any launch may be needed later in the run.
        write_plan_and_specs(at_start, wanted if plan.config.launches != "auto" else set(plan.jobs))
        asked = {launch.record for mark in wanted & plan.jobs.keys() for launch in plan.jobs[mark].launches}
        for line in dropped_variables(plan.config, os.environ):
            print(line, file=sys.stderr, flush=True)
        _print_cost(at_start, asked)
        again = map(at_start.path, sorted(at_start.again & asked))
        aside = set_aside(again, at_start.folder)  # last, so that an earlier error moves nothing
        if aside is not None:
            print(*at_start.changed, sep="\n", file=sys.stderr, flush=True)
            print(f"records that are measured again were moved to {aside}", file=sys.stderr, flush=True)
    except OSError as error:
        remedy = "check its owner and permissions"
        raise UserError(f"{at_start.folder}: cannot be written: {error.strerror}", remedy) from None


def _print_cost(state: ResultsState, asked: Collection[str]) -> None:
    """Print the expected duration of the launches of this run, and what of the config changes nothing."""
    missing = {record for record in asked if state.is_missing(record)}
    if missing:
        for line in state.schedule.matrix.remarks:
            print(line, file=sys.stderr, flush=True)
        if state.schedule.choice:
            print(state.schedule.choice, file=sys.stderr, flush=True)
        print(f"{several(len(missing), 'launch')} to run: {cost_of(state, missing)}", file=sys.stderr, flush=True)


def keep_plan(state: ResultsState) -> None:
    """Write the plan file, so that later runs continue its order.

    Nothing changes while a run has its own there, or where nothing can be written: others' results can be looked at.
    """
    if state.folder.is_dir() and not os.access(state.folder, os.W_OK):
        return
    try:
        with locked(state.folder, ""):
            claims.fail_dead_claims(state.folder)
            write_plan_and_specs(state, set())
    except UserError as error:
        if not isinstance(error.__cause__, filelock.Timeout):
            raise


def end_well(plan: Schedule) -> None:
    """End a run in which no job failed: delete its marks.

    A job may succeed although one of its launches failed. Such a run ends like a failed one, with exit status 1
    (SystemExit in onsuccess ends Snakemake 9.27 with its status).
    """
    if not has_begun():
        print_kept_answer(plan)
        return
    failed = [
        Path(one.record)
        for one in plan.launches
        if failed_by_itself(Path(one.record), PLAN_FILE, on_cluster=plan.on_cluster)
    ]
    if not failed:
        _clean()
        print_kept_answer(plan)
        return
    end_with_errors(plan)
    causes = grouped((kind_of(each), each) for each in map(read_failure, map(failure_path, failed)))
    print(f"{several(len(failed), 'launch')} failed:", file=sys.stderr)
    for alike in causes.values():
        first = alike[0].model_copy(update={"fix": fix_of(alike)})
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        print_errors([error_of(first, f"{first.experiment} launch {first.launch}{more}")])
    sys.exit(1)


def print_kept_answer(plan: Schedule) -> None:
    """Print the answer of the summary, unless the user asked for something else and it is not up to date."""
    if (answer := kept_answer(RESULTS, RESULTS, plan.plan_file())) is not None:
        print_answer(answer)
        print(f"\nAll tables and figures: {RESULTS / 'summary.html'}", flush=True)


def end_with_errors(plan: Schedule) -> None:
    """End a run in which a launch failed: write a summary of the existing records, marked incomplete."""
    if not has_begun():
        return
    _clean()
    # Claims of dead processes.
    print_errors([error_of(read_failure(failure_path(path))) for path in claims.fail_dead_claims(RESULTS)])
    is_empty = all(state_of(Path(launch.record)) == "missing" for launch in plan.launches)
    if is_empty:
        return
    if not is_summary_stale(plan):  # no job failed, so that the summary is written already
        print_kept_answer(plan)
        return
    where = [str(RESULTS), "--plan", str(PLAN_FILE), "--also", str(kept_folder(plan))]
    subprocess.run([sys.executable, "-m", "rollout_bench", "summarise", *where], check=False)


def _clean() -> None:
    for folder in (ROUNDS, LOGS_OF_ROUNDS, MARKS):
        shutil.rmtree(folder, ignore_errors=True)
