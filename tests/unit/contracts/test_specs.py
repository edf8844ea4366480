"""What a config says of an experiment stands in its spec, and is described in one place."""

from typing import Any

import pytest
import yaml
from planned import planned

from rollout_bench.contracts.spec import QuantSpec, Spec

WORKLOAD = {
    "prompts": 3,
    "samples_per_prompt": 5,
    "prompt_tokens": {"distribution": "normal", "mean": 20.0, "std": 4.0, "low": 12, "high": 40},
    "output_tokens": 9,
    "requests": "per_sequence",
    "ignore_eos": False,
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 11,
    "logprobs": 2,
    "seed": 13,
    "shared_prefix": {"tokens": 8, "groups": 2},
}
TRAFFIC = {"burstiness": "constant"}
ENDPOINT = {
    "url": "http://host:1/v1",
    "model": "m",
    "api_key_env": "KEY",
    "verify_tls": False,
    "headers": {"x-user": "${WHO}"},
}


@pytest.fixture(scope="module")
def spec() -> Spec:
    """Of an endpoint, under a load that has nothing at its default."""
    overlay = {
        "modes": ["online"],
        "models": [],
        "endpoints": {"theirs": ENDPOINT},
        "workloads": ["w"],
        "workload_settings": {"w": WORKLOAD | {"online": TRAFFIC | {"request_rate": 3.0, "concurrency": 7}}},
        "warmup_iterations": 4,
        "iterations": 6,
    }
    return planned(yaml.safe_dump(overlay)).experiments[0].spec


@pytest.mark.parametrize(
    ("part", "configured"),
    [
        ("workload", WORKLOAD),
        ("load", TRAFFIC | {"points": [{"concurrency": 7, "request_rate": 3.0}]}),
        ("endpoint", ENDPOINT),
        ("measuring", {"warmup_iterations": 4, "iterations": 6}),
    ],
)
def test_a_spec_has_what_the_config_says(spec: Spec, part: str, configured: dict[str, Any]):
    content = spec.model_dump(mode="json")[part]
    assert {name: content[name] for name in configured} == configured


def test_changes_to_a_built_in_quant_leave_its_rest():
    overlay = "{platform: cuda, quants: [fp8], quant_settings: {fp8: {linear_dtypes: [uint8], engine_args: {seed: 3}}}}"
    spec = planned(overlay).experiments[0].spec
    assert spec.quant == QuantSpec(name="fp8", weights_format="bf16", linear_dtypes=("uint8",), linear_method="(?i)fp8")
    assert {"quantization": "fp8", "seed": 3}.items() <= spec.engine.args.items()
