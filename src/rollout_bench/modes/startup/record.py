"""One start of an engine: its phases from the launch's beginning to the first token."""

from typing import Any, Literal

from pydantic import Field

from rollout_bench.contracts.fields import Strict, absent

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

    def phase_s(self, name: PhaseName) -> float | None:
        """Return the seconds of the phase `name`; None if it did not occur."""
        phase = self.phase(name)
        return None if phase is None else phase.elapsed_s


STARTUP = {"course": (StartCourse, "Phases of the start. Null except in mode startup.")}
"""Fields of the start that only this mode has."""


def start_phases(record: Any) -> StartCourse | None:
    """Return the phases of the start of a launch; None if its record has none."""
    course: StartCourse | None = getattr(record.startup, "course", None)
    return course
