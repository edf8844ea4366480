"""Profiles for tests: events, step times and records made of the microseconds that a test chooses for each part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from synthetic_records import make_record, make_spec

from rollout_bench.analysis.inside.profiles import HOST_GAP, Part, ProfiledExperiment
from rollout_bench.contracts.inside import Phase, Profile
from rollout_bench.contracts.record import Flag

Parts = Mapping[Part, float]

TOKENS: dict[Phase, int] = {"prefill": 2048, "mixed": 2048, "decode": 32}
"""Of a step: the workload of `synthetic_records` fits into one prefill step."""

LAYERS = {"qkv": (768, 1280), "o": (768, 768), "gate_up": (768, 4096), "down": (2048, 768), "lm_head": (768, 16384)}
"""K and N of the linear layers of the demo model."""

BF16: dict[Phase, Parts] = {
    "prefill": {
        ("linear", "qkv"): 90_000.0,
        ("linear", "gate_up"): 310_000.0,
        ("attention", ""): 60_000.0,
        ("norm", ""): 30_000.0,
        (HOST_GAP, ""): 10_000.0,
    },
    "decode": {
        ("linear", "qkv"): 5_000.0,
        ("linear", "gate_up"): 13_000.0,
        ("attention", ""): 4_000.0,
        ("norm", ""): 1_000.0,
        ("kv_cache", ""): 500.0,
        ("sampling", ""): 1_500.0,
        (HOST_GAP, ""): 5_000.0,
    },
}
"""500 ms and 30 ms."""

W8A8: dict[Phase, Parts] = {
    "prefill": {**BF16["prefill"], ("linear", "gate_up"): 180_000.0, ("quantize", ""): 30_000.0},
    "decode": {**BF16["decode"], ("linear", "gate_up"): 6_000.0, ("quantize", ""): 2_000.0},
}
"""400 ms and 25 ms."""


def make_events(phases: Mapping[Phase, Parts], steps: int = 2, rank: int = 0, m: Mapping[Phase, int] = TOKENS) -> Any:
    """Return the categorised events: in each step a row for each part, one after the other, and the gap at its end."""
    rows: list[dict[str, Any]] = []
    for phase, parts in phases.items():
        shared = {"trace": f"{phase}.rank{rank}", "phase": phase, "rank": rank, "stream": "1", "dtypes": "", "path": ""}
        begin = 0.0
        for step in range(steps):
            length = sum(parts.values())
            shared |= {"step": step}
            rows.append(shared | _row("step", f"step {step}", begin, length, ("", "")))
            at = begin
            for part, us in parts.items():
                if part[0] != HOST_GAP and us > 0:
                    name = f"{part[0]}_{part[1]}_kernel" if part[1] else f"{part[0]}_kernel"
                    rows.append(shared | _row("device", name, at, us, part, m[phase]))
                    at += us
            begin += length
    return pd.DataFrame(rows)


def make_times(events: Any) -> Any:
    """Return what `step_times` makes of events that do not overlap."""
    by = ["trace", "phase", "rank", "step", "category", "role"]
    device = events[events["where"] == "device"].groupby(by, as_index=False)["self_us"].sum()
    device = device.rename(columns={"self_us": "us"})
    whole = events[events["where"] == "step"][[*by[:4], "duration_us"]]
    busy = device.groupby(by[:4], as_index=False)["us"].sum()
    gaps = whole.merge(busy, on=by[:4], how="left").fillna({"us": 0.0})
    gaps = gaps.assign(category=HOST_GAP, role="", us=gaps["duration_us"] - gaps["us"])
    return pd.concat([device, gaps[[*by, "us"]]], ignore_index=True)


def make_steps(
    phases: Mapping[Phase, Parts],
    *,
    overhead: float = 1.25,
    scatter: Sequence[float] = (0.99, 1.0, 1.01),
    tokens: Mapping[Phase, int] = TOKENS,
) -> list[dict[str, Any]]:
    """Return timed steps: profiled ones as long as those of the trace, the others shorter by `overhead`."""
    found = []
    for profiled in (False, True):
        for phase, parts in phases.items():
            length = sum(parts.values()) / 1e6 / (1 if profiled else overhead)
            found += [
                {
                    "phase": phase,
                    "profiled": profiled,
                    "elapsed_s": length * factor,
                    "tokens": tokens[phase],
                    "sequences": 32,
                    "context_tokens": 32 * 80,
                }
                for factor in scatter
            ]
    return found


def make_profile(quant: str = "bf16", steps: Sequence[Mapping[str, Any]] = (), flags: Sequence[Flag] = ()) -> Profile:
    """Return a record of a profile launch with these steps."""
    launched = make_record(make_spec(quant=quant), flags=flags).model_dump(mode="json")
    for field in ("iterations", "sequences_file"):
        launched.pop(field, None)
    return Profile.model_validate(
        {
            **launched,
            "linears": [
                {"role": role, "in_features": k, "out_features": n, "layers": 1 if role == "lm_head" else 12}
                for role, (k, n) in LAYERS.items()
            ],
            "steps": list(steps),
            "traces": [
                {"name": "decode.rank0.trace.json.gz", "phase": "decode", "rank": 0, "source": "torch", "size_bytes": 9}
            ],
            "traces_folder": "launch-0.traces",
        }
    )


def make_profiled(
    quant: str = "bf16",
    phases: Mapping[Phase, Parts] = BF16,
    *,
    baseline: str | None = None,
    model: str = "qwen3-90m",
    workload: str = "small",
    platform: str = "cpu",
    overhead: float = 1.25,
    scatter: Sequence[float] = (0.99, 1.0, 1.01),
    tokens: Mapping[Phase, int] = TOKENS,
    flags: Sequence[Flag] = (),
) -> ProfiledExperiment:
    """Return a profiled experiment whose steps are made of `phases`."""
    events = make_events(phases, m=tokens)
    return ProfiledExperiment(
        platform=platform,
        model=model,
        quant=quant,
        workload=workload,
        place=f"profile/{platform}_{model}_{quant}_{workload}",
        baseline=None if baseline is None else f"profile/{platform}_{model}_{baseline}_{workload}",
        record=make_profile(quant, make_steps(phases, overhead=overhead, scatter=scatter, tokens=tokens), flags),
        events=events,
        times=make_times(events),
        traces=f"profile/{model}_{quant}_{workload}-00000000/launch-0.traces/",
    )


def _row(where: str, name: str, start: float, us: float, part: Part, m: int | None = None) -> dict[str, Any]:
    linear = part[0] == "linear"
    k, n = LAYERS.get(part[1], (768, 768))
    return {
        "where": where,
        "name": name,
        "start_us": start,
        "duration_us": us,
        "self_us": us,
        "category": part[0],
        "role": part[1],
        "tokens": float(m) if linear and m else None,
        "shapes": json.dumps([[m, k], [k, n], []]) if linear else "",
    }
