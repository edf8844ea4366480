"""Compares an engine's weights with its trainer's weights, by their checksums. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rollout_bench.contracts.cycles import Agreement

Checksums = Sequence[tuple[str, str]]
"""Name and checksum of each tensor, in order."""

Shares = Sequence[tuple[str, Sequence[str]]]
"""Name of each tensor, with checksums of the whole tensor and of the shares that a rank may hold."""


def agreement(trainers: Shares, received: Checksums, loaded: Mapping[str, Sequence[str]]) -> Agreement:
    """Return how far an engine's weights agree with the trainer's weights.

    Args:
        trainers: the trainer's tensors, and the rank's possible shares.
        received: the tensors that the engine received.
        loaded: name -> checksums of a tensor, for each place where the engine holds it now.
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
