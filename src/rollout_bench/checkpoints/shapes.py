"""Shapes of synthetic models: presets, and the user's settings under `synthetic:`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rollout_bench.core.errors import did_you_mean
from rollout_bench.core.yaml_files import packaged


def _table(name: str) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = packaged(Path(__file__).with_name(name))
    return content


PRESETS = _table("presets.yaml")
ARCHITECTURES = _table("architectures.yaml")

FieldValue = str | int | float | bool
Architecture = Literal["llama", "qwen2", "qwen3", "qwen3_moe", "openpangu", "opt"]
# Int8 kernels (CUTLASS, oneDNN, CANN) tile widths by 16.
Width = Annotated[int, Field(gt=0, le=1 << 20, multiple_of=16)]
Count = Annotated[int, Field(gt=0, le=4096)]
Tokens = Annotated[int, Field(gt=0, le=1 << 24)]
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
    rope_theta: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    num_experts: Count | None = None
    num_experts_per_tok: Count | None = None
    moe_intermediate_size: Width | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 63)]
    norm: Annotated[float, Field(gt=0, le=2, exclude_if=lambda value: value == 1.0)] = 1.0
    """Value of all norm weights. `model_dump()` leaves it out if it is 1; only `other_weights` sets another value."""

    @property
    def traits(self) -> dict[str, Any]:
        """The architecture's entry in architectures.yaml."""
        return ARCHITECTURES[self.architecture]

    def other_weights(self) -> "ResolvedShape":
        """Return the same model with the weights of the next seed, and with other values of norms."""
        return self.model_copy(update={"seed": (self.seed + 1) % (1 << 63), "norm": OTHER_NORM})

    @model_validator(mode="after")
    def _consistent(self) -> "ResolvedShape":
        moe, heads, shared = self.architecture == "qwen3_moe", self.num_attention_heads, self.num_key_value_heads
        experts = {
            name: getattr(self, name) for name in ("num_experts", "num_experts_per_tok", "moe_intermediate_size")
        }
        faults = [
            *((moe and not n, f"{name} is missing: architecture qwen3_moe needs it") for name, n in experts.items()),
            *((not moe and n, f"{name} is for architecture qwen3_moe only") for name, n in experts.items()),
            (heads % shared, f"num_key_value_heads must divide num_attention_heads: {shared} does not divide {heads}"),
            (
                self.architecture in ("qwen2", "opt") and self.head_dim * heads != self.hidden_size,
                f"head_dim must be hidden_size / num_attention_heads for architecture {self.architecture}, and "
                f"{self.head_dim} is not {self.hidden_size} / {heads}",
            ),
            (
                self.architecture == "opt" and not (self.tie_word_embeddings and heads == shared),
                "architecture opt has tie_word_embeddings: true and as many num_key_value_heads as num_attention_heads",
            ),
            (
                (self.architecture == "opt") != (self.rope_theta is None),
                "rope_theta is for every architecture but opt, which has learned positions",
            ),
            (
                (self.num_experts_per_tok or 0) > (self.num_experts or 0),
                f"num_experts_per_tok must be at most num_experts, and {self.num_experts_per_tok} is more than "
                f"{self.num_experts}",
            ),
        ]
        for is_faulty, fault in faults:
            if is_faulty:
                raise ValueError(fault)
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
    def _resolves(self) -> "SyntheticModel":
        self.resolve()
        return self

    def resolve(self) -> ResolvedShape:
        """Return the complete shape.

        Raises:
            ValueError: if a preset or size is unknown, or sizes contradict each other; one sentence that names the
                field.
        """
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is not known: {did_you_mean(self.preset, PRESETS)}")
        sizes = ResolvedShape.model_fields.keys() - {"architecture", "seed", "norm"}
        for name in self.shape.keys() - sizes:
            raise ValueError(f"shape has no size {name!r}; {did_you_mean(name, sizes)}")
        try:
            return ResolvedShape.model_validate({**PRESETS[self.preset], **self.shape, "seed": self.seed})
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
