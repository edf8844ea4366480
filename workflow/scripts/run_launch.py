#!/usr/bin/env python3
"""Measures one launch: starts the engine or its server, runs warm-up and measured iterations, writes the record.

The script runs in any Python that has vLLM and needs no Snakemake. All processes of the engine end with this command,
even if it is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
from pathlib import Path

# ruff: noqa: E402 (a Ctrl-C during the imports below ends the command without a traceback)
signal.signal(signal.SIGINT, signal.SIG_DFL)

import _src  # noqa: F401 (puts src/ on the path)

from rollout_bench.cluster import slurm
from rollout_bench.cluster.ownership import claimed, tell_of_dead
from rollout_bench.contracts.spec import read_spec
from rollout_bench.core.errors import run_command
from rollout_bench.core.processes import Interrupted, is_orphan_of, signals_as_descriptor
from rollout_bench.measure.launch.attempt import COMMON, Assignment, add_common_arguments, attempt, interrupted
from rollout_bench.measure.launch.outcome import in_workflow
from rollout_bench.measure.launch.progress import say


def parse_arguments() -> argparse.Namespace:
    """Return the parsed arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 if measured; 1 if failed (two lines give reason and remedy); 75 if the node was at "
        "fault and another node may succeed; 130 or 143 if interrupted.",
    )
    parser.add_argument("--spec", type=Path, required=True, metavar="FILE", help="spec.json of the experiment")
    parser.add_argument("--model", required=True, metavar="MODEL", help="folder with the weights, or hub id")
    parser.add_argument("--dataset", type=Path, metavar="FILE", help="the workload's data set, if it has one")
    parser.add_argument("--launch", type=int, required=True, metavar="I", help="index of the launch, from 0")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="record to write, results/<mode>/<experiment>/launch-<i>.json; its side files are written beside it",
    )
    parser.add_argument("--log", type=Path, required=True, metavar="FILE", help="file for the engine's output")
    add_common_arguments(parser)
    return parser.parse_args()


def main() -> int:
    """Run the command; see --help for its exit status."""
    arguments = parse_arguments()
    with signals_as_descriptor() as signals:
        if arguments.die_with_parent is not None and is_orphan_of(arguments.die_with_parent):
            return 128 + signal.SIGTERM
        assignment = Assignment(
            read_spec(arguments.spec),
            arguments.model,
            arguments.launch,
            arguments.out,
            arguments.log,
            arguments.dataset,
            **{name: getattr(arguments, name) for name in COMMON},
        )
        assignment.check(arguments.spec)
        if assignment.spec.platform == "ascend":
            slurm.see_granted_npus()
        out = arguments.out.absolute()
        longest_s = arguments.timeout_s
        claim = claimed(out, arguments.log, longest_s, tell_of_dead)
        with claim if in_workflow(out) else contextlib.nullcontext():
            if assignment.outcome.is_settled(assignment.attempt):
                say(f"{assignment.out}: is measured already")
                return 0
            try:
                attempt(assignment, signals, slurm.word_on_own_job)
            except Interrupted as error:
                return interrupted([assignment], error, slurm.word_on_own_job)
            return 0


if __name__ == "__main__":
    run_command(main)
