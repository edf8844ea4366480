"""Settings of starts: caches, formats of weights, launchers."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.contracts.fields import Strict, absent, brackets, no_duplicates
from rollout_bench.contracts.mode import ModeSpec

CacheState = Literal["cold", "warm"]
"""cold: vLLM, Inductor and Triton find an empty folder; warm: a folder filled by an earlier start of the engine."""


StartFormat = Literal["auto", "dummy", "runai_streamer", "fastsafetensors", "tensorizer"]
"""Method of loading weights, by vLLM's names; dummy generates weights and reads none."""


Launcher = Literal["none", "warm"]
"""none: the start begins with a new process; warm: a process has imported the engine and awaits the command."""


class StartupSettings(Strict):
    """Conditions of an engine's start. Each combination of values is a separate experiment."""

    caches: Annotated[list[CacheState], BeforeValidator(brackets), AfterValidator(no_duplicates)] = Field(
        ["cold", "warm"],
        description=(
            "Compile caches: cold (an empty folder for each launch) and warm (filled by a start of the same "
            "engine, which the first launch makes beforehand if needed). Several values are compared as "
            "settings: caches-cold, caches-warm."
        ),
    )
    load_formats: Annotated[list[StartFormat], BeforeValidator(brackets), AfterValidator(no_duplicates)] = Field(
        ["auto"],
        description=(
            "Methods of loading weights: auto, dummy (made up, none are read), runai_streamer, fastsafetensors. "
            "Several values are compared as settings: load-formats-dummy. runai_streamer and fastsafetensors "
            "need a package (requirements/loading.in); tensorizer is refused, docs/vllm-developers.md explains "
            "why."
        ),
    )

    launchers: Annotated[list[Launcher], BeforeValidator(brackets), AfterValidator(no_duplicates)] = Field(
        ["none"],
        description=(
            "none: a start begins with a new process; warm: a process that has imported the engine waits for the"
            " start command, as llm-d's launcher of fast actuation does. Several values are compared as "
            "settings: launchers-warm."
        ),
    )


class StartupSpec(ModeSpec):
    """Conditions of an engine's start."""

    caches: CacheState = Field(description="State of the compile caches.")
    load_formats: StartFormat = Field(description="Method of loading weights.")
    launchers: Literal["warm"] | None = absent("warm: a process has imported the engine before the start begins.")

    @property
    def load_format(self) -> str:
        """Method of loading weights."""
        return self.load_formats


SECTION, OWN = StartupSettings, StartupSpec
"""Section of the config, and the part of the spec."""
