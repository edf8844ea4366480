"""vLLM's executor for engines whose ranks an external launcher starts, as in TRL; ranks meet at a file, not a port.

vLLM's own executor uses `MASTER_PORT`, which another process may take before it is used. On CPU, vLLM 0.32 also names
the ranks' shared memory after the meeting method. With `env://` all launches of a machine would use the same name.
vLLM would make a world for the ranks of each engine; in an existing world it finds its engine's ranks.
"""

import os
from pathlib import Path

from vllm.distributed.parallel_state import get_world_group
from vllm.platforms import current_platform
from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher

from rollout_bench.modes.placement.groups import join_world, meeting

SHARED_MEMORY = Path("/dev/shm")


class SharedEngineExecutor(ExecutorWithExternalLauncher):  # type: ignore[misc]
    """vLLM's executor whose ranks meet at a file; the launcher sets RANK and LOCAL_RANK."""

    def _distributed_args(self) -> tuple[str, int, int]:
        return f"file://{meeting()}", int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])

    def _init_executor(self) -> None:
        join_world(current_platform.dist_backend)
        super()._init_executor()
        get_world_group().barrier()
        # all ranks have mapped the shared memory by now, and a killed rank would leave its file behind
        for segment in SHARED_MEMORY.glob(f"{meeting().name}-*"):
            segment.unlink(missing_ok=True)
