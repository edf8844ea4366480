"""The generation of a training step: its division among engines, the part of one engine, the model, and the config."""

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from rollout_bench.contracts.fields import HUB_ID, name_made_of
from rollout_bench.contracts.spec import is_local
from rollout_bench.core.errors import UserError, printable
from rollout_bench.core.numbers import several
from rollout_bench.plan.checks import absent_model
from rollout_bench.plan.engine import probe_engine
from rollout_bench.trainers.settings import LONGEST_VALUE, WIDTH

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
    def description(self) -> str:
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
    def share(self) -> "StepPart":
        """Average part of one engine, rounded up, because the step ends with the engine that has most sequences."""
        together, sequences = (math.ceil(whole / self.engines) for whole in (self.prompts, self.sequences))
        if self.dealt == "prompts":
            return StepPart(together * self.samples, together)
        spread = max(round(distinct_prompts(self.prompts, self.samples, self.engines)), 1)
        return StepPart(sequences, min(together if self.dealt == "runs" else spread, sequences))

    @property
    def met_in_turn(self) -> int:
        """Number of prompts that an engine sees, if samples are distributed round-robin in prompt order."""
        return min(self.prompts, math.ceil(self.sequences / self.engines))

    def part(self, one_engine: bool) -> "StepPart":
        """Return the measured part: one engine's part, or the whole step."""
        return self.share if one_engine else StepPart(self.sequences, self.prompts)

    def measured(self, one_engine: bool, dealt: str, left_out: str) -> tuple[str, ...]:
        """Return lines about the measured part.

        Args:
            one_engine: whether only one engine's part is measured.
            dealt: distribution of sequences to several engines.
            left_out: what measuring one engine leaves out.
        """
        if one_engine:
            return f"Measured here: one engine, its part of {self.share.description}.", f"Left out: {left_out}."
        if self.engines == 1:
            return ("Measured here: the whole step, by its one engine.",)
        where = "on one machine; where it has too few devices, add --one-engine."
        return f"Measured here: the whole step, by {self.engines} engines {where}", dealt

    def rollout(self, one_engine: bool) -> dict[str, Any]:
        """Return the config keys that measure the step, or one engine's part of it."""
        engines = {"replicas": 1} if one_engine else {"replicas": self.engines, "router": self.router}
        return {"modes": ["rollout"], "rollout": engines}  # also of one, or a config below would say how many


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
    def description(self) -> str:
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


def found_device() -> Literal["cuda", "ascend"]:
    """Return the platform of a trainer that takes the device it finds: that of an engine for NPUs here, else cuda."""
    try:
        return "ascend" if probe_engine(None).platform() == "ascend" else "cuda"
    except UserError:
        return "cuda"


FOUND = "The settings name no device, and {} takes the one that it finds: platform is {} here. {}."
"""Line about a platform that no key names: trainer, platform, and the way to another one."""

FULL_LENGTH = "Each answer is generated to its full length, the longest that a step can take."
"""Line about answers whose lengths are the settings' maximum."""

QUANT_OF_DTYPE = {"bfloat16": "bf16", "bf16": "bf16", "auto": "bf16", "float16": "fp16", "half": "fp16", "fp16": "fp16"}
"""Data type of an engine -> name of its quantization."""


def weights(path: str, key: str) -> str:
    """Return the config's value of `weights` for a trainer's model.

    Args:
        path: a folder, or a name on the hub.
        key: the trainer's key with this value, for messages.

    Raises:
        UserError: if the folder contains no model, or `path` is neither a folder nor OWNER/NAME. A folder of another
            machine, with its whole path, is told on stderr.
    """
    remedy = f"give the folder on this machine: {key}=FOLDER, or OWNER/NAME for a model of the hub"
    if "://" in path:
        raise UserError(f"{key}: is an address, not a folder on this machine", remedy)
    if not is_local(path):
        if not re.fullmatch(HUB_ID, path):
            raise UserError(f"{key}: {path}: is neither a folder nor OWNER/NAME", remedy)
        return f"hub:{path}"
    absent = absent_model(Path(path).expanduser())
    if absent is not None and Path(path).is_absolute() and not Path(path).exists() and "mean" not in absent.remedy:
        print(f"{key}: {path} is not on this machine: plan and run the config where it is", file=sys.stderr)
    elif absent is not None:
        raise UserError(f"{key}: {absent.problem}", absent.remedy if "mean" in absent.remedy else remedy)
    return path if path.startswith("~") else str(Path(path).absolute())


