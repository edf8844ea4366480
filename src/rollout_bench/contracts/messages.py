"""The record of a messages launch: messages between front end, engine core and workers, step by step.

The record has the steps; its side file has a row for each message.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from rollout_bench.contracts.fields import Strict, absent
from rollout_bench.contracts.inside import Phase
from rollout_bench.contracts.record import DeviceUse, HostUse, Launched

Link = Literal["front_end_to_core", "core_to_workers", "workers_to_core", "core_to_front_end"]
"""Sender and receiver. Workers are reached through shared memory, the front end through a socket."""

Look = Literal["times", "contents"]
"""Purpose of a pass: times of messages, or their contents, whose reading takes additional time."""

MessageFormat = Literal["pickle5", "msgpack"]
"""Encoding of a message: Python's pickle, protocol 5, or vLLM's msgpack."""

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
"""Parts of a message.

new_requests, cached_requests and, for outputs, requests are the remaining bytes after the parts before them.
"""


class MessageRead(Strict):
    """A message at one of its readers."""

    rank: int | None = Field(description="The worker that read it. Null for core or front end.")
    transport_s: float = Field(
        ge=0, description="From the end of encoding until the reader had its bytes, in seconds; includes waited_s."
    )
    waited_s: float = Field(
        ge=0,
        description=(
            "Part of transport_s until the reader was ready: until it asked for a message. A socket is read by a"
            " separate thread, which is ready after decoding the previous message."
        ),
    )
    decode_s: float = Field(ge=0, description="From its bytes until the reader had the object, in seconds.")


class FormatSize(Strict):
    """A message in one format, whether or not it was sent in it."""

    size_bytes: int = Field(ge=0, description="Bytes, including out-of-band buffers.")
    make_s: float = Field(ge=0, description="Encoding, in seconds: the best of three.")
    read_s: float = Field(ge=0, description="Decoding, in seconds: the best of three.")
    typed: bool = Field(description="Whether decoding restores vLLM's own classes, not only lists and mappings.")


class MessageDifference(Strict):
    """Encoding for a reader that keeps the previous message: zlib's level 1, with that message as its dictionary.

    A dictionary is the last 32 KiB of the previous message. Repetitions within the message are compressed as well.
    """

    size_bytes: int = Field(gt=0, description="Bytes.")
    make_s: float = Field(ge=0, description="Encoding from both messages, in seconds: the best of three.")
    apply_s: float = Field(ge=0, description="Decoding the message, in seconds: the best of three.")


class MessageContent(Strict):
    """Content of a message. The previous message is the last one of the same link, writer and method."""

    inline_bytes: int = Field(ge=0, description="Bytes of the main part.")
    out_of_band_bytes: int = Field(ge=0, description="Bytes of the out-of-band buffers.")
    buffers: int = Field(ge=0, description="Number of out-of-band buffers.")
    through: Literal["ring", "socket"] = Field(description="ring: shared memory; socket: ZMQ.")
    distance: int | None = Field(description="Distance to the previous message, in bytes. Null for the first.")
    distance_by: Literal["levenshtein", "runs"] | None = Field(
        description=(
            "levenshtein: the minimum number of insertions, deletions and substitutions of a byte; runs: bytes "
            "outside of runs of 8 or more that the previous message has too. runs is used for long messages and "
            "without rapidfuzz."
        )
    )
    repeated_bytes: int | None = Field(description="Bytes in runs of 8 or more that the previous message has too.")
    fields: dict[MessagePart, int] = Field(
        description=(
            "Bytes by part, which add up to the message encoded once more: the reduction in size when its fields"
            " are emptied one after the other, in this order."
        )
    )
    formats: dict[MessageFormat, FormatSize] = Field(description="Sizes in each format that can encode it.")
    difference: MessageDifference | None = Field(
        description="Difference from the previous message. Null for the first."
    )


class MessageRow(Strict):
    """One message: a line of the side file."""

    look: Look = Field(description="Purpose of its pass.")
    batch: int = Field(gt=0, description="Sequences of the pass.")
    link: Link = Field(description="Sender and receiver.")
    rank: int | None = Field(description="The worker that wrote it. Null for core or front end.")
    method: str = Field(description="execute_model, sample_tokens, ... and their answers; add; outputs.")
    step: int = Field(
        ge=0,
        description=(
            "Index of its step: for a request the step that first computes it, for an output the step that "
            "generated it."
        ),
    )
    began_s: float = Field(description="Beginning of encoding, in seconds after the pass began.")
    encode_s: float | None = absent("Duration of encoding, in seconds. Null in passes for contents.", ge=0)
    reads: list[MessageRead] | None = absent("The message at each reader, by rank. Null in passes for contents.")
    content: MessageContent | None = absent("Its content. Null in passes for times.")

    def busy_s(self, ranks: Collection[int] = ()) -> float:
        """Return the cost of the message, in seconds, without the time that a reader was busy with other work.

        Args:
            ranks: the workers that the step waits for. The slowest of these readers counts; if none of them read the
                message, the slowest of all readers.
        """
        reads = self.reads or []
        costs = [read.transport_s - read.waited_s + read.decode_s for read in reads if read.rank in ranks]
        costs = costs or [read.transport_s - read.waited_s + read.decode_s for read in reads]
        return (self.encode_s or 0.0) + max(costs, default=0.0)


class MessageStep(Strict):
    """One step of the engine core."""

    look: Look = Field(description="Purpose of its pass.")
    batch: int = Field(gt=0, description="Sequences of the pass.")
    index: int = Field(ge=0, description="Its number in the pass, from 0.")
    phase: Phase = Field(description="Phase of the step.")
    tokens: int = Field(ge=0, description="Scheduled tokens.")
    sequences: int = Field(ge=0, description="Scheduled sequences.")
    new_requests: int = Field(ge=0, description="Scheduled sequences that are new to the workers.")
    new_prompt_tokens: int = Field(ge=0, description="Prompt tokens of the new sequences.")
    began_s: float = Field(ge=0, description="Beginning of scheduling, in seconds after the pass began.")
    latency_s: float = Field(
        gt=0, description="From the beginning of scheduling until the scheduler had processed the output, in seconds."
    )
    elapsed_s: float = Field(
        gt=0,
        description=(
            "Like latency_s, but from the end of the previous step if that is later, in seconds: these times do "
            "not overlap."
        ),
    )


class ProbeCost(Strict):
    """Additional time of a probed call, in seconds: median over rounds of many calls with and without the probe."""

    put_s: float = Field(description="For putting a message into a queue.")
    got_s: float = Field(description="For getting a message out of a queue.")
    encode_s: float = Field(description="For encoding a message for a socket.")
    decode_s: float = Field(description="For decoding a message from a socket.")
    step_s: float = Field(description="For recording the beginning and the end of a step.")


class ProbeUse(Strict):
    """Overhead of the probes in a pass for times."""

    batch: int = Field(gt=0, description="Sequences of the pass.")
    cost_s: float = Field(ge=0, description="Calls times their cost, summed over all processes, in seconds.")
    share: float = Field(ge=0, description="cost_s over the time of all steps.")


class Messages(Launched):
    """The record of one messages launch."""

    async_scheduling: bool = Field(description="Whether a step is scheduled before the previous one has ended.")
    ring_bytes: int = Field(
        gt=0, description="Maximum size of a message to workers through shared memory; larger ones use a socket."
    )
    pickled_bytes: dict[str, int] = Field(
        description="Pickled size of single vLLM objects: SamplingParams, and empty messages."
    )
    steps: list[MessageStep] = Field(min_length=1, description="Steps of every pass, in order.")
    probe: ProbeCost = Field(description="Cost of probing a message.")
    probes: list[ProbeUse] = Field(min_length=1, description="Overhead of the probes in each pass for times.")
    host: list[HostUse] = Field([], description="Other activity of the machine during each pass for times.")
    devices: list[DeviceUse] = Field([], description="Readings of each device for each pass for times.")
    messages_file: str = Field(description="Name of the side file beside this one: a row for each message.")
    messages: int = Field(gt=0, description="Rows in the side file.")
    side_files_sha256: dict[str, str] = Field(description="SHA-256 of the side file by its name.")

    @property
    def timed_s(self) -> dict[str, float]:
        """Times of start-up and of every step."""
        return super().timed_s | {f"steps.{number}.elapsed_s": step.elapsed_s for number, step in enumerate(self.steps)}
