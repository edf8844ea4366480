"""What the page on drafting on an H200 says follows from the readings that are kept."""

from __future__ import annotations

import json
from itertools import product
from statistics import geometric_mean

import pytest
from workspace import REPOSITORY

KEPT = json.loads((REPOSITORY / "validation/results/h200-drafting.json").read_text())["launches"]
PAGE = (REPOSITORY / "docs/results/h200-drafting.md").read_text()


def rates(setting: str) -> list[float]:
    """Return output tokens per second of each launch, by its index."""
    found = sorted((kept for kept in KEPT if kept["setting"] == setting), key=lambda kept: kept["launch"])
    return [sum(kept["output_tokens"]) / sum(kept["elapsed_s"]) for kept in found]


def test_each_pair_of_launches_generated_the_same_tokens_on_the_same_gpu() -> None:
    pairs = {(kept["launch"], kept["setting"]): (kept["output_tokens"], kept["device"]) for kept in KEPT}
    assert set(pairs) == set(product(range(5), ("default", "ngram")))
    assert all(pairs[index, "default"] == pairs[index, "ngram"] for index in range(5))
    assert {device for _, device in pairs.values()} == {0, 1}


def test_the_speedup_on_the_page_follows_from_the_readings() -> None:
    ratios = [fast / plain for fast, plain in zip(rates("ngram"), rates("default"), strict=True)]
    assert geometric_mean(ratios) == pytest.approx(1.266, rel=5e-3)
    assert "ngram 1.266x" in PAGE
    low, high = min(rates("default")), max(rates("default"))
    assert f"{round(low, -2):,.0f} to {round(high, -2):,.0f} tokens per second" in PAGE
