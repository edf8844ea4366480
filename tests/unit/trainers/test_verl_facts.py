"""The config of verl's settings has verl's own values, which verl's code gave for drawn overrides (studies/oracles)."""

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf.errors import GrammarParseError

from rollout_bench.contracts.lora import Lora
from rollout_bench.core.errors import UserError
from rollout_bench.trainers.settings import KeyRegistry, TrainerFile, hydra_value
from rollout_bench.trainers.verl import OLDER, verl_config, verl_cycle

pytestmark = pytest.mark.slow

ORACLES = Path(__file__).parents[3] / "studies" / "oracles"
TABLES = {"0.9": "verl-0.9.1.jsonl.xz", "0.8": "verl-0.8.0.jsonl.xz"}

REFUSED = {
    "under way": ("v1 colocate_async", "v1 separate_async"),
    "does not divide": ("v1 sync", "older"),
}
"""Part of a refusal -> trainers in verl whose draws may get it: batches overlap, or devices stay without an engine."""

NOT_MEASURED = {
    "load_format",
    "distributed_executor_backend",
    "enable_sleep_mode",
    "disable_log_stats",
    "hf_overrides",
    "quantization",
    "data_parallel_size",
    "data_parallel_size_local",
    "data_parallel_start_rank",
    "enable_expert_parallel",
}
"""verl's engine arguments that a config says in another way, seen to below, or that leave the load as it is."""

USUAL_LEVEL = "2"
"""Sleep level of a cycle on a GPU whose config names none."""

VLLM_DEFAULTS = {"enforce_eager": False, "trust_remote_code": False, "pipeline_parallel_size": 1, "block_size": None}
"""Engine arguments that verl leaves out of vLLM's command line if they have these values."""


def facts(version: str) -> Iterator[dict[str, Any]]:
    with lzma.open(ORACLES / TABLES[version], "rt") as lines:
        yield from map(json.loads, lines)


def compared(ours: dict[str, Any], row: dict[str, Any], settings: TrainerFile) -> dict[str, tuple[Any, Any]]:
    """Return name -> (ours, verl's) of every value that a config has."""
    (load,) = ours["workload_settings"].values()
    adapter = Lora(**ours["lora"]).engine_args if "lora" in ours else {}
    arguments, verls = load["engine_args"] | adapter, dict(row["arguments"])
    ranks = verls.get("data_parallel_size", 1)
    found = {
        "prompts": (load["prompts"], row["prompts"]),
        "sequences": (load["prompts"] * load["samples_per_prompt"], row["sequences"]),
        "engines": (ours["rollout"]["replicas"], row["engines"] * ranks),
        "prompt_tokens": (load["prompt_tokens"], row["prompt_tokens"]),
        "output_tokens": (load["output_tokens"], row["sampling"]["max_tokens"]),
        "quantization": ("fp8-block" in ours["quants"], verls.get("quantization") == "fp8"),
        **{name: (load[name], row["sampling"][name]) for name in ("temperature", "top_p", "top_k")},
    }
    if ranks == 1:
        found["experts"] = (arguments.get("enable_expert_parallel", False), verls.get("enable_expert_parallel", False))
    length = arguments.pop("max_model_len")
    room = verls.pop("max_model_len")
    if settings.get("actor_rollout_ref.rollout.max_model_len") is None:
        found["max_model_len"] = (length, load["prompt_tokens"] + load["output_tokens"])
    else:
        found["max_model_len"] = (length, room)
    graphs = [each.pop("compilation_config", {}) for each in (arguments, verls)]
    sizes = verls.pop("cuda_graph_sizes", None)  # verl 0.8's name
    whole = {"cudagraph_mode": "FULL_AND_PIECEWISE"}
    expected = graphs[1] | ({"cudagraph_capture_sizes": sizes} if sizes else {})
    found["compilation_config"] = (whole | graphs[0], expected)
    for name in (arguments.keys() | verls.keys()) - NOT_MEASURED:
        default = VLLM_DEFAULTS.get(name)
        found[name] = (arguments.get(name, default), verls.get(name, default))
    return found


@pytest.mark.parametrize("version", sorted(TABLES))
def test_a_value_of_an_override_is_read_as_hydra_reads_it(version: str):
    rows = [row for row in facts(version) if "written" in row]
    assert len(rows) > 50
    for row in rows:
        if "refused" in row:
            with pytest.raises(GrammarParseError):
                hydra_value(row["written"])
        else:
            assert hydra_value(row["written"]) == row["value"], row


@pytest.mark.parametrize("version", sorted(TABLES))
def test_every_value_is_verls_or_refused_with_a_reason(version: str):
    registry, wrong, refused, held = KeyRegistry.of("verl", version), [], 0, 0
    for row in facts(version):
        if "refused" in row or "written" in row:
            continue
        settings = TrainerFile.read(row["words"], registry, None)
        try:
            made = verl_config(settings)
        except UserError as error:
            refused += 1
            expected = [trainers for words, trainers in REFUSED.items() if words in str(error)]
            if not expected or row["trainer"] not in expected[0]:
                wrong.append((row["words"], str(error)))
            continue
        if row["trainer"] == "v1 sync" and OLDER in made.head:  # filter_groups, where verl sets gen_batch_size to 1
            assert settings.get("algorithm.filter_groups.enable")
            continue
        held += 1
        values = compared(made.config, row, settings)
        wrong += [(row["words"], name, both) for name, both in values.items() if both[0] != both[1]]
        if made.config["quants"] == ["bf16"]:
            sleep = verl_cycle(settings, made).config.get("cycle", {}).get("sleep", USUAL_LEVEL)
            level = row["sleep_level"] if row["arguments"].get("enable_sleep_mode", False) else None
            wrong += [(row["words"], "sleep", (sleep, level))] if sleep != str(level or "none") else []
        for key, measured in (
            ("calculate_log_probs", row["sampling"]["logprobs"] == 0),
            ("ignore_eos", row["sampling"].get("ignore_eos", False)),
        ):
            listed = made.account.split("not supported:")[1].split("\nwithout")[0]
            if not measured and f"rollout.{key} = " not in listed:
                wrong.append((row["words"], key, "differs, and is not told"))
    assert not wrong, "\n".join(map(str, wrong[:20]))
    assert held > 100
    assert held > refused
