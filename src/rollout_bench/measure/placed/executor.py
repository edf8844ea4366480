"""vLLM's executor of engines whose ranks a launcher starts, as TRL's are, found by a file instead of a port.

vLLM's own has `MASTER_PORT`, which another process may take between its choice and its use. And on CPU all engines of a
machine would call the memory that their ranks share alike: vLLM 0.32 names it after the way to meet, `env://`, or after
the file.
"""

from __future__ import annotations

import os
from pathlib import Path

from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher

from rollout_bench.measure.placed.words import MEETING

SHARED_MEMORY = Path("/dev/shm")


class SharedEngineExecutor(ExecutorWithExternalLauncher):  # type: ignore[misc]
    """vLLM's own, whose ranks meet at a file; RANK and LOCAL_RANK are a launcher's."""

    def _distributed_args(self) -> tuple[str, int, int]:
        return f"file://{os.environ[MEETING]}", int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])

    def _init_executor(self) -> None:
        super()._init_executor()
        # all ranks have mapped what they share by now, and a rank that is killed would leave it behind
        for segment in SHARED_MEMORY.glob(f"{Path(os.environ[MEETING]).name}-*"):
            segment.unlink(missing_ok=True)
