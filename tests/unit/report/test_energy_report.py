"""What a summary says of energy: a table with verdicts, a file; and why it is not known."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_cycles import cycle_spec, cycled
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import Collection
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.metrics import ENERGY, METRICS
from rollout_bench.contracts.record import DeviceUse
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.parts import Findings
from rollout_bench.report.summary import summarise

LAUNCHES = 5
TOKENS = 32 * 32


def measured(
    results: Path,
    found: Mapping[str, tuple[float, float]],
    platform: str = "cuda",
    metrics: tuple[str, ...] = ("output_tokens_per_s",),
) -> Collection:
    """Save launches of each quant with tok/s and joules for a pass, which launches change by a thousandth."""
    specs = [make_spec(quant=quant, platform=platform) for quant in found]
    for spec in specs:
        rate, joules = found[spec.quant.name]
        for launch in range(LAUNCHES):
            off = 1 + ((launch * 7 + list(found).index(spec.quant.name)) % LAUNCHES - 2) / 1000
            window_s = TOKENS / (rate * off)
            use = DeviceUse(
                device="GPU-0",
                energy_j=joules * off,
                window_s=window_s,
                power_limit_w=700,
            )
            record = make_record(spec, launch, [rate * off] * 3, environment={"device_model": "NVIDIA H200"})
            passes = [iteration.model_copy(update={"devices": [use]}) for iteration in record.iterations]
            save(results, record.model_copy(update={"iterations": passes}))
    plan = make_plan(specs, LAUNCHES, comparison=ComparisonSettings(metrics={"offline": list(metrics)}))
    return collect(results, plan)


FOUND = {"bf16": (1000.0, 40.0), "w8a8": (1250.0, 23.6)}


def cells(results: Collection) -> dict[str, dict[str, str]]:
    made = summarise(results)
    (view,) = [view for view in made.views.tables if view.title.startswith("Energy: ")]
    headers = [column.header for column in view.columns]
    return {line[0]: dict(zip(headers, line, strict=True)) for line in view.cells}


def test_the_table_has_verdicts_whatever_the_config_compares(tmp_path: Path) -> None:
    shown = cells(measured(tmp_path, FOUND))
    assert list(shown["w8a8"]) == [
        "quant",
        "J per token",
        "energy gain",
        "tok/s per W",
        "W per device",
        "power ratio",
        "of limit %",
    ]
    assert shown["bf16"]["energy gain"] == "(baseline)"
    assert shown["w8a8"]["energy gain"].startswith("1.695x ^ [")
    assert shown["w8a8"]["power ratio"].startswith("1.356x ^ [")
    assert shown["w8a8"]["tok/s per W"] == "43.39"
    assert shown["w8a8"]["of limit %"] == "4.12"


def test_the_file_has_a_line_for_each_configuration_with_ratios_and_verdicts(tmp_path: Path) -> None:
    made = summarise(measured(tmp_path, FOUND))
    lines = {line["quant"]: line for line in csv.DictReader(io.StringIO(made.tables["energy.csv"]))}
    assert lines["bf16"]["energy_j_per_token_verdict"] == "baseline"
    assert lines["w8a8"]["energy_j_per_token_verdict"] == "faster"
    assert float(lines["w8a8"]["energy_j_per_token_speedup"]) == pytest.approx(40 / 23.6, rel=1e-3)
    assert float(lines["w8a8"]["tokens_per_s_per_w"]) == pytest.approx(TOKENS / 23.6, rel=1e-3)


def test_comparing_energy_changes_no_other_verdict(tmp_path: Path) -> None:
    found = measured(tmp_path, FOUND)
    before = {row.label: row.comparisons for row in rows_of(found)}
    assert all("energy_j_per_token" in row.comparisons for row in Findings(found).energy_rows)
    assert {row.label: row.comparisons for row in rows_of(found)} == before


def test_tokens_per_watt_have_the_verdict_of_energy(tmp_path: Path) -> None:
    both = ("energy_j_per_token", "tokens_per_s_per_w")
    _, own = rows_of(measured(tmp_path, FOUND, metrics=both))
    energy, per_w = (own.comparisons[metric] for metric in both)
    assert (energy.verdict, energy.speedup) == (per_w.verdict, pytest.approx(per_w.speedup))


def test_without_energy_there_is_no_table_and_the_reason_once(tmp_path: Path) -> None:
    for launch in range(2):
        for quant in ("bf16", "w8a8"):
            record = make_record(make_spec(quant=quant), launch)
            save(tmp_path, record.model_copy(update={"no_energy": "/sys/class/powercap has no counters"}))
    found = collect(tmp_path, None)
    made = summarise(found)
    assert not [view for view in made.views.tables if view.title.startswith("Energy")]
    assert "energy.csv" not in made.tables
    (section,) = [section for section in made.sections if section.heading == "Energy that is not known"]
    assert section.items == ("/sys/class/powercap has no counters.",)
    assert "powercap" not in made.text  # nobody asked for it
    asked = replace(
        found, comparison=ComparisonSettings(metrics={"offline": ["output_tokens_per_s", "energy_j_per_token"]})
    )
    assert "/sys/class/powercap has no counters." in summarise(asked).text


def test_an_experiment_whose_energy_is_not_known_is_named_beside_those_whose_is(tmp_path: Path) -> None:
    found = measured(tmp_path, FOUND)
    silent = make_record(make_spec(quant="fp8", platform="cuda"))
    save(tmp_path, silent.model_copy(update={"no_energy": "NVML gives neither energy nor power of its GPUs"}))
    both = collect(tmp_path, None, found.comparison)
    made = summarise(both)
    for said in (made.markdown, " ".join(made.text.split())):
        assert "qwen3-90m fp8 small: NVML gives neither energy nor power of its GPUs." in said


def test_records_of_earlier_versions_say_nothing_of_energy(tmp_path: Path) -> None:
    save(tmp_path, make_record())
    made = summarise(collect(tmp_path, None))
    assert "nergy" not in made.markdown


def test_what_was_read_around_generation_transition_and_proofs_is_no_energy_of_tokens() -> None:
    use = DeviceUse(device="GPU-0", energy_j=3300.0, window_s=8.4, power_limit_w=700)
    passes = [one.model_copy(update={"devices": [use]}) for one in make_record(cycle_spec()).iterations]
    alone = make_record(cycle_spec()).model_copy(update={"iterations": passes})
    of_energy = [metric for metric in METRICS.values() if metric.group == ENERGY]
    assert all(metric.read(alone) is not None for metric in of_energy)
    assert all(metric.read(cycled(alone, 0.5)) is None for metric in of_energy)
