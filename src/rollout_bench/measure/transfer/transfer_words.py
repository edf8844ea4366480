"""What engine and trainer tell each other: JSON lines, orders on the trainer's stdin and its words over a pipe."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from rollout_bench.contracts.cycles import Weights
from rollout_bench.contracts.fields import Strict


class TrainerJob(Strict):
    """What a trainer has and how it sends it; the first line of its stdin, and it does nothing before."""

    method: Literal["ipc", "nccl"] = Field(description="How it sends weights.")
    shape: dict[str, Any] = Field(description="Of the synthetic model.")
    weights_format: str = Field(description="What the engine loads.")
    second: bool = Field(description="Whether there is a second set of weights.")
    devices: list[str] = Field(min_length=1, description="As torch calls them; each has a set of its own.")
    bucket_bytes: int = Field(ge=1, description="Bytes that are sent at once.")


class Stage(Strict):
    """Bring these weights to the devices."""

    order: Literal["stage"] = "stage"
    weights: Weights


class Meet(Strict):
    """Meet the engine's ranks in a group of NCCL's, of which the trainer is the first."""

    order: Literal["meet"] = "meet"
    address: str
    port: int
    members: int


class Send(Strict):
    """Send what lies on the devices."""

    order: Literal["send"] = "send"


class Next(Strict):
    """The engine has read the bucket."""

    order: Literal["next"] = "next"


Order = Stage | Meet | Send | Next


class Made(Strict):
    """Its weights are there, on the host."""

    event: Literal["made"] = "made"


class Staged(Strict):
    """The weights that were asked for lie on the devices."""

    event: Literal["staged"] = "staged"


class Met(Strict):
    """The group of NCCL's is there."""

    event: Literal["met"] = "met"


class Bucket(Strict):
    """Tensors lie one after the other in a buffer of each device, and stay there until the order `next`."""

    event: Literal["bucket"] = "bucket"
    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]
    tensor_sizes: list[int] = Field(description="Their bytes.")
    handles: str | None = Field(
        description="The buffers' handles by the devices' UUIDs, pickled, in base64. Null on cpu, which has none."
    )


class Sent(Strict):
    """All is sent. Times are in seconds."""

    event: Literal["sent"] = "sent"
    transfer_s: float | None = Field(description="Filling buckets. Null where sending and loading overlap.")
    quantize_s: float | None = Field(description="Quantizing. Null where it does not.")
    size_bytes: int = Field(description="Bytes of its bf16 tensors.")
    buckets: int = Field(description="In how many buckets.")


class TrainerFailed(Strict):
    """The trainer gave up."""

    event: Literal["failed"] = "failed"
    exception: str = Field(description="Type and text of the exception, or the cause itself where it is known.")
    category: str = Field("", description="Kind of failure, where it is known.")
    fix: str = Field("", description="What to do about it, where it is known.")


TrainerWord = Made | Staged | Met | Bucket | Sent | TrainerFailed

_ORDER: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="order")])
_WORD: TypeAdapter[TrainerWord] = TypeAdapter(Annotated[TrainerWord, Field(discriminator="event")])


def tell_engine(descriptor: int, word: TrainerWord) -> None:
    """Write `word` as one line to the pipe."""
    content = (word.model_dump_json() + "\n").encode()
    while content:
        content = content[os.write(descriptor, content) :]


def trainer_word(line: bytes) -> TrainerWord:
    """Return the word in `line`; raise `ValueError` where there is none."""
    return _WORD.validate_python(json.loads(line))


def order_of(line: bytes) -> Order:
    """Return the order in `line`; raise `ValueError` where there is none."""
    return _ORDER.validate_python(json.loads(line))
