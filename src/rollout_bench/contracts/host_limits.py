"""Limits for disturbances of the host during a launch, judged from the readings in its record.

The launch judges itself during the measurement, and the summary judges whole blocks again.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rollout_bench.contracts.record import HostUse

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
"""Unit of the kernel's CPU times of cores and processes."""


@dataclass(frozen=True)
class Limit:
    """Limits for a share of the measured time.

    Args:
        code: of the flag.
        what: description of the share, as the end of a sentence.
        share: from the reading of one iteration; None if it was not read.
        warning: above this share the launch is flagged.
        invalid: above this share the launch is left out of comparisons, on platform cpu.
        alone: above this share of one launch its whole block is left out, whatever the others lost.
        in_ticks: whether it is counted in the kernel's ticks, with an error of one tick per core and iteration.
    """

    code: str
    what: str
    share: Callable[[HostUse], float | None]
    warning: float
    invalid: float
    alone: float
    in_ticks: bool = False


HOST_LIMITS = (
    # Time lost on the engine's cores slows a CPU engine in proportion. 2 % is the hypervisor's normal share on
    # a machine that is not oversold, and twice the smallest relevant difference; at 10 % the result is useless.
    Limit(
        code="cpu_steal",
        what="of its cores' time went to other virtual machines",
        share=lambda host: host.steal_share,
        warning=0.02,
        invalid=0.1,
        alone=0.2,
        in_ticks=True,
    ),
    # An idle system is below 5 %. At 25 % a CPU engine may be a third slower: more than quantizations gain.
    # A constant even share with another program costs half: 40 % in one launch is not an accident.
    Limit(
        code="cpu_shared",
        what="of its cores' time other processes used",
        share=lambda host: host.other_cpu_share,
        warning=0.05,
        invalid=0.25,
        alone=0.4,
        in_ticks=True,
    ),
    # A machine that waits for memory for 1 % of the time reclaims pages; at 10 % it thrashes.
    Limit(
        code="memory_pressure",
        what="of the time processes waited for memory",
        share=lambda host: host.memory_pressure_share,
        warning=0.01,
        invalid=0.1,
        alone=0.2,
    ),
)
"""Limits for shares of the time of all measured iterations together. On accelerators none makes a launch invalid: the
host's cores only feed the device, and the times themselves show the effect (`not_steady`).
"""


@dataclass(frozen=True)
class LostTime:
    """Lost share of the time for one limit, over several readings, weighted by their time.

    `certain` is `mean` minus the uncertainty of the kernel's ticks. `worst` is the largest share of one reading, and
    `busiest` the process with the highest use in it; empty if unknown.
    """

    mean: float
    certain: float
    worst: float
    busiest: str


def lost_time(limit: Limit, read: Sequence[HostUse]) -> LostTime | None:
    """Return the lost time for `limit`, over all of `read` together; None if no reading has it."""
    shares = [(share, host) for host in read if (share := limit.share(host)) is not None]
    time_s = math.fsum(host.window_s for _, host in shares)  # independent of the order of the readings
    if not time_s:
        return None
    mean = math.fsum(share * host.window_s for share, host in shares) / time_s
    uncertain = TICK_S * len(shares) / time_s if limit.in_ticks else 0.0
    worst, host = max(shares, key=lambda pair: pair[0])
    busiest = host.busiest_other if limit.code == "cpu_shared" else None
    return LostTime(mean, mean - uncertain, worst, busiest or "")
