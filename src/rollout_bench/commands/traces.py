"""Read the traces of a profile launch into one table of events: what ran where, when, for how long, in which step.

The table is gzip-compressed CSV; docs/reference/traces.md has its columns.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rollout_bench.contracts.inside import Profile
from rollout_bench.core.files import read_model


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit status: 0 when the table is written, 1 on an error: then nothing is written.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("record", type=Path, metavar="RECORD", help="record of the launch: launch-0.json")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="where the table goes: launch-0.operators.csv.gz"
    )
    return parser


def main() -> int:
    """Read everything before it writes."""
    arguments = parser().parse_args()
    # Not at the top: --help need not wait for pandas.
    from rollout_bench.analysis.traces.events import write_events
    from rollout_bench.analysis.traces.trace import read_traces

    record: Path = arguments.record
    profile = read_model(record, Profile, "delete it to have the launch made again")
    events, warnings = read_traces(record.parent / profile.traces_folder, profile.traces, profile.linears)
    write_events(arguments.out, events)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{arguments.out}: {len(events)} events")
    return 0
