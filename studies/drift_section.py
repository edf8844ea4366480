"""Sections of the validation page on verdicts of mode drift."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from block_tables import FOUND
from drift_verdicts import (
    DETECTED_OF,
    HEAVY_FLOOR,
    LINES,
    MOST,
    SEQUENCES,
    TOKENS,
    Detected,
    DriftVerdicts,
    FalseDrifts,
    SizeCovered,
)
from kept import SETTINGS, Share
from markdown_parts import percent, table

MATTERS = 0.01
"""By how much a share must surely miss its promise to be named in the first sentences; the tables show all."""


def first_sentences(result: DriftVerdicts) -> list[str]:
    """Say whether verdicts hold, then whether intervals do, each with its worst case."""
    furthest = worst(result.false)
    covered = min(result.covered, key=lambda one: one.covered.value)
    short = covered.covered.interval[1] < result.confidence - MATTERS
    most = [one for one in result.covered if one.sequences == max(SEQUENCES)]
    return [
        f"**`drifts` keeps its promise under {kept_under(result)} kinds of noise**, to within one percentage point.",
        f"At worst {furthest.false} of simulated tables without a difference report one, where"
        f" {percent(result.promised)} are promised: {_where(furthest)}.",
        f"**The interval of mean |d| is {'TOO NARROW' if short else 'wide enough'}.**",
        f"At worst {covered.covered} of these intervals hold the truth, where {percent(result.confidence, 0)} are"
        f" promised: {covered.noise}; {covered.sequences} sequences.",
        f"Of {max(SEQUENCES)} sequences {_range(one.covered for one in most)} hold it, by the kind of noise.",
    ]


def kept_under(result: DriftVerdicts) -> str:
    """Return under how many kinds of noise `drifts` keeps its promise: `3 of 4`."""
    kinds = {one.noise for one in result.false}
    above = {one.noise for one in result.false if one.false.interval[0] > result.promised + MATTERS}
    return f"{len(kinds) - len(above)} of {len(kinds)}"


def drift_verdicts(result: DriftVerdicts) -> str:
    """Write the outcome, then false verdicts, coverage and detectable ratios by noise, and what engines said."""
    first = "\n".join(first_sentences(result))
    least, more, most = TOKENS
    return f"""\
{first}
Where few sequences differ at all, the interval is wide, and of fewer than two it is not known: use {max(SEQUENCES)}
sequences or more.

**False verdicts.** Per cent of tables in which one line or more `drifts`, and no line truly does:

{_by_sequences(result.false, lambda one: f"{one.noise}; {_lines(one.lines)}", _false)}

Surely above {percent(result.promised)}:

{_above(result)}

Among so many cells one or two are listed by chance. "{HEAVY_FLOOR}" is no chance:
a few sequences hold much of such a floor, and a run in which they are missing has a floor that is too low.
More sequences do not mend it.
So doubt a verdict that is near the floor where max |d| of a line `(reference)` is many times its p95.

**Intervals of mean |d|**, of the reference and of quantizations. Per cent that hold the truth, and after the slash per
cent that lie wholly below it. In round brackets: in how many per cent of tables it is not known, which do not count:

{_by_sequences(result.covered, lambda one: one.noise, _covered)}

Each sequence counts alike, and is taken to be zero or lognormal. A bootstrap and Student's interval lie too low here,
because rare large values that a run has not drawn are in neither: the wider of the two held the truth in 75 to 92 % of
these tables. A verdict goes by that wider one, of the difference from the floor, in which such tails cancel as far as
both sides have them.

**Which drift is found.** The ratio of mean |d| to the floor's that is found in {percent(FOUND, 0)} of tables:

{_ratios(result.detected)}

**Real engines.** {_floors(result)}
An engine that repeats itself exactly can't be mistaken for one that drifts. These runs show nothing about a floor that
is not 0. Lines `while generating` are no floor, and are not counted.

How it was simulated:

