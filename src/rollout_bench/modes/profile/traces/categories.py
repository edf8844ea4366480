"""Categorise events by the rules of rules.yaml."""

import functools
import re
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from rollout_bench.contracts.fields import Strict
from rollout_bench.core.yaml_files import packaged
from rollout_bench.modes.profile.traces.events import BETWEEN, DEVICE, OUTSIDE, STEP

Category = Literal[
    "linear",
    "quantize",
    "adapter",
    "attention",
    "kv_cache",
    "norm",
    "activation",
    "rotary",
    "embedding",
    "sampling",
    "communication",
    "memory_copy",
    "other",
    "host_gap",
]
"""Purpose of an operator; quantize includes dequantize, adapter is LoRA, host_gap is time in which the device waits."""

CATEGORIES: Final[tuple[str, ...]] = get_args(Category)
"""In the order of tables and figures."""


class Rule(Strict):
    """Category of events with the pattern `match` in their name, or in a name on their path.

    `dtypes` is a further pattern, which the event's data types need to have.
    """

    match: str
    category: Category
    dtypes: str = ""


class RuleSet(Strict):
    """The rules of one platform; rules.yaml explains them."""

    rules: list[Rule]
    plain: str
    start: Category
    between: Literal["next", "other"]
    rescale: str = "(?!)"
    views: str = ""


@functools.cache
def rule_sets() -> dict[str, RuleSet]:
    """Return the rules by platform."""
    content = packaged(Path(__file__).with_name("rules.yaml"))
    return TypeAdapter(dict[str, RuleSet]).validate_python(content)


def categorise(events: pd.DataFrame, platform: str) -> pd.DataFrame:
    """Return an events table with the column `category`; rows of steps have the category "other".

    Args:
        events: an events table.
        platform: the platform whose rules apply: cpu, cuda or ascend.
    """
    chosen = rule_sets()[platform]
    texts = list(zip(events["name"], events["path"], events["dtypes"], strict=True))
    of_rules = {each: _by_rule(*each, chosen) for each in set(texts)}
    categorised = events.assign(category=[of_rules[each] for each in texts])
    rows = categorised[(categorised["where"] == DEVICE) & (categorised["step"] != OUTSIDE)]
    categorised.loc[rows.index, "category"] = _with_runs(rows, chosen)
    categorised.loc[(categorised["where"] == STEP) | (categorised["category"] == ""), "category"] = "other"
    return categorised


def _by_rule(name: str, path: str, dtypes: str, chosen: RuleSet) -> str:
    """Return the category of the first rule that holds; without one, "" for a plain operator, or else "other"."""
    names = "\n".join([name, *path.split(BETWEEN)])
    for rule in chosen.rules:
        if re.search(rule.match, names, re.MULTILINE) and re.search(rule.dtypes, dtypes):
            return rule.category
    return "" if re.search(chosen.plain, name) else "other"


def _with_runs(rows: pd.DataFrame, chosen: RuleSet) -> pd.Series:
    """Return the categories of the device's rows, each run of plain operators with that of what it serves."""
    streams = ["trace", "rank", "stream", "step"]
    rows = rows.sort_values([*streams, "start_us", "duration_us"], ascending=[True] * 5 + [False])
    plain = rows["category"] == ""
    anchor = rows["category"].where(~rows["category"].isin(["", "memory_copy"]))  # copies do not end a run
    marks = rows[streams].assign(
        run=anchor.notna().cumsum(),
        anchor=anchor,
        linear=anchor == "linear",
        first=anchor.isin(["linear", "embedding"]),
        root=plain & rows["name"].str.contains("rsqrt", case=False),
        computes=plain & ~rows["name"].str.contains(chosen.views),
        quantize=anchor == "quantize",
    )
    of_step = marks.groupby(streams)
    before, after = of_step["anchor"].ffill(), of_step["anchor"].bfill()
    started, linears = of_step["first"].cumsum(), of_step["linear"].cumsum()
    all_starts, all_linears = of_step["first"].transform("sum"), of_step["linear"].transform("sum")
    computed = marks.groupby([*streams, "run"])["computes"].cumsum()
    scaled = (before == "linear") & of_step["quantize"].transform("any") & (computed - marks["computes"] == 0)
    marks["scale"] = scaled & marks["computes"] & rows["name"].str.contains(chosen.rescale)
    of_run = marks.groupby([*streams, "run"])
    runs = np.select(
        [
            scaled & of_run["scale"].transform("any"),
            of_run["root"].transform("any"),
            (started == 0) & (all_starts > 0),
            (linears == all_linears) & (all_linears > 0),
            before == "activation",
        ],
        ["quantize", "norm", chosen.start, "sampling", "activation"],
        default=after.fillna("other") if chosen.between == "next" else "other",
    )
    return rows["category"].where(~plain, pd.Series(runs, index=rows.index))
