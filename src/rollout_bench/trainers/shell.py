"""The commands of a shell script that run, with the values of variables that the script assigns.

Nothing is executed. What a command prints, and what the environment has besides HOME, is unknown, and so is what a
loop, a function, or a branch whose condition depends on that, assigns. After a command that may assign anything, such
as `eval` of something unknown, all is unknown but the values that the user names.
"""

import ast
import operator
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path

from rollout_bench.trainers.shell_words import (
    ASSIGNMENT,
    BETWEEN,
    CLOSING,
    NAME,
    OPENING,
    VARIABLE,
    Command,
    Piece,
    Word,
    commands,
)

HOME = "HOME"
"""The one variable of the environment that is read."""

_OF_THE_SHELL = re.compile(
    r"BASH(_\w+)?|COLUMNS|DIRSTACK|E?UID|EPOCH\w+|FUNCNAME|GROUPS|HIST\w+|HOST(NAME|TYPE)|IFS|LINENO|LINES|MACHTYPE"
    r"|OLDPWD|OPT(ARG|ERR|IND)|OSTYPE|PATH|PIPESTATUS|PPID|PS[0-4]|PWD|RANDOM|REPLY|SECONDS|SHELL(OPTS)?|SHLVL"
    r"|SRANDOM|TERM|USER|LOGNAME|_"
)
"""Variables that the shell or the login sets itself: no default stands for them."""

_REFERENCE = re.compile(
    rf"\$(?:({NAME}|\d)|\{{({NAME}|\d+)(?:(?P<empty>:)?(?:[-=](?P<default>.*)|\?.*|(?P<instead>\+)(?P<other>.*)))?\}})",
    re.DOTALL,
)
"""A variable whose value the script may say: $NAME, ${NAME}, ${NAME:?message}, ${NAME:-default}, ${1:-4}, ${NAME+x}."""

_ALL = re.compile(rf"\$\{{({NAME})\[[@*]\](?::?[-+].*)?\}}", re.DOTALL)
"""All elements of an array: ${NAME[@]}, ${NAME[@]:-}, ${NAME[@]+"${NAME[@]}"}."""

_ARITHMETIC = re.compile(r"\$\(\((.*)\)\)", re.DOTALL)
_CALCULATION = re.compile(r"\(\((.*)\)\)", re.DOTALL)
_ASSIGNS = re.compile(r"(?<![=!<>])=(?!=)|<<=|>>=|\+\+|--")
"""In a calculation: what changes a variable."""

_SET_IF_MISSING = re.compile(rf"\$\{{({NAME}):?=")
_DECLARING = ("export", "readonly", "local", "declare", "typeset")
"""Commands that assign as their words say."""

_NAMING = {
    **dict.fromkeys(("for", "getopts", "let", "select", "unset", "coproc"), ""),
    **dict.fromkeys(("mapfile", "readarray"), "dnOsuCc"),
    "read": "dinNptu",
}
"""Command whose words name variables that it changes -> its options with a value that is no such name."""

_UNNAMED = {
    "coproc": {"COPROC"}, "getopts": {"OPTARG", "OPTIND"}, "mapfile": {"MAPFILE"}, "read": {"REPLY"},
    "readarray": {"MAPFILE"}, "select": {"REPLY"},
}  # fmt: skip
"""Command -> variables that it changes, or may change, without a name."""

_ANYTHING = ("eval", "source", ".", "alias", "enable")
"""Commands that may change any variable, unless their words say what they do."""

_SET_UP = re.compile(
    r"(^|/)(activate|conda\.sh|mamba\.sh|micromamba\.sh|\.?bashrc|bash\.bashrc|\.(bash_)?profile"
    r"|\.cargo/env|\.local/bin/env|lmod(\.sh)?|modules\.sh|init/(ba)?sh|nvm\.sh)$|^/etc/profile"
    r"|(ascend|cann|nnal|atb|oneapi).*/set_?(env|vars)\.sh$",
    re.IGNORECASE,
)
"""Files of an environment's own, which assign nothing that a training's script reads."""

_HOOK = re.compile(
    r"(\$\(|`)\s*(\S*/)?(conda|mamba|micromamba|pyenv|ssh-agent|uv|direnv|brew|dircolors|modulecmd|lesspipe|\"\$\w+/bin/conda\")"
    r"\s[^|;&]*[)`]"
)
"""Commands that print the set-up of an environment."""


def is_set_up(name: str) -> bool:
    """Return whether a file that a script sources sets up an environment, and assigns nothing that it reads."""
    return _SET_UP.search(name) is not None


_SHELLS = ("bash", "sh", "dash", "zsh")
_WITHOUT_VARIABLES = ("docker", "podman", "ssh", "apptainer", "singularity", "kubectl", "pdsh", "sudo")
"""Programs whose commands do not get the variables that a script exports."""

ONLY_EXPORTED = "gets only exported variables"
"""Words of a cause: the user's own value of the variable would not be there either."""

_PRINTING = ("echo", "printf", "cat", "tee", "grep")
_READING = (*_PRINTING[:3], "grep", "source", ".", "[", "[[", "test", "chmod", "ls", "for", *_SHELLS, *_DECLARING)
"""Programs that write no file that their words name."""

