"""The linear layers of a loaded model by what they do in it."""

from __future__ import annotations

from typing import Any, get_args

from rollout_bench.plan.profiling import Role
from rollout_bench.records.profile import LinearShape

ROLES: dict[str, Role] = {
    "qkv_proj": "qkv",
    "qkv": "qkv",
    "o_proj": "o",
    "out_proj": "o",
    "gate_up_proj": "gate_up",
    "down_proj": "down",
    "lm_head": "lm_head",
    "gate": "router",
    "router": "router",
    "shared_expert_gate": "router",
}
"""Last part of a module's name -> role. Linear layers with another name are `other`."""


def linear_modules(model: Any) -> dict[Role, list[Any]]:
    """The linear modules of `model` by role, in the order of the layers; experts, which are none, are left out."""
    found: dict[Role, list[Any]] = {}
    for name, module in model.named_modules():
        if _sizes(module) is not None:
            found.setdefault(ROLES.get(name.rpartition(".")[2], "other"), []).append(module)
    head = getattr(model, "lm_head", None)
    if head is not None and "lm_head" not in found and _head_sizes(head) is not None:
        found["lm_head"] = [head]  # it shares the embedding's weights, and is the embedding's module
    return {role: found[role] for role in get_args(Role) if role in found}


def linears_by_shape(model: Any) -> list[tuple[LinearShape, list[Any]]]:
    """The shapes of `linear_modules`, each with the modules that have it."""
    shapes: dict[tuple[Role, int, int], list[Any]] = {}
    for role, modules in linear_modules(model).items():
        for module in modules:
            into, out = _sizes(module) or _head_sizes(module) or (0, 0)
            shapes.setdefault((role, into, out), []).append(module)
    return [
        (LinearShape(role=role, in_features=into, out_features=out, layers=len(modules)), modules)
        for (role, into, out), modules in shapes.items()
    ]


def linear_shapes(model: Any) -> list[LinearShape]:
    """The shapes of `linear_modules`, each with how many layers have it."""
    return [shape for shape, _ in linears_by_shape(model)]


def _sizes(module: Any) -> tuple[int, int] | None:
    """Features in and out on this rank; None for what is no linear layer."""
    bases = {base.__name__ for base in type(module).__mro__}
    if "LinearBase" in bases:
        into = getattr(module, "input_size_per_partition", module.input_size)
        return int(into), int(getattr(module, "output_size_per_partition", module.output_size))
    return _head_sizes(module) if "ParallelLMHead" in bases else None


def _head_sizes(module: Any) -> tuple[int, int] | None:
    """Of the layer that gives a value to each word of the vocabulary."""
    if not hasattr(module, "num_embeddings_per_partition"):
        return None
    return int(module.embedding_dim), int(module.num_embeddings_per_partition)
