"""What the documentation pages contain, for the tests that hold them to the code."""

from __future__ import annotations

import re
import shlex
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
GENERATED = REPOSITORY / "docs" / "reference"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the page it stands in and the line it begins at."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command line in a shell block, without its comment."""

    block: Block
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.block.page.stem}: {' '.join(self.words)}"


def pages() -> list[Path]:
    """Return every page of the documentation, the generated ones too."""
    return [
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *sorted((REPOSITORY / "docs").rglob("*.md")),
    ]


def prose(page: Path) -> str:
    """Return the text of a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the fenced blocks of a page in these languages."""
    text = page.read_text()
    fence = re.compile(r"^ *```(\S*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
    found = [Block(page, text[: m.start()].count("\n") + 1, m[1], textwrap.dedent(m[2])) for m in fence.finditer(text)]
    return [block for block in found if block.language in languages]


def commands(page: Path, program: str) -> list[Command]:
    """Return the command lines in a page's shell blocks that run `program`."""
    found = []
    for block in blocks(page, "shell"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == program:
                found.append(Command(block, tuple(words)))
    return found


def named_configs(page: Path) -> dict[str, str]:
    """Return configs that a page shows.

    File name in the first line -> content, fit for a machine without the paths in it.
    """
    named = {}
    for block in blocks(page, "yaml"):
        match = re.match(r"# (\S+\.yaml)\n", block.text)
        if match:
            named[match[1]] = re.sub(r"(?m)^(\s*python:) /\S+$", rf"\1 {sys.executable}", block.text)
    return named
