#!/usr/bin/env python3
"""Time what sampling a GPU's power costs the work on it, in rounds with and without, in random order.

A process of its own multiplies small matrices and waits for each product, as a decode step waits for its tokens, so
that anything that holds up the driver shows. Meanwhile this one samples power as a launch's supervisor does, or not.
Needs torch and pynvml, which come with vLLM for CUDA: PYTHONPATH=src python benchmarks/power_sampling.py
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import subprocess
import sys
import time

from rollout_bench.measure.machine.gpus import Devices
from rollout_bench.measure.machine.power_samples import PowerSampler

WARM_UP = 2
"""Rounds that count for nothing."""

SEED = 0


def main() -> None:
    """Run the rounds and print the ratio of their times, with its interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="pairs of rounds (default: 20)")
    parser.add_argument("--products", type=int, default=10_000, help="products in a round (default: 10000)")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.products)
        return
    devices = Devices(1, os.environ)
    if not devices.watts():
        sys.exit("no GPU tells its power\n  -> run it where nvidia-smi shows a GPU, with pynvml installed")
    command = [sys.executable, __file__, "--work", "--products", str(arguments.products)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        for _ in range(WARM_UP):
            timed(worker)
        draw, ratios, taken = random.Random(SEED), [], 0
        for _ in range(arguments.rounds):
            found: dict[bool, float] = {}
            for sampled in draw.sample([True, False], 2):
                sampler = PowerSampler(devices.watts, devices.sample_s)
                if sampled:
                    sampler.begin()
                found[sampled] = timed(worker)
                taken += sum(len(each.samples) for each in sampler.end().values()) if sampled else 0
            ratios.append(math.log(found[True] / found[False]))
        worker.communicate("")
    mean, error = statistics.fmean(ratios), statistics.stdev(ratios) / math.sqrt(len(ratios))
    # the normal quantile: twenty pairs and more
    low, high = (math.exp(mean + side * 1.96 * error) for side in (-1, 1))
    print(
        f"With power sampled {taken / len(ratios):.0f} times a round, a round of {found[False]:.2f} s takes "
        f"{math.exp(mean):.4f}x [{low:.4f}, {high:.4f}] as long as without ({len(ratios)} pairs)."
    )


def timed(worker: subprocess.Popen[str]) -> float:
    """Have `worker` do a round; return the seconds that it took by its own clock."""
    assert worker.stdin, "a pipe"
    assert worker.stdout, "a pipe, too"
    worker.stdin.write("round\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        sys.exit("the process that multiplies ended\n  -> its own words stand above; it needs torch for CUDA")
    return float(line)


def work(products: int) -> None:
    """Multiply at each line of standard input, and answer with how long it took, in seconds."""
    import torch

    left = torch.rand(256, 256, device="cuda")
    right = torch.rand(256, 256, device="cuda")
    for _ in sys.stdin:
        began = time.perf_counter()
        for _ in range(products):
            torch.mm(left, right)
            torch.cuda.synchronize()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
