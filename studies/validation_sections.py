"""Sections of the validation page on simulated coverage, lengths at which a quantization pays, and single runs."""

from __future__ import annotations

from collections.abc import Sequence

from interval_coverage import Coverage
from kept import Share
from markdown_parts import percent, table


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


def _cell(share: Share) -> str:
    low, high = share.interval
    return f"{100 * share.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _ranges(numbers: Sequence[int]) -> str:
    """`3 to 12`, or `4, 9` where some between are missing."""
    whole = list(range(numbers[0], numbers[-1] + 1)) == list(numbers) and len(numbers) > 2
    return f"{numbers[0]} to {numbers[-1]}" if whole else ", ".join(map(str, numbers))
