"""Runs the block's command on a tiny model, or with stand-ins for engines, and looks at what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from launching import TINY_MODEL, Launching, tiny_spec

from rollout_bench.contracts.record import Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import read_record

TESTS = Path(__file__).resolve().parent
COMMAND = TESTS.parent / "workflow" / "scripts" / "run_block.py"
STAND_IN = TESTS / "stand_in_block.py"


@dataclass
class RunningBlock(Launching):
    """One call of the block's command in a folder of its own; `spec` is that of the baseline.

    Args:
        command: which is called.
        names: of the workloads, by which members differ.
        changes: laid over the parts of all specs.
        of: and over those of a member.
    """

    spec: Spec = field(default_factory=tiny_spec)
    command: Path = COMMAND
    names: Sequence[str] = ("a", "b", "c")
    changes: Mapping[str, Any] = field(default_factory=dict)
    of: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.weights = self.folder / "tiny"
        self.weights.mkdir(exist_ok=True)
        (self.weights / "config.json").write_text(json.dumps(TINY_MODEL))
        if not (self.weights / "behaviour.json").exists():
            self.behave()
        self.specs = {name: self._spec_of(name) for name in self.names}
        self.outs = {
            name: self.folder / "results" / spec.mode / spec.experiment() / "launch-0.json"
            for name, spec in self.specs.items()
        }
        self.logs = {name: self.folder / f"{name}.log" for name in self.names}
        self.log = self.logs[self.names[0]]
        self.started = set()
        self.child_lines = []
        self.said = ""

    def _spec_of(self, name: str) -> Spec:
        own = self.of.get(name, {})
        parts = {part: {**self.changes.get(part, {}), **own.get(part, {})} for part in {*self.changes, *own}}
        return tiny_spec(**{**parts, "workload": {**parts.get("workload", {}), "name": name}})

    def behave(self, **how: str) -> None:
        """Have stand-ins behave so, by the names of their workloads."""
        (self.weights / "behaviour.json").write_text(json.dumps(how))

    def start(self, *arguments: str) -> RunningBlock:
        """Start the command."""
        words = ["--timeout-s", "600", *self.arguments, *arguments]
        for name in self.names:
            spec = self.folder / f"spec-{name}.json"
            spec.write_text(self.specs[name].model_dump_json())
            places = {"spec": str(spec), "out": str(self.outs[name]), "log": str(self.logs[name])}
            words += ["--member", json.dumps({"model": str(self.weights), "launch": 0, **places})]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        if self.command == STAND_IN:
            environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), environment.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [*self.prefix, sys.executable, str(self.command), *words],
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=environment,
        )
        return self

    def records(self) -> dict[str, Record]:
        """Return the records that are there, validated."""
        return {name: read_record(out) for name, out in self.outs.items() if out.exists()}

    def worked(self) -> list[tuple[str, str, float, float]]:
        """Return what stand-ins did and when: name, what, beginning and end on the monotonic clock."""
        path = self.weights / "passes.jsonl"
        return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []

    def launch_of(self, name: str) -> int:
        """Return the pid of the process that measures a member, found by the name of its engine's log."""
        log = self.logs[name].resolve()
        for launch in psutil.Process(self.process.pid).children():
            if any(Path(f"/proc/{child.pid}/fd/1").resolve() == log for child in launch.children()):
                return launch.pid
        raise AssertionError(f"nothing runs for {name}")

    def guardians_of(self, launch: int) -> list[psutil.Process]:
        """Return the guardian of the launch that the process `launch` measures."""
        return [child for child in psutil.Process(launch).children() if "guardian" in " ".join(child.cmdline())]

    def engine_of(self, name: str) -> psutil.Process:
        """Return the engine process of a member."""
        children = psutil.Process(self.launch_of(name)).children()
        modules = {"rollout_bench.measure.engine.worker", "stand_in_member"}
        return next(child for child in children if modules & {*child.cmdline()})
