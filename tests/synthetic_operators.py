"""Records of operators launches for tests: a fixed time for each call and one for each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from synthetic_records import make_record, make_spec

from rollout_bench.analysis.timed.experiments import Selected
from rollout_bench.contracts.inside import Operators
from rollout_bench.contracts.record import Flag, Launched
from rollout_bench.contracts.spec import OperatorsSettings, Spec, decode_batch

TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

SHAPES = {
    "qkv": (768, 1280, 12),
    "o": (768, 768, 12),
    "gate_up": (768, 4096, 12),
    "down": (2048, 768, 12),
    "lm_head": (768, 16384, 1),
}
"""Role -> features in and out, layers."""


@dataclass(frozen=True)
class Kernel:
    """Seconds of a call: `call_s` and `token_s` for each token, for a layer of a million weights. Both scatter."""

    call_s: float = 50e-6
    token_s: float = 10e-6
    noise: float = 0.02


BF16 = Kernel()
W8A8 = Kernel(call_s=80e-6, token_s=5e-6)
"""Overtakes `BF16` at 6 tokens."""


def make_operators_spec(model: str = "qwen3-90m", quant: str = "bf16", workload: str = "small") -> Spec:
    content = make_spec(model, quant, workload).model_dump()
    settings = OperatorsSettings(tokens=list(TOKENS)).with_batch(decode_batch(8, 4, {}))
    return Spec.model_validate(content | {"mode": "operators", "operators": settings.model_dump()})


def make_operators(
    spec: Spec,
    launch: int = 0,
    kernel: Kernel = BF16,
    *,
    rounds: int = 20,
    shapes: Mapping[str, tuple[int, int, int]] = SHAPES,
    tokens: Sequence[int] = TOKENS,
    flags: Sequence[Flag] = (),
) -> Operators:
    """Return a launch whose calls take what `kernel` says."""
    random = np.random.default_rng([launch, int(1e9 * kernel.call_s)])
    of_launch = 1 + kernel.noise * random.standard_normal()
    points = []
    for role, (into, out, layers) in shapes.items():
        for each in tokens:
            true_s = (kernel.call_s + kernel.token_s * each) * into * out / 1e6 * of_launch
            noise = 1 + kernel.noise * random.standard_normal(rounds + 2)
            times = [float(true_s * factor) for factor in noise]
            points.append(
                {"role": role, "in_features": into, "out_features": out, "tokens": each, "calls": layers,
                 "through": "calls", "warmup_seconds_per_call": times[:2], "seconds_per_call": times[2:]}
            )  # fmt: skip
    common = make_record(spec, launch, flags=flags).model_dump(exclude={"iterations", "sequences_file"})
    linears = [
        {"role": role, "in_features": into, "out_features": out, "layers": layers}
        for role, (into, out, layers) in shapes.items()
    ]
    more = {"linears": linears, "decode_batch": 32, "threads": 1, "evicted_bytes": 64 << 20, "points": points}
    return Operators.model_validate(common | more)


def selected(*records: Operators) -> Selected[Launched]:
    """Return the experiment of `records`, which have one spec."""
    spec = records[0].spec
    return Selected(
        spec.mode, spec.experiment(), spec.key(), spec.platform, spec.model.name, spec.quant.name, spec.workload.name,
        len(records), records, (), (),
    )  # fmt: skip
