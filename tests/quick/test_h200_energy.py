"""What the page on energy on an H200 says follows from the readings that are kept."""

from __future__ import annotations

import json
import re
from itertools import product
from statistics import fmean, geometric_mean
from typing import Any

import pytest
from workspace import REPOSITORY

READINGS = json.loads((REPOSITORY / "validation/results/h200-energy.json").read_text())
KEPT = READINGS["launches"]
PAGE = (REPOSITORY / "docs/results/h200-energy.md").read_text()
BLOCKS = {"qwen3-8b": range(3), "qwen3-1.7b": range(3)}
"""Launches that every configuration of a model has."""
SENTENCE = re.compile(r"^- (\S+) takes ([\d.]+)x .*? it generates ([\d.]+)x ", re.MULTILINE)


def said() -> list[tuple[str, ...]]:
    """Return model, quant, energy and speed of each sentence."""
    parts = dict(zip(BLOCKS, PAGE.split("## At the shape of ")[1:], strict=True))
    return [(model, *found) for model, part in parts.items() for found in SENTENCE.findall(part)]


def one(model: str, quant: str, launch: int) -> dict[str, Any]:
    (found,) = [kept for kept in KEPT if (kept["model"], kept["quant"], kept["launch"]) == (model, quant, launch)]
    return found


def energy_of_token(kept: dict[str, Any]) -> float:
    """Return J per output token; what the device took beyond the end of a pass is no part of it."""
    passes = zip(kept["energy_j"], kept["window_s"], kept["elapsed_s"], strict=True)
    return fmean(energy * elapsed / window for energy, window, elapsed in passes) / kept["output_tokens"]


def test_the_page_speaks_of_each_quantization_at_each_shape() -> None:
    assert {(model, quant) for model, quant, *_ in said()} == set(
        product(("qwen3-8b", "qwen3-1.7b"), ("fp8", "w8a8", "bf16-kv8"))
    )


@pytest.mark.parametrize(("model", "quant", "energy", "speed"), said())
def test_ratios_on_the_page_follow_from_the_readings(model: str, quant: str, energy: str, speed: str) -> None:
    pairs = [(one(model, quant, launch), one(model, "bf16", launch)) for launch in BLOCKS[model]]
    assert geometric_mean(energy_of_token(its) / energy_of_token(base) for its, base in pairs) == pytest.approx(
        float(energy), rel=5e-3
    )
    assert geometric_mean(fmean(base["elapsed_s"]) / fmean(its["elapsed_s"]) for its, base in pairs) == pytest.approx(
        float(speed), rel=5e-3
    )


def test_the_counter_agrees_with_sampled_power_within_3_percent_of_each_launch() -> None:
    ratios = [
        sum(kept["sampled_j"]) / sum(kept["energy_j"]) for kept in KEPT + READINGS["unpaired"] + READINGS["dummy"]
    ]
    assert f"{min(ratios):.3f} to {max(ratios):.3f}" in PAGE
    assert f"{len(ratios)} launches" in PAGE
    assert all(abs(ratio - 1) < 0.03 for ratio in ratios)


def test_dummy_weights_are_as_fast_and_take_less_power() -> None:
    (dummy,) = READINGS["dummy"]
    real, base = one("qwen3-1.7b", "w8a8", 2), one("qwen3-1.7b", "bf16", 2)
    assert dummy["device"] == real["device"] == base["device"]
    assert fmean(dummy["elapsed_s"]) == pytest.approx(fmean(real["elapsed_s"]), rel=5e-3)
    ratios = [energy_of_token(its) / energy_of_token(base) for its in (dummy, real)]
    assert "{:.2f} and {:.2f} of what bf16 took".format(*ratios) in PAGE
    watts = [sum(its["energy_j"]) / sum(its["window_s"]) for its in (dummy, real)]
    assert "{:.0f} W in place of {:.0f} W".format(*watts) in PAGE
