"""Weights that are quantized apart from their product: what gives it its scale is no norm and no activation."""

from __future__ import annotations

import pandas as pd
import pytest

from rollout_bench.analysis.traces.categories import categorise


@pytest.mark.parametrize(
    ("first", "category"), [("aten::mul", "quantize"), ("aten::add", "norm"), ("aten::pow", "norm")]
)
def test_what_gives_a_product_its_scale_counts_as_quantizing(first: str, category: str):
    names = ["aten::mm", "aten::view", first, "aten::view", "aten::pow", "aten::rsqrt", "aten::mul", "_C::onednn_mm"]
    frame = pd.DataFrame(
        {
            "trace": "t", "phase": "decode", "rank": 0, "step": 0, "where": "device", "name": names, "path": "",
            "stream": "", "start_us": [10.0 * i for i in range(len(names))], "duration_us": 5.0, "self_us": 5.0,
            "shapes": "", "dtypes": "",
        }
    )  # fmt: skip
    found = categorise(frame, platform="cpu")
    assert found["category"].tolist()[2] == category
    assert found["category"].tolist()[4:7] == ["norm"] * 3
