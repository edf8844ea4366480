"""Speeds of several machines in one table: what to expect of a device, and whether one is slower than others' are."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rollout_bench.analysis.stats.intervals import t_interval
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import MISSING, number
from rollout_bench.core.yaml_files import flow
from rollout_bench.report.notes import device_of, engine_of, load_of
from rollout_bench.report.pack import opened_pack
from rollout_bench.report.rendering import csv_text, markdown, terminal
from rollout_bench.report.state import plan_of_summary, results_of
from rollout_bench.report.views import SETTING, Column, View

MODES = ("offline", "rollout")
"""Modes whose output tokens per second are what an engine can do: all sequences of a step are there at once."""

CONFIDENCE = 0.95

SHOWN = ("model", "load", "mode", "devices", "quant", "setting", "weights", "engine")
WORDS = (*SHOWN, "arguments")
"""Columns that say what was measured; a CSV file also has all arguments of the engine."""

TOLD = (
    *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "enable_expert_parallel"),
    *("lora_rank", "speculative_config", "enforce_eager", "max_num_seqs", "max_num_batched_tokens"),
)
"""Arguments of an engine that a setting shows: those that decide its speed."""

NUMBERS = ("tok/s per device", "low", "high", "launches")
"""Columns of numbers: mean output tokens per second and device, its 95 % interval, and the valid launches."""

COLUMNS = (*SHOWN[:5], *NUMBERS, *SHOWN[5:], "arguments")
"""Columns of a CSV file: the speed stands before what is seldom asked."""

ORDER = ("model", "load", "mode", "devices", "setting", "quant")

Speed = dict[str, Any]
"""One line: a value for each of `WORDS` and `NUMBERS`; `low` and `high` are None for fewer than two launches."""


def speeds_of(path: Path) -> list[Speed]:
    """Return the lines of a results folder, a pack, or a CSV file that `files_of` has made of such.

    They name neither the machine nor a path.

    Raises:
        UserError: `path` is none of these, or has no valid launch of `MODES`.
    """
    found = _of_csv(path) if path.suffix == ".csv" else [*_of_results(opened_pack(path) if path.is_file() else path)]
    if not found:
        raise UserError(f"{path}: has no valid launch of mode {' or '.join(MODES)}", "leave it out")
    return found


def _of_results(folder: Path) -> Iterator[Speed]:
    collection = collect(results_of(folder), plan_of_summary(folder), warned=False)
    yield from (_speed(row) for row in rows_of(collection) if row.experiment.mode in MODES and row.used)


def _of_csv(path: Path) -> list[Speed]:
    remedy = "give a file that `rollout-bench table --out` has made, a pack, or a results folder"
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in NUMBERS})
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}", remedy) from None
    if tuple(frame.columns) != COLUMNS or not all(pd.api.types.is_numeric_dtype(frame[n]) for n in NUMBERS):
        raise UserError(f"{path}: has other columns than {', '.join(COLUMNS)}", remedy)
    lines = frame.astype(dict.fromkeys(WORDS, str)).to_dict("records")
    return [{str(name): None if pd.isna(value) else value for name, value in line.items()} for line in lines]


def _speed(row: Row) -> Speed:
    """Return the line of an experiment with valid launches."""
    record = row.used[0].record
    spec, environment = record.spec, record.environment
    rates = [launch.output_tokens_per_s / max(1, environment.device_count) for launch in row.used]
    interval = t_interval(rates, CONFIDENCE) or (None, None)
    arguments = _arguments(spec)
    model = (spec.model.weights or "").removeprefix("hub:") if spec.model.is_on_hub else spec.model.name
    words = {
        "devices": device_of(environment),
        "model": model,
        "weights": _weights(spec),
        "quant": spec.quant.name,
        "setting": _text({name: arguments[name] for name in TOLD if name in arguments}),
        "load": re.sub(" (prompt|sample|token)s?(?![a-z])", "", load_of(spec.workload)),
        "mode": spec.mode,
        "engine": engine_of(environment),
        "arguments": _text(arguments),
    }
    numbers = (None if value is None else float(f"{value:.6g}") for value in (sum(rates) / len(rates), *interval))
    return words | dict(zip(NUMBERS, (*numbers, len(rates)), strict=True))


def _weights(spec: Spec) -> str:
    if spec.load_format == "dummy":
        return "dummy"
    return "random" if spec.model.synthetic is not None else "trained"


def _arguments(spec: Spec) -> dict[str, Any]:
    """Return what was set of the engine, without texts that may be a path or a place."""
    adapter = {} if spec.lora is None else {"lora_rank": spec.lora.rank}
    given = {**spec.engine.args, **spec.engine.environment, **adapter}
    return {name: value for name, value in sorted(given.items()) if name != "load_format" and _is_plain(value)}


def _text(arguments: Mapping[str, Any]) -> str:
    return flow(arguments)[1:-1] if arguments else MISSING


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return not isinstance(value, str) or not set("/\\:@") & set(value)


def _ordered(speeds: Iterable[Speed]) -> list[Speed]:
    """Return each line once, those of one model and load together, the fastest of alike ones first."""
    each = {tuple(speed.values()): speed for speed in speeds}.values()
    return sorted(each, key=lambda speed: (*(speed[name] for name in ORDER), -speed["tok/s per device"]))


def view_of(speeds: Sequence[Speed]) -> View:
    """Return the table; a column in which all lines agree is in its title."""
    alike = {name: speeds[0][name] for name in SHOWN if len({speed[name] for speed in speeds}) == 1}
    columns = [
        SETTING if name == "setting" else Column[object](name, words=True) for name in SHOWN if name not in alike
    ]
    columns += [Column[object](header) for header in ("launches", "tok/s per device", "95 % interval")]
    cells = tuple(
        (
            *(str(speed[name]) for name in SHOWN if name not in alike),
            str(speed["launches"]),
            number(speed["tok/s per device"], 4),
            MISSING if speed["low"] is None else f"[{number(speed['low'], 4)}, {number(speed['high'], 4)}]",
        )
        for speed in speeds
    )
    common = "".join(f", {value}" for name, value in alike.items() if value != MISSING)
    return View(f"Output tokens per second and device{common}", tuple(columns), cells)


def files_of(paths: Sequence[Path]) -> dict[str, str]:
    """Return the table of what lies at `paths` for a terminal, and as Markdown and CSV: `txt`, `md`, `csv`.

    Raises:
        UserError: a path has no such results.
    """
    speeds = _ordered(speed for path in paths for speed in speeds_of(path))
    view, frame = view_of(speeds), pd.DataFrame(speeds, columns=COLUMNS)
    return {
        "txt": terminal("", [view], []),
        "md": markdown("", [view], [], {}, title="Speeds"),
        "csv": csv_text(frame),
    }
