"""Training of a small Qwen3 in plain torch, in float32, on problems that this process makes.

Text is one problem after another, so the trained model goes on after an answer with problems of its own. The loss is
the cross entropy of the next token; tokens of questions count `QUESTION_WEIGHT`, since most of them can't be foreseen.

Matrices inside the layers are trained by Muon (Jordan et al., https://kellerjordan.github.io/posts/muon/), which needs
a fraction of the steps here, the embedding and the norms by Adam. One thread computes: it is slowed least by others on
the machine, and adds up in one order on any number of cores. So the same settings give the same bytes on the same kind
of processor with the same torch.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional

from rollout_bench.checkpoints.formats import RMS_NORM_EPS, TensorSpec, parameters, tensors
from rollout_bench.checkpoints.problems import END, Problem, practice, problems
from rollout_bench.checkpoints.shapes import ResolvedShape
from rollout_bench.checkpoints.training_settings import TRAINING_FILE, ResolvedTraining
from rollout_bench.checkpoints.weights import random_weight

THREADS = 1
"""Of torch, wherever it runs: another number adds up in another order."""
QUESTION_WEIGHT = 0.1
WARM_UP_SHARE = 0.05
"""Of all steps: the learning rate rises in them."""
BETAS = (0.9, 0.95)
"""Of Adam."""
MOMENTUM = 0.95
"""Of Muon."""
WEIGHT_DECAY = 0.1
ADAM_SHARE = 0.25
"""Adam's learning rate as a share of Muon's."""

JUDGING_SEED = 0

Tell = Callable[[str], None]
Weights = dict[str, torch.Tensor]


class TrainedWeights:
    """Weights that a checkpoint is built from, made when they are first needed.

    Args:
        training: what they are trained with.
        tell: gets a line now and then.
    """

    def __init__(self, training: ResolvedTraining, tell: Tell) -> None:
        self.identity: dict[str, Any] = {"trained": training.model_dump(mode="json", exclude={"shape"})}
        self._training = training
        self._tell = tell
        self._weights: Weights = {}

    def prepare(self) -> dict[str, dict[str, Any]]:
        """Train, and return what says how it went, by the name of its file."""
        threads = torch.get_num_threads()
        torch.set_num_threads(THREADS)
        try:
            self._weights, how = train(self._training, self._tell)
        finally:
            torch.set_num_threads(threads)
        return {TRAINING_FILE: how}

    def weight(self, spec: TensorSpec) -> torch.Tensor:
        """Return one bf16 tensor of the model."""
        return self._weights[spec.name]


def train(training: ResolvedTraining, tell: Tell) -> tuple[Weights, dict[str, Any]]:
    """Train a model.

    Args:
        training: the shape, and how.
        tell: gets a line now and then.

    Returns:
        Its bf16 weights by name, and how it went: steps, losses, accuracy of the bf16 weights by task, seconds.
    """
    began_s = time.monotonic()
    shape = training.shape
    weights = {spec.name: random_weight(spec, shape).float().requires_grad_() for spec in tensors(shape)}
    inner = [weights[spec.name] for spec in tensors(shape) if spec.quantizable]
    matrices = Muon(inner)
    others = torch.optim.Adam([w for w in weights.values() if all(w is not one for one in inner)], betas=BETAS)
    rows = packed(practice(shape.seed, training.lengths), training.tokens)
    losses: list[float] = []
    for step in range(training.steps):
        ids, counts = batch([next(rows) for _ in range(training.sequences)])
        loss = weighted_loss(logits(weights, shape, ids[:, :-1]), ids[:, 1:], counts[:, 1:])
        for weight in weights.values():
            weight.grad = None
        loss.backward()
        matrices.step(rate(training, step))
        others.param_groups[0]["lr"] = ADAM_SHARE * rate(training, step)
        others.step()
        losses.append(loss.item())
        if (step + 1) % max(1, training.steps // 20) == 0:
            tell(f"step {step + 1} of {training.steps}: loss {losses[-1]:.4f}, {time.monotonic() - began_s:.0f} s")
    rounded = {name: weight.detach().to(torch.bfloat16) for name, weight in weights.items()}
    asked = problems(training.lengths.judged, JUDGING_SEED, training.lengths)
    accuracy = judged(rounded, shape, asked)
    tell(f"right answers to problems that are new to it: {accuracy}")
    last = losses[-max(1, len(losses) // 20) :]
    return rounded, {
        "steps": training.steps,
        "training_tokens": training.steps * training.sequences * training.tokens,
        "parameters": parameters(shape),
        "first_loss": losses[0],
        "final_loss": sum(last) / len(last),
        "accuracy": accuracy,
        "judged": {"problems": len(asked), "seed": JUDGING_SEED},
        "seconds": round(time.monotonic() - began_s, 1),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


class Muon:
    """Momentum whose steps are made orthogonal, so that every direction of a matrix moves as far.

    Args:
        matrices: what is trained, [out, in] each.
    """

    def __init__(self, matrices: Sequence[torch.Tensor]) -> None:
        self._matrices = [(matrix, torch.zeros_like(matrix)) for matrix in matrices]

    def step(self, rate: float) -> None:
        """Move each matrix against its gradient."""
        with torch.no_grad():
            for matrix, momentum in self._matrices:
                assert matrix.grad is not None, "of a matrix that the loss depends on"
                momentum.mul_(MOMENTUM).add_(matrix.grad)
                move = orthogonal(matrix.grad.add(momentum, alpha=MOMENTUM))
                tall = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                matrix.mul_(1.0 - WEIGHT_DECAY * rate).add_(move, alpha=-rate * tall)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Return the matrix whose singular values are brought near 1, between 0.6 and 1.2.

    By five steps of the Newton-Schulz iteration with the coefficients of Muon's authors.
    """
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x


