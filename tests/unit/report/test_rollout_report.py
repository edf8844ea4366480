"""The summary tells what a rollout's router and its replicas did."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from synthetic_records import make_plan, make_sequences, save
from synthetic_rollouts import rollout_record, rollout_spec

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.latencies import pass_times_of
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.spec import RouterPolicy, Spec
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.summary import Summary, summarise


def summary(folder: Path, *records: Record) -> Summary:
    save(folder, *records)
    return summarise(collect(folder, None))


def table(made: Summary, heading: str) -> list[list[str]]:
    """Return the cells of a table, its header first."""
    text = made.markdown.partition(f"## {heading}: rollout, cpu")[2].partition("##")[0]
    lines = [line for line in text.splitlines() if line.startswith("|") and "--:" not in line]
    return [line.strip("| ").split(" | ") for line in lines]


def test_the_router_has_a_table_and_a_file(tmp_path: Path) -> None:
    made = summary(tmp_path, rollout_record())
    header, line = table(made, "Router")
    told = dict(zip(header, line, strict=True))
    assert told["engines"] == "2"
    assert {name: float(told[name]) for name in list(told)[2:]} == {
        "prompts/engine": 6.5,
        "cached %": 25,
        "handing out ms": 12,
        "decision us": 5,
        "late p99 ms": 2,
        "KV peak %": 50,
        "preemptions": 4,
    }
    assert len(made.tables["rollout.csv"].splitlines()) == 2
    assert "Definitions, rollouts" in made.markdown
    assert "## Throughput: rollout, cpu" in made.markdown


def test_replicas_that_share_a_load_say_what_each_got_of_it(tmp_path: Path) -> None:
    header, whole, first, second = table(summary(tmp_path, rollout_record()), "Replicas")
    assert header[-4:] == ["prompts", "cached %", "preemptions", "most at once"]
    assert whole[-4:] == ["-"] * 4
    assert [list(map(float, line[-4:])) for line in (first, second)] == [[6, 25, 2, 10], [7, 25, 2, 11]]


def test_one_engine_has_a_router_and_no_table_of_replicas(tmp_path: Path) -> None:
    made = summary(tmp_path, rollout_record(rollout_spec()))
    assert table(made, "Router")
    assert not table(made, "Replicas")
    assert "replicas.csv" not in made.tables


def test_a_sequence_runs_from_when_its_engine_scheduled_it_or_where_only_a_server_knows_from_when_it_was_sent() -> None:
    record = rollout_record()
    rows = [row.model_copy(update={"sent_s": 0.001}) for row in make_sequences(record)]
    behind_server = [row.model_copy(update={"scheduled_s": None, "queued_s": None}) for row in rows]
    for told, begin_s in ((rows, 0.002), (behind_server, 0.001)):
        passes = pass_times_of(record, told)
        assert len(passes) == 3
        assert {float(begin) for times in passes for begin in times.begins_s} == {begin_s}


def said(made: Summary, heading: str) -> list[str]:
    """Return what a section above the tables says."""
    return [item for section in made.answers if section.heading == heading for item in section.items]


def launches(results: Path, *specs: Spec, rates: Sequence[Sequence[float]]) -> None:
    """Write the launches of each of `specs`, which have these output tokens per second: [specs][launches]."""
    for spec, own in zip(specs, rates, strict=True):
        for launch, rate in enumerate(own):
            save(results, rollout_record(spec, launch, [rate] * 3))


def summed_up(
    results: Path, *specs: Spec, baseline: dict[str, str], metrics: Sequence[str] = ("step_time_s",)
) -> Summary:
    comparison = ComparisonSettings(metrics={"rollout": list(metrics)})
    return summarise(collect(results, make_plan(specs, 4, baseline=baseline, comparison=comparison)))


ROUTERS: tuple[RouterPolicy, ...] = ("least_in_flight", "sticky")
ONE, SLOWER = (400.0, 404.0, 398.0, 402.0), (370.0, 375.0, 369.0, 372.0)


def routed(quant: str = "bf16") -> list[Spec]:
    """Return the specs of two engines behind each of two routers."""
    return [rollout_spec(quant, router=router, engines=2) for router in ROUTERS]


@pytest.mark.parametrize("metric", ["step_time_s", "output_tokens_per_s"])
def test_routers_are_compared_by_how_long_a_step_takes(tmp_path: Path, metric: str) -> None:
    launches(tmp_path, *routed(), rates=(ONE, SLOWER))
    slower = said(summed_up(tmp_path, *routed(), baseline={"setting": "default"}, metrics=[metric]), "Router")[0]
    found = re.fullmatch(
        r"With router sticky a step takes (.*)x \[(.*), (.*)\] as long as with router least_in_flight: it is slower.",
        slower,
    )
    assert found is not None, slower
    factor, low, high = map(float, found.groups())
    assert factor == pytest.approx(1.0796, abs=0.001)  # 1 / the mean ratio of the rates
    assert 1.03 < low < factor < high < 1.13


def test_settings_that_vllm_resolved_otherwise_stand_beside_a_verdict(tmp_path: Path) -> None:
    resolved = (
        {"max_num_batched_tokens": 2048, "max_num_seqs": 128, "num_gpu_blocks": 99},
        {"max_num_batched_tokens": 4096, "max_num_seqs": 256, "num_gpu_blocks": 100},
    )
    for spec, rates, own in zip(routed(), (ONE, SLOWER), resolved, strict=True):
        for launch, rate in enumerate(rates):
            record = rollout_record(spec, launch, [rate] * 3)
            engine = record.engine.model_copy(update={"resolved": record.engine.resolved | own})
            save(tmp_path, record.model_copy(update={"engine": engine}))
    item = said(summed_up(tmp_path, *routed(), baseline={"setting": "default"}), "Router")[0]
    assert item.endswith(
        "it is slower. Besides, vLLM's own max_num_batched_tokens is 4096 with router sticky and 2048 with router "
        "least_in_flight; vLLM's own max_num_seqs is 256 with router sticky and 128 with router least_in_flight. What "
        "this contributes to the difference is not known."
    )


def test_a_verdict_stands_as_it_is_where_the_baseline_is_of_another_quant_and_the_summary_says_what_to_name(
    tmp_path: Path,
) -> None:
    specs = [*routed(), *routed("w8a8")]
    launches(tmp_path, *specs, rates=(SLOWER, ONE, SLOWER[::-1], ONE[::-1]))
    made = summed_up(tmp_path, *specs, baseline={"quant": "bf16"})
    for item, name in zip(said(made, "Router")[:2], ("bf16", "w8a8"), strict=True):
        assert item == (
            f"qwen3-90m {name} small: least_in_flight, sticky are measured, and none is compared with another. "
            "To compare them, name the setting of one of them in baseline."
        )
    both = summed_up(tmp_path, *specs, baseline={"setting": "default"})
    assert [item.partition(":")[0] for item in said(both, "Router")[:2]] == [
        "qwen3-90m bf16 sticky small",
        "qwen3-90m w8a8 sticky small",
    ]


def test_a_comparison_without_a_verdict_says_what_it_lacks(tmp_path: Path) -> None:
    launches(tmp_path, *routed(), rates=(ONE[:1], SLOWER[:1]))
    item = said(summed_up(tmp_path, *routed(), baseline={"setting": "default"}), "Router")[0]
    assert item == "No verdict on sticky against least_in_flight (1.081x as long): it needs 1 more launch of each side."


def test_where_the_model_may_end_sequences_a_rate_is_no_time_of_a_step(tmp_path: Path) -> None:
    specs = [
        one.model_copy(update={"workload": one.workload.model_copy(update={"ignore_eos": False})}) for one in routed()
    ]
    launches(tmp_path, *specs, rates=(ONE, SLOWER))
    made = summed_up(tmp_path, *specs, baseline={"setting": "default"}, metrics=["output_tokens_per_s"])
    item = said(made, "Router")[0]
    assert item.startswith("With router sticky output tok/s is 0.92")
    assert item.endswith("as good as with router least_in_flight: it is slower.")


def test_of_one_engine_nothing_is_said_of_routers(tmp_path: Path) -> None:
    specs = [rollout_spec(quant) for quant in ("bf16", "w8a8")]
    launches(tmp_path, *specs, rates=(ONE, SLOWER))
    made = summed_up(tmp_path, *specs, baseline={"quant": "bf16"})
    assert not said(made, "Router")


def test_routers_are_compared_in_words_with_how_evenly_their_engines_worked(tmp_path: Path) -> None:
    launches(tmp_path, *routed(), rates=(ONE, SLOWER))
    compared, *shared = said(summed_up(tmp_path, *routed(), baseline={"setting": "default"}), "Router")
    assert compared.startswith("With router sticky a step takes 1.0")
    assert compared.endswith("as long as with router least_in_flight: it is slower.")
    for item, name, router in zip(shared, ("bf16", "bf16 sticky"), ROUTERS, strict=True):
        assert item == (
            f"qwen3-90m {name} small, router {router}: the slowest of 2 engines took 33 % longer than their mean, and "
            "a step waits for it. 25 % of the prompt tokens came from prefix caches."
        )


def test_replicas_that_share_a_step_are_unevenly_loaded_in_its_anatomy_too(tmp_path: Path) -> None:
    spec = rollout_spec(router="sticky", engines=2)
    spec = spec.model_copy(update={"workload": spec.workload.model_copy(update={"ignore_eos": False})})
    save(tmp_path, rollout_record(spec))
    made = summarise(collect(tmp_path, None, ComparisonSettings(metrics={"rollout": ["t90_s"]})), results=tmp_path)
    header, line = table(made, "Anatomy of a step")
    assert float(dict(zip(header, line, strict=True))["imbalance %"]) == pytest.approx(33, abs=0.5)
