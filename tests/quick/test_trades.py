"""Speed beside drift: what the summary says to choose, its table, its file and its picture."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from synthetic_drifts import drift_record, drift_rows, drift_spec, save_drift
from synthetic_inside import INVALID
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.inside.overview import look
from rollout_bench.analysis.stats.divergence import Bounded
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import write_scores
from rollout_bench.report.figure_names import figure_names
from rollout_bench.report.figures.inside.trade_figures import NO_WHISKER, trade_figure
from rollout_bench.report.figures.save import figure_files
from rollout_bench.report.figures.style import has_panels
from rollout_bench.report.parts import Findings
from rollout_bench.report.summary import Summary, summarise

LAUNCHES = 5
FLOOR = 0.002
JUDGED = 1000


class Made(NamedTuple):
    """Tokens per second, the standard deviation of d, and right answers."""

    rate: float
    noise: float
    right: int | None = None


def measured(
    results: Path, found: Mapping[str, Made], *, rates: bool = True, exact: Spec | None = None, scored_too: bool = True
) -> Findings:
    """Save launches of each quant in both modes, bf16 being the reference of both; or `exact` that of drift.

    Without `scored_too` bf16 itself is not held against `exact`.
    """
    specs = []
    if exact is not None:
        specs.append(exact)
        for launch in (0, 1):
            save_scored(results, exact, launch, EXACT)
    for place, (quant, made) in enumerate(found.items()):
        timed, scored = make_spec(quant=quant, workload="policy"), drift_spec(quant)
        if exact is not None:
            scored = held_against(scored, exact)
        specs += [timed, scored] if rates else [scored]
        for launch in range(LAUNCHES if rates else 0):
            rate = made.rate * (1 + ((launch * 7 + place) % LAUNCHES - 2) / 1000)
            save(results, make_record(timed, launch, [rate] * 3))
        for launch in (0, 1) if scored_too or quant != "bf16" else ():
            save_scored(results, scored, launch, made)
    collection = collect(results, make_plan(specs, LAUNCHES))
    return Findings(collection, inside=look(results, collection, rows_of(collection)), results=results)


def save_scored(results: Path, spec: Spec, launch: int, made: Made) -> None:
    path = save_drift(results, spec, launch, made.noise)
    if made.right is not None:
        rows = drift_rows(spec, launch, made.noise)
        record = drift_record(spec, launch, rows)
        write_scores(path, record.model_copy(update={"judged": JUDGED, "right": made.right}), rows)


def in_float32() -> Spec:
    """Return a reference of drift that is bf16 in float32, as planning makes it, which nothing times."""
    content = drift_spec().model_dump()
    content["quant"]["linear_dtypes"] = ("float32",)
    content["engine"]["args"]["dtype"] = "float32"
    return Spec.model_validate(content | {"setting": "float32"})


def held_against(spec: Spec, reference: Spec) -> Spec:
    content = spec.model_dump()
    return Spec.model_validate(content | {"drift": content["drift"] | {"reference": reference.experiment()}})


def summary(found: Findings) -> Summary:
    return summarise(found.collection, looked=found.inside, results=found.results)


def said(found: Findings) -> tuple[str, ...]:
    (section,) = (one for one in summary(found).answers if one.heading == "Speed against drift: which to choose")
    return section.items


BF16 = Made(1000.0, FLOOR, 800)
W8A8 = Made(1250.0, 20 * FLOOR, 795)
W8A16 = Made(700.0, 0.9 * FLOOR, 801)
EXACT = Made(0.0, FLOOR / 1000, 803)


def test_what_is_faster_and_drifts_is_named_with_both_and_so_is_what_it_costs(tmp_path: Path) -> None:
    first, second = said(measured(tmp_path, {"bf16": BF16, "w8a8": W8A8, "w8a16": W8A16}))
    assert first.startswith("w8a8 is 1.250x [1.2")
    assert "as fast as bf16 and drifts: mean |d| 0.03" in first
    assert " No difference in right answers found: 79.5 [76.9, 82.0] % of 1000 problems, bf16 80.0 [" in first
    assert first.endswith("choose it where training corrects for that, else stay with bf16.")
    assert second.startswith("w8a16 is 0.700x [0.6")
    assert "significantly slower; no drift beyond the floor found: mean |d| 0.00" in second


def test_what_is_faster_and_free_of_drift_is_to_be_chosen_before_what_is_faster_still(tmp_path: Path) -> None:
    free = Made(1100.0, 0.9 * FLOOR, 801)
    first, second = said(measured(tmp_path, {"bf16": BF16, "w8a8": W8A8, "w8a16": free}))
    assert first.startswith("Choose w8a16: it is 1.100x [1.")
    assert "no drift beyond the floor was found" in first
    assert re.search(r"nats per token, above the floor by 0\.000\d+ at most\)", first)
    assert second.startswith("w8a8 is 1.250x")
    assert "and drifts: mean |d|" in second


def test_what_answers_fewer_problems_rightly_is_not_to_be_chosen_though_no_drift_was_found(tmp_path: Path) -> None:
    (told,) = said(measured(tmp_path, {"bf16": BF16, "w8a16": Made(1100.0, 0.9 * FLOOR, 700)}))
    assert told.startswith("w8a16 is 1.100x [1.")
    assert "no drift beyond the floor was found: mean |d| 0.00" in told
    assert "The share of right answers differs: 70.0 [" in told
    assert told.endswith("stay with bf16 unless its speed is worth that.")


@pytest.mark.parametrize(
    ("change", "where"), [({"own": True}, "on tokens of its own, 8 at once"), ({"batch": 1}, "1 at once")]
)
def test_what_drifts_with_another_batch_or_on_its_own_tokens_alone_is_no_free_choice(
    tmp_path: Path, change: dict[str, Any], where: str
) -> None:
    found = measured(tmp_path, {"bf16": BF16, "w8a8": Made(1250.0, 0.9 * FLOOR, 801)})
    assert said(found)[0].startswith("Choose w8a8: ")
    report = found.inside.drift
    (one,) = (one for one in report.drifted if one.chosen.label == "w8a8" and one.batch == 8)
    assert one.drifts is False
    far = replace(one, beyond=Bounded(0.01, 0.005, 0.015), **change)
    drift = replace(report, own=(far,)) if far.own else replace(report, drifted=(*report.drifted, far))
    beside = Findings(found.collection, inside=replace(found.inside, drift=drift), results=tmp_path)
    (item,) = said(beside)
    assert item.startswith("w8a8 is 1.250x [1.2")
    assert "as fast as bf16 and drifts: mean |d| 0.00" in item
    assert f"nats per token {where}, and" in item
    (view,) = (one for one in summary(beside).views.tables if one.title.startswith("Speed, drift and accuracy"))
    assert f"drifts {where}" in view.cells[1]


def test_where_nothing_is_faster_the_reference_stays(tmp_path: Path) -> None:
    first, second = said(measured(tmp_path, {"bf16": BF16, "w8a8": Made(900.0, 20 * FLOOR, 600)}))
    assert first == "Stay with bf16: nothing here is significantly faster."
    assert second.startswith("w8a8 is 0.900x [0.")
    assert (
        " The share of right answers differs: 60.0 [56.9, 63.1] % of 1000 problems, bf16 80.0 [77.4, 82.4] %." in second
    )


def test_table_and_file_have_speed_drift_and_accuracy_of_the_reference_too(tmp_path: Path) -> None:
    made = summary(measured(tmp_path, {"bf16": BF16, "w8a8": W8A8, "w8a16": W8A16}))
    (view,) = (one for one in made.views.tables if one.title.startswith("Speed, drift and accuracy: offline, cpu"))
    cells = {line[0]: dict(zip([one.header for one in view.columns], line, strict=True)) for line in view.cells}
    assert {quant: line["drift verdict"] for quant, line in cells.items()} == {
        "bf16": "(reference)",
        "w8a8": "drifts",
        "w8a16": "no drift beyond the floor found",
    }
    assert {quant: line["answers"] for quant, line in cells.items()} == {
        "bf16": "(reference)",
        "w8a8": "no difference found",
        "w8a16": "no difference found",
    }
    assert cells["bf16"]["speed-up"] == "(baseline)"
    assert cells["w8a8"]["scored"] == "8 at once"
    assert cells["w8a8"]["accuracy %"].startswith("79.5 [")
    lines = {line["quant"]: line for line in csv.DictReader(io.StringIO(made.tables["trade.csv"]))}
    assert float(lines["w8a8"]["speedup"]) == pytest.approx(1.25, rel=0.01)
    assert [lines[quant]["drifts"] for quant in ("w8a8", "w8a16")] == ["True", "False"]
    assert (lines["bf16"]["right"], lines["bf16"]["judged"], lines["bf16"]["speedup"]) == ("800", "1000", "1.0")
    assert float(lines["w8a8"]["mean_abs_d_nats"]) > float(lines["bf16"]["mean_abs_d_nats"])


def test_of_a_model_that_was_not_trained_here_nothing_is_said_of_answers(tmp_path: Path) -> None:
    made = measured(tmp_path, {"bf16": Made(1000.0, FLOOR), "w8a8": Made(1250.0, 20 * FLOOR)})
    assert "answers" not in " ".join(said(made))
    (view,) = (one for one in summary(made).views.tables if one.title.startswith("Speed, drift and accuracy"))
    assert not {"accuracy %", "answers"} & {column.header for column in view.columns}


def test_without_a_speed_there_is_nothing_to_choose_by_and_no_picture(tmp_path: Path) -> None:
    found = measured(tmp_path, {"bf16": BF16, "w8a8": W8A8}, rates=False)
    made = summary(found)
    assert "Speed against drift" not in made.markdown
    assert "trade.csv" not in made.tables
    assert "trade" not in figure_names(found.rows, found.collection)


def test_what_has_no_valid_launch_in_one_of_the_modes_is_left_out(tmp_path: Path) -> None:
    found = measured(tmp_path, {"bf16": BF16, "w8a8": W8A8, "w8a16": W8A16})
    for launch in (0, 1):
        save_drift(tmp_path, drift_spec("w8a16"), launch, FLOOR, flags=[INVALID])
    collection = collect(tmp_path, make_plan([one.records[0].spec for one in found.collection.launched], LAUNCHES))
    left = Findings(collection, inside=look(tmp_path, collection, rows_of(collection)), results=tmp_path)
    (trade_off,) = left.trade_offs
    assert [one.label for one in trade_off.others] == ["w8a8"]


def test_the_picture_has_each_quantization_with_its_right_answers(tmp_path: Path) -> None:
    made = {"bf16": BF16, "w8a8": W8A8, "w8a16": W8A16, "bf16-kv8": Made(1010.0, 15 * FLOOR, 790)}
    found = measured(tmp_path, made)
    names = figure_names(found.rows, found.collection)
    assert "trade" in names
    files = figure_files(found.collection, ["trade"], looked=found.inside, results=tmp_path)
    assert has_panels(files["trade.svg"])
    assert files == figure_files(found.collection, ["trade"], looked=found.inside, results=tmp_path)


def test_with_a_reference_in_float32_speed_is_over_bf16_and_drift_of_both_from_float32(tmp_path: Path) -> None:
    found = measured(tmp_path, {"bf16": BF16, "w8a8": W8A8}, exact=in_float32())
    (trade_off,) = found.trade_offs
    assert (trade_off.baseline.label, trade_off.reference.label) == ("bf16", "bf16 float32")
    assert [one.label for one in trade_off.drifting] == ["bf16", "w8a8"]
    choice, what = said(found)
    assert choice.startswith("w8a8 is 1.250x [1.2")
    assert "as fast as bf16 and drifts from bf16 float32: mean |d| 0.03" in choice
    assert " No difference in right answers found: 79.5 [76.9, 82.0] % of 1000 problems, bf16 80.0 [" in choice
    assert what.startswith("Speed is relative to bf16, drift is from bf16 float32, whose speed is not known. ")
    assert "bf16 itself drifts from bf16 float32: mean |d| 0.001" in what
    made = summary(found)
    (view,) = (one for one in made.views.tables if one.title.startswith("Speed, drift and accuracy: "))
    assert ", speed-up over bf16, drift from bf16 float32" in view.title
    cells = {line[0]: dict(zip([one.header for one in view.columns], line, strict=True)) for line in view.cells}
    assert {quant: line["drift verdict"] for quant, line in cells.items()} == {"bf16": "drifts", "w8a8": "drifts"}
    assert (cells["bf16"]["speed-up"], cells["bf16"]["answers"]) == ("(baseline)", "(baseline)")
    assert cells["bf16"]["mean |d|"].startswith("0.001")
    lines = {line["quant"]: line for line in csv.DictReader(io.StringIO(made.tables["trade.csv"]))}
    assert {(line["baseline"], line["reference"]) for line in lines.values()} == {("bf16", "bf16 float32")}
    speedups = [float(lines[quant]["speedup"]) for quant in ("bf16", "w8a8")]
    assert speedups == pytest.approx([1.0, 1.25], rel=0.01)
    assert [lines[quant]["drifts"] for quant in ("bf16", "w8a8")] == ["True", "True"]


def test_the_picture_has_bf16_as_a_point_of_its_own_beside_a_reference_in_float32(tmp_path: Path) -> None:
    found = measured(tmp_path, {"bf16": BF16, "w8a8": W8A8}, exact=in_float32())
    figure = trade_figure(found.drawn_trade_offs, found.collection.comparison, "", "")
    (axes,) = figure.axes
    assert axes.get_xlabel() == "mean |d| from bf16 float32, nats per token (better: left)"
    assert axes.get_ylabel() == "speed-up over bf16 (better: up)"
    texts = [text.get_text() for text in axes.texts]
    assert [text for text in texts if text.startswith("bf16")] == ["bf16, 80.0 % right"]
    assert "trade" in figure_names(found.rows, found.collection)


@pytest.mark.parametrize(("high", "said"), [(math.inf, True), (0.01, False)])
def test_the_picture_ends_no_whisker_where_the_interval_has_no_end(tmp_path: Path, high: float, said: bool) -> None:
    found = measured(tmp_path, {"bf16": BF16, "w8a8": W8A8})
    (each,) = found.drawn_trade_offs
    (one,) = each.drifting
    assert one.drifted is not None
    size = Bounded(0.005, 0.001, high)
    drifted = replace(one.drifted, found=replace(one.drifted.found, size=size))
    drawn = replace(each, others=(replace(one, drifted=drifted),))
    figure = trade_figure([drawn], found.collection.comparison, "", "")
    (axes,) = figure.axes
    ends = [list(np.asarray(line.get_xdata())) for line in axes.lines]
    assert ([0.005, 0.005] if said else [0.001, high]) in ends
    assert [0.001, 0.005] not in ends
    assert (NO_WHISKER in " ".join(text.get_text() for text in reversed(figure.texts))) is said


def test_where_bf16_itself_was_not_scored_against_float32_the_summary_says_so(tmp_path: Path) -> None:
    found = measured(tmp_path, {"bf16": BF16, "w8a8": W8A8}, exact=in_float32(), scored_too=False)
    assert "No valid launch says how far bf16 itself is from bf16 float32." in said(found)[1]
    assert "answers" not in said(found)[0]
    (view,) = (one for one in summary(found).views.tables if one.title.startswith("Speed, drift and accuracy: "))
    cells = {line[0]: dict(zip([one.header for one in view.columns], line, strict=True)) for line in view.cells}
    assert (cells["bf16"]["mean |d|"], cells["bf16"]["drift verdict"]) == ("-", "-")
    (axes,) = trade_figure(found.drawn_trade_offs, found.collection.comparison, "", "").axes
    assert "bf16" in [text.get_text() for text in axes.texts]  # at its line, as it has no point
