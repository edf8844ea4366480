"""Experts of a mixture are timed with the routing that is asked for, and shown with what they read and compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from synthetic_operators import BF16, W8A8, Kernel, make_operators, make_operators_spec, selected

from rollout_bench.analysis.inside.curves import OperatorsRun, runs_of
from rollout_bench.analysis.inside.expert_curves import expert_runs
from rollout_bench.analysis.timed.experiments import chosen
from rollout_bench.contracts.inside import ExpertRouting, MachineLimits, Operators
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import read_operators
from rollout_bench.measure.engine.operators import expert_flags, refused_flags
from rollout_bench.measure.probes.expert_timing import ExpertBench, bytes_of, drawn, sampled
from rollout_bench.measure.probes.router_choices import RouterChoices
from rollout_bench.report.headings import View
from rollout_bench.report.tables.operator_tables import expert_views, operators_notes

EXPERTS, PER_TOKEN, HIDDEN, WIDTH = 8, 2, 16, 12


class Router:
    """As vLLM's: calls what it is told to with what it chose."""

    def __init__(self) -> None:
        self.capture_fn: Any = None

    def set_capture_fn(self, call: Any) -> None:
        self.capture_fn = call

    def choose(self, ids: Sequence[Sequence[int]]) -> None:
        if self.capture_fn is not None:
            self.capture_fn(torch.tensor(ids, dtype=torch.int32))


class Method:
    """Notes what it is called with, and refuses more tokens than its limit."""

    topk_indices_dtype = torch.int64
    is_monolithic = False

    def __init__(self, limit: int = 1 << 20) -> None:
        self.calls: list[tuple[Any, Any]] = []
        self.limit = limit

    def apply(self, *, layer: Any, x: Any, topk_weights: Any, topk_ids: Any, **unused: Any) -> Any:
        assert x.shape[0] == topk_ids.shape[0] == topk_weights.shape[0]
        assert unused == {"shared_experts": None, "shared_experts_input": None}
        if x.shape[0] > self.limit:
            raise AssertionError("Workspace is locked")
        self.calls.append((layer, topk_ids.clone()))


