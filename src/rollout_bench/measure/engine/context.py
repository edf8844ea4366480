"""The context of an engine process, which it hands to one job after another."""

from dataclasses import dataclass
from typing import Any

from rollout_bench.measure.launch.protocol import AwaitTurn, SendEvent


@dataclass
class EngineContext:
    """The engine process, for the worker of a mode.

    Attributes:
        send: sends an event to the supervisor.
        await_turn: announces that the engine is ready for the next pass, and returns when the pass may begin.
        import_s: time that the starter took to import the engine, in seconds; None in a process that no starter forked.
        kept: the engine, as the mode keeps it for further jobs; None in the first.
    """

    send: SendEvent
    await_turn: AwaitTurn
    import_s: float | None = None
    kept: Any = None
