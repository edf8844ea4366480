"""The table of an oracle: a line of JSON for each draw, with the facts that a trainer's own code gave for it."""

import argparse
import json
import lzma
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

SEED = 84


def refusal(error: BaseException) -> dict[str, str]:
    """Return the facts of a draw that the trainer refuses."""
    return {"refused": f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"}


def write_table(
    about: str,
    trainer: str,
    asked_by: tuple[str, ...],
    draws: int,
    rows: Callable[[int, int], Iterable[dict[str, Any]]],
    varying: tuple[str, ...] = (),
) -> None:
    """Write the table that the command line names, and print the draws whose facts have changed.

    Args:
        about: text of --help.
        trainer: its name and version.
        asked_by: names in a row that identify a draw.
        draws: number of draws, if the command line has none.
        rows: makes the rows from a number of draws and a seed.
        varying: names in a row that differ each time, as times do, and are no change.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="FILE.jsonl.xz with a line for each draw")
    parser.add_argument("--draws", type=int, default=draws)
    parser.add_argument("--seed", type=int, default=SEED)
    asked = parser.parse_args()

    def identity(row: dict[str, Any]) -> str:
        return json.dumps([row[name] for name in asked_by], sort_keys=True)

    before = {}
    if asked.table.exists():
        with lzma.open(asked.table, "rt") as lines:
            before = {identity(row): row for row in map(json.loads, lines)}
    found, changed = [], 0
    for made in rows(asked.draws, asked.seed):
        row = json.loads(json.dumps(made, sort_keys=True))  # as it is read back
        found.append(row)
        old = before.get(identity(row))
        names = [name for name in sorted((old or {}) | row) if (old or {}).get(name) != row.get(name)]
        names = [name for name in names if name not in varying]
        if old is not None and names:
            changed += 1
            print(identity(row), *(f"  {name}: {old.get(name)} -> {row.get(name)}" for name in names), sep="\n")
        print(f"\r{len(found)} draws", end="", file=sys.stderr)
    with lzma.open(asked.table, "wt", preset=9) as file:
        file.writelines(json.dumps(row, sort_keys=True) + "\n" for row in found)
    refused = sum("refused" in row for row in found)
    new = len({identity(row) for row in found} - before.keys())
    gone = len(before.keys() - {identity(row) for row in found})
    print(f"\r{trainer}: {len(found)} draws, {refused} that it refuses; {changed} have changed, {new} new, {gone} gone")
