"""What each mode comes to, worked out by hand, and what the registry of numbers says."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean

import pytest
import yaml
from pydantic import ValidationError
from samples.cycle import cycle_spec, cycled
from samples.drift import DRIFT_SEQUENCES, DRIFT_TOKENS, drift_spec, save_drift
from samples.online import Server, make_online, make_online_spec
from samples.placement import SLEEP_S, WAKE_KV_CACHE_S, WAKE_WEIGHTS_S, placed_record, placed_spec
from samples.rollout import rollout_spec, shared_out
from samples.startup import COLD, start_record, start_spec
from synthetic_records import (
    GIB,
    INVALID,
    OUTPUT_TOKENS,
    SEQUENCES,
    changed,
    make_plan,
    make_record,
    make_sequences,
    make_spec,
    save,
)

from rollout_bench.analysis.timed.balance import replicas_of
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import ResultSet, measured_experiments
from rollout_bench.analysis.timed.latencies import distributions, pool_sequences
from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.contracts.record import Iteration, Record, ReplicaPass
from rollout_bench.core.numbers import number
from rollout_bench.modes.cycle.gains import net_gain
from rollout_bench.modes.cycle.record import Transition
from rollout_bench.modes.drift.drifts import DriftReport, drift_report
from rollout_bench.modes.placement.costs import placed_of, typical_step
from rollout_bench.modes.placement.report import name_with_devices, placement_name
from rollout_bench.modes.placement.settings import PlacementSpec
from rollout_bench.modes.startup.loading_report import loading_report
from rollout_bench.numbers.generation import THROUGHPUT
from rollout_bench.numbers.iterations import columns_of
from rollout_bench.numbers.launch import parts_of
from rollout_bench.numbers.number import P99, Number
from rollout_bench.numbers.registry import COMPARED, NUMBERS
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.reference import config_table
from rollout_bench.report.summary import summary_of

STEADY, AS_STEADY = (1.0, 1.004, 0.997, 0.999), (0.998, 1.003, 1.001, 0.998)
"""What a launch's rate is times: those of a baseline, and those of what is compared with it."""


def rows(results: Path, records: Sequence[Record], **baseline: str) -> list[Row]:
    save(results, *records)
    specs = list({record.experiment: record.spec for record in records}.values())
    return rows_of(collect(results, make_plan(specs, 4, baseline=baseline or None)))


def values_of(row: Row, *names: str) -> list[float]:
    return [row.values[name] for name in names]


PASSES = ((1, 100), (1, 100)), ((4, 100), (2, 80)), ((1, 20), (3.999, 100))
"""Seconds and tokens of two replicas in each pass, of which the second begins 2 ms later, then 1 ms."""


def replicated() -> Record:
    """Return a launch of two replicas with these passes."""
    own = {"requests": 4, "sequences": 4, "prompt_tokens": 32}

    def change(one: Iteration) -> dict[str, object]:
        parts = [
            ReplicaPass(start_offset_s=at * (3 - one.index) / 1000, elapsed_s=s, output_tokens=tokens, **own)
            for at, (s, tokens) in enumerate(PASSES[one.index])
        ]
        return {"elapsed_s": max(part.end_s for part in parts), "replicas": parts}

    return changed(make_record(make_spec(args={"data_parallel_size": 2}), rates=(1.0, 1.0)), change)


LASTED = [make_record(launch=i).model_copy(update={"wall_s": s}) for i, s in enumerate((28.0, 32.0))]
WITH_WEIGHTS = {**COLD, "weights": 2.0}
SLEEPING = placed_record(placed_spec(sleep="1"))
SHARDED = placed_record(placed_spec(2, devices=4, args={"tensor_parallel_size": 2}))


