"""What transformers scores beside the engine, where no engine is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rollout_bench.measure.drift.transformers_scores import scored_by_transformers
from rollout_bench.measure.server.stream import ServingFailed


def test_a_model_that_transformers_does_not_have_says_what_to_leave_out(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "of_tomorrow"}))
    with pytest.raises(ServingFailed) as failed:
        scored_by_transformers(str(tmp_path), {}, [([1, 2], [3])])
    assert failed.value.category == "not_scored"
    assert "of_tomorrow" in failed.value.cause
    assert failed.value.fix == "leave drift.reference.also_by out"
