"""Find the mistake in a text that is no YAML, which the parser may notice lines later, and name its remedy."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import yaml

from rollout_bench.core.secrets import looks_secret

_CLOSING = {"{": "}", "[": "]"}


_BY_WORDS = (
    ("sequence entries are not allowed", "a dash begins a line of its own", "write a list in brackets: [a, b]"),
    ("found unknown escape", "", "write single quotes, in which a backslash is itself"),
    ("undefined alias", "", "quote the value: in YAML * names an alias"),
    ("another document", "a second document begins", "leave the line --- out: a file has one"),
)
"""Words of YAML's -> what is wrong, or YAML's own words; and what mends it."""


class Mistake(NamedTuple):
    """A mistake in a text: its line and column, both from 1, what is wrong there, and what mends it."""

    line: int
    column: int
    problem: str
    remedy: str


def mistake_in(text: str, error: yaml.MarkedYAMLError) -> Mistake | None:
    """Return the mistake in `text` because of which YAML raised `error`; None if it is of no known kind."""
    return next(filter(None, _mistakes(text, error)), None)


def slip_in(text: str) -> Mistake | None:
    """Return the first mistake in a text that is YAML, but of another value than it looks like; None without one.

    Raises:
        yaml.YAMLError: if the text is no YAML.
    """
    node = yaml.compose(text, yaml.SafeLoader)
    return next(filter(None, _slips(text.splitlines(), node, set())), None) if node is not None else None


def _slips(lines: list[str], node: yaml.Node, seen: set[int]) -> Iterator[Mistake | None]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield _glued_item(lines, node) or _typographic(node)
    elif isinstance(node, yaml.SequenceNode):
        for one in node.value:
            yield from _slips(lines, one, seen)
    elif isinstance(node, yaml.MappingNode):
        if node.flow_style:
            yield _list_without_brackets(node)
        for key, value in node.value:
            yield from _slips(lines, key, seen)
            yield from _slips(lines, value, seen)


def _glued_item(lines: list[str], node: yaml.ScalarNode) -> Mistake | None:
    """Return the item of a list without a space after its dash, which is a text to YAML."""
    line = lines[node.start_mark.line] if node.start_mark.line < len(lines) else ""
    found = re.fullmatch(r"\s*-([A-Za-z][\w.+-]*)\s*(#.*)?", line)
    if found is None or node.style is not None or line[: node.start_mark.column].strip():
        return None
    return _at(node.start_mark, f"-{found[1]} is no item of a list", f"write a space after the dash: - {found[1]}")


def _typographic(node: yaml.ScalarNode) -> Mistake | None:
    found = re.fullmatch("([\N{LEFT DOUBLE QUOTATION MARK}\N{LEFT SINGLE QUOTATION MARK}])(.*).", node.value)
    if found is None or node.style is not None:
        return None
    remedy = f"write straight quotes: {_shown(repr(found[2]), repr('VALUE'))}"
    return _at(node.start_mark, f"{found[1]} quotes nothing in YAML", remedy)


def _list_without_brackets(node: yaml.MappingNode) -> Mistake | None:
    """Return the key in braces whose value goes on behind a comma, where YAML begins another key."""
    values: list[str] = []
    named: tuple[yaml.Node, str] | None = None
    for key, value in node.value:
        is_number = isinstance(key, yaml.ScalarNode) and key.tag in _NUMBERS
        is_alone = isinstance(value, yaml.ScalarNode) and value.value == "" and value.style is None
        if is_number and is_alone and named is not None:
            values.append(key.value)
        elif values:
            break
        else:
            named = (key, value.value) if isinstance(value, yaml.ScalarNode) and value.value else None
    if named is None or not values:
        return None
    written = f"{named[0].value}: [{', '.join([named[1], *values])}]"
    return _at(named[0].start_mark, f"{named[0].value} has several values without brackets", f"write {written}")


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def without_keys(text: str, content: object) -> tuple[str, str] | None:
    """Return what is wrong with a config without keys, and what mends it; None if unknown. `content` is YAML's."""
    if content is None:
        return "has no keys, only comments", "write keys into it, or leave it out of the call"
    if isinstance(content, list) and all(isinstance(one, dict) for one in content):
        keys = ", ".join(str(key) for one in content for key in one)
        return "is a list, and keys are needed at its top", f"write each key without a dash before it: {keys}"
    lines = text.splitlines()
    found = _without_colon(lines, _first_line(lines)) if "=" in str(content) else None
    return found and (f"line {found.line}: {found.problem}", found.remedy)


