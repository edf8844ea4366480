"""The simple commands of a shell script, with the values of variables that the script assigns.

Nothing is executed. What a command prints, and what the environment has besides HOME, is unknown, and so is what a
loop, a function, or a branch whose condition depends on that, assigns.
"""

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import pairwise, takewhile
from pathlib import Path

HOME = "HOME"
"""The one variable of the environment that is read."""

_BALANCED = r"(?:[^()]|\((?:[^()]|\([^()]*\))*\))*"
_BRACED = r"(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*"
_VARIABLE = rf"\$\(\({_BALANCED}\)\)|\$\({_BALANCED}\)|`[^`]*`|\$\{{{_BRACED}\}}|\$[\w@*\#?]+|\$\("
_PART = re.compile(
    rf"""(?P<join>\\\n)|(?P<comment>(?<![^\s;&|(])\#[^\n]*)|(?P<redirection>&?\d*[<>]+&?[ \t]*[^\s;&|()]*)
    |(?P<end>[\n;&|()]+)|(?P<space>[ \t]+)|'(?P<quoted>[^']*)'|"(?P<expanded>(?:\\.|[^"\\])*)"|\\(?P<escaped>.)
    |(?P<variable>{_VARIABLE})|(?P<bare>[^\s'"\\;&|()<>$`]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_HERE_DOCUMENT = re.compile(r"(?<!<)<<-?[ \t]*['\"]?(\w+)['\"]?([^\n]*\n).*?^\s*\1$", re.DOTALL | re.MULTILINE)
_EXPANDED = re.compile(rf"\\(?P<escaped>[\"\\$`\n])|(?P<variable>{_VARIABLE})|(?P<text>.[^\\$`]*)", re.DOTALL)

_NAME = r"[A-Za-z_]\w*"
_REFERENCE = re.compile(
    rf"\$(?:({_NAME})|\{{({_NAME}|\d+)(?:(?P<empty>:)?(?:[-=](?P<default>.*)|\?.*))?\}})", re.DOTALL
)
"""A variable whose value the script may say: $NAME, ${NAME}, ${NAME:?message}, ${NAME:-default}, ${1:-4}."""

_ALL = re.compile(rf"\$\{{({_NAME})\[[@*]\](?::?[-+].*)?\}}", re.DOTALL)
"""All elements of an array: ${NAME[@]}, ${NAME[@]:-}, ${NAME[@]+"${NAME[@]}"}."""

_ARITHMETIC = re.compile(r"\$\(\((.*)\)\)", re.DOTALL)

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
        elements: words in the brackets of an array's assignment, `NAME=(...)`; None without brackets.
    """

    pieces: tuple[Piece, ...]
    taken: tuple[str, ...] = ()
    elements: tuple["Word", ...] | None = None

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

    def as_conditional(self, name: str) -> "Word":
        """Return the word as one that only a condition puts into the array `name`: its value is a variable."""
        begin, equals, _ = self.text.partition("=")
        unknown = Piece(f"${{{name}[@]}}", is_variable=True)
        return replace(self, pieces=(Piece(f"{begin}="), unknown) if equals else (unknown,))


@dataclass(frozen=True)
class Command:
    """A simple command.

    Attributes:
        words: its words.
        before: the operators and ends of lines before it.
        after: those that follow it.
        is_inside: whether it is in a subshell.
    """

    words: list[Word]
    before: str
    after: str
    is_inside: bool

    @property
    def assigned(self) -> set[str]:
        """Names of variables that the command may change."""
        texts = [word.text for word in self.words]
        words = texts[_blocks_opened(texts)[1] :]
        begins = "((" in self.before or next((text for text in words if not _ASSIGNMENT.match(text)), "") in _CHANGING
        kept = words if words[:1] and words[0] in _NAMING else takewhile(_ASSIGNMENT.match, words)
        named = {found[1] for found in map(_ASSIGNMENT.match, kept) if found}
        named |= {name for text in words for name in re.findall(rf"^{_NAME}", text) if begins}
        return named | {found[1] for text in texts for found in _SET_IF_MISSING.finditer(text)}

    @property
    def is_plain(self) -> bool:
        """Whether the command only assigns values, in any case and to variables of the script itself."""
        words = self.words[1:] if self.words[0].text in ("export", "readonly") else self.words
        found = [_ASSIGNMENT.match(word.text) if word.is_bare else None for word in words]
        is_conditional = re.search(r"(&&|\|)\n*$", self.before) or self.after[:1] not in ("", "\n", ";", ")")
        return not self.is_inside and not is_conditional and all(one and one["more"] in (None, "+") for one in found)


def commands(script: str) -> list[Command]:
    """Return the simple commands of a shell script, in turn."""
    found: list[tuple[str, list[Word]]] = [("", [])]
    pieces: list[Piece] = []
    array: list[Word] | None = None
    open_word = False
    for part in _PART.finditer(_HERE_DOCUMENT.sub(r"\2", script.replace("\r\n", "\n")) + "\n"):
        kind, text = str(part.lastgroup), str(part[str(part.lastgroup)])
        if kind == "join":
            continue
        if kind not in ("comment", "redirection", "end", "space"):
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
        if kind == "end" and text:
            _end(found, text)
    return _nested_commands(found)


def _begins_array(word: Word, end: str) -> bool:
    return end.startswith("(") and re.fullmatch(rf"{_NAME}\+?=", word.text) is not None


def _end(found: list[tuple[str, list[Word]]], text: str) -> None:
    """End the last command by an operator, or add this to those before it."""
    before, words = found[-1]
    if words:
        found.append((text, []))
    else:
        found[-1] = (before + text, words)


def _pieces(kind: str, text: str) -> list[Piece]:
    if kind != "expanded":
        return [Piece(text, is_variable=kind == "variable", is_bare=kind in ("variable", "bare"))]
    return [
        Piece(one["escaped"].replace("\n", "") if one["escaped"] else one[0], is_variable=bool(one["variable"]))
        for one in _EXPANDED.finditer(text)
    ]


def _nested_commands(found: Sequence[tuple[str, list[Word]]]) -> list[Command]:
    """Return the commands of what stands before each and its words; the last has no words."""
    made, subshells = [], 0
    for (before, words), (after, _) in pairwise(found):
        subshells = max(subshells + before.count("(") - before.count(")"), 0)  # a pattern of case closes more
        made.append(Command(words, before, after, subshells > 0))
    return made


def _blocks_opened(words: Sequence[str]) -> tuple[int, int]:
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


FUNCTION = "function"

ARGUMENTS = ("$@", "$*", "${@}", "${@:1}")
"""Words in place of which a script, or a function of it, has the words of its call."""

_OF_A_FUNCTION = Word((Piece('"$@" of a function', is_variable=True),))


@dataclass
class _Block:
    """A block that is open: if, case, or one whose commands may run at any time.

    Attributes:
        kind: its first word.
        runs: whether the commands of this part of it run; None: unknown.
        has_run: whether an earlier part of it has run; None: unknown.
        tests: what joins each test of its condition to the one before (`&&`, `||`, or nothing), and its outcome.
        is_asking: whether a condition, or a pattern of case, is being read.
        value: what case looks at; None: unknown.
    """

    kind: str
    runs: bool | None = None
    has_run: bool | None = False
    tests: list[tuple[str, bool | None]] = field(default_factory=list)
    is_asking: bool = True
    value: str | None = None

    def begin(self, holds: bool | None) -> None:
        """Begin the part whose condition holds, or not, or perhaps."""
        self.runs = False if self.has_run or holds is False else None if self.has_run is None else holds
        self.has_run = True if self.has_run or self.runs else None if None in (self.has_run, self.runs) else False
        self.tests, self.is_asking = [], False

    @property
    def outcome(self) -> bool | None:
        """Whether the condition holds."""
        holds: bool | None = None
        for joined, test in self.tests:
            if joined == "&&":
                holds = False if False in (holds, test) else None if None in (holds, test) else True
            elif joined == "||":
                holds = True if True in (holds, test) else None if None in (holds, test) else False
            else:
                holds = test
        return holds


class _Script:
    """A script as it would run, as far as that is known.

    Attributes:
        words: the words of each command; none if it does not run.
        repeating: names that loops and functions assign, whose commands may run at any time.
        repeats: whether each command is in a loop or a function.
    """

    def __init__(self, found: Sequence[Command], never: set[str], takes_defaults: bool) -> None:
        self._never = never
        self._takes_defaults = takes_defaults
        self._known: dict[str, str] = {HOME: str(Path.home())}
        self._arrays: dict[str, list[Word]] = {}
        self._unclear: set[str] = set()
        self._blocks: list[_Block] = []
        self.repeating: set[str] = set()
        self.repeats: list[bool] = []
        self.words: list[list[Word]] = []
        for command in found:
            self.words.append(self._run(command))
            self.repeats.append(self._is_repeating)

    @property
    def _is_repeating(self) -> bool:
        return any(block.kind not in ("if", "case") for block in self._blocks)

    @property
    def _runs(self) -> bool | None:
        parts = [block.runs for block in self._blocks if not block.is_asking]
        return False if False in parts else None if None in parts else True

    def _run(self, command: Command) -> list[Word]:
        """Follow a command; return its own words, none if it does not run."""
        if self._is_pattern(command):
            return []
        place, is_negated = 0, False
        while place < len(command.words) and command.words[place].is_bare:
            word = command.words[place].text
            is_negated |= word == "!"
            if not self._is_keyword(word, command.words[place:]):
                break
            if word == "{" and command.before.rstrip().endswith(")"):
                self._blocks[-1].kind = FUNCTION
            if word in ("case", "for", "select"):
                break
            place += 1
        followed = replace(command, words=command.words[place:])
        runs = self._runs
        if not followed.words or runs is False:
            return []
        is_plain = followed.is_plain
        filled = [one for word in followed.words for one in self._expanded(word, splits=not is_plain)]
        if any(block.kind == FUNCTION for block in self._blocks):
            filled = [_OF_A_FUNCTION if one.text in ARGUMENTS else one for one in filled]
        if self._blocks and self._blocks[-1].is_asking and self._blocks[-1].kind == "if":
            joined = re.search(r"(&&|\|\|)\n*$", followed.before)
            test = None if is_negated else _outcome(filled)
            self._blocks[-1].tests.append((joined[1] if joined and self._blocks[-1].tests else "", test))
        if is_plain and runs:
            self._assign(filled)
        else:
            set_here = self._set_if_missing(followed) if runs else {}
            self._forget(followed, filled)
            self._known |= set_here
            self._unclear -= set_here.keys()
        return filled

    def _set_if_missing(self, command: Command) -> dict[str, str]:
        """Return the variables that a command sets by ${NAME:=default}, or that had a value; it runs in any case."""
        if command.is_inside or re.search(r"(&&|\|)\n*$", command.before) or self._is_repeating:
            return {}
        pieces = (piece.text for word in command.words for piece in word.pieces if piece.is_variable)
        found = ((name[1], self._value(text)[0]) for text in pieces if (name := _SET_IF_MISSING.match(text)))
        return {name: value for name, value in found if value is not None}

    def _is_pattern(self, command: Command) -> bool:
        """Return whether the words are a pattern of case, and follow it."""
        if not self._blocks or self._blocks[-1].kind != "case":
            return False
        block = self._blocks[-1]
        block.is_asking |= ";;" in command.before or ";&" in command.before
        if not block.is_asking or command.words[0].text == "esac":
            return False
        for word in command.words:
            is_unknown = block.value is None or word.variable
            fits = None if is_unknown else fnmatchcase(str(block.value), word.text)
            block.tests.append(("||" if block.tests else "", True if word.text == "*" else fits))
        if command.after.startswith(")"):
            block.begin(block.outcome)
        return True

    def _is_keyword(self, word: str, rest: Sequence[Word]) -> bool:
        """Return whether a word is the shell's own, and follow it."""
        blocks = self._blocks
        if word == "if":
            blocks.append(_Block("if"))
        elif word == "case":
            value = [one.text for one in self._expanded(rest[1], splits=False) if not one.variable] if rest[1:] else []
            blocks.append(_Block("case", value=value[0] if value else None))
        elif word == "elif" and blocks:
            blocks[-1].is_asking = True
        elif word in ("then", "else") and blocks:
            blocks[-1].begin(blocks[-1].outcome if word == "then" else True)
        elif word in ("{", "}") and blocks and blocks[-1].is_asking:
            blocks[-1].tests.append(("", None))
        elif word == FUNCTION and not any(one.text == "{" for one in rest):
            pass  # the brace follows after its ()
        elif word in _OPENING or word == FUNCTION:
            blocks.append(_Block(word, is_asking=False))
        elif word in _CLOSING and blocks:
            blocks.pop()
        else:
            return word in _BETWEEN
        return True

    def _assign(self, filled: Sequence[Word]) -> None:
        for word in filled:
            found = _ASSIGNMENT.match(word.text)
            if found is None or found[1] in self._never:
                continue
            name, adds = found[1], found["more"] == "+"
            if word.elements is not None:
                self._arrays[name] = [*(self._arrays.get(name, []) if adds else []), *word.elements]
            elif word.variable or (adds and name in self._unclear):
                self._lose(name)
            else:
                self._known[name] = (self._known.get(name, "") if adds else "") + word.text[found.end() :]
                self._unclear.discard(name)

    def _forget(self, command: Command, filled: Sequence[Word]) -> None:
        """Follow a command that may change variables, to what is unknown."""
        changed = command.assigned
        if self._is_repeating:
            self.repeating |= changed
        for word in filled:
            found = _ASSIGNMENT.match(word.text)
            if found and word.elements is not None and found[1] not in self._never:
                before = self._arrays.get(found[1], [])
                kept = before if found["more"] == "+" else [one.as_conditional(found[1]) for one in before]
                self._arrays[found[1]] = [*kept, *(one.as_conditional(found[1]) for one in word.elements)]
        for name in changed:
            self._lose(name)

    def _lose(self, name: str) -> None:
        self._known.pop(name, None)
        self._unclear.add(name)

    def _expanded(self, word: Word, *, splits: bool) -> list[Word]:
        """Return the word with the values of variables; `splits`: several words for a bare one with spaces."""
        if word.elements is not None:
            inner = [one for element in word.elements for one in self._expanded(element, splits=True)]
            return [replace(word, elements=tuple(inner))]
        if len(word.pieces) == 1 and (found := _ALL.fullmatch(word.text)) and found[1] in self._arrays:
            elements = self._arrays[found[1]]
            if word.pieces[0].is_bare:  # which the shell splits
                elements = [part for one in elements for part in ([one] if one.variable else _split(one))]
            return elements
        pieces: list[Piece] = []
        taken = [*word.taken]
        for piece in word.pieces:
            value, used = self._value(piece.text) if piece.is_variable else (piece.text, [])
            if value is not None and splits and piece.is_variable and piece.is_bare and len(word.pieces) == 1:
                if not re.search(r"[*?\['\"\\]", value):  # which the shell would not take as they are
                    return [Word((Piece(one),), tuple(used)) for one in value.split()]
                value = None
            is_one = value is not None and not (splits and piece.is_bare and re.search(r"\s", value))
            if not piece.is_variable or not is_one:
                pieces.append(piece)
            else:
                pieces.append(Piece(str(value)))
                taken += used
        return [Word(tuple(pieces), tuple(taken))]

    def _value(self, text: str) -> tuple[str | None, list[str]]:
        """Return the value of a variable or a calculation, None if it is unknown, and NAME=value of what it takes."""
        if found := _ARITHMETIC.fullmatch(text):
            return self._value_of_expression(found[1])
        found = _REFERENCE.fullmatch(text)
        name = (found[1] or found[2]) if found else ""
        if found is None or name in self._unclear | self._never:
            return None, []
        value = self._known.get(name)
        if value is None or (not value and found["empty"]):
            default = found["default"]
            value = value if default is None else self._text(default) if self._takes_defaults else None
        return value, [] if value is None or name == HOME else [f"{name}={value}"]

    def _text(self, default: str) -> str | None:
        """Return the text that a default stands for."""
        parts = commands(default)
        words = [one for part in parts for word in part.words for one in self._expanded(word, splits=False)]
        is_known = len(parts) < 2 and not any(word.variable or word.elements is not None for word in words)
        return " ".join(word.text for word in words) if is_known else None

    def _value_of_expression(self, expression: str) -> tuple[str | None, list[str]]:
        taken: list[str] = []

        def value(found: re.Match[str]) -> str:
            text = found[0] if found[0].startswith("$") else f"${found[0]}"
            number, used = self._value(text)
            taken.extend(used)
            return number if number is not None and re.fullmatch(r"-?\d+", number) else "?"

        filled = re.sub(rf"{_VARIABLE}|{_NAME}", value, expression)
        try:
            return str(_number(ast.parse(filled.strip(), mode="eval").body)), taken
        except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
            return None, []


_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.Mod: operator.mod,
}


