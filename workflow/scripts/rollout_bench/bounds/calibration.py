"""The limits of this machine, measured once for each device, processor and torch, and kept in the user's cache."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rollout_bench.bounds.timing import Timer
from rollout_bench.engines.environment import cpu_model
from rollout_bench.engines.host import between, read_host
from rollout_bench.errors import UserError
from rollout_bench.files import read_model, write_json
from rollout_bench.plan.spec import Platform
from rollout_bench.records.limits import LIMITS_SCHEMA_VERSION, LimitSample, MachineLimits

MEASURED_AS = 1
"""Raised when the tests change: earlier numbers then no longer count."""

KINDS: dict[Platform, str] = {"cpu": "cpu", "cuda": "cuda", "ascend": "npu"}
"""Platform -> torch's name for its devices."""

DISTURBED_SHARE = 0.05
"""Share of the cores' time, used by others or given to other machines, from which on limits are not kept."""

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def limits_of_this_machine(
    platform: Platform, *, again: bool = False, say: Callable[[str], None] | None = None
) -> MachineLimits:
    """The limits of one device here, or of the cores that this process may use: from the cache, else measured.

    Takes a few seconds where they are not known yet. Nothing else should run meanwhile: limits that were measured
    while others used the cores are too low, so they are given, and not kept.

    Args:
        platform: cpu, cuda or ascend.
        again: measure in any case.
        say: takes one line where measuring could not be avoided next time, or why a kept file was of no use;
            standard error by default.

    Raises:
        UserError: torch is not there, or has no such device.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    torch, kind = _torch(platform)
    machine = _machine(torch, kind)
    path = cache_file(machine)
    if path is not None and path.exists() and not again:
        try:
            return read_model(path, MachineLimits, "it is measured again")
        except UserError as error:
            say(f"{error.problem}; {error.remedy}")
    limits = calibrate(torch, kind, machine)
    disturbed = disturbance(limits)
    if disturbed:
        say(f"the limits of this machine are not kept: {disturbed}; measure again when nothing else runs")
        return limits
    if path is None:
        say("the limits of this machine are not kept: there is no home folder to keep them in")
        return limits
    try:
        write_json(path, limits)
    except UserError as error:
        say(f"the limits of this machine are not kept: {error.problem}")
    return limits


def calibrate(torch: Any, kind: str, machine: dict[str, Any]) -> MachineLimits:
    """Measures, whatever is kept; `machine` are the fields that say of what."""
    cache = _device_cache(torch, kind)
    before = read_host([], {os.getpid()})
    samples = Timer(torch, kind, machine["cpu_cores"]).samples(cache)
    after = read_host([], {os.getpid()})
    return MachineLimits(
        schema_version=LIMITS_SCHEMA_VERSION,
        memory_bandwidth_bytes_per_s=max(sample.rate for sample in samples if sample.test != "matmul"),
        flops_per_s=best_rates(samples),
        cache_bytes=cache,
        host=between(before, after) if before and after else None,
        samples=samples,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        **machine,
    )


def disturbance(limits: MachineLimits) -> str:
    """What disturbed the measurement so much that its numbers may be too low; empty where nothing did."""
    if limits.host is None:
        return ""
    if (limits.host.other_cpu_share or 0) > DISTURBED_SHARE:
        who = f", {limits.host.busiest_other} most of it" if limits.host.busiest_other else ""
        return f"other processes used {100 * (limits.host.other_cpu_share or 0):.0f} % of the cores meanwhile{who}"
    if (limits.host.steal_share or 0) > DISTURBED_SHARE:
        return f"the hypervisor gave {100 * (limits.host.steal_share or 0):.0f} % of the cores to other machines"
    return ""


def best_rates(samples: list[LimitSample]) -> dict[str, float]:
    """Data type -> the best rate of a product of matrices in it."""
    rates: dict[str, float] = {}
    for sample in samples:
        if sample.test == "matmul":
            rates[sample.dtype] = max(rates.get(sample.dtype, 0.0), sample.rate)
    return rates


def cache_file(machine: dict[str, Any]) -> Path | None:
    """Where the limits of a machine are kept; None where there is no folder for such.

    The folder is XDG_CACHE_HOME where that is an absolute path, as the XDG base directory specification wants it, else
    ~/.cache.
    """
    said = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = Path(said) if Path(said).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    text = " ".join(str(machine[key]) for key in ("device_model", "cpu_model", "cpu_cores", "torch_version"))
    key = hashlib.sha256(f"{MEASURED_AS} {text}".encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9]+", "-", machine["device_model"]).strip("-").lower()[:40]
    return folder / "rollout-bench" / "limits" / f"{name}-{key}.json"


def platform_of(torch: Any) -> Platform:
    """The platform whose device torch sees."""
    for platform, kind in KINDS.items():
        if kind != "cpu" and getattr(torch, kind, None) is not None and getattr(torch, kind).is_available():
            return platform
    return "cpu"


def import_torch() -> Any:
    """The module; raises `UserError` where this Python does not have it."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise UserError(
            f"{sys.executable}: torch can't be imported: {error}", "use the Python that has the engine"
        ) from None


def _torch(platform: Platform) -> tuple[Any, str]:
    torch, kind = import_torch(), KINDS.get(platform)
    if kind is None:
        raise UserError(f"platform {platform}: its devices can't be measured from here", "name cpu, cuda or ascend")
    if kind == "npu":
        try:
            importlib.import_module("torch_npu")
        except ImportError as error:
            raise UserError(f"torch_npu can't be imported: {error}", "use the Python that has the engine") from None
    if kind != "cpu" and not (hasattr(torch, kind) and getattr(torch, kind).is_available()):
        raise UserError(f"torch {torch.__version__} sees no {kind} device", "measure where there is one")
    return torch, kind


def _machine(torch: Any, kind: str) -> dict[str, Any]:
    """The fields that a machine is known by."""
    processor = cpu_model()
    device = processor if kind == "cpu" else str(getattr(torch, kind).get_device_properties(0).name)
    return {
        "device_model": device,
        "cpu_model": processor,
        "cpu_cores": len(os.sched_getaffinity(0)),
        "torch_version": str(torch.__version__),
    }


def _device_cache(torch: Any, kind: str) -> int | None:
    """Bytes of the last-level cache, as the kernel or the driver names it."""
    if kind != "cpu":
        properties = getattr(torch, kind).get_device_properties(0)
        return int(getattr(properties, "L2_cache_size", 0)) or None
    sizes = []
    for index in sorted(_CACHES.glob("index*")):
        try:
            found = re.fullmatch(r"(\d+)K", (index / "size").read_text().strip())
        except OSError:
            continue
        if found:
            sizes.append(int(found.group(1)) * 1024)
    return max(sizes, default=None)
