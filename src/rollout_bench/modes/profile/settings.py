"""Settings of profiles: which steps are traced."""

from typing import Annotated, Literal

from pydantic import Field

from rollout_bench.contracts.fields import Count
from rollout_bench.contracts.mode_parts import ModeSpec


class ProfileSettings(ModeSpec):
    """Steps that a profile launch traces."""

    steps: Annotated[Count, Field(le=1000)] = Field(
        8,
        description=(
            "Traced steps of the engine in each phase, for prompts and for decoding: more steps give the same "
            "result in a larger trace."
        ),
    )
    through: Literal["engine", "server"] = Field(
        "engine",
        description=(
            "engine: through LLM, step by step; server: through vLLM's server, /start_profile and /stop_profile."
        ),
    )


SECTION, OWN = ProfileSettings, ProfileSettings
"""Section of the config, and the part of the spec."""
