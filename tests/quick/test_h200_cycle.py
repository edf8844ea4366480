"""What the page on whole steps on an H200 says follows from the times that are kept."""

from __future__ import annotations

import json
import re
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from cycle_claims import costs
from workspace import REPOSITORY

from rollout_bench.analysis.cycles.net_gains import NetGain, TokenRange, net_gain
from rollout_bench.analysis.timed.comparison import Comparison

KEPT = json.loads((REPOSITORY / "validation/results/h200-cycle.json").read_text())
PAGE = (REPOSITORY / "docs/results/h200-cycle.md").read_text()
NUMBER = r"([\d.]+)"
STEPS = re.compile(rf"\| (bf16|fp8|w8a8) \| sleep-([12]) \| 2/2/2 \| {NUMBER} \| {NUMBER} \| {NUMBER} \|")
PLACED = re.compile(rf"\| bf16 \| (colocated|asleep|server) \|.*? 1/1/1 \|.*?\| 2 \| {NUMBER} \|")
LATER = "2026-11-23"
"""The day of the second machine: its launches are newer."""


def launches(**wanted: Any) -> list[dict[str, Any]]:
    return [one for one in KEPT["launches"] if wanted.items() <= one.items()]


def steps() -> list[tuple[str, ...]]:
    """Return model, quant, level, generation, transition and step of each row of the page's tables."""
    tables = re.split(r"### What a step costs: cycle, cuda, model (qwen3-\S+),", PAGE)[1:]
    return [(model, *row) for model, text in zip(tables[::2], tables[1::2], strict=True) for row in STEPS.findall(text)]


@pytest.mark.parametrize(("model", "quant", "sleep", "generation", "transition", "step"), steps())
def test_steps_on_the_page_are_means_of_those_kept(
    model: str, quant: str, sleep: str, generation: str, transition: str, step: str
) -> None:
    found = launches(model=model, quant=quant, sleep=sleep, update="ipc")
    found = [one for one in found if sleep == "2" or one["started_at"] > LATER]
    assert len(found) == 2
    generated, changed = (fmean(fmean(one[name]) for one in found) for name in ("elapsed_s", "transition_s"))
    assert (generated, changed) == pytest.approx((float(generation), float(transition)), rel=2e-3)
    assert generated + changed == pytest.approx(float(step), rel=2e-3)


@pytest.mark.parametrize(("where", "step"), PLACED.findall(PAGE))
def test_placed_steps_on_the_page_are_means_of_those_kept(where: str, step: str) -> None:
    asleep = {"where": "colocated", "sleep": "2"}
    found, *_ = launches(mode="placement", **(asleep if where == "asleep" else {"where": where}))
    assert fmean(found["step_s"]) == pytest.approx(float(step), rel=2e-3)


@pytest.mark.parametrize(
    ("model", "quant", "said"),
    [
        ("qwen3-1.7b", "bf16", "a whole step of 2.69 s in bf16 (transition 0.49 s)"),
        ("qwen3-1.7b", "fp8", "2.53 s in fp8 (0.45 s)"),
        ("qwen3-1.7b", "w8a8", "3.24 s in w8a8 (0.72 s)"),
        ("qwen3-8b", "w8a8", "Its transition took 0.80 s, of which the trainer's quantizing is 0.15 s"),
    ],
)
def test_what_the_page_says_of_single_launches_is_kept(model: str, quant: str, said: str) -> None:
    (found,) = (one for one in launches(model=model, quant=quant) if one["started_at"] < LATER)
    transition_s = fmean(found["transition_s"])
    step_s = transition_s + fmean(found["elapsed_s"])
    assert said in PAGE
    numbers = [float(number) for number in re.findall(r"(\d\.\d+) s", said)]
    kept = [transition_s, fmean(found["quantize_s"])] if model == "qwen3-8b" else [step_s, transition_s]
    assert numbers == pytest.approx(kept, abs=0.0051)


