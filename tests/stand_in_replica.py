"""A stand-in for a rollout's replica: answers the router and tells what a worker tells, without an engine.

STAND_IN in its environment says how: crash (in its step), or nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from rollout_bench.contracts.record import EngineFacts, Environment, Iteration, ReplicaPass, SequenceRow
from rollout_bench.measure.launch.protocol import Done, IterationBegins, IterationDone, Job, PhaseBegins, Ready, send
from rollout_bench.measure.routing.exchange import Ended, Generate, Over, heard, written

ENVIRONMENT = {
    "engine_name": "none",
    "engine_version": "0",
    "torch_version": "0",
    "python_version": "3.11",
    "hostname": "here",
    "kernel": "none",
    "device_model": "none",
    "device_count": 1,
    "cpu_model": "none",
    "cpu_cores": 1,
    "memory_bytes": 1,
}


def main() -> None:
    """Do one step."""
    pipe, how = int(sys.argv[1]), os.environ.get("STAND_IN", "")
    job = Job.model_validate_json(sys.stdin.readline())
    assert job.line is not None
    facts = EngineFacts(weights_bytes_by_dtype=None, linear_methods={})
    environment = Environment.model_validate(ENVIRONMENT)
    send(
        pipe,
        Ready(
            import_s=0, init_s=0, environment=environment, engine=facts, flags=[], processes={}, vocabulary=2048
        ),
    )  # fmt: skip
    send(pipe, PhaseBegins(phase="measuring"))
    send(pipe, IterationBegins())
    sys.stdin.readline()
    words, over = step(socket.socket(fileno=job.line), crashes=how == "crash")
    send(pipe, done(words, over, 0, warmup=False))
    send(pipe, Done())
    sys.stdin.readline()


def done(words: list[Generate], over: Over, index: int, *, warmup: bool) -> IterationDone:
    """Return what a replica tells of its share of a step."""
    counts = {"requests": len(words), "sequences": len(words), "prompt_tokens": 1, "output_tokens": len(words)}
    part = ReplicaPass(start_offset_s=0, elapsed_s=0.1, **counts)
    rows = [
        SequenceRow(
            iteration=index, prompt=w.prompt, sample=w.sample, prompt_tokens=1, output_tokens=1, finish_reason="length"
        )
        for w in words
    ]
    iteration = Iteration(index=index, warmup=warmup, elapsed_s=0.1, replicas=[part], **counts)
    return IterationDone(iteration=iteration, sequences=rows, flags=[], began=over.began)


def step(line: socket.socket, *, crashes: bool) -> tuple[list[Generate], Over]:
    """Answer each sequence at once until the step is over; return what came."""
    words: list[Generate] = []
    for said in line.makefile("rb"):
        word = heard(said)
        if isinstance(word, Over):
            return words, word
        if isinstance(word, Generate):
            words.append(word)
            if crashes:
                os.kill(os.getpid(), signal.SIGKILL)
            line.sendall(written(Ended(id=word.id, token_ids=[1], logprobs=[-0.5], finish_reason="length")))
    raise ConnectionError("the router is gone")


if __name__ == "__main__":
    main()
