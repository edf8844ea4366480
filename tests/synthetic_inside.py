"""A results folder with two quants, each timed offline and profiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import synthetic_profiles
from synthetic_profiles import make_events, make_profile, make_steps
from synthetic_records import make_record, make_sequences, make_spec

from rollout_bench.analysis.inside.profiles import READER
from rollout_bench.analysis.traces.events import write_events
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.inside import Phase, Profile
from rollout_bench.contracts.record import Flag, Record
from rollout_bench.contracts.spec import ProfileSettings, Spec
from rollout_bench.contracts.store import operators_path, record_path, write_launched, write_record

MODES, QUANTS = ("offline", "profile"), ("bf16", "w8a8")

INVALID = Flag(
    code="cpu_shared", severity="invalid", sentence="45.2 % of its cores' time other processes used (limit 25 %)"
)

_NAMES = {
    "linear": "aten::linear",
    "quantize": "_C::dynamic_scaled_int8_quant",
    "attention": "vllm::unified_attention",
    "norm": "_C::rms_norm",
    "kv_cache": "_C::reshape_and_cache",
    "sampling": "aten::argmax",
}
"""Category -> an operator that the rules take for one."""


def save_launch(
    results: Path, mode: str, quant: str, launch: int = 0, *, slow: float = 1.0, flags: Sequence[Flag] = ()
) -> None:
    """Write a launch in which everything took `slow` times as long as it should."""
    quantized = quant != "bf16"
    if mode == "offline":
        elapsed = (180.0 + launch, 184.0, 189.0) if not quantized else (225.0, 231.0 + launch, 234.0)
        record: Record | Profile = make_record(
            _sized(make_spec(quant=quant)), launch, [rate / slow for rate in elapsed], flags=flags
        )
    else:
        record = _profile(quant, launch, slow, flags)
    resolved = {"max_num_batched_tokens": 4096, "max_num_seqs": 64, "dtype": "bfloat16"}
    engine = record.engine.model_copy(update={"resolved": record.engine.resolved | resolved})
    # a launch takes longer than what is timed in it
    record = record.model_copy(update={"engine": engine, "wall_s": record.wall_s * max(1.0, slow)})
    path = record_path(results, mode, record.spec.experiment(), launch)
    if isinstance(record, Record):
        write_record(path, record, make_sequences(record))
        return
    # two launches of the same times are one, unless they began at different times
    write_launched(path, record.model_copy(update={"started_at": f"2025-01-01T{launch:02d}:00:00+00:00"}))
    if isinstance(record, Profile):
        # As if its traces had been read before.
        write_events(operators_path(path), _raw_events(quant, slow))
        operators_path(path).with_suffix(".txt").write_text(f"{READER}\n")


def _sized(spec: Spec) -> Spec:
    """Return `spec` with a model whose sizes are known."""
    shape = SyntheticModel(preset="qwen3-90m").resolve().model_dump(mode="json")
    return spec.model_copy(update={"model": spec.model.model_copy(update={"synthetic": shape})})


def _profile(quant: str, launch: int, slow: float, flags: Sequence[Flag]) -> Profile:
    content = _sized(make_spec(quant=quant)).model_dump() | {"mode": "profile", "profile": ProfileSettings()}
    spec = Spec.model_validate(content)
    record = make_profile(quant, make_steps(_parts(quant, slow)), flags)
    named = {"launch": launch, "traces_folder": f"launch-{launch}.traces"}
    return record.model_copy(update={"spec": spec, "key": spec.key(), **named})


def _parts(quant: str, slow: float) -> Mapping[Phase, Mapping[tuple[str, str], float]]:
    usual = synthetic_profiles.BF16 if quant == "bf16" else synthetic_profiles.W8A8
    # Of a slow launch not everything is slow alike, so that its shares are others, too.
    return {
        phase: {part: us * (slow if part[0] == "linear" else slow**0.5) for part, us in parts.items()}
        for phase, parts in usual.items()
    }


def _raw_events(quant: str, slow: float) -> Any:
    """Return the events as they are read, before anything is said of what they are for."""
    events = make_events(_parts(quant, slow))
    device = events["where"] == "device"
    events.loc[device, "name"] = events.loc[device, "category"].map(_NAMES)
    return events.drop(columns=["category", "role", "tokens"])
