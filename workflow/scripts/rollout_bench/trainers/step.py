"""What one engine gets of a step: how many sequences, of how many distinct prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rollout_bench.core.numbers import several


@dataclass(frozen=True)
class RolloutStep:
    """The generation of one training step.

    Attributes:
        prompts: distinct prompts of the step.
        samples: sequences of each.
        engines: engines that share the step.
        spread: whether the samples of a prompt go to any engine, or stay together on one.
    """

    prompts: int
    samples: int
    engines: int
    spread: bool

    @property
    def sequences(self) -> int:
        """All that the step generates."""
        return self.prompts * self.samples

    @property
    def told(self) -> str:
        """It in words."""
        sequences, engines = several(self.sequences, "sequence"), several(self.engines, "engine")
        return f"{several(self.prompts, 'prompt')}, {self.samples} of each, {sequences}; {engines}"

    @property
    def share(self) -> EngineShare:
        """What one engine gets on average, rounded up: the step ends with the engine that has most."""
        sequences = math.ceil(self.sequences / self.engines)
        together = math.ceil(self.prompts / self.engines)
        distinct = round(distinct_prompts(self.prompts, self.samples, self.engines)) if self.spread else together
        return EngineShare(sequences, min(max(distinct, 1), sequences))


def distinct_prompts(prompts: int, samples: int, engines: int) -> float:
    """Return of how many prompts one engine is expected to get at least one sample, each sample going to any engine.

    An engine gets none of the n samples of a prompt with probability (1 - 1/R)^n, so it sees P (1 - (1 - 1/R)^n).
    """
    return prompts * (1 - (1 - 1 / engines) ** samples)


@dataclass(frozen=True)
class EngineShare:
    """Sequences of one engine in one step, and of how many distinct prompts they are."""

    sequences: int
    distinct: int

    @property
    def told(self) -> str:
        """It in words."""
        sequences, prompts = several(self.sequences, "sequence"), several(self.distinct, "distinct prompt")
        return f"one engine, its part of {sequences}, of {prompts}"

    def workload(self, prompt_tokens: int) -> dict[str, Any]:
        """Return the keys of a workload with this many sequences and distinct prompts of `prompt_tokens` tokens.

        Where the prompts can't all have the same number of samples, each sequence is a prompt of its own, and as many
        of them begin alike as there are distinct ones: a prefix cache computes a prompt's last token again in any case,
        so that only that one need differ.
        """
        if self.sequences % self.distinct == 0:
            return {"prompts": self.distinct, "samples_per_prompt": self.sequences // self.distinct}
        alone = {"prompts": self.sequences, "samples_per_prompt": 1}
        if prompt_tokens == 1:
            return alone
        return {**alone, "shared_prefix": {"tokens": prompt_tokens - 1, "groups": self.distinct}}
