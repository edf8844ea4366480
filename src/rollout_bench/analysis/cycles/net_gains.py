"""From how many output tokens of a sequence on a quantization pays, its transitions counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rollout_bench.analysis.cycles.step_costs import StepCosts
from rollout_bench.analysis.stats.lines import Range, crossing
from rollout_bench.analysis.timed.comparison import FOUND, MIN_PAIRS, Comparison


@dataclass(frozen=True)
class TokenRange:
    """Output tokens of a sequence, from `first` to `last`; None where there is no last."""

    first: int
    last: int | None


@dataclass(frozen=True)
class NetGain:
    """At which lengths a whole step is shorter than the baseline's, its transition counted.

    The measured length is one of them: there is one answer, or none.

    Attributes:
        pays: where it is shorter; None where that is not shown of the measured length.
        loses: where it is longer; None where that is not shown of it.
        at: the estimate of the length, in output tokens of a sequence, at which both sides take as long; None where
            that is at none.
    """

    pays: TokenRange | None
    loses: TokenRange | None
    at: float | None

    @property
    def found(self) -> TokenRange | None:
        """Where there is an answer, whichever it is."""
        return self.pays or self.loses


def net_gain(own: StepCosts, other: StepCosts, comparison: Comparison, confidence: float) -> NetGain | None:
    """Return at which lengths a step of `own` is shorter than one of `other`; None where too few launches tell.

    A step whose sequences have L output tokens is taken to last c + L g seconds: c is the transition, and g the
    generation divided by the output tokens of a sequence, as measured. So both sides take as long at
    L = (c_own - c_other) / (g_other - g_own). Each pair of launches in `comparison` gives a line, c_own - c_other +
    L (g_own - g_other), and `lines.crossing` says at which L the mean of these is below or above zero.

    Only the stretch that holds the measured length is an answer. The true difference is a line, so this answer is wrong
    only where the t test at the measured length has the wrong sign, or where that at the true crossing has the sign of
    the measured length: each in one direction, so with a chance of at most 1 - `confidence` together. That does not
    hold of every stretch that a search over lengths finds: two pairs give two lines, which cross somewhere, and around
    there their spread is next to nothing. Nor is there an answer where `comparison` found no difference.
    """
    sides = [{each.launch: each for each in side.launches} for side in (own, other)]
    both = [(sides[0][n], sides[1][n]) for n in sorted(comparison.pairs) if all(n in side for side in sides)]
    if len(both) < MIN_PAIRS:
        return None
    found = crossing(
        [mine.transition_s - theirs.transition_s for mine, theirs in both],
        [mine.token_s - theirs.token_s for mine, theirs in both],
        confidence,
    )
    measured = own.output_tokens if comparison.verdict in FOUND else math.nan
    return NetGain(pays=_whole(found.below, measured), loses=_whole(found.above, measured), at=found.at)


def _whole(lengths: Range | None, measured: float) -> TokenRange | None:
    """Return the whole tokens in a range that holds `measured`, of which a sequence has at least one; else None."""
    if lengths is None or not lengths[0] < measured < lengths[1]:
        return None
    first = max(1, math.ceil(lengths[0]))
    last = math.floor(lengths[1]) if math.isfinite(lengths[1]) else None
    return None if last is not None and last < first else TokenRange(first, last)
