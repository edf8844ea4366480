"""The registry of metrics: what each entry says, where it appears, and that one entry adds a metric."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.columns import COLUMNS, OF_PARTS, SEQUENCE_COLUMNS
from rollout_bench.analysis.timed.rows import SERVICE_COLUMNS, rows_of
from rollout_bench.analysis.timed.service import Service
from rollout_bench.contracts import metrics
from rollout_bench.contracts.metrics import COMPARED, METRICS, Metric
from rollout_bench.contracts.modes import only_mode
from rollout_bench.contracts.record import DeviceUse
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.headings import ENERGY_USED, ENGINE, THROUGHPUT, metric_columns, speedup_columns
from rollout_bench.report.reference import config_page
from rollout_bench.report.summary import summarise
from rollout_bench.report.tables.online_tables import LATENCIES, SERVICE

TESTS = Path(__file__).parents[2]
SOURCES = TESTS.parent / "src"
EACH = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
EACH_COMPARED = pytest.mark.parametrize("metric", [METRICS[name] for name in COMPARED], ids=COMPARED)


@EACH
def test_a_metric_says_what_it_is_and_its_name_ends_with_its_unit(metric: Metric) -> None:
    assert metric.header
    assert metric.definition.endswith(".")
    assert metric.name.endswith(metric.unit.replace("/", "_per_").lower())
    assert bool(metric.speedup) == (metric.name in COMPARED)


def test_energy_is_joules_of_all_devices_over_output_tokens_and_unknown_where_one_counts_none() -> None:
    def use(energy_j: float | None, window_s: float | None = 2.0) -> DeviceUse:
        return DeviceUse(device="GPU-0", energy_j=energy_j, window_s=window_s, power_limit_w=700)

    record = make_record(rates=(400.0, 800.0))
    with_devices = [
        iteration.model_copy(update={"devices": devices})
        for iteration, devices in zip(
            record.iterations, ([use(1e6)] * 2, [use(400), use(600)], [use(800), use(1000)]), strict=True
        )
    ]
    tokens = sum(iteration.output_tokens for iteration in record.iterations[1:])
    told = record.model_copy(update={"iterations": with_devices})
    assert METRICS["energy_j_per_token"].read(told) == pytest.approx(2800 / tokens)
    assert METRICS["device_power_w"].read(told) == pytest.approx(2800 / 8)
    assert METRICS["power_limit_share"].read(told) == pytest.approx(350 / 700)
    silent = [*with_devices[:2], with_devices[2].model_copy(update={"devices": [use(800), use(None, None)]})]
    assert METRICS["energy_j_per_token"].read(record.model_copy(update={"iterations": silent})) is None
    assert METRICS["energy_j_per_token"].read(record) is None


def test_what_devices_took_has_a_table_and_a_verdict_where_they_count_it(tmp_path: Path) -> None:
    for launch in range(5):
        for quant, energy_j in (("bf16", 1000.0), ("w8a8", 590.0)):
            record = make_record(make_spec(quant=quant, platform="cuda"), launch)
            use = DeviceUse(device="GPU-0", energy_j=energy_j + launch, window_s=2.0, power_limit_w=700)
            counted = [iteration.model_copy(update={"devices": [use]}) for iteration in record.iterations]
            save(tmp_path, record.model_copy(update={"iterations": counted}))
    settings = ComparisonSettings(metrics={"offline": ["output_tokens_per_s", "energy_j_per_token"]})
    made = summarise(collect(tmp_path, None, settings), figures=False)
    (view,) = [view for view in made.views.tables if view.title.startswith("Energy: ")]
    assert {"quant", "J per token", "tok/s per W", "W per device", "of limit %"} <= {c.header for c in view.columns}
    saved = {row["quant"]: row for row in csv.DictReader(io.StringIO(made.csv))}
    assert float(saved["w8a8"]["energy_j_per_token_speedup"]) == pytest.approx(1002 / 592, abs=0.01)
    assert saved["w8a8"]["energy_j_per_token_verdict"] == "faster"
    assert float(saved["bf16"]["device_power_w"]) == pytest.approx(501)


def test_no_column_tells_of_energy_where_no_device_counts_it(tmp_path: Path) -> None:
    save(tmp_path, make_record())
    made = summarise(collect(tmp_path, None), figures=False)
    assert not [view for view in made.views.tables if view.title.startswith("Energy")]
    assert "energy" not in made.csv


@EACH
def test_a_metric_has_a_value_in_a_launch_or_in_the_service_to_requests(metric: Metric) -> None:
    served = {field.name for field in dataclasses.fields(Service)}
    assert (metric.name in served) == metric.of_requests


@EACH
def test_a_metric_is_a_column_of_the_summary_and_stands_in_the_reference(metric: Metric) -> None:
    columns = SERVICE_COLUMNS if metric.of_requests else COLUMNS | SEQUENCE_COLUMNS | OF_PARTS
    assert columns[metric.heads] == "Float64"
    page = (TESTS.parent / "docs" / "reference" / "metrics.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{metric.name}` |")]
    assert metric.definition in row


@EACH
def test_a_metric_of_a_group_is_in_a_table_and_defined_at_its_foot(metric: Metric) -> None:
    defined = {column.header: column.definition for column in (*THROUGHPUT, *ENGINE)}
    defined |= {column.header: column.definition for column in (*SERVICE, *LATENCIES, *metric_columns("transitions"))}
    defined |= {column.header: column.definition for column in (*metric_columns("placed"), *ENERGY_USED)}
    assert not metric.group or defined[metric.header] == metric.definition


def test_no_two_metrics_share_a_column_or_a_heading() -> None:
    for names in ([m.heads for m in METRICS.values()], [m.header for m in METRICS.values()]):
        assert len(set(names)) == len(METRICS)


def test_a_config_can_name_the_metrics_of_which_one_way_is_better_and_no_other() -> None:
    assert all(f"`{name}`" in config_page() for name in COMPARED)
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
def test_more_of_a_metric_gets_the_verdict_that_the_registry_says(
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


ADDED = """    Metric(
        name="tokens_per_joule",
        unit="tokens/joule",
        header="tok/J",
        definition="Output tokens for each joule.",
        better="higher",
        value=lambda record: 2 + record.launch / 1000 if record.spec.quant.name == "w8a8" else 1.0,
        speedup="energy speed-up",
        group="throughput",
    ),
)

