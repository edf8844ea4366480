"""Tables and numbers of docs/validation.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def percent(fraction: float, digits: int = 1) -> str:
    """0.042: `4.2 %`."""
    return f"{100 * fraction:.{digits}f} %"
