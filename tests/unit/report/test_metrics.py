"""The registry of metrics: what each entry says, and where it appears."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from pathlib import Path

import pytest
from pydantic import ValidationError
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.columns import COLUMNS, OF_PARTS, SEQUENCE_COLUMNS
from rollout_bench.analysis.timed.rows import SERVICE_COLUMNS, rows_of
from rollout_bench.contracts import metrics
from rollout_bench.contracts.metrics import COMPARED, METRICS, Metric
from rollout_bench.contracts.modes import only_mode
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.headings import ENERGY_USED, ENGINE, THROUGHPUT, metric_columns, speedup_columns
from rollout_bench.report.reference import config_table
from rollout_bench.report.tables.online_tables import LATENCIES, SERVICE

TESTS = Path(__file__).parents[2]
EACH = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
EACH_COMPARED = pytest.mark.parametrize("metric", [METRICS[name] for name in COMPARED], ids=COMPARED)


@EACH
def test_a_metric_has_a_definition_and_its_unit_as_suffix(metric: Metric) -> None:
    assert metric.header
    assert metric.definition.endswith(".")
    assert metric.name.endswith(metric.unit.replace("/", "_per_").lower())
    assert bool(metric.speedup) == (metric.name in COMPARED)


@EACH
def test_a_metric_is_a_summary_column_and_in_the_reference(metric: Metric) -> None:
    columns = SERVICE_COLUMNS if metric.of_requests else COLUMNS | SEQUENCE_COLUMNS | OF_PARTS
    assert columns[metric.heads] == "Float64"
    with (TESTS.parent / "docs" / "reference" / "metrics.csv").open(newline="") as table:
        (row,) = [row for row in csv.DictReader(table) if row["metric"] == metric.name]
    assert row["definition"] == metric.definition


@EACH
def test_a_grouped_metric_is_defined_at_its_tables_foot(metric: Metric) -> None:
    defined = {column.header: column.definition for column in (*THROUGHPUT, *ENGINE)}
    defined |= {column.header: column.definition for column in (*SERVICE, *LATENCIES, *metric_columns("transitions"))}
    defined |= {column.header: column.definition for column in (*metric_columns("placed"), *ENERGY_USED)}
    assert not metric.group or defined[metric.header] == metric.definition


def test_no_two_metrics_share_a_column_or_a_heading() -> None:
    for names in ([m.heads for m in METRICS.values()], [m.header for m in METRICS.values()]):
        assert len(set(names)) == len(METRICS)


def test_a_config_can_name_only_metrics_with_a_better_direction() -> None:
    assert all(f"`{name}`" in config_table() for name in COMPARED)
    for name in METRICS.keys() - COMPARED:
        with pytest.raises(ValidationError, match="literal_error"):
            ComparisonSettings(metrics={"online": [name]})
    for mode, name in itertools.product(("offline", "online", "cycle", "placement"), COMPARED):
        own = only_mode(METRICS[name])
        if own in ("", mode):
            assert ComparisonSettings(metrics={mode: [name]}).metrics_of(mode) == [name]
        else:
            with pytest.raises(ValidationError, match=f"is of mode {own} alone"):
                ComparisonSettings(metrics={mode: [name]})


@EACH_COMPARED
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_registry_decides_whether_more_of_a_metric_is_better(
    metric: Metric, factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def value(record: metrics.Record) -> float:
        return factor * (1 + record.launch / 1000) if record.spec.quant.name == "w8a8" else 1.0

    made = dataclasses.replace(metric, value=value, of_passes=None, part="")
    monkeypatch.setitem(METRICS, metric.name, made)
    specs = [make_spec(), make_spec(quant="w8a8")]
    save(tmp_path, *(make_record(spec, launch) for spec in specs for launch in range(4)))
    settings = ComparisonSettings(metrics={"offline": [metric.name]})
    _, own = rows_of(collect(tmp_path, make_plan(specs, 4, comparison=settings)))
    better = (factor > 1) == (metric.better == "higher")
    assert own.comparison.verdict == ("faster" if better else "slower")
    assert own.comparison.speedup == pytest.approx(2.0 if better else 0.5, rel=0.01)
    (column,) = speedup_columns(settings)
    of = ("Its {} /" if metric.better == "higher" else "The baseline's {} /").format(metric.header)
    assert column.definition.startswith(of)
