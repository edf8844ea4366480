"""Measure one launch, or the launches of a block with their passes interleaved, or blocks that use the same engines.

It starts each engine or its server, runs warm-up and measured iterations, and writes a record with its side files. If a
launch of a block fails, the others continue. The command runs in any Python that has vLLM and needs no Snakemake. All
processes of the engines end with this command, even if it is killed.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, get_args

from pydantic import Field, ValidationError

from rollout_bench.cluster import slurm
from rollout_bench.cluster.claims import claimed
from rollout_bench.contracts.failures import failed_by_itself, state_of
from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.spec import Isolation, read_spec
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import grouped
from rollout_bench.core.options import Parser
from rollout_bench.core.order import block_orders
from rollout_bench.core.processes import Interrupted, die_with_parent, pause, signals_as_descriptor
from rollout_bench.measure.launch.block import BlockContext, Engines, Member, check_together, measure_block
from rollout_bench.measure.launch.outcome import in_workflow, interrupted
from rollout_bench.measure.launch.progress import Progress, say
from rollout_bench.measure.launch.request import LaunchRequest
from rollout_bench.measure.machine.host import BUSY, used_by_others
from rollout_bench.measure.machine.leases import lease


class LaunchArguments(Strict):
    """One launch, from the options of the same names."""

    spec: Path = Field(description="spec.json of the experiment")
    model: str = Field(description="folder with the weights, or hub id")
    dataset: Path | None = Field(default=None, description="the workload's data set, if it has one")
    launch: int = Field(description="index of the launch, from 0")
    out: Path = Field(
        description="record to write, results/<mode>/<experiment>/launch-<i>.json; its side files are written beside it"
    )
    log: Path = Field(description="file for the engine's output")


class MemberArguments(LaunchArguments):
    """One launch of several, from --member."""

    turn: int = Field(default=0, description="number of its block; the blocks use the same engines one after the other")


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all launches of the command share."""
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="time limit for the whole launch; a longer launch fails (default: %(default)g)",
    )
    parser.add_argument(
        "--isolation",
        choices=get_args(Isolation),
        help="exclusive: no other launch runs on the node; per_device: launches may run on other devices "
        "(default: exclusive on cpu and for endpoints, else per_device)",
    )
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="largest number of devices that launches of this workflow hold together; on cpu the cores are divided "
        "into N parts (default: all; on cpu as many as the launch needs)",
    )
    parser.add_argument(
        "--first-device",
        type=int,
        metavar="I",
        help="preferred device, counted from 0 among the visible devices, modulo their number (default: --launch)",
    )
    parser.add_argument(
        "--attempt",
        type=int,
        metavar="N",
        help="number of this attempt, from 1; with it, a launch that has a record is not measured again, and an "
        "attempt after a failure of the experiment (not of the node) ends immediately",
    )
    parser.add_argument(
        "--die-with-parent",
        type=int,
        metavar="PID",
        help="end when process PID ends for any reason; it must be the parent (in a shell: $PPID before exec)",
    )


