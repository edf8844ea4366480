"""Whether the weights that an engine has are those that its trainer has, by the checksums of both. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rollout_bench.contracts.cycles import Agreement

Checksums = Sequence[tuple[str, str]]
"""Name and checksum of each tensor, in their order."""


def agreement(trainers: Checksums, received: Checksums, loaded: Mapping[str, Sequence[str]]) -> Agreement:
    """Return what of an engine's weights is as the trainer has it.

    Args:
        trainers: what the trainer has.
        received: what the engine was handed; buckets may end anywhere.
        loaded: name -> checksums of a tensor, wherever the engine has it now.
    """
    handed = dict(received)
    lost = [name for name, checksum in trainers if handed.get(name) != checksum]
    found = [(name, checksum) for name, checksum in trainers if name in loaded]
    wrong = [name for name, checksum in found if any(own != checksum for own in loaded[name])]
    return Agreement(
        tensors=len(trainers),
        not_received=len(lost),
        found=len(found),
        not_loaded=len(wrong),
        first=next((name for name, _ in trainers if name in {*lost, *wrong}), None),
    )
