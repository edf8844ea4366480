"""A copy of the project in which a test runs snakemake as a user does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

import forked_runs
import psutil
import yaml
from launching import QUICKLY

REPOSITORY = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "config.yaml", "environment.yml", "configs", "profiles", "src", "workflow", "requirements")

TINY = {
    "models": ["tiny"],
    "quants": ["bf16", "w8a8"],
    "workloads": ["short"],
    "launches": 1,
    "warmup_iterations": 1,
    "iterations": 2,
    "timeout_s": 600,
    "interleave": False,  # what most tests look at is one launch, and its own job
    "engine": {"environment": QUICKLY},
    "model_settings": {"tiny": {"synthetic": {"preset": "qwen3-tiny"}}},
    "workload_settings": {
        "short": {
            "prompts": 2,
            "samples_per_prompt": 2,
            "prompt_tokens": 16,
            "output_tokens": 8,
            "engine_args": {"max_num_seqs": 8, "kv_cache_memory_bytes": 1 << 26, "enforce_eager": True},
        }
    },
}
"""A matrix that two cores measure in seconds a launch."""


class Workspace:
    """A folder that holds the project; `snakemake` runs there with the environment's own Python."""

    def __init__(self, path: Path, overlay: dict | None = None) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            source = REPOSITORY / part
            if (
                source.is_dir()
            ):  # with its bytecode, or each workspace would compile the project; not what is half-written
                shutil.copytree(source, path / part, ignore=shutil.ignore_patterns("*.pyc.*"))
            else:
                shutil.copy(source, path / part)
        if overlay is not None:
            self.overlay(overlay)

    def overlay(self, settings: dict) -> None:
        """Lay settings over the default config for good."""
        from snakemake.utils import update_config

        config = yaml.safe_load((self.path / "config.yaml").read_text())
        update_config(config, settings)
        (self.path / "config.yaml").write_text(yaml.safe_dump(config))

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `snakemake` with these arguments."""
        return [sys.executable, "-m", "snakemake", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """The environment that commands run in: bytecode is kept, or each import would compile it again."""
        kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return {**kept, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def snakemake(self, *arguments: str, timeout_s: float = 1200) -> subprocess.CompletedProcess[str]:
        """Run `snakemake` to its end, as a fork where its imports are the same; stdout holds both streams."""
        environment = self.environment
        if "-n" not in arguments and environment.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):
            return self.by_itself(*arguments, timeout_s=timeout_s)
        words = self.command(*arguments)[3:]  # behind `python -m snakemake`
        return forked_runs.run(words, self.path, environment, timeout_s)

    def by_itself(self, *arguments: str, timeout_s: float = 1200) -> subprocess.CompletedProcess[str]:
        """Run `snakemake` as a process that begins with nothing imported, as the one of a user does."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.path,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `snakemake` in a process group of its own; what it prints goes to `output`."""
        with self._output_file.open("w") as file:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=self.path,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What the run that was started last has printed so far."""
        return self._output_file.read_text(errors="replace") if self._output_file.exists() else ""

    @property
    def _output_file(self) -> Path:
        return self.path / "output.log"

    def processes(self) -> list[psutil.Process]:
        """Return processes that are alive and were started in this folder, whoever is their parent by now."""
        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()) == self.path and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def planned(self, *arguments: str) -> dict[str, int]:
        """Rule -> number of jobs that a dry run would run."""
        return _jobs_in(self.dry_run(*arguments))

    def measurements(self, *arguments: str) -> int:
        """Return launches that a dry run would measure, by themselves and in blocks."""
        text = self.dry_run(*arguments)
        return _jobs_in(text).get("launch", 0) + len(_in_blocks(text))

    def in_blocks(self, *arguments: str) -> set[str]:
        """Return records that a dry run would measure in blocks, relative to results/."""
        return _in_blocks(self.dry_run(*arguments))

    def dry_run(self, *arguments: str) -> str:
        """Return what a dry run prints, with each job, which the profile leaves out."""
        done = self.snakemake("--quiet", "host", "reason", "-n", *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def with_made_engine(self, behaviour: Mapping[int, str] = MappingProxyType({})) -> Self:
        """Put the engine that does as told into the workspace: the measuring command is the real one.

        Args:
            behaviour: what each launch does, by its index; others measure.
        """
        from synthetic_records import make_record, make_sequences

        engine = self.path / "src" / "rollout_bench" / "measure" / "engine"
        shutil.copy(Path(__file__).with_name("made_engine.py"), engine / "offline.py")
        record = make_record(rates=[1e5] * 3, warmup_rates=[1e5])  # passes that fit into a launch of this engine
        made, model = self.path / "made", self.path / "models" / "tiny"
        for folder in (made, model):
            folder.mkdir(parents=True)
        (made / "record.json").write_text(record.model_dump_json())
        (made / "rows.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in make_sequences(record)))
        (model / "config.json").write_text(json.dumps({"num_hidden_layers": 2}))
        self.behave(behaviour)
        return self

    def behave(self, behaviour: Mapping[int, str]) -> None:
        """Say what launches do from now on."""
        (self.path / "behaviour.json").write_text(json.dumps(dict(behaviour)))

    @property
    def records(self) -> set[str]:
        """Records that lie in results/, relative to it."""
        return {
            str(path.relative_to(self.path / "results")) for path in self.path.glob("results/offline/*/launch-*.json")
        }

    @property
    def failures(self) -> set[str]:
        """Failure files that lie in results/failures/, relative to it."""
        return {
            str(path.relative_to(self.path / "results/failures"))
            for path in self.path.glob("results/failures/*/*/launch-*.json")
        }


def _jobs_in(dry_run: str) -> dict[str, int]:
    table = dry_run.partition("Job stats:")[2]
    counts = dict(re.findall(r"^(\w+)\s+(\d+)\s*$", table, flags=re.MULTILINE))
    return {rule: int(count) for rule, count in counts.items() if rule != "total"}


def _in_blocks(dry_run: str) -> set[str]:
    return set(re.findall(r"^    results/(\S+/launch-\d+\.json)$", dry_run, flags=re.MULTILINE))
