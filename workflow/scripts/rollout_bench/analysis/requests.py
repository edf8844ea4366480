"""The requests of one launch as arrays, and what each of them says of latency. Pure functions on arrays.

All times are what the client saw, in seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rollout_bench.records.record import Record, SequenceRow

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2el_s", "ntpot_s")
"""What is known of each request that succeeded; of inter-token latencies a request has many."""


@dataclass(frozen=True)
class Requests:
    """The requests in the measured iterations of one launch, an array [n] for each field but the last two.

    Times are seconds after the request's iteration began, NaN where there is none. `gaps_s` [g] are the times from
    one piece of an answer to the next, of succeeded requests, `gap_of` [g] the position of the request each is of.
    """

    iteration: Indices
    due_s: Array
    sent_s: Array
    first_s: Array
    last_s: Array
    output_tokens: Indices
    failed: NDArray[np.bool_]
    gaps_s: Array
    gap_of: Indices

    @cached_property
    def ttft_s(self) -> Array:
        """Time to first token of each request, NaN where it failed or was not streamed."""
        return np.where(self.failed, np.nan, self.first_s - self.sent_s)

    @cached_property
    def e2el_s(self) -> Array:
        """End-to-end latency of each request, NaN where it failed."""
        return np.where(self.failed, np.nan, self.last_s - self.sent_s)

    @cached_property
    def tpot_s(self) -> Array:
        """Time per output token after the first, (E2EL - TTFT) / (n - 1); NaN for a single token."""
        steps = np.where(self.output_tokens > 1, self.output_tokens - 1, np.nan)
        return np.asarray((self.e2el_s - self.ttft_s) / steps)

    @cached_property
    def ntpot_s(self) -> Array:
        """Normalised time per output token, TTFT / n + TPOT; for a single token TTFT."""
        tokens = np.where(self.output_tokens > 0, self.output_tokens, np.nan)
        return np.asarray(self.ttft_s / tokens + np.where(self.output_tokens == 1, 0.0, self.tpot_s))

    @property
    def itl_s(self) -> Array:
        """Inter-token latencies [g], all of every request that succeeded: the gaps between pieces of an answer."""
        return self.gaps_s

    @cached_property
    def gap_end_s(self) -> Array:
        """When each gap ended [g], in seconds after its iteration began."""
        starts = np.flatnonzero(np.diff(self.gap_of, prepend=-1))  # gaps of one request stand together
        total = np.cumsum(self.gaps_s)
        before = np.repeat(np.concatenate([[0.0], total])[starts], np.diff([*starts, self.gaps_s.size]))
        return np.asarray(self.first_s[self.gap_of] + total - before)

    def known(self, measure: str) -> Array:
        """The values of one of `LATENCIES` that there are."""
        values: Array = getattr(self, measure)
        return np.asarray(values[np.isfinite(values)])

    def of_iterations(self, indices: Collection[int]) -> Requests:
        """Those in the iterations with these indices."""
        keep = np.isin(self.iteration, list(indices))
        position = np.cumsum(keep) - 1
        gaps = keep[self.gap_of]
        return Requests(
            iteration=self.iteration[keep],
            due_s=self.due_s[keep],
            sent_s=self.sent_s[keep],
            first_s=self.first_s[keep],
            last_s=self.last_s[keep],
            output_tokens=self.output_tokens[keep],
            failed=self.failed[keep],
            gaps_s=self.gaps_s[gaps],
            gap_of=position[self.gap_of[gaps]],
        )


def requests_of(record: Record, rows: Sequence[SequenceRow]) -> Requests:
    """The requests of `record` that count, from its side file's `rows`."""
    counted = {iteration.index for iteration in record.iterations if not iteration.warmup}
    rows = [row for row in rows if row.iteration in counted]
    gaps = [[] if row.failed else row.gaps_us or [] for row in rows]
    lengths = np.array([len(each) for each in gaps], dtype=np.int64)
    return Requests(
        iteration=np.array([row.iteration for row in rows], dtype=np.int64),
        due_s=np.array([row.due_s for row in rows], dtype=float),
        sent_s=np.array([row.sent_s for row in rows], dtype=float),
        first_s=np.array([row.first_token_s for row in rows], dtype=float),
        last_s=np.array([row.last_token_s for row in rows], dtype=float),
        output_tokens=np.array([row.output_tokens for row in rows], dtype=np.int64),
        failed=np.array([row.failed for row in rows], dtype=bool),
        gaps_s=np.concatenate([np.array(each, dtype=float) for each in gaps] or [np.empty(0)]) / 1e6,
        gap_of=np.repeat(np.arange(len(rows)), lengths) if rows else np.empty(0, dtype=np.int64),
    )