@pytest.mark.parametrize(
    ("records", "numbers"),
    [
        (
            [*LASTED, make_record(launch=2, flags=[INVALID])],
            {"launch_s": 30, "import_s": 8, "init_s": 3, "warmup_s": 5.12},
        ),
        (
            [replicated()],
            {"step_time_s": 4, "replicas": 2, "replica_start_spread_s": 0.002, "replica_idle_share": 1 - 10.999 / 16}
            | {"replica_imbalance": ((4 / 3 - 1) + (3.999 / 2.4995 - 1)) / 2},
        ),
        (
            [shared_out(make_record(rollout_spec(), launch)) for launch in (0, 1)],
            {"engines": 2, "prompts_per_engine": 6.5, "cached_share": 0.25, "preemptions": 4, "handing_out_s": 0.012}
            | {"decide_s": 5e-6, "loop_delay_p99_s": 0.002, "kv_cache_peak_share": 0.5}
            | {"dropped_sequences": 6, "aborted_sequences": 4, "dropped_share": 0.2, "drain_after_s": 0.02}
            | {"turns_per_sequence": 2, "tool_share": 2 / 11, "all_in_tools_share": 0.05, "recomputed_share": 0.05},
        ),
        (
            [
                *(start_record(start_spec(), launch, WITH_WEIGHTS) for launch in (0, 1)),
                start_record(start_spec(), 2, {"import": 500.0}, flags=[INVALID]),
            ],
            {"until_token_s": 38.2, "startup_s": 37.7, "rest_s": 0.1, "phase_inductor_s": 20}
            | {"loading_bytes_per_s": 10**9 / 2.0},
        ),
        ([SLEEPING], {"asleep_s": SLEEP_S + WAKE_WEIGHTS_S + WAKE_KV_CACHE_S}),
        ([SHARDED], {"sequences_per_engine": 32}),
    ],
    ids=["cost", "replicas", "rollout", "startup", "sleep", "sharded"],
)
def test_a_number_comes_to_what_paper_says(tmp_path: Path, records: list[Record], numbers: dict[str, float]) -> None:
    (row,) = rows(tmp_path, records, **{"setting": "default"} if records[0].spec.mode == "placement" else {})
    assert {name: row.values[name] for name in numbers} == pytest.approx(numbers)


def test_the_parts_of_a_launch_are_those_it_has() -> None:
    known = parts_of(make_record().model_copy(update={"wall_s": 1.0}))
    assert known["other_s"] == 0  # where clocks disagree
    server = parts_of(make_record(make_online_spec()))
    assert (server["server_start_s"], server.keys() & {"import_s", "init_s"}) == (11, set())


def test_replicas_wait_for_the_slowest_of_them(tmp_path: Path) -> None:
    found = replicas_of(*rows(tmp_path, [replicated()]))
    assert [one["elapsed_s"] for one in found] == pytest.approx([2.5, 2.9995])
    assert [one["slowest_share"] for one in found] == [0.5, 0.5]
    assert [one["idle_share"] for one in found] == pytest.approx([1 - 5 / 8, 1 - 5.999 / 8])


def test_sleep_gives_back_memory_and_sharded_engines_count_once(tmp_path: Path) -> None:
    (sleeping,), (sharded,) = (
        map(placed_of, rows(tmp_path / name, [record], setting="default"))
        for name, record in (("sleeping", SLEEPING), ("sharded", SHARDED))
    )
    assert (sleeping.asleep.awake_free_bytes, sleeping.asleep.asleep_free_bytes) == (14 << 30, 120 << 30)
    assert (sharded.engines, sharded.devices_per_engine) == (1, 2)


@pytest.mark.parametrize(("last_j", "expected"), [(1000, [2800 / 2048, 2800 / 8, 350 / 700]), (None, [None] * 3)])
def test_energy_is_of_all_devices_or_of_none(last_j: float | None, expected: list[float | None]) -> None:
    read, use = ((1e6, 1e6), (400, 600), (800, last_j)), {"device": "0", "power_limit_w": 700}

    def change(one: Iteration) -> dict[str, object]:
        return {"devices": [{**use, "energy_j": each, "window_s": each and 2.0} for each in read[one.index]]}

    columns = columns_of(changed(make_record(rates=(400.0, 800.0)), change))
    names = ("energy_j_per_token", "device_power_w", "power_limit_share")
    assert [NUMBERS[name].ratio_over(columns) for name in names] == [e and pytest.approx(e) for e in expected]


CYCLES = cycle_spec(), cycle_spec("fp8")
"""Generation takes 1024 tokens / rate: 2.56 s with 400 tokens per second, 2 s with 512."""


def cycles(results: Path, rate: float, transition_s: float) -> list[Row]:
    """Return rows of bf16, whose transition takes 0.3 s, and of fp8."""
    cases = zip(CYCLES, (400.0, rate), (0.3, transition_s), (STEADY, AS_STEADY), strict=True)
    records = [
        cycled(make_record(spec, launch, [own * factor] * 3), seconds)
        for spec, own, seconds, factors in cases
        for launch, factor in enumerate(factors)
    ]
    return rows(results, records)