def rate(training: ResolvedTraining, step: int) -> float:
    """Return the learning rate of a step, counted from 0: it rises in the first steps, then falls to nothing."""
    rising = max(1, round(WARM_UP_SHARE * training.steps))
    if step < rising:
        return training.learning_rate * (step + 1) / rising
    return training.learning_rate * (training.steps - step) / max(1, training.steps - rising)


Row = tuple[list[int], list[float]]
"""Token ids, and what each counts in the loss."""


def packed(source: Iterator[Problem], tokens: int) -> Iterator[Row]:
    """Yield rows of `tokens` + 1 ids: problems one after another, the first of them whole, the last cut off."""
    while True:
        ids, counts = [END], [0.0]
        while len(ids) <= tokens:
            problem = next(source)
            question = problem.prompt_ids[1:]  # the END before it is that of the answer before it
            ids += [*question, *problem.answer_ids]
            counts += [QUESTION_WEIGHT] * len(question) + [1.0] * len(problem.answer_ids)
        yield ids[: tokens + 1], counts[: tokens + 1]


def batch(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids [rows, tokens + 1] in int64 and what they count [rows, tokens + 1] in float32."""
    return torch.tensor([ids for ids, _ in rows]), torch.tensor([counts for _, counts in rows])


def weighted_loss(found: torch.Tensor, ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy of `ids` [rows, tokens] under logits [rows, tokens, vocabulary], by `counts`."""
    each = functional.cross_entropy(found.flatten(0, 1), ids.flatten(), reduction="none")
    return (each * counts.flatten()).sum() / counts.sum()


def logits(weights: Weights, shape: ResolvedShape, ids: torch.Tensor) -> torch.Tensor:
    """Return what a dense Qwen3 says of the next token after each one, in the dtype of `weights`.

    As transformers' Qwen3ForCausalLM computes it.

    Args:
        weights: by their names in a checkpoint.
        shape: their sizes.
        ids: int64 [rows, tokens].

    Returns:
        [rows, tokens, vocabulary].
    """
    eps = RMS_NORM_EPS[shape.architecture]
    rows, count = ids.shape
    heads, groups, width = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim

    def normed(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.rms_norm(x, x.shape[-1:], weights[name], eps)

    rotation = _rotation(count, width, shape.rope_theta)
    x = functional.embedding(ids, weights["model.embed_tokens.weight"])
    for layer in range(shape.num_hidden_layers):
        here = f"model.layers.{layer}"
        h = normed(x, f"{here}.input_layernorm.weight")
        q, k, v = (
            functional.linear(h, weights[f"{here}.self_attn.{part}_proj.weight"]).view(rows, count, -1, width)
            for part in "qkv"
        )
        q = _rotated(normed(q, f"{here}.self_attn.q_norm.weight").transpose(1, 2), *rotation)
        k = _rotated(normed(k, f"{here}.self_attn.k_norm.weight").transpose(1, 2), *rotation)
        k, v = (part.repeat_interleave(heads // groups, dim=1) for part in (k, v.transpose(1, 2)))
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + functional.linear(seen, weights[f"{here}.self_attn.o_proj.weight"])
        h = normed(x, f"{here}.post_attention_layernorm.weight")
        gate = functional.silu(functional.linear(h, weights[f"{here}.mlp.gate_proj.weight"]))
        up = functional.linear(h, weights[f"{here}.mlp.up_proj.weight"])
        x = x + functional.linear(gate * up, weights[f"{here}.mlp.down_proj.weight"])
    head = "model.embed_tokens.weight" if shape.tie_word_embeddings else "lm_head.weight"
    return functional.linear(normed(x, "model.norm.weight"), weights[head])


def _rotation(count: int, width: int, base: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines [count, width] of rotary embeddings (Su et al., https://arxiv.org/abs/2104.09864)."""
    frequencies = base ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = torch.outer(torch.arange(count, dtype=torch.float32), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotated(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat((-second, first), dim=-1) * sines


def judged(weights: Weights, shape: ResolvedShape, asked: Sequence[Problem]) -> dict[str, float]:
    """Return the share of right answers of greedy decoding by task, in float32 arithmetic.

    Greedy decoding gives the right answer just if each of its tokens is the likeliest one after those before it, so one
    pass over question and answer tells.
    """
    exact = {name: weight.float() for name, weight in weights.items()}
    found: defaultdict[str, list[bool]] = defaultdict(list)
    longest = max(len(problem.prompt_ids) + len(problem.answer_ids) for problem in asked)
    with torch.no_grad():
        ids = torch.full((len(asked), longest), END)
        for row, problem in zip(ids, asked, strict=True):
            text = torch.tensor([*problem.prompt_ids, *problem.answer_ids])
            row[: len(text)] = text
        likeliest = logits(exact, shape, ids).argmax(dim=-1)
    for row, problem in zip(likeliest.tolist(), asked, strict=True):
        begin = len(problem.prompt_ids) - 1
        answer = tuple(row[begin : begin + len(problem.answer_ids)])
        found[problem.task].append(answer == problem.answer_ids)
    return {task: sum(right) / len(right) for task, right in found.items()}
