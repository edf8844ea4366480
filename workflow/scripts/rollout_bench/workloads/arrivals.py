"""When requests are due: gaps between them gamma-distributed, or even."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate
from typing import Literal

from rollout_bench.workloads.lengths import STANDARD
from rollout_bench.workloads.numbers import stream

Burstiness = float | Literal["constant"]


def arrivals(rate: float, burstiness: Burstiness, count: int, label: str) -> list[float]:
    """Due times of `count` requests at `rate` per second: the first at 0, the last at (count - 1) / rate.

    Gaps are drawn from the gamma distribution with shape `burstiness` (1: exponential, a Poisson process; its
    coefficient of variation is burstiness^-1/2), as `vllm bench serve` and others define it, and then scaled to that
    sum, which vLLM does too. For a Poisson process this is exactly how arrivals lie once their number within a time
    is given. Without it a pass of 32 requests would offer 18 % more or less than the rate that its table names.
    vLLM has a gap before the first request as well and ends at count / rate.

    Args:
        rate: requests per second.
        burstiness: shape of the gaps' distribution, or `constant` for even gaps.
        count: number of requests.
        label: what the draws depend on: seed, launch and iteration. The rate is not in it, and only scales the
            pattern.
    """
    if count < 2:
        return [0.0] * count
    if burstiness == "constant":
        return [number / rate for number in range(count)]
    uniform = stream(f"{label}/arrivals")  # the label alone is that of prompts
    logs = [_log_gamma_draw(float(burstiness), uniform) for _ in range(count - 1)]
    largest = max(logs)  # of shapes far below 1 almost all gaps are too short for a double, the largest too
    gaps = [math.exp(value - largest) for value in logs]
    scale = (count - 1) / rate / math.fsum(gaps)
    return [0.0, *(scale * due for due in accumulate(gaps))]


def _log_gamma_draw(shape: float, uniform: Iterator[float]) -> float:
    """The logarithm of a gamma-distributed number of scale 1.

    G. Marsaglia and W. W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26 (2000) 363-372: exact,
    with at least 95 % of the draws accepted whatever the shape. Written out here since scipy, whose inverse would do,
    is not installed with vLLM, and since numpy and `random` don't promise the same draws in their next version.
    """
    boost = 0.0
    if shape < 1:  # gamma(shape) is gamma(shape + 1) times a uniform number to the power of 1 / shape
        boost = math.log(next(uniform)) / shape
        shape += 1
    d = shape - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        x = STANDARD.inv_cdf(next(uniform))
        v = (1 + c * x) ** 3
        if v > 0 and math.log(next(uniform)) < x * x / 2 + d - d * v + d * math.log(v):
            return math.log(d) + math.log(v) + boost
