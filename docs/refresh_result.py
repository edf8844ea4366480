#!/usr/bin/env python3
"""Copies a real result into a page of docs/results/: answer, tables and doubts; its figures to docs/images/.

What stands between `<!-- result -->` and `<!-- end of result -->` is replaced by those parts of RESULTS_DIR/summary.md;
with --place cpu, what stands between `<!-- result: cpu -->` and the end of that.
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
    "drift": "Drift of each quantization from the reference, and the reference's own floor",
    "settings": "Throughput over the number that settings go through, a line for each of the others",
    "anatomy": "Running sequences over time in the median step, a line for each setting; t50, t90 and the end marked",
    "kv_cache": "Share of each engine's KV cache that is in use, over the median step",
    "cycle": "Seconds of a step: generation and each part of the transition, a bar for each configuration",
    "placement": "What each device does in a typical step, a lane for each device",
    "startup": "What a start costs: a panel for each, in which each phase begins where it begins",
    "message_shares": "Share of a decode step over the batch, a line for each experiment",
    "messages": "Bytes of messages in each step, a line for each link",
}
"""Those that are copied where they were drawn, with what an image of each shows."""

ANSWERS = (
    "Conclusion",
    "Drift: is it still",
    "What messages cost today",
    "Router\n",
    "What a step costs\n",
    "Where engine and trainer should live\n",
    "Where the time of a step goes\n",
    "Proofs of new weights\n",
    "What a start costs, and which part\n",
)

SECTIONS = (
    *ANSWERS,
    "How it was measured",
    "Drift: ",
    "Drift, weights and choices: ",
    "What a step costs: ",
    "Lengths at which it pays: ",
    "Parts of a transition: ",
    "Parts of an update: ",
    "Memory: ",
    "Where engine and trainer live: ",
    "Parts of a step: ",
    "Engines asleep: ",
    "Starts: ",
    "Phases of a start: ",
    "What a start found: ",
    "What each device does: ",
    "Throughput: ",
    "Speculative decoding: ",
    "Energy: ",
    "Latency, means: ",
    "Anatomy of a step: ",
    "Router: ",
    "Replicas: ",
    "Rates, start-up and memory: ",
    "Messages, ",
    "What a worker that remembers would save",
    "Left out",
    "Flags",
    "Measured with",
)
"""Beginnings of the headings that are copied; a definition of each column is in every summary."""

MARKED = re.compile(r"(<!-- result(?:: (\S+))? -->\n).*?(<!-- end of result -->)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, metavar="PAGE", help="a page with a place for a result")
    parser.add_argument("results", type=Path, metavar="RESULTS_DIR")
    parser.add_argument("--place", default="", help="which place of the page, where it has several: cpu, h200")
    arguments = parser.parse_args()
    page: Path = arguments.page
    name_of_images = arguments.place or page.stem
    figures = {name: arguments.results / "figures" / f"{name}.svg" for name in FIGURES}
    drawn = {name: path for name, path in figures.items() if path.is_file()}
    try:
        text = found((arguments.results / "summary.md").read_text(), name_of_images, drawn)
        page.write_text(filled(page.read_text(), text, arguments.place))
        for name, path in drawn.items():
            shutil.copyfile(path, IMAGES / image(name_of_images, name))
    except (OSError, ValueError) as error:
        print(f"{error}\n  -> give a page with a place for a result, and the folder of a complete one", file=sys.stderr)
        return 1
    return 0


def found(summary: str, images: str, figures: Iterable[str]) -> str:
    """Return what `summary`, a summary.md, has for a page of results, one heading level lower.

    Links to `figures`, whose images begin with the name `images`, follow the answer. The machine's name and its
    kernel's version are left out.

    Raises:
        ValueError: the summary is incomplete, or has no conclusion.
    """
    head, *parts = re.split(r"^## ", summary, flags=re.MULTILINE)
    status = next((line for line in head.splitlines() if "measured" in line), "nothing is measured")
    if "INCOMPLETE" in status:
        raise ValueError(f"summary.md: {status}")
    # figures of the summary follow its last table
    chosen = [re.sub(r"^!\[.*\n?", "", part, flags=re.MULTILINE).strip() for part in parts if part.startswith(SECTIONS)]
    if not any(part.startswith(ANSWERS) for part in chosen):
        raise ValueError("summary.md: no conclusion: nothing is compared in it")
    chosen.sort(key=lambda part: not part.startswith(ANSWERS))
    links = [f"![{FIGURES[name]}](../images/{image(images, name)})" for name in figures]
    texts = [f"### {_anywhere(part)}" for part in chosen]
    return "\n\n".join([status, texts[0], *links, *texts[1:]])


def filled(page: str, text: str, place: str = "") -> str:
    """Return `page` with `text` at `place`; raise `ValueError` where it has no such place."""
    places = [name for _, name, _ in MARKED.findall(page)]
    if place not in places:
        there = f"; there are {', '.join(places)}" if any(places) else ""
        raise ValueError(
            f"the page has no place that begins with <!-- result{f': {place}' if place else ''} -->{there}"
        )
    return MARKED.sub(
        lambda match: f"{match[1]}\n{text}\n\n{match[3]}" if (match[2] or "") == place else match[0], page
    )


def image(name: str, figure: str) -> str:
    """Return the file name of a figure of the images called `name`."""
    return f"{name}-{figure.replace('_', '-')}.svg"


def _anywhere(text: str) -> str:
    without_kernel = re.sub(r"\bLinux \d[^\s,]*(?=,)", "Linux", text)
    return re.sub(r", host [^\s,]+?(?=,|\.$)", "", without_kernel, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main())
