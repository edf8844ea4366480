"""A trainer's step, as all of its engines share it, and what one engine alone gets of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from rollout_bench.contracts.modes import ROLLOUT
from rollout_bench.contracts.spec import RouterPolicy
from rollout_bench.core.numbers import several

Dealt = Literal["samples", "prompts", "runs"]
"""What is dealt out to engines: samples to any of them, whole prompts, or runs of sequences that are as long."""


@dataclass(frozen=True)
class TrainerStep:
    """The generation of one training step.

    Attributes:
        prompts: distinct prompts of the step.
        samples: sequences of each.
        engines: engines that share the step.
        dealt: how its sequences are dealt out to them.
    """

    prompts: int
    samples: int
    engines: int
    dealt: Dealt

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
    def router(self) -> RouterPolicy:
        """The policy that deals them out; of runs that end inside a prompt's samples, one that makes them as long."""
        if self.dealt == "samples":
            return "least_in_flight"
        return "sticky" if self.dealt == "prompts" or self.prompts % self.engines == 0 else "round_robin"

    @property
    def share(self) -> StepPart:
        """What one engine gets on average, rounded up: the step ends with the engine that has most."""
        together = math.ceil(self.prompts / self.engines)
        sequences = math.ceil(self.sequences / self.engines)
        if self.dealt == "prompts":
            return StepPart(together * self.samples, together)
        if self.dealt == "runs":
            return StepPart(sequences, min(together, sequences))
        distinct = round(distinct_prompts(self.prompts, self.samples, self.engines))
        return StepPart(sequences, min(max(distinct, 1), sequences))

    @property
    def met_in_turn(self) -> int:
        """Of how many prompts an engine gets samples where they are dealt out in turn, one prompt after the other."""
        return min(self.prompts, math.ceil(self.sequences / self.engines))

    def part(self, one_engine: bool) -> StepPart:
        """Return what is measured: one engine's part, or the whole step."""
        return self.share if one_engine else StepPart(self.sequences, self.prompts)

    def measured(self, one_engine: bool) -> str:
        """Return what is measured in words."""
        if one_engine:
            return f"Measured here (--one-engine): one engine, its part of {self.share.told}."
        if self.engines == 1:
            return "Measured here: the whole step, by its one engine."
        return (
            f"Measured here: the whole step, by {self.engines} engines on one machine; where it has too few devices,"
            " add --one-engine."
        )

    def rollout(self, one_engine: bool) -> dict[str, Any]:
        """Return the keys of a config that say how it is measured, or one engine's part of it."""
        shared = {} if one_engine else {ROLLOUT.settings: {"replicas": self.engines, "router": self.router}}
        return {"modes": [ROLLOUT.name], **shared}


def distinct_prompts(prompts: int, samples: int, engines: int) -> float:
    """Return of how many prompts one engine is expected to get at least one sample, each sample going to any engine.

    An engine gets none of the n samples of a prompt with probability (1 - 1/R)^n, so it sees P (1 - (1 - 1/R)^n).
    """
    return prompts * (1 - (1 - 1 / engines) ** samples)


@dataclass(frozen=True)
class StepPart:
    """Sequences that are measured of a step, and of how many distinct prompts they are."""

    sequences: int
    distinct: int

    @property
    def told(self) -> str:
        """It in words."""
        return f"{several(self.sequences, 'sequence')}, of {several(self.distinct, 'distinct prompt')}"

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
