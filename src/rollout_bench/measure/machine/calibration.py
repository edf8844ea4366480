"""The limits of this machine: times copies and products with torch, and keeps the result in the user's cache."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rollout_bench.contracts.inside import LIMITS_SCHEMA_VERSION, LimitSample, MachineLimits
from rollout_bench.contracts.spec import Platform
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import read_model, write_json
from rollout_bench.measure.machine.host import between, cpu_model, read_host

LEAST_ARRAY_BYTES, MOST_ARRAY_BYTES = 64 << 20, 2 << 30
CACHES = 4
"""Each array is at least so many times the last-level cache, as McCalpin's STREAM wants it (stream.c, 1996)."""

LEAST_REPEATS, TEST_S = 3, 0.25
"""Each test is repeated until both are reached; the first repeat is a warm-up and not kept."""

LONG_ENOUGH_S = 0.02
"""A product of matrices grows until it takes so long, or until its matrices have the largest size."""

SIZES = {"cpu": (1024, 4096), "cuda": (4096, 16384), "npu": (4096, 16384)}
"""Kind of device -> width of the first and of the largest matrices."""


class Timer:
    """Times tests on one device.

    Args:
        torch: the module.
        kind: torch's name for the kind of device: cpu, cuda, npu.
        cores: threads on cpu.
    """

    def __init__(self, torch: Any, kind: str, cores: int) -> None:
        self._torch = torch
        self._kind = kind
        self._cores = cores

    def samples(self, cache_bytes: int | None) -> list[LimitSample]:
        """Return every repeat of every test that this device and this torch have.

        Args:
            cache_bytes: last-level cache of the device; None where it is not known.
        """
        with self._threads(), self._torch.inference_mode():
            found = list(self._memory(self._array_bytes(cache_bytes)))
            for dtype, product in self._products():
                with suppress(RuntimeError, AttributeError, TypeError, ImportError):  # this device or torch has none
                    found += self._matmul(dtype, product)
            return found

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """As many threads as cores, whatever an engine has set."""
        before = self._torch.get_num_threads()
        if self._kind == "cpu":
            self._torch.set_num_threads(self._cores)
        try:
            yield
        finally:
            self._torch.set_num_threads(before)

    def _array_bytes(self, cache_bytes: int | None) -> int:
        wanted = max(LEAST_ARRAY_BYTES if self._kind == "cpu" else 1 << 30, CACHES * (cache_bytes or 0))
        return max(1 << 20, min(wanted, MOST_ARRAY_BYTES, self._free_bytes() // 8))

    def _free_bytes(self) -> int:
        if self._kind != "cpu":
            return int(getattr(self._torch, self._kind).mem_get_info()[0])
        import psutil

        return int(psutil.virtual_memory().available)

    def _memory(self, size_bytes: int) -> Iterator[LimitSample]:
        """Yield bytes count as STREAM counts them.

        What is read and what is written, without what a cache reads besides.
        """
        length = size_bytes // 4
        a, b, c = (self._torch.full((length,), 1.0, device=self._kind) for _ in range(3))
        tests: list[tuple[Literal["copy", "read", "triad"], int, Callable[[], Any]]] = [
            ("copy", 2, lambda: b.copy_(a)),
            ("read", 1, lambda: a.sum()),
            ("triad", 3, lambda: self._torch.add(a, b, alpha=3.0, out=c)),
        ]
        for test, arrays, call in tests:
            for elapsed_s in self._repeats(call):
                yield LimitSample(test=test, dtype="float32", work=4.0 * length * arrays, elapsed_s=elapsed_s)

    def _products(self) -> list[tuple[str, Callable[[int], Callable[[], Any]]]]:
        """Return data type -> what makes a product of two matrices of a width.

        Their values are all the same, which costs the least power, and power limits large accelerators: an H200 takes a
        sixth longer for random ones (ran). A limit has to be what nothing exceeds.
        """
        torch, kind = self._torch, self._kind

        def plain(dtype: Any) -> Callable[[int], Callable[[], Any]]:
            def make(n: int) -> Callable[[], Any]:
                a, b = (torch.full((n, n), 0.5, dtype=dtype, device=kind) for _ in range(2))
                return lambda: torch.nn.functional.linear(a, b)

            return make

        def int8(n: int) -> Callable[[], Any]:
            a, b = (torch.ones((n, n), dtype=torch.int8, device=kind) for _ in range(2))
            return lambda: torch._int_mm(a, b.t())

        def float8(n: int) -> Callable[[], Any]:
            a, b = (torch.ones((n, n), device=kind).to(torch.float8_e4m3fn) for _ in range(2))
            scale = torch.ones((), device=kind)
            return lambda: torch._scaled_mm(a, b.t(), scale, scale, out_dtype=torch.bfloat16, use_fast_accum=True)

        found = [("bfloat16", plain(torch.bfloat16))]
        if kind == "cpu":
            # torch's own int8 product is slower there than its bfloat16, which says nothing of the processor
            return [("float32", plain(torch.float32)), *found, ("int8", self._onednn_int8)]
        int8s = [("int8", int8), ("int8", self._cutlass_int8)]
        return [("float16", plain(torch.float16)), *found, *int8s, ("float8", float8)]

    def _onednn_int8(self, n: int) -> Callable[[], Any]:
        """vLLM's int8 product on cpu (`onednn_scaled_mm` of vllm/_custom_ops.py)."""
        torch, ops = self._torch, self._operators_of_vllm("create_onednn_scaled_mm_handler")
        weight, scales = torch.ones((n, n), dtype=torch.int8).t(), torch.ones((1, n))
        packed = ops.create_onednn_scaled_mm_handler(weight, scales, torch.bfloat16, True, False, 8)
        handler = torch.tensor(packed, dtype=torch.int64)
        a, a_scales = torch.ones((n, n), dtype=torch.int8), torch.ones((n, 1))
        out = torch.empty((n, n), dtype=torch.bfloat16)
        return lambda: ops.onednn_scaled_mm(out, a, a_scales, None, None, None, handler)

    def _cutlass_int8(self, n: int) -> Callable[[], Any]:
        """vLLM's int8 product on cuda (`cutlass_scaled_mm` of vllm/_custom_ops.py); read, and not run yet."""
        torch, ops = self._torch, self._operators_of_vllm("cutlass_scaled_mm")
        a, b = (torch.ones((n, n), dtype=torch.int8, device=self._kind) for _ in range(2))
        a_scales, b_scales = torch.ones((n, 1), device=self._kind), torch.ones((1, n), device=self._kind)
        out = torch.empty((n, n), dtype=torch.bfloat16, device=self._kind)
        return lambda: ops.cutlass_scaled_mm(out, a, b.t(), a_scales, b_scales, None)

    def _operators_of_vllm(self, name: str) -> Any:
        """torch.ops._C with vLLM's operators in it; raises ImportError or AttributeError where there are none."""
        if not hasattr(self._torch.ops._C, name):
            with redirect_stdout(sys.stderr):  # it logs there; what calibrate.py prints is its own
                importlib.import_module("vllm._custom_ops")
        return self._torch.ops._C

    def _matmul(self, dtype: str, product: Callable[[int], Callable[[], Any]]) -> Iterator[LimitSample]:
        """Of several widths: the largest is not always the fastest."""
        width, largest = SIZES[self._kind]
        while True:
            times_s = list(self._repeats(product(width)))
            for elapsed_s in times_s:
                yield LimitSample(test="matmul", dtype=dtype, work=2.0 * width**3, elapsed_s=elapsed_s)
            if width >= largest or min(times_s) >= LONG_ENOUGH_S:
                return
            width *= 2

    def _repeats(self, call: Callable[[], Any]) -> Iterator[float]:
        call()
        self._wait()
        number, begun = 0, time.perf_counter()
        while number < LEAST_REPEATS or time.perf_counter() - begun < TEST_S:
            start = time.perf_counter()
            call()
            self._wait()
            yield time.perf_counter() - start
            number += 1

    def _wait(self) -> None:
        if self._kind != "cpu":
            getattr(self._torch, self._kind).synchronize()


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
    """Return the limits of one device here, or of the cores that this process may use: from the cache, else measured.

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
    """Measure, whatever is kept; `machine` are the fields that say of what."""
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
    """Return what disturbed the measurement so much that its numbers may be too low; empty where nothing did."""
    if limits.host is None:
        return ""
    if (limits.host.other_cpu_share or 0) > DISTURBED_SHARE:
        who = f", {limits.host.busiest_other} most of it" if limits.host.busiest_other else ""
        return f"other processes used {100 * (limits.host.other_cpu_share or 0):.0f} % of the cores meanwhile{who}"
    if (limits.host.steal_share or 0) > DISTURBED_SHARE:
        return f"the hypervisor gave {100 * (limits.host.steal_share or 0):.0f} % of the cores to other machines"
    return ""


def best_rates(samples: list[LimitSample]) -> dict[str, float]:
    """Return data type -> the best rate of a product of matrices in it."""
    rates: dict[str, float] = {}
    for sample in samples:
        if sample.test == "matmul":
            rates[sample.dtype] = max(rates.get(sample.dtype, 0.0), sample.rate)
    return rates


def cache_file(machine: dict[str, Any]) -> Path | None:
    """Return where the limits of a machine are kept; None where there is no folder for such.

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
    """Return the platform whose device torch sees."""
    for platform, kind in KINDS.items():
        if kind != "cpu" and getattr(torch, kind, None) is not None and getattr(torch, kind).is_available():
            return platform
    return "cpu"


def import_torch() -> Any:
    """Return the module; raise `UserError` where this Python does not have it."""
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
    """Return the fields that a machine is known by."""
    processor = cpu_model()
    device = processor if kind == "cpu" else str(getattr(torch, kind).get_device_properties(0).name)
    return {
        "device_model": device,
        "cpu_model": processor,
        "cpu_cores": len(os.sched_getaffinity(0)),
        "torch_version": str(torch.__version__),
    }


def _device_cache(torch: Any, kind: str) -> int | None:
    """Return bytes of the last-level cache, as the kernel or the driver names it."""
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
