"""Events of a messages launch."""

from typing import Literal

from rollout_bench.contracts.record import Flag
from rollout_bench.measure.launch.protocol import Event
from rollout_bench.modes.messages.record import MessageStep


class MessagesObserved(Event):
    """A pass that observed messages is over."""

    event: Literal["messages_seen"] = "messages_seen"
    steps: list[MessageStep]
    flags: list[Flag]


class MessageFacts(Event):
    """Facts that hold for all passes that observe messages."""

    event: Literal["message_facts"] = "message_facts"
    async_scheduling: bool
    pickled_bytes: dict[str, int]
