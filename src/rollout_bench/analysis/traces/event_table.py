"""Turn raw events into rows of the events table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from rollout_bench.analysis.traces.events import COLUMNS, OUTSIDE, STEP, RawEvents
from rollout_bench.analysis.traces.threads import Paths
from rollout_bench.analysis.traces.trace_steps import StepWindows

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Events that become rows, one entry each.

    Attributes:
        event: number of the event.
        where: host or device.
        step: number of its step.
        path: number of its path in `paths`.
        self_us: its self time in microseconds.
        source: the event that provides shapes and data types: for a kernel, the operator that launched it.
    """

    event: Indices
    where: npt.NDArray[np.str_]
    step: Indices
    path: Indices
    paths: Paths
    self_us: npt.NDArray[np.float64]
    source: Indices


def table(raw: RawEvents, rows: Rows, steps: StepWindows, trace: str, rank: int) -> pd.DataFrame:
    """Return the events table of one trace: a row for each step, then a row for each event, by time."""
    start = raw.array("start")[rows.event]
    order = np.lexsort((-raw.array("duration")[rows.event], start))
    count = len(order)
    phases = np.array([*steps.phases, ""])
    source = rows.source[order]
    with_source = np.maximum(source, 0)
    columns = {
        "phase": _category(phases[np.where(rows.step == OUTSIDE, len(steps), rows.step)][order]),
        "rank": np.full(count, rank, dtype=np.int64),
        "step": rows.step[order],
        "where": _category(rows.where[order]),
        "name": _named(raw.array("name")[rows.event[order]], raw.names.texts),
        "path": _named(rows.path[order], rows.paths.texts()),
        "stream": _named(raw.array("thread")[rows.event[order]], raw.threads.texts),
        "start_us": start[order],
        "duration_us": raw.array("duration")[rows.event[order]],
        "self_us": rows.self_us[order],
        "shapes": _named(np.where(source >= 0, raw.array("shapes")[with_source], 0), raw.dims.texts),
        "dtypes": _named(np.where(source >= 0, raw.array("dtypes")[with_source], 0), raw.types.texts),
    }
    return _with_steps(pd.DataFrame(columns), steps, trace, rank)


def _with_steps(frame: pd.DataFrame, steps: StepWindows, trace: str, rank: int) -> pd.DataFrame:
    length = steps.end - steps.begin
    empty = pd.Categorical([""] * len(steps))
    rows = pd.DataFrame(
        {
            "phase": pd.Categorical(steps.phases),
            "rank": np.full(len(steps), rank, dtype=np.int64),
            "step": np.arange(len(steps), dtype=np.int64),
            "where": pd.Categorical([STEP] * len(steps)),
            "name": pd.Categorical([f"{STEP} {number}" for number in range(len(steps))]),
            "path": empty,
            "stream": empty,
            "start_us": steps.begin,
            "duration_us": length,
            "self_us": length,
            "shapes": empty,
            "dtypes": empty,
        }
    )
    both = {}
    for column in rows.columns:
        parts = [rows[column], frame[column]]
        both[column] = (
            pd.api.types.union_categoricals(parts)
            if isinstance(rows[column].dtype, pd.CategoricalDtype)
            else np.concatenate([part.to_numpy() for part in parts])
        )
    both["trace"] = pd.Categorical([trace]).repeat(len(rows) + len(frame))
    return pd.DataFrame(both).loc[:, list(COLUMNS)]


def _named(numbers: npt.NDArray[np.integer], texts: list[str]) -> pd.Categorical:
    """Return numbers of texts as a categorical column of the texts that occur."""
    used, codes = np.unique(numbers, return_inverse=True)
    words, again = np.unique(np.array([texts[number] for number in used.tolist()], dtype=object), return_inverse=True)
    return pd.Categorical.from_codes(again[codes].astype(np.int32), categories=pd.Index(words, dtype="str"))


def _category(texts: npt.NDArray[np.str_]) -> pd.Categorical:
    words, codes = np.unique(texts, return_inverse=True)
    return pd.Categorical.from_codes(codes.astype(np.int32), categories=pd.Index(words.astype(object), dtype="str"))
