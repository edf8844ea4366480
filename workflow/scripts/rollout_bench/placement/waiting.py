"""Who is in the way of a launch that wants devices. Pure functions on claims."""

from __future__ import annotations

from collections.abc import Sequence

from rollout_bench.placement.claims import Claim
from rollout_bench.placement.device import Device


def in_the_way(own: Claim, earlier: Sequence[Claim], later: Sequence[Claim]) -> list[Claim]:
    """Claims that have to go before `own` may take anything, free devices or not.

    Nobody overtakes: who waits longer for a device that would do is served first, or a launch that wants all devices
    would wait for ever behind those that want one. And nobody runs beside an exclusive launch.
    """
    waiting = [claim for claim in earlier if claim.holds is None]
    holding = [claim for claim in (*earlier, *later) if claim.holds is not None]
    return [
        *(claim for claim in holding if "exclusive" in (own.isolation, claim.isolation)),
        *(
            claim
            for claim in waiting
            if "exclusive" in (own.isolation, claim.isolation) or set(claim.wants) & set(own.wants)
        ),
    ]


def free(devices: Sequence[Device], claims: Sequence[Claim]) -> list[Device]:
    """Those of `devices` of which no claim holds a part."""
    held = {part for claim in claims for part in claim.holds or ()}
    return [device for device in devices if not held & set(device.parts)]


def told(claim: Claim, own: Claim) -> str:
    """`claim` in words: which launch, of which process, and what it holds."""
    named, more = (claim.holds or [])[:4], len((claim.holds or [])[4:])
    parts = ", ".join(named) + (f" and {more} more" if more else "")
    exclusively = " exclusively" if claim.isolation == "exclusive" else ""
    holds = "waits before it" if claim.holds is None else f"holds {parts or 'the node'}{exclusively}"
    return f"{name_of(claim, own)} {holds} (pid {claim.pid}, since {claim.since})"


def name_of(claim: Claim, own: Claim) -> str:
    """The launch of `claim`; marked where it is of another workflow than `own`."""
    return claim.name if claim.results == own.results else f"{claim.name} (another workflow)"
