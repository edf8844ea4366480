"""Drift of a mixture of experts on the real engine: which experts its routers choose for the same tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from launching import Launching, tiny_spec
from transformers import AutoModelForCausalLM

from rollout_bench.analysis.inside.drifts import experts_of
from rollout_bench.analysis.inside.overview import look
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.inside import Drift, Routers, ScoredRow
from rollout_bench.contracts.side_files import read_scores
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import read_drift, scores_path
from rollout_bench.report.summary import summarise

pytestmark = [pytest.mark.engine, pytest.mark.untimed]

PROMPTS, TOKENS, BATCHES = 6, 8, (1, 4)


def mixture_spec(dtype: str, reference: Spec | None = None) -> Spec:
    """Return the spec of a mixture, whose prompts have many lengths."""
    content = tiny_spec(
        quant={"name": "bf16" if dtype == "bfloat16" else dtype, "linear_dtypes": [dtype]},
        workload={"prompt_tokens": {"distribution": "uniform", "low": 10, "high": 60}},
    ).model_dump(mode="json")
    content["engine"]["args"] |= {"load_format": "auto", "dtype": dtype}
    content["engine"]["multiprocess"] = reference is not None  # its worker is then in a process of its own
    drift = {"prompts": PROMPTS, "tokens": TOKENS, "batch_sizes": BATCHES}
    if reference is not None:
        drift["reference"] = reference.experiment()
    return Spec.model_validate(content | {"mode": "drift", "drift": drift})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixture") / "model"
    build_checkpoint(SyntheticModel(preset="qwen3-moe-tiny").resolve(), "bf16", folder)
    return folder


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Path, list[tuple[Drift, list[ScoredRow]]]]:
    """Return the results of the mixture in bf16, and in float32, which scores the same tokens."""
    folder, found = tmp_path_factory.mktemp("scored"), []
    reference = mixture_spec("bfloat16")
    for spec in (reference, mixture_spec("float32", reference)):
        one = Launching(folder, spec, model=model)
        assert one.finish() == 0, one.said + one.log_text()[-3000:]
        record = read_drift(one.out)
        found.append((record, read_scores(scores_path(one.out), record)))
    return folder / "results", found


def test_routing_is_that_of_transformers_in_each_place_of_each_sequence(
    scored: tuple[Path, list[tuple[Drift, list[ScoredRow]]]], model: Path
):
    (_, sampled), (record, rows) = scored[1]
    assert record.routers == Routers(layers=2, per_token=2)
    assert record.routing_unknown is None
    exact = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    routed = [row for row in rows if row.batch is not None]
    assert [row.batch for row in routed] == [batch for batch in BATCHES for _ in range(PROMPTS)]
    theirs = {}
    for row in sampled[:PROMPTS]:
        prompt, tokens = row.prompt_token_ids or [], row.token_ids or []
        with torch.inference_mode():
            said = exact(input_ids=torch.tensor([prompt + tokens]), output_router_logits=True, use_cache=False)
        logits = torch.stack([layer.float() for layer in said.router_logits])
        theirs[row.sequence] = np.sort(logits.topk(2).indices[:, len(prompt) - 1 : -1].numpy())
    assert len({each.tobytes() for each in theirs.values()}) == PROMPTS
    same = [np.array_equal(experts_of(row), theirs[row.sequence]) for row in routed]
    assert all(same)


def test_in_bf16_few_experts_are_others_and_the_table_says_how_many(
    scored: tuple[Path, list[tuple[Drift, list[ScoredRow]]]],
):
    results = scored[0]
    collection = collect(results, None)
    looked = look(results, collection, [])
    floor, *others = [one for one in looked.drift.drifted if one.batch is not None]
    assert floor.of_reference
    assert floor.found.other_experts is not None
    for one in others:
        assert one.found.other_experts is not None
        assert one.found.other_sets is not None
        assert floor.found.other_experts.value <= one.found.other_experts.value < 0.2
        assert one.found.other_experts.value <= one.found.other_sets.value
    text = summarise(collection, looked=looked, results=results).markdown
    assert "| other experts % | other sets % |" in text
