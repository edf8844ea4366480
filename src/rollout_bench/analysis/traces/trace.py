"""Read the traces of one profile launch as one events table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rollout_bench.analysis.traces.ascend import read_ascend
from rollout_bench.analysis.traces.events import joined
from rollout_bench.analysis.traces.torch import read_torch
from rollout_bench.contracts.inside import LinearShape, TraceFile


def read_traces(
    folder: Path, traces: Sequence[TraceFile], linears: Sequence[LinearShape] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """Read every trace of a launch.

    Args:
        folder: folder of the traces.
        traces: their entries in the record.
        linears: the linear layers of one rank; on Ascend their number may be needed to separate the steps.

    Returns:
        The events table, and warnings.

    Raises:
        UserError: a trace is missing, damaged, of another tool, or has no step of the engine.
    """
    frames, warnings = [], []
    for trace in traces:
        path = folder / trace.name
        if trace.source == "torch_npu":
            frame, said = read_ascend(path, trace.name, trace.rank, trace.phase, linears)
        else:
            frame, said = read_torch(path, trace.name, trace.rank)
        frames.append(frame)
        warnings += said
    return joined(frames), warnings
