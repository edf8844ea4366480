"""What docs/validation.md says about tables of interleaved blocks."""

from __future__ import annotations

from collections.abc import Sequence

from interleaved_tables import BLOCKS, INTERLEAVED, LAUNCHES, PASS_S, InterleavedTables, Judged
from kept import SETTINGS
from markdown_parts import bold_above, percent, table
from table_noise import LAUNCH_S, PASS_SD

from rollout_bench.analysis.timed.pairs import TRIMMED

DRIFT = "the machine drifts as it was measured to"


def interleaved_tables(result: InterleavedTables) -> str:
    """Write false verdicts, coverage and half widths by noise, for launches in rounds and for interleaved blocks."""
    cells = {(cell.noise, cell.design, cell.blocks): cell for cell in result.judged}
    noises = list(dict.fromkeys(cell.noise for cell in result.judged))
    header = ["noise", *(f"{design}, {m}" for design in (LAUNCHES, INTERLEAVED) for m in BLOCKS)]
    rows = [
        [noise, *(_cell(cells[noise, design, m]) for design in (LAUNCHES, INTERLEAVED) for m in BLOCKS)]
        for noise in noises
    ]
    drift = [cells[DRIFT, design, BLOCKS[0]].half_width for design in (LAUNCHES, INTERLEAVED)]
    return f"""\
{table(header, rows)}

Each cell: per cent of {result.tables:,} simulated tables of {result.configurations} configurations with some false
verdict; in brackets the per cent of intervals that hold the truth, for the configuration whose intervals do so least
often, and the median half width of the first comparison. Launches: {result.passes} passes each, one launch every
{LAUNCH_S:g} s, in balanced order. Blocks: {result.rounds} rounds, a pass every {PASS_S:g} s, in balanced order, and the
mean of the middle {percent(1 - 2 * TRIMMED, 0)} of the rounds. A pass spreads by {percent(PASS_SD)}. The truth is
what each design says of very many tables: the ratio of means for launches, the typical ratio for blocks.

**Interleaved blocks keep the promise where the noise is the machine's**: drift, spikes, and starts that differ in the
same way on all sides. Under the drift that was measured here, {BLOCKS[0]} blocks have an interval of
+-{percent(drift[1])}, and {BLOCKS[0]} rounds of launches one of +-{percent(drift[0])}. Their times are not the same: a
block makes three times as many passes.

{_above(result.judged)}

They do not help against what a start decides: see the next section.

Not shown: other numbers of rounds, configurations or passes, starts that drift, several of these at once."""


def _cell(cell: Judged) -> str:
    return f"{bold_above(cell.false)} ({100 * cell.covered.value:.1f}; {100 * cell.half_width:.1f})"


def _above(cells: Sequence[Judged]) -> str:
    promised = 1 - SETTINGS.confidence
    above = [cell for cell in cells if cell.design == INTERLEAVED and cell.false.interval[0] > promised]
    lines = []
    for noise in dict.fromkeys(cell.noise for cell in above):
        worst = max((cell for cell in above if cell.noise == noise), key=lambda cell: cell.false.value)
        lines.append(f"- {noise}: {worst.false} in {worst.blocks} blocks")
    return "Significantly above:\n\n" + "\n".join(lines) if lines else "None is significantly above."
