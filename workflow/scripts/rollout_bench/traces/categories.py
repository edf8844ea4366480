"""What each event is for: its category, and of a linear layer its role and its tokens."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from rollout_bench.records.profile import LinearShape, Role
from rollout_bench.traces.events import BETWEEN, DEVICE, OUTSIDE, STEP
from rollout_bench.traces.roles import Linear, roles_of
from rollout_bench.traces.rules import CATEGORIES, Platform, Rule, RuleSet, rule_sets, user_rules

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
    extra_rules: Sequence[Rule | Mapping[str, Any]] = (),
    platform: Platform | None = None,
    quantized: bool = True,
) -> pd.DataFrame:
    """Says what each event is for.

    Args:
        events: an events table.
        linears: the linear layers of one rank, which tell roles by their shapes.
        extra_rules: a user's rules, tried before the built-in ones.
        platform: whose rules apply; None to tell by the names of the device's rows.
        quantized: whether linear layers hold quantized weights, whose products may get their scale afterwards.

    Returns:
        The table with the columns `category`, `role` ("" where none) and `tokens` (M of a matrix multiplication,
        missing where it is unknown). Rows of steps have the category "other".

    Raises:
        UserError: one of `extra_rules` is no rule.
    """
    chosen = rule_sets()[platform or platform_of(events)]
    chosen = chosen if quantized else chosen.model_copy(update={"rescale": None})
    rules = [*user_rules(extra_rules), *chosen.rules]
    rule = _rule_of(events, rules)
    where = np.asarray(events["where"].astype("str"))
    rule[where == STEP] = -1
    of_rule = np.array([CATEGORIES.index(r.category) for r in rules] + [OTHER], dtype=np.int64)
    category = of_rule[rule]
    # Only the device's rows have neighbours that matter: the host's are launches.
    device = np.flatnonzero(where == DEVICE)
    order = device[_by_time(events, device)]
    category[order] = _runs(events, order, category[order], rule[order], chosen)
    role, tokens = np.zeros(len(events), dtype=np.int64), np.full(len(events), -1, dtype=np.int64)
    linear = order[category[order] == LINEAR]
    found = roles_of(_linears(events, linear, rule, rules), linears)
    role[linear] = [ROLES.index(r) for r, _ in found]
    tokens[linear] = [m for _, m in found]
    result = events.copy()
    result["category"] = pd.Categorical.from_codes(category, categories=pd.Index(list(CATEGORIES), dtype="str"))
    result["role"] = pd.Categorical.from_codes(role, categories=pd.Index(list(ROLES), dtype="str"))
    result["tokens"] = pd.array(tokens, dtype="Int64")
    result.loc[tokens < 0, "tokens"] = pd.NA
    return result


def platform_of(events: pd.DataFrame) -> Platform:
    """The platform that an events table is of, by the names of the device's rows."""
    device = events[events["where"] == DEVICE]
    names = device["name"].astype("str").unique()
    if any(_TORCH_OPERATOR.search(name) for name in names):
        return "cpu"
    texts = [*names, *device["path"].astype("str").unique()]
    return "ascend" if any(_ASCEND.search(text) for text in texts) else "cuda"


def _rule_of(events: pd.DataFrame, rules: Sequence[Rule]) -> Numbers:
    """Number of the first rule that holds for each row, -1 without one."""
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
    """The order of rows by trace, rank, stream and step, then by time: those that enclose others first."""
    columns = [events[column].to_numpy()[rows] for column in ("start_us", "step", "rank")]
    longest = -events["duration_us"].to_numpy()[rows]
    codes = [events[column].astype("category").cat.codes.to_numpy()[rows] for column in ("stream", "trace")]
    start, step, rank = columns
    order: Numbers = np.lexsort((longest, start, step, codes[0], rank, codes[1]))
    return order


def _runs(events: pd.DataFrame, order: Numbers, category: Numbers, rule: Numbers, chosen: RuleSet) -> Numbers:
    """Categories of the device's rows, in `order`, with those of runs of plain operators filled in."""
    if not len(order):
        return category
    names = events["name"].astype("category").cat
    plain_names = np.array([bool(re.search(chosen.plain, str(name))) for name in names.categories], dtype=bool)
    code = names.codes.to_numpy()[order]
    plain = (rule < 0) & plain_names[code]
    passed = category == MEMORY_COPY  # goes on within a run
    anchor = ~plain & ~passed
    block = _blocks(events, order)
    result = category.copy()
    for first, last in _stretches(block):
        rows = slice(first, last)
        if events["step"].to_numpy()[order[first]] != OUTSIDE:
            result[rows] = _filled(category[rows], plain[rows], anchor[rows], code[rows], names, chosen)
    return result


def _blocks(events: pd.DataFrame, order: Numbers) -> Numbers:
    """A number that changes where the trace, the rank, the stream or the step does."""
    changes = np.zeros(len(order), dtype=bool)
    for column in ("trace", "rank", "stream", "step"):
        values = events[column]
        numbers = values.astype("category").cat.codes.to_numpy()[order]
        changes[1:] |= numbers[1:] != numbers[:-1]
    return np.cumsum(changes)


def _stretches(numbers: Numbers) -> list[tuple[int, int]]:
    """First and last, exclusive, of each stretch of equal numbers."""
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    return list(itertools.pairwise(edges)) if len(numbers) else []


def _filled(category: Numbers, plain: Any, anchor: Any, code: Any, names: Any, chosen: RuleSet) -> Numbers:
    """One step on one stream: categories with those of plain rows filled in, run by run."""
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
    """The rest of the run `inside` after a linear layer, once what gives the product its scale is noted in `result`."""
    if chosen.rescale is None or chosen.views is None:
        return inside
    computing = [place for place, word in enumerate(words) if not re.search(chosen.views, word)]
    if not computing or not re.search(chosen.rescale, words[computing[0]]):
        return inside
    result[inside[: computing[0] + 1]] = QUANTIZE
    return inside[computing[0] + 1 :]


def _linears(events: pd.DataFrame, rows: Numbers, rule: Numbers, rules: Sequence[Rule]) -> list[Linear]:
    """Rows of linear layers, in order, as what roles are told by."""
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
