"""Waiting for devices and taking them: one after the other, in the order in which launches came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rollout_bench.placement.choice import choose
from rollout_bench.placement.claims import Claim, Claims, Found, Own, Pause
from rollout_bench.placement.device import Device
from rollout_bench.placement.links import Links
from rollout_bench.placement.waiting import free, in_the_way, told

PAUSE_S = (0.02, 0.5)
"""Shortest and longest time between two looks at whether the devices are free."""

UNREADABLE = Claim(
    name="a launch of another version", results="", pid=0, since="", isolation="exclusive", wants=[], holds=[]
)
"""Stands for a living claim that can't be read: nobody can say what it holds."""

Say = Callable[[str], None]

Shape = tuple[int, int, Links]
"""Groups, devices of each, and how devices are linked."""


@dataclass(frozen=True)
class Taken:
    """Devices that are held by `own`; `left_over`: a launch that was killed held one of them before."""

    own: Own
    groups: list[list[Device]]
    left_over: bool


@contextmanager
def taken(
    claims: Claims, claim: Claim, devices: Sequence[Device], shape: Shape, pause: Pause, say: Say
) -> Iterator[Taken]:
    """Waits for the devices of `shape` among `devices`, the wanted one first, and holds them while the context lasts.

    Args:
        claims: those of the node.
        claim: what is wanted, entered here.
        devices: those that would do.
        shape: how many of them are wanted.
        pause: waits so many seconds; raises what is to end the waiting.
        say: is told once who is in the way.
    """
    with claims.alone(pause):
        own = claims.enter(claim)
    try:
        yield _take(claims, own, claim, devices, shape, pause, say)
    finally:
        own.give_back()


def _take(
    claims: Claims, own: Own, claim: Claim, devices: Sequence[Device], shape: Shape, pause: Pause, say: Say
) -> Taken:
    nap_s, longest_s = PAUSE_S
    waiting = False
    while True:
        with claims.alone(pause):
            found = [f for f in claims.found() if f.path != own.path]
            alive = [(f.path, f.claim or UNREADABLE) for f in found if f.alive]
            earlier = [c for path, c in alive if path < own.path]
            later = [c for path, c in alive if path > own.path]
            obstacles = in_the_way(claim, earlier, later)
            groups = None if obstacles else choose(free(devices, [*earlier, *later]), *shape, *devices[:1])
            if groups is not None:
                parts = [part for group in groups for device in group for part in device.parts]
                own.write(claim.model_copy(update={"holds": parts}))
                return Taken(own, groups, _clear_away([f for f in found if not f.alive], parts))
        if not waiting:
            waiting = True
            holders = obstacles or [c for c in (*earlier, *later) if set(c.holds or ()) & set(claim.wants)]
            more = f", and {len(holders) - 1} more" if len(holders) > 1 else ""
            say(f"waiting for devices: {told(holders[0], claim)}{more}" if holders else "waiting for devices")
        pause(nap_s)
        nap_s = min(2 * nap_s, longest_s)


def _clear_away(dead: Sequence[Found], taken: Sequence[str]) -> bool:
    """Removes what launches left that were killed, if they only waited or held some of `taken`; True if they held."""
    held = False
    for found in dead:
        holds = found.claim.holds if found.claim is not None else None
        if not holds or set(holds) & set(taken):
            found.path.unlink(missing_ok=True)
            held = held or bool(holds)
    return held
