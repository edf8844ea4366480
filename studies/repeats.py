"""The repeats: one configuration under two names, with and without known differences, launched many times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from copies import Copy
from kept import Place

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.launches import measure
from rollout_bench.contracts.fields import Strict
from rollout_bench.numbers.registry import MetricName

FIRST, SECOND = "first", "second"
"""Two names for the same: quants that load the same bf16 weights with the same arguments."""

BASE = "base"
OUTPUT_TOKENS = {BASE: 100, "plus2": 102, "plus5": 105, "plus10": 110}
"""Workload -> output tokens of each sequence. A step takes about so many passes of the decoder, so as many per cent
more time; what else it does (prefill, handing over requests) stays the same."""

SAME_QUANT = {"weights_format": "bf16", "linear_dtypes": ["bfloat16"], "linear_method": "^Unquant"}

SETTINGS: dict[str, Any] = {
    "models": ["tiny"],
    "quants": [FIRST, SECOND],
    "workloads": list(OUTPUT_TOKENS),
    "launches": 1,
    "warmup_iterations": 1,
    "iterations": 10,
    "timeout_s": 300,
    "baseline": {"quant": FIRST},
    "comparison": {"metrics": ["output_tokens_per_s", "step_time_s"]},
    "model_settings": {"tiny": {"synthetic": {"preset": "qwen3-tiny"}}},
    "quant_settings": {FIRST: SAME_QUANT, SECOND: SAME_QUANT},
    "workload_settings": {
        name: {
            "prompts": 8,
            "samples_per_prompt": 2,
            "prompt_tokens": 16,
            "output_tokens": tokens,
            "engine_args": {
                "max_model_len": 128,
                "max_num_seqs": 16,
                "kv_cache_memory_bytes": 1 << 26,
                "enforce_eager": True,
            },
        }
        for name, tokens in OUTPUT_TOKENS.items()
    },
}
"""The copy's config. All workloads have the same `max_model_len`, so that the engine is the same for all."""


class Launch(Strict):
    """One launch in numbers; `iterations_s` and `warmup_s` are the seconds of each pass."""

    quant: str
    workload: str
    index: int
    started_at: str
    valid: bool
    flags: list[str]
    output_tokens_per_s: float
    step_time_s: float
    startup_s: float
    wall_s: float
    warmup_s: list[float]
    iterations_s: list[float]

    def value(self, metric: MetricName) -> float:
        """Return the launch's value of a metric."""
        return float(getattr(self, metric))


class Launches(Strict):
    """All launches that were measured, where, and how many failed."""

    place: Place
    output_tokens: dict[str, int]
    failed: int
    launches: list[Launch]

    def values(self, metric: MetricName, quant: str, workload: str) -> dict[int, float]:
        """Launch index -> value of the valid launches of one side."""
        return {
            launch.index: launch.value(metric)
            for launch in self.launches
            if launch.valid and (launch.quant, launch.workload) == (quant, workload)
        }


def take(copy: Copy, launches: int, workloads: Sequence[str]) -> bool:
    """Measure what is missing of `launches` launches of each side in `copy`; True if none failed.

    All sides take turns: launch 0 of each comes before launch 1 of any.
    """
    chosen = f"workloads=[{','.join(workloads)}]"
    return copy.run("results/summary.txt", "--config", f"launches={launches}", chosen)


def read(folder: Path, place: Place) -> Launches:
    """Return what the copy at `folder`, on the machine `place`, have measured so far."""
    collection = collect(folder / "results", None)
    launches = []
    for experiment in collection.experiments:
        for record in experiment.records:
            measures = measure(record)
            passes = [(iteration.warmup, iteration.elapsed_s) for iteration in record.iterations]
            launches.append(
                Launch(
                    quant=experiment.quant,
                    workload=experiment.workload,
                    index=record.launch,
                    started_at=record.started_at,
                    valid=measures.valid,
                    flags=[flag.code for flag in measures.flags],
                    output_tokens_per_s=measures.output_tokens_per_s,
                    step_time_s=measures.values["step_time_s"],
                    startup_s=measures.values["startup_s"],
                    wall_s=record.wall_s,
                    warmup_s=[seconds for warmup, seconds in passes if warmup],
                    iterations_s=[seconds for warmup, seconds in passes if not warmup],
                )
            )
    return Launches(
        place=place,
        output_tokens=OUTPUT_TOKENS,
        failed=sum(len(experiment.failures) for experiment in collection.experiments),
        launches=sorted(launches, key=lambda launch: launch.started_at),
    )
