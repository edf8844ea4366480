"""The plan file: which experiments and launches are selected, and which combinations are skipped and why.

The workflow writes it, the summary and the figures read it. Only the standard library and pydantic.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from rollout_bench.contracts.axes import DEFAULT_SETTING
from rollout_bench.contracts.fields import Strict
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import read_model, write_json
from rollout_bench.core.numbers import number
from rollout_bench.plan.config import ComparisonSettings, Precision
from rollout_bench.plan.serving import Slo

PLAN_SCHEMA_VERSION: Literal[1] = 1
"""Raised when a field of the plan file is added, removed or changes its meaning. 1 had no `comparison`, 2 neither
`precision` nor `weights`, 3 no `slo`, 5 no `order_seed`, 6
neither `interleaved` nor `not_interleaved`, 7 no `setting` of an experiment and of what is skipped, 8 no `devices`
of an experiment, 10 neither `differing` nor `known` of a launch; up to 10 `precision` and `comparison`
had more keys, which are not read."""


def cost_in_words(launches: Iterable[tuple[float | None, int]], *, least: bool = False) -> str:
    """Return what launches take one after the other, of which each has its seconds and the number of its devices.

    `least`: it may well be more.
    """
    seconds = device_seconds = 0.0
    for expected_s, devices in launches:
        if expected_s is None:
            return "time unknown, since nothing was measured yet"
        seconds += expected_s
        device_seconds += expected_s * devices
    minutes = seconds / 60
    time = f"{minutes:.0f} min" if minutes < LONG_MIN else f"{number(minutes / 60, 2)} h"
    hours = f"; {number(max(device_seconds / 3600, 0.01), 2)} device hours" if device_seconds else ""
    return f"{'at least' if least else 'about'} {time}{hours}"


LONG_MIN = 120
"""Minutes from which on people count in hours."""


class PlannedLaunch(Strict):
    """One launch that is selected."""

    record: str = Field(description="Path of its record, relative to the folder that holds the results folder.")
    expected_s: float | None = Field(
        None, description="How long it is expected to take, in seconds. Null: nothing was measured yet."
    )


class PlannedExperiment(Strict):
    """One experiment that is selected."""

    mode: str = Field(description="What is measured: offline, online.")
    experiment: str = Field(description="Folder name of the experiment below its mode.")
    key: str = Field(description="First 8 hex digits of sha256 over the spec's canonical JSON.")
    platform: str = Field(description="Kind of device: cpu, cuda, ascend.")
    model: str = Field(description="The model's name in the config.")
    quant: str = Field(description="The quantization's name in the config.")
    workload: str = Field(description="The workload's name in the config.")
    setting: str = Field(DEFAULT_SETTING, description="The setting's name in the config.")
    launches: int = Field(
        description="Launches that are wanted, at most where precision is set: indices 0 to launches - 1."
    )
    weights: str | None = Field(
        None, description="Folder of the weights that a launch reads. Null for hub models and dummy weights."
    )
    devices: int = Field(1, ge=0, description="Devices that a launch takes; none where the server is another's.")


class InterleavedGroup(Strict):
    """Experiments whose launches of one index are measured as one block."""

    mode: str = Field(description="What is measured.")
    experiments: list[str] = Field(description="Their folder names, the baseline's first.")
    name: str = Field(description="What they have in common and are called, in words.")
    at_once: int = Field(ge=2, description="Engines that are alive at the same time at most.")
    started: Literal["in_turn", "together"] = Field(
        description="in_turn: engines start one after the other; together: all at once."
    )


class Skipped(Strict):
    """A combination of the selected axes that can't be measured."""

    mode: str = Field(description="What was to be measured.")
    model: str = Field(description="The model's name in the config.")
    quant: str = Field(description="The quantization's name in the config.")
    workload: str = Field(description="The workload's name in the config.")
    setting: str = Field(DEFAULT_SETTING, description="The setting's name in the config.")
    reason: str = Field(description="Why it is skipped, in one line.")
    remedy: str = Field(description="What to do to have it measured, in one line.")


class PlanFile(Strict):
    """Everything that is selected."""

    schema_version: Literal[1] = Field(description="Version of this schema.")
    results: str = Field(description="The results folder, as the config names it.")
    fingerprint: str = Field(description="Changes with whatever the plan was made from.")
    baseline: dict[str, str] = Field(description="What speed-ups refer to, as axis -> value: {quant: bf16}.")
    comparison: ComparisonSettings = Field(ComparisonSettings(), description="When a difference is called one.")
    precision: Precision | None = Field(
        None, description="When an experiment has launches enough; null where their number is fixed."
    )
    order_seed: int | None = Field(
        None, description="Draws the order of launches within each round; null in plans whose order was fixed."
    )
    slo: Slo = Field(Slo(), description="What a request must keep to count as good.")
    experiments: list[PlannedExperiment] = Field(description="In the order of the tables.")
    skipped: list[Skipped] = Field(description="Combinations that can't be measured.")
    interleaved: list[InterleavedGroup] = Field(
        [], description="Experiments that are measured interleaved: one launch of each is one job."
    )
    not_interleaved: list[str] = Field(
        [], description="What is compared and could be interleaved, but is not, and why: one line each."
    )
    launches: list[PlannedLaunch] = Field(description="In the order they run.")
    again: list[str] = Field(
        [],
        description="Records that are there and are measured again, with other files of the model than there were; "
        "shown by plan alone.",
    )
    changed: list[str] = Field(
        [], description="Files of models that changed since they were measured, one line each; shown by plan alone."
    )
    profiles: list[str] = Field(
        [], description="What profiles of llm-d-benchmark were read as, one line each; shown by plan alone."
    )
    differing: list[str] = Field(
        [], description="What engines are told besides what is compared, one line each; shown by plan alone."
    )
    files: list[str] = Field([], description="Configs that were laid over the default one.")


def read_plan(path: Path) -> PlanFile:
    """Read and validate a plan file; raise `UserError` naming file and field where it is none."""
    return read_model(path, PlanFile, "give the path of a plan file; the workflow writes a damaged one again")


def is_plan(path: Path) -> bool:
    """Return whether a whole plan file lies at `path`."""
    try:
        read_plan(path)
    except UserError:
        return False
    return True


def write_plan(path: Path, plan: PlanFile) -> None:
    """Write `plan` to `path`, whole or not at all; raise `UserError` where the file system refuses."""
    write_json(path, plan)
