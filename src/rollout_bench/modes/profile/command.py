"""Read the traces of a profile launch into one table of events: operator or kernel, place, step, start and duration.

The table is CSV with a row for each event, compressed if FILE ends in .gz. Its columns:

  trace        name of the trace, as in the record
  phase        of the step: prefill, decode or mixed; empty outside steps
  rank         index of the worker
  step         number of the step in its trace, from 0; -1 outside steps
  where        step: a whole step; device: work of the device; host: work of the host.
               On a CPU, operators of the thread that runs the steps count as work of the device.
  name         operator or kernel; on Ascend the kernel's type
  path         enclosing operators, outermost first, joined by " > "; for a kernel, the operators that launched it
  stream       process and thread, or device and stream
  start_us     microseconds since the first event of the trace
  duration_us  microseconds
  self_us      duration_us without the operators inside it on the same thread
  dtypes       JSON of the inputs' data types, or empty

docs/why-faster.md lists the categories of events and their rules.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rollout_bench.core.options import Parser

COMMANDS = (
    (
        "trace",
        f"{__name__}:main",
        "read the traces of a profile launch into one table of events",
        "trace results/profile/EXPERIMENT/launch-0.json --out operators.csv.gz",
    ),
)
"""Name of the command, its function, its purpose, and an example."""


def parser() -> Parser:
    """Return the argument parser."""
    parser = Parser(
        prog="rollout-bench trace",
        description=__doc__,
        epilog="Exit status: 0 when the table is written, 1 on an error (no table is written).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("record", type=Path, metavar="RECORD", help="record of the launch: launch-0.json")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="file for the table: launch-0.operators.csv.gz"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Read all traces, then write the table."""
    arguments = parser().parse_args(argv)
    # Not at the top: --help need not wait for pydantic and pandas.
    from rollout_bench.core.files import read_model
    from rollout_bench.modes.profile.record import Profile
    from rollout_bench.modes.profile.traces.events import write_events
    from rollout_bench.modes.profile.traces.trace import read_traces

    record: Path = arguments.record
    profile = read_model(
        record, Profile, "give the record of a launch in mode profile, as results/profile/.../launch-0.json"
    )
    events = read_traces(record.parent / profile.traces_folder, profile)
    write_events(arguments.out, events)
    print(f"{arguments.out}: {len(events)} events")
    return 0
