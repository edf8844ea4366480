"""Well-known models of the hub: sizes that are here without their weights, and what the least time follows from."""

from __future__ import annotations

import pytest
from planned import planned

from rollout_bench.analysis.bounds.architecture import UnknownArchitectureError, architecture_from
from rollout_bench.analysis.bounds.bound import ExperimentBound, experiment_bound, known_config, least_pass_s
from rollout_bench.analysis.bounds.cost import plain
from rollout_bench.analysis.bounds.limits import PEAKS, assumed, known_peak, published
from rollout_bench.analysis.bounds.memory import held_bytes

H100 = published(known_peak("H100"))

BILLIONS = {
    "Qwen/Qwen2.5-0.5B": 0.494,
    "Qwen/Qwen2.5-Math-1.5B": 1.544,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1.777,
    "Qwen/Qwen2.5-3B-Instruct": 3.086,
    "Qwen/Qwen2.5-7B-Instruct": 7.616,
    "Qwen/Qwen2.5-14B": 14.77,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": 32.76,
    "Qwen/Qwen2.5-72B-Instruct": 72.71,
    "Qwen/Qwen3-0.6B": 0.596,
    "Qwen/Qwen3-1.7B": 1.721,
    "Qwen/Qwen3-4B": 4.022,
    "Qwen/Qwen3-8B": 8.191,
    "Qwen/Qwen3-14B": 14.77,
    "Qwen/Qwen3-32B": 32.76,
    "Qwen/Qwen3-30B-A3B": 30.53,
    "Qwen/Qwen3-235B-A22B": 235.1,
    "meta-llama/Llama-3.2-1B-Instruct": 1.236,
    "meta-llama/Llama-3.2-3B": 3.213,
    "meta-llama/Llama-3.1-8B-Instruct": 8.030,
    "meta-llama/Llama-3.3-70B-Instruct": 70.55,
    "mistralai/Mistral-7B-Instruct-v0.3": 7.248,
}
"""Parameters as the models' pages count their safetensors."""


@pytest.mark.parametrize("model", BILLIONS)
def test_a_well_known_model_has_as_many_parameters_as_its_page_tells(model: str) -> None:
    held = held_bytes(architecture_from(known_config(model)), plain("bfloat16")) / 2
    assert held == pytest.approx(BILLIONS[model] * 1e9, rel=0.001)  # biases and norms of heads are not counted


def test_another_model_of_the_hub_is_not_taken_for_a_well_known_one() -> None:
    for model in ("Qwen/Qwen3-8B-FP8", "someone/Qwen3-8B", "Qwen/Qwen3-80B"):
        with pytest.raises(UnknownArchitectureError, match="well-known"):
            known_config(model)


ROLLOUT = """
platform: cuda
modes: [rollout]
models: [m]
quants: [bf16]
workloads: [step]
model_settings: {m: {weights: {bf16: "hub:Qwen/Qwen3-8B"}}}
workload_settings: {step: {prompts: PROMPTS, samples_per_prompt: 8, prompt_tokens: 1024, output_tokens: 4096}}
engine_args: {tensor_parallel_size: 2, max_num_seqs: 512}
rollout: {replicas: ENGINES}
"""


def test_engines_that_share_a_step_need_as_long_as_one_does_for_its_part() -> None:
    bounds = []
    for prompts, engines in ((1024, 4), (256, 1)):
        (one,) = planned(ROLLOUT.replace("PROMPTS", str(prompts)).replace("ENGINES", str(engines))).experiments
        bound = experiment_bound(one.spec, one.model_path, None, H100)
        assert isinstance(bound, ExperimentBound)
        bounds.append(bound)
    four, alone = bounds
    assert four.pass_s == pytest.approx(alone.pass_s, rel=0.001)
    assert alone.pass_s == pytest.approx(611, rel=0.01)
    assert four.output_tokens == 4 * alone.output_tokens


def test_an_unknown_device_is_no_slower_than_any_known_one() -> None:
    (one,) = planned(ROLLOUT.replace("PROMPTS", "64").replace("ENGINES", "4")).experiments
    known = [least_pass_s(one.spec, one.model_path, None, published(peak)) for peak in PEAKS]
    fastest = assumed("cuda", "a device of next year")
    assert fastest.source == "assumed"
    assert least_pass_s(one.spec, one.model_path, None, fastest) == min(seconds for seconds in known if seconds)
    assert assumed("cuda", "NVIDIA H100 80GB HBM3") == H100
