"""Events table from the output of torch_npu's profiler. Tested on files in its layout, not yet on a real NPU."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd

from rollout_bench.analysis.traces.torch import event_table, step_marks
from rollout_bench.analysis.traces.trace_files import CALL, KERNEL, in_order, load_events, spans_of
from rollout_bench.contracts.inside import Phase
from rollout_bench.core.errors import UserError

KERNELS, VIEW = "kernel_details.csv", "trace_view.json"

FLOW: Final = "async_npu"
"""Category of torch_npu's flows from an operator to its kernels."""


def read_ascend(path: Path, trace: str, rank: int, phase: Phase) -> pd.DataFrame:
    """Return the events table of torch_npu's output for one worker; a kernel's name is its type.

    Steps come from vLLM's annotations, else from the profiler's step numbers.

    Args:
        path: the folder that holds `ASCEND_PROFILER_OUTPUT`.
        trace: its name in the table.
        rank: rank of the worker.
        phase: phase of its steps if no annotation has it.

    Raises:
        UserError: files are missing or damaged, or the steps cannot be separated.
    """
    folder = path / "ASCEND_PROFILER_OUTPUT"
    kernels = _kernels(folder / KERNELS, path)
    events = load_events(folder / VIEW) if (folder / VIEW).is_file() else []
    of_flows = [event for event in events if event.get("cat") == FLOW]
    flows = pd.DataFrame(of_flows, columns=["ph", "id", "pid", "tid", "ts"])
    flows["start_us"] = pd.to_numeric(flows["ts"], errors="coerce")
    flows["correlation"] = flows["id"].astype("category").cat.codes
    # A flow ends when its kernel begins.
    ends = flows[flows["ph"] == "f"].drop_duplicates("start_us").set_index("start_us")["correlation"]
    kernels["correlation"] = kernels["start_us"].map(ends)
    calls = flows[flows["ph"] == "s"].assign(kind=CALL, name=FLOW, dtypes="")
    calls["stream"] = calls["pid"].astype("str") + "/" + calls["tid"].astype("str")
    spans = in_order(pd.concat([spans_of(events), calls, kernels], ignore_index=True))
    marks = step_marks(spans)
    if marks.empty:
        numbered = spans[spans["step_id"].fillna("") != ""]
        end = (numbered["start_us"] + numbered["duration_us"]).max()
        marks = numbered.drop_duplicates("step_id").assign(phase=phase, duration_us=lambda each: end - each["start_us"])
    if marks.empty:
        raise UserError(
            f"{path}: nothing separates its steps: no annotation, and no Step Id",
            "profile again with a schedule, so that torch_npu numbers its steps",
        )
    return event_table(spans, marks, trace, rank)


def _kernels(file: Path, path: Path) -> pd.DataFrame:
    """Return the kernels of `kernel_details.csv` as spans, with their `step_id` as text."""
    if not file.is_file():
        raise UserError(
            f"{file}: is missing, so what torch_npu recorded was not analysed",
            "in the engine's Python: from torch_npu.profiler.profiler import analyse; "
            f"analyse(profiler_path={str(path)!r}); then run the same command again",
        )
    try:
        content = pd.read_csv(file, dtype="str").replace("N/A", "").fillna("")
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {error}", "analyse the raw data again") from None
    # Versions write "Step Id" or "Step ID", "Device_id" or "Device ID".
    content.columns = content.columns.str.lower().str.replace("_", " ")
    missing = [name for name in ("name", "type", "start time(us)", "duration(us)") if name not in content.columns]
    if missing or content.empty:
        what = f"lacks the column {missing[0]!r}" if missing else "holds no kernel"
        raise UserError(f"{file}: {what}", "see that torch_npu's version is a known one and that the engine computed")
    return pd.DataFrame(
        {
            "kind": KERNEL,
            "name": content["type"].where(content["type"] != "", content["name"]),
            "stream": "npu " + content.get("device id", "") + "/" + content.get("stream id", ""),
            "start_us": pd.to_numeric(content["start time(us)"], errors="coerce"),
            "duration_us": content["duration(us)"],
            "dtypes": "",
            "step_id": content.get("step id", ""),
        }
    )
