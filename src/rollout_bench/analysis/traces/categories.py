"""Categorise events by rules; linear layers also get their role and their tokens."""

from __future__ import annotations

import bisect
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from pydantic import AfterValidator, Field

from rollout_bench.analysis.traces.events import BETWEEN, DEVICE, OUTSIDE, STEP
from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.inside import LinearShape
from rollout_bench.contracts.spec import Category, Role

CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)

Platform = Literal["cpu", "cuda", "ascend"]

Layout = Literal["out_first", "in_first", "any"]
"""Order of the inputs of a matrix multiplication."""

RULES_FILE: Final = Path(__file__).with_name("rules.yaml")


def _is_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return text


Pattern = Annotated[str, AfterValidator(_is_pattern)]


class Rule(Strict):
    """Category of events with a pattern in their name, or in a name on their path."""

    match: Pattern = Field(min_length=1, description="Regular expression to find in a name.")
    category: Category = Field(description="Category of the event.")
    role: Role | None = Field(None, description="Role of a linear layer in the model.")
    path: Pattern | None = Field(None, description="Regular expression to find in the path.")
    dtypes: Pattern | None = Field(None, description="Regular expression to find in the data types.")
    shapes: Layout = Field("any", description="Order of the inputs of a linear layer.")
    companion: bool = Field(False, description="Whether it completes another kernel's matrix multiplication.")

    def holds(self, name: str, names_on_path: Sequence[str], path: str, dtypes: str) -> bool:
        """Return whether the rule matches an event with these properties."""
        if self.path is not None and not re.search(self.path, path):
            return False
        if self.dtypes is not None and not re.search(self.dtypes, dtypes):
            return False
        if re.search(self.match, name):
            return True
        return self.dtypes is None and any(re.search(self.match, above) for above in names_on_path)


class RunRule(Strict):
    """Category of a run of plain operators."""

    category: Category | Literal["next"]
    holds: Pattern | None = None
    place: Literal["start", "end"] | None = None
    after: Category | None = None


class RuleSet(Strict):
    """The rules of one platform."""

    rules: list[Rule]
    plain: Pattern
    runs: list[RunRule]
    rescale: Pattern | None = None
    views: Pattern | None = None


@functools.cache
def rule_sets() -> dict[str, RuleSet]:
    """Return the built-in rules by platform."""
    content: dict[str, Any] = yaml.safe_load(RULES_FILE.read_text())
    return {platform: RuleSet.model_validate(part) for platform, part in content.items()}


CYCLE: Final[tuple[Role, ...]] = ("qkv", "o", "gate_up", "down")
"""The order of the linear layers in one layer of the model."""

LAST: Final[Role] = "lm_head"
"""Role of the linear layer after all layers."""

UNKNOWN: Final = -1
"""Number of tokens if unknown."""

OfShapes = Callable[[str, Layout], tuple[Role | None, int]]

Product = tuple[int, int, int]
"""Tokens (M), input features (K) and output features (N)."""


@dataclass(frozen=True)
class Linear:
    """One row of linear work.

    Attributes:
        block: number of its step on its stream.
        name: its name.
        path: names of the enclosing events.
        ruled: whether a rule makes it linear; else it is a plain operator that serves the next one.
        companion: whether it completes the multiplication of the previous row.
        role: its role by the rule.
        layout: order of its inputs by the rule.
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
    """Return role and tokens of each row; each block's rows are in the order of time. Unknown roles are `other`."""
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
        # Plain operators precede the multiplication that they serve; its own calls follow it.
        nearest = _nearest(own, i, ahead=not row.ruled)
        role, tokens = found.get(nearest, (None, UNKNOWN))
        result.append((role or "other", tokens if i == nearest else UNKNOWN))
    return result


def _own(rows: Sequence[Linear]) -> list[int]:
    """Return the rows that are separate multiplications: ruled, no companion, and not called by another one."""
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
    """Return the multiplication at or before row `i`, or at or behind it with `ahead`.

    If there is none on that side, the nearest on the other side is returned; -1 without any.
    """
    behind = bisect.bisect_left(own, i)
    before = bisect.bisect_right(own, i) - 1
    for place in (behind, before) if ahead else (before, behind):
        if 0 <= place < len(own):
            return own[place]
    return -1


