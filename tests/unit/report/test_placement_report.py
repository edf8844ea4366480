"""The summary tells where a step is shorter, and what each device does meanwhile."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from drawn import assert_texts_are_apart
from matplotlib.axes import Axes
from synthetic_placements import (
    GATHER_S,
    SLEEP_S,
    UPDATE_S,
    WAKE_KV_CACHE_S,
    WAKE_WEIGHTS_S,
    placed_record,
    placed_spec,
)
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.cycles.placed_costs import placed_costs, typical_step
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.launches import parts_of
from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.contracts.record import Flag, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.figure_names import figure_names
from rollout_bench.report.figures.placement_figures import MOST_PANELS, placement_figure
from rollout_bench.report.figures.style import settings
from rollout_bench.report.rendering import WIDTH
from rollout_bench.report.summary import Summary, summarise

COLOCATED, SERVER, AHEAD = placed_spec(), placed_spec(1), placed_spec(1, overlap=True)
ASLEEP = placed_spec(sleep="1", args={"gpu_memory_utilization": 0.8})

STEADY, AS_STEADY = (1.0, 1.004, 0.997, 0.999), (0.998, 1.003, 1.001, 0.998)
"""What the steps of each launch are times: those of the baseline, and those of what is compared with it."""

# colocated: 2 s + 0.05 + 1 s + 0.1 = 3.15 s; server: 4 + 0.05 + 2 + 0.1 = 6.15 s; ahead: max(4, 2) + 0.15 = 4.15 s


def launches(results: Path, *specs: Spec, flags: Sequence[Flag] = ()) -> None:
    """Write four launches of each of `specs`, the first of which is the baseline."""
    for number, spec in enumerate(specs):
        for launch, factor in enumerate(AS_STEADY if number else STEADY):
            save(results, placed_record(spec, launch, [factor] * 3, flags=flags))


def summary(
    results: Path, *specs: Spec, baseline: Mapping[str, str] | None = None, comparison: ComparisonSettings | None = None
) -> Summary:
    named = {"setting": specs[0].axes["setting"]} if baseline is None else baseline
    return summarise(collect(results, make_plan(specs, 4, baseline=named, comparison=comparison)))


def measured(results: Path, *specs: Spec, baseline: Mapping[str, str] | None = None) -> Summary:
    launches(results, *specs)
    return summary(results, *specs, baseline=baseline)


def rows(results: Path, *specs: Spec) -> list[Row]:
    launches(results, *specs)
    return rows_of(collect(results, make_plan(specs, 4, baseline={"setting": specs[0].axes["setting"]})))


def said(made: Summary, heading: str) -> list[str]:
    """Return what a section above the tables says."""
    return [item for section in made.answers if section.heading == heading for item in section.items]


def table(made: Summary, heading: str) -> list[dict[str, str]]:
    """Return the lines of a table, each by its headings."""
    text = made.markdown.partition(f"## {heading}: placement, ")[2].partition("##")[0]
    header, _, *lines = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|"))
    return [dict(zip(header, line, strict=True)) for line in lines]


DECISION = "Where engine and trainer should live"


def test_the_sentence_names_both_places_their_times_and_the_verdict(tmp_path: Path) -> None:
    (told,) = said(measured(tmp_path, SERVER, COLOCATED), DECISION)
    found = re.fullmatch(
        r"With engine and trainer colocated a whole step takes (.*)x \[(.*), (.*)\] as long as with 1 of 2 devices "
        r"only generating: it is faster. On 2 devices it takes 3.15 s against 6.15 s, which is 6.30 device-seconds "
        r"against 12.3.",
        told,
    )
    assert found is not None, told
    factor, low, high = map(float, found.groups())
    assert factor == pytest.approx(3.15 / 6.15, abs=0.002)
    assert low < factor < high


def test_either_place_can_be_the_baseline(tmp_path: Path) -> None:
    (told,) = said(measured(tmp_path, COLOCATED, SERVER), DECISION)
    assert re.match(
        r"With 1 of 2 devices only generating a whole step takes 1\.95\d?x .* colocated: it is slower\.", told
    ), told


def test_a_trainer_that_is_a_step_behind_is_named_as_another_algorithm(tmp_path: Path) -> None:
    _, ahead, warning = said(measured(tmp_path, COLOCATED, SERVER, AHEAD), DECISION)
    assert ahead.startswith("With 1 of 2 devices generating a step ahead a whole step takes 1.3")
    assert warning.startswith("A step ahead is another algorithm")


def test_a_step_is_told_in_its_parts_with_what_devices_wait(tmp_path: Path) -> None:
    colocated, server = said(measured(tmp_path, COLOCATED, SERVER), "Where the time of a step goes")
    assert colocated == (
        "With engine and trainer colocated, generation takes 2.00 s (2 engines with 16 sequences and a KV cache of "
        "9,600 tokens each), training 1.00 s on 2 devices, gathering 0.050 s and the update 0.10 s. A device waits "
        "0 % of a step."
    )
    assert server.endswith(
        "generation takes 4.00 s (1 engine with 32 sequences and a KV cache of 9,600 tokens), training 2.00 s on 1 "
        "device, gathering 0.050 s and the update 0.10 s. Devices that only generate wait 33 % of a step, devices that "
        "train 65 %."
    )


def test_an_engine_that_sleeps_says_what_it_gave_back_and_what_sleep_takes(tmp_path: Path) -> None:
    made = measured(tmp_path, COLOCATED, ASLEEP)
    (told,) = said(made, DECISION)
    assert told.startswith("With engine and trainer colocated with sleep level 1 a whole step takes 1.09")
    assert "engine_args.gpu_memory_utilization is 0.8 with engine and trainer colocated with sleep level 1" in told
    awake, asleep = said(made, "Where the time of a step goes")
    assert "sleep" not in awake
    assert asleep.endswith(
        "gathering 0.050 s, the update 0.10 s, and sleep and wake-up 0.30 s. Asleep at level 1, an engine left at "
        "least 120 GiB of its device's 140 GiB free; awake, it had left 14.0 GiB. A device waits 0 % of a step."
    )
    where = [line["engine and trainer"] for line in table(made, "Where engine and trainer live")]
    assert where == ["colocated", "colocated with sleep level 1"]
    (line,) = table(made, "Engines asleep")
    slept_s = SLEEP_S + WAKE_WEIGHTS_S + WAKE_KV_CACHE_S
    assert float(line["sleep and wake s"]) == pytest.approx(slept_s)
    assert [line[name] for name in ("free awake GiB", "free asleep GiB", "device GiB")] == ["14.0", "120", "140"]
    *_, device = table(made, "What each device does")
    assert float(device["sleep %"]) == pytest.approx(100 * SLEEP_S / (3.15 + slept_s), rel=0.02)
    assert float(device["wake %"]) == pytest.approx(100 * (slept_s - SLEEP_S) / (3.15 + slept_s), rel=0.02)
    assert device["idle %"] == "0"
    assert max(map(len, made.text.splitlines())) <= WIDTH
    lines = list(csv.DictReader(io.StringIO(made.tables["placement.csv"])))
    assert [line["sleep"] for line in lines] == ["none"] * 2 + ["1"] * 2
    assert [line["asleep_free_bytes"] for line in lines[:2]] == ["", ""]
    assert int(float(lines[2]["asleep_free_bytes"])) == 120 << 30
    assert float(lines[2]["sleep_s"]) == pytest.approx(slept_s)


def test_where_no_engine_sleeps_nothing_is_said_of_sleep(tmp_path: Path) -> None:
    assert "sleep" not in measured(tmp_path, COLOCATED, SERVER).markdown


def test_the_tables_have_the_step_what_it_comes_to_in_device_seconds_and_its_parts(tmp_path: Path) -> None:
    made = measured(tmp_path, COLOCATED, SERVER)
    colocated, server = table(made, "Where engine and trainer live")
    assert (colocated["engine and trainer"], server["engine and trainer"]) == (
        "colocated",
        "1 of 2 devices only generating",
    )
    assert colocated["placed-step speed-up"] == "(baseline)"
    assert server["placed-step speed-up"].startswith("0.51")
    _, parts = table(made, "Parts of a step")
    numbers = {
        "devices": 2,
        "placed step s": 6.15,
        "device-seconds": 12.3,
        "generation s": 4,
        "training s": 2,
        "update s": UPDATE_S,
        "gather s": GATHER_S,
        "generators idle %": 100 * 2 / 6.15,
        "trainers idle %": 100 * 4 / 6.15,
        "sequences per engine": 32,
    }
    shown = {**server, **parts}
    assert {name: float(shown[name]) for name in numbers} == pytest.approx(numbers, rel=0.01)
    assert parts["KV cache tokens"] == "9,600"


def test_the_tables_fit_a_terminal(tmp_path: Path) -> None:
    flag = Flag(code="cpu_steal", severity="warning", sentence="Others took 6.3 % of the cores' time.")
    specs = [
        placed_spec(generators, setting=f"{swept}+where-{where}", args={"max_num_seqs": number})
        for number, swept in enumerate(("overlap-0", "max-num-seqs-8+overlap-1"), 1)
        for generators, where in ((None, "colocated"), (1, "server"))
    ]
    launches(tmp_path, *specs, flags=[flag])
    made = summary(tmp_path, *specs)
    assert max(map(len, made.text.splitlines())) <= WIDTH


def test_the_tables_of_several_workloads_and_devices_fit_a_terminal(tmp_path: Path) -> None:
    loads = ("small", "long-answers")
    specs = [placed_spec(generators, devices=8, workload=load) for load in loads for generators in (None, 4)]
    made = measured(tmp_path, *specs)
    assert max(map(len, made.text.splitlines())) <= WIDTH
    assert table(made, "Parts of a step")[0]["generators idle %"] == "0"


def test_an_engine_on_several_devices_is_counted_as_one(tmp_path: Path) -> None:
    sharded = placed_spec(devices=4, args={"tensor_parallel_size": 2}, setting="sharded")
    server = placed_spec(2, devices=4, args={"tensor_parallel_size": 2})
    whole = placed_spec(devices=4)
    made = measured(tmp_path, whole, sharded, server)
    told = said(made, "Where the time of a step goes")
    assert re.findall(r"\((\d engines? .*? sequences)", " ".join(told)) == [
        "4 engines with 8 sequences",
        "2 engines of 2 devices each with 16 sequences",
        "1 engine of 2 devices with 32 sequences",
    ]
    parts = table(made, "Parts of a step")
    assert [(line["devices per engine"], line["sequences per engine"]) for line in parts] == [
        ("1", "8"),
        ("2", "16"),
        ("2", "32"),
    ]
    assert max(map(len, made.text.splitlines())) <= WIDTH
    lines = list(csv.DictReader(io.StringIO(made.tables["placement.csv"])))
    assert [float(line["sequences"]) for line in lines] == [8.0] * 8 + [32.0, 0.0, 0.0, 0.0]
    assert [(line["engines"], line["devices_per_engine"]) for line in lines[::4]] == [
        ("4", "1"),
        ("2", "2"),
        ("1", "2"),
    ]


def test_each_device_has_a_line_whose_shares_are_the_whole_step(tmp_path: Path) -> None:
    lines = table(measured(tmp_path, COLOCATED, SERVER), "What each device does")
    assert [(line["setting"], line["device"], line["is for"]) for line in lines] == [
        ("where-colocated", "0", "both"),
        ("where-colocated", "1", "both"),
        ("where-server", "0", "generates"),
        ("where-server", "1", "trains"),
    ]
    for line in lines:
        shares = [line[name] for name in line if name.endswith(" %")]
        assert sum(float(share) for share in shares if share != "-") == pytest.approx(100, abs=0.5)


def test_the_file_has_a_line_for_each_device_in_full_precision(tmp_path: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(measured(tmp_path, COLOCATED, SERVER).tables["placement.csv"])))
    assert [(line["setting"], line["where"], line["rank"], line["overlap"]) for line in lines] == [
        (f"where-{where}", where, rank, "0") for where in ("colocated", "server") for rank in "01"
    ]
    *_, generates, trains = lines
    assert [float(generates[of]) for of in ("sequences", "trained_sequences")] == [32, 0]
    assert [float(trains[of]) for of in ("sequences", "trained_sequences")] == [0, 32]
    assert float(trains["idle_share"]) == pytest.approx(4 / 6.15, rel=0.001)
    assert float(trains["device_s"]) == pytest.approx(2 * float(trains["whole_s"]))
    assert int(float(trains["steps"])) == 12


def test_only_the_same_work_on_as_many_devices_is_compared(tmp_path: Path) -> None:
    four = placed_spec(1, devices=4, setting="devices-4+where-server")
    timed = placed_spec(1, train_s=2.0, setting="train-s-2+where-server")
    made = measured(tmp_path, COLOCATED, four, timed)
    told = said(made, DECISION)
    assert told[:2] == [
        "1 of 4 devices only generating is not compared with engine and trainer colocated, because they do other work: "
        "devices 4 and 2.",
        "1 of 2 devices only generating is not compared with engine and trainer colocated, because they do other work: "
        "train_s 2.0 and null.",
    ]
    assert "it is" not in " ".join(told[:2])


def test_engine_settings_in_which_both_differ_besides_are_named(tmp_path: Path) -> None:
    roomy = placed_spec(1, args={"gpu_memory_utilization": 0.9})
    (told,) = said(measured(tmp_path, COLOCATED, roomy), DECISION)
    assert "Besides, engine_args.gpu_memory_utilization is 0.9 with 1 of 2 devices only generating and not set" in told


def test_of_two_placements_alike_but_for_an_engine_setting_the_verdict_is_on_that(tmp_path: Path) -> None:
    few = placed_spec(1, setting="few", args={"max_num_seqs": 4})
    many = placed_spec(1, setting="many", args={"max_num_seqs": 8})
    (told,) = said(measured(tmp_path, few, many), DECISION)
    own, other = (f"1 of 2 devices only generating (bf16 {name})" for name in ("many", "few"))
    assert f"They differ in this: engine_args.max_num_seqs is 8 with {own} and 4 with {other}. On 2" in told


def test_placements_that_nothing_is_compared_with_say_how_to(tmp_path: Path) -> None:
    first, second, remedy = said(measured(tmp_path, COLOCATED, SERVER, baseline={"quant": "bf16"}), DECISION)
    assert first == (
        "With engine and trainer colocated a whole step takes 3.15 s on 2 devices, which is 6.30 device-seconds. It is "
        "compared with nothing."
    )
    assert "takes 6.15 s" in second
    assert "{quant: null, setting: where-colocated}" in remedy


def test_two_of_one_place_are_told_apart_by_their_settings(tmp_path: Path) -> None:
    fine = placed_spec(1, setting="plain+where-server")
    coarse = placed_spec(1, setting="max-num-seqs-8+where-server", args={"max_num_seqs": 8})
    _, *told = said(measured(tmp_path, COLOCATED, fine, coarse), "Where the time of a step goes")
    assert [item.partition(",")[0] for item in told] == [
        "With 1 of 2 devices only generating (bf16 plain+where-server)",
        "With 1 of 2 devices only generating (bf16 max-num-seqs-8+where-server)",
    ]


def test_invalid_launches_are_in_no_number(tmp_path: Path) -> None:
    launches(tmp_path, COLOCATED, SERVER)
    flag = Flag(code="cpu_shared", severity="invalid", sentence="Another process computed.")
    save(tmp_path, placed_record(SERVER, 0, [9.0] * 3, flags=[flag]))
    server = rows_of(collect(tmp_path, make_plan([COLOCATED, SERVER], 4, baseline={"setting": "where-colocated"})))[1]
    found = placed_costs(server)
    assert found is not None
    assert found.whole_s == pytest.approx(6.15, rel=0.01)
    typical = typical_step(server)
    assert typical is not None
    assert typical.elapsed_s < 7


def test_engines_without_the_trainers_weights_are_a_finding(tmp_path: Path) -> None:
    flag = Flag(code="update_without_effect", severity="invalid", sentence="After step 1, the 2 engines differ.")
    launches(tmp_path, SERVER)
    launches(tmp_path, COLOCATED, flags=[flag])
    failed, passed = said(summary(tmp_path, COLOCATED, SERVER), "Proofs of new weights")
    assert failed.startswith(
        "engine and trainer colocated: updates do not take full effect (update_without_effect, 4 of 4"
    )
    assert "After step 1, the 2 engines differ. None of its launches is in a number." in failed
    assert passed.startswith(
        "16 steps passed all proofs: 1 of 2 devices only generating. After each of them the weights"
    )
    assert passed.endswith(
        "Each of the trainer's tensors had reached each engine as the trainer has it, and was so where the engine "
        "keeps it."
    )


def test_weights_that_are_not_the_trainers_are_told_as_what_they_do_to_a_training(tmp_path: Path) -> None:
    flag = Flag(code="weights_differ", severity="invalid", sentence="After step 1, 3 of 25 tensors differed.")
    launches(tmp_path, COLOCATED, flags=[flag])
    (failed,) = said(summary(tmp_path, COLOCATED), "Proofs of new weights")
    assert failed.startswith(
        "engine and trainer colocated: the engine does not have the trainer's weights (weights_differ, 4 of 4 launches)"
    )


def test_tensors_that_could_not_be_compared_where_engines_keep_them_are_counted(tmp_path: Path) -> None:
    launches(tmp_path, COLOCATED)
    save(tmp_path, placed_record(COLOCATED, 1, [1.0] * 3, found=7))
    _, partly = said(summary(tmp_path, COLOCATED), "Proofs of new weights")
    assert partly == (
        "With engine and trainer colocated, 7 of 25 tensors could be compared where the engine keeps them, and the "
        "others only as they reached it."
    )


@pytest.mark.parametrize("earlier", [1, len(STEADY)])
def test_steps_that_were_not_held_against_their_trainer_are_not_said_to_be(earlier: int, tmp_path: Path) -> None:
    for launch, factor in enumerate(STEADY):
        record = placed_record(COLOCATED, launch, [factor] * 3).model_dump(mode="json")
        for iteration in record["iterations"] if launch < earlier else []:
            for proof in iteration["placed"]["proofs"]:
                del proof["trainer"]
        save(tmp_path, Record.model_validate(record))
    (passed,) = said(summary(tmp_path, COLOCATED), "Proofs of new weights")
    assert passed.endswith("which generated the same greedy tokens.")


def test_the_warm_up_is_in_no_number(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, COLOCATED)
    found = placed_costs(row)
    assert found is not None
    assert found.generation_s == pytest.approx(2, rel=0.01)  # that of the warm-up takes twice as long


def test_what_a_launch_costs_counts_whole_steps() -> None:
    cost = parts_of(placed_record(COLOCATED))
    assert cost.measured_s == pytest.approx(3 * 3.15)


def test_other_modes_have_neither_the_table_nor_the_figure(tmp_path: Path) -> None:
    save(tmp_path, make_record(make_spec()))
    collection = collect(tmp_path, None)
    made = summarise(collection)
    assert "placement" not in made.markdown
    assert "placement.csv" not in made.tables
    assert "placement" not in figure_names(rows_of(collection), collection)


def lanes(axes: Axes) -> list[tuple[float, float]]:
    """Return where each drawn piece of a panel begins and ends, in seconds."""
    boxes = [path.get_extents() for pieces in axes.collections for path in pieces.get_paths()]
    return [(float(box.x0), float(box.x1)) for box in boxes]


def test_the_figure_has_a_panel_for_each_place_and_a_lane_for_each_device(tmp_path: Path) -> None:
    made = rows(tmp_path, COLOCATED, SERVER, AHEAD)
    with settings():
        figure = placement_figure(made, "here", "")
        assert_texts_are_apart(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "bf16 where-colocated: 3.15 s",
        "bf16 where-server: 6.14 s",
        "bf16 overlap-1+where-server: 4.14 s",
    ]
    server = lanes(figure.axes[1])
    assert min(begin for begin, _ in server) == 0
    assert max(end for _, end in server) == pytest.approx(6.15, rel=0.01)
    waits = [text.get_text() for text in figure.axes[1].texts]
    assert waits == ["waits 33 %", "waits 65 %"]


def test_the_figure_shows_sleep_and_waking(tmp_path: Path) -> None:
    made = rows(tmp_path, COLOCATED, ASLEEP)
    with settings():
        figure = placement_figure(made, "here", "")
        assert_texts_are_apart(figure)
    (legend,) = figure.legends
    assert "sleep, wake" in [text.get_text() for text in legend.get_texts()]
    assert figure.axes[1].get_title(loc="left") == "bf16 sleep-1+where-colocated: 3.44 s"
    assert [text.get_text() for text in figure.axes[1].texts] == ["waits 0 %"] * 2


def test_the_figure_shows_as_many_as_fit_and_says_how_many_are_left_out(tmp_path: Path) -> None:
    specs = [placed_spec(1, setting=f"try-{number}", args={"max_num_seqs": number}) for number in range(1, 9)]
    made = rows(tmp_path, *specs)
    with settings():
        figure = placement_figure(made, "here", "")
        assert_texts_are_apart(figure)
        empty = placement_figure([], "here", "")
    assert len(figure.axes) == MOST_PANELS
    assert "want of room: 2 of 8." in " ".join(text.get_text() for text in figure.texts)
    assert not empty.axes


def test_a_step_of_many_devices_fits(tmp_path: Path) -> None:
    made = rows(tmp_path, placed_spec(devices=8), placed_spec(1, devices=8), placed_spec(4, devices=8))
    with settings():
        figure = placement_figure(made, "here", "")
        assert_texts_are_apart(figure)
    assert len(figure.axes) == 3
