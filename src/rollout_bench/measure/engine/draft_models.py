"""A draft of random weights in the shape that fits a launch's model, for `speculative_config: {model: random}`."""

import json
import tempfile
from pathlib import Path
from typing import Any

from rollout_bench.contracts.drafts import ARGUMENT, RANDOM, drafts_of
from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED, Spec
from rollout_bench.core.errors import MeasuringFailed

OWN_HEADS = "rollout_bench.measure.probes.random_heads.CensusOfHeads"
"""vLLM's `worker_extension_cls` where an EAGLE3 head has no checkpoint."""

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

    The folder is the launch's. It has weights if those of the target are read: not every model runner of vLLM follows
    `draft_load_config`, and a draft is otherwise loaded as its target is.

    Raises:
        MeasuringFailed: transformers has no model like the target.
    """
    args, drafts = spec.engine.args, drafts_of(spec.engine.args)
    if drafts is None or args[ARGUMENT].get("model") != RANDOM:
        return args
    folder = Path(tempfile.mkdtemp(prefix="draft-"))
    is_read = spec.load_format not in NO_WEIGHTS_NEEDED
    _write(folder, model, drafts.method, weights=is_read, trust_remote_code=bool(args.get("trust_remote_code")))
    extension = {} if is_read or drafts.method != "eagle3" else {"worker_extension_cls": OWN_HEADS}
    return {**extension, **args, ARGUMENT: {**args[ARGUMENT], "model": str(folder)}}


def _write(folder: Path, model: str, method: str, *, weights: bool, trust_remote_code: bool) -> None:
    from transformers import AutoConfig

    try:
        target = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code).get_text_config()
        config = draft_config(json.loads(target.to_json_string(use_diff=False)), method)
        (folder / "config.json").write_text(json.dumps(config))
        if weights and method == "eagle3":
            _write_head(folder, config)
        elif weights:
            _write_weights(folder, trust_remote_code=trust_remote_code)
    except (ValueError, LookupError, ImportError) as error:
        cause = f"no draft can be made for {model}: {error}"
        remedy = "name a trained draft in speculative_config.model, or use a method without one: ngram"
        raise MeasuringFailed("draft_unsupported", cause, remedy) from None


def head_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an EAGLE3 head's weights by their names in a checkpoint.

    The head has its target's embeddings, and its output layer knows the first tokens of the vocabulary: without a list
    of tokens vLLM takes these.
    """
    width, inner = config["hidden_size"], config["intermediate_size"]
    each = config.get("head_dim") or width // config["num_attention_heads"]
    queries = each * config["num_attention_heads"]
    keys = each * config["num_key_value_heads"]
    norms = ("norm", *(f"midlayer.{name}" for name in ("hidden_norm", "input_layernorm", "post_attention_layernorm")))
    matrices = {
        "fc": (width, config["num_aux_hidden_states"] * width),
        "lm_head": (config["draft_vocab_size"], width),
        "midlayer.self_attn.q_proj": (queries, 2 * width),
        "midlayer.self_attn.k_proj": (keys, 2 * width),
        "midlayer.self_attn.v_proj": (keys, 2 * width),
        "midlayer.self_attn.o_proj": (width, queries),
        "midlayer.mlp.gate_proj": (inner, width),
        "midlayer.mlp.up_proj": (inner, width),
        "midlayer.mlp.down_proj": (width, inner),
    }
    return {f"{name}.weight": shape for name, shape in {**dict.fromkeys(norms, (width,)), **matrices}.items()}


def _write_head(folder: Path, config: dict[str, Any]) -> None:
    import torch
    from safetensors.torch import save_file

    dtype = getattr(torch, config.get("dtype") or "bfloat16")
    random = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.ones(shape, dtype=dtype)
        if len(shape) == 1
        else torch.empty(shape, dtype=dtype).uniform_(-0.03, 0.03, generator=random)
        for name, shape in head_shapes(config).items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _write_weights(folder: Path, *, trust_remote_code: bool) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(config, dtype=config.dtype, trust_remote_code=trust_remote_code)
    made.save_pretrained(folder)
