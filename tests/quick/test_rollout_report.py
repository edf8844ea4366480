"""The summary tells what a rollout's router and its replicas did, and counts what the step did not need as waste."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_records import make_record, make_sequences, make_spec, save

from rollout_bench.analysis.timed.balance import routed
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.latencies import pool_sequences
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.record import ClientUse, Record, ReplicaPass, RouterUse, Surplus
from rollout_bench.contracts.side_files import read_sequences, write_rows
from rollout_bench.contracts.spec import RolloutSpec
from rollout_bench.contracts.store import record_path, write_record
from rollout_bench.core.errors import UserError
from rollout_bench.report.summary import Summary, summarise


def rollout_record(launch: int = 0, *, replicas: int = 2, surplus: bool = False) -> Record:
    spec = make_spec(args={"data_parallel_size": replicas} if replicas > 1 else {})
    router = "least_in_flight" if replicas > 1 else None
    share = RolloutSpec(entry="async", router=router, over_sample=0.5 if surplus else None)
    record = make_record(spec.model_copy(update={"mode": "rollout", "rollout": share}), launch)
    iterations = []
    for one in record.iterations:
        parts = [
            ReplicaPass(
                start_offset_s=0,
                elapsed_s=one.elapsed_s * (1 if number == 0 else 0.5),
                requests=one.requests // replicas,
                sequences=one.sequences // replicas,
                prompt_tokens=one.prompt_tokens // replicas,
                cached_prompt_tokens=one.prompt_tokens // replicas // 4,
                output_tokens=one.output_tokens // replicas,
                prompts=6 + number,
                preemptions=2,
                peak_running=10 + number,
                kv_cache_peak=0.25 + 0.25 * number,
            )
            for number in range(replicas)
        ]
        more = {
            "cached_prompt_tokens": one.prompt_tokens // 4,
            "replicas": parts,
            "client": ClientUse(cpu_share=0.1, loop_delay_median_s=0.0001, loop_delay_p99_s=0.002),
            "router": RouterUse(decisions=100, decide_s=0.0005, decide_max_s=0.0001, handing_out_s=0.012),
            "surplus": Surplus(sequences=2, output_tokens=one.output_tokens // 3, aborted=1, drain_s=0.03)
            if surplus
            else None,
        }
        iterations.append(one.model_copy(update=more))
    return record.model_copy(update={"iterations": iterations})


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
    made = summary(tmp_path, rollout_record(replicas=1))
    assert table(made, "Router")
    assert not table(made, "Replicas")
    assert "replicas.csv" not in made.tables


def test_what_a_step_does_not_need_is_a_share_of_all_that_was_generated(tmp_path: Path) -> None:
    save(tmp_path, rollout_record(surplus=True))
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
    record = rollout_record(surplus=True)
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


def test_percentiles_leave_out_what_the_step_did_not_need(tmp_path: Path) -> None:
    record = rollout_record(surplus=True)
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