def test_a_whole_step_is_generation_and_transition(tmp_path: Path) -> None:
    bf16, fp8 = cycles(tmp_path, 512, 0.6)
    names = ("step_time_s", "cycle_s", "whole_step_s")
    assert values_of(bf16, *names) == pytest.approx([2.56, 0.3, 2.86], rel=0.002)
    assert values_of(fp8, *names) == pytest.approx([2.0, 0.6, 2.6], rel=0.002)
    speedups = {"whole_step_s": 2.86 / 2.6, "cycle_s": 0.5, "output_tokens_per_s": 1.28}
    assert {name: fp8.comparisons[name].speedup for name in speedups} == pytest.approx(speedups, rel=0.002)


@pytest.mark.parametrize(
    ("rate", "transition_s", "even", "pays", "loses"),
    [
        (512, 0.6, 32 * 0.3 / 0.56, "from", None),
        (300, 0.6, None, None, "at any"),
        (512, 2.0, 32 * 1.7 / 0.56, None, "up to"),
        (512, 0.2, None, "at any", None),
    ],
)
def test_from_which_length_on_a_quantization_pays(
    tmp_path: Path, rate: float, transition_s: float, even: float | None, pays: str | None, loses: str | None
) -> None:
    bf16, fp8 = cycles(tmp_path, rate, transition_s)
    found = net_gain(fp8, bf16, fp8.comparisons["whole_step_s"], 0.95)
    assert found.at == (None if even is None else pytest.approx(even, rel=0.02))
    for tokens, kind in ((found.pays, pays), (found.loses, loses)):
        assert (tokens is None) == (kind is None)
        if tokens is not None:
            assert (tokens.first > 1, tokens.last is not None) == (kind == "from", kind == "up to")
            assert tokens.first <= 32 <= (tokens.last or 32)


def test_a_placed_step_is_told_by_its_slowest_device(tmp_path: Path) -> None:
    # colocated: 2 s + 0.05 + 1 s + 0.1 = 3.15 s; server: 4 + 0.05 + 2 + 0.1 = 6.15 s
    specs = placed_spec(), placed_spec(1)
    records = [
        placed_record(spec, launch, [factor] * 3)
        for spec, factors in zip(specs, (STEADY, AS_STEADY), strict=True)
        for launch, factor in enumerate(factors)
    ]
    records[4] = placed_record(specs[1], 0, [9.0] * 3, flags=[INVALID])
    colocated, server = rows(tmp_path, records, setting="where-colocated")
    names = ("placed_step_s", "placed_device_s", "generation_s")
    assert values_of(colocated, *names, "generators_idle_share") == pytest.approx([3.15, 6.3, 2, 0], rel=0.01)
    assert values_of(server, *names, "training_s") == pytest.approx([6.15, 12.3, 4, 2], rel=0.01)
    idle = values_of(server, "generators_idle_share", "trainers_idle_share", "sequences_per_engine")
    assert idle == pytest.approx([2 / 6.15, 4 / 6.15, 32], rel=0.01)
    assert typical_step(server).elapsed_s < 7
    assert server.comparisons["placed_step_s"].speedup == pytest.approx(3.15 / 6.15, rel=0.01)