class RoutedExperts(torch.nn.Module):
    """As vLLM's, by the name of its class and its sizes."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.w13_weight = torch.nn.Parameter(torch.zeros(EXPERTS, 2 * WIDTH, HIDDEN), requires_grad=False)
        self.w2_weight = torch.nn.Parameter(torch.zeros(EXPERTS, HIDDEN, WIDTH), requires_grad=False)
        self.quant_method = method
        self.moe_config = SimpleNamespace(
            hidden_dim=HIDDEN,
            intermediate_size_per_partition=WIDTH,
            num_experts=EXPERTS,
            num_local_experts=EXPERTS,
            experts_per_token=PER_TOKEN,
        )


def mixture(method: Any, layers: int = 2) -> torch.nn.Module:
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList()
    for _ in range(layers):
        block = torch.nn.Module()
        block.router, block.routed_experts = Router(), RoutedExperts(method)
        block.runner = torch.nn.Module()
        block.runner.router = block.router  # as vLLM 0.23 has it
        model.layers.append(block)
    return model


def test_uniform_routing_gives_each_expert_as_many_tokens() -> None:
    ids = drawn("uniform", 64, EXPERTS, PER_TOKEN)
    assert set(np.bincount(ids.ravel())) == {64 * PER_TOKEN // EXPERTS}
    assert all(len(set(row)) == PER_TOKEN for row in ids.tolist())
    assert len(set(drawn("uniform", 3, EXPERTS, PER_TOKEN).ravel().tolist())) == 6
    assert (drawn("uniform", 64, EXPERTS, PER_TOKEN) == ids).all()


def test_a_skewed_draw_has_favourites_and_no_expert_twice_for_a_token() -> None:
    ids = drawn("skewed", 512, 64, 8)
    assert all(len(set(row)) == 8 for row in ids.tolist())
    counts = np.sort(np.bincount(ids.ravel(), minlength=64))[::-1]
    assert counts[0] > 3 * counts.mean()


def test_choices_are_noted_only_between_begin_and_end_and_what_was_there_before_is_called_too() -> None:
    model = mixture(Method())
    routers = [block.router for block in model.layers]  # type: ignore[union-attr]
    seen: list[Any] = []
    routers[0].set_capture_fn(seen.append)
    choices = RouterChoices(model)
    assert choices.layers == 2
    choices.begin()
    for router in routers:
        router.choose([[0, 1], [2, 3]])
        router.choose([[4, 5]])
    first, second = choices.end()
    assert first.tolist() == second.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert len(seen) == 2
    model.do_not_compile = False
    with_compiled = RouterChoices(model, uncompiled=True)
    with_compiled.begin()
    assert model.do_not_compile
    with_compiled.end()
    assert not model.do_not_compile
    routers[1].choose([[6, 7]])
    assert routers[1].capture_fn is None
    assert [len(each) for each in choices.taken()] == [0, 0]


def test_recorded_choices_are_those_of_each_layer() -> None:
    method = Method()
    model = mixture(method)
    random = np.random.default_rng(0)
    noted = [np.argsort(random.random((40, EXPERTS)), axis=1)[:, :PER_TOKEN].astype(np.int32) for _ in range(2)]
    bench = ExpertBench(model, torch.float32, False, noted)
    assert bench.routings == ("uniform", "recorded")
    assert bench.recorded == 40
    answer = bench.prepared((0, 8, "recorded"))
    for layer, ids in method.calls[:2]:
        number = 0 if layer is model.layers[0].routed_experts else 1  # type: ignore[union-attr]
        assert ids.dtype == torch.int64
        assert ids.tolist() == sampled(noted[number], 8).tolist()
        assert all(row in noted[number].tolist() for row in ids.tolist())
    hits = [len(set(sampled(each, 8).ravel().tolist())) for each in noted]
    assert answer["hit"] == np.mean(hits)
    one = 3 * HIDDEN * WIDTH * 4
    assert answer["weight_bytes"] == pytest.approx(one * np.mean(hits))
    assert bytes_of(model.layers[0].routed_experts) == EXPERTS * one  # type: ignore[union-attr]
    assert bench.seconds_per_call((0, 8, "recorded"), 2) > 0


def test_without_choices_for_each_layer_the_draw_is_skewed_and_called_so() -> None:
    model = mixture(Method())
    noted = [np.zeros((0, 0), np.int32)] * 2
    assert ExpertBench(model, torch.float32, False, noted).routings == ("uniform", "skewed")
    assert ExpertBench(model, torch.float32, False, []).routings == ("uniform", "skewed")
    (shape,) = ExpertBench(model, torch.float32, False, noted).shapes
    assert (shape.experts, shape.per_token, shape.layers, shape.method) == (EXPERTS, PER_TOKEN, 2, "Method")


def test_what_cannot_be_timed_says_why() -> None:
    class Whole(Method):
        is_monolithic = True

    bench = ExpertBench(mixture(Whole()), torch.float32, False, [])
    assert bench.shapes == []
    assert set(bench.why.values()) == {"their kernel chooses the experts itself"}
    (flag,) = expert_flags(bench.why)
    assert flag.code == "experts_not_timed"
    assert "2 modules of experts are not timed alone: their kernel chooses" in flag.sentence
    refused = ExpertBench(mixture(Method(limit=8)), torch.float32, False, []).prepared((0, 16, "uniform"))
    assert refused == {"why": "AssertionError: Workspace is locked"}
    assert "uniform" in refused_flags({"uniform routing from 16 tokens on": refused["why"]})[0].sentence
    assert expert_flags({}) == refused_flags({}) == []


def with_experts(record: Operators, kernel: Kernel, routings: Sequence[ExpertRouting]) -> Operators:
    """Return `record` with 48 layers of 128 experts that are timed as `kernel` says."""
    random = np.random.default_rng(record.launch)
    points = [
        {
            "hidden_size": 2048, "intermediate_size": 768, "experts": 128, "per_token": 8, "layers": 48, "gated": True,
            "method": "UnquantizedFusedMoEMethod", "routing": routing, "tokens": tokens,
            "hit": min(128.0, 8.0 * tokens), "busiest": 9.0, "weight_bytes": min(128, 8 * tokens) * 3 * 2048 * 768 * 2,
            "calls": 48, "through": "calls", "warmup_seconds_per_call": [],
            "seconds_per_call": [
                (kernel.call_s + kernel.token_s * tokens) * (1 + 0.01 * random.standard_normal()) for _ in range(5)
            ],
        }
        for routing in routings for tokens in (1, 32, 128)
    ]  # fmt: skip
    return Operators.model_validate({**record.model_dump(), "experts": points or None})


def runs(
    routings: Sequence[ExpertRouting] = ("uniform", "recorded"), stored: Mapping[str, str] | None = None
) -> list[OperatorsRun]:
    """Return two quantizations, three launches each; `stored` has the format of the weights of each."""
    experiments = [
        selected(
            *(
                with_experts(make_operators(_spec(quant, stored or {}), launch, kernel), kernel, routings)
                for launch in range(3)
            )
        )
        for quant, kernel in (("bf16", BF16), ("w8a8", W8A8))
    ]
    return runs_of(chosen(experiments), {"quant": "bf16"}, 0.95)


def _spec(quant: str, stored: Mapping[str, str]) -> Spec:
    spec = make_operators_spec(quant=quant)
    named = spec.quant.model_copy(update={"weights_format": stored.get(quant, spec.quant.weights_format)})
    return spec.model_copy(update={"quant": named})


def lines(table: View) -> list[dict[str, str]]:
    headers = [column.header for column in table.columns]
    return [dict(zip(headers, line, strict=True)) for line in table.cells]


def test_the_tables_of_experts_have_rows_bytes_and_speedups_by_routing() -> None:
    crossed, batch = (lines(table) for table in expert_views(runs()))
    assert [(line["quant"], line["routing"]) for line in crossed] == [("w8a8", "uniform"), ("w8a8", "recorded")]
    assert crossed[0]["break-even M"].startswith(">= ")
    assert [(line["quant"], line["routing"]) for line in batch] == [
        (quant, routing) for quant in ("bf16", "w8a8") for routing in ("uniform", "recorded")
    ]
    first, last = batch[0], batch[-1]
    assert (first["experts"], first["H x I"], first["layers"], first["M"]) == ("128 (8)", "2048 x 768", "48", "32")
    assert (first["rows per expert"], first["hit"], first["weights MiB"]) == ("2.00", "128", "1,152")
    assert float(first["us per layer"].split()[0]) == pytest.approx(1e6 * (BF16.call_s + 32 * BF16.token_s), rel=0.05)
    assert float(first["MFLOP"].replace(",", "")) == pytest.approx(2 * 3 * 2048 * 768 * 8 * 32 / 1e6, rel=0.01)
    assert "bound us" not in first
    assert first["speed-up"] == "(baseline)"
    assert float(last["speed-up"].split("x")[0]) == pytest.approx((50 + 320) / (80 + 160), rel=0.05)


def test_where_the_machine_is_known_the_bound_stands_beside() -> None:
    environment = runs()[0].launches[0].environment
    limits = MachineLimits.model_validate(
        {
            "schema_version": 1, "device_model": environment.device_model, "cpu_model": environment.cpu_model,
            "cpu_cores": environment.cpu_cores, "torch_version": environment.torch_version,
            "memory_bandwidth_bytes_per_s": 1e12, "flops_per_s": {"bfloat16": 1e12, "int8": 2e12},
            "samples": [{"test": "read", "dtype": "float32", "work": 1e9, "elapsed_s": 0.001}],
            "measured_at": "2026-01-01T00:00:00+00:00",
        }
    )  # fmt: skip
    stored = {"bf16": "bf16", "w8a8": "compressed-tensors-w8a8"}
    _, batch = (lines(table) for table in expert_views(runs(stored=stored), [limits]))
    flops_us, bytes_us = 2 * 3 * 2048 * 768 * 8 * 32 / 1e6, 128 * 3 * 2048 * 768 * 2 / 1e6
    assert float(batch[0]["bound us"].replace(",", "")) == pytest.approx(max(flops_us, bytes_us), rel=0.01)
    assert float(batch[2]["bound us"].replace(",", "")) == pytest.approx(max(flops_us / 2, bytes_us), rel=0.01)


def test_sentences_say_which_routing_it_was() -> None:
    experts = operators_notes(runs(("uniform", "skewed")), 0.95)[1]
    assert experts.heading == "Experts alone"
    assert len(experts.items) == 5
    assert "w8a8 small, skewed routing: a batch of 32 hits 128 of 128 experts" in experts.items[3]
    assert "the speed of the baseline's" in experts.items[3]
    assert "linear layers only" in experts.items[4]
    assert [section.heading for section in operators_notes(runs(()), 0.95)] == ["Linear layers alone"]


def test_other_routing_is_not_compared() -> None:
    bf16 = selected(with_experts(make_operators(make_operators_spec()), BF16, ("uniform", "recorded")))
    w8a8 = selected(with_experts(make_operators(make_operators_spec(quant="w8a8")), W8A8, ("uniform", "skewed")))
    found = expert_runs(runs_of(chosen([bf16, w8a8]), {"quant": "bf16"}, 0.95))
    assert [each.against is not None for each in found] == [False, False, True, False]


def test_recorded_routing_that_hits_fewer_experts_is_other_work_and_not_compared() -> None:
    both: tuple[ExpertRouting, ...] = ("uniform", "recorded")
    bf16 = with_experts(make_operators(make_operators_spec()), BF16, both)
    w8a8 = with_experts(make_operators(make_operators_spec(quant="w8a8")), W8A8, both)
    points = [
        point.model_copy(update={"hit": float(point.per_token)}) if point.routing == "recorded" else point
        for point in w8a8.experts or ()
    ]
    fallen = w8a8.model_copy(update={"experts": points})
    found = runs_of(chosen([selected(bf16), selected(fallen)]), {"quant": "bf16"}, 0.95)
    uniform, recorded = [each for each in expert_runs(found) if each.run is found[1]]
    assert uniform.against is not None
    assert uniform.against.tokens == (1, 32, 128)
    assert recorded.against is not None
    assert recorded.against.tokens == (1,)  # where both hit eight
    assert (uniform.baseline_hit, recorded.baseline_hit) == (None, 128)
    batch = lines(expert_views(found)[1])
    assert batch[-1]["speed-up"] == "-"
    said = operators_notes(found, 0.95)[1].items[3]
    assert "All tokens go to the same experts" in said
    assert "Not compared with the baseline, which hits 128" in said
    assert "the speed of" not in said


def test_records_without_experts_read_as_before_and_those_with_them_come_back(tmp_path: Path) -> None:
    plain = make_operators(make_operators_spec())
    assert "experts" not in plain.model_dump_json(exclude={"linears", "points", "engine"})
    (tmp_path / "launch-0.json").write_text(plain.model_dump_json())
    assert read_operators(tmp_path / "launch-0.json") == plain
    more = with_experts(plain, BF16, ("uniform",))
    (tmp_path / "launch-1.json").write_text(more.model_dump_json())
    assert read_operators(tmp_path / "launch-1.json") == more
    assert sum(name.startswith("experts.") for name in more.timed_s) == 15
    assert expert_views(runs_of(chosen([selected(plain)]), {}, 0.95)) == []
