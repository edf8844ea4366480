"""Events table from traces of torch's profiler, CPU and CUDA."""

from pathlib import Path

import numpy as np
import pandas as pd

from rollout_bench.core.errors import UserError
from rollout_bench.modes.profile.record import WHOLE_STEP
from rollout_bench.modes.profile.traces.events import BETWEEN, COLUMNS, DEVICE, HOST, OUTSIDE, STEP
from rollout_bench.modes.profile.traces.trace_files import (
    CALL,
    KERNEL,
    OPERATOR,
    REMEDY,
    in_order,
    load_events,
    spans_of,
)
from rollout_bench.modes.profile.traces.trace_steps import phase_of, self_times, step_at, step_windows


def read_torch(path: Path, trace: str, rank: int) -> pd.DataFrame:
    """Return the events table of one trace of torch's profiler.

    Args:
        path: the file, plain or gzip-compressed.
        trace: its name in the table.
        rank: rank of the worker.

    Raises:
        UserError: the file is unreadable, is not such a trace, or has no step of vLLM.
    """
    spans = in_order(spans_of(load_events(path)))
    if spans.empty:
        raise UserError(f"{path}: holds no event of torch's profiler", REMEDY)
    marks = step_marks(spans)
    if marks.empty:
        raise UserError(
            f"{path}: holds no step of vLLM: no annotation like execute_context_0(0)_generation_32(32)",
            f"see that the profiler runs while the engine computes, then {REMEDY}",
        )
    return event_table(spans, marks, trace, rank)


def step_marks(spans: pd.DataFrame) -> pd.DataFrame:
    """Return the annotations on the host that open steps, on one thread, with their `phase`."""
    marks = spans[_opens(spans) & (spans["name"] != WHOLE_STEP) & (spans["kind"] != KERNEL)]
    marks = marks.assign(phase=marks["name"].map(phase_of))
    # If several threads have annotations, all but one only wait for that one.
    return marks[marks["stream"].isin(marks["stream"].mode()[:1])]


def event_table(spans: pd.DataFrame, marks: pd.DataFrame, trace: str, rank: int) -> pd.DataFrame:
    """Return the events table of one trace: a row for each step, then a row for each event, by time.

    Args:
        spans: all spans of the trace in order.
        marks: the spans that open its steps, with their `phase`.
        trace: name of the trace in the table.
        rank: rank of the worker.
    """
    steps = _host_steps(spans, marks)
    spans = _nested(spans)
    kernels = spans["kind"] == KERNEL
    calls = spans[spans["kind"] == CALL].dropna(subset="correlation").drop_duplicates("correlation")
    calls = calls.set_index("correlation")[["start_us", "path"]].add_prefix("call_")
    launched = spans[kernels].join(calls, on="correlation", how="inner")
    # A kernel belongs to the step and to the operators that launched it: it may run a step later.
    begun = spans["start_us"].copy()
    begun[launched.index], spans.loc[launched.index, "path"] = launched["call_start_us"], launched["call_path"]
    spans["step"] = step_at(steps, begun.to_numpy())
    if kernels.any():
        steps = _device_steps(spans[kernels], steps)
        device = kernels
    else:
        steps = _whole_steps(spans, marks, steps)
        spans["step"] = step_at(steps, begun.to_numpy())
        device = (spans["kind"] == OPERATOR) & (spans["stream"] == marks["stream"].iloc[0])
    spans["where"] = np.where(device, DEVICE, HOST)
    spans["phase"] = np.where(spans["step"] == OUTSIDE, "", steps["phase"].to_numpy()[spans["step"]])
    length = steps["end"] - steps["begin"]
    rows = pd.DataFrame({"step": steps.index, "phase": steps["phase"], "where": STEP, "start_us": steps["begin"]})
    rows = rows.assign(name=[f"{STEP} {number}" for number in steps.index], duration_us=length, self_us=length)
    both = pd.concat([rows, spans[~_opens(spans)]], ignore_index=True).assign(trace=trace, rank=rank)
    return both[list(COLUMNS)].fillna({"path": "", "stream": "", "dtypes": ""})


def _opens(spans: pd.DataFrame) -> pd.Series:
    return spans["name"].isin([name for name in spans["name"].unique() if name == WHOLE_STEP or phase_of(name)])


def _nested(spans: pd.DataFrame) -> pd.DataFrame:
    """Return spans with `self_us`, without the time of enclosed spans, and `path`, the names of the enclosing ones."""
    spans = spans.assign(self_us=spans["duration_us"].astype(float), path="")
    opens = _opens(spans)
    for _, stream_spans in spans[spans["kind"] != KERNEL].groupby("stream"):
        spans.loc[stream_spans.index, "self_us"], parents = self_times(
            stream_spans["start_us"].to_numpy(), stream_spans["duration_us"].to_numpy()
        )
        paths: list[str] = []
        below: list[str] = []
        for name, parent, opening in zip(
            stream_spans["name"], parents.tolist(), opens[stream_spans.index], strict=True
        ):
            path = below[parent] if parent >= 0 else ""
            paths.append(path)
            below.append(path if opening else f"{path}{BETWEEN}{name}" if path else name)
        spans.loc[stream_spans.index, "path"] = paths
    return spans


def _host_steps(spans: pd.DataFrame, marks: pd.DataFrame) -> pd.DataFrame:
    """Return the steps on the host; sampling follows the last annotation, so the thread's work ends the last step."""
    last = marks.iloc[-1]
    works = (spans["kind"] == OPERATOR) & (spans["stream"] == last["stream"]) & (spans["start_us"] >= last["start_us"])
    ends = (spans["start_us"] + spans["duration_us"])[works].to_numpy()
    end = ends.max(initial=last["start_us"] + last["duration_us"])
    return step_windows(marks["start_us"].to_numpy(), marks["phase"].to_numpy(), end)


def _whole_steps(spans: pd.DataFrame, marks: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """Return steps with the windows of the marks of whole steps around them; `steps` unless each has its own.

    Unlike a GPU, which may lag a step behind the host, a CPU has the whole step on the host. Time between two marks,
    such as handing over the next iteration, then belongs to no step.
    """
    wholes = spans[(spans["name"] == WHOLE_STEP) & (spans["stream"] == marks["stream"].iloc[0])]
    number = np.searchsorted(wholes["start_us"].to_numpy(), steps["begin"].to_numpy(), side="right") - 1
    if wholes.empty or number[0] < 0 or len(np.unique(number)) < len(steps):
        return steps
    begin = wholes["start_us"].to_numpy()[number]
    return steps.assign(begin=begin, end=begin + wholes["duration_us"].to_numpy()[number])


def _device_steps(kernels: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """Return the steps on the device: each begins with its first kernel on the busiest stream.

    The host runs ahead of the device, so its annotation has the time of the launch, not of the computation. Both
    proceed at the same rate. The host's steps are returned if a step has no kernel on that stream.
    """
    main = kernels["stream"] == kernels.groupby("stream")["duration_us"].sum().idxmax()
    begin = kernels[main].groupby("step")["start_us"].min().reindex(steps.index).to_numpy()
    if np.isnan(begin).any() or (np.diff(begin) <= 0).any():
        return steps
    last = kernels[kernels["step"] == steps.index[-1]]
    return step_windows(begin, steps["phase"].to_numpy(), float((last["start_us"] + last["duration_us"]).max()))