def _first_line(lines: list[str]) -> int:
    """Return the index of the first line that is no comment."""
    return next((number for number, line in enumerate(lines) if line.split("#")[0].strip()), 0)


def _mistakes(text: str, error: yaml.MarkedYAMLError) -> Iterator[Mistake | None]:
    mark, opened, problem = error.problem_mark, error.context_mark, error.problem or ""
    if mark is None:
        return
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    yield _of_the_hub(line, mark)
    yield _quote(text, mark, opened if problem == "found unexpected end of stream" else None)
    if opened is not None and "flow" in str(error.context):
        yield _bracket(text, mark, opened)
    if "cannot start any token" in problem:
        yield _sign(line, mark, _last_opened(text, mark) is not None)
    if "could not find expected ':'" in problem and opened is not None:
        yield _without_colon(lines, opened.line)
    if "mapping values are not allowed" in problem:
        yield _second_colon(line, mark) or _without_colon(lines, _line_before(lines, mark.line))
    if "<document start>" in problem:
        yield _without_colon(lines, _first_line(lines))
    yield _early_brace(line, mark) if "<block end>" in problem else None
    if extra := re.search(r"but found '([]}])'", problem):
        yield _at(mark, f"{extra[1]} closes nothing", f"leave it out, or open it before with {_opening(extra[1])}")
    if "<block mapping start>" in problem or "mapping values are not allowed" in problem:
        begin = len(line) - len(line.lstrip()) + 1
        remedy = f"begin it in the column of {_key_before(lines, mark.line)}"
        yield Mistake(mark.line + 1, begin, "begins in a column of no level", remedy)
    for words, what, remedy in _BY_WORDS:
        if words in problem:
            yield _at(mark, what or problem, remedy)


def _of_the_hub(line: str, mark: yaml.Mark) -> Mistake | None:
    found = re.search(r"\bhub: +([\w./-]+)", line)
    if found is None:
        return None
    return Mistake(mark.line + 1, found.start() + 1, "a model of the hub has no space", f"write hub:{found[1]}")


def _at(mark: yaml.Mark, problem: str, remedy: str) -> Mistake:
    return Mistake(mark.line + 1, mark.column + 1, problem, remedy)


def _opening(closing: str) -> str:
    return next(opening for opening, its in _CLOSING.items() if its == closing)


def _quote(text: str, mark: yaml.Mark, opened: yaml.Mark | None) -> Mistake | None:
    """Return the quote that is not closed, or closed by the next that opens, in the line of the error."""
    if opened is None:
        with suppress(yaml.YAMLError):
            for token in yaml.scan(text):
                is_quoted = isinstance(token, yaml.ScalarToken) and token.style in ("'", '"')
                if is_quoted and token.start_mark.line != token.end_mark.line == mark.line:
                    opened = token.start_mark
    if opened is None:
        return None
    quote = text[opened.index]
    return _at(opened, f"the quote {quote} is not closed", f"write {quote} where the value ends")


def _bracket(text: str, mark: yaml.Mark, opened: yaml.Mark) -> Mistake | None:
    """Return the bracket that is not closed, or the place of a comma or a value between its values."""
    lacks_value = text[opened.index : opened.index + 1] not in _CLOSING  # YAML names its place and not the bracket
    if lacks_value:
        opened = _last_opened(text, mark) or opened
    opening, depth = text[opened.index : opened.index + 1], 0
    if (closing := _CLOSING.get(opening)) is None:
        return None
    for sign in text[opened.index :]:
        depth += (sign in _CLOSING) - (sign in _CLOSING.values())
        if not depth:
            break
    if depth:
        return _at(opened, f"{opening} is not closed", f"write {closing} where its values end")
    found = text[mark.index : mark.index + 1]
    if found in _CLOSING.values() and found != closing:
        return _at(mark, f"{found} does not close {opening}", f"write {closing}")
    if lacks_value:
        return _at(mark, "a value is missing before this", "write it, or leave the comma out") if found == "," else None
    return _at(mark, "a comma is missing before this", "separate values by commas")