def cycle(linears: Sequence[LinearShape], count: int) -> list[Role]:
    """Return the roles of `count` multiplications of one step by their order: each layer's roles, then the last one.

    All roles are `other` unless `count` equals the number for the model's layers, with or without the last one.
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
    """Return the role that fits the shapes, None if none or several fit; and the tokens."""
    products = list(_products(_dims(shapes), layout))
    fitting = [(m, roles) for m, k, n in products if (roles := known.get((k, n)))]
    if not fitting:
        return None, products[0][0] if products and layout != "any" else UNKNOWN
    tokens = fitting[0][0]
    roles = set().union(*(roles for _, roles in fitting))
    return (roles.pop() if len(roles) == 1 else None), tokens


def _dims(shapes: str) -> list[list[int]]:
    try:
        content = json.loads(shapes) if shapes else []
    except ValueError:
        return []
    whole = [d for d in content if isinstance(d, list) and all(type(n) is int for n in d)] if content else []
    return [d for d in whole if len(d) >= 2]


def _products(dims: list[list[int]], layout: Layout) -> Iterator[Product]:
    """Yield the possible products of matrices with shapes `dims` in `layout`."""
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
        # Packed weights have only one of the two sides; scales have the other.
        sides = {side for other in dims[1:] for side in other}
        # Ascend's blocked weights: [N / n, K / k, k, n], or with both sides swapped.
        sides |= {side for a, b, c, d in (o for o in dims[1:] if len(o) == 4) for side in (a * d, b * c)}
        yield from ((_tokens(left), left[-1], side) for side in sorted(sides))


def _tokens(left: list[int]) -> int:
    tokens = 1
    for side in left[:-1]:
        tokens *= side
    return tokens


Numbers = npt.NDArray[np.int64]

OTHER: Final = CATEGORIES.index("other")
LINEAR: Final = CATEGORIES.index("linear")
EMBEDDING: Final = CATEGORIES.index("embedding")
MEMORY_COPY: Final = CATEGORIES.index("memory_copy")
QUANTIZE: Final = CATEGORIES.index("quantize")
ROLES: Final[tuple[str, ...]] = ("", *get_args(Role))

_TORCH_OPERATOR = re.compile(r"^(aten|vllm|_C\w*|torchao|mkldnn)::")
_ASCEND = re.compile(r"(^|> )aclnn|^[hH]com")


def categorise(
    events: pd.DataFrame,
    linears: Sequence[LinearShape],
    platform: Platform | None = None,
    quantized: bool = True,
) -> pd.DataFrame:
    """Add category, role and tokens to each event.

    Args:
        events: an events table.
        linears: the linear layers of one rank; their shapes determine the roles.
        platform: the platform whose rules apply; None to infer it from the names of the device's rows.
        quantized: whether linear layers hold quantized weights; their products may be scaled afterwards.

    Returns:
        The table with the columns `category`, `role` ("" if none) and `tokens` (M of a matrix multiplication,
        missing if unknown). Rows of steps have the category "other".
    """
    chosen = rule_sets()[platform or platform_of(events)]
    chosen = chosen if quantized else chosen.model_copy(update={"rescale": None})
    rule = _rule_of(events, chosen.rules)
    where = np.asarray(events["where"].astype("str"))
    rule[where == STEP] = -1
    of_rule = np.array([CATEGORIES.index(r.category) for r in chosen.rules] + [OTHER], dtype=np.int64)
    category = of_rule[rule]
    # Neighbours matter only for the device's rows: the host's rows are launches.
    device = np.flatnonzero(where == DEVICE)
    order = device[_by_time(events, device)]
    category[order] = _runs(events, order, category[order], rule[order], chosen)
    role, tokens = np.zeros(len(events), dtype=np.int64), np.full(len(events), -1, dtype=np.int64)
    linear = order[category[order] == LINEAR]
    found = roles_of(_linears(events, linear, rule, chosen.rules), linears)
    role[linear] = [ROLES.index(r) for r, _ in found]
    tokens[linear] = [m for _, m in found]
    result = events.copy()
    result["category"] = pd.Categorical.from_codes(category, categories=pd.Index(list(CATEGORIES), dtype="str"))
    result["role"] = pd.Categorical.from_codes(role, categories=pd.Index(list(ROLES), dtype="str"))
    result["tokens"] = pd.array(tokens, dtype="Int64")
    result.loc[tokens < 0, "tokens"] = pd.NA
    return result


def platform_of(events: pd.DataFrame) -> Platform:
    """Return the platform of an events table, from the names of the device's rows."""
    device = events[events["where"] == DEVICE]
    names = device["name"].astype("str").unique()
    if any(_TORCH_OPERATOR.search(name) for name in names):
        return "cpu"
    texts = [*names, *device["path"].astype("str").unique()]
    return "ascend" if any(_ASCEND.search(text) for text in texts) else "cuda"


def _rule_of(events: pd.DataFrame, rules: Sequence[Rule]) -> Numbers:
    """Return the number of the first matching rule for each row, -1 without one."""
    columns = [events[column].astype("category").cat for column in ("name", "path", "dtypes")]
    texts = [[str(text) for text in column.categories] for column in columns]
    codes = np.stack([column.codes.to_numpy(dtype=np.int64) for column in columns], axis=1)
    if not len(codes):
        return np.zeros(0, dtype=np.int64)
    unique, which = np.unique(codes, axis=0, return_inverse=True)
    above = [path.split(BETWEEN) if path else [] for path in texts[1]]
    first = []
    for name, path, dtypes in unique.tolist():
        seen = (texts[0][name], above[path], texts[1][path], texts[2][dtypes])
        first.append(next((i for i, rule in enumerate(rules) if rule.holds(*seen)), -1))
    of_event: Numbers = np.array(first, dtype=np.int64)[which.reshape(-1)]
    return of_event


