"""The host: versions, variables, node and job, and its other activity during the launch.

A reading visits each process once and takes 12 microseconds for each (measured). Readings are taken between
iterations, never during one.
"""

import contextlib
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rollout_bench.contracts.host_limits import HOST_LIMITS, TICK_S
from rollout_bench.contracts.record import Environment, HostUse
from rollout_bench.contracts.spec import EngineSpec, Platform
from rollout_bench.core.installed import version
from rollout_bench.core.processes import Group, node_name, printed_by
from rollout_bench.core.secrets import may_be_secret


@dataclass(frozen=True)
class Reading:
    """Counters of the machine at one time, CPU time in seconds; None for unknown values.

    `others` are the processes outside the launch, each with the CPU time that it has used.
    """

    moment: float
    cores: int
    busy: float
    steal: float
    total: float
    own: float
    others: dict[psutil.Process, float]
    stalled_s: float | None
    swapped_bytes: int | None


def read_host(groups: Sequence[Group], helpers: set[int]) -> Reading:
    """Return the current counters.

    Args:
        groups: the engine's sessions; all their processes belong to the launch.
        helpers: pids of further processes of the launch.
    """
    allowed = {f"cpu{core}" for core in os.sched_getaffinity(0)}  # psutil does not number cores beside offline ones
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    # user, nice, system, idle, iowait, irq, softirq, steal
    cores = [[int(ticks) * TICK_S for ticks in fields[:8]] for name, *fields in lines if name in allowed]
    own, others, leaders = 0.0, {}, {group.leader for group in groups}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # ended meanwhile
            times = process.cpu_times()
            if process.pid in helpers or not leaders.isdisjoint((os.getpgid(process.pid), os.getsid(process.pid))):
                own += sum(times[:4])  # including its ended children
            else:
                others[process] = times.user + times.system
    stalled_us = number_in("/proc/pressure/memory", r"^some .*total=(\d+)")
    pages = [number_in("/proc/vmstat", rf"^{name} (\d+)") for name in ("pswpin", "pswpout")]
    return Reading(
        moment=time.monotonic(),
        cores=max(1, len(cores)),
        # iowait is idle time, and interrupts belong to no process: neither counts as busy
        busy=sum(sum(core[:3]) for core in cores),
        steal=sum(core[7] for core in cores),
        total=sum(map(sum, cores)),
        own=own,
        others=others,
        stalled_s=None if stalled_us is None else stalled_us / 1e6,
        # psutil takes every page for one of 4 KiB
        swapped_bytes=None if None in pages else sum(filter(None, pages)) * os.sysconf("SC_PAGE_SIZE"),
    )


def host_use(before: Reading, after: Reading) -> HostUse:
    """Return the host's use between two readings."""
    total, window_s = after.total - before.total, max(after.moment - before.moment, 1e-6)
    other = max(0, after.busy - before.busy - max(0, after.own - before.own))
    stalled_s = _difference(before.stalled_s, after.stalled_s)
    swapped = _difference(before.swapped_bytes, after.swapped_bytes)
    used = {process: used_s - before.others.get(process, 0.0) for process, used_s in after.others.items()}
    busiest = max(used, key=lambda process: used[process], default=None)
    return HostUse(
        window_s=round(window_s, 6),
        cores=after.cores,
        steal_share=round((after.steal - before.steal) / total, 4) if total > 0 else None,
        other_cpu_share=round(other / total, 4) if total > 0 else None,
        busiest_other=process_name(busiest) if busiest is not None and used[busiest] > 0 else None,
        memory_pressure_share=None if stalled_s is None else round(stalled_s / window_s, 4),
        swap_bytes=None if swapped is None else int(swapped),
    )


LOOK_S = 0.3
"""Length of an observation without a pass in seconds; the kernel counts a core's time in hundredths of a second."""

BUSY = next(limit.invalid for limit in HOST_LIMITS if limit.code == "cpu_shared")
"""Share of the cores' time used by others above which a launch is invalid."""


