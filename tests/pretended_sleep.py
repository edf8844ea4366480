"""A plugin of vLLM's under which a CPU's engine may be told to sleep, which its worker does not heed.

So all that is asked of an engine that sleeps is asked of a real one, though no memory is given back. `enabled` makes
vLLM find it. As a command it measures the job on its stdin, where rollout-bench itself would refuse to, and prints each
step as JSON, or why it failed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

CALLS = "CALLS_OF_SLEEP"
"""The variable that names a file: a line for each call of each worker, with its process id."""

FULL_AT = "NO_ROOM_TO_WAKE_AT"
"""The variable that says at which of its wake-ups, from 1, a worker has no room; 0: at none."""

NO_ROOM = "CUDA Error: out of memory at /workspace/csrc/cumem_allocator.cpp:119"
"""What vLLM's allocator raises then."""


def enabled(folder: Path, full_at: int = 0) -> dict[str, str]:
    """Return the variables that make vLLM load the plugin, which is registered in `folder`."""
    about = folder / "pretended_sleep-0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: pretended-sleep\nVersion: 0\n")
    (about / "entry_points.txt").write_text("[vllm.general_plugins]\npretended = pretended_sleep:pretend\n")
    paths = [str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        CALLS: str(folder / "calls"),
        FULL_AT: str(full_at),
    }


def pretend() -> None:
    """Have engines on a CPU accept that they may sleep, and note what their workers are asked."""
    from vllm.platforms.cpu import CpuPlatform
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    reload = GPUModelRunner.reload_weights
    woken = 0

    def note(call: str) -> None:
        with Path(os.environ[CALLS]).open("a") as calls:
            calls.write(f"{os.getpid()} {call}\n")

    def sleep(worker: Any, level: int = 1) -> None:
        note(f"sleep {level}")

    def wake_up(worker: Any, tags: list[str] | None = None) -> None:
        nonlocal woken
        woken += 1
        note(f"wake {tags}")
        if woken == int(os.environ[FULL_AT]):
            raise RuntimeError(NO_ROOM)

    def reload_weights(runner: Any, **more: Any) -> None:
        note("update")
        reload(runner, **more)

    patched: Any = CpuPlatform
    patched.is_sleep_mode_available = lambda _: True
    patched = CPUWorker
    patched.sleep, patched.wake_up = sleep, wake_up
    patched = GPUModelRunner
    patched.reload_weights = reload_weights


def main() -> int:
    """Measure the job on stdin; return 1 where it fails."""
    from rollout_bench.measure.launch.protocol import IterationDone, Job
    from rollout_bench.measure.placed import controller
    from rollout_bench.measure.server.stream import ServingFailed

    def tell(event: Any) -> None:
        if isinstance(event, IterationDone) and event.iteration.placed is not None:
            print("STEP", event.iteration.placed.model_dump_json(), flush=True)

    controller.check = lambda _: None
    try:
        controller.measure(Job.model_validate_json(sys.stdin.read()), tell, lambda: None)
    except ServingFailed as error:
        print("FAILED", f"{error.category}: {error.cause}; {error.fix}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
