"""The simple commands of a shell script, with the values of variables that the script plainly assigns."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile

_VARIABLE = r"\$\(\(.*?\)\)|\$\([^()]*\)|`[^`]*`|\$\{[^}]*\}|\$[\w@*\#?]+|\$\("
_PART = re.compile(
    rf"""(?P<join>\\\n)|(?P<comment>(?<![^\s;&|(])\#[^\n]*)|(?P<redirection>&?\d*[<>]+&?[ \t]*[^\s;&|()]*)
    |(?P<end>[\n;&|()]+)|(?P<space>[ \t]+)|'(?P<quoted>[^']*)'|"(?P<expanded>(?:\\.|[^"\\])*)"|\\(?P<escaped>.)
    |(?P<variable>{_VARIABLE})|(?P<bare>[^\s'"\\;&|()<>$`]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_HERE_DOCUMENT = re.compile(r"(?<!<)<<-?[ \t]*['\"]?(\w+)['\"]?([^\n]*\n).*?^\s*\1$", re.DOTALL | re.MULTILINE)
_EXPANDED = re.compile(rf"\\(?P<escaped>[\"\\$`\n])|(?P<variable>{_VARIABLE})|(?P<text>.[^\\$`]*)", re.DOTALL)

_NAME = r"[A-Za-z_]\w*"
_REFERENCE = re.compile(rf"\$(?:({_NAME})|\{{({_NAME})(?P<empty>:)?(?:-(?P<default>[^$`{{}}'\"\\]*))?\}})")
"""A variable whose value the script may say: $NAME, ${NAME}, ${NAME:-default}."""

_ASSIGNMENT = re.compile(rf"({_NAME})(?P<more>\[[^]]*\]|\+)*=")
_SET_IF_MISSING = re.compile(rf"\$\{{({_NAME}):?=")
_NAMING = ("export", "readonly", "local", "declare", "typeset")
_CHANGING = ("read", "readarray", "mapfile", "getopts", "unset", "printf", "for", "select")
"""Commands that assign as their words say, and those whose words name variables that they change."""

_BETWEEN = ("then", "do", "else", "elif", "!", "time")
_OPENING, _CLOSING = ("if", "for", "while", "until", "case", "select", "{"), ("fi", "done", "esac", "}")


@dataclass(frozen=True)
class Piece:
    """A part of a word: a variable, such as $NAME or $(command), or text. Outside of quotes it is bare."""

    text: str
    is_variable: bool = False
    is_bare: bool = False


@dataclass(frozen=True)
class Word:
    """A word of a command.

    Attributes:
        pieces: its parts, without quotes.
        taken: NAME=value of each variable whose value stands in its place.
    """

    pieces: tuple[Piece, ...]
    taken: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The word without quotes; a variable stays as it is written."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def variable(self) -> str:
        """The first variable in the word; empty without one."""
        return next((piece.text for piece in self.pieces if piece.is_variable), "")

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

    def filled(self, known: Mapping[str, str], unclear: Collection[str], *, splits: bool) -> "Word":
        """Return the word with the values of variables.

        Args:
            known: name -> value.
            unclear: names whose value only the shell knows, so that their default may not hold.
            splits: whether the shell makes several words of a bare variable whose value has spaces.
        """
        pieces, taken = [], [*self.taken]
        for piece in self.pieces:
            found = _REFERENCE.fullmatch(piece.text) if piece.is_variable else None
            name = (found[1] or found[2]) if found else ""
            value = known.get(name)
            if found and name not in unclear and (value is None or (not value and found["empty"])):
                value = found["default"] if found["default"] is not None else value
            if value is None or (splits and piece.is_bare and re.search(r"\s", value)):
                pieces.append(piece)
            else:
                pieces.append(Piece(value))
                taken.append(f"{name}={value}")
        return Word(tuple(pieces), tuple(taken))


@dataclass(frozen=True)
class Command:
    """A simple command.

    Attributes:
        words: its words.
        before: the operators and ends of lines before it.
        after: those that follow it.
        depth: blocks (if, for, case, functions, subshells) that it is in.
    """

    words: list[Word]
    before: str
    after: str
    depth: int

    @property
    def assigned(self) -> set[str]:
        """Names of variables that the command may change."""
        texts = [word.text for word in self.words]
        own = texts[_opened(texts)[1] :]
        begins = "((" in self.before or next((text for text in own if not _ASSIGNMENT.match(text)), "") in _CHANGING
        kept = own if own[:1] and own[0] in _NAMING else takewhile(_ASSIGNMENT.match, own)
        named = {found[1] for found in map(_ASSIGNMENT.match, kept) if found}
        named |= {name for text in own for name in re.findall(rf"^{_NAME}", text) if begins}
        return named | {found[1] for text in texts for found in _SET_IF_MISSING.finditer(text)}

    @property
    def is_plain(self) -> bool:
        """Whether the command only assigns values, in any case and to variables of the script itself."""
        words = self.words[1:] if self.words[0].text in ("export", "readonly") else self.words
        found = [_ASSIGNMENT.match(word.text) if word.is_bare else None for word in words]
        is_conditional = re.search(r"(&&|\|)\n*$", self.before) or self.after[:1] not in ("", "\n", ";")
        return not self.depth and not is_conditional and all(one and not one["more"] for one in found)


def commands(script: str) -> list[Command]:
    """Return the simple commands of a shell script, in turn."""
    found: list[tuple[str, list[Word]]] = [("", [])]
    pieces: list[Piece] = []
    open_word = False
    for part in _PART.finditer(_HERE_DOCUMENT.sub(r"\2", script.replace("\r\n", "\n")) + "\n"):
        kind, text = str(part.lastgroup), str(part[str(part.lastgroup)])
        if kind == "join":
            continue
        if kind in ("comment", "redirection", "end", "space"):
            before, words = found[-1]
            if open_word:
                words.append(Word(tuple(pieces)))
            pieces, open_word = [], False
            if kind == "end" and words:
                found.append((text, []))
            elif kind == "end":
                found[-1] = (before + text, words)
            continue
        open_word = True
        if kind == "expanded":
            for one in _EXPANDED.finditer(text):
                said = one["escaped"].replace("\n", "") if one["escaped"] else one[0]
                pieces.append(Piece(said, is_variable=bool(one["variable"])))
        else:
            pieces.append(Piece(text, is_variable=kind == "variable", is_bare=kind in ("variable", "bare")))
    return _nested(found)


def _nested(found: Sequence[tuple[str, list[Word]]]) -> list[Command]:
    """Return the commands of what stands before each and its words; the last has no words."""
    made, blocks, subshells = [], 0, 0
    for (before, words), (after, _) in pairwise(found):
        subshells = max(subshells + before.count("(") - before.count(")"), 0)  # a pattern of case closes more
        inside = blocks + _opened([word.text for word in words])[0]
        made.append(Command(words, before, after, max(blocks, inside) + subshells))
        blocks = max(inside, 0)
    return made


def _opened(words: Sequence[str]) -> tuple[int, int]:
    """Return the number of blocks that a command opens, below 0 if it closes them, and the place of its own words."""
    opened = 0
    for place, word in enumerate(words):
        if word == "function" and "{" in words:
            return opened + 1, words.index("{") + 1
        if word in _OPENING:
            opened += 1
        elif word in _CLOSING:
            opened -= 1
        elif word not in _BETWEEN:
            return opened, place
        if word in _CHANGING:
            return opened, place
    return opened, len(words)


def with_values(found: Sequence[Command], last: int) -> list[list[Word]]:
    """Return the words of each command, with the values of variables that the script plainly assigns.

    A variable has a value if one command assigns it until the command number `last`: of `${NAME:-default}` the
    default, because the environment is not read.
    """
    counted = found if found and found[last].depth else found[: last + 1]  # a loop may come back
    times = Counter(name for command in counted for name in command.assigned)
    known: dict[str, str] = {}
    filled = []
    for command in found:
        words = []
        unclear = {name for name, number in times.items() if number > (name in command.assigned)} - known.keys()
        for word in command.words:
            words.append(word.filled(known, unclear, splits=not command.is_plain))
            assigns = _ASSIGNMENT.match(words[-1].text)
            if command.is_plain and assigns and not words[-1].variable and times[assigns[1]] == 1:
                known[assigns[1]] = words[-1].text[assigns.end() :]
        filled.append(words)
    return filled