def used_by_others(pause: Callable[[float], None] = time.sleep) -> tuple[float, str | None]:
    """Return the share of the cores' time that others use in the next `LOOK_S` seconds, and the busiest of them.

    This process, its ancestors (Snakemake) and its descendants count as the launch. `pause` waits for a number
    of seconds.
    """
    here = psutil.Process()
    ours = {each.pid for each in (here, *here.parents(), *here.children(recursive=True))}
    before = read_host((), ours)
    pause(LOOK_S)
    use = host_use(before, read_host((), ours))
    return use.other_cpu_share or 0.0, use.busiest_other


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


def process_name(process: psutil.Process) -> str:
    """Return a name for a process that uses the cores beside a launch.

    Kernel threads and the Snakemake of this workflow are marked, because a user cannot end them like other programs.
    Command lines are left out because records must not contain secrets.
    """
    try:
        name, command = process.name(), process.cmdline()
        if not command:  # only kernel threads have none
            known = (f"{stem}: {task}" for stem, task in THREADS.items() if name.startswith(stem))
            return f"the kernel ({next(known, name)})"
        if process in psutil.Process().parents() and any(Path(word).name == "snakemake" for word in command):
            return "this workflow's own snakemake"
        return f"{name} (pid {process.pid}{'' if os.getuid() in process.uids() else ' of another user'})"
    except (psutil.Error, OSError):
        return f"pid {process.pid}, ended since"


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else max(0, after - before)


def found_in(path: str, pattern: str) -> str | None:
    """Return what the group of `pattern` matches in the file at `path`; None without file or match."""
    with contextlib.suppress(OSError):
        if match := re.search(pattern, Path(path).read_text(errors="replace"), re.MULTILINE):
            return match[1]
    return None


def number_in(path: str, pattern: str) -> int | None:
    """Return the number that `pattern` finds in the file at `path`; None without file or number."""
    text = found_in(path, pattern)
    return None if text is None else int(text)


PACKAGES = (
    "transformers", "torchao", "triton", "triton-ascend", "compressed-tensors", "safetensors", "numpy",
    "flashinfer-python", "torch-npu", "nvidia-nccl-cu12", "nvidia-nccl-cu13", "ray",
)  # fmt: skip
"""Packages whose versions influence speed."""

VARIABLES = re.compile(
    r"^(?!\w+_CACHE_(ROOT|DIR|PATH)$)(VLLM|OMP|KMP|MKL|GOMP|DNNL|ONEDNN|CUDA|NVIDIA|NCCL|ASCEND|HCCL|CANN|NPU|PYTORCH|TORCH"
    r"|TORCHINDUCTOR|TRITON|HF_HUB|MALLOC|NUMA)_|^(LD_PRELOAD|TORCHDYNAMO_DISABLE)$"
)
"""Environment variables that influence the engine; the folders of its caches are left out."""


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
        hostname=node_name(),
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


def held_with_children() -> int:
    """Return the memory in bytes of this process and its descendants.

    This counts anonymous and shared memory; shared pages are divided among their processes (proportional set size).
    Pages of files such as libraries and checkpoints are left out: the kernel can drop them, and each process's part
    depends on other users of the same program. Without this information, the result is the resident set size.
    """
    parent = psutil.Process()
    held = 0
    for process in [parent, *parent.children(recursive=True)]:
        parts = [
            number_in(f"/proc/{process.pid}/smaps_rollup", rf"^{name}: +(\d+)") for name in ("Pss_Anon", "Pss_Shmem")
        ]
        with contextlib.suppress(psutil.NoSuchProcess):
            held += process.memory_info().rss if None in parts else sum(filter(None, parts)) << 10
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
    return found_in("/proc/cpuinfo", r"^model name\s*:\s*(.*\S)") or platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Return the commit of this file's checkout, with `-dirty` if tracked files differ; None outside a checkout."""
    git = "git", "-C", str(Path(__file__).parent), "--no-optional-locks"
    head = printed_by(*git, "rev-parse", "--verify", "HEAD").strip()
    dirty = "-dirty" if head and printed_by(*git, "status", "--porcelain", "--untracked-files=no") else ""
    return f"{head}{dirty}" or None
