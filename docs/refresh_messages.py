#!/usr/bin/env python3
"""Copies what a result of messages mode found into docs/results/messages.md, and its figures to docs/images/.

What stands between `<!-- messages: PLACE -->` and `<!-- end of messages -->` is replaced by the answer, the tables and
the notes of RESULTS_DIR/summary.md. Run it after the workflow, on a machine that did nothing else.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "results" / "messages.md"
FIGURES = {
    "message_shares": "Share of a decode step over the batch, a line for each experiment",
    "messages": "Bytes of messages in each step, a line for each link",
}
SECTIONS = (
    "What messages cost today",
    "Messages",
    "What a worker that remembers would save",
    "The law of bytes",
    "Flags",
)
"""Beginnings of the headings that are copied; a definition of each column is in every summary."""

MARKED = re.compile(r"(<!-- messages: (\S+) -->\n).*?(<!-- end of messages -->)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place", metavar="PLACE", help="which part of the page: cpu, h200")
    parser.add_argument("results", type=Path, metavar="RESULTS_DIR")
    arguments = parser.parse_args()
    try:
        summary = (arguments.results / "summary.md").read_text()
        PAGE.write_text(filled(PAGE.read_text(), arguments.place, found(summary, arguments.place)))
        for name in FIGURES:
            source = arguments.results / "figures" / f"{name}.svg"
            shutil.copyfile(source, REPOSITORY / "docs" / "images" / image(name, arguments.place))
    except (OSError, ValueError) as error:
        print(f"{error}\n  -> give a place of the page and the folder of a complete result", file=sys.stderr)
        return 1
    return 0


def found(summary: str, place: str) -> str:
    """Return what `summary`, a summary.md, has of messages, one heading level lower, with links to the figures.

    Raises:
        ValueError: the summary is incomplete, or has nothing of messages.
    """
    head, *parts = re.split(r"^## ", summary, flags=re.MULTILINE)
    status = next(line for line in head.splitlines() if "measured" in line)
    if "INCOMPLETE" in status:
        raise ValueError(f"summary.md: {status}")
    figures = "\n\n".join(f"![{title}](../images/{image(name, place)})" for name, title in FIGURES.items())
    chosen = [
        # figures of the summary follow its last table; the section of definitions is called as the mode is
        re.sub(r"^!\[.*\n?", "", part, flags=re.MULTILINE).strip()
        for part in parts
        if part.startswith(SECTIONS) and not part.startswith("Messages\n")
    ]
    if not chosen:
        raise ValueError("summary.md: nothing of messages")
    return "\n\n".join([status, f"### {chosen[0]}", figures, *(f"### {part}" for part in chosen[1:])])


def filled(page: str, place: str, text: str) -> str:
    """Return `page` with `text` at `place`; raise `ValueError` where the page has no such place."""
    places = [name for _, name, _ in MARKED.findall(page)]
    if place not in places:
        raise ValueError(f"{PAGE.name}: no place is called {place}; there are {', '.join(places)}")
    return MARKED.sub(lambda match: f"{match[1]}\n{text}\n\n{match[3]}" if match[2] == place else match[0], page)


def image(figure: str, place: str) -> str:
    """Return the file name of a figure of `place`."""
    return f"{place}-{figure.replace('_', '-')}.svg"


if __name__ == "__main__":
    sys.exit(main())
