"""One start of an engine: what is set for it, and its phases from the launch's beginning to a first token."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.contracts.fields import Strict, absent, brackets, no_duplicates

CacheState = Literal["cold", "warm"]
"""cold: vLLM, Inductor and Triton find an empty folder; warm: one that an earlier start of the engine has filled."""


StartFormat = Literal["auto", "dummy", "runai_streamer", "fastsafetensors", "tensorizer"]
"""How vLLM loads weights, by its own names; dummy makes them up and reads none."""


Launcher = Literal["none", "warm"]
"""none: the start begins with a new process; warm: a process has imported the engine, and waits for the word."""


class StartupSettings(Strict):
    """What an engine finds when it starts. Each combination of values is an experiment of its own."""

    caches: Annotated[list[CacheState], BeforeValidator(brackets), AfterValidator(no_duplicates)] = Field(
        ["cold", "warm"],
        description=(
            "Compile caches: cold (an empty folder of the launch's own) and warm (filled by a start of the same engine,"
            " which the first launch that finds none makes beforehand). Several are settings that are compared: "
            "caches-cold, caches-warm."
        ),
    )
    load_formats: Annotated[list[StartFormat], BeforeValidator(brackets), AfterValidator(no_duplicates)] = Field(
        ["auto"],
        description=(
            "How weights are loaded: auto, dummy (made up, none are read), runai_streamer, fastsafetensors. Several are"
            " settings that are compared: load-formats-dummy. runai_streamer and fastsafetensors need a package "
            "(requirements/loading.in); tensorizer is refused, docs/vllm-developers.md says why."
        ),
    )

    launchers: Annotated[list[Launcher], BeforeValidator(brackets), AfterValidator(no_duplicates)] = Field(
        ["none"],
        description=(
            "none: a start begins with a new process; warm: with the word to a process that has imported the engine "
            "and waits, as llm-d's launcher of fast actuation does. Several are settings that are compared: "
            "launchers-warm."
        ),
    )


class StartupSpec(Strict):
    """What an engine finds when it starts."""

    caches: CacheState = Field(description="Its compile caches.")
    load_formats: StartFormat = Field(description="How weights are loaded.")
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
"""The phases of a start, in the order in which tables have them."""


class StartPhase(Strict):
    """One phase of a start."""

    name: PhaseName = Field(description="What the time went to.")
    began_s: float = Field(ge=0, description="When it began, in seconds after the launch's beginning.")
    ended_s: float = Field(ge=0, description="When it was over. Others may lie in between.")
    elapsed_s: float = Field(ge=0, description="Its own time, without that of phases inside it, in seconds.")


class StartCourse(Strict):
    """A start from its beginning until the first token was back. All phases and the rest are the whole.

    It begins with the launch, or with the word to a warm launcher.
    """

    phases: list[StartPhase] = Field(description="Those that there were, in the order of their beginnings.")
    rest_s: float = Field(ge=0, description="What no phase explains, in seconds.")
    until_token_s: float = Field(gt=0, description="The whole, in seconds.")
    after_s: float | None = absent(
        "Seconds from the launch's beginning to the start's. Null where they are the same, and in earlier records.",
        ge=0,
    )
    weights_bytes: int | None = absent("Size of the weight files. Null where none are read, or where they are unknown.")
    cache_files: int | None = absent("Files in the compile caches when the engine's process started.", ge=0)

    def phase(self, name: PhaseName) -> StartPhase | None:
        """Return the phase `name`; None where there was none."""
        return next((phase for phase in self.phases if phase.name == name), None)

    def own_s(self, name: PhaseName) -> float | None:
        """Return the seconds of the phase `name`; None where there was none."""
        found = self.phase(name)
        return None if found is None else found.elapsed_s