def _number(node: ast.expr) -> int:
    """Return the number of an expression of whole numbers from 0 up, where Python calculates as the shell does."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        found = _OPERATIONS[type(node.op)](_number(node.left), _number(node.right))
        if found >= 0:
            return found
    raise ValueError("not calculated here")


_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "-eq": operator.eq, "-ne": operator.ne, "-lt": operator.lt, "-le": operator.le, "-gt": operator.gt,
    "-ge": operator.ge,
}  # fmt: skip


def _split(word: Word) -> list[Word]:
    return [replace(word, pieces=(Piece(part),)) for part in word.text.split()]


def _outcome(words: Sequence[Word]) -> bool | None:
    """Return whether a test succeeds, as `[ a = b ]`; None: unknown."""
    texts = [word.text for word in words]
    if any(word.variable for word in words) or (texts[0], texts[-1]) not in (("[", "]"), ("[[", "]]")):
        return {"true": True, "false": False}.get(texts[0]) if len(texts) == 1 else None
    match texts[1:-1]:
        case ["-z" | "-n" as kind, value]:
            return (kind == "-z") == (not value)
        case [left, "=" | "==" | "!=" as sign, right]:
            is_pattern = texts[0] == "[[" and re.search(r"[*?\[]", right)
            return None if is_pattern else (sign == "!=") != (left == right)
        case [left, sign, right] if sign in _COMPARISONS and left.isdecimal() and right.isdecimal():
            return _COMPARISONS[sign](int(left), int(right))
    return None


def with_values(found: Sequence[Command], last: int, *, takes_defaults: bool = True) -> list[list[Word]]:
    """Return the words of each command that runs, with the values of variables that the script assigns.

    Args:
        found: the commands.
        last: number of the command whose words are asked for: in a loop or a function, all assignments count.
        takes_defaults: whether a variable without a value has its default: the environment is not read.
    """
    first = _Script(found, set(), takes_defaults)
    never = first.repeating
    if found and first.repeats[last]:
        times = Counter(name for command in found for name in command.assigned)
        never |= {name for name, number in times.items() if number > 1}
        never |= {name for command in found[last + 1 :] for name in command.assigned}
    return _Script(found, never, takes_defaults).words
