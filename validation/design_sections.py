"""What docs/validation.md says about blocks on the real engine: false verdicts, power per machine minute, the demo."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from block_aa import ALPHA, BlockAA, block_sd, correlations, recomputed, start_effect
from demo_repeats import OTHERS as DEMO_QUANTS
from demo_repeats import DemoRepeats
from markdown_parts import percent, table
from power_minutes import BEFORE, MINUTES, SHIPPED, PowerMinutes, half_width, half_width_alone, pooled


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


def power_minutes(result: PowerMinutes) -> str:
    """Return the half width of each design after some minutes of its own machine time."""
    rows = []
    for minutes in MINUTES:
        alone = pooled([half_width_alone(one, minutes) for one in result.series])
        before, shipped = (
            pooled([half_width(one, design, minutes) for one in result.series]) for design in (BEFORE, SHIPPED)
        )
        gain = f"{alone / shipped:.1f}" if alone and shipped else "-"
        blocks = [
            "/".join(str(one.blocks_after(design, minutes)) for one in result.series) for design in (BEFORE, SHIPPED)
        ]
        rows.append([f"{minutes:g}", *map(_width, (alone, before, shipped)), gain, *blocks])
    if all(row[3] == "-" for row in rows):
        return "Not run long enough: no design has an interval yet."
    header = ["minutes", "before", "before, its records by today's analysis", "shipped", "before / shipped"]
    verdicts = [
        [
            f"{number + 1}, {design}",
            f"{one.minutes(design):.1f}",
            len(one.designs[design]),
            *(one.designs[design][-1].told[quant] for quant in DEMO_QUANTS),
        ]
        for number, one in enumerate(result.series)
        for design in (BEFORE, SHIPPED)
        if one.designs[design]
    ]
    return f"""\
{table([*header, "blocks, before", "blocks, shipped"], rows)}

Half width of the 95 % interval of w8a8 / bf16, the geometric mean over {len(result.series)} series, after about so many
minutes of machine time of each design. Machine time goes from the first start of a block to the end of its last engine;
tables and figures are not in it.

At the end of each series:

{table(["series, design", "minutes", "blocks", *DEMO_QUANTS], verdicts)}

Not shown: other machines, accelerators. A machine without drift gains less, since passes near in time then resemble
each other no more than others do.

Measured on {result.place}."""


def _width(width: float | None) -> str:
    return percent(width) if width else "-"


def demo_repeats(result: DemoRepeats) -> str:
    """Return how often the demo decided its comparisons, and each run."""
    shares = {quant: result.decided(quant) for quant in DEMO_QUANTS}
    decided = "\n".join(f"- {quant}: decided in {one.count} of {one.of} runs, {one}." for quant, one in shares.items())
    rows = [
        [number, f"{run.minutes:.1f}", *(run.told.get(quant, "-") for quant in DEMO_QUANTS)]
        for number, run in enumerate(result.runs, start=1)
    ]
    return f"""\
{decided}

{table(["run", "minutes", *DEMO_QUANTS], rows)}

Decided: called `faster` or `slower`. Minutes are those of the whole command, with tables and figures; the weights were
there before.

Measured on {result.place}."""
