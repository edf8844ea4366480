"""One pass of rollout-bench's own worker without what looks after it: no supervisor, no guardian, no readings.

Called by fidelity.py, one process a pass. It calls the worker of mode offline as a launch does, with orders that exist
before the worker waits for them, and a file that takes its events. It imports what a launch's worker imports.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from pathlib import Path

from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import read_spec
from rollout_bench.measure.engine.worker import context_of
from rollout_bench.measure.launch.protocol import IterationDone, Job, parse

ORDERS = 1000
"""More than any worker asks for."""


def main() -> None:
    """Run warm-up and pass, and write {"elapsed_s": seconds of the second, "output_tokens": counted}."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", type=Path, required=True, help="spec.json of the experiment")
    parser.add_argument("--model", required=True, help="folder with the weights")
    parser.add_argument("--launch", type=int, required=True, help="whose prompts are taken")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    job = Job(spec=read_spec(arguments.spec), model=arguments.model, launch=arguments.launch, timeout_s=600)
    with tempfile.TemporaryFile() as events:
        MODES[job.spec.mode].worker.get()(job, context_of(events.fileno(), io.BytesIO(b"go\n" * ORDERS), None))
        events.seek(0)
        sent = [parse(line.rstrip(b"\n")) for line in events]
    passes = [event.iteration for event in sent if isinstance(event, IterationDone)]
    answer = {"elapsed_s": passes[1].elapsed_s, "output_tokens": passes[1].output_tokens}
    arguments.out.write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
