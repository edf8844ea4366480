"""The summary tells what a rollout's router and its replicas did, and counts what the step did not need as waste."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from synthetic_records import make_plan, make_sequences, save
from synthetic_rollouts import rollout_record, rollout_spec

from rollout_bench.analysis.timed.balance import routed
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.latencies import pass_times_of, pool_sequences
from rollout_bench.analysis.timed.rows import OTHER_ENDS, rows_of
from rollout_bench.contracts.record import Record, Surplus
from rollout_bench.contracts.side_files import read_sequences, write_rows
from rollout_bench.contracts.spec import Entry, RouterPolicy, Spec
from rollout_bench.contracts.store import record_path, write_record
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.figures.anatomy_figures import anatomy_figure
from rollout_bench.report.figures.style import settings
from rollout_bench.report.parts import Findings
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


def test_what_a_step_does_not_need_is_a_share_of_all_that_was_generated(tmp_path: Path) -> None:
    save(tmp_path, rollout_record(rollout_spec(engines=2, surplus=True)))
    (row,) = rows_of(collect(tmp_path, None))
    found = routed(row)
    assert found is not None
    assert found.wasted_share == pytest.approx(0.25, abs=0.001)
    assert (found.aborted, found.drain_s) == (1, 0.03)
    header, line = table(summarise(collect(tmp_path, None)), "Router")
    assert dict(zip(header, line, strict=True))["wasted %"].startswith("25")


def test_nothing_is_said_of_waste_where_nothing_more_is_sent(tmp_path: Path) -> None:
    assert "wasted" not in summary(tmp_path, rollout_record()).markdown


def test_rows_of_sequences_that_were_not_needed_are_no_part_of_what_is_counted(tmp_path: Path) -> None:
    record = rollout_record(rollout_spec(engines=2, surplus=True))
    rows = make_sequences(record)
    dropped = [
        row.model_copy(update={"sample": 90 + n, "dropped": True, "output_tokens": 1000, "last_token_s": 1e3})
        for row in rows
        if (row.prompt, row.sample) == (0, 0)
        for n in range(2)
    ]
    path = tmp_path / "rows.jsonl.gz"
    write_rows(path, [*rows, *dropped])
    assert len(read_sequences(path, record)) == len(rows) + len(dropped)
    write_rows(path, [*rows, *dropped[1:]])
    with pytest.raises(UserError, match=f"has {len(rows) + len(dropped) - 1} of"):
        read_sequences(path, record)


def test_a_sequence_runs_from_when_its_engine_scheduled_it_or_where_only_a_server_knows_from_when_it_was_sent() -> None:
    record = rollout_record()
    rows = [row.model_copy(update={"sent_s": 0.001}) for row in make_sequences(record)]
    behind_server = [row.model_copy(update={"scheduled_s": None, "queued_s": None}) for row in rows]
    for told, begin_s in ((rows, 0.002), (behind_server, 0.001)):
        passes = pass_times_of(record, told)
        assert len(passes) == 3
        assert {float(begin) for times in passes for begin in times.begins_s} == {begin_s}


def test_what_a_step_did_not_need_occupied_its_engine_until_it_was_aborted_or_the_step_was_over(tmp_path: Path) -> None:
    record = rollout_record(rollout_spec(engines=2, surplus=True))
    over = {one.index: one.elapsed_s for one in record.iterations}  # the last sequence that is needed ends then
    spans = [(0.5, 0.7), (0.6, None), (0.7, 5.0), (2.0, 3.0), (None, None)]  # as shares of that
    surplus = [
        row.model_copy(
            update={
                "prompt": 8,
                "sample": sample,
                "output_tokens": 1000,
                "dropped": True,
                "scheduled_s": begin and begin * over[row.iteration],
                "last_token_s": end and end * over[row.iteration],
            }
        )
        for row in make_sequences(record)
        if (row.prompt, row.sample) == (0, 0)
        for sample, (begin, end) in enumerate(spans)
    ]
    rows = [*make_sequences(record), *surplus]
    for times in pass_times_of(record, rows):
        beside = ~times.needed
        assert (len(times.needed), int(beside.sum())) == (35, 3)
        end_s = over[times.index]
        assert times.begins_s[beside] / end_s == pytest.approx([0.5, 0.6, 0.7])
        assert times.ends_s[beside] / end_s == pytest.approx([0.7, 1.0, 1.0])
    iterations = [
        one.model_copy(update={"surplus": Surplus(sequences=len(spans), output_tokens=5000, aborted=1, drain_s=0.1)})
        for one in record.iterations
    ]
    record = record.model_copy(update={"iterations": iterations})
    write_record(record_path(tmp_path, "rollout", record.spec.experiment(), 0), record, rows)
    collection = collect(tmp_path, None, ComparisonSettings(metrics=["t90_s"]))
    (row,), (found,) = rows_of(collection), Findings(collection, results=tmp_path).anatomies.values()
    assert found.sequences == 32
    assert found.t90_s == pytest.approx(row.used[0].values["t90_s"])  # verdicts are on what the table shows
    with settings():
        figure = anatomy_figure([row], Findings(collection, results=tmp_path).pass_times, "here", "")
    (curve, *marks) = (np.asarray(line.get_xydata()) for line in figure.axes[0].lines)
    typical = rows_of(collection)[0].experiment.records[0].iterations[2].elapsed_s
    assert [mark[0, 0] for mark in marks] == pytest.approx([0.5 * typical, 29 / 32 * typical, typical])
    assert curve[:, 1].max() == 32
    assert "what the step did not need" in " ".join(text.get_text() for text in figure.texts)


def test_percentiles_leave_out_what_the_step_did_not_need(tmp_path: Path) -> None:
    record = rollout_record(rollout_spec(engines=2, surplus=True))
    rows = make_sequences(record)
    extra = [
        row.model_copy(update={"dropped": True, "last_token_s": 1e3})
        for row in rows
        if row.prompt == 0 and row.sample < 2
    ]
    write_record(record_path(tmp_path, "rollout", record.spec.experiment(), 0), record, [*rows, *extra])
    (pooled,) = pool_sequences(tmp_path, collect(tmp_path, None))
    assert pooled.reasons == ()
    values = pooled.values["e2el_s"]
    assert len(values) == sum(iteration.sequences for iteration in record.iterations if not iteration.warmup)
    assert max(values) < 1e3


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
    comparison = ComparisonSettings(metrics=list(metrics))
    return summarise(collect(results, make_plan(specs, 4, baseline=baseline, comparison=comparison)))


ENTRIES: tuple[Entry, ...] = ("async", "llm", "server")
ONE, SLOWER, ALIKE = (400.0, 404.0, 398.0, 402.0), (370.0, 375.0, 369.0, 372.0), (402.0, 401.0, 399.0, 403.0)


@pytest.mark.parametrize("metric", ["step_time_s", "output_tokens_per_s"])
def test_entries_are_compared_in_words_by_how_long_a_step_takes(tmp_path: Path, metric: str) -> None:
    specs = [rollout_spec(entry=entry) for entry in ENTRIES]
    launches(tmp_path, *specs, rates=(SLOWER, ONE, ALIKE))
    made = summed_up(tmp_path, *specs, baseline={"setting": "llm"}, metrics=[metric])
    slower, alike = said(made, "Entry points")
    found = re.fullmatch(
        r"Through AsyncLLM a step takes (.*)x \[(.*), (.*)\] as long as through LLM.generate\(\): it is slower.", slower
    )
    assert found is not None, slower
    factor, low, high = map(float, found.groups())
    assert factor == pytest.approx(1.0796, abs=0.001)  # 1 / the mean ratio of the rates
    assert 1.03 < low < factor < high < 1.13
    assert re.match(
        r"Inconclusive: through vLLM's server a step takes 0.99\dx \[.*\] as long as through LLM.generate\(\).$|"
        r"Through vLLM's server a step takes .* too small to matter.$",
        alike,
    ), alike
    header, *lines = table(made, "Entry points")
    assert header[:3] == ["quant", "setting", "entry"]
    assert [line[2] for line in lines] == ["AsyncLLM", "LLM.generate()", "vLLM's server"]
    assert [line[-1].split()[0] for line in lines][1] == "(baseline)"


def test_settings_that_vllm_resolved_otherwise_for_an_entry_stand_beside_its_verdict(tmp_path: Path) -> None:
    specs = [rollout_spec(entry=entry) for entry in ENTRIES[:2]]
    resolved: dict[str, dict[str, int]] = {
        "async": {"max_num_batched_tokens": 2048, "max_num_seqs": 128, "num_gpu_blocks": 99},
        "llm": {"max_num_batched_tokens": 4096, "max_num_seqs": 256, "num_gpu_blocks": 100},
    }
    for spec, rates in zip(specs, (SLOWER, ONE), strict=True):
        assert spec.rollout is not None
        for launch, rate in enumerate(rates):
            record = rollout_record(spec, launch, [rate] * 3)
            said_by_vllm = record.engine.resolved | resolved[spec.rollout.entry]
            save(
                tmp_path,
                record.model_copy(update={"engine": record.engine.model_copy(update={"resolved": said_by_vllm})}),
            )
    (item,) = said(summed_up(tmp_path, *specs, baseline={"setting": "llm"}), "Entry points")
    assert item.endswith(
        "it is slower. Besides, vLLM's own max_num_batched_tokens is 2048 through AsyncLLM and 4096 through "
        "LLM.generate(); vLLM's own max_num_seqs is 128 through AsyncLLM and 256 through LLM.generate(). What this "
        "contributes to the difference is not known."
    )


def test_a_verdict_stands_as_it_is_where_the_baseline_is_of_another_quant_and_the_summary_says_what_to_name(
    tmp_path: Path,
) -> None:
    specs = [rollout_spec(quant, entry=entry) for quant in ("bf16", "w8a8") for entry in ENTRIES[:2]]
    launches(tmp_path, *specs, rates=(SLOWER, ONE, SLOWER[::-1], ONE[::-1]))
    made = summed_up(tmp_path, *specs, baseline={"quant": "bf16"})
    for item, name in zip(said(made, "Entry points"), ("bf16", "w8a8"), strict=True):
        assert item == (
            f"qwen3-90m {name} small: AsyncLLM, LLM.generate() are measured, and none is compared with another. "
            "To compare them, name the setting of one of them in baseline."
        )
    assert len(table(made, "Entry points")) == 5
    both = summed_up(tmp_path, *specs, baseline={"setting": "llm"})
    assert [item.partition(":")[0] for item in said(both, "Entry points")] == [
        "qwen3-90m bf16 small",
        "qwen3-90m w8a8 small",
    ]


def test_a_comparison_without_a_verdict_says_what_it_lacks(tmp_path: Path) -> None:
    specs = [rollout_spec(entry=entry) for entry in ENTRIES[:2]]
    launches(tmp_path, *specs, rates=(SLOWER[:1], ONE[:1]))
    (item,) = said(summed_up(tmp_path, *specs, baseline={"setting": "llm"}), "Entry points")
    assert (
        item == "No verdict on AsyncLLM against LLM.generate() (1.081x as long): it needs 1 more launch of each side."
    )


def test_entries_get_no_verdict_by_times_of_sequences_which_are_not_one_quantity_and_routers_do(
    tmp_path: Path,
) -> None:
    entries = [rollout_spec(entry=entry) for entry in ENTRIES[:2]]
    routers = [rollout_spec(router=router, engines=2) for router in ("least_in_flight", "sticky")]
    for specs, baseline in ((entries, "llm"), (routers, "default")):
        results = tmp_path / baseline
        launches(results, *specs, rates=(SLOWER, ONE))
        comparison = ComparisonSettings(metrics=["step_time_s", "t90_s", "tail_s", "group_p90_s"])
        found = rows_of(collect(results, make_plan(specs, 4, baseline={"setting": baseline}, comparison=comparison)))
        (compared,) = (row for row in found if not row.comparison.is_baseline)
        whole, *of_sequences = compared.comparisons.values()
        assert whole.verdict in ("faster", "slower")
        for each in of_sequences:
            assert (each.reason == OTHER_ENDS) == (specs is entries)
            assert (each.verdict is None) == (specs is entries)


def test_where_the_model_may_end_sequences_a_rate_is_no_time_of_a_step(tmp_path: Path) -> None:
    specs = [rollout_spec(entry=entry) for entry in ENTRIES[:2]]
    specs = [
        one.model_copy(update={"workload": one.workload.model_copy(update={"ignore_eos": False})}) for one in specs
    ]
    launches(tmp_path, *specs, rates=(SLOWER, ONE))
    made = summed_up(tmp_path, *specs, baseline={"setting": "llm"}, metrics=["output_tokens_per_s"])
    (item,) = said(made, "Entry points")
    assert item.startswith("Through AsyncLLM output tok/s is 0.92")
    assert item.endswith("as good as through LLM.generate(): it is slower.")


def test_where_a_step_keeps_what_is_complete_first_a_rate_is_no_time_of_a_step(tmp_path: Path) -> None:
    specs = [rollout_spec(router=router, engines=2, surplus=True) for router in ("least_in_flight", "sticky")]
    launches(tmp_path, *specs, rates=(ONE, SLOWER))
    (by_rate, *_), (by_time, *_) = (
        said(summed_up(tmp_path, *specs, baseline={"setting": "default"}, metrics=[metric]), "Router")
        for metric in ("output_tokens_per_s", "step_time_s")
    )
    assert by_rate.startswith("With router sticky output tok/s is 0.92")
    assert by_time.startswith("With router sticky a step takes 1.0")


def test_of_one_entry_nothing_is_said(tmp_path: Path) -> None:
    specs = [rollout_spec(quant) for quant in ("bf16", "w8a8")]
    launches(tmp_path, *specs, rates=(ONE, SLOWER))
    made = summed_up(tmp_path, *specs, baseline={"quant": "bf16"})
    assert not said(made, "Entry points")
    assert not said(made, "Router")
    assert "Entry points" not in made.markdown


def test_routers_are_compared_in_words_with_how_evenly_their_engines_worked(tmp_path: Path) -> None:
    routers: tuple[RouterPolicy, ...] = ("least_in_flight", "sticky")
    specs = [rollout_spec(router=router, engines=2) for router in routers]
    launches(tmp_path, *specs, rates=(ONE, SLOWER))
    compared, *shared = said(summed_up(tmp_path, *specs, baseline={"setting": "default"}), "Router")
    assert compared.startswith("With router sticky a step takes 1.0")
    assert compared.endswith("as long as with router least_in_flight: it is slower.")
    for item, name, router in zip(shared, ("bf16", "bf16 sticky"), routers, strict=True):
        assert item == (
            f"qwen3-90m {name} small, router {router}: the slowest of 2 engines took 33 % longer than their mean, and "
            "a step waits for it. 25 % of the prompt tokens came from prefix caches."
        )


def test_waste_is_told_in_words(tmp_path: Path) -> None:
    (item,) = said(summary(tmp_path, rollout_record(rollout_spec(surplus=True))), "Router")
    assert item == "qwen3-90m bf16 small: 25 % of the generated tokens were not needed."


def test_an_over_sampled_step_waits_for_no_engine(tmp_path: Path) -> None:
    (item,) = said(summary(tmp_path, rollout_record(rollout_spec(engines=2, surplus=True))), "Router")
    assert "the slowest of 2 engines took 33 % longer than their mean. 25 %" in item


@pytest.mark.parametrize("fixed", [True, False])
def test_another_share_of_over_sampling_is_called_other_work_where_lengths_differ(tmp_path: Path, fixed: bool) -> None:
    load = rollout_spec().workload.model_copy(update={"ignore_eos": fixed})
    plain, more = (
        rollout_spec(surplus=surplus).model_copy(update={"setting": name, "workload": load})
        for surplus, name in ((False, None), (True, "more"))
    )
    launches(tmp_path, plain, more, rates=(ONE, ONE))
    *others, waste = said(summed_up(tmp_path, plain, more, baseline={"setting": "default"}), "Router")
    assert "of the generated tokens were not needed" in waste
    if fixed:
        assert others == []
        return
    (other,) = others
    assert other == (
        "qwen3-90m bf16 more small: over_sample is 0.5, and 0 in what it is compared with. That is not the same work: "
        "a step keeps the groups that are complete first, which are short ones, so the more groups are sent, the fewer "
        "tokens it keeps."
    )


def test_replicas_that_share_a_step_are_unevenly_loaded_in_its_anatomy_too(tmp_path: Path) -> None:
    spec = rollout_spec(router="sticky", engines=2)
    spec = spec.model_copy(update={"workload": spec.workload.model_copy(update={"ignore_eos": False})})
    save(tmp_path, rollout_record(spec))
    made = summarise(collect(tmp_path, None, ComparisonSettings(metrics=["t90_s"])), results=tmp_path)
    header, line = table(made, "Anatomy of a step")
    assert float(dict(zip(header, line, strict=True))["imbalance %"]) == pytest.approx(33, abs=0.5)


def test_behind_a_server_of_a_rollout_sequences_wait_unseen_too(tmp_path: Path) -> None:
    for entry in ENTRIES[1:]:
        spec = rollout_spec(entry=entry)
        spec = spec.model_copy(update={"workload": spec.workload.model_copy(update={"ignore_eos": False})})
        save(tmp_path / entry, rollout_record(spec))
        collection = collect(tmp_path / entry, None, ComparisonSettings(metrics=["t90_s"]))
        made = summarise(collection, results=tmp_path / entry)
        assert ("Behind a server a sequence counts as running" in made.markdown) == (entry == "server")
