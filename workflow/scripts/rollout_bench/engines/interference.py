"""Doubts about a launch that others caused: the host's other work, the devices' clocks and other users."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rollout_bench.engines.host import TICK_S
from rollout_bench.plan.spec import Platform
from rollout_bench.records.placement import Placement
from rollout_bench.records.record import DeviceUse, Flag, HostUse, Iteration


@dataclass(frozen=True)
class Limit:
    """From where on a share of the measured time is a doubt.

    Args:
        code: of the flag.
        what: what has the share, as the end of a sentence.
        share: from the reading of one iteration; None where it was not read.
        warning: above this share the launch is marked.
        invalid: above this share it takes no part in comparisons, where the platform is cpu; None: it always does.
        in_ticks: counted in the kernel's ticks, and so no more exact than one tick a core and iteration.
    """

    code: str
    what: str
    share: Callable[[HostUse], float | None]
    warning: float
    invalid: float | None
    in_ticks: bool = False


HOST_LIMITS = (
    # Time that is taken from the engine's cores slows a CPU engine in proportion. 2 % is what the hypervisor takes on
    # a machine that is not oversold, and twice the least relevant difference; with 10 % the number is the neighbours'.
    Limit("cpu_steal", "of its cores' time went to other virtual machines", lambda h: h.steal_share, 0.02, 0.1, True),
    # Below 5 % is what an idle system does. At 25 % a CPU engine may be a third slower: more than quantizations gain.
    Limit("cpu_shared", "of its cores' time other processes used", lambda h: h.other_cpu_share, 0.05, 0.25, True),
    # Who waits for memory for 1 % of the time reclaims pages; at 10 % the machine thrashes.
    Limit("memory_pressure", "of the time processes waited for memory", lambda h: h.memory_pressure_share, 0.01, 0.1),
)
"""Limits for shares of the time of all measured iterations together. On accelerators none makes a launch invalid: the
host's cores only feed the device, and the effect shows in the times themselves (`not_steady`, `outlier_launch`)."""

SWAP_BYTES = 1 << 20
"""Swapped bytes that are a doubt: some pages are always moved; a megabyte a launch is more than that."""

THERMAL_SHARE = 0.01
"""Share of the time with a clock lowered by heat that is a doubt: a cooled device has none."""

POWER_SHARE = 0.1
"""Share of the time with a clock lowered to keep to the power limit that is a doubt."""

DEVICE_MEMORY_BYTES = 1 << 28
"""Memory of the device held by others that is a doubt: an empty context of a monitor holds less."""


def host_flags(platform: Platform, iterations: Sequence[Iteration]) -> list[Flag]:
    """Doubts from the host's readings around the measured ones of `iterations`."""
    return doubts_about_host(platform, [it.host for it in iterations if it.host is not None and not it.warmup])


def doubts_about_host(platform: Platform, read: Sequence[HostUse]) -> list[Flag]:
    """Doubts from readings of the host."""
    flags = [flag for limit in HOST_LIMITS if (flag := _judge(limit, platform, read)) is not None]
    if (swapped := sum(host.swap_bytes or 0 for host in read)) > SWAP_BYTES:
        sentence = f"{swapped / 2**20:.1f} MiB were swapped in or out during the measured iterations (limit 1 MiB)."
        flags.append(Flag(code="swapping", severity="warning", sentence=sentence))
    return flags


def device_flags(iterations: Sequence[Iteration]) -> list[Flag]:
    """Doubts from the devices' readings around the measured ones of `iterations`."""
    return doubts_about_devices(
        [(it.index, use) for it in iterations if it.devices and not it.warmup for use in it.devices]
    )


def neighbour_flags(placement: Placement | None) -> list[Flag]:
    """A doubt where other launches ran on the same node, though on devices of their own."""
    if placement is None or not placement.neighbours:
        return []
    named = placement.neighbours[:3]
    more = len(placement.neighbours) - len(named)
    sentence = (
        f"Other launches ran on {placement.node} meanwhile: {', '.join(named)}{f' and {more} more' if more else ''}; "
        "each has devices of its own, but memory of the host, its buses and power are shared."
    )
    return [Flag(code="shared_node", severity="warning", sentence=sentence)]


def lease_flags(file: Path, number: int) -> list[Flag]:
    """A flag where the lease's `file` was gone when pass `number` was over: nobody knows who else had the devices."""
    sentence = (
        f"Somebody removed the lease, {file}, before pass {number} was over; so another launch could take the devices, "
        "and nobody could have told."
    )
    return [Flag(code="lease_lost", severity="invalid", sentence=sentence)]


def pause_flags(held_up: Mapping[int, Sequence[str]]) -> list[Flag]:
    """A flag where passes, by their numbers, were held up from outside: their times are those of the pause."""
    if not held_up:
        return []
    sentence = " ".join(f"During pass {number} {', and '.join(what)}." for number, what in held_up.items())
    return [Flag(code="paused", severity="invalid", sentence=sentence)]


def doubts_about_devices(read: Sequence[tuple[int, DeviceUse]]) -> list[Flag]:
    """Doubts from readings of devices, each with the index of its iteration."""
    if not read:
        return []
    flags = [
        *_throttled(read, "heat", lambda use: use.thermal_share or 0.0, THERMAL_SHARE),
        *_throttled(read, "its power limit", lambda use: use.power_share or 0.0, POWER_SHARE),
    ]
    index, use = max(read, key=lambda pair: pair[1].other_memory_bytes or 0)
    if (held := use.other_memory_bytes or 0) > DEVICE_MEMORY_BYTES:
        sentence = f"Iteration {index}: {use.other_processes} others held {held / 2**30:.1f} GiB of {use.device}."
        flags.append(Flag(code="device_shared", severity="warning", sentence=sentence))
    return flags


def _throttled(
    read: Sequence[tuple[int, DeviceUse]], cause: str, share: Callable[[DeviceUse], float], limit: float
) -> list[Flag]:
    index, use = max(read, key=lambda pair: share(pair[1]))
    if share(use) <= limit:
        return []
    sentence = (
        f"Iteration {index}: the clock of {use.device} was lowered by {cause} for {100 * share(use):.0f} % of the time "
        f"(limit {100 * limit:.0f} %; {use.temperature_c} C, limit {use.power_limit_w} W of "
        f"{use.power_limit_default_w} W)."
    )
    return [Flag(code="throttled", severity="warning", sentence=sentence)]


def _judge(limit: Limit, platform: Platform, read: Sequence[HostUse]) -> Flag | None:
    shares = [(share, host) for host in read if (share := limit.share(host)) is not None]
    time_s = sum(host.window_s for _, host in shares)
    if not time_s:
        return None
    mean = sum(share * host.window_s for share, host in shares) / time_s
    uncertain = TICK_S * len(shares) / time_s if limit.in_ticks else 0.0
    if mean - uncertain <= limit.warning:
        return None
    invalid = platform == "cpu" and limit.invalid is not None and mean - uncertain > limit.invalid
    allowed = limit.invalid if invalid and limit.invalid is not None else limit.warning
    worst, host = max(shares, key=lambda pair: pair[0])
    who = f", most of it {host.busiest_other}" if limit.code == "cpu_shared" and host.busiest_other else ""
    sentence = (
        f"During the measured iterations {100 * mean:.1f} % {limit.what}{who}; {100 * worst:.1f} % in the worst of "
        f"them (limit {100 * allowed:.0f} %)."
    )
    return Flag(code=limit.code, severity="invalid" if invalid else "warning", sentence=sentence)
