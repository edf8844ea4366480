"""The time of training in a trainer's log: JSON, JSON lines or CSV of a history or metrics, or lines of the console."""

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import several
from rollout_bench.core.readers import finite
from rollout_bench.workloads.datasets import read_bytes

VERL_PARTS = ("old_log_prob", "ref", "values", "adv", "update_critic", "update_actor")
"""Parts of verl's step that are training, below timing_s."""

TRL_PROFILE = re.compile(r"profiling/Time taken: .*\.(vLLM\.generate|sync_weights|_move_model_to_vllm)")
"""TRL's times of generation and weight updates, which are part of step_time; TRL gives them to wandb and mlflow."""

PAIR = re.compile(r"([\w/]+)['\"]?:\s*(?:np\.\w+\()?['\"]?(-?\d[\d.]*(?:e[-+]?\d+)?)")
"""A number on a line of the console: `timing_s/adv:0.1`, `timing_s/adv:np.float64(0.1)`, `'step_time': 3.2`."""


WHOLE = "give verl's metrics (trainer.logger=[console,file]) or TRL's trainer_state.json, or unwrap the lines"
"""Remedy for a console's lines that a terminal has wrapped."""


def verl_time(path: Path, devices: int) -> tuple[float, str]:
    """Return the time of verl's training, and a line about it: the median over later steps of the sum of its parts.

    Args:
        path: metrics that verl's logger `file` writes, or its output on the console.
        devices: number of devices that trained.

    Raises:
        UserError: if the log cannot be read, or has too few steps or a part of one.
    """
    rows = [row for row in _rows(path) if "timing_s/update_actor" in row]
    parts = [part for part in VERL_PARTS if any(f"timing_s/{part}" in row for row in rows)]
    for number, row in enumerate(rows, 1):
        if torn := [part for part in parts if f"timing_s/{part}" not in row]:
            raise UserError(
                f"--log {path}: step {number} of {len(rows)} lacks timing_s/{torn[0]}, which others have", WHOLE
            )
    steps = [sum(row.get(f"timing_s/{part}", 0.0) for part in parts) for row in rows]
    later = _later(steps, path, "timing_s/update_actor", "give verl's metrics: trainer.logger=[console,file]")
    return _train_s_line(
        path, median(later), devices, f"{' + '.join(parts)}, median of {several(len(later), 'step')} after the first"
    )


def trl_time(path: Path, devices: int, updates: float, waves: int = 1) -> tuple[float, str]:
    """Return the time of TRL's training in a whole step, without generation if the log has it, and a line about it.

    It is the median of step_time after the first step. If several optimizer steps share a generation, it is the mean,
    because only one of them generates. A log without step_time may have train_runtime.

    Args:
        path: trainer_state.json, a JSON list, JSON lines or the output on the console.
        devices: number of devices that trained.
        updates: optimizer steps for each generation.
        waves: generations of a step. TRL logs each of them, and the one weight update before them.

    Raises:
        UserError: if the log cannot be read, or has too few steps or no time of training.
    """
    rows = [{name.removeprefix("train/"): value for name, value in row.items()} for row in _rows(path)]
    whole = [row["train_runtime"] / row["step"] for row in rows if row.get("train_runtime") and row.get("step")]
    steps = _column(rows, "step_time")
    if whole and not steps:
        each, source = whole[-1], "train_runtime / steps"
    else:
        later = _later(steps, path, "step_time", "give TRL's log: trainer_state.json of a checkpoint")
        each = fmean(later) if updates > 1 else median(later)
        source = f"step_time, {'mean' if updates > 1 else 'median'} of {several(len(later), 'step')} after the first"
    profiled = sorted({name for row in rows for name in row if TRL_PROFILE.fullmatch(name)})
    times = {name: waves if name.endswith(".vLLM.generate") else 1 for name in profiled}
    seconds = each * updates - sum(count * median(_column(rows, name)) for name, count in times.items())
    if seconds <= 0:
        raise UserError(
            f"--log {path}: generation takes longer than the steps that it is part of", "give the log of one training"
        )
    left_out = " and ".join(
        f"{f'{count} x ' if count > 1 else ''}{name.rpartition(': ')[2]}" for name, count in times.items()
    )
    included = "too long by the generation in it: the log has no profiling/Time taken, which TRL gives to wandb"
    return _train_s_line(path, seconds, devices, f"{source}, {f'without {left_out}' if left_out else included}")


