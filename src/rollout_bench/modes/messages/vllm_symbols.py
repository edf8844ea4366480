"""The internals of vLLM that the probes of messages mode need, and a check whether the installed vLLM has them.

The check reads vLLM's source, because importing vLLM takes ten seconds.
"""

import importlib.util
import re
from pathlib import Path

PLACES: dict[str, dict[str, frozenset[str]]] = {
    "v1/executor/multiproc_executor.py": {"MultiprocExecutor": frozenset({"_init_executor", "collective_rpc"})},
    "v1/engine/core.py": {
        "EngineCoreProc": frozenset({"pause_scheduler"}),
        "EngineCore": frozenset({"collective_rpc", "resume_scheduler"}),
    },
    "v1/engine/core_client.py": {"SyncMPClient": frozenset({"call_utility"})},
    "v1/core/sched/scheduler.py": {"Scheduler": frozenset({"schedule", "update_from_output"})},
    "v1/core/sched/output.py": {
        "SchedulerOutput": frozenset({"scheduled_new_reqs", "scheduled_cached_reqs", "num_scheduled_tokens"}),
    },
    "config/scheduler.py": {"SchedulerConfig": frozenset({"get_scheduler_cls", "scheduler_cls"})},
}
"""File below vllm/ -> class that the file defines -> its methods and fields."""

REMEDY = "leave messages out of modes, or use a vLLM from 0.23 to 0.32, which modes/messages/probes.py fits"


def moved(vllm: Path) -> list[str]:
    """Return the entries of `PLACES` that the vLLM in the folder `vllm` lacks, as `<file>: <class>.<name>`."""
    return [f"{file}: {name}" for file, names in PLACES.items() for name in _missing(vllm / file, names)]


def installed() -> Path | None:
    """Return the folder of the vLLM that this interpreter would import, or None if there is none."""
    spec = importlib.util.find_spec("vllm")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def sentence(missing: list[str]) -> str:
    """Return the problem of an error message about the `missing` entries."""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"the messages of this vLLM can't be looked at: it has no {missing[0]}{more}"


def _missing(path: Path, names: dict[str, frozenset[str]]) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lacking = []
    for name, members in names.items():
        body = re.search(rf"^class {name}\b.*?(?=^[\w@]|\Z)", text, re.MULTILINE | re.DOTALL)
        defined = re.findall(r"^    (?:async )?(?:def )?(\w+)", body[0], re.MULTILINE) if body else []
        lacking += [f"{name}.{member}" for member in sorted(members - {*defined})] if body else [name]
    return lacking
