"""The simple commands of a shell script, and their words. Nothing is executed or expanded."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rollout_bench.core.secrets import looks_secret, may_be_secret

_BALANCED = r"(?:[^()]|\((?:[^()]|\([^()]*\))*\))*"
_BRACED = r"(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*"
VARIABLE = (
    rf"\$\(\({_BALANCED}\)\)|\$\({_BALANCED}\)|`[^`]*`|\$\{{{_BRACED}\}}|\$\[[^]]*\]"
    r"|\$(?:[A-Za-z_]\w*|[0-9@*\#?$!-])|\$\("
)
"""Pattern of what the shell replaces by a value."""

_PART = re.compile(
    rf"""(?P<join>\\\n)|(?P<comment>(?<![^\s;&|(])\#[^\n]*)|(?P<calculation>(?<![\w=)$(])\(\({_BALANCED}\)\))
    |(?P<redirection>&?\d*[<>]+&?[ \t]*(?:"(?:\\.|[^"\\])*"|'[^']*'|[^\s;&|()'"])*)
    |(?P<end>(?:(?!\(\()[\n;&|()])+|\()|(?P<space>[ \t]+)|\$'(?P<escapes>(?:\\.|[^'\\])*)'
    |'(?P<quoted>[^']*)'|\$?"(?P<expanded>(?:\\.|[^"\\])*)"|\\(?P<escaped>.)
    |(?P<variable>{VARIABLE})|(?P<bare>[^\s'"\\;&|()<>$`]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_HERE_DOCUMENT = re.compile(r"(?<!<)<<-?[ \t]*['\"]?(\w+)['\"]?([^\n]*\n)(.*?^\s*\1)$", re.DOTALL | re.MULTILINE)
_EXPANDED = re.compile(rf"\\(?P<escaped>[\"\\$`\n])|(?P<variable>{VARIABLE})|(?P<text>.[^\\$`]*)", re.DOTALL)

NAME = r"[A-Za-z_]\w*"
ASSIGNMENT = re.compile(rf"({NAME})(?P<more>\[[^]]*\]|\+)*=")

BETWEEN = ("then", "do", "else", "elif", "!", "time")
OPENING, CLOSING = ("if", "for", "while", "until", "case", "select", "{"), ("fi", "done", "esac", "}")


@dataclass(frozen=True)
class Piece:
    """A part of a word: a variable, such as $NAME or $(command), or text. Outside of quotes it is bare.

    Attributes:
        cause: the place in the script because of which the value of the variable is unknown; empty: none.
    """

    text: str
    is_variable: bool = False
    is_bare: bool = False
    cause: str = ""


@dataclass(frozen=True)
class Word:
    """A word of a command.

    Attributes:
        pieces: its parts, without quotes.
        taken: NAME=value of each variable whose value stands in its place.
        elements: words in the brackets of an array's assignment, `NAME=(...)`; None without brackets.
        written_by: place in the script where the file that it names may be written; empty: none.
    """

    pieces: tuple[Piece, ...]
    taken: tuple[str, ...] = ()
    elements: tuple["Word", ...] | None = None
    written_by: str = ""

    @property
    def text(self) -> str:
        """The word without quotes; a variable stays as it is written."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def variable(self) -> str:
        """The first variable in the word; empty without one."""
        return next((piece.text for piece in self.pieces if piece.is_variable), "")

    @property
    def cause(self) -> str:
        """The place in the script because of which the first variable is unknown; empty: none."""
        return next((piece.cause for piece in self.pieces if piece.is_variable), "")

    @property
    def is_bare(self) -> bool:
        """Whether the word begins outside of quotes."""
        return bool(self.pieces) and self.pieces[0].is_bare

    def without(self, begin: str) -> "Word":
        """Return what follows the text `begin` in the word."""
        left, pieces = len(begin), []
        for piece in self.pieces:
            pieces += [replace(piece, text=piece.text[left:])] if left < len(piece.text) else []
            left = max(left - len(piece.text), 0)
        return replace(self, pieces=tuple(pieces))

    def as_conditional(self, name: str, cause: str = "") -> "Word":
        """Return the word as one that only a condition puts into the array `name`: its value is a variable."""
        begin, equals, _ = self.text.partition("=")
        unknown = Piece(f"${{{name}[@]}}", is_variable=True, cause=cause)
        return replace(self, pieces=(Piece(f"{begin}="), unknown) if equals else (unknown,))


@dataclass(frozen=True)
class Command:
    """A simple command.

    Attributes:
        words: its words.
        before: the operators and ends of lines before it, without brackets of patterns of `case`.
        after: those that follow it.
        is_inside: whether it is in a subshell, as a block in a pipe or in the background is.
        place: its line, for messages.
        writes: the files that its output goes to.
    """

    words: list[Word]
    before: str
    after: str
    is_inside: bool
    place: str = ""
    writes: tuple[Word, ...] = ()

    @property
    def reads_pipe(self) -> bool:
        """Whether a pipe leads to it."""
        return re.search(r"(?<!\|)\|\n*$", self.before) is not None

    @property
    def ends_apart(self) -> bool:
        """Whether what follows puts it, or the block that it ends, into a pipe or into the background."""
        return self.after[:1] in ("|", "&") and self.after[:2] not in ("||", "&&")

    @property
    def text(self) -> str:
        """The command as it is written, without quotes and secrets, in `LONGEST` characters or less."""
        text = " ".join(" ".join(word.text for word in self.words).split())
        pairs = (word.text.partition("=") for word in self.words)
        if looks_secret(text) or any(may_be_secret(name, value) for name, equals, value in pairs if equals):
            return f"{self.words[0].text.partition('=')[0]}..."
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


LONGEST = 60
"""Characters of a command in a message."""


def commands(script: str, name: str = "") -> list[Command]:
    """Return the simple commands of a shell script, in turn; messages name the lines of the file `name`."""
    found: list[tuple[str, list[Word]]] = [("", [])]
    lines: list[int] = []
    writes: dict[int, list[Word]] = defaultdict(list)
    pieces: list[Piece] = []
    array: list[Word] | None = None
    open_word = False
    script = _HERE_DOCUMENT.sub(lambda one: one[2] + "\n" * one[3].count("\n"), script.replace("\r\n", "\n"))
    for kind, text, place in _parts(script + "\n"):
        if kind not in ("comment", "redirection", "end", "space"):
            if not found[-1][1] and not open_word:
                lines = [*lines[: len(found) - 1], script.count("\n", 0, place) + 1]
            open_word = True
            pieces += _pieces(kind, text)
            continue
        words = found[-1][1]
        if open_word:
            (words if array is None else array).append(Word(tuple(pieces)))
        if kind == "end" and (array is not None or (open_word and _begins_array(words[-1], text))):
            array, closes, text = array or [], *text.removeprefix("(" if array is None else "").partition(")")[1:]
            if closes:
                words[-1] = replace(words[-1], elements=tuple(array))
                array = None
        pieces, open_word = [], False
        if array is None and kind in ("end", "redirection") and text and _is_in_test(words):
            words += [Word((piece,)) for piece in _of_a_test(kind, text)]
        elif kind == "end" and text:
            _end(found, text)
        elif kind == "redirection":
            writes[len(found) - 1] += _written(text)
        elif array is None and _ends_case(words):
            _end(found, "\n")
    made = _nested_commands(found, [f"{name} line {line}".strip() for line in lines])
    apart = _apart(made)
    return [
        replace(one, writes=tuple(writes[place]), is_inside=one.is_inside or place in apart)
        for place, one in enumerate(made)
    ]


def _apart(made: Sequence[Command]) -> set[int]:
    """Return the places of commands in blocks that are in a pipe or in the background, and in lists that are."""
    apart: set[int] = set()
    opened: list[int] = []
    begins = 0  # of the list of commands that are joined by && and ||
    for place, command in enumerate(made):
        if not re.search(r"(&&|\|\|)\n*$", command.before):
            begins = place
        words = [word.text for word in command.words if word.is_bare]
        opened += [place] * sum(word in OPENING for word in words)
        if words and words[0] in CLOSING and opened:
            first = opened.pop()
            apart |= {*range(first, place + 1)} if made[first].reads_pipe or command.ends_apart else set()
            begins = min(begins, first)
        elif command.after[:1] == "&" and command.after[:2] != "&&":
            apart |= {*range(begins, place + 1)}
    return apart


def _written(redirection: str) -> list[Word]:
    """Return the file that a redirection sends output to; empty for others."""
    target = re.match(r"&?\d*<?>[>|&]?[ \t]*(.+)", redirection, re.DOTALL)
    return [word for one in commands(target[1]) for word in one.words] if target else []


def _parts(script: str) -> Iterator[tuple[str, str, int]]:
    """Yield kind, text and place of each part of a script, without the joints of lines."""
    for part in _PART.finditer(script):
        if (kind := str(part.lastgroup)) != "join":
            yield kind, part[kind], part.start()


def _begins_array(word: Word, end: str) -> bool:
    return end.startswith("(") and re.fullmatch(rf"{NAME}\+?=", word.text) is not None


def _own(words: Sequence[Word]) -> Sequence[Word]:
    """Return the words after those of the shell's own that stand between commands."""
    place = 0
    while place < len(words) and words[place].is_bare and words[place].text in (*BETWEEN, "if", "while", "until", "{"):
        place += 1
    return words[place:]


def _is_in_test(words: Sequence[Word]) -> bool:
    own = _own(words)
    return bool(own) and own[0].is_bare and own[0].text == "[[" and own[-1].text != "]]"


def _of_a_test(kind: str, text: str) -> Iterator[Piece]:
    """Return the operators in a test `[[ ... ]]`; a comparison of the order of texts is unknown."""
    if kind == "redirection":
        yield Piece(text, is_variable=True)
    else:
        yield from (Piece(one, is_variable=one == "|", is_bare=True) for one in re.findall(r"&&|\|\|?|[()]", text))


def _ends_case(words: Sequence[Word]) -> bool:
    own = [word.text for word in _own(words)]
    return len(own) == 3 and (own[0], own[2]) == ("case", "in")


def _end(found: list[tuple[str, list[Word]]], text: str) -> None:
    """End the last command by an operator, or add this to those before it."""
    before, words = found[-1]
    if words:
        found.append((text, []))
    else:
        found[-1] = (before + text, words)


def _pieces(kind: str, text: str) -> list[Piece]:
    if kind == "escapes":
        return [Piece(f"$'{text}'", is_variable=True) if "\\" in text else Piece(text)]
    if kind != "expanded":
        return [Piece(text, is_variable=kind == "variable", is_bare=kind in ("variable", "bare", "calculation"))]
    return [
        Piece(one["escaped"].replace("\n", "") if one["escaped"] else one[0], is_variable=bool(one["variable"]))
        for one in _EXPANDED.finditer(text)
    ] or [Piece("")]


def _nested_commands(found: Sequence[tuple[str, list[Word]]], places: Sequence[str]) -> list[Command]:
    """Return the commands of what stands before each and its words; the last has no words."""
    made: list[Command] = []
    subshells = 0
    asks: list[bool] = []  # of each case that is open, whether a pattern of it is being read
    closes = False
    for (place, (before, words)), (_, (after, _)) in pairwise(enumerate(found)):
        before = before.replace(")", "", 1) if closes else before
        if asks and re.search(r";;|;&", before):
            asks[-1] = True
        closes = bool(asks) and asks[-1] and words[0].text != "esac"
        before = before.replace("(", "", 1) if closes else before
        subshells = max(subshells + before.count("(") - before.count(")"), 0)
        made.append(Command(words, before, after, subshells > 0, places[place]))
        if closes and after.startswith(")"):
            asks[-1] = False
        closes &= after.startswith(")")
        if _ends_case(words):
            asks.append(True)
        elif words[0].is_bare and words[0].text == "esac" and asks:
            asks.pop()
    return made
