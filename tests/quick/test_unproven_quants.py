"""A quant that nothing could prove is an error when it is planned, which says what its writer most likely wanted."""

from __future__ import annotations

import planned
import pytest
import yaml

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


def test_a_quant_that_is_known_keeps_its_proof() -> None:
    config = read_config(planned.merged_with("quant_settings: {w8a8: {engine_args: {seed: 3}}}"))
    found = resolve_quant("w8a8", "cpu", config.quant_settings)
    assert found is not None
    assert found.linear_dtypes == ("int8",)
