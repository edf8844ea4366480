"""Categorise events by rules."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from pydantic import AfterValidator, Field

from rollout_bench.analysis.traces.events import BETWEEN, DEVICE, OUTSIDE, STEP
from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.spec import Category

CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)

Platform = Literal["cpu", "cuda", "ascend"]

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
    path: Pattern | None = Field(None, description="Regular expression to find in the path.")
    dtypes: Pattern | None = Field(None, description="Regular expression to find in the data types.")

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


Numbers = npt.NDArray[np.int64]

OTHER: Final = CATEGORIES.index("other")
LINEAR: Final = CATEGORIES.index("linear")
EMBEDDING: Final = CATEGORIES.index("embedding")
MEMORY_COPY: Final = CATEGORIES.index("memory_copy")
QUANTIZE: Final = CATEGORIES.index("quantize")

_TORCH_OPERATOR = re.compile(r"^(aten|vllm|_C\w*|torchao|mkldnn)::")
_ASCEND = re.compile(r"(^|> )aclnn|^[hH]com")


def categorise(events: pd.DataFrame, platform: Platform | None = None, quantized: bool = True) -> pd.DataFrame:
    """Add the category of each event.

    Args:
        events: an events table.
        platform: the platform whose rules apply; None to infer it from the names of the device's rows.
        quantized: whether linear layers hold quantized weights; their products may be scaled afterwards.

    Returns:
        The table with the column `category`. Rows of steps have the category "other".
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
    result = events.copy()
    result["category"] = pd.Categorical.from_codes(category, categories=pd.Index(list(CATEGORIES), dtype="str"))
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
