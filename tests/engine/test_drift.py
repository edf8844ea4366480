"""config/drift.yaml as a user runs it, made tiny: the real engine samples, scores and says what drifts."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from launching import Launching
from workspace import TINY, Workspace

from rollout_bench.contracts.lora import Lora
from rollout_bench.contracts.spec import Spec
from rollout_bench.measure.engine.lora import adapter_tensors
from rollout_bench.modes.drift.record import Drift, ScoredRow, read_scores
from rollout_bench.modes.drift.settings import DriftSpec

pytestmark = pytest.mark.engine

PROMPTS, TOKENS, BATCHES = 8, 12, (1, 8)
TINY_DRIFT = {
    **TINY,
    "models": ["qwen3-30m"],
    "modes": ["drift"],
    "workloads": ["policy"],
    "drift": {"prompts": PROMPTS, "tokens": TOKENS, "batch_sizes": list(BATCHES)},
    "model_settings": {
        "qwen3-30m": {
            "synthetic": {
                "preset": "qwen3-90m",
                "shape": {
                    "num_hidden_layers": 1,
                    "hidden_size": 128,
                    "intermediate_size": 256,
                    "vocab_size": 2048,
                },
            }
        }
    },
    "workload_settings": {"policy": {"prompts": 3, "prompt_tokens": 130, "output_tokens": 4}},
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace in which two quants scored what bf16 sampled."""
    workspace = Workspace(tmp_path_factory.mktemp("drift") / "workspace").with_forked_engines()
    (workspace.path / "tiny.yaml").write_text(yaml.safe_dump(TINY_DRIFT))
    done = workspace.snakemake("--configfile", "config/drift.yaml", "tiny.yaml")
    assert done.returncode == 0, done.stdout
    return workspace


def launch(workspace: Workspace, quant: str, workload: str = "policy") -> tuple[Drift, list[ScoredRow]]:
    """Return the record of a quant's launch with its side file; `workload` with the setting, if there is one."""
    (path,) = workspace.path.glob(f"results/drift/*_{quant}_{workload}-????????/launch-0.json")
    return read_scores(path)


def test_the_reference_samples_once_and_all_score_the_same(measured: Workspace):
    record, rows = launch(measured, "bf16")
    sampled = [row for row in rows if row.batch is None]
    assert [row.sequence for row in sampled] == list(range(PROMPTS))
    assert all(len(row.prompt_token_ids or ()) == 130 for row in sampled)
    assert len({tuple(row.prompt_token_ids or ()) for row in sampled}) == PROMPTS
    assert len({tuple(row.token_ids or ()) for row in sampled}) == PROMPTS  # each with a seed of its own
    assert record.scored_tokens == PROMPTS * TOKENS
    other, scored = launch(measured, "w8a8")
    assert other.tokens_sha256 == record.tokens_sha256
    assert [row.batch for row in scored] == [batch for batch in BATCHES for _ in range(PROMPTS)]
    assert all(row.token_ids is None for row in scored)
    assert other.spec.of(DriftSpec).reference == record.spec.experiment()


def test_log_probabilities_are_those_of_the_sampled_tokens(measured: Workspace):
    _, rows = launch(measured, "bf16")
    assert all(-20 < value < 0 for row in rows for value in row.logprobs)
    sampled, scored = ([row.logprobs for row in rows if row.batch == batch] for batch in (None, 1))
    # what decoding gave the tokens, and what scoring gives them, are one model's: far closer than tokens are apart
    assert _farthest(sampled, scored) < 0.1
    assert math.isclose(sum(map(sum, sampled)), sum(map(sum, scored)), rel_tol=0.01)


def test_the_summary_says_what_drifts_and_what_the_floor_is(measured: Workspace):
    with (measured.path / "results/drift.csv").open() as file:
        lines = list(csv.DictReader(file))
    found = [(line["quant"], line["batch"], line["launches"], line["drifts"]) for line in lines]
    assert found[2:] == [("w8a8", "1", "0", "True"), ("w8a8", "8", "0", "True")]
    floor, *others = (float(line["mean_abs_d_nats"]) for line in lines[1:])
    assert min(others) > floor
    assert "drifts more than bf16 against itself" in (measured.path / "results/summary.md").read_text()


