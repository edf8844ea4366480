"""With how many sequences speculative decoding pays: over loads of several sizes, and as the step of a rollout ends."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from synthetic_records import PROMPT_TOKENS, make_plan, make_record, make_spec, save
from synthetic_rollouts import rollout_record, rollout_spec

from rollout_bench.analysis.speculation.draft_gains import courses_of
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import Collection
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.record import DecodeSteps, Drafting, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.report.figures.drafting_figures import drafting_figure
from rollout_bench.report.summary import Summary, summarise

NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}
LAUNCHES = 4
DONE = Drafting(drafts=200, draft_tokens=600, accepted_tokens=240, accepted_by_position=[120, 80, 40])


def wobble(spec: Spec, launch: int) -> float:
    """Return a factor by which launches differ, on each side by others of them."""
    return 1 + (launch % 3 if spec.setting == "ngram" else launch % 2) / 1000


def sized(prompts: int) -> Spec:
    """Return the spec of as many prompts, of one sequence each."""
    spec = make_spec(workload=f"load{prompts}", args={"max_num_seqs": 256})
    workload = spec.workload.model_copy(update={"prompts": prompts, "samples_per_prompt": 1})
    return spec.model_copy(update={"workload": workload})


def with_drafts(spec: Spec) -> Spec:
    engine = spec.engine.model_copy(update={"args": {**spec.engine.args, "speculative_config": NGRAM}})
    return spec.model_copy(update={"engine": engine, "setting": "ngram"})


def over_batches(results: Path, speedups: Mapping[int, float], longer: int = 0) -> Collection:
    """Return loads of some numbers of sequences, each without drafts and with them, so many times as fast.

    Prompts of the one with `longer` sequences have a token more.
    """
    specs = []
    for size, speedup in speedups.items():
        plain = sized(size)
        if size == longer:
            workload = plain.workload.model_copy(update={"prompt_tokens": PROMPT_TOKENS + 1})
            plain = plain.model_copy(update={"workload": workload})
        for spec, rate in ((plain, 400.0), (with_drafts(plain), 400.0 * speedup)):
            specs.append(spec)
            for launch in range(LAUNCHES):
                record = make_record(spec, launch, [rate * wobble(spec, launch)] * 3)
                done = DONE if spec.setting == "ngram" else None
                passes = [one.model_copy(update={"drafting": done}) for one in record.iterations]
                save(results, record.model_copy(update={"iterations": passes}))
    return collect(results, make_plan(specs, LAUNCHES, baseline={"setting": "default"}))


def first_sentence(made: Summary) -> str:
    (section,) = [section for section in made.answers if section.heading == "Speculative decoding"]
    return section.items[0]


@pytest.mark.parametrize(
    ("speedups", "said"),
    [
        ({1: 1.5, 8: 1.3, 64: 0.8}, ("drafting pays up to 8 (1.30", "and costs more than it saves from 64 on (0.80")),
        ({64: 0.8, 1: 0.7}, ("drafting costs more than it saves at every number measured, 1 (0.70", "to 64 (0.80")),
        ({1: 1.5, 8: 1.3}, ("drafting pays at every number measured, 1 (1.50", "to 8 (1.30")),
        ({1: 0.9, 8: 1.3, 64: 0.9}, ("drafting pays at 8 (1.30", "costs more than it saves at 1 (0.90", "64 (0.90")),
        ({1: 1.5, 8: 1.0003}, ("drafting pays up to 1 (1.50", "; inconclusive at 8.")),
        ({1: 1.0001, 8: 1.0003}, ("at once: inconclusive at 1 and 8.",)),
    ],
)
def test_the_first_sentence_says_up_to_how_many_sequences_it_pays(
    tmp_path: Path, speedups: dict[int, float], said: Sequence[str]
) -> None:
    item = first_sentence(summarise(over_batches(tmp_path, speedups)))
    assert item.startswith("qwen3-90m bf16 ngram, offline, by sequences at once: ")
    assert [words for words in said if words not in item] == []


def test_a_table_and_a_file_have_each_number_of_sequences(tmp_path: Path) -> None:
    made = summarise(over_batches(tmp_path, {1: 1.5, 8: 1.3, 64: 0.8}))
    (view,) = [view for view in made.views.tables if view.title.startswith("Speculative decoding over the batch: ")]
    lines = [dict(zip((column.header for column in view.columns), line, strict=True)) for line in view.cells]
    assert [line["sequences at once"] for line in lines] == ["1", "8", "64"]
    assert [line["accepted %"] for line in lines] == ["40.0"] * 3
    assert [line["speed-up by drafts"].split()[1] for line in lines] == ["^", "^", "v"]
    saved = list(csv.DictReader(io.StringIO(made.tables["drafting_gains.csv"])))
    assert [(line["over"], line["sequences_high"], line["verdict"]) for line in saved] == [
        ("batch", "1", "faster"),
        ("batch", "8", "faster"),
        ("batch", "64", "slower"),
    ]
    assert [float(line["rate"]) / float(line["plain_rate"]) for line in saved] == pytest.approx(
        [1.5, 1.3, 0.8], rel=0.01
    )


def test_one_load_makes_no_course_over_the_batch(tmp_path: Path) -> None:
    made = summarise(over_batches(tmp_path, {8: 1.3}))
    assert "drafting_gains.csv" not in made.tables
    assert "over the batch" not in made.markdown


def test_loads_of_other_sequences_are_no_part_of_a_course(tmp_path: Path) -> None:
    collection = over_batches(tmp_path, {1: 1.5, 8: 1.3, 64: 0.8}, longer=64)
    (course,) = courses_of(rows_of(collection), collection.comparison)
    assert [gain.low for gain in course.gains] == [1, 8]


def ending(record: Record, paces: Mapping[int, float]) -> Record:
    """Return `record` with decode steps in which each sequence gets so many tokens per second, by their sequences."""
    steps = [
        DecodeSteps(
            at_most=size,
            steps=100,
            elapsed_s=0.1,
            sequences=100 * size,
            output_tokens=round(pace * wobble(record.spec, record.launch) * size * 0.1),
            draft_tokens=300 if record.spec.setting == "ngram" else None,
            accepted_tokens=150 if record.spec.setting == "ngram" else None,
        )
        for size, pace in paces.items()
    ]
    passes = [
        one.model_copy(
            update={
                "replicas": [part.model_copy(update={"decoding": steps}) for part in one.replicas or ()],
                "drafting": DONE if record.spec.setting == "ngram" else None,
            }
        )
        for one in record.iterations
    ]
    return record.model_copy(update={"iterations": passes})


def rollouts(results: Path, drafted: Mapping[int, float], plain: Mapping[int, float]) -> Collection:
    specs = [rollout_spec(), with_drafts(rollout_spec())]
    for spec, paces in zip(specs, (plain, drafted), strict=True):
        for launch in range(LAUNCHES):
            save(results, ending(rollout_record(spec, launch), paces))
    return collect(results, make_plan(specs, LAUNCHES, baseline={"setting": "default"}))


PLAIN = {1: 40_000.0, 2: 40_000.0, 8: 20_000.0}
DRAFTED = {1: 60_000.0, 2: 50_000.0, 8: 10_000.0, 16: 5_000.0}


def test_the_tail_of_a_step_is_compared_by_the_pace_of_a_sequence(tmp_path: Path) -> None:
    made = summarise(rollouts(tmp_path, DRAFTED, PLAIN))
    item = first_sentence(made)
    assert item.startswith("qwen3-90m bf16 ngram small, by sequences left in a step: drafting pays up to 2 (1.25")
    assert "and costs more than it saves from 5 on (0.500" in item
    assert "Steps in which it pays take" in item
    (view,) = [view for view in made.views.tables if view.title.startswith("Speculative decoding as a step ends: ")]
    lines = [dict(zip((column.header for column in view.columns), line, strict=True)) for line in view.cells]
    assert [line["sequences left"] for line in lines] == ["1", "2", "5 to 8"]  # 16 has nothing to compare with
    assert lines[0]["accepted %"] == "50.0"


def test_launches_that_were_not_asked_after_each_step_have_no_tail(tmp_path: Path) -> None:
    made = summarise(rollouts(tmp_path, {}, {}))
    assert "as a step ends" not in made.markdown


def test_the_figure_has_a_panel_for_loads_and_one_for_steps(tmp_path: Path) -> None:
    for name, collection, title in (
        ("loads", over_batches(tmp_path / "loads", {1: 1.5, 8: 1.3}), "Over the batch"),
        ("steps", rollouts(tmp_path / "steps", DRAFTED, PLAIN), "As a step ends"),
    ):
        figure = drafting_figure(rows_of(collection), collection.comparison, None, "here", "")
        (axes,) = figure.axes
        assert axes.get_title(loc="left") == title, name
    none = over_batches(tmp_path / "none", {8: 1.3})
    assert drafting_figure(rows_of(none), none.comparison, None, "here", "").axes == []
