"""Errors that a user can cause, told in two lines: what is wrong and where; what to do."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable

from rollout_bench.core.interrupts import INTERRUPTED

LEFT_OUT_STATUS = 3
"""Exit status of a command that did its work and left out damaged records."""

_LONGEST = 10_000
"""Characters of an error's line: more than any list that is of use."""

_NOT_ASCII = re.compile(r"[^ -~\n\t]")
"""What may be more than a letter."""


def printable(text: str, most: int = 300) -> str:
    """Return `text`, which somebody else wrote, so that it can do nothing but be read.

    Line breaks and tabs stay. Control characters, invisible ones and marks that reverse the direction of writing become
    visible escapes, as `\\x1b`: a terminal obeys them, and they hide what else is there.

    Args:
        text: a server's answer, a line of a log, the name in a file that anybody may have written.
        most: characters of the result; a longer one ends with "...".
    """
    head = text[: most + 1]  # what is cut off anyway is not looked at: it may be megabytes
    shown = _NOT_ASCII.sub(_visible, head)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def shown(value: object) -> str:
    """Return a value as messages show it."""
    return printable(repr(value), 60)


def _visible(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else found[0].encode("unicode_escape").decode()


class UserError(Exception):
    """Something a user can mend.

    Args:
        problem: what is wrong and where, in one line.
        remedy: what to do about it, in one line.
        status: exit status of the command that it ends.
    """

    def __init__(self, problem: str, remedy: str, status: int = 1) -> None:
        self.status = status
        self.problem = printable(" ".join(problem.split()), _LONGEST)
        self.remedy = printable(" ".join(remedy.split()), _LONGEST)
        super().__init__(f"{self.problem}\n  -> {self.remedy}")


def near_miss(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` was most likely meant to be, or None if none is close."""
    matches = difflib.get_close_matches(word.lower(), {k.lower(): k for k in known}, n=1, cutoff=0.6)
    return next((k for k in known if matches and k.lower() == matches[0]), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a remedy for an unknown word: the near miss if there is one, else the words that are known."""
    known = sorted(known)
    close = near_miss(word, known)
    if close is not None:
        return f"did you mean '{close}'?"
    return f"known: {', '.join(known)}" if known else "none is defined"


def tell(errors: Iterable[UserError]) -> int:
    """Print `errors` on stderr, each once; return the exit status of a command that left out what they are about."""
    told = dict.fromkeys(map(str, errors))
    for text in told:
        print(text, file=sys.stderr)
    return LEFT_OUT_STATUS if told else 0


def run_command(main: Callable[[], int]) -> None:
    """Run a command's `main` and turn a `UserError` into two lines on stderr and its exit status."""
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
