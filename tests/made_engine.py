"""In place of measure/engine/offline.py in the copy of a test: an engine that does what behaviour.json says, at once.

All else is real: the measuring command, its supervisor and guardian, failures and records. behaviour.json lies in the
workflow's folder and has what a launch does by its index: `{"0": "measure", "1": "no memory for kv", ...}`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from rollout_bench.contracts.record import Record, SequenceRow
from rollout_bench.measure.launch.protocol import IterationDone, IterationEnds, Job, PhaseBegins, Ready, Tell, Wait
from rollout_bench.measure.machine.host import relevant_variables

HANG_S = 600.0


def measure(job: Job, tell: Tell, wait: Wait) -> None:
    """Do what the test wants of this launch."""
    node, slurm_job = os.environ.get("SLURMD_NODENAME", "-"), os.environ.get("SLURM_JOB_ID", "-")
    name = f"{job.spec.mode}/{job.spec.experiment()}/launch-{job.launch}"
    with Path("starts.log").open("a+") as file:
        file.seek(0)
        first = f"{name} " not in file.read()
        file.write(f"{name} {slurm_job} {node}\n")
    behaviour = json.loads(Path("behaviour.json").read_text()).get(str(job.launch), "measure")
    print("it sees", *sorted(os.environ), flush=True)  # a launch that is over ends its engine at once
    if behaviour == "no memory for kv":
        raise ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`")
    if behaviour == "no driver at first" and first:
        raise RuntimeError("No CUDA GPUs are available")
    if behaviour == "take 1 GiB":
        memory = bytearray(1 << 30)
        memory[:: 1 << 12] = b"x" * (1 << 18)
    tell(PhaseBegins(phase="initializing"))
    if behaviour in ("hang", "take 1 GiB"):
        time.sleep(HANG_S)
    deliver(job, tell, wait)


def deliver(job: Job, tell: Tell, wait: Wait) -> None:
    """Tell of the iterations of a record that the test has made; no two launches take the same time to the digit."""
    record = Record.model_validate_json(Path("made/record.json").read_text())
    rows = [SequenceRow.model_validate_json(line) for line in Path("made/rows.jsonl").read_text().splitlines()]
    environment = record.environment.model_copy(update={"variables": relevant_variables(dict(os.environ))})
    tell(Ready(import_s=0.1, init_s=0.1, environment=environment, engine=record.engine, flags=[], processes={}))
    for iteration in record.iterations:
        tell(PhaseBegins(phase="warmup" if iteration.warmup else "measuring"))
        wait()
        tell(IterationEnds())
        own = [row for row in rows if row.iteration == iteration.index]
        iteration = iteration.model_copy(update={"elapsed_s": iteration.elapsed_s * (1 + job.launch * 1e-6)})
        tell(IterationDone(iteration=iteration, sequences=own, flags=[]))
    tell(PhaseBegins(phase="stopping"))
