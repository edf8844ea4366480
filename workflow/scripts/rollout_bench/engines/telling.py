"""How the engine process talks with its supervisor."""

from __future__ import annotations

from collections.abc import Callable

from rollout_bench.engines.events import Event

Tell = Callable[[Event], None]
"""Tells the supervisor of an event."""

Wait = Callable[[], None]
"""Says that all is ready for the next iteration, and returns once it may begin."""