@pytest.mark.parametrize(
    ("platform", "cores", "verdict"), [("cuda", None, "slower"), ("cpu", 1, "slower"), ("cpu", None, "unknown")]
)
def test_unequal_numbers_of_devices_are_compared_in_device_seconds(
    tmp_path: Path, platform: str, cores: int | None, verdict: str
) -> None:
    # 2 devices: 2 s + 0.05 + 1 s + 0.1 = 3.15 s; 2 + 1: 4 + 0.05 + 1 + 0.1 = 5.15 s
    specs = [
        spec.model_copy(update={"platform": platform, "placement": own.model_copy(update={"cores_per_device": cores})})
        for spec in (placed_spec(), placed_spec(1, devices=3))
        for own in [spec.of(PlacementSpec)]
    ]
    records = [
        placed_record(spec, launch, [factor] * 5)
        for spec, factors in zip(specs, (STEADY, AS_STEADY), strict=True)
        for launch, factor in enumerate(factors)
    ]
    found = rows(tmp_path, records, setting="where-colocated")
    cost, length = list(found[1].comparisons.items())[:2]
    assert (cost[0], cost[1].verdict, length[0]) == ("placed_device_s", verdict, "placed_step_s")
    plan = make_plan(specs, 4, baseline={"setting": "where-colocated"})
    text = " ".join(summary_of(tmp_path, collect(tmp_path, plan)).markdown.split())
    head = "With 2 devices colocated a step takes 6.30 device-seconds, with 2 + 1 devices apart 15.4: 0.4"
    assert (head in text, "as cheap. The step itself takes 3.15 s and 5.15 s: 0.6" in text) == (
        verdict != "unknown",
    ) * 2
    alone = plan.model_copy(update={"comparison": ComparisonSettings(metrics={"placement": ["placed_device_s"]})})
    text = " ".join(summary_of(tmp_path, collect(tmp_path, alone)).markdown.split())
    assert (head in text) == (verdict != "unknown")
    if verdict == "slower":
        assert cost[1].speedup == pytest.approx(2 * 3.15 / (3 * 5.15), rel=0.01)
        assert length[1].speedup == pytest.approx(3.15 / 5.15, rel=0.01)


def test_a_placement_is_named_with_its_sleep_and_trainer() -> None:
    own = placed_spec().of(PlacementSpec).model_copy(update={"strategy": "fsdp2", "sleep": "1"})
    assert placement_name(own) == "engine and trainer colocated with sleep level 1, trainer sharded"
    assert name_with_devices(own) == "2 devices colocated with sleep level 1, trainer sharded"
    changes = {"sleep": None, "devices": 3, "generators": 1, "overlap": 1, "through": "server"}
    assert placement_name(own.model_copy(update={"waves": 4})).startswith(
        "engine and trainer colocated in 4 waves with sleep"
    )
    apart = own.model_copy(update=changes)
    assert placement_name(apart) == "1 of 3 devices generating a step ahead over HTTP, trainer sharded"
    assert name_with_devices(apart) == "2 + 1 devices apart, a step ahead over HTTP, trainer sharded"


def test_a_loading_report_has_the_times_of_a_start() -> None:
    record = start_record(start_spec(), phases={**COLD, "engine_ready": 0.5}, after_s=30.0)
    report = yaml.safe_load(loading_report(record))
    launched = datetime.fromisoformat(record.started_at).timestamp()
    (metrics,) = report["vllm_metrics"]
    elapsed = {each["title"]: each["elapsed"] for each in metrics["categories"]}
    assert (elapsed["LLM Imports"], elapsed["Get Model Info"], metrics["torch_compile"]) == (6.6, 9.0, 20.0)
    assert metrics["vllm_start_timestamp"] == pytest.approx(launched + 30.0)
    assert metrics["sleep_wake"] == []
    assert report["time"]["stop"] - report["time"]["start"] == pytest.approx(report["time"]["duration"])


@pytest.mark.parametrize(("quant", "slept"), [("bf16", True), ("w8a8", False)])
def test_a_loading_report_has_the_sleeps_of_its_engine(quant: str, slept: bool) -> None:
    others = [cycled(make_record(cycle_spec(quant=quant), rates=(100.0,)), 10.0)]
    transition = others[0].iterations[-1].of(Transition)
    assert transition is not None
    names = {"pause": "sleep", "drain": "wake_weights", "resume": "wake_kv_cache"}
    parts = [one.model_copy(update={"name": names.get(one.name, one.name)}) for one in transition.parts]
    looks = [
        look.model_copy(update={"device_free_bytes": free * GIB})
        for look, free in zip(transition.memory, (1, 5, 1), strict=True)
    ]
    asleep = transition.model_copy(update={"parts": parts, "memory": looks})
    iteration = others[0].iterations[-1].model_copy(update={"transition": asleep})
    environment = others[0].environment.model_copy(update={"device_memory_bytes": 8 * GIB})
    others.append(others[0].model_copy(update={"iterations": [iteration], "environment": environment}))
    report = yaml.safe_load(loading_report(start_record(start_spec()), others))
    found = report["vllm_metrics"][0]["sleep_wake"]
    assert [(one["type"], pytest.approx(one["time"])) for one in found] == ([("sleep", 0.4), ("wake", 1.4)] * slept)
    assert report["scenario"]["sleep_mode"] is slept
    assert not slept or (found[0]["gpu_freed"], found[0]["gpu_in_use"]) == (4.0, 3.0)


