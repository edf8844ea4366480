"""What docs/validation.md says about simulated coverage, lengths at which a quantization pays, and single runs."""

from __future__ import annotations

from collections.abc import Sequence

from cycle_claims import NOWHERE, CycleClaims
from interval_coverage import Coverage
from kept import Share
from markdown_parts import percent, table
from predecessor import FirstPass, Predecessor


def coverage(result: Coverage) -> str:
    """Return a row for each noise, a column for each number of pairs; then plainly where too little is covered."""
    noises = list(dict.fromkeys(cell.noise for cell in result.cells))
    counts = sorted({cell.pairs for cell in result.cells})
    cells = {(cell.noise, cell.pairs): cell.covered for cell in result.cells}
    rows = [[noise, *(_cell(cells[noise, pairs]) for pairs in counts)] for noise in noises]
    short = []
    for noise in noises:
        least = min((cells[noise, pairs] for pairs in counts), key=lambda share: share.value)
        below = [pairs for pairs in counts if cells[noise, pairs].interval[1] < result.confidence]
        if below:
            lacking = 100 * (result.confidence - least.value)
            short.append(
                f"- {noise}: {_ranges(below)} pairs; at worst {least}, {lacking:.1f} percentage points too few"
            )
    listed = "\n".join(short) or "- none"
    apart = [["covered", *(_cell(cell.covered) for cell in result.apart)]]
    return f"""\
{table(["noise, pairs:", *counts], rows)}

Each cell: {result.repetitions:,} simulated comparisons with a true ratio of {result.truth:g}, seed {result.seed}; in
brackets the 95 % interval of the share.

Surely covered less often than {percent(result.confidence, 0)}:

{listed}

Sides that did not take turns, normal noise, as many launches of each (Welch's interval):

{table(["launches:", *(cell.pairs for cell in result.apart)], apart)}

Where launches of one side depend on each other from pair to pair, or one side alone is skewed, more launches do not
help. A drift of the machine does no harm, since launches take turns in a random order. From 3 to 12 pairs nobody can
see which noise they have.

Not shown: noise of kinds that are not in the table."""


def cycle_claims(result: CycleClaims) -> str:
    """Return a row for each kind of table."""
    rows = [
        [one.truth, one.others, one.launches, *(_points(s) for s in (one.false, one.false_by_search, one.right))]
        for one in result.claims
    ]
    above = [one for one in result.claims if one.false.interval[0] > 1 - result.confidence]
    generation, transition = (percent(spread, 0) for spread in result.spreads)
    return f"""\
{table(["truth", "compared", "launches", "false, %", "false if all lengths were searched, %", "right, %"], rows)}

{result.tables:,} simulated tables in each row, seed {result.seed}; {result.measured} output tokens a sequence,
generation spreads by {generation} from launch to launch and the transition by {transition}, normal noise.
{"Significantly ABOVE the promise for some." if above else "None is significantly above the promise."}

- *False*: the table names a length at which the opposite is true, or any length where {NOWHERE}.
- *False if all lengths were searched*: the same of all lengths at which a t test finds a difference, each
  comparison by itself, which is what earlier versions named.
- *Right*: it names lengths, and all of them rightly. The rest names none.

The summary names lengths only where there is also a verdict on the whole step; here every comparison counts.

Not shown: generation that takes no time in proportion to the tokens. That is an assumption, not a finding."""


def _points(share: Share) -> str:
    return f"{100 * share.value:.1f}"


def _cell(share: Share) -> str:
    low, high = share.interval
    return f"{100 * share.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _ranges(numbers: Sequence[int]) -> str:
    """`3 to 12`, or `4, 9` where some between are missing."""
    whole = list(range(numbers[0], numbers[-1] + 1)) == list(numbers) and len(numbers) > 2
    return f"{numbers[0]} to {numbers[-1]}" if whole else ", ".join(map(str, numbers))


def predecessor(result: Predecessor) -> str:
    """Return what single runs can claim, and what a first pass shows."""
    rows = [
        [
            one.name,
            f"{percent(one.sd, 2)} [{percent(one.sd_low, 2)}, {percent(one.sd_high, 2)}]",
            one.freedom,
            f"{one.claimable:.3f}x [{one.claimable_low:.3f}, {one.claimable_high:.3f}]",
        ]
        for one in result.sources
    ]
    header = ["spread from", "launch to launch", "degrees of freedom", "least ratio of single runs"]
    return f"""\
{table(header, rows)}

- Least ratio of single runs: by how much two runs, one a side, must differ to be 95 % sure of any difference, were the
  spread known: exp(1.96 √2 spread). In brackets, for the ends of the spread's own interval.
- Few degrees of freedom make the spread itself uncertain. A single run has none: nothing shows what its claim rests on.

{_first_passes(result.first_passes)}

Not shown: the spread on the NPUs that the predecessor ran on, since nothing was measured there. So this does not say
that its speed-ups were wrong; it says what a single run does not show."""


def _first_passes(passes: Sequence[FirstPass]) -> str:
    if not passes:
        return "No first passes were found in [platforms](platforms.md)."
    base = passes[0]
    rows = [
        [
            one.quant,
            f"{one.first:,.0f}",
            f"{one.later:,.0f}",
            f"{one.first / base.first:.3f}x",
            f"{one.later / base.later:.3f}x",
        ]
        for one in passes
    ]
    return f"""\
Chance is not all. One pass without a warm-up times an engine that is still warming up, and some quantizations need
longer for that than others. Output tokens per second of one launch each on an H200, from [platforms](platforms.md):

{table(["quantization", "first pass", "later passes", "first / bf16's", "later / bf16's"], rows)}"""
