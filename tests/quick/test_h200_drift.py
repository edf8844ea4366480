"""What the page on drift on an H200 says follows from the sums that are kept."""

from __future__ import annotations

import json
import re

import pytest
from workspace import REPOSITORY

KEPT = json.loads((REPOSITORY / "validation/results/h200-drift.json").read_text())["quants"]
PAGE = (REPOSITORY / "docs/results/h200-drift.md").read_text()
SENTENCE = re.compile(
    r"^- (?:arithmetic )?(\S+)(?: policy)?(, on tokens of its own.*?)?,? (?:which bf16 scored )?1 or 64 at once: "
    r".*? mean \\\|d\\\| is ([\d.]+) .*? is ([\d.]+) \S+ \S+ nats per token \(k3\); ([\d.]+) ",
    re.MULTILINE,
)


def test_both_directions_of_each_quantization_are_told() -> None:
    told = {(quant, bool(own)) for quant, own, *_ in SENTENCE.findall(PAGE)}
    assert told == {(quant, own) for quant in KEPT if quant != "bf16" for own in (False, True)}


@pytest.mark.parametrize(("quant", "own", "size", "k3", "outside"), SENTENCE.findall(PAGE))
def test_sentences_on_the_page_follow_from_the_sums(quant: str, own: str, size: str, k3: str, outside: str) -> None:
    tokens, *sums = map(sum, zip(*KEPT[quant]["own" if own else "reference"], strict=True))
    means = [each / tokens for each in sums]
    assert means == pytest.approx([float(size), float(k3), float(outside) / 100], rel=5e-3)


def test_the_reference_gave_its_tokens_the_same_each_time() -> None:
    assert {sum(sums) for one in ("own", "reference") for _, *sums in KEPT["bf16"][one]} == {0}


@pytest.mark.parametrize("quant", KEPT)
def test_right_answers_on_the_page_are_those_kept(quant: str) -> None:
    share = 100 * KEPT[quant]["right"] / KEPT[quant]["judged"]
    assert f"{quant} {share:.1f} %" in PAGE