@pytest.mark.parametrize(("least", "judged"), [(700, True), (100, False)])
def test_p99_is_judged_if_every_launch_has_enough(tmp_path: Path, least: int, judged: bool) -> None:
    specs, metrics = (make_online_spec(), make_online_spec("w8a8")), ["e2el_s", P99]
    for launch, spec in itertools.product(range(3), specs):
        server = Server(step_s=0.01 if spec.quant.name == "bf16" else 0.008)
        requests = least if launch == 1 else 700
        save(tmp_path, make_online(spec, launch, server, iterations=1, requests=requests))
    plan = make_plan(specs, 3, comparison=ComparisonSettings(metrics={"online": metrics}))
    collection = collect(tmp_path, plan)
    _, row = rows_of(collection)
    compared = row.comparisons[P99]
    assert (compared.verdict == "faster", P99 in row.values) == (judged, judged)
    assert row.comparisons["e2el_s"].speedup == pytest.approx(1.2, rel=0.05)
    pooled = distributions(pool_sequences(collection)[1])["e2el_s"]
    if judged:
        assert row.values[P99] == pytest.approx(pooled.by_launch[99])
        assert (compared.low or 0) > 1.1
        assert compared.speedup == pytest.approx(pooled_p99(collection, 0) / pooled_p99(collection, 1), rel=0.01)
    else:
        assert "needs 662 independent requests" in compared.reason


def pooled_p99(collection: ResultSet, experiment: int) -> float:
    return distributions(pool_sequences(collection)[experiment])["e2el_s"].by_launch[99]


def test_offline_sequences_have_a_latency_and_its_verdict(tmp_path: Path) -> None:
    specs = make_spec(), make_spec(quant="w8a8")
    records = [make_record(spec, i, rates=[rate]) for spec, rate in zip(specs, (100, 200), strict=True) for i in (0, 1)]
    save(tmp_path, *records)
    settings = ComparisonSettings(metrics={"offline": ["e2el_s"]})
    slow, fast = rows_of(collect(tmp_path, make_plan(specs, 2, comparison=settings)))
    n = records[0].iterations[-1].sequences
    assert slow.values["e2el_s"] == pytest.approx(slow.values["step_time_s"] * (n + 1) / (2 * n))
    assert fast.comparisons["e2el_s"].speedup == pytest.approx(2)


def test_a_load_has_its_input_rate_and_duration(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, [(pair := make_online(make_online_spec()))[0]])
    measured = [one for one in pair[0].iterations if not one.warmup]
    seconds = sum(one.elapsed_s for one in measured)
    assert values_of(row, "input_tokens_per_s") == pytest.approx([sum(one.prompt_tokens for one in measured) / seconds])
    assert values_of(row, "duration_s") == pytest.approx([seconds])


FLOOR = 0.002
DRIFTS = drift_spec(), drift_spec("w8a8"), drift_spec("w8a16")


def drifts(results: Path) -> DriftReport:
    return drift_report(results, measured_experiments(collect(results, make_plan(DRIFTS, 2)).others), 0.95)


@pytest.fixture
def drifted(tmp_path: Path) -> Path:
    """Return a folder in which w8a8 drifts, and w8a16 is as noisy as bf16 itself."""
    for launch in (0, 1):
        for spec, noise in zip(DRIFTS, (1, 10, 0.9), strict=True):
            save_drift(tmp_path, spec, launch, noise * FLOOR)
    return tmp_path


def test_drift_is_held_against_the_references_own_floor(drifted: Path) -> None:
    found = drifts(drifted).drifted
    assert [(one.valid.label, one.batch, one.drifts) for one in found if not one.of_reference] == [
        ("w8a8", 1, True), ("w8a8", 8, True), ("w8a16", 1, False), ("w8a16", 8, False)
    ]  # fmt: skip
    one = next(one.found for one in found if one.valid.label == "w8a8")
    assert (one.sequences, one.tokens) == (DRIFT_SEQUENCES, 2 * DRIFT_SEQUENCES * DRIFT_TOKENS)
    assert one.size.value == pytest.approx(10 * FLOOR * math.sqrt(2 / math.pi), rel=0.15)
    assert one.k3.value == pytest.approx((10 * FLOOR) ** 2 / 2, rel=0.2)


