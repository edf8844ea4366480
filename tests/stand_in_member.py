"""A stand-in for the engine process of a block's launch, which notes when it works and fails as it is asked to.

It fails: fails (as it starts), dies (in its third pass that counts), hangs (there), idle (dies while it waits after
its second). slow: its passes take 0.6 s. spins: it never sleeps, as vLLM's workers do not for a second.
lingers: hangs, and has a process that outlives it and heeds no SIGTERM. Where the launch has a router it answers that.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import stand_in_replica
from synthetic_records import make_record

from rollout_bench.contracts.load import longest
from rollout_bench.core.processes import die_with_parent
from rollout_bench.measure.launch.protocol import (
    Done,
    Failed,
    IterationBegins,
    IterationDone,
    IterationEnds,
    Job,
    PhaseBegins,
    Ready,
    iterations_in,
    send,
)

PREPARE_S, PASS_S, START_S = 0.03, 0.05, 0.1
THIRD = 2


def spin() -> None:
    """Use a core for as long as the process lives."""
    while True:
        pass


def main() -> None:
    """Do all passes."""
    die_with_parent(signal.SIGKILL)
    pipe = int(sys.argv[1])
    job = Job.model_validate_json(sys.stdin.readline())
    folder = Path(job.model)
    name = job.spec.workload.name
    how = json.loads((folder / "behaviour.json").read_text()).get(name, "")

    def note(what: str, began: float) -> None:
        with (folder / "passes.jsonl").open("a") as file:
            file.write(json.dumps([name, what, began, time.monotonic()]) + "\n")

    began = time.monotonic()
    send(pipe, PhaseBegins(phase="initializing"))
    time.sleep(START_S)
    if how == "lingers":
        subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
    if how == "fails":
        send(pipe, Failed(exception="ValueError: there is no such thing"))
        time.sleep(60)
    record = make_record(job.spec)
    facts = {"environment": record.environment, "engine": record.engine}
    line = None if job.line is None else socket.socket(fileno=job.line)
    send(pipe, Ready(import_s=0.1, init_s=0.1, flags=[], processes={}, vocabulary=line and 2048, **facts))
    note("start", began)
    wanted = None if job.spec.measuring.iterations == "auto" else job.spec.measuring.iterations
    index = counted = 0
    if how == "spins":
        threading.Thread(target=spin, daemon=True).start()
    while wanted is None or counted < wanted:
        warming_up = index < job.spec.measuring.warmup_iterations
        began = time.monotonic()
        if index in (0, job.spec.measuring.warmup_iterations):
            send(pipe, PhaseBegins(phase="warmup" if warming_up else "measuring"))
        time.sleep(PREPARE_S)
        note("prepare", began)
        send(pipe, IterationBegins())
        if how == "idle" and counted == THIRD:
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGKILL)).start()
        began, used_s = time.monotonic(), time.process_time()
        wanted = iterations_in(sys.stdin.readline().encode()) or wanted
        note(f"spun {time.process_time() - used_s}", began)
        began = time.monotonic()
        if how == "dies" and counted == THIRD:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60 if how in ("hangs", "lingers") and counted == THIRD else 0.6 if how == "slow" else PASS_S)
        words, over = ([], None) if line is None else stand_in_replica.step(line, crashes=False)
        note("warmup" if warming_up else "pass", began)
        send(pipe, IterationEnds())
        of = record.iterations[0].model_copy(
            update={
                "index": index,
                "warmup": warming_up,
                "elapsed_s": time.monotonic() - began,
                "output_tokens": record.iterations[0].sequences * longest(job.spec.workload.output_tokens),
            }
        )
        told = IterationDone(iteration=of, sequences=[], flags=[])
        if over is not None:
            told = stand_in_replica.done(words, over, index, warmup=warming_up)
        send(pipe, told.model_copy(update={"wanted": wanted}))
        index += 1
        counted += not warming_up
    send(pipe, Done())
    sys.stdin.readline()


if __name__ == "__main__":
    main()
