"""Shapes of synthetic models: presets, and the user's settings under `synthetic:`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rollout_bench.core.errors import did_you_mean

FieldValue = str | int | float | bool

PRESETS: Mapping[str, Mapping[str, FieldValue]] = MappingProxyType(
    {
        # About 88 M parameters: the smallest size at which int8 kernels pay off on two CPU cores.
        "qwen3-90m": {
            "architecture": "qwen3",
            "hidden_size": 768,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "num_key_value_heads": 4,
            "head_dim": 64,
            "vocab_size": 16384,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "rope_theta": 1_000_000.0,
        },
        # About 3 M parameters: starts fast, too small for measurements.
        "qwen3-tiny": {
            "architecture": "qwen3",
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "vocab_size": 2048,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
            "rope_theta": 1_000_000.0,
        },
        "qwen3-moe-tiny": {
            "architecture": "qwen3_moe",
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "vocab_size": 2048,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
            "rope_theta": 1_000_000.0,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 128,
        },
        "openpangu-tiny": {
            "architecture": "openpangu",
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "vocab_size": 2048,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
            "rope_theta": 16_000_000.0,
        },
        # About 3 M parameters, with a separate output head.
        "qwen2-tiny": {
            "architecture": "qwen2",
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "vocab_size": 2048,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
            "rope_theta": 1_000_000.0,
        },
        # config.json of Qwen/Qwen3-1.7B on the Hugging Face hub; the same sizes in slime's
        # scripts/models/qwen3-1.7B.sh.
        "qwen3-1.7b": {
            "architecture": "qwen3",
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "tie_word_embeddings": True,
            "rope_theta": 1_000_000.0,
        },
        # config.json of Qwen/Qwen3-8B on the Hugging Face hub; the same sizes in slime's scripts/models/qwen3-8B.sh.
        "qwen3-8b": {
            "architecture": "qwen3",
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "tie_word_embeddings": False,
            "rope_theta": 1_000_000.0,
        },
        # config.json of Qwen/Qwen3-30B-A3B on the Hugging Face hub; the same sizes in slime's
        # scripts/models/qwen3-30B-A3B.sh.
        "qwen3-30b-a3b": {
            "architecture": "qwen3_moe",
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "tie_word_embeddings": False,
            "rope_theta": 1_000_000.0,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
        # config.json of deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B on the Hugging Face hub.
        "r1-distill-qwen-1.5b": {
            "architecture": "qwen2",
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": False,
            "rope_theta": 10_000.0,
        },
        # config.json of Qwen/Qwen2.5-14B-Instruct on the Hugging Face hub.
        "qwen2.5-14b": {
            "architecture": "qwen2",
            "hidden_size": 5120,
            "intermediate_size": 13824,
            "num_hidden_layers": 48,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 152064,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": False,
            "rope_theta": 1_000_000.0,
        },
        # config.json of openPangu-Embedded-7B-V1.1 (GitHub: wujing215/OpenPangu7B-on-NVIDIA).
        # Its model card calls 12800 "hidden dimension"; in config.json it is intermediate_size.
        "pangu-7b": {
            "architecture": "openpangu",
            "hidden_size": 4096,
            "intermediate_size": 12800,
            "num_hidden_layers": 34,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 153376,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": False,
            "rope_theta": 16_000_000.0,
        },
    }
)


Architecture = Literal["qwen2", "qwen3", "qwen3_moe", "openpangu"]

Width = Annotated[int, Field(gt=0, le=1 << 20)]
Count = Annotated[int, Field(gt=0, le=4096)]
Tokens = Annotated[int, Field(gt=0, le=1 << 24)]

MOE_FIELDS = ("num_experts", "num_experts_per_tok", "moe_intermediate_size")
MULTIPLE = 16
"""Widths are multiples of this: int8 kernels (CUTLASS, oneDNN, CANN) tile by it."""


OTHER_NORM = 1.25
"""Value of norms in a model's other weights, exact in bf16."""


