"""What docs/validation.md says about leaving out what others' use of the machine spoilt."""

from __future__ import annotations

from collections.abc import Sequence

from exclusion import ALL, BLOCK, LAUNCH, LIMIT, MEAN, RULE, WINDOWS, Excluded, Exclusion, gross_cases
from markdown_parts import percent, table

ALLOWED = 0.001
"""What leaving out may add to a ratio."""


def exclusion(result: Exclusion) -> str:
    """Write what leaving out adds to the ratios, by rule: for passes in turn, then for launches one after the other."""
    in_turn = [cell for cell in result.cells if cell.design.rounds]
    apart = [cell for cell in result.cells if not cell.design.rounds]
    ours, theirs = _worst(in_turn, RULE), _worst(in_turn, LAUNCH)
    alone = _worst(apart, LAUNCH)
    within = "below" if abs(ours.added) < ALLOWED else "NOT below"
    return f"""\
A neighbour that is on and off at random takes {percent(result.share, 0)} of the cores' time while it is on, and every
configuration then runs at {percent(result.speed, 0)} of its speed. Each cell has {result.blocks:,} blocks (seed
{result.seed}). A launch that lost more than {percent(LIMIT.invalid, 0)} of its cores' time is invalid (`cpu_shared`).

**Interleaved blocks: leaving out adds at most {percent(abs(ours.added), 3)} to a ratio**, {within} the
{percent(ALLOWED)} that is allowed. rollout-bench reads all launches of a block together, and leaves out all of them or
none. Each launch judged by itself would add up to {percent(abs(theirs.added), 2)}: a configuration with shorter passes
has a shorter time to be read over, so its share varies more, it is dropped more often, and its lucky launches remain.

{_table(in_turn, (LAUNCH, MEAN, BLOCK, RULE))}

First column of numbers: by how much the ratio is off with nothing left out, in per cent; above 0 the configuration with
the shorter passes looks quicker. That is no fault of leaving out: a neighbour that comes and goes as fast as passes do
hits few short passes, hard, and many long ones, a little, and the middle 60 % of the rounds leave the few out. Other
columns: what leaving out adds to that, in per cent, and in brackets the per cent of pairs left out. Of several
comparisons the one with the largest addition is shown.

What this costs: where the neighbour stays on for longer than a block takes, a block is left out as often as a launch
was, with all its launches. Where it comes and goes, blocks are left out less often than launches were.

A launch that is spoilt while its mates are not: all readings together no longer show it where it is one of several. So
a block is left out, too, where one of its launches lost more than {percent(LIMIT.alone, 0)}. A neighbour that takes as
much as the engine all the time of one launch:

{_gross()}

**Launches one after the other keep what they found out by themselves**, as before. Leaving out then adds up to
{percent(abs(alone.added), 1)} where a neighbour takes half of the machine for a fifth of the time or more. One pair
spreads by {percent(alone.spread, 0)} there, so with a few launches chance adds more. But what chance adds shrinks with
the number of launches, and this does not: no number of launches removes it. Interleaving does.
Judging all launches of a round together would be worse, because starts of engines lie between the passes: whether the
one with the longest passes was hit decides over all.

{_table(apart, (LAUNCH, MEAN, BLOCK, RULE, WINDOWS))}

{_spreads(apart)}

Times of the same length for all launches (last column; the reading goes on after the last pass) would add at most
{percent(abs(_worst(apart, WINDOWS).added))}. No launch is read for so long today.

Not shown: neighbours that take more than half of the cores, under which the ratios themselves are off by per cents;
neighbours that disturb one configuration more than another; what a real machine's neighbours do."""


def _worst(cells: Sequence[Excluded], rule: str) -> Excluded:
    return max((cell for cell in cells if cell.rule == rule), key=lambda cell: abs(cell.added))


def _table(cells: Sequence[Excluded], rules: Sequence[str]) -> str:
    by_rule = {(str(cell.design), cell.on_s, cell.every_s, cell.rule): cell for cell in cells}
    rows = []
    for design, on_s, every_s in dict.fromkeys(key[:3] for key in by_rule):
        shown = [by_rule[design, on_s, every_s, rule] for rule in rules]
        bias = by_rule[design, on_s, every_s, ALL].bias
        rows.append([design, f"{on_s:g} s every {every_s:g} s", f"{100 * bias:+.2f}", *map(_added, shown)])
    return table(["passes", "neighbour on", ALL, *rules], rows)


def _added(cell: Excluded) -> str:
    return f"{100 * cell.added:+.2f} ({100 * cell.dropped:.1f})"


def _gross() -> str:
    rows = [
        [case.launches, percent(case.own), percent(case.pooled), "yes" if case.pooled_alone else "no", "yes"]
        for case in gross_cases()
        if case.left_out
    ]
    header = ["launches of the block", "lost by the one", "by all together", "left out by that alone", "left out"]
    return table(header, rows)


def _spreads(cells: Sequence[Excluded]) -> str:
    by_rule = {(str(cell.design), cell.on_s, cell.every_s, cell.rule): cell.spread for cell in cells}
    pairs = [(spread, by_rule[(*key[:3], LAUNCH)]) for key, spread in by_rule.items() if key[3] == ALL]
    factors = [spread / left for spread, left in pairs]
    return (
        "Leaving out is worth it all the same: with nothing left out the pairs of these rows spread "
        f"{min(factors):.1f} to {max(factors):.0f} times as much."
    )