def gain(model: str, quant: str) -> NetGain:
    """Return at which lengths it pays against bf16 at level 1, both quantizations' answers together, by t tests."""
    sides = [
        [one for one in launches(model=model, quant=name, sleep="1", update="ipc") if one["started_at"] > LATER]
        for name in (quant, "bf16")
    ]
    own, other = (
        costs(*(np.array([fmean(one[name]) for one in side]) for name in ("elapsed_s", "transition_s")))
        for side in sides
    )
    found = net_gain(own, other, Comparison(verdict="faster", pairs={0: 1.0, 1: 1.0}), 0.975)
    assert found is not None
    return found


def test_lengths_on_the_page_are_those_around_the_measured_one() -> None:
    found = {each: gain(*each) for each in product(("qwen3-8b", "qwen3-1.7b"), ("fp8", "w8a8"))}
    assert found["qwen3-8b", "fp8"].pays == TokenRange(1, None)
    assert found["qwen3-8b", "w8a8"].pays == TokenRange(4, 988)
    assert "It pays from 4 to 988 output tokens a sequence (measured: 256)." in PAGE
    assert PAGE.count("It pays at any length (measured: 256).") == 1
    for quant in ("fp8", "w8a8"):
        assert found["qwen3-1.7b", quant].found is None
    assert PAGE.count("At which lengths it pays is inconclusive (measured: 256).") == 2


def test_level_2_has_ratios_of_its_first_launches_and_no_verdict_because_each_side_had_a_gpu_of_its_own() -> None:
    sides = [launches(model="qwen3-8b", quant=quant, sleep="2", update="ipc", launch=0) for quant in ("bf16", "fp8")]
    (bf16,), (fp8,) = sides
    generation, transition = (fmean(bf16[name]) / fmean(fp8[name]) for name in ("elapsed_s", "transition_s"))
    whole = sum(fmean(bf16[name]) for name in ("elapsed_s", "transition_s"))
    whole /= sum(fmean(fp8[name]) for name in ("elapsed_s", "transition_s"))
    level_2 = PAGE.partition("## Level 2: nothing is kept")[2].partition("\n## ")[0]
    found = [float(number) for number in re.findall(r"([\d.]+)x \? \(needs 1 more launch\)", level_2)]
    assert found == pytest.approx([whole, transition, generation], abs=6e-4)
    assert "x ^" not in level_2
    assert "- No verdict: fp8 (" in level_2


def test_the_page_has_such_numbers() -> None:
    found = [(model, sleep, quant) for model, quant, sleep, *_ in steps()]
    of_level_1 = [(model, "1", quant) for model in ("qwen3-8b", "qwen3-1.7b") for quant in ("bf16", "fp8", "w8a8")]
    assert sorted(found) == sorted([*of_level_1, ("qwen3-8b", "2", "bf16"), ("qwen3-8b", "2", "fp8")])
    assert sorted(where for where, _ in PLACED.findall(PAGE)) == ["asleep", "colocated", "server"]


def test_the_update_over_nccl_took_what_the_page_says() -> None:
    (found,) = launches(update="nccl")
    assert f"its update of 3.4 GB took {fmean(found['parts_s']['update']):.3f} s" in PAGE


@pytest.mark.parametrize(("quant", "sleep"), [("bf16", "2"), ("fp8", "2"), ("bf16", "1"), ("fp8", "1"), ("w8a8", "1")])
def test_the_same_weights_gave_the_same_checksums_and_tokens_each_time(quant: str, sleep: str) -> None:
    for name in ("checksums", "tokens"):
        found = [one[name] for one in launches(model="qwen3-8b", quant=quant, sleep=sleep)]
        assert {tuple(each[0::2]) for each in found} == {(found[0][0],) * 5}
        assert {tuple(each[1::2]) for each in found} == {(found[0][1],) * 5}
        assert found[0][0] != found[0][1]


def test_memory_asleep_did_not_grow() -> None:
    for one in launches(mode="cycle"):
        asleep = one["device_free_bytes"]["asleep"]
        assert max(asleep) - min(asleep) < 0.001 * max(asleep)


def test_three_tensors_of_each_layer_changed_for_good_with_the_first_update_of_w8a8_at_level_2_alone() -> None:
    for one in launches(mode="cycle", model="qwen3-8b"):
        _, first, *others = one["changed_tensors"]
        assert {first - other for other in others} == {3 * 36 if (one["quant"], one["sleep"]) == ("w8a8", "2") else 0}
