"""What docs/validation.md says about `launches: auto`."""

from __future__ import annotations

from kept import SETTINGS, Share
from markdown_parts import bold_above, percent, table
from stopping import ALONE, FIRST, SPREAD, Stopped, Stopping

NORMAL = "normal"


def stopping(result: Stopping) -> str:
    """Write normal noise by configurations and half widths, then the other kinds of noise."""
    above = [
        one
        for rule in (result.spread, result.apart)
        for one in rule
        if one.false.interval[0] > 1 - result.confidence and one.noise != NORMAL
    ]
    named = dict.fromkeys(one.noise for one in sorted(above, key=lambda one: -one.false.value))
    listed = "\n".join(f"- {noise}: {_worst([one for one in above if one.noise == noise])}" for noise in named)
    broken = [
        one
        for rule in (result.spread, result.apart)
        for one in rule
        if one.noise == NORMAL and one.false.interval[0] > 1 - result.confidence
    ]
    said = "ABOVE the promise for some." if broken else "None is significantly above the promise."
    return f"""\
Launches spread by {percent(SPREAD, 0)}, at most {result.most} blocks, normal noise. In each cell: tables with a false
finding, tables whose intervals all hold the truth, both in per cent, and the mean number of blocks.

{_normal(result)}

{result.tables:,} simulated tables in each cell, seed {result.seed}. {said}

- The first blocks say how many there are to be (Stein 1945). Each interval is the wider one of two: with the spread of
  the first blocks, and with that of all. The intervals of a table hold together.
- **A longer first stage needs fewer blocks in all** where many are needed, because the spread is then better known.
  Raise `min_launches` where a run is going to be long anyway. A single comparison has a first stage of at least
  {ALONE}.
- A limit costs width, not truth: {_cut(result)}
- Where each configuration stops by itself, as launches do that are not interleaved, false findings are the same:
  {_apart(result)}.

Other noise, three configurations, a half width of the same multiple of the spread as {percent(_other(result), 0)} is
above:

{_noises(result)}

Significantly above {percent(1 - SETTINGS.confidence, 0)}:

{listed or "- none"}

A spread that changes after the first blocks is in the intervals, because they are never narrower than all blocks say.

Not shown: a run that somebody ends, or asks for more precision, because of what a difference looks like."""


def _normal(result: Stopping) -> str:
    rows = []
    normal = [one for one in result.spread if one.noise == NORMAL]
    for k in sorted({one.configurations for one in normal}):
        for half_width in sorted({one.half_width for one in normal}):
            of = [one for one in result.spread if _is(one, NORMAL, k, half_width)]
            cells = [_cell(next((one for one in of if one.first == first), None)) for first in FIRST]
            rows.append([k, percent(half_width, 0), *cells])
    return table(["configurations", "half width", *(f"first stage {n}" for n in FIRST)], rows)


def _is(one: Stopped, noise: str, k: int, half_width: float) -> bool:
    return (one.noise, one.configurations, one.half_width) == (noise, k, half_width)


def _cell(one: Stopped | None) -> str:
    if one is None:
        return ""
    return f"{bold_above(one.false)} ({_points(one.covered)}), {one.blocks:.1f}"


def _points(share: Share) -> str:
    return f"{100 * share.value:.1f}"


def _cut(result: Stopping) -> str:
    most = max((one for one in result.spread if one.noise == NORMAL), key=lambda one: one.cut.value)
    return (
        f"with {most.configurations} configurations and {percent(most.half_width, 0)}, the limit cut"
        f" {percent(most.cut.value, 0)} of the tables, and {_points(most.false)} % had a false finding."
    )


def _apart(result: Stopping) -> str:
    shares = [one.false for one in result.apart if one.noise == NORMAL]
    low, high = min(shares, key=lambda share: share.value), max(shares, key=lambda share: share.value)
    return f"{_points(low)} to {_points(high)} % over the same cells"


def _other(result: Stopping) -> float:
    return next((one.half_width for one in result.spread if one.noise != NORMAL), SPREAD)


def _noises(result: Stopping) -> str:
    half_width = _other(result)
    rows = []
    for noise in dict.fromkeys(one.noise for one in result.spread):
        of = [one for one in result.spread if _is(one, noise, 3, half_width)]
        cells = [_cell(next((one for one in of if one.first == first), None)) for first in FIRST]
        rows.append([noise, *cells])
    return table(["noise", *(f"first stage {n}" for n in FIRST)], rows)


def _worst(of: list[Stopped]) -> str:
    worst = max(of, key=lambda one: one.false.value)
    return f"at worst {worst.false}, with a first stage of {worst.first}"
