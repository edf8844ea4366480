"""Whether the launches of a pair ran in the same place: one node, one device, and both alone or both beside others.

Where they did not, what differs between the places is part of their ratio. That is chance where places were dealt out
by chance, as a rule, and then the spread of the pairs has it; so such pairs are compared, and marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rollout_bench.analysis.experiments import Experiment
from rollout_bench.analysis.launches import LaunchMeasures
from rollout_bench.records.placement import Placement
from rollout_bench.records.record import Flag


def marked_elsewhere(
    launches: Sequence[LaunchMeasures], experiment: Experiment, other: Experiment
) -> tuple[LaunchMeasures, ...]:
    """`launches` of `experiment`, those marked that ran in another place than their partner in `other`.

    Launches of which a record does not say where it ran are not marked.
    """
    if experiment.platform != other.platform:
        return tuple(launches)  # that they ran in different places is what is compared
    own, theirs = ({record.launch: record.placement for record in side.records} for side in (experiment, other))
    found = []
    for launch in launches:
        here, there = own.get(launch.launch), theirs.get(launch.launch)
        flags = place_flags(here, there) if here is not None and there is not None else []
        found.append(replace(launch, flags=(*launch.flags, *flags)) if flags else launch)
    return tuple(found)


def place_flags(own: Placement, other: Placement) -> list[Flag]:
    """Doubts about a pair from where its launches ran: `own`, and its partner in the baseline."""
    flags = []
    if own.node != other.node:
        sentence = f"It ran on {own.node}, its partner in the baseline on {other.node}: nodes may differ in speed."
        flags.append(Flag(code="other_node", severity="warning", sentence=sentence))
    elif _differ(own, other):
        own_devices, others = ", ".join(own.devices), ", ".join(other.devices)
        sentence = f"It ran on {own_devices}, its partner in the baseline on {others}: devices may differ in speed."
        flags.append(Flag(code="other_device", severity="warning", sentence=sentence))
    if bool(own.neighbours) != bool(other.neighbours):
        alone, beside = ("its partner in the baseline", "It") if own.neighbours else ("it", "Its partner")
        sentence = (
            f"{beside} ran beside other launches of the node, {alone} alone: what they took is part of the ratio."
        )
        flags.append(Flag(code="other_neighbours", severity="warning", sentence=sentence))
    return flags


def _differ(own: Placement, other: Placement) -> bool:
    """Whether the devices differ; of another number than the partner's, which both asked for, they tell nothing."""
    known = own.devices and other.devices
    return bool(known) and len(own.devices) == len(other.devices) and set(own.devices) != set(other.devices)