COMMON = ("timeout_s", "isolation", "devices", "first_device", "attempt", "die_with_parent")
"""Common arguments that are fields of `LaunchRequest`."""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed arguments of the command line, with a member for each launch."""
    parser = Parser(
        prog="rollout-bench measure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 if all launches are measured; else the status of the first failed launch: 1 if failed "
        "(two lines give reason and remedy); 75 if the node was at fault and another node may succeed; with --attempt "
        "also 0 if the failed launches would fail on any node, which the run reports at its end; 130 or 143 if "
        "interrupted.",
    )
    for name, field in LaunchArguments.model_fields.items():
        parser.add_argument(f"--{name}", type=int if name == "launch" else str, help=field.description)
    parser.add_argument(
        "--member",
        type=member_of_json,
        action="append",
        metavar="JSON",
        help="in place of these six: a launch of a block, as an object with their names and values; once for each "
        "launch, the baseline first. turn: number of its block, where later blocks use the engines of the first",
    )
    parser.add_argument(
        "--nothing",
        action="store_true",
        help="measure nothing: all launches of this block have failed in an earlier block of this run",
    )
    parser.add_argument(
        "--one-node",
        action="store_true",
        help="no other node can measure the launches, so with --attempt a fault of this one is final, too",
    )
    parser.add_argument(
        "--order-seed",
        type=int,
        default=0,
        metavar="N",
        help="seed for the order of passes in each round; the block of launch I continues the order of launch I - 1 "
        "(default: %(default)s)",
    )
    _add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    given = {name: value for name in LaunchArguments.model_fields if (value := getattr(arguments, name)) is not None}
    try:
        arguments.member = arguments.member or ([] if arguments.nothing else [member_of_json(json.dumps(given))])
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    return arguments


def member_of_json(text: str) -> MemberArguments:
    """Return the launch in the JSON of --member; raise `argparse.ArgumentTypeError` if it is invalid."""
    try:
        return MemberArguments.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise argparse.ArgumentTypeError(f"{text!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def requested(arguments: argparse.Namespace) -> list[LaunchRequest]:
    """Return the launches to measure; raise `UserError` if the arguments contradict each other or a spec."""
    members: list[MemberArguments] = arguments.member
    requests = []
    for given in members:
        request = LaunchRequest(
            read_spec(given.spec),
            given.model,
            given.launch,
            given.out,
            given.log,
            given.dataset,
            turn=given.turn,
            **{name: getattr(arguments, name) for name in COMMON},
        )
        request.check(given.spec)
        requests.append(request)
    check_together(requests)
    return requests


def measure(arguments: argparse.Namespace, requests: Sequence[LaunchRequest], signals: int) -> int:
    """Measure the launches without a record or a final failure; return the exit status."""
    statuses: dict[Path, int] = {}
    left: list[LaunchRequest] = []
    with contextlib.ExitStack() as claims:
        for request in requests:
            try:
                if in_workflow(request.out):
                    longest_s = request.timeout_s * len(requests)
                    claims.enter_context(claimed(request.out.absolute(), request.log, longest_s))
                if request.outcome.is_settled(request.attempt):
                    say(f"{request.out}: is measured already")
                else:
                    left.append(request)
            except UserError as error:
                print(error, file=sys.stderr, flush=True)
                statuses[request.out] = error.status
        try:
            statuses |= measure_blocks(left, arguments.order_seed, signals)
        except Interrupted as error:
            return interrupted([request.outcome for request in left], error, slurm.cause_of_own_job)
    if arguments.attempt is not None and is_over(
        [request.out for request in requests], on_cluster=not arguments.one_node
    ):
        return 0
    return next((status for request in requests if (status := statuses.get(request.out, 0))), 0)


def is_over(records: Sequence[Path], *, on_cluster: bool) -> bool:
    """Return whether a block is finished: each launch has a record or a final failure.

    A failure is final if it was written in this run and would happen again, on a cluster on any node. The run then
    continues with other blocks, and reports the failure at its end.
    """
    plan = records[0].parent.parent.parent / "plan.json"
    return all(
        state_of(record) == "measured" or failed_by_itself(record, plan, on_cluster=on_cluster) for record in records
    )


def measure_blocks(requests: Sequence[LaunchRequest], order_seed: int, signals: int) -> dict[Path, int]:
    """Measure launches in blocks, one after the other on one lease; return the exit status of each record.

    Raises:
        Interrupted: if a signal arrived.
    """
    of_turns = grouped((request.turn, request) for request in requests).values()
    blocks = [[Member(each, slurm.cause_of_own_job, is_alone=len(turn) == 1) for each in turn] for turn in of_turns]
    every = [member for block in blocks for member in block]
    for member in every:
        member.do(member.check)  # who would fail need not wait for devices
    if ready := [member for member in every if member.status == 0]:
        first = ready[0].request
        with contextlib.ExitStack() as resources:
            try:
                waiting = Progress(first.spec, first.launch, first.out)
                held = resources.enter_context(lease(first.wanted, partial(pause, signals), waiting.say))
            except Interrupted:
                raise
            except Exception as error:
                for member in ready:
                    member.do(partial(_raise, error))
                return {member.request.out: member.status for member in every}
            say_who_uses_cores(first, signals)
            engines = resources.enter_context(contextlib.closing(Engines(each.request.spec for each in every)))
            for block in blocks:
                rounds = max(member.request.spec.measuring.iterations for member in block)
                orders = block_orders(order_seed, first.launch, [member.request.name for member in block], rounds)
                measure_block(block, BlockContext(held, signals, engines), orders)
    return {member.request.out: member.status for member in every}


def _raise(error: Exception) -> NoReturn:
    raise error


def say_who_uses_cores(request: LaunchRequest, signals: int) -> None:
    """Print who else uses the cores, if the engine computes on them and a launch would be invalid.

    Raises:
        Interrupted: if a signal arrived.
    """
    if request.spec.platform == "cpu":
        share, who = used_by_others(partial(pause, signals))
        if share > BUSY:
            progress = Progress(request.spec, request.launch, request.out)
            progress.say(f"others use {100 * share:.0f} % of the cores' time: {who}")


def main(argv: Sequence[str]) -> int:
    """Run the command; see --help for its exit status."""
    arguments = parse_arguments(argv)
    if arguments.nothing:
        return 0
    with signals_as_descriptor() as signals:
        if arguments.die_with_parent is not None:
            die_with_parent(signal.SIGTERM)
            if os.getppid() != arguments.die_with_parent:
                return 128 + signal.SIGTERM
        requests = requested(arguments)
        if any(request.spec.platform == "ascend" for request in requests):
            slurm.see_granted_npus()
        return measure(arguments, requests, signals)
