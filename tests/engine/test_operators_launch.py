"""An operators launch on the real engine: every linear layer of each quant is called, and there is no throughput."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from launching import TINY_MODEL, Launching, own_flags, tiny_spec

from rollout_bench.analysis.inside.curves import runs_of
from rollout_bench.analysis.timed.experiments import Selected, chosen
from rollout_bench.contracts.inside import Operators
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import read_operators

pytestmark = pytest.mark.engine

TOKENS = [1, 8, 64]

SHAPES = {
    "qkv": (128, 256, 4),
    "o": (128, 128, 4),
    "gate_up": (128, 512, 2),
    "down": (256, 128, 2),
    "lm_head": (128, 2048, 1),
    "router": (128, 8, 2),
}
"""Of the model whose last two layers are mixtures."""


def operators_spec(**changes: Any) -> Spec:
    """Return the tiny spec in operators mode, five rounds of few tokens."""
    content = tiny_spec(**changes).model_dump(mode="json")
    settings = {"tokens": TOKENS, "repeats": 5, "warmup_rounds": 1, "min_s": 0.001}
    return Spec.model_validate({**content, "mode": "operators", "operators": settings})


W8A8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
            "input_activations": {
                "num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True
            },
        }
    },
}  # fmt: skip
"""What a checkpoint's config says of it."""


MIXTURE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "num_hidden_layers": 4,
    "mlp_only_layers": [0, 1],
}
"""What makes the tiny model a mixture of experts behind two layers of the tiny model's own."""


def timed(folder: Path, spec: Spec, model: Path | None = None) -> tuple[Launching, Operators]:
    launch = Launching(folder, spec, model=model)
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return launch, read_operators(launch.out)


@pytest.fixture(scope="module")
def bf16(tmp_path_factory: pytest.TempPathFactory) -> tuple[Launching, Operators]:
    model = tmp_path_factory.mktemp("mixture")
    (model / "config.json").write_text(json.dumps({**TINY_MODEL, **MIXTURE}))
    return timed(tmp_path_factory.mktemp("bf16"), operators_spec(), model)


@pytest.fixture(scope="module")
def w8a8(tmp_path_factory: pytest.TempPathFactory) -> tuple[Launching, Operators]:
    quant = {"name": "w8a8", "weights_format": "w8a8", "linear_dtypes": ["int8"], "linear_method": "W8A8Int8"}
    model = tmp_path_factory.mktemp("model")
    (model / "config.json").write_text(json.dumps({**TINY_MODEL, "quantization_config": W8A8}))
    return timed(tmp_path_factory.mktemp("w8a8"), operators_spec(quant=quant, engine={"multiprocess": True}), model)


def test_every_shape_is_timed_at_every_number_of_tokens_in_every_round(bf16: tuple[Launching, Operators]) -> None:
    _, record = bf16
    assert {s.role: (s.in_features, s.out_features, s.layers) for s in record.linears} == SHAPES
    assert [(p.role, p.tokens) for p in record.points] == [(role, tokens) for role in SHAPES for tokens in TOKENS]
    for point in record.points:
        assert len(point.warmup_seconds_per_call) == 1
        assert len(point.seconds_per_call) == len(record.host) >= 5
        assert point.calls % SHAPES[point.role][2] == 0
        assert all(1e-7 < seconds < 1 for seconds in point.seconds_per_call)
    assert record.decode_batch == 8
    assert record.evicted_bytes > 0


def test_more_tokens_take_longer(bf16: tuple[Launching, Operators]) -> None:
    _, record = bf16
    least = {(point.role, point.tokens): min(point.seconds_per_call) for point in record.points}
    assert least["gate_up", 1] < least["gate_up", 64]
    assert least["lm_head", 1] < least["lm_head", 64]


def test_the_record_has_no_throughput(bf16: tuple[Launching, Operators]) -> None:
    fields = bf16[1].model_dump(mode="json", exclude={"spec"})
    assert not {"iterations", "sequences_file"} & fields.keys()
    assert 'per_s"' not in bf16[1].model_dump_json(exclude={"spec"})


def test_each_quant_calls_its_own_kernels(bf16: tuple[Launching, Operators], w8a8: tuple[Launching, Operators]) -> None:
    assert set(bf16[1].engine.linear_methods) == {"UnquantizedLinearMethod", "UnquantizedFusedMoEMethod"}
    assert set(w8a8[1].engine.linear_methods) == {"CompressedTensorsW8A8Int8"}
    assert own_flags(bf16[1]) == own_flags(w8a8[1]) == []
    runs = runs_of(chosen([_selected(bf16[1]), _selected(w8a8[1])]), {"quant": "bf16"}, 0.95)
    assert runs[1].against is not None
    assert set(runs[1].against) == set(SHAPES) - {"router"}
    assert all(math.isfinite(value) for against in runs[1].against.values() for value in against.speedup.value)


def test_experts_of_a_mixture_are_timed_as_its_routers_chose_and_evenly(bf16: tuple[Launching, Operators]) -> None:
    _, record = bf16
    assert own_flags(record) == []
    assert record.experts is not None
    assert [(p.routing, p.tokens) for p in record.experts] == [
        (routing, tokens) for routing in ("uniform", "recorded") for tokens in TOKENS
    ]
    for point in record.experts:
        assert (point.experts, point.per_token, point.hidden_size, point.intermediate_size) == (8, 2, 128, 64)
        assert point.gated
        assert 2 <= point.hit <= min(8, 2 * point.tokens)
        assert point.weight_bytes == point.hit * 3 * 128 * 64 * 2
        assert point.busiest >= point.tokens * 2 / 8
        assert len(point.seconds_per_call) == len(record.host) >= 5
        assert all(1e-7 < seconds < 1 for seconds in point.seconds_per_call)
    even = {point.tokens: point for point in record.experts if point.routing == "uniform"}
    assert (even[8].hit, even[8].busiest, even[64].busiest) == (8, 2, 16)


def test_a_dense_model_has_no_experts_and_no_flag_on_them(w8a8: tuple[Launching, Operators]) -> None:
    assert w8a8[1].experts is None
    assert own_flags(w8a8[1]) == []


def test_nothing_else_is_left_beside_the_record(bf16: tuple[Launching, Operators]) -> None:
    launch, record = bf16
    assert launch.left_behind() == [f"operators/{record.spec.experiment()}/launch-0.json"]
    assert launch.survivors() == []
    assert [line for line in launch.said.splitlines() if "round 5/5" in line]


def _selected(record: Operators) -> Selected[Any]:
    spec = record.spec
    # Whatever else this machine had to do; and an engine core of its own leaves the worker fewer threads.
    record = record.model_copy(update={"validity": own_flags(record), "threads": 1})
    return Selected(
        spec.mode, spec.experiment(), spec.key(), "cpu", "tiny", spec.quant.name, "short", 1, (record,), (), ()
    )
