"""Settings of messages: batch sizes and steps."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.contracts.fields import Count, brackets
from rollout_bench.contracts.mode_parts import ModeSpec


class MessagesSettings(ModeSpec):
    """Passes of a messages launch."""

    steps: Annotated[Count, Field(ge=2, le=10_000)] = Field(
        64,
        description=(
            "Output tokens of each sequence, and so the decode steps of a pass; fewer if the workload's "
            "output_tokens are fewer."
        ),
    )
    batches: Annotated[
        list[Annotated[Count, Field(le=16_384)]],
        BeforeValidator(brackets),
        AfterValidator(lambda values: sorted(set(values))),
        Field(max_length=16),
    ] = Field([4, 32, 256], description="Batch sizes: each has a pass for times and a pass for contents.")


SECTION, OWN = MessagesSettings, MessagesSettings
"""Section of the config, and the part of the spec."""
