"""The host: versions, variables, node and job, and its other activity during the launch, read from /proc.

A reading visits each process once and takes a few milliseconds. Readings are taken between iterations, never during
one. The code parses /proc itself because psutil takes twice as long and has no function for memory pressure.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rollout_bench.contracts.record import Environment, HostUse
from rollout_bench.contracts.spec import EngineSpec, Platform
from rollout_bench.core.processes import Group
from rollout_bench.core.secrets import may_be_secret


@dataclass(frozen=True)
class Reading:
    """Counters of the machine at one time, in ticks of the kernel's clock; None for unknown values.

    `others` are the processes outside the launch: (pid, start) -> name and ticks used.
    """

    moment: float
    cores: int
    busy: int
    steal: int
    total: int
    own: int
    others: dict[tuple[int, int], tuple[str, int]]
    available_bytes: int | None
    stalled_s: float | None
    swapped_bytes: int | None
    load_1m: float | None


def read_host(groups: Sequence[Group], helpers: set[int], proc: Path = Path("/proc")) -> Reading | None:
    """Return the current counters; None without /proc/stat.

    Args:
        groups: the engine's sessions; all their processes belong to the launch.
        helpers: pids of further processes of the launch.
        proc: mount point of the proc file system.
    """
    try:
        cores = _core_ticks((proc / "stat").read_text())
    except OSError:
        return None
    own, others = _process_ticks(proc, groups, helpers)
    return Reading(
        moment=time.monotonic(),
        cores=max(1, len(cores)),
        # iowait is idle time, and interrupts belong to no process: neither counts as busy
        busy=sum(core[0] + core[1] + core[2] for core in cores),
        steal=sum(core[7] for core in cores),
        total=sum(sum(core[:8]) for core in cores),
        own=own,
        others=others,
        available_bytes=_named(proc / "meminfo", "MemAvailable:", 1024),
        stalled_s=_stalled_s(proc / "pressure" / "memory"),
        swapped_bytes=_swapped(proc / "vmstat"),
        load_1m=_load(proc / "loadavg"),
    )


def between(before: Reading, after: Reading) -> HostUse:
    """Return the host's use between two readings."""
    total = after.total - before.total
    own = max(0, after.own - before.own)
    other = max(0, after.busy - before.busy - own)
    window_s = max(after.moment - before.moment, 1e-6)
    stalled_s = _difference(before.stalled_s, after.stalled_s)
    swapped = _difference(before.swapped_bytes, after.swapped_bytes)
    return HostUse(
        window_s=round(window_s, 6),
        cores=after.cores,
        steal_share=round((after.steal - before.steal) / total, 4) if total > 0 else None,
        other_cpu_share=round(other / total, 4) if total > 0 else None,
        busiest_other=_busiest(before, after),
        memory_available_bytes=after.available_bytes,
        memory_pressure_share=None if stalled_s is None else round(stalled_s / window_s, 4),
        swap_bytes=None if swapped is None else int(swapped),
        load_1m=after.load_1m,
    )


def _core_ticks(text: str) -> list[list[int]]:
    """Return ticks (user, nice, system, idle, iowait, irq, softirq, steal, ...) of each core of this process."""
    allowed = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = [line.split() for line in text.splitlines() if line.startswith("cpu")]
    return [[int(ticks) for ticks in fields] for name, *fields in lines if name in allowed]


def _process_ticks(
    proc: Path, groups: Sequence[Group], helpers: set[int]
) -> tuple[int, dict[tuple[int, int], tuple[str, int]]]:
    own, others, leaders = 0, {}, {group.leader for group in groups}
    for entry in os.listdir(proc):  # noqa: PTH208 (names are all that is needed, of thousands)
        if not entry.isdigit():
            continue
        try:
            with open(f"{proc}/{entry}/stat", "rb") as file:  # noqa: PTH123 (as above)
                head, _, tail = file.read().rpartition(b")")
        except OSError:
            continue
        fields, pid = tail.split(), int(entry)
        ticks = int(fields[11]) + int(fields[12])
        if pid in helpers or not leaders.isdisjoint((int(fields[2]), int(fields[3]))):
            own += ticks + int(fields[13]) + int(fields[14])  # including its ended children
        else:
            others[pid, int(fields[19])] = (head.partition(b"(")[2].decode(errors="replace"), ticks)
    return own, others


def _busiest(before: Reading, after: Reading) -> str | None:
    used = {key: ticks - before.others.get(key, ("", 0))[1] for key, (_, ticks) in after.others.items()}
    key = max(used, key=lambda key: used[key], default=None)
    return culprit(key[0], after.others[key][0]) if key is not None and used[key] > 0 else None


THREADS = {
    "kdamond": "memory reclaim",
    "kswapd": "memory reclaim",
    "kcompactd": "memory compaction",
    "khugepaged": "huge pages",
    "ksmd": "merging of equal pages",
    "ksoftirqd": "interrupts",
    "kworker": "deferred work",
    "jbd2": "journal of a file system",
}
"""Prefix of a kernel thread's name -> its task, because users do not know these threads."""

PF_KTHREAD = 0x00200000
"""Task flag of kernel threads (include/linux/sched.h)."""


