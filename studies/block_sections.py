"""Sections of the validation page on whole tables that are judged together."""

from __future__ import annotations

from block_tables import BLOCKS, FOUND, BlockTables, Simulated
from kept import Share
from markdown_parts import bold_above, percent, table
from table_noise import MEASURED

SHOWN = (3, 6)
"""Configurations in the tables that are shown; with two, both methods are Student's paired t test."""


SCATTERING = ("the baseline spreads four times as much", "one quantization spreads four times as much", "normal")
"""Noises for which the guard alone and what is done now are shown."""


def block_tables(result: BlockTables) -> str:
    """Write false verdicts and coverage by noise, then width and missing launches."""
    cells = {(cell.noise, cell.configurations, cell.blocks): cell for cell in result.simulated}
    noises = list(dict.fromkeys(cell.noise for cell in result.simulated))
    shown = "\n\n".join(_of_configurations(cells, noises, k) for k in SHOWN)
    worst = sorted(
        (cell for cell in result.simulated if cell.false.interval[0] > 1 - result.confidence),
        key=lambda cell: -cell.false.value,
    )
    above = "\n".join(f"- {noise}: {_worst([c for c in worst if c.noise == noise])}" for noise in _noises(worst))
    return f"""\
{shown}

Each cell: per cent of {result.tables:,} simulated tables in which some difference was found, seed {result.seed}. Before
the arrow: each pair of configurations judged alone, by a t test with Holm's method, as rollout-bench did before. After
it: as it does now. In brackets: intervals that hold the truth, for the configuration whose intervals do so least often.
The intervals of a table hold together, so each alone covers more.

The row that starts with "measured" cuts tables out of the same 24 rounds again and again. They are far fewer than
{result.tables:,} independent tables, and over 12 of 24 rounds the launches of a side differ little from that side's own
mean.

Significantly above {percent(1 - result.confidence, 0)} (bold in the tables), with two to six configurations:

{above or "- none"}

A drift adds less than one percentage point, with two configurations. All others have one thing in common: one
configuration scatters in a way that a few launches do not show. The worst is a mode that is chosen when the engine
starts (autotuning, placement on cores, sizes of captured graphs). **Three or four rounds cannot know of it** ([how
often](#what-of-modes-that-an-engine-chooses-at-its-start)). So the summary lists the single pairs of each difference
that fewer than eight pairs found. One spread for the whole table
makes this worse with three or four rounds, because the spread of the others stands in for a mode that did not show,
and changes little from six on.

A configuration that scatters more than the others is judged by its own spread (the guard). Where this is visible, it is
also judged by its own degrees of freedom, and all are where it is the baseline, from four configurations on. Per cent
of tables with a false difference, with the guard alone → now:

{_own(cells)}

How small a difference is found, as a multiple of what the same launches showed with each pair judged alone (normal
noise, a chance of {percent(FOUND, 0)}, the cost of the guard included):

{_smaller(cells)}

One launch in ten not valid: a comparison keeps its own pairs. If every round with a missing launch were left out whole,
more comparisons would have no interval, and the others a wider one (on average over tables in which something is
missing). Least squares over all cells would make the error a little smaller, but the ratio would no longer be that of
the pairs that are shown:

{_missing(result)}

Not shown: noise of kinds that are not in the table, and several of them at once. The next section has
`launches: auto`."""


def _of_configurations(cells: dict[tuple[str, int, int], Simulated], noises: list[str], k: int) -> str:
    rows = [[noise, *(_cell(cells.get((noise, k, m))) for m in BLOCKS)] for noise in noises]
    return table([f"{k} configurations; rounds:", *BLOCKS], rows)


def _cell(cell: Simulated | None) -> str:
    if cell is None:
        return ""
    return f"{_points(cell.paired_false)} → {bold_above(cell.false)} ({_points(cell.covered)})"


def _own(cells: dict[tuple[str, int, int], Simulated]) -> str:
    rows = [
        [f"{noise}; {k} configurations", *(_change(cells.get((noise, k, m))) for m in BLOCKS)]
        for noise in SCATTERING
        for k in (2, *SHOWN)
    ]
    return table(["rounds:", *BLOCKS], rows)


def _change(cell: Simulated | None) -> str:
    return "" if cell is None else f"{_points(cell.shared_false)} → {bold_above(cell.false)}"


def _points(share: Share) -> str:
    return f"{100 * share.value:.1f}"


def _noises(cells: list[Simulated]) -> list[str]:
    return list(dict.fromkeys(cell.noise for cell in cells if cell.noise != MEASURED))


def _worst(cells: list[Simulated]) -> str:
    first = cells[0]
    blocks = ", ".join(map(str, sorted({cell.blocks for cell in cells})))
    return f"{blocks} rounds; at worst {first.false}, {first.configurations} configurations in {first.blocks}"


def _smaller(cells: dict[tuple[str, int, int], Simulated]) -> str:
    rows = [[f"{k} configurations", *(f"x {cells['normal', k, m].smaller:.2f}" for m in BLOCKS)] for k in (2, *SHOWN)]
    return table(["rounds:", *BLOCKS], rows)


def _missing(result: BlockTables) -> str:
    rows = [
        [
            one.configurations,
            one.blocks,
            _points(one.none),
            _points(one.none_whole),
            f"x {one.whole_wider:.2f}",
            f"x {one.least_squares_wider:.2f}",
        ]
        for one in result.missing
    ]
    header = ["configurations", "rounds", "no interval, %", "whole rounds: none, %", "whole rounds: width"]
    return table([*header, "least squares: error"], rows)
