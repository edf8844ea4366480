"""From where on what a host did besides a launch is a doubt about it, judged from the readings in its record.

The launch judges itself by them while it is measured, and the summary judges whole blocks anew.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rollout_bench.contracts.record import HostUse

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
"""Unit in which the kernel counts the time of cores and processes."""


@dataclass(frozen=True)
class Limit:
    """From where on a share of the measured time is a doubt.

    Args:
        code: of the flag.
        what: what has the share, as the end of a sentence.
        share: from the reading of one iteration; None where it was not read.
        warning: above this share the launch is marked.
        invalid: above this share it takes no part in comparisons, where the platform is cpu.
        alone: above this share of one launch its whole block takes no part, however little the others lost.
        in_ticks: counted in the kernel's ticks, and so no more exact than one tick a core and iteration.
    """

    code: str
    what: str
    share: Callable[[HostUse], float | None]
    warning: float
    invalid: float
    alone: float
    in_ticks: bool = False


HOST_LIMITS = (
    # Time that is taken from the engine's cores slows a CPU engine in proportion. 2 % is what the hypervisor takes on
    # a machine that is not oversold, and twice the least relevant difference; with 10 % the number is the neighbours'.
    Limit(
        code="cpu_steal",
        what="of its cores' time went to other virtual machines",
        share=lambda host: host.steal_share,
        warning=0.02,
        invalid=0.1,
        alone=0.2,
        in_ticks=True,
    ),
    # Below 5 % is what an idle system does. At 25 % a CPU engine may be a third slower: more than quantizations gain.
    # Who shares its cores evenly with one other program all the time loses half: 40 % in one launch is no chance.
    Limit(
        code="cpu_shared",
        what="of its cores' time other processes used",
        share=lambda host: host.other_cpu_share,
        warning=0.05,
        invalid=0.25,
        alone=0.4,
        in_ticks=True,
    ),
    # Who waits for memory for 1 % of the time reclaims pages; at 10 % the machine thrashes.
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
host's cores only feed the device, and the effect shows in the times themselves (`not_steady`)."""


@dataclass(frozen=True)
class LostTime:
    """The share of the time that a limit is for, over several readings: weighted by their time.

    `certain` is `mean` less what the kernel's ticks leave open; `worst` is the largest share of one reading, and
    `busiest` the process that used most there, empty where nobody knows.
    """

    mean: float
    certain: float
    worst: float
    busiest: str


def lost_time(limit: Limit, read: Sequence[HostUse]) -> LostTime | None:
    """Return what `limit` is for, over all of `read` together; None where none of them has it."""
    shares = [(share, host) for host in read if (share := limit.share(host)) is not None]
    time_s = math.fsum(host.window_s for _, host in shares)  # whose digits no order of the readings changes
    if not time_s:
        return None
    mean = math.fsum(share * host.window_s for share, host in shares) / time_s
    uncertain = TICK_S * len(shares) / time_s if limit.in_ticks else 0.0
    worst, host = max(shares, key=lambda pair: pair[0])
    busiest = host.busiest_other if limit.code == "cpu_shared" else None
    return LostTime(mean, mean - uncertain, worst, busiest or "")
