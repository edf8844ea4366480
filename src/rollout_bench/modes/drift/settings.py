"""Settings of drift: which tokens are scored, and how many at once."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.contracts.fields import Count, Name, Strict, absent, brackets
from rollout_bench.contracts.mode_parts import ModeSpec


class DriftSettings(Strict):
    """Scored tokens of launches in mode drift, and batch sizes."""

    prompts: Annotated[Count, Field(ge=2, le=65_536)] = Field(
        64, description="Prompts of the workload that the reference continues once each: the scored sequences."
    )
    tokens: Annotated[Count, Field(le=65_536)] = Field(
        128, description="Maximum number of tokens sampled after each prompt: fewer if max_model_len is reached."
    )
    reference: Name = Field(
        "bf16",
        description=(
            "The quantization that samples the tokens, under the default setting, and that the others' "
            "probabilities are compared with."
        ),
    )
    batch_sizes: Annotated[
        list[Annotated[Count, Field(le=65_536)]],
        BeforeValidator(brackets),
        AfterValidator(lambda values: sorted(set(values))),
        Field(max_length=16),
    ] = Field(
        [1, 64], description="Numbers of sequences that are scored at once: all sequences are scored with each number."
    )


class DriftSpec(ModeSpec):
    """Scored tokens and batch sizes."""

    prompts: int = Field(ge=2, description="Scored sequences.")
    tokens: int = Field(ge=1, description="Maximum number of tokens sampled after each prompt.")
    batch_sizes: tuple[int, ...] = Field(min_length=1, description="Sequences that are scored at once.")
    reference: str | None = absent(
        "Folder of the experiment whose first launch sampled the tokens; it ends in the key of its spec. "
        "Null in the reference itself."
    )

    def follows(self, experiment: str) -> str:
        """Return the experiment whose first launch samples the tokens."""
        return self.reference or experiment


SECTION, OWN = DriftSettings, DriftSpec
"""Section of the config, and the part of the spec."""
