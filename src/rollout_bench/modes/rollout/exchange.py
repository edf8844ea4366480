"""Messages between router and replicas, in JSON lines over a pair of sockets.

router   -- generate, enough, over -->  replica
router   <-- ended -------------------  replica

Only sequences travel here. Replicas report measurements through their pipe, like all engine processes. All times are on
the monotonic clock, which all processes of a machine share.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from rollout_bench.contracts.fields import Strict
from rollout_bench.workloads.requests import Turn


class Generate(Strict):
    """A sequence for the replica to generate."""

    says: Literal["generate"] = "generate"
    id: int = Field(description="Number of the sequence in the step.")
    prompt: int = Field(description="Index of its prompt in the step.")
    sample: int = Field(description="Index of the sample within its prompt.")
    prompt_token_ids: list[int]
    output_tokens: int = Field(
        description="Number of tokens to generate, or the maximum if the end of text is not ignored."
    )
    further: tuple[Turn, ...] = Field((), description="Its turns after the first answer.")
    made: int = Field(0, description="Number of the last tokens of its prompt that an earlier step generated.")
    sent: float = Field(description="Time at which the router sent it.")


class AbortRest(Strict):
    """The step has all that it needs: the replica aborts what it still generates, and has it back at once."""

    says: Literal["enough"] = "enough"


class StepEnded(Strict):
    """All sequences of the step have ended."""

    says: Literal["over"] = "over"
    began: float = Field(description="Start time of the step.")
    enough: float | None = Field(None, description="Time at which it had all that it needed. Null: all was needed.")
    dropped: list[int] = Field([], description="The replica's sequences that the step did not need.")


class Ended(Strict):
    """A sequence has ended, with the results that a trainer needs: of several turns, those of all answers together."""

    says: Literal["ended"] = "ended"
    id: int
    token_ids: list[int]
    logprobs: list[float | None] | None = Field(
        description="Log probability of each sampled token, null if it is not finite. Null if none were requested."
    )
    finish_reason: str | None


Message = Generate | AbortRest | StepEnded | Ended
_WORD: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="says")])


def written(word: Message) -> bytes:
    """Return `word` as a line."""
    return word.model_dump_json().encode() + b"\n"


def message_of(line: bytes) -> Message:
    """Return the message in `line`.

    Raises:
        ValueError: if `line` is not a message.
    """
    return _WORD.validate_json(line)
