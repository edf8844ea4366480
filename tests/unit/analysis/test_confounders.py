"""What differs besides what is compared takes the verdict where it makes another model, or nothing of the setting."""

from pathlib import Path
from typing import Any

import pytest
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.record import CacheFacts, Record
from rollout_bench.contracts.spec import Spec


def records(spec: Spec, rate: float, layers: int = 12, **facts: Any) -> list[Record]:
    cache = CacheFacts(layers={"bfloat16": layers}, bytes_per_token=1024)
    made = [make_record(spec, launch, [rate + launch] * 2) for launch in range(3)]
    return [
        each.model_copy(update={"engine": each.engine.model_copy(update={"kv_cache": cache, **facts})}) for each in made
    ]


def compared(results: Path, theirs: list[Record], own: list[Record], baseline: dict[str, str]) -> Comparison:
    save(results, *theirs, *own)
    plan = make_plan([theirs[0].spec, own[0].spec], baseline=baseline)
    return rows_of(collect(results, plan))[1].comparison


@pytest.mark.parametrize("args", [{}, {"hf_overrides": {"text_config": {"num_hidden_layers": 1}}}])
def test_another_number_of_layers_gets_no_verdict(tmp_path: Path, args: dict[str, Any]) -> None:
    other = records(make_spec(quant="w8a8", args=args), 520, layers=12 if args else 1)
    found = compared(tmp_path, records(make_spec(), 400), other, {"quant": "bf16"})
    assert (found.verdict, found.speedup) == ("unknown", None)
    assert found.reason.startswith("it is another model: ")


@pytest.mark.parametrize(
    ("resolved", "overruled", "verdict"), [(False, {"async_scheduling": False}, "unknown"), (False, {}, "faster")]
)
def test_a_setting_without_effect_gets_no_verdict(
    tmp_path: Path, resolved: bool, overruled: dict[str, bool], verdict: str
) -> None:
    ahead = make_spec(args={"async_scheduling": True}).model_copy(update={"setting": "ahead"})
    facts = {"resolved": {"async_scheduling": resolved}}
    sides = records(make_spec(), 400, **facts), records(ahead, 520, **facts, overruled=overruled)
    assert compared(tmp_path, *sides, {"setting": "default"}).verdict == verdict
