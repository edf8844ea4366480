"""The adapter of a launch: made in the format of PEFT for any model, given to the engine, and proven to act."""

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollout_bench.contracts.lora import Lora
from rollout_bench.contracts.record import AdapterFacts
from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED, Spec
from rollout_bench.contracts.weights import Weights
from rollout_bench.core.errors import MeasuringFailed

if TYPE_CHECKING:
    import torch

NAME, NUMBER = "adapter", 1
"""Name and number of the only adapter, by which requests name it."""

DEVIATION = 0.1
"""Standard deviation of the adapter's output for a normalised input: a tenth of that of a layer's own output."""

DUMMY_DEVIATION = 1000 * DEVIATION
"""The same beside vLLM's dummy weights, which are within 0.001.

Norms of such weights make each layer's input a thousandth, and the output of a smaller adapter is lost in rounding.
"""

PROBED_TOKENS = 64
"""Tokens whose log probabilities show that the adapter acts."""


def linear_layers(model: str, *, trust_remote_code: bool) -> Iterator[tuple[str, int, int]]:
    """Yield name, inputs and outputs of each linear layer of a model, as transformers has them; no weights are made.

    Args:
        model: folder with config.json, or hub id.
        trust_remote_code: whether the model's own code may run.

    Raises:
        MeasuringFailed: transformers has no such model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # adapters are of the layers as trained
        with torch.device("meta"):
            made = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (ValueError, KeyError, ImportError) as error:
        cause = f"no adapter can be made for {model}: {error}"
        raise MeasuringFailed("lora_unsupported", cause, "leave lora out for this model") from None
    if any("expert" in key and value for key, value in config.to_dict().items()):
        cause = f"no adapter can be made for {model}: it has experts"
        raise MeasuringFailed("lora_unsupported", cause, "leave lora out for this model")
    for name, module in made.named_modules():
        if isinstance(module, torch.nn.Linear):
            yield name, module.in_features, module.out_features


def adapted_layers(spec: Spec, model: str) -> list[str]:
    """Return the last parts of the names of the layers that the adapter of `spec` is of.

    Raises:
        MeasuringFailed: transformers has no such model.
    """
    assert spec.lora is not None, "the spec has an adapter"
    code = bool(spec.engine.args.get("trust_remote_code"))
    layers = (name for name, _, _ in linear_layers(model, trust_remote_code=code) if spec.lora.is_target(name))
    return sorted({name.rpartition(".")[2] for name in layers})


def _random(name: str, *shape: int) -> "torch.Tensor":
    import torch

    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(*shape, generator=generator)


def adapter_tensors(
    model: str,
    lora: Lora,
    *,
    deviation: float = DEVIATION,
    weights: Weights = "first",
    trust_remote_code: bool = False,
) -> dict[str, "torch.Tensor"]:
    """Return the tensors of an adapter by their names in PEFT's files, in bf16; the same ones for the same model.

    lora_A [rank, inputs] and lora_B [outputs, rank] are normal. For an input of variance 1, the output of a layer's
    adapter has the standard deviation `deviation`.

    Raises:
        MeasuringFailed: transformers has no such model, or it has no such layer.
    """
    import torch

    tensors: dict[str, torch.Tensor] = {}
    for name, inputs, outputs in linear_layers(model, trust_remote_code=trust_remote_code):
        if lora.is_target(name):
            where, seed = f"base_model.model.{name}", name if weights == "first" else f"{name} {weights}"
            a, b = _random(f"{seed} A", lora.rank, inputs), _random(f"{seed} B", outputs, lora.rank)
            tensors[f"{where}.lora_A.weight"] = (a / math.sqrt(inputs)).bfloat16()
            tensors[f"{where}.lora_B.weight"] = (b * deviation / lora.scale / math.sqrt(lora.rank)).bfloat16()
    if not tensors:
        cause = f"{model} has no linear layer for an adapter of {lora.targets}"
        raise MeasuringFailed("lora_unsupported", cause, "choose other targets, or leave lora out for this model")
    return tensors


def write_adapter(folder: Path, model: str, lora: Lora, **more: Any) -> dict[str, int]:
    """Write an adapter, made as by `adapter_tensors` (with `more`), in the format of PEFT into an empty folder.

    Returns:
        tensors: their number; values: number of all values; bytes.

    Raises:
        MeasuringFailed: it cannot be made for this model.
    """
    from safetensors.torch import save_file

    tensors = adapter_tensors(model, lora, **more)
    save_file(tensors, folder / "adapter_model.safetensors")
    layers = sorted({name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in tensors})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model,
        "r": lora.rank,
        "lora_alpha": lora.scale * lora.rank,
        "target_modules": sorted({layer.rpartition(".")[2] for layer in layers}),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    values = sum(tensor.numel() for tensor in tensors.values())
    return {"tensors": len(tensors), "values": values, "bytes": sum(tensor.nbytes for tensor in tensors.values())}


def written_adapter(spec: Spec, model: str, weights: Weights = "first") -> tuple[Path, dict[str, int]]:
    """Write the adapter of `spec` into a new folder of the launch; return it, and what `write_adapter` returns.

    Raises:
        MeasuringFailed: it cannot be made for this model.
    """
    assert spec.lora is not None, "the spec has an adapter"
    folder = Path(tempfile.mkdtemp(prefix="adapter-"))
    code = bool(spec.engine.args.get("trust_remote_code"))
    deviation = DUMMY_DEVIATION if spec.load_format in NO_WEIGHTS_NEEDED else DEVIATION
    return folder, write_adapter(folder, model, spec.lora, deviation=deviation, weights=weights, trust_remote_code=code)


def adapter_request(spec: Spec, model: str, weights: Weights = "first") -> tuple[Any, dict[str, int]]:
    """Return vLLM's LoRARequest for a new adapter in a folder of the launch, and what `write_adapter` returns.

    Raises:
        MeasuringFailed: it cannot be made for this model.
    """
    from vllm.lora.request import LoRARequest

    folder, sizes = written_adapter(spec, model, weights)
    return LoRARequest(NAME, NUMBER, str(folder)), sizes


def probe_prompt(vocabulary: int, context_tokens: int) -> list[int]:
    """Return token ids on which the adapter and the base are compared, fewer than an engine's context."""
    return [(7919 * place + 13) % vocabulary for place in range(min(PROBED_TOKENS, context_tokens - 1))]


