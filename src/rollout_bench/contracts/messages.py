"""The record of a messages launch: what front end, engine core and workers sent one another, step by step.

The record has the steps; the side file beside it has a row for each message.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from rollout_bench.contracts.fields import Strict, absent
from rollout_bench.contracts.inside import Phase
from rollout_bench.contracts.record import DeviceUse, HostUse, Launched

Link = Literal["front_end_to_core", "core_to_workers", "workers_to_core", "core_to_front_end"]
"""Who sends to whom. Workers are reached through shared memory, the front end through a socket."""

Look = Literal["times", "contents"]
"""What a pass is looked at for: when each message was where, or what is in it, which takes time of its own."""

MessageFormat = Literal["pickle5", "msgpack"]
"""How a message may be encoded: Python's pickle, protocol 5, or vLLM's msgpack."""

MessagePart = Literal[
    "prompt_token_ids",
    "sampling_parameters",
    "block_ids",
    "new_requests",
    "cached_requests",
    "token_ids",
    "requests",
    "statistics",
    "rest",
]
"""What bytes of a message are for.

new_requests, cached_requests and, of what was generated, requests are what the fields before them leave of them.
"""


class MessageRead(Strict):
    """A message at one of those that read it."""

    rank: int | None = Field(description="The worker that read it. Null where core or front end did.")
    transport_s: float = Field(
        ge=0, description="From encoded until the reader had its bytes, in seconds; waited_s included."
    )
    waited_s: float = Field(
        ge=0,
        description=(
            "Of these, the seconds until the reader was ready: until it asked for a message, or on a socket, which a "
            "thread of its own reads, until it had decoded the message before."
        ),
    )
    decode_s: float = Field(ge=0, description="From its bytes until the reader had the object, in seconds.")


class FormatSize(Strict):
    """A message in a format that it may have been sent in, or not."""

    size_bytes: int = Field(ge=0, description="Bytes, those out of band included.")
    make_s: float = Field(ge=0, description="Encoding, in seconds: the best of three.")
    read_s: float = Field(ge=0, description="Decoding, in seconds: the best of three.")
    typed: bool = Field(description="Whether decoding gives vLLM's own classes, not only lists and mappings.")


class MessageDifference(Strict):
    """What would be sent to a reader that remembers the message before: zlib's level 1, with that as its dictionary.

    A dictionary is the last 32 KiB of the message before. What the message repeats of itself is compressed too.
    """

    size_bytes: int = Field(gt=0, description="Bytes.")
    make_s: float = Field(ge=0, description="Making it from both messages, in seconds: the best of three.")
    apply_s: float = Field(ge=0, description="Making the message from it, in seconds: the best of three.")


class MessageContent(Strict):
    """What is in a message. "The message before" is that of the same link, writer and method."""

    inline_bytes: int = Field(ge=0, description="Bytes of its main part.")
    out_of_band_bytes: int = Field(ge=0, description="Bytes of the buffers that are sent beside it.")
    buffers: int = Field(ge=0, description="How many such buffers.")
    through: Literal["ring", "socket"] = Field(description="ring: shared memory; socket: ZMQ.")
    distance: int | None = Field(description="Distance to the message before, in bytes. Null for the first.")
    distance_by: Literal["levenshtein", "runs"] | None = Field(
        description=(
            "levenshtein: the least insertions, deletions and substitutions of a byte; runs: bytes in no run of 8 or "
            "more that the message before has too, for long messages and where rapidfuzz is missing."
        )
    )
    repeated_bytes: int | None = Field(description="Bytes in runs of 8 or more that the message before has too.")
    fields: dict[MessagePart, int] = Field(
        description=(
            "Bytes by what they are for, summing up to all of the message encoded once more: by how much it becomes "
            "shorter when its fields are emptied one after the other, in this order."
        )
    )
    formats: dict[MessageFormat, FormatSize] = Field(description="In each format that can hold it.")
    difference: MessageDifference | None = Field(
        description="What differs from the message before. Null for the first."
    )


class MessageRow(Strict):
    """One message: a line of the side file."""

    look: Look = Field(description="What its pass was looked at for.")
    batch: int = Field(gt=0, description="Sequences of the pass.")
    link: Link = Field(description="Who sent it to whom.")
    rank: int | None = Field(description="The worker that wrote it. Null where core or front end did.")
    method: str = Field(description="execute_model, sample_tokens, ... and what answers it; add; outputs.")
    step: int = Field(
        ge=0,
        description=(
            "Index of its step: of a request the one that first computes it, of an output the one that it is of."
        ),
    )
    began_s: float = Field(description="When encoding began, in seconds after the pass did.")
    encode_s: float | None = absent("From the object to its bytes, in seconds. Null in passes for contents.", ge=0)
    reads: list[MessageRead] | None = absent("At each reader, by rank. Null in passes for contents.")
    content: MessageContent | None = absent("What is in it. Null in passes for times.")

    def busy_s(self, ranks: Collection[int] = ()) -> float:
        """Return what it cost, in seconds; the time that a reader was busy itself is left out.

        Args:
            ranks: the workers that the step waits for; of several readers the one that took longest, of these where one
                of these read it.
        """
        reads = self.reads or []
        costs = [read.transport_s - read.waited_s + read.decode_s for read in reads if read.rank in ranks]
        costs = costs or [read.transport_s - read.waited_s + read.decode_s for read in reads]
        return (self.encode_s or 0.0) + max(costs, default=0.0)


class MessageStep(Strict):
    """One step of the engine core."""

    look: Look = Field(description="What its pass was looked at for.")
    batch: int = Field(gt=0, description="Sequences of the pass.")
    index: int = Field(ge=0, description="Its number in the pass, from 0.")
    phase: Phase = Field(description="What it computed.")
    tokens: int = Field(ge=0, description="Tokens scheduled.")
    sequences: int = Field(ge=0, description="Sequences scheduled.")
    new_requests: int = Field(ge=0, description="Of these, sequences that workers had not heard of.")
    new_prompt_tokens: int = Field(ge=0, description="Tokens of their prompts.")
    began_s: float = Field(ge=0, description="When the scheduler began, in seconds after the pass did.")
    latency_s: float = Field(
        gt=0, description="From there until the scheduler had taken in what was generated, in seconds."
    )
    elapsed_s: float = Field(
        gt=0,
        description=(
            "The same from where the step before ended, where that is later, in seconds: steps may overlap, and these "
            "don't."
        ),
    )


class ProbeCost(Strict):
    """What a probe adds to a call, in seconds: the median over rounds of many calls with it and without it."""

    put_s: float = Field(description="To a message that is put into a queue.")
    got_s: float = Field(description="To a message that is got out of a queue.")
    encode_s: float = Field(description="To a message that is encoded for a socket.")
    decode_s: float = Field(description="To a message that is decoded from one.")
    step_s: float = Field(description="To a step, by noting when it began and ended.")


class ProbeUse(Strict):
    """What the probes of a pass for times took of it."""

    batch: int = Field(gt=0, description="Sequences of the pass.")
    cost_s: float = Field(ge=0, description="Calls times their cost, in all processes together, in seconds.")
    share: float = Field(ge=0, description="The same over the time of all steps.")


class Messages(Launched):
    """What one messages launch saw."""

    async_scheduling: bool = Field(description="Whether a step is scheduled before the one before it ended.")
    ring_bytes: int = Field(gt=0, description="A message to workers that is larger goes through a socket.")
    pickled_bytes: dict[str, int] = Field(
        description="What objects of vLLM's take when pickled by themselves: SamplingParams, and empty messages."
    )
    steps: list[MessageStep] = Field(min_length=1, description="Of every pass, in order.")
    probe: ProbeCost = Field(description="What looking at a message costs.")
    probes: list[ProbeUse] = Field(min_length=1, description="What looking took of each pass for times.")
    host: list[HostUse] = Field([], description="What else the machine did during each pass for times.")
    devices: list[DeviceUse] = Field([], description="What each device said of itself about each such pass.")
    messages_file: str = Field(description="Name of the side file beside this one: one row for each message.")
    messages: int = Field(gt=0, description="Rows in it.")
    side_files_sha256: dict[str, str] = Field(description="SHA-256 of the side file by its name.")

    @property
    def timed_s(self) -> dict[str, float]:
        """Start-up and every step."""
        return super().timed_s | {f"steps.{number}.elapsed_s": step.elapsed_s for number, step in enumerate(self.steps)}