- {result.comparisons:,} comparisons in each cell of the first two tables: {result.comparisons:,} tables of one line,
  or {result.comparisons // max(LINES):,} of {max(LINES)}; an eighth of that for each ratio; seed {result.seed}.
- Verdicts are made by the functions that make those of a summary.
- A sequence has {least + 1} to {most} tokens, about {least + more} on average. Some sequences are harder, on all sides
  alike. Besides, each side has an effect of its own in each sequence, as large as the noise of a token.
- There is one floor. A run takes the largest of several, and so has fewer false verdicts.

Not shown: a floor other than 0 of a real engine, effects that are larger than a token's noise, sequences that depend on
each other, such as samples of one prompt, and intervals of any other column."""


def worst(cells: Iterable[FalseDrifts]) -> FalseDrifts:
    """Return the cell that is surely the furthest up: fewer tables alone make none the worst."""
    return max(cells, key=lambda one: one.false.interval[0])


def _where(one: FalseDrifts) -> str:
    return f"{one.noise}; {one.sequences} sequences, {_lines(one.lines)}"


def _lines(count: int) -> str:
    return f"{count} line{'s' if count > 1 else ''}"


def _range(shares: Iterable[Share]) -> str:
    values = [share.value for share in shares]
    return f"{percent(min(values))} to {percent(max(values))}"


def _points(share: Share) -> str:
    low, high = share.interval
    return f"{100 * share.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _covered(one: SizeCovered) -> str:
    unknown = f" ({100 * one.unknown.value:.0f})" if one.unknown.count else ""
    return _bold(
        f"{_points(one.covered)} / {100 * one.below.value:.1f}{unknown}", one.covered.interval[1] < SETTINGS.confidence
    )


def _false(one: FalseDrifts) -> str:
    return _bold(_points(one.false), one.false.interval[0] > (1 - SETTINGS.confidence) / 2)


def _bold(text: str, wrong: bool) -> str:
    return f"**{text}**" if wrong else text


def _by_sequences(
    cells: Sequence[FalseDrifts] | Sequence[SizeCovered], row: Callable[..., str], cell: Callable[..., str]
) -> str:
    """Return a table with a row for each `row`, and a column for each number of sequences."""
    rows: dict[str, dict[int, str]] = {}
    for one in cells:
        rows.setdefault(row(one), {})[one.sequences] = cell(one)
    return table(
        ["noise; sequences:", *SEQUENCES], [[_code(name), *map(of.get, SEQUENCES)] for name, of in rows.items()]
    )


def _code(name: str) -> str:
    """Return `name` so that a bar in it does not end a cell."""
    return name.replace("|", "\\|")


def _above(result: DriftVerdicts) -> str:
    above = [one for one in result.false if one.false.interval[0] > result.promised]
    lines = []
    for noise in dict.fromkeys(one.noise for one in above):
        of = [one for one in above if one.noise == noise]
        furthest = worst(of)
        lines.append(
            f"- {noise}: {len(of)} of {len(result.false)} cells; at worst {furthest.false},"
            f" {furthest.sequences} sequences, {_lines(furthest.lines)}"
        )
    return "\n".join(lines) or "- none"


def _ratios(found: Sequence[Detected]) -> str:
    rows: dict[str, dict[int, str]] = {}
    for one in found:
        ratio = f"more than {MOST:g}" if one.ratio is None else f"{one.ratio:.2f}"
        rows.setdefault(f"{one.noise}; {_lines(one.lines)}", {})[one.sequences] = ratio
    return table(["noise; sequences:", *DETECTED_OF], [[name, *map(of.get, DETECTED_OF)] for name, of in rows.items()])


def _floors(result: DriftVerdicts) -> str:
    lines, nothing = (sum(getattr(one, which) for one in result.floors) for which in ("lines", "nothing"))
    return (
        f"{nothing} of {lines} lines that a floor is taken from have a mean |d| of exactly 0\n"
        "([results](../docs/results.md)):\n"
        "with another batch and in other launches."
    )
