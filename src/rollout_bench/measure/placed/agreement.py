"""Whether the weights that an engine has are those that its trainer has, by the checksums of both. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rollout_bench.contracts.cycles import Agreement

Checksums = Sequence[tuple[str, str]]
"""Name and checksum of each tensor, in their order."""

Shares = Sequence[tuple[str, Sequence[str]]]
"""Name of each tensor, and checksums: of all of it, and of what else a rank may have of it."""


def agreement(trainers: Shares, received: Checksums, loaded: Mapping[str, Sequence[str]]) -> Agreement:
    """Return what of an engine's weights is as the trainer has it.

    Args:
        trainers: what the trainer has, and the rank's shares of it.
        received: what the engine was handed; buckets may end anywhere.
        loaded: name -> checksums of a tensor, wherever the engine has it now.
    """
    handed = dict(received)
    lost = [name for name, (whole, *_) in trainers if handed.get(name) != whole]
    found = [(name, shares) for name, shares in trainers if name in loaded]
    wrong = [name for name, shares in found if any(own not in shares for own in loaded[name])]
    return Agreement(
        tensors=len(trainers),
        not_received=len(lost),
        found=len(found),
        not_loaded=len(wrong),
        first=next((name for name, _ in trainers if name in {*lost, *wrong}), None),
    )
