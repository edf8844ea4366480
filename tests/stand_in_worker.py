"""A stand-in for the engine process: tells what a worker tells, without an engine, and fails as it is asked to.

STAND_IN in its environment says how: late (comes late to the barrier), slow, crash, stops (in its pass), fails, hangs.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from rollout_bench.contracts.record import Flag, Iteration
from rollout_bench.measure.launch.protocol import Done, Failed, IterationBegins, IterationDone, Job, PhaseBegins, send


def main() -> None:
    """Do one pass."""
    pipe, how = int(sys.argv[1]), os.environ.get("STAND_IN", "")
    job = Job.model_validate_json(sys.stdin.readline())
    send(pipe, PhaseBegins(phase="measuring"))
    if how == "late":
        time.sleep(0.4)
    arrived = time.monotonic()
    send(pipe, IterationBegins())
    sys.stdin.readline()
    began = time.monotonic()
    if how == "fails":
        send(pipe, Failed(exception="ValueError: there is no such thing"))
    if how in ("fails", "hangs"):
        time.sleep(60)
    if how == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(0.3 if how == "slow" else 0.05)
    counts = {"requests": 1, "sequences": 1, "prompt_tokens": 1, "output_tokens": 10 + job.replica}
    iteration = Iteration(index=0, warmup=False, elapsed_s=time.monotonic() - began, **counts)
    said = f"arrived {arrived}, began {began}, cores {sorted(os.sched_getaffinity(0))}"
    flags = [Flag(code="said", severity="warning", sentence=said)]
    send(pipe, IterationDone(iteration=iteration, sequences=[], flags=flags, began=began))
    send(pipe, Done())
    sys.stdin.readline()


if __name__ == "__main__":
    main()
