"""How categories, parts and operators of a profile are called where people read them."""

from __future__ import annotations

import json

from rollout_bench.analysis.profiles.profiled import HOST_GAP, LINEAR, Part

CATEGORY_WORDS = {"kv_cache": "KV cache", "memory_copy": "memory copy", HOST_GAP: "device waits"}
"""Of those that are not called as they are."""

REST = "rest"
"""What is too small for a column or a line of its own."""

_NAME, _SHAPES = 44, 28
"""Characters of an operator's name and of its shapes that a table shows."""


def category_word(category: str) -> str:
    """A category."""
    return CATEGORY_WORDS.get(category, category)


def part_word(part: Part) -> str:
    """A category, and of a linear layer its role."""
    category, role = part
    return f"{category_word(category)} {role}" if role else category_word(category)


def role_word(part: Part) -> str:
    """The same in a list below all linear layers."""
    return f"- {part[1]}" if part[0] == LINEAR and part[1] else part_word(part)


def operator_word(name: str) -> str:
    """The name of an operator or kernel, its middle left out where it is long, as names of templates are."""
    return cut(" ".join(name.removeprefix("void ").split()), _NAME)


def shapes_word(shapes: str) -> str:
    """`32x768, 768x4096` of JSON such as `[[32, 768], [768, 4096], []]`: without scalars, and what is too long."""
    try:
        found = json.loads(shapes) if shapes else []
    except ValueError:
        return cut(shapes, _SHAPES)
    if not isinstance(found, list):
        return cut(shapes, _SHAPES)
    flat = ["x".join(map(str, s)) for s in found if isinstance(s, list) and s and not isinstance(s[0], list)]
    while len(flat) > 1 and len(", ".join(flat)) > _SHAPES:
        flat = [*flat[:-2], "..."] if flat[-1] == "..." else [*flat[:-1], "..."]
    return cut(", ".join(flat), _SHAPES)


def cut(text: str, characters: int) -> str:
    """`text`, its middle left out where it has more than `characters`."""
    if len(text) <= characters:
        return text
    head = (characters - 3) * 2 // 3
    return f"{text[:head]}...{text[len(text) - (characters - 3 - head) :]}"
