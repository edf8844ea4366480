"""Bytes and operations of single operators, from shapes as torch's profiler writes them."""

from __future__ import annotations

import json

import pytest

from rollout_bench.bounds.architecture import Architecture, linear_shapes
from rollout_bench.bounds.arithmetic import decode_batch, step_costs
from rollout_bench.bounds.coding import plain
from rollout_bench.bounds.operators import OperatorCost, operator_cost

DEMO = Architecture(768, 12, 12, 4, 64, 2048, 16384, True)
LINEARS = linear_shapes(DEMO)
HALF, INT8, FLOAT = "c10::BFloat16", "signed char", "float"


@pytest.mark.parametrize(
    ("role", "shapes", "dtypes", "bits", "sizes", "moved"),
    [
        # from a real trace of vLLM 0.32 on cpu: the output first, weights behind a handle
        ("gate_up", [[32, 4096], [32, 768], [], []], [HALF, HALF, "", "long int"], None, (32, 768, 4096),
         2 * (32 * 768 + 768 * 4096 + 32 * 4096)),
        ("o", [[2048, 768], [2048, 768], [], []], [HALF, HALF, "", "long int"], None, (2048, 768, 768),
         2 * (2048 * 768 + 768 * 768 + 2048 * 768)),
        ("down", [[32, 768], [32, 2048], [32, 1], [], [1, 768], [], []], [HALF, INT8, FLOAT, "", FLOAT, "", "long int"],
         None, (32, 2048, 768), 32 * 2048 + 2048 * 768 + 2 * 32 * 768),
        # as many tokens as features
        ("o", [[768, 768], [768, 768], [], []], [HALF, HALF, "", ""], None, (768, 768, 768), 2 * 3 * 768 * 768),
        # aten::mm, aten::addmm, torchao's int8 weights, int8 weights that nothing shows
        ("qkv", [[8, 768], [768, 1280]], [HALF, HALF], None, (8, 768, 1280), 2 * (8 * 768 + 768 * 1280 + 8 * 1280)),
        ("qkv", [[1280], [8, 768], [768, 1280]], [HALF] * 3, None, (8, 768, 1280),
         2 * (8 * 768 + 768 * 1280 + 8 * 1280)),
        ("qkv", [[8, 768], [1280, 768], [1280]], [HALF, INT8, HALF], None, (8, 768, 1280),
         2 * (8 * 768 + 8 * 1280) + 768 * 1280),
        ("qkv", [[8, 768]], [HALF], 8, (8, 768, 1280), 2 * (8 * 768 + 8 * 1280) + 768 * 1280),
    ],
)  # fmt: skip
def test_a_linear_layer_costs_what_its_shapes_say(
    role: str,
    shapes: list[list[int]],
    dtypes: list[str],
    bits: float | None,
    sizes: tuple[int, int, int],
    moved: float,
):
    m, k, n = sizes
    found = operator_cost("linear", role, json.dumps(shapes), json.dumps(dtypes), linears=LINEARS, weight_bits=bits)
    assert found == OperatorCost(moved, 2 * m * k * n)


@pytest.mark.parametrize(
    ("shapes", "dtypes"),
    [
        ([[32, 4096], [32, 768], [], []], [HALF, HALF, "", ""]),
        ([[32, 768], [768, 4096]], [HALF, HALF]),
        ([[32, 768], [4096, 768]], [HALF, HALF]),
    ],
)
def test_shapes_alone_do_where_the_model_is_not_known(shapes: list[list[int]], dtypes: list[str]):
    found = operator_cost("linear", "", json.dumps(shapes), json.dumps(dtypes))
    assert found is not None
    assert found.flops == 2 * 32 * 768 * 4096


def test_attention_is_its_part_of_the_step():
    step = step_costs(DEMO, plain("bfloat16"), decode_batch(32, 80))
    whole = next(cost for cost in step if cost.category == "attention")
    assert operator_cost("attention", "", "", "", step=step, layers=12) == OperatorCost(
        whole.bytes / 12, whole.flops / 12
    )
    assert operator_cost("attention", "", "[[32, 12, 64]]", f'["{HALF}"]') is None


def test_operators_that_go_over_their_tensors_once_move_them():
    found = operator_cost("quantize", "", "[[32, 768], [32, 768], [32, 1], []]", f'["{INT8}", "{HALF}", "{FLOAT}", ""]')
    assert found == OperatorCost(32 * 768 * 3 + 32 * 4, 0)


@pytest.mark.parametrize(
    ("category", "shapes", "dtypes"),
    [
        ("linear", "", ""),
        ("linear", "not JSON", "[]"),
        ("linear", "[[32, 768]]", '["unheard of"]'),
        ("linear", "{}", "{}"),
        ("kv_cache", "[[682, 4, 128, 64]]", f'["{HALF}"]'),
        ("sampling", "[[32, 16384]]", '["float"]'),
    ],
)
def test_what_can_not_be_told_is_none(category: str, shapes: str, dtypes: str):
    assert operator_cost(category, "", shapes, dtypes, linears=LINEARS) is None
