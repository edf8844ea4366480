"""The trainer's stand-in: forward, backward and optimizer of the checkpoint's own model, in torch.

Parameters, gradients and AdamW's moments are bf16, on a CPU float32, since many have no bf16 and torch then takes ten
times as long. All are on each rank that trains (data parallel, nothing is sharded), without gradient checkpointing.
Trainers that keep master weights beside them, shard them or recompute activations do more: what this one measures is a
step of a plain trainer. Weights travel as bf16, as the checkpoint has them.

The loss is that of a policy gradient: minus the log-probability of each sampled token times the advantage of its
sequence, summed and divided by all sampled tokens of the step. So every token weighs the same, whichever rank and
micro-batch it is in: the sum of all ranks' gradients is that of one rank with all sequences in one batch. Advantages
are made up (`shares.advantage`): there is no reward.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.nn.functional import cross_entropy

from rollout_bench.contracts.spec import is_local
from rollout_bench.measure.placed.shares import Trajectory, advantage
from rollout_bench.measure.server.stream import ServingFailed

LEARNING_RATE = 1e-4
"""Of AdamW. Its steps are about as large, and a smaller one would be lost in bf16's 8 bits: weights near 0.02 have
neighbours 1.2e-4 apart."""

SEED = 0
"""Of weights where the checkpoint's are made up by the engine (load_format: dummy): the same on every rank."""


class Trainer(ABC):
    """What ranks that train have."""

    @abstractmethod
    def weights(self) -> list[tuple[str, torch.Tensor]]:
        """Return the weights that an engine is to take, by the checkpoint's names."""

    @abstractmethod
    def train(self, trajectories: Sequence[Trajectory], sampled_tokens: int) -> float | None:
        """Compute gradients of a rank's share.

        Args:
            trajectories: its sequences; there may be none.
            sampled_tokens: tokens that were sampled in the step, over all ranks.

        Returns:
            The mean loss of a token, over micro-batches; None where nothing is computed.
        """

    @abstractmethod
    def gradients(self) -> list[torch.Tensor]:
        """Return the gradients of all parameters, to be added up over ranks in place; none where none are computed."""

    @abstractmethod
    def optimize(self) -> None:
        """Change the weights by the gradients, which are gone then."""

    @abstractmethod
    def forget(self) -> None:
        """Drop the gradients."""


MICRO_BATCH = 4
"""Sequences that go through forward and backward at once; gradients accumulate over all of a device's."""


class PolicyTrainer(Trainer):
    """Trains a model.

    Args:
        model: the model, as transformers has it.
        samples: samples of each prompt.
    """

    def __init__(self, model: Any, samples: int) -> None:
        self.model = model
        self._samples = samples
        self._parameters = list(model.parameters())
        # on a GPU the usual way needs memory for one more copy of the model; this one is TRL's default, too
        fused = self._parameters[0].is_cuda
        self._optimizer = torch.optim.AdamW(self._parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=fused)

    def weights(self) -> list[tuple[str, torch.Tensor]]:
        """Return its parameters, tied ones once, as checkpoints have them."""
        return [(name, parameter.detach().bfloat16()) for name, parameter in self.model.named_parameters()]

    def train(self, trajectories: Sequence[Trajectory], sampled_tokens: int) -> float | None:
        """Go forward and backward through micro-batches of neighbours; gradients accumulate."""
        losses = []
        device = self._parameters[0].device
        # what dropout draws would be missing in the engine's sampler, and ranks of one engine have to draw alike
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for first in range(0, len(trajectories), MICRO_BATCH):
                batch = trajectories[first : first + MICRO_BATCH]
                summed = self._summed_loss(batch)
                (summed / sampled_tokens).backward()
                losses.append(summed.detach() / sum(len(one.output_token_ids) for one in batch))
        # read once they are all there: a device is waited for to read one
        return float(sum(losses)) / len(losses) if losses else None

    def gradients(self) -> list[torch.Tensor]:
        """Return the gradients of all parameters: zeros where a rank had nothing to train on."""
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]

    def optimize(self) -> None:
        """Make a step of AdamW."""
        self._optimizer.step()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def _summed_loss(self, batch: Sequence[Trajectory]) -> torch.Tensor:
        """Return the sum over sampled tokens of minus log-probability times advantage."""
        device = self._parameters[0].device
        longest = max(one.tokens for one in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.int64)
        weights = torch.zeros(len(batch), longest)
        for row, one in enumerate(batch):
            ids[row, : one.tokens] = torch.tensor([*one.prompt_token_ids, *one.output_token_ids])
            weights[row, len(one.prompt_token_ids) : one.tokens] = advantage(one.sample, self._samples)
        ids, weights = ids.to(device), weights.to(device)
        # logits of prompts, but for that of the first sampled token, are of no use, and large
        kept = longest - min(len(one.prompt_token_ids) for one in batch) + 1
        # what fills the shorter ones up comes last, where causal attention looks at it from nowhere else
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
        lost = cross_entropy(logits[:, :-1].float().transpose(1, 2), ids[:, 1 - kept :], reduction="none")
        return (lost * weights[:, 1 - kept :]).sum()


