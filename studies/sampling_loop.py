"""Measuring without this project: `vllm bench throughput` called again and again, one process a sample."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = Path(__file__).resolve().parent / "throughput_command.py"


@dataclass(frozen=True)
class Loop:
    """The loop's load.

    Attributes:
        tokenizer: folder of a tokenizer, which that command can't do without.
        workload: an entry of `workload_settings` in the config.
        warmups: prompts of a pass before the one that is timed, which the command does not make by itself.
    """

    tokenizer: Path
    workload: Mapping[str, Any]
    warmups: int = 0

    def sample(self, model: Path, seed: int) -> tuple[float, float]:
        """One process: its seconds on the wall clock, and those that it reports for its pass.

        Raises:
            SystemExit: it fails; a time would mean nothing.
        """
        answer = self.tokenizer.parent / "answer.json"
        line = [sys.executable, str(COMMAND), "--model", str(model), "--tokenizer", str(self.tokenizer)]
        line += ["--dataset-name", "random", "--seed", str(seed), "--output-json", str(answer), "--disable-detokenize"]
        line += ["--num-warmups", str(self.warmups)] if self.warmups else []
        options = {"prompts": "--num-prompts", "samples_per_prompt": "--n"}
        options |= {"prompt_tokens": "--random-input-len", "output_tokens": "--random-output-len"}
        for name, option in options.items():
            line += [option, str(self.workload[name])]
        tokens = self.workload["prompt_tokens"] + self.workload["output_tokens"]
        for name, value in {"max_model_len": tokens, **self.workload["engine_args"]}.items():
            line += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        began = time.perf_counter()
        done = subprocess.run(
            line,
            env=environment(),
            cwd=self.tokenizer.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        wall_s = time.perf_counter() - began
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(line)} failed:\n{done.stdout[-3000:]}")
        return wall_s, float(json.loads(answer.read_text())["elapsed_time"])


def environment() -> dict[str, str]:
    """Return the engine's environment as rollout-bench sets it on a CPU.

    The engine core in the process starts faster.
    """
    variables = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_TARGET_DEVICE": "cpu", "VLLM_NO_USAGE_STATS": "1"}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, **variables, "HF_HUB_OFFLINE": "1"}


def make_tokenizer(folder: Path, vocabulary: int) -> None:
    """Make a tokenizer with a word for each id, so that a random prompt has as many tokens as are asked for."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"t{number}": number for number in range(vocabulary)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="t0", eos_token="t1").save_pretrained(folder)
