"""The registry of numbers: what each entry says, and where it appears."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.record import DeviceUse, Record
from rollout_bench.numbers.generation import THROUGHPUT
from rollout_bench.numbers.number import Number
from rollout_bench.numbers.registry import COMPARED, NUMBERS
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.headings import speedup_columns
from rollout_bench.report.reference import config_table
from rollout_bench.report.summary import summary_of

TESTS = Path(__file__).parents[2]
EACH = pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
EACH_COMPARED = pytest.mark.parametrize("number", [NUMBERS[name] for name in COMPARED], ids=COMPARED)


@EACH
def test_a_number_has_a_definition_and_its_unit_as_suffix(number: Number) -> None:
    assert number.header
    assert number.definition.endswith(".")
    assert number.name.endswith(number.unit.replace("/", "_per_").lower())
    assert bool(number.speedup) == (number.name in COMPARED)


def test_every_number_is_in_the_reference() -> None:
    with (TESTS.parent / "docs" / "reference" / "numbers.csv").open(newline="") as table:
        rows = {row["number"]: row["definition"] for row in csv.DictReader(table)}
    assert rows == {name: number.definition for name, number in NUMBERS.items()}


def test_no_two_numbers_share_a_heading() -> None:
    assert len({number.header for number in NUMBERS.values()}) == len(NUMBERS)


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

    monkeypatch.setitem(NUMBERS, number.name, dataclasses.replace(number, read=value, top="", of="", mode=""))
    specs = [make_spec(), make_spec(quant="w8a8")]
    save(tmp_path, *(make_record(spec, launch) for spec in specs for launch in range(4)))
    settings = ComparisonSettings(metrics={"offline": [number.name]})
    _, own = rows_of(collect(tmp_path, make_plan(specs, 4, comparison=settings)))
    better = (factor > 1) == (number.better == "higher")
    assert own.comparison.verdict == ("faster" if better else "slower")
    assert own.comparison.speedup == pytest.approx(2.0 if better else 0.5, rel=0.01)
    (column,) = speedup_columns([number.name], settings, {})
    of = ("Its {} /" if number.better == "higher" else "The baseline's {} /").format(number.header)
    assert column.definition.startswith(of)


def test_an_added_number_is_in_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = Number(
        name="request_tokens",
        unit="tokens",
        header="tokens a request",
        definition="Output tokens of a request.",
        top="output_tokens",
        bottom="requests",
        table=THROUGHPUT,
    )
    monkeypatch.setitem(NUMBERS, added.name, added)
    record = make_record()
    save(tmp_path, record)
    summary = summary_of(tmp_path, collect(tmp_path, None), drawn=True)
    (row,) = csv.DictReader(summary.csv.splitlines())
    last = record.iterations[-1]
    assert float(row[added.name]) == last.output_tokens / last.requests
    assert added.header in [column.header for column in summary.views[0].columns]
    assert added.definition in summary.markdown
    assert added.name in [number["name"] for number in json.loads(summary.explored)["numbers"]]


def test_energy_of_one_side_alone_is_shown_without_a_verdict(tmp_path: Path) -> None:
    use = DeviceUse(device="0", energy_j=100.0, window_s=1.0, power_limit_w=700)
    baseline, other = make_record(), make_record(make_spec(quant="w8a8"))
    read = [iteration.model_copy(update={"devices": [use]}) for iteration in baseline.iterations]
    save(tmp_path, baseline.model_copy(update={"iterations": read}), other)
    summary = summary_of(tmp_path, collect(tmp_path, make_plan([baseline.spec, other.spec], 1)), drawn=True)
    (energy,) = [view for view in summary.views if view.title.startswith("Energy")]
    assert [line[1] for line in energy.cells] == [NUMBERS["energy_j_per_token"].text(200 / 2048), "-"]
