"""Settings of steps: how long an engine is calibrated."""

from typing import Annotated

from pydantic import Field

from rollout_bench.contracts.fields import Count, Seconds
from rollout_bench.contracts.mode_parts import ModeSpec


class StepsSettings(ModeSpec):
    """Calibration of an engine."""

    seconds: Annotated[Seconds, Field(gt=0, le=3600)] = Field(
        90.0,
        description=(
            "Time to measure in: rounds of all passes are repeated until it is over, and the one that has begun ends. "
            "A first round always runs."
        ),
    )
    context_tokens: Annotated[Count, Field(ge=64)] | None = Field(
        None,
        description=("Length of the longest sequences, with prompt: predictions reach as far. Null: max_model_len."),
    )


SECTION, OWN = StepsSettings, StepsSettings
"""Section of the config, and the part of the spec."""