def test_nothing_is_held_against_an_invalid_reference(drifted: Path) -> None:
    save_drift(drifted, DRIFTS[0], 0, 5.0, flags=[INVALID])
    assert [one.batch for one in drifts(drifted).drifted if one.of_reference] == [8]
    save_drift(drifted, DRIFTS[0], 1, FLOOR, flags=[INVALID])
    assert drifts(drifted).drifted == ()


def test_what_scored_other_tokens_is_left_out(drifted: Path) -> None:
    save_drift(drifted, DRIFTS[1], 1, FLOOR, tokens="b")
    found = drifts(drifted)
    assert {one.launches for one in found.drifted if one.valid.label == "w8a8"} == {(0,)}
    assert "scored other tokens than launch 0" in found.problems[0]


def test_sequences_in_step_count_as_one_value(tmp_path: Path) -> None:
    record = make_record(rates=[400.0 + step for step in range(12)])
    together = [row.model_copy(update={"last_token_s": 2.0 + row.iteration}) for row in make_sequences(record)]
    save(tmp_path, (record, together))
    (pooled,) = pool_sequences(collect(tmp_path, None))
    found = distributions(pooled)
    assert (found["e2el_s"].sequences, found["e2el_s"].independent) == (384, 12)
    assert list(found["e2el_s"].proven) == [50]
    assert list(found["ttft_s"].proven) == [50, 90, 95, 97]


def test_lengths_behind_a_server_know_their_launches(tmp_path: Path) -> None:
    spec = make_online_spec()
    spec = spec.model_copy(update={"workload": spec.workload.model_copy(update={"ignore_eos": False})})
    save(tmp_path, *(make_online(spec, launch) for launch in range(2)))
    (pooled,) = pool_sequences(collect(tmp_path, None))
    assert [set(pooled.of_launch[measure]) for measure in ("e2el_s", "output_tokens")] == [{0, 1}, {0, 1}]
    assert pooled.of_launch["output_tokens"].size == pooled.values["output_tokens"].size


TESTS = Path(__file__).parents[2]
EACH = pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
EACH_COMPARED = pytest.mark.parametrize("number", [NUMBERS[name] for name in COMPARED], ids=COMPARED)


@EACH
def test_a_number_has_a_definition_and_its_unit_as_suffix(number: Number) -> None:
    assert number.header
    assert number.definition.endswith(".")
    assert number.name.endswith(number.unit.replace("/", "_per_").lower())
    assert bool(number.speedup) == (number.name in COMPARED)
    assert [other.name for other in NUMBERS.values() if other.header == number.header] == [number.name]


def test_a_config_can_name_only_numbers_with_a_better_direction() -> None:
    assert all(f"`{name}`" in config_table() for name in COMPARED)
    for name in NUMBERS.keys() - COMPARED:
        with pytest.raises(ValidationError, match="literal_error"):
            ComparisonSettings(metrics={"online": [name]})
    for mode, name in itertools.product(("offline", "online", "cycle", "placement"), COMPARED):
        own = NUMBERS[name].mode
        if own in ("", mode):
            assert ComparisonSettings(metrics={mode: [name]}).metrics_of(mode) == [name]
        else:
            with pytest.raises(ValidationError, match=f"is of mode {own} alone"):
                ComparisonSettings(metrics={mode: [name]})