VERL_GENERATION = "timing_s/gen"
"""verl's time of generation, with its agent loop and rewards that are computed in it."""


def verl_generation_s(path: Path) -> float:
    """Return the time of verl's generation in a step, in seconds: the median over steps after the first.

    Raises:
        UserError: if the log cannot be read, or has too few steps with it.
    """
    steps = _column(_rows(path), VERL_GENERATION)
    return median(_later(steps, path, VERL_GENERATION, "give verl's metrics: trainer.logger=[console,file]"))


def trl_generation_s(path: Path) -> float:
    """Return the time of TRL's generation, in seconds: the median over generations after the first.

    Raises:
        UserError: if the log cannot be read, or has too few generations.
    """
    rows = [{name.rpartition(".vLLM.")[2]: value for name, value in row.items()} for row in _rows(path)]
    remedy = "give what TRL sends to wandb or mlflow, exported as CSV: other logs lack the time of generation"
    return median(_later(_column(rows, "generate"), path, "profiling/Time taken: ...vLLM.generate", remedy))


def _train_s_line(path: Path, seconds: float, devices: int, source: str) -> tuple[float, str]:
    total = round(seconds * devices, 3)
    return total, (
        f"Training: a wait of placement.train_s {total} s over the devices that train, from {path}: {seconds:.3f} s on"
        f" {several(devices, 'device')} ({source})."
    )


def _later(steps: Sequence[float], path: Path, key: str, remedy: str) -> Sequence[float]:
    if len(steps) < 2:
        raise UserError(f"--log {path}: has {several(len(steps), 'step')} with {key}, but 2 are needed", remedy)
    return steps[1:]


def _column(rows: Sequence[dict[str, float]], name: str) -> list[float]:
    return [row[name] for row in rows if name in row]


def _rows(path: Path) -> list[dict[str, float]]:
    """Return the finite numbers of each entry of a log, with those that verl's logger `file` puts below `data`."""
    if path.suffix.lower() == ".csv":
        return _from_csv(path)
    text = read_bytes(path).decode(errors="replace")
    whole = _json(text)
    if isinstance(whole, dict):
        whole = whole.get("log_history", [whole])
    if not isinstance(whole, list):
        whole = [
            _json(line) or _from_console(line, f"--log {path}: line {n}") for n, line in enumerate(text.splitlines(), 1)
        ]
    entries = [
        {**entry, **(data if isinstance(data := entry.get("data"), dict) else {})}
        for entry in whole
        if isinstance(entry, dict)
    ]
    return [{name: number for name, value in one.items() if (number := finite(value)) is not None} for one in entries]


def _from_console(line: str, where: str) -> dict[str, str]:
    """Return the numbers on a line of the console; raise `UserError` for a part of a step, whose rest is elsewhere."""
    is_part = "timing_s/" in line and not re.search(r"(?<![\w/])step:\d", line)
    if is_part or (re.match(r"\s*\{['\"]", line) and "}" not in line):
        raise UserError(f"{where}: is a part of a step: the log's lines are wrapped", WHOLE)
    return dict(PAIR.findall(line))


def _from_csv(path: Path) -> list[dict[str, float]]:
    """Return the finite numbers of each row of a CSV of wandb, where `RUN - ` may stand before a name.

    Raises:
        UserError: if it is no CSV, or has several runs.
    """
    import pandas as pd

    try:
        table = pd.read_csv(io.BytesIO(read_bytes(path)))
    except ValueError as error:
        raise UserError(f"--log {path}: is no CSV: {error}", WHOLE) from None
    table = table.drop(columns=[name for name in table if str(name).endswith(("__MIN", "__MAX"))])
    names = [str(name).rpartition(" - ")[2] for name in table]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--log {path}: has {twice} of several runs", "export one run")
    rows = table.set_axis(names, axis=1).to_dict("records")
    return [{str(name): number for name, value in row.items() if (number := finite(value)) is not None} for row in rows]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
