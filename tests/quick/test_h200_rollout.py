"""What the page on rollouts on an H200 says of loads follows from the times of the passes that are kept."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from workspace import REPOSITORY

from rollout_bench.analysis.stats.intervals import ratio_interval

KEPT = json.loads((REPOSITORY / "validation/results/h200-rollout.json").read_text())
PAGE = (REPOSITORY / "docs/results/h200-rollout.md").read_text()
ROW = re.compile(r"\| (Qwen3-[\d.]+B), (.+?) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+)x \\\[([\d.]+), ([\d.]+)\\\] \|")


def rates(model: str, workload: str, mode: str, entry: str | None) -> np.ndarray:
    """Return tokens per second of each launch of a configuration, in their order."""
    wanted = {"model": model, "workload": workload, "mode": mode}
    found = [one for one in KEPT["launches"] if wanted.items() <= one.items() and one.get("entry") == entry]
    return np.array([len(one["elapsed_s"]) * one["output_tokens"] / sum(one["elapsed_s"]) for one in found])


@pytest.mark.parametrize(("shape", "how", "documented", "real", "ratio", "low", "high"), ROW.findall(PAGE))
def test_ratios_of_loads_on_the_page_are_those_of_their_blocks(
    shape: str, how: str, documented: str, real: str, ratio: str, low: str, high: str
) -> None:
    model = {"Qwen3-8B": "qwen3-8b", "Qwen3-1.7B": "qwen3-1b7"}[shape]
    mode, entry = ("offline", None) if "`offline`" in how else ("rollout", "llm" if "`LLM" in how else "async")
    one, other = rates(model, "documented", mode, entry), rates(model, "verl09", "rollout", "async")
    assert len(one) == len(other) == 3
    found = ratio_interval(np.log(one / other), 0.95)
    assert (f"{one.mean():,.0f}", f"{other.mean():,.0f}") == (documented, real)
    said = tuple(map(float, (ratio, low, high)))
    assert (found.ratio, found.low, found.high) == pytest.approx(said, abs=6e-4)


def test_the_page_has_such_ratios() -> None:
    assert len(ROW.findall(PAGE)) == 4