def culprit(pid: int, name: str) -> str:
    """Return a name for the process `pid`, called `name`, that uses the cores beside a launch.

    Kernel threads and the Snakemake of this workflow are marked, because a user cannot end them like other programs.
    Command lines are left out because records must not contain secrets.
    """
    thread = kernel_thread(pid, name)
    if thread is not None:
        return f"the kernel ({thread})"
    if _is_our_snakemake(pid):
        return "this workflow's own snakemake"
    with contextlib.suppress(psutil.Error, OSError):
        return f"{name} (pid {pid} of {psutil.Process(pid).username()})"
    return f"{name} (pid {pid}, ended since)"


def kernel_thread(pid: int, name: str, proc: Path = Path("/proc")) -> str | None:
    """Return name and task of the kernel thread `pid`; None if `pid` is not a kernel thread."""
    try:
        fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:  # ended meanwhile
        return None
    if len(fields) < 7 or not int(fields[6]) & PF_KTHREAD:
        return None
    return next((f"{stem}: {task}" for stem, task in THREADS.items() if name.startswith(stem)), name)


def _is_our_snakemake(pid: int) -> bool:
    """Return whether `pid` is a Snakemake process among the ancestors of this process."""
    with contextlib.suppress(psutil.Error):  # a process that ends meanwhile
        return any(
            parent.pid == pid and any(Path(word).name == "snakemake" for word in parent.cmdline())
            for parent in psutil.Process().parents()
        )
    return False


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else max(0, after - before)


def _named(path: Path, name: str, unit: int = 1) -> int | None:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1]) * unit
    return None


def _swapped(vmstat: Path) -> int | None:
    page = os.sysconf("SC_PAGE_SIZE")
    read, written = _named(vmstat, "pswpin", page), _named(vmstat, "pswpout", page)
    return None if read is None or written is None else read + written


def _stalled_s(path: Path) -> float | None:
    with contextlib.suppress(OSError, IndexError, ValueError):
        some = path.read_text().splitlines()[0]
        return int(some.rpartition("total=")[2]) / 1e6
    return None


def _load(path: Path) -> float | None:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return float(path.read_text().split()[0])
    return None


PACKAGES = (
    "transformers", "torchao", "triton", "triton-ascend", "compressed-tensors", "safetensors", "numpy",
    "flashinfer-python", "torch-npu", "nvidia-nccl-cu12", "nvidia-nccl-cu13", "ray",
)  # fmt: skip
"""Packages whose versions influence speed."""

VARIABLES = re.compile(
    r"^(VLLM|OMP|KMP|MKL|GOMP|DNNL|ONEDNN|CUDA|NVIDIA|NCCL|ASCEND|HCCL|CANN|NPU|PYTORCH|TORCH|TORCHINDUCTOR|TRITON|HF_HUB"
    r"|MALLOC|NUMA)_|^(LD_PRELOAD|TORCHDYNAMO_DISABLE)$"
)
"""Environment variables that influence the engine."""


def read_environment(
    engine: EngineSpec, kind: Platform, device: dict[str, Any], device_count: int, variables: dict[str, str]
) -> Environment:
    """Return the facts about this machine and Python.

    Args:
        engine: the engine of the spec.
        kind: platform of the spec.
        device: `device_model` and `device_memory_bytes` from a worker; None values on cpu.
        device_count: number of devices that the engine uses; 1 on cpu.
        variables: the environment before the import of vLLM changed it.
    """
    processor, memory = cpu_model(), psutil.virtual_memory().total
    return Environment(
        engine_name=engine.name,
        engine_version=version(engine.name) or "unknown",
        plugins={name: version(name) or "unknown" for name in engine.plugins},
        torch_version=version("torch") or "unknown",
        python_version=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := version(name)) is not None},
        hostname=socket.gethostname(),
        kernel=f"{platform.system()} {platform.release()}",
        device_model=device.get("device_model") or (processor if kind == "cpu" else "unknown"),
        device_memory_bytes=memory if kind == "cpu" else device.get("device_memory_bytes"),
        device_count=1 if kind == "cpu" else device_count,
        cpu_model=processor,
        cpu_cores=len(os.sched_getaffinity(0)),
        memory_bytes=memory,
        variables=relevant_variables(variables),
        git_commit=git_commit(),
    )


def version(distribution: str) -> str | None:
    """Return the installed version of `distribution`; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def held_with_children(apart: Collection[int] = (), proc: Path = Path("/proc")) -> int:
    """Return the memory in bytes of this process and its descendants, without the pids in `apart`.

    This counts anonymous and shared memory; shared pages are divided among their processes (proportional set size).
    Pages of files such as libraries and checkpoints are left out: the kernel can drop them, and each process's part
    depends on other users of the same program. Without this information, the result is the resident set size.
    """
    parent = psutil.Process()
    held = 0
    for process in [parent, *parent.children(recursive=True)]:
        if process.pid in apart:
            continue
        rollup = proc / str(process.pid) / "smaps_rollup"
        parts = [_named(rollup, name, 1024) for name in ("Pss_Anon:", "Pss_Shmem:")]
        with contextlib.suppress(psutil.NoSuchProcess):
            held += process.memory_info().rss if None in parts else sum(part or 0 for part in parts)
    return held


def relevant_variables(environment: dict[str, str]) -> dict[str, str]:
    """Return the variables that influence the engine, without possible secrets."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if VARIABLES.search(name) and not may_be_secret(name, value)
    }


def cpu_model() -> str:
    """Return the name of the processor from the kernel."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Return the commit of this file's checkout, with `-dirty` if tracked files differ; None outside a checkout."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return None
    return f"{head}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
