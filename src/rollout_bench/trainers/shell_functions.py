"""Functions of a shell script: the commands of a simple one stand in place of each of its calls."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rollout_bench.trainers.shell_words import ASSIGNMENT, BETWEEN, CLOSING, NAME, OPENING, Command, Piece, Word

_KEYWORDS = {*BETWEEN, *OPENING, *CLOSING, "function", "return"}

_FUNCTION_NAME = re.compile(r"[A-Za-z_][\w-]*")

_NUMBERED = re.compile(r"\$(?:([1-9])|\{([1-9])\})")

_OTHER_ARGUMENTS = re.compile(r"\$\{?[@*#0-9]|\bBASH_ARG|\bFUNCNAME")
"""Arguments of a function in a form that is not followed."""

_MOST = 8
"""Functions that call one another, at most."""


@dataclass(frozen=True)
class _Function:
    """A function: the place of its first and last command, and its own commands."""

    name: str
    first: int
    last: int
    body: Sequence[Command]

    def others(self, found: Sequence[Command]) -> list[Command]:
        """Return the commands outside of it."""
        return [one for place, one in enumerate(found) if not self.first <= place <= self.last]


def inlined(found: Sequence[Command]) -> list[Command]:
    """Return the commands `found` with those of simple functions in place of their calls, and not where they are made.

    A function is simple if it is made once, outside of all blocks; its commands form no block; and it takes its
    arguments as "$@", $1 and by shift alone. What another is, stays as it is.
    """
    made = [*found]
    for _ in range(_MOST):
        for function in _functions(made):
            others, calls = function.others(made), _calls(function, made)
            body = _without_local(function.body, others)
            runs = [_run(body, one) if one in calls else [one] for one in others]
            if calls and all(runs):
                made = [*itertools.chain.from_iterable(runs)]
                break
        else:
            break
    return made


def _functions(found: Sequence[Command]) -> Iterator[_Function]:
    """Yield each function that is made once, outside of all blocks, and whose commands form no block."""
    depth, times = 0, dict[str, int]()
    functions = list[_Function]()
    for place, command in enumerate(found):
        name, opens = _begun(found, place)
        if name:
            times[name] = times.get(name, 0) + 1
            last = next((at for at in range(opens, len(found)) if _texts(found[at])[:1] == ["}"]), None)
            inner = _inner(found, opens, last) if last is not None else []
            if inner and last is not None and depth == 0 and not command.is_inside and _texts(found[last]) == ["}"]:
                functions.append(_Function(name, place, last, inner))
        words = [word.text for word in command.words if word.is_bare]
        depth += sum(word in OPENING for word in words) - sum(word in CLOSING for word in words[:1])
    yield from (one for one in functions if times[one.name] == 1)


def _texts(command: Command) -> list[str]:
    return [word.text for word in command.words]


def _begun(found: Sequence[Command], place: int) -> tuple[str, int]:
    """Return the name of the function that begins at `place`, and the place of its brace; empty if none does."""
    texts, after = _texts(found[place]), found[place].after.lstrip()
    if texts[:1] == ["function"] and len(texts) > 1:
        return texts[1], place if "{" in texts else place + 1
    if len(texts) == 1 and after.startswith("()") and _FUNCTION_NAME.fullmatch(texts[0]):
        return texts[0], place + 1
    return "", place


def _inner(found: Sequence[Command], opens: int, last: int) -> list[Command]:
    """Return the commands between the brace at `opens` and that at `last`; empty if they form blocks, or are none."""
    words = found[opens].words
    at = next((number for number, word in enumerate(words) if word.text == "{"), None)
    if at is None:
        return []
    inner = [replace(found[opens], words=words[at + 1 :]), *found[opens + 1 : last]]
    inner = [one for one in inner if one.words]
    is_plain = all(not {word.text for word in one.words if word.is_bare} & _KEYWORDS for one in inner)
    return inner if is_plain and not any("(" in one.before.removeprefix("()") for one in inner) else []


def _calls(function: _Function, found: Sequence[Command]) -> list[Command]:
    """Return the calls of a function; none if its name also stands elsewhere, as in export -f NAME."""
    others = function.others(found)
    calls = [one for one in others if one.words[0].is_bare and one.words[0].text == function.name]
    named = sum(word.text == function.name for one in others for word in one.words if word.is_bare)
    early = any(one is call for call in calls for one in found[: function.first])
    return calls if named == len(calls) and not early else []


def _without_local(body: Sequence[Command], others: Sequence[Command]) -> list[Command]:
    """Return the commands of a function without the word `local` before variables that stand nowhere else."""
    elsewhere = {name for one in others for word in one.words for name in re.findall(NAME, word.text)}
    return [
        replace(one, words=one.words[1:])
        if one.words[0].text == "local"
        and all((found := ASSIGNMENT.match(word.text)) and found[1] not in elsewhere for word in one.words[1:])
        else one
        for one in body
    ]


def _run(body: Sequence[Command], call: Command) -> list[Command]:
    """Return the commands that a call runs; none if its arguments are taken in a form that is not followed."""
    given, made = call.words[1:], list[Command]()
    if any(word.variable for word in given) and _changed(body) & _named(given):
        return []  # the shell takes their values before, and may make several words of one
    for one in body:
        texts = _texts(one)
        if texts[0] == "shift":
            number = int(texts[1]) if texts[1:] and texts[1].isdecimal() else 1
            if any(word.variable for word in given[:number]) or len(texts) > 2 or not _ENDS.fullmatch(one.after):
                return []
            given = given[number:]
            continue
        words = [_with_arguments(word, given) for word in one.words]
        if None in words:
            return []
        inner = [each for several in words for each in several or ()]
        made.append(replace(one, words=inner, is_inside=one.is_inside or call.is_inside))
    is_list = _ENDS.fullmatch(call.before) and _ENDS.fullmatch(call.after)
    if not made or not all(one.words for one in made) or (len(made) > 1 and not is_list):
        return []
    made[0] = replace(made[0], before=call.before)
    made[-1] = replace(made[-1], after=call.after, writes=(*made[-1].writes, *call.writes))
    return made


_ENDS = re.compile(r"[\n;]*")
"""What ends a command, without a condition, pipe or background."""

_CHANGING = {"eval", "source", ".", "read", "mapfile", "readarray", "let", "printf", "getopts", "unset"}


def _changed(body: Sequence[Command]) -> set[str]:
    """Return the variables that the commands may change; one of them is empty if any may be."""
    first = {one.words[0].text for one in body}
    found = (ASSIGNMENT.match(word.text) for one in body for word in one.words)
    return {one[1] for one in found if one} | ({""} if first & _CHANGING else set())


def _named(words: Sequence[Word]) -> set[str]:
    """Return the names in the variables of words, and an empty one."""
    pieces = (piece.text for word in words for piece in word.pieces if piece.is_variable)
    return {"", *(name for text in pieces for name in re.findall(NAME, text))}


def _with_arguments(word: Word, given: Sequence[Word]) -> list[Word] | None:
    """Return a word of a function with the arguments `given` in it; None if it takes them in another form."""
    if word.text == "$@" and not word.is_bare:
        return [*given]
    if any(_OTHER_ARGUMENTS.search(one.text) for one in word.elements or ()):
        return None
    pieces = list[Piece]()
    for piece in word.pieces:
        number = _NUMBERED.fullmatch(piece.text) if piece.is_variable else None
        if number is None and piece.is_variable and _OTHER_ARGUMENTS.search(piece.text):
            return None
        place = int(number[1] or number[2]) if number else 0
        if not place:
            pieces.append(piece)
        elif (
            place > len(given) or any(one.variable for one in given[:place]) or re.search(r"\s", given[place - 1].text)
        ):
            return None
        else:
            pieces.append(Piece(given[place - 1].text, is_bare=piece.is_bare))
    return [replace(word, pieces=tuple(pieces))]
