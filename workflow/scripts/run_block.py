#!/usr/bin/env python3
"""Measures the launches of one block: starts their engines, lets them make their passes in turn, writes the records.

Each launch is measured as by run_launch.py, and leaves what that leaves. A launch that fails is left out, and the
others go on. Runs in any Python that has vLLM; needs no Snakemake. Everything that the engines start ends with this
command, also when it is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

# ruff: noqa: E402 (a Ctrl-C during the imports below ends the command without a traceback)
signal.signal(signal.SIGINT, signal.SIG_DFL)

import _src  # noqa: F401 (puts src/ on the path)
from pydantic import ValidationError

from rollout_bench.cluster import slurm
from rollout_bench.cluster.ownership import claimed, tell_of_dead
from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.postmortem import Cause, failed_by_itself, state_of
from rollout_bench.contracts.spec import read_spec
from rollout_bench.core.errors import UserError, run_command
from rollout_bench.core.processes import Interrupted, is_orphan_of, pause, signals_as_descriptor
from rollout_bench.measure.launch.attempt import COMMON, Assignment, add_common_arguments, attempt, imported_for
from rollout_bench.measure.launch.coordinator import Coordinator, check_together, rotation_of
from rollout_bench.measure.launch.outcome import in_workflow
from rollout_bench.measure.launch.progress import say
from rollout_bench.measure.launch.rotation import Started
from rollout_bench.measure.machine.device import DeviceError
from rollout_bench.measure.machine.leases import lease
from rollout_bench.plan.order import block_orders


class Member(Strict):
    """One launch of the block, as --member names it."""

    spec: Path
    model: str
    dataset: Path | None = None
    launch: int
    out: Path
    log: Path


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 all measured; else that of the first member that failed, as of run_launch.py (two lines "
        "for each say why and what to do); with --attempt 0 also where others were measured and those that failed "
        "would fail on any node; 130 or 143 interrupted.",
    )
    parser.add_argument(
        "--member",
        type=member,
        action="append",
        required=True,
        metavar="JSON",
        help='a launch, the baseline first: {"spec": FILE, "model": MODEL, "dataset": FILE or null, "launch": I, '
        '"out": FILE, "log": FILE}, each as the argument of run_launch.py; given once for each',
    )
    parser.add_argument(
        "--order-seed",
        type=int,
        default=0,
        metavar="N",
        help="draws the order of passes in each round; launch I goes on in it where the block of launch I - 1 ended "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="engines that live at the same time, at least 2: the baseline, and the others in groups (default: all)",
    )
    parser.add_argument(
        "--start",
        choices=get_args(Started),
        default="in_turn",
        help="in_turn: an engine starts once the one before has made its warm-up passes; together: all at once "
        "(default: %(default)s)",
    )
    add_common_arguments(parser)
    return parser.parse_args()


def member(text: str) -> Member:
    """Read --member; raise `argparse.ArgumentTypeError` where it is none."""
    try:
        return Member.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise argparse.ArgumentTypeError(f"{text!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def assigned(arguments: argparse.Namespace) -> list[Assignment]:
    """Return what is to be measured; raise `UserError` where the arguments contradict each other or a spec."""
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
            **{name: getattr(arguments, name) for name in COMMON},
        )
        assignment.check(given.spec)
        assignments.append(assignment)
    check_together(assignments, max(len(assignments), 2) if arguments.at_once is None else arguments.at_once)
    return assignments


def measure(arguments: argparse.Namespace, assignments: Sequence[Assignment], signals: int) -> int:
    """Measure all that is not settled; return the exit status."""
    statuses: dict[int, int] = {}
    left: list[int] = []
    with contextlib.ExitStack() as claims:
        for number, assignment in enumerate(assignments):
            try:
                if in_workflow(assignment.out):
                    longest_s = assignment.timeout_s * len(assignments)
                    out = assignment.out.absolute()
                    claims.enter_context(claimed(out, assignment.log, longest_s, tell_of_dead))
                if assignment.outcome.is_settled(assignment.attempt):
                    say(f"{assignment.out}: is measured already")
                else:
                    left.append(number)
            except UserError as error:
                statuses[number] = failed(error)
        settled = [number for number in range(len(assignments)) if number not in statuses and number not in left]
        for sentence in no_pairs(assignments, settled, left):
            say(sentence)
        rest = [assignments[number] for number in left]
        try:
            found = alone(rest[0], signals) if len(rest) == 1 else beside(arguments, rest, signals) if rest else []
        except Interrupted as error:
            return interrupted(rest, error)
    statuses |= dict(zip(left, found, strict=True))
    status = next((statuses[number] for number in sorted(statuses) if statuses[number]), 0)
    return 0 if arguments.attempt is not None and is_over([a.out for a in assignments]) else status


def is_over(records: Sequence[Path]) -> bool:
    """Return whether a block left what it can: one record at least, and a failure of each that has none.

    A failure counts that was written in this run and would happen on any node. Then the run goes on with other blocks.
    """
    plan = records[0].parent.parent.parent / "plan.json"
    measured = [record for record in records if state_of(record) == "measured"]
    return bool(measured) and all(record in measured or failed_by_itself(record, plan) for record in records)


def no_pairs(assignments: Sequence[Assignment], settled: Sequence[int], left: Sequence[int]) -> Iterator[str]:
    """Yield a sentence for each pair of which one side was measured before and the other is measured now.

    Args:
        assignments: all launches of the block, the baseline first.
        settled: positions of those whose records are there.
        left: positions of those that are measured now.
    """
    for number in range(1, len(assignments)):
        for now, before in ((number, 0), (0, number)):
            if now in left and before in settled:
                yield (
                    f"{assignments[now].name} launch {assignments[now].launch} is measured without its partner "
                    f"{assignments[before].name}, whose record is there: what changed meanwhile would pass for a "
                    "difference, so they are no pair. rollout-bench discard --invalid has the block measured whole."
                )


def interrupted(assignments: Sequence[Assignment], error: Interrupted) -> int:
    """Say why the block was interrupted, where the scheduler knows, of each launch that did not say it itself."""
    cause = slurm.word_on_own_job()
    if cause is None:
        say(f"interrupted by {error}: the engines were ended, nothing was written")
        return 128 + error.number
    silent = [assignment for assignment in assignments if state_of(assignment.out) == "missing"]
    return max((failed(assignment.outcome.failed("interrupted", cause)) for assignment in silent), default=1)


def alone(assignment: Assignment, signals: int) -> list[int]:
    """Measure the only launch that is left, as one by itself; return its exit status."""
    try:
        return [attempt(assignment, signals, slurm.word_on_own_job)]
    except UserError as error:
        return [failed(error)]


def beside(arguments: argparse.Namespace, assignments: Sequence[Assignment], signals: int) -> list[int]:
    """Measure launches in one block; return the exit status of each."""
    outs = frozenset(assignment.out for assignment in assignments)
    assignments = [replace(assignment, mates=outs - {assignment.out}) for assignment in assignments]
    first = assignments[0]
    rotation = rotation_of(
        assignments,
        partial(block_orders, arguments.order_seed, first.launch),
        arguments.at_once or len(assignments),
        arguments.start,
    )
    try:
        with lease(first.wanted, partial(pause, signals), first.reporting().phase) as held:
            first.tell_users(signals)
            began = time.monotonic()
            assignments = [replace(assignment, began=began) for assignment in assignments]
            imported = imported_for(assignments, held)
            return Coordinator(assignments, held, rotation, signals, slurm.word_on_own_job, imported=imported).run()
    except DeviceError as error:
        cause = Cause(error.category, error.problem, error.remedy)
    except UserError as error:  # the folder of leases can't be used
        cause = Cause("not_written", error.problem, error.remedy)
    return [failed(assignment.outcome.failed("starting", cause)) for assignment in assignments]


def failed(error: UserError) -> int:
    """Print the two lines of a launch that failed; return its exit status."""
    print(error, file=sys.stderr, flush=True)
    return error.status


def main() -> int:
    """Run the command; see --help for its exit status."""
    arguments = parse_arguments()
    with signals_as_descriptor() as signals:
        if arguments.die_with_parent is not None and is_orphan_of(arguments.die_with_parent):
            return 128 + signal.SIGTERM
        assignments = assigned(arguments)
        if any(assignment.spec.platform == "ascend" for assignment in assignments):
            slurm.see_granted_npus()
        status = measure(arguments, assignments, signals)
    if "vllm" in sys.modules:  # whose libraries print what they leak when an interpreter ends
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    run_command(main)
