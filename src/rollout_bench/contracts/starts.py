"""One start of an engine: its settings, and its phases from the launch's beginning to the first token."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.contracts.fields import Strict, absent, brackets, no_duplicates

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


class StartupSpec(Strict):
    """Conditions of an engine's start."""

    caches: CacheState = Field(description="State of the compile caches.")
    load_formats: StartFormat = Field(description="Method of loading weights.")
    launchers: Literal["warm"] | None = absent("warm: a process has imported the engine before the start begins.")


PhaseName = Literal[
    "process",
    "import",
    "platform",
    "config",
    "worker_start",
    "model_build",
    "weights",
    "dynamo",
    "inductor",
    "cached_graphs",
    "memory_profiling",
    "kv_cache",
    "graph_capture",
    "engine_ready",
    "first_token",
]
"""The phases of a start, in the order of tables."""


class StartPhase(Strict):
    """One phase of a start."""

    name: PhaseName = Field(description="Name of the phase.")
    began_s: float = Field(ge=0, description="Beginning, in seconds after the launch's beginning.")
    ended_s: float = Field(ge=0, description="End. Other phases may lie in between.")
    elapsed_s: float = Field(ge=0, description="The phase's own time, without nested phases, in seconds.")


class StartCourse(Strict):
    """A start from its beginning until the first token was back. All phases and the rest add up to the whole.

    It begins with the launch, or with the start command to a warm launcher.
    """

    phases: list[StartPhase] = Field(description="Phases that occurred, in the order of their beginnings.")
    rest_s: float = Field(ge=0, description="Time outside all phases, in seconds.")
    until_token_s: float = Field(gt=0, description="The whole start, in seconds.")
    after_s: float | None = absent(
        ("Seconds from the launch's beginning to the start's. Null if they are the same, and in earlier records."),
        ge=0,
    )
    weights_bytes: int | None = absent("Size of the weight files. Null if none are read, or if unknown.")
    cache_files: int | None = absent("Files in the compile caches when the engine's process started.", ge=0)

    def phase(self, name: PhaseName) -> StartPhase | None:
        """Return the phase `name`; None if it did not occur."""
        return next((phase for phase in self.phases if phase.name == name), None)

    def own_s(self, name: PhaseName) -> float | None:
        """Return the seconds of the phase `name`; None if it did not occur."""
        found = self.phase(name)
        return None if found is None else found.elapsed_s
