"""YAML files from users. Each kind of damage raises a `UserError` of two lines."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.core.errors import UserError
from rollout_bench.core.yaml_remedies import mistake_in, slip_in, without_keys

SPACE_AFTER_COLON = "write a space after the colon: a word like this is one key to YAML"
"""Remedy for `key:value`."""

TWICE = "stands twice"
_MOST_BYTES = 1 << 20
_GLUED = re.compile(r"\s*(?:- )?[A-Za-z_]\w*:(?!//)[^\s#]")
"""Start of a line with a key whose value follows the colon without a space."""

_GLUED_DASH = re.compile(r"\s*-[A-Za-z][\w.+-]*\s*(#.*)?$")
"""Line of a list whose item follows the dash without a space."""

_MOST_VALUES = 100_000
"""Maximum values in a config. Nested aliases multiply: without a limit 300 bytes expand to 10 billion values."""


def packaged(path: Path) -> Any:
    """Return the content of a YAML file of this package, with the parser in C where PyYAML has it."""
    return yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


class _NoKeyTwice(yaml.SafeLoader):
    """YAML loader that rejects or records duplicate keys in a mapping; the standard loader keeps the last one."""

    twice: list[str] | None = None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        counts = Counter(key.value for key in keys)
        twice = [str(key) for key, count in counts.items() if count > 1]
        if twice and self.twice is None:
            last = [key for key in keys if key.value == twice[0]][-1]
            raise yaml.MarkedYAMLError(problem=f"key {twice[0]!r} {TWICE}", problem_mark=last.start_mark)
        if self.twice is not None:
            self.twice += twice
        return super().construct_mapping(node, deep)


def _decimal(loader: _NoKeyTwice, node: yaml.ScalarNode) -> int:
    if re.match(r"[-+]?0[\d_]|.*:", node.value):
        read = yaml.SafeLoader.construct_yaml_int(loader, node)
        base = 60 if ":" in node.value else 8
        problem = f"{node.value} is {read} to YAML (base {base}): write a plain number, or quotes"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return yaml.SafeLoader.construct_yaml_int(loader, node)


_NoKeyTwice.add_constructor("tag:yaml.org,2002:int", _decimal)


def value_in(text: str) -> Any:
    """Return the value in a YAML `text`; raise `yaml.YAMLError` for a key that stands twice, or no decimal number."""
    return yaml.load(text, _NoKeyTwice)


def read_text(path: Path, what: str, remedy: str, where: str | None = None) -> str:
    """Return the text of a file.

    Args:
        path: the file.
        what: the expected kind of file, for messages.
        remedy: what the user should do about a damaged file.
        where: what the user should do about a missing file; `remedy` by default.

    Raises:
        UserError: if the file is missing, too large, or not UTF-8. The error names the file.
    """
    try:
        with path.open("rb") as file:
            held = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {problem}", where or remedy) from None
    if len(held) > _MOST_BYTES:
        raise UserError(f"{path}: is larger than {_MOST_BYTES >> 20} MiB, too large for a {what}", remedy)
    try:
        return held.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}", remedy
        ) from None


def read_mapping(
    path: Path,
    what: str,
    remedy: str,
    where: str | None = None,
    example: str = "",
    twice: list[str] | None = None,
) -> dict[str, Any]:
    """Return the content of a YAML file, which must be a mapping.

    Args:
        path: the file.
        what: the expected kind of file, for messages.
        remedy: what the user should do about a damaged file.
        where: what the user should do about a missing file; `remedy` by default.
        example: valid keys, for messages.
        twice: list that receives duplicate keys, whose last value counts. If None, a duplicate key is an error.

    Raises:
        UserError: if the file is missing or damaged. The error names the file, and line and column of a syntax error.
    """
    return mapping_in(read_text(path, what, remedy, where), path, what, remedy, example, twice)


def mapping_in(
    text: str, path: Path, what: str, remedy: str, example: str = "", twice: list[str] | None = None
) -> dict[str, Any]:
    """Return the mapping in the YAML `text`, as `read_mapping` does; messages name `path`."""
    try:
        if what == "config" and (slip := slip_in(text)):
            raise UserError(f"{path}: line {slip.line}, column {slip.column}: {slip.problem}", slip.remedy)
        content = _content(path, text, twice)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        if problem.endswith(TWICE):
            raise UserError(f"{path}: {line}{problem}", "leave one of the two out") from None
        _refuse_glued(path, text)
        # what is no config, as a trainer's script, has the caller's remedy
        mistake = mistake_in(text, error) if what == "config" and isinstance(error, yaml.MarkedYAMLError) else None
        if mistake is not None:
            place = f"line {mistake.line}, column {mistake.column}"
            raise UserError(f"{path}: {place}: is not valid YAML: {mistake.problem}", mistake.remedy) from None
        raise UserError(f"{path}: {line}is not valid YAML: {problem}", remedy) from None
    except (
        ValueError,
        AttributeError,
    ) as error:  # PyYAML raises these on an impossible date, or on 5,000 digits
        raise UserError(f"{path}: contains a value that can't be read: {error}", remedy) from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply for a {what}", remedy) from None
    if not isinstance(content, dict):
        _refuse_glued(path, text)
        if what == "config" and (of_config := without_keys(text, content)):
            raise UserError(f"{path}: {of_config[0]}", of_config[1])
        raise UserError(f"{path}: must have keys at its top{example}", remedy)
    return content


def _refuse_glued(path: Path, text: str) -> None:
    """Raise `UserError` for the first line that looks like `key:value` or `-item`."""
    for number, line in enumerate(text.splitlines(), 1):
        if _GLUED_DASH.match(line):
            raise UserError(
                f"{path}: line {number}: {line.strip()}", f"write a space after the dash: - {line.strip()[1:]}"
            ) from None
        if _GLUED.match(line):
            raise UserError(f"{path}: line {number}: {line.strip()}", SPACE_AFTER_COLON) from None


def _content(path: Path, text: str, twice: list[str] | None) -> Any:
    """Return the content of `text`; raise `UserError` before too many aliases are expanded."""
    loader = _NoKeyTwice(text)
    loader.twice = twice
    node = loader.get_single_node()
    if node is None:
        return None
    if _values(node, {}) > _MOST_VALUES:
        problem = f"{path}: holds more than {_MOST_VALUES:,} values, each alias (*name) counted in full"
        raise UserError(problem, "write the values without YAML aliases; `rollout-bench keys` lists the keys")
    return loader.construct_document(node)


def _values(node: yaml.Node, counted: dict[int, int]) -> int:
    """Return the number of values in `node`, each alias counted in full. `counted` caches them by the node's id."""
    if id(node) not in counted:
        counted[id(node)] = _MOST_VALUES + 1  # until counted: a node that contains itself is infinite
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = [value for part in parts for value in (part if isinstance(part, tuple) else (part,))]
        counted[id(node)] = 1 + sum(_values(value, counted) for value in inner)
    return counted[id(node)]


LONGEST_LINE = 10_000
"""Characters after which YAML breaks a line; no remedy is longer."""


def flow(value: Any) -> str:
    """Return a value in one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=LONGEST_LINE, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
