"""Sweeps: each load is a row of its own, compared with the same load; launches count once; where it saturates."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from synthetic_online import Server, make_online, make_online_spec, save_online
from synthetic_records import make_failure, make_plan

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import Collection, launched
from rollout_bench.analysis.timed.latencies import pool_sequences
from rollout_bench.analysis.timed.rows import SET_BY_LOAD, Row, rows_of
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import record_path, sequences_path
from rollout_bench.plan.config import ComparisonSettings, Precision
from rollout_bench.report.notes import completeness, foot
from rollout_bench.report.parts import Findings

RATES = [LoadPoint(request_rate=rate) for rate in (4.0, 16.0, 40.0)]
BF16, W8A8 = make_online_spec(points=RATES), make_online_spec(quant="w8a8", points=RATES)
FAST = Server(step_s=0.008)


def swept(results: Path, launches: int = 3, specs: Sequence[Spec] = (BF16, W8A8)) -> Collection:
    for spec in specs:
        server = FAST if spec.quant.name == "w8a8" else Server()
        save_online(results, *(make_online(spec, launch, server) for launch in range(launches)))
    return collect(results, make_plan(specs, launches))


def by_load(rows: Sequence[Row], quant: str = "w8a8") -> dict[str, Row]:
    return {row.experiment.workload: row for row in rows if row.experiment.quant == quant}


def test_each_load_is_a_row_beside_the_other_quants_load(tmp_path: Path) -> None:
    rows = rows_of(swept(tmp_path))
    assert [(row.experiment.workload, row.experiment.quant) for row in rows] == [
        (f"small @ {rate} req/s", quant) for rate in (4, 16, 40) for quant in ("bf16", "w8a8")
    ]
    assert all(len(row.launches) == 3 for row in rows)
    # 32 requests of 32 tokens at 4/s take 8 s, and their own time
    assert by_load(rows)["small @ 4 req/s"].launches[0].output_tokens_per_s == pytest.approx(128, rel=0.1)
    assert len(by_load(rows)["small @ 4 req/s"].launches[0].iteration_output_tokens_per_s) == 3


def test_each_load_is_compared_with_the_baselines_same_load(tmp_path: Path) -> None:
    rows = by_load(rows_of(swept(tmp_path)))
    for name, row in rows.items():
        assert row.against.other is not None
        assert row.against.other.workload == name
        assert row.comparisons["tpot_s"].speedup == pytest.approx(1.25, rel=0.1)


def test_throughput_gets_a_verdict_only_where_the_server_fell_behind(tmp_path: Path) -> None:
    rows = by_load(rows_of(swept(tmp_path)))
    assert rows["small @ 4 req/s"].comparisons["output_tokens_per_s"].reason == SET_BY_LOAD
    assert rows["small @ 40 req/s"].comparisons["output_tokens_per_s"].verdict == "faster"


def test_other_arrivals_have_no_baseline_but_additional_points_change_nothing(tmp_path: Path) -> None:
    more = make_online_spec(quant="w8a8", points=[*RATES, LoadPoint(request_rate=60.0)])
    bursts = make_online_spec(quant="w8a16", points=RATES, burstiness=0.5)
    swept(tmp_path, 2, [BF16, more, bursts])
    rows = rows_of(collect(tmp_path, make_plan([BF16, more, bursts], 2)))
    assert by_load(rows)["small @ 40 req/s"].against.other is not None
    assert "not selected" in by_load(rows)["small @ 60 req/s"].comparison.reason
    assert "other settings of the workload" in by_load(rows, "w8a16")["small @ 4 req/s"].comparison.reason


def test_failed_and_missing_launches_and_flags_are_counted_once(tmp_path: Path) -> None:
    flag = Flag(code="token_count", severity="invalid", sentence="1 token is missing.")
    save_online(tmp_path, make_online(BF16, 0), make_online(BF16, 1, flags=[flag]))
    failure = make_failure(BF16, 2)
    path = record_path(tmp_path / "failures", "online", BF16.experiment(), 2)
    path.parent.mkdir(parents=True)
    path.write_text(failure.model_dump_json())
    collection = collect(tmp_path, make_plan([BF16], 4))
    assert completeness(collection) == (
        "INCOMPLETE: 2 of 4 planned launches measured (1 invalid), 1 experiment; 1 failed; 1 missing."
    )
    sections = {section.heading: section.items for section in foot(Findings(collection)).sections}
    assert len(sections["Failed"]) == len(sections["Missing"]) == len(sections["Flags"]) == 1
    assert sections["Flags"][0].startswith("qwen3-90m bf16 small, launch 1: token_count")
    assert sections["Left out"] == ("1 record from all tables and figures, because of these flags: token_count",)
    assert len(launched(collection.experiments)) == 1


def test_a_missing_side_file_costs_latencies_but_not_throughput(tmp_path: Path) -> None:
    swept(tmp_path, 3)
    side_file = sequences_path(record_path(tmp_path, "online", W8A8.experiment(), 1))
    side_file.unlink()
    collection = collect(tmp_path, make_plan([BF16, W8A8], 3))
    row = by_load(rows_of(collection))["small @ 40 req/s"]
    assert len(row.comparisons["output_tokens_per_s"].pairs) == 3
    assert len(row.comparisons["ttft_s"].pairs) == 2
    told = [reason for pooled in pool_sequences(collection) for reason in pooled.reasons]
    assert told == [f"launch 1 is not among them, {side_file}: is missing"]


def planned(results: Path, specs: Sequence[Spec], metrics: list[str], half_width: float) -> set[int | None]:
    settings = ComparisonSettings.model_validate({"metrics": {"online": metrics}})
    precision = Precision(half_width=half_width, max_launches=12)
    plan = make_plan(specs, 12, comparison=settings).model_copy(update={"precision": precision})
    return {e.planned for e in collect(results, plan).experiments}
