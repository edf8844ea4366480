"""Settings of starts: caches, formats of weights, launchers."""

from typing import Literal

from pydantic import Field

from rollout_bench.contracts.fields import Strict, absent
from rollout_bench.contracts.mode_parts import ModeSpec

CacheState = Literal["cold", "warm"]
"""cold: vLLM, Inductor and Triton find an empty folder; warm: a folder filled by an earlier start of the engine."""


StartFormat = Literal["auto", "dummy", "safetensors", "runai_streamer", "fastsafetensors", "tensorizer"]
"""Method of loading weights, by vLLM's names; dummy generates weights and reads none."""


class StartupSettings(Strict):
    """Conditions of an engine's start. sweep: {startup.caches: [cold, warm]} compares them."""

    caches: CacheState = Field(
        "cold",
        description=(
            "Compile caches: cold (an empty folder for each launch) or warm (filled by a start of the same "
            "engine, which the first launch makes beforehand if needed)."
        ),
    )
    load_format: StartFormat = Field(
        "auto",
        description=(
            "Method of loading weights: auto, dummy (made up, none are read), safetensors, runai_streamer, "
            "fastsafetensors. The last two need a package (requirements/loading.in); tensorizer is refused, "
            "docs/vllm-developers.md explains why."
        ),
    )
    launcher: Literal["none", "warm"] = Field(
        "none",
        description=(
            "none: a start begins with a new process; warm: a process that has imported the engine waits for the"
            " start command, as llm-d's launcher of fast actuation does."
        ),
    )


class StartupSpec(ModeSpec):
    """Conditions of an engine's start."""

    caches: CacheState = Field(description="State of the compile caches.")
    load_format: StartFormat = Field(description="Method of loading weights.")
    launcher: Literal["warm"] | None = absent("warm: a process has imported the engine before the start begins.")


SECTION, OWN = StartupSettings, StartupSpec
"""Section of the config, and the part of the spec."""
