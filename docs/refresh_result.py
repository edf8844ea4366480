#!/usr/bin/env python3
"""Copies a real result into a page of docs/results/: answer, tables and doubts; its figures to docs/images/.

What stands between `<!-- result -->` and `<!-- end of result -->` is replaced by those parts of RESULTS_DIR/summary.md.
Run it after the workflow, on a machine that did nothing else.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

IMAGES = Path(__file__).resolve().parent / "images"

FIGURES = {
    "speedup": "Speed-ups over the default: a diamond for the ratio, a band for its interval",
    "settings": "Throughput over the number that settings go through, a line for each of the others",
    "pareto": "Throughput against start-up time: a point for each setting, steps along the Pareto front",
}
"""Those that are copied where they were drawn, with what an image of each shows."""

ANSWER = "Conclusion"

SECTIONS = (
    ANSWER,
    "How it was measured",
    "Throughput: ",
    "Rates, start-up and memory: ",
    "Left out",
    "Flags",
    "Measured with",
)
"""Beginnings of the headings that are copied; a definition of each column is in every summary."""

MARKED = re.compile(r"(<!-- result -->\n).*?(<!-- end of result -->)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, metavar="PAGE", help="a page with a place for a result")
    parser.add_argument("results", type=Path, metavar="RESULTS_DIR")
    arguments = parser.parse_args()
    page: Path = arguments.page
    figures = {name: arguments.results / "figures" / f"{name}.svg" for name in FIGURES}
    drawn = {name: path for name, path in figures.items() if path.is_file()}
    try:
        text = found((arguments.results / "summary.md").read_text(), page.stem, drawn)
        page.write_text(filled(page.read_text(), text))
        for name, path in drawn.items():
            shutil.copyfile(path, IMAGES / image(page.stem, name))
    except (OSError, ValueError) as error:
        print(f"{error}\n  -> give a page with a place for a result, and the folder of a complete one", file=sys.stderr)
        return 1
    return 0


def found(summary: str, page: str, figures: Iterable[str]) -> str:
    """Return what `summary`, a summary.md, has for the page of that name, one heading level lower.

    Links to `figures` follow the answer. The machine's name and its kernel's version are left out.

    Raises:
        ValueError: the summary is incomplete, or has no conclusion.
    """
    head, *parts = re.split(r"^## ", summary, flags=re.MULTILINE)
    status = next((line for line in head.splitlines() if "measured" in line), "nothing is measured")
    if "INCOMPLETE" in status:
        raise ValueError(f"summary.md: {status}")
    # figures of the summary follow its last table
    chosen = [re.sub(r"^!\[.*\n?", "", part, flags=re.MULTILINE).strip() for part in parts if part.startswith(SECTIONS)]
    if not any(part.startswith(ANSWER) for part in chosen):
        raise ValueError("summary.md: no conclusion: nothing is compared in it")
    chosen.sort(key=lambda part: not part.startswith(ANSWER))
    images = [f"![{FIGURES[name]}](../images/{image(page, name)})" for name in figures]
    texts = [f"### {_anywhere(part)}" for part in chosen]
    return "\n\n".join([status, texts[0], *images, *texts[1:]])


def filled(page: str, text: str) -> str:
    """Return `page` with `text` in its place; raise `ValueError` where it has none."""
    if not MARKED.search(page):
        raise ValueError("the page has no place that begins with <!-- result -->")
    return MARKED.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", page)


def image(page: str, figure: str) -> str:
    """Return the file name of a figure of a page."""
    return f"{page}-{figure}.svg"


def _anywhere(text: str) -> str:
    without_kernel = re.sub(r"\bLinux \d[^\s,]*(?=,)", "Linux", text)
    return re.sub(r", host [^\s,]+?(?=,|\.$)", "", without_kernel, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main())
