"""vLLM's own server, which notes when it imported what, and when it had its configuration.

Run with `python -m` and the server's arguments, in place of vLLM's module, which it becomes. Its other notes are those
of every start.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
import warnings

from rollout_bench.measure.server.server import MODULE
from rollout_bench.measure.starts.start_notes import note, noting_configuration

WAITS = "ROLLOUT_BENCH_START_WAITS"
"""Environment variable: with it the server begins with a line on its stdin, everything being imported."""

IMPORTS, ASKS, ANSWERED, IMPORTED, CONFIGURED = (
    f"rollout-bench: server {what}" for what in ("imports", "asks", "answered", "imported", "configured")
)
"""What it notes: it begins to import, asks for the platform and knows it, has imported all, has its configuration."""


def main() -> None:
    """Import the server, wait where that is wanted, and become it."""
    note(IMPORTS, time.monotonic())
    import vllm  # noqa: F401 (timed on its own)

    asks = time.monotonic()
    from vllm.platforms import current_platform

    _ = current_platform.device_type
    note(ASKS, asks)
    note(ANSWERED, time.monotonic())
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")  # that it is imported already
    __import__(MODULE)
    note(IMPORTED, time.monotonic())
    if os.environ.get(WAITS):
        sys.stdin.readline()
    with noting_configuration(lambda at: note(CONFIGURED, at)):
        runpy.run_module(MODULE, run_name="__main__", alter_sys=True)


if __name__ == "__main__":  # the engine's processes may import this file anew
    main()
