"""The trainer's stand-in: forward, backward and optimizer of the checkpoint's own model, in torch.

Parameters, gradients and AdamW's moments are bf16 on a GPU. On a CPU they are float32, because many CPUs lack bf16 and
torch then takes ten times as long. Each training rank holds all of them, or, sharded, its part (`shard`). Activations
are computed again in the backward pass (gradient checkpointing), as in TRL and verl by default. Trainers with master
weights do more work. Weights are transferred as bf16, as in the checkpoint.

The loss is a policy gradient: the mean, over all sampled tokens of the step, of minus log-probability times the
sequence's advantage. So every token has the same weight in any rank and micro-batch, and the sum of all ranks'
gradients equals the gradient of one rank with one batch. Advantages are made up (`shares.advantage`) because there is
no reward.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy

from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.modes.placement.groups import Part, communicating, join_world
from rollout_bench.modes.placement.shares import Trajectory, advantage, share

LEARNING_RATE = 1e-4
"""Learning rate of AdamW, about the size of a weight's change in a step.

Smaller changes would be lost in bf16's 8 bits: weights near 0.02 have neighbours 1.2e-4 apart.
"""

SEED = 0
"""Seed of the weights if the engine makes dummy weights (load_format: dummy); the same on every rank."""

MICRO_BATCH = 4
"""Most sequences in a forward and backward pass; gradients accumulate over a device's micro-batches."""


class PolicyTrainer:
    """Trains a model.

    Args:
        model: the model from transformers.
        samples: samples of each prompt.
        shards: number of ranks over which the model is sharded; 1 if this rank has all of it.
    """

    def __init__(self, model: Any, samples: int, shards: int = 1) -> None:
        self.model = model
        self._shards = shards
        self._samples = samples
        self._parameters = list(model.parameters())
        # on a GPU the default needs memory for another copy of the model; fused is TRL's default too
        fused = self._parameters[0].is_cuda
        self._optimizer = torch.optim.AdamW(self._parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=fused)

    def parts(self) -> list[Part]:
        """Return the descriptions of its weights."""
        return [(name, "bfloat16", list(parameter.shape)) for name, parameter in self.model.named_parameters()]

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield its parameters, tied parameters once, as in checkpoints; all ranks of a sharded model must iterate."""
        for name, parameter in self.model.named_parameters():
            tensor = parameter.detach()
            if isinstance(tensor, DTensor):
                with communicating():
                    tensor = tensor.full_tensor()
            yield name, tensor.bfloat16()

    def train(self, trajectories: Sequence[Trajectory], sampled_tokens: int, most: int) -> float | None:
        """Compute the gradients of a rank's share; gradients of successive micro-batches accumulate.

        Args:
            trajectories: its sequences, possibly none.
            sampled_tokens: number of tokens sampled in the step, over all ranks.
            most: number of sequences of the rank with most, so that all ranks have equally many micro-batches.

        Returns:
            The mean loss of a token, over micro-batches; None if nothing is computed.
        """
        losses = []
        batches = -(-most // MICRO_BATCH) if trajectories else 0
        device = self._parameters[0].device
        # dropout must not advance the engine's random state, which all ranks of an engine must share
        random = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with random, communicating() if self._shards > 1 else nullcontext():
            for number in range(batches):
                batch = [trajectories[place] for place in share(len(trajectories), number, batches)]
                summed = self._summed_loss(batch)
                (summed * self._shards / sampled_tokens).backward()  # sharded gradients are means over the ranks
                losses.append(summed.detach() / sum(len(one.output_token_ids) for one in batch))
        # read only at the end, because reading a loss waits for the device
        return float(sum(losses)) / len(losses) if losses else None

    def gradients(self) -> list[torch.Tensor]:
        """Return the gradients to add up: zeros without sequences; none if sharded, which adds them up itself."""
        if self._shards > 1:
            return []
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]

    def optimize(self) -> None:
        """Do a step of AdamW."""
        self._optimizer.step()
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
        # logits of prompts are large and, except for the first sampled token's, not needed
        kept = longest - min(len(one.prompt_token_ids) for one in batch) + 1
        # padding is at the end, where causal attention never reads it
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
        lost = cross_entropy(logits[:, :-1].float().transpose(1, 2), ids[:, 1 - kept :], reduction="none")
        return (lost * weights[:, 1 - kept :]).sum()


class TimedTrainer:
    """Waits for a fixed time, and has constant weights.

    Args:
        weights: the checkpoint's weights.
        elapsed_s: training time of this rank after each generation, in seconds.
    """

    def __init__(self, weights: Iterable[tuple[str, torch.Tensor]], elapsed_s: float) -> None:
        self._weights = list(weights)
        self._elapsed_s = elapsed_s

    def parts(self) -> list[Part]:
        """Return the descriptions of its weights."""
        return [(name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)) for name, tensor in self._weights]

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the checkpoint's weights."""
        yield from self._weights

    def train(self, trajectories: Sequence[Trajectory], sampled_tokens: int, most: int) -> float | None:
        """Wait for the fixed time."""
        time.sleep(self._elapsed_s)
        return None

    def gradients(self) -> list[torch.Tensor]:
        """Return an empty list."""
        return []

    def optimize(self) -> None:
        """Do nothing."""


