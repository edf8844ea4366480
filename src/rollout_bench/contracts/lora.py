"""LoRA: an adapter that trainers send after each step, kept apart from the model's weights or merged into them."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from rollout_bench.contracts.fields import Number, Strict, not_bool, one_or_several, typed

MaxRank = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]
"""Values of vLLM's `max_lora_rank`."""

LAYER_NAME = r"^[A-Za-z_]\w*$"
"""Last part of the name of a layer."""

Targets = Annotated[
    Annotated[Literal["all-linear", "attention"], Tag("one")]
    | Annotated[
        list[Annotated[str, Field(pattern=LAYER_NAME)]],
        Field(min_length=1),
        AfterValidator(lambda names: sorted({*names})),  # the same layers are the same experiment
        Tag("several"),
    ],
    Discriminator(one_or_several),
]
"""Layers that have an adapter."""

ATTENTION = re.compile(r"att(?:n|ention)")
"""Found in the name of each module of attention in transformers; its layers have many: q_proj, Wqkv, dense."""

ENGINE_ARGS = ("enable_lora", "max_loras", "max_lora_rank", "fully_sharded_loras")
"""Arguments of vLLM that follow from these settings."""


class Lora(Strict):
    """An adapter with random values; alpha and max_rank follow from rank if they are null."""

    rank: Annotated[int, Field(ge=1, le=512), BeforeValidator(not_bool)] = Field(description="Rank of the adapter.")
    alpha: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="Its output is scaled by alpha / rank. Null: twice the rank."
    )
    targets: Targets = Field(
        "all-linear",
        description="Layers with an adapter: all linear ones but the output head, those of attention, or those whose "
        "names end so: [q_proj, v_proj].",
    )
    max_rank: Annotated[MaxRank | None, BeforeValidator(typed)] = Field(
        None,
        description="Rank for which the engine makes room; a larger one costs speed. Null: vLLM's next value above "
        "rank, as verl sets it.",
    )
    fully_sharded: bool = Field(False, description="Whether tensor parallelism also divides the adapter's first half.")
    how: Literal["adapter", "merged"] = Field(
        "adapter",
        description="adapter: the engine keeps it apart from the weights; merged: it is added to them, in the data "
        "type of the engine, before the first request. Only mode drift measures merged weights: they are as fast as "
        "those without an adapter.",
        exclude_if=lambda how: how == "adapter",  # keys of experiments from before
    )

    @model_validator(mode="after")
    def _has_room(self) -> "Lora":
        if self.max_rank is not None and self.max_rank < self.rank:
            raise ValueError(
                f"max_rank {self.max_rank} is below rank {self.rank}: set it to {self.rank} or more, or leave it out"
            )
        return self

    @property
    def room(self) -> int:
        """Rank for which the engine makes room."""
        return self.max_rank or next(most for most in get_args(MaxRank) if most >= self.rank)

    @property
    def scale(self) -> float:
        """Factor of the adapter's output."""
        return (2 * self.rank if self.alpha is None else self.alpha) / self.rank

    @property
    def engine_args(self) -> dict[str, Any]:
        """Arguments of vLLM with which verl starts an engine for one adapter; none for merged weights."""
        if self.how == "merged":
            return {}
        sharded = {"fully_sharded_loras": True} if self.fully_sharded else {}
        return {"enable_lora": True, "max_loras": 1, "max_lora_rank": self.room, **sharded}

    def is_target(self, name: str) -> bool:
        """Return whether a linear layer has an adapter, by its name in transformers."""
        module, _, last = name.rpartition(".")
        if self.targets == "attention":
            return bool(ATTENTION.search(module.rpartition(".")[2]))
        return last != "lm_head" if self.targets == "all-linear" else last in self.targets
