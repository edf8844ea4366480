"""Drafts on the real engine: those of random weights fit their model, and the accepted length counts them."""

import json
from pathlib import Path
from typing import Any

import pytest
from launching import SETTINGS, Launching, online_spec, own_flags, tiny_spec
from needing_vllm import run_program

from rollout_bench.analysis.timed.launches import measure
from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.drafts import drafts_of
from rollout_bench.contracts.spec import Spec

pytestmark = pytest.mark.engine

TOKENS = 3
LOAD = {"output_tokens": 41, "temperature": 0.0, "logprobs": 0}


@pytest.mark.parametrize(
    ("mode", "load_format", "drafts", "low", "high"),
    [
        # 40 tokens after the first are ten steps
        ("offline", "auto", {"method": "draft_model", "model": "itself"}, 4.0, 4.0),
        ("offline", "auto", {"method": "draft_model", "model": "random"}, 1.0, 1.5),
        ("offline", "auto", {"method": "eagle3", "model": "random"}, 1.0, 1.5),
        ("rollout", "dummy", {"method": "eagle3", "model": "random"}, 1.0, 4.0),
        ("online", "dummy", {"method": "draft_model", "model": "random"}, 1.0, 4.0),
    ],
)
def test_drafts_fit_their_model_and_are_counted(
    mode: str, load_format: str, drafts: dict[str, Any], low: float, high: float, tmp_path: Path
) -> None:
    # tied embeddings would repeat the last token, in any draft; a head knows a part of a large vocabulary
    shape = SyntheticModel(preset="qwen3-tiny", shape={"tie_word_embeddings": False, "vocab_size": 40_000}).resolve()
    build_checkpoint(shape, "bf16", tmp_path / "model")
    named = {"model": str(tmp_path / "model")} if drafts["model"] == "itself" else {}
    config = {**drafts, **named, "num_speculative_tokens": TOKENS}
    args = {**SETTINGS["engine"]["args"], "load_format": load_format, "speculative_config": config}
    made = online_spec if mode == "online" else tiny_spec
    spec = made(engine={"args": args}, workload=LOAD)
    if mode == "rollout":
        spec = Spec.model_validate({**spec.model_dump(mode="json"), "mode": mode, "rollout": {"router": "sticky"}})
    launch = Launching(tmp_path, spec, model=tmp_path / "model")
    assert launch.finish() == 0, launch.said + launch.log_text()[-4000:]
    record = launch.record()
    for iteration in record.iterations:
        done = iteration.drafting
        assert done is not None
        assert done.draft_tokens == TOKENS * done.drafts
    assert low <= measure(record).values["accepted_length"] <= high
    assert {flag.code for flag in own_flags(record)} <= {"engine_fallback", "batch_not_at_once"}
    assert record.spec.engine.args["speculative_config"] == config, "no path of a made draft is a setting"
    if drafts["method"] == "eagle3":
        assert "EAGLE model with distinct lm_head" in launch.log_text(), "its target's would cost several times as much"


ACCEPTED_BY_CHANCE = """
import json, sys
from vllm.engine.arg_utils import EngineArgs
from rollout_bench.measure.probes.loaded_weights import settings_of

args = json.loads(sys.argv[2])
config = EngineArgs(model=sys.argv[1], skip_tokenizer_init=True, **args).create_engine_config()
rates = config.speculative_config.synthetic_acceptance_rates
print("SAID", json.dumps([settings_of(config, args)["overruled"], rates]))
"""


def test_an_accepted_length_has_the_rates_of_the_engine(tmp_path: Path) -> None:
    build_checkpoint(SyntheticModel(preset="qwen3-tiny").resolve(), "bf16", tmp_path / "model", config_only=True)
    config = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}
    config |= {"rejection_sample_method": "synthetic", "synthetic_acceptance_length": 2.25}
    args = {"speculative_config": config, "load_format": "dummy"}
    printed = run_program(ACCEPTED_BY_CHANCE, str(tmp_path / "model"), json.dumps(args), folder=tmp_path)
    overruled, rates = json.loads(printed.rpartition("SAID ")[2].splitlines()[0])
    drafts = drafts_of(args)
    assert drafts is not None
    assert rates == list(drafts.rates)
    assert overruled == {}, "vLLM keeps the rates in place of the length"
