"""What an engine is told besides what is compared: named in the plan, under the tables and in the conclusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.record import CacheFacts, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.report.summary import summarise

FACTORS = (1.30, 1.31, 1.29)


def under(setting: str | None, quant: str = "bf16", **args: Any) -> Spec:
    return make_spec(quant=quant, args=args).model_copy(update={"setting": setting})


def records(spec: Spec, faster: bool = False, layers: int = 12, **resolved: Any) -> list[Record]:
    found = []
    for launch, factor in enumerate(FACTORS):
        record = make_record(spec, launch, [400.0 * (factor if faster else 1.0 + launch / 100)] * 2)
        cache = CacheFacts(layers={"bfloat16": layers}, bytes_per_token=1024)
        engine = record.engine.model_copy(update={"resolved": resolved, "kv_cache": cache})
        found.append(record.model_copy(update={"engine": engine}))
    return found


def summary(results: Path, *found: Record, **baseline: str) -> str:
    save(results, *found)
    specs = list({record.key: record.spec for record in found}.values())
    text = summarise(collect(results, make_plan(specs, launches=3, baseline=baseline or {"quant": "bf16"}))).text
    return " ".join(text.split())


def test_what_else_a_quantization_s_engine_is_told_is_named_with_what_the_baseline_s_resolved_to(
    tmp_path: Path,
) -> None:
    w8a8 = make_spec(quant="w8a8", args={"load_format": "dummy", "max_num_seqs": 1, "quantization": "own"})
    said = summary(tmp_path, *records(make_spec(), load_format="auto", max_num_seqs=64), *records(w8a8, faster=True))
    assert "w8a8 differs from bf16 also in: load_format dummy / auto, max_num_seqs 1 / 64." in said
    assert "Differs from its baseline (baseline -> own): args.load_format auto -> dummy" in said
    assert "quantization own" not in said


def test_what_a_quantization_or_a_setting_consists_of_is_no_confounder(tmp_path: Path) -> None:
    quantized = {"quantization": "torchao", "hf_overrides": {"quantization_config_dict_json": "{}"}}
    told = [
        (under(None), False),
        (under("few", max_num_seqs=4), True),
        (under(None, "w8a8", **quantized), True),
        (under("few", "w8a8", **quantized, max_num_seqs=4), True),
    ]
    found = [record for spec, faster in told for record in records(spec, faster)]
    for baseline in ({"quant": "bf16"}, {"setting": "default"}, {"quant": "bf16", "setting": "default"}):
        assert "also in" not in summary(tmp_path, *found, **baseline)
    seeded = [under(setting, "w8a8", seed=1, **few) for setting, few in ((None, {}), ("few", {"max_num_seqs": 4}))]
    others = [record for spec in seeded for record in records(spec, faster=True)]
    both = {"quant": "bf16", "setting": "default"}
    said = summary(tmp_path / "seeded", *records(under(None)), *others, **both)
    assert "w8a8; w8a8 few differ from bf16 also in: seed 1 / not set." in said


@pytest.mark.parametrize("args", [{}, {"hf_overrides": {"text_config": {"num_hidden_layers": 1}}}])
def test_another_number_of_layers_is_another_model_and_gets_no_verdict(tmp_path: Path, args: dict[str, Any]) -> None:
    said = summary(
        tmp_path,
        *records(make_spec()),
        *records(make_spec(quant="w8a8", args=args), faster=True, layers=12 if args else 1),
    )
    name = "hf_overrides.text_config.num_hidden_layers" if args else "layers with a KV cache"
    assert f"No verdict: w8a8 (it is another model: {name} 1 / {'not set' if args else 12})" in said
    assert "Faster" not in said


def test_a_setting_that_the_engine_does_not_follow_is_no_setting_that_was_compared(tmp_path: Path) -> None:
    ahead = records(under("ahead", async_scheduling=True), faster=True, async_scheduling=False)
    ignored = [
        record.model_copy(
            update={"engine": record.engine.model_copy(update={"overruled": {"async_scheduling": False}})}
        )
        for record in ahead
    ]
    default, words = records(under(None), async_scheduling=False), {"setting": "default"}
    said = summary(tmp_path, *default, *ignored, **words)
    assert (
        "No verdict: ahead (setting without effect: async_scheduling True was asked for, and the engine uses False)"
        in said
    )
    assert "Faster" not in said
    assert "Faster than default" in summary(tmp_path / "followed", *default, *ahead, **words)
    other = records(under(None), async_scheduling=True)
    assert "Faster than default" in summary(tmp_path / "other", *other, *ignored, **words)
