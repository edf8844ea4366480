"""vLLM's executor for engines whose ranks an external launcher starts, as in TRL; ranks meet at a file, not a port.

vLLM's own executor uses `MASTER_PORT`, which another process may take before it is used. On CPU, vLLM 0.32 also names
the ranks' shared memory after the meeting method. With `env://` all engines of a machine would use the same name.
"""

import os
from pathlib import Path

from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher

from rollout_bench.modes.placement.hooks import MEETING

SHARED_MEMORY = Path("/dev/shm")


class SharedEngineExecutor(ExecutorWithExternalLauncher):  # type: ignore[misc]
    """vLLM's executor whose ranks meet at a file; the launcher sets RANK and LOCAL_RANK."""

    def _distributed_args(self) -> tuple[str, int, int]:
        return f"file://{os.environ[MEETING]}", int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])

    def _init_executor(self) -> None:
        super()._init_executor()
        # all ranks have mapped the shared memory by now, and a killed rank would leave its file behind
        for segment in SHARED_MEMORY.glob(f"{Path(os.environ[MEETING]).name}-*"):
            segment.unlink(missing_ok=True)
