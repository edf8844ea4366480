"""Online experiments in a summary: tables, verdicts, both modes side by side, and what stays as it was offline."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from synthetic_online import Server, make_online, make_online_spec, save_online
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.columns import COLUMNS
from rollout_bench.analysis.timed.latencies import pool_sequences
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.metrics import COMPARED, METRICS
from rollout_bench.contracts.modes import only_mode
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.plan.serving import Slo
from rollout_bench.report.headings import speedup_columns
from rollout_bench.report.rendering import WIDTH
from rollout_bench.report.summary import Summary, summarise
from rollout_bench.report.tables.online_tables import LATENCIES, SERVICE, percentile_columns

REPOSITORY = Path(__file__).resolve().parents[3]
CLOSED = [LoadPoint(concurrency=8)]
SWEEP = [LoadPoint(request_rate=rate) for rate in (4.0, 40.0)]
BF16, W8A8 = (make_online_spec(quant=quant, points=CLOSED) for quant in ("bf16", "w8a8"))
FAST = Server(step_s=0.008)


def measured(results: Path, *specs: Spec, launches: int = 3, server: Server | None = None) -> None:
    for spec in specs:
        own = server or (FAST if spec.quant.name == "w8a8" else Server())
        if spec.load is None:
            save(results, *(make_record(spec, launch, [700.0 + 9 * launch] * 3) for launch in range(launches)))
        else:
            save_online(results, *(make_online(spec, launch, own) for launch in range(launches)))


def summary(
    results: Path, *specs: Spec, slo: Slo | None = None, comparison: ComparisonSettings | None = None
) -> Summary:
    plan = make_plan(specs, 3, comparison=comparison)
    collection = collect(results, plan.model_copy(update={"slo": slo or Slo()}))
    return summarise(collection, pool_sequences(results, collection), figures=True)


def cells(made: Summary, title: str) -> list[dict[str, str]]:
    """Return the lines of the table whose title begins so, from the Markdown: heading -> cell."""
    table = made.markdown.split(f"## {title}")[1].split("## ")[0].replace("\\", "")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def rows(made: Summary) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(made.csv)))


def words(text: str) -> str:
    return " ".join(text.split())


def test_throughput_latency_and_their_verdicts_have_tables(tmp_path: Path) -> None:
    measured(tmp_path, BF16, W8A8)
    made = summary(tmp_path, BF16, W8A8)
    bf16, w8a8 = cells(made, "Throughput: online, cpu")
    assert bf16["speed-up"] == "(baseline)"
    assert w8a8["speed-up"].startswith("1.2")
    assert " ^ [" in w8a8["speed-up"]
    assert bf16["in flight (most)"] == "7.97 (8)"
    assert bf16["failed %"] == "0"
    assert "kept up %" not in bf16
    assert "goodput/s" not in bf16
    bf16, w8a8 = cells(made, "Latency, means: online")
    assert list(bf16) == ["quant", "TTFT ms", "TPOT ms", "ITL ms", "E2EL ms", "TTFT speed-up", "TPOT speed-up"]
    assert float(bf16["TTFT ms"]) == pytest.approx(50, rel=0.05)
    assert float(w8a8["TPOT ms"]) == pytest.approx(8, rel=0.05)
    assert w8a8["TPOT speed-up"].startswith("1.2")
    tail = cells(made, "Latency, percentiles in ms: online")[0]
    assert float(tail["TTFT p50"]) == pytest.approx(50, rel=0.05)
    assert tail["ITL tail"].startswith("p9")
    assert "Latency over the sweep" not in made.markdown


def test_goodput_stands_where_there_are_limits_and_says_them(tmp_path: Path) -> None:
    measured(tmp_path, BF16, W8A8)
    made = summary(tmp_path, BF16, W8A8, slo=Slo(tpot_ms=9))
    assert cells(made, "Throughput: online")[0]["goodput/s"] == "0"
    assert "Goodput: requests that met TPOT 9 ms." in words(made.text)
    first, second = rows(made)
    assert float(first["goodput_requests_per_s"]) == 0
    assert float(second["goodput_requests_per_s"]) == pytest.approx(float(second["completed_requests_per_s"]))


def test_limits_are_in_the_plan_file_and_in_no_spec() -> None:
    plan = make_plan([BF16]).model_copy(update={"slo": Slo(e2el_ms=100)})
    again = PlanFile.model_validate_json(plan.model_dump_json())
    assert again.slo.named == {"e2el_ms": 100}
    assert "slo" not in BF16.canonical_json()


def test_failed_requests_are_counted_and_flow_into_no_latency(tmp_path: Path) -> None:
    measured(tmp_path, BF16, server=Server(failing=4))
    made = summary(tmp_path, BF16)
    assert cells(made, "Throughput: online")[0]["failed %"] == "25.0"
    assert float(cells(made, "Latency, means: online")[0]["TTFT ms"]) == pytest.approx(50, rel=0.05)


def test_a_load_at_a_rate_says_why_its_throughput_has_no_verdict(tmp_path: Path) -> None:
    specs = [make_online_spec(quant=quant, points=SWEEP[:1]) for quant in ("bf16", "w8a8")]
    measured(tmp_path, *specs)
    made = summary(tmp_path, *specs)
    line = cells(made, "Throughput: online")[1]
    assert line["speed-up"] == "- [1]"
    assert float(line["kept up %"]) == pytest.approx(100, abs=4)
    assert "[1] set by the load: requests arrive at a rate, and the server kept up." in words(made.text)


def test_a_sweep_has_its_tables_and_each_launch_costs_once(tmp_path: Path) -> None:
    specs = [make_online_spec(quant=quant, points=SWEEP) for quant in ("bf16", "w8a8")]
    measured(tmp_path, *specs)
    made = summary(tmp_path, *specs)
    swept = cells(made, "Latency over the sweep: online")
    assert [(line["quant"], line["load"]) for line in swept] == [
        ("bf16", "4 req/s"), ("bf16", "40 req/s"), ("w8a8", "4 req/s"), ("w8a8", "40 req/s"),
    ]  # fmt: skip
    assert "[" in swept[0]["TTFT ms"]
    assert [line["quant"] for line in cells(made, "What a launch costs: online")] == ["bf16", "w8a8"]
    assert {line["workload"] for line in rows(made)} == {"small @ 4 req/s", "small @ 40 req/s"}
    assert {(line["request_rate"], line["concurrency"]) for line in rows(made)} == {("4.0", ""), ("40.0", "")}
    assert "](figures/sweep.svg)" in made.markdown
    assert "](figures/latency.svg)" in made.markdown


def test_the_start_of_a_server_is_one_part_whatever_the_client_imported_meanwhile(tmp_path: Path) -> None:
    offline = make_spec()
    measured(tmp_path, offline, BF16)
    made = summary(tmp_path, offline, BF16)
    (costs,) = cells(made, "What a launch costs: online")
    assert costs["server start s"] == "11.0"  # 8 s for the client's import, 3 s until the server answered
    assert not {"import s", "init s"} & set(costs)
    (costs,) = cells(made, "What a launch costs: offline")
    assert (costs["import s"], costs["init s"]) == ("8.00", "3.00")
    assert "server start s" not in costs
    by_mode = {row["mode"]: row for row in rows(made)}
    parts = ("import_s", "init_s", "server_start_s")
    assert [by_mode["online"][part] for part in parts] == ["", "", "11.0"]
    assert [by_mode["offline"][part] for part in parts] == ["8.0", "3.0", ""]
    for row in by_mode.values():
        known = [float(row[part] or 0) for part in (*parts, "warmup_s", "measured_s", "other_s")]
        assert sum(known) == pytest.approx(float(row["launch_s"]))


def test_online_experiments_change_no_offline_table_and_no_column(tmp_path: Path) -> None:
    specs = [make_spec(), make_spec(quant="w8a8")]
    measured(tmp_path, *specs)
    alone = summary(tmp_path, *specs)
    assert list(rows(alone)[0]) == list(COLUMNS)
    measured(tmp_path, BF16, W8A8)
    both = summary(tmp_path, *specs, BF16, W8A8)
    for title in ("Throughput: offline", "Rates, start-up and memory: offline", "Time to first token"):
        assert cells(both, title) == cells(alone, title)
    assert [{name: line[name] for name in COLUMNS} for line in rows(both)[:2]] == rows(alone)
    assert rows(both)[0]["ttft_s_speedup"] == rows(both)[0]["tpot_p50_s"] == ""


def test_pieces_of_several_tokens_are_told(tmp_path: Path) -> None:
    record, sequences = make_online(BF16)
    pairs = [
        row.model_copy(update={"gaps_us": [sum(row.gaps_us[i : i + 2]) for i in range(0, 31, 2)]})
        for row in sequences
        if row.gaps_us
    ]
    save_online(tmp_path, (record, pairs))
    assert "answers came in pieces of 1.88 tokens on average" in words(summary(tmp_path, BF16).text)


def test_a_server_of_others_says_unknown(tmp_path: Path) -> None:
    record, sequences = make_online(BF16)
    engine = record.engine.model_copy(update={"weights_bytes_by_dtype": None, "kv_cache_tokens": None})
    save_online(tmp_path, (record.model_copy(update={"engine": engine}), sequences))
    (line,) = cells(summary(tmp_path, BF16), "Start-up and memory: online")
    assert (line["weights GiB"], line["KV cache tokens"]) == ("unknown", "unknown")


def test_every_table_fits_a_terminal(tmp_path: Path) -> None:
    specs = [
        make_online_spec(m, q, w, points=p)
        for m in ("qwen3-1.7b", "qwen3-30b-a3b")
        for w, p in (("verl-default", SWEEP), ("long-tail", CLOSED))
        for q in ("bf16", "w8a16", "w8a8")
    ]
    measured(tmp_path, *specs, make_spec("qwen3-1.7b", workload="long-tail"))
    made = summary(tmp_path, *specs, slo=Slo(ttft_ms=200))
    assert max(map(len, made.text.splitlines())) <= WIDTH
    assert made.text.isascii()


def test_every_column_of_online_tables_is_in_the_reference_of_measures() -> None:
    pages = [REPOSITORY / "docs" / page for page in ("reference/measures.md", "reference/metrics.md")]
    text = "\n".join(page.read_text() for page in pages)
    named = [name for name in COMPARED if only_mode(METRICS[name]) in ("", "online")]
    speedups = speedup_columns(ComparisonSettings(metrics={"online": named}), "online")
    columns = (*SERVICE[2:], *speedups, *LATENCIES, *percentile_columns())
    names = {re.sub(r" ms$| \(most\)$| p50$| tail$", "", column.header) for column in columns}
    assert {name for name in names if not re.search(rf"^\|.*\b{re.escape(name)}", text, re.MULTILINE)} == set()


def test_one_load_that_two_harnesses_send_is_compared(tmp_path: Path) -> None:
    one = make_online_spec()
    assert one.load is not None
    theirs = one.load.model_copy(update={"harness": "guidellm", "harness_version": "0.8.1"})
    other = one.model_copy(update={"load": theirs, "setting": "guidellm"})
    measured(tmp_path, one, other)
    plan = make_plan([one, other], 3, baseline={"setting": "default"})
    made = summarise(collect(tmp_path, plan))
    (row,) = [line for line in csv.DictReader(io.StringIO(made.csv)) if line["setting"] == "guidellm"]
    assert row["verdict"] not in ("", "baseline")
    assert float(row["speedup"]) == pytest.approx(1.0)


def test_of_another_s_server_nothing_is_told_that_is_of_the_client_or_that_nobody_asked_for(tmp_path: Path):
    content = make_online_spec(points=CLOSED).model_dump()
    content |= {"platform": "unknown", "endpoint": {"url": "http://server:8000/v1", "model": "org/model"}}
    content["quant"] |= {"name": "unknown"}
    content["engine"] |= {"name": "unknown", "version": "unknown"}
    spec = Spec.model_validate(content)
    for launch in range(3):
        record, rows = make_online(spec, launch)
        theirs = {"engine_name": "unknown", "engine_version": "0.31.0", "device_model": "unknown"}
        environment = record.environment.model_copy(update=theirs)
        save_online(tmp_path, (record.model_copy(update={"environment": environment}), rows))
    said = summary(tmp_path, spec).markdown
    assert "Start-up and memory" not in said
    (costs,) = cells(summary(tmp_path, spec), "What a launch costs")
    assert not {"import s", "init s", "server start s"} & set(costs)
    assert float(costs["other s"]) == pytest.approx(60.0, abs=0.1)  # all but the passes
    assert "## No verdict" not in said
    assert "speed-up" not in said.split("## Throughput")[1].split("## ")[0]
    conclusion = said.split("## Conclusion")[1].split("## ")[0]
    assert "Nothing is compared" in conclusion
    assert "unknown" not in re.sub(r"\| unknown +\|", "", said.split("## How")[0])
    assert "another's server, version 0.31.0; asked by Python" in said.replace("\\", "")
