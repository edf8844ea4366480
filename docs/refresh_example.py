#!/usr/bin/env python3
"""Copies a real result into the documentation: figures to docs/images/, conclusion and tables to README and tutorial.

What stands between `<!-- example: NAME -->` and `<!-- end of example -->` is replaced by that part of
RESULTS_DIR/summary.md. Run it after `make demo`; with --check nothing is changed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/quickstart.md")
FIGURES = ("throughput.svg", "speedup.svg", "iterations.svg")

HEADINGS = {
    "conclusion": "Conclusion",
    "throughput": "Throughput: offline",
    "rates": "Rates, start-up and memory: offline",
    "cost": "What a launch costs: offline",
    "e2el": "Time until a sequence is complete (E2EL), s: offline",
}
"""Parts that pages can name, by what their headings in summary.md begin with."""

NO_PERCENTILES = "There is no such table here: there are too few independent values for any percentile."

MARKED = re.compile(r"(<!-- example: (\S+) -->\n).*?(<!-- end of example -->)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=REPOSITORY / "results", metavar="RESULTS_DIR")
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 where something would")
    arguments = parser.parse_args()
    try:
        found = parts((arguments.results / "summary.md").read_text())
        changes = {path: (REPOSITORY / path, filled((REPOSITORY / path).read_text(), found)) for path in PAGES}
        figures = [arguments.results / "figures" / name for name in FIGURES]
        stale = [name for name, (path, content) in changes.items() if path.read_text() != content]
        stale += [f"docs/images/{path.name}" for path in figures if not _same(path, _image(path))]
        if not arguments.check:
            for path, content in changes.values():
                path.write_text(content)
            for path in figures:
                _image(path).parent.mkdir(exist_ok=True)
                shutil.copyfile(path, _image(path))
    except (OSError, ValueError) as error:
        print(f"{error}\n  -> run `make demo` first, or give the folder of a result that is complete", file=sys.stderr)
        return 1
    print("\n".join(f"{'out of date' if arguments.check else 'refreshed'}: {name}" for name in stale) or "up to date")
    return 1 if arguments.check and stale else 0


def parts(summary: str) -> dict[str, str]:
    """Return the parts of a summary.md that pages can name: status, machine, and of `HEADINGS` those that are there.

    Of a section it is the first paragraph, which is its list or its table. A table without any value is not in a
    summary; where that is the table of percentiles, a sentence stands for it.

    Raises:
        ValueError: the summary is incomplete, or two of its sections begin alike.
    """
    status = next(line for line in summary.splitlines() if "measured" in line)
    if "INCOMPLETE" in status:
        raise ValueError(f"summary.md: {status}")
    found = {"status": status}
    for heading, content in re.findall(r"^## ([^\n]+)\n\n(.*?)(?=\n\n|\Z)", summary, re.DOTALL | re.MULTILINE):
        for name, beginning in HEADINGS.items():
            if not heading.startswith(beginning):
                continue
            if name in found:
                raise ValueError(f"summary.md: two sections begin with '## {beginning}'")
            found[name] = content.rstrip()
    machine = re.search(r"^## Measured with\n\n- \S+, \S+: (.*?), host [^,]+(, rollout-bench \S+)?\.$", summary, re.M)
    if machine is not None:
        without_kernel = re.sub(r"\bLinux \S+$", "Linux", machine[1])
        found["machine"] = f"Measured with {without_kernel}."
    found.setdefault("e2el", NO_PERCENTILES)
    return found


def filled(page: str, found: dict[str, str]) -> str:
    """Return `page` with each marked place filled; raise `ValueError` for a name that the summary does not have."""
    unknown = [name for _, name, _ in MARKED.findall(page) if name not in found]
    if unknown:
        raise ValueError(f"no part of the summary is called {', '.join(unknown)}; there are {', '.join(found)}")
    return MARKED.sub(lambda match: f"{match[1]}{found[match[2]]}\n{match[3]}", page)


def _image(figure: Path) -> Path:
    return REPOSITORY / "docs" / "images" / figure.name


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
