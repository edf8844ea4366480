"""A plugin of vLLM's that spoils the weights of a placement on purpose, a fault in each update.

`enabled` makes vLLM find it: ranks that generate have it, and those that only train do not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

Fault = Literal["", "stale", "short", "swapped", "drifts"]
"""stale: the weights of the update before come again; short: the last bucket does not come; swapped: all come, and two
are loaded to one another's place; drifts: alone, for all steps: an engine's second rank trains on by itself."""

FAULTS = "FAULTS_OF_UPDATES"
"""The variable that names the fault of each update, with commas between; the first update is before all steps."""

SWAPPED = ("gate_proj", "up_proj")


def enabled(folder: Path, *faults: Fault) -> dict[str, str]:
    """Return the variables that make vLLM load the plugin, which is registered in `folder`."""
    about = folder / "faulty_placements-0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-placements\nVersion: 0\n")
    (about / "entry_points.txt").write_text("[vllm.general_plugins]\nfaulty = faulty_placements:spoil\n")
    paths = [str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), FAULTS: ",".join(faults)}


def spoil() -> None:
    """Have what is received, and then what is loaded, spoilt from now on."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    from rollout_bench.measure.placed.groups import RankGroup, sizes_of_parts
    from rollout_bench.measure.placed.shares import buckets
    from rollout_bench.measure.placed.trainer import PolicyTrainer

    faults: Iterator[str] = iter(os.environ[FAULTS].split(","))
    receive, reload, optimize = RankGroup.receive, GPUModelRunner.reload_weights, PolicyTrainer.optimize
    before: list[tuple[str, Any]] = []
    fault = ""

    def spoilt(group: RankGroup, parts: Any, most_bytes: int) -> Iterator[tuple[str, Any]]:
        nonlocal fault
        fault = next(faults)
        came = list(receive(group, parts, most_bytes))
        first_of_last = buckets(sizes_of_parts(parts), most_bytes)[-1].start
        told = before if fault == "stale" else came[:first_of_last] if fault == "short" else came
        yield from list(told)
        before[:] = came

    def other(name: str) -> str:
        one, two = SWAPPED
        return name.replace(one, two) if one in name else name.replace(two, one)

    def misplaced(runner: Any, weights_iterator: Iterator[tuple[str, Any]], **more: Any) -> None:
        # which update it is, is known once the first tensor has come
        places = ((other(name) if fault == "swapped" else name, tensor) for name, tensor in weights_iterator)
        reload(runner, weights_iterator=places, **more)

    def drifting(trainer: Any) -> None:
        optimize(trainer)
        for _, parameter in trainer.model.named_parameters():
            parameter.data.mul_(1.01)

    patched: Any = PolicyTrainer
    if os.environ[FAULTS] == "drifts" and os.environ["RANK"] == "1":
        patched.optimize = drifting
    patched = RankGroup
    patched.receive = spoilt
    patched = GPUModelRunner
    patched.reload_weights = misplaced