_COPYING = ("cp", "install", "ln", "mv", "rsync", "scp")
"""Programs that write the file, or into the folder, that their last word names."""


def _pattern(word: Word) -> str:
    """Return a word with * for its variables."""
    return "".join("*" if piece.is_variable else piece.text for piece in word.pieces)


_DEEPEST = 8
"""Texts and files that are read within one another, at most."""


def _after_keywords(words: Sequence[Word]) -> Sequence[Word]:
    """Return a command's own words, after those of the shell that begin or end a block."""
    place = 0
    while place < len(words) and words[place].is_bare:
        text = words[place].text
        if text == FUNCTION and any(word.text == "{" for word in words[place:]):
            place = [word.text for word in words].index("{", place)
        elif text in ("case", "for", "select") or text not in (*BETWEEN, *OPENING, *CLOSING):
            break
        place += 1
    return words[place:]


def _program(words: Sequence[Word]) -> Sequence[Word]:
    """Return the words of a command from its program on: without assignments before it, and `command` or `builtin`."""
    words = words[len([*takewhile(lambda word: word.is_bare and ASSIGNMENT.match(word.text), words)]) :]
    while words and words[0].text in ("command", "builtin"):
        words = words[1:]
        while words and words[0].text.startswith("-"):
            words = words[1:]
    return words


def _set_on_the_way(words: Sequence[Word]) -> set[str]:
    """Return the variables that the words of a command change when they get their values: ${NAME:=1}, $((NAME++))."""
    changed = {found[1] for word in words for found in _SET_IF_MISSING.finditer(word.text)}
    for piece in (piece for word in words for one in (word, *(word.elements or ())) for piece in one.pieces):
        is_calculation = piece.is_bare and _CALCULATION.fullmatch(piece.text)
        if (is_calculation or re.search(r"\$\(\(|\$\[", piece.text)) and _ASSIGNS.search(piece.text):
            changed |= {*re.findall(NAME, piece.text)}
    return changed


def _changes(words: Sequence[Word]) -> set[str] | None:
    """Return the variables that a command with these words may change; None: any."""
    changed = _set_on_the_way(words)
    changed |= {found[1] for found in takewhile(bool, (ASSIGNMENT.match(word.text) for word in words)) if found}
    own = _program(words)
    if not own:
        return changed
    program, rest = own[0].text, [*own[1:]]
    texts = [word.text for word in rest]
    if program in _ANYTHING or (program == "shopt" and "expand_aliases" in texts):
        return None
    if program == "trap":
        return None if {"DEBUG", "ERR", "RETURN"} & {*texts[1:]} else changed
    if program in _DECLARING:
        declared = _declared(program, rest)
        return None if declared is None else changed | declared
    if program in ("printf", "wait"):
        option = "-v" if program == "printf" else "-p"
        place = next((place for place, text in enumerate(texts[:2]) if text.startswith(option)), None)
        named = (
            []
            if place is None
            else rest[place : place + 2]
            if texts[place] == option
            else [rest[place].without(option)]
        )
    elif program in _NAMING:
        named = _without_options(rest, _NAMING[program])
        if program in ("for", "select") and "in" in texts:
            named = named[: texts.index("in")]
    else:
        return changed
    if any(word.variable for word in named):
        return None
    return changed | {name for word in named for name in re.findall(NAME, word.text)} | _UNNAMED.get(program, set())


def _declared(program: str, words: Sequence[Word]) -> set[str] | None:
    """Return the variables that `export`, `declare` and the like may change; None: any."""
    options = "".join(word.text[1:] for word in words if word.text.startswith("-"))
    if any(word.variable and not ASSIGNMENT.match(word.text) for word in words):
        return None
    if "n" in options and program != "export":  # another name for a variable
        return None
    texts = [word.text for word in words if ASSIGNMENT.match(word.text) or re.search("[aAiclu]", options)]
    return {found[0] for text in texts if (found := re.match(NAME, text))}


def _without_options(words: Sequence[Word], with_value: str) -> list[Word]:
    """Return words of a command without its options, and without the values of those in `with_value`."""
    kept: list[Word] = []
    left = iter(words)
    for word in left:
        if not word.text.startswith("-"):
            kept.append(word)
        elif word.text[-1] in with_value:
            next(left, None)
    return kept


FUNCTION = "function"

ARGUMENTS = ("$@", "$*", "${@}", "${@:1}")
"""Words in place of which a script, or a function of it, has the words of its call."""

_OF_A_FUNCTION = Word((Piece('"$@" of a function', is_variable=True),))


@dataclass
class _Block:
    """A block that is open: if, case, a group, or one whose commands may run at any time.

    Attributes:
        kind: its first word.
        reached: whether the block as a whole runs; None: unknown.
        runs: whether the commands of this part of it run; None: unknown.
        has_run: whether an earlier part of it has run; None: unknown.
        fits: whether one of the patterns of `case` that are being read fits; None: unknown.
        is_asking: whether a condition, or a pattern of case, is being read.
        value: what case looks at; None: unknown.
        falls: whether the part before may go on into this one, as after `;&`.
        unknown: the condition that is unknown; empty: none.
    """

    kind: str
    reached: bool | None = True
    runs: bool | None = None
    has_run: bool | None = False
    fits: bool | None = False
    is_asking: bool = True
    value: str | None = None
    falls: bool = False
    unknown: str = ""

    def begin(self, holds: bool | None) -> None:
        """Begin the part whose condition holds, or not, or perhaps."""
        self.runs = False if self.has_run or holds is False else None if self.has_run is None else holds
        if self.falls:
            self.runs = None
        self.has_run = True if self.has_run or self.runs else None if None in (self.has_run, self.runs) else False
        self.fits, self.is_asking, self.falls = False, False, False


