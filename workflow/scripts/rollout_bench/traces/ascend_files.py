"""The CSV files that torch_npu's profiler writes, as tables with the columns that count.

Not yet read from a real NPU: the columns are those known of torch_npu, with the spellings of several versions.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pandas as pd

from rollout_bench.errors import UserError

OUTPUT: Final = "ASCEND_PROFILER_OUTPUT"
KERNELS, STATISTIC, STEP_TIMES, VIEW = (
    "kernel_details.csv",
    "op_statistic.csv",
    "step_trace_time.csv",
    "trace_view.json",
)

_NOTHING: Final = frozenset({"", "N/A", "nan"})

_KERNEL_COLUMNS: Final = {
    "step": (("Step Id", "Step ID"), False),
    "device": (("Device_id", "Device ID"), False),
    "stream": (("Stream ID", "Stream Id"), False),
    "name": (("Name",), True),
    "type": (("Type",), True),
    "core": (("Accelerator Core",), False),
    "start": (("Start Time(us)",), True),
    "duration": (("Duration(us)",), True),
    "wait": (("Wait Time(us)",), False),
    "blocks": (("Block Num", "Block Dim"), False),
    "shapes": (("Input Shapes",), False),
    "dtypes": (("Input Data Types",), False),
}
"""Our name, the spellings in the file, and whether nothing goes without it."""


def output_folder(path: Path) -> Path:
    """The folder of CSV files in what torch_npu wrote.

    Raises:
        UserError: there is none, or none with kernels: the raw data were not analysed.
    """
    folder = path / OUTPUT if path.name != OUTPUT else path
    if not (folder / KERNELS).is_file():
        raise UserError(
            f"{folder / KERNELS}: is missing, so what torch_npu recorded was not analysed",
            "in the engine's Python: from torch_npu.profiler.profiler import analyse; "
            f"analyse(profiler_path={str(path)!r}); then run the same command again",
        )
    return folder


def read_kernels(folder: Path) -> pd.DataFrame:
    """`kernel_details.csv` as text; columns as in `_KERNEL_COLUMNS`.

    Times stay text, too, so that times of day keep their nanoseconds. shapes and dtypes are JSON lists or "".

    Raises:
        UserError: the file can't be read, lacks a column, or has no row.
    """
    path = folder / KERNELS
    content = _read(path)
    columns = {}
    for ours, (spellings, needed) in _KERNEL_COLUMNS.items():
        spelling = next((s for s in spellings if s in content.columns), None)
        if spelling is None and needed:
            raise UserError(f"{path}: lacks the column {spellings[0]!r}", "see that torch_npu's version is a known one")
        columns[ours] = "" if spelling is None else content[spelling].where(~content[spelling].isin(_NOTHING), "")
    kernels = pd.DataFrame(columns, index=content.index)
    if kernels.empty:
        raise UserError(f"{path}: holds no kernel", "see that the profiler runs while the engine computes")
    kernels["shapes"] = kernels["shapes"].map(_shapes)
    kernels["dtypes"] = kernels["dtypes"].map(_types)
    return kernels


def totals_by_type(folder: Path) -> dict[str, float] | None:
    """Microseconds by operator type in `op_statistic.csv`, None if there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / STATISTIC
    if not path.is_file():
        return None
    content = _read(path)
    if not {"OP Type", "Total Time(us)"} <= set(content.columns):
        raise UserError(f"{path}: lacks the columns 'OP Type' and 'Total Time(us)'", "analyse the raw data again")
    total = pd.to_numeric(content["Total Time(us)"], errors="coerce").fillna(0.0)
    return {str(kind): float(us) for kind, us in total.groupby(content["OP Type"]).sum().items()}


def busy_time(folder: Path) -> float | None:
    """Microseconds in which the device worked, as `step_trace_time.csv` has it over all its rows; None without it.

    Computing plus communication that no computing hides.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / STEP_TIMES
    if not path.is_file():
        return None
    content = _read(path)
    wanted = ["Computing", "Communication(Not Overlapped)"]
    missing = [column for column in wanted if column not in content.columns]
    if missing:
        raise UserError(f"{path}: lacks the column {missing[0]!r}", "analyse the raw data again")
    return float(content[wanted].apply(pd.to_numeric, errors="coerce").fillna(0.0).to_numpy().sum())


def _read(path: Path) -> pd.DataFrame:
    """A CSV file as text, without the blanks and tabs that the profiler leaves around values."""
    try:
        content = pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="replace", index_col=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}", "analyse the raw data again") from None
    except ValueError as error:  # what pandas raises where a file is no CSV derives from it
        raise UserError(f"{path}: is no table: {error}", "analyse the raw data again") from None
    content.columns = content.columns.str.strip()
    return pd.DataFrame({column: content[column].str.strip() for column in content.columns})


def _shapes(text: str) -> str:
    """`"4,4096;4096,12288"` as JSON; quotes and brackets around and in it count for nothing."""
    if not re.search(r"\d", text):
        return ""
    parts = [[int(n) for n in re.findall(r"\d+", part)] for part in text.split(";")]
    return json.dumps(parts, separators=(",", ":"))


def _types(text: str) -> str:
    bare = text.strip('"')
    return json.dumps(bare.split(";"), separators=(",", ":")) if bare else ""
