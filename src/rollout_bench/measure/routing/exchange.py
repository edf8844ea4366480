"""What router and replicas say to each other, in JSON lines over a pair of sockets.

router   -- generate, over -->  replica
router   <-- ended -----------  replica

A replica tells what it measured as every engine process does, on its pipe; here only sequences travel. All moments are
on the monotonic clock, which is one for all processes of a machine.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from rollout_bench.contracts.fields import Strict


class Generate(Strict):
    """A sequence that the replica is to generate."""

    says: Literal["generate"] = "generate"
    id: int = Field(description="Its number in the step.")
    prompt: int = Field(description="Index of its prompt in the step.")
    sample: int = Field(description="Index of the sample of that prompt.")
    prompt_token_ids: list[int]
    output_tokens: int = Field(description="Tokens to generate, at most where the end of text is not ignored.")
    sent: float = Field(description="When it was handed out.")


class Over(Strict):
    """All sequences of the step have ended."""

    says: Literal["over"] = "over"
    began: float = Field(description="When the step began.")


class Ended(Strict):
    """A sequence has ended; what came of it, as a trainer needs it."""

    says: Literal["ended"] = "ended"
    id: int
    token_ids: list[int]
    logprobs: list[float | None] | None = Field(
        description="Of each token that was sampled, null for one that is no number. Null where none were returned."
    )
    finish_reason: str | None


Word = Generate | Over | Ended
_WORD: TypeAdapter[Word] = TypeAdapter(Annotated[Word, Field(discriminator="says")])


def written(word: Word) -> bytes:
    """Return `word` as a line."""
    return word.model_dump_json().encode() + b"\n"


def heard(line: bytes) -> Word:
    """Return the word in `line`; raise `ValueError` where there is none."""
    return _WORD.validate_json(line)
