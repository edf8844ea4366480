"""What docs/validation.md says about modes that engines choose at their start."""

from __future__ import annotations

from markdown_parts import bold_above, percent, table
from modes import BLOCKS, Modes

from rollout_bench.analysis.timed.comparison import missed_modes


def modes(result: Modes) -> str:
    """Write false verdicts by noise and number of blocks, and the bound that no test can do better than."""
    cells = {(one.configurations, one.slower, one.noise, one.blocks): one.false for one in result.cells}
    rows = [
        [k, percent(slower, 0), percent(noise), *(bold_above(cells[k, slower, noise, m]) for m in BLOCKS)]
        for k, slower, noise in dict.fromkeys(key[:3] for key in cells)
    ]
    bound = ["any", "any", "0", *(f"{100 * missed_modes(result.share, m):.1f}" for m in BLOCKS)]
    excluded = [["", "", "", *(percent(1 - 0.05 ** (1 / m), 0) for m in BLOCKS)]]
    header = ["configurations", "slow starts are slower by", "blocks scatter by", *(f"{m} blocks" for m in BLOCKS)]
    return f"""\
{table(header, [*rows, bound])}

{result.tables:,} simulated tables in each cell, seed {result.seed}; {percent(result.share, 0)} of the baseline's starts
are slow. The last row is p^m + (1 - p)^m, the chance that all of m starts are in the same mode: a test that sees
nothing but these starts cannot do better (Bahadur and Savage 1956). Bold: significantly above 5 %.

**The quieter the machine, the worse**, because nothing but the mode scatters, and it did not show. More iterations do
not help; more starts do. So a summary says for its own number of starts how often they miss such a mode.

The largest share of starts that so many starts without it exclude with 95 % confidence, 1 - 0.05^(1 / m):

{table(["", "", "", *(f"{m} blocks" for m in BLOCKS)], excluded)}

Not shown: more than two modes, and modes that depend on each other."""
