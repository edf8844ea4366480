"""The trainer's stand-in computes what it says: one gradient, however sequences are shared out and batched."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import TINY_MODEL
from safetensors.torch import save_file
from sharded_training import CPU, MADE, SAMPLED, keep_trained, trained
from torch.multiprocessing.spawn import start_processes

from rollout_bench.modes.placement import trainer as trainer_module
from rollout_bench.modes.placement.shares import advantage
from rollout_bench.modes.placement.trainer import PolicyTrainer, model_of

SMALL = {**TINY_MODEL, "hidden_size": 32, "intermediate_size": 48, "head_dim": 8, "vocab_size": 64}


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


def gradients(model: Any, micro_batch: int) -> list[torch.Tensor]:
    trainer = PolicyTrainer(model, samples=3)
    model.zero_grad(set_to_none=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "MICRO_BATCH", micro_batch)
        trainer.train(MADE, SAMPLED, len(MADE))
    return [gradient.clone() for gradient in trainer.gradients()]


def test_micro_batches_add_up_to_one_batch(model: Any):
    whole, parts = gradients(model, 6), gradients(model, 2)
    assert max(float(gradient.abs().max()) for gradient in whole) > 1e-3
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(parts, whole, strict=True))


def test_layers_are_computed_again_in_the_backward_pass(model: Any):
    computed = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: computed.append(0))
    gradients(model, 3)
    assert len(computed) == 2 * 2  # two micro-batches


def test_a_sharded_trainer_has_the_weights_of_one_with_all(tmp_path: Path):
    folder = folder_of(tmp_path)
    # forks of a process that has imported what each would for 5 s
    multiprocessing.set_forkserver_preload([trainer_module.__name__, "transformers.models.qwen3.modeling_qwen3"])
    start_processes(keep_trained, (folder,), nprocs=4, start_method="forkserver")
    alone = trained(folder, 0, 1)
    held = alone.pop("held")
    drawn_first = dict(PolicyTrainer(drawn(tmp_path), 3).weights())
    for rank in range(4):  # of 6 sequences the ranks have 1, 2, 1, 2
        sharded = torch.load(tmp_path / f"{rank}.pt")
        assert sharded.pop("held") < held / 3
        assert sharded.keys() == alone.keys()
        for name, tensor in sharded.items():
            assert torch.allclose(tensor, alone[name], rtol=2**-7, atol=1e-5)
            assert name.endswith("norm.weight") or not torch.equal(tensor, drawn_first[name])


def test_the_loss_weights_only_sampled_log_probabilities_by_advantage(model: Any):
    trainer, expected = PolicyTrainer(model, samples=3), []
    one, longer = pair = [MADE[2], MADE[1]]  # together the shorter is padded
    for each in pair:
        ids = torch.tensor([[*each.prompt_token_ids, *each.output_token_ids]])
        with torch.no_grad():
            logprobs = model(input_ids=ids).logits.log_softmax(-1)[0]
        sampled = range(len(each.prompt_token_ids), each.tokens)
        expected.append(-advantage(each.sample, 3) * sum(float(logprobs[n - 1, ids[0, n]]) for n in sampled))
    count = len(one.output_token_ids)
    assert trainer.train([one], SAMPLED, 1) == pytest.approx(expected[0] / count, rel=1e-4)
    both = trainer.train(pair, SAMPLED, 2) * (count + len(longer.output_token_ids))
    assert both == pytest.approx(sum(expected), rel=1e-4, abs=1e-5)


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
