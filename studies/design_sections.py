"""Sections of the validation page on blocks on the real engine: false verdicts, power per machine minute, the demo."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from block_aa import ALPHA, BlockAA, block_sd, correlations, recomputed, start_effect
from markdown_parts import percent, table


def block_aa(result: BlockAA) -> str:
    """Return how many tables found a difference, and how the blocks behind them scatter."""
    judged, blocks = result.judged, result.blocks
    if not judged or len(blocks) < 2:
        return "Not run often enough: one table with intervals is the least."
    kept_promise = "NOT KEPT" if result.false.interval[0] > ALPHA else "not contradicted"
    agree = [recomputed(one) for one in judged]
    known = [(mine, one.false) for mine, one in zip(agree, judged, strict=True) if mine is not None]
    same = sum(mine == theirs for mine, theirs in known)
    start, rounds = start_effect(blocks), Counter(len(next(iter(one.passes_s.values()))) for one in blocks)
    widths = [one.told[name].half_width or math.nan for one in judged for name in one.told if one.told[name].half_width]
    lags = "; ".join(
        f"{lag}: {found:+.2f} ({white:+.2f} if independent)"
        for lag, (found, white) in enumerate(correlations(blocks), start=1)
    )
    rows = [
        ["tables", len(judged)],
        ["with a false verdict", result.false],
        ["all intervals hold 1", result.covered],
        ["half width, median", percent(float(np.median(widths)))],
        ["blocks", f"{len(blocks)}, of {_counted(rounds)} rounds"],
        ["spread of what one block says", percent(block_sd(blocks), 2)],
        ["spread of a pass in its round", percent(start.round_sd, 2)],
        ["what a start decides", f"{percent(start.sd, 2)}, at most {percent(start.sd_high, 2)}"],
        ["minutes of a table", f"{np.median([one.minutes for one in result.tables]):.1f}"],
    ]
    found = "SHOWN" if start.p < ALPHA else "not shown"
    return f"""\
{table(["", "measured"], rows)}

Promised are false verdicts in at most {percent(ALPHA, 0)} of tables: {kept_promise}. A second calculation from the raw
passes agrees in {same} of {len(known)} tables.

- **What a start decides**: if an engine were quicker for the whole of its life, blocks would differ by more than their
  rounds explain. F({start.between}, {start.within}) = {start.f:.2f}, p = {start.p:.2g}: an effect is {found}. Its
  standard deviation is estimated as {percent(start.sd, 2)}, with a one-sided 95 % bound of {percent(start.sd_high, 2)}.
- **Rounds of one block** correlate, by their distance: {lags}.

Not shown: other machines, accelerators, other models.

Measured on {result.place}."""


def _counted(counts: Counter[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{least}" if least == most else f"{least} to {most}"
