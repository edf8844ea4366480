"""Make the JSON schema and the reference from the code: config, modes, metrics, records, flags, failures, commands.

With --check it writes nothing, and the exit status is 1 if a file is out of date.
"""

import argparse
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

from rollout_bench.__main__ import all_commands
from rollout_bench.__main__ import main as bench
from rollout_bench.core.errors import UserError, run_command
from rollout_bench.report.reference import (
    commands_text,
    config_table,
    failures_table,
    modes_table,
    numbers_table,
    records_table,
    remedies_table,
    with_table,
)

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exit status 1 if a file is out of date")
    arguments = parser.parse_args()
    stale = {path: content for path, content in made() if not path.is_file() or path.read_text() != content}
    if arguments.check and stale:
        names = ", ".join(str(path.relative_to(REPOSITORY)) for path in stale)
        raise UserError(f"out of date: {names}", "run `make docs` and commit what it changes")
    for path, content in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        print(f"wrote {path.relative_to(REPOSITORY)}")
    return 0


def made() -> Iterator[tuple[Path, str]]:
    """Yield every generated file with the content it should have."""
    reference = REPOSITORY / "docs" / "reference"
    yield reference / "config.csv", config_table()
    yield reference / "modes.csv", modes_table()
    yield reference / "numbers.csv", numbers_table()
    yield reference / "records.csv", records_table()
    docs = REPOSITORY / "docs"
    failed = with_table((docs / "troubleshoot.md").read_text(), "| category |", failures_table())
    yield docs / "troubleshoot.md", with_table(failed, "| flag |", remedies_table())
    helps = {"rollout-bench": _help_of()}
    helps |= {f"rollout-bench {name}": _help_of(name) for name in all_commands()}
    yield reference / "commands.txt", commands_text(helps, _rules())


def _help_of(*command: str) -> str:
    printed = io.StringIO()
    with patch.dict(os.environ, {"COLUMNS": "100"}), redirect_stdout(printed), suppress(SystemExit):
        bench([*command, "--help"])
    return printed.getvalue()


def _rules() -> str:
    """Return the output of `snakemake --list-rules`: name and description of each rule."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--list-rules", "--quiet"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    run_command(main)
