"""Imported by every Python that has this folder on its PYTHONPATH, before anything else."""

import gc
import os

import keep_out

gc.set_threshold(50_000)  # starting takes a sixth less time, and most of what tests wait for are starts


def spare_imports(phase: str, info: dict[str, int]) -> None:
    """Leave out of all full collections what was there before the first: vLLM asks for several as an engine starts.

    That are its imports, which never become garbage, and take 0.4 s each time.
    """
    if phase == "start" and info["generation"] == 2:
        gc.callbacks.remove(spare_imports)
        gc.freeze()


gc.callbacks.append(spare_imports)

if keep_out.VARIABLE in os.environ:
    keep_out.watch(*os.environ[keep_out.VARIABLE].split("\n"))
