"""Read the traces of one profile launch as one events table."""

import gc
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rollout_bench.contracts.inside import LinearShape
from rollout_bench.modes.profile.record import TraceFile
from rollout_bench.modes.profile.traces.ascend import read_ascend
from rollout_bench.modes.profile.traces.torch import read_torch


def read_traces(folder: Path, traces: Sequence[TraceFile], linears: Sequence[LinearShape]) -> pd.DataFrame:
    """Return the events table of all traces of a launch, which are in `folder`.

    The number of linear layers, `linears`, separates steps on Ascend if nothing else does.

    Raises:
        UserError: a trace is missing, damaged, of another tool, or has no step of the engine.
    """
    layers = max((shape.layers for shape in linears), default=0)
    gc.disable()  # it would look through all events of a trace again and again, and none is in a cycle
    try:
        frames = [
            read_ascend(folder / trace.name, trace.name, trace.rank, trace.phase, layers)
            if trace.source == "torch_npu"
            else read_torch(folder / trace.name, trace.name, trace.rank)
            for trace in traces
        ]
    finally:
        gc.enable()
    return pd.concat(frames, ignore_index=True)
