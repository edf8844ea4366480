"""LoRA on the real engine: an adapter acts in each pass, and does in float32 what merged weights do."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from launching import SETTINGS, Launching, online_spec, tiny_spec, with_adapter
from needing_vllm import run_program

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.lora import MaxRank
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import read_launched, traces_path
from rollout_bench.modes.profile.traces.categories import categorise
from rollout_bench.modes.profile.traces.trace import read_traces

pytestmark = pytest.mark.engine

# Transformers, with the adapter added to the weights, says what an adapter does.
PROGRAM = """
import json, sys, tempfile
import torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from vllm import LLM
from vllm.config.lora import MaxLoRARanks
from typing import get_args
from rollout_bench.contracts.lora import Lora
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import read_launched, traces_path
from rollout_bench.modes.profile.traces.categories import categorise
from rollout_bench.modes.profile.traces.trace import read_traces
from rollout_bench.measure.engine import lora as made
from rollout_bench.measure.engine.vllm import LoadedEngine

model, text = sys.argv[1:]
spec = Spec.model_validate_json(text)
census = "rollout_bench.measure.probes.loaded_weights.WeightCensus"
llm = LLM(model=model, skip_tokenizer_init=True, worker_extension_cls=census, **spec.engine.args)
request, sizes = made.adapter_request(spec, model)
engine = LoadedEngine(spec, llm)
facts = engine.take_adapter(request, sizes)

ids = made.probe_prompt(engine.vocabulary, engine.context_tokens)
base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
tensors = load_file(Path(request.lora_path) / "adapter_model.safetensors")

def said():
    with torch.no_grad():
        logits = base(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return logits[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]

before = said()
for name, module in base.named_modules():
    first = tensors.get(f"base_model.model.{name}.lora_A.weight")
    if first is not None:
        second = tensors[f"base_model.model.{name}.lora_B.weight"]
        module.weight.data += spec.lora.scale * second.float() @ first.float()
merged = said()

from vllm import SamplingParams
asked = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
apart = made.prompt_logprobs(llm.generate([{"prompt_token_ids": ids}], asked, use_tqdm=False, lora_request=request)[0])

# a trap: an adapter whose second half is zero
zero = Path(tempfile.mkdtemp())
save_file({n: t * 0 if "lora_B" in n else t for n, t in tensors.items()}, zero / "adapter_model.safetensors")
(zero / "adapter_config.json").write_text((Path(request.lora_path) / "adapter_config.json").read_text())
llm.llm_engine.remove_lora(made.NUMBER)
engine.adapter = None
without = engine.take_adapter(type(request)(made.NAME, made.NUMBER + 1, str(zero)), sizes)
print("SAID", json.dumps({
    "facts": facts.model_dump(), "without": without.model_dump(), "ranks": get_args(MaxLoRARanks),
    "from_merged": float((merged - torch.tensor(apart)).abs().max()),
    "from_base": float((before - torch.tensor(apart)).abs().max()),
}))
"""


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = tmp_path_factory.mktemp("lora") / "model"
    build_checkpoint(SyntheticModel(preset="qwen3-tiny").resolve(), "bf16", model)
    args = {"dtype": "float32", "max_model_len": 128, "enforce_eager": True, "kv_cache_memory_bytes": 1 << 26}
    plain = tiny_spec()
    plain = plain.model_copy(update={"engine": plain.engine.model_copy(update={"args": args})})
    spec = with_adapter(plain, rank=8)
    said = run_program(PROGRAM, str(model), spec.model_dump_json(), folder=model.parent)
    line = next(line for line in said.splitlines() if line.startswith("SAID "))
    return json.loads(line.removeprefix("SAID "))


def test_an_adapter_apart_does_in_float32_what_merged_weights_do(compared: dict[str, Any]) -> None:
    assert compared["from_merged"] < 1e-4
    assert compared["from_base"] > 0.1


def test_an_adapter_of_zeros_is_seen(compared: dict[str, Any]) -> None:
    assert compared["facts"]["held_values"] == compared["facts"]["values"]
    assert compared["facts"]["logprob_difference"] == pytest.approx(compared["from_base"], abs=1e-3)
    assert compared["without"]["logprob_difference"] < 1e-4
    assert compared["without"]["held_values"] < 0.9 * compared["without"]["values"]


def test_room_is_made_for_the_ranks_that_vllm_knows(compared: dict[str, Any]) -> None:
    assert list(get_args(MaxRank)) == compared["ranks"]


@pytest.mark.parametrize(
    ("mode", "load_format", "nats"),
    [
        ("offline", "auto", 0.01),
        ("rollout", "auto", 0.01),
        ("offline", "dummy", 2e-6),
        ("online", "auto", 0.01),
        ("profile", "auto", 0.01),
        ("steps", "auto", 0.01),
    ],
)
def test_each_launch_proves_its_adapter(mode: str, load_format: str, nats: float, tmp_path: Path) -> None:
    build_checkpoint(SyntheticModel(preset="qwen3-tiny").resolve(), "bf16", tmp_path / "model")
    args = {**SETTINGS["engine"]["args"], "load_format": load_format}
    made = online_spec if mode == "online" else tiny_spec
    args |= {"enable_log_requests": True} if mode == "online" else {}
    plain = made(engine={"args": args}, workload={"logprobs": 0})
    spec = with_adapter(plain, rank=4, targets="attention")
    if mode == "rollout":
        spec = Spec.model_validate({**spec.model_dump(mode="json"), "mode": mode, "rollout": {"router": "sticky"}})
    if mode == "steps":
        text = spec.model_dump(mode="json")
        engine = {**text["engine"], "multiprocess": True, "args": {**text["engine"]["args"], "max_num_seqs": 2}}
        spec = Spec.model_validate({**text, "mode": mode, "steps": {"seconds": 0.5}, "engine": engine})
    if mode == "profile":
        spec = Spec.model_validate({**spec.model_dump(mode="json"), "mode": mode, "profile": {"steps": 2}})
    launch = Launching(tmp_path, spec, model=tmp_path / "model")
    assert launch.finish() == 0, launch.said
    record = read_launched(launch.out, mode)
    adapter = record.engine.adapter
    assert adapter is not None
    assert adapter.held_values == adapter.values
    assert (adapter.room_bytes or 0) >= adapter.bytes  # vLLM's room is for a rank that it knows
    assert adapter.logprob_difference > nats
    assert "lora_not_proven" not in {flag.code for flag in record.validity}
    if mode == "online":
        asked = [line for line in launch.log_text().splitlines() if "Received request" in line]
        named = sum("lora_name='adapter'" in line for line in asked)
        assert named >= sum(iteration.requests for iteration in record.iterations)
        assert len(asked) - named == 2  # the first one, and the probe of the base
    if mode == "profile":
        events = categorise(read_traces(traces_path(launch.out), record), "cpu")
        assert set(events[events["category"] == "adapter"]["phase"]) == {"prefill", "decode"}
