"""Calibrations: records of mode steps, and the one whose engine an experiment would use."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout_bench.contracts.forecasts import unversioned_engine
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.steps import StepRow, Steps, passes_of, read_steps
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import grouped
from rollout_bench.modes.steps import MODE
from rollout_bench.modes.steps.predict.model import StepModel, fit

FREE = frozenset(
    {
        "max_model_len",
        "max_num_seqs",
        "max_num_batched_tokens",
        "enable_prefix_caching",
        "enable_chunked_prefill",
    }
)
"""Engine arguments that change which steps there are, and not how long one of the same work takes."""

SAMPLING = ("temperature", "top_p", "top_k", "logprobs")
"""Fields of a workload on which the time of a step depends."""


@dataclass(frozen=True)
class Calibration:
    """The valid launches of one steps experiment, with their steps."""

    launches: tuple[Steps, ...]
    steps: tuple[tuple[StepRow, ...], ...]

    def model(self) -> StepModel:
        """Return the model of the steps' times."""
        record = self.launches[0]
        passes = [passes_of(rows) for rows in self.steps]
        seed = int(self.spec.key(), 16)  # errors of two calibrations must not cancel in a ratio
        return fit(passes, record.captured_sizes, overlapped=record.async_scheduling, seed=seed)

    @property
    def spec(self) -> Spec:
        """The spec of its launches."""
        return self.launches[0].spec


def calibrations(results: Path) -> list[Calibration]:
    """Return the calibrations in a results folder.

    Raises:
        UserError: a record or its side file is damaged.
    """
    records = (read_steps(path) for path in sorted(results.glob(f"{MODE.name}/[!.]*/launch-*.json")))
    valid = [(record.key, (record, rows)) for record, rows in records if record.valid]
    return [
        Calibration(tuple(record for record, _ in each), tuple(tuple(rows) for _, rows in each))
        for each in grouped(valid).values()
    ]


def calibration_of(spec: Spec, among: Sequence[Calibration]) -> Calibration:
    """Return the calibration of the engine that `spec` uses.

    Its version may be another, as on a machine without the device; the same one is preferred, then the one with most
    launches.

    Raises:
        UserError: there is none.
    """
    fitting = [each for each in among if _timing_settings(each.spec) == _timing_settings(spec)]
    if not fitting:
        raise UserError(
            f"{spec.model.name} {spec.quant.name}: {_why_uncalibrated(spec, among)}",
            f"measure one, for steps.seconds after a start: rollout-bench run with the same config files and --config "
            f"modes=[{MODE.name}]",
        )
    return max(fitting, key=lambda each: (each.spec.engine.version == spec.engine.version, len(each.launches)))


def same_model(one: Spec, other: Spec) -> bool:
    """Return whether two experiments run a model in the same way: sampling, processes and scheduling may differ."""
    first, second = (
        {**whole, "workload": None, "engine": whole["engine"]["args"]} for whole in map(_timing_settings, (one, other))
    )
    return first == second


def _timing_settings(spec: Spec) -> dict[str, Any]:
    """Return all that decides how long a step of given work takes, apart from the engine's version."""
    free = FREE if spec.platform == "cpu" else {*FREE, "data_parallel_size"}  # replicas divide the cores of a CPU
    engine = unversioned_engine(spec)
    args = {name: value for name, value in engine["args"].items() if name not in free}
    whole = spec.model_dump(mode="json", include={"platform", "model", "quant", "lora"})
    sampling = {name: getattr(spec.workload, name) for name in SAMPLING}
    return {**whole, "workload": sampling, "engine": {**engine, "args": args}}


def _why_uncalibrated(spec: Spec, among: Sequence[Calibration]) -> str:
    wanted = _timing_settings(spec)
    near = [
        each for each in among if all(_timing_settings(each.spec)[part] == wanted[part] for part in ("model", "quant"))
    ]
    if not near:
        return "there is no valid calibration of it"
    settings, calibrated = (
        each["engine"] | each["workload"] | each for each in (wanted, _timing_settings(near[0].spec))
    )
    both = [(name, settings.get(name), calibrated.get(name)) for name in {**settings, **calibrated}]
    differences = "; ".join(
        f"{name} is {here} here, {there} there"
        for name, here, there in both
        if here != there and name not in ("engine", "workload")
    )
    return f"its calibration is of another engine: {differences}"
