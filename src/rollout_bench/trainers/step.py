"""The generation of a training step: its division among engines, and the part of one engine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from rollout_bench.core.numbers import several

Dealt = Literal["samples", "prompts", "runs"]
"""Unit that is distributed to engines: single samples, whole prompts, or runs with equal numbers of sequences."""


@dataclass(frozen=True)
class TrainerStep:
    """The generation of one training step.

    Attributes:
        prompts: distinct prompts of the step.
        samples: sequences of each prompt.
        engines: engines that share the step.
        dealt: unit in which sequences are distributed to engines.
    """

    prompts: int
    samples: int
    engines: int
    dealt: Dealt

    @property
    def sequences(self) -> int:
        """Number of sequences of the step."""
        return self.prompts * self.samples

    @property
    def told(self) -> str:
        """The step in words."""
        sequences, engines = several(self.sequences, "sequence"), several(self.engines, "engine")
        return f"{several(self.prompts, 'prompt')}, {self.samples} of each, {sequences}; {engines}"

    @property
    def router(self) -> str:
        """Router policy for the step. If runs split a prompt's samples, round_robin gives engines equal numbers."""
        if self.dealt == "samples":
            return "least_in_flight"
        return "sticky" if self.dealt == "prompts" or self.prompts % self.engines == 0 else "round_robin"

    @property
    def share(self) -> StepPart:
        """Average part of one engine, rounded up, because the step ends with the engine that has most sequences."""
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
        """Number of prompts that an engine sees, if samples are distributed round-robin in prompt order."""
        return min(self.prompts, math.ceil(self.sequences / self.engines))

    def part(self, one_engine: bool) -> StepPart:
        """Return the measured part: one engine's part, or the whole step."""
        return self.share if one_engine else StepPart(self.sequences, self.prompts)

    def measured(self, one_engine: bool) -> str:
        """Return the measured part in words."""
        if one_engine:
            return f"Measured here (--one-engine): one engine, its part of {self.share.told}."
        if self.engines == 1:
            return "Measured here: the whole step, by its one engine."
        return (
            f"Measured here: the whole step, by {self.engines} engines on one machine; where it has too few devices,"
            " add --one-engine."
        )

    def rollout(self, one_engine: bool) -> dict[str, Any]:
        """Return the config keys that measure the step, or one engine's part of it."""
        shared = {} if one_engine else {"rollout": {"replicas": self.engines, "router": self.router}}
        return {"modes": ["rollout"], **shared}


def distinct_prompts(prompts: int, samples: int, engines: int) -> float:
    """Return the expected number of prompts that one engine sees (at least one sample).

    Each sample goes to a random engine. With P prompts, n samples and R engines, an engine gets no sample of a prompt
    with probability (1 - 1/R)^n. So the expected number is P (1 - (1 - 1/R)^n).
    """
    return prompts * (1 - (1 - 1 / engines) ** samples)


@dataclass(frozen=True)
class StepPart:
    """Measured part of a step: number of sequences, and number of their distinct prompts."""

    sequences: int
    distinct: int

    @property
    def told(self) -> str:
        """The part in words."""
        return f"{several(self.sequences, 'sequence')}, of {several(self.distinct, 'distinct prompt')}"

    def workload(self, prompt_tokens: int) -> dict[str, Any]:
        """Return the workload keys for this number of sequences and distinct prompts of `prompt_tokens` tokens.

        If sequences can't be divided evenly among the prompts, each sequence becomes a separate prompt. Prompts then
        form one shared-prefix group for each distinct prompt and differ only in the last token. A prefix cache always
        computes the last token again, so this does not change its work.
        """
        if self.sequences % self.distinct == 0:
            return {"prompts": self.distinct, "samples_per_prompt": self.sequences // self.distinct}
        alone = {"prompts": self.sequences, "samples_per_prompt": 1}
        if prompt_tokens == 1:
            return alone
        return {**alone, "shared_prefix": {"tokens": prompt_tokens - 1, "groups": self.distinct}}