def _both(one: bool | None, other: bool | None) -> bool | None:
    return False if False in (one, other) else None if None in (one, other) else True


def _either(one: bool | None, other: bool | None) -> bool | None:
    return True if True in (one, other) else None if None in (one, other) else False


def _no_file(_word: Word) -> list[Command] | None:
    return None


class _Script:
    """A script as it would run, as far as that is known.

    Attributes:
        words: the words of each command; none if it does not run.
        nested: the words of each command in texts that the script gives to `eval` or to another shell, and in files
            that it sources.
        ran: all commands that are followed, those of texts and files among them.
        repeating: names that loops and functions assign, whose commands may run at any time; None: any name.
        repeats: whether each command is in a loop or a function.
    """

    def __init__(
        self,
        never: Mapping[str, str],
        given: Mapping[str, str],
        sourced: Callable[[Word], list[Command] | None],
        takes_defaults: bool = True,
    ) -> None:
        self._never = never
        self._given = given
        self._sourced = sourced
        self._takes_defaults = takes_defaults
        self._known: dict[str, str] = {HOME: str(Path.home()), **given}
        self._arrays: dict[str, list[Word]] = {}
        self._unclear: dict[str, str] = {}
        self._all_unclear = never.get("", "")
        self._exported: set[str] = {HOME, *given}
        self._exports_all = False
        self._fixed: set[str] = set()
        self._blocks: list[_Block] = []
        self._chain: bool | None = None
        self._depth = 0
        self._place = ""
        self._unknown_test = ""
        self.repeating: dict[str, str] = {}
        self.repeats: list[bool] = []
        self.words: list[list[Word]] = []
        self.nested: list[list[Word]] = []
        self.ran: list[Command] = []
        self._written: list[tuple[str, str]] = []
        self._has_ended = False
        self._ignores_case = False

    def run(self, found: Sequence[Command]) -> "_Script":
        """Follow the commands of a script."""
        for command in found:
            self.words.append(self._run(command))
            self.repeats.append(self._is_repeating)
        return self

    @property
    def _is_repeating(self) -> bool:
        return any(block.kind not in ("if", "case", "{") for block in self._blocks)

    @property
    def _runs(self) -> bool | None:
        runs: bool | None = not self._has_ended
        for block in self._blocks:
            asked = None if block.has_run is not False else True
            runs = _both(runs, _both(block.reached, asked if block.is_asking else block.runs))
        return runs

    def _reached(self, command: Command) -> bool | None:
        """Return whether the commands joined to this one by && and || let it run; None: unknown."""
        joined = re.search(r"(&&|\|\|)\n*$", command.before)
        if joined is None:
            return True
        chain = None if ")" in command.before else self._chain
        return chain if joined[1] == "&&" else None if chain is None else not chain

    def _run(self, command: Command) -> list[Word]:
        """Follow a command; return its own words, none if it does not run."""
        self._place = command.place
        if self._is_pattern(command):
            return []
        reached = self._reached(command)
        before = self._chain if reached is False else None
        place, is_negated = self._keywords(command, reached)
        opened = any(word.is_bare and word.text in OPENING for word in command.words[:place])
        reached = True if opened else reached
        followed = replace(command, words=command.words[place:])
        runs = _both(self._runs, reached)
        if runs is not False and not followed.words:  # the end of a block
            self._written += self._names_written(followed, [])
        if not followed.words or runs is False:
            self._chain = before if followed.words else None
            return []
        self.ran.append(followed)
        filled = [replace(word, written_by=self._writer(word)) for word in self._filled(followed)]
        self._written += self._names_written(followed, filled)
        is_inlined = self._follow(followed, filled, runs)
        self._chain = self._outcome(followed, filled, is_negated)
        if self._chain is None:
            self._unknown_test = followed.text
        if reached is None:  # the chain before it is unknown
            self._chain = None
        return [] if is_inlined else filled  # what it runs is in `nested`

    def _names_written(self, command: Command, filled: Sequence[Word]) -> list[tuple[str, str]]:
        """Return a pattern of each file that a command writes, or may write, and the place of the command.

        One with a folder is that of a copy, which is no other file of its name.
        """
        own = _program(filled)
        program = Path(own[0].text).name if own else ""
        named = [_pattern(word) for word in own[1:]] if program and program not in _READING else []
        if program in _COPYING and named:
            *sources, last = (one for one in named if not one.startswith("-"))
            named = [Path(one).name for one in sources] if last in (".", "./") else [f"./{last}"]
        else:
            named = [Path(one).name for one in named]
        output = [Path(_pattern(one)).name for word in command.writes for one in self._expanded(word, splits=False)]
        return [(one, self._place) for one in (*named, *output) if one.strip("*")]

    def _writer(self, file: Word) -> str:
        """Return the place where the script itself may have written a file, so that one on the disk counts for nothing.

        Empty: there is none.
        """
        path = re.sub(r"^-+[\w-]+=", "", file.text)
        for pattern, place in reversed(self._written):
            for one in (path, f"{path}.yaml"):  # hydra's names have no end
                name = os.path.normpath(one) if pattern.startswith("./") else Path(one).name
                if fnmatchcase(name, os.path.normpath(pattern)):
                    return place
        return ""

    def _keywords(self, command: Command, reached: bool | None) -> tuple[int, bool]:
        """Follow the shell's own words before a command's; return their number, and whether ! is among them."""
        place, is_negated = 0, False
        while place < len(command.words) and command.words[place].is_bare:
            word = command.words[place].text
            is_negated ^= word == "!"
            texts = [one.text for one in command.words[place:]]
            if word == FUNCTION and "{" in texts:
                self._blocks.append(_Block(FUNCTION, is_asking=False))
                place += texts.index("{")
            elif not self._is_keyword(word, command, place, reached) or word in ("case", "for", "select"):
                break
            elif word in OPENING:
                reached = True
            place += 1
        return place, is_negated

    def _filled(self, command: Command) -> list[Word]:
        """Return the words of a command with values."""
        words = command.words
        own = _program(words)
        is_test = words[0].text == "[["
        first = len(words) - len(own)
        declares = bool(own) and own[0].text in _DECLARING
        filled: list[Word] = []
        for place, word in enumerate(words):
            assigns = bool(word.is_bare and ASSIGNMENT.match(word.text) and (place < first or declares))
            filled += self._expanded(word, splits=not (assigns or is_test))
        if any(block.kind == FUNCTION for block in self._blocks):
            filled = [_OF_A_FUNCTION if one.text in ARGUMENTS else one for one in filled]
        return filled

    def _follow(self, command: Command, filled: list[Word], runs: bool | None) -> bool:
        """Follow what a command changes; return whether its words are commands that are followed in its place."""
        is_clear = bool(runs) and not (command.is_inside or command.reads_pipe or command.ends_apart)
        own = _program(filled)
        program = own[0].text if own else ""
        changed = _changes(filled)
        changed = None if changed is None else changed | _set_on_the_way(command.words)
        values = self._assigning(filled, own)
        options = "".join(word.text for word in own[1:] if word.text.startswith("-"))
        is_fixed = program == "readonly" or (program in _DECLARING and re.search("[iclur]", options))
        fixed = {word.text.partition("=")[0] for word in own[1:]} if is_fixed else set()
        if program in ("set", "shift") and (program == "shift" or self._sets_arguments(own)):
            self._unclear |= {str(place): self._cause_here(command) for place in range(10)}
        self._exports_all |= program == "set" and any(word.text in ("-a", "allexport") for word in own[1:])
        self._ignores_case |= program == "shopt" and "nocasematch" in (word.text for word in own)
        self._has_ended |= is_clear and (program == "exit" or (program == "exec" and len(own) > 1))
        if program in ("eval", "source", ".") and len(own) == len(filled) and self._inline(command, own, is_clear):
            return True
        if changed is None and self._is_set_up(own):
            changed = set()
        self._other_shells(filled)
        effects = {found[1] for word in values or () if (found := ASSIGNMENT.match(word.text))}
        if is_clear and values is not None and changed is not None and not (changed - effects):
            self._assign(values)
            self._export(program, own, values)
            self._fixed |= fixed
            return False
        self._fixed |= fixed
        set_here = self._set_if_missing(command, is_clear)
        self._forget(command, filled, changed)
        for name, value in set_here.items():
            self._known[name] = value
            self._unclear.pop(name, None)
        return False

    @staticmethod
    def _sets_arguments(own: Sequence[Word]) -> bool:
        """Return whether `set` replaces the script's arguments."""
        words = iter(own[1:])
        for word in words:
            if word.text == "--" or word.variable or not word.text or word.text[0] not in "-+":
                return True
            if re.fullmatch("[-+][A-Za-z]*o", word.text):
                next(words, None)
        return False

    def _assigning(self, filled: list[Word], own: Sequence[Word]) -> list[Word] | None:
        """Return the assignments of a command that only assigns, to variables of the script itself; None if others."""
        if not own:
            plain = filled
        elif own[0].text in ("export", "readonly") or (
            own[0].text in ("declare", "typeset") and not self._is_repeating
        ):
            options = [word.text for word in own[1:] if word.text.startswith("-")]
            if ASSIGNMENT.match(filled[0].text) or any(re.search("[^-xgr]", option) for option in options):
                return None
            plain = [word for word in own[1:] if not word.text.startswith("-")]
            if own[0].text in ("export", "readonly"):
                plain = [word for word in plain if not re.fullmatch(NAME, word.text)]
        else:
            return None
        found = [ASSIGNMENT.match(word.text) for word in plain]
        return plain if all(one and one["more"] in (None, "+") for one in found) else None

    def _export(self, program: str, own: Sequence[Word], values: Sequence[Word]) -> None:
        names = {word.text.partition("=")[0].removesuffix("+") for word in values}
        options = "".join(word.text for word in own[1:] if word.text.startswith("-"))
        if program == "export" and "n" not in options:
            names |= {word.text for word in own[1:] if re.fullmatch(NAME, word.text)}
            self._exported |= names
        elif self._exports_all or (program in ("declare", "typeset") and "x" in options):
            self._exported |= names

    def _inline(self, command: Command, own: Sequence[Word], is_clear: bool) -> bool:
        """Follow the commands of a text or a file as if they stood here; return whether they are known."""
        if self._depth >= _DEEPEST:
            return False
        if own[0].text == "eval":
            inner = None if any(word.variable for word in own[1:]) else commands(" ".join(w.text for w in own[1:]))
            inner = inner and [replace(one, place=self._place) for one in inner]
        else:
            inner = self._sourced(own[1]) if own[1:] and not self._writer(own[1]) else None
            if inner is not None and own[2:]:
                return False
        if inner is None:
            return False
        blocks = len(self._blocks)
        self._blocks.append(
            _Block("{", True, True if is_clear else None, is_asking=False, unknown=self._conditions(command))
        )
        self._depth += 1
        self.nested += [words for one in inner if (words := self._run(one))]
        self._depth -= 1
        del self._blocks[blocks:]
        self._chain = None
        return True

    def _is_set_up(self, own: Sequence[Word]) -> bool:
        """Return whether a command only sets up an environment, by the name of its file or of the program it calls."""
        texts = [word.text for word in own]
        if texts[0] == "eval" and texts[1:]:
            return all(_HOOK.fullmatch(text) for text in texts[1:])
        return texts[0] in ("source", ".") and bool(texts[1:]) and is_set_up(texts[1])

    def _other_shells(self, filled: Sequence[Word]) -> None:
        """Follow the text of `bash -c TEXT`, which has the exported variables only."""
        texts = [word.text for word in filled]
        shell = next((place for place, text in enumerate(texts) if Path(text).name in _SHELLS), None)
        program = _program(filled)
        if shell is None or not program or program[0].text in _PRINTING or self._depth >= _DEEPEST:
            return
        place = shell + 1
        while place < len(texts) and re.match("[-+]", texts[place]) and not re.fullmatch("-[A-Za-z]*c", texts[place]):
            place += 1 + bool(re.fullmatch("[-+][A-Za-z]*o", texts[place]))
        if place + 1 >= len(texts) or not re.fullmatch("-[A-Za-z]*c", texts[place]):
            return
        bare = [Path(text).name for text in texts[:shell]]
        is_apart = any(name in _WITHOUT_VARIABLES for name in bare) or any(
            text.startswith("--export") and text != "--export=ALL" for text in texts[:shell]
        )
        names = set() if is_apart else self._exported
        cause = f"{self._place}: the text of {texts[shell]} -c {ONLY_EXPORTED}"
        child = _Script(self._never, {}, self._sourced, takes_defaults=False)
        child._known = {name: value for name, value in self._known.items() if name in names and self._is_clear(name)}
        child._takes_defaults = self._takes_defaults and not is_apart and not self._all_unclear
        child._unclear = dict.fromkeys(
            {*self._known, *self._arrays, *self._unclear, *map(str, range(10))} - child._known.keys(), cause
        )
        for word in filled[:shell]:
            if found := ASSIGNMENT.match(word.text):
                child._unclear.pop(found[1], None)
                child._assign([word])
        child._exported, child._depth = set(child._known), self._depth + 1
        inner = [replace(one, place=self._place) for one in commands(texts[place + 1])]
        child.run(inner)
        self.nested += [words for words in (*child.words, *child.nested) if words]

    def _outcome(self, command: Command, filled: Sequence[Word], is_negated: bool) -> bool | None:
        """Return whether a command succeeds, or fails if it is negated; None: unknown."""
        if command.reads_pipe or not filled:  # a pipe may fail elsewhere
            return None
        outcome = self._success(command, filled)
        return None if outcome is None else outcome != is_negated

    def _success(self, command: Command, filled: Sequence[Word]) -> bool | None:
        texts = [word.text for word in filled]
        if len(texts) == 1 and (found := _CALCULATION.fullmatch(texts[0])) and command.words[0].is_bare:
            number = None if _ASSIGNS.search(found[1]) else self._value_of_expression(found[1])[0]
            return None if number is None else number != "0"
        if all(map(ASSIGNMENT.match, texts)):
            return None if "$(" in command.text or "`" in command.text else True
        if len(texts) == 1 or texts[0] == ":":
            return {"true": True, ":": True, "false": False}.get(texts[0])
        return None if self._ignores_case and texts[0] == "[[" else _outcome(filled)

    def _set_if_missing(self, command: Command, is_clear: bool) -> dict[str, str]:
        """Return the variables that a command sets by ${NAME:=default}, or that had a value; it runs in any case."""
        if not is_clear:
            return {}
        pieces = (piece.text for word in command.words for piece in word.pieces if piece.is_variable)
        found = ((name[1], self._value(text)[0]) for text in pieces if (name := _SET_IF_MISSING.match(text)))
        return {name: value for name, value in found if value is not None}

    def _is_pattern(self, command: Command) -> bool:
        """Return whether the words are a pattern of case, and follow it."""
        if not self._blocks or self._blocks[-1].kind != "case":
            return False
        block = self._blocks[-1]
        if ends := re.search(r";;&|;&|;;", command.before):
            block.is_asking = True
            if ends[0] != ";;" and block.has_run is not False:
                block.falls, block.has_run = True, None
        if not block.is_asking or command.words[0].text == "esac":
            return False
        for word in command.words:
            fits = None if block.value is None or self._ignores_case else _fits(block.value, word)
            block.fits = _either(block.fits, True if word.text == "*" and word.is_bare else fits)
        if command.after.startswith(")"):
            block.begin(block.fits)
        return True

    def _is_keyword(self, word: str, command: Command, place: int, reached: bool | None) -> bool:
        """Return whether a word is the shell's own, and follow it."""
        blocks, rest = self._blocks, command.words[place:]
        if word == "if":
            blocks.append(_Block("if", reached))
        elif word == "case":
            value = [one.text for one in self._expanded(rest[1], splits=False) if not one.variable] if rest[1:] else []
            text = " ".join(one.text for one in rest[:3])
            blocks.append(_Block("case", reached, value=value[0] if value else None, unknown=text))
        elif word == "elif" and blocks:
            blocks[-1].is_asking = True
        elif word in ("then", "else") and blocks:
            blocks[-1].unknown = self._unknown_test if word == "then" else blocks[-1].unknown
            blocks[-1].begin((None if ")" in command.before else self._chain) if word == "then" else True)
        elif word == "{":
            is_function = command.before.rstrip().endswith(")")
            kind, runs = (FUNCTION, None) if is_function else ("{", True)
            blocks.append(
                _Block(kind, reached, runs, is_asking=False, unknown="" if is_function else self._unknown_test)
            )
        elif word == FUNCTION:
            pass  # the brace follows after its ()
        elif word in OPENING:
            blocks.append(_Block(word, reached, is_asking=False))
        elif word in CLOSING and blocks:
            blocks.pop()
            self._chain = None
        else:
            return word in BETWEEN
        return True

    def _may_be_clear(self, name: str) -> bool:
        """Return whether no loop or function assigns a variable, or the user names its value."""
        return name in (HOME, *self._given) or not {name, ""} & self._never.keys()

    def _is_clear(self, name: str) -> bool:
        return name not in self._unclear and self._may_be_clear(name)

    def _may_hold_more(self, name: str) -> bool:
        """Return whether what a variable holds is not known."""
        return not self._is_clear(name) or bool(self._all_unclear and name not in self._known)

    def _assign(self, filled: Sequence[Word]) -> None:
        for word in filled:
            found = ASSIGNMENT.match(word.text)
            if found is None or not self._may_be_clear(found[1]):
                continue
            name, adds = found[1], found["more"] == "+"
            if name in self._fixed:  # readonly, or a number, or in capitals
                self._lose(name, self._place)
            elif adds and name not in self._arrays and word.elements is not None and self._may_hold_more(name):
                self._lose(name, self._unclear.get(name) or self._all_unclear)
            elif word.elements is not None:
                if name in self._known:
                    self._lose(name, self._place)
                self._arrays[name] = [*(self._arrays.get(name, []) if adds else []), *word.elements]
                self._unclear.pop(name, None)
            elif name in self._arrays:
                self._lose(name, self._place)
            elif word.variable or (adds and self._may_hold_more(name)):
                self._lose(name, word.cause)
            else:
                self._known[name] = (self._known.get(name, "") if adds else "") + word.text[found.end() :]
                self._unclear.pop(name, None)

    def _conditions(self, command: Command) -> str:
        """Return the unknown conditions of which it depends whether a command runs."""
        unknown = [one.unknown for one in self._blocks if one.unknown and not one.is_asking and one.runs is None]
        if self._reached(command) is None and self._unknown_test:
            unknown.append(self._unknown_test)
        return " and ".join(dict.fromkeys(unknown))

    def _cause_here(self, command: Command) -> str:
        conditions = self._conditions(command)
        only = f", only if: {conditions}" if conditions else ""
        return f"{self._place}: {command.text}{only}"

    def _forget(self, command: Command, filled: Sequence[Word], changed: set[str] | None) -> None:
        """Follow a command that may change variables, to what is unknown; None: all of them."""
        cause = self._cause_here(command)
        if self._is_repeating:
            cause = f"{cause}, in a loop or a function"
            self.repeating |= dict.fromkeys({""} if changed is None else changed, cause)
        if changed is None:
            self._all_unclear = self._all_unclear or cause
            for name in {*self._known, *self._arrays} - {HOME}:
                self._lose(name, cause)
            return
        kept: set[str] = set()
        for word in filled:
            found = ASSIGNMENT.match(word.text)
            if found and word.elements is not None and self._may_be_clear(found[1]):
                before = self._arrays.get(found[1], [])
                name = found[1]
                older = before if found["more"] == "+" else [one.as_conditional(name, cause) for one in before]
                self._arrays[name] = [*older, *(one.as_conditional(name, cause) for one in word.elements)]
                kept.add(name)
        for name in changed:
            self._known.pop(name, None) if name in kept else self._lose(name, cause)

    def _lose(self, name: str, cause: str) -> None:
        """Follow a change of a variable to what is unknown: then the user's own value counts."""
        self._arrays.pop(name, None)
        if name in self._given:
            self._known[name] = self._given[name]
            self._unclear.pop(name, None)
            return
        self._known.pop(name, None)
        self._unclear[name] = cause

    def _expanded(self, word: Word, *, splits: bool) -> list[Word]:
        """Return the word with the values of variables; `splits`: several words for a bare one with spaces."""
        if word.elements is not None:
            inner = [one for element in word.elements for one in self._expanded(element, splits=True)]
            return [replace(word, elements=tuple(inner))]
        if splits and len(word.pieces) == 1 and (found := _ALL.fullmatch(word.text)) and found[1] in self._arrays:
            elements = self._arrays[found[1]]
            if "[*]" in found[0] and not word.pieces[0].is_bare and len(elements) != 1:
                return [self._with_cause(word, found[1])]
            if word.pieces[0].is_bare:  # which the shell splits
                elements = [part for one in elements for part in ([one] if one.variable else _split(one))]
            return elements
        word = self._with_home(word)
        pieces: list[Piece] = []
        taken = [*word.taken]
        for piece in word.pieces:
            value, used = self._value(piece.text, piece.is_bare) if piece.is_variable else (piece.text, [])
            if value is not None and splits and piece.is_variable and piece.is_bare and len(word.pieces) == 1:
                if not re.search(r"[*?\['\"\\]", value):  # which the shell would not take as they are
                    return [Word((Piece(one),), tuple(used)) for one in value.split()]
                value = None
            is_one = value is not None and not (splits and piece.is_bare and re.search(r"\s", value))
            if not piece.is_variable:
                pieces.append(piece)
            elif not is_one:
                pieces.append(piece if piece.cause else replace(piece, cause=self._cause_of(piece.text)))
            else:
                pieces.append(Piece(str(value)))
                taken += used
        return [Word(tuple(pieces), tuple(taken))]

    def _with_cause(self, word: Word, name: str) -> Word:
        return replace(word, pieces=tuple(replace(piece, cause=self._unclear.get(name, "")) for piece in word.pieces))

    def _cause_of(self, variable: str) -> str:
        """Return the place because of which a variable, or one in a calculation, is unknown; empty: none."""
        names = [] if re.match(r"\$\{?[@*]", variable) else re.findall(rf"{NAME}|\d", variable)
        causes = (self._unclear.get(name) or self._never.get(name) for name in names)
        found = next(filter(None, causes), "")
        return found or (self._all_unclear if any(name not in self._known for name in names) else "")

    def _with_home(self, word: Word) -> Word:
        """Return the word with HOME in place of a bare ~ where the shell expands it."""
        if not any(piece.is_bare and "~" in piece.text for piece in word.pieces):
            return word
        assigned = ASSIGNMENT.match(word.text) if word.is_bare else None
        pieces: list[Piece] = []
        read = 0
        for place, piece in enumerate(word.pieces):
            if not piece.is_bare or piece.is_variable or "~" not in piece.text:
                pieces.append(piece)
                read += len(piece.text)
                continue
            is_last = place == len(word.pieces) - 1
            left = 0
            for found in re.finditer(r"~([^/:]*)", piece.text):
                at, end = read + found.start(), found.end()
                starts = at == 0 or (assigned and (at == assigned.end() or word.text[at - 1] == ":"))
                follows = piece.text[end : end + 1]
                closed = follows == "/" or (follows == ":" and assigned) or (not follows and is_last)
                if not starts or not closed or not _is_home(found[1]):
                    continue
                pieces += [replace(piece, text=piece.text[left : found.start()])] if found.start() > left else []
                pieces.append(Piece(found[0] if found[1] else "${HOME}", is_variable=True))
                left = end
            pieces += [replace(piece, text=piece.text[left:])] if left < len(piece.text) else []
            read += len(piece.text)
        return replace(word, pieces=tuple(pieces))

    def _value(self, text: str, is_bare: bool = False) -> tuple[str | None, list[str]]:
        """Return the value of a variable or a calculation, None if it is unknown, and NAME=value of what it takes."""
        if found := _ARITHMETIC.fullmatch(text):
            return (None, []) if _ASSIGNS.search(found[1]) else self._value_of_expression(found[1])
        found = _REFERENCE.fullmatch(text)
        name = (found[1] or found[2]) if found else ""
        if found is None or not self._is_clear(name) or name in self._arrays:
            return None, []
        value = self._known.get(name)
        if value is None and (self._all_unclear or _OF_THE_SHELL.fullmatch(name)):
            return None, []
        if found["instead"]:
            if value is None and not self._takes_defaults:
                return None, []
            is_set = value is not None and not (found["empty"] and not value)
            return (self._text(found["other"], is_bare) if is_set else ""), []
        if value is None or (not value and found["empty"]):
            default = found["default"]
            value = value if default is None else self._text(default, is_bare) if self._takes_defaults else None
        return value, [] if value is None or name == HOME else [f"{name}={value}"]

    def _text(self, default: str, is_bare: bool) -> str | None:
        """Return the text that a default stands for."""
        if not is_bare and re.search(r"(^|[=:])~|'", default):  # which the shell leaves as they are between quotes
            return None
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
            return number if number is not None and re.fullmatch(r"-?(0|[1-9]\d*)", number) else "?"

        filled = re.sub(rf"{VARIABLE}|{NAME}", value, expression)
        filled = filled.replace("&&", " and ").replace("||", " or ").replace("#", "?")  # 16#ff is no comment
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