def test_in_float32_the_engine_gives_tokens_what_transformers_gives_them(measured: Workspace, tmp_path: Path):
    plain, rows = launch(measured, "bf16")
    content = plain.spec.model_dump()
    engine = content["engine"] | {"args": content["engine"]["args"] | {"dtype": "float32"}}
    spec = Spec.model_validate(content | {"engine": engine, "quant": content["quant"] | {"linear_dtypes": ["float32"]}})
    one = Launching(tmp_path, spec, model=_model(measured, "bf16"))
    assert one.finish() == 0, one.log_text()
    record, exact = read_scores(one.out)
    assert not [flag for flag in record.validity if flag.severity == "invalid"]
    assert set(record.engine.weights_bytes_by_dtype.linear) == {"float32"}
    theirs = _by_transformers(_model(measured, "bf16"), [row for row in exact if row.batch is None])
    for batch in (None, *BATCHES):
        assert _farthest([row.logprobs for row in exact if row.batch == batch], theirs) < 1e-4
    again = [
        (a.logprobs, b.logprobs)
        for a, b in zip(rows, exact, strict=False)
        if a.token_ids and a.token_ids == b.token_ids
    ]
    assert _farthest(*zip(*again, strict=True)) > 1e-3  # bf16 gives the same tokens something else


def test_an_adapter_merged_in_float32_is_the_one_kept_apart_and_bf16_drifts_from_both(tmp_path: Path):
    """config/lora-drift.yaml: transformers, with the adapter added to its weights, says what has to come out."""
    workspace = Workspace(tmp_path / "workspace").with_forked_engines()
    (workspace.path / "tiny.yaml").write_text(yaml.safe_dump({**TINY_DRIFT, "quants": ["fp32", "bf16"]}))
    done = workspace.snakemake("--configfile", "config/lora-drift.yaml", "tiny.yaml")
    assert done.returncode == 0, done.stdout
    records, given = {}, {}
    for path in workspace.path.glob("results/drift/*/launch-0.json"):
        record, rows = read_scores(path)
        name = record.spec.quant.name, record.spec.setting
        records[name], given[name] = record, {batch: _logprobs(rows, batch) for batch in BATCHES}
        if name == ("fp32", None):
            sampled = [row for row in rows if row.batch is None]
    assert len(records) == 4
    for record in records.values():
        adapter = record.engine.adapter
        assert adapter is not None
        assert adapter.held_values == adapter.values
        assert adapter.logprob_difference > 0.01
        assert not [flag for flag in record.validity if flag.severity == "invalid"]
    model, lora = _model(workspace, "bf16"), records["fp32", None].spec.lora
    assert lora is not None
    exact = _by_transformers(model, sampled, lora)
    assert _farthest(_by_transformers(model, sampled), exact) > 0.05  # the adapter acts
    for batch in BATCHES:
        assert _farthest(given["fp32", None][batch], exact) < 1e-4
        assert _farthest(given["fp32", "apart"][batch], exact) < 1e-4
        for name in (("bf16", None), ("bf16", "apart")):
            assert 1e-3 < _farthest(given[name][batch], exact) < 0.05
        assert _farthest(given["bf16", None][batch], given["bf16", "apart"][batch]) > 1e-3
    assert "Merging the adapter, qwen3-30m bf16 policy against bf16 apart: " in (
        (workspace.path / "results/summary.md").read_text()
    )


def _logprobs(rows: Sequence[ScoredRow], batch: int) -> list[list[float]]:
    return [row.logprobs for row in rows if row.batch == batch]


def _by_transformers(model: Path, sampled: Sequence[ScoredRow], lora: Lora | None = None) -> list[list[float]]:
    """Return what transformers gives the tokens, in float32 with its plainest attention, one sequence at a time.

    `lora`: an adapter that is added to the weights.
    """
    from transformers import AutoModelForCausalLM  # seconds, and not in each process that collects this test

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    tensors = adapter_tensors(str(model), lora) if lora else {}
    for name, module in loaded.named_modules():
        halves = [tensors.get(f"base_model.model.{name}.lora_{half}.weight") for half in "BA"]
        if lora is not None and halves[0] is not None and halves[1] is not None:
            module.weight.data += lora.scale * halves[0].float() @ halves[1].float()
    found = []
    for row in sampled:
        ids = torch.tensor([*(row.prompt_token_ids or ()), *(row.token_ids or ())])
        own = ids[len(row.prompt_token_ids or ()) :]
        with torch.inference_mode():
            before = loaded(input_ids=ids[None], use_cache=False).logits[0, -len(own) - 1 : -1].double()
        found.append(before.log_softmax(-1).gather(1, own[:, None])[:, 0].tolist())
    return found


def _farthest(some: Sequence[list[float]], others: Sequence[list[float]]) -> float:
    """Return the largest difference of what both give a token."""
    return max(abs(p - q) for a, b in zip(some, others, strict=True) for p, q in zip(a, b, strict=True))


def _model(workspace: Workspace, quant: str) -> Path:
    (folder,) = (workspace.path / "models" / "synthetic").glob(f"*{quant}")
    return folder
