#!/usr/bin/env python3
"""Measures one launch: starts the engine or its server, runs warm-up and measured iterations, writes the record.

Runs in any Python that has vLLM; needs no Snakemake. Everything that the engine starts ends with this command,
also when it is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import signal
import traceback
from functools import partial
from pathlib import Path
from typing import get_args

# ruff: noqa: E402 (a Ctrl-C during the imports below ends the command without a traceback)
signal.signal(signal.SIGINT, signal.SIG_DFL)

from pydantic import ValidationError

from rollout_bench.cluster import slurm
from rollout_bench.cluster.ownership import claimed, tell_of_dead
from rollout_bench.contracts.postmortem import Cause
from rollout_bench.contracts.spec import Isolation, Spec, Timeouts, is_local, read_spec
from rollout_bench.core.errors import UserError, run_command
from rollout_bench.core.processes import Interrupted, die_with_parent, pause, signals_as_descriptor
from rollout_bench.measure.launch.outcome import LaunchOutcome, in_workflow
from rollout_bench.measure.launch.preflight import check_before_start, check_dataset_given, engine_environment
from rollout_bench.measure.launch.progress import Progress, say
from rollout_bench.measure.launch.protocol import Job
from rollout_bench.measure.launch.recorder import collector, folder_for_traces
from rollout_bench.measure.launch.supervisor import EngineLaunch, LaunchFailed
from rollout_bench.measure.machine.device import DeviceError
from rollout_bench.measure.machine.leases import Lease, Wanted, lease
from rollout_bench.measure.machine.readings import Surroundings

WORKER = "rollout_bench.measure.engine.worker"


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 measured; 1 failed (two lines say why and what to do), 75 where the node was at fault "
        "and another may do; 130 or 143 interrupted.",
    )
    parser.add_argument("--spec", type=Path, required=True, metavar="FILE", help="spec.json of the experiment")
    parser.add_argument("--model", required=True, metavar="MODEL", help="folder with the weights, or hub id")
    parser.add_argument("--dataset", type=Path, metavar="FILE", help="the workload's data set, where it has one")
    parser.add_argument("--launch", type=int, required=True, metavar="I", help="index of the launch, from 0")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="record to write, results/<mode>/<experiment>/launch-<i>.json; one row per sequence goes beside it",
    )
    parser.add_argument("--log", type=Path, required=True, metavar="FILE", help="takes the engine's output")
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="limit for the whole launch; past it the launch has failed (default: %(default)g)",
    )
    parser.add_argument(
        "--limits",
        type=limits,
        default=Timeouts(),
        metavar="JSON",
        help='limits for its parts, each or none: {"start_s": S, "warmup_s": S, "iteration_s": S, "stop_s": S}',
    )
    parser.add_argument(
        "--progress",
        type=Path,
        metavar="FILE",
        help="all launches of the plan, for the progress lines: "
        '{"launches": [{"record": PATH, "expected_s": SECONDS}, ...]}',
    )
    parser.add_argument(
        "--isolation",
        choices=get_args(Isolation),
        help="what may run beside the launch on its node: nothing, or launches on other devices "
        "(default: exclusive on cpu and of endpoints, else per_device)",
    )
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="devices that launches of this workflow hold at most at the same time; on cpu the cores are divided into "
        "so many blocks (default: all; on cpu as many as the launch needs)",
    )
    parser.add_argument(
        "--first-device",
        type=int,
        metavar="I",
        help="device to take if it is free, counted round among the visible ones, from 0 (default: as --launch)",
    )
    parser.add_argument(
        "--attempt",
        type=int,
        metavar="N",
        help="which try of the launch it is, from 1; then a record that is there stays and nothing is measured, and a "
        "further try ends at once where the failure before was the experiment's, not the node's",
    )
    parser.add_argument(
        "--die-with-parent",
        type=int,
        metavar="PID",
        help="end when this process, which must be the parent, ends in whatever way (in a shell: $PPID before exec)",
    )
    return parser.parse_args()


def limits(text: str) -> Timeouts:
    """Read --limits; raise `argparse.ArgumentTypeError` where it is none."""
    try:
        return Timeouts.model_validate_json(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error.errors()[0]['msg']}") from None


def check_arguments(arguments: argparse.Namespace, spec: Spec) -> None:
    """Raise `UserError` where the arguments contradict each other or the spec."""
    folder = arguments.out.absolute().parent.name
    if in_workflow(arguments.out) and folder != spec.experiment():
        raise UserError(
            f"{arguments.out}: the spec {arguments.spec} is of experiment {spec.experiment()}, not {folder}",
            "give the spec.json that lies beside the record, or let the workflow write both again",
        )
    if arguments.launch < 0 or (
        re.fullmatch(r"launch-\d+\.json", arguments.out.name)
        and arguments.out.name != f"launch-{arguments.launch}.json"
    ):
        raise UserError(
            f"--launch {arguments.launch} does not fit --out {arguments.out}",
            f"give --out .../launch-{abs(arguments.launch)}.json",
        )
    check_dataset_given(spec, arguments.dataset)
    if arguments.devices is not None and arguments.devices < 1:
        raise UserError(f"--devices {arguments.devices} is no number of devices", "give a whole number above 0")
    if not 0 < arguments.timeout_s < 1e8:
        raise UserError(f"--timeout-s {arguments.timeout_s:g} is no time", "give a number of seconds above 0")


def measure(arguments: argparse.Namespace, spec: Spec, signals: int) -> None:
    """Run the launch and write its record.

    Raises:
        LaunchFailed: there is no measurement.
        Interrupted: a signal came before there was one.
        UserError: the record cannot be written.
    """
    local = spec.endpoint is None and is_local(arguments.model)
    model = str(Path(arguments.model).expanduser().absolute()) if local else arguments.model
    obstacle = check_before_start(spec, model, arguments.dataset)
    if obstacle is not None:
        arguments.log.write_text(f"{obstacle.cause}\n{obstacle.fix}\n")
        raise LaunchFailed("starting", obstacle)
    if spec.platform == "ascend":
        slurm.see_granted_npus()
    first = arguments.launch if arguments.first_device is None else arguments.first_device
    wanted = Wanted(spec, arguments.out, arguments.isolation, arguments.devices, first)
    try:
        waiting = Progress(spec, arguments.launch, arguments.out, arguments.progress)
        with lease(wanted, partial(pause, signals), waiting.phase) as held:
            run(arguments, spec, model, signals, held)
    except DeviceError as error:
        arguments.log.write_text(f"{error}\n")
        raise LaunchFailed("starting", Cause(error.category, error.problem, error.remedy)) from None


def run(arguments: argparse.Namespace, spec: Spec, model: str, signals: int, held: Lease) -> None:
    """As `measure`, on devices that are held; `model` is what the engine is to load."""
    progress = Progress(spec, arguments.launch, arguments.out, arguments.progress)
    with folder_for_traces(spec, arguments.out) as traces:
        launch = EngineLaunch(
            module=WORKER,
            job=Job(
                spec=spec,
                model=model,
                dataset=None if arguments.dataset is None else str(arguments.dataset.absolute()),
                launch=arguments.launch,
                timeout_s=arguments.timeout_s,
                traces=None if traces is None else str(traces),
            ),
            limits=arguments.limits,
            log=arguments.log,
            environments=held.environments(engine_environment(spec, model)),
            timeout_s=arguments.timeout_s,
            signals=signals,
            cores=held.cores,
            keep_open=held.keep_open,
        )
        surroundings = Surroundings(spec.platform, launch.environments, launch.processes, held, launch.pauses)
        collecting = collector(spec, arguments.launch, progress, surroundings, traces)
        launch.run(collecting.take)
        collecting.write("".join(log.read_text(errors="replace") for log in launch.logs), arguments.out)


def attempt(arguments: argparse.Namespace, spec: Spec, signals: int) -> int:
    """Measure the launch, unless it is settled; return the exit status, or raise `UserError` with a failure's."""
    outcome = LaunchOutcome(spec, arguments.launch, arguments.out.absolute(), arguments.log)
    if outcome.is_settled(arguments.attempt):
        say(f"{arguments.out}: is measured already")
        return 0
    try:
        arguments.log.parent.mkdir(parents=True, exist_ok=True)
        outcome.clear()
        measure(arguments, spec, signals)
    except LaunchFailed as error:
        # where Slurm ends a job, the engine's end can be noticed before our own signal
        cause = slurm.word_on_own_job() if error.cause.category == "crash" else None
        raise outcome.failed(error.phase, cause or error.cause, error.log) from None
    except UserError as error:
        raise outcome.failed("writing", Cause("not_written", error.problem, error.remedy)) from None
    except OSError as error:
        category = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) else "not_written"
        cause = Cause(category, f"{error.filename}: {error.strerror}", "check the file system and permissions")
        raise outcome.failed("starting", cause) from None
    except Interrupted as error:
        cause = slurm.word_on_own_job()
        if cause is not None:
            raise outcome.failed("interrupted", cause) from None
        say(f"interrupted by {error}: the engine was ended, nothing was written")
        return 128 + error.number
    except Exception as error:  # ours, not the engine's: no launch ends without a word
        arguments.log.write_text(traceback.format_exc())
        cause = Cause("crash", f"{type(error).__name__}: {error}", "report it with the log: the fault is not yours")
        raise outcome.failed("starting", cause) from None
    outcome.succeeded()
    return 0


def main() -> int:
    """Run the command; see --help for its exit status."""
    arguments = parse_arguments()
    with signals_as_descriptor() as signals:
        if arguments.die_with_parent is not None:
            die_with_parent(signal.SIGTERM)
            if os.getppid() != arguments.die_with_parent:
                return 128 + signal.SIGTERM
        spec = read_spec(arguments.spec)
        check_arguments(arguments, spec)
        out = arguments.out.absolute()
        claim = claimed(out, arguments.log, arguments.timeout_s, tell_of_dead)
        with claim if in_workflow(out) else contextlib.nullcontext():
            return attempt(arguments, spec, signals)


if __name__ == "__main__":
    run_command(main)