_COMPARED: dict[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip


def _number(node: ast.expr) -> int:
    """Return the number of an expression of whole numbers from 0 up, where Python calculates as the shell does."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        found = _OPERATIONS[type(node.op)](_number(node.left), _number(node.right))
        if 0 <= found < 1 << 63:
            return found
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARED:
        return int(_COMPARED[type(node.ops[0])](_number(node.left), _number(node.comparators[0])))
    if isinstance(node, ast.BoolOp):
        each = [bool(_number(value)) for value in node.values]
        return int(all(each) if isinstance(node.op, ast.And) else any(each))
    raise ValueError("not calculated here")


_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "-eq": operator.eq, "-ne": operator.ne, "-lt": operator.lt, "-le": operator.le, "-gt": operator.gt,
    "-ge": operator.ge,
}  # fmt: skip


def _is_home(user: str) -> bool:
    """Return whether the shell puts a folder in the place of ~ with this name behind it."""
    if user in ("", "+", "-"):
        return True
    try:
        Path(f"~{user}").expanduser()
    except RuntimeError:
        return False
    return True


def _split(word: Word) -> list[Word]:
    return [replace(word, pieces=(Piece(part),)) for part in word.text.split()]


def _fits(text: str, pattern: Word) -> bool | None:
    """Return whether a pattern of the shell's fits the text; None: unknown."""
    if pattern.variable or re.search(r"\[\^|[\\~(]", pattern.text):
        return None
    if all(piece.is_bare for piece in pattern.pieces):
        return fnmatchcase(text, pattern.text)
    return None if re.search(r"[*?\[]", pattern.text) else text == pattern.text


def _outcome(words: Sequence[Word]) -> bool | None:
    """Return whether a test succeeds, as `[ a = b ]`, `[[ a == b && c == d ]]` or `test a = b`; None: unknown."""
    texts = [word.text for word in words]
    if any(word.variable for word in words):
        return None
    if texts[0] == "test":
        return _single(words[1:], is_double=False)
    if (texts[0], texts[-1]) == ("[", "]"):
        return _single(words[1:-1], is_double=False)
    if (texts[0], texts[-1]) != ("[[", "]]") or any(text in "()" for text in texts):
        return None
    parts: list[list[list[Word]]] = [[[]]]
    for word in words[1:-1]:
        if word.is_bare and word.text == "||":
            parts.append([[]])
        elif word.is_bare and word.text == "&&":
            parts[-1].append([])
        else:
            parts[-1][-1].append(word)
    any_holds: bool | None = False
    for tests in parts:
        all_hold: bool | None = True
        for test in tests:
            all_hold = _both(all_hold, _single(test, is_double=True))
        any_holds = _either(any_holds, all_hold)
    return any_holds


def _single(words: Sequence[Word], *, is_double: bool) -> bool | None:
    """Return whether a test without brackets succeeds; `is_double`: its brackets are double."""
    texts = [word.text for word in words]
    if texts[:1] == ["!"] and len(texts) > 1:
        holds = _single(words[1:], is_double=is_double)
        return None if holds is None or len(texts) > 4 else not holds
    match texts:
        case []:
            return None if is_double else False
        case [value]:
            return bool(value)
        case ["-z" | "-n" as kind, value]:
            return (kind == "-z") == (not value)
        case [left, "=" | "==" | "!=" as sign, right]:
            holds = _fits(left, words[2]) if is_double else left == right
            return None if holds is None else (sign == "!=") != holds
        case [left, sign, right] if sign in _COMPARISONS and all(
            re.fullmatch(r"-?(0|[1-9]\d*)", number) for number in (left, right)
        ):
            return _COMPARISONS[sign](int(left), int(right))
    return None


def with_values(
    found: Sequence[Command],
    last: int,
    *,
    given: Mapping[str, str] | None = None,
    sourced: Callable[[Word], list[Command] | None] = _no_file,
) -> list[list[Word]]:
    """Return the words of each command that runs, with the values of variables that the script assigns.

    After the commands `found` follow those of texts for `eval` and other shells, and of files that are sourced.

    Args:
        found: the commands.
        last: number of the command whose words are asked for: in a loop or a function, all assignments count.
        given: values that the user names, which stand where the script's own are unknown.
        sourced: returns the commands of a file that the script sources; None: unknown.
    """
    first = _Script({}, given or {}, sourced).run(found)
    never = first.repeating
    if found and first.repeats[last]:
        changes = [(command.place, name) for command in first.ran for name in _changes(command.words) or ()]
        times = Counter(name for _, name in changes)
        never |= {name: place for place, name in changes if times[name] > 1}
        for command in found[last + 1 :]:
            never |= dict.fromkeys(_changes(_after_keywords(command.words)) or (), command.place)
    script = _Script(never, given or {}, sourced).run(found)
    return [*script.words, *script.nested]
