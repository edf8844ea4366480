"""The work of a router in a rollout step, and of its engines for turns and for sequences that it did not need."""

from pydantic import Field

from rollout_bench.contracts.fields import absent
from rollout_bench.contracts.mode_parts import ModePart


class RouterUse(ModePart):
    """Cost of distributing a step's sequences to its engines."""

    decisions: int = Field(ge=0, description="Number of distributed sequences.")
    decide_s: float = Field(ge=0, description="Total time of choosing their engines, in seconds.")
    handing_out_s: float = Field(
        ge=0, description="From the step's beginning until the last sequence was distributed, in seconds."
    )


class TurnsUse(ModePart):
    """Turns of a replica's sequences in an iteration, and what their tools cost its engine."""

    answers: int = Field(ge=0, description="Answers of all its sequences: requests that its engine got.")
    answer_s: float = Field(ge=0, description="Sum of the answers' times, each from its request, in seconds.")
    tool_s: float = Field(ge=0, description="Sum of the times that sequences waited for tools, in seconds.")
    all_in_tools_s: float = Field(
        ge=0,
        description=(
            "Time during which its engine had nothing to do because all sequences that it still had waited for tools, "
            "in seconds."
        ),
    )
    context_tokens: int = Field(
        ge=0, description="Prompt tokens of further turns that its engine had computed in an earlier turn."
    )
    recomputed_tokens: int = Field(
        ge=0,
        description="Those of them that were not in its prefix cache; at least the incomplete last block of each turn.",
    )


class Surplus(ModePart):
    """Sequences that an engine generated, in part or whole, for a step that did not need them."""

    sequences: int = Field(ge=0, description="Sequences that are thrown away; none if they go on in the next step.")
    aborted: int = Field(ge=0, description="Sequences that were unfinished when the step had enough.")
    output_tokens: int = Field(ge=0, description="Generated tokens that are thrown away.")
    drain_s: float = Field(
        ge=0, description="From when the step had enough until the engine's last sequence had ended, in seconds."
    )
    again_tokens: int | None = absent(
        "Tokens of prompts and answers so far that were computed again, because sequences of earlier steps went on. "
        "Null if none can go on.",
        ge=0,
    )


ITERATION = {"router": (RouterUse, "Cost of distributing the sequences. Null without a router.")}
"""Fields of an iteration that only this mode has."""

REPLICA = {
    "turns": (TurnsUse, "Turns of its sequences. Null if the workload has none."),
    "surplus": (Surplus, "Its sequences that the step did not need. Null without over-sampling."),
}
"""Fields of an engine's part of an iteration that only this mode has."""