def _by_time(events: pd.DataFrame, rows: Numbers) -> Numbers:
    """Return the order of rows by trace, rank, stream and step, then by time; enclosing rows come first."""
    columns = [events[column].to_numpy()[rows] for column in ("start_us", "step", "rank")]
    longest = -events["duration_us"].to_numpy()[rows]
    codes = [events[column].astype("category").cat.codes.to_numpy()[rows] for column in ("stream", "trace")]
    start, step, rank = columns
    order: Numbers = np.lexsort((longest, start, step, codes[0], rank, codes[1]))
    return order


def _runs(events: pd.DataFrame, order: Numbers, category: Numbers, rule: Numbers, chosen: RuleSet) -> Numbers:
    """Return the categories of the device's rows, in `order`, with runs of plain operators filled in."""
    if not len(order):
        return category
    names = events["name"].astype("category").cat
    plain_names = np.array([bool(re.search(chosen.plain, str(name))) for name in names.categories], dtype=bool)
    code = names.codes.to_numpy()[order]
    plain = (rule < 0) & plain_names[code]
    passed = category == MEMORY_COPY  # does not end a run
    anchor = ~plain & ~passed
    block = _blocks(events, order)
    result = category.copy()
    for first, last in _stretches(block):
        rows = slice(first, last)
        if events["step"].to_numpy()[order[first]] != OUTSIDE:
            result[rows] = _filled(category[rows], plain[rows], anchor[rows], code[rows], names, chosen)
    return result


def _blocks(events: pd.DataFrame, order: Numbers) -> Numbers:
    """Return a number that changes whenever the trace, the rank, the stream or the step changes."""
    changes = np.zeros(len(order), dtype=bool)
    for column in ("trace", "rank", "stream", "step"):
        values = events[column]
        numbers = values.astype("category").cat.codes.to_numpy()[order]
        changes[1:] |= numbers[1:] != numbers[:-1]
    return np.cumsum(changes)


def _stretches(numbers: Numbers) -> list[tuple[int, int]]:
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    return list(itertools.pairwise(edges)) if len(numbers) else []


def _filled(category: Numbers, plain: Any, anchor: Any, code: Any, names: Any, chosen: RuleSet) -> Numbers:
    """Return the categories of one step on one stream; rows in `plain` get theirs from the runs of the rule set."""
    result = category.copy()
    anchors = np.flatnonzero(anchor)
    starts = anchors[np.isin(category[anchors], (EMBEDDING, LINEAR))]
    linear = anchors[category[anchors] == LINEAR]
    begin = int(starts[0]) if len(starts) else -1
    end = int(linear[-1]) if len(linear) else len(category)
    for before, behind in zip([-1, *anchors.tolist()], [*anchors.tolist(), len(category)], strict=True):
        inside = np.arange(before + 1, behind)
        inside = inside[plain[inside]]
        if not len(inside):
            continue
        words = {str(names.categories[c]) for c in np.unique(code[inside]).tolist()}
        place = "start" if behind <= begin else "end" if before >= end else None
        after = CATEGORIES[category[before]] if before >= 0 else None
        if after == CATEGORIES[LINEAR]:
            inside = _without_rescaling(
                inside, result, [str(names.categories[c]) for c in code[inside].tolist()], chosen
            )
        for run in chosen.runs:
            if run.holds is not None and not any(re.search(run.holds, word) for word in words):
                continue
            if (run.place or place) != place or (run.after or after) != after:
                continue
            if run.category != "next":
                result[inside] = CATEGORIES.index(run.category)
            elif behind < len(category):
                result[inside] = category[behind]
            break
    return result


def _without_rescaling(inside: Numbers, result: Numbers, words: Sequence[str], chosen: RuleSet) -> Numbers:
    """Return the run `inside` after a linear layer without its rescaling, which is marked as quantize in `result`."""
    if chosen.rescale is None or chosen.views is None:
        return inside
    computing = [place for place, word in enumerate(words) if not re.search(chosen.views, word)]
    if not computing or not re.search(chosen.rescale, words[computing[0]]):
        return inside
    result[inside[: computing[0] + 1]] = QUANTIZE
    return inside[computing[0] + 1 :]


def _linears(events: pd.DataFrame, rows: Numbers, rule: Numbers, rules: Sequence[Rule]) -> list[Linear]:
    """Return the rows of linear layers, in order, as input of `roles_of`."""
    part = events.iloc[rows]
    found = []
    for block, number, name, path, shapes in zip(
        _blocks(events, rows).tolist(), rule[rows].tolist(), part["name"], part["path"], part["shapes"], strict=True
    ):
        own = rules[number] if number >= 0 else None
        found.append(
            Linear(
                block=block,
                name=str(name),
                path=str(path),
                ruled=own is not None,
                companion=own is not None and own.companion,
                role=own.role if own else None,
                layout=own.shapes if own else "any",
                shapes=str(shapes),
            )
        )
    return found
