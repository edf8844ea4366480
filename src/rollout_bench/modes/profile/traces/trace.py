"""Read the traces of one profile launch as one events table."""

import gc
from pathlib import Path

import pandas as pd

from rollout_bench.modes.profile.record import Profile
from rollout_bench.modes.profile.traces.ascend import read_ascend
from rollout_bench.modes.profile.traces.torch import read_torch


def read_traces(folder: Path, record: Profile) -> pd.DataFrame:
    """Return the events table of all traces of a launch, which are in `folder`.

    The number of attention layers separates steps on Ascend if nothing else does.

    Raises:
        UserError: a trace is missing, damaged, of another tool, or has no step of the engine.
    """
    layers = 0 if record.engine.kv_cache is None else sum(record.engine.kv_cache.layers.values())
    gc.disable()  # it would look through all events of a trace again and again, and none is in a cycle
    try:
        frames = [
            read_ascend(folder / trace.name, trace.name, trace.rank, trace.phase, layers)
            if trace.source == "torch_npu"
            else read_torch(folder / trace.name, trace.name, trace.rank)
            for trace in record.traces
        ]
    finally:
        gc.enable()
    return pd.concat(frames, ignore_index=True)
