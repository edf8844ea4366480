"""What docs/validation.md says about `precision.race`."""

from __future__ import annotations

from kept import Share
from markdown_parts import percent, table
from racing import NORMAL, Raced, Racing


def racing(result: Racing) -> str:
    """Write normal noise by size and truths, then the other kinds of noise."""
    normal = [one for one in result.raced if one.noise == NORMAL]
    others = [one for one in result.raced if one.noise != NORMAL]
    return f"""\
Launches spread by {percent(result.spread, 0)}, {result.first} to {result.most} of them, a half width of
{percent(result.half_width, 0)} is asked for, normal noise.

{_table(normal, "configurations")}

{result.tables:,} simulated tables in each row, seed {result.seed}. {_said(result, normal)}

- *Best lost*: a configuration as good as the best gets no further launch.
- *Intervals miss*: of the intervals that the race goes by, one or more are off the truth where their launches end.
- *Launches* are those of all configurations together, with a race and without.

Other noise, {min(one.configurations for one in others)} configurations:

{_table(others, "noise")}

{_said(result, others)}

Not shown: settings whose launches scatter unequally, and launches that fail on the way."""


def _table(of: list[Raced], first: str) -> str:
    rows = [
        [
            getattr(one, first),
            one.kind,
            _points(one.lost_best),
            _points(one.missed),
            f"{one.launches:.1f} of {one.without:.1f}",
        ]
        for one in of
    ]
    return table([first, "truth", "best lost, %", "intervals miss, %", "launches"], rows)


def _said(result: Racing, of: list[Raced]) -> str:
    promised = 1 - result.confidence
    above = [one for one in of if max(one.lost_best.interval[0], one.missed.interval[0]) > promised]
    if not above:
        return f"No share is surely above the {percent(promised, 0)} that are promised."
    named = dict.fromkeys(one.noise for one in above)
    return f"Surely ABOVE the promised {percent(promised, 0)}: {'; '.join(named)}."


def _points(share: Share) -> str:
    return f"{100 * share.value:.1f}"
