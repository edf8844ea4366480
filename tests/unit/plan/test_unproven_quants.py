"""A quant that nothing could prove is an error when it is planned, which says what its writer most likely wanted."""

from __future__ import annotations

import planned
import pytest
import yaml

from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.quants import resolve_quant


def refused(overlay: str) -> tuple[str, str]:
    with pytest.raises(UserError) as error:
        planned.planned(overlay)
    return error.value.problem, error.value.remedy


def test_an_engine_argument_that_is_called_a_quant_is_told_to_be_a_setting() -> None:
    own = "{weights_format: bf16, engine_args: {kv_cache_dtype: fp8}}"
    problem, remedy = refused(f"quants: [bf16, kvfp8]\nquant_settings: {{kvfp8: {own}}}")
    assert problem.startswith("config: quant_settings.kvfp8: has no linear_dtypes")
    setting = "settings: [default, kvfp8] and setting_settings: {kvfp8: {engine_args: {kv_cache_dtype: fp8}}}"
    assert setting in remedy
    for part in setting.split(" and "):
        assert yaml.safe_load(part)


def test_what_the_remedy_says_can_be_planned() -> None:
    overlay = "settings: [default, kvfp8]\nsetting_settings: {kvfp8: {engine_args: {kv_cache_dtype: fp8}}}\n"
    matrix = planned.planned(f"{overlay}quants: [bf16]")
    assert [experiment.spec.setting for experiment in matrix.experiments] == [None, "kvfp8"]


def test_a_quantization_is_told_to_have_a_proof() -> None:
    own = "{weights_format: bf16, engine_args: {quantization: fp8_per_channel}}"
    problem, remedy = refused(f"quants: [bf16, fp8]\nquant_settings: {{fp8: {own}}}")
    assert "quant_settings.fp8" in problem
    assert remedy.startswith("set linear_dtypes")
    assert "setting_settings" not in remedy


def specs(overlay: str) -> dict[str, Spec]:
    return {experiment.spec.quant.name: experiment.spec for experiment in planned.planned(overlay).experiments}


def test_a_quant_with_an_fp8_cache_is_the_other_quant_with_an_argument_and_a_promise_more() -> None:
    found = specs("quants: [bf16, bf16-kv8, w8a8, w8a8-kv8]")
    for name in ("bf16", "w8a8"):
        plain, kv8 = found[name], found[f"{name}-kv8"]
        assert kv8.quant == plain.quant.model_copy(update={"name": f"{name}-kv8", "kv_cache_dtype": "fp8"})
        assert kv8.engine.args == {**plain.engine.args, "kv_cache_dtype": "fp8"}
        assert "kv_cache_dtype" not in plain.canonical_json()


def test_quants_that_differ_in_the_cache_alone_share_their_weights() -> None:
    named = "{quants: [bf16-kv8, w8a8-kv8], models: [m], model_settings: {m: {weights: {bf16: a, w8a8: b}}}}"
    assert [spec.model.weights for spec in specs(named).values()] == ["a", "b"]
    own = "{quants: [w8a8-kv8], models: [m], model_settings: {m: {weights: {w8a8: b, w8a8-kv8: c}}}}"
    assert specs(own)["w8a8-kv8"].model.weights == "c"


@pytest.mark.parametrize(
    ("changes", "promised"),
    [
        ("{engine_args: {kv_cache_dtype: fp8_e5m2}}", "fp8_e5m2"),
        ("{engine_args: {kv_cache_dtype: fp8_e4m3}, kv_cache_dtype: fp8}", "fp8"),
        ("{engine_args: {seed: 3}}", "fp8"),
    ],
)
def test_what_is_promised_of_the_cache_follows_what_the_engine_is_told(changes: str, promised: str) -> None:
    found = specs(f"{{quants: [bf16-kv8], quant_settings: {{bf16-kv8: {changes}}}}}")
    assert found["bf16-kv8"].quant.kv_cache_dtype == promised


def test_a_checkpoint_may_promise_a_cache_that_no_argument_asks_for() -> None:
    own = "{weights_format: bf16, linear_dtypes: [bfloat16], kv_cache_dtype: fp8}"
    found = specs(f"{{quants: [scheme], quant_settings: {{scheme: {own}}}}}")
    assert found["scheme"].quant.kv_cache_dtype == "fp8"
    assert "kv_cache_dtype" not in found["scheme"].engine.args


@pytest.mark.parametrize("dtype", ["auto", "fp8_e5m2"])
def test_a_setting_that_takes_the_promised_cache_back_is_left_out(dtype: str) -> None:
    settings = f"settings: [default, other], setting_settings: {{other: {{engine_args: {{kv_cache_dtype: {dtype}}}}}}}"
    matrix = planned.planned(f"{{quants: [bf16, bf16-kv8], {settings}}}")
    (skipped,) = [left for left in matrix.skipped if left.quant == "bf16-kv8"]
    assert skipped.setting == "other"
    assert skipped.reason == f"bf16-kv8 promises a KV cache of fp8, and kv_cache_dtype is {dtype} there"
    assert "leave bf16-kv8 out of quants" in skipped.remedy


def test_a_quant_that_is_known_keeps_its_proof() -> None:
    config = read_config(planned.merged_with("quant_settings: {w8a8: {engine_args: {seed: 3}}}"))
    found = resolve_quant("w8a8", "cpu", config.quant_settings)
    assert found is not None
    assert found.linear_dtypes == ("int8",)
