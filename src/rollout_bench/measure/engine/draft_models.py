"""A draft of random weights in the shape that fits a launch's model, for `speculative_config: {model: random}`."""

import json
import tempfile
from pathlib import Path
from typing import Any

from rollout_bench.contracts.drafts import ARGUMENT, RANDOM, drafts_of
from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED, Spec
from rollout_bench.core.errors import MeasuringFailed

HEAD_VOCABULARY = 32_000
"""Most tokens that an EAGLE3 head proposes; trained ones know the most frequent ones, as its authors' do."""

SHARED = (
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "vocab_size",
)
"""Keys of config.json that an EAGLE3 head has from its model."""


def head_layers(layers: int) -> list[int]:
    """Return the layers of the target whose hidden states an EAGLE3 head reads: an early, a middle and a late one.

    They are vLLM's own for 7 layers or more. With fewer these are not three, and the head would not fit.
    """
    own = sorted({2, layers // 2, layers - 3})
    return own if len(own) == 3 and layers > 6 else list(range(1, min(4, layers)))


def draft_config(target: dict[str, Any], method: str) -> dict[str, Any]:
    """Return config.json of a draft for a model with the config.json `target`.

    For `eagle3` it is a head of one layer of Llama, as trained ones are. For `draft_model` it is one layer of the
    target, with embeddings and an output head of its own: from shared ones it would repeat its last token.
    """
    if method == "eagle3":
        layers = head_layers(target["num_hidden_layers"])
        return {
            **{key: target[key] for key in SHARED if target.get(key) is not None},
            "architectures": ["LlamaForCausalLMEagle3"],
            "model_type": "llama",
            "num_hidden_layers": 1,
            "draft_vocab_size": min(HEAD_VOCABULARY, target["vocab_size"]),
            "tie_word_embeddings": False,
            "num_aux_hidden_states": len(layers),
            "eagle_aux_hidden_state_layer_ids": layers,
        }
    config = {key: value for key, value in target.items() if key != "quantization_config"}
    kinds = {"layer_types": target["layer_types"][:1]} if target.get("layer_types") else {}
    return {**config, **kinds, "num_hidden_layers": 1, "tie_word_embeddings": False}


def args_with_draft(spec: Spec, model: str) -> dict[str, Any]:
    """Return the engine's arguments of `spec`, with the folder of a made draft in place of `model: random`.

    The folder is the launch's. It has weights only if the engine would read them: as vLLM's `draft_load_config` reaches
    only EAGLE3 heads, other drafts are loaded as their target is.

    Raises:
        MeasuringFailed: transformers has no model like the target.
    """
    args, drafts = spec.engine.args, drafts_of(spec.engine.args)
    if drafts is None or args[ARGUMENT].get("model") != RANDOM:
        return args
    folder = Path(tempfile.mkdtemp(prefix="draft-"))
    is_read = spec.load_format not in NO_WEIGHTS_NEEDED and drafts.method != "eagle3"
    _write(folder, model, drafts.method, weights=is_read, trust_remote_code=bool(args.get("trust_remote_code")))
    return {**args, ARGUMENT: {"draft_load_config": {"load_format": "dummy"}, **args[ARGUMENT], "model": str(folder)}}


def _write(folder: Path, model: str, method: str, *, weights: bool, trust_remote_code: bool) -> None:
    from transformers import AutoConfig

    try:
        target = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code).get_text_config()
        config = draft_config(json.loads(target.to_json_string(use_diff=False)), method)
        (folder / "config.json").write_text(json.dumps(config))
        if weights:
            _write_weights(folder, trust_remote_code=trust_remote_code)
    except (ValueError, LookupError, ImportError) as error:
        cause = f"no draft can be made for {model}: {error}"
        remedy = "name a trained draft in speculative_config.model, or use a method without one: ngram"
        raise MeasuringFailed("draft_unsupported", cause, remedy) from None


def _write_weights(folder: Path, *, trust_remote_code: bool) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(config, dtype=config.dtype, trust_remote_code=trust_remote_code)
    made.save_pretrained(folder)