@EACH_COMPARED
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_registry_decides_whether_more_of_a_number_is_better(
    number: Number, factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def value(record: Record) -> float:
        return factor * (1 + record.launch / 1000) if record.spec.quant.name == "w8a8" else 1.0

    monkeypatch.setitem(NUMBERS, number.name, dataclasses.replace(number, read=value, numerator="", of="", mode=""))
    specs = [make_spec(), make_spec(quant="w8a8")]
    save(tmp_path, *(make_record(spec, launch) for spec in specs for launch in range(4)))
    settings = ComparisonSettings(metrics={"offline": [number.name]})
    _, own = rows_of(collect(tmp_path, make_plan(specs, 4, comparison=settings)))
    better = (factor > 1) == (number.better == "higher")
    assert own.comparison.verdict == ("faster" if better else "slower")
    assert own.comparison.speedup == pytest.approx(2.0 if better else 0.5, rel=0.01)


def test_an_added_number_is_in_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = Number(
        name="request_tokens",
        unit="tokens",
        header="tokens a request",
        definition="Output tokens of a request.",
        numerator="output_tokens",
        denominator="requests",
        table=THROUGHPUT,
    )
    monkeypatch.setitem(NUMBERS, added.name, added)
    record = make_record()
    save(tmp_path, record)
    summary = summary_of(tmp_path, collect(tmp_path, None), drawn=True)
    (row,) = csv.DictReader(summary.csv.splitlines())
    assert float(row[added.name]) == OUTPUT_TOKENS
    assert added.header in [column.header for column in summary.views[0].columns]
    assert added.definition in summary.markdown
    assert added.name in [number["name"] for number in json.loads(summary.explored)["numbers"]]


def test_a_mode_says_its_part_of_a_workload(tmp_path: Path) -> None:
    start = start_spec()
    first = start.workload.model_copy(update={"prompts": 1, "samples_per_prompt": 1, "output_tokens": 1})
    save(tmp_path, make_record(), start_record(start.model_copy(update={"workload": first})))
    text = summary_of(tmp_path, collect(tmp_path, None)).markdown
    assert "workload small in offline: 8 prompts x 4 samples, 64" in text
    assert "workload small in startup: 1 prompt x 1 sample, 64" in text


def test_a_summary_says_the_caveat_of_a_load_as_text(tmp_path: Path) -> None:
    record = make_record()
    load = record.spec.workload.model_copy(update={"caveat": "measured <b>without</b> its adapter"})
    save(tmp_path, make_record(record.spec.model_copy(update={"workload": load})))
    summary = summary_of(tmp_path, collect(tmp_path, None), drawn=True)
    assert "its adapter" in summary.markdown
    assert "its adapter" in summary.html
    assert "<b>without" not in summary.html + summary.markdown


def test_a_summary_has_the_generation_of_a_trainings_log_beside_the_measured_one(tmp_path: Path) -> None:
    for quant, factor in (("bf16", 1), ("w8a8", 2)):
        spec = make_spec(quant=quant)
        load = spec.workload.model_copy(update={"logged_generation_s": 31.2})
        for launch in range(3):
            made = make_record(spec.model_copy(update={"workload": load}), launch, [factor * (400.0 + launch)] * 3)
            save(tmp_path, made)
    tokens = SEQUENCES * OUTPUT_TOKENS
    alone = [fmean(tokens / (factor * (400.0 + launch)) for launch in range(3)) for factor in (1, 2)]
    words = f"the engines alone take bf16 {number(alone[0], 3)} s, w8a8 {number(alone[1], 3)} s. What differs"
    assert f"generation takes 31.2 s of a step; {words}" in " ".join(
        summary_of(tmp_path, collect(tmp_path, None)).text.split()
    )


@pytest.mark.parametrize(
    ("gains", "text"),
    [
        ((1.0, 1.0, 2.0), r"changes with output_tokens .*: 1\.\S* .* at 256, 2\.\S* .* at 16,384\."),
        ((1.0, 2.0, 1.0), r"changes with output_tokens .*: 1\.\S* .* at 256, 2\.\S* .* at 1,024\."),
        ((1.0, 1.0, 1.0), "No change of the speed-up of w8a8"),
        ((1.5, 1.0, 0.8), r" at 16,384; it is faster up to 256, and slower from 16,384\."),
        ((0.8, 0.9, 1.5), r" at 16,384; it is slower up to 1,024, and faster from 16,384\."),
    ],
    ids=["at the end", "in the middle", "nowhere", "to a loss", "to a gain"],
)
def test_a_speed_up_over_lengths_has_a_sentence(tmp_path: Path, gains: tuple[float, ...], text: str) -> None:
    specs = []
    for (length, gain), quant in itertools.product(zip((256, 1024, 16_384), gains, strict=True), ["bf16", "w8a8"]):
        spec = make_spec(quant=quant)
        changed = {"workload": spec.workload.model_copy(update={"output_tokens": length}), "setting": f"l{length}"}
        specs.append(spec.model_copy(update=changed))
        for launch in range(3):
            factor = gain * (1 + launch / 1000) if quant == "w8a8" else 1.0
            save(tmp_path, make_record(specs[-1], launch, (400 * factor,) * 3))
    markdown = summary_of(tmp_path, collect(tmp_path, make_plan(specs))).markdown
    assert "Trend over output_tokens" in markdown
    assert re.search(text, markdown), markdown
