"""The plan file: selected experiments and launches, and skipped combinations with reasons.

The workflow writes it, and the summary and the figures read it. It needs only the standard library and pydantic.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from rollout_bench.contracts.axes import DEFAULT_SETTING
from rollout_bench.contracts.fields import Strict
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import read_model, write_json
from rollout_bench.plan.config import ComparisonSettings, Precision
from rollout_bench.plan.serving import Slo

PLAN = "plan.json"
"""Name of the plan of the last run in a results folder."""

Span = tuple[float, float | None]
"""Shortest and longest expected seconds; equal if something like it was measured. None: no longest is known."""


class PlannedLaunch(Strict):
    """One selected launch."""

    record: str = Field(description="Path of its record, relative to the parent of the results folder.")
    expected_s: float | None = Field(None, description="Expected duration, in seconds. Null: nothing was measured yet.")
    usual_s: Span | None = Field(
        None, description="Usual shortest and longest duration before anything is measured, in seconds. Null: unknown."
    )

    @property
    def span(self) -> Span | None:
        """Shortest and longest expected seconds; None if unknown."""
        return self.usual_s if self.expected_s is None else (self.expected_s, self.expected_s)


class PlannedExperiment(Strict):
    """One selected experiment."""

    mode: str = Field(description="Mode of measurement: offline, online.")
    experiment: str = Field(description="Folder name of the experiment below its mode.")
    key: str = Field(description="First 8 hex digits of sha256 over the spec's canonical JSON.")
    platform: str = Field(description="Kind of device: cpu, cuda, ascend.")
    model: str = Field(description="The model's name in the config.")
    quant: str = Field(description="The quantization's name in the config.")
    workload: str = Field(description="The workload's name in the config.")
    setting: str = Field(DEFAULT_SETTING, description="The setting's name in the config.")
    launches: int = Field(
        description="Wanted launches, or their maximum if precision is set: indices 0 to launches - 1."
    )
    devices: int = Field(1, ge=0, description="Devices of a launch; 0 for an endpoint.")


class InterleavedGroup(Strict):
    """Experiments whose launches of one index are measured as one block."""

    mode: str = Field(description="Mode of measurement.")
    experiments: list[str] = Field(description="Folder names of the experiments, the baseline's first.")
    name: str = Field(description="Common and differing names of the experiments, in words.")


class Skipped(Strict):
    """A combination of the selected axes that cannot be measured."""

    mode: str = Field(description="Mode of measurement.")
    model: str = Field(description="The model's name in the config.")
    quant: str = Field(description="The quantization's name in the config.")
    workload: str = Field(description="The workload's name in the config.")
    setting: str = Field(DEFAULT_SETTING, description="The setting's name in the config.")
    reason: str = Field(description="Reason for skipping it, in one line.")
    remedy: str = Field(description="How to have it measured, in one line.")


class PlanFile(Strict):
    """Everything that is selected."""

    schema_version: Literal[1] = Field(description="Version of this schema.")
    results: str = Field(description="The results folder, as the config names it.")
    baseline: dict[str, str] = Field(description="Baseline of the speed-ups, as axis -> value: {quant: bf16}.")
    comparison: ComparisonSettings = Field(ComparisonSettings(), description="Rules for reporting a difference.")
    precision: Precision | None = Field(None, description="Stopping rule for launches; null if their number is fixed.")
    order_seed: int | None = Field(
        None, description="Seed of the order of launches within each round; null in plans with a fixed order."
    )
    slo: Slo = Field(Slo(), description="Limits of a good request.")
    experiments: list[PlannedExperiment] = Field(description="In the order of the tables.")
    skipped: list[Skipped] = Field(description="Combinations that cannot be measured.")
    interleaved: list[InterleavedGroup] = Field(
        [], description="Interleaved experiments: one launch of each is one job."
    )
    not_interleaved: list[str] = Field(
        [], description="Comparisons that could be interleaved but are not, with the reason: one line each."
    )
    launches: list[PlannedLaunch] = Field(description="In order of execution.")
    again: list[str] = Field(
        [],
        description=(
            "Existing records that are measured again, because the model's files have changed, or because their block "
            "lost a record; only shown by plan."
        ),
    )
    changed: list[str] = Field(
        [], description="Files of models that changed since the measurement, one line each; only shown by plan."
    )
    profiles: list[str] = Field(
        [], description="Interpretation of llm-d-benchmark's profiles, one line each; only shown by plan."
    )
    differing: list[str] = Field(
        [], description="Differences besides the compared ones, and settings without effect; only shown by plan."
    )
    files: list[str] = Field([], description="Configs that were merged over the default one.")
    overrides: list[str] = Field([], description="Values of the command line that were laid over them, KEY=VALUE.")


def read_plan(path: Path) -> PlanFile:
    """Read and validate a plan file.

    Raises:
        UserError: the file is not a valid plan; the message names file and field.
    """
    remedy = "give the path of a plan file; the workflow writes a damaged one again"
    if not path.exists():
        remedy = "give the path of a plan file; if results/ was moved during a run, run the same command again"
    return read_model(path, PlanFile, remedy)


def is_plan(path: Path) -> bool:
    """Return whether `path` is a valid plan file."""
    try:
        read_plan(path)
    except UserError:
        return False
    return True


def write_plan(path: Path, plan: PlanFile) -> None:
    """Write `plan` to `path` atomically.

    Raises:
        UserError: the file system refuses.
    """
    write_json(path, plan)
