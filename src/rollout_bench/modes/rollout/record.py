"""The work of a router in a rollout step."""

from pydantic import Field

from rollout_bench.contracts.mode_parts import ModePart


class RouterUse(ModePart):
    """Cost of distributing a step's sequences to its engines."""

    decisions: int = Field(ge=0, description="Number of distributed sequences.")
    decide_s: float = Field(ge=0, description="Total time of choosing their engines, in seconds.")
    handing_out_s: float = Field(
        ge=0, description="From the step's beginning until the last sequence was distributed, in seconds."
    )


ITERATION = {"router": (RouterUse, "Cost of distributing the sequences. Null without a router.")}
"""Fields of an iteration that only this mode has."""
