"""Events table from the output of torch_npu's profiler. Tested on files in its layout, not yet on a real NPU."""

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from rollout_bench.contracts.phases import Phase
from rollout_bench.core.errors import UserError
from rollout_bench.modes.profile.record import WHOLE_STEP
from rollout_bench.modes.profile.traces.categories import rule_sets
from rollout_bench.modes.profile.traces.torch import event_table, step_marks
from rollout_bench.modes.profile.traces.trace_files import CALL, KERNEL, in_order, load_events, spans_of

KERNELS, VIEW = "kernel_details.csv", "trace_view.json"

FLOW: Final = "async_npu"
"""Category of torch_npu's flows from an operator to its kernels."""


def read_ascend(path: Path, trace: str, rank: int, phase: Phase, layers: int) -> pd.DataFrame:
    """Return the events table of torch_npu's output for one worker; a kernel's name is its type.

    Steps come from vLLM's annotations, else from our marks, else from the number of attention kernels.

    Args:
        path: the folder that holds `ASCEND_PROFILER_OUTPUT`.
        trace: its name in the table.
        rank: rank of the worker.
        phase: phase of its steps if no annotation has it.
        layers: layers of the model; 0 if unknown.

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
        marks = spans[spans["name"] == WHOLE_STEP].assign(phase=phase)
    if marks.empty:
        # These marks have the device's times, not those of launches.
        marks, spans = _by_attention(spans, layers, phase), spans.assign(correlation=np.nan)
    if marks.empty:
        raise UserError(
            f"{path}: nothing separates its steps: no annotation, and its attention kernels are no multiple of the "
            f"model's {layers} layers",
            "set engine.multiprocess: false with a single device: then each step is marked",
        )
    return event_table(spans, marks, trace, rank)


def _by_attention(spans: pd.DataFrame, layers: int, phase: Phase) -> pd.DataFrame:
    """Return the first kernel of each step by counting attention kernels, one per layer; empty unless all are whole.

    A step ends at the device's longest wait between its last attention kernel and the first of the next step.
    """
    kernels = spans[spans["kind"] == KERNEL]
    ends = (kernels["start_us"] + kernels["duration_us"]).cummax()
    pattern = next(rule.match for rule in rule_sets()["ascend"].rules if rule.category == "attention")
    attends = kernels["name"].str.contains(pattern)
    seen = attends.cumsum()
    if not layers or not attends.any() or seen.iloc[-1] % layers:
        return kernels[:0]
    between = (seen % layers == 0) & ~attends & (seen > 0) & (seen < seen.iloc[-1])
    begins = (kernels["start_us"] - ends.shift())[between].groupby(seen).idxmax()
    marks = kernels.loc[[kernels.index[0], *begins]]
    return marks.assign(phase=phase, duration_us=ends.iloc[-1] - marks["start_us"])


def _kernels(file: Path, path: Path) -> pd.DataFrame:
    """Return the kernels of `kernel_details.csv` as spans."""
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
    # Versions write "Device_id" or "Device ID".
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
        }
    )
