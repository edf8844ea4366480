"""From which accepted length drafts pay, in made records whose cost of a step is known."""

from pathlib import Path

import pytest
from drawn import assert_texts_are_apart
from synthetic_records import (
    OUTPUT_TOKENS,
    SEQUENCES,
    changed,
    make_plan,
    make_record,
    make_sequences,
    make_spec,
    save,
)

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.record import Drafting, Iteration, Record, SequenceRow
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.figures.charts import Lines, draw, figure_settings
from rollout_bench.report.figures.pictures import drawings
from rollout_bench.report.parts import Findings
from rollout_bench.report.summary import summary_of

NOISE = (1.0, 1.004, 0.997, 1.002)
"""What the time of each launch is times."""

TOKENS = 3
"""Tokens of a draft."""

DECODED = OUTPUT_TOKENS - 1
"""Tokens of a sequence after the first, which prefill generates."""


def drafting_spec(length: float | None, prompts: int = 8, **more: object) -> Spec:
    config = {"method": "eagle3", "model": "a/draft", "num_speculative_tokens": TOKENS, **more}
    spec = make_spec(workload=f"w{prompts}", args={"speculative_config": config} if length else {}, prompts=prompts)
    return spec.model_copy(update={"setting": f"length-{length}"}) if length else spec


def records(spec: Spec, length: float, step_s: float, prefill_s: float) -> list[Record]:
    """Return launches whose steps need `step_s` whatever they accept; `length` is that of all steps."""
    steps = DECODED / length
    made = []
    for launch, noise in enumerate(NOISE):
        time_s = (prefill_s + steps * step_s) * (1 if length == 1 and step_s == 1 else noise)
        record = make_record(spec, launch, rates=[SEQUENCES * OUTPUT_TOKENS / time_s] * 3)
        made.append(changed(record, lambda _: {"drafting": drafting(round(SEQUENCES * steps), length)}))
    return made


def drafting(drafts: int, length: float) -> Drafting:
    accepted = round(drafts * (length - 1))
    return Drafting(drafts=drafts, draft_tokens=TOKENS * drafts, accepted_tokens=accepted, accepted_by_position=[])


def sentences(results: Path, *launches: list[Record]) -> list[str]:
    save(results, *(record for each in launches for record in each))
    specs = [each[0].spec for each in launches]
    plan = make_plan(specs, len(NOISE), baseline={"setting": "default"})
    first, *_ = summary_of(results, collect(results, plan)).answers
    return [line for line in (first.lead, *first.items) if "drafts (" in line]


def plain(prefill_s: float = 0, prompts: int = 8) -> list[Record]:
    return [
        record.model_copy(update={"iterations": [without_drafts(one) for one in record.iterations]})
        for record in records(drafting_spec(None, prompts), 1, 1, prefill_s)
    ]


def without_drafts(iteration: Iteration) -> Iteration:
    return iteration.model_copy(update={"drafting": None})


@pytest.mark.parametrize("length", [1.25, 2.5])
def test_drafts_pay_from_the_cost_of_their_step_on(tmp_path: Path, length: float):
    (sentence,) = sentences(tmp_path, plain(), records(drafting_spec(length), length, 1.6, 0))
    assert "drafts (eagle3, 3 tokens) pay from an accepted length of 1.60 [1." in sentence
    assert f"here it was {length:.3g}" in sentence
    assert "not real" not in sentence


@pytest.mark.parametrize(("step_s", "words"), [(4.5, "cannot pay"), (0.9, "pay at any accepted length")])
def test_drafts_that_never_or_always_pay_are_said_to(tmp_path: Path, step_s: float, words: str):
    (sentence,) = sentences(tmp_path, plain(), records(drafting_spec(2), 2, step_s, 0))
    assert words in sentence


NGRAM = {"method": "ngram", "model": None}


def with_drafts(made: list[Record], share: float, length: float) -> list[Record]:
    """Return launches whose steps have a draft in that share only, with that accepted length."""
    steps = SEQUENCES * DECODED / (1 + share * (length - 1))
    return [changed(record, lambda _: {"drafting": drafting(round(share * steps), length)}) for record in made]


def test_ngrams_pay_from_a_length_of_the_steps_that_have_a_draft(tmp_path: Path):
    spec = drafting_spec(2, **NGRAM)
    # half of the steps have a draft of 2.5 tokens, and cost 1.6 in place of 1
    launches = with_drafts(records(spec, 1.75, 1.3, 0), 0.5, 2.5)
    (sentence,) = sentences(tmp_path, plain(), launches)
    assert "drafts (ngram, 3 tokens) pay from an accepted length of 1.60 [1.5" in sentence
    assert sentence.endswith("here it was 2.50, in 50 % of the steps.")