def _last_opened(text: str, mark: yaml.Mark) -> yaml.Mark | None:
    """Return the place of the innermost bracket that is open at `mark`."""
    opened: list[yaml.Mark] = []
    with suppress(yaml.YAMLError):
        for token in yaml.scan(text):
            if token.start_mark.index >= mark.index:
                break
            if isinstance(token, yaml.FlowSequenceStartToken | yaml.FlowMappingStartToken):
                opened.append(token.start_mark)
            elif isinstance(token, yaml.FlowSequenceEndToken | yaml.FlowMappingEndToken) and opened:
                opened.pop()
    return opened[-1] if opened else None


def _sign(line: str, mark: yaml.Mark, is_inside: bool) -> Mistake | None:
    if line[mark.column] == "\t":
        return _at(mark, "a tab is no space to YAML", "write spaces instead of the tab")
    value = re.sub(r"\s+#.*", "", line[mark.column :]).strip()
    if is_inside:  # of brackets, where a value ends before
        value = re.split(r"[],}]|:(?=\s|$)", value)[0].rstrip()
    return _at(mark, f"no value begins with {value[0]}", f"quote it: {_shown(repr(value), repr(value[0] + '...'))}")


def _without_colon(lines: list[str], number: int) -> Mistake | None:
    """Return the mistake in a line whose key has no colon: `key value`, `key = value`, a key alone or an item."""
    line = lines[number] if 0 <= number < len(lines) else ""
    parts = re.fullmatch(r"(\s*)(\w[\w.+-]*)\s*=?\s*(.*)", line)
    if parts is None or re.search(r":(\s|$)", line):
        return None
    space, key, value = parts.groups()
    before = lines[_line_before(lines, number)] if number else ""
    if before.lstrip().startswith("- ") and not value:
        remedy = f"write {_shown(f'{before[: len(before) - len(before.lstrip())]}- {key}', '- VALUE')}"
    else:
        remedy = f"write {_shown(f'{space}{key}: {value}'.rstrip(), 'KEY: VALUE')}"
    return Mistake(number + 1, len(space) + 1, "this line has no colon after a key", remedy)


def _early_brace(line: str, mark: yaml.Mark) -> Mistake | None:
    """Return the brace that ends a value before all of its keys."""
    parts = re.match(r"(\s*[^\s:'\"]+: +\{.*)\}\s*,?\s*([\w.-]+:\s.*)", line)
    if parts is None or line[: mark.column].count("{") != line[: mark.column].count("}"):
        return None
    rest = re.sub(r"\s+#.*", "", parts[2]).strip()
    mended = f"{parts[1]}, {rest}{'' if rest.count('}') > rest.count('{') else '}'}".strip()
    problem = "the value ends at the brace before this, and more follows in its line"
    return _at(mark, problem, f"write {_shown(mended, 'KEY: {KEY: VALUE, KEY: VALUE}')}, or begin a line for the key")


def _second_colon(line: str, mark: yaml.Mark) -> Mistake | None:
    parts = re.match(r"(\s*(?:- )?[^\s:'\"]+: +)(.*)", line)
    if parts is None or mark.column < len(parts[1]):
        return None
    value = re.sub(r"\s+#.*", "", parts[2]).strip()
    if value.endswith("}"):
        lacks = value.count("}") > value.count("{")
        mended = f"{parts[1]}{{{value}{'' if lacks else '}'}".strip()
        problem = "{ is missing where the values of the key begin" if lacks else "keys in one line need braces"
        return Mistake(mark.line + 1, len(parts[1]) + 1, problem, f"write {_shown(mended, 'KEY: {KEY: VALUE}')}")
    return _at(mark, "a value without quotes has no second colon", f"quote it: {_shown(repr(value), repr('VALUE'))}")


def _line_before(lines: list[str], number: int) -> int:
    """Return the number of the last line before `number` that has more than a comment; -1 without one."""
    texts = (place for place in range(number - 1, -1, -1) if re.match(r"\s*[^\s#]", lines[place]))
    return next(texts, -1)


def _key_before(lines: list[str], number: int) -> str:
    place = _line_before(lines, number)
    while place >= 0 and lines[place].lstrip().startswith("- "):
        place = _line_before(lines, place)
    return f"line {place + 1}" if place >= 0 else "the other keys"


def _shown(mended: str, form: str) -> str:
    """Return a line or value as it should be; its `form` where it may be a secret."""
    return form if looks_secret(mended) else mended
