"""Times copies, reads and products of matrices with torch: what a device can do at most, in a few seconds."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, Literal

from rollout_bench.records.limits import LimitSample

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
        """Every repeat of every test that this device and this torch have.

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
        """Bytes count as STREAM counts them: what is read and what is written, without what a cache reads besides."""
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
        """Data type -> what makes a product of two matrices of a width.

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