COMPARED = {"cuda": "fp8", "ascend": "w8a8", "cpu": "w8a8"}
"""Platform -> the quantization that is compared with bf16 if the trainer's settings name none."""

WHILE_LOADING = {"cuda": COMPARED["cuda"]}
"""The same where an engine makes the quantization from the bf16 weights, so that a trainer's model is enough."""


def quant_keys(quant: str) -> dict[str, Any]:
    """Return the config keys for weights that are measured as `quant`, a value of `QUANT_OF_DTYPE`."""
    if quant == "bf16":
        return {}
    return {"baseline": {"quant": quant}, "quant_settings": {quant: {"linear_dtypes": ["float16"]}}}


def model_name(path: str) -> str:
    """Return the config's name of the model at `path`: the last part of the path, without invalid characters."""
    return name_made_of(path) or "model"


TIMEOUT_S = 14_400
"""Time limit of a launch of a trainer's step, in seconds. One pass may take many minutes."""

MOST_TOLD = 1 << 20
"""Maximum characters of an account, equal to the maximum size of a settings file."""


@dataclass(frozen=True)
class MadeConfig:
    """A config made from a trainer's settings.

    Attributes:
        head: lines that describe the training step, and the part of it that the config measures.
        config: the keys that replace those of config.yaml.
        account: the treatment of each key, as text.
        trace: lines of the data set that the config names; empty if it names none.
    """

    head: tuple[str, ...]
    config: dict[str, Any]
    account: str
    trace: tuple[dict[str, int], ...] = ()

    @property
    def explanation(self) -> str:
        """The whole explanation: head and account."""
        return printable("\n".join([*self.head, "", self.account]), MOST_TOLD)

    def compared(self, others: Mapping[str, str]) -> "MadeConfig":
        """Return the config with the quantization of its platform in `others` beside bf16, if it has bf16 alone."""
        other = others.get(self.config["platform"])
        if other is None or self.config["quants"] != ["bf16"]:
            return self
        note = f"The settings name no quantization, so {other} is compared; --config quants=[bf16,...] names others."
        return replace(self, head=(*self.head, note), config=self.config | {"quants": ["bf16", other]})

    def with_logged(self, generation_s: float, log: Path) -> "MadeConfig":
        """Return the config with the time of generation in a step of the training, by its `log`."""
        time_s, loads = round(generation_s, 3), self.config["workload_settings"]
        changed = {name: load | {"logged_generation_s": time_s} for name, load in loads.items()}
        note = (
            f"Generation took {time_s} s in a step of the training, by {log}; the summary says it beside what it took."
        )
        return replace(self, head=(*self.head, note), config=self.config | {"workload_settings": changed})

    def yaml(self, command: str) -> str:
        """Return the YAML file: the explanation as comments, then the config."""
        lines = f"Made by: {printable(command, MOST_TOLD)}\n{self.explanation}".splitlines()
        comments = "".join(f"# {line}".rstrip() + "\n" for line in lines)
        content = {**self.config, "timeout_s": TIMEOUT_S}
        config = yaml.dump(content, Dumper=_BriefFlow, sort_keys=False, default_flow_style=False, width=WIDTH)
        return comments + config


class _BriefFlow(yaml.SafeDumper):
    """YAML dumper that writes short lists and mappings on one line."""

    def represent_data(self, data: Any) -> yaml.Node:
        node = super().represent_data(data)
        if isinstance(node, yaml.CollectionNode):
            node.flow_style = len(repr(data)) <= LONGEST_VALUE
        return node