class ResolvedShape(BaseModel):
    """A complete model shape, from which a checkpoint is built. `model_dump()` can be written as JSON.

    Raises:
        ValueError: on construction, if the fields contradict each other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Architecture
    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Width
    vocab_size: Tokens
    max_position_embeddings: Tokens
    tie_word_embeddings: bool
    rope_theta: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    num_experts: Count | None
    num_experts_per_tok: Count | None
    moe_intermediate_size: Width | None
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    norm: Annotated[float, Field(gt=0, le=2, exclude_if=lambda value: value == 1.0)] = 1.0
    """Value of all norm weights. `model_dump()` leaves it out if it is 1; only `other_weights` sets another value."""

    @property
    def biased_projections(self) -> tuple[str, ...]:
        """Attention projections with a bias: all in openPangu, all but the last in Qwen2."""
        return {"openpangu": ("q_proj", "k_proj", "v_proj", "o_proj"), "qwen2": ("q_proj", "k_proj", "v_proj")}.get(
            self.architecture, ()
        )

    @property
    def query_key_norm(self) -> bool:
        """Whether queries and keys are normalised per head (Qwen3 does)."""
        return self.architecture in ("qwen3", "qwen3_moe")

    def other_weights(self) -> ResolvedShape:
        """Return the same model with the weights of the next seed, and with other values of norms."""
        return self.model_copy(update={"seed": (self.seed + 1) % (1 << 63), "norm": OTHER_NORM})

    @model_validator(mode="after")
    def _consistent(self) -> ResolvedShape:
        check_shape(self.model_dump())
        return self


class SyntheticModel(BaseModel):
    """A model that the project builds itself: a preset, possibly with other sizes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str = Field(description="Named shape.")
    shape: dict[str, FieldValue] = Field(
        {},
        description=(
            "Sizes that differ from the preset, under their names in config.json: num_hidden_layers, "
            "hidden_size, intermediate_size, num_attention_heads, num_key_value_heads, head_dim, vocab_size, "
            "max_position_embeddings, tie_word_embeddings, rope_theta; with experts num_experts, num_experts_per_tok, "
            "moe_intermediate_size. Widths are multiples of 16 (head_dim for vLLM on CPU: of 32)."
        ),
    )
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = Field(
        0, description="Seed of the random weights; the same seed gives the same model in every format."
    )

    @model_validator(mode="after")
    def _resolves(self) -> SyntheticModel:
        self.resolve()
        return self

    def resolve(self) -> ResolvedShape:
        """Return the complete shape.

        Raises:
            ValueError: if a preset or size is unknown, or sizes contradict each other; one sentence that names the
                field.
        """
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is unknown; there are {', '.join(sorted(PRESETS))}")
        base = {**dict.fromkeys(MOE_FIELDS), **PRESETS[self.preset]}
        sizes = base.keys() - {"architecture"}
        for name in self.shape:
            if name not in sizes:
                raise ValueError(f"shape has no size {name!r}; {did_you_mean(name, sizes)}")
        try:
            return ResolvedShape.model_validate({**base, **self.shape, "seed": self.seed})
        except ValidationError as error:
            raise ValueError(wrong_field(error, ResolvedShape)) from None


def wrong_field(error: ValidationError, fields: type[BaseModel]) -> str:
    """Return the problem of the first wrong field in a command's JSON object, whose valid fields are in `fields`."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"there is no field {field!r}: {did_you_mean(field, fields.model_fields)}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message


def check_shape(fields: Mapping[str, Any]) -> None:
    """Check that the sizes of a complete shape fit together.

    Raises:
        ValueError: if they do not; one sentence that names the field.
    """
    moe = fields["architecture"] == "qwen3_moe"
    for name in MOE_FIELDS:
        if moe and fields[name] is None:
            raise ValueError(f"{name} is missing: architecture qwen3_moe needs it")
        if not moe and fields[name] is not None:
            raise ValueError(f"{name} is for architecture qwen3_moe only, not {fields['architecture']}")
    for name in ("hidden_size", "intermediate_size", "head_dim", "moe_intermediate_size"):
        if fields[name] is not None and fields[name] % MULTIPLE:
            raise ValueError(f"{name} must be a multiple of {MULTIPLE}, and {fields[name]} is not")
    heads, key_value_heads = fields["num_attention_heads"], fields["num_key_value_heads"]
    if heads % key_value_heads:
        raise ValueError(
            f"num_key_value_heads must divide num_attention_heads, and {key_value_heads} does not divide {heads}"
        )
    if fields["architecture"] == "qwen2" and fields["head_dim"] * heads != fields["hidden_size"]:
        raise ValueError(
            f"head_dim must be hidden_size / num_attention_heads for architecture qwen2, and {fields['head_dim']} is "
            f"not {fields['hidden_size']} / {heads}"
        )
    if moe and fields["num_experts_per_tok"] > fields["num_experts"]:
        raise ValueError(
            f"num_experts_per_tok must be at most num_experts, and {fields['num_experts_per_tok']} is more than"
            f" {fields['num_experts']}"
        )