class TimedTrainer(Trainer):
    """Takes as long as it is told, and has weights that stay as they are.

    Args:
        weights: the checkpoint's.
        elapsed_s: how long this rank trains, in seconds.
    """

    def __init__(self, weights: Sequence[tuple[str, torch.Tensor]], elapsed_s: float) -> None:
        self._weights = list(weights)
        self._elapsed_s = elapsed_s

    def weights(self) -> list[tuple[str, torch.Tensor]]:
        """Return the checkpoint's weights."""
        return self._weights

    def train(self, trajectories: Sequence[Trajectory], sampled_tokens: int) -> float | None:
        """Sleep."""
        time.sleep(self._elapsed_s)
        return None

    def gradients(self) -> list[torch.Tensor]:
        """Return none."""
        return []

    def optimize(self) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""


def model_of(folder: str, *, has_weights: bool, trust_remote_code: bool, device: torch.device) -> Any:
    """Return the checkpoint's model in bf16, on a CPU in float32, with its weights.

    Args:
        folder: the checkpoint, or its hub id.
        has_weights: whether its weights are there; else they are drawn, alike on every rank.
        trust_remote_code: whether the model may bring its own code.
        device: where it is to be.

    Raises:
        ServingFailed: names or shapes of the checkpoint's tensors are not those of the model in transformers.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    config.use_cache = False
    torch.manual_seed(SEED)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    if has_weights:
        fill(model, folder)
    return model.train()


def fill(model: Any, folder: str) -> None:
    """Give `model` the weights of the checkpoint in `folder`; raise `ServingFailed` where they don't fit."""
    own = dict(model.named_parameters())
    tied = set(model.state_dict()) - set(own)
    missing = dict(own)
    for name, tensor in _tensors(_files(folder)):
        if name in tied:
            continue
        if name not in own or own[name].shape != tensor.shape:
            theirs = "no such tensor" if name not in own else f"{tuple(own[name].shape)}, not {tuple(tensor.shape)}"
            raise _unlike(folder, f"tensor {name}: the model in transformers has {theirs}")
        own[name].data.copy_(tensor)
        missing.pop(name, None)
    if missing:
        raise _unlike(folder, f"has no tensor {next(iter(missing))}")


def _unlike(folder: str, what: str) -> ServingFailed:
    cause = f"the trainer's stand-in can't take the checkpoint {folder}: {what}"
    return ServingFailed("not_trainable", cause, "place a bf16 checkpoint, or set placement.train_s")


def checkpoint_weights(folder: str, device: torch.device) -> list[tuple[str, torch.Tensor]]:
    """Return all tensors of a checkpoint, each brought to `device`; raise `ServingFailed` where it has none."""
    found = [(name, tensor.to(device)) for name, tensor in _tensors(_files(folder))]
    if not found:
        raise _unlike(folder, "has no *.safetensors")
    return found


def _files(folder: str) -> list[Path]:
    if not is_local(folder):
        from huggingface_hub import snapshot_download

        folder = snapshot_download(folder, allow_patterns=["*.safetensors"])
    return sorted(Path(folder).glob("*.safetensors"))


def _tensors(files: Iterable[Path]) -> Iterable[tuple[str, torch.Tensor]]:
    for path in files:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                yield name, opened.get_tensor(name)