@pytest.mark.parametrize(
    ("share", "words"), [(0.001, "here it was 2.00, in 0.10 % of the steps."), (0, "here no step had a draft.")]
)
def test_what_a_few_drafts_do_not_show_is_not_said(tmp_path: Path, share: float, words: str):
    spec = drafting_spec(2, **NGRAM)
    (sentence,) = sentences(tmp_path, plain(), with_drafts(records(spec, 1 + share, 1.001, 0), share, 2))
    assert "drafts (ngram, 3 tokens) pay from an accepted length on that is not known" in sentence
    assert sentence.endswith(words)


def test_drafts_by_batch_size_have_no_break_even(tmp_path: Path):
    ranges = {"num_speculative_tokens_per_batch_size": [[1, 8, 3], [9, 64, 1]]}
    assert not sentences(tmp_path, plain(), records(drafting_spec(2, **ranges), 2, 1.6, 0))


def test_lengths_on_both_sides_of_the_break_even_have_no_bias_by_prefill(tmp_path: Path):
    prefill_s = DECODED  # half of the baseline's time
    synthetic = {"rejection_sample_method": "synthetic"}
    asked = {
        length: drafting_spec(length, **synthetic, synthetic_acceptance_length=length) for length in (1.0, 1.25, 2.5)
    }
    launches = [records(spec, length, 1.6, prefill_s) for length, spec in asked.items()]
    (sentence,) = sentences(tmp_path / "three", plain(prefill_s), *launches)
    assert "pay from an accepted length of 1.60 [" in sentence
    assert "here it was 1.00, 1.25, 2.50 (accepted by chance, so the text is not real)" in sentence
    (sentence,) = sentences(tmp_path / "one", plain(prefill_s), launches[2])
    assert "pay from an accepted length of 2.05 [" in sentence  # half of the distance to 2.5


def with_tail(record: Record, tail_s: float) -> tuple[Record, list[SequenceRow]]:
    """Return a record whose last sequence is complete so many seconds after all others."""
    rows = make_sequences(record)
    last = max(row.sample + record.spec.workload.samples_per_prompt * row.prompt for row in rows)
    ends = {each.index: each.elapsed_s for each in record.iterations}
    return record, [
        row.model_copy(
            update={
                "last_token_s": ends[row.iteration]
                - tail_s * (row.sample + record.spec.workload.samples_per_prompt * row.prompt != last)
            }
        )
        for row in rows
    ]


def test_the_tail_alone_has_a_break_even_of_its_own_where_acceptance_is_asked_for(tmp_path: Path):
    spec = drafting_spec(2.5, rejection_sample_method="synthetic", synthetic_acceptance_length=2.5)
    base, drafted = plain(), records(spec, 2.5, 1.6, 0)
    save(tmp_path, *(with_tail(record, 1.0) for record in base))
    cost_s = 1.2  # of a step with few sequences
    save(tmp_path, *(with_tail(record, cost_s / 2.5 * noise) for record, noise in zip(drafted, NOISE, strict=True)))
    metrics = ComparisonSettings(metrics={"offline": ["output_tokens_per_s", "tail_s"]})
    plan = make_plan([base[0].spec, spec], len(NOISE), baseline={"setting": "default"}, comparison=metrics)
    first, *_ = summary_of(tmp_path, collect(tmp_path, plan)).answers
    text = " ".join([first.lead, *first.items])
    assert "drafts (eagle3, 3 tokens) pay from an accepted length of 1.60 [1." in text
    assert "; from t90 on, they pay from an accepted length of 1.20 [1." in text


def test_a_baseline_with_drafts_has_no_break_even(tmp_path: Path):
    with_drafts = drafting_spec(2).model_copy(update={"setting": None})
    assert not sentences(tmp_path, records(with_drafts, 2, 1, 0), records(drafting_spec(2.5), 2.5, 1.6, 0))


def test_a_figure_has_the_break_even_of_each_number_of_sequences(tmp_path: Path):
    costs = {8: 1.2, 64: 1.6, 256: 2.4}
    made = {
        prompts: (plain(0, prompts), records(drafting_spec(2, prompts), 2, cost, 0)) for prompts, cost in costs.items()
    }
    save(tmp_path, *(record for sides in made.values() for side in sides for record in side))
    specs = [side[0].spec for sides in made.values() for side in sides]
    findings = Findings(collect(tmp_path, make_plan(specs, len(NOISE), baseline={"setting": "default"})), tmp_path)
    chart = drawings()["drafts"](findings)
    ((line,),) = (panel.lines for panel in chart.panels if isinstance(panel, Lines))
    each = SEQUENCES // 8
    assert {count: round(at, 2) for count, at in line.points} == {each * prompts: at for prompts, at in costs.items()}
    assert all(low < at < high for (_, at), (_, low, high) in zip(line.points, line.band, strict=True))
    assert chart.title == "Drafts pay from an accepted length of 1.20 with 32 sequences, 2.40 with 1,024 sequences"
    with figure_settings():
        assert_texts_are_apart(draw(chart, "", "On a machine."))
    one = Findings(collect(tmp_path, make_plan(specs[:2], len(NOISE), baseline={"setting": "default"})), tmp_path)
    assert not drawings()["drafts"](one).panels