METRICS = {"""

PROGRAM = """
import json
import sys
from pathlib import Path

from rollout_bench.commands import compare
from synthetic_online import make_online, make_online_spec, save_online
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.report.reference import config_page, config_schema, metrics_page
from rollout_bench.report.summary import summarise

results = Path(sys.argv[1])
named = ["output_tokens_per_s", "tokens_per_joule"]
settings = ComparisonSettings(metrics={"offline": named, "online": named})
specs = [make_spec(), make_spec(quant="w8a8"), make_online_spec(), make_online_spec(quant="w8a8")]
save(results, *(make_record(spec, launch) for spec in specs[:2] for launch in range(4)))
save_online(results, *(make_online(spec, launch) for spec in specs[2:] for launch in range(4)))
made = summarise(collect(results, make_plan(specs, 4, comparison=settings)), {})
pages = [metrics_page(), config_page(), config_schema(), compare.parser().format_help()]
print(json.dumps([made.csv, made.markdown, pages]))
"""


def test_one_entry_adds_a_metric_to_config_tables_files_verdicts_and_reference(tmp_path: Path) -> None:
    sources = tmp_path / "src"
    shutil.copytree(SOURCES, sources, ignore=shutil.ignore_patterns("__pycache__"))
    registry = sources / "rollout_bench" / "contracts" / "metrics.py"
    registry.write_text(registry.read_text().replace(")\n\nMETRICS = {", ADDED))
    paths = [str(sources), str(TESTS / "fixtures"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "results")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    text, markdown, pages = json.loads(done.stdout)
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["mode"] for line in lines] == ["offline", "offline", "online", "online"]
    for bf16, w8a8 in (lines[:2], lines[2:]):
        assert float(bf16["tokens_per_joule"]) == 1.0
        assert w8a8["tokens_per_joule_verdict"] == "faster"
        assert float(w8a8["tokens_per_joule_speedup"]) == pytest.approx(2, rel=0.01)
    tables = [part.split("\n## ")[0] for part in markdown.split("\n## ")[1:]]
    assert len([table for table in tables if "| tok/J |" in table]) == 2
    assert markdown.count("| energy speed-up |") == 2
    assert "tok/J: Output tokens for each joule." in markdown
    assert "energy speed-up: Its tok/J / the baseline's, above 1 being better" in markdown
    assert all("tokens_per_joule" in page for page in pages)
