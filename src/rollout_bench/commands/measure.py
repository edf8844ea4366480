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

from pydantic import Field, ValidationError

from rollout_bench.cluster import slurm
from rollout_bench.cluster.claims import claimed
from rollout_bench.contracts.failures import Cause, failed_by_itself, state_of
from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.spec import read_spec
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import grouped
from rollout_bench.core.options import Parser
from rollout_bench.core.processes import Interrupted, die_with_parent, pause, signals_as_descriptor
from rollout_bench.measure.launch.attempt import (
    COMMON,
    Assignment,
    add_common_arguments,
    attempt,
    interrupted,
)
from rollout_bench.measure.launch.block import BlockRun, Engines, check_together
from rollout_bench.measure.launch.failures import unwritten
from rollout_bench.measure.launch.outcome import in_workflow
from rollout_bench.measure.launch.progress import say
from rollout_bench.measure.machine.device import DeviceError
from rollout_bench.measure.machine.leases import lease
from rollout_bench.plan.order import block_orders


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


class Member(LaunchArguments):
    """One launch of several, from --member."""

    turn: int = Field(default=0, description="number of its block; the blocks use the same engines one after the other")


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
        "--order-seed",
        type=int,
        default=0,
        metavar="N",
        help="seed for the order of passes in each round; the block of launch I continues the order of launch I - 1 "
        "(default: %(default)s)",
    )
    add_common_arguments(parser)
    arguments = parser.parse_args(argv)
    given = {name: value for name in LaunchArguments.model_fields if (value := getattr(arguments, name)) is not None}
    try:
        arguments.member = arguments.member or ([] if arguments.nothing else [member_of_json(json.dumps(given))])
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    return arguments


def member_of_json(text: str) -> Member:
    """Return the launch in the JSON of --member; raise `argparse.ArgumentTypeError` if it is invalid."""
    try:
        return Member.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise argparse.ArgumentTypeError(f"{text!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def assigned(arguments: argparse.Namespace) -> list[Assignment]:
    """Return the launches to measure; raise `UserError` if the arguments contradict each other or a spec."""
    members: list[Member] = arguments.member
    assignments = []
    for given in members:
        assignment = Assignment(
            read_spec(given.spec),
            given.model,
            given.launch,
            given.out,
            given.log,
            given.dataset,
            turn=given.turn,
            **{name: getattr(arguments, name) for name in COMMON},
        )
        assignment.check(given.spec)
        assignments.append(assignment)
    check_together(assignments)
    return assignments


def measure(arguments: argparse.Namespace, assignments: Sequence[Assignment], signals: int) -> int:
    """Measure the launches without a record or a final failure; return the exit status."""
    statuses: dict[int, int] = {}
    left: list[int] = []
    with contextlib.ExitStack() as claims:
        for number, assignment in enumerate(assignments):
            try:
                if in_workflow(assignment.out):
                    longest_s = assignment.timeout_s * len(assignments)
                    out = assignment.out.absolute()
                    claims.enter_context(claimed(out, assignment.log, longest_s))
                if assignment.outcome.is_settled(assignment.attempt):
                    say(f"{assignment.out}: is measured already")
                else:
                    left.append(number)
            except UserError as error:
                statuses[number] = failed(error)
        rest = [assignments[number] for number in left]
        try:
            found = measure_blocks(arguments, rest, signals) if rest else []
        except Interrupted as error:
            return interrupted(rest, error, slurm.cause_of_own_job)
    statuses |= dict(zip(left, found, strict=True))
    status = next((statuses[number] for number in sorted(statuses) if statuses[number]), 0)
    return 0 if arguments.attempt is not None and is_over([a.out for a in assignments]) else status


def is_over(records: Sequence[Path]) -> bool:
    """Return whether a block is finished: each launch has a record or a final failure.

    A failure is final if it was written in this run and would happen on any node. The run then continues with other
    blocks, and reports the failure at its end.
    """
    plan = records[0].parent.parent.parent / "plan.json"
    return all(state_of(record) == "measured" or failed_by_itself(record, plan) for record in records)


def measure_blocks(arguments: argparse.Namespace, assignments: Sequence[Assignment], signals: int) -> list[int]:
    """Measure launches interleaved in blocks, or a single one alone; return the exit status of each."""
    first = assignments[0]
    try:
        if len(assignments) == 1:
            attempt(first, signals, slurm.cause_of_own_job)
            return [0]
        with lease(first.wanted, partial(pause, signals), first.reporting().say) as held:
            first.tell_users(signals)
            blocks = list(grouped((each.turn, each) for each in assignments).values())
            statuses: dict[Path, int] = {}
            with contextlib.closing(Engines(each.spec for each in assignments)) as engines:
                for block in blocks:
                    rounds = max(each.spec.measuring.iterations for each in block)
                    orders = block_orders(arguments.order_seed, first.launch, [each.name for each in block], rounds)
                    run = BlockRun(block, held, orders, signals, slurm.cause_of_own_job, engines)
                    statuses |= zip((each.out for each in block), run.run(), strict=True)
            return [statuses[each.out] for each in assignments]
    except DeviceError as error:
        cause = Cause(error.category, error.problem, error.remedy)
    except UserError as error:  # of the only launch, or the folder of leases can't be used
        if len(assignments) == 1:
            return [failed(error)]
        cause = Cause("not_written", error.problem, error.remedy)
    except OSError as error:  # of the lease: each launch tells its own
        cause = unwritten(error)
    return [failed(assignment.outcome.failed("starting", cause)) for assignment in assignments]


def failed(error: UserError) -> int:
    """Print the two lines of a failed launch's error; return its exit status."""
    print(error, file=sys.stderr, flush=True)
    return error.status


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
        assignments = assigned(arguments)
        if any(assignment.spec.platform == "ascend" for assignment in assignments):
            slurm.see_granted_npus()
        return measure(arguments, assignments, signals)
