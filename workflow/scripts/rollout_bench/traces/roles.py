"""What a matrix multiplication does in the model: by the shapes of its inputs, or by its place in the step."""

from __future__ import annotations

import bisect
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rollout_bench.records.profile import LinearShape, Role
from rollout_bench.traces.events import BETWEEN
from rollout_bench.traces.rules import Layout

CYCLE: Final[tuple[Role, ...]] = ("qkv", "o", "gate_up", "down")
"""The order of the linear layers in one layer of the model."""

LAST: Final[Role] = "lm_head"
"""The one that follows all layers."""

UNKNOWN: Final = -1
"""Tokens where they are unknown."""

OfShapes = Callable[[str, Layout], tuple[Role | None, int]]

Product = tuple[int, int, int]
"""Tokens (M), features that go in (K) and that come out (N)."""


@dataclass(frozen=True)
class Linear:
    """One row of linear work.

    Attributes:
        block: number of its step on its stream.
        name: its name.
        path: names of what encloses it.
        ruled: whether a rule says that it is linear; else it is a plain operator that serves the next one.
        companion: whether it ends the multiplication of the row before.
        role: what the rule says that it does.
        layout: how the rule says that its inputs stand.
        shapes: JSON of its inputs' dimensions, or "".
    """

    block: int
    name: str
    path: str
    ruled: bool
    companion: bool
    role: Role | None
    layout: Layout
    shapes: str


def roles_of(rows: Sequence[Linear], linears: Sequence[LinearShape]) -> list[tuple[Role, int]]:
    """Role and tokens of each row; in each block rows stand in order of time. A role that nothing tells is other."""
    known: dict[tuple[int, int], set[Role]] = {}
    for shape in linears:
        known.setdefault((shape.in_features, shape.out_features), set()).add(shape.role)

    @functools.cache
    def of_shapes(shapes: str, layout: Layout) -> tuple[Role | None, int]:
        return _by_shapes(shapes, layout, known)

    result: list[tuple[Role, int]] = []
    for _, group in itertools.groupby(rows, key=lambda row: row.block):
        result.extend(_block(list(group), of_shapes, linears))
    return result


def _block(rows: list[Linear], of_shapes: OfShapes, linears: Sequence[LinearShape]) -> list[tuple[Role, int]]:
    own = _own(rows)
    found: dict[int, tuple[Role | None, int]] = {}
    for i in own:
        role, tokens = of_shapes(rows[i].shapes, rows[i].layout)
        found[i] = (rows[i].role or role, tokens)
    counted = [i for i in own if rows[i].role is None]
    places = cycle(linears, len(counted))
    for i, place in zip(counted, places, strict=True):
        role, tokens = found[i]
        found[i] = (role or place, tokens)
    result: list[tuple[Role, int]] = []
    for i, row in enumerate(rows):
        # What serves a multiplication stands before it, what it calls itself behind.
        nearest = _nearest(own, i, ahead=not row.ruled)
        role, tokens = found.get(nearest, (None, UNKNOWN))
        result.append((role or "other", tokens if i == nearest else UNKNOWN))
    return result


def _own(rows: Sequence[Linear]) -> list[int]:
    """The rows that are a multiplication each: ruled, no companion, and not called by another one."""
    own: list[int] = []
    inside = ""
    for i, row in enumerate(rows):
        if not row.ruled or row.companion:
            continue
        if inside and (row.path == inside or row.path.startswith(inside + BETWEEN)):
            continue
        inside = f"{row.path}{BETWEEN}{row.name}" if row.path else row.name
        own.append(i)
    return own


def _nearest(own: Sequence[int], i: int, ahead: bool) -> int:
    """The multiplication at or before row `i`, or at or behind it if `ahead`; the other one without one; else -1."""
    behind = bisect.bisect_left(own, i)
    before = bisect.bisect_right(own, i) - 1
    for place in (behind, before) if ahead else (before, behind):
        if 0 <= place < len(own):
            return own[place]
    return -1


def cycle(linears: Sequence[LinearShape], count: int) -> list[Role]:
    """Roles of `count` multiplications of one step by their place: the layers' in turn, then the last one.

    A step that does not have exactly as many as the model's layers ask for, with or without the last one, tells
    nothing: all of them are other.
    """
    layers = {shape.role: shape.layers for shape in linears}
    roles = [role for role in CYCLE if role in layers]
    repeats = {layers[role] for role in roles}
    if len(repeats) == 1:
        expected = roles * repeats.pop()
        if count == len(expected):
            return expected
        if LAST in layers and count == len(expected) + 1:
            return [*expected, LAST]
    return ["other"] * count


def _by_shapes(shapes: str, layout: Layout, known: dict[tuple[int, int], set[Role]]) -> tuple[Role | None, int]:
    """The one role that fits the shapes, None without one or with several; and the tokens."""
    products = list(_products(_dims(shapes), layout))
    fitting = [(m, roles) for m, k, n in products if (roles := known.get((k, n)))]
    if not fitting:
        return None, products[0][0] if products and layout != "any" else UNKNOWN
    tokens = fitting[0][0]
    roles = set().union(*(roles for _, roles in fitting))
    return (roles.pop() if len(roles) == 1 else None), tokens


def _dims(shapes: str) -> list[list[int]]:
    """The dimensions of each input that has two or more."""
    try:
        content = json.loads(shapes) if shapes else []
    except ValueError:
        return []
    whole = [d for d in content if isinstance(d, list) and all(type(n) is int for n in d)] if content else []
    return [d for d in whole if len(d) >= 2]


def _products(dims: list[list[int]], layout: Layout) -> Iterator[Product]:
    """The products that the inputs may be of."""
    if len(dims) < 2:
        return
    if layout in ("out_first", "any"):
        out, left = dims[0], dims[1]
        if out[:-1] == left[:-1]:
            yield _tokens(left), left[-1], out[-1]
    left, right = dims[0], dims[1]
    if layout in ("in_first", "any"):
        if left[-1] == right[-2]:
            yield _tokens(left), left[-1], right[-1]
        if left[-1] == right[-1]:
            yield _tokens(left), left[-1], right[-2]
    if layout == "any":
        # Packed weights keep only one of their sides, scales have the other.
        sides = {side for other in dims[1:] for side in other}
        # Ascend's blocked weights: [N / n, K / k, k, n], or with both sides changed.
        sides |= {side for a, b, c, d in (o for o in dims[1:] if len(o) == 4) for side in (a * d, b * c)}
        yield from ((_tokens(left), left[-1], side) for side in sorted(sides))


def _tokens(left: list[int]) -> int:
    tokens = 1
    for side in left[:-1]:
        tokens *= side
    return tokens
