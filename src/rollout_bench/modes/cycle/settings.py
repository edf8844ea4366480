"""Settings of cycles: sleep levels, and methods of the weight sync."""

from typing import Annotated, Literal

from pydantic import Field

from rollout_bench.contracts.fields import Count, Strict, absent
from rollout_bench.contracts.mode_parts import ModeSpec
from rollout_bench.contracts.weights import SleepLevel

UpdateMethod = Literal["reload", "in_process", "ipc"]
"""Method of the weight sync.

reload: vLLM reads a checkpoint in the engine's format from disk. in_process: the trainer's bf16 tensors are handed over
in the engine's process, bucket by bucket, and quantized there if the engine's format needs it. ipc: likewise, by vLLM's
own weight transfer, from a process beside the engine's on the same device.
"""


InFlight = Literal["keep", "recompute"]
"""What becomes of the KV cache of requests that are under way at a weight sync, as vLLM's pause_generation has it.

keep: they go on with it, so old weights made a part of it. recompute: it is dropped, and each is prefilled anew.
"""


class CycleSettings(Strict):
    """Actions between two generations of a training step: the engine alternately receives other weights and its own."""

    repeats: Annotated[Count, Field(ge=3, le=1000)] = Field(
        10, description="Measured cycles in each launch: each generates and goes through one transition."
    )
    sleep: SleepLevel | None = Field(
        None,
        description=(
            "Sleep level of the engine while the trainer uses the device: none (it pauses, and keeps its "
            "memory), 1 (weights move to the host), 2 (weights are freed). Null: as in verl, 2 on cuda and 1 on "
            "ascend; none on cpu, where vLLM refuses sleep."
        ),
    )
    update: UpdateMethod = Field(
        "in_process",
        description=(
            "Method of the weight sync: in_process (the trainer's bf16 tensors, in buckets), reload (vLLM reads "
            "a checkpoint in its own format), ipc (vLLM's own weight transfer, from another process on the same GPU)."
        ),
    )
    in_flight: InFlight | None = Field(
        None,
        description=(
            "Weight sync after half of the output tokens, with requests under way (in-flight update), as asynchronous "
            "trainers do: keep (they go on with their KV cache), recompute (it is dropped, and each is prefilled "
            "anew). Needs sleep: none. Null: after the last token."
        ),
    )


class CycleSpec(ModeSpec):
    """Actions between two generations. `measuring.iterations` is their number."""

    sleep: SleepLevel = Field(description="Sleep level of the engine.")
    update: UpdateMethod = Field(description="Method of the weight sync.")
    in_flight: InFlight | None = absent("KV cache of requests under way at the weight sync. Null: there are none.")


SECTION, OWN = CycleSettings, CycleSpec
"""Section of the config, and the part of the spec."""
