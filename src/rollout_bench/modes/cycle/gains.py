"""Sequence lengths at which a quantization pays, with the weight sync counted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rollout_bench.analysis.stats.lines import Range, crossing
from rollout_bench.analysis.timed.comparison import FOUND, MIN_PAIRS, Comparison
from rollout_bench.analysis.timed.rows import Row


@dataclass(frozen=True)
class TokenRange:
    """Output tokens of a sequence, from `first` to `last`; `last` is None if the range has no upper end."""

    first: int
    last: int | None


@dataclass(frozen=True)
class NetGain:
    """Sequence lengths at which a whole step, weight sync included, is shorter or longer than the baseline's.

    At most one of `pays` and `loses` is set: the range that holds the measured length.

    Attributes:
        pays: lengths at which the step is shorter; None unless this is shown at the measured length.
        loses: lengths at which the step is longer; None unless this is shown at the measured length.
        at: estimated length, in output tokens of a sequence, at which both steps last equally long; None if there is
            no such length.
    """

    pays: TokenRange | None
    loses: TokenRange | None
    at: float | None

    @property
    def found(self) -> TokenRange | None:
        """The range that was found: `pays` or `loses`."""
        return self.pays or self.loses


def net_gain(own: Row, other: Row, comparison: Comparison, confidence: float) -> NetGain | None:
    """Return the lengths at which a step of `own` is shorter or longer than a step of `other`.

    The model: a step with sequences of L output tokens lasts c + L g seconds. c is the transition. g is the measured
    generation time divided by the output tokens of a sequence. Both steps last equally long at
    L = (c_own - c_other) / (g_other - g_own). Each pair of launches in `comparison` gives a line, c_own - c_other +
    L (g_own - g_other). `lines.crossing` returns the L at which the mean of these lines is below or above zero.

    Only the range that holds the measured length is returned. The true difference is a line, so the range is wrong in
    two cases only: the t test has the wrong sign at the measured length, or it has the measured length's sign at the
    true crossing. Each case is an error in one direction, so their chance together is at most 1 - `confidence`. Other
    ranges have no such guarantee: two lines always cross somewhere, and near that point their spread is almost zero.
    Both ranges are None if `comparison` found no difference. Return None for fewer than `MIN_PAIRS` pairs.
    """
    sides = [{launch.launch: launch.values for launch in side.used} for side in (own, other)]
    both = [(sides[0][n], sides[1][n]) for n in sorted(comparison.pairs) if all(n in side for side in sides)]
    if len(both) < MIN_PAIRS:
        return None
    crossings = crossing(
        [mine["cycle_s"] - theirs["cycle_s"] for mine, theirs in both],
        [_token_s(mine) - _token_s(theirs) for mine, theirs in both],
        confidence,
    )
    measured = own.values["sequence_tokens"] if comparison.verdict in FOUND else math.nan
    return NetGain(pays=_whole(crossings.below, measured), loses=_whole(crossings.above, measured), at=crossings.at)


def _token_s(values: Mapping[str, float]) -> float:
    """Return the generation time per output token of a sequence."""
    return values["step_time_s"] / values["sequence_tokens"]


def _whole(lengths: Range | None, measured: float) -> TokenRange | None:
    """Return the whole tokens (at least 1) of `lengths` if that range holds `measured`; else None."""
    if lengths is None or not lengths[0] < measured < lengths[1]:
        return None
    first = max(1, math.ceil(lengths[0]))
    last = math.floor(lengths[1]) if math.isfinite(lengths[1]) else None
    return None if last is not None and last < first else TokenRange(first, last)
