"""Settings of cycles: sleep levels, and methods of the weight sync."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rollout_bench.contracts.fields import Count, Strict, brackets, no_duplicates
from rollout_bench.contracts.mode import ModeSpec
from rollout_bench.contracts.weights import SleepLevel, level

UpdateMethod = Literal["reload", "in_process"]
"""Method of the weight sync.

reload: vLLM reads a checkpoint in the engine's format from disk. in_process: the trainer's bf16 tensors are handed over
in the engine's process, bucket by bucket, and quantized there if the engine's format needs it.
"""


def _listed(value: Any) -> Any:
    return [level(each) for each in value] if isinstance(value, list) else value


class CycleSettings(Strict):
    """Actions between two generations of a training step: the engine alternately receives other weights and its own."""

    repeats: Annotated[Count, Field(ge=3, le=1000)] = Field(
        10, description="Measured cycles in each launch: each generates and goes through one transition."
    )
    sleep: (
        Annotated[
            list[SleepLevel],
            BeforeValidator(_listed),
            BeforeValidator(brackets),
            AfterValidator(no_duplicates),
        ]
        | None
    ) = Field(
        None,
        description=(
            "Sleep level of the engine while the trainer uses the device: none (it pauses, and keeps its "
            "memory), 1 (weights move to the host), 2 (weights are freed). Several levels are compared as "
            "settings: sleep-1, sleep-2. Null: as in verl, 2 on cuda and 1 on ascend; none on cpu, where vLLM "
            "refuses sleep."
        ),
    )
    update: Annotated[list[UpdateMethod], BeforeValidator(brackets), AfterValidator(no_duplicates)] = Field(
        ["in_process"],
        description=(
            "Method of the weight sync: in_process (the trainer's bf16 tensors, in buckets), reload (vLLM reads "
            "a checkpoint in its own format). Several methods are compared as settings: update-reload."
        ),
    )


class CycleSpec(ModeSpec):
    """Actions between two generations. `measuring.iterations` is their number."""

    sleep: SleepLevel = Field(description="Sleep level of the engine.")
    update: UpdateMethod = Field(description="Method of the weight sync.")


SECTION, OWN = CycleSettings, CycleSpec
"""Section of the config, and the part of the spec."""