def probe_of(model_config: Any) -> tuple[dict[str, list[int]], Any]:
    """Return the prompt of the probe and how it is asked for, in vLLM's form, for a model with that config."""
    from vllm import SamplingParams

    ids = probe_prompt(int(model_config.get_vocab_size()), int(model_config.max_model_len))
    return {"prompt_token_ids": ids}, SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)


def adapter_facts(
    sizes: dict[str, int], held: list[dict[str, int]], base: list[float], adapted: list[float]
) -> AdapterFacts:
    """Return what shows that an adapter acts.

    Args:
        sizes: from `write_adapter`.
        held: what each worker's layers hold for it: values other than zero, and bytes.
        base: log probability of each token of `probe_prompt` but the first, without the adapter.
        adapted: the same with it.
    """
    return AdapterFacts(
        tensors=sizes["tensors"],
        bytes=sizes["bytes"],
        values=sizes["values"],
        held_values=sum(each["values"] for each in held),
        room_bytes=sum(each["bytes"] for each in held),
        logprob_difference=max(abs(one - other) for one, other in zip(base, adapted, strict=True)),
    )


def prompt_logprobs(output: Any) -> list[float]:
    """Return the log probability of each token of a prompt but the first, from vLLM's RequestOutput."""
    ids = output.prompt_token_ids
    return [found[token].logprob for token, found in zip(ids[1:], output.prompt_logprobs[1:], strict=True)]
