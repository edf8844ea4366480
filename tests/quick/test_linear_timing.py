"""Linear layers are timed as they are called, all of them in turn, and what has no memory is left out."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rollout_bench.contracts.inside import LinearShape
from rollout_bench.contracts.spec import OperatorsSettings
from rollout_bench.measure.engine.operators import LEAST_ROUNDS, Timed, missing_flags, prepare, run_rounds
from rollout_bench.measure.launch.protocol import IterationBegins
from rollout_bench.measure.probes.linear_timing import Bench, bias_of, last_level_cache_bytes


class LinearBase(torch.nn.Module):
    """As vLLM's, by the name of its class, its sizes and its quant_method."""

    def __init__(self, into: int, out: int, method: Any) -> None:
        super().__init__()
        self.input_size, self.output_size = into, out
        self.weight = torch.nn.Parameter(torch.randn(out, into), requires_grad=False)
        self.quant_method = method


class Method:
    """Notes what it is called with; as slow as it is told to be."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, tuple[int, ...], Any]] = []
        self.limit: int | None = None

    def apply(self, module: Any, x: Any, bias: Any = None) -> Any:
        if self.limit is not None and x.shape[0] > self.limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        self.calls.append((id(module), module.input_size, tuple(x.shape), bias))
        return torch.nn.functional.linear(x, module.weight, bias)


def model_with(method: Method, layers: int = 3) -> torch.nn.Module:
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList()
    for _ in range(layers):
        layer = torch.nn.Module()
        layer.o_proj, layer.down_proj = LinearBase(16, 8, method), LinearBase(32, 16, method)
        model.layers.append(layer)
    return model


def test_a_pass_calls_each_layer_of_the_shape_once_in_turn() -> None:
    method = Method()
    model = model_with(method)
    bench = Bench(model, torch.float32, captures=False)
    prepared = bench.prepare((0, 4))
    assert (prepared["layers"], prepared["through"]) == (3, "calls")
    method.calls.clear()
    assert bench.seconds_per_call((0, 4), 2) > 0
    assert [call[2:] for call in method.calls] == [((4, 16), None)] * 6
    assert [call[0] for call in method.calls] == [id(layer.o_proj) for layer in model.layers] * 2  # type: ignore[union-attr]


def test_what_a_captured_pass_reads_is_there_when_it_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(model_with(Method()), torch.float32, captures=False)
    graphs = SimpleNamespace(
        NPUGraph=lambda: SimpleNamespace(replay=lambda: None),
        graph_pool_handle=object,
        graph=lambda graph, pool: nullcontext(),
    )
    monkeypatch.setattr(bench, "_backend", lambda: graphs)

    def captured() -> tuple[Any, weakref.ref[torch.Tensor]]:
        ids = torch.zeros(4)

        def run() -> None:
            ids.zero_()

        return bench._captured(run), weakref.ref(ids)

    replay, ids = captured()
    gc.collect()
    assert replay is not None
    assert ids() is not None  # as on a device, where the graph knows no more than an address


def test_time_per_call_is_that_of_a_pass_over_its_layers_without_what_evicts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    method = Method()
    bench = Bench(model_with(method), torch.float32, captures=False)
    bench.prepare((1, 2))

    def passes(seconds: float) -> Any:
        return lambda *_: now.__setitem__(0, now[0] + seconds)

    monkeypatch.setattr("rollout_bench.measure.probes.linear_timing.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(bench, "_evict", passes(100.0))
    monkeypatch.setitem(bench._runs, (1, 2), passes(0.6))
    assert bench.seconds_per_call((1, 2), 2) == pytest.approx(0.6 / 3)
    assert now[0] == pytest.approx(201.2)


def test_what_evicts_is_no_more_than_the_rest_of_the_model() -> None:
    bench = Bench(model_with(Method()), torch.float32, captures=False)
    total, own = 3 * 4 * (16 * 8 + 32 * 16), 3 * 4 * 16 * 8
    assert bench.most_evicted_bytes == total - own


def test_no_memory_is_told_and_other_errors_are_not_swallowed() -> None:
    method = Method()
    bench = Bench(model_with(method), torch.float32, captures=False)
    method.limit = 64
    assert "can't allocate memory" in bench.prepare((0, 128))["why"]
    assert bench.seconds_per_call((0, 128), 1) != bench.seconds_per_call((0, 128), 1)  # NaN
    assert "pass_s" in bench.prepare((0, 64))
    with pytest.raises(RuntimeError, match=r"inner dimension|shapes cannot be multiplied|size mismatch"):
        Bench(_wrong_model(method), torch.float32, captures=False).prepare((0, 1))


def _wrong_model(method: Method) -> torch.nn.Module:
    model = model_with(method, layers=1)
    model.layers[0].o_proj.input_size = 17  # type: ignore[union-attr]
    return model


def test_a_bias_is_added_by_the_layer_that_adds_it_in_the_model() -> None:
    plain = SimpleNamespace(bias="bias", skip_bias_add=False)
    assert bias_of(plain) == "bias"
    assert bias_of(SimpleNamespace(bias="bias", skip_bias_add=True)) is None
    row = {"bias": "bias", "skip_bias_add": False, "reduce_results": True}
    assert bias_of(SimpleNamespace(**row, tp_rank=0)) == "bias"
    assert bias_of(SimpleNamespace(**row, tp_rank=1)) is None
    assert bias_of(SimpleNamespace()) is None


def test_the_last_cache_counts_once_for_all_cores_that_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for core in range(4):
        for index, (level, size, shared) in enumerate(
            [(1, "32K", str(core)), (3, "16M", "0-1" if core < 2 else "2-3")]
        ):
            folder = tmp_path / f"cpu{core}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, text in (("level", str(level)), ("size", size), ("shared_cpu_list", shared)):
                (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    assert last_level_cache_bytes(tmp_path) == 32 << 20
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    last_level_cache_bytes.cache_clear()
    assert last_level_cache_bytes(tmp_path) == 16 << 20
    last_level_cache_bytes.cache_clear()
    assert last_level_cache_bytes(tmp_path / "none") == 0
    last_level_cache_bytes.cache_clear()


class Workers:
    """Stands where the engine is: each point takes a millisecond; above `limit` tokens there is no memory."""

    def __init__(self, limit: int = 1 << 20, round_s: float = 0.0) -> None:
        self.llm, self.limit, self.round_s = self, limit, round_s
        self.rounds: list[list[tuple[int, int, int]]] = []

    def collective_rpc(self, method: str, args: tuple[Any, ...]) -> list[Any]:
        if method == "rollout_bench_prepare_linear":
            if args[1] > self.limit:
                return [{"why": "out of memory"}]
            return [{"pass_s": 0.001, "layers": 2, "through": "calls"}]
        self.rounds.append(list(args[0]))
        return [[0.001] * len(args[0])]


LINEARS = [LinearShape(role=role, in_features=8, out_features=8, layers=2) for role in ("qkv", "o")]


def run(workers: Workers, settings: OperatorsSettings, left_s: float = 1e6) -> tuple[list[Timed], list[str], list[str]]:
    points, _ = prepare(workers, LINEARS, settings)
    told: list[str] = []
    flags = run_rounds(
        workers, points, settings, 0, left_s, lambda event: told.append(event.event),
        lambda: told.append(IterationBegins().event),
    )  # fmt: skip
    return points, told, [flag.code for flag in flags]


def test_every_round_times_every_point_once_in_an_order_of_its_own() -> None:
    workers = Workers()
    settings = OperatorsSettings(tokens=[1, 2, 4, 8, 16], repeats=5, warmup_rounds=2, min_s=0.001)
    points, told, flags = run(workers, settings)
    assert [sorted(calls) for calls in workers.rounds] == [sorted(workers.rounds[0])] * 7
    assert len({tuple(calls) for calls in workers.rounds}) == 7
    assert {(len(point.warmup), len(point.counted)) for point in points} == {(2, 5)}
    assert told.count("begins") == told.count("round") == 7
    assert flags == []
    again = Workers()
    run(again, settings)
    assert again.rounds == workers.rounds


def test_short_calls_are_made_more_often_until_they_took_long_enough() -> None:
    workers = Workers()
    points, _, _ = run(workers, OperatorsSettings(tokens=[1], repeats=4, warmup_rounds=0, min_s=0.04))
    assert {point.passes for point in points} == {10}
    assert all(point.calls * sum(point.counted) >= 0.04 for point in points)
    assert {point.point().calls for point in points} == {20}


def test_more_tokens_than_there_is_memory_for_are_left_out_and_flagged() -> None:
    settings = OperatorsSettings(tokens=[1, 64, 128, 256], repeats=3)
    points, missing = prepare(Workers(limit=64), LINEARS, settings)
    assert {point.tokens for point in points} == {1, 64}
    assert [flag.code for flag in missing_flags(missing)] == ["points_left_out"]
    assert "from 128 tokens on" in missing_flags(missing)[0].sentence
    with pytest.raises(MemoryError, match="out of memory"):
        prepare(Workers(limit=0), LINEARS, settings)


def test_rounds_end_before_the_time_limit_does_and_say_so() -> None:
    points, _, flags = run(Workers(), OperatorsSettings(tokens=[1], repeats=50, warmup_rounds=1), left_s=0.0)
    assert flags == ["fewer_rounds"]
    assert {len(point.counted) for point in points} == {LEAST_ROUNDS}
