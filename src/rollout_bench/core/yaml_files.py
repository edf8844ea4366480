"""YAML that a user wrote, read with every way in which it can be damaged told in two lines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.core.errors import UserError

_MOST_BYTES = 1 << 20
_MOST_VALUES = 100_000
"""What a config holds at most. Aliases of aliases multiply: without a limit 300 bytes make 10 billion values."""


class _NoKeyTwice(yaml.SafeLoader):
    """YAML where a key that stands twice in one mapping is an error, or noted; plain YAML lets the last one win."""

    twice: list[str] | None = None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = [str(key) for key, count in counts.items() if count > 1]
        if twice and self.twice is None:
            raise yaml.MarkedYAMLError(problem=f"key {twice[0]!r} stands twice", problem_mark=node.start_mark)
        if self.twice is not None:
            self.twice += twice
        return super().construct_mapping(node, deep)


def read_text(path: Path, what: str, remedy: str, where: str | None = None) -> str:
    """Return the text of a file.

    Args:
        path: the file.
        what: what it should be.
        remedy: what to do about one that is damaged.
        where: what to do about one that is not there; the same by default.

    Raises:
        UserError: naming the file, where it is not there, too large, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            held = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {problem}", where or remedy) from None
    if len(held) > _MOST_BYTES:
        raise UserError(f"{path}: is larger than {_MOST_BYTES >> 20} MiB, which no {what} is", remedy)
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
    """Return the YAML in a file, which must have keys at its top.

    Args:
        path: the file.
        what: what it should be.
        remedy: what to do about one that is damaged.
        where: what to do about one that is not there; the same by default.
        example: keys that it may have.
        twice: takes the keys that stand twice, of which the last one holds; None: such a key is an error.

    Raises:
        UserError: naming the file and, for a syntax error, line and column.
    """
    return mapping_in(read_text(path, what, remedy, where), path, what, remedy, example, twice)


def mapping_in(
    text: str, path: Path, what: str, remedy: str, example: str = "", twice: list[str] | None = None
) -> dict[str, Any]:
    """Return the YAML in `text`, as `read_mapping` does, where `path` is what messages name."""
    try:
        content = _content(path, text, twice)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path}: {line}no valid YAML: {problem}", remedy) from None
    except (
        ValueError,
        AttributeError,
    ) as error:  # what PyYAML raises on a date that does not exist, or on 5,000 digits
        raise UserError(f"{path}: holds a value that can't be read: {error}", remedy) from None
    except RecursionError:
        raise UserError(f"{path}: is nested deeper than any {what} is", remedy) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must have keys at its top{example}", remedy)
    return content


def _content(path: Path, text: str, twice: list[str] | None) -> Any:
    """Return what `text` holds; raise `UserError` before aliases are filled in that would make too much of it."""
    loader = _NoKeyTwice(text)
    loader.twice = twice
    node = loader.get_single_node()
    if node is None:
        return None
    if _values(node, {}) > _MOST_VALUES:
        problem = f"{path}: holds more than {_MOST_VALUES:,} values, each alias (*name) counted in full"
        raise UserError(
            problem, "write values where they are needed; docs/reference/config.csv shows how a config looks"
        )
    return loader.construct_document(node)


def _values(node: yaml.Node, counted: dict[int, int]) -> int:
    """Return how many values `node` stands for, each alias counted in full.

    `counted` remembers them by the node's id.
    """
    if id(node) not in counted:
        counted[id(node)] = _MOST_VALUES + 1  # until it is known: a node that holds itself has no end
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = [value for part in parts for value in (part if isinstance(part, tuple) else (part,))]
        counted[id(node)] = 1 + sum(_values(value, counted) for value in inner)
    return counted[id(node)]
