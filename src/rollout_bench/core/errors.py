"""Errors that a user can cause. Each message has two lines: the problem with its place, and the remedy."""

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rollout_bench.core.interrupts import INTERRUPTED

LEFT_OUT_STATUS = 3
"""Exit status of a command that did its work and left out damaged records."""

_LONGEST = 10_000
"""Maximum characters of an error's line. No useful list is longer."""

_NOT_ASCII = re.compile(r"[^ -~\n\t]")
"""Characters that may be unprintable."""


HOMES = Path(__file__).parents[1] / "share", Path(__file__).parents[3]
"""Where the pages lie: in an installed package, or in a clone."""

_PAGE = re.compile(r"(?<![\w/])(?:docs/[\w/-]+\.(?:md|csv)|config/README\.md)")


def printable(text: str, most: int = 300) -> str:
    """Return `text` from an untrusted source in a form that is safe to print.

    Line breaks and tabs stay. Control characters, invisible characters and direction marks become visible escapes such
    as `\\x1b`, because a terminal obeys them or they hide other text.

    Args:
        text: a server's answer, a line of a log, or a name from a file that anybody may have written.
        most: maximum characters of the result; a shortened text ends with "...".
    """
    head = text[: most + 1]  # the rest may be megabytes
    shown = _NOT_ASCII.sub(_visible, head)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def value_text(value: object) -> str:
    """Return a value as text for a message."""
    return printable(repr(value), 60)


def _visible(character: re.Match[str]) -> str:
    return character[0] if character[0].isprintable() else character[0].encode("unicode_escape").decode()


def _page_as_seen(page: re.Match[str]) -> str:
    """Return the path of a page as it is found from this folder."""
    places = [Path(page[0]), *(home / page[0] for home in HOMES)]
    return str(next((place for place in places if place.exists()), page[0]))


class UserError(Exception):
    """An error that the user can fix.

    Args:
        problem: the problem and its place, in one line.
        remedy: what the user should do, in one line.
        status: exit status of the command that the error ends.
    """

    def __init__(self, problem: str, remedy: str, status: int = 1) -> None:
        self.status = status
        self.problem = printable(" ".join(problem.split()), _LONGEST)
        remedy = _PAGE.sub(_page_as_seen, remedy)
        self.remedy = printable(" ".join(remedy.split()), _LONGEST)
        super().__init__(f"{self.problem}\n  -> {self.remedy}")


class UnmeasurableError(UserError):
    """A combination of a plan that cannot be measured: it is skipped, with the reason."""


class MeasuringFailed(UserError):  # noqa: N818 (an outcome)
    """A launch cannot be measured. Whoever records it knows the phase.

    Args:
        category: category of the failure, one of `FAILURES`; empty if the end of the engine's log has the reason.
        problem: the cause in one line, without any key.
        remedy: what the user should do, in one line.
        instead: what may stand where the config has what is wrong: models that a server has, or its address.
    """

    def __init__(self, category: str, problem: str, remedy: str, instead: Sequence[str] = ()) -> None:
        self.category = category
        self.instead = instead
        super().__init__(printable(problem, 1000), remedy)


def near_miss(word: str, known: Iterable[str], least: float = 0.6) -> str | None:
    """Return the known word closest to `word`, or None if none has at least the similarity `least` (0 to 1).

    It begins with the same letter, as nine of ten misspelt words do (Pollock and Zamora 1984, 10.1145/358027.358048):
    nodes means no modes.
    """
    names = {name.lower(): name for name in known if _first_letter(name) == _first_letter(word)}
    matches = difflib.get_close_matches(word.lower(), names, n=1, cutoff=least)
    return names[matches[0]] if matches else None


def _first_letter(word: str) -> str:
    return next(filter(str.isalnum, word.lower()), "")


def closest(word: str, known: Iterable[str], least: float = 0.6) -> str | None:
    """Return the near miss of `word`, or the only known word that has it as a part: request_rate for rate."""
    known = list(known)
    holding = [name for name in known if word.lower() in re.split(r"[_-]", name)]
    return near_miss(word, known, least) or (holding[0] if len(holding) == 1 else None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a remedy for an unknown word: the closest known word, or all known words if none is similar."""
    known = sorted(known, key=lambda name: (int(name) if name.isdecimal() else -1, name))
    if (close := closest(word, known)) is not None:
        return f"did you mean '{close}'?"
    return f"known: {', '.join(known)}" if known else "none is defined"


def print_errors(errors: Iterable[UserError]) -> int:
    """Print each distinct error once on stderr.

    Returns:
        `LEFT_OUT_STATUS` if there are errors, else 0.
    """
    texts = dict.fromkeys(map(str, errors))
    for text in texts:
        print(text, file=sys.stderr)
    return LEFT_OUT_STATUS if texts else 0


def run_command(main: Callable[[], int]) -> None:
    """Run a command's `main` and exit. A `UserError` becomes two lines on stderr and its exit status."""
    try:
        status = main()
    except UserError as error:
        print(error, file=sys.stderr)
        status = error.status
    except BrokenPipeError:
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status)
