"""Tables and numbers of the validation page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kept import SETTINGS, Share


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def percent(fraction: float, digits: int = 1) -> str:
    """0.042: `4.2 %`."""
    return f"{100 * fraction:.{digits}f} %"


def bold_above(share: Share) -> str:
    """Return a share of false findings in per cent, bold where it is surely above what is promised."""
    text = f"{100 * share.value:.1f}"
    return f"**{text}**" if share.interval[0] > 1 - SETTINGS.confidence else text
