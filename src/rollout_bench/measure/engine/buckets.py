"""Buckets of weights, which a trainer hands over one after the other."""

from collections.abc import Sequence

BUCKET_BYTES = 2_048_000_000
"""Largest number of bytes of weights in one transfer, as in verl's bucket."""


def buckets(sizes: Sequence[tuple[str, int]], most_bytes: int) -> list[range]:
    """Return the indices of tensors that travel together.

    Args:
        sizes: data type and bytes of each tensor.
        most_bytes: size limit of a bucket. A larger tensor is a separate bucket; all tensors of a bucket have the same
            data type.
    """
    full, first, held = [], 0, 0
    for number, (dtype, size) in enumerate(sizes):
        if number > first and (held + size > most_bytes or dtype != sizes[first][0]):
            full.append(range(first, number))
            first, held = number, 0
        held += size
    return [*full, range(first, len(sizes))] if sizes else []
