"""The trainer's stand-in computes what it says: one gradient, however sequences are shared out and batched."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import TINY_MODEL
from safetensors.torch import save_file

from rollout_bench.modes.placement import trainer as trainer_module
from rollout_bench.modes.placement.shares import Trajectory, advantage
from rollout_bench.modes.placement.trainer import PolicyTrainer, model_of

SMALL = {**TINY_MODEL, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8, "vocab_size": 64}
CPU = torch.device("cpu")


def folder_of(tmp_path: Path, **changes: Any) -> str:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, **changes}))
    return str(tmp_path)


def drawn(tmp_path: Path, **changes: Any) -> Any:
    return model_of(folder_of(tmp_path, **changes), has_weights=False, trust_remote_code=False, device=CPU)


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """Return a model in float32: sums in bf16 depend on their order. One thread, as tests share the cores."""
    torch.set_num_threads(1)
    return drawn(tmp_path).float()


LENGTHS = [(3, 2, 5), (1, 9, 1), (2, 4, 3), (5, 1, 7), (4, 6, 2), (2, 3, 8)]


def trajectories() -> list[Trajectory]:
    draw = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        return torch.randint(0, 64, (count,), generator=draw).tolist()

    return [Trajectory(n // 3, n % 3, ids(given), ids(sampled)) for n, (_, given, sampled) in enumerate(LENGTHS)]


SAMPLED = sum(sampled for _, _, sampled in LENGTHS)


def gradients(model: Any, micro_batch: int, made: list[Trajectory]) -> list[torch.Tensor]:
    trainer = PolicyTrainer(model, samples=3)
    model.zero_grad(set_to_none=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "MICRO_BATCH", micro_batch)
        trainer.train(made, SAMPLED)
    return [gradient.clone() for gradient in trainer.gradients()]


def alike(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(one, other, strict=True))


def test_micro_batches_add_up_to_one_batch(model: Any):
    whole = gradients(model, 6, trajectories())
    assert max(float(gradient.abs().max()) for gradient in whole) > 1e-3
    assert alike(gradients(model, 2, trajectories()), whole)


def test_the_loss_weights_only_sampled_log_probabilities_by_advantage(model: Any):
    one = trajectories()[2]
    ids = torch.tensor([[*one.prompt_token_ids, *one.output_token_ids]])
    with torch.no_grad():
        said = model(input_ids=ids).logits.log_softmax(-1)[0]
    sampled = range(len(one.prompt_token_ids), one.tokens)
    expected = -advantage(one.sample, 3) * sum(float(said[place - 1, ids[0, place]]) for place in sampled)
    # a longer one beside it, so that it is padded
    trainer = PolicyTrainer(model, samples=3)
    alone = trainer.train([one], SAMPLED)
    assert alone == pytest.approx(expected / len(sampled), rel=1e-4)
    other = trajectories()[1]
    both = trainer.train([one, other], SAMPLED)
    apart = trainer.train([other], SAMPLED)
    total = alone * len(one.output_token_ids) + apart * len(other.output_token_ids)
    assert both * (len(one.output_token_ids) + len(other.output_token_ids)) == pytest.approx(total, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_the_trainer_sends_the_checkpoints_weights_by_its_names(tmp_path: Path, tied: bool):
    torch.manual_seed(5)
    source = drawn(tmp_path / "source", tie_word_embeddings=tied)
    stored = {name: torch.randn_like(tensor) for name, tensor in source.named_parameters()}
    if tied:
        assert "lm_head.weight" not in stored
        stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()  # as some checkpoints have it, too
    folder = folder_of(tmp_path / "checkpoint", tie_word_embeddings=tied)
    save_file(stored, Path(folder) / "model.safetensors")
    model = model_of(folder, has_weights=True, trust_remote_code=False, device=CPU)
    sent = dict(PolicyTrainer(model, 1).weights())
    assert sent.keys() == dict(source.named_parameters()).keys()
    assert all(torch.equal(tensor, stored[name].bfloat16()) for name, tensor in sent.items())
