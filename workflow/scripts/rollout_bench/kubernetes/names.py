"""Names of what is made on a cluster: valid there, the same each time, and no two alike."""

from __future__ import annotations

import re

from rollout_bench.plan.spec import Spec

LONGEST = 52
"""A pod is called as its Job with six characters more, and a node's name for it ends at 63."""

_LONGEST_NUMBER = 5


def job_name(spec: Spec, launch: int) -> str:
    """Name of a launch's Job: a DNS label of at most 52 characters that holds the experiment's key and the launch."""
    return f"{specs_name(spec)}-{launch}"


def specs_name(spec: Spec) -> str:
    """Name of the ConfigMap with an experiment's spec: a DNS label that ends in its key.

    Model, quant and workload are there for people and may be cut short; the key makes it unique.
    """
    key = spec.key()
    words = re.sub(r"[^a-z0-9]+", "-", f"{spec.model.name}-{spec.quant.name}-{spec.workload.name}".lower())
    room = LONGEST - len(f"rb---{key}") - _LONGEST_NUMBER
    return f"rb-{words[:room].strip('-')}-{key}"