Trainer = PolicyTrainer | TimedTrainer
"""The trainer of a rank."""


def model_of(folder: str, *, has_weights: bool, trust_remote_code: bool, device: torch.device) -> Any:
    """Return the checkpoint's model with weights, in bf16, or in float32 on a CPU, with gradient checkpointing.

    Args:
        folder: the checkpoint.
        has_weights: whether the checkpoint has weights; else they are drawn, the same on every rank.
        trust_remote_code: whether the model may run its own code.
        device: device of the model.

    Raises:
        MeasuringFailed: if tensor names or shapes of checkpoint and transformers model differ.
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
    if model.supports_gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def shard(model: Any, device: torch.device) -> None:
    """Shard `model` over the ranks of this rank's world, by FSDP2: each of its layers, then the rest."""
    if not dist.is_initialized():  # a colocated engine has joined it
        join_world("gloo" if device.type == "cpu" else "nccl")
    for module in list(model.modules()):
        if type(module).__name__ in model._no_split_modules:
            fully_shard(module)
    fully_shard(model)


def fill(model: Any, folder: str) -> None:
    """Load the weights of the checkpoint in `folder` into `model`; raise `MeasuringFailed` if they do not fit."""
    parameters = dict(model.named_parameters())
    tied = set(model.state_dict()) - set(parameters)
    missing = dict(parameters)
    for name, tensor in _tensors(folder):
        if name in tied:
            continue
        if name not in parameters or parameters[name].shape != tensor.shape:
            theirs = (
                "no such tensor"
                if name not in parameters
                else f"{tuple(parameters[name].shape)}, not {tuple(tensor.shape)}"
            )
            raise _unlike(folder, f"tensor {name}: the model in transformers has {theirs}")
        parameters[name].data.copy_(tensor)
        missing.pop(name, None)
    if missing:
        raise _unlike(folder, f"has no tensor {next(iter(missing))}")


def _unlike(folder: str, what: str) -> MeasuringFailed:
    cause = f"the trainer's stand-in can't take the checkpoint {folder}: {what}"
    return MeasuringFailed("not_trainable", cause, "place a bf16 checkpoint, or set placement.train_s")


def checkpoint_weights(folder: str, device: torch.device) -> list[tuple[str, torch.Tensor]]:
    """Return all tensors of a checkpoint, on `device`; raise `MeasuringFailed` if it has none."""
    weights = [(name, tensor.to(device)) for name, tensor in _tensors(folder)]
    if not weights:
        raise _unlike(folder, "has no *.safetensors")
    return weights


def _tensors(folder: str) -> Iterable[tuple[str, torch.Tensor]]:
    for path in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a mapping)
                yield name, opened.get_tensor(name)
